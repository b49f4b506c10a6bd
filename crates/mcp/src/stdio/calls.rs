//! The table of calls that wait for the server.

use super::{CALL_BACKLOG, CallError, MAX_IN_FLIGHT};
use crate::envelope::Id;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

/// What a call's stream is given.
#[derive(Debug)]
pub(super) enum Event {
    /// One message before the response.
    Message(Bytes),
    /// The response, or why there is none.
    Last(Result<Bytes, CallError>),
}

/// One call in flight.
#[derive(Debug)]
pub(super) struct Call {
    /// The id as the caller wrote it.
    pub(super) caller_id: Id,
    /// The progress token as the caller wrote it.
    pub(super) token: Option<Bytes>,
    /// Made by the connection itself: it takes part in no question of which caller a message is for.
    own: bool,
    /// A subscription, which is not meant to be answered.
    lasting: bool,
    events: mpsc::Sender<Event>,
}

impl Call {
    pub(super) fn of_caller(caller_id: Id, token: Option<Bytes>, lasting: bool) -> (Self, mpsc::Receiver<Event>) {
        let (events, receiver) = mpsc::channel(CALL_BACKLOG + 1);
        (Self { caller_id, token, own: false, lasting, events }, receiver)
    }

    pub(super) fn own(id: u64) -> (Self, mpsc::Receiver<Event>) {
        let (events, receiver) = mpsc::channel(1);
        (Self { caller_id: Id::number(id), token: None, own: true, lasting: false, events }, receiver)
    }

    /// Whether a caller waits for its answer.
    fn is_awaited(&self) -> bool {
        !self.own && !self.lasting
    }

    /// Gives the caller a message before the response; `false` when the caller does not keep up.
    pub(super) fn offer(&self, message: Bytes) -> bool {
        // The last place is the response's.
        self.events.capacity() > 1 && self.events.try_send(Event::Message(message)).is_ok()
    }

    /// Gives the caller the response, or why there is none.
    pub(super) fn finish(self, answer: Result<Bytes, CallError>) {
        // A place is kept for it; it fails only when the caller is gone.
        let _ = self.events.try_send(Event::Last(answer));
    }
}

#[derive(Debug, Default)]
pub(super) struct Calls {
    in_flight: HashMap<u64, Call>,
    /// Questions of the server that a caller has and did not answer yet: the raw id, and whose call it is.
    questions: HashMap<String, u64>,
    closed: bool,
    /// How many calls callers have made.
    begun: u64,
    /// How many of them wait for their answer, and since when at least one does.
    awaited: usize,
    awaited_since: Option<Instant>,
    /// Told when none waits any more.
    idle: Arc<Notify>,
}

impl Calls {
    pub(super) fn begin(&mut self, id: u64, call: Call) -> Result<(), CallError> {
        if self.closed {
            return Err(CallError::Closed);
        }
        if self.in_flight.len() >= MAX_IN_FLIGHT {
            return Err(CallError::Busy);
        }
        if call.is_awaited() {
            self.begun += 1;
            self.awaited += 1;
            self.awaited_since.get_or_insert_with(Instant::now);
        }
        self.in_flight.insert(id, call);
        Ok(())
    }

    /// How many calls callers have made, how many of them wait for their answer, and since when at least one does.
    pub(super) fn awaited(&self) -> (u64, usize, Option<Instant>) {
        (self.begun, self.awaited, self.awaited_since)
    }

    /// Told when no call of a caller waits any more.
    pub(super) fn idle(&self) -> Arc<Notify> {
        self.idle.clone()
    }

    fn settle(&mut self, call: &Call) {
        if call.is_awaited() {
            self.awaited = self.awaited.saturating_sub(1);
            if self.awaited == 0 {
                self.awaited_since = None;
                self.idle.notify_waiters();
            }
        }
    }

    pub(super) fn get(&self, id: u64) -> Option<&Call> {
        self.in_flight.get(&id)
    }

    pub(super) fn end(&mut self, id: u64) -> Option<Call> {
        if !self.questions.is_empty() {
            self.questions.retain(|_, call| *call != id);
        }
        let call = self.in_flight.remove(&id)?;
        self.settle(&call);
        Some(call)
    }

    /// Ends the one call that its caller named `raw`; none when two callers chose the same name.
    pub(super) fn end_by_caller_id(&mut self, raw: &str) -> Option<(u64, Call)> {
        let mut found = self.in_flight.iter().filter(|(_, call)| !call.own && call.caller_id.raw() == raw);
        let id = *found.next()?.0;
        if found.next().is_some() {
            return None;
        }
        self.end(id).map(|call| (id, call))
    }

    /// The one call that waits, callers' or own.
    pub(super) fn end_only(&mut self) -> Option<Call> {
        let mut ids = self.in_flight.keys().copied();
        let only = ids.next().filter(|_| ids.next().is_none());
        only.and_then(|id| self.end(id))
    }

    /// The one call of a caller that waits.
    pub(super) fn only_callers(&self) -> Option<(u64, &Call)> {
        let mut callers = self.in_flight.iter().filter(|(_, call)| !call.own);
        let only = callers.next().filter(|_| callers.next().is_none());
        only.map(|(id, call)| (*id, call))
    }

    pub(super) fn ask(&mut self, question: &str, call: u64) {
        self.questions.insert(question.to_owned(), call);
    }

    pub(super) fn take_question(&mut self, question: &str) -> bool {
        self.questions.remove(question).is_some()
    }

    /// Fails what waits, and everything after it.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.questions.clear();
        for (_, call) in std::mem::take(&mut self.in_flight) {
            self.settle(&call);
            call.finish(Err(CallError::Closed));
        }
    }
}
