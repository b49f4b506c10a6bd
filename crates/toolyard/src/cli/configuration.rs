//! `toolyard config`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::{Value, json};

use super::output::{self, Format, cell};
use super::{EXIT_CONFIG, SettingsArgs};
use crate::config::{Insecure, Survey, docs, insecure_in_production, process_environment, survey};
use crate::preflight;

/// `toolyard config ...`
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Tell what is wrong with the configuration; exit code 78 when `serve` would refuse it.
    Check(SettingsArgs),
    /// Print every setting with where it came from; secrets are redacted. Exit code 78 when one is wrong.
    Show(SettingsArgs),
}

/// Runs `toolyard config`.
pub(crate) fn run(command: Command, format: Format) -> ExitCode {
    let (args, show) = match &command {
        Command::Check(args) => (args, false),
        Command::Show(args) => (args, true),
    };
    let environment = process_environment();
    let (dir, overrides) = (Path::new("."), args.overrides());
    let survey = match survey(&environment, dir, &overrides) {
        Ok(survey) => survey,
        Err(error) => return refuse(&error.0, &[], format),
    };
    if show {
        return print_settings(&survey, format);
    }
    check(&survey, &insecure_in_production(&environment, dir, &overrides), &environment, format)
}

/// Says what is wrong with the configuration, and gives the exit code.
pub(crate) fn refuse(problems: &[String], warnings: &[String], format: Format) -> ExitCode {
    if format == Format::Json {
        output::print_json(&json!({ "ok": false, "problems": problems, "warnings": warnings }));
    }
    for problem in problems {
        output::fail(problem, EXIT_CONFIG);
    }
    ExitCode::from(EXIT_CONFIG)
}

fn check(survey: &Survey, insecure: &[Insecure], environment: &BTreeMap<String, String>, format: Format) -> ExitCode {
    // Whether there is a member already is in the database, which is not asked.
    let first_start = survey.first_start.iter().map(|why| format!("a first start is refused: {why}"));
    let warnings: Vec<String> = survey.warnings.iter().cloned().chain(first_start).collect();
    for warning in &warnings {
        eprintln!("toolyard: warning: {warning}");
    }
    let mut refused: Vec<String> = survey.problems.iter().map(|wrong| wrong.told.clone()).collect();
    if refused.is_empty() {
        refused = preflight::refused(&survey.settings, environment);
        refused.extend(preflight::unreadable(&survey.settings));
    }
    if !refused.is_empty() {
        return refuse(&refused, &warnings, format);
    }
    let insecure: Vec<String> = insecure.iter().map(ToString::to_string).collect();
    if format == Format::Json {
        output::print_json(&json!({
            "ok": true,
            "environment": survey.settings.env.to_string(),
            "problems": [],
            "warnings": warnings,
            "production_refuses": insecure,
        }));
        return ExitCode::SUCCESS;
    }
    output::print_line(&format!("the configuration for {} is valid", survey.settings.env));
    for insecure in insecure {
        output::print_line(&format!("production would refuse {insecure}"));
    }
    ExitCode::SUCCESS
}

/// A URL, such as a proxy's or a registry's, may hold a user and password.
fn without_password(url: &str) -> String {
    match url.split_once("://").map(|(scheme, rest)| (scheme, rest.rsplit_once('@'))) {
        Some((scheme, Some((_, host)))) => format!("{scheme}://[redacted]@{host}"),
        _ => url.to_owned(),
    }
}

fn print_settings(survey: &Survey, format: Format) -> ExitCode {
    let values = serde_json::to_value(&survey.settings).unwrap_or_default();
    let items: Vec<Value> = docs::fields()
        .into_iter()
        .map(|field| {
            let problem = survey.problems.iter().find(|wrong| wrong.setting.as_ref() == Some(&field.name));
            let value = match &values[&field.name] {
                _ if problem.is_some() => Value::Null,
                Value::Null => Value::Null,
                _ if field.secret => Value::from("[redacted]"),
                Value::String(text) => Value::from(without_password(text)),
                value => value.clone(),
            };
            let origin = survey.origins.get(&field.name).map_or("default".into(), ToString::to_string);
            let mut item = json!({ "name": field.name, "value": value, "origin": origin });
            if let Some(wrong) = problem {
                item["problem"] = json!(wrong.told);
            }
            item
        })
        .collect();
    output::print_list(format, &items, &["SETTING", "VALUE", "FROM"], |item| {
        let value = if item["problem"].is_null() { cell(&item["value"]) } else { "(wrong)".to_owned() };
        vec![cell(&item["name"]), value, cell(&item["origin"])]
    });
    if survey.problems.is_empty() {
        return ExitCode::SUCCESS;
    }
    for wrong in &survey.problems {
        output::fail(&wrong.told, EXIT_CONFIG);
    }
    ExitCode::from(EXIT_CONFIG)
}

#[cfg(test)]
mod tests {
    use super::without_password;

    #[test]
    fn a_proxys_password_is_not_shown() {
        assert_eq!(without_password("http://me:p@ss@proxy:3128"), "http://[redacted]@proxy:3128");
        assert_eq!(without_password("http://proxy:3128"), "http://proxy:3128");
    }
}
