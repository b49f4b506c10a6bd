//! Checking a `server.json` document: what is wrong, what is likely wrong, what would make it better.
//!
//! The rules are those of the registry's schema 2025-12-11, read leniently: older spellings, nulls and bare
//! numbers are taken as what they mean. A document that can be stored at all is returned, with hidden
//! characters written out (`\u{202e}`), even when it has errors: a publication with errors is refused, while
//! a synced one is kept as long as its name and version can be trusted. Hidden characters in anything that
//! is run, dialled or looked up are errors; in text for people they are warnings.

use semver::Version;
use serde_json::Value;
use toolyard_types::EntryName;
use toolyard_types::FieldError;
use toolyard_types::api::catalog::Validation;
use toolyard_types::name::{is_hidden, printable};
use toolyard_types::requirement;
use toolyard_types::server_json::{Argument, Input, KeyValueInput, Package, ServerJson, Transport};

use crate::app::expand::{IS_FRAMING, NO_HEADER_VALUE, is_framing, is_header_value, is_loader_variable};

/// The largest document taken, in bytes of JSON.
pub(crate) const MAX_DOCUMENT_BYTES: usize = 256 * 1024;
/// How many findings of one kind are reported.
const MAX_FINDINGS: usize = 50;
/// How many packages, remotes, arguments or inputs one list may have.
const MAX_LIST: usize = 100;
const REGISTRY_TYPES: &[&str] = &["npm", "pypi", "oci", "nuget", "mcpb", "cargo"];
const NEWEST_SCHEMA: &str = "2025-12-11";
/// How the publicly documented tokens of large services begin.
const TOKEN_PREFIXES: &[&str] = &[
    "sk-",
    "sk_live_",
    "sk_test_",
    "ghp_",
    "gho_",
    "ghs_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "xoxp-",
    "xapp-",
    "AKIA",
    "AIza",
    "eyJhbGci",
    "ntn_",
    "sbp_",
    "hf_",
    "npm_",
    "pypi-",
    "SG.",
    "-----BEGIN",
];

/// Checks a document. The document is `None` when it cannot be stored at all.
#[must_use]
pub(crate) fn validate(value: &Value) -> (Option<ServerJson>, Validation) {
    let mut check = Check::default();
    let Some(server) = check.read(value) else { return (None, check.found) };
    let storable = check.identity(&server);
    check.about(&server);
    for (at, package) in server.packages.iter().enumerate() {
        check.package(&format!("packages[{at}]"), package);
    }
    for (at, remote) in server.remotes.iter().enumerate() {
        check.remote(&format!("remotes[{at}]"), remote);
    }
    (storable.then_some(server), check.found)
}

#[derive(Default)]
struct Check {
    found: Validation,
}

fn add(list: &mut Vec<FieldError>, field: &str, message: impl Into<String>) {
    if list.len() < MAX_FINDINGS {
        list.push(FieldError { field: printable(field), message: message.into() });
    }
}

impl Check {
    fn error(&mut self, field: &str, message: impl Into<String>) {
        add(&mut self.found.errors, field, message);
    }

    fn warn(&mut self, field: &str, message: impl Into<String>) {
        add(&mut self.found.warnings, field, message);
    }

    fn advise(&mut self, field: &str, message: impl Into<String>) {
        add(&mut self.found.advice, field, message);
    }

    /// Reads the document, as it is or else with its old spellings and loose types put right.
    fn read(&mut self, value: &Value) -> Option<ServerJson> {
        if !value.is_object() {
            self.error("", "the document must be a JSON object");
            return None;
        }
        let size = value.to_string().len();
        if size > MAX_DOCUMENT_BYTES {
            self.error("", format!("the document has {size} bytes; at most {MAX_DOCUMENT_BYTES} are allowed"));
            return None;
        }
        let mut value = value.clone();
        self.escape("", &mut value);
        let read = serde_json::from_value::<ServerJson>(value.clone()).or_else(|_| {
            soften(&mut value);
            serde_json::from_value(value)
        });
        match read {
            Ok(mut server) => {
                modernise(&mut server);
                Some(server)
            }
            Err(error) => {
                self.error(
                    "",
                    format!("the document does not have the form of a server.json: {}", printable(&error.to_string())),
                );
                None
            }
        }
    }

