//! The only crate with SQL: entities, migrations, queries, the outbox.
//!
//! SQLite (WAL, one writer) and Postgres behind one set of statements. Nothing is read or written outside
//! a transaction, and a transaction opens only for an organization ([`Store::org`]) or for a stated system
//! reason ([`Store::system`]), so that a forgotten tenant filter is a type error instead of a leak. A file
//! per noun implements its queries on [`OrgTx`] and [`SystemTx`].
//!
//! Events are buffered in the transaction and written in `commit`, under a lock that Postgres holds until
//! the commit: the order of sequence numbers is the order of commits, so a reader that continues after the
//! last number it saw can never miss a late one.

mod addresses;
mod attempts;
mod audit;
mod backup;
mod calls;
mod catalog;
mod checks;
mod connection;
mod console_reports;
mod credentials;
mod flags;
mod idempotency;
mod identity;
mod installation;
mod instances;
mod jobs;
mod locks;
mod migrations;
mod names;
mod outbox;
mod probes;
mod query;
mod replicas;
mod revisions;
mod rollouts;
mod servers;
mod space;
#[cfg(feature = "testing")]
pub mod testing;
mod toolboxes;
mod toolsets;
mod tx;

pub use attempts::Loop;
pub use audit::{AuditFilter, NewAudit};
pub use calls::{CallBucket, CallCount, CallCursor, CallFilter, CallStore, StoredCall};
pub use catalog::{
    CatalogEntry, CatalogSource, CatalogVersion, CatalogVersionHead, DueSource, PublicVersion, PublicVersionsQuery,
};
pub use credentials::SealedCredential;
pub use idempotency::Remembered;
pub use identity::{FoundKey, KeyRotation, Membership, NewApiKey, NewSession, NewSessionKey, SignedIn, User};
pub use instances::{InstanceRow, InstanceTally, InstanceWish};
pub use jobs::{JobRow, JobState};
pub use outbox::{EventKind, NewEvent, OutboxEvent};
pub use probes::{DueProbe, ProbePauses, ProbeRow};
pub use query::BoundedPage;
pub use replicas::ReplicaRow;
pub use revisions::RevisionRow;
pub use rollouts::{PastRollout, Place, RolloutRow};
pub use servers::{Postponed, ServerPosition, ServerRef, ServerRow, ServerSort, ServersPage};
pub use toolboxes::{JoinTokenRow, RemovedToolbox, SealedAuthority, ToolboxMark, ToolboxRow, ToolboxSilence};
pub use toolsets::ToolsetRow;
pub use tx::{OrgTx, SystemTx, Tx};

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sea_orm::{ConnectionTrait, DbBackend, DbErr, FromQueryResult, RuntimeErr, Statement};
use sqlx::postgres::PgDatabaseError;
use tokio::sync::watch;
use toolyard_types::{Clock, OrganizationId};

use crate::connection::Pool;
use crate::query::TextRow;

/// How long the migration of a Postgres may take, or wait for that of another replica.
const LONGEST_MIGRATION: Duration = Duration::from_secs(3600);
/// Connections to SQLite that read, when nobody said otherwise.
const SQLITE_READERS: u32 = 4;
/// Connections to Postgres, when nobody said otherwise.
const POSTGRES_CONNECTIONS: u32 = 16;

