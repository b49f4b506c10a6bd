//! What a command needs: a connection to a Toolyard, and a way to say that something failed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use toolyard_client::{ApiError, Client, McpError};
use toolyard_types::api::Page;
use toolyard_types::{Code, Secret};

use super::output::{self, Format};
use super::{Global, options};
use crate::config::process_environment;

/// The code of a command that Ctrl-C ended.
const INTERRUPTED: &str = "interrupted";
/// Its exit code: as shells give it, 128 and the number of SIGINT.
const EXIT_INTERRUPTED: u8 = 130;
/// The code of a command that was given what it cannot mean, found before anything is asked.
const WRONG_USAGE: &str = "wrong_usage";
/// Its exit code, as that of arguments that cannot be read.
const EXIT_USAGE: u8 = 2;
/// Fields that are named in one failure.
const MOST_FIELDS: usize = 20;
/// The Toolyard that is asked when nobody says which.
const DEFAULT_URL: &str = "http://127.0.0.1:8080";
/// Stands for an API key, which is not shown; that it is needed is.
const KEY: &str = "KEY";
/// Below the directory where programs keep their configuration.
const PROFILE_DIR: &str = "toolyard";
const WHICH_URL: &str = "the URL wanted is that of Toolyard itself, such as https://toolyard.example.com";

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The stable code, for `--output json`.
    pub code: String,
    /// For people: what is wrong and what would be right.
    pub message: String,
    /// More lines.
    pub details: Vec<String>,
    /// Whether the answer on standard output tells it: a program reads that, and nothing behind it.
    pub is_told: bool,
}

impl Failure {
    /// A failure of the command itself.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { code: "failed".into(), message: message.into(), details: Vec::new(), is_told: false }
    }

    /// What an answer tells that was printed already.
    pub(crate) fn told(message: impl Into<String>) -> Self {
        Self { is_told: true, ..Self::new(message) }
    }

    /// What was given cannot be meant.
    fn usage(message: impl Into<String>) -> Self {
        Self { code: WRONG_USAGE.into(), ..Self::new(message) }
    }

    /// Ctrl-C was pressed.
    pub(crate) fn interrupted(message: impl Into<String>) -> Self {
        Self { code: INTERRUPTED.into(), ..Self::new(message) }
    }

    /// Prints it and gives the exit code.
    pub(crate) fn report(&self, format: Format) -> ExitCode {
        if format == Format::Json && !self.is_told {
            output::print_failure(
                &json!({ "error": { "code": self.code, "message": self.message, "details": self.details } }),
            );
        }
        let exit = match self.code.as_str() {
            INTERRUPTED => EXIT_INTERRUPTED,
            WRONG_USAGE => EXIT_USAGE,
            _ => 1,
        };
        let code = output::fail(&self.message, exit);
        for detail in &self.details {
            eprintln!("  {}", output::safe(detail));
        }
        code
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let mut details = Vec::new();
        let code = match error.problem() {
            Some(problem) => {
                details.extend(problem.errors.iter().take(MOST_FIELDS).map(options::error));
                let more = problem.errors.len().saturating_sub(MOST_FIELDS);
                details.extend((more > 0).then(|| format!("and {more} more")));
                details.extend(match problem.code {
                    Code::ValidationFailed if !problem.errors.is_empty() => None,
                    code => Some(options::help(code)),
                });
                details.extend(problem.request_id.iter().map(|id| format!("request id {id}")));
                problem.code.as_str().to_owned()
            }
            None => {
                let causes = causes(&error);
                let help = misunderstood(&causes);
                details.extend(causes.into_iter().chain(help));
                if matches!(error, ApiError::NotToolyard { .. }) {
                    details.push(WHICH_URL.to_owned());
                }
                if matches!(error, ApiError::Unreachable { .. }) {
                    details.push(
                        "another Toolyard is asked with --url or TOOLYARD_URL, or after `toolyard login URL`".into(),
                    );
                }
                "unreachable".into()
            }
        };
        Self { code, details, ..Self::new(error.to_string()) }
    }
}

