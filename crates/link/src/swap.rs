//! Links: connections that an agent dials and then *serves* on.
//!
//! The agent opens an ordinary HTTP/1.1 request with `Upgrade: toolyard-link`; after `101` both sides speak
//! HTTP/2 on the same socket with their roles swapped: the dialler is the server. So a host needs no open
//! port, and a gateway reaches it with ordinary requests, many at a time, each with its own flow control.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dashmap::DashMap;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use toolyard_types::agent::AGENT_RUN;
use toolyard_types::api::servers::ToolboxLink;
use toolyard_types::{Clock, ToolboxId};
use tower::service_fn;
use tower::util::BoxCloneSyncService;
use tracing::Instrument;

use crate::dial::{DialError, Dialler};
use crate::forward::Replicas;
use crate::stack::{self, Peer};
use crate::streams::{self, SendError};
use crate::tls::{DialledStream, PeerCertificate};
use crate::{Body, Channel, LinkError};

/// The path that agents dial.
pub const LINK_PATH: &str = "/dtma/v1/link";
const PROTOCOL: HeaderValue = HeaderValue::from_static("toolyard-link");
/// Which of its links an agent dials.
const KIND: HeaderName = HeaderName::from_static("toolyard-link");
/// How often a silent connection is asked whether it is still there, and how long it may think about it.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(5);
pub(crate) const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Within this time the link of an agent that is gone has ended, also where nobody says so.
pub const LONGEST_SILENCE: Duration = KEEP_ALIVE.saturating_add(KEEP_ALIVE_TIMEOUT);
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long calls under way may go on once the link is to end. Whoever calls meanwhile waits for the next link, for no
/// longer than a gateway holds calls (5 s): the agent has to be back by then.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);
/// The same when another link has taken its place: longer than any ordinary call.
const RETIRE_TIMEOUT: Duration = Duration::from_secs(600);

/// How much longer the gateway waits for the agent to end a link that was replaced.
const RETIRE_GRACE: Duration = Duration::from_secs(30);
/// Links of one toolbox at once: two, and those that they replaced and that have not ended yet.
const MOST_LINKS: usize = 16;

/// Calls and streams of events on one link at once; what is beyond waits. A gateway follows the events of every
/// instance and carries 10,000 calls; with the library's 200 the one would starve the other.
pub(crate) const MAX_STREAMS: u32 = 20_000;
/// How many calls may be given up before the agent has looked at them. The library suspects an attack after 20 and ends
/// the connection; ours is to a gateway that proved who it is, and many clients may go away at once.
const MAX_RESETS: usize = 20_000;

/// What a link is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// MCP messages.
    Calls,
    /// Logs and downloads, which must not delay a call.
    Bulk,
}

impl LinkKind {
    fn as_str(self) -> &'static str {
        match self {
            LinkKind::Calls => "calls",
            LinkKind::Bulk => "bulk",
        }
    }
}

/// The links that agents keep open to this process, by toolbox. Cheap to clone.
#[derive(Clone)]
pub struct Links(Arc<Open>);

struct Open {
    clock: Clock,
    toolboxes: DashMap<ToolboxId, Toolbox>,
    /// Each link has a number that is never used again: an old connection that ends late must not take the place
    /// of a newer one along.
    numbers: AtomicU64,
    replicas: OnceLock<Replicas>,
    /// How long calls on a link may go on once another has taken its place.
    patience: Duration,
    /// This process is about to end.
    leaving: CancellationToken,
}

/// How one toolbox is reached.
struct Toolbox {
    peer: Arc<Peer>,
    calls: Option<Held>,
    bulk: Option<Held>,
    /// One for each link, from its request to its end.
    places: Arc<Semaphore>,
}

struct Held {
    number: u64,
    channel: Channel,
    /// None in process.
    dialled: Option<Dialled>,
    close: CancellationToken,
    /// Cancelled when another link has taken its place.
    retire: CancellationToken,
}

/// How a link was dialled.
struct Dialled {
    certificate: PeerCertificate,
    /// The run that its agent named.
    run: Option<String>,
    /// Whether that run was looked up.
    is_verified: bool,
}

/// A link whose agent's run nobody has looked up yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnverifiedLink {
    /// The certificate that it was dialled with.
    pub certificate: PeerCertificate,
    /// The run that its agent named, when it did.
    pub run: Option<String>,
    number: u64,
}

/// What ends a link from outside.
#[derive(Clone, Default)]
struct Ends {
    close: CancellationToken,
    retire: CancellationToken,
}

