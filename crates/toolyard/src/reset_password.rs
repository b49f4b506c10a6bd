//! `toolyard reset-password`: the way back in for whoever has the host but no password any more.

use std::path::Path;
use std::process::ExitCode;

use toolyard_store::{Location, Store};
use toolyard_types::Clock;

use crate::agent::chain;
use crate::cli::{Failure, Format, refuse_configuration};
use crate::config::{self, Overrides, Settings};
use crate::first_sign_in;
use crate::installation::{OtherKind, other_kind};
use crate::serve;

/// Gives the member of `email`, or the first owner, a new password, and shows it like that of a first start.
pub(crate) async fn main(overrides: &Overrides, email: Option<&str>, format: Format) -> ExitCode {
    let settings = match config::load(&config::process_environment(), Path::new("."), overrides) {
        Ok(loaded) => loaded.settings,
        Err(error) => return refuse_configuration(&error.0, &[], format),
    };
    match reset(&settings, email, format).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => Failure::new(problem).report(format),
    }
}

async fn reset(settings: &Settings, email: Option<&str>, format: Format) -> Result<(), String> {
    let location = serve::location(settings);
    check_used(&location, &settings.data_dir)?;
    let options = serve::store_options(settings, true);
    let opened = Store::open_with(&location, Clock::system(), options).await;
    let store = opened.map_err(|error| match other_kind(&settings.data_dir, &location, &error) {
        Some(OtherKind::Known(problem) | OtherKind::Possible(problem)) => problem,
        None => chain(&error),
    })?;
    let reset = toolyard_control::reset_password(&store, email).await;
    let reset = reset.map_err(|error| serve::with_way_out(&location, chain(&error)));
    store.close().await;
    let console = settings.public_url.as_deref();
    first_sign_in::show_reset(&reset?, console, &settings.data_dir, format == Format::Json)
}

/// What a data directory that was in use holds besides its database; see [`crate::installation`].
const MARKS: [&str; 2] = ["installation", "calls"];

/// A directory that no Toolyard has used is the wrong one: nothing is lost there, and nothing to be put back.
fn check_used(location: &Location, data_dir: &Path) -> Result<(), String> {
    let Location::Sqlite(database) = location else { return Ok(()) };
    if database.exists() || MARKS.iter().any(|mark| data_dir.join(mark).exists()) {
        return Ok(());
    }
    let data_dir = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    Err(format!(
        "no Toolyard has used the data directory `{}`; name the one that `serve` uses with `--data-dir`, or its file of \
         settings with `--config`",
        data_dir.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_was_never_used_is_told_from_one_that_lost_its_database() {
        let dir = tempfile::tempdir().expect("a directory");
        let sqlite = Location::Sqlite(dir.path().join("toolyard.db"));
        let told = check_used(&sqlite, dir.path()).expect_err("never used");
        assert!(told.contains("--data-dir") && !told.contains("backup"), "{told}");
        let postgres = Location::Postgres(toolyard_types::Secret::new("postgres://"));
        assert_eq!(check_used(&postgres, dir.path()), Ok(()));
        std::fs::write(dir.path().join(MARKS[0]), "").expect("a file");
        assert_eq!(check_used(&sqlite, dir.path()), Ok(()), "the store says that it is gone");
    }
}
