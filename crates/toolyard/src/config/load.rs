//! Filling the settings, layer by layer, with the origin of every value.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use toolyard_control::VaultKeys;
use toolyard_types::Secret;
use toolyard_types::name::printable;

use super::{CLIENT_VARIABLES, Environment, Settings};
use crate::installation;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The environment's default.
    Default,
    /// A line of `toolyard.toml`.
    File(PathBuf),
    /// A line of `.env`.
    DotEnv,
    /// An environment variable.
    Variable(String),
    /// A flag.
    Flag,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::DotEnv => f.write_str(".env"),
            Self::Variable(name) => write!(f, "environment {name}"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// What the command line says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overrides {
    /// `--config`; `toolyard.toml` in the current directory is used when it exists.
    pub file: Option<PathBuf>,
    /// Settings by name, as text.
    pub set: Vec<(String, String)>,
    /// Whether they are for an agent alone, which takes no data directory of a control plane.
    pub for_agent: bool,
}

/// The settings of a configuration in which nothing is wrong.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Things worth a warning, such as an unknown `TOOLYARD_` variable.
    pub warnings: Vec<String>,
    /// What is wrong with settings that are read at the first start only: refused there, and a warning at every other.
    pub first_start: Vec<String>,
}

/// The settings as far as they can be read, for whoever looks for what is wrong with them.
#[derive(Debug)]
pub(crate) struct Survey {
    /// The settings; in the place of those that are wrong, their defaults.
    pub settings: Settings,
    /// The origin of each field.
    pub origins: BTreeMap<String, Origin>,
    /// Everything that is wrong.
    pub problems: Vec<Wrong>,
    /// As in [`Loaded`].
    pub warnings: Vec<String>,
    /// As in [`Loaded`].
    pub first_start: Vec<String>,
}

/// Something that is wrong with the configuration. Names, never values.
#[derive(Clone, Debug)]
pub(crate) struct Wrong {
    /// The setting, where it is one.
    pub setting: Option<String>,
    /// What is wrong.
    pub told: String,
}

impl Wrong {
    fn of(setting: &str, told: String) -> Self {
        Self { setting: Some(setting.to_owned()), told }
    }
}

/// Everything that is wrong with the configuration, one line each. Names, never values of secrets.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub(crate) struct ConfigError(pub Vec<String>);

/// The process environment, read in this one place.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the process environment")]
pub(crate) fn process_environment() -> BTreeMap<String, String> {
    std::env::vars().collect()
}

/// Fills the settings from `environment` (the process environment), files in `dir`, and `overrides`.
///
/// # Errors
/// With every problem at once: unknown settings, values of the wrong type, an unknown environment.
pub(crate) fn load(
    environment: &BTreeMap<String, String>,
    dir: &Path,
    overrides: &Overrides,
) -> Result<Loaded, ConfigError> {
    let Survey { settings, problems, warnings, first_start, .. } = survey(environment, dir, overrides)?;
    if !problems.is_empty() {
        return Err(ConfigError(problems.into_iter().map(|wrong| wrong.told).collect()));
    }
    Ok(Loaded { settings, warnings, first_start })
}

/// As [`load`], with what is wrong beside what is not.
///
/// # Errors
/// When nothing can be said of any setting: a file that cannot be read, an unknown environment.
pub(crate) fn survey(
    environment: &BTreeMap<String, String>,
    dir: &Path,
    overrides: &Overrides,
) -> Result<Survey, ConfigError> {
    let file = read_file(dir, overrides)?;
    let named = overrides
        .set
        .iter()
        .rev()
        .find_map(|(name, value)| (name == "env").then(|| value.clone()))
        .or_else(|| environment.get("TOOLYARD_ENV").cloned())
        .or_else(|| file.as_ref().and_then(|(_, table)| table.get("env")?.as_str().map(String::from)));
    let env = match named {
        Some(text) => text.parse::<Environment>().map_err(|error| ConfigError(vec![error]))?,
        None => Environment::Development,
    };

    let mut layers = Layers::new(env);
    let read_from = file.as_ref().map(|(path, _)| path.clone());
    if let Some((path, table)) = file {
        layers.add_table(table, &path);
    }
    if env == Environment::Development {
        layers.add_variables(&read_dot_env(dir)?, |_| Origin::DotEnv);
    }
    layers.add_variables(environment, |name| Origin::Variable(name.to_owned()));
    for (name, text) in &overrides.set {
        layers.set_text(name, text, Origin::Flag, &format!("`--set {name}`"));
    }
    let mut survey = layers.finish();
    survey.settings.file = read_from;
    let data_dir = &survey.settings.data_dir;
    if overrides.for_agent && is_control_planes(&dir.join(data_dir)) {
        let told = format!(
            "setting `data_dir` ({}): `{}` is the data directory of a control plane (`toolyard serve`); give the agent one of \
             its own with `--data-dir` or `TOOLYARD_DATA_DIR`",
            survey.origins.get("data_dir").unwrap_or(&Origin::Default),
            data_dir.display()
        );
        survey.problems.push(Wrong::of("data_dir", told));
    }
    Ok(survey)
}

/// Whether a control plane uses a directory, itself or for its own toolbox, and no agent has joined there: one that did before
/// this was refused goes on.
fn is_control_planes(data_dir: &Path) -> bool {
    let is_toolbox = data_dir.ends_with(installation::TOOLBOX) && data_dir.parent().is_some_and(installation::is_in);
    let is_used = installation::is_in(data_dir) || is_toolbox;
    is_used && !data_dir.join("identity").join("identity.json").exists()
}

