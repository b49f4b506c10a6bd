//! Rollouts: what people begin, end and decide about them; and with them what starts and stops a server.

use std::time::Duration;

use serde_json::json;
use toolyard_store::{InstanceWish, OrgTx, Place, RevisionRow, RolloutRow, ServerRow};
use toolyard_types::api::servers::{Canary, RollbackServer, Rollout, Server, StartCanary};
use toolyard_types::schedule::UpdateWindow;
use toolyard_types::spec::{RevisionSpec, Runtime, Strategy};
use toolyard_types::state::{Reason, RolloutState};
use toolyard_types::{Name, RevisionId, RolloutId, Timestamp};

use super::server_view::Views;
use super::servers::{self, locked, may_grant, note_granted, server_changed, unknown};
use super::{audit, ceilings, credentials, places, postponed, privileges};
use crate::reconcile::case::is_held;
use crate::reconcile::steps::{
    aim, back_to_previous, changed, dismiss, end_rollout, promote, put_on_trial, settle, wish as ask_instances,
};
use crate::{Caller, Control, ControlError, Result};

/// The most clients that a canary takes all calls of.
const MOST_CANARY_CLIENTS: usize = 100;

/// How a rollout is to go.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manner {
    /// Whether the new revision may list fewer tools.
    pub(super) accept_lost_tools: bool,
    /// What takes a part of the calls first.
    pub(super) canary: Option<Canary>,
    /// Whether it waits for the server's update window.
    pub(super) within_window: bool,
    /// Where the server was to run before, when it moves.
    pub(super) from_place: Option<Place>,
}

/// What a canary shall be; there must be something that it can run beside.
pub(super) fn canary(asked: StartCanary, server: &ServerRow, spec: &RevisionSpec) -> Result<Canary> {
    let wrong = |field: &str, message: &str| Err(ControlError::field(field, message));
    let StartCanary { weight, clients, promote_after_seconds } = asked;
    if weight > 100 {
        return wrong("canary.weight", "must be at most 100");
    }
    if weight == 0 && clients.is_empty() {
        return wrong("canary.weight", "must be at least 1 when no clients are named");
    }
    if clients.len() > MOST_CANARY_CLIENTS || clients.iter().any(|client| client.is_empty() || client.len() > 200) {
        return wrong("canary.clients", "must be at most 100, each of 1 to 200 characters");
    }
    if promote_after_seconds.is_some_and(|seconds| !(1..=604_800).contains(&seconds)) {
        return wrong("canary.promote_after_seconds", "must be between 1 and 604800");
    }
    if matches!(spec.runtime, Runtime::Remote(_)) {
        return wrong("canary", "a remote server has no instance beside which another could run");
    }
    if spec.strategy == Strategy::Recreate {
        return wrong("canary", "with `recreate` two revisions never run at once");
    }
    if !server.enabled || server.serving_rollout.is_none() {
        return wrong("canary", "nothing serves now that the new revision could be tried beside");
    }
    Ok(Canary { weight, clients, promote_after_seconds, started_at: None, promoted_at: None })
}

/// The rollout under way to the revision that is meant, when nobody decided about its canary yet and that is not as asked.
pub(super) async fn with_other_canary(
    tx: &OrgTx,
    server: &ServerRow,
    asked: &StartCanary,
) -> Result<Option<RolloutRow>> {
    let differs = |canary: &Canary| {
        let StartCanary { weight, clients, promote_after_seconds } = asked;
        (canary.weight, &canary.clients, canary.promote_after_seconds) != (*weight, clients, *promote_after_seconds)
    };
    Ok(tx.rollout_under_way(server).await?.filter(|rollout| {
        let open = rollout.canary.as_ref().filter(|canary| canary.promoted_at.is_none());
        rollout.to_revision == server.target_revision && open.is_some_and(differs)
    }))
}

