//! Call records, apart from desired state: a SQLite file for each day, or daily partitions on Postgres.
//!
//! Records come in batches, are never changed, and leave a whole day at a time: a file is deleted or a
//! partition dropped, so retention costs nothing and never touches the database of desired state. A day is a
//! UTC day of the record's own time, so one written late lands where a reader looks for it. Only the newest
//! days stay open; older files are opened for the read that needs them.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult, Statement, Value};
use tokio::sync::Mutex;
use toolyard_types::snapshot::{CallOutcome, CallRecord};
use toolyard_types::{OrganizationId, ServerId, Timestamp, ToolsetId};

use crate::connection::Pool;
use crate::query::{count, parse, parse_option, to_i64};
use crate::{DriverError, Location, Result, StoreError, StoreOptions, make_private, tells_of_damage, unusable};

/// Connections to a day's file: whoever sums up many calls must not hold up the one that writes.
const DAY_CONNECTIONS: u32 = 2;
/// Connections to Postgres.
const CONNECTIONS: u32 = 4;
/// How long Postgres may take to sum up many calls.
const SUMMING_UP: Duration = Duration::from_secs(10);
const DAY_MS: i64 = 24 * 3600 * 1000;
/// Rows of one insert; 14 values each stay below both engines' limits of bound values.
const ROWS_AT_ONCE: usize = 512;
/// Rows of one deletion: the one that writes waits for no more.
const DELETED_AT_ONCE: u64 = 10_000;
/// Up to so many records a partition's are counted one by one.
const COUNTED_EXACTLY: u64 = 200_000;
/// What stands between the name of a damaged file and its number.
const DAMAGED: &str = ".damaged-";
/// Day files kept open.
const OPEN_DAYS: usize = 3;

const TABLE: &str = "(id {serial}, at BIGINT NOT NULL, organization_id TEXT NOT NULL, actor TEXT NOT NULL, \
                     server_id TEXT, toolset_id TEXT, method TEXT NOT NULL, target TEXT NOT NULL, \
                     outcome TEXT NOT NULL, duration_us BIGINT NOT NULL, request_bytes BIGINT NOT NULL, \
                     response_bytes BIGINT NOT NULL, request_id TEXT NOT NULL, revision_id TEXT, \
                     finer_outcome TEXT)";
/// Columns that tables of earlier versions do not have; each of them may be NULL.
const ADDED: [&str; 2] = ["revision_id", "finer_outcome"];
const COLUMNS: &str = "at, organization_id, actor, server_id, toolset_id, method, target, outcome, duration_us, \
                       request_bytes, response_bytes, request_id, revision_id, finer_outcome";
const COLUMN_COUNT: usize = 14;

/// Where the next page of a list starts: after this record, towards the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallCursor {
    /// When the last record of the page before began.
    pub at: Timestamp,
    /// Its place among the records of its day.
    pub id: i64,
}

/// Which records; an absent field does not narrow.
#[derive(Clone, Debug, Default)]
pub struct CallFilter {
    /// Of this server.
    pub server: Option<ServerId>,
    /// Through this toolset.
    pub toolset: Option<ToolsetId>,
    /// By this one, as `kind:id`.
    pub actor: Option<String>,
    /// That ended so.
    pub outcome: Option<CallOutcome>,
    /// Of the request with this id.
    pub request_id: Option<String>,
    /// Of any of these servers, or through any of these toolsets: what a narrowed key may see.
    pub within: Option<(Vec<ServerId>, Vec<ToolsetId>)>,
}

/// Calls of a stretch of time, summed up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallBucket {
    /// When it begins.
    pub at: Timestamp,
    /// How many calls began in it.
    pub count: u64,
    /// How many of them neither succeeded nor were cancelled by their client.
    pub errors: u64,
    /// The duration that half of them did not exceed, in microseconds.
    pub p50_us: u64,
    /// The duration that 95 in 100 of them did not exceed.
    pub p95_us: u64,
    /// The duration that 99 in 100 of them did not exceed.
    pub p99_us: u64,
}

/// How many calls of a stretch of time ended in one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallCount {
    /// When the stretch begins.
    pub at: Timestamp,
    /// How they ended.
    pub outcome: CallOutcome,
    /// How many.
    pub count: u64,
}

/// A record as read.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredCall {
    /// For the next page.
    pub cursor: CallCursor,
    /// The record.
    pub record: CallRecord,
}

/// The call records. Cheap to clone.
#[derive(Clone, Debug)]
pub struct CallStore {
    days: Arc<Days>,
    /// How many records the days have that nobody writes any more.
    counted: Arc<Mutex<BTreeMap<i64, u64>>>,
}

