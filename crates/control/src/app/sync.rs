//! What agents observed comes up, everything their toolboxes should run goes down.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use toolyard_store::{EventKind, InstanceRow, InstanceWish, JobRow, JobState, OrgTx, RevisionRow, ToolboxRow};
use toolyard_types::agent::{
    AGENT_PROTOCOL, Desired, DesiredInstance, Exit, Failure, JobOf, JobResult, McpInfo, Observed, ObservedInstance,
    ResolveJob, SyncRequest, SyncResponse, ToolboxReport,
};
use toolyard_types::spec::{Lock, Value};
use toolyard_types::state::{Phase, Reason, Status, ToolboxState};
use toolyard_types::{Code, CredentialId, InstanceId, OrganizationId, Secret, ServerId, Timestamp, ToolboxId};

use super::agents::{self, Agent};
use super::system_line;
use crate::fleet::Restarts;
use crate::{Control, ControlError, Result, app};

/// The oldest wire version that is still spoken.
const OLDEST_PROTOCOL: u32 = 1;
/// How long an answer is held while nothing changes; see [`Pace`].
const HOLD: Duration = Duration::from_secs(25);
/// A waiting answer looks at the store this often, in case another replica made the change.
const LOOK: Duration = Duration::from_secs(5);
/// `last_seen_at` is written at most this often; see [`Pace`].
const SEEN_EVERY: Duration = Duration::from_secs(15);
/// How long an agent may keep secrets without hearing from a control plane.
const LEASE: Duration = Duration::from_secs(24 * 3600);
/// How old a lease gets before everything is sent again.
const RENEW_LEASE: Duration = Duration::from_secs(6 * 3600);
/// The most instances and jobs one agent may report.
const MOST_OBSERVED: usize = 10_000;
/// No honest agent saw a higher generation. One that is near the largest number of the database would end the
/// counting there, for the query over all toolboxes too.
const HIGHEST_GENERATION: u64 = 1 << 53;
/// No server was started again more often by one agent: a wrong number ends here.
const MOST_RESTARTS: u32 = 1_000_000;
/// The longest texts kept of what an agent or a server says, in characters.
const LONGEST_MESSAGE: usize = 1_000;
const LONGEST_TAIL: usize = 4_000;
const LONGEST_NAME: usize = 200;
/// The most secrets of one instance of which an agent may tell the version.
const MOST_SECRETS: usize = 1_000;
/// The largest lock, in bytes.
const LARGEST_LOCK: usize = 8 << 20;

/// One turn of the conversation with an agent. The answer is held until its toolbox should run something else.
///
/// # Errors
/// `version_unsupported`, `validation_failed`, or when the store fails.
pub(crate) async fn sync(control: &Control, agent: Agent, request: SyncRequest) -> Result<SyncResponse> {
    let Agent { organization, toolbox, .. } = agent;
    let began = Instant::now();
    let protocol = negotiate(&request)?;
    let Observed { instances, jobs, job_progress, .. } = &request.observed;
    if [instances.len(), jobs.len(), job_progress.len()].into_iter().any(|count| count > MOST_OBSERVED) {
        return Err(ControlError::field("observed", format!("more than {MOST_OBSERVED} instances or jobs")));
    }
    if request.generation > HIGHEST_GENERATION {
        return Err(ControlError::field("generation", format!("is above {HIGHEST_GENERATION}")));
    }
    observe(control, organization, toolbox, &request).await?;
    metrics::histogram!("toolyard_sync_seconds").record(began.elapsed().as_secs_f64());
    let desired = next_desired(control, agent, request.generation).await?;
    let links = control.fleet().tell_links(toolbox);
    let environment = Some(control.options().environment.clone());
    let listeners = control.fleet().listeners();
    Ok(SyncResponse { protocol, toolbox, desired, links, environment, listeners })
}

