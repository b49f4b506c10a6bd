//! How much a server or a package client keeps on disk, watched: where it may write there is no quota that every file
//! system has.
//!
//! Counted are the directories that are its own, and files there that were deleted and are still open or mapped; for
//! descriptors that are in flight see [`super::unnamed`]. What it was granted beside is not its own and not counted. Most
//! looks are a question to the file system how much is free; the directories are gone through only when much went since the
//! last time, or long ago. That is done in pieces, and what watches does its other work between them: however many files
//! there are, nobody waits for the count, and it ends, because each file counts at least [`LEAST_BYTES`].
//!
//! Who moves what it keeps while that is gone through may never be seen with it. So a count is believed only when no
//! process ran meanwhile. Otherwise it counts as the least there is, and the most is what the last believed count came to
//! with all that went of the free space since. Once that is more than allowed, the processes are stopped, counted, and
//! continued. Others write to the disk too, so this proves nothing, and who is not over its limit stood still for a moment.
//! Only who cannot be counted that way either, twice, is told that it cannot be measured.
//!
//! The directories are a hostile server's, so nothing is followed out of them, and who keeps something that cannot be
//! looked at is told so.

mod still;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::dir::{Dir, OwningIter};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, SFlag, fstatat};

use still::{Activity, Pids, Standing};

use super::unnamed::{InFlight, Step, Unnamed};

/// The file system keeps no limit; asking what is free costs next to nothing.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// One piece of going through directories, and what comes between two.
const PIECE: Duration = Duration::from_millis(20);
const PAUSE: Duration = Duration::from_millis(20);
/// Directories are gone through at least this often, also when nothing seems to have gone.
const WALK_EVERY: Duration = Duration::from_secs(30);
/// Unless that takes long: then it is not done again for this many times as long.
const REST: u32 = 10;
/// So many counts that cannot be believed are enough to stop the processes, when there was never one that can.
const UNPROVEN_WALKS: u32 = 3;
/// How long processes stand still while they are counted: the first time, and once that was not enough.
const STAND: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(10)];
/// A file takes at least this, whatever is in it: names and inodes end too.
const LEAST_BYTES: u64 = 4096;
/// Less than this is never much, however little is free.
const LEAST_SHARE_BYTES: u64 = 1 << 20;

/// Watches one server or package client.
#[derive(Debug)]
pub(crate) struct DiskWatch {
    dirs: Vec<PathBuf>,
    /// Nothing is watched when it is zero.
    limit_bytes: u64,
    looked_at: Option<Instant>,
    walk: Option<Walk>,
    walked: Option<Walked>,
    in_flight: InFlight,
    known: Option<Known>,
    stood: Option<Stood>,
}

/// What was kept at the last count that can be believed; or, until there was one, the first count.
#[derive(Clone, Copy, Debug)]
struct Known {
    bytes: u64,
    /// The most that was free since: what others gave back meanwhile hides nothing.
    free_bytes: u64,
    proven: bool,
    /// Counts since that cannot be believed.
    walks: u32,
}

/// When processes stood still the last time.
#[derive(Clone, Copy, Debug)]
struct Stood {
    rests_until: Instant,
    /// How often in a row that led to nothing.
    failures: usize,
}

#[derive(Clone, Copy, Debug)]
struct Walked {
    at: Instant,
    took: Duration,
    /// When it began: what went since then may lie where it had been already.
    free_bytes: u64,
}

impl DiskWatch {
    /// Watches what is kept in `dirs` together.
    pub(crate) fn new(dirs: Vec<PathBuf>, limit_bytes: u64) -> Self {
        Self {
            dirs,
            limit_bytes,
            looked_at: None,
            walk: None,
            walked: None,
            in_flight: InFlight::default(),
            known: None,
            stood: None,
        }
    }

    /// When [`DiskWatch::look`] has something to do again.
    pub(crate) fn next_look(&self) -> Duration {
        let wait = if self.walk.is_some() { PAUSE } else { LOOK_EVERY };
        self.looked_at.map_or(Duration::ZERO, |at| wait.saturating_sub(at.elapsed()))
    }

