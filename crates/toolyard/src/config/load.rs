//! Filling the settings, layer by layer, with the origin of every value.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use toolyard_control::VaultKeys;
use toolyard_types::Secret;
use toolyard_types::name::printable;

use super::{CLIENT_VARIABLES, Environment, Settings};

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
}

/// The settings and where each came from.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// The origin of each field.
    pub origins: BTreeMap<String, Origin>,
    /// Things worth a warning, such as an unknown `TOOLYARD_` variable.
    pub warnings: Vec<String>,
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
    layers.finish()
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
    values: Map<String, Value>,
    origins: BTreeMap<String, Origin>,
    shapes: BTreeMap<String, Shape>,
    problems: Vec<String>,
    warnings: Vec<String>,
}

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
    OptionalText,
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
        let shapes = super::docs::fields()
            .into_iter()
            .map(|field| {
                let shape = match field.kind.as_str() {
                    "integer" => Shape::Number,
                    "boolean" => Shape::Bool,
                    "array" => Shape::List,
                    _ if field.optional => Shape::OptionalText,
                    _ => Shape::Text,
                };
                (field.name, shape)
            })
            .collect();
        Self { values, origins, shapes, problems: Vec::new(), warnings: Vec::new() }
    }

    fn add_table(&mut self, table: Map<String, Value>, path: &Path) {
        for (name, value) in table {
            if self.shapes.contains_key(&name) {
                let absent = matches!(self.shapes[&name], Shape::OptionalText) && value.as_str() == Some("");
                self.origins.insert(name.clone(), Origin::File(path.to_owned()));
                self.values.insert(name, if absent { Value::Null } else { value });
            } else if let Some(warning) = retired(&name, &format!("`{}`: setting `{name}`", path.display())) {
                self.warnings.push(warning);
            } else {
                let hint = self.suggestion(&name);
                self.problems.push(format!("`{}`: there is no setting `{}`{hint}", path.display(), printable(&name)));
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
        let Some(shape) = self.shapes.get(name) else {
            if let Some(warning) = retired(name, shown) {
                self.warnings.push(warning);
                return;
            }
            let hint = self.suggestion(name);
            self.problems.push(format!("{shown}: there is no setting `{}`{hint}", printable(name)));
            return;
        };
        if let Origin::Variable(_) = origin
            && has_comment(text)
        {
            self.problems.push(format!(
                "{shown} has a `#` after a blank: where variables come from a file, a comment behind a value is part of it; \
                 put it on a line of its own"
            ));
            return;
        }
        let value = match shape {
            Shape::OptionalText if text.is_empty() => Some(Value::Null),
            Shape::Text | Shape::OptionalText => Some(Value::String(text.to_owned())),
            Shape::Number => text.trim().parse::<i64>().ok().map(Value::from),
            Shape::Bool => match text.trim() {
                "true" | "1" | "yes" | "on" => Some(Value::Bool(true)),
                "false" | "0" | "no" | "off" => Some(Value::Bool(false)),
                _ => None,
            },
            Shape::List => Some(text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect()),
        };
        match value {
            Some(value) => {
                self.origins.insert(name.to_owned(), origin);
                self.values.insert(name.to_owned(), value);
            }
            None => {
                let wanted = if matches!(shape, Shape::Bool) { "true or false" } else { "a whole number" };
                self.problems.push(format!("{shown} must be {wanted}"));
            }
        }
    }

    fn suggestion(&self, name: &str) -> String {
        let close = |known: &&String| known.contains(name) || name.contains(known.as_str());
        self.shapes.keys().find(close).map_or(String::new(), |known| format!("; did you mean `{known}`?"))
    }

    fn finish(mut self) -> Result<Loaded, ConfigError> {
        // Field by field first, so that every mistake is named at once and by its setting.
        let defaults = serde_json::to_value(Settings::defaults(Environment::Development)).unwrap_or_default();
        let fields = super::docs::fields();
        for (name, value) in &self.values {
            let mut probe = defaults.clone();
            probe[name] = value.clone();
            if serde_json::from_value::<Settings>(probe).is_err() {
                let origin = self.origins.get(name).cloned().unwrap_or(Origin::Default);
                let field = fields.iter().find(|field| field.name == *name);
                let wanted = field.map_or("another value".to_owned(), super::docs::wanted);
                self.problems.push(format!("setting `{name}` ({origin}) must be {wanted}"));
            }
        }
        self.problems.extend(super::docs::out_of_range(&self.values));
        if !self.problems.is_empty() {
            return Err(ConfigError(self.problems));
        }
        let settings: Settings = serde_json::from_value(Value::Object(self.values))
            .map_err(|_| ConfigError(vec!["the settings do not fit together".into()]))?;
        let wrong: Vec<_> = forms(&settings)
            .into_iter()
            .map(|(name, why)| {
                let origin = self.origins.get(name).cloned().unwrap_or(Origin::Default);
                format!("setting `{name}` ({origin}): {why}")
            })
            .collect();
        if !wrong.is_empty() {
            return Err(ConfigError(wrong));
        }
        Ok(Loaded { settings, origins: self.origins, warnings: self.warnings })
    }
}

/// Whether a value ends in what was meant as a comment.
fn has_comment(text: &str) -> bool {
    text.split_once('#').is_some_and(|(before, _)| before.ends_with(char::is_whitespace))
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
    let unset = |key: &Secret| key.expose().contains(|c: char| c.is_whitespace() || matches!(c, '#' | '$' | '(' | '`'));
    if settings.bootstrap_api_key.as_ref().is_some_and(unset) {
        let why = "must have no blanks and none of the characters #, $, ( and `: where variables come from a file no shell \
                   fills them in; make a key with `openssl rand -hex 32` and write it there";
        wrong.push(("bootstrap_api_key", why.to_owned()));
    }
    wrong
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
        Overrides { file: None, set: vec![(name.into(), value.into())] }
    }

    #[test]
    fn a_flag_beats_the_environment_which_beats_dot_env_which_beats_the_file_which_beats_the_default() {
        let dir = tempfile::tempdir().expect("a directory");
        let load_with = |env: &[(&str, &str)], overrides: &Overrides| {
            let loaded = load(&environment(env), dir.path(), overrides).expect("valid");
            (loaded.settings.session_hours, loaded.origins["session_hours"].clone())
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
            ("TOOLYARD_GRANTABLE_PATHS", "/srv/files,/home/*\t# for example"),
            ("TOOLYARD_SESSION_HOURS", "2 # hours"),
            ("TOOLYARD_BOOTSTRAP_ADMIN_PASSWORD", "a long password #1"),
        ] {
            let error = load_with(name, bad).expect_err(bad).to_string();
            assert!(error.contains(name) && error.contains("comment") && !error.contains("long password"), "{error}");
        }
        for good in ["https://toolyard.example", "http://127.0.0.1:8080", "https://toolyard.example/"] {
            assert!(load_with("TOOLYARD_PUBLIC_URL", good).is_ok(), "{good}");
        }
        assert!(load_with("TOOLYARD_BOOTSTRAP_ADMIN_PASSWORD", "a#long-password").is_ok());
    }

    #[test]
    fn an_address_an_e_mail_address_and_a_key_of_another_form_are_refused_by_name() {
        let dir = tempfile::tempdir().expect("a directory");
        let load_with =
            |name: &str, value: &str| load(&environment(&[(name, value)]), dir.path(), &Overrides::default());
        for (name, bad) in [
            ("PUBLIC_URL", "toolyard.example"),
            ("PUBLIC_URL", "https://:80"),
            ("PUBLIC_URL", "ftp://toolyard.example"),
            ("PUBLIC_URL", "https://toolyard.example in front"),
            ("PUBLIC_URL", "https://user:hunter2@toolyard.example"),
            ("PUBLIC_URL", "https://toolyard.example#x"),
            ("BOOTSTRAP_ADMIN_EMAIL", "you"),
            ("BOOTSTRAP_ADMIN_EMAIL", "you@example.com or another"),
            ("BOOTSTRAP_API_KEY", "ty_bootstrap_$(openssl rand -hex 32)"),
            ("BOOTSTRAP_API_KEY", "ty_bootstrap_${KEY}"),
        ] {
            let error = load_with(&format!("TOOLYARD_{name}"), bad).expect_err(bad).to_string();
            assert!(error.contains(&format!("setting `{}`", name.to_lowercase())), "{error}");
            assert!(!error.contains(bad), "{error}");
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
