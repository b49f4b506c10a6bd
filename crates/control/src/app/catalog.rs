//! What can be done with the catalog: find, publish, review, rate, and choose where entries come from.
//!
//! An entry published here starts as `submitted` unless its publisher may review. A version that was approved
//! is immutable; a submitted or rejected one may be corrected under its number.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use toolyard_policy::Resource;
use toolyard_store::{CatalogEntry, CatalogSource, EventKind, OrgTx};
use toolyard_types::access::Action;
use toolyard_types::api::Page;
use toolyard_types::api::catalog::{
    Category, CreateSource, Entry, EntryQuery, EntrySummary, EntryVersionSummary, PublishEntry, Published, RateEntry,
    ReviewEntry, Source, UpdateEntry,
};
use toolyard_types::name::printable;
use toolyard_types::server_json::ServerJson;
use toolyard_types::{Code, EntryName, Name, SourceId};

use super::{allow, audit, flags};
use crate::auth::token::sha256_hex;
use crate::catalog::entry::{is_category, newest_first};
use crate::catalog::index::{Place, Query, Review, Sort};
use crate::catalog::merge::{Incoming, OUR_META, Rules, merge};
use crate::catalog::{best, index, no_entry, no_version, sync, validate};
use crate::{Caller, Control, ControlError, Result};

/// Searches at once, of which each principal has one, and how long others wait for their turn.
pub(crate) const SEARCHES: usize = 2;
pub(crate) const SEARCH_PATIENCE: Duration = Duration::from_secs(5);
const PAGE: u32 = 50;
const LARGEST_PAGE: u32 = 500;
const LONGEST_SEARCH: usize = 200;
const LONGEST_REASON: usize = 500;
const LONGEST_README: usize = 64 * 1024;
const MAX_SOURCES: usize = 50;

/// Finds entries.
///
/// # Errors
/// `validation_failed` for a query that makes no sense.
pub(crate) async fn list_entries(control: &Control, caller: &Caller, query: EntryQuery) -> Result<Page<EntrySummary>> {
    let limit = match query.limit {
        None => PAGE,
        Some(limit) if (1..=LARGEST_PAGE).contains(&limit) => limit,
        Some(_) => return Err(ControlError::field("limit", format!("must be 1 to {LARGEST_PAGE}"))),
    };
    let after = query.cursor.as_deref().map(read_cursor).transpose()?;
    let wanted = checked(query)?;
    let index = index(control, caller.organization).await?;
    // All of them only for their order: with many servers counting takes longer than the search.
    let deployments: HashMap<String, u32> = match wanted.sort {
        Sort::Deployments => {
            let tx = control.store().org_read(caller.organization).await?;
            tx.count_catalog_deployments().await?.into_iter().collect()
        }
        _ => HashMap::new(),
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let sort = wanted.sort;
    // A search that finds everything takes a processor for a while: not all of them, and no connection meanwhile.
    let search = move || {
        let page = index.search(&wanted, &deployments, after.as_ref(), limit.saturating_add(1));
        (page, deployments)
    };
    let turns = control.search_turns();
    let (mut page, mut deployments) = turns.run(caller, "searching the catalog", search).await?;
    let tx = control.store().org_read(caller.organization).await?;
    let more = page.len() > limit;
    page.truncate(limit);
    let next_cursor = page.last().filter(|_| more).map(|(place, _)| write_cursor(place));
    let ids: Vec<_> = page.iter().map(|(_, id)| *id).collect();
    let mut rows: HashMap<_, _> = tx.catalog_entries_by_id(&ids).await?.into_iter().map(|row| (row.id, row)).collect();
    if sort != Sort::Deployments {
        let names: Vec<_> = rows.values().map(|row| row.name.as_str()).collect();
        deployments = tx.count_catalog_deployments_of(&names).await?.into_iter().collect();
    }
    let sources = tx.catalog_sources().await?;
    // An entry removed since the index was built is left out.
    let rows = ids.iter().filter_map(|id| rows.remove(id));
    let items = rows.map(|row| summary(&sources, &deployments, row)).collect::<Result<_>>()?;
    Ok(Page { items, next_cursor })
}

fn checked(query: EntryQuery) -> Result<Query> {
    let search = query.search.filter(|search| !search.trim().is_empty());
    if search.as_ref().is_some_and(|search| search.chars().count() > LONGEST_SEARCH) {
        return Err(ControlError::field("search", format!("must have at most {LONGEST_SEARCH} characters")));
    }
    let sort = match query.sort.as_deref() {
        None if search.is_some() => Sort::Relevance,
        None | Some("name") => Sort::Name,
        Some("relevance") => Sort::Relevance,
        Some("updated") => Sort::Updated,
        Some("deployments") => Sort::Deployments,
        Some("rating") => Sort::Rating,
        Some(_) => {
            return Err(ControlError::field("sort", "must be relevance, name, updated, deployments or rating"));
        }
    };
    let review = match query.review.as_deref() {
        None => Review::Approved,
        Some(text) => Review::parse(text)
            .ok_or_else(|| ControlError::field("review", "must be submitted, approved or rejected"))?,
    };
    Ok(Query {
        search,
        category: query.category,
        kind: query.kind,
        source: query.source,
        verified: query.verified,
        review,
        sort,
    })
}

fn write_cursor(place: &Place) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(place).expect("a place is a number and texts"))
}