impl Toolbox {
    fn new(toolbox: ToolboxId) -> Self {
        let places = Arc::new(Semaphore::new(MOST_LINKS));
        Self { peer: Peer::new(format!("toolbox {toolbox}")), calls: None, bulk: None, places }
    }

    fn slot(&mut self, kind: LinkKind) -> &mut Option<Held> {
        match kind {
            LinkKind::Calls => &mut self.calls,
            LinkKind::Bulk => &mut self.bulk,
        }
    }
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links").field("toolboxes", &self.0.toolboxes.len()).finish()
    }
}

impl Links {
    /// None yet.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        stack::describe_metrics();
        Self::with_patience(clock, RETIRE_TIMEOUT + RETIRE_GRACE)
    }

    fn with_patience(clock: Clock, patience: Duration) -> Self {
        let (toolboxes, numbers, replicas) = (DashMap::new(), AtomicU64::new(0), OnceLock::new());
        Self(Arc::new(Open { clock, toolboxes, numbers, replicas, patience, leaving: CancellationToken::new() }))
    }

    /// Tells replicas that come by here that this process is about to end.
    pub fn leave(&self) {
        self.0.leaving.cancel();
    }

    /// Cancelled once this process is about to end.
    pub(crate) fn leaving(&self) -> &CancellationToken {
        &self.0.leaving
    }

    /// The channel for calls to a toolbox: its link here, else by way of another replica, where there is one.
    #[must_use]
    pub fn get(&self, toolbox: ToolboxId) -> Option<Channel> {
        self.own(toolbox, LinkKind::Calls).or_else(|| self.0.replicas.get()?.channel(toolbox, LinkKind::Calls))
    }

    /// The channel for logs and downloads; the one for calls while there is no other.
    #[must_use]
    pub fn get_bulk(&self, toolbox: ToolboxId) -> Option<Channel> {
        self.own(toolbox, LinkKind::Bulk).or_else(|| self.0.replicas.get()?.channel(toolbox, LinkKind::Bulk))
    }

    /// A toolbox's link to this process.
    pub(crate) fn own(&self, toolbox: ToolboxId, kind: LinkKind) -> Option<Channel> {
        let entry = self.0.toolboxes.get(&toolbox)?;
        let held = match kind {
            LinkKind::Calls => entry.calls.as_ref(),
            LinkKind::Bulk => entry.bulk.as_ref().or(entry.calls.as_ref()),
        };
        held.map(|held| held.channel.clone())
    }

    /// Reaches toolboxes without a link here by way of these; the first ones given stay.
    pub fn forward_through(&self, replicas: Replicas) {
        let _ = self.0.replicas.set(replicas);
    }

    /// How calls to a toolbox fare.
    #[must_use]
    pub fn health(&self, toolbox: ToolboxId) -> ToolboxLink {
        let Some(entry) = self.0.toolboxes.get(&toolbox) else { return ToolboxLink::default() };
        let health = entry.peer.health();
        ToolboxLink {
            connected: entry.calls.is_some(),
            bulk: entry.bulk.is_some(),
            breaker: health.breaker,
            failures: health.failures,
            retry_at: health.retry_in.map(|wait| self.0.clock.now().plus(wait)),
        }
    }

    /// Puts a channel in, in place of an older one: the built-in toolbox's Router.
    pub fn insert(&self, toolbox: ToolboxId, channel: Channel) {
        self.put(toolbox, LinkKind::Calls, channel, None, Ends::default());
    }

    /// Closes a toolbox's links and forgets it; its agent's next dial is answered like a first one.
    pub fn remove(&self, toolbox: ToolboxId) {
        if let Some((_, entry)) = self.0.toolboxes.remove(&toolbox) {
            entry.calls.iter().chain(&entry.bulk).for_each(|held| held.close.cancel());
        }
    }

    /// Closes every link whose toolbox has a newer enrolment now, or none any more. `current` tells; links in process
    /// stay.
    pub fn close_ended(&self, current: impl Fn(ToolboxId) -> Option<u64>) {
        for entry in &self.0.toolboxes {
            let good = current(*entry.key());
            // A link newer than what was read of its toolbox is not an ended one.
            let enrolment = |held: &Held| held.dialled.as_ref().map(|dialled| dialled.certificate.enrolment);
            let ended = |held: &&Held| enrolment(held).is_some_and(|own| good.is_none_or(|good| own < good));
            entry.calls.iter().chain(&entry.bulk).filter(ended).for_each(|held| held.close.cancel());
        }
    }

    /// The links for calls and logs that were made by [`Links::accept_unverified`] and are not verified yet.
    #[must_use]
    pub fn unverified(&self) -> Vec<UnverifiedLink> {
        let mut unverified = Vec::new();
        for entry in &self.0.toolboxes {
            for held in entry.calls.iter().chain(&entry.bulk) {
                if let Some(Dialled { certificate, run, is_verified: false }) = &held.dialled {
                    let (certificate, run) = (*certificate, run.clone());
                    unverified.push(UnverifiedLink { certificate, run, number: held.number });
                }
            }
        }
        unverified
    }

    /// Notes that the run of a link's agent was looked up.
    pub fn verify(&self, link: &UnverifiedLink) {
        let Some(mut entry) = self.0.toolboxes.get_mut(&link.certificate.toolbox) else { return };
        for kind in [LinkKind::Calls, LinkKind::Bulk] {
            let held = entry.slot(kind).as_mut().filter(|held| held.number == link.number);
            if let Some(dialled) = held.and_then(|held| held.dialled.as_mut()) {
                dialled.is_verified = true;
            }
        }
    }

    fn put(
        &self,
        toolbox: ToolboxId,
        kind: LinkKind,
        channel: Channel,
        dialled: Option<Dialled>,
        Ends { close, retire }: Ends,
    ) -> u64 {
        let number = self.0.numbers.fetch_add(1, Ordering::Relaxed);
        let mut entry = self.0.toolboxes.entry(toolbox).or_insert_with(|| Toolbox::new(toolbox));
        if kind == LinkKind::Calls {
            entry.peer.reset();
        }
        // Logs have their own memory: a log that breaks off must not stop calls.
        let peer = match kind {
            LinkKind::Calls => entry.peer.clone(),
            LinkKind::Bulk => Peer::new(format!("toolbox {toolbox} (bulk)")),
        };
        let channel = stack::through(channel, peer);
        let replaced = entry.slot(kind).replace(Held { number, channel, dialled, close, retire });
        if let Some(replaced) = replaced {
            replaced.retire.cancel();
        }
        number
    }

    /// Forgets the link of this number, unless a newer one took its place.
    fn forget(&self, toolbox: ToolboxId, kind: LinkKind, number: u64) {
        if let Some(mut entry) = self.0.toolboxes.get_mut(&toolbox) {
            entry.slot(kind).take_if(|held| held.number == number);
        }
    }

    /// Answers an agent's dial: switches protocols and, once the socket is ours, takes up the client's role.
    ///
    /// The link is forgotten when its connection ends, unless a newer one took its place. It ends at the latest with
    /// the certificate it was dialled with, and some minutes after another one has taken its place. Of one toolbox there
    /// are at most [`MOST_LINKS`]: an agent that piles up more is refused until some have ended.
    pub fn accept(&self, certificate: PeerCertificate, request: Request<Body>) -> Response<Body> {
        self.switch(Dialled { certificate, run: run(&request), is_verified: true }, request)
    }

    /// As [`Links::accept`], when the run of the agent could not be looked up: [`Links::unverified`] tells of the link until
    /// [`Links::verify`] is told of it.
    pub fn accept_unverified(&self, certificate: PeerCertificate, request: Request<Body>) -> Response<Body> {
        self.switch(Dialled { certificate, run: run(&request), is_verified: false }, request)
    }

    fn switch(&self, dialled: Dialled, mut request: Request<Body>) -> Response<Body> {
        let toolbox = dialled.certificate.toolbox;
        if request.headers().get(header::UPGRADE) != Some(&PROTOCOL) {
            return status(StatusCode::UPGRADE_REQUIRED);
        }
        let bulk = request.headers().get(&KIND).is_some_and(|kind| kind == LinkKind::Bulk.as_str());
        let kind = if bulk { LinkKind::Bulk } else { LinkKind::Calls };
        let Some(place) = self.place(toolbox) else {
            tracing::warn!(toolbox.id = %toolbox, most = MOST_LINKS, "a toolbox has too many links; one was refused");
            return status(StatusCode::TOO_MANY_REQUESTS);
        };
        let links = self.clone();
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            match upgrade.await {
                Ok(io) => links.hold(dialled, kind, io).await,
                Err(error) => tracing::debug!(%error, toolbox.id = %toolbox, "a link did not switch protocols"),
            }
            drop(place);
        });
        let mut response = status(StatusCode::SWITCHING_PROTOCOLS);
        response.headers_mut().insert(header::UPGRADE, PROTOCOL);
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        response
    }

    /// A place for one more link of a toolbox, unless it has too many.
    fn place(&self, toolbox: ToolboxId) -> Option<OwnedSemaphorePermit> {
        let entry = self.0.toolboxes.entry(toolbox).or_insert_with(|| Toolbox::new(toolbox));
        entry.places.clone().try_acquire_owned().ok()
    }

    async fn hold(&self, dialled: Dialled, kind: LinkKind, io: hyper::upgrade::Upgraded) {
        let PeerCertificate { toolbox, expires_at, .. } = dialled.certificate;
        let (sender, connection) = match streams::open(TokioIo::new(io)).await {
            Ok(pair) => pair,
            Err(error) => return tracing::debug!(%error, toolbox.id = %toolbox, "a link did not speak HTTP/2"),
        };
        let ends = Ends::default();
        let number = self.put(toolbox, kind, over(sender, toolbox), Some(dialled), ends.clone());
        tracing::info!(toolbox.id = %toolbox, kind = kind.as_str(), "link open");
        let left = expires_at.since(self.0.clock.now());
        let replaced = async {
            ends.retire.cancelled().await;
            tokio::time::sleep(self.0.patience).await;
        };
        tokio::select! {
            ended = connection => if let Err(error) = ended {
                tracing::debug!(%error, toolbox.id = %toolbox, "link broke");
            },
            () = ends.close.cancelled() => {}
            () = replaced => tracing::debug!(toolbox.id = %toolbox, "streams on a link that was replaced were cut off"),
            () = tokio::time::sleep(left) => tracing::warn!(toolbox.id = %toolbox, "a link's certificate has ended"),
        }
        self.forget(toolbox, kind, number);
        tracing::info!(toolbox.id = %toolbox, kind = kind.as_str(), "link closed");
    }
}

