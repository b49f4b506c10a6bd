//! Connections to agents that listen: the control plane opens them, and everything above stays as it is.
//!
//! A host that must not dial out has an agent that listens. The control plane connects to it and *offers* the
//! connection: from then on it is one like those that other agents dial. The agent is the client of TLS and of HTTP, the
//! control plane proves itself with a certificate of the pinned CA, and the agent takes the connection when it needs one,
//! for a sync or for a link. Each replica keeps one untaken connection there and opens the next when it was taken.
//!
//! ```text
//! control plane -> agent   toolyard-offer/1\n           in the clear: what else connects is dropped at once
//! agent -> control plane   TLS, with the agent's certificate where it has one
//! control plane -> agent   replica <id>\n               within TLS: only a control plane that offers says it
//! ```
//!
//! Anybody can connect to an agent's port, so nothing is believed before the last line. The first one only saves work. The
//! last is inside TLS because somebody in between could make up the replica, and could pass on a connection to the
//! control plane's own agent listener, which says no such line. Those that have not proved themselves are few: when there are
//! more, the oldest goes, so that silent strangers do not keep the control plane out.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use toolyard_types::ReplicaId;

use crate::dial::target;
use crate::outgoing::{self, Outgoing};
use crate::tls::{AcceptedStream, Acceptor, DialledStream, PeerIdentity, SERVER_NAME, TlsError};

/// What an offered connection begins with.
const GREETING: &str = "toolyard-offer/1\n";
/// What an offered connection says within TLS, before the replica's id.
const REPLICA: &str = "replica ";
const LONGEST_LINE: usize = 128;
/// How long a stranger may take to begin as an offer does, and then to prove itself.
const GREETING_TIMEOUT: Duration = Duration::from_secs(3);
const PROOF_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that have not proved themselves.
const MOST_STRANGERS: usize = 64;
/// Connections that wait to be taken, for each replica, and the replicas.
const MOST_WAITING: usize = 4;
const MOST_REPLICAS: usize = 64;
/// A replica that offers nothing for so long is gone; it offers again within seconds of what was taken.
const FORGOTTEN: Duration = Duration::from_secs(30);
/// How long an offered connection is kept untaken. A host that vanished says nothing, so the control plane opens another one
/// before that.
const LONGEST_WAIT: Duration = Duration::from_secs(90);
/// When the control plane opens another connection in place of one that nobody took.
const REPLACED_AFTER: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long accepting pauses when the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const TIDY_EVERY: Duration = Duration::from_secs(5);

/// The agent's side: connections that were offered and not taken yet. Cheap to clone.
#[derive(Clone)]
pub struct Offers(Arc<Shared>);

struct Shared {
    address: SocketAddr,
    table: Mutex<Table>,
    /// Rises when a connection was offered.
    arrived: watch::Sender<u64>,
    replicas: watch::Sender<Vec<String>>,
}

struct Table {
    /// What connections are proved with, and its number: with another certificate the waiting ones are let go.
    config: Option<(u64, Arc<rustls::ClientConfig>)>,
    replicas: BTreeMap<ReplicaId, Replica>,
    /// Whose connection was taken last without naming a replica.
    last: Option<ReplicaId>,
}

struct Replica {
    waiting: VecDeque<Claim>,
    heard: Instant,
}

/// Takes a waiting connection from the task that holds it.
type Claim = oneshot::Sender<oneshot::Sender<DialledStream>>;

impl std::fmt::Debug for Offers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Offers").field("address", &self.0.address).finish_non_exhaustive()
    }
}

/// Why an offered connection is not believed.
#[derive(Debug, thiserror::Error)]
enum Unproved {
    #[error("it does not begin as an offer does")]
    Greeting,
    #[error("no certificate of the pinned CA")]
    Tls(#[source] std::io::Error),
    #[error("it does not say which replica it is")]
    Replica,
    #[error("it took too long")]
    Timeout,
    #[error("this agent does not know yet whom to trust")]
    NotReady,
}

impl Offers {
    /// None yet; `address` is where this agent listens.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        let table = Table { config: None, replicas: BTreeMap::new(), last: None };
        Self(Arc::new(Shared {
            address,
            table: Mutex::new(table),
            arrived: watch::Sender::new(0),
            replicas: watch::Sender::new(Vec::new()),
        }))
    }

