//! A server in a container that speaks Streamable HTTP, as if it spoke over its standard streams.
//!
//! Its port is published nowhere. The agent makes each connection inside the container's network namespace, to the
//! loopback device there, so it does not matter what other network the container has, if any, and nobody else comes
//! that way. What is above sees lines of JSON-RPC as from any other server: probes, restarts, phases and the DTMA API
//! know no difference.
//!
//! - The era and the session are the HTTP client's affair; a `server/discover` or `initialize` that comes down is
//!   answered with what it found out. After a restart of the agent a session is opened again.
//! - The container's standard output is no protocol here; it goes to the log.
//! - A server that takes no connection any more is as one that closed its output: the stream ends, and it is
//!   started again.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncBufReadExt, AsyncWrite, AsyncWriteExt, BufReader, DuplexStream};
use tokio::net::TcpStream;
use tokio::sync::{broadcast, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::task::AbortOnDropHandle;
use toolyard_mcp::envelope::{self, Kind, Message};
use toolyard_mcp::era::{Era, Handshake, code};
use toolyard_mcp::http::{Client as Sender, Stream, Upstream, pooled};
use toolyard_mcp::stdio::{CallError, Caller, HandshakeError};
use toolyard_mcp::{CancelReason, Room};
use toolyard_types::agent::Failure;
use toolyard_types::name::printable;
use toolyard_types::spec::HttpEndpoint;
use toolyard_types::state::Reason;
use toolyard_types::{CredentialId, Secret};

use super::namespace::Namespace;
use crate::engine::render;
use crate::packages::failure;

/// Between the connection and the bridge; more makes either wait.
const PIPE_BYTES: usize = 64 << 10;
/// Messages on their way up.
const BACKLOG: usize = 64;
/// Calls at once; another one is refused.
const MAX_CALLS: usize = 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);
/// How soon a server that does not listen yet is tried again, at first and at last.
const KNOCK: (Duration, Duration) = (Duration::from_millis(25), Duration::from_millis(400));
/// After a connection broke, how long until it is looked whether the server still listens.
const LAST_BREATH: Duration = Duration::from_millis(200);
/// JSON-RPC: the server cannot do it now.
const INTERNAL_ERROR: i64 = -32603;

/// The streams of a server that speaks HTTP, and what carries them.
pub(super) struct Bridge {
    pub(super) stdin: DuplexStream,
    pub(super) stdout: DuplexStream,
    pub(super) task: AbortOnDropHandle<()>,
}

/// The headers that a server wants with every request.
///
/// # Errors
/// When a secret for one is missing, or one cannot be sent.
pub(super) fn headers(endpoint: &HttpEndpoint, secrets: &BTreeMap<CredentialId, Secret>) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    for (name, value) in &endpoint.headers {
        let invalid = || failure(Reason::ConfigInvalid, format!("the header `{}` cannot be sent", printable(name)));
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid())?;
        let mut value = HeaderValue::from_str(render(value, secrets)?.expose()).map_err(|_| invalid())?;
        value.set_sensitive(true);
        headers.insert(header, value);
    }
    Ok(headers)
}

/// Begins to carry messages to a server in the network namespace of `pid`, with these headers. A `plain` one is asked
/// nothing before `initialize`.
///
/// # Errors
/// When the namespace cannot be opened.
pub(super) fn open(
    pid: u32,
    endpoint: &HttpEndpoint,
    headers: HeaderMap,
    plain: bool,
    room: Room,
) -> io::Result<Bridge> {
    let place = Arc::new(Place { namespace: Namespace::of(pid)?, port: endpoint.port });
    let url = format!("http://localhost:{}{}", endpoint.port, endpoint.path);
    let url: Uri = url.parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the path is no path"))?;
    let upstream = Upstream::with_room(client(&place), url, headers, room);
    let upstream = upstream.knowing(plain.then_some(Era::Legacy));
    let (stdin, down) = tokio::io::duplex(PIPE_BYTES);
    let (up, stdout) = tokio::io::duplex(PIPE_BYTES);
    let task = AbortOnDropHandle::new(tokio::spawn(carry(upstream, place, down, up)));
    Ok(Bridge { stdin, stdout, task })
}

