//! Toolyard is told to stop while calls are under way.

use std::time::{Duration, Instant};

use serde_json::json;
use toolyard_test_support::{Answer, Engine, KEY, Row, Toolyard, free_port, raw, signal, wait_until};

const AREA: &str = "shutdown";

/// Has one tool, which takes as long as it is told.
pub(crate) const SLEEPER: &str = r"#!/usr/bin/env node
const out = (id, result) => process.stdout.write(JSON.stringify({ jsonrpc: '2.0', id, ...result }) + '\n')
require('readline').createInterface({ input: process.stdin }).on('line', (line) => {
  const { id, method, params } = JSON.parse(line)
  if (method === 'initialize') {
    const serverInfo = { name: 'sleeper', version: '1.0.0' }
    out(id, { result: { protocolVersion: params.protocolVersion, capabilities: { tools: {} }, serverInfo } })
  } else if (method === 'tools/list') {
    out(id, { result: { tools: [{ name: 'sleep', inputSchema: { type: 'object' } }] } })
  } else if (method === 'tools/call') {
    const result = { content: [{ type: 'text', text: 'slept' }] }
    setTimeout(() => out(id, { result }), params.arguments.ms)
  } else if (id !== undefined) {
    out(id, { error: { code: -32601, message: 'no such method' } })
  }
})
";

/// Begins a call of `sleep` in the era without sessions.
pub(crate) fn sleep(toolyard: &Toolyard, ms: u64) -> tokio::task::JoinHandle<Answer> {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "1" },
    });
    let params = json!({ "name": "sleep", "arguments": { "ms": ms }, "_meta": meta });
    toolyard
        .request("POST", "/mcp/default/servers/sleeper")
        .key(KEY)
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", "tools/call")
        .header("mcp-name", "sleep")
        .json(json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }))
        .begin()
}

/// Calls under way, as the metrics say.
fn in_flight(operations: u16) -> usize {
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let text = raw(operations, request, Duration::from_secs(5));
    let line = text.lines().find_map(|line| line.strip_prefix("toolyard_calls_in_flight "));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

/// How the recorded calls of tools ended, the latest first.
fn outcomes_of_calls(toolyard: &Toolyard) -> Vec<String> {
    let calls = toolyard.api("GET", "/calls?limit=50").send().ok();
    let of_tools = calls["items"].as_array().into_iter().flatten().filter(|call| call["method"] == "tools/call");
    of_tools.map(|call| call["outcome"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_stop_is_announced_waited_for_and_told_to_the_calls_it_cuts() {
    let operations = free_port();
    let mut toolyard = Toolyard::on(Engine::Sqlite)
        .script("sleeper", SLEEPER)
        .setting(&format!("operations_listen=127.0.0.1:{operations}"))
        .setting("shutdown_delay_seconds=2")
        .setting("drain_seconds=3")
        .start();
    let _ = toolyard.deploy("sleeper", &[]);
    let (short, long) = (sleep(&toolyard, 4_000), sleep(&toolyard, 60_000));
    wait_until(Duration::from_secs(10), "both calls are under way", || in_flight(operations) == 2);
    let pid = toolyard.pid();
    let began = Instant::now();
    signal(pid, "TERM");
    let ready = || toolyard.request("GET", "/readyz").send().status;
    let noticed = wait_until(Duration::from_secs(1), "readiness fails", || ready() == 503);
    let served = toolyard.api("GET", "/servers").send().status;
    Row::of(AREA, "SIGTERM with `shutdown_delay_seconds = 2`")
        .expected("`/readyz` 503 at once, requests served meanwhile")
        .got(format!("503 after {noticed:.0?}, a request {served}"));
    assert_eq!(served, 200);

    let short = toolyard.runtime().block_on(short).expect("no panic");
    Row::of(AREA, "a call that ends before the drain's deadline").expected("its result").got(short.status);
    assert!(short.status == 200 && short.text.contains("slept"), "{}", short.text);
    let long = toolyard.runtime().block_on(long).expect("no panic");
    let took = began.elapsed();
    let cut = &long.json()["error"]["data"];
    Row::of(AREA, "a call that does not, with `drain_seconds = 3`")
        .expected("told `shutting_down` after 5 s")
        .got(format!("{} after {took:.1?}", cut["code"]));
    assert_eq!(cut["code"], "shutting_down", "{} {}", long.status, long.text);
    assert!(cut["request_id"].is_string() && long.headers.contains_key("x-request-id"), "{}", long.text);
    assert!(took < Duration::from_secs(8), "{took:?}");
    assert_eq!(toolyard.wait_exit(Duration::from_secs(20)), Some(0));

    toolyard.serve();
    let outcomes = outcomes_of_calls(&toolyard);
    Row::of(AREA, "the records of both calls").expected("cancelled, ok").got(outcomes.join(", "));
    assert_eq!(outcomes, ["cancelled", "ok"]);
}

/// Begins a call of `sleep` in a session of the older era.
fn sleep_in_a_session(toolyard: &Toolyard, ms: u64) -> tokio::task::JoinHandle<Answer> {
    let post = |message: serde_json::Value, session: &str| {
        let request = toolyard
            .request("POST", "/mcp/default/servers/sleeper")
            .key(KEY)
            .header("accept", "application/json, text/event-stream")
            .json(message);
        if session.is_empty() { request } else { request.header("mcp-session-id", session) }
    };
    let params = json!({
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "test", "version": "1" },
    });
    let opened = post(json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params }), "").send();
    let session = opened.headers["mcp-session-id"].to_str().expect("text").to_owned();
    let params = json!({ "name": "sleep", "arguments": { "ms": ms } });
    post(json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params }), &session).begin()
}

