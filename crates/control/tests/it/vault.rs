//! Credentials: what is stored, what is answered, and where a secret must never appear.

use std::io::Write;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use http::{Method, Request};
use serde_json::json;

use crate::harness::{Engine, OWNER_KEY, TestControl, both_engines};

const CANARY: &str = "canary-7f3a9c51e2";

both_engines! {
    async fn a_credential_is_listed_without_its_secret_and_a_new_secret_makes_a_new_version(engine) {
        let test = TestControl::start(engine).await;
        let body = json!({ "secret": CANARY, "description": "for the demo" });
        let made = test.put("/api/v1/credentials/github-token", body).await.expect(200);
        assert_eq!((&made.body["version"], &made.body["used_by"]), (&json!(1), &json!([])));
        let again = test.put("/api/v1/credentials/github-token", json!({ "secret": "another" })).await.expect(200);
        assert_eq!((&again.body["version"], &again.body["description"]), (&json!(2), &json!("for the demo")));
        assert_eq!(again.body["id"], made.body["id"]);
        let listed = test.get("/api/v1/credentials").await.expect(200);
        assert_eq!(listed.body["items"].as_array().unwrap().len(), 1);
        assert!(!listed.text.contains("another"), "{}", listed.text);
        test.delete("/api/v1/credentials/github-token").await.expect(204);
        test.get("/api/v1/credentials/github-token").await.expect(404);
    }

    async fn an_empty_or_huge_secret_and_a_hostile_name_are_refused_with_the_field(engine) {
        let test = TestControl::start(engine).await;
        let empty = test.put("/api/v1/credentials/a", json!({ "secret": "" })).await.expect(422);
        assert_eq!(empty.body["errors"][0]["field"], json!("secret"));
        let huge = "x".repeat(64 * 1024 + 1);
        test.put("/api/v1/credentials/a", json!({ "secret": huge })).await.expect(422);
        let hostile = test.put("/api/v1/credentials/a%E2%80%AEb", json!({ "secret": "x" })).await.expect(422);
        assert!(hostile.text.contains("u{202e}") && !hostile.text.contains('\u{202e}'), "{}", hostile.text);
    }

    async fn credentials_come_in_pages_by_name(engine) {
        let test = TestControl::start(engine).await;
        for name in ["c", "a", "b"] {
            test.put(&format!("/api/v1/credentials/{name}"), json!({ "secret": "x" })).await.expect(200);
        }
        let first = test.get("/api/v1/credentials?limit=2").await.expect(200);
        let names = |answer: &crate::harness::Answer| -> Vec<String> {
            let items = answer.body["items"].as_array().unwrap();
            items.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(names(&first), ["a", "b"]);
        let cursor = first.body["next_cursor"].as_str().unwrap();
        let second = test.get(&format!("/api/v1/credentials?limit=2&cursor={cursor}")).await.expect(200);
        assert_eq!((names(&second), &second.body["next_cursor"]), (vec!["c".to_owned()], &json!(null)));
        for bad in ["limit=0", "limit=501", "limit=x"] {
            let answer = test.get(&format!("/api/v1/credentials?{bad}")).await.expect(422);
            assert_eq!(answer.body["errors"][0]["field"], json!("limit"), "{}", answer.text);
        }
    }
}

/// Everything that was logged.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_canary_secret_is_found_in_no_file_log_answer_or_event() {
    let log = Captured::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let test = TestControl::start(Engine::Sqlite).await;
    let mut answers = String::new();
    for (method, path, body) in [
        (Method::PUT, "/api/v1/credentials/token", Some(json!({ "secret": CANARY }))),
        (Method::PUT, "/api/v1/credentials/token", Some(json!({ "secret": CANARY, "oops": 1 }))),
        (Method::PUT, "/api/v1/credentials/token", Some(json!({ "secret": [CANARY] }))),
        (Method::POST, "/api/v1/session", Some(json!({ "email": "admin@example.test", "password": CANARY }))),
        (Method::GET, "/api/v1/credentials", None),
        (Method::GET, "/api/v1/audit", None),
    ] {
        answers.push_str(&test.ask(method, path, body).await.text);
    }
    let made = test.post("/api/v1/keys", json!({ "name": "ci", "role": "viewer" })).await.expect(201);
    let key = made.body["key"].as_str().unwrap().to_owned();
    let request = Request::post("/api/v1/keys")
        .header("authorization", format!("Bearer {OWNER_KEY}"))
        .header("content-type", "application/json")
        .header("idempotency-key", "one");
    let body = json!({ "name": "kept", "role": "viewer" }).to_string();
    let kept = test.send(request.body(Body::from(body)).unwrap()).await.expect(201);
    let kept = kept.body["key"].as_str().unwrap().to_owned();

    let store = test.database().open(test.clock.clone()).await;
    let events = store.system_read("test").await.unwrap().events_after(0, 1000).await.unwrap();
    let text = format!("{events:?}");
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("/api/v1/credentials/token"), "the log was captured");
    store.close().await;
    let dir = test.stop().await;
    for secret in [CANARY, &key, &kept, OWNER_KEY] {
        for (place, text) in [("an answer", &answers), ("an event", &text), ("the log", &log)] {
            assert!(!text.contains(secret), "{secret} is in {place}");
        }
        for entry in walk(&dir.dir()) {
            let bytes = std::fs::read(&entry).unwrap();
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} is in {}", entry.display());
        }
    }
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files
}
