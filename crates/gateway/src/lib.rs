//! The MCP data plane: from a client's HTTP request to a server and the stream back.
//!
//! accept -> authenticate -> route -> policy -> upstream -> stream back; a record of the call goes into a bounded
//! channel. Everything the path needs is in an immutable snapshot that the control plane makes; there is no
//! database, no control-plane call and no unbounded lock on it, and a message is its bytes from end to end.
//!
//! - `/mcp/{org}/servers/{server}` serves one server under the names it gives, `/mcp/{org}/toolsets/{toolset}` many
//!   under names of [`naming`]. Both speak both eras of the protocol on one URL.
//! - Legacy sessions are sealed in their id, so that any replica serves any session.
//! - The gateway never holds a server's connection: the toolbox's agent does, and the gateway's own HTTP client
//!   for remote servers.
//!
//! Not here yet: questions a server asks in the middle of a call across eras, extensions such as tasks in
//! toolsets, resumption of broken streams for legacy clients, and `subscribe` to single resources in toolsets.

mod about;
mod access;
mod answer;
mod breaker;
mod bridge;
mod call;
mod catalog;
mod endpoint;
mod lanes;
mod listen;
mod live;
pub mod naming;
mod peer;
mod problem;
mod questions;
mod record;
mod route;
mod session;
mod toolset;

pub use access::Decide;
pub use peer::{DEADLINE_HEADER, Lease, LeaseError, Toolboxes};
pub use record::OrganizationCalls;

use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use toolyard_types::snapshot::{CallRecord, Snapshot};
use toolyard_types::{ApiKeyId, Clock, OrganizationId};

/// Everything a gateway is given.
pub struct GatewayOptions {
    /// The picture to serve from; replaced whole by the control plane.
    pub snapshot: watch::Receiver<Arc<Snapshot>>,
    /// How long the picture may be served after the control plane last vouched for it.
    pub max_snapshot_age: Duration,
    /// How long a request with a key or path that is not known waits for the next picture, because another replica may
    /// just have made it; zero where nobody else changes anything.
    pub news_patience: Duration,
    /// How a toolbox is reached.
    pub toolboxes: Toolboxes,
    /// How a remote server's address and headers are had.
    pub lease: Lease,
    /// How requests get to remote servers.
    pub http: toolyard_mcp::http::Client,
    /// Room in memory for what remote servers answered and nobody has taken yet.
    pub room: toolyard_mcp::Room,
    /// The one decision function.
    pub decide: Decide,
    /// Told of every request that an API key was let in with.
    pub note_key: Arc<dyn Fn(ApiKeyId) + Send + Sync>,
    /// Where records of calls go; a full channel loses them, counted.
    pub records: mpsc::Sender<CallRecord>,
    /// The clock.
    pub clock: Clock,
    /// How long a call waits for a server that starts, restarts or changes its revision.
    pub hold: Duration,
    /// The longest request body.
    pub max_body_bytes: usize,
    /// The secret that seals sessions, the same on every replica.
    pub session_key: [u8; 32],
    /// The host names served besides loopback's own; `None` for any. A gateway on loopback lists those that are its own.
    pub allowed_hosts: Option<Vec<String>>,
    /// Web origins that may call, such as `https://app.example`. Loopback origins always may.
    pub allowed_origins: Vec<String>,
}

/// How much a gateway carries at once; what is beyond is refused at once, with `Retry-After`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// POST requests under way, with the calls that run on after their clients left.
    pub calls: usize,
    /// Of these, those to one server: what hangs fills its own part and no other's.
    pub calls_per_server: usize,
    /// Those of one API key.
    pub calls_per_key: usize,
    /// Those of one organization.
    pub calls_per_organization: usize,
    /// Streams of changes that clients hold open.
    pub streams: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { calls: 10_000, calls_per_server: 200, calls_per_key: 400, calls_per_organization: 2000, streams: 10_000 }
    }
}

/// The gateway. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    core: Arc<endpoint::Core>,
}

impl Gateway {
    /// Makes a gateway. The process's metrics recorder must be installed before.
    #[must_use]
    pub fn new(options: GatewayOptions) -> Self {
        Self::with_limits(options, Limits::default())
    }

    /// Makes a gateway with limits of one's own.
    #[must_use]
    pub fn with_limits(options: GatewayOptions, limits: Limits) -> Self {
        Self { core: endpoint::Core::new(options, limits) }
    }

    /// Ends the streams that would stay open for ever, so that the process can drain; calls go on to their end.
    pub fn drain(&self) {
        self.core.draining.cancel();
    }

    /// Waits until the calls have ended that run on after their clients left, and until toolboxes have heard of what was
    /// given up. Calls that clients wait for are requests of whoever serves [`Gateway::router`].
    pub async fn drained(&self) {
        self.core.left.close();
        self.core.left.wait().await;
    }

    /// Ends the sessions that remote servers have for it, for at most `patience`: once no call is under way any more.
    pub async fn close(&self, patience: Duration) {
        let _ = tokio::time::timeout(patience, self.core.peers.close()).await;
    }

    /// Ends the calls that still go on, at the drain's deadline: each is told so, and has its record.
    pub fn cut(&self) {
        self.core.cutting.cancel();
    }

    /// What the calls of an organization came to here, since the process started.
    #[must_use]
    pub fn calls_of(&self, organization: OrganizationId) -> OrganizationCalls {
        let snapshot = self.core.snapshots().borrow().clone();
        let known: std::collections::HashSet<_> = snapshot.organizations.values().map(|it| it.id).collect();
        self.core.meters.retain(|organization| known.contains(&organization));
        self.core.meters.of(organization)
    }

    /// The MCP endpoints.
    pub fn router(&self) -> axum::Router {
        endpoint::router(self.core.clone())
    }
}
