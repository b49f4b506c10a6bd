//! *Place*: a resolved revision gets an instance on a toolbox that can run it: the one it is pinned to, or the
//! one with the fewest instances.

use toolyard_store::{InstanceWish, ServerRef, ToolboxRow};
use toolyard_types::spec::{Runtime, Strategy};
use toolyard_types::state::{Reason, RolloutState, ToolboxState};
use toolyard_types::{Timestamp, ToolboxId};

use super::Pass;
use super::case::{Case, Step, changed, for_each, insert_instance};
use crate::{Control, Result};

pub(crate) async fn run(control: &Control) -> Result<Pass> {
    let mut pass = for_each(control, decide).await?;
    let tx = control.store().system_read("listing servers whose instance is gone").await?;
    let gone = tx.servers_without_instance(200).await?;
    drop(tx);
    for at in gone {
        match replace(control, at).await {
            Ok(placed) => pass.changed += usize::from(placed),
            Err(error) => pass.failed(&error),
        }
    }
    Ok(pass)
}

fn decide(case: &Case, now: Timestamp) -> Option<Step> {
    if case.is_remote() || case.needs_lock() || !case.mine.is_empty() || now >= case.rollout.deadline {
        return None;
    }
    let waits = case.revision.spec.strategy == Strategy::Recreate && case.serving().next().is_some();
    let wish = if waits { InstanceWish::Prepare } else { InstanceWish::Run };
    // The toolbox that resolved the package has it at hand.
    let resolved = case.jobs.first().map(|job| job.toolbox).filter(|id| case.takes_new(*id));
    let chosen = match resolved.filter(|id| case.server.toolbox.is_none_or(|pinned| pinned == *id)) {
        Some(toolbox) => Ok(toolbox),
        None => choose(case),
    };
    match chosen {
        Ok(toolbox) => Some(Step::Place(toolbox, wish)),
        Err((Reason::UnsupportedByEngine, message)) => Some(Step::Fail(Reason::UnsupportedByEngine, message)),
        Err((reason, message)) => case.note(reason, message),
    }
}

/// A toolbox that is online and can run the revision; else why there is none.
pub(super) fn choose(case: &Case) -> Result<ToolboxId, (Reason, String)> {
    let (pinned, labels) = (case.server.toolbox, &case.server.toolbox_labels);
    let wanted = |toolbox: &&ToolboxRow| pinned.is_none_or(|id| toolbox.id == id) && toolbox.labels.include(labels);
    let allowed: Vec<_> = case.toolboxes.iter().filter(wanted).collect();
    let online: Vec<_> = allowed.iter().filter(|toolbox| toolbox.takes_new()).collect();
    if online.is_empty() {
        let message = match (pinned, allowed.first()) {
            (Some(_), Some(toolbox)) if toolbox.status.phase == ToolboxState::Online => {
                format!("toolbox `{}` takes nothing new", toolbox.name)
            }
            (Some(_), Some(toolbox)) => format!("toolbox `{}` is {}", toolbox.name, toolbox.status.phase),
            (Some(_), None) => "the toolbox it must run on was removed".to_owned(),
            (None, Some(_)) if !labels.is_empty() => format!("no toolbox with the labels `{labels}` is online"),
            (None, Some(_)) => "no toolbox is online".to_owned(),
            (None, None) if !labels.is_empty() => format!("no toolbox has the labels `{labels}`"),
            (None, None) => "there is no toolbox; enroll one".to_owned(),
        };
        return Err((Reason::AwaitingToolbox, message));
    }
    let needs_containers = matches!(case.revision.spec.runtime, Runtime::Oci(_));
    let online: Vec<_> = online.into_iter().filter(|it| !needs_containers || it.report.engine != "process").collect();
    if online.is_empty() {
        let message = "a container image needs a toolbox with a container engine; those online run processes";
        return Err((Reason::UnsupportedByEngine, message.to_owned()));
    }
    let egress = &case.revision.spec.egress;
    let online: Vec<_> = online.into_iter().filter(|toolbox| toolbox.report.enforces_egress(egress)).collect();
    if online.is_empty() {
        let message = "no toolbox that is online can limit whom a server reaches; one with containers can";
        return Err((Reason::UnsupportedByEngine, message.to_owned()));
    }
    let (program, shown): (&[&str], _) = match case.revision.spec.runtime {
        Runtime::Npm(_) => (&["node", "npm"], "Node.js"),
        Runtime::Pypi(_) => (&["python", "python3", "uv"], "Python"),
        _ => (&[], ""),
    };
    let capable = online
        .into_iter()
        .filter(|toolbox| program.is_empty() || program.iter().any(|name| toolbox.report.runtimes.contains_key(*name)));
    capable
        .min_by_key(|toolbox| (case.load.get(&toolbox.id).copied().unwrap_or(0), toolbox.id))
        .map(|toolbox| toolbox.id)
        .ok_or_else(|| (Reason::NoCapacity, format!("no toolbox that is online has {shown}")))
}

/// Gives a server whose serving instance is gone (its toolbox was removed, say) another one.
async fn replace(control: &Control, at: ServerRef) -> Result<bool> {
    let now = control.clock().now();
    let mut tx = control.store().org(at.organization).await?;
    let Some(server) = tx.lock_server(at.server).await?.filter(|server| server.enabled && !server.deleted) else {
        return Ok(false);
    };
    let (Some(serving), Some(revision)) = (server.serving_rollout, server.serving_revision) else { return Ok(false) };
    let live = tx.live_instances(&[server.id]).await?;
    if live.iter().any(|instance| instance.rollout == serving && instance.desired != InstanceWish::Stop) {
        return Ok(false);
    }
    let under_way = match server.rollout {
        Some(id) => tx.rollout(id).await?.filter(|rollout| rollout.state == RolloutState::Progressing),
        None => None,
    };
    let (Some(rollout), Some(revision)) = (tx.rollout(serving).await?, tx.revision(revision).await?) else {
        return Ok(false);
    };
    // While a `recreate` is under way the old one is down on purpose.
    if let Some(under_way) = under_way
        && let Some(target) = tx.revision(under_way.to_revision).await?
        && target.spec.strategy == Strategy::Recreate
    {
        return Ok(false);
    }
    let case = Case {
        jobs: Vec::new(),
        mine: Vec::new(),
        live,
        toolboxes: tx.toolboxes().await?,
        load: tx.instances_by_toolbox().await?.into_iter().collect(),
        probe: None,
        server,
        rollout,
        revision,
    };
    let Ok(toolbox) = choose(&case) else { return Ok(false) };
    insert_instance(&mut tx, &case.rollout, case.revision.id, toolbox, InstanceWish::Run, now).await?;
    changed(&mut tx, &case.server, &case.rollout);
    tx.commit().await?;
    Ok(true)
}
