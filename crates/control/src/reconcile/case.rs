//! One rollout under way with everything a loop needs to decide about it, and the steps a loop can take.
//!
//! A decision is a pure function from a [`Case`] to a [`Step`]. It is made twice: from a read that blocks
//! nobody, and, if it asks for something, again under the server's lock, where it is applied. So two
//! replicas may run the same loop at once, and a step never rests on what was true a moment ago.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use toolyard_store::{
    InstanceRow, InstanceWish, JobRow, JobState, OrgTx, ProbeRow, RevisionRow, RolloutRow, ServerRef, ServerRow,
    StoreError, ToolboxRow,
};
use toolyard_types::agent::McpInfo;
use toolyard_types::api::servers::Canary;
use toolyard_types::spec::Runtime;
use toolyard_types::state::{Phase, Reason, RolloutState, Status, ToolboxState};
use toolyard_types::{InstanceId, JobId, OrganizationId, RevisionId, ServerId, Timestamp, ToolboxId};

use super::Pass;
use crate::app::expand::kind_of;
use crate::{Control, Result};

/// A rollout under way.
pub(crate) struct Case {
    pub(crate) server: ServerRow,
    pub(crate) rollout: RolloutRow,
    pub(crate) revision: RevisionRow,
    /// The revision's resolve jobs, newest first.
    pub(crate) jobs: Vec<JobRow>,
    /// Every instance the rollout made and still wants, also those that ended by themselves.
    pub(crate) mine: Vec<InstanceRow>,
    /// The server's instances that have not ended.
    pub(crate) live: Vec<InstanceRow>,
    pub(crate) places: Arc<Places>,
    pub(crate) probe: Option<ProbeRow>,
    /// The tools that what serves lists, as far as they are known.
    pub(crate) served_tools: BTreeSet<String>,
}

/// Where instances may run. The same for every rollout of an organization, so a pass reads it once.
#[derive(Default)]
pub(crate) struct Places {
    pub(crate) toolboxes: Vec<ToolboxRow>,
    /// How many instances each toolbox has.
    pub(crate) load: HashMap<ToolboxId, u32>,
}

impl Places {
    pub(crate) async fn read(tx: &OrgTx) -> Result<Arc<Self>> {
        let load = tx.instances_by_toolbox().await?.into_iter().collect();
        Ok(Arc::new(Self { toolboxes: tx.toolboxes().await?, load }))
    }
}

/// What a pass has read of each organization.
#[derive(Default)]
pub(crate) struct PlacesOf(HashMap<OrganizationId, Arc<Places>>);

impl PlacesOf {
    pub(crate) async fn read(&mut self, tx: &OrgTx) -> Result<Arc<Places>> {
        if let Some(known) = self.0.get(&tx.organization()) {
            return Ok(known.clone());
        }
        let places = Places::read(tx).await?;
        self.0.insert(tx.organization(), places.clone());
        Ok(places)
    }
}

/// Something a loop does about a rollout.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// Have a toolbox resolve the package.
    Resolve(ToolboxId),
    /// Make an instance on a toolbox.
    Place(ToolboxId, InstanceWish),
    /// Start a prepared instance.
    Run(InstanceId),
    /// Stop what serves, to make room (`recreate`).
    StopOld,
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

impl Case {
    /// Whether the exact files are still unknown.
    pub(crate) fn needs_lock(&self) -> bool {
        self.revision.lock_digest.is_none() && matches!(self.revision.spec.runtime, Runtime::Npm(_) | Runtime::Pypi(_))
    }

    /// Whether it runs elsewhere.
    pub(crate) fn is_remote(&self) -> bool {
        matches!(self.revision.spec.runtime, Runtime::Remote(_))
    }

    /// A toolbox by id.
    pub(crate) fn toolbox(&self, id: ToolboxId) -> Option<&ToolboxRow> {
        self.places.toolboxes.iter().find(|toolbox| toolbox.id == id)
    }

    /// Whether a toolbox is online.
    pub(crate) fn online(&self, id: ToolboxId) -> bool {
        self.toolbox(id).is_some_and(|toolbox| toolbox.status.phase == ToolboxState::Online)
    }

    /// Whether something new may be placed on a toolbox.
    pub(crate) fn takes_new(&self, id: ToolboxId) -> bool {
        self.toolbox(id)
            .is_some_and(|toolbox| toolbox.takes_new() && toolbox.labels.include(&self.server.toolbox_labels))
    }

