use super::*;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::sync::Mutex;

const LONG: Duration = Duration::from_secs(20);
const LEGACY_RESULT: &str =
    r#"{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"s","version":"1"}}"#;

type Answer = Response<Full<Bytes>>;

/// What a test server was sent: method, headers, and the message's method.
type Seen = Arc<Mutex<Vec<(Method, HeaderMap, String)>>>;

/// Serves `answer` on loopback and gives a client of it.
async fn upstream(
    answer: impl Fn(&Request<Bytes>, Option<&Message>) -> Answer + Send + Sync + 'static,
) -> (Upstream, Seen) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: Uri = format!("http://{}/mcp", listener.local_addr().unwrap()).parse().unwrap();
    let (answer, seen) = (Arc::new(answer), Seen::default());
    let log = seen.clone();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let (answer, log) = (answer.clone(), log.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let (answer, log) = (answer.clone(), log.clone());
                async move {
                    let (parts, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    let message = Message::parse(body.clone()).ok();
                    let method = message.as_ref().map(|message| message.method().to_owned()).unwrap_or_default();
                    log.lock().unwrap().push((parts.method.clone(), parts.headers.clone(), method));
                    Ok::<_, std::convert::Infallible>(answer(&Request::from_parts(parts, body), message.as_ref()))
                }
            });
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            tokio::spawn(async move { server.serve_connection(TokioIo::new(connection), service).await.ok() });
        }
    });
    let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http();
    (Upstream::new(pooled(client), url, HeaderMap::new()), seen)
}

fn answer(status: u16, kind: &str, body: impl Into<Bytes>) -> Answer {
    Response::builder().status(status).header(header::CONTENT_TYPE, kind).body(Full::new(body.into())).unwrap()
}

fn json(body: impl Into<Bytes>) -> Answer {
    answer(200, "application/json", body)
}

/// The answers of any legacy server; `None` for what the test is about.
fn legacy(message: Option<&Message>) -> Option<Answer> {
    let message = message?;
    match message.method() {
        "server/discover" => Some(answer(400, "text/plain", "no session")),
        "initialize" => Some(json(envelope::result(message.raw_id().unwrap(), LEGACY_RESULT))),
        "notifications/initialized" | "notifications/cancelled" => Some(answer(202, "text/plain", "")),
        _ => None,
    }
}

async fn call(upstream: &Upstream) -> Result<Stream, CallError> {
    upstream.send(Bytes::from_static(br#"{"jsonrpc":"2.0","id":"a","method":"tools/call"}"#)).await
}

#[tokio::test]
async fn a_legacy_stream_that_is_closed_early_is_resumed_where_it_broke() {
    let asked = Arc::new(Mutex::new(String::new()));
    let (upstream, seen) = upstream(move |request, message| {
        if let Some(answer) = legacy(message) {
            return answer;
        }
        match (request.method(), request.headers().get("last-event-id")) {
            (&Method::GET, Some(_)) => {
                let id = asked.lock().unwrap().clone();
                let result = envelope::result(&id, r#"{"late":1.0}"#);
                answer(200, "text/event-stream", format!("data: {}\n\n", String::from_utf8_lossy(&result)))
            }
            (&Method::GET, None) => answer(405, "text/plain", ""),
            _ => {
                *asked.lock().unwrap() = message.unwrap().raw_id().unwrap().to_owned();
                answer(200, "text/event-stream", "id: e-1\nretry: 1\ndata:\n\n")
            }
        }
    })
    .await;
    let mut stream = call(&upstream).await.unwrap();
    let got = tokio::time::timeout(LONG, stream.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(got, r#"{"jsonrpc":"2.0","id":"a","result":{"late":1.0}}"#);
    assert!(stream.next().await.is_none());
    let seen = seen.lock().unwrap();
    let resumed = seen.iter().find_map(|(_, headers, _)| headers.get("last-event-id"));
    assert_eq!(resumed.unwrap(), "e-1");
}

#[tokio::test]
async fn the_era_is_read_from_the_answer_and_not_from_its_status() {
    let modern = r#"{"code":-32022,"message":"no","data":{"supported":["2026-07-28"]}}"#;
    let future = r#"{"code":-32022,"message":"no","data":{"supported":["2031-01-01"]}}"#;
    for (error, era) in
        [(modern, Some(Era::Modern)), (r#"{"code":-32601,"message":"no"}"#, Some(Era::Legacy)), (future, None)]
    {
        let (upstream, _) = upstream(move |_, message| match message {
            Some(message) if message.method() == "server/discover" => {
                let id = message.raw_id().unwrap();
                answer(400, "application/json", format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#))
            }
            message => legacy(message).unwrap_or_else(|| answer(405, "text/plain", "")),
        })
        .await;
        let handshake = upstream.handshake(LONG).await;
        assert_eq!(handshake.ok().map(|handshake| handshake.era), era, "{error}");
    }
}

#[tokio::test]
async fn a_server_that_wants_sign_in_says_so_by_its_status() {
    let (upstream, _) = upstream(|_, _| answer(401, "text/plain", "")).await;
    assert_eq!(upstream.handshake(LONG).await.unwrap_err(), HandshakeError::Status(401));
    assert_eq!(call(&upstream).await.err(), Some(CallError::Status(401)));
}

#[tokio::test]
async fn an_endless_answer_fails_its_call() {
    let (upstream, _) =
        upstream(|_, message| legacy(message).unwrap_or_else(|| json(vec![b' '; MAX_MESSAGE_BYTES + 1]))).await;
    let failed = call(&upstream).await.err();
    assert_eq!(failed, Some(CallError::TooLong { limit_bytes: MAX_MESSAGE_BYTES }));
}

#[tokio::test]
async fn giving_up_a_legacy_call_tells_the_server() {
    let (upstream, seen) = upstream(|_, message| {
        legacy(message)
            .unwrap_or_else(|| answer(200, "text/event-stream", ": nothing yet\n\nid: 1\ndata:\n\nretry: 60000\n\n"))
    })
    .await;
    drop(call(&upstream).await.unwrap());
    let told = async {
        while !seen.lock().unwrap().iter().any(|(_, _, method)| method == "notifications/cancelled") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, told).await.unwrap();
}
