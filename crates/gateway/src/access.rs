//! Who may come in: origin and host, key, freshness of the snapshot, and the decision.

use crate::problem::Refusal;
use dashmap::DashMap;
use http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;
use toolyard_types::access::{Action, Principal};
use toolyard_types::snapshot::{KeyGrant, Snapshot};
use toolyard_types::{ApiKeyId, Clock, Code, Name, ServerId, Timestamp, ToolsetId};

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
        // One that was replaced calls as the new one does, and decisions are remembered for both.
        replaced_secret: false,
    }
}

/// Refuses what the control plane has not vouched for in too long.
pub(crate) fn check_fresh(made_at: Timestamp, max_age: Duration, clock: &Clock) -> Result<(), Refusal> {
    if clock.now().since(made_at) > max_age {
        let detail = "the gateway has not heard from the control plane for too long to decide safely";
        return Err(Refusal::new(Code::SnapshotStale, detail));
    }
    Ok(())
}

/// The SHA-256 of an API key, in hex: what the snapshot knows it by.
pub(crate) type KeyDigest = [u8; 64];

/// Leaves a line about a key that is refused, and counts it: guessing and forgotten clients are seen. Never the key.
pub(crate) fn note_refused_key(request_id: &str, path: &str, refusal: &Refusal) {
    metrics::counter!("toolyard_keys_refused_total", "listener" => "mcp").increment(1);
    tracing::info!(request.id = request_id, http.path = path, why = %refusal.detail, "an API key was refused");
}

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
