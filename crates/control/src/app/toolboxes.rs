//! Toolboxes: places where servers run. An agent is known by its certificate, which it gets for a join token.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use toolyard_store::{EventKind, InstanceRow, InstanceWish, OrgTx, ServerRow, Store, ToolboxRow};
use toolyard_types::agent::{JoinToken, ToolboxReport};
use toolyard_types::api::Page;
use toolyard_types::api::servers::{Drain, EnrollToolbox, EnrolledToolbox, RejoinToolbox, Toolbox, UpdateToolbox};
use toolyard_types::state::{Phase, Reason, Status, ToolboxState};
use toolyard_types::{Labels, Name, OrganizationId, Timestamp, ToolboxId};

use super::{audit, health};
use crate::auth::token;
use crate::fleet::LOCAL_TOOLBOX;
use crate::reconcile::case::as_they_serve;
use crate::reconcile::place;
use crate::{Caller, Control, ControlError, Result};

/// How long a join token is good for unless asked otherwise, and at most.
const TOKEN_LIFETIME: u32 = 3600;
const LONGEST_TOKEN_LIFETIME: u32 = 7 * 24 * 3600;
/// The most servers that are named because they stay on a drained toolbox.
const MOST_STAYING: usize = 100;

fn unknown(name: &Name) -> ControlError {
    ControlError::NotFound(format!("toolbox `{name}`"))
}

/// Why the engine of a toolbox does not work, as far as that is known: its agent tells, or does not start without it here.
fn engine_failure(control: &Control, row: &ToolboxRow) -> Option<String> {
    let told = row.report.engine_failure.as_ref().filter(|_| row.status.phase == ToolboxState::Online);
    let told = told.map(|failure| format!("{}; since {}", failure.message, failure.since));
    control.fleet().engine_wait(row.id).or(told)
}

/// A toolbox as people see it. Whether its agent is heard and whether it is to take nothing new are two facts; the
/// state shows the second while the first is good.
fn view(control: &Control, row: ToolboxRow, address: Option<String>, instances: u32) -> Toolbox {
    let engine_failure = engine_failure(control, &row);
    let mut status = match row.draining_since {
        Some(since) if row.status.phase == ToolboxState::Online => {
            Status::new(ToolboxState::Draining, Reason::Requested, "takes nothing new", since)
        }
        _ => row.status,
    };
    if let Some(message) = engine_failure {
        (status.reason, status.message) = (Reason::EngineUnavailable, message);
    }
    Toolbox {
        link: control.links().health(row.id),
        offer_failure: control.fleet().offer_failure(row.id),
        id: row.id,
        name: row.name,
        state: status.phase,
        reason: status.reason,
        message: status.message,
        since: status.since,
        draining: row.draining_since.is_some(),
        labels: row.labels,
        engine: row.report.engine.clone(),
        version: row.agent_version,
        lost_at: row.lost_at,
        last_seen_at: row.last_seen_at,
        certificate_expires_at: row.certificate_expires_at,
        address,
        report: row.report,
        instances,
        health: None,
        drain: None,
    }
}

/// Every toolbox, by name.
pub(crate) async fn list(control: &Control, caller: &Caller) -> Result<Page<Toolbox>> {
    let tx = control.store().org_read(caller.organization).await?;
    let counts: std::collections::HashMap<_, _> = tx.instances_by_toolbox().await?.into_iter().collect();
    let mut addresses = tx.toolbox_addresses().await?;
    let rows = tx.toolboxes().await?;
    let count = |id: ToolboxId| counts.get(&id).copied().unwrap_or_default();
    Ok(Page::whole(
        rows.into_iter()
            .map(|row| {
                let (address, count) = (addresses.remove(&row.id), count(row.id));
                view(control, row, address, count)
            })
            .collect(),
    ))
}

