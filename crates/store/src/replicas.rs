//! Replicas of the control plane with their gateways: who is there, told by each of them every few seconds.

use sea_orm::FromQueryResult;
use toolyard_types::{ReplicaId, Timestamp};

use crate::query::parse;
use crate::{Result, StoreError, SystemTx};

/// A replica that was heard of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaRow {
    /// Its id: of one run of the program.
    pub id: ReplicaId,
    /// Where agents and other replicas reach it, as `host:port`.
    pub address: String,
    /// The program's version.
    pub version: String,
    /// When it started.
    pub started_at: Timestamp,
    /// When it was last heard of, by its own clock.
    pub seen_at: Timestamp,
}

#[derive(FromQueryResult)]
struct Row {
    id: String,
    address: String,
    version: String,
    started_at: i64,
    seen_at: i64,
}

impl TryFrom<Row> for ReplicaRow {
    type Error = StoreError;
    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: parse("replicas.id", &row.id)?,
            address: row.address,
            version: row.version,
            started_at: Timestamp::from_ms(row.started_at),
            seen_at: Timestamp::from_ms(row.seen_at),
        })
    }
}

impl SystemTx {
    /// Notes that a replica is there.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn put_replica(&self, replica: &ReplicaRow) -> Result<()> {
        let sql = "INSERT INTO replicas (id, address, version, started_at, seen_at) VALUES ($1, $2, $3, $4, $5) \
                   ON CONFLICT (id) DO UPDATE SET address = excluded.address, seen_at = excluded.seen_at";
        let values = [
            replica.id.to_string().into(),
            replica.address.clone().into(),
            replica.version.clone().into(),
            replica.started_at.as_ms().into(),
            replica.seen_at.as_ms().into(),
        ];
        self.execute(sql, values).await?;
        Ok(())
    }

    /// The replicas heard of since `after`, oldest first.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn replicas(&self, after: Timestamp) -> Result<Vec<ReplicaRow>> {
        let sql = "SELECT id, address, version, started_at, seen_at FROM replicas WHERE seen_at > $1 \
                   ORDER BY started_at, id";
        self.rows::<Row>(sql, [after.as_ms().into()]).await?.into_iter().map(TryInto::try_into).collect()
    }

    /// Forgets a replica that ends.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remove_replica(&self, id: ReplicaId) -> Result<()> {
        self.execute("DELETE FROM replicas WHERE id = $1", [id.to_string().into()]).await?;
        Ok(())
    }

    /// Forgets replicas that were not heard of since `before`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn trim_replicas(&self, before: Timestamp) -> Result<u64> {
        self.execute("DELETE FROM replicas WHERE seen_at < $1", [before.as_ms().into()]).await
    }
}
