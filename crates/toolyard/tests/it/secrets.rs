//! A canary secret: the server gets it, and nothing else shows or keeps it.

use std::path::Path;

use serde_json::json;

use crate::harness::{Engine, KEY, Toolyard};

const CANARY: &str = "canary-7f3a9c51-do-not-leak";

/// Every file below `dir` that holds the canary.
fn files_with_canary(dir: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files_with_canary(&path, found),
            Ok(kind) if kind.is_file() => {
                let bytes = std::fs::read(&path).unwrap_or_default();
                if bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes()) {
                    found.push(path.display().to_string());
                }
            }
            _ => {}
        }
    }
}

#[test]
fn a_secret_input_reaches_its_server_and_is_found_nowhere_else() {
    let toolyard = Toolyard::start(Engine::Sqlite);
    let entry = json!({
        "$schema": "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json",
        "name": "test.example/with-secret",
        "description": "Shows its environment.",
        "version": "1.0.0",
        "packages": [{
            "registryType": "npm",
            "identifier": "@modelcontextprotocol/server-everything",
            "version": "2026.8.31",
            "transport": { "type": "stdio" },
            "environmentVariables": [{ "name": "SERVICE_TOKEN", "isSecret": true, "isRequired": true }],
        }],
    });
    let file = toolyard.dir.path().join("server.json");
    std::fs::write(&file, entry.to_string()).expect("a file");
    toolyard.json(&["catalog", "publish", file.to_str().expect("text")]);

    let missing = toolyard.run(&["deploy", "test.example/with-secret", "--name", "keeper"]);
    assert!(!missing.status.success(), "a required secret must be given");
    assert!(String::from_utf8_lossy(&missing.stderr).contains("SERVICE_TOKEN"));

    let input = format!("SERVICE_TOKEN={CANARY}");
    let deployed =
        toolyard.json(&["deploy", "test.example/with-secret", "--name", "keeper", "--input", &input, "--wait"]);
    assert_eq!(deployed["phase"], "ready", "{deployed:#}");
    let environment = toolyard.json(&["call", "keeper", "get-env"]).to_string();
    assert!(environment.contains(CANARY), "the server has its secret");
    assert!(!environment.contains(KEY) && !environment.contains("TOOLYARD_"), "and nothing of ours: {environment}");

    for answer in [
        toolyard.json(&["servers", "show", "keeper"]),
        toolyard.json(&["servers", "revisions", "keeper"]),
        toolyard.json(&["credentials", "list"]),
        toolyard.json(&["audit"]),
    ] {
        assert!(!answer.to_string().contains(CANARY), "{answer:#}");
    }
    assert!(toolyard.json(&["credentials", "list"]).to_string().contains("keeper"), "it became a credential");
    assert!(!toolyard.log_text().contains(CANARY), "the log of Toolyard holds it");
    let mut found = Vec::new();
    files_with_canary(&toolyard.dir.path().join("data"), &mut found);
    assert_eq!(found, Vec::<String>::new(), "files that hold the secret");
}