impl From<McpError> for Failure {
    fn from(error: McpError) -> Self {
        let mut details = causes(&error);
        let help = misunderstood(&details);
        details.extend(help);
        if let McpError::Refused { request_id: Some(id), .. } = &error {
            details.push(format!("request id {id}"));
        }
        Self { code: "call_failed".into(), details, ..Self::new(error.to_string()) }
    }
}

fn causes(error: &dyn std::error::Error) -> Vec<String> {
    std::iter::successors(error.source(), |cause| cause.source()).map(ToString::to_string).collect()
}

/// What to do about an answer in another protocol, or with a certificate that is not trusted, by what the libraries say of it.
fn misunderstood(causes: &[String]) -> Option<String> {
    let said = |word: &str| causes.iter().any(|cause| cause.contains(word));
    let help = if said("InvalidContentType") {
        "what answers there speaks plain HTTP, without TLS; give its address as http://..."
    } else if said("invalid HTTP version parsed") {
        "what answers there does not speak plain HTTP; when it is TLS, give its address as https://..."
    } else if said("CaUsedAsEndEntity") {
        "the certificate there is one of a CA itself, as self-signed ones are, which no server may show; make a CA, and with \
         it another certificate for that server, and give the CA's with --ca-file"
    } else if said("UnknownIssuer") {
        "the certificate there is of a CA that is not known here; give that CA's with --ca-file or TOOLYARD_CA_FILE"
    } else {
        return None;
    };
    Some(help.to_owned())
}

/// What `toolyard login` remembers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Profile {
    /// The Toolyard.
    pub url: String,
    /// The key.
    pub api_key: Secret,
    /// The CA certificates to trust there, by an absolute path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

impl Profile {
    /// What was remembered, or nothing.
    pub(crate) fn read() -> Self {
        match profile_path().map(std::fs::read_to_string) {
            Some(Ok(text)) => serde_json::from_str(&text).unwrap_or_default(),
            _ => Self::default(),
        }
    }

    /// Whether it is that of the Toolyard at `url`. A remembered key is shown to nobody else, and the CA of one is not
    /// trusted for another.
    fn is_of(&self, url: &str) -> bool {
        origin(url) == origin(&self.url)
    }

    /// The CA certificates to trust at `url`: those that were given, else those that were remembered for it.
    pub(crate) fn ca_file(&self, url: &str, given: Option<&PathBuf>) -> Option<PathBuf> {
        given.or(self.ca_file.as_ref().filter(|_| self.is_of(url))).cloned()
    }
}

/// A connection to a Toolyard and how to print.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    /// The connection.
    pub client: Client,
    /// How to print.
    pub format: Format,
    /// The CA certificates that were given.
    ca_file: Option<PathBuf>,
    /// The options that a command in the same shell needs to ask the same Toolyard.
    options: Vec<(&'static str, String)>,
}

impl Context {
    /// Makes a connection from flags, environment, or what `login` remembered.
    pub(crate) fn new(global: &Global) -> Result<Self, Failure> {
        let profile = Profile::read();
        let remembered = if profile.url.is_empty() { DEFAULT_URL } else { &profile.url };
        let url = global.url.as_deref().map(str::trim).filter(|url| !url.is_empty()).unwrap_or(remembered).to_owned();
        let ca_file = profile.ca_file(&url, global.ca_file.as_ref());
        let options = options_of(global, &process_environment(), remembered);
        let remembered_key = profile.is_of(&url).then_some(profile.api_key);
        let key = global.api_key.clone().map(Secret::new).or(remembered_key);
        let key = key.map(|key| api_key(key.expose())).transpose()?.filter(|key| !key.expose().is_empty());
        let client = connect(&url, key, ca_file.as_deref())?;
        Ok(Self { client, format: global.output, ca_file: global.ca_file.clone(), options })
    }

