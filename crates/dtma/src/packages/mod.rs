//! The package store: packages resolved to a full lock, installed once from it, shared by instances.
//!
//! Everything is done by the ordinary clients (npm; uv), behind walls of their own ([`client`]), with a person's own
//! registry, proxy and certificate settings ([`registries`]). Packages come from those registries only: a lock that
//! names another place is refused, before and after. A directory of the store is named by the
//! digest of lock, platform and runtime version; it is made in a scratch directory and renamed, so it is
//! whole or not there. Its manifest lists every file with its digest. Nothing in it is ever changed.
//!
//! Install scripts never run: npm is called with scripts off, and Python packages are taken as wheels
//! only, because building one would run its code as the agent.

mod client;
mod manifest;
mod npm;
mod pypi;
mod registries;
mod store;
mod turns;

pub use client::PackageClients;
pub(crate) use client::{
    ASK_NODE, ASK_PYTHON, Clients, HostClients, LIMITS, MAX_OUTPUT_BYTES, Node, Output, Python, Runtimes, Walls,
    proxied,
};
pub(crate) use registries::Given;
pub(crate) use store::{Prepared, Store, digest, give, lock, platform};

use toolyard_types::agent::Failure;
use toolyard_types::state::Reason;

/// A failure with its code.
pub(crate) fn failure(reason: Reason, message: impl Into<String>) -> Failure {
    Failure { reason, message: crate::process::log::bounded(message.into(), 1000) }
}
