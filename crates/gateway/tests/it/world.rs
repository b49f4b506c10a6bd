//! The world of a test: fixture servers, a toolbox, a snapshot, and requests.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::sync::{mpsc, watch};
use toolyard_gateway::{Gateway, GatewayOptions, LeaseError, Limits};
use toolyard_link::frames;
use toolyard_mcp::era::{Era, code};
use toolyard_mcp::stdio::{Caller, Connection, MAX_MESSAGE_BYTES, MessageContext, Options};
use toolyard_mcp::{Kind, Message, Room, envelope};
use toolyard_types::access::{Action, Role};
use toolyard_types::snapshot::*;
use toolyard_types::state::{Phase, Reason};
use toolyard_types::{
    ApiKeyId, Clock, InstanceId, Name, OrganizationId, RevisionId, ServerId, Timestamp, ToolboxId, ToolsetId,
};
use tower::ServiceExt;

pub(crate) const KEY: &str = "ty_test_key";
/// Tools of a server that does not answer when it is asked for them.
pub(crate) const HANGS: &str = "hangs";
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// What a fixture server was sent, and a way to write to it.
#[derive(Clone)]
pub(crate) struct Fixture {
    seen: watch::Receiver<Vec<String>>,
    out: mpsc::UnboundedSender<String>,
    tools: Arc<Mutex<String>>,
}

impl Fixture {
    /// Waits until the server was sent a line that `wanted` accepts.
    pub(crate) async fn line(&self, wanted: impl Fn(&str) -> bool) -> String {
        let mut seen = self.seen.clone();
        let lines = tokio::time::timeout(LONG, seen.wait_for(|lines| lines.iter().any(|line| wanted(line)))).await;
        let lines = lines.expect("in time").expect("the server lives");
        lines.iter().find(|line| wanted(line)).expect("just seen").clone()
    }

    pub(crate) fn count(&self, wanted: impl Fn(&str) -> bool) -> usize {
        self.seen.borrow().iter().filter(|line| wanted(line)).count()
    }

    pub(crate) fn lines(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        self.seen.borrow().iter().filter(|line| wanted(line)).cloned().collect()
    }

    /// Writes a line as the server.
    pub(crate) fn say(&self, line: impl Into<String>) {
        self.out.send(line.into()).expect("the server lives");
    }

    pub(crate) fn set_tools(&self, tools: &str) {
        *self.tools.lock().unwrap() = tools.to_owned();
    }
}

