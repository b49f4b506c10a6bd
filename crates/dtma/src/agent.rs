//! The agent: what is desired comes in, instances are told what to reach, what is observed goes out.
//!
//! Two loops that share a table: `keep` plans and applies, `converse` speaks to the control plane. Neither
//! waits for an instance; each instance has a task of its own (`instance`).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use nix::fcntl::{Flock, FlockArg};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use toolyard_link::Channel;
use toolyard_mcp::Room;
use toolyard_types::agent::{
    Desired, DesiredInstance, Enforcement, EngineFailure, Era, Failure, JobOf, JobProgress, JobResult, Observed,
    ResolveJob, ToolboxReport,
};
use toolyard_types::spec::{Instancing, Lock};
use toolyard_types::state::{Phase, Reason};
use toolyard_types::{Clock, CredentialId, InstanceId, JobId, Secret, ServerId, Timestamp, ToolboxId};

use crate::capacity::Meter;
use crate::copies::{Copy, CopyOf, Key, LogPlace};
use crate::desired::{DesiredFile, read_state, write_whole};
use crate::docker::{ConnectError, Docker};
use crate::engine::{Engine, EngineOptions, EngineWait, Running};
use crate::grants::{GrantablePaths, Grants};
use crate::instance::{Instance, Journal};
use crate::kept::{KeptLogs, Of};
use crate::looks::{self, Looks};
use crate::own_ports::OwnPorts;
use crate::packages::{Clients, HostClients, PackageClients, Runtimes, Store, Walls, platform};
use crate::plan::{Action, Goal, Seen, View, plan};
use crate::process::{client, launch, order};
use crate::removals::Removals;
use crate::revisions::Revisions;
use crate::slot::Slot;
use crate::uids::{self, Uids};

/// Where the gateways' link listeners were last; removed by a join, which may be to another control plane.
pub(crate) const LINKS_FILE: &str = "links.json";
/// What a start writes at most until it serves, in bytes.
const NEEDED_BYTES: usize = 64 << 10;
/// How often a toolbox without room looks for it.
const LOOK_FOR_ROOM: Duration = Duration::from_secs(2);
/// How often leases are looked at and garbage is collected when nothing changes.
const TICK: Duration = Duration::from_secs(5);
const COLLECT_EVERY: Duration = Duration::from_secs(60);
/// The pause before what ended by a panic begins anew.
const AFTER_PANIC: Duration = Duration::from_secs(1);
/// Supervisors asked at once at start.
const MAX_SEARCHES: usize = 16;
/// Longest wait at start for servers that were taken over.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest time all servers together may take to stop.
const STOP_ALL_TIMEOUT: Duration = Duration::from_secs(30);
/// An earlier agent may still be on its way out.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// What an agent needs.
pub struct AgentOptions {
    /// Which toolbox it is. What is kept of another one's desired state is not gone on with.
    pub toolbox: ToolboxId,
    /// Where everything it keeps is: state, packages, instances.
    pub data_dir: PathBuf,
    /// The control plane, by a channel that tells it who this is.
    pub control: Channel,
    /// What runs servers.
    pub engine: EngineOptions,
    /// How it is told, and ended, that the agent waits for that to answer before it starts.
    pub engine_wait: EngineWait,
    /// A program whose `supervise` argument runs [`crate::supervise::main`].
    pub supervisor_exe: PathBuf,
    /// The programs that install and run packages.
    pub clients: PackageClients,
    /// How long servers live on without an agent.
    pub orphan_grace: Duration,
    /// How long a server may take to end after its input was closed, and again after SIGTERM.
    pub stop_wait: Duration,
    /// How long a server that has no calls may answer nothing before it is ended and started again; one that has calls,
    /// for as long as a call may take if that is longer.
    pub hang_wait: Duration,
    /// Which paths of this host servers may be shown.
    pub grantable_paths: GrantablePaths,
    /// User ids for servers, one each, when running as root; a range that no other installation on this host has when
    /// not said.
    pub server_uids: Option<RangeInclusive<u32>>,
    /// TCP ports on which Toolyard itself listens on this host: no server reaches them. A control plane on this host tells
    /// its own besides.
    pub own_ports: Vec<u16>,
    /// Room in memory for what servers answered and nobody has taken yet.
    pub room: Room,
    /// The version reported to the control plane.
    pub version: String,
    /// `development`, `staging` or `production`, reported too.
    pub environment: String,
    /// The clock.
    pub clock: Clock,
}

impl AgentOptions {
    /// How long servers live on without an agent.
    pub const DEFAULT_ORPHAN_GRACE: Duration = Duration::from_secs(10);
    /// How long each step of stopping a server may take.
    pub const DEFAULT_STOP_WAIT: Duration = Duration::from_secs(3);
    /// How long a server that has no calls may answer nothing. Some are at work of their own for minutes, such as with a
    /// model that they load, and answer nothing meanwhile: as long as a call may take unless that is set.
    pub const DEFAULT_HANG_WAIT: Duration = Duration::from_secs(300);
}

