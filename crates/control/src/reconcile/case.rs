//! One rollout under way with everything a loop needs to decide about it.
//!
//! A decision is a pure function from a [`Case`] to a [`Step`]. It is made twice: from a read that blocks
//! nobody, and, if it asks for something, again under the server's lock, where it is applied (`steps`). So two
//! replicas may run the same loop at once, and a step never rests on what was true a moment ago.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use toolyard_store::{
    InstanceRow, InstanceWish, JobRow, Loop, OrgTx, Place, ProbeRow, RemovedToolbox, RevisionRow, RolloutRow,
    ServerRef, ServerRow, ToolboxRow,
};
use toolyard_types::agent::McpInfo;
use toolyard_types::api::servers::Canary;
use toolyard_types::spec::Runtime;
use toolyard_types::state::{Reason, RolloutState, ToolboxState};
use toolyard_types::{OrganizationId, ServerId, Timestamp, ToolboxId};

use super::steps::{Step, apply};
use super::{AFTER_FAILURE, LONGEST_WAIT, Pass, SERVERS_PER_PUT_OFF, TO_BE_HEARD, put_off};
use crate::fleet::locked;
use crate::{Control, Result};

/// A rollout under way.
pub(crate) struct Case {
    pub(crate) server: ServerRow,
    pub(crate) rollout: RolloutRow,
    /// When the rollout fails if it is not done: its deadline, or later where no agent could be heard for a while.
    pub(crate) deadline: Timestamp,
    pub(crate) revision: RevisionRow,
    /// The revision's resolve jobs, newest first.
    pub(crate) jobs: Vec<JobRow>,
    /// Every instance the rollout made and still wants, also those that ended by themselves.
    pub(crate) mine: Vec<InstanceRow>,
    /// The server's instances that have not ended.
    pub(crate) live: Vec<InstanceRow>,
    /// The toolboxes that its instances and its last job are on.
    pub(crate) near: Vec<ToolboxRow>,
    /// Every place there is; empty unless it may need one.
    pub(crate) places: Arc<Places>,
    /// The toolbox where it must run, when that was removed.
    pub(crate) removed: Option<RemovedToolbox>,
    /// The toolboxes whose paths it sees; empty unless it sees some.
    pub(crate) homes: BTreeSet<ToolboxId>,
    pub(crate) probe: Option<ProbeRow>,
    /// The tools that what serves lists, as far as they are known.
    pub(crate) served_tools: BTreeSet<String>,
}

/// Where instances may run, as a pass found it: reading a thousand toolboxes for each of a thousand rollouts would take
/// all of its time. So a place that was chosen is looked at again before anything is placed there.
#[derive(Default)]
pub(crate) struct Places {
    pub(crate) toolboxes: Vec<ToolboxRow>,
    /// How many instances each toolbox has.
    load: Mutex<HashMap<ToolboxId, u32>>,
}

impl Places {
    /// How many instances a toolbox has.
    pub(crate) fn load(&self, id: ToolboxId) -> u32 {
        locked(&self.load).get(&id).copied().unwrap_or_default()
    }

    /// Counts one more on a toolbox.
    pub(crate) fn placed(&self, id: ToolboxId) {
        *locked(&self.load).entry(id).or_default() += 1;
    }
}

/// The places of each organization, read when the first server of a pass needs one.
#[derive(Default)]
pub(crate) struct PlacesOf(HashMap<OrganizationId, Arc<Places>>);

impl PlacesOf {
    pub(crate) async fn read(&mut self, tx: &OrgTx) -> Result<Arc<Places>> {
        if let Some(known) = self.0.get(&tx.organization()) {
            return Ok(known.clone());
        }
        let load = Mutex::new(tx.instances_by_toolbox().await?.into_iter().collect());
        let places = Arc::new(Places { toolboxes: tx.toolboxes().await?, load });
        self.0.insert(tx.organization(), places.clone());
        Ok(places)
    }

    /// Whether all of these still take something new. If not, what is known of their organization is read again.
    pub(crate) async fn still_take(&mut self, tx: &OrgTx, ids: &[ToolboxId]) -> Result<bool> {
        let rows = tx.toolboxes_by_id(ids.iter().copied()).await?;
        let taken = ids.iter().all(|id| rows.iter().any(|row| row.id == *id && row.takes_new()));
        if !taken {
            self.0.remove(&tx.organization());
        }
        Ok(taken)
    }
}

impl Case {
    /// Whether the exact files are still unknown.
    pub(crate) fn needs_lock(&self) -> bool {
        self.revision.lock_digest.is_none() && self.revision.spec.runtime.package().is_some()
    }

