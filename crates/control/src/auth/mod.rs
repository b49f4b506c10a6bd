//! Who is asking: API keys, sessions, passwords.
//!
//! An API key or a session token is 256 random bits, so its SHA-256 is enough to store and to look up; a
//! password is stretched with Argon2id. Every request reads the store: a revoked key or a removed member is
//! refused at once, on every replica. The gateway, which has no store, gets keys with its snapshot.

pub(crate) mod bootstrap;
pub(crate) mod device;
pub(crate) mod limit;
pub(crate) mod password;
pub(crate) mod token;

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderMap, header};
use toolyard_store::{OrgTx, Store};
use toolyard_types::access::{Actor, Principal};
use toolyard_types::snapshot::KeyGrant;
use toolyard_types::{ApiKeyId, Clock, Code, SessionId, Timestamp};

pub use bootstrap::{FirstSignIn, reset_password};

use crate::{Control, ControlError, Result};

/// How often uses of keys are written, and ended sessions forgotten.
const UPKEEP_PERIOD: Duration = Duration::from_secs(30);
/// A session's end is moved at most this often, so that reading pages does not write.
const EXTEND_EVERY: Duration = Duration::from_secs(60);
/// For how long after the password was given a session may make new power.
const RECENTLY: Duration = Duration::from_secs(5 * 60);
/// No key or token is longer; a longer header is not looked at.
const LONGEST_TOKEN: usize = 256;

/// Who is asking, with the request it belongs to.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who, and with which power.
    pub principal: Principal,
    /// The request, for the log and the audit.
    pub request_id: Option<String>,
    /// The session, when signed in with one.
    pub session: Option<SessionId>,
    /// When the session or the key ends.
    pub expires_at: Option<Timestamp>,
    /// Whose share of what there is the caller uses up; see [`KeyGrant::share_of`].
    pub(crate) share_of: Actor,
    /// Whether the password is still the one made up at the first start.
    pub(crate) first_run: bool,
    /// When the password was given last, in a session.
    pub(crate) authenticated_at: Option<Timestamp>,
    /// When the session's use was last written.
    last_seen_at: Option<Timestamp>,
}

impl Caller {
    /// Somebody who is signing in, before there is a session.
    pub(crate) fn signing_in(principal: Principal, request_id: Option<String>) -> Self {
        Self::of(principal, request_id, None)
    }

    fn of(principal: Principal, request_id: Option<String>, expires_at: Option<Timestamp>) -> Self {
        Self {
            share_of: principal.actor.clone(),
            principal,
            request_id,
            session: None,
            expires_at,
            first_run: false,
            authenticated_at: None,
            last_seen_at: None,
        }
    }
}

/// Refuses what makes new power to a session in which the password was not given lately, which may have been left open
/// or stolen. An API key is what it is, whenever it was made.
///
/// # Errors
/// `reauthentication_required`.
pub(crate) fn allow_new_power(control: &Control, caller: &Caller) -> Result<()> {
    let Some(at) = caller.authenticated_at else { return Ok(()) };
    if control.clock().now().since(at) <= RECENTLY {
        return Ok(());
    }
    let minutes = RECENTLY.as_secs() / 60;
    let detail = format!("in a session this needs the password to have been given in the last {minutes} minutes");
    Err(ControlError::problem(Code::ReauthenticationRequired, detail))
}

/// Looks again whether the caller may go on, and keeps it so until `tx` ends: what is being revoked meanwhile leaves
/// nothing new behind.
///
/// # Errors
/// `unauthenticated` when session or key have ended, or the member has another role now.
pub(crate) async fn hold(tx: &OrgTx, caller: &Caller) -> Result<()> {
    let good = match (&caller.actor, caller.session) {
        (Actor::ApiKey(key), _) => tx.hold_api_key(*key).await?,
        (_, Some(session)) => tx.hold_session(session).await? == Some(caller.role),
        _ => true,
    };
    if good { Ok(()) } else { Err(refuse("it has ended meanwhile; sign in again")) }
}

impl Deref for Caller {
    type Target = Principal;
    fn deref(&self) -> &Principal {
        &self.principal
    }
}

/// What authentication keeps in memory.
pub(crate) struct AuthState {
    pub(crate) passwords: password::Passwords,
    pub(crate) sign_ins: limit::SignInLimit,
    pub(crate) reports: limit::ReportLimit,
    /// Last uses of keys that were not written yet; bounded by the number of keys.
    key_uses: Mutex<BTreeMap<ApiKeyId, Timestamp>>,
}

impl AuthState {
    pub(crate) fn new(clock: &Clock) -> Self {
        Self {
            passwords: password::Passwords::new(),
            sign_ins: limit::SignInLimit::new(clock.clone()),
            reports: limit::ReportLimit::new(clock.clone()),
            key_uses: Mutex::default(),
        }
    }

