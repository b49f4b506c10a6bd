//! The catalog: what can be deployed, where it comes from, and how it is found.
//!
//! Entries come from sources: the list that comes with Toolyard (`built-in`), what people here publish
//! (`own`), registries that speak the official API, and JSON files. A source's entries are its own; of
//! several entries of one name the list shows one (see [`index`]). A loop keeps sources in step; searches are
//! answered from an index in memory.
//!
//! The index is rebuilt after a change: at once when somebody here made it, so that they find what they
//! published; beside the searches, which see the old one meanwhile, when a sync or another replica did.

pub(crate) mod curated;
pub(crate) mod entry;
pub(crate) mod fetch;
pub(crate) mod index;
pub(crate) mod merge;
pub(crate) mod sync;
pub(crate) mod validate;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;
use toolyard_store::{CatalogEntry, CatalogSource, EventKind};
use toolyard_types::server_json::ServerJson;
use toolyard_types::{EntryName, OrganizationId};

pub use fetch::{SourceClient, is_public};

use crate::{Control, ControlError, Result};
use index::Index;

/// How many organizations' indexes are kept; beyond that all are dropped and built again when asked for.
const MAX_INDEXES: usize = 256;
/// Between two rebuilds beside the searches.
const REBUILD_PAUSE: Duration = Duration::from_millis(500);
/// How often the outbox is read for changes made by other replicas.
const POLL: Duration = Duration::from_secs(2);

/// What the catalog keeps in memory.
#[derive(Default)]
pub(crate) struct CatalogState {
    slots: Mutex<HashMap<OrganizationId, Arc<Slot>>>,
    /// Wakes the sync loop.
    pub(crate) wake: Notify,
}

#[derive(Default)]
struct Slot {
    index: ArcSwapOption<Built>,
    /// How many changes were made here. An index that was begun before the last of them is wrong.
    changes: AtomicU64,
    /// Whether something was written elsewhere since the index was begun.
    stale: AtomicBool,
    building: tokio::sync::Mutex<()>,
    /// Whether a rebuild beside the searches is under way, or has just ended.
    beside: AtomicBool,
}

struct Built {
    index: Arc<Index>,
    /// The changes made here before it was begun.
    changes: u64,
}

impl Slot {
    /// The index, unless it lacks something that was written here.
    fn current(&self) -> Option<Arc<Index>> {
        let needed = self.changes.load(Ordering::SeqCst);
        self.index.load_full().filter(|built| built.changes >= needed).map(|built| built.index.clone())
    }
}

impl CatalogState {
    fn slot(&self, organization: OrganizationId) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= MAX_INDEXES && !slots.contains_key(&organization) {
            slots.clear();
        }
        slots.entry(organization).or_default().clone()
    }

    /// The next search must see what was just written.
    pub(crate) fn changed_here(&self, organization: OrganizationId) {
        self.slot(organization).changes.fetch_add(1, Ordering::SeqCst);
    }

    /// A search soon should see what was written elsewhere.
    fn changed_elsewhere(&self, organization: Option<OrganizationId>) {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        for (of, slot) in &*slots {
            if organization.is_none_or(|organization| organization == *of) {
                slot.stale.store(true, Ordering::SeqCst);
            }
        }
    }
}

/// The search index of an organization.
///
/// # Errors
/// When the store fails.
pub(crate) async fn index(control: &Control, organization: OrganizationId) -> Result<Arc<Index>> {
    let slot = control.catalog().slot(organization);
    if let Some(index) = slot.current() {
        if slot.stale.load(Ordering::SeqCst) {
            rebuild_beside(control, organization, slot);
        }
        return Ok(index);
    }
    let _building = slot.building.lock().await;
    match slot.current() {
        Some(index) => Ok(index),
        None => rebuild(control, organization, &slot).await,
    }
}

fn rebuild_beside(control: &Control, organization: OrganizationId, slot: Arc<Slot>) {
    if slot.beside.swap(true, Ordering::SeqCst) {
        return;
    }
    let task = {
        let control = control.clone();
        async move {
            let building = slot.building.lock().await;
            if slot.stale.load(Ordering::SeqCst)
                && let Err(error) = rebuild(&control, organization, &slot).await
            {
                tracing::warn!(error = &error as &dyn std::error::Error, "the catalog index stays as it was");
            }
            drop(building);
            tokio::select! {
                () = control.stopping().cancelled() => {}
                () = tokio::time::sleep(REBUILD_PAUSE) => {}
            }
            slot.beside.store(false, Ordering::SeqCst);
        }
    };
    control.spawn("catalog index", task);
}

