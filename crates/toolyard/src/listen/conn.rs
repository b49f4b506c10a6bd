//! One connection: its requests, counted, and its end when nothing happens on it.
//!
//! hyper ends an HTTP/1 connection whose next head does not come in time. It has no such limit before it knows which
//! version is spoken, and none for an HTTP/2 connection without requests; both are here. Pings keep such a connection
//! alive, so bytes are no sign of life: only requests are.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::time::Instant;
use toolyard_link::{Pace, Paced};
use tower::ServiceExt;

/// What happens on a connection.
pub(super) struct Activity {
    began: Instant,
    /// Requests that have begun.
    begun: AtomicU64,
    /// Requests whose answer has not ended.
    under_way: AtomicUsize,
    /// Those of them whose answer the peer does not take.
    stalled: AtomicUsize,
    /// When a request last began, ended or went on, in milliseconds since the connection began.
    moved_ms: AtomicU64,
}

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            begun: AtomicU64::new(0),
            under_way: AtomicUsize::new(0),
            stalled: AtomicUsize::new(0),
            moved_ms: AtomicU64::new(0),
        })
    }

    fn moved(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved_ms.store(now, Ordering::Relaxed);
    }

    /// When the connection has to end if nothing happens until then; none while requests are being answered.
    pub(super) fn ends_at(&self, patience: &Patience) -> Option<Instant> {
        let (under_way, stalled) = (self.under_way.load(Ordering::Acquire), self.stalled.load(Ordering::Acquire));
        let limit = match (self.begun.load(Ordering::Acquire), under_way) {
            (0, _) => patience.head,
            (_, 0) => patience.idle,
            // Every answer waits for its peer.
            _ if stalled >= under_way => patience.idle,
            _ => return None,
        };
        Some(self.began + Duration::from_millis(self.moved_ms.load(Ordering::Acquire)) + limit)
    }
}

/// How long a peer may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// For the head of a request, from the end of the one before.
    pub(crate) head: Duration,
    /// Without any request, on a connection that carries several at once.
    pub(crate) idle: Duration,
    /// For the body of a request.
    pub(crate) body: Pace,
}

/// A request under way; it ends when its answer has been sent or given up.
struct UnderWay(Arc<Activity>);

impl UnderWay {
    fn begin(activity: &Arc<Activity>) -> Self {
        activity.begun.fetch_add(1, Ordering::Release);
        activity.under_way.fetch_add(1, Ordering::Release);
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

/// The router behind a connection.
pub(super) struct Counted {
    pub(super) router: Router,
    pub(super) activity: Arc<Activity>,
    pub(super) pace: Pace,
    pub(super) peer: Option<SocketAddr>,
}

impl hyper::service::Service<Request<Incoming>> for Counted {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let under_way = UnderWay::begin(&self.activity);
        let mut request = request.map(|body| Paced::new(body, self.pace));
        if let Some(peer) = self.peer {
            request.extensions_mut().insert(ConnectInfo(peer));
        }
        let answering = self.router.clone().oneshot(request);
        Box::pin(async move {
            let answer = answering.await?;
            Ok(answer.map(|body| Answer { body, under_way, stalled: false }))
        })
    }
}

/// The body of an answer, which keeps its request under way.
pub(super) struct Answer {
    body: Body,
    under_way: UnderWay,
    /// Something was given out, and the next was not asked for yet.
    stalled: bool,
}

impl Answer {
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
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(frame, Poll::Ready(Some(Ok(_)))) && !self.body.is_end_stream() {
            self.set_stalled(true);
        }
        frame
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