/// The run that an agent names.
#[must_use]
pub fn agent_run(headers: &HeaderMap) -> Option<&str> {
    headers.get(AGENT_RUN)?.to_str().ok()
}

fn run(request: &Request<Body>) -> Option<String> {
    agent_run(request.headers()).map(str::to_owned)
}

fn over(sender: streams::Sender, toolbox: ToolboxId) -> Channel {
    BoxCloneSyncService::new(service_fn(move |request: Request<Body>| {
        let sender = sender.clone();
        async move {
            sender.send(with_authority(request)).await.map_err(|error| match error {
                // As when an agent is being restarted: it is there again in a moment, with another link.
                SendError::NotSent(error) => {
                    tracing::debug!(%error, toolbox.id = %toolbox, "a link takes no more requests");
                    LinkError::NoLink(toolbox.to_string())
                }
                SendError::Broke(source) => LinkError::Unreachable { peer: format!("toolbox {toolbox}"), source },
            })
        }
    }))
}

/// HTTP/2 needs an authority; ours says only that the request travels a link.
fn with_authority(mut request: Request<Body>) -> Request<Body> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    if let Ok(uri) = Uri::builder().scheme("http").authority("toolbox.link").path_and_query(path).build() {
        *request.uri_mut() = uri;
    }
    request
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// A link that was made and is not served yet.
pub struct Link {
    io: hyper::upgrade::Upgraded,
    address: String,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Dialler {
    /// Makes a link to the gateway at `address`, or where the control plane answered last.
    ///
    /// # Errors
    /// When there is no connection in time, or the other side refuses.
    pub async fn link(&self, address: Option<&str>, kind: LinkKind) -> Result<Link, DialError> {
        let stream = match address {
            Some(address) => self.connect(address).await?,
            None => self.connect_any().await?,
        };
        let address = address.map_or_else(|| self.current(), str::to_owned);
        let upgrade = tokio::time::timeout(DIAL_TIMEOUT, upgrade(&address, stream, kind, self.run()));
        let io = upgrade.await.map_err(|elapsed| DialError::Connect(address.clone(), Box::new(elapsed)))??;
        Ok(Link { io, address })
    }
}

impl Link {
    /// Serves `router` until the connection ends; or `shutdown` is cancelled, then calls under way get a few seconds
    /// more; or `retire` is, because another link has taken its place, then they get the time they need.
    pub async fn serve(self, router: axum::Router, shutdown: &CancellationToken, retire: &CancellationToken) {
        self.serve_until(router, shutdown, retire, DRAIN_TIMEOUT).await;
    }

