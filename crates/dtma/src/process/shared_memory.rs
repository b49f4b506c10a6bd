//! Memory of a server that belongs to no process: files that are nothing but memory (`memfd_create`), and shared memory that
//! was written and is not mapped in full any more. Only where the kernel keeps no limit, and processes are measured
//! instead.
//!
//! Each file counts once, with its blocks. One that is only mapped cannot be asked for them by a plain user, and what is
//! mapped may be mostly empty: it counts as what is mapped, all of those together no more than the whole host has of shared
//! memory. What processes show of it among their own is not counted again: it may be that, so the most is taken off.
//!
//! A server may hold very much, so it is gone through in pieces, and the last whole count holds until the next.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::unnamed::{Held, InFlight, Step, Unnamed};

/// One piece of going through what processes hold.
const PIECE: Duration = Duration::from_millis(20);
/// So many files are told apart. More are counted as often as they are met.
const MOST_FILES: usize = 100_000;

/// What one server holds.
#[derive(Debug, Default)]
pub(super) struct SharedMemory {
    count: Option<Count>,
    bytes: u64,
    in_flight: InFlight,
    /// How many descriptors it watches by `epoll`.
    watches: usize,
}

#[derive(Debug)]
struct Count {
    unnamed: Unnamed,
    files: HashMap<(u64, u64), Known>,
    exact_bytes: u64,
    mapped_bytes: u64,
}

/// What is known of a file.
#[derive(Clone, Copy, Debug)]
enum Known {
    /// What it has.
    Bytes(u64),
    /// Between which bytes it is mapped.
    Mapped(u64, u64),
}

impl SharedMemory {
    /// Goes on counting for a piece. How much is held, as far as that is known; of what is counted just now, what was found.
    pub(super) fn measure(&mut self, limit_bytes: u64, pids: &[i32]) -> u64 {
        let until = Instant::now() + PIECE;
        let mut count = self.count.take().unwrap_or_else(Count::new);
        loop {
            match count.unnamed.step(|| pids.to_vec()) {
                Step::Held(held) => count.add(held),
                Step::Nothing => {}
                Step::End => {
                    (self.bytes, self.watches) = (count.bytes(), count.unnamed.watches);
                    // Whose file is in flight has it in no table; then what the host lost meanwhile is taken for that.
                    let left = u64::MAX - of_the_host();
                    if self.in_flight.note(count.unnamed.in_flight, left, limit_bytes) {
                        self.bytes = self.bytes.saturating_add(limit_bytes).saturating_add(1);
                    }
                    return self.bytes;
                }
            }
            if Instant::now() >= until {
                let bytes = self.bytes.max(count.bytes());
                self.watches = self.watches.max(count.unnamed.watches);
                self.count = Some(count);
                return bytes;
            }
        }
    }
}

impl SharedMemory {
    /// Says that a quarter of what the kernel lets the user watch by `epoll` is watched: when that is used up, nothing of this
    /// user accepts a connection any more (epoll(7)).
    pub(super) fn too_many_watches(&self) -> Option<String> {
        let most = most_watches();
        (self.watches > most).then(|| format!("watched more than {most} descriptors by epoll"))
    }
}

fn most_watches() -> usize {
    let all = std::fs::read_to_string("/proc/sys/fs/epoll/max_user_watches").unwrap_or_default();
    all.trim().parse::<usize>().map_or(usize::MAX, |all| all / 4)
}

impl Count {
    fn new() -> Self {
        Self { unnamed: Unnamed::memory(), files: HashMap::new(), exact_bytes: 0, mapped_bytes: 0 }
    }

    fn add(&mut self, held: Held) {
        let before = self.files.get(&held.file).copied();
        let now = match (before, held.mapped) {
            (Some(Known::Bytes(_)), _) => return,
            (_, None) => Known::Bytes(held.blocks.saturating_mul(512)),
            (None, Some((from, to))) => Known::Mapped(from, to),
            // Another process may have another part of it, or the same.
            (Some(Known::Mapped(first, last)), Some((from, to))) => Known::Mapped(first.min(from), last.max(to)),
        };
        if let Some(Known::Mapped(from, to)) = before {
            self.mapped_bytes -= to - from;
        }
        match now {
            Known::Bytes(bytes) => self.exact_bytes = self.exact_bytes.saturating_add(bytes),
            Known::Mapped(from, to) => self.mapped_bytes = self.mapped_bytes.saturating_add(to - from),
        }
        if before.is_some() || self.files.len() < MOST_FILES {
            self.files.insert(held.file, now);
        }
    }

