//! Rollouts: the old revision serves until the new one answered, whatever happens meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Json;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::StatusCode;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use toolyard_types::ServerId;
use toolyard_types::snapshot::Target;
use toolyard_types::state::Reason;

use crate::agent::{Behaviour, FakeAgent};
use crate::harness::{TestControl, both_engines};
use crate::servers::EVERYTHING;

async fn change(t: &TestControl, name: &str, value: &str) -> Value {
    let body = json!({ "environment": { "DEMO": value } });
    t.patch(&format!("/api/v1/servers/{name}"), body).await.expect(202).body
}

fn serves_one(target: Option<&Target>) -> bool {
    matches!(target, Some(Target::Instances(instances)) if instances.len() == 1)
}

both_engines! {
    async fn the_old_revision_serves_until_the_new_one_answered(engine) {
        let t = TestControl::start(engine).await;
        let agent = FakeAgent::local(&t.control).await;
        let old = t.deploy("s").await;
        agent.behave("s@2", Behaviour::Hangs);
        change(&t, "s", "1").await;
        let during = t.wait("/api/v1/servers/s", |_, body| body["instances"].as_array().unwrap().len() == 2).await;
        assert_eq!((during["phase"].as_str(), during["revision"].as_u64()), (Some("ready"), Some(1)));
        assert_eq!(during["instance_id"], old["instance_id"]);
        t.wait_route("s", serves_one).await;
        agent.behave("s@2", Behaviour::Ready);
        let after = t.wait_revision("s", 2).await;
        assert_ne!(after["instance_id"], old["instance_id"]);
        t.drained();
        t.wait("/api/v1/servers/s", |_, body| body["instances"].as_array().unwrap().len() == 1).await;
        assert_eq!(agent.deeds(), ["run s@1", "run s@2", "stop s@1"]);
    }

    async fn a_revision_that_never_gets_ready_is_rolled_back_and_says_why(engine) {
        let t = TestControl::start(engine).await;
        let agent = FakeAgent::local(&t.control).await;
        let old = t.deploy("s").await;
        agent.behave("s@2", Behaviour::Fails(Reason::HandshakeFailed, "it is no MCP server", "Error: no such option"));
        change(&t, "s", "1").await;
        let back = t.wait_rollout("s", "rolled_back").await;
        assert_eq!((back["phase"].as_str(), back["revision"].as_u64()), (Some("ready"), Some(1)));
        assert_eq!(back["instance_id"], old["instance_id"]);
        assert_eq!(back["rollout"]["reason"], "handshake_failed");
        assert_eq!(back["rollout"]["message"], "it is no MCP server; stderr: Error: no such option");
        t.wait("/api/v1/servers/s", |_, body| body["instances"].as_array().unwrap().len() == 1).await;
        // The next change starts from what serves, not from what failed.
        let next = change(&t, "s", "2").await;
        assert_eq!(next["rollout"]["to_revision"], 3);
        t.wait_revision("s", 3).await;
    }

    async fn after_a_version_that_failed_the_server_shows_the_one_that_serves(engine) {
        let t = TestControl::start(engine).await;
        let agent = FakeAgent::local(&t.control).await;
        let publish = async |version: &str| {
            let server = json!({ "name": "io.example/own", "description": "Ours.", "version": version, "packages": [
                { "registryType": "npm", "identifier": "own", "version": version, "transport": { "type": "stdio" } }] });
            t.post("/api/v1/catalog/entries", json!({ "server": server })).await.expect(201);
        };
        publish("1.0.0").await;
        t.post("/api/v1/servers", json!({ "name": "s", "entry": "io.example/own" })).await.expect(201);
        t.wait_rollout("s", "done").await;
        publish("2.0.0").await;
        agent.behave("s@2", Behaviour::Fails(Reason::HandshakeFailed, "it is no MCP server", ""));
        let changed = t.patch("/api/v1/servers/s", json!({ "version": "2.0.0" })).await.expect(202).body;
        assert_eq!(changed["entry"]["version"], "2.0.0");
        let back = t.wait_rollout("s", "rolled_back").await;
        assert_eq!((back["revision"].as_u64(), back["entry"]["version"].as_str()), (Some(1), Some("1.0.0")));
    }

    async fn a_rollout_ends_at_its_deadline(engine) {
        let t = TestControl::start(engine).await;
        let agent = FakeAgent::local(&t.control).await;
        agent.behave("s", Behaviour::Hangs);
        let body = json!({ "name": "s", "entry": EVERYTHING, "rollout_timeout_ms": 5000 });
        t.post("/api/v1/servers", body).await.expect(201);
        t.wait("/api/v1/servers/s", |_, body| body["phase"] == "starting").await;
        t.clock.step_ms(5_001);
        let failed = t.wait_rollout("s", "failed").await;
        assert_eq!((failed["phase"].as_str(), failed["reason"].as_str()), (Some("failed"), Some("deadline_exceeded")));
        assert!(failed["message"].as_str().unwrap().contains("awaiting_probe"), "{failed}");
        // It can be tried again.
        agent.behave("s", Behaviour::Ready);
        t.post("/api/v1/servers/s/start", json!({})).await.expect(202);
        t.wait("/api/v1/servers/s", |_, body| body["phase"] == "ready").await;
    }

    async fn a_cancelled_rollout_leaves_what_served(engine) {
        let t = TestControl::start(engine).await;
        let agent = FakeAgent::local(&t.control).await;
        let old = t.deploy("s").await;
        agent.behave("s@2", Behaviour::Hangs);
        change(&t, "s", "1").await;
        t.wait("/api/v1/servers/s", |_, body| body["instances"].as_array().unwrap().len() == 2).await;
        t.post("/api/v1/servers/s/rollout/cancel", json!({})).await.expect(200);
        let kept = t.wait("/api/v1/servers/s", |_, body| body["instances"].as_array().unwrap().len() == 1).await;
        assert_eq!((kept["phase"].as_str(), kept["rollout"]["state"].as_str()), (Some("ready"), Some("cancelled")));
        assert_eq!(kept["instance_id"], old["instance_id"]);
    }

    async fn a_newer_change_takes_over_from_one_under_way(engine) {
        let t = TestControl::start(engine).await;
        let agent = FakeAgent::local(&t.control).await;
        t.deploy("s").await;
        agent.behave("s@2", Behaviour::Hangs);
        change(&t, "s", "1").await;
        t.wait("/api/v1/servers/s", |_, body| body["instances"].as_array().unwrap().len() == 2).await;
        change(&t, "s", "2").await;
        t.wait_revision("s", 3).await;
        t.drained();
        let last = t.wait("/api/v1/servers/s", |_, body| body["instances"].as_array().unwrap().len() == 1).await;
        assert_eq!(last["instances"][0]["revision"], 3);
    }

    async fn recreate_starts_the_new_one_only_after_the_end_of_the_old_was_seen(engine) {
        let t = TestControl::start(engine).await;
        let agent = FakeAgent::local(&t.control).await;
        let body = json!({ "name": "s", "entry": EVERYTHING, "strategy": "recreate" });
        t.post("/api/v1/servers", body).await.expect(201);
        t.wait_rollout("s", "done").await;
        agent.let_end(false);
        change(&t, "s", "1").await;
        t.wait("/api/v1/servers/s/rollout", |_, body| body["message"].as_str().unwrap().contains("stopping")).await;
        t.wait("/api/v1/servers/s", |_, body| body["instances"][0]["phase"] == "stopping").await;
        assert_eq!(agent.deeds(), ["run s@1", "prepare s@2", "stop s@1"]);
        agent.let_end(true);
        t.wait("/api/v1/servers/s", |_, body| body["revision"] == 2 && body["phase"] == "ready").await;
        assert_eq!(agent.deeds(), ["run s@1", "prepare s@2", "stop s@1", "run s@2"]);
    }

    async fn a_failed_recreate_brings_the_old_revision_back(engine) {
        let t = TestControl::start(engine).await;
        let agent = FakeAgent::local(&t.control).await;
        let body = json!({ "name": "s", "entry": EVERYTHING, "strategy": "recreate" });
        t.post("/api/v1/servers", body).await.expect(201);
        t.wait_rollout("s", "done").await;
        agent.behave("s@2", Behaviour::Fails(Reason::CrashLoop, "it exits again and again", ""));
        change(&t, "s", "1").await;
        t.wait_rollout("s", "rolled_back").await;
        t.wait("/api/v1/servers/s", |_, body| body["phase"] == "ready" && body["revision"] == 1).await;
        assert_eq!(agent.deeds().iter().filter(|deed| *deed == "run s@1").count(), 2);
    }

    async fn a_rollout_goes_on_after_a_restart_of_the_control_plane(engine) {
        let t = TestControl::start(engine).await;
        let agent = FakeAgent::local(&t.control).await;
        let old = t.deploy("s").await;
        agent.behave("s@2", Behaviour::Hangs);
        change(&t, "s", "1").await;
        t.wait("/api/v1/servers/s", |_, body| body["instances"].as_array().unwrap().len() == 2).await;
        let clock = t.clock.clone();
        let t = TestControl::on(t.stop().await, clock).await;
        let local = t.control.local_toolbox().await.unwrap().unwrap();
        let agent = agent.continue_with(&t.control, local);
        let still = t.get("/api/v1/servers/s").await.expect(200).body;
        assert_eq!(still["rollout"]["state"], "progressing");
        t.wait_route("s", serves_one).await;
        agent.behave("s@2", Behaviour::Ready);
        let after = t.wait("/api/v1/servers/s", |_, body| body["revision"] == 2).await;
        assert_ne!(after["instance_id"], old["instance_id"]);
        assert_eq!(agent.deeds()[..2], ["run s@1", "run s@2"]);
    }

    async fn two_replicas_of_the_loops_do_everything_once(engine) {
        let t = TestControl::start(engine).await;
        let other = t.replica().await;
        let agent = FakeAgent::local(&t.control).await;
        for number in 0..10 {
            let body = json!({ "name": format!("s{number}"), "entry": EVERYTHING });
            t.post("/api/v1/servers", body).await.expect(201);
        }
        for number in 0..10 {
            t.wait_rollout(&format!("s{number}"), "done").await;
        }
        let mut deeds = agent.deeds();
        deeds.sort();
        let expected: Vec<_> = (0..10).map(|number| format!("run s{number}@1")).collect();
        assert_eq!(deeds, expected);
        let seen = other.get("/api/v1/servers?phase=ready").await.expect(200);
        assert_eq!(seen.body["items"].as_array().unwrap().len(), 10);
    }

    async fn a_remote_server_is_ready_once_it_introduced_itself(engine) {
        let t = TestControl::start(engine).await;
        t.control.set_remote_client(toolyard_mcp::http::pooled(
            Client::builder(TokioExecutor::new()).build(HttpConnector::new()),
        ));
        let remote = Remote::start().await;
        let body = json!({ "name": "r", "url": remote.url, "inputs": { "Authorization": "Bearer canary-remote" } });
        t.post("/api/v1/servers", body).await.expect(201);
        let ready = t.wait("/api/v1/servers/r", |_, body| body["rollout"]["state"] != "progressing").await;
        assert_eq!(ready["phase"], "ready", "{ready}");
        assert_eq!((ready["kind"].as_str(), &ready["instances"]), (Some("remote"), &json!([])));
        t.wait_route("r", |target| matches!(target, Some(Target::Remote { .. }))).await;
        let id: ServerId = ready["id"].as_str().unwrap().parse().unwrap();
        let lease = t.control.lease_remote(id).await.unwrap();
        assert_eq!(lease.url.expose(), remote.url);
        assert_eq!(lease.headers[0].1.expose(), "Bearer canary-remote");
        assert!(!t.get("/api/v1/servers/r/revisions").await.text.contains("canary-remote"));

        remote.up.store(false, Ordering::SeqCst);
        t.clock.step_ms(61_000);
        let down = t.wait("/api/v1/servers/r", |_, body| body["phase"] == "failed").await;
        assert_eq!(down["reason"], "remote_unreachable");
        remote.up.store(true, Ordering::SeqCst);
        t.clock.step_ms(61_000);
        t.wait("/api/v1/servers/r", |_, body| body["phase"] == "ready").await;
        t.post("/api/v1/servers/r/stop", json!({})).await.expect(202);
        t.wait("/api/v1/servers/r", |_, body| body["phase"] == "stopped").await;
        assert!(t.control.lease_remote(id).await.is_err());
    }
}

/// A remote MCP server of the legacy era.
struct Remote {
    url: String,
    up: Arc<AtomicBool>,
}

impl Remote {
    async fn start() -> Self {
        let up = Arc::new(AtomicBool::new(true));
        let seen = Arc::clone(&up);
        let router =
            axum::Router::new().route("/mcp", post(async move |Json(message): Json<Value>| answer(&seen, &message)));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, up }
    }
}

fn answer(up: &AtomicBool, message: &Value) -> Response {
    if !up.load(Ordering::SeqCst) {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    let result = match message["method"].as_str() {
        Some("initialize") => json!({
            "protocolVersion": "2025-11-25",
            "capabilities": { "tools": {} },
            "serverInfo": { "name": "remote", "version": "1" },
        }),
        Some("tools/list") => json!({ "tools": [{ "name": "a", "inputSchema": { "type": "object" } }] }),
        Some(method) if method.starts_with("notifications/") => return StatusCode::ACCEPTED.into_response(),
        _ => {
            let error = json!({ "code": -32601, "message": "no such method" });
            return Json(json!({ "jsonrpc": "2.0", "id": message["id"], "error": error })).into_response();
        }
    };
    Json(json!({ "jsonrpc": "2.0", "id": message["id"], "result": result })).into_response()
}
