//! Who this agent is: a key that never leaves the host, and the certificate that the control plane gave it for a token.
//!
//! Both are in `identity/` of the data directory, readable by its owner only. The key is made before anything is asked,
//! and a join that lost its answer is made again with the same key, so a broken connection costs no token. An agent that
//! has its identity needs no token; one that it is given all the same is used when it is a new one.

use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use toolyard_link::stack::{self, Peer};
use toolyard_link::tls::{AgentKey, TlsError, fingerprint};
use toolyard_link::{Channel, DialError, DialOptions, Dialler, LinkError, Offers};
use toolyard_types::agent::{AgentCertificate, CertificateRequest, JoinRequest, JoinToken};
use toolyard_types::{Clock, Code, Name, Problem, Secret, Timestamp, ToolboxId};
use tower::ServiceExt;

use crate::agent::LINKS_FILE;
use crate::own_ports::LISTENERS_FILE;
use crate::sync::REMOVED_DELAY;

const DIR: &str = "identity";
const IDENTITY_FILE: &str = "identity.json";
const MAX_ANSWER_BYTES: usize = 64 << 10;
const FIRST_DELAY: Duration = Duration::from_millis(200);
const LONGEST_DELAY: Duration = Duration::from_secs(5);
/// How often the clock is looked at: a host that slept has a later one than its timers.
const LOOK: Duration = Duration::from_secs(30);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// What an agent needs to know who it is.
#[derive(Clone, Debug)]
pub struct IdentityOptions {
    /// The agent's data directory.
    pub data_dir: PathBuf,
    /// A join token, where one was given.
    pub token: Option<JoinToken>,
    /// The proxy for outgoing connections.
    pub proxy: Option<String>,
    /// Hosts reached without it.
    pub no_proxy: Option<String>,
    /// Connections that the control plane offers, when this agent listens: then it dials none.
    pub offers: Option<Offers>,
    /// The clock.
    pub clock: Clock,
}