/// A file's path and what it sets.
type FileLayer = (PathBuf, Map<String, Value>);

fn read_file(dir: &Path, overrides: &Overrides) -> Result<Option<FileLayer>, ConfigError> {
    let (path, required) = match &overrides.file {
        Some(path) => (path.clone(), true),
        None => (dir.join("toolyard.toml"), false),
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => return Ok(None),
        Err(error) => return Err(ConfigError(vec![format!("cannot read `{}`: {error}", path.display())])),
    };
    match toml::from_str(&text) {
        Ok(table) => Ok(Some((path, table))),
        Err(error) => Err(ConfigError(vec![format!("`{}`: {}", path.display(), error.message())])),
    }
}

fn read_dot_env(dir: &Path) -> Result<BTreeMap<String, String>, ConfigError> {
    let path = dir.join(".env");
    let Ok(lines) = dotenvy::from_path_iter(&path) else { return Ok(BTreeMap::new()) };
    lines
        .enumerate()
        .map(|(number, line)| {
            // The library's message quotes the line, which may hold a secret.
            line.map_err(|_| ConfigError(vec![format!("`{}`: entry {} is not NAME=value", path.display(), number + 1)]))
        })
        .collect()
}

struct Layers {
    env: Environment,
    values: Map<String, Value>,
    origins: BTreeMap<String, Origin>,
    shapes: BTreeMap<String, Shape>,
    /// The names of those that may be absent, which an empty text says.
    optional: BTreeSet<String>,
    /// The names of those that are secrets.
    secrets: BTreeSet<String>,
    /// What was found in the value that counts, by setting.
    found: BTreeMap<String, (Weight, String)>,
    problems: Vec<Wrong>,
    warnings: Vec<String>,
    first_start: Vec<String>,
}

/// Settings that are read at the first start only: what is wrong with them is nothing to an installation that is used.
const FIRST_START: [&str; 2] = ["bootstrap_admin_email", "bootstrap_admin_password"];

/// Settings that are addresses, or hold some. What a shell did not fill in leads nowhere.
const ADDRESSES: [&str; 7] =
    ["public_url", "registry_url", "proxy", "no_proxy", "docker_host", "agent_addresses", "allowed_hosts"];

/// Settings of earlier versions, and what there is instead. They are warned about, so that an upgrade starts.
const RETIRED: [(&str, &str); 1] = [(
    "metrics_public",
    "metrics without a key are at `operations_listen`; `/metrics` of the public listener needs one",
)];

fn retired(name: &str, shown: &str) -> Option<String> {
    let (_, instead) = RETIRED.iter().find(|(retired, _)| *retired == name)?;
    Some(format!("{shown} has no effect any more: {instead}"))
}

#[derive(Clone, Copy)]
enum Shape {
    Text,
    Number,
    Bool,
    List,
}

impl Layers {
    fn new(env: Environment) -> Self {
        let values = match serde_json::to_value(Settings::defaults(env)) {
            Ok(Value::Object(values)) => values,
            _ => unreachable!("settings serialise to an object"),
        };
        let origins = values.keys().map(|name| (name.clone(), Origin::Default)).collect();
        let fields = super::docs::fields();
        let optional = fields.iter().filter(|field| field.optional).map(|field| field.name.clone()).collect();
        let secrets = fields.iter().filter(|field| field.secret).map(|field| field.name.clone()).collect();
        let shapes = fields
            .into_iter()
            .map(|field| {
                let shape = match field.kind.as_str() {
                    "integer" => Shape::Number,
                    "boolean" => Shape::Bool,
                    "array" => Shape::List,
                    _ => Shape::Text,
                };
                (field.name, shape)
            })
            .collect();
        let (problems, warnings, first_start) = (Vec::new(), Vec::new(), Vec::new());
        let found = BTreeMap::new();
        Self { env, values, origins, shapes, optional, secrets, found, problems, warnings, first_start }
    }

    fn add_table(&mut self, table: Map<String, Value>, path: &Path) {
        for (name, value) in table {
            if self.shapes.contains_key(&name) {
                let absent = self.optional.contains(&name) && value.as_str() == Some("");
                self.origins.insert(name.clone(), Origin::File(path.to_owned()));
                self.values.insert(name, if absent { Value::Null } else { value });
            } else if let Some(warning) = retired(&name, &format!("`{}`: setting `{name}`", path.display())) {
                self.warnings.push(warning);
            } else {
                let hint = self.suggestion(&name);
                let told = format!("`{}`: there is no setting `{}`{hint}", path.display(), printable(&name));
                self.problems.push(Wrong { setting: None, told });
            }
        }
    }

    fn add_variables(&mut self, variables: &BTreeMap<String, String>, origin: impl Fn(&str) -> Origin) {
        for (variable, text) in variables {
            let Some(name) = variable.strip_prefix("TOOLYARD_") else { continue };
            let name = name.to_ascii_lowercase();
            if self.shapes.contains_key(&name) {
                self.set_text(&name, text, origin(variable), variable);
            } else if let Some(warning) = retired(&name, variable) {
                self.warnings.push(warning);
            } else if !CLIENT_VARIABLES.contains(&variable.as_str()) && !variable.starts_with("TOOLYARD_TEST_") {
                let hint = self.suggestion(&name);
                self.warnings.push(format!("unknown variable `{}`{hint}", printable(variable)));
            }
        }
    }