    /// Where this agent listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// The replicas that offer connections, by id: what [`crate::Dialler::link`] takes as an address.
    #[must_use]
    pub fn replicas(&self) -> watch::Receiver<Vec<String>> {
        self.0.replicas.subscribe()
    }

    /// Proves connections with this from now on.
    pub(crate) fn set_config(&self, config: Arc<rustls::ClientConfig>) {
        let mut table = self.table();
        let number = table.config.as_ref().map_or(0, |(number, _)| number.wrapping_add(1));
        table.config = Some((number, config));
        table.replicas.values_mut().for_each(|replica| replica.waiting.clear());
    }

    /// The next connection of this replica; without one of the replica that was taken last, or of any. Waits for it.
    pub(crate) async fn take(&self, replica: Option<ReplicaId>) -> (ReplicaId, DialledStream) {
        let mut arrived = self.0.arrived.subscribe();
        loop {
            arrived.borrow_and_update();
            while let Some((id, claim)) = self.next(replica) {
                let (give, given) = oneshot::channel();
                // A connection may have ended meanwhile; then there may be another one.
                if claim.send(give).is_ok()
                    && let Ok(stream) = given.await
                {
                    if replica.is_none() {
                        self.table().last = Some(id);
                    }
                    return (id, stream);
                }
            }
            if arrived.changed().await.is_err() {
                // `self` holds the sender.
                std::future::pending::<()>().await;
            }
        }
    }

    fn next(&self, replica: Option<ReplicaId>) -> Option<(ReplicaId, Claim)> {
        let mut table = self.table();
        let first = replica.or(table.last);
        if let Some(id) = first
            && let Some(claim) = table.replicas.get_mut(&id).and_then(|replica| replica.waiting.pop_front())
        {
            return Some((id, claim));
        }
        if replica.is_some() {
            return None;
        }
        table.replicas.iter_mut().find_map(|(id, replica)| Some((*id, replica.waiting.pop_front()?)))
    }

    /// Whose connection was taken last.
    pub(crate) fn last(&self) -> Option<ReplicaId> {
        self.table().last
    }

    /// Accepts connections until dropped.
    pub async fn listen(self, listener: TcpListener) {
        let mut tasks = JoinSet::new();
        let mut strangers: VecDeque<(AbortHandle, Arc<AtomicBool>)> = VecDeque::new();
        let mut tidying = tokio::time::interval(TIDY_EVERY);
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, from)) => {
                        strangers.retain(|(task, proved)| !task.is_finished() && !proved.load(Ordering::Relaxed));
                        while strangers.len() >= MOST_STRANGERS {
                            strangers.pop_front().inspect(|(oldest, _)| oldest.abort());
                        }
                        let (offers, proved) = (self.clone(), Arc::new(AtomicBool::new(false)));
                        let known = Arc::clone(&proved);
                        let task = tasks.spawn(async move { offers.consider(stream, from, &known).await });
                        strangers.push_back((task, proved));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection was not accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = tasks.join_next() => {}
                _ = tidying.tick() => self.tidy(),
            }
        }
    }

    /// One connection, until it is taken or ends.
    async fn consider(&self, stream: TcpStream, from: SocketAddr, proved: &AtomicBool) {
        let (number, replica, mut stream) = match self.prove(stream).await {
            Ok(offer) => offer,
            Err(error) => {
                return tracing::debug!(error = &error as &dyn std::error::Error, %from, "a connection was dropped");
            }
        };
        proved.store(true, Ordering::Relaxed);
        let (claim, claimed) = oneshot::channel();
        if !self.put(replica, number, claim) {
            return;
        }
        let mut byte = [0];
        tokio::select! {
            taker = claimed => if let Ok(taker) = taker {
                let _ = taker.send(stream);
            },
            // It ended; or it speaks without being asked.
            _ = stream.read(&mut byte) => {}
            () = tokio::time::sleep(LONGEST_WAIT) => {}
        }
    }

    async fn prove(&self, mut stream: TcpStream) -> Result<(u64, ReplicaId, DialledStream), Unproved> {
        let greeting = tokio::time::timeout(GREETING_TIMEOUT, line(&mut stream)).await;
        if greeting.map_err(|_| Unproved::Timeout)?.as_deref() != Some(GREETING.trim_end()) {
            return Err(Unproved::Greeting);
        }
        let (number, config) = self.table().config.clone().ok_or(Unproved::NotReady)?;
        let proof = async {
            stream.set_nodelay(true).map_err(Unproved::Tls)?;
            let name = ServerName::try_from(SERVER_NAME).expect("the constant is a name");
            let connector = tokio_rustls::TlsConnector::from(config);
            let mut stream = connector.connect(name, stream).await.map_err(Unproved::Tls)?;
            let said = line(&mut stream).await.ok_or(Unproved::Replica)?;
            let replica = said.strip_prefix(REPLICA).and_then(|id| id.parse().ok()).ok_or(Unproved::Replica)?;
            Ok((number, replica, stream))
        };
        tokio::time::timeout(PROOF_TIMEOUT, proof).await.map_err(|_| Unproved::Timeout)?
    }

    /// Puts a proved connection where it can be taken; `false` when it was proved with an older certificate, or there are
    /// too many replicas.
    fn put(&self, replica: ReplicaId, number: u64, claim: Claim) -> bool {
        let mut table = self.table();
        let current = table.config.as_ref().is_some_and(|(current, _)| *current == number);
        let known = table.replicas.contains_key(&replica);
        if !current || (!known && table.replicas.len() >= MOST_REPLICAS) {
            return false;
        }
        let heard = Instant::now();
        let entry = table.replicas.entry(replica).or_insert_with(|| Replica { waiting: VecDeque::new(), heard });
        entry.heard = heard;
        entry.waiting.retain(|claim| !claim.is_closed());
        // The newest is the one that is most likely still there.
        if entry.waiting.len() >= MOST_WAITING {
            entry.waiting.pop_front();
        }
        entry.waiting.push_back(claim);
        self.name(&table);
        drop(table);
        self.0.arrived.send_modify(|count| *count = count.wrapping_add(1));
        true
    }

    /// Forgets what has ended.
    fn tidy(&self) {
        let mut table = self.table();
        table.replicas.retain(|_, replica| {
            replica.waiting.retain(|claim| !claim.is_closed());
            !replica.waiting.is_empty() || replica.heard.elapsed() < FORGOTTEN
        });
        self.name(&table);
    }

    fn name(&self, table: &Table) {
        let names: Vec<_> = table.replicas.keys().map(ReplicaId::to_string).collect();
        self.0.replicas.send_if_modified(|known| {
            let differs = *known != names;
            *known = names;
            differs
        });
    }

    /// Nothing that holds it can panic half-way through a change.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A line without its end; `None` when there is none, or it is too long.