fn negotiate(request: &SyncRequest) -> Result<u32> {
    if request.protocol_min > AGENT_PROTOCOL {
        let detail = format!(
            "the agent speaks version {} and newer, this control plane up to {AGENT_PROTOCOL}; upgrade the control plane",
            request.protocol_min
        );
        return Err(ControlError::problem(Code::VersionUnsupported, detail));
    }
    if request.protocol_max < OLDEST_PROTOCOL || request.protocol_max < request.protocol_min {
        let detail = format!(
            "the agent speaks up to version {}, at least {OLDEST_PROTOCOL} is needed; install toolyard {} on its host \
             and restart `toolyard dtma`",
            request.protocol_max,
            env!("CARGO_PKG_VERSION")
        );
        return Err(ControlError::problem(Code::VersionUnsupported, detail));
    }
    Ok(request.protocol_max.min(AGENT_PROTOCOL))
}

/// Writes what changed since the agent last told, in one transaction; only that it was heard when nothing did.
async fn observe(control: &Control, organization: OrganizationId, id: ToolboxId, request: &SyncRequest) -> Result<()> {
    let _turn = control.fleet().turn().await;
    let now = control.clock().now();
    let observed = &request.observed.instances;
    control.fleet().set_usage(id, observed.iter().filter_map(|it| Some((it.id, it.usage.clone()?))).collect());
    let answered = observed.iter().filter_map(|it| Some((it.id, it.last_success_at?))).collect();
    control.fleet().set_answered(id, answered);
    let last = control.fleet().restarts(id);
    let tx = control.store().org_read(organization).await?;
    let mut news = News::find(&tx, id, request, &last, now).await?;
    drop(tx);
    if news.is_nothing() {
        control.fleet().set_restarts(id, std::mem::take(&mut news.restarts));
        if !control.fleet().write_due(id, now, Pace::of(control).seen_every) {
            return Ok(());
        }
        let tx = control.store().system("noting that an agent was heard").await?;
        if tx.touch_toolbox(id, now, &news.toolbox.report).await? {
            tx.commit().await?;
            control.fleet().written(id, now);
            return Ok(());
        }
    }
    let mut tx = control.store().org(organization).await?;
    let news = News::find(&tx, id, request, &last, now).await?;
    news.write(&mut tx, now).await?;
    tx.commit().await?;
    control.fleet().set_restarts(id, news.restarts);
    control.fleet().written(id, now);
    Ok(())
}

/// What an agent told that the store does not know yet.
struct News<'a> {
    toolbox: ToolboxRow,
    toolbox_changed: bool,
    raise_above: Option<u64>,
    /// What an agent that was given up still runs although it was replaced, when it is heard again.
    replaced: usize,
    instances: Vec<InstanceRow>,
    /// How often the instances that it told of were started again.
    restarts: HashMap<InstanceId, Restarts>,
    jobs: Vec<(JobRow, &'a JobResult)>,
    /// The jobs under way that tell something new of themselves.
    told: Vec<(JobRow, String)>,
}

impl<'a> News<'a> {
    async fn find(
        tx: &OrgTx,
        id: ToolboxId,
        request: &'a SyncRequest,
        last: &HashMap<InstanceId, Restarts>,
        now: Timestamp,
    ) -> Result<Self> {
        let Some(before) = tx.toolbox_by_id(id).await? else { return Err(agents::gone(tx, id).await?) };
        let toolbox = heard(&before, request, now);
        let toolbox_changed = toolbox.status.phase != before.status.phase
            || !same_report(&toolbox.report, &before.report)
            || toolbox.agent_version != before.agent_version;
        let observed = &request.observed;
        let current = request.generation == before.generation;
        let known = tx.instances_on(id).await?;
        let returns = before.lost_at.is_some() && toolbox.status.phase == ToolboxState::Online;
        let replaced = if returns { strays(&known, observed) } else { 0 };
        let restarts = count_restarts(&known, observed, last);
        let instances = changed_instances(known, observed, &restarts, current, now);
        let pending: HashMap<_, _> = tx.jobs_on(id).await?.into_iter().map(|job| (job.id, job)).collect();
        let jobs = observed.jobs.iter().filter_map(|result| Some((pending.get(&result.id)?.clone(), result))).collect();
        let told = observed.job_progress.iter().filter_map(|told| {
            let message = bounded(&told.message, LONGEST_MESSAGE);
            let job = pending.get(&told.id).filter(|job| job.message.as_deref() != Some(message.as_str()))?;
            Some((job.clone(), message))
        });
        let told = told.collect();
        let raise_above = (request.generation > before.generation).then_some(request.generation);
        Ok(Self { toolbox, toolbox_changed, raise_above, replaced, instances, restarts, jobs, told })
    }

