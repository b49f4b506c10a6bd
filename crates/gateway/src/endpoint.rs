//! The HTTP side: the order of checks, and which conversation a message belongs to.
//!
//! Order: origin and host, snapshot age, key, route, policy, media types, body, envelope; then the era. What
//! fails before the body was read as a message is a problem+json; after that it is a JSON-RPC error.

use crate::access::{self, Decisions, KeyDigest, Subject};
use crate::answer;
use crate::call::{Call, Client, Takes};
use crate::lanes::{Full, Lanes, Place};
use crate::peer::{Failure, Peer, Peers};
use crate::problem::Refusal;
use crate::questions::Questions;
use crate::record::Meters;
use crate::route::Caller;
use crate::session::{SessionId, Sessions};
use crate::toolset::{self, Views};
use crate::{GatewayOptions, Limits, listen};
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bytes::Bytes;
use dashmap::DashMap;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use toolyard_link::trace::{self, Trace};
use toolyard_link::{Charge, Doors, NoRoom, TooSlow};
use toolyard_mcp::era::{self, code, meta};
use toolyard_mcp::{CancelReason, Id, Kind, Message, ParseError};
use toolyard_types::access::Action;
use toolyard_types::snapshot::{
    self, CanaryRoute, KeyGrant, OrganizationSnapshot, ServerRoute, Snapshot, ToolsetRoute,
};
use toolyard_types::spec::InstancingMode;
use toolyard_types::{ApiKeyId, Clock, Code, Name, Timestamp};

const SESSION_ID: &str = "mcp-session-id";
const VERSION: &str = "mcp-protocol-version";
/// The header that carries the request id, in and out.
const REQUEST_ID: &str = "x-request-id";
/// The longest request id taken over from the caller.
const MAX_REQUEST_ID: usize = 64;
/// How many requests with an unknown key or path may wait for a newer snapshot at once; the others are refused at once.
const MAX_UNSETTLED: usize = 256;
/// How many ended subscriptions are remembered.
const MAX_UNSUBSCRIBED: u64 = 100_000;

/// What all requests share.
pub(crate) struct Core {
    snapshot: watch::Receiver<Arc<Snapshot>>,
    max_snapshot_age: Duration,
    max_body_bytes: usize,
    doors: Doors,
    decisions: Decisions,
    note_key: Arc<dyn Fn(ApiKeyId) + Send + Sync>,
    pub(crate) clock: Clock,
    pub(crate) sessions: Sessions,
    pub(crate) peers: Arc<Peers>,
    pub(crate) views: Arc<Views>,
    pub(crate) meters: Arc<Meters>,
    /// Ends streams of changes when the process drains.
    pub(crate) draining: CancellationToken,
    /// Ends calls at the drain's deadline.
    pub(crate) cutting: CancellationToken,
    /// What goes on after its client left or was answered: calls, and words to toolboxes that a call or a session has ended.
    pub(crate) left: TaskTracker,
    /// Calls of legacy clients that may be cancelled by a later message: session, and the raw request id. Who cancels one
    /// says why before.
    pub(crate) cancellable: DashMap<(SessionId, Bytes), (CancellationToken, CancelReason)>,
    pub(crate) questions: Questions,
    /// Resources that a session does not want to hear of any more, by the SHA-256 of their URI.
    pub(crate) unsubscribed: moka::sync::Cache<(SessionId, [u8; 32]), ()>,
    calls: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    pub(crate) lanes: Lanes,
    /// How long a call waits for a server that is about to be ready.
    pub(crate) hold: Duration,
    news_patience: Duration,
    unsettled: Semaphore,
}

impl Core {
    /// Waits for a snapshot that knows what other replicas had committed when a request arrived; false when there is none
    /// in time, or too many wait already.
    async fn has_news(&self, arrived: Timestamp) -> bool {
        if self.news_patience.is_zero() {
            return false;
        }
        let Ok(_place) = self.unsettled.try_acquire() else { return false };
        let mut snapshots = self.snapshot.clone();
        let newer = snapshots.wait_for(|snapshot| snapshot.complete_at() > arrived);
        matches!(tokio::time::timeout(self.news_patience, newer).await, Ok(Ok(_)))
    }