/// One toolbox.
pub(crate) async fn get(control: &Control, caller: &Caller, name: &Name) -> Result<Toolbox> {
    let tx = control.store().org_read(caller.organization).await?;
    let row = tx.toolbox(name).await?.ok_or_else(|| unknown(name))?;
    let instances = tx.instances_on(row.id).await?;
    let health = health::of(control, &tx, Some(row.id)).await?;
    let drain = match row.draining_since {
        Some(_) => Some(draining(&tx, row.id, &instances).await?),
        None => None,
    };
    let address = tx.toolbox_addresses().await?.remove(&row.id);
    let mut toolbox = view(control, row, address, u32::try_from(instances.len()).unwrap_or(u32::MAX));
    let is_draining = toolbox.state == ToolboxState::Draining && toolbox.reason != Reason::EngineUnavailable;
    if let Some(drain) = drain.as_ref().filter(|_| is_draining) {
        toolbox.message = told(drain);
    }
    (toolbox.health, toolbox.drain) = (Some(health), drain);
    Ok(toolbox)
}

/// What is still on a toolbox that is drained.
async fn draining(tx: &OrgTx, id: ToolboxId, instances: &[InstanceRow]) -> Result<Drain> {
    let servers: BTreeSet<_> = instances.iter().map(|instance| instance.server).collect();
    let servers = tx.servers_by_id(&servers.into_iter().collect::<Vec<_>>()).await?;
    let others: Vec<ToolboxRow> =
        tx.toolboxes().await?.into_iter().filter(|other| other.id != id && other.takes_new()).collect();
    let as_served: HashMap<_, _> =
        as_they_serve(tx, servers.clone()).await?.into_iter().map(|row| (row.id, row)).collect();
    let as_meant: HashMap<_, _> = servers.iter().map(|row| (row.id, row)).collect();
    let revisions: BTreeSet<_> = instances.iter().map(|instance| instance.revision).collect();
    let revisions = tx.revision_outlines(&revisions.into_iter().collect::<Vec<_>>()).await?;
    let revisions: HashMap<_, _> = revisions.iter().map(|revision| (revision.id, revision)).collect();
    // What serves may have another place than the server is meant to have once its rollout goes on.
    let moves = |instance: &InstanceRow| {
        let served = as_served.get(&instance.server).filter(|row| row.serving_rollout == Some(instance.rollout));
        let server = served.or_else(|| as_meant.get(&instance.server).copied());
        server
            .zip(revisions.get(&instance.revision))
            .is_some_and(|(server, revision)| server.toolbox.is_none() && place::has_place(server, revision, &others))
    };
    let wanted = |it: &&InstanceRow| matches!(it.desired, InstanceWish::Run | InstanceWish::Prepare);
    let bound: BTreeSet<_> = instances.iter().filter(wanted).filter(|it| !moves(it)).map(|it| it.server).collect();
    let stays_here = |row: &&ServerRow| row.enabled && !row.deleted && bound.contains(&row.id);
    let staying: Vec<_> = servers.iter().filter(stays_here).collect();
    let names = |rows: &mut dyn Iterator<Item = &&ServerRow>| {
        let mut names: Vec<Name> = rows.map(|row| row.name.clone()).collect();
        names.sort();
        names.truncate(MOST_STAYING);
        names
    };
    let stays = names(&mut staying.iter());
    let volumes = names(&mut staying.iter().filter(|row| row.has_volumes));
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let (serving, ending): (Vec<_>, Vec<_>) = instances.iter().partition(|row| row.should_serve());
    let moving = count(serving.into_iter().filter(|row| moves(row)).count());
    Ok(Drain { moving, ending: count(ending.len()), stays, volumes })
}

fn told(drain: &Drain) -> String {
    let names = |names: &[Name]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let instances = |number: u32| format!("{number} {}", if number == 1 { "instance" } else { "instances" });
    let mut parts = vec!["takes nothing new".to_owned()];
    if drain.moving > 0 {
        parts.push(format!("still to move: {}", instances(drain.moving)));
    }
    if drain.ending > 0 {
        parts.push(format!("about to end: {}", instances(drain.ending)));
    }
    match drain.stays.as_slice() {
        [] if drain.moving + drain.ending == 0 => parts.push("nothing is left that must go".to_owned()),
        [] => {}
        stays => parts.push(format!("they stay, for there is no other place: {}", names(stays))),
    }
    if !drain.volumes.is_empty() {
        parts.push(format!("here are the volumes of {}", names(&drain.volumes)));
    }
    parts.join("; ")
}

