//! Starting one server, kept from everything that is not its own (Linux).
//!
//! In order: namespaces (mount, process, IPC; a user namespace when we are not root; a network where there is to be
//! none), a minimal root made of bind mounts at the same absolute paths, a user of its own, no capabilities, no new
//! privileges, Landlock to the same paths and to no TCP port, the system calls a server needs (`seccomp`), then
//! `execve`. The first process of the process namespace is ours: it reaps, tells how the server ended, and when it ends
//! the kernel kills everything in the namespace.
//!
//! Runs in a process with one thread, so the children may allocate between `clone` and `execve`.

use std::ffi::{CString, OsStr};
use std::fs::Permissions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, OFlag};
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, clone};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use nix::sys::stat::Mode;
use nix::unistd::{ForkResult, Gid, Pid, Uid, chdir, fork, pivot_root, setgroups, setresgid, setresuid, setsid};

use super::mounts::{self, Access, Place};
use super::network;
use super::seccomp::{self, Filters};
use super::sockets::{self, SocketMaker, Taken};
use super::wire::{Isolation, StartOrder, read_to_end};
use crate::engine::MAX_OPEN_FILES;
use crate::grants::Granted;

/// System paths every server sees, read-only, when they exist.
const SYSTEM: &[&str] = &["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];
/// What a server needs of `/etc` and of where links there lead, read-only, when it exists.
const SYSTEM_CONFIGURATION: &[&str] = &[
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/crypto-policies",
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/pki",
    "/etc/protocols",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl",
    "/etc/timezone",
    // Of openSUSE, where `/etc/ssl` leads.
    "/var/lib/ca-certificates",
];
const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom"];

/// The server's ends of its pipes.
#[derive(Debug)]
pub(super) struct ChildPipes {
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

/// A server that has been started.
#[derive(Debug)]
pub(super) struct Spawned {
    /// Our child: the server, or the first process of its namespace.
    pub(super) child: Pid,
    /// The server in the host's numbering.
    pub(super) server: Pid,
    /// Where the first process of the namespace writes how the server ended.
    pub(super) status: Option<OwnedFd>,
    /// Makes its TCP sockets and says which may listen, when that is ours to do.
    pub(super) sockets: Option<SocketMaker>,
}

/// What the server does last before it becomes itself.
struct Last<'a> {
    filters: Option<&'a Filters>,
    /// Which of its calls its supervisor answers, and where they are handed to.
    calls: Option<(Taken, &'a UnixStream)>,
}

type Step<T> = Result<T, String>;

/// Names the step that went wrong; the text crosses a process boundary.
fn step<T, E: std::fmt::Display>(what: &str, result: Result<T, E>) -> Step<T> {
    result.map_err(|error| format!("{what}: {error}"))
}

fn step_at<T, E: std::fmt::Display>(what: &str, path: &Path, result: Result<T, E>) -> Step<T> {
    result.map_err(|error| format!("{what} `{}`: {error}", path.display()))
}

/// Starts the server of `order`. `join` puts the new process into its control groups before it does anything.
///
/// # Errors
/// The step that went wrong, for a person.
pub(super) fn spawn(order: &StartOrder, pipes: ChildPipes, join: impl FnOnce(Pid) -> Step<()>) -> Step<Spawned> {
    own_directories(order)?;
    let (go_read, go_write) = step("pipe", nix::unistd::pipe2(OFlag::O_CLOEXEC))?;
    let (setup_read, setup_write) = step("pipe", nix::unistd::pipe2(OFlag::O_CLOEXEC))?;
    let (status_read, status_write) = step("pipe", nix::unistd::pipe2(OFlag::O_CLOEXEC))?;
    let namespaces = order.isolation.namespaces;
    let filters = order.isolation.seccomp.then(|| seccomp::filters(order.isolation.new_namespaces)).transpose()?;
    let isolation = &order.isolation;
    let taken = match isolation.own_network {
        true => Taken::default(),
        false => {
            let (sockets, listen) = (!isolation.shut_ports.is_empty(), isolation.refuse_listen);
            Taken { sockets, datagrams: (sockets || listen) && isolation.uid.is_some(), listen }
        }
    };
    let handover = step("socket pair", taken.any().then(UnixStream::pair).transpose())?;
    let last = Last { filters: filters.as_ref(), calls: handover.as_ref().map(|(_, theirs)| (taken, theirs)) };
    let mut child_main = || -> isize {
        // Before the wait: a supervisor that dies earlier ends the wait, one that dies later ends us.
        die_with_parent();
        if !told_to_go(&go_read, &go_write) {
            return 1;
        }
        let error = if namespaces {
            init(order, &last, &pipes, &setup_write, &status_write).unwrap_or_else(|error| error)
        } else {
            become_server(order, &last, &pipes).unwrap_or_else(|error| error)
        };
        // Nobody is left to tell when this fails; the exit is seen anyway.
        let _ = nix::unistd::write(&setup_write, error.as_bytes());
        127
    };
    let child = if namespaces {
        start_in_namespaces(&mut child_main, order.isolation.own_network)?
    } else {
        // SAFETY: this process has one thread, so the child may do what it likes.
        match step("fork", unsafe { fork() })? {
            ForkResult::Parent { child } => child,
            ForkResult::Child => exit_now(child_main()),
        }
    };
    if let Err(error) = join(child) {
        drop(go_write);
        let _ = nix::sys::wait::waitpid(child, None);
        return Err(error);
    }
    step("wake the child", nix::unistd::write(&go_write, b"g"))?;
    drop((setup_write, status_write, pipes, go_read));
    let error = read_to_end(setup_read, 4096);
    if !error.is_empty() {
        // The child ended by itself after it told.
        let _ = nix::sys::wait::waitpid(child, None);
        return Err(String::from_utf8_lossy(&error).into_owned());
    }
    let server = if namespaces { only_child_of(child) } else { child };
    let calls = handover.as_ref().map(|(ours, _)| sockets::receive_calls(ours)).transpose();
    let sockets = calls.map(|calls| {
        calls.map(|calls| SocketMaker::new(calls, &isolation.shut_ports, isolation.uid, isolation.new_namespaces))
    });
    if sockets.is_err() {
        // It runs already, and would wait for its first socket for ever.
        let _ = nix::sys::signal::kill(child, Signal::SIGKILL);
        let _ = nix::sys::wait::waitpid(child, None);
    }
    Ok(Spawned { child, server, status: namespaces.then_some(status_read), sockets: sockets? })
}

/// Waits for the supervisor's word; false when the supervisor is gone.
fn told_to_go(go_read: &OwnedFd, go_write: &OwnedFd) -> bool {
    // SAFETY: this process never uses its copy, and ends without running destructors. Open, it would keep the
    // pipe open when the supervisor dies.
    unsafe { libc::close(go_write.as_raw_fd()) };
    matches!(nix::unistd::read(go_read, &mut [0_u8; 1]), Ok(1))
}

/// Does something in a child that ends then.
///
/// # Errors
/// What went wrong there.
pub(super) fn in_child(work: impl FnOnce() -> Step<()>) -> Step<()> {
    in_child_beside(work, || Ok(()))
}

/// [`in_child`], and something here meanwhile.
///
/// # Errors
/// What went wrong there, or here.
pub(super) fn in_child_beside(work: impl FnOnce() -> Step<()>, beside: impl FnOnce() -> Step<()>) -> Step<()> {
    let (read, write) = step("pipe", nix::unistd::pipe2(OFlag::O_CLOEXEC))?;
    // SAFETY: this process has one thread, so the child may do what it likes.
    match step("fork", unsafe { fork() })? {
        ForkResult::Child => {
            die_with_parent();
            let told = match work() {
                Ok(()) => "done".to_owned(),
                Err(error) => error,
            };
            let _ = nix::unistd::write(&write, told.as_bytes());
            exit_now(0)
        }
        ForkResult::Parent { child } => {
            drop(write);
            let here = beside();
            if here.is_err() {
                let _ = nix::sys::signal::kill(child, Signal::SIGKILL);
            }
            let told = read_to_end(read, 4096);
            let _ = nix::sys::wait::waitpid(child, None);
            match told.as_slice() {
                b"done" => here,
                b"" if here.is_err() => here,
                b"" => Err("the child ended before it was done".to_owned()),
                error => Err(String::from_utf8_lossy(error).into_owned()),
            }
        }
    }
}

/// Does something to a child that only waits, then ends it.
///
/// # Errors
/// When there can be no child.
pub(super) fn with_child(work: impl FnOnce(Pid)) -> Step<()> {
    // SAFETY: this process has one thread, and the child only waits.
    match step("fork", unsafe { fork() })? {
        ForkResult::Child => {
            die_with_parent();
            nix::unistd::pause();
            exit_now(0)
        }
        ForkResult::Parent { child } => {
            work(child);
            let _ = nix::sys::signal::kill(child, Signal::SIGKILL);
            let _ = nix::sys::wait::waitpid(child, None);
            Ok(())
        }
    }
}

/// Tries the namespaces without starting anything, with a network of their own or without.
///
/// # Errors
/// Why this host does not allow them.
pub(super) fn try_namespaces(dir: &Path, own_network: bool) -> Step<()> {
    let (read, write) = step("pipe", nix::unistd::pipe2(OFlag::O_CLOEXEC))?;
    let isolation = Isolation { namespaces: true, ..Isolation::default() };
    let mut child_main = || -> isize {
        let raise = || if own_network { step("loopback", network::raise_loopback()) } else { Ok(()) };
        let result = map_users().and_then(|()| raise()).and_then(|()| build_root(dir, &isolation));
        match result {
            Ok(()) => 0,
            Err(error) => {
                let _ = nix::unistd::write(&write, error.as_bytes());
                1
            }
        }
    };
    let child = start_in_namespaces(&mut child_main, own_network)?;
    drop(write);
    let error = read_to_end(read, 4096);
    let status = step("wait", nix::sys::wait::waitpid(child, None))?;
    match status {
        nix::sys::wait::WaitStatus::Exited(_, 0) => Ok(()),
        _ if !error.is_empty() => Err(String::from_utf8_lossy(&error).into_owned()),
        other => Err(format!("the first process ended as {other:?}")),
    }
}

/// The Landlock version of this kernel; zero without it.
pub(super) fn landlock_version() -> u32 {
    // SAFETY: asks for the version only: no pointer, no size, flag 1 (LANDLOCK_CREATE_RULESET_VERSION).
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0_usize, 1_u32) };
    u32::try_from(version).unwrap_or(0)
}

