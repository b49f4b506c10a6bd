//! Package clients below a supervisor process of their own: the same walls as a server's, and, where the host allows it,
//! a network with nothing in it but a proxy of the agent's.

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use toolyard_types::agent::Enforcement;

use super::launch::LaunchError;
use super::wire::{self, Incoming, Order, StartOrder, ToAgent};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// A package client that was started.
pub(crate) struct ClientRun {
    /// Its supervisor, which ends as the client ends; its standard output and error are the client's.
    pub(crate) child: Child,
    /// Where the client finds its proxy, in its own network.
    pub(crate) listener: Option<TcpListener>,
}

/// Starts a package client.
///
/// # Errors
/// When the supervisor cannot be started, or it cannot start the client.
pub(crate) async fn start(program: &Path, order: StartOrder, own_network: bool) -> Result<ClientRun, LaunchError> {
    let order = Order::Client { order: Box::new(order), own_network };
    let (child, answer, fds) = ask(program, order).await?;
    match answer {
        ToAgent::Client => {
            let listener = fds.into_iter().next().map(TcpListener::from);
            Ok(ClientRun { child, listener })
        }
        ToAgent::NotStarted { message } => Err(LaunchError::NotStarted(message)),
        other => Err(LaunchError::NotStarted(format!("the supervisor began with {other:?}"))),
    }
}

/// Whether this host lets package clients have a network of their own.
pub(crate) async fn probe_network(program: &Path) -> Enforcement {
    let means = "a network of their own with a proxy that knows the registries".to_owned();
    match ask(program, Order::TryNetwork).await {
        Ok((_, ToAgent::Client, _)) => Enforcement { enforced: true, detail: means },
        Ok((_, ToAgent::NotStarted { message }, _)) => Enforcement { enforced: false, detail: message },
        Ok((_, other, _)) => Enforcement { enforced: false, detail: format!("the supervisor answered {other:?}") },
        Err(error) => Enforcement { enforced: false, detail: crate::instance::chain(&error) },
    }
}

async fn ask(program: &Path, order: Order) -> Result<(Child, ToAgent, Vec<OwnedFd>), LaunchError> {
    let (ours, theirs) = UnixStream::pair().map_err(LaunchError::Supervisor)?;
    let child = Command::new(program)
        .arg("supervise")
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .current_dir("/")
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(LaunchError::Supervisor)?;
    let spoken = tokio::task::spawn_blocking(move || -> io::Result<(ToAgent, Vec<OwnedFd>)> {
        ours.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        ours.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        wire::send(&ours, &order, &[])?;
        let mut incoming = Incoming::default();
        let answer = incoming.wait(&ours)?;
        Ok((answer, std::mem::take(&mut incoming.fds)))
    });
    let spoken = spoken.await.map_err(|error| LaunchError::Supervisor(io::Error::other(error)))?;
    let (answer, fds) = spoken.map_err(LaunchError::Supervisor)?;
    Ok((child, answer, fds))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::grants::Granted;
    use crate::process::wire::Isolation;
    use std::collections::BTreeMap;
    use std::path::PathBuf;
    use tokio::io::AsyncReadExt;
    use toolyard_types::spec::Limits;
    use toolyard_types::{InstanceId, Secret};

    fn supervisor() -> PathBuf {
        let own = std::env::current_exe().expect("a test has a program");
        let target = own.parent().and_then(Path::parent).expect("tests lie in target/<profile>/deps");
        target.join("examples/supervisor")
    }

    /// Runs a script as a package client, to its end: how it ended, and what it and its supervisor complained about.
    async fn run(dir: &Path, limits: Limits, script: &str) -> (Option<i32>, String) {
        let cache = dir.join("cache");
        std::fs::create_dir(&cache).expect("a directory");
        let order = StartOrder {
            instance: InstanceId::generate(),
            dir: dir.to_owned(),
            argv: ["/bin/sh", "-c", script].map(Secret::new).into(),
            environment: BTreeMap::from([("PATH".into(), Secret::new("/usr/bin:/bin"))]),
            isolation: Isolation { granted: vec![Granted::own(&cache).expect("there")], ..Isolation::default() },
            limits,
            orphan_grace_ms: 0,
            stop_wait_ms: 0,
            log_dir: None,
            log_mark: String::new(),
            redact: vec![],
        };
        let mut child = start(&supervisor(), order, false).await.expect("it runs").child;
        let (mut stderr, mut told) = (child.stderr.take().expect("a pipe"), String::new());
        let ended = async {
            stderr.read_to_string(&mut told).await.expect("read");
            child.wait().await.expect("it ended").code()
        };
        let code = tokio::time::timeout(Duration::from_secs(60), ended).await.expect("it ends");
        (code, told)
    }

    #[tokio::test]
    async fn a_client_that_stays_within_its_limits_ends_as_it_ends() {
        let dir = tempfile::tempdir().expect("a directory");
        let script = "head -c 1000000 /dev/zero > cache-of-mine; echo done >&2; exit 7";
        assert_eq!(run(dir.path(), Limits::default(), script).await, (Some(7), "done\n".to_owned()));
    }

    #[tokio::test]
    async fn a_client_that_fills_its_directory_or_its_cache_is_ended_and_what_it_started_too() {
        for place in ["work", "cache"] {
            let dir = tempfile::tempdir().expect("a directory");
            let limits = Limits { disk_bytes: 16 << 20, ..Limits::default() };
            let file = dir.path().join(place).join("filling");
            let script = format!("head -c 100000000 /dev/zero > {}; sleep 1000 & sleep 1000", file.display());
            let (code, told) = run(dir.path(), limits, &script).await;
            assert_eq!(code, Some(137), "{told}");
            assert_eq!(told, "it was ended: kept more than 16777216 bytes on disk\n");
            // The pipe would still be open if the other one lived; it is read to its end.
        }
    }

    #[tokio::test]
    async fn a_client_that_uses_too_much_memory_is_ended() {
        let dir = tempfile::tempdir().expect("a directory");
        let limits = Limits { memory_bytes: 64 << 20, ..Limits::default() };
        let (code, told) = run(dir.path(), limits, "x=$(head -c 300000000 /dev/zero | tr '\\0' x); sleep 1000").await;
        assert_eq!(code, Some(137), "{told}");
        assert!(told.contains("used more than 67108864 bytes of memory"), "{told}");
    }
}
