//! When loops look at servers again: what waits costs nothing until its time, and takes no place of others.
//!
//! A loop takes what is due, the servers of every organization in turn, so that however many of one wait none of another
//! does. What it looked at and could do nothing about it puts off. An event about a server makes it due again, one about a
//! toolbox all of its organization: loops need no other wake. A server without a row is due.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sea_orm::{ConnectionTrait, Statement, Value};
use toolyard_types::{OrganizationId, Timestamp};

use crate::connection::Connection;
use crate::outbox::{self, NewEvent};
use crate::query::placeholders;
use crate::servers::{RefRow, read_refs};
use crate::{Result, ServerRef, SystemTx};

/// The longest that something is put off. What seems to be put off for longer is due: then the clock was set back.
const LONGEST_WAIT: Duration = Duration::from_secs(120);
/// More events than this since something was looked at, and nothing is put off.
const MOST_EVENTS: u32 = 1000;
/// Rows of one statement.
const ROWS_AT_ONCE: usize = 200;

/// A loop that looks at servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loop {
    /// Rollouts under way.
    Rollout,
    /// How many instances serve, and where.
    Scale,
}

impl Loop {
    fn as_str(self) -> &'static str {
        match self {
            Self::Rollout => "rollout",
            Self::Scale => "scale",
        }
    }
}

impl SystemTx {
    /// The servers of `candidates` (`SELECT organization_id, id, urgency ...`, the smallest urgency first) that a loop may
    /// look at, one of each organization after the other.
    pub(crate) async fn due(
        &self,
        which: Loop,
        candidates: &str,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<ServerRef>> {
        let sql = format!(
            "SELECT organization_id, id FROM (SELECT candidates.organization_id AS organization_id, candidates.id AS id, \
             COALESCE(next_attempt_at, 0) AS due_at, ROW_NUMBER() OVER (PARTITION BY candidates.organization_id \
             ORDER BY urgency, COALESCE(next_attempt_at, 0), candidates.id) AS place FROM ({candidates}) AS candidates \
             LEFT JOIN attempts ON attempts.server_id = candidates.id AND attempts.loop = $1 \
             WHERE COALESCE(next_attempt_at, 0) <= $2 OR next_attempt_at > $3) AS due ORDER BY place, due_at, id LIMIT $4"
        );
        let latest = now.plus(LONGEST_WAIT);
        let values = [which.as_str().into(), now.as_ms().into(), latest.as_ms().into(), i64::from(limit).into()];
        read_refs(self.rows::<RefRow>(sql, values).await?)
    }

    /// Puts off servers that a loop looked at, each until its time; but not those that something happened to after the
    /// event `seen`, the newest before it looked.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn put_off(&self, which: Loop, seen: i64, waits: &[(ServerRef, Timestamp)]) -> Result<()> {
        // Whoever makes something due holds it too, so nothing happens meanwhile.
        outbox::lock(self.db()).await?;
        let events = self.events_after(seen, MOST_EVENTS).await?;
        if u32::try_from(events.len()).unwrap_or(u32::MAX) >= MOST_EVENTS {
            return Ok(());
        }
        let mut touched = Touched::default();
        for event in &events {
            touched.note(event.organization, &event.kind, &event.subject);
        }
        let kept: BTreeSet<String> = touched.server_ids(self.db()).await?.into_iter().collect();
        let waits: Vec<_> = waits
            .iter()
            .filter(|(at, _)| !touched.all.contains(&at.organization) && !kept.contains(&at.server.to_string()))
            .collect();
        for chunk in waits.chunks(ROWS_AT_ONCE) {
            let rows: Vec<_> = (0..chunk.len()).map(|row| format!("({})", placeholders(row * 4 + 1, 4))).collect();
            let sql = format!(
                "INSERT INTO attempts (server_id, loop, organization_id, next_attempt_at) VALUES {} \
                 ON CONFLICT (server_id, loop) DO UPDATE SET next_attempt_at = excluded.next_attempt_at",
                rows.join(", ")
            );
            let values = chunk.iter().flat_map(|(at, until)| -> [Value; 4] {
                let (server, organization) = (at.server.to_string(), at.organization.to_string());
                [server.into(), which.as_str().into(), organization.into(), until.as_ms().into()]
            });
            self.execute(&sql, values).await?;
        }
        Ok(())
    }

    /// Forgets servers that are gone.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn trim_attempts(&self) -> Result<u64> {
        outbox::lock(self.db()).await?;
        let gone = "NOT EXISTS (SELECT 1 FROM servers WHERE servers.id = attempts.server_id)";
        self.execute(&format!("DELETE FROM attempts WHERE {gone}"), []).await
    }
}

/// Makes due what events are about; under the lock of the outbox.
pub(crate) async fn touch(db: &Connection, events: &[NewEvent], now: Timestamp) -> Result<()> {
    let mut touched = Touched::default();
    for event in events {
        touched.note(event.organization, event.kind.as_str(), &event.subject);
    }
    let backend = db.get_database_backend();
    let update = "UPDATE attempts SET next_attempt_at = $1 WHERE next_attempt_at > $1 AND organization_id = $2";
    for organization in &touched.all {
        let values = [now.as_ms().into(), organization.to_string().into()];
        db.execute_raw(Statement::from_sql_and_values(backend, update, values)).await?;
    }
    for (organization, names) in touched.named() {
        let named = placeholders(3, names.len());
        let sql = format!(
            "{update} AND server_id IN (SELECT id FROM servers WHERE organization_id = $2 AND name IN ({named}))"
        );
        let mut values: Vec<Value> = vec![now.as_ms().into(), organization.to_string().into()];
        values.extend(names.iter().map(|name| Value::from(name.clone())));
        db.execute_raw(Statement::from_sql_and_values(backend, sql, values)).await?;
    }
    Ok(())
}

/// What events are about.
#[derive(Default)]
struct Touched {
    /// Every server of these.
    all: BTreeSet<OrganizationId>,
    names: BTreeMap<OrganizationId, BTreeSet<String>>,
}

impl Touched {
    fn note(&mut self, organization: Option<OrganizationId>, kind: &str, subject: &str) {
        let Some(organization) = organization else { return };
        match (kind.split('.').next(), subject.split_once('/')) {
            (Some("server"), Some((_, name))) => {
                self.names.entry(organization).or_default().insert(name.to_owned());
            }
            (Some("toolbox"), _) => {
                self.all.insert(organization);
            }
            _ => {}
        }
    }

    fn named(&self) -> impl Iterator<Item = (&OrganizationId, &BTreeSet<String>)> {
        self.names.iter().filter(|(organization, _)| !self.all.contains(organization))
    }

    async fn server_ids(&self, db: &Connection) -> Result<Vec<String>> {
        let mut ids = Vec::new();
        for (organization, names) in self.named() {
            let named = placeholders(2, names.len());
            let sql = format!("SELECT id AS text FROM servers WHERE organization_id = $1 AND name IN ({named})");
            let values = std::iter::once(organization.to_string())
                .chain(names.iter().cloned())
                .map(Value::from)
                .collect::<Vec<_>>();
            let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, values);
            for row in db.query_all_raw(statement).await? {
                ids.push(row.try_get("", "text")?);
            }
        }
        Ok(ids)
    }
}
