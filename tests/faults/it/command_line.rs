//! What a person at a terminal gets over: clients' files that others write too, keys that may do little, calls that fail.

use std::path::Path;
use std::process::Output;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use toolyard_test_support::{Engine, KEY, Row, Toolyard};

use crate::remote::Remote;

fn run(toolyard: &Toolyard, key: Option<&str>, args: &[&str]) -> Output {
    let mut command = toolyard.command();
    if let Some(key) = key {
        command.env("TOOLYARD_API_KEY", key);
    }
    command.args(args).output().expect("the program runs")
}

fn read(file: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(file).expect("a file")).expect("JSON")
}

/// The names of the keys that work.
fn keys(toolyard: &Toolyard) -> Vec<String> {
    let listed = toolyard.json(&["keys", "list", "--active"]);
    let names = listed["items"].as_array().expect("a list").iter().map(|key| key["name"].as_str().unwrap_or_default());
    names.filter(|name| name.starts_with("cursor-")).map(str::to_owned).collect()
}

/// Whether the entry's key calls.
fn calls(toolyard: &Toolyard, file: &Path) -> bool {
    let header = read(file)["mcpServers"]["toolyard-far"]["headers"]["Authorization"].clone();
    let key = header.as_str().and_then(|text| text.strip_prefix("Bearer ")).expect("a key").to_owned();
    run(toolyard, Some(&key), &["call", "far", "echo"]).status.success()
}

#[test]
fn a_client_is_connected_again_and_taken_back_without_keys_left_over() {
    let toolyard = Toolyard::on(Engine::Sqlite).without_toolbox().start();
    let _remote = Remote::deploy(&toolyard, "far");
    let file = toolyard.dir().join("cursor.json");
    let path = file.to_str().expect("a path");
    let connect = |more: &[&str]| {
        let all = [&["connect", "far", "--client", "cursor", "--file", path], more].concat();
        run(&toolyard, None, &all)
    };
    assert!(connect(&["--print"]).status.success());
    assert!(connect(&[]).status.success() && calls(&toolyard, &file), "printing is not in the way of writing");
    assert_eq!(keys(&toolyard), ["cursor-far", "cursor-far-2"]);

    let first = std::fs::read_to_string(&file).expect("a file");
    assert!(connect(&[]).status.success() && calls(&toolyard, &file));
    assert!(std::fs::read_to_string(&file).expect("a file") != first, "it has another secret");
    assert_eq!(keys(&toolyard), ["cursor-far", "cursor-far-2"], "of the same key");

    let mut since = read(&file);
    since["projects"] = json!({ "mine": 1 });
    std::fs::write(&file, since.to_string()).expect("the client writes");
    assert!(connect(&["--undo"]).status.success());
    Row::of("command line", "`connect --undo` after the client wrote to the file that `connect` made")
        .expected("what the client wrote stays, the key has ended")
        .got(format!("{}, keys {:?}", read(&file), keys(&toolyard)));
    assert_eq!(read(&file), json!({ "mcpServers": {}, "projects": { "mine": 1 } }));
    assert_eq!(keys(&toolyard), ["cursor-far"], "the printed one works on");
    assert!(!connect(&["--undo"]).status.success(), "there is nothing to take back");

    std::fs::write(&file, "// mine\n{}").expect("a file");
    let refused = connect(&[]);
    assert!(!refused.status.success());
    let blocked = toolyard.dir().join("cursor.json/below.json");
    assert!(
        !run(&toolyard, None, &["connect", "far", "--client", "cursor", "--file", blocked.to_str().expect("a path")])
            .status
            .success()
    );
    assert_eq!(keys(&toolyard), ["cursor-far"], "what cannot be written leaves no key");
}

#[test]
fn a_key_that_may_only_call_calls_from_the_command_line() {
    let toolyard = Toolyard::on(Engine::Sqlite).without_toolbox().start();
    let _remote = Remote::deploy(&toolyard, "far");
    let _ = toolyard.json(&["toolsets", "create", "all", "--servers", "far"]);
    let made =
        toolyard.json(&["keys", "create", "narrow", "--action", "tool:call", "--resource", "far", "--resource", "all"]);
    let key = made["key"].as_str().expect("a key");
    for args in [&["call", "far", "echo"][..], &["call", "all", "far__echo"], &["tools", "far"], &["tools", "all"]] {
        let answer = run(&toolyard, Some(key), args);
        Row::of("command line", format!("`toolyard {}` with a key for `tool:call` alone", args.join(" ")))
            .expected("it is answered")
            .got(answer.status.to_string());
        assert!(answer.status.success(), "{args:?}: {}", String::from_utf8_lossy(&answer.stderr));
    }
    let refused = run(&toolyard, Some(key), &["call", "nothing", "echo"]);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("no such MCP endpoint"));
}

#[test]
fn a_failed_call_is_followed_from_its_client_to_its_cause() {
    let toolyard = Toolyard::on(Engine::Sqlite).without_toolbox().start();
    let remote = Remote::deploy(&toolyard, "far");
    assert!(toolyard.call("far", "echo", json!({})).is_ok(), "the session is open");
    // It answers nothing that is MCP from now on.
    remote.does.refusal.store(500, Ordering::SeqCst);
    remote.forget();
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "echo", "arguments": {},
        "_meta": { "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": { "name": "c", "version": "1" },
            "io.modelcontextprotocol/clientCapabilities": {} } } });
    let answer = toolyard
        .request("POST", "/mcp/default/servers/far")
        .key(KEY)
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", "tools/call")
        .header("mcp-name", "echo")
        .json(body)
        .send();
    let id = answer.json()["error"]["data"]["request_id"].as_str().expect("a request id").to_owned();
    let shown = run(&toolyard, None, &["call", "far", "echo"]);
    let shown = String::from_utf8_lossy(&shown.stderr).into_owned();
    assert!(shown.contains("HTTP status 500") && shown.contains("request id "), "{shown}");
    let line = toolyard.log_text().lines().find(|line| line.contains(&id)).map(str::to_owned).unwrap_or_default();
    let found = || toolyard.json(&["calls", "--request-id", &id])["items"].clone();
    toolyard_test_support::wait_until(std::time::Duration::from_secs(10), "the record is written", || {
        found().as_array().is_some_and(|items| items.len() == 1)
    });
    Row::of("command line", "a call fails: its request id in the log and in `toolyard calls`")
        .expected("the cause, and one record")
        .got(format!("{line}; {}", found()[0]["outcome"]));
    assert!(line.contains("HTTP status 500"), "{line}");
    assert_eq!(found()[0]["outcome"], "upstream_failed");
}
