//! A host with an agent on it, and the control plane on the other side.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing::post};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value as Json_, json};
use tokio::sync::watch;
use toolyard_dtma::{Agent, AgentOptions, DockerOptions, EngineOptions, GrantablePaths, PackageClients};
use toolyard_link::{Body, frames};
use toolyard_testkit::fixture;
use toolyard_testkit::npm_registry::{NpmPackage, NpmRegistry};
use toolyard_types::agent::{
    Desired, DesiredInstance, Failure, JobResult, Listeners, LogLine, Observed, ObservedInstance, ResolveJob,
    SyncRequest, SyncResponse,
};
use toolyard_types::spec::{Egress, Limits, Lock, Package, RevisionSpec, Runtime, Strategy, Value};
use toolyard_types::state::Phase;
use toolyard_types::{
    Clock, Code, CredentialId, InstanceId, JobId, Name, OrganizationId, Problem, RevisionId, Secret, ServerId,
    Timestamp, ToolboxId,
};
use tower::ServiceExt;

/// Longest time anything here may take; a state that is not reached by then fails the test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The control plane as far as an agent sees it.
pub(crate) struct Control {
    desired: watch::Sender<Desired>,
    observed: watch::Sender<Observed>,
    /// Where gateways are, as agents are told with the next answer.
    pub(crate) links: Mutex<Vec<String>>,
    /// Where the control plane listens, as agents are told with the next answer.
    pub(crate) listeners: Mutex<Option<Listeners>>,
    /// Why agents are refused, if they are.
    refusal: watch::Sender<Option<Code>>,
    toolbox: ToolboxId,
}

async fn sync(State(control): State<Arc<Control>>, Json(request): Json<SyncRequest>) -> Response {
    let mut refusal = control.refusal.subscribe();
    let refused = async {
        let code = refusal.wait_for(Option::is_some).await.map(|code| *code);
        match code {
            Ok(Some(code)) => code,
            _ => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        code = refused => {
            control.observed.send_replace(request.observed);
            let status = StatusCode::from_u16(code.status()).expect("the table has statuses");
            (status, Json(Problem::new(code, "refused by the test"))).into_response()
        }
        answer = answer(&control, &request) => answer.into_response(),
    }
}

async fn answer(control: &Control, request: &SyncRequest) -> Json<SyncResponse> {
    let mut desired = control.desired.subscribe();
    let before = control.observed.send_replace(request.observed.clone());
    let news = before.jobs.len() != request.observed.jobs.len() || before.instances != request.observed.instances;
    let newer = desired.wait_for(|desired| desired.generation != request.generation);
    let hold = if news { Duration::ZERO } else { Duration::from_secs(25) };
    let desired = tokio::time::timeout(hold, newer)
        .await
        .ok()
        .map(|desired| desired.expect("the control plane lives as long as its agents").clone());
    let links = control.links.lock().expect("no test panics while it holds it").clone();
    let listeners = control.listeners.lock().expect("no test panics while it holds it").clone();
    let environment = Some("production".into());
    Json(SyncResponse { protocol: 1, toolbox: control.toolbox, desired, links, environment, listeners })
}

/// A host.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) control: Arc<Control>,
    pub(crate) registry: NpmRegistry,
    pub(crate) clock: Clock,
    pub(crate) grace: Duration,
    /// Where Toolyard listens, as far as the agent is told.
    pub(crate) own_ports: Vec<u16>,
    engine: EngineOptions,
    agent: Option<Agent>,
    router: Router,
}

impl Drop for World {
    /// Containers outlive their agent; not their test.
    fn drop(&mut self) {
        let Ok(agent) = std::fs::read_to_string(self.data_dir().join("agent.id")) else { return };
        self.agent = None;
        let filter = format!("label=dev.toolyard.agent={agent}");
        for (list, remove) in [("ps --all --quiet", "rm --force"), ("network ls --quiet", "network rm")] {
            let found = docker_command().args(list.split(' ')).args(["--filter", &filter]).output();
            let found = found.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
            for id in found.split_whitespace() {
                let _ = docker_command().args(remove.split(' ')).arg(id).output();
            }
        }
    }
}

