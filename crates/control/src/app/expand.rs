//! From a catalog entry and what a person asked for to a revision's spec. Pure: no store, no clock.
//!
//! A [`Wish`] is everything a person ever said about a server, secrets as references. It is kept beside each
//! revision, with the part of the `server.json` document it was made from, so that a change is "the same wish
//! with this changed, expanded again", also when the catalog entry is gone. The rules are those of the
//! registry's schema 2025-12-11:
//!
//! - `value` is fixed; `{name}` in it is replaced from `variables`, other braces stay as they are.
//! - A named argument is two arguments, `--flag` and its value, unless its name ends with `=`. A boolean one is
//!   the bare flag or nothing. Nothing is ever run through a shell, so nothing is quoted.
//! - An input is named by its environment variable, header, variable, `valueHint`, or flag (dashes optional).
//! - What is marked secret is a credential; the spec holds its id.

mod packages;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};
use toolyard_types::name::printable;
use toolyard_types::server_json::{self, Argument, Choice, Input, KINDS, KeyValueInput, ServerJson, Transport};
use toolyard_types::spec::{
    Egress, EgressHost, EntryVersion, Instancing, InstancingMode, Limits, Part, PathGrant, Privilege, ProbeCall,
    Remote, RemoteTransport, RevisionSpec, Runtime, Strategy, Value, Volume,
};
use toolyard_types::{Code, CredentialId, FieldError};

use crate::{ControlError, Result};

/// The longest text of one input, variable or argument, in bytes.
const MAX_TEXT_BYTES: usize = 32 * 1024;
/// The most that all templates of one server become together, in bytes: variables may hold variables, so a
/// small document could become any amount of text.
const MAX_EXPANDED_BYTES: usize = 1 << 20;
/// The most inputs, variables, arguments or paths of one server.
const MAX_ITEMS: usize = 200;

/// A value a person gave for an input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Given {
    /// As it is.
    Text(String),
    /// In the vault.
    Credential(CredentialId),
}

/// What runs, as its document describes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Chosen {
    /// A package.
    Package(Box<server_json::Package>),
    /// A remote server.
    Remote(Box<Transport>),
}

/// Everything a person said about a server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Wish {
    pub(crate) entry: Option<EntryVersion>,
    /// `npm`, `pypi`, `oci` or `remote`, when it was said.
    #[serde(default)]
    pub(crate) package: Option<String>,
    pub(crate) chosen: Chosen,
    #[serde(default)]
    pub(crate) inputs: BTreeMap<String, Given>,
    #[serde(default)]
    pub(crate) environment: BTreeMap<String, Given>,
    #[serde(default)]
    pub(crate) arguments: Vec<String>,
    #[serde(default)]
    pub(crate) limits: Limits,
    #[serde(default)]
    pub(crate) paths: Vec<PathGrant>,
    #[serde(default)]
    pub(crate) egress: Egress,
    /// The credential of an image's registry.
    #[serde(default)]
    pub(crate) registry: Option<CredentialId>,
    #[serde(default)]
    pub(crate) strategy: Strategy,
    pub(crate) start_timeout_ms: u64,
    pub(crate) call_timeout_ms: u64,
    #[serde(default)]
    pub(crate) probe_call: Option<ProbeCall>,
    #[serde(default)]
    pub(crate) instancing: Instancing,
    #[serde(default)]
    pub(crate) volumes: Vec<Volume>,
    #[serde(default)]
    pub(crate) privileges: BTreeSet<Privilege>,
}

impl Wish {
    /// A wish with nothing said but what runs.
    pub(crate) fn new(entry: Option<EntryVersion>, package: Option<String>, chosen: Chosen) -> Self {
        Self {
            entry,
            package,
            chosen,
            inputs: BTreeMap::new(),
            environment: BTreeMap::new(),
            arguments: Vec::new(),
            limits: Limits::default(),
            paths: Vec::new(),
            egress: Egress::default(),
            registry: None,
            strategy: Strategy::default(),
            start_timeout_ms: 60_000,
            call_timeout_ms: 300_000,
            probe_call: None,
            instancing: Instancing::default(),
            volumes: Vec::new(),
            privileges: BTreeSet::new(),
        }
    }

    /// What its inputs are, by name.
    pub(crate) fn declared(&self) -> BTreeMap<&str, &Input> {
        match &self.chosen {
            Chosen::Package(package) => package.inputs(),
            Chosen::Remote(remote) => remote.inputs(),
        }
    }

    /// Which inputs there are, for whoever named another one.
    pub(crate) fn known_inputs(&self) -> String {
        let known = self.declared().into_keys().map(printable).collect::<Vec<_>>().join(", ");
        if known.is_empty() { "it has no inputs".to_owned() } else { format!("it has: {known}") }
    }

    /// The declared name that a person's spelling means: exact, else without dashes and case.
    pub(crate) fn input_key(&self, asked: &str) -> Option<String> {
        let declared = self.declared();
        if declared.contains_key(asked) {
            return Some(asked.to_owned());
        }
        let plain = |text: &str| text.trim_matches(['-', '=']).to_ascii_lowercase().replace('-', "_");
        declared.into_keys().find(|key| plain(key) == plain(asked)).map(str::to_owned)
    }

    /// Whether the entry itself makes this environment variable, from a secret or as one.
    pub(crate) fn makes_secret(&self, variable: &str) -> bool {
        let Chosen::Package(package) = &self.chosen else { return false };
        let made = |item: &&KeyValueInput| item.name == variable && item.input.value.is_some();
        package
            .environment_variables
            .iter()
            .filter(made)
            .any(|item| item.input.is_secret || item.input.variables.values().any(|variable| variable.is_secret))
    }

    /// What credentials are bound to: each input, variable or the registry, with the credential bound to it.
    pub(crate) fn bound(&self) -> BTreeSet<(&str, CredentialId)> {
        let given = self.inputs.iter().chain(&self.environment).filter_map(|(key, given)| match given {
            Given::Credential(id) => Some((key.as_str(), *id)),
            Given::Text(_) => None,
        });
        given.chain(self.registry.map(|id| ("registry", id))).collect()
    }

    /// Whether an input is as it was `before`, for the same version of the same entry.
    pub(crate) fn keeps(&self, before: &Self, key: &str) -> bool {
        self.entry == before.entry && self.inputs.get(key) == before.inputs.get(key)
    }

    /// Whether an input holds a secret.
    pub(crate) fn is_secret(&self, key: &str) -> bool {
        self.declared().get(key).is_some_and(|input| input.is_secret)
    }
}

/// Headers that say whom a request is for, where it ends, or what becomes of its connection, and those of a session and its
/// messages.
const FRAMING: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "last-event-id",
    "mcp-method",
    "mcp-name",
    "mcp-protocol-version",
    "mcp-session-id",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What is wrong with a header of that kind.
pub(crate) const IS_FRAMING: &str = "is a header that belongs to the connection";
/// What is wrong with a value that no header can hold.
pub(crate) const NO_HEADER_VALUE: &str =
    "is sent in a header, which holds no line break or other control character, not even at its end";

/// What is wrong with a secret that no URL can hold.
const NO_URL_PART: &str = "is part of the server's URL, which holds no space, line break or other control character";
/// What is wrong with a text that no variable, argument or header can hold.
pub(crate) const NUL: &str = "must not hold a NUL character";

/// Whether a header is Toolyard's own to set, whatever an entry declares.
pub(crate) fn is_framing(name: &str) -> bool {
    FRAMING.iter().any(|framing| name.eq_ignore_ascii_case(framing))
}

/// Whether a text can be a header's value.
pub(crate) fn is_header_value(text: &str) -> bool {
    http::HeaderValue::from_str(text).is_ok()
}

/// The values that a runtime is sent in headers.
pub(crate) fn header_values(runtime: &Runtime) -> impl Iterator<Item = &Value> {
    let headers = match runtime {
        Runtime::Remote(remote) => Some(&remote.headers),
        Runtime::Npm(package) | Runtime::Pypi(package) | Runtime::Oci(package) => {
            package.http.as_ref().map(|http| &http.headers)
        }
    };
    headers.into_iter().flat_map(BTreeMap::values)
}