fn start_in_namespaces(child_main: &mut dyn FnMut() -> isize, own_network: bool) -> Step<Pid> {
    let mut flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC;
    if own_network {
        flags |= CloneFlags::CLONE_NEWNET;
    }
    if !Uid::effective().is_root() {
        flags |= CloneFlags::CLONE_NEWUSER;
    }
    let mut stack = vec![0_u8; 1 << 20];
    // SAFETY: memory is copied, not shared (no CLONE_VM), and this process has one thread.
    let child = unsafe { clone(Box::new(|| exit_now(child_main())), &mut stack, flags, Some(libc::SIGCHLD)) };
    step("make namespaces", child)
}

/// Ends a child without running what the parent registered for its own exit.
fn exit_now(code: isize) -> ! {
    // SAFETY: _exit has no conditions.
    unsafe { libc::_exit(i32::try_from(code).unwrap_or(1)) }
}

fn only_child_of(init: Pid) -> Pid {
    super::tree::descendants(init.as_raw()).first().map_or(init, |pid| Pid::from_raw(*pid))
}

/// Gives the server the directories that are its own.
fn own_directories(order: &StartOrder) -> Step<()> {
    for name in ["work", "tmp"] {
        let dir = order.dir.join(name);
        step_at("make", &dir, std::fs::create_dir_all(&dir))?;
        if let Some(uid) = order.isolation.uid {
            own(&dir, uid)?;
        }
        step_at("protect", &dir, std::fs::set_permissions(&dir, Permissions::from_mode(0o700)))?;
    }
    Ok(())
}

