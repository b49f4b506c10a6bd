//! What the supervisor needs of a unix that is not Linux: servers run, and nothing is promised beyond that.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::unistd::Pid;
use toolyard_types::agent::Enforcement;

use super::wire::StartOrder;
use crate::grants::{Answer, Granted};

/// Nothing wakes us when a child ends, so we look.
pub(super) const LONGEST_POLL: Duration = Duration::from_millis(200);

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
    /// Our child.
    pub(super) child: Pid,
    /// The server, the same here.
    pub(super) server: Pid,
    /// Never there: no process stands between.
    pub(super) status: Option<OwnedFd>,
    /// Never there: it makes its own.
    pub(super) sockets: Option<SocketMaker>,
}

/// Everything of ours closes itself on exec; there is no call for the rest here.
pub(super) fn close_inherited() {}

/// Takes this process out of its parent's session.
pub(super) fn prepare_process() -> io::Result<()> {
    let _ = nix::unistd::setsid();
    Ok(())
}

/// There is no such protection here.
pub(super) fn hide_memory() -> io::Result<()> {
    Ok(())
}

/// There is no such descriptor here.
pub(super) fn child_signal() -> Option<BorrowedFd<'static>> {
    None
}

/// Nothing to clear.
pub(super) fn clear_child_signal() {}

/// A pipe.
pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = io::pipe()?;
    Ok((read.into(), write.into()))
}

/// Starts the server in a session of its own.
///
/// # Errors
/// The step that went wrong, for a person.
pub(super) fn spawn(
    order: &StartOrder,
    pipes: ChildPipes,
    join: impl FnOnce(Pid) -> Result<(), String>,
) -> Result<Spawned, String> {
    let work = order.dir.join("work");
    std::fs::create_dir_all(&work).map_err(|error| format!("make `{}`: {error}", work.display()))?;
    let (program, arguments) = order.argv.split_first().ok_or("there is no program to start")?;
    let mut command = Command::new(program.expose());
    command.args(arguments.iter().map(|argument| argument.expose())).env_clear();
    command.envs(order.environment.iter().map(|(name, value)| (name, value.expose()))).current_dir(work);
    command.stdin(Stdio::from(pipes.stdin)).stdout(Stdio::from(pipes.stdout)).stderr(Stdio::from(pipes.stderr));
    command.process_group(0);
    let mut child = command.spawn().map_err(|error| format!("start `{}`: {error}", program.expose()))?;
    let pid = Pid::from_raw(i32::try_from(child.id()).map_err(|error| error.to_string())?);
    if let Err(error) = join(pid) {
        let _ = child.kill();
        let _ = child.wait();
        return Err(error);
    }
    Ok(Spawned { child: pid, server: pid, status: None, sockets: None })
}

/// The socket's file mode already keeps others out.
pub(super) fn same_user(_stream: &UnixStream) -> bool {
    true
}

/// Nobody asks for sockets here.
#[derive(Debug)]
pub(super) enum SocketMaker {}

impl SocketMaker {
    pub(super) fn calls(&self) -> &OwnedFd {
        match *self {}
    }

    pub(super) fn answer(&self) -> io::Result<()> {
        match *self {}
    }
}

/// Nothing is watched here, which the report says.
#[derive(Debug)]
pub(crate) struct DiskWatch;

impl DiskWatch {
    pub(crate) fn new(_dirs: Vec<PathBuf>, _limit_bytes: u64) -> Self {
        Self
    }

    pub(crate) fn next_look(&self) -> Duration {
        LONGEST_POLL
    }

    pub(crate) fn look(&mut self, _pids: Option<&dyn Fn() -> Vec<i32>>) -> Option<String> {
        None
    }
}

/// Nothing is counted here.
#[derive(Debug, Default)]
pub(super) struct SharedMemory;

impl SharedMemory {
    pub(super) fn measure(&mut self, _limit_bytes: u64, _pids: &[i32]) -> u64 {
        0
    }

    pub(super) fn too_many_watches(&self) -> Option<String> {
        None
    }
}

/// Nothing is enforced here.
pub(super) fn probe(_dir: &Path) -> BTreeMap<String, Enforcement> {
    let not = || Enforcement { enforced: false, detail: "only on Linux".to_owned() };
    [
        "own_uid",
        "namespaces",
        "landlock",
        "seccomp",
        "egress_none",
        "server_ports",
        "socket_filter",
        "toolyard_ports",
        "memory_limit",
        "process_limit",
        "disk_limit",
        "cpu_limit",
    ]
    .map(|name| (name.to_owned(), not()))
    .into()
}

/// Users are not changed here, so everything is as open as it is to us.
pub(crate) fn open_to_all(_path: &Path) -> bool {
    true
}

/// That does not show here.
pub(crate) fn seen_by(_pid: u32, _container: &str, _granted: &[Granted]) -> Answer {
    Answer::Mounted
}

/// There is no such thing here.
pub(super) fn own_network() -> Result<std::net::TcpListener, String> {
    Err("a network of its own needs Linux".to_owned())
}
