//! A server's settings, read back and given again.

use http::Method;
use serde_json::{Value, json};

use crate::harness::{TestControl, both_engines};

const TIME: &str = "io.github.modelcontextprotocol/server-time";
const BRAVE: &str = "io.github.brave/brave-search-mcp-server";
const CANARY: &str = "canary-77a1-brave-key";

/// The settings of a server as the body of a change.
fn as_change(settings: &Value) -> Value {
    let mut change = json!({ "credentials": {} });
    for field in [
        "inputs",
        "environment",
        "arguments",
        "limits",
        "paths",
        "privileges",
        "egress",
        "strategy",
        "start_timeout_ms",
        "call_timeout_ms",
        "rollout_timeout_ms",
    ] {
        change[field] = settings[field].clone();
    }
    if !settings["probe_call"].is_null() {
        change["probe_call"] = settings["probe_call"].clone();
    }
    for (input, bound) in settings["credentials"].as_object().unwrap() {
        change["credentials"][input] = bound["name"].clone();
    }
    change
}

both_engines! {
    async fn settings_come_back_as_they_were_given_and_change_nothing_when_given_again(engine) {
        let t = TestControl::start(engine).await;
        t.put("/api/v1/credentials/own", json!({ "secret": "x" })).await.expect(200);
        let given = json!({
            "name": "time", "entry": TIME, "start": false,
            "inputs": { "local_timezone": "Europe/Oslo" },
            "environment": { "LOG_LEVEL": "debug" },
            "credentials": { "TOKEN": "own" },
            "arguments": ["--verbose"],
            "limits": { "memory_bytes": 268_435_456, "processes": 32, "cpu_millis": 500, "disk_bytes": 67_108_864 },
            "privileges": ["listen"],
            "paths": [{ "path": "/srv/data", "writable": true }],
            "egress": { "policy": "hosts", "hosts": ["api.example.com"] },
            "strategy": "recreate",
            "start_timeout_ms": 30_000, "call_timeout_ms": 20_000, "rollout_timeout_ms": 90_000,
            "probe_call": { "tool": "get_current_time", "arguments": { "timezone": "UTC" } },
        });
        let created = t.post("/api/v1/servers", given.clone()).await.expect(201);
        let settings = t.get("/api/v1/servers/time/settings").await.expect(200).body;
        for same in [
            "environment", "arguments", "limits", "paths", "privileges", "egress", "strategy", "start_timeout_ms",
            "call_timeout_ms", "rollout_timeout_ms", "probe_call",
        ] {
            assert_eq!(settings[same], given[same], "{same}");
        }
        assert_eq!(settings["inputs"], json!({ "--local-timezone": "Europe/Oslo" }));
        assert_eq!(settings["credentials"]["TOKEN"]["name"], "own");
        assert_eq!(settings["entry"]["name"], TIME);
        assert_eq!(settings["package"]["identifier"], "mcp-server-time");
        assert_eq!((&settings["revision"], &settings["etag"]), (&json!(1), &created.body["etag"]));

        let again = t.patch("/api/v1/servers/time", as_change(&settings)).await.expect(202);
        assert_eq!((&again.body["revision"], &again.body["etag"]), (&json!(1), &settings["etag"]));
    }

    async fn what_is_read_as_a_change_makes_no_revision_of_a_server_of_any_kind(engine) {
        let t = TestControl::start(engine).await;
        t.put("/api/v1/credentials/own", json!({ "secret": "user:word" })).await.expect(200);
        let far = json!({ "name": "io.example/far", "description": "x", "version": "1.0.0", "remotes": [{
            "type": "streamable-http", "url": "https://mcp.example.test/{key}/mcp?region={region}",
            "variables": { "key": { "isSecret": true }, "region": { "default": "eu" } } }] });
        t.post("/api/v1/catalog/entries", json!({ "server": far })).await.expect(201);
        let given = [
            ("pypi", json!({
                "entry": TIME, "inputs": { "local_timezone": "Europe/Oslo" }, "environment": { "LOG_LEVEL": "debug" },
                "credentials": { "TOKEN": "own" }, "paths": [{ "path": "/srv/files", "writable": true }],
                "volumes": [{ "name": "data", "path": "/data" }], "privileges": ["listen"], "observe_seconds": 30,
                "probe_call": { "tool": "get_current_time" }, "restart_at": "03:30", "update_window": "02:00-05:00",
            })),
            ("npm", json!({
                "entry": BRAVE, "inputs": { "BRAVE_API_KEY": CANARY },
                "instancing": { "mode": "per_user", "max_copies": 4, "idle_stop_ms": 90_000, "warm": 1 },
            })),
            ("oci", json!({
                "entry": "io.github.hashicorp/terraform-mcp-server", "package": "oci", "credentials": { "registry": "own" },
            })),
            ("remote", json!({ "entry": "io.example/far", "inputs": { "key": CANARY, "region": "us" } })),
            ("remote", json!({
                "url": "https://mcp.example.test/mcp", "inputs": { "Authorization": CANARY }, "credentials": { "X-Key": "own" },
            })),
        ];
        for (number, (kind, mut body)) in given.into_iter().enumerate() {
            (body["name"], body["start"]) = (json!(format!("s{number}")), json!(false));
            t.post("/api/v1/servers", body).await.expect(201);
            let path = format!("/api/v1/servers/s{number}");
            let settings = t.get(&format!("{path}/settings")).await.expect(200);
            assert_eq!(settings.body["kind"], kind);
            assert!(!settings.text.contains(CANARY), "{}", settings.text);
            let (change, bound) = (&settings.body["change"], settings.body["credentials"].as_object().unwrap());
            assert!(!bound.is_empty() && bound.iter().all(|(key, bound)| change["credentials"][key] == bound["name"]));
            let again = t.patch(&path, change.clone()).await.expect(202).body;
            assert_eq!((&again["revision"], &again["etag"]), (&json!(1), &settings.body["etag"]), "{change:#}");
            assert_eq!(t.get(&format!("{path}/settings")).await.expect(200).body, settings.body);
        }
        // Who may not see which credentials exist reads a change that leaves them as they are.
        let key = t.post("/api/v1/keys", json!({ "name": "viewer", "role": "viewer" })).await.expect(201);
        let key = key.body["key"].as_str().unwrap().to_owned();
        let theirs = t.ask_as(&key, Method::GET, "/api/v1/servers/s1/settings", None).await.expect(200).body;
        assert_eq!(theirs["change"]["credentials"], Value::Null);
        let again = t.patch("/api/v1/servers/s1", theirs["change"].clone()).await.expect(202);
        assert_eq!(again.body["revision"], 1);
    }

    async fn a_disk_limit_that_is_left_out_is_the_default_and_none_is_above_its_ceiling(engine) {
        let t = TestControl::start(engine).await;
        let limits = json!({ "memory_bytes": 268_435_456, "processes": 32 });
        let given = json!({ "name": "time", "entry": TIME, "start": false, "limits": limits });
        t.post("/api/v1/servers", given).await.expect(201);
        let time = "/api/v1/servers/time";
        let disk = async || t.get("/api/v1/servers/time/settings").await.expect(200).body["limits"]["disk_bytes"].clone();
        assert_eq!(disk().await, 1_073_741_824);
        let mut none = limits.clone();
        none["disk_bytes"] = json!(0);
        let refused = t.patch(time, json!({ "limits": none })).await.expect(422);
        assert!(refused.text.contains("server_max_disk_mib"), "{}", refused.text);
        let settings = t.get("/api/v1/servers/time/settings").await.expect(200).body;
        let again = t.patch(time, as_change(&settings)).await.expect(202);
        assert_eq!(again.body["revision"], settings["revision"]);
        none["disk_bytes"] = json!(4096);
        t.patch(time, json!({ "limits": none })).await.expect(422);
    }

    async fn a_privilege_is_given_by_who_may_and_taken_away_by_who_deploys(engine) {
        let t = TestControl::start(engine).await;
        let made = t.post("/api/v1/keys", json!({ "name": "developer", "role": "developer" })).await.expect(201);
        let developer = made.body["key"].as_str().unwrap().to_owned();
        let ask = |method, path: &'static str, body| t.ask_as(&developer, method, path, Some(body));
        let given = json!({ "name": "time", "entry": TIME, "start": false, "privileges": ["new_namespaces"] });
        let refused = ask(Method::POST, "/api/v1/servers", given.clone()).await.expect(403);
        let detail = refused.body["detail"].as_str().unwrap();
        assert!(detail.contains("`new_namespaces`") && detail.contains("`server:grant_privilege`"), "{detail}");
        t.post("/api/v1/servers", given).await.expect(201);
        let time = "/api/v1/servers/time";
        ask(Method::PATCH, time, json!({ "arguments": ["-v"] })).await.expect(202);
        ask(Method::PATCH, time, json!({ "privileges": ["new_namespaces", "listen"] })).await.expect(403);
        ask(Method::PATCH, time, json!({ "privileges": [] })).await.expect(202);
        let back = "/api/v1/servers/time/rollback";
        ask(Method::POST, back, json!({ "revision": 1 })).await.expect(403);
        t.post(back, json!({ "revision": 1 })).await.expect(202);
        let refused = t.get("/api/v1/audit?action=server:grant_privilege&outcome=refused").await.expect(200);
        assert_eq!(refused.body["items"][0]["target"], "server/time");
        assert_eq!(refused.body["items"][0]["actor_display"], "developer");
    }

    async fn what_was_set_can_be_taken_away_again(engine) {
        let t = TestControl::start(engine).await;
        let given = json!({
            "name": "time", "entry": TIME, "start": false, "inputs": { "local_timezone": "Europe/Oslo" },
            "probe_call": { "tool": "get_current_time" },
        });
        t.post("/api/v1/servers", given).await.expect(201);
        let change = json!({ "unset_environment": ["--local-timezone"], "probe_call": { "tool": "" } });
        assert_eq!(t.patch("/api/v1/servers/time", change).await.expect(202).body["revision"], 2);
        let settings = t.get("/api/v1/servers/time/settings").await.expect(200).body;
        assert_eq!((&settings["inputs"], &settings["probe_call"]), (&json!({}), &Value::Null));
    }

    async fn settings_name_a_secret_and_never_show_it_to_those_who_may_see_names(engine) {
        let t = TestControl::start(engine).await;
        let body = json!({ "name": "brave", "entry": BRAVE, "start": false, "inputs": { "BRAVE_API_KEY": CANARY } });
        t.post("/api/v1/servers", body).await.expect(201);
        let settings = t.get("/api/v1/servers/brave/settings").await.expect(200);
        assert!(!settings.text.contains(CANARY));
        assert_eq!(settings.body["credentials"]["BRAVE_API_KEY"]["name"], "brave-brave-api-key");
        assert_eq!(settings.body["inputs"], json!({}));

        let key = t.post("/api/v1/keys", json!({ "name": "viewer", "role": "viewer" })).await.expect(201);
        let key = key.body["key"].as_str().unwrap().to_owned();
        let theirs = t.ask_as(&key, Method::GET, "/api/v1/servers/brave/settings", None).await.expect(200);
        assert_eq!(theirs.body["credentials"]["BRAVE_API_KEY"]["name"], Value::Null);
        assert!(theirs.body["credentials"]["BRAVE_API_KEY"]["id"].is_string());
        t.get("/api/v1/servers/nothing/settings").await.expect(404);
    }

    async fn who_may_only_deploy_lets_no_server_see_paths_of_a_host(engine) {
        let t = TestControl::start(engine).await;
        let key = t.post("/api/v1/keys", json!({ "name": "dev", "role": "developer" })).await.expect(201);
        let key = key.body["key"].as_str().unwrap().to_owned();
        let narrow = json!({ "name": "narrow", "role": "operator", "scope": { "actions": ["server:deploy", "server:read"] } });
        let narrow = t.post("/api/v1/keys", narrow).await.expect(201).body["key"].as_str().unwrap().to_owned();
        let body = |name: &str, paths: Value| json!({ "name": name, "entry": TIME, "start": false, "paths": paths });
        let read = json!([{ "path": "/srv/data" }]);
        let write = json!([{ "path": "/srv/data", "writable": true }]);
        for key in [&key, &narrow] {
            let refused = t.ask_as(key, Method::POST, "/api/v1/servers", Some(body("one", read.clone()))).await.expect(403);
            assert!(refused.text.contains("server:grant_path"), "{}", refused.text);
        }
        let lines = t.get("/api/v1/audit?action=server:grant_path&outcome=refused").await.expect(200).body;
        let lines: Vec<_> = lines["items"].as_array().unwrap().iter().map(|line| (&line["actor_display"], &line["target"])).collect();
        assert_eq!(lines, [(&json!("narrow"), &json!("server/one")), (&json!("dev"), &json!("server/one"))]);
        t.post("/api/v1/servers", body("one", read.clone())).await.expect(201);
        let change = |body: Value| t.ask_as(&key, Method::PATCH, "/api/v1/servers/one", Some(body));
        // What was granted stays granted, whoever changes something else.
        change(json!({ "environment": { "LEVEL": "debug" } })).await.expect(202);
        change(json!({ "paths": write })).await.expect(403);
        change(json!({ "paths": [{ "path": "/srv/other" }] })).await.expect(403);
        let copy = Some(json!({ "name": "two" }));
        t.ask_as(&key, Method::POST, "/api/v1/servers/one/clone", copy.clone()).await.expect(403);
        change(json!({ "paths": [] })).await.expect(202);
        let back = json!({ "revision": 1 });
        t.ask_as(&key, Method::POST, "/api/v1/servers/one/rollback", Some(back.clone())).await.expect(403);
        t.ask_as(&key, Method::POST, "/api/v1/servers/one/clone", copy).await.expect(201);
        t.post("/api/v1/servers/one/rollback", back).await.expect(202);
        let audit = t.get("/api/v1/audit?limit=50").await.expect(200).text;
        assert!(audit.contains(r#""granted_paths":[{"path":"/srv/data","writable":false}]"#), "{audit}");
    }
}
