//! Headers that describe a message, rebuilt from its body.

use crate::envelope::{Kind, Message};
use crate::era::Era;
use ::http::{HeaderMap, HeaderValue};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The header of the protocol version.
pub(super) fn version(headers: &mut HeaderMap, version: &str) {
    if let Ok(value) = HeaderValue::from_str(version) {
        headers.insert("mcp-protocol-version", value);
    }
}

/// The version and, for a modern server, what intermediaries route by.
pub(super) fn describe(headers: &mut HeaderMap, message: &Message, era: Era, protocol_version: &str) {
    version(headers, protocol_version);
    if era == Era::Legacy || message.kind() != Kind::Request {
        return;
    }
    headers.insert("mcp-method", header_value(message.method()));
    let name_key = match message.method() {
        "tools/call" | "prompts/get" => "name",
        "resources/read" => "uri",
        method if method.starts_with("tasks/") => "taskId",
        _ => return,
    };
    if let Ok(Some(name)) = message.payload_string(name_key) {
        headers.insert("mcp-name", header_value(&name));
    }
}

/// `text` as a header value: as it is when that is safe, else in the Base64 sentinel form.
fn header_value(text: &str) -> HeaderValue {
    let plain = !text.is_empty()
        && text.bytes().all(|byte| (0x20..0x7f).contains(&byte))
        && text.trim() == text
        && !(text.starts_with("=?base64?") && text.ends_with("?="));
    let encoded = if plain { text.to_owned() } else { format!("=?base64?{}?=", STANDARD.encode(text)) };
    HeaderValue::from_str(&encoded).expect("printable ASCII is a header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_a_header_cannot_hold_are_encoded() {
        assert_eq!(header_value("get_x y"), "get_x y");
        assert_eq!(header_value("größe"), "=?base64?Z3LDtsOfZQ==?=");
        assert_eq!(header_value(" a"), "=?base64?IGE=?=");
        assert_eq!(header_value("=?base64?x?="), "=?base64?PT9iYXNlNjQ/eD89?=");
    }
}
