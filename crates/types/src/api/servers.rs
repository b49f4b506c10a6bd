//! Servers, revisions, rollouts, toolsets, toolboxes.

use crate::agent::{Exit, McpInfo, ToolboxReport, Usage};
use crate::schedule::{TimeOfDay, UpdateWindow};
use crate::snapshot::ToolsetMember;
use crate::spec::{
    Egress, EntryVersion, Instancing, Limits, PathGrant, Privilege, ProbeCall, RemoteTransport, RevisionSpec, Strategy,
    Volume,
};
use crate::state::{Phase, Reason, RolloutState, ToolboxState};
use crate::{
    EntryName, InstanceId, Labels, Name, RevisionId, RolloutId, Secret, ServerId, Timestamp, ToolboxId, ToolsetId,
};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What to run, as a person says it: either a catalog entry, or a package or URL given directly.
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateServer {
    /// The server's name, unique among servers and toolsets; by default made from the entry's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// The catalog entry to deploy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<EntryName>,
    /// Its version; the latest when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Which of the entry's packages or remotes, when it has several: `npm`, `pypi`, `oci` or `remote`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// A remote MCP server's URL, instead of an entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// How to speak to `url`; Streamable HTTP when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<RemoteTransport>,
    /// The settings a later change may also make.
    #[serde(flatten)]
    pub settings: ServerSettings,
    /// Where to run: a toolbox by name; any suitable one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toolbox: Option<Name>,
    /// Where to run: any toolbox that has all of these labels.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub toolbox_labels: Labels,
    /// `false` to create it stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<bool>,
}

/// What a person can set on a server. An absent field leaves what was there.
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ServerSettings {
    /// Values of the entry's inputs by name: environment variables, arguments, URL and header variables.
    /// A value for an input marked secret is stored as a credential and never shown again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<String, Secret>,
    /// Environment variables beyond the entry's inputs. For a secret, bind a credential instead.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// Environment variables and inputs to remove again; `registry` for who pulls the image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unset_environment: Vec<String>,
    /// Credentials by input name or environment variable; for a container image `registry` is who pulls it, as
    /// `user:password`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "credential_names")]
    pub credentials: BTreeMap<String, Name>,
    /// Arguments after the entry's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Vec<String>>,
    /// Limits of each instance.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::spec::said_limits_if_any")]
    pub limits: Option<Limits>,
    /// Host paths the server may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<Vec<PathGrant>>,
    /// Whom the server may reach over the network; everything when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Egress>,
    /// How a new revision replaces the old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// Milliseconds from start to the MCP answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_timeout_ms: Option<u64>,
    /// Milliseconds one call may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_timeout_ms: Option<u64>,
    /// A tool call that must succeed before a revision is ready; with an empty `tool`, none any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe_call: Option<ProbeCall>,
    /// Milliseconds a rollout may take in all; 10 minutes when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout_timeout_ms: Option<u64>,
    /// Whether all clients share an instance, or each user or session has a copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instancing: Option<Instancing>,
    /// Places of the server's own that outlive its instances and revisions. With any, `strategy` is `recreate`, and the
    /// server stays on its toolbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 16)]
    pub volumes: Option<Vec<Volume>>,
    /// What its sandbox allows it beyond what every server may. Giving one that it does not have needs
    /// `server:grant_privilege`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privileges: Option<BTreeSet<Privilege>>,
    /// How many instances serve at once; 1 when absent. Changing only this makes no new revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 20)]
    pub replicas: Option<u32>,
    /// How long a new revision serves before the old one is stopped, so that traffic can go back at once; 5 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 3600)]
    pub observe_seconds: Option<u32>,
    /// At what time of day (UTC) it is restarted, such as `03:30`; empty for never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_at: Option<String>,
    /// When changes may be made (UTC), such as `02:00-05:00` or `sat,sun 22:00-04:00`; empty for at any time. An update
    /// asked for outside waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_window: Option<String>,
}

/// Reads names of credentials. What is none is not told: it may be the secret itself.
fn credential_names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Name>, D::Error> {
    let given = BTreeMap::<String, String>::deserialize(deserializer)?;
    let named = given.into_iter().map(|(key, name)| match Name::new(name) {
        Ok(name) => Ok((key, name)),
        Err(_) => {
            let key = crate::name::printable(&key);
            let wanted = "must be the name of a credential; a secret itself belongs under `inputs`";
            Err(D::Error::custom(format!("`credentials.{key}` {wanted}")))
        }
    });
    named.collect()
}

