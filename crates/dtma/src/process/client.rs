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
