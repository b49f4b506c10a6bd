//! Which era a server speaks, found out on its stream.

use super::{CallError, Connection, Stream};
use crate::envelope::{self, Kind, Message};
use crate::era::{self, Era, Handshake, code};
use bytes::Bytes;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long an unknown server may take to answer the modern probe. Some legacy servers never answer it.
const PATIENCE: Duration = Duration::from_millis(1500);
/// How long `initialize` may still take once a late modern answer has come.
const LATE_PATIENCE: Duration = Duration::from_secs(2);

/// Why a server did not get ready.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The connection ended first.
    #[error("the server closed its output before it answered")]
    Closed,
    /// It did not answer in time.
    #[error("the server did not answer `initialize` within {0:?}")]
    Timeout(Duration),
    /// It wrote, but nothing that is MCP.
    #[error("the server wrote to standard output, but no MCP message; its first line was `{sample}`")]
    NotMcp {
        /// The beginning of its first line, printable.
        sample: String,
    },
    /// It answered with an error.
    #[error("the server refused `initialize` with error {code}: {message}")]
    Refused {
        /// The JSON-RPC code.
        code: i64,
        /// Its text, bounded and printable; hostile.
        message: String,
    },
    /// Its answer cannot be used; the text says how.
    #[error("the server answered `initialize`, but {0}")]
    Unusable(String),
}

pub(super) async fn run(
    connection: &Connection,
    known_era: Option<Era>,
    timeout: Duration,
) -> Result<Handshake, HandshakeError> {
    let negotiation = async {
        match known_era {
            Some(Era::Legacy) => initialize(connection).await,
            Some(Era::Modern) => probe(connection, timeout).await,
            None => probe(connection, PATIENCE).await,
        }
    };
    let outcome = match tokio::time::timeout(timeout, negotiation).await {
        Ok(outcome) => outcome,
        Err(_) => Err(HandshakeError::Timeout(timeout)),
    };
    match outcome {
        Ok(handshake) => {
            settle(connection, handshake.clone());
            Ok(handshake)
        }
        Err(error @ (HandshakeError::Timeout(_) | HandshakeError::Closed)) => Err(blame_noise(connection, error)),
        Err(error) => Err(error),
    }
}

/// Makes the handshake the connection's own and, with a modern server, subscribes to its changes.
pub(super) fn settle(connection: &Connection, handshake: Handshake) {
    let shared = connection.shared();
    if handshake.era == Era::Modern {
        listen(connection, &handshake);
    }
    *shared.handshake() = Some(handshake);
}

/// Silence or an early end after lines that are no protocol is a server that speaks something else.
fn blame_noise(connection: &Connection, error: HandshakeError) -> HandshakeError {
    let shared = connection.shared();
    if shared.spoke.load(Ordering::Relaxed) {
        return error;
    }
    let first = shared.first_noise.lock().unwrap_or_else(PoisonError::into_inner).clone();
    first.map_or(error, |line| HandshakeError::NotMcp { sample: toolyard_types::name::printable(&line) })
}

/// What the answer to the modern probe says.
enum Probed {
    Modern(Handshake),
    Legacy,
}

