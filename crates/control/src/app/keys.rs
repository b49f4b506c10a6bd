//! API keys.
//!
//! A key is at most as powerful as its maker: neither its role nor its scope reaches further, and one made with
//! a key ends no later than that. Keys made with a key are its children: they end when it is revoked. The key itself is
//! shown once; what is stored is its SHA-256.

use std::time::Duration;

use serde_json::json;
use toolyard_policy::Resource;
use toolyard_store::{KeyRotation, NewApiKey, OrgTx};
use toolyard_types::access::{Action, Actor, KeyScope, Role};
use toolyard_types::api::identity::{ApiKey, CreateApiKey, CreatedApiKey, KeysQuery, RotateApiKey};
use toolyard_types::api::{Page, PageQuery};
use toolyard_types::{ApiKeyId, Timestamp, UserId};

use super::{allow, audit, id_cursor, next_cursor, page_limit};
use crate::auth::bootstrap::MADE_BY as BOOTSTRAP;
use crate::auth::{self, token};
use crate::{Caller, Control, ControlError, Result};

const DEFAULT_DAYS: u32 = 90;
const MOST_DAYS: u32 = 3650;
/// The longest that the secret before a rotation works too.
const LONGEST_OVERLAP: Duration = Duration::from_secs(7 * 24 * 3600);
/// The most actions, resources or credentials a scope names.
const LARGEST_SCOPE: usize = 200;
/// The most keys of an organization that work, and the most bytes that what they are narrowed to takes together: each
/// gateway has them in memory, and all are read with every change.
const MOST_KEYS: u64 = 10_000;
const MOST_SCOPE_BYTES: u64 = 4 << 20;
/// The most keys that one line of the audit log names.
const NAMED: usize = 100;

/// Whether the caller made this key, or a key that it was made with, or is it.
pub(crate) async fn is_own(tx: &OrgTx, caller: &Caller, key: &ApiKey) -> Result<bool> {
    let actor = caller.actor.to_string();
    if key.created_by == actor || actor == maker(key.id) {
        return Ok(true);
    }
    Ok(tx.has_made_api_key(&actor, key.id).await?)
}

/// A key as the maker of others.
fn maker(id: ApiKeyId) -> String {
    Actor::ApiKey(id).to_string()
}

/// The keys that the caller may see: all, or only its own.
pub(crate) async fn list(control: &Control, caller: &Caller, query: &KeysQuery) -> Result<Page<ApiKey>> {
    let page = PageQuery { limit: query.limit, cursor: query.cursor.clone() };
    let limit = page_limit(&page)?;
    let tx = control.store().org_read(caller.organization).await?;
    let sees_all = control.decider().allows(caller, Action::KeyRead, &Resource::ApiKey { own: false });
    let made_by = match &query.made_by {
        None => (!sees_all).then(|| caller.actor.to_string()),
        Some(text) => Some(maker_asked(control, caller, &tx, text, sees_all).await?),
    };
    let active = query.active.unwrap_or(false);
    let items = tx.api_keys(id_cursor(&page)?, made_by.as_deref(), active, limit + 1).await?;
    Ok(next_cursor(items, limit, |key| key.id.to_string()))
}

/// Whose keys are asked for, where the caller may see them.
async fn maker_asked(control: &Control, caller: &Caller, tx: &OrgTx, text: &str, sees_all: bool) -> Result<String> {
    let actor = caller.actor.to_string();
    if text == "me" || text == actor {
        return Ok(actor);
    }
    if let Some(id) = text.strip_prefix("api_key:").and_then(|id| id.parse::<ApiKeyId>().ok()) {
        let key = tx.api_key(id).await?.ok_or_else(|| unknown(id))?;
        visible(control, caller, tx, &key, Action::KeyRead).await?;
        return Ok(maker(id));
    }
    match text.strip_prefix("user:").and_then(|id| id.parse::<UserId>().ok()) {
        Some(id) if sees_all => Ok(Actor::User(id).to_string()),
        Some(_) => allow(control, caller, Action::KeyRead, &Resource::ApiKey { own: false }).map(|()| actor),
        None => Err(ControlError::field("made_by", "must be `me`, `user:<id>` or `api_key:<id>`")),
    }
}