impl World {
    /// A host with an agent whose npm knows only the fixture package.
    pub(crate) async fn new() -> Self {
        Self::with_packages(vec![fixture::package()]).await
    }

    pub(crate) async fn with_packages(packages: Vec<NpmPackage>) -> Self {
        Self::with_engine(EngineOptions::Process, packages).await
    }

    /// A host whose agent runs containers.
    pub(crate) async fn docker() -> Self {
        Self::docker_with(vec![fixture::package()]).await
    }

    pub(crate) async fn docker_with(packages: Vec<NpmPackage>) -> Self {
        let options = DockerOptions { host: Some(docker_host()), ..DockerOptions::default() };
        Self::with_engine(EngineOptions::Docker(options), packages).await
    }

    pub(crate) async fn with_engine(engine: EngineOptions, packages: Vec<NpmPackage>) -> Self {
        let registry = NpmRegistry::start(packages).await.expect("a registry");
        let desired = Desired { generation: 1, lease_until: in_a_day(), ..Desired::default() };
        let control = Control {
            desired: watch::Sender::new(desired),
            observed: watch::Sender::new(Observed::default()),
            links: Mutex::default(),
            listeners: Mutex::default(),
            refusal: watch::Sender::new(None),
            toolbox: ToolboxId::generate(),
        };
        let mut world = Self {
            dir: tempfile::tempdir().expect("a directory"),
            control: Arc::new(control),
            registry,
            clock: Clock::system(),
            grace: Duration::from_secs(4),
            own_ports: Vec::new(),
            engine,
            agent: None,
            router: Router::new(),
        };
        world.start_agent().await;
        world
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("dtma")
    }

    /// What servers here may be granted.
    pub(crate) fn shared_dir(&self) -> PathBuf {
        let dir = self.dir.path().join("shared");
        std::fs::create_dir_all(&dir).expect("made");
        dir
    }

    pub(crate) fn instance_dir(&self, id: InstanceId) -> PathBuf {
        self.data_dir().join("instances").join(id.to_string())
    }

    pub(crate) fn options(&self) -> AgentOptions {
        let mut clients = clients();
        clients.environment.insert("npm_config_registry".into(), self.registry.url());
        clients.environment.insert("npm_config_fetch_retries".into(), "0".into());
        let cache = self.dir.path().join("npm-cache");
        clients.environment.insert("npm_config_cache".into(), cache.to_string_lossy().into_owned());
        let control = Router::new().route("/dtma/v1/sync", post(sync)).with_state(Arc::clone(&self.control));
        AgentOptions {
            toolbox: self.control.toolbox,
            data_dir: self.data_dir(),
            control: toolyard_link::in_process(control),
            engine: self.engine.clone(),
            engine_wait: toolyard_dtma::EngineWait::default(),
            supervisor_exe: supervisor(),
            clients,
            orphan_grace: self.grace,
            stop_wait: Duration::from_millis(500),
            hang_wait: AgentOptions::DEFAULT_HANG_WAIT,
            grantable_paths: GrantablePaths { roots: vec![path_text(&self.shared_dir())], ..GrantablePaths::default() },
            server_uids: Some(2_100_000_000..=2_100_065_535),
            own_ports: self.own_ports.clone(),
            room: toolyard_mcp::Room::default(),
            version: "0.0.0-test".into(),
            environment: "development".into(),
            clock: self.clock.clone(),
        }
    }

    pub(crate) async fn start_agent(&mut self) {
        self.start_agent_with(self.options()).await;
    }

    pub(crate) async fn start_agent_with(&mut self, options: AgentOptions) {
        self.control.observed.send_replace(Observed::default());
        let agent = Agent::start(options).await.expect("an agent");
        self.router = agent.router();
        self.agent = Some(agent);
    }

    /// Another agent, which lets servers that have no calls hang for no longer than this.
    pub(crate) async fn restart_agent_that_waits(&mut self, hang_wait: Duration) {
        self.drop_agent();
        self.start_agent_with(AgentOptions { hang_wait, ..self.options() }).await;
    }

