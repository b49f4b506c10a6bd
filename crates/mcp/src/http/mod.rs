//! A client to one remote MCP server over Streamable HTTP, in both eras.
//!
//! - The era is found out once by a modern request (`server/discover`); anything that is no modern answer leads
//!   to `initialize`.
//! - Servers forget their sessions when they restart, and say so with 404, 400, 401 or what else occurs to them, with
//!   and without an error that answers the request; some with an error in a response that is else a success, or in an
//!   event. Tools refuse in the same words. So whatever was refused, the conversation is tried with a question that does
//!   nothing: when that is refused too it is lost, and the request is sent once more after one new handshake. Only a refusal
//!   that says that the session is absent counts, not that it ended: then the request was not carried out. Else the refusal
//!   is the answer.
//! - A session that is not used any more is ended with DELETE: when another has taken its place, when the upstream is
//!   dropped or closed, and then with the last call on it.
//! - Many callers share the session, so ids and progress tokens are the client's own and restored on the way back.
//! - Giving up a call closes its stream, which is how a modern server is told; a legacy one gets
//!   `notifications/cancelled`.
//! - Everything read is bounded: a body or an event by [`MAX_MESSAGE_BYTES`], resumptions by a count.
//!
//! Left out: the HTTP+SSE transport of 2024-11-05, and `Mcp-Param-*` headers from a tool's `x-mcp-header` annotations.

mod headers;
mod sse;

use crate::cancel::CancelReason;
use crate::envelope::{self, Kind, Message, ParseError};
use crate::era::{self, Era, Handshake};
use crate::error::{CallError, HandshakeError, server_error};
use crate::json::Edits;
use crate::probe::{self, Probed};
use crate::room::{Growing, Room};
use crate::stdio::{Caller, MAX_MESSAGE_BYTES, MAX_UNSOLICITED_BYTES};
use ::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as _, Incoming};
use sse::Sse;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

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
/// How long the modern probe may take before a server counts as legacy.
const DISCOVER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long trying whether a session is still known may take.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long ending a session may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// When a new handshake did not help, how long until a refused request leads to another one. A 404 for a session always
/// does.
const FUTILE_FOR: Duration = Duration::from_secs(10);
/// The longest message in which a server says that it does not know a session.
const MAX_REFUSAL_BYTES: usize = 4 << 10;
/// The longest answer to what is asked for ourselves, such as a handshake.
const MAX_OWN_BYTES: usize = 1 << 20;
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

/// One remote server. Cheap to clone; what it listens for ends with the last clone, and its session with the last call
/// on it.
#[derive(Clone)]
pub struct Upstream {
    shared: Arc<Shared>,
    _owner: Arc<Owner>,
}

struct Shared {
    transport: Arc<Transport>,
    next_id: AtomicU64,
    /// The server turned out to be legacy: it need not be probed again.
    is_legacy: AtomicBool,
    established: RwLock<Option<Arc<Established>>>,
    /// Held while a conversation is being opened, so that many callers open one.
    opening: tokio::sync::Mutex<()>,
    /// When a new handshake last did not help a refused request.
    futile: Mutex<Option<Instant>>,
    unsolicited: broadcast::Sender<Bytes>,
    /// Room for what callers have not taken yet.
    room: Room,
}

/// How requests get to the server.
struct Transport {
    client: Client,
    url: Uri,
    headers: HeaderMap,
}

/// Ends what nobody will use any more.
struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        drop(self.0.take_established());
    }
}

struct Established {
    handshake: Arc<Handshake>,
    session: Option<HeaderValue>,
    /// Whether the server is to be told when nobody uses the session any more.
    is_open: AtomicBool,
    /// Cancelled when another one takes its place: nobody listens on it any more.
    replaced: CancellationToken,
    transport: Arc<Transport>,
}

impl Drop for Established {
    fn drop(&mut self) {
        self.replaced.cancel();
        let Some(ending) = self.ending() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(ending);
    }
}

impl Established {
    fn new(handshake: Handshake, session: Option<HeaderValue>, transport: Arc<Transport>) -> Arc<Self> {
        let is_open = AtomicBool::new(session.is_some());
        let replaced = CancellationToken::new();
        Arc::new(Self { handshake: Arc::new(handshake), session, is_open, replaced, transport })
    }

