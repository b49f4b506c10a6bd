//! Configuration: one struct of settings, filled from defaults < `toolyard.toml` < environment < flags.
//!
//! This is the only place that reads the process environment. `.env` counts as environment, below the real
//! one, and only in development. Every value remembers where it came from, for `toolyard config show`.
//! `.env.example`, `docs/reference/configuration.md` and `docs/reference/settings.schema.json` are generated
//! from the struct.

mod check;
pub(crate) mod docs;
mod load;
mod settings;
mod target;

pub(crate) use check::{Insecure, insecure_in_production, insecure_settings};
pub(crate) use load::{Overrides, Survey, load, process_environment, survey};
pub(crate) use settings::{EngineKind, Environment, LogFormat, Settings};
pub(crate) use target::DeploymentTarget;

/// Names under `TOOLYARD_` that belong to the command-line client, not to the settings.
pub(crate) const CLIENT_VARIABLES: &[&str] =
    &["TOOLYARD_URL", "TOOLYARD_API_KEY", "TOOLYARD_OUTPUT", "TOOLYARD_CONFIG", "TOOLYARD_CA_FILE"];
