//! Agents on hosts that must not dial out: they listen, and the control plane offers them connections.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fleet::{Agent, directory, echoes, enroll, toolbox};
use crate::harness::{EVERYTHING, Engine, Toolyard, free_port, wait_until};

/// A new toolbox with an agent that listens, and where.
struct Listening {
    agent: Agent,
    address: String,
}

impl Listening {
    fn enrolled(toolyard: &Toolyard, name: &str) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let token = enroll(toolyard, name, &["--address", &address]);
        let agent = spawn(toolyard, directory(), Some(&token), &address);
        agent.wait_online(toolyard, name);
        Self { agent, address }
    }

    fn again(self, toolyard: &Toolyard) -> Self {
        let Self { agent, address } = self;
        Self { agent: spawn(toolyard, agent.kill(), None, &address), address }
    }
}

fn spawn(toolyard: &Toolyard, dir: tempfile::TempDir, token: Option<&str>, address: &str) -> Agent {
    Agent::spawn(toolyard.command(), dir, token, &[&format!("dtma_listen={address}")])
}

/// The process's connections whose own end is not at `address`: those it dialled.
fn dialled(pid: u32, address: &str) -> Vec<String> {
    let output = Command::new("ss").args(["-tnpH"]).output().expect("ss runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let own = text.lines().filter(|line| line.contains(&format!("pid={pid},")));
    own.filter(|line| line.split_ascii_whitespace().nth(3) != Some(address)).map(str::to_owned).collect()
}

fn connected(toolyard: &Toolyard, name: &str) -> bool {
    let link = toolbox(toolyard, name)["link"].clone();
    link["connected"] == true && link["bulk"] == true
}

#[test]
fn a_listening_agent_joins_and_serves_dials_nothing_and_survives_restarts_of_either_side() {
    let mut toolyard = Toolyard::start(Engine::Sqlite);
    let listening = Listening::enrolled(&toolyard, "edge1");
    assert_eq!(toolbox(&toolyard, "edge1")["address"], listening.address.as_str());
    let server = toolyard.json(&["deploy", EVERYTHING, "--name", "far", "--toolbox", "edge1", "--wait"]);
    assert_eq!(server["instances"][0]["toolbox"], "edge1", "{server:#}");
    assert!(echoes(&toolyard, "far"));
    assert!(toolyard.ok(&["servers", "logs", "far"]).contains("started process"), "logs come the same way");
    let made = dialled(listening.agent.pid(), &listening.address);
    assert!(made.is_empty(), "it dialled: {made:#?}");

    let listening = listening.again(&toolyard);
    wait_until(Duration::from_secs(60), "calls work again, without a token", || echoes(&toolyard, "far"));

    toolyard.terminate();
    toolyard.serve();
    wait_until(Duration::from_secs(60), "the control plane comes back to it", || echoes(&toolyard, "far"));
    wait_until(Duration::from_secs(60), "with both links", || connected(&toolyard, "edge1"));
    listening.agent.interrupt();
}

#[test]
fn every_replica_reaches_a_listening_agent_by_itself() {
    let mut first = Toolyard::start_with(Engine::Postgres, "127.0.0.1", &["local_toolbox=false"]);
    let listening = Listening::enrolled(&first, "edge1");
    first.json(&["deploy", EVERYTHING, "--name", "far", "--toolbox", "edge1", "--wait"]);
    let second = first.replica(&["local_toolbox=false"]);
    wait_until(Duration::from_secs(60), "the second replica has links", || connected(&second, "edge1"));
    assert!(connected(&first, "edge1"), "and the first one keeps its own");
    assert!(echoes(&first, "far") && echoes(&second, "far"));
    first.kill();
    assert!(echoes(&second, "far"), "its link does not need the first one\n{}", second.log_text());
    wait_until(Duration::from_secs(60), "it still syncs", || {
        second.run(&["deploy", EVERYTHING, "--name", "more", "--toolbox", "edge1", "--wait"]).status.success()
    });
    listening.agent.interrupt();
}

#[test]
fn strangers_and_another_control_plane_get_nowhere_and_hurt_nobody() {
    let toolyard = Toolyard::start(Engine::Sqlite);
    let listening = Listening::enrolled(&toolyard, "edge1");
    toolyard.json(&["deploy", EVERYTHING, "--name", "far", "--toolbox", "edge1", "--wait"]);
    let stranger = Toolyard::start(Engine::Sqlite);
    enroll(&stranger, "edge1", &["--address", &listening.address]);
    // Silent ones, ones that talk, and ones that begin as the control plane does.
    let mut strangers = Vec::new();
    for number in 0..200 {
        let mut stream = TcpStream::connect(&listening.address).expect("a connection");
        let said: &[u8] = match number % 3 {
            0 => b"",
            1 => b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            _ => b"toolyard-offer/1\nreplica 00000000-0000-0000-0000-000000000000\n",
        };
        // It may be closed already.
        let _ = stream.write_all(said);
        strangers.push(stream);
    }
    let listening = listening.again(&toolyard);
    wait_until(Duration::from_secs(60), "the agent is reached among them", || echoes(&toolyard, "far"));
    wait_until(Duration::from_secs(60), "with both links", || connected(&toolyard, "edge1"));
    wait_until(Duration::from_secs(30), "the other one is told why not", || {
        stranger.log_text().contains("no agent of this Toolyard")
    });
    let other = toolbox(&stranger, "edge1");
    assert_eq!((&other["state"], &other["link"]["connected"]), (&"enrolling".into(), &false.into()), "{other:#}");
    listening.agent.interrupt();
}

#[test]
fn the_address_can_be_changed_is_checked_and_the_doctor_says_whether_the_control_plane_gets_there() {
    let toolyard = Toolyard::start(Engine::Sqlite);
    let (wrong, address) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
    let token = enroll(&toolyard, "edge1", &["--address", &wrong]);
    let dir = directory();
    let data = dir.path().join("data").display().to_string();
    let doctor = |more: &[&str]| {
        let args =
            [&["dtma", "--data-dir", &data, "--listen", &address, "--output", "json"], more, &["doctor"]].concat();
        let output = toolyard.run(&args);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let found = report["items"].as_array().and_then(|items| {
            items
                .iter()
                .find(|item| item["check"].as_str().is_some_and(|check| check.starts_with("reached at")))
                .cloned()
        });
        found.unwrap_or(report)
    };
    assert_eq!(doctor(&["--token", &token])["verdict"], "fail");
    wait_until(Duration::from_secs(30), "the toolbox says why its agent is not reached", || {
        let failure = toolbox(&toolyard, "edge1")["offer_failure"].clone();
        let message = failure["message"].as_str().unwrap_or_default();
        message.contains(&format!("cannot connect to {wrong}: Connection refused")) && failure["at"].is_string()
    });
    let shown = toolyard.ok(&["toolboxes", "show", "edge1"]);
    assert!(shown.contains("not reached") && shown.contains("attempts failed, the last at 20"), "{shown}");
    for metadata in ["169.254.169.254:80", "[fd00:ec2::254]:80", "nowhere"] {
        let refused = toolyard.run(&["toolboxes", "address", "edge1", metadata]);
        assert!(!refused.status.success(), "{metadata}");
    }
    assert!(!toolyard.run(&["toolboxes", "address", "local", &address]).status.success(), "`local` is built in");
    toolyard.json(&["toolboxes", "address", "edge1", &address]);
    let found = doctor(&["--token", &token]);
    assert_eq!(found["verdict"], "ok", "{found:#}\n{}", toolyard.log_text());
    let agent = spawn(&toolyard, dir, Some(&token), &address);
    agent.wait_online(&toolyard, "edge1");
    assert!(toolbox(&toolyard, "edge1")["offer_failure"].is_null());

    // From now on it dials; its token said where.
    toolyard.json(&["toolboxes", "address", "edge1", "--none"]);
    assert!(toolbox(&toolyard, "edge1")["address"].is_null());
    let agent = Agent::start(&toolyard, agent.kill(), None);
    agent.wait_online(&toolyard, "edge1");
    agent.interrupt();
}

#[test]
fn the_doctor_of_an_agent_that_listens_finds_nothing_wrong_before_it_joined_and_after() {
    let toolyard = Toolyard::start(Engine::Sqlite);
    let address = format!("127.0.0.1:{}", free_port());
    let token = enroll(&toolyard, "edge1", &["--address", &address]);
    let dir = directory();
    let data = dir.path().join("data").display().to_string();
    let doctor = |more: &[&str]| {
        let args = ["dtma", "--data-dir", &data, "--engine", "process", "--listen", &address, "--output", "json"];
        let output = toolyard.run(&[&args[..], more, &["doctor"]].concat());
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        assert!(output.status.success(), "{report:#}\n{}", toolyard.log_text());
        let items = report["items"].as_array().cloned().unwrap_or_default();
        let ok = |check: &str| {
            let is_it = |item: &&Value| item["check"].as_str().is_some_and(|name| name.starts_with(check));
            items.iter().find(is_it).is_some_and(|item| item["verdict"] == "ok")
        };
        assert!(ok("reached at") && ok("clock"), "{report:#}");
        assert_eq!((ok("control plane"), ok("certificate")), (!more.is_empty(), more.is_empty()), "{report:#}");
    };
    doctor(&["--token", &token]);
    // What it took is taken: it can be looked at again, and the agent joins.
    doctor(&["--token", &token]);
    let agent = spawn(&toolyard, dir, Some(&token), &address);
    agent.wait_online(&toolyard, "edge1");
    let _dir = agent.kill();
    doctor(&[]);
}

/// A proxy that connects everything to one place, whatever name it is asked for by `CONNECT`; tells how often it was asked.
fn proxy(to: String) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut head = BufReader::new(stream.try_clone().expect("a copy"));
            let mut line = String::new();
            let _ = head.read_line(&mut line);
            if !line.starts_with("CONNECT edge1.example:8082 ") {
                continue;
            }
            while line.trim_end() != "" {
                line.clear();
                let _ = head.read_line(&mut line);
            }
            count.fetch_add(1, Ordering::Relaxed);
            // The agent may not be there yet.
            let Ok(there) = TcpStream::connect(&to) else { continue };
            let _ = (&stream).write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            let (from, into) = (there.try_clone().expect("a copy"), stream.try_clone().expect("a copy"));
            for (mut from, mut into) in [(from, into), (stream, there)] {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut into);
                    let _ = into.shutdown(Shutdown::Both);
                });
            }
        }
    });
    (port, asked)
}

