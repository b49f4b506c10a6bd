//! What runs goes on, and comes back, whatever ends: control plane, agent, network, the whole host.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::agents::{Agent, Runs, pid_of};
use crate::facts::Facts;
use crate::fixture::FIXTURE;
use crate::network::Network;
use crate::world::{EVERYTHING, Toolyard, alive, is_ready, processes_with, seconds, signal, wait_until};

#[test]
fn three_hosts_join_by_token_listen_on_nothing_and_get_what_their_labels_say() {
    let facts = Facts::of(1, "Three hosts join by token; a server goes where its labels say");
    let Some(mut facts) = facts.on_hosts("that agents on hosts of their own join, and listen on nothing") else {
        return;
    };
    let network = Network::new();
    let toolyard = Toolyard::start_on(&network);
    let hosts = [network.host(), network.host(), network.host()];
    let began = Instant::now();
    let agents: Vec<_> = hosts
        .iter()
        .zip([("edge1", "zone=a"), ("edge2", "zone=b,disk=ssd"), ("edge3", "zone=c")])
        .map(|(host, (name, labels))| Agent::enrolled(&toolyard, name, labels, Some(host), Runs::Processes))
        .collect();
    facts.observe(format!(
        "three `toolboxes enroll` and `dtma --token`, one after the other: online after {}",
        seconds(began.elapsed())
    ));

    let listed = toolyard.toolbox("edge2");
    assert_eq!((&listed["engine"], &listed["labels"]["disk"]), (&"process".into(), &"ssd".into()), "{listed:#}");
    assert!(listed["certificate_expires_at"].is_string() && listed["version"].is_string(), "{listed:#}");
    let server = toolyard.deploy("labelled", &["--toolbox-labels", "zone=b"]);
    assert_eq!(server["instances"][0]["toolbox"], "edge2", "{server:#}");
    assert!(toolyard.echoes("labelled"));
    facts.observe("`deploy --toolbox-labels zone=b` ran on edge2 and answered a call");

    for host in &hosts {
        assert_eq!(host.listeners(), Vec::<String>::new(), "an agent listens on nothing");
    }
    facts.observe("`ss -ltn` in each host's network namespace: 0 listeners, with a server running on one");
    drop(agents);
    facts.write();
}

#[test]
fn a_killed_server_is_back_within_five_seconds_while_the_control_plane_is_dead_and_nothing_drifts() {
    let mut facts =
        Facts::of(2, "Control plane and a server killed: the server comes back without it, and nothing drifts");
    let mut toolyard = Toolyard::start();
    let agent = Agent::enrolled(&toolyard, "edge1", "", None, Runs::Processes);
    let (killed, kept) = (toolyard.deploy("killed", &[]), toolyard.deploy("kept", &[]));
    let before = pid_of(&killed);

    toolyard.kill();
    signal(before, "KILL");
    let ended = wait_until(Duration::from_secs(5), "the server is dead", || !alive(before));
    let servers = || {
        let mark = agent.dir.path().display().to_string();
        let known = [pid_of(&kept)];
        processes_with(&mark).into_iter().filter(|pid| !known.contains(pid) && is_server(*pid)).collect::<Vec<_>>()
    };
    let back = ended + wait_until(Duration::from_secs(5), "the server runs again", || !servers().is_empty());
    let new = servers();
    facts.observe(format!(
        "server process gone and another running {} after SIGKILL of both, without a control plane",
        seconds(back)
    ));
    assert!(alive(pid_of(&kept)), "the other server was left alone");

    let began = Instant::now();
    toolyard.serve();
    agent.wait_online(&toolyard, "edge1");
    let (after, other) = (toolyard.wait_server("killed", "ready again", is_ready), toolyard.server("kept"));
    facts.observe(format!(
        "control plane started again: toolbox online and server ready after {}",
        seconds(began.elapsed())
    ));
    assert_eq!((&after["instance_id"], &after["revision"]), (&killed["instance_id"], &killed["revision"]));
    assert!(new.contains(&pid_of(&after)), "{new:?}: {after:#}");
    assert_eq!((pid_of(&other), &other["instance_id"]), (pid_of(&kept), &kept["instance_id"]), "{other:#}");
    assert!(toolyard.echoes("killed") && toolyard.echoes("kept"));
    facts.observe("instance ids and revisions of both servers unchanged; the untouched one has its old process id");
    facts.write();
}