    /// What a crash of the agent looks like to its supervisors.
    pub(crate) fn drop_agent(&mut self) {
        self.agent = None;
        self.router = Router::new();
    }

    pub(crate) fn agent(&mut self) -> Agent {
        self.router = Router::new();
        self.agent.take().expect("an agent")
    }

    /// The API, as a gateway may hold it beyond the agent's end.
    pub(crate) fn router(&self) -> Router {
        self.router.clone()
    }

    /// Where its agent makes links.
    pub(crate) fn links(&self) -> watch::Receiver<Vec<String>> {
        self.agent.as_ref().expect("an agent").links()
    }

    pub(crate) fn report(&self) -> &toolyard_types::agent::ToolboxReport {
        self.agent.as_ref().expect("an agent").report()
    }

    /// Has the control plane refuse its agent, or not any more.
    pub(crate) fn refuse(&self, code: Option<Code>) {
        self.control.refusal.send_replace(code);
    }

    /// The host with another control plane, which knows it as another toolbox and has desired little yet.
    pub(crate) fn belong_to_another(&mut self) {
        self.control = Arc::new(Control {
            desired: watch::Sender::new(Desired { generation: 1, lease_until: in_a_day(), ..Desired::default() }),
            observed: watch::Sender::new(Observed::default()),
            links: Mutex::default(),
            listeners: Mutex::default(),
            refusal: watch::Sender::new(None),
            toolbox: ToolboxId::generate(),
        });
    }

    /// Changes what is desired.
    pub(crate) fn desire(&self, change: impl FnOnce(&mut Desired)) {
        self.control.desired.send_modify(|desired| {
            desired.generation += 1;
            change(desired);
        });
    }

    /// Waits until what was observed satisfies `wanted`, and returns what it found.
    pub(crate) async fn observe<T>(&self, what: &str, mut wanted: impl FnMut(&Observed) -> Option<T>) -> T {
        let mut observed = self.control.observed.subscribe();
        let found = async {
            loop {
                if let Some(found) = wanted(&observed.borrow_and_update()) {
                    return found;
                }
                observed.changed().await.expect("the control plane lives as long as the test");
            }
        };
        let found = tokio::time::timeout(PATIENCE, found).await;
        found.unwrap_or_else(|_| panic!("{what}; observed: {:#?}", self.control.observed.borrow().instances))
    }

    /// Waits until an instance is in a phase.
    pub(crate) async fn phase(&self, id: InstanceId, phase: Phase) -> ObservedInstance {
        self.observed(&format!("{id} is {phase}"), id, |instance| instance.status.phase == phase).await
    }

    pub(crate) async fn observed(
        &self,
        what: &str,
        id: InstanceId,
        wanted: impl Fn(&ObservedInstance) -> bool,
    ) -> ObservedInstance {
        let find = |observed: &Observed| observed.instances.iter().find(|i| i.id == id && wanted(i)).cloned();
        self.observe(what, find).await
    }

    pub(crate) async fn gone(&self, id: InstanceId) {
        self.observe(&format!("{id} is gone"), |observed| {
            observed.instances.iter().all(|instance| instance.id != id).then_some(())
        })
        .await;
    }

    pub(crate) async fn resolve(&self, runtime: Runtime) -> Result<Lock, Failure> {
        self.resolve_with(runtime, BTreeMap::new()).await
    }

    pub(crate) async fn resolve_with(
        &self,
        runtime: Runtime,
        secrets: BTreeMap<CredentialId, Secret>,
    ) -> Result<Lock, Failure> {
        let id = JobId::generate();
        self.desire(|desired| desired.jobs.push(ResolveJob { id, runtime, secrets, of: None }));
        let outcome = self
            .observe("the job has ended", |observed| {
                observed.jobs.iter().find(|job: &&JobResult| job.id == id).map(|job| job.outcome.clone())
            })
            .await;
        self.desire(|desired| desired.jobs.retain(|job| job.id != id));
        outcome
    }

