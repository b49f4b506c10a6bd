//! The loop that keeps sources in step: the built-in list with this program, registries and files with the
//! world.
//!
//! A registry is read in passes. A full pass walks every page by cursor, and what it did not see afterwards
//! is gone; it runs at first and once a day. Between them an incremental pass asks for what changed since the
//! last start, minus an overlap for clocks that differ; a registry that offers an `ETag` is asked whether
//! anything changed at all. The position is written with each page in the same transaction, so a restart or a
//! failure goes on where it stopped. A round reads a bounded number of pages and comes back for the rest.
//!
//! Replicas share the work by a lease: whoever moves `next_sync_at` forward has the source until then.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;
use toolyard_store::{CatalogSource, DueSource, EventKind, OrgTx, StoreError};
use toolyard_types::{Name, OrganizationId, SourceId, Timestamp};

use super::curated;
use super::fetch::{Answer, FetchError, Fetched, List, Validators};
use super::merge::{Incoming, Rules, merge, read_item, read_raw};
use crate::limits::in_turn;
use crate::{Control, ControlError, Result};

/// The sources every organization has.
pub(crate) const BUILT_IN: &str = "built-in";
pub(crate) const OWN: &str = "own";
pub(crate) const OFFICIAL: &str = "official";
const OFFICIAL_URL: &str = "https://registry.modelcontextprotocol.io";

const PAGE: usize = 100;
const PAGES_PER_ROUND: usize = 50;
/// After this long another source has its turn; the page that is being read then may take [`FETCH_TIMEOUT`] more.
const ROUND_TIME: Duration = Duration::from_secs(20);
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_PAGE_BYTES: usize = 8 << 20;
const MAX_FILE_BYTES: usize = 32 << 20;
/// What one pass may take, whatever a registry sends: it may go round in circles, or never end.
const MAX_PAGES: u32 = 2_000;
const MAX_PASS_BYTES: u64 = 512 << 20;
const MAX_PASS_TIME: Duration = Duration::from_secs(3600);
/// What one source may have stored.
const MAX_VERSIONS: u64 = 200_000;
const MAX_STORED_BYTES: u64 = 1 << 30;
/// How long what a source deleted is kept where others sync it from here.
const TOMBSTONES_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long a replica has a source for itself between two pages.
const LEASE: Duration = Duration::from_secs(120);
const PERIOD: Duration = Duration::from_secs(3600);
const FULL_PERIOD: Duration = Duration::from_secs(24 * 3600);
const OVERLAP: Duration = Duration::from_secs(600);
/// So many changed entries are news for the database's planner.
const MANY: usize = 500;
const FIRST_RETRY: Duration = Duration::from_secs(15);
/// How many sources are synced at once...
const SYNCS: usize = 8;
/// ...and how many of one organization.
const SYNCS_OF_ORGANIZATION: usize = 4;
/// How many of those may be sources whose last sync failed. They may hang, and the others do not wait for them.
const RETRIES: usize = 4;
const RETRIES_OF_ORGANIZATION: usize = 2;
/// How many are looked at for the places that are free.
const SOURCES_LISTED: usize = 200;
/// The longest sleep of the loop: sources of other replicas come due without a wake.
const NAP: Duration = Duration::from_secs(30);
/// What was started a moment ago may not have its lease yet.
const SHORTEST_REST: Duration = Duration::from_millis(100);

/// Where a source's sync stands, as kept on its row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Position {
    /// Of the built-in list as it was stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    /// From when on an incremental pass asks for changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_full_at: Option<Timestamp>,
    validators: Validators,
    /// The pass under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pass: Option<Pass>,
    failures: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Pass {
    full: bool,
    started_at: Timestamp,
    cursor: Option<String>,
    pages: u32,
    seen: usize,
    changed: usize,
    skipped: usize,
    /// What was read and how long it took, without the pauses between rounds.
    #[serde(default)]
    bytes: u64,
    #[serde(default)]
    time_ms: u64,
}

