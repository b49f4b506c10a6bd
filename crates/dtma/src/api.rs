//! The DTMA API, version 1: what gateways and the control plane ask of a toolbox.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use bytes::Bytes;
use futures_util::{FutureExt, Stream, StreamExt, stream};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use tokio::sync::broadcast;
use tokio::time::Instant;
use toolyard_link::{frames, stack};
use toolyard_mcp::stdio::{self, CallError, Caller, Connection, MessageContext};
use toolyard_mcp::{CancelReason, Kind, Message};
use toolyard_types::agent::LogLine;
use toolyard_types::state::{Phase, Reason};
use toolyard_types::{Code, InstanceId, JobId, Problem};

use crate::activation;
use crate::agent::Inner;
use crate::copies::{Destination, InUse, Key};
use crate::process::log::{self, Follow};
use crate::slot::Slot;

const MAX_MESSAGE_BYTES: usize = 8 << 20;
const DEFAULT_DEADLINE: Duration = Duration::from_secs(300);
const LONGEST_DEADLINE: Duration = Duration::from_secs(24 * 3600);
const DEFAULT_TAIL: usize = 100;
const LONGEST_TAIL: usize = 10_000;
/// See [`stack::UNDELIVERED`].
pub(crate) const NOT_READY: &str = "not-ready";
const FOLLOW_EVERY: Duration = Duration::from_millis(250);

/// The routes.
pub(crate) fn router(inner: Arc<Inner>) -> axum::Router {
    axum::Router::new()
        .route("/v1/instances/{id}/messages", post(messages))
        .route("/v1/instances/{id}/copy", delete(end_copy))
        .route("/v1/instances/{id}/events", get(events))
        .route("/v1/instances/{id}/handshake", get(handshake))
        .route("/v1/instances/{id}/logs", get(logs))
        .route("/v1/jobs/{id}/logs", get(job_logs))
        .layer(DefaultBodyLimit::max(MAX_MESSAGE_BYTES))
        .with_state(inner)
}

/// A failure, as problem+json.
pub(crate) struct Refusal {
    pub(crate) problem: Box<Problem>,
    /// Whether and why the message certainly did not reach the server.
    undelivered: Option<&'static str>,
}

impl Refusal {
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { problem: Box::new(Problem::new(code, detail)), undelivered: None }
    }

    pub(crate) fn undelivered(mut self, why: &'static str) -> Self {
        self.undelivered = Some(why);
        self
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(*self.problem)).into_response();
        if let Some(why) = self.undelivered {
            response.headers_mut().insert(stack::UNDELIVERED, HeaderValue::from_static(why));
        }
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }
}

impl From<CallError> for Refusal {
    fn from(error: CallError) -> Self {
        let code = match error {
            CallError::Closed | CallError::Busy => Code::ServerNotReady,
            CallError::Timeout(_) => Code::UpstreamTimeout,
            CallError::NoRoom => Code::AnswerDropped,
            CallError::Invalid(_) => Code::BadRequest,
            _ => Code::UpstreamFailed,
        };
        Self::new(code, error.to_string())
    }
}

async fn messages(
    State(inner): State<Arc<Inner>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    message: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let deadline = Instant::now() + deadline_of(&headers);
    let message = message.map_err(unread)?;
    if let Some(copies) = copies_with_its_call(&inner, &id, &headers, &message)? {
        for connection in copies {
            let sent = connection.send_from(whose(&headers), message.clone()).map(drop);
            sent.map_err(|error| Refusal::from(error).undelivered(NOT_READY))?;
        }
        return Ok(StatusCode::ACCEPTED.into_response());
    }
    match destination(&inner, &id, &headers)? {
        Destination::Base(slot) => {
            let connection = slot.connection().ok_or_else(|| not_ready(&slot))?;
            deliver(&connection, None, whose(&headers), message, deadline).await
        }
        Destination::Copy(slot, in_use) => {
            activation::deliver(inner, slot, in_use, whose(&headers), message, deadline).await
        }
    }
}