    /// Writes hidden characters out, except line breaks and tabs, and reports where they were.
    fn escape(&mut self, at: &str, value: &mut Value) {
        match value {
            Value::String(text) if text.chars().any(hostile) => {
                *text = escaped(text);
                let last = at.rsplit('.').next().unwrap_or(at);
                if matches!(
                    last,
                    "name" | "version" | "identifier" | "url" | "value" | "default" | "registryType" | "src"
                ) {
                    self.error(at, "hidden or control characters are not allowed here");
                } else {
                    self.warn(at, "hidden or control characters are shown escaped");
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.escape(&format!("{at}[{index}]"), item);
                }
            }
            Value::Object(fields) => {
                if fields.keys().any(|key| key.chars().any(hostile)) {
                    self.error(at, "hidden or control characters are not allowed in field names");
                    *fields = std::mem::take(fields).into_iter().map(|(key, item)| (escaped(&key), item)).collect();
                }
                for (key, item) in fields.iter_mut() {
                    let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                    self.escape(&path, item);
                }
            }
            _ => {}
        }
    }

    /// Name and version: without a good pair of these nothing can be stored.
    fn identity(&mut self, server: &ServerJson) -> bool {
        let name = EntryName::new(server.name.clone());
        if let Err(error) = &name {
            self.error("name", error.to_string());
        }
        let version = version_problem(&server.version);
        if let Some(problem) = &version {
            self.error("version", problem.clone());
        } else if Version::parse(server.version.trim_start_matches('v')).is_err() {
            self.advise("version", "a semantic version such as `1.2.3` sorts correctly");
        }
        name.is_ok() && version.is_none()
    }

    fn about(&mut self, server: &ServerJson) {
        let newest = server.schema.as_deref().is_none_or(|schema| schema.contains(NEWEST_SCHEMA));
        if !newest {
            self.advise("$schema", format!("this follows an older schema; the newest is {NEWEST_SCHEMA}"));
        }
        match server.description.chars().count() {
            0 => self.error("description", "a description of 1 to 100 characters is needed"),
            1..=100 => {}
            _ if newest => self.error("description", "the description has more than 100 characters"),
            _ => self.warn("description", "the description has more than 100 characters"),
        }
        if server.title.as_deref().is_some_and(|title| title.chars().count() > 100) {
            self.warn("title", "the title has more than 100 characters");
        }
        if let Some(url) = &server.website_url {
            self.https("websiteUrl", url);
        }
        match &server.repository {
            Some(repository) => self.https("repository.url", &repository.url),
            None => self.advise("repository", "say where the source code is, so that people can look"),
        }
        for (at, icon) in server.icons.iter().enumerate().take(MAX_LIST) {
            self.https(&format!("icons[{at}].src"), &icon.src);
        }
        if server.packages.is_empty() && server.remotes.is_empty() {
            self.error("packages", "a package or a remote is needed, or nothing can be deployed");
        }
        if server.packages.len() > MAX_LIST || server.remotes.len() > MAX_LIST {
            self.error("packages", format!("more than {MAX_LIST} packages or remotes"));
        }
    }

    fn https(&mut self, field: &str, url: &str) {
        if !url.starts_with("https://") || url.len() > 2048 {
            self.warn(field, "is not an https:// address");
        }
    }

    fn package(&mut self, at: &str, package: &Package) {
        if !REGISTRY_TYPES.contains(&package.registry_type.as_str()) {
            let kind = printable(&package.registry_type);
            self.warn(&format!("{at}.registryType"), format!("`{kind}` is unknown here and cannot be deployed"));
        }
        self.identifier(at, package);
        self.package_version(at, package);
        if let Some(base) = &package.registry_base_url {
            if !base.starts_with("https://") {
                self.error(&format!("{at}.registryBaseUrl"), "the registry must be an https:// address");
            }
            self.advise(&format!("{at}.registryBaseUrl"), "leave it out: the toolbox's own registry settings apply");
        }
        if let Some(hint) = &package.runtime_hint
            && !["npx", "uvx", "docker", "dnx"].contains(&hint.as_str())
        {
            self.warn(&format!("{at}.runtimeHint"), format!("`{}` is unknown here", printable(hint)));
        }
        self.package_transport(at, package);
        self.arguments(&format!("{at}.runtimeArguments"), &package.runtime_arguments);
        self.runner(&format!("{at}.runtimeArguments"), package);
        self.arguments(&format!("{at}.packageArguments"), &package.package_arguments);
        self.environment(&format!("{at}.environmentVariables"), &package.environment_variables);
    }