/// What went wrong with the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A name or another unique thing is taken.
    #[error("already exists")]
    AlreadyExists,
    /// The row was changed by somebody else since it was read.
    #[error("changed since it was read")]
    Stale,
    /// The database was written by a newer version that this one must not touch.
    #[error("the database needs at least version {0} of Toolyard")]
    TooOld(String),
    /// What a row holds cannot be read; says which.
    #[error("cannot read {what}")]
    Corrupt {
        /// Which column of which row.
        what: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The database was in use, and there is none any more where it was.
    #[error(
        "the database {0} is gone or empty, although this installation has used it; put it back from a backup, or begin \
         anew with another, empty data directory"
    )]
    Gone(String),
    /// The file of the database is damaged, or is none.
    #[error("the database file `{path}` is damaged, or is no SQLite database; put it back from a backup")]
    Damaged {
        /// The file.
        path: String,
        /// What SQLite says.
        #[source]
        source: DriverError,
    },
    /// The file of the database is not where it was opened: what would be written is lost when the last process that has
    /// it open ends.
    #[error(
        "the database file `{0}` was removed or replaced while it was in use, so nothing is written any more; stop this \
         Toolyard, put the file back or restore a backup, and start it again"
    )]
    Removed(String),
    /// SQLite's write-ahead log was removed while it was in use.
    #[error(
        "SQLite's write-ahead log `{0}` was removed while it was in use, so nothing is written any more. What was in it is \
         in the database: stop this Toolyard and start it again, and put no such file back, since an older one undoes \
         what came after it"
    )]
    LogRemoved(String),
    /// The database could not be copied before its schema changes.
    #[error(
        "{what}, the backup before the schema of the database changes, cannot be made; make room or rights for it, or make \
         a backup of your own and start once with `migration_backup` off"
    )]
    NoBackup {
        /// Where it was to be.
        what: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Postgres gives no first connection.
    #[error("the database that `database_url` names cannot be used; {help}")]
    NotOpened {
        /// What to do.
        help: &'static str,
        /// The cause.
        #[source]
        source: DriverError,
    },
    /// The database does not take a value as data.
    #[error("the database does not take a value that it was given")]
    Unfit(#[source] DriverError),
    /// The database failed.
    #[error("the database failed")]
    Database(#[source] DriverError),
}

/// What the database's driver says. Its text holds those of its causes, so that it names none.
#[derive(Debug, thiserror::Error)]
#[error("{}", told(.0))]
pub struct DriverError(DbErr);

/// Postgres names the line of its own source that complained, which tells nobody what is wrong.
fn told(error: &DbErr) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((before, line)) if !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_digit()) => before.to_owned(),
        _ => text,
    }
}

impl From<DbErr> for DriverError {
    fn from(error: DbErr) -> Self {
        Self(error)
    }
}

impl From<DbErr> for StoreError {
    fn from(error: DbErr) -> Self {
        match error.sql_err() {
            Some(sea_orm::SqlErr::UniqueConstraintViolation(_)) => Self::AlreadyExists,
            _ if refuses_data(&error) => Self::Unfit(error.into()),
            _ => Self::Database(error.into()),
        }
    }
}

/// What Postgres says of a value that it does not take, whoever asks: a text with a NUL in it or in no encoding, one with an
/// escape that it cannot hold, one that is too long. The rest of class 22, such as a division by zero, is a fault of ours.
const REFUSED_DATA: [&str; 3] = ["22021", "22P05", "22001"];

/// Whether Postgres refuses what it was given as data.
fn refuses_data(error: &DbErr) -> bool {
    let (DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error))) = error else {
        return false;
    };
    let refused = error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
    refused.is_some_and(|refused| REFUSED_DATA.contains(&refused.code()))
}

/// A first connection that failed, with the setting that names the database and what to do.
fn not_opened(error: DbErr) -> StoreError {
    StoreError::NotOpened { help: help(&error), source: error.into() }
}

fn help(error: &DbErr) -> &'static str {
    let code = match error {
        DbErr::Conn(RuntimeErr::SqlxError(error)) => error.as_database_error().and_then(|error| error.code()),
        _ => None,
    };
    match code.as_deref() {
        Some("3D000") => "make that database, or name another one",
        Some("28P01" | "28000") => "correct its user or password, or let them in there (`pg_hba.conf`)",
        _ => "see that Postgres runs there and lets this host in",
    }
}