/// Where the server listens.
struct Place {
    namespace: Namespace,
    port: u16,
}

impl Place {
    async fn connect(&self) -> io::Result<TcpStream> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        match self.namespace.connect(address, CONNECT_TIMEOUT).await {
            // Some listen on `localhost` and mean the other one.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                let address = SocketAddr::from((Ipv6Addr::LOCALHOST, self.port));
                self.namespace.connect(address, CONNECT_TIMEOUT).await.map_err(|_| error)
            }
            other => other,
        }
    }
}

fn client(place: &Arc<Place>) -> Sender {
    let place = Arc::clone(place);
    let connector = tower::service_fn(move |_: Uri| {
        let place = Arc::clone(&place);
        Box::pin(async move { place.connect().await.map(TokioIo::new) })
    });
    pooled(Client::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(connector))
}

/// How a message that went down ended.
enum Done {
    /// It is answered, or needs no answer.
    Fine,
    /// The server takes no connection any more.
    Gone,
}

/// The calls under way by the ids that they came with, and what their servers are told should they be given up.
type ById = HashMap<String, (AbortHandle, CancelReason)>;

/// What the tasks of one bridge share.
#[derive(Clone)]
struct Carrier {
    upstream: Upstream,
    place: Arc<Place>,
    up: mpsc::Sender<Bytes>,
}

/// Carries messages both ways until either side ends.
async fn carry(upstream: Upstream, place: Arc<Place>, down: DuplexStream, up: DuplexStream) {
    let mut unsolicited = upstream.unsolicited();
    let (sender, messages) = mpsc::channel(BACKLOG);
    let carrier = Carrier { upstream, place, up: sender };
    let mut writing = std::pin::pin!(write(messages, up));
    let mut lines = BufReader::new(down);
    let mut line = Vec::new();
    let mut calls: JoinSet<Done> = JoinSet::new();
    let mut by_id = ById::new();
    loop {
        tokio::select! {
            () = &mut writing => return,
            // Safe to give up and begin again: what was read stays in `line`. It is our own connection that writes
            // there, of messages that were bounded where they came in.
            read = lines.read_until(b'\n', &mut line) => {
                if line.last() != Some(&b'\n') || read.is_err() {
                    return;
                }
                carrier.take(Bytes::from(std::mem::take(&mut line)), &mut calls, &mut by_id);
            }
            done = calls.join_next(), if !calls.is_empty() => {
                by_id.retain(|_, (call, _)| !call.is_finished());
                if matches!(done, Some(Ok(Done::Gone))) {
                    return;
                }
            }
            heard = unsolicited.recv() => match heard {
                // Whoever is slow to read misses some, as everywhere; this loop must not wait for what it writes itself.
                Ok(message) => drop(carrier.up.try_send(message)),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return,
            },
        }
    }
}

/// Writes messages, each on a line of its own.
async fn write(mut messages: mpsc::Receiver<Bytes>, mut up: impl AsyncWrite + Unpin) {
    while let Some(message) = messages.recv().await {
        // A body may hold line breaks; inside of JSON they are nothing but blanks.
        let mut text: Vec<u8> =
            message.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect();
        text.push(b'\n');
        if up.write_all(&text).await.is_err() {
            return;
        }
    }
}

