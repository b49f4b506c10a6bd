//! *Rollout*: has a new revision resolved (`resolve`) and placed (`place`), watches its instances until they are ready,
//! will not get ready, or the deadline passed; then lets them serve, and watches on.
//!
//! The old revision serves until every instance of the new one has answered and none of its tools is missing. So a
//! revision that never gets ready, or that lost a tool, costs no call. What happens then:
//!
//! - With a *canary* the new revision takes a part of the calls until it is promoted. One failure ends it.
//! - With `surge` traffic is switched and the old instances run on while the new ones are *observed*. If one of those
//!   exits, degrades or fails a probe meanwhile, traffic goes back at once. One that is busy with calls fails nothing, and
//!   is observed until it answers again.
//! - With `recreate` the new instances are prepared first, then the old ones are stopped, and only when their end was
//!   observed the new ones are started. There is nothing to go back to, so nothing is observed. On a toolbox that is lost
//!   nobody can observe it: the rollout goes on when the operator has moved the server away from there, else it waits.
//!
//! While an old revision serves, a new instance that ends by itself fails the rollout at once: trying again is for a
//! server that has nothing else to serve with.

use std::collections::BTreeSet;
use std::time::Duration;

use toolyard_store::{InstanceRow, InstanceWish, JobState, ToolboxRow};
use toolyard_types::Timestamp;
use toolyard_types::agent::{BUSY, McpInfo};
use toolyard_types::name::printable;
use toolyard_types::spec::Strategy;
use toolyard_types::state::{Phase, Reason, ToolboxState};

use super::Pass;
use super::case::{Case, for_each};
use super::resolve::{ATTEMPTS, is_final};
use super::steps::{STOPPING, Step};
use super::{place, resolve};
use crate::{Control, Result};

/// How often a remote server is probed before its rollout gives up.
const PROBES: u32 = 3;
/// How often a new instance may end before its rollout gives up, when nothing else serves.
const RESTARTS: u32 = 2;
/// How much of standard error a rollout quotes.
const TAIL_CHARS: usize = 600;
/// What the agent says of an instance that is installed and waits.
const PREPARED: &str = "prepared";
/// How many lost tools are named.
const NAMED: usize = 10;

pub(crate) async fn run(control: &Control) -> Result<Pass> {
    for_each(control, decide).await
}

fn decide(case: &Case, now: Timestamp) -> Option<Step> {
    watch(case, now).or_else(|| resolve::decide(case, now)).or_else(|| place::decide(case, now))
}

fn watch(case: &Case, now: Timestamp) -> Option<Step> {
    if let Some(switched_at) = case.rollout.switched_at {
        return observe(case, switched_at, now);
    }
    if case.is_held() {
        let opens = case.rollout.next_attempt_at.unwrap_or(now);
        return (now >= opens).then_some(Step::Begin);
    }
    if now >= case.deadline && !case.is_on_trial() {
        return Some(Step::Fail(Reason::DeadlineExceeded, overdue(case)));
    }
    if case.is_remote() {
        return remote(case);
    }
    if case.needs_lock() {
        return failed_job(case);
    }
    if let Some(gone) = case.mine.iter().find(|instance| instance.ended_at.is_some()) {
        return Some(Step::Fail(gone.status.reason, told(gone)));
    }
    if let Some(hopeless) = case.mine.iter().find(|instance| is_hopeless(case, instance)) {
        let (reason, message) = why(hopeless);
        return Some(Step::Fail(reason, message));
    }
    if case.mine.len() < case.wanted() {
        return None;
    }
    match case.mine.iter().find(|instance| !has_arrived(instance)) {
        // One that takes over the canary from a toolbox that it leaves (`scale`). Meanwhile the canary is tried on, and its
        // time does not wait for one that may never come.
        Some(_) if case.is_on_trial() && case.mine.iter().any(has_arrived) => ready(case, now),
        Some(_) if case.is_on_trial() => None,
        Some(instance) => waiting(case, instance),
        None => match case.mine.iter().find(|instance| instance.desired == InstanceWish::Prepare) {
            Some(instance) => prepared(case, instance),
            None => ready(case, now),
        },
    }
}

/// Whether an instance is where it was asked to be.
fn has_arrived(instance: &InstanceRow) -> bool {
    match instance.desired {
        InstanceWish::Prepare => {
            instance.status.phase == Phase::Pending && instance.status.message == PREPARED
                || instance.status.phase == Phase::Ready
        }
        _ => instance.status.phase == Phase::Ready,
    }
}

