//! API keys.
//!
//! A key is at most as powerful as its maker: neither its role nor its scope reaches further, and one made with
//! a key ends no later than that. The key itself is shown once; what is stored is its SHA-256.

use std::time::Duration;

use serde_json::json;
use toolyard_policy::Resource;
use toolyard_store::NewApiKey;
use toolyard_types::access::{Action, Actor, KeyScope};
use toolyard_types::api::identity::{ApiKey, CreateApiKey, CreatedApiKey};
use toolyard_types::api::{Page, PageQuery};
use toolyard_types::{ApiKeyId, Timestamp};

use super::{allow, audit, id_cursor, next_cursor, page_limit};
use crate::auth::token;
use crate::{Caller, Control, ControlError, Result};

const DEFAULT_DAYS: u32 = 90;
const MOST_DAYS: u32 = 3650;
/// The most actions, resources or credentials a scope names.
const LARGEST_SCOPE: usize = 200;

/// Whether the caller made this key, or is it.
pub(crate) fn is_own(caller: &Caller, key: &ApiKey) -> bool {
    let actor = caller.actor.to_string();
    key.created_by == actor || actor == format!("api_key:{}", key.id)
}

/// The keys that the caller may see: all, or only its own.
pub(crate) async fn list(control: &Control, caller: &Caller, query: &PageQuery) -> Result<Page<ApiKey>> {
    let limit = page_limit(query)?;
    let sees_all = control.decider().allows(caller, Action::KeyRead, &Resource::ApiKey { own: false });
    let maker = (!sees_all).then(|| caller.actor.to_string());
    let tx = control.store().org_read(caller.organization).await?;
    let items = tx.api_keys(id_cursor(query)?, maker.as_deref(), limit + 1).await?;
    Ok(next_cursor(items, limit, |key| key.id.to_string()))
}

/// One key.
pub(crate) async fn get(control: &Control, caller: &Caller, id: ApiKeyId) -> Result<ApiKey> {
    let tx = control.store().org_read(caller.organization).await?;
    let key = tx.api_key(id).await?.ok_or_else(|| unknown(id))?;
    visible(control, caller, &key, Action::KeyRead)?;
    Ok(key)
}

/// Makes a key and shows it, this once.
pub(crate) async fn create(control: &Control, caller: &Caller, create: &CreateApiKey) -> Result<CreatedApiKey> {
    check(caller, create)?;
    let key = token::api_key();
    let new = NewApiKey {
        id: ApiKeyId::generate(),
        name: create.name.clone(),
        prefix: token::shown_prefix(key.expose()),
        hash: token::sha256_hex(key.expose()),
        role: create.role,
        scope: create.scope.clone(),
        created_by: caller.actor.to_string(),
        expires_at: expiry(caller, control.clock().now(), create.expires_in_days)?,
    };
    let mut tx = control.store().org(caller.organization).await?;
    if !tx.active_api_keys_named(&create.name).await?.is_empty() {
        return Err(ControlError::AlreadyExists(format!("API key `{}`", create.name)));
    }
    let api_key = tx.create_api_key(&new).await?;
    let detail = json!({ "name": create.name, "role": create.role, "scope": create.scope });
    audit(&mut tx, caller, "api_key.create", format!("api_key/{}", new.id), detail).await?;
    tx.commit().await?;
    Ok(CreatedApiKey { api_key, key: key.expose().to_owned() })
}

/// Revokes a key. It stops working with the commit; the gateway hears of it by the event.
pub(crate) async fn revoke(control: &Control, caller: &Caller, id: ApiKeyId) -> Result<()> {
    let mut tx = control.store().org(caller.organization).await?;
    let key = tx.api_key(id).await?.ok_or_else(|| unknown(id))?;
    visible(control, caller, &key, Action::KeyManage)?;
    if tx.revoke_api_key(id).await? {
        audit(&mut tx, caller, "api_key.revoke", format!("api_key/{id}"), json!({ "name": key.name })).await?;
    }
    Ok(tx.commit().await?)
}

/// A key of others that one may not see does not exist.
fn visible(control: &Control, caller: &Caller, key: &ApiKey, action: Action) -> Result<()> {
    let resource = Resource::ApiKey { own: is_own(caller, key) };
    allow(control, caller, Action::KeyRead, &resource).map_err(|_| unknown(key.id))?;
    allow(control, caller, action, &resource)
}

fn unknown(id: ApiKeyId) -> ControlError {
    ControlError::NotFound(format!("API key `{id}`"))
}

fn check(caller: &Caller, create: &CreateApiKey) -> Result<()> {
    // Roles are ordered from most to least power.
    if create.role < caller.role {
        let detail = format!("a key's role is at most its maker's: yours is `{}`", caller.role);
        return Err(ControlError::Forbidden { detail });
    }
    let scope = create.scope.clone().unwrap_or_default();
    if [scope.actions.len(), scope.resources.len(), scope.credentials.len()].iter().any(|many| *many > LARGEST_SCOPE) {
        return Err(ControlError::field("scope", format!("may name at most {LARGEST_SCOPE} of each")));
    }
    match &caller.scope {
        Some(own) if !is_within(&scope, own) => {
            let detail = "a key made with a narrowed key must be narrowed at least as much".to_owned();
            Err(ControlError::Forbidden { detail })
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

/// When a key ends: as asked for, but one made with a key no later than that; the answer says when.
fn expiry(caller: &Caller, now: Timestamp, days: Option<u32>) -> Result<Option<Timestamp>> {
    let wanted = match days.unwrap_or(DEFAULT_DAYS) {
        0 => None,
        days if days <= MOST_DAYS => Some(now.plus(Duration::from_secs(u64::from(days) * 24 * 3600))),
        _ => return Err(ControlError::field("expires_in_days", format!("must be 0 (never) to {MOST_DAYS}"))),
    };
    let by_key = matches!(caller.actor, Actor::ApiKey(_));
    let makers_end = caller.expires_at.filter(|end| by_key && wanted.is_none_or(|wanted| wanted > *end));
    Ok(makers_end.or(wanted))
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
