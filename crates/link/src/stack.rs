//! The client stack: what every outgoing call between our parts goes through, in one place.
//!
//! A call carries a request id and a trace context. It has a deadline until its answer begins. A call that may be
//! made twice is tried again when nobody answered, at most [`ATTEMPTS`] times, after a pause with a random part, and
//! only while the peer's *budget* lasts: retries are a tenth of the calls at most, so they cannot become the load that
//! keeps a peer down. A *breaker* per peer ends the waiting: after [`THRESHOLD`] calls in a row without an answer calls
//! fail at once, until one that is let through now and then is answered.
//!
//! What a peer answers is an answer, also when it is a problem: a server that is not ready says nothing about its
//! toolbox. Counted are broken connections, deadlines that passed, and 502, 503 and 504 that are no problem documents,
//! which is how proxies speak.
//!
//! Logs name the peer, the method and the path: never a query, a header or a body.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, Request, Response, StatusCode, header};
use tokio::time::Instant;
use toolyard_types::api::servers::BreakerState;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use crate::trace::Trace;
use crate::{Body, Channel, LinkError};

/// The deadline of a call, in milliseconds from when the request arrives.
pub const DEADLINE: HeaderName = HeaderName::from_static("toolyard-deadline-ms");

/// Whose copy of an instance a message is for, where users or sessions have copies of their own.
pub const INSTANCE_KEY: HeaderName = HeaderName::from_static("toolyard-instance-key");

/// Of whom a message is: `gateway` for what a gateway asks itself, else 32 hex digits that are the same for one caller and
/// others for every other. They say nothing more, and let an agent tell whether a server has been used by one alone, and
/// which copies of an instance are one caller's.
pub const PRINCIPAL: HeaderName = HeaderName::from_static("toolyard-principal");

/// Whose share of an agent's memory a message uses up, as [`PRINCIPAL`], where that is another one's: a key's is that of who
/// made it.
pub const SHARE: HeaderName = HeaderName::from_static("toolyard-share");

/// A call's name, 32 hex digits that no other call has. A `notifications/cancelled` that comes with one is for that call, and
/// tells its server why it is given up; that the call's stream ends tells no reason. An agent of before takes no notice.
pub const CALL: HeaderName = HeaderName::from_static("toolyard-call");

/// On a refusal of the DTMA API: the message certainly did not reach its server. [`STOPPING`] when the instance takes
/// no more calls, anything else when it may take some again.
pub const UNDELIVERED: HeaderName = HeaderName::from_static("toolyard-undelivered");

/// See [`UNDELIVERED`].
pub const STOPPING: &str = "stopping";

/// How often a call is tried in all.
pub const ATTEMPTS: u32 = 3;
/// After so many calls in a row without an answer the breaker opens.
pub const THRESHOLD: u32 = 5;
/// How long a call without a deadline of its own waits for the beginning of its answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// The peer ends a call at its deadline by itself; only one that is gone does not.
const GRACE: Duration = Duration::from_secs(1);
/// The pauses of an open breaker: the first, and the longest.
const OPEN_FOR: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Retries that a peer which was never asked before allows, and which it can save up.
const BUDGET: f64 = 10.0;
const BUDGET_PER_CALL: f64 = 0.1;

pub(crate) fn describe_metrics() {
    metrics::describe_gauge!("toolyard_link_breaker_open", "1 while calls to a peer fail at once, else 0.");
    metrics::describe_counter!(
        "toolyard_link_breaker_opened_total",
        "How often calls to a peer began to fail at once."
    );
    metrics::describe_counter!("toolyard_link_retries_total", "Calls to a peer that were made again.");
}

/// Put into a request that may be made twice: its whole body, for the second time.
#[derive(Clone, Debug)]
pub struct Repeatable(pub Bytes);

/// A request that may be made twice.
#[must_use]
pub fn repeatable(request: Request<Bytes>) -> Request<Body> {
    let (mut parts, body) = request.into_parts();
    parts.extensions.insert(Repeatable(body.clone()));
    Request::from_parts(parts, Body::from(body))
}

/// What is remembered of one peer between calls.
#[derive(Debug)]
pub struct Peer {
    name: String,
    /// Whether calls that fail may end the waiting of others.
    breaks: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    failures: u32,
    /// When a call may be let through again; none while the breaker is closed.
    open_until: Option<Instant>,
    open_for: Duration,
    /// Whether a call that was let through is under way.
    trying: bool,
    budget: f64,
}

