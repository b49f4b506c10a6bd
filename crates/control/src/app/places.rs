//! Where a server is to run, and whether it may go somewhere else.

use toolyard_store::{OrgTx, Place, RevisionRow, ServerRow, ToolboxRow};
use toolyard_types::api::servers::UpdateServer;
use toolyard_types::name::printable;
use toolyard_types::spec::{PathGrant, RevisionSpec, Runtime};
use toolyard_types::state::{Reason, ToolboxState};
use toolyard_types::{Code, Labels, Name, ToolboxId};

use super::expand::Given;
use super::server_view::must_run_on;
use super::servers::wish_of;
use crate::reconcile::phase::removed_message;
use crate::reconcile::place;
use crate::{ControlError, Result};

/// The toolbox of this name, where one is named.
pub(super) async fn toolbox_named(tx: &OrgTx, name: Option<&Name>) -> Result<Option<ToolboxId>> {
    let Some(name) = name else { return Ok(None) };
    match tx.toolbox(name).await? {
        Some(toolbox) => Ok(Some(toolbox.id)),
        None => Err(ControlError::field("toolbox", format!("there is no toolbox `{name}`"))),
    }
}

/// Where an update asks a server to run.
pub(super) async fn asked(tx: &OrgTx, request: &UpdateServer) -> Result<Option<Place>> {
    let labels = request.toolbox_labels.as_ref();
    if [request.toolbox.is_some(), labels.is_some(), request.any_toolbox].into_iter().filter(|given| *given).count() > 1
    {
        return Err(ControlError::field("toolbox", "give one of `toolbox`, `toolbox_labels` and `any_toolbox`"));
    }
    if labels.is_some_and(Labels::is_empty) {
        return Err(ControlError::field("toolbox_labels", "must not be empty; `any_toolbox` is for any"));
    }
    if request.toolbox.is_none() && labels.is_none() && !request.any_toolbox {
        return Ok(None);
    }
    let toolbox = toolbox_named(tx, request.toolbox.as_ref()).await?;
    Ok(Some(Place { toolbox, labels: labels.cloned().unwrap_or_default() }))
}

/// Whether the toolbox where a server must run was removed.
///
/// # Errors
/// When the store fails.
pub(crate) async fn is_removed(tx: &OrgTx, server: &ServerRow) -> Result<bool> {
    Ok(!tx.removed_toolboxes(must_run_on(server)).await?.is_empty())
}

/// Refuses what could only wait in vain: to run a server whose toolbox was removed, where it must run there.
///
/// # Errors
/// `conflict` (the code `toolbox_removed` is for agents, and has the status of who is not let in); or when the store fails.
pub(super) async fn refuse_removed(tx: &OrgTx, server: &ServerRow) -> Result<()> {
    let Some(removed) = tx.removed_toolboxes(must_run_on(server)).await?.pop() else { return Ok(()) };
    let (name, why) = (&server.name, removed_message(&removed));
    let detail = format!(
        "server `{name}` runs nowhere: {why}, with `toolyard servers update {name} --toolbox TOOLBOX`, or delete it"
    );
    Err(ControlError::Conflict(detail))
}

/// The place that is asked for, when it is another one and the server can go there. `removed` says whether the toolbox
/// where it must run is no more: its volumes are out of reach with that, and bind it to it no longer.
pub(super) fn new(
    asked: &Option<Place>,
    server: &ServerRow,
    spec: &RevisionSpec,
    removed: bool,
) -> Result<Option<Place>> {
    let now = Place { toolbox: server.toolbox, labels: server.toolbox_labels.clone() };
    let Some(place) = asked.clone().filter(|place| *place != now) else { return Ok(None) };
    if matches!(spec.runtime, Runtime::Remote(_)) {
        return Err(ControlError::field("toolbox", "a remote server runs somewhere else; no toolbox runs it"));
    }
    if server.has_volumes || !spec.volumes.is_empty() {
        if !removed {
            let message = "its volumes bind it to its toolbox, and are not moved; deploy another server elsewhere";
            return Err(ControlError::field("toolbox", message));
        }
        // The place of the new ones is said and not found out: whoever says it knows that they begin empty.
        if place.toolbox.is_none() {
            let message =
                "its volumes stayed with the toolbox that was removed; name the one where it begins with empty ones";
            return Err(ControlError::field("toolbox", message));
        }
    }
    Ok(Some(place))
}

