//! Nothing is left of clients that vanish or crash and of servers that fail.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::agents::{Agent, Runs};
use crate::facts::Facts;
use crate::fixture::FIXTURE;
use crate::network::Network;
use crate::world::{KEY, Toolyard, pause, seconds, test_variable, wait_until};

/// What must be as before.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Counts(BTreeMap<&'static str, usize>);

impl Counts {
    fn of(toolyard: &Toolyard, agents: &[&Agent]) -> Self {
        let mut counts = BTreeMap::new();
        let mut add = |what, count| *counts.entry(what).or_default() += count;
        let descriptors = |pid: u32| {
            let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            entries.filter_map(|entry| std::fs::read_link(entry.path()).ok()).collect::<Vec<_>>()
        };
        let control = descriptors(toolyard.pid());
        add("connections of the control plane", control.iter().filter(|path| is_socket(path)).count());
        add("descriptors of the control plane", control.len());
        for agent in agents {
            let own = descriptors(agent.pid());
            add("connections of the agents", own.iter().filter(|path| is_socket(path)).count());
            add("descriptors of the agents", own.len());
            add("processes of the agents", agent.processes().len());
        }
        add("containers", containers(toolyard));
        Self(counts)
    }

    /// What there is more of than there was.
    fn more_than(&self, baseline: &Self) -> Vec<String> {
        self.0
            .iter()
            .filter(|(what, count)| *count > &baseline.0[*what])
            .map(|(what, count)| format!("{what}: {count}, were {}", baseline.0[what]))
            .collect()
    }

    fn text(&self) -> String {
        self.0.iter().map(|(what, count)| format!("{what} {count}")).collect::<Vec<_>>().join(", ")
    }
}

fn is_socket(path: &std::path::Path) -> bool {
    path.to_string_lossy().starts_with("socket:")
}