/// How calls to a peer fare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerHealth {
    /// Whether calls are let through.
    pub breaker: BreakerState,
    /// How many calls in a row got no answer.
    pub failures: u32,
    /// How long until a call is let through again, while the breaker is open.
    pub retry_in: Option<Duration>,
}

impl Peer {
    /// A peer that was never asked.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Arc<Self> {
        Self::make(name.into(), true)
    }

    /// A peer whose only caller waits between its calls by itself, so that there is nothing to break.
    #[must_use]
    pub fn without_breaker(name: impl Into<String>) -> Arc<Self> {
        Self::make(name.into(), false)
    }

    fn make(name: String, breaks: bool) -> Arc<Self> {
        let state = State { failures: 0, open_until: None, open_for: OPEN_FOR.0, trying: false, budget: BUDGET };
        Arc::new(Self { name, breaks, state: Mutex::new(state) })
    }

    /// How calls to it fare.
    #[must_use]
    pub fn health(&self) -> PeerHealth {
        let state = self.locked();
        let wait = state.open_until.map(|until| until.saturating_duration_since(Instant::now()));
        let breaker = match wait {
            None => BreakerState::Closed,
            Some(wait) if wait.is_zero() || state.trying => BreakerState::HalfOpen,
            Some(_) => BreakerState::Open,
        };
        PeerHealth { breaker, failures: state.failures, retry_in: wait.filter(|_| breaker == BreakerState::Open) }
    }

    /// Forgets what was: it is reached in another way from now on.
    pub(crate) fn reset(&self) {
        let mut state = self.locked();
        (state.failures, state.open_until, state.open_for, state.trying) = (0, None, OPEN_FOR.0, false);
        drop(state);
        self.measure(BreakerState::Closed);
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        // Nothing that holds it can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(self: &Arc<Self>) -> Result<Attempt, LinkError> {
        let mut state = self.locked();
        state.budget = (state.budget + BUDGET_PER_CALL).min(BUDGET);
        let probing = match state.open_until {
            None => false,
            Some(until) if Instant::now() >= until && !state.trying => {
                state.trying = true;
                true
            }
            Some(_) => return Err(LinkError::Broken(self.name.clone())),
        };
        Ok(Attempt { peer: self.clone(), probing, settled: false, began: Instant::now() })
    }

    fn may_retry(&self) -> bool {
        let mut state = self.locked();
        let may = state.open_until.is_none() && state.budget >= 1.0;
        if may {
            state.budget -= 1.0;
        }
        may
    }

    fn answered(&self) {
        let mut state = self.locked();
        let recovered = state.open_until.is_some();
        state.failures = 0;
        if recovered {
            (state.open_until, state.open_for, state.trying) = (None, OPEN_FOR.0, false);
            drop(state);
            tracing::info!(peer = self.name, "calls are let through again");
            self.measure(BreakerState::Closed);
        }
    }

    fn failed(&self) {
        let mut state = self.locked();
        state.failures = state.failures.saturating_add(1);
        let was_open = state.open_until.is_some();
        if !self.breaks || (!was_open && state.failures < THRESHOLD) {
            return;
        }
        // A call that began before the breaker opened and fails now tells nothing new.
        if was_open && !state.trying {
            return;
        }
        let pause = state.open_for;
        state.open_until = Some(Instant::now() + pause);
        state.open_for = (pause * 2).min(OPEN_FOR.1);
        state.trying = false;
        drop(state);
        if !was_open {
            tracing::warn!(peer = self.name, "several calls in a row got no answer; calls fail at once for a while");
            metrics::counter!("toolyard_link_breaker_opened_total", "peer" => self.name.clone()).increment(1);
            self.measure(BreakerState::Open);
        }
    }

    fn measure(&self, breaker: BreakerState) {
        let open = if breaker == BreakerState::Closed { 0.0 } else { 1.0 };
        metrics::gauge!("toolyard_link_breaker_open", "peer" => self.name.clone()).set(open);
    }
}

/// A call that was let through. Given up by its caller it tells nothing, and lets another one try.
struct Attempt {
    peer: Arc<Peer>,
    probing: bool,
    settled: bool,
    began: Instant,
}

impl Attempt {
    fn settle(mut self, answered: bool) {
        self.settled = true;
        if answered { self.peer.answered() } else { self.peer.failed() }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        tracing::trace!(peer = self.peer.name, took_ms = self.began.elapsed().as_millis(), "a call was given up");
        if self.probing {
            self.peer.locked().trying = false;
        }
    }
}