    fn is_nothing(&self) -> bool {
        !self.toolbox_changed
            && self.raise_above.is_none()
            && self.instances.is_empty()
            && self.jobs.is_empty()
            && self.told.is_empty()
    }

    async fn write(&self, tx: &mut OrgTx, now: Timestamp) -> Result<()> {
        let mut servers = BTreeSet::new();
        for instance in &self.instances {
            tx.observe_instance(instance).await?;
            servers.insert(instance.server);
        }
        for (job, result) in &self.jobs {
            servers.extend(end_job(tx, job, result).await?);
        }
        for (job, message) in &self.told {
            tx.tell_job(job.id, message).await?;
            servers.extend(tx.revision(job.revision).await?.map(|revision| revision.server));
        }
        if self.toolbox_changed {
            tx.update_toolbox(&self.toolbox).await?;
            let data = json!({ "id": self.toolbox.id, "state": self.toolbox.status.phase });
            tx.event(EventKind::ToolboxChanged, format!("toolbox/{}", self.toolbox.name), data);
            if self.toolbox.lost_at.is_some() {
                self.returned(tx).await?;
            }
        } else {
            tx.update_toolbox(&ToolboxRow { last_seen_at: Some(now), ..self.toolbox.clone() }).await?;
        }
        if !self.jobs.is_empty() {
            tx.bump_generation(self.toolbox.id).await?;
        }
        if let Some(above) = self.raise_above {
            tx.raise_generation(self.toolbox.id, above).await?;
        }
        let servers: Vec<ServerId> = servers.into_iter().collect();
        for server in tx.servers_by_id(&servers).await? {
            tx.event(EventKind::ServerChanged, format!("server/{}", server.name), json!({ "id": server.id }));
        }
        Ok(())
    }

    /// Tells that a toolbox that was given up is there again: what was replaced meanwhile ends with this sync's answer.
    async fn returned(&self, tx: &mut OrgTx) -> Result<()> {
        let data = json!({ "id": self.toolbox.id, "stops": self.replaced });
        tx.event(EventKind::ToolboxReturned, format!("toolbox/{}", self.toolbox.name), data);
        let target = format!("toolbox/{}", self.toolbox.name);
        tx.audit(&system_line("lost", "toolbox.return", target, true, json!({ "stops": self.replaced }))).await?;
        // An agent that saw the newest state before it fell silent must hear it again.
        tx.bump_generation(self.toolbox.id).await?;
        metrics::counter!("toolyard_instances_returned_total")
            .increment(u64::try_from(self.replaced).unwrap_or(u64::MAX));
        tracing::warn!(toolbox.name = %self.toolbox.name, stops = self.replaced, "an evicted toolbox is there again");
        Ok(())
    }
}

/// How many instances an agent still runs that it should know nothing of.
fn strays(known: &[InstanceRow], observed: &Observed) -> usize {
    let known: BTreeSet<_> = known.iter().map(|instance| instance.id).collect();
    let runs = |it: &&ObservedInstance| !matches!(it.status.phase, Phase::Stopped | Phase::Failed);
    observed.instances.iter().filter(runs).filter(|it| !known.contains(&it.id)).count()
}

/// Whether a toolbox is and enforces the same; what its host has left changes all the time.
fn same_report(one: &ToolboxReport, other: &ToolboxReport) -> bool {
    let ToolboxReport {
        engine,
        platform,
        runtimes,
        enforcement,
        grantable_paths,
        granted_before,
        engine_failure,
        environment,
        capacity: _,
    } = one;
    (engine, platform, runtimes, enforcement) == (&other.engine, &other.platform, &other.runtimes, &other.enforcement)
        && (grantable_paths, granted_before) == (&other.grantable_paths, &other.granted_before)
        && (engine_failure, environment) == (&other.engine_failure, &other.environment)
}

