//! Toolsets: chosen tools of several servers, served at one URL.

use std::collections::HashMap;

use sea_orm::FromQueryResult;
use toolyard_types::snapshot::ToolsetMember;
use toolyard_types::{Name, Timestamp, ToolsetId};

use crate::query::{BoundedPage, NumberRow, PAGE_BYTES, TextRow, fitting, json, parse, placeholders, to_json};
use crate::{OrgTx, Result, StoreError};

/// A toolset.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolsetRow {
    /// Its id.
    pub id: ToolsetId,
    /// Its name.
    pub name: Name,
    /// Shown to clients.
    pub description: String,
    /// Its members, in order.
    pub members: Vec<ToolsetMember>,
    /// Rises with every change.
    pub version: i64,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

const COLUMNS: &str = "id, name, description, members, version, created_at, updated_at";

#[derive(FromQueryResult)]
struct Row {
    id: String,
    name: String,
    description: String,
    members: String,
    version: i64,
    created_at: i64,
    updated_at: i64,
}

impl TryFrom<Row> for ToolsetRow {
    type Error = StoreError;
    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: parse("toolsets.id", &row.id)?,
            name: parse("toolsets.name", &row.name)?,
            description: row.description,
            members: json("toolsets.members", &row.members)?,
            version: row.version,
            created_at: Timestamp::from_ms(row.created_at),
            updated_at: Timestamp::from_ms(row.updated_at),
        })
    }
}

impl OrgTx {
    /// Writes a new toolset.
    ///
    /// # Errors
    /// When the name is taken or the database fails.
    pub async fn insert_toolset(&self, toolset: &ToolsetRow) -> Result<()> {
        let sql = format!("INSERT INTO toolsets (organization_id, {COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)");
        let values = [
            self.organization().to_string().into(),
            toolset.id.to_string().into(),
            toolset.name.to_string().into(),
            toolset.description.clone().into(),
            to_json(&toolset.members).into(),
            toolset.version.into(),
            toolset.created_at.as_ms().into(),
            toolset.updated_at.as_ms().into(),
        ];
        self.execute(&sql, values).await?;
        Ok(())
    }

    /// Writes what may change of a toolset and raises its version.
    ///
    /// # Errors
    /// [`StoreError::Stale`] when it was changed since it was read.
    pub async fn update_toolset(&self, toolset: &mut ToolsetRow) -> Result<()> {
        let now = self.now();
        let sql = "UPDATE toolsets SET description = $3, members = $4, version = version + 1, updated_at = $5 \
                   WHERE organization_id = $1 AND id = $2 AND version = $6";
        let values = [
            self.organization().to_string().into(),
            toolset.id.to_string().into(),
            toolset.description.clone().into(),
            to_json(&toolset.members).into(),
            now.as_ms().into(),
            toolset.version.into(),
        ];
        if self.execute(sql, values).await? == 0 {
            return Err(StoreError::Stale);
        }
        toolset.version += 1;
        toolset.updated_at = now;
        Ok(())
    }

    /// How many toolsets there are.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn count_toolsets(&self) -> Result<u64> {
        self.count_rows("toolsets", "").await
    }

    /// How many bytes the descriptions and members of all toolsets take, each counted `own` more.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn toolsets_bytes(&self, own: u64) -> Result<u64> {
        #[derive(FromQueryResult)]
        struct Sum {
            bytes: i64,
        }
        let sql = "SELECT CAST(COALESCE(SUM(octet_length(description) + octet_length(members)), 0) AS BIGINT) AS bytes \
                   FROM toolsets WHERE organization_id = $1";
        let sum = self.row::<Sum>(sql, [self.organization().to_string().into()]).await?;
        let bytes = u64::try_from(sum.map_or(0, |sum| sum.bytes)).unwrap_or(0);
        Ok(bytes + self.count_toolsets().await? * own)
    }

    /// The ids of the toolsets with these names.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn toolset_ids(&self, names: &[Name]) -> Result<Vec<ToolsetId>> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT id AS text FROM toolsets WHERE organization_id = $1 AND name IN ({})",
            placeholders(2, names.len())
        );
        let values: Vec<_> = std::iter::once(self.organization().to_string().into())
            .chain(names.iter().map(|name| name.as_str().into()))
            .collect();
        self.rows::<TextRow>(sql, values).await?.iter().map(|row| parse("toolsets.id", &row.text)).collect()
    }

    /// The names of toolsets by id.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn toolset_names(&self, ids: &[ToolsetId]) -> Result<HashMap<ToolsetId, Name>> {
        let rows = self.pairs("SELECT id, name AS text FROM toolsets", ids.iter().map(ToString::to_string)).await?;
        rows.iter().map(|row| Ok((parse("toolsets.id", &row.id)?, parse("toolsets.name", &row.text)?))).collect()
    }

    /// A toolset by name.
    ///
    /// # Errors
    /// When the database fails or the row cannot be read.
    pub async fn toolset(&self, name: &Name) -> Result<Option<ToolsetRow>> {
        let sql = format!("SELECT {COLUMNS} FROM toolsets WHERE organization_id = $1 AND name = $2");
        let values = [self.organization().to_string().into(), name.to_string().into()];
        self.row::<Row>(sql, values).await?.map(TryInto::try_into).transpose()
    }

    /// A page of toolsets by name after `after`: at most `limit`, and no more than may be in memory for one who asks.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn toolsets_bounded_page(&self, after: Option<&Name>, limit: u32) -> Result<BoundedPage<ToolsetRow>> {
        let sql = "SELECT CAST(octet_length(description) + octet_length(members) AS BIGINT) AS number FROM toolsets \
                   WHERE organization_id = $1 AND name > $2 ORDER BY name LIMIT $3";
        let values = [
            self.organization().to_string().into(),
            after.map_or(String::new(), ToString::to_string).into(),
            i64::from(limit.saturating_add(1)).into(),
        ];
        let sizes = self.rows::<NumberRow>(sql, values).await?;
        let (fit, more) = fitting(sizes.iter().map(|row| row.number), limit, PAGE_BYTES);
        let rows = self.toolsets_page(after, u32::try_from(fit).unwrap_or(limit)).await?;
        Ok(BoundedPage { rows, more })
    }

    /// Toolsets by name after `after`, at most `limit`.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn toolsets_page(&self, after: Option<&Name>, limit: u32) -> Result<Vec<ToolsetRow>> {
        let sql =
            format!("SELECT {COLUMNS} FROM toolsets WHERE organization_id = $1 AND name > $2 ORDER BY name LIMIT $3");
        let values = [
            self.organization().to_string().into(),
            after.map_or(String::new(), ToString::to_string).into(),
            i64::from(limit).into(),
        ];
        self.rows::<Row>(sql, values).await?.into_iter().map(TryInto::try_into).collect()
    }

    /// Removes a toolset and frees its name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remove_toolset(&self, toolset: &ToolsetRow) -> Result<()> {
        let sql = "DELETE FROM toolsets WHERE organization_id = $1 AND id = $2";
        self.execute(sql, [self.organization().to_string().into(), toolset.id.to_string().into()]).await?;
        self.free_name(&toolset.name).await
    }
}
