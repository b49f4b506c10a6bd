//! Copies of a database in use, made before a migration changes it.
//!
//! SQLite is copied into a file of its own beside it (`backups/`), by SQLite itself, so that the copy is of one moment. On
//! Postgres nothing can be assumed of the host (`pg_dump` may be absent, or of another version), so the tables are copied
//! into the schema [`SCHEMA`], in the transaction of the migration: the copy is there if and only if the migration is. Call
//! records and events are left out: they are large, and nothing is decided by them. One copy is kept on Postgres, a few
//! files on SQLite.

use std::path::{Path, PathBuf};

use sea_orm::{ConnectionTrait, DbBackend, DbErr, FromQueryResult, Statement};

use crate::query::TextRow;
use crate::{Result, StoreError, make_private};

/// Where Postgres has its copy.
const SCHEMA: &str = "toolyard_backup";
/// How many files are kept.
const KEPT: usize = 3;

/// Copies a SQLite file, named after the migration that comes `next`.
pub(crate) async fn copy_file(db: &impl ConnectionTrait, path: &Path, next: &str) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new(".")).join("backups");
    let target = dir.join(format!("before-{next}.db"));
    let part = dir.join(format!("before-{next}.db.part"));
    let failed = |source: std::io::Error| not_made(target.display().to_string(), source.into());
    std::fs::create_dir_all(&dir).map_err(failed)?;
    if part.exists() {
        std::fs::remove_file(&part).map_err(failed)?;
    }
    // SQLite takes an empty file as it is: its mode stays.
    make_private(&part).map_err(failed)?;
    let name = part.to_string_lossy().into_owned();
    let copied =
        db.execute_raw(Statement::from_sql_and_values(DbBackend::Sqlite, "VACUUM INTO ?", [name.into()])).await;
    if let Err(error) = copied {
        let _ = std::fs::remove_file(&part);
        return Err(not_made(target.display().to_string(), error.into()));
    }
    std::fs::File::open(&part).and_then(|file| file.sync_all()).map_err(failed)?;
    std::fs::rename(&part, &target).map_err(failed)?;
    tracing::info!(path = %target.display(), "the database was copied before its schema changes");
    forget_old(&dir).map_err(failed)
}

/// Deletes all but the newest copies.
fn forget_old(dir: &Path) -> std::io::Result<()> {
    let mut copies: Vec<(std::time::SystemTime, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let ours = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("before-"));
        if ours && path.extension().is_some_and(|extension| extension == "db") {
            copies.push((std::fs::metadata(&path)?.modified()?, path));
        }
    }
    copies.sort_unstable();
    copies.reverse();
    copies.into_iter().skip(KEPT).try_for_each(|(_, path)| std::fs::remove_file(path))
}

/// Copies the tables of Postgres, in the transaction of `db`.
pub(crate) async fn copy_schema(db: &impl ConnectionTrait, next: &str) -> Result<()> {
    let made = copy_tables(db, next).await;
    made.map_err(|error| not_made(format!("schema `{SCHEMA}`"), error.into()))
}

async fn copy_tables(db: &impl ConnectionTrait, next: &str) -> Result<(), DbErr> {
    let sql = "SELECT quote_ident(c.relname) AS text FROM pg_class c WHERE c.relkind = 'r' AND NOT c.relispartition \
               AND c.relnamespace = to_regnamespace(quote_ident(current_schema())) AND c.relname <> 'outbox' ORDER BY 1";
    let tables = TextRow::find_by_statement(Statement::from_string(DbBackend::Postgres, sql)).all(db).await?;
    db.execute_unprepared(&format!("DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")).await?;
    db.execute_unprepared(&format!("CREATE SCHEMA {SCHEMA}")).await?;
    db.execute_unprepared(&format!("COMMENT ON SCHEMA {SCHEMA} IS 'Toolyard before {next}'")).await?;
    for table in tables {
        let sql = format!("CREATE TABLE {SCHEMA}.{name} AS TABLE {name}", name = table.text);
        db.execute_unprepared(&sql).await?;
    }
    tracing::info!(schema = SCHEMA, "the database was copied before its schema changes");
    Ok(())
}

fn not_made(what: String, source: Box<dyn std::error::Error + Send + Sync>) -> StoreError {
    StoreError::NoBackup { what, source }
}
