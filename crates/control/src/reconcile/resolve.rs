//! A revision without a lock gets a job on a toolbox, which answers with the full lock.

use std::time::Duration;

use toolyard_store::JobState;
use toolyard_types::Timestamp;
use toolyard_types::state::Reason;

use super::case::Case;
use super::place;
use super::steps::Step;

/// How often a revision is resolved before its rollout gives up.
pub(super) const ATTEMPTS: usize = 3;
/// How long to wait before another attempt.
const PAUSE: Duration = Duration::from_secs(5);

/// Whether trying again can help.
pub(super) fn is_final(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::PackageNotFound | Reason::ImageNotFound | Reason::ConfigInvalid | Reason::UnsupportedByEngine
    )
}

pub(super) fn decide(case: &Case, now: Timestamp) -> Option<Step> {
    if case.is_held() || !case.needs_lock() || now >= case.rollout.deadline {
        return None;
    }
    // Attempts of an earlier rollout of the same revision do not count against this one.
    let mut jobs = case.jobs.iter().filter(|job| job.created_at >= case.rollout.started_at);
    let attempts = jobs.clone().filter(|job| job.reason != Some(Reason::ToolboxUnreachable)).count();
    match jobs.next() {
        Some(job) if job.state == JobState::Pending && case.online(job.toolbox) => return None,
        Some(job) if job.state == JobState::Failed => {
            let reason = job.reason.unwrap_or(Reason::Internal);
            if is_final(reason) || attempts >= ATTEMPTS || now.since(job.created_at) < PAUSE {
                return None;
            }
        }
        _ => {}
    }
    match place::choose(case) {
        Ok(toolbox) => Some(Step::Resolve(toolbox)),
        Err((Reason::UnsupportedByEngine, message)) => Some(Step::Fail(Reason::UnsupportedByEngine, message)),
        Err((reason, message)) => case.note(reason, message),
    }
}
