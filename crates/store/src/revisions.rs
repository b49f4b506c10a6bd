//! Revisions: immutable specs, and the person's settings they were made from.

use std::collections::BTreeSet;

use sea_orm::{FromQueryResult, Value};
use toolyard_types::spec::{RevisionSpec, Runtime};
use toolyard_types::{OrganizationId, RevisionId, ServerId, Timestamp, ToolboxId};

use crate::query::{
    BoundedPage, NumberRow, PAGE_BYTES, TextRow, count, fitting, json, parse, placeholders, to_i32, to_json,
};
use crate::servers::{ServerRef, ServerRow};
use crate::{OrgTx, Result, StoreError, SystemTx};

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
/// What a revision takes. Neither database reads the texts for this.
const BYTES: &str = "CAST(octet_length(spec) + octet_length(inputs) AS BIGINT)";
/// How many ids one statement names.
const IDS_AT_ONCE: usize = 500;
/// How many revisions one transaction forgets.
const FORGOTTEN_AT_ONCE: u32 = 200;

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

#[derive(FromQueryResult)]
struct SizeRow {
    id: String,
    bytes: i64,
}

#[derive(FromQueryResult)]
struct RefRow {
    organization_id: String,
    id: String,
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

    /// A page of a server's revisions with a number below `before`, newest first: at most `limit`, and no more than may be
    /// in memory for one who asks.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn revisions_page(&self, server: ServerId, before: u32, limit: u32) -> Result<BoundedPage<RevisionRow>> {
        let sql = format!(
            "SELECT id, number, {BYTES} AS bytes FROM revisions WHERE organization_id = $1 AND server_id = $2 \
             AND number < $3 ORDER BY number DESC LIMIT $4"
        );
        let values = [
            self.organization().to_string().into(),
            server.to_string().into(),
            to_i32(before).into(),
            i64::from(limit.saturating_add(1)).into(),
        ];
        let sizes = self.rows::<SizeRow>(sql, values).await?;
        let (fit, more) = fitting(sizes.iter().map(|row| row.bytes), limit, PAGE_BYTES);
        let ids: Vec<String> = sizes.into_iter().take(fit).map(|row| row.id).collect();
        let mut rows = self.read_revisions(&ids).await?;
        rows.sort_by_key(|row| std::cmp::Reverse(row.number));
        Ok(BoundedPage { rows, more })
    }

    /// The newest revision of a server with a number below `before` that a rollout which is still known brought to serve.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn last_served_before(&self, server: ServerId, before: u32) -> Result<Option<RevisionId>> {
        let sql = "SELECT id AS text FROM revisions WHERE organization_id = $1 AND server_id = $2 AND number < $3 \
                   AND id IN (SELECT to_revision_id FROM rollouts WHERE server_id = $2 AND state = 'done') \
                   ORDER BY number DESC LIMIT 1";
        self.newest_id(sql, server, before).await
    }

    /// The newest revision of a server with a number below `before`.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn last_revision_before(&self, server: ServerId, before: u32) -> Result<Option<RevisionId>> {
        let sql = "SELECT id AS text FROM revisions WHERE organization_id = $1 AND server_id = $2 AND number < $3 \
                   ORDER BY number DESC LIMIT 1";
        self.newest_id(sql, server, before).await
    }

    async fn newest_id(&self, sql: &str, server: ServerId, before: u32) -> Result<Option<RevisionId>> {
        let values = [self.organization().to_string().into(), server.to_string().into(), to_i32(before).into()];
        let row = self.row::<TextRow>(sql, values).await?;
        row.map(|row| parse("revisions.id", &row.text)).transpose()
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

    /// Revisions by id, all in memory at once. Who needs a part of each asks for [`Self::map_revisions`].
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn revisions_by_id(&self, ids: &[RevisionId]) -> Result<Vec<RevisionRow>> {
        self.map_revisions(ids, |revision| revision).await
    }

    /// What `map` makes of revisions by id. Of the revisions themselves a few are in memory at a time, however many and
    /// however large there are.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn map_revisions<T: Send>(
        &self,
        ids: &[RevisionId],
        mut map: impl FnMut(RevisionRow) -> T + Send,
    ) -> Result<Vec<T>> {
        let ids: BTreeSet<String> = ids.iter().map(ToString::to_string).collect();
        let ids: Vec<String> = ids.into_iter().collect();
        let mut found = Vec::with_capacity(ids.len());
        for ids in ids.chunks(IDS_AT_ONCE) {
            let sql = format!(
                "SELECT id, number, {BYTES} AS bytes FROM revisions WHERE organization_id = $1 AND id IN ({})",
                placeholders(2, ids.len())
            );
            let sizes = self.rows::<SizeRow>(sql, self.and_ids(ids)).await?;
            let mut rest = sizes.as_slice();
            while !rest.is_empty() {
                let (fit, _) = fitting(rest.iter().map(|row| row.bytes), u32::MAX, PAGE_BYTES);
                let (step, after) = rest.split_at(fit);
                let step: Vec<String> = step.iter().map(|row| row.id.clone()).collect();
                found.extend(self.read_revisions(&step).await?.into_iter().map(&mut map));
                rest = after;
            }
        }
        Ok(found)
    }

    /// Revisions by id as far as it matters where they run: without what was asked for, and with nothing in their
    /// arguments, environment and headers. For those who look at very many.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn revision_outlines(&self, ids: &[RevisionId]) -> Result<Vec<RevisionRow>> {
        self.map_revisions(ids, outline).await
    }

    async fn read_revisions(&self, ids: &[String]) -> Result<Vec<RevisionRow>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT {COLUMNS} FROM revisions WHERE organization_id = $1 AND id IN ({})",
            placeholders(2, ids.len())
        );
        self.rows::<Row>(sql, self.and_ids(ids)).await?.into_iter().map(TryInto::try_into).collect()
    }

    /// This organization and ids, as the values of a statement.
    fn and_ids(&self, ids: &[String]) -> Vec<Value> {
        std::iter::once(self.organization().to_string()).chain(ids.iter().cloned()).map(Value::from).collect()
    }

    /// Forgets all but the newest `keep` revisions of a server and those that are in use, the oldest first, a bounded
    /// number at once; tells how many. The server must be locked.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn trim_revisions(&mut self, server: &ServerRow, keep: u32) -> Result<u64> {
        let sql = "SELECT CAST(number AS BIGINT) AS number FROM revisions WHERE organization_id = $1 AND server_id = $2 \
                   ORDER BY number DESC LIMIT 1 OFFSET $3";
        let values = [
            self.organization().to_string().into(),
            server.id.to_string().into(),
            i64::from(keep.saturating_sub(1)).into(),
        ];
        let Some(oldest) = self.row::<NumberRow>(sql, values).await? else { return Ok(0) };
        let unused = self.unused_revisions(server, count("revisions.number", oldest.number)?).await?;
        let ids: Vec<String> = unused.into_iter().map(|row| row.id).collect();
        self.forget_revisions(server.id, &ids).await
    }

    /// Forgets the oldest revisions of a server that are not in use until all together take at most `most` bytes; tells
    /// whether they do, or will when this is asked again. The one of the number `newest` is kept. The server must be
    /// locked.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn keep_revisions_within(&mut self, server: &ServerRow, newest: u32, most: u64) -> Result<bool> {
        let sql = format!(
            "SELECT CAST(COALESCE(SUM({BYTES}), 0) AS BIGINT) AS number FROM revisions \
             WHERE organization_id = $1 AND server_id = $2"
        );
        let values = [self.organization().to_string().into(), server.id.to_string().into()];
        let taken = self.row::<NumberRow>(sql, values).await?.map_or(0, |row| row.number);
        let mut surplus = taken.saturating_sub(i64::try_from(most).unwrap_or(i64::MAX));
        if surplus <= 0 {
            return Ok(true);
        }
        let unused = self.unused_revisions(server, newest).await?;
        // Of very many, as an earlier version left them, each new revision takes its share.
        let goes_on = unused.len() >= usize::try_from(FORGOTTEN_AT_ONCE).unwrap_or(usize::MAX);
        let mut ids = Vec::new();
        for row in unused {
            if surplus <= 0 {
                break;
            }
            surplus = surplus.saturating_sub(row.bytes);
            ids.push(row.id);
        }
        self.forget_revisions(server.id, &ids).await?;
        Ok(surplus <= 0 || goes_on)
    }

    /// The oldest revisions of a server with a number below `before` that nothing may need: not what serves, is meant to or
    /// begins after a restart, not what a rollout under way, the last one or the one that serves goes from or to, nothing
    /// that an instance or a job runs, and not what a rollback goes to.
    async fn unused_revisions(&self, server: &ServerRow, before: u32) -> Result<Vec<SizeRow>> {
        let now: Vec<RevisionId> = std::iter::once(server.target_revision).chain(server.serving_revision).collect();
        let mut back = Vec::new();
        for (_, number) in self.revision_numbers(&now).await? {
            back.extend(self.last_served_before(server.id, number).await?.map(|id| id.to_string()));
        }
        let not_back = match back.len() {
            0 => String::new(),
            many => format!("AND r.id NOT IN ({})", placeholders(5, many)),
        };
        let sql = format!(
            "SELECT r.id, r.number, CAST(octet_length(r.spec) + octet_length(r.inputs) AS BIGINT) AS bytes \
             FROM revisions r JOIN servers s ON s.id = r.server_id \
             WHERE r.organization_id = $1 AND r.server_id = $2 AND r.number < $3 {not_back} \
             AND r.id <> s.target_revision_id AND r.id <> COALESCE(s.serving_revision_id, '') \
             AND COALESCE(s.postponed, '') NOT LIKE '%' || r.id || '%' \
             AND NOT EXISTS (SELECT 1 FROM rollouts o WHERE o.server_id = r.server_id \
             AND (o.from_revision_id = r.id OR o.to_revision_id = r.id) \
             AND (o.state = 'progressing' OR o.id = s.rollout_id OR o.id = s.serving_rollout_id \
             OR o.id IN (SELECT u.from_rollout_id FROM rollouts u WHERE u.server_id = r.server_id \
             AND u.state = 'progressing' AND u.from_rollout_id IS NOT NULL))) \
             AND NOT EXISTS (SELECT 1 FROM instances i WHERE i.revision_id = r.id AND i.ended_at IS NULL) \
             AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.revision_id = r.id AND j.state = 'pending') \
             ORDER BY r.number LIMIT $4"
        );
        let mut values: Vec<Value> = vec![
            self.organization().to_string().into(),
            server.id.to_string().into(),
            to_i32(before).into(),
            i64::from(FORGOTTEN_AT_ONCE).into(),
        ];
        values.extend(back.into_iter().map(Value::from));
        self.rows::<SizeRow>(sql, values).await
    }

    /// Forgets revisions of a server, with the instances and jobs of them that ended and the credentials that were made
    /// from their inputs alone. Their locks are forgotten with those that no revision names any more.
    async fn forget_revisions(&mut self, server: ServerId, ids: &[String]) -> Result<u64> {
        if ids.is_empty() {
            return Ok(0);
        }
        let credentials = self.input_credentials_of(ids).await?;
        let these = placeholders(2, ids.len());
        for table in ["jobs WHERE revision_id", "instances WHERE revision_id"] {
            let sql = format!("DELETE FROM {table} IN ({these}) AND organization_id = $1");
            self.execute(&sql, self.and_ids(ids)).await?;
        }
        // With what was observed of them and which credentials they use.
        let sql = format!("DELETE FROM revisions WHERE organization_id = $1 AND id IN ({these})");
        let gone = self.execute(&sql, self.and_ids(ids)).await?;
        self.delete_unused_input_credentials(server, credentials).await?;
        Ok(gone)
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

impl SystemTx {
    /// Servers that have more than `keep` revisions, after `after` by id, at most `limit`.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn servers_with_many_revisions(
        &self,
        keep: u32,
        after: Option<ServerId>,
        limit: u32,
    ) -> Result<Vec<ServerRef>> {
        let sql = "SELECT organization_id, id FROM servers WHERE id > $1 \
                   AND (SELECT COUNT(*) FROM revisions WHERE revisions.server_id = servers.id) > $2 ORDER BY id LIMIT $3";
        let values = [
            after.map(|id| id.to_string()).unwrap_or_default().into(),
            i64::from(keep).into(),
            i64::from(limit).into(),
        ];
        let read = |row: RefRow| -> Result<ServerRef> {
            Ok(ServerRef {
                organization: parse::<OrganizationId>("servers.organization_id", &row.organization_id)?,
                server: parse("servers.id", &row.id)?,
            })
        };
        self.rows::<RefRow>(sql, values).await?.into_iter().map(read).collect()
    }
}

fn outline(mut revision: RevisionRow) -> RevisionRow {
    match &mut revision.spec.runtime {
        Runtime::Npm(package) | Runtime::Pypi(package) | Runtime::Oci(package) => {
            package.arguments = Vec::new();
            package.environment.clear();
            if let Some(http) = &mut package.http {
                http.headers.clear();
            }
        }
        Runtime::Remote(remote) => remote.headers.clear(),
    }
    if let Some(call) = &mut revision.spec.probe_call {
        call.arguments.clear();
    }
    revision.inputs = String::new();
    revision
}