    async fn serve_until(
        self,
        router: axum::Router,
        shutdown: &CancellationToken,
        retire: &CancellationToken,
        drain: Duration,
    ) {
        let address = self.address;
        let router = hyper_util::service::TowerToHyperService::new(router);
        let stop = shutdown.clone();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let id =
                request.headers().get(crate::trace::REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
            let span = tracing::debug_span!("request", request.id = id, http.path = request.uri().path());
            let until = lasts(request.uri().path()).then(|| stop.clone());
            let answer = hyper::service::Service::call(&router, request);
            async move {
                let answer = answer.await?;
                Ok::<_, Infallible>(match until {
                    Some(stop) => answer.map(|body| broken_off(body, stop)),
                    None => answer,
                })
            }
            .instrument(span)
        });
        let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        builder
            .timer(hyper_util::rt::TokioTimer::new())
            .keep_alive_interval(Some(KEEP_ALIVE))
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .max_concurrent_streams(MAX_STREAMS)
            .max_pending_accept_reset_streams(MAX_RESETS)
            .initial_stream_window_size(streams::STREAM_WINDOW)
            .initial_connection_window_size(streams::CONNECTION_WINDOW);
        let connection = builder.serve_connection(TokioIo::new(TokioIo::new(self.io)), service);
        let mut connection = std::pin::pin!(connection);
        let limit = tokio::select! {
            ended = &mut connection => {
                if let Err(error) = ended {
                    tracing::debug!(%error, address, "link broke");
                }
                return;
            }
            () = shutdown.cancelled() => drain,
            () = retire.cancelled() => RETIRE_TIMEOUT,
        };
        connection.as_mut().graceful_shutdown();
        let stopped = async {
            shutdown.cancelled().await;
            tokio::time::sleep(drain).await;
        };
        tokio::select! {
            _ = connection => {}
            () = tokio::time::sleep(limit) => tracing::debug!(address, "streams on a link were cut off"),
            () = stopped => tracing::debug!(address, "streams on a link were cut off"),
        }
    }
}

