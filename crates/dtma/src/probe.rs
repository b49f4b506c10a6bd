//! How a server is asked: once whether it is ready, then again and again whether it still answers.
//!
//! How often depends on what is known. Soon after it got ready and while it fails, every [`QUICK`]; while clients
//! call it, every [`CALLED`], and at once when their calls wait in silence; else ever more seldom, up to [`QUIET`].
//! So a thousand quiet ones cost nothing.
//!
//! One question is open at a time: what was not answered is waited for again, and never cancelled. A server that is
//! silent while it has calls is [`Sign::Busy`], for as long as a call may take; one that is silent without is hanging.
//! One that hangs for long enough is told apart by [`Health::hung_for`]: it is ended and started again.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Instant;
use toolyard_mcp::era::Handshake;
use toolyard_mcp::stdio::{Asked, CallError, Connection, HandshakeError};
use toolyard_types::agent::{Era, Failure, McpInfo};
use toolyard_types::spec::{ProbeCall, RevisionSpec};
use toolyard_types::state::Reason;

/// Longest wait for one sign of life.
const TIMEOUT: Duration = Duration::from_millis(2500);
const QUICK: Duration = Duration::from_secs(2);
const CALLED: Duration = Duration::from_secs(4);
const QUIET: Duration = Duration::from_secs(30);
/// How long after it got ready a server is asked quickly.
const NEW_FOR: Duration = Duration::from_secs(30);
/// How often one looks whether calls wait in silence, and how long they may.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const SILENCE: Duration = Duration::from_secs(1);
const UNHEALTHY_AFTER: u32 = 3;
const HEALTHY_AFTER: u32 = 2;
/// A question that is older, whose server has been heard since, was lost.
const LOST_AFTER: Duration = Duration::from_secs(30);
/// JSON-RPC: the method does not exist. A server without tools may say so.
const METHOD_NOT_FOUND: i64 = -32601;

/// Why a server is not ready.
pub(crate) enum NotReady {
    /// It closed its output.
    Closed,
    /// It did not get through the handshake; asked otherwise, it may.
    Unspoken(Failure),
    /// It answered wrongly, or not at all.
    Failed(Failure),
}

impl NotReady {
    fn because(reason: Reason, message: impl Into<String>) -> Self {
        Self::Failed(crate::packages::failure(reason, message))
    }
}

/// What a server that is ready said of itself.
pub(crate) struct Ready {
    pub(crate) handshake: Handshake,
    /// How many tools it listed.
    pub(crate) tools: u32,
    /// Their names, bounded.
    pub(crate) tool_names: Vec<String>,
}

/// Handshake, tools, and the probe call if the revision has one; all within the revision's start timeout.
///
/// # Errors
/// When it is not ready then.
pub(crate) async fn probe(
    connection: Connection,
    spec: RevisionSpec,
    known_era: Option<Era>,
) -> Result<Ready, NotReady> {
    let limit = Duration::from_millis(spec.start_timeout_ms);
    let deadline = Instant::now() + limit;
    let left = || deadline.saturating_duration_since(Instant::now());
    let too_late = |what: &str| {
        crate::packages::failure(
            Reason::StartTimeout,
            format!("it did not answer {what} within {} ms", limit.as_millis()),
        )
    };
    let handshake = connection.handshake(known_era, limit).await.map_err(|error| match error {
        HandshakeError::Closed => NotReady::Closed,
        HandshakeError::Timeout(_) => NotReady::Unspoken(too_late("the handshake")),
        HandshakeError::NotMcp { .. } => NotReady::because(Reason::HandshakeFailed, error.to_string()),
        other => NotReady::Unspoken(crate::packages::failure(Reason::HandshakeFailed, other.to_string())),
    })?;
    let tools = match connection.list_tools(left()).await {
        Ok(tools) => tools,
        Err(CallError::Server { code: METHOD_NOT_FOUND, .. }) => Vec::new(),
        Err(CallError::Closed | CallError::Ended) => return Err(NotReady::Closed),
        Err(CallError::Timeout(_)) => return Err(NotReady::Failed(too_late("tools/list"))),
        Err(error) => return Err(NotReady::because(Reason::HandshakeFailed, format!("tools/list: {error}"))),
    };
    if let Some(call) = &spec.probe_call {
        probe_call(&connection, call, left(), limit).await?;
    }
    Ok(Ready { handshake, tools: u32::try_from(tools.len()).unwrap_or(u32::MAX), tool_names: names(&tools) })
}

