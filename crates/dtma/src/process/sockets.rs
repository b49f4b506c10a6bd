//! What a server asks of its supervisor instead of the kernel, about its TCP sockets: that they are made, and that they
//! listen.
//!
//! They are made here so that Toolyard's own ports on this host are out of reach.
//!
//! Landlock knows lists of ports that may be connected to, not one of ports that may not; and a supervisor that looks at
//! addresses before a connection is made looks at memory that the server can change meanwhile. A socket's kind, on the
//! other hand, stands in registers. So `socket` is answered by the supervisor (seccomp user notification), with a socket
//! that drops every packet that comes from one of the ports over the loopback interface, where all traffic within a host
//! passes. The filter is locked: it cannot be taken off or replaced. A connection there never comes about; everything
//! else is as it was.
//!
//! UDP needs no filter, for Toolyard listens on none. But a host has some 28,000 ports for its sockets, and without one left
//! nobody there asks for a name any more: a server that has a user of its own is made so many and no more.
//!
//! `listen` is answered here so that no other server finds this one: Landlock is asked when a socket is given a port, and
//! not when it listens without one, on a port of the kernel's choice. What is to listen is looked at in a copy of its
//! descriptor, and told to listen by that copy; what the server does to its own descriptors meanwhile changes nothing.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::fchown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use nix::unistd::Uid;
use seccompiler::sock_filter;

use super::seccomp::instruction;

type Step<T> = Result<T, String>;

/// `_IOWR('!', 0, struct seccomp_notif)`, the same on every processor we run on.
const NOTIF_RECV: libc::c_ulong = 0xc050_2100;
/// `_IOWR('!', 1, struct seccomp_notif_resp)`.
const NOTIF_SEND: libc::c_ulong = 0xc018_2101;
/// `_IOW('!', 3, struct seccomp_notif_addfd)`.
const NOTIF_ADDFD: libc::c_ulong = 0x4018_2103;
/// `_IOW('!', 2, __u64)`.
const NOTIF_ID_VALID: libc::c_ulong = 0x4008_2102;
/// Of a thread, which from Linux 6.9 on need not be its process's first.
const PIDFD_THREAD: libc::c_int = libc::O_EXCL;
/// The loopback interface has this number in every network namespace.
const LOOPBACK: u32 = 1;
/// Where a filter finds the number of the interface a packet came by.
const INTERFACE: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_IFINDEX).cast_unsigned();
const KIND: libc::c_int = 0xf;
/// How often a server's sockets are counted at most.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// UDP sockets of one server.
const MOST_DATAGRAM_SOCKETS: usize = 1024;
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(5);

/// Which calls of a server its supervisor answers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taken {
    /// For TCP sockets.
    pub(super) sockets: bool,
    /// For UDP sockets.
    pub(super) datagrams: bool,
    /// For sockets to listen.
    pub(super) listen: bool,
}

impl Taken {
    pub(super) fn any(self) -> bool {
        self.sockets || self.datagrams || self.listen
    }
}

/// Answers what one server asks.
#[derive(Debug)]
pub(super) struct SocketMaker {
    calls: OwnedFd,
    filter: Vec<sock_filter>,
    uid: Option<u32>,
    /// Whether the server may have gone to another network, where its sockets are nobody's business.
    may_have_moved: bool,
    /// UDP sockets that there may be: those of the last count, and all that were made since.
    datagrams: Cell<usize>,
    counted: Cell<Option<Instant>>,
}

impl SocketMaker {
    pub(super) fn new(calls: OwnedFd, ports: &[u16], uid: Option<u32>, may_have_moved: bool) -> Self {
        Self {
            calls,
            filter: drops_from(ports),
            uid,
            may_have_moved,
            datagrams: Cell::new(0),
            counted: Cell::new(None),
        }
    }