    /// The picture to serve from, as it changes.
    pub(crate) fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.clone()
    }

    pub(crate) fn new(options: GatewayOptions, limits: Limits) -> Arc<Self> {
        let http = (options.http, options.room);
        let peers = Arc::new(Peers::new(options.toolboxes, options.lease, http, options.clock.clone()));
        Arc::new(Self {
            snapshot: options.snapshot,
            max_snapshot_age: options.max_snapshot_age,
            max_body_bytes: options.max_body_bytes,
            doors: Doors::new(options.allowed_hosts, options.allowed_origins),
            decisions: Decisions::new(options.decide),
            note_key: options.note_key,
            sessions: Sessions::new(&options.session_key),
            clock: options.clock,
            views: Views::new(peers.clone()),
            peers,
            meters: Meters::new(options.records),
            draining: CancellationToken::new(),
            cutting: CancellationToken::new(),
            left: TaskTracker::new(),
            cancellable: DashMap::new(),
            questions: Questions::new(),
            unsubscribed: moka::sync::Cache::new(MAX_UNSUBSCRIBED),
            calls: Arc::new(Semaphore::new(limits.calls)),
            streams: Arc::new(Semaphore::new(limits.streams)),
            lanes: Lanes::new(limits),
            hold: options.hold,
            news_patience: options.news_patience,
            unsettled: Semaphore::new(MAX_UNSETTLED),
        })
    }
}

pub(crate) fn router(core: Arc<Core>) -> Router {
    Router::new()
        .route("/mcp/{org}/servers/{server}", any(server_endpoint))
        .route("/mcp/{org}/toolsets/{toolset}", any(toolset_endpoint))
        .with_state(core)
}

async fn server_endpoint(
    State(core): State<Arc<Core>>,
    Path(path): Path<(String, String)>,
    request: Request<Body>,
) -> Response {
    serve(core, false, path, request).await
}

async fn toolset_endpoint(
    State(core): State<Arc<Core>>,
    Path(path): Path<(String, String)>,
    request: Request<Body>,
) -> Response {
    serve(core, true, path, request).await
}

/// What an MCP URL stands for, in one snapshot.
#[derive(Clone)]
pub(crate) enum Target {
    Server { name: Name, route: Arc<ServerRoute> },
    Toolset { name: Name, route: Arc<ToolsetRoute> },
}

impl Target {
    fn subject(&self) -> Subject {
        match self {
            Self::Server { route, .. } => Subject::Server(route.id),
            Self::Toolset { route, .. } => Subject::Toolset(route.id),
        }
    }
}

/// Whether nothing answers for a server now, but something is meant to in a moment.
pub(crate) fn is_starting(route: &ServerRoute) -> bool {
    route.target == snapshot::Target::None && route.is_coming
}

/// One admitted request: who, about what.
#[derive(Clone)]
pub(crate) struct Visit {
    pub(crate) core: Arc<Core>,
    pub(crate) grant: Arc<KeyGrant>,
    pub(crate) organization: Arc<OrganizationSnapshot>,
    pub(crate) target: Target,
    pub(crate) version: u64,
    /// The URL's path: what a session is bound to.
    pub(crate) url: String,
    pub(crate) request_id: String,
    /// What calls to servers carry on.
    pub(crate) trace: Trace,
    pub(crate) began: Instant,
    key: KeyDigest,
    /// Given back with the last clone.
    place: Arc<Places>,
}

/// A place among all calls, or all streams, and among its key's and its organization's.
struct Places {
    _all: OwnedSemaphorePermit,
    _own: [Place; 2],
    /// What the request is charged: a call may go on after its client left.
    charge: Option<Charge>,
}

impl Places {
    fn take(
        core: &Core,
        grant: &KeyGrant,
        is_stream: bool,
        charge: Option<Charge>,
    ) -> Result<Arc<Self>, Cow<'static, str>> {
        let own = if is_stream { core.lanes.of_stream(grant) } else { core.lanes.of_caller(grant) };
        let own = own.map_err(Full::detail)?;
        let all = if is_stream { &core.streams } else { &core.calls };
        let full = |_| match is_stream {
            true => "too many streams are open here; try again in a moment",
            false => "the gateway carries as much as it can; try again in a moment",
        };
        Ok(Arc::new(Self { _all: all.clone().try_acquire_owned().map_err(full)?, _own: own, charge }))
    }
}

