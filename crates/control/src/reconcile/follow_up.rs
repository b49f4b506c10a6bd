//! *Follow-up*: what remains to be done after a change. Superseded instances are stopped, deleted servers
//! forgotten once their end was observed, silent toolboxes marked.
//!
//! Nobody can observe the end of an instance on a toolbox that is lost. One that is to end there counts as ended: its agent
//! ends what is left of it when it is heard again. Only of a server that must not run twice it does not, because the next
//! start would put a second one beside it; unless the server was deleted, or must run on another toolbox.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde_json::json;
use toolyard_store::{EventKind, InstanceRow, InstanceWish, OrgTx, ServerRef, ServerRow, ToolboxRow};
use toolyard_types::spec::Strategy;
use toolyard_types::state::{Reason, Status, ToolboxState};
use toolyard_types::{OrganizationId, RolloutId, ServerId, Timestamp, ToolboxId};

use super::steps::{dismiss, wish};
use super::{Pass, TO_BE_HEARD, lost};
use crate::{Control, Result};

/// How long a replaced instance may finish its calls once traffic goes to the new one.
const DRAIN: Duration = Duration::from_secs(1);
/// How many things of a kind one run looks at.
const AT_ONCE: u32 = 200;
/// How many servers with something on lost toolboxes one run knows of: those that wait must not take the places of others.
const MOST_ON_LOST: u32 = 10_000;

pub(crate) async fn run(control: &Control) -> Result<Pass> {
    let tx = control.store().system_read("looking for what a change left behind").await?;
    let superseded = tx.servers_with_superseded(AT_ONCE).await?;
    let on_lost = tx.servers_ending_on_lost(MOST_ON_LOST).await?;
    let deleted = tx.deleted_servers(AT_ONCE).await?;
    let now = control.clock().now();
    // Whom nobody could hear while the database was away is not silent for that.
    let away = control.fleet().failed_at("follow_up").is_some_and(|at| now.since(at) < TO_BE_HEARD);
    let deaf = away || !control.writes_work();
    let mut silent = tx.silent_toolboxes(now.minus(control.options().toolbox_silence), AT_ONCE).await?;
    if deaf {
        silent.clear();
    }
    drop(tx);
    let mut pass = Pass::default();
    for at in superseded {
        match stop_superseded(control, at, now).await {
            Ok(None) => pass.changed += 1,
            Ok(Some(wait)) => pass.again_in(wait),
            Err(error) => pass.failed(&error),
        }
    }
    for at in may_be_given_up(control, on_lost).await? {
        match give_up(control, at, now).await {
            Ok(changed) => pass.changed += usize::from(changed),
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

/// Those of these servers of which something on a lost toolbox may count as ended.
async fn may_be_given_up(control: &Control, all: Vec<ServerRef>) -> Result<Vec<ServerRef>> {
    let mut by_organization: BTreeMap<OrganizationId, Vec<ServerId>> = BTreeMap::new();
    for at in all {
        by_organization.entry(at.organization).or_default().push(at.server);
    }
    let mut found = Vec::new();
    for (organization, servers) in by_organization {
        let tx = control.store().org_read(organization).await?;
        let servers = tx.servers_by_id(&servers).await?;
        let targets: Vec<_> = servers.iter().map(|server| server.target_revision).collect();
        let strategies: HashMap<_, _> =
            tx.map_revisions(&targets, |it| (it.id, it.spec.strategy)).await?.into_iter().collect();
        let free = |server: &&ServerRow| {
            server.toolbox.is_some() || !waits(server, strategies.get(&server.target_revision).copied())
        };
        found.extend(servers.iter().filter(free).map(|server| ServerRef { organization, server: server.id }));
    }
    found.truncate(usize::try_from(AT_ONCE).unwrap_or(usize::MAX));
    Ok(found)
}

/// Whether another instance of a server must not begin before this one was seen to end.
fn waits(server: &ServerRow, strategy: Option<Strategy>) -> bool {
    !server.deleted && strategy == Some(Strategy::Recreate)
}

/// Counts what is to end on lost toolboxes as ended.
async fn give_up(control: &Control, at: ServerRef, now: Timestamp) -> Result<bool> {
    let mut tx = control.store().org(at.organization).await?;
    let Some(server) = tx.lock_server(at.server).await? else { return Ok(false) };
    let strategy = tx.revision(server.target_revision).await?.map(|revision| revision.spec.strategy);
    let waits = waits(&server, strategy);
    let mut changed = false;
    for instance in tx.live_instances(&[server.id]).await? {
        let away = server.toolbox.is_some_and(|pinned| pinned != instance.toolbox);
        if instance.desired != InstanceWish::Stop || (waits && !away) {
            continue;
        }
        if let Some(toolbox) = tx.toolbox_by_id(instance.toolbox).await?.filter(ToolboxRow::is_lost) {
            lost::give_up(&mut tx, &instance, &toolbox, "it ends there when that is heard again", now).await?;
            changed = true;
        }
    }
    if changed {
        server_changed(&mut tx, &server);
        tx.commit().await?;
    }
    Ok(changed)
}

fn server_changed(tx: &mut OrgTx, server: &ServerRow) {
    tx.event(EventKind::ServerChanged, format!("server/{}", server.name), json!({ "id": server.id }));
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
    tx.event(EventKind::ServerDeleted, format!("server/{}", server.name), json!({ "id": server.id }));
    tx.commit().await?;
    Ok(true)
}

async fn mark_silent(control: &Control, organization: OrganizationId, id: ToolboxId, now: Timestamp) -> Result<bool> {
    let mut tx = control.store().org(organization).await?;
    let Some(toolbox) = tx.toolbox_by_id(id).await? else { return Ok(false) };
    let message = format!("its agent was last heard at {}", toolbox.last_seen_at.unwrap_or_default());
    let status = Status::new(ToolboxState::Unreachable, Reason::ToolboxUnreachable, message, now);
    if !tx.set_toolbox_silent(id, &status, now.minus(control.options().toolbox_silence)).await? {
        return Ok(false);
    }
    tx.event(
        EventKind::ToolboxChanged,
        format!("toolbox/{}", toolbox.name),
        json!({ "id": id, "state": status.phase }),
    );
    tx.commit().await?;
    tracing::warn!(toolbox.name = %toolbox.name, "a toolbox has not been heard for too long");
    Ok(true)
}
