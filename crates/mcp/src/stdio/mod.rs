//! A connection to one MCP server over a byte stream: one JSON-RPC message a line.
//!
//! What it does:
//! - It owns the server's id space. Many callers share one server; each request gets an id and, where the
//!   caller gave one, a progress token of the connection, and answers carry the caller's own again, byte for byte.
//! - A question or a log message of the server names no call: it goes to the one call that waits, and only while one
//!   principal alone has used the server since it started. Else the question is refused and the log message dropped.
//! - It owns the handshake, answers the server's `ping`, and cancels upstream when a caller drops its stream, once the
//!   server has taken the call up (`calls`). What the connection asks for itself is never cancelled.
//! - One task reads and one writes; both end when the connection is closed or its last clone is dropped.
//!
//! Bounds and what happens at each:
//! - A line longer than `max_message_bytes` is skipped to its end in constant memory; the call it answers fails
//!   with [`CallError::TooLong`] when its id can be read from the line's head or tail, or when only one call waits.
//! - A caller that does not read loses notifications beyond [`CALL_BACKLOG`], and what there is no [`Room`] for: of a
//!   response it is told so. It slows nobody else.
//! - A server that does not read makes [`Connection::send`] fail with [`CallError::Busy`].
//! - Who takes [`Noise`] too slowly loses lines, and is told how many: it holds up the protocol for a moment only.
//!
//! What it deliberately does not do: translate between eras (the gateway does), restart the server, or log bodies.

mod calls;
mod handshake;
mod reader;
mod writer;

use crate::cancel::CancelReason;
use crate::envelope::{self, Kind, Message, ParseError};
use crate::era::{self, Era, Handshake};
pub use crate::error::{CallError, HandshakeError};
use crate::json::{self, Edits};
use crate::room::Room;
use bytes::Bytes;
use calls::{Call, Calls, Event, Whose};
use serde_json::value::RawValue;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{broadcast, mpsc};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The default bound on one message, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;
/// How many undelivered messages of one call are kept.
pub const CALL_BACKLOG: usize = 64;
/// How many calls may wait at once.
pub const MAX_IN_FLIGHT: usize = 10_000;
/// How many unsolicited messages a slow subscriber may fall behind, and how long one may be: it names a list or a resource.
const UNSOLICITED_BACKLOG: usize = 64;
pub(crate) const MAX_UNSOLICITED_BYTES: usize = 64 << 10;
/// The most pages of a list that are followed.
const MAX_PAGES: usize = 100;
/// The most items of a list that are kept.
const MAX_ITEMS: usize = 10_000;

/// How a connection behaves.
#[derive(Debug)]
pub struct Options {
    /// The first id used. After taking over a running server, choose one that was never used before.
    pub first_id: u64,
    /// Whether it begins in the middle of the server's output, after somebody else who read it: the first line may be the end
    /// of a message.
    pub resumed: bool,
    /// Takes lines that are not protocol. One that stays full is waited for a moment, then lines are dropped and counted.
    pub noise: mpsc::Sender<Noise>,
    /// The longest message read; see [`MAX_MESSAGE_BYTES`].
    pub max_message_bytes: usize,
    /// Room for what callers have not taken yet.
    pub room: Room,
}

/// What came of the server's output beside the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Noise {
    /// A line, cut to a bounded length.
    Line(String),
    /// So many lines were dropped here.
    Lost(u64),
}

/// A principal, as far as a server's questions and log messages depend on it: the same for one, another for every other,
/// and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Principal(pub u128);

/// Of whom a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Caller {
    /// Of this one.
    Principal(Principal),
    /// Of the gateway itself, which asks for lists.
    Gateway,
    /// Nobody says.
    Unknown,
}

impl Caller {
    /// How a gateway writes that a message is its own.
    pub const GATEWAY: &str = "gateway";

