use crate::world::*;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use toolyard_mcp::era::Era;
use toolyard_mcp::{Kind, Message, envelope};

const FAR: &str = "/mcp/default/servers/far";

/// A remote server that remembers what it was sent.
struct Remote {
    era: Era,
    session: AtomicUsize,
    seen: Mutex<Vec<(String, HeaderMap)>>,
}

impl Remote {
    async fn start(era: Era) -> (Arc<Self>, String) {
        let remote = Arc::new(Self { era, session: AtomicUsize::new(1), seen: Mutex::default() });
        let router = axum::Router::new().route("/mcp", post(serve)).with_state(remote.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (remote, url)
    }

    fn count(&self, method: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|(seen, _)| seen == method).count()
    }

    fn session(&self) -> String {
        format!("session-{}", self.session.load(Ordering::SeqCst))
    }
}

async fn serve(State(remote): State<Arc<Remote>>, headers: HeaderMap, body: Bytes) -> Response {
    let message = Message::parse(body).unwrap();
    assert_eq!(headers["x-secret"], "s3cret");
    assert!(!headers.contains_key("authorization"), "the client's key must not be passed on");
    remote.seen.lock().unwrap().push((message.method().to_owned(), headers.clone()));
    let json = |bytes: Bytes| ([("content-type", "application/json")], bytes).into_response();
    let id = message.raw_id();
    match (remote.era, message.method()) {
        (Era::Modern, "server/discover") => json(envelope::result(
            id.unwrap(),
            r#"{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{}}}"#,
        )),
        (Era::Legacy, "server/discover") => (StatusCode::BAD_REQUEST, "no session").into_response(),
        (Era::Legacy, "initialize") => {
            let result = r#"{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"far","version":"1"}}"#;
            let mut response = json(envelope::result(id.unwrap(), result));
            response.headers_mut().insert("mcp-session-id", remote.session().parse().unwrap());
            response
        }
        (Era::Legacy, _) if headers.get("mcp-session-id").is_none_or(|id| id != remote.session().as_str()) => {
            StatusCode::NOT_FOUND.into_response()
        }
        _ if message.kind() != Kind::Request => StatusCode::ACCEPTED.into_response(),
        (_, "tools/call") => events(&remote, &message),
        (_, "tools/list") => json(envelope::result(id.unwrap(), r#"{"tools":[{"name":"t"}]}"#)),
        _ => json(envelope::error(id, -32601, "unknown", None)),
    }
}

fn events(remote: &Remote, message: &Message) -> Response {
    let token = message.progress_token().unwrap().map(|span| message.text(span).to_owned()).unwrap_or_default();
    let result = if remote.era == Era::Modern { r#"{"resultType":"complete","z":1.0}"# } else { r#"{"z":1.0}"# };
    let progress = format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":1}}}}"#
    );
    let answer = envelope::result(message.raw_id().unwrap(), result);
    let answer = String::from_utf8_lossy(&answer);
    (
        [("content-type", "text/event-stream")],
        format!(": hi\n\nid: 1\ndata: {progress}\n\nevent: message\r\ndata: {answer}\r\n\r\n"),
    )
        .into_response()
}

const CALL: &str = r#""name":"tööl","_meta2":{}"#;

#[tokio::test]
async fn remote_servers_of_both_eras_are_called_by_clients_of_both() {
    for era in [Era::Legacy, Era::Modern] {
        let (remote, url) = Remote::start(era).await;
        let world = world().remote("far", url).start().await;
        let session = world.initialize(FAR, "2025-06-18").await;
        let body = r#"{"jsonrpc":"2.0","id":"l","method":"tools/call","params":{"name":"tööl","_meta":{"progressToken":"p"}}}"#;
        let seen = crate::world::events(world.legacy(FAR, &session, body).await).await;
        assert_eq!(
            seen[0],
            r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"p","progress":1}}"#
        );
        assert_eq!(seen[1], r#"{"jsonrpc":"2.0","id":"l","result":{"z":1.0}}"#);
        let modern = world.modern(FAR, "tools/call", Some("=?base64?dMO2w7Zs?="), CALL).await;
        assert_eq!(text(modern).await, r#"{"jsonrpc":"2.0","id":"m-1","result":{"resultType":"complete","z":1.0}}"#);
        let seen = remote.seen.lock().unwrap();
        let (_, headers) = seen.iter().rfind(|(method, _)| method == "tools/call").unwrap();
        match era {
            Era::Modern => {
                assert_eq!(headers["mcp-method"], "tools/call");
                assert_eq!(headers["mcp-name"], "=?base64?dMO2w7Zs?=");
                assert_eq!(headers["mcp-protocol-version"], "2026-07-28");
            }
            Era::Legacy => assert_eq!(headers["mcp-protocol-version"], "2025-06-18"),
        }
    }
}

#[tokio::test]
async fn a_session_the_remote_forgot_is_opened_again_for_the_same_call() {
    let (remote, url) = Remote::start(Era::Legacy).await;
    let world = world().remote("far", url).start().await;
    let call = || async { json(world.modern(FAR, "tools/list", None, "").await).await };
    assert_eq!(tool_names(&call().await), ["t"]);
    remote.session.fetch_add(1, Ordering::SeqCst);
    let again = world.modern(FAR, "tools/call", Some("t"), r#""name":"t""#).await;
    assert!(text(again).await.contains(r#""z":1.0"#));
    assert_eq!(remote.count("initialize"), 2);
}

#[tokio::test]
async fn a_remote_that_gives_no_answer_several_times_is_left_alone_for_a_while() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = accepted.clone();
    let closing = tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            drop(connection);
        }
    });
    let world = world().remote("far", format!("http://{address}/mcp")).start().await;
    let call = || world.modern(FAR, "tools/call", Some("t"), r#""name":"t""#);
    for _ in 0..5 {
        let error = json(call().await).await;
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.starts_with("the remote server cannot be reached: it ended the connection"), "{message}");
    }
    let before = accepted.load(Ordering::SeqCst);
    for _ in 0..5 {
        let error = json(call().await).await;
        assert!(error["error"]["message"].as_str().unwrap().contains("calls fail at once"), "{error}");
    }
    assert_eq!(accepted.load(Ordering::SeqCst), before, "it is not asked meanwhile");
    closing.abort();
    let _ = closing.await;
    let remote = Arc::new(Remote { era: Era::Legacy, session: AtomicUsize::new(1), seen: Mutex::default() });
    let router = axum::Router::new().route("/mcp", post(serve)).with_state(remote.clone());
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let recovered = async {
        while json_or_events(call().await).await.contains("error") {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LONG, recovered).await.expect("it is tried again by itself");
}

/// A remote that drops the connection of whoever calls its tool `drop`.
async fn dropping() -> String {
    let remote = Arc::new(Remote { era: Era::Modern, session: AtomicUsize::new(1), seen: Mutex::default() });
    let inner = axum::Router::new().route("/mcp", post(serve)).with_state(remote);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let inner = inner.clone();
            let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let inner = inner.clone();
                async move {
                    if request.headers().get("mcp-name").is_some_and(|name| name == "drop") {
                        return Err("dropped");
                    }
                    let request = request.map(axum::body::Body::new);
                    Ok(tower::ServiceExt::oneshot(inner, request).await.unwrap())
                }
            });
            let io = hyper_util::rt::TokioIo::new(connection);
            tokio::spawn(async move {
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
            });
        }
    });
    url
}