#[derive(Debug)]
enum Days {
    Files {
        dir: PathBuf,
        /// Held while a file is opened and while one is moved away.
        open: Mutex<BTreeMap<i64, Day>>,
    },
    Partitions {
        db: Pool,
        made: Mutex<std::collections::BTreeSet<i64>>,
    },
}

/// The database that holds a day, as somebody has it open.
#[derive(Clone, Debug)]
struct Day {
    db: Pool,
    /// Device and number of its file, which tell it from the one that takes its place; none on Postgres.
    file: Option<(u64, u64)>,
}

impl CallStore {
    /// Opens the records that belong to a store: `calls/` beside its SQLite file, or the same Postgres.
    ///
    /// # Errors
    /// When the directory cannot be made or Postgres does not answer.
    pub async fn open(location: &Location) -> Result<Self> {
        Self::open_with(location, &StoreOptions::default()).await
    }

    /// As [`CallStore::open`], with options.
    ///
    /// # Errors
    /// When the directory cannot be made or Postgres does not answer.
    pub async fn open_with(location: &Location, options: &StoreOptions) -> Result<Self> {
        let days = match location {
            Location::Sqlite(path) => {
                let dir = path.parent().unwrap_or(Path::new(".")).join("calls");
                tokio::fs::create_dir_all(&dir).await.map_err(|error| unusable(&dir, error))?;
                Days::Files { dir, open: Mutex::default() }
            }
            Location::Postgres(url) => {
                let limit = options.statement_timeout.max(SUMMING_UP);
                let db = Pool::postgres(url.expose(), CONNECTIONS, limit, options).await?;
                make_partitioned(&db).await?;
                Days::Partitions { db, made: Mutex::default() }
            }
        };
        Ok(Self { days: Arc::new(days), counted: Arc::default() })
    }