    /// Tells the server that the session has ended, when it has not been told and did not say so itself.
    fn ending(&self) -> Option<impl Future<Output = ()> + Send + use<>> {
        let session = self.session.clone().filter(|_| self.is_open.swap(false, Ordering::AcqRel))?;
        let mut headers = HeaderMap::new();
        headers::version(&mut headers, &self.handshake.protocol_version);
        headers.insert(SESSION_ID, session);
        let transport = self.transport.clone();
        Some(async move {
            // A server may refuse it (405): then the session is the server's to end.
            let told = transport.exchange(Method::DELETE, Bytes::new(), headers);
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, told).await;
        })
    }

    /// The headers of a message in this conversation.
    fn headers(&self, message: &Message) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers::describe(&mut headers, message, self.handshake.era, &self.handshake.protocol_version);
        if let Some(session) = &self.session {
            headers.insert(SESSION_ID, session.clone());
        }
        headers
    }
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
        Self::with_room(client, url, headers, Room::default())
    }

    /// The same, with bounded room for what callers have not taken yet.
    #[must_use]
    pub fn with_room(client: Client, url: Uri, headers: HeaderMap, room: Room) -> Self {
        let shared = Arc::new(Shared {
            transport: Arc::new(Transport { client, url, headers }),
            next_id: AtomicU64::new(1),
            is_legacy: AtomicBool::new(false),
            established: RwLock::default(),
            opening: tokio::sync::Mutex::default(),
            futile: Mutex::default(),
            unsolicited: broadcast::Sender::new(64),
            room,
        });
        Self { _owner: Arc::new(Owner(shared.clone())), shared }
    }

    /// Begins with what is known of the server's era. It is probed again should it have changed.
    #[must_use]
    pub fn knowing(self, era: Option<Era>) -> Self {
        self.shared.is_legacy.store(era == Some(Era::Legacy), Ordering::Relaxed);
        self
    }

    /// What the server said of itself last; asks it when that is not known yet.
    ///
    /// # Errors
    /// When it does not get ready within `timeout`.
    pub async fn handshake(&self, timeout: Duration) -> Result<Arc<Handshake>, HandshakeError> {
        Ok(self.shared.established(timeout).await?.handshake.clone())
    }

    /// What the server said of itself last, if it has.
    #[must_use]
    pub fn known_handshake(&self) -> Option<Arc<Handshake>> {
        self.shared.current().map(|established| established.handshake.clone())
    }

    /// Ends the session and tells the server. A later call opens another one.
    pub async fn close(&self) {
        let established = self.shared.take_established();
        if let Some(ending) = established.and_then(|established| established.ending()) {
            ending.await;
        }
    }

    /// [`Self::send_for`] a caller that nobody names.
    ///
    /// # Errors
    /// As there.
    pub async fn send(&self, message: Bytes) -> Result<Stream, CallError> {
        self.send_for(Caller::Unknown, message).await
    }

    /// Sends one raw JSON-RPC message of a caller; the stream is as that of [`crate::stdio::Connection::send_for`].
    ///
    /// # Errors
    /// When the message is none, the server does not take it, or there is no room for what it answers.
    pub async fn send_for(&self, caller: Caller, message: Bytes) -> Result<Stream, CallError> {
        self.send_cancellable(caller, message, CancelReason::default()).await
    }

    /// As [`Self::send_for`]; the reason is what a legacy server is told should the call be given up.
    ///
    /// # Errors
    /// As there.
    pub async fn send_cancellable(
        &self,
        caller: Caller,
        message: Bytes,
        reason: CancelReason,
    ) -> Result<Stream, CallError> {
        self.send_as((caller, false, reason), message).await
    }

    async fn send_as(&self, whose: (Caller, bool, CancelReason), message: Bytes) -> Result<Stream, CallError> {
        let message = Message::parse(message)?;
        let established = self.shared.established(HANDSHAKE_TIMEOUT).await.map_err(not_established)?;
        match message.kind() {
            Kind::Request => self.shared.clone().call(whose, &message, established).await,
            Kind::Notification => {
                self.shared.take(&message, None, established).await?;
                Ok(Stream::empty(self.shared.clone()))
            }
            // A question of an older session is not asked any more.
            Kind::Result | Kind::Error => {
                self.shared.post(&message, &established).await?;
                Ok(Stream::empty(self.shared.clone()))
            }
        }
    }

    /// [`Self::send`] of something that is asked for ourselves: giving it up is not told to the server.
    ///
    /// # Errors
    /// As there.
    pub async fn ask(&self, message: Bytes) -> Result<Stream, CallError> {
        self.send_as((Caller::Unknown, true, CancelReason::default()), message).await
    }

    /// Messages that belong to no call.
    #[must_use]
    pub fn unsolicited(&self) -> broadcast::Receiver<Bytes> {
        self.shared.unsolicited.subscribe()
    }
}

