//! The catalog: finding, publishing, reviewing, rating.

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, OWNER_KEY, TestControl, both_engines};

const EVERYTHING: &str = "io.github.modelcontextprotocol/server-everything";

/// A good document of that name and version.
pub(crate) fn document(name: &str, version: &str) -> Value {
    json!({
        "$schema": "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json",
        "name": name,
        "description": format!("What {} does.", name.rsplit('/').next().unwrap_or(name)),
        "version": version,
        "repository": {"url": "https://github.com/example/servers", "source": "github"},
        "packages": [{"registryType": "npm", "identifier": "@example/server", "version": "1.0.0",
            "transport": {"type": "stdio"}}]
    })
}

/// The path of an entry.
pub(crate) fn path(name: &str) -> String {
    format!("/api/v1/catalog/entries/{}", name.replace('/', "%2F"))
}

/// The digest of an entry's latest version, as its `ETag` says it too.
async fn digest(test: &TestControl, name: &str) -> String {
    let entry = test.get(&path(name)).await.expect(200);
    let digest = entry.body["digest"].as_str().expect("a digest").to_owned();
    assert_eq!(entry.headers["etag"], format!("\"{digest}\""));
    digest
}

/// Approves an entry whose digest was seen.
async fn approve(test: &TestControl, name: &str, seen: Option<&str>) -> Answer {
    let mut request = http::Request::post(format!("{}/review", path(name)))
        .header("authorization", format!("Bearer {OWNER_KEY}"))
        .header("content-type", "application/json");
    if let Some(seen) = seen {
        request = request.header("if-match", format!("\"{seen}\""));
    }
    test.send(request.body(json!({"approve": true}).to_string().into()).expect("a request")).await
}

/// The names in a list.
pub(crate) fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().expect("a list").iter().filter_map(|item| item["name"].as_str()).collect()
}

/// A key with a role of its own.
pub(crate) async fn key(test: &TestControl, role: &str) -> String {
    let made = test.post("/api/v1/keys", json!({"name": format!("key-{role}"), "role": role})).await.expect(201);
    made.body["key"].as_str().expect("a key").to_owned()
}

