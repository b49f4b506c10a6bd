//! `toolyard serve`: control plane, gateway and the built-in toolbox, put together and kept until told to stop.

use std::io::Write;
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, post};
use axum::{Extension, Router};
use futures_util::StreamExt;
use http::{HeaderValue, StatusCode, header};
use nix::libc;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use toolyard_control::{
    AgentIdentity, Bootstrap, Control, ControlOptions, Limits, ServerCeilings, SourceClient, VaultError, VaultKeys,
};
use toolyard_dtma::{Agent, EngineWait, Shutdown, StartError};
use toolyard_gateway::{DEADLINE_HEADER, Gateway, GatewayOptions, LeaseError};
use toolyard_link::stack::{self, Peer};
use toolyard_link::tls::{Acceptor, ReplicaCertificate, fingerprint};
use toolyard_link::{Budget, Channel, Doors, FORWARD_PATH, LINK_PATH, Outgoing, Shut, in_process, once_attached};
use toolyard_mcp::Room;
use toolyard_policy::Resource;
use toolyard_store::{Location, Store, StoreOptions};
use toolyard_types::agent::{Listeners, ToolboxReport};
use toolyard_types::{Clock, Code, Problem, Secret, ToolboxId};
use tower_http::set_header::SetResponseHeaderLayer;

use crate::agent::chain;
use crate::cli::EXIT_CONFIG;
use crate::config::{self, DeploymentTarget, Environment, Overrides, Settings};
use crate::console::Console;
use crate::first_sign_in::First;
use crate::installation::{self, Installation, OtherKind, other_kind};
use crate::listen::{Places, Server};
use crate::operations::{self, Operations};
use crate::{listen, local, memory, net, offers, preflight, telemetry};

/// How long a call waits for this machine's toolbox to start.
const TOOLBOX_PATIENCE: Duration = Duration::from_secs(10);
/// After this everything else is served while this machine's toolbox still starts: its engine may hang after it answered.
const LONGEST_TOOLBOX_START: Duration = Duration::from_secs(10);
/// The longest MCP request body.
const MAX_BODY_BYTES: usize = 8 << 20;
/// How long a request waits for what another replica may have just made: each looks for changes twice a second.
const NEWS_PATIENCE: Duration = Duration::from_secs(1);
/// How long ending the sessions that remote servers have for us may take.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);
/// What may take longer than this is not a call but a subscription.
const LONGEST_CALL_MS: u64 = 12 * 3600 * 1000;
/// Connections at the operations listener.
const OPERATIONS_CONNECTIONS: usize = 64;
/// Fewer file descriptors than this do not last for a busy day: each call may need two, each server a handful.
const FEW_DESCRIPTORS: u64 = 4096;
/// How long calls that were cut off have to tell their clients.
const CUT_GRACE: Duration = Duration::from_secs(3);
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;
/// How long stopping may take once another signal came. Longer than an orderly end takes at most: calls that are cut off
/// ([`CUT_GRACE`]), sessions of remote servers ([`CLOSE_PATIENCE`]), servers that are stopped too (30 s in the agent) and
/// background tasks ([`TASKS_GRACE`]).
const HURRIED: Duration = Duration::from_secs(60);
/// How long background tasks have to end.
const TASKS_GRACE: Duration = Duration::from_secs(10);

/// What browsers are told that reached us over TLS: to do so for a year, whatever a link says.
const ONE_YEAR: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// How a process was told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// `SIGTERM`: somebody restarts or upgrades us; servers stay for the next one, within the orphan grace. `SIGHUP`, that the
    /// terminal was closed, is the same.
    Ourselves,
    /// `SIGINT` (Ctrl-C): a person ends it; servers are stopped too.
    Everything,
}

