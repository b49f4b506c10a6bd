//! A running Toolyard, and the CLI to drive it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

pub(crate) const KEY: &str = "ty_bootstrap_0123456789abcdef0123456789abcdef";
pub(crate) const EVERYTHING: &str = "io.github.modelcontextprotocol/server-everything";
pub(crate) const TIME: &str = "io.github.modelcontextprotocol/server-time";
/// Installing real packages on a busy machine takes this long at most.
const PATIENCE: Duration = Duration::from_secs(180);

/// Which database a test runs on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Engine {
    Sqlite,
    Postgres,
}

/// The environment variable, which `make test` sets.
#[expect(clippy::disallowed_methods, reason = "the test's own environment, not a setting")]
pub(crate) fn test_variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; run the tests with `make test`"))
}

/// A `toolyard serve` of this test's own. Ended, with everything it runs, when dropped.
pub(crate) struct Toolyard {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) port: u16,
    pub(crate) agent_port: u16,
    /// Settings beside those every test has, as `name=value`.
    settings: Vec<String>,
    /// The address that agents reach it at.
    agent_host: String,
    database: Option<String>,
    /// Whether the database is another one's.
    shared: bool,
    child: Option<Child>,
}

impl Toolyard {
    /// Starts on an empty data directory and waits until it is ready.
    pub(crate) fn start(engine: Engine) -> Self {
        Self::start_with(engine, "127.0.0.1", &[])
    }

    /// The same with settings (`name=value`), and a listener for agents at this address.
    pub(crate) fn start_with(engine: Engine, agent_host: &str, settings: &[&str]) -> Self {
        let database = match engine {
            Engine::Sqlite => None,
            Engine::Postgres => Some(create_database()),
        };
        let dir = tempfile::tempdir().expect("a directory");
        let mut toolyard = Self {
            dir,
            port: free_port(),
            agent_port: free_port(),
            database,
            shared: false,
            child: None,
            agent_host: agent_host.to_owned(),
            settings: settings.iter().map(|setting| (*setting).to_owned()).collect(),
        };
        toolyard.serve();
        toolyard
    }

