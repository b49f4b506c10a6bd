//! Runs MCP servers in production, on machines you own.

use std::process::ExitCode;

fn main() -> ExitCode {
    toolyard::main()
}