fn read_cursor(text: &str) -> Result<Place> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok();
    let place = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    place.ok_or_else(|| ControlError::field("cursor", "must be a `next_cursor` of this list"))
}

/// One entry in full: the latest version, or the one named.
///
/// # Errors
/// `not_found`.
pub(crate) async fn get_entry(
    control: &Control,
    caller: &Caller,
    name: &EntryName,
    version: Option<&str>,
) -> Result<Entry> {
    let tx = control.store().org_read(caller.organization).await?;
    let sources = tx.catalog_sources().await?;
    let entry = shown(&tx, &sources, name).await?;
    full(&tx, caller, &sources, entry, version).await
}

async fn shown(tx: &OrgTx, sources: &[CatalogSource], name: &EntryName) -> Result<CatalogEntry> {
    best(sources, tx.catalog_entries_named(name.as_str()).await?).ok_or_else(|| no_entry(name))
}

async fn full(
    tx: &OrgTx,
    caller: &Caller,
    sources: &[CatalogSource],
    entry: CatalogEntry,
    version: Option<&str>,
) -> Result<Entry> {
    let deployments = tx.count_catalog_deployments_of(&[&entry.name]).await?.into_iter().collect();
    let name = EntryName::new(entry.name.clone())?;
    let version = version.unwrap_or(&entry.latest_version);
    let stored = tx.catalog_version(entry.id, version).await?.filter(|stored| stored.status != "deleted");
    let stored = stored.ok_or_else(|| no_version(&name, version))?;
    let server: ServerJson =
        serde_json::from_str(&stored.document).map_err(ControlError::internal("reading a stored server.json"))?;
    let own_rating = tx.catalog_rating(entry.id, &caller.actor.to_string()).await?;
    let (review, review_reason, public) = (entry.review.clone(), entry.review_reason.clone(), entry.public);
    let mut summary = summary(sources, &deployments, entry)?;
    if !stored.latest {
        summary.version = stored.version;
        summary.status = stored.status;
        summary.status_message = stored.status_message;
    }
    let digest = digest(&stored.document);
    Ok(Entry { summary, server, digest, review, review_reason, public, own_rating })
}

/// What a version is known by: its document names it, and holds everything that is run.
fn digest(document: &str) -> String {
    format!("sha256:{}", sha256_hex(document))
}

