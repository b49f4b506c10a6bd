//! The first call of a copy: it waits until the copy answers, and its client may be told so meanwhile.
//!
//! Most copies answer within a second, and then nobody notices. A client that asked for progress hears after that
//! that its copy is being started; from then on what goes wrong is told as the call's own error, because an answer
//! has begun.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::response::Response;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{Stream, StreamExt, stream};
use tokio::time::Instant;
use toolyard_link::frames;
use toolyard_mcp::era::code;
use toolyard_mcp::stdio::{Connection, MessageContext};
use toolyard_mcp::{Message, envelope};
use toolyard_types::Code;
use toolyard_types::state::Phase;

use crate::agent::Inner;
use crate::api::{self, NOT_READY, Refusal};
use crate::copies::InUse;
use crate::slot::Slot;

/// How long nothing is said of a copy that is being started, and again between two words.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Sends a message to a copy as soon as it answers.
///
/// # Errors
/// When it will not, or not in time.
pub(crate) async fn deliver(
    inner: Arc<Inner>,
    slot: Arc<Slot>,
    in_use: InUse,
    whose: MessageContext,
    message: Bytes,
    deadline: Instant,
) -> Result<Response, Refusal> {
    let mut activation: Activation = Box::pin(activated(inner, slot, deadline));
    let connection = match tokio::time::timeout(TELL_EVERY, &mut activation).await {
        Ok(connection) => connection?,
        Err(_) => match Asker::of(&message) {
            None => activation.await?,
            Some(asker) => {
                let waiting = Waiting { activation, asker, message, in_use, whose, deadline, told: 0 };
                return Ok(api::framed(Body::from_stream(told(waiting))));
            }
        },
    };
    api::deliver(&connection, Some(in_use), whose, message, deadline).await
}

type Activation = BoxFuture<'static, Result<Connection, Refusal>>;

/// Waits until a copy answers; not when it is clear that it will not soon.
async fn activated(inner: Arc<Inner>, slot: Arc<Slot>, deadline: Instant) -> Result<Connection, Refusal> {
    let mut changed = inner.copies_changed.subscribe();
    loop {
        if let Some(connection) = slot.connection() {
            return Ok(connection);
        }
        let status = slot.status();
        let hopeless = status.next_attempt_at.is_some()
            || matches!(status.phase, Phase::Failed | Phase::Stopping | Phase::Stopped);
        if hopeless {
            return Err(api::not_ready(&slot));
        }
        if !matches!(tokio::time::timeout_at(deadline, changed.changed()).await, Ok(Ok(()))) {
            let why = "the copy of the server for this caller did not start in time";
            return Err(Refusal::new(Code::UpstreamTimeout, why).undelivered(NOT_READY));
        }
    }
}

/// What of a request is needed to tell its client something.
struct Asker {
    id: String,
    token: String,
}

impl Asker {
    /// Of a request that asks for progress.
    fn of(message: &Bytes) -> Option<Self> {
        let message = Message::parse(message.clone()).ok()?;
        let token = message.text(message.progress_token().ok()??).to_owned();
        Some(Self { id: message.raw_id()?.to_owned(), token })
    }

    /// The n-th word on a copy that is being started. The server's own numbers come after it and are greater.
    fn progress(&self, n: u32) -> Bytes {
        let (token, progress) = (&self.token, f64::from(n) / 1000.0);
        let text = "a copy of the server is being started for this caller";
        let params = format!(r#"{{"progressToken":{token},"progress":{progress},"message":"{text}"}}"#);
        frames::encode(&envelope::notification("notifications/progress", Some(&params)))
    }

    fn error(&self, refusal: &Refusal) -> Bytes {
        let data = format!(r#"{{"code":"{}"}}"#, refusal.problem.code.as_str());
        frames::encode(&envelope::error(Some(&self.id), code::INTERNAL_ERROR, &refusal.problem.detail, Some(&data)))
    }
}

struct Waiting {
    activation: Activation,
    asker: Asker,
    message: Bytes,
    in_use: InUse,
    whose: MessageContext,
    deadline: Instant,
    told: u32,
}

enum Telling {
    Waiting(Box<Waiting>),
    Passing(BodyDataStream),
    Over,
}

/// Words on a copy that is being started, then what it answers.
fn told(waiting: Waiting) -> impl Stream<Item = Result<Bytes, axum::Error>> {
    stream::unfold(Telling::Waiting(Box::new(waiting)), |telling| async move {
        let mut waiting = match telling {
            Telling::Over => return None,
            Telling::Passing(mut body) => return Some((body.next().await?, Telling::Passing(body))),
            Telling::Waiting(waiting) => waiting,
        };
        let pause = if waiting.told == 0 { Duration::ZERO } else { TELL_EVERY };
        let Ok(connection) = tokio::time::timeout(pause, &mut waiting.activation).await else {
            waiting.told += 1;
            return Some((Ok(waiting.asker.progress(waiting.told)), Telling::Waiting(waiting)));
        };
        let Waiting { asker, message, in_use, whose, deadline, .. } = *waiting;
        let answer = match connection {
            Ok(connection) => api::deliver(&connection, Some(in_use), whose, message, deadline).await,
            Err(refusal) => Err(refusal),
        };
        match answer {
            Ok(response) => {
                let mut body = response.into_body().into_data_stream();
                Some((body.next().await?, Telling::Passing(body)))
            }
            Err(refusal) => Some((Ok(asker.error(&refusal)), Telling::Over)),
        }
    })
}
