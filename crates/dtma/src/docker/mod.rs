//! The `docker` engine: each instance is a container of a Docker or Podman engine on this host.
//!
//! - A container belongs to this agent by its labels, which are the truth after a restart: the agent attaches
//!   again and goes on with the same server. Nothing of the engine is touched that does not carry them.
//! - A server's arguments and environment come to it over its standard input before the first message
//!   ([`entry`]): whatever may hold a secret is never in the container's configuration.
//! - npm and PyPI packages are installed inside the image that runs them ([`clients`]) and mounted read-only.
//! - No log driver: what a server writes to standard output is MCP, with people's data in it, and belongs in no
//!   file. Standard error and lines that are no MCP go to the instance's own log; what it says while no agent is there is
//!   lost.
//!
//! Paths are mounted as they are here, so the engine must be on this host.

mod clients;
mod container;
pub(crate) mod egress;
mod entry;
mod http;
mod images;
mod keeper;
mod namespace;
mod paths;
mod users;
mod volumes;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bollard::errors::Error as ApiError;
use bollard::models::{ContainerSummaryStateEnum, NetworkCreateRequest, SystemInfo};
use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListNetworksOptionsBuilder, RemoveContainerOptionsBuilder,
};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use toolyard_types::agent::{DesiredInstance, Enforcement, Failure};
use toolyard_types::spec::{Egress, RevisionSpec};
use toolyard_types::state::Reason;
use toolyard_types::{InstanceId, Secret, ServerId};

pub(crate) use clients::ImageClients;
pub(crate) use images::ImageRun;

use crate::agent::{AgentOptions, Context};
use crate::desired::write_whole;
use crate::engine::{EngineWait, Known, NeedsLock, Running};
use crate::packages::{PackageClients, Prepared, failure};

/// Where the engine listens when nothing else is said.
const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";
/// Longest time for one request; pulls and waits are streams and have their own.
const REQUEST_TIMEOUT_SECONDS: u64 = 60;
/// Longest time for one request about something that is there: an engine may hang on one container and answer for all
/// others.
const SHORT_REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// Containers looked after at once, where it is about many.
const MAX_AT_ONCE: usize = 16;
/// How many of the containers whose removal hung are tried again in one round.
const MAX_HUNG_AT_ONCE: usize = 4;
/// Longest time to find out what an engine can do, at start: a host that boots has much to do.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// An engine that has not answered by then is told as one that does not.
const TELL_AFTER: Duration = Duration::from_secs(2);
/// Longest pause before an engine that does not answer is tried again at start.
const LONGEST_CONNECT_PAUSE: Duration = Duration::from_secs(5);
const RETRY_EVERY: Duration = Duration::from_millis(500);
/// Longest pause before the removal of a container is tried again: an engine that hangs keeps each request.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// An engine that is restarted is back within this.
const ENGINE_PATIENCE: Duration = Duration::from_secs(20);

/// Whose a container, network or volume is: one agent's.
const LABEL_AGENT: &str = "dev.toolyard.agent";
const LABEL_ORGANIZATION: &str = "dev.toolyard.organization";
const LABEL_SERVER: &str = "dev.toolyard.server";
const LABEL_REVISION: &str = "dev.toolyard.revision";
const LABEL_LOCK: &str = "dev.toolyard.lock";
const LABEL_INSTANCE: &str = "dev.toolyard.instance";

/// How containers are run.
#[derive(Clone, Debug)]
pub struct DockerOptions {
    /// The engine's address, `unix://` and a path; `None` for the usual socket.
    pub host: Option<String>,
    /// The image npm packages are installed and run in.
    pub base_image_node: String,
    /// The image PyPI packages are installed and run in.
    pub base_image_python: String,
    /// A container runtime by name, such as `runsc` or `kata`; the engine's default otherwise.
    pub runtime: Option<String>,
    /// The proxy for outgoing connections of this host, as URL; a server that may reach listed hosts does so through it.
    pub proxy: Option<String>,
    /// Hosts reached without it, separated by commas.
    pub no_proxy: Option<String>,
}