    /// Looks, when it is time to: what is wrong, for a person. `pids` tells the processes that may have files open, and
    /// that may be stopped for up to 10 s; there are none when they are not ours.
    pub(crate) fn look(&mut self, pids: Option<Pids<'_>>) -> Option<String> {
        if !self.next_look().is_zero() {
            return None;
        }
        let found = self.go_on(pids);
        self.looked_at = Some(Instant::now());
        found
    }

    fn go_on(&mut self, pids: Option<Pids<'_>>) -> Option<String> {
        let mut walk = match self.walk.take() {
            Some(walk) => walk,
            None => self.begin(pids)?,
        };
        match walk.go_on(Instant::now() + PIECE, pids) {
            Ok(true) => self.end(&walk, pids),
            Ok(false) => {
                self.walk = Some(walk);
                None
            }
            Err(trouble) => Some(trouble.text(self.limit_bytes)),
        }
    }

    fn begin(&mut self, pids: Option<Pids<'_>>) -> Option<Walk> {
        let first = self.dirs.first().filter(|_| self.limit_bytes > 0)?;
        let free_bytes = free_bytes(first);
        if let Some(known) = &mut self.known {
            known.free_bytes = known.free_bytes.max(free_bytes);
        }
        let due = self.walked.is_none_or(|walked| walked.is_due(free_bytes, self.limit_bytes));
        let activity = || pids.and_then(|pids| Activity::of_few(&pids()));
        due.then(|| Walk::new(&self.dirs, self.limit_bytes, free_bytes, activity()))
    }

    /// Takes what a count came to, and makes another with standing processes when this one may hide too much.
    fn end(&mut self, walk: &Walk, pids: Option<Pids<'_>>) -> Option<String> {
        self.walked = Some(Walked { at: Instant::now(), took: walk.began.elapsed(), free_bytes: walk.free_bytes });
        if let Some(found) = self.note_in_flight(walk) {
            return Some(found);
        }
        let pids = pids?;
        let known = match self.known {
            _ if walk.was_still(pids) => Known::proven(walk),
            Some(known) => Known { walks: known.walks.saturating_add(1), ..known },
            None => Known { proven: false, walks: 1, ..Known::proven(walk) },
        };
        self.known = Some(known);
        let failures = self.stood.map_or(0, |stood| stood.failures);
        let rests = self.stood.is_some_and(|stood| Instant::now() < stood.rests_until);
        let doubtful = known.may_hide(walk.free_bytes, self.limit_bytes)
            || (!known.proven && known.walks >= UNPROVEN_WALKS && failures < STAND.len());
        if !doubtful || rests { None } else { self.stand(known, pids) }
    }

    fn note_in_flight(&mut self, walk: &Walk) -> Option<String> {
        let found = self.in_flight.note(walk.in_flight(), walk.free_bytes, self.limit_bytes);
        found.then(|| format!("kept more than {} bytes on disk, in flight between sockets", self.limit_bytes))
    }

    fn stand(&mut self, known: Known, pids: Pids<'_>) -> Option<String> {
        let began = Instant::now();
        let failures = self.stood.map_or(0, |stood| stood.failures);
        let within = STAND[failures.min(STAND.len() - 1)];
        let counted = self.count_standing(within, pids);
        let rests_until = Instant::now() + WALK_EVERY.max(began.elapsed() * REST);
        let done = counted.as_ref().is_ok_and(|walk| !walk.in_flight());
        let failures = if done { 0 } else { failures + 1 };
        self.stood = Some(Stood { rests_until, failures });
        match counted {
            // Neither is what is in flight counted now.
            Ok(walk) if walk.in_flight() => self.note_in_flight(&walk),
            Ok(walk) => {
                self.known = Some(Known::proven(&walk));
                None
            }
            Err(Trouble::Moving(_)) if failures < STAND.len() => None,
            Err(Trouble::Moving(_)) if !known.may_hide(free_bytes(self.dirs.first()?), self.limit_bytes) => None,
            Err(trouble) => Some(trouble.text(self.limit_bytes)),
        }
    }

