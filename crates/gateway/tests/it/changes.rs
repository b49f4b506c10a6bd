use crate::world::*;
use axum::body::Body;
use http::{Method, StatusCode};
use toolyard_mcp::era::Era;

const OLD: &str = "/mcp/default/servers/old";
const ALL: &str = "/mcp/default/toolsets/all";
const CHANGED: &str = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
/// The same, by a server that one of its callers has made to say something to the others.
const TALKING: &str =
    r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{"_meta":{"x":"secret"}}}"#;

#[tokio::test]
async fn a_changed_list_is_fetched_again_and_told_to_legacy_clients() {
    let world = world().server("old", Era::Legacy).toolset("all", &["old"]).start().await;
    let session = world.initialize(ALL, "2025-06-18").await;
    let mut request = post_request(ALL, &[("mcp-session-id", &session)], Body::empty());
    *request.method_mut() = Method::GET;
    let response = world.send(request).await;
    assert_eq!(response.status(), StatusCode::OK);
    let mut stream = response.into_body();
    let list = || async { tool_names(&json(world.modern(ALL, "tools/list", None, "").await).await) };
    assert_eq!(list().await.len(), 3);
    world.fixture("old").set_tools(r#"{"name":"fresh"}"#);
    assert_eq!(list().await.len(), 3, "nothing said that it changed");
    // The gateway follows changes once a list was asked for; until then an announcement finds nobody.
    let told = async { next_event(&mut stream).await };
    let announce = async {
        loop {
            world.fixture("old").say(TALKING);
            tokio::task::yield_now().await;
        }
    };
    let event = tokio::select! { event = told => event, () = announce => unreachable!() };
    assert_eq!(event, CHANGED);
    assert_eq!(list().await, ["old__fresh"]);
}

#[tokio::test]
async fn a_modern_client_listens_to_servers_of_both_eras_under_its_own_id() {
    let world = world().server("old", Era::Legacy).server("new", Era::Modern).start().await;
    for (path, name) in [(OLD, "old"), ("/mcp/default/servers/new", "new")] {
        let response =
            world.modern(path, "subscriptions/listen", None, r#""notifications":{"toolsListChanged":true}"#).await;
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut stream = response.into_body();
        let acknowledged = next_event(&mut stream).await;
        assert!(acknowledged.contains("notifications/subscriptions/acknowledged"), "{acknowledged}");
        assert!(acknowledged.contains(r#""io.modelcontextprotocol/subscriptionId":"m-1""#), "{acknowledged}");
        if name == "old" {
            let announce = async {
                loop {
                    world.fixture("old").say(CHANGED);
                    tokio::task::yield_now().await;
                }
            };
            let event = tokio::select! { event = next_event(&mut stream) => event, () = announce => unreachable!() };
            assert!(event.contains("tools/list_changed") && event.contains(r#""m-1""#), "{event}");
        }
    }
}

#[tokio::test]
async fn who_unsubscribes_hears_no_more_and_the_others_of_a_shared_server_do() {
    const UPDATED: &str =
        r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"file:///a"}}"#;
    let world = world().server("old", Era::Legacy).start().await;
    let (one, two) = (world.initialize(OLD, "2025-06-18").await, world.initialize(OLD, "2025-06-18").await);
    let (mut first, mut second) =
        (world.listen(OLD, &one).await.into_body(), world.listen(OLD, &two).await.into_body());
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"resources/unsubscribe","params":{"uri":"file:///a"}}"#;
    assert_eq!(json(world.legacy(OLD, &one, body).await).await["result"], serde_json::json!({}));
    let announce = async {
        loop {
            world.fixture("old").say(UPDATED);
            world.fixture("old").say(CHANGED);
            tokio::task::yield_now().await;
        }
    };
    let heard = async {
        for _ in 0..3 {
            assert_eq!(next_event(&mut first).await, CHANGED);
        }
        while next_event(&mut second).await != UPDATED {}
    };
    tokio::select! { () = heard => {}, () = announce => unreachable!() }
    assert_eq!(world.fixture("old").count(|line| line.contains("unsubscribe")), 0, "it would end everybody's");
}

#[tokio::test]
async fn a_revoked_key_loses_its_open_streams_too() {
    let world = world().server("old", Era::Legacy).server("new", Era::Modern).start().await;
    let session = world.initialize(OLD, "2025-06-18").await;
    let legacy = world.listen(OLD, &session).await;
    let listen =
        |path| world.modern(path, "subscriptions/listen", None, r#""notifications":{"toolsListChanged":true}"#);
    let (bridged, forwarded) = (listen(OLD).await, listen("/mcp/default/servers/new").await);
    world.snapshots.send_modify(|snapshot| {
        let mut next = (**snapshot).clone();
        next.keys.clear();
        next.version += 1;
        *snapshot = std::sync::Arc::new(next);
    });
    assert_eq!(events(legacy).await, [""; 0]);
    for stream in [bridged, forwarded] {
        let events = events(stream).await;
        assert!(events.len() == 1 && events[0].contains("acknowledged"), "{events:?}");
    }
}

#[tokio::test]
async fn get_and_delete_belong_to_the_legacy_era() {
    let world = world().server("old", Era::Legacy).start().await;
    for method in [Method::GET, Method::DELETE] {
        let mut request = post_request(OLD, &[("mcp-protocol-version", "2026-07-28")], Body::empty());
        *request.method_mut() = method;
        assert_eq!(world.send(request).await.status(), StatusCode::METHOD_NOT_ALLOWED);
    }
}

#[tokio::test]
async fn draining_ends_streams_of_changes_and_no_calls() {
    let world = world().server("old", Era::Legacy).start().await;
    let session = world.initialize(OLD, "2025-06-18").await;
    let mut request = post_request(OLD, &[("mcp-session-id", &session)], Body::empty());
    *request.method_mut() = Method::GET;
    let stream = world.send(request).await;
    world.gateway.drain();
    assert_eq!(events(stream).await, [""; 0]);
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"fail"}}"#;
    assert_eq!(world.legacy(OLD, &session, body).await.status(), StatusCode::OK);
}
