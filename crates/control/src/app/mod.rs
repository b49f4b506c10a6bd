//! What can be done, a file per noun.
//!
//! A function here takes the [`Control`], the [`Caller`] and typed input; it decides, does its work in one
//! transaction together with its line of the audit log, and returns a type of the API. It knows nothing of
//! HTTP, so the handlers, the loops and the tests reach the same code.

mod agent_runs;
pub(crate) mod agents;
pub(crate) mod audit;
pub(crate) mod catalog;
mod ceilings;
pub(crate) mod credentials;
pub(crate) mod events;
pub(crate) mod expand;
pub(crate) mod flags;
pub(crate) mod health;
pub(crate) mod identity;
pub(crate) mod keys;
pub(crate) mod logs;
pub(crate) mod members;
pub(crate) mod metrics;
pub(crate) mod overview;
pub(crate) mod places;
pub(crate) mod postponed;
mod privileges;
pub(crate) mod refusals;
pub(crate) mod reports;
pub(crate) mod rollouts;
pub(crate) mod scope;
pub(crate) mod server_list;
pub(crate) mod server_settings;
pub(crate) mod server_view;
pub(crate) mod servers;
pub(crate) mod sync;
pub(crate) mod toolboxes;
pub(crate) mod toolsets;

pub(crate) use refusals::audit_refusal;
use toolyard_policy::Resource;
use toolyard_store::{NewAudit, OrgTx};
use toolyard_types::access::Action;
use toolyard_types::api::{Page, PageQuery};

use crate::{Caller, Control, ControlError, Result};

/// The page size when none is asked for.
const PAGE: u32 = 100;
/// The largest page.
pub(crate) const LARGEST_PAGE: u32 = 500;

/// Refuses what the caller may not do to this resource; the guard has decided only about the route.
///
/// # Errors
/// `forbidden`, naming the rule.
pub(crate) fn allow(control: &Control, caller: &Caller, action: Action, resource: &Resource) -> Result<()> {
    let decision = control.decider().decide(caller, action, resource);
    if decision.allowed {
        return Ok(());
    }
    // Which credential it is about is not in the path of the request.
    let what = match resource {
        Resource::Credential(_) => format!("`{}` of `{resource}`", action.as_str()),
        _ => format!("`{}`", action.as_str()),
    };
    let detail = format!("{what} is refused: {}", decision.because.join("; "));
    Err(ControlError::Forbidden { detail, refused: Some(Box::new((action, resource.to_string()))) })
}

/// Writes the audit line of something done, in the transaction that does it: `action` such as
/// `server.create`, `target` such as `server/everything`. Never put a secret into `detail`.
///
/// # Errors
/// When the store fails.
pub(crate) async fn audit(
    tx: &mut OrgTx,
    caller: &Caller,
    action: &str,
    target: impl Into<String>,
    detail: serde_json::Value,
) -> Result<()> {
    Ok(tx.audit(&audit_line(caller, action, target.into(), true, detail)).await?)
}

fn audit_line(caller: &Caller, action: &str, target: String, done: bool, detail: serde_json::Value) -> NewAudit {
    NewAudit {
        actor: caller.actor.to_string(),
        actor_display: caller.display.clone(),
        action: action.to_owned(),
        target,
        done,
        detail,
        request_id: caller.request_id.clone(),
    }
}

/// What a loop of the control plane did by itself. `part` is its name.
pub(crate) fn system_line(part: &str, action: &str, target: String, done: bool, detail: serde_json::Value) -> NewAudit {
    NewAudit {
        actor: format!("system:{part}"),
        actor_display: part.to_owned(),
        action: action.to_owned(),
        target,
        done,
        detail,
        request_id: None,
    }
}

/// The page size asked for, within bounds.
///
/// # Errors
/// `validation_failed` when it is out of them.
pub(crate) fn page_limit(query: &PageQuery) -> Result<u32> {
    match query.limit {
        None => Ok(PAGE),
        Some(limit) if (1..=LARGEST_PAGE).contains(&limit) => Ok(limit),
        Some(_) => Err(ControlError::field("limit", format!("must be 1 to {LARGEST_PAGE}"))),
    }
}

/// A page of at most `limit` from one more than that: the surplus tells that there is a next page.
pub(crate) fn next_cursor<T>(mut items: Vec<T>, limit: u32, cursor: impl Fn(&T) -> String) -> Page<T> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = items.len() > limit;
    items.truncate(limit);
    let next_cursor = if more { items.last().map(cursor) } else { None };
    Page { items, next_cursor }
}

/// Reads a cursor that is an id.
///
/// # Errors
/// `validation_failed` when it is none of ours.
pub(crate) fn id_cursor<T: std::str::FromStr>(query: &PageQuery) -> Result<Option<T>> {
    let read =
        |text: &String| text.parse().map_err(|_| ControlError::field("cursor", "is not a `next_cursor` of this list"));
    query.cursor.as_ref().map(read).transpose()
}