/// Why a runtime cannot take a secret where it has the credential: it holds what no header, no URL, or no variable and argument
/// of a program can hold, so the server would never be reached or started. `None` when it can.
pub(crate) fn unfit(runtime: &Runtime, id: CredentialId, secret: &str) -> Option<&'static str> {
    let holds = |value: &Value| value.credentials().any(|credential| credential == id);
    if header_values(runtime).any(holds) && !is_header_value(secret) {
        return Some(NO_HEADER_VALUE);
    }
    if let Runtime::Remote(remote) = runtime
        && holds(&remote.url)
        && !is_url(&remote.url.render(|other| Some(if other == id { secret } else { "secret" })).unwrap_or_default())
    {
        return Some(NO_URL_PART);
    }
    (secret.contains('\0') && runtime.values().any(holds)).then_some(NUL)
}

/// Whether a request can be sent to a URL.
fn is_url(text: &str) -> bool {
    text.parse::<http::Uri>().is_ok()
}

/// Chooses what runs, as [`ServerJson::choice`] does.
///
/// # Errors
/// When the document has nothing that can be run here; says what it has.
pub(crate) fn choose(document: &ServerJson, asked: Option<&str>) -> Result<Chosen> {
    if let Some(asked) = asked.filter(|asked| !KINDS.contains(asked)) {
        let message = format!("`{}` is none of {}", printable(asked), KINDS.join(", "));
        return Err(ControlError::field("package", message));
    }
    match document.choice(asked) {
        Some(Choice::Package(package)) => return Ok(Chosen::Package(Box::new(package.clone()))),
        Some(Choice::Remote(remote)) => return Ok(Chosen::Remote(Box::new(remote.clone()))),
        None => {}
    }
    let has = document
        .packages
        .iter()
        .map(|package| format!("{} over {}", printable(&package.registry_type), printable(&package.transport.kind)))
        .chain(document.remotes.iter().map(|_| "remote".to_owned()))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect::<Vec<_>>()
        .join(", ");
    let asked = asked.unwrap_or("npm, pypi, oci (over stdio or streamable-http) or remote");
    let detail = format!("`{}` offers nothing of {asked}; it has: {has}", printable(&document.name));
    Err(ControlError::problem(Code::UnsupportedByEngine, detail))
}

/// A remote server given by URL: every header that was given is an input and a secret.
pub(crate) fn direct(url: &str, transport: Option<RemoteTransport>, headers: impl Iterator<Item = String>) -> Chosen {
    let kind = match transport.unwrap_or(RemoteTransport::StreamableHttp) {
        RemoteTransport::StreamableHttp => "streamable-http",
        RemoteTransport::Sse => "sse",
    };
    let headers =
        headers.map(|name| KeyValueInput { name, input: Input { is_secret: true, ..Input::default() } }).collect();
    Chosen::Remote(Box::new(Transport {
        kind: kind.to_owned(),
        url: Some(url.to_owned()),
        headers,
        ..Transport::default()
    }))
}

/// What kind of thing a runtime is, as shown.
pub(crate) fn kind_of(runtime: &Runtime) -> &'static str {
    match runtime {
        Runtime::Npm(_) => "npm",
        Runtime::Pypi(_) => "pypi",
        Runtime::Oci(_) => "oci",
        Runtime::Remote(_) => "remote",
    }
}

/// Makes the spec of a wish.
///
/// # Errors
/// Every field that is missing or not valid, at once.
pub(crate) fn expand(wish: &Wish) -> Result<RevisionSpec> {
    expand_from(wish, None)
}

/// The same for a change: a variable or a header that was set before it was refused stays, and holds up nothing else.
pub(crate) fn expand_changed(wish: &Wish, before: &Wish) -> Result<RevisionSpec> {
    expand_from(wish, Some(before))
}

fn expand_from(wish: &Wish, before: Option<&Wish>) -> Result<RevisionSpec> {
    let mut expansion = Expansion {
        wish,
        before,
        errors: Vec::new(),
        missing_secrets: Vec::new(),
        paths: wish.paths.clone(),
        expanded_bytes: 0,
    };
    expansion.check_texts();
    expansion.check_known();
    expansion.check_limits();
    expansion.check_egress();
    expansion.check_instancing();
    let runtime = match &wish.chosen {
        Chosen::Package(package) => expansion.package(package)?,
        Chosen::Remote(remote) => expansion.remote(remote),
    };
    expansion.check_paths();
    expansion.check_volumes();
    let Expansion { errors, missing_secrets, paths, .. } = expansion;
    finish(errors, missing_secrets)?;
    Ok(RevisionSpec {
        entry: wish.entry.clone(),
        runtime,
        limits: wish.limits.clone(),
        paths,
        egress: wish.egress.clone(),
        strategy: wish.strategy,
        start_timeout_ms: wish.start_timeout_ms,
        call_timeout_ms: wish.call_timeout_ms,
        probe_call: wish.probe_call.clone(),
        instancing: wish.instancing.clone(),
        volumes: wish.volumes.clone(),
        privileges: wish.privileges.clone(),
    })
}

fn finish(mut errors: Vec<FieldError>, missing_secrets: Vec<String>) -> Result<()> {
    if errors.is_empty() && !missing_secrets.is_empty() {
        let detail = format!("a secret is needed for: {}", missing_secrets.join(", "));
        return Err(ControlError::problem(Code::CredentialMissing, detail));
    }
    errors.extend(missing_secrets.into_iter().map(|key| FieldError {
        message: "a secret is needed: pass it, or bind a credential".into(),
        field: format!("inputs.{key}"),
    }));
    if errors.is_empty() { Ok(()) } else { Err(ControlError::Invalid(errors)) }
}

struct Expansion<'a> {
    wish: &'a Wish,
    before: Option<&'a Wish>,
    errors: Vec<FieldError>,
    missing_secrets: Vec<String>,
    paths: Vec<PathGrant>,
    expanded_bytes: usize,
}