    /// Writes records, at most [`ROWS_AT_ONCE`] of one day in one statement. They are put in the order of their days, and
    /// what was written is taken from the front: whatever ends this early, what is left was not written.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn insert(&self, records: &mut Vec<CallRecord>) -> Result<()> {
        records.sort_by_key(|record| day_of(record.at));
        while let Some(day) = records.first().map(|record| day_of(record.at)) {
            let opened = self.writable(day).await?;
            let there = records.iter().take(ROWS_AT_ONCE).take_while(|record| day_of(record.at) == day).count();
            // Every statement is kept prepared, with a place for each of its values: a power of two of rows makes few
            // of them, where each number of rows filled the cache with a hundred large ones.
            let count = 1 << there.ilog2();
            let statement = insert(opened.db.get_database_backend(), &records[..count]);
            if let Err(error) = opened.db.execute_raw(statement).await {
                let error = StoreError::from(error);
                if self.set_aside(day, &opened, &error).await {
                    continue;
                }
                return Err(error);
            }
            records.drain(..count);
            self.counted.lock().await.remove(&day);
        }
        Ok(())
    }

    /// An organization's records from `since` on that pass `filter`, newest first, after `cursor`, at most `limit`.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn list(
        &self,
        organization: OrganizationId,
        filter: &CallFilter,
        since: Timestamp,
        cursor: Option<CallCursor>,
        limit: u32,
    ) -> Result<Vec<StoredCall>> {
        match &*self.days {
            Days::Partitions { db, .. } => list(db, organization, filter, since, cursor, limit).await,
            Days::Files { dir, .. } => {
                let newest = cursor.map_or(i64::MAX, |cursor| day_of(cursor.at));
                let mut days = days_on_disk(dir).await?;
                days.retain(|day| (day_of(since)..=newest).contains(day));
                let mut found = Vec::new();
                for day in days.into_iter().rev() {
                    let Some(wanted) = limit.checked_sub(u32::try_from(found.len()).unwrap_or(u32::MAX)) else { break };
                    if wanted == 0 {
                        break;
                    }
                    let read = async |db: Pool| list(&db, organization, filter, since, cursor, wanted).await;
                    found.extend(self.read_day(day, read).await?.unwrap_or_default());
                }
                Ok(found)
            }
        }
    }

    /// Calls from `since` on, summed up by stretches of `bucket_ms`, oldest first; stretches without calls are left
    /// out. A stretch must be a whole part of a day, so that it never spans two files.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn buckets(
        &self,
        organization: OrganizationId,
        filter: &CallFilter,
        since: Timestamp,
        bucket_ms: i64,
    ) -> Result<Vec<CallBucket>> {
        debug_assert!(DAY_MS % bucket_ms == 0, "a stretch spans two days");
        let mut wheres = Wheres::new(organization, filter);
        wheres.add("at >= ", since.as_ms().into());
        // Nearest rank, exactly: sorted by duration in each bucket, the first place that enough calls reach.
        let sql = format!(
            "SELECT bucket, MAX(number) AS number, SUM(failed) AS failed, \
             MIN(CASE WHEN place * 100 >= number * 50 THEN duration_us END) AS p50_us, \
             MIN(CASE WHEN place * 100 >= number * 95 THEN duration_us END) AS p95_us, \
             MIN(CASE WHEN place * 100 >= number * 99 THEN duration_us END) AS p99_us FROM \
             (SELECT at / {bucket_ms} AS bucket, duration_us, \
             CASE WHEN outcome IN ('ok', 'cancelled') THEN 0 ELSE 1 END AS failed, \
             ROW_NUMBER() OVER (PARTITION BY at / {bucket_ms} ORDER BY duration_us) AS place, \
             COUNT(*) OVER (PARTITION BY at / {bucket_ms}) AS number FROM calls WHERE {}) AS ranked \
             GROUP BY bucket ORDER BY bucket",
            wheres.text
        );
        let rows: Vec<BucketRow> = self.rows_since(since, &sql, &wheres.values).await?;
        rows.into_iter().map(|row| row.read(bucket_ms)).collect()
    }

    /// How many calls from `since` on ended in which way, by stretches of `bucket_ms`, oldest first. A stretch must be
    /// a whole part of a day.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn counts(
        &self,
        organization: OrganizationId,
        filter: &CallFilter,
        since: Timestamp,
        bucket_ms: i64,
    ) -> Result<Vec<CallCount>> {
        debug_assert!(DAY_MS % bucket_ms == 0, "a stretch spans two days");
        let mut wheres = Wheres::new(organization, filter);
        wheres.add("at >= ", since.as_ms().into());
        let sql = format!(
            "SELECT at / {bucket_ms} AS bucket, {} AS ended, COUNT(*) AS number FROM calls WHERE {} \
             GROUP BY 1, 2 ORDER BY 1, 2",
            ended(),
            wheres.text
        );
        let rows: Vec<CountRow> = self.rows_since(since, &sql, &wheres.values).await?;
        let counts = rows.into_iter().map(|row| {
            Ok(CallCount {
                at: Timestamp::from_ms(row.bucket.saturating_mul(bucket_ms)),
                outcome: CallOutcome::of_any_version(&row.ended),
                count: count("calls", row.number)?,
            })
        });
        counts.collect()
    }

    /// What a query gives of the days from `since` on, oldest first.
    async fn rows_since<R: FromQueryResult>(&self, since: Timestamp, sql: &str, values: &[Value]) -> Result<Vec<R>> {
        let read = async |db: Pool| {
            let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, values.to_vec());
            Ok(R::find_by_statement(statement).all(&db).await?)
        };
        match &*self.days {
            Days::Partitions { db, .. } => read(db.clone()).await,
            Days::Files { dir, .. } => {
                let mut all = Vec::new();
                for day in days_on_disk(dir).await?.into_iter().filter(|day| *day >= day_of(since)) {
                    all.extend(self.read_day(day, read).await?.unwrap_or_default());
                }
                Ok(all)
            }
        }
    }

    /// Reads a day in a file of its own; none when the file is damaged.
    async fn read_day<T>(&self, day: i64, read: impl AsyncFnOnce(Pool) -> Result<T>) -> Result<Option<T>> {
        let opened = self.writable(day).await?;
        match read(opened.db.clone()).await {
            Ok(done) => Ok(Some(done)),
            Err(error) if self.set_aside(day, &opened, &error).await => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the file of a day that somebody has open was damaged: then it is kept under another name, for whoever wants
    /// to read what is left of it, and stands in nobody's way.
    async fn set_aside(&self, day: i64, opened: &Day, error: &StoreError) -> bool {
        let (Days::Files { dir, open }, StoreError::Database(source)) = (&*self.days, error) else { return false };
        if !tells_of_damage(source) {
            return false;
        }
        let mut open = open.lock().await;
        // Another who had it open was faster, and what is there now is the day's next one.
        if !is_still(&file(dir, day), opened.file).await {
            return true;
        }
        for known in open.remove(&day).iter().chain([opened]) {
            known.db.close().await;
        }
        self.counted.lock().await.remove(&day);
        move_away(dir, day, source)
    }

    /// Forgets every day that ended before `at`; tells how many.
    ///
    /// # Errors
    /// When a file cannot be deleted or the database fails.
    pub async fn forget_before(&self, at: Timestamp) -> Result<usize> {
        match &*self.days {
            Days::Files { dir, open } => {
                let mut days = days_on_disk(dir).await?;
                days.retain(|day| *day < day_of(at));
                for day in &days {
                    if let Some(known) = open.lock().await.remove(day) {
                        known.db.close().await;
                    }
                    remove_day(dir, *day).await?;
                }
                remove_damaged(dir, day_of(at)).await?;
                Ok(days.len())
            }
            Days::Partitions { db, made } => {
                let mut days = partitions(db).await?;
                days.retain(|day| *day < day_of(at));
                for day in &days {
                    db.execute_unprepared(&format!("DROP TABLE IF EXISTS calls_{}", day_name(*day, ""))).await?;
                    made.lock().await.remove(day);
                }
                Ok(days.len())
            }
        }
    }

    /// Forgets the oldest records when there are more than `most`: whole days first, because they cost nothing, and of
    /// the newest day a tenth of `most` more than needed, so that this is rare. Returns how many went.
    ///
    /// # Errors
    /// When a file cannot be deleted or the database fails.
    pub async fn keep_at_most(&self, most: u64) -> Result<u64> {
        let mut days = self.count_days().await?;
        let mut total: u64 = days.values().sum();
        let mut gone = 0;
        while total > most && days.len() > 1 {
            let Some((day, count)) = days.pop_first() else { break };
            self.forget_before(Timestamp::from_ms((day + 1).saturating_mul(DAY_MS))).await?;
            total -= count;
            gone += count;
        }
        if let Some((day, count)) = days.pop_last()
            && total > most
        {
            gone += self.forget_oldest_of(day, count - most / 10 * 9).await?;
        }
        Ok(gone)
    }

    /// How many records each day has.
    async fn count_days(&self) -> Result<BTreeMap<i64, u64>> {
        let days = match &*self.days {
            Days::Files { dir, .. } => days_on_disk(dir).await?,
            Days::Partitions { db, .. } => partitions(db).await?,
        };
        let newest = days.iter().copied().max();
        let mut counts = BTreeMap::new();
        for day in days {
            let known = self.counted.lock().await.get(&day).copied();
            let count = match known {
                Some(count) => count,
                None => self.count_day(day).await?,
            };
            counts.insert(day, count);
        }
        // Others may write too, so the newest is counted each time.
        *self.counted.lock().await =
            counts.iter().filter(|(day, _)| Some(**day) != newest).map(|(day, count)| (*day, *count)).collect();
        Ok(counts)
    }

    async fn count_day(&self, day: i64) -> Result<u64> {
        if matches!(&*self.days, Days::Files { .. }) {
            // Numbers are given in order and records go from the oldest on, so there are no gaps.
            let sql = "SELECT COALESCE(MAX(id) - MIN(id) + 1, 0) AS number FROM calls";
            return Ok(self.read_day(day, async |db| number(&db, sql).await).await?.unwrap_or(0));
        }
        let db = self.writable(day).await?.db;
        let name = format!("calls_{}", day_name(day, ""));
        let estimate = format!("SELECT COALESCE(pg_stat_get_live_tuples('{name}'::regclass), 0)::BIGINT AS number");
        match number(&db, &estimate).await? {
            few if few < COUNTED_EXACTLY => number(&db, &format!("SELECT COUNT(*) AS number FROM {name}")).await,
            many => Ok(many),
        }
    }

    /// Deletes the first `count` records of a day. The space goes to those that come.
    async fn forget_oldest_of(&self, day: i64, count: u64) -> Result<u64> {
        let db = self.writable(day).await?.db;
        match &*self.days {
            Days::Files { .. } => {
                let (mut left, mut gone) = (count, 0);
                while left > 0 {
                    let some = left.min(DELETED_AT_ONCE);
                    let sql = "DELETE FROM calls WHERE id < (SELECT MIN(id) FROM calls) + $1";
                    let statement =
                        Statement::from_sql_and_values(db.get_database_backend(), sql, [to_i64(some).into()]);
                    gone += db.execute_raw(statement).await?.rows_affected();
                    left -= some;
                }
                Ok(gone)
            }
            Days::Partitions { .. } => {
                let name = format!("calls_{}", day_name(day, ""));
                let sql = format!(
                    "DELETE FROM {name} WHERE at <= (SELECT at FROM {name} ORDER BY at OFFSET {} LIMIT 1)",
                    count.saturating_sub(1)
                );
                Ok(db.execute_unprepared(&sql).await?.rows_affected())
            }
        }
    }

    /// Closes every connection.
    pub async fn close(&self) {
        match &*self.days {
            Days::Files { open, .. } => {
                for (_, known) in std::mem::take(&mut *open.lock().await) {
                    known.db.close().await;
                }
            }
            Days::Partitions { db, .. } => {
                db.close().await;
            }
        }
    }

    /// The database that holds a day, made when it is missing or damaged.
    async fn writable(&self, day: i64) -> Result<Day> {
        match &*self.days {
            Days::Files { dir, open } => {
                let mut open = open.lock().await;
                if let Some(known) = open.get(&day) {
                    if is_still(&file(dir, day), known.file).await {
                        return Ok(known.clone());
                    }
                    // What is written into a file that was removed is lost.
                    tracing::error!(path = %file(dir, day).display(), "a file of call records was removed; another is opened");
                    open.remove(&day);
                    tokio::fs::create_dir_all(dir).await.map_err(|error| unusable(dir, error))?;
                }
                let opened = match open_day(dir, day).await {
                    Err(StoreError::Database(source)) if tells_of_damage(&source) && move_away(dir, day, &source) => {
                        open_day(dir, day).await?
                    }
                    opened => opened?,
                };
                open.insert(day, opened.clone());
                while open.len() > OPEN_DAYS {
                    // A connection that somebody still reads from lives until they are done.
                    open.pop_first();
                }
                Ok(opened)
            }
            Days::Partitions { db, made } => {
                let mut made = made.lock().await;
                if !made.contains(&day) {
                    make_partition(db, day).await?;
                    made.insert(day);
                }
                Ok(Day { db: db.clone(), file: None })
            }
        }
    }
}

fn day_of(at: Timestamp) -> i64 {
    at.as_ms().div_euclid(DAY_MS)
}

/// `2026-11-22` with `-` as separator.
fn day_name(day: i64, separator: &str) -> String {
    let text = Timestamp::from_ms(day.saturating_mul(DAY_MS)).to_string();
    text.chars().take(10).collect::<String>().replace('-', separator)
}

fn file(dir: &Path, day: i64) -> PathBuf {
    dir.join(format!("{}.db", day_name(day, "-")))
}

async fn days_on_disk(dir: &Path) -> Result<Vec<i64>> {
    let mut entries = tokio::fs::read_dir(dir).await.map_err(|error| unusable(dir, error))?;
    let mut days = Vec::new();
    while let Some(entry) = entries.next_entry().await.map_err(|error| unusable(dir, error))? {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(date) = name.strip_suffix(".db")
            && let Ok(at) = Timestamp::parse(&format!("{date}T00:00:00Z"))
        {
            days.push(day_of(at));
        }
    }
    days.sort_unstable();
    Ok(days)
}

async fn remove_day(dir: &Path, day: i64) -> Result<()> {
    let path = file(dir, day);
    for suffix in ["", "-wal", "-shm"] {
        let path = PathBuf::from(format!("{}{suffix}", path.display()));
        match tokio::fs::remove_file(&path).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(unusable(&path, error)),
            _ => {}
        }
    }
    Ok(())
}

