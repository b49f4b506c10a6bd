//! The steps of a rollout: what each writes. Every step is one transaction, so a rollout goes on after any of them.

use std::time::Duration;

use serde_json::json;
use toolyard_store::{
    EventKind, InstanceRow, InstanceWish, JobRow, JobState, OrgTx, RolloutRow, ServerRow, StoreError,
};
use toolyard_types::state::{Phase, Reason, RolloutState, Status};
use toolyard_types::{InstanceId, JobId, Labels, RevisionId, Timestamp, ToolboxId};

use super::case::Case;
use super::lost;
use super::resolve::determines;
use crate::Result;
use crate::app::expand::kind_of;

/// What a `recreate` is at once its new instances are prepared.
pub(super) const STOPPING: &str = "prepared; stopping the instance that serves";

/// Something a loop does about a rollout.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// Have a toolbox resolve the package.
    Resolve(ToolboxId),
    /// Make an instance on each of these toolboxes.
    Place(Vec<ToolboxId>, InstanceWish),
    /// Start a prepared instance.
    Run(InstanceId),
    /// Stop what serves, to make room (`recreate`).
    StopOld,
    /// These count as ended: their toolbox is lost, and the server is to run elsewhere.
    GiveUp(Vec<InstanceId>),
    /// Say what is being waited for.
    Note(Reason, String),
    /// Its update window is open: it begins.
    Begin,
    /// The new revision takes a part of the calls.
    StartCanary,
    /// The new revision was tried for long enough.
    Promote,
    /// The new revision serves, and is observed.
    Switch,
    /// The new revision served and failed: what served before serves again.
    GoBack(Reason, String),
    /// The new revision serves from now on.
    Done,
    /// The new revision will not get ready.
    Fail(Reason, String),
}

impl Step {
    /// The toolboxes that are given something new.
    pub(crate) fn places(&self) -> &[ToolboxId] {
        match self {
            Self::Resolve(toolbox) => std::slice::from_ref(toolbox),
            Self::Place(toolboxes, _) => toolboxes,
            _ => &[],
        }
    }
}

/// Applies a step: what was decided under the server's lock.
pub(crate) async fn apply(tx: &mut OrgTx, mut case: Case, step: Step, now: Timestamp) -> Result<()> {
    match step {
        Step::Resolve(toolbox) => resolve(tx, &mut case, toolbox, now).await?,
        Step::Place(toolboxes, wish) => place(tx, &mut case, &toolboxes, wish, now).await?,
        Step::Run(instance) => {
            note(&mut case.rollout, now, Reason::AwaitingProbe, "starting the prepared instance".into());
            tx.update_rollout(&case.rollout).await?;
            wish(tx, case.mine.iter().filter(|row| row.id == instance), InstanceWish::Run).await?;
        }
        Step::StopOld => {
            note(&mut case.rollout, now, Reason::Requested, STOPPING.into());
            tx.update_rollout(&case.rollout).await?;
            wish(tx, case.earlier(), InstanceWish::Stop).await?;
        }
        Step::GiveUp(instances) => give_up(tx, &mut case, &instances, now).await?,
        Step::Note(reason, message) => {
            note(&mut case.rollout, now, reason, message);
            tx.update_rollout(&case.rollout).await?;
        }
        Step::Begin => {
            case.rollout.next_attempt_at = None;
            note(&mut case.rollout, now, Reason::Requested, "the update window is open".into());
            tx.update_rollout(&case.rollout).await?;
        }
        Step::StartCanary => start_canary(tx, &mut case, now).await?,
        Step::Promote => {
            promote(tx, &mut case.rollout, &case.server, now, "it was tried for long enough").await?;
        }
        Step::Switch => switch(tx, &mut case, now).await?,
        Step::GoBack(reason, message) => go_back(tx, &mut case, now, reason, message).await?,
        Step::Done => done(tx, &mut case, now).await?,
        Step::Fail(reason, message) => fail(tx, &mut case, now, reason, message).await?,
    }
    changed(tx, &case.server, &case.rollout);
    Ok(())
}

/// Tells that something about a server changed.
pub(crate) fn changed(tx: &mut OrgTx, server: &ServerRow, rollout: &RolloutRow) {
    let data = json!({ "id": server.id, "rollout": rollout.id, "state": rollout.state, "reason": rollout.reason });
    tx.event(EventKind::ServerChanged, format!("server/{}", server.name), data);
}