impl Expansion<'_> {
    fn error(&mut self, field: impl Into<String>, message: impl Into<String>) {
        let (field, message) = (field.into(), message.into());
        if self.errors.len() < MAX_ITEMS && !self.errors.iter().any(|error| error.field == field) {
            self.errors.push(FieldError { field, message });
        }
    }

    fn check_texts(&mut self) {
        let wish = self.wish;
        for (what, many) in [
            ("inputs", wish.inputs.len()),
            ("environment", wish.environment.len()),
            ("arguments", wish.arguments.len()),
            ("paths", wish.paths.len()),
        ] {
            if many > MAX_ITEMS {
                self.error(what, format!("more than {MAX_ITEMS} are given"));
            }
        }
        for (at, given) in wish.inputs.iter().map(|(key, given)| (format!("inputs.{}", printable(key)), given)) {
            self.check_given(&at, given);
        }
        for (key, given) in &wish.environment {
            let at = format!("environment.{}", printable(key));
            if !is_variable_name(key) {
                self.error(&at, "a variable's name may use only A-Z, a-z, 0-9 and `_`, and no digit first");
            } else if is_loader_variable(key)
                && self.before.and_then(|before| before.environment.get(key)) != Some(given)
            {
                self.error(&at, "makes a program load code, or trust whom it should not; it may be set only where the entry declares it");
            }
            self.check_given(&at, given);
        }
        for (number, argument) in wish.arguments.iter().enumerate() {
            self.check_given(&format!("arguments.{number}"), &Given::Text(argument.clone()));
        }
    }

    fn check_given(&mut self, at: &str, given: &Given) {
        let Given::Text(text) = given else { return };
        if text.len() > MAX_TEXT_BYTES {
            self.error(at, format!("has more than {MAX_TEXT_BYTES} bytes"));
        } else if text.contains('\0') {
            self.error(at, NUL);
        }
    }

    fn check_known(&mut self) {
        let wish = self.wish;
        let declared = wish.declared();
        for key in wish.inputs.keys().filter(|key| !declared.contains_key(key.as_str())) {
            self.error(
                format!("inputs.{}", printable(key)),
                format!("the entry has no such input; {}. Use `environment` for other variables", wish.known_inputs()),
            );
        }
    }

    fn check_limits(&mut self) {
        let wish = self.wish;
        if !(16 << 20..=1 << 40).contains(&wish.limits.memory_bytes) {
            self.error("limits.memory_bytes", "must be between 16 MiB and 1 TiB");
        }
        if !(4..=65_536).contains(&wish.limits.processes) {
            self.error("limits.processes", "must be between 4 and 65536");
        }
        // Zero is no limit.
        if wish.limits.disk_bytes != 0 && !(1 << 20..=1 << 44).contains(&wish.limits.disk_bytes) {
            self.error("limits.disk_bytes", "must be between 1 MiB and 16 TiB, or 0 for no limit");
        }
        if matches!(wish.chosen, Chosen::Remote(_)) && !wish.privileges.is_empty() {
            self.error("privileges", "a remote server runs somewhere else; there is nothing to allow");
        }
        if !(100..=3_600_000).contains(&wish.start_timeout_ms) {
            self.error("start_timeout_ms", "must be between 100 and 3600000");
        }
        if !(100..=86_400_000).contains(&wish.call_timeout_ms) {
            self.error("call_timeout_ms", "must be between 100 and 86400000");
        }
    }

    fn check_instancing(&mut self) {
        let Instancing { mode, max_copies, idle_stop_ms, warm } = self.wish.instancing;
        if mode != InstancingMode::Shared && matches!(self.wish.chosen, Chosen::Remote(_)) {
            self.error("instancing.mode", "a remote server runs somewhere else; there is nothing to copy");
        }
        if !(1..=1000).contains(&max_copies) {
            self.error("instancing.max_copies", "must be between 1 and 1000");
        }
        if !(1000..=86_400_000).contains(&idle_stop_ms) {
            self.error("instancing.idle_stop_ms", "must be between 1000 and 86400000");
        }
        if warm > max_copies {
            self.error("instancing.warm", "must not be more than `max_copies`");
        }
    }

    fn check_egress(&mut self) {
        let wish = self.wish;
        if matches!(wish.chosen, Chosen::Remote(_)) && !wish.egress.is_all() {
            self.error("egress", "a remote server runs somewhere else; there is nothing to limit");
        }
        let Egress::Hosts { hosts } = &wish.egress else { return };
        if hosts.is_empty() || hosts.len() > MAX_ITEMS {
            self.error("egress.hosts", format!("must have 1 to {MAX_ITEMS} hosts; use `none` for no host at all"));
        }
        if let Some(bad) = hosts.iter().find(|host| EgressHost::parse(host).is_none()) {
            let shown = printable(bad.rsplit('@').next().unwrap_or(bad));
            let message = format!("`{shown}` is not `host`, `host:port` or `*.domain`");
            self.error("egress.hosts", message);
        }
    }

    fn check_paths(&mut self) {
        let mut kept: Vec<PathGrant> = Vec::new();
        for grant in std::mem::take(&mut self.paths) {
            if let Err(message) = check_path(&grant.path) {
                self.error("paths", format!("`{}` {message}", printable(&grant.path)));
            } else if !kept.iter().any(|other| other.path == grant.path) {
                kept.push(grant);
            }
        }
        self.paths = kept;
    }

    /// A volume has one writer, and is where its server is.
    fn check_volumes(&mut self) {
        let wish = self.wish;
        if wish.volumes.is_empty() {
            return;
        }
        if matches!(wish.chosen, Chosen::Remote(_)) {
            self.error("volumes", "a remote server runs somewhere else; there is nothing to keep");
        }
        if wish.volumes.len() > Volume::MOST {
            self.error("volumes", format!("more than {} are given", Volume::MOST));
        }
        let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
        for volume in &wish.volumes {
            let path = printable(&volume.path);
            if let Err(message) = volume.check_path() {
                self.error("volumes", format!("`{path}` {message}"));
            } else if !names.insert(&volume.name) || !paths.insert(&volume.path) {
                self.error("volumes", format!("`{}:{path}` has a name or path that another one has", volume.name));
            } else if self.paths.iter().any(|grant| grant.path == volume.path) {
                self.error("volumes", format!("`{path}` is a path of the host that the server may use"));
            }
        }
        if wish.strategy != Strategy::Recreate {
            self.error("strategy", "must be `recreate` with volumes: a volume has one writer");
        }
        if wish.instancing.mode != InstancingMode::Shared {
            self.error("instancing.mode", "must be `shared` with volumes: a volume has one writer");
        }
    }

    /// The value of a declared input; `None` when it is not given and not needed.
    fn input(&mut self, key: &str, input: &Input, needed: bool) -> Option<Value> {
        if let Some(fixed) = &input.value {
            return self.template(fixed, &input.variables);
        }
        match self.wish.inputs.get(key) {
            Some(Given::Credential(id)) => Some(Value::credential(*id)),
            Some(Given::Text(text)) => {
                self.grant(input, text);
                Some(Value::text(self.checked(key, input, text)))
            }
            None => match &input.default {
                Some(default) if needed && self.suggests_path(input, default) => {
                    let suggested = printable(default);
                    let message = format!(
                        "is a path of the toolbox's host, which only you can let the server see; the entry suggests \
                         `{suggested}`: give it, or another one"
                    );
                    self.error(format!("inputs.{}", printable(key)), message);
                    None
                }
                Some(default) => Some(Value::text(self.checked(key, input, default))),
                None => {
                    if needed && input.is_secret {
                        self.missing_secrets.push(printable(key));
                    } else if needed {
                        let what = input.description.as_deref().map(short).unwrap_or_default();
                        self.error(format!("inputs.{}", printable(key)), format!("is required{what}"));
                    }
                    None
                }
            },
        }
    }

    fn checked(&mut self, key: &str, input: &Input, text: &str) -> String {
        let at = format!("inputs.{}", printable(key));
        if let Some(choices) = input.choices.as_ref().filter(|choices| !choices.is_empty()) {
            if !choices.iter().any(|choice| choice == text) {
                let choices = choices.iter().map(|choice| printable(choice)).collect::<Vec<_>>().join(", ");
                self.error(at, format!("is none of: {choices}"));
            }
            return text.to_owned();
        }
        match input.format.as_deref() {
            Some("number") if !text.parse::<f64>().is_ok_and(f64::is_finite) => self.error(at, "is not a number"),
            Some("boolean") if !matches!(text, "true" | "false") => self.error(at, "must be `true` or `false`"),
            _ => {}
        }
        text.to_owned()
    }

    /// Lets the server see the path that somebody gave. What an entry says is never enough.
    fn grant(&mut self, input: &Input, text: &str) {
        let is_within = |granted: &PathGrant| Path::new(text).starts_with(&granted.path) && text != granted.path;
        // A file in a directory that it sees already, and may write to, needs nothing more: shown by itself it could be
        // neither replaced nor made.
        let is_seen = check_path(text).is_ok() && self.wish.paths.iter().any(is_within);
        if input.format.as_deref() == Some("filepath") && !is_seen && !self.is_in_volume(text) {
            self.paths.push(PathGrant { path: text.to_owned(), writable: false });
        }
    }

    /// Whether a path is that of a volume of the server, or one in it. The host has no part in it: there is nothing to
    /// grant, and nothing is, whatever the host has there.
    fn is_in_volume(&self, path: &str) -> bool {
        check_path(path).is_ok() && self.wish.volumes.iter().any(|volume| Path::new(path).starts_with(&volume.path))
    }

    /// Whether a default is a path of the host. In an image it may well be one of the image.
    fn suggests_path(&self, input: &Input, default: &str) -> bool {
        let in_image = matches!(&self.wish.chosen, Chosen::Package(package) if package.registry_type == "oci");
        let is_path = input.format.as_deref() == Some("filepath") && default.starts_with('/');
        is_path && !in_image && !self.is_in_volume(default)
    }

    /// A fixed text with `{name}` replaced by declared variables; `None` when one has no value.
    fn template(&mut self, text: &str, variables: &BTreeMap<String, Input>) -> Option<Value> {
        let mut parts: Vec<Part> = Vec::new();
        let mut rest = text;
        let mut complete = true;
        while let Some(open) = rest.find('{') {
            let (before, from) = rest.split_at(open);
            let found = from.find('}').and_then(|close| {
                let (name, after) = (from.get(1..close)?, from.get(close + 1..)?);
                variables.get_key_value(name).map(|(name, input)| (name, input, after))
            });
            let Some((name, input, after)) = found else {
                push_text(&mut parts, before);
                push_text(&mut parts, "{");
                rest = from.get(1..).unwrap_or_default();
                continue;
            };
            push_text(&mut parts, before);
            let value = self.input(name, input, input.is_required);
            if !self.affords(value.as_ref()) {
                return None;
            }
            match value {
                Some(value) => value.0.into_iter().for_each(|part| match part {
                    Part::Text(text) => push_text(&mut parts, &text),
                    credential => parts.push(credential),
                }),
                None => complete = false,
            }
            rest = after;
        }
        push_text(&mut parts, rest);
        complete.then_some(Value(parts))
    }

    /// Counts what a template took in; `false` when it is too much.
    fn affords(&mut self, value: Option<&Value>) -> bool {
        let bytes = value.map_or(0, |value| value.redacted().len());
        self.expanded_bytes = self.expanded_bytes.saturating_add(bytes).saturating_add(1);
        if self.expanded_bytes > MAX_EXPANDED_BYTES {
            self.error("entry", format!("its values become more than {MAX_EXPANDED_BYTES} bytes of text"));
            return false;
        }
        true
    }

    fn arguments(&mut self, declared: &[Argument]) -> Vec<Value> {
        let mut out = Vec::new();
        for argument in declared {
            let values = self.argument_values(argument.key(), argument);
            match (argument.kind.as_str(), argument.name.as_deref()) {
                ("named", Some(flag)) => {
                    values.into_iter().for_each(|value| push_named(&mut out, flag, argument, value))
                }
                _ => out.extend(values),
            }
        }
        out
    }

    fn argument_values(&mut self, key: &str, argument: &Argument) -> Vec<Value> {
        let given = match self.wish.inputs.get(key) {
            Some(Given::Text(text)) if argument.is_repeated && argument.input.value.is_none() => text.clone(),
            _ => return self.input(key, &argument.input, argument.input.is_required).into_iter().collect(),
        };
        // A repeated argument is given one value a line: no other separator is safe in paths and texts.
        let lines = given.lines().filter(|line| !line.is_empty()).take(MAX_ITEMS);
        let value = |line: &str| {
            self.grant(&argument.input, line);
            Value::text(self.checked(key, &argument.input, line))
        };
        lines.map(value).collect()
    }

    fn remote(&mut self, remote: &Transport) -> Runtime {
        for (what, given) in [
            ("environment", !self.wish.environment.is_empty()),
            ("arguments", !self.wish.arguments.is_empty()),
            ("paths", !self.wish.paths.is_empty()),
        ] {
            if given {
                self.error(what, "a remote server runs elsewhere and takes none");
            }
        }
        let template = remote.url.clone().unwrap_or_default();
        let variables = remote
            .variables
            .iter()
            .map(|(name, input)| (name.clone(), Input { is_required: true, ..input.clone() }))
            .collect();
        let url = self.template(&template, &variables).unwrap_or_default();
        if self.missing_secrets.is_empty() && self.errors.is_empty() {
            check_url(&url).unwrap_or_else(|message| self.error("url", message));
        }
        let headers = self.headers(&remote.headers);
        let transport = if remote.kind == "sse" { RemoteTransport::Sse } else { RemoteTransport::StreamableHttp };
        Runtime::Remote(Remote { transport, url, headers })
    }

    /// The headers that are sent with every request.
    fn headers(&mut self, declared: &[KeyValueInput]) -> BTreeMap<String, Value> {
        let mut headers = BTreeMap::new();
        for header in declared.iter().take(MAX_ITEMS) {
            let at = || format!("inputs.{}", printable(&header.name));
            let stays = self.before.is_some_and(|before| self.stays(before, &header.name, &header.input));
            if !is_header_name(&header.name) {
                self.error(at(), "is not a header's name");
            } else if is_framing(&header.name) && !stays {
                self.error(at(), IS_FRAMING);
            } else if let Some(value) = self.input(&header.name, &header.input, header.input.is_required) {
                // What is a credential is looked at when it is there.
                if !stays && value.render(|_| Some("")).is_none_or(|text| !is_header_value(&text)) {
                    let field = format!("inputs.{}", printable(self.unsendable(header)));
                    self.error(field, NO_HEADER_VALUE);
                }
                headers.insert(header.name.clone(), value);
            }
        }
        headers
    }

    /// Whether an input, and every variable that it is made from, is as it was `before`.
    fn stays(&self, before: &Wish, key: &str, input: &Input) -> bool {
        self.wish.keeps(before, key) && input.variables.iter().all(|(key, input)| self.stays(before, key, input))
    }

    /// The input that made a header's value one that cannot be sent; the header itself when its entry did.
    fn unsendable<'a>(&self, header: &'a KeyValueInput) -> &'a str {
        let given = |name: &&String| match self.wish.inputs.get(*name) {
            Some(Given::Text(text)) => !is_header_value(text),
            _ => false,
        };
        let variables = header.input.value.is_some().then_some(&header.input.variables);
        variables.and_then(|variables| variables.keys().find(given)).unwrap_or(&header.name)
    }
}