/// Listens for `SIGTERM`, `SIGHUP` and `SIGINT` from now on, while the handle is held. What is returned ends with the first:
/// one that comes while the program still starts is not lost. With another one `hurry` tells who waits for requests and
/// servers, and whatever still waits [`HURRIED`] later ends with the process; a start that nobody can end otherwise ends at
/// once.
pub(crate) fn stop_signal(hurry: CancellationToken) -> (impl Future<Output = Stop>, AbortOnDropHandle<()>) {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    // Whoever ignores it, as `nohup` does, wants us to outlive the terminal.
    let mut hangup = if is_hangup_ignored() { None } else { signal(SignalKind::hangup()).ok() };
    let (tell, mut told) = mpsc::channel(1);
    let watching = AbortOnDropHandle::new(tokio::spawn(async move {
        let (Ok(mut term), Ok(mut int)) = signals else { return };
        for is_first in [true, false] {
            let hung_up = async {
                match hangup.as_mut() {
                    Some(hangup) => hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            let stop = tokio::select! {
                _ = term.recv() => Stop::Ourselves,
                // Of one terminal the shell and the kernel both tell: the second one is nobody's hurry.
                _ = hung_up, if is_first => Stop::Ourselves,
                _ = int.recv() => Stop::Everything,
            };
            // Whoever does not listen any more stops already.
            if is_first && tell.try_send(stop).is_err() {
                break;
            }
        }
        if tell.capacity() == 0 {
            last_words("toolyard: ended before it had started");
            std::process::exit(1);
        }
        hurry.cancel();
        // A thread, for it depends on nothing that may hang.
        std::thread::spawn(|| {
            std::thread::sleep(HURRIED);
            last_words("toolyard: it did not stop in time; ended");
            std::process::exit(1);
        });
    }));
    let stopped = async move {
        match told.recv().await {
            Some(stop) => stop,
            None => std::future::pending().await,
        }
    };
    (stopped, watching)
}

/// Says something on standard error, which may be a terminal that is gone.
fn last_words(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn is_hangup_ignored() -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: no action is given, and the pointer is to room for the one that is there.
    let told = unsafe { libc::sigaction(libc::SIGHUP, std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: the call succeeded, so it was written.
    told == 0 && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}

/// Checks the configuration, runs, and gives the exit code.
pub(crate) async fn main(overrides: &Overrides) -> ExitCode {
    let environment = config::process_environment();
    let loaded = match config::load(&environment, Path::new("."), overrides) {
        Ok(loaded) => loaded,
        Err(error) => return refuse(error.0.iter()),
    };
    let settings = loaded.settings;
    let refused = preflight::refused(&settings, &environment);
    if !refused.is_empty() {
        return refuse(refused.iter());
    }
    if let Some(problem) = preflight::unreadable(&settings) {
        eprintln!("toolyard: {problem}");
        return ExitCode::FAILURE;
    }
    if let Err(problem) = telemetry::start_logs(&settings) {
        return refuse([problem].iter());
    }
    loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    if settings.env == Environment::Staging {
        config::insecure_settings(&settings)
            .iter()
            .for_each(|insecure| tracing::warn!("production refuses {insecure}"));
    }
    match run(&settings, &loaded.first_start).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed { problem, code }) => {
            eprintln!("toolyard: {}", with_way_out(&location(&settings), problem));
            ExitCode::from(code)
        }
    }
}

fn refuse(problems: impl Iterator<Item = impl std::fmt::Display>) -> ExitCode {
    problems.for_each(|problem| eprintln!("toolyard: {problem}"));
    ExitCode::from(EXIT_CONFIG)
}

/// Why it ended, or did not start.
pub(crate) struct Failed {
    problem: String,
    code: u8,
}

impl Failed {
    pub(crate) fn from(error: &(dyn std::error::Error + 'static)) -> Self {
        let problem = chain(error);
        if is_of_the_configuration(error) { Self::configuration(problem) } else { Self { problem, code: 1 } }
    }

    /// Only somebody who changes the configuration changes this: starting again does not.
    pub(crate) fn configuration(problem: String) -> Self {
        Self { problem, code: EXIT_CONFIG }
    }
}

/// Whether what failed is the master key that was given: another one, none, or one that others can read.
fn is_of_the_configuration(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |cause| cause.source()).any(|cause| {
        matches!(
            cause.downcast_ref::<VaultError>(),
            Some(
                VaultError::WrongKey { .. }
                    | VaultError::KeyLost(_)
                    | VaultError::KeyForm
                    | VaultError::KeyFileOpen { .. }
            )
        )
    })
}

impl From<String> for Failed {
    fn from(problem: String) -> Self {
        Self { problem, code: 1 }
    }
}

async fn run(settings: &Settings, wrong_at_first: &[String]) -> Result<(), Failed> {
    let hurry = CancellationToken::new();
    let (stopped, _hurrying) = stop_signal(hurry.clone());
    let mut stopped = Box::pin(stopped);
    let clock = Clock::system();
    let metrics = telemetry::start_metrics()?;
    make_private(&settings.data_dir)?;
    // Bound before anything is announced or started, so that a port where somebody listens changes nothing; listened on when
    // we can answer. Of two programs that start at once for one port, the later one is told only then.
    let descriptors = listen::raise_descriptors();
    if descriptors < FEW_DESCRIPTORS {
        tracing::warn!(
            descriptors,
            "few files may be open at once, connections and servers will fail at that limit; allow at least \
             {FEW_DESCRIPTORS} (`ulimit -n`, `LimitNOFILE=` of systemd)"
        );
    }
    let listener = bind("listen", settings.listen)?;
    let agent_listener = bind("agent_listen", settings.agent_listen)?;
    let operations_listener =
        settings.operations_listen.map(|address| bind("operations_listen", address)).transpose()?;

    // Held until the end: what is opened below is one control plane's.
    let installation = Installation::claim(&settings.data_dir)?;
    let location = location(settings);
    let store_options = store_options(settings, installation.expects(&location));
    let opened = Store::open_with(&location, clock.clone(), store_options).await;
    let store = opened.map_err(|error| match other_kind(&settings.data_dir, &location, &error) {
        Some(OtherKind::Known(problem)) => Failed::configuration(problem),
        Some(OtherKind::Possible(problem)) => problem.into(),
        None => Failed::from(&error),
    })?;
    installation.agree(&store, &location).await?;
    let is_first = is_first_start(&store).await?;
    check_first_start(is_first, wrong_at_first)?;
    let first_key = first_key(settings, is_first);
    let stopping = CancellationToken::new();
    let options = control_options(settings, store, &clock, first_key.clone(), &stopping)?;
    let control = Control::start(options).await.map_err(|error| Failed::from(&error))?;
    // At once: what is made up now is not known again, whatever fails from here on.
    First { url: &own_url(settings), sign_in: control.take_first_sign_in(), key: first_key.as_ref() }
        .show(&settings.data_dir)?;
    let agents_at = agent_listener.local_addr().map_err(|error| Failed::from(&error))?;
    let operations_at = operations_listener.as_ref().and_then(|listener| listener.local_addr().ok());
    let own_ports: Vec<u16> =
        listener.local_addr().into_iter().chain([agents_at]).chain(operations_at).map(|at| at.port()).collect();
    // An agent of its own on this host keeps its servers from them too.
    if let Some(host) = toolyard_dtma::loopback_id() {
        let dir = std::fs::canonicalize(&settings.data_dir).unwrap_or_else(|_| settings.data_dir.clone());
        let replica = fingerprint(dir.as_os_str().as_encoded_bytes());
        control.set_listeners(Listeners { host, replica, ports: own_ports.clone() });
    }
    let addresses = net::agent_addresses(settings, agents_at);
    tracing::info!(addresses = addresses.join(", "), "agents reach this Toolyard at");
    control.set_agent_addresses(addresses);
    let acceptor = Acceptor::new(control.authority(), clock.clone()).map_err(|error| Failed::from(&error))?;
    let upstreams = net::upstream_client(settings)?;
    control.set_remote_client(upstreams.clone());

    // Finding out what this host enforces and which interpreters it has takes longer than everything else, so
    // it happens beside; calls to servers on this machine wait for it.
    let local = LocalToolbox::expect(settings, &control).await?;
    let room = memory::room(settings);
    let gateway = start_gateway(settings, &control, &clock, upstreams, room.clone());
    let console = Console::embedded(settings.console);
    let leaving = CancellationToken::new();
    let operations = Operations {
        control: control.clone(),
        gateway: gateway.clone(),
        metrics: metrics.clone(),
        leaving: leaving.clone(),
    };
    let public = public_router(settings, operations.clone(), console);
    let (drain, patience) = (CancellationToken::new(), listen::patience(settings));
    let agents = agent_router(&control, &clock, &drain);
    let budget = Budget::new(memory::request_bytes(settings));
    let proxies: Arc<[_]> = settings.trusted_proxies.clone().into();
    let server = || Server::new(patience, budget.clone(), Arc::clone(&proxies), drain.clone());
    let places = |name, part, per_peer| {
        let most = listen::share(descriptors, part, settings.connections);
        Places::new(name, most, per_peer, settings.trusted_proxies.clone())
    };
    let per_peer = settings.connections_per_peer;
    let listener = listen_on("listen", settings.listen, listener)?;
    let agent_listener = listen_on("agent_listen", settings.agent_listen, agent_listener)?;
    // All of them before the first is served: one that is taken after all ends the start without having answered anybody.
    let operations_listener = match operations_listener.zip(settings.operations_listen) {
        Some((socket, address)) => Some((listen_on("operations_listen", address, socket)?, address)),
        None => None,
    };
    let mut servers = vec![
        tokio::spawn(listen::serve(listener, public, places("public", 3, per_peer), server().leaving(leaving.clone()))),
        tokio::spawn(offers::keep(
            control.clone(),
            agents.clone(),
            acceptor.clone(),
            Outgoing::new(settings.proxy.as_deref(), settings.no_proxy.as_deref()),
            server(),
        )),
        tokio::spawn(listen::serve_agents(
            agent_listener,
            agents,
            (control.clone(), acceptor),
            places("agents", 1, listen::strangers_per_peer(per_peer)),
            server(),
        )),
    ];
    if let Some((listener, address)) = operations_listener {
        let doors = doors(settings, address);
        let router = operations::all(operations).layer(from_fn_with_state(doors, check_doors));
        let places = Places::new("operations", OPERATIONS_CONNECTIONS, 0, Vec::new());
        servers.push(tokio::spawn(listen::serve(listener, router, places, server())));
    }
    let _trimming = AbortOnDropHandle::new(tokio::spawn(memory::keep_trimmed()));
    let _sorting = AbortOnDropHandle::new(tokio::spawn(telemetry::keep_sorted(metrics)));
    let (agent, stop) = {
        let wait = EngineWait::default();
        let mut waits = wait.why();
        let mut starting = pin!(local.start(settings, &control, own_ports, room, wait.clone()));
        let started = tokio::select! {
            started = &mut starting => Some(started?),
            // Everything but this machine's toolbox goes without its engine.
            _ = waits.wait_for(Option::is_some) => None,
            () = tokio::time::sleep(LONGEST_TOOLBOX_START) => None,
        };
        announce(settings, console);
        match started {
            Some(agent) => (Ok(agent), stopped.await),
            None => tokio::select! {
                started = &mut starting => match started {
                    Ok(agent) => (Ok(agent), stopped.await),
                    // Others are served already: we end for them as after a signal.
                    Err(failed) => {
                        drop(stopped);
                        (Err(failed), Stop::Ourselves)
                    }
                },
                stop = &mut stopped => (local::ended(&wait, starting).await.unwrap_or(Ok(None)), stop),
            },
        }
    };
    let (agent, failed) = match agent {
        Ok(agent) => (agent, None),
        Err(failed) => {
            tracing::error!("the toolbox of this machine does not start: {}", failed.problem);
            (None, Some(failed))
        }
    };
    tracing::info!(servers_too = stop == Stop::Everything, "stopping; another signal ends the waiting");
    // From now on load balancers send nothing new here, once they have looked, and clients give up what they keep.
    leaving.cancel();
    control.links().leave();
    if stop == Stop::Ourselves {
        let delay = Duration::from_secs(settings.shutdown_delay_seconds.into());
        let _ = tokio::time::timeout(delay, hurry.cancelled()).await;
    }
    stopping.cancel();
    gateway.drain();
    drain.cancel();
    finish(settings, &gateway, servers, &hurry).await;
    gateway.close(CLOSE_PATIENCE).await;
    drop(gateway);
    if let Some(agent) = agent {
        agent.shutdown(if stop == Stop::Everything { Shutdown::StopAll } else { Shutdown::Leave }).await;
    }
    control.shutdown(TASKS_GRACE).await;
    tracing::info!("stopped");
    failed.map_or(Ok(()), Err)
}

/// Waits for requests under way until the drain's deadline, or until somebody is in a hurry; then cuts them off.
async fn finish(
    settings: &Settings,
    gateway: &Gateway,
    servers: Vec<tokio::task::JoinHandle<()>>,
    hurry: &CancellationToken,
) {
    let mut drained = pin!(async {
        futures_util::future::join_all(servers).await;
        gateway.drained().await;
    });
    tokio::select! {
        () = drained.as_mut() => return,
        () = tokio::time::sleep(Duration::from_secs(settings.drain_seconds.into())) => {}
        () = hurry.cancelled() => {}
    }
    tracing::warn!(drain.seconds = settings.drain_seconds, "requests under way were cut off at the drain deadline");
    gateway.cut();
    let _ = tokio::time::timeout(CUT_GRACE, drained).await;
}

fn make_private(dir: &Path) -> Result<(), Failed> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| format!("cannot make the data directory `{}`: {error}", dir.display()).into())
}