/// Of whom a message is. A gateway of before says nothing: then it may be anybody's.
fn whose(headers: &HeaderMap) -> MessageContext {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let caller = text(stack::PRINCIPAL).map_or(Caller::Unknown, Caller::parse);
    let share = text(stack::SHARE).map_or(caller, Caller::parse);
    MessageContext { caller, share, call: text(stack::CALL).and_then(|name| u128::from_str_radix(name, 16).ok()) }
}

/// Where a message goes: to the instance, or to the copy of whose key comes with it.
fn destination(inner: &Arc<Inner>, id: &str, headers: &HeaderMap) -> Result<Destination, Refusal> {
    // As with memory, what somebody's keys take is theirs: more keys are no more callers.
    let owner = match whose(headers).share {
        Caller::Principal(owner) => Some(owner),
        Caller::Gateway | Caller::Unknown => None,
    };
    let destination = inner.destination(instance_id(id)?, key_in(headers)?, owner).map_err(|failure| {
        let code = if failure.reason == Reason::NoCapacity { Code::NoCapacity } else { Code::ServerNotReady };
        Refusal::new(code, failure.message).undelivered(NOT_READY)
    })?;
    destination.ok_or_else(unknown)
}

/// The copies that may have the call which a message is about, when it is about one and has a key. Nobody else has a use for
/// it, so it starts no copy and takes none.
fn copies_with_its_call(
    inner: &Inner,
    id: &str,
    headers: &HeaderMap,
    message: &Bytes,
) -> Result<Option<Vec<Connection>>, Refusal> {
    match key_in(headers)? {
        Some(key) if is_about_a_call(message) => Ok(inner.answering_copies(instance_id(id)?, &key)),
        _ => Ok(None),
    }
}

/// Whether a message gives a call up, or answers what a server asked in one. What cannot be read its destination refuses.
fn is_about_a_call(message: &Bytes) -> bool {
    Message::parse(message.clone()).is_ok_and(|message| match message.kind() {
        Kind::Result | Kind::Error => true,
        Kind::Notification => message.method() == "notifications/cancelled",
        Kind::Request => false,
    })
}

/// The key of the copy that a request is about.
fn key_in(headers: &HeaderMap) -> Result<Option<Key>, Refusal> {
    let bad = || Refusal::new(Code::BadRequest, "the key of a copy has 1 to 64 of a-z, A-Z, 0-9, `-` and `_`");
    headers.get(stack::INSTANCE_KEY).map(|value| value.to_str().ok().and_then(Key::parse).ok_or_else(bad)).transpose()
}

