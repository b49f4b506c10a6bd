//! The ground of the API: access of every route, problems, request ids, headers.

use axum::body::Body;
use http::{Method, Request};
use serde_json::json;

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
