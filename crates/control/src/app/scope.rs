//! What a narrowed key may see in lists that have no resource of their own: calls, events, metrics, the audit log.
//!
//! A key narrowed to some servers and toolsets sees only lines about these. Everything else about the organization is
//! not about them, so it is left out too.

use toolyard_store::OrgTx;
use toolyard_types::{Name, ServerId, ToolsetId};

use crate::{Caller, Result};

/// The names that a caller is narrowed to; `None` for everything.
pub(crate) fn names(caller: &Caller) -> Option<&[Name]> {
    caller.scope.as_ref().map(|scope| scope.resources.as_slice()).filter(|names| !names.is_empty())
}

/// Whether the caller's narrowing lets them see a server or toolset of this name.
pub(crate) fn includes(caller: &Caller, name: &str) -> bool {
    names(caller).is_none_or(|names| names.iter().any(|known| known.as_str() == name))
}

/// Whether the caller's narrowing lets them see something about `subject`, such as `server/everything`.
pub(crate) fn includes_subject(caller: &Caller, subject: &str) -> bool {
    match subject.split_once('/') {
        Some(("server" | "toolset", name)) => includes(caller, name),
        _ => names(caller).is_none(),
    }
}

/// The subjects that a caller is narrowed to, as the audit log names them.
pub(crate) fn subjects(caller: &Caller) -> Option<Vec<String>> {
    let names = names(caller)?;
    Some(names.iter().flat_map(|name| [format!("server/{name}"), format!("toolset/{name}")]).collect())
}

/// The servers and toolsets that a caller is narrowed to.
///
/// # Errors
/// When the store fails.
pub(crate) async fn ids(tx: &OrgTx, caller: &Caller) -> Result<Option<(Vec<ServerId>, Vec<ToolsetId>)>> {
    let Some(names) = names(caller) else { return Ok(None) };
    Ok(Some((tx.server_ids(names).await?, tx.toolset_ids(names).await?)))
}
