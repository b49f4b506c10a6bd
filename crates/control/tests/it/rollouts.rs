//! Rollouts: the old revision serves until the new one answered, whatever happens meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::{HeaderMap, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use toolyard_types::snapshot::Target;
use toolyard_types::spec::InstancingMode;
use toolyard_types::state::Reason;
use toolyard_types::{Clock, ServerId};

use crate::agent::{Behaviour, FakeAgent};
use crate::harness::{Engine, TestControl, TestDatabase, both_engines, started_at};
use crate::places::{grants, with_path};
use crate::servers::EVERYTHING;

async fn change(t: &TestControl, name: &str, value: &str) -> Value {
    let body = json!({ "environment": { "DEMO": value } });
    t.patch(&format!("/api/v1/servers/{name}"), body).await.expect(202).body
}

async fn stop(t: &TestControl, name: &str) {
    let path = format!("/api/v1/servers/{name}");
    t.post(&format!("{path}/stop"), json!({})).await.expect(202);
    t.wait(&path, |_, body| body["phase"] == "stopped").await;
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
        // So does the way back.
        let back = t.post("/api/v1/servers/s/rollback", json!({})).await.expect(202).body;
        assert_eq!(back["rollout"]["to_revision"], 1);
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

    async fn a_deadline_that_passed_while_no_agent_could_be_heard_fails_nothing_that_got_ready_meanwhile(engine) {
        let t = TestControl::start(engine).await;
        let agent = FakeAgent::local(&t.control).await;
        for name in ["comes", "hangs"] {
            agent.behave(name, Behaviour::Hangs);
            let body = json!({ "name": name, "entry": EVERYTHING, "rollout_timeout_ms": 5000 });
            t.post("/api/v1/servers", body).await.expect(201);
            t.wait(&format!("/api/v1/servers/{name}"), |_, body| body["phase"] == "starting").await;
        }
        let (clock, toolbox) = (t.clock.clone(), t.control.local_toolbox().await.unwrap().unwrap());
        let database = t.stop().await;
        clock.step_ms(6_000);
        let t = TestControl::on(database, clock).await;
        t.wait_loop("rollout").await;
        agent.behave("comes", Behaviour::Ready);
        let _agent = agent.continue_with(&t.control, toolbox);
        t.wait_rollout("comes", "done").await;
        t.clock.step_ms(31_000);
        let failed = t.wait_rollout("hangs", "failed").await;
        assert_eq!(failed["reason"], "deadline_exceeded", "{failed}");
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
        t.wait_route_with("s", |route| route.target == Target::None && route.is_coming).await;
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

    async fn with_recreate_a_path_that_is_refused_stops_nothing(engine) {
        let t = TestControl::start(engine).await;
        let agent = FakeAgent::local(&t.control).await;
        let body = json!({ "name": "s", "entry": EVERYTHING, "strategy": "recreate" });
        t.post("/api/v1/servers", body).await.expect(201);
        let old = t.wait_rollout("s", "done").await;
        grants(&t, "local", &agent, &["/srv/data"]).await;
        let paths = |path: &str| json!({ "paths": [{ "path": path }] });
        t.patch("/api/v1/servers/s", paths("/srv/other")).await.expect(202);
        let back = t.wait_rollout("s", "rolled_back").await;
        assert_eq!(back["rollout"]["reason"], "config_invalid", "{back}");
        assert_eq!(agent.deeds(), ["run s@1"]);
        // Where a path leads only its agent knows, and says while it prepares.
        let message = "path `/srv/data/way` may not be granted here";
        agent.behave("s@3", Behaviour::Refuses(Reason::ConfigInvalid, message));
        t.patch("/api/v1/servers/s", paths("/srv/data/way")).await.expect(202);
        let back = t.wait_rollout("s", "rolled_back").await;
        assert_eq!(back["rollout"]["message"], message, "{back}");
        assert_eq!((back["phase"].as_str(), back["revision"].as_u64()), (Some("ready"), Some(1)));
        assert_eq!(back["instance_id"], old["instance_id"]);
        assert!(!agent.deeds().contains(&"stop s@1".to_owned()), "{:?}", agent.deeds());
        t.patch("/api/v1/servers/s", paths("/srv/data/files")).await.expect(202);
        t.wait("/api/v1/servers/s", |_, body| body["revision"] == 4 && body["phase"] == "ready").await;
    }

    async fn what_a_failed_recreate_brings_back_runs_where_its_paths_are_and_are_granted(engine) {
        let t = TestControl::start(engine).await;
        let edge = t.join("edge").await;
        let mut body = with_path("s", "/srv/data");
        body["strategy"] = json!("recreate");
        t.post("/api/v1/servers", body).await.expect(201);
        t.wait_rollout("s", "done").await;
        t.deploy("other").await;
        let local = FakeAgent::local(&t.control).await;
        t.wait("/api/v1/toolboxes/local", |_, body| body["state"] == "online").await;
        let on = |body: &Value, toolbox: &str| {
            let instances = body["instances"].as_array().unwrap();
            body["phase"] == "ready" && instances.len() == 1 && instances[0]["toolbox"] == toolbox
        };
        edge.behave("s@2", Behaviour::Fails(Reason::CrashLoop, "it exits again and again", ""));
        change(&t, "s", "1").await;
        t.wait_rollout("s", "rolled_back").await;
        t.wait("/api/v1/servers/s", |_, body| on(body, "edge")).await;
        let stop = async || {
            t.post("/api/v1/servers/s/stop", json!({})).await.expect(202);
            t.wait("/api/v1/servers/s", |_, body| body["instances"] == json!([])).await;
        };
        stop().await;
        t.post("/api/v1/servers/s/start", json!({})).await.expect(202);
        t.wait("/api/v1/servers/s", |_, body| on(body, "edge")).await;
        assert_eq!(local.deeds(), Vec::<String>::new(), "less runs there, and it never had the path");
        stop().await;
        grants(&t, "edge", &edge, &[]).await;
        t.post("/api/v1/servers/s/start", json!({})).await.expect(202);
        t.wait("/api/v1/servers/s", |_, body| on(body, "local")).await;
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
        let (opened, closed) = (remote.opened.load(Ordering::SeqCst), remote.closed.load(Ordering::SeqCst));
        assert_eq!(opened, closed, "every session of a probe is ended");
    }
    async fn a_remote_that_is_restarted_is_served_by_another_rollout_of_its_revision(engine) {
        let t = TestControl::start(engine).await;
        t.control.set_remote_client(toolyard_mcp::http::pooled(
            Client::builder(TokioExecutor::new()).build(HttpConnector::new()),
        ));
        let remote = Remote::start().await;
        let inputs = json!({ "Authorization": "Bearer key" });
        t.post("/api/v1/servers", json!({ "name": "r", "url": remote.url, "inputs": inputs })).await.expect(201);
        let route = std::cell::Cell::new((None, None));
        let served = |it: &toolyard_types::snapshot::ServerRoute| {
            let is_served = it.rollout.is_some() && it.rollout != route.get().1;
            if is_served {
                route.set((it.revision, it.rollout));
            }
            is_served
        };
        t.wait_route_with("r", &served).await;
        let before = route.get();
        t.clock.step_ms(5_000);
        t.post("/api/v1/servers/r/restart", json!({})).await.expect(202);
        t.wait_route_with("r", &served).await;
        let after = route.get();
        assert_eq!(before.0, after.0, "the same revision");
        assert_ne!(before.1, after.1, "who routes calls sees that it was restarted");
    }
    async fn a_remotes_revision_that_loses_a_tool_does_not_serve_unless_that_is_accepted(engine) {
        let t = TestControl::start(engine).await;
        t.control.set_remote_client(toolyard_mcp::http::pooled(
            Client::builder(TokioExecutor::new()).build(HttpConnector::new()),
        ));
        let remote = Remote::start().await;
        let inputs = |key: &str| json!({ "Authorization": format!("Bearer {key}") });
        t.post("/api/v1/servers", json!({ "name": "r", "url": remote.url, "inputs": inputs("all") })).await.expect(201);
        t.wait("/api/v1/servers/r", |_, body| body["phase"] == "ready").await;
        t.patch("/api/v1/servers/r", json!({ "inputs": inputs("fewer") })).await.expect(202);
        let back = t.wait("/api/v1/servers/r", |_, body| body["rollout"]["state"] != "progressing").await;
        assert_eq!((back["revision"].as_u64(), back["rollout"]["reason"].as_str()), (Some(1), Some("tools_lost")), "{back}");
        let change = json!({ "inputs": inputs("fewer"), "accept_lost_tools": true });
        t.patch("/api/v1/servers/r", change).await.expect(202);
        let done = t.wait("/api/v1/servers/r", |_, body| body["rollout"]["state"] != "progressing").await;
        assert_eq!(done["rollout"]["state"], "done", "{done}");
    }
    async fn a_revision_that_loses_a_tool_does_not_serve_unless_that_is_accepted(engine) {
        let t = TestControl::start(engine).await;
        let agent = FakeAgent::local(&t.control).await;
        agent.behave("s", Behaviour::Lists(&["add", "more"]));
        agent.behave("s@1", Behaviour::Lists(&["add", "echo", "print"]));
        let old = t.deploy("s").await;
        change(&t, "s", "1").await;
        let back = t.wait_rollout("s", "rolled_back").await;
        assert_eq!((back["revision"].as_u64(), back["rollout"]["reason"].as_str()), (Some(1), Some("tools_lost")));
        let message = "revision 2 no longer lists `echo`, `print`; `--accept-lost-tools` lets it serve without";
        assert_eq!(back["rollout"]["message"], message);
        assert_eq!(back["rollout"]["switched_at"], Value::Null, "it never took a call");
        assert_eq!(back["instance_id"], old["instance_id"]);
        let body = json!({ "environment": { "DEMO": "2" }, "accept_lost_tools": true });
        t.patch("/api/v1/servers/s", body).await.expect(202);
        t.wait_revision("s", 3).await;
        // Going back is asked for by name, whatever is lost by it.
        t.post("/api/v1/servers/s/rollback", json!({ "revision": 2 })).await.expect(202);
        t.wait_revision("s", 2).await;
    }

    async fn a_crash_while_starting_ends_a_change_at_once_and_a_first_rollout_tries_again(engine) {
        let t = TestControl::start(engine).await;
        let agent = FakeAgent::local(&t.control).await;
        agent.behave("first", Behaviour::CrashesAtStart("no such file"));
        t.post("/api/v1/servers", json!({ "name": "first", "entry": EVERYTHING })).await.expect(201);
        t.wait("/api/v1/servers/first", |_, body| body["reason"] == "exited").await;
        let old = t.deploy("s").await;
        agent.behave("s@2", Behaviour::CrashesAtStart("no such file"));
        change(&t, "s", "1").await;
        let back = t.wait_rollout("s", "rolled_back").await;
        assert_eq!((back["revision"].as_u64(), back["rollout"]["reason"].as_str()), (Some(1), Some("exited")));
        let message = "it ended by itself with exit code 1; stderr: no such file";
        assert_eq!(back["rollout"]["message"], message);
        assert_eq!(back["instance_id"], old["instance_id"]);
        assert_eq!(t.get("/api/v1/servers/first").await.body["rollout"]["state"], "progressing");
        agent.behave("first", Behaviour::Ready);
        t.wait_rollout("first", "done").await;
    }

    async fn a_revision_that_fails_soon_after_the_switch_gives_its_calls_back(engine) {
        let t = TestControl::start(engine).await;
        let agent = FakeAgent::local(&t.control).await;
        let old = t.deploy("s").await;
        let failures = [
            (Behaviour::Degrades(Reason::Exited, "it ended by itself with exit code 3"), "exited", "exit code 3"),
            (Behaviour::Restarted, "exited", "it ended by itself and was started again"),
            (Behaviour::MissedProbe, "probe_failed", "it did not answer a probe"),
        ];
        for (number, (failure, reason, message)) in (2..).zip(failures) {
            change(&t, "s", &number.to_string()).await;
            let observed = t.wait("/api/v1/servers/s", |_, body| body["rollout"]["reason"] == "observing").await;
            assert_eq!((observed["revision"].as_u64(), observed["rollout"]["state"].as_str()), (Some(number), Some("progressing")));
            t.wait_revision_route("s", number).await;
            t.clock.step_ms(2_400);
            agent.behave(&format!("s@{number}"), failure);
            let back = t.wait("/api/v1/servers/s", |_, body| body["rollout"]["state"] == "rolled_back").await;
            assert_eq!((back["revision"].as_u64(), back["rollout"]["reason"].as_str()), (Some(1), Some(reason)));
            let told = back["rollout"]["message"].as_str().unwrap();
            assert!(told.starts_with(&format!("revision {number} served for 2.4 seconds: ")) && told.ends_with(message), "{told}");
            t.wait_revision_route("s", 1).await;
            let back = t.get("/api/v1/servers/s").await.body;
            assert_eq!((back["phase"].as_str(), &back["instances"][0]["id"]), (Some("ready"), &old["instance_id"]));
            t.drained();
            t.wait("/api/v1/servers/s", |_, body| body["instances"].as_array().unwrap().len() == 1).await;
        }
        assert!(!agent.deeds().contains(&"stop s@1".to_owned()), "the old one ran all the time");
    }

    async fn what_was_observed_without_a_failure_lets_the_old_one_end(engine) {
        let t = TestControl::start(engine).await;
        let agent = FakeAgent::local(&t.control).await;
        t.post("/api/v1/servers", json!({ "name": "s", "entry": EVERYTHING, "observe_seconds": 30 })).await.expect(201);
        t.wait_rollout("s", "done").await;
        change(&t, "s", "1").await;
        t.wait("/api/v1/servers/s", |_, body| body["rollout"]["reason"] == "observing").await;
        t.clock.step_ms(29_000);
        t.wait_loop("rollout").await;
        assert_eq!(t.get("/api/v1/servers/s/rollout").await.body["state"], "progressing");
        assert_eq!(agent.deeds(), ["run s@1", "run s@2"]);
        t.clock.step_ms(1_000);
        t.wait("/api/v1/servers/s", |_, body| body["rollout"]["state"] == "done").await;
        t.drained();
        t.wait("/api/v1/servers/s", |_, body| body["instances"].as_array().unwrap().len() == 1).await;
        assert_eq!(agent.deeds(), ["run s@1", "run s@2", "stop s@1"]);
        // Without a window there is none.
        t.patch("/api/v1/servers/s", json!({ "observe_seconds": 0 })).await.expect(202);
        change(&t, "s", "2").await;
        t.wait("/api/v1/servers/s", |_, body| body["revision"] == 3 && body["rollout"]["state"] == "done").await;
        t.patch("/api/v1/servers/s", json!({ "observe_seconds": 3601 })).await.expect(422);
    }

    async fn while_it_is_observed_a_person_can_go_back_or_go_on(engine) {
        let t = TestControl::start(engine).await;
        let agent = FakeAgent::local(&t.control).await;
        let old = t.deploy("s").await;
        for (value, way, state) in [("1", "rollout/cancel", "cancelled"), ("2", "rollback", "rolled_back")] {
            change(&t, "s", value).await;
            t.wait("/api/v1/servers/s", |_, body| body["rollout"]["reason"] == "observing").await;
            t.post(&format!("/api/v1/servers/s/{way}"), json!({})).await;
            let back = t.get("/api/v1/servers/s").await.body;
            assert_eq!((back["revision"].as_u64(), back["rollout"]["state"].as_str()), (Some(1), Some(state)));
            assert_eq!(back["instances"][0]["id"], old["instance_id"]);
        }
        change(&t, "s", "3").await;
        t.wait("/api/v1/servers/s", |_, body| body["rollout"]["reason"] == "observing").await;
        agent.behave("s@5", Behaviour::Hangs);
        let next = change(&t, "s", "4").await;
        assert_eq!((next["revision"].as_u64(), &next["rollout"]["from_revision"]), (Some(4), &json!(4)));
        t.post("/api/v1/servers/s/rollout/cancel", json!({})).await.expect(200);
        assert_eq!(t.get("/api/v1/servers/s").await.body["revision"], 4);
    }

    async fn replicas_are_ready_together_and_scaled_without_a_rollout(engine) {
        let t = TestControl::start(engine).await;
        let local = FakeAgent::local(&t.control).await;
        let edge = t.join("edge").await;
        let body = json!({ "name": "s", "entry": EVERYTHING, "replicas": 4 });
        t.post("/api/v1/servers", body).await.expect(201);
        let four = t.wait_rollout("s", "done").await;
        assert_eq!((four["replicas"].as_u64(), ready(&four).len()), (Some(4), 4));
        assert_eq!((count(&local, "run s@1"), count(&edge, "run s@1")), (2, 2), "they are spread");
        t.wait_route("s", |target| routes(target) == 4).await;

        // One that never answers keeps all of the new revision from serving.
        edge.behave("s@2", Behaviour::Fails(Reason::StartTimeout, "it did not answer in time", ""));
        change(&t, "s", "1").await;
        let back = t.wait_rollout("s", "rolled_back").await;
        assert_eq!((back["revision"].as_u64(), back["rollout"]["reason"].as_str()), (Some(1), Some("start_timeout")));
        t.wait_route("s", |target| routes(target) == 4).await;

        let scaled = t.patch("/api/v1/servers/s", json!({ "replicas": 2 })).await.expect(202).body;
        assert_eq!(scaled["rollout"]["id"], back["rollout"]["id"], "it made no rollout");
        t.wait_route("s", |target| routes(target) == 2).await;
        t.drained();
        let two = t.wait("/api/v1/servers/s", |_, body| body["instances"].as_array().unwrap().len() == 2).await;
        let places: std::collections::BTreeSet<_> =
            two["instances"].as_array().unwrap().iter().map(|it| it["toolbox"].as_str().unwrap()).collect();
        assert_eq!(places.len(), 2, "they stay spread");
        t.patch("/api/v1/servers/s", json!({ "replicas": 3 })).await.expect(202);
        t.wait_route("s", |target| routes(target) == 3).await;
        for wrong in [json!({ "replicas": 0 }), json!({ "replicas": 21 })] {
            t.patch("/api/v1/servers/s", wrong).await.expect(422);
        }
        let session = json!({ "instancing": { "mode": "per_session" } });
        t.patch("/api/v1/servers/s", session.clone()).await.expect(422);
        t.patch("/api/v1/servers/s", json!({ "replicas": 1 })).await.expect(202);
        t.patch("/api/v1/servers/s", session).await.expect(202);
        t.wait_route_with("s", |route| route.instancing == InstancingMode::PerSession).await;
    }

    async fn a_canary_takes_its_part_until_it_is_promoted(engine) {
        let t = TestControl::start(engine).await;
        let _agent = FakeAgent::local(&t.control).await;
        let body = json!({ "name": "s", "entry": EVERYTHING, "replicas": 2, "observe_seconds": 0,
            "rollout_timeout_ms": 20_000 });
        t.post("/api/v1/servers", body).await.expect(201);
        t.wait_rollout("s", "done").await;
        let body = json!({ "environment": { "A": "1" }, "canary": { "weight": 10, "clients": ["ci"] } });
        t.patch("/api/v1/servers/s", body).await.expect(202);
        let tried = t.wait("/api/v1/servers/s", |_, body| body["rollout"]["reason"] == "canary").await;
        assert_eq!((tried["revision"].as_u64(), tried["rollout"]["state"].as_str()), (Some(1), Some("progressing")));
        assert_eq!(tried["rollout"]["message"], "revision 2 takes 10 % of the calls and every call of 1 client");
        t.wait_route_with("s", |route| {
            route.canary.as_ref().is_some_and(|canary| {
                (canary.weight, canary.instances.len(), canary.clients.len()) == (10, 1, 1)
                    && Some(canary.revision) != route.revision
            }) && routes(Some(&route.target)) == 2
        }).await;
        // It may last: its deadline is not the rollout's.
        t.clock.step_ms(21_000);
        t.wait_loop("rollout").await;
        assert_eq!(t.get("/api/v1/servers/s/rollout").await.body["state"], "progressing");
        t.post("/api/v1/servers/s/rollout/promote", json!({})).await.expect(200);
        t.wait("/api/v1/servers/s", |_, body| body["revision"] == 2 && body["rollout"]["state"] == "done").await;
        t.wait_route_with("s", |route| route.canary.is_none() && routes(Some(&route.target)) == 2).await;
        t.post("/api/v1/servers/s/rollout/promote", json!({})).await.expect(409);
        let audit = t.get("/api/v1/audit").await.expect(200).text;
        assert!(audit.contains("rollout.promote"), "{audit}");

        let body = json!({ "environment": { "A": "2" }, "canary": { "weight": 100, "promote_after_seconds": 5 } });
        t.patch("/api/v1/servers/s", body).await.expect(202);
        t.wait("/api/v1/servers/s", |_, body| body["rollout"]["reason"] == "canary").await;
        t.clock.step_ms(5_000);
        t.wait("/api/v1/servers/s", |_, body| body["revision"] == 3 && body["rollout"]["state"] == "done").await;
    }

    async fn a_canary_under_way_is_given_another_part_of_the_calls(engine) {
        let t = TestControl::start(engine).await;
        let _agent = FakeAgent::local(&t.control).await;
        t.post("/api/v1/servers", json!({ "name": "s", "entry": EVERYTHING, "observe_seconds": 0 })).await.expect(201);
        t.wait_rollout("s", "done").await;
        let tries = async |canary: serde_json::Value| {
            t.patch("/api/v1/servers/s", json!({ "environment": { "A": "1" }, "canary": canary })).await.expect(202)
        };
        tries(json!({ "weight": 10 })).await;
        let tried = t.wait("/api/v1/servers/s", |_, body| body["rollout"]["reason"] == "canary").await;
        let only = json!({ "canary": { "weight": 50, "clients": ["ci"] } });
        let changed = t.patch("/api/v1/servers/s", only).await.expect(202).body;
        assert_eq!(changed["rollout"]["id"], tried["rollout"]["id"], "it is the same rollout");
        let message = "revision 2 takes 50 % of the calls and every call of 1 client";
        assert_eq!(changed["rollout"]["message"], message);
        t.wait_route_with("s", |route| {
            let canary = route.canary.as_ref();
            canary.is_some_and(|canary| canary.weight == 50 && canary.clients == ["ci"] && canary.instances.len() == 1)
        }).await;
        // What is so already, and what was decided already, is no change.
        let again = tries(json!({ "weight": 50, "clients": ["ci"] })).await.body;
        assert_eq!(again["rollout"]["log"], changed["rollout"]["log"]);
        t.patch("/api/v1/servers/s", json!({ "canary": { "weight": 0 } })).await.expect(422);
        // The time that it is tried for begins with the part.
        t.clock.step_ms(10_000);
        tries(json!({ "weight": 100, "promote_after_seconds": 20 })).await;
        t.clock.step_ms(10_000);
        t.wait_loop("rollout").await;
        assert_eq!(t.get("/api/v1/servers/s/rollout").await.body["reason"], "canary");
        t.clock.step_ms(10_000);
        let done = t.wait("/api/v1/servers/s", |_, body| body["rollout"]["state"] == "done").await;
        assert_eq!(done["revision"], 2);
        let after = tries(json!({ "weight": 5 })).await.body;
        assert_eq!((&after["revision"], &after["rollout"]["state"]), (&json!(2), &json!("done")));
        assert_eq!(t.get("/api/v1/servers/s/revisions").await.expect(200).body["items"].as_array().unwrap().len(), 2);
    }

    async fn a_canary_that_fails_or_is_cancelled_leaves_what_served(engine) {
        let t = TestControl::start(engine).await;
        let agent = FakeAgent::local(&t.control).await;
        let old = t.deploy("s").await;
        let begin = async |value: &str| {
            let body = json!({ "environment": { "A": value }, "canary": { "weight": 50 } });
            t.patch("/api/v1/servers/s", body).await.expect(202);
            t.wait("/api/v1/servers/s", |_, body| body["rollout"]["reason"] == "canary").await;
            t.wait_route_with("s", |route| route.canary.is_some()).await;
        };
        begin("1").await;
        agent.behave("s@2", Behaviour::Degrades(Reason::OutOfMemory, "it used more memory than its limit"));
        let back = t.wait_rollout("s", "rolled_back").await;
        assert_eq!((back["revision"].as_u64(), back["rollout"]["reason"].as_str()), (Some(1), Some("out_of_memory")));
        t.wait_route_with("s", |route| route.canary.is_none()).await;
        begin("2").await;
        t.post("/api/v1/servers/s/rollout/cancel", json!({})).await.expect(200);
        t.wait_route_with("s", |route| route.canary.is_none()).await;
        let kept = t.get("/api/v1/servers/s").await.body;
        assert_eq!((kept["rollout"]["state"].as_str(), kept["revision"].as_u64()), (Some("cancelled"), Some(1)));
        assert_eq!(kept["instances"][0]["id"], old["instance_id"]);
        for wrong in [json!({}), json!({ "weight": 101 }), json!({ "weight": 1, "promote_after_seconds": 0 })] {
            t.patch("/api/v1/servers/s", json!({ "environment": { "A": "9" }, "canary": wrong })).await.expect(422);
        }
        t.post("/api/v1/servers/s/stop", json!({})).await.expect(202);
        let body = json!({ "environment": { "A": "9" }, "canary": { "weight": 5 } });
        t.patch("/api/v1/servers/s", body).await.expect(422);
    }

    async fn draining_moves_what_may_run_elsewhere_and_says_what_stays(engine) {
        let t = TestControl::start(engine).await;
        let edge = t.join("edge").await;
        t.deploy("free").await;
        t.post("/api/v1/servers", json!({ "name": "tied", "entry": EVERYTHING, "toolbox": "edge" })).await.expect(201);
        t.wait_rollout("tied", "done").await;
        let local = FakeAgent::local(&t.control).await;
        local.behave("free", Behaviour::Hangs);
        t.delete("/api/v1/toolboxes/edge").await.expect(409);
        t.post("/api/v1/toolboxes/edge/drain", json!({})).await.expect(200);
        let both = t.wait("/api/v1/servers/free", |_, body| body["instances"].as_array().unwrap().len() == 2).await;
        assert_eq!((both["phase"].as_str(), both["instances"][0]["toolbox"].as_str()), (Some("ready"), Some("edge")));
        let draining = t.get("/api/v1/toolboxes/edge").await.expect(200).body;
        assert_eq!(draining["drain"], json!({ "moving": 1, "ending": 0, "stays": ["tied"] }), "{draining}");
        let message = "takes nothing new; still to move: 1 instance; they stay, for there is no other place: `tied`";
        assert_eq!(draining["message"], message);
        local.behave("free", Behaviour::Ready);
        let new = both["instances"][1]["id"].as_str().unwrap().to_owned();
        t.wait_route("free", |target| {
            matches!(target, Some(Target::Instances(all)) if all.len() == 1 && all[0].id.to_string() == new)
        }).await;
        t.drained();
        let moved = t.wait("/api/v1/servers/free", |_, body| body["instances"].as_array().unwrap().len() == 1).await;
        assert_eq!(moved["instances"][0]["toolbox"], "local");
        assert_eq!(edge.deeds(), ["run free@1", "run tied@1", "stop free@1"]);
        let drain = json!({ "moving": 0, "ending": 0, "stays": ["tied"] });
        assert_eq!(t.get("/api/v1/toolboxes/edge").await.body["drain"], drain);
        t.delete("/api/v1/toolboxes/edge").await.expect(204);
        let left = t.get("/api/v1/servers/tied").await.expect(200).body;
        assert_eq!((&left["phase"], &left["reason"]), (&json!("failed"), &json!("toolbox_removed")), "{left}");
        t.delete("/api/v1/servers/tied").await.expect(202);
        t.wait("/api/v1/servers/tied", |status, _| status == 404).await;
    }

    async fn what_serves_leaves_a_drained_toolbox_and_is_scaled_while_its_change_waits_for_the_window(engine) {
        let t = patient(engine).await;
        let _edge = t.join("edge").await;
        t.deploy("s").await;
        t.patch("/api/v1/servers/s", json!({ "update_window": "13:00-14:00" })).await.expect(202);
        let local = FakeAgent::local(&t.control).await;
        t.wait("/api/v1/toolboxes/local", |_, body| body["state"] == "online").await;
        assert_eq!(change(&t, "s", "1").await["rollout"]["reason"], "outside_window");
        t.post("/api/v1/toolboxes/edge/drain", json!({})).await.expect(200);
        let moved = t.wait("/api/v1/servers/s", |_, body| {
            t.clock.step_ms(100);
            let instances = body["instances"].as_array().unwrap();
            instances.len() == 1 && instances[0]["toolbox"] == "local"
        }).await;
        assert_eq!((&moved["revision"], &moved["rollout"]["reason"]), (&json!(1), &json!("outside_window")), "{moved}");
        let nothing = json!({ "moving": 0, "ending": 0, "stays": [] });
        assert_eq!(t.get("/api/v1/toolboxes/edge").await.body["drain"], nothing);
        t.patch("/api/v1/servers/s", json!({ "replicas": 2 })).await.expect(202);
        t.wait("/api/v1/servers/s", |_, body| ready(body).len() == 2).await;
        assert_eq!(local.deeds(), ["run s@1", "run s@1"]);
    }

    async fn a_canary_and_what_serves_beside_it_leave_a_drained_toolbox(engine) {
        let t = TestControl::start(engine).await;
        let _edge = t.join("edge").await;
        t.deploy("s").await;
        let body = json!({ "environment": { "A": "1" }, "canary": { "weight": 10 } });
        t.patch("/api/v1/servers/s", body).await.expect(202);
        let tried = t.wait("/api/v1/servers/s", |_, body| body["rollout"]["reason"] == "canary").await;
        let local = FakeAgent::local(&t.control).await;
        t.wait("/api/v1/toolboxes/local", |_, body| body["state"] == "online").await;
        local.behave("s@2", Behaviour::Hangs);
        t.post("/api/v1/toolboxes/edge/drain", json!({})).await.expect(200);
        t.wait("/api/v1/version", |_, _| local.deeds().contains(&"run s@2".to_owned())).await;
        t.wait_loop("rollout").await;
        let during = t.get("/api/v1/servers/s").await.expect(200).body;
        assert_eq!(during["rollout"]["message"], tried["rollout"]["message"], "it is tried on where it was");
        t.wait_route_with("s", |route| route.canary.as_ref().is_some_and(|it| it.instances.len() == 1)).await;
        local.behave("s@2", Behaviour::Ready);
        t.wait("/api/v1/servers/s", |_, body| {
            t.clock.step_ms(100);
            let instances = body["instances"].as_array().unwrap();
            instances.len() == 2 && instances.iter().all(|it| it["toolbox"] == "local")
        }).await;
        let nothing = json!({ "moving": 0, "ending": 0, "stays": [] });
        assert_eq!(t.get("/api/v1/toolboxes/edge").await.body["drain"], nothing);
        t.post("/api/v1/servers/s/rollout/promote", json!({})).await.expect(200);
        t.wait_revision("s", 2).await;
    }

    async fn what_no_other_toolbox_can_run_stays_on_one_that_is_drained(engine) {
        let t = TestControl::start(engine).await;
        let _edge = t.join("edge").await;
        t.post("/api/v1/servers", with_path("s", "/srv/data")).await.expect(201);
        t.wait_rollout("s", "done").await;
        let local = FakeAgent::local(&t.control).await;
        t.wait("/api/v1/toolboxes/local", |_, body| body["state"] == "online").await;
        grants(&t, "local", &local, &["/srv/database"]).await;
        let drain = t.post("/api/v1/toolboxes/edge/drain", json!({})).await.expect(200).body;
        assert_eq!(drain["drain"], json!({ "moving": 0, "ending": 0, "stays": ["s"] }), "{drain}");
        grants(&t, "local", &local, &["/srv/data"]).await;
        t.wait("/api/v1/servers/s", |_, body| {
            t.clock.step_ms(100);
            let instances = body["instances"].as_array().unwrap();
            instances.len() == 1 && instances[0]["toolbox"] == "local"
        }).await;
    }

    async fn what_no_other_toolbox_has_the_labels_for_stays_on_one_that_is_drained(engine) {
        let t = TestControl::start(engine).await;
        let edge = t.join("edge").await;
        t.patch("/api/v1/toolboxes/edge", json!({ "labels": { "zone": "a" } })).await.expect(200);
        let local = FakeAgent::local(&t.control).await;
        t.wait("/api/v1/toolboxes/local", |_, body| body["state"] == "online").await;
        let body = json!({ "name": "zoned", "entry": EVERYTHING, "toolbox_labels": { "zone": "a" } });
        t.post("/api/v1/servers", body).await.expect(201);
        t.wait_rollout("zoned", "done").await;
        let drain = t.post("/api/v1/toolboxes/edge/drain", json!({})).await.expect(200).body;
        assert_eq!(drain["drain"], json!({ "moving": 0, "ending": 0, "stays": ["zoned"] }), "{drain}");
        // Another one with its labels, and it moves; what it leaves is told until it has ended.
        edge.let_end(false);
        t.patch("/api/v1/toolboxes/local", json!({ "labels": { "zone": "a" } })).await.expect(200);
        let leaves = json!({ "moving": 0, "ending": 1, "stays": [] });
        t.wait("/api/v1/toolboxes/edge", |_, body| body["drain"] == leaves).await;
        let ending = t.get("/api/v1/toolboxes/edge").await.body;
        assert_eq!(ending["message"], "takes nothing new; about to end: 1 instance");
        t.drained();
        t.wait("/api/v1/version", |_, _| edge.deeds().contains(&"stop zoned@1".to_owned())).await;
        edge.let_end(true);
        let nothing = json!({ "moving": 0, "ending": 0, "stays": [] });
        let empty = t.wait("/api/v1/toolboxes/edge", |_, body| body["drain"] == nothing).await;
        assert_eq!(empty["message"], "takes nothing new; nothing is left that must go");
        assert_eq!(local.deeds(), ["run zoned@1"]);
    }

    async fn an_update_outside_its_window_waits_until_it_opens(engine) {
        let t = patient(engine).await;
        let agent = FakeAgent::local(&t.control).await;
        let body = json!({ "name": "s", "entry": EVERYTHING, "observe_seconds": 0, "update_window": "12:00-12:01" });
        t.post("/api/v1/servers", body).await.expect(201);
        t.wait_rollout("s", "done").await;
        // It is noon, and the window is open.
        change(&t, "s", "1").await;
        t.wait_revision("s", 2).await;
        t.patch("/api/v1/servers/s", json!({ "update_window": "12:00-12:00:30" })).await.expect(422);
        t.patch("/api/v1/servers/s", json!({ "update_window": "sun 12:01-13:00" })).await.expect(202);
        let waiting = change(&t, "s", "2").await;
        assert_eq!(waiting["rollout"]["reason"], "outside_window");
        assert_eq!(waiting["rollout"]["next_attempt_at"], "2026-11-22T12:01:00.000Z");
        let message = "waits for the update window `sun 12:01-13:00`, which opens at 2026-11-22T12:01:00.000Z";
        assert_eq!(waiting["rollout"]["message"], message);
        t.clock.step_ms(40_000);
        t.wait_loop("rollout").await;
        assert_eq!(t.get("/api/v1/servers/s/rollout").await.body["reason"], "outside_window");
        let now = json!({ "environment": { "DEMO": "3" }, "now": true });
        t.patch("/api/v1/servers/s", now).await.expect(202);
        t.wait_revision("s", 4).await;
        change(&t, "s", "4").await;
        t.clock.step_ms(20_000);
        t.wait_revision("s", 5).await;
        assert_eq!(agent.deeds().iter().filter(|deed| deed.starts_with("run s@3")).count(), 0);
    }

    async fn a_change_that_waits_keeps_to_the_window_that_its_server_has_now(engine) {
        let t = patient(engine).await;
        let _agent = FakeAgent::local(&t.control).await;
        let body = json!({ "name": "s", "entry": EVERYTHING, "observe_seconds": 0, "update_window": "12:01-13:00" });
        t.post("/api/v1/servers", body).await.expect(201);
        t.wait_rollout("s", "done").await;
        assert_eq!(change(&t, "s", "1").await["rollout"]["next_attempt_at"], "2026-11-22T12:01:00.000Z");
        let moved = t.patch("/api/v1/servers/s", json!({ "update_window": "12:05-13:00" })).await.expect(202).body;
        assert_eq!(moved["rollout"]["next_attempt_at"], "2026-11-22T12:05:00.000Z", "{moved}");
        t.clock.step_ms(120_000);
        t.wait_loop("rollout").await;
        let waiting = t.get("/api/v1/servers/s").await.body;
        assert_eq!((&waiting["revision"], &waiting["rollout"]["reason"]), (&json!(1), &json!("outside_window")), "{waiting}");
        // One that is open, or none, lets it begin; and so does who asks for it.
        for (number, begins) in [
            (2, json!({ "update_window": "12:01-13:00" })),
            (3, json!({ "update_window": "" })),
            (4, json!({ "now": true })),
        ] {
            t.patch("/api/v1/servers/s", begins).await.expect(202);
            t.wait_revision("s", number).await;
            t.patch("/api/v1/servers/s", json!({ "update_window": "14:00-15:00" })).await.expect(202);
            if number < 4 {
                let waiting = change(&t, "s", &number.to_string()).await;
                assert_eq!(waiting["rollout"]["reason"], "outside_window", "{waiting}");
            }
        }
        let again = t.patch("/api/v1/servers/s", json!({ "now": true })).await.expect(202).body;
        assert_eq!((&again["revision"], &again["rollout"]["state"]), (&json!(4), &json!("done")), "nothing waits: {again}");
    }

    async fn a_restart_does_not_take_back_a_change_that_waits_for_its_window(engine) {
        let t = patient(engine).await;
        let agent = FakeAgent::local(&t.control).await;
        let body = json!({ "name": "s", "entry": EVERYTHING, "observe_seconds": 0, "update_window": "12:05-13:00" });
        t.post("/api/v1/servers", body).await.expect(201);
        t.wait_rollout("s", "done").await;
        let waiting = change(&t, "s", "1").await;
        assert_eq!(waiting["rollout"]["reason"], "outside_window");
        let restarted = |before: Value| t.wait("/api/v1/servers/s", move |_, body| {
            body["instance_id"] != before["instance_id"] && body["rollout"]["reason"] == "outside_window"
        });
        t.post("/api/v1/servers/s/restart", json!({})).await.expect(202);
        let again = restarted(waiting.clone()).await;
        assert_eq!((&again["revision"], &again["rollout"]["to_revision"]), (&json!(1), &json!(2)), "{again}");
        assert_ne!(again["rollout"]["id"], waiting["rollout"]["id"]);
        let settings = t.get("/api/v1/servers/s/settings").await.expect(200).body;
        assert_eq!(settings["change"]["environment"]["DEMO"], "1", "{settings}");
        // Neither does one at its time of day.
        t.patch("/api/v1/servers/s", json!({ "restart_at": "12:01" })).await.expect(202);
        t.clock.step_ms(60_000);
        let daily = restarted(again).await;
        assert_eq!(daily["revision"], 1);
        // What is changed now is changed together with what waited.
        let now = json!({ "environment": { "MORE": "2" }, "now": true });
        t.patch("/api/v1/servers/s", now).await.expect(202);
        t.wait_revision("s", 3).await;
        let settings = t.get("/api/v1/servers/s/settings").await.expect(200).body;
        assert_eq!(settings["change"]["environment"], json!({ "DEMO": "1", "MORE": "2" }));
        assert_eq!(agent.deeds().iter().filter(|deed| deed.starts_with("run s@2")).count(), 0);
    }

    async fn a_restart_leaves_a_move_that_waits_and_a_canary_to_be_begun_again(engine) {
        let t = patient(engine).await;
        let _local = FakeAgent::local(&t.control).await;
        let _edge = t.join("edge").await;
        for name in ["moves", "tried"] {
            let body = json!({ "name": name, "entry": EVERYTHING, "toolbox": "local", "observe_seconds": 0 });
            t.post("/api/v1/servers", body).await.expect(201);
            t.wait_rollout(name, "done").await;
        }
        let move_later = json!({ "toolbox": "edge", "update_window": "12:01-13:00" });
        t.patch("/api/v1/servers/moves", move_later).await.expect(202);
        t.patch("/api/v1/servers/tried", json!({ "environment": { "A": "1" }, "canary": { "weight": 10 } })).await.expect(202);
        t.wait("/api/v1/servers/tried", |_, body| body["rollout"]["reason"] == "canary").await;
        for (name, reason) in [("moves", "outside_window"), ("tried", "canary")] {
            let path = format!("/api/v1/servers/{name}");
            let before = t.get(&path).await.body;
            t.post(&format!("{path}/restart"), json!({})).await.expect(202);
            let after = t.wait(&path, |_, body| {
                body["rollout"]["id"] != before["rollout"]["id"] && body["rollout"]["reason"] == reason
            }).await;
            assert_eq!(after["revision"], 1, "{after}");
            let on = |body: &Value| ready(body).iter().find(|it| it["revision"] == 1).map(|it| it["toolbox"].clone());
            assert_eq!(on(&after), Some(json!("local")), "{after}");
        }
        t.post("/api/v1/servers/tried/rollout/promote", json!({})).await.expect(200);
        t.wait_revision("tried", 2).await;
        t.clock.step_ms(60_000);
        t.wait("/api/v1/servers/moves", |_, body| {
            t.clock.step_ms(100);
            body["rollout"]["state"] == "done" && ready(body).iter().all(|it| it["toolbox"] == "edge")
        }).await;
    }

    async fn a_restart_comes_before_a_change_that_is_being_made_or_is_to_be_tried(engine) {
        let t = patient(engine).await;
        let agent = FakeAgent::local(&t.control).await;
        for (name, canary) in [("made", Value::Null), ("tried", json!({ "weight": 10 }))] {
            t.deploy(name).await;
            let path = format!("/api/v1/servers/{name}");
            let new: &'static str = if name == "made" { "made@2" } else { "tried@2" };
            agent.behave(new, Behaviour::Hangs);
            let mut change = json!({ "environment": { "A": "1" } });
            if !canary.is_null() {
                change["canary"] = canary.clone();
            }
            t.patch(&path, change).await.expect(202);
            let before = t.wait(&path, |_, body| body["instances"].as_array().unwrap().len() == 2).await;
            let restarted = t.post(&format!("{path}/restart"), json!({})).await.expect(202).body;
            assert_eq!(restarted["rollout"]["to_revision"], 1, "{restarted}");
            let steps = restarted["rollout"]["log"].to_string();
            assert!(steps.contains("the change to revision 2 begins after it"), "{steps}");
            let after = t.wait(&path, |_, body| {
                t.clock.step_ms(10);
                body["instance_id"] != before["instance_id"] && body["rollout"]["to_revision"] == 2
            }).await;
            assert_eq!((&after["revision"], after["rollout"]["canary"].is_null()), (&json!(1), canary.is_null()), "{after}");
            assert_eq!(after["rollout"]["canary"]["promoted_at"], Value::Null);
        }
    }

    async fn a_server_that_is_stopped_while_its_change_waits_starts_as_it_was_and_the_change_waits_on(engine) {
        let t = patient(engine).await;
        let _agent = FakeAgent::local(&t.control).await;
        let body = json!({ "name": "s", "entry": EVERYTHING, "observe_seconds": 0, "update_window": "13:00-14:00" });
        t.post("/api/v1/servers", body).await.expect(201);
        t.wait_rollout("s", "done").await;
        assert_eq!(change(&t, "s", "1").await["rollout"]["reason"], "outside_window");
        stop(&t, "s").await;
        let settings = t.get("/api/v1/servers/s/settings").await.expect(200).body;
        assert_eq!(settings["change"]["environment"]["DEMO"], "1", "{settings}");
        t.post("/api/v1/servers/s/start", json!({})).await.expect(202);
        let started = t.wait("/api/v1/servers/s", |_, body| {
            body["phase"] == "ready" && body["rollout"]["reason"] == "outside_window"
        }).await;
        assert_eq!((&started["revision"], &started["rollout"]["to_revision"]), (&json!(1), &json!(2)), "{started}");
        // What is changed while it is stopped is what it starts with, together with what waited.
        stop(&t, "s").await;
        t.patch("/api/v1/servers/s", json!({ "environment": { "MORE": "2" } })).await.expect(202);
        t.post("/api/v1/servers/s/start", json!({})).await.expect(202);
        t.wait_revision("s", 3).await;
        let settings = t.get("/api/v1/servers/s/settings").await.expect(200).body;
        assert_eq!(settings["change"]["environment"], json!({ "DEMO": "1", "MORE": "2" }), "{settings}");
        t.wait_loop("schedule").await;
        assert_eq!(t.get("/api/v1/servers/s/rollout").await.body["state"], "done");
    }

    async fn a_change_during_a_restart_waits_after_it_or_replaces_it(engine) {
        let t = patient(engine).await;
        let agent = FakeAgent::local(&t.control).await;
        let body = json!({ "name": "s", "entry": EVERYTHING, "observe_seconds": 0, "update_window": "13:00-14:00" });
        t.post("/api/v1/servers", body).await.expect(201);
        t.wait_rollout("s", "done").await;
        agent.behave("s@1", Behaviour::Hangs);
        let restart = t.post("/api/v1/servers/s/restart", json!({})).await.expect(202).body;
        for value in ["1", "2"] {
            let changed = change(&t, "s", value).await;
            assert_eq!(changed["rollout"]["id"], restart["rollout"]["id"], "the restart goes on: {changed}");
        }
        agent.behave("s@1", Behaviour::Ready);
        let waiting = t.wait("/api/v1/servers/s", |_, body| body["rollout"]["reason"] == "outside_window").await;
        assert_eq!((&waiting["revision"], &waiting["rollout"]["to_revision"]), (&json!(1), &json!(3)), "{waiting}");
        agent.behave("s@1", Behaviour::Hangs);
        t.post("/api/v1/servers/s/restart", json!({})).await.expect(202);
        let now = json!({ "environment": { "MORE": "3" }, "now": true });
        t.patch("/api/v1/servers/s", now).await.expect(202);
        t.wait_revision("s", 4).await;
        t.wait_loop("schedule").await;
        let settings = t.get("/api/v1/servers/s/settings").await.expect(200).body;
        assert_eq!(settings["change"]["environment"], json!({ "DEMO": "2", "MORE": "3" }), "{settings}");
    }

    async fn a_restart_that_failed_is_shown_for_a_minute_before_what_waited_begins_again(engine) {
        let t = patient(engine).await;
        let agent = FakeAgent::local(&t.control).await;
        let body = json!({ "name": "s", "entry": EVERYTHING, "observe_seconds": 0, "update_window": "13:00-14:00" });
        t.post("/api/v1/servers", body).await.expect(201);
        t.wait_rollout("s", "done").await;
        assert_eq!(change(&t, "s", "1").await["rollout"]["reason"], "outside_window");
        agent.behave("s@1", Behaviour::Fails(Reason::InstallFailed, "no compiler", ""));
        t.post("/api/v1/servers/s/restart", json!({})).await.expect(202);
        t.wait_rollout("s", "rolled_back").await;
        t.wait_loop("schedule").await;
        assert_eq!(t.get("/api/v1/servers/s/rollout").await.body["state"], "rolled_back");
        let again = t.wait("/api/v1/servers/s/rollout", |_, body| {
            t.clock.step_ms(5000);
            body["reason"] == "outside_window"
        }).await;
        assert_eq!(again["to_revision"], 2, "{again}");
    }

    async fn a_rollback_and_a_cancelled_rollout_take_back_what_would_begin_after_a_restart(engine) {
        let t = patient(engine).await;
        let agent = FakeAgent::local(&t.control).await;
        let body = json!({ "name": "s", "entry": EVERYTHING, "observe_seconds": 0, "update_window": "13:00-14:00" });
        t.post("/api/v1/servers", body).await.expect(201);
        t.wait_rollout("s", "done").await;
        for (path, body, code) in [("rollback", json!({ "revision": 1 }), 202), ("rollout/cancel", json!({}), 200)] {
            agent.behave("s@1", Behaviour::Ready);
            assert_eq!(change(&t, "s", path).await["rollout"]["reason"], "outside_window");
            agent.behave("s@1", Behaviour::Hangs);
            t.post("/api/v1/servers/s/restart", json!({})).await.expect(202);
            t.post(&format!("/api/v1/servers/s/{path}"), body).await.expect(code);
            agent.behave("s@1", Behaviour::Ready);
            t.wait("/api/v1/servers/s", |_, body| {
                t.clock.step_ms(1000);
                body["rollout"]["state"] != "progressing"
            }).await;
            t.clock.step_ms(100_000);
            t.wait_loop("schedule").await;
            assert_ne!(t.get("/api/v1/servers/s/rollout").await.body["reason"], "outside_window");
        }
    }

    async fn a_server_is_restarted_at_its_time_of_day(engine) {
        let t = patient(engine).await;
        let _agent = FakeAgent::local(&t.control).await;
        let body = json!({ "name": "s", "entry": EVERYTHING, "restart_at": "12:00" });
        t.post("/api/v1/servers", body).await.expect(201);
        let first = t.wait_rollout("s", "done").await;
        assert_eq!(first["restart_at"], "12:00");
        // It is noon: the next one is tomorrow's.
        t.patch("/api/v1/servers/s", json!({ "restart_at": "12:01" })).await.expect(202);
        t.clock.step_ms(40_000);
        t.wait_loop("schedule").await;
        assert_eq!(t.get("/api/v1/servers/s").await.body["rollout"]["id"], first["rollout"]["id"]);
        t.clock.step_ms(20_000);
        let second = t.wait("/api/v1/servers/s", |_, body| {
            body["rollout"]["id"] != first["rollout"]["id"] && body["rollout"]["state"] == "done"
        }).await;
        assert_eq!(second["revision"], 1);
        assert_ne!(second["instance_id"], first["instance_id"]);
        let audit = t.get("/api/v1/audit?limit=1").await.expect(200).body;
        assert_eq!((&audit["items"][0]["action"], &audit["items"][0]["actor_display"]), (&json!("server.restart"), &json!("schedule")));
        for wrong in ["25:00", "noon"] {
            t.patch("/api/v1/servers/s", json!({ "restart_at": wrong })).await.expect(422);
        }
        let off = t.patch("/api/v1/servers/s", json!({ "restart_at": "" })).await.expect(202).body;
        assert_eq!(off["restart_at"], Value::Null);
    }

    async fn a_revision_says_whether_it_ever_served(engine) {
        let t = TestControl::start(engine).await;
        let agent = FakeAgent::local(&t.control).await;
        t.deploy("s").await;
        agent.behave("s@2", Behaviour::Fails(Reason::InstallFailed, "no compiler", ""));
        change(&t, "s", "2").await;
        t.wait_rollout("s", "rolled_back").await;
        // Served for a moment, and was taken back.
        change(&t, "s", "3").await;
        t.wait("/api/v1/servers/s", |_, body| body["rollout"]["reason"] == "observing").await;
        agent.behave("s@3", Behaviour::MissedProbe);
        t.wait("/api/v1/servers/s", |_, body| body["rollout"]["state"] == "rolled_back").await;
        // Made while the server is stopped: nobody tried it.
        t.post("/api/v1/servers/s/stop", json!({})).await.expect(202);
        change(&t, "s", "4").await;
        let served = async || {
            let revisions = t.get("/api/v1/servers/s/revisions").await.expect(200).body;
            let items = revisions["items"].as_array().unwrap().iter();
            items.map(|it| (it["number"].as_u64().unwrap(), it["served"].clone())).collect::<Vec<_>>()
        };
        let (yes, no) = (json!(true), json!(false));
        assert_eq!(served().await, [(4, no.clone()), (3, yes.clone()), (2, no), (1, yes)]);
    }

    async fn how_a_toolboxs_instances_fare_is_told_with_the_toolbox_and_for_all(engine) {
        let t = TestControl::start(engine).await;
        let agent = FakeAgent::local(&t.control).await;
        t.deploy("good").await;
        t.deploy("bad").await;
        agent.behave("bad", Behaviour::Degrades(Reason::ProbeFailed, "it stopped answering"));
        t.wait("/api/v1/servers/bad", |_, body| body["phase"] == "degraded").await;
        agent.answered("good", started_at());
        let answered = |_, body: &Value| body["health"]["last_success_at"].is_string();
        let health = t.wait("/api/v1/toolboxes/local", answered).await["health"].clone();
        assert_eq!(health["phases"], json!([{ "phase": "degraded", "count": 1 }, { "phase": "ready", "count": 1 }]));
        let error = &health["recent_errors"][0];
        assert_eq!((error["server"].as_str(), error["reason"].as_str()), (Some("bad"), Some("probe_failed")));
        assert_eq!((error["toolbox"].as_str(), error["message"].as_str()), (Some("local"), Some("it stopped answering")));
        assert_eq!(health["last_success_at"], started_at().to_string());
        assert_eq!(t.get("/api/v1/overview").await.expect(200).body["instances"], health);
    }
}

/// A control plane that lets agents be silent for a day, for tests in which hours pass.
async fn patient(engine: Engine) -> TestControl {
    let database = TestDatabase::create(engine).await;
    let clock = Clock::stopped_at(started_at());
    TestControl::with(database, clock, |options| options.toolbox_silence = Duration::from_secs(86_400)).await
}

fn ready(server: &Value) -> Vec<&Value> {
    server["instances"].as_array().unwrap().iter().filter(|instance| instance["phase"] == "ready").collect()
}

fn count(agent: &FakeAgent, deed: &str) -> usize {
    agent.deeds().iter().filter(|done| *done == deed).count()
}

fn routes(target: Option<&Target>) -> usize {
    match target {
        Some(Target::Instances(instances)) => instances.len(),
        _ => 0,
    }
}

/// A remote MCP server of the legacy era.
pub(crate) struct Remote {
    pub(crate) url: String,
    pub(crate) up: Arc<AtomicBool>,
    /// Sessions that were opened, and those that were ended.
    opened: Arc<AtomicUsize>,
    closed: Arc<AtomicUsize>,
}

impl Remote {
    pub(crate) async fn start() -> Self {
        let up = Arc::new(AtomicBool::new(true));
        let (opened, closed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (seen, begun, ended) = (Arc::clone(&up), Arc::clone(&opened), Arc::clone(&closed));
        let messages =
            post(async move |headers: HeaderMap, Json(message): Json<Value>| answer(&seen, &begun, &headers, &message));
        let end = move || {
            ended.fetch_add(1, Ordering::SeqCst);
            std::future::ready(StatusCode::OK)
        };
        let router = axum::Router::new().route("/mcp", messages.delete(end));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, up, opened, closed }
    }
}

fn answer(up: &AtomicBool, opened: &AtomicUsize, headers: &HeaderMap, message: &Value) -> Response {
    if !up.load(Ordering::SeqCst) {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    let result = match message["method"].as_str() {
        Some("initialize") => json!({
            "protocolVersion": "2025-11-25",
            "capabilities": { "tools": {} },
            "serverInfo": { "name": "remote", "version": "1" },
        }),
        Some("tools/list") => {
            let names: &[&str] =
                if headers.get("authorization").is_some_and(|it| it == "Bearer fewer") { &["a"] } else { &["a", "b"] };
            let tools: Vec<_> =
                names.iter().map(|name| json!({ "name": name, "inputSchema": { "type": "object" } })).collect();
            json!({ "tools": tools })
        }
        Some(method) if method.starts_with("notifications/") => return StatusCode::ACCEPTED.into_response(),
        _ => {
            let error = json!({ "code": -32601, "message": "no such method" });
            return Json(json!({ "jsonrpc": "2.0", "id": message["id"], "error": error })).into_response();
        }
    };
    let mut response = Json(json!({ "jsonrpc": "2.0", "id": message["id"], "result": result })).into_response();
    if message["method"] == "initialize" {
        let number = opened.fetch_add(1, Ordering::SeqCst);
        response.headers_mut().insert("mcp-session-id", format!("s-{number}").parse().unwrap());
    }
    response
}
