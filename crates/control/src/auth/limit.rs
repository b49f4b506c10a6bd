//! Rate limits of what strangers may do: sign-in, per e-mail address and for all together; reports of browsers.
//!
//! Failures of one address are counted in a window; a sign-in that succeeds forgets them. The global limit
//! bounds the Argon2 work that strangers can cause. Both live in memory, per replica: what they protect is the
//! replica's own processor and the time of a guesser, and both scale with replicas.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use toolyard_types::{Clock, Timestamp};

use crate::{ControlError, Result};

const WINDOW: Duration = Duration::from_secs(60);
const PER_EMAIL: u32 = 5;
const IN_ALL: u32 = 120;
/// Addresses remembered at most; when full, those whose window has passed are forgotten first, then all:
/// the global limit still holds.
const REMEMBERED: usize = 4096;

pub(crate) struct SignInLimit {
    clock: Clock,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    all: Window,
    by_key: HashMap<String, Window>,
}

#[derive(Clone, Copy, Default)]
struct Window {
    since: Timestamp,
    count: u32,
}

impl Window {
    /// Counts one more; tells how long to wait when there were too many.
    fn take(&mut self, now: Timestamp, most: u32) -> Option<Duration> {
        let age = now.since(self.since);
        if age >= WINDOW {
            *self = Self { since: now, count: 0 };
        }
        if self.count >= most {
            return Some(WINDOW.saturating_sub(age).max(Duration::from_secs(1)));
        }
        self.count += 1;
        None
    }
}

impl SignInLimit {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, counts: Mutex::default() }
    }

    /// Counts an attempt.
    ///
    /// # Errors
    /// `rate_limited` with the time to wait.
    pub(crate) fn attempt(&self, email: &str) -> Result<()> {
        let now = self.clock.now();
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.by_key.len() >= REMEMBERED {
            counts.by_key.retain(|_, window| now.since(window.since) < WINDOW);
        }
        if counts.by_key.len() >= REMEMBERED {
            counts.by_key.clear();
        }
        let key: String = email.chars().take(320).collect::<String>().to_lowercase();
        let wait = counts.by_key.entry(key).or_default().take(now, PER_EMAIL);
        match wait.or_else(|| counts.all.take(now, IN_ALL)) {
            Some(retry_after) => Err(ControlError::RateLimited { retry_after }),
            None => Ok(()),
        }
    }

    /// Forgets the attempts of an address, because one succeeded.
    pub(crate) fn succeeded(&self, email: &str) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.by_key.remove(&email.to_lowercase());
    }
}

const REPORTS_PER_SESSION: u32 = 60;
const REPORTS_OF_STRANGERS: u32 = 120;

/// Rate limit of what browsers report about the console: per session, and for all strangers together. Toolyard does not
/// know a stranger's address behind a proxy, so it does not count by it.
pub(crate) struct ReportLimit {
    clock: Clock,
    counts: Mutex<Counts>,
}

impl ReportLimit {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, counts: Mutex::default() }
    }

    /// Counts a batch of a session, or of a stranger.
    ///
    /// # Errors
    /// `rate_limited` with the time to wait.
    pub(crate) fn attempt(&self, session: Option<&str>) -> Result<()> {
        let now = self.clock.now();
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.by_key.len() >= REMEMBERED {
            counts.by_key.retain(|_, window| now.since(window.since) < WINDOW);
        }
        if counts.by_key.len() >= REMEMBERED {
            counts.by_key.clear();
        }
        let wait = match session {
            Some(session) => counts.by_key.entry(session.to_owned()).or_default().take(now, REPORTS_PER_SESSION),
            None => counts.all.take(now, REPORTS_OF_STRANGERS),
        };
        wait.map_or(Ok(()), |retry_after| Err(ControlError::RateLimited { retry_after }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sixth_attempt_in_a_minute_waits_and_another_address_does_not() {
        let clock = Clock::stopped_at(Timestamp::from_ms(1_000_000));
        let limit = SignInLimit::new(clock.clone());
        for _ in 0..5 {
            limit.attempt("a@example.test").unwrap();
        }
        let refused = limit.attempt("A@example.test").unwrap_err();
        assert!(matches!(refused, ControlError::RateLimited { retry_after } if retry_after == WINDOW));
        limit.attempt("b@example.test").unwrap();
        clock.step_ms(60_000);
        limit.attempt("a@example.test").unwrap();
    }

    #[test]
    fn many_addresses_together_are_limited_too() {
        let limit = SignInLimit::new(Clock::stopped_at(Timestamp::from_ms(1_000_000)));
        let refused = (0..200).filter(|n| limit.attempt(&format!("{n}@example.test")).is_err()).count();
        assert_eq!(refused, 80);
    }
}
