//! Volumes as the control plane has them: one writer, one place, and kept for as long as the server is there.

use serde_json::{Value, json};
use toolyard_types::ServerId;

use crate::agent::FakeAgent;
use crate::harness::{TestControl, both_engines};
use crate::servers::EVERYTHING;

fn with_volume(name: &str) -> Value {
    json!({ "name": name, "entry": EVERYTHING, "volumes": [{ "name": "data", "path": "/data" }] })
}

/// A toolbox that can keep volumes.
async fn joined(t: &TestControl, name: &str) -> FakeAgent {
    let agent = t.join(name).await;
    agent.keep_volumes();
    let told = |body: &Value| body["report"]["enforcement"]["volumes"]["enforced"] == true;
    t.wait(&format!("/api/v1/toolboxes/{name}"), |_, body| told(body)).await;
    agent
}

fn kept(agent: &FakeAgent) -> Vec<ServerId> {
    agent.state().desired.keep_volumes.clone().expect("it knows volumes").into_iter().collect()
}

/// Waits until the agent was told to keep the volumes of so many servers.
async fn wait_kept(t: &TestControl, agent: &FakeAgent, servers: usize) -> Vec<ServerId> {
    t.wait("/api/v1/version", |_, _| kept(agent).len() == servers).await;
    kept(agent)
}