/// Why an agent has no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// There is neither an identity nor a token.
    #[error("`{0}` holds no identity; start with the token that `toolyard toolboxes enroll` printed")]
    None(PathBuf),
    /// The token is for another toolbox than the data directory.
    #[error(
        "token_foreign: `{dir}` belongs to toolbox `{name}` and the token is for another one; use another data directory"
    )]
    Foreign {
        /// The data directory.
        dir: PathBuf,
        /// Whose it is.
        name: Name,
    },
    /// The control plane refused.
    #[error("{}: {detail}", code.as_str())]
    Refused {
        /// Why, as a code.
        code: Code,
        /// Why, for a person.
        detail: String,
    },
    /// The files cannot be used.
    #[error("use `{path}`")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error(
        "`{0}` cannot be read; restore it, or remove its directory and start with a token of `toolyard toolboxes rejoin`"
    )]
    Broken(PathBuf, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// What an answer holds cannot be read.
    #[error("read {0}")]
    Unreadable(&'static str, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// A key or certificate cannot be used.
    #[error("use the agent's key")]
    Tls(#[from] TlsError),
    /// The addresses cannot be dialled.
    #[error("use the token's addresses")]
    Dial(#[from] DialError),
    /// The control plane cannot be asked now.
    #[error("reach the control plane")]
    Link(#[from] LinkError),
}

impl IdentityError {
    /// Whether asking again can help.
    fn is_passing(&self) -> bool {
        match self {
            Self::Link(_) => true,
            Self::Refused { code, .. } => matches!(
                code,
                Code::Internal | Code::StoreUnavailable | Code::ShuttingDown | Code::RateLimited | Code::UpstreamFailed
            ),
            _ => false,
        }
    }
}

/// What is kept beside the key.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Saved {
    toolbox: ToolboxId,
    name: Name,
    addresses: Vec<String>,
    ca: String,
    /// The SHA-256 of the secret it joined with.
    token: String,
    certificate: AgentCertificate,
}

/// An agent's identity, with the connections it is known on.
#[derive(Debug)]
pub struct Identity {
    dir: PathBuf,
    key: AgentKey,
    saved: Saved,
    dialler: Dialler,
    channel: Channel,
    clock: Clock,
    removed: CancellationToken,
}

impl Identity {
    /// Takes the identity of the data directory, or joins with the token; goes on asking while nobody answers.
    ///
    /// # Errors
    /// When there is neither, the token is refused or for another toolbox, or the files cannot be used.
    pub async fn open(options: IdentityOptions) -> Result<Self, IdentityError> {
        let dir = options.data_dir.join(DIR);
        let saved = load(&dir)?;
        match (&options.token, saved) {
            (None, None) => Err(IdentityError::None(options.data_dir)),
            (None, Some(saved)) => Self::known(dir, saved, &options),
            (Some(token), None) => Self::join(dir, token, &options).await,
            (Some(token), Some(saved)) => {
                if token.toolbox != saved.toolbox {
                    return Err(IdentityError::Foreign { dir: options.data_dir.clone(), name: saved.name });
                }
                if fingerprint(token.secret.expose().as_bytes()) == saved.token {
                    return Self::known(dir, saved, &options);
                }
                match Self::join(dir.clone(), token, &options).await {
                    Err(IdentityError::Refused { code, .. })
                        if matches!(code, Code::TokenUsed | Code::TokenExpired | Code::TokenInvalid) =>
                    {
                        tracing::warn!(code = code.as_str(), "the token is not good any more; going on without it");
                        Self::known(dir, saved, &options)
                    }
                    joined => joined,
                }
            }
        }
    }

    /// Whether the data directory holds an identity, usable or not.
    #[must_use]
    pub fn is_kept(data_dir: &Path) -> bool {
        data_dir.join(DIR).join(IDENTITY_FILE).exists()
    }

    /// What the data directory holds, without asking anybody.
    ///
    /// # Errors
    /// When there is no identity, or it cannot be used.
    pub fn existing(options: &IdentityOptions) -> Result<Self, IdentityError> {
        let dir = options.data_dir.join(DIR);
        let saved = load(&dir)?.ok_or_else(|| IdentityError::None(options.data_dir.clone()))?;
        Self::known(dir, saved, options)
    }

    fn known(dir: PathBuf, saved: Saved, options: &IdentityOptions) -> Result<Self, IdentityError> {
        let key = read_key(&dir)?.ok_or_else(|| {
            let lost = io::Error::new(io::ErrorKind::NotFound, "the key of the certificate is gone");
            IdentityError::File { path: dir.join("key.pem"), source: lost }
        })?;
        let dialler = dialler(&saved.addresses, &saved.ca, options)?;
        Self::new(dir, key, saved, dialler, options.clock.clone())
    }

    fn new(dir: PathBuf, key: AgentKey, saved: Saved, dialler: Dialler, clock: Clock) -> Result<Self, IdentityError> {
        dialler.set_certificate(&key, &der(&saved.certificate)?)?;
        let channel = stack::through(dialler.channel(), Peer::without_breaker("the control plane"));
        Ok(Self { dir, key, saved, dialler, channel, clock, removed: CancellationToken::new() })
    }

    async fn join(dir: PathBuf, token: &JoinToken, options: &IdentityOptions) -> Result<Self, IdentityError> {
        let key = key_for_joining(&dir)?;
        let dialler = dialler(&token.addresses, &token.ca, options)?;
        let channel = stack::through(dialler.channel(), Peer::without_breaker("the control plane"));
        let request =
            JoinRequest { secret: token.secret.clone(), toolbox: token.toolbox, csr: base64(&key.signing_request()?) };
        let mut failures = 0_u32;
        let certificate = loop {
            match ask::<AgentCertificate>(&channel, "/dtma/v1/join", &request).await {
                Ok(certificate) => break certificate,
                Err(error) if error.is_passing() => {
                    failures = failures.saturating_add(1);
                    if failures.is_power_of_two() {
                        tracing::warn!(error = &error as &dyn std::error::Error, failures, "join; trying again");
                    }
                    tokio::time::sleep(delay_after(failures)).await;
                }
                Err(error) => return Err(error),
            }
        };
        let saved = Saved {
            toolbox: certificate.toolbox,
            name: certificate.name.clone(),
            addresses: token.addresses.clone(),
            ca: token.ca.clone(),
            token: fingerprint(token.secret.expose().as_bytes()),
            certificate,
        };
        forget_places(&options.data_dir)?;
        save(&dir, &saved)?;
        tracing::info!(toolbox.name = %saved.name, "joined");
        Self::new(dir, key, saved, dialler, options.clock.clone())
    }

    /// Which toolbox it is.
    #[must_use]
    pub fn toolbox(&self) -> (ToolboxId, &Name) {
        (self.saved.toolbox, &self.saved.name)
    }

    /// When its certificate ends.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        self.saved.certificate.expires_at
    }

    /// Dials with its certificate, the newest one at any time.
    #[must_use]
    pub fn dialler(&self) -> Dialler {
        self.dialler.clone()
    }

    /// The control plane.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Cancelled once a renewal was refused because the toolbox was removed: with a certificate that has ended nothing else
    /// is heard.
    #[must_use]
    pub fn removed(&self) -> CancellationToken {
        self.removed.clone()
    }

    /// Renews the certificate whenever two thirds of its time have gone, until told to stop.
    pub async fn keep(mut self, stop: CancellationToken) {
        let mut failures = 0_u32;
        loop {
            let left = self.saved.certificate.renew_at.since(self.clock.now());
            let pause = if self.removed.is_cancelled() { REMOVED_DELAY } else { delay_after(failures) };
            let wait = if left.is_zero() && failures > 0 { pause } else { left.min(LOOK) };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            if self.clock.now() < self.saved.certificate.renew_at {
                continue;
            }
            match self.renew().await {
                Ok(()) => {
                    failures = 0;
                    tracing::info!(until = %self.saved.certificate.expires_at, "certificate renewed");
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    if matches!(error, IdentityError::Refused { code: Code::ToolboxRemoved, .. }) {
                        self.removed.cancel();
                    }
                    if failures.is_power_of_two() {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(error, failures, until = %self.saved.certificate.expires_at, "renew the certificate");
                    }
                }
            }
        }
    }

    async fn renew(&mut self) -> Result<(), IdentityError> {
        let csr = base64(&self.key.signing_request()?);
        let certificate = if self.clock.now() < self.saved.certificate.expires_at {
            let request = CertificateRequest { csr, ended: None };
            ask::<AgentCertificate>(&self.channel, "/dtma/v1/certificate", &request).await?
        } else {
            // No connection is made with a certificate that has ended; it is shown to renew it.
            let anonymous = self.dialler.without_certificate()?.channel();
            let channel = stack::through(anonymous, Peer::without_breaker("the control plane"));
            let ended = Some(self.saved.certificate.certificate.clone());
            ask::<AgentCertificate>(&channel, "/dtma/v1/certificate", &CertificateRequest { csr, ended }).await?
        };
        let saved = Saved { name: certificate.name.clone(), certificate, ..self.saved.clone() };
        self.dialler.set_certificate(&self.key, &der(&saved.certificate)?)?;
        save(&self.dir, &saved)?;
        self.saved = saved;
        Ok(())
    }
}

fn dialler(addresses: &[String], ca: &str, options: &IdentityOptions) -> Result<Dialler, IdentityError> {
    Ok(Dialler::new(DialOptions {
        addresses: addresses.to_vec(),
        ca: ca.to_owned(),
        proxy: options.proxy.clone(),
        no_proxy: options.no_proxy.clone(),
        offers: options.offers.clone(),
    })?)
}

/// Asks the control plane something that may be asked twice.
async fn ask<T: DeserializeOwned>(channel: &Channel, path: &str, body: &impl Serialize) -> Result<T, IdentityError> {
    let unreadable = |error| IdentityError::Unreadable("the control plane's answer", error);
    let body =
        serde_json::to_vec(body).map_err(|error| IdentityError::Unreadable("our own request", Box::new(error)))?;
    let timeout_ms = u64::try_from(ANSWER_TIMEOUT.as_millis()).unwrap_or(u64::MAX);
    let request = Request::post(path)
        .header(header::CONTENT_TYPE, "application/json")
        .header(stack::DEADLINE, timeout_ms)
        .body(Bytes::from(body))
        .expect("method, path and headers are constants");
    let response = channel.clone().oneshot(stack::repeatable(request)).await?;
    let status = response.status();
    let read = tokio::time::timeout(ANSWER_TIMEOUT, Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect());
    let body = read.await.map_err(|late| unreadable(Box::new(late)))?.map_err(unreadable)?.to_bytes();
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(|error| unreadable(Box::new(error)));
    }
    Err(match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) => IdentityError::Refused { code: problem.code, detail: problem.detail },
        Err(_) => IdentityError::Refused { code: passing(status), detail: format!("it answered status {status}") },
    })
}

