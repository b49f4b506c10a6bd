//! The two eras of MCP: versions, negotiation, what each has and what a message needs to pass between them.
//!
//! Legacy (2024-11-05 to 2025-11-25) opens with `initialize`; modern (2026-07-28 on) has no handshake, every
//! request carries its version and the client's capabilities in `_meta`. A server that speaks both counts as modern.

use crate::json::{self, Object};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
pub use toolyard_types::agent::Era;

/// Legacy versions, newest first.
pub const LEGACY_VERSIONS: &[&str] = &["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];
/// Modern versions, newest first.
pub const MODERN_VERSIONS: &[&str] = &["2026-07-28"];
/// The newest legacy version.
pub const LATEST_LEGACY: &str = "2025-11-25";
/// The newest modern version.
pub const LATEST_MODERN: &str = "2026-07-28";

/// The longest name, version or title of a server that is kept.
const MAX_IDENTITY_CHARS: usize = 120;

/// JSON-RPC and MCP error codes.
pub mod code {
    /// The body is not JSON.
    pub const PARSE_ERROR: i64 = -32700;
    /// The body is not one JSON-RPC message.
    pub const INVALID_REQUEST: i64 = -32600;
    /// There is no such method.
    pub const METHOD_NOT_FOUND: i64 = -32601;
    /// The parameters are wrong; in the modern era also "no such resource".
    pub const INVALID_PARAMS: i64 = -32602;
    /// Something broke on the way.
    pub const INTERNAL_ERROR: i64 = -32603;
    /// The legacy era's "no such resource".
    pub const RESOURCE_NOT_FOUND: i64 = -32002;
    /// A header is missing or differs from the body.
    pub const HEADER_MISMATCH: i64 = -32020;
    /// The client did not declare a capability that the request needs.
    pub const MISSING_CAPABILITY: i64 = -32021;
    /// The protocol version is not spoken here.
    pub const UNSUPPORTED_VERSION: i64 = -32022;

    /// Whether only a modern server answers with this code.
    #[must_use]
    pub fn is_modern(code: i64) -> bool {
        matches!(code, HEADER_MISMATCH | MISSING_CAPABILITY | UNSUPPORTED_VERSION)
    }
}

/// Keys of `_meta` in the modern era.
pub mod meta {
    /// The protocol version of this request.
    pub const PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
    /// Who the client is.
    pub const CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
    /// What the client can do.
    pub const CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
    /// From which level on the client wants log messages for this request.
    pub const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
    /// Who the server is.
    pub const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
    /// Which `subscriptions/listen` a notification belongs to.
    pub const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";

    /// Whether a key describes the request itself, and so is no business of a legacy server.
    #[must_use]
    pub fn describes_request(key: &str) -> bool {
        matches!(key, PROTOCOL_VERSION | CLIENT_INFO | CLIENT_CAPABILITIES | LOG_LEVEL)
    }
}

/// The answer to a legacy client that asks for `requested`: that version if it is spoken, else the newest
/// legacy one. A modern version is never agreed on through `initialize`.
#[must_use]
pub fn negotiate_legacy(requested: &str) -> &'static str {
    LEGACY_VERSIONS.iter().copied().find(|version| *version == requested).unwrap_or(LATEST_LEGACY)
}

/// Whether a version text names the modern era: dates compare as text.
#[must_use]
pub fn is_modern_version(version: &str) -> bool {
    version.len() == 10 && version.as_bytes()[0].is_ascii_digit() && version >= LATEST_MODERN
}

/// The newest modern version that both sides speak.
#[must_use]
pub fn negotiate_modern<'a>(supported: impl IntoIterator<Item = &'a str>) -> Option<&'static str> {
    let supported: Vec<&str> = supported.into_iter().collect();
    MODERN_VERSIONS.iter().copied().find(|version| supported.contains(version))
}

/// `_meta` members that make a request of our own a modern one, as the inside of a JSON object.
#[must_use]
pub fn own_meta_members(version: &str) -> String {
    format!(
        r#""{}":{},"{}":{},"{}":{{}}"#,
        meta::PROTOCOL_VERSION,
        json::quote(version),
        meta::CLIENT_INFO,
        own_info(),
        meta::CLIENT_CAPABILITIES
    )
}

/// Who we are, as a raw `Implementation` object.
#[must_use]
pub fn own_info() -> &'static str {
    concat!(r#"{"name":"toolyard","version":""#, env!("CARGO_PKG_VERSION"), r#""}"#)
}

/// What a server said when it was first spoken to. Kept by the agent, so that it can take over a running server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handshake {
    /// The era that is spoken with it from now on.
    pub era: Era,
    /// The version agreed on.
    pub protocol_version: String,
    /// The raw result of `initialize` or `server/discover`.
    #[serde(serialize_with = "write_raw", deserialize_with = "read_raw")]
    pub result: Bytes,
    /// The server's own name, bounded; hostile text.
    pub server_name: String,
    /// The server's own version, bounded; hostile text.
    pub server_version: String,
}

