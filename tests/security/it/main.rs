//! Attacks on the built program, each of which must fail: as root and as a plain user, on both databases. Each test says
//! what it tried, what should happen and what happened (`Row`); `make security` writes them to
//! `docs/reports/security.md`, with longer loops than `make test` has time for.

mod auth;
mod callers;
mod catalog;
mod isolation;
mod keys;
mod listeners;
mod matrix;
mod packages;
mod paths;
mod sandbox;
mod secrets;
