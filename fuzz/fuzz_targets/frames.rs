//! Frames of a link: however the bytes are cut, the same frames come out, and what was framed comes out as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use toolyard_link::frames::{Decoder, FrameTooLong, encode};

fuzz_target!(|input: (usize, Vec<u8>)| {
    let (step, wire) = input;
    let whole = decode(wire.chunks(wire.len().max(1)));
    assert_eq!(decode(wire.chunks(step % 64 + 1)), whole);

    let framed = encode(&wire);
    let (frames, error) = decode(framed.chunks(step % 64 + 1));
    assert_eq!((frames, error), (vec![wire], None));
});

fn decode<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, Option<FrameTooLong>) {
    let (mut decoder, mut frames) = (Decoder::default(), Vec::new());
    for chunk in chunks {
        decoder.push(chunk);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame.to_vec()),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}
