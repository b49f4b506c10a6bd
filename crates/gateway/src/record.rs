//! What is kept of a call: one record into a bounded channel, and the metrics.

use metrics::{Counter, Gauge, Histogram};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;
use toolyard_types::snapshot::{CallOutcome, CallRecord};

/// The metrics' handles, looked up once: a lookup per call would cost more than the counting.
pub(crate) struct Meters {
    outcomes: Vec<(CallOutcome, Counter)>,
    duration: Histogram,
    in_flight: Gauge,
    dropped: Counter,
    records: mpsc::Sender<CallRecord>,
}

impl Meters {
    pub(crate) fn new(records: mpsc::Sender<CallRecord>) -> Arc<Self> {
        const OUTCOMES: [CallOutcome; 7] = [
            CallOutcome::Ok,
            CallOutcome::ToolError,
            CallOutcome::ServerError,
            CallOutcome::Refused,
            CallOutcome::UpstreamFailed,
            CallOutcome::Timeout,
            CallOutcome::Cancelled,
        ];
        metrics::describe_counter!("toolyard_calls_total", "MCP calls through the gateway, by outcome.");
        metrics::describe_histogram!(
            "toolyard_call_duration_seconds",
            metrics::Unit::Seconds,
            "How long MCP calls take."
        );
        metrics::describe_gauge!("toolyard_calls_in_flight", "MCP calls that have not ended.");
        metrics::describe_counter!(
            "toolyard_call_records_dropped_total",
            "Call records lost because their writer was behind."
        );
        let counter = |outcome: CallOutcome| metrics::counter!("toolyard_calls_total", "outcome" => outcome.as_str());
        Arc::new(Self {
            outcomes: OUTCOMES.map(|outcome| (outcome, counter(outcome))).into(),
            duration: metrics::histogram!("toolyard_call_duration_seconds"),
            in_flight: metrics::gauge!("toolyard_calls_in_flight"),
            dropped: metrics::counter!("toolyard_call_records_dropped_total"),
            records,
        })
    }
}

/// One call being recorded. Dropped without an outcome it counts as cancelled: its client went away.
pub(crate) struct Recording {
    meters: Arc<Meters>,
    record: Option<CallRecord>,
    began: Instant,
}

impl Recording {
    /// Begins with a record that lacks only its ending.
    pub(crate) fn begin(meters: Arc<Meters>, record: CallRecord, began: Instant) -> Self {
        meters.in_flight.increment(1.0);
        Self { meters, record: Some(record), began }
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
        if let Some((_, counter)) = self.meters.outcomes.iter().find(|(counted, _)| *counted == outcome) {
            counter.increment(1);
        }
        tracing::debug!(
            method = record.method,
            target = record.target,
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
