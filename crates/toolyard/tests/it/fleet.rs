//! Toolboxes on other hosts: agents as processes of their own, which join with a token, are known by certificates, and
//! are reached over links that they dial.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{EVERYTHING, Engine, Toolyard, alive, signal, wait_until};

const ONLINE: Duration = Duration::from_secs(60);

/// A `toolyard dtma` of this test's own.
pub(crate) struct Agent {
    child: Child,
    dir: tempfile::TempDir,
}

impl Agent {
    pub(crate) fn start(toolyard: &Toolyard, dir: tempfile::TempDir, token: Option<&str>) -> Self {
        Self::spawn(toolyard.command(), dir, token, &[])
    }

    pub(crate) fn spawn(mut command: Command, dir: tempfile::TempDir, token: Option<&str>, settings: &[&str]) -> Self {
        let log = dir.path().join("agent.log");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log).expect("a log file");
        if let Some(token) = token {
            command.env("TOOLYARD_TOKEN", token);
        }
        let child = command
            .args(["dtma", "--engine", "process", "--data-dir"])
            .arg(dir.path().join("data"))
            .args(settings.iter().flat_map(|setting| ["--set", setting]))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("the agent starts");
        Self { child, dir }
    }

    /// A new toolbox with its agent, online.
    fn enrolled(toolyard: &Toolyard, name: &str, labels: &str) -> Self {
        let token = enroll(toolyard, name, &["--labels", labels]);
        let agent = Self::start(toolyard, directory(), Some(&token));
        agent.wait_online(toolyard, name);
        agent
    }

    #[track_caller]
    pub(crate) fn wait_online(&self, toolyard: &Toolyard, name: &str) {
        let until = Instant::now() + ONLINE;
        while toolbox(toolyard, name)["state"] != "online" || toolbox(toolyard, name)["link"]["connected"] != true {
            assert!(Instant::now() < until, "toolbox {name} is not online\n{}\n{}", self.log(), toolyard.log_text());
            crate::harness::pause();
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("agent.log")).unwrap_or_default()
    }

    /// `SIGKILL`, leaving its servers to their supervisors.
    pub(crate) fn kill(mut self) -> tempfile::TempDir {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.dir
    }

    /// Ctrl-C: servers are stopped too.
    pub(crate) fn interrupt(mut self) {
        signal(self.child.id(), "INT");
        let _ = self.child.wait();
    }
}

pub(crate) fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

pub(crate) fn enroll(toolyard: &Toolyard, name: &str, more: &[&str]) -> String {
    let enrolled = toolyard.json(&[&["toolboxes", "enroll", name], more].concat());
    let token = enrolled["token"].as_str().expect("a token").to_owned();
    assert!(enrolled["command"].as_str().expect("a command").contains(&token), "{enrolled:#}");
    token
}

pub(crate) fn toolbox(toolyard: &Toolyard, name: &str) -> Value {
    let list = toolyard.json(&["toolboxes", "list"]);
    let found = list["items"].as_array().and_then(|items| items.iter().find(|item| item["name"] == name).cloned());
    found.unwrap_or_default()
}

fn pid_of(server: &Value) -> u32 {
    server["instances"][0]["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a running instance")
}

