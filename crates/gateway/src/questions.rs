//! What servers ask clients in the middle of a call.
//!
//! A question goes out under an id of the gateway's own: replicas of a server, and different servers, ask with the same
//! ids. An answer is taken from the session that was asked, once, and from nobody else. Which instance asked, and under
//! which id, is sealed in the id, so that the answer may come to any replica of the gateway; the instance knows whether it
//! still waits. A remote server asks in a session of one replica's, and only that one can answer it.

use crate::route::Chosen;
use crate::session::{SessionId, Sessions};
use dashmap::DashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use toolyard_mcp::Message;
use toolyard_types::InstanceId;

/// The longest id of a server's own that is sealed.
const MAX_OWN_ID: usize = 256;
const PREFIX: &str = "\"toolyard-";

/// The questions that sessions were given here and did not answer yet.
pub(crate) struct Questions {
    /// The raw id of the next one that is not sealed, of this process alone.
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
    pub(crate) fn ask(
        &self,
        sessions: &Sessions,
        session: SessionId,
        question: &Message,
        asker: &Chosen,
    ) -> Option<String> {
        let own = question.raw_id()?;
        let asked = Asked { asker: asker.clone(), id: own.to_owned() };
        let name = match asker.instance().filter(|_| own.len() <= MAX_OWN_ID) {
            Some(instance) => sessions.seal_bytes(format!("{instance} {own}").as_bytes(), &binding(session)),
            None => format!("{:016x}", self.next.fetch_add(1, Ordering::Relaxed)),
        };
        let id = format!("{PREFIX}{name}\"");
        self.open.insert((session, id.clone()), asked);
        Some(id)
    }

    /// The question that a session answers.
    pub(crate) fn take(&self, session: SessionId, id: &str) -> Option<Asked> {
        self.open.remove(&(session, id.to_owned())).map(|(_, asked)| asked)
    }
}

/// Which instance asked a session this, perhaps by way of another replica, and under which raw id.
pub(crate) fn opened(sessions: &Sessions, session: SessionId, id: &str) -> Option<(InstanceId, String)> {
    let (_, plain) = sessions.open_bytes(id.strip_prefix(PREFIX)?.strip_suffix('"')?, &binding(session))?;
    let plain = String::from_utf8(plain).ok()?;
    let (instance, own) = plain.split_once(' ')?;
    Some((instance.parse().ok()?, own.to_owned()))
}

/// No session is bound to this.
fn binding(session: SessionId) -> Vec<u8> {
    [b"question ".as_slice(), &session].concat()
}