/// A result of the store.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Which database.
#[derive(Clone, Debug)]
pub enum Location {
    /// A SQLite file.
    Sqlite(PathBuf),
    /// A Postgres URL.
    Postgres(toolyard_types::Secret),
}

/// How the database is used.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Connections at once, at most: all of them on Postgres, those that read on SQLite, which has one writer. 16 and 4
    /// when absent.
    pub connections: Option<u32>,
    /// How long Postgres may take for one statement. A connection that is silent for longer is dropped.
    pub statement_timeout: Duration,
    /// Whether connections to Postgres start with parameters that end what is left of them there when this side is gone.
    /// Poolers in transaction mode refuse them.
    pub session_parameters: bool,
    /// Whether the database must be there, because it was before.
    pub must_exist: bool,
    /// Whether a database in use is copied before its schema changes.
    pub migration_backup: bool,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            connections: None,
            statement_timeout: Duration::from_secs(3),
            session_parameters: true,
            must_exist: false,
            migration_backup: true,
        }
    }
}

/// The store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    writer: Pool,
    reader: Pool,
    location: Location,
    /// Device and number of the file that was opened.
    file: Option<(u64, u64)>,
    /// Whether its write-ahead log was removed while it was in use.
    log_removed: Arc<AtomicBool>,
    options: StoreOptions,
    clock: Clock,
    wake: watch::Sender<u64>,
}

impl Store {
    /// Opens the database and brings its schema up to date, under a lock.
    ///
    /// # Errors
    /// When it cannot be reached or written, or belongs to a newer version.
    pub async fn open(location: &Location, clock: Clock) -> Result<Self> {
        Self::open_with(location, clock, StoreOptions::default()).await
    }

    /// As [`Store::open`], with options.
    ///
    /// # Errors
    /// When it cannot be reached or written, or belongs to a newer version.
    pub async fn open_with(location: &Location, clock: Clock, options: StoreOptions) -> Result<Self> {
        let (writer, reader) = match location {
            Location::Sqlite(path) => Self::open_file(path, &options).await.map_err(|error| damaged(path, error))?,
            Location::Postgres(url) => {
                let migrated = tokio::time::timeout(LONGEST_MIGRATION, migrate(url.expose(), &options)).await;
                migrated.unwrap_or_else(|_| {
                    let why = format!("the migration took longer than {} s", LONGEST_MIGRATION.as_secs());
                    Err(StoreError::Database(DbErr::Conn(RuntimeErr::Internal(why)).into()))
                })?;
                let connections = options.connections.unwrap_or(POSTGRES_CONNECTIONS);
                let pool = Pool::postgres(url.expose(), connections, options.statement_timeout, &options).await?;
                (pool.clone(), pool)
            }
        };
        let (location, wake) = (location.clone(), watch::Sender::new(0));
        let file = file_of(&location);
        let log_removed = Arc::default();
        Ok(Self { writer, reader, location, file, log_removed, options, clock, wake })
    }

    async fn open_file(path: &Path, options: &StoreOptions) -> Result<(Pool, Pool)> {
        let gone = || StoreError::Gone(format!("`{}`", path.display()));
        // Before anything is made where it was: what is put back there must not meet another's write-ahead log.
        if options.must_exist && std::fs::metadata(path).map_or(true, |file| file.len() == 0) {
            return Err(gone());
        }
        make_private(path).map_err(|source| unusable(path, source))?;
        let writer = Pool::sqlite(path, 1).await?;
        let db = writer.for_migrations();
        if options.must_exist && !migrations::was_used(&db).await? {
            return Err(gone());
        }
        migrations::run(&db, Some(path), options.migration_backup).await?;
        space::rewrite(&writer).await?;
        Ok((writer, Pool::sqlite(path, options.connections.unwrap_or(SQLITE_READERS)).await?))
    }

    /// Why the database gives no connection, as far as it or the network says so.
    pub async fn why_silent(&self) -> Option<String> {
        self.writer.why_none().await
    }

