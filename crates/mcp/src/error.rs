//! Why a server has no answer.

use crate::envelope::{self, Message, ParseError};
use crate::era::code;
use bytes::Bytes;
use std::time::Duration;

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The connection had ended: nothing was sent.
    #[error("the connection to the server ended")]
    Closed,
    /// The connection ended after the call was sent.
    #[error("the server ended before it answered; what it was asked for may have been done")]
    Ended,
    /// Too much waits for the server already.
    #[error("the server does not keep up with its calls")]
    Busy,
    /// The server answered more than is accepted.
    #[error("the server's answer is longer than {limit_bytes} bytes")]
    TooLong {
        /// The limit.
        limit_bytes: usize,
    },
    /// There is no room in memory for the server's answer.
    #[error(
        "the server answered, but too many answers that nobody has taken yet are in memory here (setting \
         `request_memory_mb`); read what you called for, and look at what became of this call before you repeat it"
    )]
    NoRoom,
    /// The server did not answer in time.
    #[error("the server did not answer within {0:?}")]
    Timeout(Duration),
    /// The call was cancelled by its caller or ended by the server without an answer.
    #[error("the call was cancelled")]
    Cancelled,
    /// The message to send is not one that may be sent.
    #[error("the message cannot be sent")]
    Invalid(#[from] ParseError),
    /// The server answered with a JSON-RPC error.
    #[error("the server answered error {code}: {message}")]
    Server {
        /// The JSON-RPC code.
        code: i64,
        /// The server's text, bounded and printable; hostile.
        message: String,
    },
    /// The server's answer is not what the method promises; the text says how.
    #[error("the server's answer cannot be used: {0}")]
    Unexpected(&'static str),
    /// A remote server cannot be reached, with the cause, bounded.
    #[error("the remote server cannot be reached: {0}")]
    Unreachable(String),
    /// A remote server was reached, and the connection ended before it answered; the log has the cause.
    #[error("the remote server ended the connection without an answer; what it was asked for may have been done")]
    Dropped,
    /// A remote server answered with an HTTP status instead of a message.
    #[error("the remote server answered HTTP status {0}{doubt}", doubt = doubt(.0))]
    Status(u16),
    /// A remote server failed with an HTTP status in the handshake before the call: nothing else was sent.
    #[error("the remote server answered HTTP status {0} to the handshake; nothing was asked of it")]
    NotAsked(u16),
}

/// What a status leaves open: a server, or what is before it, that fails may do so after it did the work. One that is not
/// there has not.
fn doubt(status: &u16) -> &'static str {
    if *status >= 500 && *status != 503 { "; what it was asked for may have been done" } else { "" }
}

impl CallError {
    /// A JSON-RPC error response to the request `id` (raw JSON) that says so.
    #[must_use]
    pub fn to_response(&self, id: &str) -> Bytes {
        envelope::error(Some(id), code::INTERNAL_ERROR, &self.to_string(), None)
    }
}

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
    /// A remote server cannot be reached, with the cause, bounded.
    #[error("the remote server cannot be reached: {0}")]
    Unreachable(String),
    /// A remote server answered with an HTTP status instead of a message.
    #[error("the remote server answered HTTP status {0}")]
    Status(u16),
    /// There is no room in memory for what it answers, which says nothing of the server.
    #[error("there is no room in memory here for what the server answers")]
    NoRoom,
}

impl From<CallError> for HandshakeError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Server { code, message } => Self::Refused { code, message },
            CallError::Closed | CallError::Ended | CallError::Busy | CallError::Cancelled => Self::Closed,
            CallError::Timeout(timeout) => Self::Timeout(timeout),
            CallError::Unreachable(cause) => Self::Unreachable(cause),
            CallError::Dropped => Self::Unreachable("it ended the connection without an answer".to_owned()),
            CallError::Status(status) | CallError::NotAsked(status) => Self::Status(status),
            CallError::NoRoom => Self::NoRoom,
            other => Self::Unusable(other.to_string()),
        }
    }
}

/// The innermost cause, which says what is to be done; what is around it (`client error (Connect)`) does not. It may quote
/// what the other side sent, as a certificate's names.
pub(crate) fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let innermost = std::iter::successors(Some(error), |error| error.source()).last().unwrap_or(error);
    innermost.to_string().chars().filter(|c| !toolyard_types::name::is_hidden(*c)).take(300).collect()
}

/// The JSON-RPC error in `message`, bounded and printable.
pub(crate) fn server_error(message: &Message) -> CallError {
    #[derive(serde::Deserialize)]
    struct Body {
        #[serde(default)]
        code: f64,
        #[serde(default)]
        message: String,
    }
    let body = message.payload().and_then(|raw| serde_json::from_slice::<Body>(&raw).ok());
    let (code, text) = body.map_or((0, String::new()), |body| (whole(body.code), body.message));
    let message = text.chars().filter(|c| !toolyard_types::name::is_hidden(*c)).take(500).collect();
    CallError::Server { code, message }
}

/// JSON-RPC codes are whole and small; some servers write them as `-32601.0`.
fn whole(code: f64) -> i64 {
    format!("{code:.0}").parse().unwrap_or(0)
}
