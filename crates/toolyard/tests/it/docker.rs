//! A toolbox with containers, from enrolment to deletion. What the engine itself does is tested in `dtma`.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{EVERYTHING, Engine, Toolyard, alive, pause, signal, test_variable, wait_until};

/// A `toolyard dtma --engine docker` of this test's own.
struct Agent {
    child: Child,
}

impl Agent {
    fn start(toolyard: &Toolyard, token: Option<&str>) -> Self {
        let log = toolyard.dir.path().join("agent.log");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log).expect("a log file");
        let mut command = toolyard.command();
        if let Some(token) = token {
            command.env("TOOLYARD_TOKEN", token);
        }
        let child = command
            .env("DOCKER_HOST", test_variable("TOOLYARD_TEST_DOCKER_HOST"))
            .args(["dtma", "--engine", "docker", "--data-dir"])
            .arg(toolyard.dir.path().join("agent"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("the agent starts");
        Self { child }
    }

    fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Ctrl-C: its containers are stopped too.
    fn interrupt(mut self) {
        signal(self.child.id(), "INT");
        let _ = self.child.wait();
    }
}

#[track_caller]
fn wait_online(toolyard: &Toolyard, name: &str) -> Value {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let list = toolyard.json(&["toolboxes", "list"]);
        let found = list["items"].as_array().and_then(|items| items.iter().find(|item| item["name"] == name).cloned());
        match found {
            Some(found) if found["state"] == "online" && found["link"]["connected"] == true => return found,
            found => {
                let log = std::fs::read_to_string(toolyard.dir.path().join("agent.log")).unwrap_or_default();
                assert!(Instant::now() < until, "{found:#?}\n{log}\n{}", toolyard.log_text());
                pause();
            }
        }
    }
}

fn pid_of(server: &Value) -> u32 {
    server["instances"][0]["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a running instance")
}

#[test]
fn a_toolbox_with_containers_enforces_egress_and_its_servers_survive_its_agents_death() {
    let toolyard = Toolyard::start(Engine::Sqlite);
    let token = toolyard.json(&["toolboxes", "enroll", "docks"])["token"].as_str().expect("a token").to_owned();
    let agent = Agent::start(&toolyard, Some(&token));
    assert_eq!(wait_online(&toolyard, "docks")["engine"], "docker");

    let refused = ["deploy", EVERYTHING, "--name", "open", "--toolbox", "local", "--egress", "none", "--wait"];
    let refused = toolyard.run(&[&refused[..], &["--output", "json"]].concat());
    assert!(!refused.status.success(), "processes cannot be kept from the network");
    assert_eq!(toolyard.json(&["servers", "show", "open"])["reason"], "unsupported_by_engine");

    // Without a toolbox named it goes where the rule can be kept.
    let shut = toolyard.json(&["deploy", EVERYTHING, "--name", "shut", "--egress", "none", "--wait"]);
    assert_eq!((&shut["phase"], &shut["instances"][0]["toolbox"]), (&"ready".into(), &"docks".into()), "{shut:#}");
    let pid = pid_of(&shut);
    let echoes = || toolyard.run(&["call", "shut", "echo", r#"{"message":"hi"}"#]).status.success();
    assert!(echoes());

    agent.kill();
    assert!(alive(pid), "a container does not end with its agent");
    let agent = Agent::start(&toolyard, None);
    wait_online(&toolyard, "docks");
    wait_until(Duration::from_secs(30), "calls arrive again", echoes);
    assert_eq!(pid_of(&toolyard.json(&["servers", "show", "shut"])), pid);

    toolyard.ok(&["servers", "delete", "shut", "--wait"]);
    assert!(!alive(pid), "a deleted server has no container");
    agent.interrupt();
}