/// One key.
pub(crate) async fn get(control: &Control, caller: &Caller, id: ApiKeyId) -> Result<ApiKey> {
    let tx = control.store().org_read(caller.organization).await?;
    let key = tx.api_key(id).await?.ok_or_else(|| unknown(id))?;
    visible(control, caller, &tx, &key, Action::KeyRead).await?;
    Ok(key)
}

/// Makes a key and shows it, this once.
pub(crate) async fn create(control: &Control, caller: &Caller, create: &CreateApiKey) -> Result<CreatedApiKey> {
    auth::allow_new_power(control, caller)?;
    check(caller, create.role, create.scope.as_ref())?;
    let key = token::api_key();
    let expires_at = expiry(control.clock().now(), create.expires_in_days.unwrap_or(DEFAULT_DAYS))?;
    let new = NewApiKey {
        id: ApiKeyId::generate(),
        name: create.name.clone(),
        prefix: token::shown_prefix(key.expose()),
        hash: token::sha256_hex(key.expose()),
        role: create.role,
        scope: create.scope.clone(),
        created_by: caller.actor.to_string(),
        expires_at: Some(earlier(expires_at, end_of_key(caller))),
    };
    let mut tx = control.store().org(caller.organization).await?;
    auth::hold(&tx, caller).await?;
    if !tx.active_api_keys_named(&create.name).await?.is_empty() {
        return Err(ControlError::AlreadyExists(format!("API key `{}`", create.name)));
    }
    check_room(&tx).await?;
    let api_key = tx.create_api_key(&new).await?;
    let detail = json!({ "name": create.name, "role": create.role, "scope": create.scope });
    audit(&mut tx, caller, "api_key.create", format!("api_key/{}", new.id), detail).await?;
    tx.commit().await?;
    Ok(CreatedApiKey { api_key, key: key.expose().to_owned() })
}

/// What an organization's keys take in the memory of every gateway is bounded.
async fn check_room(tx: &OrgTx) -> Result<()> {
    let (keys, bytes) = tx.active_api_keys_size().await?;
    if keys >= MOST_KEYS || bytes >= MOST_SCOPE_BYTES {
        let detail = match keys >= MOST_KEYS {
            true => format!("the organization has {keys} API keys that work, and may have {MOST_KEYS}; revoke some"),
            false => {
                "what the API keys of the organization are narrowed to takes more than 4 MiB; revoke some that name \
                      many servers, toolsets or credentials"
                    .to_owned()
            }
        };
        return Err(ControlError::Conflict(detail));
    }
    Ok(())
}

/// Gives a key another secret and shows it, this once.
///
/// # Errors
/// `forbidden` for a key with more power than the caller has; `conflict` for one that was revoked or that comes from the
/// configuration.
pub(crate) async fn rotate(
    control: &Control,
    caller: &Caller,
    id: ApiKeyId,
    rotate: &RotateApiKey,
) -> Result<CreatedApiKey> {
    auth::allow_new_power(control, caller)?;
    let mut tx = control.store().org(caller.organization).await?;
    auth::hold(&tx, caller).await?;
    let key = tx.api_key(id).await?.ok_or_else(|| unknown(id))?;
    visible(control, caller, &tx, &key, Action::KeyManage).await?;
    // Whoever gets the secret gets its power.
    check(caller, key.role, key.scope.as_ref())?;
    if key.created_by == BOOTSTRAP && control.options().bootstrap.api_key_is_set {
        let detail = "this key is the one of the setting `bootstrap_api_key`; give that another value and start again";
        return Err(ControlError::Conflict(detail.to_owned()));
    }
    if key.revoked_at.is_some() {
        return Err(ControlError::Conflict(format!("API key `{}` was revoked; make another one", key.name)));
    }
    let secret = token::api_key();
    let now = tx.now();
    if key.expires_at.is_some_and(|end| end <= now) {
        check_room(&tx).await?;
    }
    let expires_at = new_end(&tx, caller, &key, now, rotate.expires_in_days).await?;
    let rotation = KeyRotation {
        prefix: token::shown_prefix(secret.expose()),
        hash: token::sha256_hex(secret.expose()),
        previous_ends_at: overlap(now, rotate.overlap_seconds)?
            .map(|end| earlier(end, key.expires_at.into_iter().chain(expires_at).min())),
        expires_at,
    };
    if !tx.rotate_api_key(id, &rotation).await? {
        return Err(unknown(id));
    }
    let ended = match expires_at {
        Some(end) => tx.end_api_keys_made_with(id, end).await?,
        None => 0,
    };
    let detail = json!({
        "name": key.name, "previous_ends_at": rotation.previous_ends_at, "children_that_end_earlier": ended,
    });
    audit(&mut tx, caller, "api_key.rotate", format!("api_key/{id}"), detail).await?;
    let api_key = tx.api_key(id).await?.ok_or_else(|| unknown(id))?;
    tx.commit().await?;
    Ok(CreatedApiKey { api_key, key: secret.expose().to_owned() })
}

