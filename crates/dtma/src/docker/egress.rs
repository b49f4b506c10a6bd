//! Whom a server may reach: a proxy of ours inside the container's own network.
//!
//! A server with a list of hosts has a network namespace with nothing in it but a loopback device: no route, no
//! name service, no neighbour. The agent enters that namespace with one thread, opens a listener there, and
//! serves it from outside: sockets stay in the namespace they were made in, and those to the hosts are made in
//! ours. So no packet of the server's ever leaves, whatever it does; only what the proxy was asked for and finds
//! listed. There are no network rules to keep, and nothing of this host is reachable but the proxy.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;
use toolyard_types::spec::EgressHost;

const PORT: u16 = 3128;
/// What a server's environment names.
pub(super) const ADDRESS: &str = "http://127.0.0.1:3128";
/// Connections of one server at once; more wait.
const MAX_CONNECTIONS: usize = 256;
const MAX_HEAD_BYTES: usize = 16 << 10;
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Why this agent cannot enter a container's network, if so.
#[cfg(target_os = "linux")]
pub(super) fn why_not() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("only an agent that runs as root can open a proxy in a container's network".to_owned());
    }
    // In a container of its own an agent is root and may not do it all the same.
    let own = std::thread::spawn(|| enter(std::process::id())).join();
    match own {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(format!("this agent may not enter a container's network: {error}")),
        Err(_) => Some("this agent may not enter a container's network".to_owned()),
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn why_not() -> Option<String> {
    Some("a proxy in a container's network needs Linux".to_owned())
}

#[cfg(target_os = "linux")]
fn enter(pid: u32) -> io::Result<()> {
    let namespace = std::fs::File::open(format!("/proc/{pid}/ns/net"))?;
    nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET)?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn enter(_pid: u32) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Serves the proxy in the network namespace of `pid`, until dropped.
///
/// # Errors
/// When the namespace cannot be entered, or something listens there already.
pub(super) fn serve(pid: u32, hosts: Vec<EgressHost>) -> io::Result<AbortOnDropHandle<()>> {
    // A thread of its own, that ends there: a namespace belongs to a thread.
    let listen = move || {
        enter(pid)?;
        std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, PORT))
    };
    let listener = std::thread::spawn(listen).join();
    let listener = listener.unwrap_or_else(|_| Err(io::Error::other("the listening thread broke")))?;
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    Ok(AbortOnDropHandle::new(tokio::spawn(accept(listener, Arc::from(hosts)))))
}

async fn accept(listener: TcpListener, hosts: Arc<[EgressHost]>) {
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
        let hosts = Arc::clone(&hosts);
        connections.spawn(async move {
            let _turn = turn;
            // What goes wrong on a connection is told to the server on it.
            let _ = converse(stream, &hosts).await;
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

async fn converse(mut client: TcpStream, hosts: &[EgressHost]) -> io::Result<()> {
    let (head, rest) = match tokio::time::timeout(HEAD_TIMEOUT, read_head(&mut client)).await {
        Ok(Ok(Some(read))) => read,
        Ok(Ok(None)) => return refuse(&mut client, "400 Bad Request", "the request cannot be read").await,
        Ok(Err(error)) => return Err(error),
        Err(_) => return Ok(()),
    };
    let Some(request) = parse(&head) else {
        return refuse(&mut client, "400 Bad Request", "the request cannot be read").await;
    };
    if !hosts.iter().any(|listed| listed.matches(&request.host, request.port)) {
        let why = format!("`{}:{}` is not among the hosts this server may reach", request.host, request.port);
        return refuse(&mut client, "403 Forbidden", &why).await;
    }
    let mut upstream = match connect(&request.host, request.port).await {
        Ok(upstream) => upstream,
        Err(error) => return refuse(&mut client, "502 Bad Gateway", &error.to_string()).await,
    };
    match &request.head {
        None => client.write_all(b"HTTP/1.1 200 Connection Established\r\n\r\n").await?,
        Some(head) => upstream.write_all(head).await?,
    }
    upstream.write_all(&rest).await?;
    tokio::io::copy_bidirectional(&mut client, &mut upstream).await?;
    Ok(())
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
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let hosts: Vec<EgressHost> = hosts.iter().map(|host| EgressHost::parse(host).expect("a host")).collect();
        (address, AbortOnDropHandle::new(tokio::spawn(accept(listener, Arc::from(hosts)))))
    }

    async fn ask(proxy: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(proxy).await.expect("the proxy");
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = vec![0; 4096];
        let count = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut answer)).await.expect("an answer");
        String::from_utf8_lossy(&answer[..count.expect("read")]).into_owned()
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
