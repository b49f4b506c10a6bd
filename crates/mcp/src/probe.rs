//! What the answer to the modern probe (`server/discover`) says of a server.

use crate::envelope::{Kind, Message};
use crate::era::{self, Era, Handshake, code};
use crate::error::{CallError, HandshakeError, server_error};
use bytes::Bytes;

/// What a server is.
pub(crate) enum Probed {
    Modern(Handshake),
    Legacy,
}

/// The parameters of the probe, as raw JSON.
pub(crate) fn params() -> String {
    format!(r#"{{"_meta":{{{}}}}}"#, era::own_meta_members(era::LATEST_MODERN))
}

/// The parameters of `initialize`, as raw JSON.
pub(crate) fn initialize_params() -> String {
    format!(r#"{{"protocolVersion":"{}","capabilities":{{}},"clientInfo":{}}}"#, era::LATEST_LEGACY, era::own_info())
}

/// The parameters of a `subscriptions/listen` to all lists that `handshake` says can change; `None` when none can.
pub(crate) fn listen_params(handshake: &Handshake) -> Option<String> {
    const LISTS: [(&str, &str); 3] =
        [("tools", "toolsListChanged"), ("prompts", "promptsListChanged"), ("resources", "resourcesListChanged")];
    let wanted: Vec<String> = LISTS
        .iter()
        .filter(|(capability, _)| declares_list_changed(handshake, capability))
        .map(|(_, filter)| format!(r#""{filter}":true"#))
        .collect();
    let meta = era::own_meta_members(&handshake.protocol_version);
    (!wanted.is_empty()).then(|| format!(r#"{{"_meta":{{{meta}}},"notifications":{{{}}}}}"#, wanted.join(",")))
}

/// Any error that only a modern server sends makes it modern; any other answer makes it legacy.
pub(crate) fn judge(message: &Message) -> Result<Probed, HandshakeError> {
    let payload = message.payload().unwrap_or_default();
    if message.kind() == Kind::Result {
        return Ok(Handshake::from_discover(payload).map_or(Probed::Legacy, Probed::Modern));
    }
    let CallError::Server { code: refused, .. } = server_error(message) else { return Ok(Probed::Legacy) };
    if !code::is_modern(refused) {
        return Ok(Probed::Legacy);
    }
    match supported_versions(&payload) {
        Some(versions) if era::negotiate_modern(versions.iter().map(String::as_str)).is_none() => {
            if versions.iter().any(|version| era::LEGACY_VERSIONS.contains(&version.as_str())) {
                return Ok(Probed::Legacy);
            }
            let shown: Vec<_> = versions.iter().take(8).map(|v| toolyard_types::name::printable(v)).collect();
            Err(HandshakeError::Unusable(format!("it speaks only protocol versions {}", shown.join(", "))))
        }
        _ => Ok(Probed::Modern(undescribed())),
    }
}

/// A modern server that answered the probe with a modern error has not described itself.
fn undescribed() -> Handshake {
    Handshake {
        era: Era::Modern,
        protocol_version: era::LATEST_MODERN.to_owned(),
        result: Bytes::from_static(b"{}"),
        server_name: String::new(),
        server_version: String::new(),
    }
}

fn supported_versions(error: &Bytes) -> Option<Vec<String>> {
    let supported = era::member(&era::member(error, "data")?, "supported")?;
    serde_json::from_slice(&supported).ok()
}

fn declares_list_changed(handshake: &Handshake, capability: &str) -> bool {
    era::member(&handshake.capabilities(), capability)
        .and_then(|value| era::member(&value, "listChanged"))
        .is_some_and(|value| value == "true")
}
