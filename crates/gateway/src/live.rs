//! A call under way at a server, until its response, its deadline, or its client's cancellation.

use crate::answer;
use crate::bridge;
use crate::call::{Call, Client, Refused, Takes, Way};
use crate::endpoint::{self, Target};
use crate::peer::Failure;
use crate::record::Recording;
use crate::route::{Chosen, Sent};
use crate::session::SessionId;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use toolyard_link::trace;
use toolyard_mcp::era::{Era, code};
use toolyard_mcp::json::Edits;
use toolyard_mcp::{CancelReason, Kind, Message, envelope};
use toolyard_types::Code;
use toolyard_types::snapshot::CallOutcome;

/// How much before its deadline a call that breaks off has reached it.
const DEADLINE_SLACK: Duration = Duration::from_millis(100);
/// How many questions a server may ask in one call.
const MAX_QUESTIONS: usize = 100;

/// What comes next on a live call.
pub(crate) enum Step {
    /// A message before the response.
    Pass(Bytes),
    /// The response.
    Last(Bytes),
}

/// A call under way at a server.
///
/// A modern client that goes away cancels its call. A legacy one does not: the call runs on to its end or its
/// deadline, as the protocol asks, and only its result is lost.
pub(crate) struct Live(Option<Running>);

struct Running {
    call: Call,
    source: Source,
    way: Box<Way>,
    server: Era,
    deadline: (Instant, Duration),
    recording: Recording,
    /// Ends the call without an answer: its client's cancellation, or for a subscription what ends every stream.
    stopped_by: Option<BoxFuture<'static, ()>>,
    /// For a legacy call only.
    cancellable: Option<Cancellable>,
    /// Its client has gone away, and nobody can be asked any more.
    is_left: bool,
}

/// What a call waits for. Sending takes as long as the first message back, so it is part of the running call:
/// a client may cancel or go away meanwhile.
pub(crate) enum Source {
    Sending(BoxFuture<'static, Result<Sent, Failure>>),
    Open(Box<Sent>),
}

impl Source {
    /// The next message; may be given up and asked again.
    async fn next(&mut self) -> Option<Result<Bytes, Failure>> {
        if let Self::Sending(sending) = self {
            match sending.await {
                Ok(sent) => *self = Self::Open(Box::new(sent)),
                Err(failure) => return Some(Err(failure)),
            }
        }
        match self {
            Self::Open(sent) => sent.replies.next().await,
            Self::Sending(_) => None,
        }
    }

    /// Who has the call now, when it moved.
    fn take_moved(&mut self) -> Option<Chosen> {
        match self {
            Self::Open(sent) => sent.moved.take(),
            Self::Sending(_) => None,
        }
    }
}

/// A legacy call's entry in the table of what a client can cancel.
struct Cancellable {
    key: (SessionId, Bytes),
    /// What the server asked its client: the raw id that it went out under, and the server's own.
    questions: Vec<(String, String)>,
    core: Arc<endpoint::Core>,
}

impl Cancellable {
    /// Remembers whom the server asked, and gives the question as it goes out; none when it asks too much.
    fn ask(&mut self, question: &Message, asker: &Chosen) -> Option<Bytes> {
        if self.questions.len() >= MAX_QUESTIONS {
            return None;
        }
        let mut asker = asker.clone();
        // The call counts as under way by itself.
        asker.uncounted();
        let id = self.core.questions.ask(&self.core.sessions, self.key.0, question, &asker)?;
        self.questions.push((id.clone(), question.raw_id()?.to_owned()));
        Some(question.with_id(&id))
    }

