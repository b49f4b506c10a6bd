//! Fakes of the world outside Toolyard, for tests only: an npm registry with hostile and ordinary MCP
//! servers in it.
//!
//! The servers are npm packages, so that tests go the way of every deployment: resolve, install, start.

pub mod fixture;
pub mod npm_registry;

use std::net::{IpAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// A port that nobody listens on now, below those that outgoing connections take by themselves (ip(7),
/// `ip_local_port_range`): one of these may be gone before it is listened on.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn free_port(address: IpAddr) -> u16 {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    static TRIED: AtomicU32 = AtomicU32::new(0);
    // Tests run beside each other, each in a process of its own.
    let own = std::process::id().wrapping_mul(7919);
    let tried = (0..COUNT).map(|_| FIRST + own.wrapping_add(TRIED.fetch_add(1, Ordering::Relaxed)) % COUNT);
    let mut ports = tried.filter_map(|port| u16::try_from(port).ok());
    ports.find(|port| TcpListener::bind((address, *port)).is_ok()).expect("a free port")
}
