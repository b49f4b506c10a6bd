//! Connections to the database: every wait for it has an end, and one that may not be as it should is thrown away.
//!
//! The pool is sqlx's. What it leaves open (0.9) is closed here, which is why transactions are our own and not SeaORM's,
//! which hide their connection:
//!
//! - A connection that is given back, or taken out again, is pinged without a deadline: a peer that fell silent without
//!   closing (a failover without RST) keeps its place in the pool for ever. Here both have [`PING`].
//! - TCP keep-alive cannot be set (transact-rs/sqlx#3540). Here every statement has a deadline, and a connection that
//!   missed one is dropped with its place given back at once. The server's half is told to end too, so that it keeps no
//!   locks: see [`postgres_options`].
//! - A connection whose COMMIT or ROLLBACK failed (SQLite with a full disk) stays one level deep, and the next BEGIN
//!   becomes a savepoint that never reaches the file. Here it is closed, and BEGIN is a statement like any other, which
//!   SQLite refuses inside of a transaction: nothing counts levels.

use std::fmt;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, DbErr, ExecResult, QueryResult, RuntimeErr, Statement};
use sea_query_sqlx::SqlxValues;
use sqlx::pool::{PoolConnection, PoolOptions};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool};
use sqlx::query::Query;
use sqlx::sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Connection as _, Database, Executor, IntoArguments, Postgres, SqlSafeStr, Sqlite};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::StoreOptions;

/// How long a writer of SQLite waits for another before it gives up.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection that is free may take to show that its peer is there.
const PING: Duration = Duration::from_secs(1);
/// How long to wait for a connection that is free, or for a new one.
const ACQUIRE: Duration = Duration::from_secs(5);
/// How long a transaction may be open. None of ours waits for anything but the database.
const LONGEST_TRANSACTION: Duration = Duration::from_secs(60);
/// How long a statement of SQLite may take: there is no peer that could fall silent, but a disk can.
const SQLITE_STATEMENT: Duration = Duration::from_secs(30);
/// How long closing may take.
const CLOSE: Duration = Duration::from_secs(5);
/// Connections to Postgres that nobody needed for this long are closed,
const IDLE: Duration = Duration::from_secs(20);
/// and the server ends those that we can no longer close.
const SERVER_IDLE: Duration = Duration::from_secs(50);

type Result<T, E = DbErr> = std::result::Result<T, E>;

/// Connections to one database. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Pool {
    connections: Connections,
    statement: Duration,
    why: Why,
    refusals: Arc<Refusals>,
}

/// Writes that a database refused for want of room. Where a table must grow it may refuse while a row that fits in what is
/// there is taken.
#[derive(Debug)]
pub(crate) struct Refusals {
    /// How many there were. One before the first: what was refused to others is not known.
    seen: AtomicU64,
    /// How many of them were before something large was taken.
    over: AtomicU64,
}

impl Default for Refusals {
    fn default() -> Self {
        Self { seen: AtomicU64::new(1), over: AtomicU64::new(0) }
    }
}

impl Refusals {
    /// How many there were, when no large write has worked since the last one.
    pub(crate) fn open(&self) -> Option<u64> {
        let seen = self.seen.load(Ordering::Acquire);
        (seen > self.over.load(Ordering::Acquire)).then_some(seen)
    }

    /// Notes that a large write worked which was begun after so many.
    pub(crate) fn end(&self, seen: u64) {
        self.over.fetch_max(seen, Ordering::AcqRel);
    }
}

/// Whether a database refuses for want of room: Postgres with `disk_full`, SQLite with `SQLITE_FULL` or, where a quota is
/// used up, `SQLITE_IOERR_WRITE`.
fn has_no_room(error: &sqlx::Error) -> bool {
    matches!(code(error).as_deref(), Some("53100" | "13" | "778"))
}

fn code(error: &sqlx::Error) -> Option<std::borrow::Cow<'_, str>> {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code)
}

/// Why there was no connection to Postgres, and when it was asked: one asks for all who wait.
type Why = Arc<Mutex<Option<(Instant, String)>>>;

#[derive(Clone)]
enum Connections {
    Sqlite(SqlitePool),
    Postgres(PgPool, Arc<Semaphore>),
}

