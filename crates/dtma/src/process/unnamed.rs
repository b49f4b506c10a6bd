//! Files that have no name any more, or never had one: open, mapped into memory, or on their way through a socket. Either
//! those of one device, or those that are nothing but memory (`memfd_create`, shared anonymous and System V memory).
//!
//! What is open or mapped can be counted: the first as any file; the second as root with all its blocks, else as much of
//! it as is mapped. Each thread may have descriptors of its own, and a process whose first thread ended shows none, so
//! threads are looked at; those that share a table of descriptors once. There may be very many, so one is looked at at a
//! time.
//!
//! A descriptor that was sent and not received is in no process's table, and its file nowhere to be looked at. So a server
//! that has such ones, look after look, answers for what went of the free space meanwhile. A descriptor is in flight for
//! microseconds otherwise.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet};
use std::fs::{File, ReadDir};
use std::io::{BufRead, BufReader};
use std::path::Path;

use nix::libc;

const DONT_SYNC: libc::c_int = 0x4000;
const BASIC_STATS: libc::c_uint = 0x7ff;
/// So often processes are listed again, for those that were started meanwhile.
const MAX_LISTS: u32 = 8;
/// In so many looks in a row something must be in flight to count, and in so many nothing to be forgotten.
const LOOKS: u32 = 3;

/// A deleted file that is open or mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) file: (u64, u64),
    /// Of 512 bytes.
    pub(super) blocks: u64,
    /// Only that much is known of it: between the first and the last byte that a process has mapped.
    pub(super) mapped: Option<(u64, u64)>,
}

/// Which files are looked for.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    OfDevice(u64),
    /// Those that are nothing but memory.
    Memory,
}

/// How the kernel names files that are nothing but memory.
const MEMORY: [&[u8]; 3] = [b"/memfd:", b"/dev/zero (deleted)", b"/SYSV"];

/// What one step of [`Unnamed`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A file, perhaps not for the first time.
    Held(Held),
    Nothing,
    End,
}

/// Goes through what processes hold.
#[derive(Debug)]
pub(super) struct Unnamed {
    wanted: Wanted,
    lists: u32,
    listed: HashSet<i32>,
    pids: Vec<i32>,
    threads: Vec<(i32, i32)>,
    tables: Tables,
    files: Option<ReadDir>,
    maps: Option<Maps>,
    /// Whether descriptors waited in sockets.
    pub(super) in_flight: bool,
    /// How many descriptors are watched by `epoll`, in all of its instances.
    pub(super) watches: usize,
}

impl Unnamed {
    /// Looks for files of a device.
    pub(super) fn new(device: u64) -> Self {
        Self::looking_for(Wanted::OfDevice(device))
    }

    /// Looks for files that are nothing but memory.
    pub(super) fn memory() -> Self {
        Self::looking_for(Wanted::Memory)
    }

    fn looking_for(wanted: Wanted) -> Self {
        Self {
            wanted,
            lists: 0,
            listed: HashSet::new(),
            pids: Vec::new(),
            threads: Vec::new(),
            tables: Tables::default(),
            files: None,
            maps: None,
            in_flight: false,
            watches: 0,
        }
    }

    /// Looks at one thing of what `pids` tells. What ended meanwhile holds nothing.
    pub(super) fn step(&mut self, pids: impl Fn() -> Vec<i32>) -> Step {
        if let Some(files) = &mut self.files {
            match files.next() {
                Some(Ok(file)) => return self.look_at(&file.path()),
                Some(Err(_)) | None => self.files = None,
            }
        } else if let Some(maps) = &mut self.maps {
            match maps.step(self.wanted) {
                Step::End => self.maps = None,
                step => return step,
            }
        } else if let Some((pid, thread)) = self.threads.pop() {
            if self.tables.is_new(thread) {
                self.files = std::fs::read_dir(format!("/proc/{pid}/task/{thread}/fd")).ok();
            }
        } else if let Some(pid) = self.pids.pop() {
            self.threads = threads(pid);
            self.maps = Maps::open(pid, &self.threads);
        } else {
            self.lists += 1;
            self.pids = pids();
            self.pids.retain(|pid| self.listed.insert(*pid));
            if self.pids.is_empty() || self.lists > MAX_LISTS {
                return Step::End;
            }
        }
        Step::Nothing
    }