async fn line(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut line = Vec::new();
    // Byte by byte: what follows belongs to somebody else.
    while line.len() < LONGEST_LINE {
        match stream.read_u8().await.ok()? {
            b'\n' => return String::from_utf8(line).ok(),
            byte => line.push(byte),
        }
    }
    None
}

/// Why a connection could not be offered.
#[derive(Debug, thiserror::Error)]
pub enum OfferError {
    /// The name leads nowhere, or only where no agent may be.
    #[error("`{0}` leads to no address at which an agent may listen")]
    Address(String),
    /// Nobody accepts connections there.
    #[error("cannot connect to {0}")]
    Connect(SocketAddr, #[source] std::io::Error),
    /// The proxy makes no connection there.
    #[error("cannot connect to {0} through the proxy")]
    Proxy(String, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// Nobody accepts them in time.
    #[error("{0} did not accept the connection in time")]
    Timeout(String),
    /// What listens there is no agent of ours.
    #[error("what listens there is no agent of this Toolyard")]
    Tls(#[from] TlsError),
    /// It went away.
    #[error("the agent closed the connection")]
    Closed(#[source] std::io::Error),
}

/// A connection that an agent may take, as the control plane has it.
pub type OfferedStream = BufReader<AcceptedStream>;

/// Opens a connection to the agent at `address` (`host:port`), through the proxy where there is one for it, and offers it;
/// tells who is there, as [`Acceptor::accept`] does.
///
/// # Errors
/// When nobody listens there in time, or it is no agent of ours.
pub async fn offer(
    address: &str,
    replica: ReplicaId,
    acceptor: &Acceptor,
    outgoing: &Outgoing,
) -> Result<(OfferedStream, Option<PeerIdentity>), OfferError> {
    let mut stream = match tokio::time::timeout(CONNECT_TIMEOUT, open(address, outgoing)).await {
        Ok(opened) => opened?,
        Err(_) => return Err(OfferError::Timeout(address.to_owned())),
    };
    stream.set_nodelay(true).map_err(OfferError::Closed)?;
    stream.write_all(GREETING.as_bytes()).await.map_err(OfferError::Closed)?;
    let (mut stream, peer) = acceptor.accept(stream).await?;
    stream.write_all(format!("{REPLICA}{replica}\n").as_bytes()).await.map_err(OfferError::Closed)?;
    stream.flush().await.map_err(OfferError::Closed)?;
    Ok((BufReader::new(stream), peer))
}

async fn open(address: &str, outgoing: &Outgoing) -> Result<TcpStream, OfferError> {
    let nowhere = || OfferError::Address(address.to_owned());
    let to = target(address).map_err(|_| nowhere())?;
    if let Some(proxy) = outgoing.proxy(&to) {
        // A name is the proxy's to resolve, and what it leads to the proxy's to decide.
        let literal = to.host().and_then(|host| host.trim_matches(['[', ']']).parse().ok());
        if literal.is_some_and(|literal| !may_be_agent(literal)) {
            return Err(nowhere());
        }
        return outgoing::through(&proxy, &to).await.map_err(|error| OfferError::Proxy(address.to_owned(), error));
    }
    // Names are looked at where they lead when they are used: one that changes does not get past this.
    let found = tokio::net::lookup_host(address).await.map_err(|_| nowhere())?;
    let mut last = nowhere();
    for at in found.filter(|at| may_be_agent(at.ip())) {
        match TcpStream::connect(at).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = OfferError::Connect(at, error),
        }
    }
    Err(last)
}

/// How an offered connection's wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// The agent has begun to use it.
    Taken,
    /// It was closed.
    Closed,
    /// Nobody took it for a while; another one should be offered before the agent gives it up.
    Stale,
}

/// Waits until the agent uses an offered connection.
pub async fn wait_taken(stream: &mut OfferedStream) -> Waited {
    use tokio::io::AsyncBufReadExt;
    match tokio::time::timeout(REPLACED_AFTER, stream.fill_buf()).await {
        Ok(Ok(bytes)) if !bytes.is_empty() => Waited::Taken,
        Ok(_) => Waited::Closed,
        Err(_) => Waited::Stale,
    }
}

/// Whether an agent may listen at an address: private ones and loopback too, but none at which hosts are told their
/// own secrets (metadata services), and none that is not a host's.
#[must_use]
pub fn may_be_agent(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            // Two metadata services are not at a link-local address.
            let metadata = matches!((a, b, c, d), (100, 100, 100, 200) | (168, 63, 129, 16) | (192, 0, 0, 192));
            !(metadata || address.is_link_local() || address.is_multicast() || a == 0 || a >= 240)
        }
        IpAddr::V6(address) => match address.to_ipv4_mapped().or_else(|| translated(address)) {
            Some(inner) => may_be_agent(IpAddr::V4(inner)),
            None => {
                let metadata = [
                    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
                    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
                    Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
                ]
                .contains(&address);
                let link_local = address.segments()[0] & 0xffc0 == 0xfe80;
                !(metadata || link_local || address.is_multicast() || address.is_unspecified())
            }
        },
    }
}

