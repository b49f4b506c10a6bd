//! The words of Toolyard: ids, names, specs, states, and every message on a wire of our own.
//!
//! This crate does no IO and depends on nothing else of ours, so the control plane, the gateway, the
//! agent, the CLI and the tests speak of the same things in the same shape. A type lives here when two
//! parts exchange it; a type only one part needs lives in that part.

pub mod access;
pub mod agent;
pub mod api;
pub mod clock;
pub mod grantable;
pub mod ids;
pub mod labels;
pub mod name;
pub mod network;
pub mod problem;
pub mod redaction;
pub mod requirement;
pub mod schedule;
mod schema;
pub mod secret;
pub mod server_json;
pub mod snapshot;
pub mod spec;
pub mod state;
pub mod timestamp;

pub use clock::Clock;
pub use ids::*;
pub use labels::{Labels, LabelsError};
pub use name::{EntryName, Name, NameError};
pub use network::{Network, NetworkError};
pub use problem::{Code, FieldError, Problem};
pub use redaction::Redaction;
pub use secret::Secret;
pub use timestamp::Timestamp;
