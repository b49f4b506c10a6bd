//! Serving a listener: time limits on slow peers, TLS for agents, upgrades for links, and a drain.

use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use toolyard_link::tls::{Acceptor, PeerIdentity};

use crate::inline::Inline;

/// How long a peer may take to send a request's head: without a limit a few slow peers hold every connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long accepting pauses when the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often the kernel asks a silent peer whether it is there.
#[cfg(target_os = "linux")]
const KEEP_ALIVE_SECONDS: u32 = 10;
/// How long a peer may leave that, or anything else that was sent, without a word that it arrived. The kernel's own
/// patience is a quarter of an hour.
#[cfg(target_os = "linux")]
const SILENCE_MS: u32 = 20_000;
/// TLS handshakes under way at once; each costs a signature before anybody is known.
const HANDSHAKES: usize = 256;

/// Serves `router` on `listener` until `draining` turns true, then until every request under way has ended.
pub(crate) async fn serve(listener: TcpListener, router: Router, draining: watch::Receiver<bool>) {
    run(listener, router, None, draining).await;
}

/// The same over TLS; a request carries its connection's certificate as an extension, when there is one.
pub(crate) async fn serve_agents(
    listener: TcpListener,
    router: Router,
    acceptor: Acceptor,
    draining: watch::Receiver<bool>,
) {
    let tls = Tls { acceptor, handshakes: Arc::new(Semaphore::new(HANDSHAKES)) };
    run(listener, router, Some(tls), draining).await;
}

struct Tls {
    acceptor: Acceptor,
    handshakes: Arc<Semaphore>,
}

async fn run(listener: TcpListener, router: Router, tls: Option<Tls>, mut draining: watch::Receiver<bool>) {
    let builder = builder();
    let graceful = GracefulShutdown::new();
    let drained = async move {
        let _ = draining.wait_for(|draining| *draining).await;
    };
    tokio::pin!(drained);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    prepare(&stream);
                    let (builder, router, watcher) = (builder.clone(), router.clone(), graceful.watcher());
                    match &tls {
                        None => drop(tokio::spawn(hold(stream, builder, router, watcher))),
                        Some(tls) => {
                            // Where all places are taken new connections wait in the kernel.
                            let Ok(place) = tls.handshakes.clone().acquire_owned().await else { break };
                            tokio::spawn(hold_agent(stream, tls.acceptor.clone(), place, builder, router, watcher));
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            () = &mut drained => break,
        }
    }
    drop(listener);
    graceful.shutdown().await;
}

/// How connections are served, whoever opened them.
pub(crate) fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(HEAD_TIMEOUT);
    builder
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
    acceptor: Acceptor,
    place: OwnedSemaphorePermit,
    builder: Builder<TokioExecutor>,
    router: Router,
    watcher: Watcher,
) {
    let from = stream.peer_addr().ok();
    let accepted = acceptor.accept(stream).await;
    drop(place);
    match accepted {
        Ok((stream, Some(PeerIdentity::Toolbox(certificate)))) => {
            hold(stream, builder, router.layer(Extension(certificate)), watcher).await;
        }
        Ok((stream, Some(PeerIdentity::Replica(certificate)))) => {
            hold(stream, builder, router.layer(Extension(certificate)), watcher).await;
        }
        Ok((stream, None)) => hold(stream, builder, router, watcher).await,
        Err(error) => {
            let from = from.map(|from| from.to_string()).unwrap_or_default();
            tracing::info!(error = &error as &dyn std::error::Error, from, "an agent's connection was refused");
        }
    }
}

/// Serves one connection until it ends.
pub(crate) async fn hold<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    builder: Builder<TokioExecutor>,
    router: Router,
    watcher: Watcher,
) {
    let service = TowerToHyperService::new(router);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
    if let Err(error) = Inline::new(watcher.watch(connection)).await {
        tracing::debug!(error, "a connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

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
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (drain, draining) = watch::channel(false);
        let server = tokio::spawn(serve(listener, Router::new().route("/", slow), draining));
        let mut client = TcpStream::connect(address).await.expect("a connection");
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
        arrived.wait_for(|arrived| *arrived).await.expect("the handler runs");
        drain.send(true).expect("heard");
        release.send(true).expect("heard");
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("an answer, then the end");
        assert!(answer.ends_with("done"), "{answer}");
        server.await.expect("the server ends");
        assert!(TcpStream::connect(address).await.is_err());
    }
}