impl Visit {
    /// Gives up the place of a call for that of a stream.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn become_stream(&mut self) -> Result<(), Cow<'static, str>> {
        self.place = Places::take(&self.core, &self.grant, true, self.place.charge.clone())?;
        Ok(())
    }

    /// The same visit with another message, which has a place of its own.
    ///
    /// # Errors
    /// When there is none.
    fn beside(&self) -> Result<Self, Cow<'static, str>> {
        let place = Places::take(&self.core, &self.grant, false, self.place.charge.clone())?;
        Ok(Self { place, ..self.clone() })
    }

    /// The answer to one of several messages, charged until all are answered.
    ///
    /// # Errors
    /// When there is no room for it.
    fn hold(&self, answer: Bytes) -> Result<Bytes, NoRoom> {
        let held = self.place.charge.as_ref().map(|charge| charge.hold(answer.len())).transpose()?;
        Ok(match held {
            Some(held) => held.around(answer),
            None => answer,
        })
    }

    /// The server whose start the request waits for.
    fn awaited(&self) -> Option<&Name> {
        let Target::Server { name, route } = &self.target else { return None };
        self.has_to_wait(route).then_some(name)
    }

    /// Whether calls wait until something of a server answers. Who is listed for its canary need not wait for the others.
    fn has_to_wait(&self, route: &ServerRoute) -> bool {
        let goes_to_canary = |canary: &CanaryRoute| self.caller(None).is_listed(&canary.clients);
        is_starting(route) && !route.canary.as_ref().is_some_and(goes_to_canary)
    }

    /// Waits until a stream has to end: when we drain, or its key would not be let in any more.
    pub(crate) async fn ended(&self) {
        let mut snapshot = self.core.snapshot.clone();
        while self.may_stay() {
            tokio::select! {
                () = self.core.draining.cancelled() => return,
                changed = snapshot.changed() => if changed.is_err() { return },
                // A key may expire in between.
                () = tokio::time::sleep(answer::KEEP_ALIVE) => {}
            }
        }
    }

    /// A server's route, once it has somebody to take calls or will not have in a moment; as it is when that takes too
    /// long.
    pub(crate) async fn ready(&self, server: &Name) -> Option<Arc<ServerRoute>> {
        let route = self.route_now(server)?;
        if !self.has_to_wait(&route) {
            return Some(route);
        }
        let find = |snapshot: &Snapshot| {
            let organization = snapshot.organizations.get(&self.organization.name);
            organization.and_then(|it| it.servers.get(server)).cloned()
        };
        let mut snapshots = self.core.snapshots();
        let left = self.core.hold.saturating_sub(self.began.elapsed());
        let settled = snapshots.wait_for(|snapshot| find(snapshot).is_none_or(|route| !self.has_to_wait(&route)));
        match tokio::time::timeout(left, settled).await {
            Ok(Ok(snapshot)) => find(&snapshot),
            Ok(Err(_)) | Err(_) => Some(route),
        }
    }

    /// The route of a server as it is now.
    pub(crate) fn route_now(&self, server: &Name) -> Option<Arc<ServerRoute>> {
        let snapshot = self.core.snapshot.borrow();
        snapshot.organizations.get(&self.organization.name)?.servers.get(server).cloned()
    }

    /// The toolset as it is now.
    pub(crate) fn toolset_now(&self, toolset: &Name) -> Option<(Arc<OrganizationSnapshot>, Arc<ToolsetRoute>, u64)> {
        let snapshot = self.core.snapshot.borrow();
        let organization = snapshot.organizations.get(&self.organization.name)?;
        Some((organization.clone(), organization.toolsets.get(toolset)?.clone(), snapshot.version))
    }

    /// Until when what cannot be done yet is held.
    pub(crate) fn held_until(&self) -> tokio::time::Instant {
        tokio::time::Instant::now() + self.core.hold.saturating_sub(self.began.elapsed())
    }

    /// Asks the server behind the URL what may be asked twice.
    pub(crate) async fn ask<T, A>(
        &self,
        server: &Name,
        caller: Option<&Caller>,
        ask: impl Fn(Arc<Peer>) -> A,
    ) -> Result<T, Failure>
    where
        A: Future<Output = Result<T, Failure>>,
    {
        self.core.peers.ask(|| self.route_now(server), caller, self.held_until(), ask).await
    }

    fn may_stay(&self) -> bool {
        let snapshot = self.core.snapshot.borrow().clone();
        let Ok(grant) = access::grant(&self.key, &snapshot, &self.core.clock) else { return false };
        let (Target::Server { name, .. } | Target::Toolset { name, .. }) = &self.target;
        let is_toolset = matches!(self.target, Target::Toolset { .. });
        let found = find(&self.core, &snapshot, &grant, is_toolset, self.organization.name.as_str(), name.as_str());
        found.is_ok_and(|(_, target)| target.subject() == self.target.subject())
    }

    /// Who calls, in the session if they have one.
    pub(crate) fn caller(&self, session: Option<SessionId>) -> Caller {
        Caller { grant: self.grant.clone(), session }
    }

    pub(crate) fn place<'a>(&'a self, route: &'a Arc<ToolsetRoute>) -> toolset::Place<'a> {
        toolset::Place { organization: &self.organization, route, version: self.version }
    }
}