fn given_value(given: &Given) -> Value {
    match given {
        Given::Text(text) => Value::text(text),
        Given::Credential(id) => Value::credential(*id),
    }
}

fn push_text(parts: &mut Vec<Part>, text: &str) {
    match parts.last_mut() {
        _ if text.is_empty() => {}
        Some(Part::Text(last)) => last.push_str(text),
        _ => parts.push(Part::Text(text.to_owned())),
    }
}

fn push_named(out: &mut Vec<Value>, flag: &str, argument: &Argument, value: Value) {
    let text = value.0.iter().all(|part| matches!(part, Part::Text(_))).then(|| value.redacted());
    let boolean = argument.input.format.as_deref() == Some("boolean");
    match text.as_deref() {
        Some("") => out.push(Value::text(flag)),
        Some("true") if boolean => out.push(Value::text(flag)),
        Some("false") if boolean => {}
        _ if flag.ends_with('=') => {
            let mut parts = vec![Part::Text(flag.to_owned())];
            parts.extend(value.0);
            out.push(Value(parts));
        }
        _ => out.extend([Value::text(flag), value]),
    }
}

fn short(text: &str) -> String {
    let text: String = printable(text).chars().take(120).collect();
    if text.is_empty() { text } else { format!(": {text}") }
}

pub(crate) fn is_variable_name(name: &str) -> bool {
    name.len() <= 128
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Variables by which a program loads code, reads files that make it, finds the programs it starts, or no longer asks
/// whom it speaks to. One that the entry declares is an input.
pub(crate) fn is_loader_variable(name: &str) -> bool {
    const PREFIXES: [&str; 21] = [
        "LD_",
        "DYLD_",
        "PYTHON",
        "NPM_CONFIG_",
        "YARN_",
        "PNPM_",
        "BASH_FUNC_",
        "PERL5",
        "GEM_",
        "BUNDLE_",
        "DOTNET_",
        "COMPLUS_",
        "CORECLR_",
        "COREHOST_",
        "COR_",
        "BUN_",
        "DENO_",
        "GIT_",
        "PIP_",
        "UV_",
        "LUA_",
    ];
    /// How a program reads and writes, and who it says it is; nothing else.
    const HARMLESS: [&str; 15] = [
        "PYTHONUNBUFFERED",
        "PYTHONIOENCODING",
        "PYTHONUTF8",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONFAULTHANDLER",
        "DOTNET_ENVIRONMENT",
        "DOTNET_NOLOGO",
        "DOTNET_CLI_TELEMETRY_OPTOUT",
        "DOTNET_SYSTEM_GLOBALIZATION_INVARIANT",
        "DENO_NO_UPDATE_CHECK",
        "GIT_AUTHOR_NAME",
        "GIT_AUTHOR_EMAIL",
        "GIT_COMMITTER_NAME",
        "GIT_COMMITTER_EMAIL",
        "GIT_TERMINAL_PROMPT",
    ];
    const NAMES: [&str; 31] = [
        "PATH",
        "NODE_OPTIONS",
        "NODE_PATH",
        "NODE_REPL_EXTERNAL_MODULE",
        "NODE_V8_COVERAGE",
        "NODE_COMPILE_CACHE",
        "NODE_TLS_REJECT_UNAUTHORIZED",
        "GCONV_PATH",
        "GLIBC_TUNABLES",
        "LOCPATH",
        "NLSPATH",
        "BASH_ENV",
        "ENV",
        "SHELLOPTS",
        "BASHOPTS",
        "PROMPT_COMMAND",
        "PS4",
        "IFS",
        "ZDOTDIR",
        "PERLLIB",
        "RUBYLIB",
        "RUBYOPT",
        "JAVA_TOOL_OPTIONS",
        "JDK_JAVA_OPTIONS",
        "_JAVA_OPTIONS",
        "CLASSPATH",
        "PHPRC",
        "PHP_INI_SCAN_DIR",
        "OPENSSL_CONF",
        "OPENSSL_MODULES",
        "OPENSSL_ENGINES",
    ];
    let name = name.to_ascii_uppercase();
    let by_prefix = PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    NAMES.contains(&name.as_str()) || (by_prefix && !HARMLESS.contains(&name.as_str()))
}

fn is_header_name(name: &str) -> bool {
    name.len() <= 128 && http::HeaderName::from_bytes(name.as_bytes()).is_ok()
}

fn check_path(path: &str) -> Result<(), &'static str> {
    if !path.starts_with('/') {
        return Err("must be an absolute path");
    }
    if path.len() > 4096 || path.chars().any(|c| c.is_control()) {
        return Err("is too long or holds control characters");
    }
    if path.split('/').any(|part| part == "..") {
        return Err("must not hold `..`");
    }
    Ok(())
}