    /// Desires an instance of the fixture and does not wait for it.
    pub(crate) async fn deploy(&self, arguments: &[&str]) -> InstanceId {
        self.deploy_with(arguments, |_| {}).await
    }

    pub(crate) async fn deploy_with(
        &self,
        arguments: &[&str],
        change: impl FnOnce(&mut DesiredInstance),
    ) -> InstanceId {
        let runtime = fixture_runtime(arguments);
        let lock = self.resolve(runtime.clone()).await.expect("a lock");
        let mut desired = instance(runtime, lock);
        change(&mut desired);
        let id = desired.id;
        self.desire(|all| all.instances.push(desired));
        id
    }

    /// An instance as it is desired now.
    pub(crate) fn desired_instance(&self, id: InstanceId) -> DesiredInstance {
        let desired = self.control.desired.borrow();
        desired.instances.iter().find(|instance| instance.id == id).cloned().expect("it is desired")
    }

    pub(crate) fn undesire(&self, id: InstanceId) {
        self.desire(|desired| desired.instances.retain(|instance| instance.id != id));
    }

    /// Sends one message as a gateway does and returns all that comes back.
    pub(crate) async fn send(&self, id: InstanceId, message: Json_) -> Result<Vec<Json_>, (StatusCode, Json_)> {
        self.send_within(id, message, 30_000).await
    }

    pub(crate) async fn send_within(
        &self,
        id: InstanceId,
        message: Json_,
        deadline_ms: u64,
    ) -> Result<Vec<Json_>, (StatusCode, Json_)> {
        self.send_as(None, id, message, deadline_ms).await
    }

    /// Sends one message for the copy of a key.
    pub(crate) async fn send_as(
        &self,
        key: Option<&str>,
        id: InstanceId,
        message: Json_,
        deadline_ms: u64,
    ) -> Result<Vec<Json_>, (StatusCode, Json_)> {
        self.send_of(None, key, id, message, deadline_ms).await
    }

    /// Sends one message of a caller, as 32 hex digits, for the copy of a key.
    pub(crate) async fn send_of(
        &self,
        caller: Option<&str>,
        key: Option<&str>,
        id: InstanceId,
        message: Json_,
        deadline_ms: u64,
    ) -> Result<Vec<Json_>, (StatusCode, Json_)> {
        let headers = [("toolyard-instance-key", key), ("toolyard-principal", caller)];
        self.send_with(&headers, id, message, deadline_ms).await
    }

