//! Between the eras: what a message needs to pass from a client of one to a server of the other.
//!
//! Each function splices the bytes and leaves alone what it does not know. Where both sides speak the same era
//! nothing but a name changes. Not bridged yet: questions a server asks in the middle of a call.

use bytes::Bytes;
use toolyard_mcp::era::{self, Era, code, meta};
use toolyard_mcp::json::{self, Edits, Malformed, Object};
use toolyard_mcp::{Kind, Message};

/// What a client is to a server of the other era.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Speaker<'a> {
    /// A legacy client: its raw capabilities and raw `clientInfo` from `initialize`.
    Legacy { capabilities: &'a str, client_info: &'a str },
    /// A modern client: its requests describe themselves.
    Modern,
}

impl Speaker<'_> {
    pub(crate) fn era(self) -> Era {
        match self {
            Speaker::Legacy { .. } => Era::Legacy,
            Speaker::Modern => Era::Modern,
        }
    }
}

/// A name in the request that the server knows under another.
#[derive(Clone, Debug)]
pub(crate) struct Rename<'a> {
    /// Where the name lies in the message.
    pub(crate) span: json::Span,
    /// The server's own name.
    pub(crate) own: &'a str,
}

/// The request as the server is to get it.
///
/// # Errors
/// When `params` or `_meta` cannot be read unambiguously.
pub(crate) fn to_server(
    message: &Message,
    speaker: Speaker<'_>,
    server: Era,
    rename: Option<Rename<'_>>,
) -> Result<Bytes, Malformed> {
    let mut edits = Edits::new();
    if let Some(rename) = rename {
        edits.replace(rename.span, json::quote(rename.own));
    }
    let params = message.payload_object();
    match (speaker, server) {
        (Speaker::Modern, Era::Modern) | (Speaker::Legacy { .. }, Era::Legacy) => {}
        (Speaker::Modern, Era::Legacy) => {
            if let Some(meta) = message.meta()? {
                edits.remove_members(&meta, meta::describes_request);
            }
        }
        (Speaker::Legacy { capabilities, client_info }, Era::Modern) => {
            describe(message, params.as_ref(), &mut edits, capabilities, client_info)?;
        }
    }
    // Some legacy servers take a missing `arguments` for an invalid one, though it may be left out.
    if server == Era::Legacy
        && message.method() == "tools/call"
        && let Some(params) = &params
        && params.get("arguments")?.is_none()
        && !params.members().is_empty()
    {
        edits.insert(params.span().end - 1, r#","arguments":{}"#);
    }
    Ok(edits.apply(message.bytes()))
}

fn describe(
    message: &Message,
    params: Option<&Object<'_>>,
    edits: &mut Edits,
    capabilities: &str,
    client_info: &str,
) -> Result<(), Malformed> {
    let members = format!(
        r#""{}":"{}","{}":{client_info},"{}":{capabilities}"#,
        meta::PROTOCOL_VERSION,
        era::LATEST_MODERN,
        meta::CLIENT_INFO,
        meta::CLIENT_CAPABILITIES
    );
    let Some(params) = params else {
        let text = message.bytes();
        let envelope = Object::scan(text, 0..text.len())?;
        return edits.set(&envelope, "params", &format!(r#"{{"_meta":{{{members}}}}}"#));
    };
    match message.meta()? {
        Some(meta) => {
            let comma = if meta.members().is_empty() { "" } else { "," };
            edits.insert(meta.span().start + 1, format!("{members}{comma}"));
            Ok(())
        }
        None => edits.set(params, "_meta", &format!("{{{members}}}")),
    }
}

/// The response as the client is to get it.
pub(crate) fn to_client(message: &Message, client: Era, server: Era, method: &str) -> Bytes {
    let unchanged = || message.bytes().clone();
    match (client, server, message.kind()) {
        (Era::Modern, Era::Legacy, Kind::Result) => complete(message, method).unwrap_or_else(unchanged),
        (Era::Modern, Era::Legacy, Kind::Error) => modern_error(message, method).unwrap_or_else(unchanged),
        (Era::Legacy, Era::Modern, Kind::Result) => plain(message).unwrap_or_else(unchanged),
        _ => unchanged(),
    }
}

/// A legacy result with what a modern client is promised.
fn complete(message: &Message, method: &str) -> Option<Bytes> {
    let result = message.payload_object()?;
    let mut added = String::new();
    if result.get("resultType").ok()?.is_none() {
        added.push_str(r#""resultType":"complete""#);
    }
    if method == "resources/read" && result.get("ttlMs").ok()?.is_none() && result.get("cacheScope").ok()?.is_none() {
        added.push_str(if added.is_empty() { "" } else { "," });
        added.push_str(r#""ttlMs":0,"cacheScope":"private""#);
    }
    if added.is_empty() {
        return None;
    }
    if !result.members().is_empty() {
        added.push(',');
    }
    let mut edits = Edits::new();
    edits.insert(result.span().start + 1, added);
    Some(edits.apply(message.bytes()))
}

/// The legacy code for "no such resource" is another in the modern era.
fn modern_error(message: &Message, method: &str) -> Option<Bytes> {
    let error = message.payload_object()?;
    let span = error.get("code").ok()??;
    if method != "resources/read" || message.text(span.clone()) != code::RESOURCE_NOT_FOUND.to_string() {
        return None;
    }
    let mut edits = Edits::new();
    edits.replace(span, code::INVALID_PARAMS.to_string());
    Some(edits.apply(message.bytes()))
}

/// A modern result without the member that strict legacy clients refuse.
fn plain(message: &Message) -> Option<Bytes> {
    let result = message.payload_object()?;
    result.get("resultType").ok()??;
    let mut edits = Edits::new();
    edits.remove_members(&result, |key| key == "resultType");
    Some(edits.apply(message.bytes()))
}

/// A raw modern result as a legacy client is to get it.
pub(crate) fn plain_result(result: &Bytes) -> Bytes {
    let mut edits = Edits::new();
    if let Ok(object) = Object::scan(result, 0..result.len()) {
        edits.remove_members(&object, |key| key == "resultType");
    }
    edits.apply(result)
}

/// Whether a modern server asks for more input instead of giving a result.
pub(crate) fn asks_for_input(message: &Message) -> bool {
    message.payload_string("resultType").ok().flatten().is_some_and(|kind| kind == "input_required")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEGACY: Speaker<'_> = Speaker::Legacy { capabilities: r#"{"roots":{}}"#, client_info: r#"{"name":"c"}"# };

    fn message(text: &str) -> Message {
        Message::parse(Bytes::copy_from_slice(text.as_bytes())).unwrap()
    }

    fn sent(text: &str, speaker: Speaker<'_>, server: Era) -> String {
        let message = message(text);
        let bytes = to_server(&message, speaker, server, None).unwrap();
        serde_json::from_slice::<serde_json::Value>(&bytes).expect("still JSON");
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn a_modern_request_loses_its_description_before_a_legacy_server() {
        let text = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","progressToken":5,"io.modelcontextprotocol/clientCapabilities":{}},"name":"t"}}"#;
        let want = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"_meta":{"progressToken":5},"name":"t","arguments":{}}}"#;
        assert_eq!(sent(text, Speaker::Modern, Era::Legacy), want);
        assert_eq!(sent(text, Speaker::Modern, Era::Modern), text);
    }

    #[test]
    fn a_legacy_request_describes_itself_before_a_modern_server() {
        let members = r#""io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"c"},"io.modelcontextprotocol/clientCapabilities":{"roots":{}}"#;
        for (text, want) in [
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"m"}"#,
                format!(r#"{{"params":{{"_meta":{{{members}}}}},"jsonrpc":"2.0","id":1,"method":"m"}}"#),
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{}}"#,
                format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{{"_meta":{{{members}}}}}}}"#),
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":1.0,"_meta":{"x":1}}}"#,
                format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{{"a":1.0,"_meta":{{{members},"x":1}}}}}}"#),
            ),
        ] {
            assert_eq!(sent(text, LEGACY, Era::Modern), want);
        }
    }

    #[test]
    fn results_get_and_lose_what_only_the_modern_era_has() {
        let legacy = r#"{"jsonrpc":"2.0","id":1,"result":{"z":1.0,"content":[]}}"#;
        let modern = r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","z":1.0,"content":[]}}"#;
        assert_eq!(to_client(&message(legacy), Era::Modern, Era::Legacy, "tools/call"), modern);
        assert_eq!(to_client(&message(modern), Era::Legacy, Era::Modern, "tools/call"), legacy);
        assert_eq!(to_client(&message(legacy), Era::Legacy, Era::Legacy, "tools/call"), legacy);
        let missing = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32002,"message":"no"}}"#;
        assert_eq!(
            to_client(&message(missing), Era::Modern, Era::Legacy, "resources/read"),
            missing.replace("-32002", "-32602")
        );
        let read = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
        let want = r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","ttlMs":0,"cacheScope":"private"}}"#;
        assert_eq!(to_client(&message(read), Era::Modern, Era::Legacy, "resources/read"), want);
    }

    #[test]
    fn a_name_is_replaced_where_it_lies_and_nothing_else_changes() {
        let text = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"s__t","arguments":{"name":"s__t","n":1.0}}}"#;
        let message = message(text);
        let span = message.payload_object().unwrap().get("name").unwrap().unwrap();
        let rename = Some(Rename { span, own: "t\"" });
        let bytes = to_server(&message, LEGACY, Era::Legacy, rename).unwrap();
        assert_eq!(bytes, text.replacen("\"s__t\"", "\"t\\\"\"", 1));
    }
}
