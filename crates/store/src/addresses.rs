//! Where the agents of toolboxes listen, of those that do.

use std::collections::BTreeMap;

use sea_orm::FromQueryResult;
use toolyard_types::ToolboxId;

use crate::query::parse;
use crate::{OrgTx, Result, SystemTx};

#[derive(FromQueryResult)]
struct Row {
    id: String,
    address: String,
}

fn by_toolbox(rows: Vec<Row>) -> Result<BTreeMap<ToolboxId, String>> {
    rows.into_iter().map(|row| Ok((parse("toolboxes.id", &row.id)?, row.address))).collect()
}

impl OrgTx {
    /// Where the agents of toolboxes listen, as `host:port`; only of those that do.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn toolbox_addresses(&self) -> Result<BTreeMap<ToolboxId, String>> {
        let sql = "SELECT id, address FROM toolboxes \
                   WHERE organization_id = $1 AND address IS NOT NULL AND state <> 'removed'";
        by_toolbox(self.rows::<Row>(sql, [self.organization().to_string().into()]).await?)
    }

    /// Writes where a toolbox's agent listens, if it does.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_toolbox_address(&self, id: ToolboxId, address: Option<&str>) -> Result<()> {
        let sql = "UPDATE toolboxes SET address = $3 WHERE organization_id = $1 AND id = $2";
        let values = [self.organization().to_string().into(), id.to_string().into(), address.into()];
        self.execute(sql, values).await?;
        Ok(())
    }
}

impl SystemTx {
    /// Where the agents of every organization's toolboxes listen, as `host:port`; only of those that do.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn toolbox_addresses(&self) -> Result<BTreeMap<ToolboxId, String>> {
        let sql = "SELECT id, address FROM toolboxes WHERE address IS NOT NULL AND state <> 'removed'";
        by_toolbox(self.rows::<Row>(sql, []).await?)
    }
}
