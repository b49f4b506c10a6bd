//! A running Toolyard of the test's own.

use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use toolyard_client::{Client, McpError, ToolCall};
use toolyard_testkit::npm_registry::{NpmPackage, NpmRegistry};
use toolyard_types::Secret;

use crate::http::Request;
use crate::process::{pause, processes_with, signal, test_variable};

/// The API key of the first administrator.
pub const KEY: &str = "ty_bootstrap_0123456789abcdef0123456789abcdef";
/// The e-mail address of the first administrator.
pub const ADMIN: &str = "admin@example.test";
/// The password of the first administrator.
pub const PASSWORD: &str = "correct-horse-battery";
/// How long something honest takes on a busy machine at most.
const PATIENCE: Duration = Duration::from_secs(120);
/// The user and group `nobody`.
const PLAIN_USER: u32 = 65534;

/// Which database a test runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// A file in the data directory.
    Sqlite,
    /// A database of the test's own in the Postgres that `make test` starts.
    Postgres,
}

/// Runs a test on both databases.
pub fn each_engine(test: impl Fn(Engine)) {
    test(Engine::Sqlite);
    test(Engine::Postgres);
}

/// Who the program runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// Whoever runs the tests; in CI that is root.
    Own,
    /// `nobody`. Needs tests that run as root.
    Plain,
}

/// How a Toolyard is to be started.
#[must_use]
#[derive(Debug)]
pub struct Builder {
    engine: Engine,
    user: User,
    local_toolbox: bool,
    settings: Vec<String>,
    variables: Vec<(String, String)>,
    packages: Vec<NpmPackage>,
    database: Option<String>,
    data_dir: Option<PathBuf>,
    ports: Option<(u16, u16)>,
    owner: bool,
}

impl Builder {
    /// Who the program runs as.
    pub fn user(mut self, user: User) -> Self {
        self.user = user;
        self
    }

    /// Without a toolbox of its own: starts sooner.
    pub fn without_toolbox(mut self) -> Self {
        self.local_toolbox = false;
        self
    }

    /// With a setting, as `name=value`.
    pub fn setting(mut self, setting: &str) -> Self {
        self.settings.push(setting.to_owned());
        self
    }

    /// With an environment variable.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With a server of the test's own: an npm package `name` that runs this script, and a catalog entry
    /// `com.example/NAME` for it.
    pub fn script(self, name: &str, script: &str) -> Self {
        self.package(name, &json!({}), script)
    }

    /// The same with more in its `package.json`, such as dependencies.
    pub fn package(mut self, name: &str, more: &Value, script: &str) -> Self {
        let mut manifest = json!({ "name": name, "version": "1.0.0", "bin": { name: "server.js" } });
        for (member, value) in more.as_object().into_iter().flatten() {
            manifest[member] = value.clone();
        }
        self.packages.push(NpmPackage {
            name: name.to_owned(),
            version: "1.0.0".into(),
            files: vec![
                ("package.json".into(), manifest.to_string().into_bytes()),
                ("server.js".into(), script.as_bytes().to_vec()),
            ],
        });
        self
    }

    /// On this database instead of one of its own, such as through a proxy; it is not dropped.
    pub fn database(mut self, url: &str) -> Self {
        self.database = Some(url.to_owned());
        self.owner = false;
        self
    }

    /// On this data directory instead of one of its own.
    pub fn data_dir(mut self, dir: &Path) -> Self {
        self.data_dir = Some(dir.to_owned());
        self
    }

    /// In the place of another one that has ended: on its data directory and its ports.
    pub fn in_place_of(mut self, ended: &Toolyard) -> Self {
        self.ports = Some((ended.port, ended.agent_port));
        self.data_dir(ended.data_dir())
    }

    /// Starts it, waits until it is ready, and publishes the catalog entries of its scripts.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    #[must_use]
    pub fn start(self) -> Toolyard {
        let mut toolyard = self.prepare();
        toolyard.serve();
        let names: Vec<_> = toolyard.packages.iter().map(|package| package.name.clone()).collect();
        for name in names {
            toolyard.publish(&entry(&name));
        }
        toolyard
    }