    fn look_at(&mut self, file: &Path) -> Step {
        let is_deleted = match std::fs::read_link(file) {
            Ok(target) if target.as_os_str().as_encoded_bytes().starts_with(b"socket:") => {
                self.in_flight = self.in_flight || has_in_flight(file);
                false
            }
            Ok(target) if target.as_os_str() == "anon_inode:[eventpoll]" => {
                self.watches += watches_of(file);
                false
            }
            Ok(target) => self.wanted.may_be(target.as_os_str().as_encoded_bytes()),
            // Whatever has a name that long may have lost it.
            Err(error) => error.raw_os_error() == Some(libc::ENAMETOOLONG),
        };
        if is_deleted { self.wanted.held(file).unwrap_or(Step::Nothing) } else { Step::Nothing }
    }
}

impl Wanted {
    /// By the path that the kernel shows of it.
    fn may_be(self, path: &[u8]) -> bool {
        path.ends_with(b" (deleted)")
            && match self {
                Self::OfDevice(_) => true,
                Self::Memory => MEMORY.iter().any(|name| path.starts_with(name)),
            }
    }

    /// What an entry of `/proc` leads to; none when that cannot be looked at.
    fn held(self, entry: &Path) -> Option<Step> {
        let file = known_of(entry)?;
        let here = match self {
            Self::OfDevice(device) => file.device == device,
            Self::Memory => true,
        };
        Some(match here && file.links == 0 && file.is_file {
            true => Step::Held(Held { file: (file.device, file.inode), blocks: file.blocks, mapped: None }),
            false => Step::Nothing,
        })
    }
}

/// What is known of a file.
struct Known {
    device: u64,
    inode: u64,
    links: u32,
    is_file: bool,
    blocks: u64,
}

/// What the kernel knows of a file by itself: a server may have it open on a file system that hangs, and who asks that
/// hangs too.
fn known_of(path: &Path) -> Option<Known> {
    // As in `linux/stat.h`, which every architecture has the same; not every libc has it.
    let mut stat = [0_u8; 256];
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).ok()?;
    // SAFETY: the path lives through the call, and the kernel writes 256 bytes, which the structure is defined to have.
    let result = unsafe {
        libc::syscall(libc::SYS_statx, libc::AT_FDCWD, path.as_ptr(), DONT_SYNC, BASIC_STATS, stat.as_mut_ptr())
    };
    nix::errno::Errno::result(result).ok()?;
    let long = |at: usize| Some(u64::from_ne_bytes(stat.get(at..at + 8)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_ne_bytes(stat.get(at..at + 4)?.try_into().ok()?));
    let mode = u16::from_ne_bytes(stat.get(28..30)?.try_into().ok()?);
    Some(Known {
        device: nix::sys::stat::makedev(word(136)?.into(), word(140)?.into()),
        inode: long(32)?,
        links: word(16)?,
        is_file: libc::mode_t::from(mode) & libc::S_IFMT == libc::S_IFREG,
        blocks: long(48)?,
    })
}

/// The threads of a process, each with it.
pub(super) fn threads(pid: i32) -> Vec<(i32, i32)> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((pid, entry.file_name().to_str()?.parse().ok()?))).collect()
}

/// Tables of descriptors that were looked at, by a thread that has each, in an order that the kernel knows.
#[derive(Debug, Default)]
struct Tables(Vec<i32>);

