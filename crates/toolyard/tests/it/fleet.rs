//! An agent as a second process: sync and calls are wires, over loopback.

use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::harness::{EVERYTHING, Engine, Toolyard, alive, signal, wait_until};

/// A `toolyard dtma` of this test's own.
struct Agent {
    child: Child,
    dir: tempfile::TempDir,
}

impl Agent {
    fn start(toolyard: &Toolyard, dir: tempfile::TempDir, token: &str) -> Self {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(dir.path().join("agent.log"))
            .expect("a log file");
        let child = toolyard
            .command()
            .args(["dtma", "--token", token, "--engine", "process", "--data-dir"])
            .arg(dir.path().join("data"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("the agent starts");
        Self { child, dir }
    }

    /// `SIGKILL`, leaving its servers to their supervisors.
    fn kill(mut self) -> tempfile::TempDir {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.dir
    }

    /// Ctrl-C: servers are stopped too.
    fn interrupt(mut self) {
        signal(self.child.id(), "INT");
        let _ = self.child.wait();
    }
}

fn state_of(toolyard: &Toolyard, toolbox: &str) -> String {
    let list = toolyard.json(&["toolboxes", "list"]);
    let found = list["items"].as_array().and_then(|items| items.iter().find(|item| item["name"] == toolbox).cloned());
    found.and_then(|toolbox| toolbox["state"].as_str().map(String::from)).unwrap_or_default()
}

fn pid_of(server: &Value) -> u32 {
    server["instances"][0]["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a running instance")
}

#[test]
fn a_server_on_a_second_agent_is_deployed_and_called_over_the_link_and_survives_the_agents_death() {
    let toolyard = Toolyard::start(Engine::Sqlite);
    let enrolled = toolyard.json(&["toolboxes", "enroll", "edge1"]);
    let token = enrolled["token"].as_str().expect("a token").to_owned();
    let agent = Agent::start(&toolyard, tempfile::tempdir().expect("a directory"), &token);
    wait_until(Duration::from_secs(60), "the toolbox is online", || state_of(&toolyard, "edge1") == "online");

    let server = toolyard.json(&["deploy", EVERYTHING, "--name", "far", "--toolbox", "edge1", "--wait"]);
    assert_eq!(server["instances"][0]["toolbox"], "edge1", "{server:#}");
    let echo = || toolyard.json(&["call", "far", "echo", r#"{"message":"over the link"}"#]);
    assert_eq!(echo()["content"][0]["text"], "Echo: over the link");
    assert!(toolyard.ok(&["servers", "logs", "far"]).contains("started process"), "logs come over the link too");

    let before = pid_of(&server);
    let agent = Agent::start(&toolyard, agent.kill(), &token);
    assert!(alive(before), "the server outlives its agent");
    wait_until(Duration::from_secs(60), "calls work again", || {
        toolyard.run(&["call", "far", "echo", r#"{"message":"again"}"#]).status.success()
    });
    assert_eq!(pid_of(&toolyard.json(&["servers", "show", "far"])), before, "the same process serves on");

    agent.interrupt();
    wait_until(Duration::from_secs(30), "the server ends with its agent", || !alive(before));
}

#[test]
fn a_token_that_is_not_one_or_not_ours_is_refused() {
    let toolyard = Toolyard::start(Engine::Sqlite);
    let output = toolyard.run(&["dtma", "--token", "not-a-token", "--data-dir", "agent"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("toolboxes enroll"));
}
