//! What the control plane keeps in memory about toolboxes and their agents. None of it is needed after a
//! restart: an agent says everything again with its next sync.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, SemaphorePermit, watch};
use tokio::time::Instant;
use toolyard_link::{Channel, Links, Payer, Replicas, UnverifiedLink};
use toolyard_types::agent::{Listeners, Usage};
use toolyard_types::api::servers::OfferFailure;
use toolyard_types::snapshot::Snapshot;
use toolyard_types::{Clock, InstanceId, Name, OrganizationId, ReplicaId, Timestamp, ToolboxId};

use crate::snapshot::Renewals;
use crate::{Control, Result};

/// The name of the built-in toolbox.
pub(crate) const LOCAL_TOOLBOX: &str = "local";
/// What [`Fleet::note_failed`] calls the look at whether writes work, beside the names of loops.
pub(crate) const WRITES: &str = "writes";

/// Samples of what an instance uses are at least this far apart, by its agent's clock.
const SAMPLE_EVERY: Duration = Duration::from_secs(15);
/// How long samples are kept.
const SAMPLES_FOR: Duration = Duration::from_secs(3600);
/// Samples of one instance: those of the time they are kept for.
const SAMPLES: usize = 240;

/// How much of an error is kept, in characters.
const LONGEST_FAILURE: usize = 500;

/// The in-memory side of toolboxes.
pub(crate) struct Fleet {
    /// This process among the replicas.
    replica: ReplicaId,
    /// How agents are reached: in process for the built-in toolbox, over their links for others.
    channels: Links,
    /// The other replicas, by way of which toolboxes without a link here are reached.
    replicas: Replicas,
    links: watch::Sender<Arc<[String]>>,
    agent_addresses: RwLock<Vec<String>>,
    listeners: OnceLock<Listeners>,
    /// Where agents listen, by toolbox.
    offered_to: watch::Sender<BTreeMap<ToolboxId, String>>,
    /// Why agents that listen have no connection from here. Bounded: one for each that listens.
    offer_failures: Mutex<HashMap<ToolboxId, OfferFailure>>,
    /// Why the agent of the built-in toolbox waits for its engine before it starts, while it does.
    engine_wait: OnceLock<(ToolboxId, watch::Receiver<Option<String>>)>,
    remote_client: OnceLock<toolyard_mcp::http::Client>,
    /// What instances use, by toolbox: a report replaces the one before.
    usage: Mutex<HashMap<ToolboxId, HashMap<InstanceId, Usage>>>,
    /// What instances used in the last hour, by toolbox. Bounded: [`SAMPLES`] of each instance that an agent knows.
    samples: Mutex<HashMap<ToolboxId, HashMap<InstanceId, VecDeque<Usage>>>>,
    /// When instances last answered, by toolbox: a report replaces the one before.
    answered: Mutex<HashMap<ToolboxId, HashMap<InstanceId, Timestamp>>>,
    /// How often instances were started again, by toolbox: a report replaces the one before.
    restarts: Mutex<HashMap<ToolboxId, HashMap<InstanceId, Restarts>>>,
    agents: Mutex<HashMap<ToolboxId, AgentSide>>,
    enrolments: Mutex<Enrolments>,
    /// Whose toolboxes are.
    owners: Mutex<HashMap<ToolboxId, OrganizationId>>,
    /// What the database said when the runs of links were looked up that are not verified, by toolbox and the link's run.
    lookups: Mutex<HashMap<(ToolboxId, Option<String>), Lookup>>,
    /// Turns at the store for what agents ask.
    turns: Semaphore,
    /// Since when, and until when, this control plane could hear agents without a gap.
    awake: Mutex<Option<(Timestamp, Timestamp)>>,
    /// When this process began.
    started_at: Timestamp,
    /// When loops, and [`WRITES`], last failed as a whole, by name: the database was away then, or held up.
    failed_at: Mutex<HashMap<&'static str, Timestamp>>,
    /// Wakes every loop, beside the store's own wakes.
    pub(crate) nudge: Notify,
    pub(crate) snapshots: watch::Sender<Arc<Snapshot>>,
    pub(crate) renewals: Renewals,
    pub(crate) loops: Mutex<HashMap<&'static str, LoopStatus>>,
}