    fn identifier(&mut self, at: &str, package: &Package) {
        let field = format!("{at}.identifier");
        let id = package.identifier.as_str();
        let wrong = match package.registry_type.as_str() {
            _ if id.is_empty() => Some("the package's name is needed"),
            _ if id.len() > 2048 => Some("the identifier has more than 2048 characters"),
            "npm" if !is_npm_name(id) => Some("this is not an npm package name"),
            "pypi" if !is_pypi_name(id) => Some("this is not a PyPI project name"),
            "oci" if !is_image(id) => Some("this is not an image reference"),
            "mcpb" if !id.starts_with("https://") => Some("a bundle needs an https:// download address"),
            _ => None,
        };
        if let Some(message) = wrong {
            self.error(&field, message);
        }
        match (package.registry_type.as_str(), &package.file_sha256) {
            ("mcpb", None) => self.error(&format!("{at}.fileSha256"), "a bundle needs the SHA-256 of its file"),
            (_, Some(digest))
                if digest.len() != 64 || !digest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) =>
            {
                self.error(&format!("{at}.fileSha256"), "a SHA-256 is 64 lower-case hex digits");
            }
            _ => {}
        }
    }

    fn package_version(&mut self, at: &str, package: &Package) {
        let field = format!("{at}.version");
        match (package.registry_type.as_str(), package.version.as_deref()) {
            ("oci", None) => {
                let id = &package.identifier;
                let tagged = id.contains('@') || id.rsplit('/').next().is_some_and(|last| last.contains(':'));
                if !tagged || id.ends_with(":latest") {
                    self.warn(&format!("{at}.identifier"), "pin a tag or a digest: `latest` changes by itself");
                }
            }
            ("oci", Some(_)) => {
                self.warn(&field, "for an image the version belongs into the identifier, as tag or digest")
            }
            ("npm" | "pypi" | "nuget" | "cargo", None) => {
                self.warn(&field, "pin a version: the newest changes by itself")
            }
            (_, Some(version)) => {
                if let Some(problem) = version_problem(version) {
                    self.error(&field, problem);
                }
            }
            _ => {}
        }
    }

    fn package_transport(&mut self, at: &str, package: &Package) {
        match package.transport.kind.as_str() {
            "stdio" => {}
            "streamable-http" | "sse" => {
                if package.transport.url.as_deref().unwrap_or_default().is_empty() {
                    self.error(&format!("{at}.transport.url"), "an HTTP transport needs an address");
                }
                self.headers(&format!("{at}.transport.headers"), &package.transport.headers);
            }
            other => {
                let message = format!("`{}` is none of stdio, streamable-http and sse", printable(other));
                self.error(&format!("{at}.transport.type"), message);
            }
        }
    }

    fn arguments(&mut self, at: &str, arguments: &[Argument]) {
        if arguments.len() > MAX_LIST {
            self.error(at, format!("more than {MAX_LIST} arguments"));
        }
        for (index, argument) in arguments.iter().enumerate().take(MAX_LIST) {
            let field = format!("{at}[{index}]");
            match argument.kind.as_str() {
                "positional" if argument.value_hint.is_none() && argument.input.value.is_none() => {
                    self.error(&field, "a positional argument needs `value` or `valueHint`");
                }
                "named" if argument.name.as_deref().unwrap_or_default().is_empty() => {
                    self.error(&field, "a named argument needs its name, dashes included");
                }
                "positional" | "named" => {}
                _ => self.error(&format!("{field}.type"), "an argument is `positional` or `named`"),
            }
            self.input(&field, &argument.input);
        }
    }

    /// What the program that runs the package is told, as far as the entry says it itself.
    fn runner(&mut self, at: &str, package: &Package) {
        let words = words(&package.runtime_arguments);
        let after = |flags: &[&str]| {
            let next = words.windows(2).filter(|pair| flags.contains(&pair[0].1.as_str())).map(|pair| pair[1].clone());
            let long = flags.iter().find(|flag| flag.starts_with("--")).map(|flag| format!("{flag}="));
            let joined = words.iter().filter_map(|(index, word)| {
                let value = long.as_ref().and_then(|long| word.strip_prefix(long.as_str()))?;
                Some((*index, value.to_owned()))
            });
            next.chain(joined).collect::<Vec<_>>()
        };
        match package.registry_type.as_str() {
            "oci" => {
                for (_, pair) in after(&["-e", "--env"]) {
                    self.loader(at, pair.split('=').next().unwrap_or_default());
                }
            }
            "pypi" => {
                // What a person gives is seen when it is given.
                for (index, wanted) in after(&["-w", "--with"]).into_iter().filter(|(_, wanted)| !wanted.contains('{'))
                {
                    if let Err(part) = requirement::list(&wanted) {
                        let message = format!(
                            "`{}` is not a plain requirement of a package index, such as `mcp<2`",
                            printable(&part)
                        );
                        self.error(&format!("{at}[{index}]"), message);
                    }
                }
            }
            _ => {}
        }
    }

    fn loader(&mut self, at: &str, variable: &str) {
        if is_loader_variable(&variable.to_ascii_uppercase()) {
            let name = printable(variable);
            self.warn(at, format!("`{name}` makes programs load other code, or trust whom they should not"));
        }
    }

    fn environment(&mut self, at: &str, variables: &[KeyValueInput]) {
        self.key_values(at, variables, is_variable_name);
        for variable in variables.iter().take(MAX_LIST) {
            let name = variable.name.to_ascii_uppercase();
            self.loader(at, &variable.name);
            let sounds_secret =
                ["TOKEN", "SECRET", "PASSWORD", "API_KEY", "PRIVATE_KEY"].iter().any(|word| name.contains(word));
            if sounds_secret && !variable.input.is_secret {
                self.advise(at, format!("`{}` sounds like a secret; mark it `isSecret`", printable(&variable.name)));
            }
        }
    }

    /// Headers, of which some are refused wherever an entry is deployed.
    fn headers(&mut self, at: &str, headers: &[KeyValueInput]) {
        self.key_values(at, headers, is_header_name);
        for (index, header) in headers.iter().enumerate().take(MAX_LIST) {
            let field = format!("{at}[{index}]");
            if is_framing(&header.name) {
                self.error(&format!("{field}.name"), format!("`{}` {IS_FRAMING}", printable(&header.name)));
            }
            for (part, text) in [("value", &header.input.value), ("default", &header.input.default)] {
                if text.as_deref().is_some_and(|text| !is_header_value(text)) {
                    self.error(&format!("{field}.{part}"), NO_HEADER_VALUE);
                }
            }
        }
    }

    fn key_values(&mut self, at: &str, items: &[KeyValueInput], well_named: fn(&str) -> bool) {
        if items.len() > MAX_LIST {
            self.error(at, format!("more than {MAX_LIST} items"));
        }
        let mut seen = std::collections::BTreeSet::new();
        for (index, item) in items.iter().enumerate().take(MAX_LIST) {
            let field = format!("{at}[{index}]");
            if !well_named(&item.name) {
                self.error(&format!("{field}.name"), format!("`{}` is not a usable name", printable(&item.name)));
            }
            if !seen.insert(item.name.as_str()) {
                self.error(&format!("{field}.name"), format!("`{}` is there twice", printable(&item.name)));
            }
            if item.name.eq_ignore_ascii_case("authorization")
                && item.input.value.as_deref().is_some_and(|value| !value.contains('{'))
            {
                self.warn(&format!("{field}.value"), "a fixed Authorization header looks like an embedded secret");
            }
            self.input(&field, &item.input);
        }
    }

    fn input(&mut self, at: &str, input: &Input) {
        if let Some(format) = &input.format
            && !["string", "number", "boolean", "filepath"].contains(&format.as_str())
        {
            self.warn(&format!("{at}.format"), format!("`{}` is read as a string", printable(format)));
        }
        if let (Some(choices), Some(default)) = (&input.choices, &input.default)
            && !choices.contains(default)
        {
            self.warn(&format!("{at}.default"), "the default is none of the choices");
        }
        if input.choices.as_ref().is_some_and(Vec::is_empty) {
            self.warn(&format!("{at}.choices"), "an empty list of choices allows nothing");
        }
        for (field, text) in [("value", &input.value), ("default", &input.default)] {
            if text.as_deref().is_some_and(looks_like_token) {
                self.warn(&format!("{at}.{field}"), "this looks like a secret; entries must not contain any");
            }
        }
        for (name, variable) in input.variables.iter().take(MAX_LIST) {
            self.variable(&format!("{at}.variables.{name}"), variable);
        }
    }

    /// A variable of an input: like an input, but its own variables mean nothing.
    fn variable(&mut self, at: &str, variable: &Input) {
        if [&variable.value, &variable.default].into_iter().flatten().any(|text| looks_like_token(text)) {
            self.warn(at, "this looks like a secret; entries must not contain any");
        }
    }

    fn remote(&mut self, at: &str, remote: &Transport) {
        if !matches!(remote.kind.as_str(), "streamable-http" | "sse") {
            let message = format!("`{}` is neither streamable-http nor sse", printable(&remote.kind));
            self.error(&format!("{at}.type"), message);
        }
        let url = remote.url.as_deref().unwrap_or_default();
        let field = format!("{at}.url");
        if url.starts_with('{') {
            self.warn(&field, "the address starts with a variable, so nobody can see where it leads");
        } else if !url.starts_with("https://") {
            self.error(&field, "a remote needs an https:// address");
        } else if url.trim_start_matches("https://").split('/').next().is_some_and(|host| host.contains('@')) {
            self.error(&field, "an address must not hold a user name or a password");
        }
        for name in braces(url).filter(|name| !remote.variables.contains_key(*name)) {
            self.warn(&field, format!("`{{{}}}` is not among the variables", printable(name)));
        }
        self.headers(&format!("{at}.headers"), &remote.headers);
        for (name, variable) in remote.variables.iter().take(MAX_LIST) {
            self.input(&format!("{at}.variables.{name}"), variable);
        }
    }
}