    /// Where a call is seen to wait.
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
        if libc::c_long::from(call.data.nr) == libc::SYS_listen {
            return self.answer_listen(&call);
        }
        if self.may_have_moved && !is_here(call.pid) {
            return self.say(call.id, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE);
        }
        if argument(&call, 1) & KIND == libc::SOCK_DGRAM {
            return match self.may_have_datagram() {
                true => self.say(call.id, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE),
                false => self.say(call.id, -libc::EMFILE, 0),
            };
        }
        match self.make(argument(&call, 0), argument(&call, 1), argument(&call, 2)) {
            Ok(socket) => self.hand_over(call.id, &socket, argument(&call, 1) & libc::SOCK_CLOEXEC),
            Err(error) => self.say(call.id, -error.raw_os_error().unwrap_or(libc::EPERM), 0),
        }
    }

    /// Whether one more UDP socket may be made. They are counted only when there may be too many.
    fn may_have_datagram(&self) -> bool {
        let Some(uid) = self.uid else { return true };
        let is_due = self.counted.get().is_none_or(|at| at.elapsed() >= COUNT_EVERY);
        if self.datagrams.get() >= MOST_DATAGRAM_SOCKETS && is_due {
            // One without a port may be given one any moment.
            self.datagrams.set(with_port(uid).max(open_sockets(uid)));
            self.counted.set(Some(Instant::now()));
        }
        let may = self.datagrams.get() < MOST_DATAGRAM_SOCKETS;
        self.datagrams.update(|made| made + usize::from(may));
        may
    }

    fn answer_listen(&self, call: &libc::seccomp_notif) -> io::Result<()> {
        let listened = copy_of(call.pid, argument(call, 0)).and_then(|socket| {
            // Who asked may have ended, and its number be another's by now.
            let mut id = call.id;
            control(&self.calls, NOTIF_ID_VALID, &raw mut id)?;
            self.listen(&socket, argument(call, 1))
        });
        match listened {
            Ok(()) => self.say(call.id, 0, 0),
            Err(error) => self.say(call.id, -error.raw_os_error().unwrap_or(libc::EPERM), 0),
        }
    }

    fn listen(&self, socket: &OwnedFd, backlog: libc::c_int) -> io::Result<()> {
        let domain = get::<libc::c_int>(socket, libc::SO_DOMAIN)?;
        let over_ip = domain == libc::AF_INET || domain == libc::AF_INET6;
        if over_ip && !(self.may_have_moved && is_elsewhere(socket)) {
            return Err(io::Error::from_raw_os_error(libc::EACCES));
        }
        // Who connects to a unix socket is told who made it listen.
        if let Some(uid) = self.uid {
            nix::unistd::seteuid(Uid::from_raw(uid))?;
        }
        // SAFETY: plain numbers.
        let listened = unsafe { libc::listen(socket.as_raw_fd(), backlog) };
        let listened = if listened == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
        if self.uid.is_some() {
            nix::unistd::seteuid(Uid::from_raw(0))?;
            // Changing the user may have opened our memory to it.
            nix::sys::prctl::set_dumpable(false)?;
        }
        listened
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

/// How many UDP sockets of a user have a port here (proc(5), `/proc/net/udp`).
fn with_port(uid: u32) -> usize {
    let of = |file: &str| {
        let sockets = std::fs::read_to_string(file).unwrap_or_default();
        let is_theirs =
            |line: &&str| line.split_ascii_whitespace().nth(7).is_some_and(|owner| owner.parse() == Ok(uid));
        sockets.lines().skip(1).filter(is_theirs).count()
    };
    of("/proc/self/net/udp") + of("/proc/self/net/udp6")
}

/// How many sockets the processes of a user have open, of whatever kind.
fn open_sockets(uid: u32) -> usize {
    use std::os::unix::fs::MetadataExt;
    let entries = |path: &std::path::Path| std::fs::read_dir(path).into_iter().flatten().flatten();
    let is_theirs = |process: &std::fs::DirEntry| process.metadata().is_ok_and(|process| process.uid() == uid);
    let is_socket = |fd: &std::fs::DirEntry| {
        std::fs::read_link(fd.path()).is_ok_and(|target| target.as_os_str().as_encoded_bytes().starts_with(b"socket:"))
    };
    let of = |process: std::fs::DirEntry| entries(&process.path().join("fd")).filter(is_socket).count();
    entries("/proc".as_ref()).filter(is_theirs).map(of).sum()
}

/// Whether a process is in our network. It waits for our answer, so it does not move meanwhile.
fn is_here(pid: u32) -> bool {
    let network = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/net")).ok();
    network(&pid.to_string()).is_none_or(|theirs| network("self") == Some(theirs))
}

/// A descriptor of our own for a thread's.
fn copy_of(thread: u32, fd: libc::c_int) -> io::Result<OwnedFd> {
    let made = |result: libc::c_long| match RawFd::try_from(result) {
        // SAFETY: the kernel just made it for us.
        Ok(fd @ 0..) => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    };
    // SAFETY: plain numbers.
    let open = |pid: u32, flags: libc::c_int| made(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, flags) });
    let thread = open(thread, PIDFD_THREAD).or_else(|_| open(process_of(thread)?, 0))?;
    // SAFETY: plain numbers.
    made(unsafe { libc::syscall(libc::SYS_pidfd_getfd, thread.as_raw_fd(), fd, 0) })
}

fn process_of(thread: u32) -> io::Result<u32> {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status"))?;
    let process = status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok());
    process.ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))
}

/// Whether a socket is in another network than ours. Where the kernel does not say (before 5.14) it is not.
fn is_elsewhere(socket: &OwnedFd) -> bool {
    let cookie = |socket: &OwnedFd| get::<u64>(socket, libc::SO_NETNS_COOKIE).ok();
    let own = std::net::UdpSocket::bind("127.0.0.1:0").map(OwnedFd::from);
    let own = own.ok().and_then(|own| cookie(&own));
    own.is_some() && cookie(socket).is_some_and(|theirs| own != Some(theirs))
}

