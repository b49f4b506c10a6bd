//! Which host names and web origins a listener answers to.
//!
//! A web page must not reach a Toolyard through the browser of somebody who can: by a name of its own that it lets
//! stand for our address (DNS rebinding), or as another site (`Origin`).

use http::uri::Authority;
use http::{HeaderMap, header};
use toolyard_types::Code;

/// Why a request was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Shut {
    /// It names no host.
    #[error("the request names no host; send one `Host` header")]
    NoHost,
    /// It names more than one.
    #[error("the request names more than one host; send one `Host` header")]
    ManyHosts,
    /// The host is none of ours.
    #[error("this host name is not served here; if it is Toolyard's own, set `public_url` or `allowed_hosts`")]
    ForeignHost,
    /// It comes from another web site.
    #[error(
        "requests from this web origin are not allowed; if it is Toolyard's own, set `public_url` or `allowed_hosts`"
    )]
    ForeignOrigin,
}

impl Shut {
    /// The problem code.
    #[must_use]
    pub fn code(self) -> Code {
        match self {
            Self::NoHost | Self::ManyHosts => Code::BadRequest,
            Self::ForeignHost | Self::ForeignOrigin => Code::Forbidden,
        }
    }
}

/// The host names and origins that are let in.
#[derive(Clone, Debug)]
pub struct Doors {
    hosts: Option<Vec<String>>,
    origins: Vec<String>,
}

impl Doors {
    /// With `hosts` only those are served, and any loopback address; without, any. `origins` may call, such as
    /// `https://app.example`; loopback origins and those of `hosts` always may.
    #[must_use]
    pub fn new(hosts: Option<Vec<String>>, origins: Vec<String>) -> Self {
        // An origin has no path; people write URLs with a slash at the end.
        let origins = origins.iter().map(|origin| origin.trim_end_matches('/').to_owned()).collect();
        Self { hosts, origins }
    }

    /// Refuses a request that names no host, several, or a foreign one, and one of a foreign web origin. `authority` is
    /// that of the request's URI.
    ///
    /// # Errors
    /// Why it is not let in.
    pub fn check(&self, headers: &HeaderMap, authority: Option<&Authority>) -> Result<(), Shut> {
        let host = self.check_host(headers, authority)?;
        self.check_origin(headers, host)
    }

    /// Only the part about the host; that which the request names.
    ///
    /// # Errors
    /// Why it is not let in.
    pub fn check_host<'a>(&self, headers: &'a HeaderMap, authority: Option<&'a Authority>) -> Result<&'a str, Shut> {
        let host = the_host(headers, authority)?;
        match &self.hosts {
            Some(hosts) if !is_listed(host_name(host), hosts) && !is_loopback(host_name(host)) => {
                Err(Shut::ForeignHost)
            }
            _ => Ok(host),
        }
    }

    /// Whether only some hosts are served here.
    #[must_use]
    pub fn lists_hosts(&self) -> bool {
        self.hosts.is_some()
    }

    fn check_origin(&self, headers: &HeaderMap, host: &str) -> Result<(), Shut> {
        let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
        let allowed = origin.to_str().is_ok_and(|origin| self.allows_origin(origin) || is_own_address(origin, host));
        if allowed { Ok(()) } else { Err(Shut::ForeignOrigin) }
    }

    fn allows_origin(&self, origin: &str) -> bool {
        if self.origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)) {
            return true;
        }
        let Some((_, host)) = origin.split_once("://") else { return false };
        let host = host_name(host);
        is_loopback(host) || self.hosts.as_ref().is_some_and(|hosts| is_listed(host, hosts))
    }
}

