//! Instances: what each toolbox should run, and what its agent observed.

use std::collections::BTreeMap;

use sea_orm::FromQueryResult;
use toolyard_types::agent::{Exit, McpInfo};
use toolyard_types::state::{Phase, Reason, Status};
use toolyard_types::{CredentialId, InstanceId, RevisionId, RolloutId, ServerId, Timestamp, ToolboxId};

use crate::query::{count, json, parse, placeholders, reason, to_i32, to_json};
use crate::{OrgTx, Result, RolloutRow, StoreError, SystemTx};

/// What an instance should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceWish {
    /// Be installed, and wait.
    Prepare,
    /// Run.
    Run,
    /// Run on for a moment without new calls, so that those under way end well.
    Retire,
    /// End.
    Stop,
}

impl InstanceWish {
    fn as_str(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Run => "run",
            Self::Retire => "retire",
            Self::Stop => "stop",
        }
    }

    fn read(text: &str) -> Self {
        match text {
            "prepare" => Self::Prepare,
            "run" => Self::Run,
            "retire" => Self::Retire,
            _ => Self::Stop,
        }
    }
}

/// An instance.
#[derive(Clone, Debug, PartialEq)]
pub struct InstanceRow {
    /// Its id.
    pub id: InstanceId,
    /// Whose.
    pub server: ServerId,
    /// What it runs.
    pub revision: RevisionId,
    /// The rollout that made it.
    pub rollout: RolloutId,
    /// Where.
    pub toolbox: ToolboxId,
    /// What it should do.
    pub desired: InstanceWish,
    /// Where it is, as last observed.
    pub status: Status<Phase>,
    /// Its process.
    pub pid: Option<u32>,
    /// Since when it answers.
    pub ready_since: Option<Timestamp>,
    /// How often it was started again.
    pub restarts: u32,
    /// How it ended last.
    pub exit: Option<Exit>,
    /// What it said of itself.
    pub mcp: Option<McpInfo>,
    /// The container it runs in.
    pub container_id: Option<String>,
    /// When it last answered, as last written.
    pub last_success_at: Option<Timestamp>,
    /// How many probes in a row it failed.
    pub failures: u32,
    /// How many copies of it run.
    pub copies: u32,
    /// The versions of the secrets that it was started with, as far as its agent tells.
    pub secret_versions: BTreeMap<CredentialId, u32>,
    /// Since when it is to take no new calls.
    pub retired_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was seen to have ended for good.
    pub ended_at: Option<Timestamp>,
}

impl InstanceRow {
    /// One that its agent has not heard of yet.
    #[must_use]
    pub fn new(
        rollout: &RolloutRow,
        revision: RevisionId,
        toolbox: ToolboxId,
        desired: InstanceWish,
        now: Timestamp,
    ) -> Self {
        Self {
            id: InstanceId::generate(),
            server: rollout.server,
            revision,
            rollout: rollout.id,
            toolbox,
            desired,
            status: Status::new(Phase::Pending, Reason::AwaitingToolbox, "", now),
            pid: None,
            ready_since: None,
            restarts: 0,
            exit: None,
            mcp: None,
            container_id: None,
            last_success_at: None,
            failures: 0,
            copies: 0,
            secret_versions: BTreeMap::new(),
            retired_at: None,
            created_at: now,
            ended_at: None,
        }
    }

    /// Whether calls may go to it once it is ready.
    #[must_use]
    pub fn should_serve(&self) -> bool {
        self.desired == InstanceWish::Run && self.ended_at.is_none()
    }
}

const COLUMNS: &str = "id, server_id, revision_id, rollout_id, toolbox_id, desired, phase, reason, message, since, \
                       next_attempt_at, pid, ready_since, restarts, exit, mcp, created_at, ended_at, container_id, \
                       last_success_at, failures, copies, retired_at, secret_versions";

#[derive(FromQueryResult)]
struct Row {
    id: String,
    server_id: String,
    revision_id: String,
    rollout_id: String,
    toolbox_id: String,
    desired: String,
    phase: String,
    reason: String,
    message: String,
    since: i64,
    next_attempt_at: Option<i64>,
    pid: Option<i64>,
    ready_since: Option<i64>,
    restarts: i32,
    exit: Option<String>,
    mcp: Option<String>,
    created_at: i64,
    ended_at: Option<i64>,
    container_id: Option<String>,
    last_success_at: Option<i64>,
    failures: i32,
    copies: i32,
    retired_at: Option<i64>,
    secret_versions: Option<String>,
}