/// What an answer that is not of ours may mean: one of a proxy passes, another one does not.
fn passing(status: StatusCode) -> Code {
    if status.is_server_error() { Code::UpstreamFailed } else { Code::BadRequest }
}

/// Grows to five seconds; a random part keeps agents from coming back all at once.
fn delay_after(failures: u32) -> Duration {
    let delay = FIRST_DELAY.saturating_mul(1 << failures.saturating_sub(1).min(6)).min(LONGEST_DELAY);
    delay.mul_f64(rand::random_range(0.5..1.0))
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

fn der(certificate: &AgentCertificate) -> Result<Vec<u8>, IdentityError> {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(&certificate.certificate)
        .map_err(|error| IdentityError::Unreadable("the certificate", Box::new(error)))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> IdentityError + '_ {
    move |source| IdentityError::File { path: path.to_owned(), source }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, IdentityError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at(path)(error)),
    }
}

fn load(dir: &Path) -> Result<Option<Saved>, IdentityError> {
    let path = dir.join(IDENTITY_FILE);
    let Some(bytes) = read(&path)? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| IdentityError::Broken(path, Box::new(error)))
}

fn save(dir: &Path, saved: &Saved) -> Result<(), IdentityError> {
    let bytes = serde_json::to_vec_pretty(saved).expect("our own types have string keys and serialise");
    write_private(&dir.join(IDENTITY_FILE), &bytes)
}

