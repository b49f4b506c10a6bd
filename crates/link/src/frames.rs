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

/// Takes messages out of a stream of chunks.
#[derive(Debug, Default)]
pub struct Decoder(BytesMut);

impl Decoder {
    /// Adds a chunk as it arrived.
    pub fn push(&mut self, chunk: &[u8]) {
        self.0.extend_from_slice(chunk);
    }

    /// The next whole message, if it has arrived.
    ///
    /// # Errors
    /// When the other side announces a frame longer than [`MAX_FRAME_BYTES`].
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameTooLong> {
        let Some(head) = self.0.first_chunk::<4>() else { return Ok(None) };
        let len = u32::from_be_bytes(*head) as usize;
        if len > MAX_FRAME_BYTES {
            return Err(FrameTooLong(len));
        }
        if self.0.len() < 4 + len {
            self.0.reserve(4 + len - self.0.len());
            return Ok(None);
        }
        self.0.advance(4);
        Ok(Some(self.0.split_to(len).freeze()))
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
            decoder.push(&[byte]);
            while let Some(frame) = decoder.next_frame().expect("short frames") {
                seen.push(frame);
            }
        }
        assert_eq!(seen, [&b"{}"[..], b"", b"{\"a\":\n1}"]);
    }

    #[test]
    fn an_endless_frame_is_refused_at_once() {
        let mut decoder = Decoder::default();
        decoder.push(&u32::MAX.to_be_bytes());
        assert_eq!(decoder.next_frame(), Err(FrameTooLong(u32::MAX as usize)));
    }
}