/// Why an agent does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error("use the data directory `{path}`")]
    DataDir {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another agent works in the same data directory.
    #[error("another agent uses `{0}`")]
    Locked(PathBuf),
    /// The container engine cannot be used, however long it is waited for.
    #[error("use the container engine")]
    Engine(#[source] ConnectError),
    /// The container engine did not answer, and the wait for it was given up.
    #[error("the wait for the container engine was given up")]
    GivenUp,
    /// The supervisor program does not work.
    #[error("run the supervisor program")]
    Supervisor(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// How an agent ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Servers stay with their supervisors; an agent that starts within the orphan grace goes on with them.
    Leave,
    /// Every server is stopped first.
    StopAll,
}

/// A running agent. Dropping it is [`Shutdown::Leave`].
pub struct Agent {
    inner: Arc<Inner>,
    keep: AbortOnDropHandle<()>,
    collect: AbortOnDropHandle<()>,
    converse: AbortOnDropHandle<()>,
    _watch_engine: AbortOnDropHandle<()>,
    _lock: Flock<std::fs::File>,
}

/// What instances need of their agent.
pub(crate) struct Context {
    data_dir: PathBuf,
    pub(crate) engine: Engine,
    pub(crate) supervisor: PathBuf,
    pub(crate) store: Store,
    pub(crate) removals: Removals,
    pub(crate) clock: Clock,
    pub(crate) orphan_grace: Duration,
    pub(crate) stop_wait: Duration,
    pub(crate) hang_wait: Duration,
    /// Whether the container engine does not answer: then silence says nothing about servers.
    pub(crate) engine_fails: AtomicBool,
    pub(crate) own_ports: OwnPorts,
    pub(crate) room: Room,
    /// Paths named by the environment that is passed on, such as a certificate bundle.
    pub(crate) shown_to_servers: Vec<PathBuf>,
    /// The paths of this host that may be granted.
    pub(crate) grants: Grants,
    enforcement: BTreeMap<String, Enforcement>,
    clients: PackageClients,
    uids: Mutex<Uids>,
    pub(crate) revisions: Revisions,
    pub(crate) kept_logs: KeptLogs,
    /// What is remembered of copies, here and in their directories.
    copies: Mutex<BTreeMap<InstanceId, CopyOf>>,
    /// Cancelled when servers are to end at once, whatever calls they have.
    pub(crate) hurry: CancellationToken,
    desired: watch::Sender<Option<Arc<Desired>>>,
    /// Whether the desired state came from the control plane since the agent began; what was read from the disk may be
    /// an older one, when it could not be saved.
    pub(crate) is_current: AtomicBool,
}

/// The table that the loops and the API share.
pub(crate) struct Inner {
    pub(crate) context: Arc<Context>,
    pub(crate) control: Channel,
    pub(crate) version: String,
    pub(crate) toolbox: watch::Sender<Option<ToolboxId>>,
    pub(crate) links: watch::Sender<Vec<String>>,
    /// Rises when something observed changed that the control plane waits for.
    pub(crate) changed: watch::Sender<u64>,
    /// The same for copies, of which the control plane knows only the number.
    pub(crate) copies_changed: watch::Sender<u64>,
    report: ToolboxReport,
    engine_failure: watch::Sender<Option<EngineFailure>>,
    meter: Arc<Meter>,
    file: DesiredFile,
    /// Whether the control plane said that this toolbox was removed.
    is_removed: AtomicBool,
    /// Whether the control plane said that its environment is a stricter one.
    is_laxer: AtomicBool,
    /// Something was forgotten whose remains are to go soon.
    forgotten: Notify,
    instances: Mutex<BTreeMap<InstanceId, Entry>>,
    jobs: Mutex<BTreeMap<JobId, Job>>,
}

/// An instance, or a copy of one.
pub(crate) struct Entry {
    pub(crate) slot: Arc<Slot>,
    pub(crate) goal: watch::Sender<Goal>,
    pub(crate) instancing: Instancing,
    pub(crate) copy: Option<Copy>,
    server: ServerId,
    lock_digest: Option<String>,
    task: AbortOnDropHandle<()>,
}

/// A server that runs already, and what was written of it.
pub(crate) type FoundServer = (DesiredInstance, Running);

struct Job {
    outcome: Arc<Mutex<Option<Result<Lock, Failure>>>>,
    /// What it told last while it works, if it told anything.
    told: Arc<Mutex<Option<String>>>,
    task: AbortOnDropHandle<()>,
}

impl Agent {
    /// Starts an agent: finds out what the host enforces, takes over servers that run already, and begins
    /// to speak to the control plane. While its container engine does not answer it waits ([`EngineWait`]).
    ///
    /// # Errors
    /// When the data directory cannot be used, another agent uses it, the supervisor program does not work, the engine
    /// can never be used, or the wait for it was given up.
    pub async fn start(mut options: AgentOptions) -> Result<Agent, StartError> {
        let given = options.data_dir.clone();
        // Servers see their directories at the same absolute paths as we do, so links are followed here.
        let find = || prepare_dirs(&given).and_then(|()| std::fs::canonicalize(&given));
        let data_dir = when_there_is_room(&options.engine_wait, &given, find).await?;
        options.data_dir.clone_from(&data_dir);
        let lock = lock_dir(&data_dir).await?;
        // First of all: their supervisors count the seconds. Containers do not.
        let mut found = match options.engine {
            EngineOptions::Process => find_running(&data_dir).await,
            EngineOptions::Docker(_) => Vec::new(),
        };
        when_there_is_room(&options.engine_wait, &given, || has_room(&data_dir)).await?;
        options.engine_wait.note(None);
        let (context, report, file) = prepare(&options).await?;
        if let Engine::Docker(docker) = &context.engine {
            found = docker.find_running(&context).await;
        }
        let meter = Meter::new(data_dir.clone(), options.clock.clone());
        meter.renew().await;
        // A control plane that cannot answer syncs now may serve calls all the same.
        let links = read_state(&data_dir.join(LINKS_FILE), "links are made where the control plane answers");
        let inner = Arc::new(Inner {
            context: Arc::new(context),
            control: options.control,
            version: options.version,
            toolbox: watch::Sender::new(None),
            links: watch::Sender::new(links.unwrap_or_default()),
            changed: watch::Sender::new(0),
            copies_changed: watch::Sender::new(0),
            report,
            engine_failure: watch::Sender::new(None),
            meter,
            file,
            is_removed: AtomicBool::new(false),
            is_laxer: AtomicBool::new(false),
            forgotten: Notify::new(),
            instances: Mutex::default(),
            jobs: Mutex::default(),
        });
        inner.take_over(found).await;
        let (keeping, collecting, conversing) = (Arc::clone(&inner), Arc::clone(&inner), Arc::clone(&inner));
        let watching = Arc::clone(&inner);
        let keep = again("servers", move || keep(Arc::clone(&keeping)));
        let collect = again("garbage", move || collect(Arc::clone(&collecting)));
        let converse = again("sync", move || crate::sync::converse(Arc::clone(&conversing)));
        let watch_engine = again("engine", move || watch_engine(Arc::clone(&watching)));
        Ok(Agent { inner, keep, collect, converse, _watch_engine: watch_engine, _lock: lock })
    }

    /// The DTMA API, version 1.
    pub fn router(&self) -> axum::Router {
        crate::api::router(Arc::clone(&self.inner))
    }

    /// Which toolbox the control plane says this is; `None` until it was heard.
    #[must_use]
    pub fn toolbox(&self) -> watch::Receiver<Option<ToolboxId>> {
        self.inner.toolbox.subscribe()
    }

    /// Where the gateways' link listeners are; until the control plane was heard, where they were last.
    #[must_use]
    pub fn links(&self) -> watch::Receiver<Vec<String>> {
        self.inner.links.subscribe()
    }

    /// Takes that the toolbox was removed, heard otherwise than by a sync: what runs ends, and is not started again.
    pub fn toolbox_removed(&self) {
        self.inner.end_for_removal();
    }

    /// What this toolbox is and enforces.
    #[must_use]
    pub fn report(&self) -> &ToolboxReport {
        &self.inner.report
    }

    /// Everything observed, as the control plane is told.
    #[must_use]
    pub fn observed(&self) -> Observed {
        self.inner.observed()
    }

    /// Ends the agent. After [`Shutdown::StopAll`] nothing it started runs any more, unless a server could
    /// not be stopped in time, which is logged.
    pub async fn shutdown(mut self, mode: Shutdown) {
        // First the loops: nothing may begin any more, and the control plane must not hear of an empty table.
        end(&mut self.keep).await;
        end(&mut self.collect).await;
        if mode == Shutdown::StopAll {
            self.inner.stop_all().await;
        }
        end(&mut self.converse).await;
        self.inner.end_tasks().await;
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.keep.abort();
        self.collect.abort();
        self.converse.abort();
        // Whoever holds our Router holds the table: what runs there must end with us all the same.
        self.inner.let_go();
    }
}

async fn end(task: &mut AbortOnDropHandle<()>) {
    task.abort();
    // It ended because it was told to, or had ended before.
    let _ = task.await;
}

fn prepare_dirs(data_dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let is_missing = |dir: &&Path| !dir.as_os_str().is_empty() && !dir.exists();
    let mut made: Vec<PathBuf> = data_dir.ancestors().take_while(is_missing).map(Path::to_owned).collect();
    made.extend(["instances", "packages", "probe"].map(|name| data_dir.join(name)));
    made.iter().try_for_each(std::fs::create_dir_all)?;
    // Servers pass through here to what is theirs, but see no names. Said, because who made them by our umask may not.
    let passable = |dir: &PathBuf| std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o711));
    made.iter().try_for_each(passable)
}

