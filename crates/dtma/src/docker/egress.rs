//! Whom a server may reach: a proxy of ours inside the container's own network.
//!
//! A server with a list of hosts has a network namespace with nothing in it but a loopback device: no route, no
//! name service, no neighbour. The agent enters that namespace with one thread, opens a listener there, and
//! serves it from outside: sockets stay in the namespace they were made in, and those to the hosts are made in
//! ours. So no packet of the server's ever leaves, whatever it does; only what the proxy was asked for and finds
//! listed. Where this host itself reaches others through a proxy, so do they: it is asked by `CONNECT`, or for a plain
//! request with the whole address, and finds the names. There are no network rules to keep, and nothing of this host is reachable but the proxy.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;
use toolyard_types::spec::{EGRESS_PROXY_PORT, EgressHost};
use tower::Service;

use super::namespace::Namespace;

/// Connections of one server at once; more wait.
const MAX_CONNECTIONS: usize = 256;
/// How many refused hosts are remembered.
const MOST_TOLD: usize = 8;
const MAX_HEAD_BYTES: usize = 16 << 10;
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// What a server's environment names.
pub(crate) fn address() -> String {
    format!("http://127.0.0.1:{EGRESS_PROXY_PORT}")
}

/// Why this agent cannot enter a container's network, if so.
#[cfg(target_os = "linux")]
pub(super) fn why_not() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("only an agent that runs as root can open a proxy in a container's network".to_owned());
    }
    // In a container of its own an agent is root and may not do it all the same.
    match Namespace::try_own() {
        Ok(()) => None,
        Err(error) => Some(format!("this agent may not enter a container's network: {error}")),
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn why_not() -> Option<String> {
    Some("a proxy in a container's network needs Linux".to_owned())
}

/// Serves the proxy in the network namespace of `pid`, until dropped.
///
/// # Errors
/// When the namespace cannot be entered, or something listens there already.
pub(super) fn serve(pid: u32, hosts: Vec<EgressHost>, way: Way) -> io::Result<AbortOnDropHandle<()>> {
    serve_in(pid, Listed::new(hosts), way)
}

/// The same, to tell what was refused.
///
/// # Errors
/// As [`serve`].
pub(super) fn serve_in(pid: u32, listed: Arc<Listed>, way: Way) -> io::Result<AbortOnDropHandle<()>> {
    serve_on(Namespace::of(pid)?.listen((Ipv4Addr::LOCALHOST, EGRESS_PROXY_PORT).into())?, listed, way)
}

/// Serves the proxy on a listener that was made in another network, until dropped.
///
/// # Errors
/// When the listener cannot be watched.
pub(crate) fn serve_on(
    listener: std::net::TcpListener,
    listed: Arc<Listed>,
    way: Way,
) -> io::Result<AbortOnDropHandle<()>> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    Ok(AbortOnDropHandle::new(tokio::spawn(accept(listener, listed, way))))
}

/// The hosts that may be reached, and some of those that were asked for all the same.
#[derive(Debug)]
pub(crate) struct Listed {
    hosts: Vec<EgressHost>,
    refused: Mutex<BTreeSet<String>>,
}

impl Listed {
    pub(crate) fn new(hosts: Vec<EgressHost>) -> Arc<Self> {
        Arc::new(Self { hosts, refused: Mutex::default() })
    }

    /// What was asked for and is not listed, as `host:port`; the first few.
    pub(crate) fn refused(&self) -> Vec<String> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn allows(&self, host: &str, port: u16) -> bool {
        if self.hosts.iter().any(|listed| listed.matches(host, port)) {
            return true;
        }
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.len() < MOST_TOLD {
            refused.insert(format!("{host}:{port}"));
        }
        false
    }
}

/// How this host reaches others: straight, or through a proxy of its own.
#[derive(Clone, Default)]
pub(crate) struct Way(Option<Arc<Matcher>>);

impl Way {
    /// Through `proxy`, but for the hosts of `no_proxy`, separated by commas.
    pub(crate) fn through(proxy: Option<&str>, no_proxy: Option<&str>) -> Self {
        let matcher = |proxy: &str| Matcher::builder().all(proxy).no(no_proxy.unwrap_or_default()).build();
        Self(proxy.map(matcher).map(Arc::new))
    }

