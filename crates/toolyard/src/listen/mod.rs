//! Serving a listener: places and time limits for peers, TLS for agents, upgrades for links, and a drain.
//!
//! A peer that sends nothing, a head or a body too slowly, takes no answer, or leaves a connection unused loses it, and
//! none gets so many that others have none, nor fills the memory with requests that do not end. What flows may last: an
//! upload, a download, a stream of events, a link.

mod conn;
mod places;

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use toolyard_control::Control;
use toolyard_link::tls::{Acceptor, PeerIdentity};
use toolyard_link::{Budget, Pace, Payer};
use toolyard_types::{Network, ToolboxId};

pub(crate) use conn::Patience;
use conn::{Activity, Counted, Watched};
use places::Place;
pub(crate) use places::{Places, raise_descriptors, share};

use crate::config::Settings;
use crate::inline::Inline;

/// How long a connection that was told to end may take to.
const GRACE: Duration = Duration::from_secs(5);
/// How long accepting pauses when the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often the peer of an HTTP/2 connection is asked whether it is there, and how long it may think about it.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest head of a request. In HTTP/1 it is also the most that is read ahead of whoever reads a body.
const LARGEST_HEAD: u32 = 64 << 10;
/// How much of the bodies of one HTTP/2 request, and of all requests of a connection together, is taken before anybody has
/// read it.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 512 << 10;
/// Requests under way at once on one HTTP/2 connection.
const STREAMS: u32 = 200;
/// How often the kernel asks a silent peer whether it is there.
#[cfg(target_os = "linux")]
const KEEP_ALIVE_SECONDS: u32 = 10;
/// How long a peer may leave that, or anything else that was sent, without a word that it arrived. The kernel's own
/// patience is a quarter of an hour.
#[cfg(target_os = "linux")]
const SILENCE_MS: u32 = 20_000;
/// TLS handshakes under way at once; each costs a signature before anybody is known.
const HANDSHAKES: usize = 256;
/// Connections of one address at the agents' listener that have shown no certificate yet: a part of the handshakes, so that
/// whoever does not finish theirs keeps no agent waiting.
const STRANGERS_PER_PEER: u32 = 64;
/// What a peer without a place is told before it is hung up on.
const NO_PLACE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\n\
Retry-After: 5\r\nContent-Length: 158\r\nConnection: close\r\n\r\n\
{\"type\":\"/docs/problems#no_capacity\",\"title\":\"there is no room for one more\",\"status\":503,\
\"code\":\"no_capacity\",\"detail\":\"too many connections are open here\"}\n";

/// How long peers may take, as the settings say.
pub(crate) fn patience(settings: &Settings) -> Patience {
    let head = Duration::from_secs(settings.head_timeout_seconds.into());
    let body = Pace {
        grace: Duration::from_secs(settings.body_timeout_seconds.into()),
        bytes_per_second: settings.body_bytes_per_second,
    };
    Patience { head, idle: Duration::from_secs(settings.idle_timeout_seconds.into()), answer: head * 2, body }
}

/// Who pays for what comes on a connection: asked for each request, for it may become known while the connection lasts.
pub(crate) type PayerOf = Arc<dyn Fn() -> Payer + Send + Sync>;

/// The same for every request.
pub(crate) fn always(payer: Payer) -> PayerOf {
    Arc::new(move || payer)
}

/// A toolbox's agent.
pub(crate) fn toolbox(control: &Control, toolbox: ToolboxId) -> PayerOf {
    let control = control.clone();
    Arc::new(move || control.payer_of(toolbox))
}

/// How the connections of a listener are served, whoever opened them. Cheap to clone; the clones drain together.
#[derive(Clone)]
pub(crate) struct Server {
    builder: Builder<TokioExecutor>,
    patience: Patience,
    budget: Budget,
    /// Whom we believe where a request comes from.
    proxies: Arc<[Network]>,
    /// See [`Server::leaving`].
    leaving: CancellationToken,
    /// Cancelled when connections are to end with the requests on them.
    draining: CancellationToken,
    tracker: TaskTracker,
}

impl Server {
    pub(crate) fn new(
        patience: Patience,
        budget: Budget,
        proxies: Arc<[Network]>,
        draining: CancellationToken,
    ) -> Self {
        let mut builder = Builder::new(TokioExecutor::new());
        // Without a timer these limits are silently off. This one is only the outermost: see `conn`.
        let longest = patience.idle.max(patience.head) + GRACE;
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(longest)
            .max_buf_size(usize::try_from(LARGEST_HEAD).unwrap_or(usize::MAX));
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(LARGEST_HEAD);
        let leaving = CancellationToken::new();
        Self { builder, patience, budget, proxies, leaving, draining, tracker: TaskTracker::new() }
    }

    /// The same; once `leaving` is cancelled it still answers everything, and has clients leave the connections that they
    /// keep before these end with the process: one that ends while a request is on its way to it fails that. HTTP/1 is told
    /// with its next answer (`Connection: close`), HTTP/2 at once (GOAWAY), or with its first request.
    pub(crate) fn leaving(self, leaving: CancellationToken) -> Self {
        Self { leaving, ..self }
    }

    /// Ready when an HTTP/2 connection is to be given up.
    async fn left(&self, activity: &Activity) {
        self.leaving.cancelled().await;
        activity.leave();
        // One of HTTP/1, or of which nothing is known yet, would be closed in the face of a request that is on its way.
        activity.shared().await;
    }

    /// Ready when connections are to end.
    pub(crate) async fn draining(&self) {
        self.draining.cancelled().await;
    }

    /// Runs what is done for a connection; [`Server::drained`] waits for it.
    pub(crate) fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(connection);
    }

    /// Waits until no connection is left.
    pub(crate) async fn drained(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Serves one connection until it ends; a link that it becomes goes on.
    pub(crate) async fn hold<S>(&self, stream: S, router: Router, peer: Option<SocketAddr>, payer: PayerOf)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let activity = Activity::new();
        let stream = Watched { stream, activity: Arc::clone(&activity) };
        let (pace, budget, proxies) = (self.patience.body, self.budget.clone(), Arc::clone(&self.proxies));
        let service = Counted { router, activity: Arc::clone(&activity), pace, peer, budget, payer, proxies };
        let serving = self.builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        let held = async {
            let mut serving = pin!(serving);
            let why = tokio::select! {
                biased;
                // Before the first request of a connection that is opened while we leave: its answer says so, too.
                () = self.left(&activity) => None,
                ended = serving.as_mut() => return ended,
                () = self.draining.cancelled() => None,
                why = unused(&activity, &self.patience) => Some(why),
            };
            serving.as_mut().graceful_shutdown();
            match why {
                // Requests under way have until the drain's deadline, which whoever drains knows.
                None => serving.await,
                Some(why) => match tokio::time::timeout(GRACE, serving).await {
                    Ok(ended) => ended,
                    Err(_) => Err(why.into()),
                },
            }
        };
        if let Err(error) = Inline::new(held).await {
            tracing::debug!(error, "a connection ended early");
        }
    }
}

