//! The servers behind the gateway, and how a message gets to one.
//!
//! A [`Peer`] is one instance on a toolbox or one remote server. Its MCP connection belongs to the toolbox's
//! agent, or for a remote to [`toolyard_mcp::http::Upstream`]; the peer keeps what the gateway learned of it:
//! its handshake and its lists. A peer ends when the snapshot no longer names it and nobody uses it.

use crate::breaker::{self, Breaker};
use crate::catalog::{List, ListKind, Slots};
use crate::route::{Caller, CopyKey, Count, FORGOTTEN_AFTER, Lost, Sender, Undelivered};
use bytes::Bytes;
use dashmap::DashMap;
use futures_util::future::BoxFuture;
use http::{HeaderName, HeaderValue, Request, Uri, header};
use http_body_util::BodyExt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use toolyard_link::trace::Trace;
use toolyard_link::{Body, Channel, LinkError, frames, stack};
use toolyard_mcp::era::{self, Era, Handshake};
use toolyard_mcp::json;
use toolyard_mcp::{CallError, CancelReason, Growing, HandshakeError, Held, Kind, Message, Room, envelope, stdio};
use toolyard_types::snapshot::{InstanceRoute, RemoteLease, ServerRoute, Snapshot, Target};
use toolyard_types::spec::RemoteTransport;
use toolyard_types::state::Phase;
use toolyard_types::{
    Clock, Code, InstanceId, OrganizationId, Problem, RevisionId, RolloutId, ServerId, Timestamp, ToolboxId,
};
use tower::ServiceExt;

/// How the gateway reaches a toolbox now; `None` while there is no link.
pub type Toolboxes = Arc<dyn Fn(ToolboxId) -> Option<Channel> + Send + Sync>;
/// How the gateway gets a remote server's address and headers.
pub type Lease = Arc<dyn Fn(ServerId) -> BoxFuture<'static, Result<RemoteLease, LeaseError>> + Send + Sync>;

/// A remote server's lease cannot be had; the text is for the caller, without secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LeaseError(pub String);

/// The deadline of a call on the DTMA API, in milliseconds from when the request arrives.
pub const DEADLINE_HEADER: HeaderName = toolyard_link::stack::DEADLINE;

/// How long a question of the gateway's own to a server may take.
const OWN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an agent has to hear that a copy is not needed any more; it would end it by itself later.
const END_COPY_TIMEOUT: Duration = Duration::from_secs(2);
pub(crate) const RESOURCE_UPDATED: &str = "notifications/resources/updated";
/// What is open when a call reached its server and its answer did not come back.
const MAY_BE_DONE: &str = "what it was asked for may have been done";
/// The part of its time after which a question that is given up counts as unanswered.
const NEARLY: f64 = 0.9;
/// The longest problem read from a toolbox.
const MAX_PROBLEM_BYTES: usize = 64 << 10;
/// The pauses between attempts to follow a server's changes.
const WATCH_PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Why a server gave no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) detail: String,
    /// Why the message certainly did not reach the server, when that is certain.
    pub(crate) undelivered: Option<Undelivered>,
    /// The toolbox did not answer, or the link to it broke.
    pub(crate) broke: bool,
}

impl Failure {
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), undelivered: None, broke: false }
    }

    fn undelivered(mut self, why: Undelivered) -> Self {
        self.undelivered = Some(why);
        self
    }

    pub(crate) fn timeout(after: Duration) -> Self {
        Self::new(Code::UpstreamTimeout, format!("the server did not answer within {} ms", after.as_millis()))
    }

    /// A call was not answered in its time.
    pub(crate) fn overdue(after: Duration) -> Self {
        let timeout = Self::timeout(after);
        Self { detail: format!("{}; {MAY_BE_DONE}", timeout.detail), ..timeout }
    }

    /// A call came to an end without its answer.
    pub(crate) fn unanswered() -> Self {
        let broke_off = Self::broke_off();
        Self { detail: format!("{}; {MAY_BE_DONE}", broke_off.detail), ..broke_off }
    }

    fn broke_off() -> Self {
        Self::new(Code::UpstreamFailed, "the server ended the call without an answer")
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let code = match error {
            CallError::Timeout(_) => Code::UpstreamTimeout,
            CallError::NoRoom => Code::AnswerDropped,
            _ => Code::UpstreamFailed,
        };
        Self::new(code, error.to_string())
    }
}

/// Which server a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum PeerKey {
    Instance(InstanceId),
    /// One revision of a remote: another may be another address, and so another server. And one rollout of it: who restarts
    /// a remote wants it spoken to anew.
    Remote(ServerId, Option<RevisionId>, Option<RolloutId>),
}

