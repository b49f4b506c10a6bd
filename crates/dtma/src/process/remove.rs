//! Removing what servers and package clients made: directories may be as deep as a disk has room for, and shut against
//! their own owner, who we are unless we are root. Only for what nothing runs in any more.
//!
//! What lies deeper is moved up and removed there, so it takes two file descriptors and no more of the stack, however deep
//! it is.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmod, fchmodat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// How many names of a directory are read at once.
const NAMES_AT_ONCE: usize = 4096;
/// How deep is gone where a directory cannot be moved, as on some layered file systems.
const MAX_DEPTH: usize = 64;

/// Removes a directory and everything in it.
///
/// # Errors
/// When something of it stays.
pub(crate) fn remove_all(dir: &Path) -> io::Result<()> {
    match open_top(dir) {
        Err(Errno::ENOTDIR | Errno::ELOOP) => return std::fs::remove_file(dir),
        top => clear(top?.as_fd(), 0)?,
    }
    std::fs::remove_dir(dir)
}

/// Removes everything in a directory; whether nothing is left.
pub(crate) fn empty(dir: &Path) -> bool {
    match open_top(dir) {
        Err(error) => error == Errno::ENOENT,
        Ok(top) => clear(top.as_fd(), 0).is_ok(),
    }
}

fn open_top(dir: &Path) -> Result<OwnedFd, Errno> {
    let open = || nix::fcntl::open(dir, OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty());
    let opened = match open() {
        Err(Errno::EACCES) => {
            let metadata = std::fs::symlink_metadata(dir);
            if metadata.is_ok_and(|metadata| metadata.is_dir()) {
                let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
                let _ = std::fs::set_permissions(dir, mode);
            }
            open()
        }
        opened => opened,
    }?;
    let _ = fchmod(&opened, Mode::S_IRWXU);
    Ok(opened)
}

/// Removes everything in `top`.
fn clear(top: BorrowedFd<'_>, depth: usize) -> Result<(), Errno> {
    let mut moved = 0;
    loop {
        let names = names(top)?;
        if names.is_empty() {
            return Ok(());
        }
        for name in names {
            if remove_simple(top, &name)? {
                continue;
            }
            let dir = open(top, &name)?;
            move_up(dir.as_fd(), top, &mut moved, depth)?;
            unlinkat(top, name.as_c_str(), UnlinkatFlags::RemoveDir)?;
        }
    }
}

/// Removes what is in `dir`, and moves the directories among it that are not empty to `top`.
fn move_up(dir: BorrowedFd<'_>, top: BorrowedFd<'_>, moved: &mut u64, depth: usize) -> Result<(), Errno> {
    loop {
        let names = names(dir)?;
        if names.is_empty() {
            return Ok(());
        }
        for name in names {
            if remove_simple(dir, &name)? {
                continue;
            }
            // To move a directory its own entry of its parent is written.
            let _ = fchmodat(dir, name.as_c_str(), Mode::S_IRWXU, FchmodatFlags::FollowSymlink);
            loop {
                *moved += 1;
                let free = CString::new(format!(".removed-{moved}")).expect("no zero in it");
                match renameat(dir, name.as_c_str(), top, free.as_c_str()) {
                    // Something of this name is there.
                    Err(Errno::ENOTEMPTY | Errno::EEXIST | Errno::ENOTDIR) => {}
                    Err(Errno::EXDEV) if depth < MAX_DEPTH => {
                        clear(open(dir, &name)?.as_fd(), depth + 1)?;
                        unlinkat(dir, name.as_c_str(), UnlinkatFlags::RemoveDir)?;
                        break;
                    }
                    other => break other?,
                }
            }
        }
    }
}

/// Removes a name that is no directory, or an empty one; whether it is gone.
fn remove_simple(dir: BorrowedFd<'_>, name: &CStr) -> Result<bool, Errno> {
    let stat = match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Err(Errno::ENOENT) => return Ok(true),
        stat => stat?,
    };
    let is_dir = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR;
    let how = if is_dir { UnlinkatFlags::RemoveDir } else { UnlinkatFlags::NoRemoveDir };
    match unlinkat(dir, name, how) {
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        Err(Errno::ENOTEMPTY | Errno::EEXIST) if is_dir => Ok(false),
        Err(error) => Err(error),
    }
}

