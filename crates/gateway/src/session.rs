//! Sessions of legacy clients, sealed in their id.
//!
//! The `Mcp-Session-Id` a client gets *is* the session: what it agreed on at `initialize`, encrypted and
//! authenticated, bound to its API key and its URL. Any replica that holds the key can serve it; nothing is
//! stored. So it needs no end of its own and lives as long as it is used: who holds it needs the API key besides, and
//! one that nobody uses costs nothing. Ending a session is the one thing that must be remembered: each replica keeps
//! the ended ones in bounded memory.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use rand::RngCore;
use serde::{Deserialize, Serialize};
use toolyard_types::{ApiKeyId, Timestamp};

/// Identifies a session on one replica.
pub(crate) type SessionId = [u8; NONCE];

const NONCE: usize = 12;
/// The longest session id accepted.
const MAX_SEALED_BYTES: usize = 6 << 10;
/// The longest client description kept in a session; a longer one is replaced by an empty one.
const MAX_DESCRIPTION_BYTES: usize = 1536;
/// How many ended sessions are remembered.
const MAX_ENDED: u64 = 100_000;

/// What a legacy client agreed on at `initialize`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Session {
    /// The protocol version agreed on.
    #[serde(rename = "v")]
    pub(crate) version: String,
    /// The client's raw `capabilities`.
    #[serde(rename = "c")]
    pub(crate) capabilities: String,
    /// The client's raw `clientInfo`.
    #[serde(rename = "i")]
    pub(crate) client_info: String,
    /// When it began.
    #[serde(rename = "t")]
    pub(crate) began_ms: i64,
}

impl Session {
    pub(crate) fn new(version: &str, capabilities: &str, client_info: &str, now: Timestamp) -> Self {
        let bounded = |raw: &str, otherwise: &str| {
            if raw.len() <= MAX_DESCRIPTION_BYTES { raw.to_owned() } else { otherwise.to_owned() }
        };
        Self {
            version: version.to_owned(),
            capabilities: bounded(capabilities, "{}"),
            client_info: bounded(client_info, r#"{"name":"client","version":"0"}"#),
            began_ms: now.as_ms(),
        }
    }
}

/// Seals and opens sessions, and what belongs to one.
pub(crate) struct Sessions {
    cipher: ChaCha20Poly1305,
    ended: moka::sync::Cache<SessionId, ()>,
}

impl Sessions {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self { cipher: ChaCha20Poly1305::new(Key::from_slice(key)), ended: moka::sync::Cache::new(MAX_ENDED) }
    }

    /// The session's id for `key` at `url`.
    pub(crate) fn seal(&self, session: &Session, key: ApiKeyId, url: &str) -> String {
        let plain = serde_json::to_vec(session).expect("a session of strings always serialises");
        self.seal_bytes(&plain, binding(key, url).as_bytes())
    }

    /// A few kilobytes, sealed for every replica and bound to what must be known to open them.
    pub(crate) fn seal_bytes(&self, plain: &[u8], bound: &[u8]) -> String {
        let mut nonce = [0; NONCE];
        rand::rng().fill_bytes(&mut nonce);
        let sealed = self
            .cipher
            .encrypt(Nonce::from_slice(&nonce), Payload { msg: plain, aad: bound })
            .expect("sealing a few kilobytes cannot fail");
        URL_SAFE_NO_PAD.encode([&nonce[..], &sealed].concat())
    }

    /// What was sealed, and its nonce.
    pub(crate) fn open_bytes(&self, sealed: &str, bound: &[u8]) -> Option<([u8; NONCE], Vec<u8>)> {
        if sealed.len() > MAX_SEALED_BYTES {
            return None;
        }
        let sealed = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE>()?;
        let plain = self.cipher.decrypt(Nonce::from_slice(nonce), Payload { msg: sealed, aad: bound }).ok()?;
        Some((*nonce, plain))
    }

    /// The session behind an id; `None` when it was not made here for this key and URL, or was ended.
    pub(crate) fn open(&self, id: &str, key: ApiKeyId, url: &str) -> Option<(SessionId, Session)> {
        let (nonce, plain) = self.open_bytes(id, binding(key, url).as_bytes())?;
        let session: Session = serde_json::from_slice(&plain).ok()?;
        (!self.ended.contains_key(&nonce)).then_some((nonce, session))
    }

    pub(crate) fn end(&self, id: SessionId) {
        self.ended.insert(id, ());
    }
}

fn binding(key: ApiKeyId, url: &str) -> String {
    format!("{key} {url}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "/mcp/default/servers/time";

    fn began() -> Timestamp {
        Timestamp::from_ms(1_000)
    }

    #[test]
    fn a_session_opens_only_for_its_key_and_url_and_only_on_replicas_with_the_secret() {
        let (one, two) = (Sessions::new(&[7; 32]), Sessions::new(&[7; 32]));
        let key = ApiKeyId::generate();
        let session = Session::new("2025-06-18", "{\"roots\":{}}", "{}", began());
        let id = one.seal(&session, key, URL);
        assert!(id.bytes().all(|byte| byte.is_ascii_graphic()));
        assert_eq!(two.open(&id, key, URL).map(|(_, session)| session), Some(session));
        assert_eq!(two.open(&id, ApiKeyId::generate(), URL), None);
        assert_eq!(two.open(&id, key, "/mcp/default/servers/other"), None);
        assert_eq!(Sessions::new(&[8; 32]).open(&id, key, URL), None);
        let mut bent = id.clone().into_bytes();
        bent[20] ^= 1;
        assert_eq!(two.open(&String::from_utf8_lossy(&bent), key, URL), None);
    }

    #[test]
    fn a_session_ends_when_asked_to_and_not_by_age() {
        let sessions = Sessions::new(&[7; 32]);
        let key = ApiKeyId::generate();
        let seal = || sessions.seal(&Session::new("2025-06-18", "{}", "{}", began()), key, URL);
        let (id, other) = (seal(), seal());
        let (nonce, _) = sessions.open(&id, key, URL).expect("it is open");
        sessions.end(nonce);
        assert_eq!(sessions.open(&id, key, URL), None);
        // It began in 1970.
        assert!(sessions.open(&other, key, URL).is_some());
    }

    #[test]
    fn hostile_ids_are_no_sessions() {
        let sessions = Sessions::new(&[7; 32]);
        for bad in ["", "a", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "\u{e9}", &"A".repeat(100_000)] {
            assert_eq!(sessions.open(bad, ApiKeyId::generate(), URL), None);
        }
    }
}