fn note(rollout: &mut RolloutRow, now: Timestamp, reason: Reason, message: String) {
    let step = if message.is_empty() { reason.to_string().replace('_', " ") } else { message.clone() };
    rollout.step(now, step);
    (rollout.reason, rollout.message) = (reason, message);
}

async fn give_up(tx: &mut OrgTx, case: &mut Case, instances: &[InstanceId], now: Timestamp) -> Result<()> {
    for instance in case.live.iter().filter(|row| instances.contains(&row.id)) {
        if let Some(toolbox) = case.near.iter().find(|toolbox| toolbox.id == instance.toolbox) {
            let step = format!("prepared; what ran on toolbox `{}` is given up with it", toolbox.name);
            note(&mut case.rollout, now, Reason::Requested, step);
            lost::give_up(tx, instance, toolbox, "its server was moved", now).await?;
        }
    }
    Ok(tx.update_rollout(&case.rollout).await?)
}

async fn place(
    tx: &mut OrgTx,
    case: &mut Case,
    toolboxes: &[ToolboxId],
    wish: InstanceWish,
    now: Timestamp,
) -> Result<()> {
    for toolbox in toolboxes {
        let name = case.toolbox(*toolbox).map(|toolbox| toolbox.name.to_string()).unwrap_or_default();
        note(&mut case.rollout, now, Reason::Requested, format!("placed on toolbox `{name}`"));
        bind(tx, case, *toolbox).await?;
        insert_instance(tx, &case.rollout, case.rollout.to_revision, *toolbox, wish, now).await?;
        case.places.placed(*toolbox);
    }
    Ok(tx.update_rollout(&case.rollout).await?)
}

/// Where a server's volumes are made, it stays for as long as it exists: an earlier revision may have them too.
async fn bind(tx: &OrgTx, case: &mut Case, toolbox: ToolboxId) -> Result<()> {
    if case.revision.spec.volumes.is_empty() || case.server.has_volumes {
        return Ok(());
    }
    case.server.has_volumes = true;
    case.server.toolbox = Some(toolbox);
    // It stays there whatever its labels will be.
    case.server.toolbox_labels = Labels::default();
    Ok(tx.update_server(&mut case.server).await?)
}

async fn resolve(tx: &mut OrgTx, case: &mut Case, toolbox: ToolboxId, now: Timestamp) -> Result<()> {
    for job in case.jobs.iter().filter(|job| job.state == JobState::Pending) {
        let why = "its toolbox went away; another one takes over";
        tx.end_job(job.id, JobState::Failed, Some((Reason::ToolboxUnreachable, why))).await?;
        tx.bump_generation(job.toolbox).await?;
    }
    let job = JobRow {
        id: JobId::generate(),
        toolbox,
        revision: case.revision.id,
        state: JobState::Pending,
        reason: None,
        message: None,
        created_at: now,
    };
    tx.insert_job(&job).await?;
    tx.bump_generation(toolbox).await?;
    case.places.placed(toolbox);
    let name = case.toolbox(toolbox).map(|toolbox| toolbox.name.to_string()).unwrap_or_default();
    note(&mut case.rollout, now, Reason::Resolving, determines(&name));
    Ok(tx.update_rollout(&case.rollout).await?)
}

async fn done(tx: &mut OrgTx, case: &mut Case, now: Timestamp) -> Result<()> {
    let old: Vec<_> = case.live.iter().filter(|it| it.rollout != case.rollout.id).collect();
    dismiss(tx, old.into_iter()).await?;
    let (rollout, server) = (&mut case.rollout, &mut case.server);
    note(rollout, now, Reason::Answered, format!("revision {} serves", case.revision.number));
    (rollout.state, rollout.ended_at, rollout.next_attempt_at) = (RolloutState::Done, Some(now), None);
    tx.update_rollout(rollout).await?;
    server.serving_revision = Some(rollout.to_revision);
    server.serving_rollout = Some(rollout.id);
    server.target_revision = rollout.to_revision;
    tx.update_server(server).await?;
    count_outcome(rollout, now);
    Ok(())
}

async fn start_canary(tx: &mut OrgTx, case: &mut Case, now: Timestamp) -> Result<()> {
    put_on_trial(&mut case.rollout, case.revision.number, now);
    Ok(tx.update_rollout(&case.rollout).await?)
}

