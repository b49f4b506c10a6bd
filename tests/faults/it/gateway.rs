//! Servers that hang, start late or are started again, and what their neighbours notice of it.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use toolyard_test_support::{Answer, Engine, KEY, Request, Row, Toolyard, each_engine, long};

use crate::remote::Remote;

/// A tool called by a modern client.
fn call<'a>(toolyard: &'a Toolyard, path: &str, key: &str, tool: &str) -> Request<'a> {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let body = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "_meta": meta, "name": tool, "arguments": {} },
    });
    let request = toolyard.request("POST", path).key(key);
    let request = request.header("accept", "application/json, text/event-stream");
    let request = request.header("mcp-protocol-version", "2026-07-28").header("mcp-method", "tools/call");
    request.header("mcp-name", tool).json(body)
}

/// What nobody is to wait for longer. Beside other tests there is no saying what a machine does meanwhile, so there only
/// a wait for what hangs is told from one that is none.
fn limit() -> Duration {
    long(Duration::from_secs(1), Duration::from_millis(100))
}

fn p99(mut took: Vec<Duration>) -> Duration {
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

fn timed(request: Request<'_>) -> (Duration, Answer) {
    let began = Instant::now();
    let answer = request.send();
    (began.elapsed(), answer)
}

#[test]
fn a_remote_that_hangs_under_very_many_calls_costs_the_others_nothing() {
    let toolyard = Toolyard::on(Engine::Sqlite).without_toolbox().start();
    let (hangs, fine) = (Remote::deploy(&toolyard, "hangs"), Remote::deploy(&toolyard, "fine"));
    hangs.does.calls_hang.store(true, Ordering::SeqCst);
    let attacker = toolyard.make_key("attacker", "developer");
    let (hanging, good) = ("/mcp/default/servers/hangs", "/mcp/default/servers/fine");
    let held: Vec<_> = (0..200).map(|_| call(&toolyard, hanging, &attacker, "echo").begin()).collect();
    toolyard_test_support::wait_until(Duration::from_secs(20), "the server has them", || {
        // Three quarters of the server's 200 places: the others are for other callers.
        hangs.does.calls.load(Ordering::SeqCst) == 150
    });
    let (mut refused, mut others) = (Vec::new(), Vec::new());
    for _ in 0..long(100, 3000) {
        let (took, answer) = timed(call(&toolyard, hanging, &attacker, "echo"));
        assert_eq!(answer.status, 429, "{}", answer.text);
        assert_eq!(answer.headers.get("retry-after").map(http::HeaderValue::as_bytes), Some(&b"1"[..]));
        assert_eq!(answer.json()["error"]["data"]["code"], "rate_limited");
        refused.push(took);
        for request in [toolyard.request("GET", "/readyz"), call(&toolyard, good, KEY, "echo")] {
            let (took, answer) = timed(request);
            assert_eq!(answer.status, 200, "{}", answer.text);
            others.push(took);
        }
    }
    let (refusals, others) = (p99(refused), p99(others));
    Row::of("bulkheads", "calls of one key to a remote that hangs, beyond its 150 of 200 places")
        .expected("429 with `Retry-After`, p99 below 100 ms")
        .got(format!("429, p99 {refusals:.0?}"));
    Row::of("bulkheads", "`/readyz` and calls to another server meanwhile")
        .expected("p99 below 100 ms")
        .got(format!("p99 {others:.0?}"));
    assert!(refusals < limit() && others < limit(), "{refusals:?} {others:?}");
    drop(held);
    drop(fine);
}

#[test]
fn a_toolset_does_not_wait_for_a_member_that_hangs() {
    let toolyard = Toolyard::on(Engine::Sqlite).without_toolbox().start();
    let (hangs, _fine) = (Remote::deploy(&toolyard, "hangs"), Remote::deploy(&toolyard, "fine"));
    let members = json!([{ "server": "hangs" }, { "server": "fine" }]);
    let _ = toolyard.api("POST", "/toolsets").json(json!({ "name": "all", "members": members })).send().ok();
    let list = || {
        let began = Instant::now();
        let tools = toolyard.runtime().block_on(toolyard.client.list_tools("/mcp/default/toolsets/all"));
        (began.elapsed(), tools.map(|tools| tools.len()))
    };
    assert_eq!(list().1.ok(), Some(2));
    hangs.does.lists_hang.store(true, Ordering::SeqCst);
    hangs.does.changed.notify_one();
    let until = Instant::now() + Duration::from_secs(long(5, 60));
    let mut took = Vec::new();
    while Instant::now() < until {
        let (duration, tools) = list();
        assert_eq!(tools.ok(), Some(2), "its last known tools stand");
        took.push(duration);
        toolyard_test_support::pause();
    }
    let slowest = took.iter().max().copied().unwrap_or_default();
    let p99 = p99(took);
    Row::of("toolsets", "a member hangs while the toolset is listed")
        .expected("p99 below 100 ms, every tool listed")
        .got(format!("p99 {p99:.0?}, slowest {slowest:.0?}"));
    assert!(p99 < limit() && slowest < long(Duration::from_secs(3), Duration::from_secs(1)), "{p99:?} {slowest:?}");
}

/// A server that takes a while to start.
const SLOW_START: &str = r#"#!/usr/bin/env node
const say = (message) => process.stdout.write(JSON.stringify({ jsonrpc: "2.0", ...message }) + "\n");
setTimeout(() => {
  require("node:readline").createInterface({ input: process.stdin }).on("line", (line) => {
    if (!line.trim()) return;
    const { id, method, params } = JSON.parse(line);
    if (id === undefined) return;
    if (method === "initialize") say({ id, result: { protocolVersion: params.protocolVersion, capabilities: { tools: {} }, serverInfo: { name: "s", version: "1" } } });
    else if (method === "ping") say({ id, result: {} });
    else if (method === "tools/list") say({ id, result: { tools: [{ name: "echo", inputSchema: { type: "object" } }] } });
    else if (method === "tools/call") say({ id, result: { content: [{ type: "text", text: "here" }] } });
    else say({ id, error: { code: -32601, message: "unknown" } });
  }).on("close", () => process.exit(0));
}, 700);
"#;

#[test]
fn calls_are_held_while_a_server_is_restarted() {
    let toolyard = Toolyard::on(Engine::Sqlite).script("slow", SLOW_START).start();
    let server = toolyard.deploy("slow", &[]);
    assert_eq!(server["phase"], "ready", "{server}");
    let path = "/mcp/default/servers/slow";
    std::thread::scope(|scope| {
        let restarted = scope.spawn(|| {
            for _ in 0..long(2, 10) {
                let _ = toolyard.json(&["servers", "restart", "slow", "--wait"]);
            }
        });
        let (mut calls, mut failed) = (Vec::new(), Vec::<String>::new());
        while !restarted.is_finished() {
            let (took, answer) = timed(call(&toolyard, path, KEY, "echo"));
            if answer.json()["result"].is_null() {
                failed.push(answer.text);
            }
            calls.push(took);
            toolyard_test_support::pause();
        }
        restarted.join().expect("it is restarted");
        let slowest = calls.iter().max().copied().unwrap_or_default();
        Row::of("restarts", "a server is restarted under calls").expected("0 calls fail").got(format!(
            "{} of {} calls fail, the slowest took {slowest:.1?}",
            failed.len(),
            calls.len()
        ));
        assert!(failed.is_empty(), "{failed:?}");
    });
}

#[test]
fn a_server_that_must_not_run_twice_refuses_no_call_while_it_is_restarted() {
    let toolyard = Toolyard::on(Engine::Sqlite).script("slow", SLOW_START).start();
    let server = toolyard.deploy("slow", &["--strategy", "recreate"]);
    assert_eq!(server["phase"], "ready", "{server}");
    std::thread::scope(|scope| {
        let restarted = scope.spawn(|| {
            for _ in 0..long(2, 10) {
                let _ = toolyard.json(&["servers", "restart", "slow", "--wait"]);
            }
        });
        let (mut calls, mut refused) = (0, Vec::<String>::new());
        while !restarted.is_finished() {
            let answer = call(&toolyard, "/mcp/default/servers/slow", KEY, "echo").send();
            // What is under way when the old one ends is lost with it.
            if answer.json()["error"]["data"]["code"] == "server_not_ready" {
                refused.push(answer.text);
            }
            calls += 1;
            toolyard_test_support::pause();
        }
        restarted.join().expect("it is restarted");
        Row::of("restarts", "a server with `recreate` is restarted under calls")
            .expected("0 calls are refused")
            .got(format!("{} of {calls} calls are refused", refused.len()));
        assert!(refused.is_empty(), "{refused:?}");
    });
}

#[test]
fn what_was_made_works_when_that_was_answered() {
    each_engine(|engine| {
        let toolyard = Toolyard::on(engine).without_toolbox().start();
        let remote = Remote::deploy(&toolyard, "far");
        let (mut unknown, mut left) = (0, 0);
        let rounds = long(10, 200);
        for round in 0..rounds {
            let name = format!("k-{round}");
            let made = toolyard.api("POST", "/keys").json(json!({ "name": name, "role": "developer" })).send().ok();
            let key = made["key"].as_str().expect("a key").to_owned();
            let id = made["id"].as_str().or(made["api_key"]["id"].as_str()).expect("an id").to_owned();
            let members = json!([{ "server": "far" }]);
            let toolset = format!("t-{round}");
            let _ = toolyard.api("POST", "/toolsets").json(json!({ "name": toolset, "members": members })).send().ok();
            for path in ["/mcp/default/servers/far".to_owned(), format!("/mcp/default/toolsets/{toolset}")] {
                let tool = if path.contains("toolsets") { "far__echo" } else { "echo" };
                unknown += u32::from(call(&toolyard, &path, &key, tool).send().status != 200);
            }
            assert_eq!(toolyard.api("DELETE", &format!("/keys/{id}")).send().status, 204);
            assert_eq!(toolyard.api("DELETE", &format!("/toolsets/{toolset}")).send().status, 204);
            left += u32::from(call(&toolyard, "/mcp/default/servers/far", &key, "echo").send().status != 401);
            let gone = call(&toolyard, &format!("/mcp/default/toolsets/{toolset}"), KEY, "far__echo").send();
            left += u32::from(gone.status != 404);
        }
        Row::of(
            "changes",
            format!("a key and a toolset used, and used again after their deletion, at once ({engine:?})"),
        )
        .expected("all work, then none")
        .got(format!("{unknown} of {} unknown, then {left} left", rounds * 2));
        assert_eq!((unknown, left), (0, 0));
        drop(remote);
    });
}

#[test]
fn a_key_made_at_one_replica_works_at_the_other() {
    let toolyard = Toolyard::on(Engine::Postgres).without_toolbox().start();
    let replica = toolyard.replica(&[]);
    let _remote = Remote::deploy(&toolyard, "far");
    let path = "/mcp/default/servers/far";
    let wrong = timed(call(&replica, path, "ty_wrong", "echo"));
    let mut statuses = Vec::<Value>::new();
    for round in 0..10 {
        let key = toolyard.make_key(&format!("k-{round}"), "developer");
        statuses.push(call(&replica, path, &key, "echo").send().status.into());
    }
    let failed = statuses.iter().filter(|status| **status != 200).count();
    Row::of("changes", "a key made at one replica, used at once at another")
        .expected("0 of 10 unknown, a wrong key is 401 within 2 s")
        .got(format!("{failed} of 10 unknown, {} after {:.1?}", wrong.1.status, wrong.0));
    assert_eq!((failed, wrong.1.status), (0, 401), "{statuses:?}");
    assert!(wrong.0 < Duration::from_secs(2));
}
