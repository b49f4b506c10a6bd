//! An agent for tests: speaks the sync wire to the real agent router, and runs nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use toolyard_control::{AgentIdentity, Control};
use toolyard_types::agent::{
    Desired, DesiredInstance, Enforcement, Era, Exit, Failure, JobResult, McpInfo, Observed, ObservedInstance,
    SyncRequest, SyncResponse, ToolboxReport, Usage,
};
use toolyard_types::spec::Lock;
use toolyard_types::state::{Phase, Reason, Status};
use toolyard_types::{InstanceId, RevisionId, Timestamp, ToolboxId};
use tower::ServiceExt;

/// How an instance behaves once it should run.
#[derive(Clone, Debug)]
pub(crate) enum Behaviour {
    /// Answers the probe.
    Ready,
    /// Answers the probe, and lists these tools.
    Lists(&'static [&'static str]),
    /// Answered, and does no longer.
    Degrades(Reason, &'static str),
    /// Ended while it started, and is to be started again.
    CrashesAtStart(&'static str),
    /// Answers, after having ended and been started again.
    Restarted,
    /// Answers calls, and missed a probe.
    MissedProbe,
    /// Never answers.
    Hangs,
    /// Cannot run; with what it wrote to standard error.
    Fails(Reason, &'static str, &'static str),
    /// Cannot run, which shows already while it is prepared.
    Refuses(Reason, &'static str),
}

/// What the agent knows and did.
pub(crate) struct State {
    pub(crate) generation: u64,
    pub(crate) desired: Desired,
    pub(crate) instances: BTreeMap<InstanceId, ObservedInstance>,
    jobs: Vec<JobResult>,
    /// What it did, in order: `prepare s@1`, `run s@1`, `stop s@1`.
    pub(crate) deeds: Vec<String>,
    names: BTreeMap<InstanceId, String>,
    behaviours: Vec<(String, Behaviour)>,
    resolves: Result<(), Failure>,
    enforcement: BTreeMap<String, Enforcement>,
    grantable: Option<Vec<String>>,
    granted_before: BTreeSet<RevisionId>,
    /// Whether ended instances are told as ended; else they stay `stopping`.
    pub(crate) ends: bool,
    /// Whether it tells with which secrets processes were started; an agent of an earlier version does not.
    tells_secrets: bool,
}

/// A running agent; it ends when dropped.
pub(crate) struct FakeAgent {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for FakeAgent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeAgent {
    /// The agent of the built-in toolbox.
    pub(crate) async fn local(control: &Control) -> Self {
        let toolbox = control.local_toolbox().await.expect("the store answers").expect("there is one");
        Self::start(control, toolbox)
    }

    /// The agent of a toolbox.
    pub(crate) fn start(control: &Control, toolbox: ToolboxId) -> Self {
        let state = State {
            generation: 0,
            desired: Desired::default(),
            instances: BTreeMap::new(),
            jobs: Vec::new(),
            deeds: Vec::new(),
            names: BTreeMap::new(),
            behaviours: Vec::new(),
            resolves: Ok(()),
            enforcement: BTreeMap::new(),
            grantable: None,
            granted_before: BTreeSet::new(),
            ends: true,
            tells_secrets: true,
        };
        let (state, changed) = (Arc::new(Mutex::new(state)), Arc::new(Notify::new()));
        let task = tokio::spawn(run(control.agent_router(), toolbox, Arc::clone(&state), Arc::clone(&changed)));
        Self { state, changed, task }
    }

    /// Goes on with another control plane, as an agent does when the first was restarted.
    pub(crate) fn continue_with(&self, control: &Control, toolbox: ToolboxId) -> Self {
        self.task.abort();
        let (state, changed) = (Arc::clone(&self.state), Arc::clone(&self.changed));
        let task = tokio::spawn(run(control.agent_router(), toolbox, Arc::clone(&state), Arc::clone(&changed)));
        Self { state, changed, task }
    }

    /// Is not heard any more, and runs on what it has.
    pub(crate) fn vanish(&self) {
        self.task.abort();
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds it")
    }

    /// From now on `what` (`server@revision`, or a server) behaves so.
    pub(crate) fn behave(&self, what: &str, behaviour: Behaviour) {
        let mut state = self.state();
        state.behaviours.retain(|(name, _)| name != what);
        state.behaviours.push((what.to_owned(), behaviour));
        let ids: Vec<_> = state.desired.instances.clone();
        for instance in ids {
            progress(&mut state, &instance);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// From now on it tells that it can keep volumes.
    pub(crate) fn keep_volumes(&self) {
        self.can("volumes");
    }

    /// From now on it tells that it can do this.
    pub(crate) fn can(&self, what: &str) {
        let can = Enforcement { enforced: true, detail: "for tests".to_owned() };
        self.state().enforcement.insert(what.to_owned(), can);
        self.changed.notify_one();
    }

    /// From now on it tells that these paths of its host may be granted, and no others but to what runs there now.
    pub(crate) fn grants(&self, paths: &[&str]) {
        let mut state = self.state();
        state.grantable = Some(paths.iter().map(|path| (*path).to_owned()).collect());
        state.granted_before = state.desired.instances.iter().map(|instance| instance.revision).collect();
        drop(state);
        self.changed.notify_one();
    }

    /// From now on resolving fails.
    pub(crate) fn refuse_to_resolve(&self, reason: Reason, message: &str) {
        self.state().resolves = Err(Failure { reason, message: message.to_owned() });
    }

    /// What it did, in order.
    pub(crate) fn deeds(&self) -> Vec<String> {
        self.state().deeds.clone()
    }

    /// Every instance uses this much from now on, as measured at `at`.
    pub(crate) fn uses(&self, memory_bytes: u64, cpu_ms: u64, at: Timestamp) {
        for instance in self.state().instances.values_mut() {
            instance.usage = Some(Usage { memory_bytes, cpu_ms, processes: 2, at });
        }
        self.changed.notify_one();
    }

    /// The instances of a server answered at `at`.
    pub(crate) fn answered(&self, server: &str, at: Timestamp) {
        let mut state = self.state();
        let prefix = format!("{server}@");
        let ids: Vec<_> = state.names.iter().filter(|(_, name)| name.starts_with(&prefix)).map(|(id, _)| *id).collect();
        for instance in state.instances.values_mut().filter(|it| ids.contains(&it.id)) {
            instance.last_success_at = Some(at);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// From now on it does not tell with which secrets it starts processes, as an agent of an earlier version.
    pub(crate) fn tell_no_secrets(&self) {
        self.state().tells_secrets = false;
    }

    /// Whether it has these versions of the secrets of a server's instances, for when they are started next.
    pub(crate) fn has_secrets(&self, server: &str, version: u32) -> bool {
        let state = self.state();
        let of_it: Vec<_> = state.desired.instances.iter().filter(|it| it.server_name.as_str() == server).collect();
        !of_it.is_empty() && of_it.iter().all(|it| it.secret_versions.values().all(|it| *it == version))
    }

    /// At most so many instances of a server end by themselves and are started again, with the secrets that they should
    /// have now.
    pub(crate) fn crash(&self, server: &str, most: usize) {
        let mut state = self.state();
        let wanted = state.desired.instances.clone();
        for wanted in wanted.into_iter().filter(|it| it.server_name.as_str() == server).take(most) {
            if let Some(instance) = state.instances.get_mut(&wanted.id) {
                instance.secret_versions = wanted.secret_versions;
            }
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Lets stopping instances end, or not.
    pub(crate) fn let_end(&self, ends: bool) {
        let mut state = self.state();
        state.ends = ends;
        if ends {
            for instance in state.instances.values_mut().filter(|it| it.status.phase == Phase::Stopping) {
                instance.status = Status::new(Phase::Stopped, Reason::Requested, "", at());
            }
        }
        drop(state);
        self.changed.notify_one();
    }
}

fn at() -> Timestamp {
    Timestamp::from_ms(1_800_000_000_000)
}

async fn run(router: axum::Router, toolbox: ToolboxId, state: Arc<Mutex<State>>, changed: Arc<Notify>) {
    loop {
        let (request, reported) = {
            let state = state.lock().expect("not poisoned");
            let ended: Vec<_> = state
                .instances
                .iter()
                .filter(|(_, instance)| instance.status.phase == Phase::Stopped)
                .map(|(id, _)| *id)
                .collect();
            (request(&state), ended)
        };
        let mut sent = Request::post("/dtma/v1/sync").body(Body::from(request)).expect("a request");
        sent.extensions_mut().insert(AgentIdentity(toolbox));
        let answer = tokio::select! {
            answer = ask(&router, sent) => answer,
            () = changed.notified() => continue,
        };
        let Some(answer) = answer else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let mut state = state.lock().expect("not poisoned");
        state.instances.retain(|id, _| !reported.contains(id));
        if let Some(desired) = answer.desired.filter(|desired| desired.generation >= state.generation) {
            apply(&mut state, desired);
        }
    }
}

async fn ask(router: &axum::Router, request: Request<Body>) -> Option<SyncResponse> {
    let response = router.clone().oneshot(request).await.expect("the router answers");
    let success = response.status().is_success();
    let body = response.into_body().collect().await.ok()?.to_bytes();
    success.then(|| serde_json::from_slice(&body).expect("a sync answer"))
}

fn request(state: &State) -> String {
    let runtimes = [("node", "22.0.0"), ("python", "3.12.0")];
    let toolbox = ToolboxReport {
        engine: "process".into(),
        platform: "linux-x86_64".into(),
        runtimes: runtimes.into_iter().map(|(name, version)| (name.to_owned(), version.to_owned())).collect(),
        enforcement: state.enforcement.clone(),
        grantable_paths: state.grantable.clone(),
        granted_before: state.granted_before.clone(),
        capacity: None,
        engine_failure: None,
        environment: None,
    };
    let request = SyncRequest {
        protocol_min: 1,
        protocol_max: 1,
        agent_version: "0.1.0".into(),
        generation: state.generation,
        observed: Observed {
            toolbox,
            instances: state.instances.values().cloned().collect(),
            jobs: state.jobs.clone(),
            job_progress: Vec::new(),
        },
    };
    serde_json::to_string(&request).expect("it serialises")
}

fn apply(state: &mut State, desired: Desired) {
    state.generation = desired.generation;
    state.jobs.retain(|done| desired.jobs.iter().any(|job| job.id == done.id));
    for job in &desired.jobs {
        if !state.jobs.iter().any(|done| done.id == job.id) {
            let package = job.runtime.package().expect("only packages are resolved");
            let content = format!("{} {}", package.identifier, package.version);
            let digest: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
            let lock = Lock { digest: format!("sha256:{digest}"), version: "1.2.3".into(), content };
            state.jobs.push(JobResult { id: job.id, outcome: state.resolves.clone().map(|()| lock) });
        }
    }
    for instance in &desired.instances {
        progress(state, instance);
    }
    let gone: Vec<_> = state
        .instances
        .keys()
        .filter(|id| !desired.instances.iter().any(|instance| instance.id == **id))
        .copied()
        .collect();
    for id in gone {
        let ends = state.ends;
        let told = state.instances.get_mut(&id).expect("it was listed");
        if !matches!(told.status.phase, Phase::Stopped | Phase::Stopping) {
            let phase = if ends { Phase::Stopped } else { Phase::Stopping };
            told.status = Status::new(phase, Reason::Requested, "", at());
            let name = state.names.get(&id).cloned().unwrap_or_default();
            state.deeds.push(format!("stop {name}"));
        }
    }
    state.desired = desired;
}

fn progress(state: &mut State, wanted: &DesiredInstance) {
    let name = format!("{}@{}", wanted.server_name, wanted.revision_number);
    let behaviour = state
        .behaviours
        .iter()
        .rev()
        .find(|(what, _)| *what == name || *what == wanted.server_name.as_str())
        .map_or(Behaviour::Ready, |(_, behaviour)| behaviour.clone());
    let tool_names: Vec<String> = match behaviour {
        Behaviour::Lists(names) => names.iter().map(|name| (*name).to_owned()).collect(),
        _ => vec!["a".into()],
    };
    let restarts = u32::from(matches!(behaviour, Behaviour::Restarted));
    let failures = u32::from(matches!(behaviour, Behaviour::MissedProbe));
    let (status, exit) = match behaviour {
        Behaviour::Refuses(reason, message) => (Status::new(Phase::Failed, reason, message, at()), None),
        _ if !wanted.run => (Status::new(Phase::Pending, Reason::Requested, "prepared", at()), None),
        Behaviour::Ready | Behaviour::Lists(_) | Behaviour::MissedProbe => {
            (Status::new(Phase::Ready, Reason::Answered, "", at()), None)
        }
        Behaviour::Restarted => {
            let exit = Exit { code: Some(3), signal: None, at: at(), stderr_tail: String::new(), failure: None };
            (Status::new(Phase::Ready, Reason::Answered, "", at()), Some(exit))
        }
        Behaviour::Degrades(reason, message) => (Status::new(Phase::Degraded, reason, message, at()), None),
        Behaviour::CrashesAtStart(stderr) => {
            let mut status = Status::new(Phase::Starting, Reason::Exited, "it ended by itself with exit code 1", at());
            status.next_attempt_at = Some(at());
            (
                status,
                Some(Exit { code: Some(1), signal: None, at: at(), stderr_tail: stderr.to_owned(), failure: None }),
            )
        }
        Behaviour::Hangs => (Status::new(Phase::Starting, Reason::AwaitingProbe, "waiting for the answer", at()), None),
        Behaviour::Fails(reason, message, stderr) => {
            let exit = Exit { code: Some(1), signal: None, at: at(), stderr_tail: stderr.to_owned(), failure: None };
            (Status::new(Phase::Failed, reason, message, at()), Some(exit))
        }
    };
    let deed = format!("{} {name}", if wanted.run { "run" } else { "prepare" });
    let before = state.instances.get(&wanted.id);
    let began = before.is_none_or(|told| wanted.run && told.status.message == "prepared");
    let secret_versions = match before.filter(|_| !began) {
        Some(told) => told.secret_versions.clone(),
        None if wanted.run && state.tells_secrets => wanted.secret_versions.clone(),
        None => BTreeMap::new(),
    };
    if began {
        state.deeds.push(deed);
    }
    state.names.insert(wanted.id, name);
    let mcp = McpInfo {
        era: Era::Legacy,
        protocol_version: "2025-11-25".into(),
        server_name: "fake".into(),
        server_version: "1".into(),
        tools: u32::try_from(tool_names.len()).expect("a few"),
        tool_names,
    };
    let ready = matches!(status.phase, Phase::Ready | Phase::Degraded);
    state.instances.insert(
        wanted.id,
        ObservedInstance {
            id: wanted.id,
            status,
            pid: ready.then_some(4711),
            ready_since: ready.then(at),
            restarts,
            exit,
            mcp: ready.then_some(mcp),
            usage: None,
            container_id: None,
            last_success_at: None,
            failures,
            copies: 0,
            secret_versions,
        },
    );
}
