//! A server's phase: a pure roll-up that speaks of what serves now.

use toolyard_store::{InstanceRow, InstanceWish, ProbeRow, RemovedToolbox, RolloutRow, ServerRow};
use toolyard_types::state::{Phase, Reason, RolloutState, Status};
use toolyard_types::{Timestamp, ToolboxId};

const SILENT: &str = "its toolbox has not been heard for too long";
/// Said of a server whose instance was told to end, of which its agent need not have heard.
const MAKES_ROOM: &str = "its instance ends, and another begins";

/// What the phase is made of.
#[derive(Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) server: &'a ServerRow,
    /// The rollout under way, or the last one.
    pub(crate) rollout: Option<&'a RolloutRow>,
    /// Instances that have not ended.
    pub(crate) live: &'a [InstanceRow],
    /// What was observed of a remote server's serving revision.
    pub(crate) probe: Option<&'a ProbeRow>,
    /// Toolboxes that have not been heard for too long.
    pub(crate) silent: &'a [ToolboxId],
    /// The toolbox where it must run, when that was removed.
    pub(crate) removed: Option<&'a RemovedToolbox>,
    /// What is known of its place, when it [`is_gone`].
    pub(crate) gone: Option<&'a Gone>,
}

/// What is known of a server that [`is_gone`].
#[derive(Clone, Debug)]
pub(crate) struct Gone {
    /// When its last instance ended, as far as that is remembered.
    pub(crate) since: Option<Timestamp>,
    /// Why no other one can begin; none when one begins any moment.
    pub(crate) why: Option<(Reason, String)>,
}

/// Whether nothing is left of what served, and no rollout says what comes next: another instance begins where one may
/// run, and there may be no such place.
pub(crate) fn is_gone(server: &ServerRow, rollout: Option<&RolloutRow>, live: &[InstanceRow]) -> bool {
    let should_run = server.enabled && !server.deleted && server.kind != "remote";
    let settled = rollout.is_some_and(|it| !matches!(it.state, RolloutState::Progressing | RolloutState::Failed));
    should_run
        && settled
        && server.serving_rollout.is_some_and(|serving| live.iter().all(|instance| instance.rollout != serving))
}

/// Says that the toolbox where a server must run was removed. Nothing but a move helps.
pub(crate) fn removed_message(removed: &RemovedToolbox) -> String {
    match &removed.name {
        Some(name) => format!("toolbox `{name}`, where it must run, was removed; move it to another"),
        None => "the toolbox where it must run was removed; move it to another".to_owned(),
    }
}

/// Where a server is and why.
pub(crate) fn roll_up(facts: &Facts<'_>) -> Status<Phase> {
    let Facts { server, rollout, .. } = *facts;
    if server.deleted || !server.enabled {
        return ending(facts);
    }
    if let Some(status) = serving(facts) {
        return status;
    }
    if let Some(removed) = facts.removed {
        return Status::new(Phase::Failed, Reason::ToolboxRemoved, removed_message(removed), removed.at);
    }
    match rollout {
        Some(rollout) if rollout.state == RolloutState::Progressing => progressing(facts, rollout),
        Some(rollout) => match rollout.state {
            RolloutState::Failed => Status::new(Phase::Failed, rollout.reason, rollout.message.clone(), ended(rollout)),
            RolloutState::Cancelled if server.serving_rollout.is_none() => {
                Status::new(Phase::Stopped, rollout.reason, rollout.message.clone(), ended(rollout))
            }
            _ => without_instance(facts, rollout),
        },
        None => Status::new(Phase::Pending, Reason::Requested, "", server.updated_at),
    }
}

/// The status of a server that had served and has no instance now.
fn without_instance(facts: &Facts<'_>, rollout: &RolloutRow) -> Status<Phase> {
    let since = facts.gone.and_then(|gone| gone.since).unwrap_or_else(|| ended(rollout));
    let (reason, message) = match facts.gone.and_then(|gone| gone.why.clone()) {
        Some((reason, why)) => (reason, format!("its instance is gone, and no other can begin: {why}")),
        None => {
            let message = "its instance is gone; another begins on a toolbox that may run it";
            (Reason::AwaitingToolbox, message.to_owned())
        }
    };
    Status::new(Phase::Pending, reason, message, since)
}

