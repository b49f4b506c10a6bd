//! One message of a client, from its envelope to its answer.

use crate::about;
use crate::answer;
use crate::bridge::{self, Rename, Speaker};
use crate::catalog::{self, ListKind};
use crate::endpoint::{self, Target, Visit};
use crate::lanes::{Full, Place};
use crate::listen;
use crate::live::{Live, Source, Step, stream};
use crate::peer::{Failure, Peer};
use crate::questions::{self, Asked};
use crate::record::Recording;
use crate::route::{Caller, Chosen, LOOK_AGAIN, Sender};
use crate::session::{Session, SessionId};
use crate::toolset::{self, Entry, Resolved};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use toolyard_link::trace;
use toolyard_mcp::era::{self, Era, code, meta};
use toolyard_mcp::json::{self, Object, Span};
use toolyard_mcp::{Kind, Message, envelope};
use toolyard_types::snapshot::{CallOutcome, CallRecord, ServerRoute, ToolsetRoute};
use toolyard_types::spec::InstancingMode;
use toolyard_types::{Code, Name, Timestamp};

/// How long a subscription may last before its client has to renew it.
const LISTEN_DEADLINE: Duration = Duration::from_secs(24 * 3600);
/// The longest name or URI kept in a record.
const MAX_RECORDED_CHARS: usize = 256;

/// Whose message it is.
#[derive(Clone, Debug)]
pub(crate) enum Client {
    /// A legacy client that sends `initialize`.
    Opening,
    /// A legacy client in its session.
    Legacy { id: SessionId, session: Session },
    /// A modern client; `wants_log` when it asked for log messages of this request.
    Modern { wants_log: bool },
}

impl Client {
    pub(crate) fn modern(message: &Message) -> Self {
        let meta = message.meta().ok().flatten();
        let level = meta.and_then(|meta| meta.get(meta::LOG_LEVEL).ok().flatten());
        Self::Modern { wants_log: level.is_some() }
    }

    fn speaker(&self) -> Speaker<'_> {
        match self {
            Client::Modern { .. } => Speaker::Modern,
            Client::Opening => Speaker::Legacy { capabilities: "{}", client_info: "{}" },
            Client::Legacy { session, .. } => {
                Speaker::Legacy { capabilities: &session.capabilities, client_info: &session.client_info }
            }
        }
    }

    pub(crate) fn era(&self) -> Era {
        self.speaker().era()
    }
}

/// One message and all that is needed to answer it.
pub(crate) struct Call {
    pub(crate) visit: Visit,
    pub(crate) client: Client,
    pub(crate) message: Message,
    pub(crate) takes: Takes,
}

/// In which form a client takes an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    /// Plain JSON, or a stream when there is more to say than the answer.
    Either,
    /// The answer alone: what comes before it is left out, and questions are declined.
    Json,
    Events,
}

/// How far a call got before its first byte of answer.
enum Begun {
    /// Answered by the gateway itself, or refused.
    Answered(Answered),
    /// Under way at a server.
    Live(Box<Live>),
    /// A stream of the gateway's own.
    Stream(Response),
}

struct Answered {
    message: Bytes,
    status: StatusCode,
    session: Option<String>,
    is_overload: bool,
}

/// A JSON-RPC error to be.
pub(crate) struct Refused {
    pub(crate) code: i64,
    pub(crate) text: String,
    pub(crate) data: Option<String>,
    pub(crate) outcome: CallOutcome,
    /// Too much is under way: the answer says so by its status too, and when to try again.
    pub(crate) is_overload: bool,
}

impl Refused {
    fn new(code: i64, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), data: None, outcome: CallOutcome::Refused, is_overload: false }
    }

    fn overload(text: impl Into<String>) -> Self {
        let data = format!(r#"{{"code":"{}"}}"#, Code::RateLimited.as_str());
        Self { data: Some(data), is_overload: true, ..Self::new(code::INTERNAL_ERROR, text) }
    }

    /// Leaves a line with the cause when no server answered, under the id that the client was told. What was wrong with
    /// the request itself its client knows.
    pub(crate) fn note(&self, request_id: &str, server: Option<&Name>) {
        if matches!(self.outcome, CallOutcome::ServerNotReady | CallOutcome::UpstreamFailed | CallOutcome::Timeout) {
            let (server, outcome) = (server.map(Name::as_str), self.outcome.as_str());
            tracing::info!(request.id = request_id, server.name = server, outcome, "a call failed: {}", self.text);
        }
    }
}

