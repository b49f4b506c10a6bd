//! *Follow-up*: what remains to be done after a change. Superseded instances are stopped, deleted servers
//! forgotten once their end was observed, silent toolboxes marked.

use std::time::Duration;

use serde_json::json;
use toolyard_store::{InstanceRow, InstanceWish, OrgTx, ServerRef};
use toolyard_types::state::{Reason, Status, ToolboxState};
use toolyard_types::{OrganizationId, RolloutId, Timestamp, ToolboxId};

use super::Pass;
use super::steps::{dismiss, wish};
use crate::{Control, Result};

/// How long a replaced instance may finish its calls once traffic goes to the new one.
const DRAIN: Duration = Duration::from_secs(1);
/// How many things of a kind one run looks at.
const AT_ONCE: u32 = 200;

pub(crate) async fn run(control: &Control) -> Result<Pass> {
    let tx = control.store().system_read("looking for what a change left behind").await?;
    let superseded = tx.servers_with_superseded(AT_ONCE).await?;
    let deleted = tx.deleted_servers(AT_ONCE).await?;
    let now = control.clock().now();
    let silent = tx.silent_toolboxes(now.minus(control.options().toolbox_silence), AT_ONCE).await?;
    drop(tx);
    let mut pass = Pass::default();
    for at in superseded {
        match stop_superseded(control, at, now).await {
            Ok(None) => pass.changed += 1,
            Ok(Some(wait)) => pass.again_in(wait),
            Err(error) => pass.failed(&error),
        }
    }
    for at in deleted {
        match forget(control, at).await {
            Ok(forgotten) => pass.changed += usize::from(forgotten),
            Err(error) => pass.failed(&error),
        }
    }
    for (organization, toolbox) in silent {
        match mark_silent(control, organization, toolbox, now).await {
            Ok(marked) => pass.changed += usize::from(marked),
            Err(error) => pass.failed(&error),
        }
    }
    Ok(pass)
}

/// Lets end what no longer belongs; tells how long to wait when some may still finish their calls.
async fn stop_superseded(control: &Control, at: ServerRef, now: Timestamp) -> Result<Option<Duration>> {
    let mut tx = control.store().org(at.organization).await?;
    let Some(server) = tx.lock_server(at.server).await? else { return Ok(None) };
    let under_way = tx.rollout_under_way(&server).await?;
    let mut wanted: Vec<RolloutId> = Vec::new();
    if server.enabled && !server.deleted {
        wanted.extend(server.serving_rollout);
        wanted.extend(under_way.as_ref().map(|rollout| rollout.id));
        wanted.extend(under_way.as_ref().and_then(|rollout| rollout.from_rollout));
    }
    let live = tx.live_instances(&[server.id]).await?;
    let left = |row: &InstanceRow| DRAIN.saturating_sub(row.retired_at.map_or(Duration::ZERO, |at| now.since(at)));
    let (retired, others): (Vec<_>, Vec<_>) = live.iter().partition(|row| row.desired == InstanceWish::Retire);
    let over: Vec<_> = retired.iter().copied().filter(|row| left(row).is_zero()).collect();
    let stray = |row: &InstanceRow| !wanted.contains(&row.rollout) && row.desired != InstanceWish::Stop;
    let strays: Vec<_> = others.into_iter().filter(|row| stray(row)).collect();
    if over.is_empty() && strays.is_empty() {
        return Ok(retired.into_iter().map(left).min());
    }
    wish(&mut tx, over.into_iter(), InstanceWish::Stop).await?;
    dismiss(&mut tx, strays.into_iter()).await?;
    server_changed(&mut tx, &server);
    tx.commit().await?;
    Ok(None)
}

fn server_changed(tx: &mut OrgTx, server: &toolyard_store::ServerRow) {
    tx.event("server.changed", format!("server/{}", server.name), json!({ "id": server.id }));
}

/// Removes a deleted server once none of its instances lives.
async fn forget(control: &Control, at: ServerRef) -> Result<bool> {
    let read = control.store().org_read(at.organization).await?;
    if !read.live_instances(&[at.server]).await?.is_empty() {
        return Ok(false);
    }
    drop(read);
    let mut tx = control.store().org(at.organization).await?;
    let Some(server) = tx.lock_server(at.server).await?.filter(|server| server.deleted) else { return Ok(false) };
    if !tx.live_instances(&[server.id]).await?.is_empty() {
        return Ok(false);
    }
    tx.remove_server(&server).await?;
    if let Some(toolbox) = server.toolbox.filter(|_| server.has_volumes) {
        // Its agent is to hear that they are nobody's now.
        tx.bump_generation(toolbox).await?;
    }
    tx.event("server.deleted", format!("server/{}", server.name), json!({ "id": server.id }));
    tx.commit().await?;
    Ok(true)
}

async fn mark_silent(control: &Control, organization: OrganizationId, id: ToolboxId, now: Timestamp) -> Result<bool> {
    let mut tx = control.store().org(organization).await?;
    let Some(mut toolbox) = tx.toolbox_by_id(id).await? else { return Ok(false) };
    let heard = toolbox.last_seen_at.unwrap_or_default();
    if toolbox.status.phase != ToolboxState::Online || now.since(heard) < control.options().toolbox_silence {
        return Ok(false);
    }
    let message = format!("its agent was last heard at {heard}");
    toolbox.status = Status::new(ToolboxState::Unreachable, Reason::ToolboxUnreachable, message, now);
    tx.update_toolbox(&toolbox).await?;
    tx.event(
        "toolbox.changed",
        format!("toolbox/{}", toolbox.name),
        json!({ "id": id, "state": toolbox.status.phase }),
    );
    tx.commit().await?;
    tracing::warn!(toolbox.name = %toolbox.name, "a toolbox has not been heard for too long");
    Ok(true)
}