fn argument(call: &libc::seccomp_notif, at: usize) -> libc::c_int {
    call.data.args.get(at).map_or(0, |value| low_half(*value))
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

fn get<T: Default>(socket: &OwnedFd, option: libc::c_int) -> io::Result<T> {
    let mut value = T::default();
    let mut size = libc::socklen_t::try_from(std::mem::size_of::<T>()).map_err(io::Error::other)?;
    let place = (&raw mut value).cast::<libc::c_void>();
    // SAFETY: the value is a number, of the size that is said.
    let result = unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, place, &raw mut size) };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

fn set<T>(socket: &OwnedFd, option: libc::c_int, value: &T) -> io::Result<()> {
    let size = libc::socklen_t::try_from(std::mem::size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: the value lives through the call, and the size is its own.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, std::ptr::from_ref(value).cast(), size)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What a server's calls are taken out by: whoever holds what installing it gives answers them.
pub(super) fn takes_out(taken: Taken) -> Vec<sock_filter> {
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
    // No call has the last number.
    let call = |wanted: bool, call| u32::try_from(call).ok().filter(|_| wanted).unwrap_or(u32::MAX);
    let wanted = |wanted: bool, kind: libc::c_int| if wanted { number(kind) } else { u32::MAX };
    let [domain, kind] = [0, 1].map(|at| std::mem::offset_of!(libc::seccomp_data, args) + at * size_of::<u64>());
    vec![
        load(std::mem::offset_of!(libc::seccomp_data, arch)),
        equal(0, 10, native),
        load(std::mem::offset_of!(libc::seccomp_data, nr)),
        equal(9, 0, call(taken.listen, libc::SYS_listen)),
        equal(0, 7, call(taken.sockets || taken.datagrams, libc::SYS_socket)),
        load(domain),
        equal(1, 0, number(libc::AF_INET)),
        equal(0, 4, number(libc::AF_INET6)),
        load(kind),
        instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, number(KIND)),
        equal(2, 0, wanted(taken.sockets, libc::SOCK_STREAM)),
        equal(1, 0, wanted(taken.datagrams, libc::SOCK_DGRAM)),
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
            hand_calls(&theirs, &super::seccomp::take_out(Taken { sockets: true, ..Taken::default() })?)?;
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
            (0..2).try_for_each(|_| answer_next(&maker))
        },
    );
    drop((shut, open));
    tried
}

/// The same for listening: a TCP socket that was given no port may not, a unix socket may.
///
/// # Errors
/// What this host does not allow, or what does not hold.
pub(super) fn try_to_listen() -> Step<()> {
    use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, listen, socket};
    use std::os::linux::net::SocketAddrExt;
    /// `nobody`.
    const OTHER: u32 = 65_534;
    let uid = Uid::effective().is_root().then_some(OTHER);
    let (ours, theirs) = UnixStream::pair().map_err(|error| format!("socket pair: {error}"))?;
    super::sandbox::in_child_beside(
        || {
            hand_calls(&theirs, &super::seccomp::take_out(Taken { listen: true, ..Taken::default() })?)?;
            if let Some(uid) = uid {
                let other = Uid::from_raw(uid);
                nix::unistd::setresuid(other, other, other).map_err(|error| format!("change user: {error}"))?;
            }
            let tcp = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
                .map_err(|error| format!("make a socket: {error}"))?;
            match listen(&tcp, Backlog::MAXCONN) {
                Err(nix::errno::Errno::EACCES) => {}
                Err(error) => return Err(format!("a TCP socket is told `{error}`")),
                Ok(()) => return Err("a TCP socket listens".to_owned()),
            }
            let name = format!("toolyard-{}", std::process::id());
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name);
            let listened = address.and_then(|address| std::os::unix::net::UnixListener::bind_addr(&address));
            listened.map(drop).map_err(|error| format!("a unix socket does not listen: {error}"))
        },
        || {
            let maker = SocketMaker::new(receive_calls(&ours)?, &[], uid, false);
            (0..2).try_for_each(|_| answer_next(&maker))
        },
    )
}

fn answer_next(maker: &SocketMaker) -> Step<()> {
    wait_for(maker)?;
    maker.answer().map_err(|error| format!("answer a call: {error}"))
}

fn wait_for(maker: &SocketMaker) -> Step<()> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut fds = [PollFd::new(maker.calls().as_fd(), PollFlags::POLLIN)];
    let limit = PollTimeout::try_from(HANDOVER_TIMEOUT).unwrap_or(PollTimeout::ZERO);
    match poll(&mut fds, limit) {
        Ok(1..) => Ok(()),
        Ok(_) => Err("no call came".to_owned()),
        Err(error) => Err(format!("wait for a call: {error}")),
    }
}
