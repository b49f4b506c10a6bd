//! Where package clients get packages from, and what they are given to do so: an environment and a home directory made
//! from nothing, with a person's own registries, passwords for them, proxy and certificates.
//!
//! Nothing else of this host's environment reaches a client. What a person wrote for npm, uv and pip is copied for one
//! run; what names a place of this host that means nothing to a client (caches, prefixes, scripts) is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use toolyard_types::spec::EgressHost;

use crate::desired::write_whole;

/// What a client gets of this host's environment.
const PASSED: &[&str] = &["npm_config_", "uv_", "pip_", "ssl_cert_"];
const PASSED_WHOLE: &[&str] = &["node_extra_ca_certs", "node_use_system_ca", "requests_ca_bundle", "curl_ca_bundle"];
const PROXIES: &[&str] = &["http_proxy", "https_proxy", "all_proxy", "no_proxy"];
/// Places of this host that mean nothing to a client, or would let it run something.
const NOT_PASSED: &[&str] = &[
    "npm_config_cache",
    "npm_config_prefix",
    "npm_config_userconfig",
    "npm_config_globalconfig",
    "npm_config_git",
    "npm_config_shell",
    "npm_config_script_shell",
    "npm_config_node_options",
    "npm_config_tmp",
    "npm_config_logs_dir",
    "uv_cache_dir",
    "uv_config_file",
    "uv_env_file",
    "uv_python",
    "uv_python_install_dir",
    "uv_tool_dir",
    "uv_tool_bin_dir",
    "uv_working_dir",
    "uv_keyring_provider",
    "pip_config_file",
    "pip_cache_dir",
    "pip_target",
    "pip_prefix",
    "pip_root",
    "pip_proxy",
    "pip_log",
    "pip_python",
    "pip_keyring_provider",
];
/// npm fetches packages from registries only, where it knows these settings; nothing else it is told overrides them.
const NPM_SOURCES: &[&str] =
    &["npm_config_allow_git", "npm_config_allow_remote", "npm_config_allow_file", "npm_config_allow_directory"];
/// How long a client waits for a registry that sends nothing, and how often it asks again: the variable, what it is set to,
/// and by which other names a person may have set it. Left to themselves clients wait for minutes. Of npm it is the time for
/// the whole of an answer.
const PATIENCE: &[(&str, &str, &[&str])] = &[
    ("npm_config_fetch_timeout", "60000", &["fetch-timeout"]),
    ("npm_config_fetch_retries", "1", &["fetch-retries"]),
    ("npm_config_fetch_retry_mintimeout", "1000", &["fetch-retry-mintimeout"]),
    ("UV_HTTP_TIMEOUT", "20", &["uv_request_timeout"]),
    ("UV_HTTP_RETRIES", "1", &[]),
    ("PIP_TIMEOUT", "20", &["pip_default_timeout", "timeout", "default-timeout"]),
    ("PIP_RETRIES", "1", &["retries"]),
];
/// The variable that may name a person's file, and where the file is otherwise, below the home directory.
const SETTINGS: &[(Option<&str>, &str)] = &[
    (Some("npm_config_userconfig"), ".npmrc"),
    (Some("uv_config_file"), ".config/uv/uv.toml"),
    (Some("pip_config_file"), ".config/pip/pip.conf"),
    (Some("netrc"), ".netrc"),
];
/// A person's settings are short.
const MAX_SETTINGS_BYTES: u64 = 1 << 20;
const NPM: &str = "https://registry.npmjs.org/";
/// The index, and where it says its files are.
const PYPI: [&str; 2] = ["https://pypi.org/", "https://files.pythonhosted.org/"];

/// What package clients are given. There are passwords in it.
#[derive(Clone, Default)]
pub(crate) struct Given {
    /// Their environment, without what belongs to one run.
    pub(crate) environment: BTreeMap<String, String>,
    /// Proxies of this host, for clients that reach others by themselves.
    pub(crate) proxies: BTreeMap<String, String>,
    /// A person's files by their place below the home directory.
    files: BTreeMap<&'static str, String>,
    /// Files that the environment or a person's settings name: certificates.
    pub(crate) shown: Vec<PathBuf>,
    /// The hosts of all registries.
    pub(crate) hosts: Vec<EgressHost>,
}