    fn set_text(&mut self, name: &str, text: &str, origin: Origin, shown: &str) {
        let Some(&shape) = self.shapes.get(name) else {
            if let Some(warning) = retired(name, shown) {
                self.warnings.push(warning);
                return;
            }
            let hint = self.suggestion(name);
            let told = format!("{shown}: there is no setting `{}`{hint}", printable(name));
            self.problems.push(Wrong { setting: None, told });
            return;
        };
        // Of a value in the place of another only this one counts.
        self.found.remove(name);
        if let Some((weight, why)) = self.left_over(name, text, &origin) {
            self.found.insert(name.to_owned(), (weight, format!("{shown} {why}")));
            if weight == Weight::Refused {
                self.origins.insert(name.to_owned(), origin);
                return;
            }
        }
        let value = match shape {
            _ if text.is_empty() && self.optional.contains(name) => Some(Value::Null),
            Shape::Text => Some(Value::String(text.to_owned())),
            Shape::Number => text.trim().parse::<i64>().ok().map(Value::from),
            Shape::Bool => match text.trim() {
                "true" | "1" | "yes" | "on" => Some(Value::Bool(true)),
                "false" | "0" | "no" | "off" => Some(Value::Bool(false)),
                _ => None,
            },
            Shape::List => Some(text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect()),
        };
        self.origins.insert(name.to_owned(), origin);
        match value {
            Some(value) => drop(self.values.insert(name.to_owned(), value)),
            None => {
                let wanted = if matches!(shape, Shape::Bool) { "true or false" } else { "a whole number" };
                self.problems.push(Wrong::of(name, format!("{shown} must be {wanted}")));
            }
        }
    }

    /// What a shell would have taken out of a value or filled in, and nobody did, as variables may come from a file that no
    /// shell reads. Only what an address or a key cannot be meant to hold is refused: a password may hold anything. Quotes
    /// around all of it are meant for the shell whatever it is: no path, name or number is written with them.
    fn left_over(&self, name: &str, text: &str, origin: &Origin) -> Option<(Weight, &'static str)> {
        let is_secret = self.secrets.contains(name);
        let (refused, why) = match origin {
            // `.env` has quotes around values and comments behind them, and takes both away.
            Origin::Variable(_) if is_quoted(text) => (true, QUOTED),
            Origin::Variable(_) if has_comment(text) => (!is_secret || name == "bootstrap_api_key", COMMENT),
            Origin::Variable(_) | Origin::DotEnv if text.contains("$(") || text.contains("${") => {
                (is_secret || ADDRESSES.contains(&name), UNFILLED)
            }
            Origin::Variable(_) if name == "bootstrap_api_key" && text.contains('$') => (false, DOLLAR),
            _ => return None,
        };
        let weight = match refused {
            _ if FIRST_START.contains(&name) => Weight::FirstStart,
            true => Weight::Refused,
            false => Weight::Warned,
        };
        Some((weight, why))
    }

    fn suggestion(&self, name: &str) -> String {
        let close = |known: &&String| known.contains(name) || name.contains(known.as_str());
        self.shapes.keys().find(close).map_or(String::new(), |known| format!("; did you mean `{known}`?"))
    }

    fn finish(mut self) -> Survey {
        for (name, (weight, told)) in std::mem::take(&mut self.found) {
            match weight {
                Weight::Refused => self.problems.push(Wrong::of(&name, told)),
                Weight::FirstStart => self.first_start.push(told),
                Weight::Warned => self.warnings.push(told),
            }
        }
        // Field by field first, so that every mistake is named at once and by its setting.
        let probe = serde_json::to_value(Settings::defaults(Environment::Development)).unwrap_or_default();
        let fields = super::docs::fields();
        for (name, value) in &self.values {
            let mut probe = probe.clone();
            probe[name] = value.clone();
            if serde_json::from_value::<Settings>(probe).is_err() {
                let origin = self.origins.get(name).cloned().unwrap_or(Origin::Default);
                let field = fields.iter().find(|field| field.name == *name);
                let wanted = field.map_or("another value".to_owned(), super::docs::wanted);
                self.problems.push(Wrong::of(name, format!("setting `{name}` ({origin}) must be {wanted}")));
            }
        }
        let out_of_range = super::docs::out_of_range(&self.values);
        self.problems.extend(out_of_range.into_iter().map(|(name, told)| Wrong::of(&name, told)));
        self.complete_proxy();
        for (name, why) in self.readable().map(|settings| forms(&settings)).unwrap_or_default() {
            let origin = self.origins.get(name).cloned().unwrap_or(Origin::Default);
            let told = format!("setting `{name}` ({origin}): {why}");
            if FIRST_START.contains(&name) {
                self.first_start.push(told);
            } else {
                self.problems.push(Wrong::of(name, told));
            }
        }
        let settings = self.readable().unwrap_or_else(|| {
            let told = "the settings do not fit together".to_owned();
            self.problems.push(Wrong { setting: None, told });
            Settings::defaults(self.env)
        });
        let Self { origins, problems, warnings, first_start, .. } = self;
        Survey { settings, origins, problems, warnings, first_start }
    }

    /// Gives a proxy without a scheme that of HTTP, which is what it was taken for before one was asked for, and is by most
    /// of those who get it.
    fn complete_proxy(&mut self) {
        let Some(Value::String(proxy)) = self.values.get("proxy") else { return };
        let completed = format!("http://{}", proxy.trim());
        if proxy.contains("://") || !has_host(&completed) {
            return;
        }
        let origin = self.origins.get("proxy").cloned().unwrap_or(Origin::Default);
        let why = "has no scheme, and is taken for one of HTTP; write it as a URL such as `http://proxy.example:3128`";
        self.warnings.push(format!("setting `proxy` ({origin}): {why}"));
        self.values.insert("proxy".to_owned(), Value::String(completed));
    }

