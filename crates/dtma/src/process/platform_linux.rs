//! What the supervisor needs of Linux.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::{Pid, Uid};
use toolyard_types::agent::Enforcement;
use toolyard_types::spec::Limits;

use super::cgroup::Cgroup;
use super::disk;
pub(crate) use super::disk::DiskWatch;
pub(crate) use super::mounts::seen_by;
pub(super) use super::network::own_network;
use super::sandbox;
pub(crate) use super::sandbox::open_to_all;
pub(super) use super::sandbox::{ChildPipes, Spawned};
use super::seccomp;
pub(super) use super::shared_memory::SharedMemory;
use super::sockets;
use super::wire::StartOrder;

/// The first version of Landlock that knows TCP ports.
const LANDLOCK_WITH_PORTS: u32 = 4;

/// Nothing is missed while waiting: children wake us.
pub(super) const LONGEST_POLL: Duration = Duration::from_secs(10);

thread_local! {
    static CHILD_SIGNAL: RefCell<Option<&'static SignalFd>> = const { RefCell::new(None) };
}

/// Closes what an agent left open by mistake: it must reach neither us nor a server.
pub(super) fn close_inherited() {
    // SAFETY: called first, while nothing but the standard streams is in use here.
    unsafe { nix::libc::syscall(nix::libc::SYS_close_range, 3, nix::libc::c_uint::MAX, 0) };
}

/// Takes this process out of its parent's session, makes it inherit orphans, and hears of children ending.
pub(super) fn prepare_process() -> io::Result<()> {
    // Fails only when we lead a group already, which is as good.
    let _ = nix::unistd::setsid();
    sandbox::remember_identity();
    nix::sys::prctl::set_child_subreaper(true)?;
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals.thread_block()?;
    let signal = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    // One per process, for as long as the process lives.
    CHILD_SIGNAL.with(|slot| *slot.borrow_mut() = Some(Box::leak(Box::new(signal))));
    Ok(())
}

/// Keeps core dumps and other processes of the same user out of our memory.
pub(super) fn hide_memory() -> io::Result<()> {
    Ok(nix::sys::prctl::set_dumpable(false)?)
}

/// Readable when a child has ended.
pub(super) fn child_signal() -> Option<BorrowedFd<'static>> {
    CHILD_SIGNAL.with(|slot| slot.borrow().map(AsFd::as_fd))
}

/// Takes what [`child_signal`] had to say.
pub(super) fn clear_child_signal() {
    CHILD_SIGNAL.with(|slot| {
        if let Some(signal) = *slot.borrow() {
            while matches!(signal.read_signal(), Ok(Some(_))) {}
        }
    });
}

/// A pipe no child inherits by accident.
pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(OFlag::O_CLOEXEC)?)
}

/// Starts the server.
///
/// # Errors
/// The step that went wrong, for a person.
pub(super) fn spawn(
    order: &StartOrder,
    pipes: ChildPipes,
    join: impl FnOnce(Pid) -> Result<(), String>,
) -> Result<Spawned, String> {
    sandbox::spawn(order, pipes, join)
}

/// Whether the other side of the socket is us.
pub(super) fn same_user(stream: &UnixStream) -> bool {
    getsockopt(stream, PeerCredentials).is_ok_and(|peer| peer.uid() == Uid::effective().as_raw())
}

/// Finds out what this host enforces, by doing it.
pub(super) fn probe(dir: &Path) -> BTreeMap<String, Enforcement> {
    sandbox::remember_identity();
    let told = |result: Result<String, String>| match result {
        Ok(detail) => Enforcement { enforced: true, detail },
        Err(detail) => Enforcement { enforced: false, detail },
    };
    let limits = Limits { cpu_millis: 1000, ..Limits::default() };
    let mut group = Cgroup::create(&format!("probe.{}", std::process::id()), &limits);
    // A group counts only when it takes a process.
    if sandbox::with_child(|pid| group.add(pid.as_raw())).is_err() {
        group = Cgroup::default();
    }
    group.remove();
    let by_group = |limited: bool, otherwise: &str| match limited {
        true => Ok("control group".to_owned()),
        false => Err(otherwise.to_owned()),
    };
    let memory = by_group(group.limits_memory(), "no control group; watched instead").map(|detail| {
        if group.limits_socket_memory() { detail } else { format!("{detail}, but not of what waits in sockets") }
    });
    let own_uid = match Uid::effective().is_root() {
        true => Ok("a user of its own for each server".to_owned()),
        false => Err("needs root".to_owned()),
    };
    let landlock = match sandbox::landlock_version() {
        0 => Err("the kernel has no Landlock".to_owned()),
        version => Ok(format!("Landlock version {version}")),
    };
    let seccomp = sandbox::in_child(seccomp::try_here).map(|()| {
        "no new namespaces, mounts, keys, tracing or programs in the kernel; no `clone3` and no `io_uring`".to_owned()
    });
    let namespaces = sandbox::try_namespaces(dir, false).map(|()| "mount, process and IPC namespaces".to_owned());
    let disk = disk::try_here(dir).map(|()| "watched every second; a server over its limit is stopped".to_owned());
    let own_network = sandbox::try_namespaces(dir, true).map(|()| "a network namespace without a network".to_owned());
    let filter =
        sockets::try_here().map(|()| "TCP sockets drop what comes from Toolyard's ports of this host".to_owned());
    // Landlock knows nothing of what is not plain TCP; that is refused by the filters of system calls.
    let toolyard_ports = match (&filter, &seccomp, sandbox::landlock_version()) {
        (Ok(_), ..) => Ok("by a filter on each TCP socket".to_owned()),
        (Err(_), Ok(_), LANDLOCK_WITH_PORTS..) => {
            Ok("Landlock lets servers connect to every other port; those from 1024 on only, and on any host".to_owned())
        }
        (Err(why), ..) => Err(format!("neither socket filters ({why}) nor Landlock version 4 and seccomp")),
    };
    let server_ports = match (sockets::try_to_listen(), &seccomp) {
        (Ok(()), Ok(_)) => {
            Ok("no server listens on a TCP port where others are, unless it is given `listen`; UDP is open".to_owned())
        }
        (Ok(()), Err(why)) => Err(format!("servers may listen where others reach them: {why}")),
        (Err(why), _) => Err(format!("servers may listen where others reach them: {why}")),
    };
    BTreeMap::from([
        ("own_uid".to_owned(), told(own_uid)),
        ("namespaces".to_owned(), told(namespaces)),
        ("landlock".to_owned(), told(landlock)),
        ("seccomp".to_owned(), told(seccomp)),
        ("egress_none".to_owned(), told(own_network)),
        ("server_ports".to_owned(), told(server_ports)),
        ("socket_filter".to_owned(), told(filter)),
        ("toolyard_ports".to_owned(), told(toolyard_ports)),
        ("memory_limit".to_owned(), told(memory)),
        ("process_limit".to_owned(), told(by_group(group.limits_processes(), "no control group; watched instead"))),
        ("disk_limit".to_owned(), told(disk)),
        ("cpu_limit".to_owned(), told(by_group(group.limits_cpu(), "no control group"))),
    ])
}