impl Given {
    /// Reads what a person set in `environment` and their home directory.
    pub(crate) fn of(environment: &BTreeMap<String, String>, more_hosts: &[String]) -> Self {
        let variable = |asked: &str| {
            environment.iter().find(|(name, _)| name.eq_ignore_ascii_case(asked)).map(|(_, value)| value.as_str())
        };
        let home = variable("home").map(PathBuf::from);
        let mut given = Self::default();
        for (named_by, place) in SETTINGS {
            let named = named_by.and_then(variable).map(PathBuf::from);
            let Some(path) = named.or_else(|| Some(home.as_ref()?.join(place))) else { continue };
            given.files.extend(read(&path).map(|text| (*place, text)));
        }
        // What a person's npm settings take from the environment.
        let npmrc = given.files.get(".npmrc").cloned().unwrap_or_default();
        let referred = |name: &str| npmrc.contains(&format!("${{{name}}}")) || npmrc.contains(&format!("${{{name}?}}"));
        for (name, value) in environment {
            let lower = name.to_ascii_lowercase();
            let passed =
                PASSED_WHOLE.contains(&lower.as_str()) || PASSED.iter().any(|prefix| lower.starts_with(prefix));
            let kept = passed && !NOT_PASSED.contains(&lower.as_str()) && !NPM_SOURCES.contains(&lower.as_str());
            if PROXIES.contains(&lower.as_str()) {
                given.proxies.insert(name.clone(), value.clone());
            } else if kept && is_plain(name) || referred(name) {
                given.environment.insert(name.clone(), value.clone());
            }
        }
        given.environment.extend(NPM_SOURCES.iter().map(|name| ((*name).to_owned(), "none".to_owned())));
        given.lose_patience();
        given.shown = given.files_named(&npmrc);
        given.hosts = given.registries(&npmrc, environment, more_hosts);
        given
    }

    /// Whether npm asks a registry of its own for packages of a scope.
    pub(super) fn has_registry_of(&self, scope: &str) -> bool {
        let key = format!("{scope}:registry");
        let is_said = |text: &String| lines_of(text).any(|(said, _)| said.eq_ignore_ascii_case(&key));
        let is_set = |name: &String| {
            let name = name.to_ascii_lowercase();
            name.strip_prefix("npm_config_").is_some_and(|said| said == key.to_ascii_lowercase())
        };
        self.files.get(".npmrc").is_some_and(is_said) || self.environment.keys().any(is_set)
    }

    /// Has clients give up a registry that does not answer, where a person did not say for how long they wait.
    fn lose_patience(&mut self) {
        let texts = [".npmrc", ".config/pip/pip.conf"].iter().filter_map(|place| self.files.get(place));
        let keys = texts.flat_map(|text| lines_of(text)).map(|(key, _)| key.to_ascii_lowercase());
        let said: BTreeSet<String> =
            keys.chain(self.environment.keys().map(|name| name.to_ascii_lowercase())).collect();
        for (variable, value, names) in PATIENCE {
            if !said.contains(&variable.to_ascii_lowercase()) && !names.iter().any(|name| said.contains(*name)) {
                self.environment.insert((*variable).to_owned(), (*value).to_owned());
            }
        }
    }

