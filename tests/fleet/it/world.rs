//! A control plane of the test's own, the CLI to drive it, and small things that every scenario needs.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use toolyard_client::Client;
use toolyard_types::Secret;

use crate::calls::Answered;
use crate::fixture::{self, FIXTURE, Registry};
use crate::network::Network;

/// The API key of every test's Toolyard.
pub(crate) const KEY: &str = "ty_bootstrap_0123456789abcdef0123456789abcdef";
/// A real server, from npm.
pub(crate) const EVERYTHING: &str = "io.github.modelcontextprotocol/server-everything";
/// How long something honest takes on a busy machine at most.
const PATIENCE: Duration = Duration::from_secs(120);

/// A `toolyard serve` without a toolbox of its own. Ended, with everything it runs, when dropped.
pub(crate) struct Toolyard {
    pub(crate) client: Client,
    http: reqwest::Client,
    pub(crate) runtime: tokio::runtime::Runtime,
    dir: tempfile::TempDir,
    listen: SocketAddr,
    agent_listen: String,
    /// Where its metrics are.
    operations: String,
    settings: Vec<String>,
    database: Option<Arc<Database>>,
    registry: Registry,
    child: Option<Child>,
}

impl Toolyard {
    /// On this machine only.
    pub(crate) fn start() -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), &[])
    }

    /// Reached by agents, and the package registry too, at this machine's address on a network.
    pub(crate) fn start_on(network: &Network) -> Self {
        Self::start_at(network.address(), &[])
    }

    /// The same with settings, as `name=value`.
    pub(crate) fn start_at(address: IpAddr, settings: &[&str]) -> Self {
        Self::prepare(Ipv4Addr::LOCALHOST.into(), address, settings).first()
    }

    /// Reached by clients, agents and package clients at this machine's address on a network.
    pub(crate) fn start_open(network: &Network) -> Self {
        // What clients keep for their next request is gone before anything is counted.
        Self::prepare(network.address(), network.address(), &["idle_timeout_seconds=20"]).first()
    }

    /// On a Postgres of the test's own, so that there can be replicas.
    pub(crate) fn start_on_postgres() -> Self {
        let localhost = Ipv4Addr::LOCALHOST.into();
        let mut toolyard = Self::prepare(localhost, localhost, &[]);
        toolyard.database = Some(Arc::new(Database::create()));
        toolyard.first()
    }

    /// Another replica on the same database, with the same master key.
    pub(crate) fn replica(&self) -> Self {
        let mut replica = Self::prepare(self.listen.ip(), self.listen.ip(), &[]);
        replica.database.clone_from(&self.database);
        let key = |toolyard: &Self| toolyard.dir.path().join("data/vault.key");
        std::fs::create_dir(replica.dir.path().join("data")).expect("a data directory");
        std::fs::copy(key(self), key(&replica)).expect("the master key");
        replica.serve();
        replica
    }

    /// Starts it for the first time.
    fn first(mut self) -> Self {
        self.serve();
        self.publish_fixture();
        self
    }

    fn prepare(clients: IpAddr, address: IpAddr, settings: &[&str]) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let listen = SocketAddr::from((clients, toolyard_testkit::free_port(clients)));
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build().expect("a client");
        let client = Client::new(http.clone(), &format!("http://{listen}"), Some(Secret::new(KEY)));
        Self {
            client,
            http,
            runtime: runtime.expect("a runtime"),
            dir: tempfile::tempdir().expect("a directory"),
            listen,
            agent_listen: format!("{address}:{}", toolyard_testkit::free_port(address)),
            operations: format!("127.0.0.1:{}", toolyard_testkit::free_port(Ipv4Addr::LOCALHOST.into())),
            settings: settings.iter().map(|setting| (*setting).to_owned()).collect(),
            database: None,
            registry: Registry::start(if address.is_loopback() { Ipv4Addr::LOCALHOST.into() } else { address }),
            child: None,
        }
    }

    /// The program that is tested.
    #[expect(clippy::disallowed_methods, reason = "the test's own environment, not a setting")]
    pub(crate) fn program(&self) -> PathBuf {
        if let Ok(program) = std::env::var("TOOLYARD_BINARY") {
            return program.into();
        }
        // Cargo puts tests into `deps/` beside the programs.
        let own = std::env::current_exe().expect("the test's own path");
        let program = own.parent().and_then(Path::parent).expect("the target directory").join("toolyard");
        assert!(program.exists(), "no {}; run `cargo build -p toolyard`, or set TOOLYARD_BINARY", program.display());
        program
    }

    /// Gives a command the environment of this test and nothing of this shell's Toolyard.
    pub(crate) fn furnish(&self, command: &mut Command) {
        command
            .env_remove("TOOLYARD_ENV")
            .env_remove("TOOLYARD_BINARY")
            .env_remove("TOOLYARD_FLEET_FACTS")
            .env_remove("DOCKER_HOST")
            .env("TOOLYARD_URL", self.client.base())
            .env("TOOLYARD_API_KEY", KEY)
            .env("XDG_CONFIG_HOME", self.dir.path().join("config"));
    }

    /// Has agents install packages from this test's registry; without it they use the machine's own.
    pub(crate) fn furnish_packages(&self, command: &mut Command) {
        command
            .env("npm_config_registry", self.registry.url())
            .env("npm_config_cache", self.dir.path().join("npm-cache"))
            .env("npm_config_fetch_retries", "0");
    }

    /// Starts the program (again) on the same data directory, and waits until it is ready.
    pub(crate) fn serve(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.path().join("toolyard.log"));
        let log = log.expect("a log file");
        let mut command = Command::new(self.program());
        self.furnish(&mut command);
        command
            .current_dir(self.dir.path())
            .args(["serve", "--data-dir"])
            .arg(self.dir.path().join("data"))
            .args(["--listen", &self.listen.to_string(), "--agent-listen", &self.agent_listen])
            .args(["--set", "local_toolbox=false"])
            .args(["--set", &format!("operations_listen={}", self.operations)])
            .args(self.settings.iter().flat_map(|setting| ["--set", setting]))
            .env("TOOLYARD_BOOTSTRAP_ADMIN_PASSWORD", "correct-horse-battery")
            .env("TOOLYARD_BOOTSTRAP_API_KEY", KEY)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log);
        if let Some(database) = &self.database {
            command.env("TOOLYARD_DATABASE_URL", &database.0);
        }
        self.child = Some(command.spawn().expect("toolyard starts"));
        let until = Instant::now() + PATIENCE;
        while self.try_get("/servers").is_err() {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            assert!(ended.is_none() && Instant::now() < until, "not ready: {ended:?}\n{}", self.log_text());
            pause();
        }
    }

    fn publish_fixture(&self) {
        let file = self.dir.path().join("server.json");
        std::fs::write(&file, fixture::entry().to_string()).expect("a file");
        self.json(&["catalog", "publish", &file.display().to_string()]);
    }

    /// What it wrote.
    pub(crate) fn log_text(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("toolyard.log")).unwrap_or_default()
    }

    /// `SIGKILL` to the control plane, and to nothing else.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running program").id()
    }

    /// `HOST:PORT` of its API and gateway.
    pub(crate) fn address(&self) -> SocketAddr {
        self.listen
    }

    /// `HOST:PORT` of its listener for agents.
    pub(crate) fn agent_address(&self) -> &str {
        &self.agent_listen
    }

    /// Runs a CLI command.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(self.program());
        self.furnish(&mut command);
        command.current_dir(self.dir.path()).args(args).output().expect("the CLI runs")
    }

    /// Runs a CLI command that must succeed, with `--output json`.
    #[track_caller]
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let output = self.run(&[args, &["--output", "json"]].concat());
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{args:?} failed\n{out}\n{err}\n--- log\n{}", self.log_text());
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{args:?}: {error}: {out}"))
    }

    /// Asks the API.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Value {
        self.try_get(path).unwrap_or_else(|error| panic!("{path}: {error}\n{}", self.log_text()))
    }

    fn try_get(&self, path: &str) -> Result<Value, toolyard_client::ApiError> {
        self.runtime.block_on(self.client.get(path))
    }

    /// Its metrics, as text.
    pub(crate) fn metrics(&self) -> String {
        let url = format!("http://{}/metrics", self.operations);
        let read = async { self.http.get(url).send().await?.error_for_status()?.text().await };
        self.runtime.block_on(read).expect("metrics")
    }

    /// `PORT` of the registry that agents install packages from.
    pub(crate) fn registry_port(&self) -> u16 {
        let url = self.registry.url().parse::<reqwest::Url>().expect("a URL");
        url.port().expect("a port")
    }

    /// Where a test may keep files.
    pub(crate) fn directory(&self) -> &Path {
        self.dir.path()
    }

    /// A new toolbox; its join token.
    #[track_caller]
    pub(crate) fn enroll(&self, name: &str, labels: &str) -> String {
        let labels = if labels.is_empty() { vec![] } else { vec!["--labels", labels] };
        self.enroll_with(name, &labels)
    }

    /// A new toolbox with options of the command; its join token.
    #[track_caller]
    pub(crate) fn enroll_with(&self, name: &str, options: &[&str]) -> String {
        let enrolled = self.json(&[&["toolboxes", "enroll", name], options].concat());
        let token = enrolled["token"].as_str().expect("a token").to_owned();
        assert!(enrolled["command"].as_str().expect("a command").contains(&token), "{enrolled:#}");
        token
    }

    /// `toolboxes show`, or nothing.
    pub(crate) fn toolbox(&self, name: &str) -> Value {
        self.try_get(&format!("/toolboxes/{name}")).unwrap_or_default()
    }

    /// `servers show`.
    #[track_caller]
    pub(crate) fn server(&self, name: &str) -> Value {
        self.get(&format!("/servers/{name}"))
    }

    /// Deploys the fixture and waits until it answers: the gateway learns a moment after `--wait` has ended.
    #[track_caller]
    pub(crate) fn deploy(&self, name: &str, options: &[&str]) -> Value {
        let args = [&["deploy", FIXTURE, "--name", name, "--wait", "--timeout", "120"], options].concat();
        let server = self.json(&args);
        wait_until(Duration::from_secs(20), "the gateway knows the server", || self.echoes(name));
        server
    }

    /// Waits until `servers show NAME` is as `wanted` says, and returns it.
    #[track_caller]
    pub(crate) fn wait_server(&self, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let server = self.server(name);
            if wanted(&server) {
                return server;
            }
            assert!(Instant::now() < until, "waited for: {what}\n{server:#}\n--- log\n{}", self.log_text());
            pause();
        }
    }

    /// Calls a tool through the gateway, as a client does.
    pub(crate) fn call(&self, server: &str, tool: &str, arguments: Value) -> Answered {
        let path = format!("/mcp/default/servers/{server}");
        self.runtime.block_on(crate::calls::call(&self.client, &path, tool, arguments))
    }

    /// The same, without waiting for it.
    pub(crate) fn begin_call(
        &self,
        server: &str,
        tool: &'static str,
        arguments: Value,
    ) -> tokio::task::JoinHandle<Answered> {
        let (client, path) = (self.client.clone(), format!("/mcp/default/servers/{server}"));
        self.runtime.spawn(async move { crate::calls::call(&client, &path, tool, arguments).await })
    }

    /// Whether a call arrives and comes back.
    pub(crate) fn echoes(&self, server: &str) -> bool {
        self.call(server, "echo", json!({ "message": "hello" })).1.is_ok_and(|text| text.contains("hello"))
    }

    /// Waits for an event of this kind about this subject, from the first event of all on; its data.
    #[track_caller]
    pub(crate) fn wait_event(&self, kind: &str, subject: &str) -> Value {
        let found = async {
            let mut stream = self.client.stream("/events", &json!({ "after": 0 })).await.expect("events");
            let mut text = Vec::new();
            while let Some(chunk) = stream.chunk().await.expect("more events") {
                text.extend_from_slice(&chunk);
                let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
                let lines: Vec<_> = text.drain(..whole).collect();
                let lines = String::from_utf8(lines).expect("text");
                let mut events =
                    lines.lines().filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data:")?).ok());
                if let Some(event) = events.find(|event| event["kind"] == kind && event["subject"] == subject) {
                    return event["data"].clone();
                }
            }
            panic!("the stream ended without {kind} of {subject}");
        };
        let found = async { tokio::time::timeout(PATIENCE, found).await };
        self.runtime.block_on(found).unwrap_or_else(|_| panic!("no {kind} of {subject}\n{}", self.log_text()))
    }

    /// The lines of the audit log that say this.
    pub(crate) fn audited(&self, says: impl Fn(&Value) -> bool) -> usize {
        let audit = self.get("/audit?limit=200");
        audit["items"].as_array().map_or(0, |lines| lines.iter().filter(|line| says(line)).count())
    }
}

