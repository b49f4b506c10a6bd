//! What happened, as it is heard of: one task reads the outbox, everybody else watches the number it reached.
//!
//! The task is woken by commits of this process and, because other replicas commit too, by a short period. A
//! stream to a browser keeps only the number of the last event it sent and reads on from there, a page at a
//! time: nothing is buffered for a slow reader, and one that reconnects goes on where it was.

use std::time::Duration;

use tokio::sync::watch;

use crate::{Control, Result, app};

/// How long another replica's event may stay unheard.
const PERIOD: Duration = Duration::from_millis(500);
/// Events read at once.
const PAGE: u32 = 500;
/// Events are kept this long, for readers that reconnect.
const KEPT: Duration = Duration::from_secs(3 * 24 * 3600);
const TRIM_EVERY: Duration = Duration::from_secs(3600);

/// How far the outbox was read.
pub(crate) struct EventState {
    reached: watch::Sender<i64>,
}

impl EventState {
    pub(crate) fn new() -> Self {
        Self { reached: watch::Sender::new(0) }
    }
}

impl Control {
    /// Changes with every event of any organization and any replica, within a second: the number of the newest.
    pub(crate) fn event_feed(&self) -> watch::Receiver<i64> {
        self.events().reached.subscribe()
    }
}

/// Where the outbox ends now; reading goes on from there.
pub(crate) async fn prepare(control: &Control) -> Result<()> {
    let newest = control.store().system_read("find the newest event").await?.last_event().await?;
    control.events().reached.send_replace(newest);
    app::flags::load(control).await
}

/// Reads the outbox until everything ends.
pub(crate) async fn follow(control: Control) {
    let mut wakes = control.store().wakes();
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = control.stopping().cancelled() => return,
            _ = wakes.changed() => {}
            _ = ticks.tick() => {}
        }
        if let Err(error) = read_on(&control).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "events are late: the outbox cannot be read");
        }
    }
}

async fn read_on(control: &Control) -> Result<()> {
    loop {
        let reached = *control.events().reached.borrow();
        let tx = control.store().system_read("read new events of every organization").await?;
        let events = tx.events_after(reached, PAGE).await?;
        drop(tx);
        let Some(newest) = events.last().map(|event| event.sequence) else { return Ok(()) };
        if events.iter().any(|event| event.kind == "flag.changed") {
            app::flags::load(control).await?;
        }
        control.events().reached.send_replace(newest);
    }
}

/// Forgets old events, idempotency keys and reports of browsers, until everything ends.
pub(crate) async fn trim(control: Control) {
    let mut ticks = tokio::time::interval(TRIM_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = control.stopping().cancelled() => return,
            _ = ticks.tick() => {}
        }
        if let Err(error) = trim_once(&control).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "forgetting old events is put off");
        }
    }
}

async fn trim_once(control: &Control) -> Result<()> {
    let now = control.clock().now();
    let tx = control.store().system("forget old events, idempotency keys and reports of browsers").await?;
    tx.trim_events(now.minus(KEPT)).await?;
    tx.trim_console_reports(now.minus(app::reports::KEPT)).await?;
    tx.trim_idempotency(now.minus(crate::http::IDEMPOTENCY_KEPT)).await?;
    Ok(tx.commit().await?)
}