/// How a loop's last run went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoopStatus {
    /// When it ended.
    pub at: Timestamp,
    /// The same by a clock that nobody sets.
    pub ended: Instant,
    /// How many things it changed.
    pub changed: usize,
    /// Why it failed, if it did.
    pub error: Option<String>,
    /// How many runs in a row failed as a whole, rather than for one thing of many.
    pub failed_runs: u32,
    /// How often it runs at least.
    pub period: Duration,
}

/// Which enrolment's certificates are good, of every toolbox.
#[derive(Default)]
struct Enrolments {
    /// When the database was asked for all of them.
    read_at: Timestamp,
    good: HashMap<ToolboxId, u64>,
    /// What this process wrote since then.
    written: HashMap<ToolboxId, u64>,
}

/// The runs that are known of a toolbox, and since when no others are.
struct Lookup {
    runs: Option<String>,
    since: Instant,
}

/// How often an instance was started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Restarts {
    /// As its agent told this replica last: since that agent was started.
    pub(crate) told: u32,
    /// What that made in all.
    pub(crate) total: u32,
}

struct AgentSide {
    generation: watch::Sender<u64>,
    written_at: Option<Timestamp>,
    leased_at: Option<Timestamp>,
    /// Where it was last told that gateways are.
    links: Option<Arc<[String]>>,
}

impl Fleet {
    /// `ca` is the fingerprint of the CA that replicas know each other by. What agents ask takes half of the connections
    /// to the store that can read at once.
    pub(crate) fn new(clock: Clock, ca: String, readers: u32) -> Self {
        let started_at = clock.now();
        let (channels, replicas) = (Links::new(clock), Replicas::new(ca));
        channels.forward_through(replicas.clone());
        Self {
            replica: ReplicaId::generate(),
            channels,
            replicas,
            links: watch::Sender::new(Arc::from([])),
            agent_addresses: RwLock::default(),
            listeners: OnceLock::new(),
            offered_to: watch::Sender::default(),
            offer_failures: Mutex::default(),
            engine_wait: OnceLock::new(),
            remote_client: OnceLock::new(),
            usage: Mutex::default(),
            samples: Mutex::default(),
            answered: Mutex::default(),
            restarts: Mutex::default(),
            agents: Mutex::default(),
            enrolments: Mutex::default(),
            owners: Mutex::default(),
            lookups: Mutex::default(),
            turns: Semaphore::new(usize::try_from(readers / 2).map_or(1, |half| half.max(1))),
            awake: Mutex::default(),
            started_at,
            failed_at: Mutex::default(),
            nudge: Notify::new(),
            snapshots: watch::Sender::new(Arc::default()),
            renewals: Renewals::default(),
            loops: Mutex::default(),
        }
    }

