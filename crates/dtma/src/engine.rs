//! What runs servers: processes below supervisors, or containers.
//!
//! An engine prepares what a lock names, starts one server, finds those that still run after the agent was
//! restarted, and tells how one ended. What is the same for all (the MCP connection, probing, restarts,
//! phases) is in `instance` and knows no engine: it sees the server's two streams and a [`Line`].

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use toolyard_mcp::stdio::{Connection, Options};
use toolyard_types::agent::{DesiredInstance, Failure};
use toolyard_types::spec::{Egress, Lock, Privilege, Runtime, Value};
use toolyard_types::state::Reason;
use toolyard_types::{CredentialId, InstanceId, Secret, ServerId, Timestamp};

use crate::agent::Context;
use crate::docker::{Docker, DockerOptions};
use crate::input::Input;
use crate::packages::{Prepared, failure};
use crate::process::wire::{Hello, ToAgent, ToSupervisor};
use crate::process::{end_leftovers, launch, order};

/// How many files a process of a server may have open. By all its processes (256 unless that is set) it has so about a
/// million of the host's, which take memory of the kernel.
pub(crate) const MAX_OPEN_FILES: u16 = 4096;
const DISMISS_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause between two looks at whether a container engine answers.
const LOOK_AT_ENGINE_EVERY: Duration = Duration::from_secs(10);

/// Which engine an agent uses.
#[derive(Clone, Debug, Default)]
pub enum EngineOptions {
    /// Processes on this host.
    #[default]
    Process,
    /// Containers, by the Docker Engine API.
    Docker(DockerOptions),
}

/// The wait of an agent that starts for an engine that does not answer: why it waits, and how that is ended.
#[derive(Clone, Debug, Default)]
pub struct EngineWait {
    why: watch::Sender<Option<String>>,
    given_up: CancellationToken,
}

impl EngineWait {
    /// Why the agent waits; `None` while it does not.
    #[must_use]
    pub fn why(&self) -> watch::Receiver<Option<String>> {
        self.why.subscribe()
    }

    /// Ends the wait: an agent that waits does not start. One whose engine answers does.
    pub fn give_up(&self) {
        self.given_up.cancel();
    }

    /// Notes why the agent waits, or that it does no more; whether that is news.
    pub(crate) fn note(&self, why: Option<String>) -> bool {
        self.why.send_if_modified(|known| {
            let differs = *known != why;
            *known = why;
            differs
        })
    }

    /// Waits until the agent waits and nobody wants that any more.
    pub(crate) async fn given_up(&self) {
        let mut why = self.why.subscribe();
        let _ = why.wait_for(Option::is_some).await;
        self.given_up.cancelled().await;
    }
}

/// An engine that works.
pub(crate) enum Engine {
    Process,
    Docker(Box<Docker>),
}

/// A running server and the line to what keeps it.
pub(crate) struct Running {
    /// What was said of it first.
    pub(crate) hello: Hello,
    /// Its standard input and output.
    pub(crate) streams: Streams,
    /// The line to its keeper.
    pub(crate) line: Line,
    /// The container it runs in, if it does.
    pub(crate) container: Option<String>,
}

/// A server's standard input and output.
pub(crate) enum Streams {
    /// Of a process.
    Pipes { stdin: OwnedFd, stdout: OwnedFd },
    /// Of a container.
    Attached { stdin: Box<dyn AsyncWrite + Send + Unpin>, stdout: Box<dyn AsyncRead + Send + Unpin> },
}

impl Streams {
    /// Speaks MCP over them with the server of the instance in `dir`.
    ///
    /// # Errors
    /// When a pipe cannot be watched.
    pub(crate) fn open(self, dir: &Path, options: Options) -> std::io::Result<Connection> {
        let resumed = options.resumed;
        Ok(match self {
            Streams::Pipes { stdin, stdout } => {
                let stdin = pipe::Sender::from_owned_fd(stdin)?;
                let stdout = pipe::Receiver::from_owned_fd(stdout)?;
                Connection::open(stdout, Input::new(stdin, dir, resumed), options)
            }
            Streams::Attached { stdin, stdout } => Connection::open(stdout, Input::new(stdin, dir, resumed), options),
        })
    }

    /// Reads what a server that has ended left unread.
    ///
    /// # Errors
    /// When a pipe cannot be watched.
    pub(crate) fn read_rest(self, options: Options) -> std::io::Result<Connection> {
        Ok(match self {
            // There is no input any more to be written to.
            Streams::Pipes { stdout, .. } => {
                Connection::open(pipe::Receiver::from_owned_fd(stdout)?, tokio::io::sink(), options)
            }
            Streams::Attached { stdout, .. } => Connection::open(stdout, tokio::io::sink(), options),
        })
    }
}

