//! Writes call records in batches. What the database does not take waits on disk and is written when it does again;
//! what has no room there is lost, counted and shown.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use toolyard_store::StoreError;
use toolyard_types::OrganizationId;
use toolyard_types::snapshot::CallRecord;

use super::WAITING;
use super::waiting::Waiting;
use crate::Control;

/// How long a record may wait for others.
const LINGER: Duration = Duration::from_millis(250);
/// How long the database may take for one batch: more than this, and it is taken for away.
const PATIENCE: Duration = Duration::from_secs(5);
/// The first pause after a failure; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Files of waiting records that are written in one go, before new records have their turn.
const FILES_AT_ONCE: usize = 8;
/// Losses are logged no more often than this.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// What became of an organization's records, in this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// They will be written when the database takes them.
    pub(crate) waiting: u64,
    /// They will not.
    pub(crate) lost: u64,
}

/// The tallies of all organizations.
#[derive(Debug, Default)]
pub(crate) struct Tallies(Mutex<HashMap<OrganizationId, Tally>>);

impl Tallies {
    /// That of one.
    pub(crate) fn of(&self, organization: OrganizationId) -> Tally {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&organization).copied().unwrap_or_default()
    }

    fn change(&self, records: &[CallRecord], change: impl Fn(&mut Tally)) {
        let mut tallies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        records.iter().for_each(|record| change(tallies.entry(record.organization).or_default()));
        let waiting: u64 = tallies.values().map(|tally| tally.waiting).sum();
        // A gauge of as many as a float can hold.
        metrics::gauge!("toolyard_call_records_waiting")
            .set(u32::try_from(waiting).map_or(f64::from(u32::MAX), f64::from));
    }

    fn wait(&self, records: &[CallRecord]) {
        self.change(records, |tally| tally.waiting += 1);
    }

    fn waited(&self, records: &[CallRecord]) {
        self.change(records, |tally| tally.waiting = tally.waiting.saturating_sub(1));
    }

    fn lose(&self, records: &[CallRecord]) {
        self.change(records, |tally| tally.lost += 1);
        metrics::counter!("toolyard_call_records_dropped_total").increment(amount(records.len()));
    }
}

/// Writes records until [`Control::shutdown`], then what is left. It goes on while everything else stops: calls
/// that drain leave records too.
pub(crate) async fn write(control: Control, mut records: mpsc::Receiver<CallRecord>) {
    let dir = control.options().data_dir.join("calls-waiting");
    let mut writer = Writer::open(&control, &dir).await;
    loop {
        let stopping = tokio::select! {
            () = control.calls().ended.cancelled() => true,
            taken = records.recv_many(&mut writer.batch, 1) => taken == 0,
            () = due(writer.next) => false,
        };
        if stopping {
            records.close();
        } else if !writer.batch.is_empty() {
            // Nobody waits at the channel meanwhile, so a call that leaves its record wakes nobody.
            tokio::select! {
                () = control.calls().ended.cancelled() => {}
                () = tokio::time::sleep(LINGER) => {}
            }
        }
        while let Ok(record) = records.try_recv() {
            writer.batch.push(record);
        }
        if stopping {
            writer.finish().await;
            return;
        }
        writer.turn().await;
    }
}

struct Writer<'a> {
    control: &'a Control,
    batch: Vec<CallRecord>,
    /// Gone while it is worked with, and when its directory cannot be read.
    waiting: Option<Waiting>,
    /// When the database is tried again, while it is away or something waits.
    next: Option<Instant>,
    pause: Duration,
    logged: Option<Instant>,
}

impl<'a> Writer<'a> {
    async fn open(control: &'a Control, dir: &Path) -> Self {
        let dir = dir.to_owned();
        let waiting = blocking(move || Waiting::open(&dir)).await.and_then(|opened| opened);
        if let Err(error) = &waiting {
            tracing::error!(%error, "call records that wait on disk cannot be read");
        }
        let waiting = waiting.ok();
        let next = waiting.as_ref().filter(|waiting| !waiting.is_empty()).map(|_| Instant::now());
        Self { control, batch: Vec::new(), waiting, next, pause: FIRST_PAUSE, logged: None }
    }

    /// Writes the batch and then what waits, or lets the batch wait too.
    async fn turn(&mut self) {
        if self.away() && self.next.is_some_and(|next| Instant::now() < next) {
            return self.put_by().await;
        }
        let some = !self.batch.is_empty();
        match self.insert_batch().await {
            Ok(()) => {
                if some {
                    self.recovered();
                }
                self.catch_up().await;
            }
            Err(error) => {
                self.failed(&error);
                self.put_by().await;
            }
        }
    }

    /// The last turn: what cannot be written now waits for the next start.
    async fn finish(&mut self) {
        if self.away() || self.insert_batch().await.is_err() {
            self.put_by().await;
        }
        if !self.batch.is_empty() {
            self.lose(self.batch.len());
        }
    }

    fn away(&self) -> bool {
        self.pause > FIRST_PAUSE
    }

