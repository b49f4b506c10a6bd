//! Who may come in: origin and host, key, freshness of the snapshot, and the decision.

use crate::problem::Refusal;
use dashmap::DashMap;
use http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;
use toolyard_types::access::{Action, Principal};
use toolyard_types::snapshot::{KeyGrant, Snapshot};
use toolyard_types::{ApiKeyId, Clock, Code, Name, ServerId, ToolsetId};

/// How many decisions are remembered before they are all forgotten.
const MAX_DECISIONS: usize = 100_000;

/// The decision function: may this principal do this, to the server or toolset of this name.
pub type Decide = Arc<dyn Fn(&Principal, Action, Option<&Name>) -> bool + Send + Sync>;

/// What a decision is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Subject {
    Server(ServerId),
    Toolset(ToolsetId),
}

/// Decisions already made, each good for one version of the snapshot.
pub(crate) struct Decisions {
    decide: Decide,
    made: DashMap<(ApiKeyId, Action, Subject), (u64, bool)>,
}

impl Decisions {
    pub(crate) fn new(decide: Decide) -> Self {
        Self { decide, made: DashMap::new() }
    }

    /// Whether the holder of `grant` may do `action` to the thing called `name`.
    pub(crate) fn allows(&self, grant: &KeyGrant, action: Action, subject: Subject, name: &Name, version: u64) -> bool {
        let key = (grant.id, action, subject);
        if let Some(made) = self.made.get(&key)
            && made.0 == version
        {
            return made.1;
        }
        let allowed = (self.decide)(&principal(grant), action, Some(name));
        if self.made.len() >= MAX_DECISIONS {
            self.made.clear();
        }
        self.made.insert(key, (version, allowed));
        allowed
    }
}

fn principal(grant: &KeyGrant) -> Principal {
    Principal {
        actor: grant.actor(),
        display: grant.name.clone(),
        organization: grant.organization,
        organization_name: grant.organization_name.clone(),
        role: grant.role,
        scope: grant.scope.clone(),
    }
}

/// Refuses a snapshot that the control plane has not vouched for in too long.
pub(crate) fn check_fresh(snapshot: &Snapshot, max_age: Duration, clock: &Clock) -> Result<(), Refusal> {
    if clock.now().since(snapshot.made_at) > max_age {
        let detail = "the gateway has not heard from the control plane for too long to decide safely";
        return Err(Refusal::new(Code::SnapshotStale, detail));
    }
    Ok(())
}

/// The SHA-256 of an API key, in hex: what the snapshot knows it by.
pub(crate) type KeyDigest = [u8; 64];

/// The grant behind the request's API key, and the key's digest.
pub(crate) fn authenticate(
    headers: &HeaderMap,
    snapshot: &Snapshot,
    clock: &Clock,
) -> Result<(Arc<KeyGrant>, KeyDigest), Refusal> {
    let unauthenticated = |detail| Refusal::new(Code::Unauthenticated, detail);
    let value = headers.get(header::AUTHORIZATION).ok_or_else(|| unauthenticated("no API key was sent"))?;
    let key = value
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, key)| key.trim())
        .ok_or_else(|| unauthenticated("the authorization header is not `Bearer <API key>`"))?;
    // A hash lookup leaks nothing about other keys by its timing: equal prefixes of keys hash apart.
    let digest = hex(&Sha256::digest(key.as_bytes()).into());
    Ok((grant(&digest, snapshot, clock)?, digest))
}

/// The grant behind a key's digest.
pub(crate) fn grant(digest: &KeyDigest, snapshot: &Snapshot, clock: &Clock) -> Result<Arc<KeyGrant>, Refusal> {
    let unauthenticated = |detail| Refusal::new(Code::Unauthenticated, detail);
    let digest = std::str::from_utf8(digest).expect("hex digits are ASCII");
    let grant = snapshot.keys.get(digest).ok_or_else(|| unauthenticated("the API key is not known").unless_news())?;
    if grant.expires_at.is_some_and(|end| end <= clock.now()) {
        return Err(unauthenticated("the API key has expired"));
    }
    Ok(grant.clone())
}

fn hex(bytes: &[u8; 32]) -> KeyDigest {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = [0; 64];
    for (pair, byte) in out.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    out
}

/// Guards against DNS rebinding: a web page must not reach us through the browser of somebody who can.
#[derive(Clone, Debug)]
pub(crate) struct Doors {
    hosts: Option<Vec<String>>,
    origins: Vec<String>,
}

impl Doors {
    pub(crate) fn new(hosts: Option<Vec<String>>, origins: Vec<String>) -> Self {
        // An origin has no path; people write URLs with a slash at the end.
        let origins = origins.iter().map(|origin| origin.trim_end_matches('/').to_owned()).collect();
        Self { hosts, origins }
    }

    /// Refuses a foreign `Origin` and, when hosts are listed, a foreign `Host`.
    pub(crate) fn check(&self, headers: &HeaderMap, authority: Option<&str>) -> Result<(), Refusal> {
        let host = headers.get(header::HOST).and_then(|value| value.to_str().ok()).or(authority).unwrap_or("");
        if let Some(hosts) = &self.hosts
            && !is_listed(host_name(host), hosts)
        {
            return Err(Refusal::new(Code::Forbidden, "this host name is not served here"));
        }
        let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
        let allowed = origin.to_str().is_ok_and(|origin| self.allows_origin(origin) || is_own_address(origin, host));
        if allowed {
            Ok(())
        } else {
            let detail = "requests from this web origin are not allowed; if it is Toolyard's own, set `public_url`";
            Err(Refusal::new(Code::Forbidden, detail))
        }
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

/// Whether a page came from the address that it asks now. Only for IP addresses: a name may have been rebound, and
/// then it is the same one in both headers.
fn is_own_address(origin: &str, host: &str) -> bool {
    let is_same = origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host));
    let name = host_name(host);
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    is_same && address.parse::<std::net::IpAddr>().is_ok()
}

fn is_listed(host: &str, hosts: &[String]) -> bool {
    hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host))
}

fn is_loopback(host: &str) -> bool {
    matches!(host, "127.0.0.1" | "[::1]") || host.eq_ignore_ascii_case("localhost")
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
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_rebound_name_gets_in_neither_as_host_nor_as_origin() {
        let local = Doors::new(Some(vec!["localhost".into(), "127.0.0.1".into(), "[::1]".into()]), vec![]);
        let public = Doors::new(None, vec!["https://app.example/".into()]);
        let ok = |doors: &Doors, host, origin| doors.check(&headers(host, origin), None).is_ok();
        assert!(ok(&local, "localhost:1", None) && ok(&local, "[::1]:1", Some("http://localhost:3000")));
        assert!(!ok(&local, "evil.example", None) && !ok(&local, "localhost.evil.example:80", None));
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
}