/// Opens a directory in another, made ours to change if it was shut.
fn open(dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let opened = match openat(dir, name, flags, Mode::empty()) {
        Err(Errno::EACCES) => {
            fchmodat(dir, name, Mode::S_IRWXU, FchmodatFlags::FollowSymlink)?;
            openat(dir, name, flags, Mode::empty())
        }
        opened => opened,
    }?;
    let _ = fchmod(&opened, Mode::S_IRWXU);
    Ok(opened)
}

/// Some of the names in a directory; none when it is empty.
fn names(dir: BorrowedFd<'_>) -> Result<Vec<CString>, Errno> {
    // Opened anew, to read from the beginning.
    let mut dir = Dir::openat(dir, ".", OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut names = Vec::new();
    for entry in dir.iter() {
        let name = entry?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name);
        }
        if names.len() >= NAMES_AT_ONCE {
            break;
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_directory_that_is_shut_against_its_owner_goes_all_the_same_and_nothing_that_a_link_leads_to() {
        let dir = tempfile::tempdir().expect("a directory");
        let (kept, gone) = (dir.path().join("kept"), dir.path().join("gone"));
        std::fs::create_dir(&kept).expect("a directory");
        std::fs::create_dir_all(gone.join("a/b/c")).expect("directories");
        std::fs::write(gone.join("a/b/file"), "x").expect("written");
        std::fs::write(gone.join("a/b/c/file"), "x").expect("written");
        std::os::unix::fs::symlink(&kept, gone.join("a/link")).expect("linked");
        for shut in ["a/b/c", "a/b", "a"] {
            std::fs::set_permissions(gone.join(shut), Permissions::from_mode(0o000)).expect("shut");
        }
        assert!(empty(&gone));
        assert_eq!(std::fs::read_dir(&gone).expect("there").count(), 0);
        std::fs::create_dir(gone.join("c")).expect("a directory");
        std::fs::write(gone.join("c/file"), "x").expect("written");
        std::fs::set_permissions(gone.join("c"), Permissions::from_mode(0o000)).expect("shut");
        std::fs::set_permissions(&gone, Permissions::from_mode(0o000)).expect("shut");
        remove_all(&gone).expect("removed");
        assert!(!gone.exists() && kept.exists());
        assert!(empty(&gone));
        assert_eq!(remove_all(&gone).expect_err("gone").kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_or_link_in_place_of_a_directory_goes_and_nothing_behind_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let (kept, link, file) = (dir.path().join("kept"), dir.path().join("link"), dir.path().join("file"));
        std::fs::create_dir(&kept).expect("a directory");
        std::fs::write(kept.join("x"), "x").expect("written");
        std::os::unix::fs::symlink(&kept, &link).expect("linked");
        std::fs::write(&file, "x").expect("written");
        remove_all(&link).expect("removed");
        remove_all(&file).expect("removed");
        assert!(kept.join("x").exists() && !link.exists() && !file.exists());
    }

    #[test]
    fn a_very_deep_and_a_very_wide_directory_go_with_few_descriptors_and_little_of_the_stack() {
        const DEPTH: usize = 15_000;
        let dir = tempfile::tempdir().expect("a directory");
        let deep = dir.path().join("deep");
        std::fs::create_dir(&deep).expect("a directory");
        let mut at = open_top(&deep).expect("opened");
        for level in 0..DEPTH {
            // Names that look like those that are made here.
            let name = if level % 2 == 0 { ".removed-7" } else { "d" };
            nix::sys::stat::mkdirat(&at, name, Mode::S_IRWXU).expect("made");
            at = openat(&at, name, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).expect("opened");
        }
        drop(at);
        let wide = deep.join("wide");
        std::fs::create_dir(&wide).expect("a directory");
        (0..2 * NAMES_AT_ONCE).for_each(|n| std::fs::write(wide.join(n.to_string()), "").expect("written"));
        let thread = std::thread::Builder::new().stack_size(128 << 10);
        let removed = thread.spawn(move || remove_all(&deep)).expect("a thread").join().expect("no overflow");
        removed.expect("removed");
        assert_eq!(std::fs::read_dir(dir.path()).expect("there").count(), 0);
    }
}
