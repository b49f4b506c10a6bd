//! Locks: full sets of files, stored once by digest.

use sea_orm::FromQueryResult;
use toolyard_types::spec::Lock;

use crate::query::placeholders;
use crate::{OrgTx, Result, SystemTx};

#[derive(FromQueryResult)]
struct Row {
    digest: String,
    version: String,
    content: String,
}

impl OrgTx {
    /// Stores a lock; one with the same digest is the same lock.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn put_lock(&self, lock: &Lock) -> Result<()> {
        let sql = "INSERT INTO locks (organization_id, digest, version, content, created_at) VALUES ($1, $2, $3, $4, $5) \
                   ON CONFLICT (organization_id, digest) DO NOTHING";
        let values = [
            self.organization().to_string().into(),
            lock.digest.clone().into(),
            lock.version.clone().into(),
            lock.content.clone().into(),
            self.now().as_ms().into(),
        ];
        self.execute(sql, values).await?;
        Ok(())
    }

    /// Locks by digest.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn locks(&self, digests: &[String]) -> Result<Vec<Lock>> {
        if digests.is_empty() {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT digest, version, content FROM locks WHERE organization_id = $1 AND digest IN ({})",
            placeholders(2, digests.len())
        );
        let values = std::iter::once(self.organization().to_string().into())
            .chain(digests.iter().map(|digest| digest.clone().into()))
            .collect::<Vec<_>>();
        let rows = self.rows::<Row>(sql, values).await?;
        Ok(rows
            .into_iter()
            .map(|row| Lock { digest: row.digest, version: row.version, content: row.content })
            .collect())
    }
}

impl SystemTx {
    /// Forgets locks that no revision names any more.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn trim_locks(&self) -> Result<u64> {
        let sql = "DELETE FROM locks WHERE NOT EXISTS (SELECT 1 FROM revisions \
                   WHERE revisions.organization_id = locks.organization_id AND revisions.lock_digest = locks.digest)";
        self.execute(sql, []).await
    }
}