#[tokio::test]
async fn a_tool_that_drops_its_connections_shuts_a_remote_for_nobody_else() {
    let world = world().remote("far", dropping().await).start().await;
    for _ in 0..10 {
        let dropped = json(world.modern(FAR, "tools/call", Some("drop"), r#""name":"drop""#).await).await;
        let said = dropped["error"]["message"].as_str().unwrap().to_owned();
        let unanswered = "the remote server ended the connection without an answer";
        assert_eq!(said, format!("{unanswered}; what it was asked for may have been done"));
    }
    let other = text(world.modern(FAR, "tools/call", Some("t"), r#""name":"t""#).await).await;
    assert!(other.contains(r#""z":1.0"#), "{other}");
}

async fn json_or_events(response: Response) -> String {
    text(response).await
}

#[tokio::test]
async fn another_revision_of_a_remote_is_spoken_to_anew() {
    let ((old, url), (new, other)) = (Remote::start(Era::Legacy).await, Remote::start(Era::Modern).await);
    let world = world().remote("far", url).start().await;
    let call = || async { text(world.modern(FAR, "tools/call", Some("t"), r#""name":"t""#).await).await };
    assert!(call().await.contains(r#""z":1.0"#));
    world.lease("far", other);
    world.reroute("far", |route| route.revision = Some(toolyard_types::RevisionId::generate()));
    assert!(call().await.contains(r#""z":1.0"#));
    assert_eq!((old.count("tools/call"), new.count("tools/call")), (1, 1));
    assert_eq!((old.count("initialize"), new.count("initialize")), (1, 0), "each in its own era");
}

#[tokio::test]
async fn a_remote_that_is_restarted_is_spoken_to_anew() {
    let (remote, url) = Remote::start(Era::Legacy).await;
    let world = world().remote("far", url).start().await;
    let call = || async { text(world.modern(FAR, "tools/call", Some("t"), r#""name":"t""#).await).await };
    assert!(call().await.contains(r#""z":1.0"#));
    world.reroute("far", |route| route.rollout = Some(toolyard_types::RolloutId::generate()));
    assert!(call().await.contains(r#""z":1.0"#));
    assert_eq!(remote.count("initialize"), 2, "a restart is another rollout of the same revision");
}

#[tokio::test]
async fn a_call_of_a_remote_that_fails_says_that_it_may_have_been_done_only_where_that_is_open() {
    for (status, is_open) in [(500, true), (502, true), (504, true), (503, false), (429, false)] {
        let (remote, _) = Remote::start(Era::Modern).await;
        let failing = move |State(remote): State<Arc<Remote>>, headers: HeaderMap, body: Bytes| async move {
            match Message::parse(body.clone()).unwrap().method() {
                "tools/call" => StatusCode::from_u16(status).unwrap().into_response(),
                _ => serve(State(remote), headers, body).await,
            }
        };
        let router = axum::Router::new().route("/mcp", post(failing)).with_state(remote);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let world = world().remote("far", url).start().await;
        let error = json(world.modern(FAR, "tools/call", Some("t"), r#""name":"t""#).await).await;
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.starts_with(&format!("the remote server answered HTTP status {status}")), "{message}");
        assert_eq!(message.ends_with("what it was asked for may have been done"), is_open, "{message}");
    }
}

#[tokio::test]
async fn a_remote_is_reached_anew_when_a_credential_of_its_organization_has_changed() {
    let ((old, url), (new, other)) = (Remote::start(Era::Legacy).await, Remote::start(Era::Legacy).await);
    let world = world().remote("far", url).start().await;
    let call = || async { text(world.modern(FAR, "tools/call", Some("t"), r#""name":"t""#).await).await };
    let change = || {
        world.snapshots.send_modify(|snapshot| {
            let mut next = (**snapshot).clone();
            let organization =
                Arc::make_mut(next.organizations.values_mut().find(|it| it.name.as_str() == "default").unwrap());
            organization.credentials += 1;
            next.version += 1;
            *snapshot = Arc::new(next);
        });
    };
    assert!(call().await.contains(r#""z":1.0"#));
    change();
    call().await;
    assert_eq!((old.count("tools/call"), old.count("initialize")), (2, 1), "the same lease keeps its session");
    world.lease("far", other);
    call().await;
    assert_eq!(new.count("tools/call"), 0, "a lease is good until something changes");
    change();
    call().await;
    assert_eq!((old.count("tools/call"), new.count("tools/call")), (3, 1));
}

#[tokio::test]
async fn a_remote_that_cannot_be_reached_is_an_error_of_its_calls() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    drop(listener);
    let world = world().remote("far", url).start().await;
    let error = json(world.modern(FAR, "tools/call", Some("t"), r#""name":"t""#).await).await;
    assert_eq!(error["error"]["data"]["code"], "upstream_failed");
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.starts_with("the remote server cannot be reached: Connection refused"), "{message}");
}
