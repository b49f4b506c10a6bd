//! The agents' wire: who may speak, and what is believed.

use axum::body::Body;
use base64::Engine as _;
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::agent::{Behaviour, FakeAgent};
use crate::harness::{TestControl, both_engines};
use crate::servers::EVERYTHING;

fn report(generation: u64) -> Value {
    json!({
        "protocol_min": 1, "protocol_max": 1, "agent_version": "0.1.0", "generation": generation,
        "observed": {
            "toolbox": { "engine": "process", "platform": "linux", "runtimes": { "node": "22" }, "enforcement": {} },
            "instances": [], "jobs": [],
        },
    })
}

async fn sync(t: &TestControl, token: Option<&str>, body: &Value) -> (u16, Value) {
    let mut request = Request::post("/dtma/v1/sync");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let request = request.body(Body::from(body.to_string())).unwrap();
    let response = t.control.agent_router().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

async fn enroll(t: &TestControl, name: &str) -> String {
    let made = t.post("/api/v1/toolboxes", json!({ "name": name })).await.expect(201).body;
    assert_eq!(made["toolbox"]["state"], "enrolling");
    let token = made["token"].as_str().unwrap();
    assert!(made["command"].as_str().unwrap().contains(token));
    let content = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token).unwrap();
    let content: Value = serde_json::from_slice(&content).unwrap();
    assert_eq!(content["v"], 1);
    content["secret"].as_str().unwrap().to_owned()
}

