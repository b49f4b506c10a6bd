//! *Rollout*: watches the new revision's instance until it is ready, will not get ready, or the deadline passed.
//!
//! The old revision serves until then. With `recreate` the new instance is prepared first, then the old one is
//! stopped, and only when its end was observed the new one is started.

use toolyard_store::{InstanceRow, InstanceWish, JobState};
use toolyard_types::Timestamp;
use toolyard_types::state::{Phase, Reason};

use super::Pass;
use super::case::{Case, Step, for_each};
use super::resolve::{ATTEMPTS, is_final};
use crate::{Control, Result};

/// How often a remote server is probed before its rollout gives up.
const PROBES: u32 = 3;
/// How often a new instance may end before its rollout gives up.
const RESTARTS: u32 = 2;
/// How much of standard error a rollout quotes.
const TAIL_CHARS: usize = 600;
/// What the agent says of an instance that is installed and waits.
const PREPARED: &str = "prepared";

pub(crate) async fn run(control: &Control) -> Result<Pass> {
    for_each(control, decide).await
}

fn decide(case: &Case, now: Timestamp) -> Option<Step> {
    if now >= case.rollout.deadline {
        return Some(Step::Fail(Reason::DeadlineExceeded, overdue(case)));
    }
    if case.is_remote() {
        return remote(case);
    }
    if case.needs_lock() {
        return failed_job(case);
    }
    let instance = case.mine.iter().max_by_key(|instance| instance.id)?;
    if instance.ended_at.is_some() {
        return Some(Step::Fail(instance.status.reason, told(instance)));
    }
    match instance.status.phase {
        Phase::Ready if instance.desired == InstanceWish::Run => Some(Step::Done),
        _ if is_hopeless(instance) => Some(Step::Fail(instance.status.reason, told(instance))),
        Phase::Pending if instance.desired == InstanceWish::Prepare && instance.status.message == PREPARED => {
            prepared(case, instance)
        }
        _ if !case.online(instance.toolbox) => {
            case.note(Reason::ToolboxUnreachable, "its toolbox has not been heard for too long".into())
        }
        // An instance that only just got its place has nothing to tell yet.
        _ if matches!(instance.status.reason, Reason::AwaitingToolbox | Reason::Requested) => None,
        _ => case.note(instance.status.reason, instance.status.message.clone()),
    }
}

fn prepared(case: &Case, instance: &InstanceRow) -> Option<Step> {
    let mut old = case.serving().peekable();
    if old.peek().is_none() {
        return Some(Step::Run(instance.id));
    }
    old.any(|row| row.desired != InstanceWish::Stop).then_some(Step::StopOld)
}

fn is_hopeless(instance: &InstanceRow) -> bool {
    let status = &instance.status;
    match status.phase {
        Phase::Failed => {
            status.next_attempt_at.is_none() || status.reason == Reason::CrashLoop || instance.restarts >= RESTARTS
        }
        Phase::Degraded => status.reason == Reason::CrashLoop,
        _ => false,
    }
}

fn failed_job(case: &Case) -> Option<Step> {
    let mut jobs = case.jobs.iter().filter(|job| job.created_at >= case.rollout.started_at);
    let attempts = jobs.clone().filter(|job| job.reason != Some(Reason::ToolboxUnreachable)).count();
    let job = jobs.next().filter(|job| job.state == JobState::Failed)?;
    let reason = job.reason.unwrap_or(Reason::Internal);
    let message = job.message.clone().unwrap_or_default();
    (is_final(reason) || attempts >= ATTEMPTS).then_some(Step::Fail(reason, message))
}

fn remote(case: &Case) -> Option<Step> {
    let probe = case.probe.as_ref().filter(|probe| probe.checked_at >= case.rollout.started_at);
    match probe {
        Some(probe) if probe.status.phase == Phase::Ready => Some(Step::Done),
        Some(probe) if probe.failures >= PROBES => Some(Step::Fail(probe.status.reason, probe.status.message.clone())),
        Some(probe) => case.note(probe.status.reason, probe.status.message.clone()),
        None => case.note(Reason::AwaitingProbe, "probing the remote server".into()),
    }
}

fn overdue(case: &Case) -> String {
    let newest = case.mine.iter().max_by_key(|instance| instance.id);
    let (reason, message) = newest.map_or_else(
        || (case.rollout.reason, case.rollout.message.clone()),
        |instance| (instance.status.reason, told(instance)),
    );
    let last = if message.is_empty() { reason.to_string() } else { format!("{reason}: {message}") };
    format!("it was not ready before the deadline; last: {last}")
}

/// An instance's message with the end of what it wrote to standard error.
fn told(instance: &InstanceRow) -> String {
    let message = &instance.status.message;
    let tail = instance.exit.as_ref().map(|exit| exit.stderr_tail.trim()).unwrap_or_default();
    if tail.is_empty() || message.contains(tail) {
        return message.clone();
    }
    let skip = tail.chars().count().saturating_sub(TAIL_CHARS);
    let tail: String = tail.chars().skip(skip).collect();
    if message.is_empty() { format!("stderr: {tail}") } else { format!("{message}; stderr: {tail}") }
}
