//! Overview, calls, metrics and the audit log: what is shown, and what a narrowed key does not see of it.

use axum::body::Body;
use http::{Method, Request};
use serde_json::{Value, json};
use toolyard_store::NewAudit;
use toolyard_types::api::activity::ConsoleReport;
use toolyard_types::snapshot::{CallOutcome, CallRecord};
use toolyard_types::state::Reason;
use toolyard_types::{OrganizationId, ReportId, Timestamp};

use crate::agent::{Behaviour, FakeAgent};
use crate::harness::{OWNER_KEY, TestControl, both_engines};
use crate::upkeep::Events;

async fn organization(test: &TestControl) -> OrganizationId {
    let database = test.database().open(test.clock.clone()).await;
    let organization = database.system_read("test").await.unwrap().organizations().await.unwrap()[0].id;
    database.close().await;
    organization
}

/// Records a call of a server and waits until it is listed.
async fn record(test: &TestControl, server: &Value, outcome: CallOutcome, ago_ms: i64, duration_us: u64) {
    let before = test.get("/api/v1/calls?limit=500").await.expect(200).body["items"].as_array().unwrap().len();
    let record = CallRecord {
        at: Timestamp::from_ms(test.clock.now().as_ms() - ago_ms),
        organization: organization(test).await,
        actor: "api_key:1".into(),
        server: Some(server["id"].as_str().unwrap().parse().unwrap()),
        toolset: None,
        method: "tools/call".into(),
        target: "echo".into(),
        outcome,
        duration_us,
        request_bytes: 1,
        response_bytes: 2,
        request_id: "r".into(),
        revision: None,
    };
    test.control.call_records().try_send(record).unwrap();
    test.wait("/api/v1/calls?limit=500", |_, body| body["items"].as_array().unwrap().len() > before).await;
}

async fn narrowed_key(test: &TestControl, resource: &str) -> String {
    let body = json!({ "name": format!("only-{resource}"), "role": "operator", "scope": { "resources": [resource] } });
    test.post("/api/v1/keys", body).await.expect(201).body["key"].as_str().unwrap().to_owned()
}

async fn items(test: &TestControl, key: &str, path: &str) -> Vec<Value> {
    test.ask_as(key, Method::GET, path, None).await.expect(200).body["items"].as_array().unwrap().clone()
}