impl TryFrom<Row> for InstanceRow {
    type Error = StoreError;
    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: parse("instances.id", &row.id)?,
            server: parse("instances.server_id", &row.server_id)?,
            revision: parse("instances.revision_id", &row.revision_id)?,
            rollout: parse("instances.rollout_id", &row.rollout_id)?,
            toolbox: parse("instances.toolbox_id", &row.toolbox_id)?,
            desired: InstanceWish::read(&row.desired),
            status: Status {
                phase: parse("instances.phase", &row.phase)?,
                reason: reason(&row.reason),
                message: row.message,
                since: Timestamp::from_ms(row.since),
                next_attempt_at: row.next_attempt_at.map(Timestamp::from_ms),
            },
            pid: row.pid.map(|pid| count("instances.pid", pid)).transpose()?,
            ready_since: row.ready_since.map(Timestamp::from_ms),
            restarts: count("instances.restarts", i64::from(row.restarts))?,
            exit: row.exit.map(|text| json("instances.exit", &text)).transpose()?,
            mcp: row.mcp.map(|text| json("instances.mcp", &text)).transpose()?,
            container_id: row.container_id,
            last_success_at: row.last_success_at.map(Timestamp::from_ms),
            failures: count("instances.failures", i64::from(row.failures))?,
            copies: count("instances.copies", i64::from(row.copies))?,
            secret_versions: read_versions(row.secret_versions.as_deref())?,
            retired_at: row.retired_at.map(Timestamp::from_ms),
            created_at: Timestamp::from_ms(row.created_at),
            ended_at: row.ended_at.map(Timestamp::from_ms),
        })
    }
}

/// The versions of the secrets that an instance was started with, as written.
pub(crate) fn read_versions(text: Option<&str>) -> Result<BTreeMap<CredentialId, u32>> {
    Ok(text.map(|text| json("instances.secret_versions", text)).transpose()?.unwrap_or_default())
}

fn versions_text(instance: &InstanceRow) -> Option<String> {
    (!instance.secret_versions.is_empty()).then(|| to_json(&instance.secret_versions))
}

/// Instances of a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstanceTally {
    /// The phase.
    pub phase: Phase,
    /// How many.
    pub number: u32,
    /// How often they were started again.
    pub restarts: u32,
    /// How many copies of them run.
    pub copies: u32,
    /// When one of them last answered, as last written.
    pub last_success_at: Option<Timestamp>,
}

#[derive(FromQueryResult)]
struct TallyRow {
    phase: String,
    number: i64,
    restarts: i64,
    copies: i64,
    last_success_at: Option<i64>,
}

#[derive(FromQueryResult)]
struct LastEnd {
    server_id: String,
    ended_at: i64,
}

#[derive(FromQueryResult)]
struct ToolboxCount {
    toolbox_id: String,
    number: i64,
}