/// One server behind the gateway.
pub(crate) struct Peer {
    pub(crate) slots: Slots,
    link: Link,
    /// For what it sends, on its organization's account.
    room: Room,
    /// Of an instance, which has one for its life.
    handshake: tokio::sync::OnceCell<Arc<Handshake>>,
    changes: broadcast::Sender<Bytes>,
    watched: AtomicBool,
    /// Calls under way, subscriptions aside.
    pub(crate) in_flight: AtomicUsize,
    /// Rises whenever a list anywhere changes; shared by all peers.
    epoch: Arc<AtomicU64>,
    end: CancellationToken,
    _end: DropGuard,
}

enum Link {
    Instance {
        toolbox: ToolboxId,
        era: Era,
        messages: Uri,
        copy: Uri,
        events: Uri,
        handshake: Uri,
        toolboxes: Toolboxes,
    },
    Remote(RemoteLink),
}

struct RemoteLink {
    server: ServerId,
    lease: Lease,
    client: toolyard_mcp::http::Client,
    room: Room,
    clock: Clock,
    current: RwLock<Option<Leased>>,
    renewing: tokio::sync::Mutex<()>,
    breaker: Breaker,
}

#[derive(Clone)]
struct Leased {
    lease: RemoteLease,
    upstream: toolyard_mcp::http::Upstream,
}

impl Peer {
    fn new(link: Link, room: Room, epoch: Arc<AtomicU64>) -> Arc<Self> {
        let end = CancellationToken::new();
        Arc::new(Self {
            slots: Slots::default(),
            link,
            room,
            handshake: tokio::sync::OnceCell::new(),
            changes: broadcast::Sender::new(64),
            watched: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            epoch,
            _end: end.clone().drop_guard(),
            end,
        })
    }

    /// The toolbox that an instance is on.
    pub(crate) fn toolbox(&self) -> Option<ToolboxId> {
        match &self.link {
            Link::Instance { toolbox, .. } => Some(*toolbox),
            Link::Remote(_) => None,
        }
    }

    /// Which era the server speaks.
    pub(crate) async fn era(&self) -> Result<Era, Failure> {
        match &self.link {
            Link::Instance { era, .. } => Ok(*era),
            Link::Remote(_) => Ok(self.handshake().await?.era),
        }
    }

    /// What the server said of itself; a remote that has been spoken to anew may say another thing than before.
    pub(crate) async fn handshake(&self) -> Result<Arc<Handshake>, Failure> {
        match &self.link {
            Link::Instance { toolbox, handshake, toolboxes, .. } => {
                let ask = || self.ask_handshake(*toolbox, handshake, toolboxes);
                self.handshake.get_or_try_init(ask).await.cloned()
            }
            Link::Remote(remote) => remote.handshake().await,
        }
    }

    /// What the server said of itself last, if it has.
    pub(crate) fn known_handshake(&self) -> Option<Arc<Handshake>> {
        match &self.link {
            Link::Instance { .. } => self.handshake.get().cloned(),
            Link::Remote(remote) => {
                let current = remote.current.read().unwrap_or_else(PoisonError::into_inner);
                current.as_ref()?.upstream.known_handshake()
            }
        }
    }

    async fn ask_handshake(
        &self,
        toolbox: ToolboxId,
        handshake: &Uri,
        toolboxes: &Toolboxes,
    ) -> Result<Arc<Handshake>, Failure> {
        let request = Request::get(handshake.clone()).body(Body::empty()).expect("a stored URI is valid");
        let response = within(OWN_TIMEOUT, self.exchange(toolbox, toolboxes, request)).await?;
        let body = within(OWN_TIMEOUT, read_bounded(response.into_body(), 4 << 20)).await?;
        let handshake = serde_json::from_slice(&body)
            .map_err(|_| Failure::new(Code::UpstreamFailed, "the toolbox's answer cannot be read"))?;
        Ok(Arc::new(handshake))
    }

    /// Ends the session that a remote server has for us.
    async fn close(&self) {
        if let Link::Remote(remote) = &self.link {
            let current = remote.current.read().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(leased) = current {
                leased.upstream.close().await;
            }
        }
    }

