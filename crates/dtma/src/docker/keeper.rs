//! A container's keeper: the task that is to a container what a supervisor is to a process.
//!
//! It attaches, carries standard error into the instance's log and standard output to the MCP connection, tells
//! what is used and how it ended, and stops it when asked. It ends with the agent; the container does not.
//! Should the attached stream break while the container runs on, the keeper ends and the instance attaches again.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::http::HeaderMap;
use bollard::container::LogOutput;
use bollard::errors::Error as ApiError;
use bollard::models::ContainerState;
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, KillContainerOptionsBuilder, StatsOptionsBuilder,
    WaitContainerOptionsBuilder,
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::io::StreamReader;
use tokio_util::task::AbortOnDropHandle;
use toolyard_mcp::Room;
use toolyard_mcp::stdio::{Caller, Principal};
use toolyard_types::agent::{DesiredInstance, Failure, LogStream, Usage};
use toolyard_types::spec::{Egress, EgressHost, HttpEndpoint};
use toolyard_types::state::Reason;
use toolyard_types::{Clock, Secret, Timestamp};

use super::container::{self, Plan};
use super::http::{self, Bridge};
use super::{Docker, container_name, egress, engine_failure, entry, is_missing, paths, short, volumes};
use crate::agent::Context;
use crate::copies::LogPlace;
use crate::desired::write_whole;
use crate::engine::{Line, Running, Streams};
use crate::instance::ANSWERED_FILE;
use crate::packages::failure;
use crate::process::log::{LineSplitter, LogWriter};
use crate::process::wire::{Ended, Hello, Killed, ToAgent, ToSupervisor};

const MEASURE_EVERY: Duration = Duration::from_secs(5);
const MEASURE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for the last output of a container that has ended.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// A stream that broke is attached again if the container still runs after this.
const STREAM_GRACE: Duration = Duration::from_millis(500);
const RETRY_EVERY: Duration = Duration::from_millis(500);
/// Pieces of standard output between the engine and the MCP connection. Full makes the server wait.
const STDOUT_BACKLOG: usize = 64;
const TAIL_BYTES: usize = 4 << 10;
const HANDED_OVER_FILE: &str = "handed-over";
/// By custom the exit code of something that a signal ended is this and the signal's number.
const SIGNALLED: i64 = 128;
const SIGKILL: i32 = 9;

/// Makes and starts a container, and hands it what it waits for.
///
/// # Errors
/// When it does not run.
pub(super) async fn start(
    docker: &Docker,
    context: &Context,
    desired: &DesiredInstance,
    dir: &Path,
    plan: Plan,
    redact: Vec<Secret>,
) -> Result<Running, Failure> {
    let name = container_name(desired.id);
    let api = &docker.api;
    let options = CreateContainerOptionsBuilder::new().name(&name).build();
    let of = (plan.body.image.clone(), plan.body.user.clone());
    let created = api.create_container(Some(options), plan.body).await.map_err(|error| not_started(&error))?;
    volumes::hand_over(docker, desired, of).await?;
    let attached = attach(&short(api), &created.id).await.map_err(|error| engine_failure(&error))?;
    api.start_container(&created.id, None).await.map_err(|error| not_started(&error))?;
    let state = inspect(api, &created.id).await.map_err(|error| engine_failure(&error))?;
    paths::compare(docker, context, desired, (created.id.as_str(), &state), &plan.granted).await?;
    let mut stdin = attached.stdin;
    let proxy = match (plan.hosts, state.running) {
        (Some(hosts), Some(true)) => Some(open_proxy(docker, pid_of(&state), hosts)?),
        _ => None,
    };
    if let Some(handed) = &plan.handed {
        let preamble = entry::preamble(handed);
        let written = async {
            stdin.write_all(&preamble).await?;
            stdin.flush().await
        };
        // A container that has ended already says so in a moment.
        if let Err(error) = written.await {
            tracing::debug!(instance.id = %desired.id, %error, "hand a container its environment");
        }
    }
    let bridge = match (endpoint(desired), state.running) {
        (Some(endpoint), Some(true)) => {
            let plain = context.revisions.is_plain(desired.revision);
            Some(open_bridge(pid_of(&state), endpoint, plan.headers, plain, own_room(context, desired))?)
        }
        _ => None,
    };
    let log = context.log_place(desired.id, dir);
    let kept = Kept { id: created.id, log, redact, proxy, http: endpoint(desired).is_some(), bridge };
    Ok(keep(docker, context, kept, stdin, attached.output, &state, 0))
}

