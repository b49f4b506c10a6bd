//! Call records: taken from the gateway without ever making it wait, written in batches, forgotten by the day.

mod waiting;
mod writer;

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use toolyard_store::{CallCursor, CallFilter, CallStore, OrgTx};
use toolyard_types::api::activity::Call;
use toolyard_types::api::{Page, PageQuery};
use toolyard_types::snapshot::{CallOutcome, CallRecord};
use toolyard_types::{Name, Timestamp};

use writer::Tallies;
pub(crate) use writer::{Tally, write};

use crate::app::{next_cursor, page_limit, scope};
use crate::{Caller, Control, ControlError, Result};

/// Records waiting to be written; when full, new ones are dropped and counted, and calls go on.
const WAITING: usize = 20_000;
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// The call records of a control plane.
pub(crate) struct CallState {
    store: CallStore,
    sender: mpsc::Sender<CallRecord>,
    /// Cancelled when no more records come.
    ended: CancellationToken,
    tallies: Tallies,
}

impl CallState {
    /// Opens the records beside the store; the receiver is for [`writer::write`].
    pub(crate) async fn open(store: &toolyard_store::Store) -> Result<(Self, mpsc::Receiver<CallRecord>)> {
        let calls = CallStore::open_with(store.location(), store.options()).await?;
        let (sender, receiver) = mpsc::channel(WAITING);
        Ok((Self { store: calls, sender, ended: CancellationToken::new(), tallies: Tallies::default() }, receiver))
    }

    /// The records themselves.
    pub(crate) fn store(&self) -> &CallStore {
        &self.store
    }

    /// Says that no more records come: what is waiting is written, and the writer ends.
    pub(crate) fn end(&self) {
        self.ended.cancel();
    }
}

impl Control {
    /// Where a gateway leaves call records; it counts those that a full channel drops.
    #[must_use]
    pub fn call_records(&self) -> mpsc::Sender<CallRecord> {
        self.calls().sender.clone()
    }
}

/// Which calls are asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct CallsWanted {
    /// Of this server.
    pub(crate) server: Option<Name>,
    /// Through this toolset.
    pub(crate) toolset: Option<Name>,
    /// By this one, as `kind:id`.
    pub(crate) actor: Option<String>,
    /// That ended so.
    pub(crate) outcome: Option<CallOutcome>,
    /// Of this request.
    pub(crate) request_id: Option<String>,
    /// From then on.
    pub(crate) since: Option<Timestamp>,
}

/// The caller's organization's call records, newest first, as far back as they are kept; with a narrowed key only those
/// of its servers and toolsets.
pub(crate) async fn list(
    control: &Control,
    caller: &Caller,
    wanted: &CallsWanted,
    query: &PageQuery,
) -> Result<Page<Call>> {
    let limit = page_limit(query)?;
    let cursor = query.cursor.as_deref().map(read_cursor).transpose()?;
    let kept = kept_since(control);
    let since = wanted.since.filter(|since| *since > kept).unwrap_or(kept);
    let tx = control.store().org_read(caller.organization).await?;
    let filter = filter(&tx, caller, wanted).await?;
    drop(tx);
    let calls = control.calls().store.list(caller.organization, &filter, since, cursor, limit + 1).await?;
    let page = next_cursor(calls, limit, |call| format!("{}.{}", call.cursor.at.as_ms(), call.cursor.id));
    let records = page.items.into_iter().map(|call| call.record).collect();
    Ok(Page { items: with_names(control, caller, records).await?, next_cursor: page.next_cursor })
}

async fn filter(tx: &OrgTx, caller: &Caller, wanted: &CallsWanted) -> Result<CallFilter> {
    let missing = |field: &str, name: &Name| ControlError::field(field, format!("there is no {field} `{name}`"));
    let server = match &wanted.server {
        Some(name) => {
            let known = tx.server(name).await?.filter(|row| !row.deleted && scope::includes(caller, row.name.as_str()));
            Some(known.ok_or_else(|| missing("server", name))?.id)
        }
        None => None,
    };
    let toolset = match &wanted.toolset {
        Some(name) => {
            let known = tx.toolset(name).await?.filter(|row| scope::includes(caller, row.name.as_str()));
            Some(known.ok_or_else(|| missing("toolset", name))?.id)
        }
        None => None,
    };
    let within = scope::ids(tx, caller).await?;
    let (actor, request_id) = (wanted.actor.clone(), wanted.request_id.clone());
    Ok(CallFilter { server, toolset, actor, outcome: wanted.outcome, request_id, within })
}