/// Takes a connection to Postgres. Whoever waits may go away at any moment, as requests do whose clients hang up: they only
/// wait for a place, and leave nothing. A connection that was given up while it is looked at or made would be thrown
/// away, so that is done to its end, and the connection goes back.
async fn take(pool: &PgPool, places: &Arc<Semaphore>) -> sqlx::Result<Taken> {
    let taken = async {
        let place = Arc::clone(places).acquire_owned().await.map_err(|_| sqlx::Error::PoolClosed)?;
        let pool = pool.clone();
        let taken =
            tokio::spawn(async move { pool.acquire().await.map(|connection| Taken(Some((connection, place)))) });
        taken.await.unwrap_or(Err(sqlx::Error::WorkerCrashed))
    };
    timeout(ACQUIRE, taken).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

/// A connection that was taken, and its place. When nobody waits for it any more it goes back in time, or not at all.
struct Taken(Option<(PoolConnection<Postgres>, OwnedSemaphorePermit)>);

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some((connection, place)) = self.0.take() {
            give_back::<Postgres>(connection, Some(place), false, false);
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("backend", &self.backend()).finish_non_exhaustive()
    }
}

impl Pool {
    /// Connects to a SQLite file, in write-ahead mode; makes it when it is absent.
    ///
    /// While a file is switched to write-ahead mode, and while the last process that had it open leaves it, SQLite tells
    /// others at once that it is locked and does not use its busy timeout (sqlite.org/wal.html, section 3): so this waits.
    pub(crate) async fn sqlite(path: &Path, connections: u32) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .auto_vacuum(SqliteAutoVacuum::Incremental)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let options = sqlx::ConnectOptions::disable_statement_logging(options);
        let started = Instant::now();
        loop {
            match sqlite_pool(connections).connect_with(options.clone()).await {
                Err(error) if is_locked(&error) && started.elapsed() < BUSY_TIMEOUT => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                made => {
                    let connections = Connections::Sqlite(made.map_err(not_connected)?);
                    return Ok(Self {
                        connections,
                        statement: SQLITE_STATEMENT,
                        why: Why::default(),
                        refusals: Arc::default(),
                    });
                }
            }
        }
    }

    /// Connects to Postgres; a statement may take `statement`.
    pub(crate) async fn postgres(
        url: &str,
        connections: u32,
        statement: Duration,
        options: &StoreOptions,
    ) -> Result<Self> {
        let connect = postgres_options(url, Some(statement), options)?;
        let pool = PoolOptions::<Postgres>::new()
            .max_connections(connections)
            .acquire_timeout(ACQUIRE)
            .idle_timeout(IDLE)
            // Its ping has no deadline but that of whoever waits; ours is below.
            .test_before_acquire(false)
            .before_acquire(|connection, _| {
                Box::pin(async move { within(PING, connection.ping()).await.map(|()| true) })
            })
            .connect_with(connect.clone())
            .await;
        let pool = made(pool, &connect).await?;
        let places = Arc::new(Semaphore::new(usize::try_from(connections).unwrap_or(usize::MAX)));
        Ok(Self {
            connections: Connections::Postgres(pool, places),
            statement,
            why: Why::default(),
            refusals: Arc::default(),
        })
    }

    pub(crate) fn backend(&self) -> DbBackend {
        match self.connections {
            Connections::Sqlite(_) => DbBackend::Sqlite,
            Connections::Postgres(..) => DbBackend::Postgres,
        }
    }

    /// How many connections are open, and how many of them nobody uses.
    pub(crate) fn counts(&self) -> (u32, usize) {
        match &self.connections {
            Connections::Sqlite(pool) => (pool.size(), pool.num_idle()),
            Connections::Postgres(pool, _) => (pool.size(), pool.num_idle()),
        }
    }

    /// For SeaORM's migrator, which takes its own kind only.
    pub(crate) fn for_migrations(&self) -> DatabaseConnection {
        match &self.connections {
            Connections::Sqlite(pool) => pool.clone().into(),
            Connections::Postgres(pool, _) => pool.clone().into(),
        }
    }

    /// A connection that is free.
    pub(crate) async fn acquire(&self) -> Result<Connection> {
        let live = match &self.connections {
            Connections::Sqlite(pool) => pool.acquire().await.map(Live::Sqlite),
            Connections::Postgres(pool, places) => match take(pool, places).await {
                Err(sqlx::Error::PoolTimedOut) => {
                    return Err(DbErr::Conn(RuntimeErr::Internal(why_none(pool, &self.why).await)));
                }
                Err(error) => Err(error),
                Ok(mut taken) => {
                    let (connection, place) =
                        taken.0.take().ok_or_else(|| not_connected(sqlx::Error::WorkerCrashed))?;
                    Ok(Live::Postgres(connection, place))
                }
            },
        };
        let state = State {
            live: Some(live.map_err(not_connected)?),
            statement: self.statement,
            until: Instant::now() + LONGEST_TRANSACTION,
            begun: false,
            failed: false,
            unusable: false,
            refusals: Arc::clone(&self.refusals),
        };
        Ok(Connection { state: Mutex::new(state), backend: self.backend() })
    }

    /// A connection with a transaction. One that may `write` takes SQLite's lock at once: two readers that both turn into
    /// writers would deadlock. What one that reads tells was true at one moment: a view is made of several queries.
    pub(crate) async fn begin(&self, write: bool) -> Result<Connection> {
        let mut connection = self.acquire().await?;
        let statement = match (self.backend(), write) {
            (DbBackend::Sqlite, true) => "BEGIN IMMEDIATE",
            (DbBackend::Sqlite, false) => "BEGIN DEFERRED",
            (_, true) => "BEGIN",
            (_, false) => "BEGIN ISOLATION LEVEL REPEATABLE READ",
        };
        connection.state.get_mut().begin(statement).await?;
        Ok(connection)
    }

    /// Writes that were refused for want of room.
    pub(crate) fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Why there is no connection, as far as a server says so.
    pub(crate) async fn why_none(&self) -> Option<String> {
        match &self.connections {
            Connections::Sqlite(_) => None,
            Connections::Postgres(pool, _) => Some(why_none(pool, &self.why).await),
        }
    }

    /// Closes every connection.
    pub(crate) async fn close(&self) {
        let closed = match &self.connections {
            Connections::Sqlite(pool) => timeout(CLOSE, pool.close()).await,
            Connections::Postgres(pool, _) => timeout(CLOSE, pool.close()).await,
        };
        if closed.is_err() {
            tracing::warn!("connections to the database were left open: they did not end in time");
        }
    }
}

