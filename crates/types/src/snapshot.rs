//! What the gateway knows: an immutable picture of everything it needs to serve a call, made by the
//! control plane. No secrets: header credentials are leased separately.

use crate::access::{Actor, KeyScope, Role};
use crate::agent::Era;
use crate::spec::{InstancingMode, RemoteTransport};
use crate::state::{Phase, Reason};
use crate::{
    ApiKeyId, InstanceId, Name, OrganizationId, RevisionId, RolloutId, ServerId, Timestamp, ToolboxId, ToolsetId,
    UserId,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Everything the gateway needs, of all organizations.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// Rises with every change.
    pub version: u64,
    /// When the control plane last vouched for it.
    pub made_at: Timestamp,
    /// By organization name.
    pub organizations: HashMap<Name, Arc<OrganizationSnapshot>>,
    /// API keys by the SHA-256 of the key, in hex.
    pub keys: HashMap<String, Arc<KeyGrant>>,
    /// Organizations of which something that changed could not be read yet, with when the control plane last vouched for
    /// all that is here of them.
    #[serde(default)]
    pub behind: HashMap<OrganizationId, Timestamp>,
}

impl Snapshot {
    /// When the control plane last vouched for what is here of an organization.
    #[must_use]
    pub fn made_at_of(&self, organization: OrganizationId) -> Timestamp {
        self.behind.get(&organization).map_or(self.made_at, |at| self.made_at.min(*at))
    }

    /// When it last vouched for everything.
    #[must_use]
    pub fn complete_at(&self) -> Timestamp {
        self.behind.values().copied().fold(self.made_at, Timestamp::min)
    }
}

/// One organization.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrganizationSnapshot {
    /// The organization.
    pub id: OrganizationId,
    /// Its name.
    pub name: Name,
    /// Its servers by name.
    pub servers: BTreeMap<Name, Arc<ServerRoute>>,
    /// Its toolsets by name. Servers and toolsets share one name space.
    pub toolsets: BTreeMap<Name, Arc<ToolsetRoute>>,
    /// Another number whenever a credential of it has changed.
    #[serde(default)]
    pub credentials: u64,
}

/// An API key as the gateway needs it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyGrant {
    /// The key.
    pub id: ApiKeyId,
    /// Its name.
    pub name: String,
    /// Where it is good.
    pub organization: OrganizationId,
    /// That organization's name.
    pub organization_name: Name,
    /// Its role.
    pub role: Role,
    /// What it is narrowed to.
    pub scope: Option<KeyScope>,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// The member it stands for, when it is a key of a session: then they are who calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<UserId>,
    /// Whose share of what there is it uses up, when not its own: of the member or key that made it for themselves, at the
    /// top of the chain. A key that an administrator made has a share of its own, for whoever it was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_of: Option<Actor>,
}

impl KeyGrant {
    /// Who calls with it.
    #[must_use]
    pub fn actor(&self) -> Actor {
        self.member.map_or(Actor::ApiKey(self.id), Actor::User)
    }

    /// Whose share of what there is it uses up.
    #[must_use]
    pub fn share_of(&self) -> Actor {
        self.share_of.clone().unwrap_or_else(|| self.actor())
    }
}

/// Where calls to a server go now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerRoute {
    /// Whose it is.
    pub organization: OrganizationId,
    /// The server.
    pub id: ServerId,
    /// The revision that serves.
    pub revision: Option<RevisionId>,
    /// The rollout by which it serves: another one after a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutId>,
    /// Where.
    pub target: Target,
    /// Whether somebody is about to take its calls, as the control plane intends: where nothing serves they are held
    /// meanwhile.
    #[serde(default)]
    pub is_coming: bool,
    /// The server's phase, for the error when nothing serves.
    pub phase: Phase,
    /// Why.
    pub reason: Reason,
    /// Why, for a person.
    pub message: String,
    /// Longest time one call may take, in milliseconds.
    pub call_timeout_ms: u64,
    /// Who shares an instance of the revision that serves.
    #[serde(default, skip_serializing_if = "InstancingMode::is_shared")]
    pub instancing: InstancingMode,
    /// A revision that takes a part of the calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanaryRoute>,
}

/// A revision that takes a part of a server's calls while it is tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryRoute {
    /// The revision.
    pub revision: RevisionId,
    /// Its instances that are ready; never none.
    pub instances: Vec<InstanceRoute>,
    /// How many of a hundred calls go there.
    pub weight: u8,
    /// Names of API keys, and actors as `kind:id`, whose calls always go there.
    pub clients: Vec<String>,
    /// Longest time one call may take there, in milliseconds.
    pub call_timeout_ms: u64,
    /// Who shares one of its instances.
    #[serde(default, skip_serializing_if = "InstancingMode::is_shared")]
    pub instancing: InstancingMode,
}

