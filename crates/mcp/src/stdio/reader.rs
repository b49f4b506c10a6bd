//! The task that reads from the server: cuts lines, sorts messages, keeps noise apart.

use super::{CallError, MAX_UNSOLICITED_BYTES, Noise, Shared};
use crate::envelope::{self, Kind, Message};
use crate::era::{code, meta};
use crate::json::{self, Edits, Object};
use bytes::{Buf, Bytes, BytesMut};
use serde_json::value::RawValue;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Instant;

/// How much is read at once.
const READ_BYTES: usize = 64 << 10;
/// The longest line that is copied out of the buffer.
const COPIED_BYTES: usize = 16 << 10;
/// How much of an overlong line's head and tail is kept to find its id.
const EDGE_BYTES: usize = 1024;
/// How much of a line of noise is kept.
const NOISE_BYTES: usize = 4096;
/// How long in all whoever takes noise is waited for, until they have caught up: what comes at once, as after a take-over,
/// is more than they take at once, but noise must not hold up the protocol for long.
const NOISE_PATIENCE: Duration = Duration::from_secs(1);

/// Reads until the connection or the server's output ends.
pub(super) async fn run(shared: Arc<Shared>, stdout: impl AsyncRead + Send + Unpin) {
    let end = shared.end.clone();
    tokio::select! {
        () = end.cancelled() => {}
        _ = read_all(&shared, stdout) => {}
    }
    shared.close();
}

async fn read_all(shared: &Shared, mut stdout: impl AsyncRead + Send + Unpin) -> std::io::Result<()> {
    let mut lines = Lines::new(shared.max_message_bytes);
    let mut noise = NoiseOut { to: &shared.noise, patience: NOISE_PATIENCE, lost: 0 };
    loop {
        lines.buffer.reserve(READ_BYTES);
        let read = stdout.read_buf(&mut lines.buffer).await?;
        if read == 0 {
            if let Some(text) = lines.rest().and_then(|rest| take_rest(shared, rest)) {
                noise.hand_on(text).await;
            }
            noise.end().await;
            return Ok(());
        }
        while let Some(line) = lines.next_line() {
            match line {
                Line::Whole(line) => {
                    if let Some(text) = take_line(shared, line) {
                        noise.hand_on(text).await;
                    }
                }
                Line::TooLong { head, tail } => {
                    shared.resumed.store(false, Ordering::Relaxed);
                    fail_too_long(shared, &head, &tail);
                }
            }
        }
    }
}

enum Line {
    Whole(Bytes),
    TooLong { head: Bytes, tail: Bytes },
}

/// Cuts a byte stream into lines in bounded memory.
struct Lines {
    buffer: BytesMut,
    /// How much of the buffer is known to hold no line break.
    scanned: usize,
    /// The head of an overlong line that is being skipped.
    skipping: Option<Bytes>,
    max: usize,
}

impl Lines {
    fn new(max: usize) -> Self {
        Self { buffer: BytesMut::new(), scanned: 0, skipping: None, max }
    }

    fn next_line(&mut self) -> Option<Line> {
        let found = self.buffer[self.scanned..].iter().position(|byte| *byte == b'\n');
        let Some(offset) = found else {
            self.scanned = self.buffer.len();
            self.skip_overlong();
            return None;
        };
        let line = self.take(self.scanned + offset);
        self.buffer.advance(1);
        self.scanned = 0;
        if let Some(head) = self.skipping.take() {
            let tail = line.slice(line.len().saturating_sub(EDGE_BYTES)..);
            return Some(Line::TooLong { head, tail });
        }
        if line.len() > self.max {
            let head = line.slice(..line.len().min(EDGE_BYTES));
            let tail = line.slice(line.len().saturating_sub(EDGE_BYTES)..);
            return Some(Line::TooLong { head, tail });
        }
        Some(Line::Whole(line))
    }

    /// Takes bytes off the front. Few of them are copied: the buffer stays whole, and need not be made anew.
    fn take(&mut self, len: usize) -> Bytes {
        if len > COPIED_BYTES {
            return self.buffer.split_to(len).freeze();
        }
        let line = Bytes::copy_from_slice(&self.buffer[..len]);
        self.buffer.advance(len);
        line
    }

    /// Forgets what is too long already, but for its head and its latest bytes.
    fn skip_overlong(&mut self) {
        let len = self.buffer.len();
        let limit = if self.skipping.is_some() { READ_BYTES } else { self.max };
        if len <= limit {
            return;
        }
        if self.skipping.is_none() {
            self.skipping = Some(Bytes::copy_from_slice(&self.buffer[..EDGE_BYTES.min(len)]));
        }
        // A fresh buffer gives the memory of the long one back.
        self.buffer = BytesMut::from(&self.buffer[len - EDGE_BYTES.min(len)..]);
        self.scanned = self.buffer.len();
    }

    fn rest(&mut self) -> Option<Bytes> {
        (self.skipping.is_none() && !self.buffer.is_empty()).then(|| self.buffer.split().freeze())
    }
}