    /// Sends one raw message; what comes back ends with the response, when it was a request.
    pub(crate) async fn send(
        &self,
        message: Bytes,
        deadline: Duration,
        sender: Sender<'_>,
    ) -> Result<Replies, Failure> {
        match &self.link {
            Link::Instance { toolbox, messages, toolboxes, .. } => {
                let mut request = Request::new(Body::from(message));
                *request.method_mut() = http::Method::POST;
                *request.uri_mut() = messages.clone();
                let headers = request.headers_mut();
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
                let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
                headers.insert(DEADLINE_HEADER, HeaderValue::from(deadline_ms));
                if let Some(copy) = sender.copy {
                    headers.insert(stack::INSTANCE_KEY, copy.header());
                }
                headers.insert(stack::PRINCIPAL, sender.header());
                if let Some(share) = sender.share_header() {
                    headers.insert(stack::SHARE, share);
                }
                if let Some(call) = sender.call {
                    headers.insert(stack::CALL, call.header());
                }
                let response = self.exchange(*toolbox, toolboxes, request).await?;
                Ok(self.frames(response, sender.share()))
            }
            Link::Remote(remote) => {
                let own_until = sender.principal.is_none().then(|| Instant::now() + deadline.mul_f64(NEARLY));
                let reason = sender.call.map(|call| call.reason.clone()).unwrap_or_default();
                Ok(Replies::Remote(Box::new(remote.send(message, (sender.share(), reason), own_until).await?)))
            }
        }
    }

    /// Says that nobody needs a copy any more. An agent of an earlier version refuses that, and ends it when nobody has
    /// called it for a while.
    pub(crate) async fn end_copy(&self, key: &CopyKey) -> Result<(), Failure> {
        let Link::Instance { toolbox, copy, toolboxes, .. } = &self.link else { return Ok(()) };
        let mut request = Request::new(Body::empty());
        *request.method_mut() = http::Method::DELETE;
        *request.uri_mut() = copy.clone();
        request.headers_mut().insert(stack::INSTANCE_KEY, key.header());
        within(END_COPY_TIMEOUT, self.exchange(*toolbox, toolboxes, request)).await.map(drop)
    }