/// The words that arguments become, as far as the document says them, each with the number of its argument.
fn words(arguments: &[Argument]) -> Vec<(usize, String)> {
    let mut words = Vec::new();
    for (index, argument) in arguments.iter().enumerate().take(MAX_LIST) {
        let value = argument.input.value.as_ref().or(argument.input.default.as_ref());
        let name = argument.name.as_ref().filter(|_| argument.kind == "named");
        match (name, value) {
            (Some(name), Some(value)) if name.ends_with('=') => words.push((index, format!("{name}{value}"))),
            (name, value) => words.extend(name.into_iter().chain(value).map(|word| (index, word.clone()))),
        }
    }
    words
}

fn hostile(c: char) -> bool {
    is_hidden(c) && !matches!(c, '\n' | '\r' | '\t')
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if hostile(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out
}

/// Drops nulls and writes numbers and booleans as text where the schema wants text.
fn soften(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(soften),
        Value::Object(fields) => {
            fields.retain(|_, item| !item.is_null());
            for (key, item) in fields.iter_mut() {
                let texts = matches!(key.as_str(), "value" | "default" | "placeholder" | "version" | "choices");
                match item {
                    Value::Number(_) | Value::Bool(_) if texts => *item = Value::String(item.to_string()),
                    Value::Array(choices) if texts => {
                        for choice in choices.iter_mut().filter(|choice| choice.is_number() || choice.is_boolean()) {
                            *choice = Value::String(choice.to_string());
                        }
                    }
                    _ => soften(item),
                }
            }
        }
        _ => {}
    }
}