/// Makes a toolbox and a token for its agent, which is shown only now.
pub(crate) async fn enroll(control: &Control, caller: &Caller, request: EnrollToolbox) -> Result<EnrolledToolbox> {
    let lifetime = token_lifetime(request.expires_seconds)?;
    request.address.as_deref().map(check_address).transpose()?;
    let mut tx = control.store().org(caller.organization).await?;
    if tx.toolbox(&request.name).await?.is_some() {
        let detail = format!("toolbox `{}`; `toolyard toolboxes rejoin` makes another token for it", request.name);
        return Err(ControlError::AlreadyExists(detail));
    }
    let row = ToolboxRow { labels: request.labels, ..new_toolbox(&tx, request.name, false) };
    tx.insert_toolbox(&row).await?;
    tx.set_toolbox_address(row.id, request.address.as_deref()).await?;
    changed(&mut tx, &row);
    let detail = match &request.address {
        Some(address) => json!({ "labels": row.labels, "address": address }),
        None => json!({ "labels": row.labels }),
    };
    audit(&mut tx, caller, "toolbox.enroll", format!("toolbox/{}", row.name), detail).await?;
    issue(control, tx, row, request.address, lifetime, 0).await
}

/// Makes another token for a toolbox. Certificates it has stay good until somebody joins with the token.
pub(crate) async fn rejoin(
    control: &Control,
    caller: &Caller,
    name: &Name,
    request: &RejoinToolbox,
) -> Result<EnrolledToolbox> {
    let lifetime = token_lifetime(request.expires_seconds)?;
    let mut tx = control.store().org(caller.organization).await?;
    let row = tx.toolbox(name).await?.ok_or_else(|| unknown(name))?;
    refuse_built_in(&row)?;
    let instances = tx.instances_on(row.id).await?.len();
    audit(&mut tx, caller, "toolbox.rejoin", format!("toolbox/{name}"), json!({})).await?;
    let address = tx.toolbox_addresses().await?.remove(&row.id);
    issue(control, tx, row, address, lifetime, u32::try_from(instances).unwrap_or(u32::MAX)).await
}

fn token_lifetime(asked: Option<u32>) -> Result<Duration> {
    let seconds = asked.unwrap_or(TOKEN_LIFETIME);
    if (1..=LONGEST_TOKEN_LIFETIME).contains(&seconds) {
        return Ok(Duration::from_secs(seconds.into()));
    }
    Err(ControlError::field("expires_seconds", format!("must be 1 to {LONGEST_TOKEN_LIFETIME}")))
}

/// Writes a token, commits, and shows it.
async fn issue(
    control: &Control,
    tx: OrgTx,
    row: ToolboxRow,
    address: Option<String>,
    lifetime: Duration,
    instances: u32,
) -> Result<EnrolledToolbox> {
    let secret = token::random();
    let expires_at = tx.now().plus(lifetime);
    tx.put_join_token(row.id, &token::sha256_hex(secret.expose()), expires_at).await?;
    tx.commit().await?;
    // An agent that listens dials none of them, until it no longer listens.
    let addresses = control.fleet().agent_addresses();
    let ca = control.authority().fingerprint();
    let content = JoinToken { v: JoinToken::VERSION, addresses: addresses.clone(), ca, toolbox: row.id, secret };
    let content = serde_json::to_vec(&content).map_err(ControlError::internal("writing a join token"))?;
    let token = URL_SAFE_NO_PAD.encode(content);
    // In the environment and not among the arguments, which every user of the host can read.
    let port = address.as_deref().and_then(|address| address.rsplit_once(':')).map(|(_, port)| port);
    let listen = port.map(|port| format!(" --listen 0.0.0.0:{port}")).unwrap_or_default();
    // An agent in another environment has other defaults, in development laxer ones.
    let environment = Some(control.options().environment.as_str()).filter(|environment| *environment != "development");
    let environment = environment.map(|environment| format!("TOOLYARD_ENV={environment} ")).unwrap_or_default();
    let command = format!("{environment}TOOLYARD_TOKEN={token} toolyard dtma{listen}");
    Ok(EnrolledToolbox { toolbox: view(control, row, address, instances), token, expires_at, addresses, command })
}