fn not_established(error: HandshakeError) -> CallError {
    match error {
        HandshakeError::Status(status) if status >= 500 => CallError::NotAsked(status),
        HandshakeError::Status(status) => CallError::Status(status),
        HandshakeError::Timeout(timeout) => CallError::Timeout(timeout),
        HandshakeError::Refused { code, message } => CallError::Server { code, message },
        HandshakeError::Unusable(_) | HandshakeError::NotMcp { .. } => {
            CallError::Unexpected("it does not speak a supported version of MCP")
        }
        HandshakeError::Closed => CallError::Unreachable("the connection ended".to_owned()),
        HandshakeError::Unreachable(cause) => CallError::Unreachable(cause),
        HandshakeError::NoRoom => CallError::NoRoom,
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
            let replaced = established.replaced.clone();
            tokio::spawn(listening(Arc::downgrade(self), Arc::downgrade(&established), replaced));
            Ok(established)
        });
        opened.await.unwrap_or(Err(HandshakeError::Timeout(timeout)))
    }

    fn take_established(&self) -> Option<Arc<Established>> {
        let taken = self.established.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(established) = &taken {
            established.replaced.cancel();
        }
        taken
    }

    /// Forgets a conversation that the server refused, unless somebody has opened another already.
    fn forget(&self, stale: &Arc<Established>) {
        let mut established = self.established.write().unwrap_or_else(PoisonError::into_inner);
        if established.as_ref().is_some_and(|current| Arc::ptr_eq(current, stale)) {
            *established = None;
        }
        drop(established);
        stale.replaced.cancel();
    }

    async fn open(&self) -> Result<Arc<Established>, HandshakeError> {
        if self.is_legacy.load(Ordering::Relaxed) {
            match self.initialize().await {
                // It is there, and may be another program by now.
                Err(HandshakeError::Refused { .. } | HandshakeError::Unusable(_) | HandshakeError::Status(_)) => {}
                opened => return opened,
            }
        }
        // A server that does not know the method may do anything with it, hang included.
        match tokio::time::timeout(DISCOVER_TIMEOUT, self.discover()).await.unwrap_or(Ok(Probed::Legacy))? {
            Probed::Modern(handshake) => {
                self.is_legacy.store(false, Ordering::Relaxed);
                Ok(Established::new(handshake, None, self.transport.clone()))
            }
            Probed::Legacy => {
                let opened = self.initialize().await?;
                self.is_legacy.store(true, Ordering::Relaxed);
                Ok(opened)
            }
        }
    }

    async fn discover(&self) -> Result<Probed, HandshakeError> {
        let request = self.own_request("server/discover", &probe::params());
        let mut headers = HeaderMap::new();
        headers::describe(&mut headers, &request, Era::Modern, era::LATEST_MODERN);
        let response = self.transport.exchange(Method::POST, request.bytes().clone(), headers).await?;
        match read_answer(response).await {
            Ok(answer) => probe::judge(&answer),
            Err(_) => Ok(Probed::Legacy),
        }
    }

    async fn initialize(&self) -> Result<Arc<Established>, HandshakeError> {
        let request = self.own_request("initialize", &probe::initialize_params());
        let response = self.transport.exchange(Method::POST, request.bytes().clone(), HeaderMap::new()).await?;
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
        let established = Established::new(handshake, session, self.transport.clone());
        let initialized = Message::parse(envelope::notification("notifications/initialized", None))
            .expect("our own notification is well-formed");
        self.post(&initialized, &established).await?;
        Ok(established)
    }

    fn own_request(&self, method: &str, params: &str) -> Message {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed).to_string();
        Message::parse(envelope::request(&id, method, Some(params))).expect("our own request is well-formed")
    }

    async fn call(
        self: Arc<Self>,
        (caller, own, reason): (Caller, bool, CancelReason),
        message: &Message,
        established: Arc<Established>,
    ) -> Result<Stream, CallError> {
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
            caller,
            own,
            reason,
        };
        let is_legacy = established.handshake.era == Era::Legacy;
        let mut given_up = GivenUp { call: Some((self.clone(), established.clone())), restore: &restore };
        let taken = self.take(&request, Some(&restore), established).await;
        given_up.call = None;
        drop(given_up);
        let Taken { source, established, is_final } = taken?;
        let (established, restore) = (Some(established), Some(restore));
        let request = (is_legacy && !is_final && matches!(source, Source::Events(_))).then_some(request);
        Ok(Stream { shared: self, established, restore, request, source, resumptions: 0, own })
    }

    /// Sends a message in a conversation, and once more in a new one when the server has lost the first.
    async fn take(
        self: &Arc<Self>,
        message: &Message,
        restore: Option<&Restore>,
        established: Arc<Established>,
    ) -> Result<Taken, CallError> {
        match self.offer(message, restore, &established).await? {
            Offered::Taken(source) => Ok(Taken { source, established, is_final: false }),
            Offered::Refused(refused) => self.take_refused(message, restore, established, refused).await,
        }
    }

    /// Sends a message that was refused once more in a new conversation, when the server has lost the one it was sent in.
    async fn take_refused(
        self: &Arc<Self>,
        message: &Message,
        restore: Option<&Restore>,
        established: Arc<Established>,
        refused: Refused,
    ) -> Result<Taken, CallError> {
        let names_session = refused.names_session;
        let is_gone = match self.is_lost(&established, names_session).await {
            None => return refused.into_taken(established),
            Some(status) => status == StatusCode::NOT_FOUND && established.session.is_some(),
        };
        if is_gone {
            established.is_open.store(false, Ordering::Release);
        } else if self.is_futile() {
            return refused.into_taken(established);
        }
        self.forget(&established);
        drop(established);
        let renewed = self.established(HANDSHAKE_TIMEOUT).await.map_err(not_established)?;
        // What it says on a stream is not heard here, so it is asked before.
        if names_session && self.is_lost(&renewed, true).await.is_some() {
            self.note_futile();
            return refused.into_taken(renewed);
        }
        let mut given_up = restore.map(|restore| GivenUp { call: Some((self.clone(), renewed.clone())), restore });
        let offered = self.offer(message, restore, &renewed).await;
        if let Some(given_up) = &mut given_up {
            given_up.call = None;
        }
        match offered? {
            Offered::Taken(source) => {
                tracing::debug!(http.status = refused.status.as_u16(), "a remote server had lost its session");
                Ok(Taken { source, established: renewed, is_final: true })
            }
            Offered::Refused(again) => {
                // Where it is known now, the message itself is what is refused.
                if self.is_lost(&renewed, again.names_session).await.is_some() {
                    self.note_futile();
                }
                again.into_taken(renewed)
            }
        }
    }

    /// With which status a question that does nothing is refused in a conversation; `None` when it is not, or when that
    /// does not come out. `names_session` tells whether a request was refused by an error that names the session.
    async fn is_lost(&self, established: &Established, names_session: bool) -> Option<StatusCode> {
        let lost = self.is_refused(established, names_session).await;
        match names_session && lost.is_none() && established.handshake.era == Era::Legacy {
            // Some list their tools to anybody.
            true => self.is_refused(established, false).await,
            false => lost,
        }
    }

    async fn is_refused(&self, established: &Established, names_session: bool) -> Option<StatusCode> {
        let era = established.handshake.era;
        let question = match era {
            // A ping is answered before `initialize` too.
            Era::Legacy if names_session => self.own_request("tools/list", "{}"),
            Era::Legacy => self.own_request("ping", "{}"),
            Era::Modern => self.own_request("server/discover", &probe::params()),
        };
        let trial = async {
            let response = self.post(&question, established).await.ok()?;
            let status = response.status();
            if may_be_session(status) && status != StatusCode::METHOD_NOT_ALLOWED {
                let body = read_body(response, MAX_OWN_BYTES, own_room()).await.ok()?;
                return (!is_of_the_method(&body)).then_some(status);
            }
            if era == Era::Modern {
                return None;
            }
            let answer = read_answer(response).await.ok()?;
            names_lost_session(&answer).then_some(status)
        };
        tokio::time::timeout(TRIAL_TIMEOUT, trial).await.ok().flatten()
    }

    fn note_futile(&self) {
        *self.futile.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn is_futile(&self) -> bool {
        let futile = self.futile.lock().unwrap_or_else(PoisonError::into_inner);
        futile.is_some_and(|at| at.elapsed() < FUTILE_FOR)
    }

    async fn offer(
        &self,
        message: &Message,
        restore: Option<&Restore>,
        established: &Arc<Established>,
    ) -> Result<Offered, CallError> {
        let response = self.post(message, established).await?;
        let status = response.status();
        let room = self.room.growing(restore.map_or(Caller::Unknown, |restore| restore.caller));
        if is_event_stream(&response) {
            let events = Sse::new(response.into_body(), MAX_MESSAGE_BYTES, room);
            return Ok(Offered::Taken(Source::Events(Box::new(events))));
        }
        let Some(restore) = restore else {
            // What a server says of a notification beside its status is nothing to us.
            return Ok(match may_be_session(status) {
                true => Offered::Refused(Refused { status, body: Bytes::new(), names_session: false }),
                false => Offered::Taken(Source::Done),
            });
        };
        let body = read_body(response, MAX_MESSAGE_BYTES, room).await?;
        let names_session = established.handshake.era == Era::Legacy
            && body.len() <= MAX_REFUSAL_BYTES
            && Message::parse(body.clone()).is_ok_and(|answer| names_lost_session(&answer));
        let refused = Refused { status, body, names_session };
        if names_session && !status.is_client_error() {
            return Ok(Offered::Refused(refused));
        }
        if status.is_success() {
            return Ok(Offered::Taken(Source::One(refused.body)));
        }
        let is_answer = Message::parse(refused.body.clone())
            .is_ok_and(|answer| answer.raw_id().is_some() && is_answer_to(&answer, restore));
        if may_be_session(status) && !(is_answer && is_of_the_method(&refused.body)) {
            return Ok(Offered::Refused(refused));
        }
        refused.into_source().map(Offered::Taken)
    }

    async fn post(&self, message: &Message, established: &Established) -> Result<Response<Incoming>, CallError> {
        self.transport.exchange(Method::POST, message.bytes().clone(), established.headers(message)).await
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
        self.transport.exchange(Method::GET, Bytes::new(), headers).await
    }
}