/// When a key ends that gets another secret: no later than the key it was made with, nor than the key that asks.
async fn new_end(
    tx: &OrgTx,
    caller: &Caller,
    key: &ApiKey,
    now: Timestamp,
    days: Option<u32>,
) -> Result<Option<Timestamp>> {
    let Some(days) = days else {
        if key.expires_at.is_some_and(|end| end <= now) {
            let message = format!("API key `{}` has ended; say for how many days it is good from now on", key.name);
            return Err(ControlError::field("expires_in_days", message));
        }
        return Ok(key.expires_at);
    };
    let parent = match key.parent {
        Some(parent) => tx.api_key(parent).await?.and_then(|parent| parent.expires_at),
        None => None,
    };
    Ok(Some(earlier(expiry(now, days)?, parent.into_iter().chain(end_of_key(caller)).min())))
}

/// Until when the secret before works too.
fn overlap(now: Timestamp, seconds: Option<u32>) -> Result<Option<Timestamp>> {
    let overlap = Duration::from_secs(u64::from(seconds.unwrap_or(0)));
    if overlap > LONGEST_OVERLAP {
        let message = format!("must be at most {}, 7 days", LONGEST_OVERLAP.as_secs());
        return Err(ControlError::field("overlap_seconds", message));
    }
    Ok((!overlap.is_zero()).then(|| now.plus(overlap)))
}

/// Revokes a key and every key made with it. They stop working with the commit; the gateway hears of it by the events.
pub(crate) async fn revoke(control: &Control, caller: &Caller, id: ApiKeyId) -> Result<()> {
    let mut tx = control.store().org(caller.organization).await?;
    let key = tx.api_key(id).await?.ok_or_else(|| unknown(id))?;
    visible(control, caller, &tx, &key, Action::KeyManage).await?;
    let revoked = tx.revoke_api_key(id).await?;
    // One that was revoked before may have children of a time when they did not end with it.
    let children = tx.revoke_api_keys_made_by(&maker(id), None).await?;
    if revoked || !children.is_empty() {
        let detail = json!({ "name": key.name, "children": named(&children) });
        audit(&mut tx, caller, "api_key.revoke", format!("api_key/{id}"), detail).await?;
    }
    Ok(tx.commit().await?)
}

/// Ends the keys that somebody made, and those made with these.
pub(super) async fn revoke_made_by(tx: &mut OrgTx, maker: UserId) -> Result<serde_json::Value> {
    let revoked = tx.revoke_api_keys_made_by(&Actor::User(maker).to_string(), None).await?;
    Ok(named(&revoked))
}

/// Keys for the audit log.
fn named(keys: &[ApiKey]) -> serde_json::Value {
    let names: Vec<_> = keys.iter().take(NAMED).map(|key| json!({ "id": key.id, "name": key.name })).collect();
    json!({ "count": keys.len(), "keys": names })
}

