//! End to end: the real program, real MCP servers from npm and PyPI, clients that other people wrote.
//!
//! Each test starts its own `toolyard serve` on a data directory of its own. Postgres comes from
//! `TOOLYARD_TEST_POSTGRES_URL`, other people's clients from `$TOOLYARD_TEST_DIR/clients`; `make test` provides
//! both, and a test that misses one fails.

mod cli;
mod clients;
mod console;
mod docker;
mod engine;
mod fleet;
mod harness;
mod listening;
mod main_job;
mod operations;
mod promote;
mod secrets;
mod survival;
