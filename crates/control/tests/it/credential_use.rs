//! Who may bind a credential to a server. Whoever deploys a server can read what it gets.

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, OWNER_KEY, TestControl, both_engines};
use crate::servers::EVERYTHING;

/// A key narrowed as `scope` says, with an owner's role.
async fn narrowed(test: &TestControl, name: &str, scope: Value) -> String {
    let body = json!({ "name": name, "role": "owner", "scope": scope });
    let made = test.ask_as(OWNER_KEY, Method::POST, "/api/v1/keys", Some(body)).await.expect(201);
    made.body["key"].as_str().unwrap().to_owned()
}

async fn secret(test: &TestControl, name: &str) {
    test.put(&format!("/api/v1/credentials/{name}"), json!({ "secret": format!("secret of {name}") }))
        .await
        .expect(200);
}

fn server(name: &str, credentials: Value) -> Value {
    json!({ "name": name, "entry": EVERYTHING, "credentials": credentials, "start": false })
}

#[track_caller]
fn refused(answer: Answer, credential: &str) {
    let answer = answer.expect(403);
    assert_eq!(answer.code(), "forbidden");
    let detail = answer.body["detail"].as_str().unwrap();
    let expected = format!("`credential:use` of `credential/{credential}` is refused: key-scope-credentials: ");
    assert!(detail.starts_with(&expected), "{detail}");
}

