//! The agent with real processes, real package clients and a control plane played by the test.

mod container_http;
mod copies;
mod docker;
mod fallback;
mod grants;
#[cfg(target_os = "linux")]
mod hanging;
mod lifecycle;
mod limits;
mod packages;
mod removal;
mod volumes;
mod world;
