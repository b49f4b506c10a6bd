//! The gateway from HTTP request to MCP server and back: a real router, real connections over in-memory
//! pipes, and a toolbox that stands where an agent would.

#![expect(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

mod access;
mod calls;
mod changes;
mod eras;
mod remotes;
mod routing;
mod toolsets;
mod world;