/// Gives the canary under way another part of the calls, counted from now; tells what it is then, or nothing where none is
/// to be changed.
pub(super) async fn change_canary(
    tx: &mut OrgTx,
    server: &ServerRow,
    revision: &RevisionRow,
    asked: StartCanary,
) -> Result<Option<Canary>> {
    let Some(mut tried) = with_other_canary(tx, server, &asked).await? else { return Ok(None) };
    let takes_calls = tried.canary.as_ref().is_some_and(Canary::is_on_trial);
    tried.canary = Some(canary(asked, server, &revision.spec)?);
    if takes_calls {
        put_on_trial(&mut tried, revision.number, tx.now());
    }
    tx.update_rollout(&tried).await?;
    changed(tx, server, &tried);
    Ok(tried.canary)
}

/// Begins a rollout; one that is under way is superseded. A change that has to wait leaves a restart under way, and begins
/// after it.
pub(crate) async fn begin(tx: &mut OrgTx, server: &mut ServerRow, to: RevisionId, manner: Manner) -> Result<()> {
    let now = tx.now();
    let window = server.update_window.filter(|window| manner.within_window && !window.is_open(now));
    let window = window.filter(|_| server.serving_rollout.is_some());
    if window.is_some() && postponed::is_restarted(tx, server).await? {
        return postponed::put_after_restart(tx, server, to, manner).await;
    }
    server.postponed = None;
    // What is superseded gives back the place it came from: this rollout has the place that is meant now, and goes back
    // to the one before both.
    let place = (server.toolbox, server.toolbox_labels.clone());
    let before =
        tx.rollout_under_way(server).await?.filter(|old| old.switched_at.is_none()).and_then(|it| it.from_place);
    supersede(tx, server, Reason::Superseded, "another change took over").await?;
    (server.toolbox, server.toolbox_labels) = place;
    let waits = window.map(|window| (window, window.next_open(now)));
    let mut rollout = RolloutRow {
        id: RolloutId::generate(),
        server: server.id,
        from_revision: server.serving_rollout.and(server.serving_revision),
        to_revision: to,
        state: RolloutState::Progressing,
        reason: Reason::Requested,
        message: String::new(),
        log: vec![toolyard_types::api::servers::RolloutStep { at: now, message: "begun".into() }],
        started_at: now,
        deadline: now.plus(Duration::from_millis(server.rollout_timeout_ms)),
        ended_at: None,
        from_rollout: None,
        switched_at: None,
        accept_lost_tools: manner.accept_lost_tools,
        canary: manner.canary,
        next_attempt_at: None,
        from_place: before.or(manner.from_place),
    };
    if let Some((window, opens)) = waits {
        hold(&mut rollout, server, window, opens, now);
    }
    tx.insert_rollout(&rollout).await?;
    server.rollout = Some(rollout.id);
    aim(tx, server, to).await?;
    server.enabled = true;
    tx.update_server(server).await?;
    changed(tx, server, &rollout);
    Ok(())
}

/// Lets a rollout wait for its server's update window.
fn hold(rollout: &mut RolloutRow, server: &ServerRow, window: UpdateWindow, opens: Timestamp, now: Timestamp) {
    rollout.reason = Reason::OutsideWindow;
    rollout.message = format!("waits for the update window `{window}`, which opens at {opens}");
    rollout.next_attempt_at = Some(opens);
    rollout.deadline = opens.plus(Duration::from_millis(server.rollout_timeout_ms));
    rollout.step(now, rollout.message.clone());
}

/// The rollout under way, when it waits for its server's update window.
pub(super) async fn held(tx: &OrgTx, server: &ServerRow) -> Result<Option<RolloutRow>> {
    Ok(tx.rollout_under_way(server).await?.filter(|rollout| rollout.switched_at.is_none() && is_held(rollout)))
}