    fn key_uses(&self) -> MutexGuard<'_, BTreeMap<ApiKeyId, Timestamp>> {
        self.key_uses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Control {
    /// Notes that a key was used now; written every 30 seconds.
    pub fn note_key_use(&self, key: ApiKeyId) {
        let now = self.clock().now();
        self.auth().key_uses().insert(key, now);
    }
}

/// The name of the session cookie: with the `__Host-` prefix a browser accepts it only over TLS, for this
/// host alone.
pub(crate) fn cookie_name(secure: bool) -> &'static str {
    if secure { "__Host-toolyard_session" } else { "toolyard_session" }
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// It changes nothing. Whoever asks what is wrong with the database is told so without it.
    Read,
    /// It may change something. Only the database knows which secret of a key was replaced.
    Change,
}

/// Finds out who is asking: an API key as bearer token, else the session cookie.
///
/// # Errors
/// `unauthenticated` when neither is there or good.
pub(crate) async fn authenticate(
    control: &Control,
    headers: &HeaderMap,
    request_id: Option<String>,
    purpose: Purpose,
) -> Result<Caller> {
    let found = find(control, headers, request_id, purpose).await;
    let caller = found.inspect_err(|error| note_refused_key(headers, error))?;
    match (&caller.actor, caller.session) {
        (Actor::ApiKey(key), _) => control.note_key_use(*key),
        (_, Some(session)) => return Ok(Caller { expires_at: extend(control, session, &caller).await?, ..caller }),
        _ => {}
    }
    Ok(caller)
}

/// Leaves a line about a key that is refused, and counts it: guessing and forgotten clients are seen. Never the key.
fn note_refused_key(headers: &HeaderMap, error: &ControlError) {
    if headers.contains_key(header::AUTHORIZATION) && error.code() == toolyard_types::Code::Unauthenticated {
        metrics::counter!("toolyard_keys_refused_total", "listener" => "api").increment(1);
        tracing::info!(why = %error, "an API key was refused");
    }
}

/// Finds out who reads, without counting it as a use: an answer that goes on for hours must not keep the session of
/// somebody who left alive.
///
/// # Errors
/// As [`authenticate`].
pub(crate) async fn look_again(control: &Control, headers: &HeaderMap, request_id: Option<String>) -> Result<Caller> {
    find(control, headers, request_id, Purpose::Read).await
}

async fn find(control: &Control, headers: &HeaderMap, request_id: Option<String>, purpose: Purpose) -> Result<Caller> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let text = value.to_str().ok().filter(|text| text.len() <= LONGEST_TOKEN);
        let key = text.and_then(bearer).ok_or_else(|| refuse("send `Authorization: Bearer <API key>`"))?;
        return by_key(control, key, request_id, purpose).await;
    }
    match session_token(control, headers) {
        Some(token) => by_session(control, token, request_id).await,
        None => Err(refuse("sign in, or send `Authorization: Bearer <API key>`")),
    }
}

/// The token of the session that a browser shows.
pub(crate) fn session_token<'a>(control: &Control, headers: &'a HeaderMap) -> Option<&'a str> {
    cookie(headers, cookie_name(control.options().cookie_secure))
}

fn refuse(detail: &str) -> ControlError {
    ControlError::Unauthenticated(detail.to_owned())
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, value)| *key == name && value.len() <= LONGEST_TOKEN)
        .map(|(_, value)| value)
}

async fn by_key(control: &Control, key: &str, request_id: Option<String>, purpose: Purpose) -> Result<Caller> {
    let hash = token::sha256_hex(key);
    if purpose == Purpose::Read
        && !control.writes_work()
        && let Some(grant) = known_to_gateway(control, &hash)
    {
        let (expires_at, share_of) = (grant.expires_at, grant.share_of());
        let caller = Caller::of(key_principal(grant), request_id, expires_at);
        return Ok(Caller { share_of, ..caller });
    }
    let tx = control.store().system_read("find whom an API key belongs to").await?;
    let found = tx.key_grant_by_hash(&hash).await?;
    drop(tx);
    let found = found.ok_or_else(|| refuse("the API key is unknown, revoked or expired"))?;
    let expires_at = found.grant.expires_at;
    // One that was made this very moment is not there yet.
    let share_of = control.snapshots().borrow().keys.get(&hash).map(|grant| grant.share_of());
    let principal = Principal { replaced_secret: found.superseded, ..key_principal(found.grant) };
    let caller = Caller::of(principal, request_id, expires_at);
    let share_of = share_of.unwrap_or_else(|| caller.actor.clone());
    Ok(Caller { share_of, ..caller })
}

