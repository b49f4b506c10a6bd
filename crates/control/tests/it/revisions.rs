//! How many revisions are kept, and how many are read at once.

use serde_json::{Map, Value, json};
use toolyard_types::Clock;

use crate::agent::FakeAgent;
use crate::harness::{Engine, TestControl, TestDatabase, both_engines, started_at};
use crate::servers::EVERYTHING;

const LIST: &str = "/api/v1/servers/s/revisions?limit=100";

/// A control plane that keeps ten revisions of a server.
async fn keeping_ten(engine: Engine) -> TestControl {
    let database = TestDatabase::create(engine).await;
    TestControl::with(database, Clock::stopped_at(started_at()), |options| options.revisions_kept = 10).await
}

/// An environment of `many` variables, each of nearly 32 KiB.
fn large(many: usize) -> Value {
    let variables = (0..many).map(|number| (format!("LARGE_{number}"), json!("x".repeat(32_000))));
    Value::Object(variables.collect::<Map<_, _>>())
}

async fn change(t: &TestControl, value: usize) {
    let body = json!({ "environment": { "DEMO": value.to_string() } });
    t.patch("/api/v1/servers/s", body).await.expect(202);
}

fn numbers(page: &Value) -> Vec<u64> {
    page["items"].as_array().into_iter().flatten().filter_map(|it| it["number"].as_u64()).collect()
}

