//! Fakes of the world outside Toolyard, for tests only: an npm registry with hostile and ordinary MCP
//! servers in it.
//!
//! The servers are npm packages, so that tests go the way of every deployment: resolve, install, start.

pub mod fixture;
pub mod npm_registry;
