//! What happens to running servers when Toolyard is killed, restarted, or the machine reboots.

use std::time::Duration;

use serde_json::Value;

use crate::harness::{EVERYTHING, Engine, Toolyard, alive, signal, wait_until};

fn pid_of(server: &Value) -> u32 {
    server["instances"][0]["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a running instance")
}

fn is_ready(server: &Value) -> bool {
    server["phase"] == "ready" && server["instances"][0]["pid"].is_u64()
}

#[test]
fn a_server_serves_on_with_the_same_pid_when_toolyard_is_killed_and_started_again() {
    let mut toolyard = Toolyard::start(Engine::Sqlite);
    let before = pid_of(&toolyard.json(&["deploy", EVERYTHING, "--name", "everything", "--wait"]));
    toolyard.kill();
    assert!(alive(before), "the server outlives the kill");
    toolyard.serve();
    let after = toolyard.wait_server("everything", is_ready);
    assert_eq!(pid_of(&after), before);
    let result = toolyard.json(&["call", "everything", "echo", r#"{"message":"still here"}"#]);
    assert_eq!(result["content"][0]["text"], "Echo: still here");
}

#[test]
fn nothing_survives_the_grace_when_toolyard_is_killed_and_not_started_again() {
    let mut toolyard = Toolyard::start(Engine::Sqlite);
    let pid = pid_of(&toolyard.json(&["deploy", EVERYTHING, "--name", "everything", "--wait"]));
    toolyard.kill();
    wait_until(Duration::from_secs(30), "the server and its supervisor end", || {
        !alive(pid) && toolyard.processes().is_empty()
    });
}

#[test]
fn the_same_servers_are_ready_again_after_a_reboot_without_a_command() {
    let mut toolyard = Toolyard::start(Engine::Sqlite);
    let before = pid_of(&toolyard.json(&["deploy", EVERYTHING, "--name", "everything", "--wait"]));
    toolyard.kill();
    // What a reboot leaves: nothing.
    signal(before, "KILL");
    for pid in toolyard.processes() {
        signal(pid, "KILL");
    }
    wait_until(Duration::from_secs(10), "everything is gone", || toolyard.processes().is_empty() && !alive(before));
    toolyard.serve();
    let after = toolyard.wait_server("everything", |server| is_ready(server) && pid_of(server) != before);
    assert_eq!(after["revision"], 1);
}

#[test]
fn an_ordinary_restart_interrupts_no_server() {
    let mut toolyard = Toolyard::start(Engine::Sqlite);
    let before = pid_of(&toolyard.json(&["deploy", EVERYTHING, "--name", "everything", "--wait"]));
    toolyard.terminate();
    toolyard.serve();
    assert_eq!(pid_of(&toolyard.wait_server("everything", is_ready)), before);
}
