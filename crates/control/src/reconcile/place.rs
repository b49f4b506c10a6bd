//! A resolved revision gets its instances, each on a toolbox that can run it: the one it is pinned to, or the one with
//! the fewest instances of the same server, then of any.

use toolyard_store::{InstanceWish, ToolboxRow};
use toolyard_types::spec::{Privilege, Runtime, Strategy};
use toolyard_types::state::{Reason, ToolboxState};
use toolyard_types::{Timestamp, ToolboxId};

use super::case::Case;
use super::steps::Step;

pub(super) fn decide(case: &Case, now: Timestamp) -> Option<Step> {
    let complete = case.mine.len() >= case.wanted() || case.rollout.switched_at.is_some();
    let failed = case.mine.iter().any(|instance| instance.ended_at.is_some());
    if case.is_held() || case.is_remote() || case.needs_lock() || complete || failed || now >= case.rollout.deadline {
        return None;
    }
    let waits = case.revision.spec.strategy == Strategy::Recreate && case.earlier().next().is_some();
    let wish = if waits { InstanceWish::Prepare } else { InstanceWish::Run };
    // The toolbox that resolved the package has it at hand; further replicas are spread.
    let resolved = case.jobs.first().map(|job| job.toolbox).filter(|id| case.mine.is_empty() && case.takes_new(*id));
    let first = resolved.filter(|id| case.server.toolbox.is_none_or(|pinned| pinned == *id));
    match spread(case, case.wanted() - case.mine.len(), first.into_iter().collect()) {
        Ok(toolboxes) => Some(Step::Place(toolboxes, wish)),
        Err((Reason::UnsupportedByEngine, message)) => Some(Step::Fail(Reason::UnsupportedByEngine, message)),
        Err((reason, message)) => case.note(reason, message),
    }
}

/// A toolbox for one more instance; else why there is none.
pub(super) fn choose(case: &Case) -> Result<ToolboxId, (Reason, String)> {
    spread(case, 1, Vec::new())?.pop().ok_or_else(|| (Reason::NoCapacity, "no toolbox is left".to_owned()))
}

/// Adds toolboxes for more instances until there are so many, at least one; else says why there is none.
fn spread(case: &Case, count: usize, mut chosen: Vec<ToolboxId>) -> Result<Vec<ToolboxId>, (Reason, String)> {
    if chosen.len() < count {
        let capable = capable(case)?;
        while chosen.len() < count
            && let Some(next) = emptiest(case, &capable, &chosen)
        {
            chosen.push(next);
        }
    }
    Ok(chosen)
}

/// The toolbox with the fewest instances of the same server, then of any. What has paths of a host stays with them where
/// it can: another host need not have them.
fn emptiest(case: &Case, capable: &[&ToolboxRow], chosen: &[ToolboxId]) -> Option<ToolboxId> {
    let has_paths = !case.revision.spec.paths.is_empty();
    let crowd = |toolbox: &ToolboxRow| {
        let chosen = chosen.iter().filter(|id| **id == toolbox.id).count();
        let beside = case.mine.iter().filter(|instance| instance.toolbox == toolbox.id).count() + chosen;
        let away = has_paths && !case.live.iter().any(|instance| instance.toolbox == toolbox.id);
        (beside, away, case.places.load(toolbox.id), toolbox.id)
    };
    capable.iter().map(|toolbox| crowd(toolbox)).min().map(|(_, _, _, id)| id)
}

/// The toolboxes that are online and can run the revision; else why there is none.
fn capable(case: &Case) -> Result<Vec<&ToolboxRow>, (Reason, String)> {
    let (pinned, labels) = (case.server.toolbox, &case.server.toolbox_labels);
    let wanted = |toolbox: &&ToolboxRow| pinned.is_none_or(|id| toolbox.id == id) && toolbox.labels.include(labels);
    let allowed: Vec<&ToolboxRow> = case.places.toolboxes.iter().filter(wanted).collect();
    let online: Vec<_> = allowed.iter().copied().filter(|toolbox| toolbox.takes_new()).collect();
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
    let namespaces = case.revision.spec.privileges.contains(&Privilege::NewNamespaces);
    let online: Vec<_> = online.into_iter().filter(|it| !namespaces || it.report.engine == "process").collect();
    if online.is_empty() {
        let message = "only a toolbox that runs processes can allow new namespaces; containers refuse them";
        return Err((Reason::UnsupportedByEngine, message.to_owned()));
    }
    let egress = &case.revision.spec.egress;
    let online: Vec<_> = online.into_iter().filter(|toolbox| toolbox.report.enforces_egress(egress)).collect();
    if online.is_empty() {
        let message = "no toolbox that is online can limit whom a server reaches like that; one with containers can";
        return Err((Reason::UnsupportedByEngine, message.to_owned()));
    }
    let http = case.revision.spec.runtime.package().is_some_and(|package| package.http.is_some());
    let online: Vec<_> = online.into_iter().filter(|it| !http || it.report.speaks_container_http()).collect();
    if online.is_empty() {
        let message = "no toolbox that is online can speak HTTP to a server inside its container; that takes a present \
                       agent that runs as root";
        return Err((Reason::UnsupportedByEngine, message.to_owned()));
    }
    let http = case.revision.spec.runtime.package().and_then(|package| package.http.as_ref());
    let headers = http.is_some_and(|http| !http.headers.is_empty());
    let online: Vec<_> = online.into_iter().filter(|it| !headers || it.report.sends_container_headers()).collect();
    if online.is_empty() {
        let message = "no toolbox that is online can send headers to a server inside its container; that takes a \
                       present agent";
        return Err((Reason::UnsupportedByEngine, message.to_owned()));
    }
    let volumes = !case.revision.spec.volumes.is_empty();
    let online: Vec<_> = online.into_iter().filter(|toolbox| !volumes || toolbox.report.keeps_volumes()).collect();
    if online.is_empty() {
        let message = "no toolbox that is online can keep volumes; one with containers and a present agent can";
        return Err((Reason::UnsupportedByEngine, message.to_owned()));
    }
    let wants = case.revision.spec.runtime.package().is_some_and(|package| !package.with.is_empty());
    let online: Vec<_> = online.into_iter().filter(|it| !wants || it.report.takes_requirements()).collect();
    if online.is_empty() {
        let message = "no toolbox that is online can install a package with the further requirements that its entry \
                       names; that takes a present agent";
        return Err((Reason::UnsupportedByEngine, message.to_owned()));
    }
    let (program, shown): (&[&str], _) = match case.revision.spec.runtime {
        Runtime::Npm(_) => (&["node", "npm"], "Node.js"),
        Runtime::Pypi(_) => (&["python", "python3", "uv"], "Python"),
        _ => (&[], ""),
    };
    let has =
        |it: &&ToolboxRow| program.is_empty() || program.iter().any(|name| it.report.runtimes.contains_key(*name));
    let capable: Vec<_> = online.into_iter().filter(has).collect();
    if capable.is_empty() {
        return Err((Reason::NoCapacity, format!("no toolbox that is online has {shown}")));
    }
    Ok(capable)
}
