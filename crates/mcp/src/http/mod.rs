//! A client to one remote MCP server over Streamable HTTP, in both eras.
//!
//! - The era is found out once by a modern request (`server/discover`); anything that is no modern answer leads
//!   to `initialize`. A legacy session that the server has forgotten (404) is opened again, once for a call.
//! - Many callers share the session, so ids and progress tokens are the client's own and restored on the way back.
//! - Giving up a call closes its stream, which is how a modern server is told; a legacy one gets
//!   `notifications/cancelled`.
//! - Everything read is bounded: a body or an event by [`MAX_MESSAGE_BYTES`], resumptions by a count.
//!
//! Left out: the HTTP+SSE transport of 2024-11-05, and `Mcp-Param-*` headers from a tool's `x-mcp-header` annotations.

mod headers;
mod sse;

use crate::envelope::{self, Kind, Message, ParseError};
use crate::era::{self, Era, Handshake};
use crate::error::{CallError, HandshakeError, server_error};
use crate::json::Edits;
use crate::probe::{self, Probed};
use crate::stdio::MAX_MESSAGE_BYTES;
use ::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use sse::Sse;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::broadcast;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How a request gets to the server: TLS, proxy and address policy are the giver's.
pub type Client = Arc<
    dyn Fn(
            Request<Full<Bytes>>,
        ) -> BoxFuture<'static, Result<Response<Incoming>, Box<dyn std::error::Error + Send + Sync>>>
        + Send
        + Sync,
>;

/// How long the handshake of a call that finds none may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// How long telling a server that a call was given up may take.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a legacy stream that broke is resumed for one call.
const MAX_RESUMPTIONS: u32 = 5;
/// The longest pause before a resumption that a server may ask for.
const MAX_RETRY: Duration = Duration::from_secs(10);
/// The pauses between attempts to listen for changes.
const LISTEN_PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

const SESSION_ID: &str = "mcp-session-id";

/// A client of the usual kind: pooled connections through `connector`.
pub fn pooled<C>(client: hyper_util::client::legacy::Client<C, Full<Bytes>>) -> Client
where
    C: hyper_util::client::legacy::connect::Connect + Clone + Send + Sync + 'static,
{
    Arc::new(move |request| {
        let answer = client.request(request);
        Box::pin(async move { answer.await.map_err(Into::into) })
    })
}

/// One remote server. Cheap to clone; what it listens for ends with the last clone.
#[derive(Clone)]
pub struct Upstream {
    shared: Arc<Shared>,
    _end: Arc<DropGuard>,
}

struct Shared {
    client: Client,
    url: Uri,
    headers: HeaderMap,
    next_id: AtomicU64,
    established: RwLock<Option<Arc<Established>>>,
    /// Held while a conversation is being opened, so that many callers open one.
    opening: tokio::sync::Mutex<()>,
    unsolicited: broadcast::Sender<Bytes>,
    end: CancellationToken,
}

struct Established {
    handshake: Handshake,
    session: Option<HeaderValue>,
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Neither URL nor headers: both may hold credentials.
        f.debug_struct("Upstream").finish_non_exhaustive()
    }
}

impl Upstream {
    /// A client of the server at `url`, which sends `headers` with everything.
    #[must_use]
    pub fn new(client: Client, url: Uri, headers: HeaderMap) -> Self {
        let end = CancellationToken::new();
        let shared = Shared {
            client,
            url,
            headers,
            next_id: AtomicU64::new(1),
            established: RwLock::default(),
            opening: tokio::sync::Mutex::default(),
            unsolicited: broadcast::Sender::new(64),
            end: end.clone(),
        };
        Self { shared: Arc::new(shared), _end: Arc::new(end.drop_guard()) }
    }

    /// What the server said of itself; asks it when that is not known yet.
    ///
    /// # Errors
    /// When it does not get ready within `timeout`.
    pub async fn handshake(&self, timeout: Duration) -> Result<Handshake, HandshakeError> {
        Ok(self.shared.established(timeout).await?.handshake.clone())
    }

