//! Which era a server speaks, found out on its stream.

use super::{CallError, Connection, HandshakeError, Stream};
use crate::envelope::{self, Message};
use crate::era::{Era, Handshake};
use crate::probe::Probed;
use bytes::Bytes;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long an unknown server may take to answer the modern probe. Some legacy servers never answer it.
const PATIENCE: Duration = Duration::from_millis(1500);
/// How long `initialize` may still take once a late modern answer has come.
const LATE_PATIENCE: Duration = Duration::from_secs(2);

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

async fn probe(connection: &Connection, patience: Duration) -> Result<Handshake, HandshakeError> {
    let params = crate::probe::params();
    let mut discover = connection.ask("server/discover", Some(&params))?;
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
    let params = crate::probe::initialize_params();
    let result = connection.ask("initialize", Some(&params))?.result().await?;
    let handshake = Handshake::from_initialize(result).map_err(HandshakeError::Unusable)?;
    let initialized = envelope::notification("notifications/initialized", None);
    connection.shared().queue.push(initialized)?;
    Ok(handshake)
}

fn judge(answer: Option<Result<Bytes, CallError>>) -> Result<Probed, HandshakeError> {
    let answer = answer.unwrap_or(Err(CallError::Closed))?;
    let message = Message::parse(answer).map_err(CallError::Invalid)?;
    crate::probe::judge(&message)
}

/// Subscribes to what a modern server says of its own accord; it says nothing without.
fn listen(connection: &Connection, handshake: &Handshake) {
    let Some(params) = crate::probe::listen_params(handshake) else { return };
    let shared = connection.shared();
    let id = shared.next_id.fetch_add(1, Ordering::Relaxed);
    shared.listen_id.store(id, Ordering::Relaxed);
    // Without room in the queue there are no change notifications, and lists age out by their time to live.
    let _ = shared.queue.push(envelope::request(&id.to_string(), "subscriptions/listen", Some(&params)));
}
