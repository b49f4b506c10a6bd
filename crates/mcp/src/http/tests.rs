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
async fn whatever_discover_is_refused_with_the_server_is_initialized() {
    for status in [200, 400, 401, 403, 404, 405, 500, 502] {
        for (kind, body) in [("text/html", "<html>no</html>"), ("application/json", "{}"), ("text/plain", "")] {
            let (upstream, _) = upstream(move |_, message| match message {
                Some(message) if message.method() == "server/discover" => answer(status, kind, body),
                message => legacy(message).unwrap_or_else(|| answer(405, "text/plain", "")),
            })
            .await;
            let handshake = upstream.handshake(LONG).await;
            assert_eq!(handshake.map(|handshake| handshake.era), Ok(Era::Legacy), "{status} {kind}");
        }
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_discover_or_must_not_be_asked_is_initialized() {
    let (real, seen) = upstream(|_, message| legacy(message).unwrap_or_else(|| answer(405, "text/plain", ""))).await;
    let through = real.shared.transport.client.clone();
    let client: Client = Arc::new(move |request: Request<Full<Bytes>>| {
        let discover = request.headers().get("mcp-method").is_some_and(|method| method == "server/discover");
        if discover { Box::pin(std::future::pending()) } else { through(request) }
    });
    let hanging = Upstream::new(client, real.shared.transport.url.clone(), HeaderMap::new());
    assert_eq!(hanging.handshake(LONG).await.map(|handshake| handshake.era), Ok(Era::Legacy));
    let asked = |seen: &Seen| seen.lock().unwrap().iter().filter(|(.., method)| method == "server/discover").count();
    let plain =
        Upstream::new(real.shared.transport.client.clone(), real.shared.transport.url.clone(), HeaderMap::new());
    let plain = plain.knowing(Some(Era::Legacy));
    assert_eq!(plain.handshake(LONG).await.map(|handshake| handshake.era), Ok(Era::Legacy));
    assert_eq!(asked(&seen), 0);
}

#[tokio::test]
async fn giving_up_what_is_asked_for_ourselves_is_not_told_to_the_server() {
    let (upstream, seen) = upstream(|_, message| {
        legacy(message)
            .unwrap_or_else(|| answer(200, "text/event-stream", ": nothing yet\n\nid: 1\ndata:\n\nretry: 60000\n\n"))
    })
    .await;
    let own = upstream.ask(Bytes::from_static(br#"{"jsonrpc":"2.0","id":"a","method":"tools/list"}"#)).await.unwrap();
    drop(own);
    drop(call(&upstream).await.unwrap());
    let told = || seen.lock().unwrap().iter().filter(|(.., method)| method == "notifications/cancelled").count();
    tokio::time::timeout(LONG, async {
        while told() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert_eq!(told(), 1, "the call's alone");
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

#[tokio::test]
async fn a_legacy_server_is_told_the_reason_that_was_said_before_a_call_is_given_up() {
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let (upstream, _) = upstream(move |_, message| {
        if let Some(message) = message.filter(|message| message.method() == "notifications/cancelled") {
            let _ = told.send(message.payload_string("reason").unwrap().unwrap().into_owned());
        }
        legacy(message)
            .unwrap_or_else(|| answer(200, "text/event-stream", ": nothing yet\n\nid: 1\ndata:\n\nretry: 60000\n\n"))
    })
    .await;
    for (said, want) in [("wrong city", "wrong city"), ("", "the caller went away")] {
        let reason = CancelReason::default();
        let request = Bytes::from_static(br#"{"jsonrpc":"2.0","id":"a","method":"tools/call"}"#);
        let stream = upstream.send_cancellable(Caller::Unknown, request, reason.clone()).await.unwrap();
        reason.say(said);
        drop(stream);
        assert_eq!(tokio::time::timeout(LONG, heard.recv()).await.unwrap().as_deref(), Some(want));
    }
}

#[tokio::test]
async fn a_question_on_a_stream_of_our_own_and_every_ping_are_answered_at_once() {
    let question = |method: &str| format!("data: {{\"jsonrpc\":\"2.0\",\"id\":\"q\",\"method\":\"{method}\"}}\n\n");
    for (own, method, passed_on) in
        [(true, "roots/list", 0), (true, "ping", 0), (false, "ping", 0), (false, "roots/list", 1)]
    {
        let asked = question(method);
        let (upstream, seen) = upstream(move |request, message| match legacy(message) {
            Some(answer) => answer,
            None if request.method() != Method::POST => answer(405, "text/plain", ""),
            None if message.is_some_and(|message| message.method().is_empty()) => answer(202, "text/plain", ""),
            None => {
                let result = envelope::result(message.unwrap().raw_id().unwrap(), "{}");
                let text = format!("{asked}data: {}\n\n", String::from_utf8_lossy(&result));
                answer(200, "text/event-stream", text)
            }
        })
        .await;
        let request = Bytes::from_static(br#"{"jsonrpc":"2.0","id":"a","method":"tools/list"}"#);
        let mut stream = if own { upstream.ask(request).await } else { upstream.send(request).await }.unwrap();
        let mut heard = 0;
        while stream.next().await.is_some() {
            heard += 1;
        }
        assert_eq!(heard, 1 + passed_on, "{method}");
        let answered = || seen.lock().unwrap().iter().any(|(_, _, method)| method.is_empty());
        if passed_on == 0 {
            let told = async {
                while !answered() {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(LONG, told).await.unwrap();
        }
    }
}

#[tokio::test]
async fn giving_up_a_legacy_call_before_anything_came_tells_the_server_too() {
    let (real, seen) = upstream(|_, message| legacy(message).unwrap_or_else(|| answer(405, "text/plain", ""))).await;
    let through = real.shared.transport.client.clone();
    let called = Arc::new(tokio::sync::Notify::new());
    let asked = called.clone();
    // It works on a call and answers with JSON at the end.
    let client: Client = Arc::new(move |request: Request<Full<Bytes>>| {
        let (through, asked) = (through.clone(), asked.clone());
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            if body.windows(10).any(|part| part == b"tools/call") {
                asked.notify_one();
                std::future::pending::<()>().await;
            }
            through(Request::from_parts(parts, Full::new(body))).await
        })
    });
    let upstream = Upstream::new(client, real.shared.transport.url.clone(), HeaderMap::new());
    tokio::select! {
        _ = call(&upstream) => panic!("it answers never"),
        () = called.notified() => {}
    }
    let told = async {
        while !seen.lock().unwrap().iter().any(|(_, _, method)| method == "notifications/cancelled") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, told).await.unwrap();
}

/// A legacy server with sessions: `refuse` makes the answer to a session that it does not know.
async fn forgetful(refuse: impl Fn() -> Answer + Send + Sync + 'static) -> (Upstream, Seen, Arc<AtomicU64>) {
    let session = Arc::new(AtomicU64::new(1));
    let known = session.clone();
    let (upstream, seen) = upstream(move |request, message| {
        let current = format!("s-{}", known.load(Ordering::SeqCst));
        let is_known = request.headers().get(SESSION_ID).is_some_and(|id| *id == *current);
        if request.method() == Method::GET {
            return answer(405, "text/plain", "");
        }
        if request.method() == Method::DELETE {
            return answer(200, "text/plain", "");
        }
        match message.map(Message::method) {
            Some("initialize") => {
                let mut opened = legacy(message).unwrap();
                opened.headers_mut().insert(SESSION_ID, current.parse().unwrap());
                opened
            }
            Some("server/discover") => legacy(message).unwrap(),
            _ if !is_known => refuse(),
            Some("bad") => answer(400, "text/plain", "no"),
            Some("missing") => answer(404, "text/plain", "no"),
            Some("tools/call") => json(envelope::result(message.unwrap().raw_id().unwrap(), r#"{"z":1.0}"#)),
            _ => answer(202, "text/plain", ""),
        }
    })
    .await;
    (upstream, seen, session)
}

fn count(seen: &Seen, wanted: impl Fn(&Method, &HeaderMap, &str) -> bool) -> usize {
    seen.lock().unwrap().iter().filter(|(method, headers, name)| wanted(method, headers, name)).count()
}

#[tokio::test]
async fn a_session_that_was_lost_is_opened_once_more_however_its_server_says_so() {
    let refusals: [fn() -> Answer; 6] = [
        || answer(404, "text/plain", "Session not found"),
        || answer(400, "text/plain", "Invalid or missing session ID"),
        || answer(401, "text/plain", "session expired"),
        || answer(403, "text/html", "<p>no"),
        || {
            answer(
                400,
                "application/json",
                r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"no session"}}"#,
            )
        },
        || {
            answer(
                400,
                "application/json",
                r#"{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600,"message":"no"}}"#,
            )
        },
    ];
    for refuse in refusals {
        let (upstream, seen, session) = forgetful(refuse).await;
        for _ in 0..2 {
            session.fetch_add(1, Ordering::SeqCst);
            let calls = (0..10).map(|_| async { call(&upstream).await.unwrap().next().await.unwrap().unwrap() });
            for answer in futures_util::future::join_all(calls).await {
                assert_eq!(answer, r#"{"jsonrpc":"2.0","id":"a","result":{"z":1.0}}"#);
            }
        }
        let opened = count(&seen, |_, _, name| name == "initialize");
        assert_eq!(opened, 2, "one for each session, whoever asks: {:?}", refuse().status());
        assert_eq!(count(&seen, |_, _, name| name == "server/discover"), 1, "its era is known by then");
    }
}

#[tokio::test]
async fn a_lost_session_is_opened_again_also_when_its_refusal_names_the_request() {
    for status in [400, 404] {
        let session = Arc::new(AtomicU64::new(1));
        let known = session.clone();
        let (upstream, seen) = upstream(move |request, message| {
            let current = format!("s-{}", known.load(Ordering::SeqCst));
            let is_known = request.headers().get(SESSION_ID).is_some_and(|id| *id == *current);
            let Some(message) = message else { return answer(405, "text/plain", "") };
            if let Some(mut answered) = legacy(Some(message)) {
                if message.method() == "initialize" {
                    answered.headers_mut().insert(SESSION_ID, current.parse().unwrap());
                }
                return answered;
            }
            if is_known {
                return json(envelope::result(message.raw_id().unwrap(), r#"{"z":1.0}"#));
            }
            let error = envelope::error(message.raw_id(), -32000, "no session", None);
            answer(status, "application/json", error)
        })
        .await;
        for _ in 0..3 {
            session.fetch_add(1, Ordering::SeqCst);
            let answered = call(&upstream).await.unwrap().next().await.unwrap().unwrap();
            assert_eq!(answered, r#"{"jsonrpc":"2.0","id":"a","result":{"z":1.0}}"#, "{status}");
        }
        assert_eq!(count(&seen, |_, _, name| name == "initialize"), 3);
    }
}

#[tokio::test]
async fn a_call_that_is_refused_in_a_session_that_is_known_is_made_once() {
    let (upstream, seen, _) = forgetful(|| answer(400, "text/plain", "no session")).await;
    for (method, status) in [("bad", 400), ("missing", 404), ("bad", 400)] {
        let refused = upstream.send(Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}"}}"#))).await;
        assert_eq!(refused.err(), Some(CallError::Status(status)));
    }
    assert_eq!(count(&seen, |_, _, name| name == "initialize"), 1);
    assert_eq!(count(&seen, |_, _, name| name == "bad"), 2, "once each");
    assert_eq!(count(&seen, |_, _, name| name == "missing"), 1);
    assert!(call(&upstream).await.is_ok());
}

#[tokio::test]
async fn a_server_that_refuses_every_session_is_not_asked_for_one_with_each_call() {
    let (upstream, seen) =
        upstream(|_, message| legacy(message).unwrap_or_else(|| answer(401, "text/plain", "sign in"))).await;
    for _ in 0..5 {
        assert_eq!(call(&upstream).await.err(), Some(CallError::Status(401)));
    }
    assert_eq!(count(&seen, |_, _, name| name == "initialize"), 2);
}

#[tokio::test]
async fn a_result_with_the_id_of_another_call_is_no_answer_and_an_error_with_any_is() {
    for (body, is_taken) in [
        (r#"{"jsonrpc":"2.0","id":424242,"result":{}}"#, false),
        (r#"{"jsonrpc":"2.0","id":"server-error","error":{"code":-32000,"message":"no"}}"#, true),
    ] {
        let (upstream, _) = upstream(move |_, message| legacy(message).unwrap_or_else(|| json(body))).await;
        let mut stream = call(&upstream).await.unwrap();
        let got = tokio::time::timeout(LONG, stream.next()).await.unwrap().unwrap();
        assert_eq!(got.is_ok(), is_taken, "{got:?}");
    }
}

#[tokio::test]
async fn an_error_that_answers_the_request_is_its_answer_whatever_the_status() {
    let (upstream, seen) = upstream(|_, message| match message {
        Some(message) if message.method() == "tools/call" => {
            let error = envelope::error(message.raw_id(), -32602, "no such tool", None);
            answer(400, "application/json", error)
        }
        message => legacy(message).unwrap_or_else(|| answer(405, "text/plain", "")),
    })
    .await;
    let answered = call(&upstream).await.unwrap().next().await.unwrap().unwrap();
    assert_eq!(answered, r#"{"jsonrpc":"2.0","id":"a","error":{"code":-32602,"message":"no such tool"}}"#);
    assert_eq!(count(&seen, |_, _, name| name == "initialize"), 1);
}

#[tokio::test]
async fn a_session_is_ended_with_the_upstream_and_not_before_its_last_call() {
    let (upstream, seen, _) = forgetful(|| answer(400, "text/plain", "no session")).await;
    let ended =
        |seen: &Seen| count(seen, |method, headers, _| *method == Method::DELETE && headers[SESSION_ID] == "s-1");
    let under_way = call(&upstream).await.unwrap();
    drop(upstream);
    tokio::task::yield_now().await;
    assert_eq!(ended(&seen), 0);
    drop(under_way);
    let told = async {
        while ended(&seen) == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, told).await.unwrap();
    let (upstream, seen, _) = forgetful(|| answer(400, "text/plain", "no session")).await;
    upstream.handshake(LONG).await.unwrap();
    upstream.close().await;
    assert_eq!(ended(&seen), 1);
    drop(upstream);
    tokio::task::yield_now().await;
    assert_eq!(ended(&seen), 1);
}

#[tokio::test]
async fn a_probe_that_is_refused_leads_to_initialize() {
    for refusal in [200, 401, 403, 404, 500] {
        let (upstream, _) = upstream(move |_, message| match message {
            Some(message) if message.method() == "server/discover" => answer(refusal, "text/html", "<p>no"),
            message => legacy(message).unwrap_or_else(|| answer(405, "text/plain", "")),
        })
        .await;
        let handshake = upstream.handshake(LONG).await;
        assert_eq!(handshake.ok().map(|handshake| handshake.era), Some(Era::Legacy), "{refusal}");
    }
}

#[tokio::test]
async fn a_question_outside_of_every_call_is_answered_with_an_error() {
    let (upstream, seen) = upstream(|request, message| {
        if let Some(answer) = legacy(message) {
            return answer;
        }
        if *request.method() == Method::GET {
            let question = r#"{"jsonrpc":"2.0","id":"q-1","method":"elicitation/create","params":{}}"#;
            return answer(200, "text/event-stream", format!("data: {question}\n\n"));
        }
        answer(202, "text/plain", "")
    })
    .await;
    upstream.handshake(LONG).await.unwrap();
    let answered = async {
        // A response has no method.
        while count(&seen, |method, _, name| *method == Method::POST && name.is_empty()) == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, answered).await.unwrap();
}

/// An error as the whole of a response, or as the one event of its stream.
fn error_as(kind: &str, status: u16, message: &Message, code: i64, said: &str) -> Answer {
    let error = envelope::error(message.raw_id(), code, said, None);
    let error = String::from_utf8_lossy(&error);
    let body = if kind == "text/event-stream" { format!("data: {error}\n\n") } else { error.into_owned() };
    answer(status, kind, body)
}

/// A legacy server with sessions that answers a ping in any: `lost` makes the answer to other requests of a session that
/// it does not know, and `called` that to a call of one that it knows.
async fn forgetful_in_words(
    lost: impl Fn(&Message) -> Answer + Send + Sync + 'static,
    called: impl Fn(&Message) -> Answer + Send + Sync + 'static,
) -> (Upstream, Seen, Arc<AtomicU64>) {
    let session = Arc::new(AtomicU64::new(1));
    let known = session.clone();
    let (upstream, seen) = upstream(move |request, message| {
        let current = format!("s-{}", known.load(Ordering::SeqCst));
        let is_known = request.headers().get(SESSION_ID).is_some_and(|id| *id == *current);
        let Some(message) = message else { return answer(405, "text/plain", "") };
        if let Some(mut answered) = legacy(Some(message)) {
            if message.method() == "initialize" {
                answered.headers_mut().insert(SESSION_ID, current.parse().unwrap());
            }
            return answered;
        }
        match message.method() {
            "ping" => json(envelope::result(message.raw_id().unwrap(), "{}")),
            _ if !is_known => lost(message),
            "tools/call" => called(message),
            _ => json(envelope::result(message.raw_id().unwrap(), r#"{"tools":[]}"#)),
        }
    })
    .await;
    (upstream, seen, session)
}

#[tokio::test]
async fn a_session_that_an_error_says_is_missing_is_opened_once_more_whatever_carries_the_error() {
    let said = [
        (-32001, "Session not found"),
        (-32602, "Received request before initialization was complete"),
        (-32000, "Bad Request: Server not initialized"),
        (-32600, "Invalid session ID"),
    ];
    for (kind, status) in [("application/json", 200), ("text/event-stream", 200), ("application/json", 500)] {
        for (code, said) in said {
            let lost = move |message: &Message| error_as(kind, status, message, code, said);
            let called = |message: &Message| json(envelope::result(message.raw_id().unwrap(), r#"{"z":1.0}"#));
            let (upstream, seen, session) = forgetful_in_words(lost, called).await;
            for _ in 0..3 {
                let calls = (0..5).map(|_| async { call(&upstream).await.unwrap().next().await.unwrap().unwrap() });
                for answered in futures_util::future::join_all(calls).await {
                    assert_eq!(answered, r#"{"jsonrpc":"2.0","id":"a","result":{"z":1.0}}"#, "{kind} {status} {said}");
                }
                session.fetch_add(1, Ordering::SeqCst);
            }
            assert_eq!(count(&seen, |_, _, name| name == "initialize"), 3, "one for each session, whoever asks");
        }
    }
}

#[tokio::test]
async fn a_tool_with_sessions_of_its_own_is_called_once_and_keeps_the_session() {
    for (kind, status) in [("application/json", 200), ("text/event-stream", 200), ("application/json", 500)] {
        let lost = |_: &Message| answer(404, "text/plain", "");
        let called = move |message: &Message| error_as(kind, status, message, -32602, "session not found: abc");
        let (upstream, seen, _) = forgetful_in_words(lost, called).await;
        for _ in 0..5 {
            let answered = call(&upstream).await.unwrap().next().await.unwrap().unwrap();
            let expected = r#"{"jsonrpc":"2.0","id":"a","error":{"code":-32602,"message":"session not found: abc"}}"#;
            assert_eq!(answered, expected, "{kind} {status}");
        }
        assert_eq!(count(&seen, |_, _, name| name == "initialize"), 1);
        assert_eq!(count(&seen, |_, _, name| name == "tools/call"), 5, "once each");
    }
}

#[tokio::test]
async fn a_server_that_misses_a_session_whatever_it_was_given_is_not_asked_for_one_with_each_call() {
    for kind in ["application/json", "text/event-stream"] {
        let (upstream, seen) = upstream(move |_, message| {
            let Some(message) = message else { return answer(405, "text/plain", "") };
            legacy(Some(message)).unwrap_or_else(|| error_as(kind, 200, message, -32001, "Session not found"))
        })
        .await;
        for _ in 0..5 {
            let answered = call(&upstream).await.unwrap().next().await.unwrap().unwrap();
            assert_eq!(answered, r#"{"jsonrpc":"2.0","id":"a","error":{"code":-32001,"message":"Session not found"}}"#);
        }
        assert_eq!(count(&seen, |_, _, name| name == "initialize"), 2);
        assert_eq!(count(&seen, |_, _, name| name == "tools/call"), 5, "a call that would fail again is not repeated");
    }
}