    /// Writes the batch; what was written is no longer in it.
    async fn insert_batch(&mut self) -> Result<(), Unwritten> {
        let done = insert(self.control, &mut self.batch).await;
        if done.is_ok() {
            // What a burst needed is given back.
            self.batch = Vec::new();
        }
        done
    }

    /// Writes some of what waits.
    async fn catch_up(&mut self) {
        for _ in 0..FILES_AT_ONCE {
            if self.waiting.as_ref().is_none_or(Waiting::is_empty) {
                break;
            }
            let mut left = match self.on_disk(|waiting| Ok(waiting.oldest())).await {
                Ok(found) => {
                    metrics::counter!("toolyard_call_records_dropped_total").increment(amount(found.broken));
                    found.records
                }
                Err(error) => return self.failed(&Unwritten::Disk(error)),
            };
            let all = left.clone();
            let done = insert(self.control, &mut left).await;
            self.control.calls().tallies.waited(&all);
            self.control.calls().tallies.wait(&left);
            let kept = self.on_disk(move |waiting| waiting.keep(&left)).await;
            if let Err(error) = done.and(kept.map_err(Unwritten::Disk)) {
                return self.failed(&error);
            }
            self.recovered();
        }
        let more = self.waiting.as_ref().is_some_and(|waiting| !waiting.is_empty());
        self.next = more.then(Instant::now);
    }

    fn recovered(&mut self) {
        if self.away() {
            tracing::info!("the database takes call records again");
        }
        self.pause = FIRST_PAUSE;
    }

    fn failed(&mut self, error: &Unwritten) {
        if !self.away() {
            tracing::error!(
                error = error as &dyn std::error::Error,
                "call records wait on disk until the database takes them"
            );
        }
        self.next = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    /// Moves the batch to the disk. When that does not take it either, as many as the channel holds stay in memory.
    async fn put_by(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.batch);
        let (batch, added) = self.add(batch).await;
        match added {
            Ok(refused) => {
                let (kept, lost) = batch.split_at(batch.len() - refused);
                self.control.calls().tallies.wait(kept);
                if !lost.is_empty() {
                    self.batch = lost.to_vec();
                    self.lose(refused);
                }
            }
            Err(error) => {
                self.log(|| tracing::warn!(%error, "call records that should wait on disk wait in memory"));
                self.batch = batch;
                self.lose(self.batch.len().saturating_sub(WAITING));
            }
        }
    }

    async fn add(&mut self, batch: Vec<CallRecord>) -> (Vec<CallRecord>, io::Result<usize>) {
        let Some(mut waiting) = self.waiting.take() else {
            return (batch, Err(io::Error::other("their directory cannot be used")));
        };
        let work = blocking(move || {
            let added = waiting.add(&batch);
            (waiting, batch, added)
        });
        match work.await {
            Ok((waiting, batch, added)) => {
                self.waiting = Some(waiting);
                (batch, added)
            }
            Err(error) => (Vec::new(), Err(error)),
        }
    }

    async fn on_disk<T: Default + Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Waiting) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let Some(mut waiting) = self.waiting.take() else { return Ok(T::default()) };
        let (waiting, done) = blocking(move || {
            let done = work(&mut waiting);
            (waiting, done)
        })
        .await?;
        self.waiting = Some(waiting);
        done
    }

    /// Gives up the first `count` of the batch.
    fn lose(&mut self, count: usize) {
        if count == 0 {
            return;
        }
        let lost: Vec<CallRecord> = self.batch.drain(..count).collect();
        self.control.calls().tallies.lose(&lost);
        self.log(|| tracing::error!(count, "call records are lost: neither the database nor the disk takes them"));
    }

    fn log(&mut self, line: impl FnOnce()) {
        if self.logged.is_none_or(|logged| logged.elapsed() >= LOG_EVERY) {
            self.logged = Some(Instant::now());
            line();
        }
    }
}

/// Waits until the database is to be tried again without a new record.
async fn due(next: Option<Instant>) {
    match next {
        Some(next) => tokio::time::sleep_until(next).await,
        None => std::future::pending().await,
    }
}

/// Why records were not written.
#[derive(Debug, thiserror::Error)]
enum Unwritten {
    #[error("the database did not take them within {PATIENCE:?}")]
    Late,
    #[error("the database did not take them")]
    Store(#[source] StoreError),
    #[error("the disk did not give them back")]
    Disk(#[source] io::Error),
}

/// Writes records; those that were written are gone from the front of them.
async fn insert(control: &Control, records: &mut Vec<CallRecord>) -> Result<(), Unwritten> {
    let count = records.len();
    let done = match tokio::time::timeout(PATIENCE, control.calls().store.insert(records)).await {
        Ok(done) => done.map_err(Unwritten::Store),
        Err(_) => Err(Unwritten::Late),
    };
    metrics::counter!("toolyard_call_records_written_total").increment(amount(count - records.len()));
    done
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

fn amount(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