pub(crate) fn echoes(toolyard: &Toolyard, server: &str) -> bool {
    toolyard.run(&["call", server, "echo", r#"{"message":"over the link"}"#]).status.success()
}

/// How an agent that cannot start ends: what it wrote to standard error.
fn refused(toolyard: &Toolyard, dir: &tempfile::TempDir, token: &str) -> String {
    let mut command = toolyard.command();
    command.env("TOOLYARD_TOKEN", token).args(["dtma", "--data-dir"]).arg(dir.path().join("data"));
    let output = command.output().expect("the agent runs");
    assert!(!output.status.success(), "it was not refused");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What the process listens on, as `ss` says.
fn listeners_of(pid: u32) -> Vec<String> {
    let output = Command::new("ss").args(["-ltnpH"]).output().expect("ss runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().filter(|line| line.contains(&format!("pid={pid},"))).map(str::to_owned).collect()
}

#[test]
fn a_server_on_a_second_agent_is_deployed_and_called_over_the_link_and_survives_the_agents_death() {
    let toolyard = Toolyard::start(Engine::Sqlite);
    let agent = Agent::enrolled(&toolyard, "edge1", "zone=a");
    assert_eq!(listeners_of(agent.child.id()), Vec::<String>::new(), "an agent listens on nothing");

    let server = toolyard.json(&["deploy", EVERYTHING, "--name", "far", "--toolbox", "edge1", "--wait"]);
    assert_eq!(server["instances"][0]["toolbox"], "edge1", "{server:#}");
    let echo = || toolyard.json(&["call", "far", "echo", r#"{"message":"over the link"}"#]);
    assert_eq!(echo()["content"][0]["text"], "Echo: over the link");
    assert!(toolyard.ok(&["servers", "logs", "far"]).contains("started process"), "logs come over the link too");

    let before = pid_of(&server);
    let agent = Agent::start(&toolyard, agent.kill(), Some("not-a-token"));
    assert!(alive(before), "the server outlives its agent");
    wait_until(Duration::from_secs(60), "calls work again, without a token", || echoes(&toolyard, "far"));
    assert!(agent.log().contains("going on without it"), "{}", agent.log());
    assert_eq!(pid_of(&toolyard.json(&["servers", "show", "far"])), before, "the same process serves on");

    agent.interrupt();
    wait_until(Duration::from_secs(30), "the server ends with its agent", || !alive(before));
}

#[test]
fn an_agent_in_development_at_a_control_plane_that_is_not_says_so_in_its_log_and_in_its_toolbox() {
    let settings = ["env=staging", "require_isolation=false", "operations_listen=127.0.0.1:0"];
    let toolyard = Toolyard::start_with(Engine::Sqlite, "127.0.0.1", &settings);
    let enrolled = toolyard.json(&["toolboxes", "enroll", "edge1"]);
    let command = enrolled["command"].as_str().expect("a command");
    assert!(command.starts_with("TOOLYARD_ENV=staging TOOLYARD_TOKEN="), "{command}");
    let agent = Agent::start(&toolyard, directory(), enrolled["token"].as_str());
    agent.wait_online(&toolyard, "edge1");
    let warns = || agent.log().contains("start it with TOOLYARD_ENV=staging");
    wait_until(Duration::from_secs(30), "the agent warns", warns);
    let shown = toolyard.ok(&["toolboxes", "show", "edge1"]);
    assert!(shown.contains("development, and its control plane's is staging"), "{shown}");
    agent.interrupt();
}

#[test]
fn three_toolboxes_join_and_a_server_goes_where_its_labels_say() {
    let toolyard = Toolyard::start(Engine::Postgres);
    let agents = [("edge1", "zone=a"), ("edge2", "zone=b,disk=ssd"), ("edge3", "zone=c")]
        .map(|(name, labels)| Agent::enrolled(&toolyard, name, labels));
    let listed = toolbox(&toolyard, "edge2");
    assert_eq!((&listed["engine"], &listed["labels"]["disk"]), (&"process".into(), &"ssd".into()), "{listed:#}");
    assert!(listed["certificate_expires_at"].is_string() && listed["version"].is_string(), "{listed:#}");

    let args = ["deploy", EVERYTHING, "--name", "labelled", "--toolbox-labels", "zone=b", "--wait"];
    let server = toolyard.json(&args);
    assert_eq!(server["instances"][0]["toolbox"], "edge2", "{server:#}");
    assert!(echoes(&toolyard, "labelled"));

    let drained = toolyard.json(&["toolboxes", "drain", "edge2"]);
    assert_eq!(drained["state"], "draining");
    assert!(echoes(&toolyard, "labelled"), "what runs there goes on");
    assert!(!toolyard.run(&["toolboxes", "label", "edge2", "not a label"]).status.success());
    agents.into_iter().for_each(Agent::interrupt);
}

#[test]
fn tokens_that_were_used_have_expired_or_are_for_another_toolbox_are_refused_and_audited() {
    let toolyard = Toolyard::start(Engine::Sqlite);
    let first = enroll(&toolyard, "edge1", &[]);
    let agent = Agent::start(&toolyard, directory(), Some(&first));
    agent.wait_online(&toolyard, "edge1");

    assert!(refused(&toolyard, &directory(), &first).contains("token_used"));
    let short = enroll(&toolyard, "edge2", &["--expires", "1s"]);
    let enrolled = Instant::now();
    wait_until(Duration::from_secs(10), "the token's second is over", || enrolled.elapsed() > Duration::from_secs(1));
    assert!(refused(&toolyard, &directory(), &short).contains("token_expired"));
    let foreign = enroll(&toolyard, "edge3", &[]);
    let dir = agent.kill();
    assert!(refused(&toolyard, &dir, &foreign).contains("token_foreign"));
    assert!(refused(&toolyard, &directory(), "not-a-token").contains("toolboxes enroll"));
    let output = toolyard.run(&["dtma", "--data-dir", "nothing-there"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("toolboxes enroll"), "without a token it says what to do");

    let audit = toolyard.json(&["audit"]);
    let codes: Vec<_> =
        audit["items"].as_array().expect("lines").iter().filter_map(|it| it["detail"]["code"].as_str()).collect();
    assert!(codes.contains(&"token_used") && codes.contains(&"token_expired"), "{audit:#}");

    let agent = Agent::start(&toolyard, dir, Some(&first));
    agent.wait_online(&toolyard, "edge1");
    agent.interrupt();
}

#[test]
fn an_agent_joins_nothing_in_the_data_directory_of_a_control_plane() {
    let toolyard = Toolyard::start(Engine::Sqlite);
    let token = enroll(&toolyard, "edge1", &[]);
    let told = refused(&toolyard, &toolyard.dir, &token);
    assert!(told.contains("setting `data_dir`") && told.contains("--data-dir"), "{told}");
    assert!(!toolyard.dir.path().join("data").join("identity").exists());
}

#[test]
fn a_control_plane_is_not_started_in_the_data_directory_of_an_agent_while_that_runs_or_after() {
    let toolyard = Toolyard::start(Engine::Sqlite);
    let agent = Agent::enrolled(&toolyard, "edge1", "");
    let refused_in = |dir: &std::path::Path| {
        let served = toolyard.command().args(["serve", "--data-dir"]).arg(dir).output().expect("it runs");
        let told = String::from_utf8_lossy(&served.stderr).into_owned();
        assert_eq!(served.status.code(), Some(78), "{told}");
        assert!(told.contains("setting `data_dir`") && told.contains("toolyard dtma"), "{told}");
        for made in ["serve.lock", "toolyard.db"] {
            assert!(!dir.join(made).exists(), "{made}");
        }
    };
    refused_in(&agent.dir.path().join("data"));
    let dir = agent.kill();
    refused_in(&dir.path().join("data"));
    // Its own toolbox is one too.
    refused_in(&toolyard.dir.path().join("data/toolbox"));
    let agent = Agent::start(&toolyard, dir, None);
    agent.wait_online(&toolyard, "edge1");
    agent.interrupt();
}

#[test]
fn an_agent_beside_its_control_plane_says_that_its_servers_reach_none_of_the_listeners() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let [operations, closed] = [(); 2].map(|()| crate::harness::free_port());
        let listen = format!("operations_listen=127.0.0.1:{operations}");
        let toolyard = Toolyard::start_with(engine, "127.0.0.1", &[&listen]);
        let token = enroll(&toolyard, "edge1", &[]);
        let setting = format!("closed_ports={closed}");
        let agent = Agent::spawn(toolyard.command(), directory(), Some(&token), &[&setting]);
        agent.wait_online(&toolyard, "edge1");
        let mut ports = [toolyard.port, toolyard.agent_port, operations, closed];
        ports.sort_unstable();
        let wanted = format!("; ports: {}", ports.map(|port| port.to_string()).join(", "));
        wait_until(ONLINE, "the ports are told", || {
            let told =
                toolyard.json(&["toolboxes", "show", "edge1"])["report"]["enforcement"]["toolyard_ports"].clone();
            told["enforced"] == false || told["detail"].as_str().is_some_and(|detail| detail.ends_with(&wanted))
        });
        agent.interrupt();
    }
}

#[test]
fn a_revoked_toolbox_is_cut_off_within_a_second_and_comes_back_with_a_new_token() {
    let toolyard = Toolyard::start(Engine::Sqlite);
    let agent = Agent::enrolled(&toolyard, "edge1", "");
    toolyard.json(&["deploy", EVERYTHING, "--name", "far", "--toolbox", "edge1", "--wait"]);

    let revoked = Instant::now();
    toolyard.json(&["toolboxes", "revoke", "edge1"]);
    wait_until(Duration::from_secs(5), "the link is closed", || {
        toolbox(&toolyard, "edge1")["link"]["connected"] == false
    });
    assert!(revoked.elapsed() < Duration::from_secs(2), "the command and one look included: {:?}", revoked.elapsed());
    assert!(!echoes(&toolyard, "far"));
    wait_until(Duration::from_secs(30), "the agent is told", || agent.log().contains("revoked"));
    assert_eq!(toolbox(&toolyard, "edge1")["link"]["connected"], false, "it does not get back in");

    let rejoin = toolyard.json(&["toolboxes", "rejoin", "edge1"]);
    let token = rejoin["token"].as_str().expect("a token").to_owned();
    let agent = Agent::start(&toolyard, agent.kill(), Some(&token));
    agent.wait_online(&toolyard, "edge1");
    wait_until(Duration::from_secs(60), "calls work again", || echoes(&toolyard, "far"));
    agent.interrupt();
}

#[test]
fn what_runs_on_a_removed_toolbox_ends_and_is_not_started_again_with_its_agent() {
    let toolyard = Toolyard::start(Engine::Sqlite);
    let agent = Agent::enrolled(&toolyard, "edge1", "zone=a");
    let server = toolyard.json(&["deploy", EVERYTHING, "--name", "far", "--toolbox-labels", "zone=a", "--wait"]);
    let pid = pid_of(&server);

    toolyard.json(&["toolboxes", "remove", "edge1", "--now"]);
    wait_until(Duration::from_secs(60), "its server ends", || !alive(pid));
    let told = |agent: &Agent| agent.log().matches("this toolbox was removed").count();
    wait_until(Duration::from_secs(10), "its log says so", || told(&agent) == 1);

    let agent = Agent::start(&toolyard, agent.kill(), None);
    wait_until(Duration::from_secs(60), "it is told again", || told(&agent) == 2);
    let kept = std::fs::read(agent.dir.path().join("data/desired.json")).expect("it is kept");
    let kept: Value = serde_json::from_slice(&kept).expect("JSON");
    assert_eq!(kept["desired"]["instances"], serde_json::json!([]));
    assert_eq!(agent.log().matches("took over a running server").count(), 0, "{}", agent.log());
    agent.interrupt();
}

#[test]
fn certificates_are_renewed_by_themselves_and_no_call_fails_meanwhile() {
    let toolyard = Toolyard::start_with(Engine::Sqlite, "127.0.0.1", &["agent_certificate_seconds=15"]);
    let agent = Agent::enrolled(&toolyard, "edge1", "");
    toolyard.json(&["deploy", EVERYTHING, "--name", "far", "--toolbox", "edge1", "--wait"]);
    let first = toolbox(&toolyard, "edge1")["certificate_expires_at"].clone();
    let until = Instant::now() + Duration::from_secs(35);
    let mut calls = 0;
    while Instant::now() < until {
        assert!(echoes(&toolyard, "far"), "call {calls} failed\n{}\n{}", agent.log(), toolyard.log_text());
        calls += 1;
    }
    let last = toolbox(&toolyard, "edge1")["certificate_expires_at"].clone();
    assert_ne!(first, last, "{}", agent.log());
    assert!(agent.log().matches("certificate renewed").count() >= 2, "{}", agent.log());
    agent.interrupt();
}

#[test]
fn a_replica_without_a_link_reaches_a_toolbox_by_way_of_another_and_agents_link_to_every_replica() {
    let mut first = Toolyard::start_with(Engine::Postgres, "127.0.0.1", &["local_toolbox=false"]);
    let agent = Agent::enrolled(&first, "edge1", "");
    first.json(&["deploy", EVERYTHING, "--name", "far", "--toolbox", "edge1", "--wait"]);

    // Where it says that it is nobody listens, so that no agent gets there.
    let unreached = first.replica(&["local_toolbox=false", "agent_addresses=127.0.0.1:1"]);
    wait_until(Duration::from_secs(30), "calls go by way of the first replica", || echoes(&unreached, "far"));
    assert_eq!(toolbox(&unreached, "edge1")["link"]["connected"], false);
    assert!(unreached.ok(&["servers", "logs", "far"]).contains("started process"), "and logs");

    let other = first.replica(&["local_toolbox=false"]);
    wait_until(Duration::from_secs(60), "the agent links to the new replica", || {
        toolbox(&other, "edge1")["link"]["connected"] == true
    });
    first.kill();
    assert!(echoes(&other, "far"), "its link does not need the first one\n{}", other.log_text());
    wait_until(Duration::from_secs(60), "calls go by way of the new replica", || echoes(&unreached, "far"));
    agent.interrupt();
}

/// A forward proxy: answers `CONNECT` with 503 as often as told, then connects.
struct Proxy {
    port: u16,
    refused: Arc<AtomicU32>,
    asked_before_first: Arc<AtomicU32>,
}

impl Proxy {
    fn start(refusals: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (refused, asked_before_first) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let (counted, first) = (refused.clone(), asked_before_first.clone());
        std::thread::spawn(move || {
            for asked in 1_u32.. {
                let Ok((mut client, _)) = listener.accept() else { return };
                let target = connect_target(&mut client);
                if counted.load(Ordering::SeqCst) < refusals {
                    counted.fetch_add(1, Ordering::SeqCst);
                    let _ = client.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
                    continue;
                }
                let _ = first.compare_exchange(0, asked, Ordering::SeqCst, Ordering::SeqCst);
                let Ok(server) = TcpStream::connect(target) else { continue };
                let _ = client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n");
                for (mut from, mut to) in
                    [(client.try_clone(), server.try_clone()), (server.try_clone(), client.try_clone())]
                        .map(|(from, to)| (from.expect("a handle"), to.expect("a handle")))
                {
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(std::net::Shutdown::Both);
                    });
                }
            }
        });
        Self { port, refused, asked_before_first }
    }
}

fn connect_target(client: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0_u8];
    while !head.ends_with(b"\r\n\r\n") && client.read_exact(&mut byte).is_ok() {
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).unwrap_or_default().to_owned()
}

#[test]
fn an_agent_behind_a_proxy_that_fails_twice_asks_exactly_three_times_and_joins_once() {
    let toolyard = Toolyard::start(Engine::Sqlite);
    let proxy = Proxy::start(2);
    let token = enroll(&toolyard, "edge1", &[]);
    let setting = format!("proxy=http://127.0.0.1:{}", proxy.port);
    let agent = Agent::spawn(toolyard.command(), directory(), Some(&token), &[&setting]);
    agent.wait_online(&toolyard, "edge1");
    assert_eq!((proxy.refused.load(Ordering::SeqCst), proxy.asked_before_first.load(Ordering::SeqCst)), (2, 3));
    let audit = toolyard.json(&["audit"]);
    let joins =
        audit["items"].as_array().expect("lines").iter().filter(|line| line["action"] == "toolbox.join").count();
    assert_eq!(joins, 1, "{audit:#}");
    agent.interrupt();
}

#[test]
fn calls_to_an_agent_that_hangs_end_and_then_fail_at_once_until_it_answers_again() {
    let toolyard = Toolyard::start(Engine::Sqlite);
    let agent = Agent::enrolled(&toolyard, "edge1", "");
    toolyard.json(&["deploy", EVERYTHING, "--name", "far", "--toolbox", "edge1", "--wait"]);
    signal(agent.child.id(), "STOP");
    let calls: Vec<_> = (0..6)
        .map(|_| {
            let mut call = toolyard.command();
            call.args(["call", "far", "echo", r#"{"message":"anybody there"}"#]);
            call.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the CLI runs")
        })
        .collect();
    for mut call in calls {
        assert!(!call.wait().expect("the CLI ends").success());
    }
    let link = toolbox(&toolyard, "edge1")["link"].clone();
    assert_ne!(link["breaker"], "closed", "{link:#}");
    let before = Instant::now();
    assert!(!echoes(&toolyard, "far"));
    assert!(before.elapsed() < Duration::from_secs(3), "the CLI's own time included: {:?}", before.elapsed());
    signal(agent.child.id(), "CONT");
    wait_until(Duration::from_secs(60), "calls work again", || echoes(&toolyard, "far"));
    assert_eq!(toolbox(&toolyard, "edge1")["link"]["breaker"], "closed");
    agent.interrupt();
}

/// A host of its own: a network namespace with one cable to this one.
struct Host {
    name: String,
    near: String,
    address: String,
}

impl Host {
    fn new() -> Self {
        let number = std::process::id() % 50_000;
        let (third, fourth) = (number / 250, number % 250);
        let host = Self {
            name: format!("tyfleet{number}"),
            near: format!("tyf{number}"),
            address: format!("10.{}.{fourth}.1", 100 + third % 100),
        };
        let (name, near, far) = (host.name.as_str(), host.near.as_str(), format!("{}b", host.near));
        let (inside, outside) = (format!("10.{}.{fourth}.2/24", 100 + third % 100), format!("{}/24", host.address));
        ip(&["netns", "add", name]);
        ip(&["link", "add", near, "type", "veth", "peer", "name", &far]);
        ip(&["link", "set", &far, "netns", name]);
        ip(&["addr", "add", &outside, "dev", near]);
        ip(&["link", "set", near, "up"]);
        ip(&["-n", name, "addr", "add", &inside, "dev", &far]);
        ip(&["-n", name, "link", "set", &far, "up"]);
        ip(&["-n", name, "link", "set", "lo", "up"]);
        host
    }

    /// The cable is pulled, or put back.
    fn cable(&self, state: &str) {
        ip(&["link", "set", &self.near, state]);
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "del", &self.near]).status();
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

#[track_caller]
fn ip(args: &[&str]) {
    let output = Command::new("ip").args(args).output().expect("`ip` runs");
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {args:?}: {why} (this test needs root and network namespaces)");
}

#[test]
fn a_host_that_is_cut_off_is_unreachable_and_comes_back_by_itself() {
    let host = Host::new();
    let toolyard = Toolyard::start_with(Engine::Sqlite, &host.address, &["toolbox_silence_seconds=35"]);
    let token = enroll(&toolyard, "edge1", &[]);
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &host.name, env!("CARGO_BIN_EXE_toolyard")]).env_remove("TOOLYARD_ENV");
    command.current_dir(toolyard.dir.path());
    let agent = Agent::spawn(command, directory(), Some(&token), &[]);
    agent.wait_online(&toolyard, "edge1");

    host.cable("down");
    wait_until(Duration::from_secs(15), "the link is given up", || {
        toolbox(&toolyard, "edge1")["link"]["connected"] == false
    });
    wait_until(Duration::from_secs(90), "the toolbox is unreachable", || {
        toolbox(&toolyard, "edge1")["state"] == "unreachable"
    });
    host.cable("up");
    agent.wait_online(&toolyard, "edge1");
    agent.interrupt();
}

#[test]
fn the_doctor_says_what_works_and_what_to_do_about_the_rest() {
    let toolyard = Toolyard::start(Engine::Sqlite);
    let token = enroll(&toolyard, "edge1", &[]);
    let dir = directory();
    let data = dir.path().join("data").display().to_string();
    let doctor = |more: &[&str]| {
        let output = toolyard.run(&[&["dtma", "--data-dir", &data, "--output", "json"], more, &["doctor"]].concat());
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.success(), report)
    };
    let verdict = |report: &Value, check: &str| {
        let items = report["items"].as_array().cloned().unwrap_or_default();
        items
            .iter()
            .find(|item| item["check"].as_str().is_some_and(|it| it.starts_with(check)))
            .cloned()
            .unwrap_or_default()
    };
    let (good, report) = doctor(&["--token", &token]);
    assert!(good, "{report:#}");
    for check in ["data directory", "disk", "reach", "clock", "node"] {
        assert_eq!(verdict(&report, check)["verdict"], "ok", "{check}: {report:#}");
    }
    let (good, report) = doctor(&[]);
    assert!(!good && verdict(&report, "identity")["detail"].as_str().is_some_and(|text| text.contains("--token")));

    let agent = Agent::start(&toolyard, dir, Some(&token));
    agent.wait_online(&toolyard, "edge1");
    assert_eq!(verdict(&doctor(&[]).1, "certificate")["verdict"], "ok");
    let foreign = enroll(&toolyard, "edge2", &[]);
    let (good, report) = doctor(&["--token", &foreign]);
    let told = verdict(&report, "token")["detail"].as_str().unwrap_or_default().to_owned();
    assert!(!good && told.contains("token_foreign") && told.contains("`edge1`"), "{report:#}");
    toolyard.json(&["toolboxes", "revoke", "edge1"]);
    let (good, report) = doctor(&[]);
    assert!(!good && verdict(&report, "certificate")["verdict"] == "fail", "{report:#}");
    agent.interrupt();
}
