//! How much a server or a package client keeps on disk, watched: where it may write there is no quota that every file
//! system has.
//!
//! Counted are the directories that are its own, and files there that were deleted and are still open or mapped; for
//! descriptors that are in flight see [`super::unnamed`]. What it was granted beside is not its own and not counted. Most looks are a question to the file system how much is free; the
//! directories are gone through only when much went since the last time, or long ago. That is done in pieces, and what
//! watches does its other work between them: however many files there are, nobody waits for the count, and it ends,
//! because each file counts at least [`LEAST_BYTES`].
//!
//! The directories are a hostile server's, so nothing is followed out of them, and who keeps something that cannot be
//! looked at is told so.

use std::collections::HashSet;
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

use super::unnamed::{InFlight, has_in_flight, mapped};

/// The file system keeps no limit; asking what is free costs next to nothing.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// One piece of going through directories, and what comes between two.
const PIECE: Duration = Duration::from_millis(20);
const PAUSE: Duration = Duration::from_millis(20);
/// Directories are gone through at least this often, also when nothing seems to have gone.
const WALK_EVERY: Duration = Duration::from_secs(30);
/// Unless that takes long: then it is not done again for this many times as long.
const REST: u32 = 10;
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
        Self { dirs, limit_bytes, looked_at: None, walk: None, walked: None, in_flight: InFlight::default() }
    }

    /// When [`DiskWatch::look`] has something to do again.
    pub(crate) fn next_look(&self) -> Duration {
        let wait = if self.walk.is_some() { PAUSE } else { LOOK_EVERY };
        self.looked_at.map_or(Duration::ZERO, |at| wait.saturating_sub(at.elapsed()))
    }

    /// Looks, when it is time to: what is wrong, for a person. `pids` are the processes that may have files open.
    pub(crate) fn look(&mut self, pids: impl FnOnce() -> Vec<i32>) -> Option<String> {
        if !self.next_look().is_zero() {
            return None;
        }
        let found = self.go_on(pids);
        self.looked_at = Some(Instant::now());
        found
    }

    fn go_on(&mut self, pids: impl FnOnce() -> Vec<i32>) -> Option<String> {
        let mut walk = match self.walk.take() {
            Some(walk) => walk,
            None => self.begin()?,
        };
        match walk.go_on(Instant::now() + PIECE, pids) {
            Ok(true) => {
                let (at, took) = (Instant::now(), walk.began.elapsed());
                self.walked = Some(Walked { at, took, free_bytes: walk.free_bytes });
                if self.in_flight.note(walk.in_flight, walk.free_bytes, self.limit_bytes) {
                    return Some(format!(
                        "kept more than {} bytes on disk, in flight between sockets",
                        self.limit_bytes
                    ));
                }
            }
            Ok(false) => self.walk = Some(walk),
            Err(Trouble::Over) => return Some(format!("kept more than {} bytes on disk", self.limit_bytes)),
            Err(Trouble::Unmeasured(what)) => return Some(format!("what it keeps on disk cannot be measured: {what}")),
        }
        None
    }

    fn begin(&self) -> Option<Walk> {
        let first = self.dirs.first().filter(|_| self.limit_bytes > 0)?;
        let free_bytes = free_bytes(first);
        let due = self.walked.is_none_or(|walked| walked.is_due(free_bytes, self.limit_bytes));
        due.then(|| Walk::new(&self.dirs, self.limit_bytes, free_bytes))
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
}

/// Goes through directories until there is too much, a piece at a time.
#[derive(Debug)]
struct Walk {
    began: Instant,
    free_bytes: u64,
    left_bytes: u64,
    /// Files with several names, and open ones without any: each counts once.
    seen: HashSet<(u64, u64)>,
    /// Where deleted files count.
    device: Option<u64>,
    roots: Vec<PathBuf>,
    root: Option<(Dir, PathBuf)>,
    /// Each with where it is; many share that, so a long path does not make them long.
    dirs: Vec<(Arc<Path>, OsString)>,
    open: Option<Open>,
    deleted: Option<Deleted>,
    /// Whether descriptors waited in sockets.
    in_flight: bool,
}

