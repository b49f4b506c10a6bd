//! Revisions that cannot hurt: clients call fifty times a second while one bad revision after the other is tried.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::agents::{Agent, Runs, pid_of};
use crate::calls::{Calls, Load};
use crate::facts::Facts;
use crate::world::{Toolyard, is_ready, places, seconds, wait_until};

const PER_SECOND: u32 = 50;

/// A server whose first revision is good and serves.
fn good(toolyard: &Toolyard, name: &str) -> Value {
    toolyard.deploy(name, &["--set-env", "FLEET_REVISION=1"])
}

/// Tries another revision; the rollout when it has ended.
#[track_caller]
fn update(toolyard: &Toolyard, name: &str, options: &[&str]) -> Value {
    let args = [&["servers", "update", name, "--wait", "--timeout", "120", "--output", "json"], options].concat();
    let _ = toolyard.run(&args);
    let rollout = toolyard.json(&["rollout", "status", name]);
    assert_ne!(rollout["state"], "progressing", "{rollout:#}");
    rollout
}

#[test]
fn a_revision_that_crashes_loses_a_tool_or_answers_too_slowly_fails_no_call() {
    let mut facts = Facts::of(20, "Bad revisions under 50 calls a second: rolled back before they serve");
    let toolyard = Toolyard::start();
    let _agent = Agent::enrolled(&toolyard, "edge1", "", None, Runs::Processes);
    for (name, options, reasons) in [
        ("crashes", &["--arg", "crash", "--set-env", "FLEET_REVISION=2"][..], &["exited", "crash_loop"][..]),
        ("forgets", &["--arg", "lose-tool", "--set-env", "FLEET_REVISION=2"], &["tools_lost"]),
        (
            "dawdles",
            &["--arg", "slow=60000", "--start-timeout", "3", "--set-env", "FLEET_REVISION=2"],
            &["start_timeout"],
        ),
    ] {
        let before = good(&toolyard, name);
        let load = Load::start(&toolyard, name, PER_SECOND);
        let began = Instant::now();
        let rollout = update(&toolyard, name, options);
        let took = began.elapsed();
        let calls = load.settle(Duration::from_secs(2));
        assert_eq!(rollout["state"], "rolled_back", "{rollout:#}");
        let reason = rollout["reason"].as_str().unwrap_or_default();
        assert!(reasons.contains(&reason), "{rollout:#}");
        assert!(calls.failed().is_empty(), "{:?}", calls.failed());
        assert_eq!(calls.by_revision("1"), calls.0.len(), "only the old revision served");
        let after = toolyard.wait_server(name, "the old one alone again", |server| {
            is_ready(server) && server["instances"].as_array().is_some_and(|all| all.len() == 1)
        });
        assert_eq!((&after["revision"], pid_of(&after)), (&1.into(), pid_of(&before)), "{after:#}");
        facts.observe(format!(
            "`{name}`: rolled back after {} with `{reason}` ({}); {} calls, {} failed, the longest took {}; the old process serves on",
            seconds(took),
            rollout["message"].as_str().unwrap_or_default().lines().next().unwrap_or_default(),
            calls.0.len(),
            calls.failed().len(),
            seconds(calls.longest()),
        ));
    }
    facts.write();
}

#[test]
fn a_good_revision_replaces_another_and_fails_no_call() {
    let mut facts = Facts::of(21, "A good revision under 50 calls a second");
    let toolyard = Toolyard::start();
    let _agent = Agent::enrolled(&toolyard, "edge1", "", None, Runs::Processes);
    good(&toolyard, "fine");
    let load = Load::start(&toolyard, "fine", PER_SECOND);
    let began = Instant::now();
    let rollout = update(&toolyard, "fine", &["--set-env", "FLEET_REVISION=2"]);
    assert_eq!(rollout["state"], "done", "{rollout:#}");
    let took = began.elapsed();
    let calls = load.settle(Duration::from_secs(3));
    assert!(calls.failed().is_empty(), "{:?}", calls.failed());
    let (old, new) = (calls.by_revision("1"), calls.by_revision("2"));
    assert!(old > 0 && new > 0 && old + new == calls.0.len(), "{old} + {new} of {}", calls.0.len());
    facts.observe(format!(
        "done after {}, the observation of the new revision included; {} calls, 0 failed: {old} by the old revision, {new} by the new one; the longest took {}",
        seconds(took),
        calls.0.len(),
        seconds(calls.longest()),
    ));
    facts.write();
}