/// Whether an answer may go on for ever: events, and logs that are followed. A link that is to end waits for calls alone.
fn lasts(path: &str) -> bool {
    path.ends_with("/events") || path.ends_with("/logs")
}

/// A body that breaks off when `stop` is cancelled: whoever reads it sees that it was not all.
fn broken_off(body: Body, stop: CancellationToken) -> Body {
    let stopped = stop.clone();
    let end = async move { stopped.is_cancelled().then(|| Err(axum::Error::new("the agent is being stopped"))) };
    let end = futures_util::stream::once(end).filter_map(std::future::ready);
    Body::from_stream(body.into_data_stream().take_until(stop.cancelled_owned()).chain(end))
}

async fn upgrade(
    address: &str,
    stream: DialledStream,
    kind: LinkKind,
    run: HeaderValue,
) -> Result<hyper::upgrade::Upgraded, DialError> {
    let connect = |error: Box<dyn std::error::Error + Send + Sync>| DialError::Connect(address.to_owned(), error);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Empty<bytes::Bytes>>(TokioIo::new(stream))
            .await
            .map_err(|error| connect(Box::new(error)))?;
    tokio::spawn(connection.with_upgrades());
    let request = Request::builder()
        .method(Method::POST)
        .uri(LINK_PATH)
        .header(header::HOST, crate::tls::SERVER_NAME)
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, PROTOCOL)
        .header(KIND, kind.as_str())
        .header(AGENT_RUN, run)
        .body(Empty::new())
        .map_err(|error| connect(Box::new(error)))?;
    let response: Response<Incoming> = sender.send_request(request).await.map_err(|error| connect(Box::new(error)))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = response.status();
        let _ = response.into_body().collect().await;
        return Err(DialError::Refused(address.to_owned(), status));
    }
    hyper::upgrade::on(response).await.map_err(|error| connect(Box::new(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DialOptions;
    use crate::tls::{Acceptor, AgentKey, Authority, PeerIdentity};
    use toolyard_types::Timestamp;
    use tower::ServiceExt;

    const HOUR: Duration = Duration::from_secs(3600);

    fn nowhere() -> Channel {
        crate::in_process(axum::Router::new())
    }

    fn put(links: &Links, toolbox: ToolboxId) -> u64 {
        links.put(toolbox, LinkKind::Calls, nowhere(), None, Ends::default())
    }

    /// A gateway that accepts links over TLS, and an agent that may dial it.
    struct World {
        authority: Arc<Authority>,
        links: Links,
        toolbox: ToolboxId,
        address: String,
    }

    impl World {
        async fn new() -> Self {
            Self::with_patience(RETIRE_TIMEOUT).await
        }

        async fn with_patience(patience: Duration) -> Self {
            let clock = Clock::system();
            let authority = Arc::new(Authority::generate(clock.now()).expect("a CA"));
            let links = Links::with_patience(clock.clone(), patience);
            let acceptor = Acceptor::new(authority.clone(), clock).expect("TLS");
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address").to_string();
            let accept = links.clone();
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let (acceptor, accept) = (acceptor.clone(), accept.clone());
                    tokio::spawn(async move {
                        let Ok((stream, peer)) = acceptor.accept(stream).await else { return };
                        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                            let accept = accept.clone();
                            async move {
                                Ok::<_, Infallible>(match peer {
                                    Some(PeerIdentity::Toolbox(peer)) => accept.accept(peer, request.map(Body::new)),
                                    _ => status(StatusCode::UNAUTHORIZED),
                                })
                            }
                        });
                        let connection = hyper::server::conn::http1::Builder::new();
                        let _ = connection.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
                    });
                }
            });
            Self { authority, links, toolbox: ToolboxId::generate(), address }
        }

        fn dialler(&self, ca: &str) -> Dialler {
            let options = DialOptions {
                addresses: vec![self.address.clone()],
                ca: ca.to_owned(),
                proxy: None,
                no_proxy: None,
                offers: None,
            };
            Dialler::new(options).expect("good addresses")
        }

        fn enrolled(&self, from: Timestamp, until: Timestamp) -> Dialler {
            let dialler = self.dialler(&self.authority.fingerprint());
            let key = AgentKey::generate().expect("a key");
            let request = key.signing_request().expect("a request");
            let certificate = self.authority.issue_agent(&request, (self.toolbox, 1), from, until).expect("one");
            dialler.set_certificate(&key, &certificate).expect("they belong together");
            dialler
        }

        fn agent(&self) -> Dialler {
            let now = Clock::system().now();
            self.enrolled(now, now.plus(HOUR))
        }

        async fn channel(&self) -> Channel {
            let there = async {
                loop {
                    if let Some(channel) = self.links.get(self.toolbox) {
                        return channel;
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(10), there).await.expect("a link")
        }

        /// Waits until the link of this number is the one for calls.
        async fn newest(&self, number: u64) {
            let is_newest = || {
                let entry = self.links.0.toolboxes.get(&self.toolbox);
                entry.is_some_and(|entry| entry.calls.as_ref().is_some_and(|held| held.number == number))
            };
            let there = async {
                while !is_newest() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(10), there).await.expect("the link is there");
        }

        async fn no_link(&self) {
            let gone = async {
                while self.links.get(self.toolbox).is_some() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(10), gone).await.expect("the link is forgotten");
        }
    }

    fn hello() -> axum::Router {
        axum::Router::new().route("/v1/hello", axum::routing::get(|| async { "from the agent" }))
    }

    /// An agent that answers with events for ever.
    fn endless() -> axum::Router {
        let endless = || async {
            let events = futures_util::stream::once(async { Ok::<_, Infallible>("event") });
            Body::from_stream(futures_util::StreamExt::chain(events, futures_util::stream::pending()))
        };
        axum::Router::new().route("/v1/events", axum::routing::get(endless))
    }

    async fn follow(channel: Channel) -> Body {
        let request = Request::get("/v1/events").body(Body::empty()).expect("a request");
        let mut events = channel.oneshot(request).await.expect("an answer").into_body();
        events.frame().await.expect("open").expect("an event");
        events
    }

    /// Serves a link until it ends, as an agent that never ends one itself.
    fn kept(link: Link, router: axum::Router) -> tokio::task::JoinHandle<()> {
        tokio::spawn(async move { link.serve(router, &CancellationToken::new(), &CancellationToken::new()).await })
    }

    async fn ended(served: tokio::task::JoinHandle<()>) {
        tokio::time::timeout(Duration::from_secs(10), served).await.expect("the link ends").expect("no panic");
    }

    #[test]
    fn an_old_link_that_ends_late_leaves_the_newest_one_alone() {
        let (links, toolbox) = (Links::new(Clock::system()), ToolboxId::generate());
        let first = put(&links, toolbox);
        let second = put(&links, toolbox);
        links.forget(toolbox, LinkKind::Calls, second);
        assert!(links.get(toolbox).is_none());
        let third = put(&links, toolbox);
        links.forget(toolbox, LinkKind::Calls, first);
        assert!(links.get(toolbox).is_some());
        links.forget(toolbox, LinkKind::Calls, third);
        assert!(links.get(toolbox).is_none());
    }

    #[test]
    fn a_link_whose_run_nobody_looked_up_is_told_of_until_it_is_verified_or_another_takes_its_place() {
        let (links, toolbox) = (Links::new(Clock::system()), ToolboxId::generate());
        let certificate = PeerCertificate { toolbox, enrolment: 1, expires_at: Timestamp::from_ms(1) };
        let dial = |kind, run: &str, is_verified| {
            let dialled = Dialled { certificate, run: Some(run.to_owned()), is_verified };
            links.put(toolbox, kind, nowhere(), Some(dialled), Ends::default())
        };
        let unverified = || links.unverified().into_iter().map(|link| link.run.unwrap_or_default()).collect::<Vec<_>>();
        dial(LinkKind::Calls, "a", false);
        dial(LinkKind::Bulk, "b", false);
        assert_eq!(unverified(), ["a", "b"]);
        let first = links.unverified().remove(0);
        dial(LinkKind::Calls, "c", false);
        links.verify(&first);
        assert_eq!(unverified(), ["c", "b"], "the one that was verified is another one");
        let all = links.unverified();
        all.iter().for_each(|link| links.verify(link));
        dial(LinkKind::Bulk, "d", true);
        assert!(unverified().is_empty());
    }

    #[tokio::test]
    async fn an_endless_stream_does_not_keep_a_link_that_is_to_end() {
        let world = World::new().await;
        let (shutdown, retire) = (CancellationToken::new(), CancellationToken::new());
        let stop = shutdown.clone();
        let link = world.agent().link(None, LinkKind::Calls).await.expect("a link");
        let served =
            tokio::spawn(async move { link.serve_until(endless(), &stop, &retire, Duration::from_millis(50)).await });
        let _events = follow(world.channel().await).await;
        shutdown.cancel();
        ended(served).await;
    }

    #[tokio::test]
    async fn a_link_that_was_replaced_ends_when_nothing_is_under_way_on_it() {
        let world = World::new().await;
        let agent = world.agent();
        let first = kept(agent.link(None, LinkKind::Calls).await.expect("a link"), hello());
        drop(world.channel().await);
        let second = kept(agent.link(None, LinkKind::Calls).await.expect("another link"), hello());
        world.newest(1).await;
        ended(first).await;
        let request = Request::get("/v1/hello").body(Body::empty()).expect("a request");
        assert_eq!(world.channel().await.oneshot(request).await.expect("an answer").status(), StatusCode::OK);
        second.abort();
    }

    #[tokio::test]
    async fn an_agent_cannot_keep_a_link_that_was_replaced() {
        let world = World::with_patience(Duration::from_millis(50)).await;
        let agent = world.agent();
        let first = kept(agent.link(None, LinkKind::Calls).await.expect("a link"), endless());
        let _events = follow(world.channel().await).await;
        let second = kept(agent.link(None, LinkKind::Calls).await.expect("another link"), hello());
        ended(first).await;
        second.abort();
    }

    #[tokio::test]
    async fn an_agent_cannot_pile_up_links_and_may_make_one_again_when_one_ended() {
        let world = World::new().await;
        let agent = world.agent();
        let (mut links, mut calls) = (Vec::new(), Vec::new());
        for number in 0..u64::try_from(MOST_LINKS).expect("a few") {
            links.push(kept(agent.link(None, LinkKind::Calls).await.expect("a link"), endless()));
            world.newest(number).await;
            // Each has a call under way when the next comes.
            calls.push(follow(world.channel().await).await);
        }
        let refused = agent.link(None, LinkKind::Bulk).await;
        assert!(matches!(refused, Err(DialError::Refused(_, StatusCode::TOO_MANY_REQUESTS))), "{refused:?}");
        links.iter().for_each(tokio::task::JoinHandle::abort);
        let again = async {
            while agent.link(None, LinkKind::Bulk).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), again).await.expect("there is room again");
    }

    #[tokio::test]
    async fn a_gateway_calls_an_agent_over_the_connection_that_the_agent_opened() {
        let world = World::new().await;
        let (shutdown, retire) = (CancellationToken::new(), CancellationToken::new());
        let stop = shutdown.clone();
        let link = world.agent().link(None, LinkKind::Calls).await.expect("a link");
        let served = tokio::spawn(async move { link.serve(hello(), &stop, &retire).await });
        let channel = world.channel().await;
        let request = Request::get("/v1/hello").body(Body::empty()).expect("a request");
        let answer = channel.oneshot(request).await.expect("an answer");
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        assert_eq!(&body[..], b"from the agent");
        let health = world.links.health(world.toolbox);
        assert!(health.connected && !health.bulk);
        shutdown.cancel();
        served.await.expect("no panic");
        world.no_link().await;
    }

    #[tokio::test]
    async fn a_link_of_an_agent_that_stops_ends_streams_finishes_calls_and_takes_no_other() {
        let world = World::new().await;
        let (begun, end) = (CancellationToken::new(), CancellationToken::new());
        let (begins, ends) = (begun.clone(), end.clone());
        let slow = move || async move {
            begins.cancel();
            ends.cancelled().await;
            "done"
        };
        let router = endless().merge(hello()).route("/v1/slow", axum::routing::get(slow));
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let link = world.agent().link(None, LinkKind::Calls).await.expect("a link");
        let served = tokio::spawn(async move { link.serve(router, &stop, &CancellationToken::new()).await });
        let channel = world.channel().await;
        let ask = |path: &str| channel.clone().oneshot(Request::get(path).body(Body::empty()).expect("a request"));
        let events = follow(channel.clone()).await;
        let slow = tokio::spawn(ask("/v1/slow"));
        begun.cancelled().await;
        shutdown.cancel();
        assert!(events.collect().await.is_err(), "it was not all");
        let refused = async {
            loop {
                match ask("/v1/hello").await {
                    Err(error) => return error,
                    Ok(_) => tokio::task::yield_now().await,
                }
            }
        };
        let refused = tokio::time::timeout(Duration::from_secs(10), refused).await.expect("it takes no more");
        assert!(matches!(refused, LinkError::NoLink(_)), "the next link is waited for: {refused:?}");
        end.cancel();
        let answer = slow.await.expect("no panic").expect("an answer");
        assert_eq!(&answer.into_body().collect().await.expect("a body").to_bytes()[..], b"done");
        ended(served).await;
    }

    #[tokio::test]
    async fn a_link_carries_many_calls_at_once_and_outlives_many_that_are_given_up() {
        const CALLS: usize = 500;
        let world = World::new().await;
        let here = Arc::new(tokio::sync::Barrier::new(CALLS));
        let wait = move || {
            let here = here.clone();
            async move {
                here.wait().await;
                "all are here"
            }
        };
        let never = || std::future::pending::<&'static str>();
        let router =
            hello().route("/v1/together", axum::routing::get(wait)).route("/v1/never", axum::routing::get(never));
        let link = world.agent().link(None, LinkKind::Calls).await.expect("a link");
        let stay = CancellationToken::new();
        let served = tokio::spawn(async move { link.serve(router, &stay, &stay).await });
        let channel = world.channel().await;
        let ask = |path: &'static str| {
            let channel = channel.clone();
            async move { channel.oneshot(Request::get(path).body(Body::empty()).expect("a request")).await }
        };
        let all = futures_util::future::join_all((0..CALLS).map(|_| ask("/v1/together")));
        let all = tokio::time::timeout(Duration::from_secs(30), all).await.expect("none waits for another's end");
        assert!(all.into_iter().all(|answer| answer.expect("an answer").status() == StatusCode::OK));
        let given_up: Vec<_> = (0..CALLS).map(|_| tokio::spawn(ask("/v1/never"))).collect();
        tokio::task::yield_now().await;
        given_up.iter().for_each(tokio::task::JoinHandle::abort);
        assert_eq!(ask("/v1/hello").await.expect("the link lives").status(), StatusCode::OK);
        served.abort();
    }

    #[tokio::test]
    async fn a_revoked_enrolment_closes_its_link_at_once_and_another_ones_stays() {
        let world = World::new().await;
        let link = world.agent().link(None, LinkKind::Calls).await.expect("a link");
        let served = tokio::spawn(async move {
            link.serve(hello(), &CancellationToken::new(), &CancellationToken::new()).await;
        });
        world.channel().await;
        world.links.close_ended(|_| Some(1));
        assert!(world.links.get(world.toolbox).is_some());
        world.links.close_ended(|_| Some(2));
        world.no_link().await;
        tokio::time::timeout(Duration::from_secs(10), served).await.expect("the agent notices").expect("no panic");
    }

    #[tokio::test]
    async fn a_certificate_of_another_ca_an_expired_one_and_none_are_refused() {
        let world = World::new().await;
        let stranger = World::new().await;
        let refused = async |dialler: Dialler, what: &str| {
            assert!(dialler.link(None, LinkKind::Calls).await.is_err(), "{what}");
        };
        refused(world.dialler(&world.authority.fingerprint()), "no certificate").await;
        refused(world.dialler(&stranger.authority.fingerprint()), "another control plane's CA is pinned").await;
        let now = Clock::system().now();
        let past = |hours: i64| Timestamp::from_ms(now.as_ms() - hours * 3_600_000);
        refused(world.enrolled(past(5), past(1)), "expired").await;
        let foreign = Dialler::new(DialOptions {
            addresses: vec![world.address.clone()],
            ca: world.authority.fingerprint(),
            proxy: None,
            no_proxy: None,
            offers: None,
        })
        .expect("a dialler");
        let key = AgentKey::generate().expect("a key");
        let request = key.signing_request().expect("a request");
        let certificate =
            stranger.authority.issue_agent(&request, (world.toolbox, 1), now, now.plus(HOUR)).expect("one");
        foreign.set_certificate(&key, &certificate).expect("they belong together");
        refused(foreign, "of another CA").await;
    }
}