/// The toolbox as it is after a sync.
fn heard(before: &ToolboxRow, request: &SyncRequest, now: Timestamp) -> ToolboxRow {
    let mut toolbox = before.clone();
    toolbox.last_seen_at = Some(now);
    toolbox.agent_version = Some(bounded(&request.agent_version, LONGEST_NAME));
    toolbox.report = request.observed.toolbox.clone().bounded();
    if matches!(before.status.phase, ToolboxState::Enrolling | ToolboxState::Unreachable) {
        toolbox.status = Status::new(ToolboxState::Online, Reason::Answered, "", now);
    }
    toolbox
}

/// How often the instances that an agent tells of were started again by now.
fn count_restarts(
    known: &[InstanceRow],
    observed: &Observed,
    last: &HashMap<InstanceId, Restarts>,
) -> HashMap<InstanceId, Restarts> {
    let known: HashMap<_, _> = known.iter().map(|instance| (instance.id, instance.restarts)).collect();
    let count = |told: &ObservedInstance| {
        let known = known.get(&told.id)?;
        Some((told.id, restarted(*known, last.get(&told.id), told.restarts)))
    };
    observed.instances.iter().filter_map(count).collect()
}

/// An agent counts on when it is started again, unless it lost what it kept or is of an earlier version: one that counts
/// anew tells less than before, and that is added to what is known. Only what this replica heard last shows it, and only
/// while no other wrote more since: without that the higher number counts. So the sum may be too low, and is never too
/// high.
fn restarted(known: u32, last: Option<&Restarts>, told: u32) -> Restarts {
    let told = told.min(MOST_RESTARTS);
    let total = match last.filter(|last| last.total == known) {
        Some(last) => known.saturating_add(told.checked_sub(last.told).unwrap_or(told)),
        None => known.max(told),
    };
    Restarts { told, total: total.min(MOST_RESTARTS) }
}

/// The instances that are no longer as the store knows them.
fn changed_instances(
    known: Vec<InstanceRow>,
    observed: &Observed,
    restarts: &HashMap<InstanceId, Restarts>,
    current: bool,
    now: Timestamp,
) -> Vec<InstanceRow> {
    let told: HashMap<_, _> = observed.instances.iter().map(|instance| (instance.id, instance)).collect();
    known
        .into_iter()
        .filter_map(|before| {
            let after = match told.get(&before.id) {
                Some(told) => {
                    let restarts = restarts.get(&before.id).map_or(before.restarts, |restarts| restarts.total);
                    after(&before, told, restarts, now)
                }
                // An agent that applied the newest state and does not know it any more has ended it.
                None if current && before.desired == InstanceWish::Stop => InstanceRow {
                    status: Status::new(Phase::Stopped, Reason::Requested, "", now),
                    pid: None,
                    ended_at: Some(now),
                    ..before.clone()
                },
                None => return None,
            };
            differs(&before, &after).then_some(after)
        })
        .collect()
}