    /// Writes a person's own settings into a home directory for one run.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(crate) fn write_home(&self, home: &Path) -> io::Result<()> {
        for (place, text) in &self.files {
            let path = home.join(place);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            write_whole(&path, text.as_bytes())?;
        }
        Ok(())
    }

    fn files_named(&self, npmrc: &str) -> Vec<PathBuf> {
        let by_npm = lines_of(npmrc).filter(|(key, _)| *key == "cafile").map(|(_, value)| value.to_owned());
        let values = self.environment.values().cloned().chain(by_npm);
        let paths = values.map(PathBuf::from).filter(|path| path.is_absolute() && path.exists());
        paths.collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn registries(&self, npmrc: &str, environment: &BTreeMap<String, String>, more: &[String]) -> Vec<EgressHost> {
        let mut addresses: Vec<String> = Vec::new();
        let mut own_npm = false;
        let settings = lines_of(npmrc).map(|(key, value)| (key.to_owned(), expand(value, environment)));
        let by_variable = self.environment.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone()));
        let by_variable =
            by_variable.filter_map(|(name, value)| Some((name.strip_prefix("npm_config_")?.to_owned(), value)));
        for (key, value) in settings.chain(by_variable) {
            if key == "registry" || key.ends_with(":registry") {
                own_npm |= key == "registry";
                addresses.push(value);
            }
        }
        if !own_npm {
            addresses.push(NPM.to_owned());
        }
        let mut own_index = false;
        for (name, value) in &self.environment {
            let name = name.to_ascii_lowercase();
            if name.starts_with("uv_") || name.starts_with("pip_") {
                own_index |= ["uv_default_index", "uv_index_url"].contains(&name.as_str());
                addresses.extend(addresses_in(value));
            }
        }
        for place in [".config/uv/uv.toml", ".config/pip/pip.conf"] {
            addresses.extend(self.files.get(place).into_iter().flat_map(|text| addresses_in(text)));
        }
        if !own_index {
            addresses.extend(PYPI.map(str::to_owned));
        }
        let hosts = addresses.iter().filter_map(|address| host_of(address)).chain(more.iter().cloned());
        let hosts: BTreeSet<String> = hosts.collect();
        hosts.iter().filter_map(|host| EgressHost::parse(host)).collect()
    }

    /// Whether an address is of a registry.
    pub(crate) fn is_registry(&self, address: &str) -> bool {
        let parsed = host_of(address).and_then(|host| {
            let (host, port) = host.rsplit_once(':')?;
            Some((host.trim_matches(['[', ']']).to_owned(), port.parse::<u16>().ok()?))
        });
        parsed.is_some_and(|(host, port)| self.hosts.iter().any(|listed| listed.matches(&host, port)))
    }
}

fn read(path: &Path) -> Option<String> {
    let metadata = std::fs::metadata(path).ok()?;
    (metadata.is_file() && metadata.len() <= MAX_SETTINGS_BYTES).then(|| std::fs::read_to_string(path).ok())?
}

fn is_plain(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '@' | ':' | '/' | '.'))
}

/// The settings of an npmrc.
fn lines_of(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with([';', '#']));
    lines.filter_map(|line| {
        let (key, value) = line.split_once('=')?;
        Some((key.trim(), value.trim().trim_matches(['"', '\''])))
    })
}

/// Replaces `${NAME}` as npm does.
fn expand(text: &str, environment: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, behind)) = after.split_once('}') else { break };
        out.push_str(before);
        out.push_str(environment.get(name.trim_end_matches('?')).map(String::as_str).unwrap_or_default());
        rest = behind;
    }
    out + rest
}

/// Every address in a text.
fn addresses_in(text: &str) -> Vec<String> {
    let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ',' | ']' | '=' | '#');
    let starts = text.match_indices("://").filter_map(|(at, _)| {
        let scheme = text.get(..at)?.rfind(|c: char| !c.is_ascii_alphanumeric()).map_or(0, |before| before + 1);
        text.get(scheme..)
    });
    starts.filter_map(|from| from.split(ends).next()).map(str::to_owned).collect()
}