async fn serve(core: Arc<Core>, is_toolset: bool, path: (String, String), request: Request<Body>) -> Response {
    let request_id = request_id(request.headers());
    let (arrived, began) = (core.clock.now(), Instant::now());
    let whose = || (request_id.clone(), began);
    let mut admitted = admit(core.clone(), is_toolset, &path, &request, whose());
    if admitted.as_ref().is_err_and(|refusal| refusal.may_be_news) && core.has_news(arrived).await {
        admitted = admit(core.clone(), is_toolset, &path, &request, whose());
    }
    // What was ready may be on its way again by the time the request is let in.
    while let Ok(visit) = &admitted
        && let Some(name) = visit.awaited()
    {
        let settled = visit.ready(name).await.is_none_or(|route| !visit.has_to_wait(&route));
        // Its places are given back first: they may be the last ones.
        drop(admitted);
        admitted = admit(core.clone(), is_toolset, &path, &request, whose());
        if !settled {
            break;
        }
    }
    let response = match admitted {
        Err(refusal) => {
            if refusal.code == Code::Unauthenticated {
                access::note_refused_key(&request_id, request.uri().path(), &refusal);
            }
            refusal.into_response(&request_id)
        }
        Ok(visit) => {
            let trace = visit.trace.clone();
            let answer = async {
                match *request.method() {
                    Method::POST => post(visit, request).await,
                    Method::GET => get(visit, request.headers()),
                    Method::DELETE => delete(&visit, request.headers()),
                    _ => Err(method_not_allowed()),
                }
            };
            let answered = trace::scope(trace, answer).await;
            answered.unwrap_or_else(|refusal| refusal.into_response(&request_id))
        }
    };
    with_request_id(response, &request_id)
}

/// Every answer tells under which id it is in our logs.
fn with_request_id(mut response: Response, request_id: &str) -> Response {
    let value = HeaderValue::from_str(request_id).expect("a request id is visible ASCII");
    response.headers_mut().insert(REQUEST_ID, value);
    response
}

fn method_not_allowed() -> Refusal {
    Refusal::new(Code::MethodNotAllowed, "an MCP endpoint takes POST, and for older clients GET and DELETE")
}

fn admit(
    core: Arc<Core>,
    is_toolset: bool,
    (organization, name): &(String, String),
    request: &Request<Body>,
    (request_id, began): (String, Instant),
) -> Result<Visit, Refusal> {
    let headers = request.headers();
    core.doors.check(headers, request.uri().authority())?;
    let snapshot = core.snapshot.borrow().clone();
    access::check_fresh(snapshot.made_at, core.max_snapshot_age, &core.clock)?;
    let (grant, key) = access::authenticate(headers, &snapshot, &core.clock)?;
    if core.peers.follow(&snapshot) {
        core.lanes.sweep();
    }
    let (organization, target) = find(&core, &snapshot, &grant, is_toolset, organization, name)?;
    access::check_fresh(snapshot.made_at_of(grant.organization), core.max_snapshot_age, &core.clock)?;
    (core.note_key)(grant.id);
    let (url, version) = (request.uri().path().to_owned(), snapshot.version);
    let is_stream = request.method() == Method::GET;
    let charge = request.extensions().get::<Charge>().cloned();
    if let Some(charge) = &charge {
        charge.known(grant.organization, grant.share_of())?;
    }
    let place = Places::take(&core, &grant, is_stream, charge);
    let place = place.map_err(|full| Refusal::new(Code::RateLimited, full))?;
    let trace = Trace::of(headers, &request_id);
    Ok(Visit { core, grant, organization, target, version, url, request_id, trace, began, key, place })
}

