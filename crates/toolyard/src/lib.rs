//! The `toolyard` program: configuration, command line, and the one place where the parts are put together.

#[macro_use]
mod print;

mod agent;
mod cli;
mod config;
mod console;
mod doctor;
mod first_sign_in;
mod generate;
mod inline;
mod installation;
mod listen;
mod local;
mod memory;
mod net;
mod offers;
mod operations;
mod preflight;
mod reset_password;
mod serve;
mod telemetry;

/// Runs the program as its command line says.
pub fn main() -> std::process::ExitCode {
    cli::main()
}
