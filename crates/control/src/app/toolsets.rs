//! Toolsets: chosen tools of several servers under one name.

use std::collections::BTreeSet;

use serde_json::json;
use toolyard_policy::Resource;
use toolyard_store::{EventKind, OrgTx, ToolsetRow};
use toolyard_types::access::Action;
use toolyard_types::api::servers::{PutToolset, Toolset};
use toolyard_types::api::{Page, PageQuery};
use toolyard_types::name::{is_hidden, printable};
use toolyard_types::snapshot::ToolsetMember;
use toolyard_types::{FieldError, Name, ToolsetId};

use super::{allow, audit, page_limit};
use crate::{Caller, Control, ControlError, Result};

/// The most servers in a toolset.
const MOST_MEMBERS: usize = 100;
/// The most tools named for one server.
const MOST_TOOLS: usize = 1000;
/// The most tools of one toolset that are named or described anew.
const MOST_OVERRIDES: usize = 1000;
/// The most that the names and descriptions in one toolset may take, in bytes, as they are stored.
const MOST_BYTES: u64 = 256 << 10;
/// The most that all toolsets of an organization may take, in bytes: each gateway has them in memory.
const MOST_BYTES_OF_ORGANIZATION: u64 = 16 << 20;
/// What a toolset takes beside that, in bytes.
const OWN_BYTES: u64 = 1 << 10;
/// The longest name that clients accept.
const LONGEST_TOOL_NAME: usize = 64;
/// The longest description, in characters.
const LONGEST_DESCRIPTION: usize = 4000;

fn unknown(name: &Name) -> ControlError {
    ControlError::NotFound(format!("toolset `{name}`"))
}

fn view(caller: &Caller, row: ToolsetRow) -> Toolset {
    Toolset {
        mcp_path: format!("/mcp/{}/toolsets/{}", caller.organization_name, row.name),
        id: row.id,
        name: row.name,
        description: row.description,
        members: row.members,
        created_at: row.created_at,
        updated_at: row.updated_at,
        etag: row.version.to_string(),
    }
}

/// Toolsets by name.
pub(crate) async fn list(control: &Control, caller: &Caller, query: &PageQuery) -> Result<Page<Toolset>> {
    let limit = page_limit(query)?;
    let wrong = |_| ControlError::field("cursor", "is not one of this list's");
    let after = query.cursor.as_deref().map(Name::new).transpose().map_err(wrong)?;
    let tx = control.store().org_read(caller.organization).await?;
    let page = tx.toolsets_bounded_page(after.as_ref(), limit).await?;
    let next_cursor = page.rows.last().filter(|_| page.more).map(|row| row.name.to_string());
    let mut items: Vec<_> = page.rows.into_iter().map(|row| view(caller, row)).collect();
    items.retain(|toolset| {
        let resource = Resource::Toolset(toolset.name.clone());
        control.decider().decide(caller, Action::ToolsetRead, &resource).allowed
    });
    Ok(Page { items, next_cursor })
}

/// One toolset.
pub(crate) async fn get(control: &Control, caller: &Caller, name: &Name) -> Result<Toolset> {
    let tx = control.store().org_read(caller.organization).await?;
    Ok(view(caller, tx.toolset(name).await?.ok_or_else(|| unknown(name))?))
}

/// Makes a toolset.
pub(crate) async fn create(control: &Control, caller: &Caller, request: PutToolset) -> Result<Toolset> {
    allow(control, caller, Action::ToolsetManage, &Resource::Toolset(request.name.clone()))?;
    let mut tx = control.store().org(caller.organization).await?;
    check(&tx, &request).await?;
    may_add(control, caller, &request.members, &[])?;
    if let Some(kind) = tx.name_holder(&request.name).await? {
        return Err(ControlError::AlreadyExists(format!("{kind} `{}`", request.name)));
    }
    tx.take_name(&request.name, "toolset").await?;
    check_room(&tx, &request, None).await?;
    let now = tx.now();
    let row = ToolsetRow {
        id: ToolsetId::generate(),
        name: request.name,
        description: request.description,
        members: request.members,
        version: 1,
        created_at: now,
        updated_at: now,
    };
    tx.insert_toolset(&row).await?;
    changed(&mut tx, caller, &row, "toolset.create").await?;
    tx.commit().await?;
    Ok(view(caller, row))
}