    /// The settings with the defaults in the place of those that are known to be wrong; nothing where they are none together.
    fn readable(&self) -> Option<Settings> {
        let mut values = self.values.clone();
        let defaults = serde_json::to_value(Settings::defaults(self.env)).unwrap_or_default();
        for name in self.problems.iter().filter_map(|wrong| wrong.setting.as_ref()) {
            // One that is absent by default is not in the defaults.
            values.insert(name.clone(), defaults[name].clone());
        }
        serde_json::from_value(Value::Object(values)).ok()
    }
}

/// What something that is wrong with a value leads to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Weight {
    Refused,
    /// Refused when the first member is to be made, a warning afterwards.
    FirstStart,
    Warned,
}

const COMMENT: &str = "has a `#` after or before a blank: where variables come from a file, a comment behind a value is part \
                       of it; put it on a line of its own";
const QUOTED: &str = "has quotes around it: where variables come from a file, such as that of `docker run --env-file`, they are \
                      part of the value; write it without them";
const UNFILLED: &str = "has `$(` or `${` in it: where variables come from a file, no shell fills that in; write the value \
                        itself there (in a URL, a `$` that is meant is `%24`)";
const DOLLAR: &str = "has a `$` in it: where variables come from a file, no shell fills in what it names; make a key with \
                      `openssl rand -hex 32` and write it there";

/// Whether a value holds what was meant as a comment: behind it, or instead of it.
fn has_comment(text: &str) -> bool {
    let behind = text.match_indices('#').any(|(at, _)| text[..at].ends_with(char::is_whitespace));
    behind || text.strip_prefix('#').is_some_and(|rest| rest.starts_with(char::is_whitespace))
}

/// Whether a value has the quotes around it that a shell takes away.
fn is_quoted(text: &str) -> bool {
    let text = text.trim();
    text.len() > 1 && ['"', '\''].iter().any(|quote| text.starts_with(*quote) && text.ends_with(*quote))
}

/// Texts that are not of their form, by setting; never their value.
fn forms(settings: &Settings) -> Vec<(&'static str, String)> {
    let mut wrong = Vec::new();
    if let Some(Err(error)) = settings.vault_key.as_ref().map(VaultKeys::check_form) {
        wrong.push(("vault_key", error.to_string()));
    }
    if settings.public_url.as_deref().is_some_and(|url| !is_address(url)) {
        wrong.push(("public_url", "must be an address such as `https://toolyard.example.com`".to_owned()));
    }
    if settings.bootstrap_admin_email.as_deref().is_some_and(|email| !toolyard_control::is_email(email)) {
        wrong.push(("bootstrap_admin_email", "must be an e-mail address such as `name@example.org`".to_owned()));
    }
    let has_blanks = |key: &Secret| key.expose().contains(char::is_whitespace);
    if settings.bootstrap_api_key.as_ref().is_some_and(has_blanks) {
        let why = "must have no blanks; make a key with `openssl rand -hex 32` and write it there";
        wrong.push(("bootstrap_api_key", why.to_owned()));
    }
    let is_database = |url: &Secret| has_scheme(url.expose(), &["postgres", "postgresql"]);
    if settings.database_url.as_ref().is_some_and(|url| !is_database(url)) {
        wrong.push(("database_url", "must be a URL such as `postgres://user:password@host/database`".to_owned()));
    }
    if settings.proxy.as_deref().is_some_and(|url| !has_scheme(url, &PROXIES) || !has_host(url)) {
        wrong.push(("proxy", "must be a URL such as `http://proxy.example:3128`".to_owned()));
    }
    // Until something is synced nobody asks there.
    let is_registry = has_scheme(&settings.registry_url, &["http", "https"]) && has_host(&settings.registry_url);
    if settings.registry_sync && !is_registry {
        let why = "must be a URL such as `https://registry.modelcontextprotocol.io`".to_owned();
        wrong.push(("registry_url", why));
    }
    if crate::telemetry::filter(&settings.log).is_err() {
        wrong.push(("log", "must be a filter such as `info` or `info,toolyard_gateway=debug`".to_owned()));
    }
    wrong
}

/// Kinds of proxies that one of those who use it knows: Toolyard, package clients, servers.
const PROXIES: [&str; 6] = ["http", "https", "socks4", "socks4a", "socks5", "socks5h"];

fn has_scheme(url: &str, schemes: &[&str]) -> bool {
    let begins = url
        .trim()
        .split_once("://")
        .is_some_and(|(scheme, _)| schemes.iter().any(|it| it.eq_ignore_ascii_case(scheme)));
    begins && reqwest::Url::parse(url).is_ok()
}

fn has_host(url: &str) -> bool {
    reqwest::Url::parse(url).is_ok_and(|url| url.has_host())
}

