//! Links: connections that an agent dials and then *serves* on.
//!
//! The agent opens an ordinary HTTP/1.1 request with `Upgrade: toolyard-link`; after `101` both sides speak
//! HTTP/2 on the same socket with their roles swapped: the dialler is the server. So a host needs no open
//! port, and a gateway reaches it with ordinary requests, many at a time, each with its own flow control.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tower::service_fn;
use tower::util::BoxCloneSyncService;

use toolyard_types::{Secret, ToolboxId};

use crate::{Body, Channel, LinkError};

/// The path that agents dial.
pub const LINK_PATH: &str = "/dtma/v1/link";
const PROTOCOL: HeaderValue = HeaderValue::from_static("toolyard-link");
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long calls under way may go on once the link is to end; streams of events would go on for ever.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// The links that agents keep open to this process, by toolbox. Cheap to clone.
#[derive(Clone, Default)]
pub struct Links(Arc<Open>);

#[derive(Default)]
struct Open {
    /// Each with a number that is never used again: an old connection that ends late must not take the place
    /// of a newer one along.
    links: DashMap<ToolboxId, (u64, Channel)>,
    numbers: AtomicU64,
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links").field("open", &self.0.links.len()).finish()
    }
}

impl Links {
    /// The channel to a toolbox, when it has a link here.
    #[must_use]
    pub fn get(&self, toolbox: ToolboxId) -> Option<Channel> {
        self.0.links.get(&toolbox).map(|entry| entry.1.clone())
    }

    /// Puts a channel in, in place of an older one: the built-in toolbox's Router.
    pub fn insert(&self, toolbox: ToolboxId, channel: Channel) {
        self.put(toolbox, channel);
    }

    /// Forgets a toolbox's channel; its agent's next dial is answered like a first one.
    pub fn remove(&self, toolbox: ToolboxId) {
        self.0.links.remove(&toolbox);
    }

    fn put(&self, toolbox: ToolboxId, channel: Channel) -> u64 {
        let number = self.0.numbers.fetch_add(1, Ordering::Relaxed);
        self.0.links.insert(toolbox, (number, channel));
        number
    }

    /// Forgets the link of this number, unless a newer one took its place.
    fn forget(&self, toolbox: ToolboxId, number: u64) {
        self.0.links.remove_if(&toolbox, |_, (current, _)| *current == number);
    }

    /// Answers an agent's dial: switches protocols and, once the socket is ours, takes up the client's role.
    ///
    /// The link is forgotten when its connection ends, unless a newer one took its place.
    pub fn accept(&self, toolbox: ToolboxId, mut request: Request<Body>) -> Response<Body> {
        if request.headers().get(header::UPGRADE) != Some(&PROTOCOL) {
            return status(StatusCode::UPGRADE_REQUIRED);
        }
        let links = self.clone();
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            match upgrade.await {
                Ok(io) => links.hold(toolbox, io).await,
                Err(error) => tracing::debug!(%error, toolbox.id = %toolbox, "a link did not switch protocols"),
            }
        });
        let mut response = status(StatusCode::SWITCHING_PROTOCOLS);
        response.headers_mut().insert(header::UPGRADE, PROTOCOL);
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        response
    }

    async fn hold(&self, toolbox: ToolboxId, io: hyper::upgrade::Upgraded) {
        let handshake = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .timer(hyper_util::rt::TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .adaptive_window(true)
            .handshake::<_, Body>(TokioIo::new(TokioIo::new(io)));
        let (sender, connection) = match handshake.await {
            Ok(pair) => pair,
            Err(error) => return tracing::debug!(%error, toolbox.id = %toolbox, "a link did not speak HTTP/2"),
        };
        let number = self.put(toolbox, over(sender, toolbox));
        tracing::info!(toolbox.id = %toolbox, "link open");
        if let Err(error) = connection.await {
            tracing::debug!(%error, toolbox.id = %toolbox, "link broke");
        }
        self.forget(toolbox, number);
        tracing::info!(toolbox.id = %toolbox, "link closed");
    }
}