fn summary(sources: &[CatalogSource], deployments: &HashMap<String, u32>, entry: CatalogEntry) -> Result<EntrySummary> {
    let source = sources.iter().find(|source| source.id == entry.source_id);
    let rating = (entry.rating_count > 0).then(|| f64::from(entry.rating_sum) / f64::from(entry.rating_count));
    Ok(EntrySummary {
        deployments: deployments.get(&entry.name).copied().unwrap_or(0),
        name: EntryName::new(entry.name)?,
        title: entry.title,
        description: entry.description,
        version: entry.latest_version,
        source: source.map(|source| source.name.to_string()).unwrap_or_default(),
        status: entry.status,
        status_message: entry.status_message,
        categories: entry.categories,
        kinds: entry.kinds,
        verified_by: entry.verified_by,
        rating,
        ratings: u32::try_from(entry.rating_count).unwrap_or(0),
        updated_at: entry.updated_at,
    })
}

/// Every version of an entry, newest first.
///
/// # Errors
/// `not_found`.
pub(crate) async fn list_versions(
    control: &Control,
    caller: &Caller,
    name: &EntryName,
) -> Result<Page<EntryVersionSummary>> {
    let tx = control.store().org_read(caller.organization).await?;
    let entry = shown(&tx, &tx.catalog_sources().await?, name).await?;
    let heads = tx.catalog_version_heads(&[entry.id]).await?;
    let mut order: Vec<_> = heads.iter().map(|head| (head.version.clone(), head.published_at)).collect();
    newest_first(&mut order);
    let of = |version: &str| heads.iter().find(|head| head.version == version);
    let items = order.iter().filter_map(|(version, _)| of(version)).map(|head| EntryVersionSummary {
        version: head.version.clone(),
        latest: head.latest,
        status: head.status.clone(),
        published_at: head.published_at,
    });
    Ok(Page::whole(items.collect()))
}

/// The categories of approved entries, with how many entries have each.
///
/// # Errors
/// When the store fails.
pub(crate) async fn list_categories(control: &Control, caller: &Caller) -> Result<Page<Category>> {
    Ok(Page::whole(index(control, caller.organization).await?.categories()))
}

/// Publishes an entry of one's own, or submits it for review; with `dry_run` only checks it.
///
/// # Errors
/// `entry_invalid` with the errors found; `already_exists` when that version was approved with other content.
pub(crate) async fn publish(control: &Control, caller: &Caller, request: PublishEntry) -> Result<Published> {
    let categories = checked_categories(request.categories)?;
    let (server, validation) = validate::validate(&request.server);
    if request.dry_run {
        return Ok(Published { entry: None, validation });
    }
    let server = server.filter(|_| validation.errors.is_empty());
    let Some(mut server) = server else { return Err(ControlError::EntryInvalid(validation.errors)) };
    if let Some(readme) = request.readme.filter(|readme| !readme.trim().is_empty()) {
        describe(&mut server, readme)?;
    }
    let reviews = allow(control, caller, Action::CatalogReview, &Resource::Organization).is_ok();
    if !reviews {
        flags::require(control, caller, "catalog_submissions")?;
    }
    if request.public && !reviews {
        return Err(ControlError::forbidden("only a reviewer may make an entry public"));
    }
    let name = EntryName::new(server.name.clone())?;
    let version = server.version.clone();
    let mut tx = control.store().org(caller.organization).await?;
    let sources = tx.catalog_sources().await?;
    let own = own_source(&sources)?;
    // Nobody reviews meanwhile.
    tx.lock_catalog_entries(own.id, name.as_str()).await?;
    let known = tx.catalog_entries_of(own.id, &[name.as_str()]).await?.into_iter().next();
    if let Some(known) = &known {
        refuse_overwriting(&tx, known, &server, reviews).await?;
        if reviews && known.review != "approved" {
            // What was submitted before was seen by nobody, and must not come in beside this version.
            tx.keep_catalog_version(known.id, &version).await?;
        }
    }
    let now = tx.now();
    let incoming = Incoming {
        categories: if categories.is_empty() { crate::catalog::entry::categories(&server) } else { categories.clone() },
        server,
        status: "active".to_owned(),
        status_message: None,
        published_at: Some(now),
        is_latest: None,
    };
    merge(&mut tx, own, vec![incoming], Rules { replace_documents: true, seen_at: now }).await?;
    let mut entry =
        tx.catalog_entries_of(own.id, &[name.as_str()]).await?.into_iter().next().ok_or_else(|| no_entry(&name))?;
    entry.review = if reviews { "approved" } else { "submitted" }.to_owned();
    entry.review_reason = None;
    entry.submitted_by = Some(caller.actor.to_string());
    entry.public = request.public;
    if !categories.is_empty() {
        entry.categories = categories;
        entry.categories_set = true;
    }
    tx.put_catalog_entries(std::slice::from_ref(&entry)).await?;
    let action = if reviews { "catalog.publish" } else { "catalog.submit" };
    finish(control, caller, tx, action, &name, json!({ "version": version, "public": request.public })).await?;
    let entry = get_entry(control, caller, &name, None).await?;
    Ok(Published { entry: Some(entry), validation })
}