both_engines! {
    async fn an_agent_is_known_by_its_token_until_its_toolbox_is_removed(engine) {
        let t = TestControl::start(engine).await;
        let secret = enroll(&t, "edge").await;
        assert_eq!(sync(&t, None, &report(0)).await.0, 401);
        assert_eq!(sync(&t, Some("wrong"), &report(0)).await.0, 401);
        let (status, answer) = sync(&t, Some(&secret), &report(0)).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!((&answer["protocol"], &answer["desired"]["instances"]), (&json!(1), &json!([])));
        let seen = t.get("/api/v1/toolboxes/edge").await.expect(200).body;
        assert_eq!((seen["state"].as_str(), seen["agent_version"].as_str()), (Some("online"), Some("0.1.0")));
        t.post("/api/v1/toolboxes", json!({ "name": "edge" })).await.expect(409);
        t.delete("/api/v1/toolboxes/edge").await.expect(204);
        assert_eq!(sync(&t, Some(&secret), &report(0)).await.0, 401);
        t.get("/api/v1/toolboxes/edge").await.expect(404);
        t.delete("/api/v1/toolboxes/local").await.expect(409);
        enroll(&t, "edge").await;
    }

    async fn wrong_versions_and_broken_syncs_are_refused_with_what_to_do(engine) {
        let t = TestControl::start(engine).await;
        let secret = enroll(&t, "edge").await;
        let mut old = report(0);
        old["protocol_min"] = json!(0);
        old["protocol_max"] = json!(0);
        let (status, problem) = sync(&t, Some(&secret), &old).await;
        assert_eq!((status, problem["code"].as_str()), (426, Some("version_unsupported")));
        assert!(problem["detail"].as_str().unwrap().contains("install toolyard"));
        let mut new = report(0);
        new["protocol_min"] = json!(7);
        new["protocol_max"] = json!(9);
        assert!(sync(&t, Some(&secret), &new).await.1["detail"].as_str().unwrap().contains("upgrade the control plane"));
        assert_eq!(sync(&t, Some(&secret), &json!({ "protocol_min": "x" })).await.0, 400);
    }

    async fn a_generation_from_a_lost_future_is_overtaken(engine) {
        let t = TestControl::start(engine).await;
        let secret = enroll(&t, "edge").await;
        let (status, answer) = sync(&t, Some(&secret), &report(1000)).await;
        assert_eq!(status, 200);
        assert!(answer["desired"]["generation"].as_u64().unwrap() > 1000, "{answer}");
    }

    async fn an_agent_cannot_touch_what_is_on_another_toolbox(engine) {
        let t = TestControl::start(engine).await;
        let _agent = FakeAgent::local(&t.control).await;
        let ready = t.deploy("s").await;
        let secret = enroll(&t, "edge").await;
        let mut lie = report(0);
        lie["observed"]["instances"] = json!([{
            "id": ready["instance_id"],
            "status": { "phase": "failed", "reason": "crash_loop", "message": "no", "since": "2026-01-01T00:00:00Z" },
        }]);
        assert_eq!(sync(&t, Some(&secret), &lie).await.0, 200);
        assert_eq!(t.get("/api/v1/servers/s").await.expect(200).body["phase"], "ready");
    }

    async fn a_lock_whose_digest_is_wrong_is_refused(engine) {
        let t = TestControl::start(engine).await;
        let secret = enroll(&t, "edge").await;
        let body = json!({ "name": "s", "entry": EVERYTHING, "toolbox": "edge" });
        sync(&t, Some(&secret), &report(0)).await;
        t.post("/api/v1/servers", body).await.expect(201);
        t.wait("/api/v1/servers/s", |_, body| body["reason"] == "resolving").await;
        let answer = sync(&t, Some(&secret), &report(0)).await.1;
        let mut lie = report(answer["desired"]["generation"].as_u64().unwrap());
        let lock = json!({ "digest": "sha256:00", "version": "1.0.0", "content": "something else" });
        lie["observed"]["jobs"] = json!([{ "id": answer["desired"]["jobs"][0]["id"], "outcome": { "Ok": lock } }]);
        assert_eq!(sync(&t, Some(&secret), &lie).await.0, 200);
        let revisions = t.get("/api/v1/servers/s/revisions").await.expect(200).body;
        assert_eq!(revisions["items"][0]["lock_digest"], Value::Null);
    }

    async fn a_silent_toolbox_is_unreachable_and_so_are_its_servers(engine) {
        let t = TestControl::start(engine).await;
        let agent = FakeAgent::local(&t.control).await;
        t.deploy("s").await;
        drop(agent);
        t.clock.step_ms(46_000);
        t.wait("/api/v1/toolboxes/local", |_, body| body["state"] == "unreachable").await;
        let server = t.get("/api/v1/servers/s").await.expect(200).body;
        assert_eq!((server["phase"].as_str(), server["reason"].as_str()), (Some("degraded"), Some("toolbox_unreachable")));
        let again = FakeAgent::local(&t.control).await;
        again.behave("s", Behaviour::Ready);
        t.wait("/api/v1/servers/s", |_, body| body["phase"] == "ready").await;
    }

    async fn a_generation_that_no_honest_agent_saw_is_refused(engine) {
        let t = TestControl::start(engine).await;
        let secret = enroll(&t, "edge").await;
        assert_eq!(sync(&t, Some(&secret), &report(u64::MAX)).await.0, 422);
    }

    async fn a_drained_toolbox_takes_nothing_new(engine) {
        let t = TestControl::start(engine).await;
        let _agent = FakeAgent::local(&t.control).await;
        t.deploy("before").await;
        t.post("/api/v1/toolboxes/local/drain", json!({})).await.expect(200);
        t.post("/api/v1/servers", json!({ "name": "after", "entry": EVERYTHING })).await.expect(201);
        t.wait("/api/v1/servers/after", |_, body| body["reason"] == "awaiting_toolbox").await;
        assert_eq!(t.get("/api/v1/servers/before").await.expect(200).body["phase"], "ready");
        let resumed = t.post("/api/v1/toolboxes/local/resume", json!({})).await.expect(200).body;
        assert_eq!(resumed["state"], "online", "its agent was heard a moment ago");
    }

    async fn a_removed_toolboxs_servers_are_placed_elsewhere(engine) {
        let t = TestControl::start(engine).await;
        let made = t.post("/api/v1/toolboxes", json!({ "name": "edge" })).await.expect(201).body;
        let id = made["toolbox"]["id"].as_str().unwrap().parse().unwrap();
        let _edge = FakeAgent::start(&t.control, id);
        let first = t.deploy("s").await;
        assert_eq!(first["instances"][0]["toolbox"], "edge");
        let _local = FakeAgent::local(&t.control).await;
        t.delete("/api/v1/toolboxes/edge").await.expect(204);
        let moved = t.wait("/api/v1/servers/s", |_, body| {
            body["phase"] == "ready" && body["instances"][0]["toolbox"] == "local"
        }).await;
        assert_ne!(moved["instance_id"], first["instance_id"]);
    }
}