/// Attaches to the container of an instance; `None` when there is none.
///
/// # Errors
/// When the engine does not say.
pub(super) async fn take_over(
    docker: &Docker,
    context: &Context,
    desired: &DesiredInstance,
    dir: &Path,
) -> Result<Option<Running>, ApiError> {
    // With all the engine's time: a container that is not taken over makes room for another.
    let inspected = match docker.api.inspect_container(&container_name(desired.id), None).await {
        Err(error) if is_missing(&error) => return Ok(None),
        other => other?,
    };
    let (Some(id), Some(state)) = (inspected.id, inspected.state) else { return Ok(None) };
    // Made, but never started: the agent died in between.
    if state.status == Some(bollard::models::ContainerStateStatusEnum::CREATED) {
        docker.remove(&id).await?;
        return Ok(None);
    }
    // No call has reached it, and the agent before may have ended before it compared.
    if state.running == Some(true)
        && !dir.join(ANSWERED_FILE).exists()
        && let Err(failure) = compare_again(docker, context, desired, (id.as_str(), &state)).await
    {
        tracing::warn!(instance.id = %desired.id, "a container is made anew: {}", failure.message);
        docker.remove(&id).await?;
        return Ok(None);
    }
    let handed_over = handed_over(dir).saturating_add(1);
    remember_handed_over(dir, handed_over).map_err(|err| ApiError::IOError { err })?;
    let attached = match state.running {
        Some(true) => attach(&docker.api, &id).await?,
        _ => Attached { stdin: Box::new(tokio::io::sink()), output: Box::pin(futures_util::stream::empty()) },
    };
    let proxy = match (&desired.spec.egress, state.running) {
        (Egress::Hosts { hosts }, Some(true)) => {
            let hosts = hosts.iter().filter_map(|host| EgressHost::parse(host)).collect();
            open_proxy(docker, pid_of(&state), hosts)
                .inspect_err(|failure| tracing::warn!(instance.id = %desired.id, "{}", failure.message))
                .ok()
        }
        _ => None,
    };
    let bridge = match (endpoint(desired), state.running) {
        (Some(endpoint), Some(true)) => context
            .secrets(desired)
            .and_then(|secrets| http::headers(endpoint, &secrets))
            .and_then(|headers| {
                let plain = context.revisions.is_plain(desired.revision);
                open_bridge(pid_of(&state), endpoint, headers, plain, own_room(context, desired))
            })
            .inspect_err(|failure| tracing::warn!(instance.id = %desired.id, "{}", failure.message))
            .ok(),
        _ => None,
    };
    let redact = desired.secrets.values().cloned().collect();
    let log = context.log_place(desired.id, dir);
    let kept = Kept { id, log, redact, proxy, http: endpoint(desired).is_some(), bridge };
    Ok(Some(keep(docker, context, kept, attached.stdin, attached.output, &state, handed_over)))
}

/// Looks at the paths of a container that runs already, and compares what it has mounted with them.
async fn compare_again(
    docker: &Docker,
    context: &Context,
    desired: &DesiredInstance,
    (container, state): (&str, &ContainerState),
) -> Result<(), Failure> {
    if desired.spec.paths.is_empty() {
        return Ok(());
    }
    let (_, granted) = container::granted(docker, context, desired).await?;
    paths::compare(docker, context, desired, (container, state), &granted).await
}

