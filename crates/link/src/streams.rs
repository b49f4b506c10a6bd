//! The gateway's end of a link: HTTP/2 without tasks between a caller and the connection.
//!
//! A general client gives each request to a task of its own, and that one to the connection's; on a call of a hundred
//! microseconds these hand-overs are most of the cost. Here the caller's own task puts its request on the connection
//! and is woken by its answer, so that one call is one stream and nothing else.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use h2::{PingPong, RecvStream};
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Limited};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::Body;
use crate::swap::{KEEP_ALIVE, KEEP_ALIVE_TIMEOUT, MAX_STREAMS};

/// How much of one stream, and of all of them together, may be under way unread, in either direction. What a link carries
/// are messages, so a window that grows with the round trip has nothing to learn.
pub(crate) const STREAM_WINDOW: u32 = 1 << 20;
pub(crate) const CONNECTION_WINDOW: u32 = 16 << 20;
/// The longest request: a message and what is around it.
const MAX_REQUEST_BYTES: usize = 16 << 20;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Takes requests for one connection. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Sender(SendRequest<Bytes>);

/// Speaks HTTP/2 as a client. The future is the connection's work and ends with it.
///
/// # Errors
/// When the other side does not speak HTTP/2.
pub(crate) async fn open(
    io: impl AsyncRead + AsyncWrite + Send + Unpin,
) -> Result<(Sender, impl Future<Output = Result<(), Error>> + Send), h2::Error> {
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_max_send_streams(MAX_STREAMS as usize)
        // Many clients may go away at once. What an agent that does not know yet still sends for their calls is no attack.
        .max_concurrent_reset_streams(MAX_STREAMS as usize)
        .max_local_error_reset_streams(None)
        .enable_push(false);
    let (sender, connection) = builder.handshake(io).await?;
    Ok((Sender(sender), run(connection)))
}

async fn run(mut connection: Connection<impl AsyncRead + AsyncWrite + Unpin, Bytes>) -> Result<(), Error> {
    let pings = connection.ping_pong();
    tokio::select! {
        ended = connection => Ok(ended?),
        silent = keep_alive(pings) => Err(silent),
    }
}

/// Ends when the other side no longer answers.
async fn keep_alive(pings: Option<PingPong>) -> Error {
    let Some(mut pings) = pings else { return std::future::pending().await };
    loop {
        tokio::time::sleep(KEEP_ALIVE).await;
        match tokio::time::timeout(KEEP_ALIVE_TIMEOUT, pings.ping(h2::Ping::opaque())).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return error.into(),
            Err(_) => return format!("no answer within {} s", KEEP_ALIVE_TIMEOUT.as_secs()).into(),
        }
    }
}

/// Why a request has no answer.
#[derive(Debug)]
pub(crate) enum SendError {
    /// The other side has certainly not taken it up: its connection has ended, or is to end (RFC 9113, section 6.8).
    NotSent(h2::Error),
    /// It may have.
    Broke(Error),
}

impl SendError {
    fn of(error: h2::Error) -> Self {
        let is_not_taken_up = error.is_remote()
            && (error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR)
                || error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM));
        if is_not_taken_up { Self::NotSent(error) } else { Self::Broke(error.into()) }
    }
}

impl Sender {
    /// Sends a request; gives its answer when that begins. Dropped earlier, the stream is reset.
    ///
    /// # Errors
    /// When there is no answer, or the request is too long.
    pub(crate) async fn send(&self, request: Request<Body>) -> Result<Response<Body>, SendError> {
        let (parts, body) = request.into_parts();
        let body = Limited::new(body, MAX_REQUEST_BYTES).collect().await.map_err(SendError::Broke)?.to_bytes();
        let mut sender = self.0.clone().ready().await.map_err(SendError::NotSent)?;
        let sent = sender.send_request(Request::from_parts(parts, ()), body.is_empty());
        let (answer, mut stream) = sent.map_err(SendError::NotSent)?;
        if !body.is_empty() {
            stream.send_data(body, true).map_err(SendError::of)?;
        }
        let answer = answer.await.map_err(SendError::of)?;
        Ok(answer.map(|stream| Body::new(Answer { stream })))
    }
}

/// What comes back on a stream. Dropped before its end, the stream is reset.
struct Answer {
    stream: RecvStream,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        Poll::Ready(match ready!(self.stream.poll_data(cx)) {
            Some(Ok(data)) => {
                // What was read makes room for more.
                self.stream.flow_control().release_capacity(data.len())?;
                Some(Ok(Frame::data(data)))
            }
            // The agent has ended the stream: what was sent is whole.
            Some(Err(error)) if error.reason() == Some(h2::Reason::NO_ERROR) => None,
            other => other.map(|data| data.map(Frame::data)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