impl From<Full> for Refused {
    fn from(full: Full) -> Self {
        Self::overload(full.detail())
    }
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        let outcome = match failure.code {
            Code::ServerNotReady => CallOutcome::ServerNotReady,
            Code::UpstreamTimeout => CallOutcome::Timeout,
            Code::ShuttingDown => CallOutcome::Cancelled,
            _ => CallOutcome::UpstreamFailed,
        };
        let data = format!(r#"{{"code":"{}"}}"#, failure.code.as_str());
        Self { code: code::INTERNAL_ERROR, text: failure.detail, data: Some(data), outcome, is_overload: false }
    }
}

impl From<json::Malformed> for Refused {
    fn from(_: json::Malformed) -> Self {
        Self::new(code::INVALID_PARAMS, "`params` cannot be read: a key occurs twice or has the wrong type")
    }
}

/// Where a request goes, and what its name is there.
pub(crate) struct Way {
    pub(crate) chosen: Chosen,
    /// The server's name in its organization.
    pub(crate) server: Name,
    pub(crate) route: Arc<ServerRoute>,
    /// Where the exposed name lies, and the server's own.
    rename: Option<(Span, String)>,
    /// For the record: the tool, prompt or resource as the server names it.
    target: String,
    /// A place among the calls to the server; a subscription has none.
    place: Option<[Place; 2]>,
}

impl Call {
    /// Answers over HTTP.
    pub(crate) async fn answer(self) -> Response {
        if self.message.kind() != Kind::Request {
            self.take_in().await;
            return StatusCode::ACCEPTED.into_response();
        }
        let takes = self.takes;
        let is_modern = matches!(self.client, Client::Modern { .. });
        let mut live = match self.begin().await {
            Begun::Stream(response) => return response,
            Begun::Answered(answered) => return answered.into_response(takes == Takes::Events),
            Begun::Live(live) => live,
        };
        let mut step = live.next().await;
        while takes == Takes::Json && matches!(step, Some(Step::Pass(_))) {
            step = live.next().await;
        }
        match step {
            Some(Step::Last(message)) if takes != Takes::Events => {
                let status = if is_modern { modern_status(&message) } else { StatusCode::OK };
                answer::json(status, message)
            }
            Some(Step::Last(message) | Step::Pass(message)) => answer::events(stream(message, live)),
            // Cancelled by the client: there is no answer to give.
            None => answer::events(futures_util::stream::empty()),
        }
    }

    /// Answers with the response alone, for a batch.
    pub(crate) async fn answer_whole(self) -> Option<Bytes> {
        if self.message.kind() != Kind::Request {
            self.take_in().await;
            return None;
        }
        let (id, request_id) = (self.message.id(), self.visit.request_id.clone());
        match self.begin().await {
            Begun::Answered(answered) => Some(answered.message),
            Begun::Stream(_) => {
                id.map(|id| answer::error(Some(id.raw()), code::METHOD_NOT_FOUND, "not in a batch", None, &request_id))
            }
            Begun::Live(mut live) => loop {
                match live.next().await? {
                    Step::Pass(_) => {}
                    Step::Last(message) => return Some(message),
                }
            },
        }
    }

    /// Takes a message that wants no answer.
    async fn take_in(self) {
        let Client::Legacy { id: session, .. } = &self.client else { return };
        match (self.message.kind(), self.message.method()) {
            (Kind::Notification, "notifications/cancelled") => self.cancel(*session),
            // The handshake with the server is not the client's.
            (Kind::Notification, "notifications/initialized" | "notifications/roots/list_changed") => {}
            (Kind::Result | Kind::Error, _) => self.answer_question(*session).await,
            _ => self.pass_on().await,
        }
    }