/// How many agents had this container before.
fn handed_over(dir: &Path) -> u32 {
    let text = std::fs::read_to_string(dir.join(HANDED_OVER_FILE)).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// # Errors
/// When it cannot be written: without it a late answer to an earlier agent could pass for one to us.
pub(super) fn remember_handed_over(dir: &Path, count: u32) -> io::Result<()> {
    write_whole(&dir.join(HANDED_OVER_FILE), count.to_string().as_bytes())
}

fn open_proxy(docker: &Docker, pid: Option<u32>, hosts: Vec<EgressHost>) -> Result<AbortOnDropHandle<()>, Failure> {
    let pid = pid.ok_or_else(|| failure(Reason::EngineUnavailable, "the engine does not say a container's process"))?;
    let way = egress::Way::through(docker.options.proxy.as_deref(), docker.options.no_proxy.as_deref());
    egress::serve(pid, hosts, way).map_err(|error| {
        failure(Reason::EngineUnavailable, format!("open the proxy in the network of a container: {error}"))
    })
}

/// Where the server listens, if it does not speak over its standard streams.
fn endpoint(desired: &DesiredInstance) -> Option<&HttpEndpoint> {
    desired.spec.runtime.package()?.http.as_ref()
}

/// Whose message it is does not show there, so a server answers for all of its own.
fn own_room(context: &Context, desired: &DesiredInstance) -> Room {
    context.room.of(desired.organization.as_u128()).charged_to(Caller::Principal(Principal(desired.id.as_u128())))
}

fn open_bridge(
    pid: Option<u32>,
    endpoint: &HttpEndpoint,
    headers: HeaderMap,
    plain: bool,
    room: Room,
) -> Result<Bridge, Failure> {
    let pid = pid.ok_or_else(|| failure(Reason::EngineUnavailable, "the engine does not say a container's process"))?;
    http::open(pid, endpoint, headers, plain, room)
        .map_err(|error| failure(Reason::EngineUnavailable, format!("enter the network of a container: {error}")))
}

/// What the engine said when it made or started a container: much of it is about the image, and stays so.
pub(super) fn not_started(error: &ApiError) -> Failure {
    let failed = engine_failure(error);
    // The engine tells these by text only.
    let any = |words: &[&str]| words.iter().any(|word| failed.message.contains(word));
    if any(&["/bin/sh"]) {
        let message = "the image has no shell (`/bin/sh`), which is needed to give a server secrets";
        return failure(Reason::UnsupportedByEngine, message);
    }
    if any(&["No such image"]) {
        return Failure { reason: Reason::ImageNotFound, ..failed };
    }
    let own = ["executable file not found", "no such file or directory", "no command specified", "permission denied"];
    // An image's user that the engine does not take.
    if any(&own) || any(&["unable to find user", "unable to find group", "uids and gids must be in range"]) {
        return Failure { reason: Reason::ConfigInvalid, ..failed };
    }
    // What the engine refuses of a request is about the image, and so is some of what its runtime says. All else may pass:
    // what the host lacks now it may have later.
    let refused = matches!(error, ApiError::DockerResponseServerError { status_code: 400, .. })
        && !any(&["bind source path", "client version", "runtime name"]);
    let of_image = ["not a directory", "invalid argument", "working directory", "invalid cwd"];
    if refused || (any(&["OCI runtime"]) && any(&of_image)) {
        return Failure { reason: Reason::ConfigInvalid, ..failed };
    }
    failed
}

struct Attached {
    stdin: Box<dyn AsyncWrite + Send + Unpin>,
    output: Output,
}

type Output = Pin<Box<dyn Stream<Item = Result<LogOutput, ApiError>> + Send>>;

async fn attach(api: &bollard::Docker, id: &str) -> Result<Attached, ApiError> {
    let options = AttachContainerOptionsBuilder::new().stdin(true).stdout(true).stderr(true).stream(true).build();
    let attached = api.attach_container(id, Some(options)).await?;
    Ok(Attached { stdin: Box::new(attached.input), output: attached.output })
}

async fn inspect(api: &bollard::Docker, id: &str) -> Result<ContainerState, ApiError> {
    Ok(short(api).inspect_container(id, None).await?.state.unwrap_or_default())
}

fn pid_of(state: &ContainerState) -> Option<u32> {
    state.pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0)
}

/// A container, and what is kept for it here.
struct Kept {
    id: String,
    log: LogPlace,
    redact: Vec<Secret>,
    proxy: Option<AbortOnDropHandle<()>>,
    /// It speaks over HTTP, and not over its standard streams.
    http: bool,
    /// What carries that, while it runs.
    bridge: Option<Bridge>,
}