fn ended(rollout: &RolloutRow) -> Timestamp {
    rollout.ended_at.unwrap_or(rollout.started_at)
}

fn ending(facts: &Facts<'_>) -> Status<Phase> {
    let Facts { server, live, silent, .. } = *facts;
    let what = if server.deleted { "being deleted" } else { "" };
    // What can be heard ends in a moment.
    if !live.is_empty() && live.iter().all(|instance| silent.contains(&instance.toolbox)) {
        let message = match what {
            "" => SILENT.to_owned(),
            what => format!("{what}; {SILENT}"),
        };
        return Status::new(Phase::Stopping, Reason::ToolboxUnreachable, message, server.updated_at);
    }
    match live.iter().max_by_key(|instance| instance.status.since) {
        Some(instance) if instance.status.phase == Phase::Stopping => {
            Status { message: what.to_owned(), ..instance.status.clone() }
        }
        Some(_) => Status::new(Phase::Stopping, Reason::Requested, what, server.updated_at),
        None if server.deleted => Status::new(Phase::Stopping, Reason::Requested, what, server.updated_at),
        None => Status::new(Phase::Stopped, Reason::Requested, "", server.updated_at),
    }
}

/// The status of what serves; `None` when nothing does.
fn serving(facts: &Facts<'_>) -> Option<Status<Phase>> {
    let rollout = facts.server.serving_rollout?;
    if let Some(probe) = facts.probe {
        return Some(probe.status.clone());
    }
    let best = facts
        .live
        .iter()
        .filter(|instance| instance.rollout == rollout)
        .min_by_key(|instance| rank(shown_status(instance, facts.silent).phase))?;
    let mut status = shown_status(best, facts.silent);
    if status.phase == Phase::Ready && facts.server.replicas > 1 {
        let is_ready = |it: &&InstanceRow| shown_status(it, facts.silent).phase == Phase::Ready && it.should_serve();
        let ready = facts.live.iter().filter(|it| it.rollout == rollout).filter(is_ready).count();
        if u32::try_from(ready).unwrap_or(u32::MAX) < facts.server.replicas {
            status.message = format!("{ready} of {} replicas are ready", facts.server.replicas);
        }
    }
    Some(status)
}

/// An instance's status as far as it is still known: on a silent toolbox nobody knows. What was told to end takes no more
/// calls, whatever its agent last said.
pub(crate) fn shown_status(instance: &InstanceRow, silent: &[ToolboxId]) -> Status<Phase> {
    let status = instance.status.clone();
    if silent.contains(&instance.toolbox) && matches!(status.phase, Phase::Ready | Phase::Degraded) {
        return Status::new(Phase::Degraded, Reason::ToolboxUnreachable, SILENT, status.since);
    }
    let ends = matches!(instance.desired, InstanceWish::Retire | InstanceWish::Stop);
    if ends && matches!(status.phase, Phase::Ready | Phase::Degraded) {
        let since = instance.retired_at.unwrap_or(status.since);
        return Status::new(Phase::Stopping, Reason::Requested, MAKES_ROOM, since);
    }
    status
}

/// What is known now of an instance: on a toolbox that has been silent since some time nothing, from then on.
pub(crate) fn known_status(instance: &InstanceRow, silent_since: Option<Timestamp>) -> Status<Phase> {
    let status = instance.status.clone();
    match silent_since {
        Some(since) if is_known_by_its_agent(status.phase) => {
            Status::new(Phase::Unknown, Reason::ToolboxUnreachable, SILENT, since)
        }
        _ => status,
    }
}

/// Whether only its agent can say that an instance is still there.
fn is_known_by_its_agent(phase: Phase) -> bool {
    matches!(phase, Phase::Preparing | Phase::Starting | Phase::Ready | Phase::Degraded | Phase::Stopping)
}