    /// How many instances the rollout wants now.
    pub(crate) fn wanted(&self) -> usize {
        match &self.rollout.canary {
            Some(canary) if canary.promoted_at.is_none() => 1,
            _ => usize::try_from(self.server.replicas).unwrap_or(usize::MAX),
        }
    }

    /// Whether it waits for the server's update window; only *rollout* lets it go on.
    pub(crate) fn is_held(&self) -> bool {
        self.rollout.reason == Reason::OutsideWindow
    }

    /// Whether the new revision takes its part of the calls, and nobody decided yet.
    pub(crate) fn is_on_trial(&self) -> bool {
        self.rollout.canary.as_ref().is_some_and(Canary::is_on_trial)
    }

    /// Whether another revision, or another instance of the same, serves.
    pub(crate) fn old_serves(&self) -> bool {
        self.server.serving_rollout.is_some()
    }

    /// Whether it goes to another revision than the one that serves.
    pub(crate) fn is_change(&self) -> bool {
        self.rollout.from_revision.is_some_and(|from| from != self.rollout.to_revision)
    }

    /// Instances that served before traffic was switched.
    pub(crate) fn previous(&self) -> impl Iterator<Item = &InstanceRow> {
        self.live.iter().filter(|instance| Some(instance.rollout) == self.rollout.from_rollout)
    }

    /// Instances that serve now.
    pub(crate) fn serving(&self) -> impl Iterator<Item = &InstanceRow> {
        self.live.iter().filter(|instance| Some(instance.rollout) == self.server.serving_rollout)
    }

    /// A step that says what is being waited for, unless it was said.
    pub(crate) fn note(&self, reason: Reason, message: String) -> Option<Step> {
        let said = self.rollout.reason == reason && self.rollout.message == message;
        (!said).then_some(Step::Note(reason, message))
    }
}

/// Reads a server's rollout under way; `None` when there is none any more. Without `places` it locks the server, and
/// reads them anew.
pub(crate) async fn gather(tx: &OrgTx, server: ServerId, places: Option<Arc<Places>>) -> Result<Option<Case>> {
    let server = if places.is_none() { tx.lock_server(server).await? } else { tx.server_by_id(server).await? };
    let Some(server) = server.filter(|server| server.enabled && !server.deleted) else { return Ok(None) };
    let Some(id) = server.rollout else { return Ok(None) };
    let Some(rollout) = tx.rollout(id).await?.filter(|rollout| rollout.state == RolloutState::Progressing) else {
        return Ok(None);
    };
    let Some(revision) = tx.revision(rollout.to_revision).await? else { return Ok(None) };
    let places = match places {
        Some(places) => places,
        None => Places::read(tx).await?,
    };
    let live = tx.live_instances(&[server.id]).await?;
    let probes = tx.probes_of(&[server.id]).await?;
    let served_tools = served_tools(tx, &server, &live, &probes).await?;
    let mut mine = tx.instances_of_rollout(rollout.id).await?;
    mine.retain(|instance| matches!(instance.desired, InstanceWish::Run | InstanceWish::Prepare));
    Ok(Some(Case {
        jobs: tx.jobs_of(revision.id).await?,
        mine,
        live,
        places,
        probe: probes.into_iter().find(|probe| probe.revision == revision.id),
        served_tools,
        server,
        rollout,
        revision,
    }))
}

/// The tools that what serves lists. What was stopped to make room listed them when it last answered.
async fn served_tools(
    tx: &OrgTx,
    server: &ServerRow,
    live: &[InstanceRow],
    probes: &[ProbeRow],
) -> Result<BTreeSet<String>> {
    let Some(serving) = server.serving_rollout else { return Ok(BTreeSet::new()) };
    let mut answers: Vec<McpInfo> = live
        .iter()
        .filter(|instance| instance.rollout == serving)
        .filter_map(|instance| instance.mcp.clone())
        .chain(probes.iter().filter(|it| Some(it.revision) == server.serving_revision).filter_map(|it| it.mcp.clone()))
        .collect();
    if answers.is_empty() && server.kind != "remote" {
        let ended = tx.instances_of_rollout(serving).await?;
        answers.extend(ended.into_iter().rev().find_map(|instance| instance.mcp));
    }
    Ok(answers.into_iter().flat_map(|mcp| mcp.tool_names).collect())
}