impl Transport {
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
            tracing::debug!(error = &*error, "a remote server gave no answer");
            let known = error.downcast_ref::<hyper_util::client::legacy::Error>();
            match known {
                Some(error) if !error.is_connect() => CallError::Dropped,
                _ => CallError::Unreachable(crate::error::cause(&*error)),
            }
        })
    }
}

/// A message that a server took, or the refusal of it that stands.
struct Taken {
    source: Source,
    /// The conversation it was sent in at last.
    established: Arc<Established>,
    /// It is not sent once more: it was, or that would not help.
    is_final: bool,
}

/// What a server made of a message.
enum Offered {
    Taken(Source),
    Refused(Refused),
}

/// A refusal that may be of the conversation, and not of the request.
struct Refused {
    status: StatusCode,
    body: Bytes,
    /// It is an error that names the session.
    names_session: bool,
}

impl Refused {
    /// The refusal as what came of the message.
    fn into_taken(self, established: Arc<Established>) -> Result<Taken, CallError> {
        Ok(Taken { source: self.into_source()?, established, is_final: true })
    }

    /// What the caller gets to see of it: the server's JSON-RPC message if it sent one.
    fn into_source(self) -> Result<Source, CallError> {
        match Message::parse(self.body.clone()) {
            Ok(_) => Ok(Source::One(self.body)),
            Err(_) => Err(CallError::Status(self.status.as_u16())),
        }
    }
}