async fn probe_call(
    connection: &Connection,
    call: &ProbeCall,
    left: Duration,
    limit: Duration,
) -> Result<(), NotReady> {
    let tool = toolyard_types::name::printable(&call.tool);
    let failed = |how: String| NotReady::because(Reason::ProbeFailed, format!("the probe call of `{tool}` {how}"));
    let params = serde_json::json!({ "name": call.tool, "arguments": call.arguments }).to_string();
    match connection.request("tools/call", Some(Bytes::from(params)), left).await {
        Ok(result) if is_error(&result) => Err(failed("failed".to_owned())),
        Ok(_) => Ok(()),
        Err(CallError::Closed | CallError::Ended) => Err(NotReady::Closed),
        Err(CallError::Timeout(_)) => {
            Err(failed(format!("was not answered within the {} ms the server has to get ready", limit.as_millis())))
        }
        Err(error) => Err(failed(format!("failed: {error}"))),
    }
}

fn is_error(result: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct ToolResult {
        #[serde(rename = "isError", default)]
        is_error: bool,
    }
    serde_json::from_slice::<ToolResult>(result).is_ok_and(|result| result.is_error)
}

/// The names of listed tools, so many and so long as are told.
fn names(tools: &[Box<RawValue>]) -> Vec<String> {
    #[derive(Deserialize)]
    struct Named {
        name: String,
    }
    let named = tools.iter().filter_map(|tool| serde_json::from_str::<Named>(tool.get()).ok());
    named
        .map(|tool| tool.name.chars().take(McpInfo::LONGEST_TOOL_NAME).collect())
        .take(McpInfo::MOST_TOOL_NAMES)
        .collect()
}

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// It answered.
    Answered,
    /// It did not answer, and has calls that it may be held up by.
    Busy,
    /// It did not answer.
    Silent,
}

/// When a check is made, and what is known before it.
#[derive(Debug)]
pub(crate) struct Check {
    /// How long to wait first.
    pub(crate) pause: Duration,
    /// A question that was not answered yet.
    pub(crate) open: Option<Asked>,
    /// How long a call may take.
    pub(crate) longest_call: Duration,
}

/// Waits for a sign of life; gives what was found and the question that is still open.
pub(crate) async fn check(connection: Connection, check: Check) -> (Sign, Option<Asked>) {
    let Check { pause, open, longest_call } = check;
    let lost = |asked: &Asked| asked.age() >= LOST_AFTER && connection.unheard_for() < asked.age();
    let mut asked = match open.filter(|asked| !lost(asked)) {
        Some(asked) => asked,
        None => {
            wait(&connection, pause).await;
            match ask(&connection) {
                Ok(asked) => asked,
                Err(_) => return (unanswered(&connection, longest_call, Instant::now()).await, None),
            }
        }
    };
    let began = Instant::now();
    match tokio::time::timeout(TIMEOUT, asked.result()).await {
        Ok(Ok(_) | Err(CallError::Server { .. })) => (Sign::Answered, None),
        Ok(Err(_)) => (unanswered(&connection, longest_call, began).await, None),
        // What was heard meanwhile was no answer to this; silence is counted from there.
        Err(_) => match tokio::time::timeout(TIMEOUT.saturating_sub(connection.unheard_for()), asked.result()).await {
            Ok(Ok(_) | Err(CallError::Server { .. })) => (Sign::Answered, None),
            _ => (silence(&connection, longest_call), Some(asked)),
        },
    }
}

/// Waits `pause`, or until calls wait in silence.
async fn wait(connection: &Connection, pause: Duration) {
    let began = Instant::now();
    let due = began + pause.mul_f64(rand::random_range(0.8..1.2));
    while Instant::now() < due {
        tokio::time::sleep_until(due.min(Instant::now() + LOOK_EVERY)).await;
        // Not more often than quickly, however many calls take their time.
        let hurry = connection.activity().silent_for.is_some_and(|silent| silent >= SILENCE);
        if hurry && began.elapsed() >= QUICK {
            break;
        }
    }
}