    /// Sends one message with these headers, as far as they are given.
    pub(crate) async fn send_with(
        &self,
        headers: &[(&'static str, Option<&str>)],
        id: InstanceId,
        message: Json_,
        deadline_ms: u64,
    ) -> Result<Vec<Json_>, (StatusCode, Json_)> {
        let mut request = Request::post(format!("/v1/instances/{id}/messages"))
            .header("toolyard-deadline-ms", deadline_ms)
            .body(Body::from(message.to_string()))
            .expect("a request");
        for (name, value) in headers {
            if let Some(value) = value {
                request.headers_mut().insert(*name, value.parse().expect("a header"));
            }
        }
        let response = self.router.clone().oneshot(request).await.expect("infallible");
        let status = response.status();
        let body = response.into_body().collect().await.expect("a whole body").to_bytes();
        if status == StatusCode::ACCEPTED {
            assert!(body.is_empty(), "nothing comes back");
            return Ok(Vec::new());
        }
        if status != StatusCode::OK {
            return Err((status, serde_json::from_slice(&body).expect("problem+json")));
        }
        let mut decoder = frames::Decoder::default();
        decoder.push(body);
        let mut messages = Vec::new();
        while let Some(frame) = decoder.next_frame().expect("short frames") {
            messages.push(serde_json::from_slice(&frame).expect("JSON"));
        }
        Ok(messages)
    }

    /// Says that nobody needs the copy of a key any more, as a gateway does when a session has ended.
    pub(crate) async fn end_copy(&self, key: Option<&str>, id: &str) -> StatusCode {
        let mut request = Request::delete(format!("/v1/instances/{id}/copy")).body(Body::empty()).expect("a request");
        if let Some(key) = key {
            request.headers_mut().insert("toolyard-instance-key", key.parse().expect("a header"));
        }
        self.router.clone().oneshot(request).await.expect("infallible").status()
    }

    /// Calls a tool and returns the text of its result.
    pub(crate) async fn call(&self, id: InstanceId, tool: &str, arguments: Json_) -> String {
        // A modern server wants to be told who speaks; a legacy one ignores it.
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        let params = json!({ "name": tool, "arguments": arguments, "_meta": meta });
        let message = json!({ "jsonrpc": "2.0", "id": "one", "method": "tools/call", "params": params });
        let answers = self.send(id, message).await.expect("an answer");
        let answer = answers.last().expect("an answer");
        assert_eq!(answer["id"], "one");
        answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Vec<u8>) {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        let response = self.router.clone().oneshot(request).await.expect("infallible");
        let status = response.status();
        (status, response.into_body().collect().await.expect("a whole body").to_bytes().to_vec())
    }

    /// The body of a followed log.
    pub(crate) async fn follow(&self, id: InstanceId) -> Body {
        let path = format!("/v1/instances/{id}/logs?tail=100&follow=true");
        let request = Request::get(path).body(Body::empty()).expect("a request");
        self.router.clone().oneshot(request).await.expect("infallible").into_body()
    }

    /// What the agent last told of an instance, also while the control plane is away.
    pub(crate) fn told(&self, id: InstanceId) -> Option<ObservedInstance> {
        let observed = self.agent.as_ref()?.observed();
        observed.instances.into_iter().find(|instance| instance.id == id)
    }

    pub(crate) fn slot_phase(&self, id: InstanceId) -> Option<Phase> {
        self.told(id).map(|instance| instance.status.phase)
    }

    pub(crate) fn slot_reason(&self, id: InstanceId) -> Option<toolyard_types::state::Reason> {
        self.told(id).map(|instance| instance.status.reason)
    }

    pub(crate) fn slot_pid(&self, id: InstanceId) -> Option<u32> {
        self.agent.as_ref()?.observed().instances.into_iter().find(|instance| instance.id == id)?.pid
    }

    pub(crate) fn slot_usage(&self, id: InstanceId) -> Option<toolyard_types::agent::Usage> {
        self.told(id)?.usage
    }

    pub(crate) async fn log(&self, id: InstanceId) -> Vec<LogLine> {
        let (status, body) = self.get(&format!("/v1/instances/{id}/logs?tail=1000")).await;
        assert_eq!(status, StatusCode::OK);
        body.split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).expect("a log line"))
            .collect()
    }

    /// Waits until the log says `text`: a server's words arrive a moment after its answers.
    pub(crate) async fn logged(&self, id: InstanceId, text: &str) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let log = self.log_text(id).await;
            if log.contains(text) {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "`{text}` is not in the log: {log}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn log_text(&self, id: InstanceId) -> String {
        self.log(id).await.into_iter().map(|line| format!("{:?} {}\n", line.stream, line.text)).collect()
    }
}

pub(crate) fn fixture_runtime(arguments: &[&str]) -> Runtime {
    let mut package = package(fixture::NAME);
    package.arguments = arguments.iter().map(|argument| Value::text(*argument)).collect();
    Runtime::Npm(package)
}

pub(crate) fn package(identifier: &str) -> Package {
    Package {
        identifier: identifier.into(),
        version: String::new(),
        command: None,
        with: vec![],
        arguments: vec![],
        environment: BTreeMap::new(),
        registry: None,
        http: None,
    }
}

pub(crate) fn instance(runtime: Runtime, lock: Lock) -> DesiredInstance {
    DesiredInstance {
        id: InstanceId::generate(),
        organization: OrganizationId::generate(),
        server: ServerId::generate(),
        server_name: Name::new("fixture").expect("a name"),
        revision: RevisionId::generate(),
        revision_number: 1,
        spec: RevisionSpec {
            entry: None,
            runtime,
            limits: Limits::default(),
            paths: vec![],
            egress: Egress::All,
            strategy: Strategy::Surge,
            start_timeout_ms: 30_000,
            call_timeout_ms: 30_000,
            probe_call: None,
            instancing: toolyard_types::spec::Instancing::default(),
            volumes: vec![],
            privileges: BTreeSet::new(),
        },
        lock: Some(lock),
        secrets: BTreeMap::new(),
        secret_versions: BTreeMap::new(),
        missing: BTreeMap::new(),
        run: true,
    }
}

