//! The `toolyard` program: configuration, command line, and the one place where the parts are put together.

mod agent;
pub mod cli;
pub mod config;
mod generate;
mod net;
mod serve;
mod telemetry;

use std::path::Path;
use std::process::ExitCode;

/// Holds one server process until it ended; see `toolyard_dtma::supervise`.
fn supervise(dir: &Path) -> ExitCode {
    toolyard_dtma::supervise::main(dir)
}