    fn count_standing(&self, within: Duration, pids: Pids<'_>) -> Result<Walk, Trouble> {
        let standing = Standing::stop(pids).ok_or(Trouble::Moving("its processes do not stand still when stopped"))?;
        let free_bytes = self.dirs.first().map_or(0, |dir| free_bytes(dir));
        let mut walk = Walk::new(&self.dirs, self.limit_bytes, free_bytes, None);
        if !walk.go_on(Instant::now() + within, Some(pids))? {
            return Err(Trouble::Moving("it changes all the time and takes too long to go through at once"));
        }
        if standing.stands() { Ok(walk) } else { Err(Trouble::Moving("its processes go on when stopped")) }
    }
}

impl Known {
    fn proven(walk: &Walk) -> Self {
        Self { bytes: walk.counted_bytes(), free_bytes: walk.free_bytes, proven: true, walks: 0 }
    }

    /// Whether more than the limit may be kept, as much as that may be.
    fn may_hide(&self, free_bytes: u64, limit_bytes: u64) -> bool {
        self.bytes.saturating_add(self.free_bytes.saturating_sub(free_bytes)) > limit_bytes
    }
}

impl Walked {
    /// What went counts at once, however long the last time took: to fill a disk takes seconds. The less was free, the
    /// less is much.
    fn is_due(self, free_bytes: u64, limit_bytes: u64) -> bool {
        let share = (limit_bytes / 8).min(self.free_bytes / 4).max(LEAST_SHARE_BYTES.min(limit_bytes / 8));
        let went = self.free_bytes.saturating_sub(free_bytes);
        went >= share || self.at.elapsed() >= WALK_EVERY.max(self.took * REST)
    }
}

/// Tries to look into a directory.
///
/// # Errors
/// Why this host does not allow it.
pub(super) fn try_here(dir: &Path) -> Result<(), String> {
    let root =
        Dir::open(dir, OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty()).map_err(|error| error.to_string())?;
    beneath(&root, Path::new(".")).map(drop).map_err(|error| format!("openat2: {error}"))
}

fn free_bytes(dir: &Path) -> u64 {
    let free = nix::sys::statvfs::statvfs(dir).map(|disk| disk.blocks_free().saturating_mul(disk.fragment_size()));
    free.unwrap_or(0)
}

/// Opens a directory below another without following anything out of it.
fn beneath(root: &Dir, path: &Path) -> Result<OwnedFd, Errno> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV);
    openat2(root, path, how)
}

/// Why going through the directories ended early.
#[derive(Debug, PartialEq, Eq)]
enum Trouble {
    /// There is more than allowed.
    Over,
    /// Something that cannot be looked at, and why.
    Unmeasured(String),
    /// It does not hold still for as long as it takes.
    Moving(&'static str),
}

impl Trouble {
    fn text(&self, limit_bytes: u64) -> String {
        let what = match self {
            Self::Over => return format!("kept more than {limit_bytes} bytes on disk"),
            Self::Unmeasured(what) => what,
            Self::Moving(what) => *what,
        };
        format!("what it keeps on disk cannot be measured: {what}")
    }
}

/// Goes through directories until there is too much, a piece at a time.
#[derive(Debug)]
struct Walk {
    began: Instant,
    free_bytes: u64,
    limit_bytes: u64,
    left_bytes: u64,
    /// What was counted of files with several names, and of open ones without any: each counts once.
    seen: HashMap<(u64, u64), u64>,
    /// Where deleted files count.
    device: Option<u64>,
    roots: Vec<PathBuf>,
    root: Option<(Dir, PathBuf)>,
    /// Each with where it is; many share that, so a long path does not make them long.
    dirs: Vec<(Arc<Path>, OsString)>,
    open: Option<Open>,
    unnamed: Option<Unnamed>,
    /// Before it began.
    activity: Option<Activity>,
}

/// A directory whose entries are being counted.
#[derive(Debug)]
struct Open {
    path: Arc<Path>,
    dir: OwnedFd,
    entries: OwningIter,
}

impl Walk {
    fn new(dirs: &[PathBuf], limit_bytes: u64, free_bytes: u64, activity: Option<Activity>) -> Self {
        let device = dirs.first().and_then(|dir| std::fs::metadata(dir).ok()).map(|metadata| metadata.dev());
        Self {
            began: Instant::now(),
            free_bytes,
            limit_bytes,
            left_bytes: limit_bytes,
            seen: HashMap::new(),
            device,
            roots: dirs.to_vec(),
            root: None,
            dirs: Vec::new(),
            open: None,
            unnamed: None,
            activity,
        }
    }

