//! Identifiers: one type per noun, so that a server id is never taken for a revision id.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

macro_rules! id {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
        #[serde(transparent)]
        #[schema(value_type = String, format = Uuid)]
        pub struct $name(Uuid);

        impl $name {
            /// Makes a new identifier (UUID version 7: time-ordered, RFC 9562 section 5.7).
            #[must_use]
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }

            /// The identifier as a number.
            #[must_use]
            pub fn as_u128(self) -> u128 {
                self.0.as_u128()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    )*};
}

id! {
    /// A tenant.
    OrganizationId,
    /// A person who signs in.
    UserId,
    /// A key for machines.
    ApiKeyId,
    /// A browser session.
    SessionId,
    /// What a browser reported about the console.
    ReportId,
    /// A secret in the vault.
    CredentialId,
    /// A place where catalog entries come from.
    SourceId,
    /// One catalog entry (all versions of one name).
    EntryId,
    /// Something deployed, or a remote MCP server registered.
    ServerId,
    /// An immutable, resolved spec of a server.
    RevisionId,
    /// The change from one revision to the next.
    RolloutId,
    /// One running copy of a revision.
    InstanceId,
    /// A place where servers run.
    ToolboxId,
    /// A chosen set of tools served at one URL.
    ToolsetId,
    /// A resolve job on a toolbox.
    JobId,
    /// One line of the audit log.
    AuditId,
    /// One run of the control plane with its gateway, beside others on the same store.
    ReplicaId,
    /// A database with the data directories that belong to it.
    InstallationId,
}
