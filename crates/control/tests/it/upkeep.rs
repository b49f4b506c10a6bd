//! Flags, audit, events, idempotency.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::body::Body;
use http::{Method, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use toolyard_types::Name;

use crate::harness::{Answer, OWNER_KEY, TestControl, both_engines};

async fn post_once(test: &TestControl, idempotency_key: &str, body: &Value) -> Answer {
    let request = Request::post("/api/v1/keys")
        .header("authorization", format!("Bearer {OWNER_KEY}"))
        .header("content-type", "application/json")
        .header("idempotency-key", idempotency_key);
    test.send(request.body(Body::from(body.to_string())).unwrap()).await
}

/// The events of a stream, one after another; fails when the next one does not come.
pub(crate) struct Events(Body, String);

impl Events {
    pub(crate) async fn open(test: &TestControl, key: &str, after: Option<i64>) -> Self {
        Self::open_with(test, ("authorization", &format!("Bearer {key}")), after).await
    }

    /// In a session or with a key, as the header says.
    pub(crate) async fn open_with(test: &TestControl, header: (&str, &str), after: Option<i64>) -> Self {
        let mut request = Request::get("/api/v1/events").header(header.0, header.1);
        if let Some(after) = after {
            request = request.header("last-event-id", after.to_string());
        }
        let response = test.stream(request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self(response.into_body(), String::new())
    }

    /// The next event, or `None` when the stream ended.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.1.find("\n\n") {
                let message: String = self.1.drain(..end + 2).collect();
                if let Some(data) = message.lines().find_map(|line| line.strip_prefix("data: ")) {
                    return Some(serde_json::from_str(data).unwrap());
                }
                continue;
            }
            let frame =
                tokio::time::timeout(Duration::from_secs(10), self.0.frame()).await.expect("an event in time")?;
            self.1.push_str(std::str::from_utf8(frame.unwrap().data_ref().unwrap()).unwrap());
        }
    }

    /// Every event until the stream ends, as its kind and subject.
    pub(crate) async fn rest(mut self) -> BTreeSet<String> {
        let mut heard = BTreeSet::new();
        while let Some(event) = self.next().await {
            heard.insert(format!("{} {}", event["kind"].as_str().unwrap(), event["subject"].as_str().unwrap()));
        }
        heard
    }

    pub(crate) async fn next_of(&mut self, kind: &str) -> Value {
        loop {
            let event = self.next().await.expect("the stream goes on");
            if event["kind"] == kind {
                return event;
            }
        }
    }
}

