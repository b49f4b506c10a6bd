//! The password and the API key that a first start or `toolyard reset-password` makes: shown where only the person who started it looks.
//!
//! That is the terminal. Without one, standard output is a log (journald, a container's, a file of CI) that is kept,
//! shipped and read by others, so they go into a file of the data directory that only its owner can read.

use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

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
        let path = data_dir.join(FILE);
        self.write(&path).map_err(|error| {
            format!(
                "cannot write the first sign-in to `{}`: {error}; make room there, then `toolyard reset-password` makes a new one",
                path.display()
            )
        })?;
        let path = std::path::absolute(&path).unwrap_or(path);
        println!("first sign-in, in a file that only its owner can read: {}", path.display());
        Ok(())
    }

    /// In the form of a shell script that makes the command line work.
    fn write(&self, path: &Path) -> io::Result<()> {
        let mut text = String::from("# The first sign-in of this Toolyard. Remove this file when it was used.\n");
        if let Some(first) = &self.sign_in {
            text.push_str(&format!(
                "# console: {}/\n# e-mail address: {}\n# password: {}\n",
                self.url,
                first.email,
                first.password.expose()
            ));
        }
        if let Some(key) = self.key {
            text.push_str(&format!("{}\n", self.export(key)));
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // New, so that its mode is what is said here and nothing is followed.
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    }

    fn export(&self, key: &Secret) -> String {
        format!("export TOOLYARD_URL={} TOOLYARD_API_KEY={}", self.url, key.expose())
    }
}