    /// The same of the Toolyard at `url`, with an API key of its own, and over connections of its own.
    pub(crate) fn elsewhere(&self, url: &str, key: Secret) -> Result<Self, Failure> {
        let ca_file = Profile::read().ca_file(url, self.ca_file.as_ref());
        let client = connect(url, Some(api_key(key.expose())?), ca_file.as_deref())?;
        let mut options = self.options.clone();
        if url != self.client.base() {
            options.retain(|(option, _)| *option != "--url");
            options.push(("--url", url.to_owned()));
        }
        options.retain(|(option, _)| *option != "--api-key");
        options.push(("--api-key", KEY.to_owned()));
        Ok(Self { client, format: self.format, ca_file: self.ca_file.clone(), options })
    }

    /// The first things of a list that is too long to be read whole, at most `limit`.
    pub(crate) async fn first<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &impl Serialize,
        limit: u32,
    ) -> Result<Page<T>, Failure> {
        Ok(self.client.first(path, query, usize::try_from(limit).unwrap_or(usize::MAX)).await?)
    }

    /// A command of ours for people to repeat in the same shell: it asks the same Toolyard.
    pub(crate) fn command(&self, words: &[&str]) -> String {
        let options = self.options.iter().flat_map(|(option, value)| [*option, value.as_str()]);
        let words = words.iter().copied().chain(options).map(quoted);
        std::iter::once("toolyard".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
    }

    /// A page's address on this Toolyard.
    pub(crate) fn link(&self, path: &str) -> String {
        format!("{}{path}", self.client.base())
    }
}

/// The options of the connection that differ from what the shell gives anyway.
fn options_of(
    global: &Global,
    environment: &BTreeMap<String, String>,
    remembered: &str,
) -> Vec<(&'static str, String)> {
    let given = |value: Option<&str>, variable: &str| {
        let value = value.filter(|value| !value.is_empty())?.to_owned();
        (environment.get(variable) != Some(&value)).then_some(value)
    };
    let mut options = Vec::new();
    if let Some(url) = given(global.url.as_deref(), "TOOLYARD_URL")
        && (url != remembered || environment.get("TOOLYARD_URL").is_some_and(|url| !url.is_empty()))
    {
        options.push(("--url", url));
    }
    if let Some(file) = given(global.ca_file.as_ref().and_then(|file| file.to_str()), "TOOLYARD_CA_FILE") {
        let file = std::path::absolute(&file).map_or(file, |path| path.display().to_string());
        options.push(("--ca-file", file));
    }
    if given(global.api_key.as_deref(), "TOOLYARD_API_KEY").is_some() {
        options.push(("--api-key", KEY.to_owned()));
    }
    options
}

/// A word of a command line as a shell reads it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Scheme, host and port of a URL, however it is written.
fn origin(url: &str) -> Option<reqwest::Url> {
    let mut url = reqwest::Url::parse(url).ok()?;
    let _ = url.set_username("").and_then(|()| url.set_password(None));
    url.set_path("");
    url.set_query(None);
    url.set_fragment(None);
    Some(url)
}

/// An address without the user and password it may hold.
fn without_user(url: &str) -> String {
    url.rsplit_once('@').map_or_else(|| url.to_owned(), |(_, host)| format!("[redacted]@{host}"))
}

fn check_url(url: &str) -> Result<(), Failure> {
    if !url.starts_with("http://") && !url.starts_with("https://") {
        return Err(Failure::usage(format!("URL `{}` must begin with http:// or https://", without_user(url))));
    }
    // A proxy may serve Toolyard below a path of its own, but not below these, which are Toolyard's.
    if let Some(parsed) = reqwest::Url::parse(url).ok()
        && parsed.path_segments().into_iter().flatten().any(|part| matches!(part, "mcp" | "api"))
    {
        let shown = without_user(url);
        return Err(Failure::usage(format!("URL `{shown}` is that of a part of a Toolyard; {WHICH_URL}")));
    }
    Ok(())
}