both_engines! {
    async fn a_server_stays_where_its_volume_is_and_the_volume_goes_with_it(engine) {
        let t = TestControl::start(engine).await;
        let _plain = t.join("plain").await;
        let agent = joined(&t, "edge").await;
        let created = t.post("/api/v1/servers", with_volume("s")).await.expect(201).body;
        let server = t.wait_rollout("s", "done").await;
        assert_eq!((&server["toolbox"], &server["instances"][0]["toolbox"]), (&json!("edge"), &json!("edge")), "{server}");
        let settings = t.get("/api/v1/servers/s/settings").await.expect(200).body;
        assert_eq!(settings["volumes"], json!([{ "name": "data", "path": "/data" }]));
        assert_eq!(settings["strategy"], "recreate");
        let id: ServerId = created["id"].as_str().unwrap().parse().unwrap();
        assert_eq!(wait_kept(&t, &agent, 1).await, [id]);

        // An update prepares, ends the old one, and only then starts the new one, in the same place.
        t.patch("/api/v1/servers/s", json!({ "environment": { "A": "1" } })).await.expect(202);
        let updated = t.wait_revision("s", 2).await;
        assert_eq!(updated["instances"][0]["toolbox"], "edge");
        let deeds = agent.deeds();
        let at = |deed: &str| deeds.iter().position(|done| done == deed).unwrap_or_else(|| panic!("{deed}: {deeds:?}"));
        assert!(at("prepare s@2") < at("stop s@1") && at("stop s@1") < at("run s@2"), "{deeds:?}");

        // A second place that could have it does not get it.
        let _other = joined(&t, "other").await;
        t.post("/api/v1/toolboxes/edge/drain", json!({})).await.expect(200);
        let draining = t.get("/api/v1/toolboxes/edge").await.expect(200).body;
        assert_eq!(draining["drain"], json!({ "moving": 0, "ending": 0, "stays": ["s"], "volumes": ["s"] }), "{draining}");
        let message = "takes nothing new; they stay, for there is no other place: `s`; here are the volumes of `s`";
        assert_eq!(draining["message"], message);
        t.post("/api/v1/toolboxes/edge/resume", json!({})).await.expect(200);

        // Neither stopping it nor a revision without the volume gives it up.
        t.patch("/api/v1/servers/s", json!({ "volumes": [] })).await.expect(202);
        t.wait_revision("s", 3).await;
        t.post("/api/v1/servers/s/stop", json!({})).await.expect(202);
        t.wait("/api/v1/servers/s", |_, body| body["instances"] == json!([])).await;
        assert_eq!(wait_kept(&t, &agent, 1).await, [id]);
        t.delete("/api/v1/servers/s").await;
        t.wait("/api/v1/servers/s", |status, _| status == 404).await;
        wait_kept(&t, &agent, 0).await;
    }

    async fn a_server_whose_volumes_went_with_a_removed_toolbox_begins_anew_on_one_that_is_named(engine) {
        let t = TestControl::start(engine).await;
        let _edge = joined(&t, "edge").await;
        let created = t.post("/api/v1/servers", with_volume("s")).await.expect(201).body;
        t.wait_rollout("s", "done").await;
        let other = joined(&t, "other").await;
        t.patch("/api/v1/servers/s", json!({ "toolbox": "other" })).await.expect(422);
        t.post("/api/v1/toolboxes/edge/drain", json!({})).await.expect(200);
        t.delete("/api/v1/toolboxes/edge").await.expect(204);
        assert_eq!(t.get("/api/v1/servers/s").await.body["reason"], "toolbox_removed");
        let refused = t.patch("/api/v1/servers/s", json!({ "any_toolbox": true })).await.expect(422).body;
        let message = "its volumes stayed with the toolbox that was removed; name the one where it begins with empty ones";
        assert_eq!(refused["errors"][0]["message"], message, "{refused}");
        t.patch("/api/v1/servers/s", json!({ "toolbox": "other" })).await.expect(202);
        let moved = t.wait_rollout("s", "done").await;
        assert_eq!((&moved["toolbox"], &moved["instances"][0]["toolbox"]), (&json!("other"), &json!("other")), "{moved}");
        let id: ServerId = created["id"].as_str().unwrap().parse().unwrap();
        assert_eq!(wait_kept(&t, &other, 1).await, [id]);
        // There it is bound again.
        let _third = joined(&t, "third").await;
        t.patch("/api/v1/servers/s", json!({ "toolbox": "third" })).await.expect(422);
    }

    async fn user_ids_are_kept_for_servers_that_exist_and_were_there(engine) {
        let t = TestControl::start(engine).await;
        let agent = t.join("edge").await;
        let id = |created: Value| created["id"].as_str().unwrap().parse::<ServerId>().unwrap();
        let deploy = |name| t.post("/api/v1/servers", json!({ "name": name, "entry": EVERYTHING }));
        let kept = || agent.state().desired.keep_users.clone().unwrap_or_default();
        let stopped = id(deploy("stopped").await.expect(201).body);
        t.wait_rollout("stopped", "done").await;
        t.post("/api/v1/servers/stopped/stop", json!({})).await.expect(202);
        t.wait("/api/v1/servers/stopped", |_, body| body["instances"] == json!([])).await;
        assert!(kept().contains(&stopped));
        t.delete("/api/v1/servers/stopped").await;
        t.wait("/api/v1/servers/stopped", |status, _| status == 404).await;
        let next = id(deploy("next").await.expect(201).body);
        t.wait_rollout("next", "done").await;
        assert_eq!(kept(), [next].into());
    }

    async fn a_clone_has_volumes_of_its_own(engine) {
        let t = TestControl::start(engine).await;
        let agent = joined(&t, "edge").await;
        t.post("/api/v1/servers", with_volume("s")).await.expect(201);
        t.wait_rollout("s", "done").await;
        t.post("/api/v1/servers/s/clone", json!({ "name": "copy" })).await.expect(201);
        t.wait_rollout("copy", "done").await;
        let settings = t.get("/api/v1/servers/copy/settings").await.expect(200).body;
        assert_eq!(settings["volumes"][0]["name"], "data");
        wait_kept(&t, &agent, 2).await;
    }

    async fn a_toolbox_that_keeps_no_volumes_is_refused(engine) {
        let t = TestControl::start(engine).await;
        let _agent = t.join("plain").await;
        t.post("/api/v1/servers", with_volume("s")).await.expect(201);
        let failed = t.wait_rollout("s", "failed").await;
        assert_eq!(failed["reason"], "unsupported_by_engine", "{failed}");
    }

    async fn what_a_volume_does_not_go_with_is_said_by_field(engine) {
        let t = TestControl::start(engine).await;
        let wrong = async |change: Value, field: &str| {
            let mut body = with_volume("s");
            body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            let refused = t.post("/api/v1/servers", body).await.expect(422).body;
            let fields: Vec<_> = refused["errors"].as_array().unwrap().iter().map(|it| it["field"].clone()).collect();
            assert_eq!(fields, [field], "{refused}");
        };
        let volume = |name: &str, path: &str| json!({ "name": name, "path": path });
        wrong(json!({ "strategy": "surge" }), "strategy").await;
        wrong(json!({ "replicas": 2 }), "replicas").await;
        wrong(json!({ "instancing": { "mode": "per_user" } }), "instancing.mode").await;
        wrong(json!({ "paths": [{ "path": "/data" }] }), "volumes").await;
        for path in ["data", "/", "/a/../b", "/proc/x", "/sys", "/dev/shm", "/tmp/x", "/a:b"] {
            wrong(json!({ "volumes": [volume("data", path)] }), "volumes").await;
        }
        wrong(json!({ "volumes": [volume("a", "/a"), volume("a", "/b")] }), "volumes").await;
        wrong(json!({ "volumes": [volume("a", "/a"), volume("b", "/a")] }), "volumes").await;
        let many: Vec<_> = (0..17).map(|at| volume(&format!("v{at}"), &format!("/v{at}"))).collect();
        wrong(json!({ "volumes": many }), "volumes").await;
        let remote = json!({ "name": "r", "url": "https://example.test/mcp", "volumes": [volume("a", "/a")] });
        t.post("/api/v1/servers", remote).await.expect(422);
        let named = json!({ "name": "s", "entry": EVERYTHING, "volumes": [volume("A_b", "/a")] });
        let refused = t.post("/api/v1/servers", named).await.body;
        assert_eq!(refused["code"], "validation_failed", "{refused}");
        t.get("/api/v1/servers/s").await.expect(404);
    }

    async fn an_input_that_is_a_path_in_a_volume_grants_nothing_of_the_host(engine) {
        let t = TestControl::start(engine).await;
        let agent = joined(&t, "edge").await;
        let files = json!({
            "name": "s", "entry": "io.github.modelcontextprotocol/server-filesystem",
            "inputs": { "directory": "/data" }, "volumes": [{ "name": "data", "path": "/data" }],
        });
        t.post("/api/v1/servers", files).await.expect(201);
        t.wait_rollout("s", "done").await;
        let desired = agent.state().desired.instances[0].spec.clone();
        assert!(desired.paths.is_empty(), "{:?}", desired.paths);
        assert_eq!(desired.volumes[0].path, "/data");
        // A declared variable is the same input, however it is passed.
        let file = json!({
            "name": "m", "entry": "io.github.modelcontextprotocol/server-memory",
            "environment": { "MEMORY_FILE_PATH": "/data/m.jsonl" }, "volumes": [{ "name": "data", "path": "/data" }],
        });
        t.post("/api/v1/servers", file).await.expect(201);
        t.wait_rollout("m", "done").await;
        assert!(agent.state().desired.instances.iter().all(|it| it.spec.paths.is_empty()));

        // Without the volume it is a path of the host.
        t.patch("/api/v1/servers/s", json!({ "volumes": [] })).await.expect(202);
        t.wait_revision("s", 2).await;
        let granted = |it: &toolyard_types::agent::DesiredInstance| it.spec.paths.iter().any(|it| it.path == "/data");
        assert!(agent.state().desired.instances.iter().any(granted));
    }

    async fn the_input_that_holds_a_path_is_named_when_its_volume_is_taken_away_and_nobody_grants_it(engine) {
        let t = TestControl::start(engine).await;
        let agent = joined(&t, "edge").await;
        let files = json!({
            "name": "s", "entry": "io.github.modelcontextprotocol/server-filesystem",
            "inputs": { "directory": "/data" }, "volumes": [{ "name": "data", "path": "/data" }],
        });
        t.post("/api/v1/servers", files).await.expect(201);
        t.wait_rollout("s", "done").await;
        crate::places::grants(&t, "edge", &agent, &["/srv"]).await;
        let refused = t.patch("/api/v1/servers/s", json!({ "volumes": [] })).await.expect(422).body;
        let (field, told) = (&refused["errors"][0]["field"], refused["errors"][0]["message"].as_str().unwrap());
        assert_eq!(field, "paths");
        assert!(told.contains("the path `/data`") && told.contains("the input `directory`"), "{told}");
        let other = json!({ "volumes": [], "inputs": { "directory": "/srv" } });
        t.patch("/api/v1/servers/s", other).await.expect(202);
    }
}