both_engines! {
    async fn the_overview_of_a_new_toolyard_says_what_is_missing(engine) {
        let test = TestControl::start(engine).await;
        let seen = test.get("/api/v1/overview").await.expect(200).body;
        let none = json!({ "has_servers": false, "has_toolsets": false, "has_keys": false, "has_calls": false });
        assert_eq!(seen["next_step"], none);
        assert_eq!((&seen["servers"]["total"], &seen["servers"]["trouble"]), (&json!(0), &json!([])));
        assert_eq!(seen["calls"]["minutes"].as_array().unwrap().len(), 60);
        assert_eq!(seen["calls"]["total"], 0);
        let made = test.post("/api/v1/keys", json!({ "name": "v", "role": "viewer" })).await.expect(201);
        let seen = test.ask_as(made.body["key"].as_str().unwrap(), Method::GET, "/api/v1/overview", None).await.expect(200).body;
        assert_eq!((&seen["activity"], &seen["credentials"]), (&Value::Null, &Value::Null));
        assert_eq!((&seen["next_step"]["has_keys"], &seen["toolsets"]), (&json!(true), &json!(0)));
    }

    async fn the_overview_counts_for_a_narrowed_key_the_credentials_that_it_is_shown(engine) {
        let test = TestControl::start(engine).await;
        for name in ["one", "two", "three"] {
            test.put(&format!("/api/v1/credentials/{name}"), json!({ "secret": "secret" })).await.expect(200);
        }
        assert_eq!(test.get("/api/v1/overview").await.expect(200).body["credentials"], 3);
        for (name, scope, count) in [
            ("none", json!({ "resources": ["s"] }), 0),
            ("some", json!({ "resources": ["s"], "credentials": ["two"] }), 1),
        ] {
            let body = json!({ "name": name, "role": "owner", "scope": scope });
            let made = test.post("/api/v1/keys", body).await.expect(201);
            let key = made.body["key"].as_str().unwrap();
            let seen = test.ask_as(key, Method::GET, "/api/v1/overview", None).await.expect(200).body;
            assert_eq!(items(&test, key, "/api/v1/credentials").await.len(), count, "{name}");
            assert_eq!(seen["credentials"], count, "{name}: {seen}");
        }
    }

    async fn the_overview_tells_what_runs_and_what_is_broken_and_why(engine) {
        let test = TestControl::start(engine).await;
        let agent = FakeAgent::local(&test.control).await;
        let good = test.deploy("good").await;
        agent.behave("bad", Behaviour::Fails(Reason::CrashLoop, "it ended 5 times", "boom"));
        test.post("/api/v1/servers", json!({ "name": "bad", "entry": crate::servers::EVERYTHING })).await.expect(201);
        test.wait_rollout("bad", "failed").await;
        test.post("/api/v1/servers/good/stop", json!({})).await;
        test.wait("/api/v1/servers/good", |_, body| body["phase"] == "stopped").await;
        record(&test, &good, CallOutcome::Ok, 0, 10).await;
        record(&test, &good, CallOutcome::Timeout, 30_000, 10).await;
        let seen = test.wait("/api/v1/overview", |_, body| body["servers"]["in_trouble"] == 1).await;
        let servers = &seen["servers"];
        assert_eq!((&servers["total"], &servers["enabled"]), (&json!(2), &json!(1)));
        let trouble = &servers["trouble"][0];
        assert_eq!((&trouble["name"], &trouble["phase"], &trouble["reason"]), (&json!("bad"), &json!("failed"), &json!("crash_loop")));
        assert!(trouble["since"].is_string());
        let failed = servers["phases"].as_array().unwrap().iter().find(|it| it["phase"] == "failed").unwrap();
        assert_eq!(failed["count"], 1);
        let calls = &seen["calls"];
        assert_eq!((&calls["total"], &calls["minutes"][59]["count"], &calls["minutes"][58]["errors"]), (&json!(2), &json!(1), &json!(1)));
        assert_eq!(calls["outcomes"].as_array().unwrap().len(), 2);
        assert_eq!(seen["activity"][0]["action"], "server.stop");
        let online = seen["toolboxes"].as_array().unwrap().iter().find(|it| it["state"] == "online").unwrap();
        assert_eq!(online["count"], 1);

        let narrowed = narrowed_key(&test, "good").await;
        let seen = test.ask_as(&narrowed, Method::GET, "/api/v1/overview", None).await.expect(200).body;
        assert_eq!((&seen["servers"]["total"], &seen["servers"]["in_trouble"]), (&json!(1), &json!(0)));
        assert!(seen["activity"].as_array().unwrap().iter().all(|line| line["target"] == "server/good"));
    }

    async fn what_ended_by_itself_is_told_for_a_day_whatever_is_started_again_meanwhile(engine) {
        let test = TestControl::start(engine).await;
        let agent = FakeAgent::local(&test.control).await;
        test.deploy("s").await;
        agent.behave("s", Behaviour::Restarted);
        let crashed = |_, body: &Value| body["instances"]["recent_errors"][0]["reason"] == "exited";
        let before = test.wait("/api/v1/overview", crashed).await["instances"]["recent_errors"].clone();
        assert_eq!(before[0]["message"], "it ended by itself with exit code 3, and was started again");

        // Toolyard is started again, and an agent that knows nothing of it any more.
        let (clock, toolbox) = (test.clock.clone(), test.control.local_toolbox().await.unwrap().unwrap());
        let test = TestControl::on(test.stop().await, clock).await;
        let agent = agent.continue_with(&test.control, toolbox);
        agent.behave("s", Behaviour::MissedProbe);
        let server = test.wait("/api/v1/servers/s", |_, body| body["instances"][0]["failures"] == 1).await;
        let instance = &server["instances"][0];
        assert_eq!((&instance["restarts"], &instance["exit"]["code"]), (&json!(1), &json!(3)), "{instance}");
        let seen = test.get("/api/v1/overview").await.expect(200).body;
        assert_eq!((&seen["instances"]["recent_errors"], &seen["instances"]["restarts"]), (&before, &json!(1)));

        // And another instance takes over.
        agent.behave("s", Behaviour::Ready);
        test.post("/api/v1/servers/s/restart", json!({})).await.expect(202);
        test.wait_rollout("s", "done").await;
        test.drained();
        let replaced = |_, body: &Value| {
            let instances = body["instances"].as_array().unwrap();
            instances.len() == 1 && instances[0]["id"] != instance["id"]
        };
        test.wait("/api/v1/servers/s", replaced).await;
        let seen = test.get("/api/v1/overview").await.expect(200).body;
        assert_eq!((&seen["instances"]["recent_errors"], &seen["instances"]["restarts"]), (&before, &json!(0)));
    }

    async fn what_ends_after_its_agent_was_started_again_is_counted_on_also_when_toolyard_was(engine) {
        let test = TestControl::start(engine).await;
        let agent = FakeAgent::local(&test.control).await;
        test.deploy("s").await;
        let restarts = |number: u32| move |_: u16, body: &Value| body["instances"][0]["restarts"] == number;
        // An agent that was started again counts from nothing.
        let forgot = |_: u16, body: &Value| body["instances"][0]["failures"] == 1;
        agent.behave("s", Behaviour::Restarted);
        test.wait("/api/v1/servers/s", restarts(1)).await;
        agent.behave("s", Behaviour::MissedProbe);
        let server = test.wait("/api/v1/servers/s", forgot).await;
        assert_eq!(server["instances"][0]["restarts"], 1);
        agent.behave("s", Behaviour::Restarted);
        test.wait("/api/v1/servers/s", restarts(2)).await;

        let (clock, toolbox) = (test.clock.clone(), test.control.local_toolbox().await.unwrap().unwrap());
        let test = TestControl::on(test.stop().await, clock).await;
        let agent = agent.continue_with(&test.control, toolbox);
        agent.behave("s", Behaviour::MissedProbe);
        let server = test.wait("/api/v1/servers/s", forgot).await;
        assert_eq!(server["instances"][0]["restarts"], 2);
        agent.behave("s", Behaviour::Restarted);
        test.wait("/api/v1/servers/s", restarts(3)).await;
    }

    async fn the_overview_tells_what_was_done_also_behind_many_keys_for_pages(engine) {
        let test = TestControl::start(engine).await;
        test.put("/api/v1/credentials/a", json!({ "secret": "x" })).await.expect(200);
        // As versions before this one wrote it with each page of the console that speaks MCP.
        let organization = organization(&test).await;
        let database = test.database().open(test.clock.clone()).await;
        let mut tx = database.org(organization).await.unwrap();
        for _ in 0..30 {
            let line = NewAudit {
                actor: "user:1".into(),
                actor_display: "a@example.test".into(),
                action: "session.mcp_key".into(),
                target: "session/1".into(),
                done: true,
                detail: json!({}),
                request_id: None,
            };
            tx.audit(&line).await.unwrap();
        }
        tx.commit().await.unwrap();
        database.close().await;
        let seen = test.get("/api/v1/overview").await.expect(200).body;
        assert_eq!(seen["activity"][0]["action"], "credential.create");
        assert!(seen["activity"].as_array().unwrap().iter().all(|line| line["action"] != "session.mcp_key"));
        // The audit log itself leaves nothing out.
        assert_eq!(items(&test, OWNER_KEY, "/api/v1/audit?action=session.mcp_key").await.len(), 30);
    }

    async fn a_narrowed_key_sees_calls_events_and_audit_lines_of_its_own_servers_only(engine) {
        let test = TestControl::start(engine).await;
        let _agent = FakeAgent::local(&test.control).await;
        let (a, b) = (test.deploy("a").await, test.deploy("b").await);
        record(&test, &a, CallOutcome::Ok, 0, 10).await;
        record(&test, &b, CallOutcome::Timeout, 0, 10).await;
        let narrowed = narrowed_key(&test, "a").await;

        assert_eq!(items(&test, OWNER_KEY, "/api/v1/calls").await.len(), 2);
        let seen = items(&test, &narrowed, "/api/v1/calls").await;
        assert_eq!((seen.len(), &seen[0]["server_name"]), (1, &json!("a")));
        assert_eq!(items(&test, OWNER_KEY, "/api/v1/calls?server=b").await[0]["outcome"], "timeout");
        assert_eq!(items(&test, OWNER_KEY, "/api/v1/calls?outcome=ok").await[0]["server_name"], "a");
        let key = toolyard_types::ApiKeyId::generate();
        assert!(items(&test, OWNER_KEY, &format!("/api/v1/calls?key={key}")).await.is_empty());
        assert_eq!(items(&test, OWNER_KEY, "/api/v1/calls?request_id=r").await.len(), 2);
        assert!(items(&test, OWNER_KEY, "/api/v1/calls?request_id=another").await.is_empty());
        test.get("/api/v1/calls?requestid=r").await.expect(422);
        test.get("/api/v1/calls?server=nothing").await.expect(422);
        test.ask_as(&narrowed, Method::GET, "/api/v1/calls?server=b", None).await.expect(422);
        test.ask_as(&narrowed, Method::GET, "/api/v1/servers/b/metrics", None).await.expect(403);
        test.ask_as(&narrowed, Method::GET, "/api/v1/servers/a/metrics", None).await.expect(200);

        let seen = items(&test, &narrowed, "/api/v1/audit").await;
        assert!(!seen.is_empty() && seen.iter().all(|line| line["target"] == "server/a"));

        let mut events = Events::open(&test, &narrowed, Some(0)).await;
        let mut all = Events::open(&test, OWNER_KEY, Some(0)).await;
        test.put("/api/v1/credentials/c", json!({ "secret": "x" })).await.expect(200);
        test.post("/api/v1/servers/b/stop", json!({})).await;
        test.post("/api/v1/servers/a/stop", json!({})).await;
        let marked = all.next_of("credential.changed").await["sequence"].as_i64().unwrap();
        loop {
            let event = events.next().await.expect("the stream goes on");
            assert_eq!(event["subject"], "server/a");
            if event["sequence"].as_i64().unwrap() > marked {
                break;
            }
        }
    }

    async fn a_servers_metrics_are_its_calls_and_what_its_instances_use(engine) {
        let test = TestControl::start(engine).await;
        let agent = FakeAgent::local(&test.control).await;
        let server = test.deploy("s").await;
        record(&test, &server, CallOutcome::Ok, 0, 3_000).await;
        record(&test, &server, CallOutcome::ServerError, 0, 9_000).await;
        let sampled = async |number: usize| {
            let path = "/api/v1/servers/s/metrics?window=15m";
            test.wait(path, |_, body| body["resources"][0]["samples"].as_array().is_some_and(|it| it.len() == number)).await
        };
        let start = test.clock.now();
        agent.uses(100, 1_000, start);
        sampled(1).await;
        // Too soon for another sample, then late enough.
        agent.uses(150, 1_500, start.plus(std::time::Duration::from_secs(5)));
        test.wait("/api/v1/servers/s", |_, body| body["instances"][0]["usage"]["memory_bytes"] == 150).await;
        agent.uses(200, 11_000, start.plus(std::time::Duration::from_secs(20)));
        let seen = sampled(2).await;
        let bucket = &seen["calls"][0];
        assert_eq!((&bucket["count"], &bucket["errors"]), (&json!(2), &json!(1)));
        assert_eq!((&bucket["p50_us"], &bucket["p99_us"]), (&json!(3_000), &json!(9_000)));
        assert_eq!((&seen["bucket_seconds"], &seen["since"]), (&json!(15), &json!("2026-11-22T11:45:15.000Z")));
        let samples = &seen["resources"][0]["samples"];
        assert_eq!((&samples[0]["cpu"], &samples[1]["cpu"], &samples[1]["memory_bytes"]), (&Value::Null, &json!(0.5), &json!(200)));
        test.get("/api/v1/servers/s/metrics?window=1y").await.expect(422);
        test.get("/api/v1/servers/none/metrics").await.expect(404);
    }

    async fn the_audit_log_is_filtered(engine) {
        let test = TestControl::start(engine).await;
        test.put("/api/v1/credentials/a", json!({ "secret": "x" })).await.expect(200);
        test.clock.step_ms(60_000);
        test.put("/api/v1/credentials/b", json!({ "secret": "x" })).await.expect(200);
        test.delete("/api/v1/credentials/b").await.expect(204);
        let viewer = test.post("/api/v1/keys", json!({ "name": "v", "role": "viewer" })).await.expect(201);
        test.ask_as(viewer.body["key"].as_str().unwrap(), Method::DELETE, "/api/v1/credentials/a", None).await.expect(403);
        let actions = async |query: &str| {
            let lines = items(&test, OWNER_KEY, &format!("/api/v1/audit?{query}")).await;
            lines.iter().map(|line| line["action"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(actions("target=credential/b").await, ["credential.delete", "credential.create"]);
        assert_eq!(actions("action=credential.delete").await, ["credential.delete"]);
        assert_eq!(actions("action=credential").await.len(), 3);
        assert_eq!(actions("actor=v&outcome=refused").await, ["credential:manage"]);
        assert_eq!(actions("action=credential&until=2026-11-22T12:01:00Z").await, ["credential.create"]);
        assert_eq!(actions("action=credential&since=2026-11-22T12:01:00Z&outcome=done").await.len(), 2);
        test.get("/api/v1/audit?outcome=perhaps").await.expect(422);
    }

    async fn browsers_report_bounded_and_only_while_the_feature_is_on(engine) {
        let test = TestControl::start(engine).await;
        let send = async |body: String| {
            let request = Request::post("/api/v1/console/reports").header("content-type", "application/json");
            test.send(request.header("user-agent", "browser/1").body(Body::from(body)).unwrap()).await
        };
        let report = |kind: &str, name: &str, route: &str| json!({
            "kind": kind, "name": name, "value": 12.5, "route": route, "message": "m".repeat(900), "build": "b1",
            "at": "2026-11-22T11:59:59Z"
        });
        let batch = |reports: Vec<Value>| json!({ "reports": reports }).to_string();
        let good = batch(vec![report("web_vital", "LCP", "/servers/$name"), report("error", "TypeError", "/sign-in")]);
        assert_eq!(send(good.clone()).await.expect(202).body["stored"], 2);
        let listed = items(&test, OWNER_KEY, "/api/v1/console/reports").await;
        assert_eq!((listed.len(), listed[0]["message"].as_str().unwrap().len()), (2, 500));
        let vitals = items(&test, OWNER_KEY, "/api/v1/console/reports?kind=web_vital").await;
        assert_eq!((vitals.len(), &vitals[0]["value"], &vitals[0]["user_agent"]), (1, &json!(12.5), &json!("browser/1")));

        send(batch(vec![report("web_vital", "XYZ", "/")])).await.expect(422);
        send(batch(vec![report("error", "E", "/servers?token=1")])).await.expect(422);
        send(batch(vec![report("error", "E", "/"); 51])).await.expect(413);
        send("x".repeat(17 * 1024)).await.expect(413);
        let viewer = test.post("/api/v1/keys", json!({ "name": "v", "role": "viewer" })).await.expect(201);
        let viewer = viewer.body["key"].as_str().unwrap();
        test.ask_as(viewer, Method::GET, "/api/v1/console/reports", None).await.expect(403);

        test.put("/api/v1/flags/console_telemetry", json!({ "everyone": false })).await.expect(200);
        assert_eq!(send(good.clone()).await.expect(202).body["stored"], 0);
        let mut limited = false;
        for _ in 0..130 {
            limited |= send(good.clone()).await.status == 429;
        }
        assert!(limited, "strangers are limited");
    }

    async fn reports_of_strangers_push_nobody_elses_out(engine) {
        let test = TestControl::start(engine).await;
        let report = json!({ "kind": "error", "name": "TypeError", "route": "/", "message": "m", "build": "b1", "at": "2026-11-22T11:59:59Z" });
        test.post("/api/v1/console/reports", json!({ "reports": [report.clone()] })).await.expect(202);
        let store = test.database().open(test.clock.clone()).await;
        let organization = store.system_read("test").await.unwrap().organizations().await.unwrap()[0].id;
        let own = store.org_read(organization).await.unwrap().console_reports(None, None, 10).await.unwrap();
        let strangers: Vec<_> = (0..12).map(|_| ConsoleReport { id: ReportId::generate(), ..own[0].clone() }).collect();
        let tx = store.org(organization).await.unwrap();
        tx.insert_console_reports(&strangers, true, 8).await.unwrap();
        tx.commit().await.unwrap();
        let kept = store.org_read(organization).await.unwrap().console_reports(None, None, 100).await.unwrap();
        assert_eq!(kept.len(), 3, "its own and a quarter of eight");
        assert!(kept.iter().any(|kept| kept.id == own[0].id));
        store.close().await;
    }

    async fn how_to_connect_is_told_for_servers_and_toolsets_one_may_see(engine) {
        let test = TestControl::start(engine).await;
        test.post("/api/v1/servers", json!({ "name": "s", "entry": crate::servers::EVERYTHING })).await.expect(201);
        test.post("/api/v1/toolsets", json!({ "name": "t", "members": [{ "server": "s" }] })).await.expect(201);
        let seen = test.get("/api/v1/connect/t?base=https://toolyard.example/").await.expect(200).body;
        assert_eq!((&seen["kind"], &seen["url"]), (&json!("toolset"), &json!("https://toolyard.example/mcp/default/toolsets/t")));
        let ids: Vec<_> = seen["clients"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap()).collect();
        assert_eq!(ids, ["claude-desktop", "claude-code", "cursor", "vs-code", "windsurf", "zed", "codex", "gemini-cli", "json", "curl"]);
        let seen = test.get("/api/v1/connect/s").await.expect(200).body;
        assert!(seen["url"].as_str().unwrap().ends_with("/mcp/default/servers/s"));
        test.get("/api/v1/connect/none").await.expect(404);
        test.get("/api/v1/connect/s?base=javascript:alert(1)").await.expect(422);
        let narrowed = narrowed_key(&test, "t").await;
        test.ask_as(&narrowed, Method::GET, "/api/v1/connect/s", None).await.expect(404);
    }
}