    /// A turn at the store for what an agent asks or a probe of a remote server found: a thousand may at once, and people
    /// and loops need it too. Nobody takes a second one while it holds one.
    pub(crate) async fn turn(&self) -> SemaphorePermit<'_> {
        self.turns.acquire().await.expect("the semaphore is never closed")
    }

    /// The generation of a toolbox, changing when the control plane learns of a newer one.
    pub(crate) fn generation(&self, toolbox: ToolboxId, known: u64) -> watch::Receiver<u64> {
        let mut agents = locked(&self.agents);
        let side = agents.entry(toolbox).or_insert_with(|| AgentSide::new(known));
        side.generation.subscribe()
    }

    /// Tells waiting syncs of newer generations, and forgets toolboxes that are gone.
    pub(crate) fn learn_generations(&self, generations: &[(ToolboxId, u64)]) {
        let known: HashMap<_, _> = generations.iter().copied().collect();
        locked(&self.agents).retain(|toolbox, side| {
            let Some(&generation) = known.get(toolbox) else { return false };
            side.generation.send_if_modified(|old| {
                let newer = generation > *old;
                *old = generation.max(*old);
                newer
            });
            true
        });
        self.replicas.retain(|toolbox| known.contains_key(&toolbox));
        locked(&self.usage).retain(|toolbox, _| known.contains_key(toolbox));
        locked(&self.samples).retain(|toolbox, _| known.contains_key(toolbox));
        locked(&self.answered).retain(|toolbox, _| known.contains_key(toolbox));
        locked(&self.restarts).retain(|toolbox, _| known.contains_key(toolbox));
    }

    /// Notes which enrolment's certificates are good of every toolbox, as the database said when it was asked at `at`.
    pub(crate) fn learn_enrolments(&self, at: Timestamp, mut good: HashMap<ToolboxId, u64>) {
        let mut known = locked(&self.enrolments);
        // The answer may be older than what was written meanwhile.
        for (toolbox, written) in std::mem::take(&mut known.written) {
            if let Some(read) = good.get_mut(&toolbox) {
                *read = written.max(*read);
            }
        }
        known.read_at = at;
        known.good = good;
    }

    /// Notes what this process wrote of one toolbox.
    pub(crate) fn note_enrolment(&self, toolbox: ToolboxId, enrolment: u64) {
        let mut known = locked(&self.enrolments);
        let Enrolments { good, written, .. } = &mut *known;
        for noted in [good, written] {
            // Two may be noted in another order than they were written in.
            noted.entry(toolbox).and_modify(|known| *known = enrolment.max(*known)).or_insert(enrolment);
        }
    }

    /// Notes whose every toolbox is.
    pub(crate) fn learn_owners(&self, owners: HashMap<ToolboxId, OrganizationId>) {
        *locked(&self.owners) = owners;
    }

    /// See [`Control::payer_of`].
    fn payer_of(&self, toolbox: ToolboxId) -> Payer {
        let owner = locked(&self.owners).get(&toolbox).copied();
        Payer::known(("toolboxes", owner), toolbox)
    }

    /// Which enrolment's certificates of a toolbox were good, and how long ago the database was asked.
    pub(crate) fn known_enrolment(&self, toolbox: ToolboxId, now: Timestamp) -> Option<(u64, Duration)> {
        let known = locked(&self.enrolments);
        Some((*known.good.get(&toolbox)?, now.since(known.read_at)))
    }

    /// How long the same has been known of the runs of the toolbox of each of these links. What was known for others is
    /// forgotten.
    pub(crate) fn known_for(&self, looked_up: &[(UnverifiedLink, Option<String>)]) -> Vec<Duration> {
        let now = Instant::now();
        let mut lookups = locked(&self.lookups);
        let before = std::mem::take(&mut *lookups);
        let mut ages = Vec::with_capacity(looked_up.len());
        for (link, runs) in looked_up {
            let key = (link.certificate.toolbox, link.run.clone());
            let since = before.get(&key).filter(|known| known.runs == *runs).map_or(now, |known| known.since);
            lookups.insert(key, Lookup { runs: runs.clone(), since });
            ages.push(now.duration_since(since));
        }
        ages
    }

    /// Tells where agents listen now.
    pub(crate) fn learn_addresses(&self, addresses: BTreeMap<ToolboxId, String>) {
        self.offered_to.send_if_modified(|known| {
            let differs = *known != addresses;
            locked(&self.offer_failures)
                .retain(|toolbox, _| addresses.get(toolbox).is_some_and(|address| known.get(toolbox) == Some(address)));
            *known = addresses;
            differs
        });
    }

    /// Why an agent that listens has no connection from here.
    pub(crate) fn offer_failure(&self, toolbox: ToolboxId) -> Option<OfferFailure> {
        locked(&self.offer_failures).get(&toolbox).cloned()
    }

    /// Why the agent of a toolbox, which is to start in this process, waits for its engine.
    pub(crate) fn engine_wait(&self, toolbox: ToolboxId) -> Option<String> {
        let (_, why) = self.engine_wait.get().filter(|(built_in, _)| *built_in == toolbox)?;
        why.borrow().clone()
    }

    /// Whether it is time to write that an agent was heard.
    pub(crate) fn write_due(&self, toolbox: ToolboxId, now: Timestamp, every: std::time::Duration) -> bool {
        locked(&self.agents).get(&toolbox).and_then(|side| side.written_at).is_none_or(|at| now.since(at) >= every)
    }

    /// Notes that it was written that an agent was heard: not before, for its request may end while that is written.
    pub(crate) fn written(&self, toolbox: ToolboxId, now: Timestamp) {
        locked(&self.agents).entry(toolbox).or_insert_with(|| AgentSide::new(0)).written_at = Some(now);
    }

    /// Whether secrets must be leased again; [`Fleet::leased`] notes that they are.
    pub(crate) fn lease_due(&self, toolbox: ToolboxId, now: Timestamp, every: std::time::Duration) -> bool {
        locked(&self.agents).get(&toolbox).and_then(|side| side.leased_at).is_none_or(|at| now.since(at) >= every)
    }

    /// Notes that everything desired was sent, secrets included.
    pub(crate) fn leased(&self, toolbox: ToolboxId, now: Timestamp) {
        locked(&self.agents).entry(toolbox).or_insert_with(|| AgentSide::new(0)).leased_at = Some(now);
    }

    /// Notes that this control plane can hear agents at `now`: the database takes what they tell. After a gap of more than
    /// `longest` it begins anew.
    pub(crate) fn note_awake(&self, now: Timestamp, longest: Duration) {
        let mut awake = locked(&self.awake);
        let since = match *awake {
            Some((since, until)) if now.since(until) <= longest => since,
            _ => now,
        };
        *awake = Some((since, now));
    }

    /// For how long this control plane could hear agents without a gap of more than `longest`.
    pub(crate) fn awake_for(&self, now: Timestamp, longest: Duration) -> Duration {
        match *locked(&self.awake) {
            Some((since, until)) if now.since(until) <= longest => now.since(since),
            _ => Duration::ZERO,
        }
    }

    /// When this process began.
    pub(crate) fn started_at(&self) -> Timestamp {
        self.started_at
    }

    /// Notes that a run of a loop failed as a whole, or a look at [`WRITES`].
    pub(crate) fn note_failed(&self, name: &'static str, now: Timestamp) {
        locked(&self.failed_at).insert(name, now);
    }

    /// When the database was last away as far as a loop knows: a run of it failed as a whole, or writes did not work.
    pub(crate) fn failed_at(&self, name: &'static str) -> Option<Timestamp> {
        let failed = locked(&self.failed_at);
        failed.get(name).max(failed.get(WRITES)).copied()
    }

    pub(crate) fn set_usage(&self, toolbox: ToolboxId, usage: HashMap<InstanceId, Usage>) {
        let mut samples = locked(&self.samples);
        let kept = samples.entry(toolbox).or_default();
        kept.retain(|instance, _| usage.contains_key(instance));
        for (instance, usage) in &usage {
            let kept = kept.entry(*instance).or_default();
            if kept.back().is_some_and(|last| usage.at.since(last.at) < SAMPLE_EVERY) {
                continue;
            }
            if kept.len() >= SAMPLES {
                kept.pop_front();
            }
            kept.push_back(usage.clone());
        }
        drop(samples);
        locked(&self.usage).insert(toolbox, usage);
    }

    /// What an instance used in the hour before `now`, oldest first.
    pub(crate) fn samples_of(&self, toolbox: ToolboxId, instance: InstanceId, now: Timestamp) -> Vec<Usage> {
        let samples = locked(&self.samples);
        let kept = samples.get(&toolbox).and_then(|instances| instances.get(&instance));
        kept.into_iter().flatten().filter(|usage| now.since(usage.at) <= SAMPLES_FOR).cloned().collect()
    }

    pub(crate) fn usage_of(&self, toolbox: ToolboxId, instance: InstanceId) -> Option<Usage> {
        locked(&self.usage).get(&toolbox)?.get(&instance).cloned()
    }

    pub(crate) fn set_answered(&self, toolbox: ToolboxId, answered: HashMap<InstanceId, Timestamp>) {
        locked(&self.answered).insert(toolbox, answered);
    }

    pub(crate) fn set_restarts(&self, toolbox: ToolboxId, restarts: HashMap<InstanceId, Restarts>) {
        locked(&self.restarts).insert(toolbox, restarts);
    }

    /// How often a toolbox's instances were started again, as its agent told this replica last.
    pub(crate) fn restarts(&self, toolbox: ToolboxId) -> HashMap<InstanceId, Restarts> {
        locked(&self.restarts).get(&toolbox).cloned().unwrap_or_default()
    }

    /// When an instance last answered, as its agent told this replica.
    pub(crate) fn answered(&self, toolbox: ToolboxId, instance: InstanceId) -> Option<Timestamp> {
        locked(&self.answered).get(&toolbox)?.get(&instance).copied()
    }

    /// When any instance of a toolbox last answered, as its agent told this replica.
    pub(crate) fn last_answered(&self, toolbox: ToolboxId) -> Option<Timestamp> {
        locked(&self.answered).get(&toolbox)?.values().max().copied()
    }

    /// Where agents reach the control plane, as written into their tokens.
    pub(crate) fn agent_addresses(&self) -> Vec<String> {
        self.agent_addresses.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where this process listens, to tell agents.
    pub(crate) fn listeners(&self) -> Option<Listeners> {
        self.listeners.get().cloned()
    }

    /// The other replicas.
    pub(crate) fn replicas(&self) -> &Replicas {
        &self.replicas
    }

    /// Where gateways are, to tell a toolbox's agent.
    pub(crate) fn tell_links(&self, toolbox: ToolboxId) -> Vec<String> {
        let links = self.links.borrow().clone();
        let told = links.to_vec();
        if let Some(side) = locked(&self.agents).get_mut(&toolbox) {
            side.links = Some(links);
        }
        told
    }

    /// Whether a toolbox's agent was told here of other gateways than there are now.
    pub(crate) fn are_links_news(&self, toolbox: ToolboxId) -> bool {
        let told = locked(&self.agents).get(&toolbox).and_then(|side| side.links.clone());
        told.is_some_and(|told| told != *self.links.borrow())
    }

    /// Changes when gateways come and go.
    pub(crate) fn links_changing(&self) -> watch::Receiver<Arc<[String]>> {
        self.links.subscribe()
    }
}

