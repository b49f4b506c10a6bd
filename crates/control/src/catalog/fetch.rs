//! Fetching from catalog sources: bounded, conditional, and not into our own network.
//!
//! A source's address is typed in by a person, so a client that follows it anywhere could be sent to the
//! metadata service of a cloud or to a neighbour (server-side request forgery). [`SourceClient`] refuses
//! private addresses where the name is resolved, so neither a redirect nor a changing name gets past it.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use http::{StatusCode, header};
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use serde_json::value::RawValue;

const MAX_REDIRECTS: usize = 5;
/// Both are kept on the source's row.
const MAX_CURSOR_BYTES: usize = 4096;
const MAX_VALIDATOR_BYTES: usize = 1024;
/// The longest a server may ask us to wait.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

/// The HTTP client for catalog sources.
#[derive(Clone, Debug)]
pub struct SourceClient {
    client: reqwest::Client,
    allow_private: bool,
}

/// Why a source could not be fetched; the text is shown on the source.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// Neither of these tells the address, which may hold a password wherever it is wrong.
    #[error("the address must begin with http:// or https:// and name a host")]
    NotHttp,
    #[error("the address must not hold a user or password")]
    WithUser,
    #[error("`{0}` is a private address, which sources may not use")]
    Private(String),
    #[error("the answer has more than {0} bytes")]
    TooLarge(usize),
    #[error("asked to wait ({status})")]
    Busy { status: u16, retry_after: Option<Duration> },
    #[error("the answer was {0}")]
    Status(u16),
    #[error("{}", network_text(.0))]
    Network(#[source] reqwest::Error),
    #[error("the answer is not JSON")]
    NotJson(#[source] serde_json::Error),
    #[error("the answer has no list of servers")]
    NoServers,
    /// More of something than one sync of one source may take.
    #[error("a sync may take at most {0}")]
    TooMuch(&'static str),
}

/// What the last answer said about itself, to ask whether it changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Validators {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) etag: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_modified: Option<String>,
}

/// An answer.
#[derive(Debug)]
pub(crate) enum Fetched {
    Unchanged,
    Answer(Answer),
}

/// The body of an answer, read item by item: as a tree it would take many times its size.
#[derive(Debug)]
pub(crate) struct Answer {
    body: Vec<u8>,
    pub(crate) validators: Validators,
}

/// A list of servers.
#[derive(Debug)]
pub(crate) struct List<'a> {
    pub(crate) items: Vec<&'a RawValue>,
    /// Where the next page is.
    pub(crate) next: Option<String>,
}

impl Answer {
    /// How long it was.
    pub(crate) fn bytes(&self) -> usize {
        self.body.len()
    }

    /// The servers in `{"servers": [...]}`, or in a bare list.
    ///
    /// # Errors
    /// When it is neither.
    pub(crate) fn list(&self) -> Result<List<'_>, FetchError> {
        #[derive(serde::Deserialize)]
        struct Page<'a> {
            #[serde(borrow)]
            servers: Vec<&'a RawValue>,
            #[serde(default)]
            metadata: serde_json::Map<String, serde_json::Value>,
        }
        let wrong = |error: serde_json::Error| match error.classify() {
            serde_json::error::Category::Data => FetchError::NoServers,
            _ => FetchError::NotJson(error),
        };
        if self.body.trim_ascii_start().starts_with(b"[") {
            let items = serde_json::from_slice(&self.body).map_err(wrong)?;
            return Ok(List { items, next: None });
        }
        let page: Page<'_> = serde_json::from_slice(&self.body).map_err(wrong)?;
        let next = page.metadata.get("nextCursor").or_else(|| page.metadata.get("next_cursor"));
        let next = next.and_then(|next| next.as_str()).filter(|next| !next.is_empty());
        if next.is_some_and(|next| next.len() > MAX_CURSOR_BYTES) {
            return Err(FetchError::TooMuch("4 KiB of a page's cursor"));
        }
        Ok(List { items: page.servers, next: next.map(str::to_owned) })
    }
}

