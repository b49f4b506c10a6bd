//! Toolboxes: places where servers run, and the generation of what each should run.

use std::collections::{BTreeSet, HashMap};

use sea_orm::{FromQueryResult, Value};
use toolyard_types::agent::ToolboxReport;
use toolyard_types::state::{Status, ToolboxState};
use toolyard_types::{CredentialId, Labels, Name, OrganizationId, Timestamp, ToolboxId};

use crate::query::{NumberRow, TextRow, count, json, parse, placeholders, reason, to_i64, to_json};
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
    /// Whether it is the one in the control plane's own process, whose agent needs no certificate.
    pub built_in: bool,
    /// Since when it is to take nothing new, whether its agent is heard or not.
    pub draining_since: Option<Timestamp>,
    /// What the operator says of it.
    pub labels: Labels,
    /// Rises with every join and revocation; a certificate is good for one number.
    pub enrolment: u64,
    /// When the newest certificate of its agent ends.
    pub certificate_expires_at: Option<Timestamp>,
    /// Since when what may run elsewhere is replaced there, because its agent is gone; until it is heard again.
    pub lost_at: Option<Timestamp>,
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

impl ToolboxRow {
    /// Whether anything new may be placed on it.
    #[must_use]
    pub fn takes_new(&self) -> bool {
        self.status.phase == ToolboxState::Online && self.draining_since.is_none()
    }

    /// Whether it was given up and was not heard since. An earlier version of another replica hears an agent without
    /// taking back that it was lost.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost_at.is_some() && self.status.phase == ToolboxState::Unreachable
    }
}

/// A token that an agent may join with, by its secret's SHA-256.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinTokenRow {
    /// Whose toolbox.
    pub organization: OrganizationId,
    /// Which toolbox it is for.
    pub toolbox: ToolboxId,
    /// Until when it may be used.
    pub expires_at: Timestamp,
    /// By which key it was used, and for which enrolment.
    pub used: Option<(String, u64)>,
}

/// What changes of a toolbox between two looks at all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToolboxMark {
    /// Whose.
    pub organization: OrganizationId,
    /// Which.
    pub id: ToolboxId,
    /// What it should run.
    pub generation: u64,
    /// Whose certificates are good.
    pub enrolment: u64,
}

/// Whether a toolbox's agent is heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolboxSilence {
    /// Whose.
    pub organization: OrganizationId,
    /// Which.
    pub id: ToolboxId,
    /// Whether it is unreachable.
    pub is_silent: bool,
    /// Whether what ran there is replaced.
    pub is_lost: bool,
    /// When its agent was last heard, as last written.
    pub last_seen_at: Timestamp,
    /// What is said of it.
    pub message: String,
}

/// A toolbox that was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemovedToolbox {
    /// Its id.
    pub id: ToolboxId,
    /// The name it had; absent when an earlier version removed it.
    pub name: Option<Name>,
    /// When it was removed.
    pub at: Timestamp,
}

/// The control plane's CA: its certificate (PEM), and its key sealed by the vault.
#[derive(Clone, Debug)]
pub struct SealedAuthority {
    /// The certificate.
    pub certificate: String,
    /// The sealed key.
    pub sealed_key: Vec<u8>,
}

const COLUMNS: &str = "id, name, state, reason, message, since, built_in, draining_since, labels, enrolment, \
                       certificate_expires_at, last_seen_at, agent_version, report, generation, created_at, \
                       lost_at";

#[derive(FromQueryResult)]
struct Row {
    id: String,
    name: String,
    state: String,
    reason: String,
    message: String,
    since: i64,
    built_in: bool,
    draining_since: Option<i64>,
    labels: String,
    enrolment: i64,
    certificate_expires_at: Option<i64>,
    last_seen_at: Option<i64>,
    agent_version: Option<String>,
    report: String,
    generation: i64,
    created_at: i64,
    lost_at: Option<i64>,
}