/// `host:port` of an http or https address.
fn host_of(address: &str) -> Option<String> {
    let (scheme, rest) = address.split_once("://")?;
    let port = match scheme.to_ascii_lowercase().as_str() {
        "https" => 443,
        "http" => 80,
        _ => return None,
    };
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    let has_port = host.rsplit_once(':').is_some_and(|(before, _)| !before.contains(':') || before.ends_with(']'));
    (!host.is_empty()).then(|| if has_port { host.to_owned() } else { format!("{host}:{port}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_client_gets_its_registries_and_nothing_else_of_the_environment() {
        let dir = tempfile::tempdir().expect("a directory");
        let npmrc = "; mine\nregistry=https://npm.example/x/\n@scope:registry = \"http://${HOST}:4873\"\n\
                     //npm.example/x/:_authToken=${TOKEN}\nproxy=http://elsewhere\n";
        std::fs::write(dir.path().join("rc"), npmrc).expect("written");
        let rc = dir.path().join("rc");
        let given = Given::of(
            &environment(&[
                ("npm_config_userconfig", rc.to_str().expect("utf-8")),
                ("HOST", "local.example"),
                ("TOKEN", "t"),
                ("AWS_SECRET_ACCESS_KEY", "no"),
                ("NODE_OPTIONS", "--require ./x"),
                ("LD_PRELOAD", "/x.so"),
                ("PYTHONPATH", "/x"),
                ("npm_config_node_options", "--require ./x"),
                ("npm_config_allow_git", "all"),
                ("UV_INDEX", "mine=https://me:pw@py.example/simple http://127.0.0.1:99/simple/"),
                ("HTTPS_PROXY", "http://proxy:3128"),
                ("PATH", "/bin"),
            ]),
            &["files.example".into()],
        );
        let ours = |name: &str| name.contains("allow_") || PATIENCE.iter().any(|(patience, ..)| *patience == name);
        let names: Vec<_> = given.environment.keys().map(String::as_str).filter(|name| !ours(name)).collect();
        assert_eq!(names, ["HOST", "TOKEN", "UV_INDEX"]);
        assert_eq!(given.environment["npm_config_allow_git"], "none");
        assert_eq!(given.proxies.len(), 1);
        for good in [
            "https://npm.example/a.tgz",
            "http://local.example:4873/a",
            "https://py.example/a",
            "http://127.0.0.1:99/a.whl",
            "https://files.pythonhosted.org/a",
            "https://files.example/a",
        ] {
            assert!(given.is_registry(good), "{good}");
        }
        for bad in [
            "https://registry.npmjs.org/a",
            "http://127.0.0.1/a",
            "http://npm.example/a",
            "git+https://npm.example/a",
            "file:///etc/passwd",
            "https://npm.example@evil.example/",
            "npm.example",
        ] {
            assert!(!given.is_registry(bad), "{bad}");
        }
        let home = tempfile::tempdir().expect("a directory");
        given.write_home(home.path()).expect("written");
        assert_eq!(std::fs::read_to_string(home.path().join(".npmrc")).expect("read"), npmrc);
    }

    #[test]
    fn whom_clients_trust_is_said_to_them_and_the_files_that_are_named_for_it_are_shown() {
        let dir = tempfile::tempdir().expect("a directory");
        let bundle = dir.path().join("ca-bundle.pem");
        std::fs::write(&bundle, "").expect("written");
        let path = bundle.to_str().expect("utf-8");
        let files = ["SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "PIP_CERT", "NPM_CONFIG_CAFILE"];
        let stores = ["UV_SYSTEM_CERTS", "UV_NATIVE_TLS", "NODE_USE_SYSTEM_CA"].map(|name| (name, "1"));
        let pairs: Vec<_> = files.map(|name| (name, path)).into_iter().chain(stores).collect();
        let given = Given::of(&environment(&pairs), &[]);
        for (name, value) in pairs {
            assert_eq!(given.environment.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert_eq!(given.shown, [bundle]);
    }

    #[test]
    fn a_registry_that_does_not_answer_is_given_up_soon_unless_a_person_wants_to_wait() {
        let dir = tempfile::tempdir().expect("a directory");
        let home = ("HOME", dir.path().to_str().expect("utf-8"));
        let of = |more: &[(&str, &str)]| {
            let given = Given::of(&environment(&[&[home][..], more].concat()), &[]);
            PATIENCE.iter().map(|(name, ..)| given.environment.get(*name).cloned()).collect::<Vec<_>>()
        };
        let usual: Vec<_> = PATIENCE.iter().map(|(_, value, _)| Some((*value).to_owned())).collect();
        assert_eq!(of(&[]), usual);
        let said = of(&[("npm_config_fetch_timeout", "60000"), ("UV_REQUEST_TIMEOUT", "90")]);
        assert_eq!((said[0].as_deref(), &said[3]), (Some("60000"), &None));
        assert_eq!((&said[1], &said[4]), (&usual[1], &usual[4]));
        std::fs::write(dir.path().join(".npmrc"), "fetch-retries = 7\n").expect("written");
        std::fs::create_dir_all(dir.path().join(".config/pip")).expect("made");
        std::fs::write(dir.path().join(".config/pip/pip.conf"), "[global]\ntimeout = 60\n").expect("written");
        let said = of(&[]);
        assert_eq!((&said[0], &said[1], &said[5], &said[6]), (&usual[0], &None, &None, &usual[6]));
    }
}