/// A change to a server; makes a new revision.
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateServer {
    /// Another version of the entry, or `latest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Another URL, for a remote server that was registered by its URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Settings to change.
    #[serde(flatten)]
    pub settings: ServerSettings,
    /// Run on this toolbox from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toolbox: Option<Name>,
    /// Run on any toolbox that has these labels from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toolbox_labels: Option<Labels>,
    /// `true` to run on any suitable toolbox from now on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub any_toolbox: bool,
    /// `true` to let the new revision serve although it lists fewer tools than the old one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accept_lost_tools: bool,
    /// Try the new revision on a part of the calls first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<StartCanary>,
    /// `true` to begin now although it is outside the server's update window.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub now: bool,
}

/// How a new revision is tried before it serves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartCanary {
    /// How many of a hundred calls it takes.
    #[serde(default)]
    #[schema(maximum = 100)]
    pub weight: u8,
    /// Whose calls it always takes: names of API keys, or actors as `user:<id>` or `api_key:<id>`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 100)]
    pub clients: Vec<String>,
    /// After how many seconds without a failure it serves by itself; only when somebody says so when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 604_800)]
    pub promote_after_seconds: Option<u32>,
}

/// A revision that is tried on a part of the calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Canary {
    /// How many of a hundred calls it takes.
    pub weight: u8,
    /// Whose calls it always takes.
    #[serde(default)]
    pub clients: Vec<String>,
    /// After how many seconds without a failure it serves by itself.
    #[serde(default)]
    pub promote_after_seconds: Option<u32>,
    /// Since when it takes this part of the calls.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    /// When it was decided that it shall serve.
    #[serde(default)]
    pub promoted_at: Option<Timestamp>,
}

impl Canary {
    /// Whether it takes its part of the calls, and nobody decided yet.
    #[must_use]
    pub fn is_on_trial(&self) -> bool {
        self.started_at.is_some() && self.promoted_at.is_none()
    }
}

/// Point back to an earlier revision.
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackServer {
    /// The revision's number; the one before the current when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u32>,
}

/// Copy a server under a new name.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CloneServer {
    /// The copy's name.
    pub name: Name,
}

/// A server.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Server {
    /// Its id.
    pub id: ServerId,
    /// Its name.
    pub name: Name,
    /// The catalog entry it came from.
    #[serde(default)]
    pub entry: Option<EntryVersion>,
    /// What kind of thing runs: `npm`, `pypi`, `oci` or `remote`.
    pub kind: String,
    /// Whether it should run.
    pub enabled: bool,
    /// A roll-up of what serves now.
    pub phase: Phase,
    /// Why, as a code.
    pub reason: Reason,
    /// Why, for a person.
    #[serde(default)]
    pub message: String,
    /// Since when.
    pub since: Timestamp,
    /// When the next attempt is made, if one will be.
    #[serde(default)]
    pub next_attempt_at: Option<Timestamp>,
    /// Number of the revision that serves, or is meant to.
    pub revision: u32,
    /// The id of the serving instance, when exactly one serves.
    #[serde(default)]
    pub instance_id: Option<InstanceId>,
    /// Every instance that has not ended.
    pub instances: Vec<Instance>,
    /// The rollout under way, or the last one.
    #[serde(default)]
    pub rollout: Option<Rollout>,
    /// Where it should run; any toolbox when absent.
    #[serde(default)]
    pub toolbox: Option<Name>,
    /// When the toolbox where it should run was removed; it runs nowhere until it is moved. `toolbox` is then the name that
    /// it had, as far as that is known.
    #[serde(default)]
    pub toolbox_removed_at: Option<Timestamp>,
    /// The labels that its toolbox must have.
    #[serde(default)]
    pub toolbox_labels: Labels,
    /// How many instances should serve at once.
    pub replicas: u32,
    /// How long a new revision serves before the old one is stopped.
    pub observe_seconds: u32,
    /// At what time of day (UTC) it is restarted.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "03:30")]
    pub restart_at: Option<TimeOfDay>,
    /// When changes to it may be made (UTC); at any time when absent.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "sat,sun 02:00-05:00")]
    pub update_window: Option<UpdateWindow>,
    /// The MCP URL's path on this Toolyard.
    pub mcp_path: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Changes with every change; send it as `If-Match`.
    pub etag: String,
}

