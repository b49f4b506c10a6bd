//! How MCP clients are connected to a server or a toolset.

use crate::Name;
use serde::{Deserialize, Serialize};

/// How to connect clients to one server or toolset.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Connect {
    /// The server or toolset.
    pub name: Name,
    /// `server` or `toolset`.
    pub kind: String,
    /// Its MCP URL.
    pub url: String,
    /// What the client's configuration calls it.
    pub server_name: String,
    /// What stands for the API key in every snippet, command and link: put the key there.
    pub key_placeholder: String,
    /// One for each client, the most used first.
    pub clients: Vec<ConnectClient>,
}

/// How one client is connected.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ConnectClient {
    /// The client, as `toolyard connect --client` takes it where it writes the file.
    pub id: String,
    /// Its name.
    pub title: String,
    /// Where the snippet belongs; empty when it belongs into no file.
    pub files: Vec<ConnectFile>,
    /// The snippet's format: `json`, `toml` or `shell`.
    pub format: String,
    /// What to put there; merge it with what is in the file.
    pub snippet: String,
    /// One command that does the same, when the client has one.
    #[serde(default)]
    pub command: Option<String>,
    /// A link that opens the client and adds it, when the client has one.
    #[serde(default)]
    pub link: Option<ConnectLink>,
}

/// Where a client keeps its configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ConnectFile {
    /// `macos`, `windows`, `linux` or `all`.
    pub system: String,
    /// The path, as text for a person.
    pub path: String,
}

/// A link that opens a client. With a key in place of the placeholder it is `prefix` and the encoded `payload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ConnectLink {
    /// The whole link, with the placeholder in it.
    pub href: String,
    /// What comes before the payload.
    pub prefix: String,
    /// The configuration as JSON, with the placeholder in it.
    pub payload: String,
    /// How the payload is encoded: `base64` (and then as a part of a URL), or `percent`.
    pub encoding: String,
}