both_engines! {
    async fn a_repeated_creation_gets_the_first_answer_and_creates_nothing(engine) {
        let test = TestControl::start(engine).await;
        let body = json!({ "name": "ci", "role": "viewer" });
        let first = post_once(&test, "k1", &body).await.expect(201);
        let second = post_once(&test, "k1", &body).await.expect(201);
        assert_eq!((first.text, &second.headers["idempotent-replayed"]), (second.text, &"true".parse().unwrap()));
        let other = post_once(&test, "k1", &json!({ "name": "other", "role": "viewer" })).await.expect(422);
        assert_eq!(other.code(), "idempotency_mismatch");
        let keys = test.get("/api/v1/keys").await;
        assert_eq!(keys.body["items"].as_array().unwrap().len(), 2, "the bootstrap key and one more");
    }

    async fn a_creation_that_failed_can_be_repeated_with_its_key(engine) {
        let test = TestControl::start(engine).await;
        let body = json!({ "name": "taken", "role": "viewer" });
        let taken = test.post("/api/v1/keys", body.clone()).await.expect(201);
        post_once(&test, "k1", &body).await.expect(409);
        test.delete(&format!("/api/v1/keys/{}", taken.body["id"].as_str().unwrap())).await.expect(204);
        let again = post_once(&test, "k1", &body).await.expect(201);
        assert_eq!(again.body["name"], json!("taken"));
    }

    async fn of_many_equal_requests_at_once_one_creates(engine) {
        let test = TestControl::start(engine).await;
        let body = json!({ "name": "ci", "role": "viewer" });
        let answers = futures_util::future::join_all((0..8).map(|_| post_once(&test, "k1", &body))).await;
        assert!(answers.iter().all(|answer| [201, 409].contains(&answer.status.as_u16())));
        assert!(answers.iter().any(|answer| answer.status == 201));
        let keys = test.get("/api/v1/keys").await;
        assert_eq!(keys.body["items"].as_array().unwrap().len(), 2);
    }

    async fn what_was_done_and_what_was_refused_is_in_the_audit_log_newest_first(engine) {
        let test = TestControl::start(engine).await;
        test.put("/api/v1/credentials/a", json!({ "secret": "x" })).await.expect(200);
        let made = test.post("/api/v1/keys", json!({ "name": "viewer", "role": "viewer" })).await.expect(201);
        let viewer = made.body["key"].as_str().unwrap();
        test.ask_as(viewer, Method::PUT, "/api/v1/credentials/a", Some(json!({ "secret": "y" }))).await.expect(403);
        let audit = test.get("/api/v1/audit?limit=3").await.expect(200);
        let lines: Vec<_> = audit.body["items"].as_array().unwrap().iter()
            .map(|line| format!("{} {} {}", line["actor_display"], line["action"], line["outcome"]).replace('"', ""))
            .collect();
        assert_eq!(lines, ["viewer credential:manage refused", "bootstrap api_key.create done", "bootstrap credential.create done"]);
        assert!(audit.body["items"][0]["request_id"].is_string());
        test.ask_as(viewer, Method::GET, "/api/v1/audit", None).await.expect(403);
    }

    async fn a_flag_is_changed_live_and_an_empty_rule_restores_its_default(engine) {
        let test = TestControl::start(engine).await;
        let off = test.put("/api/v1/flags/server_clone", json!({ "everyone": false })).await.expect(200);
        assert_eq!((&off.body["enabled"], &off.body["default"]), (&json!(false), &json!(true)));
        let listed = test.get("/api/v1/flags").await.expect(200);
        let flag = listed.body["items"].as_array().unwrap().iter().find(|flag| flag["name"] == "server_clone").unwrap();
        assert_eq!(flag["enabled"], json!(false));
        let on = test.put("/api/v1/flags/server_clone", json!({})).await.expect(200);
        assert_eq!((&on.body["enabled"], &on.body["rule"]), (&json!(true), &json!(null)));
        test.put("/api/v1/flags/nonsense", json!({})).await.expect(404);
        test.put("/api/v1/flags/server_clone", json!({ "percentage": 101 })).await.expect(422);
    }

    async fn one_of_several_organizations_sees_and_sets_a_flag_for_itself_only(engine) {
        let test = TestControl::start(engine).await;
        let rule = json!({ "everyone": false, "organizations": { "other": true } });
        let alone = test.put("/api/v1/flags/server_clone", rule.clone()).await.expect(200);
        assert_eq!((&alone.body["enabled"], &alone.body["rule"]), (&json!(false), &rule));
        let store = test.database().open(test.clock.clone()).await;
        let mut tx = store.system("making a second tenant").await.unwrap();
        tx.create_organization(&Name::new("other").unwrap()).await.unwrap();
        tx.commit().await.unwrap();
        let stored = async || store.system_read("test").await.unwrap().flag_rules().await.unwrap().remove("server_clone");

        let listed = test.get("/api/v1/flags").await.expect(200);
        let flag = listed.body["items"].as_array().unwrap().iter().find(|flag| flag["name"] == "server_clone").unwrap();
        assert_eq!((&flag["enabled"], &flag["rule"]), (&json!(false), &json!(null)), "what holds for others is theirs");
        for foreign in [
            json!({ "everyone": true }),
            json!({ "percentage": 100 }),
            json!({ "organizations": { "default": true, "other": false } }),
            json!({ "organizations": { "nobody": true } }),
        ] {
            let refused = test.put("/api/v1/flags/server_clone", foreign).await.expect(403);
            assert!(refused.text.contains("give `default` alone"), "{}", refused.text);
        }
        let own = json!({ "organizations": { "default": true } });
        let on = test.put("/api/v1/flags/server_clone", own.clone()).await.expect(200);
        assert_eq!((&on.body["enabled"], &on.body["rule"]), (&json!(true), &own));
        let all = json!({ "everyone": false, "organizations": { "default": true, "other": true } });
        assert_eq!(json!(stored().await.unwrap()), all);
        let audit = test.get("/api/v1/audit?action=flag.update").await.expect(200);
        assert_eq!(audit.body["items"][0]["detail"], json!({ "rule": own }));
        let off = test.put("/api/v1/flags/server_clone", json!({})).await.expect(200);
        assert_eq!((&off.body["enabled"], &off.body["rule"]), (&json!(false), &json!(null)));
        assert_eq!(json!(stored().await.unwrap()), rule);
        store.close().await;
    }

    async fn a_flag_changed_on_one_replica_changes_on_the_other(engine) {
        if engine == crate::harness::Engine::Postgres {
            let test = TestControl::start(engine).await;
            let other = test.replica().await;
            test.put("/api/v1/flags/server_clone", json!({ "everyone": false })).await.expect(200);
            let enabled = async || {
                let listed = other.get("/api/v1/flags").await;
                let flags = listed.body["items"].as_array().unwrap();
                flags.iter().find(|flag| flag["name"] == "server_clone").unwrap()["enabled"].clone()
            };
            let changed = async { while enabled().await != json!(false) { tokio::task::yield_now().await; } };
            tokio::time::timeout(Duration::from_secs(5), changed).await.expect("the other replica hears of it");
        }
    }

    async fn live_events_continue_after_the_last_one_seen(engine) {
        let test = TestControl::start(engine).await;
        let mut events = Events::open(&test, OWNER_KEY, None).await;
        test.put("/api/v1/credentials/a", json!({ "secret": "x" })).await.expect(200);
        let first = events.next_of("credential.changed").await;
        assert_eq!(first["subject"], json!("credential/a"));
        drop(events);
        test.put("/api/v1/credentials/b", json!({ "secret": "x" })).await.expect(200);
        let mut events = Events::open(&test, OWNER_KEY, first["sequence"].as_i64()).await;
        assert_eq!(events.next_of("credential.changed").await["subject"], json!("credential/b"));
        test.put("/api/v1/credentials/c", json!({ "secret": "x" })).await.expect(200);
        assert_eq!(events.next_of("credential.changed").await["subject"], json!("credential/c"));
    }

    async fn everybody_hears_of_what_they_may_read_and_of_themselves(engine) {
        let test = TestControl::start(engine).await;
        let make = async |by: &str, key: Value| {
            let made = test.ask_as(by, Method::POST, "/api/v1/keys", Some(key)).await.expect(201);
            (made.body["id"].as_str().unwrap().to_owned(), made.body["key"].as_str().unwrap().to_owned())
        };
        let of_role = async |role: &str| make(OWNER_KEY, json!({ "name": role, "role": role })).await;
        let narrowed = async |name: &str, scope: Value| {
            make(OWNER_KEY, json!({ "name": name, "role": "owner", "scope": scope })).await
        };
        let (viewer, developer) = (of_role("viewer").await, of_role("developer").await);
        let (operator, admin) = (of_role("operator").await, of_role("admin").await);
        let follows = narrowed("follows", json!({ "actions": ["event:read"] })).await;
        let reads_keys = narrowed("reads-keys", json!({ "actions": ["event:read", "key:read"] })).await;
        let one = json!({ "actions": ["event:read", "credential:read"], "credentials": ["a"] });
        let reads_one = narrowed("reads-one", one).await;

        let own = make(&developer.1, json!({ "name": "own", "role": "developer" })).await;
        let child = make(&own.1, json!({ "name": "child", "role": "viewer" })).await;
        let other = make(OWNER_KEY, json!({ "name": "other", "role": "viewer" })).await;
        let member = json!({ "email": "m@example.test", "role": "viewer", "password": "a-first-password" });
        let member = test.post("/api/v1/members", member).await.expect(201);
        let path = format!("/api/v1/members/{}", member.body["id"].as_str().unwrap());
        test.patch(&path, json!({ "password": "another-password" })).await.expect(200);
        for name in ["a", "b"] {
            test.put(&format!("/api/v1/credentials/{name}"), json!({ "secret": "x" })).await.expect(200);
        }
        test.put("/api/v1/flags/server_clone", json!({ "everyone": false })).await.expect(200);

        // A stream ends with its key, so that all of it was heard.
        let heard = async |(id, key): &(String, String)| {
            let events = Events::open(&test, key, Some(0)).await;
            test.delete(&format!("/api/v1/keys/{id}")).await.expect(204);
            events.rest().await
        };
        let (of_member, of_session) = (
            format!("member.changed member/{}", member.body["id"].as_str().unwrap()),
            format!("session.changed member/{}", member.body["id"].as_str().unwrap()),
        );
        let of_key = |key: &(String, String)| format!("api_key.changed api_key/{}", key.0);
        let (a, b) = ("credential.changed credential/a", "credential.changed credential/b");
        let flag = "flag.changed flag/server_clone";
        let about = |heard: &BTreeSet<String>, nouns: &[&str]| {
            let is_about = |event: &&String| nouns.iter().any(|noun| event.starts_with(*noun));
            heard.iter().filter(is_about).cloned().collect::<BTreeSet<_>>()
        };
        let people = ["member.", "session."];

        let seen = heard(&follows).await;
        let foreign = seen.iter().filter(|event| !event.ends_with(&follows.0) && !event.starts_with("organization."));
        assert_eq!(foreign.count(), 0, "{seen:?}");
        assert!(seen.contains(&of_key(&follows)), "{seen:?}");

        let seen = heard(&reads_keys).await;
        assert!(seen.contains(&of_key(&other)) && seen.contains(&of_key(&child)), "{seen:?}");
        assert!(about(&seen, &["member.", "session.", "credential.", "flag."]).is_empty(), "{seen:?}");

        let seen = heard(&reads_one).await;
        assert_eq!(about(&seen, &["member.", "session.", "credential.", "flag."]), BTreeSet::from([a.to_owned()]));
        assert_eq!(about(&seen, &["api_key.changed"]), BTreeSet::from([of_key(&reads_one)]));

        let seen = heard(&viewer).await;
        assert!(seen.contains(flag) && about(&seen, &["member.", "session.", "credential."]).is_empty(), "{seen:?}");
        assert_eq!(about(&seen, &["api_key.changed"]), BTreeSet::from([of_key(&viewer)]));

        let seen = heard(&developer).await;
        assert!([a, b, flag].iter().all(|event| seen.contains(*event)) && about(&seen, &people).is_empty(), "{seen:?}");
        let keys = BTreeSet::from([of_key(&developer), of_key(&own), of_key(&child)]);
        assert_eq!(about(&seen, &["api_key.changed"]), keys);

        // Who reads the audit log reads of all of it there.
        for key in [&operator, &admin] {
            let seen = heard(key).await;
            for event in [of_member.clone(), of_session.clone(), of_key(&other), of_key(&own), b.to_owned()] {
                assert!(seen.contains(&event), "{event} in {seen:?}");
            }
        }
    }

    async fn a_stream_of_events_ends_with_the_key_that_opened_it(engine) {
        let test = TestControl::start(engine).await;
        let made = test.post("/api/v1/keys", json!({ "name": "viewer", "role": "viewer" })).await.expect(201);
        let mut events = Events::open(&test, made.body["key"].as_str().unwrap(), None).await;
        test.delete(&format!("/api/v1/keys/{}", made.body["id"].as_str().unwrap())).await.expect(204);
        while events.next().await.is_some() {}
    }
}

