//! Removing what servers and package clients made: a directory may be shut against its own owner, who we are unless we
//! are root. Only for what nothing runs in any more.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Removes a directory and everything in it.
///
/// # Errors
/// When something of it stays.
pub(crate) fn remove_all(dir: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(dir);
            std::fs::remove_dir_all(dir)
        }
        removed => removed,
    }
}

/// Removes everything in a directory; whether nothing is left.
pub(crate) fn empty(dir: &Path) -> bool {
    for _ in 0..2 {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let removed = entries.map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => std::fs::remove_dir_all(entry.path()),
            _ => std::fs::remove_file(entry.path()),
        });
        let failed = removed.filter(Result::is_err).count();
        match std::fs::read_dir(dir) {
            Ok(_) if failed == 0 => return true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return true,
            _ => open_up(dir),
        }
    }
    false
}

fn open_up(dir: &Path) {
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        let _ = std::fs::set_permissions(&dir, Permissions::from_mode(0o700));
        let entries = std::fs::read_dir(&dir).into_iter().flatten().flatten();
        dirs.extend(
            entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_shut_against_its_owner_goes_all_the_same_and_nothing_that_a_link_leads_to() {
        let dir = tempfile::tempdir().expect("a directory");
        let (kept, gone) = (dir.path().join("kept"), dir.path().join("gone"));
        std::fs::create_dir(&kept).expect("a directory");
        std::fs::create_dir_all(gone.join("a/b")).expect("directories");
        std::fs::write(gone.join("a/b/file"), "x").expect("written");
        std::os::unix::fs::symlink(&kept, gone.join("a/link")).expect("linked");
        for shut in ["a/b", "a"] {
            std::fs::set_permissions(gone.join(shut), Permissions::from_mode(0o000)).expect("shut");
        }
        assert!(empty(&gone));
        assert_eq!(std::fs::read_dir(&gone).expect("there").count(), 0);
        std::fs::create_dir(gone.join("c")).expect("a directory");
        std::fs::write(gone.join("c/file"), "x").expect("written");
        std::fs::set_permissions(gone.join("c"), Permissions::from_mode(0o000)).expect("shut");
        remove_all(&gone).expect("removed");
        assert!(!gone.exists() && kept.exists());
        assert!(empty(&gone));
    }
}
