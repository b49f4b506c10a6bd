//! Configuration, health, metrics, the API's description: what operators rely on.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Engine, Toolyard, signal, ureq, wait_until};

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

/// What a file of variables holds that somebody wrote for a shell.
const UNFILLED: [(&str, &str); 2] =
    [("TOOLYARD_BOOTSTRAP_ADMIN_PASSWORD", "$(openssl rand -hex 16)"), ("TOOLYARD_BOOTSTRAP_ADMIN_EMAIL", "you")];

#[test]
fn what_is_wrong_with_the_first_member_stops_the_first_start_and_no_later_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let refused = toolyard_in(dir.path())
        .args(["serve", "--listen", "127.0.0.1:0", "--agent-listen", "127.0.0.1:0"])
        .envs(UNFILLED)
        .output()
        .expect("toolyard runs");
    let told = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(78), "{told}");
    assert!(told.contains("BOOTSTRAP_ADMIN_PASSWORD") && told.contains("`bootstrap_admin_email`"), "{told}");
    assert!(!told.contains("openssl rand -hex 16"), "{told}");

    let mut toolyard = Toolyard::start(Engine::Sqlite);
    toolyard.terminate();
    let data = toolyard.dir.path().join("data");
    let (port, agent_port) = (toolyard.port.to_string(), toolyard.agent_port.to_string());
    let mut later = toolyard.command();
    later.args([
        "serve",
        "--listen",
        &format!("127.0.0.1:{port}"),
        "--agent-listen",
        &format!("127.0.0.1:{agent_port}"),
    ]);
    later.arg("--data-dir").arg(data).envs(UNFILLED).stdout(Stdio::null()).stderr(Stdio::piped());
    let later = later.spawn().expect("toolyard starts");
    wait_until(Duration::from_secs(60), "it serves", || {
        ureq(toolyard.port, "/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
    });
    signal(later.id(), "TERM");
    let later = later.wait_with_output().expect("it ends");
    let told = String::from_utf8_lossy(&later.stderr);
    assert!(later.status.success() && told.contains("bootstrap_admin_email"), "it is warned about: {told}");
}

#[test]
fn what_serve_would_refuse_is_told_by_config_check_and_nothing_is_made() {
    let dir = tempfile::tempdir().expect("a directory");
    for (variable, bad) in [
        ("TOOLYARD_CA_BUNDLE", "/dev/null"),
        ("TOOLYARD_GRANTABLE_PATHS", "srv"),
        ("TOOLYARD_LOG", "nonsense["),
        ("TOOLYARD_DATABASE_URL", "mysql://hunter2"),
        ("TOOLYARD_PROXY", "http://:3128"),
        ("TOOLYARD_REGISTRY_URL", "foo"),
        ("TOOLYARD_DATA_DIR", "'data'"),
    ] {
        let serve = ["serve", "--listen", "127.0.0.1:0", "--agent-listen", "127.0.0.1:0"];
        for args in [&["config", "check"][..], &serve[..]] {
            let mut command = toolyard_in(dir.path());
            command.args(args).env("TOOLYARD_REGISTRY_SYNC", "true").env(variable, bad);
            let refused = command.output().expect("toolyard runs");
            let told = String::from_utf8_lossy(&refused.stderr).to_lowercase();
            assert_eq!(refused.status.code(), Some(78), "{args:?} {variable}: {told}");
            let setting = variable.trim_start_matches("TOOLYARD_").to_lowercase();
            assert!(told.contains(&setting) && !told.contains("hunter2"), "{args:?}: {told}");
        }
    }
    assert!(!dir.path().join(".toolyard").exists());
}