both_engines! {
    async fn a_page_of_large_revisions_ends_early_and_the_next_one_goes_on(engine) {
        let t = TestControl::start(engine).await;
        let body = json!({ "name": "s", "entry": EVERYTHING, "environment": large(10), "start": false });
        t.post("/api/v1/servers", body).await.expect(201);
        for value in 0..4 {
            change(&t, value).await;
        }
        let (mut seen, mut path) = (Vec::new(), LIST.to_owned());
        loop {
            let page = t.get(&path).await.expect(200);
            assert!(page.text.len() < 2 << 20, "{} bytes", page.text.len());
            assert!(!numbers(&page.body).is_empty());
            seen.extend(numbers(&page.body));
            let Some(cursor) = page.body["next_cursor"].as_str() else { break };
            path = format!("{LIST}&cursor={cursor}");
        }
        assert_eq!(seen, [5, 4, 3, 2, 1]);
    }

    async fn a_page_of_small_revisions_has_as_many_as_were_asked_for(engine) {
        let t = TestControl::start(engine).await;
        t.post("/api/v1/servers", json!({ "name": "s", "entry": EVERYTHING, "start": false })).await.expect(201);
        for value in 0..3 {
            change(&t, value).await;
        }
        let first = t.get("/api/v1/servers/s/revisions?limit=3").await.expect(200).body;
        assert_eq!((numbers(&first), first["next_cursor"].as_str()), (vec![4, 3, 2], Some("2")));
        let last = t.get("/api/v1/servers/s/revisions?limit=3&cursor=2").await.expect(200).body;
        assert_eq!((numbers(&last), last["next_cursor"].as_str()), (vec![1], None));
    }

    async fn toolsets_with_much_text_come_in_more_pages(engine) {
        let t = TestControl::start(engine).await;
        t.post("/api/v1/servers", json!({ "name": "s", "entry": EVERYTHING, "start": false })).await.expect(201);
        let tools: Map<_, _> = (0..60).map(|tool| {
            (format!("tool-{tool}"), json!({ "description": "x".repeat(3_900) }))
        }).collect();
        let members = json!([{ "server": "s", "overrides": tools }]);
        for name in ["a", "b", "c", "d", "e", "f"] {
            let body = json!({ "name": name, "description": "", "members": members });
            t.post("/api/v1/toolsets", body).await.expect(201);
        }
        let (mut seen, mut pages, mut path) = (Vec::new(), 0, "/api/v1/toolsets?limit=100".to_owned());
        loop {
            let page = t.get(&path).await.expect(200).body;
            pages += 1;
            seen.extend(page["items"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap().to_owned()));
            let Some(cursor) = page["next_cursor"].as_str() else { break };
            path = format!("/api/v1/toolsets?limit=100&cursor={cursor}");
        }
        assert_eq!((seen.concat().as_str(), pages), ("abcdef", 2));
    }

    async fn a_revision_that_is_too_large_is_refused_with_what_makes_it_so(engine) {
        let t = TestControl::start(engine).await;
        let create = |many| json!({ "name": "s", "entry": EVERYTHING, "environment": large(many), "start": false });
        let refused = t.post("/api/v1/servers", create(20)).await.expect(422);
        assert_eq!(refused.body["errors"][0]["field"], "environment");
        t.post("/api/v1/servers", create(10)).await.expect(201);
        let refused = t.patch("/api/v1/servers/s", json!({ "environment": large(20) })).await.expect(422);
        assert_eq!(refused.body["errors"][0]["field"], "environment");
        assert_eq!(numbers(&t.get(LIST).await.expect(200).body), [1]);
    }

    async fn however_fast_a_server_is_changed_its_revisions_take_a_bounded_room(engine) {
        let t = TestControl::start(engine).await;
        let body = json!({ "name": "s", "entry": EVERYTHING, "environment": large(15), "start": false });
        t.post("/api/v1/servers", body).await.expect(201);
        for value in 0..40 {
            change(&t, value).await;
        }
        let back = async |revision: u32| t.post("/api/v1/servers/s/rollback", json!({ "revision": revision })).await;
        for gone in [1, 2] {
            assert_eq!(back(gone).await.expect(422).body["errors"][0]["field"], "revision");
        }
        for kept in [20, 40, 41] {
            back(kept).await.expect(202);
        }
        // Numbers are never given twice.
        change(&t, 100).await;
        assert_eq!(numbers(&t.get("/api/v1/servers/s/revisions?limit=1").await.expect(200).body), [42]);
    }

    async fn the_newest_revisions_are_kept_and_what_a_rollback_goes_to(engine) {
        let t = keeping_ten(engine).await;
        let _agent = FakeAgent::local(&t.control).await;
        t.deploy("s").await;
        t.post("/api/v1/servers/s/stop", json!({})).await.expect(202);
        for value in 0..14 {
            change(&t, value).await;
        }
        let kept: Vec<u64> = (6..=15).rev().chain([1]).collect();
        t.wait(LIST, |_, page| numbers(page) == kept).await;
        t.post("/api/v1/servers/s/rollback", json!({})).await.expect(202);
        t.post("/api/v1/servers/s/start", json!({})).await.expect(202);
        t.wait_revision("s", 1).await;
    }

    async fn a_revision_whose_instances_have_ended_goes_with_them(engine) {
        let t = keeping_ten(engine).await;
        let _agent = FakeAgent::local(&t.control).await;
        t.deploy("s").await;
        for (value, revision) in [(1, 2), (2, 3)] {
            change(&t, value).await;
            t.wait_revision("s", revision).await;
            t.drained();
        }
        t.post("/api/v1/servers/s/stop", json!({})).await.expect(202);
        for value in 10..22 {
            change(&t, value).await;
        }
        t.drained();
        // Besides the newest: the one that served last, and the one that served before it.
        let kept: Vec<u64> = (6..=15).rev().chain([3, 2]).collect();
        t.wait(LIST, |_, page| numbers(page) == kept).await;
        t.get("/api/v1/servers/s/rollout").await.expect(200);
        t.delete("/api/v1/servers/s").await.expect(202);
        t.wait("/api/v1/servers/s", |status, _| status == 404).await;
    }

    async fn a_secret_that_was_passed_for_revisions_that_are_gone_goes_with_them(engine) {
        const ENTRY: &str = "io.github.brave/brave-search-mcp-server";
        let t = keeping_ten(engine).await;
        let body = json!({ "name": "s", "entry": ENTRY, "inputs": { "BRAVE_API_KEY": "x" }, "start": false });
        t.post("/api/v1/servers", body).await.expect(201);
        t.patch("/api/v1/servers/s", json!({ "inputs": { "BRAVE_API_KEY": "y" } })).await.expect(202);
        let credentials = t.get("/api/v1/credentials").await.expect(200).body;
        assert_eq!(credentials["items"].as_array().unwrap().len(), 2);
        for value in 0..12 {
            change(&t, value).await;
        }
        let one_is_left = |_, page: &Value| page["items"].as_array().is_some_and(|items| items.len() == 1);
        let left = t.wait("/api/v1/credentials", one_is_left).await;
        assert_eq!(left["items"][0]["used_by"], json!(["s"]), "the one that its newest revisions use");
    }
}