    /// Sends one raw JSON-RPC message of a caller; the stream is as that of [`crate::stdio::Connection::send`].
    ///
    /// # Errors
    /// When the message is none, or the server does not take it.
    pub async fn send(&self, message: Bytes) -> Result<Stream, CallError> {
        let message = Message::parse(message)?;
        let established = self.shared.established(HANDSHAKE_TIMEOUT).await.map_err(not_established)?;
        match message.kind() {
            Kind::Request => self.shared.clone().call(&message, established).await,
            Kind::Notification | Kind::Result | Kind::Error => {
                self.shared.post(&message, Some(&established)).await?;
                Ok(Stream::empty(self.shared.clone()))
            }
        }
    }

    /// Messages that belong to no call.
    #[must_use]
    pub fn unsolicited(&self) -> broadcast::Receiver<Bytes> {
        self.shared.unsolicited.subscribe()
    }
}

fn not_established(error: HandshakeError) -> CallError {
    match error {
        HandshakeError::Status(status) => CallError::Status(status),
        HandshakeError::Timeout(timeout) => CallError::Timeout(timeout),
        HandshakeError::Refused { code, message } => CallError::Server { code, message },
        HandshakeError::Unusable(_) | HandshakeError::NotMcp { .. } => {
            CallError::Unexpected("it does not speak a supported version of MCP")
        }
        HandshakeError::Closed | HandshakeError::Unreachable => CallError::Unreachable,
    }
}

impl Shared {
    fn current(&self) -> Option<Arc<Established>> {
        self.established.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn established(self: &Arc<Self>, timeout: Duration) -> Result<Arc<Established>, HandshakeError> {
        if let Some(established) = self.current() {
            return Ok(established);
        }
        let opened = tokio::time::timeout(timeout, async {
            let _opening = self.opening.lock().await;
            if let Some(established) = self.current() {
                return Ok(established);
            }
            let established = self.open().await?;
            *self.established.write().unwrap_or_else(PoisonError::into_inner) = Some(established.clone());
            tokio::spawn(listen(Arc::downgrade(self), established.clone(), self.end.clone()));
            Ok(established)
        });
        opened.await.unwrap_or(Err(HandshakeError::Timeout(timeout)))
    }

    /// Forgets a session that the server no longer knows, unless somebody has opened another already.
    fn forget(&self, stale: &Arc<Established>) {
        let mut established = self.established.write().unwrap_or_else(PoisonError::into_inner);
        if established.as_ref().is_some_and(|current| Arc::ptr_eq(current, stale)) {
            *established = None;
        }
    }

    async fn open(&self) -> Result<Arc<Established>, HandshakeError> {
        match self.discover().await? {
            Probed::Modern(handshake) => Ok(Arc::new(Established { handshake, session: None })),
            Probed::Legacy => self.initialize().await,
        }
    }

    async fn discover(&self) -> Result<Probed, HandshakeError> {
        let request = self.own_request("server/discover", &probe::params());
        let mut headers = HeaderMap::new();
        headers::describe(&mut headers, &request, Era::Modern, era::LATEST_MODERN);
        let response = self.exchange(Method::POST, request.bytes().clone(), headers).await?;
        let status = response.status();
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(HandshakeError::Status(status.as_u16()));
        }
        match read_answer(response).await {
            Ok(answer) => probe::judge(&answer),
            Err(CallError::Unreachable) => Err(HandshakeError::Unreachable),
            Err(_) => Ok(Probed::Legacy),
        }
    }

    async fn initialize(&self) -> Result<Arc<Established>, HandshakeError> {
        let request = self.own_request("initialize", &probe::initialize_params());
        let response = self.exchange(Method::POST, request.bytes().clone(), HeaderMap::new()).await?;
        let status = response.status();
        let session = response.headers().get(SESSION_ID).cloned();
        let answer = match read_answer(response).await {
            Ok(answer) => answer,
            Err(_) if !status.is_success() => return Err(HandshakeError::Status(status.as_u16())),
            Err(error) => return Err(error.into()),
        };
        if answer.kind() == Kind::Error {
            return Err(server_error(&answer).into());
        }
        let result = answer.payload().unwrap_or_default();
        let handshake = Handshake::from_initialize(result).map_err(HandshakeError::Unusable)?;
        let established = Arc::new(Established { handshake, session });
        let initialized = Message::parse(envelope::notification("notifications/initialized", None))
            .expect("our own notification is well-formed");
        self.post(&initialized, Some(&established)).await?;
        Ok(established)
    }