impl AgentSide {
    fn new(generation: u64) -> Self {
        Self { generation: watch::Sender::new(generation), written_at: None, leased_at: None, links: None }
    }
}

/// Nothing that holds one of these locks can panic half-way through a change.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes the built-in toolbox if it is wanted and missing, and the first snapshot.
pub(crate) async fn prepare(control: &Control) -> Result<()> {
    if control.options().local_toolbox {
        let tx = control.store().system_read("finding the first organization").await?;
        let first = tx.organizations().await?.into_iter().next();
        drop(tx);
        if let Some(organization) = first {
            crate::app::toolboxes::ensure_local(control.store(), organization.id).await?;
        }
    }
    crate::snapshot::make_first(control).await
}

impl Control {
    /// How agents are reached. The composition root puts the built-in toolbox in and lets agents dial in.
    #[must_use]
    pub fn links(&self) -> Links {
        self.fleet().channels.clone()
    }

    /// Who pays for the memory of what a toolbox's agent asks: its organization, for all of its toolboxes, so that many of
    /// them are not more of it. Not from what the organization's members and keys have: they would keep its agents from
    /// being heard. Those whose organization is not known yet pay from one account.
    #[must_use]
    pub fn payer_of(&self, toolbox: ToolboxId) -> Payer {
        self.fleet().payer_of(toolbox)
    }