/// From now on the canary takes its part of the calls: for the first time, or another part than until now.
pub(crate) fn put_on_trial(rollout: &mut RolloutRow, number: u32, now: Timestamp) {
    let Some(canary) = &mut rollout.canary else { return };
    canary.started_at = Some(now);
    let clients = match canary.clients.len() {
        0 => String::new(),
        1 => " and every call of 1 client".to_owned(),
        many => format!(" and every call of {many} clients"),
    };
    let message = format!("revision {number} takes {} % of the calls{clients}", canary.weight);
    let next = canary.promote_after_seconds.map(|seconds| now.plus(Duration::from_secs(seconds.into())));
    rollout.next_attempt_at = next;
    note(rollout, now, Reason::Canary, message);
}

/// Lets a canary serve; it has the rollout's time again to get all of its instances ready.
pub(crate) async fn promote(
    tx: &OrgTx,
    rollout: &mut RolloutRow,
    server: &ServerRow,
    now: Timestamp,
    why: &str,
) -> Result<()> {
    if let Some(canary) = &mut rollout.canary {
        canary.promoted_at = Some(now);
    }
    rollout.next_attempt_at = None;
    rollout.deadline = now.plus(Duration::from_millis(server.rollout_timeout_ms));
    note(rollout, now, Reason::Requested, format!("promoted: {why}"));
    Ok(tx.update_rollout(rollout).await?)
}

/// Lets the new revision serve while the old one runs on.
async fn switch(tx: &mut OrgTx, case: &mut Case, now: Timestamp) -> Result<()> {
    let (rollout, server) = (&mut case.rollout, &mut case.server);
    let until = now.plus(Duration::from_millis(server.observe_ms));
    rollout.from_rollout = server.serving_rollout;
    rollout.switched_at = Some(now);
    rollout.next_attempt_at = Some(until);
    let message = format!("revision {} serves and is observed until {until}", case.revision.number);
    note(rollout, now, Reason::Observing, message);
    tx.update_rollout(rollout).await?;
    server.serving_revision = Some(rollout.to_revision);
    server.serving_rollout = Some(rollout.id);
    server.target_revision = rollout.to_revision;
    Ok(tx.update_server(server).await?)
}

async fn go_back(tx: &mut OrgTx, case: &mut Case, now: Timestamp, reason: Reason, message: String) -> Result<()> {
    back_to_previous(tx, &mut case.server, &mut case.rollout, now, (RolloutState::RolledBack, reason, message)).await?;
    dismiss(tx, case.live.iter().filter(|instance| instance.rollout == case.rollout.id)).await
}

/// Ends a rollout whose revision serves already: what served before serves again.
pub(crate) async fn back_to_previous(
    tx: &mut OrgTx,
    server: &mut ServerRow,
    rollout: &mut RolloutRow,
    now: Timestamp,
    outcome: (RolloutState, Reason, String),
) -> Result<()> {
    server.serving_rollout = rollout.from_rollout;
    server.serving_revision = rollout.from_revision;
    end_rollout(tx, server, rollout, now, outcome).await
}

/// Ends a rollout whose revision serves already, which it goes on to do, because another change takes over.
pub(crate) async fn settle(tx: &OrgTx, rollout: &mut RolloutRow, now: Timestamp, why: &str) -> Result<()> {
    note(rollout, now, Reason::Superseded, why.to_owned());
    (rollout.state, rollout.ended_at, rollout.next_attempt_at) = (RolloutState::Done, Some(now), None);
    tx.update_rollout(rollout).await?;
    count_outcome(rollout, now);
    Ok(())
}

async fn fail(tx: &mut OrgTx, case: &mut Case, now: Timestamp, reason: Reason, message: String) -> Result<()> {
    let serves = case.server.serving_rollout.is_some();
    let state = if serves { RolloutState::RolledBack } else { RolloutState::Failed };
    end_rollout(tx, &mut case.server, &mut case.rollout, now, (state, reason, message)).await?;
    dismiss(tx, case.live.iter().filter(|instance| instance.rollout == case.rollout.id)).await
}

