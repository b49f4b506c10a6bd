//! Whether a replica is ready, in three parts: the gateway serves, writes last, the control plane works.
//!
//! They fail apart: with the database away calls go on for as long as the snapshot is fresh enough. Nothing here is done
//! for a request: one task looks every few seconds, and a request reads what it found.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use toolyard_types::Timestamp;
use toolyard_types::api::system::{LoopState, Readiness, ReadinessPart};

use crate::Control;
use crate::fleet::WRITES;

const CHECK_EVERY: Duration = Duration::from_secs(5);
/// How long a check may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(4);
/// A result that is older says nothing any more.
const CHECK_MAX_AGE: Duration = Duration::from_secs(30);
/// A loop that has not ended a run for longer than its period and this does not work.
const LOOP_OVERDUE: Duration = Duration::from_secs(120);
/// One failed run may be a meeting of two; the next one tells.
const FAILED_RUNS: u32 = 2;

/// What was found.
#[derive(Default)]
pub(crate) struct ReadinessState(Mutex<Found>);

#[derive(Default)]
struct Found {
    /// When writes were last looked at, and what was wrong.
    writes: Option<(Timestamp, Option<String>)>,
    /// What is damaged in the database, as it was found after the start.
    damage: Option<String>,
    /// Since when each part is as it is.
    since: [Option<(bool, Timestamp)>; 3],
}

impl Control {
    /// Whether this replica is ready, as anybody with a key may know it: the causes of failures name other
    /// organizations' things and the machine's.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let mut readiness = self.readiness_in_detail();
        if !readiness.writes.ready {
            readiness.writes.message =
                "rows cannot be trusted to be written and read back; the log has the cause".to_owned();
        }
        if !readiness.control_plane.ready {
            readiness.control_plane.message = "a loop does not run as it should; the log has the cause".to_owned();
        }
        for one in readiness.loops.iter_mut().filter(|one| one.error.is_some()) {
            one.error = Some("its last run failed; the log has the cause".to_owned());
        }
        readiness
    }

    /// The same with every cause, for who runs this Toolyard.
    #[must_use]
    pub fn readiness_in_detail(&self) -> Readiness {
        let now = self.clock().now();
        let (gateway, writes, control_plane) = (self.gateway_part(now), self.writes_part(now), self.loops_part());
        let mut found = self.0.readiness.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut part = |at: usize, (ready, message): (bool, String)| {
            let since = match found.since[at] {
                Some((was, since)) if was == ready => since,
                _ => now,
            };
            found.since[at] = Some((ready, since));
            ReadinessPart { ready, message, since }
        };
        Readiness {
            gateway: part(0, gateway),
            writes: part(1, writes),
            control_plane: part(2, control_plane),
            loops: self
                .loop_status()
                .into_iter()
                .map(|(name, status)| LoopState { name: name.to_owned(), at: status.at, error: status.error })
                .collect(),
        }
    }

    /// Whether writes worked when they were last looked at.
    pub(crate) fn writes_work(&self) -> bool {
        let found = self.0.readiness.0.lock().unwrap_or_else(PoisonError::into_inner);
        !matches!(found.writes, Some((_, Some(_))))
    }

    fn gateway_part(&self, now: Timestamp) -> (bool, String) {
        let most = self.options().snapshot_max_age;
        let (age, behind) = {
            let snapshots = self.snapshots();
            let snapshot = snapshots.borrow();
            // Where one of many cannot be read the others are served: who asks here sends calls of all of them elsewhere.
            let newest = snapshot.organizations.values().map(|it| snapshot.made_at_of(it.id)).max();
            (now.since(newest.unwrap_or(snapshot.made_at)), snapshot.behind.len())
        };
        let ready = age <= most;
        let verdict = if ready { "is fresh enough" } else { "is too old to serve calls from" };
        let (age, most) = (age.as_secs(), most.as_secs());
        let mut message = format!("the snapshot is {age} s old, which {verdict} (at most {most} s)");
        if behind > 0 {
            message.push_str(&format!("; what changed in {behind} organizations is not in it yet"));
        }
        (ready, message)
    }

    fn writes_part(&self, now: Timestamp) -> (bool, String) {
        let found = self.0.readiness.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(damage) = &found.damage {
            return (false, format!("the database is damaged: {damage}"));
        }
        match &found.writes {
            None => (true, "the database was opened and not looked at since".to_owned()),
            Some((at, _)) if now.since(*at) > CHECK_MAX_AGE => {
                (false, format!("nothing was written and read back since {at}"))
            }
            Some((_, Some(why))) => (false, why.clone()),
            Some((at, None)) => {
                (true, format!("a row that was written at {at} was read back through another connection"))
            }
        }
    }

    fn loops_part(&self) -> (bool, String) {
        let all = self.loop_status();
        let wrong = all.iter().find_map(|(name, status)| {
            if status.failed_runs >= FAILED_RUNS {
                let why = status.error.as_deref().unwrap_or("it failed");
                return Some(format!("loop `{name}` failed {} times in a row: {why}", status.failed_runs));
            }
            let overdue = status.ended.elapsed() > status.period.saturating_add(LOOP_OVERDUE);
            overdue.then(|| format!("loop `{name}` has not ended a run since {}", status.at))
        });
        match wrong {
            Some(wrong) => (false, wrong),
            None => (true, format!("{} loops run", all.len())),
        }
    }
}

