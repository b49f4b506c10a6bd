//! What belongs together: a data directory, a database, and one control plane that uses them.
//!
//! The first start gives the installation an id, which is written into the database and beside it. A data directory that
//! meets an empty database, or another one, was given the wrong one: that is refused, because a control plane that starts
//! empty looks as if everything were lost, and would soon be in use. On Postgres each replica has a data directory of its
//! own, all with the id of their database.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use toolyard_store::{Location, Store, StoreError};
use toolyard_types::InstallationId;

use crate::serve::Failed;

// An agent knows the data directory of a control plane by the names of these: `is_data_dir` in crates/dtma/src/grants.rs.

/// Held by the control plane that uses a data directory; names its process.
const LOCK: &str = "serve.lock";
/// Holds the installation's id.
const FILE: &str = "installation";
/// Holds the kind of its database. Not in the file of the id, of which a release before this one reads all as the id.
const KIND: &str = "database-kind";
/// Where the first version of the program left call records, beside SQLite only.
const CALLS: &str = "calls";

/// Of its agent, in its data directory.
pub(crate) const TOOLBOX: &str = "toolbox";

/// Whether a control plane uses a data directory, or has.
pub(crate) fn is_in(data_dir: &Path) -> bool {
    [LOCK, FILE, "toolyard.db"].iter().any(|mark| data_dir.join(mark).exists())
}

/// Whether an agent uses a data directory, or has, and no control plane does: one that began there before this was refused
/// goes on.
pub(crate) fn is_agents(data_dir: &Path) -> bool {
    ["agent.lock", "identity"].iter().any(|mark| data_dir.join(mark).exists()) && !is_in(data_dir)
}

/// Which kind of database a location is, as it is written beside the installation's id.
fn kind_of(location: &Location) -> &'static str {
    match location {
        Location::Sqlite(_) => "sqlite",
        Location::Postgres(_) => "postgres",
    }
}

/// What a database that is gone means in a data directory whose installation used one of the other kind, or may have: the
/// setting `database_url` is missing, or one too many. `None` of everything else.
pub(crate) fn other_kind(data_dir: &Path, location: &Location, error: &StoreError) -> Option<OtherKind> {
    let StoreError::Gone(_) = error else { return None };
    let kind = std::fs::read_to_string(data_dir.join(KIND)).ok();
    match (location, kind.as_deref().map(str::trim)) {
        (Location::Sqlite(_), Some("postgres")) => Some(OtherKind::Known(
            "this installation uses Postgres, and `database_url` is not set: set it, as a variable \
             (`TOOLYARD_DATABASE_URL`) or in the file of settings"
                .to_owned(),
        )),
        (Location::Postgres(_), Some("sqlite")) => Some(OtherKind::Known(
            "this installation uses the file `toolyard.db` in its data directory, and the database of `database_url` is \
             empty: leave `database_url` out, or begin anew with another, empty data directory"
                .to_owned(),
        )),
        (Location::Sqlite(path), None) if !path.exists() => {
            Some(OtherKind::Possible(format!("{error}; or set `database_url`, if this installation used Postgres")))
        }
        _ => None,
    }
}

/// What to tell of a database that is gone; see [`other_kind`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum OtherKind {
    /// The installation uses a database of the other kind.
    Known(String),
    /// It may: an earlier version did not note the kind.
    Possible(String),
}

/// A data directory that is this process's own until it ends.
#[derive(Debug)]
pub(crate) struct Installation {
    data_dir: PathBuf,
    known: Option<InstallationId>,
    _lock: File,
}

impl Installation {
    /// Takes a data directory, refused while another control plane uses it.
    pub(crate) fn claim(data_dir: &Path) -> Result<Self, String> {
        let lock = lock(&data_dir.join(LOCK), data_dir)?;
        let path = data_dir.join(FILE);
        let known = match std::fs::read_to_string(&path) {
            Ok(text) => Some(text.trim().parse().map_err(|_| {
                format!("`{}` does not hold the id of an installation; put the file back from a backup", path.display())
            })?),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(format!("cannot read `{}`: {error}", path.display())),
        };
        Ok(Self { data_dir: data_dir.to_owned(), known, _lock: lock })
    }

    /// Whether the database must be there already, because this data directory was in use with it.
    pub(crate) fn expects(&self, location: &Location) -> bool {
        let before_ids = || matches!(location, Location::Sqlite(_)) && self.data_dir.join(CALLS).exists();
        self.known.is_some() || before_ids()
    }

