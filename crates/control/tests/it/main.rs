//! Behaviour of the control plane through its API, on SQLite and on Postgres.

mod ground;
mod harness;