    fn counted_bytes(&self) -> u64 {
        self.limit_bytes - self.left_bytes
    }

    /// Whether descriptors waited in sockets.
    fn in_flight(&self) -> bool {
        self.unnamed.as_ref().is_some_and(|unnamed| unnamed.in_flight)
    }

    /// Whether all that there was must have been seen.
    fn was_still(&self, pids: Pids<'_>) -> bool {
        let is_still = |activity: &Activity| Activity::of_few(&pids()).is_some_and(|now| activity.is_still(&now));
        !self.in_flight() && self.activity.as_ref().is_some_and(is_still)
    }

    /// Goes on until then; whether that was the end.
    fn go_on(&mut self, until: Instant, pids: Option<Pids<'_>>) -> Result<bool, Trouble> {
        loop {
            if let Some(open) = &mut self.open {
                match open.entries.next() {
                    Some(Ok(entry)) => self.count(entry.file_name())?,
                    // It was removed in between.
                    Some(Err(Errno::ENOENT)) => self.open = None,
                    Some(Err(error)) => {
                        let path = Arc::clone(&open.path);
                        return Err(self.unmeasured(&path, error));
                    }
                    None => self.open = None,
                }
            } else if let Some((parent, name)) = self.dirs.pop() {
                self.open(&parent.join(name))?;
            } else if let Some(root) = self.roots.pop() {
                self.begin(root)?;
            } else if !self.look_at_unnamed(pids)? {
                return Ok(true);
            }
            if Instant::now() >= until {
                return Ok(false);
            }
        }
    }

    fn begin(&mut self, path: PathBuf) -> Result<(), Trouble> {
        match Dir::open(&path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty()) {
            Ok(root) => {
                self.root = Some((root, path));
                self.open(Path::new("."))
            }
            Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(unmeasured(&path, error)),
        }
    }

    fn open(&mut self, path: &Path) -> Result<(), Trouble> {
        let Some((root, _)) = &self.root else { return Ok(()) };
        let opened = match beneath(root, path) {
            Ok(opened) => opened,
            // It went in between, or became something else, which counted already.
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(()),
            // Something is mounted there, which is not the server's own.
            Err(Errno::EXDEV) => return Ok(()),
            Err(error) => return Err(self.unmeasured(path, error)),
        };
        let dir = opened.try_clone().map_err(|error| self.unmeasured(path, error))?;
        let entries = Dir::from_fd(opened).map_err(|error| self.unmeasured(path, error))?.into_iter();
        self.open = Some(Open { path: path.into(), dir, entries });
        Ok(())
    }

    fn unmeasured(&self, path: &Path, error: impl std::fmt::Display) -> Trouble {
        let root = self.root.as_ref().and_then(|(_, root)| root.file_name()).unwrap_or_default();
        unmeasured(&Path::new(root).join(path.strip_prefix(".").unwrap_or(path)), error)
    }

    fn count(&mut self, name: &std::ffi::CStr) -> Result<(), Trouble> {
        let Some(open) = self.open.as_ref().filter(|_| !matches!(name.to_bytes(), b"." | b"..")) else { return Ok(()) };
        let Ok(stat) = fstatat(open.dir.as_fd(), name, AtFlags::AT_SYMLINK_NOFOLLOW) else { return Ok(()) };
        if SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR {
            self.dirs.push((Arc::clone(&open.path), OsStr::from_bytes(name.to_bytes()).to_owned()));
        }
        let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
        self.add((stat.st_dev, stat.st_ino), stat.st_nlink > 1, blocks)
    }

    /// Looks at one thing without a name; whether there may be more.
    fn look_at_unnamed(&mut self, pids: Option<Pids<'_>>) -> Result<bool, Trouble> {
        let Some((device, pids)) = self.device.zip(pids) else { return Ok(false) };
        match self.unnamed.get_or_insert_with(|| Unnamed::new(device)).step(pids) {
            Step::Held(held) => self.add(held.file, true, held.blocks)?,
            Step::Nothing => {}
            Step::End => return Ok(false),
        }
        Ok(true)
    }