fn waiting(case: &Case, instance: &InstanceRow) -> Option<Step> {
    if !case.online(instance.toolbox) {
        return case.note(Reason::ToolboxUnreachable, "its toolbox has not been heard for too long".into());
    }
    // An instance that only just got its place has nothing to tell yet.
    if matches!(instance.status.reason, Reason::AwaitingToolbox | Reason::Requested) {
        return None;
    }
    case.note(instance.status.reason, instance.status.message.clone())
}

/// All are prepared: the old ones make room, then the new ones start.
fn prepared(case: &Case, instance: &InstanceRow) -> Option<Step> {
    let old: Vec<_> = case.earlier().collect();
    if old.is_empty() {
        return Some(Step::Run(instance.id));
    }
    let silent = |row: &InstanceRow| case.toolbox(row.toolbox).filter(|it| it.status.phase != ToolboxState::Online);
    let gone = |row: &&&InstanceRow| silent(row).is_some_and(|toolbox| toolbox.is_lost() && case.leaves(toolbox));
    let given_up: Vec<_> = old.iter().filter(gone).map(|row| row.id).collect();
    if !given_up.is_empty() {
        return Some(Step::GiveUp(given_up));
    }
    if let Some(toolbox) = old.iter().find_map(|row| silent(row)) {
        return case.note(Reason::ToolboxUnreachable, may_still_run(case, toolbox));
    }
    if old.iter().any(|row| row.desired != InstanceWish::Stop) {
        return Some(Step::StopOld);
    }
    case.note(Reason::Requested, STOPPING.to_owned())
}

fn may_still_run(case: &Case, toolbox: &ToolboxRow) -> String {
    let (name, heard) = (&toolbox.name, toolbox.last_seen_at.unwrap_or_default());
    let until = if case.leaves(toolbox) {
        format!("until `{name}` is heard, evicted or removed")
    } else {
        format!("until `{name}` is heard or removed, or the server is moved to another toolbox by name")
    };
    format!(
        "toolbox `{name}`, last heard at {heard}, may still run what must not run twice; prepared elsewhere, it waits {until}"
    )
}

/// Every instance answers.
fn ready(case: &Case, now: Timestamp) -> Option<Step> {
    let answers = case.mine.iter().filter_map(|instance| instance.mcp.as_ref());
    if let Some(message) = lost_tools(case, answers) {
        return Some(Step::Fail(Reason::ToolsLost, message));
    }
    if let Some(canary) = &case.rollout.canary {
        match (canary.started_at, canary.promoted_at) {
            (None, _) => return Some(Step::StartCanary),
            (Some(since), None) => {
                let after = canary.promote_after_seconds.map(|seconds| Duration::from_secs(seconds.into()));
                return after.filter(|after| now.since(since) >= *after).map(|_| Step::Promote);
            }
            (Some(_), Some(_)) => {}
        }
    }
    // What does not answer now is nothing to go back to.
    let observed = case.serving().any(|old| old.status.phase == Phase::Ready)
        && case.is_change()
        && case.server.observe_ms > 0
        && case.revision.spec.strategy == Strategy::Surge;
    Some(if observed { Step::Switch } else { Step::Done })
}

/// The new revision serves, the old one runs on: goes back at the first failure, and ends well after the time for it.
fn observe(case: &Case, switched_at: Timestamp, now: Timestamp) -> Option<Step> {
    let served = now.since(switched_at);
    let back = |reason: Reason, why: String| {
        let message = format!("revision {} served for {}: {why}", case.revision.number, seconds(served));
        Some(Step::GoBack(reason, message))
    };
    for instance in &case.mine {
        if let Some((reason, why)) = failure(instance) {
            return back(reason, why);
        }
    }
    if case.mine.is_empty() {
        return back(Reason::Exited, "its instances are gone".into());
    }
    let silent = case.mine.iter().any(|instance| !case.online(instance.toolbox));
    if silent && case.previous().any(|old| old.status.phase == Phase::Ready && case.online(old.toolbox)) {
        return back(Reason::ToolboxUnreachable, "its toolbox has not been heard for too long".into());
    }
    // Whether it fails or is only held up by a call shows when it answers, or when the call has taken longer than any may.
    let busy = case.mine.iter().any(|instance| instance.status.message == BUSY);
    (served >= Duration::from_millis(case.server.observe_ms) && !busy).then_some(Step::Done)
}

