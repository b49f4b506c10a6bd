//! Space that deleted rows leave is given back to the file system.
//!
//! Postgres does so by itself (autovacuum). A SQLite file keeps its free pages for later rows, so what a source of a
//! hundred thousand entries once took would stay taken after it was removed. Files are made with incremental
//! auto-vacuum, and their free pages cut off their end a few at a time, between other writes. A file of an earlier
//! version is rewritten once, at a start, when so much of it is free that this is worth waiting for.

use std::time::Duration;

use sea_orm::{ConnectionTrait, DbBackend, Statement};

use crate::connection::Pool;
use crate::{Result, Store};

/// Free pages that may stay, for the next rows: 4 MiB.
const KEPT_PAGES: i64 = 1024;
/// How many pages go at once: some milliseconds of the only writer.
const STEP_PAGES: i64 = 256;
/// How many such steps one run takes: 256 MiB.
const STEPS: usize = 256;
/// Between two steps, others write.
const PAUSE: Duration = Duration::from_millis(10);
/// A file that cannot give pages back one by one is rewritten when so many of them are free...
const REWRITE_PAGES: i64 = 8192;
/// ...and these are at least this part of it.
const REWRITE_PART: i64 = 4;
/// `PRAGMA auto_vacuum` of a file that can.
const INCREMENTAL: i64 = 2;

impl Store {
    /// Gives space that deleted rows left back to the file system, a bounded amount; returns how many pages went.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn give_back_space(&self) -> Result<u64> {
        if self.writer.get_database_backend() != DbBackend::Sqlite {
            return Ok(0);
        }
        let before = self.pragma("page_count").await?;
        let mut free = self.pragma("freelist_count").await?;
        if self.pragma("auto_vacuum").await? != INCREMENTAL {
            return Ok(0);
        }
        for _ in 0..STEPS {
            if free <= KEPT_PAGES {
                break;
            }
            let pages = STEP_PAGES.min(free - KEPT_PAGES);
            self.writer.execute_unprepared(&format!("PRAGMA incremental_vacuum({pages})")).await?;
            tokio::time::sleep(PAUSE).await;
            free = self.pragma("freelist_count").await?;
        }
        let after = self.pragma("page_count").await?;
        if after < before {
            // The file itself is cut when the log is written back into it.
            self.writer.execute_unprepared("PRAGMA wal_checkpoint(PASSIVE)").await?;
        }
        Ok(u64::try_from(before - after).unwrap_or(0))
    }

    async fn pragma(&self, name: &str) -> Result<i64> {
        pragma(&self.writer, name).await
    }
}

/// Rewrites a file that cannot give pages back one by one, when that is worth it: before anybody writes to it, because it
/// holds up writers for its length. One that cannot be rewritten, for want of room, stays as it is.
pub(crate) async fn rewrite(writer: &Pool) -> Result<()> {
    let (pages, free) = (pragma(writer, "page_count").await?, pragma(writer, "freelist_count").await?);
    let worth_it = free >= REWRITE_PAGES && free * REWRITE_PART >= pages;
    if !worth_it || pragma(writer, "auto_vacuum").await? == INCREMENTAL {
        return Ok(());
    }
    // Each connection asks for incremental auto-vacuum, so this is what makes it so. It may take longer than any statement
    // that somebody waits for.
    tracing::info!("the database file is rewritten once, to give back the space that is free in it");
    if let Err(error) = writer.for_migrations().execute_unprepared("VACUUM").await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the database file could not be rewritten, and stays as it is"
        );
    }
    Ok(())
}

async fn pragma(writer: &Pool, name: &str) -> Result<i64> {
    let statement = Statement::from_string(DbBackend::Sqlite, format!("PRAGMA {name}"));
    let row = writer.query_one_raw(statement).await?;
    Ok(row.map(|row| row.try_get_by_index(0)).transpose()?.unwrap_or(0))
}