    fn proxy_for(&self, scheme: &str, host: &str, port: u16) -> Option<(Intercept, http::Uri)> {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let uri: http::Uri = format!("{scheme}://{host}:{port}/").parse().ok()?;
        Some((self.0.as_ref()?.intercept(&uri)?, uri))
    }
}

async fn accept(listener: TcpListener, listed: Arc<Listed>, way: Way) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(turn) = Arc::clone(&room).acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely; nothing is won by trying at once.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (listed, way) = (Arc::clone(&listed), way.clone());
        connections.spawn(async move {
            let _turn = turn;
            // What goes wrong on a connection is told to the server on it.
            let _ = converse(stream, &listed, &way).await;
        });
    }
}

/// What a client asks for.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    host: String,
    port: u16,
    /// What is sent on: nothing for a tunnel, else the request in the form an origin expects.
    head: Option<Vec<u8>>,
}

async fn converse(mut client: TcpStream, listed: &Listed, way: &Way) -> io::Result<()> {
    let (head, rest) = match tokio::time::timeout(HEAD_TIMEOUT, read_head(&mut client)).await {
        Ok(Ok(Some(read))) => read,
        Ok(Ok(None)) => return refuse(&mut client, "400 Bad Request", "the request cannot be read").await,
        Ok(Err(error)) => return Err(error),
        Err(_) => return Ok(()),
    };
    let Some(request) = parse(&head) else {
        return refuse(&mut client, "400 Bad Request", "the request cannot be read").await;
    };
    if !listed.allows(&request.host, request.port) {
        let why = format!("`{}:{}` is not among the hosts that may be reached", request.host, request.port);
        return refuse(&mut client, "403 Forbidden", &why).await;
    }
    let mut upstream = match reach(&request, way).await {
        Ok(upstream) => upstream,
        Err(error) => return refuse(&mut client, "502 Bad Gateway", &error.to_string()).await,
    };
    if request.head.is_none() {
        client.write_all(b"HTTP/1.1 200 Connection Established\r\n\r\n").await?;
    }
    upstream.write_all(&rest).await?;
    tokio::io::copy_bidirectional(&mut client, &mut upstream).await?;
    Ok(())
}

/// A connection to what was asked for, or to a proxy that was asked for it; the head of a plain request was sent.
async fn reach(request: &Request, way: &Way) -> io::Result<TcpStream> {
    let Request { host, port, head } = request;
    let scheme = if head.is_some() { "http" } else { "https" };
    let Some((proxy, uri)) = way.proxy_for(scheme, host, *port) else {
        let mut upstream = connect(host, *port).await?;
        upstream.write_all(head.as_deref().unwrap_or_default()).await?;
        return Ok(upstream);
    };
    let named = proxy.uri().clone();
    let (Some(proxy_host), Some(proxy_port)) = (named.host(), named.port_u16().or(Some(80))) else {
        return Err(io::Error::other("the proxy of this host has no address"));
    };
    let Some(head) = head else { return tunnel(&proxy, named.clone(), uri).await };
    let mut upstream = connect(proxy_host.trim_matches(['[', ']']), proxy_port).await?;
    upstream.write_all(&whole(head, &uri, proxy.basic_auth())).await?;
    Ok(upstream)
}

/// Has a proxy make the connection.
async fn tunnel(proxy: &Intercept, named: http::Uri, uri: http::Uri) -> io::Result<TcpStream> {
    let mut direct = HttpConnector::new();
    direct.enforce_http(false);
    let tunnel = Tunnel::new(named, direct);
    let mut tunnel = match proxy.basic_auth() {
        Some(auth) => tunnel.with_auth(auth.clone()),
        None => tunnel,
    };
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, tunnel.call(uri)).await;
    let connected = connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
    // What a proxy answers is for this host's own people; a server hears only that it refused.
    connected.map(|stream| stream.into_inner()).map_err(|error| {
        tracing::debug!(error = &error as &dyn std::error::Error, "the proxy of this host made no connection");
        io::Error::other("the proxy of this host made no connection")
    })
}