impl TryFrom<Row> for ToolboxRow {
    type Error = StoreError;
    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: parse("toolboxes.id", &row.id)?,
            name: parse("toolboxes.name", &row.name)?,
            status: Status {
                phase: parse("toolboxes.state", &row.state)?,
                reason: reason(&row.reason),
                message: row.message,
                since: Timestamp::from_ms(row.since),
                next_attempt_at: None,
            },
            built_in: row.built_in,
            draining_since: row.draining_since.map(Timestamp::from_ms),
            labels: json("toolboxes.labels", &row.labels)?,
            enrolment: count("toolboxes.enrolment", row.enrolment)?,
            certificate_expires_at: row.certificate_expires_at.map(Timestamp::from_ms),
            lost_at: row.lost_at.map(Timestamp::from_ms),
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
struct MarkRow {
    organization_id: String,
    id: String,
    generation: i64,
    enrolment: i64,
}

#[derive(FromQueryResult)]
struct SilenceRow {
    organization_id: String,
    id: String,
    state: String,
    lost_at: Option<i64>,
    last_seen_at: i64,
    message: String,
}

#[derive(FromQueryResult)]
struct RemovedRow {
    id: String,
    name: String,
    since: i64,
}

#[derive(FromQueryResult)]
struct TokenRow {
    organization_id: String,
    toolbox_id: String,
    expires_at: i64,
    used_key: Option<String>,
    used_enrolment: Option<i64>,
}

#[derive(FromQueryResult)]
struct AuthorityRow {
    certificate: String,
    sealed_key: Vec<u8>,
}

#[derive(FromQueryResult)]
struct RunsRow {
    id: String,
    agent_runs: String,
}

#[derive(FromQueryResult)]
struct EnrolmentRow {
    organization_id: String,
    enrolment: i64,
}

impl OrgTx {
    /// Writes a new toolbox.
    ///
    /// # Errors
    /// When the name is taken or the database fails.
    pub async fn insert_toolbox(&self, toolbox: &ToolboxRow) -> Result<()> {
        let sql = format!(
            "INSERT INTO toolboxes (organization_id, {COLUMNS}) VALUES \
             ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)"
        );
        let values = [
            self.organization().to_string().into(),
            toolbox.id.to_string().into(),
            toolbox.name.to_string().into(),
            toolbox.status.phase.as_str().into(),
            toolbox.status.reason.as_str().into(),
            toolbox.status.message.clone().into(),
            toolbox.status.since.as_ms().into(),
            toolbox.built_in.into(),
            toolbox.draining_since.map(Timestamp::as_ms).into(),
            to_json(&toolbox.labels).into(),
            to_i64(toolbox.enrolment).into(),
            toolbox.certificate_expires_at.map(Timestamp::as_ms).into(),
            toolbox.last_seen_at.map(Timestamp::as_ms).into(),
            toolbox.agent_version.clone().into(),
            to_json(&toolbox.report).into(),
            to_i64(toolbox.generation).into(),
            toolbox.created_at.as_ms().into(),
            toolbox.lost_at.map(Timestamp::as_ms).into(),
        ];
        self.execute(&sql, values).await?;
        Ok(())
    }

    /// Writes what an agent's sync may change of a toolbox; its generation, its enrolment and what an operator
    /// sets have statements of their own, so that a sync under way never takes them back. One that is not unreachable
    /// is not lost.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn update_toolbox(&self, toolbox: &ToolboxRow) -> Result<()> {
        let sql = "UPDATE toolboxes SET state = $3, reason = $4, message = $5, since = $6, last_seen_at = $7, \
                   agent_version = $8, report = $9, \
                   lost_at = CASE WHEN $3 = 'unreachable' THEN lost_at ELSE NULL END \
                   WHERE organization_id = $1 AND id = $2";
        let values = [
            self.organization().to_string().into(),
            toolbox.id.to_string().into(),
            toolbox.status.phase.as_str().into(),
            toolbox.status.reason.as_str().into(),
            toolbox.status.message.clone().into(),
            toolbox.status.since.as_ms().into(),
            toolbox.last_seen_at.map(Timestamp::as_ms).into(),
            toolbox.agent_version.clone().into(),
            to_json(&toolbox.report).into(),
        ];
        self.execute(sql, values).await?;
        Ok(())
    }