both_engines! {
    async fn a_key_narrowed_to_a_server_binds_no_credential_in_any_way(engine) {
        let test = TestControl::start(engine).await;
        for name in ["mine", "yours"] {
            secret(&test, name).await;
        }
        let key = narrowed(&test, "ci", json!({ "resources": ["a", "b", "r"], "credentials": ["mine"] })).await;
        let ask = async |method, path: &str, body| test.ask_as(&key, method, path, Some(body)).await;

        // Deploy: a variable, a remote's header, and the registry of an image.
        refused(ask(Method::POST, "/api/v1/servers", server("a", json!({ "TOKEN": "yours" }))).await, "yours");
        let url = "https://mcp.example.test/mcp";
        let remote = json!({ "name": "r", "url": url, "credentials": { "Authorization": "yours" }, "start": false });
        refused(ask(Method::POST, "/api/v1/servers", remote).await, "yours");
        test.get("/api/v1/servers/a").await.expect(404);
        ask(Method::POST, "/api/v1/servers", server("a", json!({ "TOKEN": "mine" }))).await.expect(201);

        // Update: another credential, and the same at another variable.
        let bind = |input: &str, credential: &str| json!({ "credentials": { input: credential } });
        refused(ask(Method::PATCH, "/api/v1/servers/a", bind("TOKEN", "yours")).await, "yours");
        test.patch("/api/v1/servers/a", bind("OTHER", "yours")).await.expect(202);
        refused(ask(Method::PATCH, "/api/v1/servers/a", bind("ANOTHER", "yours")).await, "yours");
        // What somebody who may has bound stays as it is while the rest is changed.
        ask(Method::PATCH, "/api/v1/servers/a", json!({ "arguments": ["stdio"] })).await.expect(202);
        ask(Method::PATCH, "/api/v1/servers/a", bind("OTHER", "yours")).await.expect(202);

        // Clone: a server of another name with all of it.
        test.put("/api/v1/flags/server_clone", json!({ "everyone": true })).await.expect(200);
        refused(ask(Method::POST, "/api/v1/servers/a/clone", json!({ "name": "b" })).await, "yours");
        test.get("/api/v1/servers/b").await.expect(404);

        // Rollback to a revision with a credential that was taken away since.
        test.patch("/api/v1/servers/a", json!({ "unset_environment": ["OTHER"] })).await.expect(202);
        refused(ask(Method::POST, "/api/v1/servers/a/rollback", json!({ "revision": 3 })).await, "yours");
        ask(Method::POST, "/api/v1/servers/a/rollback", json!({ "revision": 1 })).await.expect(202);
        test.post("/api/v1/servers/a/rollback", json!({ "revision": 3 })).await.expect(202);

        let audit = test.get("/api/v1/audit?action=credential:use&outcome=refused").await.expect(200);
        let targets: Vec<_> = audit.body["items"].as_array().unwrap().iter().map(|line| line["target"].as_str()).collect();
        // What repeats is counted in one line, when its minute is over.
        assert_eq!(targets, [Some("server/a"), Some("credential/yours")]);
    }

    async fn a_key_narrowed_to_actions_binds_only_with_the_action_for_it(engine) {
        let test = TestControl::start(engine).await;
        secret(&test, "x").await;
        let deploys = narrowed(&test, "deploys", json!({ "actions": ["server:deploy"] })).await;
        let body = server("a", json!({ "TOKEN": "x" }));
        let answer = test.ask_as(&deploys, Method::POST, "/api/v1/servers", Some(body.clone())).await.expect(403);
        assert!(answer.text.contains("key-scope-actions"), "{}", answer.text);
        let both = narrowed(&test, "both", json!({ "actions": ["server:deploy", "credential:use"] })).await;
        test.ask_as(&both, Method::POST, "/api/v1/servers", Some(body)).await.expect(201);
    }

    async fn whoever_sends_a_remote_elsewhere_must_be_allowed_its_credentials(engine) {
        let test = TestControl::start(engine).await;
        secret(&test, "yours").await;
        let url = |host: &str| format!("https://{host}.example.test/mcp");
        let bound = json!({ "Authorization": "yours" });
        let remote = json!({ "name": "r", "url": url("one"), "credentials": bound, "start": false });
        test.post("/api/v1/servers", remote).await.expect(201);
        let key = narrowed(&test, "ci", json!({ "resources": ["r"] })).await;
        let send = async |host| {
            let body = json!({ "url": url(host) });
            test.ask_as(&key, Method::PATCH, "/api/v1/servers/r", Some(body)).await
        };
        refused(send("evil").await, "yours");
        send("one").await.expect(202);
        test.patch("/api/v1/servers/r", json!({ "url": url("two") })).await.expect(202);
        let back = json!({ "revision": 1 });
        refused(test.ask_as(&key, Method::POST, "/api/v1/servers/r/rollback", Some(back)).await, "yours");
        let revisions = test.get("/api/v1/servers/r/revisions").await.expect(200);
        assert_eq!(revisions.body["items"].as_array().unwrap().len(), 2);
        let settings = test.get("/api/v1/servers/r/settings").await.expect(200);
        assert_eq!(settings.body["remote"]["url"], json!(url("two")));
        test.post("/api/v1/servers", server("a", json!({}))).await.expect(201);
        let package = test.patch("/api/v1/servers/a", json!({ "url": url("one") })).await.expect(422);
        assert_eq!(package.body["errors"][0]["field"], json!("url"));
        let bad = test.patch("/api/v1/servers/r", json!({ "url": "file:///etc/passwd" })).await.expect(422);
        assert_eq!(bad.body["errors"][0]["field"], json!("url"));
    }

    async fn a_deploy_and_another_secret_at_once_bring_no_secret_to_a_header_that_cannot_hold_it(engine) {
        let test = TestControl::start(engine).await;
        for round in 0..20 {
            let (name, path) = (format!("r{round}"), format!("/api/v1/credentials/c{round}"));
            secret(&test, &format!("c{round}")).await;
            let bound = json!({ "Authorization": format!("c{round}") });
            let url = "https://mcp.example.test/mcp";
            let remote = json!({ "name": name, "url": url, "credentials": bound, "start": false });
            let (deployed, put) = tokio::join!(
                test.post("/api/v1/servers", remote),
                test.put(&path, json!({ "secret": "with the line break of its file\n" })),
            );
            let done = [deployed.status == 201, put.status == 200];
            assert_eq!(done.iter().filter(|done| **done).count(), 1, "{} {}", deployed.text, put.text);
        }
    }

    async fn a_deploy_and_the_deletion_of_its_credential_at_once_leave_no_server_without_it(engine) {
        let test = TestControl::start(engine).await;
        for round in 0..20 {
            let (credential, path) = (format!("c{round}"), format!("/api/v1/credentials/c{round}"));
            secret(&test, &credential).await;
            let body = server(&format!("a{round}"), json!({ "TOKEN": credential }));
            let (deployed, deleted) = tokio::join!(test.post("/api/v1/servers", body), test.delete(&path));
            let done = [deployed.status == 201, deleted.status == 204];
            assert_eq!(done.iter().filter(|done| **done).count(), 1, "{} {}", deployed.text, deleted.text);
            // Found before the deployment or during it: either way it is said which one.
            let named = deployed.text.contains(&format!("`{credential}`")) || deployed.text.contains("credentials.TOKEN");
            assert!(deployed.status == 201 || named, "{}", deployed.text);
        }
    }

    async fn a_rollback_to_a_revision_whose_credential_was_deleted_is_refused_and_names_what_it_was_bound_to(engine) {
        let test = TestControl::start(engine).await;
        secret(&test, "gone").await;
        test.post("/api/v1/servers", server("a", json!({ "TOKEN": "gone" }))).await.expect(201);
        test.patch("/api/v1/servers/a", json!({ "unset_environment": ["TOKEN"] })).await.expect(202);
        test.delete("/api/v1/credentials/gone").await.expect(204);
        // One of the same name is another one.
        secret(&test, "gone").await;
        let refused = test.post("/api/v1/servers/a/rollback", json!({ "revision": 1 })).await.expect(422);
        assert_eq!(refused.code(), "credential_missing");
        assert!(refused.body["detail"].as_str().unwrap().contains("bound to `TOKEN`"), "{}", refused.text);
        assert_eq!(test.get("/api/v1/servers/a").await.expect(200).body["revision"], 2);
    }

    async fn a_rollback_and_the_deletion_of_its_credential_at_once_leave_no_server_without_it(engine) {
        let test = TestControl::start(engine).await;
        for round in 0..20 {
            let (name, credential) = (format!("a{round}"), format!("c{round}"));
            secret(&test, &credential).await;
            test.post("/api/v1/servers", server(&name, json!({ "TOKEN": credential }))).await.expect(201);
            let without = json!({ "unset_environment": ["TOKEN"] });
            test.patch(&format!("/api/v1/servers/{name}"), without).await.expect(202);
            let (back, path) = (format!("/api/v1/servers/{name}/rollback"), format!("/api/v1/credentials/{credential}"));
            let (back, deleted) =
                tokio::join!(test.post(&back, json!({ "revision": 1 })), test.delete(&path));
            let done = [back.status == 202, deleted.status == 204];
            assert_eq!(done.iter().filter(|done| **done).count(), 1, "{} {}", back.text, deleted.text);
        }
    }

    async fn a_server_that_is_bound_to_anothers_input_while_that_is_removed_keeps_its_credential(engine) {
        let test = TestControl::start(engine).await;
        for round in 0..20 {
            let (origin, other) = (format!("a{round}"), format!("b{round}"));
            let url = "https://mcp.example.test/mcp";
            let inputs = json!({ "Authorization": "passed" });
            let body = json!({ "name": origin, "url": url, "inputs": inputs, "start": false });
            test.post("/api/v1/servers", body).await.expect(201);
            let bound = json!({ "Authorization": format!("{origin}-authorization") });
            let body = json!({ "name": other, "url": url, "credentials": bound, "start": false });
            let path = format!("/api/v1/servers/{origin}");
            let (deployed, deleted) = tokio::join!(test.post("/api/v1/servers", body), test.delete(&path));
            deleted.expect(202);
            test.wait(&path, |status, _| status == 404).await;
            let left = test.get(&format!("/api/v1/credentials/{origin}-authorization")).await;
            assert_eq!(deployed.status == 201, left.status == 200, "{} {}", deployed.text, left.text);
        }
    }

    async fn a_secret_that_is_passed_needs_no_leave(engine) {
        let test = TestControl::start(engine).await;
        let key = narrowed(&test, "ci", json!({ "resources": ["github"] })).await;
        let url = "https://mcp.example.test/mcp";
        let inputs = json!({ "Authorization": "passed" });
        let body = json!({ "name": "github", "url": url, "inputs": inputs, "start": false });
        test.ask_as(&key, Method::POST, "/api/v1/servers", Some(body)).await.expect(201);
        let more = json!({ "inputs": { "Authorization": "passed again" } });
        test.ask_as(&key, Method::PATCH, "/api/v1/servers/github", Some(more)).await.expect(202);
    }

    async fn a_narrowed_key_sees_the_credentials_that_it_may_use_and_why_says_so(engine) {
        let test = TestControl::start(engine).await;
        for name in ["mine", "yours"] {
            secret(&test, name).await;
        }
        let key = narrowed(&test, "ci", json!({ "resources": ["a"], "credentials": ["mine"] })).await;
        let listed = test.ask_as(&key, Method::GET, "/api/v1/credentials", None).await.expect(200);
        let names: Vec<_> = listed.body["items"].as_array().unwrap().iter().map(|it| it["name"].as_str()).collect();
        assert_eq!(names, [Some("mine")]);
        test.ask_as(&key, Method::GET, "/api/v1/credentials/yours", None).await.expect(403);
        let put = json!({ "secret": "another" });
        test.ask_as(&key, Method::PUT, "/api/v1/credentials/mine", Some(put)).await.expect(403);

        let why = async |name: &str| {
            let path = format!("/api/v1/why?action=credential:use&resource=credential/{name}&key=ci");
            test.get(&path).await.expect(200).body
        };
        assert_eq!(why("mine").await["allowed"], json!(true));
        let no = why("yours").await;
        assert!(no["because"][0].as_str().unwrap().starts_with("key-scope-credentials: "), "{no}");
    }
}