impl Tables {
    fn is_new(&mut self, thread: i32) -> bool {
        let (mut from, mut to) = (0_usize, self.0.len());
        while let Some(other) = self.0.get(from.midpoint(to)).filter(|_| from < to) {
            match compare_tables(thread, *other) {
                Some(Ordering::Equal) => return false,
                Some(Ordering::Less) => to = from.midpoint(to),
                Some(Ordering::Greater) => from = from.midpoint(to) + 1,
                // The other may have ended. Where nothing can be compared, nobody stays here and everybody is new.
                None => {
                    self.0.remove(from.midpoint(to));
                    to -= 1;
                }
            }
        }
        self.0.insert(from, thread);
        true
    }
}

fn compare_tables(thread: i32, other: i32) -> Option<Ordering> {
    const KCMP_FILES: libc::c_int = 2;
    // SAFETY: plain numbers.
    match unsafe { libc::syscall(libc::SYS_kcmp, thread, other, KCMP_FILES, 0, 0) } {
        0 => Some(Ordering::Equal),
        1 => Some(Ordering::Less),
        2 => Some(Ordering::Greater),
        _ => None,
    }
}

/// The deleted files that a process has mapped, as they are read.
#[derive(Debug)]
struct Maps {
    pid: i32,
    lines: BufReader<File>,
    /// Those of which only what is mapped can be told.
    files: BTreeMap<(u64, u64), Mapped>,
}

#[derive(Debug)]
struct Mapped {
    bytes: u64,
    /// The first and the last byte of the file.
    part: (u64, u64),
}

impl Maps {
    /// All threads show the same, but for those that ended.
    fn open(pid: i32, threads: &[(i32, i32)]) -> Option<Self> {
        threads.iter().find_map(|(_, thread)| {
            let mut lines = BufReader::new(File::open(format!("/proc/{pid}/task/{thread}/maps")).ok()?);
            let some = lines.fill_buf().is_ok_and(|bytes| !bytes.is_empty());
            some.then_some(Self { pid, lines, files: BTreeMap::new() })
        })
    }

    fn step(&mut self, wanted: Wanted) -> Step {
        let mut line = Vec::new();
        if self.lines.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            let line = line.strip_suffix(b"\n").unwrap_or(&line);
            return Mapping::parse(line, wanted).map_or(Step::Nothing, |it| self.look_at(&it, wanted));
        }
        let held = |(file, Mapped { bytes, part }): (_, Mapped)| {
            Step::Held(Held { file, blocks: bytes / 512, mapped: Some(part) })
        };
        self.files.pop_first().map_or(Step::End, held)
    }

    fn look_at(&mut self, mapping: &Mapping, wanted: Wanted) -> Step {
        // A number of a device is written in another way there, so it is asked for where that is allowed.
        let held = wanted.held(Path::new(&mapping.file(self.pid)));
        let here = match wanted {
            Wanted::OfDevice(device) => mapping.device == device,
            Wanted::Memory => true,
        };
        if held.is_none() && here {
            let (from, to) = (mapping.offset, mapping.offset.saturating_add(mapping.bytes()));
            let nothing = Mapped { bytes: 0, part: (from, to) };
            let mapped = self.files.entry((mapping.device, mapping.inode)).or_insert(nothing);
            mapped.bytes = mapped.bytes.saturating_add(mapping.bytes());
            mapped.part = (mapped.part.0.min(from), mapped.part.1.max(to));
        }
        held.unwrap_or(Step::Nothing)
    }
}

/// A line of `/proc/PID/maps` about a deleted file.
struct Mapping {
    from: u64,
    to: u64,
    offset: u64,
    device: u64,
    inode: u64,
}

