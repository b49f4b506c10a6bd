//! Requests with an idempotency key: what they asked, and what was answered.

use sea_orm::FromQueryResult;
use toolyard_types::Timestamp;

use crate::query::count;
use crate::{OrgTx, Result, SystemTx};

/// A request that was made before with the same key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Digest of what it asked.
    pub request_hash: String,
    /// How it was answered; `None` while it is under way.
    pub answer: Option<(u16, String)>,
}

#[derive(FromQueryResult)]
struct Row {
    request_hash: String,
    status: i32,
    response: String,
}

impl OrgTx {
    /// Notes that a request is under way, or tells what is known of an earlier one with the same key. One that
    /// began before `stale` and never ended is forgotten first.
    ///
    /// # Errors
    /// When the database fails or the row cannot be read.
    pub async fn begin_idempotent(&self, key: &str, hash: &str, stale: Timestamp) -> Result<Option<Remembered>> {
        let organization = self.organization().to_string();
        let sql = "DELETE FROM idempotency WHERE organization_id = $1 AND key = $2 AND status = 0 AND created_at < $3";
        self.execute(sql, [organization.clone().into(), key.into(), stale.as_ms().into()]).await?;
        let sql = "INSERT INTO idempotency (organization_id, key, request_hash, status, response, created_at) \
                   VALUES ($1, $2, $3, 0, '', $4) ON CONFLICT (organization_id, key) DO NOTHING";
        let values = [organization.clone().into(), key.into(), hash.into(), self.now().as_ms().into()];
        if self.execute(sql, values).await? > 0 {
            return Ok(None);
        }
        let sql = "SELECT request_hash, status, response FROM idempotency WHERE organization_id = $1 AND key = $2";
        let row = self.row::<Row>(sql, [organization.into(), key.into()]).await?;
        row.map(|row| {
            let status: u16 = count("idempotency.status", i64::from(row.status))?;
            let answer = (status != 0).then_some((status, row.response));
            Ok(Remembered { request_hash: row.request_hash, answer })
        })
        .transpose()
    }

    /// Notes the answer.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn end_idempotent(&self, key: &str, status: u16, response: &str) -> Result<()> {
        let sql = "UPDATE idempotency SET status = $3, response = $4 WHERE organization_id = $1 AND key = $2";
        let values = [self.organization().to_string().into(), key.into(), i32::from(status).into(), response.into()];
        self.execute(sql, values).await?;
        Ok(())
    }

    /// Forgets a request that failed, so that it can be repeated.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn forget_idempotent(&self, key: &str) -> Result<()> {
        let sql = "DELETE FROM idempotency WHERE organization_id = $1 AND key = $2";
        self.execute(sql, [self.organization().to_string().into(), key.into()]).await?;
        Ok(())
    }
}

impl SystemTx {
    /// Forgets requests from before `at`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn trim_idempotency(&self, at: Timestamp) -> Result<u64> {
        self.execute("DELETE FROM idempotency WHERE created_at < $1", [at.as_ms().into()]).await
    }
}
