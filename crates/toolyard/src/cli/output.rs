//! Printing: tables for people, JSON for programs.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use serde::Serialize;
use serde_json::{Value, json};
use toolyard_types::api::Page;
use toolyard_types::name::is_hidden;

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs; lists are `{"items": [...]}`, a server's log is one object a line.
    Json,
}

/// Text of a server or a person, made safe for a terminal: invisible characters and controls escaped.
pub(crate) fn safe(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// The same over several lines, of which all but the first are set in, so that none looks like one of ours.
fn lines(text: &str, indent: usize) -> String {
    let between = format!("\n{}", " ".repeat(indent));
    text.trim_end().lines().map(safe).collect::<Vec<_>>().join(&between)
}

/// Prints a value as JSON.
pub(crate) fn print_json(value: &impl Serialize) {
    let text = serde_json::to_string_pretty(value).expect("our answers serialise");
    print_line(&text);
}

/// Prints a line; a reader that went away ends the program quietly, a disk that is full does not.
pub(crate) fn print_line(text: &str) {
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            eprintln!("toolyard: cannot write to standard output: {error}");
            std::process::exit(1);
        }
    }
}

/// Prints what went wrong as JSON; whether or not anybody reads it, the exit code tells.
pub(crate) fn print_failure(value: &Value) {
    println!("{value:#}");
}

/// Prints a list: a table with `heads`, or `{"items": [...]}`.
pub(crate) fn print_list<T: Serialize>(format: Format, items: &[T], heads: &[&str], row: impl Fn(&T) -> Vec<String>) {
    if format == Format::Json {
        return print_json(&json!({ "items": items }));
    }
    if items.is_empty() {
        return print_line("nothing yet");
    }
    let rows: Vec<Vec<String>> = items.iter().map(|item| row(item).iter().map(|cell| safe(cell)).collect()).collect();
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).chain([heads[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    print_line(&line(heads.to_vec()));
    for row in &rows {
        print_line(&line(row.iter().map(String::as_str).collect()));
    }
}

/// Prints the newest or best of a list that is too long to be shown whole, and says on standard error when there is more.
pub(crate) fn print_first<T: Serialize>(
    format: Format,
    page: &Page<T>,
    heads: &[&str],
    row: impl Fn(&T) -> Vec<String>,
) {
    print_list(format, &page.items, heads, row);
    if page.next_cursor.is_some() {
        eprintln!(
            "toolyard: these are the first {}, and there are more; --limit shows as many as it says",
            page.items.len()
        );
    }
}

/// Prints one thing: `name: value` lines, or JSON.
pub(crate) fn print_fields<T: Serialize>(format: Format, value: &T, fields: &[(&str, String)]) {
    if format == Format::Json {
        return print_json(value);
    }
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 1;
    for (name, text) in fields.iter().filter(|(_, text)| !text.is_empty()) {
        print_line(&format!("{:width$} {}", format!("{name}:"), lines(text, width + 1)));
    }
}

/// Says something about work under way, on standard error, when a person watches.
pub(crate) fn progress(format: Format, text: &str) {
    if format == Format::Table && std::io::stderr().is_terminal() {
        eprintln!("{}", safe(text));
    }
}

/// Says what went wrong and gives the exit code.
pub(crate) fn fail(message: &str, code: u8) -> ExitCode {
    eprintln!("toolyard: {}", lines(message, 2));
    ExitCode::from(code)
}

/// Any value as one table cell.
pub(crate) fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::{lines, safe};

    #[test]
    fn a_message_of_several_lines_is_shown_as_such_and_set_in() {
        assert_eq!(lines("npm said:\nE404\u{1b}[2J\n", 2), "npm said:\n  E404\\u{1b}[2J");
    }

    #[test]
    fn hostile_text_cannot_steer_the_terminal() {
        assert_eq!(safe("a\u{1b}[31mb\u{202e}c\nd"), "a\\u{1b}[31mb\\u{202e}c\\nd");
    }
}
