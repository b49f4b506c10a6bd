//! Where a server is to run, and whether it may go somewhere else.

use toolyard_store::{OrgTx, Place, ServerRow, ToolboxRow};
use toolyard_types::api::servers::UpdateServer;
use toolyard_types::spec::{RevisionSpec, Runtime};
use toolyard_types::{Labels, Name, ToolboxId};

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

/// The place that is asked for, when it is another one and the server can go there.
pub(super) fn new(asked: &Option<Place>, server: &ServerRow, spec: &RevisionSpec) -> Result<Option<Place>> {
    let now = Place { toolbox: server.toolbox, labels: server.toolbox_labels.clone() };
    let Some(place) = asked.clone().filter(|place| *place != now) else { return Ok(None) };
    if matches!(spec.runtime, Runtime::Remote(_)) {
        return Err(ControlError::field("toolbox", "a remote server runs somewhere else; no toolbox runs it"));
    }
    if server.has_volumes || !spec.volumes.is_empty() {
        let message = "its volumes bind it to its toolbox, and are not moved; deploy another server elsewhere";
        return Err(ControlError::field("toolbox", message));
    }
    Ok(Some(place))
}

/// Gives a server the place that is asked for, when it is another one; gives the one before.
pub(super) fn change(asked: &Option<Place>, server: &mut ServerRow, spec: &RevisionSpec) -> Result<Option<Place>> {
    let Some(place) = new(asked, server, spec)? else { return Ok(None) };
    let before = Place {
        toolbox: std::mem::replace(&mut server.toolbox, place.toolbox),
        labels: std::mem::replace(&mut server.toolbox_labels, place.labels),
    };
    Ok(Some(before))
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