/// Does what needs room in the data directory as soon as there is some: servers fill it, and others go without this toolbox
/// meanwhile.
async fn when_there_is_room<T>(
    wait: &EngineWait,
    data_dir: &Path,
    work: impl Fn() -> io::Result<T>,
) -> Result<T, StartError> {
    loop {
        match work() {
            Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                let why = format!("there is no room in `{}`: {error}", data_dir.display());
                if wait.note(Some(why.clone())) {
                    tracing::warn!("waiting until the toolbox has room; it does not start without: {why}");
                }
                tokio::select! {
                    () = tokio::time::sleep(LOOK_FOR_ROOM) => {}
                    () = wait.given_up() => return Err(StartError::GivenUp),
                }
            }
            done => return done.map_err(|source| StartError::DataDir { path: data_dir.to_owned(), source }),
        }
    }
}

/// Looks whether a start has room for what it writes.
fn has_room(data_dir: &Path) -> io::Result<()> {
    let file = data_dir.join("room.tmp");
    let written = std::fs::write(&file, vec![0_u8; NEEDED_BYTES]);
    let removed = std::fs::remove_file(&file);
    written.and(removed)
}

async fn lock_dir(data_dir: &Path) -> Result<Flock<std::fs::File>, StartError> {
    // Other agents of the host know by its name that this is a data directory: `is_data_dir` in grants.rs.
    let path = data_dir.join("agent.lock");
    let unusable = |source| StartError::DataDir { path: data_dir.to_owned(), source };
    // Who may open it may hold the lock.
    let mut options = std::fs::File::options();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&path).map_err(unusable)?;
    let deadline = tokio::time::Instant::now() + LOCK_TIMEOUT;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err(_) if tokio::time::Instant::now() >= deadline => return Err(StartError::Locked(data_dir.to_owned())),
            Err((returned, _)) => file = returned,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Connects to every supervisor that is still there.
async fn find_running(data_dir: &Path) -> Vec<FoundServer> {
    let Ok(entries) = std::fs::read_dir(data_dir.join("instances")) else { return Vec::new() };
    let searches = entries.flatten().map(|entry| entry.path()).map(|dir| async move {
        let saved = read_state::<DesiredInstance>(&dir.join("instance.json"), "its server ends and is started anew")?;
        Some((saved, launch::take_over(&dir).await?))
    });
    futures_util::stream::iter(searches).buffer_unordered(MAX_SEARCHES).filter_map(std::future::ready).collect().await
}

async fn prepare(options: &AgentOptions) -> Result<(Context, ToolboxReport, DesiredFile), StartError> {
    let data_dir = &options.data_dir;
    let unusable = |source| StartError::DataDir { path: data_dir.clone(), source };
    let server_uids = match &options.server_uids {
        Some(range) => range.clone(),
        None => uids::range_of(data_dir, Path::new(uids::CLAIMS)).map_err(unusable)?,
    };
    // The last one is never a server's.
    let clients_uid = *server_uids.end();
    let Found { engine, clients, runtimes, mut enforcement } = match &options.engine {
        EngineOptions::Process => find_processes(options, clients_uid).await?,
        EngineOptions::Docker(docker) => {
            let docker = Docker::connect(docker, options).await.map_err(|error| match error {
                ConnectError::GivenUp => StartError::GivenUp,
                error => StartError::Engine(error),
            })?;
            let clients = docker.package_clients(&options.clients, data_dir, clients_uid).await;
            let runtimes = clients.runtimes();
            let enforcement = docker.enforcement();
            Found {
                engine: Engine::Docker(Box::new(docker)),
                clients: Clients::Images(Box::new(clients)),
                runtimes,
                enforcement,
            }
        }
    };
    let file = DesiredFile::open(data_dir, options.toolbox).map_err(unusable)?;
    let desired = file.load();
    let shown_to_servers = paths_for_servers(&options.clients);
    let looks = Looks::new(options.supervisor_exe.clone(), looks::PATIENCE);
    let ours = (data_dir.as_path(), shown_to_servers.clone());
    let own_uid = enforcement.get("own_uid").is_some_and(|entry| entry.enforced);
    let owners_tell = own_uid && nix::unistd::Uid::effective().is_root();
    let uids_of_servers = owners_tell.then(|| server_uids.clone());
    let grants = Grants::open(&options.grantable_paths, ours, desired.as_ref(), looks, uids_of_servers);
    let grants = grants.await.map_err(unusable)?;
    enforcement.insert("path_grants".into(), grants.enforcement());
    let detail = "a PyPI package is installed with the further requirements that its entry names".to_owned();
    enforcement.insert("package_requirements".into(), Enforcement { enforced: true, detail });
    let report = ToolboxReport {
        engine: if matches!(engine, Engine::Process) { "process".into() } else { "docker".into() },
        platform: platform(),
        runtimes: runtimes.versions(),
        enforcement: enforcement.clone(),
        grantable_paths: grants.listed(),
        granted_before: grants.before().clone(),
        capacity: None,
        engine_failure: None,
        environment: Some(options.environment.clone()),
    }
    .bounded();
    let removals = Removals::new();
    let store = Store::open(data_dir.join("packages"), clients, runtimes, removals.clone()).map_err(unusable)?;
    let mut uids = Uids::open(data_dir.join("uids.json"), &data_dir.join("instances"), without_last(&server_uids));
    let copies = noted_copies(data_dir);
    copies.iter().filter_map(|(id, copy)| Some((*id, copy.uid?))).for_each(|(id, uid)| uids.keep_copy(id, uid));
    let context = Context {
        data_dir: data_dir.clone(),
        engine,
        supervisor: options.supervisor_exe.clone(),
        store,
        removals,
        clock: options.clock.clone(),
        orphan_grace: options.orphan_grace,
        stop_wait: options.stop_wait,
        hang_wait: options.hang_wait,
        engine_fails: AtomicBool::new(false),
        own_ports: OwnPorts::open(data_dir, options.own_ports.clone()),
        room: options.room.clone(),
        shown_to_servers,
        grants,
        enforcement,
        clients: options.clients.clone(),
        uids: Mutex::new(uids),
        revisions: Revisions::open(data_dir),
        kept_logs: KeptLogs::open(data_dir),
        copies: Mutex::new(copies),
        hurry: CancellationToken::new(),
        desired: watch::Sender::new(desired.map(Arc::new)),
        is_current: AtomicBool::new(false),
    };
    Ok((context, report, file))
}