impl Default for DockerOptions {
    fn default() -> Self {
        Self {
            host: None,
            base_image_node: "toolyard/base-node:1".into(),
            base_image_python: "toolyard/base-python:1".into(),
            runtime: None,
            proxy: None,
            no_proxy: None,
        }
    }
}

/// Why the engine cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address is not one.
    #[error("`{0}` is not the address of a container engine on this host; it is `unix://` and the path of a socket")]
    Address(String),
    /// The engine does not answer.
    #[error("the container engine at `{host}` does not answer")]
    NoAnswer {
        /// Where it was asked.
        host: String,
        /// What happened.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Somebody gave up the wait for an engine that does not answer.
    #[error("the wait for the container engine was given up")]
    GivenUp,
    /// It has no such runtime.
    #[error("the container engine has no runtime `{0}`")]
    Runtime(String),
    /// What is remembered of the engine cannot be kept.
    #[error("write the data directory")]
    DataDir(#[source] io::Error),
}

/// A container engine that answers.
pub(crate) struct Docker {
    api: bollard::Docker,
    /// This agent, as its labels say.
    agent: String,
    options: DockerOptions,
    info: SystemInfo,
    /// Why the network of a container cannot be entered, if it cannot.
    no_proxy: Option<String>,
    images: images::Images,
    users: users::Known,
    /// Held alone while the network is made and removed, since the engine would make a second one of the same name; and
    /// together with others while it is looked for.
    making_network: tokio::sync::RwLock<()>,
    /// The paths of servers that are being started.
    starting: paths::Starting,
    /// Containers of no instance whose removal failed, and how often.
    hung: Mutex<BTreeMap<String, u32>>,
}

impl Docker {
    /// Speaks to the engine, as soon as it answers, and finds out what it can do.
    ///
    /// # Errors
    /// What no wait changes, or that the wait was given up.
    pub(crate) async fn connect(options: &DockerOptions, agent: &AgentOptions) -> Result<Self, ConnectError> {
        let (api, info) = reach(options.host.as_deref().unwrap_or(DEFAULT_HOST), &agent.engine_wait).await?;
        if let Some(runtime) = &options.runtime
            && !info.runtimes.as_ref().is_some_and(|runtimes| runtimes.contains_key(runtime))
        {
            return Err(ConnectError::Runtime(runtime.clone()));
        }
        let id = agent_id(&agent.data_dir.join("agent.id")).map_err(ConnectError::DataDir)?;
        let docker = Self {
            api,
            agent: id,
            options: options.clone(),
            info,
            no_proxy: egress::why_not(),
            images: images::Images::open(agent.data_dir.join("images.json")),
            users: users::Known::default(),
            making_network: tokio::sync::RwLock::default(),
            starting: paths::Starting::default(),
            hung: Mutex::default(),
        };
        docker.remove_leftover_clients().await;
        Ok(docker)
    }

    /// The package clients of the base images.
    pub(crate) async fn package_clients(&self, clients: &PackageClients, data_dir: &Path, uid: u32) -> ImageClients {
        ImageClients::open(self, clients, data_dir, uid).await
    }

    /// Looks whether the engine answers.
    ///
    /// # Errors
    /// Why it does not, for a person.
    pub(crate) async fn answers(&self) -> Result<(), String> {
        match tokio::time::timeout(SHORT_REQUEST_TIMEOUT, self.api.ping()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(crate::instance::chain(&error)),
            Err(_) => Err(format!("it was silent for {} s", SHORT_REQUEST_TIMEOUT.as_secs())),
        }
    }

    /// Each protection, and whether this engine gives it.
    pub(crate) fn enforcement(&self) -> BTreeMap<String, Enforcement> {
        let info = &self.info;
        let seccomp = info.security_options.iter().flatten().any(|option| option.contains("seccomp"));
        let by = |enforced: Option<bool>, means: &str, lacking: &str| {
            let enforced = enforced == Some(true);
            Enforcement { enforced, detail: if enforced { means } else { lacking }.to_owned() }
        };
        let own_uid = match self.is_rootless() {
            true => by(Some(false), "", "a rootless engine has one user for all servers; namespaces keep them apart"),
            false => by(Some(true), "a user and group for each server", ""),
        };
        let lists = match &self.no_proxy {
            None => by(Some(true), "no network at all, or a proxy in it that knows the hosts listed", ""),
            Some(why) => Enforcement { enforced: false, detail: why.clone() },
        };
        let http = match &self.no_proxy {
            None => by(Some(true), "connections that are made inside the container's network", ""),
            Some(why) => Enforcement { enforced: false, detail: why.clone() },
        };
        BTreeMap::from([
            ("own_uid".to_owned(), own_uid),
            ("namespaces".to_owned(), by(Some(true), "a container for each server", "")),
            ("read_only_root".to_owned(), by(Some(true), "the image is mounted read-only", "")),
            ("no_capabilities".to_owned(), by(Some(true), "all dropped, and no way to new ones", "")),
            ("seccomp".to_owned(), by(Some(seccomp), "the engine's default profile", "the engine has no seccomp")),
            ("memory_limit".to_owned(), by(info.memory_limit, "control groups", "the engine cannot limit memory")),
            ("process_limit".to_owned(), by(info.pids_limit, "control groups", "the engine cannot limit processes")),
            (
                "cpu_limit".to_owned(),
                by(info.cpu_cfs_quota, "control groups", "the engine cannot limit processor time"),
            ),
            ("disk_limit".to_owned(), by(Some(true), "its own directories are in memory and have a size", "")),
            ("volume_limit".to_owned(), by(Some(false), "", "the engine keeps no bound on volumes")),
            ("server_ports".to_owned(), by(Some(true), "the engine's network lets no container reach another", "")),
            (
                "toolyard_ports".to_owned(),
                by(Some(false), "", "what listens on all addresses of this host is reached as from any other host"),
            ),
            ("volumes".to_owned(), by(Some(true), "volumes of the engine, for one server each", "")),
            ("egress_none".to_owned(), by(Some(true), "a network namespace without a network", "")),
            ("egress_hosts".to_owned(), lists.clone()),
            ("package_egress".to_owned(), lists),
            ("container_http_headers".to_owned(), http.clone()),
            ("container_http".to_owned(), http),
        ])
    }

    fn is_rootless(&self) -> bool {
        self.info.security_options.iter().flatten().any(|option| option.contains("rootless"))
    }

    /// Looks whether the container of an instance can be made.
    ///
    /// # Errors
    /// Why it cannot.
    pub(crate) async fn check(
        &self,
        context: &Context,
        desired: &DesiredInstance,
        prepared: &Prepared,
    ) -> Result<(), Failure> {
        self.check_network(&desired.spec)?;
        let secrets = context.secrets(desired)?;
        let plan = container::plan(self, context, desired, prepared, &secrets).await?;
        paths::check(self, desired, &plan.granted).await
    }

    /// What a person should know of the paths of a server that runs.
    pub(crate) async fn remark(&self, desired: &DesiredInstance) -> String {
        paths::remark(self, desired).await
    }

    /// Starts the container of an instance.
    ///
    /// # Errors
    /// When it does not run.
    pub(crate) async fn start(
        &self,
        context: &Context,
        desired: &DesiredInstance,
        dir: &Path,
        prepared: &Prepared,
    ) -> Result<Running, Failure> {
        self.check_network(&desired.spec)?;
        let secrets = context.secrets(desired)?;
        let plan = container::plan(self, context, desired, prepared, &secrets).await?;
        // Never a second one beside the first.
        self.remove(&container_name(desired.id)).await.map_err(|error| engine_failure(&error))?;
        let _entered = paths::enter(self, desired, &plan.granted).await?;
        // Until now somebody who runs no more could have changed what was looked at.
        if !plan.granted.is_empty() && container::granted(self, context, desired).await?.1 != plan.granted {
            let message = "one of its paths led elsewhere a moment ago; it is looked at again";
            return Err(failure(Reason::EngineUnavailable, message));
        }
        if desired.spec.egress.is_all() {
            self.make_network().await.map_err(|error| engine_failure(&error))?;
        }
        volumes::make(self, desired).await?;
        keeper::remember_handed_over(dir, 0).map_err(|error| failure(Reason::EngineUnavailable, error.to_string()))?;
        let started = keeper::start(self, context, desired, dir, plan, secrets.into_values().collect()).await;
        if started.is_err()
            && let Err(error) = self.remove(&container_name(desired.id)).await
        {
            tracing::warn!(instance.id = %desired.id, %error, "remove a container that did not start");
        }
        started
    }

    fn check_network(&self, spec: &RevisionSpec) -> Result<(), Failure> {
        let http = spec.runtime.package().is_some_and(|package| package.http.is_some());
        let enters = http || matches!(spec.egress, Egress::Hosts { .. });
        match &self.no_proxy {
            Some(why) if enters => Err(failure(Reason::UnsupportedByEngine, why.clone())),
            _ => Ok(()),
        }
    }

    /// Goes on with the container of an instance, if there is one.
    pub(crate) async fn take_over(&self, context: &Context, desired: &DesiredInstance, dir: &Path) -> Option<Running> {
        let deadline = tokio::time::Instant::now() + ENGINE_PATIENCE;
        loop {
            match keeper::take_over(self, context, desired, dir).await {
                Ok(running) => return running,
                Err(error) if tokio::time::Instant::now() >= deadline => {
                    tracing::warn!(instance.id = %desired.id, %error, "attach to a container");
                    return None;
                }
                Err(_) => tokio::time::sleep(RETRY_EVERY).await,
            }
        }
    }

    /// Every container of this agent whose instance it knows.
    pub(crate) async fn find_running(&self, context: &Context) -> Vec<(DesiredInstance, Running)> {
        let containers = self.containers().await.unwrap_or_default();
        let instances: Vec<InstanceId> = containers.iter().filter_map(|container| container.instance).collect();
        let searches = instances.into_iter().map(|id| async move {
            let dir = context.instance_dir(id);
            let saved = std::fs::read(dir.join("instance.json")).ok()?;
            let saved = serde_json::from_slice::<DesiredInstance>(&saved).ok()?;
            // Secrets are in memory only: what the log must not show is taken from what is desired.
            let desired = context.known(id).unwrap_or(saved);
            let found = keeper::take_over(self, context, &desired, &dir).await;
            let found = found.inspect_err(|error| tracing::warn!(instance.id = %id, %error, "attach to a container"));
            Some((desired, found.ok()??))
        });
        let found = futures_util::stream::iter(searches).buffer_unordered(MAX_AT_ONCE);
        found.filter_map(std::future::ready).collect().await
    }

    /// Removes the container of an instance; returns when it is gone, however long the engine is away.
    pub(crate) async fn end_leftovers(&self, id: InstanceId) {
        let mut told = false;
        let mut pause = RETRY_EVERY * 4;
        while let Err(error) = self.remove(&container_name(id)).await {
            if !std::mem::replace(&mut told, true) {
                tracing::warn!(instance.id = %id, %error, "remove a container; trying again until it is gone");
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Removes containers of no instance, images that no lock needs and that were pulled by us, and our network
    /// when nothing uses it.
    pub(crate) async fn collect_garbage(&self, known: &Known<'_>, is_needed: &NeedsLock<'_>) {
        let containers = match self.containers().await {
            Ok(containers) => containers,
            Err(error) => {
                tracing::warn!(%error, "list containers");
                return;
            }
        };
        self.hung().retain(|id, _| containers.iter().any(|container| container.id == *id));
        let unwanted = containers.into_iter().filter(|it| it.instance.is_some_and(|id| !known(Some(id))));
        self.remove_unwanted(unwanted.map(|container| container.id).collect()).await;
        self.leave_nothing(&|| known(None)).await;
        self.images.collect_garbage(&self.api, is_needed).await;
    }

    /// Removes containers, each by itself. Of those that could not be removed before only a few are tried, beside the
    /// others, the least tried first: they take no place of what goes at once.
    async fn remove_unwanted(&self, unwanted: Vec<String>) {
        let failed = self.hung().clone();
        let (mut again, new): (Vec<String>, Vec<String>) = unwanted.into_iter().partition(|id| failed.contains_key(id));
        again.sort_by_key(|id| failed.get(id).copied().unwrap_or_default());
        again.truncate(MAX_HUNG_AT_ONCE);
        let removals = |ids: Vec<String>| ids.into_iter().map(|id| self.remove_one(id).boxed()).collect();
        tokio::join!(all(removals(new), MAX_AT_ONCE), all(removals(again), MAX_HUNG_AT_ONCE));
    }

    async fn remove_one(&self, id: String) {
        tracing::info!(container.id = id, "removing a container of an instance that is not known");
        let removed = self.remove(&id).await;
        match removed {
            Ok(()) => {
                self.hung().remove(&id);
            }
            Err(error) => {
                tracing::warn!(container.id = id, %error, "remove a container");
                let mut hung = self.hung();
                let times = hung.entry(id).or_default();
                *times = times.saturating_add(1);
            }
        }
    }

    /// A poisoned lock means a panic between two whole changes.
    fn hung(&self) -> MutexGuard<'_, BTreeMap<String, u32>> {
        self.hung.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the volumes of servers that are not `kept`.
    pub(crate) async fn collect_volumes(&self, kept: &(dyn Fn(ServerId) -> bool + Send + Sync)) {
        volumes::collect_garbage(self, kept).await;
    }

    /// Removes our network, unless something still uses it or `is_needed` for what will.
    pub(crate) async fn leave_nothing(&self, is_needed: &(dyn Fn() -> bool + Send + Sync)) {
        // Whoever starts is known before they look for the network: they find it, or make it when it is gone.
        let _making = self.making_network.write().await;
        if is_needed() {
            return;
        }
        match short(&self.api).remove_network(&self.network()).await {
            Err(error) if !is_missing(&error) => tracing::debug!(%error, "the network stays; something still uses it"),
            _ => {}
        }
    }

    /// Labels for what is made for this agent.
    fn labels(&self) -> HashMap<String, String> {
        HashMap::from([(LABEL_AGENT.to_owned(), self.agent.clone())])
    }

    /// The same for a container of no server. Labels of its image are its own unless they are said, so each of ours is.
    fn container_labels(&self) -> HashMap<String, String> {
        let unsaid = [LABEL_ORGANIZATION, LABEL_SERVER, LABEL_REVISION, LABEL_LOCK, LABEL_INSTANCE];
        let mut labels = self.labels();
        labels.extend(unsaid.map(|name| (name.to_owned(), String::new())));
        labels
    }

    async fn containers(&self) -> Result<Vec<Container>, ApiError> {
        let filters = HashMap::from([("label", vec![format!("{LABEL_AGENT}={}", self.agent)])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let found = self.api.list_containers(Some(options)).await?;
        Ok(found
            .into_iter()
            .filter_map(|summary| {
                let labels = summary.labels.unwrap_or_default();
                let instance = labels.get(LABEL_INSTANCE).and_then(|id| id.parse().ok());
                let running = summary.state == Some(ContainerSummaryStateEnum::RUNNING);
                Some(Container { id: summary.id?, instance, running })
            })
            .collect())
    }

    /// Removes a container, running or not; one that is not there is fine.
    async fn remove(&self, container: &str) -> Result<(), ApiError> {
        remove(&self.api, container).await
    }

    /// An earlier agent may have died while a package was being installed.
    async fn remove_leftover_clients(&self) {
        let containers = self.containers().await.unwrap_or_default();
        let leftover = containers.into_iter().filter(|container| container.instance.is_none());
        let remove = |container: Container| async move {
            tracing::info!(container.id = container.id, container.running, "removing a half-done install");
            if let Err(error) = self.remove(&container.id).await {
                tracing::warn!(container.id = container.id, %error, "remove a container");
            }
        };
        all(leftover.map(|container| remove(container).boxed()).collect(), MAX_AT_ONCE).await;
    }

    /// The network of servers that may reach everything; on it they do not reach each other.
    fn network(&self) -> String {
        format!("toolyard-{}", self.agent)
    }

    async fn has_network(&self) -> Result<bool, ApiError> {
        let filters = HashMap::from([("name", vec![self.network()])]);
        let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
        let known = short(&self.api).list_networks(Some(options)).await?;
        Ok(known.iter().any(|network| network.name.as_deref() == Some(self.network().as_str())))
    }

    async fn make_network(&self) -> Result<(), ApiError> {
        let looking = self.making_network.read().await;
        if self.has_network().await? {
            return Ok(());
        }
        drop(looking);
        let _making = self.making_network.write().await;
        if self.has_network().await? {
            return Ok(());
        }
        let apart = ("com.docker.network.bridge.enable_icc".to_owned(), "false".to_owned());
        let request = NetworkCreateRequest {
            name: self.network(),
            driver: Some("bridge".into()),
            options: Some(HashMap::from([apart])),
            labels: Some(self.labels()),
            ..Default::default()
        };
        match short(&self.api).create_network(request).await {
            Err(ApiError::DockerResponseServerError { status_code: 409, .. }) => Ok(()),
            other => other.map(|_| ()),
        }
    }
}

/// Finds the engine at an address, however long it does not answer: it may be started after us, or hang. Waits until then
/// and tells why.
async fn reach(host: &str, wait: &EngineWait) -> Result<(bollard::Docker, SystemInfo), ConnectError> {
    if !host.starts_with("unix://") {
        return Err(ConnectError::Address(host.to_owned()));
    }
    let waits = |why: Box<dyn std::error::Error + Send + Sync>| {
        let why = crate::instance::chain(&ConnectError::NoAnswer { host: host.to_owned(), source: why });
        if wait.note(Some(why.clone())) {
            tracing::warn!("waiting until the container engine answers; the toolbox does not start without it: {why}");
        }
    };
    let mut pause = RETRY_EVERY;
    loop {
        let asked = async {
            let mut asking = pin!(ask(host));
            tokio::select! {
                answer = &mut asking => return answer,
                () = tokio::time::sleep(TELL_AFTER) => {}
            }
            waits("it is silent".into());
            asking.await
        };
        let answer = tokio::select! {
            answer = asked => answer,
            () = wait.given_up() => return Err(ConnectError::GivenUp),
        };
        match answer {
            Ok(found) => {
                if wait.note(None) {
                    tracing::info!("the container engine answers");
                }
                return Ok(found);
            }
            // That was told when it began.
            Err(ApiError::RequestTimeoutError) => {}
            Err(error) => waits(Box::new(error)),
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = wait.given_up() => return Err(ConnectError::GivenUp),
        }
        pause = (pause * 2).min(LONGEST_CONNECT_PAUSE);
    }
}

/// Asks the engine at an address what it can do.
async fn ask(host: &str) -> Result<(bollard::Docker, SystemInfo), ApiError> {
    let api = bollard::Docker::connect_with_unix(host, REQUEST_TIMEOUT_SECONDS, bollard::API_DEFAULT_VERSION)?;
    let asking = async {
        let api = api.negotiate_version().await?;
        let info = api.info().await?;
        Ok::<_, ApiError>((api, info))
    };
    tokio::time::timeout(CONNECT_TIMEOUT, asking).await.unwrap_or(Err(ApiError::RequestTimeoutError))
}

struct Container {
    id: String,
    instance: Option<InstanceId>,
    running: bool,
}

fn container_name(id: InstanceId) -> String {
    format!("toolyard-{id}")
}

async fn remove(api: &bollard::Docker, container: &str) -> Result<(), ApiError> {
    let api = short(api);
    let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    match api.remove_container(container, Some(options)).await {
        Err(error) if is_missing(&error) => Ok(()),
        // Somebody else removes it already; it is gone when it is not found.
        Err(ApiError::DockerResponseServerError { status_code: 409, .. }) => {
            let deadline = tokio::time::Instant::now() + ENGINE_PATIENCE;
            loop {
                match api.inspect_container(container, None).await {
                    Err(error) if is_missing(&error) => return Ok(()),
                    Err(error) => return Err(error),
                    Ok(_) if tokio::time::Instant::now() >= deadline => return Err(ApiError::RequestTimeoutError),
                    Ok(_) => tokio::time::sleep(RETRY_EVERY / 5).await,
                }
            }
        }
        other => other,
    }
}

/// The engine, for requests that it answers soon or not at all.
fn short(api: &bollard::Docker) -> bollard::Docker {
    api.clone().with_timeout(SHORT_REQUEST_TIMEOUT)
}

fn is_missing(error: &ApiError) -> bool {
    matches!(error, ApiError::DockerResponseServerError { status_code: 404, .. })
}

/// What the engine said, for a person.
fn engine_failure(error: &ApiError) -> Failure {
    let message = match error {
        ApiError::DockerResponseServerError { message, .. } => message.clone(),
        other => crate::instance::chain(other),
    };
    failure(Reason::EngineUnavailable, format!("the container engine: {}", message.trim()))
}

/// Who this agent is, for as long as its data directory is there.
fn agent_id(path: &Path) -> io::Result<String> {
    match std::fs::read_to_string(path) {
        Ok(id) if id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) => Ok(id),
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io::Error::new(error.kind(), format!("read `{}`: {error}", path.display())))
        }
        known => {
            if known.is_ok() {
                let path = path.display();
                tracing::warn!(%path, "it cannot be read and is made anew; containers from before are left to be removed by hand");
            }
            let id = format!("{:016x}", rand::random::<u64>());
            write_whole(path, id.as_bytes())?;
            Ok(id)
        }
    }
}

/// What a container is given, beside what its configuration shows.
struct Handed {
    environment: BTreeMap<String, Secret>,
    argv: Vec<Secret>,
}

/// A path of this host, at its own place.
fn mount(path: &Path, read_only: bool) -> bollard::models::Mount {
    mount_at(path, path, read_only)
}

/// A path of this host, at `target`.
fn mount_at(source: &Path, target: &Path, read_only: bool) -> bollard::models::Mount {
    bollard::models::Mount {
        typ: Some(bollard::models::MountType::BIND),
        source: Some(source.to_string_lossy().into_owned()),
        target: Some(target.to_string_lossy().into_owned()),
        read_only: Some(read_only),
        ..Default::default()
    }
}

fn existing(paths: impl IntoIterator<Item = PathBuf>) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = paths.into_iter().filter(|path| path.is_absolute() && path.exists()).collect();
    paths.sort();
    paths.dedup();
    paths
}

/// Does so many of these at once.
pub(super) async fn all(work: Vec<BoxFuture<'_, ()>>, at_once: usize) {
    futures_util::stream::iter(work).buffer_unordered(at_once).collect::<()>().await;
}

#[cfg(test)]
mod tests;