#[test]
fn a_listening_agent_is_reached_through_the_proxy_that_is_set() {
    let address = format!("127.0.0.1:{}", free_port());
    let (port, asked) = proxy(address.clone());
    let set = format!("proxy=http://127.0.0.1:{port}");
    let toolyard = Toolyard::start_with(Engine::Sqlite, "127.0.0.1", &[&set, "local_toolbox=false"]);
    let token = enroll(&toolyard, "edge1", &["--address", "edge1.example:8082"]);
    let agent = spawn(&toolyard, directory(), Some(&token), &address);
    agent.wait_online(&toolyard, "edge1");
    wait_until(Duration::from_secs(60), "with both links", || connected(&toolyard, "edge1"));
    assert!(asked.load(Ordering::Relaxed) >= 3, "a sync and two links");
    assert!(toolbox(&toolyard, "edge1")["offer_failure"].is_null());
    agent.interrupt();
}

#[test]
fn a_listening_agent_renews_its_certificate_and_no_call_fails_meanwhile() {
    let toolyard = Toolyard::start_with(Engine::Sqlite, "127.0.0.1", &["agent_certificate_seconds=15"]);
    let listening = Listening::enrolled(&toolyard, "edge1");
    toolyard.json(&["deploy", EVERYTHING, "--name", "far", "--toolbox", "edge1", "--wait"]);
    let until = Instant::now() + Duration::from_secs(35);
    while Instant::now() < until {
        assert!(echoes(&toolyard, "far"), "a call failed\n{}\n{}", listening.agent.log(), toolyard.log_text());
    }
    let log = listening.agent.log();
    assert!(log.matches("certificate renewed").count() >= 2, "{log}");

    // Away for longer than its certificate is good: it shows the old one to get the next.
    let Listening { agent, address } = listening;
    let dir = agent.kill();
    let away = Instant::now();
    wait_until(Duration::from_secs(30), "its certificate has ended", || away.elapsed() > Duration::from_secs(17));
    let agent = spawn(&toolyard, dir, None, &address);
    agent.wait_online(&toolyard, "edge1");
    agent.interrupt();
}