/// Puts a README into a document, beside what its publisher says there.
fn describe(server: &mut ServerJson, readme: String) -> Result<()> {
    if readme.len() > LONGEST_README {
        return Err(ControlError::field("readme", format!("must have at most {LONGEST_README} bytes")));
    }
    if readme.contains('\0') {
        return Err(ControlError::field("readme", "must not hold a NUL character"));
    }
    let ours = server.meta.get_or_insert_default().entry(OUR_META).or_insert_with(|| json!({}));
    match ours.as_object_mut() {
        Some(ours) => drop(ours.insert("readme".to_owned(), readme.into())),
        None => *ours = json!({ "readme": readme }),
    }
    Ok(())
}

/// An approved version is immutable, and an approved entry's next version is a reviewer's to publish: it
/// would take the approved one's place.
async fn refuse_overwriting(tx: &OrgTx, known: &CatalogEntry, server: &ServerJson, reviews: bool) -> Result<()> {
    if known.review != "approved" {
        return Ok(());
    }
    if !reviews {
        let detail = format!("`{}` is approved; a reviewer publishes its next version", known.name);
        return Err(ControlError::Conflict(detail));
    }
    let Some(stored) = tx.catalog_version(known.id, &server.version).await? else { return Ok(()) };
    let same = serde_json::from_str::<ServerJson>(&stored.document).is_ok_and(|stored| stored == *server);
    if same {
        return Ok(());
    }
    let version = printable(&server.version);
    Err(ControlError::AlreadyExists(format!("version `{version}` of `{}`, with other content,", known.name)))
}

fn checked_categories(categories: Vec<String>) -> Result<Vec<String>> {
    if let Some(bad) = categories.iter().find(|category| !is_category(category.trim())) {
        let message = format!("`{}` must have 1 to 40 characters, none of them hidden", printable(bad));
        return Err(ControlError::field("categories", message));
    }
    if categories.len() > 10 {
        return Err(ControlError::field("categories", "at most 10 categories"));
    }
    Ok(crate::catalog::entry::good_categories(categories))
}

fn own_source(sources: &[CatalogSource]) -> Result<&CatalogSource> {
    let own = sources.iter().find(|source| source.kind == "own");
    own.ok_or_else(|| ControlError::internal("finding our own catalog source")("it is made at start"))
}