both_engines! {
    async fn calls_that_the_gateway_recorded_are_listed_also_those_of_the_last_moment(engine) {
        use toolyard_types::snapshot::{CallOutcome, CallRecord};
        let test = TestControl::start(engine).await;
        let database = test.database().open(test.clock.clone()).await;
        let organization = database.system_read("test").await.unwrap().organizations().await.unwrap()[0].id;
        database.close().await;
        let sender = test.control.call_records();
        for number in 0..3 {
            let record = CallRecord {
                at: test.clock.now(), organization, actor: "api_key:1".into(), server: None, toolset: None,
                method: "tools/call".into(), target: format!("tool-{number}"), outcome: CallOutcome::Ok,
                duration_us: 10, request_bytes: 1, response_bytes: 2, request_id: "r".into(), revision: None,
            };
            sender.try_send(record).unwrap();
            // A call that drains ends after everything was told to stop, and before the control plane is shut down.
            test.stopping.cancel();
        }
        let clock = test.clock.clone();
        let test = TestControl::on(test.stop().await, clock).await;
        let first = test.get("/api/v1/calls?limit=2").await.expect(200);
        assert_eq!(first.body["items"][0]["target"], json!("tool-2"));
        let cursor = first.body["next_cursor"].as_str().unwrap();
        let second = test.get(&format!("/api/v1/calls?limit=2&cursor={cursor}")).await.expect(200);
        assert_eq!(second.body["items"][0]["target"], json!("tool-0"));
        test.get("/api/v1/calls?cursor=x").await.expect(422);
    }

    async fn call_records_that_the_database_refuses_wait_on_disk_over_a_restart_and_are_written_once(engine) {
        let test = TestControl::start(engine).await;
        let (clock, at) = (test.clock.clone(), test.clock.now());
        send_call(&test, "before").await;
        until_calls(&test, 1).await;
        test.database().refuse_calls(at, true).await;
        for number in 0..3 {
            send_call(&test, &format!("while-{number}")).await;
        }
        until_overview(&test, "records_waiting", 3).await;
        let test = TestControl::on(test.stop().await, clock).await;
        send_call(&test, "after").await;
        until_overview(&test, "records_waiting", 4).await;
        test.database().refuse_calls(at, false).await;
        until_calls(&test, 5).await;
        until_overview(&test, "records_waiting", 0).await;
        let overview = test.get("/api/v1/overview").await.expect(200);
        assert_eq!(overview.body["calls"]["records_lost"], json!(0));
        let waiting = test.database().dir().join("calls-waiting");
        assert_eq!(std::fs::read_dir(waiting).unwrap().count(), 0, "nothing is left behind");
    }
}

