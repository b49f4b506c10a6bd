//! Why a call is given up, as its server is told.

use std::sync::{Arc, OnceLock};

/// The longest reason that is passed on, in characters.
const MAX_REASON_CHARS: usize = 500;

/// Why a call is given up, when somebody says it before the call is dropped. Cheap to clone: what is said of one is said of
/// all.
#[derive(Clone, Debug, Default)]
pub struct CancelReason(Arc<OnceLock<String>>);

impl CancelReason {
    /// The call was not answered in its time.
    pub const DEADLINE_PASSED: &str = "the call's deadline passed";
    /// Nobody said anything.
    pub(crate) const CALLER_LEFT: &str = "the caller went away";

    /// Says why. The first reason stays, and a long one is cut.
    pub fn say(&self, reason: &str) {
        if !reason.is_empty() {
            let _ = self.0.set(reason.chars().take(MAX_REASON_CHARS).collect());
        }
    }

    /// What was said, when something was.
    #[must_use]
    pub fn said(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }
}