fn refuse_built_in(row: &ToolboxRow) -> Result<()> {
    if row.built_in {
        return Err(ControlError::Conflict(format!("toolbox `{}` is built in", row.name)));
    }
    Ok(())
}

/// Ends every certificate and unused token of a toolbox. What it runs stays; it may join again with a new token.
pub(crate) async fn revoke(control: &Control, caller: &Caller, name: &Name) -> Result<Toolbox> {
    let mut tx = control.store().org(caller.organization).await?;
    let row = tx.toolbox(name).await?.ok_or_else(|| unknown(name))?;
    refuse_built_in(&row)?;
    let enrolment = tx.raise_enrolment(row.id).await?.ok_or_else(|| unknown(name))?;
    tx.drop_join_tokens(row.id).await?;
    changed(&mut tx, &row);
    audit(&mut tx, caller, "toolbox.revoke", format!("toolbox/{name}"), json!({})).await?;
    tx.commit().await?;
    super::agents::end_before(control, row.id, enrolment);
    get(control, caller, name).await
}

/// Changes what the operator says of a toolbox. Servers that were placed by labels before stay where they are; links that
/// are open go on when its agent listens elsewhere.
pub(crate) async fn update(control: &Control, caller: &Caller, name: &Name, update: UpdateToolbox) -> Result<Toolbox> {
    let address = update.address.as_deref();
    address.filter(|address| !address.is_empty()).map(check_address).transpose()?;
    if update.labels.is_some() || address.is_some() {
        let mut tx = control.store().org(caller.organization).await?;
        let row = tx.toolbox(name).await?.ok_or_else(|| unknown(name))?;
        let mut detail = serde_json::Map::new();
        if let Some(labels) = &update.labels {
            tx.set_toolbox_labels(row.id, labels).await?;
            detail.insert("labels".to_owned(), json!(labels));
        }
        if let Some(address) = address {
            refuse_built_in(&row)?;
            tx.set_toolbox_address(row.id, Some(address).filter(|address| !address.is_empty())).await?;
            detail.insert("address".to_owned(), json!(address));
        }
        changed(&mut tx, &row);
        audit(&mut tx, caller, "toolbox.update", format!("toolbox/{name}"), detail.into()).await?;
        tx.commit().await?;
    }
    get(control, caller, name).await
}

/// Whether this control plane may connect to an address to offer an agent a connection. A name is looked at again where it
/// leads, whenever that is done.
fn check_address(address: &str) -> Result<()> {
    let wrong = || ControlError::field("address", "must be `host:port`, where the agent listens");
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    if port.parse::<u16>().map_err(|_| wrong())? == 0 {
        return Err(wrong());
    }
    let is_name = |host: &str| {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        (1..=253).contains(&host.len()) && host.bytes().all(good)
    };
    let literal = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(inner) => Some(IpAddr::V6(inner.parse().map_err(|_| wrong())?)),
        None if is_name(host) => host.parse().ok(),
        None => return Err(wrong()),
    };
    match literal {
        Some(literal) if !toolyard_link::may_be_agent(literal) => {
            Err(ControlError::field("address", format!("no agent may be at `{literal}`")))
        }
        _ => Ok(()),
    }
}

fn new_toolbox(tx: &OrgTx, name: Name, built_in: bool) -> ToolboxRow {
    let now = tx.now();
    ToolboxRow {
        id: ToolboxId::generate(),
        name,
        status: Status::new(ToolboxState::Enrolling, Reason::Requested, "its agent was not heard yet", now),
        built_in,
        draining_since: None,
        labels: Labels::default(),
        enrolment: 0,
        certificate_expires_at: None,
        lost_at: None,
        last_seen_at: None,
        agent_version: None,
        report: ToolboxReport::default(),
        generation: 1,
        created_at: now,
    }
}

pub(crate) fn changed(tx: &mut OrgTx, row: &ToolboxRow) {
    tx.event(
        EventKind::ToolboxChanged,
        format!("toolbox/{}", row.name),
        json!({ "id": row.id, "state": row.status.phase }),
    );
}

