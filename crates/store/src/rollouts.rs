//! Rollouts: a row is all that a rollout is, so it goes on after a restart of the control plane.

use sea_orm::FromQueryResult;
use serde::{Deserialize, Serialize};
use toolyard_types::api::servers::{Canary, RolloutStep};
use toolyard_types::state::{Reason, RolloutState};
use toolyard_types::{Labels, OrganizationId, RevisionId, RolloutId, ServerId, Timestamp, ToolboxId};

use crate::attempts::Loop;
use crate::query::{json, parse, parse_option, placeholders, reason, to_json};
use crate::servers::{ServerRef, ServerRow, text};
use crate::{OrgTx, Result, StoreError, SystemTx};

/// Where a server is to run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// On this toolbox; any when absent.
    pub toolbox: Option<ToolboxId>,
    /// On one that has these labels.
    pub labels: Labels,
}

/// A rollout.
#[derive(Clone, Debug, PartialEq)]
pub struct RolloutRow {
    /// Its id.
    pub id: RolloutId,
    /// Whose.
    pub server: ServerId,
    /// The revision that served when it began.
    pub from_revision: Option<RevisionId>,
    /// The revision it goes to.
    pub to_revision: RevisionId,
    /// Where it is.
    pub state: RolloutState,
    /// Why.
    pub reason: Reason,
    /// Why, for a person.
    pub message: String,
    /// What happened.
    pub log: Vec<RolloutStep>,
    /// When it began.
    pub started_at: Timestamp,
    /// When it must have ended.
    pub deadline: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// The rollout whose instances served when traffic was switched, to go back to.
    pub from_rollout: Option<RolloutId>,
    /// Since when the new revision serves.
    pub switched_at: Option<Timestamp>,
    /// Whether the new revision may list fewer tools than the old one.
    pub accept_lost_tools: bool,
    /// How the new revision is tried before it serves.
    pub canary: Option<Canary>,
    /// When it goes on, if it waits for a time.
    pub next_attempt_at: Option<Timestamp>,
    /// Where the server was to run before, when this rollout moves it.
    pub from_place: Option<Place>,
}

impl RolloutRow {
    /// The most steps a log keeps; the newest are kept.
    const MAX_STEPS: usize = 100;

    /// Adds a step to the log.
    pub fn step(&mut self, at: Timestamp, message: impl Into<String>) {
        self.log.push(RolloutStep { at, message: message.into() });
        if self.log.len() > Self::MAX_STEPS {
            self.log.remove(0);
        }
    }
}

const COLUMNS: &str = "id, server_id, from_revision_id, to_revision_id, state, reason, message, log, started_at, \
                       deadline, ended_at, from_rollout_id, switched_at, accept_lost_tools, canary, next_attempt_at, \
                       from_place";

#[derive(FromQueryResult)]
struct Row {
    id: String,
    server_id: String,
    from_revision_id: Option<String>,
    to_revision_id: String,
    state: String,
    reason: String,
    message: String,
    log: String,
    started_at: i64,
    deadline: i64,
    ended_at: Option<i64>,
    from_rollout_id: Option<String>,
    switched_at: Option<i64>,
    accept_lost_tools: bool,
    canary: Option<String>,
    next_attempt_at: Option<i64>,
    from_place: Option<String>,
}

impl TryFrom<Row> for RolloutRow {
    type Error = StoreError;
    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: parse("rollouts.id", &row.id)?,
            server: parse("rollouts.server_id", &row.server_id)?,
            from_revision: parse_option("rollouts.from_revision_id", row.from_revision_id.as_deref())?,
            to_revision: parse("rollouts.to_revision_id", &row.to_revision_id)?,
            state: parse("rollouts.state", &row.state)?,
            reason: reason(&row.reason),
            message: row.message,
            log: json("rollouts.log", &row.log)?,
            started_at: Timestamp::from_ms(row.started_at),
            deadline: Timestamp::from_ms(row.deadline),
            ended_at: row.ended_at.map(Timestamp::from_ms),
            from_rollout: parse_option("rollouts.from_rollout_id", row.from_rollout_id.as_deref())?,
            switched_at: row.switched_at.map(Timestamp::from_ms),
            accept_lost_tools: row.accept_lost_tools,
            canary: row.canary.map(|text| json("rollouts.canary", &text)).transpose()?,
            next_attempt_at: row.next_attempt_at.map(Timestamp::from_ms),
            from_place: row.from_place.map(|text| json("rollouts.from_place", &text)).transpose()?,
        })
    }
}