/// Whether a process is the fixture itself, not the supervisor that names it.
fn is_server(pid: u32) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = line.split(|byte| *byte == 0);
    words.next().is_some_and(|word| word.ends_with(b"node")) && words.any(|word| word.ends_with(b"server.js"))
}

#[test]
fn a_host_cut_off_for_sixty_seconds_serves_on_and_heals_by_itself() {
    let facts = Facts::of(3, "The network of a host is cut for 60 s");
    let Some(mut facts) = facts.on_hosts("what a cut network does") else { return };
    let network = Network::new();
    let toolyard = Toolyard::start_on(&network);
    let host = network.host();
    let agent = Agent::enrolled(&toolyard, "edge1", "", Some(&host), Runs::Processes);
    let before = toolyard.deploy("far", &["--toolbox", "edge1"]);

    host.cut();
    let cut = Instant::now();
    let noticed = wait_until(Duration::from_secs(20), "the link is given up", || {
        toolyard.toolbox("edge1")["link"]["connected"] == false
    });
    // An agent that is only restarted is back within five seconds, so long the first calls wait for its link.
    let (waited, outcome) = toolyard.call("far", "echo", json!({ "message": "hello" }));
    outcome.expect_err("nobody is there");
    assert!(waited < Duration::from_secs(7), "refused only after {waited:?}");
    let (took, outcome) = toolyard.call("far", "echo", json!({ "message": "hello" }));
    let refused = outcome.expect_err("nobody is there");
    assert!(took < Duration::from_secs(1), "refused only after {took:?}");
    wait_until(Duration::from_secs(58), "the toolbox is unreachable", || {
        toolyard.toolbox("edge1")["state"] == "unreachable"
    });
    let silent = cut.elapsed();
    facts.observe(format!(
        "link given up after {}; a call then waits {} for it, the next fails after {} with: {refused}",
        seconds(noticed),
        seconds(waited),
        seconds(took)
    ));
    facts.observe(format!("toolbox `unreachable` after {}", seconds(silent)));
    wait_until(Duration::from_secs(60), "the minute is over", || cut.elapsed() >= Duration::from_secs(60));
    assert!(alive(pid_of(&before)), "the server runs on without its control plane");

    host.heal();
    let healed = Instant::now();
    agent.wait_online(&toolyard, "edge1");
    let online = healed.elapsed();
    wait_until(Duration::from_secs(30), "calls work again", || toolyard.echoes("far"));
    facts.observe(format!(
        "cable back: online and linked after {}, calls answered after {}",
        seconds(online),
        seconds(healed.elapsed())
    ));
    let after = toolyard.wait_server("far", "ready", is_ready);
    assert_eq!((pid_of(&after), &after["instance_id"]), (pid_of(&before), &before["instance_id"]), "{after:#}");
    facts.observe("same process id and instance id as before the cut");
    facts.write();
}

#[test]
fn processes_and_containers_run_on_when_their_agents_are_killed_and_the_state_is_rebuilt() {
    let mut facts = Facts::of(4, "Agents are killed: processes and containers run on, the state is rebuilt");
    let toolyard = Toolyard::start();
    let mut plain = Agent::new(None, Runs::Processes).with_real_packages().joined(&toolyard, "edge1", "");
    let mut docks = Agent::enrolled(&toolyard, "docks", "", None, Runs::Containers);
    let process = toolyard.json(&["deploy", EVERYTHING, "--name", "process", "--toolbox", "edge1", "--wait"]);
    let container = toolyard.deploy("container", &["--toolbox", "docks"]);
    let pids = [pid_of(&process), pid_of(&container)];

    plain.kill();
    docks.kill();
    assert!(pids.iter().all(|pid| alive(*pid)), "servers do not end with their agents");
    let killed = Instant::now();
    plain.start(&toolyard, None);
    docks.start(&toolyard, None);
    plain.wait_online(&toolyard, "edge1");
    docks.wait_online(&toolyard, "docks");
    wait_until(Duration::from_secs(60), "calls arrive again", || {
        toolyard.echoes("process") && toolyard.echoes("container")
    });
    facts.observe(format!(
        "SIGKILL to both agents, started again: every server answers after {}",
        seconds(killed.elapsed())
    ));
    for (name, old) in [("process", &process), ("container", &container)] {
        let new = toolyard.wait_server(name, "ready", is_ready);
        let of = |server: &Value| {
            (pid_of(server), server["instance_id"].clone(), server["instances"][0]["restarts"].clone())
        };
        assert_eq!(of(&new), of(old), "{new:#}");
    }
    facts.observe("process ids, instance ids and restart counts are the old ones; server-everything as a process, the fixture in a container");

    toolyard.json(&["servers", "delete", "container", "--wait"]);
    assert!(!alive(pids[1]), "a deleted server has no container");
    facts.write();
}

