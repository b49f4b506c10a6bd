//! Files that have no name any more and that no descriptor shows: mapped into memory, or on their way through a socket.
//!
//! What is mapped can be counted: as root with all its blocks, else as much of it as is mapped. A descriptor that was sent
//! and not received is in no process's table, and its file nowhere to be looked at. So a server that has such ones, look
//! after look, answers for what went of the free space meanwhile. A descriptor is in flight for microseconds otherwise.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;

/// In so many looks in a row something must be in flight to count, and in so many nothing to be forgotten.
const LOOKS: u32 = 3;

/// A deleted file that is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mapped {
    pub(super) file: (u64, u64),
    /// Of 512 bytes.
    pub(super) blocks: u64,
}

/// The deleted files of a device that a process has mapped.
pub(super) fn mapped(pid: i32, device: u64) -> Vec<Mapped> {
    // One that ended has nothing mapped.
    let Ok(maps) = std::fs::File::open(format!("/proc/{pid}/maps")) else { return Vec::new() };
    let mut files: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    for line in BufReader::new(maps).split(b'\n').map_while(Result::ok) {
        let Some(mapping) = Mapping::parse(&String::from_utf8_lossy(&line)) else { continue };
        // A number of a device is written in another way there, so it is asked for where that is allowed.
        match std::fs::metadata(mapping.file(pid)) {
            Ok(file) if file.dev() == device && file.nlink() == 0 && file.is_file() => {
                files.insert((file.dev(), file.ino()), file.blocks());
            }
            Ok(_) => {}
            Err(_) if mapping.device == device => {
                let blocks = files.entry((device, mapping.inode)).or_default();
                *blocks = blocks.saturating_add(mapping.bytes() / 512);
            }
            Err(_) => {}
        }
    }
    files.into_iter().map(|(file, blocks)| Mapped { file, blocks }).collect()
}

/// A line of `/proc/PID/maps` about a deleted file.
struct Mapping {
    from: u64,
    to: u64,
    device: u64,
    inode: u64,
}

impl Mapping {
    /// `7f0000-7f1000 rw-s 00000000 fd:01 123 /tmp/x (deleted)`
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_suffix(" (deleted)")?.split_ascii_whitespace();
        let (from, to) = words.next()?.split_once('-')?;
        let (major, minor) = words.nth(2)?.split_once(':')?;
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let device = nix::sys::stat::makedev(hex(major)?, hex(minor)?);
        Some(Self { from: hex(from)?, to: hex(to)?, device, inode: words.next()?.parse().ok()? })
    }

    fn file(&self, pid: i32) -> String {
        format!("/proc/{pid}/map_files/{:x}-{:x}", self.from, self.to)
    }

    fn bytes(&self) -> u64 {
        self.to.saturating_sub(self.from)
    }
}

/// Whether descriptors wait in a socket of this process.
pub(super) fn has_in_flight(pid: i32) -> bool {
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    fds.filter(|fd| {
        std::fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str().as_encoded_bytes().starts_with(b"socket:"))
    })
    .filter_map(|fd| std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", fd.file_name().to_str()?)).ok())
    .any(|info| {
        let waiting = info.lines().find_map(|line| line.strip_prefix("scm_fds:")?.trim().parse::<u32>().ok());
        waiting.is_some_and(|waiting| waiting > 0)
    })
}

/// What was seen in flight, look after look.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct InFlight {
    looks: u32,
    quiet: u32,
    /// The most that was free since it began: what others gave back meanwhile hides nothing.
    free_bytes: u64,
}

impl InFlight {
    /// Notes a look; whether more than the limit must be taken to be hidden there.
    pub(super) fn note(&mut self, in_flight: bool, free_bytes: u64, limit_bytes: u64) -> bool {
        if in_flight {
            (self.looks, self.quiet) = (self.looks.saturating_add(1), 0);
        } else {
            self.quiet = self.quiet.saturating_add(1);
        }
        if self.looks == 0 || self.quiet >= LOOKS {
            *self = Self { free_bytes, ..Self::default() };
            return false;
        }
        self.free_bytes = self.free_bytes.max(free_bytes);
        self.looks >= LOOKS && in_flight && self.free_bytes.saturating_sub(free_bytes) > limit_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::libc;
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_deleted_file_that_is_mapped_is_found_with_its_size() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        std::fs::write(&path, vec![1; 1 << 20]).expect("written");
        let file = std::fs::File::options().read(true).write(true).open(&path).expect("open");
        let (metadata, size) = (file.metadata().expect("there"), 1 << 20);
        // SAFETY: a new mapping, which nothing refers to.
        let at = unsafe {
            let (read, shared) = (libc::PROT_READ, libc::MAP_SHARED);
            libc::mmap(std::ptr::null_mut(), size, read, shared, file.as_raw_fd(), 0)
        };
        assert_ne!(at, libc::MAP_FAILED);
        drop(file);
        let own = i32::try_from(std::process::id()).expect("small");
        let found = || mapped(own, metadata.dev()).into_iter().find(|it| it.file.1 == metadata.ino());
        assert_eq!(found(), None);
        std::fs::remove_file(&path).expect("removed");
        assert!(found().is_some_and(|it| it.blocks >= 2048), "{:?}", found());
        // SAFETY: what was mapped above.
        unsafe { libc::munmap(at, size) };
        assert_eq!(found(), None);
    }

    #[test]
    fn a_descriptor_that_was_sent_and_not_received_is_seen() {
        let (one, two) = UnixStream::pair().expect("a pair");
        let own = i32::try_from(std::process::id()).expect("small");
        let fds = [one.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&fds)];
        let bytes = [std::io::IoSlice::new(b"x")];
        sendmsg::<()>(one.as_raw_fd(), &bytes, &rights, MsgFlags::empty(), None).expect("sent");
        assert!(has_in_flight(own));
        drop((one, two));
    }

    #[test]
    fn what_is_in_flight_for_long_answers_for_what_went_meanwhile_and_nothing_else_does() {
        let mut flight = InFlight::default();
        let mut note = |in_flight, free| flight.note(in_flight, free, 100);
        assert!(!note(false, 1000) && !note(true, 950) && !note(true, 500));
        assert!(note(true, 400));
        assert!(!note(false, 300) && note(true, 300));
        assert!(!note(false, 300) && !note(false, 300) && !note(false, 300));
        assert!(!note(true, 290) && !note(true, 250) && !note(true, 210) && !note(true, 200));
        assert!(note(true, 180));
    }
}
