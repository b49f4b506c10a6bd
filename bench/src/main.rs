//! `toolyard-bench`: an echo MCP server and a load generator, to compare calls through the gateway with direct ones.
//!
//! The client is a plain HTTP/1.1 connection per worker with a fixed body, so that what is measured is the
//! server side. Direct and gateway rounds alternate in one run, so that both see the same machine.

mod api;
mod echo;
mod fleet;
mod load;
mod soak;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "toolyard-bench", about = "Measures MCP calls, direct and through the gateway")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Seeds a catalog and stopped servers, measures searches and lists, and prints JSON.
    Api(Box<api::Arguments>),
    /// Serves an MCP server with one tool, `echo`, in both eras.
    Echo(echo::Arguments),
    /// Measures a control plane with many simulated toolboxes, and prints JSON.
    Fleet(Box<fleet::Arguments>),
    /// Calls `echo` directly and through the gateway and prints JSON.
    Load(Box<load::Arguments>),
    /// Uses two toolboxes for a long time in every way, and prints what they needed as JSON.
    Soak(Box<soak::Arguments>),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Api(arguments) => api::run(&arguments).await,
        Command::Echo(arguments) => echo::run(arguments).await,
        Command::Fleet(arguments) => fleet::run(&arguments).await,
        Command::Load(arguments) => load::run(&arguments).await,
        Command::Soak(arguments) => soak::run(*arguments).await,
    }
}