/// Whether a server may mean the session by its status, and not what it was sent or how much of it.
fn may_be_session(status: StatusCode) -> bool {
    let of_the_message = [
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::PAYLOAD_TOO_LARGE,
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    status.is_client_error() && !of_the_message.contains(&status)
}

/// Whether a JSON-RPC error is about the method or its form, which a server only tells in a conversation that it knows.
fn is_of_the_method(body: &Bytes) -> bool {
    let Ok(message) = Message::parse(body.clone()) else { return false };
    let of_the_method = |code| code == era::code::METHOD_NOT_FOUND || era::code::is_modern(code);
    matches!(server_error(&message), CallError::Server { code, .. } if of_the_method(code))
}

/// Whether an error says that the session or its initialization is missing. Tools that have sessions of their own say the
/// same, so it is only a reason to try whether the conversation is still known.
fn names_lost_session(answer: &Message) -> bool {
    /// What servers answer so with: "session not found", what is wrong with the request, and errors without a name.
    const CODES: [i64; 6] = [
        -32001,
        era::code::INVALID_PARAMS,
        era::code::INVALID_REQUEST,
        era::code::INTERNAL_ERROR,
        -32000,
        era::code::RESOURCE_NOT_FOUND,
    ];
    if answer.kind() != Kind::Error {
        return false;
    }
    let CallError::Server { code, message } = server_error(answer) else { return false };
    let said = message.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| said.contains(word));
    // That it is absent, not that it ended: what ended may have carried out what it was asked for.
    let is_absent =
        says(&["not found", "unknown", "invalid", "missing", "no valid", "no session", "not exist", "no such"])
            || says(&["required", "expired", "bad session"]);
    let is_before = says(&["not initialized", "not initialised", "uninitialized", "before initialization"])
        || says(&["initialize first", "before initialisation", "not been initialized"]);
    CODES.contains(&code) && (said.contains("session") && is_absent || is_before)
}