/// Puts the stack around a channel to `peer`.
#[must_use]
pub fn through(channel: Channel, peer: Arc<Peer>) -> Channel {
    BoxCloneSyncService::new(tower::service_fn(move |request: Request<Body>| {
        let (channel, peer) = (channel.clone(), peer.clone());
        call(channel, peer, request)
    }))
}

async fn call(channel: Channel, peer: Arc<Peer>, request: Request<Body>) -> Result<Response<Body>, LinkError> {
    let trace = Trace::current();
    let (mut parts, body) = request.into_parts();
    trace.write(&mut parts.headers);
    let again = match parts.extensions.get::<Repeatable>() {
        Some(Repeatable(body)) => Some(body.clone()),
        None if parts.method.is_safe() => Some(Bytes::new()),
        None => None,
    };
    let limit = deadline(&parts.headers).map_or(PATIENCE, |deadline| deadline.saturating_add(GRACE));
    let until = Instant::now() + limit;
    let mut body = Some(body);
    for attempt in 1.. {
        let mut next = Request::new(body.take().or_else(|| again.clone().map(Body::from)).unwrap_or_default());
        *next.method_mut() = parts.method.clone();
        *next.uri_mut() = parts.uri.clone();
        *next.headers_mut() = parts.headers.clone();
        let answer = once(&channel, &peer, next, until).await;
        let failure = match &answer {
            Ok(response) if !is_a_proxys(response) => return answer,
            Ok(response) => response.status().to_string(),
            Err(LinkError::Broken(_) | LinkError::NoLink(_)) => return answer,
            Err(error) => error.to_string(),
        };
        let path = parts.uri.path();
        tracing::debug!(
            request.id = trace.request_id(),
            peer = peer.name,
            attempt,
            "{} {path}: {failure}",
            parts.method
        );
        let pause = FIRST_PAUSE.saturating_mul(1 << (attempt - 1).min(6)).mul_f64(rand::random_range(0.5..1.5));
        if again.is_none() || attempt >= ATTEMPTS || Instant::now() + pause >= until || !peer.may_retry() {
            return answer;
        }
        metrics::counter!("toolyard_link_retries_total", "peer" => peer.name.clone()).increment(1);
        tokio::time::sleep(pause).await;
    }
    unreachable!("the loop ends with its last attempt")
}

async fn once(
    channel: &Channel,
    peer: &Arc<Peer>,
    request: Request<Body>,
    until: Instant,
) -> Result<Response<Body>, LinkError> {
    let admitted = peer.admit()?;
    match tokio::time::timeout_at(until, channel.clone().oneshot(request)).await {
        Ok(Ok(response)) => {
            admitted.settle(!is_a_proxys(&response));
            Ok(response)
        }
        // Whoever has no link knows that, and a new link starts afresh.
        Ok(Err(error @ LinkError::NoLink(_))) => Err(error),
        Ok(Err(error)) => {
            admitted.settle(false);
            Err(error)
        }
        Err(_) => {
            admitted.settle(false);
            Err(LinkError::Timeout(peer.name.clone()))
        }
    }
}

fn deadline(headers: &http::HeaderMap) -> Option<Duration> {
    headers.get(&DEADLINE)?.to_str().ok()?.parse().ok().map(Duration::from_millis)
}