fn sqlite_pool(connections: u32) -> PoolOptions<Sqlite> {
    PoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
}

/// How to reach Postgres, and what its half of a connection does when ours falls silent. A `statement` of `None` may take
/// any time.
pub(crate) fn postgres_options(
    url: &str,
    statement: Option<Duration>,
    options: &StoreOptions,
) -> Result<PgConnectOptions> {
    let connect = url.parse::<PgConnectOptions>().map_err(not_connected)?;
    let connect = sqlx::ConnectOptions::disable_statement_logging(connect);
    if !options.session_parameters {
        return Ok(connect);
    }
    let milliseconds = |duration: Duration| duration.as_millis().to_string();
    // Zero is no limit. What is left of a transaction keeps its locks until it is seen to be idle; what waits for one then
    // gets it and is left in its turn: both together stay below what a statement may take, and a half.
    let limit = statement.unwrap_or_default();
    Ok(connect.options([
        ("statement_timeout", milliseconds(limit)),
        ("lock_timeout", milliseconds(limit * 2 / 3)),
        ("idle_in_transaction_session_timeout", milliseconds(limit / 2)),
        ("idle_session_timeout", milliseconds(SERVER_IDLE)),
        ("client_connection_check_interval", milliseconds(PING)),
        ("tcp_user_timeout", milliseconds(ACQUIRE * 2)),
        ("tcp_keepalives_idle", "10".to_owned()),
        ("tcp_keepalives_interval", "5".to_owned()),
        ("tcp_keepalives_count", "3".to_owned()),
    ]))
}

/// A connection to Postgres for migrations, on which a statement may take any time.
pub(crate) async fn postgres_for_migrations(url: &str, options: &StoreOptions) -> Result<Pool> {
    let connect = postgres_options(url, None, options)?;
    let pool = PoolOptions::new().max_connections(1).acquire_timeout(ACQUIRE).connect_with(connect.clone()).await;
    let connections = Connections::Postgres(made(pool, &connect).await?, Arc::new(Semaphore::new(1)));
    Ok(Pool { connections, statement: LONGEST_TRANSACTION, why: Why::default(), refusals: Arc::default() })
}