async fn probe(connection: &Connection, patience: Duration) -> Result<Handshake, HandshakeError> {
    let params = format!(r#"{{"_meta":{{{}}}}}"#, era::own_meta_members(era::LATEST_MODERN));
    let mut discover = connection.ask("server/discover", Some(&params), false).map_err(broken)?;
    match tokio::time::timeout(patience, discover.next()).await {
        Ok(answer) => match judge(answer)? {
            Probed::Modern(handshake) => Ok(handshake),
            Probed::Legacy => initialize(connection).await,
        },
        Err(_) => initialize_beside(connection, discover).await,
    }
}

/// The probe was not answered in time: either a legacy server that ignores it, or one that is still starting.
///
/// A late modern answer counts only when `initialize` is refused: a server that has accepted `initialize` may
/// keep to the legacy era from then on.
async fn initialize_beside(connection: &Connection, mut discover: Stream) -> Result<Handshake, HandshakeError> {
    let mut legacy = std::pin::pin!(initialize(connection));
    let late = tokio::select! {
        biased;
        answer = discover.next() => judge(answer)?,
        outcome = &mut legacy => return match outcome {
            Err(HandshakeError::Refused { code, message }) => {
                late_answer(&mut discover).await.ok_or(HandshakeError::Refused { code, message })
            }
            outcome => outcome,
        },
    };
    let Probed::Modern(modern) = late else { return legacy.await };
    match tokio::time::timeout(LATE_PATIENCE, legacy).await {
        Ok(Ok(handshake)) => Ok(handshake),
        Ok(Err(HandshakeError::Closed)) => Err(HandshakeError::Closed),
        Ok(Err(_)) | Err(_) => Ok(modern),
    }
}

/// The answer to the probe of a server that answers out of order.
async fn late_answer(discover: &mut Stream) -> Option<Handshake> {
    match judge(tokio::time::timeout(LATE_PATIENCE, discover.next()).await.ok()?) {
        Ok(Probed::Modern(handshake)) => Some(handshake),
        _ => None,
    }
}

async fn initialize(connection: &Connection) -> Result<Handshake, HandshakeError> {
    let params = format!(
        r#"{{"protocolVersion":"{}","capabilities":{{}},"clientInfo":{}}}"#,
        era::LATEST_LEGACY,
        era::own_info()
    );
    let stream = connection.ask("initialize", Some(&params), false).map_err(broken)?;
    let result = stream.into_result().await.map_err(broken)?;
    let handshake = Handshake::from_initialize(result).map_err(HandshakeError::Unusable)?;
    let initialized = envelope::notification("notifications/initialized", None);
    connection.shared().queue.push(initialized).map_err(broken)?;
    Ok(handshake)
}

fn judge(answer: Option<Result<Bytes, CallError>>) -> Result<Probed, HandshakeError> {
    let bytes = answer.unwrap_or(Err(CallError::Closed)).map_err(broken)?;
    let message = Message::parse(bytes).map_err(|error| broken(error.into()))?;
    let payload = message.payload().unwrap_or_default();
    if message.kind() == Kind::Result {
        return Ok(Handshake::from_discover(payload).map_or(Probed::Legacy, Probed::Modern));
    }
    let CallError::Server { code: refused, .. } = super::server_error(&message) else { return Ok(Probed::Legacy) };
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

/// Subscribes to what a modern server says of its own accord; it says nothing without.
fn listen(connection: &Connection, handshake: &Handshake) {
    let wanted: Vec<String> =
        [("tools", "toolsListChanged"), ("prompts", "promptsListChanged"), ("resources", "resourcesListChanged")]
            .iter()
            .filter(|(capability, _)| declares_list_changed(handshake, capability))
            .map(|(_, filter)| format!(r#""{filter}":true"#))
            .collect();
    if wanted.is_empty() {
        return;
    }
    let shared = connection.shared();
    let id = shared.next_id.fetch_add(1, Ordering::Relaxed);
    shared.listen_id.store(id, Ordering::Relaxed);
    let params = format!(
        r#"{{"_meta":{{{}}},"notifications":{{{}}}}}"#,
        era::own_meta_members(&handshake.protocol_version),
        wanted.join(",")
    );
    // Without room in the queue there are no change notifications, and lists age out by their time to live.
    let _ = shared.queue.push(envelope::request(&id.to_string(), "subscriptions/listen", Some(&params)));
}

fn declares_list_changed(handshake: &Handshake, capability: &str) -> bool {
    era::member(&handshake.capabilities(), capability)
        .and_then(|value| era::member(&value, "listChanged"))
        .is_some_and(|value| value == "true")
}

fn broken(error: CallError) -> HandshakeError {
    match error {
        CallError::Server { code, message } => HandshakeError::Refused { code, message },
        CallError::Closed | CallError::Busy | CallError::Cancelled => HandshakeError::Closed,
        other => HandshakeError::Unusable(other.to_string()),
    }
}