/// The IPv4 address inside a NAT64 (64:ff9b::/96) or 6to4 (2002::/16) address.
fn translated(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let octets = address.octets();
    let four = |at: usize| Some(Ipv4Addr::new(octets[at], octets[at + 1], octets[at + 2], octets[at + 3]));
    match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] => four(12),
        [0x2002, ..] => four(2),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{AgentKey, Authority, PeerCertificate};
    use crate::{DialOptions, Dialler};
    use toolyard_types::{Clock, ToolboxId};

    /// A control plane that may offer connections, and an agent that listens.
    struct World {
        authority: Arc<Authority>,
        acceptor: Acceptor,
        offers: Offers,
        dialler: Dialler,
        replica: ReplicaId,
        _listening: tokio_util::task::AbortOnDropHandle<()>,
    }

    impl World {
        async fn new() -> Self {
            let clock = Clock::system();
            let authority = Arc::new(Authority::generate(clock.now()).expect("a CA"));
            let acceptor = Acceptor::new(authority.clone(), clock).expect("TLS");
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let offers = Offers::new(listener.local_addr().expect("an address"));
            let dialler = Dialler::new(DialOptions {
                addresses: Vec::new(),
                ca: authority.fingerprint(),
                proxy: None,
                no_proxy: None,
                offers: Some(offers.clone()),
            });
            let listening = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(offers.clone().listen(listener)));
            let dialler = dialler.expect("a dialler");
            Self { authority, acceptor, offers, dialler, replica: ReplicaId::generate(), _listening: listening }
        }

        fn address(&self) -> String {
            self.offers.address().to_string()
        }

        async fn offer(&self) -> (OfferedStream, Option<PeerIdentity>) {
            offer(&self.address(), self.replica, &self.acceptor, &Outgoing::default()).await.expect("an offer")
        }
    }

    async fn closed(mut stream: impl AsyncRead + Unpin) {
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await;
        // Reset or ended: it is gone.
        let _ = ended.expect("it is closed");
    }

    #[tokio::test]
    async fn an_offered_connection_carries_bytes_both_ways_once_the_agent_takes_it() {
        let world = World::new().await;
        let (mut offered, peer) = world.offer().await;
        assert_eq!(peer, None, "the agent has no certificate yet");
        let mut taken = world.dialler.connect_any().await.expect("a connection");
        assert_eq!(world.dialler.current(), world.replica.to_string());
        taken.write_all(b"asked").await.expect("sent");
        taken.flush().await.expect("sent");
        assert_eq!(wait_taken(&mut offered).await, Waited::Taken);
        let mut asked = [0; 5];
        offered.read_exact(&mut asked).await.expect("what was sent");
        assert_eq!(&asked, b"asked");
        offered.write_all(b"told").await.expect("sent");
        offered.flush().await.expect("sent");
        let mut told = [0; 4];
        taken.read_exact(&mut told).await.expect("what was sent");
        assert_eq!(&told, b"told");
    }

    #[tokio::test]
    async fn each_replica_is_named_and_its_own_connections_are_taken() {
        let world = World::new().await;
        let other = ReplicaId::generate();
        let (_first, _) = world.offer().await;
        let (mut second, _) =
            offer(&world.address(), other, &world.acceptor, &Outgoing::default()).await.expect("an offer");
        let mut replicas = world.offers.replicas();
        let named = replicas.wait_for(|names| names.len() == 2).await.expect("named").clone();
        assert!(named.contains(&other.to_string()) && named.contains(&world.replica.to_string()));
        let mut taken = world.dialler.connect(&other.to_string()).await.expect("a connection");
        taken.write_all(b"x").await.expect("sent");
        taken.flush().await.expect("sent");
        assert_eq!(wait_taken(&mut second).await, Waited::Taken);
        assert!(world.dialler.connect("somewhere:1").await.is_err(), "an address is none of a replica");
    }

    #[tokio::test]
    async fn with_its_certificate_the_agent_is_known_and_what_was_offered_before_is_let_go() {
        let world = World::new().await;
        let (before, _) = world.offer().await;
        let mut replicas = world.offers.replicas();
        replicas.wait_for(|names| !names.is_empty()).await.expect("named");
        let (now, key, toolbox) = (Clock::system().now(), AgentKey::generate().expect("a key"), ToolboxId::generate());
        let request = key.signing_request().expect("a request");
        let hour = Duration::from_secs(3600);
        let issued = world.authority.issue_agent(&request, (toolbox, 3), now, now.plus(hour)).expect("a certificate");
        world.dialler.set_certificate(&key, &issued).expect("set");
        closed(before).await;
        let (_offered, peer) = world.offer().await;
        let Some(PeerIdentity::Toolbox(PeerCertificate { toolbox: known, enrolment, .. })) = peer else {
            panic!("not known: {peer:?}")
        };
        assert_eq!((known, enrolment), (toolbox, 3));
        world.dialler.connect_any().await.expect("a connection");
    }

    #[tokio::test]
    async fn strangers_are_dropped_and_keep_nobody_out() {
        let world = World::new().await;
        // More than may be there, and all of them silent.
        let mut silent = Vec::new();
        for _ in 0..MOST_STRANGERS * 2 {
            silent.push(TcpStream::connect(world.address()).await.expect("a connection"));
        }
        let mut garbage = TcpStream::connect(world.address()).await.expect("a connection");
        garbage.write_all(&[b'x'; 4096]).await.expect("sent");
        closed(garbage).await;
        let (_offered, _) = world.offer().await;
        world.dialler.connect_any().await.expect("a connection");
        for stream in silent {
            closed(stream).await;
        }
    }

    #[tokio::test]
    async fn a_control_plane_of_another_ca_and_a_listener_that_is_passed_on_are_not_believed() {
        let world = World::new().await;
        let clock = Clock::system();
        let other = Arc::new(Authority::generate(clock.now()).expect("a CA"));
        let other = Acceptor::new(other, clock).expect("TLS");
        let refused = offer(&world.address(), world.replica, &other, &Outgoing::default()).await;
        assert!(matches!(refused, Err(OfferError::Tls(_))), "{:?}", refused.map(|_| ()));

        // Our own listener, as somebody in between could pass it on: good TLS, and no word of a replica.
        let mut passed_on = TcpStream::connect(world.address()).await.expect("a connection");
        passed_on.write_all(GREETING.as_bytes()).await.expect("sent");
        let (stream, _) = world.acceptor.accept(passed_on).await.expect("TLS");
        closed(stream).await;
        assert!(world.offers.replicas().borrow().is_empty());
    }

    #[tokio::test]
    async fn an_offer_that_ends_untaken_is_not_handed_out() {
        let world = World::new().await;
        let (first, _) = world.offer().await;
        let mut replicas = world.offers.replicas();
        replicas.wait_for(|names| !names.is_empty()).await.expect("named");
        drop(first);
        let (mut second, _) = world.offer().await;
        let mut taken = world.dialler.connect_any().await.expect("a connection");
        taken.write_all(b"x").await.expect("sent");
        taken.flush().await.expect("sent");
        assert_eq!(wait_taken(&mut second).await, Waited::Taken);
    }

    #[tokio::test]
    async fn nothing_is_sent_to_metadata_services() {
        for good in ["10.0.0.1", "127.0.0.1", "192.168.1.1", "8.8.8.8", "::1", "fd12::1", "2001:4860::1"] {
            assert!(may_be_agent(good.parse().expect("an address")), "{good}");
        }
        for bad in [
            "169.254.169.254",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "100.100.100.200",
            "168.63.129.16",
            "fe80::1",
            "fd00:ec2::254",
            "::",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
        ] {
            assert!(!may_be_agent(bad.parse().expect("an address")), "{bad}");
        }
        let clock = Clock::system();
        let acceptor = Acceptor::new(Arc::new(Authority::generate(clock.now()).expect("a CA")), clock).expect("TLS");
        let proxied = Outgoing::new(Some("http://127.0.0.1:9"), None);
        for outgoing in [Outgoing::default(), proxied] {
            for address in ["169.254.169.254:80", "[fe80::1]:80"] {
                let refused = offer(address, ReplicaId::generate(), &acceptor, &outgoing).await;
                assert!(matches!(refused, Err(OfferError::Address(_))), "{address}");
            }
        }
    }

    /// A proxy that connects everything asked of it by `CONNECT` to one place, and tells what it was asked.
    async fn proxy(to: SocketAddr) -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (told, asked) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.expect("a request"));
                }
                let _ = told.send(String::from_utf8(head).expect("text"));
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.expect("sent");
                let mut there = TcpStream::connect(to).await.expect("a connection");
                tokio::spawn(async move { tokio::io::copy_bidirectional(&mut stream, &mut there).await });
            }
        });
        (address, asked)
    }

    #[tokio::test]
    async fn a_proxy_is_asked_for_the_way_to_an_agent_except_to_hosts_without_it() {
        let world = World::new().await;
        let (proxy, mut asked) = proxy(world.offers.address()).await;
        let url = format!("http://me:secret@{proxy}");
        let outgoing = Outgoing::new(Some(&url), Some("127.0.0.1"));
        let through = offer("edge.example:8082", world.replica, &world.acceptor, &outgoing).await;
        let (mut offered, _) = through.expect("an offer");
        let asked_for = asked.recv().await.expect("it was asked");
        assert!(asked_for.starts_with("CONNECT edge.example:8082 HTTP/1.1\r\n"), "{asked_for}");
        assert!(asked_for.to_lowercase().contains("proxy-authorization: basic bwu6c2vjcmv0"), "{asked_for}");
        let mut taken = world.dialler.connect_any().await.expect("a connection");
        taken.write_all(b"x").await.expect("sent");
        taken.flush().await.expect("sent");
        assert_eq!(wait_taken(&mut offered).await, Waited::Taken);
        offer(&world.address(), world.replica, &world.acceptor, &outgoing).await.expect("an offer without the proxy");
        assert!(asked.try_recv().is_err());
        assert!(!format!("{outgoing:?}").contains("secret"));
    }
}