/// What went wrong with an instance that was ready.
fn failure(instance: &InstanceRow) -> Option<(Reason, String)> {
    let status = &instance.status;
    if instance.ended_at.is_some() || status.phase != Phase::Ready {
        let (reason, message) = why(instance);
        return Some((reason, if message.is_empty() { reason.to_string() } else { message }));
    }
    if instance.restarts > 0 {
        return Some(ended_by_agent(instance).unwrap_or_else(|| {
            (Reason::Exited, format!("it ended by itself and was started again{}", stderr(instance)))
        }));
    }
    (instance.failures > 0).then(|| (Reason::ProbeFailed, "it did not answer a probe".into()))
}

/// Why an instance that once ran does not do what it should. One that is being started again, or was, says by its status only
/// how far it is by now.
fn why(instance: &InstanceRow) -> (Reason, String) {
    let status = &instance.status;
    let failed = matches!(status.phase, Phase::Failed | Phase::Degraded | Phase::Stopped | Phase::Stopping);
    let ended = matches!(status.reason, Reason::Exited | Reason::CrashLoop | Reason::OutOfMemory | Reason::OutOfDisk);
    if failed || ended || instance.ended_at.is_some() {
        return (status.reason, told(instance));
    }
    ended_by_agent(instance).unwrap_or_else(|| {
        let message = "it ended, by itself or with its host, and was started again";
        (Reason::Exited, format!("{message}{}", stderr(instance)))
    })
}

/// Why its agent ended an instance, if it did.
fn ended_by_agent(instance: &InstanceRow) -> Option<(Reason, String)> {
    let failure = instance.exit.as_ref()?.failure.as_ref()?;
    Some((failure.reason, format!("{}{}", failure.message, stderr(instance))))
}

fn is_hopeless(case: &Case, instance: &InstanceRow) -> bool {
    let status = &instance.status;
    if !case.old_serves() {
        return match status.phase {
            Phase::Failed => {
                status.next_attempt_at.is_none() || status.reason == Reason::CrashLoop || instance.restarts >= RESTARTS
            }
            Phase::Degraded => status.reason == Reason::CrashLoop,
            _ => false,
        };
    }
    match status.phase {
        Phase::Failed => status.next_attempt_at.is_none() || !is_passing(status.reason),
        Phase::Degraded => true,
        Phase::Starting => {
            matches!(status.reason, Reason::Exited | Reason::CrashLoop | Reason::OutOfMemory | Reason::OutOfDisk)
        }
        _ => instance.restarts > 0,
    }
}

/// Whether a failure is none of the revision's own.
fn is_passing(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::InstallFailed
            | Reason::EngineUnavailable
            | Reason::ToolboxUnreachable
            | Reason::CredentialExpired
            | Reason::NoCapacity
            | Reason::Internal
    )
}

/// Says which tools of what serves a new revision no longer lists; `None` when it lists them all, may lose some, or
/// when either side's list is not known whole.
fn lost_tools<'a>(case: &Case, answers: impl Iterator<Item = &'a McpInfo>) -> Option<String> {
    if case.rollout.accept_lost_tools || !case.is_change() {
        return None;
    }
    let known = |mcp: &&McpInfo| {
        mcp.tool_names.len() < McpInfo::MOST_TOOL_NAMES && (!mcp.tool_names.is_empty() || mcp.tools == 0)
    };
    let mut lost = BTreeSet::new();
    for answer in answers.filter(known) {
        let listed: BTreeSet<_> = answer.tool_names.iter().collect();
        lost.extend(case.served_tools.iter().filter(|name| !listed.contains(name)).cloned());
    }
    if lost.is_empty() {
        return None;
    }
    let named: Vec<_> = lost.iter().take(NAMED).map(|name| format!("`{}`", printable(name))).collect();
    let more = lost.len() - named.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Some(format!(
        "revision {} no longer lists {}{more}; `--accept-lost-tools` lets it serve without",
        case.revision.number,
        named.join(", ")
    ))
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
        Some(probe) if probe.status.phase == Phase::Ready => match lost_tools(case, probe.mcp.iter()) {
            Some(message) => Some(Step::Fail(Reason::ToolsLost, message)),
            None => Some(Step::Done),
        },
        Some(probe) if probe.failures >= PROBES => Some(Step::Fail(probe.status.reason, probe.status.message.clone())),
        Some(probe) => case.note(probe.status.reason, probe.status.message.clone()),
        None => case.note(Reason::AwaitingProbe, "probing the remote server".into()),
    }
}

