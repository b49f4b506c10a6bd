//! Catalog sources, entries, versions and ratings.
//!
//! Rows go in and out as they are; which version is the latest, what a sync may change and who may see
//! what is decided in the control plane. Writes of many rows are one statement per chunk, because a sync
//! writes a page of a hundred entries in one transaction.

use sea_orm::{ConnectionTrait, FromQueryResult, Statement, Value};
use toolyard_types::{EntryId, Name, OrganizationId, SourceId, Timestamp};

use crate::query::{BoundedPage, NumberRow, PAGE_BYTES, fitting};
use crate::{OrgTx, Result, StoreError, SystemTx};

/// How many rows one statement writes: SQLite takes at most 32,766 values.
const CHUNK: usize = 200;

/// A place entries come from, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogSource {
    /// Its id.
    pub id: SourceId,
    /// Its name.
    pub name: Name,
    /// `built_in`, `own`, `registry` or `file`.
    pub kind: String,
    /// Where, for `registry` and `file`.
    pub url: Option<String>,
    /// Whether it is synced.
    pub enabled: bool,
    /// `never`, `running`, `done` or `failed`.
    pub sync_state: String,
    /// Why it failed, or what it did.
    pub sync_message: String,
    /// Where the sync stands, in the control plane's own words.
    pub position: String,
    /// When it last succeeded.
    pub synced_at: Option<Timestamp>,
    /// When it is due.
    pub next_sync_at: Option<Timestamp>,
    /// When it was added.
    pub created_at: Timestamp,
}

/// An entry (all versions of one name from one source), as stored; texts are of the latest version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogEntry {
    /// Its id.
    pub id: EntryId,
    /// Where it came from.
    pub source_id: SourceId,
    /// `namespace/name`.
    pub name: String,
    /// The latest version.
    pub latest_version: String,
    /// For people.
    pub title: Option<String>,
    /// What it does.
    pub description: String,
    /// Its categories.
    pub categories: Vec<String>,
    /// Whether a person here chose the categories, so that a sync leaves them alone.
    pub categories_set: bool,
    /// How it can run.
    pub kinds: Vec<String>,
    /// `active`, `deprecated` or `deleted`.
    pub status: String,
    /// What the publisher says about the status.
    pub status_message: Option<String>,
    /// `approved`, `submitted` or `rejected`.
    pub review: String,
    /// Why it was rejected.
    pub review_reason: Option<String>,
    /// Who submitted it.
    pub submitted_by: Option<String>,
    /// Who verified it.
    pub verified_by: Option<String>,
    /// Whether `/v0.1/servers` shows it.
    pub public: bool,
    /// The sum of the local ratings.
    pub rating_sum: i32,
    /// How many local ratings.
    pub rating_count: i32,
    /// When a sync last saw it.
    pub seen_at: Timestamp,
    /// When it came.
    pub created_at: Timestamp,
    /// When it changed.
    pub updated_at: Timestamp,
}

/// One version of an entry, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogVersion {
    /// The entry.
    pub entry_id: EntryId,
    /// The version.
    pub version: String,
    /// The `server.json`.
    pub document: String,
    /// `active`, `deprecated` or `deleted`.
    pub status: String,
    /// What the publisher says about the status.
    pub status_message: Option<String>,
    /// Whether it is the latest.
    pub latest: bool,
    /// When it was published.
    pub published_at: Option<Timestamp>,
    /// When it changed.
    pub updated_at: Timestamp,
}

/// A version without its document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogVersionHead {
    /// The entry.
    pub entry_id: EntryId,
    /// The version.
    pub version: String,
    /// `active`, `deprecated` or `deleted`.
    pub status: String,
    /// Whether it is the latest.
    pub latest: bool,
    /// When it was published.
    pub published_at: Option<Timestamp>,
}

/// What `/v0.1/servers` is asked for.
#[derive(Clone, Debug, Default)]
pub struct PublicVersionsQuery {
    /// Start after this name, version and entry.
    pub after: Option<(String, String, String)>,
    /// Only names that contain this.
    pub search: Option<String>,
    /// Only versions changed at or after this.
    pub updated_since: Option<Timestamp>,
    /// Only this version; `latest` for the latest ones.
    pub version: Option<String>,
    /// Only this name.
    pub name: Option<String>,
    /// Deleted ones too.
    pub include_deleted: bool,
    /// How many at most.
    pub limit: u32,
}

