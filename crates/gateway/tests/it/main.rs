//! The gateway from HTTP request to MCP server and back: a real router, real connections over in-memory
//! pipes, and a toolbox that stands where an agent would.

mod access;
mod calls;
mod changes;
mod eras;
mod remotes;
mod toolsets;
mod world;