/// The log, and the last of what was written to standard error.
struct Journal {
    log: Option<LogWriter>,
    tail: String,
    clock: Clock,
}

impl Journal {
    fn write(&mut self, stream: LogStream, text: &str) {
        let Some(log) = &mut self.log else { return };
        log.write(self.clock.now(), stream, text);
        if stream == LogStream::Stderr {
            self.tail.push_str(&log.clean(text));
            self.tail.push('\n');
            let mut from = self.tail.len().saturating_sub(TAIL_BYTES);
            while !self.tail.is_char_boundary(from) {
                from += 1;
            }
            self.tail.drain(..from);
        }
    }
}

type Shared = Arc<Mutex<Journal>>;

/// A poisoned lock means a panic between two whole lines.
fn write(journal: &Shared, stream: LogStream, text: &str) {
    journal.lock().unwrap_or_else(PoisonError::into_inner).write(stream, text);
}

fn keep(
    docker: &Docker,
    context: &Context,
    kept: Kept,
    stdin: Box<dyn AsyncWrite + Send + Unpin>,
    output: Output,
    state: &ContainerState,
    handed_over: u32,
) -> Running {
    let Kept { id, log, redact, proxy, http, bridge } = kept;
    let log = LogWriter::open(&log.dir, &log.mark, redact)
        .inspect_err(|error| tracing::error!(container.id = id, %error, "open an instance's log"))
        .ok();
    let journal = Arc::new(Mutex::new(Journal { log, tail: String::new(), clock: context.clock.clone() }));
    if handed_over == 0 {
        write(&journal, LogStream::Toolyard, &format!("started container {id}"));
    }
    let (pieces, stdout) = mpsc::channel::<Bytes>(STDOUT_BACKLOG);
    let pieces = (!http).then_some(pieces);
    let pump = AbortOnDropHandle::new(tokio::spawn(pump(output, pieces, Arc::clone(&journal))));
    let (event_sender, events) = mpsc::channel(64);
    let (commands, command_receiver) = mpsc::channel(256);
    let container = Some(id.clone());
    let keeper = Keeper {
        api: docker.api.clone(),
        id,
        clock: context.clock.clone(),
        stop_wait: context.stop_wait,
        journal,
        events: event_sender,
        commands: command_receiver,
        stopping: None,
        killed: false,
    };
    let (stdin, stdout, bridge) = match bridge {
        Some(Bridge { stdin: messages, stdout, task }) => {
            // Its own standard input stays open: it may end when that does.
            let kept = Some((stdin, task));
            (Box::new(messages) as Box<dyn AsyncWrite + Send + Unpin>, Box::new(stdout) as Box<_>, kept)
        }
        None => (stdin, read(stdout), None),
    };
    let task = tokio::spawn(async move {
        // These live as long as the keeper.
        let _kept = (proxy, bridge);
        keeper.run(pump).await;
    });
    let hello = Hello {
        pid: pid_of(state).unwrap_or(0),
        started_at: context.clock.now(),
        handed_over,
        // It ended while no agent was there. One that ends from now on is told by the keeper.
        ended: (handed_over > 0 && state.running == Some(false))
            .then(|| describe(state, false, String::new(), context.clock.now())),
    };
    let streams = Streams::Attached { stdin, stdout };
    Running { hello, streams, line: Line::new(events, commands, AbortOnDropHandle::new(task)), container }
}

/// Pieces of standard output as a stream to read from.
fn read(pieces: mpsc::Receiver<Bytes>) -> Box<dyn AsyncRead + Send + Unpin> {
    let pieces = futures_util::stream::unfold(pieces, |mut pieces| async move {
        let piece = pieces.recv().await?;
        Some((Ok::<_, io::Error>(piece), pieces))
    });
    Box::new(StreamReader::new(Box::pin(pieces)))
}