/// A version shown by `/v0.1/servers`.
#[derive(Clone, Debug)]
pub struct PublicVersion {
    /// The entry's name.
    pub name: String,
    /// The entry's categories.
    pub categories: Vec<String>,
    /// The version.
    pub version: CatalogVersion,
    /// When the entry came, for versions without a date of publication.
    pub created_at: Timestamp,
}

/// A source that is to be synced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueSource {
    /// Whose.
    pub organization: OrganizationId,
    /// Its name.
    pub name: Name,
    /// Whether its last sync failed.
    pub failed: bool,
}

#[derive(FromQueryResult)]
struct SourceRow {
    id: String,
    name: String,
    kind: String,
    url: Option<String>,
    enabled: bool,
    sync_state: String,
    sync_message: String,
    position: String,
    synced_at: Option<i64>,
    next_sync_at: Option<i64>,
    created_at: i64,
}

#[derive(FromQueryResult)]
struct EntryRow {
    id: String,
    source_id: String,
    name: String,
    latest_version: String,
    title: Option<String>,
    description: String,
    categories: String,
    categories_set: bool,
    kinds: String,
    status: String,
    status_message: Option<String>,
    review: String,
    review_reason: Option<String>,
    submitted_by: Option<String>,
    verified_by: Option<String>,
    public: bool,
    rating_sum: i32,
    rating_count: i32,
    seen_at: i64,
    created_at: i64,
    updated_at: i64,
}

#[derive(FromQueryResult)]
struct VersionRow {
    entry_id: String,
    version: String,
    document: String,
    status: String,
    status_message: Option<String>,
    latest: bool,
    published_at: Option<i64>,
    updated_at: i64,
}

#[derive(FromQueryResult)]
struct HeadRow {
    entry_id: String,
    version: String,
    status: String,
    latest: bool,
    published_at: Option<i64>,
}

#[derive(FromQueryResult)]
struct PublicRow {
    name: String,
    categories: String,
    created_at: i64,
    entry_id: String,
    version: String,
    document: String,
    status: String,
    status_message: Option<String>,
    latest: bool,
    published_at: Option<i64>,
    updated_at: i64,
}

#[derive(FromQueryResult)]
struct CountRow {
    key: String,
    count: i64,
}

const SOURCE_COLUMNS: &str =
    "id, name, kind, url, enabled, sync_state, sync_message, position, synced_at, next_sync_at, created_at";
const ENTRY_COLUMNS: &str = "id, source_id, name, latest_version, title, description, categories, categories_set, \
     kinds, status, status_message, review, review_reason, submitted_by, verified_by, public, rating_sum, \
     rating_count, seen_at, created_at, updated_at";
const VERSION_COLUMNS: &str = "entry_id, version, document, status, status_message, latest, published_at, updated_at";