/// Takes an address, where somebody else may listen already. Who connects is refused until [`listen_on`]: a connection
/// that is accepted and gets no answer is lost, while one that is refused is made to another replica.
fn bind(setting: &str, address: std::net::SocketAddr) -> Result<TcpSocket, Failed> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let bound = socket.and_then(|socket| {
        // What is left of the connections of a process before is in nobody's way.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(socket)
    });
    bound.map_err(|error| cannot_listen(setting, address, &error))
}

fn listen_on(setting: &str, address: std::net::SocketAddr, socket: TcpSocket) -> Result<TcpListener, Failed> {
    socket.listen(BACKLOG).map_err(|error| cannot_listen(setting, address, &error))
}

fn cannot_listen(setting: &str, address: std::net::SocketAddr, error: &std::io::Error) -> Failed {
    format!("setting `{setting}`: cannot listen on {address}: {error}").into()
}

/// A problem that tells of a damaged SQLite file, with the file and the way out: damage may show only to whoever reads in
/// that place.
pub(crate) fn with_way_out(location: &Location, problem: String) -> String {
    match location {
        Location::Sqlite(path)
            if toolyard_store::tells_of_damage(&problem) && !problem.contains(&path.display().to_string()) =>
        {
            format!("the database file `{}` is damaged; put it back from a backup: {problem}", path.display())
        }
        Location::Sqlite(_) | Location::Postgres(_) => problem,
    }
}

