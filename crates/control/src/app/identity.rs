//! Signing in and out, and what the caller may do.

use std::net::IpAddr;
use std::time::Duration;

use toolyard_store::{Membership, NewSession, NewSessionKey, StoreError, User};
use toolyard_types::access::{Action, Actor, Principal};
use toolyard_types::api::identity::{ChangePassword, Reauthenticate, Session, SessionMcpKey, SignIn, Why};
use toolyard_types::{ApiKeyId, Code, Name, Secret, SessionId, Timestamp, UserId};

use super::allow;
use crate::auth::device::{self, Device};
use crate::auth::limit::{Attempt, Who};
use crate::auth::password::{self, Line};
use crate::auth::{self, token};
use crate::{Caller, Control, ControlError, Result};
use toolyard_policy::Resource;

/// How long a session's key for MCP is good.
const MCP_KEY_LIFE: Duration = Duration::from_secs(15 * 60);
/// Keys of one session at once, such as one for each tab; a further one ends the oldest.
const MCP_KEYS_PER_SESSION: u32 = 8;
/// How long a new key may take to reach this replica's gateway.
const MCP_KEY_WAIT: Duration = Duration::from_secs(1);

/// A session that was just made.
pub(crate) struct NewlySignedIn {
    /// For the cookie.
    pub(crate) token: Secret,
    /// For the cookie by which the browser is known from now on.
    pub(crate) device: String,
    /// About it.
    pub(crate) session: Session,
}

/// Who signs in, as far as the request shows it.
pub(crate) struct Visitor {
    /// The address, where the connection has one.
    pub(crate) address: Option<IpAddr>,
    /// The browser, when it signed in before.
    pub(crate) device: Option<Device>,
    /// The token of the session that the browser has until now.
    pub(crate) session: Option<Secret>,
    /// The request, for the log and the audit.
    pub(crate) request_id: Option<String>,
}

/// Checks e-mail address and password, and makes a session. A wrong address costs the same time as a wrong
/// password, and both are answered alike.
///
/// # Errors
/// `invalid_credentials`; `rate_limited` and `no_capacity` when there are too many attempts.
pub(crate) async fn sign_in(control: &Control, sign_in: &SignIn, visitor: Visitor) -> Result<NewlySignedIn> {
    let outcome = try_sign_in(control, sign_in, visitor).await;
    let counted = match &outcome {
        Ok(_) => "done",
        Err(ControlError::RateLimited { .. }) => "rate_limited",
        Err(error) if error.code() == Code::InvalidCredentials => "wrong",
        Err(error) if error.code() == Code::NoCapacity => "no_capacity",
        Err(_) => "failed",
    };
    metrics::counter!("toolyard_sign_ins_total", "outcome" => counted).increment(1);
    outcome
}

async fn try_sign_in(control: &Control, sign_in: &SignIn, visitor: Visitor) -> Result<NewlySignedIn> {
    if password::is_too_long(&sign_in.password) {
        return Err(wrong());
    }
    let Judged { attempt, line, known } = judge(control, sign_in, &visitor).await?;
    let hash = known.as_ref().map(|(user, _)| user.password_hash.clone());
    let right = match control.auth().passwords.verify(line, &sign_in.password, hash).await {
        Ok(right) => right,
        Err(error) => {
            attempt.undecided();
            return Err(error);
        }
    };
    let Some((user, membership)) = known else { return Err(wrong()) };
    let caller = caller_of(&user, &membership, visitor.request_id.clone());
    if !right {
        let address = visitor.address.map(|address| format!(" from {address}")).unwrap_or_default();
        super::audit_refusal(control, &caller, "session.create", "session", &format!("wrong password{address}")).await;
        return Err(wrong());
    }
    attempt.succeeded();
    let token = token::random();
    let signed_in_at = control.clock().now();
    let expires_at = signed_in_at.plus(control.options().session_ttl);
    let new = NewSession {
        id: SessionId::generate(),
        user: user.id,
        token_hash: token::sha256_hex(token.expose()),
        expires_at,
    };
    let mut tx = control.store().org(membership.organization).await?;
    // Checking took a while: a password that was changed meanwhile, or a member who was removed, makes no session.
    if tx.member_password(user.id).await?.as_ref() != Some(&user.password_hash) {
        return Err(wrong());
    }
    tx.create_session(&new).await?;
    super::audit(&mut tx, &caller, "session.create", format!("session/{}", new.id), serde_json::json!({})).await?;
    tx.commit().await?;
    if let Some(before) = &visitor.session {
        end_before(control, before, visitor.request_id).await?;
    }
    Ok(NewlySignedIn {
        token,
        device: device::issue(control, user.id, &user.password_hash),
        session: Session {
            first_run: user.password_generated,
            authenticated_at: Some(signed_in_at),
            ..describe(control, &caller.principal, Some(expires_at))
        },
    })
}