#[test]
fn a_ca_bundle_that_cannot_be_read_fails_a_start_that_may_be_tried_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let serve = ["serve", "--listen", "127.0.0.1:0", "--agent-listen", "127.0.0.1:0"];
    for (args, code) in [(&["config", "check"][..], 78), (&serve[..], 1)] {
        let mut command = toolyard_in(dir.path());
        let failed = command.args(args).env("TOOLYARD_CA_BUNDLE", "/nonexist.pem").output().expect("toolyard runs");
        let told = String::from_utf8_lossy(&failed.stderr);
        assert_eq!(failed.status.code(), Some(code), "{args:?}: {told}");
        assert!(told.contains("setting `ca_bundle`: cannot read"), "{args:?}: {told}");
    }
    assert!(!dir.path().join(".toolyard").exists());
}

#[test]
fn a_data_directory_that_cannot_be_made_is_told_by_its_setting_before_a_start_and_at_one() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("file"), "").expect("a file");
    let serve = ["serve", "--listen", "127.0.0.1:0", "--agent-listen", "127.0.0.1:0"];
    for (args, code) in [(&["config", "check"][..], 78), (&serve[..], 1)] {
        let mut command = toolyard_in(dir.path());
        let failed = command.args(args).args(["--data-dir", "file/data"]).output().expect("toolyard runs");
        let told = String::from_utf8_lossy(&failed.stderr);
        assert_eq!(failed.status.code(), Some(code), "{args:?}: {told}");
        assert!(told.contains("setting `data_dir`: cannot make") && told.contains("--data-dir"), "{args:?}: {told}");
    }
}

#[test]
fn config_show_marks_what_is_wrong_and_shows_the_rest() {
    let dir = tempfile::tempdir().expect("a directory");
    let shown = toolyard_in(dir.path())
        .args(["config", "show"])
        .env("TOOLYARD_SESSION_HOURS", "many")
        .env("TOOLYARD_NPM", "/opt/npm")
        .output()
        .expect("toolyard runs");
    let (out, told) = (String::from_utf8_lossy(&shown.stdout), String::from_utf8_lossy(&shown.stderr));
    assert_eq!(shown.status.code(), Some(78), "{told}");
    assert!(out.contains("(wrong)") && out.contains("/opt/npm") && told.contains("SESSION_HOURS"), "{out}\n{told}");
}

#[test]
fn listeners_at_one_address_are_refused_before_anything_is_made() {
    let dir = tempfile::tempdir().expect("a directory");
    let refused = toolyard_in(dir.path())
        .args(["serve", "--listen", "127.0.0.1:4", "--agent-listen", "127.0.0.1:4", "--data-dir", "data"])
        .output()
        .expect("toolyard runs");
    let told = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(78), "{told}");
    assert!(told.contains("setting `agent_listen`: must be another address than `listen`"), "{told}");
    assert!(!dir.path().join("data").exists());
}

#[test]
fn a_start_that_hangs_ends_at_a_second_signal() {
    let dir = tempfile::tempdir().expect("a directory");
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let database = format!("postgres://nobody@{}/nothing", silent.local_addr().expect("an address"));
    let starting = toolyard_in(dir.path())
        .args(["serve", "--listen", "127.0.0.1:0", "--agent-listen", "127.0.0.1:0"])
        .env("TOOLYARD_DATABASE_URL", database)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut starting = starting.expect("toolyard starts");
    // It waits for an answer of this one.
    let _waiting = silent.accept().expect("a connection");
    wait_until(Duration::from_secs(60), "it ends", || {
        signal(starting.id(), "TERM");
        starting.try_wait().expect("the program can be waited for").is_some()
    });
    let output = starting.wait_with_output().expect("it ended");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && told.contains("ended before it had started"), "{told}");
}

