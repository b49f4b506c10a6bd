//! The agent's side of a supervisor: starting one, finding one that is already there, and speaking to it.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::wire::{self, Incoming, Order, SOCKET_NAME, StartOrder, ToAgent, ToSupervisor};
use crate::engine::{Line, Running, Streams};

const HELLO_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest socket path every unix takes.
#[cfg(not(target_os = "linux"))]
const MAX_SOCKET_PATH_BYTES: usize = 100;

/// Why a server does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    /// The supervisor said so.
    #[error("{0}")]
    NotStarted(String),
    /// The supervisor did not come up.
    #[error("the supervisor did not answer")]
    Supervisor(#[source] io::Error),
}

/// Starts a supervisor and through it a server.
///
/// # Errors
/// When the supervisor cannot be started, or it cannot start the server.
pub(crate) async fn launch(program: &Path, order: StartOrder) -> Result<Running, LaunchError> {
    let (stream, incoming, first) = ask(program, Order::Start(Box::new(order))).await?;
    running(stream, incoming, first)
}

/// Asks what this host enforces.
///
/// # Errors
/// When the supervisor cannot be started.
pub(crate) async fn probe(
    program: &Path,
    dir: PathBuf,
) -> Result<std::collections::BTreeMap<String, toolyard_types::agent::Enforcement>, LaunchError> {
    match ask(program, Order::Probe { dir }).await?.2 {
        ToAgent::Probed(report) => Ok(report),
        other => Err(LaunchError::NotStarted(format!("the supervisor answered a probe with {other:?}"))),
    }
}

/// Connects to the supervisor of the instance in `dir`, if there is one.
pub(crate) async fn take_over(dir: &Path) -> Option<Running> {
    let dir = dir.to_owned();
    let (stream, incoming, first) = tokio::task::spawn_blocking(move || {
        let stream = connect_in(&dir)?;
        hello(stream)
    })
    .await
    .ok()?
    .ok()?;
    running(stream, incoming, first).ok()
}

async fn ask(program: &Path, order: Order) -> Result<(UnixStream, Incoming, ToAgent), LaunchError> {
    let (ours, theirs) = UnixStream::pair().map_err(LaunchError::Supervisor)?;
    let mut child = Command::new(program)
        .arg("supervise")
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        .process_group(0)
        .spawn()
        .map_err(LaunchError::Supervisor)?;
    // Reaped when it ends; it outlives this agent if need be, so it is never killed on drop.
    let (give_up, given_up) = tokio::sync::oneshot::channel::<()>();
    tokio::spawn(async move {
        tokio::select! {
            _ = child.wait() => {}
            Ok(()) = given_up => {
                let _ = child.start_kill();
                let _ = child.wait().await;
            }
        }
    });
    let spoken = tokio::task::spawn_blocking(move || {
        ours.set_write_timeout(Some(HELLO_TIMEOUT))?;
        wire::send(&ours, &order, &[])?;
        hello(ours)
    });
    let spoken = spoken.await.unwrap_or_else(|error| Err(io::Error::other(error)));
    spoken.map_err(|error| {
        // Something that it looks at may hang; what waits there dies with it, and holds up no next one.
        let _ = give_up.send(());
        LaunchError::Supervisor(error)
    })
}

fn hello(stream: UnixStream) -> io::Result<(UnixStream, Incoming, ToAgent)> {
    stream.set_read_timeout(Some(HELLO_TIMEOUT))?;
    let mut incoming = Incoming::default();
    let first = incoming.wait(&stream)?;
    Ok((stream, incoming, first))
}

fn running(stream: UnixStream, mut incoming: Incoming, first: ToAgent) -> Result<Running, LaunchError> {
    let hello = match first {
        ToAgent::Hello(hello) => hello,
        ToAgent::NotStarted { message } => return Err(LaunchError::NotStarted(message)),
        other => return Err(LaunchError::NotStarted(format!("the supervisor began with {other:?}"))),
    };
    let mut fds = std::mem::take(&mut incoming.fds).into_iter();
    let (Some(stdin), Some(stdout)) = (fds.next(), fds.next()) else {
        return Err(LaunchError::NotStarted("the supervisor sent no pipes".into()));
    };
    let line = open_line(stream, incoming).map_err(LaunchError::Supervisor)?;
    Ok(Running { hello, streams: Streams::Pipes { stdin, stdout }, line, container: None })
}

fn open_line(stream: UnixStream, incoming: Incoming) -> io::Result<Line> {
    stream.set_nonblocking(true)?;
    let stream = tokio::net::UnixStream::from_std(stream)?;
    let (event_sender, events) = mpsc::channel(64);
    let (commands, command_receiver) = mpsc::channel(256);
    let task = tokio::spawn(async move {
        // An error means the supervisor is gone, which the end of the events says.
        let _ = speak(stream, incoming, event_sender, command_receiver).await;
    });
    Ok(Line::new(events, commands, AbortOnDropHandle::new(task)))
}

async fn speak(
    stream: tokio::net::UnixStream,
    mut incoming: Incoming,
    events: mpsc::Sender<ToAgent>,
    mut commands: mpsc::Receiver<ToSupervisor>,
) -> io::Result<()> {
    let (mut read, mut write) = stream.into_split();
    let mut chunk = vec![0_u8; 16 << 10];
    loop {
        while let Some(event) = incoming.next_known() {
            if events.send(event).await.is_err() {
                return Ok(());
            }
        }
        tokio::select! {
            count = read.read(&mut chunk) => match count? {
                0 => return Ok(()),
                count => incoming.push(&chunk[..count])?,
            },
            command = commands.recv() => {
                let Some(command) = command else { return Ok(()) };
                let mut line = serde_json::to_vec(&command)?;
                line.push(b'\n');
                write.write_all(&line).await?;
            }
        }
    }
}