/// What the path stands for, when the holder of `grant` may call it.
fn find(
    core: &Core,
    snapshot: &Snapshot,
    grant: &KeyGrant,
    is_toolset: bool,
    organization: &str,
    name: &str,
) -> Result<(Arc<OrganizationSnapshot>, Target), Refusal> {
    let not_found = || Refusal::new(Code::NotFound, "there is no such MCP endpoint for this key").unless_news();
    let organization = snapshot.organizations.get(organization).ok_or_else(not_found)?;
    if organization.id != grant.organization {
        return Err(not_found());
    }
    let target = if is_toolset {
        let (name, route) = organization.toolsets.get_key_value(name).ok_or_else(not_found)?;
        Target::Toolset { name: name.clone(), route: route.clone() }
    } else {
        let (name, route) = organization.servers.get_key_value(name).ok_or_else(not_found)?;
        Target::Server { name: name.clone(), route: route.clone() }
    };
    let (Target::Server { name, .. } | Target::Toolset { name, .. }) = &target;
    if !core.decisions.allows(grant, Action::ToolCall, target.subject(), name, snapshot.version) {
        return Err(Refusal::new(Code::Forbidden, format!("this key may not call `{name}`")).unless_news());
    }
    Ok((organization.clone(), target))
}

fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    match given {
        Some(id)
            if !id.is_empty()
                && id.len() <= MAX_REQUEST_ID
                && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:/+=".contains(&b)) =>
        {
            id.to_owned()
        }
        _ => format!("{:016x}", rand::random::<u64>()),
    }
}

fn get(visit: Visit, headers: &HeaderMap) -> Result<Response, Refusal> {
    if header_text(headers, VERSION).is_some_and(era::is_modern_version) {
        return Err(method_not_allowed());
    }
    if !accepts(headers, "text/event-stream") {
        return Err(Refusal::new(Code::NotAcceptable, "the stream is `text/event-stream`"));
    }
    let Client::Legacy { id, .. } = session(&visit, headers)? else { return Err(method_not_allowed()) };
    Ok(listen::stream(visit, id))
}

fn delete(visit: &Visit, headers: &HeaderMap) -> Result<Response, Refusal> {
    if header_text(headers, VERSION).is_some_and(era::is_modern_version) {
        return Err(method_not_allowed());
    }
    let Client::Legacy { id, .. } = session(visit, headers)? else { return Err(method_not_allowed()) };
    visit.core.sessions.end(id);
    // Nobody is there any more for their answers, nor for what their servers ask.
    for call in &visit.core.cancellable {
        if call.key().0 == id {
            let (token, reason) = call.value();
            reason.say("the client ended its session");
            token.cancel();
        }
    }
    end_copies(visit, id);
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Tells the instances that may have a copy for a session which has ended that nobody needs it any more, beside the answer.
/// Where that is not heard a copy ends when nobody has called it for a while.
fn end_copies(visit: &Visit, session: SessionId) {
    let routes = match &visit.target {
        Target::Server { route, .. } => vec![route],
        Target::Toolset { route, .. } => toolset::members(visit.place(route)).map(|(_, route)| route).collect(),
    };
    let peers: Vec<_> = routes.into_iter().flat_map(|route| visit.core.peers.with_sessions(route)).collect();
    let Some(key) = visit.caller(Some(session)).copy(InstancingMode::PerSession) else { return };
    if peers.is_empty() {
        return;
    }
    let telling = peers.into_iter().map(|peer| {
        let key = key.clone();
        async move {
            if let Err(failure) = peer.end_copy(&key).await {
                tracing::debug!(why = failure.detail, "an agent was not told that a session has ended");
            }
        }
    });
    let all = futures_util::future::join_all(telling);
    // Its place is kept meanwhile: so many sessions may be ended at once.
    let place = visit.place.clone();
    visit.core.left.spawn(trace::scope(visit.trace.clone(), async move {
        all.await;
        drop(place);
    }));
}

async fn post(visit: Visit, request: Request<Body>) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    check_media_types(&parts.headers)?;
    let body = read_body(body, &parts.headers, visit.core.max_body_bytes).await?;
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
        return Ok(batch(visit, &parts.headers, &body).await);
    }
    let message = match Message::parse(body) {
        Ok(message) => message,
        Err(error) => return Ok(unreadable(error, &visit.request_id)),
    };
    let client = match client(&visit, &parts.headers, &message)? {
        Ok(client) => client,
        Err(error) => return Ok(answer::json(StatusCode::BAD_REQUEST, error)),
    };
    let takes = match (accepts(&parts.headers, "application/json"), accepts(&parts.headers, "text/event-stream")) {
        (true, true) => Takes::Either,
        (true, false) if message.method() == "subscriptions/listen" => {
            return Err(Refusal::new(Code::NotAcceptable, "the stream is `text/event-stream`"));
        }
        (true, false) => Takes::Json,
        (false, _) => Takes::Events,
    };
    Ok(Call { visit, client, message, takes }.answer().await)
}