fn rank(phase: Phase) -> u8 {
    match phase {
        Phase::Ready => 0,
        Phase::Degraded => 1,
        Phase::Starting => 2,
        Phase::Preparing => 3,
        Phase::Pending => 4,
        Phase::Stopping => 5,
        Phase::Failed => 6,
        Phase::Stopped | Phase::Unknown => 7,
    }
}

fn progressing(facts: &Facts<'_>, rollout: &RolloutRow) -> Status<Phase> {
    // What all wait for.
    let slowest = facts
        .live
        .iter()
        .filter(|instance| instance.rollout == rollout.id)
        .max_by_key(|instance| (instance.status.phase != Phase::Ready, instance.id));
    if let Some(instance) = slowest {
        let mut status = shown_status(instance, facts.silent);
        // Ready is said once the rollout is done, so that nobody sees "ready" before traffic goes there.
        if status.phase == Phase::Ready {
            status.phase = Phase::Starting;
        }
        return status;
    }
    let phase = if matches!(rollout.reason, Reason::Resolving | Reason::Installing) {
        Phase::Preparing
    } else if rollout.reason == Reason::AwaitingProbe {
        Phase::Starting
    } else {
        Phase::Pending
    };
    Status::new(phase, rollout.reason, rollout.message.clone(), rollout.started_at)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use toolyard_types::{Name, RevisionId, RolloutId, ServerId};

    pub(crate) fn server() -> ServerRow {
        ServerRow {
            id: ServerId::generate(),
            name: Name::new("s").unwrap(),
            kind: "npm".into(),
            entry_name: None,
            entry_version: None,
            enabled: true,
            deleted: false,
            toolbox: None,
            has_volumes: false,
            postponed: None,
            toolbox_labels: toolyard_types::Labels::default(),
            serving_revision: None,
            serving_rollout: None,
            target_revision: RevisionId::generate(),
            rollout: None,
            rollout_timeout_ms: 600_000,
            replicas: 1,
            observe_ms: 5000,
            restart_at: None,
            next_restart_at: None,
            update_window: None,
            version: 1,
            created_at: Timestamp::from_ms(1),
            updated_at: Timestamp::from_ms(1),
        }
    }

    pub(crate) fn rollout(server: &ServerRow, state: RolloutState) -> RolloutRow {
        RolloutRow {
            id: RolloutId::generate(),
            server: server.id,
            from_revision: None,
            to_revision: server.target_revision,
            state,
            reason: Reason::Requested,
            message: String::new(),
            log: Vec::new(),
            started_at: Timestamp::from_ms(1),
            deadline: Timestamp::from_ms(600_001),
            ended_at: None,
            from_rollout: None,
            switched_at: None,
            accept_lost_tools: false,
            canary: None,
            next_attempt_at: None,
            from_place: None,
        }
    }

    pub(crate) fn instance(rollout: &RolloutRow, phase: Phase) -> InstanceRow {
        let at = Timestamp::from_ms(2);
        let row = InstanceRow::new(rollout, rollout.to_revision, ToolboxId::generate(), InstanceWish::Run, at);
        InstanceRow { status: Status::new(phase, Reason::Requested, "", at), ..row }
    }

    fn phase(server: &ServerRow, rollout: Option<&RolloutRow>, live: &[InstanceRow], silent: &[ToolboxId]) -> Phase {
        roll_up(&Facts { server, rollout, live, probe: None, silent, removed: None, gone: None }).phase
    }

    #[test]
    fn a_first_rollout_shows_its_instance_and_says_ready_only_when_done() {
        let mut server = server();
        let mut first = rollout(&server, RolloutState::Progressing);
        assert_eq!(phase(&server, Some(&first), &[], &[]), Phase::Pending);
        first.reason = Reason::Resolving;
        assert_eq!(phase(&server, Some(&first), &[], &[]), Phase::Preparing);
        for (seen, shown) in [
            (Phase::Pending, Phase::Pending),
            (Phase::Preparing, Phase::Preparing),
            (Phase::Starting, Phase::Starting),
            (Phase::Ready, Phase::Starting),
            (Phase::Failed, Phase::Failed),
        ] {
            assert_eq!(phase(&server, Some(&first), &[instance(&first, seen)], &[]), shown);
        }
        first.state = RolloutState::Done;
        server.serving_rollout = Some(first.id);
        for seen in [Phase::Ready, Phase::Degraded, Phase::Failed] {
            assert_eq!(phase(&server, Some(&first), &[instance(&first, seen)], &[]), seen);
        }
        assert_eq!(phase(&server, Some(&first), &[], &[]), Phase::Pending);
    }

    #[test]
    fn what_serves_decides_while_a_change_is_under_way_or_failed() {
        let mut server = server();
        let old = rollout(&server, RolloutState::Done);
        server.serving_rollout = Some(old.id);
        for state in RolloutState::ALL {
            let new = rollout(&server, *state);
            let live = [instance(&old, Phase::Ready), instance(&new, Phase::Failed)];
            assert_eq!(phase(&server, Some(&new), &live, &[]), Phase::Ready);
        }
    }

    #[test]
    fn without_anything_serving_the_last_rollout_says_why() {
        let server = server();
        assert_eq!(phase(&server, Some(&rollout(&server, RolloutState::Failed)), &[], &[]), Phase::Failed);
        assert_eq!(phase(&server, Some(&rollout(&server, RolloutState::Cancelled)), &[], &[]), Phase::Stopped);
    }

    #[test]
    fn stopping_lasts_until_the_end_was_observed() {
        let mut server = server();
        server.enabled = false;
        let old = rollout(&server, RolloutState::Done);
        assert_eq!(phase(&server, Some(&old), &[instance(&old, Phase::Ready)], &[]), Phase::Stopping);
        assert_eq!(phase(&server, Some(&old), &[instance(&old, Phase::Stopping)], &[]), Phase::Stopping);
        assert_eq!(phase(&server, Some(&old), &[], &[]), Phase::Stopped);
        server.deleted = true;
        assert_eq!(phase(&server, Some(&old), &[], &[]), Phase::Stopping);
        let live = [instance(&old, Phase::Ready)];
        let silent = [live[0].toolbox];
        let (rollout, live, silent) = (Some(&old), live.as_slice(), silent.as_slice());
        let facts = Facts { server: &server, rollout, live, probe: None, silent, removed: None, gone: None };
        let status = roll_up(&facts);
        assert_eq!((status.phase, status.reason), (Phase::Stopping, Reason::ToolboxUnreachable));
        assert_eq!(status.message, "being deleted; its toolbox has not been heard for too long");
    }

    #[test]
    fn a_server_whose_toolbox_was_removed_has_failed_since_then_unless_something_serves_or_it_is_stopped() {
        let mut server = server();
        let old = rollout(&server, RolloutState::Done);
        server.serving_rollout = Some(old.id);
        let at = Timestamp::from_ms(7);
        let removed = RemovedToolbox { id: ToolboxId::generate(), name: Name::new("edge").ok(), at };
        let seen = |server: &ServerRow, state: RolloutState, live: &[InstanceRow], removed: &RemovedToolbox| {
            let rollout = RolloutRow { state, ..old.clone() };
            let (rollout, removed) = (Some(&rollout), Some(removed));
            roll_up(&Facts { server, rollout, live, probe: None, silent: &[], removed, gone: None })
        };
        for state in RolloutState::ALL {
            let status = seen(&server, *state, &[], &removed);
            assert_eq!((status.phase, status.reason, status.since), (Phase::Failed, Reason::ToolboxRemoved, at));
            assert_eq!(status.message, "toolbox `edge`, where it must run, was removed; move it to another");
        }
        let nameless = RemovedToolbox { name: None, ..removed.clone() };
        let message = seen(&server, RolloutState::Done, &[], &nameless).message;
        assert_eq!(message, "the toolbox where it must run was removed; move it to another");
        let live = [instance(&old, Phase::Ready)];
        assert_eq!(seen(&server, RolloutState::Done, &live, &removed).phase, Phase::Ready);
        server.enabled = false;
        assert_eq!(seen(&server, RolloutState::Done, &[], &removed).phase, Phase::Stopped);
    }

    #[test]
    fn a_server_whose_instance_is_gone_says_since_when_and_why_no_other_begins() {
        let mut server = server();
        let old = rollout(&server, RolloutState::Done);
        server.serving_rollout = Some(old.id);
        let at = Timestamp::from_ms(7);
        let seen = |live: &[InstanceRow], gone: &Gone| {
            let (rollout, gone) = (Some(&old), Some(gone));
            roll_up(&Facts { server: &server, rollout, live, probe: None, silent: &[], removed: None, gone })
        };
        let nowhere = Gone { since: Some(at), why: Some((Reason::NoCapacity, "no toolbox can".into())) };
        let status = seen(&[], &nowhere);
        assert_eq!((status.phase, status.reason, status.since), (Phase::Pending, Reason::NoCapacity, at));
        assert_eq!(status.message, "its instance is gone, and no other can begin: no toolbox can");
        let status = seen(&[], &Gone { since: Some(at), why: None });
        assert_eq!((status.reason, status.since), (Reason::AwaitingToolbox, at));
        assert_eq!(status.message, "its instance is gone; another begins on a toolbox that may run it");
        assert_eq!(seen(&[instance(&old, Phase::Ready)], &nowhere).phase, Phase::Ready);
    }

    #[test]
    fn only_what_served_and_should_run_here_is_gone_and_not_while_a_rollout_goes_on_or_says_why_it_failed() {
        let mut server = server();
        let old = rollout(&server, RolloutState::Done);
        assert!(!is_gone(&server, Some(&old), &[]), "nothing has served yet");
        server.serving_rollout = Some(old.id);
        for state in RolloutState::ALL {
            let wanted = !matches!(state, RolloutState::Progressing | RolloutState::Failed);
            assert_eq!(is_gone(&server, Some(&rollout(&server, *state)), &[]), wanted, "{state:?}");
        }
        assert!(!is_gone(&server, Some(&old), &[instance(&old, Phase::Starting)]));
        assert!(!is_gone(&ServerRow { enabled: false, ..server.clone() }, Some(&old), &[]));
        assert!(!is_gone(&ServerRow { kind: "remote".into(), ..server }, Some(&old), &[]));
    }

    #[test]
    fn an_instance_on_a_silent_toolbox_is_unknown_since_the_silence_unless_it_has_failed() {
        let old = rollout(&server(), RolloutState::Done);
        let since = Some(Timestamp::from_ms(7));
        for phase in Phase::ALL.iter().copied().filter(|phase| *phase != Phase::Unknown) {
            let shown = known_status(&instance(&old, phase), since);
            let lasting = matches!(phase, Phase::Pending | Phase::Failed | Phase::Stopped);
            let wanted = if lasting { (phase, Timestamp::from_ms(2)) } else { (Phase::Unknown, Timestamp::from_ms(7)) };
            assert_eq!((shown.phase, shown.since), wanted);
            assert_eq!(known_status(&instance(&old, phase), None).phase, phase);
        }
    }

    #[test]
    fn nobody_knows_about_an_instance_on_a_silent_toolbox() {
        let mut server = server();
        let old = rollout(&server, RolloutState::Done);
        server.serving_rollout = Some(old.id);
        let live = [instance(&old, Phase::Ready)];
        let silent = [live[0].toolbox];
        let (rollout, live, silent) = (Some(&old), live.as_slice(), silent.as_slice());
        let facts = Facts { server: &server, rollout, live, probe: None, silent, removed: None, gone: None };
        let status = roll_up(&facts);
        assert_eq!((status.phase, status.reason), (Phase::Degraded, Reason::ToolboxUnreachable));
    }
}