#[test]
fn after_a_reboot_of_everything_the_same_servers_are_ready_without_a_command() {
    let mut facts = Facts::of(5, "Everything is stopped at once, as by a power cut");
    let mut toolyard = Toolyard::start();
    let mut agents = [("edge1", Runs::Processes), ("docks", Runs::Containers)]
        .map(|(name, runs)| (name, Agent::enrolled(&toolyard, name, "", None, runs)));
    let before: BTreeMap<_, _> = agents
        .iter()
        .map(|(toolbox, _)| (*toolbox, toolyard.deploy(&format!("on-{toolbox}"), &["--toolbox", toolbox])))
        .collect();

    toolyard.kill();
    for (toolbox, agent) in &mut agents {
        agent.kill();
        let server = pid_of(&before[toolbox]);
        // What a power cut leaves: nothing.
        signal(server, "KILL");
        for pid in agent.processes() {
            signal(pid, "KILL");
        }
        wait_until(Duration::from_secs(20), "everything is gone", || !alive(server) && agent.processes().is_empty());
    }
    let began = Instant::now();
    // The hosts are up before the control plane is.
    for (_, agent) in &mut agents {
        agent.start(&toolyard, None);
    }
    toolyard.serve();
    for (toolbox, server) in &before {
        let name = format!("on-{toolbox}");
        let after = toolyard.wait_server(&name, "ready with another process", |now| {
            is_ready(now) && now["instances"][0]["pid"].is_u64() && pid_of(now) != pid_of(server)
        });
        assert_eq!((&after["instance_id"], &after["revision"]), (&server["instance_id"], &server["revision"]));
        wait_until(Duration::from_secs(30), "it answers", || toolyard.echoes(&name));
    }
    facts.observe(format!(
        "agents started first, then the control plane: a process and a container are ready again and answer after {}",
        seconds(began.elapsed())
    ));
    facts.observe("instance ids and revisions are the old ones; nobody gave a command");
    facts.write();
}

/// A forward proxy: answers `CONNECT` with 503 as often as told, then connects.
struct Proxy {
    port: u16,
    /// Every request, and how many were made when the first was let through.
    asked: Arc<AtomicU32>,
    until_first: Arc<AtomicU32>,
}

impl Proxy {
    fn failing(refusals: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (asked, until_first) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let (counted, first) = (Arc::clone(&asked), Arc::clone(&until_first));
        std::thread::spawn(move || {
            while let Ok((mut client, _)) = listener.accept() {
                let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
                let target = connect_target(&mut client);
                if number <= refusals {
                    let _ = client.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
                    continue;
                }
                let _ = first.compare_exchange(0, number, Ordering::SeqCst, Ordering::SeqCst);
                let Ok(server) = TcpStream::connect(target) else { continue };
                let _ = client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n");
                relay(&client, &server);
            }
        });
        Self { port, asked, until_first }
    }
}

fn relay(client: &TcpStream, server: &TcpStream) {
    for (from, to) in [(client, server), (server, client)] {
        let (mut from, mut to) = (from.try_clone().expect("a handle"), to.try_clone().expect("a handle"));
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Both);
        });
    }
}

fn connect_target(client: &mut TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0_u8]);
    while !head.ends_with(b"\r\n\r\n") && client.read_exact(&mut byte).is_ok() {
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).unwrap_or_default().to_owned()
}

