//! Sessions, members, API keys, credentials, audit, `why`.

use crate::access::{Action, KeyScope, Role};
use crate::{ApiKeyId, AuditId, CredentialId, Name, OrganizationId, Secret, Timestamp, UserId};
use serde::{Deserialize, Serialize};

/// Sign in with a password.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    /// The e-mail address.
    pub email: String,
    /// The password.
    pub password: Secret,
    /// The name of the organization; without it, where this address has been a member longest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
}

/// Give oneself another password.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangePassword {
    /// The password until now.
    pub current_password: Secret,
    /// The password from now on.
    pub new_password: Secret,
    /// The e-mail address from now on; it stays as it is when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Whether the API keys that one made end too, and those made with them (`GET /api/v1/keys?made_by=me`).
    #[serde(default)]
    pub revoke_keys: bool,
}

/// Give the password again, for what a session may do only shortly after.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reauthenticate {
    /// The password.
    pub password: Secret,
}

/// Who is signed in, or which key is used.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Session {
    /// Which account this is: the person in this organization, or the key. A request that carries it as
    /// `X-Toolyard-Account` is refused with `account_changed` when it comes from another one, as after somebody else signed
    /// in in the same browser.
    #[serde(default)]
    pub account: String,
    /// `user` or `api_key`.
    pub kind: String,
    /// E-mail address, or the key's name.
    pub display: String,
    /// The organization.
    pub organization: Name,
    /// The role there.
    pub role: Role,
    /// What may be done, so that an interface can show only that.
    pub actions: Vec<Action>,
    /// When the session ends.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
    /// When the password was given last. What makes new power (API keys, members) needs that at most five minutes ago.
    #[serde(default)]
    pub authenticated_at: Option<Timestamp>,
    /// Whether the password is still the one that Toolyard made up at its first start: ask for another.
    #[serde(default)]
    pub first_run: bool,
}

/// A key of a session, for MCP calls of the web console's playground. It has the member's own role, is good for MCP
/// alone and for at most 15 minutes, and ends with the session.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SessionMcpKey {
    /// The key, to be sent as `Authorization: Bearer <key>` to MCP URLs of this Toolyard.
    pub key: String,
    /// When it ends; get another one before.
    pub expires_at: Timestamp,
}

/// A member.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Member {
    /// The person.
    pub id: UserId,
    /// The e-mail address.
    pub email: String,
    /// The role in this organization.
    pub role: Role,
    /// Since when.
    pub created_at: Timestamp,
    /// When they last signed in.
    #[serde(default)]
    pub last_sign_in_at: Option<Timestamp>,
}

/// Add a member with a first password.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateMember {
    /// The e-mail address.
    pub email: String,
    /// The role.
    pub role: Role,
    /// The first password, 12 to 128 characters.
    pub password: Secret,
}

/// Change a member.
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateMember {
    /// Another role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Another password; ends the member's sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// Whether the API keys that the member made end too, and those made with them
    /// (`GET /api/v1/keys?made_by=user:<id>`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub revoke_keys: bool,
}

/// An API key, without the key itself.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ApiKey {
    /// Its id.
    pub id: ApiKeyId,
    /// Its name.
    pub name: Name,
    /// The first characters, to recognise it.
    pub prefix: String,
    /// Its role.
    pub role: Role,
    /// What it is narrowed to.
    #[serde(default)]
    pub scope: Option<KeyScope>,
    /// Who made it.
    pub created_by: String,
    /// The key that it was made with; it ends with that one.
    #[serde(default)]
    pub parent: Option<ApiKeyId>,
    /// When.
    pub created_at: Timestamp,
    /// When it ends; never when absent.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
    /// When it was last given another secret.
    #[serde(default)]
    pub rotated_at: Option<Timestamp>,
    /// Until when the secret before that still calls tools and reads.
    #[serde(default)]
    pub previous_ends_at: Option<Timestamp>,
    /// When it was last used, to within half a minute.
    #[serde(default)]
    pub last_used_at: Option<Timestamp>,
    /// When it was revoked.
    #[serde(default)]
    pub revoked_at: Option<Timestamp>,
}

/// Make an API key.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateApiKey {
    /// Its name.
    pub name: Name,
    /// Its role, at most the maker's own.
    pub role: Role,
    /// What it is narrowed to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<KeyScope>,
    /// Days until it ends, 1 to 3650; 90 when absent. A key made with a key ends no later than that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 3650)]
    pub expires_in_days: Option<u32>,
}

/// Give an API key another secret. It keeps its id, its name and what it may do, and the keys made with it.
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateApiKey {
    /// Seconds for which the secret until now still calls tools and reads, at most 604800 (7 days); it ends at once when
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 604_800)]
    pub overlap_seconds: Option<u32>,
    /// Days until the key ends, from now; when absent its end stays. A key made with a key ends no later than that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 3650)]
    pub expires_in_days: Option<u32>,
}

/// Which API keys.
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct KeysQuery {
    /// How many keys at most, 1 to 500; 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Only keys that were made by `me`, `user:<id>` or `api_key:<id>`, and those made with these keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_by: Option<String>,
    /// Whether to leave out keys that were revoked or have ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<bool>,
}

/// A new key: the only time the key is shown.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CreatedApiKey {
    /// About it.
    #[serde(flatten)]
    pub api_key: ApiKey,
    /// The key: `ty_` and 64 hex digits (256 random bits).
    pub key: String,
}

/// A credential, without its secret.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Credential {
    /// Its id.
    pub id: CredentialId,
    /// Its name.
    pub name: Name,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// Rises with each new secret.
    pub version: u32,
    /// The servers whose current revision refers to it.
    pub used_by: Vec<Name>,
    /// The servers of which something still runs with an older secret; a restart of the server brings the current one. Absent
    /// where the control plane is of an earlier version, which does not tell: then it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outdated_in: Option<Vec<Name>>,
    /// The servers of which something runs whose agent, of an earlier version, does not tell with which secret it was started; a
    /// restart of the server brings the current one. Absent like `outdated_in`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown_in: Option<Vec<Name>>,
    /// Whether no server gets its secret, because it was sealed with another master key than the one that is here: it must be set
    /// again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unreadable: bool,
    /// When it was created.
    pub created_at: Timestamp,
    /// When its secret was last set.
    pub updated_at: Timestamp,
}

/// Create a credential, or give one a new secret.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutCredential {
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The secret, at most 64 KiB.
    pub secret: Secret,
}

/// A line of the audit log.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AuditRecord {
    /// Its id.
    pub id: AuditId,
    /// When.
    pub at: Timestamp,
    /// Who, as `kind:id`.
    pub actor: String,
    /// Who, for people.
    pub actor_display: String,
    /// What was done, such as `server.create`.
    pub action: String,
    /// To what, such as `server/everything`.
    pub target: String,
    /// `done` or `refused`.
    pub outcome: String,
    /// More, without secrets.
    pub detail: serde_json::Value,
    /// The request id.
    #[serde(default)]
    pub request_id: Option<String>,
}

/// Why something is allowed or refused.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Why {
    /// Who was asked about.
    pub principal: String,
    /// What they would do.
    pub action: Action,
    /// To what.
    pub resource: String,
    /// The decision.
    pub allowed: bool,
    /// The policies that decided, by name, and what they say.
    pub because: Vec<String>,
}

/// An organization.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Organization {
    /// Its id.
    pub id: OrganizationId,
    /// Its name.
    pub name: Name,
    /// When it was created.
    pub created_at: Timestamp,
}