impl Handshake {
    /// Reads the result of `initialize`.
    ///
    /// # Errors
    /// When it is not one, or names a version that is not spoken here; the text is for a person.
    pub fn from_initialize(result: Bytes) -> Result<Self, String> {
        let version = string_member(&result, "protocolVersion").ok_or("`initialize` answered no `protocolVersion`")?;
        if !LEGACY_VERSIONS.contains(&version.as_str()) {
            let shown = toolyard_types::name::printable(&version);
            return Err(format!("the server speaks protocol version `{shown}`, which is not supported"));
        }
        let (server_name, server_version) = identity(member(&result, "serverInfo"));
        Ok(Self { era: Era::Legacy, protocol_version: version, result, server_name, server_version })
    }

    /// Reads the result of `server/discover`; `None` when it is not one.
    #[must_use]
    pub fn from_discover(result: Bytes) -> Option<Self> {
        let versions: Vec<String> = serde_json::from_slice(&member(&result, "supportedVersions")?).ok()?;
        let version = negotiate_modern(versions.iter().map(String::as_str))?;
        let info = member(&result, "_meta").and_then(|meta| member(&meta, meta::SERVER_INFO));
        let (server_name, server_version) = identity(info.or_else(|| member(&result, "serverInfo")));
        Some(Self { era: Era::Modern, protocol_version: version.to_owned(), result, server_name, server_version })
    }

    /// The server's raw `capabilities`; `{}` when it sent none.
    #[must_use]
    pub fn capabilities(&self) -> Bytes {
        member(&self.result, "capabilities").unwrap_or_else(|| Bytes::from_static(b"{}"))
    }

    /// The raw object that names the server, if it sent one.
    #[must_use]
    pub fn server_info(&self) -> Option<Bytes> {
        member(&self.result, "_meta")
            .and_then(|meta| member(&meta, meta::SERVER_INFO))
            .or_else(|| member(&self.result, "serverInfo"))
    }

    /// The server's instructions, if it sent any; hostile text.
    #[must_use]
    pub fn instructions(&self) -> Option<String> {
        string_member(&self.result, "instructions")
    }

    /// Whether the server declared the capability, such as `tools`.
    #[must_use]
    pub fn has_capability(&self, name: &str) -> bool {
        member(&self.capabilities(), name).is_some_and(|value| value.starts_with(b"{"))
    }
}

/// The raw member `key` of the raw object `object`.
#[must_use]
pub fn member(object: &Bytes, key: &str) -> Option<Bytes> {
    let span = Object::scan(object, 0..object.len()).ok()?.get(key).ok()??;
    Some(object.slice(span))
}

/// The string member `key` of the raw object `object`.
#[must_use]
pub fn string_member(object: &Bytes, key: &str) -> Option<String> {
    json::string(&member(object, key)?).map(std::borrow::Cow::into_owned)
}

fn identity(info: Option<Bytes>) -> (String, String) {
    let read = |key| info.as_ref().and_then(|info| string_member(info, key)).unwrap_or_default();
    let bounded = |text: String| text.chars().take(MAX_IDENTITY_CHARS).collect::<String>();
    (bounded(read("name")), bounded(read("version")))
}

fn write_raw<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    let text = std::str::from_utf8(bytes).map_err(serde::ser::Error::custom)?;
    RawValue::from_string(text.to_owned()).map_err(serde::ser::Error::custom)?.serialize(serializer)
}

fn read_raw<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    let raw = Box::<RawValue>::deserialize(deserializer)?;
    Ok(Bytes::from(String::from(Box::<str>::from(raw))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initialize_never_agrees_on_a_modern_version() {
        assert_eq!(negotiate_legacy("2025-03-26"), "2025-03-26");
        for other in ["2026-07-28", "2099-01-01", "", "1.0"] {
            assert_eq!(negotiate_legacy(other), LATEST_LEGACY);
        }
        assert!(is_modern_version("2026-07-28") && is_modern_version("2027-01-01"));
        assert!(!is_modern_version("2025-11-25") && !is_modern_version("zzzz") && !is_modern_version("DRAFT-2026"));
    }

    #[test]
    fn a_handshake_survives_storage_byte_for_byte() {
        let raw = r#"{"protocolVersion":"2025-06-18","capabilities":{"tools":{},"x":1.0},"serverInfo":{"name":"s","version":"1"}}"#;
        let handshake = Handshake::from_initialize(Bytes::from(raw)).unwrap();
        let stored = serde_json::to_string(&handshake).unwrap();
        let back: Handshake = serde_json::from_str(&stored).unwrap();
        assert_eq!(back, handshake);
        assert_eq!(back.result, raw);
        assert!(back.has_capability("tools") && !back.has_capability("prompts") && !back.has_capability("x"));
    }

    #[test]
    fn a_discover_result_without_a_common_version_is_not_taken() {
        assert!(
            Handshake::from_discover(Bytes::from(r#"{"supportedVersions":["2031-01-01"],"capabilities":{}}"#))
                .is_none()
        );
        let dual = r#"{"supportedVersions":["2025-11-25","2026-07-28"],"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"m","version":"2"}}}"#;
        let handshake = Handshake::from_discover(Bytes::from(dual)).unwrap();
        assert_eq!((handshake.era, handshake.server_name.as_str()), (Era::Modern, "m"));
    }
}
