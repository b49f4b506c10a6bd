//! Configuration, health, metrics, the API's description: what operators rely on.

use std::process::Command;

use serde_json::Value;

use crate::harness::{Engine, Toolyard, ureq};

fn toolyard_in(dir: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_toolyard"));
    command.current_dir(dir).env_remove("TOOLYARD_ENV").env_remove("TOOLYARD_API_KEY");
    command
}

#[test]
fn production_refuses_every_insecure_setting_at_once_with_exit_code_78() {
    let dir = tempfile::tempdir().expect("a directory");
    for command in [&["serve"][..], &["config", "check"]] {
        let output = toolyard_in(dir.path())
            .args(command)
            .env("TOOLYARD_ENV", "production")
            .env("TOOLYARD_DATA_DIR", dir.path().join("data"))
            .env("TOOLYARD_COOKIE_SECURE", "false")
            .env("TOOLYARD_BOOTSTRAP_API_KEY", "ty_bootstrap_0123456789abcdef0123456789abcdef")
            .output()
            .expect("toolyard runs");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{text}");
        for setting in ["public_url", "cookie_secure", "bootstrap_api_key"] {
            assert!(text.contains(setting), "{setting} is not named in: {text}");
        }
        assert!(!text.contains("0123456789abcdef"), "values are never shown: {text}");
    }
}

#[test]
fn an_unknown_environment_and_an_unknown_setting_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let output = toolyard_in(dir.path()).arg("serve").env("TOOLYARD_ENV", "prod").output().expect("toolyard runs");
    assert_eq!(output.status.code(), Some(78));
    let output = toolyard_in(dir.path()).args(["serve", "--set", "colour=red"]).output().expect("toolyard runs");
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("colour"));
}

#[test]
fn config_show_redacts_secrets_and_says_where_each_value_came_from() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("toolyard.toml"), "session_hours = 3").expect("a file");
    let output = toolyard_in(dir.path())
        .args(["config", "show", "--output", "json"])
        .env("TOOLYARD_VAULT_KEY", "canary-secret-value")
        .output()
        .expect("toolyard runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!text.contains("canary-secret-value"), "{text}");
    let shown: Value = serde_json::from_str(&text).expect("JSON");
    let item =
        |name: &str| shown["items"].as_array().and_then(|items| items.iter().find(|i| i["name"] == name).cloned());
    assert!(item("session_hours").expect("a setting")["origin"].as_str().expect("text").ends_with("toolyard.toml"));
    assert_eq!(item("vault_key").expect("a setting")["origin"], "environment TOOLYARD_VAULT_KEY");
}

#[test]
fn health_readiness_version_metrics_and_the_api_description_are_served() {
    let toolyard = Toolyard::start(Engine::Sqlite);
    assert!(ureq(toolyard.port, "/healthz").expect("an answer").starts_with("HTTP/1.1 200"));
    let version = toolyard.json(&["version"]);
    assert_eq!(version["server"]["environment"], "development", "{version:#}");
    assert_eq!(version["server"]["database"], "sqlite");

    let description = ureq(toolyard.port, "/api/v1/openapi.json").expect("an answer");
    assert!(description.contains("\"openapi\":\"3.1"), "{}", &description[..300.min(description.len())]);

    let answer = ureq(toolyard.port, "/metrics").expect("an answer");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    promtool(body);
    let missing = ureq(toolyard.port, "/no/such/page").expect("an answer");
    assert!(missing.contains("application/problem+json") && missing.contains("\"not_found\""), "{missing}");
}

/// Prometheus' own check of the text format.
fn promtool(metrics: &str) {
    use std::io::Write;
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("promtool is installed: run `make test`");
    child.stdin.take().expect("a pipe").write_all(metrics.as_bytes()).expect("promtool reads");
    let output = child.wait_with_output().expect("promtool ends");
    assert!(output.status.success(), "{}\n{metrics}", String::from_utf8_lossy(&output.stderr));
}