impl SourceClient {
    /// Makes the client from a builder that knows the CA bundle and the proxy. Without `allow_private` it
    /// reaches public addresses only; behind a proxy of one's own, which decides by itself what can be
    /// reached, pass `true`.
    ///
    /// # Errors
    /// When the builder cannot make a client.
    pub fn new(builder: reqwest::ClientBuilder, allow_private: bool) -> reqwest::Result<Self> {
        let redirects = Policy::custom(move |attempt| {
            if attempt.previous().len() > MAX_REDIRECTS {
                return attempt.error("too many redirects");
            }
            let downgraded = attempt.url().scheme() == "http"
                && attempt.previous().last().is_some_and(|from| from.scheme() == "https");
            if downgraded || check(attempt.url(), allow_private).is_err() {
                return attempt.error("a redirect to an address that sources may not use");
            }
            attempt.follow()
        });
        let builder = builder.redirect(redirects);
        let builder = if allow_private { builder } else { builder.dns_resolver(Arc::new(PublicOnly)) };
        Ok(Self { client: builder.build()?, allow_private })
    }

    /// Reads an address a person typed in.
    ///
    /// # Errors
    /// When it is not one that a source may use.
    pub(crate) fn parse(&self, text: &str) -> Result<Url, FetchError> {
        let url = Url::parse(text).map_err(|_| FetchError::NotHttp)?;
        check(&url, self.allow_private)?;
        Ok(url)
    }

    /// Fetches an answer of at most `max_bytes`, in at most `timeout`.
    ///
    /// # Errors
    /// When there is no such answer.
    pub(crate) async fn get(
        &self,
        url: Url,
        known: &Validators,
        max_bytes: usize,
        timeout: Duration,
    ) -> Result<Fetched, FetchError> {
        check(&url, self.allow_private)?;
        let mut request = self.client.get(url).timeout(timeout).header(header::ACCEPT, "application/json");
        if let Some(etag) = &known.etag {
            request = request.header(header::IF_NONE_MATCH, etag);
        }
        if let Some(at) = &known.last_modified {
            request = request.header(header::IF_MODIFIED_SINCE, at);
        }
        let response = request.send().await.map_err(FetchError::Network)?;
        let status = response.status();
        if status == StatusCode::NOT_MODIFIED {
            return Ok(Fetched::Unchanged);
        }
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            let retry_after = retry_after(response.headers());
            return Err(FetchError::Busy { status: status.as_u16(), retry_after });
        }
        if !status.is_success() {
            return Err(FetchError::Status(status.as_u16()));
        }
        let short = |text: &&str| text.len() <= MAX_VALIDATOR_BYTES;
        let text =
            |name| response.headers().get(name).and_then(|value| value.to_str().ok()).filter(short).map(str::to_owned);
        let validators = Validators { etag: text(header::ETAG), last_modified: text(header::LAST_MODIFIED) };
        let body = read(response, max_bytes).await?;
        Ok(Fetched::Answer(Answer { body, validators }))
    }
}

async fn read(response: reqwest::Response, max_bytes: usize) -> Result<Vec<u8>, FetchError> {
    let mut body = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(FetchError::Network)?;
        if body.len() + chunk.len() > max_bytes {
            return Err(FetchError::TooLarge(max_bytes));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// `Retry-After` in seconds; the form with a date is rare on such answers, and back-off covers it.
fn retry_after(headers: &http::HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

fn check(url: &Url, allow_private: bool) -> Result<(), FetchError> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(FetchError::NotHttp);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(FetchError::WithUser);
    }
    // The parser has already turned every spelling of an IPv4 address into the usual one.
    let host = url.host_str().map(|host| host.trim_matches(['[', ']'])).unwrap_or_default();
    let address = match host {
        "" => return Err(FetchError::NotHttp),
        "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        host => host.parse().ok(),
    };
    if !allow_private && address.is_some_and(|address| !is_public(address)) {
        return Err(FetchError::Private(toolyard_types::name::printable(host)));
    }
    Ok(())
}

/// Resolves names to public addresses only.
struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|address| is_public(address.ip())).collect();
            if public.is_empty() {
                return Err(Box::<dyn Error + Send + Sync>::from("the name leads to a private address only"));
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

/// Whether an address belongs to the public internet.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match address.to_ipv4_mapped().or_else(|| translated(address)) {
            Some(inner) => is_public_v4(inner),
            None => is_public_v6(address),
        },
    }
}