    /// Starts another replica on the same database, with the same master key.
    pub(crate) fn replica(&self, settings: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("data")).expect("a data directory");
        let key = |dir: &Path| dir.join("data/vault.key");
        std::fs::copy(key(self.dir.path()), key(dir.path())).expect("the master key");
        let mut replica = Self {
            dir,
            port: free_port(),
            agent_port: free_port(),
            settings: settings.iter().map(|setting| (*setting).to_owned()).collect(),
            agent_host: self.agent_host.clone(),
            database: self.database.clone(),
            shared: true,
            child: None,
        };
        replica.serve();
        replica
    }

    /// Starts the program (again) on the same data directory.
    pub(crate) fn serve(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log()).expect("a log file");
        let mut command = self.command();
        command
            .args(["serve", "--data-dir"])
            .arg(self.dir.path().join("data"))
            .args(["--listen", &format!("127.0.0.1:{}", self.port)])
            .args(["--agent-listen", &format!("{}:{}", self.agent_host, self.agent_port)])
            .args(self.settings.iter().flat_map(|setting| ["--set", setting]))
            .env("TOOLYARD_BOOTSTRAP_ADMIN_EMAIL", "admin@example.test")
            .env("TOOLYARD_BOOTSTRAP_ADMIN_PASSWORD", "correct-horse-battery")
            .env("TOOLYARD_BOOTSTRAP_API_KEY", KEY)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log);
        if let Some(url) = &self.database {
            command.env("TOOLYARD_DATABASE_URL", url);
        }
        self.child = Some(command.spawn().expect("toolyard starts"));
        self.wait_ready();
    }

    fn wait_ready(&mut self) {
        let until = Instant::now() + Duration::from_secs(60);
        while !self.answers("/readyz") {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            assert!(ended.is_none(), "toolyard ended: {ended:?}\n{}", self.log_text());
            assert!(Instant::now() < until, "toolyard is not ready\n{}", self.log_text());
            pause();
        }
    }

    fn answers(&self, path: &str) -> bool {
        ureq(self.port, path).is_some_and(|text| text.starts_with("HTTP/1.1 200"))
    }

    /// Where standard output and error go.
    pub(crate) fn log(&self) -> PathBuf {
        self.dir.path().join("toolyard.log")
    }

    /// What it wrote.
    pub(crate) fn log_text(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// The base URL.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The program with nothing of this shell's Toolyard in its environment.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_toolyard"));
        command.current_dir(self.dir.path());
        command
            .env("TOOLYARD_URL", self.url())
            .env("TOOLYARD_API_KEY", KEY)
            .env("XDG_CONFIG_HOME", self.dir.path().join("config"))
            .env_remove("TOOLYARD_ENV");
        command
    }

    /// Runs a CLI command.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command().args(args).output().expect("the CLI runs")
    }

    /// Runs a CLI command that must succeed, with `--output json`.
    #[track_caller]
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let output = self.run(&[args, &["--output", "json"]].concat());
        assert!(
            output.status.success(),
            "{args:?} failed\n{}\n{}\n--- log\n{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            self.log_text()
        );
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{args:?}: {error}: {}", String::from_utf8_lossy(&output.stdout)))
    }

    /// Runs a CLI command that must succeed.
    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?} failed\n{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Waits until `servers show NAME` is as `wanted` says, and returns it.
    #[track_caller]
    pub(crate) fn wait_server(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let server = self.json(&["servers", "show", name]);
            if wanted(&server) {
                return server;
            }
            assert!(Instant::now() < until, "server is still {server:#}\n--- log\n{}", self.log_text());
            pause();
        }
    }

    /// `SIGKILL` to the program itself, and to nothing else.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// An ordinary stop.
    pub(crate) fn terminate(&mut self) {
        self.stop_by("TERM");
    }

    /// Sends a signal that asks the program to stop, and waits until it did; its exit code.
    #[track_caller]
    pub(crate) fn stop_by(&mut self, name: &str) -> Option<i32> {
        let mut child = self.child.take().expect("a running program");
        signal(child.id(), name);
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = child.try_wait().expect("the program can be waited for") {
                return status.code();
            }
            if Instant::now() > until {
                self.child = Some(child);
                panic!("SIG{name} did not end the program\n{}", self.log_text());
            }
            pause();
        }
    }

    /// Every process whose command line or environment names this test's data directory, or that descends
    /// from one that does.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let own = self.child.as_ref().map(Child::id);
        let mark = self.dir.path().display().to_string();
        processes_with(&mark).into_iter().filter(|pid| Some(*pid) != own && *pid != std::process::id()).collect()
    }
}

impl Drop for Toolyard {
    fn drop(&mut self) {
        self.kill();
        for pid in self.processes() {
            signal(pid, "KILL");
        }
        if let Some(url) = self.database.as_ref().filter(|_| !self.shared) {
            drop_database(url);
        }
    }
}

/// A short pause between two looks at a state.
pub(crate) fn pause() {
    std::thread::park_timeout(Duration::from_millis(50));
}

/// Waits until `true`, at most `limit`.
#[track_caller]
pub(crate) fn wait_until(limit: Duration, what: &str, mut happened: impl FnMut() -> bool) {
    let until = Instant::now() + limit;
    while !happened() {
        assert!(Instant::now() < until, "waited {limit:?} for: {what}");
        pause();
    }
}

/// Sends a signal.
pub(crate) fn signal(pid: u32, name: &str) {
    let _ = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).stderr(Stdio::null()).status();
}

/// Whether a process exists and is not a zombie.
pub(crate) fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

fn processes_with(mark: &str) -> Vec<u32> {
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

pub(crate) fn free_port() -> u16 {
    toolyard_testkit::free_port(std::net::Ipv4Addr::LOCALHOST.into())
}

/// One plain HTTP request; the whole answer as text.
pub(crate) fn ureq(port: u16, path: &str) -> Option<String> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

fn create_database() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let admin = test_variable("TOOLYARD_TEST_POSTGRES_URL");
    let name = format!("it_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    psql(&admin, &format!("CREATE DATABASE {name}"));
    let (base, _) = admin.rsplit_once('/').expect("a URL with a database");
    format!("{base}/{name}")
}

fn drop_database(url: &str) {
    let (_, name) = url.rsplit_once('/').expect("a URL with a database");
    psql(&test_variable("TOOLYARD_TEST_POSTGRES_URL"), &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"));
}

fn psql(url: &str, sql: &str) {
    let status = Command::new("psql").args(["-q", "-d", url, "-c", sql]).status().expect("psql runs");
    assert!(status.success(), "psql: {sql}");
}