pub(crate) fn location(settings: &Settings) -> Location {
    match &settings.database_url {
        Some(url) => Location::Postgres(url.clone()),
        None => Location::Sqlite(settings.data_dir.join("toolyard.db")),
    }
}

pub(crate) fn store_options(settings: &Settings, must_exist: bool) -> StoreOptions {
    StoreOptions {
        connections: settings.database_connections,
        statement_timeout: Duration::from_secs(settings.database_timeout_seconds.into()),
        session_parameters: settings.database_session_parameters,
        must_exist,
        migration_backup: settings.migration_backup,
    }
}

/// Whether the first member is still to be made.
async fn is_first_start(store: &Store) -> Result<bool, Failed> {
    let tx = store.system_read("look for an administrator").await.map_err(|error| Failed::from(&error))?;
    Ok(!tx.any_owner().await.map_err(|error| Failed::from(&error))?)
}

/// Refuses a first start with settings of the first member that are wrong. Nobody reads them later: an installation that
/// is used starts.
fn check_first_start(is_first: bool, wrong: &[String]) -> Result<(), Failed> {
    if is_first && !wrong.is_empty() {
        return Err(Failed::configuration(wrong.join("\n")));
    }
    wrong.iter().for_each(|wrong| tracing::warn!("{wrong}"));
    Ok(())
}