/// Lets a change that waits do so for the window that its server has now, or begin when there is none, when that is open, or
/// when it is asked for.
pub(super) async fn wait_anew(tx: &mut OrgTx, server: &mut ServerRow, need_not: bool) -> Result<()> {
    if let Some(postponed) = server.postponed.as_mut().filter(|_| need_not) {
        postponed.held = false;
    }
    let Some(mut rollout) = held(tx, server).await? else { return Ok(()) };
    let now = tx.now();
    match server.update_window.filter(|window| !need_not && !window.is_open(now)) {
        Some(window) => {
            let opens = window.next_open(now);
            if rollout.next_attempt_at != Some(opens) || !rollout.message.contains(&format!("`{window}`")) {
                hold(&mut rollout, server, window, opens, now);
            }
        }
        None => {
            rollout.next_attempt_at = None;
            rollout.deadline = now.plus(Duration::from_millis(server.rollout_timeout_ms));
            (rollout.reason, rollout.message) = (Reason::Requested, "it waits no longer for a window".to_owned());
            rollout.step(now, rollout.message.clone());
        }
    }
    tx.update_rollout(&rollout).await?;
    changed(tx, server, &rollout);
    Ok(())
}

/// Means a server to have a revision: with a rollout when it runs, else for its next start.
pub(super) async fn point_to(
    tx: &mut OrgTx,
    server: &mut ServerRow,
    revision: &RevisionRow,
    manner: Manner,
) -> Result<()> {
    if server.enabled {
        places::refuse_removed(tx, server).await?;
        return begin(tx, server, revision.id, manner).await;
    }
    server.postponed = None;
    aim(tx, server, revision.id).await?;
    tx.update_server(server).await?;
    server_changed(tx, server);
    Ok(())
}

/// Ends the rollout under way, if there is one, and stops what it made; tells whether there was one. A revision that
/// serves already and is only observed goes on to serve.
pub(super) async fn supersede(tx: &mut OrgTx, server: &mut ServerRow, reason: Reason, why: &str) -> Result<bool> {
    let now = tx.now();
    let Some(mut old) = tx.rollout_under_way(server).await? else { return Ok(false) };
    if old.switched_at.is_some() {
        settle(tx, &mut old, now, why).await?;
        tx.update_server(server).await?;
        return Ok(true);
    }
    end_rollout(tx, server, &mut old, now, (RolloutState::Cancelled, reason, why.to_owned())).await?;
    let live = tx.live_instances(&[server.id]).await?;
    dismiss(tx, live.iter().filter(|instance| instance.rollout == old.id)).await?;
    Ok(true)
}

pub(super) async fn halt(tx: &mut OrgTx, server: &mut ServerRow, why: &str) -> Result<()> {
    let mut postponed = postponed::take(tx, server, why).await?;
    supersede(tx, server, Reason::Requested, why).await?;
    if let Some(postponed) = &mut postponed {
        postponed.after = None;
    }
    server.postponed = postponed;
    server.enabled = false;
    server.serving_rollout = None;
    tx.update_server(server).await?;
    let live = tx.live_instances(&[server.id]).await?;
    ask_instances(tx, live.iter(), InstanceWish::Stop).await?;
    server_changed(tx, server);
    Ok(())
}

/// Starts a server that is stopped or whose last rollout failed; nothing when it runs.
pub(crate) async fn start(control: &Control, caller: &Caller, name: &Name) -> Result<Server> {
    let mut tx = control.store().org(caller.organization).await?;
    let mut server = locked(&tx, name).await?;
    places::refuse_removed(&tx, &server).await?;
    let under_way = tx.rollout_under_way(&server).await?.is_some();
    if !server.enabled || (server.serving_rollout.is_none() && !under_way) {
        postponed::start(&mut tx, &mut server).await?;
        audit(&mut tx, caller, "server.start", format!("server/{name}"), json!({})).await?;
        tx.commit().await?;
    }
    servers::get(control, caller, name).await
}