impl OrgTx {
    /// Every source, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn catalog_sources(&self) -> Result<Vec<CatalogSource>> {
        let sql =
            format!("SELECT {SOURCE_COLUMNS} FROM catalog_sources WHERE organization_id = $1 ORDER BY created_at, id");
        let rows: Vec<SourceRow> = self.rows(&sql, [self.tenant()]).await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    /// The source of that name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn catalog_source(&self, name: &Name) -> Result<Option<CatalogSource>> {
        Ok(self.catalog_sources().await?.into_iter().find(|source| source.name == *name))
    }

    /// Adds a source.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] when the name is taken.
    pub async fn insert_catalog_source(&mut self, source: &CatalogSource) -> Result<()> {
        let sql = "INSERT INTO catalog_sources (id, organization_id, name, kind, url, enabled, sync_state, sync_message, \
                   position, synced_at, next_sync_at, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
        let values = [
            source.id.to_string().into(),
            self.tenant(),
            source.name.to_string().into(),
            source.kind.clone().into(),
            source.url.clone().into(),
            source.enabled.into(),
            source.sync_state.clone().into(),
            source.sync_message.clone().into(),
            source.position.clone().into(),
            source.synced_at.map(Timestamp::as_ms).into(),
            source.next_sync_at.map(Timestamp::as_ms).into(),
            source.created_at.as_ms().into(),
        ];
        self.execute(sql, values).await.map(drop)
    }

    /// Writes where a source's sync stands, and whether it is enabled.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn update_catalog_source(&mut self, source: &CatalogSource) -> Result<bool> {
        let sql = "UPDATE catalog_sources SET enabled = $3, sync_state = $4, sync_message = $5, position = $6, \
                   synced_at = $7, next_sync_at = $8 WHERE organization_id = $1 AND id = $2";
        let values = [
            self.tenant(),
            source.id.to_string().into(),
            source.enabled.into(),
            source.sync_state.clone().into(),
            source.sync_message.clone().into(),
            source.position.clone().into(),
            source.synced_at.map(Timestamp::as_ms).into(),
            source.next_sync_at.map(Timestamp::as_ms).into(),
        ];
        Ok(self.execute(sql, values).await? == 1)
    }

    /// Removes a source with its entries.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete_catalog_source(&mut self, id: SourceId) -> Result<()> {
        let values = || [self.tenant(), id.to_string().into()];
        self.execute("DELETE FROM catalog_entries WHERE organization_id = $1 AND source_id = $2", values()).await?;
        self.execute("DELETE FROM catalog_sources WHERE organization_id = $1 AND id = $2", values()).await.map(drop)
    }

    /// How many entries each source has that are not deleted.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn count_catalog_entries(&self) -> Result<Vec<(SourceId, u32)>> {
        let sql = "SELECT source_id AS key, COUNT(*) AS count FROM catalog_entries \
                   WHERE organization_id = $1 AND status <> 'deleted' GROUP BY source_id";
        let rows: Vec<CountRow> = self.rows(sql, [self.tenant()]).await?;
        rows.into_iter().map(|row| Ok((id(&row.key, "source id")?, count(row.count)))).collect()
    }

    /// How many servers came from each entry.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn count_catalog_deployments(&self) -> Result<Vec<(String, u32)>> {
        let sql = "SELECT entry_name AS key, COUNT(*) AS count FROM servers \
                   WHERE organization_id = $1 AND entry_name IS NOT NULL AND NOT deleted GROUP BY entry_name";
        let rows: Vec<CountRow> = self.rows(sql, [self.tenant()]).await?;
        Ok(rows.into_iter().map(|row| (row.key, count(row.count))).collect())
    }

    /// How many servers came from each of these entries.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn count_catalog_deployments_of(&self, names: &[&str]) -> Result<Vec<(String, u32)>> {
        let mut counts = Vec::new();
        for chunk in names.chunks(CHUNK) {
            let places = placeholders(2, chunk.len());
            let sql = format!(
                "SELECT entry_name AS key, COUNT(*) AS count FROM servers \
                 WHERE organization_id = $1 AND entry_name IN ({places}) AND NOT deleted GROUP BY entry_name"
            );
            let values = std::iter::once(self.tenant()).chain(chunk.iter().map(|&name| name.into()));
            let rows: Vec<CountRow> = self.rows(&sql, values).await?;
            counts.extend(rows.into_iter().map(|row| (row.key, count(row.count))));
        }
        Ok(counts)
    }

    /// Every entry that is not deleted.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn catalog_entries(&self) -> Result<Vec<CatalogEntry>> {
        let sql =
            format!("SELECT {ENTRY_COLUMNS} FROM catalog_entries WHERE organization_id = $1 AND status <> 'deleted'");
        let rows: Vec<EntryRow> = self.rows(&sql, [self.tenant()]).await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    /// The entries with these ids, in no order.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn catalog_entries_by_id(&self, ids: &[EntryId]) -> Result<Vec<CatalogEntry>> {
        self.entries_where("id", ids.iter().map(ToString::to_string)).await
    }

    /// The entries of that name, one per source, deleted ones too.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn catalog_entries_named(&self, name: &str) -> Result<Vec<CatalogEntry>> {
        self.entries_where("name", [name.to_owned()]).await
    }

    /// The entries of one source with these names, deleted ones too.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn catalog_entries_of(&self, source: SourceId, names: &[&str]) -> Result<Vec<CatalogEntry>> {
        let all = self.entries_where("name", names.iter().map(|&name| name.to_owned())).await?;
        Ok(all.into_iter().filter(|entry| entry.source_id == source).collect())
    }

    async fn entries_where(&self, column: &str, values: impl IntoIterator<Item = String>) -> Result<Vec<CatalogEntry>> {
        let values: Vec<String> = values.into_iter().collect();
        let mut entries = Vec::with_capacity(values.len());
        for chunk in values.chunks(CHUNK) {
            let places = placeholders(2, chunk.len());
            let sql = format!(
                "SELECT {ENTRY_COLUMNS} FROM catalog_entries WHERE organization_id = $1 AND {column} IN ({places})"
            );
            let values = std::iter::once(self.tenant()).chain(chunk.iter().map(|value| value.clone().into()));
            let rows: Vec<EntryRow> = self.rows(&sql, values).await?;
            for row in rows {
                entries.push(row.try_into()?);
            }
        }
        Ok(entries)
    }

    /// Inserts entries, or replaces those with the same id. The sums of ratings are left alone: they belong to
    /// [`OrgTx::rate_catalog_entry`], and what was read before may be older.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn put_catalog_entries(&mut self, entries: &[CatalogEntry]) -> Result<()> {
        for chunk in entries.chunks(CHUNK) {
            let rows = tuples(22, chunk.len());
            let sql = format!(
                "INSERT INTO catalog_entries (organization_id, {ENTRY_COLUMNS}) VALUES {rows} ON CONFLICT (id) DO UPDATE SET \
                 latest_version = excluded.latest_version, title = excluded.title, description = excluded.description, \
                 categories = excluded.categories, categories_set = excluded.categories_set, kinds = excluded.kinds, \
                 status = excluded.status, status_message = excluded.status_message, review = excluded.review, \
                 review_reason = excluded.review_reason, submitted_by = excluded.submitted_by, \
                 verified_by = excluded.verified_by, public = excluded.public, seen_at = excluded.seen_at, updated_at = excluded.updated_at \
                 WHERE catalog_entries.organization_id = excluded.organization_id"
            );
            let values: Vec<Value> = chunk.iter().flat_map(|entry| entry_values(self.tenant(), entry)).collect();
            self.execute(&sql, values).await?;
        }
        Ok(())
    }

    /// Notes that a sync saw these entries unchanged.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn touch_catalog_entries(&mut self, ids: &[EntryId], at: Timestamp) -> Result<()> {
        for chunk in ids.chunks(CHUNK) {
            let places = placeholders(3, chunk.len());
            let sql =
                format!("UPDATE catalog_entries SET seen_at = $2 WHERE organization_id = $1 AND id IN ({places})");
            let values =
                [self.tenant(), at.as_ms().into()].into_iter().chain(chunk.iter().map(|id| id.to_string().into()));
            self.execute(&sql, values).await?;
        }
        Ok(())
    }

    /// Removes the entries of a source that no sync has seen since `since`; returns how many. Those that people here
    /// said something about are only marked deleted: they may come back, and who syncs from here must hear of it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete_unseen_catalog_entries(&mut self, source: SourceId, since: Timestamp) -> Result<u64> {
        let unseen = "organization_id = $1 AND source_id = $2 AND seen_at < $3";
        let kept = "(public OR categories_set OR verified_by IS NOT NULL OR rating_count > 0)";
        let sql = format!("DELETE FROM catalog_entries WHERE {unseen} AND NOT {kept}");
        let values = [self.tenant(), source.to_string().into(), since.as_ms().into()];
        let removed = self.execute(&sql, values).await?;
        let condition = format!("{unseen} AND status <> 'deleted'");
        let values = || [self.tenant(), source.to_string().into(), since.as_ms().into(), self.now().as_ms().into()];
        let versions = format!(
            "UPDATE catalog_versions SET status = 'deleted', updated_at = $4 WHERE status <> 'deleted' AND entry_id IN \
             (SELECT id FROM catalog_entries WHERE {condition})"
        );
        self.execute(&versions, values()).await?;
        let entries = format!("UPDATE catalog_entries SET status = 'deleted', updated_at = $4 WHERE {condition}");
        Ok(removed + self.execute(&entries, values()).await?)
    }

    /// Removes what a source marked deleted before `before`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn purge_deleted_catalog_entries(&mut self, source: SourceId, before: Timestamp) -> Result<()> {
        let values = || [self.tenant(), source.to_string().into(), before.as_ms().into()];
        let versions = "DELETE FROM catalog_versions WHERE status = 'deleted' AND NOT latest AND updated_at < $3 \
                        AND entry_id IN (SELECT id FROM catalog_entries WHERE organization_id = $1 AND source_id = $2)";
        self.execute(versions, values()).await?;
        let entries = "DELETE FROM catalog_entries WHERE organization_id = $1 AND source_id = $2 \
                       AND status = 'deleted' AND updated_at < $3";
        self.execute(entries, values()).await.map(drop)
    }

    /// How many versions a source has, deleted ones too, and how many bytes their documents.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn measure_catalog_source(&self, source: SourceId) -> Result<(u64, u64)> {
        #[derive(FromQueryResult)]
        struct Row {
            versions: i64,
            bytes: i64,
        }
        let sql = "SELECT COUNT(*) AS versions, CAST(COALESCE(SUM(OCTET_LENGTH(v.document)), 0) AS BIGINT) AS bytes \
                   FROM catalog_versions v JOIN catalog_entries e ON e.id = v.entry_id \
                   WHERE e.organization_id = $1 AND e.source_id = $2";
        let rows: Vec<Row> = self.rows(sql, [self.tenant(), source.to_string().into()]).await?;
        let measured = |row: &Row| (row.versions.unsigned_abs(), row.bytes.unsigned_abs());
        Ok(rows.first().map(measured).unwrap_or_default())
    }

    /// Has Postgres look at the catalog's tables now. Until its own round comes by, a minute later or more, it
    /// takes them for nearly empty and reads all of an organization's entries to find fifty by id: 17 ms instead of
    /// 0.2 ms with 10,000 entries.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn refresh_catalog_statistics(&self) -> Result<()> {
        if self.is_postgres() {
            self.execute("ANALYZE catalog_entries", []).await?;
            self.execute("ANALYZE catalog_versions", []).await?;
        }
        Ok(())
    }

    /// Keeps everybody else from writing the entry of that name until this transaction ends. On SQLite it alone writes.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn lock_catalog_entries(&self, source: SourceId, name: &str) -> Result<()> {
        if self.is_postgres() {
            let key = format!("catalog_entry/{source}/{name}");
            self.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", [key.into()]).await?;
        }
        Ok(())
    }

    /// Removes every other version of an entry; returns how many.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn keep_catalog_version(&mut self, entry: EntryId, version: &str) -> Result<u64> {
        let sql = "DELETE FROM catalog_versions WHERE organization_id = $1 AND entry_id = $2 AND version <> $3";
        self.execute(sql, [self.tenant(), entry.to_string().into(), version.into()]).await
    }

    /// Removes an entry with its versions and ratings.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete_catalog_entry(&mut self, id: EntryId) -> Result<bool> {
        let sql = "DELETE FROM catalog_entries WHERE organization_id = $1 AND id = $2";
        Ok(self.execute(sql, [self.tenant(), id.to_string().into()]).await? == 1)
    }

    /// The versions of these entries, without their documents.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn catalog_version_heads(&self, entries: &[EntryId]) -> Result<Vec<CatalogVersionHead>> {
        let mut heads = Vec::new();
        for chunk in entries.chunks(CHUNK) {
            let places = placeholders(2, chunk.len());
            let sql = format!(
                "SELECT entry_id, version, status, latest, published_at FROM catalog_versions \
                 WHERE organization_id = $1 AND entry_id IN ({places})"
            );
            let values = std::iter::once(self.tenant()).chain(chunk.iter().map(|id| id.to_string().into()));
            let rows: Vec<HeadRow> = self.rows(&sql, values).await?;
            for row in rows {
                heads.push(CatalogVersionHead {
                    entry_id: id(&row.entry_id, "entry id")?,
                    version: row.version,
                    status: row.status,
                    latest: row.latest,
                    published_at: row.published_at.map(Timestamp::from_ms),
                });
            }
        }
        Ok(heads)
    }

    /// One version with its document.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn catalog_version(&self, entry: EntryId, version: &str) -> Result<Option<CatalogVersion>> {
        let sql = format!(
            "SELECT {VERSION_COLUMNS} FROM catalog_versions WHERE organization_id = $1 AND entry_id = $2 AND version = $3"
        );
        let rows: Vec<VersionRow> = self.rows(&sql, [self.tenant(), entry.to_string().into(), version.into()]).await?;
        rows.into_iter().next().map(TryInto::try_into).transpose()
    }

    /// Inserts versions. Of those that exist, only the status changes, because a published version is
    /// immutable; the document too when `replace_documents`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn put_catalog_versions(&mut self, versions: &[CatalogVersion], replace_documents: bool) -> Result<()> {
        let document = if replace_documents { "document = excluded.document, " } else { "" };
        for chunk in versions.chunks(CHUNK) {
            let rows = tuples(9, chunk.len());
            let sql = format!(
                "INSERT INTO catalog_versions (organization_id, {VERSION_COLUMNS}) VALUES {rows} \
                 ON CONFLICT (entry_id, version) DO UPDATE SET {document}status = excluded.status, \
                 status_message = excluded.status_message, latest = excluded.latest, \
                 published_at = excluded.published_at, updated_at = excluded.updated_at \
                 WHERE catalog_versions.organization_id = excluded.organization_id"
            );
            let values: Vec<Value> = chunk.iter().flat_map(|version| version_values(self.tenant(), version)).collect();
            self.execute(&sql, values).await?;
        }
        Ok(())
    }

    /// Makes one version of each entry the latest, and the others not.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_latest_catalog_versions(&mut self, latest: &[(EntryId, String)]) -> Result<()> {
        for (entry, version) in latest {
            let sql = "UPDATE catalog_versions SET latest = (version = $3), updated_at = $4 \
                       WHERE organization_id = $1 AND entry_id = $2 AND latest <> (version = $3)";
            let values = [self.tenant(), entry.to_string().into(), version.clone().into(), self.now().as_ms().into()];
            self.execute(sql, values).await?;
        }
        Ok(())
    }

    /// Notes that all versions of an entry changed, so that those who sync from here fetch them.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn touch_catalog_versions(&mut self, entry: EntryId) -> Result<()> {
        let sql = "UPDATE catalog_versions SET updated_at = $3 WHERE organization_id = $1 AND entry_id = $2";
        let values = [self.tenant(), entry.to_string().into(), self.now().as_ms().into()];
        self.execute(sql, values).await.map(drop)
    }

    /// Stores one actor's rating of an entry and brings the entry's sums up to date.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn rate_catalog_entry(&mut self, entry: EntryId, actor: &str, rating: u8) -> Result<()> {
        let sql = "INSERT INTO catalog_ratings (organization_id, entry_id, actor, rating, at) VALUES ($1, $2, $3, $4, $5) \
                   ON CONFLICT (entry_id, actor) DO UPDATE SET rating = excluded.rating, at = excluded.at";
        let values = [
            self.tenant(),
            entry.to_string().into(),
            actor.into(),
            i32::from(rating).into(),
            self.now().as_ms().into(),
        ];
        self.execute(sql, values).await?;
        let sums = "UPDATE catalog_entries SET \
                    rating_sum = CAST((SELECT SUM(rating) FROM catalog_ratings WHERE entry_id = $2) AS INTEGER), \
                    rating_count = CAST((SELECT COUNT(*) FROM catalog_ratings WHERE entry_id = $2) AS INTEGER) \
                    WHERE organization_id = $1 AND id = $2";
        self.execute(sums, [self.tenant(), entry.to_string().into()]).await.map(drop)
    }

    /// How an actor rated an entry.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn catalog_rating(&self, entry: EntryId, actor: &str) -> Result<Option<u8>> {
        #[derive(FromQueryResult)]
        struct Rating {
            rating: i32,
        }
        let sql = "SELECT rating FROM catalog_ratings WHERE organization_id = $1 AND entry_id = $2 AND actor = $3";
        let rows = self.rows::<Rating>(sql, [self.tenant(), entry.to_string().into(), actor.into()]).await?;
        Ok(rows.first().and_then(|row| u8::try_from(row.rating).ok()))
    }

    /// A page of versions of approved, public entries, by name and version: at most as many as the query says, and no more
    /// than may be in memory for one who asks.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn public_catalog_versions_page(
        &self,
        query: &PublicVersionsQuery,
    ) -> Result<BoundedPage<PublicVersion>> {
        let size = "CAST(octet_length(v.document) AS BIGINT) AS number";
        let sizes: Vec<NumberRow> = self.find_public(size, query, query.limit.saturating_add(1)).await?;
        // Who asks for the versions of one entry expects all of them.
        let most = if query.name.is_some() { 8 * PAGE_BYTES } else { PAGE_BYTES };
        let (fit, more) = fitting(sizes.iter().map(|row| row.number), query.limit, most);
        let asked = PublicVersionsQuery { limit: u32::try_from(fit).unwrap_or(query.limit), ..query.clone() };
        Ok(BoundedPage { rows: self.public_catalog_versions(&asked).await?, more })
    }

    /// Versions of approved, public entries, by name and version, all in memory at once.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn public_catalog_versions(&self, query: &PublicVersionsQuery) -> Result<Vec<PublicVersion>> {
        let columns = "e.name, e.categories, e.created_at, v.entry_id, v.version, v.document, v.status, \
                       v.status_message, v.latest, v.published_at, v.updated_at";
        let rows: Vec<PublicRow> = self.find_public(columns, query, query.limit).await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    async fn find_public<R: FromQueryResult>(
        &self,
        columns: &str,
        query: &PublicVersionsQuery,
        limit: u32,
    ) -> Result<Vec<R>> {
        let mut values = vec![self.tenant()];
        let mut place = |value: Value| {
            values.push(value);
            format!("${}", values.len())
        };
        let mut sql = format!(
            "SELECT {columns} FROM catalog_entries e JOIN catalog_versions v ON v.entry_id = e.id \
             WHERE e.organization_id = $1 AND e.public AND e.review = 'approved'"
        );
        if let Some((name, version, entry)) = &query.after {
            let (name, version, entry) =
                (place(name.as_str().into()), place(version.as_str().into()), place(entry.as_str().into()));
            // The first condition says less than the second, but an index can use it.
            sql += &format!(" AND e.name >= {name} AND (e.name, v.version, v.entry_id) > ({name}, {version}, {entry})");
        }
        if let Some(name) = &query.name {
            sql += &format!(" AND e.name = {}", place(name.as_str().into()));
        }
        if let Some(search) = &query.search {
            let pattern = format!("%{}%", like_escaped(&search.to_lowercase()));
            sql += &format!(" AND LOWER(e.name) LIKE {} ESCAPE '\\'", place(pattern.into()));
        }
        if let Some(since) = query.updated_since {
            sql += &format!(" AND v.updated_at >= {}", place(since.as_ms().into()));
        }
        match query.version.as_deref() {
            Some("latest") => sql += " AND v.latest",
            Some(version) => sql += &format!(" AND v.version = {}", place(version.into())),
            None => {}
        }
        if !query.include_deleted {
            sql += " AND v.status <> 'deleted'";
        }
        sql += &format!(" ORDER BY e.name, v.version, v.entry_id LIMIT {limit}");
        self.rows(&sql, values).await
    }

    fn tenant(&self) -> Value {
        self.organization().to_string().into()
    }

    async fn rows<R: FromQueryResult>(&self, sql: &str, values: impl IntoIterator<Item = Value>) -> Result<Vec<R>> {
        let statement = Statement::from_sql_and_values(self.db().get_database_backend(), sql, values);
        Ok(R::find_by_statement(statement).all(self.db()).await?)
    }
}

