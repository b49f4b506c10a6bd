//! MCP on raw JSON: envelopes, the two eras, and the transports to servers.
//!
//! Decisions:
//! - A message is its bytes. [`Message`] finds where the envelope's parts lie and edits splice the buffer,
//!   so a field, a key order or a 40-digit number that this code never heard of arrives byte for byte.
//!   Typed models of the protocol would drop what they do not know.
//! - Ids and progress tokens are kept as raw JSON text: `1`, `1.0` and `"1"` are three different ids.
//! - [`stdio::Connection`] owns one stdio server's stream; [`http::Upstream`] speaks to one remote server.
//!   Both take a raw message and give back a stream of raw messages that ends with the response.
//! - This crate knows no organization, no policy and no database.

mod cancel;
pub mod envelope;
pub mod era;
mod error;
pub mod http;
pub mod json;
mod probe;
mod room;
pub mod stdio;

pub use cancel::CancelReason;
pub use envelope::{Id, Kind, Message, ParseError};
pub use era::{Era, Handshake};
pub use error::{CallError, HandshakeError};
pub use room::{Account, Growing, Held, Room, Take};
