//! Our own connections: how control plane, gateway and agent reach each other.
//!
//! Everything that speaks to another part holds a [`Channel`], a service from HTTP request to HTTP
//! response. Whether an axum Router in the same process, a connection we dialled, or a connection the
//! other side dialled and swapped roles on is behind it, the holder cannot tell; so one process or twenty
//! is the same code.

mod channel;
pub mod frames;
mod swap;

pub use channel::{Body, Channel, LinkError, dialled, in_process, once_attached};
pub use swap::{DialError, LINK_PATH, Links, dial_and_serve};