/// The head of a plain request as a proxy wants it: with the whole address, and who asks.
fn whole(head: &[u8], uri: &http::Uri, auth: Option<&http::HeaderValue>) -> Vec<u8> {
    let blank = head.iter().position(|byte| *byte == b' ').map_or(0, |at| at + 1);
    let line_end = head.windows(2).position(|two| two == b"\r\n").map_or(head.len(), |at| at + 2);
    let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let mut out = head[..blank].to_vec();
    out.extend_from_slice(b"http://");
    out.extend_from_slice(authority.as_bytes());
    out.extend_from_slice(&head[blank..line_end]);
    if let Some(auth) = auth {
        out.extend_from_slice(b"Proxy-Authorization: ");
        out.extend_from_slice(auth.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(&head[line_end..]);
    out
}

async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(addresses.as_slice())).await;
    connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// The head of a request, and what came after it; `None` when it has no end in reason.
async fn read_head(client: &mut TcpStream) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
    let mut bytes = Vec::new();
    let mut chunk = [0_u8; 4096];
    loop {
        let count = client.read(&mut chunk).await?;
        if count == 0 {
            return Ok(None);
        }
        bytes.extend_from_slice(&chunk[..count]);
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = bytes.split_off(at + 4);
            return Ok(Some((bytes, rest)));
        }
        if bytes.len() > MAX_HEAD_BYTES {
            return Ok(None);
        }
    }
}

/// Reads a request's head. A plain one is sent on for one exchange only: a second request on the same connection
/// could be for another host.
fn parse(head: &[u8]) -> Option<Request> {
    let head = std::str::from_utf8(head).ok()?;
    let mut lines = head.split("\r\n");
    let mut words = lines.next()?.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() || !version.starts_with("HTTP/1.") {
        return None;
    }
    if method == "CONNECT" {
        let (host, port) = authority(target, None)?;
        return Some(Request { host, port, head: None });
    }
    let rest = target.strip_prefix("http://")?;
    let path_at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (named, path) = rest.split_at(path_at);
    let (host, port) = authority(named, Some(80))?;
    let slash = if path.starts_with('/') { "" } else { "/" };
    let mut out = format!("{method} {slash}{path} HTTP/1.1\r\nHost: {named}\r\nConnection: close\r\n");
    let hop = ["host", "connection", "proxy-connection", "keep-alive", "proxy-authorization", "upgrade", "te"];
    for line in lines.filter(|line| !line.is_empty()) {
        let (name, _) = line.split_once(':')?;
        // A folded line, or a name with a blank, is read in two ways by two programs.
        if name.is_empty() || name.contains([' ', '\t']) {
            return None;
        }
        if !hop.contains(&name.to_ascii_lowercase().as_str()) {
            out.push_str(line);
            out.push_str("\r\n");
        }
    }
    out.push_str("\r\n");
    Some(Request { host, port, head: Some(out.into_bytes()) })
}

fn authority(text: &str, default_port: Option<u16>) -> Option<(String, u16)> {
    if text.contains('@') {
        return None;
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port.parse::<u16>().ok()?)),
        _ => (text, None),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let good =
        !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':'));
    good.then_some((host.to_owned(), port.or(default_port)?))
}