fn overdue(case: &Case) -> String {
    // What is prepared waits for something else.
    let slowest = case.mine.iter().filter(|instance| !has_arrived(instance)).max_by_key(|it| it.id);
    let (reason, message) = slowest.map_or_else(
        || (case.rollout.reason, case.rollout.message.clone()),
        |instance| (instance.status.reason, told(instance)),
    );
    let last = if message.is_empty() { reason.to_string() } else { format!("{reason}: {message}") };
    format!("it was not ready before the deadline; last: {last}")
}

/// An instance's message with the end of what it wrote to standard error.
fn told(instance: &InstanceRow) -> String {
    let message = &instance.status.message;
    let tail = stderr(instance);
    match tail.strip_prefix("; stderr: ") {
        Some(tail) if message.contains(tail) => message.clone(),
        Some(tail) if message.is_empty() => format!("stderr: {tail}"),
        _ => format!("{message}{tail}"),
    }
}

fn stderr(instance: &InstanceRow) -> String {
    let tail = instance.exit.as_ref().map(|exit| exit.stderr_tail.trim()).unwrap_or_default();
    if tail.is_empty() {
        return String::new();
    }
    let skip = tail.chars().count().saturating_sub(TAIL_CHARS);
    let tail: String = tail.chars().skip(skip).collect();
    format!("; stderr: {tail}")
}

