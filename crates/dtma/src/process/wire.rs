//! The words between an agent and the supervisor of one instance: JSON lines over a unix socket, with the
//! server's pipes passed beside the first answer.

use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::{Deserialize, Serialize};
use toolyard_types::agent::{Enforcement, LogStream, Usage};
use toolyard_types::spec::Limits;
use toolyard_types::{InstanceId, Secret, Timestamp};

use crate::grants::{Answer, Granted, Question};

/// The longest line either side accepts.
pub(crate) const MAX_LINE_BYTES: usize = 4 << 20;

/// The socket a restarted agent finds a supervisor by, in the instance's directory.
pub(crate) const SOCKET_NAME: &str = "ctl.sock";

/// What a supervisor is started for. Comes on its standard input, which is a socket: never in a file, an
/// argument or its environment, because it holds secrets.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// Find out what this host enforces, answer, end.
    Probe {
        /// An existing directory to try things in.
        dir: PathBuf,
    },
    /// Run one server.
    Start(Box<StartOrder>),
    /// Run a package client to its end, with its output on our own, and end as it did.
    Client {
        /// What to run; it has no log.
        order: Box<StartOrder>,
        /// Whether it gets a network of its own; the listener of its proxy comes with the answer.
        own_network: bool,
    },
    /// Find out whether package clients can have a network of their own, answer, end.
    TryNetwork,
    /// Look at a path of this host, answer, end. Its file system may hang.
    Look(Question),
}

/// How to run one server.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StartOrder {
    /// The instance.
    pub(crate) instance: InstanceId,
    /// Its directory.
    pub(crate) dir: PathBuf,
    /// The program, an absolute path, and its arguments.
    pub(crate) argv: Vec<Secret>,
    /// Its whole environment.
    pub(crate) environment: BTreeMap<String, Secret>,
    /// What it is kept from.
    pub(crate) isolation: Isolation,
    /// What it may use.
    pub(crate) limits: Limits,
    /// How long it lives without an agent.
    pub(crate) orphan_grace_ms: u64,
    /// How long it has to end after its standard input was closed, then after SIGTERM.
    pub(crate) stop_wait_ms: u64,
    /// Where its log is, when not in its directory, and what its lines begin with.
    #[serde(default)]
    pub(crate) log_dir: Option<PathBuf>,
    #[serde(default)]
    pub(crate) log_mark: String,
    /// Texts that must not reach a log.
    pub(crate) redact: Vec<Secret>,
}

/// What a server is kept from.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Isolation {
    /// A user and group of its own.
    pub(crate) uid: Option<u32>,
    /// Own mount, process and IPC namespaces with a minimal root.
    pub(crate) namespaces: bool,
    /// Landlock to the same paths.
    pub(crate) landlock: bool,
    /// Only the system calls that a server needs.
    #[serde(default)]
    pub(crate) seccomp: bool,
    /// Those that make new namespaces among them.
    #[serde(default)]
    pub(crate) new_namespaces: bool,
    /// A network of its own with nothing in it but itself.
    #[serde(default)]
    pub(crate) own_network: bool,
    /// That it may listen on TCP ports of the host's network.
    #[serde(default)]
    pub(crate) listen: bool,
    /// That its supervisor lets no TCP socket of it listen there.
    #[serde(default)]
    pub(crate) refuse_listen: bool,
    /// Ports of this host that it does not reach, by a filter on each of its sockets.
    #[serde(default)]
    pub(crate) shut_ports: Vec<u16>,
    /// Ports that it does not connect to on any host, by Landlock.
    #[serde(default)]
    pub(crate) refused_ports: Vec<u16>,
    /// Paths it sees beyond the system's, read-only.
    pub(crate) read_only: Vec<PathBuf>,
    /// Paths of the host that it was granted.
    pub(crate) granted: Vec<Granted>,
}

/// What a supervisor tells.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ToAgent {
    /// The server runs, or ran; its pipes come with this message.
    Hello(Hello),
    /// The package client runs, or could.
    Client,
    /// It could not be started.
    NotStarted {
        /// Why, for a person.
        message: String,
    },
    /// What it uses.
    Usage(Usage),
    /// It ended, and all its descendants with it.
    Exited(Ended),
    /// The answer to a probe.
    Probed(BTreeMap<String, Enforcement>),
    /// What was found at a path.
    Looked(Answer),
}

/// A running server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// Its process in the host's numbering.
    pub(crate) pid: u32,
    /// Since when.
    pub(crate) started_at: Timestamp,
    /// How many agents this server's pipes were handed to before.
    #[serde(default)]
    pub(crate) handed_over: u32,
    /// How it ended, if it already has.
    pub(crate) ended: Option<Ended>,
}

/// How a server ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    /// The exit code, unless a signal ended it.
    pub(crate) code: Option<i32>,
    /// The signal that ended it.
    pub(crate) signal: Option<i32>,
    /// When.
    pub(crate) at: Timestamp,
    /// Why we ended it, if we did.
    pub(crate) killed: Option<Killed>,
    /// What it used too much of, for a person, if that is why.
    #[serde(default)]
    pub(crate) excess: Option<String>,
    /// The last lines of its standard error.
    pub(crate) stderr_tail: String,
}

/// Why a supervisor ended its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Killed {
    /// The agent asked for it.
    Asked,
    /// It used more memory than allowed.
    Memory,
    /// It had more processes and threads than allowed, on a host that cannot prevent it.
    Processes,
    /// It kept more on disk than allowed, or what cannot be measured.
    Disk,
    /// No agent came back in time.
    Orphaned,
}

