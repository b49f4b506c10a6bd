//! One connection: its requests, counted, and its end when nothing happens on it.
//!
//! hyper knows one time for the next head of an HTTP/1 connection, whether some of it came or nothing at all: a client
//! that keeps a connection for its next request is not one that sends half a request. It has no limit before it knows
//! which version is spoken, and none for an HTTP/2 connection without requests. All of these are here. Pings keep an HTTP/2
//! connection alive, so bytes that come are no sign of life there: only requests are, and answers that are taken.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::Instant;
use toolyard_link::{Budget, Charge, Held, Metered, NoRoom, Pace, Paced, Payer};
use toolyard_types::{Code, Network, Problem};
use tower::ServiceExt;

use super::PayerOf;
use crate::serve::problem_response;

/// A write of fewer bytes may be a ping or a setting, and is no answer that is taken.
const LEAST_WRITE: usize = 512;
/// So much of an answer is in what its request costs by itself.
const FREE_ANSWER: usize = 2 << 10;

/// What happens on a connection.
pub(super) struct Activity {
    began: Instant,
    /// Requests that have begun.
    begun: AtomicU64,
    /// Requests whose answer has not ended.
    under_way: AtomicUsize,
    /// Those of them whose answer the peer does not take.
    stalled: AtomicUsize,
    /// When a request last began, ended or went on, or some of an answer was taken, in milliseconds since the connection
    /// began.
    moved_ms: AtomicU64,
    /// Whether it carries one request after the other, as HTTP/1 does.
    one_by_one: AtomicBool,
    /// Told of each request of HTTP/2.
    shared: Notify,
    /// Whether its peer is to give it up.
    leaving: AtomicBool,
    /// When the head of the next request began to come, in the same unit; 0 while none has.
    head_ms: AtomicU64,
}

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            begun: AtomicU64::new(0),
            under_way: AtomicUsize::new(0),
            stalled: AtomicUsize::new(0),
            moved_ms: AtomicU64::new(0),
            one_by_one: AtomicBool::new(false),
            shared: Notify::new(),
            leaving: AtomicBool::new(false),
            head_ms: AtomicU64::new(0),
        })
    }

    /// Has the peer of an HTTP/1 connection give it up with the next answer.
    pub(super) fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Ready once a request has shown that they come beside each other, as in HTTP/2.
    pub(super) async fn shared(&self) {
        self.shared.notified().await;
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn moved(&self) {
        self.moved_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    fn heard(&self) {
        let between = self.one_by_one.load(Ordering::Relaxed) && self.under_way.load(Ordering::Acquire) == 0;
        if between && self.head_ms.load(Ordering::Relaxed) == 0 {
            self.head_ms.store(self.now_ms().max(1), Ordering::Relaxed);
        }
    }

    /// When the connection has to end if nothing happens until then; none while requests are being answered.
    pub(super) fn ends_at(&self, patience: &Patience) -> Option<Instant> {
        let (under_way, stalled) = (self.under_way.load(Ordering::Acquire), self.stalled.load(Ordering::Acquire));
        let head_ms = self.head_ms.load(Ordering::Acquire);
        let moved_ms = self.moved_ms.load(Ordering::Acquire);
        let (since_ms, limit) = match (self.begun.load(Ordering::Acquire), under_way) {
            (0, _) => (moved_ms, patience.head),
            (_, 0) if head_ms > 0 => (head_ms, patience.head),
            (_, 0) => (moved_ms, patience.idle),
            // Every answer waits for its peer.
            _ if stalled >= under_way => (moved_ms, patience.answer),
            _ => return None,
        };
        Some(self.began + Duration::from_millis(since_ms) + limit)
    }
}

/// How long a peer may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// For the head of a request, from its first byte; for the first one, from the beginning.
    pub(crate) head: Duration,
    /// Without any request.
    pub(crate) idle: Duration,
    /// Without taking any of an answer.
    pub(crate) answer: Duration,
    /// For the body of a request.
    pub(crate) body: Pace,
}

/// A request under way; it ends when its answer has been sent or given up.
struct UnderWay(Arc<Activity>);

impl UnderWay {
    fn begin(activity: &Arc<Activity>) -> Self {
        activity.begun.fetch_add(1, Ordering::Release);
        activity.under_way.fetch_add(1, Ordering::Release);
        activity.head_ms.store(0, Ordering::Release);
        activity.moved();
        Self(Arc::clone(activity))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.moved();
        self.0.under_way.fetch_sub(1, Ordering::Release);
    }
}

/// The bytes of a connection, watched for the head of the next request and for answers that are taken. hyper hands a whole
/// answer to itself at once: only here it shows whether the peer takes it.
pub(super) struct Watched<S> {
    pub(super) stream: S,
    pub(super) activity: Arc<Activity>,
}