/// Gives a directory to the server, with what another user of it left there; nothing of the server runs.
fn own(dir: &Path, uid: u32) -> Step<()> {
    let meta = step_at("own", dir, std::fs::symlink_metadata(dir))?;
    if meta.uid() != uid && meta.uid() != 0 {
        let mut dirs = vec![dir.to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
                step_at("own", &entry.path(), lchown(entry.path(), Some(uid), Some(uid)))?;
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    dirs.push(entry.path());
                }
            }
        }
    }
    step_at("own", dir, lchown(dir, Some(uid), Some(uid)))
}

/// The first process of the namespace. Returns only with an error.
fn init(order: &StartOrder, last: &Last<'_>, pipes: &ChildPipes, setup: &OwnedFd, status: &OwnedFd) -> Step<String> {
    map_users()?;
    if order.isolation.own_network {
        step("loopback", network::raise_loopback())?;
    }
    build_root(&order.dir, &order.isolation)?;
    let setup_flags = step("setup pipe", setup.as_fd().try_clone_to_owned())?;
    // SAFETY: as in `spawn`: one thread.
    match step("fork", unsafe { fork() })? {
        ForkResult::Child => {
            let error = become_server(order, last, pipes).unwrap_or_else(|error| error);
            let _ = nix::unistd::write(&setup_flags, error.as_bytes());
            exit_now(127)
        }
        ForkResult::Parent { child } => {
            keep_only(status);
            reap_until(child, status)
        }
    }
}