impl SystemTx {
    /// Enabled sources that are due at `now`: of every organization in turn one whose last sync failed and one of the
    /// others, the longest overdue first; at most `limit`, and of either kind of one organization at most `share`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn due_catalog_sources(&self, now: Timestamp, share: u32, limit: u32) -> Result<Vec<DueSource>> {
        #[derive(FromQueryResult)]
        struct Due {
            organization_id: String,
            name: String,
            failed: bool,
        }
        let sql = "SELECT organization_id, name, failed FROM (SELECT organization_id, name, next_sync_at, \
                   (sync_state = 'failed') AS failed, ROW_NUMBER() OVER (PARTITION BY organization_id, \
                   (sync_state = 'failed') ORDER BY next_sync_at, id) AS place \
                   FROM catalog_sources WHERE enabled AND kind IN ('registry', 'file') AND next_sync_at <= $1) AS due \
                   WHERE place <= $2 ORDER BY place, next_sync_at LIMIT $3";
        let values = [now.as_ms().into(), i64::from(share).into(), i64::from(limit).into()];
        let statement = Statement::from_sql_and_values(self.db().get_database_backend(), sql, values);
        let rows = Due::find_by_statement(statement).all(self.db()).await?;
        rows.into_iter()
            .map(|row| {
                Ok(DueSource {
                    organization: id(&row.organization_id, "organization id")?,
                    name: id(&row.name, "catalog source name")?,
                    failed: row.failed,
                })
            })
            .collect()
    }

    /// When the next enabled source is due.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn next_catalog_sync(&self) -> Result<Option<Timestamp>> {
        let sql = "SELECT MIN(next_sync_at) AS due FROM catalog_sources WHERE enabled AND kind IN ('registry', 'file')";
        let row = self.db().query_one_raw(Statement::from_string(self.db().get_database_backend(), sql)).await?;
        let due = row.map(|row| row.try_get::<Option<i64>>("", "due")).transpose()?;
        Ok(due.flatten().map(Timestamp::from_ms))
    }

    /// Every organization, oldest first: the first one is made at the first start.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn catalog_organizations(&self) -> Result<Vec<OrganizationId>> {
        let sql = "SELECT id FROM organizations ORDER BY created_at, id";
        let rows = self.db().query_all_raw(Statement::from_string(self.db().get_database_backend(), sql)).await?;
        rows.into_iter().map(|row| id(&row.try_get::<String>("", "id")?, "organization id")).collect()
    }
}