/// A directory whose entries are being counted.
#[derive(Debug)]
struct Open {
    path: Arc<Path>,
    dir: OwnedFd,
    entries: OwningIter,
}

/// Processes whose open files are being looked at: files without a name live for as long as somebody has them open.
#[derive(Debug)]
struct Deleted {
    pids: Vec<i32>,
    files: Option<std::fs::ReadDir>,
}

impl Walk {
    fn new(dirs: &[PathBuf], limit_bytes: u64, free_bytes: u64) -> Self {
        let device = dirs.first().and_then(|dir| std::fs::metadata(dir).ok()).map(|metadata| metadata.dev());
        Self {
            began: Instant::now(),
            free_bytes,
            left_bytes: limit_bytes,
            seen: HashSet::new(),
            device,
            roots: dirs.to_vec(),
            root: None,
            dirs: Vec::new(),
            open: None,
            deleted: None,
            in_flight: false,
        }
    }

    /// Goes on until then; whether that was the end.
    fn go_on(&mut self, until: Instant, pids: impl FnOnce() -> Vec<i32>) -> Result<bool, Trouble> {
        let mut pids = Some(pids);
        loop {
            if let Some(open) = &mut self.open {
                match open.entries.next() {
                    Some(Ok(entry)) => self.count(entry.file_name())?,
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
            } else if let Some(deleted) = &mut self.deleted {
                match deleted.files.as_mut().and_then(Iterator::next) {
                    Some(Ok(file)) => self.count_if_deleted(&file.path())?,
                    Some(Err(_)) | None => match deleted.pids.pop() {
                        // One that ended has nothing open.
                        Some(pid) => {
                            deleted.files = std::fs::read_dir(format!("/proc/{pid}/fd")).ok();
                            self.count_unseen(pid)?;
                        }
                        None => return Ok(true),
                    },
                }
            } else {
                let pids = pids.take().map(|pids| pids()).unwrap_or_default();
                self.deleted = Some(Deleted { pids, files: None });
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

    fn count_if_deleted(&mut self, file: &Path) -> Result<(), Trouble> {
        let is_deleted = |target: PathBuf| target.as_os_str().as_bytes().ends_with(b" (deleted)");
        if !std::fs::read_link(file).is_ok_and(is_deleted) {
            return Ok(());
        }
        match std::fs::metadata(file) {
            Ok(file) if Some(file.dev()) == self.device && file.nlink() == 0 && file.is_file() => {
                self.add((file.dev(), file.ino()), true, file.blocks())
            }
            _ => Ok(()),
        }
    }

    /// What the descriptors of a process do not show.
    fn count_unseen(&mut self, pid: i32) -> Result<(), Trouble> {
        self.in_flight = self.in_flight || has_in_flight(pid);
        let files = self.device.map(|device| mapped(pid, device)).unwrap_or_default();
        files.into_iter().try_for_each(|it| self.add(it.file, true, it.blocks))
    }

    fn add(&mut self, file: (u64, u64), named_again: bool, blocks: u64) -> Result<(), Trouble> {
        if named_again && !self.seen.insert(file) {
            return Ok(());
        }
        let bytes = blocks.saturating_mul(512).max(LEAST_BYTES);
        self.left_bytes = self.left_bytes.checked_sub(bytes).ok_or(Trouble::Over)?;
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
        let mut watch = watch(dir, limit_bytes);
        let mut found = watch.go_on(|| pids.to_vec());
        while found.is_none() && watch.walk.is_some() {
            found = watch.go_on(|| pids.to_vec());
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
        assert_eq!(watch(dir.path(), 0).look(Vec::new), None);
        assert!(watch(dir.path(), 1 << 19).look(Vec::new).is_some());
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
            assert_eq!(watch.go_on(Vec::new), None);
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