/// Puts older spellings right: a package without a transport spoke stdio, and `streamable` was a name for
/// Streamable HTTP.
fn modernise(server: &mut ServerJson) {
    for package in &mut server.packages {
        if package.transport.kind.is_empty() {
            package.transport.kind = "stdio".to_owned();
        }
        if package.registry_type == "docker" {
            package.registry_type = "oci".to_owned();
        }
    }
    for transport in server.packages.iter_mut().map(|package| &mut package.transport).chain(&mut server.remotes) {
        if matches!(transport.kind.as_str(), "streamable" | "http" | "streamable_http") {
            transport.kind = "streamable-http".to_owned();
        }
    }
}

fn version_problem(version: &str) -> Option<String> {
    let shown = printable(version);
    if version.is_empty() {
        return Some("a version is needed".to_owned());
    }
    if version.len() > 255 {
        return Some("the version has more than 255 characters".to_owned());
    }
    if version.chars().any(|c| is_hidden(c) || c.is_whitespace()) {
        return Some(format!("version `{shown}` must not have spaces or hidden characters"));
    }
    if version == "latest" {
        return Some("`latest` is not a version".to_owned());
    }
    let wildcard = version.split('.').any(|part| matches!(part, "x" | "X" | "*"));
    if wildcard || version.starts_with(['^', '~', '>', '<', '=']) || version.contains("||") || version.contains(',') {
        return Some(format!("version `{shown}` is a range; name one version"));
    }
    None
}

