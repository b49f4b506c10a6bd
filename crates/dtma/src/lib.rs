//! The DTMA: the agent of a toolbox. It runs MCP servers and owns everything about their processes.
//!
//! It speaks to the control plane by one conversation (`sync`), keeps the last desired state on disk, and
//! serves the DTMA API to gateways. Each server runs below a supervisor process of its own
//! ([`supervise`]), which holds the server's pipes: an agent that is restarted or upgraded goes on with the
//! same processes, and one that never comes back leaves nothing running.
//!
//! It knows no SQL, no users and no policies, and it stores no secret in the clear.

mod activation;
mod agent;
mod api;
mod capacity;
mod copies;
mod desired;
mod docker;
mod engine;
mod grants;
mod guarded;
mod identity;
mod input;
mod instance;
mod kept;
mod looks;
mod mountinfo;
mod own_ports;
mod packages;
mod plan;
mod probe;
mod process;
mod removals;
mod revisions;
mod slot;
mod sync;
mod uids;

pub use agent::{Agent, AgentOptions, Shutdown, StartError};
pub use docker::DockerOptions;
pub use engine::{EngineOptions, EngineWait};
pub use grants::GrantablePaths;
pub use identity::{Identity, IdentityError, IdentityOptions};
pub use own_ports::loopback_id;
pub use packages::PackageClients;
pub use process::supervise;