/// Stops a server; it is stopped once the end of its instances was observed.
pub(crate) async fn stop(control: &Control, caller: &Caller, name: &Name) -> Result<Server> {
    let mut tx = control.store().org(caller.organization).await?;
    let mut server = locked(&tx, name).await?;
    if server.enabled {
        halt(&mut tx, &mut server, "the server was stopped").await?;
        audit(&mut tx, caller, "server.stop", format!("server/{name}"), json!({})).await?;
        tx.commit().await?;
    }
    servers::get(control, caller, name).await
}

/// Replaces what serves by a new instance of the same revision.
pub(crate) async fn restart(control: &Control, caller: &Caller, name: &Name) -> Result<Server> {
    let mut tx = control.store().org(caller.organization).await?;
    let mut server = locked(&tx, name).await?;
    places::refuse_removed(&tx, &server).await?;
    postponed::restart(&mut tx, &mut server).await?;
    audit(&mut tx, caller, "server.restart", format!("server/{name}"), json!({})).await?;
    tx.commit().await?;
    servers::get(control, caller, name).await
}

/// Points a server back to an earlier revision.
pub(crate) async fn rollback(
    control: &Control,
    caller: &Caller,
    name: &Name,
    request: &RollbackServer,
) -> Result<Server> {
    let mut tx = control.store().org(caller.organization).await?;
    let mut server = locked(&tx, name).await?;
    let current = server.serving_rollout.and(server.serving_revision).unwrap_or(server.target_revision);
    let current = tx.revision(current).await?.ok_or_else(|| unknown(name))?;
    let target = match request.revision {
        Some(number) => tx.revision_numbered(server.id, number).await?,
        // What runs beside a revision that is observed is what served before it.
        None => match observed(&tx, &server).await?.and_then(|rollout| rollout.from_revision) {
            Some(from) => tx.revision(from).await?,
            None => served_before(&tx, &server, current.number).await?,
        },
    };
    let missing = || match request.revision {
        Some(number) => ControlError::field("revision", format!("server `{name}` has no revision {number}")),
        None => ControlError::Conflict(format!("revision {} is the first of server `{name}`", current.number)),
    };
    let target = target.ok_or_else(missing)?;
    // What was taken away is gone at once, also while what serves still has it.
    let meant = tx.revision(server.meant_revision()).await?.ok_or_else(|| unknown(name))?;
    privileges::check(control, caller, name, &meant.spec.privileges, &target.spec.privileges)?;
    let (then, now) = ((&target.spec, server.replicas), (&meant.spec, server.replicas));
    ceilings::check(&control.options().limits.server, then, Some(now))?;
    if target.id != current.id || server.meant_revision() != current.id {
        let (wish, before) = (servers::wish_of(&target)?, servers::wish_of(&meant)?);
        let bound_before = (!servers::is_elsewhere(&target.spec, &meant.spec)).then_some(&before);
        credentials::allow_bindings(control, caller, &tx, &wish, bound_before).await?;
        credentials::hold_bound(&tx, &wish).await?;
        // Whoever asks for an earlier revision knows that it may list less.
        let manner = Manner { accept_lost_tools: true, ..Manner::default() };
        let granted = may_grant(control, caller, name, &target.spec, &meant.spec.paths)?;
        server.postponed = None;
        if !undo(&mut tx, &mut server, &target, caller).await? {
            places::check(&tx, &server, &target).await?;
            point_to(&mut tx, &mut server, &target, manner).await?;
        }
        let mut detail = json!({ "from": current.number, "to": target.number });
        note_granted(&mut detail, &granted);
        audit(&mut tx, caller, "server.rollback", format!("server/{name}"), detail).await?;
        tx.commit().await?;
    }
    servers::get(control, caller, name).await
}

/// The newest revision below a number that is known to have served; else the newest.
async fn served_before(tx: &OrgTx, server: &ServerRow, number: u32) -> Result<Option<RevisionRow>> {
    let id = match tx.last_served_before(server.id, number).await? {
        Some(id) => Some(id),
        None => tx.last_revision_before(server.id, number).await?,
    };
    match id {
        Some(id) => Ok(tx.revision(id).await?),
        None => Ok(None),
    }
}

