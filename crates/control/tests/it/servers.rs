//! Servers through the API, with an agent that speaks the wire.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request};
use serde_json::{Value, json};
use toolyard_store::{EventKind, NewApiKey, ToolsetRow};
use toolyard_types::access::Role;
use toolyard_types::snapshot::{ServerRoute, Snapshot, Target};
use toolyard_types::state::Reason;
use toolyard_types::{ApiKeyId, Name, RevisionId, ToolsetId};

use crate::agent::{Behaviour, FakeAgent};
use crate::harness::{OWNER_KEY, TestControl, both_engines};

pub(crate) const EVERYTHING: &str = "io.github.modelcontextprotocol/server-everything";

impl TestControl {
    /// Waits until `path` answers something that `reached` accepts; fails the test when it does not come.
    pub(crate) async fn wait(&self, path: &str, reached: impl Fn(u16, &Value) -> bool) -> Value {
        let mut last = None;
        let found = tokio::time::timeout(Duration::from_secs(20), async {
            loop {
                let answer = self.get(path).await;
                if reached(answer.status.as_u16(), &answer.body) {
                    return answer.body;
                }
                last = Some(answer.text);
                self.control.wake_loops();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        found.await.unwrap_or_else(|_| panic!("it never came; last: {last:?}"))
    }

    /// Waits until a server's last rollout is in a state.
    pub(crate) async fn wait_rollout(&self, name: &str, state: &str) -> Value {
        self.wait(&format!("/api/v1/servers/{name}"), |_, body| {
            if state != "progressing" {
                self.observed(body);
            }
            body["rollout"]["state"] == state
        })
        .await
    }

    /// Waits until a revision serves and its rollout is over.
    pub(crate) async fn wait_revision(&self, name: &str, revision: u64) -> Value {
        self.wait(&format!("/api/v1/servers/{name}"), |_, body| {
            self.observed(body);
            body["revision"] == revision && body["rollout"]["state"] == "done"
        })
        .await
    }

    /// Lets the time pass in which a new revision is observed.
    fn observed(&self, server: &Value) {
        if server["rollout"]["reason"] == "observing" {
            self.clock.step_ms(5_000);
        }
    }

    /// Deploys the everything server and waits until it is ready.
    pub(crate) async fn deploy(&self, name: &str) -> Value {
        self.post("/api/v1/servers", json!({ "name": name, "entry": EVERYTHING })).await.expect(201);
        self.wait_rollout(name, "done").await
    }

    /// Lets replaced instances finish draining.
    pub(crate) fn drained(&self) {
        self.clock.step_ms(1_500);
        self.control.wake_loops();
    }

    /// Makes a toolbox and starts its agent.
    pub(crate) async fn join(&self, name: &str) -> FakeAgent {
        let made = self.post("/api/v1/toolboxes", json!({ "name": name })).await.expect(201).body;
        let agent = FakeAgent::start(&self.control, made["toolbox"]["id"].as_str().unwrap().parse().unwrap());
        self.wait(&format!("/api/v1/toolboxes/{name}"), |_, body| body["state"] == "online").await;
        agent
    }

    /// Waits until a loop has run again.
    pub(crate) async fn wait_loop(&self, name: &str) {
        let runs = || self.control.loop_status().into_iter().find(|(it, _)| *it == name).map(|(_, status)| status.at);
        let now = self.clock.now();
        self.wait("/api/v1/version", |_, _| runs() == Some(now)).await;
    }

    /// Waits until the gateway's calls to a server go to a revision.
    pub(crate) async fn wait_revision_route(&self, name: &str, number: u64) {
        let revisions = self.get(&format!("/api/v1/servers/{name}/revisions")).await.expect(200).body;
        let revision = revisions["items"].as_array().unwrap().iter().find(|it| it["number"] == number).unwrap();
        let id: RevisionId = revision["id"].as_str().unwrap().parse().unwrap();
        self.wait_route_with(name, |route| route.revision == Some(id) && instances(Some(&route.target)) == 1).await;
    }

    /// Waits until the gateway's picture of a server that exists is as `reached` wants it.
    pub(crate) async fn wait_route_with(&self, name: &str, reached: impl Fn(&ServerRoute) -> bool) {
        let mut snapshots = self.control.snapshots();
        let (organization, name) = (Name::new("default").unwrap(), Name::new(name).unwrap());
        let seen = snapshots.wait_for(|snapshot| {
            let routes = snapshot.organizations.get(&organization);
            routes.and_then(|routes| routes.servers.get(&name)).is_some_and(|route| reached(route))
        });
        tokio::time::timeout(Duration::from_secs(10), seen).await.expect("in time").expect("it lives");
    }

    /// Waits until the gateway's picture of a server is as `reached` wants it.
    pub(crate) async fn wait_route(&self, name: &str, reached: impl Fn(Option<&Target>) -> bool) {
        let mut snapshots = self.control.snapshots();
        let (organization, name) = (Name::new("default").unwrap(), Name::new(name).unwrap());
        let seen = snapshots.wait_for(|snapshot| {
            let routes = snapshot.organizations.get(&organization);
            reached(routes.and_then(|routes| routes.servers.get(&name)).map(|route| &route.target))
        });
        tokio::time::timeout(Duration::from_secs(10), seen).await.expect("in time").expect("it lives");
    }
}

fn instances(target: Option<&Target>) -> usize {
    match target {
        Some(Target::Instances(instances)) => instances.len(),
        _ => 0,
    }
}

both_engines! {
    async fn a_server_goes_from_the_catalog_to_a_route_and_back_to_nothing(engine) {
        let t = TestControl::start(engine).await;
        let agent = FakeAgent::local(&t.control).await;
        let created = t.post("/api/v1/servers", json!({ "name": "everything", "entry": EVERYTHING })).await.expect(201);
        assert_eq!(created.body["phase"], "pending");
        assert_eq!(created.body["revision"], 1);
        assert_eq!(created.headers["etag"], format!("\"{}\"", created.body["etag"].as_str().unwrap()));

        let ready = t.wait_rollout("everything", "done").await;
        assert_eq!((ready["phase"].as_str(), ready["reason"].as_str()), (Some("ready"), Some("answered")));
        assert_eq!(ready["instances"][0]["toolbox"], "local");
        assert_eq!(ready["instances"][0]["pid"], 4711);
        assert_eq!(ready["instance_id"], ready["instances"][0]["id"]);
        assert_eq!(ready["mcp_path"], "/mcp/default/servers/everything");
        t.wait_route("everything", |target| instances(target) == 1).await;
        let revisions = t.get("/api/v1/servers/everything/revisions").await.expect(200);
        assert!(revisions.body["items"][0]["lock_digest"].as_str().unwrap().starts_with("sha256:"));

        let restarted = t.post("/api/v1/servers/everything/restart", json!({})).await.expect(202);
        assert_eq!(restarted.body["rollout"]["state"], "progressing");
        let restarted = t.wait("/api/v1/servers/everything", |_, body| {
            body["rollout"]["state"] == "done" && body["rollout"]["id"] != ready["rollout"]["id"]
        }).await;
        assert_ne!(restarted["instance_id"], ready["instance_id"]);
        assert!(restarted["instance_id"].is_string());
        t.drained();
        t.wait("/api/v1/servers/everything", |_, body| body["instances"].as_array().unwrap().len() == 1).await;
        assert_eq!(agent.deeds(), ["run everything@1", "run everything@1", "stop everything@1"]);

        t.post("/api/v1/servers/everything/stop", json!({})).await.expect(202);
        t.wait("/api/v1/servers/everything", |_, body| body["phase"] == "stopped").await;
        t.wait_route("everything", |target| instances(target) == 0).await;
        t.post("/api/v1/servers/everything/start", json!({})).await.expect(202);
        t.wait("/api/v1/servers/everything", |_, body| body["phase"] == "ready").await;

        agent.let_end(false);
        let deleting = t.delete("/api/v1/servers/everything").await.expect(202);
        assert_eq!(deleting.body["phase"], "stopping");
        let taken = t.post("/api/v1/servers", json!({ "name": "everything", "entry": EVERYTHING })).await.expect(409);
        assert!(taken.text.contains("is being deleted"), "{}", taken.text);
        agent.let_end(true);
        t.wait("/api/v1/servers/everything", |status, _| status == 404).await;
        t.wait_route("everything", |target| target.is_none()).await;
        t.deploy("everything").await;
    }

    async fn an_update_makes_a_revision_and_a_rollback_points_back(engine) {
        let t = TestControl::start(engine).await;
        let agent = FakeAgent::local(&t.control).await;
        let first = t.deploy("s").await;
        let etag = first["etag"].as_str().unwrap().to_owned();
        let updated = t.patch("/api/v1/servers/s", json!({ "environment": { "DEMO": "1" } })).await.expect(202);
        assert_eq!(updated.body["rollout"]["to_revision"], 2);
        let second = t.wait_revision("s", 2).await;
        assert_eq!(second["phase"], "ready");
        let same = t.patch("/api/v1/servers/s", json!({ "environment": { "DEMO": "1" } })).await.expect(202);
        assert_eq!(same.body["rollout"]["id"], second["rollout"]["id"]);

        let stale = Request::patch("/api/v1/servers/s")
            .header("authorization", format!("Bearer {OWNER_KEY}"))
            .header("content-type", "application/json")
            .header("if-match", format!("\"{etag}\""))
            .body(json!({ "environment": { "DEMO": "2" } }).to_string().into()).unwrap();
        t.send(stale).await.expect(412);

        t.post("/api/v1/servers/s/rollback", json!({})).await.expect(202);
        let back = t.wait_revision("s", 1).await;
        assert_eq!(back["rollout"]["from_revision"], 2);
        t.post("/api/v1/servers/s/rollback", json!({})).await.expect(409);
        t.post("/api/v1/servers/s/rollback", json!({ "revision": 9 })).await.expect(422);
        // The package did not change, so it was resolved once.
        let revisions = t.get("/api/v1/servers/s/revisions").await.expect(200);
        assert_eq!(revisions.body["items"][0]["lock_digest"], revisions.body["items"][1]["lock_digest"]);
        assert_eq!(agent.deeds().iter().filter(|deed| deed.starts_with("run")).count(), 3);
    }

    async fn a_clone_runs_beside_its_origin(engine) {
        let t = TestControl::start(engine).await;
        let _agent = FakeAgent::local(&t.control).await;
        t.deploy("origin").await;
        t.post("/api/v1/servers/origin/clone", json!({ "name": "copy" })).await.expect(201);
        t.wait("/api/v1/servers/copy", |_, body| body["phase"] == "ready").await;
        t.post("/api/v1/servers/origin/clone", json!({ "name": "copy" })).await.expect(409);
        t.put("/api/v1/flags/server_clone", json!({ "everyone": false })).await.expect(200);
        let off = t.post("/api/v1/servers/origin/clone", json!({ "name": "more" })).await.expect(404);
        assert_eq!(off.code(), "feature_disabled");
    }

    async fn requests_that_cannot_work_are_refused_and_leave_nothing(engine) {
        let t = TestControl::start(engine).await;
        for (body, status, code) in [
            (json!({}), 422, "validation_failed"),
            (json!({ "entry": "a/b", "url": "https://example.test" }), 422, "validation_failed"),
            (json!({ "entry": "no.such/entry" }), 404, "not_found"),
            (json!({ "entry": EVERYTHING, "name": "Bad_Name" }), 422, "validation_failed"),
            (json!({ "entry": EVERYTHING, "name": "x\u{202e}y" }), 422, "validation_failed"),
            (json!({ "entry": EVERYTHING, "name": "../../etc" }), 422, "validation_failed"),
            (json!({ "entry": EVERYTHING, "surprise": 1 }), 422, "validation_failed"),
            (json!({ "entry": EVERYTHING, "inputs": { "NOPE": "1" } }), 422, "validation_failed"),
            (json!({ "entry": EVERYTHING, "environment": { "A-B": "1" } }), 422, "validation_failed"),
            (json!({ "entry": EVERYTHING, "toolbox": "nowhere" }), 422, "validation_failed"),
            (json!({ "entry": EVERYTHING, "credentials": { "KEY": "nothing" } }), 422, "credential_missing"),
            (json!({ "entry": EVERYTHING, "package": "nuget" }), 422, "validation_failed"),
            (json!({ "entry": EVERYTHING, "package": "pypi" }), 422, "unsupported_by_engine"),
            (json!({ "entry": EVERYTHING, "rollout_timeout_ms": 1 }), 422, "validation_failed"),
            (json!({ "url": "file:///etc/passwd", "name": "f" }), 422, "validation_failed"),
        ] {
            let answer = t.post("/api/v1/servers", body.clone()).await;
            assert_eq!((answer.status.as_u16(), answer.code()), (status, code), "{body}: {}", answer.text);
            assert!(!answer.text.contains('\u{202e}'), "hidden characters are escaped: {}", answer.text);
        }
        assert_eq!(t.get("/api/v1/servers").await.expect(200).body["items"], json!([]));
        for path in ["/api/v1/servers/none", "/api/v1/servers/none/rollout", "/api/v1/servers/none/revisions"] {
            t.get(path).await.expect(404);
        }
    }

    async fn a_remotes_header_that_may_not_be_set_or_cannot_be_sent_is_refused_with_its_input(engine) {
        let t = TestControl::start(engine).await;
        let url = "https://mcp.example.test/mcp";
        let remote = |what: &str, given: Value| json!({ "name": "r", "url": url, what: given, "start": false });
        let refused = async |method: Method, path: &str, body: Value| {
            let answer = t.ask(method, path, Some(body)).await.expect(422);
            assert_eq!(answer.code(), "validation_failed", "{}", answer.text);
            answer.body["errors"][0]["field"].as_str().unwrap().to_owned()
        };
        for name in ["Host", "host", "Mcp-Session-Id", "mcp-protocol-version", "Content-Length"] {
            let body = remote("inputs", json!({ name: "x" }));
            assert_eq!(refused(Method::POST, "/api/v1/servers", body).await, format!("inputs.{name}"));
        }
        let bad = "Bearer secret-51d0\r\nHost: evil.test";
        for secret in [bad, "Bearer secret-51d0\n"] {
            let body = remote("inputs", json!({ "Authorization": secret }));
            assert_eq!(refused(Method::POST, "/api/v1/servers", body).await, "inputs.Authorization");
        }
        t.put("/api/v1/credentials/token", json!({ "secret": bad })).await.expect(200);
        let bound = remote("credentials", json!({ "Authorization": "token" }));
        assert_eq!(refused(Method::POST, "/api/v1/servers", bound.clone()).await, "credentials.Authorization");
        t.get("/api/v1/servers/r").await.expect(404);
        t.put("/api/v1/credentials/token", json!({ "secret": "Bearer secret-51d0" })).await.expect(200);
        t.post("/api/v1/servers", bound).await.expect(201);
        let update = json!({ "inputs": { "X-Region": "eu\n" } });
        assert_eq!(refused(Method::PATCH, "/api/v1/servers/r", update).await, "inputs.X-Region");
        // Nor does it become one when the credential gets another secret, as long as a server gets it in a header.
        let with_line_break = json!({ "secret": "Bearer secret-51d0\n" });
        assert_eq!(refused(Method::PUT, "/api/v1/credentials/token", with_line_break.clone()).await, "secret");
        t.patch("/api/v1/servers/r", json!({ "unset_environment": ["Authorization"] })).await.expect(202);
        t.put("/api/v1/credentials/token", with_line_break).await.expect(200);
        assert_eq!(t.get("/api/v1/credentials").await.expect(200).body["items"].as_array().unwrap().len(), 1);
        // One that has come to be there all the same keeps nobody from changing something else.
        t.post("/api/v1/servers/r/rollback", json!({ "revision": 1 })).await.expect(202);
        let other = json!({ "start_timeout_ms": 70_000, "credentials": { "Authorization": "token" } });
        t.patch("/api/v1/servers/r", other).await.expect(202);
        let again = json!({ "credentials": { "X-Token": "token" } });
        assert_eq!(refused(Method::PATCH, "/api/v1/servers/r", again).await, "credentials.X-Token");
        // In an environment it is a text like any other.
        let body = json!({ "name": "s", "entry": EVERYTHING, "environment": { "CERTIFICATE": "a\nb\n" }, "start": false });
        t.post("/api/v1/servers", body).await.expect(201);
    }

    async fn a_secret_with_a_nul_character_is_refused_when_it_is_written_and_when_it_is_passed(engine) {
        let t = TestControl::start(engine).await;
        let refused = async |method: Method, path: &str, body: Value| {
            let answer = t.ask(method, path, Some(body)).await.expect(422);
            assert_eq!(answer.code(), "validation_failed", "{}", answer.text);
            assert!(answer.text.contains("NUL") && !answer.text.contains("secret-51d0"), "{}", answer.text);
            answer.body["errors"][0]["field"].as_str().unwrap().to_owned()
        };
        let bad = "secret-51d0\u{0}";
        let written = json!({ "secret": bad });
        assert_eq!(refused(Method::PUT, "/api/v1/credentials/token", written.clone()).await, "secret");
        t.put("/api/v1/credentials/token", json!({ "secret": "secret-51d0" })).await.expect(200);
        assert_eq!(refused(Method::PUT, "/api/v1/credentials/token", written).await, "secret");
        let entry = json!({ "name": "io.example/keyed", "description": "x", "version": "1.0.0", "packages": [{
            "registryType": "npm", "identifier": "keyed", "version": "1.0.0", "transport": { "type": "stdio" },
            "environmentVariables": [{ "name": "API_KEY", "isSecret": true }, { "name": "REGION" }] }] });
        t.post("/api/v1/catalog/entries", json!({ "server": entry })).await.expect(201);
        let server = |what: &str, given: Value| {
            json!({ "name": "s", "entry": "io.example/keyed", what: given, "start": false })
        };
        for (what, name) in [("inputs", "API_KEY"), ("inputs", "REGION"), ("environment", "OTHER")] {
            let body = server(what, json!({ name: bad }));
            assert_eq!(refused(Method::POST, "/api/v1/servers", body).await, format!("{what}.{name}"));
        }
        t.get("/api/v1/servers/s").await.expect(404);
        t.post("/api/v1/servers", server("inputs", json!({ "API_KEY": "a\nb" }))).await.expect(201);
        let update = json!({ "inputs": { "API_KEY": bad } });
        assert_eq!(refused(Method::PATCH, "/api/v1/servers/s", update).await, "inputs.API_KEY");
    }

    async fn a_secret_that_cannot_be_part_of_a_remotes_url_is_refused_with_its_input(engine) {
        let t = TestControl::start(engine).await;
        let entry = json!({ "name": "io.example/far", "description": "x", "version": "1.0.0", "remotes": [{
            "type": "streamable-http", "url": "https://mcp.example.test/{key}/mcp?region={region}",
            "variables": { "key": { "isSecret": true }, "region": { "default": "eu" } } }] });
        t.post("/api/v1/catalog/entries", json!({ "server": entry })).await.expect(201);
        let refused = async |method: Method, path: &str, body: Value| {
            let answer = t.ask(method, path, Some(body)).await.expect(422);
            assert_eq!(answer.code(), "validation_failed", "{}", answer.text);
            assert!(!answer.text.contains("secret-51d0"), "{}", answer.text);
            answer.body["errors"][0]["field"].as_str().unwrap().to_owned()
        };
        let far = |what: &str, given: Value| json!({ "name": "r", "entry": "io.example/far", what: given, "start": false });
        for bad in ["secret-51d0\n", "secret 51d0", "secret-51d0\u{0}"] {
            let body = far("inputs", json!({ "key": bad }));
            assert_eq!(refused(Method::POST, "/api/v1/servers", body).await, "inputs.key", "{bad:?}");
        }
        let plain = far("inputs", json!({ "key": "k", "region": "eu\n" }));
        assert_eq!(refused(Method::POST, "/api/v1/servers", plain).await, "url");
        let with_line_break = json!({ "secret": "secret-51d0\n" });
        t.put("/api/v1/credentials/token", with_line_break.clone()).await.expect(200);
        let bound = far("credentials", json!({ "key": "token" }));
        assert_eq!(refused(Method::POST, "/api/v1/servers", bound.clone()).await, "credentials.key");
        t.get("/api/v1/servers/r").await.expect(404);
        t.put("/api/v1/credentials/token", json!({ "secret": "secret-51d0" })).await.expect(200);
        t.post("/api/v1/servers", bound).await.expect(201);
        assert_eq!(refused(Method::PUT, "/api/v1/credentials/token", with_line_break).await, "secret");
    }

    async fn a_remote_server_has_no_log_here_and_whoever_asks_is_told_where_it_is(engine) {
        let t = TestControl::start(engine).await;
        let body = json!({ "name": "far", "url": "https://mcp.example.test/mcp", "start": false });
        t.post("/api/v1/servers", body).await.expect(201);
        for query in ["", "?follow=true", "?previous=true", "?revision=1"] {
            let answer = t.get(&format!("/api/v1/servers/far/logs{query}")).await.expect(409);
            let detail = answer.body["detail"].as_str().unwrap();
            assert!(detail.contains("server `far` is remote") && detail.contains("its log is there"), "{detail}");
        }
    }

    async fn a_server_of_which_nothing_ran_has_no_log_and_whoever_asks_is_told_so(engine) {
        let t = TestControl::start(engine).await;
        t.post("/api/v1/servers", json!({ "name": "s", "entry": EVERYTHING, "start": false })).await.expect(201);
        for (query, why) in [
            ("", "nothing of server `s` has run yet"),
            ("?previous=true", "no instance of server `s` has ended lately"),
            ("?revision=1", "no instance of revision 1 of server `s` is known"),
            ("?revision=99", "revision 99 of server `s` does not exist"),
        ] {
            let refused = t.get(&format!("/api/v1/servers/s/logs{query}")).await.expect(404);
            let detail = refused.body["detail"].as_str().unwrap();
            assert!(detail.contains(why), "{query}: {detail}");
        }
    }

    async fn lists_page_search_and_filter_by_phase(engine) {
        let t = TestControl::start(engine).await;
        for number in 0..5 {
            let body = json!({ "name": format!("s{number}"), "entry": EVERYTHING, "start": number % 2 == 0 });
            t.post("/api/v1/servers", body).await.expect(201);
        }
        let names = |body: &Value| -> Vec<String> {
            body["items"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap().to_owned()).collect()
        };
        let first = t.get("/api/v1/servers?limit=2").await.expect(200).body;
        assert_eq!(names(&first), ["s0", "s1"]);
        let next = format!("/api/v1/servers?limit=3&cursor={}", first["next_cursor"].as_str().unwrap());
        let rest = t.get(&next).await.expect(200).body;
        assert_eq!(names(&rest), ["s2", "s3", "s4"]);
        assert_eq!(rest.get("next_cursor"), None);
        assert_eq!(names(&t.get("/api/v1/servers?phase=stopped").await.expect(200).body), ["s1", "s3"]);
        assert_eq!(names(&t.get("/api/v1/servers?phase=stopped&limit=1&cursor=s1").await.expect(200).body), ["s3"]);
        assert_eq!(names(&t.get("/api/v1/servers?search=S4").await.expect(200).body), ["s4"]);
        assert_eq!(names(&t.get("/api/v1/servers?search=%25").await.expect(200).body), Vec::<String>::new());
        t.get("/api/v1/servers?limit=0").await.expect(422);
    }

    async fn secrets_become_credentials_and_reach_only_the_agent(engine) {
        const CANARY: &str = "canary-7c1f-super-secret";
        let t = TestControl::start(engine).await;
        let agent = FakeAgent::local(&t.control).await;
        t.put("/api/v1/credentials/own", json!({ "secret": CANARY })).await;
        let body = json!({ "name": "s", "entry": EVERYTHING, "credentials": { "TOKEN": "own" } });
        t.post("/api/v1/servers", body).await.expect(201);
        t.wait_rollout("s", "done").await;
        let secrets: Vec<_> =
            agent.state().desired.instances[0].secrets.values().map(|secret| secret.expose().to_owned()).collect();
        assert_eq!(secrets, [CANARY]);
        for path in ["/api/v1/servers/s", "/api/v1/servers/s/revisions", "/api/v1/servers/s/rollout", "/api/v1/servers"] {
            assert!(!t.get(path).await.text.contains(CANARY), "{path}");
        }
        t.delete("/api/v1/credentials/own").await.expect(409);
    }

    async fn a_secret_input_is_asked_for_and_becomes_a_credential_of_its_server(engine) {
        const ENTRY: &str = "io.github.brave/brave-search-mcp-server";
        const CANARY: &str = "canary-51d0-brave-key";
        let t = TestControl::start(engine).await;
        let agent = FakeAgent::local(&t.control).await;
        let without = t.post("/api/v1/servers", json!({ "name": "brave", "entry": ENTRY })).await.expect(422);
        assert_eq!(without.code(), "credential_missing");
        assert!(without.body["detail"].as_str().unwrap().contains("BRAVE_API_KEY"));
        // However it is passed, also as a plain variable.
        let body = json!({ "name": "brave", "entry": ENTRY, "environment": { "BRAVE_API_KEY": CANARY } });
        t.post("/api/v1/servers", body).await.expect(201);
        t.wait_rollout("brave", "done").await;
        let secrets: Vec<_> =
            agent.state().desired.instances[0].secrets.values().map(|secret| secret.expose().to_owned()).collect();
        assert_eq!(secrets, [CANARY]);
        let credentials = t.get("/api/v1/credentials").await.expect(200);
        assert_eq!(credentials.body["items"][0]["name"], "brave-brave-api-key");
        // A new secret is a new revision, so that a rollback has the old one.
        let next = json!({ "inputs": { "BRAVE_API_KEY": "another-canary-51d0" } });
        t.patch("/api/v1/servers/brave", next).await.expect(202);
        t.wait("/api/v1/servers/brave", |_, body| body["revision"] == 2).await;
        for path in ["/api/v1/servers/brave/revisions", "/api/v1/servers/brave", "/api/v1/credentials", "/api/v1/audit"] {
            let text = t.get(path).await.text;
            assert!(!text.contains("canary-51d0"), "{path}: {text}");
        }
    }

    async fn the_credentials_of_a_servers_inputs_go_with_the_last_server_that_has_them(engine) {
        const ENTRY: &str = "io.github.brave/brave-search-mcp-server";
        let t = TestControl::start(engine).await;
        let _agent = FakeAgent::local(&t.control).await;
        t.put("/api/v1/credentials/own", json!({ "secret": "x" })).await.expect(200);
        let inputs = json!({ "BRAVE_API_KEY": "y" });
        let body = json!({ "name": "a", "entry": ENTRY, "inputs": inputs, "credentials": { "OTHER": "own" }, "start": false });
        t.post("/api/v1/servers", body).await.expect(201);
        t.post("/api/v1/servers/a/clone", json!({ "name": "b" })).await.expect(201);
        t.delete("/api/v1/servers/a").await.expect(202);
        t.wait("/api/v1/servers/a", |status, _| status == 404).await;
        t.get("/api/v1/credentials/a-brave-api-key").await.expect(200);
        t.delete("/api/v1/servers/b").await.expect(202);
        t.wait("/api/v1/servers/b", |status, _| status == 404).await;
        t.get("/api/v1/credentials/a-brave-api-key").await.expect(404);
        t.get("/api/v1/credentials/own").await.expect(200);
    }

    async fn a_new_secret_reaches_the_agent_at_once(engine) {
        let t = TestControl::start(engine).await;
        let agent = FakeAgent::local(&t.control).await;
        t.put("/api/v1/credentials/own", json!({ "secret": "old" })).await.expect(200);
        let body = json!({ "name": "s", "entry": EVERYTHING, "credentials": { "TOKEN": "own" } });
        t.post("/api/v1/servers", body).await.expect(201);
        t.wait_rollout("s", "done").await;
        t.put("/api/v1/credentials/own", json!({ "secret": "new" })).await.expect(200);
        let has_it = || {
            let state = agent.state();
            state.desired.instances.iter().any(|it| it.secrets.values().any(|secret| secret.expose() == "new"))
        };
        t.wait("/api/v1/servers/s", |_, _| has_it()).await;
    }

    async fn a_credential_that_cannot_be_opened_costs_only_the_servers_that_need_it(engine) {
        let t = TestControl::start(engine).await;
        let agent = FakeAgent::local(&t.control).await;
        t.put("/api/v1/credentials/own", json!({ "secret": "old" })).await.expect(200);
        let body = json!({ "name": "s", "entry": EVERYTHING, "credentials": { "TOKEN": "own" } });
        t.post("/api/v1/servers", body).await.expect(201);
        t.wait_rollout("s", "done").await;
        let (clock, toolbox) = (t.clock.clone(), t.control.local_toolbox().await.unwrap().unwrap());
        // Started again with another master key, as when a key file was lost for ever.
        let t = TestControl::with(t.stop().await, clock, |options| {
            let current = toolyard_types::Secret::new("07".repeat(32));
            options.vault_keys = toolyard_control::VaultKeys::Given { current, previous: Vec::new() };
            options.vault_key_lost = true;
        }).await;
        let _agent = agent.continue_with(&t.control, toolbox);
        t.deploy("other").await;
        t.post("/api/v1/toolboxes", json!({ "name": "edge" })).await.expect(201);
    }

    async fn a_credential_sealed_with_another_master_key_is_marked_and_its_server_names_it_until_it_is_set_again(engine) {
        let t = TestControl::start(engine).await;
        let agent = FakeAgent::local(&t.control).await;
        t.put("/api/v1/credentials/own", json!({ "secret": "old" })).await.expect(200);
        assert!(t.get("/api/v1/credentials/own").await.expect(200).body["unreadable"].is_null());
        let body = json!({ "name": "s", "entry": EVERYTHING, "credentials": { "TOKEN": "own" } });
        t.post("/api/v1/servers", body).await.expect(201);
        t.wait_rollout("s", "done").await;
        let (clock, toolbox) = (t.clock.clone(), t.control.local_toolbox().await.unwrap().unwrap());
        let t = TestControl::with(t.stop().await, clock, |options| {
            let current = toolyard_types::Secret::new("07".repeat(32));
            options.vault_keys = toolyard_control::VaultKeys::Given { current, previous: Vec::new() };
            options.vault_key_lost = true;
        }).await;
        let agent = agent.continue_with(&t.control, toolbox);
        t.put("/api/v1/credentials/fresh", json!({ "secret": "new" })).await.expect(200);
        let listed = t.get("/api/v1/credentials").await.expect(200).body;
        let marked = |name: &str| {
            let found = listed["items"].as_array().unwrap().iter().find(|item| item["name"] == name);
            found.is_some_and(|item| item["unreadable"] == true)
        };
        assert!(marked("own") && !marked("fresh"), "{listed}");
        assert_eq!(t.get("/api/v1/credentials/own").await.expect(200).body["unreadable"], true);

        t.post("/api/v1/servers/s/restart", json!({})).await.expect(202);
        let why = "credential `own` was sealed with another master key; set it again: toolyard credentials set own";
        let told = || agent.state().desired.instances.iter().any(|it| it.missing.values().any(|told| told == why));
        t.wait("/api/v1/servers/s", |_, _| told()).await;

        t.put("/api/v1/credentials/own", json!({ "secret": "new" })).await.expect(200);
        assert!(t.get("/api/v1/credentials/own").await.expect(200).body["unreadable"].is_null());
        let has_it = || {
            let state = agent.state();
            state.desired.instances.iter().all(|it| it.missing.is_empty())
                && state.desired.instances.iter().any(|it| it.secrets.values().any(|secret| secret.expose() == "new"))
        };
        t.wait("/api/v1/servers/s", |_, _| has_it()).await;
    }

    async fn a_key_narrowed_to_a_toolset_cannot_add_servers_to_it(engine) {
        let t = TestControl::start(engine).await;
        let _agent = FakeAgent::local(&t.control).await;
        for name in ["mine", "theirs"] {
            let body = json!({ "name": name, "entry": EVERYTHING, "start": false });
            t.post("/api/v1/servers", body).await.expect(201);
        }
        let toolset = |servers: &[&str]| {
            let members: Vec<_> = servers.iter().map(|server| json!({ "server": server })).collect();
            json!({ "name": "set", "description": "", "members": members })
        };
        t.post("/api/v1/toolsets", toolset(&["mine"])).await.expect(201);
        let key = json!({ "name": "k", "role": "developer", "scope": { "resources": ["set"] } });
        let key = t.post("/api/v1/keys", key).await.expect(201).body["key"].as_str().unwrap().to_owned();
        let put = async |body| t.ask_as(&key, http::Method::PUT, "/api/v1/toolsets/set", Some(body)).await;
        put(toolset(&["mine", "theirs"])).await.expect(403);
        put(toolset(&["mine"])).await.expect(200);
    }

    async fn a_brief_list_leaves_out_what_is_long(engine) {
        let t = TestControl::start(engine).await;
        let _agent = FakeAgent::local(&t.control).await;
        t.deploy("s").await;
        let log = |list: &Value| list["items"][0]["rollout"]["log"].as_array().map_or(0, Vec::len);
        let whole = t.get("/api/v1/servers").await.expect(200).body;
        let brief = t.get("/api/v1/servers?brief=true").await.expect(200).body;
        assert!(log(&whole) > 0);
        assert_eq!(log(&brief), 0);
        assert_eq!(brief["items"][0]["instances"][0]["mcp"]["tool_names"].as_array().map_or(0, Vec::len), 0);
        assert_eq!(brief["items"][0]["instances"][0]["id"], whole["items"][0]["instances"][0]["id"]);
    }

    async fn a_toolset_names_and_describes_tools_anew(engine) {
        let t = TestControl::start(engine).await;
        t.post("/api/v1/servers", json!({ "name": "s", "entry": EVERYTHING, "start": false })).await.expect(201);
        let toolset = |overrides: Value| json!({ "name": "all", "members": [{ "server": "s", "overrides": overrides }] });
        let said = json!({ "echo": { "name": "say", "description": "Says it.\nAgain." } });
        let made = t.post("/api/v1/toolsets", toolset(said.clone())).await.expect(201);
        assert_eq!(made.body["members"][0]["overrides"], said);
        for (wrong, field) in [
            (json!({ "echo": { "name": "s__add" } }), "members.0.overrides.echo.name"),
            (json!({ "echo": { "name": "a b" } }), "members.0.overrides.echo.name"),
            (json!({ "echo": { "name": "x".repeat(65) } }), "members.0.overrides.echo.name"),
            (json!({ "a": { "name": "same" }, "b": { "name": "same" } }), "members.0.overrides.b.name"),
            (json!({ "echo": { "description": "\u{202e}" } }), "members.0.overrides.echo.description"),
        ] {
            let refused = t.put("/api/v1/toolsets/all", toolset(wrong)).await.expect(422);
            assert_eq!(refused.body["errors"][0]["field"], field);
        }
    }

    async fn what_an_organization_has_in_the_memory_of_gateways_is_bounded(engine) {
        let t = TestControl::start(engine).await;
        t.post("/api/v1/servers", json!({ "name": "s", "entry": EVERYTHING, "start": false })).await.expect(201);
        let overrides = |tools: usize| -> Value {
            let tools = (0..tools).map(|number| (format!("t{number}"), json!({ "description": "d".repeat(1000) })));
            Value::Object(tools.collect())
        };
        let toolset = |name: &str, tools: usize| {
            json!({ "name": name, "members": [{ "server": "s", "overrides": overrides(tools) }] })
        };
        let refused = t.post("/api/v1/toolsets", toolset("large", 300)).await.expect(422);
        let why = &refused.body["errors"][0];
        assert_eq!(why["field"], "members");
        assert!(why["message"].as_str().unwrap().contains("may take 256 KiB; these take 30"), "{why}");
        let mut made = 0;
        let refused = loop {
            let answer = t.post("/api/v1/toolsets", toolset(&format!("t{made}"), 240)).await;
            if answer.status != 201 {
                break answer.expect(422);
            }
            made += 1;
        };
        assert!((60..70).contains(&made), "{made}");
        let why = refused.body["errors"][0]["message"].as_str().unwrap().to_owned();
        assert!(why.contains("16 MiB together"), "{why}");
        // What becomes no larger is taken.
        t.put("/api/v1/toolsets/t0", toolset("t0", 200)).await.expect(200);

        let resources: Vec<_> = (0..200).map(|number| format!("{number:0>40}")).collect();
        let scope = json!({ "resources": resources, "credentials": resources });
        let store = t.database().open(t.clock.clone()).await;
        let default = t.control.snapshots().borrow().organizations[&Name::new("default").unwrap()].id;
        let mut tx = store.org(default).await.unwrap();
        for number in 0..280 {
            let key = NewApiKey {
                id: ApiKeyId::generate(),
                name: Name::new(format!("k{number}")).unwrap(),
                prefix: "ty_x".into(),
                hash: format!("{number:0>64}"),
                role: Role::Viewer,
                scope: Some(serde_json::from_value(scope.clone()).unwrap()),
                created_by: "test".into(),
                expires_at: None,
            };
            tx.create_api_key(&key).await.unwrap();
        }
        tx.commit().await.unwrap();
        store.close().await;
        let key = json!({ "name": "more", "role": "viewer", "scope": scope });
        let refused = t.post("/api/v1/keys", key).await.expect(409);
        assert!(refused.body["detail"].as_str().unwrap().contains("4 MiB"), "{}", refused.text);
    }

    async fn an_organization_that_cannot_be_read_keeps_no_change_of_another_from_the_gateway(engine) {
        let t = TestControl::start(engine).await;
        t.post("/api/v1/servers", json!({ "name": "s", "entry": EVERYTHING, "start": false })).await.expect(201);
        let other = Name::new("other").unwrap();
        let store = t.database().open(t.clock.clone()).await;
        let mut tx = store.system("making a second tenant").await.unwrap();
        let organization = tx.create_organization(&other).await.unwrap();
        let mut tx = tx.into_org(organization.id);
        let name = Name::new("theirs").unwrap();
        tx.take_name(&name, "toolset").await.unwrap();
        let (members, now) = (Vec::new(), t.clock.now());
        let id = ToolsetId::generate();
        let description = String::new();
        let row = ToolsetRow { id, name, description, members, version: 1, created_at: now, updated_at: now };
        tx.insert_toolset(&row).await.unwrap();
        tx.event(EventKind::ToolsetChanged, "toolset/theirs".to_owned(), json!({ "id": id }));
        tx.commit().await.unwrap();
        let mut snapshots = t.control.snapshots();
        let knows = |snapshot: &Arc<Snapshot>| {
            snapshot.organizations.get(&other).is_some_and(|it| it.toolsets.contains_key("theirs"))
        };
        snapshots.wait_for(knows).await.unwrap();

        t.database().break_toolset("theirs").await;
        let mut tx = store.org(organization.id).await.unwrap();
        tx.event(EventKind::ToolsetChanged, "toolset/theirs".to_owned(), json!({ "id": id }));
        tx.commit().await.unwrap();
        for round in 0..3 {
            t.clock.step_ms(1000);
            let name = format!("t{round}");
            let body = json!({ "name": name, "members": [{ "server": "s" }] });
            t.post("/api/v1/toolsets", body).await.expect(201);
            let snapshot = snapshots.borrow_and_update().clone();
            assert!(snapshot.organizations["default"].toolsets.contains_key(name.as_str()));
            assert!(knows(&snapshot), "what was known of it stays");
            // Gateways serve it for as long as such a picture may be old.
            assert!(snapshot.made_at_of(organization.id) < snapshot.made_at, "{:?}", snapshot.behind);
        }
        t.database().mend_toolset("theirs").await;
        snapshots.wait_for(|snapshot| snapshot.behind.is_empty()).await.unwrap();
        store.close().await;
    }

    async fn what_was_made_changed_or_deleted_is_so_at_the_gateway_when_the_answer_is_given(engine) {
        let t = TestControl::start(engine).await;
        let default = Name::new("default").unwrap();
        let at_gateway = || t.control.snapshots().borrow().clone();
        t.post("/api/v1/servers", json!({ "name": "s", "entry": EVERYTHING })).await.expect(201);
        assert!(at_gateway().organizations[&default].servers.contains_key("s"));
        for round in 0..20 {
            let name = format!("k{round}");
            let made = t.post("/api/v1/keys", json!({ "name": name, "role": "developer" })).await.expect(201);
            let known = |snapshot: &Snapshot| snapshot.keys.values().any(|grant| grant.name == name);
            assert!(known(&at_gateway()));
            let id = made.body["api_key"]["id"].as_str().or(made.body["id"].as_str()).unwrap().to_owned();
            t.delete(&format!("/api/v1/keys/{id}")).await.expect(204);
            assert!(!known(&at_gateway()));
        }
        let toolset = |tools: Value| json!({ "name": "all", "members": [{ "server": "s", "tools": tools }] });
        t.post("/api/v1/toolsets", toolset(json!(["echo"]))).await.expect(201);
        let tools = || at_gateway().organizations[&default].toolsets.get("all").map(|it| it.members[0].tools.clone());
        assert_eq!(tools(), Some(Some(vec!["echo".to_owned()])));
        t.put("/api/v1/toolsets/all", toolset(json!(["add"]))).await.expect(200);
        assert_eq!(tools(), Some(Some(vec!["add".to_owned()])));
        t.delete("/api/v1/toolsets/all").await.expect(204);
        assert_eq!(tools(), None);
    }

    async fn toolsets_share_the_name_space_with_servers(engine) {
        let t = TestControl::start(engine).await;
        t.post("/api/v1/servers", json!({ "name": "s", "entry": EVERYTHING })).await.expect(201);
        let body = json!({ "name": "all", "description": "d", "members": [{ "server": "s" }] });
        let made = t.post("/api/v1/toolsets", body.clone()).await.expect(201);
        assert_eq!(made.body["mcp_path"], "/mcp/default/toolsets/all");
        t.post("/api/v1/toolsets", body).await.expect(409);
        t.post("/api/v1/servers", json!({ "name": "all", "entry": EVERYTHING })).await.expect(409);
        t.post("/api/v1/toolsets", json!({ "name": "s", "members": [{ "server": "s" }] })).await.expect(409);
        let unknown = json!({ "name": "bad", "members": [{ "server": "nope" }] });
        assert_eq!(t.post("/api/v1/toolsets", unknown).await.expect(422).body["errors"][0]["field"], "members.0.server");
        let change = json!({ "name": "all", "members": [{ "server": "s", "tools": ["echo"] }] });
        let changed = t.put("/api/v1/toolsets/all", change).await.expect(200);
        assert_eq!(changed.body["members"][0]["tools"], json!(["echo"]));
        t.delete("/api/v1/toolsets/all").await.expect(204);
        t.get("/api/v1/toolsets/all").await.expect(404);
    }

    async fn another_tenants_things_do_not_exist(engine) {
        let t = TestControl::start(engine).await;
        let store = t.database().open(t.clock.clone()).await;
        let mut tx = store.system("making a second tenant").await.unwrap();
        let other = tx.create_organization(&Name::new("other").unwrap()).await.unwrap();
        let tx = tx.into_org(other.id);
        let name = Name::new("theirs").unwrap();
        tx.take_name(&name, "toolset").await.unwrap();
        let row = ToolsetRow {
            id: ToolsetId::generate(),
            name,
            description: String::new(),
            members: Vec::new(),
            version: 1,
            created_at: t.clock.now(),
            updated_at: t.clock.now(),
        };
        tx.insert_toolset(&row).await.unwrap();
        tx.commit().await.unwrap();
        t.get("/api/v1/toolsets/theirs").await.expect(404);
        t.delete("/api/v1/toolsets/theirs").await.expect(404);
        assert_eq!(t.get("/api/v1/toolsets").await.expect(200).body["items"], json!([]));
        // A name taken there is free here.
        t.post("/api/v1/servers", json!({ "name": "theirs", "entry": EVERYTHING })).await.expect(201);
        store.close().await;
    }

    async fn an_image_is_refused_where_only_processes_run(engine) {
        let t = TestControl::start(engine).await;
        let _agent = FakeAgent::local(&t.control).await;
        t.wait("/api/v1/toolboxes/local", |_, body| body["state"] == "online").await;
        let body = json!({ "name": "image", "entry": "io.github.hashicorp/terraform-mcp-server", "package": "oci" });
        t.post("/api/v1/servers", body).await.expect(201);
        let failed = t.wait_rollout("image", "failed").await;
        assert_eq!(failed["reason"], "unsupported_by_engine");
    }

    async fn what_cannot_be_resolved_fails_with_the_reason(engine) {
        let t = TestControl::start(engine).await;
        let agent = FakeAgent::local(&t.control).await;
        agent.refuse_to_resolve(Reason::PackageNotFound, "npm has no such package");
        t.post("/api/v1/servers", json!({ "name": "s", "entry": EVERYTHING })).await.expect(201);
        let failed = t.wait_rollout("s", "failed").await;
        assert_eq!((failed["phase"].as_str(), failed["reason"].as_str()), (Some("failed"), Some("package_not_found")));
        assert!(failed["message"].as_str().unwrap().contains("npm has no such package"));
        let ended = t.wait("/api/v1/servers/s", |_, body| body["instances"] == json!([])).await;
        assert_eq!(ended["enabled"], true);
    }

    async fn without_a_toolbox_a_server_waits_and_says_so(engine) {
        let t = TestControl::start(engine).await;
        t.post("/api/v1/servers", json!({ "name": "s", "entry": EVERYTHING })).await.expect(201);
        let waiting = t.wait("/api/v1/servers/s", |_, body| body["reason"] == "awaiting_toolbox").await;
        assert_eq!(waiting["phase"], "pending");
        assert_eq!(waiting["message"], "no toolbox is online");
        let _agent = FakeAgent::local(&t.control).await;
        t.wait("/api/v1/servers/s", |_, body| body["phase"] == "ready").await;
    }

    async fn a_hanging_server_can_be_cancelled_and_deleted(engine) {
        let t = TestControl::start(engine).await;
        let agent = FakeAgent::local(&t.control).await;
        agent.behave("s", Behaviour::Hangs);
        t.post("/api/v1/servers", json!({ "name": "s", "entry": EVERYTHING })).await.expect(201);
        t.wait("/api/v1/servers/s", |_, body| body["phase"] == "starting").await;
        let cancelled = t.ask(Method::POST, "/api/v1/servers/s/rollout/cancel", None).await.expect(200);
        assert_eq!(cancelled.body["state"], "cancelled");
        t.ask(Method::POST, "/api/v1/servers/s/rollout/cancel", None).await.expect(409);
        t.wait("/api/v1/servers/s", |_, body| body["phase"] == "stopped" && body["instances"] == json!([])).await;
        t.delete("/api/v1/servers/s").await.expect(202);
        t.wait("/api/v1/servers/s", |status, _| status == 404).await;
    }
}
