//! Toolboxes: places where servers run, and the generation of what each should run.

use sea_orm::FromQueryResult;
use toolyard_types::agent::ToolboxReport;
use toolyard_types::state::{Reason, Status, ToolboxState};
use toolyard_types::{CredentialId, Name, OrganizationId, Timestamp, ToolboxId};

use crate::query::{TextRow, count, json, parse, to_i64, to_json};
use crate::{OrgTx, Result, StoreError, SystemTx};

/// A toolbox.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolboxRow {
    /// Its id.
    pub id: ToolboxId,
    /// Its name.
    pub name: Name,
    /// Where it is and why.
    pub status: Status<ToolboxState>,
    /// The SHA-256 of its agent's secret, in hex; none for the built-in one.
    pub token_hash: Option<String>,
    /// When its agent was last heard, as last written.
    pub last_seen_at: Option<Timestamp>,
    /// Its agent's version.
    pub agent_version: Option<String>,
    /// What it is and can enforce.
    pub report: ToolboxReport,
    /// Rises when what it should run changes.
    pub generation: u64,
    /// When it was made.
    pub created_at: Timestamp,
}

const COLUMNS: &str =
    "id, name, state, reason, message, since, token_hash, last_seen_at, agent_version, report, generation, created_at";

#[derive(FromQueryResult)]
struct Row {
    id: String,
    name: String,
    state: String,
    reason: String,
    message: String,
    since: i64,
    token_hash: Option<String>,
    last_seen_at: Option<i64>,
    agent_version: Option<String>,
    report: String,
    generation: i64,
    created_at: i64,
}

impl TryFrom<Row> for ToolboxRow {
    type Error = StoreError;
    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: parse("toolboxes.id", &row.id)?,
            name: parse("toolboxes.name", &row.name)?,
            status: Status {
                phase: parse("toolboxes.state", &row.state)?,
                reason: parse::<Reason>("toolboxes.reason", &row.reason)?,
                message: row.message,
                since: Timestamp::from_ms(row.since),
                next_attempt_at: None,
            },
            token_hash: row.token_hash,
            last_seen_at: row.last_seen_at.map(Timestamp::from_ms),
            agent_version: row.agent_version,
            report: json("toolboxes.report", &row.report)?,
            generation: count("toolboxes.generation", row.generation)?,
            created_at: Timestamp::from_ms(row.created_at),
        })
    }
}

#[derive(FromQueryResult)]
struct OwnerRow {
    organization_id: String,
    id: String,
}

#[derive(FromQueryResult)]
struct GenerationRow {
    id: String,
    generation: i64,
}

impl OrgTx {
    /// Writes a new toolbox.
    ///
    /// # Errors
    /// When the name is taken or the database fails.
    pub async fn insert_toolbox(&self, toolbox: &ToolboxRow) -> Result<()> {
        let sql = format!(
            "INSERT INTO toolboxes (organization_id, {COLUMNS}) VALUES \
             ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"
        );
        let values = [
            self.organization().to_string().into(),
            toolbox.id.to_string().into(),
            toolbox.name.to_string().into(),
            toolbox.status.phase.as_str().into(),
            toolbox.status.reason.as_str().into(),
            toolbox.status.message.clone().into(),
            toolbox.status.since.as_ms().into(),
            toolbox.token_hash.clone().into(),
            toolbox.last_seen_at.map(Timestamp::as_ms).into(),
            toolbox.agent_version.clone().into(),
            to_json(&toolbox.report).into(),
            to_i64(toolbox.generation).into(),
            toolbox.created_at.as_ms().into(),
        ];
        self.execute(&sql, values).await?;
        Ok(())
    }