#[test]
fn a_revision_that_crashes_a_second_after_the_switch_is_taken_back_with_only_calls_in_flight_lost() {
    let mut facts = Facts::of(22, "A revision that crashes one second after it began to serve");
    let toolyard = Toolyard::start();
    let _agent = Agent::enrolled(&toolyard, "edge1", "", None, Runs::Processes);
    let before = good(&toolyard, "late");
    let load = Load::start(&toolyard, "late", PER_SECOND);
    let began = Instant::now();
    let rollout = update(&toolyard, "late", &["--arg", "crash-after=1000", "--set-env", "FLEET_REVISION=2"]);
    let took = began.elapsed();
    assert_eq!(rollout["state"], "rolled_back", "{rollout:#}");
    let calls = load.settle(Duration::from_secs(3));
    let failed = calls.failed();
    // What is allowed: calls in flight, and those sent until the switch back; each with a code.
    let span =
        failed.last().zip(failed.first()).map(|(last, first)| last.sent.saturating_sub(first.sent)).unwrap_or_default();
    assert!(span < Duration::from_secs(1), "calls failed for {span:?}: {failed:?}");
    assert!(failed.iter().all(|call| call.outcome.as_ref().is_err_and(|error| error.ends_with(')'))), "{failed:?}");
    let after = toolyard.wait_server("late", "the old one alone again", |server| {
        is_ready(server) && server["instances"].as_array().is_some_and(|all| all.len() == 1)
    });
    assert_eq!((&after["revision"], pid_of(&after)), (&1.into(), pid_of(&before)), "{after:#}");
    facts.observe(format!(
        "rolled back after {} with `{}` ({})",
        seconds(took),
        rollout["reason"].as_str().unwrap_or_default(),
        rollout["message"].as_str().unwrap_or_default().lines().next().unwrap_or_default(),
    ));
    facts.observe(format!(
        "{} calls: {} by the new revision, {} failed, all within {} ({})",
        calls.0.len(),
        calls.by_revision("2"),
        failed.len(),
        seconds(span),
        failed.first().and_then(|call| call.outcome.as_ref().err()).map_or("none", String::as_str),
    ));
    facts.write();
}

#[test]
fn a_canary_of_ten_per_cent_gets_a_hundred_of_a_thousand_calls() {
    let mut facts = Facts::of(23, "A canary of 10 % over 1,000 calls");
    let toolyard = Toolyard::start();
    let _agent = Agent::enrolled(&toolyard, "edge1", "", None, Runs::Processes);
    good(&toolyard, "bird");
    let args = ["servers", "update", "bird", "--canary", "10%", "--set-env", "FLEET_REVISION=2"];
    toolyard.json(&args);
    toolyard.wait_server("bird", "the canary serves", |server| server["rollout"]["reason"] == "canary");
    wait_until(Duration::from_secs(20), "the gateway routes to it", || {
        let answer = toolyard.call("bird", "who", json!({})).1;
        answer.is_ok_and(|who| who.contains("\"revision\":\"2\""))
    });
    let load = Load::start(&toolyard, "bird", 100);
    let calls = load.settle(Duration::from_secs(10));
    let first: Vec<_> = calls.0.iter().take(1000).cloned().collect();
    let thousand = Calls(first);
    assert_eq!((thousand.0.len(), thousand.failed().len()), (1000, 0), "{:?}", thousand.failed());
    let share = thousand.by_revision("2");
    assert!((90..=110).contains(&share), "{share} of 1,000");
    facts.observe(format!(
        "{share} of 1,000 calls were answered by the canary, {} by the serving revision, 0 failed",
        thousand.by_revision("1")
    ));
    let load = Load::start(&toolyard, "bird", PER_SECOND);
    toolyard.json(&["rollout", "promote", "bird"]);
    let ended = toolyard.wait_server("bird", "promoted", |server| server["rollout"]["state"] == "done");
    let calls = load.settle(Duration::from_secs(2));
    assert!(calls.failed().is_empty(), "{:?}", calls.failed());
    assert_eq!(ended["revision"], 2, "{ended:#}");
    facts.observe(format!("`rollout promote` under {PER_SECOND} calls a second: {} calls, 0 failed", calls.0.len()));
    facts.write();
}

#[test]
fn replicas_spread_over_toolboxes_and_a_drain_moves_them_without_a_failed_call() {
    let mut facts = Facts::of(24, "Replicas, and a toolbox that is drained and removed");
    let toolyard = Toolyard::start();
    let _agents =
        ["edge1", "edge2", "edge3"].map(|name| Agent::enrolled(&toolyard, name, "zone=a", None, Runs::Processes));
    let server =
        toolyard.deploy("many", &["--toolbox-labels", "zone=a", "--replicas", "3", "--set-env", "FLEET_REVISION=1"]);
    assert_eq!(places(&server), ["edge1", "edge2", "edge3"], "{server:#}");
    facts.observe("`--replicas 3` with labels that three toolboxes have: one instance on each");

    let load = Load::start(&toolyard, "many", PER_SECOND);
    let began = Instant::now();
    toolyard.json(&["toolboxes", "drain", "edge2"]);
    toolyard.json(&["toolboxes", "remove", "edge2"]);
    let took = began.elapsed();
    assert!(toolyard.toolbox("edge2").is_null());
    let moved = toolyard.wait_server("many", "three elsewhere", |server| {
        let places = places(server);
        is_ready(server) && places.len() == 3 && !places.iter().any(|place| place == "edge2")
    });
    let calls = load.settle(Duration::from_secs(2));
    assert!(calls.failed().is_empty(), "{:?}", calls.failed());
    facts.observe(format!(
        "`toolboxes drain edge2` and at once `toolboxes remove edge2` under {PER_SECOND} calls a second: it is gone after {}, \
         and its instance serves elsewhere ({}); {} calls, 0 failed",
        seconds(took),
        places(&moved).join(", "),
        calls.0.len(),
    ));
    assert!(toolyard.echoes("many"));
    facts.write();
}