fn after(before: &InstanceRow, told: &ObservedInstance, restarts: u32, now: Timestamp) -> InstanceRow {
    let status = Status { message: bounded(&told.status.message, LONGEST_MESSAGE), ..told.status.clone() };
    let ended = before.desired == InstanceWish::Stop && matches!(status.phase, Phase::Stopped | Phase::Failed);
    let exit = told.exit.as_ref().map(|exit| {
        let failure = exit.failure.clone();
        let failure = failure.map(|it| Failure { message: bounded(&it.message, LONGEST_MESSAGE), ..it });
        Exit { stderr_tail: tail(&exit.stderr_tail), failure, ..exit.clone() }
    });
    // An agent that was started again may not know how often a server ended before, and how. And that it ends when it is
    // asked to says nothing of how it ended by itself, which is what people ask for.
    let asked = before.desired == InstanceWish::Stop || matches!(status.phase, Phase::Stopping | Phase::Stopped);
    let keeps = before.restarts > 0 && asked;
    let exit = if keeps { before.exit.clone().or(exit) } else { exit.or_else(|| before.exit.clone()) };
    InstanceRow {
        status,
        pid: told.pid,
        ready_since: told.ready_since,
        restarts,
        exit,
        mcp: told.mcp.as_ref().map(|mcp| McpInfo {
            protocol_version: bounded(&mcp.protocol_version, LONGEST_NAME),
            server_name: bounded(&mcp.server_name, LONGEST_NAME),
            server_version: bounded(&mcp.server_version, LONGEST_NAME),
            tool_names: mcp
                .tool_names
                .iter()
                .take(McpInfo::MOST_TOOL_NAMES)
                .map(|name| bounded(name, McpInfo::LONGEST_TOOL_NAME))
                .collect(),
            ..mcp.clone()
        }),
        container_id: told.container_id.as_deref().map(|id| bounded(id, LONGEST_NAME)),
        last_success_at: told.last_success_at,
        failures: told.failures,
        copies: told.copies,
        secret_versions: told.secret_versions.iter().take(MOST_SECRETS).map(|(id, version)| (*id, *version)).collect(),
        ended_at: ended.then_some(now),
        ..before.clone()
    }
}

/// Whether there is something to write. When it last answered alone is not: that is kept in memory.
fn differs(before: &InstanceRow, after: &InstanceRow) -> bool {
    before.status.differs_from(&after.status)
        || (before.pid, before.ready_since, before.restarts, before.ended_at)
            != (after.pid, after.ready_since, after.restarts, after.ended_at)
        || (&before.container_id, before.failures, before.copies) != (&after.container_id, after.failures, after.copies)
        || before.exit != after.exit
        || before.secret_versions != after.secret_versions
        || before.mcp != after.mcp
}

/// Stores how a job ended; tells which server it was for.
async fn end_job(tx: &mut OrgTx, job: &JobRow, result: &JobResult) -> Result<Option<ServerId>> {
    let failure = match &result.outcome {
        Ok(lock) => match check(lock) {
            Ok(()) => {
                tx.put_lock(lock).await?;
                tx.set_revision_lock(job.revision, &lock.digest).await?;
                None
            }
            Err(why) => Some((Reason::ChecksumMismatch, why.to_owned())),
        },
        Err(failure) => Some((failure.reason, bounded(&failure.message, LONGEST_MESSAGE))),
    };
    let state = if failure.is_some() { JobState::Failed } else { JobState::Done };
    tx.end_job(job.id, state, failure.as_ref().map(|(reason, message)| (*reason, message.as_str()))).await?;
    Ok(tx.revision(job.revision).await?.map(|revision| revision.server))
}

fn check(lock: &Lock) -> Result<(), &'static str> {
    if lock.content.len() > LARGEST_LOCK {
        return Err("the lock is larger than 8 MiB");
    }
    let digest = format!("sha256:{}", crate::auth::token::hex(&Sha256::digest(lock.content.as_bytes())));
    if digest == lock.digest { Ok(()) } else { Err("the lock's digest is not that of its content") }
}

/// How often an agent with nothing to tell is heard and that is written: well before it counts as silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pace {
    hold: Duration,
    seen_every: Duration,
}

impl Pace {
    fn of(control: &Control) -> Self {
        Self::within(control.options().toolbox_silence)
    }

    fn within(silence: Duration) -> Self {
        Self { hold: HOLD.min(silence / 2), seen_every: SEEN_EVERY.min(silence / 4) }
    }
}