    fn bytes(&self) -> u64 {
        let mapped = if self.mapped_bytes == 0 { 0 } else { self.mapped_bytes.min(of_the_host()) };
        self.exact_bytes.saturating_add(mapped)
    }
}

/// How much shared memory the whole host has in use; what is in a container is in that too.
fn of_the_host() -> u64 {
    let table = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = table.lines().find_map(|line| line.strip_prefix("Shmem:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kilobytes.unwrap_or(0).saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

    use nix::libc;

    const SIZE: usize = 8 << 20;

    fn held_by_us() -> u64 {
        let own = i32::try_from(std::process::id()).expect("small");
        let mut shared = SharedMemory::default();
        loop {
            let bytes = shared.measure(1 << 40, &[own]);
            if shared.count.is_none() {
                return bytes;
            }
        }
    }

    fn memfd() -> File {
        // SAFETY: the name lives through the call; the kernel makes a new descriptor or none.
        let fd = unsafe { libc::memfd_create(c"held".as_ptr(), 0) };
        assert!(fd >= 0);
        // SAFETY: it was just made for us.
        File::from(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    fn map(fd: libc::c_int, flags: libc::c_int) -> *mut libc::c_void {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, which nothing refers to.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), SIZE, access, libc::MAP_SHARED | flags, fd, 0) };
        assert_ne!(at, libc::MAP_FAILED);
        at
    }

    fn unmap(at: *mut libc::c_void) {
        // SAFETY: what was mapped above.
        unsafe { libc::munmap(at, SIZE) };
    }

    #[test]
    fn memory_that_no_process_has_mapped_counts_once_while_it_is_held() {
        let before = held_by_us();
        let mut file = memfd();
        file.write_all(&vec![1; SIZE]).expect("written");
        let again = file.try_clone().expect("a second descriptor");
        assert_eq!(held_by_us() - before, SIZE as u64);
        // Not what it could be, but what it is.
        file.set_len(1 << 40).expect("sparse");
        assert_eq!(held_by_us() - before, SIZE as u64);
        file.set_len(SIZE as u64).expect("cut");
        let at = map(file.as_raw_fd(), 0);
        drop((file, again));
        assert_eq!(held_by_us() - before, SIZE as u64);
        unmap(at);
        assert_eq!(held_by_us(), before);
    }

    #[test]
    fn shared_memory_that_somebody_else_wrote_counts_where_it_is_mapped() {
        let before = held_by_us();
        let at = map(-1, libc::MAP_ANONYMOUS);
        // SAFETY: as if it had been written by a child: the pages stay, and are not ours any more.
        unsafe {
            std::ptr::write_bytes(at.cast::<u8>(), 1, SIZE);
            libc::madvise(at, SIZE, libc::MADV_DONTNEED);
        }
        assert_eq!(held_by_us() - before, SIZE as u64);
        unmap(at);
    }

    #[test]
    fn what_is_only_mapped_counts_from_its_first_byte_to_its_last_and_what_is_known_better_counts_so() {
        let mut count = Count::new();
        let held = |mapped| Held { file: (1, 2), blocks: 8, mapped };
        count.add(held(Some((4096, 8192))));
        count.add(held(Some((4096, 8192))));
        assert_eq!((count.exact_bytes, count.mapped_bytes), (0, 4096));
        count.add(held(Some((0, 4096))));
        assert_eq!((count.exact_bytes, count.mapped_bytes), (0, 8192));
        count.add(held(None));
        count.add(held(Some((0, 1 << 30))));
        assert_eq!((count.exact_bytes, count.mapped_bytes), (4096, 0));
    }
}
