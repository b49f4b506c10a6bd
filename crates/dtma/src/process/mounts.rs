//! Mounts of a sandbox that is being made, by descriptor: what was looked at is what is mounted, and nothing of the
//! host is opened for writing, whatever lies at its paths and whoever changes them meanwhile (Linux).

use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::libc;
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};

use crate::grants::{Answer, Granted};
use crate::mountinfo::Mounts;

const OPEN_TREE_CLONE: libc::c_uint = 1;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_uint = 0x40;
const RECURSIVE: libc::c_uint = 0x8000;
const EMPTY_PATH: libc::c_uint = 0x1000;

/// Opens a granted path, to be mounted and nothing else.
///
/// # Errors
/// When it is no longer the file that was looked at, or something is mounted in it by now that may not be granted.
pub(super) fn open_granted(granted: &Granted) -> io::Result<OwnedFd> {
    let fd = open(AT_FDCWD, &granted.source, ResolveFlag::RESOLVE_NO_SYMLINKS)?;
    let stat = fstat(&fd)?;
    let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    let same = (stat.st_dev, stat.st_ino) == (granted.device, granted.inode);
    if !same || (kind != SFlag::S_IFDIR && kind != SFlag::S_IFREG) {
        return Err(io::Error::other("it is not what it was a moment ago"));
    }
    // What ran before there was a list has nothing that is forbidden, and needs no table.
    let forbidden = match granted.forbidden.is_empty() {
        true => None,
        false => granted.forbidden_at(&granted.source, &Mounts::here()?)?,
    };
    forbidden.map_or(Ok(fd), |why| Err(io::Error::other(why)))
}

/// Whether a container's process sees what was looked at, at the paths it was granted, and nothing mounted there that may
/// not be granted. What it sees may not show here: we may be another user than its engine, or count processes otherwise.
pub(crate) fn seen_by(pid: u32, container: &str, granted: &[Granted]) -> Answer {
    let is_it = || std::fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|text| text.contains(container));
    let root = nix::fcntl::open(format!("/proc/{pid}/root").as_str(), OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty());
    let Some(root) = root.ok().filter(|_| is_it()) else { return Answer::Mounted };
    for it in granted {
        let path = it.path.strip_prefix("/").unwrap_or(&it.path);
        // As the engine found the place: links of an image lead within it.
        let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let opened = match open(root.as_fd(), path, resolve) {
            // Linux before 5.6, or a filter of system calls that does not know this one.
            Err(error) if shows_nothing(&error) => open_by_names(root.as_fd(), path),
            other => other,
        };
        let unseen = |error: io::Error| Answer::Unseen { path: it.path.clone(), why: error.to_string() };
        let found = match opened.and_then(|fd| Ok((fstat(&fd)?, fd))) {
            Ok((stat, fd)) if (stat.st_dev, stat.st_ino) == (it.device, it.inode) => match forbidden_in(pid, it, &fd) {
                Ok(None) => continue,
                Ok(Some(why)) => Answer::Forbidden { path: it.path.clone(), why },
                Err(error) => unseen(error),
            },
            Ok(_) => Answer::Otherwise(it.path.clone()),
            Err(error) if shows_nothing(&error) => continue,
            Err(error) => unseen(error),
        };
        // Of one that has ended nothing is mounted any more.
        return if is_it() { found } else { Answer::Mounted };
    }
    Answer::Mounted
}

/// What may not be granted of what a process has where a descriptor of ours leads in its mounts.
///
/// # Errors
/// When that cannot be told.
fn forbidden_in(pid: u32, granted: &Granted, fd: &OwnedFd) -> io::Result<Option<String>> {
    // What ran before there was a list has nothing that is forbidden, and needs no table.
    if granted.forbidden.is_empty() {
        return Ok(None);
    }
    let mounts = Mounts::read(Path::new(&format!("/proc/{pid}/mountinfo")))?;
    granted.forbidden_at(&led_to(fd, &mounts)?, &mounts)
}