    fn add(&mut self, file: (u64, u64), named_again: bool, blocks: u64) -> Result<(), Trouble> {
        let bytes = blocks.saturating_mul(512).max(LEAST_BYTES);
        let counted = if named_again { self.seen.entry(file).or_default() } else { &mut 0 };
        let more = bytes.saturating_sub(*counted);
        *counted = bytes.max(*counted);
        self.left_bytes = self.left_bytes.checked_sub(more).ok_or(Trouble::Over)?;
        Ok(())
    }
}

fn unmeasured(path: &Path, error: impl std::fmt::Display) -> Trouble {
    let path = toolyard_types::name::printable(&path.to_string_lossy());
    Trouble::Unmeasured(format!("`{}`: {error}", super::log::bounded(path, 200)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;

    const OWN: [&str; 2] = ["work", "tmp"];

    fn instance() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        OWN.iter().for_each(|name| std::fs::create_dir(dir.path().join(name)).expect("a directory"));
        dir
    }

    fn watch(dir: &Path, limit_bytes: u64) -> DiskWatch {
        DiskWatch::new(OWN.map(|name| dir.join(name)).into(), limit_bytes)
    }

    /// Looks until the directories have been gone through.
    fn measure(dir: &Path, limit_bytes: u64, pids: &[i32]) -> Option<String> {
        measure_with(&mut watch(dir, limit_bytes), &|| pids.to_vec())
    }

    fn measure_with(watch: &mut DiskWatch, pids: Pids<'_>) -> Option<String> {
        watch.walked = None;
        let mut found = watch.go_on(Some(pids));
        while found.is_none() && watch.walk.is_some() {
            found = watch.go_on(Some(pids));
        }
        found
    }

    fn is_over(dir: &Path, limit_bytes: u64, pids: &[i32]) -> bool {
        let found = measure(dir, limit_bytes, pids);
        assert!(found.as_ref().is_none_or(|found| found.starts_with("kept more than ")), "{found:?}");
        found.is_some()
    }

    #[test]
    fn what_lies_in_both_directories_counts_together_and_a_file_with_two_names_once() {
        let dir = instance();
        let big = dir.path().join("work/big");
        std::fs::write(&big, vec![1; 600 << 10]).expect("written");
        std::fs::hard_link(&big, dir.path().join("tmp/again")).expect("linked");
        assert!(!is_over(dir.path(), 1 << 20, &[]));
        std::fs::create_dir_all(dir.path().join("tmp/a/b")).expect("directories");
        std::fs::write(dir.path().join("tmp/a/b/more"), vec![1; 600 << 10]).expect("written");
        assert!(is_over(dir.path(), 1 << 20, &[]));
    }

    #[test]
    fn many_empty_files_are_not_nothing() {
        let dir = instance();
        (0..300).for_each(|n| std::fs::write(dir.path().join(format!("work/{n}")), "").expect("written"));
        assert!(is_over(dir.path(), 1 << 20, &[]));
        assert!(!is_over(dir.path(), 2 << 20, &[]));
    }

    #[test]
    fn a_deleted_file_counts_while_it_is_open_and_a_link_leads_nowhere() {
        let dir = instance();
        std::os::unix::fs::symlink("/usr", dir.path().join("work/usr")).expect("linked");
        let path = dir.path().join("work/big");
        std::fs::write(&path, vec![1; 2 << 20]).expect("written");
        let file = std::fs::File::open(&path).expect("open");
        std::fs::remove_file(&path).expect("removed");
        let own = [i32::try_from(std::process::id()).expect("small")];
        assert!(is_over(dir.path(), 1 << 20, &own));
        assert!(!is_over(dir.path(), 1 << 20, &[]));
        drop(file);
        assert!(!is_over(dir.path(), 1 << 20, &own));
    }

    #[test]
    fn who_has_no_limit_is_not_looked_at() {
        let dir = instance();
        std::fs::write(dir.path().join("work/big"), vec![1; 1 << 20]).expect("written");
        assert_eq!(watch(dir.path(), 0).look(None), None);
        assert!(watch(dir.path(), 1 << 19).look(None).is_some());
    }

    #[test]
    fn directories_are_gone_through_at_once_when_much_went_however_long_it_took_the_last_time() {
        let walked = Walked { at: Instant::now(), took: Duration::ZERO, free_bytes: 80 << 20 };
        assert!(!walked.is_due(80 << 20, 80 << 20));
        assert!(!walked.is_due(71 << 20, 80 << 20));
        assert!(walked.is_due(70 << 20, 80 << 20));
        let slow = Walked { took: Duration::from_secs(100), ..walked };
        assert!(slow.is_due(70 << 20, 80 << 20));
        // Of the little that is left less is much.
        assert!(!slow.is_due(61 << 20, 1 << 40));
        assert!(slow.is_due(60 << 20, 1 << 40));
    }

    #[test]
    fn going_through_very_many_files_is_done_in_pieces() {
        let dir = instance();
        for sub in 0..20 {
            let sub = dir.path().join(format!("work/d{sub}"));
            std::fs::create_dir(&sub).expect("a directory");
            (0..1500).for_each(|n| std::fs::write(sub.join(n.to_string()), "").expect("written"));
        }
        let mut watch = watch(dir.path(), 1 << 30);
        let (mut longest, mut pieces) = (Duration::ZERO, 0);
        loop {
            let began = Instant::now();
            assert_eq!(watch.go_on(None), None);
            longest = longest.max(began.elapsed());
            pieces += 1;
            if watch.walk.is_none() {
                break;
            }
        }
        assert!(watch.walked.is_some());
        // One entry beyond the piece at most; the rest is for a busy machine.
        assert!(longest < Duration::from_millis(500), "{longest:?}");
        assert!(pieces > 1, "{pieces}");
    }

    /// A Python program and all it starts in its process group, which ends with this.
    struct Server(std::process::Child);

    impl Server {
        /// Comes back when the program has made `ready` in its directory. Its first process only inherits what lost its
        /// parent, and is none of the server's.
        fn start(dir: &Path, script: &str) -> Self {
            let first = "import ctypes, os, sys, time\nctypes.CDLL(None).prctl(36, 1, 0, 0, 0)\nif os.fork() > 0:\n    \
                         while True: os.wait()\n";
            let mut command = std::process::Command::new("/usr/bin/python3");
            let child = command
                .args(["-c", &format!("{first}{script}")])
                .current_dir(dir.join("work"))
                .process_group(0)
                .spawn();
            let server = Self(child.expect("it starts"));
            wait_until(|| dir.join("work/ready").exists());
            server
        }

        fn pids(&self) -> Vec<i32> {
            super::super::tree::descendants(i32::try_from(self.0.id()).expect("small"))
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            // All at once: one by one they might be started faster than they are killed.
            let group = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).expect("small"));
            nix::sys::signal::killpg(group, nix::sys::signal::SIGKILL).expect("killed");
            let _ = self.0.wait();
        }
    }

