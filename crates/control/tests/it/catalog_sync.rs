//! Catalog sources: syncing from registries, files and other Toolyards, over HTTP.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use toolyard_types::Clock;

use crate::catalog::{document, names, path};
use crate::harness::{TestControl, TestDatabase, both_engines, started_at};

/// What a registry answers to a query.
type Answers = dyn Fn(&HashMap<String, String>, &HeaderMap) -> Response + Send + Sync;

/// A small registry on a port of its own.
struct Registry {
    url: String,
    answers: Arc<Mutex<Arc<Answers>>>,
    asked: Arc<Mutex<Vec<HashMap<String, String>>>>,
}

#[derive(Clone)]
struct Shared {
    answers: Arc<Mutex<Arc<Answers>>>,
    asked: Arc<Mutex<Vec<HashMap<String, String>>>>,
}

impl Registry {
    async fn start(answers: impl Fn(&HashMap<String, String>, &HeaderMap) -> Response + Send + Sync + 'static) -> Self {
        let answers: Arc<Answers> = Arc::new(answers);
        let shared = Shared { answers: Arc::new(Mutex::new(answers)), asked: Arc::default() };
        let app = axum::Router::new().fallback(answer).with_state(shared.clone());
        let url = serve(app).await;
        Self { url, answers: shared.answers, asked: shared.asked }
    }

    fn now_answers(&self, answers: impl Fn(&HashMap<String, String>, &HeaderMap) -> Response + Send + Sync + 'static) {
        *self.answers.lock().expect("not poisoned") = Arc::new(answers);
    }

    /// What was asked since the last look.
    fn asked(&self) -> Vec<HashMap<String, String>> {
        std::mem::take(&mut self.asked.lock().expect("not poisoned"))
    }
}

async fn answer(
    State(shared): State<Shared>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    shared.asked.lock().expect("not poisoned").push(query.clone());
    let answers = shared.answers.lock().expect("not poisoned").clone();
    answers(&query, &headers)
}

/// Serves on a free port until the test ends.
async fn serve(app: axum::Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}")
}

fn item(name: &str, version: &str, status: &str, latest: bool) -> Value {
    json!({"server": document(name, version), "_meta": {"io.modelcontextprotocol.registry/official": {
        "status": status, "publishedAt": "2026-01-02T03:04:05Z", "updatedAt": "2026-01-02T03:04:05Z", "isLatest": latest}}})
}

fn page(items: &[Value], next: Option<&str>) -> Response {
    axum::Json(json!({"servers": items, "metadata": {"count": items.len(), "nextCursor": next}})).into_response()
}

async fn source(test: &TestControl, name: &str) -> Value {
    let sources = test.get("/api/v1/catalog/sources").await.expect(200);
    let found = sources.body["items"].as_array().expect("a list").iter().find(|source| source["name"] == name);
    found.cloned().expect("the source")
}

/// Waits until the source's sync ended in that state.
async fn until(test: &TestControl, name: &str, state: &str) -> Value {
    let wait = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        loop {
            ticks.tick().await;
            let source = source(test, name).await;
            if source["sync_state"] == state && source["next_sync_at"] != json!(test.clock.now()) {
                return source;
            }
        }
    };
    match tokio::time::timeout(Duration::from_secs(60), wait).await {
        Ok(source) => source,
        Err(_) => panic!("never {state}: {}", source(test, name).await),
    }
}

async fn add(test: &TestControl, kind: &str, url: &str) {
    test.post("/api/v1/catalog/sources", json!({"name": "other", "kind": kind, "url": url})).await.expect(201);
}

/// Lets an hour pass, so that the next sync is told from the last one, and asks for it.
async fn sync_again(test: &TestControl) {
    test.clock.step_ms(3_600_000);
    test.post("/api/v1/catalog/sources/other/sync", json!({})).await.expect(202);
}

