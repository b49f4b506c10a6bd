//! Call records: taken from the gateway without ever making it wait, written in batches, forgotten by the day.

use std::time::Duration;

use tokio::sync::mpsc;
use toolyard_store::CallStore;
use toolyard_types::Timestamp;
use toolyard_types::snapshot::CallRecord;

use crate::{Control, ControlError, Result};

/// Records waiting to be written; when full, new ones are dropped and counted, and calls go on.
const WAITING: usize = 10_000;
/// Records written at once.
const BATCH: usize = 500;
/// How long a record may wait for others.
const LINGER: Duration = Duration::from_millis(500);
const FORGET_EVERY: Duration = Duration::from_secs(3600);

/// Takes call records. Cheap to clone.
#[derive(Clone, Debug)]
pub struct CallSink(mpsc::Sender<CallRecord>);

impl CallSink {
    /// Hands over a record; never waits. When the writer is too far behind, the record is dropped and counted.
    pub fn record(&self, record: CallRecord) {
        if self.0.try_send(record).is_err() {
            metrics::counter!("toolyard_call_records_dropped_total").increment(1);
        }
    }
}

/// The call records of a control plane.
pub(crate) struct CallState {
    store: CallStore,
    sink: CallSink,
}

impl CallState {
    /// Opens the records beside the store; the receiver is for [`write`].
    pub(crate) async fn open(store: &toolyard_store::Store) -> Result<(Self, mpsc::Receiver<CallRecord>)> {
        let calls = CallStore::open(store.location()).await?;
        let (sender, receiver) = mpsc::channel(WAITING);
        Ok((Self { store: calls, sink: CallSink(sender) }, receiver))
    }

    pub(crate) fn store(&self) -> &CallStore {
        &self.store
    }
}

impl Control {
    /// Where the gateway leaves call records.
    #[must_use]
    pub fn call_sink(&self) -> CallSink {
        self.calls().sink.clone()
    }
}

/// Writes records in batches until everything ends, then what is left.
pub(crate) async fn write(control: Control, mut records: mpsc::Receiver<CallRecord>) {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let stopping = tokio::select! {
            () = control.stopping().cancelled() => true,
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
                () = control.stopping().cancelled() => break,
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
        let kept_ms = i64::from(control.options().call_retention_days) * 24 * 3600 * 1000;
        let before = Timestamp::from_ms(control.clock().now().as_ms() - kept_ms);
        match control.calls().store.forget_before(before).await {
            Ok(0) => {}
            Ok(days) => tracing::info!(days, "old call records were forgotten"),
            Err(error) => {
                let error = ControlError::from(error);
                tracing::warn!(error = &error as &dyn std::error::Error, "forgetting old call records is put off");
            }
        }
    }
}