    fn wait_until(mut done: impl FnMut() -> bool) {
        let began = Instant::now();
        while !done() {
            assert!(began.elapsed() < Duration::from_secs(60), "it takes too long");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Goes through everything again and again, without the rests between.
    fn watch_until(watch: &mut DiskWatch, server: &Server, done: impl Fn(&DiskWatch) -> bool) -> Option<String> {
        let mut found = None;
        wait_until(|| {
            if let Some(stood) = &mut watch.stood {
                stood.rests_until = Instant::now();
            }
            found = measure_with(watch, &|| server.pids());
            found.is_some() || done(watch)
        });
        found
    }

    const MOVES: &str = "
for place in ('a', 'b'):
    for n in range(500): os.makedirs(f'{place}/{n}')
os.mkdir('a/full')
open('a/full/big', 'wb').write(bytes(8 << 20))
open('ready', 'w')
while True:
    os.rename('a/full', 'b/full')
    os.rename('b/full', 'a/full')
";

    #[test]
    fn a_full_directory_that_moves_all_the_time_is_found_while_its_server_stands_still() {
        let dir = instance();
        let server = Server::start(dir.path(), MOVES);
        // As the watch does, which looks again.
        let count = |limit: u64| {
            let once = || watch(dir.path(), limit).count_standing(STAND[0], &|| server.pids());
            (0..STAND.len()).map(|_| once()).find(|counted| !matches!(counted, Err(Trouble::Moving(_))))
        };
        assert_eq!(count(6 << 20).expect("it stands").err(), Some(Trouble::Over));
        let counted = count(16 << 20).expect("it stands").expect("counted");
        assert!(counted.counted_bytes() > 12_480_000, "{}", counted.counted_bytes());
        let found = watch_until(&mut watch(dir.path(), 6 << 20), &server, |_| false);
        assert_eq!(found.as_deref(), Some("kept more than 6291456 bytes on disk"));
    }

    /// Each process hands the file on to another and ends.
    const HANDS_ON: &str = "
f = open('big', 'wb')
f.write(bytes(8 << 20))
f.flush()
os.unlink('big')
open('ready', 'w')
while True:
    if os.fork() > 0: os._exit(0)
";

    #[test]
    fn a_deleted_file_that_is_handed_on_by_processes_that_end_is_found_or_cannot_be_measured() {
        let dir = instance();
        let server = Server::start(dir.path(), HANDS_ON);
        let mut watch = watch(dir.path(), 4 << 20);
        // It was there before anything was counted: what went since is not enough to say that it cannot be measured.
        watch.known = Some(Known { bytes: 4 << 20, free_bytes: u64::MAX, proven: true, walks: 0 });
        let found = watch_until(&mut watch, &server, |_| false).expect("found");
        let expected =
            ["kept more than 4194304 bytes on disk", "what it keeps on disk cannot be measured: its processes"];
        assert!(expected.iter().any(|it| found.starts_with(it)), "{found}");
    }

    /// Two processes send each other the file and keep it no longer than that takes.
    const SENDS: &str = "
import socket
one, two = socket.socketpair()
if os.fork() == 0: one = two
else:
    with open('big', 'wb') as f:
        f.write(bytes(8 << 20))
        f.flush()
        socket.send_fds(one, [b'x'], [f.fileno()])
    os.unlink('big')
    open('ready', 'w')
while True:
    fd = socket.recv_fds(one, 1, 1)[1][0]
    socket.send_fds(one, [b'x'], [fd])
    os.close(fd)
";

    #[test]
    fn a_deleted_file_that_is_sent_to_and_fro_is_found() {
        let dir = instance();
        let server = Server::start(dir.path(), SENDS);
        let found = watch_until(&mut watch(dir.path(), 4 << 20), &server, |_| false).expect("found");
        // In flight, when somebody else fills the disk meanwhile.
        assert!(found.starts_with("kept more than 4194304 bytes on disk"), "{found}");
    }

    const WORKS: &str = "
n = 0
while True:
    n += 1
    open(f'file{n % 50}', 'w').write(str(n))
    if n > 50: os.unlink(f'file{(n + 25) % 50}')
    open('next', 'w').write(str(n))
    os.rename('next', 'ready')
";

    #[test]
    fn a_server_that_is_not_over_its_limit_goes_on_when_it_was_counted() {
        let dir = instance();
        let server = Server::start(dir.path(), WORKS);
        let mut watch = watch(dir.path(), 1 << 20);
        // As if somebody else had written all that is left.
        watch.known = Some(Known { bytes: 0, free_bytes: u64::MAX, proven: true, walks: 0 });
        let found = watch_until(&mut watch, &server, |watch| watch.stood.is_some_and(|stood| stood.failures == 0));
        assert_eq!(found, None);
        let known = watch.known.expect("counted");
        assert!(known.proven && known.bytes < 1 << 20 && known.free_bytes < u64::MAX, "{known:?}");
        let done = || std::fs::read_to_string(dir.path().join("work/ready")).unwrap_or_default();
        let before = done();
        wait_until(|| !done().is_empty() && done() != before);
        for pid in server.pids() {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
            assert!(!stat.contains(") T "), "{stat}");
        }
    }

    #[test]
    fn who_is_still_is_believed_and_never_stopped() {
        let dir = instance();
        let server = Server::start(dir.path(), "open('ready', 'w')\nwhile True: time.sleep(1000)\n");
        let mut watch = watch(dir.path(), 1 << 20);
        let found = watch_until(&mut watch, &server, |watch| watch.known.is_some_and(|known| known.proven));
        assert_eq!(found, None);
        assert!(watch.stood.is_none(), "{:?}", watch.stood);
    }

    #[test]
    fn what_went_since_the_last_count_that_is_believed_may_be_hidden_and_what_came_back_hides_nothing() {
        let known = Known { bytes: 60, free_bytes: 1000, proven: true, walks: 0 };
        assert!(!known.may_hide(960, 100) && known.may_hide(959, 100));
        assert!(!known.may_hide(2000, 100));
    }

    #[test]
    fn what_the_threads_hold_of_a_process_whose_first_one_ended_counts() {
        let dir = instance();
        let script = "
import threading
f = open('big', 'wb')
f.write(bytes(2 << 20))
f.flush()
os.unlink('big')
threading.Thread(target=lambda: (open('ready', 'w'), time.sleep(1000))).start()
ctypes.CDLL(None).syscall({'x86_64': 60, 'aarch64': 93}[os.uname().machine], 0)
";
        let server = Server::start(dir.path(), script);
        let first_ended =
            |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "));
        wait_until(|| server.pids().iter().any(first_ended));
        assert!(is_over(dir.path(), 1 << 20, &server.pids()));
        assert!(super::super::tree::measure(&server.pids()).memory_bytes > 1 << 20);
    }

    #[test]
    fn a_directory_that_is_removed_while_it_is_gone_through_is_no_trouble() {
        let dir = instance();
        let gone = dir.path().join("work/gone");
        std::fs::create_dir(&gone).expect("a directory");
        let mut walk = Walk::new(&OWN.map(|name| dir.path().join(name)), 1 << 20, 0, None);
        while walk.open.as_ref().is_none_or(|open| !open.path.ends_with("gone")) {
            assert_eq!(walk.go_on(Instant::now(), None), Ok(false));
        }
        std::fs::remove_dir(&gone).expect("removed");
        assert_eq!(walk.go_on(Instant::now() + Duration::from_secs(60), None), Ok(true));
    }

    #[test]
    fn very_many_descriptors_are_looked_at_in_pieces() {
        let dir = instance();
        let files: Vec<_> = (0..500).map(|_| std::fs::File::open("/dev/null").expect("open")).collect();
        let own = [i32::try_from(std::process::id()).expect("small")];
        let mut walk = Walk::new(&OWN.map(|name| dir.path().join(name)), 1 << 20, 0, None);
        let mut pieces = 0;
        while !walk.go_on(Instant::now(), Some(&|| own.to_vec())).expect("little") {
            pieces += 1;
        }
        assert!(pieces > files.len(), "{pieces}");
    }

    #[test]
    fn what_cannot_be_looked_at_is_named_and_is_not_said_to_be_too_much() {
        use std::os::unix::fs::PermissionsExt;
        let dir = instance();
        // Deeper than a path may be long: the only thing that root cannot open.
        let (root, name) = (dir.path().join("work"), "n".repeat(250));
        let mut deep = Dir::open(&root, OFlag::O_DIRECTORY, Mode::empty()).expect("a directory");
        for _ in 0..20 {
            nix::sys::stat::mkdirat(&deep, name.as_str(), Mode::S_IRWXU).expect("made");
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
            deep = Dir::openat(&deep, name.as_str(), flags, Mode::empty()).expect("opened");
        }
        let found = measure(dir.path(), 1 << 20, &[]).expect("something is wrong");
        assert!(found.starts_with("what it keeps on disk cannot be measured: `work/nnn"), "{found}");
        assert!(found.contains("ENAMETOOLONG") && found.len() < 400, "{found}");
        if !nix::unistd::Uid::effective().is_root() {
            let dir = instance();
            let shut = dir.path().join("work/shut");
            std::fs::create_dir(&shut).expect("a directory");
            std::fs::set_permissions(&shut, std::fs::Permissions::from_mode(0o000)).expect("shut");
            let found = measure(dir.path(), 1 << 20, &[]).expect("something is wrong");
            assert!(found.contains("`work/shut`: EACCES"), "{found}");
            super::super::remove::remove_all(&shut).expect("removed");
        }
    }
}