/// Replaces what a toolset holds.
pub(crate) async fn replace(
    control: &Control,
    caller: &Caller,
    name: &Name,
    request: PutToolset,
    if_match: Option<&str>,
) -> Result<Toolset> {
    if request.name != *name {
        return Err(ControlError::field("name", format!("must be `{name}`, as in the path; a toolset keeps its name")));
    }
    let mut tx = control.store().org(caller.organization).await?;
    let mut row = tx.toolset(name).await?.ok_or_else(|| unknown(name))?;
    let tag = if_match.map(|tag| tag.trim().trim_start_matches("W/").trim_matches('"'));
    if tag.is_some_and(|tag| tag != "*" && tag != row.version.to_string()) {
        return Err(ControlError::Store(toolyard_store::StoreError::Stale));
    }
    check(&tx, &request).await?;
    may_add(control, caller, &request.members, &row.members)?;
    if (&row.description, &row.members) == (&request.description, &request.members) {
        return Ok(view(caller, row));
    }
    check_room(&tx, &request, Some(&row)).await?;
    (row.description, row.members) = (request.description, request.members);
    tx.update_toolset(&mut row).await?;
    changed(&mut tx, caller, &row, "toolset.update").await?;
    tx.commit().await?;
    Ok(view(caller, row))
}

/// Deletes a toolset; its servers stay.
pub(crate) async fn delete(control: &Control, caller: &Caller, name: &Name) -> Result<()> {
    let mut tx = control.store().org(caller.organization).await?;
    let row = tx.toolset(name).await?.ok_or_else(|| unknown(name))?;
    tx.remove_toolset(&row).await?;
    changed(&mut tx, caller, &row, "toolset.delete").await?;
    Ok(tx.commit().await?)
}

/// Who puts a server's tools into a toolset must be able to call them: else a key narrowed to a toolset could
/// widen itself by adding servers to it.
fn may_add(control: &Control, caller: &Caller, members: &[ToolsetMember], before: &[ToolsetMember]) -> Result<()> {
    let added = members.iter().filter(|member| !before.contains(member));
    added
        .into_iter()
        .try_for_each(|member| allow(control, caller, Action::ToolCall, &Resource::Server(member.server.clone())))
}

async fn changed(tx: &mut OrgTx, caller: &Caller, row: &ToolsetRow, action: &str) -> Result<()> {
    tx.event(EventKind::ToolsetChanged, format!("toolset/{}", row.name), json!({ "id": row.id }));
    audit(tx, caller, action, format!("toolset/{}", row.name), json!({ "members": row.members.len() })).await
}

async fn check(tx: &OrgTx, request: &PutToolset) -> Result<()> {
    let mut errors = Vec::new();
    let mut error = |field: String, message: String| {
        if errors.len() < 100 {
            errors.push(FieldError { field, message });
        }
    };
    if request.description.chars().count() > LONGEST_DESCRIPTION {
        error("description".into(), format!("has more than {LONGEST_DESCRIPTION} characters"));
    }
    if request.description.chars().any(|c| is_hidden(c) && !matches!(c, '\n' | '\t')) {
        error("description".into(), "holds control or direction characters".into());
    }
    if request.members.is_empty() || request.members.len() > MOST_MEMBERS {
        error("members".into(), format!("must be 1 to {MOST_MEMBERS} servers"));
    }
    let names: Vec<_> = request.members.iter().take(MOST_MEMBERS).map(|member| member.server.clone()).collect();
    let known = tx.existing_servers(&names).await?;
    for (number, member) in request.members.iter().take(MOST_MEMBERS).enumerate() {
        if !known.iter().any(|name| name == member.server.as_str()) {
            error(format!("members.{number}.server"), format!("there is no server `{}`", member.server));
        }
        if names.iter().take(number).any(|name| *name == member.server) {
            error(format!("members.{number}.server"), format!("server `{}` is in it twice", member.server));
        }
        let tools = member.tools.as_deref().unwrap_or_default();
        if tools.len() > MOST_TOOLS || tools.iter().any(|tool| tool.is_empty() || tool.len() > 256) {
            error(format!("members.{number}.tools"), format!("at most {MOST_TOOLS} tools, 1 to 256 bytes each"));
        }
    }
    check_overrides(&request.members, &mut error);
    if errors.is_empty() { Ok(()) } else { Err(ControlError::Invalid(errors)) }
}

