//! The `process` engine: each instance is a server process below a supervisor process of its own.

#[cfg(target_os = "linux")]
mod cgroup;
pub(crate) mod client;
#[cfg(target_os = "linux")]
mod disk;
pub(crate) mod launch;
pub(crate) mod log;
#[cfg(target_os = "linux")]
mod mounts;
#[cfg(target_os = "linux")]
mod network;
pub(crate) mod order;
pub(crate) mod remove;
#[cfg(target_os = "linux")]
mod sandbox;
#[cfg(target_os = "linux")]
mod seccomp;
#[cfg(target_os = "linux")]
mod shared_memory;
#[cfg(target_os = "linux")]
mod sockets;
pub mod supervise;
mod tree;
#[cfg(target_os = "linux")]
mod unnamed;
mod watch;
pub(crate) mod wire;

#[cfg(not(target_os = "linux"))]
#[path = "cgroup_other.rs"]
mod cgroup;
#[cfg(target_os = "linux")]
#[path = "platform_linux.rs"]
mod platform;
#[cfg(not(target_os = "linux"))]
#[path = "platform_other.rs"]
mod platform;

pub(crate) use platform::{DiskWatch, open_to_all, seen_by};
pub(crate) use tree::end_leftovers;