/// Waits until a toolbox should run something else than `seen`; `None` when it should not for a while, or there is other
/// news for its agent.
async fn next_desired(control: &Control, agent: Agent, seen: u64) -> Result<Option<Desired>> {
    let Agent { organization, toolbox, .. } = agent;
    let until = Instant::now() + Pace::of(control).hold;
    let mut generation = control.fleet().generation(toolbox, seen);
    let mut links = control.fleet().links_changing();
    loop {
        links.mark_unchanged();
        generation.mark_unchanged();
        let lease_due = control.fleet().lease_due(toolbox, control.clock().now(), RENEW_LEASE);
        let turn = control.fleet().turn().await;
        let tx = control.store().org_read(organization).await?;
        let Some(row) = tx.toolbox_by_id(toolbox).await? else { return Err(agents::gone(&tx, toolbox).await?) };
        agent.check(row.enrolment)?;
        if row.generation != seen || lease_due {
            return desired(control, tx, &row).await.map(Some);
        }
        drop((tx, turn));
        if control.fleet().are_links_news(toolbox) {
            return Ok(None);
        }
        let look = until.min(Instant::now() + LOOK);
        tokio::select! {
            () = control.stopping().cancelled() => return Ok(None),
            () = tokio::time::sleep_until(look) => {}
            _ = generation.changed() => {}
            _ = links.changed() => {}
        }
        if Instant::now() >= until {
            return Ok(None);
        }
    }
}

/// Everything a toolbox should run, with the secrets for it. `toolbox` was read first: what changes meanwhile
/// has a higher generation and is sent again.
async fn desired(control: &Control, tx: OrgTx, toolbox: &ToolboxRow) -> Result<Desired> {
    let organization = tx.organization();
    let mut instances = tx.instances_on(toolbox.id).await?;
    instances.retain(|instance| instance.desired != InstanceWish::Stop);
    let jobs = tx.jobs_on(toolbox.id).await?;
    let revisions: BTreeSet<_> =
        instances.iter().map(|instance| instance.revision).chain(jobs.iter().map(|job| job.revision)).collect();
    let revisions: HashMap<_, _> = tx
        .revisions_by_id(&revisions.into_iter().collect::<Vec<_>>())
        .await?
        .into_iter()
        .map(|revision| (revision.id, revision))
        .collect();
    let servers: BTreeSet<_> = instances.iter().map(|instance| instance.server).collect();
    let names: HashMap<_, _> = tx
        .servers_by_id(&servers.into_iter().collect::<Vec<_>>())
        .await?
        .into_iter()
        .map(|server| (server.id, server.name))
        .collect();
    let digests: BTreeSet<_> = revisions.values().filter_map(|revision| revision.lock_digest.clone()).collect();
    let locks: HashMap<_, _> = tx
        .locks(&digests.into_iter().collect::<Vec<_>>())
        .await?
        .into_iter()
        .map(|lock| (lock.digest.clone(), lock))
        .collect();
    let keep_locks = tx.locks_to_keep(toolbox.id).await?;
    let keep_volumes = Some(tx.servers_with_volumes(toolbox.id).await?.into_iter().collect());
    let keep_logs = Some(tx.servers_known_on(toolbox.id).await?.into_iter().collect());
    let keep_users = Some(tx.servers_once_on(toolbox.id).await?.into_iter().collect());
    drop(tx);
    let ids: BTreeSet<_> = revisions.values().flat_map(credentials).collect();
    let secrets = app::credentials::open_versions(control, organization, &ids).await?;
    let missing = ids.into_iter().filter(|id| !secrets.contains_key(id)).collect();
    let missing = app::credentials::why_not_opened(control, organization, &missing).await?;
    let now = control.clock().now();
    let instances = instances
        .into_iter()
        .filter_map(|instance| {
            let revision = revisions.get(&instance.revision)?;
            Some(DesiredInstance {
                id: instance.id,
                organization,
                server: instance.server,
                server_name: names.get(&instance.server)?.clone(),
                revision: revision.id,
                revision_number: revision.number,
                lock: revision.lock_digest.as_ref().and_then(|digest| locks.get(digest)).cloned(),
                secrets: own_secrets(revision, &secrets),
                secret_versions: own_versions(revision, &secrets),
                missing: credentials(revision).filter_map(|id| Some((id, missing.get(&id)?.clone()))).collect(),
                spec: revision.spec.clone(),
                run: matches!(instance.desired, InstanceWish::Run | InstanceWish::Retire),
            })
        })
        .collect();
    let jobs = jobs
        .into_iter()
        .filter_map(|job| {
            let revision = revisions.get(&job.revision)?;
            let runtime = revision.spec.runtime.clone();
            let registry = runtime.package().and_then(|package| package.registry.as_ref());
            let ids: BTreeSet<_> = registry.into_iter().flat_map(Value::credentials).collect();
            let secrets = own_secrets(revision, &secrets).into_iter().filter(|(id, _)| ids.contains(id)).collect();
            let of = Some(JobOf { server: revision.server, revision: revision.id });
            Some(ResolveJob { id: job.id, runtime, secrets, of })
        })
        .collect();
    control.fleet().leased(toolbox.id, now);
    let lease_until = now.plus(LEASE);
    Ok(Desired {
        generation: toolbox.generation,
        lease_until,
        instances,
        jobs,
        keep_locks,
        keep_volumes,
        keep_logs,
        keep_users,
    })
}

