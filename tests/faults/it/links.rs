//! Replicas that come and go, and the links of agents to those that stay.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use serde_json::json;
use toolyard_test_support::{Engine, Row, Toolyard, long, wait_until};

use crate::agent::{Agent, link};

pub(crate) const SERVER: &str = r#"#!/usr/bin/env node
const say = (message) => process.stdout.write(JSON.stringify({ jsonrpc: "2.0", ...message }) + "\n");
const tools = ["sleep"].map((name) => ({ name, inputSchema: { type: "object" } }));
require("node:readline").createInterface({ input: process.stdin }).on("line", (line) => {
  if (!line.trim()) return;
  const { id, method, params } = JSON.parse(line);
  if (id === undefined) return;
  if (method === "initialize") say({ id, result: { protocolVersion: params.protocolVersion, capabilities: { tools: {} }, serverInfo: { name: "s", version: "1" } } });
  else if (method === "ping") say({ id, result: {} });
  else if (method === "tools/list") say({ id, result: { tools } });
  else if (method === "tools/call") setTimeout(() => say({ id, result: { content: [{ type: "text", text: "here" }] } }), params.arguments.ms ?? 0);
  else say({ id, error: { code: -32601, message: "unknown" } });
}).on("close", () => process.exit(0));
"#;

/// Longer than a link that is to end drains.
const SLOW_MS: u64 = 8000;

#[test]
fn a_replica_that_comes_or_goes_cuts_no_call_through_another() {
    let toolyard = Toolyard::on(Engine::Postgres).without_toolbox().script("links", SERVER).start();
    let _agent = Agent::join(&toolyard, "far");
    let _ = toolyard.deploy("links", &["--toolbox", "far"]);
    let (stop, slow_calls) = (AtomicBool::new(false), AtomicU32::new(0));
    let pass = |count: u32| {
        let until = slow_calls.load(Ordering::SeqCst) + count;
        wait_until(Duration::from_secs(120), "slow calls pass", || slow_calls.load(Ordering::SeqCst) >= until);
    };
    std::thread::scope(|scope| {
        let calls = |ms: u64| {
            let (toolyard, stop, slow_calls) = (&toolyard, &stop, &slow_calls);
            scope.spawn(move || {
                let (mut made, mut failed) = (0, Vec::new());
                while !stop.load(Ordering::SeqCst) {
                    match toolyard.call("links", "sleep", json!({ "ms": ms })) {
                        Ok(_) => made += 1,
                        Err(error) => failed.push(error.to_string()),
                    }
                    slow_calls.fetch_add(u32::from(ms >= SLOW_MS), Ordering::SeqCst);
                }
                (made, failed)
            })
        };
        let (short, slow) = (calls(5), calls(SLOW_MS));
        for round in 0..long(1, 4) {
            let mut replica = toolyard.replica(&[]);
            wait_until(Duration::from_secs(60), "the agent has a link to it", || {
                link(&replica, "far")["connected"] == true
            });
            assert!(replica.call("links", "sleep", json!({})).is_ok());
            // Those that were under way when the list of replicas changed.
            pass(2);
            if round % 2 == 0 {
                replica.kill();
            } else {
                assert_eq!(replica.stop_by("TERM"), Some(0));
            }
            // Until the others take it for gone, and the agent has heard so.
            pass(long(1, 6));
        }
        stop.store(true, Ordering::SeqCst);
        let (short, slow) = (short.join().expect("calls"), slow.join().expect("calls"));
        let failed: Vec<_> = short.1.iter().chain(&slow.1).collect();
        Row::of("links", "another replica joins and is killed or stopped, under calls of 5 ms and of 8 s")
            .expected("0 calls fail")
            .got(format!("{} of {} calls fail", failed.len(), short.0 + slow.0 + failed.len()));
        assert!(failed.is_empty(), "{failed:?}");
    });
}