/// What an agent asks of a supervisor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ToSupervisor {
    /// End the server: close its input, wait, SIGTERM, wait, SIGKILL to all that is left.
    Stop,
    /// Write a line to the instance's log.
    Log {
        /// Where the line came from.
        stream: LogStream,
        /// The line.
        text: String,
    },
    /// The exit was seen; nothing is needed any more.
    Done,
}

/// Writes one message, with file descriptors beside its first byte.
///
/// # Errors
/// When the other side is gone or does not read in time.
pub(crate) fn send(stream: &UnixStream, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    let sent = sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(&line)], control, MsgFlags::empty(), None)?;
    let mut rest = stream;
    rest.write_all(&line[sent..])
}

/// Lines as they arrive, and the file descriptors that came with them.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    bytes: Vec<u8>,
    /// Descriptors received and not taken yet.
    pub(crate) fds: Vec<OwnedFd>,
}

impl Incoming {
    /// Reads once; false at the end of the stream.
    ///
    /// # Errors
    /// When reading fails or a line grows beyond [`MAX_LINE_BYTES`].
    pub(crate) fn read_from(&mut self, stream: &UnixStream) -> io::Result<bool> {
        let mut chunk = [0_u8; 16 << 10];
        let mut space = nix::cmsg_space!([RawFd; 4]);
        let (count, fds) = {
            let mut io = [IoSliceMut::new(&mut chunk)];
            let message = recvmsg::<()>(stream.as_raw_fd(), &mut io, Some(&mut space), receive_flags())?;
            let mut fds = Vec::new();
            for control in message.cmsgs()? {
                if let ControlMessageOwned::ScmRights(raw) = control {
                    // SAFETY: the kernel just made these descriptors for us and nobody else knows them.
                    fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                }
            }
            (message.bytes, fds)
        };
        self.fds.extend(fds);
        self.push(&chunk[..count])?;
        Ok(count > 0)
    }

    /// Adds bytes that were read elsewhere.
    ///
    /// # Errors
    /// When a line grows beyond [`MAX_LINE_BYTES`].
    pub(crate) fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() > MAX_LINE_BYTES && !self.bytes.contains(&b'\n') {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a control line is too long"));
        }
        Ok(())
    }

    /// The next whole message.
    ///
    /// # Errors
    /// When a line is not a message this version knows.
    pub(crate) fn next<T: for<'de> Deserialize<'de>>(&mut self) -> io::Result<Option<T>> {
        let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        let line: Vec<u8> = self.bytes.drain(..=end).collect();
        Ok(Some(serde_json::from_slice(&line)?))
    }

    /// The next whole message that this version knows. Agent and supervisor may be of different versions; what
    /// one does not know must not keep it from what comes after.
    pub(crate) fn next_known<T: for<'de> Deserialize<'de>>(&mut self) -> Option<T> {
        loop {
            if let Ok(message) = self.next() {
                return message;
            }
        }
    }

    /// Blocks until a whole message has arrived.
    ///
    /// # Errors
    /// When the stream ends first, or the stream's read timeout passes.
    pub(crate) fn wait<T: for<'de> Deserialize<'de>>(&mut self, stream: &UnixStream) -> io::Result<T> {
        loop {
            if let Some(message) = self.next()? {
                return Ok(message);
            }
            if !self.read_from(stream)? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

#[cfg(target_os = "linux")]
fn receive_flags() -> MsgFlags {
    MsgFlags::MSG_CMSG_CLOEXEC
}

#[cfg(not(target_os = "linux"))]
fn receive_flags() -> MsgFlags {
    MsgFlags::empty()
}

/// Reads what is there without a control message; for pipes.
pub(crate) fn read_some(fd: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match nix::unistd::read(fd, buffer) {
            Err(nix::errno::Errno::EINTR) => {}
            other => return other.map_err(io::Error::from),
        }
    }
}

/// Reads a descriptor to its end, bounded.
pub(crate) fn read_to_end(fd: OwnedFd, limit: u64) -> Vec<u8> {
    let mut out = Vec::new();
    // What could not be read is missing from a message for a person, nothing else.
    let _ = std::fs::File::from(fd).take(limit).read_to_end(&mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn descriptors_arrive_with_their_message_and_lines_stay_apart() {
        let (left, right) = UnixStream::pair().expect("a socket pair");
        let (read, write) = nix::unistd::pipe().expect("a pipe");
        send(&left, &ToSupervisor::Done, &[read.as_fd(), write.as_fd()]).expect("sent");
        send(&left, &ToSupervisor::Stop, &[]).expect("sent");
        let mut incoming = Incoming::default();
        assert!(matches!(incoming.wait(&right), Ok(ToSupervisor::Done)));
        assert!(matches!(incoming.wait(&right), Ok(ToSupervisor::Stop)));
        assert_eq!(incoming.fds.len(), 2);
    }

    #[test]
    fn a_message_of_another_version_does_not_hold_up_the_next_one() {
        let mut incoming = Incoming::default();
        incoming.push(b"{\"new_word\":1}\n\"stop\"\n").expect("short lines");
        assert!(matches!(incoming.next_known(), Some(ToSupervisor::Stop)));
        assert!(incoming.next_known::<ToSupervisor>().is_none());
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut incoming = Incoming::default();
        assert!(incoming.push(&vec![b'x'; MAX_LINE_BYTES + 1]).is_err());
    }
}
