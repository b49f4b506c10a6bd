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

/// On whose account room is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Account {
    /// Whose server it is that sends, such as an organization.
    pub owner: u128,
    /// Whose call it is.
    pub caller: Caller,
}

/// How room is taken: so many bytes on an account, or `None` when there is none left.
pub type Take = dyn Fn(Account, usize) -> Option<Held> + Send + Sync;

/// Where room is taken; without limits by default. Cheap to clone.
#[derive(Clone, Default)]
pub struct Room {
    take: Option<Arc<Take>>,
    owner: u128,
    /// Whose everything is, whoever calls.
    everybody: Option<Caller>,
}

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Room").finish_non_exhaustive()
    }
}

impl Room {
    /// Room that is taken in this way.
    #[must_use]
    pub fn new(take: Arc<Take>) -> Self {
        Self { take: Some(take), ..Self::default() }
    }

    /// The same room, on this one's account.
    #[must_use]
    pub fn of(&self, owner: u128) -> Self {
        Self { owner, ..self.clone() }
    }

    /// The same room, where everything is one caller's.
    #[must_use]
    pub fn charged_to(&self, caller: Caller) -> Self {
        Self { everybody: Some(caller), ..self.clone() }
    }

    /// So many bytes for a caller, until what is given is dropped.
    ///
    /// # Errors
    /// When there is no room for them.
    pub fn hold(&self, caller: Caller, bytes: usize) -> Result<Option<Held>, CallError> {
        let Some(take) = &self.take else { return Ok(None) };
        take(self.account(caller), bytes).map(Some).ok_or(CallError::NoRoom)
    }

    fn account(&self, caller: Caller) -> Account {
        Account { owner: self.owner, caller: self.everybody.unwrap_or(caller) }
    }

    /// The same message, whose room is taken until nobody has any of it any more; `None` when there is no room.
    pub(crate) fn keep(&self, caller: Caller, message: Bytes) -> Option<Bytes> {
        struct Kept(Bytes, #[expect(dead_code, reason = "dropped with the message")] Held);
        impl AsRef<[u8]> for Kept {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        if message.len() <= FREE_BYTES {
            return Some(message);
        }
        let held = self.hold(caller, message.len()).ok()?;
        Some(match held {
            Some(held) => Bytes::from_owner(Kept(message, held)),
            None => message,
        })
    }

    /// Room for a message of a caller that is still coming.
    #[must_use]
    pub fn growing(&self, caller: Caller) -> Growing {
        Growing { take: self.take.clone(), account: self.account(caller), steps: Vec::new() }
    }
}

/// The room of a message that is still coming.
pub struct Growing {
    take: Option<Arc<Take>>,
    account: Account,
    steps: Vec<Held>,
}

impl Growing {
    /// Has room for so many bytes, and no more than that.
    ///
    /// # Errors
    /// When there is none.
    pub fn cover(&mut self, bytes: usize) -> Result<(), CallError> {
        let steps = bytes / STEP_BYTES;
        self.steps.truncate(steps);
        let Some(take) = &self.take else { return Ok(()) };
        while self.steps.len() < steps {
            self.steps.push(take(self.account, STEP_BYTES).ok_or(CallError::NoRoom)?);
        }
        Ok(())
    }
}
