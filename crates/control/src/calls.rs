//! Call records: taken from the gateway without ever making it wait, written in batches, forgotten by the day.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use toolyard_store::{CallCursor, CallStore};
use toolyard_types::Timestamp;
use toolyard_types::api::{Page, PageQuery};
use toolyard_types::snapshot::CallRecord;

use crate::app::{next_cursor, page_limit};
use crate::{Caller, Control, ControlError, Result};

/// Records waiting to be written; when full, new ones are dropped and counted, and calls go on.
const WAITING: usize = 10_000;
/// Records written at once.
const BATCH: usize = 500;
/// How long a record may wait for others.
const LINGER: Duration = Duration::from_millis(500);
const FORGET_EVERY: Duration = Duration::from_secs(3600);

/// The call records of a control plane.
pub(crate) struct CallState {
    store: CallStore,
    sender: mpsc::Sender<CallRecord>,
    /// Cancelled when no more records come.
    ended: CancellationToken,
}

impl CallState {
    /// Opens the records beside the store; the receiver is for [`write`].
    pub(crate) async fn open(store: &toolyard_store::Store) -> Result<(Self, mpsc::Receiver<CallRecord>)> {
        let calls = CallStore::open(store.location()).await?;
        let (sender, receiver) = mpsc::channel(WAITING);
        Ok((Self { store: calls, sender, ended: CancellationToken::new() }, receiver))
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

/// The caller's organization's call records, newest first, as far back as they are kept.
pub(crate) async fn list(control: &Control, caller: &Caller, query: &PageQuery) -> Result<Page<CallRecord>> {
    let limit = page_limit(query)?;
    let cursor = query.cursor.as_deref().map(read_cursor).transpose()?;
    let since = kept_since(control);
    let calls = control.calls().store.list(caller.organization, since, cursor, limit + 1).await?;
    let page = next_cursor(calls, limit, |call| format!("{}.{}", call.cursor.at.as_ms(), call.cursor.id));
    Ok(Page { items: page.items.into_iter().map(|call| call.record).collect(), next_cursor: page.next_cursor })
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

/// Writes records in batches until [`Control::shutdown`], then what is left. It goes on while everything else
/// stops: calls that drain leave records too.
pub(crate) async fn write(control: Control, mut records: mpsc::Receiver<CallRecord>) {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let stopping = tokio::select! {
            () = control.calls().ended.cancelled() => true,
            taken = records.recv_many(&mut batch, BATCH) => taken == 0,
        };
        if stopping {
            records.close();
            while let Ok(record) = records.try_recv() {
                batch.push(record);
            }
            write_batch(&control, &mut batch).await;
            return;
        }
        let deadline = tokio::time::sleep(LINGER);
        tokio::pin!(deadline);
        while batch.len() < BATCH {
            let room = BATCH - batch.len();
            tokio::select! {
                () = control.calls().ended.cancelled() => break,
                () = &mut deadline => break,
                taken = records.recv_many(&mut batch, room) => if taken == 0 { break },
            }
        }
        write_batch(&control, &mut batch).await;
    }
}

async fn write_batch(control: &Control, batch: &mut Vec<CallRecord>) {
    if batch.is_empty() {
        return;
    }
    match control.calls().store.insert(batch).await {
        Ok(()) => metrics::counter!("toolyard_call_records_written_total").increment(amount(batch.len())),
        Err(error) => {
            metrics::counter!("toolyard_call_records_dropped_total").increment(amount(batch.len()));
            let count = batch.len();
            tracing::error!(error = &error as &dyn std::error::Error, count, "call records are lost");
        }
    }
    batch.clear();
}

fn amount(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Forgets days that are older than the retention, until everything ends.
pub(crate) async fn forget(control: Control) {
    let mut ticks = tokio::time::interval(FORGET_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = control.stopping().cancelled() => return,
            _ = ticks.tick() => {}
        }
        match control.calls().store.forget_before(kept_since(&control)).await {
            Ok(0) => {}
            Ok(days) => tracing::info!(days, "old call records were forgotten"),
            Err(error) => {
                let error = ControlError::from(error);
                tracing::warn!(error = &error as &dyn std::error::Error, "forgetting old call records is put off");
            }
        }
    }
}