/// Removes what was kept of damaged files of days before this one.
async fn remove_damaged(dir: &Path, before: i64) -> Result<()> {
    let mut entries = tokio::fs::read_dir(dir).await.map_err(|error| unusable(dir, error))?;
    while let Some(entry) = entries.next_entry().await.map_err(|error| unusable(dir, error))? {
        let name = entry.file_name().to_string_lossy().into_owned();
        let date = name.split_once(DAMAGED).and_then(|(day, _)| day.strip_suffix(".db"));
        let at = date.and_then(|date| Timestamp::parse(&format!("{date}T00:00:00Z")).ok());
        if at.is_some_and(|at| day_of(at) < before) {
            tokio::fs::remove_file(entry.path()).await.map_err(|error| unusable(&entry.path(), error))?;
        }
    }
    Ok(())
}

/// Whether a file is the one with this number. What cannot be told is taken for it.
async fn is_still(path: &Path, known: Option<(u64, u64)>) -> bool {
    match number_of(path).await {
        Ok(number) => known == Some(number),
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}

/// Device and number of a file.
async fn number_of(path: &Path) -> std::io::Result<(u64, u64)> {
    tokio::fs::metadata(path).await.map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Keeps the damaged file of a day under another name; `false` when it cannot be moved. Nobody may have it open.
fn move_away(dir: &Path, day: i64, why: &DriverError) -> bool {
    let path = file(dir, day);
    let kept = (1u32..)
        .map(|number| format!("{}{DAMAGED}{number}", path.display()))
        .find(|kept| !Path::new(kept).exists())
        .unwrap_or_default();
    // The log first: it must not be there for the next file.
    for suffix in ["-wal", "-shm", ""] {
        let from = format!("{}{suffix}", path.display());
        let moved = std::fs::rename(&from, format!("{kept}{suffix}"));
        if let Err(error) = moved
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::error!(%error, path = from, "a damaged file of call records cannot be moved away");
            return false;
        }
    }
    tracing::error!(
        error = why as &dyn std::error::Error,
        path = %path.display(), kept, "a day of call records is damaged: its file was moved away, and its records are not shown"
    );
    true
}

async fn open_day(dir: &Path, day: i64) -> Result<Day> {
    let path = file(dir, day);
    make_private(&path).map_err(|error| unusable(&path, error))?;
    let db = Pool::sqlite(&path, DAY_CONNECTIONS).await?;
    let number = match bring_up_to_date(&db).await {
        Ok(()) => number_of(&path).await.map_err(|error| unusable(&path, error)),
        Err(error) => Err(error),
    };
    match number {
        Ok(number) => Ok(Day { db, file: Some(number) }),
        Err(error) => {
            db.close().await;
            Err(error)
        }
    }
}

async fn bring_up_to_date(db: &Pool) -> Result<()> {
    let table = TABLE.replace("{serial}", "INTEGER PRIMARY KEY AUTOINCREMENT");
    db.execute_unprepared(&format!("CREATE TABLE IF NOT EXISTS calls {table}")).await?;
    for column in ADDED {
        let sql = format!("SELECT name AS text FROM pragma_table_info('calls') WHERE name = '{column}'");
        if db.query_one_raw(Statement::from_string(db.get_database_backend(), sql)).await?.is_none() {
            db.execute_unprepared(&format!("ALTER TABLE calls ADD COLUMN {column} TEXT")).await?;
        }
    }
    db.execute_unprepared("CREATE INDEX IF NOT EXISTS calls_at ON calls (organization_id, at, id)").await?;
    db.execute_unprepared("CREATE INDEX IF NOT EXISTS calls_server ON calls (organization_id, server_id, at)").await?;
    Ok(())
}

async fn make_partitioned(db: &Pool) -> Result<()> {
    // The name of the lock is that of the table; `CREATE ... IF NOT EXISTS` alone may still collide.
    let table = TABLE.replace("{serial}", "BIGSERIAL");
    // Only what is missing is added: even `ADD COLUMN IF NOT EXISTS` waits for all who read.
    let added = ADDED.map(|column| {
        format!(
            "IF NOT EXISTS (SELECT 1 FROM information_schema.columns WHERE table_schema = current_schema() \
             AND table_name = 'calls' AND column_name = '{column}') THEN ALTER TABLE calls ADD COLUMN {column} TEXT; END IF; "
        )
    });
    let added = added.concat();
    let statements = format!(
        "DO $$ BEGIN PERFORM pg_advisory_xact_lock(hashtextextended('calls', 0)); \
         CREATE TABLE IF NOT EXISTS calls {table} PARTITION BY RANGE (at); {added}\
         CREATE INDEX IF NOT EXISTS calls_at ON calls (organization_id, at, id); \
         CREATE INDEX IF NOT EXISTS calls_server ON calls (organization_id, server_id, at); END $$"
    );
    db.execute_unprepared(&statements).await?;
    Ok(())
}

async fn make_partition(db: &Pool, day: i64) -> Result<()> {
    let (name, from) = (day_name(day, ""), day.saturating_mul(DAY_MS));
    let statement = format!(
        "DO $$ BEGIN PERFORM pg_advisory_xact_lock(hashtextextended('calls', 0)); \
         CREATE TABLE IF NOT EXISTS calls_{name} PARTITION OF calls FOR VALUES FROM ({from}) TO ({}); END $$",
        from.saturating_add(DAY_MS)
    );
    db.execute_unprepared(&statement).await?;
    Ok(())
}

async fn partitions(db: &Pool) -> Result<Vec<i64>> {
    let sql = "SELECT c.relname AS text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
               JOIN pg_class p ON p.oid = i.inhparent \
               WHERE p.relname = 'calls' AND p.relnamespace = to_regnamespace(current_schema())";
    let statement = Statement::from_string(db.get_database_backend(), sql);
    let rows = crate::query::TextRow::find_by_statement(statement).all(db).await?;
    let day = |name: &str| {
        let date = name.strip_prefix("calls_").filter(|date| date.len() == 8 && date.is_ascii())?;
        let text = format!("{}-{}-{}T00:00:00Z", &date[..4], &date[4..6], &date[6..]);
        Timestamp::parse(&text).ok().map(day_of)
    };
    Ok(rows.iter().filter_map(|row| day(&row.text)).collect())
}

async fn number(db: &Pool, sql: &str) -> Result<u64> {
    let row = db.query_one_raw(Statement::from_string(db.get_database_backend(), sql)).await?;
    let number: i64 = row.map(|row| row.try_get("", "number")).transpose()?.unwrap_or(0);
    count("calls", number)
}

/// What a client said, as both databases take it: Postgres refuses a NUL, and with it every record beside.
fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

fn insert(backend: DbBackend, records: &[CallRecord]) -> Statement {
    let row = |number: usize| match backend {
        // SQLite finds the name of every numbered value by walking over those before it: thousands of values squared.
        DbBackend::Sqlite => format!("({})", ["?"; COLUMN_COUNT].join(", ")),
        _ => format!("({})", crate::query::placeholders(number * COLUMN_COUNT + 1, COLUMN_COUNT)),
    };
    let rows: Vec<String> = (0..records.len()).map(row).collect();
    let sql = format!("INSERT INTO calls ({COLUMNS}) VALUES {}", rows.join(", "));
    let values = records.iter().flat_map(|record| -> [sea_orm::Value; COLUMN_COUNT] {
        let (outcome, finer) = words(record.outcome);
        [
            record.at.as_ms().into(),
            record.organization.to_string().into(),
            record.actor.clone().into(),
            record.server.map(|id| id.to_string()).into(),
            record.toolset.map(|id| id.to_string()).into(),
            storable(&record.method).into(),
            storable(&record.target).into(),
            outcome.as_str().into(),
            to_i64(record.duration_us).into(),
            to_i64(record.request_bytes).into(),
            to_i64(record.response_bytes).into(),
            record.request_id.clone().into(),
            record.revision.map(|id| id.to_string()).into(),
            finer.map(|finer| finer.as_str().to_owned()).into(),
        ]
    });
    Statement::from_sql_and_values(backend, sql, values)
}

#[derive(FromQueryResult)]
struct Row {
    id: i64,
    at: i64,
    organization_id: String,
    actor: String,
    server_id: Option<String>,
    toolset_id: Option<String>,
    method: String,
    target: String,
    ended: String,
    duration_us: i64,
    request_bytes: i64,
    response_bytes: i64,
    request_id: String,
    revision_id: Option<String>,
}

#[derive(FromQueryResult)]
struct BucketRow {
    bucket: i64,
    number: i64,
    failed: i64,
    p50_us: i64,
    p95_us: i64,
    p99_us: i64,
}

impl BucketRow {
    fn read(&self, bucket_ms: i64) -> Result<CallBucket> {
        Ok(CallBucket {
            at: Timestamp::from_ms(self.bucket.saturating_mul(bucket_ms)),
            count: count("calls", self.number)?,
            errors: count("calls", self.failed)?,
            p50_us: count("calls.duration_us", self.p50_us)?,
            p95_us: count("calls.duration_us", self.p95_us)?,
            p99_us: count("calls.duration_us", self.p99_us)?,
        })
    }
}

#[derive(FromQueryResult)]
struct CountRow {
    bucket: i64,
    ended: String,
    number: i64,
}

/// Conditions with their values, numbered as they come.
struct Wheres {
    text: String,
    values: Vec<Value>,
}

impl Wheres {
    fn new(organization: OrganizationId, filter: &CallFilter) -> Self {
        let mut wheres =
            Self { text: "organization_id = $1".to_owned(), values: vec![organization.to_string().into()] };
        if let Some(server) = filter.server {
            wheres.add("server_id = ", server.to_string().into());
        }
        if let Some(toolset) = filter.toolset {
            wheres.add("toolset_id = ", toolset.to_string().into());
        }
        if let Some(actor) = &filter.actor {
            wheres.add("actor = ", actor.as_str().into());
        }
        if let Some(outcome) = filter.outcome {
            wheres.add(&format!("{} = ", ended()), outcome.as_str().into());
        }
        if let Some(request_id) = &filter.request_id {
            wheres.add("request_id = ", request_id.as_str().into());
        }
        if let Some((servers, toolsets)) = &filter.within {
            let servers = wheres.any("server_id", servers.iter().map(ToString::to_string));
            let toolsets = wheres.any("toolset_id", toolsets.iter().map(ToString::to_string));
            wheres.text.push_str(&format!(" AND ({servers} OR {toolsets})"));
        }
        wheres
    }

    /// One more condition, that ends with this value.
    fn add(&mut self, condition: &str, value: Value) {
        self.values.push(value);
        self.text.push_str(&format!(" AND {condition}${}", self.values.len()));
    }

    /// That a column holds one of these; never true when there are none.
    fn any(&mut self, column: &str, values: impl Iterator<Item = String>) -> String {
        let from = self.values.len();
        self.values.extend(values.map(Value::from));
        let many = self.values.len() - from;
        if many == 0 {
            return "1 = 0".to_owned();
        }
        format!("{column} IN ({})", crate::query::placeholders(from + 1, many))
    }
}

async fn list(
    db: &Pool,
    organization: OrganizationId,
    filter: &CallFilter,
    since: Timestamp,
    cursor: Option<CallCursor>,
    limit: u32,
) -> Result<Vec<StoredCall>> {
    let mut wheres = Wheres::new(organization, filter);
    wheres.add("at >= ", since.as_ms().into());
    let (at, id) = cursor.map_or((i64::MAX, i64::MAX), |cursor| (cursor.at.as_ms(), cursor.id));
    wheres.add("at <= ", at.into());
    let place = wheres.values.len();
    wheres.values.extend([id.into(), i64::from(limit).into()]);
    let sql = format!(
        "SELECT id, {COLUMNS}, {} AS ended FROM calls WHERE {} AND (at < ${place} OR id < ${}) \
         ORDER BY at DESC, id DESC LIMIT ${}",
        ended(),
        wheres.text,
        place + 1,
        place + 2
    );
    let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, wheres.values);
    Row::find_by_statement(statement).all(db).await?.into_iter().map(TryInto::try_into).collect()
}

