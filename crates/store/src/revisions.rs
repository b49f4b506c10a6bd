//! Revisions: immutable specs, and the person's settings they were made from.

use sea_orm::FromQueryResult;
use toolyard_types::spec::RevisionSpec;
use toolyard_types::{RevisionId, ServerId, Timestamp, ToolboxId};

use crate::query::{NumberRow, TextRow, count, json, parse, placeholders, to_i32, to_json};
use crate::{OrgTx, Result, StoreError};

/// A revision.
#[derive(Clone, Debug, PartialEq)]
pub struct RevisionRow {
    /// Its id.
    pub id: RevisionId,
    /// Whose.
    pub server: ServerId,
    /// 1 for the first of its server.
    pub number: u32,
    /// What it runs.
    pub spec: RevisionSpec,
    /// What the person asked for, as JSON; without secrets.
    pub inputs: String,
    /// Its lock, once resolved.
    pub lock_digest: Option<String>,
    /// Who made it.
    pub created_by: String,
    /// What changed, in words.
    pub change: String,
    /// When.
    pub created_at: Timestamp,
}

const COLUMNS: &str = "id, server_id, number, spec, inputs, lock_digest, created_by, change, created_at";

#[derive(FromQueryResult)]
struct Row {
    id: String,
    server_id: String,
    number: i32,
    spec: String,
    inputs: String,
    lock_digest: Option<String>,
    created_by: String,
    change: String,
    created_at: i64,
}

impl TryFrom<Row> for RevisionRow {
    type Error = StoreError;
    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: parse("revisions.id", &row.id)?,
            server: parse("revisions.server_id", &row.server_id)?,
            number: count("revisions.number", i64::from(row.number))?,
            spec: json("revisions.spec", &row.spec)?,
            inputs: row.inputs,
            lock_digest: row.lock_digest,
            created_by: row.created_by,
            change: row.change,
            created_at: Timestamp::from_ms(row.created_at),
        })
    }
}

#[derive(FromQueryResult)]
struct HeadRow {
    id: String,
    number: i32,
}

impl OrgTx {
    /// Writes a new revision.
    ///
    /// # Errors
    /// When the number is taken or the database fails.
    pub async fn insert_revision(&self, revision: &RevisionRow) -> Result<()> {
        let sql = format!(
            "INSERT INTO revisions (organization_id, {COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
        );
        let values = [
            self.organization().to_string().into(),
            revision.id.to_string().into(),
            revision.server.to_string().into(),
            to_i32(revision.number).into(),
            to_json(&revision.spec).into(),
            revision.inputs.clone().into(),
            revision.lock_digest.clone().into(),
            revision.created_by.clone().into(),
            revision.change.clone().into(),
            revision.created_at.as_ms().into(),
        ];
        self.execute(&sql, values).await?;
        self.note_credential_uses(revision.id, &revision.spec).await
    }

    /// A revision by id.
    ///
    /// # Errors
    /// When the database fails or the row cannot be read.
    pub async fn revision(&self, id: RevisionId) -> Result<Option<RevisionRow>> {
        let sql = format!("SELECT {COLUMNS} FROM revisions WHERE organization_id = $1 AND id = $2");
        let values = [self.organization().to_string().into(), id.to_string().into()];
        self.row::<Row>(sql, values).await?.map(TryInto::try_into).transpose()
    }

    /// A server's revision by number.
    ///
    /// # Errors
    /// When the database fails or the row cannot be read.
    pub async fn revision_numbered(&self, server: ServerId, number: u32) -> Result<Option<RevisionRow>> {
        let sql =
            format!("SELECT {COLUMNS} FROM revisions WHERE organization_id = $1 AND server_id = $2 AND number = $3");
        let values = [self.organization().to_string().into(), server.to_string().into(), to_i32(number).into()];
        self.row::<Row>(sql, values).await?.map(TryInto::try_into).transpose()
    }

    /// A server's revisions with a number below `before`, newest first, at most `limit`.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn revisions_before(&self, server: ServerId, before: u32, limit: u32) -> Result<Vec<RevisionRow>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM revisions WHERE organization_id = $1 AND server_id = $2 AND number < $3 \
             ORDER BY number DESC LIMIT $4"
        );
        let values = [
            self.organization().to_string().into(),
            server.to_string().into(),
            to_i32(before).into(),
            i64::from(limit).into(),
        ];
        self.rows::<Row>(sql, values).await?.into_iter().map(TryInto::try_into).collect()
    }

    /// The highest number of a server's revisions; zero when it has none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn last_revision_number(&self, server: ServerId) -> Result<u32> {
        let sql = "SELECT CAST(COALESCE(MAX(number), 0) AS BIGINT) AS number FROM revisions \
                   WHERE organization_id = $1 AND server_id = $2";
        let values = [self.organization().to_string().into(), server.to_string().into()];
        count("revisions.number", self.row::<NumberRow>(sql, values).await?.map_or(0, |row| row.number))
    }

    /// The numbers of revisions by id.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn revision_numbers(&self, ids: &[RevisionId]) -> Result<Vec<(RevisionId, u32)>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT id, number FROM revisions WHERE organization_id = $1 AND id IN ({})",
            placeholders(2, ids.len())
        );
        let values = std::iter::once(self.organization().to_string().into())
            .chain(ids.iter().map(|id| id.to_string().into()))
            .collect::<Vec<_>>();
        let rows = self.rows::<HeadRow>(sql, values).await?;
        rows.into_iter()
            .map(|row| Ok((parse("revisions.id", &row.id)?, count("revisions.number", i64::from(row.number))?)))
            .collect()
    }

    /// Revisions by id.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn revisions_by_id(&self, ids: &[RevisionId]) -> Result<Vec<RevisionRow>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT {COLUMNS} FROM revisions WHERE organization_id = $1 AND id IN ({})",
            placeholders(2, ids.len())
        );
        let values = std::iter::once(self.organization().to_string().into())
            .chain(ids.iter().map(|id| id.to_string().into()))
            .collect::<Vec<_>>();
        self.rows::<Row>(sql, values).await?.into_iter().map(TryInto::try_into).collect()
    }

    /// Notes a revision's lock; a revision that has one keeps it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_revision_lock(&self, id: RevisionId, digest: &str) -> Result<()> {
        let sql = "UPDATE revisions SET lock_digest = $3 \
                   WHERE organization_id = $1 AND id = $2 AND lock_digest IS NULL";
        self.execute(sql, [self.organization().to_string().into(), id.to_string().into(), digest.into()]).await?;
        Ok(())
    }

    /// The locks of the last five revisions of each server that runs on a toolbox, or ran there of late.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn locks_to_keep(&self, toolbox: ToolboxId) -> Result<Vec<String>> {
        let sql = "SELECT DISTINCT lock_digest AS text FROM (SELECT lock_digest, ROW_NUMBER() OVER \
                   (PARTITION BY server_id ORDER BY number DESC) AS age FROM revisions WHERE organization_id = $1 \
                   AND server_id IN (SELECT server_id FROM instances WHERE toolbox_id = $2)) \
                   AS aged WHERE age <= 5 AND lock_digest IS NOT NULL ORDER BY 1";
        let values = [self.organization().to_string().into(), toolbox.to_string().into()];
        let rows = self.rows::<TextRow>(sql, values).await?;
        Ok(rows.into_iter().map(|row| row.text).collect())
    }
}