/// One running copy.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// Its toolbox's name.
    #[serde(default)]
    pub toolbox: Option<Name>,
    /// Its revision's number.
    pub revision: u32,
    /// Where it is.
    pub phase: Phase,
    /// Why, as a code.
    pub reason: Reason,
    /// Why, for a person.
    #[serde(default)]
    pub message: String,
    /// Since when.
    pub since: Timestamp,
    /// When the next attempt is made.
    #[serde(default)]
    pub next_attempt_at: Option<Timestamp>,
    /// The server's process in the host's numbering.
    #[serde(default)]
    pub pid: Option<u32>,
    /// Since when it answers.
    #[serde(default)]
    pub ready_since: Option<Timestamp>,
    /// How often it was started again after ending by itself, at least: what happens while nobody hears its agent may be missing.
    pub restarts: u32,
    /// How it ended last.
    #[serde(default)]
    pub exit: Option<Exit>,
    /// What it said of itself.
    #[serde(default)]
    pub mcp: Option<McpInfo>,
    /// What it uses.
    #[serde(default)]
    pub usage: Option<Usage>,
    /// The container it runs in, when it runs in one.
    #[serde(default)]
    pub container_id: Option<String>,
    /// When it last answered a probe or a call.
    #[serde(default)]
    pub last_success_at: Option<Timestamp>,
    /// How many probes in a row it failed.
    #[serde(default)]
    pub failures: u32,
    /// How many copies of it run, beside itself, for single users or sessions.
    #[serde(default)]
    pub copies: u32,
    /// The credentials of which it, or a copy of it, was started with an older secret than the current one; a restart of the server brings that. One whose agent does not tell what it was started with is not named.
    #[serde(default)]
    pub outdated_secrets: Vec<Name>,
}

/// A revision.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Revision {
    /// Its id.
    pub id: RevisionId,
    /// 1 for the first of its server.
    pub number: u32,
    /// What it runs.
    pub spec: RevisionSpec,
    /// Digest of its lock, once resolved.
    #[serde(default)]
    pub lock_digest: Option<String>,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created_at: Timestamp,
    /// What changed, in words: `update`, `rollback to 3`.
    pub change: String,
    /// Whether it ever served; absent when that is not known any more, because only the last rollouts are kept.
    #[serde(default)]
    pub served: Option<bool>,
}

/// A rollout.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Rollout {
    /// Its id.
    pub id: RolloutId,
    /// The server's name.
    pub server: Name,
    /// Where it is.
    pub state: RolloutState,
    /// Why, as a code.
    pub reason: Reason,
    /// Why, for a person.
    #[serde(default)]
    pub message: String,
    /// The revision it came from.
    #[serde(default)]
    pub from_revision: Option<u32>,
    /// The revision it goes to.
    pub to_revision: u32,
    /// When it began.
    pub started_at: Timestamp,
    /// When it must have ended.
    pub deadline: Timestamp,
    /// When it ended.
    #[serde(default)]
    pub ended_at: Option<Timestamp>,
    /// What happened, step by step.
    #[serde(default)]
    pub log: Vec<RolloutStep>,
    /// Since when the new revision serves; what served before runs on while it is observed.
    #[serde(default)]
    pub switched_at: Option<Timestamp>,
    /// How the new revision is tried before it serves.
    #[serde(default)]
    pub canary: Option<Canary>,
    /// When it goes on, if it waits for a time.
    #[serde(default)]
    pub next_attempt_at: Option<Timestamp>,
}

/// A step of a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RolloutStep {
    /// When.
    pub at: Timestamp,
    /// What, for a person.
    pub message: String,
}

/// Make or replace a toolset.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutToolset {
    /// Its name, unique among servers and toolsets.
    pub name: Name,
    /// Shown to clients.
    #[serde(default)]
    pub description: String,
    /// Its servers, and which of their tools.
    pub members: Vec<ToolsetMember>,
}

/// A toolset.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Toolset {
    /// Its id.
    pub id: ToolsetId,
    /// Its name.
    pub name: Name,
    /// Shown to clients.
    pub description: String,
    /// Its servers, and which of their tools.
    pub members: Vec<ToolsetMember>,
    /// The MCP URL's path on this Toolyard.
    pub mcp_path: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Changes with every change.
    pub etag: String,
}

