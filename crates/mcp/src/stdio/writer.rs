//! The task that writes to the server, and the bounded queue before it.

use super::{CallError, Shared};
use bytes::{BufMut, Bytes, BytesMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

/// How many messages may wait to be written.
const MAX_QUEUED: usize = 20_000;
/// How many bytes may wait to be written.
const MAX_QUEUED_BYTES: usize = 64 << 20;
/// How much is written at once.
const BATCH_BYTES: usize = 64 << 10;

/// Messages that wait to be written. Bounded in number by the channel and in bytes by the count.
#[derive(Debug)]
pub(super) struct Queue {
    messages: mpsc::Sender<Bytes>,
    bytes: Arc<AtomicUsize>,
}

/// The writer's end of a [`Queue`].
pub(super) struct Outgoing {
    messages: mpsc::Receiver<Bytes>,
    bytes: Arc<AtomicUsize>,
}

pub(super) fn queue() -> (Queue, Outgoing) {
    let (sender, receiver) = mpsc::channel(MAX_QUEUED);
    let bytes = Arc::new(AtomicUsize::new(0));
    (Queue { messages: sender, bytes: bytes.clone() }, Outgoing { messages: receiver, bytes })
}

impl Queue {
    pub(super) fn push(&self, message: Bytes) -> Result<(), CallError> {
        let len = message.len();
        if self.bytes.fetch_add(len, Ordering::AcqRel) > MAX_QUEUED_BYTES {
            self.bytes.fetch_sub(len, Ordering::AcqRel);
            return Err(CallError::Busy);
        }
        self.messages.try_send(message).map_err(|error| {
            self.bytes.fetch_sub(len, Ordering::AcqRel);
            match error {
                mpsc::error::TrySendError::Full(_) => CallError::Busy,
                mpsc::error::TrySendError::Closed(_) => CallError::Closed,
            }
        })
    }
}

/// Writes until the connection ends or the server no longer reads. Dropping `stdin` closes the server's input.
pub(super) async fn run(shared: Arc<Shared>, outgoing: Outgoing, stdin: impl AsyncWrite + Send + Unpin) {
    let end = shared.end.clone();
    tokio::select! {
        () = end.cancelled() => {}
        _ = write_all(outgoing, stdin) => {}
    }
    shared.close();
}

async fn write_all(mut outgoing: Outgoing, mut stdin: impl AsyncWrite + Send + Unpin) -> std::io::Result<()> {
    let mut batch = BytesMut::new();
    while let Some(first) = outgoing.messages.recv().await {
        put_line(&mut batch, &first);
        let mut taken = first.len();
        while batch.len() < BATCH_BYTES
            && let Ok(next) = outgoing.messages.try_recv()
        {
            put_line(&mut batch, &next);
            taken += next.len();
        }
        stdin.write_all(&batch).await?;
        stdin.flush().await?;
        batch.clear();
        if batch.capacity() > 4 * BATCH_BYTES {
            batch = BytesMut::new();
        }
        outgoing.bytes.fetch_sub(taken, Ordering::AcqRel);
    }
    Ok(())
}

/// One message, one line. Line breaks between tokens become spaces; inside a JSON string they cannot occur raw.
fn put_line(batch: &mut BytesMut, message: &[u8]) {
    let start = batch.len();
    batch.put_slice(message);
    for byte in &mut batch[start..] {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    batch.put_u8(b'\n');
}
