//! A revision without a lock gets a job on a toolbox, which answers with the full lock.

use std::time::Duration;

use toolyard_store::{JobRow, JobState};
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
    if case.is_held() || !case.needs_lock() || now >= case.deadline {
        return None;
    }
    // Attempts of an earlier rollout of the same revision do not count against this one.
    let mut jobs = case.jobs.iter().filter(|job| job.created_at >= case.rollout.started_at);
    let attempts = jobs.clone().filter(|job| job.reason != Some(Reason::ToolboxUnreachable)).count();
    match jobs.next() {
        Some(job) if job.state == JobState::Pending && case.online(job.toolbox) => return told(case, job),
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
        Err((reason, message)) => place::without(case, reason, message),
    }
}

/// Says what a job under way tells of itself, once it has told anything.
fn told(case: &Case, job: &JobRow) -> Option<Step> {
    let name = case.toolbox(job.toolbox)?.name.to_string();
    let message = match job.message.as_deref()? {
        "" => determines(&name),
        told => format!("toolbox `{name}` {told}"),
    };
    case.note(Reason::Resolving, message)
}

/// What a job is for.
pub(super) fn determines(toolbox: &str) -> String {
    format!("toolbox `{toolbox}` determines the exact versions")
}

#[cfg(test)]
mod tests {
    use toolyard_types::JobId;

    use super::super::case::tests::change;
    use super::*;

    #[test]
    fn a_rollout_says_what_its_job_waits_for_and_that_it_goes_on() {
        let mut case = change();
        case.revision.lock_digest = None;
        case.rollout.started_at = Timestamp::from_ms(1);
        let toolbox = case.places.toolboxes[0].clone();
        case.jobs = vec![JobRow {
            id: JobId::generate(),
            toolbox: toolbox.id,
            revision: case.revision.id,
            state: JobState::Pending,
            reason: None,
            message: None,
            created_at: Timestamp::from_ms(1),
        }];
        let decided = |case: &Case| decide(case, Timestamp::from_ms(2));
        assert_eq!(decided(&case), None, "one that has told nothing is as it was asked");
        case.jobs[0].message = Some("waits for 2 other packages to be fetched first".into());
        let waits = format!("toolbox `{}` waits for 2 other packages to be fetched first", toolbox.name);
        assert_eq!(decided(&case), Some(Step::Note(Reason::Resolving, waits.clone())));
        (case.rollout.reason, case.rollout.message) = (Reason::Resolving, waits);
        assert_eq!(decided(&case), None, "it was said");
        case.jobs[0].message = Some(String::new());
        assert_eq!(decided(&case), Some(Step::Note(Reason::Resolving, determines(toolbox.name.as_str()))));
    }
}