    /// Reads the whole file of a SQLite database and tells what is damaged in it, in SQLite's words (`PRAGMA
    /// quick_check`). Takes a reader for as long as that takes.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn damage(&self) -> Result<Option<String>> {
        if self.reader.backend() != DbBackend::Sqlite {
            return Ok(None);
        }
        let reading = self.reader.acquire().await?;
        let sql = "SELECT quick_check AS text FROM pragma_quick_check LIMIT 3";
        let statement = Statement::from_string(DbBackend::Sqlite, sql);
        let found = match TextRow::find_by_statement(statement).all(&reading).await {
            // It may end at what it looks for.
            Err(error) if tells_of_damage(&error) => return Ok(Some(error.to_string())),
            found => found?,
        };
        let damage: Vec<_> = found.into_iter().map(|row| row.text).filter(|text| text != "ok").collect();
        Ok((!damage.is_empty()).then(|| damage.join("; ")))
    }

    /// # Errors
    /// [`StoreError::Removed`] when the file that was opened is not where it was.
    pub(crate) fn is_where_it_was(&self) -> Result<()> {
        match (&self.location, self.file) {
            (Location::Sqlite(path), Some(file)) if file_of(&self.location) != Some(file) => {
                Err(StoreError::Removed(path.display().to_string()))
            }
            (Location::Sqlite(path), _) if self.log_removed.load(Ordering::Acquire) => {
                Err(StoreError::LogRemoved(log_of(path).display().to_string()))
            }
            _ => Ok(()),
        }
    }

    /// Looks whether the write-ahead log that is open here was removed: SQLite goes on in it, and all that is written is lost
    /// when the process ends. What is in it is brought into the database, as far as that goes, and nothing more is
    /// written.
    ///
    /// # Errors
    /// [`StoreError::LogRemoved`] when it was.
    pub(crate) async fn look_for_the_log(&self) -> Result<()> {
        let Location::Sqlite(path) = &self.location else { return Ok(()) };
        let log = log_of(path);
        let gone = tokio::task::spawn_blocking(move || is_open_and_removed(&log)).await.unwrap_or(false);
        if gone {
            self.log_removed.store(true, Ordering::Release);
            // Nobody who waits for the check is to end it half-way; and each check tries again, since a reader may stand in
            // its way.
            let writer = self.writer.clone();
            let saved =
                tokio::spawn(async move { writer.execute_unprepared("PRAGMA wal_checkpoint(FULL)").await.map(drop) });
            if let Ok(Err(error)) = saved.await {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "what was written since the write-ahead log was removed could not be saved");
            }
        }
        self.is_where_it_was()
    }

    /// How it was opened.
    #[must_use]
    pub fn options(&self) -> &StoreOptions {
        &self.options
    }

    /// How many transactions that read can be open at once.
    #[must_use]
    pub fn readers(&self) -> u32 {
        let default = if self.writer.backend() == DbBackend::Sqlite { SQLITE_READERS } else { POSTGRES_CONNECTIONS };
        self.options.connections.unwrap_or(default)
    }

    /// How many connections to the database are open, and how many of them nobody uses now.
    #[must_use]
    pub fn connections(&self) -> (u32, usize) {
        let (open, idle) = self.reader.counts();
        match self.location {
            Location::Postgres(_) => (open, idle),
            Location::Sqlite(_) => {
                let (writers, free) = self.writer.counts();
                (open + writers, idle + free)
            }
        }
    }

    /// The clock given at the start.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Where it was opened.
    #[must_use]
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// `sqlite` or `postgres`.
    #[must_use]
    pub fn backend_name(&self) -> &'static str {
        if self.writer.backend() == DbBackend::Sqlite { "sqlite" } else { "postgres" }
    }

    /// A transaction that may write, for one organization. Short: no network call while it is open.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn org(&self, organization: OrganizationId) -> Result<OrgTx> {
        Ok(OrgTx::new(Tx::begin(&self.writer, true, self).await?, organization))
    }

    /// A transaction that only reads, for one organization. Does not wait for writers.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn org_read(&self, organization: OrganizationId) -> Result<OrgTx> {
        Ok(OrgTx::new(Tx::begin(&self.reader, false, self).await?, organization))
    }

    /// A transaction that may write across organizations; `reason` says why, for the trace.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn system(&self, reason: &'static str) -> Result<SystemTx> {
        tracing::trace!(reason, "system transaction");
        Ok(SystemTx::new(Tx::begin(&self.writer, true, self).await?))
    }

    /// A transaction that only reads, across organizations; `reason` says why, for the trace.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn system_read(&self, reason: &'static str) -> Result<SystemTx> {
        tracing::trace!(reason, "system read");
        Ok(SystemTx::new(Tx::begin(&self.reader, false, self).await?))
    }

    /// Changes its value after every commit that wrote events, in this process.
    #[must_use]
    pub fn wakes(&self) -> watch::Receiver<u64> {
        self.wake.subscribe()
    }

    /// Closes every connection.
    pub async fn close(self) {
        self.writer.close().await;
        self.reader.close().await;
    }
}