/// An API key as it was given. The end of the line that it was read from is no part of it; what no key has tells that
/// something else was taken for one, and could not be sent.
pub(crate) fn api_key(given: &str) -> Result<Secret, Failure> {
    let key = given.trim_end_matches(['\r', '\n']);
    if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Failure::usage(
            "the API key has blanks, line ends or other characters that no key has; take it again, without what is around it",
        ));
    }
    Ok(Secret::new(key))
}

/// A client of the Toolyard at `url`.
pub(crate) fn connect(url: &str, key: Option<Secret>, ca_file: Option<&Path>) -> Result<Client, Failure> {
    check_url(url)?;
    let mut builder = reqwest::Client::builder()
        .timeout(Duration::from_secs(60))
        .connect_timeout(Duration::from_secs(10))
        .user_agent(concat!("toolyard-cli/", env!("CARGO_PKG_VERSION")));
    if let Some(file) = ca_file {
        let pem =
            std::fs::read(file).map_err(|error| Failure::new(format!("cannot read `{}`: {error}", file.display())))?;
        let certificates = reqwest::Certificate::from_pem_bundle(&pem)
            .map_err(|_| Failure::new(format!("`{}` holds no PEM certificates", file.display())))?;
        if certificates.is_empty() {
            return Err(Failure::new(format!("`{}` holds no PEM certificates", file.display())));
        }
        builder = builder.tls_certs_merge(certificates);
    }
    let http = builder.build().map_err(|error| Failure::new(format!("cannot set up connections: {error}")))?;
    Ok(Client::new(http, url, key))
}

/// Where `toolyard login` keeps its profile.
pub(crate) fn profile_path() -> Option<PathBuf> {
    Some(config_dir(&process_environment())?.join(PROFILE_DIR).join("profile.json"))
}

/// Every directory where `toolyard login` may keep the profile of the user that we run as: a service need not have the
/// environment of that user's shells.
pub(crate) fn profile_dirs(environment: &BTreeMap<String, String>) -> Vec<PathBuf> {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::effective()).ok().flatten();
    let of_user = user.map(|user| user.dir.join(".config"));
    config_dir(environment).into_iter().chain(of_user).map(|dir| dir.join(PROFILE_DIR)).collect()
}

/// The home directory. A variable that is empty counts as unset: what would be below it is the current directory.
pub(crate) fn home(environment: &BTreeMap<String, String>) -> Option<PathBuf> {
    directory(environment, "HOME")
}

/// Where programs keep their configuration.
pub(crate) fn config_dir(environment: &BTreeMap<String, String>) -> Option<PathBuf> {
    directory(environment, "XDG_CONFIG_HOME").or_else(|| Some(home(environment)?.join(".config")))
}

