//! How much a server keeps on disk, watched: where it may write there is no quota that every file system has.
//!
//! Counted are its own directory and its temporary one, and files there that were deleted and are still open. What it
//! was granted beside is not its own and not counted. Most looks are a question to the file system how much is free; the
//! directories are gone through only when much went since the last time, or long ago.
//!
//! The directories are a hostile server's, so nothing is followed out of them, and what cannot be looked at counts as
//! too much.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};

/// Directories are gone through at least this often.
const WALK_EVERY: Duration = Duration::from_secs(30);
/// A walk that took long is not made again for this many times as long.
const REST: u32 = 50;
/// A file takes at least this, whatever is in it: names and inodes end too.
const LEAST_BYTES: u64 = 4096;
const WRITABLE: [&str; 2] = ["work", "tmp"];

/// Watches one server.
#[derive(Debug)]
pub(super) struct DiskWatch {
    dir: PathBuf,
    limit_bytes: u64,
    walked: Option<Walked>,
}

#[derive(Clone, Copy, Debug)]
struct Walked {
    at: Instant,
    took: Duration,
    free_bytes: u64,
}

impl DiskWatch {
    pub(super) fn new(dir: &Path, limit_bytes: u64) -> Self {
        Self { dir: dir.to_owned(), limit_bytes, walked: None }
    }

    /// Whether it is time to go through its directories.
    pub(super) fn is_due(&self) -> bool {
        self.walked.is_none_or(|walked| walked.is_due(free_bytes(&self.dir), self.limit_bytes))
    }

    /// Whether the server, whose processes are `pids`, keeps more than it may.
    pub(super) fn is_over(&mut self, pids: &[i32]) -> bool {
        let free_bytes = free_bytes(&self.dir);
        let began = Instant::now();
        let over = Count::new(self.limit_bytes).all(&self.dir, pids);
        self.walked = Some(Walked { at: Instant::now(), took: began.elapsed(), free_bytes });
        over
    }

    /// Removes what the server kept: it would be over its limit again at once. Whether nothing is left.
    pub(super) fn empty(&self) -> bool {
        WRITABLE.iter().map(|name| empty(&self.dir.join(name))).filter(|emptied| !emptied).count() == 0
    }
}