impl Carrier {
    /// Begins what a message that comes down asks for.
    fn take(&self, line: Bytes, calls: &mut JoinSet<Done>, by_id: &mut ById) {
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        let Ok(message) = Message::parse(line) else { return };
        let carrier = self.clone();
        match (message.kind(), message.method()) {
            (Kind::Notification, "notifications/initialized") => {}
            (Kind::Notification, "notifications/cancelled") => {
                // Dropping the call tells the server, in the way of its era.
                if let Some((call, reason)) = cancelled(&message).and_then(|id| by_id.remove(&id)) {
                    reason.say(&message.payload_string("reason").ok().flatten().unwrap_or_default());
                    call.abort();
                }
            }
            // Our own answer would be taken for one of a server that hangs.
            (Kind::Request, "ping" | "server/discover") if calls.len() >= MAX_CALLS => {}
            (Kind::Request, method) => {
                let id = message.raw_id().unwrap_or("null").to_owned();
                if calls.len() >= MAX_CALLS {
                    let refused = envelope::error(Some(&id), INTERNAL_ERROR, "too many calls at once", None);
                    // Not by this loop, which must not wait; it ends with the other side.
                    tokio::spawn(async move { carrier.say(refused).await });
                    return;
                }
                let reason = CancelReason::default();
                let call = match method {
                    "server/discover" | "initialize" => calls.spawn(carrier.open(message)),
                    _ => calls.spawn(carrier.call(message, reason.clone())),
                };
                by_id.insert(id, (call, reason));
            }
            (Kind::Notification | Kind::Result | Kind::Error, _) if calls.len() < MAX_CALLS => {
                calls.spawn(async move {
                    // Nobody waits to hear how it went.
                    let _ = carrier.upstream.send(message.into_bytes()).await;
                    Done::Fine
                });
            }
            _ => {}
        }
    }

    /// Answers a handshake with what the server said of itself.
    async fn open(self, message: Message) -> Done {
        let id = message.raw_id().unwrap_or("null").to_owned();
        let modern = message.method() == "server/discover";
        let answer = match self.handshake().await {
            Ok(handshake) if (handshake.era == Era::Modern) == modern => {
                envelope::result(&id, &String::from_utf8_lossy(&handshake.result))
            }
            Ok(_) => envelope::error(Some(&id), code::METHOD_NOT_FOUND, "it speaks the other era", None),
            Err(error) => envelope::error(Some(&id), INTERNAL_ERROR, &error.to_string(), None),
        };
        self.say(answer).await
    }

    /// Waits until the server listens and answers; how long it may take is the prober's affair.
    async fn handshake(&self) -> Result<Arc<Handshake>, HandshakeError> {
        let mut pause = KNOCK.0;
        loop {
            if self.place.connect().await.is_ok() {
                match self.upstream.handshake(HANDSHAKE_TIMEOUT).await {
                    // It listens before it is ready.
                    Err(HandshakeError::Unreachable(_) | HandshakeError::Closed | HandshakeError::Status(500..)) => {}
                    outcome => return outcome,
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(KNOCK.1);
        }
    }

    async fn call(self, message: Message, reason: CancelReason) -> Done {
        let id = message.raw_id().unwrap_or("null").to_owned();
        let message = message.into_bytes();
        let error = loop {
            match self.upstream.send_cancellable(Caller::Unknown, message.clone(), reason.clone()).await {
                Ok(stream) => match self.follow(stream).await {
                    Ok(done) => return done,
                    Err(error) => break error,
                },
                // It opened no session in time, so it has not seen this yet. An error would be taken for its own, and
                // one that hangs for one that answers.
                Err(CallError::Timeout(_)) => {}
                Err(error) => break error,
            }
        };
        if matches!(error, CallError::Unreachable(_) | CallError::Dropped | CallError::Ended | CallError::Closed) {
            // One that crashes closes its connections one by one.
            tokio::time::sleep(LAST_BREATH).await;
            if self.place.connect().await.is_err() {
                return Done::Gone;
            }
        }
        self.say(envelope::error(Some(&id), INTERNAL_ERROR, &error.to_string(), None)).await
    }

    /// Passes on all that belongs to a call.
    async fn follow(&self, mut stream: Stream) -> Result<Done, CallError> {
        while let Some(message) = stream.next().await {
            self.pass_on(message?).await;
        }
        Ok(Done::Fine)
    }

    async fn pass_on(&self, message: Bytes) {
        // Nobody to hear it is the end of the bridge.
        let _ = self.up.send(message).await;
    }

    async fn say(&self, message: Bytes) -> Done {
        self.pass_on(message).await;
        Done::Fine
    }
}

/// The id of the call that a notification takes back, as it was written.
fn cancelled(message: &Message) -> Option<String> {
    let params = message.payload_object()?;
    let span = params.get("requestId").ok()??;
    Some(message.text(span).to_owned())
}
