//! Bringing documents from a source into the store: one page, one transaction, few statements.
//!
//! The rules of the registry: entries are known by (name, version); a version is immutable and only its
//! status changes; what a source marks deleted leaves the catalog, what it marks deprecated stays with its
//! message. What people here decided (categories, verified, public) is left alone.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;
use serde_json::value::RawValue;
use toolyard_store::{CatalogEntry, CatalogSource, CatalogVersion, CatalogVersionHead, OrgTx};
use toolyard_types::server_json::ServerJson;
use toolyard_types::{EntryId, Timestamp};

use super::entry::{Candidate, OFFICIAL_META, categories, good_categories, kinds, latest};
use super::validate::{MAX_DOCUMENT_BYTES, validate};
use crate::Result;

/// Where we put what we know of an entry beside its document, when we serve it.
pub(crate) const OUR_META: &str = "toolyard/catalog";
/// The longest status message kept (the registry allows 500).
const MAX_STATUS_MESSAGE: usize = 500;
/// The longest item of a list: a document with what its registry says of it.
const MAX_ITEM_BYTES: usize = 4 * MAX_DOCUMENT_BYTES;

/// A version as a source sent it.
#[derive(Clone, Debug)]
pub(crate) struct Incoming {
    pub(crate) server: ServerJson,
    pub(crate) status: String,
    pub(crate) status_message: Option<String>,
    pub(crate) published_at: Option<Timestamp>,
    pub(crate) is_latest: Option<bool>,
    pub(crate) categories: Vec<String>,
}

/// What a page did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Merged {
    pub(crate) changed: usize,
}

/// Reads one item of a source's list, unless it is too long to be one.
pub(crate) fn read_raw(item: &RawValue) -> Option<Incoming> {
    if item.get().len() > MAX_ITEM_BYTES {
        return None;
    }
    read_item(&serde_json::from_str(item.get()).ok()?)
}

/// Reads one item of a source's list: `{server, _meta}`, or a bare document as older registries and files
/// have it. `None` when it cannot be kept.
pub(crate) fn read_item(item: &Value) -> Option<Incoming> {
    let wrapped = item.get("server").filter(|server| server.is_object());
    let meta = item.get("_meta");
    let said = |names: [&str; 2]| {
        let official =
            meta.and_then(|meta| meta.get(OFFICIAL_META).or_else(|| meta.get("io.modelcontextprotocol.registry")));
        official.and_then(|official| names.iter().find_map(|name| official.get(*name)))
    };
    let (server, _) = validate(wrapped.unwrap_or(item));
    let server = server?;
    let text = |names| said(names).and_then(Value::as_str);
    let date = |names| text(names).and_then(|text| Timestamp::parse(text).ok());
    let status = text(["status", "status"]).or_else(|| server.extra.get("status").and_then(Value::as_str));
    let ours = meta.and_then(|meta| meta.get(OUR_META)?.get("categories")?.as_array());
    let named = ours.map(|items| items.iter().filter_map(Value::as_str).map(str::to_owned).collect());
    Some(Incoming {
        status: match status {
            Some("deprecated") => "deprecated",
            Some("deleted") => "deleted",
            _ => "active",
        }
        .to_owned(),
        status_message: text(["statusMessage", "status_message"]).map(bounded),
        published_at: date(["publishedAt", "published_at"]),
        is_latest: said(["isLatest", "is_latest"]).and_then(Value::as_bool),
        categories: named.map(good_categories).filter(|named| !named.is_empty()).unwrap_or_else(|| categories(&server)),
        server,
    })
}

fn bounded(text: &str) -> String {
    text.chars().filter(|c| !toolyard_types::name::is_hidden(*c)).take(MAX_STATUS_MESSAGE).collect()
}

/// How a page is merged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Also change documents of versions that exist: for lists whose versions are not immutable.
    pub(crate) replace_documents: bool,
    /// What `seen_at` the entries get.
    pub(crate) seen_at: Timestamp,
}