#[test]
fn config_show_redacts_secrets_and_says_where_each_value_came_from() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("toolyard.toml"), "session_hours = 3").expect("a file");
    let output = toolyard_in(dir.path())
        .args(["config", "show", "--output", "json"])
        .env("TOOLYARD_VAULT_KEY", &"c0ffee".repeat(11)[..64])
        .output()
        .expect("toolyard runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!text.contains("c0ffee"), "{text}");
    let shown: Value = serde_json::from_str(&text).expect("JSON");
    let item =
        |name: &str| shown["items"].as_array().and_then(|items| items.iter().find(|i| i["name"] == name).cloned());
    assert!(item("session_hours").expect("a setting")["origin"].as_str().expect("text").ends_with("toolyard.toml"));
    assert_eq!(item("vault_key").expect("a setting")["origin"], "environment TOOLYARD_VAULT_KEY");
}

#[test]
fn an_interrupt_right_after_readiness_ends_it_in_order() {
    let mut toolyard = Toolyard::start(Engine::Sqlite);
    for name in ["INT", "TERM"] {
        assert_eq!(toolyard.stop_by(name), Some(0), "{}", toolyard.log_text());
        toolyard.serve();
    }
}

#[test]
fn a_closed_terminal_ends_it_in_order_and_under_nohup_does_not() {
    let mut toolyard = Toolyard::start(Engine::Sqlite);
    toolyard.terminate();
    let ready = || ureq(toolyard.port, "/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200"));
    let start = |around: &[&str]| {
        let mut command = Command::new(around[0]);
        command.args(&around[1..]).arg(toolyard.command().get_program()).arg("serve");
        command.args(["--listen", &format!("127.0.0.1:{}", toolyard.port)]);
        command.args(["--agent-listen", &format!("127.0.0.1:{}", toolyard.agent_port), "--data-dir"]);
        command.arg(toolyard.dir.path().join("data")).current_dir(toolyard.dir.path()).env_remove("TOOLYARD_ENV");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("toolyard starts");
        wait_until(Duration::from_secs(60), "it serves", ready);
        child
    };
    let mut closed = start(&["env", "--default-signal=HUP"]);
    signal(closed.id(), "HUP");
    assert_eq!(closed.wait().expect("it ends").code(), Some(0));
    let mut kept = start(&["nohup"]);
    signal(kept.id(), "HUP");
    assert!(ready(), "it serves on");
    signal(kept.id(), "TERM");
    assert_eq!(kept.wait().expect("it ends").code(), Some(0));
}

