//! Three replicas behind the proxy of the deployment guide, two agents, and the clients of others: what a restart or the
//! death of a replica costs a caller.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use toolyard_test_support::{Engine, KEY, Row, Toolyard, free_port, long, test_variable, wait_until};

use crate::agent::{Agent, link};
use crate::links::SERVER;

/// The clients: a name, the interpreter below `$TOOLYARD_TEST_DIR/clients`, the eras.
const CLIENTS: &[(&str, Sdk, &[&str])] = &[
    ("TypeScript SDK 1.x", Sdk::TypeScript("1"), &["legacy"]),
    ("TypeScript SDK 2.x", Sdk::TypeScript("2"), &["legacy", "modern"]),
    ("Python SDK 1.30.0", Sdk::Python("1.30.0"), &["legacy"]),
    ("Python SDK 2.3.0", Sdk::Python("2.3.0"), &["legacy", "modern"]),
];
const CALLERS: usize = 6;
/// A proxy hears of a death a moment later, and sends on a connection that has ended meanwhile.
const HEARD_MS: i64 = 20;

#[derive(Clone, Copy)]
enum Sdk {
    TypeScript(&'static str),
    Python(&'static str),
}

/// A call that failed, in milliseconds since 1970.
struct Failure {
    began: i64,
    ended: i64,
    /// Who made it, and what it was told.
    what: String,
}

struct World {
    replicas: Vec<Toolyard>,
    url: String,
    /// Where the replicas tell their metrics.
    operations: [u16; 3],
    _proxy: Proxy,
    _agents: [Agent; 2],
}

/// HAProxy as in the deployment guide, word for word but for its addresses.
struct Proxy(Child);

impl Proxy {
    fn start(replicas: &[Toolyard], port: u16) -> Self {
        let guide = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/guides/deployment.md");
        let guide = std::fs::read_to_string(guide).expect("the deployment guide");
        let (_, text) = guide.split_once("```text\ndefaults\n").expect("the proxy of the guide");
        let (text, _) = text.split_once("```").expect("its end");
        let mut configuration = "defaults\n".to_owned();
        for line in text.lines().filter(|line| !line.trim_start().starts_with("server ")) {
            let bind = format!("  bind 127.0.0.1:{port}");
            let line = if line.trim_start().starts_with("bind ") { &bind } else { line };
            configuration.extend([line, "\n"]);
        }
        for (number, replica) in replicas.iter().enumerate() {
            configuration.push_str(&format!("  server r{number} 127.0.0.1:{}\n", replica.port));
        }
        let file = replicas[0].dir().join("haproxy.cfg");
        std::fs::write(&file, configuration).expect("a file");
        let log = std::fs::File::create(replicas[0].dir().join("haproxy.log")).expect("a log");
        let mut command = Command::new("haproxy");
        command.args(["-db", "-f"]).arg(&file).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a second handle")).stderr(log);
        Self(command.spawn().expect("haproxy is installed: run `make test`"))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl World {
    fn new() -> Self {
        let operations = [(); 3].map(|()| free_port());
        let settings = operations.map(|port| format!("operations_listen=127.0.0.1:{port}"));
        let delay = "shutdown_delay_seconds=5";
        let first = Toolyard::on(Engine::Postgres)
            .without_toolbox()
            .setting(delay)
            .setting(&settings[0])
            .script("links", SERVER)
            .start();
        let others = [&settings[1], &settings[2]].map(|operations| first.replica(&[delay, operations]));
        let agents = ["east", "west"].map(|name| Agent::join(&first, name));
        let _ = first.deploy("links", &["--replicas", "4"]);
        let mut replicas = vec![first];
        replicas.extend(others);
        for replica in &replicas {
            for toolbox in ["east", "west"] {
                wait_until(Duration::from_secs(60), "every replica has a link", || {
                    link(replica, toolbox)["connected"] == true
                });
            }
        }
        let port = free_port();
        let proxy = Proxy::start(&replicas, port);
        let url = format!("http://127.0.0.1:{port}/mcp/default/servers/links");
        let world = Self { replicas, url, operations, _proxy: proxy, _agents: agents };
        wait_until(Duration::from_secs(30), "the proxy sees the replicas", || {
            world.replicas[0].runtime().block_on(async {
                let ready = reqwest::get(format!("http://127.0.0.1:{port}/readyz")).await;
                ready.is_ok_and(|answer| answer.status() == 200)
            })
        });
        world
    }

    /// What the replicas wrote of links, of each other and of calls that failed.
    fn log_of_links(&self) -> String {
        const TOLD: [&str; 4] = ["link ", "a call failed", "reach", "is ready"];
        let mut told = String::new();
        for (number, replica) in self.replicas.iter().enumerate() {
            let log = replica.log_text();
            let lines = log.lines().filter(|line| TOLD.iter().any(|words| line.contains(words)));
            lines.for_each(|line| told.extend([&format!("replica {number}: "), line, "\n"]));
        }
        told
    }

    /// Every client in every era calls, `calls` times all together, while `hurt` is done over and over, after some calls
    /// each time, with one replica after the other. What failed, and how often replicas were hurt.
    fn hurt(&mut self, calls: usize, mut hurt: impl FnMut(&mut Toolyard)) -> (Vec<Failure>, usize) {
        let (passed, running) = (AtomicUsize::new(0), AtomicUsize::new(CALLERS));
        let mut times = 0;
        let url = self.url.clone();
        let failures = std::thread::scope(|scope| {
            let callers: Vec<_> = CLIENTS
                .iter()
                .flat_map(|(name, sdk, eras)| eras.iter().map(move |era| (format!("{name} ({era})"), *sdk, *era)))
                .map(|(name, sdk, era)| {
                    let (url, passed, running) = (&url, &passed, &running);
                    scope.spawn(move || {
                        let failed = call(&name, command(sdk, url, era, calls / CALLERS), passed);
                        running.fetch_sub(1, Ordering::SeqCst);
                        failed
                    })
                })
                .collect();
            // Some ten seconds of calls between two.
            let apart = long(300, 2000);
            loop {
                let until = passed.load(Ordering::SeqCst) + apart;
                let all_ended = || running.load(Ordering::SeqCst) == 0;
                wait_until(Duration::from_secs(120), "calls pass", || {
                    passed.load(Ordering::SeqCst) >= until || all_ended()
                });
                if all_ended() {
                    break;
                }
                hurt(&mut self.replicas[times % 3]);
                times += 1;
            }
            callers.into_iter().flat_map(|caller| caller.join().expect("a caller")).collect()
        });
        assert_eq!(passed.into_inner(), calls / CALLERS * CALLERS, "every call is accounted for");
        (failures, times)
    }
}

fn command(sdk: Sdk, url: &str, era: &str, calls: usize) -> Command {
    let clients = PathBuf::from(test_variable("TOOLYARD_TEST_DIR")).join("clients");
    let scripts = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("clients");
    let mut command = match sdk {
        Sdk::TypeScript(version) => {
            // Node resolves packages from where the script is.
            let copy = clients.join("typescript").join(format!("caller-{}-{version}-{era}.mjs", std::process::id()));
            std::fs::copy(scripts.join("caller.mjs"), &copy).expect("the clients are installed: run `make test`");
            let mut command = Command::new("node");
            command.arg(copy).arg(version);
            command
        }
        Sdk::Python(version) => {
            let mut command = Command::new(clients.join(format!("python-{version}/bin/python")));
            command.arg(scripts.join("caller.py"));
            command
        }
    };
    command.args([url, KEY, era, "sleep", r#"{"ms": 20}"#, &calls.to_string()]);
    command
}

/// Runs a client to its end; the calls of it that failed.
fn call(name: &str, mut command: Command, passed: &AtomicUsize) -> Vec<Failure> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn();
    let mut child = child.unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut failed = Vec::new();
    for line in BufReader::new(child.stdout.take().expect("piped")).lines() {
        let call: Value =
            serde_json::from_str(&line.expect("a line")).unwrap_or_else(|error| panic!("{name}: {error}"));
        let at = |field: &str| call[field].as_i64().expect("a time");
        if let Some(error) = call["error"].as_str() {
            failed.push(Failure { began: at("began"), ended: at("ended"), what: format!("{name}: {error}") });
        }
        passed.fetch_add(1, Ordering::SeqCst);
    }
    let status = child.wait().expect("it can be waited for");
    assert!(status.success(), "{name}: {status}");
    failed
}

#[expect(clippy::disallowed_methods, reason = "the machine's clock, as its clients write it")]
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    i64::try_from(since.as_millis()).expect("a time of this century")
}

fn told(failed: &[Failure]) -> Vec<String> {
    failed.iter().map(|call| format!("{} to {}: {}", call.began, call.ended, call.what)).collect()
}

#[test]
fn a_rolling_restart_fails_no_call_of_any_client() {
    let mut world = World::new();
    let calls = long(1500, 12_000);
    let (failed, restarts) = world.hurt(calls, |replica| {
        assert_eq!(replica.stop_by("TERM"), Some(0));
        replica.serve();
    });
    Row::of("replicas", "a rolling restart of three replicas behind HAProxy, under clients of six SDKs and eras")
        .expected("0 calls fail")
        .got(format!("{} of {calls} calls fail in {restarts} restarts", failed.len()));
    assert!(restarts > 0 && failed.is_empty(), "{:#?}", told(&failed));
}

#[test]
fn the_death_of_a_replica_fails_the_calls_that_it_had_and_no_other() {
    let mut world = World::new();
    let calls = long(1500, 12_000);
    let mut kills = Vec::new();
    let (failed, times) = world.hurt(calls, |replica| {
        let before = now_ms();
        replica.kill();
        kills.push((before, now_ms()));
        replica.serve();
    });
    let (in_flight, others): (Vec<Failure>, Vec<_>) = failed
        .into_iter()
        .partition(|call| kills.iter().any(|(before, after)| call.began <= *after + HEARD_MS && *before <= call.ended));
    Row::of("replicas", "one of three replicas behind HAProxy is killed again and again, under the same clients")
        .expected("only calls in flight there fail")
        .got(format!(
            "{} in flight and {} other of {calls} calls fail in {times} kills",
            in_flight.len(),
            others.len()
        ));
    assert!(times > 0 && others.is_empty(), "{:#?}\n{}", told(&others), world.log_of_links());
    assert!(
        in_flight.len() <= times * CALLERS,
        "more than one call of a client for each kill: {:#?}",
        told(&in_flight)
    );
}

#[test]
fn a_client_that_goes_away_behind_the_proxy_ends_its_call() {
    let world = World::new();
    let port = world.url.split([':', '/']).nth(4).expect("a port").parse().expect("a port");
    let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"t","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}"#;
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{{meta},"name":"sleep","arguments":{{"ms":100000}}}}}}"#
    );
    let request = format!(
        "POST /mcp/default/servers/links HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n\
         Accept: application/json, text/event-stream\r\nContent-Type: application/json\r\n\
         Mcp-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: sleep\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let under_way = |calls: bool| {
        let of = |port: &u16| world.replicas[0].runtime().block_on(metric(*port, "toolyard_calls_in_flight"));
        wait_until(Duration::from_secs(20), "calls begin or end", || {
            (world.operations.iter().map(of).sum::<f64>() > 0.0) == calls
        })
    };
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("a connection");
    client.write_all(request.as_bytes()).expect("sent");
    under_way(true);
    drop(client);
    let took = under_way(false);
    Row::of("replicas", "a client behind HAProxy goes away while its call of 100 s is under way")
        .expected("the call ends")
        .got(format!("it ended after {took:.1?}"));
}

async fn metric(port: u16, name: &str) -> f64 {
    let answer = reqwest::get(format!("http://127.0.0.1:{port}/metrics")).await.expect("metrics");
    let text = answer.text().await.expect("text");
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in {text}"))
}