/// Closes everything but `status`: a server whose input pipe we held open would never see it end.
fn keep_only(status: &OwnedFd) {
    let keep = libc::c_uint::try_from(status.as_raw_fd()).unwrap_or(libc::c_uint::MAX);
    // SAFETY: nothing in this process uses another descriptor from here on. Standard streams are kept:
    // the supervisor's are the null device.
    unsafe {
        if keep > 3 {
            libc::syscall(libc::SYS_close_range, 3, keep - 1, 0);
        }
        libc::syscall(libc::SYS_close_range, keep.saturating_add(1), libc::c_uint::MAX, 0);
    }
}

fn reap_until(server: Pid, status: &OwnedFd) -> ! {
    drop_capability_bounds();
    loop {
        let mut raw = 0;
        // SAFETY: `raw` is ours for the call.
        let pid = unsafe { libc::waitpid(-1, &raw mut raw, 0) };
        if pid == server.as_raw() {
            let _ = nix::unistd::write(status, &raw.to_ne_bytes());
            exit_now(0);
        }
        if pid < 0 && nix::errno::Errno::last() != nix::errno::Errno::EINTR {
            exit_now(1);
        }
    }
}

fn die_with_parent() {
    // SAFETY: a plain number argument.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

/// In a user namespace of our own: we stay who we are.
fn map_users() -> Step<()> {
    let overflow = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    if !overflow.trim().is_empty() {
        return Ok(());
    }
    let (uid, gid) = OUTER.with(std::cell::Cell::get);
    // Our own files in /proc belong to root while we are not dumpable.
    step("become dumpable", nix::sys::prctl::set_dumpable(true))?;
    step("deny setgroups", std::fs::write("/proc/self/setgroups", "deny"))?;
    step("map the user", std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1")))?;
    step("map the group", std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1")))?;
    step("become undumpable", nix::sys::prctl::set_dumpable(false))
}

thread_local! {
    /// Who we are outside a user namespace; inside, before the map is written, we look like nobody.
    static OUTER: std::cell::Cell<(u32, u32)> = const { std::cell::Cell::new((0, 0)) };
}

/// Remembers who we are; call once before anything is spawned.
pub(super) fn remember_identity() {
    OUTER.with(|outer| outer.set((Uid::effective().as_raw(), Gid::effective().as_raw())));
}

/// A bind mount to make.
struct Bind<'a> {
    path: PathBuf,
    source: PathBuf,
    access: Access,
    /// What the server was granted, unless it is its own or the system's.
    granted: Option<&'a Granted>,
}

impl Bind<'_> {
    fn same(path: &Path, access: Access) -> Self {
        Bind { path: path.to_owned(), source: path.to_owned(), access, granted: None }
    }
}

fn binds<'a>(dir: &Path, isolation: &'a Isolation) -> Vec<Bind<'a>> {
    let system = SYSTEM.iter().chain(SYSTEM_CONFIGURATION).map(|path| Bind::same(Path::new(path), Access::ReadOnly));
    let mut binds: Vec<Bind<'_>> = system.collect();
    binds.push(Bind { source: dir.join("tmp"), ..Bind::same(Path::new("/tmp"), Access::Writable) });
    binds.push(Bind::same(&dir.join("work"), Access::Writable));
    binds.extend(isolation.read_only.iter().map(|path| Bind::same(path, Access::ReadOnly)));
    binds.extend(isolation.granted.iter().map(|granted| {
        let access = if granted.writable { Access::Writable } else { Access::ReadOnly };
        Bind { path: granted.path.clone(), source: granted.source.clone(), access, granted: Some(granted) }
    }));
    // A parent first, so that it does not hide what is mounted below it.
    binds.sort_by_key(|bind| bind.path.components().count());
    binds
}

