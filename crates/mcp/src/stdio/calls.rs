//! The table of calls that wait for the server, and of cancellations that wait to be told.
//!
//! A server is told that a call was given up only once it has surely taken the call up: it said something about it, or
//! answered what was sent after it. Servers of the official Python SDK before 2 end when the cancellation of a call
//! reaches them together with the call, which is what happens while they are held up by another one.

use super::{CALL_BACKLOG, CallError, Caller, MAX_IN_FLIGHT, Principal};
use crate::envelope::Id;
use crate::room::Room;
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

/// How many cancellations wait at most; the oldest is forgotten then, and its call comes to its own end.
const MAX_HELD: usize = 1024;

/// What a call's stream is given.
#[derive(Debug)]
pub(super) enum Event {
    /// One message before the response.
    Message(Bytes),
    /// The response, or why there is none.
    Last(Result<Bytes, CallError>),
}

/// Whose calls an instance has had since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Users {
    #[default]
    None,
    One(Principal),
    /// Several, or somebody unknown.
    Many,
}

/// Where and on whose share room is taken for what a caller has not taken yet.
#[derive(Debug)]
pub(super) struct Whose {
    pub(super) share: Caller,
    pub(super) room: Room,
}

/// One call in flight.
#[derive(Debug)]
pub(super) struct Call {
    whose: Whose,
    /// The id as the caller wrote it.
    pub(super) caller_id: Id,
    /// The progress token as the caller wrote it.
    pub(super) token: Option<Bytes>,
    /// Made by the connection itself: it takes part in no question of which caller a message is for.
    own: bool,
    /// A subscription, which is not meant to be answered.
    lasting: bool,
    /// See [`super::MessageContext::call`].
    pub(super) name: Option<u128>,
    /// How many requests had been sent with it.
    sent: u64,
    /// The server has said something about it.
    pub(super) taken_up: bool,
    began: Instant,
    events: mpsc::Sender<Event>,
}

impl Call {
    pub(super) fn of_caller(
        whose: Whose,
        caller_id: Id,
        token: Option<Bytes>,
        lasting: bool,
    ) -> (Self, mpsc::Receiver<Event>) {
        let (events, receiver) = mpsc::channel(CALL_BACKLOG + 1);
        (Self::new(whose, caller_id, token, (false, lasting), events), receiver)
    }

    pub(super) fn own(id: u64) -> (Self, mpsc::Receiver<Event>) {
        let (events, receiver) = mpsc::channel(1);
        let whose = Whose { share: Caller::Gateway, room: Room::default() };
        (Self::new(whose, Id::number(id), None, (true, false), events), receiver)
    }

    fn new(
        whose: Whose,
        caller_id: Id,
        token: Option<Bytes>,
        (own, lasting): (bool, bool),
        events: mpsc::Sender<Event>,
    ) -> Self {
        Self {
            whose,
            caller_id,
            token,
            own,
            lasting,
            name: None,
            sent: 0,
            taken_up: false,
            began: Instant::now(),
            events,
        }
    }

    /// Whether a caller waits for its answer.
    fn is_awaited(&self) -> bool {
        !self.own && !self.lasting
    }

    /// Gives the caller a message before the response; `false` when the caller does not keep up.
    pub(super) fn offer(&self, message: Bytes) -> bool {
        // The last place is the response's.
        self.events.capacity() > 1
            && self.keep(message).is_some_and(|message| self.events.try_send(Event::Message(message)).is_ok())
    }

    fn keep(&self, message: Bytes) -> Option<Bytes> {
        self.whose.room.keep(self.whose.share, message)
    }

    /// Gives the caller the response, or why there is none.
    pub(super) fn finish(self, answer: Result<Bytes, CallError>) {
        let answer = answer.and_then(|answer| self.keep(answer).ok_or(CallError::NoRoom));
        // A place is kept for it; it fails only when the caller is gone.
        let _ = self.events.try_send(Event::Last(answer));
    }
}

/// The cancellation of a call that the server may not have taken up yet.
#[derive(Debug)]
struct Held {
    id: u64,
    sent: u64,
    message: Bytes,
}

/// What is to be sent next about calls that were given up.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// Cancellations.
    pub(super) cancellations: Vec<Bytes>,
    /// Something whose answer tells that what was sent before it has been taken up.
    pub(super) marker: bool,
}

/// When calls were given up, and since when the server had them, with nothing heard from it since.
#[derive(Clone, Copy, Debug)]
struct GivenUp {
    at: Instant,
    since: Instant,
}

/// What callers do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Awaited {
    /// How many calls they have made.
    pub(super) begun: u64,
    /// How many of them wait for their answer.
    pub(super) count: usize,
    /// Since when at least one does.
    pub(super) since: Option<Instant>,
    /// Since when the server has had calls, those that were given up and that it may still work at among them.
    pub(super) busy_since: Option<Instant>,
}

#[derive(Debug, Default)]
pub(super) struct Calls {
    in_flight: HashMap<u64, Call>,
    /// Questions of the server that a caller has and did not answer yet: the raw id, and whose call it is.
    questions: HashMap<String, u64>,
    users: Users,
    closed: bool,
    /// How many calls callers have made.
    begun: u64,
    /// How many of them wait for their answer, and since when at least one does.
    awaited: usize,
    awaited_since: Option<Instant>,
    /// Told when none waits any more.
    idle: Arc<Notify>,
    /// How many requests were sent, and up to which of them the server has surely read.
    sent: u64,
    taken_up: u64,
    held: VecDeque<Held>,
    /// The request of our own whose answer is waited for to tell them.
    marker: Option<u64>,
    given_up: Option<GivenUp>,
}

