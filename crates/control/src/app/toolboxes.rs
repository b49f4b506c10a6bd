//! Toolboxes: places where servers run. An agent is known by the secret in its token.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use toolyard_store::{InstanceRow, InstanceWish, OrgTx, Store, ToolboxRow};
use toolyard_types::agent::ToolboxReport;
use toolyard_types::api::Page;
use toolyard_types::api::servers::{EnrollToolbox, EnrolledToolbox, Toolbox};
use toolyard_types::state::{Phase, Reason, Status, ToolboxState};
use toolyard_types::{Name, OrganizationId, Timestamp, ToolboxId};

use super::audit;
use crate::auth::token;
use crate::fleet::LOCAL_TOOLBOX;
use crate::reconcile::SILENCE;
use crate::{Caller, Control, ControlError, Result};

fn unknown(name: &Name) -> ControlError {
    ControlError::NotFound(format!("toolbox `{name}`"))
}

fn view(row: ToolboxRow, instances: u32) -> Toolbox {
    Toolbox {
        id: row.id,
        name: row.name,
        state: row.status.phase,
        reason: row.status.reason,
        message: row.status.message,
        since: row.status.since,
        draining: false,
        labels: toolyard_types::Labels::default(),
        engine: row.report.engine.clone(),
        version: row.agent_version,
        last_seen_at: row.last_seen_at,
        certificate_expires_at: None,
        link: toolyard_types::api::servers::ToolboxLink::default(),
        report: row.report,
        instances,
    }
}

/// Every toolbox, by name.
pub(crate) async fn list(control: &Control, caller: &Caller) -> Result<Page<Toolbox>> {
    let tx = control.store().org_read(caller.organization).await?;
    let counts: std::collections::HashMap<_, _> = tx.instances_by_toolbox().await?.into_iter().collect();
    let rows = tx.toolboxes().await?;
    let count = |id: ToolboxId| counts.get(&id).copied().unwrap_or_default();
    Ok(Page::whole(
        rows.into_iter()
            .map(|row| {
                let count = count(row.id);
                view(row, count)
            })
            .collect(),
    ))
}

/// One toolbox.
pub(crate) async fn get(control: &Control, caller: &Caller, name: &Name) -> Result<Toolbox> {
    let tx = control.store().org_read(caller.organization).await?;
    let row = tx.toolbox(name).await?.ok_or_else(|| unknown(name))?;
    let instances = tx.instances_on(row.id).await?.len();
    Ok(view(row, u32::try_from(instances).unwrap_or(u32::MAX)))
}

/// Makes a toolbox and a token for its agent, which is shown only now.
pub(crate) async fn enroll(control: &Control, caller: &Caller, request: EnrollToolbox) -> Result<EnrolledToolbox> {
    let secret = token::random();
    let mut tx = control.store().org(caller.organization).await?;
    if tx.toolbox(&request.name).await?.is_some() {
        return Err(ControlError::AlreadyExists(format!("toolbox `{}`", request.name)));
    }
    let row = new_toolbox(&tx, request.name, Some(token::sha256_hex(secret.expose())));
    tx.insert_toolbox(&row).await?;
    changed(&mut tx, &row);
    audit(&mut tx, caller, "toolbox.enroll", format!("toolbox/{}", row.name), json!({})).await?;
    tx.commit().await?;
    let content = json!({ "v": 1, "control": control.fleet().agent_addresses(), "secret": secret.expose() });
    let token = URL_SAFE_NO_PAD.encode(content.to_string());
    // In the environment and not among the arguments, which every user of the host can read.
    let command = format!("TOOLYARD_TOKEN={token} toolyard dtma");
    Ok(EnrolledToolbox {
        expires_at: row.created_at,
        addresses: control.fleet().agent_addresses(),
        toolbox: view(row, 0),
        token,
        command,
    })
}

fn new_toolbox(tx: &OrgTx, name: Name, token_hash: Option<String>) -> ToolboxRow {
    let now = tx.now();
    ToolboxRow {
        id: ToolboxId::generate(),
        name,
        status: Status::new(ToolboxState::Enrolling, Reason::Requested, "its agent was not heard yet", now),
        token_hash,
        last_seen_at: None,
        agent_version: None,
        report: ToolboxReport::default(),
        generation: 1,
        created_at: now,
    }
}