/// Makes a root with nothing in it but what the server may see, and moves there.
fn build_root(dir: &Path, isolation: &Isolation) -> Step<()> {
    let root = dir.join("root");
    let none: Option<&str> = None;
    step("own the mounts", mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none))?;
    step_at("make", &root, std::fs::create_dir_all(&root))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    step_at("mount", &root, mount(Some("tmpfs"), &root, Some("tmpfs"), flags, Some("mode=0755,size=4m")))?;
    // While nothing of the host is there yet that a path could lead to.
    make_devices(&root)?;
    let proc = root.join("proc");
    step_at("make", &proc, std::fs::create_dir_all(&proc))?;
    step_at("mount", &proc, mount(Some("proc"), &proc, Some("proc"), flags | MsFlags::MS_NOEXEC, none))?;
    let opened = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root_fd = step_at("open", &root, nix::fcntl::open(&root, opened, Mode::empty()))?;
    let binds = binds(dir, isolation);
    for bind in &binds {
        bind_one(&root_fd, bind, &isolation.granted)?;
    }
    write_accounts(&root_fd, dir, isolation)?;
    step_at("enter", &root, chdir(&root))?;
    step("pivot", pivot_root(".", "."))?;
    step("leave the old root", umount2(".", MntFlags::MNT_DETACH))?;
    step("enter", chdir("/"))?;
    let sealed = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    step("protect `/`", mounts::set_attributes(AT_FDCWD, c"/", 0, sealed))
}

