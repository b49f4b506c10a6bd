//! Framing of raw messages in one HTTP body: a big-endian `u32` length, then that many bytes.
//!
//! MCP messages travel the link as they are; JSON text over HTTP may hold newlines, so lines will not do.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The longest frame, in bytes; a longer one breaks the stream. The longest message is 16 MiB.
pub const MAX_FRAME_BYTES: usize = (16 << 20) + (64 << 10);

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

/// Messages up to this are copied behind their length: one write costs more than that.
const COPIED_BYTES: usize = 4 << 10;

/// The frame of one message as one or two chunks; a long message is a chunk of its own, not a copy.
pub fn chunks(message: Bytes) -> impl Iterator<Item = Bytes> + Send + use<> {
    let chunks = if message.len() <= COPIED_BYTES {
        [Some(encode(&message)), None]
    } else {
        let len = u32::try_from(message.len()).expect("a message is bounded far below 4 GiB where it is read");
        [Some(Bytes::copy_from_slice(&len.to_be_bytes())), Some(message)]
    };
    chunks.into_iter().flatten()
}

/// Takes messages out of a stream of chunks. A message that came in one chunk is a part of it, not a copy.
#[derive(Debug, Default)]
pub struct Decoder {
    /// How long the message is whose length has arrived.
    len: Option<usize>,
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
        let Some(len) = self.len()? else { return Ok(None) };
        let arrived = self.arrived().len();
        if arrived < len {
            if arrived > 0 {
                self.gather();
            }
            return Ok(None);
        }
        self.len = None;
        Ok(Some(if self.pieces.is_empty() { self.chunk.split_to(len) } else { self.pieces.split_to(len).freeze() }))
    }

    /// How many bytes have arrived of what is not whole yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.arrived().len()
    }

    /// The length of the next message, once it has arrived; it is taken off then.
    fn len(&mut self) -> Result<Option<usize>, FrameTooLong> {
        if self.len.is_none() {
            let Some(head) = self.arrived().first_chunk::<4>() else { return Ok(None) };
            let len = u32::from_be_bytes(*head) as usize;
            if len > MAX_FRAME_BYTES {
                return Err(FrameTooLong(len));
            }
            if self.pieces.is_empty() {
                self.chunk.advance(4)
            } else {
                self.pieces.advance(4)
            }
            self.len = Some(len);
        }
        Ok(self.len)
    }

    fn arrived(&self) -> &[u8] {
        if self.pieces.is_empty() { &self.chunk } else { &self.pieces }
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
    fn a_long_message_is_neither_copied_into_its_frame_nor_out_of_it() {
        let message = Bytes::from(vec![b'x'; COPIED_BYTES + 1]);
        let mut decoder = Decoder::default();
        let mut seen = Vec::new();
        for chunk in chunks(message.clone()).chain(chunks(Bytes::from_static(b"short"))) {
            decoder.push(chunk);
            seen.extend(decoder.next_frame().expect("short frames"));
        }
        assert_eq!((&seen[0], seen[0].as_ptr(), &seen[1][..]), (&message, message.as_ptr(), &b"short"[..]));
        assert_eq!(seen.len(), 2);
    }

    #[test]
    fn an_endless_frame_is_refused_at_once() {
        let mut decoder = Decoder::default();
        decoder.push(Bytes::copy_from_slice(&u32::MAX.to_be_bytes()));
        assert_eq!(decoder.next_frame(), Err(FrameTooLong(u32::MAX as usize)));
    }
}
