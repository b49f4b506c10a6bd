//! What the gateway says of itself and of what is behind a URL: `initialize`, `server/discover`, and the
//! checks every modern request passes first.

use crate::answer;
use crate::bridge::Speaker;
use crate::endpoint::{Target, Visit, header_text};
use crate::peer::{Failure, Peer, Peers};
use crate::toolset;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;
use toolyard_mcp::era::{self, Era, Handshake, code, meta};
use toolyard_mcp::{Kind, Message};
use toolyard_types::name::is_hidden;
use toolyard_types::snapshot::ServerRoute;

/// How long a member of a toolset that never did may take to describe itself.
const MEMBER_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest instructions given to a client.
const MAX_INSTRUCTIONS: usize = 8 << 10;
/// How long a client may keep what `server/discover` says.
const DISCOVER_TTL_MS: u64 = 60_000;

/// The checks of protocol.md 2.1 that need only the request: its description, then its headers, then its version.
///
/// # Errors
/// With the JSON-RPC error to answer, under HTTP status 400.
pub(crate) fn check_modern(headers: &HeaderMap, message: &Message, request_id: &str) -> Result<(), Bytes> {
    let refuse =
        |code, text: &str, data: Option<&str>| Err(answer::error(message.raw_id(), code, text, data, request_id));
    match message.kind() {
        Kind::Request => {}
        // The modern era defines none over HTTP; accepted and dropped.
        Kind::Notification => return Ok(()),
        Kind::Result | Kind::Error => {
            return refuse(code::INVALID_REQUEST, "clients send no responses in this protocol version", None);
        }
    }
    let described = message.meta().ok().flatten();
    let member = |key| described.as_ref().and_then(|meta| meta.get(key).ok().flatten()).map(|span| message.text(span));
    let version = member(meta::PROTOCOL_VERSION).and_then(|raw| toolyard_mcp::json::string(raw.as_bytes()));
    let Some(version) = version else {
        return refuse(code::INVALID_PARAMS, "`_meta` lacks `io.modelcontextprotocol/protocolVersion`", None);
    };
    if !member(meta::CLIENT_CAPABILITIES).is_some_and(|raw| raw.starts_with('{')) {
        return refuse(code::INVALID_PARAMS, "`_meta` lacks `io.modelcontextprotocol/clientCapabilities`", None);
    }
    if let Err(text) = check_headers(headers, message, &version) {
        return refuse(code::HEADER_MISMATCH, text, None);
    }
    if !era::MODERN_VERSIONS.contains(&version.as_ref()) {
        let data =
            json!({ "supported": supported_versions(), "requested": version.chars().take(64).collect::<String>() });
        return refuse(code::UNSUPPORTED_VERSION, "this protocol version is not supported", Some(&data.to_string()));
    }
    Ok(())
}

fn check_headers(headers: &HeaderMap, message: &Message, version: &str) -> Result<(), &'static str> {
    if header_text(headers, "mcp-protocol-version") != Some(version) {
        return Err("the header `MCP-Protocol-Version` is missing or differs from `_meta`");
    }
    if decoded(headers, "mcp-method").as_deref() != Some(message.method()) {
        return Err("the header `Mcp-Method` is missing or differs from `method`");
    }
    let key = match message.method() {
        "tools/call" | "prompts/get" => "name",
        "resources/read" => "uri",
        _ => return Ok(()),
    };
    let name = message.payload_string(key).map_err(|_| "the name in `params` cannot be read")?;
    // A request without the name fails later, with an error that says so.
    match name {
        Some(name) if decoded(headers, "mcp-name").as_deref() != Some(&*name) => {
            Err("the header `Mcp-Name` is missing or differs from `params`")
        }
        _ => Ok(()),
    }
}

/// A header's text, out of its Base64 form if it is in that.
fn decoded<'a>(headers: &'a HeaderMap, name: &str) -> Option<Cow<'a, str>> {
    let text = header_text(headers, name)?;
    match text.strip_prefix("=?base64?").and_then(|text| text.strip_suffix("?=")) {
        Some(encoded) => String::from_utf8(STANDARD.decode(encoded).ok()?).ok().map(Cow::Owned),
        None => Some(Cow::Borrowed(text)),
    }
}

fn supported_versions() -> Vec<&'static str> {
    era::MODERN_VERSIONS.iter().chain(era::LEGACY_VERSIONS).copied().collect()
}

/// The result of `initialize` for a client that agreed on `version`.
pub(crate) async fn initialize_result(visit: &Visit, version: &str) -> Result<Bytes, Failure> {
    let described = describe(visit, Era::Legacy).await?;
    let mut result = json!({
        "protocolVersion": version,
        "capabilities": described.capabilities,
        "serverInfo": described.server_info,
    });
    if let Some(instructions) = described.instructions {
        result["instructions"] = Value::String(instructions);
    }
    Ok(Bytes::from(result.to_string()))
}

/// The result of `server/discover`.
pub(crate) async fn discover_result(visit: &Visit) -> Result<Bytes, Failure> {
    let described = describe(visit, Era::Modern).await?;
    let mut result = json!({
        "resultType": "complete",
        "supportedVersions": supported_versions(),
        "capabilities": described.capabilities,
        "ttlMs": DISCOVER_TTL_MS,
        "cacheScope": "private",
        "_meta": { meta::SERVER_INFO: described.server_info },
    });
    if let Some(instructions) = described.instructions {
        result["instructions"] = Value::String(instructions);
    }
    Ok(Bytes::from(result.to_string()))
}