fn bind_one(root: &OwnedFd, bind: &Bind<'_>, granted: &[Granted]) -> Step<()> {
    let below_granted = granted.iter().any(|it| bind.path != it.path && bind.path.starts_with(&it.path));
    // What a server may write can lead anywhere: nothing is made below what it was granted, and no link is followed
    // below that and its own `/tmp`.
    let place = |directory| Place {
        path: &bind.path,
        directory,
        links: bind.granted.is_none() && !below_granted && !bind.path.starts_with("/tmp"),
        make: !below_granted,
    };
    if let Some(granted) = bind.granted {
        let source = step_at("open", &bind.path, mounts::open_granted(granted))?;
        let directory = step_at("look at", &bind.path, nix::sys::stat::fstat(&source))?.st_mode & libc::S_IFMT;
        let target = mounts::mount_point(root, &place(directory == libc::S_IFDIR));
        let target = step_at("make", &bind.path, target)?;
        return step_at("bind", &bind.path, mounts::bind_fd(&source, &target, bind.access));
    }
    let Ok(metadata) = std::fs::symlink_metadata(&bind.source) else { return Ok(()) };
    // `/lib -> usr/lib` and `/etc/localtime -> /usr/share/..` stay links, and some programs read the zone's
    // name off the latter; a link out of sight, as /etc/resolv.conf may be, is shown as what it leads to.
    let source = match std::fs::canonicalize(&bind.source) {
        Ok(source) => source,
        Err(_) => return Ok(()),
    };
    if metadata.is_symlink() && source.starts_with("/usr") {
        if below_granted {
            return Ok(());
        }
        let link = step_at("read", &bind.source, std::fs::read_link(&bind.source))?;
        return step_at("link", &bind.path, link_to(root, &bind.path, &link));
    }
    let target = match mounts::mount_point(root, &place(source.is_dir())) {
        // What was granted has none; the server sees it as it is.
        Err(error) if below_granted && error.kind() == io::ErrorKind::NotFound => return Ok(()),
        target => step_at("make", &bind.path, target)?,
    };
    step_at("bind", &source, mounts::bind_path(&source, &target, bind.access))
}

