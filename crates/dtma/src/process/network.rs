//! A network of one's own, with nothing in it but a loopback device (Linux).

use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid};
use toolyard_types::spec::EGRESS_PROXY_PORT;

/// Moves this process, which has one thread, into a network of its own, and listens there for what will run in it. The
/// listener serves from any network.
///
/// # Errors
/// Why this host does not allow it.
pub(super) fn own_network() -> Result<TcpListener, String> {
    let (uid, gid) = (Uid::effective(), Gid::effective());
    let mut flags = CloneFlags::CLONE_NEWNET;
    if !uid.is_root() {
        flags |= CloneFlags::CLONE_NEWUSER;
    }
    unshare(flags).map_err(|error| format!("make a network: {error}"))?;
    if !uid.is_root() {
        let write = |file: &str, text: String| {
            std::fs::write(format!("/proc/self/{file}"), text).map_err(|error| format!("write `{file}`: {error}"))
        };
        write("setgroups", "deny".to_owned())?;
        write("uid_map", format!("{uid} {uid} 1"))?;
        write("gid_map", format!("{gid} {gid} 1"))?;
    }
    raise_loopback().map_err(|error| format!("raise the loopback device: {error}"))?;
    TcpListener::bind((Ipv4Addr::LOCALHOST, EGRESS_PROXY_PORT)).map_err(|error| format!("listen: {error}"))
}

/// Starts the loopback device of a new network.
///
/// # Errors
/// When it is not ours.
pub(super) fn raise_loopback() -> Result<(), Errno> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: an all-zero ifreq is valid: no name, no flags.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(*b"lo") {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP).unwrap_or_default();
    // SAFETY: the request lives through the call, which reads it.
    let raised = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    Errno::result(raised)?;
    Ok(())
}