/// A key of others that one may not see does not exist.
async fn visible(control: &Control, caller: &Caller, tx: &OrgTx, key: &ApiKey, action: Action) -> Result<()> {
    let resource = Resource::ApiKey { own: is_own(tx, caller, key).await? };
    allow(control, caller, Action::KeyRead, &resource).map_err(|_| unknown(key.id))?;
    allow(control, caller, action, &resource)
}

fn unknown(id: ApiKeyId) -> ControlError {
    ControlError::NotFound(format!("API key `{id}`"))
}

/// Refuses a key that would reach further than the caller.
fn check(caller: &Caller, role: Role, scope: Option<&KeyScope>) -> Result<()> {
    // Roles are ordered from most to least power.
    if role < caller.role {
        let detail = format!("a key's role is at most its maker's: yours is `{}`", caller.role);
        return Err(ControlError::forbidden(detail));
    }
    let nothing = KeyScope::default();
    let scope = scope.unwrap_or(&nothing);
    if [scope.actions.len(), scope.resources.len(), scope.credentials.len()].iter().any(|many| *many > LARGEST_SCOPE) {
        return Err(ControlError::field("scope", format!("may name at most {LARGEST_SCOPE} of each")));
    }
    match &caller.scope {
        Some(own) if !is_within(scope, own) => {
            let detail = "a key made with a narrowed key must be narrowed at least as much".to_owned();
            Err(ControlError::forbidden(detail))
        }
        _ => Ok(()),
    }
}

/// Whether `scope` reaches no further than `outer`; an empty list means everything.
fn is_within(scope: &KeyScope, outer: &KeyScope) -> bool {
    fn within<T: PartialEq>(inner: &[T], outer: &[T]) -> bool {
        outer.is_empty() || (!inner.is_empty() && inner.iter().all(|item| outer.contains(item)))
    }
    let credentials = match (scope.credentials.is_empty(), outer.credentials.is_empty()) {
        (false, false) => within(&scope.credentials, &outer.credentials),
        // Without a list a key uses all credentials, or none when it is narrowed to servers and toolsets.
        (false, true) => outer.resources.is_empty(),
        (true, false) => !scope.resources.is_empty(),
        (true, true) => true,
    };
    within(&scope.actions, &outer.actions) && within(&scope.resources, &outer.resources) && credentials
}

/// So many days from now. There is no key without an end.
fn expiry(now: Timestamp, days: u32) -> Result<Timestamp> {
    if (1..=MOST_DAYS).contains(&days) {
        return Ok(now.plus(Duration::from_secs(u64::from(days) * 24 * 3600)));
    }
    Err(ControlError::field("expires_in_days", format!("must be 1 to {MOST_DAYS}")))
}

/// When the caller ends, if it is a key.
fn end_of_key(caller: &Caller) -> Option<Timestamp> {
    caller.expires_at.filter(|_| matches!(caller.actor, Actor::ApiKey(_)))
}

fn earlier(end: Timestamp, limit: Option<Timestamp>) -> Timestamp {
    limit.map_or(end, |limit| limit.min(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrower_scope_never_uses_more_credentials() {
        let name = |text: &str| toolyard_types::Name::new(text).unwrap();
        let scope = |resources: &[&str], credentials: &[&str]| KeyScope {
            resources: resources.iter().map(|text| name(text)).collect(),
            credentials: credentials.iter().map(|text| name(text)).collect(),
            ..KeyScope::default()
        };
        let all = scope(&[], &[]);
        let (server, with_one) = (scope(&["a"], &[]), scope(&["a"], &["x"]));
        let one = scope(&[], &["x"]);
        for inner in [&all, &server, &with_one, &one] {
            assert!(is_within(inner, &all), "{inner:?}");
        }
        assert!(is_within(&server, &server) && is_within(&server, &with_one) && is_within(&server, &one));
        assert!(is_within(&with_one, &with_one) && is_within(&with_one, &one));
        assert!(!is_within(&with_one, &server), "a server's key would get a credential");
        assert!(!is_within(&all, &one) && !is_within(&one, &with_one) && !is_within(&one, &server));
        assert!(!is_within(&scope(&["a"], &["y"]), &with_one));
    }
}
