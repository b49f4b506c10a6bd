//! What is kept of a call: one record into a bounded channel, and the metrics.

use dashmap::DashMap;
use metrics::{Counter, Gauge, Histogram};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use toolyard_types::OrganizationId;
use toolyard_types::snapshot::{CallOutcome, CallRecord};

/// Upper bounds of the buckets that an organization's durations are counted in, in milliseconds.
const BUCKETS_MS: [u64; 9] = [5, 25, 100, 250, 1_000, 2_500, 10_000, 60_000, 300_000];

/// What an organization's calls came to on this replica, since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrganizationCalls {
    /// Calls that ended, by outcome.
    pub outcomes: Vec<(CallOutcome, u64)>,
    /// Those that took at most this many milliseconds; cumulative.
    pub at_most_ms: Vec<(u64, u64)>,
    /// How long all of them took together.
    pub took: Duration,
}

/// The same, being counted.
#[derive(Default)]
pub(crate) struct Tally {
    outcomes: [AtomicU64; CallOutcome::ALL.len()],
    buckets: [AtomicU64; BUCKETS_MS.len()],
    took_us: AtomicU64,
}

impl Tally {
    fn count(&self, outcome: CallOutcome, took_us: u64) {
        if let Some(at) = CallOutcome::ALL.iter().position(|counted| *counted == outcome) {
            self.outcomes[at].fetch_add(1, Ordering::Relaxed);
        }
        if let Some(at) = BUCKETS_MS.iter().position(|bound_ms| took_us <= bound_ms * 1000) {
            self.buckets[at].fetch_add(1, Ordering::Relaxed);
        }
        self.took_us.fetch_add(took_us, Ordering::Relaxed);
    }

    fn read(&self) -> OrganizationCalls {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut sum = 0;
        let at_most_ms = BUCKETS_MS.iter().zip(&self.buckets).map(|(bound_ms, counter)| {
            sum += count(counter);
            (*bound_ms, sum)
        });
        OrganizationCalls {
            at_most_ms: at_most_ms.collect(),
            outcomes: CallOutcome::ALL
                .iter()
                .zip(&self.outcomes)
                .map(|(outcome, counter)| (*outcome, count(counter)))
                .collect(),
            took: Duration::from_micros(count(&self.took_us)),
        }
    }
}

/// The metrics' handles, looked up once: a lookup per call would cost more than the counting.
pub(crate) struct Meters {
    outcomes: Vec<(CallOutcome, Counter)>,
    duration: Histogram,
    in_flight: Gauge,
    dropped: Counter,
    records: mpsc::Sender<CallRecord>,
    /// Bounded: those of organizations that are gone are forgotten with the snapshot.
    organizations: DashMap<OrganizationId, Arc<Tally>>,
}

impl Meters {
    fn tally(&self, organization: OrganizationId) -> Arc<Tally> {
        if let Some(tally) = self.organizations.get(&organization) {
            return tally.clone();
        }
        self.organizations.entry(organization).or_default().clone()
    }

    /// What the calls of an organization came to.
    pub(crate) fn of(&self, organization: OrganizationId) -> OrganizationCalls {
        self.organizations.get(&organization).map_or_else(|| Tally::default().read(), |tally| tally.read())
    }

    /// Forgets organizations for which `keep` says no.
    pub(crate) fn retain(&self, keep: impl Fn(OrganizationId) -> bool) {
        self.organizations.retain(|organization, _| keep(*organization));
    }

    pub(crate) fn new(records: mpsc::Sender<CallRecord>) -> Arc<Self> {
        metrics::describe_counter!("toolyard_calls_total", "MCP calls through the gateway, by outcome.");
        metrics::describe_histogram!(
            "toolyard_call_duration_seconds",
            metrics::Unit::Seconds,
            "How long MCP calls take."
        );
        metrics::describe_gauge!("toolyard_calls_in_flight", "MCP calls that have not ended.");
        metrics::describe_counter!(
            "toolyard_call_records_dropped_total",
            "Call records lost: their writer was behind, or neither the database nor the disk took them."
        );
        metrics::describe_counter!(
            "toolyard_keys_refused_total",
            "API keys that were refused, by where they were shown."
        );
        let counter = |outcome: CallOutcome| metrics::counter!("toolyard_calls_total", "outcome" => outcome.as_str());
        Arc::new(Self {
            outcomes: CallOutcome::ALL.map(|outcome| (outcome, counter(outcome))).into(),
            duration: metrics::histogram!("toolyard_call_duration_seconds"),
            in_flight: metrics::gauge!("toolyard_calls_in_flight"),
            dropped: metrics::counter!("toolyard_call_records_dropped_total"),
            records,
            organizations: DashMap::new(),
        })
    }
}

/// One call being recorded. Dropped without an outcome it counts as cancelled: its client went away.
pub(crate) struct Recording {
    meters: Arc<Meters>,
    tally: Arc<Tally>,
    record: Option<CallRecord>,
    began: Instant,
}

impl Recording {
    /// Begins with a record that lacks only its ending.
    pub(crate) fn begin(meters: Arc<Meters>, record: CallRecord, began: Instant) -> Self {
        meters.in_flight.increment(1.0);
        let tally = meters.tally(record.organization);
        Self { meters, tally, record: Some(record), began }
    }

    /// Changes what is known of the call before it ends.
    pub(crate) fn note(&mut self, change: impl FnOnce(&mut CallRecord)) {
        if let Some(record) = &mut self.record {
            change(record);
        }
    }

    /// Ends the call, unless it has ended.
    pub(crate) fn end(&mut self, outcome: CallOutcome, response_bytes: usize) {
        let Some(mut record) = self.record.take() else { return };
        let took = self.began.elapsed();
        record.outcome = outcome;
        record.response_bytes = u64::try_from(response_bytes).unwrap_or(u64::MAX);
        record.duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.meters.in_flight.decrement(1.0);
        self.meters.duration.record(took.as_secs_f64());
        self.tally.count(outcome, record.duration_us);
        if let Some((_, counter)) = self.meters.outcomes.iter().find(|(counted, _)| *counted == outcome) {
            counter.increment(1);
        }
        tracing::debug!(
            method = record.method,
            call.target = record.target,
            outcome = outcome.as_str(),
            duration_us = record.duration_us,
            request.id = record.request_id,
            "call ended"
        );
        if self.meters.records.try_send(record).is_err() {
            self.meters.dropped.increment(1);
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.end(CallOutcome::Cancelled, 0);
    }
}
