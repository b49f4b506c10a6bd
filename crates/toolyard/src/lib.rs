//! The `toolyard` program: configuration, command line, and the one place where the parts are put together.

mod agent;
pub mod cli;
pub mod config;
mod generate;
mod local;
mod net;
mod serve;
mod telemetry;