/// The one message in a response, whichever way it is sent.
async fn read_answer(response: Response<Incoming>) -> Result<Message, CallError> {
    if is_event_stream(&response) {
        let mut events = Sse::new(response.into_body(), MAX_OWN_BYTES, own_room());
        while let Some(event) = events.next().await? {
            let Ok(message) = Message::parse(event.data) else { continue };
            if matches!(message.kind(), Kind::Result | Kind::Error) {
                return Ok(message);
            }
        }
        return Err(CallError::Ended);
    }
    let status = response.status();
    let body = read_body(response, MAX_OWN_BYTES, own_room()).await?;
    Message::parse(body).map_err(|_| match status.is_success() {
        true => CallError::Unexpected("it is no JSON-RPC message"),
        false => CallError::Status(status.as_u16()),
    })
}

/// Of what is asked for ourselves there is one answer at a time, and a short one.
fn own_room() -> Growing {
    Room::default().growing(Caller::Gateway)
}

async fn read_body(response: Response<Incoming>, max_bytes: usize, mut room: Growing) -> Result<Bytes, CallError> {
    let mut body = response.into_body();
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            tracing::debug!(error = &error as &dyn std::error::Error, "a remote server's answer broke off");
            CallError::Ended
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + data.len() > max_bytes {
            return Err(CallError::TooLong { limit_bytes: max_bytes });
        }
        if whole.is_empty() && body.is_end_stream() {
            return Ok(data);
        }
        whole.extend_from_slice(&data);
        room.cover(whole.len())?;
    }
    Ok(whole.freeze())
}

fn is_event_stream<B>(response: &Response<B>) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/event-stream"))
}

/// What a call's messages carry on the caller's side.
#[derive(Clone)]
struct Restore {
    id: String,
    token: Option<String>,
    upstream_id: String,
    caller: Caller,
    /// Asked for ourselves.
    own: bool,
    reason: CancelReason,
}

/// What comes back for one message: notifications of the call, its response, then the end.
pub struct Stream {
    shared: Arc<Shared>,
    established: Option<Arc<Established>>,
    restore: Option<Restore>,
    /// What was asked, while nothing has come of it and it may be sent once more.
    request: Option<Message>,
    source: Source,
    resumptions: u32,
    /// Asked for ourselves.
    own: bool,
}

enum Source {
    Done,
    One(Bytes),
    Events(Box<Sse>),
    /// The request was refused on its stream.
    Refused(BoxFuture<'static, Result<Taken, CallError>>),
}

impl Stream {
    fn empty(shared: Arc<Shared>) -> Self {
        let (established, restore, request) = (None, None, None);
        Self { shared, established, restore, request, source: Source::Done, resumptions: 0, own: false }
    }