fn is_npm_name(text: &str) -> bool {
    let part = |text: &str| {
        !text.is_empty()
            && !text.starts_with('.')
            && !text.starts_with('-')
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~'))
    };
    text.len() <= 214
        && match text.strip_prefix('@') {
            Some(scoped) => scoped.split_once('/').is_some_and(|(scope, name)| part(scope) && part(name)),
            None => part(text),
        }
}

fn is_pypi_name(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 214
        && edge(text.chars().next())
        && edge(text.chars().last())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

fn is_image(text: &str) -> bool {
    text.len() <= 512
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && !text.contains("..")
        && !text.contains("//")
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/' | b':' | b'@'))
}

fn is_variable_name(text: &str) -> bool {
    text.len() <= 256
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn is_header_name(text: &str) -> bool {
    text.len() <= 256 && http::HeaderName::from_bytes(text.as_bytes()).is_ok()
}

fn looks_like_token(text: &str) -> bool {
    let text = text.strip_prefix("Bearer ").unwrap_or(text);
    text.len() >= 16 && !text.contains('{') && TOKEN_PREFIXES.iter().any(|prefix| text.starts_with(prefix))
}

/// The names in `{braces}`.
fn braces(text: &str) -> impl Iterator<Item = &str> {
    text.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn good() -> Value {
        json!({
            "$schema": "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json",
            "name": "io.github.example/echo", "description": "Echoes.", "version": "1.2.3",
            "repository": {"url": "https://github.com/example/echo", "source": "github"},
            "packages": [{"registryType": "npm", "identifier": "@example/echo", "version": "1.2.3",
                "transport": {"type": "stdio"},
                "environmentVariables": [{"name": "ECHO_TOKEN", "isSecret": true, "isRequired": true}]}]
        })
    }

    fn changed(pointer: &str, to: Value) -> Validation {
        let mut document = good();
        *document.pointer_mut(pointer).expect("a place in the document") = to;
        validate(&document).1
    }

    fn errors(pointer: &str, to: Value) -> Vec<String> {
        changed(pointer, to).errors.into_iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    }

    #[test]
    fn a_good_document_passes_without_findings() {
        let (server, found) = validate(&good());
        assert_eq!(server.expect("storable").name, "io.github.example/echo");
        assert!(found.errors.is_empty() && found.warnings.is_empty() && found.advice.is_empty(), "{found:?}");
    }

    #[test]
    fn each_mistake_is_named_with_its_field() {
        for (pointer, value, expected) in [
            ("/name", json!("no-slash"), "name: "),
            ("/name", json!(7), ": the document does not have the form"),
            ("/version", json!("^1.2.0"), "version: version `^1.2.0` is a range"),
            ("/version", json!("latest"), "version: `latest`"),
            ("/version", json!(""), "version: a version is needed"),
            ("/description", json!(""), "description: "),
            ("/description", json!("x".repeat(101)), "description: "),
            ("/packages", json!([]), "packages: a package or a remote"),
            ("/packages/0/identifier", json!("../../etc/passwd"), "packages[0].identifier: "),
            ("/packages/0/version", json!(">=1.0"), "packages[0].version: "),
            ("/packages/0/transport", json!({"type": "carrier-pigeon"}), "packages[0].transport.type: "),
            ("/packages/0/environmentVariables/0/name", json!("A=B"), "packages[0].environmentVariables[0].name: "),
        ] {
            let found = errors(pointer, value.clone());
            assert!(found.iter().any(|error| error.starts_with(expected)), "{pointer} {value}: {found:?}");
        }
    }

    #[test]
    fn hidden_characters_are_an_error_where_something_is_run_and_escaped_where_people_read() {
        let evil = "good\u{202e}\u{1b}[31mevil";
        assert!(errors("/packages/0/identifier", json!(evil)).iter().any(|error| error.contains("hidden")));
        assert!(
            validate(&{
                let mut document = good();
                document["name"] = json!(format!("io.github.{evil}/x"));
                document
            })
            .0
            .is_none()
        );
        let mut document = good();
        document["description"] = json!(evil);
        let (server, found) = validate(&document);
        let text = server.expect("storable").description;
        assert!(!text.chars().any(is_hidden) && text.contains("\\u{202e}"), "{text}");
        assert!(found.errors.is_empty() && found.warnings[0].field == "description", "{found:?}");
    }

    #[test]
    fn remotes_are_dialled_over_https_without_credentials_in_the_address() {
        let remote = |url: &str| {
            let mut document = good();
            document["remotes"] = json!([{"type": "streamable-http", "url": url}]);
            validate(&document).1.errors.len()
        };
        assert_eq!(remote("https://mcp.example.com/mcp"), 0);
        assert_eq!(remote("http://mcp.example.com/mcp"), 1);
        assert_eq!(remote("https://user:word@mcp.example.com/mcp"), 1);
        assert_eq!(remote("file:///etc/passwd"), 1);
    }

    #[test]
    fn an_embedded_secret_and_an_unknown_package_type_are_warned_about() {
        let found =
            changed("/packages/0/environmentVariables/0", json!({"name": "A", "value": "ghp_0123456789abcdefghij"}));
        assert!(found.warnings.iter().any(|warning| warning.message.contains("secret")), "{found:?}");
        let found = changed("/packages/0/registryType", json!("floppy"));
        assert!(found.errors.is_empty() && found.warnings.len() == 1, "{found:?}");
    }

    #[test]
    fn what_the_runner_is_told_is_looked_at_as_what_the_package_is_told() {
        let package = |kind: &str, arguments: Value| {
            json!({"registryType": kind, "identifier": "host/echo:1", "transport": {"type": "stdio"},
                "runtimeArguments": arguments})
        };
        let warned = |arguments: Value| {
            let found = changed("/packages/0", package("oci", arguments));
            assert!(found.errors.is_empty(), "{found:?}");
            found.warnings.iter().any(|warning| {
                warning.field == "packages[0].runtimeArguments"
                    && warning.message.contains("`LD_PRELOAD` makes programs")
            })
        };
        let named = |name: &str, value: &str| json!([{"type": "named", "name": name, "value": value}]);
        assert!(warned(named("-e", "LD_PRELOAD=/x")) && warned(named("--env", "LD_PRELOAD={x}")));
        assert!(warned(named("--env=", "LD_PRELOAD=/x")));
        let apart = json!([{"type": "positional", "value": "-e"}, {"type": "positional", "value": "LD_PRELOAD=/x"}]);
        assert!(warned(apart));
        assert!(!warned(named("-e", "LOG=LD_PRELOAD")) && !warned(named("-p", "1:2")));
        let errors = |wanted: &str| {
            let mut package = package("pypi", named("--with", wanted));
            (package["identifier"], package["version"]) = (json!("echo"), json!("1.0"));
            changed("/packages/0", package).errors.len()
        };
        assert_eq!((errors("mcp<2,six"), errors("{extra}")), (0, 0));
        assert_eq!((errors("./x"), errors("git+https://example.test/x")), (1, 1));
    }

    #[test]
    fn a_header_that_no_deployment_may_set_or_send_is_an_error() {
        let found = |headers: Value| {
            let mut document = good();
            document["remotes"] =
                json!([{"type": "streamable-http", "url": "https://mcp.example.com/mcp", "headers": headers}]);
            let transport = json!({"type": "streamable-http", "url": "http://localhost:1/mcp", "headers": headers});
            document["packages"][0]["transport"] = transport;
            let errors = validate(&document).1.errors;
            errors.into_iter().map(|error| error.field).collect::<Vec<_>>()
        };
        for name in ["Host", "hOST", "mcp-session-id", "MCP-PROTOCOL-VERSION", "Last-Event-Id", "Content-Length"] {
            let fields = ["packages[0].transport.headers[1].name", "remotes[0].headers[1].name"];
            assert_eq!(found(json!([{"name": "X-Region"}, {"name": name, "isSecret": true}])), fields, "{name}");
        }
        for part in ["value", "default"] {
            let fields = ["packages[0].transport.headers[0]", "remotes[0].headers[0]"].map(|at| format!("{at}.{part}"));
            assert_eq!(found(json!([{"name": "X-Region", part: "eu\r\nHost: evil.example"}])), fields);
            assert_eq!(found(json!([{"name": "X-Region", part: "eu {zone}"}])), Vec::<String>::new());
        }
    }

    #[test]
    fn documents_of_older_schemas_are_read() {
        let (server, found) = validate(&json!({
            "$schema": "https://static.modelcontextprotocol.io/schemas/2025-07-09/server.schema.json",
            "name": "io.github.example/old", "description": "Old.", "version": "0.1.0", "website_url": null,
            "packages": [{"registry_type": "npm", "identifier": "old", "version": "0.1.0",
                "environment_variables": [{"name": "PORT", "is_required": true, "default": 8080}]}],
            "remotes": [{"transport_type": "streamable", "url": "https://mcp.example.com/mcp"}]
        }));
        let server = server.expect("storable");
        assert!(found.errors.is_empty(), "{found:?}");
        assert_eq!(server.packages[0].transport.kind, "stdio");
        assert_eq!(server.packages[0].environment_variables[0].input.default.as_deref(), Some("8080"));
        assert_eq!(server.remotes[0].kind, "streamable-http");
    }

    #[test]
    fn a_document_beyond_the_limit_is_refused_whole() {
        let (server, found) = validate(&json!({"name": "a/b", "description": "x".repeat(MAX_DOCUMENT_BYTES)}));
        assert!(server.is_none() && found.errors[0].message.contains("bytes"));
    }

    fn arbitrary_json() -> impl Strategy<Value = Value> {
        let key = prop_oneof![
            Just("name".to_owned()),
            Just("version".to_owned()),
            Just("packages".to_owned()),
            Just("remotes".to_owned()),
            Just("description".to_owned()),
            Just("transport".to_owned()),
            Just("type".to_owned()),
            Just("url".to_owned()),
            Just("environmentVariables".to_owned()),
            Just("packageArguments".to_owned()),
            Just("default".to_owned()),
            Just("identifier".to_owned()),
            Just("registryType".to_owned()),
            Just("_meta".to_owned()),
            ".{0,6}"
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,20}".prop_map(Value::from),
            Just(json!("io.github.example/x")),
            Just(json!("npm")),
            Just(json!("{a}{"))
        ];
        leaf.prop_recursive(5, 64, 6, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::vec((key.clone(), inner), 0..8)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_json_is_checked_without_panic_and_what_is_stored_has_no_hidden_characters(value in arbitrary_json()) {
            let (server, found) = validate(&value);
            prop_assert!(server.is_some() || !found.errors.is_empty());
            if let Some(server) = server {
                let text = serde_json::to_string(&server).expect("a document serialises");
                prop_assert!(!text.chars().any(hostile));
            }
        }
    }
}