#[derive(FromQueryResult)]
struct RefRow {
    organization_id: String,
    server_id: String,
}

#[derive(FromQueryResult)]
struct PastRow {
    from_revision_id: Option<String>,
    to_revision_id: String,
    state: String,
    started_at: i64,
    switched_at: Option<i64>,
    canary: Option<String>,
}

/// What a rollout that is still known says of whether revisions served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PastRollout {
    /// The revision that served when it began.
    pub from_revision: Option<RevisionId>,
    /// The revision it went to, or goes to.
    pub to_revision: RevisionId,
    /// Whether that served, if only for a while or a part of the calls.
    pub served: bool,
    /// When it began.
    pub started_at: Timestamp,
}

impl OrgTx {
    /// Writes a new rollout.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn insert_rollout(&self, rollout: &RolloutRow) -> Result<()> {
        let sql = format!(
            "INSERT INTO rollouts (organization_id, {COLUMNS}) VALUES \
             ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)"
        );
        let values = [
            self.organization().to_string().into(),
            rollout.id.to_string().into(),
            rollout.server.to_string().into(),
            text(rollout.from_revision.as_ref()),
            rollout.to_revision.to_string().into(),
            rollout.state.as_str().into(),
            rollout.reason.as_str().into(),
            rollout.message.clone().into(),
            to_json(&rollout.log).into(),
            rollout.started_at.as_ms().into(),
            rollout.deadline.as_ms().into(),
            rollout.ended_at.map(Timestamp::as_ms).into(),
            text(rollout.from_rollout.as_ref()),
            rollout.switched_at.map(Timestamp::as_ms).into(),
            rollout.accept_lost_tools.into(),
            rollout.canary.as_ref().map(to_json).into(),
            rollout.next_attempt_at.map(Timestamp::as_ms).into(),
            rollout.from_place.as_ref().map(to_json).into(),
        ];
        self.execute(&sql, values).await?;
        Ok(())
    }

    /// Writes where a rollout is. One that ended is never changed again.
    ///
    /// # Errors
    /// [`StoreError::Stale`] when it has ended already.
    pub async fn update_rollout(&self, rollout: &RolloutRow) -> Result<()> {
        let sql = "UPDATE rollouts SET state = $3, reason = $4, message = $5, log = $6, ended_at = $7, \
                   deadline = $8, from_rollout_id = $9, switched_at = $10, canary = $11, next_attempt_at = $12 \
                   WHERE organization_id = $1 AND id = $2 AND state = 'progressing'";
        let values = [
            self.organization().to_string().into(),
            rollout.id.to_string().into(),
            rollout.state.as_str().into(),
            rollout.reason.as_str().into(),
            rollout.message.clone().into(),
            to_json(&rollout.log).into(),
            rollout.ended_at.map(Timestamp::as_ms).into(),
            rollout.deadline.as_ms().into(),
            text(rollout.from_rollout.as_ref()),
            rollout.switched_at.map(Timestamp::as_ms).into(),
            rollout.canary.as_ref().map(to_json).into(),
            rollout.next_attempt_at.map(Timestamp::as_ms).into(),
        ];
        if self.execute(sql, values).await? == 0 {
            return Err(StoreError::Stale);
        }
        Ok(())
    }

    /// A rollout by id.
    ///
    /// # Errors
    /// When the database fails or the row cannot be read.
    pub async fn rollout(&self, id: RolloutId) -> Result<Option<RolloutRow>> {
        Ok(self.rollouts_by_id(&[id]).await?.pop())
    }

    /// A server's rollout that has not ended, if there is one.
    ///
    /// # Errors
    /// When the database fails or the row cannot be read.
    pub async fn rollout_under_way(&self, server: &ServerRow) -> Result<Option<RolloutRow>> {
        let Some(id) = server.rollout else { return Ok(None) };
        Ok(self.rollout(id).await?.filter(|rollout| rollout.state == RolloutState::Progressing))
    }

    /// Rollouts by id.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn rollouts_by_id(&self, ids: &[RolloutId]) -> Result<Vec<RolloutRow>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT {COLUMNS} FROM rollouts WHERE organization_id = $1 AND id IN ({})",
            placeholders(2, ids.len())
        );
        let values = std::iter::once(self.organization().to_string().into())
            .chain(ids.iter().map(|id| id.to_string().into()))
            .collect::<Vec<_>>();
        self.rows::<Row>(sql, values).await?.into_iter().map(TryInto::try_into).collect()
    }

    /// The rollouts of a server that are still known, the newest first, at most `limit`.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn past_rollouts(&self, server: ServerId, limit: u32) -> Result<Vec<PastRollout>> {
        let sql = "SELECT from_revision_id, to_revision_id, state, started_at, switched_at, canary FROM rollouts \
                   WHERE organization_id = $1 AND server_id = $2 ORDER BY started_at DESC LIMIT $3";
        let values = [self.organization().to_string().into(), server.to_string().into(), i64::from(limit).into()];
        let read = |row: PastRow| -> Result<PastRollout> {
            let canary: Option<Canary> = row.canary.map(|text| json("rollouts.canary", &text)).transpose()?;
            let tried = canary.is_some_and(|canary| canary.started_at.is_some());
            Ok(PastRollout {
                from_revision: parse_option("rollouts.from_revision_id", row.from_revision_id.as_deref())?,
                to_revision: parse("rollouts.to_revision_id", &row.to_revision_id)?,
                served: tried || row.state == RolloutState::Done.as_str() || row.switched_at.is_some(),
                started_at: Timestamp::from_ms(row.started_at),
            })
        };
        self.rows::<PastRow>(sql, values).await?.into_iter().map(read).collect()
    }

    /// Forgets all but the newest `keep` rollouts of a server.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn trim_rollouts(&self, server: ServerId, keep: u32) -> Result<u64> {
        let sql = "DELETE FROM rollouts WHERE organization_id = $1 AND server_id = $2 AND state <> 'progressing' \
                   AND id NOT IN (SELECT id FROM rollouts WHERE server_id = $2 ORDER BY started_at DESC LIMIT $3) \
                   AND id NOT IN (SELECT serving_rollout_id FROM servers WHERE id = $2 AND serving_rollout_id IS NOT NULL) \
                   AND id NOT IN (SELECT from_rollout_id FROM rollouts WHERE server_id = $2 \
                   AND state = 'progressing' AND from_rollout_id IS NOT NULL)";
        let values = [self.organization().to_string().into(), server.to_string().into(), i64::from(keep).into()];
        self.execute(sql, values).await
    }
}

impl SystemTx {
    /// Servers whose rollout under way is to be looked at now.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn rollouts_due(&self, now: Timestamp, limit: u32) -> Result<Vec<ServerRef>> {
        let under_way =
            "SELECT organization_id, server_id AS id, 0 AS urgency FROM rollouts WHERE state = 'progressing'";
        self.due(Loop::Rollout, under_way, now, limit).await
    }

    /// Servers that have more than `keep` rollouts.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn servers_with_many_rollouts(&self, keep: u32, limit: u32) -> Result<Vec<ServerRef>> {
        let sql = "SELECT organization_id, server_id FROM rollouts GROUP BY organization_id, server_id \
                   HAVING COUNT(*) > $1 LIMIT $2";
        server_refs(self.rows::<RefRow>(sql, [i64::from(keep).into(), i64::from(limit).into()]).await?)
    }
}

fn server_refs(rows: Vec<RefRow>) -> Result<Vec<ServerRef>> {
    rows.into_iter()
        .map(|row| {
            Ok(ServerRef {
                organization: parse::<OrganizationId>("rollouts.organization_id", &row.organization_id)?,
                server: parse("rollouts.server_id", &row.server_id)?,
            })
        })
        .collect()
}
