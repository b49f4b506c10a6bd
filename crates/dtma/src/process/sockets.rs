//! A server's TCP sockets, made for it by its supervisor, so that Toolyard's own ports on this host are out of reach.
//!
//! Landlock knows lists of ports that may be connected to, not one of ports that may not; and a supervisor that looks at
//! addresses before a connection is made looks at memory that the server can change meanwhile. A socket's kind, on the
//! other hand, stands in registers. So `socket` is answered by the supervisor (seccomp user notification), with a socket
//! that drops every packet that comes from one of the ports over the loopback interface, where all traffic within a host
//! passes. The filter is locked: it cannot be taken off or replaced. A connection there never comes about; everything
//! else is as it was.
//!
//! UDP is not looked at: Toolyard listens on none.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::fchown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use seccompiler::sock_filter;

use super::seccomp::instruction;

type Step<T> = Result<T, String>;

/// `_IOWR('!', 0, struct seccomp_notif)`, the same on every processor we run on.
const NOTIF_RECV: libc::c_ulong = 0xc050_2100;
/// `_IOWR('!', 1, struct seccomp_notif_resp)`.
const NOTIF_SEND: libc::c_ulong = 0xc018_2101;
/// `_IOW('!', 3, struct seccomp_notif_addfd)`.
const NOTIF_ADDFD: libc::c_ulong = 0x4018_2103;
/// The loopback interface has this number in every network namespace.
const LOOPBACK: u32 = 1;
/// Where a filter finds the number of the interface a packet came by.
const INTERFACE: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_IFINDEX).cast_unsigned();
const KIND: libc::c_int = 0xf;
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(5);

/// Makes the sockets of one server.
#[derive(Debug)]
pub(super) struct SocketMaker {
    calls: OwnedFd,
    filter: Vec<sock_filter>,
    uid: Option<u32>,
    /// Whether the server may have gone to another network, where its sockets are nobody's business.
    may_have_moved: bool,
}

impl SocketMaker {
    pub(super) fn new(calls: OwnedFd, ports: &[u16], uid: Option<u32>, may_have_moved: bool) -> Self {
        Self { calls, filter: drops_from(ports), uid, may_have_moved }
    }

    /// Where a call for a socket is seen to wait.
    pub(super) fn calls(&self) -> &OwnedFd {
        &self.calls
    }

    /// Answers a call that waits.
    ///
    /// # Errors
    /// When the kernel refuses to be asked or answered; who called is then gone.
    pub(super) fn answer(&self) -> io::Result<()> {
        // SAFETY: all zero is what the kernel wants to see there before it writes.
        let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        control(&self.calls, NOTIF_RECV, &raw mut call)?;
        if self.may_have_moved && !is_here(call.pid) {
            return self.say(call.id, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE);
        }
        let argument = |at: usize| call.data.args.get(at).map_or(0, |value| low_half(*value));
        match self.make(argument(0), argument(1), argument(2)) {
            Ok(socket) => self.hand_over(call.id, &socket, argument(1) & libc::SOCK_CLOEXEC),
            Err(error) => self.say(call.id, -error.raw_os_error().unwrap_or(libc::EPERM), 0),
        }
    }

    fn make(&self, domain: libc::c_int, kind: libc::c_int, protocol: libc::c_int) -> io::Result<OwnedFd> {
        if protocol != 0 && protocol != libc::IPPROTO_TCP {
            // Multipath TCP makes more sockets by itself, which would have no filter.
            return Err(io::Error::from_raw_os_error(libc::EPROTONOSUPPORT));
        }
        // SAFETY: plain numbers.
        let socket = unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) };
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just made it for us.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        attach(&socket, &self.filter)?;
        // Firewalls know a socket by whose it is.
        if self.uid.is_some() {
            fchown(&socket, self.uid, self.uid)?;
        }
        Ok(socket)
    }

    fn hand_over(&self, id: u64, socket: &OwnedFd, close_on_exec: libc::c_int) -> io::Result<()> {
        let mut given = libc::seccomp_notif_addfd {
            id,
            flags: u32::try_from(libc::SECCOMP_ADDFD_FLAG_SEND).unwrap_or_default(),
            srcfd: socket.as_raw_fd().cast_unsigned(),
            newfd: 0,
            newfd_flags: if close_on_exec == 0 { 0 } else { libc::O_CLOEXEC.cast_unsigned() },
        };
        match control(&self.calls, NOTIF_ADDFD, &raw mut given) {
            // It has as many files as it may have.
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => {
                self.say(id, -error.raw_os_error().unwrap_or(libc::EMFILE), 0)
            }
            other => other,
        }
    }

    fn say(&self, id: u64, error: libc::c_int, flags: libc::c_ulong) -> io::Result<()> {
        let flags = u32::try_from(flags).unwrap_or_default();
        let mut answer = libc::seccomp_notif_resp { id, val: 0, error, flags };
        control(&self.calls, NOTIF_SEND, &raw mut answer)
    }
}

fn control<T>(calls: &OwnedFd, request: libc::c_ulong, argument: *mut T) -> io::Result<()> {
    // SAFETY: each request comes with a pointer to the structure that it is for.
    let result = unsafe { libc::ioctl(calls.as_raw_fd(), request, argument) };
    if result >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether a process is in our network. It waits for our answer, so it does not move meanwhile.
fn is_here(pid: u32) -> bool {
    let network = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/net")).ok();
    network(&pid.to_string()).is_none_or(|theirs| network("self") == Some(theirs))
}

fn low_half(value: u64) -> libc::c_int {
    u32::try_from(value & u64::from(u32::MAX)).unwrap_or_default().cast_signed()
}

/// Drops what comes from these ports of this host.
fn drops_from(ports: &[u16]) -> Vec<sock_filter> {
    let mut filter = vec![
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, INTERFACE),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, 0, LOOPBACK),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
        // A packet is seen from its TCP header on, which begins with the port it comes from.
        instruction(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, 0, 0, 0),
    ];
    for port in ports {
        filter.push(instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, u32::from(*port)));
        filter.push(instruction(libc::BPF_RET | libc::BPF_K, 0, 0, 0));
    }
    filter.push(instruction(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX));
    filter
}

