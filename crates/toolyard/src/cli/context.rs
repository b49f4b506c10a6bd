//! What a command needs: a connection to a Toolyard, and a way to say that something failed.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use toolyard_client::{ApiError, Client, McpError};
use toolyard_types::{Code, Secret};

use super::Global;
use super::output::{self, Format};
use crate::config::process_environment;

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The stable code, for `--output json`.
    pub code: String,
    /// For people: what is wrong and what would be right.
    pub message: String,
    /// More lines.
    pub details: Vec<String>,
}

impl Failure {
    /// A failure of the command itself.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { code: "failed".into(), message: message.into(), details: Vec::new() }
    }

    /// Prints it and gives exit code 1.
    pub(crate) fn report(&self, format: Format) -> ExitCode {
        if format == Format::Json {
            output::print_json(
                &json!({ "error": { "code": self.code, "message": self.message, "details": self.details } }),
            );
        }
        let code = output::fail(&self.message, 1);
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
                details.extend(problem.errors.iter().map(|field| format!("{}: {}", field.field, field.message)));
                details.push(match problem.code {
                    Code::Unauthenticated => {
                        "give an API key with --api-key or TOOLYARD_API_KEY, or `toolyard login URL` once".to_owned()
                    }
                    code => code.help().to_owned(),
                });
                details.extend(problem.request_id.iter().map(|id| format!("request id {id}")));
                problem.code.as_str().to_owned()
            }
            None => {
                details.extend(causes(&error));
                if matches!(error, ApiError::Unreachable { .. }) {
                    details.push(
                        "another Toolyard is asked with --url or TOOLYARD_URL, or after `toolyard login URL`".into(),
                    );
                }
                "unreachable".into()
            }
        };
        Self { code, message: error.to_string(), details }
    }
}

impl From<McpError> for Failure {
    fn from(error: McpError) -> Self {
        let mut details = causes(&error);
        if let McpError::Refused { request_id: Some(id), .. } = &error {
            details.push(format!("request id {id}"));
        }
        Self { code: "call_failed".into(), message: error.to_string(), details }
    }
}

fn causes(error: &dyn std::error::Error) -> Vec<String> {
    std::iter::successors(error.source(), |cause| cause.source()).map(ToString::to_string).collect()
}

/// What `toolyard login` remembers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Profile {
    /// The Toolyard.
    pub url: String,
    /// The key.
    pub api_key: Secret,
}

/// A connection to a Toolyard and how to print.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    /// The connection.
    pub client: Client,
    /// How to print.
    pub format: Format,
}

impl Context {
    /// Makes a connection from flags, environment, or what `login` remembered.
    pub(crate) fn new(global: &Global) -> Result<Self, Failure> {
        let profile = match profile_path().map(std::fs::read_to_string) {
            Some(Ok(text)) => serde_json::from_str::<Profile>(&text).unwrap_or_default(),
            _ => Profile::default(),
        };
        let remembered = if profile.url.is_empty() { "http://127.0.0.1:8080" } else { &profile.url };
        let url = global.url.clone().filter(|url| !url.is_empty()).unwrap_or_else(|| remembered.to_owned());
        // A remembered key is that of the remembered Toolyard: whoever else is asked never sees it.
        let remembered_key = (origin(&url) == origin(&profile.url)).then_some(profile.api_key);
        let key = global.api_key.clone().map(Secret::new).or(remembered_key).filter(|key| !key.expose().is_empty());
        Ok(Self { client: connect(&url, key, global)?, format: global.output })
    }

    /// A page's address on this Toolyard.
    pub(crate) fn link(&self, path: &str) -> String {
        format!("{}{path}", self.client.base())
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

/// A client of the Toolyard at `url`.
pub(crate) fn connect(url: &str, key: Option<Secret>, global: &Global) -> Result<Client, Failure> {
    if !url.starts_with("http://") && !url.starts_with("https://") {
        return Err(Failure::new(format!("URL `{url}` must begin with http:// or https://")));
    }
    let mut builder = reqwest::Client::builder()
        .timeout(Duration::from_secs(60))
        .connect_timeout(Duration::from_secs(10))
        .user_agent(concat!("toolyard-cli/", env!("CARGO_PKG_VERSION")));
    if let Some(file) = &global.ca_file {
        let pem =
            std::fs::read(file).map_err(|error| Failure::new(format!("cannot read `{}`: {error}", file.display())))?;
        let certificates = reqwest::Certificate::from_pem_bundle(&pem)
            .map_err(|_| Failure::new(format!("`{}` holds no PEM certificates", file.display())))?;
        builder = builder.tls_certs_merge(certificates);
    }
    let http = builder.build().map_err(|error| Failure::new(format!("cannot set up connections: {error}")))?;
    Ok(Client::new(http, url, key))
}

/// Where `toolyard login` keeps its profile.
pub(crate) fn profile_path() -> Option<PathBuf> {
    let environment = process_environment();
    let base = environment
        .get("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| environment.get("HOME").map(|home| PathBuf::from(home).join(".config")))?;
    Some(base.join("toolyard").join("profile.json"))
}
