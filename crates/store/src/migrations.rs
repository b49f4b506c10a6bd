//! The schema, brought up to date at start under a lock.
//!
//! A migration is a list of statements that both engines understand; `{blob}` and `{serial}` stand for the
//! two types they spell differently. Released migrations are never edited. A release runs against the
//! schema of the next one (expand, migrate, contract): `compatible_from` is the oldest program version that
//! may still use this schema, and an older program refuses to start.

use std::path::Path;

use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, DbErr, FromQueryResult, SqliteTransactionMode, Statement,
    TransactionOptions, TransactionTrait,
};
use sea_orm_migration::{MigrationName, MigrationTrait, MigratorTrait, SchemaManager};

use crate::{Result, StoreError, backup};

/// Bumped together with any migration that an older program could not live with.
const COMPATIBLE_FROM: &str = "0.1.0";
const PROGRAM_VERSION: &str = env!("CARGO_PKG_VERSION");
const POSTGRES_MIGRATION_LOCK: i64 = 0x544f_4f4c_0000;

const MIGRATIONS: &[(&str, &str)] = &[
    ("m0001_base", include_str!("migrations/m0001_base.sql")),
    ("m0002_servers", include_str!("migrations/m0002_servers.sql")),
    ("m0003_credential_uses", include_str!("migrations/m0003_credential_uses.sql")),
    ("m0004_server_names", include_str!("migrations/m0004_server_names.sql")),
    ("m0005_input_credentials", include_str!("migrations/m0005_input_credentials.sql")),
    ("m0006_console", include_str!("migrations/m0006_console.sql")),
    ("m0007_fleet", include_str!("migrations/m0007_fleet.sql")),
    ("m0008_rollouts", include_str!("migrations/m0008_rollouts.sql")),
    ("m0009_replicas", include_str!("migrations/m0009_replicas.sql")),
    ("m0010_schedules", include_str!("migrations/m0010_schedules.sql")),
    ("m0011_volumes", include_str!("migrations/m0011_volumes.sql")),
    ("m0012_lost_toolboxes", include_str!("migrations/m0012_lost_toolboxes.sql")),
    ("m0013_listening", include_str!("migrations/m0013_listening.sql")),
    ("m0014_places", include_str!("migrations/m0014_places.sql")),
    ("m0015_write_checks", include_str!("migrations/m0015_write_checks.sql")),
    ("m0016_installation", include_str!("migrations/m0016_installation.sql")),
    ("m0017_attempts", include_str!("migrations/m0017_attempts.sql")),
    ("m0018_access", include_str!("migrations/m0018_access.sql")),
    ("m0019_audit_bound", include_str!("migrations/m0019_audit_bound.sql")),
    ("m0020_member_email", include_str!("migrations/m0020_member_email.sql")),
    ("m0021_slow_probes", include_str!("migrations/m0021_slow_probes.sql")),
    ("m0022_secret_versions", include_str!("migrations/m0022_secret_versions.sql")),
    ("m0023_revision_bound", include_str!("migrations/m0023_revision_bound.sql")),
    ("m0024_postponed", include_str!("migrations/m0024_postponed.sql")),
];

/// Changes with the schema; names the template of test databases.
#[cfg(feature = "testing")]
pub(crate) fn fingerprint() -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    MIGRATIONS.hash(&mut hasher);
    hasher.finish()
}

struct Sql {
    name: &'static str,
    statements: &'static str,
}

impl MigrationName for Sql {
    fn name(&self) -> &str {
        self.name
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Sql {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        let (blob, serial) = match db.get_database_backend() {
            DbBackend::Postgres => ("BYTEA", "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"),
            _ => ("BLOB", "INTEGER PRIMARY KEY AUTOINCREMENT"),
        };
        let sql = self.statements.replace("{blob}", blob).replace("{serial}", serial);
        for statement in sql.split(";\n").map(str::trim).filter(|statement| !statement.is_empty()) {
            db.execute_unprepared(statement).await?;
        }
        Ok(())
    }
}

struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        MIGRATIONS
            .iter()
            .map(|&(name, statements)| Box::new(Sql { name, statements }) as Box<dyn MigrationTrait>)
            .collect()
    }
}