/// Carries what a container writes, until the stream ends. Without `stdout` that is no protocol and goes to the log.
async fn pump(mut output: Output, stdout: Option<mpsc::Sender<Bytes>>, journal: Shared) {
    let mut lines = LineSplitter::default();
    let mut noise = LineSplitter::default();
    while let Some(Ok(piece)) = output.next().await {
        match piece {
            // Nobody listens to a connection that was closed; the container must not wait for it.
            LogOutput::StdOut { message } | LogOutput::Console { message } => match &stdout {
                Some(stdout) => drop(stdout.send(message).await),
                None => noise.push(&message, |line| write(&journal, LogStream::Stdout, line)),
            },
            LogOutput::StdErr { message } => {
                lines.push(&message, |line| write(&journal, LogStream::Stderr, line));
            }
            LogOutput::StdIn { .. } => {}
        }
    }
    lines.finish(|line| write(&journal, LogStream::Stderr, line));
    noise.finish(|line| write(&journal, LogStream::Stdout, line));
}

/// How far stopping has come: when SIGTERM was sent, or that SIGKILL was.
#[derive(Clone, Copy, Debug)]
enum Stopping {
    Terminated(Instant),
    Killed,
}

struct Keeper {
    api: bollard::Docker,
    id: String,
    clock: Clock,
    stop_wait: Duration,
    journal: Shared,
    events: mpsc::Sender<ToAgent>,
    commands: mpsc::Receiver<ToSupervisor>,
    stopping: Option<Stopping>,
    /// It was we who ended it.
    killed: bool,
}

impl Keeper {
    async fn run(mut self, mut pump: AbortOnDropHandle<()>) {
        let mut exited = Box::pin(exited(self.api.clone(), self.id.clone()));
        let mut usage = Box::pin(self.measured());
        let mut streaming = true;
        loop {
            let deadline = self.deadline();
            tokio::select! {
                () = &mut exited => return self.ended(pump, streaming).await,
                command = self.commands.recv() => match command {
                    None => return,
                    Some(ToSupervisor::Stop) => self.stop().await,
                    Some(ToSupervisor::Log { stream, text }) => write(&self.journal, stream, &text),
                    Some(ToSupervisor::Done) => {}
                },
                () = until(deadline) => self.kill().await,
                measured = &mut usage => {
                    // Nobody listening means that the agent lets go, which ends the commands too.
                    let _ = self.events.try_send(ToAgent::Usage(measured));
                    usage.set(self.measured());
                }
                _ = &mut pump, if streaming => {
                    streaming = false;
                    let still = tokio::time::timeout(STREAM_GRACE, &mut exited).await.is_err();
                    if !still {
                        return self.ended(pump, false).await;
                    }
                    // It closed its output, or the stream broke; the one says so when it is attached again.
                    if self.stopping.is_none() {
                        return;
                    }
                }
            }
        }
    }

    fn measured(&self) -> impl Future<Output = Usage> + use<> {
        measured(self.api.clone(), self.id.clone(), self.clock.clone())
    }

    fn deadline(&self) -> Option<Instant> {
        match self.stopping {
            Some(Stopping::Terminated(at)) => Some(at + self.stop_wait),
            _ => None,
        }
    }

    async fn stop(&mut self) {
        if self.stopping.is_none() {
            write(&self.journal, LogStream::Toolyard, "stopping");
            self.killed = true;
            self.signal("SIGTERM").await;
            self.stopping = Some(Stopping::Terminated(Instant::now()));
        }
    }

    async fn kill(&mut self) {
        write(&self.journal, LogStream::Toolyard, "did not end on SIGTERM; killing it");
        self.stopping = Some(Stopping::Killed);
        self.signal("SIGKILL").await;
    }

    async fn signal(&self, signal: &str) {
        let options = KillContainerOptionsBuilder::new().signal(signal).build();
        if let Err(error) = short(&self.api).kill_container(&self.id, Some(options)).await {
            // It may have ended in between.
            tracing::debug!(container.id = self.id, signal, %error, "signal a container");
        }
    }