impl TryFrom<Row> for StoredCall {
    type Error = StoreError;
    fn try_from(row: Row) -> Result<Self> {
        let at = Timestamp::from_ms(row.at);
        let record = CallRecord {
            at,
            organization: parse("calls.organization_id", &row.organization_id)?,
            actor: row.actor,
            server: parse_option("calls.server_id", row.server_id.as_deref())?,
            toolset: parse_option("calls.toolset_id", row.toolset_id.as_deref())?,
            method: row.method,
            target: row.target,
            outcome: CallOutcome::of_any_version(&row.ended),
            duration_us: count("calls.duration_us", row.duration_us)?,
            request_bytes: count("calls.request_bytes", row.request_bytes)?,
            response_bytes: count("calls.response_bytes", row.response_bytes)?,
            request_id: row.request_id,
            revision: parse_option("calls.revision_id", row.revision_id.as_deref())?,
        };
        Ok(Self { cursor: CallCursor { at, id: row.id }, record })
    }
}

/// How an outcome is written: as one that every version reads, and as a finer one that earlier ones do not know. Replicas
/// of two versions read the same records, and earlier ones fail on a word that they do not know.
fn words(outcome: CallOutcome) -> (CallOutcome, Option<CallOutcome>) {
    match outcome {
        CallOutcome::ServerNotReady => (CallOutcome::UpstreamFailed, Some(outcome)),
        CallOutcome::Ok
        | CallOutcome::ToolError
        | CallOutcome::ServerError
        | CallOutcome::Refused
        | CallOutcome::UpstreamFailed
        | CallOutcome::Timeout
        | CallOutcome::Cancelled => (outcome, None),
    }
}

