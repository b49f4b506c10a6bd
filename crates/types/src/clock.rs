//! The clock, injected so that tests own time.

use crate::Timestamp;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// Tells the time. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<AtomicI64>>);

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that stands still until stepped with [`Clock::step_ms`]. For tests.
    #[must_use]
    pub fn stopped_at(at: Timestamp) -> Self {
        Self(Some(Arc::new(AtomicI64::new(at.as_ms()))))
    }

    /// Moves a stopped clock forward; does nothing to the machine's clock.
    pub fn step_ms(&self, ms: i64) {
        if let Some(at) = &self.0 {
            at.fetch_add(ms, Ordering::SeqCst);
        }
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Some(at) => Timestamp::from_ms(at.load(Ordering::SeqCst)),
            None => Timestamp::from_ms(system_ms()),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
fn system_ms() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_millis()).ok())
        .unwrap_or(0)
}