    fn own_request(&self, method: &str, params: &str) -> Message {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed).to_string();
        Message::parse(envelope::request(&id, method, Some(params))).expect("our own request is well-formed")
    }

    async fn call(self: Arc<Self>, message: &Message, mut established: Arc<Established>) -> Result<Stream, CallError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed).to_string();
        let token = message.progress_token().map_err(ParseError::from)?;
        let mut edits = Edits::new();
        if let Some(span) = token.clone() {
            edits.replace(span, id.as_str());
        }
        message.edit_id(&mut edits, &id);
        let request = Message::parse(edits.apply(message.bytes()))?;
        let restore = Restore {
            id: message.raw_id().unwrap_or("null").to_owned(),
            token: token.map(|span| message.text(span).to_owned()),
            upstream_id: id,
        };
        let mut response = self.post(&request, Some(&established)).await?;
        if response.status() == StatusCode::NOT_FOUND && established.session.is_some() {
            self.forget(&established);
            established = self.established(HANDSHAKE_TIMEOUT).await.map_err(not_established)?;
            response = self.post(&request, Some(&established)).await?;
        }
        Stream::open(self, established, restore, response).await
    }

    async fn post(
        &self,
        message: &Message,
        established: Option<&Arc<Established>>,
    ) -> Result<Response<Incoming>, CallError> {
        let mut headers = HeaderMap::new();
        if let Some(established) = established {
            let handshake = &established.handshake;
            headers::describe(&mut headers, message, handshake.era, &handshake.protocol_version);
            if let Some(session) = &established.session {
                headers.insert(SESSION_ID, session.clone());
            }
        }
        self.exchange(Method::POST, message.bytes().clone(), headers).await
    }

    async fn get(&self, established: &Established, last_event: Option<&str>) -> Result<Response<Incoming>, CallError> {
        let mut headers = HeaderMap::new();
        headers::version(&mut headers, &established.handshake.protocol_version);
        if let Some(session) = &established.session {
            headers.insert(SESSION_ID, session.clone());
        }
        if let Some(id) = last_event.and_then(|id| HeaderValue::from_str(id).ok()) {
            headers.insert("last-event-id", id);
        }
        self.exchange(Method::GET, Bytes::new(), headers).await
    }

    async fn exchange(&self, method: Method, body: Bytes, extra: HeaderMap) -> Result<Response<Incoming>, CallError> {
        let mut request = Request::new(Full::new(body));
        *request.uri_mut() = self.url.clone();
        let accept = if method == Method::GET { "text/event-stream" } else { "application/json, text/event-stream" };
        *request.method_mut() = method;
        let headers = request.headers_mut();
        *headers = self.headers.clone();
        headers.extend(extra);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        (self.client)(request).await.map_err(|error| {
            tracing::debug!(error = &*error, "a remote server cannot be reached");
            CallError::Unreachable
        })
    }
}

/// The one message in a response, whichever way it is sent.
async fn read_answer(response: Response<Incoming>) -> Result<Message, CallError> {
    if is_event_stream(&response) {
        let mut events = Sse::new(response.into_body(), MAX_MESSAGE_BYTES);
        while let Some(event) = events.next().await? {
            let Ok(message) = Message::parse(event.data) else { continue };
            if matches!(message.kind(), Kind::Result | Kind::Error) {
                return Ok(message);
            }
        }
        return Err(CallError::Closed);
    }
    let status = response.status();
    let body = read_body(response).await?;
    Message::parse(body).map_err(|_| match status.is_success() {
        true => CallError::Unexpected("it is no JSON-RPC message"),
        false => CallError::Status(status.as_u16()),
    })
}

async fn read_body(response: Response<Incoming>) -> Result<Bytes, CallError> {
    let body = http_body_util::Limited::new(response.into_body(), MAX_MESSAGE_BYTES);
    match body.collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(CallError::TooLong { limit_bytes: MAX_MESSAGE_BYTES })
        }
        Err(error) => {
            tracing::debug!(error = &*error, "a remote server's answer broke off");
            Err(CallError::Closed)
        }
    }
}