/// A server's answers, by method and tool. Results carry what a typed model would lose.
fn answer(era: Era, tools: &str, request: &Message, say: &mpsc::UnboundedSender<String>) -> Option<Bytes> {
    let id = request.raw_id()?;
    let result = |raw: &str| {
        let raw =
            if era == Era::Modern { raw.replacen('{', r#"{"resultType":"complete","#, 1) } else { raw.to_owned() };
        Some(envelope::result(id, &raw.replace(",}", "}")))
    };
    let fail = |code: i64, text: &str| Some(envelope::error(Some(id), code, text, None));
    let described = request
        .meta()
        .ok()
        .flatten()
        .is_some_and(|meta| meta.get("io.modelcontextprotocol/protocolVersion").is_ok_and(|found| found.is_some()));
    if (era == Era::Modern) != described && request.method() != "server/discover" {
        return fail(code::INVALID_PARAMS, "of the wrong era");
    }
    match (era, request.method()) {
        (Era::Legacy, "initialize") => result(
            r#"{"protocolVersion":"2025-06-18","capabilities":{"tools":{"listChanged":true},"prompts":{},"resources":{"subscribe":true},"logging":{}},"serverInfo":{"name":"old","version":"1"},"instructions":"Be kind."}"#,
        ),
        (Era::Modern, "server/discover") => Some(envelope::result(
            id,
            r#"{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{"listChanged":true}},"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"new","version":"2"}},"ttlMs":5000,"cacheScope":"public"}"#,
        )),
        // It hangs.
        (_, "tools/list") if tools == HANGS => None,
        (_, "tools/list") => result(&format!(r#"{{"tools":[{tools}]}}"#)),
        (_, "prompts/list") => result(r#"{"prompts":[{"name":"greet"}]}"#),
        (_, "prompts/get") => result(r#"{"messages":[]}"#),
        (_, "resources/list") => result(r#"{"resources":[{"uri":"file:///a","name":"a"}]}"#),
        (_, "resources/templates/list") => result(r#"{"resourceTemplates":[{"uriTemplate":"db://{id}","name":"d"}]}"#),
        (_, "resources/read") => fail(code::RESOURCE_NOT_FOUND, "no such thing"),
        (Era::Modern, "subscriptions/listen") => {
            let id = id.to_owned();
            say.send(format!(r#"{{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{{"_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}},"notifications":{{}}}}}}"#)).ok()?;
            None
        }
        (_, "tools/call") => call(request, result, fail, say),
        _ => fail(code::METHOD_NOT_FOUND, "unknown"),
    }
}

fn call(
    request: &Message,
    result: impl Fn(&str) -> Option<Bytes>,
    fail: impl Fn(i64, &str) -> Option<Bytes>,
    say: &mpsc::UnboundedSender<String>,
) -> Option<Bytes> {
    match request.payload_string("name").unwrap().unwrap_or_default().as_ref() {
        "echo" => {
            let params = String::from_utf8(request.payload().unwrap().to_vec()).unwrap();
            result(&format!(
                r#"{{"content":[],"z":1.0,"a":[ 1 ,2 ],"n":1234567890123456789012345678901234567890,"params":{params}}}"#
            ))
        }
        "progress" => {
            let token = request.text(request.progress_token().unwrap().unwrap()).to_owned();
            for n in 1..=2 {
                say.send(format!(r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":{n},"x":1.0}}}}"#)).ok()?;
            }
            result(r#"{"content":[]}"#)
        }
        "log" => {
            say.send(r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1}}"#.into())
                .ok()?;
            result(r#"{"content":[]}"#)
        }
        "fail" => result(r#"{"content":[],"isError":true}"#),
        "slow" => None,
        "delay" => {
            let (say, answer) = (say.clone(), envelope::result(request.raw_id()?, r#"{"content":[]}"#));
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                say.send(String::from_utf8(answer.to_vec()).unwrap())
            });
            None
        }
        _ => fail(code::INVALID_PARAMS, "no such tool"),
    }
}

pub(crate) const TOOLS: &str = r#"{"name":"echo","inputSchema":{"type":"object","x":1.0}},{"name":"progress"},{"name":"slow"},{"name":"e\u0076il\u200b"}"#;

/// Starts a fixture server and connects to it.
async fn connect(era: Era) -> (Connection, Fixture) {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let (stdout, stdin) = tokio::io::split(ours);
    let (input, mut output) = tokio::io::split(theirs);
    let (seen, seen_receiver) = watch::channel(Vec::new());
    let (say, mut said) = mpsc::unbounded_channel::<String>();
    let tools = Arc::new(Mutex::new(TOOLS.to_owned()));
    let fixture = Fixture { seen: seen_receiver, out: say.clone(), tools: tools.clone() };
    tokio::spawn(async move {
        while let Some(line) = said.recv().await {
            if output.write_all(format!("{line}\n").as_bytes()).await.is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        let mut lines = BufReader::new(input).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let message = Message::parse(Bytes::from(line.clone())).unwrap();
            seen.send_modify(|lines| lines.push(line));
            let listed = tools.lock().unwrap().clone();
            if message.kind() == Kind::Request
                && let Some(answer) = answer(era, &listed, &message, &say)
            {
                let _ = say.send(String::from_utf8(answer.to_vec()).unwrap());
            }
        }
    });
    let (noise, _) = mpsc::channel(1);
    let connection = Connection::open(
        stdout,
        stdin,
        Options { first_id: 1, resumed: false, noise, max_message_bytes: MAX_MESSAGE_BYTES, room: Room::default() },
    );
    assert_eq!(connection.handshake(None, LONG).await.unwrap().era, era);
    (connection, fixture)
}

/// A toolbox as the gateway sees it.
#[derive(Default)]
pub(crate) struct Toolbox {
    connections: HashMap<InstanceId, Connection>,
    /// Instances that take no calls any more.
    stopping: HashSet<InstanceId>,
    /// Which copy each message was for.
    pub(crate) keys: Vec<Option<String>>,
    /// Copies that nobody needs any more, as it was told.
    ended: watch::Sender<Vec<(InstanceId, String)>>,
    /// Whether what says that a call is given up is held back before its server.
    is_deaf: watch::Sender<bool>,
}

type Connections = Arc<Mutex<Toolbox>>;

fn connection(all: &Connections, id: &str) -> Result<Connection, Box<Response>> {
    let (all, id) = (all.lock().unwrap(), InstanceId::from_str(id).unwrap());
    let refuse = |code, why: &'static str| {
        let problem = toolyard_types::Problem::new(code, "it is not there");
        let status = StatusCode::from_u16(problem.status).unwrap();
        Box::new((status, [("toolyard-undelivered", why)], axum::Json(problem)).into_response())
    };
    if all.stopping.contains(&id) {
        return Err(refuse(toolyard_types::Code::ServerNotReady, "stopping"));
    }
    all.connections.get(&id).cloned().ok_or_else(|| refuse(toolyard_types::Code::ServerNotReady, "not ready"))
}

/// A toolbox's DTMA API in front of the connections, as an agent serves it.
fn toolbox(connections: Connections) -> axum::Router {
    async fn messages(
        State(all): State<Connections>,
        Path(id): Path<String>,
        headers: http::HeaderMap,
        body: Bytes,
    ) -> Response {
        let connection = match connection(&all, &id) {
            Ok(connection) => connection,
            Err(refusal) => return *refusal,
        };
        let began = std::time::Instant::now();
        let key = headers.get("toolyard-instance-key").map(|key| key.to_str().unwrap().to_owned());
        let mut is_deaf = {
            let mut all = all.lock().unwrap();
            all.keys.push(key);
            all.is_deaf.subscribe()
        };
        if Message::parse(body.clone()).is_ok_and(|message| message.method() == "notifications/cancelled") {
            is_deaf.wait_for(|is_deaf| !is_deaf).await.unwrap();
        }
        let caller = Caller::parse(headers["toolyard-principal"].to_str().unwrap());
        let call = headers.get("toolyard-call").map(|name| u128::from_str_radix(name.to_str().unwrap(), 16).unwrap());
        let mut stream = connection.send_from(MessageContext { caller, share: caller, call }, body).unwrap();
        // As an agent does: the status waits for the first message.
        let Some(first) = stream.next().await else { return StatusCode::OK.into_response() };
        let deadline_ms = headers["toolyard-deadline-ms"].to_str().unwrap().parse().unwrap();
        let deadline = tokio::time::sleep(Duration::from_millis(deadline_ms).saturating_sub(began.elapsed()));
        let messages = futures_util::stream::iter([first]).chain(stream.take_until(deadline));
        Body::from_stream(messages.map(|message| message.map(|message| frames::encode(&message)))).into_response()
    }
    async fn events(State(all): State<Connections>, Path(id): Path<String>) -> Response {
        let connection = match connection(&all, &id) {
            Ok(connection) => connection,
            Err(refusal) => return *refusal,
        };
        let unsolicited = tokio_stream::wrappers::BroadcastStream::new(connection.unsolicited());
        Body::from_stream(unsolicited.map(|message| message.map(|message| frames::encode(&message)))).into_response()
    }
    async fn handshake(State(all): State<Connections>, Path(id): Path<String>) -> Response {
        let connection = match connection(&all, &id) {
            Ok(connection) => connection,
            Err(refusal) => return *refusal,
        };
        axum::Json(connection.handshake_result().unwrap()).into_response()
    }
    async fn end_copy(State(all): State<Connections>, Path(id): Path<String>, headers: http::HeaderMap) -> StatusCode {
        let key = headers["toolyard-instance-key"].to_str().unwrap().to_owned();
        let ended = (InstanceId::from_str(&id).unwrap(), key);
        all.lock().unwrap().ended.send_modify(|all| all.push(ended));
        StatusCode::NO_CONTENT
    }
    axum::Router::new()
        .route("/v1/instances/{id}/messages", post(messages))
        .route("/v1/instances/{id}/copy", delete(end_copy))
        .route("/v1/instances/{id}/events", get(events))
        .route("/v1/instances/{id}/handshake", get(handshake))
        .with_state(connections)
}

/// Builds a world.
pub(crate) struct Builder {
    servers: Vec<(&'static str, Option<Era>)>,
    replicated: Vec<(&'static str, &'static [&'static str])>,
    remotes: Vec<(&'static str, String)>,
    toolsets: Vec<(&'static str, Vec<ToolsetMember>)>,
    call_timeout_ms: u64,
    limits: Limits,
}

pub(crate) fn world() -> Builder {
    let limits = Limits::default();
    let (servers, replicated, remotes, toolsets) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    Builder { servers, replicated, remotes, toolsets, call_timeout_ms: 20_000, limits }
}

impl Builder {
    pub(crate) fn server(mut self, name: &'static str, era: Era) -> Self {
        self.servers.push((name, Some(era)));
        self
    }

    /// A legacy server with several instances, each on a toolbox of its own and a fixture by its name.
    pub(crate) fn replicated(mut self, name: &'static str, instances: &'static [&'static str]) -> Self {
        self.replicated.push((name, instances));
        self
    }

    /// A server whose instance is gone, though the snapshot still names it.
    pub(crate) fn broken(mut self, name: &'static str) -> Self {
        self.servers.push((name, None));
        self
    }

    pub(crate) fn remote(mut self, name: &'static str, url: String) -> Self {
        self.remotes.push((name, url));
        self
    }

    pub(crate) fn toolset(mut self, name: &'static str, members: &[&str]) -> Self {
        let members = members.iter().map(|server| ToolsetMember::whole(Name::new(*server).unwrap()));
        self.toolsets.push((name, members.collect()));
        self
    }

    pub(crate) fn selection(mut self, name: &'static str, server: &str, tools: &[&str]) -> Self {
        let tools = Some(tools.iter().map(|tool| (*tool).to_owned()).collect());
        self.toolsets.push((name, vec![ToolsetMember { tools, ..ToolsetMember::whole(Name::new(server).unwrap()) }]));
        self
    }

    pub(crate) fn described(mut self, name: &'static str, server: &str, tool: &str, said: ToolOverride) -> Self {
        let overrides = [(tool.to_owned(), said)].into();
        self.toolsets
            .push((name, vec![ToolsetMember { overrides, ..ToolsetMember::whole(Name::new(server).unwrap()) }]));
        self
    }

    pub(crate) fn call_timeout_ms(mut self, ms: u64) -> Self {
        self.call_timeout_ms = ms;
        self
    }

    pub(crate) fn limits(mut self, calls: usize, streams: usize) -> Self {
        self.limits = Limits { calls, streams, ..Limits::default() };
        self
    }

    pub(crate) fn bounds(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    pub(crate) async fn start(self) -> World {
        let toolbox_id = ToolboxId::generate();
        let connections = Connections::default();
        let mut fixtures = HashMap::new();
        let mut servers = std::collections::BTreeMap::new();
        let organization = OrganizationId::generate();
        let route = |target| ServerRoute {
            organization,
            id: ServerId::generate(),
            revision: Some(RevisionId::generate()),
            rollout: None,
            target,
            is_coming: false,
            phase: Phase::Ready,
            reason: Reason::Answered,
            message: String::new(),
            call_timeout_ms: self.call_timeout_ms,
            instancing: toolyard_types::spec::InstancingMode::Shared,
            canary: None,
        };
        for (name, era) in &self.servers {
            let id = InstanceId::generate();
            if let Some(era) = era {
                let (connection, fixture) = connect(*era).await;
                connections.lock().unwrap().connections.insert(id, connection);
                fixtures.insert(*name, fixture);
            }
            let instance = InstanceRoute { id, toolbox: toolbox_id, era: era.unwrap_or(Era::Legacy) };
            servers.insert(Name::new(*name).unwrap(), Arc::new(route(Target::Instances(vec![instance]))));
        }
        let mut instances = HashMap::new();
        for (name, replicas) in &self.replicated {
            let mut routes = Vec::new();
            for replica in *replicas {
                let (connection, fixture) = connect(Era::Legacy).await;
                let route =
                    InstanceRoute { id: InstanceId::generate(), toolbox: ToolboxId::generate(), era: Era::Legacy };
                connections.lock().unwrap().connections.insert(route.id, connection);
                fixtures.insert(*replica, fixture);
                instances.insert(*replica, route.clone());
                routes.push(route);
            }
            servers.insert(Name::new(*name).unwrap(), Arc::new(route(Target::Instances(routes))));
        }
        let unlinked: Arc<Mutex<HashSet<ToolboxId>>> = Arc::default();
        let cut = unlinked.clone();
        let mut leased = HashMap::new();
        for (name, url) in &self.remotes {
            let remote = route(Target::Remote { transport: toolyard_types::spec::RemoteTransport::StreamableHttp });
            leased.insert(remote.id, url.clone());
            servers.insert(Name::new(*name).unwrap(), Arc::new(remote));
        }
        let stopped = ServerRoute { phase: Phase::Failed, reason: Reason::CrashLoop, ..route(Target::None) };
        servers.insert(Name::new("stopped").unwrap(), Arc::new(stopped));
        let toolsets = self.toolsets.into_iter().map(|(name, members)| {
            let route = ToolsetRoute { id: ToolsetId::generate(), description: "All of it.".into(), members };
            (Name::new(name).unwrap(), Arc::new(route))
        });
        let organization = OrganizationSnapshot {
            id: organization,
            name: Name::new("default").unwrap(),
            servers,
            toolsets: toolsets.collect(),
            credentials: 0,
        };
        let clock = Clock::stopped_at(Timestamp::from_ms(1_700_000_000_000));
        let mut snapshot = Snapshot { version: 1, made_at: clock.now(), ..Snapshot::default() };
        add_key(&mut snapshot, &organization, KEY, Role::Developer, None);
        add_key(&mut snapshot, &organization, "viewer", Role::Viewer, None);
        let expired = clock.now();
        add_key(&mut snapshot, &organization, "expired", Role::Developer, Some(expired));
        let other = OrganizationSnapshot {
            id: OrganizationId::generate(),
            name: Name::new("other").unwrap(),
            servers: std::collections::BTreeMap::default(),
            toolsets: std::collections::BTreeMap::default(),
            credentials: 0,
        };
        add_key(&mut snapshot, &other, "stranger", Role::Owner, None);
        for organization in [organization, other] {
            snapshot.organizations.insert(organization.name.clone(), Arc::new(organization));
        }
        let (snapshots, snapshot) = watch::channel(Arc::new(snapshot));
        let (records, record_receiver) = mpsc::channel(1000);
        let channel = toolyard_link::in_process(toolbox(connections.clone()));
        let channel = Arc::new(Mutex::new(channel));
        let leases: Arc<Mutex<HashMap<ServerId, String>>> = Arc::new(Mutex::new(leased));
        let given = leases.clone();
        let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
        let let_in = Arc::new(AtomicUsize::new(0));
        let options = || GatewayOptions {
            snapshot: snapshot.clone(),
            max_snapshot_age: Duration::from_secs(60),
            news_patience: Duration::from_millis(200),
            hold: Duration::from_secs(2),
            toolboxes: {
                let (cut, channel) = (cut.clone(), channel.clone());
                Arc::new(move |id| (!cut.lock().unwrap().contains(&id)).then(|| channel.lock().unwrap().clone()))
            },
            lease: {
                let given = given.clone();
                Arc::new(move |server| {
                    let url = given.lock().unwrap().get(&server).cloned();
                    Box::pin(async move {
                        let url = url.ok_or_else(|| LeaseError("there is no lease".into()))?;
                        Ok(RemoteLease {
                            url: toolyard_types::Secret::new(url),
                            headers: vec![("x-secret".into(), toolyard_types::Secret::new("s3cret"))],
                            until: Timestamp::from_ms(i64::MAX),
                        })
                    })
                })
            },
            http: toolyard_mcp::http::pooled(client.clone()),
            room: Room::default(),
            decide: Arc::new(|principal, action, _| action == Action::ToolCall && principal.role != Role::Viewer),
            note_key: {
                let let_in = let_in.clone();
                Arc::new(move |_| {
                    let_in.fetch_add(1, Ordering::Relaxed);
                })
            },
            records: records.clone(),
            clock: clock.clone(),
            max_body_bytes: 1 << 20,
            session_key: [9; 32],
            allowed_hosts: Some(vec!["localhost".into()]),
            allowed_origins: Vec::new(),
        };
        let gateway = Gateway::with_limits(options(), self.limits);
        World {
            replica: Gateway::with_limits(options(), self.limits).router(),
            router: gateway.router(),
            gateway,
            fixtures,
            instances,
            connections,
            unlinked,
            leases,
            records: record_receiver,
            snapshots,
            clock,
            let_in,
        }
    }
}

/// Adds a key that may do what another may.
pub(crate) fn add_key_like(snapshot: &mut Snapshot, like: &str, key: &str) {
    let digest = |key: &str| Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let grant = KeyGrant { id: ApiKeyId::generate(), name: key.to_owned(), ..(*snapshot.keys[&digest(like)]).clone() };
    snapshot.keys.insert(digest(key), Arc::new(grant));
}

fn add_key(
    snapshot: &mut Snapshot,
    organization: &OrganizationSnapshot,
    key: &str,
    role: Role,
    expires_at: Option<Timestamp>,
) {
    let grant = KeyGrant {
        id: ApiKeyId::generate(),
        name: key.to_owned(),
        organization: organization.id,
        organization_name: organization.name.clone(),
        role,
        scope: None,
        expires_at,
        member: None,
        share_of: None,
    };
    let digest: String = Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect();
    snapshot.keys.insert(digest, Arc::new(grant));
}

/// A running gateway and what is around it.
pub(crate) struct World {
    pub(crate) router: axum::Router,
    /// Another replica of the gateway.
    pub(crate) replica: axum::Router,
    pub(crate) gateway: Gateway,
    fixtures: HashMap<&'static str, Fixture>,
    /// Of replicated servers.
    instances: HashMap<&'static str, InstanceRoute>,
    connections: Connections,
    unlinked: Arc<Mutex<HashSet<ToolboxId>>>,
    leases: Arc<Mutex<HashMap<ServerId, String>>>,
    pub(crate) records: mpsc::Receiver<CallRecord>,
    pub(crate) snapshots: watch::Sender<Arc<Snapshot>>,
    pub(crate) clock: Clock,
    /// How often a request was let in.
    pub(crate) let_in: Arc<AtomicUsize>,
}

impl World {
    pub(crate) fn fixture(&self, name: &str) -> &Fixture {
        &self.fixtures[name]
    }

    /// Ends every connection of the toolbox.
    pub(crate) fn break_toolbox(&self) {
        self.connections.lock().unwrap().connections.drain().for_each(|(_, connection)| connection.close());
    }

    /// The instance has ended and is being started again, until the connection is put back.
    pub(crate) fn lose(&self, name: &str) -> Connection {
        self.connections.lock().unwrap().connections.remove(&self.instances[name].id).unwrap()
    }

    pub(crate) fn put_back(&self, name: &str, connection: Connection) {
        self.connections.lock().unwrap().connections.insert(self.instances[name].id, connection);
    }

    pub(crate) fn instance(&self, name: &str) -> InstanceRoute {
        self.instances[name].clone()
    }

    /// An instance that no toolbox has, on a toolbox with a link.
    pub(crate) fn other_instance(&self) -> InstanceRoute {
        InstanceRoute { id: InstanceId::generate(), toolbox: ToolboxId::generate(), era: Era::Legacy }
    }

    /// Cuts the link to an instance's toolbox.
    pub(crate) fn cut(&self, name: &str) {
        self.unlinked.lock().unwrap().insert(self.instances[name].toolbox);
    }

    /// Brings the link of an instance's toolbox back.
    pub(crate) fn heal(&self, name: &str) {
        self.unlinked.lock().unwrap().remove(&self.instances[name].toolbox);
    }

    /// The instance takes no calls any more; those it has go on.
    pub(crate) fn stop(&self, name: &str) {
        self.connections.lock().unwrap().stopping.insert(self.instances[name].id);
    }

    /// Has the toolbox hold back what says that a call is given up, or not any more.
    pub(crate) fn be_deaf(&self, is_deaf: bool) {
        self.connections.lock().unwrap().is_deaf.send_replace(is_deaf);
    }

    /// Which copies the messages since the last time were for.
    pub(crate) fn take_keys(&self) -> Vec<Option<String>> {
        std::mem::take(&mut self.connections.lock().unwrap().keys)
    }

    /// Waits until so many copies were ended, and gives all that were.
    pub(crate) async fn ended_copies(&self, count: usize) -> Vec<(InstanceId, String)> {
        let mut ended = self.connections.lock().unwrap().ended.subscribe();
        let all = tokio::time::timeout(LONG, ended.wait_for(|ended| ended.len() >= count)).await;
        all.expect("in time").expect("the toolbox lives").clone()
    }

    /// Ends a legacy session.
    pub(crate) async fn end_session(&self, path: &str, session: &str) -> StatusCode {
        let mut request = post_request(path, &[("mcp-session-id", session)], Body::empty());
        *request.method_mut() = http::Method::DELETE;
        self.send(request).await.status()
    }

    /// Where a remote server is from now on.
    pub(crate) fn lease(&self, server: &str, url: String) {
        let id = self.snapshots.borrow().organizations["default"].servers[server].id;
        self.leases.lock().unwrap().insert(id, url);
    }

    /// Changes a server's route in a new snapshot.
    pub(crate) fn reroute(&self, server: &str, change: impl FnOnce(&mut ServerRoute)) {
        self.snapshots.send_modify(|snapshot| {
            let snapshot = Arc::make_mut(snapshot);
            snapshot.version += 1;
            let organization = Arc::make_mut(snapshot.organizations.get_mut("default").unwrap());
            change(Arc::make_mut(organization.servers.get_mut(server).unwrap()));
        });
    }

    /// Calls a tool as a modern client and gives the status and the answer.
    pub(crate) async fn call(&self, path: &str, tool: &str) -> (StatusCode, serde_json::Value) {
        let response =
            self.modern(path, "tools/call", Some(tool), &format!(r#""name":"{tool}","arguments":{{}}"#)).await;
        (response.status(), json(response).await)
    }

    /// How many calls of a tool an instance was sent.
    pub(crate) fn calls(&self, name: &str) -> usize {
        self.fixture(name).count(|line| line.contains("tools/call"))
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Response {
        let answer = tokio::time::timeout(LONG, self.router.clone().oneshot(request)).await;
        answer.expect("in time").expect("infallible")
    }

    pub(crate) async fn post(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Response {
        self.send(post_request(path, headers, body)).await
    }

    /// Opens a legacy session and gives its id.
    pub(crate) async fn initialize(&self, path: &str, version: &str) -> String {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{"protocolVersion":"{version}","capabilities":{{"roots":{{}}}},"clientInfo":{{"name":"tester","version":"1"}}}}}}"#
        );
        let response = self.post(path, &[], body).await;
        assert_eq!(response.status(), StatusCode::OK);
        response.headers()["mcp-session-id"].to_str().unwrap().to_owned()
    }

    /// Opens a session's stream of changes.
    pub(crate) async fn listen(&self, path: &str, session: &str) -> Response {
        let mut request = post_request(path, &[("mcp-session-id", session)], Body::empty());
        *request.method_mut() = http::Method::GET;
        self.send(request).await
    }

    /// Sends a legacy message in a session.
    pub(crate) async fn legacy(&self, path: &str, session: &str, body: impl Into<Body>) -> Response {
        self.post(path, &[("mcp-session-id", session), ("mcp-protocol-version", "2025-06-18")], body).await
    }

    /// Sends a modern request; `params` are the members beside `_meta`.
    pub(crate) async fn legacy_as(&self, key: &str, path: &str, session: &str, body: String) -> Response {
        let headers = [
            ("authorization", &*format!("Bearer {key}")),
            ("mcp-session-id", session),
            ("mcp-protocol-version", "2025-06-18"),
        ];
        self.post(path, &headers, body).await
    }

    /// Opens a legacy session with a key and gives its id.
    pub(crate) async fn initialize_as(&self, key: &str, path: &str) -> String {
        let body = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18"}}"#;
        let response = self.post(path, &[("authorization", &format!("Bearer {key}"))], body).await;
        response.headers()["mcp-session-id"].to_str().unwrap().to_owned()
    }

    pub(crate) async fn modern(&self, path: &str, method: &str, name: Option<&str>, params: &str) -> Response {
        self.send(modern_request(path, method, name, params)).await
    }

    pub(crate) async fn record(&mut self) -> CallRecord {
        tokio::time::timeout(LONG, self.records.recv()).await.expect("in time").expect("a record")
    }
}

pub(crate) fn post_request(path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Request<Body> {
    let mut request = Request::post(path)
        .header(header::HOST, "localhost:1")
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json, text/event-stream");
    if !headers.iter().any(|(name, _)| *name == "authorization") {
        request = request.header(header::AUTHORIZATION, format!("Bearer {KEY}"));
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.into()).unwrap()
}

pub(crate) fn modern_request(path: &str, method: &str, name: Option<&str>, params: &str) -> Request<Body> {
    let comma = if params.is_empty() { "" } else { "," };
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":"m-1","method":"{method}","params":{{"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{{}}}}{comma}{params}}}}}"#
    );
    let mut headers = vec![("mcp-protocol-version", "2026-07-28"), ("mcp-method", method)];
    headers.extend(name.map(|name| ("mcp-name", name)));
    post_request(path, &headers, body)
}

pub(crate) async fn text(response: Response) -> String {
    let body = tokio::time::timeout(LONG, response.into_body().collect()).await.expect("in time").unwrap();
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}

pub(crate) async fn json(response: Response) -> serde_json::Value {
    let text = text(response).await;
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text}"))
}

/// The data of every event of a finished stream.
pub(crate) async fn events(response: Response) -> Vec<String> {
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    let text = text(response).await;
    text.lines().filter_map(|line| line.strip_prefix("data: ")).map(str::to_owned).collect()
}

/// The next event's data of a stream that goes on.
pub(crate) async fn next_event(body: &mut Body) -> String {
    let mut text = String::new();
    loop {
        let frame = tokio::time::timeout(LONG, body.frame()).await.expect("in time").expect("open").unwrap();
        text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
        if let Some(data) = text.lines().find_map(|line| line.strip_prefix("data: "))
            && text.ends_with("\n\n")
        {
            return data.to_owned();
        }
    }
}

/// Waits until a stream has begun.
pub(crate) async fn next_event_or_comment(body: &mut Body) {
    let frame = tokio::time::timeout(LONG, body.frame()).await.expect("in time").expect("open").unwrap();
    assert!(frame.data_ref().is_some());
}

pub(crate) fn tool_names(list: &serde_json::Value) -> Vec<String> {
    let tools = list["result"]["tools"].as_array().unwrap_or_else(|| panic!("no tools: {list}"));
    tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
}