/// Makes a link in the new root, unless something is there.
fn link_to(root: &OwnedFd, path: &Path, to: &Path) -> io::Result<()> {
    let parent = Place { path: path.parent().unwrap_or(path), directory: true, links: false, make: true };
    let parent = mounts::mount_point(root, &parent)?;
    match nix::unistd::symlinkat(to, &parent, path.file_name().unwrap_or_default()) {
        Ok(()) | Err(nix::errno::Errno::EEXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn make_mount_point(target: &Path, directory: bool) -> Step<()> {
    if target.symlink_metadata().is_ok() {
        return Ok(());
    }
    let made = if directory { std::fs::create_dir_all(target) } else { std::fs::write(target, b"") };
    step_at("make", target, made)
}

/// Names for the user ids in the sandbox; runtimes ask for the name and home of their user.
fn write_accounts(root: &OwnedFd, dir: &Path, isolation: &Isolation) -> Step<()> {
    let (uid, gid) = isolation.uid.map_or_else(|| OUTER.with(std::cell::Cell::get), |uid| (uid, uid));
    let home = dir.join("work");
    let home = home.display();
    let mut passwd = String::from("root:x:0:0:root:/:/usr/sbin/nologin\n");
    let mut group = String::from("root:x:0:\n");
    if uid != 0 {
        passwd.push_str(&format!("server:x:{uid}:{gid}:server:{home}:/usr/sbin/nologin\n"));
        group.push_str(&format!("server:x:{gid}:\n"));
    }
    passwd.push_str("nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n");
    group.push_str("nogroup:x:65534:\n");
    step("write accounts", mounts::write_own(root, "etc", "passwd", &passwd))?;
    step("write accounts", mounts::write_own(root, "etc", "group", &group))
}

fn make_devices(root: &Path) -> Step<()> {
    let dev = root.join("dev");
    let none: Option<&str> = None;
    step_at("make", &dev, std::fs::create_dir_all(dev.join("shm")))?;
    for name in DEVICES {
        let (source, target) = (Path::new("/dev").join(name), dev.join(name));
        make_mount_point(&target, false)?;
        step_at("bind", &source, mount(Some(&source), &target, none, MsFlags::MS_BIND, none))?;
    }
    for (name, target) in [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
        step_at("link", &dev.join(name), symlink(target, dev.join(name)))?;
    }
    let shm = dev.join("shm");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    step_at("mount", &shm, mount(Some("tmpfs"), &shm, Some("tmpfs"), flags, Some("mode=1777,size=64m")))
}

/// Turns this process into the server. Returns only with an error.
fn become_server(order: &StartOrder, last: &Last<'_>, pipes: &ChildPipes) -> Step<String> {
    let supervisor = nix::unistd::getppid();
    step("session", setsid())?;
    step("standard input", nix::unistd::dup2_stdin(&pipes.stdin))?;
    step("standard output", nix::unistd::dup2_stdout(&pipes.stdout))?;
    step("standard error", nix::unistd::dup2_stderr(&pipes.stderr))?;
    step("limit core files", setrlimit(Resource::RLIMIT_CORE, 0, 0))?;
    drop_capability_bounds();
    if let Some(uid) = order.isolation.uid {
        step("drop groups", setgroups(&[]))?;
        let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
        step("change group", setresgid(group, group, group))?;
        step("change user", setresuid(user, user, user))?;
    }
    if !order.isolation.namespaces {
        // Again: changing user took the wish back. The supervisor may have died in between.
        die_with_parent();
        if nix::unistd::getppid() != supervisor {
            return Err("the supervisor is gone".into());
        }
    }
    let work = order.dir.join("work");
    step_at("enter", &work, chdir(&work))?;
    step("no new privileges", nix::sys::prctl::set_no_new_privs())?;
    if order.isolation.landlock {
        restrict_paths(&order.dir, &order.isolation)?;
    }
    reset_signals()?;
    let argv = step("arguments", strings(order.argv.iter().map(|argument| argument.expose().to_owned())))?;
    let pairs = order.environment.iter().map(|(name, value)| format!("{name}={}", value.expose()));
    let environment = step("environment", strings(pairs))?;
    let program = argv.first().ok_or("there is no program to start")?;
    // Last: what is done above needs calls that are refused from here on.
    if let Some((taken, stream)) = last.calls {
        let (_, hard) = step("limit of open files", getrlimit(Resource::RLIMIT_NOFILE))?;
        step("limit of open files", setrlimit(Resource::RLIMIT_NOFILE, hard, hard))?;
        sockets::hand_calls(stream, &seccomp::take_out(taken)?)?;
    }
    // What a user has under way between processes is held against this limit of who sends: others of the same user, who
    // may have as much under way as theirs allows, must not keep this one from handing over.
    step("limit open files", limit_open_files())?;
    last.filters.map_or(Ok(()), Filters::install)?;
    let error = nix::unistd::execve(program, &argv, &environment).unwrap_err();
    Ok(format!("start `{}`: {error}", program.to_string_lossy()))
}

fn strings(texts: impl Iterator<Item = String>) -> Result<Vec<CString>, std::ffi::NulError> {
    texts.map(CString::new).collect()
}

/// Toolyard needs many for itself; what the servers hold is looked at one by one, and takes memory of the kernel.
fn limit_open_files() -> nix::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // Always some fewer than we may have ourselves: what one server has under way leaves room to start others.
    let most = u64::from(MAX_OPEN_FILES).min(hard - hard / 8);
    setrlimit(Resource::RLIMIT_NOFILE, soft.min(most), most)
}

fn drop_capability_bounds() {
    for capability in 0..=63 {
        // SAFETY: plain numbers; unknown capabilities and missing permission are answered by an error, and
        // then there is nothing to drop.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
    }
}

fn reset_signals() -> Step<()> {
    step("unblock signals", sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None))?;
    // SAFETY: the default action runs no code of ours.
    step("reset SIGPIPE", unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) })?;
    Ok(())
}