/// What tells of a damaged file names it and the way out.
fn damaged(path: &Path, error: StoreError) -> StoreError {
    match error {
        StoreError::Database(source) if tells_of_damage(&source) => {
            StoreError::Damaged { path: path.display().to_string(), source }
        }
        error => error,
    }
}

/// Whether an error tells that the file of a SQLite database is damaged, or is none: SQLITE_CORRUPT and SQLITE_NOTADB, also
/// with what the upper bytes of an extended code tell of them (sqlite.org/rescode.html).
#[must_use]
pub fn tells_of_damage(error: &impl std::fmt::Display) -> bool {
    let text = error.to_string();
    text.split("(code: ").skip(1).any(|rest| {
        let code = rest.split(')').next().and_then(|code| code.parse::<u32>().ok());
        code.is_some_and(|code| matches!(code & 0xff, 11 | 26))
    })
}

/// Device and number of a database's file.
fn file_of(location: &Location) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let Location::Sqlite(path) = location else { return None };
    // One that was emptied in place is as good as removed.
    std::fs::metadata(path).ok().filter(|file| file.len() > 0).map(|file| (file.dev(), file.ino()))
}

/// SQLite's write-ahead log of a database.
fn log_of(path: &Path) -> PathBuf {
    // SQLite follows links first.
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut name = path.into_os_string();
    name.push("-wal");
    name.into()
}

/// Whether this process has a file open that was removed from this path.
fn is_open_and_removed(path: &Path) -> bool {
    let mut removed = path.as_os_str().to_owned();
    removed.push(" (deleted)");
    let Ok(open) = std::fs::read_dir("/proc/self/fd") else { return false };
    open.flatten().any(|file| std::fs::read_link(file.path()).is_ok_and(|path| path == Path::new(&removed)))
}

/// Brings the schema of a Postgres up to date, on a connection of its own where a statement may take any time.
async fn migrate(url: &str, options: &StoreOptions) -> Result<()> {
    let pool = connection::postgres_for_migrations(url, options).await.map_err(not_opened)?;
    let db = pool.for_migrations();
    let migrated = if options.must_exist && !migrations::was_used(&db).await? {
        Err(StoreError::Gone("of `database_url`".to_owned()))
    } else {
        migrations::run(&db, None, options.migration_backup).await
    };
    pool.close().await;
    migrated
}

/// Makes a database file that only its owner can read; SQLite gives the files beside it the same mode.
pub(crate) fn make_private(path: &std::path::Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

pub(crate) fn unusable(path: &std::path::Path, source: std::io::Error) -> StoreError {
    StoreError::Corrupt { what: path.display().to_string(), source: Box::new(source) }
}