fn ask(connection: &Connection) -> Result<Asked, CallError> {
    let modern = connection.handshake_result().is_some_and(|handshake| handshake.era == Era::Modern);
    connection.begin_request(if modern { "tools/list" } else { "ping" }, None)
}

/// A connection that cannot be asked at all says so at once.
async fn unanswered(connection: &Connection, longest_call: Duration, began: Instant) -> Sign {
    tokio::time::sleep_until(began + QUICK).await;
    silence(connection, longest_call)
}

/// What it means that a server did not answer.
fn silence(connection: &Connection, longest_call: Duration) -> Sign {
    match connection.activity().busy_for {
        Some(busy) if busy < longest_call => Sign::Busy,
        _ => Sign::Silent,
    }
}

/// Counts answers to checks and says when to ask again.
#[derive(Debug)]
pub(crate) struct Health {
    ready_at: Instant,
    in_a_row: u32,
    last: bool,
    degraded: bool,
    quiet: Duration,
    /// How many calls had been made at the last check.
    calls: u64,
    /// Since when no check was answered, those that calls may have held up among them.
    unanswered_since: Option<Instant>,
    /// How long it may hang while it has no calls.
    hang_wait: Duration,
}

impl Health {
    /// Of a server that has just answered, which may hang for `hang_wait` while it has no calls.
    pub(crate) fn new(hang_wait: Duration) -> Self {
        Self {
            ready_at: Instant::now(),
            in_a_row: 0,
            last: true,
            degraded: false,
            quiet: QUICK,
            calls: 0,
            unanswered_since: None,
            hang_wait,
        }
    }

    /// Notes what a check found; says so when the verdict changes.
    pub(crate) fn note(&mut self, sign: Sign) -> Option<bool> {
        let healthy = sign == Sign::Answered;
        if healthy {
            self.unanswered_since = None;
        } else {
            self.unanswered_since.get_or_insert_with(Instant::now);
        }
        // No verdict: only that it answers, or that it is silent without calls, says how it is.
        if sign == Sign::Busy {
            return None;
        }
        self.in_a_row = if healthy == self.last { self.in_a_row.saturating_add(1) } else { 1 };
        self.last = healthy;
        let turned = match self.degraded {
            true => healthy && self.in_a_row >= HEALTHY_AFTER,
            false => !healthy && self.in_a_row >= UNHEALTHY_AFTER,
        };
        self.degraded ^= turned;
        turned.then_some(healthy)
    }

    /// For how long it has hung, once that is so long that it will not come back by itself.
    ///
    /// `unheard` is for how long it has sent nothing at all: what still sends messages is at work. While `busy`, calls may
    /// be what it is at, for as long as a call may take. That is never less than without: who calls a server must not
    /// have it ended sooner.
    pub(crate) fn hung_for(&self, unheard: Duration, busy: bool, longest_call: Duration) -> Option<Duration> {
        let silence = self.unanswered_since?.elapsed().min(unheard);
        let enough = if busy { self.hang_wait.max(longest_call) } else { self.hang_wait };
        (self.degraded && silence >= enough).then_some(silence)
    }

    /// Counts silence anew: it was not the server's own.
    pub(crate) fn excuse(&mut self) {
        self.unanswered_since = None;
    }

    /// How many checks in a row failed.
    pub(crate) fn failures(&self) -> u32 {
        if self.last { 0 } else { self.in_a_row }
    }

    /// How long to wait before the next check, when callers have made so many calls in all.
    pub(crate) fn pause(&mut self, calls: u64) -> Duration {
        let called = std::mem::replace(&mut self.calls, calls) != calls;
        if !self.last {
            // The wait for the answer that did not come was long enough.
            return Duration::ZERO;
        }
        if self.degraded || self.ready_at.elapsed() < NEW_FOR {
            self.quiet = QUICK;
        } else {
            self.quiet = if called { CALLED } else { self.quiet.mul_f64(1.5).min(QUIET) };
        }
        self.quiet
    }
}