/// Of each secret the oldest that one of these was started with; none where one of them does not know.
fn oldest(started: Vec<BTreeMap<CredentialId, u32>>) -> BTreeMap<CredentialId, u32> {
    let both = |mut oldest: BTreeMap<CredentialId, u32>, other: BTreeMap<CredentialId, u32>| {
        oldest.retain(|id, version| match other.get(id) {
            Some(other) => {
                *version = (*version).min(*other);
                true
            }
            None => false,
        });
        oldest
    };
    started.into_iter().reduce(both).unwrap_or_default()
}

/// The copies that an earlier agent had.
fn noted_copies(data_dir: &Path) -> BTreeMap<InstanceId, CopyOf> {
    let Ok(entries) = std::fs::read_dir(data_dir.join("instances")) else { return BTreeMap::new() };
    let dirs = entries.flatten().map(|entry| entry.path());
    dirs.filter_map(|dir| Some((dir.file_name()?.to_str()?.parse().ok()?, CopyOf::load(&dir)?))).collect()
}

/// An engine, and what it can do.
struct Found {
    engine: Engine,
    clients: Clients,
    runtimes: Runtimes,
    enforcement: BTreeMap<String, Enforcement>,
}

async fn find_processes(options: &AgentOptions, clients_uid: u32) -> Result<Found, StartError> {
    let data_dir = &options.data_dir;
    let probed = launch::probe(&options.supervisor_exe, data_dir.join("probe"));
    let mut enforcement = BTreeMap::new();
    let mut failed = None;
    let open_only = async {
        match probed.await {
            Ok(probed) => enforcement = probed,
            Err(error) => failed = Some(error),
        }
        let enforced = |name: &str| enforcement.get(name).is_some_and(|entry: &Enforcement| entry.enforced);
        enforced("own_uid") && !enforced("namespaces")
    };
    let runtimes = Runtimes::detect(&options.clients, open_only).await;
    if let Some(error) = failed {
        return Err(StartError::Supervisor(Box::new(error)));
    }
    let namespaces = enforcement.get("namespaces").is_some_and(|entry| entry.enforced);
    let own_uid = enforcement.get("own_uid").is_some_and(|entry| entry.enforced);
    // Bind mounts show a server what is its own wherever that lies; without them its user must get there.
    if own_uid && !namespaces && !crate::process::open_to_all(data_dir) {
        let detail = "the data directory lies below one that only its owner may pass".to_owned();
        enforcement.insert("own_uid".into(), Enforcement { enforced: false, detail });
    }
    let network = client::probe_network(&options.supervisor_exe).await;
    let is_enforced = |name: &str| enforcement.get(name).is_some_and(|entry| entry.enforced);
    let walls = Walls {
        supervisor: options.supervisor_exe.clone(),
        namespaces: is_enforced("namespaces"),
        landlock: is_enforced("landlock"),
        own_network: network.enforced,
        seccomp: is_enforced("seccomp"),
        uid: is_enforced("own_uid").then_some(clients_uid),
    };
    enforcement.insert("package_egress".into(), network);
    let clients = HostClients::new(options.clients.clone(), walls, &runtimes, &data_dir.join("packages"));
    let clients = Clients::Host(Box::new(clients));
    Ok(Found { engine: Engine::Process, clients, runtimes, enforcement })
}

/// The user ids of servers: the last of the range is that of package clients.
fn without_last(uids: &RangeInclusive<u32>) -> RangeInclusive<u32> {
    *uids.start()..=uids.end().saturating_sub(1)
}

fn paths_for_servers(clients: &PackageClients) -> Vec<PathBuf> {
    let values = clients.for_servers.iter().filter_map(|name| clients.environment.get(name));
    values.map(PathBuf::from).filter(|path| path.is_absolute() && path.exists()).collect()
}

impl Context {
    /// The directory of an instance.
    pub(crate) fn instance_dir(&self, id: InstanceId) -> PathBuf {
        self.data_dir.join("instances").join(id.to_string())
    }

    /// What is desired now.
    pub(crate) fn desired(&self) -> Option<Arc<Desired>> {
        self.desired.borrow().clone()
    }

    /// An instance as it is desired now.
    pub(crate) fn desired_instance(&self, id: InstanceId) -> Option<DesiredInstance> {
        self.desired()?.instances.iter().find(|instance| instance.id == id).cloned()
    }

    /// What a copy named `copy` of an instance runs now.
    pub(crate) fn desired_as(&self, base: InstanceId, copy: InstanceId) -> Option<DesiredInstance> {
        Some(DesiredInstance { id: copy, ..self.desired_instance(base)? })
    }

    /// An instance or a copy as it is desired now.
    pub(crate) fn known(&self, id: InstanceId) -> Option<DesiredInstance> {
        match self.copy_of(id) {
            Some(copy) => self.desired_as(copy.base, id),
            None => self.desired_instance(id),
        }
    }