/// The path in these mounts, which may be another process's, that a descriptor leads to: links on the way there have been
/// followed.
///
/// # Errors
/// When the kernel does not tell it, or tells another mount than is there by the table.
fn led_to(fd: &OwnedFd, mounts: &Mounts) -> io::Result<PathBuf> {
    let number = fd.as_raw_fd();
    let path = std::fs::read_link(format!("/proc/self/fd/{number}"))?;
    let told = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}"))?;
    let mount: Option<u64> = told.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    match mount.is_some() && mount == mounts.id_of(&path) {
        true => Ok(path),
        false => Err(io::Error::other("which of its mounts it is in does not show")),
    }
}

/// Whether an error says that we may not look, or cannot, and nothing of what is there.
fn shows_nothing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM | libc::EACCES))
}

/// Opens a path below `root` name by name, where the kernel does not do it at once. Where a link on the way leads does not
/// show so.
fn open_by_names(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut at = root.try_clone_to_owned()?;
    for name in path {
        at = nix::fcntl::openat(&at, name, flags, Mode::empty())?;
        let kind = SFlag::from_bits_truncate(fstat(&at)?.st_mode) & SFlag::S_IFMT;
        if kind == SFlag::S_IFLNK {
            return Err(Errno::ENOSYS.into());
        }
    }
    Ok(at)
}

/// Where something is mounted in the new root.
pub(super) struct Place<'a> {
    pub(super) path: &'a Path,
    pub(super) directory: bool,
    /// Whether links on the way there are followed, inside the new root.
    pub(super) links: bool,
    /// Whether it is made when it is not there.
    pub(super) make: bool,
}

/// Opens the place of a mount in the new root.
///
/// # Errors
/// When it is not there and not to be made, or a link lies on the way.
pub(super) fn mount_point(root: &OwnedFd, place: &Place<'_>) -> io::Result<OwnedFd> {
    let resolve = match place.links {
        true => ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS,
        false => ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS,
    };
    let path = place.path.strip_prefix("/").unwrap_or(place.path);
    if path.as_os_str().is_empty() {
        return root.try_clone();
    }
    match open(root.as_fd(), path, resolve) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && place.make => {}
        other => return other,
    }
    let parent = path.parent().unwrap_or(Path::new(""));
    let parent = mount_point(root, &Place { path: parent, directory: true, ..*place })?;
    let name = path.file_name().unwrap_or(OsStr::new("."));
    if place.directory {
        mkdirat(&parent, name, Mode::from_bits_truncate(0o755))?;
    } else {
        make_file(parent.as_fd(), name)?;
    }
    open(root.as_fd(), path, resolve)
}

/// How a mount is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Nothing below it can be written.
    ReadOnly,
    /// It can be written as its permissions say.
    Writable,
}

/// Mounts a path of the host, with everything that is mounted below it, at `target`: without devices and without
/// programs that change user.
///
/// # Errors
/// When there is no such path, or the kernel refuses.
pub(super) fn bind_path(source: &Path, target: &OwnedFd, access: Access) -> io::Result<()> {
    let source = std::ffi::CString::new(source.as_os_str().as_encoded_bytes())?;
    bind(AT_FDCWD, &source, 0, target, access)
}

/// The same of what a descriptor stands for.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn bind_fd(source: &OwnedFd, target: &OwnedFd, access: Access) -> io::Result<()> {
    bind(source.as_fd(), c"", EMPTY_PATH, target, access)
}

fn bind(from: BorrowedFd<'_>, path: &CStr, flags: libc::c_uint, target: &OwnedFd, access: Access) -> io::Result<()> {
    let flags = flags | OPEN_TREE_CLONE | RECURSIVE | libc::O_CLOEXEC.cast_unsigned();
    // SAFETY: the path lives through the call; the kernel makes a new descriptor or none.
    let tree = unsafe { libc::syscall(libc::SYS_open_tree, from.as_raw_fd(), path.as_ptr(), flags) };
    let tree = i32::try_from(Errno::result(tree)?).map_err(io::Error::other)?;
    // SAFETY: the kernel just made it for us and nobody else knows it.
    let tree = unsafe { OwnedFd::from_raw_fd(tree) };
    // Sealed before it is anywhere.
    let mut attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    if access == Access::ReadOnly {
        attributes |= libc::MOUNT_ATTR_RDONLY;
    }
    set_attributes(tree.as_fd(), c"", EMPTY_PATH | RECURSIVE, attributes)?;
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: both paths are empty and live through the call.
    let moved = unsafe {
        libc::syscall(libc::SYS_move_mount, tree.as_raw_fd(), c"".as_ptr(), target.as_raw_fd(), c"".as_ptr(), flags)
    };
    Errno::result(moved)?;
    Ok(())
}