/// The bootstrap key as configured; else, at a first start in development, one that is made and shown, so
/// that the command line works at once.
fn first_key(settings: &Settings, is_first: bool) -> Option<Secret> {
    let is_made = is_first && settings.bootstrap_api_key.is_none() && settings.env == Environment::Development;
    is_made.then(toolyard_control::new_api_key)
}

fn control_options(
    settings: &Settings,
    store: Store,
    clock: &Clock,
    first_key: Option<Secret>,
    stopping: &CancellationToken,
) -> Result<ControlOptions, Failed> {
    let environment = config::process_environment();
    let target = DeploymentTarget::detect(|name| environment.get(name).cloned(), Path::new("/"));
    let vault_keys = match &settings.vault_key {
        Some(key) => VaultKeys::Given { current: key.clone(), previous: Vec::new() },
        None => VaultKeys::DataDir,
    };
    // A proxy of one's own decides what can be reached; names then resolve there, not here.
    let private_sources = settings.catalog_private_sources || settings.proxy.is_some();
    Ok(ControlOptions {
        store,
        clock: clock.clone(),
        data_dir: settings.data_dir.clone(),
        vault_keys,
        vault_key_lost: settings.vault_key_lost,
        http_client: net::http_client(settings)?,
        source_client: SourceClient::new(net::http_client_builder(settings)?, private_sources)
            .map_err(|error| Failed::from(&error))?,
        environment: settings.env.as_str().into(),
        deployment_target: target.as_str().into(),
        public_url: settings.public_url.clone(),
        trusted_proxies: settings.trusted_proxies.clone(),
        cookie_secure: settings.cookie_secure,
        session_ttl: Duration::from_secs(u64::from(settings.session_hours) * 3600),
        registry_url: Some(settings.registry_url.clone()),
        serve_registry: settings.registry_serve,
        registry_sync: settings.registry_sync,
        bootstrap: Bootstrap {
            admin_email: settings.bootstrap_admin_email.clone(),
            admin_password: settings.bootstrap_admin_password.clone(),
            api_key: settings.bootstrap_api_key.clone().or(first_key),
            api_key_is_set: settings.bootstrap_api_key.is_some(),
        },
        local_toolbox: settings.local_toolbox,
        call_retention_days: settings.call_retention_days,
        call_max_records: settings.call_max_records,
        audit_retention_days: settings.audit_retention_days,
        audit_max_records: settings.audit_max_records,
        revisions_kept: settings.revisions_kept,
        agent_certificate: Duration::from_secs(settings.agent_certificate_seconds.into()),
        toolbox_silence: Duration::from_secs(settings.toolbox_silence_seconds.into()),
        toolbox_replace_after: Duration::from_secs(settings.toolbox_replace_after_seconds.into()),
        limits: Limits {
            event_streams: settings.event_streams,
            event_streams_per_organization: settings.event_streams_per_organization,
            event_streams_per_principal: settings.event_streams_per_principal,
            requests_per_second_per_organization: settings.requests_per_second_per_organization,
            requests_per_second_per_principal: settings.requests_per_second_per_principal,
            refusals_per_minute: settings.audit_refusals_per_minute,
            server: ServerCeilings {
                memory_mib: settings.server_max_memory_mib,
                processes: settings.server_max_processes,
                disk_mib: settings.server_max_disk_mib,
                replicas: settings.server_max_replicas,
                copies: settings.server_max_copies,
            },
        },
        snapshot_max_age: Duration::from_secs(settings.snapshot_max_age_seconds.into()),
        shutdown: stopping.clone(),
    })
}