    /// What is remembered of a copy; none when it is not one.
    pub(crate) fn copy_of(&self, id: InstanceId) -> Option<CopyOf> {
        self.copies().get(&id).cloned()
    }

    /// Notes a new copy, with a user of its own where servers have one.
    ///
    /// # Errors
    /// When there is no user left.
    pub(crate) fn add_copy(&self, id: InstanceId, base: InstanceId, key: Option<Key>, mark: String) -> io::Result<()> {
        let uid = match self.enforces("own_uid") {
            true => Some(uids::locked(&self.uids).of_copy(id)?),
            false => None,
        };
        self.copies().insert(id, CopyOf { base, key, uid, mark });
        Ok(())
    }

    /// Changes what is remembered of a copy, and gives all of it.
    pub(crate) fn note_copy(&self, id: InstanceId, change: impl FnOnce(&mut CopyOf)) -> Option<CopyOf> {
        let mut copies = self.copies();
        let copy = copies.get_mut(&id)?;
        change(copy);
        Some(copy.clone())
    }

    /// Forgets a copy of which nothing runs any more.
    pub(crate) fn forget_copy(&self, id: InstanceId) {
        self.copies().remove(&id);
        uids::locked(&self.uids).end_copy(id);
    }

    /// The copies that are remembered.
    pub(crate) fn noted_copies(&self) -> Vec<InstanceId> {
        self.copies().keys().copied().collect()
    }

    /// Where the log of the instance in `dir` is: a copy's is that of what it is a copy of.
    pub(crate) fn log_place(&self, id: InstanceId, dir: &Path) -> LogPlace {
        match self.copy_of(id) {
            Some(copy) => LogPlace { dir: self.instance_dir(copy.base), mark: copy.mark },
            None => LogPlace { dir: dir.to_owned(), mark: String::new() },
        }
    }

    fn copies(&self) -> MutexGuard<'_, BTreeMap<InstanceId, CopyOf>> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until an instance is desired otherwise than `known`.
    pub(crate) async fn desired_changed(&self, id: InstanceId, known: &DesiredInstance) {
        let mut desired = self.desired.subscribe();
        // It may have changed already, while the attempt that failed was made.
        while self.known(id).is_none_or(|now| now == *known) {
            if desired.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// The secrets an instance needs.
    ///
    /// # Errors
    /// When the lease on them has ended, or one is missing.
    pub(crate) fn secrets(&self, instance: &DesiredInstance) -> Result<BTreeMap<CredentialId, Secret>, Failure> {
        let mut needed = instance.spec.runtime.values().flat_map(toolyard_types::spec::Value::credentials).peekable();
        if needed.peek().is_none() {
            return Ok(BTreeMap::new());
        }
        if self.desired().is_some_and(|desired| desired.lease_until <= self.clock.now()) {
            let message = "the lease on its credentials ended while the control plane was away".to_owned();
            return Err(Failure { reason: Reason::CredentialExpired, message });
        }
        if let Some(id) = needed.find(|id| !instance.secrets.contains_key(id)) {
            let why = instance.missing.get(&id).cloned();
            let message = why.unwrap_or_else(|| "a required secret is not bound".to_owned());
            return Err(Failure { reason: Reason::CredentialMissing, message });
        }
        Ok(instance.secrets.clone())
    }

    /// Has an instance's directory removed; its log is kept.
    fn retire_dir(self: &Arc<Self>, dir: PathBuf) {
        let context = Arc::clone(self);
        self.removals.begin(dir, move |dir| {
            if let Err(error) = context.kept_logs.keep(dir, context.clock.now()) {
                tracing::warn!(path = %dir.display(), %error, "keep an instance's log");
            }
        });
    }

    /// Begins the log of a job.
    fn job_log(&self, id: JobId, of: JobOf, secrets: &BTreeMap<CredentialId, Secret>) -> Option<Journal> {
        let of = Of { server: of.server, revision: of.revision, at: self.clock.now() };
        let dir = self.kept_logs.make(&id.to_string(), &of);
        let dir = dir.inspect_err(|error| tracing::warn!(job.id = %id, %error, "begin the log of a job")).ok()?;
        Some(Journal::open(self, &LogPlace { dir, mark: String::new() }, secrets))
    }

    /// Whether this host enforces a protection.
    pub(crate) fn enforces(&self, protection: &str) -> bool {
        self.enforcement.get(protection).is_some_and(|entry| entry.enforced)
    }

    /// The user id of a server.
    ///
    /// # Errors
    /// When there is none left.
    pub(crate) fn uid_of(&self, instance: &DesiredInstance) -> io::Result<u32> {
        if let Some(uid) = self.copy_of(instance.id).and_then(|copy| copy.uid) {
            return Ok(uid);
        }
        uids::locked(&self.uids).of(instance.server)
    }

    /// What servers get of the package clients' environment.
    pub(crate) fn environment_for_servers(&self) -> impl Iterator<Item = (&str, &str)> {
        let names = self.clients.for_servers.iter();
        names.filter_map(|name| Some((name.as_str(), self.clients.environment.get(name)?.as_str())))
    }
}

impl Inner {
    /// Takes a desired state, unless it is older than the one known.
    pub(crate) fn accept(&self, desired: Desired) {
        let known = self.context.desired();
        if known.as_ref().is_some_and(|known| known.generation > desired.generation) {
            tracing::warn!(generation = desired.generation, "ignored a desired state older than the one known");
            return;
        }
        self.remember(desired);
        self.context.is_current.store(true, Ordering::Release);
        self.is_removed.store(false, Ordering::Release);
    }

    /// Takes that this toolbox was removed: nothing is desired any more, also after a restart. It is no leave to remove
    /// volumes or logs; and whatever a control plane that knows the toolbox again desires is newer.
    pub(crate) fn end_for_removal(&self) {
        if !self.is_removed.swap(true, Ordering::AcqRel) {
            tracing::warn!(
                "the control plane says that this toolbox was removed: all that runs here ends, and nothing is started \
                 again; to use this host again, enroll a toolbox and start with its token and an empty data directory"
            );
        }
        self.context.is_current.store(false, Ordering::Release);
        // Each time it is heard: the last time it may not have been saved, or a lease may have ended beside it.
        self.remember(Desired::default());
    }

    fn remember(&self, desired: Desired) {
        if let Err(error) = self.file.save(&desired) {
            tracing::error!(%error, "save the desired state; a reboot would bring back an older one");
        }
        self.context.desired.send_replace(Some(Arc::new(desired)));
    }

    /// Takes where the gateways' link listeners are.
    pub(crate) fn link_to(&self, links: Vec<String>) {
        if *self.links.borrow() == links {
            return;
        }
        let saved = serde_json::to_vec(&links)
            .map_err(io::Error::from)
            .and_then(|bytes| write_whole(&self.context.data_dir.join(LINKS_FILE), &bytes));
        if let Err(error) = saved {
            tracing::warn!(%error, "save where the gateways are; a restarted agent hears it with its first sync");
        }
        self.links.send_replace(links);
    }

    /// Takes the control plane's environment, and says once that it is a stricter one.
    pub(crate) fn hear_environment(&self, theirs: &str) {
        let Some(ours) = self.report.environment.as_deref() else { return };
        if toolyard_types::agent::is_laxer(ours, theirs) && !self.is_laxer.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "this agent runs in {ours}, its control plane in {theirs}: its defaults are laxer, such as which paths of \
                 this host servers may be given; start it with TOOLYARD_ENV={theirs}"
            );
        }
    }

