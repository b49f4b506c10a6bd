//! Changes that a restart, or a stop, comes before: they are taken back and begun again after it, so that neither loses what
//! was asked for. Which it is stands with the server ([`Postponed`]) until then.

use std::time::Duration;

use toolyard_store::{OrgTx, Place, Postponed, RolloutRow, ServerRow};
use toolyard_types::RevisionId;
use toolyard_types::api::servers::Canary;
use toolyard_types::state::{Reason, RolloutState};

use super::rollouts::{Manner, begin, supersede};
use crate::Result;
use crate::reconcile::case::is_held;
use crate::reconcile::steps::changed;

/// For how long a restart that failed is what is told of a server, before what was postponed begins.
const FAILURE_SHOWN: Duration = Duration::from_secs(60);

/// Takes back a change beside which something serves, and one that was taken back before; tells which.
pub(super) async fn take(tx: &mut OrgTx, server: &mut ServerRow, why: &str) -> Result<Option<Postponed>> {
    let earlier = server.waiting().cloned();
    server.postponed = None;
    let under_way = tx.rollout_under_way(server).await?.filter(|rollout| is_change(rollout, server));
    let Some(change) = under_way else { return Ok(earlier) };
    let meant = Place { toolbox: server.toolbox, labels: server.toolbox_labels.clone() };
    let undecided = change.canary.as_ref().filter(|canary| canary.promoted_at.is_none()).cloned();
    let postponed = Postponed {
        after: None,
        revision: change.to_revision,
        place: change.from_place.as_ref().map(|_| meant),
        accept_lost_tools: change.accept_lost_tools,
        canary: undecided.map(|canary| Canary { started_at: None, promoted_at: None, ..canary }),
        held: is_held(&change),
    };
    supersede(tx, server, Reason::Superseded, why).await?;
    Ok(Some(postponed))
}

/// Whether a rollout brings something else than what serves, and has not done so yet.
fn is_change(rollout: &RolloutRow, server: &ServerRow) -> bool {
    let else_than_serves = server.serving_revision != Some(rollout.to_revision) || rollout.from_place.is_some();
    server.serving_rollout.is_some() && rollout.switched_at.is_none() && else_than_serves
}

/// Whether what serves is being replaced by more of the same.
pub(super) async fn is_restarted(tx: &OrgTx, server: &ServerRow) -> Result<bool> {
    let under_way = tx.rollout_under_way(server).await?;
    Ok(under_way.is_some_and(|rollout| rollout.switched_at.is_none() && !is_change(&rollout, server)))
}

/// Begins to replace what serves by new instances. A change that is under way begins again after that.
pub(crate) async fn restart(tx: &mut OrgTx, server: &mut ServerRow) -> Result<()> {
    let postponed = take(tx, server, "a restart comes first; it begins again after that").await?;
    let serving = server.serving_rollout.and(server.serving_revision);
    begin_before(tx, server, serving.unwrap_or(server.target_revision), postponed).await
}

/// Begins what a server that is stopped was stopped with, and then what was postponed.
pub(super) async fn start(tx: &mut OrgTx, server: &mut ServerRow) -> Result<()> {
    let postponed = server.waiting().cloned();
    let to = postponed.as_ref().and(server.serving_revision).unwrap_or(server.target_revision);
    begin_before(tx, server, to, postponed).await
}

async fn begin_before(
    tx: &mut OrgTx,
    server: &mut ServerRow,
    to: RevisionId,
    postponed: Option<Postponed>,
) -> Result<()> {
    begin(tx, server, to, Manner::default()).await?;
    if let Some(postponed) = postponed.filter(|_| server.serving_revision == Some(to)) {
        put_after(tx, server, postponed).await?;
    }
    Ok(())
}

/// Lets a change that has to wait begin after the restart that is under way.
pub(super) async fn put_after_restart(
    tx: &mut OrgTx,
    server: &mut ServerRow,
    revision: RevisionId,
    manner: Manner,
) -> Result<()> {
    let Manner { accept_lost_tools, canary, within_window: held, from_place } = manner;
    // What serves is restarted where it is.
    let place = from_place.map(|before| Place {
        toolbox: std::mem::replace(&mut server.toolbox, before.toolbox),
        labels: std::mem::replace(&mut server.toolbox_labels, before.labels),
    });
    put_after(tx, server, Postponed { after: None, revision, place, accept_lost_tools, canary, held }).await
}

async fn put_after(tx: &mut OrgTx, server: &mut ServerRow, postponed: Postponed) -> Result<()> {
    if let Some(revision) = tx.revision(postponed.revision).await?
        && let Some(mut rollout) = tx.rollout_under_way(server).await?
    {
        rollout.step(tx.now(), format!("the change to revision {} begins after it", revision.number));
        tx.update_rollout(&rollout).await?;
        changed(tx, server, &rollout);
    }
    server.postponed = Some(Postponed { after: server.rollout, ..postponed });
    Ok(tx.update_server(server).await?)
}

/// How long what was postponed has to wait yet, once the rollout before it has ended.
pub(crate) async fn wait(tx: &OrgTx, server: &ServerRow) -> Result<Option<Duration>> {
    let last = match server.rollout {
        Some(id) => tx.rollout(id).await?,
        None => None,
    };
    // Whoever follows the restart is to see that it failed.
    let failed = last.filter(|rollout| rollout.state != RolloutState::Done).and_then(|rollout| rollout.ended_at);
    let left = failed.map(|at| FAILURE_SHOWN.saturating_sub(tx.now().since(at)));
    Ok(left.filter(|left| !left.is_zero()))
}

/// Begins again what was postponed; forgets what is no longer to be, as something else was done with the server.
pub(crate) async fn begin_again(tx: &mut OrgTx, server: &mut ServerRow) -> Result<()> {
    let waiting = server.waiting().cloned();
    let is_known = match &waiting {
        Some(postponed) => tx.revision(postponed.revision).await?.is_some(),
        None => false,
    };
    let Some(postponed) = waiting.filter(|_| is_known) else {
        server.postponed = None;
        return Ok(tx.update_server(server).await?);
    };
    // On a toolbox that was removed nothing runs.
    let is_there = match &postponed.place {
        Some(place) => tx.removed_toolboxes(place.toolbox).await?.is_empty(),
        None => false,
    };
    let from_place = if is_there { server.take_meant_place() } else { None };
    let Postponed { revision, accept_lost_tools, canary, held, .. } = postponed;
    begin(tx, server, revision, Manner { accept_lost_tools, canary, within_window: held, from_place }).await
}