impl Drop for Toolyard {
    fn drop(&mut self) {
        self.kill();
        for pid in processes_with(&self.dir.path().display().to_string()) {
            if pid != std::process::id() {
                signal(pid, "KILL");
            }
        }
    }
}

/// A Postgres database, by its URL. Dropped with it.
struct Database(String);

impl Database {
    fn create() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let admin = test_variable("TOOLYARD_TEST_POSTGRES_URL");
        let name = format!("fleet_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        psql(&format!("CREATE DATABASE {name}"));
        let (base, _) = admin.rsplit_once('/').expect("a URL with a database");
        Self(format!("{base}/{name}"))
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (_, name) = self.0.rsplit_once('/').expect("a URL with a database");
        psql(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"));
    }
}

fn psql(sql: &str) {
    let admin = test_variable("TOOLYARD_TEST_POSTGRES_URL");
    let status = Command::new("psql").args(["-q", "-d", &admin, "-c", sql]).status().expect("psql runs");
    assert!(status.success(), "psql: {sql}");
}

/// The toolboxes of a server's instances, in order.
pub(crate) fn places(server: &Value) -> Vec<String> {
    let instances = server["instances"].as_array().into_iter().flatten();
    let mut places: Vec<_> = instances.filter_map(|it| it["toolbox"].as_str().map(str::to_owned)).collect();
    places.sort();
    places
}

/// Whether every instance of a server that should run is ready.
pub(crate) fn is_ready(server: &Value) -> bool {
    let instances = server["instances"].as_array().map_or(&[][..], Vec::as_slice);
    server["phase"] == "ready" && !instances.is_empty() && instances.iter().all(|it| it["phase"] == "ready")
}

/// A short pause between two looks at a state.
pub(crate) fn pause() {
    std::thread::park_timeout(Duration::from_millis(20));
}

/// Waits until `true`, at most `limit`; how long it took.
#[track_caller]
pub(crate) fn wait_until(limit: Duration, what: &str, mut happened: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !happened() {
        assert!(began.elapsed() < limit, "waited {limit:?} for: {what}");
        pause();
    }
    began.elapsed()
}

/// Sends a signal.
pub(crate) fn signal(pid: u32, name: &str) {
    let signal = format!("SIG{name}").parse::<nix::sys::signal::Signal>().expect("a signal");
    if let Ok(pid) = i32::try_from(pid) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal);
    }
}

/// Whether a process exists and is not a zombie.
pub(crate) fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

/// Every process that names `mark` in its command line or environment.
pub(crate) fn processes_with(mark: &str) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let names_mark = |pid: &u32| {
        ["cmdline", "environ"].iter().any(|file| {
            let text = std::fs::read(Path::new("/proc").join(pid.to_string()).join(file)).unwrap_or_default();
            String::from_utf8_lossy(&text).contains(mark)
        })
    };
    pids.filter(names_mark).filter(|pid| alive(*pid)).collect()
}

/// The environment variable, which `make test` sets.
#[expect(clippy::disallowed_methods, reason = "the test's own environment, not a setting")]
pub(crate) fn test_variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; run the tests with `make test` or `make fleet`"))
}

/// A time as it stands in the report.
pub(crate) fn seconds(time: Duration) -> String {
    match time.as_micros() {
        micros @ 0..10_000 => format!("{}.{} ms", micros / 1000, micros % 1000 / 100),
        micros @ 10_000..1_000_000 => format!("{} ms", micros / 1000),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}