/// Approves or rejects a submitted entry.
///
/// # Errors
/// `conflict` when it is not waiting for a review; `validation_failed` for a rejection without a reason;
/// `precondition_required` for an approval that does not say of what, `precondition_failed` when that changed.
pub(crate) async fn review(
    control: &Control,
    caller: &Caller,
    name: &EntryName,
    request: ReviewEntry,
    if_match: Option<&str>,
) -> Result<Entry> {
    let reason = request.reason.map(|reason| reason.trim().to_owned()).filter(|reason| !reason.is_empty());
    if !request.approve && reason.is_none() {
        return Err(ControlError::field("reason", "say why it is rejected"));
    }
    if reason.as_ref().is_some_and(|reason| reason.chars().count() > LONGEST_REASON) {
        return Err(ControlError::field("reason", format!("must have at most {LONGEST_REASON} characters")));
    }
    let mut tx = control.store().org(caller.organization).await?;
    let sources = tx.catalog_sources().await?;
    let own = own_source(&sources)?.id;
    // Nobody submits another document meanwhile.
    tx.lock_catalog_entries(own, name.as_str()).await?;
    let mut entry = own_entry(&tx, own, name).await?;
    let approved = entry.review == "approved";
    if approved && request.approve {
        return Err(ControlError::Conflict(format!("`{name}` is approved already")));
    }
    let version = entry.latest_version.clone();
    let stored = tx.catalog_version(entry.id, &version).await?.ok_or_else(|| no_version(name, &version))?;
    let digest = digest(&stored.document);
    check_seen(if_match, &digest, request.approve)?;
    if request.approve {
        // Versions that were submitted before this one come in no more than other documents.
        tx.keep_catalog_version(entry.id, &version).await?;
    }
    entry.review = if request.approve { "approved" } else { "rejected" }.to_owned();
    entry.review_reason = reason.filter(|_| !request.approve);
    entry.public &= request.approve;
    entry.updated_at = tx.now();
    tx.put_catalog_entries(std::slice::from_ref(&entry)).await?;
    let action = if request.approve { "catalog.approve" } else { "catalog.reject" };
    let detail = json!({ "version": version, "digest": digest, "reason": entry.review_reason });
    let id = entry.id;
    finish(control, caller, tx, action, name, detail).await?;
    let tx = control.store().org_read(caller.organization).await?;
    let entry = tx.catalog_entries_by_id(&[id]).await?.into_iter().next().ok_or_else(|| no_entry(name))?;
    full(&tx, caller, &sources, entry, None).await
}

/// Refuses to decide about another document than the one that was read.
fn check_seen(if_match: Option<&str>, digest: &str, approve: bool) -> Result<()> {
    match if_match.map(|tag| tag.trim().trim_matches('"')) {
        Some(seen) if seen == digest => Ok(()),
        Some(_) => Err(ControlError::problem(
            Code::PreconditionFailed,
            format!("another document was submitted since; its digest is `{digest}`"),
        )),
        None if !approve => Ok(()),
        None => Err(ControlError::problem(
            Code::PreconditionRequired,
            "an approval needs `If-Match` with the `digest` of the document that was read",
        )),
    }
}

async fn own_entry(tx: &OrgTx, own: SourceId, name: &EntryName) -> Result<CatalogEntry> {
    let found = tx.catalog_entries_of(own, &[name.as_str()]).await?.into_iter().next();
    if let Some(entry) = found.filter(|entry| entry.status != "deleted") {
        return Ok(entry);
    }
    if tx.catalog_entries_named(name.as_str()).await?.is_empty() {
        return Err(no_entry(name));
    }
    Err(ControlError::Conflict(format!("`{name}` was not published here; its source decides about it")))
}

/// Changes what we say about an entry.
///
/// # Errors
/// `not_found`; `conflict` for making public what is not approved.
pub(crate) async fn update(
    control: &Control,
    caller: &Caller,
    name: &EntryName,
    request: UpdateEntry,
) -> Result<Entry> {
    let categories = request.categories.map(checked_categories).transpose()?;
    let mut tx = control.store().org(caller.organization).await?;
    let sources = tx.catalog_sources().await?;
    let mut entry = shown(&tx, &sources, name).await?;
    if let Some(verified) = request.verified {
        entry.verified_by = verified.then(|| caller.display.clone());
    }
    if let Some(public) = request.public {
        if public && entry.review != "approved" {
            return Err(ControlError::Conflict(format!("`{name}` must be approved before it is public")));
        }
        entry.public = public;
    }
    if let Some(categories) = categories {
        entry.categories_set = true;
        entry.categories = categories;
    }
    entry.updated_at = tx.now();
    tx.put_catalog_entries(std::slice::from_ref(&entry)).await?;
    if request.public == Some(true) {
        tx.touch_catalog_versions(entry.id).await?;
    }
    let detail = json!({ "verified": request.verified, "public": request.public, "categories": entry.categories });
    finish(control, caller, tx, "catalog.update", name, detail).await?;
    get_entry(control, caller, name, None).await
}