    /// Reads [`Caller::GATEWAY`], or a principal as 32 hex digits.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let principal = || (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok()).flatten();
        match text {
            Self::GATEWAY => Self::Gateway,
            _ => principal().map_or(Self::Unknown, |number| Self::Principal(Principal(number))),
        }
    }
}

/// What is known of a message beside its bytes.
#[derive(Clone, Copy, Debug)]
pub struct MessageContext {
    /// Of whom it is.
    pub caller: Caller,
    /// Whose share of the room it uses up.
    pub share: Caller,
    /// A name that no other call has, where it was given one: callers choose the same ids. A `notifications/cancelled` with
    /// the name of a request is for that one, whatever id it says.
    pub call: Option<u128>,
}

/// A connection to one server. Cheap to clone; closed when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Connection {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    _end: DropGuard,
}

#[derive(Debug)]
struct Shared {
    next_id: AtomicU64,
    queue: writer::Queue,
    calls: Mutex<Calls>,
    handshake: Mutex<Option<Handshake>>,
    unsolicited: broadcast::Sender<Bytes>,
    noise: mpsc::Sender<Noise>,
    /// The id of the connection's own `subscriptions/listen` to a modern server; zero for none.
    listen_id: AtomicU64,
    /// The server has sent at least one protocol message.
    spoke: AtomicBool,
    /// When the connection was opened, and how many milliseconds later the server was last heard.
    opened: Instant,
    heard_ms: AtomicU64,
    /// The next line is the first, and the connection began in the middle of the server's output.
    resumed: AtomicBool,
    /// The first line of noise, for the error when nothing but noise comes.
    first_noise: Mutex<Option<String>>,
    end: CancellationToken,
    max_message_bytes: usize,
    room: Room,
}

