//! How an agent reaches its control plane: one of several addresses, through a proxy if need be, over TLS with the
//! certificate it has now; or, when it listens, with the next connection that a replica offered ([`crate::Offers`]).

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::{HeaderValue, Request, Response, Uri};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::sync::watch;
use toolyard_types::ReplicaId;
use toolyard_types::agent::AGENT_RUN;
use tower::util::BoxCloneSyncService;

use crate::offer::Offers;
use crate::outgoing::Outgoing;
use crate::swap::{KEEP_ALIVE, KEEP_ALIVE_TIMEOUT};
use crate::tls::{self, AgentKey, DialledStream, SERVER_NAME, TlsError};
use crate::{Body, Channel, LinkError};

/// How long one address may take, TLS included.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How the runs of agents begin that name them on links too. Agents before named them on syncs only.
const NAMES_LINKS: &str = "links-";

/// Whether an agent of this run names it on the links that it makes.
#[must_use]
pub fn names_links(run: &str) -> bool {
    run.starts_with(NAMES_LINKS)
}

/// Where an agent dials and what it trusts.
#[derive(Clone, Debug)]
pub struct DialOptions {
    /// Agent listeners of one control plane, as `host:port`, tried in this order.
    pub addresses: Vec<String>,
    /// The SHA-256 of the CA's certificate, in hex.
    pub ca: String,
    /// The proxy for outgoing connections, as URL: asked by `CONNECT`.
    pub proxy: Option<String>,
    /// Hosts reached without it, separated by commas.
    pub no_proxy: Option<String>,
    /// Connections that the control plane offers: then these are taken, nothing is dialled, and addresses are not used.
    pub offers: Option<Offers>,
}

/// Why a dial failed.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The address is not `host:port`.
    #[error("`{0}` is not an address of an agent listener; it must be `host:port`")]
    Address(String),
    /// No connection was offered within the time limit.
    #[error("{0} offered no connection to {1}; is this the address that it has for this toolbox, and open to it?")]
    NotOffered(String, std::net::SocketAddr),
    /// No address was given.
    #[error("there is no address to dial")]
    NoAddress,
    /// No connection within the time limit, or it broke.
    #[error("cannot connect to {0}")]
    Connect(String, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// The other side refused the link.
    #[error("{0} answered {1}")]
    Refused(String, http::StatusCode),
    /// A key or certificate cannot be used.
    #[error("set up TLS")]
    Tls(#[from] TlsError),
}

/// Dials. Cheap to clone; clones share the certificate and the connection.
#[derive(Clone)]
pub struct Dialler(Arc<Inner>);

struct Inner {
    /// Which run of its agent this is, on everything it asks.
    run: HeaderValue,
    addresses: Vec<(String, Uri)>,
    options: DialOptions,
    outgoing: Outgoing,
    config: RwLock<Arc<rustls::ClientConfig>>,
    /// Rises when the certificate is another one.
    renewed: watch::Sender<u64>,
    /// Where else the control plane says that it is.
    told: RwLock<Vec<(String, Uri)>>,
    /// Which address answered last.
    current: RwLock<Option<String>>,
    /// The connection that requests share, and which certificate it was made with.
    shared: tokio::sync::Mutex<Option<(u64, http2::SendRequest<Body>)>>,
}

impl std::fmt::Debug for Dialler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let addresses: Vec<_> = self.0.addresses.iter().map(|(text, _)| text).collect();
        f.debug_struct("Dialler").field("addresses", &addresses).finish_non_exhaustive()
    }
}

/// `host:port` as URI; the scheme is what a proxy setting is looked up by.
pub(crate) fn target(address: &str) -> Result<Uri, DialError> {
    let wrong = || DialError::Address(address.to_owned());
    let uri: Uri = format!("https://{address}/").parse().map_err(|_| wrong())?;
    let good = uri.authority().is_some_and(|authority| {
        let whole = authority.as_str() == address && !address.contains('@');
        whole && authority.port().is_some() && !authority.host().is_empty()
    });
    if good { Ok(uri) } else { Err(wrong()) }
}