impl Pass {
    /// What it has taken more of than any pass may.
    fn too_much(&self) -> Option<FetchError> {
        if self.pages >= MAX_PAGES {
            return Some(FetchError::TooMuch("2,000 pages"));
        }
        if self.bytes > MAX_PASS_BYTES {
            return Some(FetchError::TooMuch("512 MiB"));
        }
        (u128::from(self.time_ms) > MAX_PASS_TIME.as_millis()).then_some(FetchError::TooMuch("an hour"))
    }
}

/// Makes the sources every organization has, and brings the built-in list up to date.
///
/// # Errors
/// When the store fails.
pub(crate) async fn prepare(control: &Control) -> Result<()> {
    let tx = control.store().system_read("find organizations that need their catalog sources").await?;
    let organizations = tx.catalog_organizations().await?;
    drop(tx);
    for organization in organizations {
        prepare_organization(control, organization).await?;
    }
    Ok(())
}

async fn prepare_organization(control: &Control, organization: OrganizationId) -> Result<()> {
    let digest = curated::digest();
    let tx = control.store().org_read(organization).await?;
    let sources = tx.catalog_sources().await?;
    drop(tx);
    let built_in = sources.iter().find(|source| source.name.as_str() == BUILT_IN);
    let current = built_in.is_some_and(|source| position(source).digest.as_deref() == Some(&digest));
    let follows = |source: &CatalogSource| source.enabled == control.options().registry_sync;
    let official = sources.iter().find(|source| source.name.as_str() == OFFICIAL);
    if current && has(&sources, OWN) && official.is_some_and(follows) {
        return Ok(());
    }
    let mut tx = control.store().org(organization).await?;
    let sources = tx.catalog_sources().await?;
    for (name, kind) in [(BUILT_IN, "built_in"), (OWN, "own"), (OFFICIAL, "registry")] {
        if !has(&sources, name) {
            tx.insert_catalog_source(&default_source(control, name, kind)).await?;
        }
    }
    let official = sources.into_iter().find(|source| source.name.as_str() == OFFICIAL);
    if let Some(mut source) = official.filter(|source| !follows(source)) {
        // The setting changed since the last start.
        source.enabled = control.options().registry_sync;
        source.next_sync_at = source.enabled.then(|| tx.now());
        tx.update_catalog_source(&source).await?;
    }
    let built_in = tx.catalog_sources().await?.into_iter().find(|source| source.name.as_str() == BUILT_IN);
    if let Some(mut source) = built_in
        && position(&source).digest.as_deref() != Some(&digest)
    {
        store_curated(&mut tx, &mut source, digest).await?;
    }
    tx.commit().await?;
    control.catalog().changed_here(organization);
    Ok(())
}

fn has(sources: &[CatalogSource], name: &str) -> bool {
    sources.iter().any(|source| source.name.as_str() == name)
}

fn default_source(control: &Control, name: &str, kind: &str) -> CatalogSource {
    let now = control.clock().now();
    let registry = kind == "registry";
    let url = control.options().registry_url.clone().unwrap_or_else(|| OFFICIAL_URL.to_owned());
    CatalogSource {
        id: SourceId::generate(),
        name: Name::new(name).expect("a name of ours"),
        kind: kind.to_owned(),
        url: registry.then_some(url),
        // Quiet by default: an air-gapped install must not try to reach anybody.
        enabled: !registry || control.options().registry_sync,
        sync_state: "never".to_owned(),
        sync_message: String::new(),
        position: "{}".to_owned(),
        synced_at: None,
        next_sync_at: (registry && control.options().registry_sync).then_some(now),
        created_at: now,
    }
}

