//! *Schedule*: restarts servers at their time of day. One that is changed at that moment, whose time passed while no
//! control plane ran, or whose toolbox was removed, is left until the next day. And it begins again what a restart had to
//! take back.

use std::time::Duration;

use serde_json::json;
use toolyard_store::ServerRef;

use super::Pass;
use super::case::is_held;
use crate::app::{places, postponed, system_line};
use crate::{Control, Result};

/// How much later than its time a restart may still be.
const LATE: Duration = Duration::from_secs(600);
/// How many servers one run looks at.
const AT_ONCE: u32 = 200;

pub(crate) async fn run(control: &Control) -> Result<Pass> {
    let now = control.clock().now();
    let tx = control.store().system_read("listing servers to restart").await?;
    let due = tx.servers_to_restart(now, AT_ONCE).await?;
    let postponed = tx.servers_with_postponed(AT_ONCE).await?;
    drop(tx);
    let mut pass = Pass::default();
    for at in due {
        match restart(control, at).await {
            Ok(restarted) => pass.changed += usize::from(restarted),
            Err(error) => pass.failed(&error),
        }
    }
    for at in postponed {
        match begin_postponed(control, at).await {
            Ok(None) => pass.changed += 1,
            Ok(Some(wait)) => pass.again_in(wait),
            Err(error) => pass.failed(&error),
        }
    }
    Ok(pass)
}

/// Begins what a restart came before; tells how long to wait when it may not begin yet.
async fn begin_postponed(control: &Control, at: ServerRef) -> Result<Option<Duration>> {
    let mut tx = control.store().org(at.organization).await?;
    let server = tx.lock_server(at.server).await?.filter(|it| it.enabled && !it.deleted && it.postponed.is_some());
    let Some(mut server) = server else { return Ok(None) };
    if tx.rollout_under_way(&server).await?.is_some() {
        return Ok(None);
    }
    if let Some(wait) = postponed::wait(&tx, &server).await? {
        return Ok(Some(wait));
    }
    postponed::begin_again(&mut tx, &mut server).await?;
    tx.commit().await?;
    Ok(None)
}

async fn restart(control: &Control, at: ServerRef) -> Result<bool> {
    let now = control.clock().now();
    let mut tx = control.store().org(at.organization).await?;
    let Some(mut server) = tx.lock_server(at.server).await?.filter(|server| !server.deleted) else { return Ok(false) };
    let Some(due) = server.next_restart_at.filter(|due| *due <= now) else { return Ok(false) };
    server.next_restart_at = server.restart_at.map(|time| time.next_after(now));
    let changes = tx.rollout_under_way(&server).await?.is_some_and(|rollout| !is_held(&rollout));
    let serving = server.serving_rollout.and(server.serving_revision).filter(|_| server.enabled);
    let is_removed = places::is_removed(&tx, &server).await?;
    let Some(_) = serving.filter(|_| !changes && !is_removed && now.since(due) <= LATE) else {
        tx.update_server(&mut server).await?;
        tx.commit().await?;
        return Ok(false);
    };
    postponed::restart(&mut tx, &mut server).await?;
    let target = format!("server/{}", server.name);
    let line = system_line("schedule", "server.restart", target, true, json!({ "due": due }));
    tx.audit(&line).await?;
    tx.commit().await?;
    Ok(true)
}