/// `2.4 seconds`.
fn seconds(duration: Duration) -> String {
    let tenths = duration.as_millis() / 100;
    format!("{}.{} seconds", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
    use proptest::sample::select;
    use toolyard_store::ProbeRow;
    use toolyard_types::api::servers::Canary;
    use toolyard_types::state::{RolloutState, Status};

    use super::super::case::tests::{answer, change, with};
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_ms(ms)
    }

    #[test]
    fn tools_are_lost_only_when_both_lists_are_known() {
        let mut case = with(change(), Phase::Ready, Reason::Answered);
        case.served_tools = ["a", "b"].into_iter().map(str::to_owned).collect();
        case.mine[0].mcp = Some(answer(&["a", "c"]));
        let Some(Step::Fail(Reason::ToolsLost, message)) = decide(&case, at(2)) else { panic!() };
        assert_eq!(message, "revision 2 no longer lists `b`; `--accept-lost-tools` lets it serve without");
        // An agent of before tells how many there are and not which.
        let mut untold = answer(&[]);
        untold.tools = 2;
        case.mine[0].mcp = Some(untold);
        assert_eq!(decide(&case, at(2)), Some(Step::Switch));
        case.mine[0].mcp = Some(answer(&[]));
        assert!(matches!(decide(&case, at(2)), Some(Step::Fail(Reason::ToolsLost, _))));
        case.rollout.accept_lost_tools = true;
        assert_eq!(decide(&case, at(2)), Some(Step::Switch));
    }

    #[test]
    fn a_remote_whose_answer_found_no_room_says_so_and_is_not_counted_out() {
        let mut case = change();
        let status = Status::new(Phase::Starting, Reason::AwaitingProbe, "no memory", at(2));
        let (revision, server) = (case.revision.id, case.server.id);
        case.probe =
            Some(ProbeRow { revision, server, status, checked_at: at(2), failures: 0, slow: false, mcp: None });
        assert_eq!(remote(&case), Some(Step::Note(Reason::AwaitingProbe, "no memory".into())));
        case.rollout.reason = Reason::AwaitingProbe;
        case.rollout.message = "no memory".into();
        assert_eq!(remote(&case), None, "it is said once");
    }

    #[test]
    fn at_most_ten_lost_tools_are_named() {
        let mut case = with(change(), Phase::Ready, Reason::Answered);
        case.served_tools = (0..25).map(|number| format!("tool{number:02}\u{1b}[31m")).collect();
        case.mine[0].mcp = Some(answer(&[]));
        let Some(Step::Fail(_, message)) = decide(&case, at(2)) else { panic!() };
        assert!(message.contains("tool09") && !message.contains("tool10") && message.contains(" and 15 more"));
        assert!(!message.contains('\u{1b}'), "{message:?}");
    }

    #[test]
    fn an_instance_that_is_busy_while_it_is_observed_has_not_failed_and_is_observed_until_it_answers() {
        let mut case = with(change(), Phase::Ready, Reason::Answered);
        case.rollout.switched_at = Some(at(1));
        case.rollout.from_rollout = case.live.first().map(|old| old.rollout);
        case.mine[0].status.message = BUSY.into();
        assert_eq!((decide(&case, at(1000)), decide(&case, at(60_000))), (None, None));
        case.mine[0].status.message = String::new();
        assert_eq!(decide(&case, at(60_000)), Some(Step::Done));
        case.mine[0].failures = 1;
        assert!(matches!(decide(&case, at(1000)), Some(Step::GoBack(Reason::ProbeFailed, _))));
    }

    #[test]
    fn a_canary_is_promoted_when_its_time_is_over_also_beside_one_that_takes_it_over_and_never_answers() {
        let mut case = with(with(change(), Phase::Ready, Reason::Answered), Phase::Starting, Reason::Requested);
        case.rollout.canary = Some(Canary {
            weight: 10,
            clients: Vec::new(),
            promote_after_seconds: Some(5),
            started_at: Some(at(1)),
            promoted_at: None,
        });
        assert_eq!((decide(&case, at(4000)), decide(&case, at(5001))), (None, Some(Step::Promote)));
        case.mine.remove(0);
        assert_eq!(decide(&case, at(5001)), None, "none answers");
    }

    #[test]
    fn a_rollout_that_goes_back_because_of_a_restart_says_so_and_not_how_far_the_next_start_is() {
        let ended = "it ended, by itself or with its host, and was started again";
        let mut case = with(change(), Phase::Ready, Reason::Answered);
        case.mine[0].restarts = 1;
        assert_eq!(decide(&case, at(2)), Some(Step::Fail(Reason::Exited, ended.into())));
        case = with(change(), Phase::Preparing, Reason::Installing);
        case.rollout.switched_at = Some(at(1));
        let Some(Step::GoBack(Reason::Exited, message)) = decide(&case, at(1001)) else { panic!() };
        assert_eq!(message, format!("revision 2 served for 1.0 seconds: {ended}"));
    }

    #[test]
    fn a_restart_and_a_recreate_are_not_observed() {
        let mut case = with(change(), Phase::Ready, Reason::Answered);
        case.revision.spec.strategy = Strategy::Recreate;
        assert_eq!(decide(&case, at(2)), Some(Step::Done));
        case.revision.spec.strategy = Strategy::Surge;
        case.rollout.from_revision = Some(case.rollout.to_revision);
        assert_eq!(decide(&case, at(2)), Some(Step::Done));
        case.rollout.from_revision = None;
        case.server.serving_rollout = None;
        assert_eq!(decide(&case, at(2)), Some(Step::Done));
    }

    proptest! {
        /// Whatever is observed in whatever order: traffic goes to a revision only when all of it is ready, never
        /// from one that serves to one that fails, and a revision that serves and fails gives it back.
        #[test]
        fn traffic_only_goes_where_everything_is_ready(
            seen in proptest::collection::vec((select(Phase::ALL), select(Reason::ALL), 0..3_u32, any::<bool>()), 0..4),
            replicas in 1..4_u32,
            switched: bool,
            tried in proptest::option::of((any::<bool>(), any::<bool>())),
            now in 2..2_000_000_i64,
        ) {
            let mut case = change();
            case.server.replicas = replicas;
            for (phase, reason, restarts, ended) in seen {
                case = with(case, phase, reason);
                let last = case.mine.last_mut().unwrap();
                last.restarts = restarts;
                last.ended_at = ended.then(|| at(2));
                if phase == Phase::Ready && !ended {
                    last.mcp = Some(answer(&["a"]));
                }
            }
            case.rollout.canary = tried.map(|(started, promoted)| Canary {
                weight: 10,
                clients: Vec::new(),
                promote_after_seconds: None,
                started_at: started.then(|| at(1)),
                promoted_at: (started && promoted).then(|| at(1)),
            });
            if switched {
                case.rollout.switched_at = Some(at(1));
                case.rollout.from_rollout = case.live.first().map(|old| old.rollout);
            }
            let fine = |it: &InstanceRow| it.status.phase == Phase::Ready && it.ended_at.is_none() && it.restarts == 0;
            let all_fine = case.mine.iter().all(fine);
            let step = decide(&case, at(now));
            match &step {
                Some(Step::Switch | Step::Done | Step::StartCanary) => {
                    prop_assert!(all_fine && !case.mine.is_empty());
                    prop_assert!(switched || case.mine.len() >= case.wanted());
                }
                Some(Step::GoBack(..)) => prop_assert!(switched && (!all_fine || case.mine.is_empty())),
                Some(Step::Fail(..)) => prop_assert!(!switched),
                _ => {}
            }
            if switched && !all_fine {
                prop_assert!(matches!(step, Some(Step::GoBack(..))));
            }
            if switched && all_fine && !case.mine.is_empty() {
                prop_assert_eq!(matches!(step, Some(Step::Done)), now > 5_000);
            }
            prop_assert_eq!(case.rollout.state, RolloutState::Progressing);
        }
    }
}
