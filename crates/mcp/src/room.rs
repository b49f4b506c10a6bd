//! Room in memory for what servers send until somebody takes it.

use crate::error::CallError;
use crate::stdio::Caller;
use bytes::Bytes;
use std::sync::Arc;

/// Messages up to this are not worth an account.
const FREE_BYTES: usize = 1 << 10;
/// A message that is still coming is accounted for in steps of this size.
const STEP_BYTES: usize = 64 << 10;

/// Keeps the room that was taken; gives it back when dropped.
pub type Held = Box<dyn Send + Sync>;

/// How room is taken: so many bytes for a caller, or `None` when there is none left.
pub type Take = dyn Fn(Caller, usize) -> Option<Held> + Send + Sync;

/// Where room is taken; without limits by default. Cheap to clone.
#[derive(Clone, Default)]
pub struct Room(Option<Arc<Take>>);

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Room").finish_non_exhaustive()
    }
}

impl Room {
    /// Room that is taken in this way.
    #[must_use]
    pub fn new(take: Arc<Take>) -> Self {
        Self(Some(take))
    }

    /// The same room, where everything is one caller's.
    #[must_use]
    pub fn charged_to(&self, caller: Caller) -> Self {
        let take = self.0.clone();
        Self(take.map(|take| Arc::new(move |_, bytes| take(caller, bytes)) as Arc<Take>))
    }

    /// The same message, whose room is taken until nobody has any of it any more; `None` when there is no room.
    pub(crate) fn keep(&self, caller: Caller, message: Bytes) -> Option<Bytes> {
        struct Kept(Bytes, #[expect(dead_code, reason = "dropped with the message")] Held);
        impl AsRef<[u8]> for Kept {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        match &self.0 {
            Some(take) if message.len() > FREE_BYTES => {
                take(caller, message.len()).map(|held| Bytes::from_owner(Kept(message, held)))
            }
            _ => Some(message),
        }
    }

    /// Room for a message of a caller that is still coming.
    pub(crate) fn growing(&self, caller: Caller) -> Growing {
        Growing { room: self.clone(), caller, steps: Vec::new() }
    }
}

/// The room of a message that is still coming.
pub(crate) struct Growing {
    room: Room,
    caller: Caller,
    steps: Vec<Held>,
}

impl Growing {
    /// Has room for so many bytes, and no more than that.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn cover(&mut self, bytes: usize) -> Result<(), CallError> {
        let steps = bytes / STEP_BYTES;
        self.steps.truncate(steps);
        let Some(take) = &self.room.0 else { return Ok(()) };
        while self.steps.len() < steps {
            self.steps.push(take(self.caller, STEP_BYTES).ok_or(CallError::NoRoom)?);
        }
        Ok(())
    }
}