    /// How to ask a toolbox's agent for logs, if it is connected: not where calls pass.
    #[must_use]
    pub fn bulk_channel(&self, toolbox: ToolboxId) -> Option<Channel> {
        self.fleet().channels.get_bulk(toolbox)
    }

    /// Sets where the gateways' link listeners are (`host:port`, one a gateway), as agents are told at once. With none set
    /// an agent links to where it syncs.
    pub fn set_links(&self, addresses: Vec<String>) {
        self.fleet().links.send_if_modified(|links| {
            let differs = **links != *addresses;
            if differs {
                *links = addresses.into();
            }
            differs
        });
    }

    /// Sets what tells why the agent of the built-in toolbox, which is to start in this process, waits for its engine. Only
    /// the first call counts.
    pub fn set_engine_wait(&self, toolbox: ToolboxId, why: watch::Receiver<Option<String>>) {
        let _ = self.fleet().engine_wait.set((toolbox, why));
    }

    /// Sets where agents reach this control plane, as tokens of new toolboxes tell them (`host:port`).
    pub fn set_agent_addresses(&self, addresses: Vec<String>) {
        *self.fleet().agent_addresses.write().unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    /// Sets where this process listens, which agents are told: one on the same host keeps its servers from there. Only the
    /// first call counts.
    pub fn set_listeners(&self, listeners: Listeners) {
        let _ = self.fleet().listeners.set(listeners);
    }

    /// Which of the replicas this process is.
    #[must_use]
    pub fn replica(&self) -> ReplicaId {
        self.fleet().replica
    }

    /// Where agents listen (`host:port`), by toolbox, changing as the store does. The composition root offers them
    /// connections.
    #[must_use]
    pub fn listening_agents(&self) -> watch::Receiver<BTreeMap<ToolboxId, String>> {
        self.fleet().offered_to.subscribe()
    }

    /// Notes how offering a connection to a toolbox's agent went, and with what error, for people who look at the toolbox.
    pub fn note_offer(&self, toolbox: ToolboxId, failure: Option<&str>) {
        let mut failures = locked(&self.fleet().offer_failures);
        let Some(failure) = failure else {
            failures.remove(&toolbox);
            return;
        };
        let before = failures.get(&toolbox).map_or(0, |known| known.failures);
        let shown = |c: char| if c.is_control() { ' ' } else { c };
        let message = failure.chars().take(LONGEST_FAILURE).map(shown).collect();
        let failure = OfferFailure { message, at: self.clock().now(), failures: before.saturating_add(1) };
        failures.insert(toolbox, failure);
    }

    /// Gives the client that remote MCP servers are probed with, the gateway's own; the first one given stays.
    /// Without one a remote server is never ready.
    pub fn set_remote_client(&self, client: toolyard_mcp::http::Client) {
        let _ = self.fleet().remote_client.set(client);
        self.wake_loops();
    }

    pub(crate) fn remote_client(&self) -> Option<toolyard_mcp::http::Client> {
        self.fleet().remote_client.get().cloned()
    }

    /// The built-in toolbox, when there is one.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn local_toolbox(&self) -> Result<Option<ToolboxId>> {
        let tx = self.store().system_read("finding the built-in toolbox").await?;
        let Some(organization) = tx.organizations().await?.into_iter().next() else { return Ok(None) };
        let name = Name::new(LOCAL_TOOLBOX).expect("the constant is a valid name");
        Ok(tx.into_org(organization.id).toolbox(&name).await?.map(|toolbox| toolbox.id))
    }