struct Description {
    capabilities: Value,
    server_info: Value,
    instructions: Option<String>,
}

async fn describe(visit: &Visit, client: Era) -> Result<Description, Failure> {
    match &visit.target {
        Target::Server { name, .. } => {
            let handshake = visit.ask(name, None, |peer: Arc<Peer>| async move { peer.handshake().await }).await?;
            let server_info = handshake.server_info().and_then(|raw| serde_json::from_slice(&raw).ok());
            Ok(Description {
                capabilities: capabilities(&handshake, client),
                server_info: server_info.unwrap_or_else(|| json!({ "name": name, "version": "unknown" })),
                instructions: handshake.instructions().map(|text| bounded(&text)),
            })
        }
        Target::Toolset { route, name } => {
            let handshakes = member_handshakes(visit).await;
            Ok(Description {
                capabilities: merged_capabilities(&handshakes),
                server_info: json!({ "name": name, "version": env!("CARGO_PKG_VERSION") }),
                instructions: merged_instructions(&route.description, &handshakes),
            })
        }
    }
}

/// What a client of the era may use of what the server declares: nothing that the gateway does not carry across.
fn capabilities(handshake: &Handshake, client: Era) -> Value {
    let declared: Map<String, Value> = serde_json::from_slice(&handshake.capabilities()).unwrap_or_default();
    if handshake.era == client {
        return Value::Object(declared);
    }
    let carried = ["tools", "prompts", "resources", "completions"];
    let mut kept: Map<String, Value> =
        declared.into_iter().filter(|(key, _)| carried.contains(&key.as_str())).collect();
    if let Some(Value::Object(resources)) = kept.get_mut("resources") {
        resources.remove("subscribe");
    }
    Value::Object(kept)
}

async fn member_handshakes(visit: &Visit) -> Vec<(String, Arc<Handshake>)> {
    let Target::Toolset { route, .. } = &visit.target else { return Vec::new() };
    let asked = toolset::members(visit.place(route)).map(|(member, route)| async move {
        let memory = visit.core.peers.memory(route.id);
        let handshake = match toolset::may_be_asked(route) {
            true => introduced(&visit.core.peers, route, memory.handshake().is_some()).await,
            false => None,
        };
        if let Some(handshake) = &handshake {
            memory.keep_handshake(handshake);
        }
        let known = handshake.or_else(|| memory.handshake().filter(|_| toolset::is_kept(route)))?;
        Some((member.server.to_string(), known))
    });
    futures_util::future::join_all(asked).await.into_iter().flatten().collect()
}

/// What a member says of itself, unless that takes too long: then it is known the next time.
async fn introduced(peers: &Arc<Peers>, route: &Arc<ServerRoute>, is_known: bool) -> Option<Arc<Handshake>> {
    let known = peers.tellers(route, None).ok()?.iter().find_map(|peer| peer.known_handshake());
    if known.is_some() {
        return known;
    }
    let (peers, route) = (peers.clone(), route.clone());
    let until = tokio::time::Instant::now() + if is_known { Duration::ZERO } else { MEMBER_TIMEOUT };
    let asked = tokio::spawn(async move {
        peers.ask(|| Some(route.clone()), None, until, |peer: Arc<Peer>| async move { peer.handshake().await }).await
    });
    if is_known {
        return None;
    }
    tokio::time::timeout(MEMBER_TIMEOUT, asked).await.ok()?.ok()?.ok()
}

/// A toolset has what any member has, and announces changes of lists, which it watches itself.
fn merged_capabilities(handshakes: &[(String, Arc<Handshake>)]) -> Value {
    let any = |capability| handshakes.iter().any(|(_, handshake)| handshake.has_capability(capability));
    let mut merged = Map::new();
    merged.insert("tools".into(), json!({ "listChanged": true }));
    for list in ["prompts", "resources"] {
        if any(list) {
            merged.insert(list.into(), json!({ "listChanged": true }));
        }
    }
    if any("completions") {
        merged.insert("completions".into(), json!({}));
    }
    Value::Object(merged)
}

fn merged_instructions(description: &str, handshakes: &[(String, Arc<Handshake>)]) -> Option<String> {
    let mut text = description.trim().to_owned();
    for (server, handshake) in handshakes {
        let Some(instructions) = handshake.instructions() else { continue };
        if !text.is_empty() {
            text.push_str("\n\n");
        }
        text.push_str(&format!("# {server}\n{}", instructions.trim()));
    }
    (!text.is_empty()).then(|| bounded(&text))
}

/// Hostile text, bounded and without what hides or reorders it.
fn bounded(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars().filter(|c| matches!(c, '\n' | '\t') || !is_hidden(*c)) {
        if out.len() + c.len_utf8() > MAX_INSTRUCTIONS {
            break;
        }
        out.push(c);
    }
    out
}

/// Whether a modern client may not ask for the method any more, or never could.
pub(crate) fn is_gone_in_modern(method: &str) -> bool {
    matches!(method, "initialize" | "ping" | "logging/setLevel" | "resources/subscribe" | "resources/unsubscribe")
}

/// Whether a method passes between the eras.
pub(crate) fn is_carried(method: &str, speaker: Speaker<'_>, server: Era) -> bool {
    speaker.era() == server || matches!(method, "tools/call" | "prompts/get" | "resources/read" | "completion/complete")
}
