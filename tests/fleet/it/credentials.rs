//! Who an agent is: nobody gets in with what was stolen, has ended, was used, or is somebody else's.

use std::process::{Command, Stdio};
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

/// Asks the agents' listener with this agent's certificate and key, or with none.
fn curl(with: Option<&Agent>) -> Command {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--insecure", "--max-time", "20"]);
    if let Some(agent) = with {
        let identity = agent.data().join("identity");
        let saved = std::fs::read(identity.join("identity.json")).expect("an identity");
        let saved: serde_json::Value = serde_json::from_slice(&saved).expect("JSON");
        let der = padded(saved["certificate"]["certificate"].as_str().expect("a certificate"));
        let pem = agent.dir.path().join("certificate.pem");
        std::fs::write(&pem, format!("-----BEGIN CERTIFICATE-----\n{der}\n-----END CERTIFICATE-----\n"))
            .expect("a file");
        curl.arg("--cert").arg(pem).arg("--key").arg(identity.join("key.pem"));
    }
    curl
}

/// What it answers to a question that is none.
fn knock(toolyard: &Toolyard, with: Option<&Agent>) -> String {
    let mut curl = curl(with);
    curl.args(["--data", "{}"]).arg(format!("https://{}/dtma/v1/sync", toolyard.agent_address()));
    let output = curl.output().expect("curl runs");
    if !output.status.success() {
        return format!("no answer: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let problem: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    problem["code"].as_str().unwrap_or_default().to_owned()
}

/// How often a toolbox's key was found to be copied.
fn copies_found(toolyard: &Toolyard) -> usize {
    toolyard.audited(|line| {
        line["action"] == "toolbox.revoke" && line["detail"]["why"].as_str().is_some_and(|why| why.contains("copied"))
    })
}

#[test]
fn a_certificate_is_good_until_it_ends_and_for_its_own_toolyard_only() {
    let mut facts = Facts::of(13, "Expired and foreign certificates, and none");
    let toolyard = Toolyard::start_at(std::net::Ipv4Addr::LOCALHOST.into(), &["agent_certificate_seconds=15"]);
    let mut agent = Agent::enrolled(&toolyard, "edge1", "", None, Runs::Processes);
    // So that nobody renews it.
    agent.kill();
    let good = knock(&toolyard, Some(&agent));
    assert_eq!(good, "invalid_json", "it is let in, and what it says is read");
    let none = knock(&toolyard, None);
    assert_eq!(none, "certificate_required");
    let other = Toolyard::start();
    let mut stranger = Agent::enrolled(&other, "edge1", "", None, Runs::Processes);
    stranger.kill();
    let foreign = knock(&toolyard, Some(&stranger));
    assert!(foreign.starts_with("no answer"), "{foreign}");
    let began = Instant::now();
    wait_until(Duration::from_secs(20), "its time is over", || began.elapsed() > Duration::from_secs(16));
    let ended = knock(&toolyard, Some(&agent));
    assert!(ended.starts_with("no answer"), "{ended}");
    facts
        .observe(format!("a good certificate gets to the request's body (`{good}` for `{{}}`); none at all: `{none}`"));
    facts.observe(format!("of another Toolyard's CA: {foreign}"));
    facts.observe(format!("the good one after its end: {ended}"));

    let back = Instant::now();
    agent.start(&toolyard, None);
    agent.wait_online(&toolyard, "edge1");
    facts.observe(format!(
        "its own agent, which has the key, renews it and is online {} after its start",
        seconds(back.elapsed())
    ));
    facts.write();
}

#[test]
fn two_agents_with_one_key_are_noticed_and_both_are_refused_until_the_owner_joins_again() {
    let mut facts = Facts::of(12, "The same certificate from two agents at once");
    let toolyard = Toolyard::start();
    let mut agent = Agent::enrolled(&toolyard, "edge1", "", None, Runs::Processes);
    toolyard.deploy("far", &["--toolbox", "edge1"]);
    let mut thief = Agent::new(None, Runs::Processes);
    agent.steal_identity(&thief);
    let began = Instant::now();
    thief.start(&toolyard, None);
    for log in [&agent, &thief] {
        wait_until(Duration::from_secs(120), "both are told", || log.log().contains("revoked"));
    }
    let noticed = began.elapsed();
    wait_until(Duration::from_secs(5), "no link is left", || toolyard.toolbox("edge1")["link"]["connected"] == false);
    assert_eq!(copies_found(&toolyard), 1);
    facts.observe(format!(
        "noticed and both refused with `certificate_revoked` after {}; one line in the audit log",
        seconds(noticed)
    ));
    thief.interrupt();

    let rejoin = toolyard.json(&["toolboxes", "rejoin", "edge1"]);
    agent.kill();
    agent.start(&toolyard, rejoin["token"].as_str());
    let back = agent.wait_online(&toolyard, "edge1");
    wait_until(Duration::from_secs(30), "its server answers", || toolyard.echoes("far"));
    facts.observe(format!("the owner joins again with a new token ({}), and its server answers", seconds(back)));
    facts.write();
}

#[test]
fn two_agents_with_one_key_are_noticed_when_they_ask_different_replicas() {
    let mut facts = Facts::of(14, "The same certificate from two agents that ask different replicas");
    let first = Toolyard::start_on_postgres();
    let second = first.replica();
    let mut agent = Agent::enrolled(&first, "edge1", "", None, Runs::Processes);
    first.deploy("far", &["--toolbox", "edge1"]);
    let mut took = Vec::new();
    for round in 1..=3 {
        let told = agent.log().matches("revoked").count();
        let mut thief = Agent::new(None, Runs::Processes);
        agent.steal_identity(&thief);
        thief.ask_only(second.agent_address());
        let began = Instant::now();
        thief.start(&second, None);
        wait_until(Duration::from_secs(120), "both are told", || {
            thief.log().contains("revoked") && agent.log().matches("revoked").count() > told
        });
        took.push(began.elapsed());
        for toolyard in [&first, &second] {
            wait_until(Duration::from_secs(20), "no link is left", || {
                toolyard.toolbox("edge1")["link"]["connected"] == false
            });
        }
        assert_eq!(copies_found(&first), round, "{:#}", first.get("/audit"));
        thief.interrupt();
        let rejoin = first.json(&["toolboxes", "rejoin", "edge1"]);
        agent.kill();
        agent.start(&first, rejoin["token"].as_str());
        agent.wait_online(&first, "edge1");
        wait_until(Duration::from_secs(30), "its server answers", || first.echoes("far") && second.echoes("far"));
    }
    assert!(took.iter().all(|took| *took < Duration::from_secs(60)), "{took:?}");
    facts.observe(format!(
        "two replicas on one Postgres, the owner asks one of them, the thief the other; three times: both refused with `certificate_revoked` {} after the thief's start, one line in the audit log each time",
        took.into_iter().map(seconds).collect::<Vec<_>>().join(", ")
    ));
    facts.write();
}

#[test]
fn a_thief_with_a_program_of_its_own_is_noticed_and_the_doctor_is_no_thief() {
    let mut facts = Facts::of(15, "A copied certificate in a program of the thief's own");
    let toolyard = Toolyard::start();
    let mut agent = Agent::enrolled(&toolyard, "edge1", "", None, Runs::Processes);
    toolyard.deploy("far", &["--toolbox", "edge1"]);
    for _ in 0..3 {
        let output = agent.command(&toolyard).arg("doctor").output().expect("the doctor runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("certificate"), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(copies_found(&toolyard) == 0 && toolyard.echoes("far"), "{}", agent.log());
    facts.observe("`dtma doctor` three times beside its agent, with the same certificate: nothing is revoked");

    let sync = r#"{"protocol_min":1,"protocol_max":1,"agent_version":"0.1.0","generation":0,"observed":{"toolbox":{"engine":"process","platform":"linux","runtimes":{},"enforcement":{}},"instances":[],"jobs":[]}}"#;
    let link = ["--http1.1", "--header", "connection: upgrade", "--header", "upgrade: toolyard-link", "--data", ""];
    for (what, path, options) in
        [("asks what the toolbox runs", "sync", &["--data", sync][..]), ("takes the toolbox's calls", "link", &link)]
    {
        let (began, before) = (Instant::now(), copies_found(&toolyard));
        let mut thief = curl(Some(&agent));
        thief.args(options).arg(format!("https://{}/dtma/v1/{path}", toolyard.agent_address()));
        let mut thief = thief.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("curl runs");
        wait_until(Duration::from_secs(120), "the thief is noticed", || copies_found(&toolyard) > before);
        let noticed = began.elapsed();
        wait_until(Duration::from_secs(20), "no link is left", || {
            toolyard.toolbox("edge1")["link"]["connected"] == false
        });
        let _ = thief.kill();
        let _ = thief.wait();
        assert_eq!(knock(&toolyard, Some(&agent)), "certificate_revoked");
        facts.observe(format!(
            "a thief that {what} once, with `curl`, and does not say which run of an agent it is: the certificate is revoked after {}",
            seconds(noticed)
        ));
        let rejoin = toolyard.json(&["toolboxes", "rejoin", "edge1"]);
        agent.kill();
        agent.start(&toolyard, rejoin["token"].as_str());
        agent.wait_online(&toolyard, "edge1");
        wait_until(Duration::from_secs(30), "its server answers", || toolyard.echoes("far"));
    }
    facts.write();
}
