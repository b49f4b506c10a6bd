//! What the control plane observed of remote servers, by revision.

use std::time::Duration;

use sea_orm::FromQueryResult;
use toolyard_types::agent::McpInfo;
use toolyard_types::state::{Phase, Reason, RolloutState, Status};
use toolyard_types::{OrganizationId, RevisionId, ServerId, Timestamp};

use crate::query::{count, json, parse, placeholders, reason, to_i32, to_json};
use crate::{OrgTx, Result, StoreError, SystemTx};

/// What was observed of a remote server.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeRow {
    /// Which revision was probed.
    pub revision: RevisionId,
    /// Whose.
    pub server: ServerId,
    /// What came of it.
    pub status: Status<Phase>,
    /// When.
    pub checked_at: Timestamp,
    /// How many probes in a row failed.
    pub failures: u32,
    /// Whether the last one took long.
    pub slow: bool,
    /// What it said of itself.
    pub mcp: Option<McpInfo>,
}

/// A revision of a remote server that is to be probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueProbe {
    /// Whose server it is.
    pub organization: OrganizationId,
    /// The server.
    pub server: ServerId,
    /// Its revision.
    pub revision: RevisionId,
    /// Whether a rollout waits for it; else it serves.
    pub awaited: bool,
}

/// How long after a probe the next one is due.
#[derive(Clone, Copy, Debug)]
pub struct ProbePauses {
    /// Of what serves.
    pub serving: Duration,
    /// Of what a rollout waits for.
    pub awaited: Duration,
}

#[derive(FromQueryResult)]
struct DueRow {
    organization_id: String,
    server_id: String,
    revision_id: String,
    awaited: bool,
}

impl TryFrom<DueRow> for DueProbe {
    type Error = StoreError;
    fn try_from(row: DueRow) -> Result<Self> {
        Ok(Self {
            organization: parse("servers.organization_id", &row.organization_id)?,
            server: parse("servers.id", &row.server_id)?,
            revision: parse("revisions.id", &row.revision_id)?,
            awaited: row.awaited,
        })
    }
}

#[derive(FromQueryResult)]
struct Row {
    revision_id: String,
    server_id: String,
    phase: String,
    reason: String,
    message: String,
    since: i64,
    checked_at: i64,
    failures: i32,
    slow: bool,
    mcp: Option<String>,
}

impl TryFrom<Row> for ProbeRow {
    type Error = StoreError;
    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            revision: parse("remote_probes.revision_id", &row.revision_id)?,
            server: parse("remote_probes.server_id", &row.server_id)?,
            status: Status {
                phase: parse("remote_probes.phase", &row.phase)?,
                reason: reason(&row.reason),
                message: row.message,
                since: Timestamp::from_ms(row.since),
                next_attempt_at: None,
            },
            checked_at: Timestamp::from_ms(row.checked_at),
            failures: count("remote_probes.failures", i64::from(row.failures))?,
            slow: row.slow,
            mcp: row.mcp.map(|text| json("remote_probes.mcp", &text)).transpose()?,
        })
    }
}