    /// Sees that the database is this installation's, and makes it so at the first start.
    pub(crate) async fn agree(&self, store: &Store, location: &Location) -> Result<(), Failed> {
        let theirs = store.installation(self.known).await.map_err(|error| Failed::from(&error))?;
        match self.known {
            // It only helps a later message.
            Some(ours) if ours == theirs => {
                if let Err(error) = self.note_kind(location) {
                    tracing::warn!("{error}");
                }
            }
            Some(ours) => {
                return Err(Failed::configuration(format!(
                    "the data directory `{dir}` belongs to installation {ours}, the database to {theirs}; one of `data_dir` \
                     and `database_url` is another's. If the database was replaced on purpose, delete `{dir}/{FILE}`",
                    dir = self.data_dir.display()
                )));
            }
            // The kind first: where the id is, a database is expected.
            None => {
                self.note_kind(location)?;
                self.write(FILE, &theirs.to_string())?;
            }
        }
        Ok(())
    }

    fn note_kind(&self, location: &Location) -> Result<(), String> {
        let kind = kind_of(location);
        let noted = std::fs::read_to_string(self.data_dir.join(KIND)).ok();
        if noted.is_some_and(|noted| noted.trim() == kind) { Ok(()) } else { self.write(KIND, kind) }
    }

    fn write(&self, name: &str, text: &str) -> Result<(), String> {
        let path = self.data_dir.join(name);
        let failed = |error: std::io::Error| format!("cannot write `{}`: {error}", path.display());
        // Aside and moved into place: a crash leaves no half id.
        let aside = self.data_dir.join(format!("{name}.new"));
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&aside).map_err(failed)?;
        file.write_all(format!("{text}\n").as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        std::fs::rename(&aside, &path).map_err(failed)
    }
}

fn lock(path: &Path, data_dir: &Path) -> Result<File, String> {
    let failed = |error: std::io::Error| format!("cannot use `{}`: {error}", path.display());
    let mut options = OpenOptions::new();
    let mut file =
        options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
            Ok(file)
        }
        Err(TryLockError::Error(error)) => Err(failed(error)),
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            Err(format!(
                "the data directory `{}` is in use by another Toolyard (process {}); stop that one first, or give this one \
                 a data directory of its own with `--data-dir`",
                data_dir.display(),
                holder.trim()
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_has_one_control_plane_at_a_time_and_the_second_is_told_which() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_in(dir.path()));
        let first = Installation::claim(dir.path()).unwrap();
        assert!(is_in(dir.path()));
        let refused = Installation::claim(dir.path()).unwrap_err();
        assert!(refused.contains(&format!("(process {})", std::process::id())), "{refused}");
        drop(first);
        Installation::claim(dir.path()).unwrap();
    }

    #[test]
    fn a_data_directory_without_an_id_expects_a_database_only_where_call_records_of_one_are() {
        let dir = tempfile::tempdir().unwrap();
        let sqlite = Location::Sqlite(dir.path().join("toolyard.db"));
        let installation = Installation::claim(dir.path()).unwrap();
        assert!(!installation.expects(&sqlite), "a first start");
        std::fs::create_dir(dir.path().join(CALLS)).unwrap();
        assert!(installation.expects(&sqlite));
        assert!(!installation.expects(&Location::Postgres(toolyard_types::Secret::new("postgres://"))));
    }

    #[test]
    fn a_database_that_is_gone_is_told_from_a_missing_database_url() {
        let dir = tempfile::tempdir().unwrap();
        let sqlite = Location::Sqlite(dir.path().join("toolyard.db"));
        let postgres = Location::Postgres(toolyard_types::Secret::new("postgres://"));
        let gone = StoreError::Gone("`toolyard.db`".to_owned());
        let told = |location: &Location| other_kind(dir.path(), location, &gone);
        // Of an earlier version.
        let Some(OtherKind::Possible(text)) = told(&sqlite) else { panic!("it may be either") };
        assert!(text.contains("put it back from a backup") && text.contains("set `database_url`"), "{text}");
        assert_eq!(told(&postgres), None);
        let installation = Installation::claim(dir.path()).unwrap();
        installation.note_kind(&postgres).unwrap();
        let Some(OtherKind::Known(text)) = told(&sqlite) else { panic!("it uses Postgres") };
        assert!(text.contains("TOOLYARD_DATABASE_URL") && !text.contains("backup"), "{text}");
        assert_eq!(told(&postgres), None);
        installation.note_kind(&sqlite).unwrap();
        assert_eq!(told(&sqlite), None);
        assert!(matches!(told(&postgres), Some(OtherKind::Known(text)) if text.contains("leave `database_url` out")));
        assert_eq!(other_kind(dir.path(), &postgres, &StoreError::Stale), None);
    }
}