fn read_key(dir: &Path) -> Result<Option<AgentKey>, IdentityError> {
    let path = dir.join("key.pem");
    let Some(bytes) = read(&path)? else { return Ok(None) };
    let broken = |error| IdentityError::Broken(path.clone(), error);
    let text = String::from_utf8(bytes).map_err(|error| broken(Box::new(error)))?;
    AgentKey::from_pem(&Secret::new(text)).map(Some).map_err(|error| broken(Box::new(error)))
}

/// The key of an earlier attempt, else a new one that is stored before it is used.
fn key_for_joining(dir: &Path) -> Result<AgentKey, IdentityError> {
    if let Some(key) = read_key(dir)? {
        return Ok(key);
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(at(dir))?;
    let key = AgentKey::generate()?;
    write_private(&dir.join("key.pem"), key.pem().expose().as_bytes())?;
    Ok(key)
}

/// Writes a file that only its owner can read, all of it or nothing.
fn write_private(path: &Path, bytes: &[u8]) -> Result<(), IdentityError> {
    let new = path.with_extension("new");
    let write = || {
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    };
    write().map_err(at(path))
}

/// Forgets where gateways were, and where a control plane listened here: they may have been another one's.
fn forget_places(data_dir: &Path) -> Result<(), IdentityError> {
    [LINKS_FILE, LISTENERS_FILE].iter().try_for_each(|name| {
        let path = data_dir.join(name);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(IdentityError::File { path, source }),
            _ => Ok(()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn options(data_dir: &Path, token: Option<JoinToken>) -> IdentityOptions {
        IdentityOptions {
            data_dir: data_dir.to_owned(),
            token,
            proxy: None,
            no_proxy: None,
            offers: None,
            clock: Clock::system(),
        }
    }

    #[tokio::test]
    async fn without_an_identity_and_without_a_token_an_agent_says_what_it_needs() {
        let dir = tempfile::tempdir().expect("a directory");
        let error = Identity::open(options(dir.path(), None)).await.expect_err("nothing is there");
        assert!(matches!(error, IdentityError::None(_)) && error.to_string().contains("toolboxes enroll"));
    }

    #[test]
    fn the_key_is_made_once_and_only_its_owner_reads_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let identity = dir.path().join(DIR);
        let first = key_for_joining(&identity).expect("a key").pem();
        assert_eq!(key_for_joining(&identity).expect("the same key").pem(), first);
        let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
        assert_eq!((mode(&identity), mode(&identity.join("key.pem"))), (0o700, 0o600));
    }

    #[test]
    fn a_join_forgets_where_another_control_plane_and_its_gateways_were() {
        let dir = tempfile::tempdir().expect("a directory");
        let paths = [LINKS_FILE, LISTENERS_FILE].map(|name| dir.path().join(name));
        paths.iter().for_each(|path| std::fs::write(path, "[]").expect("written"));
        forget_places(dir.path()).expect("removed");
        assert!(paths.iter().all(|path| !path.exists()));
        forget_places(dir.path()).expect("there are none the first time");
    }

    #[test]
    fn a_file_that_was_emptied_is_named_with_the_way_out() {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["key.pem", "identity.json"] {
            let path = dir.path().join(name);
            std::fs::write(&path, "").expect("written");
            let error = match name {
                "key.pem" => key_for_joining(dir.path()).map(drop),
                _ => load(dir.path()).map(drop),
            };
            let error = error.expect_err("it holds nothing").to_string();
            assert!(error.contains(path.to_str().expect("text")) && error.contains("rejoin"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_token_for_another_toolbox_than_the_directorys_is_refused_without_asking() {
        let dir = tempfile::tempdir().expect("a directory");
        let token = |toolbox| JoinToken {
            v: JoinToken::VERSION,
            addresses: vec!["127.0.0.1:1".into()],
            ca: "00".repeat(32),
            toolbox,
            secret: Secret::new("secret"),
        };
        let own = ToolboxId::generate();
        let certificate = AgentCertificate {
            toolbox: own,
            name: Name::new("edge1").expect("a name"),
            certificate: String::new(),
            renew_at: Timestamp::default(),
            expires_at: Timestamp::default(),
        };
        key_for_joining(&dir.path().join(DIR)).expect("a key");
        let saved = Saved {
            toolbox: own,
            name: certificate.name.clone(),
            addresses: Vec::new(),
            ca: String::new(),
            token: String::new(),
            certificate,
        };
        save(&dir.path().join(DIR), &saved).expect("saved");
        let error = Identity::open(options(dir.path(), Some(token(ToolboxId::generate())))).await.expect_err("foreign");
        assert!(matches!(error, IdentityError::Foreign { .. }), "{error}");
    }
}
