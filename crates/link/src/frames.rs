//! Framing of raw messages in one HTTP body: a big-endian `u32` length, then that many bytes.
//!
//! MCP messages travel the link as they are; JSON text over HTTP may hold newlines, so lines will not do.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The longest frame, in bytes; a longer one breaks the stream.
pub const MAX_FRAME_BYTES: usize = 64 << 20;

/// A frame longer than [`MAX_FRAME_BYTES`] was announced.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {0} bytes is too long")]
pub struct FrameTooLong(pub usize);

/// The frame of one message.
#[must_use]
pub fn encode(message: &[u8]) -> Bytes {
    let len = u32::try_from(message.len()).expect("a message is bounded far below 4 GiB where it is read");
    let mut out = BytesMut::with_capacity(4 + message.len());
    out.put_u32(len);
    out.put_slice(message);
    out.freeze()
}

/// Takes messages out of a stream of chunks. A message that came in one chunk is a part of it, not a copy.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The chunk that is being taken apart, while nothing is left of an earlier one.
    chunk: Bytes,
    /// A message that came in pieces, as far as it has come.
    pieces: BytesMut,
}

impl Decoder {
    /// Adds a chunk as it arrived.
    pub fn push(&mut self, chunk: Bytes) {
        if self.pieces.is_empty() && self.chunk.is_empty() {
            self.chunk = chunk;
            return;
        }
        self.gather();
        self.pieces.extend_from_slice(&chunk);
    }

    /// The next whole message, if it has arrived.
    ///
    /// # Errors
    /// When the other side announces a frame longer than [`MAX_FRAME_BYTES`].
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameTooLong> {
        let arrived = if self.pieces.is_empty() { &self.chunk[..] } else { &self.pieces[..] };
        let Some(head) = arrived.first_chunk::<4>() else { return Ok(None) };
        let len = u32::from_be_bytes(*head) as usize;
        if len > MAX_FRAME_BYTES {
            return Err(FrameTooLong(len));
        }
        if arrived.len() < 4 + len {
            self.gather();
            self.pieces.reserve(4 + len - self.pieces.len());
            return Ok(None);
        }
        Ok(Some(if self.pieces.is_empty() {
            self.chunk.advance(4);
            self.chunk.split_to(len)
        } else {
            self.pieces.advance(4);
            self.pieces.split_to(len).freeze()
        }))
    }

    fn gather(&mut self) {
        self.pieces.extend_from_slice(&std::mem::take(&mut self.chunk));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_chunking() {
        let mut wire = BytesMut::new();
        for message in [&b"{}"[..], b"", b"{\"a\":\n1}"] {
            wire.extend_from_slice(&encode(message));
        }
        let mut decoder = Decoder::default();
        let mut seen = Vec::new();
        for byte in wire {
            decoder.push(Bytes::copy_from_slice(&[byte]));
            while let Some(frame) = decoder.next_frame().expect("short frames") {
                seen.push(frame);
            }
        }
        assert_eq!(seen, [&b"{}"[..], b"", b"{\"a\":\n1}"]);
    }

    #[test]
    fn frames_of_one_chunk_are_parts_of_it_and_its_rest_begins_the_next() {
        let mut wire = BytesMut::new();
        [&b"one"[..], b"two", b"three"].iter().for_each(|message| wire.extend_from_slice(&encode(message)));
        let wire = wire.freeze();
        let mut decoder = Decoder::default();
        decoder.push(wire.slice(..16));
        let first = decoder.next_frame().expect("short").expect("whole");
        assert_eq!((first.as_ptr(), &first[..]), (wire[4..].as_ptr(), &b"one"[..]));
        assert_eq!(decoder.next_frame(), Ok(Some(Bytes::from_static(b"two"))));
        assert_eq!(decoder.next_frame(), Ok(None));
        decoder.push(wire.slice(16..));
        assert_eq!(decoder.next_frame(), Ok(Some(Bytes::from_static(b"three"))));
        assert_eq!(decoder.next_frame(), Ok(None));
    }

    #[test]
    fn an_endless_frame_is_refused_at_once() {
        let mut decoder = Decoder::default();
        decoder.push(Bytes::copy_from_slice(&u32::MAX.to_be_bytes()));
        assert_eq!(decoder.next_frame(), Err(FrameTooLong(u32::MAX as usize)));
    }
}