    /// Everything but starting it: for a start that is expected to be refused.
    ///
    /// # Panics
    /// When there is no directory, port or database.
    #[must_use]
    pub fn prepare(self) -> Toolyard {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("an open directory");
        if self.user == User::Plain {
            chown(dir.path(), Some(PLAIN_USER), Some(PLAIN_USER)).expect("tests that run as root");
        }
        let (database, owner) = match (self.engine, self.database) {
            (_, Some(url)) => (Some(url), self.owner),
            (Engine::Sqlite, None) => (None, false),
            (Engine::Postgres, None) => (Some(create_database()), true),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let registry = runtime.block_on(NpmRegistry::start(self.packages.clone())).expect("a registry");
        let (port, agent_port) = self.ports.unwrap_or_else(|| (free_port(), free_port()));
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().expect("a client");
        let url = format!("http://127.0.0.1:{port}");
        Toolyard {
            client: Client::new(http.clone(), &url, Some(Secret::new(KEY))),
            http,
            program: program(dir.path()),
            data_dir: self.data_dir.unwrap_or_else(|| dir.path().join("data")),
            dir,
            port,
            agent_port,
            user: self.user,
            local_toolbox: self.local_toolbox,
            settings: self.settings,
            variables: self.variables,
            packages: self.packages,
            registry: Some(registry),
            database,
            owner,
            child: None,
            runtime: Some(runtime),
        }
    }
}

/// A `toolyard serve`. Ended, with everything it runs, when dropped.
#[derive(Debug)]
pub struct Toolyard {
    /// The API client, with the administrator's key.
    pub client: Client,
    /// Where its API, console and gateway are, on loopback.
    pub port: u16,
    /// Where agents reach it, on loopback.
    pub agent_port: u16,
    http: reqwest::Client,
    program: PathBuf,
    dir: tempfile::TempDir,
    data_dir: PathBuf,
    user: User,
    local_toolbox: bool,
    settings: Vec<String>,
    variables: Vec<(String, String)>,
    packages: Vec<NpmPackage>,
    registry: Option<NpmRegistry>,
    database: Option<String>,
    owner: bool,
    child: Option<Child>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Toolyard {
    /// One with a toolbox of its own, run by whoever runs the tests, unless more is said.
    pub fn on(engine: Engine) -> Builder {
        Builder {
            engine,
            user: User::Own,
            local_toolbox: true,
            settings: Vec::new(),
            variables: Vec::new(),
            packages: Vec::new(),
            database: None,
            data_dir: None,
            ports: None,
            owner: true,
        }
    }

    /// Another process over the same database, with the same master key and a data directory of its own. Without a
    /// toolbox.
    ///
    /// # Panics
    /// When it does not start, or this one runs on SQLite.
    #[must_use]
    pub fn replica(&self, settings: &[&str]) -> Self {
        let url = self.database.as_deref().expect("a shared database");
        let mut builder = Self::on(Engine::Postgres).database(url).without_toolbox().user(self.user);
        for setting in settings {
            builder = builder.setting(setting);
        }
        let mut replica = builder.prepare();
        std::fs::create_dir(&replica.data_dir).expect("a data directory");
        std::fs::copy(self.data_dir.join("vault.key"), replica.data_dir.join("vault.key")).expect("the master key");
        replica.serve();
        replica
    }

    /// The program with nothing of this shell's Toolyard in its environment, to be run by the test's user.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .current_dir(self.dir.path())
            .env("HOME", self.dir.path())
            .env("TOOLYARD_URL", self.url())
            .env("TOOLYARD_API_KEY", KEY)
            .env("XDG_CONFIG_HOME", self.dir.path().join("config"));
        for name in ["TOOLYARD_ENV", "TOOLYARD_BINARY", "TOOLYARD_SUITE_ROWS", "TOOLYARD_SUITE_LONG", "DOCKER_HOST"] {
            command.env_remove(name);
        }
        if self.user == User::Plain {
            command.uid(PLAIN_USER).gid(PLAIN_USER);
        }
        command
    }