impl OrgTx {
    /// Writes what was observed of a remote server.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn put_probe(&self, probe: &ProbeRow) -> Result<()> {
        let sql = "INSERT INTO remote_probes (organization_id, revision_id, server_id, phase, reason, message, since, \
                   checked_at, failures, mcp, slow) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
                   ON CONFLICT (revision_id) DO UPDATE SET phase = $4, reason = $5, message = $6, since = $7, \
                   checked_at = $8, failures = $9, mcp = $10, slow = $11";
        let values = [
            self.organization().to_string().into(),
            probe.revision.to_string().into(),
            probe.server.to_string().into(),
            probe.status.phase.as_str().into(),
            probe.status.reason.as_str().into(),
            probe.status.message.clone().into(),
            probe.status.since.as_ms().into(),
            probe.checked_at.as_ms().into(),
            to_i32(probe.failures).into(),
            probe.mcp.as_ref().map(to_json).into(),
            probe.slow.into(),
        ];
        self.execute(sql, values).await?;
        Ok(())
    }

    /// What was observed of the revisions of servers.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn probes_of(&self, servers: &[ServerId]) -> Result<Vec<ProbeRow>> {
        if servers.is_empty() {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT revision_id, server_id, phase, reason, message, since, checked_at, failures, slow, mcp \
             FROM remote_probes WHERE organization_id = $1 AND server_id IN ({})",
            placeholders(2, servers.len())
        );
        let values = std::iter::once(self.organization().to_string().into())
            .chain(servers.iter().map(|id| id.to_string().into()))
            .collect::<Vec<_>>();
        self.rows::<Row>(sql, values).await?.into_iter().map(TryInto::try_into).collect()
    }
}

impl SystemTx {
    /// The revisions of remote servers that are to be probed now and whose last probe took long, or those of which none
    /// did: in turn of every organization one that a rollout waits for and one that serves, the longest unprobed first. One
    /// that serves and that a rollout waits for may be named twice.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn probes_due(
        &self,
        now: Timestamp,
        pauses: ProbePauses,
        slow: bool,
        limit: u32,
    ) -> Result<Vec<DueProbe>> {
        let lane = if slow { "COALESCE(slow, FALSE)" } else { "NOT COALESCE(slow, FALSE)" };
        let remote = "servers.kind = 'remote' AND servers.enabled AND NOT servers.deleted";
        let (progressing, held) = (RolloutState::Progressing.as_str(), Reason::OutsideWindow.as_str());
        let candidates = format!(
            "SELECT servers.organization_id AS organization_id, servers.id AS server_id, \
             servers.serving_revision_id AS revision_id, FALSE AS awaited, 0 AS began FROM servers \
             WHERE {remote} AND servers.serving_rollout_id IS NOT NULL AND servers.serving_revision_id IS NOT NULL \
             UNION ALL SELECT servers.organization_id, servers.id, rollouts.to_revision_id, TRUE, rollouts.started_at \
             FROM servers JOIN rollouts ON rollouts.id = servers.rollout_id \
             WHERE {remote} AND rollouts.state = '{progressing}' AND rollouts.reason <> '{held}'"
        );
        // What seems to have been probed after now was, before the clock was set back. A rollout may seem to begin after now
        // when another replica's clock is ahead: until then every probe is from before it, and each waits for its pause.
        let sql = format!(
            "SELECT organization_id, server_id, revision_id, awaited FROM (SELECT \
             candidates.organization_id AS organization_id, candidates.server_id AS server_id, \
             candidates.revision_id AS revision_id, awaited, COALESCE(checked_at, 0) AS probed_at, \
             ROW_NUMBER() OVER (PARTITION BY candidates.organization_id, awaited \
             ORDER BY COALESCE(checked_at, 0), candidates.revision_id) AS place FROM ({candidates}) AS candidates \
             LEFT JOIN remote_probes ON remote_probes.revision_id = candidates.revision_id \
             WHERE {lane} AND (checked_at IS NULL OR checked_at > $1 \
             OR (checked_at < began AND (began <= $5 OR checked_at <= $2 OR checked_at > $5)) \
             OR (awaited AND phase <> '{ready}' AND checked_at <= $2) OR (NOT awaited AND checked_at <= $3))) AS due \
             ORDER BY place, probed_at, revision_id LIMIT $4",
            ready = Phase::Ready.as_str()
        );
        let values = [
            now.plus(pauses.serving).as_ms().into(),
            now.minus(pauses.awaited).as_ms().into(),
            now.minus(pauses.serving).as_ms().into(),
            i64::from(limit).into(),
            now.as_ms().into(),
        ];
        self.rows::<DueRow>(sql, values).await?.into_iter().map(TryInto::try_into).collect()
    }
}
