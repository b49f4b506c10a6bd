//! Where a server runs, and how people find servers by it.

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