/// Writes a page of versions into the source's entries.
pub(crate) async fn merge(tx: &mut OrgTx, source: &CatalogSource, page: Vec<Incoming>, rules: Rules) -> Result<Merged> {
    let mut by_name: BTreeMap<String, Vec<Incoming>> = BTreeMap::new();
    for incoming in page {
        by_name.entry(incoming.server.name.clone()).or_default().push(incoming);
    }
    let names: Vec<&str> = by_name.keys().map(String::as_str).collect();
    let known: HashMap<String, CatalogEntry> =
        tx.catalog_entries_of(source.id, &names).await?.into_iter().map(|entry| (entry.name.clone(), entry)).collect();
    let ids: Vec<EntryId> = known.values().map(|entry| entry.id).collect();
    let mut heads: HashMap<EntryId, Vec<CatalogVersionHead>> = HashMap::new();
    for head in tx.catalog_version_heads(&ids).await? {
        heads.entry(head.entry_id).or_default().push(head);
    }
    let (mut entries, mut versions, mut unchanged, mut relabel) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (name, incoming) in by_name {
        let entry = known.get(&name);
        let heads = entry.and_then(|entry| heads.remove(&entry.id)).unwrap_or_default();
        let now = tx.now();
        let plan = plan(source, &name, entry, &heads, incoming, rules, now);
        match plan {
            Plan::Unchanged(id) => unchanged.push(id),
            Plan::Write { entry, document_of, versions: changed, moved } => {
                let mut entry = *entry;
                if let Some(version) = document_of {
                    describe_from_store(tx, &mut entry, &version).await?;
                }
                if moved {
                    relabel.push((entry.id, entry.latest_version.clone()));
                }
                versions.extend(changed);
                entries.push(entry);
            }
        }
    }
    tx.put_catalog_entries(&entries).await?;
    tx.put_catalog_versions(&versions, rules.replace_documents).await?;
    tx.set_latest_catalog_versions(&relabel).await?;
    tx.touch_catalog_entries(&unchanged, rules.seen_at).await?;
    Ok(Merged { changed: entries.len() })
}

enum Plan {
    Unchanged(EntryId),
    Write {
        entry: Box<CatalogEntry>,
        /// The version already in the store whose document the entry's texts must come from.
        document_of: Option<String>,
        versions: Vec<CatalogVersion>,
        /// Whether another version than before is the latest.
        moved: bool,
    },
}

/// Decides what one name's versions change; reads nothing.
fn plan(
    source: &CatalogSource,
    name: &str,
    known: Option<&CatalogEntry>,
    heads: &[CatalogVersionHead],
    incoming: Vec<Incoming>,
    rules: Rules,
    now: Timestamp,
) -> Plan {
    let id = known.map_or_else(EntryId::generate, |entry| entry.id);
    let mut candidates: BTreeMap<String, Candidate> =
        heads.iter().map(|head| (head.version.clone(), of_head(head))).collect();
    for item in &incoming {
        let was_latest = candidates.get(&item.server.version).is_some_and(|candidate| candidate.was_latest);
        let candidate = Candidate {
            version: item.server.version.clone(),
            deleted: item.status == "deleted",
            published_at: item.published_at,
            claim: item.is_latest,
            was_latest,
        };
        candidates.insert(candidate.version.clone(), candidate);
    }
    let candidates: Vec<Candidate> = candidates.into_values().collect();
    let Some(chosen) = latest(&candidates).map(|candidate| candidate.version.clone()) else {
        return Plan::Unchanged(id);
    };
    let moved = heads.iter().any(|head| head.latest != (head.version == chosen));
    let written: Vec<&Incoming> =
        incoming.iter().filter(|item| rules.replace_documents || differs(item, heads)).collect();
    if let Some(known) = known.filter(|_| written.is_empty() && !moved) {
        return Plan::Unchanged(known.id);
    }
    let versions = written.into_iter().map(|item| version_of(id, item, item.server.version == chosen, now)).collect();
    let mut entry = known.cloned().unwrap_or_else(|| blank(id, source, name, now));
    let of_chosen = incoming.iter().find(|item| item.server.version == chosen);
    let status_known = heads.iter().find(|head| head.version == chosen).map(|head| head.status.clone());
    entry.latest_version.clone_from(&chosen);
    entry.seen_at = rules.seen_at;
    entry.updated_at = now;
    match of_chosen {
        Some(item) => describe(&mut entry, item),
        None => entry.status = status_known.unwrap_or_else(|| "active".to_owned()),
    }
    let document_of = (of_chosen.is_none() && moved).then_some(chosen);
    Plan::Write { entry: Box::new(entry), document_of, versions, moved }
}