/// Whether it is an origin that browsers and clients can be told (RFC 9110, section 4.2), without user or query.
fn is_address(url: &str) -> bool {
    let Ok(parsed) = reqwest::Url::parse(url) else { return false };
    let plain = url.bytes().all(|byte| byte.is_ascii_graphic());
    let more = parsed.query().is_some() || parsed.fragment().is_some() || !parsed.username().is_empty();
    plain && matches!(parsed.scheme(), "http" | "https") && parsed.has_host() && !more && parsed.password().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn flag(name: &str, value: &str) -> Overrides {
        Overrides { set: vec![(name.into(), value.into())], ..Overrides::default() }
    }

    #[test]
    fn an_agent_takes_no_data_directory_of_a_control_plane() {
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path().join(".toolyard");
        let agent = Overrides { for_agent: true, ..Overrides::default() };
        let refused =
            |overrides: &Overrides| load(&environment(&[]), dir.path(), overrides).err().map(|it| it.0.concat());
        assert_eq!(refused(&agent), None, "nobody uses it");
        std::fs::create_dir(&data).expect("a directory");
        std::fs::write(data.join("serve.lock"), "").expect("a file");
        let told = refused(&agent).expect("serve uses it");
        assert!(told.starts_with("setting `data_dir` (default): `.toolyard`") && told.contains("--data-dir"), "{told}");
        assert_eq!(refused(&Overrides::default()), None, "it is that of serve");
        let at = |data_dir: &str| Overrides { set: vec![("data_dir".into(), data_dir.into())], ..agent.clone() };
        assert_eq!(refused(&at("other")), None);
        assert!(refused(&at(".toolyard/toolbox")).is_some(), "it is that of serve's own toolbox");
        assert_eq!(refused(&at("other/toolbox")), None);
        std::fs::create_dir(data.join("identity")).expect("a directory");
        std::fs::write(data.join("identity/identity.json"), "{}").expect("a file");
        assert_eq!(refused(&agent), None, "an agent has joined there already");
    }

    #[test]
    fn a_flag_beats_the_environment_which_beats_dot_env_which_beats_the_file_which_beats_the_default() {
        let dir = tempfile::tempdir().expect("a directory");
        let load_with = |env: &[(&str, &str)], overrides: &Overrides| {
            let survey = survey(&environment(env), dir.path(), overrides).expect("valid");
            (survey.settings.session_hours, survey.origins["session_hours"].clone())
        };
        assert_eq!(load_with(&[], &Overrides::default()), (12, Origin::Default));
        let file = dir.path().join("toolyard.toml");
        std::fs::write(&file, "session_hours = 1").expect("a file");
        assert_eq!(load_with(&[], &Overrides::default()), (1, Origin::File(file)));
        std::fs::write(dir.path().join(".env"), "TOOLYARD_SESSION_HOURS=2\n").expect("a file");
        assert_eq!(load_with(&[], &Overrides::default()), (2, Origin::DotEnv));
        let variables = [("TOOLYARD_SESSION_HOURS", "3")];
        assert_eq!(
            load_with(&variables, &Overrides::default()),
            (3, Origin::Variable("TOOLYARD_SESSION_HOURS".into()))
        );
        assert_eq!(load_with(&variables, &flag("session_hours", "4")), (4, Origin::Flag));
    }

    #[test]
    fn dot_env_is_not_read_in_production() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join(".env"), "TOOLYARD_SESSION_HOURS=2\n").expect("a file");
        let loaded =
            load(&environment(&[("TOOLYARD_ENV", "production")]), dir.path(), &Overrides::default()).expect("valid");
        assert_eq!(loaded.settings.session_hours, 12);
    }

    #[test]
    fn an_empty_text_takes_a_setting_away_and_a_retired_one_is_warned_about() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("toolyard.toml"), "metrics_public = true\nproxy = \"\"").expect("a file");
        let variables = environment(&[("TOOLYARD_ENV", "production"), ("TOOLYARD_OPERATIONS_LISTEN", "")]);
        let loaded = load(&variables, dir.path(), &Overrides::default()).expect("valid");
        assert_eq!((loaded.settings.operations_listen, loaded.settings.proxy), (None, None));
        assert!(loaded.warnings.iter().any(|warning| warning.contains("operations_listen")), "{:?}", loaded.warnings);
    }

    #[test]
    fn an_unknown_environment_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let error = load(&environment(&[("TOOLYARD_ENV", "prod")]), dir.path(), &Overrides::default());
        assert!(error.expect_err("unknown").to_string().contains("development, staging, production"));
    }

    #[test]
    fn every_mistake_is_named_at_once_and_values_are_not_shown() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("toolyard.toml"), "data_dri = '/x'").expect("a file");
        let variables = environment(&[("TOOLYARD_LISTEN", "hunter2"), ("TOOLYARD_DRAIN_SECONDS", "9999")]);
        let error = load(&variables, dir.path(), &flag("cookie_secure", "maybe")).expect_err("four mistakes");
        assert_eq!(error.0.len(), 4, "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn a_value_of_another_type_is_refused_with_what_would_be_valid() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = "listen = 5\nengine = \"vm\"\nsession_hours = \"many\"\ncookie_secure = 1\ntrusted_proxies = [\"x\"]\n\
                    dtma_listen = \"x\"";
        std::fs::write(dir.path().join("toolyard.toml"), file).expect("a file");
        let error = load(&environment(&[]), dir.path(), &Overrides::default()).expect_err("six mistakes").to_string();
        for (name, wanted) in [
            ("listen", "must be text such as `127.0.0.1:8080`"),
            ("dtma_listen", "must be text such as `127.0.0.1:8080`"),
            ("engine", "`docker`"),
            ("session_hours", "must be a whole number such as `12`"),
            ("cookie_secure", "must be true or false"),
            ("trusted_proxies", "must be a list of texts such as `127.0.0.0/8"),
        ] {
            let line = error.lines().find(|line| line.starts_with(&format!("setting `{name}` ")));
            assert!(line.is_some_and(|line| line.contains(wanted)), "{name}: {error}");
        }
    }

    #[test]
    fn a_vault_key_of_another_form_is_refused_by_name_and_not_shown() {
        let dir = tempfile::tempdir().expect("a directory");
        let load_with =
            |key: &str| load(&environment(&[("TOOLYARD_VAULT_KEY", key)]), dir.path(), &Overrides::default());
        for bad in ["abc", "hunter2-hunter2-hunter2-hunter2-hunter2-hunter2-hunter2-hunter2-"] {
            let error = load_with(bad).expect_err("no key").to_string();
            assert!(
                error.contains("`vault_key` (environment TOOLYARD_VAULT_KEY)") && error.contains("64 digits"),
                "{error}"
            );
            assert!(!error.contains(bad), "{error}");
        }
        assert!(load_with(&"0a".repeat(32)).is_ok() && load_with("").is_ok());
    }

    #[test]
    fn a_line_of_a_file_of_variables_is_not_taken_with_its_comment() {
        let dir = tempfile::tempdir().expect("a directory");
        let load_with =
            |name: &str, value: &str| load(&environment(&[(name, value)]), dir.path(), &Overrides::default());
        for (name, bad) in [
            ("TOOLYARD_PUBLIC_URL", "https://toolyard.example    # the proxy in front"),
            ("TOOLYARD_PUBLIC_URL", "# https://toolyard.example"),
            ("TOOLYARD_GRANTABLE_PATHS", "/srv/files,/home/*\t# for example"),
            ("TOOLYARD_GRANTABLE_PATHS", "/srv/a#b # for example"),
            ("TOOLYARD_SESSION_HOURS", "2 # hours"),
            ("TOOLYARD_BOOTSTRAP_API_KEY", "ty_key-of-mine # of CI"),
        ] {
            let error = load_with(name, bad).expect_err(bad).to_string();
            assert!(error.contains(name) && error.contains("comment") && !error.contains("mine"), "{error}");
        }
        for good in ["https://toolyard.example", "http://127.0.0.1:8080", "https://toolyard.example/"] {
            assert!(load_with("TOOLYARD_PUBLIC_URL", good).is_ok(), "{good}");
        }
        // A password may hold anything, and one that works goes on to.
        for bad in ["a long password #1", "# a long password"] {
            let loaded = load_with("TOOLYARD_BOOTSTRAP_ADMIN_PASSWORD", bad).expect(bad);
            let told = loaded.first_start.concat();
            assert!(told.contains("comment") && !told.contains("long"), "{told}");
            assert_eq!(loaded.settings.bootstrap_admin_password.expect("a password").expose(), bad);
        }
        let loaded = load_with("TOOLYARD_DATABASE_URL", "postgres://db/toolyard?x= # mine").expect("a URL");
        assert!(loaded.first_start.is_empty() && loaded.warnings.concat().contains("comment"), "{:?}", loaded.warnings);
        assert!(
            load_with("TOOLYARD_BOOTSTRAP_ADMIN_PASSWORD", "a#long-password").is_ok_and(|it| it.first_start.is_empty())
        );
    }

    #[test]
    fn what_no_shell_filled_in_is_no_secret_and_no_address() {
        let dir = tempfile::tempdir().expect("a directory");
        let load_with =
            |name: &str, value: &str| load(&environment(&[(name, value)]), dir.path(), &Overrides::default());
        for (name, bad) in [
            ("TOOLYARD_BOOTSTRAP_API_KEY", "$(openssl-rand)"),
            ("TOOLYARD_BOOTSTRAP_API_KEY", "ty_bootstrap_${KEY}"),
            ("TOOLYARD_VAULT_KEY", "$(cat /etc/key)"),
            ("TOOLYARD_DATABASE_URL", "postgres://toolyard:${PASSWORD}@db/toolyard"),
            ("TOOLYARD_PUBLIC_URL", "https://$(hostname)"),
            ("TOOLYARD_PROXY", "http://${PROXY}:3128"),
            ("TOOLYARD_ALLOWED_HOSTS", "toolyard.example,${HOST}"),
            ("TOOLYARD_AGENT_ADDRESSES", "$(hostname):8081"),
        ] {
            let error = load_with(name, bad).expect_err(bad).to_string();
            assert!(error.contains(name) && error.contains("no shell") && !error.contains(bad), "{error}");
        }
        for (name, bad) in [
            ("TOOLYARD_BOOTSTRAP_ADMIN_PASSWORD", "$(openssl rand -hex 16)"),
            ("TOOLYARD_BOOTSTRAP_ADMIN_EMAIL", "admin@${DOMAIN}"),
        ] {
            let loaded = load_with(name, bad).expect("an installation that is used starts");
            let told = loaded.first_start.concat();
            assert!(told.contains(name) && told.contains("no shell") && !told.contains(bad), "{told}");
        }
        let path = load_with("TOOLYARD_DATA_DIR", "${HOME}/toolyard").expect("a directory may be called so");
        assert!(path.warnings.concat().contains("TOOLYARD_DATA_DIR"), "{:?}", path.warnings);
        let key = load_with("TOOLYARD_BOOTSTRAP_API_KEY", "ty_$KEY").expect("a key may be like this");
        assert!(key.warnings.concat().contains("no shell"), "{:?}", key.warnings);
        assert!(load_with("TOOLYARD_BOOTSTRAP_ADMIN_PASSWORD", "pa$$word").is_ok_and(|it| it.first_start.is_empty()));
        std::fs::write(dir.path().join(".env"), "TOOLYARD_PUBLIC_URL='https://${HOST}'\n").expect("a file");
        let error = load(&environment(&[]), dir.path(), &Overrides::default()).expect_err("nothing fills it in");
        assert!(error.to_string().contains("TOOLYARD_PUBLIC_URL"), "{error}");
        let instead = load_with("TOOLYARD_PUBLIC_URL", "https://toolyard.example").expect("another one counts");
        assert_eq!(instead.settings.public_url.as_deref(), Some("https://toolyard.example"));
    }

    #[test]
    fn quotes_that_a_file_of_variables_keeps_are_no_part_of_a_value() {
        let dir = tempfile::tempdir().expect("a directory");
        let load_with =
            |name: &str, value: &str| load(&environment(&[(name, value)]), dir.path(), &Overrides::default());
        for (name, bad) in [
            ("TOOLYARD_DATABASE_URL", "\"postgres://me:hunter2@db/toolyard\""),
            ("TOOLYARD_BOOTSTRAP_API_KEY", "'ty_hunter2'"),
            ("TOOLYARD_PUBLIC_URL", "\"https://hunter2.example\""),
            ("TOOLYARD_DATA_DIR", "\"/srv/hunter2\""),
            ("TOOLYARD_GRANTABLE_PATHS", "\"/srv/a\",\"/srv/hunter2\""),
            ("TOOLYARD_SESSION_HOURS", "'2'"),
            ("TOOLYARD_COOKIE_SECURE", "\"true\""),
            ("TOOLYARD_LOG", "\"info\""),
        ] {
            let error = load_with(name, bad).expect_err(bad).to_string();
            assert!(error.contains(name) && error.contains("quotes") && !error.contains("hunter2"), "{error}");
        }
        for (name, bad) in [
            ("TOOLYARD_BOOTSTRAP_ADMIN_PASSWORD", "\"correct-horse-battery\""),
            ("TOOLYARD_BOOTSTRAP_ADMIN_EMAIL", "'you@example.com'"),
        ] {
            let loaded = load_with(name, bad).expect("an installation that is used starts");
            let told = loaded.first_start.concat();
            assert!(told.contains(name) && told.contains("quotes") && !told.contains(bad), "{told}");
        }
        for good in ["\"correct horse", "it's a \"password\" of 1", "\""] {
            assert!(load_with("TOOLYARD_BOOTSTRAP_ADMIN_PASSWORD", good).is_ok_and(|it| it.first_start.is_empty()));
        }
        std::fs::write(dir.path().join(".env"), "TOOLYARD_PUBLIC_URL=\"https://t.example\"\n").expect("a file");
        let loaded = load(&environment(&[]), dir.path(), &Overrides::default()).expect("`.env` has quotes of its own");
        assert_eq!(loaded.settings.public_url.as_deref(), Some("https://t.example"));
    }

    #[test]
    fn the_example_of_a_file_of_variables_works_as_it_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let lines = super::super::docs::env_example().replace("\n#TOOLYARD_", "\nTOOLYARD_");
        std::fs::write(dir.path().join(".env"), &lines).expect("a file");
        let loaded = load(&environment(&[]), dir.path(), &Overrides::default()).expect("valid");
        assert_eq!(loaded.warnings, Vec::<String>::new());
        let shown = |settings: &Settings| serde_json::to_value(settings).expect("settings serialise");
        assert_eq!(shown(&loaded.settings), shown(&Settings::defaults(Environment::Development)));
        let error = load(&environment(&[("TOOLYARD_SESSION_HOURS", "")]), dir.path(), &Overrides::default());
        assert!(error.expect_err("it may not be absent").to_string().contains("a whole number"));
    }

    #[test]
    fn what_is_wrong_stands_beside_the_settings_that_are_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let variables = [
            ("TOOLYARD_SESSION_HOURS", "many"),
            ("TOOLYARD_DRAIN_SECONDS", "9999"),
            ("TOOLYARD_PROXY", "http://:3128"),
            ("TOOLYARD_NPM", "/opt/npm"),
        ];
        let survey = survey(&environment(&variables), dir.path(), &Overrides::default()).expect("it can be read");
        let mut wrong: Vec<_> = survey.problems.iter().filter_map(|wrong| wrong.setting.as_deref()).collect();
        wrong.sort_unstable();
        assert_eq!(wrong, ["drain_seconds", "proxy", "session_hours"]);
        assert_eq!((survey.settings.npm.as_str(), survey.settings.drain_seconds), ("/opt/npm", 30));
        assert_eq!(survey.origins["session_hours"], Origin::Variable("TOOLYARD_SESSION_HOURS".into()));
    }

    #[test]
    fn a_range_is_told_by_the_ends_that_it_has() {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, bad, told) in [
            ("TOOLYARD_AUDIT_MAX_RECORDS", "5", "must be at least 1000"),
            ("TOOLYARD_SESSION_HOURS", "0", "must be between 1 and 720"),
        ] {
            let error = load(&environment(&[(name, bad)]), dir.path(), &Overrides::default()).expect_err(bad);
            assert!(error.to_string().contains(told), "{error}");
        }
    }

    #[test]
    fn a_file_and_a_flag_are_taken_as_they_are() {
        let dir = tempfile::tempdir().expect("a directory");
        let key = "ty_a$(b)#c${d}";
        let loaded = load(&environment(&[]), dir.path(), &flag("bootstrap_api_key", key)).expect("valid");
        assert_eq!((loaded.warnings, loaded.first_start), (Vec::new(), Vec::new()));
        std::fs::write(dir.path().join("toolyard.toml"), format!("bootstrap_api_key = '{key}'")).expect("a file");
        assert!(load(&environment(&[]), dir.path(), &Overrides::default()).is_ok());
        let error = load(&environment(&[]), dir.path(), &flag("bootstrap_api_key", "ty_a b")).expect_err("a blank");
        let told = error.to_string();
        assert!(told.contains("blanks") && !told.contains("variables") && !told.contains("ty_a b"), "{told}");
    }

    #[test]
    fn an_address_an_e_mail_address_and_a_key_of_another_form_are_refused_by_name() {
        let dir = tempfile::tempdir().expect("a directory");
        let load_with =
            |name: &str, value: &str| load(&environment(&[(name, value)]), dir.path(), &Overrides::default());
        for (name, bad) in [
            ("PUBLIC_URL", "toolyard.test"),
            ("PUBLIC_URL", "https://:80"),
            ("PUBLIC_URL", "ftp://toolyard.example"),
            ("PUBLIC_URL", "https://toolyard.example in front"),
            ("PUBLIC_URL", "https://user:hunter2@toolyard.example"),
            ("PUBLIC_URL", "https://toolyard.example#x"),
            ("BOOTSTRAP_API_KEY", "ty_bootstrap_ of mine"),
            ("DATABASE_URL", "mysql://me:hunter2@db/toolyard"),
            ("DATABASE_URL", "db.example/toolyard"),
            ("PROXY", "http://:3128"),
            ("PROXY", "ftp://proxy:3128"),
            ("PROXY", "http:proxy:3128"),
            ("PROXY", ":8888"),
            ("LOG", "nonsense["),
        ] {
            let error = load_with(&format!("TOOLYARD_{name}"), bad).expect_err(bad).to_string();
            assert!(error.contains(&format!("setting `{}`", name.to_lowercase())), "{error}");
            assert!(!error.contains(bad), "{error}");
        }
        for (name, good) in [
            ("DATABASE_URL", "postgresql:///toolyard?host=/run/postgresql"),
            ("DATABASE_URL", "postgres://me:hunter2@[::1]:5432/toolyard?sslmode=verify-full"),
            ("PROXY", "http://me:hunter2@proxy:3128"),
            ("PROXY", "socks5h://127.0.0.1:1080"),
            ("PROXY", "proxy:3128"),
            ("PROXY", ""),
            ("REGISTRY_URL", ""),
            ("REGISTRY_URL", "http://me:hunter2@127.0.0.1:5000/mcp"),
            ("LOG", "info,toolyard_gateway=debug"),
        ] {
            assert!(load_with(&format!("TOOLYARD_{name}"), good).is_ok(), "{name} {good}");
        }
        for bad in ["you", "you@example.com or another"] {
            let loaded = load_with("TOOLYARD_BOOTSTRAP_ADMIN_EMAIL", bad).expect("an installation that is used starts");
            let told = loaded.first_start.concat();
            assert!(told.contains("setting `bootstrap_admin_email`") && !told.contains("another"), "{told}");
        }
    }

    #[test]
    fn a_proxy_without_a_scheme_is_one_of_http_and_warned_about() {
        let dir = tempfile::tempdir().expect("a directory");
        let load_with =
            |proxy: &str| load(&environment(&[("TOOLYARD_PROXY", proxy)]), dir.path(), &Overrides::default());
        for bare in ["10.0.0.1:3128", "proxy:3128", "proxy", "localhost:3128", "[::1]:3128", "me:hunter2@proxy:3128"] {
            let loaded = load_with(bare).expect(bare);
            assert_eq!(loaded.settings.proxy, Some(format!("http://{bare}")));
            let told = loaded.warnings.concat();
            assert!(told.contains("setting `proxy` (environment TOOLYARD_PROXY)"), "{told}");
            assert!(told.contains("`http://proxy.example:3128`") && !told.contains("hunter2"), "{told}");
        }
        let whole = load_with("http://proxy:3128").expect("a URL");
        assert_eq!((whole.settings.proxy.as_deref(), whole.warnings), (Some("http://proxy:3128"), Vec::new()));
    }

    #[test]
    fn the_address_of_a_registry_counts_when_something_is_synced() {
        let dir = tempfile::tempdir().expect("a directory");
        for bad in ["", "foo", "registry.example/v0", "ftp://registry.example"] {
            let load_with = |sync: &str| {
                let variables = environment(&[("TOOLYARD_REGISTRY_URL", bad), ("TOOLYARD_REGISTRY_SYNC", sync)]);
                load(&variables, dir.path(), &Overrides::default())
            };
            assert!(load_with("false").is_ok(), "{bad}");
            let error = load_with("true").expect_err("nothing can be synced").to_string();
            assert!(error.contains("setting `registry_url`"), "{error}");
        }
    }

    #[test]
    fn what_is_said_of_addresses_and_of_the_first_start_is_said_of_settings() {
        let fields = super::super::docs::fields();
        for name in FIRST_START.iter().chain(&ADDRESSES) {
            assert!(fields.iter().any(|field| field.name == *name), "{name}");
        }
    }

    #[test]
    fn an_unknown_variable_warns_and_a_client_variable_does_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let variables = environment(&[("TOOLYARD_LISTENN", "x"), ("TOOLYARD_API_KEY", "ty_x")]);
        let loaded = load(&variables, dir.path(), &Overrides::default()).expect("valid");
        assert_eq!(loaded.warnings, ["unknown variable `TOOLYARD_LISTENN`; did you mean `listen`?"]);
    }
}