impl<S> Watched<S> {
    fn wrote(&self, bytes: usize) {
        if bytes >= LEAST_WRITE {
            self.activity.moved();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = into.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, into));
        if into.filled().len() > before {
            self.activity.heard();
        }
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.wrote(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        self.wrote(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The router behind a connection.
pub(super) struct Counted {
    pub(super) router: Router,
    pub(super) activity: Arc<Activity>,
    pub(super) pace: Pace,
    pub(super) peer: Option<SocketAddr>,
    pub(super) budget: Budget,
    pub(super) payer: PayerOf,
    pub(super) proxies: Arc<[Network]>,
}

impl Counted {
    /// Strangers behind a proxy that is trusted are told apart by what it says of them.
    fn payer_of(&self, headers: &HeaderMap) -> Payer {
        match ((self.payer)(), self.peer) {
            (Payer::Stranger(_), Some(peer)) => {
                Payer::stranger(Some(toolyard_control::address_behind(peer.ip(), headers, &self.proxies)))
            }
            (payer, _) => payer,
        }
    }
}

impl hyper::service::Service<Request<Incoming>> for Counted {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let one_by_one = request.version() <= Version::HTTP_11;
        self.activity.one_by_one.store(one_by_one, Ordering::Relaxed);
        if !one_by_one {
            self.activity.shared.notify_one();
        }
        let under_way = UnderWay::begin(&self.activity);
        let charge = match self.budget.begin(request.headers(), self.payer_of(request.headers())) {
            Ok(charge) => charge,
            Err(no_room) => return Box::pin(async move { Ok(last_when_leaving(refuse(no_room, under_way))) }),
        };
        let paced = |body| Metered::new(Paced::new(body, self.pace), charge.clone());
        let mut request = request.map(paced);
        request.extensions_mut().insert(charge.clone());
        if let Some(peer) = self.peer {
            request.extensions_mut().insert(ConnectInfo(peer));
        }
        let is_safe = request.method().is_safe();
        let answering = self.router.clone().oneshot(request);
        Box::pin(async move {
            let answer = answering.await?;
            let answer = match hold(&charge, answer.body()) {
                Ok(held) => answer.map(|body| Answer::new(body, under_way, Some((charge, held)))),
                Err(no_room) if is_safe || !answer.status().is_success() => refuse(no_room, under_way),
                // What was asked for is done by now, and must not be sent again unseen.
                Err(_) => {
                    let problem = Problem::new(Code::AnswerDropped, NoRoom::FOR_ITS_ANSWER);
                    problem_response(&problem).map(|body| Answer::new(body, under_way, None))
                }
            };
            Ok(last_when_leaving(answer))
        })
    }
}

/// Makes an answer the last one of an HTTP/1 connection that its peer is to give up. hyper closes it after that.
fn last_when_leaving(mut answer: Response<Answer>) -> Response<Answer> {
    let activity = &answer.body().under_way.0;
    let is_last = activity.leaving.load(Ordering::Relaxed) && activity.one_by_one.load(Ordering::Relaxed);
    if is_last && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// Takes room for an answer that is there as a whole.
fn hold(charge: &Charge, body: &Body) -> Result<Option<Held>, NoRoom> {
    let bytes = HttpBody::size_hint(body).exact().and_then(|bytes| usize::try_from(bytes).ok());
    match bytes.filter(|bytes| *bytes > FREE_ANSWER) {
        Some(bytes) => charge.hold(bytes).map(Some),
        None => Ok(None),
    }
}

fn refuse(no_room: NoRoom, under_way: UnderWay) -> Response<Answer> {
    no_room_response(no_room).map(|body| Answer::new(body, under_way, None))
}

fn no_room_response(no_room: NoRoom) -> Response<Body> {
    let mut response = problem_response(&Problem::new(Code::NoCapacity, no_room.to_string()));
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// The body of an answer, which keeps its request under way.
pub(super) struct Answer {
    body: Body,
    under_way: UnderWay,
    /// The next of it was not asked for yet.
    stalled: bool,
    /// Given back with it.
    charge: Option<Charge>,
    /// Room for all of it, taken before its head was sent.
    held: Option<Held>,
}

impl Answer {
    fn new(body: Body, under_way: UnderWay, charged: Option<(Charge, Option<Held>)>) -> Self {
        let (charge, held) = charged.map_or((None, None), |(charge, held)| (Some(charge), held));
        let mut answer = Self { body, under_way, stalled: false, charge, held };
        // A peer that takes nothing keeps the first of it from being asked for.
        answer.set_stalled(true);
        answer
    }

    /// What was given out waits in memory until the peer takes it, and is charged until then.
    fn charged(&mut self, data: Bytes) -> Result<Bytes, NoRoom> {
        let held = match (self.held.take(), &self.charge) {
            (Some(held), _) => Some(held),
            (None, Some(charge)) if data.len() > FREE_ANSWER => Some(charge.hold(data.len())?),
            _ => None,
        };
        Ok(match held {
            Some(held) => held.around(data),
            None => data,
        })
    }

    fn set_stalled(&mut self, stalled: bool) {
        if self.stalled == stalled {
            return;
        }
        self.stalled = stalled;
        let activity = &self.under_way.0;
        if stalled {
            activity.moved();
            activity.stalled.fetch_add(1, Ordering::Release);
        } else {
            activity.stalled.fetch_sub(1, Ordering::Release);
        }
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.set_stalled(false);
        let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else { return Poll::Ready(None) };
        let frame = match frame?.into_data() {
            Ok(data) => Frame::data(self.charged(data).map_err(axum::Error::new)?),
            Err(other) => other,
        };
        if !self.body.is_end_stream() {
            self.set_stalled(true);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.set_stalled(false);
    }
}