/// How a call ended, in SQL and in a word of this version: what a later one wrote must not hide all other records.
fn ended() -> String {
    let known = CallOutcome::ALL.map(|outcome| format!("'{}'", outcome.as_str())).join(", ");
    let unknown = CallOutcome::UpstreamFailed.as_str();
    format!(
        "CASE WHEN finer_outcome IN ({known}) THEN finer_outcome WHEN outcome IN ({known}) THEN outcome \
         ELSE '{unknown}' END"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use sea_orm::DbErr;

    const FIRST: i64 = 20_000;

    fn record(organization: OrganizationId, day: i64) -> CallRecord {
        CallRecord {
            at: Timestamp::from_ms(day * DAY_MS + 1),
            organization,
            actor: "api_key:1".into(),
            server: None,
            toolset: None,
            method: "tools/call".into(),
            target: "echo".into(),
            outcome: CallOutcome::Ok,
            duration_us: 1,
            request_bytes: 1,
            response_bytes: 1,
            request_id: "r".into(),
            revision: None,
        }
    }

    /// What SQLite says of a damaged file.
    fn damage() -> StoreError {
        StoreError::Database(DbErr::Custom("(code: 11) database disk image is malformed".into()).into())
    }

    fn set_aside_in(dir: &Path) -> usize {
        let entries = std::fs::read_dir(dir).expect("a directory").flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        // Each with its log, when somebody had it open.
        names.filter(|name| name.contains(DAMAGED) && !name.ends_with("-wal") && !name.ends_with("-shm")).count()
    }

    #[tokio::test]
    async fn whoever_has_a_damaged_day_open_for_long_does_not_set_its_next_file_aside() {
        let dir = tempfile::tempdir().expect("a directory");
        let calls = CallStore::open(&Location::Sqlite(dir.path().join("toolyard.db"))).await.expect("opened");
        let organization = OrganizationId::generate();
        let write = async |day| calls.insert(&mut vec![record(organization, day)]).await.expect("written");
        write(FIRST).await;
        let slow = calls.read_day(FIRST, async |_| {
            // While this one reads, newer days push the file out of those that are kept open, somebody else finds it
            // damaged, and the day goes on in another one.
            for later in 1..=3 {
                write(FIRST + later).await;
            }
            let found = calls.read_day(FIRST, async |_| Err::<(), _>(damage())).await.expect("it is away");
            assert!(found.is_none());
            write(FIRST).await;
            Err::<(), _>(damage())
        });
        assert!(slow.await.expect("it is away").is_none());
        assert_eq!(set_aside_in(&dir.path().join("calls")), 1);
        let left =
            calls.list(organization, &CallFilter::default(), Timestamp::from_ms(0), None, 100).await.expect("read");
        assert_eq!(
            left.iter().filter(|call| day_of(call.record.at) == FIRST).count(),
            1,
            "what was written since stays"
        );
        calls.close().await;
    }
}