    /// Whether a toolbox may have to be chosen.
    fn needs_place(&self) -> bool {
        !self.is_remote()
            && self.rollout.switched_at.is_none()
            && (self.needs_lock() || self.mine.len() < self.wanted())
    }

    /// Whether it runs elsewhere.
    pub(crate) fn is_remote(&self) -> bool {
        matches!(self.revision.spec.runtime, Runtime::Remote(_))
    }

    /// A toolbox by id.
    pub(crate) fn toolbox(&self, id: ToolboxId) -> Option<&ToolboxRow> {
        self.near.iter().chain(&self.places.toolboxes).find(|toolbox| toolbox.id == id)
    }

    /// Whether a toolbox is online.
    pub(crate) fn online(&self, id: ToolboxId) -> bool {
        self.toolbox(id).is_some_and(|toolbox| toolbox.status.phase == ToolboxState::Online)
    }

    /// How many instances the rollout wants now.
    pub(crate) fn wanted(&self) -> usize {
        match &self.rollout.canary {
            Some(canary) if canary.promoted_at.is_none() => 1,
            _ => self.replicas(),
        }
    }

    /// How many instances serve in the end. A volume has one writer, however many the server may have with a revision that
    /// has none: it can go back to one that does.
    pub(crate) fn replicas(&self) -> usize {
        if self.revision.spec.volumes.is_empty() {
            usize::try_from(self.server.replicas).unwrap_or(usize::MAX)
        } else {
            1
        }
    }

    /// Whether it waits for the server's update window; only *rollout* lets it go on.
    pub(crate) fn is_held(&self) -> bool {
        is_held(&self.rollout)
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

    /// Instances of other rollouts that have not ended: with `recreate` none of this one starts before.
    pub(crate) fn earlier(&self) -> impl Iterator<Item = &InstanceRow> {
        self.live.iter().filter(|instance| instance.rollout != self.rollout.id)
    }

    /// Whether the operator has said that the server is to run on others than this toolbox: by name, or with this rollout.
    pub(crate) fn leaves(&self, toolbox: &ToolboxRow) -> bool {
        match self.server.toolbox {
            Some(pinned) => pinned != toolbox.id,
            None => self.rollout.from_place.is_some() && !toolbox.labels.include(&self.server.toolbox_labels),
        }
    }

    /// How long it may wait until it is looked at again, if nothing happens to it meanwhile. Events wake it; what only time
    /// brings about is looked for often at first and less often later.
    fn wait(&self, now: Timestamp) -> Duration {
        const OFTEN: Duration = Duration::from_secs(1);
        const SELDOM: Duration = Duration::from_secs(5);
        if self.is_held() {
            let opens = self.rollout.next_attempt_at.unwrap_or(now);
            return opens.since(now).clamp(OFTEN, LONGEST_WAIT);
        }
        let observed = self.rollout.switched_at.map(|at| at.plus(Duration::from_millis(self.server.observe_ms)));
        let ends = observed.into_iter().chain([self.deadline]).filter(|end| *end > now);
        let usual = (now.since(self.rollout.started_at) / 20).clamp(OFTEN, SELDOM);
        ends.map(|end| end.since(now)).fold(usual, Duration::min)
    }

    /// A step that says what is being waited for, unless it was said.
    pub(crate) fn note(&self, reason: Reason, message: String) -> Option<Step> {
        let said = self.rollout.reason == reason && self.rollout.message == message;
        (!said).then_some(Step::Note(reason, message))
    }
}

/// How something is read.
#[derive(Clone, Copy)]
pub(crate) enum Look {
    /// Without blocking anybody.
    Ahead,
    /// With the server locked: what is decided now is applied.
    Locked,
}

impl Look {
    /// The server, if it is meant to run.
    pub(crate) async fn server(self, tx: &OrgTx, id: ServerId) -> Result<Option<ServerRow>> {
        let server = match self {
            Look::Ahead => tx.server_by_id(id).await?,
            Look::Locked => tx.lock_server(id).await?,
        };
        Ok(server.filter(|server| server.enabled && !server.deleted))
    }
}

/// The toolboxes that instances, and jobs, are on.
pub(crate) async fn near(tx: &OrgTx, instances: &[InstanceRow], job: Option<&JobRow>) -> Result<Vec<ToolboxRow>> {
    let ids = instances.iter().map(|instance| instance.toolbox).chain(job.map(|job| job.toolbox));
    Ok(tx.toolboxes_by_id(ids).await?)
}

/// Whether a rollout stands still until somebody decides, or a time comes: it waits for its window, or is tried as a canary.
/// What serves meanwhile, and the canary, are kept as what no rollout changes.
pub(crate) fn stands_still(rollout: &RolloutRow) -> bool {
    rollout.switched_at.is_none() && (is_held(rollout) || rollout.canary.as_ref().is_some_and(Canary::is_on_trial))
}

/// Whether a rollout waits for its server's update window.
pub(crate) fn is_held(rollout: &RolloutRow) -> bool {
    rollout.reason == Reason::OutsideWindow
}

/// Where what serves of a server belongs while the rollout that moves it stands still.
pub(crate) fn place_before<'a>(server: &ServerRow, rollout: &'a RolloutRow) -> Option<&'a Place> {
    rollout.from_place.as_ref().filter(|_| stands_still(rollout) && !server.has_volumes)
}