    fn cancel(&self, session: SessionId) {
        let requested = self.message.payload_object().and_then(|params| params.get("requestId").ok().flatten());
        let Some(span) = requested else { return };
        if let Some(call) = self.visit.core.cancellable.get(&(session, self.message.bytes().slice(span))) {
            let (token, reason) = call.value();
            reason.say(&self.message.payload_string("reason").ok().flatten().unwrap_or_default());
            token.cancel();
        }
    }

    /// Gives an answer to the instance that asked this session, under the id that the question had there.
    async fn answer_question(&self, session: SessionId) {
        let Target::Server { name, route } = &self.visit.target else { return };
        // An error may be without an id: it answers nothing.
        let Some(id) = self.message.raw_id() else { return };
        let core = &self.visit.core;
        let asked = core.questions.take(session, id).or_else(|| {
            let (instance, id) = questions::opened(&core.sessions, session, id)?;
            let route = self.visit.route_now(name)?;
            Some(Asked { asker: core.peers.instance_for(&route, instance, &self.caller())?, id })
        });
        if let Some(asked) = asked {
            let answer = self.message.with_id(&asked.id);
            send_to(&asked.asker.peer, answer, asked.asker.sender(), call_timeout(route)).await;
        }
    }

    /// Gives notifications to the one server behind the URL.
    async fn pass_on(&self) {
        let Target::Server { route, .. } = &self.visit.target else { return };
        if route.instancing != InstancingMode::Shared {
            let Ok(chosen) = self.visit.core.peers.choose(route, &self.caller()) else { return };
            if chosen.peer.era().await == Ok(Era::Legacy) {
                send_to(&chosen.peer, self.message.bytes().clone(), chosen.sender(), chosen.timeout).await;
            }
            return;
        }
        let sender = Sender { principal: Some(self.caller().principal()), ..Sender::default() };
        for peer in self.visit.core.peers.all(route) {
            if peer.era().await != Ok(Era::Legacy) {
                continue;
            }
            send_to(&peer, self.message.bytes().clone(), sender, call_timeout(route)).await;
        }
    }

    fn caller(&self) -> Caller {
        let session = match &self.client {
            Client::Legacy { id, .. } => Some(*id),
            Client::Opening | Client::Modern { .. } => None,
        };
        self.visit.caller(session)
    }

    async fn begin(mut self) -> Begun {
        let mut recording = self.recording();
        let is_stream = self.message.method() == "subscriptions/listen";
        let place = if is_stream { self.visit.become_stream() } else { Ok(()) };
        let outcome = match place {
            Ok(()) => self.dispatch(&mut recording).await,
            Err(full) => Err(Refused::overload(full)),
        };
        let refused = match outcome {
            Ok(Reply::Local { result, session }) => {
                let message = envelope::result(self.raw_id(), &String::from_utf8_lossy(&result));
                recording.end(CallOutcome::Ok, message.len());
                return Begun::Answered(Answered { message, status: StatusCode::OK, session, is_overload: false });
            }
            Ok(Reply::Stream(response)) => {
                recording.end(CallOutcome::Ok, 0);
                return Begun::Stream(response);
            }
            Ok(Reply::Sent { source, way, server, deadline }) => {
                return Begun::Live(Box::new(Live::new(self, source, way, server, deadline, recording)));
            }
            Err(refused) => refused,
        };
        let server = match &self.visit.target {
            Target::Server { name, .. } => Some(name),
            Target::Toolset { .. } => None,
        };
        refused.note(&self.visit.request_id, server);
        recording.note(|record| {
            if record.target.is_empty() {
                record.target = self.named().unwrap_or_default().chars().take(MAX_RECORDED_CHARS).collect();
            }
        });
        let message = self.refusal(&refused);
        recording.end(refused.outcome, message.len());
        let is_modern = matches!(self.client, Client::Modern { .. });
        let status = match refused.is_overload {
            true => StatusCode::TOO_MANY_REQUESTS,
            false if is_modern => status_of_code(refused.code),
            false => StatusCode::OK,
        };
        Begun::Answered(Answered { message, status, session: None, is_overload: refused.is_overload })
    }