#[cfg(test)]
mod tests {
    use super::Sign::{Answered, Busy, Silent};
    use super::*;

    const HANG_WAIT: Duration = Duration::from_secs(60);

    #[test]
    fn three_silences_degrade_and_two_answers_repair() {
        let mut health = Health::new(HANG_WAIT);
        assert_eq!([Silent, Silent, Busy, Silent].map(|sign| health.note(sign)), [None, None, None, Some(false)]);
        assert_eq!(
            [Answered, Silent, Answered, Answered].map(|sign| health.note(sign)),
            [None, None, None, Some(true)]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_has_hung_once_it_was_silent_for_long_enough_and_checked_three_times() {
        let (call, forever) = (HANG_WAIT * 5, Duration::from_secs(1 << 20));
        let mut health = Health::new(HANG_WAIT);
        health.note(Silent);
        tokio::time::advance(HANG_WAIT).await;
        health.note(Silent);
        assert_eq!(health.hung_for(forever, false, call), None, "two checks are too few");
        health.note(Silent);
        assert_eq!(health.hung_for(forever, false, call), Some(HANG_WAIT));
        assert_eq!(health.hung_for(TIMEOUT, false, call), None, "it still sends messages");
        assert_eq!(health.hung_for(forever, true, call), None, "calls may hold it up");
        tokio::time::advance(call - HANG_WAIT).await;
        assert_eq!(health.hung_for(forever, true, call), Some(call), "no call takes so long");
        health.note(Answered);
        health.note(Silent);
        assert_eq!(health.hung_for(forever, false, call), None, "it answered in between");
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_may_take_little_do_not_have_a_server_ended_sooner_and_a_silent_engine_does_not_count() {
        let mut health = Health::new(HANG_WAIT);
        for _ in 0..3 {
            health.note(Silent);
        }
        tokio::time::advance(HANG_WAIT / 2).await;
        assert_eq!(health.hung_for(HANG_WAIT, true, TIMEOUT), None);
        health.excuse();
        tokio::time::advance(HANG_WAIT / 2).await;
        health.note(Silent);
        assert_eq!(health.hung_for(HANG_WAIT, true, TIMEOUT), None);
        tokio::time::advance(HANG_WAIT).await;
        assert_eq!(health.hung_for(HANG_WAIT * 2, true, TIMEOUT), Some(HANG_WAIT));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_is_asked_often_while_it_is_new_called_or_failing_and_seldom_while_it_is_quiet() {
        let mut health = Health::new(HANG_WAIT);
        health.note(Answered);
        assert_eq!(health.pause(0), QUICK);
        tokio::time::advance(NEW_FOR).await;
        let quiet: Vec<_> = (0..8).map(|_| health.pause(0)).collect();
        assert!(quiet.is_sorted() && quiet.last() == Some(&QUIET), "{quiet:?}");
        assert_eq!(health.pause(1), CALLED);
        health.note(Silent);
        assert_eq!(health.pause(2), Duration::ZERO);
        // While nobody calls it, it is known to hang after the pause and three silences.
        assert!(CALLED.mul_f64(1.2) + TIMEOUT * UNHEALTHY_AFTER < Duration::from_secs(13));
        assert!(QUICK + LOOK_EVERY + TIMEOUT * UNHEALTHY_AFTER <= Duration::from_secs(10));
    }

    #[test]
    fn names_are_bounded_and_what_has_none_is_left_out() {
        let raw = |text: String| RawValue::from_string(text).expect("JSON");
        let long = "x".repeat(500);
        let tools = [raw(r#"{"name":"a"}"#.into()), raw("{}".into()), raw(format!(r#"{{"name":"{long}"}}"#))];
        assert_eq!(names(&tools), ["a".to_owned(), long[..McpInfo::LONGEST_TOOL_NAME].to_owned()]);
        let many: Vec<_> = (0..3000).map(|n| raw(format!(r#"{{"name":"t{n}"}}"#))).collect();
        assert_eq!(names(&many).len(), McpInfo::MOST_TOOL_NAMES);
    }
}