/// Ends the copy of a key, once it has no call any more; one that is not there needs no end.
async fn end_copy(
    State(inner): State<Arc<Inner>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Refusal> {
    let missing = || Refusal::new(Code::BadRequest, "the key of the copy is missing");
    let (id, key) = (instance_id(&id)?, key_in(&headers)?.ok_or_else(missing)?);
    inner.copy_is_over(id, &key);
    Ok(StatusCode::NO_CONTENT)
}

/// Sends a message and gives all that comes back; the copy it is for is in use until then.
pub(crate) async fn deliver(
    connection: &Connection,
    in_use: Option<InUse>,
    whose: MessageContext,
    message: Bytes,
    deadline: Instant,
) -> Result<Response, Refusal> {
    // Refused here it was not sent; later nobody can tell.
    let sent = connection.send_from(whose, message);
    let mut stream = sent.map_err(|error| Refusal::from(error).undelivered(NOT_READY))?;
    // The first message decides the status; after it a failure can only break off the body.
    let first = match tokio::time::timeout_at(deadline, stream.next()).await {
        Ok(Some(first)) => first?,
        Ok(None) => return Ok(framed(Body::empty())),
        Err(_) => {
            stream.give_up(CancelReason::DEADLINE_PASSED);
            return Err(Refusal::new(Code::UpstreamTimeout, "the server did not answer in time"));
        }
    };
    match stream.next().now_or_never() {
        Some(None) => Ok(framed(whole(first))),
        second => {
            let head = stream::iter([Some(Ok(first)), second.flatten()].into_iter().flatten());
            let all = head.chain(rest(stream, in_use, deadline));
            Ok(framed(Body::from_stream(all.flat_map(|message| stream::iter(chunks(message))))))
        }
    }
}

/// One message and nothing after it.
fn whole(message: Bytes) -> Body {
    let mut chunks = frames::chunks(message);
    match (chunks.next().unwrap_or_default(), chunks.next()) {
        (only, None) => Body::from(only),
        (head, Some(message)) => Body::from_stream(stream::iter([Ok::<_, CallError>(head), Ok(message)])),
    }
}

fn chunks(message: Result<Bytes, CallError>) -> impl Iterator<Item = Result<Bytes, CallError>> {
    let (chunks, error) = match message {
        Ok(message) => (Some(frames::chunks(message)), None),
        Err(error) => (None, Some(Err(error))),
    };
    chunks.into_iter().flatten().map(Ok).chain(error)
}

/// What comes after the first message. Dropping it cancels the call at the server.
fn rest(
    stream: stdio::Stream,
    in_use: Option<InUse>,
    deadline: Instant,
) -> impl Stream<Item = Result<Bytes, CallError>> {
    stream::unfold(Some((stream, in_use)), move |state| async move {
        let (mut stream, in_use) = state?;
        match tokio::time::timeout_at(deadline, stream.next()).await {
            Ok(message) => Some((message?, Some((stream, in_use)))),
            Err(_) => {
                stream.give_up(CancelReason::DEADLINE_PASSED);
                Some((Err(CallError::Timeout(Duration::ZERO)), None))
            }
        }
    })
}

async fn events(State(inner): State<Arc<Inner>>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let connection = connection(&inner, &id)?;
    let messages = connection.unsolicited();
    // The body must not keep the connection open: it ends when the server does.
    let stream = stream::unfold((messages, connection), |(mut messages, connection)| async move {
        loop {
            tokio::select! {
                message = messages.recv() => match message {
                    Ok(message) => {
                        let frame = Ok::<_, CallError>(frames::encode(&message));
                        return Some((frame, (messages, connection)));
                    }
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
                () = connection.closed() => return None,
            }
        }
    });
    Ok(framed(Body::from_stream(stream)))
}

async fn handshake(State(inner): State<Arc<Inner>>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let missing = || Refusal::new(Code::ServerNotReady, "the server has not answered yet");
    Ok(Json(connection(&inner, &id)?.handshake_result().ok_or_else(missing)?).into_response())
}

#[derive(Deserialize)]
struct LogQuery {
    tail: Option<usize>,
    #[serde(default)]
    follow: bool,
}

async fn logs(
    State(inner): State<Arc<Inner>>,
    Path(id): Path<String>,
    Query(query): Query<LogQuery>,
) -> Result<Response, Refusal> {
    let id = instance_id(&id)?;
    let count = query.tail.unwrap_or(DEFAULT_TAIL).min(LONGEST_TAIL);
    if inner.slot(id).is_none() {
        return kept_log(&inner, &id.to_string(), count).await;
    }
    let (lines, follow) = tail(inner.context.instance_dir(id), count).await?;
    let head = ndjson(&lines);
    let body = match query.follow {
        false => Body::from(head),
        true => Body::from_stream(stream::iter([Ok(head)]).chain(following(inner, id, follow))),
    };
    Ok(lines_of(body))
}

async fn job_logs(
    State(inner): State<Arc<Inner>>,
    Path(id): Path<String>,
    Query(query): Query<LogQuery>,
) -> Result<Response, Refusal> {
    let id: JobId = id.parse().map_err(|_| unknown())?;
    let count = query.tail.unwrap_or(DEFAULT_TAIL).min(LONGEST_TAIL);
    kept_log(&inner, &id.to_string(), count).await
}

/// The log of what is gone, if it is still kept.
async fn kept_log(inner: &Inner, id: &str, count: usize) -> Result<Response, Refusal> {
    let dir = inner.context.kept_logs.find(id).ok_or_else(unknown)?;
    let (lines, _) = tail(dir, count).await?;
    Ok(lines_of(Body::from(ndjson(&lines))))
}

async fn tail(dir: PathBuf, count: usize) -> Result<(Vec<LogLine>, Follow), Refusal> {
    let shown = dir.display().to_string();
    let broken = |error: &dyn std::fmt::Display| {
        tracing::error!(%error, path = shown, "read a log");
        Refusal::new(Code::Internal, "the log cannot be read")
    };
    let read = tokio::task::spawn_blocking(move || log::tail(&dir, count)).await;
    read.map_err(|error| broken(&error))?.map_err(|error| broken(&error))
}

fn lines_of(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

/// New lines as they are written, until the instance has ended: it may take a while until it is forgotten.
fn following(inner: Arc<Inner>, id: InstanceId, follow: Follow) -> impl Stream<Item = std::io::Result<Bytes>> {
    stream::unfold(Some(follow), move |follow| {
        let inner = Arc::clone(&inner);
        async move {
            let mut follow = follow?;
            loop {
                tokio::time::sleep(FOLLOW_EVERY).await;
                let known = !inner.has_ended(id);
                let read = tokio::task::spawn_blocking(move || (follow.read(), follow)).await.ok()?;
                follow = read.1;
                match read.0 {
                    Ok(lines) if lines.is_empty() && known => {}
                    Ok(lines) if lines.is_empty() => return None,
                    Ok(lines) => return Some((Ok(ndjson(&lines)), known.then_some(follow))),
                    Err(error) => return Some((Err(error), None)),
                }
            }
        }
    })
}

fn ndjson(lines: &[LogLine]) -> Bytes {
    let mut out = Vec::new();
    for line in lines {
        if serde_json::to_writer(&mut out, line).is_ok() {
            out.push(b'\n');
        }
    }
    out.into()
}

pub(crate) fn framed(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "application/octet-stream")], body).into_response()
}