impl Dialler {
    /// Checks the addresses.
    ///
    /// # Errors
    /// When one is not `host:port`, or the cryptography fails.
    pub fn new(options: DialOptions) -> Result<Self, DialError> {
        let addresses: Vec<_> = options
            .addresses
            .iter()
            .map(|text| target(text).map(|uri| (text.clone(), uri)))
            .collect::<Result<_, _>>()?;
        if addresses.is_empty() && options.offers.is_none() {
            return Err(DialError::NoAddress);
        }
        let config = tls::client_config(&options.ca, None)?;
        if let Some(offers) = &options.offers {
            offers.set_config(config.clone());
        }
        let outgoing = Outgoing::new(options.proxy.as_deref(), options.no_proxy.as_deref());
        let run = format!("{NAMES_LINKS}{:032x}", rand::random::<u128>());
        Ok(Self(Arc::new(Inner {
            run: HeaderValue::try_from(run).expect("letters and digits"),
            addresses,
            config: RwLock::new(config),
            options,
            outgoing,
            renewed: watch::Sender::new(0),
            told: RwLock::default(),
            current: RwLock::default(),
            shared: tokio::sync::Mutex::default(),
        })))
    }

    /// Another one to the same control plane, that has no certificate.
    ///
    /// # Errors
    /// When the cryptography fails.
    pub fn without_certificate(&self) -> Result<Self, DialError> {
        Self::new(self.0.options.clone())
    }

    /// Uses this certificate (DER) for every connection from now on; those that are open go on.
    ///
    /// # Errors
    /// When the key and the certificate do not belong together.
    pub fn set_certificate(&self, key: &AgentKey, certificate: &[u8]) -> Result<(), TlsError> {
        let config = tls::client_config(&self.0.options.ca, Some(key.certified(certificate)?))?;
        if let Some(offers) = &self.0.options.offers {
            offers.set_config(config.clone());
        }
        *self.0.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        self.0.renewed.send_modify(|count| *count = count.wrapping_add(1));
        Ok(())
    }

    /// For [`AGENT_RUN`].
    pub(crate) fn run(&self) -> HeaderValue {
        self.0.run.clone()
    }

    /// Changes when the certificate is another one.
    #[must_use]
    pub fn renewed(&self) -> watch::Receiver<u64> {
        self.0.renewed.subscribe()
    }

    /// The address that answered last; of an agent that listens the replica.
    #[must_use]
    pub fn current(&self) -> String {
        if let Some(offers) = &self.0.options.offers {
            return offers.last().map(|replica| replica.to_string()).unwrap_or_default();
        }
        let last = self.0.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        last.or_else(|| self.0.addresses.first().map(|(text, _)| text.clone())).unwrap_or_default()
    }

    /// The connections that are taken instead of dialling.
    #[must_use]
    pub fn offers(&self) -> Option<&Offers> {
        self.0.options.offers.as_ref()
    }