    /// Says of an online toolbox that it is silent; `false` when its agent was heard since `silent_since`, or it is not
    /// online any more. What an agent tells meanwhile is never taken back.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_toolbox_silent(
        &self,
        id: ToolboxId,
        status: &Status<ToolboxState>,
        silent_since: Timestamp,
    ) -> Result<bool> {
        let sql = "UPDATE toolboxes SET state = $3, reason = $4, message = $5, since = $6 \
                   WHERE organization_id = $1 AND id = $2 AND state = 'online' AND COALESCE(last_seen_at, 0) <= $7";
        let values = [
            self.organization().to_string().into(),
            id.to_string().into(),
            status.phase.as_str().into(),
            status.reason.as_str().into(),
            status.message.clone().into(),
            status.since.as_ms().into(),
            silent_since.as_ms().into(),
        ];
        Ok(self.execute(sql, values).await? > 0)
    }

    /// Says of an unreachable toolbox whether what may run elsewhere is replaced, and why; `false` when its agent was
    /// heard since `silent_since`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_toolbox_lost(
        &self,
        id: ToolboxId,
        lost_at: Option<Timestamp>,
        message: &str,
        silent_since: Timestamp,
    ) -> Result<bool> {
        let sql = "UPDATE toolboxes SET lost_at = $3, message = $4 WHERE organization_id = $1 AND id = $2 \
                   AND state = 'unreachable' AND COALESCE(last_seen_at, 0) <= $5";
        let values = [
            self.organization().to_string().into(),
            id.to_string().into(),
            lost_at.map(Timestamp::as_ms).into(),
            message.into(),
            silent_since.as_ms().into(),
        ];
        Ok(self.execute(sql, values).await? > 0)
    }

    /// Writes since when a toolbox is to take nothing new, if it is.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_toolbox_draining(&self, id: ToolboxId, since: Option<Timestamp>) -> Result<()> {
        let sql = "UPDATE toolboxes SET draining_since = $3 WHERE organization_id = $1 AND id = $2";
        let since = since.map(Timestamp::as_ms).into();
        self.execute(sql, [self.organization().to_string().into(), id.to_string().into(), since]).await?;
        Ok(())
    }

    /// Writes a toolbox's labels.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_toolbox_labels(&self, id: ToolboxId, labels: &Labels) -> Result<()> {
        let sql = "UPDATE toolboxes SET labels = $3 WHERE organization_id = $1 AND id = $2";
        let values = [self.organization().to_string().into(), id.to_string().into(), to_json(labels).into()];
        self.execute(sql, values).await?;
        Ok(())
    }

    /// Ends every certificate of a toolbox by raising its enrolment; `None` when it was removed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn raise_enrolment(&self, id: ToolboxId) -> Result<Option<u64>> {
        // The generation rises too: a sync that is held open looks again, and finds its certificate ended.
        let sql = "UPDATE toolboxes SET enrolment = enrolment + 1, generation = generation + 1, \
                   certificate_expires_at = NULL WHERE organization_id = $1 AND id = $2 AND state <> 'removed' \
                   RETURNING enrolment AS number";
        let values = [self.organization().to_string().into(), id.to_string().into()];
        let row = self.row::<NumberRow>(sql, values).await?;
        row.map(|row| count("toolboxes.enrolment", row.number)).transpose()
    }

    /// Which runs of its agent asked for a toolbox, as last written, so that nobody else writes until this commits.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn lock_agent_runs(&self, id: ToolboxId) -> Result<Option<String>> {
        let sql = format!(
            "SELECT COALESCE(agent_runs, '') AS text FROM toolboxes WHERE organization_id = $1 AND id = $2{}",
            self.for_update()
        );
        let values = [self.organization().to_string().into(), id.to_string().into()];
        let row = self.row::<TextRow>(sql, values).await?;
        Ok(row.map(|row| row.text).filter(|text| !text.is_empty()))
    }

    /// Writes which runs of its agent asked for a toolbox.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_agent_runs(&self, id: ToolboxId, runs: &str) -> Result<()> {
        let sql = "UPDATE toolboxes SET agent_runs = $3 WHERE organization_id = $1 AND id = $2";
        self.execute(sql, [self.organization().to_string().into(), id.to_string().into(), runs.into()]).await?;
        Ok(())
    }

    /// Notes until when a toolbox's newest certificate is good.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_certificate_expiry(&self, id: ToolboxId, at: Timestamp) -> Result<()> {
        let sql = "UPDATE toolboxes SET certificate_expires_at = $3 WHERE organization_id = $1 AND id = $2";
        self.execute(sql, [self.organization().to_string().into(), id.to_string().into(), at.as_ms().into()]).await?;
        Ok(())
    }

    /// Writes a join token, in place of those of the same toolbox that were not used.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn put_join_token(&self, toolbox: ToolboxId, secret_hash: &str, expires_at: Timestamp) -> Result<()> {
        self.drop_join_tokens(toolbox).await?;
        let sql = "INSERT INTO join_tokens (secret_hash, organization_id, toolbox_id, created_at, expires_at) \
                   VALUES ($1, $2, $3, $4, $5)";
        let values = [
            secret_hash.into(),
            self.organization().to_string().into(),
            toolbox.to_string().into(),
            self.now().as_ms().into(),
            expires_at.as_ms().into(),
        ];
        self.execute(sql, values).await?;
        Ok(())
    }

    /// Forgets the join tokens of a toolbox that were not used.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn drop_join_tokens(&self, toolbox: ToolboxId) -> Result<()> {
        let sql = "DELETE FROM join_tokens WHERE organization_id = $1 AND toolbox_id = $2 AND used_at IS NULL";
        self.execute(sql, [self.organization().to_string().into(), toolbox.to_string().into()]).await?;
        Ok(())
    }

    /// Uses a join token; `false` when it is not there or was used meanwhile.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn use_join_token(&self, secret_hash: &str, key: &str, enrolment: u64) -> Result<bool> {
        let sql = "UPDATE join_tokens SET used_at = $3, used_key = $4, used_enrolment = $5 \
                   WHERE organization_id = $1 AND secret_hash = $2 AND used_at IS NULL";
        let values = [
            self.organization().to_string().into(),
            secret_hash.into(),
            self.now().as_ms().into(),
            key.into(),
            to_i64(enrolment).into(),
        ];
        Ok(self.execute(sql, values).await? == 1)
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

    /// Toolboxes by id, each once; never removed ones.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn toolboxes_by_id(&self, ids: impl IntoIterator<Item = ToolboxId>) -> Result<Vec<ToolboxRow>> {
        let ids: BTreeSet<_> = ids.into_iter().collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT {COLUMNS} FROM toolboxes WHERE organization_id = $1 AND state <> 'removed' AND id IN ({})",
            placeholders(2, ids.len())
        );
        let organization = self.organization().to_string();
        let values = std::iter::once(organization).chain(ids.iter().map(ToString::to_string)).map(Value::from);
        let rows = self.rows::<Row>(sql, values.collect::<Vec<_>>()).await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    /// The toolboxes that have not been heard for too long.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn unreachable_toolboxes(&self) -> Result<Vec<ToolboxId>> {
        let sql = "SELECT id AS text FROM toolboxes WHERE organization_id = $1 AND state = 'unreachable'";
        let rows = self.rows::<TextRow>(sql, [self.organization().to_string().into()]).await?;
        rows.iter().map(|row| parse("toolboxes.id", &row.text)).collect()
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

    /// Those of these toolboxes that were removed.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn removed_toolboxes(&self, ids: impl IntoIterator<Item = ToolboxId>) -> Result<Vec<RemovedToolbox>> {
        let ids: BTreeSet<_> = ids.into_iter().collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT id, name, since FROM toolboxes WHERE organization_id = $1 AND state = 'removed' AND id IN ({})",
            placeholders(2, ids.len())
        );
        let organization = self.organization().to_string();
        let values = std::iter::once(organization).chain(ids.iter().map(ToString::to_string)).map(Value::from);
        let rows = self.rows::<RemovedRow>(sql, values.collect::<Vec<_>>()).await?;
        let read = |row: RemovedRow| -> Result<RemovedToolbox> {
            let id = parse("toolboxes.id", &row.id)?;
            let name = row.name.split_once(' ').and_then(|(_, name)| Name::new(name).ok());
            Ok(RemovedToolbox { id, name, at: Timestamp::from_ms(row.since) })
        };
        rows.into_iter().map(read).collect()
    }

    /// Removes a toolbox: its row stays for its ended instances, its name becomes free.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remove_toolbox(&self, toolbox: &ToolboxRow) -> Result<()> {
        let sql = "UPDATE toolboxes SET state = 'removed', name = $3, enrolment = enrolment + 1, since = $4 \
                   WHERE organization_id = $1 AND id = $2";
        // No `Name` can hold a `#`, so this cannot collide with a later toolbox. What it was called is still told to
        // people whose servers had to run there.
        let values = [
            self.organization().to_string().into(),
            toolbox.id.to_string().into(),
            format!("#{} {}", toolbox.id, toolbox.name).into(),
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

    /// Whose toolbox it is, and which enrolment's certificates are good.
    ///
    /// # Errors
    /// When the database fails or the row cannot be read.
    pub async fn toolbox_enrolment(&self, id: ToolboxId) -> Result<Option<(OrganizationId, u64)>> {
        let sql = "SELECT organization_id, enrolment FROM toolboxes WHERE id = $1 AND state <> 'removed'";
        let row = self.row::<EnrolmentRow>(sql, [id.to_string().into()]).await?;
        row.map(|row| {
            Ok((
                parse("toolboxes.organization_id", &row.organization_id)?,
                count("toolboxes.enrolment", row.enrolment)?,
            ))
        })
        .transpose()
    }

    /// Whether there was such a toolbox, which was removed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn toolbox_was_removed(&self, id: ToolboxId) -> Result<bool> {
        let sql = "SELECT name AS text FROM toolboxes WHERE id = $1 AND state = 'removed'";
        Ok(self.row::<TextRow>(sql, [id.to_string().into()]).await?.is_some())
    }

    /// Which runs of its agent asked for a toolbox, as last written.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn agent_runs(&self, id: ToolboxId) -> Result<Option<String>> {
        let sql = "SELECT COALESCE(agent_runs, '') AS text FROM toolboxes WHERE id = $1";
        let row = self.row::<TextRow>(sql, [id.to_string().into()]).await?;
        Ok(row.map(|row| row.text).filter(|text| !text.is_empty()))
    }

    /// The same of many toolboxes; those without any are left out.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn agent_runs_of(&self, ids: &[ToolboxId]) -> Result<HashMap<ToolboxId, String>> {
        let sql = format!(
            "SELECT id, agent_runs FROM toolboxes WHERE agent_runs IS NOT NULL AND id IN ({})",
            placeholders(1, ids.len())
        );
        let values: Vec<_> = ids.iter().map(|id| id.to_string().into()).collect();
        let rows = self.rows::<RunsRow>(&sql, values).await?;
        let runs = rows.into_iter().map(|row| Ok((parse("toolboxes.id", &row.id)?, row.agent_runs)));
        runs.collect()
    }

    /// The join token whose secret has this SHA-256, in hex; kept a while after it was used.
    ///
    /// # Errors
    /// When the database fails or the row cannot be read.
    pub async fn join_token(&self, secret_hash: &str) -> Result<Option<JoinTokenRow>> {
        let sql = "SELECT organization_id, toolbox_id, expires_at, used_key, used_enrolment FROM join_tokens \
                   WHERE secret_hash = $1";
        let Some(row) = self.row::<TokenRow>(sql, [secret_hash.into()]).await? else { return Ok(None) };
        let used = match (row.used_key, row.used_enrolment) {
            (Some(key), Some(enrolment)) => Some((key, count("join_tokens.used_enrolment", enrolment)?)),
            _ => None,
        };
        Ok(Some(JoinTokenRow {
            organization: parse("join_tokens.organization_id", &row.organization_id)?,
            toolbox: parse("join_tokens.toolbox_id", &row.toolbox_id)?,
            expires_at: Timestamp::from_ms(row.expires_at),
            used,
        }))
    }

    /// Forgets join tokens that expired before `at`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn trim_join_tokens(&self, at: Timestamp) -> Result<u64> {
        self.execute("DELETE FROM join_tokens WHERE expires_at < $1", [at.as_ms().into()]).await
    }

    /// The control plane's CA, if it was made.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn authority(&self) -> Result<Option<SealedAuthority>> {
        let sql = "SELECT certificate, sealed_key FROM authority WHERE id = 1";
        let row = self.row::<AuthorityRow>(sql, []).await?;
        Ok(row.map(|row| SealedAuthority { certificate: row.certificate, sealed_key: row.sealed_key }))
    }

    /// Writes the control plane's CA, unless another replica did.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn insert_authority(&self, authority: SealedAuthority) -> Result<()> {
        let sql = "INSERT INTO authority (id, certificate, sealed_key, created_at) VALUES (1, $1, $2, $3) \
                   ON CONFLICT (id) DO NOTHING";
        let values = [authority.certificate.into(), authority.sealed_key.into(), self.now().as_ms().into()];
        self.execute(sql, values).await?;
        Ok(())
    }

    /// Forgets the control plane's CA: its key cannot be opened any more.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete_authority(&self) -> Result<()> {
        self.execute("DELETE FROM authority", []).await.map(drop)
    }

    /// The generation and enrolment of every toolbox.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn toolbox_marks(&self) -> Result<Vec<ToolboxMark>> {
        let sql = "SELECT organization_id, id, generation, enrolment FROM toolboxes WHERE state <> 'removed'";
        let rows = self.rows::<MarkRow>(sql, []).await?;
        rows.into_iter()
            .map(|row| {
                Ok(ToolboxMark {
                    organization: parse("toolboxes.organization_id", &row.organization_id)?,
                    id: parse("toolboxes.id", &row.id)?,
                    generation: count("toolboxes.generation", row.generation)?,
                    enrolment: count("toolboxes.enrolment", row.enrolment)?,
                })
            })
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

    /// Every toolbox whose agent was heard once, by whether it is silent now.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn toolbox_silences(&self) -> Result<Vec<ToolboxSilence>> {
        let sql = "SELECT organization_id, id, state, lost_at, COALESCE(last_seen_at, 0) AS last_seen_at, message \
                   FROM toolboxes WHERE state IN ('online', 'unreachable') ORDER BY id";
        let rows = self.rows::<SilenceRow>(sql, []).await?;
        rows.into_iter()
            .map(|row| {
                Ok(ToolboxSilence {
                    organization: parse("toolboxes.organization_id", &row.organization_id)?,
                    id: parse("toolboxes.id", &row.id)?,
                    is_silent: row.state == ToolboxState::Unreachable.as_str(),
                    is_lost: row.lost_at.is_some(),
                    last_seen_at: Timestamp::from_ms(row.last_seen_at),
                    message: row.message,
                })
            })
            .collect()
    }

    /// Notes that an agent was heard, and what it told of its host; `false` when its toolbox does not count as online
    /// any more, or was heard later.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn touch_toolbox(&self, id: ToolboxId, at: Timestamp, report: &ToolboxReport) -> Result<bool> {
        let sql = "UPDATE toolboxes SET last_seen_at = $2, report = $3 \
                   WHERE id = $1 AND state = 'online' AND COALESCE(last_seen_at, 0) < $2";
        Ok(self.execute(sql, [id.to_string().into(), at.as_ms().into(), to_json(report).into()]).await? > 0)
    }
}