fn of_head(head: &CatalogVersionHead) -> Candidate {
    Candidate {
        version: head.version.clone(),
        deleted: head.status == "deleted",
        published_at: head.published_at,
        claim: None,
        was_latest: head.latest,
    }
}

/// Whether a version is new, or its status is not what we know. A message may change with the status alone.
fn differs(item: &Incoming, heads: &[CatalogVersionHead]) -> bool {
    let head = heads.iter().find(|head| head.version == item.server.version);
    head.is_none_or(|head| head.status != item.status)
}

fn version_of(entry_id: EntryId, item: &Incoming, latest: bool, now: Timestamp) -> CatalogVersion {
    CatalogVersion {
        entry_id,
        version: item.server.version.clone(),
        document: serde_json::to_string(&item.server).expect("a server.json is text, numbers and maps of them"),
        status: item.status.clone(),
        status_message: item.status_message.clone(),
        latest,
        published_at: item.published_at,
        updated_at: now,
    }
}

fn blank(id: EntryId, source: &CatalogSource, name: &str, now: Timestamp) -> CatalogEntry {
    CatalogEntry {
        id,
        source_id: source.id,
        name: name.to_owned(),
        latest_version: String::new(),
        title: None,
        description: String::new(),
        categories: Vec::new(),
        categories_set: false,
        kinds: Vec::new(),
        status: "active".to_owned(),
        status_message: None,
        review: "approved".to_owned(),
        review_reason: None,
        submitted_by: None,
        verified_by: None,
        public: false,
        rating_sum: 0,
        rating_count: 0,
        seen_at: now,
        created_at: now,
        updated_at: now,
    }
}

fn describe(entry: &mut CatalogEntry, item: &Incoming) {
    entry.status.clone_from(&item.status);
    entry.status_message.clone_from(&item.status_message);
    if !entry.categories_set {
        entry.categories.clone_from(&item.categories);
    }
    describe_from(entry, &item.server);
}

/// Takes the texts shown in lists from a document.
pub(crate) fn describe_from(entry: &mut CatalogEntry, server: &ServerJson) {
    entry.title = server.title.clone().filter(|title| !title.is_empty());
    entry.description.clone_from(&server.description);
    entry.kinds = kinds(server);
}

/// Takes the texts from a version that is in the store already, because the newer one was deleted.
async fn describe_from_store(tx: &OrgTx, entry: &mut CatalogEntry, version: &str) -> Result<()> {
    let Some(stored) = tx.catalog_version(entry.id, version).await? else { return Ok(()) };
    if let Ok(server) = serde_json::from_str::<ServerJson>(&stored.document) {
        describe_from(entry, &server);
    }
    entry.status = stored.status;
    entry.status_message = stored.status_message;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn items_of_every_age_of_the_registry_are_read() {
        let document = json!({"name": "a/b", "description": "x", "version": "1.0.0",
            "remotes": [{"type": "sse", "url": "https://mcp.example.com/sse"}]});
        let now = read_item(&json!({"server": document, "_meta": {OFFICIAL_META: {"status": "deprecated",
            "statusMessage": "use c", "publishedAt": "2026-01-02T03:04:05Z", "isLatest": true}}}))
        .expect("read");
        assert_eq!(
            (now.status.as_str(), now.status_message.as_deref(), now.is_latest),
            ("deprecated", Some("use c"), Some(true))
        );
        let older = read_item(&json!({"server": document, "_meta": {"io.modelcontextprotocol.registry":
            {"is_latest": false, "published_at": "2025-08-01T00:00:00Z"}}}))
        .expect("read");
        assert_eq!((older.status.as_str(), older.is_latest), ("active", Some(false)));
        let bare = read_item(&document).expect("read");
        assert!(bare.is_latest.is_none() && bare.published_at.is_none());
        assert!(read_item(&json!({"server": {"name": "bad name", "version": "1"}})).is_none());
        assert!(read_item(&json!(7)).is_none());
    }
}
