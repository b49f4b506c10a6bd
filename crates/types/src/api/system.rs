//! Version, feature flags, events.

use crate::{Name, Timestamp};
use serde::{Deserialize, Serialize};

/// `GET /api/v1/version`.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Version {
    /// The program's version.
    pub version: String,
    /// `development`, `staging` or `production`.
    pub environment: String,
    /// How it runs: `bare`, `systemd`, `container` or `cluster`.
    pub deployment_target: String,
    /// The API's version.
    pub api: String,
    /// `sqlite` or `postgres`.
    pub database: String,
}

/// `GET /api/v1/readiness`: whether the replica that answers is ready, in three parts that fail apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Readiness {
    /// Calls are served: the gateway's picture of the control plane is fresh enough. It stays so for a while with the
    /// database away.
    pub gateway: ReadinessPart,
    /// What is written lasts: a row was written and read back through another connection, a few seconds ago.
    pub writes: ReadinessPart,
    /// The loops that make servers what they should be run.
    pub control_plane: ReadinessPart,
    /// Those loops, and how the last run of each went.
    pub loops: Vec<LoopState>,
}

impl Readiness {
    /// The parts by name.
    #[must_use]
    pub fn parts(&self) -> [(&'static str, &ReadinessPart); 3] {
        [("gateway", &self.gateway), ("writes", &self.writes), ("control_plane", &self.control_plane)]
    }
}

/// One part of being ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ReadinessPart {
    /// Whether it is.
    pub ready: bool,
    /// What was found, for a person.
    pub message: String,
    /// Since when it is as it is, as far as this replica saw.
    pub since: Timestamp,
}

/// How the last run of a loop went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LoopState {
    /// Its name.
    pub name: String,
    /// When the run ended.
    pub at: Timestamp,
    /// Why it failed, if it did.
    #[serde(default)]
    pub error: Option<String>,
}

/// A feature flag as it applies to the asking organization.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Flag {
    /// Its name.
    pub name: String,
    /// What it switches.
    pub description: String,
    /// Whether it is on for the asking organization.
    pub enabled: bool,
    /// What it is when nothing is set.
    pub default: bool,
    /// The rule set for it, if any: only the asking organization's part where the installation has several.
    #[serde(default)]
    pub rule: Option<FlagRule>,
}

/// A feature flag's rule: for one organization, else by percentage, else for everyone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FlagRule {
    /// On or off for everyone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub everyone: Option<bool>,
    /// On or off for organizations by name.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub organizations: std::collections::BTreeMap<Name, bool>,
    /// On for this share of organizations, 0 to 100; the same ones as it grows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percentage: Option<u8>,
}

/// Something that happened, as sent on `GET /api/v1/events`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Event {
    /// Rises; send the last one seen as `Last-Event-ID` to continue after it.
    pub sequence: i64,
    /// When.
    pub at: Timestamp,
    /// What, such as `server.changed`.
    pub kind: String,
    /// About which thing, such as `server/everything`.
    pub subject: String,
    /// More, without secrets.
    pub data: serde_json::Value,
}