fn is_event_stream<B>(response: &Response<B>) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/event-stream"))
}

/// What a call's messages carry on the caller's side.
struct Restore {
    id: String,
    token: Option<String>,
    upstream_id: String,
}

/// What comes back for one message: notifications of the call, its response, then the end.
pub struct Stream {
    shared: Arc<Shared>,
    established: Option<Arc<Established>>,
    restore: Option<Restore>,
    source: Source,
    resumptions: u32,
}

enum Source {
    Done,
    One(Bytes),
    Events(Box<Sse>),
}

impl Stream {
    fn empty(shared: Arc<Shared>) -> Self {
        Self { shared, established: None, restore: None, source: Source::Done, resumptions: 0 }
    }

    async fn open(
        shared: Arc<Shared>,
        established: Arc<Established>,
        restore: Restore,
        response: Response<Incoming>,
    ) -> Result<Self, CallError> {
        let source = if is_event_stream(&response) {
            Source::Events(Box::new(Sse::new(response.into_body(), MAX_MESSAGE_BYTES)))
        } else {
            let status = response.status();
            let body = read_body(response).await?;
            if !status.is_success() && Message::parse(body.clone()).is_err() {
                return Err(CallError::Status(status.as_u16()));
            }
            Source::One(body)
        };
        Ok(Self { shared, established: Some(established), restore: Some(restore), source, resumptions: 0 })
    }

    /// The next message; `None` after the response. An error ends the stream.
    pub async fn next(&mut self) -> Option<Result<Bytes, CallError>> {
        loop {
            match std::mem::replace(&mut self.source, Source::Done) {
                Source::Done => return None,
                Source::One(body) => return Some(self.finish(body)),
                Source::Events(events) => {
                    self.source = Source::Events(events);
                    match self.next_event().await {
                        Ok(Some(message)) => return Some(Ok(message)),
                        Ok(None) => {}
                        Err(error) => {
                            self.end();
                            return Some(Err(error));
                        }
                    }
                }
            }
        }
    }

    fn finish(&mut self, body: Bytes) -> Result<Bytes, CallError> {
        let message = Message::parse(body).map_err(|_| CallError::Unexpected("it is no JSON-RPC message"));
        let restore = self.restore.take();
        self.end();
        let (message, restore) = (message?, restore.ok_or(CallError::Closed)?);
        match message.kind() {
            Kind::Result | Kind::Error => Ok(with_caller_id(&message, &restore.id)),
            Kind::Request | Kind::Notification => Err(CallError::Unexpected("it is no response")),
        }
    }

