//! The registry's `server.json` (schema 2025-12-11), read leniently so that older documents pass.
//!
//! Unknown fields are kept (`extra`), so that serving an entry again loses nothing. Every text in here is
//! hostile.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

type Extra = serde_json::Map<String, serde_json::Value>;

/// A `server.json` document.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerJson {
    /// The schema it claims to follow.
    #[serde(rename = "$schema", default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// `namespace/name`.
    pub name: String,
    /// What it does.
    #[serde(default)]
    pub description: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Its version; not a range.
    #[serde(default)]
    pub version: String,
    /// Where people read about it.
    #[serde(default, alias = "website_url", skip_serializing_if = "Option::is_none")]
    pub website_url: Option<String>,
    /// Its source code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<Repository>,
    /// Its icons.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub icons: Vec<Icon>,
    /// Packages to install.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<Package>,
    /// Servers that run elsewhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remotes: Vec<Transport>,
    /// Extension metadata by reverse-DNS key.
    #[serde(rename = "_meta", default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub meta: Option<Extra>,
    /// Fields we do not know, kept as they are.
    #[serde(flatten)]
    #[schema(ignore)]
    pub extra: Extra,
}

/// Where the source code is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Repository {
    /// The address.
    #[serde(default)]
    pub url: String,
    /// The hosting service.
    #[serde(default)]
    pub source: String,
    /// The folder in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subfolder: Option<String>,
    /// Fields we do not know.
    #[serde(flatten)]
    #[schema(ignore)]
    pub extra: Extra,
}

/// An icon.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Icon {
    /// An https address.
    #[serde(default)]
    pub src: String,
    /// Its media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mime_type: Option<String>,
    /// Fields we do not know.
    #[serde(flatten)]
    #[schema(ignore)]
    pub extra: Extra,
}

/// A package to install.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Package {
    /// `npm`, `pypi`, `oci`, `nuget`, `mcpb`, `cargo`.
    #[serde(default, alias = "registry_type")]
    pub registry_type: String,
    /// A registry other than the client's default.
    #[serde(default, alias = "registry_base_url", skip_serializing_if = "Option::is_none")]
    pub registry_base_url: Option<String>,
    /// The package's name, or an image with its tag, or a download address.
    #[serde(default, alias = "name")]
    pub identifier: String,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// SHA-256 of the file, in hex.
    #[serde(default, alias = "file_sha256", skip_serializing_if = "Option::is_none")]
    pub file_sha256: Option<String>,
    /// `npx`, `uvx`, `docker`, `dnx`.
    #[serde(default, alias = "runtime_hint", skip_serializing_if = "Option::is_none")]
    pub runtime_hint: Option<String>,
    /// How to speak to it.
    #[serde(default)]
    pub transport: Transport,
    /// Arguments to what runs the package (`npx`, `docker`).
    #[serde(default, alias = "runtime_arguments", skip_serializing_if = "Vec::is_empty")]
    pub runtime_arguments: Vec<Argument>,
    /// Arguments to the program.
    #[serde(default, alias = "package_arguments", skip_serializing_if = "Vec::is_empty")]
    pub package_arguments: Vec<Argument>,
    /// Its environment.
    #[serde(default, alias = "environment_variables", skip_serializing_if = "Vec::is_empty")]
    pub environment_variables: Vec<KeyValueInput>,
    /// Fields we do not know.
    #[serde(flatten)]
    #[schema(ignore)]
    pub extra: Extra,
}

/// How to speak to a server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Transport {
    /// `stdio`, `streamable-http` or `sse`.
    #[serde(rename = "type", alias = "transport_type", default)]
    pub kind: String,
    /// The address, which may hold `{variables}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Headers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<KeyValueInput>,
    /// What the address's variables are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, Input>,
    /// Fields we do not know.
    #[serde(flatten)]
    #[schema(ignore)]
    pub extra: Extra,
}

/// Something a person can give.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// It must be given.
    #[serde(default, alias = "is_required")]
    pub is_required: bool,
    /// `string`, `number`, `boolean` or `filepath`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// A fixed value; `{variables}` in it are replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// It is a secret.
    #[serde(default, alias = "is_secret")]
    pub is_secret: bool,
    /// What it is when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// An example for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placeholder: Option<String>,
    /// The only values allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choices: Option<Vec<String>>,
    /// Variables in `value`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    // Without this, utoipa walks from an input to its variables, which are inputs, without end.
    #[schema(no_recursion)]
    pub variables: BTreeMap<String, Input>,
    /// Fields we do not know.
    #[serde(flatten)]
    #[schema(ignore)]
    pub extra: Extra,
}

/// An environment variable or header.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct KeyValueInput {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its value.
    #[serde(flatten)]
    pub input: Input,
}

/// A command-line argument.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Argument {
    /// `positional` or `named`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// `named`: the flag with its dashes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `positional`: what it is, for people and for variables.
    #[serde(default, alias = "value_hint", skip_serializing_if = "Option::is_none")]
    pub value_hint: Option<String>,
    /// It may be given several times.
    #[serde(default, alias = "is_repeated")]
    pub is_repeated: bool,
    /// Its value.
    #[serde(flatten)]
    pub input: Input,
}
