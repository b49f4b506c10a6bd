//! The password and the API key that a first start or `toolyard reset-password` makes: shown where only the person who started it looks.
//!
//! That is the terminal. Without one, standard output is a log (journald, a container's, a file of CI) that is kept,
//! shipped and read by others, so they go into a file of the data directory that only its owner can read.

use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use toolyard_control::FirstSignIn;
use toolyard_types::Secret;

const FILE: &str = "first-sign-in.txt";

/// What there is to show, once.
pub(crate) struct First<'a> {
    pub(crate) url: &'a str,
    pub(crate) sign_in: Option<FirstSignIn>,
    pub(crate) key: Option<&'a Secret>,
}

impl First<'_> {
    /// Shows it on the terminal, or puts it into a file of `data_dir` and says where.
    ///
    /// # Errors
    /// When the file cannot be written; the text says what to do.
    pub(crate) fn show(&self, data_dir: &Path) -> Result<(), String> {
        if self.sign_in.is_none() && self.key.is_none() {
            return Ok(());
        }
        if io::stdout().is_terminal() {
            if let Some(first) = &self.sign_in {
                println!("first sign-in, shown once: {} / {}", first.email, first.password.expose());
            }
            if let Some(key) = self.key {
                println!("for the command line, shown once:");
                println!("  {}", self.export(key));
            }
            return Ok(());
        }
        let path = write_file(data_dir, &self.text())?;
        println!("first sign-in, in a file that only its owner can read: {}", path.display());
        Ok(())
    }

    /// In the form of a shell script that makes the command line work.
    fn text(&self) -> String {
        let mut text = String::from("# The first sign-in of this Toolyard. Remove this file when it was used.\n");
        if let Some(first) = &self.sign_in {
            text.push_str(&sign_in_text(first, Some(self.url)));
        }
        if let Some(key) = self.key {
            text.push_str(&format!("{}\n", self.export(key)));
        }
        text
    }

    fn export(&self, key: &Secret) -> String {
        format!("export TOOLYARD_URL={} TOOLYARD_API_KEY={}", self.url, key.expose())
    }
}

/// Shows a password that was set anew like a first one, as text or JSON. Where the console is, whoever has the host may not
/// know: what `serve` was told on its command line is written nowhere.
///
/// # Errors
/// When the file cannot be written, or standard output; the text says what to do, and where the file is.
pub(crate) fn show_reset(
    reset: &FirstSignIn,
    console: Option<&str>,
    data_dir: &Path,
    json: bool,
) -> Result<(), String> {
    let on_terminal = io::stdout().is_terminal();
    let file = if on_terminal {
        None
    } else {
        let text = "# A new password, made by `toolyard reset-password`. Remove this file when it was used.\n";
        Some(write_file(data_dir, &format!("{text}{}", sign_in_text(reset, console)))?)
    };
    let text = if json {
        format!("{:#}", reset_json(reset, console, file.as_deref()))
    } else {
        let shown = match &file {
            None => format!("sign-in, shown once: {} / {}", reset.email, reset.password.expose()),
            Some(file) => format!("sign-in, in a file that only its owner can read: {}", file.display()),
        };
        format!("a new password was set; the member's sessions have ended\n{shown}")
    };
    print_reset(io::stdout(), &text, file.as_deref())
}

/// A password that was set and not shown locks out, and what was not told is not done, even to a reader that went away.
fn print_reset(mut to: impl Write, text: &str, file: Option<&Path>) -> Result<(), String> {
    writeln!(to, "{text}").and_then(|()| to.flush()).map_err(|error| {
        let way_out = match file {
            None => "`toolyard reset-password` makes another one".to_owned(),
            Some(file) => format!("it is in a file that only its owner can read: {}", file.display()),
        };
        format!("a new password was set, but cannot be told on standard output: {error}; {way_out}")
    })
}

/// The password itself only where it is nowhere else.
fn reset_json(reset: &FirstSignIn, console: Option<&str>, file: Option<&Path>) -> Value {
    let password = file.is_none().then(|| reset.password.expose());
    json!({ "email": reset.email, "password": password, "file": file, "console": console })
}

fn sign_in_text(sign_in: &FirstSignIn, console: Option<&str>) -> String {
    let console = console.map_or_else(String::new, |url| format!("# console: {url}/\n"));
    format!("{console}# e-mail address: {}\n# password: {}\n", sign_in.email, sign_in.password.expose())
}

/// Writes the file that only its owner can read; where it is.
fn write_file(data_dir: &Path, text: &str) -> Result<PathBuf, String> {
    let path = data_dir.join(FILE);
    write_private(&path, text).map_err(|error| {
        format!(
            "cannot write the sign-in to `{}`: {error}; make room there, then `toolyard reset-password` makes a new one",
            path.display()
        )
    })?;
    Ok(std::path::absolute(&path).unwrap_or(path))
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // New, so that its mode is what is said here and nothing is followed.
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sign_in() -> FirstSignIn {
        FirstSignIn { email: "ada@example.org".into(), password: Secret::new("made-up") }
    }

    #[test]
    fn a_console_that_is_not_known_is_not_named() {
        assert_eq!(sign_in_text(&sign_in(), None), "# e-mail address: ada@example.org\n# password: made-up\n");
        let known = sign_in_text(&sign_in(), Some("https://toolyard.example.com"));
        assert!(known.starts_with("# console: https://toolyard.example.com/\n"), "{known}");
    }

    #[test]
    fn a_reset_that_cannot_be_told_fails_and_says_where_the_password_is() {
        let file = Path::new("/data/first-sign-in.txt");
        let mut full = [0; 4];
        let told = print_reset(&mut full[..], "made-up", Some(file)).expect_err("no room");
        assert!(told.contains("/data/first-sign-in.txt") && !told.contains("made-up"), "{told}");
        let told = print_reset(&mut full[..], "made-up", None).expect_err("no room");
        assert!(told.contains("makes another one") && !told.contains("made-up"), "{told}");
        let mut room = Vec::new();
        assert_eq!(print_reset(&mut room, "made-up", None), Ok(()));
        assert_eq!(room, b"made-up\n");
    }

    #[test]
    fn a_password_that_is_in_a_file_is_not_in_the_output() {
        let shown = reset_json(&sign_in(), None, Some(Path::new("/data/first-sign-in.txt"))).to_string();
        assert!(shown.contains("/data/first-sign-in.txt") && !shown.contains("made-up"), "{shown}");
        assert_eq!(reset_json(&sign_in(), None, None)["password"], "made-up");
    }
}
