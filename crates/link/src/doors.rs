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
    /// What it names is not a host with a port.
    #[error("the request's `Host` must be a name or address, with a port or without, and nothing else")]
    BadHost,
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
            Self::NoHost | Self::ManyHosts | Self::BadHost => Code::BadRequest,
            Self::ForeignHost | Self::ForeignOrigin => Code::Forbidden,
        }
    }
}

/// The host names and origins that are let in.
#[derive(Clone, Debug)]
pub struct Doors {
    hosts: Option<Vec<String>>,
    origins: Vec<Origin>,
}

/// A web origin: a page may only do what its own may, so scheme, host and port all count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    /// The host, in lower case.
    pub host: String,
    port: Option<u16>,
}

impl Origin {
    /// That of a URL, or of an `Origin` header; none for `null` and for what is no URL.
    #[must_use]
    pub fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let (host, port) = host_and_port(rest.split('/').next()?)?;
        let scheme = scheme.to_ascii_lowercase();
        let port = port.filter(|port| default_port(&scheme) != Some(*port));
        Some(Self { scheme, host: host.to_ascii_lowercase(), port })
    }

    /// Whether it is at this `Host`, whose scheme nobody knows behind a proxy.
    #[must_use]
    pub fn is_at(&self, host: &str) -> bool {
        let Some((host, port)) = host_and_port(host) else { return false };
        let own = default_port(&self.scheme);
        self.host.eq_ignore_ascii_case(host) && self.port.or(own) == port.or(own)
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

impl Doors {
    /// With `hosts` only those are served, and any loopback address; without, any. `origins` may call, such as
    /// `https://app.example`, and their hosts with no other scheme or port; loopback origins and those of the other `hosts`
    /// always may.
    #[must_use]
    pub fn new(hosts: Option<Vec<String>>, origins: Vec<String>) -> Self {
        let origins = origins.iter().filter_map(|origin| Origin::parse(origin)).collect();
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
        let (name, _) = host_and_port(host).ok_or(Shut::BadHost)?;
        match &self.hosts {
            Some(hosts) if !is_listed(name, hosts) && !is_loopback(name) => Err(Shut::ForeignHost),
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
        let origin = origin.to_str().ok().and_then(Origin::parse).ok_or(Shut::ForeignOrigin)?;
        if self.allows_origin(&origin) || is_own_address(&origin, host) { Ok(()) } else { Err(Shut::ForeignOrigin) }
    }

    fn allows_origin(&self, origin: &Origin) -> bool {
        if is_loopback(&origin.host) || self.origins.contains(origin) {
            return true;
        }
        let another = self.origins.iter().any(|allowed| allowed.host == origin.host);
        !another && self.hosts.as_ref().is_some_and(|hosts| is_listed(&origin.host, hosts))
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
        (Some(host), Some(named)) => {
            let name = |of| host_and_port(of).map(|(name, _)| name).ok_or(Shut::BadHost);
            if !name(host)?.eq_ignore_ascii_case(name(named)?) {
                return Err(Shut::ManyHosts);
            }
            host
        }
        (Some(host), None) => host,
        (None, named) => named.unwrap_or_default(),
    };
    if host.is_empty() { Err(Shut::NoHost) } else { Ok(host) }
}

/// Whether a page came from the address that it asks now. Only for IP addresses: a name may have been rebound, and
/// then it is the same one in both headers.
fn is_own_address(origin: &Origin, host: &str) -> bool {
    address(&origin.host).is_some() && origin.is_at(host)
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

/// A host and its port, when that is all there is: with a user, a list or anything else in it, two readers could take
/// different parts for the host.
fn host_and_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let end = if authority.starts_with('[') {
        authority.find(']')? + 1
    } else {
        authority.find(':').unwrap_or(authority.len())
    };
    let (host, port) = authority.split_at(end);
    let plain = match host.strip_prefix('[') {
        Some(_) => address(host).is_some_and(|address| address.is_ipv6()),
        None => !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)),
    };
    let port = match port.strip_prefix(':') {
        None | Some("") => None,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
        Some(_) => return None,
    };
    plain.then_some((host, port))
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
        assert!(!ok(&public, "any.example", Some("http://app.example")));
        assert!(ok(&public, "any.example", Some("https://app.example:443")));
        assert!(!ok(&public, "any.example", Some("https://any.example")));
    }

    #[test]
    fn a_page_of_an_address_may_ask_that_address() {
        let doors = Doors::new(None, vec![]);
        let ok = |host, origin| doors.check(&headers(host, Some(origin)), None).is_ok();
        assert!(ok("192.0.2.7", "http://192.0.2.7") && ok("192.0.2.7", "https://192.0.2.7:443"));
        assert!(ok("192.0.2.7:8080", "http://192.0.2.7:8080") && ok("[2001:db8::7]:80", "http://[2001:db8::7]:80"));
        assert!(!ok("192.0.2.7:8080", "http://192.0.2.8:8080") && !ok("192.0.2.7:8080", "http://192.0.2.7"));
        assert!(!ok("rebound.example:8080", "http://rebound.example:8080"));
    }

    #[test]
    fn a_host_with_anything_beside_it_is_none() {
        let local = Doors::new(Some(vec!["toolyard.example".into()]), vec!["https://toolyard.example".into()]);
        for host in
            ["127.0.0.1:22000@evil.com", "127.0.0.1:22000,evil.com", "localhost/evil.com", "a b", ":80", "x:1:2"]
        {
            assert_eq!(local.check(&headers(host, None), None), Err(Shut::BadHost), "{host}");
            assert_eq!(Doors::new(None, vec![]).check(&headers(host, None), None), Err(Shut::BadHost), "{host}");
            let named = host.parse::<Authority>();
            let named = named.map(|named| local.check(&HeaderMap::new(), Some(&named)));
            assert!(matches!(named, Err(_) | Ok(Err(Shut::BadHost))), "{host}");
            // A path is no part of an origin, and none of a host.
            let origin = format!("http://{}", host.replace('/', "@"));
            assert_eq!(local.check(&headers("localhost", Some(&origin)), None), Err(Shut::ForeignOrigin), "{host}");
        }
        let ok = |origin| local.check(&headers("localhost", Some(origin)), None).is_ok();
        assert!(ok("https://toolyard.example") && ok("https://toolyard.example:443"));
        assert!(!ok("http://toolyard.example") && !ok("https://toolyard.example:8443"));
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