/// Gives an instance's package an environment variable with a secret in it.
pub(crate) fn with_secret(instance: &mut DesiredInstance, variable: &str, secret: &str) {
    let id = CredentialId::generate();
    instance.secrets.insert(id, Secret::new(secret));
    let (Runtime::Npm(package) | Runtime::Pypi(package)) = &mut instance.spec.runtime else { panic!("a package") };
    package.environment.insert(variable.into(), Value::credential(id));
}

pub(crate) fn in_a_day() -> Timestamp {
    Clock::system().now().plus(Duration::from_secs(24 * 3600))
}

/// The engine of the tests' own, that `scripts/docker-test.sh start` prints.
#[expect(clippy::disallowed_methods, reason = "tests are told of their engine by a variable")]
pub(crate) fn docker_host() -> String {
    let given = std::env::var("TOOLYARD_TEST_DOCKER_HOST").ok();
    let dir = || std::env::var("TOOLYARD_TEST_DIR").unwrap_or(format!("/tmp/toolyard-test-{}", nix::unistd::getuid()));
    let host = given.unwrap_or_else(|| format!("unix://{}/docker/docker.sock", dir()));
    let socket = std::path::Path::new(host.trim_start_matches("unix://"));
    assert!(socket.exists(), "there is no engine at {host}; run scripts/docker-test.sh start");
    host
}

/// The engine's own command line.
pub(crate) fn docker_command() -> std::process::Command {
    let mut command = std::process::Command::new("docker");
    command.args(["-H", &docker_host()]);
    command
}

/// The developer's own package clients and settings.
pub(crate) fn clients() -> PackageClients {
    #[expect(
        clippy::disallowed_methods,
        reason = "package clients get the developer's registry, proxy and CA settings"
    )]
    let environment = std::env::vars().filter(|(name, _)| !name.starts_with("CARGO") && !name.starts_with("NEXTEST"));
    PackageClients {
        npm: "npm".into(),
        node: "node".into(),
        python: ["python3.13", "python3.12", "python3.11", "python3", "/usr/bin/python3"].map(PathBuf::from).into(),
        uv: "uv".into(),
        environment: environment.collect(),
        package_hosts: vec![],
        for_servers: vec!["SSL_CERT_FILE".into(), "NODE_EXTRA_CA_CERTS".into()],
    }
}

/// The supervisor example beside this test's own program.
pub(crate) fn supervisor() -> PathBuf {
    let own = std::env::current_exe().expect("a test has a program");
    let beside = own.with_file_name("supervisor");
    if beside.is_file() {
        return beside;
    }
    let target = own.parent().and_then(|deps| deps.parent()).expect("tests lie in target/<profile>/deps");
    let supervisor = target.join("examples/supervisor");
    assert!(supervisor.is_file(), "{} is built with the tests", supervisor.display());
    supervisor
}

/// Whether a process exists that is not a zombie.
pub(crate) fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z') && !rest.is_empty())
}

/// Waits until a process is gone.
pub(crate) async fn dies(pid: u32) {
    until(&format!("process {pid} is gone"), || !alive(pid)).await;
}

/// Waits for a state of the machine that nobody announces.
pub(crate) async fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !reached() {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Every process that has `needle` in its command line, its working directory or its environment.
pub(crate) fn processes_with(needle: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let read = |name: &str| std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let text = [read("cmdline"), read("environ")].concat();
        if String::from_utf8_lossy(&text).contains(needle) && alive(pid) {
            found.push(pid);
        }
    }
    found
}

pub(crate) fn path_text(path: &std::path::Path) -> String {
    path.to_str().expect("utf-8").to_owned()
}
