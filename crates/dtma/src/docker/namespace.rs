//! A container's network, entered from outside: a socket stays in the namespace it was made in, whoever uses it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;

/// The network namespace of a process, for as long as this is held: it cannot become another one's.
#[derive(Clone)]
pub(super) struct Namespace(Arc<std::fs::File>);

impl Namespace {
    /// # Errors
    /// When there is no such process.
    #[cfg(target_os = "linux")]
    pub(super) fn of(pid: u32) -> io::Result<Self> {
        std::fs::File::open(format!("/proc/{pid}/ns/net")).map(|file| Self(Arc::new(file)))
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn of(_pid: u32) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    #[cfg(target_os = "linux")]
    fn enter(&self) -> io::Result<()> {
        Ok(nix::sched::setns(&*self.0, nix::sched::CloneFlags::CLONE_NEWNET)?)
    }

    #[cfg(not(target_os = "linux"))]
    fn enter(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Whether this process may enter one.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn try_own() -> io::Result<()> {
        let own = Self::of(std::process::id())?;
        inside(move || own.enter())
    }

    /// Listens in it.
    ///
    /// # Errors
    /// When it cannot be entered, or something listens there already.
    pub(super) fn listen(&self, address: SocketAddr) -> io::Result<TcpListener> {
        let namespace = self.clone();
        inside(move || {
            namespace.enter()?;
            TcpListener::bind(address)
        })
    }

    /// Connects in it.
    ///
    /// # Errors
    /// When it cannot be entered, or nobody listens there within `timeout`.
    pub(super) async fn connect(&self, address: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        let namespace = self.clone();
        let connect = move || {
            inside(move || {
                namespace.enter()?;
                std::net::TcpStream::connect_timeout(&address, timeout)
            })
        };
        let stream = tokio::task::spawn_blocking(connect).await.map_err(io::Error::other)??;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        TcpStream::from_std(stream)
    }
}

/// Does something on a thread of its own, that ends there: a namespace belongs to a thread.
fn inside<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let worked = std::thread::spawn(work).join();
    worked.unwrap_or_else(|_| Err(io::Error::other("the thread in another network broke")))
}
