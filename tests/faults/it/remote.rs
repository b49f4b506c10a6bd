//! A remote MCP server of the legacy era, with sessions, that can be made to forget them and to hang.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Notify;
use toolyard_test_support::Toolyard;

const SESSION: &str = "mcp-session-id";

/// What the server does, and what it saw.
#[derive(Default)]
pub(crate) struct Behaviour {
    /// The status for a session that it does not know.
    pub(crate) refusal: AtomicU16,
    /// Whether it says so in an error that answers the request by its id.
    pub(crate) refusal_names: AtomicBool,
    /// Whether calls of tools, and lists, get no answer.
    pub(crate) calls_hang: AtomicBool,
    pub(crate) lists_hang: AtomicBool,
    pub(crate) opened: AtomicUsize,
    pub(crate) closed: AtomicUsize,
    pub(crate) calls: AtomicUsize,
    /// Tells who listens that its list of tools has changed.
    pub(crate) changed: Notify,
    sessions: Mutex<HashSet<String>>,
}

/// A remote server on loopback, as long as the test's Toolyard lives.
pub(crate) struct Remote {
    pub(crate) url: String,
    pub(crate) does: Arc<Behaviour>,
}

impl Remote {
    pub(crate) fn start(toolyard: &Toolyard) -> Self {
        let does = Arc::new(Behaviour { refusal: AtomicU16::new(404), ..Behaviour::default() });
        let router = axum::Router::new().route("/mcp", post(take).get(listen).delete(end)).with_state(does.clone());
        let url = toolyard.runtime().block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address");
            tokio::spawn(async move { axum::serve(listener, router).await });
            format!("http://{address}/mcp")
        });
        Self { url, does }
    }

    /// Starts one and deploys it under this name.
    pub(crate) fn deploy(toolyard: &Toolyard, name: &str) -> Self {
        let remote = Self::start(toolyard);
        let _ = toolyard.json(&["deploy", "--remote", &remote.url, "--name", name, "--wait", "--timeout", "60"]);
        remote
    }

    /// As after a restart.
    pub(crate) fn forget(&self) {
        self.sessions().clear();
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.does.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn session(headers: &HeaderMap) -> &str {
    headers.get(SESSION).and_then(|id| id.to_str().ok()).unwrap_or_default()
}

async fn end(State(does): State<Arc<Behaviour>>, headers: HeaderMap) -> StatusCode {
    if does.sessions.lock().unwrap_or_else(PoisonError::into_inner).remove(session(&headers)) {
        does.closed.fetch_add(1, Ordering::SeqCst);
    }
    StatusCode::OK
}

/// The stream of what it says of its own accord.
async fn listen(State(does): State<Arc<Behaviour>>) -> Response {
    let events = futures_util::stream::unfold(does, |does| async move {
        does.changed.notified().await;
        let changed = "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}\n\n";
        Some((Ok::<_, std::convert::Infallible>(changed), does))
    });
    ([(http::header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)).into_response()
}

async fn take(State(does): State<Arc<Behaviour>>, headers: HeaderMap, Json(message): Json<Value>) -> Response {
    let method = message["method"].as_str().unwrap_or_default();
    let answer =
        |result: Value| Json(json!({ "jsonrpc": "2.0", "id": message["id"], "result": result })).into_response();
    let is_known = || does.sessions.lock().unwrap_or_else(PoisonError::into_inner).contains(session(&headers));
    match method {
        "server/discover" => (StatusCode::BAD_REQUEST, "no session").into_response(),
        "initialize" => {
            let id = format!("session-{}", does.opened.fetch_add(1, Ordering::SeqCst));
            let mut response = answer(json!({
                "protocolVersion": "2025-06-18",
                "capabilities": { "tools": { "listChanged": true } },
                "serverInfo": { "name": "remote", "version": "1" },
            }));
            response.headers_mut().insert(SESSION, id.parse().expect("a header"));
            does.sessions.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
            response
        }
        _ if !is_known() => {
            let status = StatusCode::from_u16(does.refusal.load(Ordering::SeqCst)).expect("a status");
            if !does.refusal_names.load(Ordering::SeqCst) {
                return (status, "Invalid or missing session ID").into_response();
            }
            let error = json!({ "code": -32000, "message": "no such session" });
            (status, Json(json!({ "jsonrpc": "2.0", "id": message["id"], "error": error }))).into_response()
        }
        _ if message["id"].is_null() => StatusCode::ACCEPTED.into_response(),
        "tools/list" if does.lists_hang.load(Ordering::SeqCst) => std::future::pending().await,
        "tools/list" => answer(json!({ "tools": [{ "name": "echo", "inputSchema": { "type": "object" } }] })),
        "tools/call" => {
            does.calls.fetch_add(1, Ordering::SeqCst);
            if does.calls_hang.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            answer(json!({ "content": [{ "type": "text", "text": "here" }] }))
        }
        _ => {
            let error = json!({ "code": -32601, "message": "no such method" });
            Json(json!({ "jsonrpc": "2.0", "id": message["id"], "error": error })).into_response()
        }
    }
}
