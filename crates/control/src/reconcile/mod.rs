//! The loops that make what runs be what should run, a file per loop.
//!
//! A loop takes no arguments, reads everything it needs, does a bounded amount, may run twice at once, and
//! reports a status. It is woken by every commit that wrote an event, and by a period in case a wake was
//! lost (another replica committed). It listens for wakes before it reads, so none falls between.

pub(crate) mod case;
mod follow_up;
mod generations;
mod links;
mod lost;
pub(crate) mod phase;
pub(crate) mod place;
pub(crate) mod remote;
mod resolve;
mod rollout;
mod scale;
mod schedule;
pub(crate) mod steps;
pub(crate) mod trim;

use std::time::Duration;

use futures_util::future::BoxFuture;
use toolyard_store::{Loop, ServerRef};
use toolyard_types::Timestamp;
use tracing::Instrument;

use crate::fleet::{LoopStatus, locked};
use crate::{Control, ControlError, LONGEST_RUN, Result};

/// What one run of a loop did.
#[derive(Debug, Default)]
pub(crate) struct Pass {
    /// How many things it changed.
    pub(crate) changed: usize,
    wait: Option<Duration>,
    error: Option<String>,
}

impl Pass {
    /// Asks for another run after `wait`, if that is sooner than otherwise.
    pub(crate) fn again_in(&mut self, wait: Duration) {
        self.wait = Some(self.wait.map_or(wait, |other| other.min(wait)));
    }

    /// Asks for another run at once.
    pub(crate) fn again(&mut self) {
        self.again_in(Duration::ZERO);
    }

    /// Notes that one thing failed; the others go on, and the next run tries again.
    pub(crate) fn failed(&mut self, error: &ControlError) {
        // Two writers met; whoever came first was right, and the next run sees what is left.
        if matches!(error, ControlError::Store(toolyard_store::StoreError::Stale)) {
            return;
        }
        tracing::warn!(error = error as &dyn std::error::Error, "one step of a loop failed");
        self.error = Some(error.to_string());
    }
}

/// Puts off servers that a loop looked at and could do nothing about, each until then unless something happens to it.
/// `seen` is the newest event before it looked.
pub(crate) async fn put_off(
    control: &Control,
    which: Loop,
    seen: i64,
    waits: Vec<(ServerRef, Timestamp)>,
) -> Result<()> {
    if waits.is_empty() {
        return Ok(());
    }
    let tx = control.store().system("putting off servers that wait").await?;
    tx.put_off(which, seen, &waits).await?;
    Ok(tx.commit().await?)
}

/// One run of a loop.
type Step = for<'a> fn(&'a Control) -> BoxFuture<'a, Result<Pass>>;

/// Starts every loop.
pub(crate) fn spawn(control: &Control) {
    macro_rules! start {
        ($($name:ident every $seconds:literal s;)*) => {$(
            let step: Step = |control| Box::pin($name::run(control));
            let task = control.clone();
            let period = Duration::from_secs($seconds);
            control.spawn(stringify!($name), async move { repeat(&task, stringify!($name), period, step).await });
        )*};
    }
    start! {
        rollout every 1 s;
        scale every 2 s;
        schedule every 5 s;
        follow_up every 2 s;
        generations every 1 s;
        links every 1 s;
        lost every 5 s;
        remote every 2 s;
        trim every 300 s;
    }
    control.spawn("snapshot", crate::snapshot::keep(control.clone()));
}

/// How long agents have to be heard again once the database is back, before anything is held against what they run.
pub(crate) const TO_BE_HEARD: Duration = Duration::from_secs(30);
/// How long what failed is put off.
pub(crate) const AFTER_FAILURE: Duration = Duration::from_secs(2);
/// The longest that what waits for a time is put off: clocks are set.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// How many servers are looked at before those that wait are put off: a run that is given up goes on where it was.
pub(crate) const SERVERS_PER_PUT_OFF: usize = 50;
/// Wakes within this time are answered by one run.
const COALESCE: Duration = Duration::from_millis(10);
/// A loop that took long rests twice as long before it answers the next wake, up to this. So with very much to look at it
/// takes a part of the machine, and the more that changed meanwhile is answered by one run.
const LONGEST_REST: Duration = Duration::from_millis(500);
/// The same for loops that look through every server, and for places of probes that get free.
const COALESCE_ALL: Duration = Duration::from_millis(100);

async fn repeat(control: &Control, name: &'static str, period: Duration, step: Step) {
    let mut wakes = control.store().wakes();
    let coalesce = if matches!(name, "scale" | "follow_up") { COALESCE_ALL } else { COALESCE };
    loop {
        wakes.mark_unchanged();
        let nudged = control.fleet().nudge.notified();
        tokio::pin!(nudged);
        nudged.as_mut().enable();
        let began = tokio::time::Instant::now();
        // Whatever a run logs tells which loop it was.
        let run =
            tokio::time::timeout(LONGEST_RUN, step(control)).instrument(tracing::info_span!("loop", loop.name = name));
        let ran = tokio::select! {
            () = control.stopping().cancelled() => return,
            ran = run => ran,
        };
        let wait = report(control, name, period, ran);
        let rest = coalesce.max((began.elapsed() * 2).min(LONGEST_REST));
        // Trimming is never urgent.
        let wakes_it = name != "trim";
        tokio::select! {
            () = control.stopping().cancelled() => return,
            () = tokio::time::sleep(wait) => {}
            _ = wakes.changed(), if wakes_it => tokio::time::sleep(rest).await,
            () = nudged => {}
            () = control.probes().freed(), if name == "remote" => tokio::time::sleep(rest.max(COALESCE_ALL)).await,
        }
    }
}

/// Notes how a run went, and tells how long to wait for the next.
fn report(
    control: &Control,
    name: &'static str,
    period: Duration,
    ran: Result<Result<Pass>, tokio::time::error::Elapsed>,
) -> Duration {
    metrics::counter!("toolyard_loop_runs_total", "loop" => name).increment(1);
    let mut as_a_whole = true;
    let pass = match ran {
        Ok(Ok(pass)) => {
            as_a_whole = false;
            pass
        }
        Ok(Err(ControlError::Store(toolyard_store::StoreError::Stale))) => Pass::default(),
        Ok(Err(error)) => {
            tracing::warn!(error = &error as &dyn std::error::Error, loop.name = name, "loop `{name}` failed");
            Pass { error: Some(error.to_string()), ..Pass::default() }
        }
        Err(_) => {
            let why = format!("it took longer than {} s and was given up", LONGEST_RUN.as_secs());
            tracing::warn!(loop.name = name, "loop `{name}` failed: {why}");
            Pass { error: Some(why), ..Pass::default() }
        }
    };
    if pass.error.is_some() {
        metrics::counter!("toolyard_loop_errors_total", "loop" => name).increment(1);
    }
    let wait = pass.wait.map_or(period, |wait| wait.min(period));
    if as_a_whole && pass.error.is_some() {
        control.fleet().note_failed(name, control.clock().now());
    }
    let mut loops = locked(&control.fleet().loops);
    let before = loops.get(name).map_or(0, |status| status.failed_runs);
    let failed_runs = if as_a_whole && pass.error.is_some() { before.saturating_add(1) } else { 0 };
    let (at, ended) = (control.clock().now(), tokio::time::Instant::now());
    let status = LoopStatus { at, ended, changed: pass.changed, error: pass.error, failed_runs, period };
    loops.insert(name, status);
    wait
}
