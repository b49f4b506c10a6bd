//! A server's standard input, which outlives the agents that write to it.
//!
//! An agent that dies while the server does not read may leave the beginning of a message there. The next one ends that
//! line before it writes anything; it must know of it, for a server may end of an empty line, which is no message. So a
//! write that stopped within a line makes a file in the instance's directory, and the one that ends the line removes it.
//! It holds nothing of the message. A message that the server takes at once costs nothing.
//!
//! It is made after the write: an agent that is killed between the two leaves a line that nobody knows of. An agent of a
//! version before this file never made it, and what it left is not ended either. Both are rarer than a strict server.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

const CUT_FILE: &str = "input-cut";

/// The standard input of one server.
pub(crate) struct Input<W> {
    inner: W,
    file: PathBuf,
    /// What was written last is within a line.
    cut: bool,
    /// An earlier agent's line is to be ended first.
    owed: bool,
}

impl<W> Input<W> {
    /// The input of the server of the instance in `dir`; whether an earlier agent wrote to it.
    pub(crate) fn new(inner: W, dir: &Path, taken_over: bool) -> Self {
        let file = dir.join(CUT_FILE);
        let left = file.exists();
        let mut input = Self { inner, file, cut: left, owed: left && taken_over };
        if !taken_over {
            // Of a server that has ended.
            input.note(false);
        }
        input
    }

    fn note(&mut self, cut: bool) {
        if self.cut == cut {
            return;
        }
        let noted = match cut {
            true => std::fs::File::create(&self.file).map(drop),
            false => std::fs::remove_file(&self.file),
        };
        match noted {
            Ok(()) => self.cut = cut,
            Err(error) if !cut && error.kind() == io::ErrorKind::NotFound => self.cut = false,
            // Tried again with the next write.
            Err(error) => {
                tracing::warn!(path = %self.file.display(), %error, "note whether a message was written to its end");
            }
        }
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Input<W> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.owed {
            if ready!(Pin::new(&mut this.inner).poll_write(cx, b"\n"))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            this.owed = false;
            this.note(false);
        }
        let count = ready!(Pin::new(&mut this.inner).poll_write(cx, bytes))?;
        if let Some(last) = bytes.get(..count).and_then(<[u8]>::last) {
            this.note(*last != b'\n');
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const ROOM: usize = 8;

    /// What a server reads that has not read until an agent was killed within a message, and then gets one of the next.
    async fn read_after(first: &[u8], taken_over: bool) -> String {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut agents, mut server) = tokio::io::duplex(ROOM);
        let mut input = Input::new(&mut agents, dir.path(), false);
        let mut written = 0;
        while written < first.len().min(ROOM) {
            written += input.write(&first[written..]).await.expect("there is room");
        }
        let mut read = String::new();
        let next = async {
            let mut input = Input::new(agents, dir.path(), taken_over);
            input.write_all(b"next\n").await.expect("it is read");
            input.write_all(b"last\n").await.expect("it is read");
        };
        let (count, ()) = tokio::join!(server.read_to_string(&mut read), next);
        count.expect("text");
        assert!(!dir.path().join(CUT_FILE).exists(), "all is written to its end");
        read
    }

    #[tokio::test]
    async fn a_line_that_an_agent_left_half_written_is_ended_by_the_next_once() {
        assert_eq!(read_after(b"a long message\n", true).await, "a long m\nnext\nlast\n");
    }

    #[tokio::test]
    async fn nothing_is_written_before_a_message_when_the_one_before_was_whole() {
        assert_eq!(read_after(b"short\n", true).await, "short\nnext\nlast\n");
        assert_eq!(read_after(b"", true).await, "next\nlast\n");
    }

    #[tokio::test]
    async fn what_was_left_of_a_server_that_has_ended_does_not_concern_the_next() {
        assert_eq!(read_after(b"a long message\n", false).await, "a long mnext\nlast\n");
    }
}