#[test]
fn a_proxy_that_fails_twice_is_asked_three_times_and_one_deployment_is_made() {
    let mut facts = Facts::of(6, "A proxy answers 503 twice, then lets through");
    // Not where the packages are: those are reached without the proxy.
    let toolyard = Toolyard::start_at(Ipv4Addr::new(127, 0, 0, 2).into(), &[]);
    let token = toolyard.enroll("edge1", "");
    // It waits for the toolbox, so the agent's first successful question brings it.
    let pending = toolyard.json(&["deploy", FIXTURE, "--name", "once", "--toolbox", "edge1"]);
    assert_eq!(pending["phase"], "pending", "{pending:#}");
    let proxy = Proxy::failing(2);
    let proxied = [format!("proxy=http://127.0.0.1:{}", proxy.port), "no_proxy=127.0.0.1".to_owned()];
    let mut agent = proxied.into_iter().fold(Agent::new(None, Runs::Processes), Agent::with);
    agent.start(&toolyard, Some(&token));
    let server = toolyard.wait_server("once", "ready", is_ready);
    let (until_first, joins) =
        (proxy.until_first.load(Ordering::SeqCst), toolyard.audited(|line| line["action"] == "toolbox.join"));
    assert_eq!((until_first, joins), (3, 1), "{}", agent.log());
    assert_eq!(server["instances"].as_array().map(Vec::len), Some(1), "{server:#}");
    assert_eq!((&server["revision"], &server["instances"][0]["restarts"]), (&1.into(), &0.into()), "{server:#}");
    let running =
        processes_with(&agent.dir.path().display().to_string()).into_iter().filter(|pid| is_server(*pid)).count();
    assert_eq!(running, 1);
    facts.observe(format!(
        "exactly {until_first} requests until the first was let through ({} in all: sync and two links have a connection each)",
        proxy.asked.load(Ordering::SeqCst)
    ));
    facts.observe("one join in the audit log, one revision, one instance, one process");
    facts.write();
}

#[test]
fn a_breaker_opens_on_an_agent_that_hangs_fails_calls_in_fifty_milliseconds_and_closes_again() {
    let mut facts = Facts::of(7, "An agent hangs: the breaker opens, fails fast, recovers");
    let toolyard = Toolyard::start();
    let agent = Agent::enrolled(&toolyard, "edge1", "", None, Runs::Processes);
    toolyard.deploy("far", &["--toolbox", "edge1"]);
    assert!(toolyard.echoes("far"));

    signal(agent.pid(), "STOP");
    let hung = Instant::now();
    let mut waited = 0;
    while toolyard.toolbox("edge1")["link"]["breaker"] != "open" {
        assert!(hung.elapsed() < Duration::from_secs(90), "{:#}", toolyard.toolbox("edge1")["link"]);
        let calls: Vec<_> = (0..8)
            .map(|_| {
                let client = toolyard.client.clone();
                let echo = async move {
                    crate::calls::call(&client, "/mcp/default/servers/far", "echo", json!({ "message": "x" })).await
                };
                toolyard.runtime.spawn(echo)
            })
            .collect();
        for call in calls {
            let (_, outcome) = toolyard.runtime.block_on(call).expect("the call ends");
            assert!(outcome.is_err(), "{outcome:?}");
            waited += 1;
        }
    }
    facts
        .observe(format!("breaker open {} after the agent hung, after {waited} failed calls", seconds(hung.elapsed())));
    let mut fast: Vec<_> = (0..20)
        .map(|_| {
            let (took, outcome) = toolyard.call("far", "echo", json!({ "message": "x" }));
            assert!(outcome.is_err());
            took
        })
        .collect();
    fast.sort();
    // One of them may be the one that is let through to try.
    let slowest = fast[18];
    assert!(slowest < Duration::from_millis(50), "{fast:?}");
    facts.observe(format!(
        "20 calls while it is open: the median fails after {}, the slowest but one after {}",
        seconds(fast[10]),
        seconds(slowest)
    ));

    signal(agent.pid(), "CONT");
    let back = wait_until(Duration::from_secs(60), "calls work again", || toolyard.echoes("far"));
    wait_until(Duration::from_secs(5), "the breaker is closed", || {
        toolyard.toolbox("edge1")["link"]["breaker"] == "closed"
    });
    facts.observe(format!("agent goes on: calls answered and breaker closed after {}", seconds(back)));
    facts.write();
}