/// The special-purpose registries of RFC 6890 and its updates.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (18..20).contains(&b)))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let first = address.segments()[0];
    let documentation = first == 0x2001 && address.segments()[1] == 0x0db8;
    // Global unicast is 2000::/3; everything else is loopback, local, multicast or reserved.
    (first & 0xe000) == 0x2000 && !documentation
}

/// The IPv4 address inside a NAT64 (64:ff9b::/96) or 6to4 (2002::/16) address.
fn translated(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let from = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match segments {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(from(high, low)),
        [0x2002, high, low, ..] => Some(from(high, low)),
        _ => None,
    }
}

/// The longest cause that is shown: those of the system are far shorter, and the end tells most.
const LONGEST_CAUSE: usize = 400;

/// Text of the network made safe to show, without a cut where a person would miss the rest.
fn whole(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars().take(LONGEST_CAUSE) {
        if toolyard_types::name::is_hidden(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out
}

/// What went wrong on the way, without the address, which is shown beside it.
fn network_text(error: &reqwest::Error) -> String {
    let mut text = if error.is_timeout() { "no answer in time".to_owned() } else { "no connection".to_owned() };
    let mut source = error.source();
    while let Some(cause) = source {
        source = cause.source();
        if source.is_none() {
            text = format!("{text}: {}", whole(&cause.to_string()));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> SourceClient {
        SourceClient::new(reqwest::Client::builder().no_proxy(), false).expect("a client")
    }

    #[tokio::test]
    async fn private_addresses_are_refused_however_they_are_written() {
        let client = client();
        for url in [
            "http://127.0.0.1/x",
            "http://localhost:8080/",
            "http://10.0.0.1/",
            "http://169.254.169.254/latest/meta-data",
            "http://[::1]/",
            "http://[::ffff:10.0.0.1]/",
            "http://[fd00::1]/",
            "http://[64:ff9b::7f00:1]/",
            "http://0x7f000001/",
            "http://2130706433/",
            "http://100.64.0.1/",
            "file:///etc/passwd",
            "ftp://example.com/",
            "https://user:word@example.com/",
            "not an address",
        ] {
            assert!(client.parse(url).is_err(), "{url}");
        }
        for url in ["https://registry.example.com/", "http://93.184.216.34/", "https://[2606:2800:220:1::1]/x"] {
            assert!(client.parse(url).is_ok(), "{url}");
        }
    }

    #[tokio::test]
    async fn a_refused_address_is_never_told_and_one_with_a_password_is_refused_for_it() {
        let client = client();
        let why = |url: &str| client.parse(url).expect_err(url).to_string();
        for url in ["https://user:hunter2@example.com/", "https://hunter2@example.com/"] {
            assert!(why(url).contains("must not hold a user or password"), "{}", why(url));
        }
        for url in [
            "https://user:hunter2@example.com/",
            "htps://user:hunter2@example.com/",
            "https://user:hunter2@:x/",
            "http://10.0.0.1/?key=hunter2",
            "hunter2",
        ] {
            assert!(!why(url).contains("hunter2"), "{}", why(url));
        }
    }

    #[test]
    fn the_cause_of_a_failure_is_told_whole_and_steers_no_terminal() {
        let cause = "failed to lookup address information: Name or service not known";
        assert_eq!(whole(cause), cause);
        assert_eq!(whole("a\u{1b}[2J"), "a\\u{1b}[2J");
        assert_eq!(whole(&"x".repeat(10_000)).len(), LONGEST_CAUSE);
    }

    #[test]
    fn a_long_wait_is_cut_to_a_day() {
        let headers = |value: &str| [(header::RETRY_AFTER, value.parse().expect("a value"))].into_iter().collect();
        assert_eq!(retry_after(&headers("7")), Some(Duration::from_secs(7)));
        assert_eq!(retry_after(&headers("999999999")), Some(MAX_RETRY_AFTER));
        assert_eq!(retry_after(&headers("soon")), None);
    }
}