/// Adds the names that ids stand for now, with a fixed number of queries.
async fn with_names(control: &Control, caller: &Caller, records: Vec<CallRecord>) -> Result<Vec<Call>> {
    let servers: BTreeSet<_> = records.iter().filter_map(|record| record.server).collect();
    let toolsets: BTreeSet<_> = records.iter().filter_map(|record| record.toolset).collect();
    let revisions: BTreeSet<_> = records.iter().filter_map(|record| record.revision).collect();
    let actors: BTreeSet<_> = records.iter().map(|record| record.actor.as_str()).collect();
    let tx = control.store().org_read(caller.organization).await?;
    let servers = tx.server_names(&servers.into_iter().collect::<Vec<_>>()).await?;
    let toolsets = tx.toolset_names(&toolsets.into_iter().collect::<Vec<_>>()).await?;
    let revisions = tx.revision_numbers(&revisions.into_iter().collect::<Vec<_>>()).await?;
    let revisions: HashMap<_, _> = revisions.into_iter().collect();
    let actors = tx.actor_names(&actors.into_iter().collect::<Vec<_>>()).await?;
    drop(tx);
    Ok(records
        .into_iter()
        .map(|record| Call {
            server_name: record.server.and_then(|id| servers.get(&id).cloned()),
            revision_number: record.revision.and_then(|id| revisions.get(&id).copied()),
            toolset_name: record.toolset.and_then(|id| toolsets.get(&id).cloned()),
            actor_display: actors.get(&record.actor).cloned(),
            record,
        })
        .collect())
}

/// Whether any call that passes `filter` is still recorded.
pub(crate) async fn any(control: &Control, caller: &Caller, filter: &CallFilter) -> Result<bool> {
    let since = kept_since(control);
    Ok(!control.calls().store.list(caller.organization, filter, since, None, 1).await?.is_empty())
}

fn read_cursor(text: &str) -> Result<CallCursor> {
    let parts = text.split_once('.').and_then(|(at, id)| Some((at.parse().ok()?, id.parse().ok()?)));
    let (at, id) = parts.ok_or_else(|| ControlError::field("cursor", "is not a `next_cursor` of this list"))?;
    Ok(CallCursor { at: Timestamp::from_ms(at), id })
}

fn kept_since(control: &Control) -> Timestamp {
    let kept_ms = i64::from(control.options().call_retention_days) * 24 * 3600 * 1000;
    Timestamp::from_ms(control.clock().now().as_ms() - kept_ms)
}

/// What became of the caller's organization's records that could not be written at once.
pub(crate) fn tally(control: &Control, caller: &Caller) -> Tally {
    control.calls().tallies.of(caller.organization)
}

/// Forgets what is older than the retention and what is more than the bound, until everything ends.
pub(crate) async fn forget(control: Control) {
    let mut ticks = tokio::time::interval(FORGET_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = control.stopping().cancelled() => return,
            _ = ticks.tick() => {}
        }
        let store = &control.calls().store;
        match store.forget_before(kept_since(&control)).await {
            Ok(0) => {}
            Ok(days) => tracing::info!(days, "old call records were forgotten"),
            Err(error) => put_off(error),
        }
        match store.keep_at_most(control.options().call_max_records).await {
            Ok(0) => {}
            Ok(records) => {
                tracing::warn!(records, "there were more call records than `call_max_records`; the oldest are gone")
            }
            Err(error) => put_off(error),
        }
    }
}

fn put_off(error: toolyard_store::StoreError) {
    let error = ControlError::from(error);
    tracing::warn!(error = &error as &dyn std::error::Error, "forgetting old call records is put off");
}