/// Which conversation the message belongs to: `Err` inside is a JSON-RPC error for the client.
fn client(visit: &Visit, headers: &HeaderMap, message: &Message) -> Result<Result<Client, Bytes>, Refusal> {
    let Ok(described) = message.meta() else {
        let why = "`_meta` cannot be read";
        return Ok(Err(answer::error(message.raw_id(), code::INVALID_PARAMS, why, None, &visit.request_id)));
    };
    let described =
        described.is_some_and(|meta| meta.get(meta::PROTOCOL_VERSION).is_ok_and(|version| version.is_some()));
    let modern_header = header_text(headers, VERSION).is_some_and(era::is_modern_version);
    if described || (modern_header && message.method() != "initialize") {
        let checked = crate::about::check_modern(headers, message, &visit.request_id);
        return Ok(checked.map(|()| Client::modern(message)));
    }
    if message.method() == "initialize" && message.kind() == Kind::Request {
        return Ok(Ok(Client::Opening));
    }
    session(visit, headers).map(Ok)
}

/// The legacy session of a request.
fn session(visit: &Visit, headers: &HeaderMap) -> Result<Client, Refusal> {
    let id = header_text(headers, SESSION_ID)
        .ok_or_else(|| Refusal::new(Code::BadRequest, "`Mcp-Session-Id` is missing: send `initialize` first"))?;
    let (id, session) = (visit.core.sessions.open(id, visit.grant.id, &visit.url))
        .ok_or_else(|| Refusal::new(Code::NotFound, "there is no such session here: send `initialize` again"))?;
    if let Some(version) = header_text(headers, VERSION)
        && !era::LEGACY_VERSIONS.contains(&version)
    {
        let shown = toolyard_types::name::printable(version);
        return Err(Refusal::new(Code::BadRequest, format!("protocol version `{shown}` is not supported")));
    }
    Ok(Client::Legacy { id, session })
}

fn unreadable(error: ParseError, request_id: &str) -> Response {
    let code = if error == ParseError::Json { code::PARSE_ERROR } else { code::INVALID_REQUEST };
    answer::json(StatusCode::BAD_REQUEST, answer::error(None, code, &error.to_string(), None, request_id))
}