    /// A question of the gateway's own; gives the raw result.
    pub(crate) async fn request(&self, method: &str, params: Option<String>) -> Result<Bytes, Asked> {
        let era = self.era().await?;
        let params = match (era, params) {
            (Era::Legacy, params) => params,
            (Era::Modern, params) => Some(with_own_meta(params.as_deref().unwrap_or("{}"))),
        };
        let request = envelope::request("\"toolyard\"", method, params.as_deref());
        let exchange = async {
            let mut replies = self.send(request, OWN_TIMEOUT, Sender::default()).await?;
            while let Some(reply) = replies.next().await {
                let message = Message::parse(reply?).map_err(|_| Failure::broke_off())?;
                match message.kind() {
                    Kind::Result => return Ok(message.payload().unwrap_or_default()),
                    Kind::Error => return Err(Asked::Refused(message.payload().unwrap_or_default())),
                    // There is nobody to ask, and the server waits for an answer.
                    Kind::Request => {
                        let why = "this question belongs to no call of a client, so there is nobody to ask";
                        let answer = envelope::error(message.raw_id(), era::code::METHOD_NOT_FOUND, why, None);
                        drop(self.send(answer, OWN_TIMEOUT, Sender::default()).await);
                    }
                    Kind::Notification => {}
                }
            }
            Err(Failure::broke_off().into())
        };
        match tokio::time::timeout(OWN_TIMEOUT, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::timeout(OWN_TIMEOUT).into()),
        }
    }

    /// Changes the server announces of its own accord, from now on.
    pub(crate) fn changes(self: &Arc<Self>) -> broadcast::Receiver<Bytes> {
        self.watch();
        self.changes.subscribe()
    }

    /// Tells those who listen that a list has changed which they were given an older one of.
    pub(crate) fn announce(&self, kind: ListKind) {
        let _ = self.changes.send(envelope::notification(kind.changed(), None));
    }

    /// Says that a list, here or behind another peer, is not what it was.
    pub(crate) fn bump_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Follows the server's changes, so that its lists are dropped when they change. Started once.
    pub(crate) fn watch(self: &Arc<Self>) {
        if !self.watched.swap(true, Ordering::AcqRel) {
            tokio::spawn(watch(Arc::downgrade(self), self.end.clone()));
        }
    }

    fn take_change(&self, message: Bytes) {
        let Ok(parsed) = Message::parse(message.clone()) else { return };
        let changed = ListKind::changed_by(parsed.method());
        for kind in changed {
            self.slots.invalidate(*kind);
            self.bump_epoch();
        }
        // Everybody who shares the server hears it, so a server that was made to say more says it to nobody.
        let message = match parsed.payload_string("uri") {
            _ if !changed.is_empty() => envelope::notification(parsed.method(), None),
            Ok(Some(uri)) if parsed.method() == RESOURCE_UPDATED => {
                envelope::notification(RESOURCE_UPDATED, Some(&format!(r#"{{"uri":{}}}"#, json::quote(&uri))))
            }
            _ => return,
        };
        // Nobody listening is fine.
        let _ = self.changes.send(message);
    }

    async fn events(&self) -> Option<Events> {
        match &self.link {
            Link::Instance { toolbox, events, toolboxes, .. } => {
                let request = Request::get(events.clone()).body(Body::empty()).ok()?;
                let response = self.exchange(*toolbox, toolboxes, request).await.ok()?;
                Some(Events::Frames(self.frames(response, stdio::Caller::Gateway)))
            }
            Link::Remote(remote) => Some(Events::Remote(remote.upstream().await.ok()?.unsolicited())),
        }
    }

    fn frames(&self, response: http::Response<Body>, caller: stdio::Caller) -> Replies {
        let room = self.room.growing(caller);
        Replies::Frames { body: response.into_body(), decoder: frames::Decoder::default(), room }
    }

    /// Room for what is kept of it.
    pub(crate) fn hold(&self, bytes: usize) -> Result<Option<Held>, Failure> {
        let full = "the lists of this organization's servers find no more room in memory (setting `request_memory_mb`)";
        self.room.hold(stdio::Caller::Gateway, bytes).map_err(|_| Failure::new(Code::NoCapacity, full))
    }

    async fn exchange(
        &self,
        toolbox: ToolboxId,
        toolboxes: &Toolboxes,
        request: Request<Body>,
    ) -> Result<http::Response<Body>, Failure> {
        let unreachable = || Failure::new(Code::UpstreamFailed, "the server's toolbox cannot be reached");
        let channel = toolboxes(toolbox).ok_or_else(|| unreachable().undelivered(Undelivered::NoLink))?;
        let response = channel.oneshot(request).await.map_err(|error| {
            if matches!(error, LinkError::Unreachable { .. } | LinkError::Timeout(_)) {
                tracing::info!(
                    request.id = Trace::current().request_id(), toolbox.id = %toolbox,
                    error = &error as &dyn std::error::Error, "a toolbox cannot be reached"
                );
            }
            match error {
                LinkError::Broken(_) => unreachable().undelivered(Undelivered::Broken),
                LinkError::NoLink(_) => unreachable().undelivered(Undelivered::NoLink),
                LinkError::Unreachable { .. } | LinkError::Timeout(_) => Failure { broke: true, ..unreachable() },
            }
        })?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let undelivered = response.headers().get(stack::UNDELIVERED).map(|why| match why.as_bytes() {
            why if why == stack::STOPPING.as_bytes() => Undelivered::Stopping,
            _ => Undelivered::NotReady,
        });
        let body = read_bounded(response.into_body(), MAX_PROBLEM_BYTES).await.unwrap_or_default();
        let failure = match serde_json::from_slice::<Problem>(&body) {
            // What is not there is an instance, of which a client knows nothing.
            Ok(problem) if problem.code == Code::NotFound => Failure::new(Code::UpstreamFailed, problem.detail),
            Ok(problem) => Failure::new(problem.code, problem.detail),
            Err(_) => Failure::new(Code::UpstreamFailed, format!("the toolbox answered status {}", status.as_u16())),
        };
        Err(Failure { undelivered, ..failure })
    }
}

/// Why a question of the gateway's own has no result.
pub(crate) enum Asked {
    /// There is no answer.
    Failed(Failure),
    /// The server answered with this raw JSON-RPC error.
    Refused(Bytes),
}

impl From<Failure> for Asked {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

enum Events {
    Frames(Replies),
    Remote(broadcast::Receiver<Bytes>),
}

impl Events {
    async fn next(&mut self) -> Option<Bytes> {
        match self {
            Events::Frames(replies) => replies.next().await?.ok(),
            // What was missed may have been a change of any list; an end here drops them all.
            Events::Remote(receiver) => receiver.recv().await.ok(),
        }
    }
}

async fn watch(peer: std::sync::Weak<Peer>, end: CancellationToken) {
    let mut pause = WATCH_PAUSES.0;
    loop {
        let follow = async {
            let mut events = peer.upgrade()?.events().await?;
            while let Some(message) = events.next().await {
                peer.upgrade()?.take_change(message);
            }
            Some(())
        };
        let followed = tokio::select! {
            () = end.cancelled() => return,
            followed = follow => followed.is_some(),
        };
        pause = if followed { WATCH_PAUSES.0 } else { (pause * 2).min(WATCH_PAUSES.1) };
        let Some(peer) = peer.upgrade() else { return };
        if followed {
            // Changes may have been missed in between.
            peer.slots.invalidate_all();
            peer.bump_epoch();
        }
        drop(peer);
        tokio::select! {
            () = end.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

impl RemoteLink {
    async fn handshake(&self) -> Result<Arc<Handshake>, Failure> {
        let upstream = self.upstream().await?;
        if let Some(handshake) = upstream.known_handshake() {
            return Ok(handshake);
        }
        let attempt = self.attempt(Some(Instant::now() + OWN_TIMEOUT.mul_f64(NEARLY)))?;
        let outcome = upstream.handshake(OWN_TIMEOUT).await;
        let is_silent = |error: &HandshakeError| match error {
            HandshakeError::Unreachable(_) | HandshakeError::Closed | HandshakeError::Timeout(_) => true,
            HandshakeError::Status(status) => is_gateways(*status),
            HandshakeError::NotMcp { .. }
            | HandshakeError::Refused { .. }
            | HandshakeError::Unusable(_)
            | HandshakeError::NoRoom => false,
        };
        attempt.settle(!outcome.as_ref().is_err_and(is_silent));
        outcome.map_err(|error| Failure::new(Code::UpstreamFailed, error.to_string()))
    }

    /// Callers share a remote, and a tool that hangs, or drops its connection, or lets a proxy answer for it, is one
    /// caller's: of their calls only those count as unanswered that found no server. `own_until` is until when a question
    /// of the gateway's own waits.
    async fn send(
        &self,
        message: Bytes,
        (caller, reason): (stdio::Caller, CancelReason),
        own_until: Option<Instant>,
    ) -> Result<toolyard_mcp::http::Stream, Failure> {
        let upstream = self.upstream().await?;
        let attempt = self.attempt(own_until)?;
        let outcome = upstream.send_cancellable(caller, message, reason).await;
        // A call times out here only in the handshake before it.
        let is_silent = |error: &CallError| matches!(error, CallError::Unreachable(_) | CallError::Timeout(_));
        attempt.settle(!outcome.as_ref().is_err_and(is_silent));
        Ok(outcome?)
    }

    fn attempt(&self, until: Option<Instant>) -> Result<Attempt<'_>, Failure> {
        let refused = |wait: Duration| {
            let detail = format!(
                "the remote server gave no answer {} times in a row; calls fail at once until it does, the next one goes \
                 there in {} ms",
                breaker::THRESHOLD,
                wait.as_millis()
            );
            Failure::new(Code::UpstreamFailed, detail)
        };
        self.breaker.admit().map_err(refused)?;
        Ok(Attempt { remote: self, until, is_settled: false })
    }

    async fn upstream(&self) -> Result<toolyard_mcp::http::Upstream, Failure> {
        if let Some(leased) = self.current() {
            return Ok(leased.upstream);
        }
        let _renewing = self.renewing.lock().await;
        if let Some(leased) = self.current() {
            return Ok(leased.upstream);
        }
        let lease = within(OWN_TIMEOUT, async {
            (self.lease)(self.server).await.map_err(|error| Failure::new(Code::UpstreamFailed, error.to_string()))
        })
        .await?;
        let last = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        let upstream = match last {
            Some(last) if last.lease.url == lease.url && last.lease.headers == lease.headers => last.upstream,
            _ => self.open(&lease)?,
        };
        let leased = Leased { lease, upstream: upstream.clone() };
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(leased);
        Ok(upstream)
    }

    fn current(&self) -> Option<Leased> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.as_ref().filter(|leased| leased.lease.until > self.clock.now()).cloned()
    }

    /// The next call asks for another one; the connection stays when nothing changed.
    fn end_lease(&self) {
        if let Some(leased) = &mut *self.current.write().unwrap_or_else(PoisonError::into_inner) {
            leased.lease.until = Timestamp::from_ms(0);
        }
    }

    fn open(&self, lease: &RemoteLease) -> Result<toolyard_mcp::http::Upstream, Failure> {
        let invalid = |what| Failure::new(Code::UpstreamFailed, format!("the remote server's {what} is not valid"));
        let url: Uri = lease.url.expose().parse().map_err(|_| invalid("URL"))?;
        let mut headers = http::HeaderMap::new();
        for (name, value) in &lease.headers {
            let name: HeaderName = name.parse().map_err(|_| invalid("header name"))?;
            let mut value = HeaderValue::from_str(value.expose()).map_err(|_| invalid("header value"))?;
            value.set_sensitive(true);
            headers.append(name, value);
        }
        Ok(toolyard_mcp::http::Upstream::with_room(self.client.clone(), url, headers, self.room.clone()))
    }
}

/// What comes back for one message.
pub(crate) enum Replies {
    Frames { body: Body, decoder: frames::Decoder, room: Growing },
    Remote(Box<toolyard_mcp::http::Stream>),
}

impl Replies {
    /// The next message; `None` at the end. May be given up and asked again.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, Failure>> {
        match self {
            Replies::Frames { body, decoder, room } => loop {
                match decoder.next_frame() {
                    Ok(Some(message)) => return Some(Ok(message)),
                    Ok(None) => {
                        if let Err(error) = room.cover(decoder.waiting()) {
                            return Some(Err(error.into()));
                        }
                    }
                    Err(error) => return Some(Err(Failure::new(Code::UpstreamFailed, error.to_string()))),
                }
                match body.frame().await? {
                    Ok(frame) => {
                        if let Ok(chunk) = frame.into_data() {
                            decoder.push(chunk);
                        }
                    }
                    Err(_) => return Some(Err(Failure::unanswered())),
                }
            },
            Replies::Remote(stream) => Some(stream.next().await?.map_err(Failure::from)),
        }
    }
}

/// A call that a breaker let through. Given up it tells nothing, unless it waited until `until`.
struct Attempt<'a> {
    remote: &'a RemoteLink,
    until: Option<Instant>,
    is_settled: bool,
}

impl Attempt<'_> {
    fn settle(mut self, is_answered: bool) {
        self.is_settled = true;
        self.note(is_answered);
    }

    fn note(&self, is_answered: bool) {
        let (breaker, server) = (&self.remote.breaker, self.remote.server);
        if is_answered {
            if breaker.answered() {
                tracing::info!(server.id = %server, "a remote server answers again; calls are let through");
            }
        } else if breaker.failed() {
            metrics::counter!("toolyard_remote_breaker_opened_total").increment(1);
            tracing::warn!(server.id = %server, "a remote server gave no answer several times in a row; calls fail at once for a while");
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.is_settled && self.until.is_some_and(|until| Instant::now() >= until) {
            self.note(false);
        }
    }
}

/// Whether a status is that of a proxy in front of a server that is not there.
fn is_gateways(status: u16) -> bool {
    matches!(status, 502..=504)
}

async fn within<T>(timeout: Duration, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::time::timeout(timeout, work).await.unwrap_or_else(|_| Err(Failure::timeout(timeout)))
}

async fn read_bounded(body: Body, max: usize) -> Result<Bytes, Failure> {
    let body = http_body_util::Limited::new(body, max).collect().await;
    body.map(http_body_util::Collected::to_bytes).map_err(|_| Failure::broke_off())
}

/// `params` of our own, describing themselves to a modern server.
fn with_own_meta(params: &str) -> String {
    let meta = format!(r#""_meta":{{{}}}"#, era::own_meta_members(era::LATEST_MODERN));
    match params.strip_prefix('{').map(str::trim_start) {
        Some("}") | None => format!("{{{meta}}}"),
        Some(rest) => format!("{{{meta},{rest}"),
    }
}

/// What a server last said of itself, whichever of its instances it was.
#[derive(Default)]
pub(crate) struct Memory {
    handshake: RwLock<Option<Arc<Handshake>>>,
    lists: [RwLock<Option<Arc<List>>>; 4],
    /// When a list was first wanted and none was known.
    wanted: [OnceLock<Instant>; 4],
}

impl Memory {
    pub(crate) fn handshake(&self) -> Option<Arc<Handshake>> {
        self.handshake.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn keep_handshake(&self, handshake: &Arc<Handshake>) {
        keep(&self.handshake, handshake);
    }

    pub(crate) fn list(&self, kind: ListKind) -> Option<Arc<List>> {
        self.lists[kind.index()].read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Since when somebody has wanted a list of which there is none.
    pub(crate) fn wanted_since(&self, kind: ListKind) -> Instant {
        *self.wanted[kind.index()].get_or_init(Instant::now)
    }

    pub(crate) fn keep_list(&self, kind: ListKind, list: &Arc<List>) {
        keep(&self.lists[kind.index()], list);
    }
}

fn keep<T>(slot: &RwLock<Option<Arc<T>>>, value: &Arc<T>) {
    let is_same = |kept: &Option<Arc<T>>| kept.as_ref().is_some_and(|kept| Arc::ptr_eq(kept, value));
    if !is_same(&slot.read().unwrap_or_else(PoisonError::into_inner)) {
        *slot.write().unwrap_or_else(PoisonError::into_inner) = Some(value.clone());
    }
}

/// Every peer in use.
pub(crate) struct Peers {
    toolboxes: Toolboxes,
    lease: Lease,
    client: toolyard_mcp::http::Client,
    room: Room,
    clock: Clock,
    peers: Arc<DashMap<PeerKey, Arc<Peer>>>,
    /// What servers last said of themselves, whichever instance it was: for toolsets that do not wait for one.
    memories: Arc<DashMap<ServerId, Arc<Memory>>>,
    epoch: Arc<AtomicU64>,
    pub(crate) turn: AtomicUsize,
    /// Toolboxes whose calls failed at once, and when.
    pub(crate) avoided: DashMap<ToolboxId, Instant>,
    /// Toolboxes that did not answer, how often in a row of such failures, and when last.
    pub(crate) breaks: DashMap<ToolboxId, (u32, Instant)>,
    /// Toolboxes that had no link when a call wanted to go there.
    pub(crate) lost: DashMap<ToolboxId, Lost>,
    /// Calls of servers with a canary.
    pub(crate) counts: DashMap<ServerId, Count>,
    swept: AtomicU64,
    /// What each organization's credentials were counted at last.
    credentials: DashMap<OrganizationId, u64>,
}

impl Peers {
    pub(crate) fn new(
        toolboxes: Toolboxes,
        lease: Lease,
        (client, room): (toolyard_mcp::http::Client, Room),
        clock: Clock,
    ) -> Self {
        metrics::describe_counter!(
            "toolyard_remote_breaker_opened_total",
            "How often calls to a remote server began to fail at once."
        );
        Self {
            toolboxes,
            lease,
            client,
            room,
            clock,
            peers: Arc::default(),
            memories: Arc::default(),
            epoch: Arc::default(),
            turn: AtomicUsize::new(0),
            avoided: DashMap::new(),
            lost: DashMap::new(),
            breaks: DashMap::new(),
            counts: DashMap::new(),
            swept: AtomicU64::new(0),
            credentials: DashMap::new(),
        }
    }

    /// Rises whenever any list changes.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// What the server last said of itself.
    pub(crate) fn memory(&self, server: ServerId) -> Arc<Memory> {
        if let Some(memory) = self.memories.get(&server) {
            return memory.clone();
        }
        self.memories.entry(server).or_default().clone()
    }

    /// Every peer of the server.
    pub(crate) fn all(&self, route: &ServerRoute) -> Vec<Arc<Peer>> {
        match &route.target {
            Target::None | Target::Remote { .. } => self.first(route).into_iter().collect(),
            Target::Instances(instances) => {
                instances.iter().map(|instance| self.instance(route.organization, instance)).collect()
            }
        }
    }

    /// Who can tell what the server is, best first: all its instances, those that can be reached before the others.
    pub(crate) fn tellers(&self, route: &ServerRoute, caller: Option<&Caller>) -> Result<Vec<Arc<Peer>>, Failure> {
        let canary =
            route.canary.as_ref().filter(|canary| caller.is_some_and(|caller| caller.is_listed(&canary.clients)));
        let instances = match (canary, &route.target) {
            (Some(canary), _) if !canary.instances.is_empty() => &canary.instances,
            (_, Target::Instances(instances)) if !instances.is_empty() => instances,
            _ => return Ok(vec![self.first(route)?]),
        };
        let mut instances: Vec<_> = instances.iter().collect();
        if instances.len() > 1 {
            instances.sort_by_key(|instance| !self.can_reach(instance.toolbox));
        }
        Ok(instances.into_iter().map(|instance| self.instance(route.organization, instance)).collect())
    }

    /// The peer whose lists stand for the server.
    pub(crate) fn first(&self, route: &ServerRoute) -> Result<Arc<Peer>, Failure> {
        match &route.target {
            Target::None => Err(not_ready(route)),
            Target::Instances(instances) => {
                let instance = instances.first().ok_or_else(|| not_ready(route))?;
                Ok(self.instance(route.organization, instance))
            }
            Target::Remote { transport: RemoteTransport::StreamableHttp } => Ok(self.remote(route)),
            Target::Remote { transport: RemoteTransport::Sse } => {
                let detail = "the server speaks the HTTP+SSE transport of 2024-11-05, which is not supported";
                Err(Failure::new(Code::UpstreamFailed, detail))
            }
        }
    }

    /// Whether there is a way to a toolbox now.
    pub(crate) fn has_link(&self, toolbox: ToolboxId) -> bool {
        (self.toolboxes)(toolbox).is_some()
    }

    /// The peer of an instance, when it was used before.
    pub(crate) fn known_instance(&self, instance: InstanceId) -> Option<Arc<Peer>> {
        self.peers.get(&PeerKey::Instance(instance)).map(|peer| peer.clone())
    }

    pub(crate) fn instance(&self, organization: OrganizationId, route: &InstanceRoute) -> Arc<Peer> {
        let key = PeerKey::Instance(route.id);
        if let Some(peer) = self.peers.get(&key) {
            return peer.clone();
        }
        let uri = |what: &str| -> Uri {
            format!("/v1/instances/{}/{what}", route.id).parse().expect("an id and a word make a URI")
        };
        let make = || {
            let link = Link::Instance {
                toolbox: route.toolbox,
                era: route.era,
                messages: uri("messages"),
                copy: uri("copy"),
                events: uri("events"),
                handshake: uri("handshake"),
                toolboxes: self.toolboxes.clone(),
            };
            Peer::new(link, self.room.of(organization.as_u128()), self.epoch.clone())
        };
        self.peers.entry(key).or_insert_with(make).clone()
    }

    fn remote(&self, route: &ServerRoute) -> Arc<Peer> {
        let key = remote_key(route);
        if let Some(peer) = self.peers.get(&key) {
            return peer.clone();
        }
        let make = || {
            let room = self.room.of(route.organization.as_u128());
            let link = Link::Remote(RemoteLink {
                server: route.id,
                lease: self.lease.clone(),
                client: self.client.clone(),
                room: room.clone(),
                clock: self.clock.clone(),
                current: RwLock::default(),
                renewing: tokio::sync::Mutex::default(),
                breaker: Breaker::new(),
            });
            Peer::new(link, room, self.epoch.clone())
        };
        self.peers.entry(key).or_insert_with(make).clone()
    }

    /// Ends the sessions that remote servers have for us.
    pub(crate) async fn close(&self) {
        let peers: Vec<_> = self.peers.iter().map(|peer| peer.clone()).collect();
        futures_util::future::join_all(peers.iter().map(|peer| peer.close())).await;
    }

    /// Has remote servers be reached by new leases where a credential of their organization has changed.
    fn renew_leases(&self, snapshot: &Snapshot) {
        for organization in snapshot.organizations.values() {
            let before = self.credentials.insert(organization.id, organization.credentials);
            if before.is_none_or(|before| before == organization.credentials) {
                continue;
            }
            for key in organization.servers.values().flat_map(|route| keys(route)) {
                if let Some(Link::Remote(remote)) = self.peers.get(&key).as_deref().map(|peer| &peer.link) {
                    remote.end_lease();
                }
            }
        }
    }

    /// Forgets peers that a new snapshot no longer names. Done once a version, beside the call that notices it.
    /// True the first time.
    pub(crate) fn follow(&self, snapshot: &Arc<Snapshot>) -> bool {
        if self.swept.swap(snapshot.version, Ordering::AcqRel) == snapshot.version {
            return false;
        }
        self.renew_leases(snapshot);
        if self.peers.is_empty() && self.memories.is_empty() {
            return true;
        }
        self.lost.retain(|_, lost| !lost.is_old());
        self.breaks.retain(|_, (_, last)| last.elapsed() < FORGOTTEN_AFTER);
        if !self.counts.is_empty() {
            let servers = || snapshot.organizations.values().flat_map(|organization| organization.servers.values());
            let with_canary: std::collections::HashSet<_> =
                servers().filter(|route| route.canary.is_some()).map(|route| route.id).collect();
            self.counts.retain(|server, _| with_canary.contains(server));
        }
        let (peers, memories, snapshot) = (self.peers.clone(), self.memories.clone(), snapshot.clone());
        tokio::task::spawn_blocking(move || {
            let routes = || snapshot.organizations.values().flat_map(|organization| organization.servers.values());
            let named: std::collections::HashSet<PeerKey> = routes().flat_map(|route| keys(route)).collect();
            let servers: std::collections::HashSet<ServerId> = routes().map(|route| route.id).collect();
            peers.retain(|key, _| named.contains(key));
            memories.retain(|server, _| servers.contains(server));
        });
        true
    }
}

fn remote_key(route: &ServerRoute) -> PeerKey {
    PeerKey::Remote(route.id, route.revision, route.rollout)
}

fn keys(route: &ServerRoute) -> Vec<PeerKey> {
    let canary = route.canary.iter().flat_map(|canary| &canary.instances);
    match &route.target {
        Target::None => canary.map(|instance| PeerKey::Instance(instance.id)).collect(),
        Target::Remote { .. } => vec![remote_key(route)],
        Target::Instances(instances) => {
            instances.iter().chain(canary).map(|instance| PeerKey::Instance(instance.id)).collect()
        }
    }
}

fn not_ready(route: &ServerRoute) -> Failure {
    let why = if route.message.is_empty() { route.reason.as_str() } else { &route.message };
    let detail = match route.phase {
        // What is ready is not what was asked for.
        Phase::Ready => "the server takes no calls at this moment; call again".to_owned(),
        phase => format!("the server is {phase}: {why}"),
    };
    Failure::new(Code::ServerNotReady, detail)
}