/// Stops placing anything new on a toolbox and moves what may run elsewhere; or places things there again.
pub(crate) async fn drain(control: &Control, caller: &Caller, name: &Name, drain: bool) -> Result<Toolbox> {
    let mut tx = control.store().org(caller.organization).await?;
    let row = tx.toolbox(name).await?.ok_or_else(|| unknown(name))?;
    if row.draining_since.is_some() == drain {
        drop(tx);
        return get(control, caller, name).await;
    }
    let since: Option<Timestamp> = drain.then(|| tx.now());
    tx.set_toolbox_draining(row.id, since).await?;
    changed(&mut tx, &row);
    let action = if drain { "toolbox.drain" } else { "toolbox.resume" };
    audit(&mut tx, caller, action, format!("toolbox/{name}"), json!({})).await?;
    tx.commit().await?;
    get(control, caller, name).await
}

/// Removes a toolbox: its certificates end, its instances count as ended and are placed elsewhere. A server that must run
/// there is left without a place, so that takes a drain first: its answer names them.
pub(crate) async fn remove(control: &Control, caller: &Caller, name: &Name) -> Result<()> {
    let mut tx = control.store().org(caller.organization).await?;
    let row = tx.toolbox(name).await?.ok_or_else(|| unknown(name))?;
    refuse_built_in(&row)?;
    let pinned = tx.servers_pinned_to(row.id).await?;
    if let Some(server) = pinned.first().filter(|_| row.draining_since.is_none()) {
        let detail = format!(
            "server `{server}` must run on toolbox `{name}` and would stop; delete it, or drain the toolbox first"
        );
        return Err(ControlError::Conflict(detail));
    }
    let now = tx.now();
    // The row first: whoever places something here now waits for it, and then finds the toolbox removed.
    tx.remove_toolbox(&row).await?;
    tx.drop_join_tokens(row.id).await?;
    for instance in tx.instances_on(row.id).await? {
        let ended = InstanceRow {
            status: Status::new(Phase::Stopped, Reason::ToolboxUnreachable, "its toolbox was removed", now),
            desired: InstanceWish::Stop,
            ended_at: Some(now),
            ..instance
        };
        tx.update_instance(&ended).await?;
    }
    tx.event(EventKind::ToolboxRemoved, format!("toolbox/{name}"), json!({ "id": row.id }));
    let detail = if pinned.is_empty() { json!({}) } else { json!({ "without_a_place": pinned }) };
    audit(&mut tx, caller, "toolbox.remove", format!("toolbox/{name}"), detail).await?;
    tx.commit().await?;
    // Removing it raised it.
    super::agents::end_before(control, row.id, row.enrolment.saturating_add(1));
    control.links().remove(row.id);
    Ok(())
}

/// Makes the built-in toolbox in an organization, unless it is there.
pub(crate) async fn ensure_local(store: &Store, organization: OrganizationId) -> Result<ToolboxId> {
    let name = Name::new(LOCAL_TOOLBOX).expect("the constant is a valid name");
    let mut tx = store.org(organization).await?;
    if let Some(row) = tx.toolbox(&name).await? {
        return Ok(row.id);
    }
    let row = new_toolbox(&tx, name, true);
    tx.insert_toolbox(&row).await?;
    changed(&mut tx, &row);
    tx.commit().await?;
    Ok(row.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_may_listen_at_a_host_and_port_but_at_no_metadata_service() {
        for good in ["edge1.example:8082", "10.0.0.7:8082", "127.0.0.1:1", "[::1]:8082", "[fd12::1]:8082"] {
            assert!(check_address(good).is_ok(), "{good}");
        }
        for bad in [
            "edge1",
            "edge1:0",
            "edge1:x",
            ":8082",
            "http://edge1:8082",
            "a/b:1",
            "user@edge1:1",
            "::1:8082",
            "[::1]",
            "169.254.169.254:80",
            "[fe80::1]:80",
            "[::ffff:169.254.169.254]:80",
            "0.0.0.0:80",
            "",
            "[edge1]:80",
        ] {
            assert!(check_address(bad).is_err(), "{bad}");
        }
    }
}
