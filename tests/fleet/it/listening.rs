//! Agents on hosts that must not dial out.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::agents::{Agent, Runs, pid_of};
use crate::calls::Load;
use crate::facts::Facts;
use crate::network::{Host, Network};
use crate::world::{Toolyard, is_ready, seconds, wait_until};

const PORT: u16 = 7443;

/// How a connection from a host to the control plane's listener for agents ends, as `curl` says.
fn dial(host: &Host, toolyard: &Toolyard) -> String {
    let mut curl = host.command("curl");
    let url = format!("https://{}/", toolyard.agent_address());
    let output =
        curl.args(["--noproxy", "*", "-sS", "--max-time", "5", &url]).stdin(Stdio::null()).output().expect("curl runs");
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

fn linked(toolyard: &Toolyard, name: &str) -> bool {
    let link = toolyard.toolbox(name)["link"].clone();
    link["connected"] == true && link["bulk"] == true
}

#[test]
fn a_host_that_cannot_dial_out_joins_serves_under_load_and_is_found_again() {
    let facts = Facts::of(27, "A host that cannot dial out: its agent listens");
    let Some(mut facts) = facts.on_hosts("that a host that cannot dial out is a toolbox like any other") else {
        return;
    };
    let network = Network::new();
    let mut toolyard = Toolyard::start_on(&network);
    let host = network.host();
    let reached = dial(&host, &toolyard);
    assert!(reached.contains("certificate"), "before, it is TLS that does not suit: {reached}");
    host.forbid_dialling(PORT, toolyard.registry_port());
    let refused = dial(&host, &toolyard);
    assert!(refused.contains("Failed to connect") || refused.contains("Couldn't connect"), "{refused}");
    facts.observe("routing rules of the host let nothing out but answers of the agent's port, and connections to the package registry; `curl` to the control plane cannot connect");

    let address = format!("{}:{PORT}", host.address());
    let token = toolyard.enroll_with("edge1", &["--address", &address]);
    let mut agent = Agent::new(Some(&host), Runs::Processes).listening(&address);
    let began = Instant::now();
    agent.start(&toolyard, Some(&token));
    agent.wait_online(&toolyard, "edge1");
    let joined = began.elapsed();
    wait_until(Duration::from_secs(30), "both links are there", || linked(&toolyard, "edge1"));
    let before = toolyard.deploy("inside", &["--toolbox", "edge1"]);
    facts.observe(format!(
        "`toolboxes enroll --address` and `dtma --listen`: online {} after the agent's start, and a server deployed",
        seconds(joined)
    ));

    let calls = Load::start(&toolyard, "inside", 50).settle(Duration::from_secs(5));
    assert!(calls.failed().is_empty(), "{:?}", calls.failed());
    assert_eq!(host.dialled(PORT), Vec::<String>::new(), "the agent dials nothing");
    assert_eq!(host.listeners().len(), 1, "{:?}", host.listeners());
    facts.observe(format!(
        "50 calls a second for 5 s: {} calls, 0 failed, the longest took {}; `ss` on the host: it listens on one port, and every connection is one that came in there",
        calls.0.len(),
        seconds(calls.longest())
    ));

    toolyard.kill();
    let began = Instant::now();
    toolyard.serve();
    let ready = began.elapsed();
    wait_until(Duration::from_secs(30), "calls work again", || toolyard.echoes("inside"));
    let answered = began.elapsed();
    wait_until(Duration::from_secs(30), "both links are there", || linked(&toolyard, "edge1"));
    facts.observe(format!(
        "SIGKILL to the control plane, started again: ready after {}, a call answered after {}",
        seconds(ready),
        seconds(answered)
    ));

    host.cut();
    let noticed = wait_until(Duration::from_secs(30), "the link is given up", || {
        toolyard.toolbox("edge1")["link"]["connected"] == false
    });
    host.heal();
    let healed = Instant::now();
    wait_until(Duration::from_secs(60), "calls work again", || toolyard.echoes("inside"));
    facts.observe(format!(
        "cable pulled: the link is given up after {}; cable back: calls answered after {}",
        seconds(noticed),
        seconds(healed.elapsed())
    ));

    agent.kill();
    let began = Instant::now();
    agent.start(&toolyard, None);
    wait_until(Duration::from_secs(60), "calls work again", || toolyard.echoes("inside"));
    facts.observe(format!("SIGKILL to the agent, started again: calls answered after {}", seconds(began.elapsed())));
    let after = toolyard.wait_server("inside", "ready", is_ready);
    assert_eq!((pid_of(&after), &after["instance_id"]), (pid_of(&before), &before["instance_id"]), "{after:#}");
    assert_eq!(host.dialled(PORT), Vec::<String>::new(), "the agent dials nothing");
    facts.observe("the server has its old process all the while");
    facts.write();
}