/// Looks until everything ends.
pub(crate) async fn keep(control: Control) {
    let name = control.replica().to_string();
    control.spawn("database check", look_for_damage(control.clone()));
    let mut ticks = tokio::time::interval(CHECK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut number, mut told) = (0_u64, false);
    loop {
        tokio::select! {
            () = control.stopping().cancelled() => return,
            _ = ticks.tick() => {}
        }
        number += 1;
        let token = number.to_string();
        let checked = tokio::time::timeout(CHECK_TIMEOUT, control.store().check_writes(&name, &token)).await;
        let wrong = match checked {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(chain(&error)),
            Err(_) => {
                let why = control.store().why_silent().await.map(|why| format!(": {why}")).unwrap_or_default();
                let limit = CHECK_TIMEOUT.as_secs();
                Some(format!("the database did not take and give back a row in {limit} s{why}"))
            }
        };
        note(&control, wrong);
        let (ready, why) = control.loops_part();
        if !ready && !told {
            tracing::warn!("the control plane is not ready: {why}");
        }
        told = !ready;
    }
}

/// A file that is damaged in one place works in all others, and says so only to whoever reads there: so the whole of it is
/// read once after a start.
async fn look_for_damage(control: Control) {
    let found = tokio::select! {
        () = control.stopping().cancelled() => return,
        found = control.store().damage() => found,
    };
    match found {
        Ok(None) => {}
        Ok(Some(damage)) => {
            tracing::error!(
                damage,
                "the database is damaged; stop this Toolyard and put the database back from a backup"
            );
            control.0.readiness.0.lock().unwrap_or_else(PoisonError::into_inner).damage = Some(damage);
        }
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "whether the database is damaged could not be looked at");
        }
    }
}

fn note(control: &Control, wrong: Option<String>) {
    let now = control.clock().now();
    // With the first that works nothing was written until now.
    if wrong.is_some() || !control.writes_work() {
        control.fleet().note_failed(WRITES, now);
    }
    let before = {
        let mut found = control.0.readiness.0.lock().unwrap_or_else(PoisonError::into_inner);
        found.writes.replace((now, wrong.clone()))
    };
    let was_wrong = matches!(before, Some((_, Some(_))));
    match wrong {
        Some(why) if !was_wrong => tracing::error!(why, "writes do not work"),
        None if was_wrong => tracing::info!("writes work again"),
        _ => {}
    }
    let readiness = control.readiness();
    for (name, part) in readiness.parts() {
        metrics::gauge!("toolyard_ready", "part" => name).set(if part.ready { 1.0 } else { 0.0 });
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