    /// The next message; `None` after the response. An error ends the stream.
    pub async fn next(&mut self) -> Option<Result<Bytes, CallError>> {
        loop {
            match std::mem::replace(&mut self.source, Source::Done) {
                Source::Done => return None,
                Source::One(body) => return Some(self.finish(body)),
                Source::Refused(taking) => {
                    self.source = Source::Refused(taking);
                    if let Err(error) = self.take_refused().await {
                        self.end();
                        return Some(Err(error));
                    }
                }
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
        let (message, restore) = (message?, restore.ok_or(CallError::Ended)?);
        match message.kind() {
            Kind::Result if !is_answer_to(&message, &restore) => Err(CallError::Unexpected("it answers another call")),
            // Errors of servers that do not get as far as the call have ids of their own.
            Kind::Result | Kind::Error => Ok(with_caller_id(&message, &restore.id)),
            Kind::Request | Kind::Notification => Err(CallError::Unexpected("it is no response")),
        }
    }

    async fn take_refused(&mut self) -> Result<(), CallError> {
        let Source::Refused(taking) = &mut self.source else { return Ok(()) };
        let Taken { source, established, .. } = taking.await?;
        (self.source, self.established) = (source, Some(established));
        Ok(())
    }

    /// One message of the event stream; `None` to look again.
    async fn next_event(&mut self) -> Result<Option<Bytes>, CallError> {
        let Source::Events(events) = &mut self.source else { return Ok(None) };
        let event = match events.next().await {
            Ok(Some(event)) => event,
            Ok(None) | Err(CallError::Ended) => {
                self.resume().await?;
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let Ok(message) = Message::parse(event.data) else { return Ok(None) };
        let Some(restore) = &self.restore else { return Err(CallError::Ended) };
        if let (Some(request), Some(established)) = (self.request.take(), &self.established)
            && message.bytes().len() <= MAX_REFUSAL_BYTES
            && is_answer_to(&message, restore)
            && names_lost_session(&message)
        {
            let refused = Refused { status: StatusCode::OK, body: message.into_bytes(), names_session: true };
            let (shared, established, restore) = (self.shared.clone(), established.clone(), restore.clone());
            self.source = Source::Refused(Box::pin(async move {
                shared.take_refused(&request, Some(&restore), established, refused).await
            }));
            return Ok(None);
        }
        match message.kind() {
            Kind::Notification => Ok(restore_notification(&message, restore)),
            // Behind what is asked for ourselves there is nobody to ask, and a ping is for whoever hears it.
            Kind::Request if self.own || message.method() == "ping" => {
                if let Some(established) = &self.established {
                    let (shared, established) = (Arc::downgrade(&self.shared), Arc::downgrade(established));
                    tokio::spawn(async move { answer_unowned(&shared, &established, &message).await });
                }
                Ok(None)
            }
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
            return Err(CallError::Ended);
        };
        let Some(last) = events.last_id().map(str::to_owned) else { return Err(CallError::Ended) };
        if established.handshake.era == Era::Modern || self.resumptions >= MAX_RESUMPTIONS {
            return Err(CallError::Ended);
        }
        self.resumptions += 1;
        // It was taken, by a process that may be another than the one that goes on with the stream.
        self.request = None;
        tokio::time::sleep(events.retry().min(MAX_RETRY)).await;
        let response = self.shared.get(established, Some(&last)).await?;
        if !is_event_stream(&response) {
            return Err(CallError::Ended);
        }
        events.resume(response.into_body());
        Ok(())
    }

    fn end(&mut self) {
        self.source = Source::Done;
        self.restore = None;
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // After `end` there is nothing to cancel.
        let (Some(restore), Some(established)) = (self.restore.take(), self.established.take()) else { return };
        drop(GivenUp { call: Some((self.shared.clone(), established)), restore: &restore });
    }
}

/// Tells the server that a call was given up, when dropped with it. A server that answers with JSON is told of nothing by
/// a connection that ends before.
struct GivenUp<'a> {
    call: Option<(Arc<Shared>, Arc<Established>)>,
    restore: &'a Restore,
}

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        let Some((shared, established)) = self.call.take() else { return };
        // A modern server is told by the end of the connection or the stream.
        if self.restore.own || established.handshake.era == Era::Modern {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let Restore { upstream_id, reason, .. } = self.restore;
        let cancelled = envelope::cancelled(upstream_id, reason.said().unwrap_or(CancelReason::CALLER_LEFT));
        runtime.spawn(async move {
            let Ok(message) = Message::parse(cancelled) else { return };
            let _ = tokio::time::timeout(CANCEL_TIMEOUT, shared.post(&message, &established)).await;
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

/// Boxed, because listening may open another conversation, which is listened to in turn.
fn listening(
    shared: Weak<Shared>,
    established: Weak<Established>,
    replaced: CancellationToken,
) -> BoxFuture<'static, ()> {
    Box::pin(listen(shared, established, replaced))
}

/// Keeps listening for what the server says of its own accord, until the conversation is replaced or nobody uses it.
async fn listen(shared: Weak<Shared>, established: Weak<Established>, replaced: CancellationToken) {
    let mut pause = LISTEN_PAUSES.0;
    let mut was_heard = false;
    loop {
        let heard = tokio::select! {
            () = replaced.cancelled() => return,
            heard = hear(&shared, &established) => heard,
        };
        match heard {
            Heard::Something => {
                pause = LISTEN_PAUSES.0;
                was_heard = true;
            }
            Heard::Nothing => {
                pause = (pause * 2).min(LISTEN_PAUSES.1);
                was_heard = true;
            }
            Heard::Unreachable => pause = (pause * 2).min(LISTEN_PAUSES.1),
            // It has forgotten a session that it has sent events for.
            Heard::Refused if was_heard => {
                let (Some(shared), Some(stale)) = (shared.upgrade(), established.upgrade()) else { return };
                shared.forget(&stale);
                drop(stale);
                // What listens on the new one is another task; should it fail the next call tries again.
                let _ = shared.established(HANDSHAKE_TIMEOUT).await;
                return;
            }
            Heard::Refused | Heard::NotOffered => return,
        }
        tokio::select! {
            () = replaced.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// What listening once came to.
enum Heard {
    /// Events, until the stream ended.
    Something,
    /// A stream that ended without an event.
    Nothing,
    Unreachable,
    Refused,
    /// The server offers no such stream, or the upstream is gone.
    NotOffered,
}

async fn hear(shared: &Weak<Shared>, established: &Weak<Established>) -> Heard {
    let (response, unsolicited) = {
        let (Some(shared), Some(established)) = (shared.upgrade(), established.upgrade()) else {
            return Heard::NotOffered;
        };
        let asked = match established.handshake.era {
            Era::Legacy => shared.get(&established, None).await,
            Era::Modern => match probe::listen_params(&established.handshake) {
                Some(params) => shared.post(&shared.own_request("subscriptions/listen", &params), &established).await,
                None => return Heard::NotOffered,
            },
        };
        let Ok(response) = asked else { return Heard::Unreachable };
        (response, shared.unsolicited.clone())
    };
    if !response.status().is_success() || !is_event_stream(&response) {
        let is_refused = may_be_session(response.status()) && response.status() != StatusCode::METHOD_NOT_ALLOWED;
        return if is_refused { Heard::Refused } else { Heard::NotOffered };
    }
    let mut events = Sse::of_short_ones(response.into_body(), MAX_UNSOLICITED_BYTES, own_room());
    let mut heard = Heard::Nothing;
    while let Ok(Some(event)) = events.next().await {
        heard = Heard::Something;
        let Ok(message) = Message::parse(event.data.clone()) else { continue };
        match message.kind() {
            Kind::Notification if event.data.len() <= MAX_UNSOLICITED_BYTES => {
                let _ = unsolicited.send(event.data);
            }
            Kind::Notification => {}
            Kind::Request => answer_unowned(shared, established, &message).await,
            Kind::Result | Kind::Error => {}
        }
    }
    heard
}

/// A question outside of every call is nobody's: the server is told so, and does not wait.
async fn answer_unowned(shared: &Weak<Shared>, established: &Weak<Established>, question: &Message) {
    let (Some(shared), Some(established)) = (shared.upgrade(), established.upgrade()) else { return };
    let Some(id) = question.raw_id() else { return };
    let answer = match question.method() {
        "ping" => envelope::result(id, "{}"),
        _ => {
            let why = "this question belongs to no call, so there is nobody to ask";
            envelope::error(Some(id), era::code::METHOD_NOT_FOUND, why, None)
        }
    };
    let Ok(answer) = Message::parse(answer) else { return };
    let _ = tokio::time::timeout(CANCEL_TIMEOUT, shared.post(&answer, &established)).await;
}

#[cfg(test)]
mod tests;