/// Noise on its way to whoever takes it.
struct NoiseOut<'a> {
    to: &'a Sender<Noise>,
    patience: Duration,
    lost: u64,
}

impl NoiseOut<'_> {
    async fn hand_on(&mut self, text: String) {
        if self.to.capacity() == self.to.max_capacity() {
            self.patience = NOISE_PATIENCE;
        }
        self.tell_lost();
        match self.to.try_send(Noise::Line(text)) {
            Ok(()) | Err(TrySendError::Closed(_)) => return,
            Err(TrySendError::Full(line)) if !self.patience.is_zero() => {
                let began = Instant::now();
                let sent = self.to.send_timeout(line, self.patience).await;
                self.patience = self.patience.saturating_sub(began.elapsed());
                if sent.is_ok() {
                    return;
                }
            }
            Err(TrySendError::Full(_)) => {}
        }
        self.lost += 1;
    }

    /// Says what was lost last, for which it waits a moment.
    async fn end(self) {
        if self.lost > 0 {
            // Whoever takes nothing even now does not hear of it.
            let _ = self.to.send_timeout(Noise::Lost(self.lost), NOISE_PATIENCE).await;
        }
    }

    fn tell_lost(&mut self) {
        if self.lost > 0 && self.to.try_send(Noise::Lost(self.lost)).is_ok() {
            self.lost = 0;
        }
    }
}

/// Takes a line; gives it back as text when it is noise.
fn take_line(shared: &Shared, line: Bytes) -> Option<String> {
    let is_first = shared.resumed.swap(false, Ordering::Relaxed);
    let line = take_if_message(shared, line)?;
    take_noise(shared, &line, is_first)
}

/// Takes a last line without its line break, which still counts; gives it back as text when it is noise. The server may
/// have ended in the middle of a message: what may be a part of one is written down nowhere.
fn take_rest(shared: &Shared, rest: Bytes) -> Option<String> {
    // After a take-over its beginning too may have been read by somebody else.
    if shared.resumed.swap(false, Ordering::Relaxed) {
        return None;
    }
    let rest = take_if_message(shared, rest)?;
    if matches!(rest.first(), Some(b'{' | b'[')) {
        return None;
    }
    take_noise(shared, &rest, false)
}

/// Takes a line that is a message or a batch; gives any other back without the blanks it begins with, unless it is blank.
fn take_if_message(shared: &Shared, line: Bytes) -> Option<Bytes> {
    let start = line.iter().position(|byte| !byte.is_ascii_whitespace())?;
    let line = line.slice(start..);
    if line[0] == b'[' && take_batch(shared, &line) {
        return None;
    }
    match Message::parse(line.clone()) {
        Ok(message) => {
            take_message(shared, &message);
            None
        }
        Err(_) => Some(line),
    }
}

/// Servers of 2025-03-26 may answer in batches, whether or not they were asked in one.
fn take_batch(shared: &Shared, line: &Bytes) -> bool {
    let Ok(parts) = serde_json::from_slice::<Vec<&RawValue>>(line) else { return false };
    let messages: Result<Vec<_>, _> =
        parts.iter().map(|part| Message::parse(Bytes::copy_from_slice(part.get().as_bytes()))).collect();
    let Ok(messages) = messages else { return false };
    messages.iter().for_each(|message| take_message(shared, message));
    !messages.is_empty()
}

fn take_noise(shared: &Shared, line: &[u8], is_first: bool) -> Option<String> {
    // After a take-over the first line may be the end of a message whose beginning somebody else read: what calls and
    // their results say is written down nowhere.
    if is_first && may_end_message(line) {
        return None;
    }
    let text = String::from_utf8_lossy(&line[..line.len().min(NOISE_BYTES)]).trim_end().to_owned();
    if !shared.spoke.load(Ordering::Relaxed) {
        let mut first = shared.first_noise.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert_with(|| text.clone());
    }
    Some(text)
}

/// Whether a line that is no message may be the end of one: that ends as an object or a batch does, and is never JSON
/// itself.
fn may_end_message(line: &[u8]) -> bool {
    let line = line.trim_ascii_end();
    matches!(line.last(), Some(b'}' | b']')) && serde_json::from_slice::<&RawValue>(line).is_err()
}

fn take_message(shared: &Shared, message: &Message) {
    shared.spoke.store(true, Ordering::Relaxed);
    shared.note_heard();
    match message.kind() {
        Kind::Result | Kind::Error => take_answer(shared, message),
        Kind::Request => take_question(shared, message),
        Kind::Notification => take_notification(shared, message),
    }
}

fn take_answer(shared: &Shared, message: &Message) {
    // An error without an id answers something the server could not read, such as a message that was left half-written
    // before a take-over. What we send is valid, so it is no call's answer.
    let Some(id) = message.id().and_then(|id| id.as_number()) else { return };
    let Some(call) = shared.answered(id) else { return };
    let answer = message.with_id(call.caller_id.raw());
    call.finish(Ok(answer));
}

