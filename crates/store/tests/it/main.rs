//! The conformance suite of the store: the same behaviour on SQLite and on Postgres.

mod calls;
mod identity;
mod migrations;
mod outbox;
mod tenants;
mod world;
