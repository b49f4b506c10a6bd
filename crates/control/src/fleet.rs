//! What the control plane keeps in memory about toolboxes and their agents. None of it is needed after a
//! restart: an agent says everything again with its next sync.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, SemaphorePermit, watch};
use toolyard_link::{Channel, Links, Replicas};
use toolyard_types::agent::Usage;
use toolyard_types::api::servers::OfferFailure;
use toolyard_types::snapshot::Snapshot;
use toolyard_types::{Clock, InstanceId, Name, ReplicaId, Timestamp, ToolboxId};

use crate::snapshot::Renewals;
use crate::{Control, Result};

/// The name of the built-in toolbox.
pub(crate) const LOCAL_TOOLBOX: &str = "local";

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
    /// Where agents listen, by toolbox.
    offered_to: watch::Sender<BTreeMap<ToolboxId, String>>,
    /// Why agents that listen have no connection from here. Bounded: one for each that listens.
    offer_failures: Mutex<HashMap<ToolboxId, OfferFailure>>,
    remote_client: OnceLock<toolyard_mcp::http::Client>,
    /// What instances use, by toolbox: a report replaces the one before.
    usage: Mutex<HashMap<ToolboxId, HashMap<InstanceId, Usage>>>,
    /// What instances used in the last hour, by toolbox. Bounded: [`SAMPLES`] of each instance that an agent knows.
    samples: Mutex<HashMap<ToolboxId, HashMap<InstanceId, VecDeque<Usage>>>>,
    /// When instances last answered, by toolbox: a report replaces the one before.
    answered: Mutex<HashMap<ToolboxId, HashMap<InstanceId, Timestamp>>>,
    agents: Mutex<HashMap<ToolboxId, AgentSide>>,
    /// Turns at the store for what agents ask.
    turns: Semaphore,
    /// Since when, and until when, this control plane could hear agents without a gap.
    awake: Mutex<Option<(Timestamp, Timestamp)>>,
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
    pub ended: tokio::time::Instant,
    /// How many things it changed.
    pub changed: usize,
    /// Why it failed, if it did.
    pub error: Option<String>,
    /// How many runs in a row failed as a whole, rather than for one thing of many.
    pub failed_runs: u32,
    /// How often it runs at least.
    pub period: Duration,
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
        let (channels, replicas) = (Links::new(clock), Replicas::new(ca));
        channels.forward_through(replicas.clone());
        Self {
            replica: ReplicaId::generate(),
            channels,
            replicas,
            links: watch::Sender::new(Arc::from([])),
            agent_addresses: RwLock::default(),
            offered_to: watch::Sender::default(),
            offer_failures: Mutex::default(),
            remote_client: OnceLock::new(),
            usage: Mutex::default(),
            samples: Mutex::default(),
            answered: Mutex::default(),
            agents: Mutex::default(),
            turns: Semaphore::new(usize::try_from(readers / 2).map_or(1, |half| half.max(1))),
            awake: Mutex::default(),
            nudge: Notify::new(),
            snapshots: watch::Sender::new(Arc::default()),
            renewals: Renewals::default(),
            loops: Mutex::default(),
        }
    }

    /// A turn at the store for what an agent asks: a thousand may ask at once, and people and loops need it too. Nobody
    /// takes a second one while it holds one.
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

    /// Notes that this control plane can hear agents at `now`, and tells since when it has without a gap of `longest`.
    pub(crate) fn awake_since(&self, now: Timestamp, longest: Duration) -> Timestamp {
        let mut awake = locked(&self.awake);
        let since = match *awake {
            Some((since, until)) if now.since(until) <= longest => since,
            _ => now,
        };
        *awake = Some((since, now));
        since
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

    /// Sets where agents reach this control plane, as tokens of new toolboxes tell them (`host:port`).
    pub fn set_agent_addresses(&self, addresses: Vec<String>) {
        *self.fleet().agent_addresses.write().unwrap_or_else(PoisonError::into_inner) = addresses;
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
