//! A typed client of the public API, for the CLI and the tests.
//!
//! One method an operation would repeat the API a third time; instead a request is a method, a path and the
//! types of `toolyard_types::api`, and every failure is an [`ApiError`] with the server's problem in it.

mod mcp;

pub use mcp::{McpError, ToolCall};

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use toolyard_types::api::Page;
use toolyard_types::{Problem, Secret};

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The server refused, and said why.
    #[error("{} ({})", .0.detail, .0.code.as_str())]
    Problem(Box<Problem>),
    /// The server answered something that is not the API.
    #[error("{url} answered {status}, and not as Toolyard does")]
    NotToolyard {
        /// What was asked.
        url: String,
        /// What it answered.
        status: StatusCode,
    },
    /// The server cannot be reached.
    #[error("cannot reach {url}")]
    Unreachable {
        /// What was asked.
        url: String,
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
    /// The answer is not what this version of the client understands.
    #[error("cannot understand the answer of {url}")]
    Answer {
        /// What was asked.
        url: String,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
}

impl ApiError {
    /// The server's problem, when it gave one.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem(problem) => Some(problem),
            _ => None,
        }
    }
}

/// How long a Toolyard on this machine gets to begin listening, which it does when it can answer.
const START_PATIENCE: Duration = Duration::from_secs(10);
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// The most things that the API gives on one page.
const PAGE: usize = 500;

/// A connection to one Toolyard as one principal.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    key: Option<Secret>,
}

impl Client {
    /// A client of the Toolyard at `base` (`http://127.0.0.1:8080`), with an API key.
    #[must_use]
    pub fn new(http: reqwest::Client, base: &str, key: Option<Secret>) -> Self {
        Self { http, base: base.trim_end_matches('/').to_owned(), key }
    }

    /// The base URL, without a slash at the end.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// A client of another Toolyard, or of this one with another key, over the same connections.
    #[must_use]
    pub fn elsewhere(&self, base: &str, key: Option<Secret>) -> Self {
        Self::new(self.http.clone(), base, key)
    }

    /// The API key.
    #[must_use]
    pub fn key(&self) -> Option<&Secret> {
        self.key.as_ref()
    }

    /// `GET /api/v1{path}`.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        self.send(Method::GET, path, None::<&()>).await
    }

    /// `GET /api/v1{path}` with a query; fields that are `null` are left out.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn get_with<T: DeserializeOwned>(&self, path: &str, query: &impl Serialize) -> Result<T, ApiError> {
        let url = self.url(path);
        let request = self.request(Method::GET, &url).query(&pairs(query));
        let answer = self.patiently(request).await;
        read(url, answer).await
    }

    /// All of a list, page after page.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn list<T: DeserializeOwned>(&self, path: &str, query: &impl Serialize) -> Result<Vec<T>, ApiError> {
        Ok(self.first(path, query, usize::MAX).await?.items)
    }

    /// The first `most` things of a list, over as many pages as that takes; with a `next_cursor` when there are more.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn first<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &impl Serialize,
        most: usize,
    ) -> Result<Page<T>, ApiError> {
        let mut query = match serde_json::to_value(query) {
            Ok(Value::Object(fields)) => fields,
            _ => Map::new(),
        };
        let mut items: Vec<T> = Vec::new();
        loop {
            query.insert("limit".to_owned(), json!(PAGE.min(most.saturating_sub(items.len()))));
            let page: Page<T> = self.get_with(path, &query).await?;
            items.extend(page.items);
            // A list that leads to where it came from would never end.
            let next = page.next_cursor.filter(|next| query.get("cursor") != Some(&json!(next)));
            if next.is_none() || items.len() >= most {
                return Ok(Page { items, next_cursor: next });
            }
            query.insert("cursor".to_owned(), json!(next));
        }
    }

    /// `POST /api/v1{path}`.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ApiError> {
        self.send(Method::POST, path, Some(body)).await
    }

    /// Any method on `/api/v1{path}`, with a JSON body if given. An answer without content reads as `null`.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ApiError> {
        let url = self.url(path);
        let mut request = self.request(method, &url);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = self.patiently(request).await;
        read(url, answer).await
    }

    /// The same, on condition that what it changes still has the `ETag` seen, if one is given.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn send_if_match<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
        seen: Option<&str>,
    ) -> Result<T, ApiError> {
        let url = self.url(path);
        let mut request = self.request(method, &url).json(body);
        if let Some(seen) = seen {
            request = request.header(reqwest::header::IF_MATCH, format!("\"{}\"", seen.trim_matches('"')));
        }
        let answer = self.patiently(request).await;
        read(url, answer).await
    }

    /// The body of `GET /api/v1{path}` as it arrives, without a time limit: logs and events.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn stream(&self, path: &str, query: &impl Serialize) -> Result<reqwest::Response, ApiError> {
        let url = self.url(path);
        let request = self.request(Method::GET, &url).query(&pairs(query)).timeout(Duration::from_secs(86_400));
        match request.send().await {
            Ok(answer) if answer.status().is_success() => Ok(answer),
            other => Err(read::<serde_json::Value>(url.clone(), other)
                .await
                .err()
                .unwrap_or(ApiError::NotToolyard { url, status: StatusCode::OK })),
        }
    }

    /// Sends a request. A Toolyard on this machine may have been started a moment ago, as in a script: while it
    /// does not listen yet, nothing was sent and trying again is safe.
    async fn patiently(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, reqwest::Error> {
        let local = ["http://127.0.0.1", "http://localhost", "http://[::1]"].iter().any(|on| self.base.starts_with(on));
        let mut patience = if local { START_PATIENCE } else { Duration::ZERO };
        loop {
            let Some(attempt) = request.try_clone() else { return request.send().await };
            match attempt.send().await {
                Err(error) if error.is_connect() && !patience.is_zero() => {
                    patience = patience.saturating_sub(RETRY_PAUSE);
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                other => return other,
            }
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}/api/v1{path}", self.base)
    }

    fn request(&self, method: Method, url: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, url);
        match &self.key {
            Some(key) => request.bearer_auth(key.expose()),
            None => request,
        }
    }
}

/// The fields of a query as text.
fn pairs(query: &impl Serialize) -> Vec<(String, String)> {
    let Ok(Value::Object(fields)) = serde_json::to_value(query) else { return Vec::new() };
    fields
        .into_iter()
        .filter_map(|(name, value)| match value {
            Value::Null => None,
            Value::String(text) => Some((name, text)),
            other => Some((name, other.to_string())),
        })
        .collect()
}

/// A name as one segment of a path: `a/b` becomes `a%2Fb`.
#[must_use]
pub fn segment(name: &str) -> String {
    percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC).to_string()
}

async fn read<T: DeserializeOwned>(
    url: String,
    answer: Result<reqwest::Response, reqwest::Error>,
) -> Result<T, ApiError> {
    let answer = match answer {
        Ok(answer) => answer,
        Err(source) => return Err(ApiError::Unreachable { url, source: source.without_url() }),
    };
    let status = answer.status();
    let body = match answer.bytes().await {
        Ok(body) => body,
        Err(source) => return Err(ApiError::Unreachable { url, source: source.without_url() }),
    };
    if status.is_success() {
        let text = if body.is_empty() { &b"null"[..] } else { &body[..] };
        return serde_json::from_slice(text).map_err(|source| ApiError::Answer { url, source });
    }
    match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) => Err(ApiError::Problem(Box::new(problem))),
        Err(_) => Err(ApiError::NotToolyard { url, status }),
    }
}
