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

    let refused =
        ["deploy", EVERYTHING, "--name", "open", "--toolbox", "local", "--egress", "api.example.test", "--wait"];
    let refused = toolyard.run(&[&refused[..], &["--output", "json"]].concat());
    assert!(!refused.status.success(), "processes cannot be kept to listed hosts");
    let refused: Value = serde_json::from_slice(&refused.stdout).expect("it says why as JSON");
    assert_eq!(refused["error"]["code"], "unsupported_by_engine", "{refused:#}");
    assert!(!toolyard.run(&["servers", "show", "open"]).status.success(), "it was refused before it was made");

    // Without a toolbox named it goes where the rule can be kept.
    let shut = toolyard.json(&["deploy", EVERYTHING, "--name", "shut", "--egress", "api.example.test", "--wait"]);
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

/// What the engine's own command line says.
#[track_caller]
fn docker(arguments: &[&str]) -> String {
    let host = test_variable("TOOLYARD_TEST_DOCKER_HOST");
    let output = std::process::Command::new("docker").args(["-H", &host]).args(arguments).output().expect("docker");
    assert!(output.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

/// An image with a server in it that speaks HTTP; removed when dropped.
struct Image(String);

impl Image {
    fn make(toolyard: &Toolyard) -> Self {
        let file = toolyard.dir.path().join("server.js");
        std::fs::write(&file, include_str!("../../../dtma/tests/it/container_http.js")).expect("written");
        let name = format!("toolyard-test-image:p{}", std::process::id());
        let made = docker(&["create", "toolyard/base-node:1", "node"]);
        docker(&["cp", &file.display().to_string(), &format!("{made}:/server.js")]);
        docker(&["commit", "--change", r#"ENTRYPOINT ["node","/server.js"]"#, &made, &name]);
        docker(&["rm", &made]);
        Self(name)
    }

    /// Publishes it as an entry that speaks HTTP.
    fn publish(&self, toolyard: &Toolyard) -> &'static str {
        let entry = "io.example/over-http";
        let document = serde_json::json!({
            "$schema": "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json",
            "name": entry, "description": "Speaks HTTP", "version": "1.0.0",
            "packages": [{
                "registryType": "oci", "identifier": self.0,
                "transport": { "type": "streamable-http", "url": "http://localhost:{PORT}/mcp" },
                "environmentVariables": [{ "name": "PORT", "default": "8123" }, { "name": "MODE", "default": "legacy" }],
            }],
        });
        let file = toolyard.dir.path().join("entry.json");
        std::fs::write(&file, document.to_string()).expect("written");
        toolyard.json(&["catalog", "publish", &file.display().to_string()]);
        entry
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        docker(&["rmi", "--force", &self.0]);
    }
}

#[test]
fn an_image_over_http_keeps_its_volume_through_an_update_and_loses_it_when_it_is_deleted() {
    let toolyard = Toolyard::start(Engine::Sqlite);
    let image = Image::make(&toolyard);
    let entry = image.publish(&toolyard);
    let token = toolyard.json(&["toolboxes", "enroll", "docks"])["token"].as_str().expect("a token").to_owned();
    let agent = Agent::start(&toolyard, Some(&token));
    wait_online(&toolyard, "docks");

    let refused = toolyard.run(&["deploy", entry, "--name", "notes", "--volume", "data:/proc/x"]);
    assert_eq!(refused.status.code(), Some(2), "a path that cannot be one is a matter of usage");
    let refused = toolyard.run(&["deploy", entry, "--name", "notes", "--volume", "data:/data", "--replicas", "2"]);
    assert!(!refused.status.success());

    let deployed =
        toolyard.json(&["deploy", entry, "--name", "notes", "--volume", "data:/data", "--egress", "none", "--wait"]);
    assert_eq!((&deployed["phase"], &deployed["toolbox"]), (&"ready".into(), &"docks".into()), "{deployed:#}");
    let note = |text: &str| {
        let arguments = serde_json::json!({ "path": "/data/notes", "text": text }).to_string();
        toolyard.json(&["call", "notes", "note", &arguments])["content"][0]["text"].as_str().map(str::to_owned)
    };
    assert_eq!(note("a").as_deref(), Some("a"));
    let id = deployed["id"].as_str().expect("an id");
    let volumes = || docker(&["volume", "ls", "--quiet", "--filter", &format!("label=dev.toolyard.server={id}")]);
    let before = volumes();
    assert_eq!(before.lines().count(), 1, "{before}");

    toolyard.ok(&["servers", "update", "notes", "--set-env", "LEVEL=2", "--wait"]);
    assert_eq!(note("b").as_deref(), Some("ab"), "what was written before the update is there");
    assert_eq!(volumes(), before);
    let draining = toolyard.json(&["toolboxes", "drain", "docks"]);
    assert_eq!(draining["drain"]["volumes"], serde_json::json!(["notes"]), "{draining:#}");
    toolyard.ok(&["toolboxes", "resume", "docks"]);
    toolyard.ok(&["servers", "stop", "notes", "--wait"]);
    assert_eq!(volumes(), before);
    toolyard.ok(&["servers", "start", "notes", "--wait"]);
    assert_eq!(note("c").as_deref(), Some("abc"));

    toolyard.ok(&["servers", "delete", "notes", "--wait"]);
    wait_until(Duration::from_secs(30), "its volume is gone", || volumes().is_empty());
    agent.interrupt();
}

#[test]
fn a_package_over_http_is_deployed_from_the_catalog_to_a_toolbox_with_containers() {
    let toolyard = Toolyard::start(Engine::Sqlite);
    let entry = "io.example/package-over-http";
    let document = serde_json::json!({
        "$schema": "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json",
        "name": entry, "description": "Speaks HTTP", "version": "1.0.0",
        "packages": [{
            "registryType": "npm", "identifier": "@modelcontextprotocol/server-everything", "version": "2026.8.31",
            "transport": {
                "type": "streamable-http", "url": "http://localhost:{PORT}/mcp",
                "headers": [{ "name": "X-Region", "description": "Where", "isRequired": true }],
            },
            "packageArguments": [{ "type": "positional", "value": "streamableHttp" }],
            "environmentVariables": [{ "name": "PORT", "default": "3001" }],
        }],
    });
    let file = toolyard.dir.path().join("entry.json");
    std::fs::write(&file, document.to_string()).expect("written");
    toolyard.json(&["catalog", "publish", &file.display().to_string()]);
    let deploy = ["deploy", entry, "--name", "web", "--egress", "none", "--wait"];
    assert!(!toolyard.run(&deploy).status.success(), "a header is missing");
    let deploy = [&deploy[..], &["--input", "X-Region=eu"]].concat();
    assert!(!toolyard.run(&deploy).status.success(), "processes cannot be kept apart so");
    assert_eq!(toolyard.json(&["servers", "show", "web"])["reason"], "unsupported_by_engine");
    toolyard.ok(&["servers", "delete", "web", "--wait"]);

    let token = toolyard.json(&["toolboxes", "enroll", "docks"])["token"].as_str().expect("a token").to_owned();
    let agent = Agent::start(&toolyard, Some(&token));
    wait_online(&toolyard, "docks");
    let deployed = toolyard.json(&deploy);
    let place = &deployed["instances"][0]["toolbox"];
    assert_eq!((&deployed["phase"], place), (&"ready".into(), &"docks".into()), "{deployed:#}");
    let answer = toolyard.json(&["call", "web", "echo", r#"{"message":"hi"}"#]);
    assert!(answer["content"][0]["text"].as_str().is_some_and(|text| text.contains("hi")), "{answer:#}");
    agent.interrupt();
}