    /// Starts the program (again) on the same data directory without waiting for anything.
    ///
    /// # Panics
    /// When there is no such program.
    pub fn spawn(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log()).expect("a log file");
        let mut command = self.command();
        command
            .args(["serve", "--data-dir"])
            .arg(&self.data_dir)
            .args(["--listen", &format!("127.0.0.1:{}", self.port)])
            .args(["--agent-listen", &format!("127.0.0.1:{}", self.agent_port)])
            .args(["--set", &format!("local_toolbox={}", self.local_toolbox)])
            .args(self.settings.iter().flat_map(|setting| ["--set", setting]))
            .env("TOOLYARD_BOOTSTRAP_ADMIN_EMAIL", ADMIN)
            .env("TOOLYARD_BOOTSTRAP_ADMIN_PASSWORD", PASSWORD)
            .env("TOOLYARD_BOOTSTRAP_API_KEY", KEY)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log);
        if !self.packages.is_empty() {
            command
                .env("npm_config_registry", self.registry_url())
                .env("npm_config_cache", self.dir.path().join("npm-cache"))
                .env("npm_config_fetch_retries", "0");
        }
        if let Some(url) = &self.database {
            command.env("TOOLYARD_DATABASE_URL", url);
        }
        self.child = Some(command.spawn().expect("toolyard starts"));
    }

    /// Starts it (again) on the same data directory, and waits until it is ready.
    ///
    /// # Panics
    /// When it ends instead, or takes too long.
    #[track_caller]
    pub fn serve(&mut self) {
        self.spawn();
        let until = Instant::now() + PATIENCE;
        while self.request("GET", "/readyz").send().status != 200 {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            assert!(ended.is_none() && Instant::now() < until, "not ready: {ended:?}\n{}", self.log_text());
            pause();
        }
    }

    /// Waits until the program has ended by itself; its exit code.
    ///
    /// # Panics
    /// When it does not end within `limit`.
    #[track_caller]
    pub fn wait_exit(&mut self, limit: Duration) -> Option<i32> {
        let mut child = self.child.take().expect("a running program");
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = child.try_wait().expect("it can be waited for") {
                return status.code();
            }
            if Instant::now() > until {
                self.child = Some(child);
                panic!("still running after {limit:?}\n{}", self.log_text());
            }
            pause();
        }
    }

    /// `SIGKILL` to the program itself, and to nothing else.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks it to stop by a signal (`TERM`, `INT`) and waits until it did; its exit code.
    #[track_caller]
    pub fn stop_by(&mut self, name: &str) -> Option<i32> {
        signal(self.pid(), name);
        self.wait_exit(Duration::from_secs(60))
    }

    /// Its process.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running program").id()
    }

    /// The base URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A directory of the test's own; the data directory is below it unless another was given.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The data directory.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The URL of its Postgres, when it runs on one.
    #[must_use]
    pub fn database(&self) -> Option<&str> {
        self.database.as_deref()
    }

    /// The URL of the npm registry that its scripts come from.
    ///
    /// # Panics
    /// Never while the test runs.
    #[must_use]
    pub fn registry_url(&self) -> String {
        let _entered = self.runtime().enter();
        self.registry.as_ref().expect("only taken when dropped").url()
    }

    /// Where standard output and error go.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.dir.path().join("toolyard.log")
    }

    /// What it wrote.
    #[must_use]
    pub fn log_text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log()).unwrap_or_default()).into_owned()
    }

    /// For the test's own asynchronous parts.
    ///
    /// # Panics
    /// Never while the test runs.
    #[must_use]
    pub fn runtime(&self) -> &tokio::runtime::Runtime {
        self.runtime.as_ref().expect("only taken when dropped")
    }

    /// A request without a key; `path` begins with a slash.
    ///
    /// # Panics
    /// When `method` is no method.
    pub fn request(&self, method: &str, path: &str) -> Request<'_> {
        let method = method.parse().expect("a method");
        Request::new(self, self.http.request(method, format!("{}{path}", self.url())))
    }

    /// A request of the administrator to the API; `path` begins behind `/api/v1`.
    pub fn api(&self, method: &str, path: &str) -> Request<'_> {
        self.request(method, &format!("/api/v1{path}")).key(KEY)
    }

    /// Makes an API key with this role; the key.
    #[track_caller]
    #[must_use]
    pub fn make_key(&self, name: &str, role: &str) -> String {
        let made = self.api("POST", "/keys").json(json!({ "name": name, "role": role })).send().ok();
        made["key"].as_str().expect("a key").to_owned()
    }

    /// Runs a CLI command.
    ///
    /// # Panics
    /// When there is no such program.
    #[must_use]
    pub fn run(&self, args: &[&str]) -> Output {
        self.command().args(args).stdin(Stdio::null()).output().expect("the CLI runs")
    }

    /// Runs a CLI command that must succeed, with `--output json`.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    #[must_use]
    pub fn json(&self, args: &[&str]) -> Value {
        let output = self.run(&[args, &["--output", "json"]].concat());
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{args:?} failed\n{out}\n{err}\n--- log\n{}", self.log_text());
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{args:?}: {error}: {out}"))
    }

    /// Publishes a catalog entry in the registry's `server.json` form.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn publish(&self, entry: &Value) {
        let file = self.dir.path().join("server.json");
        std::fs::write(&file, entry.to_string()).expect("a file");
        if self.user == User::Plain {
            chown(&file, Some(PLAIN_USER), Some(PLAIN_USER)).expect("tests that run as root");
        }
        let _ = self.json(&["catalog", "publish", &file.display().to_string()]);
    }

    /// Deploys a script of this test under its own name and waits until the gateway answers for it.
    #[track_caller]
    pub fn deploy(&self, name: &str, options: &[&str]) -> Value {
        let entry = format!("com.example/{name}");
        let server = self.json(&[&["deploy", &entry, "--name", name, "--wait", "--timeout", "120"], options].concat());
        let path = format!("/mcp/default/servers/{name}");
        crate::wait_until(Duration::from_secs(20), "the gateway knows the server", || {
            self.runtime().block_on(self.client.list_tools(&path)).is_ok()
        });
        server
    }

    /// Calls a tool through the gateway with the administrator's key; the text of its result.
    ///
    /// # Errors
    /// When the gateway or the server refuses.
    pub fn call(&self, server: &str, tool: &str, arguments: Value) -> Result<String, McpError> {
        let path = format!("/mcp/default/servers/{server}");
        let call = ToolCall { name: tool.to_owned(), arguments };
        let result = self.runtime().block_on(self.client.call_tool(&path, &call, |_| {}))?;
        Ok(result["content"][0]["text"].as_str().unwrap_or_default().to_owned())
    }

    /// Waits until `servers show NAME` is as `wanted` says, and returns it.
    ///
    /// # Panics
    /// When it takes too long.
    #[track_caller]
    pub fn wait_server(&self, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let server = self.api("GET", &format!("/servers/{name}")).send().json();
            if wanted(&server) {
                return server;
            }
            assert!(Instant::now() < until, "waited for: {what}\n{server:#}\n--- log\n{}", self.log_text());
            pause();
        }
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
        if let Some(runtime) = self.runtime.take() {
            {
                let _entered = runtime.enter();
                self.registry = None;
            }
            runtime.shutdown_background();
        }
        if let Some(url) = self.database.as_ref().filter(|_| self.owner) {
            let (_, name) = url.rsplit_once('/').expect("a URL with a database");
            psql(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"));
        }
    }
}