/// A server as what serves is placed: while the rollout that moves it stands still, that belongs where it was.
pub(crate) async fn as_it_serves(
    tx: &OrgTx,
    mut server: ServerRow,
    under_way: Option<&RolloutRow>,
) -> Result<ServerRow> {
    // On a toolbox that was removed nothing serves.
    if let Some(place) = under_way.and_then(|rollout| place_before(&server, rollout)).cloned()
        && tx.removed_toolboxes(place.toolbox).await?.is_empty()
    {
        (server.toolbox, server.toolbox_labels) = (place.toolbox, place.labels);
    }
    Ok(server)
}

/// The same of many servers.
pub(crate) async fn as_they_serve(tx: &OrgTx, servers: Vec<ServerRow>) -> Result<Vec<ServerRow>> {
    let rollouts: Vec<_> = servers.iter().filter_map(|server| server.rollout).collect();
    let rollouts: HashMap<_, _> = tx.rollouts_by_id(&rollouts).await?.into_iter().map(|it| (it.id, it)).collect();
    let mut all = Vec::with_capacity(servers.len());
    for server in servers {
        let last = server.rollout.and_then(|id| rollouts.get(&id));
        let under_way = last.filter(|rollout| rollout.state == RolloutState::Progressing);
        all.push(as_it_serves(tx, server, under_way).await?);
    }
    Ok(all)
}

/// Since when this replica's loop hears what agents tell: no longer than since it began, or the database was last away.
fn listens_since(control: &Control) -> Timestamp {
    let fleet = control.fleet();
    fleet.failed_at("rollout").unwrap_or_default().max(fleet.started_at())
}

/// Reads a server's rollout under way; `None` when there is none any more. What was under way while no agent could be
/// heard, until `deaf_until`, has time to be told of before its deadline.
async fn gather(
    tx: &OrgTx,
    server: ServerId,
    places: &mut PlacesOf,
    look: Look,
    deaf_until: Timestamp,
) -> Result<Option<Case>> {
    let Some(server) = look.server(tx, server).await? else { return Ok(None) };
    let Some(rollout) = tx.rollout_under_way(&server).await? else { return Ok(None) };
    let deadline = match rollout.started_at < deaf_until {
        true => rollout.deadline.max(deaf_until.plus(TO_BE_HEARD)),
        false => rollout.deadline,
    };
    let Some(revision) = tx.revision(rollout.to_revision).await? else { return Ok(None) };
    let live = tx.live_instances(&[server.id]).await?;
    let probes = tx.probes_of(&[server.id]).await?;
    let served_tools = served_tools(tx, &server, &live, &probes).await?;
    let mut mine = tx.instances_of_rollout(rollout.id).await?;
    mine.retain(|instance| matches!(instance.desired, InstanceWish::Run | InstanceWish::Prepare));
    let jobs = tx.jobs_of(revision.id).await?;
    let mut case = Case {
        near: near(tx, &live, jobs.first()).await?,
        jobs,
        mine,
        live,
        places: Arc::default(),
        removed: None,
        homes: BTreeSet::new(),
        probe: probes.into_iter().find(|probe| probe.revision == revision.id),
        served_tools,
        server,
        rollout,
        deadline,
        revision,
    };
    if case.needs_place() {
        case.places = places.read(tx).await?;
        case.removed = removed_place(tx, &case.server, &case.places).await?;
        case.homes = homes(tx, &case.server, &case.revision, &case.live).await?;
    }
    Ok(Some(case))
}

/// The toolboxes whose paths a server sees: those that it serves from, or where it served last.
pub(crate) async fn homes(
    tx: &OrgTx,
    server: &ServerRow,
    revision: &RevisionRow,
    live: &[InstanceRow],
) -> Result<BTreeSet<ToolboxId>> {
    /// How many instances are looked through for one that answered.
    const LOOKED_THROUGH: u32 = 20;
    if revision.spec.paths.is_empty() {
        return Ok(BTreeSet::new());
    }
    let serves = |instance: &&InstanceRow| Some(instance.rollout) == server.serving_rollout;
    let homes: BTreeSet<_> = live.iter().filter(serves).map(|instance| instance.toolbox).collect();
    if !homes.is_empty() {
        return Ok(homes);
    }
    // What failed elsewhere meanwhile was never at home there.
    let newest_first = tx.instances_of_server(server.id, LOOKED_THROUGH).await?;
    let last = newest_first.iter().find(serves).or_else(|| newest_first.iter().find(|instance| instance.mcp.is_some()));
    Ok(last.map(|instance| instance.toolbox).into_iter().collect())
}