/// Ends a rollout without success: the server is meant to have again what serves, if anything does.
pub(crate) async fn end_rollout(
    tx: &mut OrgTx,
    server: &mut ServerRow,
    rollout: &mut RolloutRow,
    now: Timestamp,
    (state, reason, message): (RolloutState, Reason, String),
) -> Result<()> {
    note(rollout, now, reason, message);
    (rollout.state, rollout.ended_at, rollout.next_attempt_at) = (state, Some(now), None);
    tx.update_rollout(rollout).await?;
    for job in tx.jobs_of(rollout.to_revision).await?.iter().filter(|job| job.state == JobState::Pending) {
        tx.end_job(job.id, JobState::Failed, Some((Reason::Superseded, "its rollout ended"))).await?;
        tx.bump_generation(job.toolbox).await?;
    }
    if let (Some(_), Some(serving)) = (server.serving_rollout, server.serving_revision) {
        aim(tx, server, serving).await?;
    }
    // What serves stays where it is. A volume that was made meanwhile binds the server to where it is, and on a toolbox
    // that was removed nothing serves.
    if let Some(place) = rollout.from_place.clone().filter(|_| !server.has_volumes)
        && tx.removed_toolboxes(place.toolbox).await?.is_empty()
    {
        (server.toolbox, server.toolbox_labels) = (place.toolbox, place.labels);
    }
    tx.update_server(server).await?;
    count_outcome(rollout, now);
    Ok(())
}

/// Means a server to have a revision, and to show what that revision is made of.
pub(crate) async fn aim(tx: &OrgTx, server: &mut ServerRow, revision: RevisionId) -> Result<()> {
    server.target_revision = revision;
    if let Some(revision) = tx.revision(revision).await? {
        let spec = &revision.spec;
        kind_of(&spec.runtime).clone_into(&mut server.kind);
        server.entry_name = spec.entry.as_ref().map(|entry| entry.name.clone());
        server.entry_version = spec.entry.as_ref().map(|entry| entry.version.clone());
    }
    Ok(())
}

fn count_outcome(rollout: &RolloutRow, now: Timestamp) {
    let (outcome, reason) = (rollout.state.as_str(), rollout.reason.as_str());
    metrics::counter!("toolyard_rollouts_total", "outcome" => outcome, "reason" => reason).increment(1);
    let took = now.since(rollout.started_at).as_secs_f64();
    metrics::histogram!("toolyard_rollout_seconds", "outcome" => outcome).record(took);
}

/// Lets instances end: those that took calls may finish them first.
pub(crate) async fn dismiss<'a>(tx: &mut OrgTx, instances: impl Iterator<Item = &'a InstanceRow>) -> Result<()> {
    let takes_calls = |row: &&InstanceRow| matches!(row.status.phase, Phase::Ready | Phase::Degraded);
    let (busy, idle): (Vec<_>, Vec<_>) = instances
        .filter(|row| !matches!(row.desired, InstanceWish::Stop | InstanceWish::Retire))
        .partition(takes_calls);
    wish(tx, busy.into_iter(), InstanceWish::Retire).await?;
    wish(tx, idle.into_iter(), InstanceWish::Stop).await
}

/// Asks instances to do something, and tells their toolboxes. One that was only prepared never ran: told to stop, it has
/// ended, whether its agent is heard or not.
pub(crate) async fn wish<'a>(
    tx: &mut OrgTx,
    instances: impl Iterator<Item = &'a InstanceRow>,
    desired: InstanceWish,
) -> Result<()> {
    let mut toolboxes = Vec::new();
    for instance in instances.filter(|row| row.desired != desired && row.ended_at.is_none()) {
        if (instance.desired, desired) == (InstanceWish::Prepare, InstanceWish::Stop) {
            never_ran(tx, instance).await?;
        } else {
            tx.set_instance_wish(instance.id, desired).await?;
        }
        toolboxes.push(instance.toolbox);
    }
    toolboxes.sort_unstable();
    toolboxes.dedup();
    for toolbox in toolboxes {
        tx.bump_generation(toolbox).await?;
    }
    Ok(())
}

async fn never_ran(tx: &OrgTx, instance: &InstanceRow) -> Result<()> {
    let status = match instance.status.phase {
        Phase::Failed => instance.status.clone(),
        _ => Status::new(Phase::Stopped, Reason::Requested, "it was prepared and never started", tx.now()),
    };
    let ended = InstanceRow { status, desired: InstanceWish::Stop, ended_at: Some(tx.now()), ..instance.clone() };
    Ok(tx.update_instance(&ended).await?)
}

/// Makes an instance of a rollout on a toolbox.
pub(crate) async fn insert_instance(
    tx: &mut OrgTx,
    rollout: &RolloutRow,
    revision: RevisionId,
    toolbox: ToolboxId,
    desired: InstanceWish,
    now: Timestamp,
) -> Result<()> {
    let instance = InstanceRow::new(rollout, revision, toolbox, desired, now);
    tx.insert_instance(&instance).await?;
    // A toolbox that was removed meanwhile has no agent that would ever end the instance.
    if tx.bump_generation(toolbox).await? { Ok(()) } else { Err(StoreError::Stale.into()) }
}