async fn shown(test: &TestControl) -> Vec<String> {
    // Through the store's view by source, which a search soon follows.
    let wait = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        loop {
            ticks.tick().await;
            let entries = source(test, "other").await["entries"].as_u64().expect("a number");
            let list = test.get("/api/v1/catalog/entries?source=other&limit=500").await.expect(200);
            let names: Vec<String> = names(&list.body).into_iter().map(str::to_owned).collect();
            if u64::try_from(names.len()).expect("a number") == entries.min(500) {
                return names;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("the list follows the store")
}

both_engines! {
    async fn a_registry_is_read_page_by_page_and_then_by_what_changed(engine) {
        let test = TestControl::start(engine).await;
        let registry = Registry::start(|query, _| match query.get("cursor").map(String::as_str) {
            None => page(&[item("a/one", "1.0.0", "active", true), item("a/two", "1.0.0", "active", false)], Some("a/two:1.0.0+x")),
            Some("a/two:1.0.0+x") => page(&[item("a/two", "2.0.0", "active", true), json!({"server": {"name": "bad name"}})], Some("")),
            Some(other) => panic!("unknown cursor {other}"),
        }).await;
        add(&test, "registry", &registry.url).await;
        let source = until(&test, "other", "done").await;
        assert_eq!((&source["entries"], &source["sync_message"]), (&json!(2), &json!("3 read, 3 changed, 1 could not be used")));
        assert_eq!(shown(&test).await, ["a/one", "a/two"]);
        assert_eq!(test.get(&path("a/two")).await.expect(200).body["version"], "2.0.0");
        assert!(registry.asked().iter().all(|query| !query.contains_key("updated_since")));

        // A new version, a deprecation with a message, a deletion: all by `updated_since`.
        registry.now_answers(|query, _| {
            assert!(query.contains_key("updated_since"), "{query:?}");
            let mut deprecated = item("a/two", "2.0.0", "deprecated", true);
            deprecated["_meta"]["io.modelcontextprotocol.registry/official"]["statusMessage"] = json!("use a/one");
            page(&[item("a/one", "1.0.0", "deleted", true), deprecated, item("a/three", "0.1.0", "active", true)], None)
        });
        sync_again(&test).await;
        until(&test, "other", "done").await;
        assert_eq!(shown(&test).await, ["a/three", "a/two"]);
        assert_eq!(test.get(&path("a/one")).await.expect(404).code(), "not_found");
        let deprecated = test.get(&path("a/two")).await.expect(200);
        assert_eq!((&deprecated.body["status"], &deprecated.body["status_message"]), (&json!("deprecated"), &json!("use a/one")));
    }

    async fn when_the_latest_version_is_deleted_the_one_before_is_shown(engine) {
        let test = TestControl::start(engine).await;
        let registry = Registry::start(|_, _| page(&[item("a/one", "1.0.0", "active", false), item("a/one", "2.0.0", "active", true)], None)).await;
        add(&test, "registry", &registry.url).await;
        until(&test, "other", "done").await;
        registry.now_answers(|_, _| page(&[item("a/one", "2.0.0", "deleted", false)], None));
        sync_again(&test).await;
        until(&test, "other", "done").await;
        let entry = test.get(&path("a/one")).await.expect(200);
        assert_eq!((&entry.body["version"], &entry.body["status"]), (&json!("1.0.0"), &json!("active")));
    }

    async fn a_published_version_keeps_its_document(engine) {
        let test = TestControl::start(engine).await;
        let registry = Registry::start(|_, _| page(&[item("a/one", "1.0.0", "active", true)], None)).await;
        add(&test, "registry", &registry.url).await;
        until(&test, "other", "done").await;
        registry.now_answers(|_, _| {
            let mut changed = item("a/one", "1.0.0", "deprecated", true);
            changed["server"]["packages"][0]["identifier"] = json!("@evil/server");
            page(&[changed], None)
        });
        sync_again(&test).await;
        until(&test, "other", "done").await;
        let entry = test.get(&path("a/one")).await.expect(200);
        assert_eq!(entry.body["server"]["packages"][0]["identifier"], "@example/server");
        assert_eq!(entry.body["status"], "deprecated");
    }

    async fn a_sync_that_failed_midway_goes_on_where_it_stopped(engine) {
        let test = TestControl::start(engine).await;
        let registry = Registry::start(|query, _| match query.get("cursor").map(String::as_str) {
            None => page(&[item("a/one", "1.0.0", "active", true)], Some("second")),
            _ => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }).await;
        add(&test, "registry", &registry.url).await;
        let failed = until(&test, "other", "failed").await;
        assert_eq!((&failed["entries"], &failed["sync_message"]), (&json!(1), &json!("the answer was 500")));
        registry.asked();
        registry.now_answers(|query, _| {
            assert_eq!(query.get("cursor").map(String::as_str), Some("second"));
            page(&[item("a/two", "1.0.0", "active", true)], None)
        });
        sync_again(&test).await;
        until(&test, "other", "done").await;
        assert_eq!(shown(&test).await, ["a/one", "a/two"]);
        assert_eq!(registry.asked().len(), 1);
    }

    async fn a_registry_that_asks_to_wait_is_left_alone_as_long(engine) {
        let test = TestControl::start(engine).await;
        let registry = Registry::start(|_, _| (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "77")]).into_response()).await;
        add(&test, "registry", &registry.url).await;
        let failed = until(&test, "other", "failed").await;
        assert_eq!(failed["next_sync_at"], json!(started_at().plus(Duration::from_secs(77))));
    }

    async fn garbage_is_an_error_on_the_source_and_harms_nothing(engine) {
        let test = TestControl::start(engine).await;
        let registry = Registry::start(|_, _| "<html>".into_response()).await;
        add(&test, "registry", &registry.url).await;
        assert_eq!(until(&test, "other", "failed").await["sync_message"], "the answer is not JSON");
        registry.now_answers(|_, _| axum::Json(json!({"servers": "none"})).into_response());
        sync_again(&test).await;
        let failed = until(&test, "other", "failed").await;
        assert!(failed["sync_message"].as_str().is_some_and(|message| message.starts_with("the answer")), "{failed}");
        assert_eq!(names(&test.get("/api/v1/catalog/entries?search=everything&limit=1").await.expect(200).body).len(), 1);
    }

    async fn a_file_is_read_whole_and_what_left_it_leaves_the_catalog(engine) {
        let test = TestControl::start(engine).await;
        let file = Registry::start(|_, headers| {
            assert!(!headers.contains_key("if-none-match"));
            ([("etag", "\"one\"")], axum::Json(json!([document("a/one", "1.0.0"), document("a/two", "1.0.0")]))).into_response()
        }).await;
        add(&test, "file", &format!("{}/servers.json", file.url)).await;
        until(&test, "other", "done").await;
        assert_eq!(shown(&test).await, ["a/one", "a/two"]);
        file.now_answers(|_, headers| {
            assert_eq!(headers.get("if-none-match").and_then(|tag| tag.to_str().ok()), Some("\"one\""));
            StatusCode::NOT_MODIFIED.into_response()
        });
        sync_again(&test).await;
        assert_eq!(until(&test, "other", "done").await["sync_message"], "nothing changed");
        file.now_answers(|_, _| axum::Json(json!({"servers": [document("a/two", "1.1.0")]})).into_response());
        sync_again(&test).await;
        until(&test, "other", "done").await;
        assert_eq!(shown(&test).await, ["a/two"]);
        assert_eq!(test.get(&path("a/two")).await.expect(200).body["version"], "1.1.0");
        test.delete("/api/v1/catalog/sources/other").await.expect(204);
        assert_eq!(test.get(&path("a/two")).await.expect(404).code(), "not_found");
    }

    async fn a_source_that_never_answers_holds_no_other_up(engine) {
        let test = TestControl::start(engine).await;
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        for at in 0..3 {
            let url = format!("http://{}", silent.local_addr().expect("an address"));
            let body = json!({"name": format!("silent-{at}"), "kind": "registry", "url": url});
            test.post("/api/v1/catalog/sources", body).await.expect(201);
        }
        let registry = Registry::start(|_, _| page(&[item("a/one", "1.0.0", "active", true)], None)).await;
        add(&test, "registry", &registry.url).await;
        until(&test, "other", "done").await;
        for at in 0..3 {
            assert_eq!(source(&test, &format!("silent-{at}")).await["sync_state"], "running");
        }
    }

    async fn sources_that_failed_and_hang_hold_no_other_of_their_organization_up(engine) {
        let test = TestControl::start(engine).await;
        let silent = Registry::start(|_, _| StatusCode::INTERNAL_SERVER_ERROR.into_response()).await;
        for at in 0..12 {
            let body = json!({"name": format!("silent-{at}"), "kind": "registry", "url": silent.url});
            test.post("/api/v1/catalog/sources", body).await.expect(201);
        }
        for at in 0..12 {
            until(&test, &format!("silent-{at}"), "failed").await;
        }
        silent.now_answers(|_, _| {
            let never = futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>();
            axum::body::Body::from_stream(never).into_response()
        });
        test.clock.step_ms(3_600_000);
        test.post("/api/v1/catalog/sources/silent-0/sync", json!({})).await.expect(202);
        let running = async || {
            let sources = test.get("/api/v1/catalog/sources").await.expect(200).body;
            let items = sources["items"].as_array().expect("a list").iter();
            items.filter(|source| source["sync_state"] == "running").count()
        };
        let hang = async {
            while running().await < 2 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), hang).await.expect("they are asked again");
        let registry = Registry::start(|_, _| page(&[item("a/one", "1.0.0", "active", true)], None)).await;
        add(&test, "registry", &registry.url).await;
        until(&test, "other", "done").await;
        assert_eq!(running().await, 2, "only so many that failed have a place");
    }

    async fn a_page_that_is_too_much_is_refused_and_harms_nothing(engine) {
        let test = TestControl::start(engine).await;
        let registry = Registry::start(|_, _| page(&[item("a/one", "1.0.0", "active", true)], Some(&"x".repeat(5000)))).await;
        add(&test, "registry", &registry.url).await;
        let failed = until(&test, "other", "failed").await;
        assert_eq!(failed["sync_message"], "a sync may take at most 4 KiB of a page's cursor");
        assert_eq!(failed["next_sync_at"], json!(started_at().plus(Duration::from_secs(24 * 3600))));
        registry.now_answers(|_, _| vec![b' '; 9 << 20].into_response());
        test.post("/api/v1/catalog/sources/other/sync", json!({})).await.expect(202);
        let wait = async {
            while source(&test, "other").await["sync_message"] != "the answer has more than 8388608 bytes" {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait).await.expect("it is refused");
        // An item that is no document for its size is left out, and the others are not.
        let mut huge = item("a/huge", "1.0.0", "active", true);
        huge["server"]["description"] = json!("x".repeat(2 << 20));
        registry.now_answers(move |_, _| page(&[huge.clone(), item("a/one", "1.0.0", "active", true)], None));
        test.post("/api/v1/catalog/sources/other/sync", json!({})).await.expect(202);
        assert_eq!(until(&test, "other", "done").await["sync_message"], "1 read, 1 changed, 1 could not be used");
    }

    async fn what_left_a_source_is_deleted_unless_people_here_said_something_of_it(engine) {
        let test = TestControl::start(engine).await;
        let documents = |names: &[&str]| names.iter().map(|name| document(name, "1.0.0")).collect::<Vec<_>>();
        let all = documents(&["a/gone", "a/verified", "a/stays"]);
        let file = Registry::start(move |_, _| axum::Json(json!(all)).into_response()).await;
        add(&test, "file", &file.url).await;
        until(&test, "other", "done").await;
        test.patch(&path("a/verified"), json!({"verified": true})).await.expect(200);
        let rest = documents(&["a/stays"]);
        file.now_answers(move |_, _| axum::Json(json!(rest)).into_response());
        sync_again(&test).await;
        until(&test, "other", "done").await;
        assert_eq!(shown(&test).await, ["a/stays"]);
        assert_eq!(stored(&test).await, [("a/stays".to_owned(), "active".to_owned()), ("a/verified".to_owned(), "deleted".to_owned())]);
        // A month later nobody needs to hear of it any more.
        test.clock.step_ms(31 * 24 * 3_600_000);
        sync_again(&test).await;
        until(&test, "other", "done").await;
        assert_eq!(stored(&test).await, [("a/stays".to_owned(), "active".to_owned())]);
    }

    async fn sources_everybody_has_cannot_be_removed_and_a_quiet_one_is_not_dialled(engine) {
        let test = TestControl::start(engine).await;
        for name in ["built-in", "own", "official"] {
            assert_eq!(test.delete(&format!("/api/v1/catalog/sources/{name}")).await.expect(409).code(), "conflict");
            assert_eq!(test.post(&format!("/api/v1/catalog/sources/{name}/sync"), json!({})).await.expect(409).code(), "conflict");
        }
        assert_eq!(test.delete("/api/v1/catalog/sources/none").await.expect(404).code(), "not_found");
        for bad in [json!({"name": "x", "kind": "ftp", "url": "https://x.example"}), json!({"name": "x", "kind": "file", "url": "file:///etc/passwd"})] {
            assert_eq!(test.post("/api/v1/catalog/sources", bad).await.expect(422).code(), "validation_failed");
        }
    }

    async fn one_toolyard_syncs_its_public_entries_from_another(engine) {
        let upstream = TestControl::start(engine).await;
        for at in 0..3 {
            let body = json!({"server": document(&format!("io.example/shared-{at}"), "1.0.0"), "public": true, "categories": ["Shared"]});
            upstream.post("/api/v1/catalog/entries", body).await.expect(201);
        }
        upstream.post("/api/v1/catalog/entries", json!({"server": document("io.example/private", "1.0.0")})).await.expect(201);
        let test = TestControl::start(engine).await;
        add(&test, "registry", &serve(upstream.control.router()).await).await;
        until(&test, "other", "done").await;
        assert_eq!(shown(&test).await, ["io.example/shared-0", "io.example/shared-1", "io.example/shared-2"]);
        assert_eq!(test.get(&path("io.example/shared-1")).await.expect(200).body["categories"], json!(["Shared"]));
        // Nothing changed: the second sync costs one small answer.
        sync_again(&test).await;
        until(&test, "other", "done").await;
        sync_again(&test).await;
        assert_eq!(until(&test, "other", "done").await["entries"], 3);
    }

    async fn ten_thousand_entries_are_synced_over_http_and_searched(engine) {
        let upstream = TestControl::start(engine).await;
        let items: Vec<Value> = (0..10_000).map(|at| document(&format!("io.example.n{}/tool-{at}", at % 97), "1.0.0")).collect();
        let file = Registry::start(move |_, _| axum::Json(json!(items)).into_response()).await;
        add(&upstream, "file", &file.url).await;
        until(&upstream, "other", "done").await;
        make_all_public(&upstream).await;
        let test = TestControl::start(engine).await;
        add(&test, "registry", &serve(upstream.control.router()).await).await;
        let source = until(&test, "other", "done").await;
        assert_eq!((&source["entries"], &source["sync_message"]), (&json!(10_000), &json!("10000 read, 10000 changed")));
        let found = until_found(&test, "tool 9876").await;
        assert_eq!(found[0], "io.example.n79/tool-9876");
    }

    async fn the_registry_api_pages_filters_and_answers_conditionally(engine) {
        let test = TestControl::start(engine).await;
        for at in 0..5 {
            let body = json!({"server": document(&format!("io.example/shared-{at}"), "1.0.0"), "public": true});
            test.post("/api/v1/catalog/entries", body).await.expect(201);
        }
        let ask = async |path: &str, tag: Option<&str>| {
            let mut request = http::Request::get(path);
            if let Some(tag) = tag { request = request.header("if-none-match", tag) }
            test.send(request.body(axum::body::Body::empty()).expect("a request")).await
        };
        let first = ask("/v0.1/servers?limit=2", None).await.expect(200);
        assert_eq!(first.body["metadata"]["count"], 2);
        let cursor = first.body["metadata"]["nextCursor"].as_str().expect("a cursor");
        let second = ask(&format!("/v0.1/servers?limit=100&cursor={cursor}"), None).await.expect(200);
        assert_eq!((&second.body["metadata"]["count"], &second.body["metadata"]["nextCursor"]), (&json!(3), &Value::Null));
        let official = &first.body["servers"][0]["_meta"]["io.modelcontextprotocol.registry/official"];
        assert_eq!((&official["status"], &official["isLatest"]), (&json!("active"), &json!(true)));
        let tag = first.headers["etag"].to_str().expect("text").to_owned();
        ask("/v0.1/servers?limit=2", Some(&tag)).await.expect(304);
        assert_eq!(ask("/v0.1/servers?search=SHARED-3", None).await.expect(200).body["metadata"]["count"], 1);
        assert_eq!(ask("/v0.1/servers?search=%25", None).await.expect(200).body["metadata"]["count"], 0);
        assert_eq!(ask("/v0.1/servers?updated_since=2099-01-01T00:00:00Z", None).await.expect(200).body["metadata"]["count"], 0);
        ask("/v0.1/servers/io.example%2Fshared-1/versions", None).await.expect(200);
        let latest = ask("/v0.1/servers/io.example%2Fshared-1/versions/latest", None).await.expect(200);
        assert_eq!(latest.body["server"]["name"], "io.example/shared-1");
        ask("/v0.1/servers/io.example%2Fnone/versions/latest", None).await.expect(404);
        for bad in ["limit=0", "limit=101", "cursor=x", "updated_since=yesterday"] {
            ask(&format!("/v0.1/servers?{bad}"), None).await.expect(422);
        }
    }

    async fn the_registry_api_can_be_closed(engine) {
        let database = TestDatabase::create(engine).await;
        let test = TestControl::with(database, Clock::stopped_at(started_at()), |options| options.serve_registry = false).await;
        assert_eq!(test.get("/v0.1/servers").await.expect(404).code(), "feature_disabled");
    }
}