/// Changes a mount.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn set_attributes(at: BorrowedFd<'_>, path: &CStr, flags: libc::c_uint, set: u64) -> io::Result<()> {
    // SAFETY: an all-zero mount_attr is valid: nothing set, nothing cleared.
    let mut attributes: libc::mount_attr = unsafe { std::mem::zeroed() };
    attributes.attr_set = set;
    // SAFETY: path and attributes live through the call and the size is that of the structure.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            at.as_raw_fd(),
            path.as_ptr(),
            flags,
            &raw const attributes,
            std::mem::size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(result)?;
    Ok(())
}

/// Writes a file of the sandbox's own into `directory` of the new root, on the new root's own file system. What was
/// mounted there before has its own and is left alone.
///
/// # Errors
/// When it cannot be written.
pub(super) fn write_own(root: &OwnedFd, directory: &str, name: &str, text: &str) -> io::Result<()> {
    let own = ResolveFlag::RESOLVE_NO_XDEV | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_BENEATH;
    match mkdirat(root, directory, Mode::from_bits_truncate(0o755)) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let directory = match open(root.as_fd(), Path::new(directory), own) {
        Err(error) if error.raw_os_error() == Some(libc::EXDEV) => return Ok(()),
        other => other?,
    };
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let how = OpenHow::new().flags(flags).mode(Mode::from_bits_truncate(0o644)).resolve(own);
    match openat2(&directory, name, how) {
        Ok(file) => io::Write::write_all(&mut std::fs::File::from(file), text.as_bytes()),
        Err(Errno::EEXIST | Errno::EXDEV) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn open(at: BorrowedFd<'_>, path: &Path, resolve: ResolveFlag) -> io::Result<OwnedFd> {
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(resolve);
    Ok(openat2(at, path, how)?)
}

fn make_file(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let how = OpenHow::new().flags(flags).mode(Mode::from_bits_truncate(0o644));
    openat2(directory, name, how.resolve(ResolveFlag::RESOLVE_NO_SYMLINKS))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::os::unix::fs::{MetadataExt, symlink};

    use toolyard_types::spec::Limits;
    use toolyard_types::{InstanceId, Secret};

    use crate::process::launch;
    use crate::process::wire::{Isolation, StartOrder};

    fn supervisor() -> PathBuf {
        let own = std::env::current_exe().expect("a test has a program");
        let target = own.parent().and_then(Path::parent).expect("tests lie in target/<profile>/deps");
        target.join("examples/supervisor")
    }

    fn granted(path: &str, source: &Path, writable: bool) -> Granted {
        let metadata = std::fs::symlink_metadata(source).expect("it is there");
        let (device, inode) = (metadata.dev(), metadata.ino());
        Granted { path: path.into(), source: source.to_owned(), writable, device, inode, forbidden: vec![] }
    }

    /// The same, with a directory that nothing of it may be.
    fn apart_from(forbidden: &Path, granted: Granted) -> Granted {
        let place = Mounts::here().expect("mounts").place(forbidden).expect("it is mounted");
        Granted { forbidden: vec![place], ..granted }
    }

    /// Starts `cat` in a sandbox with these paths of the host; what went wrong, if it did not start.
    async fn start(dir: &Path, granted: Vec<Granted>) -> Result<(), String> {
        let report = launch::probe(&supervisor(), dir.to_owned()).await.expect("a report");
        let isolation = Isolation { namespaces: report["namespaces"].enforced, granted, ..Isolation::default() };
        assert!(isolation.namespaces, "{report:?}");
        let order = StartOrder {
            instance: InstanceId::generate(),
            dir: dir.to_owned(),
            argv: vec![Secret::new("/bin/cat")],
            environment: BTreeMap::new(),
            isolation,
            limits: Limits::default(),
            orphan_grace_ms: 100,
            stop_wait_ms: 100,
            log_dir: None,
            log_mark: String::new(),
            redact: vec![],
        };
        launch::launch(&supervisor(), order).await.map(drop).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn nothing_of_the_host_is_written_while_a_sandbox_is_made() {
        let (dir, host) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let etc = std::fs::canonicalize(host.path()).expect("canonical");
        std::fs::write(etc.join("passwd"), "untouched").expect("written");
        start(dir.path(), vec![granted("/etc", &etc, true)]).await.expect("it runs");
        assert_eq!(std::fs::read_to_string(etc.join("passwd")).expect("read"), "untouched");
        assert!(!etc.join("group").exists() && !etc.join("resolv.conf").exists());

        let file = etc.join("passwd");
        start(dir.path(), vec![granted("/etc/passwd", &file, true)]).await.expect("it runs");
        assert_eq!(std::fs::read_to_string(file).expect("read"), "untouched");
    }

    #[tokio::test]
    async fn what_is_not_the_file_that_was_looked_at_is_not_mounted() {
        let (dir, host) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let host = std::fs::canonicalize(host.path()).expect("canonical");
        for name in ["good", "secret"] {
            std::fs::create_dir(host.join(name)).expect("made");
        }
        let looked_at = granted("/srv/good", &host.join("good"), true);
        std::fs::rename(host.join("good"), host.join("old")).expect("moved");
        symlink(host.join("secret"), host.join("good")).expect("linked");
        assert!(start(dir.path(), vec![looked_at.clone()]).await.expect_err("a link").contains("/srv/good"));
        std::fs::remove_file(host.join("good")).expect("removed");
        std::fs::rename(host.join("secret"), host.join("good")).expect("moved");
        let error = start(dir.path(), vec![looked_at]).await.expect_err("another directory");
        assert!(error.ends_with("it is not what it was a moment ago"), "{error}");
    }

    #[tokio::test]
    async fn what_may_not_be_granted_is_not_mounted_though_it_got_there_after_the_look() {
        let (dir, host) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let host = std::fs::canonicalize(host.path()).expect("canonical");
        for name in ["good/in", "secret/in"] {
            std::fs::create_dir_all(host.join(name)).expect("made");
        }
        let good = apart_from(&host.join("secret"), granted("/srv/good", &host.join("good"), false));
        start(dir.path(), vec![good.clone()]).await.expect("it runs");
        // The very directory, by a name that it had all the time.
        let secret = apart_from(&host.join("secret"), granted("/srv/good", &host.join("secret/in"), false));
        let error = start(dir.path(), vec![secret]).await.expect_err("it is in what is forbidden");
        assert!(error.contains("what may not be granted"), "{error}");

        let (secret, at, none) = (host.join("secret"), host.join("good/in"), None::<&str>);
        if let Err(error) = nix::mount::mount(Some(&secret), &at, none, nix::mount::MsFlags::MS_BIND, none) {
            assert!(!nix::unistd::Uid::effective().is_root(), "root mounts it: {error}");
            eprintln!("not tested: nothing can be mounted here: {error}");
            return;
        }
        let started = start(dir.path(), vec![good.clone()]).await;
        nix::mount::umount2(&at, nix::mount::MntFlags::MNT_DETACH).expect("unmounted");
        let error = started.expect_err("it has what is forbidden in it");
        assert!(error.contains("what may not be granted") && error.contains(&at.display().to_string()), "{error}");
        start(dir.path(), vec![good]).await.expect("it runs again");
    }

    #[test]
    fn what_a_container_has_mounted_is_compared_with_what_was_looked_at() {
        let dir = tempfile::tempdir().expect("a directory");
        let real = std::fs::canonicalize(dir.path()).expect("canonical");
        let same = granted(real.to_str().expect("UTF-8"), &real, false);
        let other = Granted { inode: same.inode + 1, ..same.clone() };
        let seen = |container: &str, it: &Granted| seen_by(std::process::id(), container, std::slice::from_ref(it));
        // Every control group's name has that in it.
        assert_eq!(seen("/", &same), Answer::Mounted);
        assert_eq!(seen("/", &other), Answer::Otherwise(real.clone()));
        assert_eq!(seen("not this process", &other), Answer::Mounted);
        let forbidden = seen("/", &apart_from(&real, same.clone()));
        assert!(matches!(&forbidden, Answer::Forbidden { path, .. } if *path == real), "{forbidden:?}");
        assert_eq!(seen("/", &apart_from(&real.with_file_name("beside"), same.clone())), Answer::Mounted);
        // What the path leads to counts, not what it is called.
        std::fs::create_dir_all(real.join("there/in")).expect("made");
        symlink(real.join("there"), real.join("link")).expect("linked");
        let by_link = |path: &str, source: &str| {
            let path = real.join(path);
            granted(path.to_str().expect("UTF-8"), &real.join(source), false)
        };
        for it in [by_link("link", "there"), by_link("link/in", "there/in")] {
            let forbidden = seen("/", &apart_from(&real.join("there"), it.clone()));
            assert!(matches!(&forbidden, Answer::Forbidden { path, .. } if *path == it.path), "{forbidden:?}");
            assert_eq!(seen("/", &apart_from(&real.with_file_name("beside"), it)), Answer::Mounted);
        }
        // What is not there is not something else.
        let gone = Granted { path: real.join("gone"), ..same };
        let Answer::Unseen { path, why } = seen("/", &gone) else { panic!("it is not there") };
        assert!(path == gone.path && why.contains("No such file"), "{why}");
        assert_eq!(seen("not this process", &gone), Answer::Mounted);
    }

    #[test]
    fn where_a_descriptor_leads_in_mounts_that_it_is_not_in_cannot_be_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let real = std::fs::canonicalize(dir.path()).expect("canonical");
        let fd: OwnedFd = std::fs::File::open(&real).expect("opened").into();
        assert_eq!(led_to(&fd, &Mounts::here().expect("mounts")).expect("it is told"), real);
        let others = Mounts::parse(b"999999999 0 8:1 / / rw - ext4 /dev/sda1 rw\n").expect("a table");
        assert!(led_to(&fd, &others).is_err());
    }

    #[test]
    fn where_a_kernel_opens_names_only_what_is_there_is_found_and_where_a_link_leads_does_not_show() {
        let dir = tempfile::tempdir().expect("a directory");
        let real = std::fs::canonicalize(dir.path()).expect("canonical");
        std::fs::create_dir(real.join("there")).expect("made");
        symlink(real.join("there"), real.join("link")).expect("linked");
        let root = std::fs::File::open("/").expect("opened");
        let open = |name: &str| {
            let path = real.join(name);
            open_by_names(root.as_fd(), path.strip_prefix("/").expect("absolute"))
        };
        let stat = fstat(open("there").expect("it is there")).expect("looked at");
        assert_eq!(stat.st_ino, std::fs::metadata(real.join("there")).expect("looked at").ino());
        assert!(
            shows_nothing(&open("link").expect_err("a link")) && shows_nothing(&open("link/x").expect_err("a link"))
        );
        assert!(!shows_nothing(&open("gone").expect_err("it is not there")));
    }

    #[tokio::test]
    async fn a_link_that_a_server_left_leads_nowhere() {
        let (dir, host) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let host = std::fs::canonicalize(host.path()).expect("canonical");
        for name in ["data", "victim"] {
            std::fs::create_dir(host.join(name)).expect("made");
        }
        std::fs::create_dir(dir.path().join("tmp")).expect("made");
        symlink(host.join("victim"), dir.path().join("tmp/way")).expect("linked");
        symlink(host.join("victim"), host.join("data/way")).expect("linked");
        let in_tmp = start(dir.path(), vec![granted("/tmp/way/deep", &host.join("data"), true)]).await;
        assert!(in_tmp.expect_err("a link on the way").contains("/tmp/way/deep"));
        let both = vec![granted("/srv", &host.join("data"), true), granted("/srv/way/deep", &host.join("data"), true)];
        assert!(start(dir.path(), both).await.is_err());
        let below = vec![granted("/srv", &host.join("data"), true), granted("/srv/none", &host.join("data"), true)];
        assert!(start(dir.path(), below).await.is_err());
        assert_eq!(std::fs::read_dir(host.join("victim")).expect("read").count(), 0);
        assert_eq!(std::fs::read_dir(host.join("data")).expect("read").count(), 1);
    }
}