impl Calls {
    pub(super) fn begin(&mut self, id: u64, mut call: Call) -> Result<(), CallError> {
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
        self.sent += 1;
        call.sent = self.sent;
        self.in_flight.insert(id, call);
        Ok(())
    }

    /// What callers do, when the server was heard last at `heard`.
    pub(super) fn awaited(&self, heard: Instant) -> Awaited {
        let unheard = self.given_up.filter(|given_up| given_up.at > heard).map(|given_up| given_up.since);
        let busy_since = self.awaited_since.into_iter().chain(unheard).min();
        Awaited { begun: self.begun, count: self.awaited, since: self.awaited_since, busy_since }
    }

    /// Ends a call that its caller gives up; `None` when it has ended. `cancelled` tells the server, now or later.
    pub(super) fn give_up(&mut self, id: u64, cancelled: Bytes, heard: Instant) -> Option<(Call, Due)> {
        let call = self.end(id)?;
        if call.is_awaited() {
            let before = self.given_up.filter(|before| before.at > heard).map(|before| before.since);
            let since = before.map_or(call.began, |before| before.min(call.began));
            self.given_up = Some(GivenUp { at: Instant::now(), since });
        }
        if call.taken_up || call.sent < self.taken_up {
            return Some((call, Due { cancellations: vec![cancelled], marker: false }));
        }
        if self.held.len() >= MAX_HELD {
            self.held.pop_front();
        }
        self.held.push_back(Held { id, sent: call.sent, message: cancelled });
        Some((call, Due { cancellations: Vec::new(), marker: self.marker.is_none() }))
    }

    /// Notes which request's answer will tell that all before it was taken up.
    pub(super) fn mark(&mut self, id: Option<u64>) {
        self.marker = id;
    }

    /// The call that an answer is for, and what may be told now that it came.
    pub(super) fn answered(&mut self, id: u64) -> (Option<Call>, Due) {
        let call = self.end(id);
        let given_up = self.held.iter().position(|held| held.id == id).and_then(|at| self.held.remove(at));
        let Some(sent) = call.as_ref().map(|call| call.sent).or(given_up.map(|held| held.sent)) else {
            return (None, Due::default());
        };
        self.taken_up = self.taken_up.max(sent);
        if self.marker == Some(id) {
            self.marker = None;
        }
        let mut cancellations = Vec::new();
        let taken_up = self.taken_up;
        self.held.retain_mut(|held| {
            let due = held.sent < taken_up;
            if due {
                cancellations.push(std::mem::take(&mut held.message));
            }
            !due
        });
        let marker = self.marker.is_none() && !self.held.is_empty();
        (call, Due { cancellations, marker })
    }

    /// Told when no call of a caller waits any more.
    pub(super) fn idle(&self) -> Arc<Notify> {
        self.idle.clone()
    }

    /// Notes who sends a message.
    pub(super) fn note_user(&mut self, caller: Caller) {
        self.users = match (self.users, caller) {
            (_, Caller::Gateway) => self.users,
            (Users::None, Caller::Principal(principal)) => Users::One(principal),
            (Users::One(known), Caller::Principal(principal)) if known == principal => self.users,
            (Users::None | Users::One(_) | Users::Many, _) => Users::Many,
        };
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

    /// A call that the server says something about.
    pub(super) fn taken_up(&mut self, id: u64) -> Option<&Call> {
        let call = self.in_flight.get_mut(&id)?;
        call.taken_up = true;
        Some(call)
    }

    pub(super) fn end(&mut self, id: u64) -> Option<Call> {
        if !self.questions.is_empty() {
            self.questions.retain(|_, call| *call != id);
        }
        let call = self.in_flight.remove(&id)?;
        self.settle(&call);
        Some(call)
    }

    /// The one call that its caller named `raw`; none when two callers chose the same name.
    pub(super) fn by_caller_id(&self, raw: &str) -> Option<u64> {
        let mut found = self.in_flight.iter().filter(|(_, call)| !call.own && call.caller_id.raw() == raw);
        let id = *found.next()?.0;
        found.next().is_none().then_some(id)
    }

    /// The call that came under a name of its own.
    pub(super) fn by_name(&self, name: u128) -> Option<u64> {
        self.in_flight.iter().find(|(_, call)| call.name == Some(name)).map(|(id, _)| *id)
    }

    /// The one call that waits, callers' or own.
    pub(super) fn end_only(&mut self) -> Option<Call> {
        let mut ids = self.in_flight.keys().copied();
        let only = ids.next().filter(|_| ids.next().is_none());
        only.and_then(|id| self.end(id))
    }

    /// The one call of a caller that waits, when nobody else has used the server since it started: what a server says
    /// outside of its answers names no call, and may come of one that has ended.
    pub(super) fn only_callers(&self) -> Option<(u64, &Call)> {
        if !matches!(self.users, Users::One(_)) {
            return None;
        }
        let mut callers = self.in_flight.iter().filter(|(_, call)| !call.own);
        let only = callers.next().filter(|_| callers.next().is_none());
        // Behind what the gateway asks itself there is nobody to ask.
        only.filter(|(_, call)| call.whose.share != Caller::Gateway).map(|(id, call)| (*id, call))
    }

    pub(super) fn ask(&mut self, question: &str, call: u64) {
        self.questions.insert(question.to_owned(), call);
    }

    /// Whose call it was that a question was given to.
    pub(super) fn take_question(&mut self, question: &str) -> Option<u64> {
        self.questions.remove(question)
    }

    /// Fails what waits, and everything after it.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.questions.clear();
        self.held.clear();
        for (_, call) in std::mem::take(&mut self.in_flight) {
            self.settle(&call);
            call.finish(Err(CallError::Ended));
        }
    }
}
