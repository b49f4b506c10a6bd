//! *Trim*: forgets what nobody needs any more, a bounded amount each time.

use std::time::Duration;

use toolyard_store::ServerRef;

use super::Pass;
use crate::events::UPKEEP;
use crate::{Control, Result};

/// How long an ended instance and an ended job are kept, for people who ask what happened.
const KEEP_ENDED: Duration = Duration::from_secs(24 * 3600);
/// How long an expired join token is kept, so that whoever uses it is told what is wrong with it.
const KEEP_TOKENS: Duration = Duration::from_secs(30 * 24 * 3600);
/// How many rollouts of a server are kept.
pub(crate) const KEEP_ROLLOUTS: u32 = 20;
/// How many things of a kind one run forgets.
const AT_ONCE: u32 = 1000;
/// How many servers are asked for at once.
const SERVERS_AT_ONCE: u32 = 100;

pub(crate) async fn run(control: &Control) -> Result<Pass> {
    let old = control.clock().now().minus(KEEP_ENDED);
    let mut tx = control.store().system("trimming what ended long ago").await?;
    tx.allow(UPKEEP).await?;
    let mut gone = tx.trim_instances(old, AT_ONCE).await?;
    gone += tx.trim_jobs(old).await?;
    gone += tx.trim_locks().await?;
    gone += tx.trim_join_tokens(control.clock().now().minus(KEEP_TOKENS)).await?;
    let many = tx.servers_with_many_rollouts(KEEP_ROLLOUTS, 100).await?;
    tx.commit().await?;
    let tx = control.store().system("trimming what loops put off").await?;
    gone += tx.trim_attempts().await?;
    tx.commit().await?;
    for at in many {
        let tx = control.store().org(at.organization).await?;
        gone += tx.trim_rollouts(at.server, KEEP_ROLLOUTS).await?;
        tx.commit().await?;
    }
    gone += trim_revisions(control).await?;
    Ok(Pass { changed: usize::try_from(gone).unwrap_or(usize::MAX), ..Pass::default() })
}

/// Forgets old revisions that nothing needs, of one server after another: those that need all of theirs hold no other up.
async fn trim_revisions(control: &Control) -> Result<u64> {
    let keep = control.options().revisions_kept;
    let (mut gone, mut after) = (0, None);
    loop {
        let tx = control.store().system_read("find servers with many revisions").await?;
        let many = tx.servers_with_many_revisions(keep, after, SERVERS_AT_ONCE).await?;
        drop(tx);
        let Some(last) = many.last() else { return Ok(gone) };
        after = Some(last.server);
        for at in many {
            if gone >= u64::from(AT_ONCE) {
                return Ok(gone);
            }
            match trim_revisions_of(control, at, keep).await {
                Ok(some) => gone += some,
                Err(error) => tracing::warn!(
                    server.id = %at.server,
                    error = &error as &dyn std::error::Error,
                    "the old revisions of a server could not be forgotten"
                ),
            }
        }
    }
}

async fn trim_revisions_of(control: &Control, at: ServerRef, keep: u32) -> Result<u64> {
    let mut tx = control.store().org(at.organization).await?;
    tx.allow(UPKEEP).await?;
    let Some(server) = tx.lock_server(at.server).await? else { return Ok(0) };
    let gone = tx.trim_revisions(&server, keep).await?;
    tx.commit().await?;
    Ok(gone)
}
