//! The ground of the API: access of every route, problems, request ids, headers.

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Method, Request};
use serde_json::{Value, json};
use toolyard_types::Code;
use toolyard_types::access::Action;

use crate::harness::{Engine, TestControl, both_engines};

fn request(method: &str, path: &str) -> Request<Body> {
    Request::builder().method(method).uri(path).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn every_operation_has_an_access_and_every_one_that_is_not_public_answers_401_without_a_key() {
    let test = TestControl::start(Engine::Sqlite).await;
    let api = serde_json::to_value(toolyard_control::openapi()).unwrap();
    let mut seen = 0;
    for (path, item) in api["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let access = operation["x-toolyard-action"].as_str().unwrap_or_else(|| panic!("{method} {path}"));
            let concrete = path.replace(['{', '}'], "");
            let answer = test.send(request(&method.to_uppercase(), &concrete)).await;
            if access == "public" {
                assert_ne!(answer.code(), "unauthenticated", "{method} {path}");
            } else {
                assert_eq!((answer.status.as_u16(), answer.code()), (401, "unauthenticated"), "{method} {path}");
            }
            seen += 1;
        }
    }
    assert!(seen >= 2);
}

both_engines! {
    async fn a_control_plane_tells_its_version_and_database(engine) {
        let test = TestControl::start(engine).await;
        let answer = test.send(request("GET", "/api/v1/version")).await.expect(200);
        let database = if engine == Engine::Sqlite { "sqlite" } else { "postgres" };
        assert_eq!(answer.body["database"], json!(database));
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
        test.stop().await;
    }

    async fn a_secret_that_was_replaced_is_refused_every_operation_that_does_not_read(engine) {
        let test = TestControl::start(engine).await;
        let made = test.post("/api/v1/keys", json!({ "name": "ci", "role": "owner" })).await.expect(201);
        let id = made.body["id"].as_str().unwrap();
        let rotate = format!("/api/v1/keys/{id}/rotate");
        let rotated = test.post(&rotate, json!({ "overlap_seconds": 3600 })).await.expect(200);
        let (old, new) = (made.body["key"].as_str().unwrap(), rotated.body["key"].as_str().unwrap());
        let api = serde_json::to_value(toolyard_control::openapi()).unwrap();
        let (mut read, mut refused) = (0, 0);
        for (path, item) in api["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let access = operation["x-toolyard-action"].as_str().unwrap();
                let concrete = path.replace("{id}", id).replace("{name}", "nothing-there");
                let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
                let what = format!("{method} {path}");
                if access == "public" {
                    continue;
                }
                if method == Method::GET {
                    // A stream of events never ends.
                    let request = Request::get(&concrete).header("authorization", format!("Bearer {old}"));
                    let status = test.stream(request.body(Body::empty()).unwrap()).await.status().as_u16();
                    assert!(![401, 403].contains(&status) && status < 500, "{what}: {status}");
                    read += 1;
                    continue;
                }
                let answer = test.ask_as(old, method, &concrete, Some(json!({}))).await;
                if access == "signed_in" {
                    // These are about a session, and a key has none.
                    assert!([204, 409, 422].contains(&answer.status.as_u16()), "{what}: {}", answer.text);
                    continue;
                }
                assert_eq!((answer.status.as_u16(), answer.code()), (403, "forbidden"), "{what}: {}", answer.text);
                let detail = answer.body["detail"].as_str().unwrap();
                let why = "is refused: key-replaced-secret: this secret of the API key was replaced: ";
                let told = detail.starts_with(&format!("`{access}` ")) && detail.contains(why);
                assert!(told && detail.ends_with("use the new one"), "{what}: {detail}");
                refused += 1;
            }
        }
        assert!(read > 25 && refused > 25, "{read} read, {refused} refused");

        let why = async |key: &str, more: &str| {
            let path = format!("/api/v1/why?action=server:deploy&resource=server/x{more}");
            test.ask_as(key, Method::GET, &path, None).await.expect(200).body
        };
        let about_itself = why(old, "").await;
        assert_eq!(about_itself["allowed"], json!(false));
        assert!(about_itself["because"][0].as_str().unwrap().starts_with("key-replaced-secret: "), "{about_itself}");
        // The key itself is what it was, whoever asks.
        for (key, more) in [(new, ""), (new, "&key=ci"), (old, "&key=ci")] {
            assert_eq!(why(key, more).await["allowed"], json!(true), "{more}");
        }
        let session = test.ask_as(old, Method::GET, "/api/v1/session", None).await.expect(200);
        let may = session.body["actions"].as_array().unwrap();
        assert!(may.contains(&json!("tool:call")) && !may.contains(&json!("server:deploy")), "{may:?}");
        let server = json!({ "name": "s", "url": "https://mcp.example.test/mcp", "start": false });
        test.ask_as(old, Method::POST, "/api/v1/servers", Some(server.clone())).await.expect(403);
        test.ask_as(new, Method::POST, "/api/v1/servers", Some(server)).await.expect(201);
        test.ask_as(old, Method::GET, "/api/v1/servers/s", None).await.expect(200);
    }

    async fn a_nul_in_a_path_or_a_query_is_bad_input_of_that_parameter(engine) {
        let test = TestControl::start(engine).await;
        let cursor = URL_SAFE_NO_PAD.encode(json!(["a\0", "1.0.0", "x"]).to_string());
        for (path, field) in [
            ("/v0.1/servers?search=%00".to_owned(), "search"),
            ("/v0.1/servers?limit=5&version=a%00b".to_owned(), "version"),
            ("/v0.1/servers/io.example%2Fx/versions/%00".to_owned(), "path"),
            (format!("/v0.1/servers?cursor={cursor}"), "cursor"),
            ("/api/v1/servers?search=%00".to_owned(), "search"),
            ("/api/v1/audit?%00=x".to_owned(), "query"),
            ("/api/v1/nowhere/%00".to_owned(), "path"),
        ] {
            for answer in [test.send(request("GET", &path)).await, test.get(&path).await] {
                let told = (answer.status.as_u16(), answer.code(), &answer.body["errors"][0]["field"]);
                assert_eq!(told, (422, "validation_failed", &json!(field)), "{path}: {}", answer.text);
            }
        }
        // A per cent sign that is written out begins nothing.
        test.get("/v0.1/servers?search=%2500").await.expect(200);
    }

    async fn a_nul_in_a_body_is_bad_input_of_that_field(engine) {
        let test = TestControl::start(engine).await;
        let sign_in = async |body: Value| {
            let request = Request::post("/api/v1/session").header("content-type", "application/json");
            test.send(request.body(Body::from(body.to_string())).unwrap()).await.expect(422)
        };
        for (body, field) in [
            (json!({ "email": "a\0@example.test", "password": "x" }), "email"),
            (json!({ "email": "a@example.test", "password": "x", "organization": "\0" }), "organization"),
        ] {
            let answer = sign_in(body).await;
            assert_eq!((answer.code(), &answer.body["errors"][0]["field"]), ("validation_failed", &json!(field)));
        }
        let narrowed = json!({ "name": "ci", "role": "viewer", "scope": { "resources": ["a", "b\0"] } });
        let answer = test.ask(Method::POST, "/api/v1/keys", Some(narrowed)).await.expect(422);
        assert_eq!(answer.body["errors"][0]["field"], json!("scope.resources[1]"));
        let about = json!({ "secret": "x", "description": r"ends with \u0000" });
        test.ask(Method::PUT, "/api/v1/credentials/a", Some(about)).await.expect(200);
    }

    async fn a_refused_value_that_may_be_a_secret_is_not_told(engine) {
        let test = TestControl::start(engine).await;
        for (method, path, body) in [
            (Method::POST, "/api/v1/session", json!({ "email": "a@example.test", "password": 50_151_015 })),
            (Method::PUT, "/api/v1/credentials/a", json!({ "secret": ["50151015"] })),
            (Method::POST, "/api/v1/servers", json!({ "entry": "io.example/x", "inputs": "50151015" })),
            (Method::POST, "/api/v1/servers", json!({ "entry": "io.example/x", "credentials": { "KEY": "Key_50151015" } })),
            (Method::POST, "/api/v1/servers", json!({ "url": "https://user:50151015@mcp.example.test/mcp" })),
            (Method::POST, "/api/v1/servers", json!({ "url": "htps://user:50151015@mcp.example.test/mcp" })),
        ] {
            let answer = test.ask(method, path, Some(body)).await.expect(422);
            assert!(!answer.text.contains("50151015"), "{}", answer.text);
        }
    }
}