#[test]
fn calls_whose_clients_went_away_are_waited_for_or_cut_and_have_their_records() {
    let operations = free_port();
    let mut toolyard = Toolyard::on(Engine::Sqlite)
        .script("sleeper", SLEEPER)
        .setting(&format!("operations_listen=127.0.0.1:{operations}"))
        .setting("shutdown_delay_seconds=0")
        .setting("drain_seconds=5")
        .start();
    let _ = toolyard.deploy("sleeper", &[]);
    let calls = [sleep_in_a_session(&toolyard, 4_000), sleep_in_a_session(&toolyard, 60_000)];
    wait_until(Duration::from_secs(10), "both calls are under way", || in_flight(operations) == 2);
    calls.iter().for_each(tokio::task::JoinHandle::abort);
    signal(toolyard.pid(), "TERM");
    assert_eq!(toolyard.wait_exit(Duration::from_secs(20)), Some(0));
    toolyard.serve();
    let mut outcomes = outcomes_of_calls(&toolyard);
    outcomes.sort();
    Row::of(AREA, "SIGTERM with two calls whose clients went away, `drain_seconds = 5`")
        .expected("cancelled, ok")
        .got(outcomes.join(", "));
    assert_eq!(outcomes, ["cancelled", "ok"]);
}

#[test]
fn a_second_signal_ends_the_waiting() {
    let operations = free_port();
    let mut toolyard = Toolyard::on(Engine::Sqlite)
        .script("sleeper", SLEEPER)
        .setting(&format!("operations_listen=127.0.0.1:{operations}"))
        .setting("shutdown_delay_seconds=60")
        .start();
    let _ = toolyard.deploy("sleeper", &[]);
    let long = sleep(&toolyard, 60_000);
    wait_until(Duration::from_secs(10), "the call is under way", || in_flight(operations) == 1);
    let pid = toolyard.pid();
    signal(pid, "TERM");
    let ready = || toolyard.request("GET", "/readyz").send().status;
    wait_until(Duration::from_secs(5), "it waits", || ready() == 503);
    let began = Instant::now();
    signal(pid, "TERM");
    assert_eq!(toolyard.wait_exit(Duration::from_secs(20)), Some(0));
    Row::of(AREA, "a second SIGTERM during the delay").expected("ends at once").got(format!("{:.1?}", began.elapsed()));
    let long = toolyard.runtime().block_on(long).expect("no panic");
    assert!(long.text.contains("shutting_down"), "{}", long.text);
}