/// The catalog entry of a script.
fn entry(name: &str) -> Value {
    json!({
        "$schema": "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json",
        "name": format!("com.example/{name}"),
        "description": "A server of this test",
        "version": "1.0.0",
        "packages": [{
            "registryType": "npm",
            "identifier": name,
            "version": "1.0.0",
            "transport": { "type": "stdio" },
        }],
    })
}

/// The program that is tested, where any user may run it.
#[expect(clippy::disallowed_methods, reason = "the test's own environment, not a setting")]
fn program(dir: &Path) -> PathBuf {
    let built = std::env::var_os("TOOLYARD_BINARY").map_or_else(
        || {
            // Cargo puts tests into `deps/` beside the programs.
            let own = std::env::current_exe().expect("the test's own path");
            own.parent().and_then(Path::parent).expect("the target directory").join("toolyard")
        },
        PathBuf::from,
    );
    assert!(built.exists(), "no {}; run `cargo build -p toolyard`, or set TOOLYARD_BINARY", built.display());
    // The checkout may be below a directory that only its owner may enter.
    let program = dir.join("toolyard");
    if std::fs::hard_link(&built, &program).is_err() {
        std::fs::copy(&built, &program).expect("a copy of the program");
    }
    program
}

/// A loopback port that nobody listens on now.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn free_port() -> u16 {
    toolyard_testkit::free_port(Ipv4Addr::LOCALHOST.into())
}

fn create_database() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let admin = test_variable("TOOLYARD_TEST_POSTGRES_URL");
    let name = format!("suite_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    psql(&format!("CREATE DATABASE {name}"));
    let (base, _) = admin.rsplit_once('/').expect("a URL with a database");
    format!("{base}/{name}")
}

fn psql(sql: &str) {
    let admin = test_variable("TOOLYARD_TEST_POSTGRES_URL");
    let status = Command::new("psql").args(["-q", "-d", &admin, "-c", sql]).status().expect("psql runs");
    assert!(status.success(), "psql: {sql}");
}
