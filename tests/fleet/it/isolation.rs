//! What a server is kept from: more memory than its limit, and hosts that it may not reach.

use std::io::Write;
use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::agents::{Agent, Runs, pid_of};
use crate::facts::Facts;
use crate::network::Network;
use crate::world::{Toolyard, alive, is_ready, pause, seconds};

#[test]
fn a_memory_hog_is_killed_and_reported_out_of_memory_in_processes_and_in_containers() {
    let mut facts = Facts::of(8, "A memory hog is killed and reported `out_of_memory`");
    let toolyard = Toolyard::start();
    let _agents = [("edge1", Runs::Processes), ("docks", Runs::Containers)]
        .map(|(name, runs)| Agent::enrolled(&toolyard, name, "", None, runs));
    for (toolbox, what) in [("edge1", "process"), ("docks", "container")] {
        let name = format!("hog-{toolbox}");
        let before = toolyard.deploy(&name, &["--toolbox", toolbox, "--memory", "160M"]);
        let hog = toolyard.begin_call(&name, "eat", json!({ "bytes": 1_u64 << 30 }));
        let began = Instant::now();
        let (seen, reported) = loop {
            let server = toolyard.server(&name);
            if server["instances"][0]["reason"] == "out_of_memory" {
                break (server, began.elapsed());
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{server:#}\n{}", toolyard.log_text());
            pause();
        };
        assert!(!alive(pid_of(&before)));
        let outcome = toolyard.runtime.block_on(hog).expect("the call ends").1.expect_err("its server died");
        let after = toolyard.wait_server(&name, "ready again", is_ready);
        facts.observe(format!(
            "{what} with 160 MB that takes 1 GB: dead and reported after {} (`out_of_memory`: {}); the call in flight fails with: {outcome}; ready again after {}, {} restart",
            seconds(reported),
            seen["instances"][0]["message"].as_str().unwrap_or_default(),
            seconds(began.elapsed()),
            after["instances"][0]["restarts"]
        ));
        assert_ne!(pid_of(&after), pid_of(&before));
    }
    facts.write();
}

/// Something to reach: a listener that counts who came.
struct Target {
    port: u16,
    came: Arc<AtomicU32>,
}

impl Target {
    fn start(address: IpAddr) -> Self {
        let listener = TcpListener::bind((address, 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let came = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&came);
        std::thread::spawn(move || {
            while let Ok((mut client, _)) = listener.accept() {
                counted.fetch_add(1, Ordering::SeqCst);
                let _ = client.write_all(b"here\n");
            }
        });
        Self { port, came }
    }

    fn came(&self) -> u32 {
        self.came.load(Ordering::SeqCst)
    }
}

#[test]
fn a_server_reaches_the_hosts_it_may_and_no_others_whatever_it_tries() {
    let facts = Facts::of(9, "Egress `none` and listed hosts, tried with real sockets");
    let Some(mut facts) = facts.on_hosts("that egress rules hold") else { return };
    // An address of this machine that is not loopback, as every other host has one.
    let network = Network::new();
    let toolyard = Toolyard::start_on(&network);
    let _docks = Agent::enrolled(&toolyard, "docks", "", None, Runs::Containers);
    let host = network.address();
    let (listed, other) = (Target::start(host), Target::start(host));
    let allowed = format!("{host}:{}", listed.port);
    toolyard.deploy("open", &[]);
    toolyard.deploy("none", &["--egress", "none"]);
    toolyard.deploy("listed", &["--egress", &allowed]);

    let ask = |server: &str, tool: &str, target: &Target| {
        let answer = toolyard.call(server, tool, json!({ "host": host.to_string(), "port": target.port })).1;
        answer.unwrap_or_else(|error| panic!("{server} {tool}: {error}"))
    };
    assert_eq!(ask("open", "dial", &other), "connected", "the target can be reached where nothing forbids it");
    assert_eq!(other.came(), 1);
    facts.observe("`--egress all`: a TCP socket of the server's own connects to a listener on this machine");

    let refusals: Vec<_> = [&listed, &other].map(|target| ask("none", "dial", target)).into();
    assert!(refusals.iter().all(|outcome| outcome != "connected"), "{refusals:?}");
    let through = ask("none", "tunnel", &listed);
    assert!(!through.contains("200"), "{through}");
    facts.observe(format!(
        "`--egress none`: its sockets end with {}; a proxy is not there either ({through})",
        refusals.join(", ")
    ));

    let past = ask("listed", "dial", &listed);
    assert_ne!(past, "connected", "past the proxy not even a listed host is reached");
    let (yes, no) = (ask("listed", "tunnel", &listed), ask("listed", "tunnel", &other));
    assert!(yes.contains(" 200 ") && no.contains(" 403 "), "{yes}; {no}");
    facts.observe(format!(
        "`--egress HOST:PORT`: `CONNECT` to it gives `{yes}`, to another port `{no}`, a socket past the proxy {past}"
    ));
    assert_eq!((listed.came(), other.came()), (1, 1), "nobody else arrived");
    facts.observe("the listeners themselves counted 1 connection each: the allowed ones, and no other");
    facts.write();
}