/// The line to a server's keeper: its supervisor, or the task that watches its container. Dropping it leaves
/// the server running.
#[derive(Debug)]
pub(crate) struct Line {
    /// What the keeper tells; ends when the keeper is gone.
    pub(crate) events: mpsc::Receiver<ToAgent>,
    /// What is asked of it. Full means a flood of log lines, which may lose some.
    pub(crate) commands: mpsc::Sender<ToSupervisor>,
    _task: AbortOnDropHandle<()>,
}

impl Line {
    pub(crate) fn new(
        events: mpsc::Receiver<ToAgent>,
        commands: mpsc::Sender<ToSupervisor>,
        task: AbortOnDropHandle<()>,
    ) -> Self {
        Self { events, commands, _task: task }
    }

    /// Tells the keeper that the exit was seen, and waits until it has cleaned up.
    pub(crate) async fn dismiss(&mut self) {
        if self.commands.send(ToSupervisor::Done).await.is_ok() {
            let gone = async { while self.events.recv().await.is_some() {} };
            let _ = tokio::time::timeout(DISMISS_TIMEOUT, gone).await;
        }
    }
}

/// Whether something is made of a lock, by its digest.
pub(crate) type NeedsLock<'a> = dyn Fn(&str) -> bool + Send + Sync + 'a;

/// Whether an instance is known, or with none named whether any is.
pub(crate) type Known<'a> = dyn Fn(Option<InstanceId>) -> bool + Send + Sync + 'a;

/// Takes what a step has to tell while it works, or what it has to write down.
pub(crate) type Progress<'a> = &'a (dyn Fn(&str) + Send + Sync);

impl Context {
    /// Turns a package or an image into a full lock.
    ///
    /// # Errors
    /// When there is no such thing, or it cannot be run here.
    pub(crate) async fn resolve(
        &self,
        runtime: &Runtime,
        secrets: &BTreeMap<CredentialId, Secret>,
        progress: Progress<'_>,
        log: Progress<'_>,
    ) -> Result<Lock, Failure> {
        match (&self.engine, runtime) {
            (Engine::Docker(docker), Runtime::Oci(package)) => docker.resolve(package, secrets).await,
            _ => self.store.resolve(runtime, progress, log).await,
        }
    }

    /// Makes sure that exactly what the lock names is here.
    ///
    /// # Errors
    /// When it cannot be had, or not be run here.
    pub(crate) async fn prepare(
        &self,
        desired: &DesiredInstance,
        progress: Progress<'_>,
        log: Progress<'_>,
    ) -> Result<Prepared, Failure> {
        let Some(lock) = &desired.lock else {
            return Err(failure(Reason::UnsupportedByEngine, "the revision has no lock to install from"));
        };
        let egress = match (&self.engine, &desired.spec.egress) {
            (Engine::Docker(_), _) | (_, Egress::All) => Ok(()),
            (Engine::Process, Egress::None) if self.enforces("egress_none") => Ok(()),
            (Engine::Process, Egress::None) => Err("this host gives servers no network of their own"),
            (Engine::Process, Egress::Hosts { .. }) => Err(
                "the process engine cannot limit whom a server reaches to hosts; it needs a toolbox with containers",
            ),
        };
        egress.map_err(|message| failure(Reason::UnsupportedByEngine, message))?;
        if matches!(self.engine, Engine::Docker(_)) && desired.spec.privileges.contains(&Privilege::NewNamespaces) {
            let message = "the seccomp profile of containers refuses new namespaces; it needs a toolbox with processes";
            return Err(failure(Reason::UnsupportedByEngine, message));
        }
        if matches!(self.engine, Engine::Process) && !desired.spec.volumes.is_empty() {
            let message = "the process engine keeps no volumes; it needs a toolbox with containers";
            return Err(failure(Reason::UnsupportedByEngine, message));
        }
        match (&self.engine, &desired.spec.runtime) {
            (Engine::Docker(docker), Runtime::Oci(package)) => {
                docker.prepare(package, lock, &self.secrets(desired)?, progress).await
            }
            (_, runtime) => self.store.prepare(runtime, lock, progress, log).await,
        }
    }

    /// Looks whether what is prepared would be started now, as far as that shows before it is.
    ///
    /// # Errors
    /// Why it would not.
    pub(crate) async fn check(
        &self,
        desired: &DesiredInstance,
        dir: &Path,
        prepared: &Prepared,
    ) -> Result<(), Failure> {
        match &self.engine {
            Engine::Process => order::order(self, desired, dir, prepared).await.map(drop),
            Engine::Docker(docker) => docker.check(self, desired, prepared).await,
        }
    }