/// Leaves a record as the gateway does.
async fn send_call(test: &TestControl, target: &str) {
    use toolyard_types::snapshot::{CallOutcome, CallRecord};
    let database = test.database().open(test.clock.clone()).await;
    let organization = database.system_read("test").await.unwrap().organizations().await.unwrap()[0].id;
    database.close().await;
    let record = CallRecord {
        at: test.clock.now(),
        organization,
        actor: "api_key:1".into(),
        server: None,
        toolset: None,
        method: "tools/call".into(),
        target: target.to_owned(),
        outcome: CallOutcome::Ok,
        duration_us: 10,
        request_bytes: 1,
        response_bytes: 2,
        request_id: "r".into(),
        revision: None,
    };
    test.control.call_records().send(record).await.unwrap();
}

/// Waits until so many calls are listed; more must never be.
async fn until_calls(test: &TestControl, count: usize) {
    let wait = async {
        loop {
            let calls = test.get("/api/v1/calls?limit=100").await.expect(200);
            let found = calls.body["items"].as_array().unwrap().len();
            assert!(found <= count, "{}", calls.text);
            if found == count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("the calls are written");
}

async fn until_overview(test: &TestControl, number: &str, value: u64) {
    let wait = async {
        while test.get("/api/v1/overview").await.expect(200).body["calls"][number] != json!(value) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap_or_else(|_| panic!("{number} is never {value}"));
}
