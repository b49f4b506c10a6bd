//! Where a server runs, and how people find servers by it.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use toolyard_types::snapshot::Target;

use crate::agent::{Behaviour, FakeAgent};
use crate::catalog::document;
use crate::harness::{TestControl, both_engines};
use crate::servers::EVERYTHING;
use toolyard_types::state::Reason;

fn places(server: &Value) -> Vec<&str> {
    server["instances"].as_array().unwrap().iter().filter_map(|it| it["toolbox"].as_str()).collect()
}

/// The same once each: what had served gets an instance there too when it had none left, until the move is done.
fn all_places(server: &Value) -> BTreeSet<&str> {
    places(server).into_iter().collect()
}

async fn names(t: &TestControl, query: &str) -> Vec<String> {
    let (mut names, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = t.get(&format!("/api/v1/servers?limit=2&{query}{cursor}")).await.expect(200).body;
        names.extend(page["items"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap().to_owned()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return names,
        }
    }
}

/// Removes a toolbox also when servers must run there.
async fn remove(t: &TestControl, name: &str) {
    t.post(&format!("/api/v1/toolboxes/{name}/drain"), json!({})).await.expect(200);
    t.delete(&format!("/api/v1/toolboxes/{name}")).await.expect(204);
}

/// From now on a toolbox tells that these paths of its host may be granted, and no others but to what runs there now.
pub(crate) async fn grants(t: &TestControl, toolbox: &str, agent: &FakeAgent, paths: &[&str]) {
    agent.grants(paths);
    let told = |body: &Value| body["report"]["grantable_paths"] == json!(paths);
    t.wait(&format!("/api/v1/toolboxes/{toolbox}"), |_, body| told(body)).await;
}

/// A server that wants to see a path of its host.
pub(crate) fn with_path(name: &str, path: &str) -> Value {
    json!({ "name": name, "entry": EVERYTHING, "paths": [{ "path": path }] })
}

/// What helps against a path that is not granted.
const LIST_IT: &str = "who runs an agent lists what it may grant in its `grantable_paths`";

both_engines! {
    async fn a_server_moves_to_another_toolbox_and_serves_all_the_while(engine) {
        let t = TestControl::start(engine).await;
        let _edge = t.join("edge").await;
        t.deploy("s").await;
        let local = FakeAgent::local(&t.control).await;
        t.wait("/api/v1/toolboxes/local", |_, body| body["state"] == "online").await;
        local.behave("s", Behaviour::Hangs);
        let moving = t.patch("/api/v1/servers/s", json!({ "toolbox": "local" })).await.expect(202).body;
        assert_eq!((&moving["toolbox"], &moving["revision"]), (&json!("local"), &json!(1)));
        let both = t.wait("/api/v1/servers/s", |_, body| places(body).len() == 2).await;
        assert_eq!((both["phase"].as_str(), places(&both)[0]), (Some("ready"), "edge"), "the old one serves on");
        let old = both["instances"][0]["id"].as_str().unwrap().to_owned();
        t.wait_route("s", |target| matches!(target, Some(Target::Instances(all)) if all[0].id.to_string() == old)).await;
        local.behave("s", Behaviour::Ready);
        t.wait_route("s", |target| matches!(target, Some(Target::Instances(all)) if all[0].id.to_string() != old)).await;
        t.drained();
        let moved = t.wait("/api/v1/servers/s", |_, body| places(body) == ["local"]).await;
        assert_eq!((&moved["revision"], &moved["phase"]), (&json!(1), &json!("ready")));

        let same = t.patch("/api/v1/servers/s", json!({ "any_toolbox": true })).await.expect(202).body;
        assert_eq!((&same["toolbox"], &same["rollout"]["id"]), (&Value::Null, &moved["rollout"]["id"]), "it may stay");
        t.patch("/api/v1/toolboxes/edge", json!({ "labels": { "zone": "a" } })).await.expect(200);
        t.patch("/api/v1/servers/s", json!({ "toolbox_labels": { "zone": "a" } })).await.expect(202);
        t.wait_rollout("s", "done").await;
        t.drained();
        let back = t.wait("/api/v1/servers/s", |_, body| places(body) == ["edge"]).await;
        assert_eq!(back["toolbox_labels"], json!({ "zone": "a" }));
    }

    async fn a_server_with_paths_of_a_host_stays_there_when_other_settings_change(engine) {
        let t = TestControl::start(engine).await;
        let _edge = t.join("edge").await;
        let body = json!({ "name": "s", "entry": EVERYTHING, "paths": [{ "path": "/srv/data" }] });
        t.post("/api/v1/servers", body).await.expect(201);
        t.wait_rollout("s", "done").await;
        let _local = FakeAgent::local(&t.control).await;
        t.wait("/api/v1/toolboxes/local", |_, body| body["state"] == "online").await;
        // The other toolbox has nothing to do, and is chosen for what has no paths.
        t.deploy("other").await;
        t.wait("/api/v1/servers/other", |_, body| places(body) == ["local"]).await;
        for number in 2..4 {
            t.patch("/api/v1/servers/s", json!({ "environment": { "A": number.to_string() } })).await.expect(202);
            t.wait_rollout("s", "done").await;
            t.drained();
            let stayed = t.wait("/api/v1/servers/s", |_, body| places(body).len() == 1).await;
            assert_eq!((places(&stayed)[0], &stayed["revision"]), ("edge", &json!(number)), "{stayed}");
        }
        t.patch("/api/v1/servers/s", json!({ "toolbox": "local" })).await.expect(202);
        t.wait_rollout("s", "done").await;
        t.drained();
        t.wait("/api/v1/servers/s", |_, body| places(body) == ["local"]).await;
    }

    async fn a_server_that_does_not_get_ready_elsewhere_stays_where_it_was(engine) {
        let t = TestControl::start(engine).await;
        let _edge = t.join("edge").await;
        t.deploy("s").await;
        let local = FakeAgent::local(&t.control).await;
        t.wait("/api/v1/toolboxes/local", |_, body| body["state"] == "online").await;
        local.behave("s", Behaviour::Fails(Reason::InstallFailed, "no compiler", ""));
        t.patch("/api/v1/servers/s", json!({ "toolbox": "local" })).await.expect(202);
        let back = t.wait_rollout("s", "rolled_back").await;
        assert_eq!((&back["toolbox"], &back["phase"]), (&Value::Null, &json!("ready")), "{back}");
        t.wait("/api/v1/servers/s", |_, body| places(body) == ["edge"]).await;
    }

    async fn a_server_whose_toolbox_was_removed_says_so_needs_a_look_and_can_be_moved(engine) {
        let t = TestControl::start(engine).await;
        let _edge = t.join("edge").await;
        for name in ["tied", "still"] {
            let body = json!({ "name": name, "entry": EVERYTHING, "toolbox": "edge" });
            t.post("/api/v1/servers", body).await.expect(201);
            t.wait_rollout(name, "done").await;
        }
        t.post("/api/v1/servers/still/stop", json!({})).await.expect(202);
        t.wait("/api/v1/servers/still", |_, body| body["phase"] == "stopped").await;
        let _local = FakeAgent::local(&t.control).await;
        t.wait("/api/v1/toolboxes/local", |_, body| body["state"] == "online").await;
        remove(&t, "edge").await;
        let left = t.get("/api/v1/servers/tied").await.expect(200).body;
        assert_eq!((&left["phase"], &left["reason"]), (&json!("failed"), &json!("toolbox_removed")), "{left}");
        assert_eq!(left["message"], "toolbox `edge`, where it must run, was removed; move it to another");
        let now = json!(t.clock.now());
        assert_eq!((&left["toolbox"], &left["toolbox_removed_at"], &left["since"]), (&json!("edge"), &now, &now));
        let listed = t.get("/api/v1/servers?brief=true").await.expect(200).body;
        assert!(listed["items"].as_array().unwrap().iter().all(|it| it["toolbox_removed_at"] == now), "{listed}");
        let seen = t.wait("/api/v1/overview", |_, body| body["servers"]["in_trouble"] == 1).await;
        let trouble = &seen["servers"]["trouble"][0];
        assert_eq!((&trouble["name"], &trouble["reason"]), (&json!("tied"), &json!("toolbox_removed")));
        assert_eq!(t.get("/api/v1/servers/still").await.body["phase"], "stopped");

        t.post("/api/v1/servers/tied/clone", json!({ "name": "copy" })).await.expect(409);
        // Another one of its name is another one.
        let _again = t.join("edge").await;
        assert_eq!(t.get("/api/v1/servers/tied").await.body["reason"], "toolbox_removed");
        assert_eq!(names(&t, "toolbox=edge").await, Vec::<String>::new());

        t.patch("/api/v1/servers/tied", json!({ "toolbox": "edge" })).await.expect(202);
        let moved = t.wait_rollout("tied", "done").await;
        assert_eq!((all_places(&moved), &moved["phase"]), (BTreeSet::from(["edge"]), &json!("ready")), "{moved}");
        assert_eq!((&moved["toolbox"], &moved["toolbox_removed_at"]), (&json!("edge"), &Value::Null));
        t.wait("/api/v1/overview", |_, body| body["servers"]["in_trouble"] == 0).await;
        let anywhere = t.patch("/api/v1/servers/still", json!({ "any_toolbox": true })).await.expect(202).body;
        assert_eq!((&anywhere["toolbox"], &anywhere["toolbox_removed_at"]), (&Value::Null, &Value::Null));
        t.post("/api/v1/servers/still/start", json!({})).await.expect(202);
        t.wait_rollout("still", "done").await;
    }

    async fn calls_are_not_held_for_a_server_that_no_toolbox_can_take(engine) {
        let t = TestControl::start(engine).await;
        t.post("/api/v1/servers", json!({ "name": "s", "entry": EVERYTHING })).await.expect(201);
        t.wait_route_with("s", |route| route.target == Target::None && !route.is_coming).await;
        let _edge = t.join("edge").await;
        t.wait_rollout("s", "done").await;
        // Nothing is left of what served, and there is no place for another.
        t.delete("/api/v1/toolboxes/edge").await.expect(204);
        t.wait_route_with("s", |route| route.target == Target::None && !route.is_coming).await;
        let _local = FakeAgent::local(&t.control).await;
        t.wait("/api/v1/servers/s", |_, body| body["phase"] == "ready").await;
        t.wait_route("s", |target| matches!(target, Some(Target::Instances(_)))).await;
    }

    async fn what_could_only_wait_for_a_removed_toolbox_is_refused_and_says_what_helps(engine) {
        let t = TestControl::start(engine).await;
        let _edge = t.join("edge").await;
        for name in ["tied", "still"] {
            let body = json!({ "name": name, "entry": EVERYTHING, "toolbox": "edge" });
            t.post("/api/v1/servers", body).await.expect(201);
            t.wait_rollout(name, "done").await;
        }
        t.patch("/api/v1/servers/tied", json!({ "environment": { "A": "1" } })).await.expect(202);
        t.wait_revision("tied", 2).await;
        t.post("/api/v1/servers/still/stop", json!({})).await.expect(202);
        t.wait("/api/v1/servers/still", |_, body| body["phase"] == "stopped").await;
        remove(&t, "edge").await;
        let rollout = t.get("/api/v1/servers/tied").await.body["rollout"]["id"].clone();
        for (name, action) in [
            ("tied", "start"),
            ("still", "start"),
            ("tied", "restart"),
            ("still", "restart"),
            ("tied", "rollback"),
            ("tied", "rollout/promote"),
        ] {
            let refused = t.post(&format!("/api/v1/servers/{name}/{action}"), json!({})).await.expect(409);
            let detail = format!(
                "server `{name}` runs nowhere: toolbox `edge`, where it must run, was removed; move it to another, with \
                 `toolyard servers update {name} --toolbox TOOLBOX`, or delete it"
            );
            assert_eq!((refused.code(), &refused.body["detail"]), ("conflict", &json!(detail)), "{action}");
        }
        let change = json!({ "environment": { "A": "2" } });
        t.patch("/api/v1/servers/tied", change.clone()).await.expect(409);
        assert_eq!(t.get("/api/v1/servers/tied").await.body["rollout"]["id"], rollout);
        // What begins nothing can be done: another setting of what is stopped, and its stop.
        t.patch("/api/v1/servers/still", change).await.expect(202);
        t.patch("/api/v1/servers/tied", json!({ "observe_seconds": 1 })).await.expect(202);
        t.post("/api/v1/servers/tied/stop", json!({})).await.expect(202);
        t.wait("/api/v1/servers/tied", |_, body| body["phase"] == "stopped").await;
        t.delete("/api/v1/servers/tied").await.expect(202);
        t.wait("/api/v1/servers/tied", |status, _| status == 404).await;
    }

    async fn a_server_whose_toolbox_was_removed_is_not_restarted_at_its_time_and_a_change_that_waited_fails(engine) {
        let t = TestControl::start(engine).await;
        let _edge = t.join("edge").await;
        let tied = |name: &str| json!({ "name": name, "entry": EVERYTHING, "toolbox": "edge", "observe_seconds": 0 });
        for name in ["daily", "waits"] {
            t.post("/api/v1/servers", tied(name)).await.expect(201);
            t.wait_rollout(name, "done").await;
        }
        // It is noon.
        t.patch("/api/v1/servers/daily", json!({ "restart_at": "12:01" })).await.expect(202);
        let change = json!({ "environment": { "A": "1" }, "update_window": "12:01-13:00" });
        let waiting = t.patch("/api/v1/servers/waits", change).await.expect(202).body;
        assert_eq!(waiting["rollout"]["reason"], "outside_window", "{waiting}");
        let before = t.get("/api/v1/servers/daily").await.body["rollout"]["id"].clone();
        remove(&t, "edge").await;
        t.clock.step_ms(60_000);
        t.wait_loop("schedule").await;
        assert_eq!(t.get("/api/v1/servers/daily").await.body["rollout"]["id"], before);
        let failed = t.wait_rollout("waits", "rolled_back").await;
        assert_eq!(failed["rollout"]["reason"], "toolbox_removed", "{failed}");
    }

    async fn a_server_that_no_toolbox_can_take_says_why_and_since_when_and_is_in_trouble_after_a_minute(engine) {
        let t = TestControl::start(engine).await;
        let _edge = t.join("edge").await;
        t.patch("/api/v1/toolboxes/edge", json!({ "labels": { "zone": "a" } })).await.expect(200);
        let local = FakeAgent::local(&t.control).await;
        t.wait("/api/v1/toolboxes/local", |_, body| body["state"] == "online").await;
        let body = json!({ "name": "s", "entry": EVERYTHING, "toolbox_labels": { "zone": "a" } });
        t.post("/api/v1/servers", body).await.expect(201);
        t.wait_rollout("s", "done").await;
        t.clock.step_ms(1000);
        let since = json!(t.clock.now());
        remove(&t, "edge").await;
        let left = t.get("/api/v1/servers/s").await.expect(200).body;
        assert_eq!((&left["phase"], &left["reason"]), (&json!("pending"), &json!("awaiting_toolbox")), "{left}");
        let why = "its instance is gone, and no other can begin: no toolbox has the labels `zone=a`";
        assert_eq!((&left["message"], &left["since"]), (&json!(why), &since), "{left}");
        let is_pending = |body: &Value| {
            body["servers"]["phases"].as_array().unwrap().iter().any(|it| it["phase"] == "pending" && it["count"] == 1)
        };
        let seen = t.wait("/api/v1/overview", |_, body| is_pending(body)).await;
        assert_eq!(seen["servers"]["in_trouble"], 0, "another may take it in a moment: {seen}");
        t.clock.step_ms(60_000);
        let seen = t.wait("/api/v1/overview", |_, body| body["servers"]["in_trouble"] == 1).await;
        let trouble = &seen["servers"]["trouble"][0];
        assert_eq!((&trouble["name"], &trouble["message"], &trouble["since"]), (&json!("s"), &json!(why), &since));

        // Its agent is heard after all that time.
        let now = t.clock.now();
        local.uses(1, 1, now);
        let is_heard = |body: &Value| body["state"] == "online" && body["last_seen_at"] == json!(now);
        t.wait("/api/v1/toolboxes/local", |_, body| is_heard(body)).await;
        t.patch("/api/v1/servers/s", json!({ "any_toolbox": true })).await.expect(202);
        t.wait_rollout("s", "done").await;
        t.wait("/api/v1/overview", |_, body| body["servers"]["in_trouble"] == 0).await;
    }

    async fn a_server_whose_path_no_toolbox_grants_any_more_says_so(engine) {
        let t = TestControl::start(engine).await;
        let _edge = t.join("edge").await;
        t.post("/api/v1/servers", with_path("s", "/srv/data")).await.expect(201);
        t.wait_rollout("s", "done").await;
        let local = FakeAgent::local(&t.control).await;
        t.wait("/api/v1/toolboxes/local", |_, body| body["state"] == "online").await;
        grants(&t, "local", &local, &[]).await;
        remove(&t, "edge").await;
        let left = t.get("/api/v1/servers/s").await.expect(200).body;
        assert_eq!((&left["phase"], &left["reason"]), (&json!("pending"), &json!("config_invalid")), "{left}");
        let why = "no toolbox that is online can grant the path `/srv/data`";
        assert_eq!(left["message"], format!("its instance is gone, and no other can begin: {why}; {LIST_IT}"));
    }

    async fn a_log_that_stayed_on_a_removed_toolbox_is_refused_with_its_name_and_not_as_one_to_wait_for(engine) {
        let t = TestControl::start(engine).await;
        let _edge = t.join("edge").await;
        t.deploy("s").await;
        remove(&t, "edge").await;
        for query in ["", "?follow=true", "?revision=1"] {
            let refused = t.get(&format!("/api/v1/servers/s/logs{query}")).await.expect(409);
            assert_eq!(refused.code(), "conflict");
            assert_eq!(refused.body["detail"], "its log stayed on toolbox `edge`, which was removed");
        }
    }

    async fn a_move_from_a_removed_toolbox_that_fails_is_not_taken_back(engine) {
        let t = TestControl::start(engine).await;
        let _edge = t.join("edge").await;
        let body = json!({ "name": "s", "entry": EVERYTHING, "toolbox": "edge", "update_window": "13:00-14:00" });
        t.post("/api/v1/servers", body).await.expect(201);
        t.wait_rollout("s", "done").await;
        let local = FakeAgent::local(&t.control).await;
        t.wait("/api/v1/toolboxes/local", |_, body| body["state"] == "online").await;
        remove(&t, "edge").await;
        local.behave("s", Behaviour::Fails(Reason::InstallFailed, "no compiler", ""));
        // It serves nobody, and waits for no window.
        t.patch("/api/v1/servers/s", json!({ "toolbox": "local" })).await.expect(202);
        let failed = t.wait_rollout("s", "rolled_back").await;
        assert_eq!((&failed["toolbox"], &failed["toolbox_removed_at"]), (&json!("local"), &Value::Null), "{failed}");
        local.behave("s", Behaviour::Ready);
        let ready = t.wait("/api/v1/servers/s", |_, body| body["phase"] == "ready").await;
        assert_eq!(all_places(&ready), BTreeSet::from(["local"]));
    }

    async fn a_move_from_a_removed_toolbox_waits_for_no_window_also_when_something_else_is_changed_with_it(engine) {
        let t = TestControl::start(engine).await;
        let _edge = t.join("edge").await;
        let body = json!({ "name": "s", "entry": EVERYTHING, "toolbox": "edge", "update_window": "13:00-14:00" });
        t.post("/api/v1/servers", body).await.expect(201);
        t.wait_rollout("s", "done").await;
        let _local = FakeAgent::local(&t.control).await;
        t.wait("/api/v1/toolboxes/local", |_, body| body["state"] == "online").await;
        remove(&t, "edge").await;
        let change = json!({ "toolbox": "local", "environment": { "A": "1" } });
        t.patch("/api/v1/servers/s", change).await.expect(202);
        let moved = t.wait_revision("s", 2).await;
        assert_eq!((all_places(&moved), &moved["toolbox"]), (BTreeSet::from(["local"]), &json!("local")), "{moved}");
    }

    async fn what_wants_headers_over_http_goes_only_where_they_are_sent(engine) {
        let t = TestControl::start(engine).await;
        let agent = FakeAgent::local(&t.control).await;
        agent.can("container_http");
        t.wait("/api/v1/toolboxes/local", |_, body| body["report"]["enforcement"]["container_http"].is_object()).await;
        let entry = |name: &str, headers: Value| {
            let mut entry = document(name, "1.0.0");
            entry["packages"][0]["transport"] =
                json!({ "type": "streamable-http", "url": "http://localhost:3001/mcp", "headers": headers });
            entry
        };
        let plain = entry("io.example/plain", json!([]));
        let wants = entry("io.example/wants", json!([{ "name": "X-Region", "default": "eu" }]));
        for entry in [plain, wants] {
            t.post("/api/v1/catalog/entries", json!({ "server": entry })).await.expect(201);
        }
        t.post("/api/v1/servers", json!({ "name": "plain", "entry": "io.example/plain" })).await.expect(201);
        t.wait_rollout("plain", "done").await;
        t.post("/api/v1/servers", json!({ "name": "wants", "entry": "io.example/wants" })).await.expect(201);
        let refused = t.wait_rollout("wants", "failed").await;
        assert_eq!(refused["reason"], "unsupported_by_engine", "{refused}");
        agent.can("container_http_headers");
        t.wait("/api/v1/toolboxes/local", |_, body| body["report"]["enforcement"]["container_http_headers"].is_object()).await;
        t.post("/api/v1/servers/wants/start", json!({})).await.expect(202);
        t.wait_rollout("wants", "done").await;
    }

    async fn a_package_with_further_requirements_goes_only_where_they_are_installed(engine) {
        let t = TestControl::start(engine).await;
        let agent = FakeAgent::local(&t.control).await;
        t.wait("/api/v1/toolboxes/local", |_, body| body["state"] == "online").await;
        let entry = |name: &str, with: &str| {
            let mut entry = document(name, "1.0.0");
            entry["packages"][0]["registryType"] = json!("pypi");
            entry["packages"][0]["identifier"] = json!("echo-mcp");
            entry["packages"][0]["runtimeArguments"] = json!([{ "type": "named", "name": "--with", "value": with }]);
            json!({ "server": entry })
        };
        t.post("/api/v1/catalog/entries", entry("io.example/elsewhere", "./x")).await.expect(422);
        t.post("/api/v1/catalog/entries", entry("io.example/wants", "mcp < 2,six")).await.expect(201);
        t.post("/api/v1/servers", json!({ "name": "wants", "entry": "io.example/wants" })).await.expect(201);
        let refused = t.wait_rollout("wants", "failed").await;
        assert_eq!(refused["reason"], "unsupported_by_engine", "{refused}");
        agent.can("package_requirements");
        t.wait("/api/v1/toolboxes/local", |_, body| body["report"]["enforcement"]["package_requirements"].is_object()).await;
        t.post("/api/v1/servers/wants/start", json!({})).await.expect(202);
        t.wait_rollout("wants", "done").await;
        let desired = agent.state().desired.instances[0].clone();
        assert_eq!(desired.spec.runtime.package().expect("a package").with, ["mcp<2", "six"]);
    }

    async fn a_server_with_a_path_goes_only_to_a_toolbox_that_may_grant_it(engine) {
        let t = TestControl::start(engine).await;
        let edge = t.join("edge").await;
        let local = FakeAgent::local(&t.control).await;
        t.wait("/api/v1/toolboxes/local", |_, body| body["state"] == "online").await;
        grants(&t, "edge", &edge, &["/srv/data/*"]).await;
        grants(&t, "local", &local, &["/srv/other"]).await;
        for name in ["a", "b", "c"] {
            t.post("/api/v1/servers", with_path(name, "/srv/data//files/")).await.expect(201);
            let server = t.wait_rollout(name, "done").await;
            assert_eq!(places(&server), ["edge"], "{server}");
        }
        assert_eq!(places(&t.deploy("free").await), ["local"], "what asks for no path goes where least runs");
        t.post("/api/v1/servers", with_path("d", "/srv/otherwise")).await.expect(201);
        let refused = t.wait_rollout("d", "failed").await;
        assert_eq!((&refused["phase"], &refused["reason"]), (&json!("failed"), &json!("config_invalid")), "{refused}");
        let message = format!("no toolbox that is online can grant the path `/srv/otherwise`; {LIST_IT}");
        assert_eq!(refused["message"], json!(message));
        grants(&t, "local", &local, &["/srv/otherwise"]).await;
        t.post("/api/v1/servers/d/start", json!({})).await.expect(202);
        assert_eq!(places(&t.wait_rollout("d", "done").await), ["local"]);
    }

    async fn what_no_toolbox_can_run_says_which_lacks_what(engine) {
        let t = TestControl::start(engine).await;
        let edge = t.join("edge").await;
        edge.keep_volumes();
        t.wait("/api/v1/toolboxes/edge", |_, body| body["report"]["enforcement"]["volumes"].is_object()).await;
        let local = FakeAgent::local(&t.control).await;
        t.wait("/api/v1/toolboxes/local", |_, body| body["state"] == "online").await;
        grants(&t, "edge", &edge, &[]).await;
        grants(&t, "local", &local, &["/srv/data"]).await;
        let mut body = with_path("s", "/srv/data");
        body["volumes"] = json!([{ "name": "data", "path": "/data" }]);
        t.post("/api/v1/servers", body).await.expect(201);
        let failed = t.wait_rollout("s", "failed").await;
        assert_eq!(failed["reason"], "config_invalid", "{failed}");
        let message = format!(
            "no toolbox that is online can run it: `edge` cannot grant the path `/srv/data` ({LIST_IT}); `local` cannot \
             keep volumes (one with containers and a present agent can)"
        );
        assert_eq!(failed["message"], json!(message));
    }

    async fn a_path_that_is_not_granted_where_a_server_must_run_is_refused_at_once(engine) {
        let t = TestControl::start(engine).await;
        let edge = t.join("edge").await;
        let tied = |name: &str, path: &str| {
            let mut body = with_path(name, path);
            body["toolbox"] = json!("edge");
            body
        };
        // A toolbox that does not tell what it grants is left to decide.
        t.post("/api/v1/servers", tied("s", "/srv/old")).await.expect(201);
        let serves = t.wait_rollout("s", "done").await;
        grants(&t, "edge", &edge, &["/srv/data"]).await;
        let refused = t.post("/api/v1/servers", tied("no", "/srv/database")).await.expect(422).body;
        let why = "toolbox `edge` cannot grant the path `/srv/database`: it grants only `/srv/data`";
        assert_eq!(refused["errors"], json!([{ "field": "paths", "message": format!("{why}; {LIST_IT}") }]));
        t.get("/api/v1/servers/no").await.expect(404);
        t.patch("/api/v1/servers/s", json!({ "environment": { "A": "1" } })).await.expect(422);
        let same = t.get("/api/v1/servers/s").await.expect(200).body;
        assert_eq!((&same["rollout"]["id"], &same["etag"]), (&serves["rollout"]["id"], &serves["etag"]), "{same}");

        // What ran there before it told may begin again as it is, and is gone back to; another server does not get it.
        t.post("/api/v1/servers/s/restart", json!({})).await.expect(202);
        t.wait_rollout("s", "done").await;
        t.patch("/api/v1/servers/s", json!({ "paths": [{ "path": "/srv/data/files" }] })).await.expect(202);
        t.wait_revision("s", 2).await;
        t.post("/api/v1/servers/s/rollback", json!({})).await.expect(202);
        t.wait_revision("s", 1).await;
        t.post("/api/v1/servers/s/clone", json!({ "name": "copy" })).await.expect(422);
        t.get("/api/v1/servers/copy").await.expect(404);

        // Nor does a move.
        let _local = FakeAgent::local(&t.control).await;
        t.wait("/api/v1/toolboxes/local", |_, body| body["state"] == "online").await;
        t.post("/api/v1/servers", with_path("free", "/srv/else")).await.expect(201);
        assert_eq!(places(&t.wait_rollout("free", "done").await), ["local"]);
        t.patch("/api/v1/servers/free", json!({ "toolbox": "edge" })).await.expect(422);
        assert_eq!(t.get("/api/v1/servers/free").await.body["toolbox"], Value::Null);
    }

    async fn what_a_toolbox_cannot_do_is_refused_at_once_to_a_server_that_must_run_there(engine) {
        let t = TestControl::start(engine).await;
        let _edge = t.join("edge").await;
        let image = json!({
            "name": "image", "entry": "io.github.hashicorp/terraform-mcp-server", "package": "oci", "toolbox": "edge",
        });
        let refused = t.post("/api/v1/servers", image).await.expect(422);
        assert_eq!(refused.code(), "unsupported_by_engine", "{}", refused.text);
        let detail = "toolbox `edge` cannot run container images; that takes a container engine";
        assert_eq!(refused.body["detail"], detail);
        t.get("/api/v1/servers/image").await.expect(404);
    }

    async fn a_place_that_cannot_be_is_refused(engine) {
        let t = TestControl::start(engine).await;
        let _local = FakeAgent::local(&t.control).await;
        t.deploy("s").await;
        for body in [
            json!({ "toolbox": "nowhere" }),
            json!({ "toolbox": "local", "any_toolbox": true }),
            json!({ "toolbox_labels": {} }),
        ] {
            t.patch("/api/v1/servers/s", body).await.expect(422);
        }
        let remote = json!({ "name": "r", "url": "http://127.0.0.1:9/mcp", "start": false });
        t.post("/api/v1/servers", remote).await.expect(201);
        t.patch("/api/v1/servers/r", json!({ "toolbox": "local" })).await.expect(422);
    }

    async fn servers_are_listed_in_an_order_by_pages_and_by_toolbox(engine) {
        let t = TestControl::start(engine).await;
        let edge = t.post("/api/v1/toolboxes", json!({ "name": "edge" })).await.expect(201);
        drop(edge);
        for (name, toolbox) in [("b", "local"), ("e", "edge"), ("a", "local"), ("d", "edge"), ("c", "edge")] {
            let body = json!({ "name": name, "entry": EVERYTHING, "toolbox": toolbox, "start": false });
            t.post("/api/v1/servers", body).await.expect(201);
            t.clock.step_ms(1);
        }
        assert_eq!(names(&t, "").await, ["a", "b", "c", "d", "e"]);
        assert_eq!(names(&t, "sort=-name").await, ["e", "d", "c", "b", "a"]);
        assert_eq!(names(&t, "sort=created_at").await, ["b", "e", "a", "d", "c"]);
        assert_eq!(names(&t, "sort=-created_at").await, ["c", "d", "a", "e", "b"]);
        assert_eq!(names(&t, "sort=-created_at&toolbox=edge").await, ["c", "d", "e"]);
        assert_eq!(names(&t, "toolbox=local&search=a").await, ["a"]);
        t.get("/api/v1/servers?toolbox=nowhere").await.expect(422);
        t.get("/api/v1/servers?sort=created_at&cursor=a").await.expect(422);
        t.get("/api/v1/servers?sort=size").await.expect(422);
    }
}