/// What an organization has in the memory of every gateway is bounded. What became no larger is taken also where there is
/// too much already.
async fn check_room(tx: &OrgTx, request: &PutToolset, before: Option<&ToolsetRow>) -> Result<()> {
    let size = stored_bytes(&request.description, &request.members);
    let was = before.map_or(0, |row| stored_bytes(&row.description, &row.members));
    if size <= was {
        return Ok(());
    }
    let kib = |bytes: u64| bytes.div_ceil(1 << 10);
    if size > MOST_BYTES {
        let (most, has) = (kib(MOST_BYTES), kib(size));
        let message = format!("the names and descriptions in a toolset may take {most} KiB; these take {has} KiB");
        return Err(ControlError::field("members", message));
    }
    let all = tx.toolsets_bytes(OWN_BYTES).await? + size + OWN_BYTES;
    if all.saturating_sub(was) > MOST_BYTES_OF_ORGANIZATION {
        let most = MOST_BYTES_OF_ORGANIZATION >> 20;
        let message = format!(
            "all toolsets of an organization may take {most} MiB together, and with this they would take more; delete some, \
             or take descriptions out of them"
        );
        return Err(ControlError::field("members", message));
    }
    Ok(())
}

fn stored_bytes(description: &str, members: &[ToolsetMember]) -> u64 {
    let members = serde_json::to_string(members).map_or(0, |text| text.len());
    u64::try_from(members + description.len()).unwrap_or(u64::MAX)
}

/// New names may not be mistaken for `{server}__{tool}`, so that a server or a tool that is added later never
/// takes the place of one.
fn check_overrides(members: &[ToolsetMember], error: &mut impl FnMut(String, String)) {
    let mut names = BTreeSet::new();
    let mut count = 0;
    let plain = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    for (number, member) in members.iter().take(MOST_MEMBERS).enumerate() {
        for (tool, said) in &member.overrides {
            count += 1;
            if count > MOST_OVERRIDES {
                return error(
                    "members".into(),
                    format!("at most {MOST_OVERRIDES} tools may be named or described anew"),
                );
            }
            let at = format!("members.{number}.overrides.{}", printable(tool));
            if tool.is_empty() || tool.len() > 256 {
                error(at.clone(), "a tool's name has 1 to 256 bytes".into());
            }
            if let Some(name) = &said.name {
                if name.is_empty() || name.len() > LONGEST_TOOL_NAME || !plain(name) || name.contains("__") {
                    let rule = format!("1 to {LONGEST_TOOL_NAME} of A-Z, a-z, 0-9, `_` and `-`, and not `__`");
                    error(format!("{at}.name"), format!("`{}` must have {rule}", printable(name)));
                } else if !names.insert(name.as_str()) {
                    error(format!("{at}.name"), format!("another tool is called `{name}`"));
                }
            }
            let hidden = |text: &String| text.chars().any(|c| is_hidden(c) && !matches!(c, '\n' | '\t'));
            if said.description.as_ref().is_some_and(|text| text.chars().count() > LONGEST_DESCRIPTION) {
                error(format!("{at}.description"), format!("has more than {LONGEST_DESCRIPTION} characters"));
            }
            if said.description.as_ref().is_some_and(hidden) {
                error(format!("{at}.description"), "holds control or direction characters".into());
            }
        }
    }
}