async fn store_curated(tx: &mut OrgTx, source: &mut CatalogSource, digest: String) -> Result<()> {
    let now = tx.now();
    let page: Vec<Incoming> = curated::documents().iter().filter_map(read_item).collect();
    let count = page.len();
    merge(tx, source, page, Rules { replace_documents: true, seen_at: now }).await?;
    tx.delete_unseen_catalog_entries(source.id, now).await?;
    source.position = write(&Position { digest: Some(digest), ..Position::default() });
    source.sync_state = "done".to_owned();
    source.sync_message = format!("{count} entries that come with Toolyard");
    source.synced_at = Some(now);
    tx.update_catalog_source(source).await?;
    tx.event(EventKind::CatalogChanged, format!("catalog_source/{}", source.name), json!({ "changed": count }));
    Ok(())
}

/// Brings every source that is due in step, until everything ends. Sources are synced beside each other: a slow one
/// holds up itself.
pub(crate) async fn run(control: Control) {
    let mut syncs = Syncs::default();
    loop {
        let rest = match syncs.start_due(&control).await {
            Ok(rest) => rest,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "syncing the catalog is put off");
                NAP
            }
        };
        tokio::select! {
            () = control.stopping().cancelled() => break,
            () = control.catalog().wake.notified() => {}
            () = syncs.one_ended() => {}
            () = tokio::time::sleep(rest) => {}
        }
    }
    // Each ends by itself: what it writes is whole.
    while !syncs.tasks.is_empty() {
        syncs.one_ended().await;
    }
}

/// The syncs under way in this process.
#[derive(Default)]
struct Syncs {
    tasks: JoinSet<((OrganizationId, Name), Result<()>)>,
    /// Which they are of, and whether the last sync of that failed.
    sources: HashMap<(OrganizationId, Name), bool>,
}

impl Syncs {
    /// Starts what is due and has a place; returns how long nothing is due.
    async fn start_due(&mut self, control: &Control) -> Result<Duration> {
        prepare(control).await?;
        let now = control.clock().now();
        let tx = control.store().system_read("find catalog sources of every organization that are due").await?;
        // A source that is under way is leased, and so not due.
        let due = tx.due_catalog_sources(now, amount(SYNCS_OF_ORGANIZATION), amount(SOURCES_LISTED)).await?;
        drop(tx);
        let mut waits = false;
        let holders = self.sources.keys().map(|(organization, _)| *organization);
        for due in in_turn(due, |due| due.organization, holders) {
            if !self.has_place(&due) {
                waits = true;
                continue;
            }
            let source = (due.organization, due.name);
            self.sources.insert(source.clone(), due.failed);
            let control = control.clone();
            self.tasks.spawn(async move {
                let done = AssertUnwindSafe(sync_source(&control, source.0, &source.1)).catch_unwind().await;
                // The panic's own message is in the log already.
                let panicked = |_| Err(ControlError::internal("syncing a catalog source")("it panicked"));
                (source, done.unwrap_or_else(panicked))
            });
        }
        if waits {
            // Whoever ends makes place.
            return Ok(NAP);
        }
        let tx = control.store().system_read("find when the next catalog source is due").await?;
        let next = tx.next_catalog_sync().await?;
        Ok(next.map_or(NAP, |next| next.since(control.clock().now())).clamp(SHORTEST_REST, NAP))
    }

    fn has_place(&self, due: &DueSource) -> bool {
        let (mut own, mut failed, mut own_failed) = (0, 0, 0);
        for ((organization, _), has_failed) in &self.sources {
            let is_own = *organization == due.organization;
            own += usize::from(is_own);
            failed += usize::from(*has_failed);
            own_failed += usize::from(is_own && *has_failed);
        }
        let is_full = self.sources.len() >= SYNCS || own >= SYNCS_OF_ORGANIZATION;
        let is_full_of_failed = failed >= RETRIES || own_failed >= RETRIES_OF_ORGANIZATION;
        let is_under_way = self.sources.contains_key(&(due.organization, due.name.clone()));
        !(is_full || is_under_way || due.failed && is_full_of_failed)
    }

