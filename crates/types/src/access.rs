//! Who may do what: roles, actions, and who is asking. The decision itself is in `policy`.

use crate::{ApiKeyId, Name, OrganizationId, ToolboxId, UserId};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A built-in role, from most to least power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything, including the organization itself and other owners.
    Owner,
    /// Everything but owners and the organization's existence.
    Admin,
    /// Runs servers and toolboxes; no members, no settings.
    Operator,
    /// Deploys servers, makes toolsets and keys for itself, calls tools.
    Developer,
    /// Looks, and calls nothing.
    Viewer,
}

impl Role {
    /// Every role.
    pub const ALL: &'static [Role] = &[Role::Owner, Role::Admin, Role::Operator, Role::Developer, Role::Viewer];

    /// As written on the wire, in policies and in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Owner => "owner",
            Role::Admin => "admin",
            Role::Operator => "operator",
            Role::Developer => "developer",
            Role::Viewer => "viewer",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Role::ALL.iter().copied().find(|role| role.as_str() == text).ok_or_else(|| {
            format!("role `{}` is none of owner, admin, operator, developer, viewer", crate::name::printable(text))
        })
    }
}

macro_rules! actions {
    ($($variant:ident $text:literal $help:literal;)*) => {
        /// Something a principal may ask to do. Every API route and every MCP request maps to one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Action { $(#[doc = $help] #[serde(rename = $text)] $variant,)* }

        crate::schema::schema_of_words!(Action, "Something a principal may ask to do. Every API route and every MCP request maps to one.");

        impl Action {
            /// Every action.
            pub const ALL: &'static [Action] = &[$(Action::$variant,)*];

            /// As written in policies and on the wire.
            #[must_use]
            pub fn as_str(self) -> &'static str { match self { $(Action::$variant => $text,)* } }

            /// What it allows, for a person.
            #[must_use]
            pub fn help(self) -> &'static str { match self { $(Action::$variant => $help,)* } }
        }

        impl FromStr for Action {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                match text { $($text => Ok(Action::$variant),)* _ => Err(format!("there is no action `{}`", crate::name::printable(text))) }
            }
        }
    };
}

actions! {
    CatalogRead "catalog:read" "See catalog entries.";
    CatalogRate "catalog:rate" "Rate a catalog entry.";
    CatalogSubmit "catalog:submit" "Submit an entry of one's own for review.";
    CatalogReview "catalog:review" "Approve, reject, verify and withdraw entries.";
    CatalogManage "catalog:manage" "Add, change and sync catalog sources.";
    ServerRead "server:read" "See servers, revisions, rollouts and instances.";
    ServerDeploy "server:deploy" "Create, update, roll back and clone servers.";
    ServerGrantPath "server:grant_path" "Let a server see paths of its toolbox's host.";
    ServerOperate "server:operate" "Start, stop and restart servers; cancel rollouts.";
    ServerDelete "server:delete" "Delete servers.";
    ServerGrantPrivilege "server:grant_privilege" "Allow a server what sandboxes refuse: new namespaces, to listen.";
    ServerLogs "server:logs" "Read server logs.";
    ToolCall "tool:call" "List and call tools, prompts and resources through the gateway.";
    ToolsetRead "toolset:read" "See toolsets.";
    ToolsetManage "toolset:manage" "Create, change and delete toolsets.";
    ToolboxRead "toolbox:read" "See toolboxes.";
    ToolboxManage "toolbox:manage" "Enroll, drain and remove toolboxes.";
    CredentialRead "credential:read" "See which credentials exist, never their values.";
    CredentialUse "credential:use" "Bind a credential to a server, which then gets its secret.";
    CredentialManage "credential:manage" "Create, replace and delete credentials.";
    KeyRead "key:read" "See API keys, never the keys themselves.";
    KeyManage "key:manage" "Create and revoke API keys.";
    MemberRead "member:read" "See members and their roles.";
    MemberManage "member:manage" "Invite, change and remove members.";
    FlagRead "flag:read" "See feature flags.";
    FlagManage "flag:manage" "Change feature flags.";
    AuditRead "audit:read" "Read the audit log.";
    EventRead "event:read" "Follow live events.";
    PolicyExplain "policy:explain" "Ask why something is allowed or refused.";
    OrganizationManage "organization:manage" "Change the organization itself.";
}

/// Who is asking.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Actor {
    /// A person, signed in.
    User(UserId),
    /// An API key.
    ApiKey(ApiKeyId),
    /// The agent of a toolbox.
    Agent(ToolboxId),
    /// Toolyard itself; the text says which part.
    System(String),
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Actor::User(id) => write!(f, "user:{id}"),
            Actor::ApiKey(id) => write!(f, "api_key:{id}"),
            Actor::Agent(id) => write!(f, "agent:{id}"),
            Actor::System(part) => write!(f, "system:{part}"),
        }
    }
}

/// Who is asking, in which organization, with which power.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Principal {
    /// Who.
    pub actor: Actor,
    /// For people and in logs: an e-mail address or a key's name.
    pub display: String,
    /// The one organization this request is about.
    pub organization: OrganizationId,
    /// The organization's name.
    pub organization_name: Name,
    /// The role held there.
    pub role: Role,
    /// What a key is narrowed to; `None` for no narrowing.
    pub scope: Option<KeyScope>,
    /// Whether it was known by a secret that its key had before, and that works only for a while: somebody else may have
    /// it.
    #[serde(default)]
    pub replaced_secret: bool,
}

/// What an API key is narrowed to. A request must pass both the role's policies and this.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub struct KeyScope {
    /// Only these actions; empty for all of the role's.
    #[serde(default)]
    pub actions: Vec<Action>,
    /// Only these servers and toolsets by name; empty for all. Applies to actions about one of them.
    #[serde(default)]
    pub resources: Vec<Name>,
    /// Only these credentials by name may be bound to servers. Empty for all, but for none when `resources` narrows the
    /// key: whoever may deploy one server could otherwise read every secret through it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub credentials: Vec<Name>,
}

impl KeyScope {
    /// Whether it narrows nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty() && self.resources.is_empty() && self.credentials.is_empty()
    }
}