    async fn dispatch(&self, recording: &mut Recording) -> Result<Reply, Refused> {
        let method = self.message.method();
        let is_modern = matches!(self.client, Client::Modern { .. });
        if is_modern && about::is_gone_in_modern(method) {
            return Err(no_such_method(method));
        }
        if let Some(kind) = ListKind::of_method(method) {
            return self.list(kind).await.map(Reply::local);
        }
        match (&self.client, method) {
            (Client::Opening, _) => self.initialize().await,
            (Client::Legacy { .. }, "ping") => Ok(Reply::local(Bytes::from_static(b"{}"))),
            (Client::Modern { .. }, "server/discover") => {
                let _place = self.place()?;
                Ok(Reply::local(about::discover_result(&self.visit).await?))
            }
            (Client::Modern { .. }, "subscriptions/listen") if !self.server_is_modern().await? => {
                Ok(Reply::Stream(listen::subscribe(self.visit.clone(), &self.message)?))
            }
            _ => self.forward(recording).await,
        }
    }

    /// The answer that refuses this request.
    pub(crate) fn refusal(&self, refused: &Refused) -> Bytes {
        let (data, request_id) = (refused.data.as_deref(), &self.visit.request_id);
        answer::error(Some(self.raw_id()), refused.code, &refused.text, data, request_id)
    }

    pub(crate) fn raw_id(&self) -> &str {
        self.message.raw_id().expect("only requests are dispatched, and a request has an id")
    }

    fn recording(&self) -> Recording {
        let visit = &self.visit;
        let (server, toolset) = match &visit.target {
            Target::Server { route, .. } => (Some(route.id), None),
            Target::Toolset { route, .. } => (None, Some(route.id)),
        };
        // It may have been held for a while.
        let held_ms = i64::try_from(visit.began.elapsed().as_millis()).unwrap_or(0);
        let record = CallRecord {
            at: Timestamp::from_ms(visit.core.clock.now().as_ms().saturating_sub(held_ms)),
            organization: visit.organization.id,
            actor: visit.grant.actor().to_string(),
            server,
            toolset,
            method: self.message.method().to_owned(),
            target: String::new(),
            outcome: CallOutcome::Cancelled,
            duration_us: 0,
            request_bytes: u64::try_from(self.message.bytes().len()).unwrap_or(u64::MAX),
            response_bytes: 0,
            request_id: visit.request_id.clone(),
            revision: None,
        };
        Recording::begin(visit.core.meters.clone(), record, visit.began)
    }

    /// A place among what asks the server behind the URL what it is.
    fn place(&self) -> Result<Option<Place>, Refused> {
        match &self.visit.target {
            Target::Server { route, .. } => Ok(Some(self.visit.core.lanes.of_question(route.id)?)),
            Target::Toolset { .. } => Ok(None),
        }
    }