impl Mapping {
    /// `7f0000-7f1000 rw-s 00000000 fd:01 123      /tmp/x (deleted)`
    fn parse(line: &[u8], wanted: Wanted) -> Option<Self> {
        let path = line.get(line.iter().position(|byte| *byte == b'/')?..)?;
        if !wanted.may_be(path) {
            return None;
        }
        let words = String::from_utf8_lossy(line.strip_suffix(path)?);
        let mut words = words.split_ascii_whitespace();
        let (from, to) = words.next()?.split_once('-')?;
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let offset = hex(words.nth(1)?)?;
        let (major, minor) = words.next()?.split_once(':')?;
        let device = nix::sys::stat::makedev(hex(major)?, hex(minor)?);
        Some(Self { from: hex(from)?, to: hex(to)?, offset, device, inode: words.next()?.parse().ok()? })
    }

    fn file(&self, pid: i32) -> String {
        format!("/proc/{pid}/map_files/{:x}-{:x}", self.from, self.to)
    }

    fn bytes(&self) -> u64 {
        self.to.saturating_sub(self.from)
    }
}

/// How many descriptors an instance of `epoll` watches, by its entry `.../fd/N` (proc_pid_fdinfo(5)).
fn watches_of(epoll: &Path) -> usize {
    info_of(epoll).lines().filter(|line| line.starts_with("tfd:")).count()
}

/// Whether descriptors wait in a socket, by its entry `.../fd/N`.
fn has_in_flight(socket: &Path) -> bool {
    let info = info_of(socket);
    let waiting = info.lines().find_map(|line| line.strip_prefix("scm_fds:")?.trim().parse::<u32>().ok());
    waiting.is_some_and(|waiting| waiting > 0)
}

fn info_of(file: &Path) -> String {
    let of_thread = file.parent().and_then(Path::parent).zip(file.file_name());
    let info = of_thread.and_then(|(thread, number)| std::fs::read_to_string(thread.join("fdinfo").join(number)).ok());
    info.unwrap_or_default()
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
    use nix::sched::CloneFlags;
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixStream;
    use std::sync::Barrier;

    /// Everything that this process holds, and whether something is in flight.
    fn held(device: u64) -> (Vec<Held>, bool) {
        let own = i32::try_from(std::process::id()).expect("small");
        let (mut unnamed, mut held) = (Unnamed::new(device), Vec::new());
        loop {
            match unnamed.step(|| vec![own]) {
                Step::Held(file) => held.push(file),
                Step::Nothing => {}
                Step::End => return (held, unnamed.in_flight),
            }
        }
    }

    #[test]
    fn descriptors_that_a_thread_has_for_itself_are_looked_at_and_shared_ones_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, ready, done) = (dir.path().join("file"), Barrier::new(3), Barrier::new(3));
        let id = || nix::unistd::gettid().as_raw();
        let device = std::fs::metadata(dir.path()).expect("there").dev();
        let (sender, ids) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            for shares in [true, false] {
                let (path, ready, done, sender) = (&path, &ready, &done, sender.clone());
                scope.spawn(move || {
                    let flags = if shares { CloneFlags::empty() } else { CloneFlags::CLONE_FILES };
                    nix::sched::unshare(flags).expect("as it is, or descriptors of its own");
                    let file = (!shares).then(|| File::create(path).expect("made"));
                    sender.send((shares, id())).expect("heard");
                    ready.wait();
                    done.wait();
                    drop(file);
                });
            }
            ready.wait();
            std::fs::remove_file(&path).expect("removed");
            let found = held(device).0;
            let mut tables = Tables::default();
            let first = tables.is_new(id());
            let others: Vec<_> = ids.try_iter().map(|(shares, thread)| shares != tables.is_new(thread)).collect();
            done.wait();
            assert_eq!((found.len(), first, others), (1, true, vec![true, true]));
        });
    }

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
        let found = || held(metadata.dev()).0.into_iter().find(|it| it.file.1 == metadata.ino());
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
        assert!(!held(0).1);
        let fds = [one.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&fds)];
        let bytes = [std::io::IoSlice::new(b"x")];
        sendmsg::<()>(one.as_raw_fd(), &bytes, &rights, MsgFlags::empty(), None).expect("sent");
        assert!(held(0).1);
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
