//! The one name space that servers and toolsets of an organization share.

use toolyard_types::Name;

use crate::query::TextRow;
use crate::{OrgTx, Result};

impl OrgTx {
    /// Takes a name for a thing of `kind` (`server` or `toolset`).
    ///
    /// # Errors
    /// [`crate::StoreError::AlreadyExists`] when it is taken.
    pub async fn take_name(&self, name: &Name, kind: &'static str) -> Result<()> {
        let sql = "INSERT INTO names (organization_id, name, kind) VALUES ($1, $2, $3)";
        self.execute(sql, [self.organization().to_string().into(), name.to_string().into(), kind.into()]).await?;
        Ok(())
    }

    /// Frees a name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn free_name(&self, name: &Name) -> Result<()> {
        let sql = "DELETE FROM names WHERE organization_id = $1 AND name = $2";
        self.execute(sql, [self.organization().to_string().into(), name.to_string().into()]).await?;
        Ok(())
    }

    /// What kind of thing has the name, if any.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn name_holder(&self, name: &Name) -> Result<Option<String>> {
        let sql = "SELECT kind AS text FROM names WHERE organization_id = $1 AND name = $2";
        let values = [self.organization().to_string().into(), name.to_string().into()];
        Ok(self.row::<TextRow>(sql, values).await?.map(|row| row.text))
    }
}