#[test]
fn health_readiness_version_metrics_and_the_api_description_are_served() {
    let operations = crate::harness::free_port();
    let listen = format!("operations_listen=127.0.0.1:{operations}");
    let toolyard = Toolyard::start_with(Engine::Sqlite, "127.0.0.1", &[&listen]);
    assert!(ureq(toolyard.port, "/healthz").expect("an answer").starts_with("HTTP/1.1 200"));
    let version = toolyard.json(&["version"]);
    assert_eq!(version["server"]["environment"], "development", "{version:#}");
    assert_eq!(version["server"]["database"], "sqlite");

    let description = ureq(toolyard.port, "/api/v1/openapi.json").expect("an answer");
    assert!(description.contains("\"openapi\":\"3.1"), "{}", &description[..300.min(description.len())]);

    for path in ["/readyz", "/readyz/gateway", "/readyz/writes", "/readyz/control-plane"] {
        let answer = ureq(toolyard.port, path).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\nready\n"), "{path}: {answer}");
        let details = ureq(operations, path).expect("an answer");
        assert!(details.contains("\"control_plane\""), "{path}: {details}");
    }
    let answer = ureq(operations, "/metrics").expect("an answer");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    promtool(body);
    let output = std::process::Command::new("curl")
        .args(["--silent", "--header", &format!("Authorization: Bearer {}", crate::harness::KEY)])
        .arg(format!("http://127.0.0.1:{}/metrics", toolyard.port))
        .output()
        .expect("curl runs");
    promtool(&String::from_utf8_lossy(&output.stdout));
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

#[test]
fn a_revoked_key_is_refused_by_the_api_at_once_and_by_the_gateway_within_a_second() {
    let toolyard = Toolyard::start(Engine::Sqlite);
    toolyard.json(&["deploy", crate::harness::EVERYTHING, "--name", "everything", "--wait"]);
    let created = toolyard.json(&["keys", "create", "short-lived", "--resource", "everything"]);
    let (id, key) = (created["id"].as_str().expect("an id"), created["key"].as_str().expect("a key"));
    let call = |key: &str| {
        let mut command = toolyard.command();
        command.env("TOOLYARD_API_KEY", key).args(["call", "everything", "echo", r#"{"message":"hi"}"#]);
        command.output().expect("the CLI runs")
    };
    let listed = |key: &str| mcp_status(toolyard.port, key);
    crate::harness::wait_until(std::time::Duration::from_secs(5), "the gateway knows the key", || listed(key) == 200);
    assert!(call(key).status.success());
    toolyard.ok(&["keys", "revoke", id]);
    let revoked = std::time::Instant::now();
    assert!(!call(key).status.success(), "the API reads the database");
    while listed(key) != 401 {
        assert!(revoked.elapsed() < std::time::Duration::from_secs(1), "the gateway still takes the key");
        crate::harness::pause();
    }
}

#[test]
fn the_command_line_rotates_keys_and_lists_what_was_made_with_a_key_before_it_ends() {
    let toolyard = Toolyard::start(Engine::Sqlite);
    let made = toolyard.json(&["keys", "create", "ci", "--role", "admin", "--credential", "token"]);
    let id = made["id"].as_str().expect("an id");
    assert_eq!(made["scope"]["credentials"], serde_json::json!(["token"]));
    let run_as = |key: &str, args: &[&str]| {
        toolyard.command().env("TOOLYARD_API_KEY", key).args(args).output().expect("the CLI runs")
    };
    let rotated = toolyard.json(&["keys", "rotate", "ci", "--overlap", "1h"]);
    assert_eq!(rotated["id"], made["id"]);
    let (old, new) = (made["key"].as_str().expect("a key"), rotated["key"].as_str().expect("a key"));
    assert!(run_as(old, &["servers", "list"]).status.success() && run_as(new, &["servers", "list"]).status.success());
    let refused = run_as(old, &["keys", "create", "child", "--credential", "token"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("was replaced") && said.contains("use the new one"), "{said}");
    let child = run_as(new, &["keys", "create", "child", "--credential", "token"]);
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));

    let asked = toolyard.run(&["keys", "revoke", "ci"]);
    let said = String::from_utf8_lossy(&asked.stderr);
    assert!(!asked.status.success() && said.contains("child") && said.contains("--yes"), "{said}");
    assert!(run_as(new, &["servers", "list"]).status.success(), "nothing was changed");
    toolyard.ok(&["keys", "revoke", id, "--yes"]);
    assert!(!run_as(new, &["servers", "list"]).status.success());
    let again = toolyard.run(&["keys", "revoke", "ci"]);
    let said = String::from_utf8_lossy(&again.stderr);
    assert!(!again.status.success() && said.contains("no API key `ci` that works"), "{said}");
    let active = toolyard.json(&["keys", "list", "--made-by", &format!("api_key:{id}"), "--active"]);
    assert_eq!(active["items"], serde_json::json!([]));
    let why = toolyard.json(&["why", "credential:use", "--resource", "credential/token"]);
    assert_eq!((&why["allowed"], &why["resource"]), (&serde_json::json!(true), &serde_json::json!("credential/token")));
    assert_eq!(toolyard.json(&["why", "tool:call", "--resource", "everything"])["resource"], "server/everything");
}

/// The status of a `tools/list` at a server's MCP URL.
fn mcp_status(port: u16, key: &str) -> u16 {
    use std::io::{Read, Write};
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#;
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    write!(
        stream,
        "POST /mcp/default/servers/everything HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\
         Authorization: Bearer {key}\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\n\
         Mcp-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/list\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("sent");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}