    /// Waits until one of them has ended; for ever when there is none.
    async fn one_ended(&mut self) {
        match self.tasks.join_next().await {
            Some(Ok((source, done))) => {
                self.sources.remove(&source);
                if let Err(error) = done {
                    tracing::warn!(
                        catalog.source = %source.1, error = &error as &dyn std::error::Error,
                        "syncing a catalog source is put off"
                    );
                }
            }
            Some(Err(error)) => {
                // Nobody knows which: those that go on are leased, and none is started twice for it.
                tracing::error!(%error, "a sync of a catalog source ended early");
                if self.tasks.is_empty() {
                    self.sources.clear();
                }
            }
            None => std::future::pending().await,
        }
    }
}

fn amount(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// One bounded piece of one source's sync. A failure is written on the source, not returned.
async fn sync_source(control: &Control, organization: OrganizationId, name: &Name) -> Result<()> {
    let Some(mut source) = claim(control, organization, name).await? else { return Ok(()) };
    let before = position(&source);
    let outcome = match source.kind.as_str() {
        "registry" => sync_registry(control, organization, &mut source).await,
        _ => sync_file(control, organization, &mut source).await,
    };
    match outcome {
        Ok(()) => Ok(()),
        Err(SyncError::Source(error)) => {
            tracing::info!(catalog.source = %name, error = &error as &dyn std::error::Error, "a catalog source could not be synced");
            put_off(control, organization, source, before.failures, &error).await
        }
        Err(SyncError::Ours(error)) => Err(error),
    }
}

/// What stopped a sync: the source, or we.
#[derive(Debug)]
enum SyncError {
    Source(FetchError),
    Ours(ControlError),
}

impl From<FetchError> for SyncError {
    fn from(error: FetchError) -> Self {
        Self::Source(error)
    }
}

impl From<ControlError> for SyncError {
    fn from(error: ControlError) -> Self {
        Self::Ours(error)
    }
}

impl From<StoreError> for SyncError {
    fn from(error: StoreError) -> Self {
        Self::Ours(error.into())
    }
}

/// Takes the source for ourselves, unless another replica has it.
async fn claim(control: &Control, organization: OrganizationId, name: &Name) -> Result<Option<CatalogSource>> {
    let mut tx = control.store().org(organization).await?;
    let now = tx.now();
    let due = |source: &CatalogSource| source.enabled && source.next_sync_at.is_some_and(|at| at <= now);
    let Some(mut source) = tx.catalog_source(name).await?.filter(due) else { return Ok(None) };
    source.next_sync_at = Some(now.plus(LEASE));
    source.sync_state = "running".to_owned();
    tx.update_catalog_source(&source).await?;
    tx.commit().await?;
    Ok(Some(source))
}

async fn sync_registry(
    control: &Control,
    organization: OrganizationId,
    source: &mut CatalogSource,
) -> Result<(), SyncError> {
    let began = Instant::now();
    refuse_more(control, organization, source).await?;
    for _ in 0..PAGES_PER_ROUND {
        if began.elapsed() >= ROUND_TIME {
            break;
        }
        let mut position = position(source);
        let now = control.clock().now();
        let pass = position.pass.get_or_insert_with(|| start(position.since, position.last_full_at, now)).clone();
        if let Some(error) = pass.too_much() {
            return Err(error.into());
        }
        let asked = Instant::now();
        let url = registry_url(control, source, &pass, position.since)?;
        let first = pass.pages == 0;
        let known = if first && !pass.full { position.validators.clone() } else { Validators::default() };
        let client = &control.options().source_client;
        let fetched = client.get(url, &known, MAX_PAGE_BYTES, FETCH_TIMEOUT);
        // What was not read is asked for again by whoever comes next.
        let Some(fetched) = control.stopping().run_until_cancelled(fetched).await else { return Ok(()) };
        match fetched? {
            Fetched::Unchanged => {
                position.pass = None;
                finish(control, organization, source, position, &pass).await?;
                return Ok(());
            }
            Fetched::Answer(answer) => {
                let done = store_page(control, organization, source, position, &answer, asked.elapsed()).await?;
                if done || control.stopping().is_cancelled() {
                    return Ok(());
                }
            }
        }
    }
    // More than one round reads: due at once, after the other sources had their turn.
    let mut tx = control.store().org(organization).await?;
    source.next_sync_at = Some(tx.now());
    tx.update_catalog_source(source).await?;
    tx.commit().await?;
    Ok(())
}

/// Stops a source that has stored more than any may.
async fn refuse_more(control: &Control, organization: OrganizationId, source: &CatalogSource) -> Result<(), SyncError> {
    let tx = control.store().org_read(organization).await?;
    let (versions, bytes) = tx.measure_catalog_source(source.id).await?;
    if versions > MAX_VERSIONS {
        return Err(FetchError::TooMuch("200,000 versions").into());
    }
    if bytes > MAX_STORED_BYTES {
        return Err(FetchError::TooMuch("1 GiB of documents").into());
    }
    Ok(())
}

fn start(since: Option<Timestamp>, last_full_at: Option<Timestamp>, now: Timestamp) -> Pass {
    let full = since.is_none() || last_full_at.is_none_or(|at| now.since(at) >= FULL_PERIOD);
    Pass { full, started_at: now, cursor: None, pages: 0, seen: 0, changed: 0, skipped: 0, bytes: 0, time_ms: 0 }
}

fn registry_url(
    control: &Control,
    source: &CatalogSource,
    pass: &Pass,
    since: Option<Timestamp>,
) -> Result<reqwest::Url, FetchError> {
    let base = source.url.as_deref().unwrap_or(OFFICIAL_URL).trim_end_matches('/');
    let base = base.trim_end_matches("/servers").trim_end_matches("/v0.1");
    let mut url = control.options().source_client.parse(&format!("{base}/v0.1/servers"))?;
    url.query_pairs_mut().append_pair("limit", &PAGE.to_string());
    if let (false, Some(since)) = (pass.full, since) {
        url.query_pairs_mut().append_pair("updated_since", &since.to_string());
    }
    if let Some(cursor) = &pass.cursor {
        url.query_pairs_mut().append_pair("cursor", cursor);
    }
    Ok(url)
}

/// Writes one page and the position after it; `true` when it was the last one.
async fn store_page(
    control: &Control,
    organization: OrganizationId,
    source: &mut CatalogSource,
    mut position: Position,
    answer: &Answer,
    took: Duration,
) -> Result<bool, SyncError> {
    let Some(mut pass) = position.pass.take() else { return Ok(true) };
    let List { items, next } = answer.list()?;
    let page: Vec<Incoming> = items.iter().filter_map(|item| read_raw(item)).collect();
    let next = next.filter(|next| Some(next) != pass.cursor.as_ref());
    let last = next.is_none() || items.is_empty();

    let mut tx = control.store().org(organization).await?;
    pass.skipped += items.len() - page.len();
    pass.seen += page.len();
    let merged = merge(&mut tx, source, page, Rules { replace_documents: false, seen_at: pass.started_at }).await?;
    pass.changed += merged.changed;
    pass.pages += 1;
    pass.bytes = pass.bytes.saturating_add(u64::try_from(answer.bytes()).unwrap_or(u64::MAX));
    pass.time_ms = pass.time_ms.saturating_add(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    pass.cursor = next;
    if merged.changed > 0 {
        tx.event(
            EventKind::CatalogChanged,
            format!("catalog_source/{}", source.name),
            json!({ "changed": merged.changed }),
        );
    }
    let now = tx.now();
    let changed = pass.changed;
    if !last {
        source.sync_message = format!("{} entries read so far", pass.seen);
        source.next_sync_at = Some(now.plus(LEASE));
        position.pass = Some(pass);
        position.failures = 0;
        source.position = write(&position);
    } else {
        // Only a list that is whole proves what is missing.
        if pass.full {
            pass.changed += remove_unseen(&mut tx, source, pass.started_at).await?;
        }
        if pass.changed > 0 || pass.full || position.since.is_none() {
            position.since = Some(pass.started_at.minus(OVERLAP));
            position.validators = Validators::default();
        } else if pass.pages == 1 {
            // The same question next time, so that the registry can say "unchanged".
            position.validators = answer.validators.clone();
        }
        done(source, &mut position, &pass, now);
    }
    let alive = tx.update_catalog_source(source).await?;
    if !alive {
        // The source was deleted meanwhile: nothing of this page may stay.
        return Ok(true);
    }
    if last && changed >= MANY {
        tx.refresh_catalog_statistics().await?;
    }
    tx.commit().await?;
    Ok(last)
}

async fn remove_unseen(tx: &mut OrgTx, source: &CatalogSource, since: Timestamp) -> Result<usize> {
    let removed = tx.delete_unseen_catalog_entries(source.id, since).await?;
    tx.purge_deleted_catalog_entries(source.id, tx.now().minus(TOMBSTONES_KEPT)).await?;
    if removed > 0 {
        tx.event(EventKind::CatalogChanged, format!("catalog_source/{}", source.name), json!({ "removed": removed }));
    }
    Ok(usize::try_from(removed).unwrap_or(usize::MAX))
}

/// Ends a pass in which nothing changed.
async fn finish(
    control: &Control,
    organization: OrganizationId,
    source: &mut CatalogSource,
    mut position: Position,
    pass: &Pass,
) -> Result<()> {
    let mut tx = control.store().org(organization).await?;
    done(source, &mut position, pass, tx.now());
    tx.update_catalog_source(source).await?;
    Ok(tx.commit().await?)
}

/// Notes on the source that a pass ended well.
fn done(source: &mut CatalogSource, position: &mut Position, pass: &Pass, now: Timestamp) {
    if pass.full {
        position.last_full_at = Some(pass.started_at);
    }
    position.failures = 0;
    position.pass = None;
    source.sync_state = "done".to_owned();
    source.sync_message = match (pass.seen, pass.skipped) {
        (0, 0) => "nothing changed".to_owned(),
        (seen, 0) => format!("{seen} read, {} changed", pass.changed),
        (seen, skipped) => format!("{seen} read, {} changed, {skipped} could not be used", pass.changed),
    };
    source.synced_at = Some(now);
    source.next_sync_at = Some(now.plus(PERIOD));
    source.position = write(position);
}

/// A file has everything in one answer, so each sync is a full pass.
async fn sync_file(
    control: &Control,
    organization: OrganizationId,
    source: &mut CatalogSource,
) -> Result<(), SyncError> {
    let client = &control.options().source_client;
    let mut position = position(source);
    let url = client.parse(source.url.as_deref().unwrap_or_default())?;
    let now = control.clock().now();
    let mut pass = Pass { full: true, ..start(None, None, now) };
    let fetched = client.get(url, &position.validators, MAX_FILE_BYTES, FETCH_TIMEOUT);
    let Some(fetched) = control.stopping().run_until_cancelled(fetched).await else { return Ok(()) };
    let answer = match fetched? {
        Fetched::Answer(answer) => answer,
        Fetched::Unchanged => return Ok(finish(control, organization, source, position, &pass).await?),
    };
    let List { items, .. } = answer.list()?;
    if items.len() as u64 > MAX_VERSIONS {
        return Err(FetchError::TooMuch("200,000 versions").into());
    }
    for chunk in items.chunks(PAGE) {
        let page: Vec<Incoming> = chunk.iter().filter_map(|item| read_raw(item)).collect();
        pass.skipped += chunk.len() - page.len();
        pass.seen += page.len();
        let mut tx = control.store().org(organization).await?;
        let merged = merge(&mut tx, source, page, Rules { replace_documents: true, seen_at: now }).await?;
        pass.changed += merged.changed;
        tx.commit().await?;
    }
    let mut tx = control.store().org(organization).await?;
    pass.changed += remove_unseen(&mut tx, source, now).await?;
    tx.event(EventKind::CatalogChanged, format!("catalog_source/{}", source.name), json!({ "changed": pass.changed }));
    position.validators = answer.validators;
    let at = tx.now();
    done(source, &mut position, &pass, at);
    tx.update_catalog_source(source).await?;
    if pass.changed >= MANY {
        tx.refresh_catalog_statistics().await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Notes a failure on the source and when it is tried again: when the source said so, else after a time that
/// doubles, with jitter so that many do not come back together.
async fn put_off(
    control: &Control,
    organization: OrganizationId,
    mut source: CatalogSource,
    failures_before: u32,
    error: &FetchError,
) -> Result<()> {
    let mut position = position(&source);
    position.failures = failures_before.saturating_add(1);
    let wait = match error {
        FetchError::Busy { retry_after: Some(wait), .. } => *wait,
        // It starts over, and it will hardly be less in a minute.
        FetchError::TooMuch(_) => {
            position.pass = None;
            FULL_PERIOD
        }
        _ => backoff(position.failures, rand::random::<f64>()),
    };
    let mut tx = control.store().org(organization).await?;
    source.sync_state = "failed".to_owned();
    source.sync_message = error.to_string();
    source.next_sync_at = Some(tx.now().plus(wait));
    source.position = write(&position);
    tx.update_catalog_source(&source).await?;
    tx.event(
        EventKind::CatalogSourceFailed,
        format!("catalog_source/{}", source.name),
        json!({ "message": source.sync_message }),
    );
    Ok(tx.commit().await?)
}

/// 15 s, 30 s, 1 min... up to an hour, times 0.5 to 1.5.
fn backoff(failures: u32, chance: f64) -> Duration {
    let doubled = FIRST_RETRY.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1).min(12)));
    doubled.min(PERIOD).mul_f64(0.5 + chance.clamp(0.0, 1.0))
}

/// A position that cannot be read was written by nobody we know: start over.
fn position(source: &CatalogSource) -> Position {
    serde_json::from_str(&source.position).unwrap_or_default()
}

fn write(position: &Position) -> String {
    serde_json::to_string(position).expect("a position is text and numbers")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_doubles_up_to_an_hour_with_jitter() {
        assert_eq!(backoff(1, 0.5), FIRST_RETRY);
        assert_eq!(backoff(3, 0.5), FIRST_RETRY * 4);
        assert_eq!(backoff(u32::MAX, 0.5), PERIOD);
        assert!(backoff(1, 0.0) < backoff(1, 1.0));
    }

    #[test]
    fn a_full_pass_runs_first_and_then_once_a_day() {
        let at = Timestamp::from_ms;
        assert!(start(None, None, at(0)).full);
        assert!(!start(Some(at(1)), Some(at(1)), at(1000)).full);
        let day = i64::try_from(FULL_PERIOD.as_millis()).expect("a day");
        assert!(start(Some(at(1)), Some(at(1)), at(day + 1)).full);
    }

    #[test]
    fn a_pass_is_bounded_in_pages_bytes_and_time() {
        let pass = start(None, None, Timestamp::from_ms(0));
        assert!(pass.too_much().is_none());
        for much in [
            Pass { pages: MAX_PAGES, ..pass.clone() },
            Pass { bytes: MAX_PASS_BYTES + 1, ..pass.clone() },
            Pass { time_ms: 3_600_001, ..pass },
        ] {
            assert!(matches!(much.too_much(), Some(FetchError::TooMuch(_))), "{much:?}");
        }
    }

    #[test]
    fn a_position_survives_being_written_and_nonsense_starts_over() {
        let position =
            Position { pass: Some(start(None, None, Timestamp::from_ms(5))), failures: 2, ..Position::default() };
        let read: Position = serde_json::from_str(&write(&position)).expect("our own words");
        assert_eq!(read, position);
        assert_eq!(serde_json::from_str::<Position>("{}").expect("empty"), Position::default());
    }
}