async fn refuse(client: &mut TcpStream, status: &str, why: &str) -> io::Result<()> {
    let body = format!("toolyard: {why}\n");
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    client.write_all(format!("{head}{body}").as_bytes()).await?;
    client.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tunnel_and_a_plain_request_name_their_host() {
        let tunnel = parse(b"CONNECT api.example.test:443 HTTP/1.1\r\nHost: other\r\n\r\n").expect("a request");
        assert_eq!((tunnel.host.as_str(), tunnel.port, tunnel.head), ("api.example.test", 443, None));
        let plain = b"GET http://a.test/x?y HTTP/1.1\r\nHost: b.test\r\nProxy-Connection: keep-alive\r\nA: b\r\n\r\n";
        let plain = parse(plain).expect("a request");
        assert_eq!((plain.host.as_str(), plain.port), ("a.test", 80));
        let head = "GET /x?y HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nA: b\r\n\r\n";
        assert_eq!(plain.head.as_deref(), Some(head.as_bytes()));
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for bad in [
            "",
            "GET / HTTP/1.1\r\n\r\n",
            "CONNECT a.test HTTP/1.1\r\n\r\n",
            "CONNECT a.test:443 b.test:443 HTTP/1.1\r\n\r\n",
            "CONNECT u@a.test:443 HTTP/1.1\r\n\r\n",
            "GET http://u@a.test/ HTTP/1.1\r\n\r\n",
            "GET http://a.test/ HTTP/1.1\r\nX : y\r\n\r\n",
            "GET http://a.test/ HTTP/1.1\r\nX: y\r\n folded\r\n\r\n",
            "GET http://a\t.test/ HTTP/1.1\r\n\r\n",
            "GET https://a.test/ HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
    }

    async fn proxy(hosts: &[&str]) -> (SocketAddr, AbortOnDropHandle<()>) {
        proxy_by(hosts, Way::default()).await
    }

    async fn proxy_by(hosts: &[&str], way: Way) -> (SocketAddr, AbortOnDropHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let hosts: Vec<EgressHost> = hosts.iter().map(|host| EgressHost::parse(host).expect("a host")).collect();
        (address, AbortOnDropHandle::new(tokio::spawn(accept(listener, Listed::new(hosts), way))))
    }

    async fn ask(proxy: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(proxy).await.expect("the proxy");
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = vec![0; 4096];
        let count = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut answer)).await.expect("an answer");
        String::from_utf8_lossy(&answer[..count.expect("read")]).into_owned()
    }

    /// Answers every connection with what it asked for.
    async fn mirror(answer: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut chunk = [0; 1024];
                let count = stream.read(&mut chunk).await.unwrap_or(0);
                let got = format!("{answer}{}", String::from_utf8_lossy(&chunk[..count]));
                let _ = stream.write_all(got.as_bytes()).await;
            }
        });
        port
    }

    #[tokio::test]
    async fn a_host_behind_a_proxy_is_reached_through_it_and_others_straight() {
        let seen = mirror("HTTP/1.1 200 seen\r\n\r\n").await;
        let straight = mirror("straight ").await;
        let way = Way::through(Some(&format!("http://me:pw@127.0.0.1:{seen}")), Some("localhost"));
        let local = format!("localhost:{straight}");
        let (address, _proxy) = proxy_by(&["far.test:80", "far.test:443", &local], way).await;
        let plain = ask(address, "GET http://far.test/x HTTP/1.1\r\nHost: far.test\r\n\r\n").await;
        assert!(plain.contains("GET http://far.test:80/x HTTP/1.1\r\nProxy-Authorization: Basic bWU6cHc="), "{plain}");
        assert!(plain.contains("\r\nHost: far.test\r\n"), "{plain}");
        let tunnel = ask(address, "CONNECT far.test:443 HTTP/1.1\r\n\r\n").await;
        assert!(tunnel.starts_with("HTTP/1.1 200 Connection Established"), "{tunnel}");
        let near = ask(address, &format!("GET http://{local}/ HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        assert!(near.starts_with("straight GET / HTTP/1.1"), "{near}");
        let other = ask(address, "CONNECT other.test:443 HTTP/1.1\r\n\r\n").await;
        assert!(other.starts_with("HTTP/1.1 403 "), "{other}");
        let refuses = mirror("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await;
        let way = Way::through(Some(&format!("http://127.0.0.1:{refuses}")), None);
        let (address, _proxy) = proxy_by(&["far.test"], way).await;
        let refused = ask(address, "CONNECT far.test:443 HTTP/1.1\r\n\r\n").await;
        assert!(refused.starts_with("HTTP/1.1 502 "), "{refused}");
    }

    #[tokio::test]
    async fn only_listed_hosts_are_reached() {
        let origin = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = origin.local_addr().expect("an address").port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = origin.accept().await {
                let mut chunk = [0; 1024];
                let count = stream.read(&mut chunk).await.unwrap_or(0);
                let got = format!("got {}", String::from_utf8_lossy(&chunk[..count]));
                let _ = stream.write_all(got.as_bytes()).await;
            }
        });
        let (address, _proxy) = proxy(&[&format!("localhost:{port}")]).await;
        let plain = ask(address, &format!("GET http://localhost:{port}/p HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        assert!(plain.starts_with("got GET /p HTTP/1.1\r\nHost: localhost"), "{plain}");
        let tunnel = ask(address, &format!("CONNECT localhost:{port} HTTP/1.1\r\n\r\n")).await;
        assert!(tunnel.starts_with("HTTP/1.1 200 "), "{tunnel}");
        let other = ask(address, &format!("CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n")).await;
        assert!(other.starts_with("HTTP/1.1 403 "), "{other}");
    }
}