#[async_trait::async_trait]
impl ConnectionTrait for Pool {
    fn get_database_backend(&self) -> DbBackend {
        self.backend()
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult> {
        self.acquire().await?.execute_raw(statement).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult> {
        self.acquire().await?.execute_unprepared(sql).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>> {
        self.acquire().await?.query_one_raw(statement).await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>> {
        self.acquire().await?.query_all_raw(statement).await
    }
}

/// A connection of a pool, with a transaction or without. Dropped, it is given back, and a transaction that was not
/// committed is rolled back.
pub(crate) struct Connection {
    /// Locked by one statement after the other.
    state: Mutex<State>,
    backend: DbBackend,
}

struct State {
    /// Taken when it is dropped.
    live: Option<Live>,
    statement: Duration,
    until: Instant,
    /// Whether it has a transaction.
    begun: bool,
    /// Whether a statement of the transaction failed.
    failed: bool,
    /// Whether nobody may use it any more.
    unusable: bool,
    refusals: Arc<Refusals>,
}

enum Live {
    Sqlite(PoolConnection<Sqlite>),
    Postgres(PoolConnection<Postgres>, OwnedSemaphorePermit),
}

const TAKEN: &str = "a connection is taken only when it is dropped";

/// Runs `$work` on `$connection` of `$state` within the deadline, whichever database it is, and notes how it ended.
macro_rules! run {
    ($state:expr, |$connection:ident| $work:expr) => {{
        let state: &mut State = $state;
        let limit = state.limit();
        let done = match state.live.as_mut().expect(TAKEN) {
            Live::Sqlite($connection) => within(limit, $work).await.map(Into::into),
            Live::Postgres($connection, _) => within(limit, $work).await.map(Into::into),
        };
        done.map_err(|error| state.note(error))
    }};
}

impl State {
    /// How long the next statement may take.
    fn limit(&self) -> Duration {
        self.statement.min(self.until.saturating_duration_since(Instant::now()))
    }

    /// Notes a failed statement.
    fn note(&mut self, error: sqlx::Error) -> DbErr {
        self.failed = true;
        if has_no_room(&error) {
            self.refusals.seen.fetch_add(1, Ordering::AcqRel);
        }
        // What is left on the wire, or in SQLite's thread, belongs to nobody.
        self.unusable |= matches!(error, sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed);
        // A connection keeps the default that it began with: where only reading was allowed then, it is not later.
        self.unusable |= code(&error).as_deref() == Some("25006");
        failed(error)
    }

    async fn begin(&mut self, statement: &'static str) -> Result<()> {
        // Before it is: whoever stops waiting for it leaves a transaction behind.
        self.begun = true;
        self.execute(statement).await.map(drop)
    }

    async fn commit(&mut self) -> Result<()> {
        if self.failed {
            // Postgres would roll back and say that all is well; SQLite may have rolled back already.
            let why = "a statement of the transaction failed before it was committed";
            return Err(DbErr::Exec(RuntimeErr::Internal(why.to_owned())));
        }
        let committed = self.execute("COMMIT").await.map(drop);
        self.begun = false;
        self.unusable |= committed.is_err();
        committed
    }

    async fn execute(&mut self, sql: impl SqlSafeStr) -> Result<ExecResult> {
        let sql = sql.into_sql_str();
        run!(self, |connection| connection.execute(sql))
    }
}

impl Connection {
    /// Commits its transaction.
    ///
    /// # Errors
    /// When the database refuses; then nothing of it happened. When it does not answer in time it may have happened.
    pub(crate) async fn commit(mut self) -> Result<()> {
        self.state.get_mut().commit().await
    }

    /// Lets every statement of the transaction from here on take up to `limit`: for upkeep of very many rows.
    pub(crate) async fn allow(&mut self, limit: Duration) -> Result<()> {
        let state = self.state.get_mut();
        (state.statement, state.until) = (limit, Instant::now() + limit.max(LONGEST_TRANSACTION));
        if self.backend == DbBackend::Postgres {
            self.execute_unprepared(&format!("SET LOCAL statement_timeout = {}", limit.as_millis())).await?;
        }
        Ok(())
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("backend", &self.backend).finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl ConnectionTrait for Connection {
    fn get_database_backend(&self) -> DbBackend {
        self.backend
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult> {
        run!(&mut *self.state.lock().await, |connection| query(statement).execute(&mut **connection))
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult> {
        self.state.lock().await.execute(AssertSqlSafe(sql.to_owned())).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>> {
        let row = self.query_all_raw(statement).await?;
        Ok(row.into_iter().next())
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>> {
        let mut state = self.state.lock().await;
        run!(&mut state, |connection| async {
            let rows = query(statement).fetch_all(&mut **connection).await?;
            Ok(Rows(rows.into_iter().map(QueryResult::from).collect()))
        })
        .map(|Rows(rows)| rows)
    }
}

/// Rows of either database.
struct Rows(Vec<QueryResult>);

impl Drop for Connection {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        match state.live.take() {
            Some(Live::Sqlite(connection)) => give_back::<Sqlite>(connection, None, state.begun, state.unusable),
            Some(Live::Postgres(connection, place)) => {
                give_back::<Postgres>(connection, Some(place), state.begun, state.unusable);
            }
            None => {}
        }
    }
}

/// Gives a connection back to its pool, or throws it away; then its place is free.
fn give_back<DB: Database>(
    mut connection: PoolConnection<DB>,
    place: Option<OwnedSemaphorePermit>,
    begun: bool,
    unusable: bool,
) where
    for<'c> &'c mut DB::Connection: Executor<'c>,
{
    let Ok(runtime) = Handle::try_current() else {
        drop(connection.detach());
        return;
    };
    runtime.spawn(async move {
        let _place = place;
        if !unusable && (!begun || within(PING, connection.execute("ROLLBACK")).await.is_ok()) {
            if timeout(PING, connection.return_to_pool()).await.is_err() {
                // What waited for its answer owned it, and its place.
                tracing::warn!(database = DB::NAME, "a connection to the database fell silent and was dropped");
            }
            return;
        }
        tracing::warn!(database = DB::NAME, "a connection to the database that failed is closed");
        if DB::NAME == Sqlite::NAME {
            // Its place is free once it is closed: another writer beside it would only wait for its lock.
            let _ = timeout(CLOSE, connection.close()).await;
        } else {
            // Its peer need not hear of it.
            drop(connection.detach());
        }
    });
}

fn query<'q, DB>(statement: Statement) -> Query<'q, DB, SqlxValues>
where
    DB: Database,
    SqlxValues: IntoArguments<DB>,
{
    let values = statement.values.unwrap_or(sea_orm::Values(Vec::new()));
    sqlx::query_with(AssertSqlSafe(statement.sql), SqlxValues(values))
}

/// What `work` comes to, if it does within `limit`.
async fn within<T>(limit: Duration, work: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    timeout(limit, work).await.unwrap_or_else(|_| {
        let seconds = limit.as_secs_f32();
        Err(sqlx::Error::Io(std::io::Error::new(ErrorKind::TimedOut, format!("no answer within {seconds:.1} s"))))
    })
}

/// Why a pool had no connection to give for so long: it keeps to itself why it could make none.
async fn why_none(pool: &PgPool, known: &Why) -> String {
    let mut known = known.lock().await;
    if let Some((at, why)) = &*known
        && at.elapsed() < ACQUIRE
    {
        return why.clone();
    }
    let why = why_not(&pool.connect_options()).await;
    let why = why.unwrap_or_else(|| format!("all {} connections were in use", pool.size()));
    let why = format!("Postgres at {}: {why}", place(&pool.connect_options()));
    *known = Some((Instant::now(), why.clone()));
    why
}

/// Why a new connection cannot be made; `None` when one can.
async fn why_not(options: &PgConnectOptions) -> Option<String> {
    match timeout(PING, PgConnection::connect_with(options)).await {
        Ok(Err(error)) => Some(error.to_string()),
        Ok(Ok(_)) => None,
        Err(_) => Some("it did not answer".to_owned()),
    }
}

/// Where a Postgres is.
fn place(options: &PgConnectOptions) -> String {
    match options.get_socket() {
        Some(socket) => socket.display().to_string(),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    }
}

/// A pool that was made; a first connection that never came is told with its address and the cause.
async fn made(pool: sqlx::Result<PgPool>, options: &PgConnectOptions) -> Result<PgPool> {
    match pool {
        Err(sqlx::Error::PoolTimedOut) => {
            let why = why_not(options).await.unwrap_or_else(|| format!("no connection within {} s", ACQUIRE.as_secs()));
            Err(DbErr::Conn(RuntimeErr::Internal(format!("Postgres at {}: {why}", place(options)))))
        }
        pool => pool.map_err(not_connected),
    }
}

fn not_connected(error: sqlx::Error) -> DbErr {
    DbErr::Conn(RuntimeErr::SqlxError(Arc::new(error)))
}

fn failed(error: sqlx::Error) -> DbErr {
    DbErr::Exec(RuntimeErr::SqlxError(Arc::new(error)))
}

fn is_locked(error: &sqlx::Error) -> bool {
    // The low byte is SQLITE_BUSY (5); the rest says more about it (sqlite.org/rescode.html).
    let code = error.as_database_error().and_then(|error| error.code()?.parse::<u32>().ok());
    code.is_some_and(|code| code & 0xff == 5)
}