/// The grant of a key by which the gateway decides, which knows them for a while without a database.
fn known_to_gateway(control: &Control, hash: &str) -> Option<KeyGrant> {
    let snapshot = control.snapshots().borrow().clone();
    let now = control.clock().now();
    let fresh = now.since(snapshot.made_at) <= control.options().snapshot_max_age;
    let grant = snapshot.keys.get(hash).filter(|grant| fresh && grant.expires_at.is_none_or(|end| end > now))?;
    // A session's key is for MCP alone.
    grant.member.is_none().then(|| KeyGrant::clone(grant))
}

/// Who a key is, by the secret that it has now.
pub(crate) fn key_principal(grant: KeyGrant) -> Principal {
    Principal {
        actor: grant.actor(),
        display: grant.name,
        organization: grant.organization,
        organization_name: grant.organization_name,
        role: grant.role,
        scope: grant.scope,
        replaced_secret: false,
    }
}

/// Whose session a token is.
///
/// # Errors
/// `unauthenticated` when it has ended.
pub(crate) async fn by_session(control: &Control, token: &str, request_id: Option<String>) -> Result<Caller> {
    let tx = control.store().system_read("find whom a session belongs to").await?;
    let found = tx.session_by_token_hash(&token::sha256_hex(token)).await?;
    drop(tx);
    let signed_in = found.ok_or_else(|| refuse("the session has ended; sign in again"))?;
    let (expires_at, last_seen_at) = (Some(signed_in.expires_at), Some(signed_in.last_seen_at));
    let principal = Principal {
        actor: Actor::User(signed_in.user),
        display: signed_in.email,
        organization: signed_in.membership.organization,
        organization_name: signed_in.membership.organization_name,
        role: signed_in.membership.role,
        scope: None,
        replaced_secret: false,
    };
    let (session, first_run) = (Some(signed_in.session), signed_in.password_generated);
    let authenticated_at = Some(signed_in.authenticated_at);
    let caller = Caller::of(principal, request_id, expires_at);
    Ok(Caller { session, first_run, authenticated_at, last_seen_at, ..caller })
}

/// Moves a session's end, because it is being used.
async fn extend(control: &Control, session: SessionId, caller: &Caller) -> Result<Option<Timestamp>> {
    let now = control.clock().now();
    if caller.last_seen_at.is_some_and(|seen| now.since(seen) < EXTEND_EVERY) {
        return Ok(caller.expires_at);
    }
    let expires_at = now.plus(control.options().session_ttl);
    let tx = control.store().org(caller.organization).await?;
    tx.extend_session(session, expires_at).await?;
    tx.commit().await?;
    Ok(Some(expires_at))
}

/// Writes uses of keys and forgets ended sessions, until everything ends.
pub(crate) async fn upkeep(control: Control) {
    let mut ticks = tokio::time::interval(UPKEEP_PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = control.stopping().cancelled() => return,
            _ = ticks.tick() => {}
        }
        if let Err(error) = control.in_time(upkeep_once(&control)).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "upkeep of sessions and keys is put off");
        }
    }
}

async fn upkeep_once(control: &Control) -> Result<()> {
    flush_key_uses(control).await?;
    delete_ended_sessions(control.store()).await
}

async fn delete_ended_sessions(store: &Store) -> Result<()> {
    let tx = store.system("forget ended sessions of every organization").await?;
    tx.delete_ended_sessions().await?;
    Ok(tx.commit().await?)
}

/// Writes when keys were last used.
pub(crate) async fn flush_key_uses(control: &Control) -> Result<()> {
    /// What is not written waits for the next turn, also when this one is given up.
    struct Unwritten<'a>(&'a Control, Vec<(ApiKeyId, Timestamp)>);
    impl Drop for Unwritten<'_> {
        fn drop(&mut self) {
            let mut waiting = self.0.auth().key_uses();
            for (key, at) in self.1.drain(..) {
                waiting.entry(key).or_insert(at);
            }
        }
    }
    // In the order of their ids on every replica, so that none waits for another in a circle.
    let uses = std::mem::take(&mut *control.auth().key_uses()).into_iter().collect();
    let mut uses = Unwritten(control, uses);
    if uses.1.is_empty() {
        return Ok(());
    }
    write_key_uses(control.store(), &uses.1).await?;
    uses.1.clear();
    Ok(())
}

async fn write_key_uses(store: &Store, uses: &[(ApiKeyId, Timestamp)]) -> Result<()> {
    let tx = store.system("write last uses of API keys of every organization").await?;
    tx.touch_api_keys(uses).await?;
    Ok(tx.commit().await?)
}
