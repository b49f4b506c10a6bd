//! A server's settings as they stand.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::api::servers::ServerSettings;
use crate::schedule::{TimeOfDay, UpdateWindow};
use crate::server_json::{Package, Transport};
use crate::spec::{Egress, EntryVersion, Instancing, Limits, PathGrant, Privilege, ProbeCall, Strategy, Volume};
use crate::{CredentialId, Name};

/// What was set on a server, with what it belongs to; `change` is that in the form of a change.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CurrentSettings {
    /// Number of the revision that is meant to run; these are its settings.
    pub revision: u32,
    /// The server's `etag`; send it as `If-Match` with a change.
    pub etag: String,
    /// The catalog entry it came from.
    #[serde(default)]
    pub entry: Option<EntryVersion>,
    /// `npm`, `pypi`, `oci` or `remote`.
    pub kind: String,
    /// The package that runs, as its entry described it then; its inputs are what `inputs` may hold.
    #[serde(default)]
    pub package: Option<Package>,
    /// The remote server, as its entry described it then or as it was given.
    #[serde(default)]
    pub remote: Option<Transport>,
    /// Values of inputs; those given as secrets are in `credentials`.
    pub inputs: BTreeMap<String, String>,
    /// Environment variables beyond the inputs.
    pub environment: BTreeMap<String, String>,
    /// Credentials by input name or environment variable; `registry` is who pulls the image.
    pub credentials: BTreeMap<String, BoundCredential>,
    /// Arguments after the entry's own.
    pub arguments: Vec<String>,
    /// Limits of each instance.
    #[serde(with = "crate::spec::said_limits")]
    pub limits: Limits,
    /// Host paths that were granted beside those that are inputs.
    pub paths: Vec<PathGrant>,
    /// Whom the server may reach over the network.
    pub egress: Egress,
    /// How a new revision replaces the old.
    pub strategy: Strategy,
    /// Whether all clients share an instance.
    pub instancing: Instancing,
    /// Places of the server's own.
    #[serde(default)]
    pub volumes: Vec<Volume>,
    /// What its sandbox allows it beyond what every server may.
    #[serde(default)]
    pub privileges: BTreeSet<Privilege>,
    /// Milliseconds from start to the MCP answer.
    pub start_timeout_ms: u64,
    /// Milliseconds one call may take.
    pub call_timeout_ms: u64,
    /// The tool call that must succeed before a revision is ready.
    #[serde(default)]
    pub probe_call: Option<ProbeCall>,
    /// Milliseconds a rollout may take in all.
    pub rollout_timeout_ms: u64,
    /// How many instances serve at once.
    pub replicas: u32,
    /// How long a new revision is observed while the old one runs on.
    pub observe_seconds: u32,
    /// At what time of day (UTC) it is restarted.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "03:30")]
    pub restart_at: Option<TimeOfDay>,
    /// When changes may be made (UTC); at any time when absent.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "sat,sun 02:00-05:00")]
    pub update_window: Option<UpdateWindow>,
    /// The settings as the body of a change of this server (`PATCH`): sent back as it is, it changes nothing. What is not
    /// set is absent, and so is a credential without a name above. It holds no secret.
    #[serde(default)]
    pub change: ServerSettings,
}

/// A credential that a server is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BoundCredential {
    /// Its id.
    pub id: CredentialId,
    /// Its name; absent for those who may not see which credentials exist, and when it is gone.
    #[serde(default)]
    pub name: Option<Name>,
}