/// Whether an answer is not our part's own: ours says what is wrong in a problem document.
fn is_a_proxys(response: &Response<Body>) -> bool {
    let unavailable = matches!(
        response.status(),
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
    );
    let kind = response.headers().get(header::CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    unavailable && !kind.starts_with(b"application/problem+json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A peer that answers as `answers` says to the n-th call.
    fn peer(answers: fn(u32) -> StatusCode) -> (Channel, Arc<AtomicU32>, Arc<Peer>) {
        let calls = Arc::new(AtomicU32::new(0));
        let counted = calls.clone();
        let handler = move || {
            let counted = counted.clone();
            async move { answers(counted.fetch_add(1, Ordering::SeqCst) + 1) }
        };
        let router = axum::Router::new().fallback(handler);
        let peer = Peer::new("it");
        (through(crate::in_process(router), peer.clone()), calls, peer)
    }

    fn get() -> Request<Body> {
        Request::get("/v1/thing?secret=1").body(Body::empty()).expect("a request")
    }

    fn post() -> Request<Body> {
        Request::post("/v1/thing").body(Body::from("x")).expect("a request")
    }

    #[tokio::test(start_paused = true)]
    async fn two_answers_of_a_proxy_and_then_the_peers_are_exactly_three_calls() {
        let (channel, calls, _) = peer(|n| if n <= 2 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK });
        let answer = channel.oneshot(get()).await.expect("an answer");
        assert_eq!((answer.status(), calls.load(Ordering::SeqCst)), (StatusCode::OK, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_must_not_be_made_twice_is_not_unless_its_caller_says_that_it_may() {
        let (channel, calls, _) = peer(|_| StatusCode::BAD_GATEWAY);
        let answer = channel.clone().oneshot(post()).await.expect("an answer");
        assert_eq!((answer.status(), calls.load(Ordering::SeqCst)), (StatusCode::BAD_GATEWAY, 1));
        let request = repeatable(Request::post("/").body(Bytes::from("x")).expect("a request"));
        channel.oneshot(request).await.expect("an answer");
        assert_eq!(calls.load(Ordering::SeqCst), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn the_breaker_opens_fails_at_once_and_recovers_with_the_first_answer() {
        let (channel, calls, peer) = peer(|n| if n <= 6 { StatusCode::BAD_GATEWAY } else { StatusCode::OK });
        for _ in 0..THRESHOLD {
            channel.clone().oneshot(post()).await.expect("an answer");
        }
        assert_eq!(peer.health().breaker, BreakerState::Open);
        let before = Instant::now();
        let refused = channel.clone().oneshot(post()).await;
        assert!(matches!(refused, Err(LinkError::Broken(_))) && before.elapsed() < Duration::from_millis(50));
        assert_eq!(calls.load(Ordering::SeqCst), THRESHOLD);
        // The first that is let through fails too: the pause doubles.
        tokio::time::advance(OPEN_FOR.0).await;
        assert_eq!(peer.health().breaker, BreakerState::HalfOpen);
        channel.clone().oneshot(post()).await.expect("a proxy's answer");
        tokio::time::advance(OPEN_FOR.0).await;
        assert_eq!(peer.health().breaker, BreakerState::Open);
        tokio::time::advance(OPEN_FOR.0).await;
        assert_eq!(channel.clone().oneshot(post()).await.expect("an answer").status(), StatusCode::OK);
        assert_eq!((peer.health().breaker, peer.health().failures), (BreakerState::Closed, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn retries_end_when_the_budget_is_spent() {
        let (channel, calls, peer) = peer(|n| if n % 3 == 0 { StatusCode::OK } else { StatusCode::BAD_GATEWAY });
        for _ in 0..5 {
            channel.clone().oneshot(get()).await.expect("an answer");
        }
        assert_eq!(calls.load(Ordering::SeqCst), 15, "two retries each");
        assert!(peer.locked().budget < 2.0, "and they were paid for");
        channel.clone().oneshot(get()).await.expect("an answer");
        channel.clone().oneshot(get()).await.expect("an answer");
        assert!(calls.load(Ordering::SeqCst) < 21);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_never_answers_is_given_up_at_the_deadline_and_that_counts() {
        let router = axum::Router::new().fallback(std::future::pending::<StatusCode>);
        let peer = Peer::new("it");
        let channel = through(crate::in_process(router), peer.clone());
        let mut request = post();
        request.headers_mut().insert(DEADLINE, 200.into());
        let before = Instant::now();
        let answer = channel.clone().oneshot(request).await;
        assert!(matches!(answer, Err(LinkError::Timeout(_))) && before.elapsed() < Duration::from_secs(2));
        assert_eq!(peer.health().failures, 1);
        let given_up = tokio::time::timeout(Duration::from_millis(10), channel.oneshot(post())).await;
        assert!(given_up.is_err());
        assert_eq!(peer.health().failures, 1, "a caller that goes away tells nothing");
    }

    #[tokio::test]
    async fn a_problem_of_our_own_is_an_answer_and_every_call_carries_its_trace() {
        let router = axum::Router::new().fallback(|headers: http::HeaderMap| async move {
            assert!(headers.contains_key(crate::trace::REQUEST_ID) && headers.contains_key(crate::trace::TRACEPARENT));
            (StatusCode::SERVICE_UNAVAILABLE, [(header::CONTENT_TYPE, "application/problem+json")], "{}")
        });
        let peer = Peer::new("it");
        let channel = through(crate::in_process(router), peer.clone());
        for _ in 0..10 {
            channel.clone().oneshot(get()).await.expect("an answer");
        }
        assert_eq!((peer.health().breaker, peer.health().failures), (BreakerState::Closed, 0));
    }
}