/// Rates an entry; rating again replaces the caller's rating.
///
/// # Errors
/// `not_found`; `validation_failed` for a rating that is not 1 to 5.
pub(crate) async fn rate(control: &Control, caller: &Caller, name: &EntryName, request: RateEntry) -> Result<Entry> {
    flags::require(control, caller, "catalog_ratings")?;
    if !(1..=5).contains(&request.rating) {
        return Err(ControlError::field("rating", "must be 1 to 5"));
    }
    let mut tx = control.store().org(caller.organization).await?;
    let entry = shown(&tx, &tx.catalog_sources().await?, name).await?;
    if entry.review != "approved" {
        return Err(ControlError::Conflict(format!("`{name}` is not approved")));
    }
    tx.rate_catalog_entry(entry.id, &caller.actor.to_string(), request.rating).await?;
    finish(control, caller, tx, "catalog.rate", name, json!({ "rating": request.rating })).await?;
    get_entry(control, caller, name, None).await
}

/// Withdraws an entry that was published here. Servers deployed from it run on.
///
/// # Errors
/// `not_found`; `conflict` when it came from another source.
pub(crate) async fn delete(control: &Control, caller: &Caller, name: &EntryName) -> Result<()> {
    let mut tx = control.store().org(caller.organization).await?;
    let own = own_source(&tx.catalog_sources().await?)?.id;
    let entry = own_entry(&tx, own, name).await?;
    tx.delete_catalog_entry(entry.id).await?;
    finish(control, caller, tx, "catalog.withdraw", name, json!({ "version": entry.latest_version })).await
}

/// Writes the audit line and the event, commits, and makes the change visible to the next search.
async fn finish(
    control: &Control,
    caller: &Caller,
    mut tx: OrgTx,
    action: &str,
    name: &EntryName,
    detail: serde_json::Value,
) -> Result<()> {
    let subject = format!("catalog_entry/{name}");
    audit(&mut tx, caller, action, subject.clone(), detail).await?;
    tx.event(EventKind::CatalogChanged, subject, json!({ "action": action }));
    tx.commit().await?;
    control.catalog().changed_here(caller.organization);
    Ok(())
}

/// Every source.
///
/// # Errors
/// When the store fails.
pub(crate) async fn list_sources(control: &Control, caller: &Caller) -> Result<Page<Source>> {
    let tx = control.store().org_read(caller.organization).await?;
    // Sources first: a sync that ends between the two reads must not show as done with too few entries.
    let sources = tx.catalog_sources().await?;
    let counts: HashMap<SourceId, u32> = tx.count_catalog_entries().await?.into_iter().collect();
    Ok(Page::whole(sources.into_iter().map(|source| source_shown(&counts, source)).collect()))
}

fn source_shown(counts: &HashMap<SourceId, u32>, source: CatalogSource) -> Source {
    Source {
        id: source.id,
        name: source.name,
        kind: source.kind,
        url: source.url,
        enabled: source.enabled,
        entries: counts.get(&source.id).copied().unwrap_or(0),
        sync_state: source.sync_state,
        sync_message: source.sync_message,
        synced_at: source.synced_at,
        next_sync_at: source.next_sync_at,
    }
}

