//! Transactions: for an organization, or for a stated system reason.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult, Statement, Value};
use tokio::sync::watch;
use toolyard_types::{Clock, OrganizationId, Timestamp};

use crate::connection::{Connection, Pool};
use crate::outbox::{EventKind, NewEvent};
use crate::{Result, Store};

/// An open transaction. Dropped without [`Tx::commit`], it is rolled back.
#[derive(Debug)]
pub struct Tx {
    db: Connection,
    clock: Clock,
    events: Vec<NewEvent>,
    wake: watch::Sender<u64>,
}

impl Tx {
    pub(crate) async fn begin(pool: &Pool, write: bool, store: &Store) -> Result<Self> {
        if write {
            store.is_where_it_was()?;
        }
        let db = pool.begin(write).await?;
        Ok(Self { db, clock: store.clock.clone(), events: Vec::new(), wake: store.wake.clone() })
    }

    /// The connection, for SeaORM's queries.
    pub(crate) fn db(&self) -> &Connection {
        &self.db
    }

    pub(crate) fn is_postgres(&self) -> bool {
        self.db.get_database_backend() == DbBackend::Postgres
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Runs one statement of our own; `$1`, `$2`... are the values, in both engines.
    pub(crate) async fn execute(&self, sql: &str, values: impl IntoIterator<Item = Value>) -> Result<u64> {
        let statement = Statement::from_sql_and_values(self.db.get_database_backend(), sql, values);
        Ok(self.db.execute_raw(statement).await?.rows_affected())
    }

    /// Lets each statement from here on take up to `limit`: for upkeep of very many rows, which nobody waits for.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn allow(&mut self, limit: Duration) -> Result<()> {
        Ok(self.db.allow(limit).await?)
    }

    /// Notes an event, to be written when the transaction commits.
    pub(crate) fn note(&mut self, event: NewEvent) {
        self.events.push(event);
    }

    /// Writes the events and commits.
    ///
    /// # Errors
    /// When the database refuses; then nothing of the transaction happened. When it does not answer in time: then it may
    /// have happened.
    pub async fn commit(self) -> Result<()> {
        let wrote = !self.events.is_empty();
        if wrote {
            crate::outbox::write(&self.db, &self.events, self.clock.now()).await?;
        }
        self.db.commit().await?;
        if wrote {
            self.wake.send_modify(|count| *count = count.wrapping_add(1));
        }
        Ok(())
    }
}

/// A transaction for one organization.
#[derive(Debug)]
pub struct OrgTx {
    tx: Tx,
    organization: OrganizationId,
}

impl OrgTx {
    pub(crate) fn new(tx: Tx, organization: OrganizationId) -> Self {
        Self { tx, organization }
    }

    /// The organization every row of this transaction belongs to.
    #[must_use]
    pub fn organization(&self) -> OrganizationId {
        self.organization
    }

    /// Notes that something happened, for events and for the loops; `subject` such as `server/everything`.
    pub fn event(&mut self, kind: EventKind, subject: impl Into<String>, data: serde_json::Value) {
        let organization = Some(self.organization);
        self.tx.note(NewEvent { organization, kind, subject: subject.into(), data });
    }

    /// Writes the events and commits.
    ///
    /// # Errors
    /// When the database refuses; then nothing of the transaction happened. When it does not answer in time: then it may
    /// have happened.
    pub async fn commit(self) -> Result<()> {
        self.tx.commit().await
    }
}

impl Deref for OrgTx {
    type Target = Tx;
    fn deref(&self) -> &Tx {
        &self.tx
    }
}

impl DerefMut for OrgTx {
    fn deref_mut(&mut self) -> &mut Tx {
        &mut self.tx
    }
}

/// A transaction across organizations.
#[derive(Debug)]
pub struct SystemTx {
    tx: Tx,
}

impl SystemTx {
    pub(crate) fn new(tx: Tx) -> Self {
        Self { tx }
    }

    /// Notes that something happened.
    pub fn event(
        &mut self,
        organization: Option<OrganizationId>,
        kind: EventKind,
        subject: impl Into<String>,
        data: serde_json::Value,
    ) {
        self.tx.note(NewEvent { organization, kind, subject: subject.into(), data });
    }

    /// Waits until no other transaction holds the lock of this name; held until this one ends. A SQLite
    /// transaction that writes is alone anyway.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn lock(&self, name: &str) -> Result<()> {
        if self.is_postgres() {
            self.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", [name.into()]).await?;
        }
        Ok(())
    }

    /// Takes the lock of this name if no other transaction holds it; `false` when one does. Held until this
    /// transaction ends. On SQLite there is one process and it is always taken.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn try_lock(&self, name: &str) -> Result<bool> {
        #[derive(FromQueryResult)]
        struct Row {
            taken: bool,
        }
        if !self.is_postgres() {
            return Ok(true);
        }
        let sql = "SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0)) AS taken";
        Ok(self.row::<Row>(sql, [name.into()]).await?.is_some_and(|row| row.taken))
    }

    /// Goes on with this transaction for one organization.
    #[must_use]
    pub fn into_org(self, organization: OrganizationId) -> OrgTx {
        OrgTx::new(self.tx, organization)
    }

    /// Writes the events and commits.
    ///
    /// # Errors
    /// When the database refuses; then nothing of the transaction happened. When it does not answer in time: then it may
    /// have happened.
    pub async fn commit(self) -> Result<()> {
        self.tx.commit().await
    }
}

impl Deref for SystemTx {
    type Target = Tx;
    fn deref(&self) -> &Tx {
        &self.tx
    }
}

impl DerefMut for SystemTx {
    fn deref_mut(&mut self) -> &mut Tx {
        &mut self.tx
    }
}