    /// One message of the event stream; `None` to look again.
    async fn next_event(&mut self) -> Result<Option<Bytes>, CallError> {
        let Source::Events(events) = &mut self.source else { return Ok(None) };
        let event = match events.next().await {
            Ok(Some(event)) => event,
            Ok(None) | Err(CallError::Closed) => {
                self.resume().await?;
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let Ok(message) = Message::parse(event.data) else { return Ok(None) };
        let Some(restore) = &self.restore else { return Err(CallError::Closed) };
        match message.kind() {
            Kind::Notification => Ok(restore_notification(&message, restore)),
            Kind::Request => Ok(Some(message.into_bytes())),
            Kind::Result | Kind::Error if is_answer_to(&message, restore) => {
                let answer = with_caller_id(&message, &restore.id);
                self.end();
                Ok(Some(answer))
            }
            Kind::Result | Kind::Error => Ok(None),
        }
    }

    /// A legacy server may close a stream and have it resumed, by event id.
    async fn resume(&mut self) -> Result<(), CallError> {
        let (Source::Events(events), Some(established)) = (&mut self.source, &self.established) else {
            return Err(CallError::Closed);
        };
        let Some(last) = events.last_id().map(str::to_owned) else { return Err(CallError::Closed) };
        if established.handshake.era == Era::Modern || self.resumptions >= MAX_RESUMPTIONS {
            return Err(CallError::Closed);
        }
        self.resumptions += 1;
        tokio::time::sleep(events.retry().min(MAX_RETRY)).await;
        let response = self.shared.get(established, Some(&last)).await?;
        if !is_event_stream(&response) {
            return Err(CallError::Closed);
        }
        self.source = Source::Events(Box::new(events.resumed(response.into_body())));
        Ok(())
    }

    fn end(&mut self) {
        self.source = Source::Done;
        self.restore = None;
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let (Some(restore), Some(established)) = (self.restore.take(), self.established.take()) else { return };
        // A modern server is told by the stream's end, and after `end` there is nothing to cancel.
        if established.handshake.era == Era::Modern {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let shared = self.shared.clone();
        let params = format!(r#"{{"requestId":{},"reason":"the caller went away"}}"#, restore.upstream_id);
        let cancelled = envelope::notification("notifications/cancelled", Some(&params));
        runtime.spawn(async move {
            let Ok(message) = Message::parse(cancelled) else { return };
            let _ = tokio::time::timeout(CANCEL_TIMEOUT, shared.post(&message, Some(&established))).await;
        });
    }
}

fn is_answer_to(message: &Message, restore: &Restore) -> bool {
    match message.id() {
        Some(id) => id.as_number().map(|id| id.to_string()).as_deref() == Some(&restore.upstream_id),
        None => message.kind() == Kind::Error,
    }
}

fn with_caller_id(message: &Message, id: &str) -> Bytes {
    if message.raw_id().is_some() {
        return message.with_id(id);
    }
    let error = message.payload().unwrap_or_default();
    Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{}}}"#, String::from_utf8_lossy(&error)))
}

/// The notification as the caller may see it; `None` for progress that the caller did not ask for.
fn restore_notification(message: &Message, restore: &Restore) -> Option<Bytes> {
    let mut edits = Edits::new();
    if message.method() == "notifications/progress" {
        let span = message.progress_token().ok()??;
        edits.replace(span, restore.token.clone()?);
    } else if let Ok(Some(meta)) = message.meta()
        && let Ok(Some(span)) = meta.get(era::meta::SUBSCRIPTION_ID)
    {
        edits.replace(span, restore.id.clone());
    }
    Some(edits.apply(message.bytes()))
}

/// Keeps listening for what the server says of its own accord, until the upstream is dropped or its session is replaced.
async fn listen(shared: std::sync::Weak<Shared>, established: Arc<Established>, end: CancellationToken) {
    let mut pause = LISTEN_PAUSES.0;
    loop {
        let attempt = async {
            let shared = shared.upgrade()?;
            let response = listen_once(&shared, &established).await?;
            let unsolicited = shared.unsolicited.clone();
            drop(shared);
            let mut events = Sse::new(response.into_body(), MAX_MESSAGE_BYTES);
            let mut heard = false;
            while let Ok(Some(event)) = events.next().await {
                heard = true;
                if Message::parse(event.data.clone()).is_ok_and(|message| message.kind() == Kind::Notification) {
                    let _ = unsolicited.send(event.data);
                }
            }
            Some(heard)
        };
        let outcome = tokio::select! {
            () = end.cancelled() => return,
            outcome = attempt => outcome,
        };
        match outcome {
            // The server offers no such stream, or the upstream is gone.
            None => return,
            Some(true) => pause = LISTEN_PAUSES.0,
            Some(false) => pause = (pause * 2).min(LISTEN_PAUSES.1),
        }
        let replaced = shared
            .upgrade()
            .is_none_or(|shared| !shared.current().is_some_and(|current| Arc::ptr_eq(&current, &established)));
        if replaced {
            return;
        }
        tokio::select! {
            () = end.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn listen_once(shared: &Shared, established: &Arc<Established>) -> Option<Response<Incoming>> {
    let response = match established.handshake.era {
        Era::Legacy => shared.get(established, None).await.ok()?,
        Era::Modern => {
            let request = shared.own_request("subscriptions/listen", &probe::listen_params(&established.handshake)?);
            shared.post(&request, Some(established)).await.ok()?
        }
    };
    (response.status().is_success() && is_event_stream(&response)).then_some(response)
}

#[cfg(test)]
mod tests;