/// Checks a URL as far as it holds no secret.
fn check_url(url: &Value) -> Result<(), String> {
    let shown = url.render(|_| Some("secret")).unwrap_or_default();
    let parsed = reqwest::Url::parse(&shown).map_err(|error| format!("is not a URL: {error}"))?;
    if !matches!(parsed.scheme(), "http" | "https") || !parsed.has_host() {
        return Err("must be an http or https URL".into());
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err("must not hold a user or password; use a header".into());
    }
    // The parser above leaves line breaks out and encodes spaces; what is sent is the text as it is.
    if !is_url(&shown) {
        return Err("holds a character that no URL can hold, such as a space or a line break".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use toolyard_types::Name;
    use toolyard_types::spec::HttpEndpoint;

    use super::*;

    fn document(value: serde_json::Value) -> ServerJson {
        serde_json::from_value(value).unwrap()
    }

    fn npm(package: serde_json::Value) -> Wish {
        let mut package = package;
        package["registryType"] = json!("npm");
        package["identifier"] = json!("pkg");
        package["version"] = json!("1.0.0");
        package["transport"] = json!({"type": "stdio"});
        let document = document(json!({"name": "a/b", "description": "d", "version": "1", "packages": [package]}));
        Wish::new(None, None, choose(&document, None).unwrap())
    }

    fn arguments(wish: &Wish) -> Vec<String> {
        expand(wish).unwrap().runtime.package().unwrap().arguments.iter().map(Value::redacted).collect()
    }

    fn fields(error: &ControlError) -> Vec<String> {
        match error {
            ControlError::Invalid(errors) => errors.iter().map(|error| error.field.clone()).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn named_arguments_are_two_unless_the_name_ends_with_an_equals_sign() {
        let mut wish = npm(json!({"packageArguments": [
            {"type": "named", "name": "--root", "isRequired": true},
            {"type": "named", "name": "--mode=", "default": "fast"},
            {"type": "named", "name": "--verbose", "format": "boolean"},
            {"type": "positional", "valueHint": "target", "value": "x y; rm -rf"},
        ]}));
        wish.inputs.insert("--root".into(), Given::Text("a b".into()));
        wish.inputs.insert("--verbose".into(), Given::Text("true".into()));
        assert_eq!(arguments(&wish), ["--root", "a b", "--mode=fast", "--verbose", "x y; rm -rf"]);
    }

    #[test]
    fn repeated_positionals_take_one_value_a_line_and_paths_are_granted() {
        let mut wish = npm(json!({"packageArguments": [
            {"type": "positional", "valueHint": "directory", "format": "filepath", "isRepeated": true, "isRequired": true},
        ]}));
        wish.inputs.insert("directory".into(), Given::Text("/srv/a\n/srv/b".into()));
        let spec = expand(&wish).unwrap();
        assert_eq!(arguments(&wish), ["/srv/a", "/srv/b"]);
        assert_eq!(spec.paths.iter().map(|grant| grant.path.as_str()).collect::<Vec<_>>(), ["/srv/a", "/srv/b"]);
        wish.inputs.insert("directory".into(), Given::Text("/srv/../etc".into()));
        assert_eq!(fields(&expand(&wish).unwrap_err()), ["paths"]);
    }

    #[test]
    fn a_variable_that_loads_code_is_set_only_where_the_entry_declares_it() {
        let mut wish = npm(json!({"environmentVariables": [{"name": "NODE_OPTIONS"}]}));
        wish.inputs.insert("NODE_OPTIONS".into(), Given::Text("--max-old-space-size=512".into()));
        assert_eq!(expand(&wish).unwrap().runtime.package().unwrap().environment.len(), 1);
        for bad in [
            "NODE_OPTIONS",
            "LD_PRELOAD",
            "ld_preload",
            "PYTHONPATH",
            "PYTHONSTARTUP",
            "BASH_ENV",
            "DYLD_INSERT_LIBRARIES",
            "PATH",
            "GIT_SSH_COMMAND",
            "GIT_CONFIG_COUNT",
            "BUN_OPTIONS",
            "DENO_DIR",
            "CORECLR_PROFILER",
            "DOTNET_STARTUP_HOOKS",
            "PERL5OPT",
            "GEM_PATH",
            "UV_INDEX_URL",
            "NODE_TLS_REJECT_UNAUTHORIZED",
        ] {
            let mut wish = npm(json!({}));
            for given in [Given::Text("x".into()), Given::Credential(CredentialId::generate())] {
                wish.environment.insert(bad.into(), given);
                assert_eq!(fields(&expand(&wish).unwrap_err()), [format!("environment.{bad}")]);
            }
        }
        let mut wish = npm(json!({}));
        for good in
            ["PYTHONUNBUFFERED", "NODE_ENV", "NODE_EXTRA_CA_CERTS", "GIT_AUTHOR_NAME", "GITHUB_HOST", "LOG_LEVEL"]
        {
            wish.environment.insert(good.into(), Given::Text("1".into()));
        }
        assert_eq!(expand(&wish).unwrap().runtime.package().unwrap().environment.len(), 6);
    }

    #[test]
    fn a_variable_that_was_set_before_it_was_refused_holds_up_no_change_but_its_own() {
        let mut before = npm(json!({}));
        before.environment.insert("PATH".into(), Given::Text("/usr/bin".into()));
        let mut wish = before.clone();
        wish.limits.processes = 99;
        assert_eq!(expand_changed(&wish, &before).unwrap().limits.processes, 99);
        wish.environment.insert("PATH".into(), Given::Text("/tmp".into()));
        assert_eq!(fields(&expand_changed(&wish, &before).unwrap_err()), ["environment.PATH"]);
    }

    #[test]
    fn only_a_path_that_somebody_gave_is_granted() {
        let input = |required: bool, default: &str| {
            npm(json!({"packageArguments": [
                {"type": "named", "name": "--dir", "format": "filepath", "default": default, "isRequired": required},
                {"type": "named", "name": "--fixed", "format": "filepath", "value": "/etc"},
                {"type": "named", "name": "--choice", "format": "filepath", "default": "/a", "choices": ["/a", "/b"]},
                {"type": "named", "name": "--made", "value": "{x}", "variables": {"x": {"format": "filepath", "default": "/y"}}},
            ]}))
        };
        let granted = |wish: &Wish| expand(wish).unwrap().paths.into_iter().map(|it| it.path).collect::<Vec<_>>();
        let mut wish = input(false, "/srv/data");
        assert_eq!(granted(&wish), Vec::<String>::new());
        assert_eq!(arguments(&wish)[..2], ["--dir", "/srv/data"]);
        assert_eq!(fields(&expand(&input(true, "/srv/data")).unwrap_err()), ["inputs.--dir"]);
        assert_eq!(granted(&input(true, "data")), Vec::<String>::new());
        for (key, path) in [("--dir", "/srv/data"), ("--choice", "/b"), ("x", "/y")] {
            wish.inputs.insert(key.into(), Given::Text(path.into()));
        }
        assert_eq!(granted(&wish), ["/srv/data", "/b", "/y"]);
        wish.paths = vec![PathGrant { path: "/srv".into(), writable: true }];
        assert_eq!(granted(&wish), ["/srv", "/b", "/y"], "what lies in a granted directory is seen there");
        wish.inputs.insert("--dir".into(), Given::Text("/srv/../etc".into()));
        assert_eq!(fields(&expand(&wish).unwrap_err()), ["paths"]);
        let image = document(json!({"name": "a/b", "packages": [{"registryType": "oci", "identifier": "host/image:1",
            "environmentVariables": [{"name": "DB", "format": "filepath", "default": "/app/db", "isRequired": true}]}]}));
        let wish = Wish::new(None, None, choose(&image, None).unwrap());
        assert_eq!(granted(&wish), Vec::<String>::new());
    }

    #[test]
    fn a_path_in_a_volume_is_none_of_the_hosts() {
        let file = json!({"name": "FILE", "format": "filepath", "default": "/data/usual", "isRequired": true});
        let directory =
            json!({"type": "positional", "valueHint": "directory", "format": "filepath", "isRepeated": true});
        let mut wish = npm(json!({"environmentVariables": [file], "packageArguments": [directory]}));
        wish.strategy = toolyard_types::spec::Strategy::Recreate;
        let expand = |directories: &str, volume: &str, wish: &Wish| {
            let mut wish = wish.clone();
            wish.inputs.insert("directory".into(), Given::Text(directories.into()));
            wish.volumes = vec![Volume { name: Name::new("data").unwrap(), path: volume.into() }];
            expand(&wish)
        };
        let spec = expand("/data\n/data/\n/data/a/b\n/data/./c", "/data", &wish).unwrap();
        assert!(spec.paths.is_empty(), "{:?}", spec.paths);
        let package = spec.runtime.package().unwrap();
        assert_eq!(package.environment["FILE"].redacted(), "/data/usual", "there is nothing to let it see");
        assert_eq!(package.arguments.iter().map(Value::redacted).next().unwrap(), "/data");
        // What is beside it, above it, or leads out of it, is the host's.
        let granted = |directories: &str, wish: &Wish| {
            let paths = expand(directories, "/data", wish).unwrap().paths;
            paths.into_iter().map(|it| (it.path, it.writable)).collect::<Vec<_>>()
        };
        assert_eq!(granted("/data2\n/", &wish), [("/data2".to_owned(), false), ("/".to_owned(), false)]);
        assert_eq!(fields(&expand("/data/../etc", "/data", &wish).unwrap_err()), ["paths"]);
        assert_eq!(fields(&expand("data", "/data", &wish).unwrap_err()), ["paths"]);
        assert_eq!(fields(&expand("/data", "/data/in", &wish).unwrap_err()), ["inputs.FILE"]);
        // A volume that can be none makes nothing the server's own.
        for bad in ["", "/", "/data/", "/tmp"] {
            assert!(expand("/data", bad, &wish).is_err(), "{bad}");
        }
        wish.paths = vec![PathGrant { path: "/srv".into(), writable: true }];
        assert_eq!(granted("/data/a", &wish), [("/srv".to_owned(), true)], "what was granted stays granted");
    }

    #[test]
    fn fixed_values_take_their_variables_and_keep_other_braces() {
        let secret = CredentialId::generate();
        let mut wish = npm(json!({"environmentVariables": [
            {"name": "AUTH", "value": "Bearer {token} {other} {", "variables": {"token": {"isSecret": true, "isRequired": true}}},
        ]}));
        wish.inputs.insert("token".into(), Given::Credential(secret));
        assert!(wish.makes_secret("AUTH") && !wish.makes_secret("token") && !wish.makes_secret("OTHER"));
        let spec = expand(&wish).unwrap();
        let value = &spec.runtime.package().unwrap().environment["AUTH"];
        assert_eq!(value.0, [Part::Text("Bearer ".into()), Part::Credential(secret), Part::Text(" {other} {".into())]);
    }

    #[test]
    fn a_small_document_cannot_become_any_amount_of_text() {
        let inner = json!({"value": "{b}".repeat(2000), "variables": {"b": {"default": "x".repeat(2000)}}});
        let wish = npm(json!({"environmentVariables": [
            {"name": "A", "value": "{a}".repeat(2000), "variables": {"a": inner}},
        ]}));
        assert_eq!(fields(&expand(&wish).unwrap_err()), ["entry"]);
    }

    #[test]
    fn every_missing_or_wrong_input_is_named_at_once() {
        let mut wish = npm(json!({"environmentVariables": [
            {"name": "REGION", "isRequired": true},
            {"name": "MODE", "choices": ["a", "b"]},
            {"name": "PORT", "format": "number"},
            {"name": "KEY", "isSecret": true, "isRequired": true},
        ]}));
        wish.inputs.insert("MODE".into(), Given::Text("c".into()));
        wish.inputs.insert("PORT".into(), Given::Text("x".into()));
        wish.inputs.insert("TYPO".into(), Given::Text("x".into()));
        let mut named = fields(&expand(&wish).unwrap_err());
        named.sort();
        assert_eq!(named, ["inputs.KEY", "inputs.MODE", "inputs.PORT", "inputs.REGION", "inputs.TYPO"]);
    }

    #[test]
    fn a_missing_secret_alone_has_its_own_code() {
        let wish = npm(json!({"environmentVariables": [{"name": "KEY", "isSecret": true, "isRequired": true}]}));
        assert_eq!(expand(&wish).unwrap_err().code(), Code::CredentialMissing);
    }

    #[test]
    fn arguments_for_the_package_runner_are_understood_or_refused() {
        arguments(&npm(json!({"runtimeArguments": [{"type": "positional", "value": "-y"}]})));
        let wish = npm(json!({"runtimeArguments": [{"type": "named", "name": "--call", "value": "x"}]}));
        assert_eq!(expand(&wish).unwrap_err().code(), Code::UnsupportedByEngine);
        let from =
            document(json!({"name": "a/b", "packages": [{"registryType": "pypi", "identifier": "pkg", "version": "2",
            "transport": {"type": "stdio"}, "runtimeArguments": [
                {"type": "named", "name": "--from", "value": "pkg==2.1"}, {"type": "positional", "value": "tool"}]}]}));
        let spec = expand(&Wish::new(None, None, choose(&from, None).unwrap())).unwrap();
        let package = spec.runtime.package().unwrap();
        assert_eq!((package.identifier.as_str(), package.version.as_str()), ("pkg", "2.1"));
        assert_eq!(package.command.as_deref(), Some("tool"));
    }

    #[test]
    fn a_variable_for_docker_run_keeps_its_secret() {
        let secret = CredentialId::generate();
        let image = document(json!({"name": "a/b", "packages": [{"registryType": "oci", "identifier": "host/image:1",
            "runtimeArguments": [
                {"type": "positional", "value": "run"}, {"type": "named", "name": "--rm"},
                {"type": "named", "name": "-e", "value": "KEY=a={key}", "variables": {"key": {"isSecret": true, "isRequired": true}}},
                {"type": "named", "name": "-e", "value": "PLAIN"}]}]}));
        let mut wish = Wish::new(None, None, choose(&image, None).unwrap());
        wish.inputs.insert("key".into(), Given::Credential(secret));
        wish.registry = Some(CredentialId::generate());
        let Runtime::Oci(package) = expand(&wish).unwrap().runtime else { panic!() };
        assert_eq!(package.environment["KEY"].0, [Part::Text("a=".into()), Part::Credential(secret)]);
        assert_eq!(package.environment.len(), 1);
        assert_eq!(package.registry, wish.registry.map(Value::credential));
    }

    #[test]
    fn an_image_over_http_is_reached_where_it_listens() {
        let image = |transport: serde_json::Value, more: serde_json::Value| {
            let mut package = json!({"registryType": "oci", "identifier": "host/image:1", "transport": transport});
            package.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let document = document(json!({"name": "a/b", "packages": [package]}));
            Wish::new(None, None, choose(&document, Some("oci")).unwrap())
        };
        let endpoint = |wish: &Wish| expand(wish).unwrap().runtime.package().unwrap().http.clone().unwrap();
        let at = |url: &str| json!({"type": "streamable-http", "url": url});
        let plain = image(at("http://localhost:8080/mcp?x=1"), json!({}));
        assert_eq!(endpoint(&plain), HttpEndpoint { port: 8080, path: "/mcp?x=1".into(), headers: BTreeMap::new() });
        let root = endpoint(&image(at("http://127.0.0.1"), json!({})));
        assert_eq!((root.port, root.path.as_str()), (80, "/"));
        let by_variable = json!({"environmentVariables": [{"name": "PORT", "default": "9000"}]});
        let mut wish = image(at("http://localhost:{PORT}/mcp"), by_variable);
        assert_eq!(endpoint(&wish).port, 9000);
        wish.inputs.insert("PORT".into(), Given::Text("9001".into()));
        assert_eq!(endpoint(&wish).port, 9001);
        let by_argument = json!({"packageArguments": [{"type": "named", "name": "--port", "default": "7000"}]});
        assert_eq!(endpoint(&image(at("http://localhost:{port}/"), by_argument)).port, 7000);
        let published = json!({"runtimeArguments": [{"type": "named", "name": "-p", "value": "3000:8000"}]});
        assert_eq!(endpoint(&image(at("http://localhost:3000/mcp"), published)).port, 8000);
        for bad in
            ["https://localhost:1/", "http://example.com:1/", "http://localhost:{port}/", "", "http://u@localhost/"]
        {
            assert_eq!(fields(&expand(&image(at(bad), json!({}))).unwrap_err()), ["entry"], "{bad}");
        }
        let mut proxied = image(at("http://localhost:3128/mcp"), json!({}));
        proxied.egress = Egress::Hosts { hosts: vec!["a.test".into()] };
        assert_eq!(fields(&expand(&proxied).unwrap_err()), ["egress"]);
        let own = json!({"type": "streamable-http", "url": "http://localhost:{port}/", "variables": {"port": {"default": "1"}}});
        let mut wish = image(own, json!({}));
        wish.inputs.insert("port".into(), Given::Text("2".into()));
        assert_eq!(endpoint(&wish).port, 2);
    }

    #[test]
    fn what_speaks_http_gets_its_headers_with_their_secrets() {
        let headers = |headers: serde_json::Value| {
            let package = json!({"registryType": "oci", "identifier": "host/image:1", "transport": {
                "type": "streamable-http", "url": "http://localhost:1/", "headers": headers}});
            let document = document(json!({"name": "a/b", "packages": [package]}));
            Wish::new(None, None, choose(&document, Some("oci")).unwrap())
        };
        let mut wish = headers(json!([
            {"name": "Authorization", "value": "Bearer {token}", "variables": {"token": {"isSecret": true, "isRequired": true}}},
            {"name": "X-Region", "default": "eu"}, {"name": "X-Other"}]));
        assert_eq!(expand(&wish).unwrap_err().code(), Code::CredentialMissing);
        let secret = CredentialId::generate();
        wish.inputs.insert("token".into(), Given::Credential(secret));
        let runtime = expand(&wish).unwrap().runtime;
        let found = &runtime.package().unwrap().http.as_ref().unwrap().headers;
        assert_eq!(found.keys().collect::<Vec<_>>(), ["Authorization", "X-Region"]);
        assert_eq!(found["Authorization"].0, [Part::Text("Bearer ".into()), Part::Credential(secret)]);
        assert_eq!(runtime.values().flat_map(Value::credentials).collect::<Vec<_>>(), [secret]);
        for bad in ["Content-Length", "a b", "transfer-encoding"] {
            let wish = headers(json!([{"name": bad, "default": "1"}]));
            assert_eq!(fields(&expand(&wish).unwrap_err()), [format!("inputs.{bad}")]);
        }
    }

    /// A remote server of an entry with these headers, and the same as an image that speaks HTTP.
    fn with_headers(headers: &serde_json::Value) -> [Wish; 2] {
        let remote = json!({"type": "streamable-http", "url": "https://mcp.example.test/mcp", "headers": headers});
        let local = json!({"type": "streamable-http", "url": "http://localhost:1/", "headers": headers});
        let image = json!({"registryType": "oci", "identifier": "host/image:1", "transport": local});
        let entry = document(json!({"name": "a/b", "packages": [image], "remotes": [remote]}));
        ["remote", "oci"].map(|kind| Wish::new(None, None, choose(&entry, Some(kind)).unwrap()))
    }

    fn messages(error: &ControlError) -> Vec<String> {
        match error {
            ControlError::Invalid(errors) => errors.iter().map(|error| error.message.clone()).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn no_input_sets_a_header_that_says_whom_a_request_is_for_or_whose_session_it_belongs_to() {
        let refused = [
            "Host",
            "Mcp-Session-Id",
            "MCP-Protocol-Version",
            "Mcp-Method",
            "Mcp-Name",
            "Last-Event-ID",
            "Content-Length",
            "Transfer-Encoding",
            "Connection",
            "Keep-Alive",
            "TE",
            "Trailer",
            "Upgrade",
            "Expect",
        ];
        for name in refused {
            for name in [name.to_owned(), name.to_ascii_lowercase(), name.to_ascii_uppercase()] {
                for input in [json!({}), json!({"default": "x"}), json!({"value": "x"}), json!({"isSecret": true})] {
                    let mut header = input.clone();
                    header["name"] = json!(name);
                    for mut wish in with_headers(&json!([header, {"name": "X-Region"}])) {
                        if input.get("value").is_none() {
                            wish.inputs.insert(name.clone(), Given::Text("x".into()));
                        }
                        let error = expand(&wish).unwrap_err();
                        assert_eq!(fields(&error), [format!("inputs.{name}")], "{input}");
                        assert_eq!(messages(&error), [IS_FRAMING]);
                    }
                }
            }
            let mut direct =
                Wish::new(None, None, direct("https://mcp.example.test/mcp", None, std::iter::once(name.to_owned())));
            direct.inputs.insert(name.to_owned(), Given::Credential(CredentialId::generate()));
            assert_eq!(fields(&expand(&direct).unwrap_err()), [format!("inputs.{name}")]);
        }
        for name in ["X-Host", "Hostname", "X-Mcp-Session-Id", "Forwarded", "Authorization", "Cookie"] {
            for mut wish in with_headers(&json!([{"name": name}])) {
                wish.inputs.insert(name.into(), Given::Text("x".into()));
                assert!(expand(&wish).is_ok(), "{name}");
            }
        }
    }

    #[test]
    fn a_value_that_no_header_can_hold_is_refused_and_the_input_is_named_that_has_it() {
        let headers = json!([
            {"name": "X-Region"},
            {"name": "Authorization", "value": "Bearer {token} {kept}", "variables": {"kept": {"default": "k"}, "token": {}}},
        ]);
        for bad in ["a\r\nHost: evil.test", "a\n", "\ra", "a\u{7f}", "a\u{1b}[2J", "\u{1}"] {
            for input in ["X-Region", "token"] {
                for mut wish in with_headers(&headers) {
                    wish.inputs.insert(input.into(), Given::Text(bad.into()));
                    let error = expand(&wish).unwrap_err();
                    assert_eq!(fields(&error), [format!("inputs.{input}")], "{bad:?}");
                    assert_eq!(messages(&error), [NO_HEADER_VALUE]);
                }
            }
            for wish in with_headers(&json!([{"name": "X-Fixed", "value": bad}])) {
                assert_eq!(fields(&expand(&wish).unwrap_err()), ["inputs.X-Fixed"], "{bad:?}");
            }
        }
        for good in ["", "a b", "a\tb", "größe", "=?base64?eA==?=", "{other}"] {
            for mut wish in with_headers(&headers) {
                wish.inputs.extend(["X-Region", "token"].map(|input| (input.to_owned(), Given::Text(good.into()))));
                assert!(expand(&wish).is_ok(), "{good:?}");
            }
        }
    }

    #[test]
    fn a_header_that_was_set_before_it_was_refused_stays_and_holds_up_nothing_else() {
        let headers = json!([
            {"name": "Mcp-Name", "value": "x"},
            {"name": "Last-Event-ID"},
            {"name": "X-Region"},
            {"name": "Authorization", "value": "Bearer {token}", "variables": {"token": {}}},
        ]);
        for mut before in with_headers(&headers) {
            before.entry = Some(EntryVersion { name: "a/b".parse().unwrap(), version: "1".into() });
            let given = [("Last-Event-ID", "7"), ("X-Region", "eu\n"), ("token", "t\n")];
            before.inputs.extend(given.map(|(key, text)| (key.to_owned(), Given::Text(text.into()))));
            assert_eq!(fields(&expand(&before).unwrap_err()).len(), 4, "a new server has none of them");
            let mut wish = before.clone();
            wish.start_timeout_ms += 1;
            let spec = expand_changed(&wish, &before).unwrap();
            assert_eq!(spec.start_timeout_ms, wish.start_timeout_ms);
            assert_eq!(header_values(&spec.runtime).count(), 4);
            for (key, text) in [("Last-Event-ID", "8"), ("X-Region", "us\n"), ("token", "u\n")] {
                let mut other = wish.clone();
                other.inputs.insert(key.into(), Given::Text(text.into()));
                assert_eq!(fields(&expand_changed(&other, &before).unwrap_err()), [format!("inputs.{key}")]);
            }
            wish.entry = Some(EntryVersion { name: "a/b".parse().unwrap(), version: "2".into() });
            let refused = expand_changed(&wish, &before).unwrap_err();
            assert_eq!(fields(&refused).len(), 4, "another version is chosen anew");
        }
    }

    #[test]
    fn a_package_over_http_comes_after_a_remote_and_before_an_image_over_http() {
        let http = |kind: &str| {
            json!({"registryType": kind, "identifier": "p", "version": "1",
            "transport": {"type": "streamable-http", "url": "http://localhost:3001/mcp"}})
        };
        let remotes = json!([{"type": "streamable-http", "url": "https://example.test/mcp"}]);
        let all = document(json!({"name": "a/b", "packages": [http("oci"), http("npm")], "remotes": remotes}));
        assert!(matches!(choose(&all, None).unwrap(), Chosen::Remote(_)));
        let spec = expand(&Wish::new(None, None, choose(&all, Some("npm")).unwrap())).unwrap();
        let Runtime::Npm(package) = spec.runtime else { panic!() };
        assert_eq!(package.http.map(|http| (http.port, http.path)), Some((3001, "/mcp".to_owned())));
        let here = document(json!({"name": "a/b", "packages": [http("oci"), http("pypi")]}));
        let Chosen::Package(package) = choose(&here, None).unwrap() else { panic!() };
        assert_eq!(package.registry_type, "pypi");
    }

    #[test]
    fn npm_and_pypi_come_first_then_images_then_remotes() {
        let all = document(json!({"name": "a/b", "packages": [
            {"registryType": "nuget", "identifier": "n"},
            {"registryType": "oci", "identifier": "host:5000/image:1.2"},
            {"registryType": "pypi", "identifier": "p", "transport": {"type": "sse"}},
        ], "remotes": [{"type": "streamable-http", "url": "https://example.test/mcp"}]}));
        let Chosen::Package(package) = choose(&all, None).unwrap() else { panic!() };
        assert_eq!(package.registry_type, "oci");
        let spec = expand(&Wish::new(None, None, Chosen::Package(package))).unwrap();
        let Runtime::Oci(image) = spec.runtime else { panic!() };
        assert_eq!((image.identifier.as_str(), image.version.as_str()), ("host:5000/image", "1.2"));
        assert!(matches!(choose(&all, Some("remote")).unwrap(), Chosen::Remote(_)));
        assert_eq!(choose(&all, Some("npm")).unwrap_err().code(), Code::UnsupportedByEngine);
        assert_eq!(choose(&all, Some("nuget")).unwrap_err().code(), Code::ValidationFailed);
    }

    #[test]
    fn a_remote_takes_its_variables_and_refuses_what_only_a_process_can_use() {
        let remote = document(json!({"name": "a/b", "remotes": [{"type": "streamable-http",
            "url": "https://{tenant}.example.test/mcp", "variables": {"tenant": {}},
            "headers": [{"name": "Authorization", "value": "Bearer {key}", "variables": {"key": {"isSecret": true}}}]}]}));
        let mut wish = Wish::new(None, None, choose(&remote, None).unwrap());
        assert_eq!(fields(&expand(&wish).unwrap_err()), ["inputs.tenant"]);
        wish.inputs.insert("tenant".into(), Given::Text("acme".into()));
        let Runtime::Remote(found) = expand(&wish).unwrap().runtime else { panic!() };
        assert_eq!(found.url.redacted(), "https://acme.example.test/mcp");
        assert!(found.headers.is_empty());
        wish.arguments.push("x".into());
        assert_eq!(fields(&expand(&wish).unwrap_err()), ["arguments"]);
        let file = Wish::new(None, None, direct("file:///etc/passwd", None, std::iter::empty()));
        assert_eq!(fields(&expand(&file).unwrap_err()), ["url"]);
    }

    #[test]
    fn a_persons_spelling_of_a_flag_is_understood() {
        let wish = npm(json!({"packageArguments": [{"type": "named", "name": "--api-key="}]}));
        assert_eq!(wish.input_key("api_key").as_deref(), Some("--api-key"));
        assert_eq!(wish.input_key("--api-key").as_deref(), Some("--api-key"));
        assert_eq!(wish.input_key("nothing"), None);
    }

    proptest! {
        #[test]
        fn no_document_and_no_input_panics(value in ".{0,80}", flag in ".{0,20}", given in ".{0,80}", repeated: bool) {
            let mut wish = npm(json!({"packageArguments": [
                {"type": "named", "name": flag, "value": value, "isRepeated": repeated, "variables": {"a": {"default": value}}},
                {"type": "positional", "valueHint": "x", "format": "filepath", "isRepeated": repeated},
            ]}));
            wish.inputs.insert("x".into(), Given::Text(given.clone()));
            wish.environment.insert(given, Given::Text(value));
            let _ = expand(&wish);
        }

        #[test]
        fn text_never_splits_into_more_arguments(text in "[^\u{0}\n\r]{1,60}") {
            let mut wish = npm(json!({"packageArguments": [{"type": "positional", "valueHint": "x"}]}));
            wish.inputs.insert("x".into(), Given::Text(text.clone()));
            prop_assert_eq!(arguments(&wish), [text]);
        }
    }
}