/// Decides and acts for every rollout under way, a transaction each.
pub(crate) async fn for_each(control: &Control, decide: fn(&Case, Timestamp) -> Option<Step>) -> Result<Pass> {
    const AT_ONCE: u32 = 500;
    let refs = control.store().system_read("listing rollouts under way").await?.rollouts_under_way(AT_ONCE).await?;
    let (mut pass, mut places) = (Pass::default(), PlacesOf::default());
    for at in refs {
        match act(control, at, &mut places, decide).await {
            Ok(acted) => pass.changed += usize::from(acted),
            Err(error) => pass.failed(&error),
        }
    }
    Ok(pass)
}

async fn act(
    control: &Control,
    at: ServerRef,
    places: &mut PlacesOf,
    decide: fn(&Case, Timestamp) -> Option<Step>,
) -> Result<bool> {
    let now = control.clock().now();
    let asks = async {
        let tx = control.store().org_read(at.organization).await?;
        let places = Some(places.read(&tx).await?);
        let case = gather(&tx, at.server, places).await?;
        Ok::<_, crate::ControlError>(case.is_some_and(|case| decide(&case, now).is_some()))
    };
    if !asks.await? {
        return Ok(false);
    }
    let mut tx = control.store().org(at.organization).await?;
    let Some(case) = gather(&tx, at.server, None).await? else { return Ok(false) };
    let Some(step) = decide(&case, now) else { return Ok(false) };
    apply(&mut tx, case, step, now).await?;
    tx.commit().await?;
    Ok(true)
}

