//! How our TCP connections get out of a host: directly, or by `CONNECT` through the proxy that the operator has set.

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use tokio::net::TcpStream;
use tower::Service;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// The way out. Cheap to clone; without a proxy unless one is given.
#[derive(Clone, Default)]
pub struct Outgoing {
    matcher: Option<std::sync::Arc<Matcher>>,
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The proxy's URL may hold a password.
        f.debug_struct("Outgoing").field("proxy", &self.matcher.is_some()).finish()
    }
}

impl Outgoing {
    /// Through `proxy`, a URL, except to the hosts in `no_proxy`, separated by commas.
    #[must_use]
    pub fn new(proxy: Option<&str>, no_proxy: Option<&str>) -> Self {
        let matcher = |proxy| Matcher::builder().all(proxy).no(no_proxy.unwrap_or_default()).build();
        Self { matcher: proxy.map(|proxy| std::sync::Arc::new(matcher(proxy))) }
    }

    /// The proxy for this host, if there is one. The scheme of `to` is what it is looked up by.
    pub(crate) fn proxy(&self, to: &Uri) -> Option<Intercept> {
        self.matcher.as_ref()?.intercept(to)
    }

    /// A TCP connection to a host and port, through the proxy where there is one for it.
    pub(crate) async fn open(&self, to: &Uri) -> Result<TcpStream, Error> {
        match self.proxy(to) {
            Some(proxy) => through(&proxy, to).await,
            None => Ok(direct().call(to.clone()).await?.into_inner()),
        }
    }
}

fn direct() -> HttpConnector {
    let mut direct = HttpConnector::new();
    direct.enforce_http(false);
    direct
}

/// A TCP connection that a proxy makes; it resolves the name, and it decides what can be reached.
pub(crate) async fn through(proxy: &Intercept, to: &Uri) -> Result<TcpStream, Error> {
    let tunnel = Tunnel::new(proxy.uri().clone(), direct());
    let mut tunnel = match proxy.basic_auth() {
        Some(auth) => tunnel.with_auth(auth.clone()),
        None => tunnel,
    };
    Ok(tunnel.call(to.clone()).await?.into_inner())
}