/// Adds a source; its first sync begins at once.
///
/// # Errors
/// `validation_failed` for an address that sources may not use; `already_exists`.
pub(crate) async fn create_source(control: &Control, caller: &Caller, request: CreateSource) -> Result<Source> {
    if !matches!(request.kind.as_str(), "registry" | "file") {
        return Err(ControlError::field("kind", "must be registry or file"));
    }
    let url = control.options().source_client.parse(&request.url);
    let url = url.map_err(|error| ControlError::field("url", error.to_string()))?;
    let mut tx = control.store().org(caller.organization).await?;
    let sources = tx.catalog_sources().await?;
    if sources.iter().any(|source| source.name == request.name) {
        return Err(ControlError::AlreadyExists(format!("catalog source `{}`", request.name)));
    }
    if sources.len() >= MAX_SOURCES {
        return Err(ControlError::Conflict(format!("an organization has at most {MAX_SOURCES} catalog sources")));
    }
    let now = tx.now();
    let source = CatalogSource {
        id: SourceId::generate(),
        name: request.name,
        kind: request.kind,
        url: Some(url.to_string()),
        enabled: true,
        sync_state: "never".to_owned(),
        sync_message: String::new(),
        position: "{}".to_owned(),
        synced_at: None,
        next_sync_at: Some(now),
        created_at: now,
    };
    tx.insert_catalog_source(&source).await?;
    let detail = json!({ "kind": source.kind, "url": source.url });
    finish_source(control, caller, tx, "catalog_source.create", &source.name, detail).await?;
    control.catalog().wake.notify_one();
    Ok(source_shown(&HashMap::new(), source))
}

/// Removes a source with its entries.
///
/// # Errors
/// `not_found`; `conflict` for the sources every organization has.
pub(crate) async fn delete_source(control: &Control, caller: &Caller, name: &Name) -> Result<()> {
    if matches!(name.as_str(), sync::BUILT_IN | sync::OWN | sync::OFFICIAL) {
        return Err(ControlError::Conflict(format!("source `{name}` belongs to every organization")));
    }
    let mut tx = control.store().org(caller.organization).await?;
    let source = tx.catalog_source(name).await?.ok_or_else(|| no_source(name))?;
    tx.delete_catalog_source(source.id).await?;
    let detail = json!({ "url": source.url });
    finish_source(control, caller, tx, "catalog_source.delete", name, detail).await
}

/// Has a source synced now.
///
/// # Errors
/// `not_found`; `conflict` for a source that is not synced or is switched off.
pub(crate) async fn sync_source(control: &Control, caller: &Caller, name: &Name) -> Result<Source> {
    let mut tx = control.store().org(caller.organization).await?;
    let mut source = tx.catalog_source(name).await?.ok_or_else(|| no_source(name))?;
    if !matches!(source.kind.as_str(), "registry" | "file") {
        return Err(ControlError::Conflict(format!("source `{name}` is not synced from anywhere")));
    }
    if !source.enabled {
        let detail = format!("source `{name}` is switched off by the settings (`registry_sync`)");
        return Err(ControlError::Conflict(detail));
    }
    // While a sync runs, its lease is left alone: asking twice must not start two.
    if source.sync_state != "running" {
        source.next_sync_at = Some(tx.now());
        tx.update_catalog_source(&source).await?;
    }
    let counts = tx.count_catalog_entries().await?.into_iter().collect();
    finish_source(control, caller, tx, "catalog_source.sync", name, json!({})).await?;
    control.catalog().wake.notify_one();
    Ok(source_shown(&counts, source))
}

async fn finish_source(
    control: &Control,
    caller: &Caller,
    mut tx: OrgTx,
    action: &str,
    name: &Name,
    detail: serde_json::Value,
) -> Result<()> {
    let subject = format!("catalog_source/{name}");
    audit(&mut tx, caller, action, subject.clone(), detail).await?;
    tx.event(EventKind::CatalogChanged, subject, json!({ "action": action }));
    tx.commit().await?;
    control.catalog().changed_here(caller.organization);
    Ok(())
}

fn no_source(name: &Name) -> ControlError {
    ControlError::NotFound(format!("catalog source `{name}`"))
}
