//! The registry's `server.json` (schema 2025-12-11), read leniently so that older documents pass.
//!
//! Unknown fields are kept (`extra`), so that serving an entry again loses nothing. Every text in here is
//! hostile.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

type Extra = serde_json::Map<String, serde_json::Value>;

/// The words by which one chooses what of an entry runs; other kinds of packages do not run here.
pub const KINDS: [&str; 4] = ["npm", "pypi", "oci", "remote"];

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

impl ServerJson {
    /// What runs: of the kind that is asked for, else the first npm or PyPI package, else an image, else a remote
    /// server, else a package or an image that speaks HTTP, which takes a toolbox with containers.
    #[must_use]
    pub fn choice(&self, kind: Option<&str>) -> Option<Choice<'_>> {
        let wanted = |one: &str| kind.is_none_or(|kind| kind == one);
        let first = |transports: &[&str]| {
            let of = |kinds: &[&str]| {
                let over = |it: &&Package| transports.contains(&it.transport.kind.as_str());
                let is_one = |it: &&Package| kinds.contains(&it.registry_type.as_str()) && wanted(&it.registry_type);
                self.packages.iter().filter(over).find(is_one)
            };
            of(&["npm", "pypi"]).or_else(|| of(&["oci"])).map(Choice::Package)
        };
        let remote = || {
            let best = self.remotes.iter().find(|remote| remote.kind == "streamable-http");
            best.or(self.remotes.first()).filter(|_| wanted("remote")).map(Choice::Remote)
        };
        first(&["", "stdio"]).or_else(remote).or_else(|| first(&["streamable-http"]))
    }
}

/// One of the packages and remote servers of an entry.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Choice<'a> {
    /// A package.
    Package(&'a Package),
    /// A remote server.
    Remote(&'a Transport),
}

impl<'a> Choice<'a> {
    /// What a person can give, by name.
    #[must_use]
    pub fn inputs(self) -> BTreeMap<&'a str, &'a Input> {
        match self {
            Self::Package(package) => package.inputs(),
            Self::Remote(remote) => remote.inputs(),
        }
    }
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

impl Package {
    /// What a person can give, by name; of several with one name the first. What has a fixed value is no input, its
    /// variables are.
    #[must_use]
    pub fn inputs(&self) -> BTreeMap<&str, &Input> {
        let mut inputs = BTreeMap::new();
        for variable in &self.environment_variables {
            variable.input.declare(&variable.name, &mut inputs);
        }
        for argument in self.runtime_arguments.iter().chain(&self.package_arguments) {
            argument.input.declare(argument.key(), &mut inputs);
        }
        self.transport.declare(&mut inputs);
        inputs
    }
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

impl Transport {
    /// What a person can give, by name; by the rules of [`Package::inputs`].
    #[must_use]
    pub fn inputs(&self) -> BTreeMap<&str, &Input> {
        let mut inputs = BTreeMap::new();
        self.declare(&mut inputs);
        inputs
    }

    fn declare<'a>(&'a self, inputs: &mut BTreeMap<&'a str, &'a Input>) {
        for header in &self.headers {
            header.input.declare(&header.name, inputs);
        }
        for (name, input) in &self.variables {
            input.declare(name, inputs);
        }
    }
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

impl Input {
    fn declare<'a>(&'a self, name: &'a str, inputs: &mut BTreeMap<&'a str, &'a Input>) {
        if self.value.is_none() && !name.is_empty() {
            inputs.entry(name).or_insert(self);
        }
        for (name, variable) in &self.variables {
            variable.declare(name, inputs);
        }
    }
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

impl Argument {
    /// The name by which it is given: the flag without its `=`, or what it is.
    #[must_use]
    pub fn key(&self) -> &str {
        let name = if self.kind == "named" { self.name.as_deref() } else { None };
        name.or(self.value_hint.as_deref()).map(|name| name.trim_end_matches('=')).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(value: serde_json::Value) -> ServerJson {
        serde_json::from_value(value).expect("a document")
    }

    fn names(choice: Option<Choice<'_>>) -> Vec<&str> {
        choice.expect("something to run").inputs().into_keys().collect()
    }

    #[test]
    fn inputs_are_what_has_no_fixed_value_and_the_variables_of_what_has_one() {
        let document = document(serde_json::json!({"name": "a/b", "packages": [{
            "registryType": "npm", "identifier": "p",
            "environmentVariables": [
                {"name": "FIXED", "value": "1"},
                {"name": "AUTH", "value": "Bearer {token}", "variables": {"token": {"isSecret": true}}},
                {"name": "LEVEL"},
            ],
            "runtimeArguments": [{"type": "named", "name": "--from", "value": "p"}],
            "packageArguments": [
                {"type": "named", "name": "--root="},
                {"type": "positional", "name": "unused", "valueHint": "target"},
                {"type": "positional", "name": "unnamed"},
                {"type": "positional", "valueHint": "LEVEL", "isRequired": true},
            ],
            "transport": {"type": "stdio", "headers": [{"name": "X-Region"}], "variables": {"port": {}}},
        }], "remotes": [{"type": "sse", "url": "https://old.example.test"}, {
            "type": "streamable-http", "url": "https://{tenant}.example.test/mcp", "variables": {"tenant": {}},
            "headers": [
                {"name": "Authorization", "value": "Bearer {key}", "variables": {"key": {}}}, {"name": "X-Mode"}],
        }]}));
        let package = document.choice(None);
        assert_eq!(names(package), ["--root", "LEVEL", "X-Region", "port", "target", "token"]);
        assert!(!package.expect("a package").inputs()["LEVEL"].is_required, "the first of one name");
        assert_eq!(package, document.choice(Some("npm")));
        assert_eq!(names(document.choice(Some("remote"))), ["X-Mode", "key", "tenant"]);
        assert_eq!(document.choice(Some("oci")), None);
    }
}