async fn apply(tx: &mut OrgTx, mut case: Case, step: Step, now: Timestamp) -> Result<()> {
    match step {
        Step::Resolve(toolbox) => resolve(tx, &mut case, toolbox, now).await?,
        Step::Place(toolbox, wish) => {
            let name = case.toolbox(toolbox).map(|toolbox| toolbox.name.to_string()).unwrap_or_default();
            note(&mut case.rollout, now, Reason::Requested, format!("placed on toolbox `{name}`"));
            tx.update_rollout(&case.rollout).await?;
            insert_instance(tx, &case.rollout, case.rollout.to_revision, toolbox, wish, now).await?;
        }
        Step::Run(instance) => {
            note(&mut case.rollout, now, Reason::AwaitingProbe, "starting the prepared instance".into());
            tx.update_rollout(&case.rollout).await?;
            wish(tx, case.mine.iter().filter(|row| row.id == instance), InstanceWish::Run).await?;
        }
        Step::StopOld => {
            note(&mut case.rollout, now, Reason::Requested, "prepared; stopping the instance that serves".into());
            tx.update_rollout(&case.rollout).await?;
            wish(tx, case.serving(), InstanceWish::Stop).await?;
        }
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
    tx.event("server.changed", format!("server/{}", server.name), data);
}

fn note(rollout: &mut RolloutRow, now: Timestamp, reason: Reason, message: String) {
    let step = if message.is_empty() { reason.to_string().replace('_', " ") } else { message.clone() };
    rollout.step(now, step);
    (rollout.reason, rollout.message) = (reason, message);
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
    let name = case.toolbox(toolbox).map(|toolbox| toolbox.name.to_string()).unwrap_or_default();
    note(&mut case.rollout, now, Reason::Resolving, format!("toolbox `{name}` determines the exact versions"));
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
    let number = case.revision.number;
    let Some(canary) = &mut case.rollout.canary else { return Ok(()) };
    canary.started_at = Some(now);
    let clients = match canary.clients.len() {
        0 => String::new(),
        1 => " and every call of 1 client".to_owned(),
        many => format!(" and every call of {many} clients"),
    };
    let message = format!("revision {number} takes {} % of the calls{clients}", canary.weight);
    let next = canary.promote_after_seconds.map(|seconds| now.plus(Duration::from_secs(seconds.into())));
    case.rollout.next_attempt_at = next;
    note(&mut case.rollout, now, Reason::Canary, message);
    Ok(tx.update_rollout(&case.rollout).await?)
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

/// Asks instances to do something, and tells their toolboxes.
pub(crate) async fn wish<'a>(
    tx: &mut OrgTx,
    instances: impl Iterator<Item = &'a InstanceRow>,
    desired: InstanceWish,
) -> Result<()> {
    let mut toolboxes = Vec::new();
    for instance in instances.filter(|row| row.desired != desired && row.ended_at.is_none()) {
        tx.set_instance_wish(instance.id, desired).await?;
        toolboxes.push(instance.toolbox);
    }
    toolboxes.sort_unstable();
    toolboxes.dedup();
    for toolbox in toolboxes {
        tx.bump_generation(toolbox).await?;
    }
    Ok(())
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
    let instance = InstanceRow {
        id: InstanceId::generate(),
        server: rollout.server,
        revision,
        rollout: rollout.id,
        toolbox,
        desired,
        status: Status::new(Phase::Pending, Reason::AwaitingToolbox, "", now),
        pid: None,
        ready_since: None,
        restarts: 0,
        exit: None,
        mcp: None,
        container_id: None,
        last_success_at: None,
        failures: 0,
        copies: 0,
        retired_at: None,
        created_at: now,
        ended_at: None,
    };
    tx.insert_instance(&instance).await?;
    // A toolbox that was removed meanwhile has no agent that would ever end the instance.
    if tx.bump_generation(toolbox).await? { Ok(()) } else { Err(StoreError::Stale.into()) }
}

#[cfg(test)]
pub(crate) mod tests {
    use toolyard_types::agent::{Era, ToolboxReport};
    use toolyard_types::spec::{Egress, Instancing, Limits, Package, RevisionSpec, Strategy};
    use toolyard_types::{Labels, Name};

    use super::*;
    use crate::reconcile::phase::tests as rows;

    pub(crate) fn toolbox() -> ToolboxRow {
        ToolboxRow {
            id: ToolboxId::generate(),
            name: Name::new("edge").unwrap(),
            status: Status::new(ToolboxState::Online, Reason::Answered, "", Timestamp::from_ms(1)),
            built_in: false,
            draining_since: None,
            labels: Labels::default(),
            enrolment: 1,
            certificate_expires_at: None,
            last_seen_at: None,
            agent_version: None,
            report: ToolboxReport::default(),
            generation: 1,
            created_at: Timestamp::from_ms(1),
        }
    }

    pub(crate) fn answer(tools: &[&str]) -> McpInfo {
        McpInfo {
            era: Era::Legacy,
            protocol_version: String::new(),
            server_name: String::new(),
            server_version: String::new(),
            tools: u32::try_from(tools.len()).unwrap(),
            tool_names: tools.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    /// A change of a server that serves: revision 2 is to take over, and has no instance yet.
    pub(crate) fn change() -> Case {
        let mut server = rows::server();
        let old = rows::rollout(&server, RolloutState::Done);
        server.serving_rollout = Some(old.id);
        server.serving_revision = Some(server.target_revision);
        let mut rollout = rows::rollout(&server, RolloutState::Progressing);
        rollout.from_revision = server.serving_revision;
        rollout.to_revision = RevisionId::generate();
        server.rollout = Some(rollout.id);
        let package = Package {
            identifier: "pkg".into(),
            version: "1".into(),
            command: None,
            arguments: Vec::new(),
            environment: std::collections::BTreeMap::new(),
            registry: None,
        };
        let revision = RevisionRow {
            id: rollout.to_revision,
            server: server.id,
            number: 2,
            spec: RevisionSpec {
                entry: None,
                runtime: Runtime::Npm(package),
                limits: Limits::default(),
                paths: Vec::new(),
                egress: Egress::All,
                strategy: Strategy::Surge,
                start_timeout_ms: 60_000,
                call_timeout_ms: 60_000,
                probe_call: None,
                instancing: Instancing::default(),
            },
            inputs: String::new(),
            lock_digest: Some("sha256:0".into()),
            created_by: String::new(),
            change: String::new(),
            created_at: Timestamp::from_ms(1),
        };
        let toolbox = toolbox();
        let mut old = rows::instance(&old, Phase::Ready);
        old.toolbox = toolbox.id;
        Case {
            server,
            rollout,
            revision,
            jobs: Vec::new(),
            mine: Vec::new(),
            live: vec![old],
            places: Arc::new(Places { toolboxes: vec![toolbox], load: HashMap::new() }),
            probe: None,
            served_tools: BTreeSet::new(),
        }
    }

    /// A case with an instance of the new revision added.
    pub(crate) fn with(mut case: Case, phase: Phase, reason: Reason) -> Case {
        let mut instance = rows::instance(&case.rollout, phase);
        instance.toolbox = case.places.toolboxes[0].id;
        instance.status.reason = reason;
        case.live.push(instance.clone());
        case.mine.push(instance);
        case
    }
}