/// The toolbox of this machine, which starts after the listeners serve.
struct LocalToolbox(Option<(ToolboxId, watch::Sender<Option<Channel>>)>);

impl LocalToolbox {
    /// Lets calls to it wait from now on.
    async fn expect(settings: &Settings, control: &Control) -> Result<Self, Failed> {
        let toolbox = if settings.local_toolbox { control.local_toolbox().await } else { Ok(None) };
        let Some(toolbox) = toolbox.map_err(|error| Failed::from(&error))? else { return Ok(Self(None)) };
        let (attach, attached) = watch::channel(None);
        control.links().insert(toolbox, once_attached(attached, TOOLBOX_PATIENCE, "local"));
        Ok(Self(Some((toolbox, attach))))
    }

    /// Starts it, as soon as its engine answers; none when there is none, or when the wait for that was given up.
    async fn start(
        self,
        settings: &Settings,
        control: &Control,
        own_ports: Vec<u16>,
        room: Room,
        wait: EngineWait,
    ) -> Result<Option<Agent>, Failed> {
        let Some((toolbox, attach)) = self.0 else { return Ok(None) };
        let channel = in_process(control.agent_router().layer(Extension(AgentIdentity(toolbox))));
        let channel = stack::through(channel, Peer::without_breaker("the control plane"));
        let environment = config::process_environment();
        let dir = settings.data_dir.join(installation::TOOLBOX);
        let mut options = local::agent_options(settings, &environment, toolbox, dir, channel, own_ports, room)?;
        control.set_engine_wait(toolbox, wait.why());
        options.engine_wait = wait;
        let agent = match Agent::start(options).await {
            // What an earlier agent started runs on: only the engine could end it.
            Err(StartError::GivenUp) => {
                tracing::info!("the toolbox did not start until now; what an earlier one started is left as it is");
                return Ok(None);
            }
            started => started.map_err(|error| Failed::from(&error))?,
        };
        for (name, enforcement) in agent.report().enforcement.iter().filter(|(_, enforcement)| !enforcement.enforced) {
            tracing::warn!("this host does not enforce {name}: {}", enforcement.detail);
        }
        if let Some(why) = not_kept_apart(agent.report())
            && settings.require_isolation
        {
            return Err(Failed::configuration(format!("setting `require_isolation`: {why}")));
        }
        let channel = in_process(agent.router());
        control.links().insert(toolbox, channel.clone());
        let _ = attach.send(Some(channel));
        Ok(Some(agent))
    }
}

/// Why servers on this host could read each other's and our own things, if they could. User ids of their own
/// (as root) or namespaces (otherwise) each keep them apart; limits hold without control groups too, watched.
pub(crate) fn not_kept_apart(report: &ToolboxReport) -> Option<String> {
    let enforced = |name: &str| report.enforcement.get(name).is_some_and(|enforcement| enforcement.enforced);
    if enforced("own_uid") || enforced("namespaces") {
        return None;
    }
    let detail = |name: &str| report.enforcement.get(name).map_or("unknown", |enforcement| enforcement.detail.as_str());
    Some(format!(
        "this host gives servers neither user ids of their own ({}) nor namespaces ({})",
        detail("own_uid"),
        detail("namespaces")
    ))
}