    /// Writes what may change of a toolbox, but its generation.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn update_toolbox(&self, toolbox: &ToolboxRow) -> Result<()> {
        let sql = "UPDATE toolboxes SET state = $3, reason = $4, message = $5, since = $6, token_hash = $7, \
                   last_seen_at = $8, agent_version = $9, report = $10 WHERE organization_id = $1 AND id = $2";
        let values = [
            self.organization().to_string().into(),
            toolbox.id.to_string().into(),
            toolbox.status.phase.as_str().into(),
            toolbox.status.reason.as_str().into(),
            toolbox.status.message.clone().into(),
            toolbox.status.since.as_ms().into(),
            toolbox.token_hash.clone().into(),
            toolbox.last_seen_at.map(Timestamp::as_ms).into(),
            toolbox.agent_version.clone().into(),
            to_json(&toolbox.report).into(),
        ];
        self.execute(sql, values).await?;
        Ok(())
    }

    /// A toolbox by name; never a removed one.
    ///
    /// # Errors
    /// When the database fails or the row cannot be read.
    pub async fn toolbox(&self, name: &Name) -> Result<Option<ToolboxRow>> {
        let sql =
            format!("SELECT {COLUMNS} FROM toolboxes WHERE organization_id = $1 AND name = $2 AND state <> 'removed'");
        let values = [self.organization().to_string().into(), name.to_string().into()];
        self.row::<Row>(sql, values).await?.map(TryInto::try_into).transpose()
    }

    /// A toolbox by id; never a removed one.
    ///
    /// # Errors
    /// When the database fails or the row cannot be read.
    pub async fn toolbox_by_id(&self, id: ToolboxId) -> Result<Option<ToolboxRow>> {
        let sql =
            format!("SELECT {COLUMNS} FROM toolboxes WHERE organization_id = $1 AND id = $2 AND state <> 'removed'");
        let values = [self.organization().to_string().into(), id.to_string().into()];
        self.row::<Row>(sql, values).await?.map(TryInto::try_into).transpose()
    }

    /// Every toolbox that was not removed, by name.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn toolboxes(&self) -> Result<Vec<ToolboxRow>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM toolboxes WHERE organization_id = $1 AND state <> 'removed' ORDER BY name LIMIT 5000"
        );
        let rows = self.rows::<Row>(sql, [self.organization().to_string().into()]).await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    /// Says that what a toolbox should run changed in this transaction; `false` when the toolbox was removed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn bump_generation(&self, id: ToolboxId) -> Result<bool> {
        let sql = "UPDATE toolboxes SET generation = generation + 1 \
                   WHERE organization_id = $1 AND id = $2 AND state <> 'removed'";
        Ok(self.execute(sql, [self.organization().to_string().into(), id.to_string().into()]).await? > 0)
    }

    /// Says that what toolboxes should run changed, where a credential is used by an instance that has not ended.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn bump_generations_using(&self, credential: CredentialId) -> Result<()> {
        let sql = "UPDATE toolboxes SET generation = generation + 1 WHERE organization_id = $1 AND id IN \
                   (SELECT i.toolbox_id FROM instances i JOIN revision_credentials u ON u.revision_id = i.revision_id \
                   WHERE u.organization_id = $1 AND u.credential_id = $2 AND i.ended_at IS NULL)";
        self.execute(sql, [self.organization().to_string().into(), credential.to_string().into()]).await?;
        Ok(())
    }

    /// Raises a toolbox's generation above one that its agent saw, which a database restored from a backup
    /// may not have reached.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn raise_generation(&self, id: ToolboxId, above: u64) -> Result<()> {
        let sql = "UPDATE toolboxes SET generation = $3 WHERE organization_id = $1 AND id = $2 AND generation < $3";
        let above = to_i64(above.saturating_add(1));
        self.execute(sql, [self.organization().to_string().into(), id.to_string().into(), above.into()]).await?;
        Ok(())
    }

    /// Removes a toolbox: its row stays for its ended instances, its name becomes free.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remove_toolbox(&self, toolbox: &ToolboxRow) -> Result<()> {
        let sql = "UPDATE toolboxes SET state = 'removed', name = $3, token_hash = NULL, since = $4 \
                   WHERE organization_id = $1 AND id = $2";
        // No `Name` can hold a `#`, so the id cannot collide with a later toolbox.
        let values = [
            self.organization().to_string().into(),
            toolbox.id.to_string().into(),
            format!("#{}", toolbox.id).into(),
            self.now().as_ms().into(),
        ];
        self.execute(sql, values).await?;
        let unpin = "UPDATE servers SET toolbox_id = NULL WHERE organization_id = $1 AND toolbox_id = $2 AND deleted";
        self.execute(unpin, [self.organization().to_string().into(), toolbox.id.to_string().into()]).await?;
        Ok(())
    }

    /// The names of servers that must run on a toolbox.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn servers_pinned_to(&self, id: ToolboxId) -> Result<Vec<String>> {
        let sql = "SELECT name AS text FROM servers WHERE organization_id = $1 AND toolbox_id = $2 AND NOT deleted \
                   ORDER BY name LIMIT 10";
        let values = [self.organization().to_string().into(), id.to_string().into()];
        Ok(self.rows::<TextRow>(sql, values).await?.into_iter().map(|row| row.text).collect())
    }
}