fn connection(inner: &Inner, id: &str) -> Result<Connection, Refusal> {
    let slot = inner.slot(instance_id(id)?).ok_or_else(unknown)?;
    slot.connection().ok_or_else(|| not_ready(&slot))
}

pub(crate) fn not_ready(slot: &Slot) -> Refusal {
    let status = slot.status();
    let message = if status.message.is_empty() { String::new() } else { format!(": {}", status.message) };
    let stops = matches!(status.phase, Phase::Stopping | Phase::Stopped);
    Refusal::new(Code::ServerNotReady, format!("the instance is {}{message}", status.phase)).undelivered(if stops {
        stack::STOPPING
    } else {
        NOT_READY
    })
}

fn instance_id(id: &str) -> Result<InstanceId, Refusal> {
    id.parse().map_err(|_| unknown())
}

fn unread(rejection: BytesRejection) -> Refusal {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Refusal::new(Code::PayloadTooLarge, format!("a message may have at most {MAX_MESSAGE_BYTES} bytes"))
        }
        _ => Refusal::new(Code::BadRequest, "the message did not arrive whole"),
    }
}

fn unknown() -> Refusal {
    Refusal::new(Code::NotFound, "no such instance on this toolbox").undelivered(stack::STOPPING)
}

fn deadline_of(headers: &HeaderMap) -> Duration {
    let given = headers.get("toolyard-deadline-ms").and_then(|value| value.to_str().ok()?.parse().ok());
    given.map_or(DEFAULT_DEADLINE, Duration::from_millis).min(LONGEST_DEADLINE)
}
