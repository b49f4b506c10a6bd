//! Behaviour of the control plane through its API, on SQLite and on Postgres.

mod agent;
mod catalog;
mod catalog_sync;
mod ground;
mod harness;
mod identity;
mod rollouts;
mod servers;
mod sync;
mod upkeep;
mod vault;
