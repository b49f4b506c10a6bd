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
mod audit;
mod calls;
mod catalog;
mod checks;
mod console_reports;
mod credentials;
mod flags;
mod idempotency;
mod identity;
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
#[cfg(feature = "testing")]
pub mod testing;
mod toolboxes;
mod toolsets;
mod tx;

pub use audit::{AuditFilter, NewAudit};
pub use calls::{CallBucket, CallCount, CallCursor, CallFilter, CallStore, StoredCall};
pub use catalog::{
    CatalogEntry, CatalogSource, CatalogVersion, CatalogVersionHead, PublicVersion, PublicVersionsQuery,
};
pub use credentials::SealedCredential;
pub use idempotency::Remembered;
pub use identity::{Membership, NewApiKey, NewSession, NewSessionKey, SignedIn, User};
pub use instances::{InstanceRow, InstanceTally, InstanceWish};
pub use jobs::{JobRow, JobState};
pub use outbox::{NewEvent, OutboxEvent};
pub use probes::ProbeRow;
pub use replicas::ReplicaRow;
pub use revisions::RevisionRow;
pub use rollouts::{Place, RolloutRow};
pub use servers::{ServerPosition, ServerRef, ServerRow, ServerSort, ServersPage};
pub use toolboxes::{JoinTokenRow, SealedAuthority, ToolboxMark, ToolboxRow, ToolboxSilence};
pub use toolsets::ToolsetRow;
pub use tx::{OrgTx, SystemTx, Tx};

use std::path::PathBuf;
use std::time::Duration;

use sea_orm::{ConnectOptions, Database, DatabaseConnection, DbBackend, DbErr, RuntimeErr};
use tokio::sync::watch;
use toolyard_types::{Clock, OrganizationId};

/// How long a writer waits for another before it gives up.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

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
    /// The database failed.
    #[error("the database failed")]
    Database(#[source] DbErr),
}

impl From<DbErr> for StoreError {
    fn from(error: DbErr) -> Self {
        match error.sql_err() {
            Some(sea_orm::SqlErr::UniqueConstraintViolation(_)) => Self::AlreadyExists,
            _ => Self::Database(error),
        }
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

/// The store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    writer: DatabaseConnection,
    reader: DatabaseConnection,
    location: Location,
    clock: Clock,
    wake: watch::Sender<u64>,
}

impl Store {
    /// Opens the database and brings its schema up to date, under a lock.
    ///
    /// # Errors
    /// When it cannot be reached or written, or belongs to a newer version.
    pub async fn open(location: &Location, clock: Clock) -> Result<Self> {
        let (writer, reader) = match location {
            Location::Sqlite(path) => {
                make_private(path).map_err(|source| unusable(path, source))?;
                let url = format!("sqlite://{}?mode=rwc", path.display());
                (connect_sqlite(&url, 1).await?, connect_sqlite(&url, 4).await?)
            }
            Location::Postgres(url) => {
                let mut options = ConnectOptions::new(url.expose());
                options.max_connections(16).acquire_timeout(Duration::from_secs(5)).sqlx_logging(false);
                let pool = Database::connect(options).await?;
                (pool.clone(), pool)
            }
        };
        migrations::run(&writer).await?;
        Ok(Self { writer, reader, location: location.clone(), clock, wake: watch::Sender::new(0) })
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
        if self.writer.get_database_backend() == DbBackend::Sqlite { "sqlite" } else { "postgres" }
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
        let _ = self.writer.close_by_ref().await;
        let _ = self.reader.close_by_ref().await;
    }
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

/// Connects to a SQLite file, in write-ahead mode.
///
/// While a file is switched to write-ahead mode, and while the last process that had it open leaves it, SQLite tells
/// others at once that it is locked and does not use its busy timeout (sqlite.org/wal.html, section 3): so this waits.
pub(crate) async fn connect_sqlite(url: &str, connections: u32) -> Result<DatabaseConnection> {
    let started = tokio::time::Instant::now();
    loop {
        match Database::connect(sqlite_options(url, connections)).await {
            Err(error) if is_locked(&error) && started.elapsed() < BUSY_TIMEOUT => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            other => return Ok(other?),
        }
    }
}

fn is_locked(error: &DbErr) -> bool {
    let (DbErr::Conn(RuntimeErr::SqlxError(error)) | DbErr::Exec(RuntimeErr::SqlxError(error))) = error else {
        return false;
    };
    // The low byte is SQLITE_BUSY (5); the rest says more about it (sqlite.org/rescode.html).
    let code = error.as_database_error().and_then(|error| error.code()?.parse::<u32>().ok());
    code.is_some_and(|code| code & 0xff == 5)
}

fn sqlite_options(url: &str, connections: u32) -> ConnectOptions {
    use sea_orm::sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};
    let mut options = ConnectOptions::new(url);
    options.max_connections(connections).min_connections(1).sqlx_logging(false);
    options.map_sqlx_sqlite_opts(|options| {
        options
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
            .pragma("cache_size", "-4096")
    });
    options
}