fn changed(tx: &mut OrgTx, row: &ToolboxRow) {
    tx.event("toolbox.changed", format!("toolbox/{}", row.name), json!({ "id": row.id, "state": row.status.phase }));
}

/// Stops placing anything new on a toolbox, or places things there again.
pub(crate) async fn drain(control: &Control, caller: &Caller, name: &Name, drain: bool) -> Result<Toolbox> {
    let mut tx = control.store().org(caller.organization).await?;
    let mut row = tx.toolbox(name).await?.ok_or_else(|| unknown(name))?;
    let state = match (row.status.phase, drain) {
        (ToolboxState::Draining, true) | (ToolboxState::Online, false) => return get(control, caller, name).await,
        (ToolboxState::Online | ToolboxState::Unreachable, true) => ToolboxState::Draining,
        // Heard a moment ago it is online, as the silence after it would tell; else its next sync says so.
        (ToolboxState::Draining, false) if heard_lately(&row, tx.now()) => ToolboxState::Online,
        (ToolboxState::Draining, false) => ToolboxState::Unreachable,
        (state, _) => return Err(ControlError::Conflict(format!("toolbox `{name}` is {state}"))),
    };
    row.status = Status::new(state, Reason::Requested, if drain { "takes nothing new" } else { "" }, tx.now());
    tx.update_toolbox(&row).await?;
    changed(&mut tx, &row);
    let action = if drain { "toolbox.drain" } else { "toolbox.resume" };
    audit(&mut tx, caller, action, format!("toolbox/{name}"), json!({})).await?;
    tx.commit().await?;
    get(control, caller, name).await
}

fn heard_lately(toolbox: &ToolboxRow, now: Timestamp) -> bool {
    toolbox.last_seen_at.is_some_and(|heard| now.since(heard) < SILENCE)
}

/// Removes a toolbox: its agent's token ends, its instances count as ended and are placed elsewhere.
pub(crate) async fn remove(control: &Control, caller: &Caller, name: &Name) -> Result<()> {
    let mut tx = control.store().org(caller.organization).await?;
    let row = tx.toolbox(name).await?.ok_or_else(|| unknown(name))?;
    if row.token_hash.is_none() {
        return Err(ControlError::Conflict(format!("toolbox `{name}` is built in")));
    }
    if let Some(server) = tx.servers_pinned_to(row.id).await?.first() {
        let detail = format!("server `{server}` must run on toolbox `{name}`; delete the server first");
        return Err(ControlError::Conflict(detail));
    }
    let now = tx.now();
    // The row first: whoever places something here now waits for it, and then finds the toolbox removed.
    tx.remove_toolbox(&row).await?;
    for instance in tx.instances_on(row.id).await? {
        let ended = InstanceRow {
            status: Status::new(Phase::Stopped, Reason::ToolboxUnreachable, "its toolbox was removed", now),
            desired: InstanceWish::Stop,
            ended_at: Some(now),
            ..instance
        };
        tx.update_instance(&ended).await?;
    }
    tx.event("toolbox.removed", format!("toolbox/{name}"), json!({ "id": row.id }));
    audit(&mut tx, caller, "toolbox.remove", format!("toolbox/{name}"), json!({})).await?;
    tx.commit().await?;
    control.links().remove(row.id);
    Ok(())
}

/// Makes the built-in toolbox in an organization, unless it is there.
pub(crate) async fn ensure_local(store: &Store, organization: OrganizationId) -> Result<ToolboxId> {
    let name = Name::new(LOCAL_TOOLBOX).expect("the constant is a valid name");
    let mut tx = store.org(organization).await?;
    if let Some(row) = tx.toolbox(&name).await? {
        return Ok(row.id);
    }
    let row = new_toolbox(&tx, name, None);
    tx.insert_toolbox(&row).await?;
    changed(&mut tx, &row);
    tx.commit().await?;
    Ok(row.id)
}