/// A toolbox.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Toolbox {
    /// Its id.
    pub id: ToolboxId,
    /// Its name; `local` is the built-in one.
    pub name: Name,
    /// Where it is: `draining` while it is online and takes nothing new.
    pub state: ToolboxState,
    /// Why, as a code.
    pub reason: Reason,
    /// Why, for a person.
    #[serde(default)]
    pub message: String,
    /// Since when.
    pub since: Timestamp,
    /// Whether it is to take nothing new, whether its agent is heard or not.
    pub draining: bool,
    /// What the operator says of it.
    pub labels: Labels,
    /// What runs servers there; empty until its agent was heard.
    pub engine: String,
    /// Its agent's version.
    #[serde(default)]
    pub version: Option<String>,
    /// Since when what may run elsewhere is placed there, because its agent has been silent for so long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_at: Option<Timestamp>,
    /// When its agent was last heard.
    #[serde(default)]
    pub last_seen_at: Option<Timestamp>,
    /// When its agent's certificate ends; none for the built-in toolbox and before the first join.
    #[serde(default)]
    pub certificate_expires_at: Option<Timestamp>,
    /// Where its agent listens, as `host:port`; none when it dials out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Why its agent, which listens, has no connection from the replica that answers; none while it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offer_failure: Option<OfferFailure>,
    /// How calls to it fare from here.
    pub link: ToolboxLink,
    /// What it is and can enforce.
    pub report: ToolboxReport,
    /// How many instances have not ended.
    pub instances: u32,
    /// How what runs there fares. Only when one toolbox is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// What is still there while it is drained. Only when one toolbox is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Drain>,
}

/// Why a replica has no connection to an agent that listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OfferFailure {
    /// How the last attempt ended, for a person.
    pub message: String,
    /// When that was.
    pub at: Timestamp,
    /// How many attempts have failed since the last one that did not.
    pub failures: u32,
}

/// How a set of instances fares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Health {
    /// How many instances are in each phase; only phases that occur.
    pub phases: Vec<InstanceCount>,
    /// How many copies run beside them, for single users or sessions.
    pub copies: u32,
    /// How often instances that live were started again after ending by themselves.
    pub restarts: u32,
    /// When one of them last answered.
    #[serde(default)]
    pub last_success_at: Option<Timestamp>,
    /// What went wrong in the last day, the newest first, at most 20.
    pub recent_errors: Vec<InstanceError>,
}

/// How many instances are in a phase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct InstanceCount {
    /// The phase.
    pub phase: Phase,
    /// How many.
    pub count: u32,
}

/// What went wrong with an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct InstanceError {
    /// The instance.
    pub instance: InstanceId,
    /// Its server's name, while it exists.
    #[serde(default)]
    pub server: Option<Name>,
    /// Its toolbox's name.
    #[serde(default)]
    pub toolbox: Option<Name>,
    /// Why, as a code.
    pub reason: Reason,
    /// Why, for a person.
    pub message: String,
    /// When.
    pub at: Timestamp,
}

/// What is still on a toolbox that is drained.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Drain {
    /// How many instances are still to be moved to another toolbox.
    pub moving: u32,
    /// How many are replaced elsewhere already and finish their calls there, or end.
    #[serde(default)]
    #[schema(required)]
    pub ending: u32,
    /// Servers that stay, at most 100: they must run there, or no other toolbox that takes servers has their labels.
    pub stays: Vec<Name>,
    /// Those of them that must because their volumes are there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Name>,
}

/// How calls to a toolbox fare, as seen by the replica that answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ToolboxLink {
    /// Whether there is a connection for calls.
    pub connected: bool,
    /// Whether there is a second one for logs.
    pub bulk: bool,
    /// Whether calls are let through.
    pub breaker: BreakerState,
    /// How many calls in a row got no answer from the toolbox.
    pub failures: u32,
    /// When a call is let through again to try, while the breaker is open.
    #[serde(default)]
    pub retry_at: Option<Timestamp>,
}

/// Whether calls to a toolbox are let through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// They are.
    #[default]
    Closed,
    /// They fail at once, because those before got no answer.
    Open,
    /// One is, to see whether the toolbox answers again.
    HalfOpen,
}

impl BreakerState {
    /// As written on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// Make a toolbox and a token for its agent.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrollToolbox {
    /// Its name.
    pub name: Name,
    /// What servers may ask of a toolbox, such as `zone=a`.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Where its agent listens, as `host:port`, when the host must not dial out. Absent, the agent dials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// How long the token is good for; an hour when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 604_800)]
    pub expires_seconds: Option<u32>,
}

/// Make another token for a toolbox: its host was installed anew, or its certificate revoked.
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RejoinToolbox {
    /// How long the token is good for; an hour when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 604_800)]
    pub expires_seconds: Option<u32>,
}

/// Change a toolbox. An absent field leaves what was there.
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateToolbox {
    /// Its labels, in place of those before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
    /// Where its agent listens, as `host:port`; empty when it dials from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// A new toolbox with what its agent needs, shown once.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EnrolledToolbox {
    /// The toolbox.
    pub toolbox: Toolbox,
    /// The agent's token, good for one join.
    pub token: String,
    /// Until when.
    pub expires_at: Timestamp,
    /// Where the agent will reach this Toolyard, as the token says; one that listens does not dial.
    pub addresses: Vec<String>,
    /// The command to run on the host.
    pub command: String,
}