/// Ready when nothing happened on a connection for too long; says so.
async fn unused(activity: &Activity, patience: &Patience) -> &'static str {
    loop {
        let now = tokio::time::Instant::now();
        match activity.ends_at(patience) {
            Some(end) if end <= now => return "nothing happened on it for too long",
            Some(end) => tokio::time::sleep_until(end).await,
            None => tokio::time::sleep(patience.idle).await,
        }
    }
}

/// Serves `router` on `listener` until `server` drains, then until every request under way has ended.
pub(crate) async fn serve(listener: TcpListener, router: Router, places: Arc<Places>, server: Server) {
    run(listener, router, None, places, server).await;
}

/// How many connections without a certificate one address may have at the agents' listener, where it may have
/// `connections_per_peer` (0 for any number) elsewhere.
pub(crate) fn strangers_per_peer(connections_per_peer: u32) -> u32 {
    if connections_per_peer == 0 { STRANGERS_PER_PEER } else { connections_per_peer.min(STRANGERS_PER_PEER) }
}

/// The same over TLS; a request carries its connection's certificate as an extension, when there is one.
pub(crate) async fn serve_agents(
    listener: TcpListener,
    router: Router,
    (control, acceptor): (Control, Acceptor),
    places: Arc<Places>,
    server: Server,
) {
    let tls = Tls { control, acceptor, handshakes: Arc::new(Semaphore::new(HANDSHAKES)) };
    run(listener, router, Some(tls), places, server).await;
}