/// Gives a server the place that is asked for, when it is another one; gives the one before.
pub(super) fn change(
    asked: &Option<Place>,
    server: &mut ServerRow,
    spec: &RevisionSpec,
    removed: bool,
) -> Result<Option<Place>> {
    let Some(place) = new(asked, server, spec, removed)? else { return Ok(None) };
    let before = Place {
        toolbox: std::mem::replace(&mut server.toolbox, place.toolbox),
        labels: std::mem::replace(&mut server.toolbox_labels, place.labels),
    };
    Ok(Some(before))
}

/// Refuses a revision that the toolbox where its server must run is known not to run, before a rollout begins that can only
/// fail. One that is not online may come back with other abilities, and what can be installed there is waited for.
///
/// # Errors
/// `validation_failed` for a path of the host, `unsupported_by_engine` for anything else.
pub(super) async fn check(tx: &OrgTx, server: &ServerRow, revision: &RevisionRow) -> Result<()> {
    let Some(toolbox) = must_run_on(server) else { return Ok(()) };
    let toolbox = tx.toolbox_by_id(toolbox).await?.filter(|it| it.status.phase == ToolboxState::Online);
    let Some(toolbox) = toolbox else { return Ok(()) };
    match place::lack(revision, &toolbox.report) {
        None => Ok(()),
        Some(lack) => match lack.reason {
            Reason::NoCapacity => Ok(()),
            Reason::ConfigInvalid => {
                let told = lack.told(&toolbox);
                let from = wanted_by_inputs(revision, &told)?;
                Err(ControlError::field("paths", format!("{told}{from}")))
            }
            _ => Err(ControlError::problem(Code::UnsupportedByEngine, lack.told(&toolbox))),
        },
    }
}

/// Names the inputs that hold a path which something was told about: whoever gave one did not ask for a path of the host by
/// that, as for a file in a volume that is taken away now.
fn wanted_by_inputs(revision: &RevisionRow, told: &str) -> Result<String> {
    let wish = wish_of(revision)?;
    let is_meant = |path: &str| {
        let is_it = |grant: &PathGrant| grant.path == path;
        revision.spec.paths.iter().any(is_it)
            && !wish.paths.iter().any(is_it)
            && told.contains(&format!("`{}`", printable(path)))
    };
    let mut names = Vec::new();
    for (name, given) in wish.inputs.iter().chain(&wish.environment) {
        // An input that may be repeated has one value a line.
        if let Given::Text(text) = given
            && text.lines().any(is_meant)
        {
            names.push(format!("`{}`", printable(name)));
        }
    }
    if names.is_empty() {
        return Ok(String::new());
    }
    Ok(format!("; it is the value of the input {}, which can be given another one with this", names.join(", ")))
}

/// Whether everything that serves is where the server is to run.
pub(super) async fn is_reached(tx: &OrgTx, server: &ServerRow) -> Result<bool> {
    let Some(serving) = server.serving_rollout.filter(|id| Some(*id) == server.rollout) else { return Ok(false) };
    let suits =
        |it: &&ToolboxRow| server.toolbox.is_none_or(|id| id == it.id) && it.labels.include(&server.toolbox_labels);
    let mut live = tx.live_instances(&[server.id]).await?;
    live.retain(|it| it.rollout == serving && it.should_serve());
    let toolboxes = tx.toolboxes_by_id(live.iter().map(|instance| instance.toolbox)).await?;
    let suitable: Vec<_> = toolboxes.iter().filter(suits).map(|toolbox| toolbox.id).collect();
    Ok(!live.is_empty() && live.iter().all(|it| suitable.contains(&it.toolbox)))
}
