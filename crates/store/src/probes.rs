//! What the control plane observed of remote servers, by revision.

use sea_orm::FromQueryResult;
use toolyard_types::agent::McpInfo;
use toolyard_types::state::{Phase, Status};
use toolyard_types::{RevisionId, ServerId, Timestamp};

use crate::query::{count, json, parse, placeholders, reason, to_i32, to_json};
use crate::{OrgTx, Result, StoreError};

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
    /// What it said of itself.
    pub mcp: Option<McpInfo>,
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
                   checked_at, failures, mcp) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
                   ON CONFLICT (revision_id) DO UPDATE SET phase = $4, reason = $5, message = $6, since = $7, \
                   checked_at = $8, failures = $9, mcp = $10";
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
            "SELECT revision_id, server_id, phase, reason, message, since, checked_at, failures, mcp \
             FROM remote_probes WHERE organization_id = $1 AND server_id IN ({})",
            placeholders(2, servers.len())
        );
        let values = std::iter::once(self.organization().to_string().into())
            .chain(servers.iter().map(|id| id.to_string().into()))
            .collect::<Vec<_>>();
        self.rows::<Row>(sql, values).await?.into_iter().map(TryInto::try_into).collect()
    }
}