/// Connects from a thread that stands in the instance's directory: the socket's full path may be longer
/// than an address can be, and `/proc/self/fd` is closed to a process that is not dumpable.
#[cfg(target_os = "linux")]
fn connect_in(dir: &Path) -> io::Result<UnixStream> {
    let dir = dir.to_owned();
    let connect = move || -> io::Result<UnixStream> {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS)?;
        nix::unistd::chdir(&dir)?;
        UnixStream::connect(SOCKET_NAME)
    };
    let thread = std::thread::Builder::new().name("connect".into()).spawn(connect)?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the connecting thread broke")))
}

#[cfg(not(target_os = "linux"))]
fn connect_in(dir: &Path) -> io::Result<UnixStream> {
    let path = dir.join(SOCKET_NAME);
    if path.as_os_str().len() > MAX_SOCKET_PATH_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the data directory's path is too long for a socket"));
    }
    UnixStream::connect(path)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::process::tree;
    use crate::process::wire::Isolation;
    use std::collections::BTreeMap;
    use toolyard_types::spec::Limits;
    use toolyard_types::{InstanceId, Secret};

    fn supervisor() -> PathBuf {
        let own = std::env::current_exe().expect("a test has a program");
        let target = own.parent().and_then(Path::parent).expect("tests lie in target/<profile>/deps");
        target.join("examples/supervisor")
    }

    fn order(dir: &Path, script: &str) -> StartOrder {
        StartOrder {
            instance: InstanceId::generate(),
            dir: dir.to_owned(),
            argv: ["/bin/sh", "-c", script].map(Secret::new).into(),
            environment: BTreeMap::from([("PATH".into(), Secret::new("/usr/bin:/bin"))]),
            isolation: Isolation::default(),
            limits: Limits::default(),
            orphan_grace_ms: 200,
            stop_wait_ms: 200,
            log_dir: None,
            log_mark: String::new(),
            redact: vec![],
        }
    }

    async fn read_line(streams: &Streams) -> String {
        let Streams::Pipes { stdout, .. } = streams else { panic!("a process has pipes") };
        let stdout = stdout.try_clone().expect("a descriptor");
        let mut pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(stdout).expect("a pipe");
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            line.push(pipe.read_u8().await.expect("a line"));
        }
        String::from_utf8(line).expect("utf-8").trim().to_owned()
    }

    #[tokio::test]
    async fn without_namespaces_a_daemon_that_left_its_session_is_killed_all_the_same() {
        let dir = tempfile::tempdir().expect("a directory");
        let script = "trap '' TERM; (setsid setsid sleep 1000 <&- >&- 2>&- & echo $!); while :; do sleep 1; done";
        let running = launch(&supervisor(), order(dir.path(), script)).await.expect("it runs");
        read_line(&running.streams).await;
        let server = i32::try_from(running.hello.pid).expect("a pid");
        let daemon = || !sleeping_in(dir.path()).is_empty();
        assert!(daemon());
        drop(running);
        let gone = async {
            while daemon() || tree::measure(&[server]).processes > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), gone).await.expect("nothing is left");
    }

    /// Processes whose working directory is the instance's.
    fn sleeping_in(dir: &Path) -> Vec<String> {
        let work = dir.join("work");
        let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
        let names =
            entries.map(|entry| entry.path()).filter(|path| path.join("cwd").read_link().is_ok_and(|cwd| cwd == work));
        names.map(|path| path.display().to_string()).collect()
    }

    #[tokio::test]
    async fn without_namespaces_what_outlived_a_killed_supervisor_is_found_and_ended() {
        let dir = tempfile::tempdir().expect("a directory");
        let script = "(setsid setsid sleep 1000 <&- >&- 2>&- & echo $!); while :; do sleep 1; done";
        let running = launch(&supervisor(), order(dir.path(), script)).await.expect("it runs");
        read_line(&running.streams).await;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", running.hello.pid)).expect("it lives");
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_ascii_whitespace().nth(1));
        let parent = nix::unistd::Pid::from_raw(parent.expect("a parent").parse().expect("a number"));
        nix::sys::signal::kill(parent, nix::sys::signal::Signal::SIGKILL).expect("killed");
        let server = i32::try_from(running.hello.pid).expect("a pid");
        let gone = async {
            while tree::measure(&[server]).processes > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), gone).await.expect("the server dies with its supervisor");
        tree::end_leftovers(dir.path());
        assert_eq!(sleeping_in(dir.path()), Vec::<String>::new());
    }

    #[tokio::test]
    async fn every_agent_of_a_server_is_told_how_many_were_before_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let running = launch(&supervisor(), order(dir.path(), "cat")).await.expect("it runs");
        assert_eq!(running.hello.handed_over, 0);
        let second = take_over(dir.path()).await.expect("it still runs");
        assert_eq!(second.hello.handed_over, 1);
        let third = take_over(dir.path()).await.expect("it still runs");
        assert_eq!(third.hello.handed_over, 2);
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_said_so() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut order = order(dir.path(), "");
        order.argv = vec![Secret::new("/no/such/program")];
        let error = launch(&supervisor(), order).await.err().expect("nothing to run");
        assert_eq!(error.to_string(), "start `/no/such/program`: ENOENT: No such file or directory");
    }
}