/// Landlock, as far as the kernel knows it: the same paths as the minimal root, and no TCP port to listen on, where
/// other servers would find it.
fn restrict_paths(dir: &Path, isolation: &Isolation) -> Step<()> {
    use landlock::{
        ABI, Access as _, AccessFs, AccessNet, NetPort, PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr, Scope,
        path_beneath_rules,
    };
    let abi = ABI::V5;
    let mut readable: Vec<PathBuf> = vec!["/proc".into()];
    let mut writable: Vec<PathBuf> = vec!["/dev".into()];
    let mut granted = Vec::new();
    for bind in binds(dir, isolation) {
        match bind.granted {
            // Opened as it was looked at; in a root of its own nothing else is at its path.
            Some(it) if !isolation.namespaces => {
                granted.push((step_at("open", &it.path, mounts::open_granted(it))?, it))
            }
            _ => {
                let path = if isolation.namespaces { bind.path } else { bind.source };
                if bind.access == Access::Writable { &mut writable } else { &mut readable }.push(path);
            }
        }
    }
    if isolation.namespaces {
        readable.extend(["/etc/passwd".into(), "/etc/group".into()]);
    } else {
        readable.extend(["/etc".into(), "/sys".into()]);
    }
    let ruleset = step("landlock", Ruleset::default().handle_access(AccessFs::from_all(abi)))?;
    let ruleset = match isolation.listen || isolation.own_network {
        true => ruleset,
        false => step("landlock", ruleset.handle_access(AccessNet::BindTcp))?,
    };
    let connects = !isolation.refused_ports.is_empty() && !isolation.own_network;
    let ruleset = match connects {
        true => step("landlock", ruleset.handle_access(AccessNet::ConnectTcp))?,
        false => ruleset,
    };
    // Abstract sockets belong to the network namespace, which is the host's.
    let ruleset = step("landlock", ruleset.scope(Scope::from_all(ABI::V6)))?;
    let ruleset = step("landlock", ruleset.create())?;
    let ruleset = step("landlock", ruleset.add_rules(path_beneath_rules(&readable, AccessFs::from_read(abi))))?;
    let ruleset = step("landlock", ruleset.add_rules(path_beneath_rules(&writable, AccessFs::from_all(abi))))?;
    // Who makes a user namespace says in `/proc/self/uid_map` whose it is. What is there is of its own processes alone.
    let says = isolation.new_namespaces && isolation.namespaces;
    let proc = says.then(|| path_beneath_rules(["/proc"], AccessFs::WriteFile | AccessFs::Truncate));
    let ruleset = step("landlock", ruleset.add_rules(proc.into_iter().flatten()))?;
    // There is no rule for all ports but a few.
    let open = (0..=u16::MAX).filter(|port| connects && !isolation.refused_ports.contains(port));
    let open = open.map(|port| Ok::<_, landlock::RulesetError>(NetPort::new(port, AccessNet::ConnectTcp)));
    let ruleset = step("landlock", ruleset.add_rules(open))?;
    let rules = granted.iter().map(|(fd, it)| {
        let access = if it.writable { AccessFs::from_all(abi) } else { AccessFs::from_read(abi) };
        let file = nix::sys::stat::fstat(fd).is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFREG);
        let access = if file { access & AccessFs::from_file(abi) } else { access };
        Ok::<_, landlock::RulesetError>(PathBeneath::new(fd, access))
    });
    let ruleset = step("landlock", ruleset.add_rules(rules))?;
    step("landlock", ruleset.restrict_self())?;
    Ok(())
}

/// Whether every user may pass through all directories above `path` and read it.
pub(crate) fn open_to_all(path: &Path) -> bool {
    let Ok(path) = std::fs::canonicalize(path) else { return false };
    let passable = |dir: &Path| std::fs::metadata(dir).is_ok_and(|meta| meta.permissions().mode() & 0o001 != 0);
    path.ancestors().filter(|dir| *dir != OsStr::new("")).all(passable)
}
