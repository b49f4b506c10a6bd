//! Keeping resident memory close to what is in use.
//!
//! glibc gives every thread an arena of its own and keeps what was freed: after a catalog sync with 10,000
//! entries a process of 40 MB stayed at 136 MB. It also takes ever larger allocations from the arenas once one of
//! them was freed, where small ones come to lie between: 400 password hashes of 19 MiB, two at a time, took 471 MB.
//! Fewer arenas, mappings of their own for what is large, and giving back what is free once a minute keep it down;
//! none of it costs anything on the call path.

use std::sync::Arc;

use toolyard_link::{Budget, Payer};
use toolyard_mcp::{Held, Room};

use crate::config::Settings;

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    use nix::libc;

    /// How many arenas threads share.
    const ARENAS: libc::c_int = 2;

    /// From this size on, in bytes, an allocation is a mapping of its own, given back when it is freed.
    const OWN_MAPPING: libc::c_int = 1024 * 1024;

    pub(crate) fn configure() {
        // SAFETY: settings of the allocator; the worst case is that they are refused.
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, ARENAS);
            libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_MAPPING);
        }
    }

    pub(super) fn trim() {
        // SAFETY: gives free pages back to the system; touches nothing that is in use.
        unsafe { libc::malloc_trim(0) };
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
mod glibc {
    pub(crate) fn configure() {}
    pub(super) fn trim() {}
}

pub(crate) use glibc::configure;

/// As many bytes as requests may take, for what servers answered and nobody has taken yet. The process's metrics recorder
/// must be installed before.
pub(crate) fn room(settings: &Settings) -> Room {
    let budget = Budget::of_servers(request_bytes(settings));
    Room::new(Arc::new(move |caller, bytes| {
        let held = budget.hold(Payer::known(caller), bytes).ok()?;
        Some(Box::new(held) as Held)
    }))
}

/// How many bytes requests may take.
pub(crate) fn request_bytes(settings: &Settings) -> usize {
    usize::try_from(settings.request_memory_mb).unwrap_or(usize::MAX) << 20
}

/// Gives free memory back once a minute, until dropped.
pub(crate) async fn keep_trimmed() {
    let mut minute = tokio::time::interval(std::time::Duration::from_secs(60));
    loop {
        minute.tick().await;
        let _ = tokio::task::spawn_blocking(glibc::trim).await;
    }
}
