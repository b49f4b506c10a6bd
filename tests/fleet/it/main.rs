//! A fleet: real `toolyard dtma` processes on hosts of their own, driven as a person or a script does, and hurt in every
//! way that a fleet is hurt. Each test is a scenario, and says what it observed with numbers; `make fleet` writes them to
//! `docs/reports/fleet.md`.
//!
//! The program is the built one (`TOOLYARD_BINARY`, or the one beside the tests), so this crate compiles little.

mod agents;
mod calls;
mod credentials;
mod facts;
mod fixture;
mod isolation;
mod leaks;
mod listening;
mod network;
mod outages;
mod places;
mod rollouts;
mod world;