impl TryFrom<SourceRow> for CatalogSource {
    type Error = StoreError;
    fn try_from(row: SourceRow) -> Result<Self> {
        Ok(Self {
            id: id(&row.id, "source id")?,
            name: id(&row.name, "catalog source name")?,
            kind: row.kind,
            url: row.url,
            enabled: row.enabled,
            sync_state: row.sync_state,
            sync_message: row.sync_message,
            position: row.position,
            synced_at: row.synced_at.map(Timestamp::from_ms),
            next_sync_at: row.next_sync_at.map(Timestamp::from_ms),
            created_at: Timestamp::from_ms(row.created_at),
        })
    }
}

impl TryFrom<EntryRow> for CatalogEntry {
    type Error = StoreError;
    fn try_from(row: EntryRow) -> Result<Self> {
        Ok(Self {
            id: id(&row.id, "entry id")?,
            source_id: id(&row.source_id, "source id")?,
            name: row.name,
            latest_version: row.latest_version,
            title: row.title,
            description: row.description,
            categories: list(&row.categories)?,
            categories_set: row.categories_set,
            kinds: list(&row.kinds)?,
            status: row.status,
            status_message: row.status_message,
            review: row.review,
            review_reason: row.review_reason,
            submitted_by: row.submitted_by,
            verified_by: row.verified_by,
            public: row.public,
            rating_sum: row.rating_sum,
            rating_count: row.rating_count,
            seen_at: Timestamp::from_ms(row.seen_at),
            created_at: Timestamp::from_ms(row.created_at),
            updated_at: Timestamp::from_ms(row.updated_at),
        })
    }
}