    /// What takes a question back, under the id that the question went out under.
    fn take_back(&mut self, cancelled: &Message) -> Option<Bytes> {
        let span = cancelled.payload_object()?.get("requestId").ok()??;
        let at = self.questions.iter().position(|(_, own)| own == cancelled.text(span.clone()))?;
        let (id, _) = self.questions.swap_remove(at);
        self.core.questions.take(self.key.0, &id);
        let mut edits = Edits::new();
        edits.replace(span, id);
        Some(edits.apply(cancelled.bytes()))
    }
}

impl Drop for Cancellable {
    fn drop(&mut self) {
        self.core.cancellable.remove(&self.key);
        for question in self.questions.drain(..) {
            self.core.questions.take(self.key.0, &question.0);
        }
    }
}

impl Live {
    pub(crate) fn new(
        call: Call,
        source: Source,
        way: Box<Way>,
        server: Era,
        deadline: (Instant, Duration),
        recording: Recording,
    ) -> Self {
        let (mut stopped_by, mut cancellable) = (None, None);
        if let Client::Legacy { id, .. } = &call.client {
            let core = call.visit.core.clone();
            let key = (*id, Bytes::copy_from_slice(call.raw_id().as_bytes()));
            let token = CancellationToken::new();
            core.cancellable.insert(key.clone(), (token.clone(), way.chosen.call.reason.clone()));
            stopped_by = Some(Box::pin(token.cancelled_owned()) as BoxFuture<'static, ()>);
            cancellable = Some(Cancellable { key, questions: Vec::new(), core });
        } else if call.message.method() == "subscriptions/listen" {
            let (visit, reason) = (call.visit.clone(), way.chosen.call.reason.clone());
            stopped_by = Some(Box::pin(async move {
                visit.ended().await;
                reason.say("the subscription was ended");
            }));
        }
        Self(Some(Running { call, source, way, server, deadline, recording, stopped_by, cancellable, is_left: false }))
    }

    /// The next message; `None` after the response and when the client cancelled.
    pub(crate) async fn next(&mut self) -> Option<Step> {
        loop {
            let running = self.0.as_mut()?;
            let reply = running.reply().await;
            let step = match reply {
                Heard::Cancelled => {
                    // Dropped here, so that it does not run on.
                    self.end();
                    return None;
                }
                Heard::Message(message) => running.take(&message),
                Heard::Failed(failure) => Some(Step::Last(running.fail(failure))),
            };
            match step {
                None => {}
                Some(Step::Pass(message)) => return Some(Step::Pass(message)),
                Some(Step::Last(message)) => {
                    self.end();
                    return Some(Step::Last(message));
                }
            }
        }
    }

    /// When somebody said why the call is given up, a toolbox is told so before its stream ends. A shutdown waits for that,
    /// and the call keeps its places meanwhile: who calls and gives up at once has no more under way than their limits allow.
    fn end(&mut self) {
        let Some(Running { call: Call { visit, .. }, source, way, .. }) = self.0.take() else { return };
        if way.chosen.instance().is_none() || way.chosen.call.reason.said().is_none() {
            return;
        }
        let (left, trace) = (visit.core.left.clone(), visit.trace.clone());
        left.spawn(trace::scope(trace, async move {
            way.chosen.tell_reason().await;
            drop((source, way, visit));
        }));
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let Some(mut running) = self.0.take() else { return };
        if running.cancellable.is_none() {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        running.leave();
        let left = running.call.visit.core.left.clone();
        // Its end is the deadline at the latest.
        left.spawn_on(
            async move {
                let mut live = Live(Some(running));
                while let Some(Step::Pass(_)) = live.next().await {}
            },
            &runtime,
        );
    }
}

enum Heard {
    Message(Message),
    Failed(Failure),
    Cancelled,
}

impl Running {
    async fn reply(&mut self) -> Heard {
        let (deadline, timeout) = self.deadline;
        let next = tokio::time::timeout_at(deadline, self.source.next());
        let cutting = self.call.visit.core.cutting.cancelled();
        let stopped = async {
            match &mut self.stopped_by {
                None => std::future::pending().await,
                Some(stopped) => stopped.await,
            }
        };
        let reply = tokio::select! {
            biased;
            () = stopped => return Heard::Cancelled,
            reply = next => reply,
            () = cutting => {
                self.way.chosen.call.reason.say("Toolyard is shutting down");
                let detail = "Toolyard is shutting down, and the call had not ended in time; call again";
                return Heard::Failed(Failure::new(Code::ShuttingDown, detail));
            }
        };
        if let Some(moved) = self.source.take_moved() {
            self.recording.note(|record| record.revision = moved.revision);
            self.way.chosen = moved;
        }
        // A toolbox ends the call at the same deadline.
        let is_late = Instant::now() + DEADLINE_SLACK >= deadline;
        match reply {
            Err(_) => {
                self.way.chosen.call.reason.say(CancelReason::DEADLINE_PASSED);
                Heard::Failed(Failure::overdue(timeout))
            }
            Ok(None) if is_late => Heard::Failed(Failure::overdue(timeout)),
            Ok(Some(Err(failure))) if is_late && failure.code == Code::UpstreamFailed => {
                Heard::Failed(match failure.undelivered {
                    Some(_) => Failure::timeout(timeout),
                    None => Failure::overdue(timeout),
                })
            }
            Ok(None) => Heard::Failed(Failure::unanswered()),
            Ok(Some(Err(failure))) => Heard::Failed(failure),
            Ok(Some(Ok(bytes))) => match Message::parse(bytes) {
                Ok(message) => Heard::Message(message),
                Err(error) => Heard::Failed(Failure::new(Code::UpstreamFailed, error.to_string())),
            },
        }
    }

    /// What the client is to see of a message; `None` when nothing.
    fn take(&mut self, message: &Message) -> Option<Step> {
        match message.kind() {
            Kind::Result | Kind::Error => Some(Step::Last(self.finish(message))),
            Kind::Notification if message.method() == "notifications/cancelled" => {
                self.cancellable.as_mut()?.take_back(message).map(Step::Pass)
            }
            Kind::Notification => self.may_see(message).then(|| Step::Pass(message.bytes().clone())),
            Kind::Request => match self.ask(message) {
                Some(question) => Some(Step::Pass(question)),
                None => {
                    self.decline(message.raw_id(), "the client cannot be asked through this gateway");
                    None
                }
            },
        }
    }

    /// A modern client gets log messages only when it asked for them.
    fn may_see(&self, message: &Message) -> bool {
        match self.call.client {
            Client::Modern { wants_log } => wants_log || message.method() != "notifications/message",
            Client::Opening | Client::Legacy { .. } => true,
        }
    }

    /// Only a legacy client can be asked, and only at a URL where its answer finds the way back.
    fn ask(&mut self, question: &Message) -> Option<Bytes> {
        let can_be_asked = matches!(self.call.visit.target, Target::Server { .. }) && self.call.takes != Takes::Json;
        if !can_be_asked || self.is_left {
            return None;
        }
        self.cancellable.as_mut()?.ask(question, &self.way.chosen)
    }

    /// Takes note that the client has gone away: what it was asked it will not answer, and a server that waits for that can
    /// ask nobody else.
    fn leave(&mut self) {
        self.is_left = true;
        let Some(cancellable) = &mut self.cancellable else { return };
        let asked: Vec<_> = cancellable.questions.drain(..).collect();
        let (core, session) = (cancellable.core.clone(), cancellable.key.0);
        for (id, own) in asked {
            if core.questions.take(session, &id).is_some() {
                self.decline(Some(&own), "the client has gone away");
            }
        }
    }

    fn decline(&self, question: Option<&str>, why: &str) {
        let declined = envelope::error(question, code::METHOD_NOT_FOUND, why, None);
        let (chosen, timeout) = (self.way.chosen.clone(), self.deadline.1);
        tokio::spawn(async move {
            tokio::time::timeout(timeout, chosen.peer.send(declined, timeout, chosen.sender())).await.map(|_| ())
        });
    }

    fn finish(&mut self, message: &Message) -> Bytes {
        let (client, method) = (self.call.client.era(), self.call.message.method());
        if client == Era::Legacy && self.server == Era::Modern && bridge::asks_for_input(message) {
            let text = "the server asks for more input, which a client of this protocol version cannot give here";
            let request_id = &self.call.visit.request_id;
            let answer = answer::error(Some(self.call.raw_id()), code::INTERNAL_ERROR, text, None, request_id);
            self.recording.end(CallOutcome::UpstreamFailed, answer.len());
            return answer;
        }
        let answer = bridge::to_client(message, client, self.server, method);
        self.recording.end(outcome(message, method), answer.len());
        answer
    }

    fn fail(&mut self, failure: Failure) -> Bytes {
        let refused = Refused::from(failure);
        refused.note(&self.call.visit.request_id, Some(&self.way.server));
        let answer = self.call.refusal(&refused);
        self.recording.end(refused.outcome, answer.len());
        answer
    }
}

fn outcome(message: &Message, method: &str) -> CallOutcome {
    if message.kind() == Kind::Error {
        return CallOutcome::ServerError;
    }
    let failed = || {
        let result = message.payload_object()?;
        let span = result.get("isError").ok()??;
        Some(message.text(span) == "true")
    };
    if method == "tools/call" && failed() == Some(true) { CallOutcome::ToolError } else { CallOutcome::Ok }
}

/// The rest of a live call as events, beginning with `first`.
pub(crate) fn stream(first: Bytes, live: Box<Live>) -> impl futures_util::Stream<Item = Bytes> + Send {
    futures_util::stream::unfold((Some(first), live), |(first, mut live)| async move {
        if let Some(first) = first {
            return Some((answer::event(&first), (None, live)));
        }
        let event = match tokio::time::timeout(answer::KEEP_ALIVE, live.next()).await {
            Err(_) => answer::keep_alive(),
            Ok(Some(Step::Pass(message) | Step::Last(message))) => answer::event(&message),
            Ok(None) => return None,
        };
        Some((event, (None, live)))
    })
}