/// The entries of `a/` in the database, with their status.
async fn stored(test: &TestControl) -> Vec<(String, String)> {
    let store = test.database().open(test.clock.clone()).await;
    let system = store.system_read("find the organization of a test").await.expect("a transaction");
    let organization = system.catalog_organizations().await.expect("organizations")[0];
    drop(system);
    let tx = store.org_read(organization).await.expect("a transaction");
    let mut found = Vec::new();
    for name in ["a/gone", "a/stays", "a/verified"] {
        let entries = tx.catalog_entries_named(name).await.expect("entries");
        found.extend(entries.into_iter().map(|entry| (entry.name, entry.status)));
    }
    found
}

/// Marks what came from `other` public, in one go.
async fn make_all_public(test: &TestControl) {
    let store = test.database().open(test.clock.clone()).await;
    let system = store.system_read("find the organization of a test").await.expect("a transaction");
    let organization = system.catalog_organizations().await.expect("organizations")[0];
    drop(system);
    let mut tx = store.org(organization).await.expect("a transaction");
    let mut entries = tx.catalog_entries().await.expect("entries");
    entries.retain(|entry| entry.name.starts_with("io.example.n"));
    entries.iter_mut().for_each(|entry| entry.public = true);
    tx.put_catalog_entries(&entries).await.expect("written");
    tx.commit().await.expect("committed");
}

async fn until_found(test: &TestControl, search: &str) -> Vec<String> {
    let wait = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        loop {
            ticks.tick().await;
            let list =
                test.get(&format!("/api/v1/catalog/entries?search={}", search.replace(' ', "%20"))).await.expect(200);
            let found = names(&list.body);
            if !found.is_empty() {
                return found.into_iter().map(str::to_owned).collect();
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("the index follows")
}
