//! The conformance suite of the store: the same behaviour on SQLite and on Postgres.

#![expect(clippy::unwrap_used, reason = "in a test a failed step is a failed test")]

mod attempts;
mod bounds;
mod calls;
mod identity;
mod migrations;
mod outbox;
mod probes;
mod silence;
mod tenants;
mod toolboxes;
mod world;