fn start_gateway(
    settings: &Settings,
    control: &Control,
    clock: &Clock,
    upstreams: toolyard_mcp::http::Client,
    room: Room,
) -> Gateway {
    let (links, leases, uses, decider) = (control.links(), control.clone(), control.clone(), control.decider().clone());
    let options = GatewayOptions {
        snapshot: control.snapshots(),
        max_snapshot_age: Duration::from_secs(settings.snapshot_max_age_seconds.into()),
        // Only a store of several replicas is changed by others.
        news_patience: settings.database_url.as_ref().map_or(Duration::ZERO, |_| NEWS_PATIENCE),
        toolboxes: Arc::new(move |toolbox| links.get(toolbox)),
        lease: Arc::new(move |server| {
            let control = leases.clone();
            Box::pin(async move { control.lease_remote(server).await.map_err(|error| LeaseError(error.to_string())) })
        }),
        http: upstreams,
        room,
        decide: Arc::new(move |principal, action, name| {
            let resource = name.map_or(Resource::Organization, |name| Resource::Server(name.clone()));
            decider.decide(principal, action, &resource).allowed
        }),
        note_key: Arc::new(move |key| uses.note_key_use(key)),
        records: control.call_records(),
        clock: clock.clone(),
        hold: Duration::from_secs(settings.call_hold_seconds.into()),
        max_body_bytes: MAX_BODY_BYTES,
        session_key: control.gateway_session_key(),
        allowed_hosts: allowed_hosts(settings, settings.listen),
        allowed_origins: settings.public_url.iter().cloned().collect(),
    };
    Gateway::with_limits(options, call_limits(settings))
}

fn call_limits(settings: &Settings) -> toolyard_gateway::Limits {
    let number = |limit: u32| usize::try_from(limit).unwrap_or(usize::MAX);
    toolyard_gateway::Limits {
        calls: number(settings.calls_at_once),
        calls_per_server: number(settings.calls_at_once_per_server),
        calls_per_key: number(settings.calls_at_once_per_key),
        calls_per_organization: number(settings.calls_at_once_per_organization),
        ..toolyard_gateway::Limits::default()
    }
}

/// The names that are answered to: on loopback only loopback's and our own, so that a web page cannot reach us by
/// rebinding a name of its own (DNS rebinding); otherwise any, unless some are set.
fn allowed_hosts(settings: &Settings, listen: std::net::SocketAddr) -> Option<Vec<String>> {
    if !listen.ip().is_loopback() && settings.allowed_hosts.is_empty() {
        return None;
    }
    let public = settings.public_url.as_deref().and_then(|url| url.parse::<http::Uri>().ok());
    let public = public.and_then(|uri| uri.host().map(String::from));
    Some(settings.allowed_hosts.iter().cloned().chain(public).collect())
}

/// The same for everything beside the gateway, which looks itself.
fn doors(settings: &Settings, listen: std::net::SocketAddr) -> Arc<Doors> {
    Arc::new(Doors::new(allowed_hosts(settings, listen), settings.public_url.iter().cloned().collect()))
}

/// Refuses what is not meant for this Toolyard. Where any name is served a foreign origin is only refused with a
/// session cookie, by the API: the page may be the console by a name that we do not know.
async fn check_doors(State(doors): State<Arc<Doors>>, request: Request, next: Next) -> Response {
    let (headers, authority) = (request.headers(), request.uri().authority());
    let checked = match doors.check_host(headers, authority) {
        Ok(_) if doors.lists_hosts() => doors.check(headers, authority),
        checked => checked.map(|_| ()),
    };
    match checked {
        Ok(()) => next.run(request).await,
        // Load balancers ask in HTTP/1.0, which has no `Host`; whoever asks is told one word.
        Err(Shut::NoHost) if is_probe(request.uri().path()) => next.run(request).await,
        Err(shut) => {
            let mut problem = Problem::new(shut.code(), shut.to_string());
            let id = toolyard_types::AuditId::generate().to_string();
            let path = request.uri().path();
            tracing::info!(request.id = id, http.path = path, code = shut.code().as_str(), "request refused: {shut}");
            problem.request_id = Some(id);
            problem_response(&problem)
        }
    }
}

fn is_probe(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz") || path.starts_with("/readyz/")
}

fn public_router(settings: &Settings, operations: Operations, console: Console) -> Router {
    let (control, gateway) = (operations.control.clone(), operations.gateway.clone());
    let router = operations::public(operations)
        .fallback_service(console.before(&control))
        .layer(from_fn_with_state(doors(settings, settings.listen), check_doors))
        .merge(gateway.router());
    if settings.public_url.as_deref().is_some_and(|url| url.starts_with("https://")) {
        router.layer(SetResponseHeaderLayer::if_not_present(header::STRICT_TRANSPORT_SECURITY, ONE_YEAR))
    } else {
        router
    }
}

pub(crate) fn problem_response(problem: &Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = serde_json::to_vec(problem).unwrap_or_default();
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response()
}

