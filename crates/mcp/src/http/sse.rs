//! Server-sent events, read in bounded memory.

use crate::error::CallError;
use crate::room::Growing;
use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::time::Duration;

/// The pause before a resumption when the server names none.
const DEFAULT_RETRY: Duration = Duration::from_secs(1);
/// The longest event id kept.
const MAX_ID_BYTES: usize = 1024;
/// What field names and other lines may add to an event's data.
const MARGIN_BYTES: usize = 64 << 10;

/// One event with data.
pub(super) struct Event {
    pub(super) data: Bytes,
}

/// Takes events out of a body.
pub(super) struct Sse {
    body: Incoming,
    lines: Lines,
    room: Growing,
}

impl Sse {
    pub(super) fn new(body: Incoming, max_bytes: usize, room: Growing) -> Self {
        Self { body, lines: Lines::new(max_bytes), room }
    }

    /// The same, where longer events are left out.
    pub(super) fn of_short_ones(body: Incoming, max_bytes: usize, room: Growing) -> Self {
        let lines = Lines { leaves_out: true, ..Lines::new(max_bytes) };
        Self { body, lines, room }
    }

    /// The next event; `None` at the end of the stream.
    pub(super) async fn next(&mut self) -> Result<Option<Event>, CallError> {
        loop {
            let event = self.lines.next_event()?;
            // Anew for each event: its own bytes are whoever takes it has to account for.
            self.room.cover(self.lines.buffer.len() + self.lines.data.len())?;
            if let Some(event) = event {
                return Ok(Some(event));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.lines.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(_)) => return Err(CallError::Ended),
            }
        }
    }

    /// The id of the last event that had one.
    pub(super) fn last_id(&self) -> Option<&str> {
        self.lines.last_id.as_deref()
    }

    /// The pause the server asks for before a resumption.
    pub(super) fn retry(&self) -> Duration {
        self.lines.retry
    }

    /// The same stream going on in another body.
    pub(super) fn resume(&mut self, body: Incoming) {
        let mut lines = Lines { leaves_out: self.lines.leaves_out, ..Lines::new(self.lines.max_bytes) };
        lines.last_id = self.lines.last_id.take();
        lines.retry = self.lines.retry;
        (self.body, self.lines) = (body, lines);
    }
}

struct Lines {
    buffer: BytesMut,
    scanned: usize,
    data: BytesMut,
    has_data: bool,
    last_id: Option<String>,
    retry: Duration,
    max_bytes: usize,
    /// Whether an event that is too long is left out, where else it is the end.
    leaves_out: bool,
    /// The event under way is.
    too_long: bool,
    /// The line under way has lost its beginning.
    cut: bool,
}

impl Lines {
    fn new(max_bytes: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            scanned: 0,
            data: BytesMut::new(),
            has_data: false,
            last_id: None,
            retry: DEFAULT_RETRY,
            max_bytes,
            leaves_out: false,
            too_long: false,
            cut: false,
        }
    }

    fn next_event(&mut self) -> Result<Option<Event>, CallError> {
        loop {
            let Some(offset) = self.buffer[self.scanned..].iter().position(|byte| *byte == b'\n') else {
                self.scanned = self.buffer.len();
                if self.data.len() + self.buffer.len() > self.max_bytes + MARGIN_BYTES {
                    self.leave_out()?;
                    (self.buffer, self.scanned, self.cut) = (BytesMut::new(), 0, true);
                }
                return Ok(None);
            };
            let mut line = self.buffer.split_to(self.scanned + offset);
            self.buffer.advance(1);
            self.scanned = 0;
            if std::mem::take(&mut self.cut) {
                continue;
            }
            if line.last() == Some(&b'\r') {
                line.truncate(line.len() - 1);
            }
            if line.is_empty() {
                let is_whole = !std::mem::take(&mut self.too_long);
                if std::mem::take(&mut self.has_data) && is_whole {
                    return Ok(Some(Event { data: self.data.split().freeze() }));
                }
                continue;
            }
            if self.too_long {
                continue;
            }
            self.take_field(&line);
            if self.data.len() > self.max_bytes + MARGIN_BYTES {
                self.leave_out()?;
            }
        }
    }

    /// The event under way is too long.
    fn leave_out(&mut self) -> Result<(), CallError> {
        if !self.leaves_out {
            return Err(CallError::TooLong { limit_bytes: self.max_bytes });
        }
        (self.data, self.too_long) = (BytesMut::new(), true);
        Ok(())
    }

    fn take_field(&mut self, line: &[u8]) {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or(b"");
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match &line[..colon] {
            b"data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.data.extend_from_slice(b"\n");
                }
                self.data.extend_from_slice(value);
            }
            b"id" if value.len() <= MAX_ID_BYTES && !value.contains(&0) => {
                self.last_id = std::str::from_utf8(value).ok().map(str::to_owned);
            }
            b"retry" => {
                let ms = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                self.retry = ms.map_or(self.retry, Duration::from_millis);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(text: &str, chunk: usize) -> Vec<String> {
        let mut lines = Lines::new(1 << 20);
        let mut out = Vec::new();
        for chunk in text.as_bytes().chunks(chunk) {
            lines.buffer.extend_from_slice(chunk);
            while let Some(event) = lines.next_event().unwrap() {
                out.push(String::from_utf8(event.data.to_vec()).unwrap());
            }
        }
        out
    }

    #[test]
    fn events_survive_any_chunking_comments_and_line_ends() {
        let text = ": hi\n\nevent: message\ndata: {\"a\":1}\nid: 7\n\ndata:x\r\ndata: y\r\n\r\nretry: 5\n\ndata: cut";
        for chunk in [1, 2, 7, 1000] {
            assert_eq!(events(text, chunk), ["{\"a\":1}", "x\ny"]);
        }
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut lines = Lines::new(10);
        lines.buffer.extend_from_slice(&vec![b'x'; 70 << 10]);
        assert!(matches!(lines.next_event(), Err(CallError::TooLong { limit_bytes: 10 })));
    }
    #[test]
    fn an_event_that_is_too_long_is_left_out_where_that_is_wanted_and_none_of_it_is_kept() {
        let long = "x".repeat(200 << 10);
        let text = format!("data: a\n\ndata: {long}\ndata: more\n\ndata: b\n\ndata: {long}\n\n: {long}\ndata: c\n\n");
        for chunk in [1000, 70 << 10, 1 << 20] {
            let mut lines = Lines { leaves_out: true, ..Lines::new(10) };
            let mut seen = Vec::new();
            for chunk in text.as_bytes().chunks(chunk) {
                lines.buffer.extend_from_slice(chunk);
                while let Some(event) = lines.next_event().unwrap() {
                    seen.push(event.data);
                }
                assert!(lines.buffer.len() + lines.data.len() <= 10 + MARGIN_BYTES);
            }
            assert_eq!(seen.first().map(|event| &event[..]), Some(&b"a"[..]), "{chunk}");
            assert!(seen.iter().any(|event| &event[..] == b"b"), "{chunk}");
            assert!(seen.iter().all(|event| event.len() < 10), "{chunk}");
        }
    }
}
