//! The outbox: what happened, in commit order, for the loops and the live events.

use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult, Statement};
use toolyard_types::{OrganizationId, Timestamp};

use crate::connection::Connection;
use crate::{OrgTx, Result, StoreError, SystemTx};

/// The advisory lock that makes commit order and sequence order the same on Postgres.
const POSTGRES_OUTBOX_LOCK: i64 = 0x544f_4f4c_0001;

macro_rules! event_kinds {
    ($($variant:ident $text:literal $help:literal;)*) => {
        /// What happened. Only these are written, so that who reads them can decide about each.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum EventKind { $(#[doc = $help] $variant,)* }

        impl EventKind {
            /// Every kind.
            pub const ALL: &'static [EventKind] = &[$(EventKind::$variant,)*];

            /// As written in the database and on the wire.
            #[must_use]
            pub fn as_str(self) -> &'static str { match self { $(EventKind::$variant => $text,)* } }

            /// The kind of a text; `None` for one of another version.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> { match text { $($text => Some(EventKind::$variant),)* _ => None } }
        }
    };
}

event_kinds! {
    ApiKeyChanged "api_key.changed" "An API key was made, rotated or given another end; the data has `made_by`, its makers.";
    ApiKeyRevoked "api_key.revoked" "An API key was revoked; the data has `made_by`, its makers.";
    CatalogChanged "catalog.changed" "Entries or a source of the catalog changed.";
    CatalogSourceFailed "catalog_source.failed" "A source of the catalog could not be synced.";
    CredentialChanged "credential.changed" "A credential was made or has another secret.";
    CredentialDeleted "credential.deleted" "A credential was deleted.";
    FlagChanged "flag.changed" "The rule of a feature flag changed, for every organization.";
    MemberChanged "member.changed" "A member was added, changed or removed.";
    OrganizationCreated "organization.created" "The organization was made.";
    ServerChanged "server.changed" "A server, or what runs of it, changed.";
    ServerDeleted "server.deleted" "A server is gone.";
    SessionChanged "session.changed" "A session, or all of a member's, ended or has another key for MCP; of one session the data has its `member`.";
    ToolboxChanged "toolbox.changed" "A toolbox was made or changed.";
    ToolboxRemoved "toolbox.removed" "A toolbox was removed.";
    ToolboxReturned "toolbox.returned" "A toolbox that was lost was heard of again.";
    ToolsetChanged "toolset.changed" "A toolset was made, changed or deleted.";
}

/// An event to be written.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// Whose; `None` for all.
    pub organization: Option<OrganizationId>,
    /// What happened.
    pub kind: EventKind,
    /// To what.
    pub subject: String,
    /// More, without secrets.
    pub data: serde_json::Value,
}

/// An event as read.
#[derive(Clone, Debug, PartialEq)]
pub struct OutboxEvent {
    /// Its place in the order of commits.
    pub sequence: i64,
    /// Whose; `None` for all.
    pub organization: Option<OrganizationId>,
    /// When.
    pub at: Timestamp,
    /// What happened.
    pub kind: String,
    /// To what.
    pub subject: String,
    /// More.
    pub data: serde_json::Value,
}

/// Waits until nobody else writes events; held until the transaction ends.
pub(crate) async fn lock(db: &Connection) -> Result<()> {
    if db.get_database_backend() == DbBackend::Postgres {
        let lock = "SELECT pg_advisory_xact_lock($1)";
        db.execute_raw(Statement::from_sql_and_values(DbBackend::Postgres, lock, [POSTGRES_OUTBOX_LOCK.into()]))
            .await?;
    }
    Ok(())
}

pub(crate) async fn write(db: &Connection, events: &[NewEvent], now: Timestamp) -> Result<()> {
    let backend = db.get_database_backend();
    lock(db).await?;
    crate::attempts::touch(db, events, now).await?;
    for event in events {
        let sql = "INSERT INTO outbox (organization_id, at, kind, subject, data) VALUES ($1, $2, $3, $4, $5)";
        let values = [
            event.organization.map(|id| id.to_string()).into(),
            now.as_ms().into(),
            event.kind.as_str().into(),
            event.subject.clone().into(),
            event.data.to_string().into(),
        ];
        db.execute_raw(Statement::from_sql_and_values(backend, sql, values)).await?;
    }
    if backend == DbBackend::Postgres {
        db.execute_unprepared("NOTIFY toolyard_outbox").await?;
    }
    Ok(())
}

#[derive(FromQueryResult)]
struct Row {
    sequence: i64,
    organization_id: Option<String>,
    at: i64,
    kind: String,
    subject: String,
    data: String,
}

impl SystemTx {
    /// Events after `sequence`, oldest first, at most `limit`.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn events_after(&self, sequence: i64, limit: u32) -> Result<Vec<OutboxEvent>> {
        let sql = "SELECT sequence, organization_id, at, kind, subject, data FROM outbox \
                   WHERE sequence > $1 ORDER BY sequence LIMIT $2";
        let values = [sequence.into(), i64::from(limit).into()];
        let statement = Statement::from_sql_and_values(self.db().get_database_backend(), sql, values);
        let rows = Row::find_by_statement(statement).all(self.db()).await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    /// The newest sequence number; zero when there is none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn last_event(&self) -> Result<i64> {
        let statement =
            Statement::from_string(self.db().get_database_backend(), "SELECT MAX(sequence) AS newest FROM outbox");
        let row = self.db().query_one_raw(statement).await?;
        Ok(row.and_then(|row| row.try_get::<Option<i64>>("", "newest").ok().flatten()).unwrap_or(0))
    }

    /// Forgets events before `at`; the newest ones are kept for readers that reconnect.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn trim_events(&self, at: Timestamp) -> Result<u64> {
        self.execute("DELETE FROM outbox WHERE at < $1", [at.as_ms().into()]).await
    }
}

impl OrgTx {
    /// Events of this organization, and those for all, after `sequence`, oldest first, at most `limit`.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn events_after(&self, sequence: i64, limit: u32) -> Result<Vec<OutboxEvent>> {
        let sql = "SELECT sequence, organization_id, at, kind, subject, data FROM outbox \
                   WHERE sequence > $1 AND (organization_id = $2 OR organization_id IS NULL) ORDER BY sequence LIMIT $3";
        let values = [sequence.into(), self.organization().to_string().into(), i64::from(limit).into()];
        self.rows::<Row>(sql, values).await?.into_iter().map(TryInto::try_into).collect()
    }
}

impl TryFrom<Row> for OutboxEvent {
    type Error = StoreError;
    fn try_from(row: Row) -> Result<Self> {
        let corrupt = |source: Box<dyn std::error::Error + Send + Sync>| StoreError::Corrupt {
            what: format!("event {}", row.sequence),
            source,
        };
        Ok(Self {
            organization: row
                .organization_id
                .as_deref()
                .map(str::parse)
                .transpose()
                .map_err(|e| corrupt(Box::new(e)))?,
            data: serde_json::from_str(&row.data).map_err(|e| corrupt(Box::new(e)))?,
            sequence: row.sequence,
            at: Timestamp::from_ms(row.at),
            kind: row.kind,
            subject: row.subject,
        })
    }
}