    /// Everything observed, as it is sent.
    pub(crate) fn observed(&self) -> Observed {
        let instances = self.instances();
        let (mut observed, mut started) = (Vec::new(), BTreeMap::<_, Vec<_>>::new());
        for (id, entry) in instances.iter() {
            let seen = entry.slot.observed();
            if seen.pid.is_some() {
                let base = entry.copy.as_ref().map_or(*id, |copy| copy.base);
                started.entry(base).or_default().push(seen.secret_versions.clone());
            }
            if entry.copy.is_none() {
                observed.push(seen);
            }
        }
        drop(instances);
        // Also where the instance itself does not run: its copies do.
        for seen in &mut observed {
            if let Some(started) = started.remove(&seen.id) {
                seen.secret_versions = oldest(started);
            }
        }
        let outcome = |job: &Job| job.outcome.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let told = |job: &Job| job.told.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (mut jobs, mut job_progress) = (Vec::new(), Vec::new());
        for (id, job) in self.jobs().iter() {
            match outcome(job) {
                Some(outcome) => jobs.push(JobResult { id: *id, outcome }),
                None => job_progress.extend(told(job).map(|message| JobProgress { id: *id, message })),
            }
        }
        let engine_failure = self.engine_failure.borrow().clone();
        let mut toolbox = ToolboxReport { capacity: self.meter.last(), engine_failure, ..self.report.clone() };
        if let Some(kept_away) = toolbox.enforcement.get_mut("toolyard_ports").filter(|it| it.enforced) {
            let (shut, refused) = order::closed_ports(&self.context);
            let ports: Vec<_> = shut.iter().chain(&refused).map(u16::to_string).collect();
            let ports = if ports.is_empty() { "none is known".to_owned() } else { ports.join(", ") };
            kept_away.detail = format!("{}; ports: {ports}", kept_away.detail);
        }
        Observed { toolbox, instances: observed, jobs, job_progress }
    }

    /// Notes how the engine answered, and tells when that changed.
    fn engine_answered(&self, asked_at: Timestamp, answer: Result<(), String>) {
        self.context.engine_fails.store(answer.is_err(), Ordering::Relaxed);
        let changed = self.engine_failure.send_if_modified(|known| {
            let since = known.as_ref().map_or(asked_at, |failure| failure.since);
            let now = answer
                .err()
                .map(|why| EngineFailure { message: format!("the container engine does not answer: {why}"), since });
            match (known.as_ref(), now.as_ref()) {
                (None, Some(failure)) => tracing::warn!("{}", failure.message),
                (Some(_), None) => tracing::info!("the container engine answers again"),
                _ => {}
            }
            let differs = *known != now;
            *known = now;
            differs
        });
        if changed {
            self.changed.send_modify(|count| *count += 1);
        }
    }

    /// Notes which ends the control plane has been told of.
    pub(crate) fn reported(&self, observed: &Observed) {
        let instances = self.instances();
        for told in &observed.instances {
            if told.status.phase == Phase::Stopped
                && let Some(entry) = instances.get(&told.id)
            {
                entry.slot.report_end();
            }
        }
    }

    /// What is known of an instance.
    pub(crate) fn slot(&self, id: InstanceId) -> Option<Arc<Slot>> {
        self.instances().get(&id).map(|entry| Arc::clone(&entry.slot))
    }

    /// Whether nothing of an instance or its copies runs any more, or it is not known.
    pub(crate) fn has_ended(&self, id: InstanceId) -> bool {
        let instances = self.instances();
        instances.get(&id).is_none_or(|entry| entry.slot.ended().0) && !Self::copied(&instances).contains(&id)
    }

    pub(crate) fn instances(&self) -> MutexGuard<'_, BTreeMap<InstanceId, Entry>> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn jobs(&self) -> MutexGuard<'_, BTreeMap<JobId, Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn view(&self) -> View {
        let instances = self.instances();
        let copied = Self::copied(&instances);
        let own = instances.iter().filter(|(_, entry)| entry.copy.is_none());
        let instances = own.map(|(id, entry)| {
            let (ended, reported) = entry.slot.ended();
            // It is kept until nothing of its copies runs any more.
            (*id, Seen { goal: *entry.goal.borrow(), ended: ended && !copied.contains(id), reported })
        });
        View { instances: instances.collect(), jobs: self.jobs().keys().copied().collect() }
    }

    fn apply(self: &Arc<Self>, action: Action) {
        match action {
            Action::Create(id, goal) => {
                if let Some(desired) = self.context.desired_instance(id) {
                    self.create(desired, goal, None);
                }
            }
            Action::Direct(id, goal) => {
                if let Some(entry) = self.instances().get(&id) {
                    entry.goal.send_replace(goal);
                }
            }
            Action::Forget(id) => {
                self.instances().remove(&id);
                self.remove_instance_dir(id);
                self.changed.send_modify(|count| *count += 1);
            }
            Action::Resolve(id) => {
                let desired = self.context.desired();
                let job = desired.as_ref().and_then(|desired| desired.jobs.iter().find(|job| job.id == id));
                if let Some(job) = job {
                    self.resolve(job.clone());
                }
            }
            Action::Drop(id) => {
                self.jobs().remove(&id);
            }
        }
    }

    fn create(self: &Arc<Self>, desired: DesiredInstance, goal: Goal, found: Option<Running>) {
        self.put(&mut self.instances(), desired, goal, found, None, None);
        self.changed.send_modify(|count| *count += 1);
    }