fn attach(socket: &OwnedFd, filter: &[sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(io::Error::other)?,
        filter: filter.as_ptr().cast_mut().cast::<libc::sock_filter>(),
    };
    set(socket, libc::SO_ATTACH_FILTER, &program)?;
    set(socket, libc::SO_LOCK_FILTER, &1_i32)
}

fn set<T>(socket: &OwnedFd, option: libc::c_int, value: &T) -> io::Result<()> {
    let size = libc::socklen_t::try_from(std::mem::size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: the value lives through the call, and the size is its own.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, std::ptr::from_ref(value).cast(), size)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What a server's calls for TCP sockets are taken out by: whoever holds what installing it gives answers them.
pub(super) fn takes_out() -> Vec<sock_filter> {
    let native = match std::env::consts::ARCH {
        "x86_64" => 0xc000_003e,
        "aarch64" => 0xc000_00b7,
        // riscv64
        _ => 0xc000_00f3,
    };
    let load =
        |at: usize| instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, u32::try_from(at).unwrap_or(0));
    let equal = |yes, no, value| instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, yes, no, value);
    let number = |value: libc::c_int| value.cast_unsigned();
    let [domain, kind] = [0, 1].map(|at| std::mem::offset_of!(libc::seccomp_data, args) + at * size_of::<u64>());
    vec![
        load(std::mem::offset_of!(libc::seccomp_data, arch)),
        equal(0, 8, native),
        load(std::mem::offset_of!(libc::seccomp_data, nr)),
        equal(0, 6, u32::try_from(libc::SYS_socket).unwrap_or(u32::MAX)),
        load(domain),
        equal(1, 0, number(libc::AF_INET)),
        equal(0, 3, number(libc::AF_INET6)),
        load(kind),
        instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, number(KIND)),
        equal(1, 0, number(libc::SOCK_STREAM)),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_USER_NOTIF),
    ]
}

/// Sends what answers a server's calls from the server to its supervisor.
pub(super) fn hand_calls(stream: &UnixStream, calls: &OwnedFd) -> Step<()> {
    let fds: [RawFd; 1] = [calls.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&fds)];
    let sent = sendmsg::<()>(stream.as_raw_fd(), &[io::IoSlice::new(b"s")], &rights, MsgFlags::empty(), None);
    sent.map(drop).map_err(|error| format!("hand over the calls for sockets: {error}"))
}

/// Receives it.
pub(super) fn receive_calls(stream: &UnixStream) -> Step<OwnedFd> {
    let failed = |error: String| format!("take the calls for sockets: {error}");
    stream.set_read_timeout(Some(HANDOVER_TIMEOUT)).map_err(|error| failed(error.to_string()))?;
    let mut byte = [0_u8; 1];
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let mut io = [io::IoSliceMut::new(&mut byte)];
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut io, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)
        .map_err(|error| failed(error.to_string()))?;
    for control in message.cmsgs().map_err(|error| failed(error.to_string()))? {
        if let ControlMessageOwned::ScmRights(fds) = control
            && let Some(fd) = fds.first()
        {
            // SAFETY: the kernel just made this descriptor for us and nobody else knows it.
            return Ok(unsafe { OwnedFd::from_raw_fd(*fd) });
        }
    }
    Err(failed("nothing came with the message".to_owned()))
}

/// Does it all once: a child asks for sockets and tries a port that is shut and one that is not.
///
/// # Errors
/// What this host does not allow, or what does not hold.
pub(super) fn try_here() -> Step<()> {
    let listen = || std::net::TcpListener::bind("127.0.0.1:0").map_err(|error| format!("listen: {error}"));
    let port = |listener: &std::net::TcpListener| listener.local_addr().map(|address| address.port()).unwrap_or(0);
    let (shut, open) = (listen()?, listen()?);
    let (shut_port, open_port) = (port(&shut), port(&open));
    let (ours, theirs) = UnixStream::pair().map_err(|error| format!("socket pair: {error}"))?;
    let tried = super::sandbox::in_child_beside(
        || {
            hand_calls(&theirs, &super::seccomp::take_out_sockets()?)?;
            let connect = |port: u16| {
                let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
                std::net::TcpStream::connect_timeout(&address, Duration::from_millis(100))
            };
            connect(open_port).map_err(|error| format!("an open port is not reached: {error}"))?;
            match connect(shut_port) {
                Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(()),
                Err(error) => Err(format!("a shut port answers `{error}`")),
                Ok(_) => Err("a shut port is reached".to_owned()),
            }
        },
        || {
            let maker = SocketMaker::new(receive_calls(&ours)?, &[shut_port], None, false);
            for _ in 0..2 {
                wait_for(&maker)?;
                maker.answer().map_err(|error| format!("make a socket: {error}"))?;
            }
            Ok(())
        },
    );
    drop((shut, open));
    tried
}

fn wait_for(maker: &SocketMaker) -> Step<()> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut fds = [PollFd::new(maker.calls().as_fd(), PollFlags::POLLIN)];
    let limit = PollTimeout::try_from(HANDOVER_TIMEOUT).unwrap_or(PollTimeout::ZERO);
    match poll(&mut fds, limit) {
        Ok(1..) => Ok(()),
        Ok(_) => Err("no call for a socket came".to_owned()),
        Err(error) => Err(format!("wait for a call: {error}")),
    }
}
