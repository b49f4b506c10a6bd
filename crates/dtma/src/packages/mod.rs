//! The package store: packages resolved to a full lock, installed once from it, shared by instances.
//!
//! Everything is done by the ordinary clients (npm; uv) with the environment this agent was given, so a
//! person's own registry, proxy and certificate settings hold. A directory of the store is named by the
//! digest of lock, platform and runtime version; it is made in a scratch directory and renamed, so it is
//! whole or not there. Its manifest lists every file with its digest. Nothing in it is ever changed.
//!
//! Install scripts never run: npm is called with scripts off, and Python packages are taken as wheels
//! only, because building one would run its code as the agent.

mod client;
mod manifest;
mod npm;
mod pypi;
mod store;

pub use client::PackageClients;
pub(crate) use client::{ASK_NODE, ASK_PYTHON, Clients, MAX_OUTPUT_BYTES, Node, Output, Python, Runtimes};
pub(crate) use store::{Prepared, Store, digest, lock, platform};

use toolyard_types::agent::Failure;
use toolyard_types::state::Reason;

/// A failure with its code.
pub(crate) fn failure(reason: Reason, message: impl Into<String>) -> Failure {
    Failure { reason, message: crate::process::log::bounded(message.into(), 1000) }
}