/// Brings the schema up to date. A database that is in use already is copied first, if `backup` says so: a SQLite file
/// beside itself (`sqlite` is its path), Postgres into a schema of its own in the same transaction.
pub(crate) async fn run(db: &DatabaseConnection, sqlite: Option<&Path>, backup: bool) -> Result<()> {
    if let Some(path) = sqlite
        && backup
        && let Some(next) = first_pending(db).await?
    {
        backup::copy_file(db, path, next).await?;
    }
    // SQLite's write lock is taken at once: two that read first and write then would refuse each other.
    let options = TransactionOptions {
        sqlite_transaction_mode: (db.get_database_backend() == DbBackend::Sqlite)
            .then_some(SqliteTransactionMode::Immediate),
        isolation_level: None,
        access_mode: None,
    };
    let tx = db.begin_with_options(options).await?;
    if tx.get_database_backend() == DbBackend::Postgres {
        let lock = "SELECT pg_advisory_xact_lock($1)";
        tx.execute_raw(Statement::from_sql_and_values(DbBackend::Postgres, lock, [POSTGRES_MIGRATION_LOCK.into()]))
            .await?;
    }
    refuse_newer_schema(&tx).await?;
    if !was_migrated_further(&tx).await? {
        if backup
            && sqlite.is_none()
            && let Some(next) = first_pending(&tx).await?
        {
            backup::copy_schema(&tx, next).await?;
        }
        Migrator::up(&tx, None).await?;
    }
    let statement = "INSERT INTO schema_info (id, compatible_from) VALUES (1, $1) \
                     ON CONFLICT (id) DO UPDATE SET compatible_from = $1";
    // A newer schema keeps its own word: this program passed the check above and adds nothing to it.
    if schema_is_ours(&tx).await? {
        let backend = tx.get_database_backend();
        tx.execute_raw(Statement::from_sql_and_values(backend, statement, [COMPATIBLE_FROM.into()])).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// The first migration that a database in use lacks; `None` when it lacks none, or was never used.
async fn first_pending<C: ConnectionTrait>(db: &C) -> Result<Option<&'static str>> {
    let applied = applied(db).await?;
    let known = |name: &str| applied.iter().any(|row| row.text == name);
    let next = MIGRATIONS.iter().map(|(name, _)| *name).find(|name| !known(name));
    Ok(next.filter(|_| !applied.is_empty()))
}

/// Whether a database was ever used by a program of ours.
pub(crate) async fn was_used<C: ConnectionTrait>(db: &C) -> Result<bool> {
    Ok(!applied(db).await?.is_empty())
}

async fn applied<C: ConnectionTrait>(db: &C) -> Result<Vec<crate::query::TextRow>> {
    if !table_exists(db, "seaql_migrations").await? {
        return Ok(Vec::new());
    }
    let statement = Statement::from_string(db.get_database_backend(), "SELECT version AS text FROM seaql_migrations");
    Ok(crate::query::TextRow::find_by_statement(statement).all(db).await?)
}

/// Whether a newer program applied migrations that this one does not know. It applied all of ours before, and
/// the migrator would take the unknown ones for an accident.
async fn was_migrated_further<C: ConnectionTrait>(db: &C) -> Result<bool> {
    Ok(applied(db).await?.iter().any(|row| MIGRATIONS.iter().all(|(name, _)| *name != row.text)))
}

async fn table_exists<C: ConnectionTrait>(db: &C, name: &str) -> Result<bool> {
    let backend = db.get_database_backend();
    let sql = match backend {
        DbBackend::Postgres => {
            "SELECT 1 AS one FROM information_schema.tables WHERE table_name = $1 AND table_schema = current_schema()"
        }
        _ => "SELECT 1 AS one FROM sqlite_master WHERE name = $1",
    };
    let statement = Statement::from_sql_and_values(backend, sql, [name.into()]);
    Ok(db.query_one_raw(statement).await?.is_some())
}

async fn compatible_from<C: ConnectionTrait>(db: &C) -> Result<Option<String>> {
    if !table_exists(db, "schema_info").await? {
        return Ok(None);
    }
    let backend = db.get_database_backend();
    let row = db
        .query_one_raw(Statement::from_string(backend, "SELECT compatible_from FROM schema_info WHERE id = 1"))
        .await?;
    Ok(row.map(|row| row.try_get("", "compatible_from")).transpose()?)
}

async fn refuse_newer_schema<C: ConnectionTrait>(db: &C) -> Result<()> {
    match compatible_from(db).await? {
        Some(needed) if version(&needed) > version(PROGRAM_VERSION) => Err(StoreError::TooOld(needed)),
        _ => Ok(()),
    }
}

async fn schema_is_ours<C: ConnectionTrait>(db: &C) -> Result<bool> {
    Ok(compatible_from(db).await?.is_none_or(|there| version(&there) <= version(COMPATIBLE_FROM)))
}

fn version(text: &str) -> Vec<u64> {
    text.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}
