//! Which installation a database belongs to.

use toolyard_types::InstallationId;

use crate::query::{TextRow, parse};
use crate::{Result, Store, SystemTx};

impl Store {
    /// The installation that the database belongs to. One that belongs to none yet is given `known`, or a new one.
    ///
    /// # Errors
    /// When the database fails or the row cannot be read.
    pub async fn installation(&self, known: Option<InstallationId>) -> Result<InstallationId> {
        if let Some(id) = self.system_read("reading whose database this is").await?.installation().await? {
            return Ok(id);
        }
        let new = known.unwrap_or_else(InstallationId::generate);
        let tx = self.system("noting whose database this is").await?;
        let sql =
            "INSERT INTO installation (id, installation_id, created_at) VALUES (1, $1, $2) ON CONFLICT (id) DO NOTHING";
        tx.execute(sql, [new.to_string().into(), tx.now().as_ms().into()]).await?;
        // Another replica may have been first.
        let id = tx.installation().await?.unwrap_or(new);
        tx.commit().await?;
        Ok(id)
    }
}

impl SystemTx {
    async fn installation(&self) -> Result<Option<InstallationId>> {
        let sql = "SELECT installation_id AS text FROM installation WHERE id = 1";
        let row = self.row::<TextRow>(sql, []).await?;
        row.map(|row| parse("installation.installation_id", &row.text)).transpose()
    }
}