fn take_question(shared: &Shared, message: &Message) {
    let Some(id) = message.raw_id() else { return };
    if message.method() == "ping" {
        let _ = shared.queue.push(envelope::result(id, "{}"));
        return;
    }
    let mut calls = shared.calls();
    let given = match calls.only_callers() {
        Some((call_id, call)) if call.offer(message.bytes().clone()) => Some(call_id),
        _ => None,
    };
    if let Some(call_id) = given {
        calls.ask(id, call_id);
        return;
    }
    drop(calls);
    let why = "this question cannot be tied to one caller";
    let _ = shared.queue.push(envelope::error(Some(id), code::METHOD_NOT_FOUND, why, None));
}

fn take_notification(shared: &Shared, message: &Message) {
    match message.method() {
        "notifications/progress" => take_progress(shared, message),
        "notifications/cancelled" => take_cancelled(shared, message),
        "notifications/message" => take_log(shared, message),
        _ => take_other(shared, message),
    }
}

fn take_progress(shared: &Shared, message: &Message) {
    let Ok(Some(span)) = message.progress_token() else { return };
    let Some(id) = envelope::lenient_number(message.text(span.clone())) else { return };
    let mut calls = shared.calls();
    // Progress of a call that has ended, or that asked for none, would confuse its caller.
    let Some(call) = calls.taken_up(id) else { return };
    let Some(token) = &call.token else { return };
    let mut edits = Edits::new();
    edits.replace(span, String::from_utf8_lossy(token).into_owned());
    call.offer(edits.apply(message.bytes()));
}

/// A modern server ends a subscription this way; a legacy one takes back a question.
fn take_cancelled(shared: &Shared, message: &Message) {
    let Some(params) = message.payload_object() else { return };
    let Ok(Some(span)) = params.get("requestId") else { return };
    let raw = message.text(span);
    let mut calls = shared.calls();
    if let Some(asked) = calls.take_question(raw) {
        if let Some(call) = calls.taken_up(asked) {
            call.offer(message.bytes().clone());
        }
        return;
    }
    let ended = envelope::lenient_number(raw).and_then(|id| calls.end(id));
    drop(calls);
    if let Some(call) = ended {
        call.finish(Err(CallError::Cancelled));
    }
}

/// A log message on a shared stream names no call. Where it is not certain whose it is, it is nobody's.
fn take_log(shared: &Shared, message: &Message) {
    if let Some((_, call)) = shared.calls().only_callers() {
        call.offer(message.bytes().clone());
    }
}

fn take_other(shared: &Shared, message: &Message) {
    let Some((span, id)) = subscription(message) else {
        return publish(shared, message.bytes().clone());
    };
    if id == shared.listen_id.load(Ordering::Relaxed) {
        if message.method() != "notifications/subscriptions/acknowledged" {
            publish(shared, message.bytes().clone());
        }
        return;
    }
    if let Some(call) = shared.calls().taken_up(id) {
        let mut edits = Edits::new();
        edits.replace(span, call.caller_id.raw());
        call.offer(edits.apply(message.bytes()));
    }
}

fn subscription(message: &Message) -> Option<(json::Span, u64)> {
    let meta: Object<'_> = message.meta().ok()??;
    let span = meta.get(meta::SUBSCRIPTION_ID).ok()??;
    let id = envelope::lenient_number(message.text(span.clone()))?;
    Some((span, id))
}

fn publish(shared: &Shared, message: Bytes) {
    if message.len() > MAX_UNSOLICITED_BYTES {
        tracing::debug!(bytes = message.len(), "the server sent a notification that is too long; it was dropped");
        return;
    }
    // Nobody listening is fine.
    let _ = shared.unsolicited.send(message);
}

fn fail_too_long(shared: &Shared, head: &[u8], tail: &[u8]) {
    let limit_bytes = shared.max_message_bytes;
    tracing::warn!(limit_bytes, "the server sent a message that is too long; it was skipped");
    let call = match id_in_head(head).or_else(|| id_in_tail(tail)) {
        Some(id) => shared.answered(id),
        None => shared.calls().end_only(),
    };
    if let Some(call) = call {
        call.finish(Err(CallError::TooLong { limit_bytes }));
    }
}

/// The id when it comes before the long part: `{"jsonrpc":"2.0","id":7,"result":...`.
fn id_in_head(head: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(head);
    let before_result = text.split("\"result\"").next()?;
    number_after_id(before_result)
}

/// The id when it comes after the long part: `...},"jsonrpc":"2.0","id":7}`.
fn id_in_tail(tail: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(tail);
    let (_, after) = text.rsplit_once("\"id\"")?;
    let envelope_end = after.trim_end().strip_suffix('}')?;
    let value = envelope_end.trim_start().strip_prefix(':')?;
    envelope::lenient_number(value.split(',').next()?.trim())
}

fn number_after_id(text: &str) -> Option<u64> {
    let (_, after) = text.split_once("\"id\"")?;
    let value = after.trim_start().strip_prefix(':')?;
    envelope::lenient_number(value.split([',', '}']).next()?.trim())
}