fn directory(environment: &BTreeMap<String, String>, variable: &str) -> Option<PathBuf> {
    environment.get(variable).filter(|path| !path.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn an_empty_home_is_none() {
        let dir = |pairs| config_dir(&environment(pairs));
        assert_eq!(dir(&[("HOME", ""), ("XDG_CONFIG_HOME", "")]), None);
        assert_eq!(dir(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "")]), Some("/h/.config".into()));
        assert_eq!(dir(&[("HOME", ""), ("XDG_CONFIG_HOME", "/c")]), Some("/c".into()));
    }

    #[test]
    fn a_command_to_repeat_says_what_the_shell_does_not() {
        let global = Global {
            url: Some("http://t.example".into()),
            api_key: Some("ty_secret".into()),
            ca_file: Some("/etc/my ca.pem".into()),
            output: Format::Table,
        };
        let said = options_of(&global, &environment(&[]), DEFAULT_URL);
        let wanted = [("--url", "http://t.example"), ("--ca-file", "/etc/my ca.pem"), ("--api-key", KEY)];
        assert_eq!(said, wanted.map(|(option, value)| (option, value.to_owned())));
        let known = [
            ("TOOLYARD_URL", "http://t.example"),
            ("TOOLYARD_API_KEY", "ty_secret"),
            ("TOOLYARD_CA_FILE", "/etc/my ca.pem"),
        ];
        assert!(options_of(&global, &environment(&known), DEFAULT_URL).is_empty());
        let remembered = options_of(&global, &environment(&known[1..]), "http://t.example");
        assert!(remembered.is_empty(), "{remembered:?}");
        let other = options_of(&global, &environment(&[("TOOLYARD_URL", "http://other")]), "http://t.example");
        assert_eq!(other[0], ("--url", "http://t.example".to_owned()), "the environment names another one");
        assert_eq!(["a-b", "a b", "it's", "", "~/x"].map(quoted), ["a-b", "'a b'", r"'it'\''s'", "''", "'~/x'"]);
    }

    #[test]
    fn the_url_of_an_mcp_address_is_refused_with_what_is_wanted() {
        for url in
            ["http://t.example/mcp", "https://t.example/yard/mcp/default/servers/time", "http://t.example/api/v1"]
        {
            let refused = connect(url, None, None).expect_err(url).message;
            assert!(refused.contains(WHICH_URL), "{refused}");
        }
        for url in ["http://t.example", "https://t.example/yard/", "http://mcp.t.example:8080"] {
            assert!(connect(url, None, None).is_ok(), "{url}");
        }
        for url in ["https://me:hunter2@t.example/mcp", "me:hunter2@t.example"] {
            let refused = connect(url, None, None).expect_err("no URL of a Toolyard").message;
            assert!(!refused.contains("hunter2") && refused.contains("t.example"), "{refused}");
        }
    }

    #[test]
    fn a_certificate_that_is_not_trusted_is_told_with_what_to_do() {
        let told = |cause: &str| misunderstood(&["client error (Connect)".to_owned(), cause.to_owned()]);
        let own = told("invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))").expect("help");
        assert!(own.contains("make a CA") && own.contains("--ca-file"), "{own}");
        assert!(told("invalid peer certificate: UnknownIssuer").expect("help").contains("--ca-file"));
        assert_eq!(told("Connection refused (os error 111)"), None);
    }

    #[test]
    fn an_address_with_the_scheme_of_the_other_protocol_is_told_with_the_right_one() {
        let told = |cause: &str| misunderstood(&[cause.to_owned()]).unwrap_or_default();
        assert!(told("received corrupt message of type InvalidContentType").contains("http://"));
        assert!(told("invalid HTTP version parsed").contains("https://"));
    }

    #[test]
    fn an_api_key_is_taken_without_its_line_end_and_refused_with_what_no_key_has() {
        for given in ["ty_k", "ty_k\n", "ty_k\r\n", "ty_k\r"] {
            assert_eq!(api_key(given).expect(given).expose(), "ty_k");
        }
        for bad in ["ty k", " ty_k", "ty_\rk", "ty_k\u{e9}", "ty_k\u{200b}", "ty_\0"] {
            let refused = api_key(bad).expect_err(bad);
            assert!(refused.message.contains("no key has") && !refused.message.contains(bad), "{}", refused.message);
            assert_eq!(refused.code, WRONG_USAGE);
        }
    }

    #[test]
    fn the_ca_that_was_remembered_is_trusted_for_no_other_toolyard() {
        let profile =
            Profile { url: "https://t.example/yard".into(), ca_file: Some("/ca.pem".into()), ..Profile::default() };
        let remembered = |url: &str| profile.ca_file(url, None);
        assert_eq!(remembered("https://t.example:443/yard"), Some("/ca.pem".into()));
        assert_eq!(remembered("https://other.example"), None);
        assert_eq!(remembered("https://t.example:8443"), None);
        let given = PathBuf::from("/given.pem");
        for url in ["https://t.example", "https://other.example"] {
            assert_eq!(profile.ca_file(url, Some(&given)), Some(given.clone()), "{url}");
        }
    }

    #[test]
    fn a_profile_of_an_earlier_version_names_no_ca() {
        let profile: Profile =
            serde_json::from_str(r#"{"url":"http://t.example","api_key":"ty_k"}"#).expect("a profile");
        assert_eq!(profile.ca_file, None);
    }
}