    /// Every address, in order; none of an agent that listens.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        if self.offers().is_some() {
            return Vec::new();
        }
        self.0.addresses.iter().map(|(text, _)| text.clone()).collect()
    }

    /// Where the control plane says that its replicas are: tried after the addresses that were given. What is no address
    /// is left out. With none told the last ones stay: the only replica is one of them.
    pub fn also_at(&self, addresses: &[String]) {
        let told: Vec<_> = addresses.iter().filter_map(|text| Some((text.clone(), target(text).ok()?))).collect();
        if !told.is_empty() {
            *self.0.told.write().unwrap_or_else(PoisonError::into_inner) = told;
        }
    }

    /// Every address that may answer, beginning with the one that did last.
    fn places(&self) -> Vec<(String, Uri)> {
        let mut places = self.0.addresses.clone();
        let told = self.0.told.read().unwrap_or_else(PoisonError::into_inner).clone();
        places.extend(told.into_iter().filter(|(told, _)| !self.0.addresses.iter().any(|(own, _)| own == told)));
        let last = self.current();
        let at = places.iter().position(|(text, _)| *text == last).unwrap_or(0);
        places.rotate_left(at);
        places
    }

    /// A TLS connection to one address; of an agent that listens: to one replica.
    ///
    /// # Errors
    /// When it is no address, or there is no connection in time, or the other side is not of our CA.
    pub async fn connect(&self, address: &str) -> Result<DialledStream, DialError> {
        if let Some(offers) = self.offers() {
            let replica = address.parse().map_err(|_| DialError::Address(address.to_owned()))?;
            return take(offers, Some(replica)).await;
        }
        self.connect_to(address, &target(address)?).await
    }

    async fn connect_to(&self, address: &str, uri: &Uri) -> Result<DialledStream, DialError> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| DialError::Connect(address.to_owned(), error);
        let config = self.0.config.read().unwrap_or_else(PoisonError::into_inner).clone();
        let connect = async {
            let stream = self.0.outgoing.open(uri).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::try_from(SERVER_NAME)?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(
                tokio_rustls::TlsConnector::from(config).connect(name, stream).await?,
            )
        };
        match tokio::time::timeout(DIAL_TIMEOUT, connect).await {
            Ok(connected) => connected.map_err(failed),
            Err(elapsed) => Err(failed(Box::new(elapsed))),
        }
    }

    /// A connection to the address that answered last, or to the next one that does.
    ///
    /// # Errors
    /// The last address's, when none answers.
    pub async fn connect_any(&self) -> Result<DialledStream, DialError> {
        if let Some(offers) = self.offers() {
            return take(offers, None).await;
        }
        let mut last = DialError::NoAddress;
        for (address, uri) in self.places() {
            match self.connect_to(&address, &uri).await {
                Ok(stream) => {
                    *self.0.current.write().unwrap_or_else(PoisonError::into_inner) = Some(address);
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// A channel to the control plane, over one connection that is made when it is needed, and made again with
    /// every new certificate.
    #[must_use]
    pub fn channel(&self) -> Channel {
        let dialler = self.clone();
        BoxCloneSyncService::new(tower::service_fn(move |request: Request<Body>| {
            let dialler = dialler.clone();
            async move { dialler.request(request).await }
        }))
    }

    async fn request(&self, mut request: Request<Body>) -> Result<Response<Body>, LinkError> {
        let unreachable = |source: Box<dyn std::error::Error + Send + Sync>| LinkError::Unreachable {
            peer: "the control plane".into(),
            source,
        };
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let uri = Uri::builder().scheme("https").authority(SERVER_NAME).path_and_query(path).build();
        *request.uri_mut() = uri.map_err(|error| unreachable(Box::new(error)))?;
        request.headers_mut().insert(AGENT_RUN, self.run());
        // The other side may just have ended a connection that was there a moment ago: what was not sent goes on another.
        for is_last in [false, true] {
            let mut sender = self.sender().await.map_err(|error| unreachable(Box::new(error)))?;
            let mut failed = match sender.try_send_request(request).await {
                Ok(answer) => return Ok(answer.map(Body::new)),
                Err(failed) => failed,
            };
            match failed.take_message() {
                Some(unsent) if !is_last => request = unsent,
                _ => return Err(unreachable(Box::new(failed.into_error()))),
            }
        }
        unreachable!("the second attempt is the last")
    }

    async fn sender(&self) -> Result<http2::SendRequest<Body>, DialError> {
        let renewed = *self.0.renewed.borrow();
        let mut shared = self.0.shared.lock().await;
        if let Some((number, sender)) = &*shared
            && *number == renewed
            && !sender.is_closed()
        {
            return Ok(sender.clone());
        }
        *shared = None;
        let stream = self.connect_any().await?;
        let handshake = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .adaptive_window(true)
            .handshake::<_, Body>(TokioIo::new(stream))
            .await;
        let (sender, connection) = handshake.map_err(|error| DialError::Connect(self.current(), Box::new(error)))?;
        // Ends when the last sender is dropped, or the connection breaks.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to the control plane broke");
            }
        });
        *shared = Some((renewed, sender.clone()));
        Ok(sender)
    }
}

async fn take(offers: &Offers, replica: Option<ReplicaId>) -> Result<DialledStream, DialError> {
    let taken = tokio::time::timeout(DIAL_TIMEOUT, offers.take(replica)).await;
    let name = || replica.map_or_else(|| "the control plane".to_owned(), |replica| format!("replica {replica}"));
    taken.map(|(_, stream)| stream).map_err(|_| DialError::NotOffered(name(), offers.address()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_answered_last_is_tried_first_and_what_was_told_after_what_was_given() {
        let (addresses, ca) = (vec!["a.example:1".to_owned()], "00".repeat(32));
        let options = DialOptions { addresses, ca, proxy: None, no_proxy: None, offers: None };
        let dialler = Dialler::new(options).expect("good options");
        let places = || dialler.places().into_iter().map(|(text, _)| text).collect::<Vec<_>>();
        assert_eq!(places(), ["a.example:1"]);
        dialler.also_at(&["b.example:1".into(), "no address".into(), "a.example:1".into()]);
        assert_eq!(places(), ["a.example:1", "b.example:1"]);
        *dialler.0.current.write().expect("not poisoned") = Some("b.example:1".into());
        dialler.also_at(&[]);
        assert_eq!(places(), ["b.example:1", "a.example:1"]);
    }

    #[test]
    fn addresses_are_host_and_port_and_nothing_else() {
        for good in ["control.example:8081", "10.0.0.1:1", "[::1]:8081"] {
            assert!(target(good).is_ok(), "{good}");
        }
        for bad in ["control.example", "http://control.example:8081", "user@host:1", "host:1/path", "", ":1"] {
            assert!(target(bad).is_err(), "{bad}");
        }
    }
}