    async fn ended(mut self, pump: AbortOnDropHandle<()>, streaming: bool) {
        if streaming {
            // What it wrote last is on its way.
            let _ = tokio::time::timeout(LAST_WORDS, pump).await;
        }
        let state = match inspect(&self.api, &self.id).await {
            Ok(state) => state,
            Err(error) if is_missing(&error) => ContainerState::default(),
            Err(error) => {
                tracing::warn!(container.id = self.id, %error, "ask how a container ended");
                ContainerState::default()
            }
        };
        let ended = describe(&state, self.killed, self.tail(), self.clock.now());
        let how = match (ended.code, ended.signal) {
            (Some(code), _) => format!("ended with exit code {code}"),
            (None, Some(signal)) => format!("ended by signal {signal}"),
            (None, None) => "ended".to_owned(),
        };
        let why = match ended.killed {
            Some(Killed::Memory) => ": out of memory",
            Some(Killed::Disk) => ": too much on disk",
            Some(Killed::Asked) => ", as asked",
            _ => "",
        };
        write(&self.journal, LogStream::Toolyard, &format!("{how}{why}"));
        if self.events.send(ToAgent::Exited(ended)).await.is_err() {
            return;
        }
        while let Some(command) = self.commands.recv().await {
            match command {
                ToSupervisor::Done => break,
                ToSupervisor::Log { stream, text } => write(&self.journal, stream, &text),
                ToSupervisor::Stop => {}
            }
        }
        if let Err(error) = super::remove(&self.api, &self.id).await {
            tracing::warn!(container.id = self.id, %error, "remove a container that has ended");
        }
    }

    fn tail(&self) -> String {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner).tail.clone()
    }
}

/// How a container ended, as the engine tells and we know; `stderr_tail` is the last it wrote.
fn describe(state: &ContainerState, killed_by_us: bool, stderr_tail: String, at: Timestamp) -> Ended {
    let killed = match (state.oom_killed == Some(true), killed_by_us) {
        (true, _) => Some(Killed::Memory),
        (false, true) => Some(Killed::Asked),
        (false, false) => None,
    };
    let exit = state.exit_code;
    // Only where we know of the signal: a program may choose the same number for itself.
    let signal = exit.filter(|code| killed.is_some() && *code == SIGNALLED + i64::from(SIGKILL)).map(|_| SIGKILL);
    let code = exit.and_then(|code| i32::try_from(code).ok()).filter(|_| signal.is_none());
    let stderr_tail = match exit {
        Some(entry::INPUT_ENDED) if stderr_tail.is_empty() => "its environment did not arrive".to_owned(),
        _ => stderr_tail,
    };
    Ended { code, signal, at, killed, excess: None, stderr_tail }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Returns when a container no longer runs, however often the engine is asked.
async fn exited(api: bollard::Docker, id: String) {
    loop {
        let options = WaitContainerOptionsBuilder::new().condition("not-running").build();
        let mut waiting = Box::pin(api.wait_container(&id, Some(options)));
        if let Some(Ok(_) | Err(ApiError::DockerContainerWaitError { .. })) = waiting.next().await {
            return;
        }
        match inspect(&api, &id).await {
            Err(error) if is_missing(&error) => return,
            Ok(state) if state.running == Some(false) => return,
            // The engine is being restarted, or it answers late.
            Ok(_) | Err(_) => tokio::time::sleep(RETRY_EVERY).await,
        }
    }
}

async fn measured(api: bollard::Docker, id: String, clock: Clock) -> Usage {
    loop {
        tokio::time::sleep(MEASURE_EVERY).await;
        let options = StatsOptionsBuilder::new().stream(false).one_shot(true).build();
        let mut stats = Box::pin(api.stats(&id, Some(options)));
        let Ok(Some(Ok(stats))) = tokio::time::timeout(MEASURE_TIMEOUT, stats.next()).await else { continue };
        let memory = stats.memory_stats.unwrap_or_default();
        let used = memory.usage.unwrap_or_default();
        // What the kernel would give back at once is not the server's: by two names for two versions.
        let counts = memory.stats.unwrap_or_default();
        let cache = counts.get("total_inactive_file").or_else(|| counts.get("inactive_file")).copied();
        let cpu = stats.cpu_stats.and_then(|cpu| cpu.cpu_usage?.total_usage).unwrap_or_default();
        let processes = stats.pids_stats.and_then(|pids| pids.current).unwrap_or_default();
        return Usage {
            memory_bytes: used.saturating_sub(cache.unwrap_or_default()),
            cpu_ms: cpu / 1_000_000,
            // The first one is the engine's own.
            processes: u32::try_from(processes.saturating_sub(1)).unwrap_or(u32::MAX),
            at: clock.now(),
        };
    }
}