/// Batches exist in 2025-03-26 only. They are answered whole.
async fn batch(visit: Visit, headers: &HeaderMap, body: &Bytes) -> Response {
    const MAX_BATCH: usize = 32;
    let request_id = visit.request_id.clone();
    let refuse = |why: &str| {
        let error = answer::error(None, code::INVALID_REQUEST, why, None, &request_id);
        answer::json(StatusCode::BAD_REQUEST, error)
    };
    let Ok(client) = session(&visit, headers) else {
        return refuse("a batch needs a session of protocol version 2025-03-26");
    };
    if !matches!(&client, Client::Legacy { session, .. } if session.version == "2025-03-26") {
        return refuse("batches exist only in protocol version 2025-03-26");
    }
    let Ok(parts) = serde_json::from_slice::<Vec<&serde_json::value::RawValue>>(body) else {
        return unreadable(ParseError::Json, &request_id);
    };
    if parts.is_empty() || parts.len() > MAX_BATCH {
        return refuse("a batch holds 1 to 32 messages");
    }
    let answers = parts.iter().enumerate().map(|(index, part)| {
        let (visit, client) = (visit.clone(), client.clone());
        async move {
            let message = match Message::parse(Bytes::copy_from_slice(part.get().as_bytes())) {
                Ok(message) => message,
                Err(error) => {
                    let (code, request_id) = (code::INVALID_REQUEST, &visit.request_id);
                    return Some(answer::error(None, code, &error.to_string(), None, request_id));
                }
            };
            let id = message.id();
            let refuse = |problem: Code, why: &str| {
                let data = format!(r#"{{"code":"{}"}}"#, problem.as_str());
                let id = id.as_ref().map(Id::raw);
                id.map(|id| answer::error(Some(id), code::INTERNAL_ERROR, why, Some(&data), &visit.request_id))
            };
            // The first has the place of the whole.
            let own = if index == 0 { Ok(visit.clone()) } else { visit.beside() };
            let answer = match own {
                Ok(visit) => Call { visit, client, message, takes: Takes::Json }.answer_whole().await?,
                Err(full) => return refuse(Code::RateLimited, &full),
            };
            visit.hold(answer).map_or_else(|_| refuse(Code::AnswerDropped, NoRoom::FOR_ITS_ANSWER), Some)
        }
    });
    let answers: Vec<Bytes> = futures_util::future::join_all(answers).await.into_iter().flatten().collect();
    if answers.is_empty() {
        return StatusCode::ACCEPTED.into_response();
    }
    let mut whole = b"[".to_vec();
    whole.extend(answers.join(&b","[..]));
    whole.push(b']');
    answer::json(StatusCode::OK, Bytes::from(whole))
}

fn check_media_types(headers: &HeaderMap) -> Result<(), Refusal> {
    let kind = header_text(headers, header::CONTENT_TYPE.as_str()).unwrap_or("");
    if !kind.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case("application/json") {
        return Err(Refusal::new(Code::UnsupportedMediaType, "a message is sent as `application/json`"));
    }
    if !accepts(headers, "application/json") && !accepts(headers, "text/event-stream") {
        return Err(Refusal::new(Code::NotAcceptable, "accept `application/json` and `text/event-stream`"));
    }
    Ok(())
}

/// Who names nothing, with an empty header or without one, takes anything.
fn accepts(headers: &HeaderMap, kind: &str) -> bool {
    let family = kind.split('/').next().unwrap_or("");
    let lists = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let ranges = lists.flat_map(|list| list.split(',')).map(|range| range.split(';').next().unwrap_or("").trim());
    let mut named = ranges.filter(|range| !range.is_empty()).peekable();
    named.peek().is_none()
        || named
            .any(|range| range == "*/*" || range.eq_ignore_ascii_case(kind) || range.strip_suffix("/*") == Some(family))
}

async fn read_body(body: Body, headers: &HeaderMap, max: usize) -> Result<Bytes, Refusal> {
    let too_large = || Refusal::new(Code::PayloadTooLarge, format!("a message may have {max} bytes"));
    let announced = header_text(headers, header::CONTENT_LENGTH.as_str()).and_then(|text| text.parse::<usize>().ok());
    if announced.is_some_and(|announced| announced > max) {
        return Err(too_large());
    }
    match http_body_util::Limited::new(body, max).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Err(error) => Err(match (TooSlow::of(&*error), NoRoom::of(&*error)) {
            (Some(slow), _) => Refusal::new(Code::RequestTimeout, slow.to_string()),
            (_, Some(no_room)) => no_room.into(),
            (None, None) => Refusal::new(Code::BadRequest, "the body broke off"),
        }),
    }
}

pub(crate) fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

pub(crate) fn with_session(mut response: Response, id: &str) -> Response {
    let value = HeaderValue::from_str(id).expect("a session id is Base64 text");
    response.headers_mut().insert(SESSION_ID, value);
    response
}