impl TryFrom<VersionRow> for CatalogVersion {
    type Error = StoreError;
    fn try_from(row: VersionRow) -> Result<Self> {
        Ok(Self {
            entry_id: id(&row.entry_id, "entry id")?,
            version: row.version,
            document: row.document,
            status: row.status,
            status_message: row.status_message,
            latest: row.latest,
            published_at: row.published_at.map(Timestamp::from_ms),
            updated_at: Timestamp::from_ms(row.updated_at),
        })
    }
}

impl TryFrom<PublicRow> for PublicVersion {
    type Error = StoreError;
    fn try_from(row: PublicRow) -> Result<Self> {
        Ok(Self {
            name: row.name,
            categories: list(&row.categories)?,
            created_at: Timestamp::from_ms(row.created_at),
            version: CatalogVersion {
                entry_id: id(&row.entry_id, "entry id")?,
                version: row.version,
                document: row.document,
                status: row.status,
                status_message: row.status_message,
                latest: row.latest,
                published_at: row.published_at.map(Timestamp::from_ms),
                updated_at: Timestamp::from_ms(row.updated_at),
            },
        })
    }
}

fn entry_values(tenant: Value, entry: &CatalogEntry) -> [Value; 22] {
    [
        tenant,
        entry.id.to_string().into(),
        entry.source_id.to_string().into(),
        entry.name.clone().into(),
        entry.latest_version.clone().into(),
        entry.title.clone().into(),
        entry.description.clone().into(),
        json_list(&entry.categories).into(),
        entry.categories_set.into(),
        json_list(&entry.kinds).into(),
        entry.status.clone().into(),
        entry.status_message.clone().into(),
        entry.review.clone().into(),
        entry.review_reason.clone().into(),
        entry.submitted_by.clone().into(),
        entry.verified_by.clone().into(),
        entry.public.into(),
        entry.rating_sum.into(),
        entry.rating_count.into(),
        entry.seen_at.as_ms().into(),
        entry.created_at.as_ms().into(),
        entry.updated_at.as_ms().into(),
    ]
}