impl Shared {
    /// A poisoned lock means that another task panicked between two complete updates; the table is still whole.
    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handshake(&self) -> MutexGuard<'_, Option<Handshake>> {
        self.handshake.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.end.cancel();
        self.calls().close();
    }

    fn note_heard(&self) {
        let since = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard_ms.store(since, Ordering::Relaxed);
    }

    /// When the server was heard last.
    fn heard(&self) -> Instant {
        self.opened + Duration::from_millis(self.heard_ms.load(Ordering::Relaxed))
    }

    /// The call that an answer with this id is for.
    fn answered(&self, id: u64) -> Option<Call> {
        let (call, due) = self.calls().answered(id);
        self.tell(due);
        call
    }

    /// Sends what is due about calls that were given up.
    ///
    /// When the queue is full the server is stuck anyway; the calls are forgotten on our side either way.
    fn tell(&self, due: calls::Due) {
        for cancelled in due.cancellations {
            let _ = self.queue.push(cancelled);
        }
        if due.marker {
            self.mark();
        }
    }

    /// Asks for a sign that everything sent so far has been taken up.
    fn mark(&self) {
        let (method, params) = self.sign_of_life();
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        // Nobody waits for what it says, only for that it comes.
        let (call, _) = Call::own(id);
        let mut calls = self.calls();
        if calls.begin(id, call).is_err() {
            return;
        }
        match self.queue.push(envelope::request(&id.to_string(), method, params.as_deref())) {
            Ok(()) => calls.mark(Some(id)),
            Err(_) => drop(calls.end(id)),
        }
    }

    /// A request that costs a server little, in its era.
    fn sign_of_life(&self) -> (&'static str, Option<String>) {
        match &*self.handshake() {
            Some(handshake) if handshake.era == Era::Modern => {
                let meta = era::own_meta_members(&handshake.protocol_version);
                ("server/discover", Some(format!(r#"{{"_meta":{{{meta}}}}}"#)))
            }
            _ => ("ping", None),
        }
    }
}

/// What callers do on a connection, subscriptions aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activity {
    /// How many calls they have made.
    pub begun: u64,
    /// How many of them wait for their answer.
    pub awaited: usize,
    /// How long calls have waited with nothing heard from the server; none while no call waits.
    pub silent_for: Option<Duration>,
    /// How long the server has been at calls with nothing heard from it, those among them that were given up meanwhile;
    /// none when it has none.
    pub busy_for: Option<Duration>,
}

impl Connection {
    /// Opens a connection over the server's standard output and input and starts its two tasks.
    pub fn open(
        stdout: impl AsyncRead + Send + Unpin + 'static,
        stdin: impl AsyncWrite + Send + Unpin + 'static,
        options: Options,
    ) -> Connection {
        let end = CancellationToken::new();
        let (queue, outgoing) = writer::queue();
        let shared = Arc::new(Shared {
            next_id: AtomicU64::new(options.first_id.max(1)),
            queue,
            calls: Mutex::default(),
            handshake: Mutex::default(),
            unsolicited: broadcast::Sender::new(UNSOLICITED_BACKLOG),
            noise: options.noise,
            listen_id: AtomicU64::new(0),
            spoke: AtomicBool::new(false),
            opened: Instant::now(),
            heard_ms: AtomicU64::new(0),
            resumed: AtomicBool::new(options.resumed),
            first_noise: Mutex::default(),
            end: end.clone(),
            max_message_bytes: options.max_message_bytes,
            room: options.room,
        });
        tokio::spawn(reader::run(shared.clone(), stdout));
        tokio::spawn(writer::run(shared.clone(), outgoing, stdin));
        Connection { handle: Arc::new(Handle { shared, _end: end.drop_guard() }) }
    }

    /// Finds out which era the server speaks and opens the conversation; see [`HandshakeError`].
    ///
    /// With nothing known, a modern probe gets about 1.5 s before `initialize` is sent.
    ///
    /// # Errors
    /// When the server does not get ready within `timeout`.
    pub async fn handshake(&self, known_era: Option<Era>, timeout: Duration) -> Result<Handshake, HandshakeError> {
        handshake::run(self, known_era, timeout).await
    }

    /// Takes over a server that runs already: nothing is negotiated, and nothing but messages is written. Whoever gives the
    /// server's input ends a line that was left half-written there. Who used it until now is not known, unless it is one
    /// principal's `own`.
    pub fn resume(&self, handshake: Handshake, own: bool) {
        if !own {
            self.shared().calls().note_user(Caller::Unknown);
        }
        handshake::settle(self, handshake);
    }

    /// What the handshake gave, once it did.
    #[must_use]
    pub fn handshake_result(&self) -> Option<Handshake> {
        self.shared().handshake().clone()
    }

    /// Every tool the server lists, each as its raw JSON; empty when the server has no tools at all.
    ///
    /// # Errors
    /// When a page cannot be had or read.
    pub async fn list_tools(&self, timeout: Duration) -> Result<Vec<Box<RawValue>>, CallError> {
        let everything = async {
            match self.list_all("tools/list", "tools", timeout).await {
                Err(CallError::Server { code: era::code::METHOD_NOT_FOUND, .. }) if !self.declares("tools") => {
                    Ok(Vec::new())
                }
                answer => answer,
            }
        };
        tokio::time::timeout(timeout, everything).await.unwrap_or(Err(CallError::Timeout(timeout)))
    }

    /// Asks the server for `method` and gives the raw result. To a modern server the request describes itself.
    /// Giving up is not told to the server.
    ///
    /// # Errors
    /// When there is no result.
    pub async fn request(&self, method: &str, params: Option<Bytes>, timeout: Duration) -> Result<Bytes, CallError> {
        let mut asked = self.begin_request(method, params)?;
        match tokio::time::timeout(timeout, asked.result()).await {
            Ok(answer) => answer,
            Err(_) => Err(CallError::Timeout(timeout)),
        }
    }

    /// Asks the server for `method`, to wait for the result as often and as long as one likes.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub fn begin_request(&self, method: &str, params: Option<Bytes>) -> Result<Asked, CallError> {
        let params = self.own_params(params)?;
        Ok(Asked { at: Instant::now(), stream: self.ask(method, params.as_deref())? })
    }

    /// For how long nothing has been heard from the server.
    #[must_use]
    pub fn unheard_for(&self) -> Duration {
        self.shared().heard().elapsed()
    }

    /// Sends one raw JSON-RPC message of a caller that nobody names. From then on the server's questions and log messages
    /// go to nobody: they might be this one's.
    ///
    /// # Errors
    /// See [`Connection::send_for`].
    pub fn send(&self, message: Bytes) -> Result<Stream, CallError> {
        self.send_for(Caller::Unknown, message)
    }

    /// Sends one raw JSON-RPC message of a caller. While one principal alone has used the server since it started, its
    /// questions and log messages go to that one's call.
    ///
    /// For a request the stream gives what belongs to the call, then the response with the caller's id, then
    /// ends; dropping it earlier cancels the call at the server. For anything else it is empty.
    ///
    /// # Errors
    /// When the message is none, or cannot be taken now.
    pub fn send_for(&self, caller: Caller, message: Bytes) -> Result<Stream, CallError> {
        self.send_from(MessageContext { caller, share: caller, call: None }, message)
    }

    /// As [`Self::send_for`], with all that may be known of it.
    ///
    /// # Errors
    /// When the message is none, or cannot be taken now.
    pub fn send_from(&self, context: MessageContext, message: Bytes) -> Result<Stream, CallError> {
        let message = Message::parse(message)?;
        self.shared().calls().note_user(context.caller);
        match message.kind() {
            Kind::Request => self.send_request(context, &message),
            Kind::Notification => self.send_notification(context.call, message),
            Kind::Result | Kind::Error => self.send_answer(message),
        }
    }

    /// Messages that belong to no call: changed lists, updated resources.
    #[must_use]
    pub fn unsolicited(&self) -> broadcast::Receiver<Bytes> {
        self.shared().unsolicited.subscribe()
    }

    /// What callers do now.
    #[must_use]
    pub fn activity(&self) -> Activity {
        let shared = self.shared();
        let heard = shared.heard();
        let calls::Awaited { begun, count, since, busy_since } = shared.calls().awaited(heard);
        let silent = |since: Instant| since.max(heard).elapsed();
        Activity { begun, awaited: count, silent_for: since.map(silent), busy_for: busy_since.map(silent) }
    }

    /// Waits until no call of a caller waits for its answer, subscriptions aside.
    pub async fn idle(&self) {
        let idle = self.shared().calls().idle();
        loop {
            let mut told = std::pin::pin!(idle.notified());
            // Listening first: a call that ends in between must not be missed.
            told.as_mut().enable();
            if self.shared().calls().awaited(self.shared().heard()).count == 0 {
                return;
            }
            told.await;
        }
    }

    /// Closes the server's input and fails what waits.
    pub fn close(&self) {
        self.shared().close();
    }

    /// Waits until the connection has ended.
    pub async fn closed(&self) {
        self.shared().end.cancelled().await;
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared().end.is_cancelled()
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    fn declares(&self, capability: &str) -> bool {
        self.shared().handshake().as_ref().is_some_and(|handshake| handshake.has_capability(capability))
    }

    async fn list_all(&self, method: &str, key: &str, timeout: Duration) -> Result<Vec<Box<RawValue>>, CallError> {
        let mut items = Vec::new();
        let mut bytes = 0;
        let mut cursor: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let params = cursor.take().map(|cursor| Bytes::from(format!(r#"{{"cursor":{cursor}}}"#)));
            let result = self.request(method, params, timeout).await?;
            bytes += result.len();
            let page = era::member(&result, key).ok_or(CallError::Unexpected("a list without its items"))?;
            let page: Vec<Box<RawValue>> =
                serde_json::from_slice(&page).map_err(|_| CallError::Unexpected("a list that is no array"))?;
            items.extend(page);
            if items.len() > MAX_ITEMS || bytes > self.shared().max_message_bytes {
                return Err(CallError::Unexpected("the list is too long"));
            }
            match era::string_member(&result, "nextCursor") {
                Some(next) if !next.is_empty() => cursor = Some(json::quote(&next)),
                _ => return Ok(items),
            }
        }
        Err(CallError::Unexpected("the list has too many pages"))
    }

    /// The parameters of a request of our own, describing itself when the server is modern.
    fn own_params(&self, params: Option<Bytes>) -> Result<Option<String>, CallError> {
        let text = params
            .map(|params| String::from_utf8(params.to_vec()).map_err(|_| CallError::Invalid(ParseError::Json)))
            .transpose()?;
        let version = match &*self.shared().handshake() {
            Some(handshake) if handshake.era == Era::Modern => handshake.protocol_version.clone(),
            _ => return Ok(text),
        };
        let text = text.unwrap_or_else(|| "{}".to_owned());
        let malformed = |_| CallError::Invalid(ParseError::Envelope("`params` must be an object"));
        let object = json::Object::scan(text.as_bytes(), 0..text.len()).map_err(malformed)?;
        let mut edits = Edits::new();
        edits.set(&object, "_meta", &format!("{{{}}}", era::own_meta_members(&version))).map_err(malformed)?;
        let edited = edits.apply(&Bytes::copy_from_slice(text.as_bytes()));
        String::from_utf8(edited.to_vec()).map(Some).map_err(|_| CallError::Invalid(ParseError::Json))
    }

    /// A request of the connection itself. Giving it up is never told to the server: some end of it.
    fn ask(&self, method: &str, params: Option<&str>) -> Result<Stream, CallError> {
        let id = self.shared().next_id.fetch_add(1, Ordering::Relaxed);
        let (call, events) = Call::own(id);
        let request = envelope::request(&id.to_string(), method, params);
        self.start(id, call, events, request, false)
    }

    fn send_request(&self, context: MessageContext, message: &Message) -> Result<Stream, CallError> {
        if message.method() == "initialize" {
            return Err(ParseError::Envelope("the server's connection is initialized already").into());
        }
        let id = self.shared().next_id.fetch_add(1, Ordering::Relaxed);
        let token = message.progress_token().map_err(ParseError::from)?;
        let upstream_id = id.to_string();
        let mut edits = Edits::new();
        if let Some(token) = token.clone() {
            edits.replace(token, upstream_id.as_str());
        }
        message.edit_id(&mut edits, &upstream_id);
        let caller_id = message.id().expect("a request has an id");
        let lasting = message.method() == "subscriptions/listen";
        let whose = Whose { share: context.share, room: self.shared().room.clone() };
        let (mut call, events) =
            Call::of_caller(whose, caller_id, token.map(|span| message.bytes().slice(span)), lasting);
        call.name = context.call;
        self.start(id, call, events, edits.apply(message.bytes()), true)
    }

    fn start(
        &self,
        id: u64,
        call: Call,
        events: mpsc::Receiver<Event>,
        request: Bytes,
        cancel: bool,
    ) -> Result<Stream, CallError> {
        let shared = self.shared().clone();
        // Counted and queued in one order.
        let mut calls = shared.calls();
        calls.begin(id, call)?;
        if let Err(error) = shared.queue.push(request) {
            calls.end(id);
            return Err(error);
        }
        drop(calls);
        Ok(Stream { events: Some(events), call: Some((shared, id)), cancel })
    }

    fn send_notification(&self, call: Option<u128>, message: Message) -> Result<Stream, CallError> {
        match message.method() {
            // The handshake is the connection's own.
            "notifications/initialized" => {}
            "notifications/cancelled" => self.cancel_for_caller(call, &message)?,
            _ => self.shared().queue.push(message.into_bytes())?,
        }
        Ok(Stream::empty())
    }

    fn cancel_for_caller(&self, call: Option<u128>, message: &Message) -> Result<(), CallError> {
        let Some(params) = message.payload_object() else { return Ok(()) };
        let Some(span) = params.get("requestId").map_err(ParseError::from)? else { return Ok(()) };
        let shared = self.shared();
        let found = match call {
            Some(name) => shared.calls().by_name(name),
            None => shared.calls().by_caller_id(message.text(span.clone())),
        };
        let Some(id) = found else { return Ok(()) };
        let mut edits = Edits::new();
        edits.replace(span, id.to_string());
        let given_up = shared.calls().give_up(id, edits.apply(message.bytes()), shared.heard());
        if let Some((call, due)) = given_up {
            shared.tell(due);
            call.finish(Err(CallError::Cancelled));
        }
        Ok(())
    }

    fn send_answer(&self, message: Message) -> Result<Stream, CallError> {
        // Only what the server asked and still waits for: a caller must not answer another caller's question.
        let asked = message.raw_id().is_some_and(|id| self.shared().calls().take_question(id).is_some());
        if asked {
            self.shared().queue.push(message.into_bytes())?;
        }
        Ok(Stream::empty())
    }
}

/// What comes back for one message: notifications and questions of the call, its response, then the end.
#[derive(Debug)]
pub struct Stream {
    events: Option<mpsc::Receiver<Event>>,
    /// Present until the call has ended.
    call: Option<(Arc<Shared>, u64)>,
    cancel: bool,
}

impl Stream {
    fn empty() -> Self {
        Self { events: None, call: None, cancel: false }
    }

    /// The next message; `None` after the response. An error ends the stream.
    pub async fn next(&mut self) -> Option<Result<Bytes, CallError>> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    /// Ends the call before its response; the server is told why.
    pub fn give_up(mut self, reason: &str) {
        self.end_call(reason);
    }

    fn end_call(&mut self, reason: &str) {
        let Some((shared, id)) = self.call.take() else { return };
        if !self.cancel {
            shared.calls().end(id);
            return;
        }
        let given_up = shared.calls().give_up(id, envelope::cancelled(id, reason), shared.heard());
        if let Some((_, due)) = given_up {
            shared.tell(due);
        }
    }

    /// Waits for the response of a call of our own and takes its result out. Waiting may be given up and begun again.
    async fn result(&mut self) -> Result<Bytes, CallError> {
        while let Some(message) = self.next().await {
            let message = Message::parse(message?)?;
            match message.kind() {
                Kind::Result => return message.payload().ok_or(CallError::Unexpected("an answer without a result")),
                Kind::Error => return Err(crate::error::server_error(&message)),
                Kind::Request | Kind::Notification => {}
            }
        }
        Err(CallError::Ended)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, CallError>>> {
        let Some(events) = &mut self.events else { return Poll::Ready(None) };
        let event = std::task::ready!(events.poll_recv(cx));
        Poll::Ready(match event {
            Some(Event::Message(message)) => Some(Ok(message)),
            Some(Event::Last(answer)) => {
                self.events = None;
                self.call = None;
                Some(answer)
            }
            None => {
                self.events = None;
                self.call.take().map(|_| Err(CallError::Ended))
            }
        })
    }
}

impl futures_util::Stream for Stream {
    type Item = Result<Bytes, CallError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(cx)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.end_call(CancelReason::CALLER_LEFT);
    }
}

/// Something the connection asked for itself, whose answer is waited for; see [`Connection::begin_request`].
#[derive(Debug)]
pub struct Asked {
    at: Instant,
    stream: Stream,
}

impl Asked {
    /// Waits for the result. Waiting may be given up and begun again.
    ///
    /// # Errors
    /// When there is none.
    pub async fn result(&mut self) -> Result<Bytes, CallError> {
        self.stream.result().await
    }

    /// How long ago it was asked.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.at.elapsed()
    }
}

#[cfg(test)]
mod tests;
