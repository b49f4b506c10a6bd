use crate::world::*;
use axum::body::Body;
use http::{Method, Request, StatusCode};
use std::sync::Arc;
use toolyard_mcp::era::Era;

const OLD: &str = "/mcp/default/servers/old";
const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

async fn problem(response: axum::response::Response) -> (u16, String) {
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let status = response.status().as_u16();
    let problem = json(response).await;
    assert!(!problem["request_id"].as_str().unwrap().is_empty());
    (status, problem["code"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_request_without_a_good_key_is_401_with_a_challenge() {
    let world = world().server("old", Era::Legacy).start().await;
    for authorization in ["Bearer wrong", "Bearer expired", "Basic abc", "Bearer", ""] {
        let response = world.post(OLD, &[("authorization", authorization)], PING).await;
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
        assert_eq!(problem(response).await, (401, "unauthenticated".into()), "{authorization}");
    }
}

#[tokio::test]
async fn what_a_key_may_not_see_does_not_exist_and_what_it_may_not_call_is_403() {
    let world = world().server("old", Era::Legacy).start().await;
    for (key, path, want) in [
        ("stranger", OLD, (404, "not_found")),
        (KEY, "/mcp/default/servers/none", (404, "not_found")),
        (KEY, "/mcp/none/servers/old", (404, "not_found")),
        (KEY, "/mcp/default/toolsets/old", (404, "not_found")),
        (KEY, "/mcp/default/servers/..%2Fold", (404, "not_found")),
        ("viewer", OLD, (403, "forbidden")),
    ] {
        let response = world.post(path, &[("authorization", &format!("Bearer {key}"))], PING).await;
        assert_eq!(problem(response).await, (want.0, want.1.to_owned()), "{key} {path}");
    }
}

#[tokio::test]
async fn a_revoked_key_stops_with_the_next_snapshot() {
    let world = world().server("old", Era::Legacy).start().await;
    let session = world.initialize(OLD, "2025-06-18").await;
    assert_eq!(world.legacy(OLD, &session, PING).await.status(), StatusCode::OK);
    world.snapshots.send_modify(|snapshot| {
        let mut next = (**snapshot).clone();
        next.keys.clear();
        next.version += 1;
        *snapshot = Arc::new(next);
    });
    assert_eq!(world.legacy(OLD, &session, PING).await.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_key_that_another_replica_has_just_made_waits_for_the_snapshot_that_knows_it() {
    let world = world().server("old", Era::Legacy).start().await;
    let fresh = [("authorization", "Bearer fresh")];
    let (made, asked) = tokio::join!(
        async {
            tokio::task::yield_now().await;
            world.clock.step_ms(1);
            world.snapshots.send_modify(|snapshot| {
                let mut next = (**snapshot).clone();
                add_key_like(&mut next, KEY, "fresh");
                (next.version, next.made_at) = (next.version + 1, world.clock.now());
                *snapshot = Arc::new(next);
            });
        },
        world.post("/mcp/default/servers/old", &fresh, PING),
    );
    let ((), status) = (made, asked.status());
    assert_eq!(status, StatusCode::BAD_REQUEST, "let in, and told to initialize");
    let unknown = world.post(OLD, &[("authorization", "Bearer other")], PING).await;
    assert_eq!(unknown.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_stale_snapshot_is_served_up_to_an_age_then_refused() {
    let world = world().server("old", Era::Legacy).start().await;
    let session = world.initialize(OLD, "2025-06-18").await;
    world.clock.step_ms(60_000);
    assert_eq!(world.legacy(OLD, &session, PING).await.status(), StatusCode::OK);
    world.clock.step_ms(1);
    assert_eq!(problem(world.legacy(OLD, &session, PING).await).await, (503, "snapshot_stale".into()));
}

#[tokio::test]
async fn an_organization_whose_changes_cannot_be_read_is_refused_alone_when_its_picture_is_too_old() {
    let world = world().server("old", Era::Legacy).start().await;
    let session = world.initialize(OLD, "2025-06-18").await;
    let since = world.clock.now();
    let renew = |behind: bool| {
        world.clock.step_ms(60_001);
        world.snapshots.send_modify(|snapshot| {
            let mut next = (**snapshot).clone();
            (next.version, next.made_at) = (next.version + 1, world.clock.now());
            let ids = next.organizations.values().map(|it| it.id).filter(|_| behind);
            next.behind = ids.map(|id| (id, since)).collect();
            *snapshot = Arc::new(next);
        });
    };
    renew(true);
    assert_eq!(problem(world.legacy(OLD, &session, PING).await).await, (503, "snapshot_stale".into()));
    renew(false);
    assert_eq!(world.legacy(OLD, &session, PING).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_rebound_host_and_a_foreign_origin_are_turned_away_first() {
    let world = world().server("old", Era::Legacy).start().await;
    for (name, value) in [("host", "evil.example"), ("origin", "http://evil.example"), ("origin", "null")] {
        let mut request = post_request(OLD, &[("authorization", "Bearer wrong")], PING);
        request.headers_mut().insert(http::HeaderName::from_static(name), value.parse().unwrap());
        assert_eq!(problem(world.send(request).await).await, (403, "forbidden".into()), "{name}: {value}");
    }
}

#[tokio::test]
async fn sessions_are_required_bound_and_end_when_deleted() {
    let world = world().server("old", Era::Legacy).server("two", Era::Legacy).start().await;
    assert_eq!(world.post(OLD, &[], PING).await.status(), StatusCode::BAD_REQUEST);
    assert_eq!(world.legacy(OLD, "made-up", PING).await.status(), StatusCode::NOT_FOUND);
    let session = world.initialize(OLD, "2025-06-18").await;
    assert_eq!(world.legacy("/mcp/default/servers/two", &session, PING).await.status(), StatusCode::NOT_FOUND);
    let bad_version = [("mcp-session-id", session.as_str()), ("mcp-protocol-version", "1999-01-01")];
    assert_eq!(world.post(OLD, &bad_version, PING).await.status(), StatusCode::BAD_REQUEST);
    let mut delete = post_request(OLD, &[("mcp-session-id", &session)], Body::empty());
    *delete.method_mut() = Method::DELETE;
    assert_eq!(world.send(delete).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(world.legacy(OLD, &session, PING).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn hostile_bodies_get_a_clear_error_and_reach_no_server() {
    let world = world().server("old", Era::Legacy).start().await;
    let session = world.initialize(OLD, "2025-06-18").await;
    let before = world.fixture("old").count(|_| true);
    let deep =
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"a","params":{{"a":{}{}}}}}"#, "[".repeat(5000), "]".repeat(5000));
    for (body, code) in [
        ("{bad".to_owned(), -32700),
        (String::new(), -32700),
        ("\u{0}".to_owned(), -32700),
        ("[]".to_owned(), -32600),
        ("\"text\"".to_owned(), -32600),
        (deep, -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","method":"ping"}"#.to_owned(), -32600),
        (r#"{"jsonrpc":"2.0","id":{"a":1},"method":"ping"}"#.to_owned(), -32600),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","_meta":{},"_meta":{}}}"#
                .to_owned(),
            -32602,
        ),
    ] {
        let response = world.legacy(OLD, &session, body.clone()).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(json(response).await["error"]["code"], code, "{body}");
    }
    let huge = world.legacy(OLD, &session, vec![b' '; (1 << 20) + 1]).await;
    assert_eq!(problem(huge).await, (413, "payload_too_large".into()));
    assert_eq!(world.fixture("old").count(|_| true), before);
}

#[tokio::test]
async fn an_empty_accept_header_is_as_good_as_none_and_several_are_one_list() {
    let world = world().server("old", Era::Legacy).start().await;
    let session = world.initialize(OLD, "2025-06-18").await;
    let accepts: [&[&str]; 4] = [&[], &[""], &[" , "], &["image/png", "application/json"]];
    for accept in accepts {
        let mut request = post_request(OLD, &[("mcp-session-id", &session)], PING);
        request.headers_mut().remove("accept");
        for value in accept {
            request.headers_mut().append("accept", value.parse().unwrap());
        }
        assert_eq!(world.send(request).await.status(), StatusCode::OK, "{accept:?}");
    }
}

#[tokio::test]
async fn hostile_headers_get_a_clear_error() {
    let world = world().server("old", Era::Legacy).start().await;
    let with = |name: &'static str, value: &[u8]| {
        let mut request = post_request(OLD, &[], PING);
        request.headers_mut().insert(name, http::HeaderValue::from_bytes(value).unwrap());
        request
    };
    for (request, status) in [
        (with("content-type", b"text/plain"), 415),
        (with("content-type", b"\xff"), 415),
        (with("accept", b"image/png"), 406),
        (with("authorization", b"Bearer \xff\xfe"), 401),
        (with("mcp-session-id", b"\xff"), 400),
        (with("mcp-session-id", &[b'A'; 20_000]), 404),
        (with("x-request-id", &[b'x'; 5000]), 400),
    ] {
        let response = world.send(request).await;
        assert_eq!(problem(response).await.0, status);
    }
    let put = Request::put(OLD).header("host", "localhost").header("authorization", format!("Bearer {KEY}"));
    assert_eq!(world.send(put.body(Body::empty()).unwrap()).await.status(), StatusCode::METHOD_NOT_ALLOWED);
}
