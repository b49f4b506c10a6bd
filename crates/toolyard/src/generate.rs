//! The contents of the generated files, for `cargo xtask generate`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use toolyard_types::Code;

use crate::cli;
use crate::config::docs;

/// Prints one generated file.
pub(crate) fn print(what: &str) -> ExitCode {
    let text = match what {
        "env-example" => docs::env_example(),
        "configuration" => docs::reference(),
        "settings-schema" => json(&docs::schema()),
        "problems" => problems(),
        "cli" => cli::reference(),
        "openapi" => json(&toolyard_control::openapi()),
        other => {
            eprintln!("toolyard: there is no generated file `{other}`");
            return ExitCode::from(2);
        }
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("toolyard: cannot print the file: {error}");
            ExitCode::FAILURE
        }
    }
}

fn json(value: &impl serde::Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("generated documents serialise");
    text.push('\n');
    text
}

fn problems() -> String {
    let mut out = String::from(
        "# Problem codes\n\n<!-- Generated from the table of codes: `cargo xtask generate`. Do not edit. -->\n\n\
         Every error of the API is `application/problem+json` (RFC 9457) with one of these codes, a detail for a \
         person, and the request id to find the log lines.\n\n| code | status | meaning | what to do |\n| --- | --- | --- | --- |\n",
    );
    for code in Code::ALL {
        let name = code.as_str();
        let _ =
            writeln!(out, "| <a id=\"{name}\"></a>`{name}` | {} | {} | {} |", code.status(), code.title(), code.help());
    }
    out
}