impl OrgTx {
    /// Writes a new instance.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn insert_instance(&self, instance: &InstanceRow) -> Result<()> {
        let sql = format!(
            "INSERT INTO instances (organization_id, {COLUMNS}) VALUES \
             ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25)"
        );
        let values = [
            self.organization().to_string().into(),
            instance.id.to_string().into(),
            instance.server.to_string().into(),
            instance.revision.to_string().into(),
            instance.rollout.to_string().into(),
            instance.toolbox.to_string().into(),
            instance.desired.as_str().into(),
            instance.status.phase.as_str().into(),
            instance.status.reason.as_str().into(),
            instance.status.message.clone().into(),
            instance.status.since.as_ms().into(),
            instance.status.next_attempt_at.map(Timestamp::as_ms).into(),
            instance.pid.map(i64::from).into(),
            instance.ready_since.map(Timestamp::as_ms).into(),
            to_i32(instance.restarts).into(),
            instance.exit.as_ref().map(to_json).into(),
            instance.mcp.as_ref().map(to_json).into(),
            instance.created_at.as_ms().into(),
            instance.ended_at.map(Timestamp::as_ms).into(),
            instance.container_id.clone().into(),
            instance.last_success_at.map(Timestamp::as_ms).into(),
            to_i32(instance.failures).into(),
            to_i32(instance.copies).into(),
            instance.retired_at.map(Timestamp::as_ms).into(),
            versions_text(instance).into(),
        ];
        self.execute(&sql, values).await?;
        Ok(())
    }

    /// Writes what may change of an instance that has not ended.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn update_instance(&self, instance: &InstanceRow) -> Result<()> {
        let sql = "UPDATE instances SET phase = $3, reason = $4, message = $5, since = $6, next_attempt_at = $7, \
                   pid = $8, ready_since = $9, restarts = $10, exit = $11, mcp = $12, ended_at = $13, desired = $14 \
                   WHERE organization_id = $1 AND id = $2 AND ended_at IS NULL";
        let values = [
            self.organization().to_string().into(),
            instance.id.to_string().into(),
            instance.status.phase.as_str().into(),
            instance.status.reason.as_str().into(),
            instance.status.message.clone().into(),
            instance.status.since.as_ms().into(),
            instance.status.next_attempt_at.map(Timestamp::as_ms).into(),
            instance.pid.map(i64::from).into(),
            instance.ready_since.map(Timestamp::as_ms).into(),
            to_i32(instance.restarts).into(),
            instance.exit.as_ref().map(to_json).into(),
            instance.mcp.as_ref().map(to_json).into(),
            instance.ended_at.map(Timestamp::as_ms).into(),
            instance.desired.as_str().into(),
        ];
        self.execute(sql, values).await?;
        Ok(())
    }

    /// Writes only what an agent observed; what the instance should do is left as it is.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn observe_instance(&self, instance: &InstanceRow) -> Result<()> {
        let sql = "UPDATE instances SET phase = $3, reason = $4, message = $5, since = $6, next_attempt_at = $7, \
                   pid = $8, ready_since = $9, restarts = $10, exit = $11, mcp = $12, ended_at = $13, \
                   container_id = $14, last_success_at = $15, failures = $16, copies = $17, secret_versions = $18 \
                   WHERE organization_id = $1 AND id = $2 AND ended_at IS NULL";
        let values = [
            self.organization().to_string().into(),
            instance.id.to_string().into(),
            instance.status.phase.as_str().into(),
            instance.status.reason.as_str().into(),
            instance.status.message.clone().into(),
            instance.status.since.as_ms().into(),
            instance.status.next_attempt_at.map(Timestamp::as_ms).into(),
            instance.pid.map(i64::from).into(),
            instance.ready_since.map(Timestamp::as_ms).into(),
            to_i32(instance.restarts).into(),
            instance.exit.as_ref().map(to_json).into(),
            instance.mcp.as_ref().map(to_json).into(),
            instance.ended_at.map(Timestamp::as_ms).into(),
            instance.container_id.clone().into(),
            instance.last_success_at.map(Timestamp::as_ms).into(),
            to_i32(instance.failures).into(),
            to_i32(instance.copies).into(),
            versions_text(instance).into(),
        ];
        self.execute(sql, values).await?;
        Ok(())
    }

    /// Asks an instance to do something.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_instance_wish(&self, id: InstanceId, desired: InstanceWish) -> Result<()> {
        let sql = "UPDATE instances SET desired = $3, retired_at = $4 \
                   WHERE organization_id = $1 AND id = $2 AND ended_at IS NULL";
        let retired_at = (desired == InstanceWish::Retire).then(|| self.now().as_ms());
        let values =
            [self.organization().to_string().into(), id.to_string().into(), desired.as_str().into(), retired_at.into()];
        self.execute(sql, values).await?;
        Ok(())
    }

    /// The instances of servers that have not ended, oldest first.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn live_instances(&self, servers: &[ServerId]) -> Result<Vec<InstanceRow>> {
        if servers.is_empty() {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT {COLUMNS} FROM instances WHERE organization_id = $1 AND ended_at IS NULL AND server_id IN ({}) ORDER BY id",
            placeholders(2, servers.len())
        );
        let values = std::iter::once(self.organization().to_string().into())
            .chain(servers.iter().map(|id| id.to_string().into()))
            .collect::<Vec<_>>();
        self.rows::<Row>(sql, values).await?.into_iter().map(TryInto::try_into).collect()
    }

    /// The instances of a server, also ended ones as far as they are remembered, the newest first.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn instances_of_server(&self, server: ServerId, limit: u32) -> Result<Vec<InstanceRow>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM instances WHERE organization_id = $1 AND server_id = $2 ORDER BY id DESC LIMIT $3"
        );
        let values = [self.organization().to_string().into(), server.to_string().into(), i64::from(limit).into()];
        self.rows::<Row>(sql, values).await?.into_iter().map(TryInto::try_into).collect()
    }

    /// When the last instance of each of these servers ended, as far as one is remembered.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn last_ends(&self, servers: &[ServerId]) -> Result<Vec<(ServerId, Timestamp)>> {
        if servers.is_empty() {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT server_id, MAX(ended_at) AS ended_at FROM instances \
             WHERE organization_id = $1 AND ended_at IS NOT NULL AND server_id IN ({}) GROUP BY server_id",
            placeholders(2, servers.len())
        );
        let values = std::iter::once(self.organization().to_string().into())
            .chain(servers.iter().map(|id| id.to_string().into()))
            .collect::<Vec<_>>();
        let rows = self.rows::<LastEnd>(sql, values).await?;
        rows.into_iter()
            .map(|row| Ok((parse("instances.server_id", &row.server_id)?, Timestamp::from_ms(row.ended_at))))
            .collect()
    }

    /// Every instance that a rollout made, also ended ones.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn instances_of_rollout(&self, rollout: RolloutId) -> Result<Vec<InstanceRow>> {
        let sql = format!("SELECT {COLUMNS} FROM instances WHERE organization_id = $1 AND rollout_id = $2 ORDER BY id");
        let values = [self.organization().to_string().into(), rollout.to_string().into()];
        self.rows::<Row>(sql, values).await?.into_iter().map(TryInto::try_into).collect()
    }

    /// The instances on a toolbox that have not ended, oldest first.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn instances_on(&self, toolbox: ToolboxId) -> Result<Vec<InstanceRow>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM instances WHERE organization_id = $1 AND toolbox_id = $2 AND ended_at IS NULL ORDER BY id"
        );
        let values = [self.organization().to_string().into(), toolbox.to_string().into()];
        self.rows::<Row>(sql, values).await?.into_iter().map(TryInto::try_into).collect()
    }

    /// Instances that fail, or failed and were started again or ended since `since`, the newest first, at most `limit`;
    /// only those of a toolbox, when one is given.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn troubled_instances(
        &self,
        toolbox: Option<ToolboxId>,
        since: Timestamp,
        limit: u32,
    ) -> Result<Vec<InstanceRow>> {
        let within = if toolbox.is_some() { "AND toolbox_id = $4" } else { "" };
        let sql = format!(
            "SELECT {COLUMNS} FROM instances WHERE organization_id = $1 AND (ended_at IS NULL OR ended_at >= $2) \
             AND (phase IN ('failed', 'degraded') OR restarts > 0 OR (phase = 'starting' AND exit IS NOT NULL)) \
             {within} ORDER BY since DESC LIMIT $3"
        );
        let mut values = vec![self.organization().to_string().into(), since.as_ms().into(), i64::from(limit).into()];
        values.extend(toolbox.map(|id| id.to_string().into()));
        self.rows::<Row>(sql, values).await?.into_iter().map(TryInto::try_into).collect()
    }

    /// How the instances that have not ended fare: how many are in each phase, with their restarts, their copies, and
    /// when one last answered; only those of a toolbox, when one is given.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn count_instances(&self, toolbox: Option<ToolboxId>) -> Result<Vec<InstanceTally>> {
        let within = if toolbox.is_some() { "AND i.toolbox_id = $2" } else { "" };
        let sql = format!(
            "SELECT CASE WHEN t.state = 'unreachable' AND i.phase IN ('preparing', 'starting', 'ready', 'degraded', 'stopping') \
             THEN 'unknown' ELSE i.phase END AS phase, COUNT(*) AS number, CAST(SUM(i.restarts) AS BIGINT) AS restarts, \
             CAST(SUM(i.copies) AS BIGINT) AS copies, MAX(i.last_success_at) AS last_success_at \
             FROM instances i JOIN toolboxes t ON t.id = i.toolbox_id \
             WHERE i.organization_id = $1 AND i.ended_at IS NULL {within} GROUP BY 1 ORDER BY 1"
        );
        let mut values = vec![self.organization().to_string().into()];
        values.extend(toolbox.map(|id| id.to_string().into()));
        let rows = self.rows::<TallyRow>(sql, values).await?;
        rows.into_iter()
            .map(|row| {
                Ok(InstanceTally {
                    phase: parse("instances.phase", &row.phase)?,
                    number: count("instances", row.number)?,
                    restarts: count("instances.restarts", row.restarts)?,
                    copies: count("instances.copies", row.copies)?,
                    last_success_at: row.last_success_at.map(Timestamp::from_ms),
                })
            })
            .collect()
    }

    /// How many instances on each toolbox have not ended.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn instances_by_toolbox(&self) -> Result<Vec<(ToolboxId, u32)>> {
        let sql = "SELECT toolbox_id, COUNT(*) AS number FROM instances \
                   WHERE organization_id = $1 AND ended_at IS NULL GROUP BY toolbox_id";
        let rows = self.rows::<ToolboxCount>(sql, [self.organization().to_string().into()]).await?;
        rows.into_iter()
            .map(|row| Ok((parse("instances.toolbox_id", &row.toolbox_id)?, count("instances", row.number)?)))
            .collect()
    }
}

impl SystemTx {
    /// Forgets instances that ended before `at`, at most `limit`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn trim_instances(&self, at: Timestamp, limit: u32) -> Result<u64> {
        let sql = "DELETE FROM instances WHERE id IN \
                   (SELECT id FROM instances WHERE ended_at IS NOT NULL AND ended_at < $1 \
                   AND NOT EXISTS (SELECT 1 FROM rollouts WHERE rollouts.id = instances.rollout_id AND state = 'progressing') \
                   AND EXISTS (SELECT 1 FROM instances newer WHERE newer.server_id = instances.server_id \
                   AND newer.revision_id = instances.revision_id AND newer.id > instances.id) \
                   ORDER BY ended_at LIMIT $2)";
        self.execute(sql, [at.as_ms().into(), i64::from(limit).into()]).await
    }
}