fn agent_router(control: &Control, clock: &Clock, drain: &CancellationToken) -> Router {
    let accepting = control.clone();
    let link = move |request: Request| async move { accepting.accept_link(request).await };
    let (links, clock, drain) = (control.links(), clock.clone(), drain.clone());
    let forward = move |request: Request| async move {
        match request.extensions().get::<ReplicaCertificate>().copied() {
            Some(certificate) => {
                let goes_on = goes_on(&request);
                let answer = links.forwarded(&certificate, clock.now(), request).await;
                if goes_on { answer.map(|body| until(drain, body)) } else { answer }
            }
            None => problem_response(&Problem::new(
                Code::CertificateRequired,
                "only another replica of this Toolyard, known by its certificate, may forward",
            )),
        }
    };
    Router::new()
        .route(LINK_PATH, post(link))
        .route(&format!("{FORWARD_PATH}/{{toolbox}}"), any(forward.clone()))
        .route(&format!("{FORWARD_PATH}/{{toolbox}}/{{*path}}"), any(forward))
        .method_not_allowed_fallback(async || {
            problem_response(&Problem::new(Code::MethodNotAllowed, "the path exists, but not with this method"))
        })
        .fallback_service(control.agent_router())
}

/// Whether a request that another replica sends on by way of us has an answer without an end: what a server says of its
/// own accord, a log that is followed, a subscription. The other one asks again, by another way.
fn goes_on(request: &Request) -> bool {
    let deadline_ms = request.headers().get(DEADLINE_HEADER).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    request.method() == http::Method::GET || deadline_ms.is_some_and(|deadline| deadline > LONGEST_CALL_MS)
}

/// A body that ends when we drain.
fn until(drain: CancellationToken, body: Body) -> Body {
    Body::from_stream(body.into_data_stream().take_until(drain.cancelled_owned()))
}

fn own_url(settings: &Settings) -> String {
    settings.public_url.clone().unwrap_or_else(|| format!("http://{}", settings.listen))
}

fn announce(settings: &Settings, console: Console) {
    let url = own_url(settings);
    println!("Toolyard {} ({}) is ready at {url}", env!("CARGO_PKG_VERSION"), settings.env);
    if console.is_there() {
        println!("  console: {url}/");
    }
    println!("  MCP clients connect to {url}/mcp/default/servers/NAME or .../toolsets/NAME");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_connects_before_we_can_answer_is_refused_and_a_taken_port_is_told_at_once() {
        let Ok(socket) = bind("listen", ([127, 0, 0, 1], 0).into()) else { panic!("a free port") };
        let address = socket.local_addr().expect("an address");
        assert!(std::net::TcpStream::connect(address).is_err(), "nobody listens yet");
        let Ok(listener) = listen_on("listen", address, socket) else { panic!("it is ours") };
        assert!(std::net::TcpStream::connect(address).is_ok());
        let Err(taken) = bind("agent_listen", address) else { panic!("it is taken") };
        let told = format!("setting `agent_listen`: cannot listen on {address}: ");
        assert!(taken.problem.starts_with(&told), "{}", taken.problem);
        drop(listener);
    }

    #[test]
    fn what_is_wrong_with_the_first_member_is_refused_only_when_that_is_to_be_made() {
        let wrong = ["setting `bootstrap_admin_email`: must be an e-mail address".to_owned()];
        let Err(refused) = check_first_start(true, &wrong) else { panic!("it would be made") };
        assert_eq!((refused.code, refused.problem.as_str()), (EXIT_CONFIG, wrong[0].as_str()));
        assert!(check_first_start(false, &wrong).is_ok() && check_first_start(true, &[]).is_ok());
    }

    #[test]
    fn damage_that_shows_late_names_the_file_and_the_way_out_once() {
        let file = Location::Sqlite("/data/toolyard.db".into());
        let damage = "the database failed: (code: 11) database disk image is malformed";
        let told = with_way_out(&file, damage.to_owned());
        let way_out = "the database file `/data/toolyard.db` is damaged; put it back from a backup";
        assert_eq!(told, format!("{way_out}: {damage}"));
        assert_eq!(with_way_out(&file, told.clone()), told);
        let full = "the database failed: (code: 13) database or disk is full".to_owned();
        assert_eq!(with_way_out(&file, full.clone()), full);
    }

    #[tokio::test]
    async fn what_goes_on_for_another_replica_ends_when_we_drain_and_its_calls_do_not() {
        let get = Request::get("/dtma/v1/forward/x/v1/instances/y/events").body(Body::empty()).expect("a request");
        let subscription = Request::post("/").header(DEADLINE_HEADER, 24 * 3600 * 1000_u64).body(Body::empty());
        let call = Request::post("/").header(DEADLINE_HEADER, 60_000).body(Body::empty()).expect("a request");
        assert!(goes_on(&get) && goes_on(&subscription.expect("a request")) && !goes_on(&call));
        let drain = CancellationToken::new();
        let endless = Body::from_stream(futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
        let body = until(drain.clone(), endless);
        drain.cancel();
        let read = axum::body::to_bytes(body, 1).await.expect("it ends well");
        assert!(read.is_empty());
    }
}
