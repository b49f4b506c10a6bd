//! Where a server runs: moved by a person, or placed elsewhere because its host is gone.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::agents::{Agent, Runs, pid_of};
use crate::calls::Load;
use crate::facts::Facts;
use crate::network::Network;
use crate::world::{Toolyard, alive, is_ready, places, seconds, wait_until};

const PER_SECOND: u32 = 50;

/// Whether one instance runs, ready, at this toolbox and nowhere else.
fn only_at(toolbox: &str) -> impl Fn(&Value) -> bool {
    move |server| is_ready(server) && places(server) == [toolbox]
}

#[test]
fn a_server_that_is_moved_to_another_host_serves_all_the_while_and_leaves_nothing_behind() {
    let facts = Facts::of(25, "A server is moved to another host under 50 calls a second");
    let Some(mut facts) = facts.on_hosts("that a server moves from host to host without a failed call") else { return };
    let network = Network::new();
    let toolyard = Toolyard::start_on(&network);
    let hosts = [network.host(), network.host()];
    let agents = [("edge1", "zone=a", &hosts[0]), ("edge2", "zone=b", &hosts[1])]
        .map(|(name, labels, host)| Agent::enrolled(&toolyard, name, labels, Some(host), Runs::Processes));
    let mut before = toolyard.deploy("nomad", &["--toolbox", "edge1"]);
    for (place, toolbox, from, to) in
        [(["--toolbox", "edge2"], "edge2", 0, 1), (["--toolbox-labels", "zone=a"], "edge1", 1, 0)]
    {
        let load = Load::start(&toolyard, "nomad", PER_SECOND);
        let long = toolyard.begin_call("nomad", "wait", json!({ "ms": 4000 }));
        let began = Instant::now();
        toolyard.json(&[&["servers", "update", "nomad"], &place[..]].concat());
        let after = toolyard.wait_server("nomad", "it runs at the other host alone", only_at(toolbox));
        wait_until(Duration::from_secs(20), "nothing is left at the first host", || {
            !alive(pid_of(&before)) && agents[from].processes().is_empty()
        });
        let took = began.elapsed();
        let (waited, outcome) = toolyard.runtime.block_on(long).expect("the long call ends");
        let calls = load.settle(Duration::from_secs(2));
        assert!(calls.failed().is_empty(), "{:?}", calls.failed());
        assert_eq!(outcome, Ok("waited".to_owned()), "after {waited:?}");
        let (old, new) = (calls.by_host(&hosts[from]), calls.by_host(&hosts[to]));
        assert!(old > 0 && new > 0 && old + new == calls.0.len(), "{old} + {new} of {}", calls.0.len());
        assert!(agents[to].processes().contains(&pid_of(&after)), "it runs at the other host: {after:#}");
        assert_eq!(after["revision"], before["revision"], "{after:#}");
        facts.observe(format!(
            "`servers update --{}`: at {toolbox} alone, no process left at the other host, after {}, most of it for a call of 4 s that was under way and is answered; {} calls, 0 failed: {old} answered on the old host, {new} on the new one; the longest took {}",
            place.join(" ").trim_start_matches('-'),
            seconds(took),
            calls.0.len(),
            seconds(calls.longest()),
        ));
        before = after;
    }
    facts.write();
}

#[test]
fn what_ran_on_a_host_that_vanished_is_placed_elsewhere_and_ends_there_when_the_host_is_back() {
    let facts = Facts::of(26, "A host vanishes; its server is placed on another one; the host comes back");
    let Some(mut facts) = facts.on_hosts("that the server of a host that vanished is placed elsewhere") else { return };
    let network = Network::new();
    let settings = ["toolbox_silence_seconds=5", "toolbox_replace_after_seconds=1"];
    let toolyard = Toolyard::start_at(network.address(), &settings);
    let hosts = [network.host(), network.host(), network.host()];
    let agents: Vec<_> = hosts
        .iter()
        .zip([("edge1", "zone=a"), ("edge2", "zone=a"), ("edge3", "zone=c")])
        .map(|(host, (name, labels))| Agent::enrolled(&toolyard, name, labels, Some(host), Runs::Processes))
        .collect();
    let pinned = ["edge1", "edge2", "edge3"]
        .map(|toolbox| (format!("on-{toolbox}"), toolyard.deploy(&format!("on-{toolbox}"), &["--toolbox", toolbox])));
    let of_pinned: Vec<_> = agents.iter().flat_map(Agent::processes).collect();
    let before = toolyard.deploy("roams", &["--toolbox-labels", "zone=a"]);
    let gone = places(&before).remove(0);
    let (at, other) = if gone == "edge1" { (0, "edge2") } else { (1, "edge1") };

    hosts[at].cut();
    let cut = Instant::now();
    wait_until(Duration::from_secs(20), "the toolbox is unreachable", || {
        toolyard.toolbox(&gone)["state"] == "unreachable"
    });
    let silent = cut.elapsed();
    let after = toolyard.wait_server("roams", "it runs at the other host alone", only_at(other));
    let placed = cut.elapsed();
    wait_until(Duration::from_secs(20), "it answers", || toolyard.echoes("roams"));
    let answers = cut.elapsed();
    assert!(alive(pid_of(&before)), "the copy on the host that was cut off runs on, nobody can end it");
    facts.observe(format!(
        "three hosts, `toolbox_silence_seconds=5`, `toolbox_replace_after_seconds=1`; cable of one pulled: `unreachable` after {}, its server ready on the other host with the same labels after {}, a call answered after {}",
        seconds(silent),
        seconds(placed),
        seconds(answers),
    ));

    hosts[at].heal();
    let healed = Instant::now();
    agents[at].wait_online(&toolyard, &gone);
    let online = healed.elapsed();
    wait_until(Duration::from_secs(20), "the copy that was replaced is stopped", || !alive(pid_of(&before)));
    wait_until(Duration::from_secs(20), "no process of it is left", || {
        agents[at].processes().iter().all(|pid| of_pinned.contains(pid))
    });
    let ended = healed.elapsed();
    let returned = toolyard.wait_event("toolbox.returned", &format!("toolbox/{gone}"));
    assert_eq!(returned["stops"], 1, "{returned:#}");
    let audited = |action: &str| {
        toolyard.audited(|line| line["action"] == action && line["target"] == format!("toolbox/{gone}").as_str())
    };
    assert_eq!((audited("toolbox.replace"), audited("toolbox.return")), (1, 1), "{:#}", toolyard.get("/audit"));
    facts.observe(format!(
        "cable back: online after {}, no process of the replaced copy left after {}; one event `toolbox.returned` that says 1 was stopped, one line `toolbox.return` in the audit log",
        seconds(online),
        seconds(ended),
    ));

    let now = toolyard.wait_server("roams", "it stays where it is", only_at(other));
    assert_eq!(pid_of(&now), pid_of(&after), "{now:#}");
    for (name, then) in &pinned {
        let now = toolyard.wait_server(name, "ready", is_ready);
        assert_eq!((pid_of(&now), &now["instance_id"]), (pid_of(then), &then["instance_id"]), "{now:#}");
        wait_until(Duration::from_secs(20), "it answers", || toolyard.echoes(name));
    }
    let given_up = toolyard.audited(|line| line["action"] == "toolbox.replace");
    assert_eq!(given_up, 1, "the toolboxes that were there all the time were never given up");
    facts.observe("servers pinned to each of the three hosts have their old processes, on the one that was cut off too; the other two toolboxes were never given up");
    facts.write();
}