    async fn initialize(&self) -> Result<Reply, Refused> {
        let missing = || Refused::new(code::INVALID_PARAMS, "`initialize` needs `params.protocolVersion`");
        let requested = self.message.payload_string("protocolVersion")?.ok_or_else(missing)?;
        let version = era::negotiate_legacy(&requested);
        let _place = self.place()?;
        let result = about::initialize_result(&self.visit, version).await?;
        let params = self.message.payload_object().ok_or_else(missing)?;
        let object = |key: &str, otherwise: &'static str| -> Result<&str, Refused> {
            let span = params.get(key)?;
            Ok(span.map(|span| self.message.text(span)).filter(|raw| raw.starts_with('{')).unwrap_or(otherwise))
        };
        let (capabilities, info) =
            (object("capabilities", "{}")?, object("clientInfo", r#"{"name":"client","version":"0"}"#)?);
        let core = &self.visit.core;
        let session = Session::new(version, capabilities, info, core.clock.now());
        let sealed = core.sessions.seal(&session, self.visit.grant.id, &self.visit.url);
        Ok(Reply::Local { result, session: Some(sealed) })
    }

    async fn list(&self, kind: ListKind) -> Result<Bytes, Refused> {
        let cursor = self.message.payload_object().and_then(|params| params.get("cursor").ok().flatten());
        if cursor.is_some_and(|span| self.message.text(span) != "null") {
            // Lists are given whole, so no cursor was ever handed out.
            return Err(Refused::new(code::INVALID_PARAMS, "this cursor is not known"));
        }
        match &self.visit.target {
            Target::Server { name, .. } => self.server_list(name, kind).await,
            Target::Toolset { route, .. } => {
                let view = self.visit.core.views.current(self.visit.place(route), kind).await;
                Ok(self.joined(kind, &view.items, view.ttl_ms, true))
            }
        }
    }

    async fn server_list(&self, name: &Name, kind: ListKind) -> Result<Bytes, Refused> {
        let _place = self.place()?;
        let ask = |peer: Arc<Peer>| async move { Ok((peer.era().await?, catalog::list(&peer, kind).await?)) };
        let (server, list) = self.visit.ask(name, Some(&self.caller()), ask).await?;
        if let Some(whole) = &list.whole_result
            && (self.client.era(), server) != (Era::Modern, Era::Legacy)
        {
            return Ok(if self.client.era() == server { whole.clone() } else { bridge::plain_result(whole) });
        }
        let items: Vec<_> = list.items.iter().map(|item| String::from_utf8_lossy(&item.raw)).collect();
        let ttl_ms = if server == Era::Modern { list.ttl_ms } else { 0 };
        Ok(self.joined(kind, &items.join(","), ttl_ms, list.private || server == Era::Legacy))
    }

    fn joined(&self, kind: ListKind, items: &str, ttl_ms: u64, private: bool) -> Bytes {
        let key = kind.key();
        if self.client.era() == Era::Legacy {
            return Bytes::from(format!(r#"{{"{key}":[{items}]}}"#));
        }
        let scope = if private { "private" } else { "public" };
        Bytes::from(format!(r#"{{"resultType":"complete","{key}":[{items}],"ttlMs":{ttl_ms},"cacheScope":"{scope}"}}"#))
    }

    async fn server_is_modern(&self) -> Result<bool, Refused> {
        match &self.visit.target {
            Target::Server { route, .. } => Ok(self.visit.core.peers.first(route)?.era().await? == Era::Modern),
            Target::Toolset { .. } => Ok(false),
        }
    }

    async fn forward(&self, recording: &mut Recording) -> Result<Reply, Refused> {
        let mut way = self.way().await?;
        recording.note(|record| {
            record.server = Some(way.route.id);
            record.revision = way.chosen.revision;
            record.target = way.target.chars().take(MAX_RECORDED_CHARS).collect();
        });
        let server = way.chosen.peer.era().await?;
        let method = self.message.method();
        if !about::is_carried(method, self.client.speaker(), server) {
            return Err(no_such_method(method));
        }
        if let Client::Legacy { id, .. } = &self.client {
            let mark = || (*id, listen::uri_digest(&way.target));
            match method {
                "resources/subscribe" => self.visit.core.unsubscribed.invalidate(&mark()),
                // The instance is shared: told of it, the server would end everybody's subscription.
                "resources/unsubscribe" if self.named().is_some() => {
                    self.visit.core.unsubscribed.insert(mark(), ());
                    return Ok(Reply::local(Bytes::from_static(b"{}")));
                }
                _ => {}
            }
        }
        let rename = way.rename.as_ref().map(|(span, own)| Rename { span: span.clone(), own });
        let message = bridge::to_server(&self.message, self.client.speaker(), server, rename)?;
        let mut timeout = way.chosen.timeout;
        if method == "subscriptions/listen" {
            timeout = LISTEN_DEADLINE;
            way.chosen.uncounted();
            way.place = None;
        }
        let deadline = Instant::now() + timeout;
        let (core, caller) = (self.visit.core.clone(), self.caller());
        let (place, first) = ((self.visit.organization.name.clone(), way.server.clone()), way.chosen.clone());
        // Sent once its client reads, when the visit's own work is over.
        let sending = trace::scope(self.visit.trace.clone(), async move {
            core.peers.send(&core, (&place.0, &place.1), &first, &caller, message, timeout).await
        });
        let source = Source::Sending(Box::pin(sending));
        Ok(Reply::Sent { source, way: Box::new(way), server, deadline: (deadline, timeout) })
    }

    async fn way(&self) -> Result<Way, Refused> {
        match &self.visit.target {
            Target::Server { name, route } => {
                let target = self.named().unwrap_or_default();
                let chosen = self.visit.core.peers.choose(route, &self.caller())?;
                let place = Some(self.visit.core.lanes.of_server(route.id, &self.visit.grant)?);
                Ok(Way { chosen, server: name.clone(), route: route.clone(), rename: None, target, place })
            }
            Target::Toolset { route, .. } => self.toolset_way(route).await,
        }
    }

    fn named(&self) -> Option<String> {
        let key = match self.message.method() {
            "tools/call" | "prompts/get" => "name",
            "resources/read" | "resources/subscribe" | "resources/unsubscribe" => "uri",
            _ => return None,
        };
        self.message.payload_string(key).ok().flatten().map(std::borrow::Cow::into_owned)
    }

    async fn toolset_way(&self, route: &Arc<ToolsetRoute>) -> Result<Way, Refused> {
        let params = self.message.payload_object();
        let missing = |key: &str| Refused::new(code::INVALID_PARAMS, format!("`params.{key}` is missing"));
        match self.message.method() {
            "tools/call" | "prompts/get" => {
                let kind = if self.message.method() == "tools/call" { ListKind::Tools } else { ListKind::Prompts };
                let params = params.ok_or_else(|| missing("name"))?;
                self.way_by_name(route, kind, &params).await
            }
            "resources/read" | "resources/subscribe" | "resources/unsubscribe" => {
                let uri = self.message.payload_string("uri")?.ok_or_else(|| missing("uri"))?.into_owned();
                let server = self.server_of_uri(route, &uri).await?;
                self.way_to(&server, None, uri).await
            }
            "completion/complete" => {
                let params = params.ok_or_else(|| missing("ref"))?;
                let span = params.get("ref")?.ok_or_else(|| missing("ref"))?;
                let reference = Object::scan(self.message.bytes(), span)?;
                if let Some(uri) = self.string(&reference, "uri")? {
                    let server = self.server_of_uri(route, &uri).await?;
                    return self.way_to(&server, None, uri).await;
                }
                self.way_by_name(route, ListKind::Prompts, &reference).await
            }
            other => Err(no_such_method(other)),
        }
    }

    fn string(&self, object: &Object<'_>, key: &str) -> Result<Option<String>, Refused> {
        let Some(span) = object.get(key)? else { return Ok(None) };
        let text = json::string(&self.message.bytes()[span]).ok_or(json::Malformed)?;
        Ok(Some(text.into_owned()))
    }

    async fn way_by_name(
        &self,
        route: &Arc<ToolsetRoute>,
        kind: ListKind,
        object: &Object<'_>,
    ) -> Result<Way, Refused> {
        let exposed = self.string(object, "name")?;
        let exposed = exposed.ok_or_else(|| Refused::new(code::INVALID_PARAMS, "`params.name` is missing"))?;
        let span = object.get("name")?.ok_or(json::Malformed)?;
        let entry = self.resolve(route, kind, &exposed).await?.ok_or_else(|| {
            let shown = toolyard_types::name::printable(&exposed);
            Refused::new(code::INVALID_PARAMS, format!("there is nothing named `{shown}` in this toolset"))
        })?;
        self.way_to(&entry.server, Some((span, entry.own.clone())), entry.own).await
    }

    /// What a name stands for, once every member that may have it has told, or cannot be held for any longer.
    async fn resolve(
        &self,
        route: &Arc<ToolsetRoute>,
        kind: ListKind,
        exposed: &str,
    ) -> Result<Option<Entry>, Failure> {
        let until = self.visit.held_until();
        let mut now = (self.visit.organization.clone(), route.clone(), self.visit.version);
        loop {
            let (organization, route, version) = &now;
            let place = toolset::Place { organization, route, version: *version };
            match self.visit.core.views.resolve(place, kind, exposed).await {
                Resolved::Entry(entry) => return Ok(Some(entry)),
                Resolved::Nothing => return Ok(None),
                Resolved::Untold(server) if Instant::now() + LOOK_AGAIN > until => {
                    let detail = format!("server `{server}` of this toolset has not told yet what it has; call again");
                    return Err(Failure::new(Code::ServerNotReady, detail));
                }
                Resolved::Untold(_) => tokio::time::sleep(LOOK_AGAIN).await,
            }
            if let Target::Toolset { name, .. } = &self.visit.target
                && let Some(newer) = self.visit.toolset_now(name)
            {
                now = newer;
            }
        }
    }

    async fn server_of_uri(&self, route: &Arc<ToolsetRoute>, uri: &str) -> Result<Name, Refused> {
        let (place, views) = (self.visit.place(route), &self.visit.core.views);
        if let Resolved::Entry(entry) = views.resolve(place, ListKind::Resources, uri).await {
            return Ok(entry.server);
        }
        let templates = views.current(place, ListKind::Templates).await;
        let exact = templates.entry(uri).map(|entry| &entry.server);
        if let Some(server) = exact.or_else(|| templates.server_of_prefix(uri)) {
            return Ok(server.clone());
        }
        let entry = self.resolve(route, ListKind::Resources, uri).await?;
        entry.map(|entry| entry.server).ok_or_else(|| self.no_such_resource())
    }

    async fn way_to(&self, server: &Name, rename: Option<(Span, String)>, target: String) -> Result<Way, Refused> {
        let gone = || Failure::new(Code::ServerNotReady, format!("server `{server}` is no longer there"));
        let known = self.visit.route_now(server).ok_or_else(gone)?;
        let place = Some(self.visit.core.lanes.of_server(known.id, &self.visit.grant)?);
        let route = self.visit.ready(server).await.ok_or_else(gone)?;
        let chosen = self.visit.core.peers.choose(&route, &self.caller())?;
        Ok(Way { chosen, server: server.clone(), route, rename, target, place })
    }

    fn no_such_resource(&self) -> Refused {
        let code = if self.client.era() == Era::Modern { code::INVALID_PARAMS } else { code::RESOURCE_NOT_FOUND };
        Refused::new(code, "there is no such resource in this toolset")
    }
}

/// What dispatching a request came to.
enum Reply {
    /// The gateway knows the raw result itself.
    Local { result: Bytes, session: Option<String> },
    /// A stream of the gateway's own.
    Stream(Response),
    /// A server has it.
    Sent { source: Source, way: Box<Way>, server: Era, deadline: (Instant, Duration) },
}

impl Reply {
    fn local(result: Bytes) -> Self {
        Self::Local { result, session: None }
    }
}

impl Answered {
    fn into_response(self, stream_only: bool) -> Response {
        let response = if stream_only && self.status == StatusCode::OK {
            let event = answer::event(&self.message);
            answer::events(futures_util::stream::once(std::future::ready(event)))
        } else {
            answer::json(self.status, self.message)
        };
        let mut response = match self.session {
            Some(session) => endpoint::with_session(response, &session),
            None => response,
        };
        if self.is_overload {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

async fn send_to(peer: &Peer, message: Bytes, sender: Sender<'_>, timeout: Duration) {
    let sent = tokio::time::timeout(timeout, peer.send(message, timeout, sender));
    if let Ok(Err(failure)) = sent.await {
        tracing::debug!(why = failure.detail, "a client's message did not reach its server");
    }
}

fn no_such_method(method: &str) -> Refused {
    let shown = toolyard_types::name::printable(method);
    Refused::new(code::METHOD_NOT_FOUND, format!("there is no method `{shown}` here"))
}

fn call_timeout(route: &ServerRoute) -> Duration {
    Duration::from_millis(route.call_timeout_ms.max(1))
}

/// The HTTP status the modern era gives to a JSON-RPC error.
fn status_of_code(code: i64) -> StatusCode {
    match code {
        code::METHOD_NOT_FOUND => StatusCode::NOT_FOUND,
        code if code::is_modern(code) => StatusCode::BAD_REQUEST,
        _ => StatusCode::OK,
    }
}

fn modern_status(message: &Bytes) -> StatusCode {
    let code = era::member(message, "error").and_then(|error| catalog::error_code(&error));
    code.map_or(StatusCode::OK, status_of_code)
}