/// What answers for a server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Nothing serves.
    None,
    /// Instances on toolboxes; any of them may take a call.
    Instances(Vec<InstanceRoute>),
    /// A remote server. Its URL and headers may hold credentials: they are leased by server id.
    Remote {
        /// The protocol.
        transport: RemoteTransport,
    },
}

/// A ready instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceRoute {
    /// The instance.
    pub id: InstanceId,
    /// Where.
    pub toolbox: ToolboxId,
    /// Which era it speaks.
    pub era: Era,
}

/// A toolset: which servers, and which of their tools.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolsetRoute {
    /// The toolset.
    pub id: ToolsetId,
    /// Shown to clients as instructions.
    pub description: String,
    /// Its members, in order.
    pub members: Vec<ToolsetMember>,
}

/// A server in a toolset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ToolsetMember {
    /// The server.
    pub server: Name,
    /// Only these tools, as the server names them; `None` for all, also those it adds later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<String>>,
    /// What clients are told of a tool instead of what its server says, by the tool's name there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub overrides: BTreeMap<String, ToolOverride>,
}

impl ToolsetMember {
    /// A server with all its tools as it describes them.
    #[must_use]
    pub fn whole(server: Name) -> Self {
        Self { server, tools: None, overrides: BTreeMap::new() }
    }
}

/// What a toolset says of a tool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ToolOverride {
    /// Its name in the toolset; else `{server}__{tool}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its description; else the server's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// A remote server's address with its secrets filled in, good for a while.
#[derive(Clone, Debug)]
pub struct RemoteLease {
    /// The complete URL.
    pub url: crate::Secret,
    /// The complete headers.
    pub headers: Vec<(String, crate::Secret)>,
    /// When to ask again.
    pub until: Timestamp,
}

/// One call as recorded. Written in batches, apart from desired state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CallRecord {
    /// When it began.
    pub at: Timestamp,
    /// Whose.
    pub organization: OrganizationId,
    /// Who called, as `kind:id`.
    pub actor: String,
    /// The server, when one was chosen.
    pub server: Option<ServerId>,
    /// The toolset it came through, if it did.
    pub toolset: Option<ToolsetId>,
    /// The MCP method.
    pub method: String,
    /// The tool, prompt or resource, as the server names it.
    pub target: String,
    /// How it ended.
    #[serde(deserialize_with = "CallOutcome::read")]
    pub outcome: CallOutcome,
    /// How long it took, in microseconds.
    pub duration_us: u64,
    /// Bytes of the request body.
    pub request_bytes: u64,
    /// Bytes of the answer.
    pub response_bytes: u64,
    /// The request id.
    pub request_id: String,
    /// The revision that had the call, when one was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<RevisionId>,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CallOutcome {
    /// A result without `isError`.
    Ok,
    /// A result with `isError`.
    ToolError,
    /// A JSON-RPC error of the server.
    ServerError,
    /// Refused by the gateway.
    Refused,
    /// Nothing of the server took calls, for as long as a call is held.
    ServerNotReady,
    /// The server failed or cannot be reached.
    UpstreamFailed,
    /// The server did not answer in time.
    Timeout,
    /// The client went away or cancelled, or Toolyard shut down.
    Cancelled,
}

impl CallOutcome {
    /// Every way that a call ends.
    pub const ALL: [CallOutcome; 8] = [
        CallOutcome::Ok,
        CallOutcome::ToolError,
        CallOutcome::ServerError,
        CallOutcome::Refused,
        CallOutcome::ServerNotReady,
        CallOutcome::UpstreamFailed,
        CallOutcome::Timeout,
        CallOutcome::Cancelled,
    ];

    /// What a word says. One of a later version reads as [`CallOutcome::UpstreamFailed`]: a record is not lost, and does not
    /// hide all others, because of it.
    #[must_use]
    pub fn of_any_version(word: &str) -> Self {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == word).unwrap_or(Self::UpstreamFailed)
    }

    /// Reads [a word of any version](Self::of_any_version).
    pub(crate) fn read<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(|word| Self::of_any_version(&word))
    }

    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            CallOutcome::Ok => "ok",
            CallOutcome::ToolError => "tool_error",
            CallOutcome::ServerError => "server_error",
            CallOutcome::Refused => "refused",
            CallOutcome::ServerNotReady => "server_not_ready",
            CallOutcome::UpstreamFailed => "upstream_failed",
            CallOutcome::Timeout => "timeout",
            CallOutcome::Cancelled => "cancelled",
        }
    }
}
