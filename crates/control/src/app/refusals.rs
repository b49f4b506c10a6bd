//! Refused changes in the audit log: each of the first ones has its line, and what repeats is counted in one.
//!
//! A refusal costs its caller nothing, so a line for each would let anybody with a key fill the log and the disk. Within
//! a minute the first refusals of a principal are written at once, at most [`Limits::refusals_per_minute`] and each
//! kind once, and ten times as many of an organization; the others are counted by action, and written when the minute is
//! over, or when everything ends.
//!
//! [`Limits::refusals_per_minute`]: crate::Limits

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;
use toolyard_store::NewAudit;
use toolyard_types::{Clock, OrganizationId, Timestamp};

use super::audit_line;
use crate::{Caller, Control, Result};

const WINDOW: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Principals remembered at once, and actions of one.
const PRINCIPALS: usize = 4096;
const ACTIONS: usize = 32;
/// An organization may have so many times what one principal may.
const ORGANIZATION: usize = 10;
/// Targets named in a line that stands for several.
const TARGETS: usize = 5;

/// What was refused lately.
pub(crate) struct Refusals {
    per_minute: usize,
    clock: Clock,
    lately: Mutex<Lately>,
}

#[derive(Default)]
struct Lately {
    windows: HashMap<(OrganizationId, String), Window>,
    /// Lines of their own by organization, and since when they are counted.
    lines: HashMap<OrganizationId, (Timestamp, usize)>,
}

struct Window {
    since: Timestamp,
    /// Action and target of those that have a line.
    written: BTreeSet<(String, String)>,
    more: BTreeMap<String, More>,
}

/// Refusals of one action that have no line yet.
struct More {
    line: NewAudit,
    times: u64,
    targets: BTreeSet<String>,
}

impl Refusals {
    pub(crate) fn new(per_minute: u32, clock: Clock) -> Self {
        let per_minute = usize::try_from(per_minute).unwrap_or(usize::MAX);
        Self { per_minute, clock, lately: Mutex::default() }
    }

    /// The line to write now, if this one gets its own.
    fn note(&self, caller: &Caller, line: NewAudit) -> Option<NewAudit> {
        let now = self.clock.now();
        let mut lately = self.lately.lock().unwrap_or_else(PoisonError::into_inner);
        let Lately { windows, lines } = &mut *lately;
        let key = (caller.organization, line.actor.clone());
        if windows.len() >= PRINCIPALS && !windows.contains_key(&key) {
            metrics::counter!("toolyard_refusals_not_recorded_total").increment(1);
            return None;
        }
        let window = windows.entry(key).or_insert_with(|| Window {
            since: now,
            written: BTreeSet::new(),
            more: BTreeMap::new(),
        });
        let (since, written) = lines.entry(caller.organization).or_insert((now, 0));
        if now.since(*since) >= WINDOW {
            (*since, *written) = (now, 0);
        }
        let kind = (line.action.clone(), line.target.clone());
        let has_room =
            window.written.len() < self.per_minute && *written < self.per_minute.saturating_mul(ORGANIZATION);
        if has_room && window.written.insert(kind) {
            *written += 1;
            return Some(line);
        }
        if window.more.len() >= ACTIONS && !window.more.contains_key(&line.action) {
            metrics::counter!("toolyard_refusals_not_recorded_total").increment(1);
            return None;
        }
        let target = line.target.clone();
        let more =
            window.more.entry(line.action.clone()).or_insert_with(|| More { line, times: 0, targets: BTreeSet::new() });
        more.times += 1;
        if more.targets.len() < TARGETS {
            more.targets.insert(target);
        }
        None
    }

    /// The lines of windows that are over, or of all of them.
    fn take(&self, all: bool) -> Vec<(OrganizationId, NewAudit)> {
        let now = self.clock.now();
        let mut lately = self.lately.lock().unwrap_or_else(PoisonError::into_inner);
        lately.lines.retain(|_, (since, _)| now.since(*since) < WINDOW);
        let over: Vec<_> = lately.windows.extract_if(|_, window| all || now.since(window.since) >= WINDOW).collect();
        drop(lately);
        let lines = over.into_iter().flat_map(|((organization, _), window)| {
            let since = window.since;
            window.more.into_values().map(move |more| (organization, more.into_line(since)))
        });
        lines.collect()
    }
}

impl More {
    fn into_line(self, since: Timestamp) -> NewAudit {
        let mut line = self.line;
        line.detail["times"] = json!(self.times);
        line.detail["since"] = json!(since);
        if self.targets.len() > 1 {
            line.detail["targets"] = json!(self.targets);
        }
        line
    }
}

/// Writes or counts the audit line of something refused; see the module.
pub(crate) async fn audit_refusal(control: &Control, caller: &Caller, action: &str, target: &str, why: &str) {
    let line = audit_line(caller, action, target.to_owned(), false, json!({ "why": why }));
    let Some(line) = control.refusals().note(caller, line) else { return };
    if let Err(error) = write(control, caller.organization, &line).await {
        tracing::error!(error = &error as &dyn std::error::Error, action, "a refusal is missing in the audit log");
    }
}

async fn write(control: &Control, organization: OrganizationId, line: &NewAudit) -> Result<()> {
    let mut tx = control.store().org(organization).await?;
    tx.audit(line).await?;
    Ok(tx.commit().await?)
}

/// Writes what was counted, until everything ends, and then the rest.
pub(crate) async fn write_counted(control: Control) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let ends = tokio::select! {
            () = control.stopping().cancelled() => true,
            _ = ticks.tick() => false,
        };
        for (organization, line) in control.refusals().take(ends) {
            if let Err(error) = write(&control, organization, &line).await {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, action = line.action, "refusals are missing in the audit log");
            }
        }
        if ends {
            return;
        }
    }
}
