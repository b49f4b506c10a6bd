//! `toolyard config`.

use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::{Value, json};

use super::output::{self, Format, cell};
use super::{EXIT_CONFIG, SettingsArgs};
use crate::config::{Loaded, docs, insecure_settings, load, process_environment};

/// `toolyard config ...`
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Tell what is wrong with the configuration; exit code 78 when `serve` would refuse it.
    Check(SettingsArgs),
    /// Print every setting with where it came from; secrets are redacted.
    Show(SettingsArgs),
}

/// Runs `toolyard config`.
pub(crate) fn run(command: Command, format: Format) -> ExitCode {
    let (args, show) = match &command {
        Command::Check(args) => (args, false),
        Command::Show(args) => (args, true),
    };
    let loaded = match load(&process_environment(), Path::new("."), &args.overrides()) {
        Ok(loaded) => loaded,
        Err(error) => return refuse(&error.0, &[], format),
    };
    if show { print_settings(&loaded, format) } else { check(&loaded, format) }
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

fn check(loaded: &Loaded, format: Format) -> ExitCode {
    for warning in &loaded.warnings {
        eprintln!("toolyard: warning: {warning}");
    }
    let refused = texts(&loaded.settings.refused());
    if !refused.is_empty() {
        return refuse(&refused, &loaded.warnings, format);
    }
    let insecure = texts(&insecure_settings(&loaded.settings));
    if format == Format::Json {
        output::print_json(&json!({
            "ok": true,
            "environment": loaded.settings.env.to_string(),
            "problems": [],
            "warnings": loaded.warnings,
            "production_refuses": insecure,
        }));
        return ExitCode::SUCCESS;
    }
    output::print_line(&format!("the configuration for {} is valid", loaded.settings.env));
    for insecure in insecure {
        output::print_line(&format!("production would refuse {insecure}"));
    }
    ExitCode::SUCCESS
}

fn texts(found: &[impl ToString]) -> Vec<String> {
    found.iter().map(ToString::to_string).collect()
}

/// A URL, such as a proxy's or a registry's, may hold a user and password.
fn without_password(url: &str) -> String {
    match url.split_once("://").map(|(scheme, rest)| (scheme, rest.rsplit_once('@'))) {
        Some((scheme, Some((_, host)))) => format!("{scheme}://[redacted]@{host}"),
        _ => url.to_owned(),
    }
}

fn print_settings(loaded: &Loaded, format: Format) -> ExitCode {
    let values = serde_json::to_value(&loaded.settings).unwrap_or_default();
    let items: Vec<Value> = docs::fields()
        .into_iter()
        .map(|field| {
            let value = match &values[&field.name] {
                Value::Null => Value::Null,
                _ if field.secret => Value::from("[redacted]"),
                Value::String(text) => Value::from(without_password(text)),
                value => value.clone(),
            };
            let origin = loaded.origins.get(&field.name).map_or("default".into(), ToString::to_string);
            json!({ "name": field.name, "value": value, "origin": origin })
        })
        .collect();
    output::print_list(format, &items, &["SETTING", "VALUE", "FROM"], |item| {
        vec![cell(&item["name"]), cell(&item["value"]), cell(&item["origin"])]
    });
    ExitCode::SUCCESS
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