/// The toolbox where a server must run, when that was removed. One that is not among the places may also be newer than
/// what is known of them.
async fn removed_place(tx: &OrgTx, server: &ServerRow, places: &Places) -> Result<Option<RemovedToolbox>> {
    let missing = server.toolbox.filter(|id| places.toolboxes.iter().all(|toolbox| toolbox.id != *id));
    Ok(tx.removed_toolboxes(missing).await?.pop())
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

/// What is to be done about a rollout.
type Decide = fn(&Case, Timestamp) -> Option<Step>;

/// Decides and acts for every rollout under way, a transaction each.
pub(crate) async fn for_each(control: &Control, decide: Decide) -> Result<Pass> {
    const AT_ONCE: usize = 500;
    let tx = control.store().system_read("listing rollouts under way").await?;
    let (seen, now) = (tx.last_event().await?, control.clock().now());
    let due = tx.rollouts_due(now, u32::try_from(AT_ONCE).unwrap_or(u32::MAX)).await?;
    drop(tx);
    let (mut pass, mut places) = (Pass::default(), PlacesOf::default());
    for some in due.chunks(SERVERS_PER_PUT_OFF) {
        let mut waits = Vec::new();
        for at in some {
            // How long to wait counts from the moment for which it was decided.
            let now = control.clock().now();
            match act(control, *at, &mut places, decide, now).await {
                Ok(None) => pass.changed += 1,
                Ok(Some(wait)) => waits.push((*at, now.plus(wait))),
                Err(error) => {
                    pass.failed(&error);
                    waits.push((*at, now.plus(AFTER_FAILURE)));
                }
            }
        }
        put_off(control, Loop::Rollout, seen, waits).await?;
    }
    if due.len() == AT_ONCE {
        pass.again();
    }
    Ok(pass)
}

/// Decides and acts for one rollout; tells how long to wait when there is nothing to do.
async fn act(
    control: &Control,
    at: ServerRef,
    places: &mut PlacesOf,
    decide: Decide,
    now: Timestamp,
) -> Result<Option<Duration>> {
    let tx = control.store().org_read(at.organization).await?;
    let deaf_until = listens_since(control);
    let case = gather(&tx, at.server, places, Look::Ahead, deaf_until).await?;
    drop(tx);
    let Some(case) = case else { return Ok(Some(LONGEST_WAIT)) };
    if decide(&case, now).is_none() {
        return Ok(Some(case.wait(now)));
    }
    let mut tx = control.store().org(at.organization).await?;
    let Some(case) = gather(&tx, at.server, places, Look::Locked, deaf_until).await? else {
        return Ok(Some(LONGEST_WAIT));
    };
    let Some(step) = decide(&case, now) else { return Ok(Some(case.wait(now))) };
    if !places.still_take(&tx, step.places()).await? {
        return Ok(Some(Duration::ZERO));
    }
    apply(&mut tx, case, step, now).await?;
    tx.commit().await?;
    Ok(None)
}

#[cfg(test)]
pub(crate) mod tests {
    use toolyard_types::agent::{Era, ToolboxReport};
    use toolyard_types::spec::{Egress, Instancing, Limits, Package, RevisionSpec, Strategy};
    use toolyard_types::state::{Phase, Status};
    use toolyard_types::{Labels, Name, RevisionId};

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
            lost_at: None,
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
            with: Vec::new(),
            arguments: Vec::new(),
            environment: std::collections::BTreeMap::new(),
            registry: None,
            http: None,
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
                volumes: Vec::new(),
                privileges: BTreeSet::new(),
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
            deadline: rollout.deadline,
            rollout,
            revision,
            jobs: Vec::new(),
            mine: Vec::new(),
            live: vec![old],
            near: vec![toolbox.clone()],
            places: Arc::new(Places { toolboxes: vec![toolbox], load: Mutex::default() }),
            removed: None,
            homes: BTreeSet::new(),
            probe: None,
            served_tools: BTreeSet::new(),
        }
    }

    /// A case with other places.
    pub(crate) fn among(mut case: Case, toolboxes: Vec<ToolboxRow>) -> Case {
        case.places = Arc::new(Places { toolboxes, load: Mutex::default() });
        case
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