    /// Starts a server.
    ///
    /// # Errors
    /// When it does not run.
    pub(crate) async fn start(
        &self,
        desired: &DesiredInstance,
        dir: &Path,
        prepared: &Prepared,
    ) -> Result<Running, Failure> {
        match &self.engine {
            Engine::Process => {
                let order = order::order(self, desired, dir, prepared).await?;
                order::note_ports(&order)
                    .map_err(|error| failure(Reason::EngineUnavailable, format!("note its ports: {error}")))?;
                let running = launch::launch(&self.supervisor, order).await;
                running.map_err(|error| failure(Reason::EngineUnavailable, crate::instance::chain(&error)))
            }
            Engine::Docker(docker) => docker.start(self, desired, dir, prepared).await,
        }
    }

    /// Goes on with a server that runs already, if it does.
    pub(crate) async fn take_over(&self, desired: &DesiredInstance, dir: &Path) -> Option<Running> {
        match &self.engine {
            Engine::Process => launch::take_over(dir).await,
            Engine::Docker(docker) => docker.take_over(self, desired, dir).await,
        }
    }

    /// Toolyard's own ports that a server which runs already reaches and should not. What a container reaches does not
    /// depend on when it was started.
    pub(crate) fn open_ports(&self, desired: &DesiredInstance, dir: &Path) -> Vec<u16> {
        match &self.engine {
            Engine::Process => order::open_ports(self, desired, dir),
            Engine::Docker(_) => Vec::new(),
        }
    }

    /// What a person should know of the paths of a server that runs: those that it, or another revision, would not get again.
    pub(crate) async fn remark(&self, desired: &DesiredInstance) -> String {
        let uid = self.enforces("own_uid").then(|| self.uid_of(desired).ok()).flatten();
        let mut remarks = vec![self.grants.remark(desired, uid).await];
        if let Engine::Docker(docker) = &self.engine {
            remarks.push(docker.remark(desired).await);
        }
        remarks.retain(|remark| !remark.is_empty());
        remarks.join("; ")
    }

    /// Ends what a server without its keeper left behind; returns when nothing of it runs.
    pub(crate) async fn end_leftovers(&self, id: InstanceId, dir: &Path) {
        match &self.engine {
            // With namespaces the kernel did it.
            Engine::Process if self.enforces("namespaces") => {}
            Engine::Process => {
                let dir = dir.to_owned();
                let ended = tokio::task::spawn_blocking(move || end_leftovers(&dir)).await;
                if let Err(error) = ended {
                    tracing::error!(instance.id = %id, %error, "end what a killed supervisor left");
                }
            }
            Engine::Docker(docker) => docker.end_leftovers(id).await,
        }
    }

    /// [`Self::end_leftovers`] of what is not to be started again. Containers are found by their labels later.
    pub(crate) async fn end_process_leftovers(&self, id: InstanceId) {
        if matches!(self.engine, Engine::Process) {
            self.end_leftovers(id, &self.instance_dir(id)).await;
        }
    }

    /// Removes what the engine keeps for us beside servers, when every server was stopped.
    pub(crate) async fn leave_nothing(&self) {
        if let Engine::Docker(docker) = &self.engine {
            docker.leave_nothing(&|| false).await;
        }
    }

    /// Removes what belongs to no instance that is `known` when it is found, and to no lock that is needed then, and is not in
    /// the package store.
    pub(crate) async fn collect_engine_garbage(&self, known: &Known<'_>, is_needed: &NeedsLock<'_>) {
        if let Engine::Docker(docker) = &self.engine {
            docker.collect_garbage(known, is_needed).await;
            docker.collect_volumes(&|server| self.keeps_volumes_of(server)).await;
        }
    }

    /// Looks whether the engine answers, now and then, and tells each time; ends where there is none that could not.
    pub(crate) async fn watch_engine(&self, tell: impl Fn(Timestamp, Result<(), String>)) {
        let Engine::Docker(docker) = &self.engine else { return };
        loop {
            tokio::time::sleep(LOOK_AT_ENGINE_EVERY).await;
            let asked_at = self.clock.now();
            tell(asked_at, docker.answers().await);
        }
    }

    /// Whether a server is known to exist, or may.
    fn keeps_volumes_of(&self, server: ServerId) -> bool {
        let Some(desired) = self.desired().filter(|_| self.is_current.load(Ordering::Acquire)) else { return true };
        desired.keep_volumes.as_ref().is_none_or(|kept| kept.contains(&server))
            || desired.instances.iter().any(|instance| instance.server == server)
    }
}

/// A value with its secrets in it.
///
/// # Errors
/// When one is missing.
pub(crate) fn render(value: &Value, secrets: &BTreeMap<CredentialId, Secret>) -> Result<Secret, Failure> {
    let rendered = value.render(|id| secrets.get(&id).map(Secret::expose)).map(Secret::new);
    rendered.ok_or_else(|| failure(Reason::CredentialMissing, "a required secret is not bound"))
}
