//! What servers ask clients in the middle of a call.
//!
//! A question goes out under an id of the gateway's own: replicas of a server, and different servers, ask with the same
//! ids. An answer is taken from the session that was asked, once, and from nobody else.

use crate::route::Chosen;
use crate::session::SessionId;
use dashmap::DashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use toolyard_mcp::Message;

/// The questions that sessions were given and did not answer yet.
pub(crate) struct Questions {
    /// The raw id of the next one, of this process alone.
    next: AtomicU64,
    open: DashMap<(SessionId, String), Asked>,
}

/// Who asked, and under which raw id.
pub(crate) struct Asked {
    pub(crate) asker: Chosen,
    pub(crate) id: String,
}

impl Questions {
    pub(crate) fn new() -> Self {
        // Another replica of the gateway, or the run before, must not have given the same one.
        Self { next: AtomicU64::new(rand::random()), open: DashMap::new() }
    }

    /// Remembers a question to a session; gives the raw id that it goes out under.
    pub(crate) fn ask(&self, session: SessionId, question: &Message, asker: &Chosen) -> Option<String> {
        let asked = Asked { asker: asker.clone(), id: question.raw_id()?.to_owned() };
        let id = format!("\"toolyard-{:016x}\"", self.next.fetch_add(1, Ordering::Relaxed));
        self.open.insert((session, id.clone()), asked);
        Some(id)
    }

    /// The question that a session answers.
    pub(crate) fn take(&self, session: SessionId, id: &str) -> Option<Asked> {
        self.open.remove(&(session, id.to_owned())).map(|(_, asked)| asked)
    }
}
