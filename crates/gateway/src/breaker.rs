//! A breaker for each remote server: after several calls in a row without an answer calls fail at once, and one is let
//! through now and then until the server answers again.
//!
//! Any answer closes it, also one that says no. It never waits for the call that it let through: a slow tool is no
//! reason to refuse the next trial.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// After so many calls in a row without an answer it opens.
pub(crate) const THRESHOLD: u32 = 5;
/// The pauses between calls that are let through: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

#[derive(Debug)]
pub(crate) struct Breaker {
    began: Instant,
    failures: AtomicU32,
    /// When the next call is let through, in milliseconds from `began`.
    next_ms: AtomicU64,
}

impl Breaker {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), failures: AtomicU32::new(0), next_ms: AtomicU64::new(0) }
    }

    /// Lets a call through, or says how long until one will be.
    pub(crate) fn admit(&self) -> Result<(), Duration> {
        let failures = self.failures.load(Ordering::Acquire);
        if failures < THRESHOLD {
            return Ok(());
        }
        let (now, next) = (self.now_ms(), self.next_ms.load(Ordering::Acquire));
        let after = now.saturating_add(millis(pause(failures)));
        let mine =
            now >= next && self.next_ms.compare_exchange(next, after, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if mine { Ok(()) } else { Err(Duration::from_millis(next.saturating_sub(now).max(1))) }
    }

    /// A call was answered. True when calls failed at once until now.
    pub(crate) fn answered(&self) -> bool {
        if self.failures.load(Ordering::Relaxed) == 0 {
            return false;
        }
        self.failures.swap(0, Ordering::AcqRel) >= THRESHOLD
    }

    /// A call got no answer. True when calls fail at once from now on.
    pub(crate) fn failed(&self) -> bool {
        let failures = self.failures.fetch_add(1, Ordering::AcqRel).saturating_add(1);
        if failures >= THRESHOLD {
            let next = self.now_ms().saturating_add(millis(pause(failures)));
            self.next_ms.fetch_max(next, Ordering::AcqRel);
        }
        failures == THRESHOLD
    }

    fn now_ms(&self) -> u64 {
        millis(self.began.elapsed())
    }
}

fn pause(failures: u32) -> Duration {
    PAUSES.0.saturating_mul(1 << failures.saturating_sub(THRESHOLD).min(6)).min(PAUSES.1)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_opens_after_failures_in_a_row_lets_one_through_and_closes_with_an_answer() {
        let breaker = Breaker::new();
        for _ in 1..THRESHOLD {
            assert!(breaker.admit().is_ok() && !breaker.failed());
        }
        assert!(!breaker.answered(), "one answer and the row begins again");
        for _ in 1..THRESHOLD {
            assert!(!breaker.failed());
        }
        assert!(breaker.failed());
        assert!(breaker.admit().is_err());
        tokio::time::advance(PAUSES.0).await;
        assert!(breaker.admit().is_ok() && breaker.admit().is_err(), "one trial, whatever becomes of it");
        tokio::time::advance(PAUSES.1).await;
        assert!(breaker.admit().is_ok());
        assert!(breaker.answered());
        assert!(breaker.admit().is_ok() && breaker.admit().is_ok());
    }
}