impl SystemTx {
    /// Whose toolbox it is.
    ///
    /// # Errors
    /// When the database fails or the row cannot be read.
    pub async fn toolbox_organization(&self, id: ToolboxId) -> Result<Option<OrganizationId>> {
        let sql = "SELECT organization_id AS text FROM toolboxes WHERE id = $1 AND state <> 'removed'";
        let row = self.row::<TextRow>(sql, [id.to_string().into()]).await?;
        row.map(|row| parse("toolboxes.organization_id", &row.text)).transpose()
    }

    /// The toolbox whose agent has the secret with this SHA-256, in hex.
    ///
    /// # Errors
    /// When the database fails or the row cannot be read.
    pub async fn toolbox_by_token(&self, token_hash: &str) -> Result<Option<(OrganizationId, ToolboxId)>> {
        let sql = "SELECT organization_id, id FROM toolboxes WHERE token_hash = $1 AND state <> 'removed'";
        let row = self.row::<OwnerRow>(sql, [token_hash.into()]).await?;
        row.map(|row| Ok((parse("toolboxes.organization_id", &row.organization_id)?, parse("toolboxes.id", &row.id)?)))
            .transpose()
    }

    /// The generation of every toolbox.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn generations(&self) -> Result<Vec<(ToolboxId, u64)>> {
        let rows =
            self.rows::<GenerationRow>("SELECT id, generation FROM toolboxes WHERE state <> 'removed'", []).await?;
        rows.into_iter()
            .map(|row| Ok((parse("toolboxes.id", &row.id)?, count("toolboxes.generation", row.generation)?)))
            .collect()
    }

    /// Toolboxes that count as online and were last heard before `at`.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn silent_toolboxes(&self, at: Timestamp, limit: u32) -> Result<Vec<(OrganizationId, ToolboxId)>> {
        let sql = "SELECT organization_id, id FROM toolboxes WHERE state = 'online' AND COALESCE(last_seen_at, 0) < $1 LIMIT $2";
        let rows = self.rows::<OwnerRow>(sql, [at.as_ms().into(), i64::from(limit).into()]).await?;
        rows.into_iter()
            .map(|row| Ok((parse("toolboxes.organization_id", &row.organization_id)?, parse("toolboxes.id", &row.id)?)))
            .collect()
    }

    /// Notes that agents were heard.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn touch_toolbox(&self, id: ToolboxId, at: Timestamp) -> Result<()> {
        let sql = "UPDATE toolboxes SET last_seen_at = $2 WHERE id = $1 AND COALESCE(last_seen_at, 0) < $2";
        self.execute(sql, [id.to_string().into(), at.as_ms().into()]).await?;
        Ok(())
    }
}