fn over(sender: hyper::client::conn::http2::SendRequest<Body>, toolbox: ToolboxId) -> Channel {
    BoxCloneSyncService::new(service_fn(move |request: Request<Body>| {
        let mut sender = sender.clone();
        async move {
            let request = with_authority(request);
            let answer = sender.send_request(request).await;
            answer
                .map(|response| response.map(Body::new))
                .map_err(|error| LinkError::Unreachable { peer: format!("toolbox {toolbox}"), source: Box::new(error) })
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

/// Why a dial failed.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The address is not `http://host:port`.
    #[error("`{0}` is not an address of a link listener")]
    Address(String),
    /// No connection within the time limit, or it broke.
    #[error("cannot connect to {0}")]
    Connect(String, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// The other side refused.
    #[error("{0} answered {1}")]
    Refused(String, StatusCode),
}

/// Dials `address`, swaps roles, and serves `router` until the connection ends or `shutdown` is cancelled;
/// then calls under way get a few seconds more.
///
/// # Errors
/// When no link was made; an ended link is `Ok`.
pub async fn dial_and_serve(
    address: &str,
    token: Option<&Secret>,
    router: axum::Router,
    shutdown: &CancellationToken,
) -> Result<(), DialError> {
    serve_until(address, token, router, shutdown, DRAIN_TIMEOUT).await
}

async fn serve_until(
    address: &str,
    token: Option<&Secret>,
    router: axum::Router,
    shutdown: &CancellationToken,
    drain: Duration,
) -> Result<(), DialError> {
    let io = tokio::time::timeout(DIAL_TIMEOUT, dial(address, token))
        .await
        .map_err(|elapsed| DialError::Connect(address.to_owned(), Box::new(elapsed)))??;
    let service = hyper_util::service::TowerToHyperService::new(router);
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(hyper_util::rt::TokioTimer::new())
        .keep_alive_interval(Some(KEEP_ALIVE))
        .keep_alive_timeout(KEEP_ALIVE)
        .adaptive_window(true);
    let connection = builder.serve_connection(TokioIo::new(TokioIo::new(io)), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = &mut connection => {
            if let Err(error) = ended {
                tracing::debug!(%error, address, "link broke");
            }
        }
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            if tokio::time::timeout(drain, connection).await.is_err() {
                tracing::debug!(address, "streams on a link were cut off");
            }
        }
    }
    Ok(())
}

async fn dial(address: &str, token: Option<&Secret>) -> Result<hyper::upgrade::Upgraded, DialError> {
    let connect = |error: Box<dyn std::error::Error + Send + Sync>| DialError::Connect(address.to_owned(), error);
    let uri: Uri = address.parse().map_err(|_| DialError::Address(address.to_owned()))?;
    let authority = uri.authority().ok_or_else(|| DialError::Address(address.to_owned()))?;
    let port = authority.port_u16().unwrap_or(80);
    let stream = TcpStream::connect((authority.host(), port)).await.map_err(|error| connect(Box::new(error)))?;
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Empty<bytes::Bytes>>(TokioIo::new(stream))
            .await
            .map_err(|error| connect(Box::new(error)))?;
    tokio::spawn(connection.with_upgrades());
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(LINK_PATH)
        .header(header::HOST, authority.as_str())
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, PROTOCOL);
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.expose()));
    }
    let request = request.body(Empty::new()).map_err(|error| connect(Box::new(error)))?;
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
    use std::convert::Infallible;
    use tower::ServiceExt;

    fn nowhere() -> Channel {
        crate::in_process(axum::Router::new())
    }

    #[test]
    fn an_old_link_that_ends_late_leaves_the_newest_one_alone() {
        let (links, toolbox) = (Links::default(), ToolboxId::generate());
        let first = links.put(toolbox, nowhere());
        let second = links.put(toolbox, nowhere());
        links.forget(toolbox, second);
        assert!(links.get(toolbox).is_none());
        let third = links.put(toolbox, nowhere());
        links.forget(toolbox, first);
        assert!(links.get(toolbox).is_some());
        links.forget(toolbox, third);
        assert!(links.get(toolbox).is_none());
    }

    #[tokio::test]
    async fn an_endless_stream_does_not_keep_a_link_that_is_to_end() {
        let links = Links::default();
        let toolbox = ToolboxId::generate();
        let accept = links.clone();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let gateway = axum::Router::new().route(
            LINK_PATH,
            axum::routing::post(move |request: axum::extract::Request| async move { accept.accept(toolbox, request) }),
        );
        tokio::spawn(async move { axum::serve(listener, gateway).await });
        let endless = || async {
            let events = futures_util::stream::once(async { Ok::<_, Infallible>("event") });
            Body::from_stream(futures_util::StreamExt::chain(events, futures_util::stream::pending()))
        };
        let agent = axum::Router::new().route("/v1/events", axum::routing::get(endless));
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let drain = Duration::from_millis(50);
        let served = tokio::spawn(async move { serve_until(&address, None, agent, &stop, drain).await });
        let channel = tokio::time::timeout(Duration::from_secs(10), async {
            loop {
                if let Some(channel) = links.get(toolbox) {
                    return channel;
                }
                tokio::task::yield_now().await;
            }
        });
        let channel = channel.await.expect("a link");
        let request = Request::get("/v1/events").body(Body::empty()).expect("a request");
        let mut events = channel.oneshot(request).await.expect("an answer").into_body();
        events.frame().await.expect("open").expect("an event");
        shutdown.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(10), served).await;
        ended.expect("in time").expect("no panic").expect("an ordinary end");
    }

    #[tokio::test]
    async fn a_gateway_calls_an_agent_over_the_connection_that_the_agent_opened() {
        let links = Links::default();
        let toolbox = ToolboxId::generate();
        let accept = links.clone();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let gateway = axum::Router::new().route(
            LINK_PATH,
            axum::routing::post(move |request: axum::extract::Request| async move { accept.accept(toolbox, request) }),
        );
        tokio::spawn(async move { axum::serve(listener, gateway).await });

        let agent = axum::Router::new().route("/v1/hello", axum::routing::get(|| async { "from the agent" }));
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let served = tokio::spawn(async move { dial_and_serve(&address, None, agent, &stop).await });

        let channel = tokio::time::timeout(Duration::from_secs(10), async {
            loop {
                if let Some(channel) = links.get(toolbox) {
                    return channel;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("a link");
        let request = Request::get("/v1/hello").body(Body::empty()).expect("a request");
        let answer = channel.oneshot(request).await.expect("an answer");
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        assert_eq!(&body[..], b"from the agent");

        shutdown.cancel();
        served.await.expect("no panic").expect("an ordinary end");
        tokio::time::timeout(Duration::from_secs(10), async {
            while links.get(toolbox).is_some() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the link is forgotten");
    }
}