async fn rebuild(control: &Control, organization: OrganizationId, slot: &Slot) -> Result<Arc<Index>> {
    // Before the read: a change during it makes the index wrong or stale again.
    let changes = slot.changes.load(Ordering::SeqCst);
    slot.stale.store(false, Ordering::SeqCst);
    match build(control, organization).await {
        Ok(index) => {
            slot.index.store(Some(Arc::new(Built { index: index.clone(), changes })));
            Ok(index)
        }
        Err(error) => {
            slot.stale.store(true, Ordering::SeqCst);
            Err(error)
        }
    }
}

async fn build(control: &Control, organization: OrganizationId) -> Result<Arc<Index>> {
    let tx = control.store().org_read(organization).await?;
    let (sources, entries) = (tx.catalog_sources().await?, tx.catalog_entries().await?);
    drop(tx);
    let built = tokio::task::spawn_blocking(move || Index::build(&sources, entries)).await;
    built.map(Arc::new).map_err(ControlError::internal("building the catalog index"))
}

/// Marks indexes stale when the outbox tells of a change, until everything ends.
pub(crate) async fn follow_changes(control: Control) {
    let mut wakes = control.store().wakes();
    let mut seen = None;
    loop {
        match control.in_time(changes(&control, seen)).await {
            Ok(newest) => seen = Some(newest),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "changes of the catalog are noticed late");
                control.catalog().changed_elsewhere(None);
            }
        }
        tokio::select! {
            () = control.stopping().cancelled() => return,
            _ = wakes.changed() => {}
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

async fn changes(control: &Control, seen: Option<i64>) -> Result<i64> {
    let tx = control.store().system_read("notice changes of every organization's catalog").await?;
    let Some(mut seen) = seen else { return Ok(tx.last_event().await?) };
    loop {
        let events = tx.events_after(seen, 500).await?;
        let Some(last) = events.last() else { return Ok(seen) };
        seen = last.sequence;
        for event in events.iter().filter(|event| event.kind == EventKind::CatalogChanged.as_str()) {
            control.catalog().changed_elsewhere(event.organization);
        }
    }
}

/// The document to deploy an entry from, with its version: the latest one when none is named. The entry must
/// be approved, and neither it nor the version deleted; a deprecated one may still be deployed.
///
/// # Errors
/// `not_found` when there is no such entry or version.
pub async fn entry_document(
    control: &Control,
    organization: OrganizationId,
    name: &EntryName,
    version: Option<&str>,
) -> Result<(String, ServerJson)> {
    let tx = control.store().org_read(organization).await?;
    let sources = tx.catalog_sources().await?;
    let shown = best(&sources, tx.catalog_entries_named(name.as_str()).await?);
    let entry = shown.filter(|entry| entry.review == "approved").ok_or_else(|| no_entry(name))?;
    let version = version.unwrap_or(&entry.latest_version);
    let stored = tx.catalog_version(entry.id, version).await?.filter(|stored| stored.status != "deleted");
    let stored = stored.ok_or_else(|| no_version(name, version))?;
    let server =
        serde_json::from_str(&stored.document).map_err(ControlError::internal("reading a stored server.json"))?;
    Ok((stored.version, server))
}

/// Of the entries of one name, the one that is shown; deleted ones never.
pub(crate) fn best(sources: &[CatalogSource], entries: Vec<CatalogEntry>) -> Option<CatalogEntry> {
    let alive = entries.into_iter().filter(|entry| entry.status != "deleted");
    alive.min_by_key(|entry| index::precedence(sources, entry))
}

pub(crate) fn no_entry(name: &EntryName) -> ControlError {
    ControlError::NotFound(format!("catalog entry `{name}`"))
}

pub(crate) fn no_version(name: &EntryName, version: &str) -> ControlError {
    let version = toolyard_types::name::printable(version);
    ControlError::NotFound(format!("version `{version}` of catalog entry `{name}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_begun_before_the_last_change_made_here_is_not_shown() {
        let slot = Slot::default();
        assert!(slot.current().is_none());
        let index = Arc::new(Index::build(&[], Vec::new()));
        slot.index.store(Some(Arc::new(Built { index, changes: 0 })));
        assert!(slot.current().is_some());
        slot.changes.fetch_add(1, Ordering::SeqCst);
        assert!(slot.current().is_none(), "also while another is being built");
    }
}