both_engines! {
    async fn a_fresh_install_finds_known_servers_without_a_network(engine) {
        let test = TestControl::start(engine).await;
        let found = test.get("/api/v1/catalog/entries?search=everything").await.expect(200);
        assert_eq!(names(&found.body)[0], EVERYTHING);
        assert_eq!(found.body["items"][0]["source"], "built-in");
        let typed_badly = test.get("/api/v1/catalog/entries?search=playwrigt").await.expect(200);
        assert_eq!(names(&typed_badly.body), ["com.microsoft/playwright-mcp"]);
        let entry = test.get(&path(EVERYTHING)).await.expect(200);
        assert_eq!(entry.body["server"]["packages"][0]["identifier"], "@modelcontextprotocol/server-everything");
        assert_eq!(entry.body["review"], "approved");
        let versions = test.get(&format!("{}/versions", path(EVERYTHING))).await.expect(200);
        assert_eq!(versions.body["items"][0]["latest"], true);
        let version = versions.body["items"][0]["version"].as_str().expect("a version");
        test.get(&format!("{}?version={version}", path(EVERYTHING))).await.expect(200);
        assert_eq!(test.get(&format!("{}?version=0.0.0", path(EVERYTHING))).await.expect(404).code(), "not_found");
        assert_eq!(test.get(&path("io.github.nobody/nothing")).await.expect(404).code(), "not_found");
        let categories = test.get("/api/v1/catalog/categories").await.expect(200);
        assert!(names(&categories.body).contains(&"Databases"));
        let sources = test.get("/api/v1/catalog/sources").await.expect(200);
        assert_eq!(names(&sources.body), ["built-in", "own", "official"]);
        assert!(sources.body["items"].as_array().expect("a list").iter().all(|source| source["kind"] != "registry" || source["enabled"] == false));
    }

    async fn a_list_is_paged_by_cursor_without_gaps_or_repeats(engine) {
        let test = TestControl::start(engine).await;
        let all = test.get("/api/v1/catalog/entries?limit=500").await.expect(200);
        let all: Vec<String> = names(&all.body).into_iter().map(str::to_owned).collect();
        assert!(all.len() >= 30 && all.is_sorted());
        let (mut paged, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let from = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
            let page = test.get(&format!("/api/v1/catalog/entries?limit=7{from}")).await.expect(200);
            paged.extend(names(&page.body).into_iter().map(str::to_owned));
            cursor = page.body["next_cursor"].as_str().map(str::to_owned);
            if cursor.is_none() { break }
        }
        assert_eq!(paged, all);
        for bad in ["limit=0", "limit=501", "cursor=nonsense", "sort=colour", "review=maybe", "limit=x"] {
            let answer = test.get(&format!("/api/v1/catalog/entries?{bad}")).await.expect(422);
            assert_eq!(answer.code(), "validation_failed", "{bad}");
        }
    }

    async fn filters_narrow_the_list(engine) {
        let test = TestControl::start(engine).await;
        let remote = test.get("/api/v1/catalog/entries?kind=remote&category=documentation").await.expect(200);
        assert!(names(&remote.body).contains(&"com.deepwiki/mcp"));
        assert!(!names(&remote.body).contains(&EVERYTHING));
        assert!(names(&test.get("/api/v1/catalog/entries?verified=true").await.expect(200).body).is_empty());
        test.patch(&path(EVERYTHING), json!({"verified": true})).await.expect(200);
        let verified = test.get("/api/v1/catalog/entries?verified=true").await.expect(200);
        assert_eq!(names(&verified.body), [EVERYTHING]);
        assert_eq!(verified.body["items"][0]["verified_by"], "bootstrap");
        assert!(names(&test.get("/api/v1/catalog/entries?source=own").await.expect(200).body).is_empty());
    }

    async fn what_an_owner_publishes_can_be_found_at_once_and_shadows_the_built_in_entry(engine) {
        let test = TestControl::start(engine).await;
        let body = json!({"server": document(EVERYTHING, "9.9.9"), "categories": ["Ours"]});
        let published = test.post("/api/v1/catalog/entries", body.clone()).await.expect(201);
        assert_eq!(published.body["entry"]["review"], "approved");
        let found = test.get("/api/v1/catalog/entries?search=everything").await.expect(200);
        assert_eq!(names(&found.body).iter().filter(|name| **name == EVERYTHING).count(), 1);
        assert_eq!((&found.body["items"][0]["source"], &found.body["items"][0]["version"]), (&json!("own"), &json!("9.9.9")));
        // The same again changes nothing; other content under the same version is refused.
        test.post("/api/v1/catalog/entries", body).await.expect(201);
        let mut other = document(EVERYTHING, "9.9.9");
        other["description"] = json!("Something else.");
        let refused = test.post("/api/v1/catalog/entries", json!({"server": other})).await.expect(409);
        assert_eq!(refused.code(), "already_exists");
        // Withdrawn, the built-in one shows again.
        test.delete(&path(EVERYTHING)).await.expect(204);
        assert_eq!(test.get(&path(EVERYTHING)).await.expect(200).body["source"], "built-in");
        assert_eq!(test.delete(&path(EVERYTHING)).await.expect(409).code(), "conflict");
    }

    async fn a_published_entry_may_carry_a_readme_of_bounded_size(engine) {
        let test = TestControl::start(engine).await;
        let body = |readme: String| json!({"server": document("io.example/tool", "1.0.0"), "readme": readme});
        let refused = test.post("/api/v1/catalog/entries", body("x".repeat(65_537))).await.expect(422);
        assert_eq!(refused.body["errors"][0]["field"], "readme");
        test.post("/api/v1/catalog/entries", body("# Tool".to_owned())).await.expect(201);
        let shown = test.get(&path("io.example/tool")).await.expect(200);
        assert_eq!(shown.body["server"]["_meta"]["toolyard/catalog"]["readme"], "# Tool");
        // It is a part of the version, which does not change.
        assert_eq!(test.post("/api/v1/catalog/entries", body("# Other".to_owned())).await.expect(409).code(), "already_exists");
    }

    async fn a_newer_version_becomes_the_latest_and_the_older_stays_deployable(engine) {
        let test = TestControl::start(engine).await;
        for version in ["1.9.0", "1.10.0", "1.2.0"] {
            test.post("/api/v1/catalog/entries", json!({"server": document("io.example/tool", version)})).await.expect(201);
        }
        assert_eq!(test.get(&path("io.example/tool")).await.expect(200).body["version"], "1.10.0");
        let older = test.get(&format!("{}?version=1.2.0", path("io.example/tool"))).await.expect(200);
        assert_eq!(older.body["server"]["version"], "1.2.0");
        let versions = test.get(&format!("{}/versions", path("io.example/tool"))).await.expect(200);
        let listed: Vec<_> = versions.body["items"].as_array().expect("a list").iter().map(|v| v["version"].clone()).collect();
        assert_eq!(listed, ["1.10.0", "1.9.0", "1.2.0"]);
    }

    async fn a_developer_submits_and_a_reviewer_decides(engine) {
        let test = TestControl::start(engine).await;
        let developer = key(&test, "developer").await;
        let submit = || json!({"server": document("io.example/tool", "1.0.0")});
        let submitted = test.ask_as(&developer, Method::POST, "/api/v1/catalog/entries", Some(submit())).await.expect(201);
        assert_eq!(submitted.body["entry"]["review"], "submitted");
        assert!(names(&test.get("/api/v1/catalog/entries?search=tool&source=own").await.expect(200).body).is_empty());
        assert_eq!(names(&test.get("/api/v1/catalog/entries?review=submitted").await.expect(200).body), ["io.example/tool"]);
        let review = format!("{}/review", path("io.example/tool"));
        let own = test.ask_as(&developer, Method::POST, &review, Some(json!({"approve": true}))).await.expect(403);
        assert_eq!(own.code(), "forbidden");
        assert_eq!(test.post(&review, json!({"approve": false})).await.expect(422).code(), "validation_failed");
        let rejected = test.post(&review, json!({"approve": false, "reason": "no licence"})).await.expect(200);
        assert_eq!((&rejected.body["review"], &rejected.body["review_reason"]), (&json!("rejected"), &json!("no licence")));
        // Corrected under the same version, it is looked at again.
        let mut corrected = submit();
        corrected["server"]["description"] = json!("Now with a licence.");
        test.ask_as(&developer, Method::POST, "/api/v1/catalog/entries", Some(corrected)).await.expect(201);
        let seen = digest(&test, "io.example/tool").await;
        approve(&test, "io.example/tool", Some(&seen)).await.expect(200);
        let found = test.get("/api/v1/catalog/entries?source=own").await.expect(200);
        assert_eq!(found.body["items"][0]["description"], "Now with a licence.");
        assert_eq!(approve(&test, "io.example/tool", Some(&seen)).await.expect(409).code(), "conflict");
        let again = test.ask_as(&developer, Method::POST, "/api/v1/catalog/entries", Some(json!({"server": document("io.example/tool", "2.0.0")}))).await;
        assert_eq!(again.expect(409).code(), "conflict");
    }

    async fn a_key_narrowed_to_servers_neither_publishes_nor_rates_an_entry(engine) {
        let test = TestControl::start(engine).await;
        let narrow = json!({ "name": "narrow", "role": "admin", "scope": { "resources": ["mine"] } });
        let made = test.post("/api/v1/keys", narrow).await.expect(201);
        let key = made.body["key"].as_str().expect("a key");
        let rating = format!("{}/rating", path(EVERYTHING));
        let publish = |dry_run: bool| json!({ "server": document("io.example/tool", "1.0.0"), "dry_run": dry_run });
        for (method, path, body) in [
            (Method::POST, "/api/v1/catalog/entries", publish(false)),
            (Method::POST, "/api/v1/catalog/entries", publish(true)),
            (Method::PUT, rating.as_str(), json!({ "rating": 5 })),
        ] {
            let refused = test.ask_as(key, method, path, Some(body)).await.expect(403);
            assert!(refused.code() == "forbidden" && refused.text.contains("key-scope-no-catalog: "), "{}", refused.text);
        }
        test.get(&path("io.example/tool")).await.expect(404);
        let entry = test.ask_as(key, Method::GET, &path(EVERYTHING), None).await.expect(200);
        assert_eq!(entry.body["ratings"], 0);
    }

    async fn an_approval_is_of_exactly_the_document_that_was_seen(engine) {
        let test = TestControl::start(engine).await;
        let developer = key(&test, "developer").await;
        let submit = async |version: &str, description: &str| {
            let mut server = document("io.example/tool", version);
            server["description"] = json!(description);
            test.ask_as(&developer, Method::POST, "/api/v1/catalog/entries", Some(json!({"server": server}))).await.expect(201)
        };
        submit("1.0.0", "Never looked at.").await;
        submit("1.1.0", "Harmless.").await;
        assert_eq!(approve(&test, "io.example/tool", None).await.expect(428).code(), "precondition_required");
        let seen = digest(&test, "io.example/tool").await;
        // The same version with another document, and then another version.
        for (version, description) in [("1.1.0", "Harmful."), ("1.2.0", "Harmful too.")] {
            submit(version, description).await;
            assert_eq!(approve(&test, "io.example/tool", Some(&seen)).await.expect(412).code(), "precondition_failed");
        }
        assert_eq!(test.get(&path("io.example/tool")).await.expect(200).body["review"], "submitted");
        let seen = digest(&test, "io.example/tool").await;
        let approved = approve(&test, "io.example/tool", Some(&seen)).await.expect(200);
        assert_eq!((&approved.body["version"], &approved.body["digest"]), (&json!("1.2.0"), &json!(seen)));
        // Nothing that was not seen came in with it.
        let versions = test.get(&format!("{}/versions", path("io.example/tool"))).await.expect(200);
        assert_eq!(versions.body["items"].as_array().expect("a list").len(), 1);
        let audit = test.get("/api/v1/audit?action=catalog.approve").await.expect(200);
        assert_eq!(audit.body["items"][0]["detail"]["digest"], json!(seen));
    }

    async fn what_a_reviewer_publishes_lets_nothing_in_that_was_submitted_before(engine) {
        let test = TestControl::start(engine).await;
        let developer = key(&test, "developer").await;
        let body = |version: &str| Some(json!({"server": document("io.example/tool", version)}));
        test.ask_as(&developer, Method::POST, "/api/v1/catalog/entries", body("9.0.0")).await.expect(201);
        test.post("/api/v1/catalog/entries", body("1.0.0").expect("a body")).await.expect(201);
        let entry = test.get(&path("io.example/tool")).await.expect(200);
        assert_eq!((&entry.body["version"], &entry.body["review"]), (&json!("1.0.0"), &json!("approved")));
        test.get(&format!("{}?version=9.0.0", path("io.example/tool"))).await.expect(404);
    }

    async fn a_bad_or_hostile_document_is_refused_field_by_field(engine) {
        let test = TestControl::start(engine).await;
        let post = async |server: Value| test.post("/api/v1/catalog/entries", json!({"server": server})).await;
        let mut bad = document("io.example/tool", "^1.0");
        bad["packages"][0]["identifier"] = json!("../../etc/passwd");
        let refused = post(bad).await.expect(422);
        assert_eq!(refused.code(), "entry_invalid");
        let fields: Vec<_> = refused.body["errors"].as_array().expect("errors").iter().map(|e| e["field"].clone()).collect();
        assert_eq!(fields, ["version", "packages[0].identifier"]);
        for hostile in ["io.example/\u{202e}tool", "io.example/\u{1b}[31m", "../../x", "a b/c", "io.example/tool\u{0}"] {
            let refused = post(document(hostile, "1.0.0")).await.expect(422);
            assert!(!refused.text.contains('\u{202e}') && !refused.text.contains('\u{1b}'), "{}", refused.text);
        }
        for nonsense in [json!(null), json!([]), json!("x"), json!({}), json!({"name": 7, "packages": {"a": 1}})] {
            assert_eq!(post(nonsense).await.expect(422).code(), "entry_invalid");
        }
        let mut escaped = document("io.example/tool", "1.0.0");
        escaped["description"] = json!("safe\u{202e}\u{1b}[31m");
        let checked = test.post("/api/v1/catalog/entries", json!({"server": escaped, "dry_run": true})).await.expect(200);
        assert!(checked.body["entry"].is_null());
        assert_eq!(checked.body["validation"]["warnings"][0]["field"], "description");
        let kept = post(escaped).await.expect(201);
        assert!(!kept.text.contains('\u{202e}') && !kept.text.contains("\\u001b"), "{}", kept.text);
        assert_eq!(test.post("/api/v1/catalog/entries", json!({"server": {}, "colour": 1})).await.expect(422).code(), "validation_failed");
    }

    async fn ratings_are_one_per_person_and_shown_as_a_mean(engine) {
        let test = TestControl::start(engine).await;
        let rating = format!("{}/rating", path(EVERYTHING));
        test.put(&rating, json!({"rating": 5})).await.expect(200);
        test.put(&rating, json!({"rating": 4})).await.expect(200);
        let developer = key(&test, "developer").await;
        let rated = test.ask_as(&developer, Method::PUT, &rating, Some(json!({"rating": 1}))).await.expect(200);
        assert_eq!((&rated.body["rating"], &rated.body["ratings"]), (&json!(2.5), &json!(2)));
        for bad in [0, 6] {
            assert_eq!(test.put(&rating, json!({"rating": bad})).await.expect(422).code(), "validation_failed");
        }
        assert_eq!(test.get(&path(EVERYTHING)).await.expect(200).body["own_rating"], 4, "the caller's own");
        assert_eq!(test.get(&path("io.github.modelcontextprotocol/server-time")).await.expect(200).body["own_rating"], Value::Null);
        let best = test.get("/api/v1/catalog/entries?sort=rating&limit=1").await.expect(200);
        assert_eq!(names(&best.body), [EVERYTHING]);
    }

    async fn ratings_and_submissions_can_be_switched_off(engine) {
        let test = TestControl::start(engine).await;
        let developer = key(&test, "developer").await;
        for flag in ["catalog_ratings", "catalog_submissions"] {
            test.put(&format!("/api/v1/flags/{flag}"), json!({"everyone": false})).await.expect(200);
        }
        let rated = test.put(&format!("{}/rating", path(EVERYTHING)), json!({"rating": 5})).await.expect(404);
        assert_eq!(rated.code(), "feature_disabled");
        let body = json!({"server": document("io.example/tool", "1.0.0")});
        let submitted = test.ask_as(&developer, Method::POST, "/api/v1/catalog/entries", Some(body.clone())).await.expect(404);
        assert_eq!(submitted.code(), "feature_disabled");
        test.post("/api/v1/catalog/entries", body).await.expect(201);
    }

    async fn a_restart_keeps_what_people_said_about_entries(engine) {
        let test = TestControl::start(engine).await;
        test.patch(&path(EVERYTHING), json!({"verified": true, "categories": ["Approved here"]})).await.expect(200);
        let clock = test.clock.clone();
        let test = TestControl::on(test.stop().await, clock).await;
        let entry = test.get(&path(EVERYTHING)).await.expect(200);
        assert_eq!((&entry.body["verified_by"], &entry.body["categories"]), (&json!("bootstrap"), &json!(["Approved here"])));
        let found = test.get("/api/v1/catalog/entries?category=approved%20here").await.expect(200);
        assert_eq!(names(&found.body), [EVERYTHING]);
    }

    async fn a_source_with_a_password_in_its_address_is_refused_and_the_address_is_not_told(engine) {
        let test = TestControl::start(engine).await;
        let add = async |url: &str| {
            let body = json!({"name": "x", "kind": "registry", "url": url});
            let refused = test.post("/api/v1/catalog/sources", body).await.expect(422);
            assert_eq!(refused.body["errors"][0]["field"], "url");
            assert!(!refused.text.contains("hunter2"), "{}", refused.text);
            refused.text
        };
        assert!(add("https://user:hunter2@registry.example.test/").await.contains("must not hold a user or password"));
        assert!(add("htps://user:hunter2@registry.example.test/").await.contains("http:// or https://"));
        assert!(add("user:hunter2@registry.example.test").await.contains("http:// or https://"));
    }

    async fn a_viewer_reads_and_changes_nothing(engine) {
        let test = TestControl::start(engine).await;
        let viewer = key(&test, "viewer").await;
        test.ask_as(&viewer, Method::GET, "/api/v1/catalog/entries", None).await.expect(200);
        for (method, path, body) in [
            (Method::POST, "/api/v1/catalog/entries".to_owned(), json!({"server": document("io.example/x", "1.0.0")})),
            (Method::PATCH, path(EVERYTHING), json!({"public": true})),
            (Method::DELETE, path(EVERYTHING), Value::Null),
            (Method::POST, "/api/v1/catalog/sources".to_owned(), json!({"name": "x", "kind": "file", "url": "https://x.example/"})),
        ] {
            assert_eq!(test.ask_as(&viewer, method, &path, Some(body)).await.expect(403).code(), "forbidden");
        }
    }
}