fn version_values(tenant: Value, version: &CatalogVersion) -> [Value; 9] {
    [
        tenant,
        version.entry_id.to_string().into(),
        version.version.clone().into(),
        version.document.clone().into(),
        version.status.clone().into(),
        version.status_message.clone().into(),
        version.latest.into(),
        version.published_at.map(Timestamp::as_ms).into(),
        version.updated_at.as_ms().into(),
    ]
}

/// `$first, $first+1, ...`.
fn placeholders(first: usize, count: usize) -> String {
    (first..first + count).map(|at| format!("${at}")).collect::<Vec<_>>().join(", ")
}

/// `($1, $2), ($3, $4), ...`.
fn tuples(width: usize, count: usize) -> String {
    (0..count).map(|row| format!("({})", placeholders(row * width + 1, width))).collect::<Vec<_>>().join(", ")
}

fn like_escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_")
}

fn json_list(items: &[String]) -> String {
    serde_json::Value::from(items).to_string()
}

fn list(text: &str) -> Result<Vec<String>> {
    serde_json::from_str(text).map_err(|source| StoreError::Corrupt {
        what: "a list in a catalog entry".to_owned(),
        source: Box::new(source),
    })
}

fn id<T: std::str::FromStr>(text: &str, what: &str) -> Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    text.parse().map_err(|source| StoreError::Corrupt { what: what.to_owned(), source: Box::new(source) })
}

fn count(rows: i64) -> u32 {
    u32::try_from(rows).unwrap_or(u32::MAX)
}