/// Ends the session that a browser had until it signed in again, whoever's it was: the browser forgets it, so nobody would
/// sign out of it any more.
async fn end_before(control: &Control, token: &Secret, request_id: Option<String>) -> Result<()> {
    match auth::by_session(control, token.expose(), request_id).await {
        Ok(before) => sign_out(control, &before).await,
        Err(ControlError::Unauthenticated(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// An attempt that may be made.
struct Judged {
    attempt: Attempt,
    line: Line,
    known: Option<(User, Membership)>,
}

/// Finds out whether a password may be tried now: a browser that signed in to this account before is counted by itself,
/// whatever strangers do.
async fn judge(control: &Control, sign_in: &SignIn, visitor: &Visitor) -> Result<Judged> {
    let limit = &control.auth().sign_ins;
    if let Some(device) = &visitor.device
        && let Ok(attempt) = limit.begin(&Who::Device(device.nonce.clone()))
    {
        let known = find(control, sign_in).await?;
        if known.as_ref().is_some_and(|(user, _)| device.is_of(user)) {
            return Ok(Judged { attempt, line: Line::Known, known });
        }
        attempt.undecided();
    }
    let attempt = limit.begin(&Who::Stranger { email: sign_in.email.clone(), address: visitor.address })?;
    match find(control, sign_in).await {
        Ok(known) => Ok(Judged { attempt, line: Line::Stranger(visitor.address), known }),
        Err(error) => {
            attempt.undecided();
            Err(error)
        }
    }
}

/// Checks the password of whoever is signed in.
///
/// # Errors
/// `validation_failed` for `field` when it is wrong; `rate_limited` and `no_capacity` when there are too many attempts.
async fn check_own_password(control: &Control, caller: &Caller, field: &str, password: &Secret) -> Result<()> {
    let wrong = || ControlError::field(field, "is wrong");
    let Some(session) = caller.session.filter(|_| !password::is_too_long(password)) else { return Err(wrong()) };
    let attempt = control.auth().sign_ins.begin(&Who::Session(session))?;
    let right = async {
        let Actor::User(user) = caller.actor else { return Ok(false) };
        let hash = control.store().org_read(caller.organization).await?.member_password(user).await?;
        control.auth().passwords.verify(Line::Known, password, hash).await
    };
    match right.await {
        Ok(true) => attempt.succeeded(),
        Ok(false) => {
            super::audit_refusal(control, caller, "session.authenticate", "session", "wrong password").await;
            return Err(wrong());
        }
        Err(error) => {
            attempt.undecided();
            return Err(error);
        }
    }
    Ok(())
}

async fn find(control: &Control, sign_in: &SignIn) -> Result<Option<(User, Membership)>> {
    let tx = control.store().system_read("find who signs in").await?;
    Ok(tx.member_by_email(&sign_in.email, sign_in.organization.as_deref()).await?)
}

fn wrong() -> ControlError {
    ControlError::problem(Code::InvalidCredentials, "the e-mail address or the password is wrong")
}

fn caller_of(user: &User, membership: &Membership, request_id: Option<String>) -> Caller {
    let principal = Principal {
        actor: Actor::User(user.id),
        display: user.email.clone(),
        organization: membership.organization,
        organization_name: membership.organization_name.clone(),
        role: membership.role,
        scope: None,
        replaced_secret: false,
    };
    Caller::signing_in(principal, request_id)
}

/// Ends the caller's session; with a key there is none to end.
pub(crate) async fn sign_out(control: &Control, caller: &Caller) -> Result<()> {
    let Some(session) = caller.session else { return Ok(()) };
    let mut tx = control.store().org(caller.organization).await?;
    tx.delete_session(session).await?;
    super::audit(&mut tx, caller, "session.delete", format!("session/{session}"), serde_json::json!({})).await?;
    Ok(tx.commit().await?)
}

/// Makes a key with which the session's browser speaks MCP to the gateway, as the member. It is none of the API
/// keys: nobody lists or manages it, and it ends with the session.
///
/// The audit log is not told: it has the sign-in that the session is from, the key can do nothing that the session
/// cannot, and a browser gets another one with each page that speaks MCP. What is called with it is in the call records.
///
/// # Errors
/// `conflict` without a session; `forbidden` when the member's role may not call tools.
pub(crate) async fn mcp_key(control: &Control, caller: &Caller) -> Result<SessionMcpKey> {
    let Some(session) = caller.session else {
        return Err(ControlError::Conflict("an API key calls MCP itself; this is for a session".to_owned()));
    };
    allow(control, caller, Action::ToolCall, &Resource::Organization)?;
    let key = token::api_key();
    let end = control.clock().now().plus(MCP_KEY_LIFE);
    let expires_at = caller.expires_at.filter(|session_end| *session_end < end).unwrap_or(end);
    let hash = token::sha256_hex(key.expose());
    let new = NewSessionKey { id: ApiKeyId::generate(), session, hash, expires_at };
    let mut tx = control.store().org(caller.organization).await?;
    tx.create_session_key(&new, MCP_KEYS_PER_SESSION).await?;
    tx.commit().await?;
    // The browser calls at once, and the gateway learns of the key from the snapshot.
    let mut snapshots = control.snapshots();
    let known = snapshots.wait_for(|snapshot| snapshot.keys.contains_key(&new.hash));
    if tokio::time::timeout(MCP_KEY_WAIT, known).await.is_err() {
        tracing::debug!("a session's key for MCP is not in the snapshot yet");
    }
    Ok(SessionMcpKey { key: key.expose().to_owned(), expires_at })
}

/// Gives the caller another password, and e-mail address if they ask for it, and ends their sessions, this one too, and
/// their API keys if they ask for that. A session alone is not enough: it may have been left open, or stolen. Answers
/// with the cookie by which the browser is known from now on.
///
/// # Errors
/// `conflict` for an API key; `validation_failed` for a wrong current or a bad new password; `rate_limited`.
pub(crate) async fn change_password(control: &Control, caller: &Caller, change: &ChangePassword) -> Result<String> {
    let Actor::User(user) = caller.actor else {
        return Err(ControlError::Conflict("an API key has no password; sign in to change yours".to_owned()));
    };
    password::check("new_password", &change.new_password)?;
    if let Some(email) = &change.email {
        super::members::check_email(email)?;
    }
    check_own_password(control, caller, "current_password", &change.current_password).await?;
    let hash = control.auth().passwords.hash(&change.new_password).await?;
    let mut tx = control.store().org(caller.organization).await?;
    tx.set_member_password(user, &hash).await?;
    let email = change.email.as_ref().filter(|email| !email.eq_ignore_ascii_case(&caller.display));
    if let Some(email) = email {
        tx.set_member_email(user, email).await.map_err(|error| match error {
            StoreError::AlreadyExists => ControlError::AlreadyExists("a member with this e-mail address".to_owned()),
            error => error.into(),
        })?;
    }
    let mut detail = email.map_or_else(|| serde_json::json!({}), |email| serde_json::json!({ "email": email }));
    if change.revoke_keys {
        detail["revoked_keys"] = super::keys::revoke_made_by(&mut tx, user).await?;
    }
    super::audit(&mut tx, caller, "member.password", format!("member/{user}"), detail).await?;
    tx.commit().await?;
    // The browser that has just shown both passwords stays known, though the one it was known by is gone.
    Ok(device::issue(control, user, &hash))
}

/// Takes the password again, so that the session may make new power for a while.
///
/// # Errors
/// `conflict` for an API key; `validation_failed` for a wrong password; `rate_limited`.
pub(crate) async fn reauthenticate(control: &Control, caller: &Caller, given: &Reauthenticate) -> Result<Session> {
    let Some(session) = caller.session else {
        return Err(ControlError::Conflict("an API key has no password; this is for a session".to_owned()));
    };
    check_own_password(control, caller, "password", &given.password).await?;
    let mut tx = control.store().org(caller.organization).await?;
    tx.set_session_authenticated(session).await?;
    super::audit(&mut tx, caller, "session.authenticate", format!("session/{session}"), serde_json::json!({})).await?;
    let authenticated_at = Some(tx.now());
    tx.commit().await?;
    Ok(Session { authenticated_at, ..self::session(control, caller) })
}

/// Who the caller is.
pub(crate) fn session(control: &Control, caller: &Caller) -> Session {
    let Caller { first_run, authenticated_at, .. } = *caller;
    Session { first_run, authenticated_at, ..describe(control, caller, caller.expires_at) }
}

/// One person in one organization, or one key, in a word.
pub(crate) fn account(principal: &Principal) -> String {
    format!("{}/{}", principal.organization, principal.actor)
}

fn describe(control: &Control, principal: &Principal, expires_at: Option<Timestamp>) -> Session {
    Session {
        account: account(principal),
        kind: if matches!(principal.actor, Actor::ApiKey(_)) { "api_key" } else { "user" }.to_owned(),
        display: principal.display.clone(),
        organization: principal.organization_name.clone(),
        role: principal.role,
        actions: control.decider().allowed_actions(principal),
        expires_at,
        authenticated_at: None,
        first_run: false,
    }
}

/// About whom `why` is asked.
pub(crate) enum About {
    /// The caller.
    Caller,
    /// A member, by id or e-mail address.
    Member(String),
    /// A key, by id or name.
    Key(String),
}

/// Why somebody may or may not do something. About others one may ask who may see them.
pub(crate) async fn why(
    control: &Control,
    caller: &Caller,
    action: Action,
    resource: &Resource,
    about: &About,
) -> Result<Why> {
    let principal = match about {
        About::Caller => caller.principal.clone(),
        About::Member(member) => member_principal(control, caller, member).await?,
        About::Key(key) => key_principal(control, caller, key).await?,
    };
    let decision = control.decider().decide(&principal, action, resource);
    Ok(Why {
        principal: principal.display,
        action,
        resource: resource.to_string(),
        allowed: decision.allowed,
        because: decision.because,
    })
}

async fn member_principal(control: &Control, caller: &Caller, text: &str) -> Result<Principal> {
    allow(control, caller, Action::MemberRead, &Resource::Organization)?;
    let tx = control.store().org_read(caller.organization).await?;
    let id = text.parse::<UserId>().ok();
    let members = tx.members().await?;
    let found = members.into_iter().find(|member| Some(member.id) == id || member.email.eq_ignore_ascii_case(text));
    let member = found.ok_or_else(|| ControlError::NotFound("the member".to_owned()))?;
    Ok(Principal {
        actor: Actor::User(member.id),
        display: member.email,
        role: member.role,
        scope: None,
        replaced_secret: false,
        ..caller.principal.clone()
    })
}

async fn key_principal(control: &Control, caller: &Caller, text: &str) -> Result<Principal> {
    let tx = control.store().org_read(caller.organization).await?;
    let key = match text.parse::<ApiKeyId>() {
        Ok(id) => tx.api_key(id).await?,
        Err(_) => tx.active_api_keys_named(&Name::new(text)?).await?.pop(),
    };
    let key = key.ok_or_else(|| ControlError::NotFound("the API key".to_owned()))?;
    let own = super::keys::is_own(&tx, caller, &key).await?;
    allow(control, caller, Action::KeyRead, &Resource::ApiKey { own })?;
    Ok(Principal {
        actor: Actor::ApiKey(key.id),
        display: key.name.to_string(),
        role: key.role,
        scope: key.scope,
        replaced_secret: false,
        ..caller.principal.clone()
    })
}