/// The one host that a request names (RFC 9112, section 3.2): in HTTP/2, and for proxies, the URI may name it too.
fn the_host<'a>(headers: &'a HeaderMap, authority: Option<&'a Authority>) -> Result<&'a str, Shut> {
    let mut given = headers.get_all(header::HOST).iter();
    let host = match (given.next(), given.next()) {
        (Some(_), Some(_)) => return Err(Shut::ManyHosts),
        (Some(value), None) => Some(value.to_str().map_err(|_| Shut::NoHost)?),
        (None, _) => None,
    };
    let named = authority.map(Authority::as_str);
    let host = match (host, named) {
        (Some(host), Some(named)) if !host_name(host).eq_ignore_ascii_case(host_name(named)) => {
            return Err(Shut::ManyHosts);
        }
        (Some(host), _) => host,
        (None, named) => named.unwrap_or_default(),
    };
    if host.is_empty() { Err(Shut::NoHost) } else { Ok(host) }
}

/// Whether a page came from the address that it asks now. Only for IP addresses: a name may have been rebound, and
/// then it is the same one in both headers.
fn is_own_address(origin: &str, host: &str) -> bool {
    let is_same = origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host));
    is_same && address(host_name(host)).is_some()
}

fn is_listed(host: &str, hosts: &[String]) -> bool {
    hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host))
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || address(host).is_some_and(|address| address.is_loopback())
}

/// The address that stands in the place of a name.
fn address(host: &str) -> Option<std::net::IpAddr> {
    let address = host.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(host);
    address.parse().ok()
}

/// A host without its port.
fn host_name(authority: &str) -> &str {
    if authority.starts_with('[') {
        return authority.find(']').map_or(authority, |end| &authority[..=end]);
    }
    authority.split(':').next().unwrap_or(authority)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(host: &str, origin: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().expect("a value"));
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().expect("a value"));
        }
        headers
    }

    #[test]
    fn a_rebound_name_gets_in_neither_as_host_nor_as_origin() {
        let local = Doors::new(Some(vec!["toolyard.example".into()]), vec![]);
        let public = Doors::new(None, vec!["https://app.example/".into()]);
        let ok = |doors: &Doors, host, origin| doors.check(&headers(host, origin), None).is_ok();
        assert!(ok(&local, "localhost:1", None) && ok(&local, "[::1]:1", Some("http://localhost:3000")));
        assert!(ok(&local, "127.0.0.1", None) && ok(&local, "TOOLYARD.example:1", None));
        assert!(!ok(&local, "evil.example", None) && !ok(&local, "localhost.evil.example:80", None));
        assert!(!ok(&local, "192.0.2.1", None) && !ok(&local, "127.0.0.1.evil.example", None));
        assert!(!ok(&local, "localhost", Some("http://evil.example")) && !ok(&local, "localhost", Some("null")));
        assert!(ok(&public, "any.example", None) && ok(&public, "any.example", Some("https://APP.example")));
        assert!(!ok(&public, "any.example", Some("https://any.example")));
    }

    #[test]
    fn a_page_of_an_address_may_ask_that_address() {
        let doors = Doors::new(None, vec![]);
        let ok = |host, origin| doors.check(&headers(host, Some(origin)), None).is_ok();
        assert!(ok("192.0.2.7:8080", "http://192.0.2.7:8080") && ok("[2001:db8::7]:80", "http://[2001:db8::7]:80"));
        assert!(!ok("192.0.2.7:8080", "http://192.0.2.8:8080") && !ok("192.0.2.7:8080", "http://192.0.2.7"));
        assert!(!ok("rebound.example:8080", "http://rebound.example:8080"));
    }

    #[test]
    fn a_request_names_exactly_one_host() {
        let doors = Doors::new(None, vec![]);
        assert_eq!(doors.check(&HeaderMap::new(), None), Err(Shut::NoHost));
        assert_eq!(doors.check(&headers("", None), None), Err(Shut::NoHost));
        let mut two = headers("a.example", None);
        two.append(header::HOST, "a.example".parse().expect("a value"));
        assert_eq!(doors.check(&two, None), Err(Shut::ManyHosts));
        let named = Authority::from_static("a.example:80");
        assert_eq!(doors.check(&HeaderMap::new(), Some(&named)), Ok(()));
        assert_eq!(doors.check(&headers("a.example", None), Some(&named)), Ok(()));
        assert_eq!(doors.check(&headers("b.example", None), Some(&named)), Err(Shut::ManyHosts));
    }
}