    /// How the last run of every reconcile loop went.
    #[must_use]
    pub fn loop_status(&self) -> Vec<(&'static str, LoopStatus)> {
        let mut all: Vec<_> =
            locked(&self.fleet().loops).iter().map(|(name, status)| (*name, status.clone())).collect();
        all.sort_by_key(|(name, _)| *name);
        all
    }

    /// Makes every loop look again now.
    pub fn wake_loops(&self) {
        self.fleet().nudge.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use toolyard_link::Budget;

    use super::*;

    #[test]
    fn many_toolboxes_of_one_organization_leave_memory_to_others_and_take_none_of_its_members() {
        const PIECE: usize = 16 << 10;
        let fleet = Fleet::new(Clock::system(), String::new(), 4);
        let (greedy, other) = (OrganizationId::generate(), OrganizationId::generate());
        let toolboxes: Vec<_> = (0..100).map(|_| ToolboxId::generate()).collect();
        let others = ToolboxId::generate();
        let owners = toolboxes.iter().map(|toolbox| (*toolbox, greedy)).chain([(others, other)]);
        fleet.learn_owners(owners.collect());
        let budget = Budget::of_servers(1 << 20);
        let all_of = |payer: Payer| std::iter::from_fn(|| budget.hold(payer, PIECE).ok()).collect::<Vec<_>>();
        let held: Vec<_> = toolboxes.iter().map(|toolbox| all_of(fleet.payer_of(*toolbox))).collect();
        let taken: usize = held.iter().map(Vec::len).sum();
        assert!(taken <= 48, "{taken} of 64 are three quarters at most");
        assert!(all_of(fleet.payer_of(others)).len() >= 6, "three quarters of the rest, half of it for one toolbox");
        assert!(!all_of(Payer::known(greedy, "a member")).is_empty(), "its members have an account of their own");
        drop(held);
        // Who is not known yet is one of many, however many they are.
        let strangers: Vec<_> = (0..100).map(|_| all_of(fleet.payer_of(ToolboxId::generate()))).collect();
        let taken: usize = strangers.iter().map(Vec::len).sum();
        assert!(taken <= 48, "{taken}");
        assert!(!all_of(fleet.payer_of(toolboxes[0])).is_empty());
    }
}
