//! What happened, as it is heard of: one task reads the outbox, everybody else watches the number it reached.
//!
//! The task is woken by commits of this process and, because other replicas commit too, by a short period. It is the
//! one reader of the outbox: what it read it hands to everybody who follows the events of that organization. A stream
//! keeps the number of the last event it sent; only one that reconnects, or that is so slow that it missed some, reads
//! the outbox itself, a page at a time, until it has caught up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit, broadcast, watch};
use toolyard_policy::Resource;
use toolyard_store::{EventKind, OutboxEvent};
use toolyard_types::OrganizationId;
use toolyard_types::api::system::Event;

use crate::{Control, Result, app};

/// How long another replica's event may stay unheard.
const PERIOD: Duration = Duration::from_millis(500);
/// Events read at once.
const PAGE: u32 = 500;
/// Events are kept this long, for readers that reconnect.
const KEPT: Duration = Duration::from_secs(3 * 24 * 3600);
const TRIM_EVERY: Duration = Duration::from_secs(600);
/// How long a statement that forgets what is old may take.
pub(crate) const UPKEEP: Duration = Duration::from_secs(30);
/// Audit records forgotten in one transaction, and such transactions for one organization in one go.
const AUDIT_AT_ONCE: u32 = 2000;
const AUDIT_ROUNDS: usize = 100;

/// Events kept for a follower that is slow; one that is slower reads the outbox.
const KEPT_FOR_FOLLOWERS: usize = 256;
/// Followers that read the outbox at once: after a restart all of them come at the same time.
const CATCHING_UP: usize = 2;

/// How far the outbox was read, and who follows.
pub(crate) struct EventState {
    reached: watch::Sender<i64>,
    /// Those that somebody follows.
    followed: Mutex<HashMap<OrganizationId, broadcast::Sender<Arc<Heard>>>>,
    catching_up: Semaphore,
}

/// An event as it is sent to everybody who follows and may hear of it. What decides that is read once, for all of them.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) sequence: i64,
    pub(crate) kind: String,
    /// The kind, unless a replica of another version wrote it.
    pub(crate) known_kind: Option<EventKind>,
    pub(crate) subject: String,
    /// What the subject is to a decision.
    pub(crate) resource: Resource,
    /// Of a key: who made it, who made the key that it was made with, and so on.
    pub(crate) made_by: Vec<String>,
    /// Of a session: whose it is, as the subject of their events.
    pub(crate) member: Option<String>,
    /// The whole of it as JSON.
    pub(crate) text: String,
}

impl Heard {
    pub(crate) fn new(event: OutboxEvent) -> Self {
        let OutboxEvent { sequence, at, kind, subject, data, .. } = event;
        let made_by = data["made_by"].as_array().into_iter().flatten();
        let made_by = made_by.filter_map(|maker| maker.as_str().map(str::to_owned)).collect();
        let member = data["member"].as_str().map(|id| format!("member/{id}"));
        let resource = subject.parse().unwrap_or(Resource::Organization);
        let event = Event { sequence, at, kind, subject, data };
        let text = serde_json::to_string(&event).expect("an event is text and JSON");
        let Event { kind, subject, .. } = event;
        Self { sequence, known_kind: EventKind::parse(&kind), kind, subject, resource, made_by, member, text }
    }

    /// Whether it may change what somebody is allowed to.
    pub(crate) fn is_about_access(&self) -> bool {
        ["api_key.", "member.", "session.", "organization."].iter().any(|noun| self.kind.starts_with(noun))
    }
}

impl EventState {
    pub(crate) fn new() -> Self {
        let (followed, catching_up) = (Mutex::default(), Semaphore::new(CATCHING_UP));
        Self { reached: watch::Sender::new(0), followed, catching_up }
    }

    /// Hands events on. Under one lock with the number, so that who begins to follow misses none and gets none twice.
    fn hand_on(&self, events: Vec<OutboxEvent>, newest: i64) {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        followed.retain(|_, sender| sender.receiver_count() > 0);
        for event in events {
            let organization = event.organization;
            if followed.is_empty() || organization.is_some_and(|organization| !followed.contains_key(&organization)) {
                continue;
            }
            let heard = Arc::new(Heard::new(event));
            let to = followed.iter().filter(|(followed, _)| organization.is_none_or(|own| own == **followed));
            to.for_each(|(_, sender)| {
                // The only failure is that nobody follows any more.
                let _ = sender.send(Arc::clone(&heard));
            });
        }
        self.reached.send_replace(newest);
    }
}

impl Control {
    /// The number of the newest event that was read, and the events of an organization after it.
    pub(crate) fn follow_events(&self, organization: OrganizationId) -> (i64, broadcast::Receiver<Arc<Heard>>) {
        let state = self.events();
        let mut followed = state.followed.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = followed.entry(organization).or_insert_with(|| broadcast::Sender::new(KEPT_FOR_FOLLOWERS));
        (*state.reached.borrow(), sender.subscribe())
    }

    /// A turn at reading the outbox.
    pub(crate) async fn turn_to_catch_up(&self) -> SemaphorePermit<'_> {
        self.events().catching_up.acquire().await.expect("the semaphore is never closed")
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
        if let Err(error) = control.in_time(read_on(&control)).await {
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
        if events.iter().any(|event| event.kind == EventKind::FlagChanged.as_str()) {
            app::flags::load(control).await?;
        }
        control.events().hand_on(events, newest);
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
        if let Err(error) = control.in_time(trim_once(&control)).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "forgetting old events is put off");
        }
        if let Err(error) = trim_audit(&control).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "forgetting old audit records is put off");
        }
        if let Err(error) = control.store().give_back_space().await {
            tracing::warn!(error = &error as &dyn std::error::Error, "giving back space is put off");
        }
    }
}

/// A bounded number of transactions, each so short that others write between them.
async fn trim_audit(control: &Control) -> Result<()> {
    let options = control.options();
    let before = control.clock().now().minus(Duration::from_secs(u64::from(options.audit_retention_days) * 24 * 3600));
    let organizations = control.store().system_read("find whose audit records to trim").await?.organizations().await?;
    for organization in organizations {
        for _ in 0..AUDIT_ROUNDS {
            let mut tx = control.store().system("forget audit records that are too old or too many").await?;
            tx.allow(UPKEEP).await?;
            let gone = tx.trim_audit(organization.id, before, options.audit_max_records, AUDIT_AT_ONCE).await?;
            tx.commit().await?;
            metrics::counter!("toolyard_audit_forgotten_total").increment(gone);
            if gone == 0 || control.stopping().is_cancelled() {
                break;
            }
        }
    }
    Ok(())
}

async fn trim_once(control: &Control) -> Result<()> {
    let now = control.clock().now();
    let mut tx = control.store().system("forget old events, idempotency keys and reports of browsers").await?;
    tx.allow(UPKEEP).await?;
    tx.trim_events(now.minus(KEPT)).await?;
    tx.trim_console_reports(now.minus(app::reports::KEPT)).await?;
    tx.trim_idempotency(now.minus(crate::http::IDEMPOTENCY_KEPT)).await?;
    Ok(tx.commit().await?)
}