#[tokio::test]
async fn what_is_served_beside_the_api_asks_the_same_decision_function() {
    let test = TestControl::start(Engine::Sqlite).await;
    let mut headers = http::HeaderMap::new();
    let refused = test.control.may(&headers, Action::AuditRead).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let owner = format!("Bearer {}", crate::harness::OWNER_KEY);
    headers.insert("authorization", owner.parse().unwrap());
    test.control.may(&headers, Action::AuditRead).await.unwrap();
    let viewer = json!({"name": "looks", "role": "viewer"});
    let viewer = test.ask(Method::POST, "/api/v1/keys", Some(viewer)).await.expect(201);
    let viewer = format!("Bearer {}", viewer.body["key"].as_str().unwrap());
    headers.insert("authorization", viewer.parse().unwrap());
    let refused = test.control.may(&headers, Action::AuditRead).await.unwrap_err();
    assert_eq!(refused.code(), Code::Forbidden);
    test.control.may(&headers, Action::FlagRead).await.unwrap();
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems_with_the_request_id_that_came_in() {
    let test = TestControl::start(Engine::Sqlite).await;
    let mut nowhere = request("GET", "/api/v1/nowhere");
    nowhere.headers_mut().insert("x-request-id", "from-the-proxy-1".parse().unwrap());
    let answer = test.send(nowhere).await.expect(404);
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    assert_eq!(answer.headers["x-request-id"], "from-the-proxy-1");
    assert_eq!((answer.code(), &answer.body["request_id"]), ("not_found", &json!("from-the-proxy-1")));

    let answer = test.ask(Method::DELETE, "/api/v1/version", None).await.expect(405);
    assert_eq!(answer.code(), "method_not_allowed");

    let mut hostile = request("GET", "/api/v1/nowhere");
    hostile.headers_mut().insert("x-request-id", "a\" onload=\"b".parse().unwrap());
    let answer = test.send(hostile).await.expect(404);
    assert_ne!(answer.headers["x-request-id"], "a\" onload=\"b");
}

async fn post_raw(test: &TestControl, kind: &str, body: impl Into<Body>) -> crate::harness::Answer {
    let key = crate::harness::OWNER_KEY;
    let request = Request::post("/api/v1/keys").header("authorization", format!("Bearer {key}"));
    test.send(request.header("content-type", kind).body(body.into()).unwrap()).await
}

#[tokio::test]
async fn a_bad_body_is_a_problem_that_says_where() {
    let test = TestControl::start(Engine::Sqlite).await;
    let broken = post_raw(&test, "application/json", "{\n \"name\": ").await.expect(400);
    assert_eq!(broken.code(), "invalid_json");
    assert!(broken.body["detail"].as_str().unwrap().contains("line 2, column"), "{}", broken.text);

    let wrong = post_raw(&test, "application/json", r#"{"name":"a","role":7}"#).await.expect(422);
    assert_eq!((wrong.code(), &wrong.body["errors"][0]["field"]), ("validation_failed", &json!("role")));
    let unknown = post_raw(&test, "application/json", r#"{"name":"a","role":"viewer","oops":1}"#).await.expect(422);
    assert_eq!(unknown.body["errors"][0]["field"], json!("oops"));
    let missing = post_raw(&test, "application/json", r#"{"role":"viewer"}"#).await.expect(422);
    assert!(missing.text.contains("missing field `name`"), "{}", missing.text);
    let scope = post_raw(&test, "application/json", r#"{"name":"a","role":"viewer","scope":{"actions":["x"]}}"#).await;
    assert_eq!(scope.expect(422).body["errors"][0]["field"], json!("scope.actions[0]"));

    assert_eq!(post_raw(&test, "text/plain", "{}").await.expect(415).code(), "unsupported_media_type");
    let huge = post_raw(&test, "application/json", "x".repeat(1024 * 1024 + 1)).await.expect(413);
    assert_eq!(huge.code(), "payload_too_large");
    assert!(huge.body["request_id"].is_string());
}

#[tokio::test]
async fn json_answers_are_compressed_when_asked_for() {
    let test = TestControl::start(Engine::Sqlite).await;
    let request = Request::get("/api/v1/openapi.json").header("accept-encoding", "gzip").body(Body::empty()).unwrap();
    let answer = test.send(request).await.expect(200);
    assert_eq!(answer.headers["content-encoding"], "gzip");
    assert!(answer.headers.get("access-control-allow-origin").is_none());
}

#[test]
fn the_api_document_refers_only_to_what_it_defines_and_names_every_operation_once() {
    let api = serde_json::to_value(toolyard_control::openapi()).unwrap();
    assert!(api["openapi"].as_str().unwrap().starts_with("3.1"));
    let text = api.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(api.pointer(pointer).is_some(), "{pointer}");
    }
    let mut ids = std::collections::BTreeSet::new();
    for (path, item) in api["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap_or_else(|| panic!("{method} {path}"));
            assert!(ids.insert(id.to_owned()), "{id} is used twice");
            assert!(operation["responses"]["default"].is_object(), "{method} {path}");
            assert!(operation["summary"].is_string(), "{method} {path} says what it does");
        }
    }
}