fn credentials(revision: &RevisionRow) -> impl Iterator<Item = CredentialId> + '_ {
    revision.spec.runtime.values().flat_map(Value::credentials)
}

/// The secrets, and of each its version.
type Opened = BTreeMap<CredentialId, (Secret, u32)>;

/// The secrets of one revision: a server gets only its own.
fn own_secrets(revision: &RevisionRow, all: &Opened) -> BTreeMap<CredentialId, Secret> {
    credentials(revision).filter_map(|id| Some((id, all.get(&id)?.0.clone()))).collect()
}

/// The versions of those that a process goes on with.
fn own_versions(revision: &RevisionRow, all: &Opened) -> BTreeMap<CredentialId, u32> {
    let ids = revision.spec.runtime.started_with().flat_map(Value::credentials);
    ids.filter_map(|id| Some((id, all.get(&id)?.1))).collect()
}

fn bounded(text: &str, longest: usize) -> String {
    text.chars().take(longest).collect()
}

/// The end of a text, which is where the cause is.
fn tail(text: &str) -> String {
    let skip = text.chars().count().saturating_sub(LONGEST_TAIL);
    text.chars().skip(skip).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is known after an agent told these numbers, one after the other, of an instance of which `known` is known.
    fn counted(known: u32, told: &[u32]) -> u32 {
        let mut last: Option<Restarts> = None;
        for told in told {
            last = Some(restarted(last.map_or(known, |last| last.total), last.as_ref(), *told));
        }
        last.map_or(known, |last| last.total)
    }

    #[test]
    fn what_ends_after_its_agent_was_started_again_is_counted_on() {
        assert_eq!(counted(0, &[1, 1, 3, 7]), 7);
        assert_eq!(counted(0, &[7, 0, 0, 1, 7]), 14);
        assert_eq!(counted(0, &[7, 2, 3, 1]), 11, "it may have ended before it was heard again, and the agent too");
        // Toolyard was started again as well: what the agent counted meanwhile may be part of what is known.
        assert_eq!(counted(7, &[0, 1, 2]), 9);
        assert_eq!(counted(7, &[2, 3]), 8);
        assert_eq!(counted(7, &[9, 10]), 10);
    }

    #[test]
    fn what_another_replica_counted_is_not_counted_twice() {
        let last = Restarts { told: 3, total: 3 };
        assert_eq!(restarted(5, Some(&last), 6), Restarts { told: 6, total: 6 });
        assert_eq!(restarted(9, Some(&last), 1), Restarts { told: 1, total: 9 });
    }

    #[test]
    fn no_number_of_restarts_is_believed_that_no_server_reaches() {
        let wrong = restarted(1, None, u32::MAX);
        assert_eq!(wrong, Restarts { told: MOST_RESTARTS, total: MOST_RESTARTS });
        assert_eq!(restarted(wrong.total, Some(&wrong), u32::MAX), wrong, "and it is written once");
        assert_eq!(counted(0, &[u32::MAX, 1, u32::MAX]), MOST_RESTARTS);
    }
}