/// The rollout whose revision serves and is observed, if there is one.
async fn observed(tx: &OrgTx, server: &ServerRow) -> Result<Option<RolloutRow>> {
    Ok(tx.rollout_under_way(server).await?.filter(|rollout| rollout.switched_at.is_some()))
}

/// Ends the observation of a rollout from this revision, whose instances still run; tells whether there was one.
async fn undo(tx: &mut OrgTx, server: &mut ServerRow, target: &RevisionRow, caller: &Caller) -> Result<bool> {
    let observed = observed(tx, server).await?.filter(|rollout| rollout.from_revision == Some(target.id));
    let Some(mut rollout) = observed else { return Ok(false) };
    let why = format!("rolled back by {}", caller.display);
    leave(tx, server, &mut rollout, RolloutState::RolledBack, why).await?;
    Ok(true)
}

/// Lets what served before serve again, from instances that still run.
async fn leave(
    tx: &mut OrgTx,
    server: &mut ServerRow,
    rollout: &mut RolloutRow,
    state: RolloutState,
    why: String,
) -> Result<()> {
    let now = tx.now();
    back_to_previous(tx, server, rollout, now, (state, Reason::Requested, why)).await?;
    let live = tx.live_instances(&[server.id]).await?;
    dismiss(tx, live.iter().filter(|instance| instance.rollout == rollout.id)).await?;
    changed(tx, server, rollout);
    Ok(())
}

/// The rollout under way, or the last one.
pub(crate) async fn get(control: &Control, caller: &Caller, name: &Name) -> Result<Rollout> {
    let tx = control.store().org_read(caller.organization).await?;
    let row = tx.server(name).await?.ok_or_else(|| unknown(name))?;
    let views = Views::read(control, &tx, &caller.organization_name, std::slice::from_ref(&row)).await?;
    views.last_rollout(&row).ok_or_else(|| ControlError::NotFound(format!("a rollout of server `{name}`")))
}

/// Cancels the rollout under way: what served serves on.
pub(crate) async fn cancel(control: &Control, caller: &Caller, name: &Name) -> Result<Rollout> {
    let mut tx = control.store().org(caller.organization).await?;
    let mut server = locked(&tx, name).await?;
    let why = format!("cancelled by {}", caller.display);
    // What was to begin after it does not.
    let postponed = server.waiting().is_some();
    server.postponed = None;
    if let Some(mut observed) = observed(&tx, &server).await? {
        leave(&mut tx, &mut server, &mut observed, RolloutState::Cancelled, why).await?;
    } else if !supersede(&mut tx, &mut server, Reason::Requested, &why).await? {
        if !postponed {
            return Err(ControlError::Conflict(format!("server `{name}` has no rollout under way")));
        }
        tx.update_server(&mut server).await?;
    }
    server_changed(&mut tx, &server);
    audit(&mut tx, caller, "rollout.cancel", format!("server/{name}"), json!({})).await?;
    tx.commit().await?;
    get(control, caller, name).await
}

/// Lets the revision that is tried serve.
pub(crate) async fn promote_canary(control: &Control, caller: &Caller, name: &Name) -> Result<Rollout> {
    let mut tx = control.store().org(caller.organization).await?;
    let server = locked(&tx, name).await?;
    places::refuse_removed(&tx, &server).await?;
    let tried =
        tx.rollout_under_way(&server).await?.filter(|rollout| rollout.canary.as_ref().is_some_and(Canary::is_on_trial));
    let Some(mut tried) = tried else {
        return Err(ControlError::Conflict(format!("server `{name}` has no canary that takes calls")));
    };
    let now = tx.now();
    promote(&tx, &mut tried, &server, now, &format!("by {}", caller.display)).await?;
    changed(&mut tx, &server, &tried);
    audit(&mut tx, caller, "rollout.promote", format!("server/{name}"), json!({})).await?;
    tx.commit().await?;
    get(control, caller, name).await
}