struct Tls {
    control: Control,
    acceptor: Acceptor,
    handshakes: Arc<Semaphore>,
}

async fn run(listener: TcpListener, router: Router, tls: Option<Tls>, places: Arc<Places>, server: Server) {
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => {
                    prepare(&stream);
                    let Ok(place) = places.take(from.ip()) else {
                        if tls.is_none() {
                            // Best effort: it fits into an empty buffer, or is not sent.
                            let _ = stream.try_write(NO_PLACE);
                        }
                        continue;
                    };
                    let router = router.clone();
                    match &tls {
                        None => {
                            let held = server.clone();
                            server.spawn(async move {
                                let payer = always(Payer::stranger(Some(from.ip())));
                                held.hold(stream, router, Some(from), payer).await;
                                drop(place);
                            });
                        }
                        Some(tls) => {
                            // Where all places are taken new connections wait in the kernel.
                            let Ok(turn) = tls.handshakes.clone().acquire_owned().await else { break };
                            let held = server.clone();
                            let tls = (tls.control.clone(), tls.acceptor.clone());
                            server.spawn(hold_agent(stream, from, tls, (place, turn), router, held));
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            () = server.draining() => break,
        }
    }
    drop(listener);
    server.drained().await;
}

/// Small answers go at once, and a peer whose host vanished without a word is noticed.
fn prepare(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    #[cfg(target_os = "linux")]
    {
        use nix::sys::socket::{setsockopt, sockopt};
        let set = setsockopt(stream, sockopt::KeepAlive, &true)
            .and_then(|()| setsockopt(stream, sockopt::TcpKeepIdle, &KEEP_ALIVE_SECONDS))
            .and_then(|()| setsockopt(stream, sockopt::TcpKeepInterval, &KEEP_ALIVE_SECONDS))
            .and_then(|()| setsockopt(stream, sockopt::TcpUserTimeout, &SILENCE_MS));
        if let Err(error) = set {
            tracing::debug!(%error, "a connection has no keep-alive");
        }
    }
}

async fn hold_agent(
    stream: TcpStream,
    from: SocketAddr,
    (control, acceptor): (Control, Acceptor),
    (mut place, turn): (Place, OwnedSemaphorePermit),
    router: Router,
    server: Server,
) {
    let accepted = acceptor.accept(stream).await;
    drop(turn);
    if matches!(accepted, Ok((_, Some(_)))) {
        // Many agents may be behind one address.
        place.identified();
    }
    let stranger = always(Payer::stranger(Some(from.ip())));
    let from = Some(from);
    match accepted {
        Ok((stream, Some(PeerIdentity::Toolbox(certificate)))) => {
            let payer = toolbox(&control, certificate.toolbox);
            server.hold(stream, router.layer(Extension(certificate)), from, payer).await;
        }
        Ok((stream, Some(PeerIdentity::Replica(certificate)))) => {
            let payer = always(Payer::known(certificate.replica, ()));
            server.hold(stream, router.layer(Extension(certificate)), from, payer).await;
        }
        Ok((stream, None)) => server.hold(stream, router, from, stranger).await,
        Err(error) => {
            let from = from.map(|from| from.to_string()).unwrap_or_default();
            tracing::info!(error = &error as &dyn std::error::Error, from, "an agent's connection was refused");
        }
    }
    drop(place);
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::watch;

    const PATIENCE: Patience = Patience {
        head: Duration::from_millis(300),
        idle: Duration::from_millis(900),
        answer: Duration::from_millis(600),
        body: Pace { grace: Duration::from_millis(300), bytes_per_second: 1000 },
    };

    /// A listener with these places that answers everything; where it is, and its end.
    async fn listening(router: Router, per_peer: u32) -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let drain = CancellationToken::new();
        let server = Server::new(PATIENCE, Budget::new(512 << 20), Arc::from([]), drain.clone());
        let places = Places::new("test", 100, per_peer, vec![]);
        (address, drain, tokio::spawn(serve(listener, router, places, server)))
    }

    fn echo() -> Router {
        Router::new().fallback(async |body: String| body)
    }

    /// What a peer hears that sends this and then nothing more.
    async fn heard(address: SocketAddr, sent: &[u8]) -> String {
        let mut client = TcpStream::connect(address).await.expect("a connection");
        client.write_all(sent).await.expect("sent");
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(20), client.read_to_end(&mut answer)).await.expect("its end");
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test]
    async fn a_request_under_way_is_answered_while_draining_and_then_the_listener_is_gone() {
        let (release, released) = watch::channel(false);
        let (entered, mut arrived) = watch::channel(false);
        let slow = axum::routing::get(move || {
            let (mut released, entered) = (released.clone(), entered.clone());
            async move {
                let _ = entered.send(true);
                let _ = released.wait_for(|released| *released).await;
                "done"
            }
        });
        let (address, drain, server) = listening(Router::new().route("/", slow), 0).await;
        let mut client = TcpStream::connect(address).await.expect("a connection");
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
        arrived.wait_for(|arrived| *arrived).await.expect("the handler runs");
        drain.cancel();
        release.send(true).expect("heard");
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("an answer, then the end");
        assert!(answer.ends_with("done"), "{answer}");
        server.await.expect("the server ends");
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn while_we_leave_everything_is_answered_and_clients_give_up_the_connections_that_they_keep() {
        const ASK: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        async fn answered(sender: &mut hyper::client::conn::http2::SendRequest<axum::body::Body>) {
            let request = http::Request::get("http://x/").body(axum::body::Body::empty()).expect("a request");
            assert!(sender.send_request(request).await.expect("an answer").status().is_success());
        }
        async fn told(connection: tokio::task::JoinHandle<hyper::Result<()>>) {
            let ended = tokio::time::timeout(Duration::from_secs(20), connection).await;
            assert!(matches!(ended, Ok(Ok(Ok(())))), "it is told to go away: {ended:?}");
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let leaving = CancellationToken::new();
        let patience = Patience { head: Duration::from_secs(60), idle: Duration::from_secs(60), ..PATIENCE };
        let server = Server::new(patience, Budget::new(64 << 20), Arc::from([]), CancellationToken::new());
        let places = Places::new("test", 100, 0, vec![]);
        let _serving = tokio::spawn(serve(listener, echo(), places, server.leaving(leaving.clone())));
        let mut kept = TcpStream::connect(address).await.expect("a connection");
        kept.write_all(ASK).await.expect("sent");
        let mut chunk = [0; 1024];
        let read = kept.read(&mut chunk).await.expect("an answer");
        assert!(!String::from_utf8_lossy(&chunk[..read]).contains("connection: close"));
        let second_version = async || {
            let stream = TokioIo::new(TcpStream::connect(address).await.expect("a connection"));
            let handshake =
                hyper::client::conn::http2::handshake::<_, _, axum::body::Body>(TokioExecutor::new(), stream);
            let (sender, connection) = handshake.await.expect("a handshake");
            (sender, tokio::spawn(connection))
        };
        let (mut used, of_used) = second_version().await;
        answered(&mut used).await;
        let (mut idle, of_idle) = second_version().await;

        leaving.cancel();
        told(of_used).await;
        answered(&mut idle).await;
        told(of_idle).await;
        kept.write_all(ASK).await.expect("sent");
        let mut rest = String::new();
        kept.read_to_string(&mut rest).await.expect("an answer, then the end");
        assert!(rest.starts_with("HTTP/1.1 200") && rest.contains("connection: close"), "{rest}");
        let anew = heard(address, ASK).await;
        assert!(anew.starts_with("HTTP/1.1 200") && anew.contains("connection: close"), "{anew}");
        let (mut late, of_late) = second_version().await;
        answered(&mut late).await;
        told(of_late).await;
    }

    #[tokio::test]
    async fn a_peer_that_sends_nothing_or_half_a_request_loses_its_connection() {
        let (address, _drain, _server) = listening(echo(), 0).await;
        for sent in ["", "PRI * HT", "GET / HTTP/1.1\r\nHo", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
            let answer = heard(address, sent.as_bytes()).await;
            assert!(!answer.contains("200 OK"), "{sent}: {answer}");
        }
        heard(address, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf").await;
        let idle = heard(address, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(idle.starts_with("HTTP/1.1 200"), "{idle}");
    }

    #[tokio::test]
    async fn an_upload_that_flows_and_an_answer_that_takes_long_outlive_every_limit() {
        let (address, _drain, _server) = listening(echo(), 0).await;
        let mut client = TcpStream::connect(address).await.expect("a connection");
        client.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n\r\n").await.expect("sent");
        for _ in 0..20 {
            client.write_all(&[b'x'; 100]).await.expect("sent");
            tokio::time::sleep(Duration::from_millis(75)).await;
        }
        let mut status = [0; 12];
        client.read_exact(&mut status).await.expect("an answer");
        assert_eq!(&status, b"HTTP/1.1 200");

        let late = Router::new().fallback(async || {
            tokio::time::sleep(Duration::from_secs(2)).await;
            "late"
        });
        let (address, _drain, _server) = listening(late, 0).await;
        let answer = heard(address, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(answer.ends_with("late"), "{answer}");
    }

    #[tokio::test]
    async fn a_connection_is_kept_for_the_next_request_but_not_for_half_of_one() {
        let (address, _drain, _server) = listening(echo(), 0).await;
        let mut client = TcpStream::connect(address).await.expect("a connection");
        let mut chunk = [0; 1024];
        for _ in 0..2 {
            client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
            let read = client.read(&mut chunk).await.expect("an answer");
            assert!(chunk[..read].starts_with(b"HTTP/1.1 200"));
            tokio::time::sleep(PATIENCE.head + Duration::from_millis(200)).await;
        }
        client.write_all(b"GET / HTTP/1.1\r\nHo").await.expect("sent");
        let began = tokio::time::Instant::now();
        let ended = tokio::time::timeout(PATIENCE.idle - Duration::from_millis(200), client.read(&mut chunk)).await;
        assert!(matches!(ended, Ok(Ok(0) | Err(_))), "{ended:?} after {:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_download_that_flows_slowly_arrives_and_one_that_is_not_taken_ends() {
        const SIZE: usize = 24 << 20;
        let large = Router::new().fallback(async || vec![b'x'; SIZE]);
        let (address, _drain, _server) = listening(large, 0).await;
        let connected = async || {
            let mut client = TcpStream::connect(address).await.expect("a connection");
            client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.expect("sent");
            client
        };
        let (mut slow, mut stuck) = (connected().await, connected().await);
        let (mut received, mut chunk) = (0, vec![0; 512 << 10]);
        loop {
            match slow.read(&mut chunk).await.expect("it goes on") {
                0 => break,
                read => received += read,
            }
            // All of it takes longer than the patience with what is not taken, and the grace after that.
            tokio::time::sleep(Duration::from_millis(160)).await;
        }
        assert!(received > SIZE, "{received}");
        let mut received = 0;
        while let Ok(read) = stuck.read(&mut chunk).await
            && read > 0
        {
            received += read;
        }
        assert!(received < SIZE, "{received}");
    }

    #[tokio::test]
    async fn answers_that_are_not_taken_fill_their_own_room_and_are_given_back() {
        const SIZE: usize = 8 << 20;
        let large = Router::new().route("/", axum::routing::get(async || vec![b'x'; SIZE]));
        let known = axum::middleware::from_fn(async |request: axum::extract::Request, next: axum::middleware::Next| {
            let who = request.headers().get("who").map(|who| who.as_bytes().to_vec());
            if let (Some(who), Some(charge)) = (who, request.extensions().get::<toolyard_link::Charge>()) {
                charge.known("acme", who).expect("room for a request");
            }
            next.run(request).await
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let drain = CancellationToken::new();
        let patience = Patience { answer: Duration::from_secs(60), ..PATIENCE };
        let server = Server::new(patience, Budget::new(64 << 20), Arc::from([]), drain.clone());
        let places = Places::new("test", 100, 0, vec![]);
        let _serving = tokio::spawn(serve(listener, large.layer(known), places, server));
        let ask = async |who: &str| {
            let mut client = TcpStream::connect(address).await.expect("a connection");
            let request = format!("GET / HTTP/1.1\r\nHost: x\r\nwho: {who}\r\nConnection: close\r\n\r\n");
            client.write_all(request.as_bytes()).await.expect("sent");
            let mut status = [0; 12];
            client.read_exact(&mut status).await.expect("a status");
            (status[9..].to_vec(), client)
        };
        let mut unread = Vec::new();
        let refused = loop {
            let (status, client) = ask("greedy").await;
            if status != b"200" {
                break status;
            }
            unread.push(client);
            assert!(unread.len() < 20, "no end of them");
        };
        assert_eq!((refused.as_slice(), unread.len()), (&b"503"[..], 2), "half of three quarters of 64 MiB");
        assert_eq!(ask("other").await.0, b"200");
        for mut client in unread {
            let mut rest = Vec::new();
            client.read_to_end(&mut rest).await.expect("the rest");
            assert!(rest.len() > SIZE);
        }
        let (status, _client) = ask("greedy").await;
        assert_eq!(status, b"200", "what was taken is given back");
    }

    #[tokio::test]
    async fn who_pays_is_asked_for_each_request_of_a_connection() {
        let server = Server::new(PATIENCE, Budget::new(1 << 20), Arc::from([]), CancellationToken::new());
        // Full for whoever is not known yet, and not for the one that they turn out to be.
        let full = std::iter::from_fn(|| server.budget.hold(Payer::known("not known", ()), 8 << 10).ok());
        let _full: Vec<_> = full.collect();
        let is_known = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let asked = Arc::clone(&is_known);
        let payer: PayerOf = Arc::new(move || match asked.load(std::sync::atomic::Ordering::Relaxed) {
            true => Payer::known("acme", ()),
            false => Payer::known("not known", ()),
        });
        let (mut client, stream) = tokio::io::duplex(64 << 10);
        let held = tokio::spawn(async move { server.hold(stream, echo(), None, payer).await });
        for expected in ["503", "200"] {
            client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
            let mut answer = Vec::new();
            let mut chunk = [0; 1024];
            let ends = if expected == "200" { b"\r\n\r\n".as_slice() } else { b"}".as_slice() };
            while !answer.ends_with(ends) {
                let read = client.read(&mut chunk).await.expect("an answer");
                assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
                answer.extend_from_slice(&chunk[..read]);
            }
            let answer = String::from_utf8_lossy(&answer).into_owned();
            assert!(answer.starts_with(&format!("HTTP/1.1 {expected}")), "{answer}");
            is_known.store(true, std::sync::atomic::Ordering::Relaxed);
        }
        drop(client);
        held.await.expect("it ends");
    }

    #[tokio::test]
    async fn a_peer_with_too_many_connections_is_told_so_and_others_are_served() {
        let (address, _drain, _server) = listening(echo(), 2).await;
        let _held = [TcpStream::connect(address).await.expect("one"), TcpStream::connect(address).await.expect("two")];
        let refused = heard(address, b"").await;
        let (head, body) = refused.split_once("\r\n\r\n").expect("an answer");
        assert!(head.starts_with("HTTP/1.1 503") && body.contains("no_capacity"), "{refused}");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{refused}");
    }
}
