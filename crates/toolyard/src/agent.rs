//! `toolyard dtma`: the agent of a toolbox alone, as a process that dials out, or that listens for its control plane.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use rand::Rng;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use toolyard_dtma::{Agent, Identity, IdentityOptions, Shutdown, StartError};
use toolyard_link::{DialError, Dialler, LinkKind, Offers};
use toolyard_types::Clock;
use toolyard_types::agent::JoinToken;

use crate::cli::{DtmaArgs, EXIT_CONFIG};
use crate::config::{self, Settings};
use crate::serve::{Stop, not_kept_apart, stop_signal};
use crate::{listen, local, memory, telemetry};

/// Longest pause before a broken link is dialled again.
const REDIAL: Duration = Duration::from_secs(5);
/// The same when this agent is nobody there any more: only another certificate, or another database, changes that.
const REDIAL_REFUSED: Duration = Duration::from_secs(60);

/// Runs the agent until it is told to stop.
pub(crate) async fn main(args: &DtmaArgs) -> ExitCode {
    let environment = config::process_environment();
    let loaded = match config::load(&environment, Path::new("."), &args.overrides()) {
        Ok(loaded) => loaded,
        Err(error) => {
            error.0.iter().for_each(|problem| eprintln!("toolyard: {problem}"));
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let refused = local::check(&loaded.settings, &environment);
    if !refused.is_empty() {
        refused.iter().for_each(|problem| eprintln!("toolyard: {problem}"));
        return ExitCode::from(EXIT_CONFIG);
    }
    match run(&loaded.settings, args.token.as_deref()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed::Refused(problem)) => {
            eprintln!("toolyard: {problem}");
            ExitCode::from(EXIT_CONFIG)
        }
        Err(Failed::Otherwise(problem)) => {
            eprintln!("toolyard: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Why the agent ended.
enum Failed {
    /// The settings do not allow it on this host.
    Refused(String),
    Otherwise(String),
}

impl From<String> for Failed {
    fn from(problem: String) -> Self {
        Self::Otherwise(problem)
    }
}

async fn run(settings: &Settings, token: Option<&str>) -> Result<(), Failed> {
    let (stopped, _hurrying) = stop_signal(CancellationToken::new());
    let mut stopped = std::pin::pin!(stopped);
    telemetry::start_logs(settings)?;
    listen::raise_descriptors();
    let (offers, _listening) = match settings.dtma_listen {
        Some(address) => listen(address).await.map(|(offers, listening)| (Some(offers), Some(listening)))?,
        None => (None, None),
    };
    let (options, unread) = identity_options(settings, token, offers.clone())?;
    if let Some(problem) = unread {
        tracing::warn!("{problem}; going on without it: this agent has joined, and needs none");
    }
    let identity = tokio::select! {
        opened = Identity::open(options) => opened.map_err(|error| chain(&error))?,
        _ = &mut stopped => return Ok(()),
    };
    let dialler = identity.dialler();
    let environment = config::process_environment();
    let addresses = dialler.addresses();
    let ports = addresses.iter().filter_map(|address| port_here(address));
    let ports = ports.chain(offers.iter().map(|offers| offers.address().port())).collect();
    let dir = settings.data_dir.clone();
    let room = memory::room(settings);
    let (toolbox, name) = identity.toolbox();
    let name = name.clone();
    let options = local::agent_options(settings, &environment, toolbox, dir, identity.channel(), ports, room)?;
    let wait = options.engine_wait.clone();
    let stop = CancellationToken::new();
    let removed = identity.removed();
    // Also while the engine is waited for, which may take longer than the certificate is good for.
    let renewing = AbortOnDropHandle::new(tokio::spawn(identity.keep(stop.clone())));
    let mut starting = std::pin::pin!(Agent::start(options));
    let (started, told) = tokio::select! {
        started = &mut starting => (started, None),
        stop = &mut stopped => (local::ended(&wait, starting).await.unwrap_or(Err(StartError::GivenUp)), Some(stop)),
    };
    let agent = match started {
        // What an earlier agent started runs on: only the engine could end it.
        Err(StartError::GivenUp) => {
            tracing::info!("stopped before the toolbox could start; what an earlier one started is left as it is");
            return Ok(());
        }
        started => started.map_err(|error| chain(&error))?,
    };
    for (name, enforcement) in agent.report().enforcement.iter().filter(|(_, enforcement)| !enforcement.enforced) {
        tracing::warn!("this host does not enforce {name}: {}", enforcement.detail);
    }
    if let Some(why) = not_kept_apart(agent.report()).filter(|_| settings.require_isolation) {
        return Err(Failed::Refused(format!("setting `require_isolation`: {why}")));
    }
    let control = match &offers {
        Some(offers) => format!("connects to {}", offers.address()),
        None => dialler.addresses().join(", "),
    };
    tracing::info!(toolbox.name = %name, control, "agent started");

    let links = match offers {
        Some(offers) => tokio::spawn(take_links(offers, dialler, agent.router(), stop.clone())),
        None => tokio::spawn(keep_links(agent.links(), dialler, agent.router(), stop.clone())),
    };
    let mode = match told {
        Some(stop) => stop,
        None => tokio::select! {
            mode = &mut stopped => mode,
            () = removed.cancelled() => {
                agent.toolbox_removed();
                stopped.await
            }
        },
    };
    stop.cancel();
    let _ = tokio::join!(links, renewing);
    let mode = if mode == Stop::Everything { Shutdown::StopAll } else { Shutdown::Leave };
    agent.shutdown(mode).await;
    Ok(())
}

/// The port of an address of the control plane, when that is on this host too.
fn port_here(address: &str) -> Option<u16> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.trim_matches(['[', ']']);
    let is_here = host == "localhost"
        || host.parse().is_ok_and(|ip: std::net::IpAddr| std::net::UdpSocket::bind((ip, 0)).is_ok());
    port.parse().ok().filter(|_| is_here)
}

/// Begins to accept connections that the control plane offers, until the handle is dropped.
///
/// # Errors
/// When the address cannot be listened on.
pub(crate) async fn listen(address: std::net::SocketAddr) -> Result<(Offers, AbortOnDropHandle<()>), String> {
    let failed = |error: std::io::Error| format!("setting `dtma_listen`: cannot listen on {address}: {error}");
    let listener = tokio::net::TcpListener::bind(address).await.map_err(failed)?;
    let offers = Offers::new(listener.local_addr().map_err(failed)?);
    tracing::info!(address = %offers.address(), "waiting for the control plane");
    let listening = AbortOnDropHandle::new(tokio::spawn(offers.clone().listen(listener)));
    Ok((offers, listening))
}

/// What the settings and the token say of who this agent is; and what is wrong with a token that is needed no more.
///
/// # Errors
/// When the token is none, and the agent has not joined.
pub(crate) fn identity_options(
    settings: &Settings,
    token: Option<&str>,
    offers: Option<Offers>,
) -> Result<(IdentityOptions, Option<String>), String> {
    // An environment file that is emptied after the join may leave an empty variable.
    let (token, unread) = match token.filter(|token| !token.trim().is_empty()).map(join_token).transpose() {
        Ok(token) => (token, None),
        Err(problem) if Identity::is_kept(&settings.data_dir) => (None, Some(problem)),
        Err(problem) => return Err(problem),
    };
    let options = IdentityOptions {
        data_dir: settings.data_dir.clone(),
        token,
        proxy: settings.proxy.clone(),
        no_proxy: settings.no_proxy.clone(),
        offers,
        clock: Clock::system(),
    };
    Ok((options, unread))
}

fn join_token(text: &str) -> Result<JoinToken, String> {
    #[derive(serde::Deserialize)]
    struct Version {
        v: u32,
    }
    let broken = || "the token is not one that `toolyard toolboxes enroll` printed; copy all of it".to_owned();
    let json = URL_SAFE_NO_PAD.decode(text.trim()).map_err(|_| broken())?;
    let version: Version = serde_json::from_slice(&json).map_err(|_| broken())?;
    if version.v != JoinToken::VERSION {
        let (theirs, ours) = (version.v, JoinToken::VERSION);
        let which = if theirs > ours { "upgrade this toolyard" } else { "upgrade the control plane" };
        return Err(format!("the token is of version {theirs}, this program reads version {ours}; {which}"));
    }
    serde_json::from_slice(&json).map_err(|_| broken())
}

/// Keeps two links to every gateway that the control plane names: one for calls, one for logs. With none named the only
/// gateway is where the control plane is.
async fn keep_links(
    mut addresses: watch::Receiver<Vec<String>>,
    dialler: Dialler,
    router: axum::Router,
    stop: CancellationToken,
) {
    let mut kept = Kept::new(dialler.clone(), router, stop.clone());
    while !stop.is_cancelled() {
        let named = addresses.borrow_and_update().clone();
        // Where a gateway is, a control plane is too: when the one that was given ends, another is heard.
        dialler.also_at(&named);
        let named: BTreeSet<_> = named.into_iter().map(Some).collect();
        kept.follow(if named.is_empty() { BTreeSet::from([None]) } else { named });
        tokio::select! {
            changed = addresses.changed() => if changed.is_err() { stop.cancelled().await },
            () = stop.cancelled() => {}
        }
    }
    kept.end().await;
}

/// Keeps two links to every replica that offers connections.
async fn take_links(offers: Offers, dialler: Dialler, router: axum::Router, stop: CancellationToken) {
    let mut replicas = offers.replicas();
    let mut kept = Kept::new(dialler, router, stop.clone());
    while !stop.is_cancelled() {
        kept.follow(replicas.borrow_and_update().iter().cloned().map(Some).collect());
        tokio::select! {
            changed = replicas.changed() => if changed.is_err() { stop.cancelled().await },
            () = stop.cancelled() => {}
        }
    }
    kept.end().await;
}

/// The links to gateways that are kept, each by itself: what happens to one is nothing to another. A link outlives its
/// gateway's place in the list: it is not made again, and ends when it breaks or when the gateway has another in its place.
struct Kept {
    dialler: Dialler,
    router: axum::Router,
    stop: CancellationToken,
    known: BTreeMap<Option<String>, CancellationToken>,
    tracker: TaskTracker,
}

impl Kept {
    fn new(dialler: Dialler, router: axum::Router, stop: CancellationToken) -> Self {
        Self { dialler, router, stop, known: BTreeMap::new(), tracker: TaskTracker::new() }
    }

    fn follow(&mut self, named: BTreeSet<Option<String>>) {
        self.known.retain(|gateway, forgotten| {
            let stays = named.contains(gateway);
            if !stays {
                forgotten.cancel();
            }
            stays
        });
        for gateway in named {
            self.known.entry(gateway.clone()).or_insert_with(|| {
                let forgotten = CancellationToken::new();
                for kind in [LinkKind::Calls, LinkKind::Bulk] {
                    let until = Until { stop: self.stop.clone(), forgotten: forgotten.clone() };
                    let (dialler, router) = (self.dialler.clone(), self.router.clone());
                    self.tracker.spawn(keep_link(gateway.clone(), kind, dialler, router, until));
                }
                forgotten
            });
        }
    }

    async fn end(self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// Until when a link is kept.
struct Until {
    /// It is to end.
    stop: CancellationToken,
    /// It is not to be made again: nobody is there any more.
    forgotten: CancellationToken,
}

/// Keeps one link. With a new certificate another link is made first; the old one then ends with its calls.
async fn keep_link(address: Option<String>, kind: LinkKind, dialler: Dialler, router: axum::Router, until: Until) {
    let Until { stop, forgotten } = until;
    let mut renewed = dialler.renewed();
    let tracker = TaskTracker::new();
    let mut retire = CancellationToken::new();
    let mut failures = 0_u32;
    while !stop.is_cancelled() && !forgotten.is_cancelled() {
        renewed.mark_unchanged();
        let dialled = tokio::select! {
            dialled = dialler.link(address.as_deref(), kind) => dialled,
            () = stop.cancelled() => break,
            () = forgotten.cancelled() => break,
        };
        let mut longest = REDIAL;
        match dialled {
            Ok(link) => {
                failures = 0;
                std::mem::take(&mut retire).cancel();
                let (router, stop, own) = (router.clone(), stop.clone(), retire.clone());
                let serving = tracker.spawn(async move { link.serve(router, &stop, &own).await });
                tokio::select! {
                    _ = serving => {}
                    changed = renewed.changed() => if changed.is_ok() { continue },
                }
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                if matches!(error, DialError::Refused(_, StatusCode::UNAUTHORIZED)) {
                    longest = REDIAL_REFUSED;
                }
                if failures.is_power_of_two() {
                    tracing::warn!(error = &error as &dyn std::error::Error, failures, "link not made; trying again");
                }
            }
        }
        let pause = longest.mul_f64(rand::rng().random_range(0.1..1.0));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            Ok(()) = renewed.changed() => {}
            () = stop.cancelled() => {}
            () = forgotten.cancelled() => {}
        }
    }
    tracker.close();
    tracker.wait().await;
}

/// An error with its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