impl Walked {
    fn is_due(self, free_bytes: u64, limit_bytes: u64) -> bool {
        let rested = self.at.elapsed() >= self.took * REST;
        let went = self.free_bytes.saturating_sub(free_bytes);
        rested && (went >= limit_bytes / 8 || self.at.elapsed() >= WALK_EVERY)
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

/// Counts until there is too much.
struct Count {
    left_bytes: u64,
    /// Files with several names, and open ones without any: each counts once.
    seen: HashSet<(u64, u64)>,
}

/// There is more than allowed, or something that cannot be looked at.
struct Over;

impl Count {
    fn new(limit_bytes: u64) -> Self {
        Self { left_bytes: limit_bytes, seen: HashSet::new() }
    }

    fn all(mut self, dir: &Path, pids: &[i32]) -> bool {
        let walked = WRITABLE.iter().try_for_each(|name| self.walk(&dir.join(name)));
        walked.and_then(|()| self.deleted(dir, pids)).is_err()
    }

    fn walk(&mut self, dir: &Path) -> Result<(), Over> {
        let root = match Dir::open(dir, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty()) {
            Ok(root) => root,
            Err(Errno::ENOENT) => return Ok(()),
            Err(_) => return Err(Over),
        };
        let mut dirs = vec![PathBuf::from(".")];
        while let Some(path) = dirs.pop() {
            let opened = match beneath(&root, &path) {
                Ok(opened) => opened,
                // It went in between, or became something else, which counted already.
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => continue,
                // Something is mounted there, which is not the server's own.
                Err(Errno::EXDEV) => continue,
                Err(_) => return Err(Over),
            };
            let mut opened = Dir::from_fd(opened).map_err(|_| Over)?;
            let names: Vec<_> = opened.iter().flatten().map(|entry| entry.file_name().to_owned()).collect();
            for name in names.iter().filter(|name| !matches!(name.to_bytes(), b"." | b"..")) {
                let Ok(stat) = fstatat(opened.as_fd(), name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) else { continue };
                self.add(&stat)?;
                if SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR {
                    dirs.push(path.join(OsStr::from_bytes(name.to_bytes())));
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, stat: &FileStat) -> Result<(), Over> {
        let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
        self.add_file((stat.st_dev, stat.st_ino), stat.st_nlink > 1, blocks)
    }

    fn add_file(&mut self, file: (u64, u64), named_again: bool, blocks: u64) -> Result<(), Over> {
        if named_again && !self.seen.insert(file) {
            return Ok(());
        }
        let bytes = blocks.saturating_mul(512).max(LEAST_BYTES);
        self.left_bytes = self.left_bytes.checked_sub(bytes).ok_or(Over)?;
        Ok(())
    }

    /// Files without a name live for as long as somebody has them open.
    fn deleted(&mut self, dir: &Path, pids: &[i32]) -> Result<(), Over> {
        let Ok(own) = std::fs::metadata(dir) else { return Ok(()) };
        for pid in pids {
            let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            for fd in fds.map(|entry| entry.path()) {
                let is_deleted = |target: PathBuf| target.as_os_str().as_bytes().ends_with(b" (deleted)");
                if !std::fs::read_link(&fd).is_ok_and(is_deleted) {
                    continue;
                }
                let Ok(file) = std::fs::metadata(&fd) else { continue };
                if file.dev() == own.dev() && file.nlink() == 0 && file.is_file() {
                    self.add_file((file.dev(), file.ino()), true, file.blocks())?;
                }
            }
        }
        Ok(())
    }
}

fn empty(dir: &Path) -> bool {
    for _ in 0..2 {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let removed = entries.map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => std::fs::remove_dir_all(entry.path()),
            _ => std::fs::remove_file(entry.path()),
        });
        if removed.filter(|removed| removed.is_err()).count() == 0 {
            return true;
        }
        // A directory may have been shut against its own owner, who we are unless we are root.
        open_up(dir);
    }
    false
}

fn open_up(dir: &Path) {
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        let _ = std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700));
        let entries = std::fs::read_dir(&dir).into_iter().flatten().flatten();
        dirs.extend(
            entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        WRITABLE.iter().for_each(|name| std::fs::create_dir(dir.path().join(name)).expect("a directory"));
        dir
    }

    #[test]
    fn what_lies_in_both_directories_counts_together_and_a_file_with_two_names_once() {
        let dir = instance();
        let big = dir.path().join("work/big");
        std::fs::write(&big, vec![1; 600 << 10]).expect("written");
        std::fs::hard_link(&big, dir.path().join("tmp/again")).expect("linked");
        assert!(!DiskWatch::new(dir.path(), 1 << 20).is_over(&[]));
        std::fs::create_dir_all(dir.path().join("tmp/a/b")).expect("directories");
        std::fs::write(dir.path().join("tmp/a/b/more"), vec![1; 600 << 10]).expect("written");
        let mut watch = DiskWatch::new(dir.path(), 1 << 20);
        assert!(watch.is_over(&[]));
        assert!(watch.empty());
        assert_eq!(std::fs::read_dir(dir.path().join("tmp")).expect("there").count(), 0);
        assert!(!DiskWatch::new(dir.path(), 1 << 20).is_over(&[]));
    }

    #[test]
    fn many_empty_files_are_not_nothing() {
        let dir = instance();
        (0..300).for_each(|n| std::fs::write(dir.path().join(format!("work/{n}")), "").expect("written"));
        assert!(DiskWatch::new(dir.path(), 1 << 20).is_over(&[]));
        assert!(!DiskWatch::new(dir.path(), 2 << 20).is_over(&[]));
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
        assert!(DiskWatch::new(dir.path(), 1 << 20).is_over(&own));
        assert!(!DiskWatch::new(dir.path(), 1 << 20).is_over(&[]));
        drop(file);
        assert!(!DiskWatch::new(dir.path(), 1 << 20).is_over(&own));
    }

    #[test]
    fn directories_are_gone_through_again_when_much_went() {
        let walked = Walked { at: Instant::now(), took: Duration::ZERO, free_bytes: 10 << 20 };
        assert!(!walked.is_due(10 << 20, 8 << 20));
        assert!(walked.is_due(9 << 20, 8 << 20));
        let slow = Walked { took: Duration::from_secs(1), ..walked };
        assert!(!slow.is_due(0, 8 << 20));
    }
}
