//! Behaviour of the control plane through its API, on SQLite and on Postgres.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod activity;
mod agent;
mod catalog;
mod catalog_sync;
mod credential_use;
mod ground;
mod harness;
mod identity;
mod lost;
mod places;
mod remotes;
mod revisions;
mod rollouts;
mod rotation;
mod server_settings;
mod servers;
mod sync;
mod upkeep;
mod vault;
mod volumes;