    /// Begins an instance or a copy of one.
    pub(crate) fn put(
        self: &Arc<Self>,
        table: &mut BTreeMap<InstanceId, Entry>,
        desired: DesiredInstance,
        goal: Goal,
        found: Option<Running>,
        copy: Option<Copy>,
        known_era: Option<Era>,
    ) {
        let id = desired.id;
        let changed = if copy.is_some() { &self.copies_changed } else { &self.changed };
        let slot = Arc::new(Slot::new(id, self.context.clock.now(), changed.clone()));
        let goal = watch::Sender::new(goal);
        let lock_digest = desired.lock.as_ref().map(|lock| lock.digest.clone());
        let instancing = desired.spec.instancing.clone();
        let server = desired.server;
        let (context, wanted) = (Arc::clone(&self.context), goal.subscribe());
        let instance = Instance::new(context, desired, Arc::clone(&slot), wanted, known_era);
        let inner = Arc::downgrade(self);
        let task = tokio::spawn(async move {
            let ended = AssertUnwindSafe(instance.run(found)).catch_unwind().await;
            if let (Err(_), Some(inner)) = (ended, inner.upgrade()) {
                tokio::time::sleep(AFTER_PANIC).await;
                inner.begin_anew(id);
            }
        });
        let task = AbortOnDropHandle::new(task);
        table.insert(id, Entry { slot, goal, instancing, copy, server, lock_digest, task });
    }

    /// Forgets an instance whose task ended by a panic: it is put again, and takes over what runs of it.
    fn begin_anew(&self, id: InstanceId) {
        // The panic's own message is in the log already.
        tracing::error!(instance.id = %id, "what watches an instance ended by a panic; it begins anew");
        let forgotten = self.instances().remove(&id);
        self.changed.send_modify(|count| *count += 1);
        drop(forgotten);
    }

    /// Removes what is left of an instance on disk, but for its log.
    pub(crate) fn remove_instance_dir(&self, id: InstanceId) {
        self.context.retire_dir(self.context.instance_dir(id));
    }

    fn resolve(self: &Arc<Self>, job: ResolveJob) {
        let ResolveJob { id, runtime, secrets, of } = job;
        let log = of.and_then(|of| self.context.job_log(id, of, &secrets));
        let (outcome, told) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(None)));
        let (inner, result, telling) = (Arc::clone(self), Arc::clone(&outcome), Arc::clone(&told));
        let task = tokio::spawn(async move {
            let say = |text: &str| {
                if let Some(log) = &log {
                    log.write(text);
                }
            };
            let progress = |text: &str| {
                *telling.lock().unwrap_or_else(PoisonError::into_inner) = Some(text.to_owned());
                inner.changed.send_modify(|count| *count += 1);
            };
            let resolving = inner.context.resolve(&runtime, &secrets, &progress, &say);
            let resolving = AssertUnwindSafe(resolving).catch_unwind().await;
            let resolved = resolving.unwrap_or_else(|_| {
                let message = "resolving it ended by a panic; the log of the toolbox has the cause".to_owned();
                Err(Failure { reason: Reason::EngineUnavailable, message })
            });
            if let Err(failure) = &resolved {
                say(&format!("not resolved: {}", failure.message));
                tracing::warn!(job.id = %id, reason = ?failure.reason, message = failure.message, "resolve");
            }
            *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(resolved);
            inner.changed.send_modify(|count| *count += 1);
        });
        self.jobs().insert(id, Job { outcome, told, task: AbortOnDropHandle::new(task) });
    }

    /// Goes on with servers whose supervisors are still there.
    async fn take_over(self: &Arc<Self>, found: Vec<FoundServer>) {
        let mut changed = self.changed.subscribe();
        for (saved, running) in found {
            tracing::info!(instance.id = %saved.id, pid = running.hello.pid, "took over a running server");
            if let Some(copy) = self.context.copy_of(saved.id) {
                self.adopt_copy(copy, (saved, running));
                continue;
            }
            let desired = self.context.desired_instance(saved.id).unwrap_or(saved);
            self.create(desired, Goal::Run, Some(running));
        }
        self.forget_lost_copies().await;
        // The first thing the control plane hears must not be that servers which serve are pending.
        let settled = async {
            while self.instances().values().any(|entry| entry.slot.status().phase == Phase::Pending) {
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(SETTLE_TIMEOUT, settled).await.is_err() {
            tracing::warn!("some servers that were taken over have not settled yet");
        }
    }

    /// Ends installs, resolves and what speaks to servers; the servers stay with their supervisors.
    fn let_go(&self) {
        self.jobs().values().for_each(|job| job.task.abort());
        for entry in self.instances().values() {
            entry.task.abort();
            entry.slot.let_go();
        }
    }

    /// [`Self::let_go`], and waits until it is so: a package client must not outlive the agent that ran it.
    async fn end_tasks(&self) {
        self.let_go();
        let instances = std::mem::take(&mut *self.instances());
        let jobs = std::mem::take(&mut *self.jobs());
        let tasks = instances.into_values().map(|entry| entry.task).chain(jobs.into_values().map(|job| job.task));
        futures_util::future::join_all(tasks).await;
    }

    async fn stop_all(&self) {
        let mut changed = self.changed.subscribe();
        let mut copies = self.copies_changed.subscribe();
        self.context.hurry.cancel();
        for entry in self.instances().values() {
            entry.goal.send_replace(Goal::Stop);
        }
        let all_ended = async {
            while self.instances().values().any(|entry| !entry.slot.ended().0) {
                tokio::select! {
                    result = changed.changed() => if result.is_err() { return },
                    result = copies.changed() => if result.is_err() { return },
                }
            }
        };
        if tokio::time::timeout(STOP_ALL_TIMEOUT, all_ended).await.is_err() {
            tracing::error!("some servers did not stop in time; their supervisors end them");
        }
        self.context.leave_nothing().await;
    }

    /// Forgets credentials whose lease has ended.
    fn end_lease(&self) {
        let Some(desired) = self.context.desired() else { return };
        let ended = desired.lease_until <= self.context.clock.now();
        if ended && desired.instances.iter().any(|instance| !instance.secrets.is_empty()) {
            tracing::warn!("the lease on credentials ended; they are forgotten until the control plane is back");
            let mut desired = Desired::clone(&desired);
            desired.instances.iter_mut().for_each(|instance| instance.secrets.clear());
            self.remember(desired);
        }
    }

    /// Gives the user ids of servers that are gone to others.
    fn take_users_back(&self, desired: &Desired) {
        let Some(kept) = desired.keep_users.as_ref().filter(|_| self.context.is_current.load(Ordering::Acquire)) else {
            return;
        };
        let wanted = |server| desired.instances.iter().any(|instance| instance.server == server);
        let kept = |server| kept.contains(&server) || wanted(server);
        let here =
            |table: &BTreeMap<InstanceId, Entry>| table.values().map(|entry| entry.server).collect::<BTreeSet<_>>();
        if let Err(error) = uids::give_back(&self.context.uids, self.instances(), here, &kept) {
            tracing::warn!(%error, "take back the user ids of deleted servers");
        }
    }

    /// Whether something of now is made of a lock, by its digest.
    fn needs_lock(&self, digest: &str) -> bool {
        let desired = self.context.desired();
        desired.is_none_or(|desired| {
            let of_instances = desired.instances.iter().filter_map(|instance| instance.lock.as_ref());
            desired.keep_locks.iter().any(|kept| kept == digest)
                || of_instances.into_iter().any(|lock| lock.digest == digest)
        }) || self.instances().values().any(|entry| entry.lock_digest.as_deref() == Some(digest))
    }

    async fn collect_garbage(self: &Arc<Self>) {
        let Some(desired) = self.context.desired() else { return };
        self.take_users_back(&desired);
        let inner = Arc::clone(self);
        // Of an older state nobody knows which servers there are now.
        let is_current = self.context.is_current.load(Ordering::Acquire);
        let keep_logs = desired.keep_logs.clone().filter(|_| is_current);
        let wanted: BTreeSet<InstanceId> = desired.instances.iter().map(|instance| instance.id).collect();
        // Looked at only once something was found: a copy may begin at any moment, and is in the table first.
        let known = |inner: &Inner, id: Option<InstanceId>| match id {
            Some(id) => wanted.contains(&id) || inner.instances().contains_key(&id),
            None => !wanted.is_empty() || !inner.instances().is_empty(),
        };
        self.context.collect_engine_garbage(&|id| known(self, id), &|digest| self.needs_lock(digest)).await;
        let collect = move || {
            let root = inner.context.data_dir.join("instances");
            let dirs: Vec<PathBuf> = std::fs::read_dir(root)
                .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
                .unwrap_or_default();
            for dir in dirs {
                let id = dir.file_name().and_then(|name| name.to_str()?.parse::<InstanceId>().ok());
                // Locked until its removal has begun: whoever is put into the table after that waits for it.
                let table = inner.instances();
                if !id.is_some_and(|id| wanted.contains(&id) || table.contains_key(&id)) {
                    inner.context.retire_dir(dir);
                }
            }
            inner.context.kept_logs.collect(keep_logs.as_ref(), inner.context.clock.now());
            inner.context.store.collect_garbage(&|digest| inner.needs_lock(digest));
        };
        // A panic there is a bug to see in the log; the next round tries again.
        if let Err(error) = tokio::task::spawn_blocking(collect).await {
            tracing::error!(%error, "collect garbage");
        }
    }
}

/// Runs a loop, and anew when it ends by a panic: without it the toolbox would be there and do nothing.
fn again<F>(name: &'static str, make: impl Fn() -> F + Send + Sync + 'static) -> AbortOnDropHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    AbortOnDropHandle::new(tokio::spawn(async move {
        while AssertUnwindSafe(make()).catch_unwind().await.is_err() {
            // The panic's own message is in the log already.
            tracing::error!(task = name, "background task `{name}` ended by a panic; it begins anew");
            tokio::time::sleep(AFTER_PANIC).await;
        }
    }))
}

