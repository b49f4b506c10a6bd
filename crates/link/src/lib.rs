//! Our own connections: how control plane, gateway and agent reach each other.
//!
//! Everything that speaks to another part holds a [`Channel`], a service from HTTP request to HTTP
//! response. Whether an axum Router in the same process, a connection we dialled, or a connection the
//! other side dialled and swapped roles on is behind it, the holder cannot tell; so one process or twenty
//! is the same code.

//!
//! Between machines every connection is TLS in both directions ([`tls`]), dialled by the agent ([`Dialler`]) or offered to one that
//! listens ([`Offers`]), and every call goes through one client stack ([`stack`]).

mod budget;
mod channel;
mod dial;
mod doors;
mod forward;
pub mod frames;
mod offer;
mod outgoing;
mod pace;
pub mod stack;
mod streams;
mod swap;
pub mod tls;
pub mod trace;

pub use budget::{Budget, Charge, Held, Metered, NoRoom, Payer};
pub use channel::{Body, Channel, LinkError, in_process, once_attached};
pub use dial::{DialError, DialOptions, Dialler, names_links};
pub use doors::{Doors, Origin, Shut};
pub use forward::{FORWARD_PATH, Replicas};
pub use offer::{OfferError, OfferedStream, Offers, Waited, may_be_agent, offer, wait_taken};
pub use outgoing::Outgoing;
pub use pace::{Pace, Paced, TooSlow};
pub use swap::{LINK_PATH, LONGEST_SILENCE, Link, LinkKind, Links, UnverifiedLink, agent_run};
