//! Who an agent is: nobody gets in with what was stolen, has ended, was used, or is somebody else's.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::agents::{Agent, Runs};
use crate::facts::Facts;
use crate::world::{Toolyard, pause, seconds, wait_until};

/// How an agent that is refused ends: what it wrote.
#[track_caller]
fn refusal(toolyard: &Toolyard, agent: &Agent, token: &str) -> String {
    let mut command = agent.command(toolyard);
    let child =
        command.args(["--token", token]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("the agent runs");
    let until = Instant::now() + Duration::from_secs(30);
    while child.try_wait().expect("it can be waited for").is_none() {
        if Instant::now() > until {
            let _ = child.kill();
            panic!("it was not refused");
        }
        pause();
    }
    let output = child.wait_with_output().expect("its output");
    assert!(!output.status.success(), "it was not refused");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn tokens_that_were_used_ended_or_are_for_another_toolbox_or_toolyard_are_refused_and_audited() {
    let mut facts = Facts::of(10, "Replayed, expired and foreign join tokens");
    let toolyard = Toolyard::start();
    let fresh = || Agent::new(None, Runs::Processes);
    let first = toolyard.enroll("edge1", "");
    let mut agent = fresh();
    agent.start(&toolyard, Some(&first));
    agent.wait_online(&toolyard, "edge1");

    let used = refusal(&toolyard, &fresh(), &first);
    assert!(used.contains("token_used"), "{used}");
    let enrolled = toolyard.json(&["toolboxes", "enroll", "edge2", "--expires", "1s"]);
    let short = enrolled["token"].as_str().expect("a token");
    let began = Instant::now();
    wait_until(Duration::from_secs(5), "its second is over", || began.elapsed() > Duration::from_millis(1100));
    let ended = refusal(&toolyard, &fresh(), short);
    assert!(ended.contains("token_expired"), "{ended}");
    let another = toolyard.enroll("edge3", "");
    agent.kill();
    let foreign = refusal(&toolyard, &agent, &another);
    assert!(foreign.contains("token_foreign"), "{foreign}");
    facts.observe("used before: `token_used`; its second over: `token_expired`; for another toolbox's data directory: `token_foreign`");

    // Another Toolyard at this one's address: the token's fingerprint of the CA is not its CA's.
    let other = Toolyard::start();
    let mut lost = fresh();
    lost.start(&other, Some(&swapped(&other.enroll("edge1", ""), &first)));
    wait_until(Duration::from_secs(30), "it says why", || lost.log().contains("UnknownIssuer"));
    lost.interrupt();
    facts.observe(
        "a token of one Toolyard at the address of another: no TLS session (`UnknownIssuer`), nothing is sent",
    );

    let codes = ["token_used", "token_expired"].map(|code| toolyard.audited(|line| line["detail"]["code"] == code));
    assert_eq!(codes, [1, 1], "{:#}", toolyard.get("/audit"));
    facts.observe("each refusal that reached the control plane is one line of the audit log");
    facts.write();
}

/// The token `secret` with the addresses of the token `addresses`.
fn swapped(addresses: &str, secret: &str) -> String {
    let (from, mut to) = (decoded(addresses), decoded(secret));
    to["addresses"] = from["addresses"].clone();
    encoded(&to)
}

fn decoded(token: &str) -> serde_json::Value {
    let output = coder(&["-d"], &padded(token));
    serde_json::from_slice(&output).unwrap_or_else(|error| panic!("{token}: {error}"))
}

fn encoded(token: &serde_json::Value) -> String {
    let text = String::from_utf8(coder(&["-w0"], &token.to_string())).expect("text");
    text.trim().trim_end_matches('=').replace('+', "-").replace('/', "_")
}

fn padded(token: &str) -> String {
    let text = token.replace('-', "+").replace('_', "/");
    let missing = text.len().next_multiple_of(4) - text.len();
    text + &"=".repeat(missing)
}

fn coder(options: &[&str], input: &str) -> Vec<u8> {
    use std::io::Write;
    let child = std::process::Command::new("base64").args(options).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = child.expect("base64 runs");
    child.stdin.take().expect("its input").write_all(input.as_bytes()).expect("it reads");
    child.wait_with_output().expect("its output").stdout
}

#[test]
fn a_revoked_identity_is_refused_wherever_it_was_copied_to() {
    let mut facts = Facts::of(11, "A stolen certificate with its key");
    let toolyard = Toolyard::start();
    let mut agent = Agent::enrolled(&toolyard, "edge1", "", None, Runs::Processes);
    let mut thief = Agent::new(None, Runs::Processes);
    agent.steal_identity(&thief);
    let revoked = Instant::now();
    toolyard.json(&["toolboxes", "revoke", "edge1"]);
    wait_until(Duration::from_secs(5), "the link is closed", || {
        toolyard.toolbox("edge1")["link"]["connected"] == false
    });
    facts.observe(format!("revoked: the link is closed {} after the command began", seconds(revoked.elapsed())));
    thief.start(&toolyard, None);
    for (whose, log) in [("owner's", &agent), ("thief's", &thief)] {
        wait_until(Duration::from_secs(30), "it is told", || log.log().contains("revoked"));
        facts.observe(format!("the {whose} agent is refused: `certificate_revoked`"));
    }
    assert_eq!(toolyard.toolbox("edge1")["link"]["connected"], false);
    thief.interrupt();

    let rejoin = toolyard.json(&["toolboxes", "rejoin", "edge1"]);
    agent.kill();
    agent.start(&toolyard, rejoin["token"].as_str());
    let back = agent.wait_online(&toolyard, "edge1");
    let mut again = Agent::new(None, Runs::Processes);
    thief.steal_identity(&again);
    again.start(&toolyard, None);
    wait_until(Duration::from_secs(30), "it is told", || again.log().contains("revoked"));
    assert_eq!(toolyard.toolbox("edge1")["state"], "online", "the owner is not disturbed");
    facts.observe(format!(
        "the owner joins again with a new token ({}); the old certificate stays refused beside it",
        seconds(back)
    ));
    facts.write();
}