/// What a process is connected to, for a person.
fn connections(pid: u32) -> String {
    let output = Command::new("ss").args(["-tnpHoi"]).output().expect("ss runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mark = format!("pid={pid},");
    let (mut lines, mut ours) = (Vec::new(), false);
    for line in text.lines() {
        ours = if line.starts_with(char::is_whitespace) { ours } else { line.contains(&mark) };
        if ours {
            lines.push(line.to_owned());
        }
    }
    lines.join("\n")
}

/// Containers, running or not, of this Toolyard's servers.
fn containers(toolyard: &Toolyard) -> usize {
    let servers = toolyard.get("/servers?limit=100");
    let ours: Vec<_> =
        servers["items"].as_array().into_iter().flatten().filter_map(|server| server["id"].as_str()).collect();
    let output = Command::new("docker")
        .env("DOCKER_HOST", test_variable("TOOLYARD_TEST_DOCKER_HOST"))
        .args(["ps", "-a", "--format", "{{.Label \"dev.toolyard.server\"}}"])
        .output()
        .expect("docker runs");
    String::from_utf8_lossy(&output.stdout).lines().filter(|label| ours.contains(label)).count()
}

/// 250 clients with sessions and streams, as a process; what it says of itself.
fn connect(mut command: Command, toolyard: &Toolyard) -> (Child, Value) {
    let script = toolyard.directory().join("clients.js");
    std::fs::write(&script, include_str!("clients.js")).expect("a script");
    let address = toolyard.address();
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    command.arg(script).args([&host, &port, "/mcp/default/servers/process", KEY, "250"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("node runs");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
    let said = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: `{line}`\n{}", toolyard.log_text()));
    (child, said)
}

fn end(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
}

#[test]
fn nothing_is_left_of_five_hundred_vanished_clients_fifty_crashed_ones_and_twenty_failing_servers() {
    let facts = Facts::of(30, "500 connects without goodbye, 50 crashed clients, 20 failing servers");
    let Some(mut facts) = facts.on_hosts("that nothing is left of clients whose host vanished") else { return };
    let network = Network::new();
    let toolyard = Toolyard::start_open(&network);
    let host = network.host();
    let agents = [("edge1", Runs::Processes), ("docks", Runs::Containers)]
        .map(|(name, runs)| Agent::enrolled(&toolyard, name, "", None, runs));
    let agents = [&agents[0], &agents[1]];
    toolyard.deploy("process", &["--toolbox", "edge1"]);
    toolyard.deploy("container", &["--toolbox", "docks"]);

    // Everything was used once: connections that are kept on purpose are there.
    let warm: Vec<_> = (0..100)
        .map(|number| {
            let client = toolyard.client.clone();
            let path = format!("/mcp/default/servers/{}", if number % 2 == 0 { "process" } else { "container" });
            toolyard
                .runtime
                .spawn(async move { crate::calls::call(&client, &path, "wait", json!({ "ms": 200 })).await })
        })
        .collect();
    for call in warm {
        toolyard.runtime.block_on(call).expect("the call ends").1.expect("it is answered");
    }
    let (vanishing, _) = connect(Command::new("node"), &toolyard);
    end(vanishing);
    let baseline = rest(&toolyard, &agents, Duration::from_secs(120));
    facts.observe(format!("before: {}", baseline.text()));

    let (killed, said) = connect(Command::new("node"), &toolyard);
    let (vanished, _) = connect(host.command("node"), &toolyard);
    facts.observe(format!(
        "500 clients (of each half {} sessions, {} with a stream): {}",
        said["sessions"],
        said["streams"],
        Counts::of(&toolyard, &agents).text()
    ));
    // One half is killed, the other's host loses its network first: not even the end of its connections arrives.
    host.cut();
    end(vanished);
    end(killed);

    let crashing: Vec<_> = (0..50)
        .map(|number| {
            let server = if number % 2 == 0 { "process" } else { "container" };
            let mut call = Command::new(toolyard.program());
            toolyard.furnish(&mut call);
            call.args(["call", server, "wait", r#"{"ms":600000}"#]).stdout(Stdio::null()).stderr(Stdio::null());
            call.spawn().expect("the CLI runs")
        })
        .collect();
    wait_until(Duration::from_secs(60), "fifty calls are under way", || in_flight(&toolyard) >= 50);
    crashing.into_iter().for_each(end);

    for number in 0..20 {
        let (name, toolbox) = (format!("fails{number}"), if number % 2 == 0 { "edge1" } else { "docks" });
        toolyard.json(&[
            "deploy",
            FIXTURE,
            "--name",
            &name,
            "--toolbox",
            toolbox,
            "--arg",
            "crash",
            "--rollout-timeout",
            "15",
        ]);
    }
    let failed = Instant::now();
    wait_until(Duration::from_secs(90), "twenty servers failed", || {
        let servers = toolyard.get("/servers?limit=100");
        let items = servers["items"].as_array().cloned().unwrap_or_default();
        items
            .iter()
            .filter(|it| it["name"].as_str().is_some_and(|name| name.starts_with("fails")))
            .all(|it| it["phase"] == "failed")
    });
    facts.observe(format!(
        "20 servers that crash at once, half of them in containers: all `failed` after {}",
        seconds(failed.elapsed())
    ));

    let began = Instant::now();
    let mut now = Counts::of(&toolyard, &agents);
    while !now.more_than(&baseline).is_empty() && began.elapsed() < Duration::from_secs(60) {
        pause();
        now = Counts::of(&toolyard, &agents);
    }
    let more = now.more_than(&baseline);
    assert!(more.is_empty(), "left after 60 s: {more:#?}\n{}", connections(toolyard.pid()));
    facts.observe(format!("{} later: {}", seconds(began.elapsed()), now.text()));
    assert!(toolyard.echoes("process") && toolyard.echoes("container"));
    facts.write();
}

/// The counts when they have not changed for ten seconds.
fn rest(toolyard: &Toolyard, agents: &[&Agent], limit: Duration) -> Counts {
    let began = Instant::now();
    let (mut counts, mut since) = (Counts::of(toolyard, agents), Instant::now());
    while since.elapsed() < Duration::from_secs(10) && began.elapsed() < limit {
        pause();
        let now = Counts::of(toolyard, agents);
        if now != counts {
            (counts, since) = (now, Instant::now());
        }
    }
    counts
}

/// Calls under way, as the metrics say.
fn in_flight(toolyard: &Toolyard) -> usize {
    let metrics = toolyard.metrics();
    let lines = metrics.lines().filter_map(|line| line.strip_prefix("toolyard_calls_in_flight"));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<usize>().ok()).sum()
}
