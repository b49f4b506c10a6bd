//! Keeping resident memory close to what is in use.
//!
//! An allocator that gives every thread an arena of its own and keeps what was freed holds three times what is in use:
//! after a catalog sync with 10,000 entries a process of 40 MB stayed at 136 MB. jemalloc with two arenas gives back what
//! has been free for a second, and allocates the buffers of a call faster than glibc does: with 64 clients a call takes a
//! tenth less processor time.

use std::sync::Arc;

use toolyard_link::{Budget, Payer};
use toolyard_mcp::{Held, Room};

use crate::config::Settings;

#[cfg(target_os = "linux")]
mod allocator {
    use tikv_jemalloc_sys::mallctl;
    use tikv_jemallocator::Jemalloc;

    #[global_allocator]
    static ALLOCATOR: Jemalloc = Jemalloc;

    /// Read by jemalloc before `main`; `MALLOC_CONF` in the environment goes before it.
    #[unsafe(export_name = "malloc_conf")]
    static CONFIGURATION: Option<&'static std::ffi::c_char> =
        // SAFETY: a C string that lives as long as the program.
        Some(unsafe { &*c"narenas:2,dirty_decay_ms:1000,muzzy_decay_ms:0".as_ptr() });

    /// Gives every free page of every arena back: an arena that nobody uses any more does not do it by itself.
    pub(super) fn purge() {
        // SAFETY: `arena.<i>.purge` with MALLCTL_ARENAS_ALL (4096) neither reads nor writes a value.
        unsafe {
            mallctl(c"arena.4096.purge".as_ptr(), std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut(), 0)
        };
    }
}

#[cfg(not(target_os = "linux"))]
mod allocator {
    pub(super) fn purge() {}
}

#[cfg(target_os = "linux")]
mod code {
    use nix::libc;

    /// Lets go of the pages of the program's own code: those that are still in use come back at their next use, from the
    /// page cache, and the rest of what the start and rare commands needed does not.
    pub(super) fn let_go() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let own = let_go as fn() as usize;
        let Some((start, end)) = maps.lines().filter_map(executable).find(|(start, end)| (*start..*end).contains(&own))
        else {
            return;
        };
        // SAFETY: a private mapping of a file that is not writable, so its pages are those of the file.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
    }

    /// The range of a line of `/proc/self/maps` (proc(5)) that is code: `START-END r-xp ...`.
    fn executable(line: &str) -> Option<(usize, usize)> {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let at = |text: &str| usize::from_str_radix(text, 16).ok();
        rest.starts_with("r-xp ").then_some((at(start)?, at(end)?))
    }
}

#[cfg(not(target_os = "linux"))]
mod code {
    pub(super) fn let_go() {}
}

/// As many bytes as requests may take, for what servers answered and nobody has taken yet. The process's metrics recorder
/// must be installed before.
pub(crate) fn room(settings: &Settings) -> Room {
    let budget = Budget::of_servers(request_bytes(settings));
    Room::new(Arc::new(move |account, bytes| {
        let held = budget.hold(Payer::known(account.owner, account.caller), bytes).ok()?;
        Some(Box::new(held) as Held)
    }))
}

/// How many bytes requests may take.
pub(crate) fn request_bytes(settings: &Settings) -> usize {
    usize::try_from(settings.request_memory_mb).unwrap_or(usize::MAX) << 20
}

/// Gives back once a minute what is free and what is not in use of the program itself, until dropped.
pub(crate) async fn keep_trimmed() {
    let mut minute = tokio::time::interval(std::time::Duration::from_secs(60));
    loop {
        minute.tick().await;
        let back = || {
            allocator::purge();
            code::let_go();
        };
        let _ = tokio::task::spawn_blocking(back).await;
    }
}