/// Removes what nobody needs any more, beside everything else: it may be much, and the engine slow.
async fn collect(inner: Arc<Inner>) {
    loop {
        let _ = tokio::time::timeout(COLLECT_EVERY, inner.forgotten.notified()).await;
        inner.collect_garbage().await;
    }
}

/// Tells when the engine does not answer, and when it does again.
async fn watch_engine(inner: Arc<Inner>) {
    inner.context.watch_engine(|asked_at, answer| inner.engine_answered(asked_at, answer)).await;
}

/// Plans and applies whenever something changed.
async fn keep(inner: Arc<Inner>) {
    let mut changed = inner.changed.subscribe();
    let mut copies_changed = inner.copies_changed.subscribe();
    let mut desired = inner.context.desired.subscribe();
    let mut kept_volumes: Option<BTreeSet<toolyard_types::ServerId>> = None;
    loop {
        changed.borrow_and_update();
        let now_desired = desired.borrow_and_update().clone();
        let now_kept = now_desired.as_ref().and_then(|desired| desired.keep_volumes.clone());
        let mut forgets = matches!((&kept_volumes, &now_kept), (Some(before), Some(now)) if !before.is_subset(now));
        kept_volumes = now_kept;
        for action in plan(now_desired.as_deref(), &inner.view()) {
            forgets |= matches!(action, Action::Forget(_));
            inner.apply(action);
        }
        if forgets {
            inner.forgotten.notify_one();
        }
        copies_changed.borrow_and_update();
        // Not knowing what is desired is no reason to stop anything.
        let look_again = now_desired.is_some().then(|| inner.tend_copies()).flatten();
        inner.end_lease();
        inner.meter.renew().await;
        let tick = tokio::time::Instant::now() + TICK;
        let tick = look_again.map_or(tick, |at| at.min(tick));
        tokio::select! {
            result = changed.changed() => if result.is_err() { return },
            result = copies_changed.changed() => if result.is_err() { return },
            result = desired.changed() => if result.is_err() { return },
            () = tokio::time::sleep_until(tick) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_tells_the_oldest_secret_that_it_or_a_running_copy_was_started_with() {
        let [a, b] = [(); 2].map(|()| CredentialId::generate());
        let of = |versions: &[(CredentialId, u32)]| versions.iter().copied().collect::<BTreeMap<_, _>>();
        let (base, copy) = (of(&[(a, 3), (b, 1)]), of(&[(a, 2), (b, 4)]));
        assert_eq!(oldest(vec![base.clone(), copy.clone()]), of(&[(a, 2), (b, 1)]));
        // One that an agent of an earlier version started.
        assert_eq!(oldest(vec![base, copy.clone(), of(&[(b, 1)])]), of(&[(b, 1)]));
        assert_eq!(oldest(vec![copy.clone()]), copy);
        assert_eq!(oldest(Vec::new()), of(&[]));
    }
}
