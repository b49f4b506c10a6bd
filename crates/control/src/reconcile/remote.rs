//! *Remote*: probes remote MCP servers, which no agent watches: at once when a rollout waits for it, each minute
//! while one serves. The result is a row, so every replica sees the same.

use std::time::Duration;

use futures_util::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::json;
use toolyard_mcp::http::Upstream;
use toolyard_mcp::{CallError, Handshake, HandshakeError, Kind, Message, envelope, era};
use toolyard_store::{Loop, ProbeRow, RevisionRow, ServerRef, ServerRow};
use toolyard_types::agent::{Era, McpInfo};
use toolyard_types::spec::{Remote, RemoteTransport, Runtime};
use toolyard_types::state::{Phase, Reason, RolloutState, Status};
use toolyard_types::{OrganizationId, Redaction, Timestamp};

use super::{AFTER_FAILURE, LONGEST_WAIT, Pass, put_off};
use crate::snapshot::Rendered;
use crate::{Control, Result};

/// How long a probe may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often a serving remote server is probed.
const EVERY: Duration = Duration::from_secs(60);
/// The pause between probes that a rollout waits for.
const PAUSE: Duration = Duration::from_secs(3);
/// How many are probed at once, which is all that one run looks at: what hangs holds up no more than these, and no longer
/// than a probe may take.
const AT_ONCE: usize = 32;
/// How many pages of tools are read.
const MOST_PAGES: usize = 20;

pub(crate) async fn run(control: &Control) -> Result<Pass> {
    // The composition root gives it in a moment; until then nothing is known of any remote.
    if control.remote_client().is_none() {
        return Ok(Pass::default());
    }
    let tx = control.store().system_read("listing remote servers to probe").await?;
    let (seen, now) = (tx.last_event().await?, control.clock().now());
    let refs = tx.remote_servers_to_probe(now, EVERY, u32::try_from(AT_ONCE).unwrap_or(u32::MAX)).await?;
    drop(tx);
    let mut pass = Pass::default();
    let (mut due, mut waits) = (Vec::new(), Vec::new());
    for at in &refs {
        match due_of(control, *at).await {
            Ok(Due::Now(found)) => due.extend(found.into_iter().map(|work| (*at, work))),
            Ok(Due::In(wait)) => waits.push((*at, wait)),
            Err(error) => {
                pass.failed(&error);
                waits.push((*at, AFTER_FAILURE));
            }
        }
    }
    put_off(control, Loop::Remote, seen, waits).await?;
    let mut probes = futures_util::stream::iter(due)
        .map(|(at, work)| async move { (at, probe(control, at.organization, work).await) })
        .buffer_unordered(AT_ONCE);
    let mut failed = Vec::new();
    while let Some((at, result)) = probes.next().await {
        match result {
            Ok(()) => pass.changed += 1,
            Err(error) => {
                pass.failed(&error);
                failed.push((at, AFTER_FAILURE));
            }
        }
    }
    drop(probes);
    put_off(control, Loop::Remote, seen, failed).await?;
    if refs.len() == AT_ONCE {
        pass.again();
    }
    Ok(pass)
}

/// The revisions of a server that should be probed now, or how long none of them should.
enum Due {
    Now(Vec<Probed>),
    In(Duration),
}

/// A revision that is probed.
struct Probed {
    server: ServerRow,
    revision: RevisionRow,
    before: Option<ProbeRow>,
    /// When the rollout began that waits for it.
    began: Option<Timestamp>,
}

async fn due_of(control: &Control, at: ServerRef) -> Result<Due> {
    let now = control.clock().now();
    let tx = control.store().org_read(at.organization).await?;
    let Some(server) = tx.server_by_id(at.server).await? else { return Ok(Due::In(LONGEST_WAIT)) };
    let probes = tx.probes_of(&[server.id]).await?;
    let waits = match server.rollout {
        Some(id) => tx
            .rollout(id)
            .await?
            .filter(|rollout| rollout.state == RolloutState::Progressing && rollout.reason != Reason::OutsideWindow),
        None => None,
    };
    let (mut due, mut wait) = (Vec::new(), LONGEST_WAIT);
    let serving = server.serving_revision.filter(|_| server.serving_rollout.is_some());
    let target = waits.as_ref().map(|rollout| rollout.to_revision);
    for id in serving.into_iter().chain(target.filter(|id| Some(*id) != serving)) {
        let before = probes.iter().find(|probe| probe.revision == id).cloned();
        let began = waits.as_ref().filter(|rollout| rollout.to_revision == id).map(|rollout| rollout.started_at);
        match due_in(before.as_ref(), began, now) {
            Duration::ZERO => {
                let Some(revision) = tx.revision(id).await? else { continue };
                due.push(Probed { server: server.clone(), revision, before, began });
            }
            later => wait = wait.min(later),
        }
    }
    Ok(if due.is_empty() { Due::In(wait) } else { Due::Now(due) })
}

/// How long it is until a revision is probed.
fn due_in(before: Option<&ProbeRow>, rollout_began: Option<Timestamp>, now: Timestamp) -> Duration {
    let after = |probe: &ProbeRow, pause: Duration| pause.saturating_sub(now.since(probe.checked_at));
    match (before, rollout_began) {
        (None, _) => Duration::ZERO,
        (Some(probe), Some(began)) if probe.checked_at < began => Duration::ZERO,
        // The rollout goes on with it.
        (Some(probe), Some(_)) if probe.status.phase == Phase::Ready => LONGEST_WAIT,
        (Some(probe), Some(_)) => after(probe, PAUSE),
        (Some(probe), None) => after(probe, EVERY),
    }
}

async fn probe(control: &Control, organization: OrganizationId, due: Probed) -> Result<()> {
    let Runtime::Remote(remote) = &due.revision.spec.runtime else { return Ok(()) };
    let known = due.before.as_ref().and_then(|probe| probe.mcp.as_ref()).map(|mcp| mcp.era);
    let outcome = ask(control, organization, &due, remote, known).await?;
    let now = control.clock().now();
    let failures = if outcome.is_ok() { 0 } else { failures_before(&due).saturating_add(1) };
    let (phase, reason, message, mcp) = match outcome {
        Ok(mcp) => (Phase::Ready, Reason::Answered, String::new(), Some(mcp)),
        Err((reason, message)) => (Phase::Failed, reason, message, due.before.as_ref().and_then(|it| it.mcp.clone())),
    };
    let mut status = Status::new(phase, reason, message, now);
    let mut changed = true;
    if let Some(before) = &due.before {
        changed = before.status.differs_from(&status) || before.checked_at < due.revision.created_at;
        status = before.status.followed_by(status);
    }
    let row = ProbeRow { revision: due.revision.id, server: due.server.id, status, checked_at: now, failures, mcp };
    let mut tx = control.store().org(organization).await?;
    // It may have been removed while it was probed.
    if tx.lock_server(due.server.id).await?.is_none() {
        return Ok(());
    }
    tx.put_probe(&row).await?;
    if changed || failures > 0 {
        let data = json!({ "id": due.server.id, "phase": row.status.phase, "reason": row.status.reason });
        tx.event("server.changed", format!("server/{}", due.server.name), data);
    }
    Ok(tx.commit().await?)
}

/// How many probes in a row failed before this one; those before a rollout do not count against it.
fn failures_before(due: &Probed) -> u32 {
    let before = due.before.as_ref().filter(|probe| due.began.is_none_or(|began| probe.checked_at >= began));
    before.map_or(0, |probe| probe.failures)
}

/// Asks a remote server to introduce itself.
async fn ask(
    control: &Control,
    organization: OrganizationId,
    due: &Probed,
    remote: &Remote,
    known: Option<Era>,
) -> Result<Result<McpInfo, (Reason, String)>> {
    let Some(client) = control.remote_client() else {
        let message = "this control plane was started without a client for remote servers";
        return Ok(Err((Reason::EngineUnavailable, message.to_owned())));
    };
    if remote.transport == RemoteTransport::Sse {
        let message = "the HTTP+SSE transport of 2024-11-05 is not spoken to remote servers; use Streamable HTTP";
        return Ok(Err((Reason::UnsupportedByEngine, message.to_owned())));
    }
    let rendered = match crate::snapshot::render(control, organization, remote).await? {
        Ok(rendered) => rendered,
        Err(problem) => return Ok(Err(problem)),
    };
    control.remember_remote(due.server.id, due.revision.id, &rendered);
    let Rendered { url, headers, secrets } = rendered;
    let Ok(uri) = url.expose().parse::<http::Uri>() else {
        return Ok(Err((Reason::ConfigInvalid, "its URL cannot be used".to_owned())));
    };
    let mut map = HeaderMap::new();
    for (name, value) in &headers {
        let (Ok(name), Ok(mut value)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value.expose()))
        else {
            return Ok(Err((Reason::ConfigInvalid, format!("header `{name}` has a value that cannot be sent"))));
        };
        value.set_sensitive(true);
        map.insert(name, value);
    }
    let host = uri.authority().map_or_else(String::new, |authority| {
        let port = authority.port().map_or_else(String::new, |port| format!(":{port}"));
        format!("{}{port}", authority.host())
    });
    let upstream = Upstream::new(client, uri, map).knowing(known);
    let introduced = introduce(&upstream).await;
    // A session a minute would pile up at the server.
    upstream.close().await;
    // Whoever is shown a secret may say it again, in an error or as its own name.
    let redaction = Redaction::of(&secrets);
    let clean = |text: String| redaction.clean(&text).into_owned();
    Ok(match introduced {
        Ok(mcp) => Ok(mcp.redacted(&redaction)),
        Err((Reason::RemoteUnreachable, message)) => {
            Err((Reason::RemoteUnreachable, clean(format!("`{host}`: {message}"))))
        }
        Err((reason, message)) => Err((reason, clean(message))),
    })
}

async fn introduce(upstream: &Upstream) -> Result<McpInfo, (Reason, String)> {
    let handshake = upstream.handshake(PATIENCE).await.map_err(|error| failure(&error))?;
    let failed = |what: String| (Reason::ProbeFailed, what);
    let listed = tokio::time::timeout(PATIENCE, list_tools(upstream, &handshake)).await;
    let Tools { count, names } = listed
        .map_err(|_| failed(format!("it did not list its tools within {PATIENCE:?}")))?
        .map_err(|error| failed(format!("listing its tools: {error}")))?;
    Ok(McpInfo {
        era: handshake.era,
        protocol_version: handshake.protocol_version.clone(),
        server_name: handshake.server_name.clone(),
        server_version: handshake.server_version.clone(),
        tools: count,
        tool_names: names,
    })
}

fn failure(error: &HandshakeError) -> (Reason, String) {
    let reason = match error {
        HandshakeError::Unreachable(_) | HandshakeError::Timeout(_) => Reason::RemoteUnreachable,
        HandshakeError::Status(status) if *status >= 500 => Reason::RemoteUnreachable,
        _ => Reason::HandshakeFailed,
    };
    (reason, error.to_string())
}

/// The one part of a `tools/list` result that is looked at here.
#[derive(serde::Deserialize)]
struct ToolPage {
    #[serde(default)]
    tools: Vec<Tool>,
    #[serde(default, rename = "nextCursor")]
    next_cursor: Option<String>,
}

#[derive(serde::Deserialize)]
struct Tool {
    #[serde(default)]
    name: serde_json::Value,
}

#[derive(serde::Deserialize)]
struct ToolAnswer {
    result: Option<ToolPage>,
}

/// What it lists.
#[derive(Default)]
struct Tools {
    count: u32,
    /// Every name, bounded; none when there were more than are read, so that nobody takes a part for the whole.
    names: Vec<String>,
}

/// The tools that it lists, on at most [`MOST_PAGES`] pages.
async fn list_tools(upstream: &Upstream, handshake: &Handshake) -> Result<Tools, CallError> {
    let mut tools = Tools::default();
    if !handshake.has_capability("tools") {
        return Ok(tools);
    }
    let mut cursor = None;
    for _ in 0..MOST_PAGES {
        let page = tool_page(upstream, handshake, cursor.as_deref()).await?;
        tools.count = tools.count.saturating_add(u32::try_from(page.tools.len()).unwrap_or(u32::MAX));
        let room = McpInfo::MOST_TOOL_NAMES.saturating_sub(tools.names.len());
        let names = page.tools.iter().filter_map(|tool| tool.name.as_str());
        let bounded = |name: &str| name.chars().take(McpInfo::LONGEST_TOOL_NAME).collect();
        tools.names.extend(names.take(room).map(bounded));
        cursor = page.next_cursor.filter(|cursor| !cursor.is_empty());
        if cursor.is_none() {
            return Ok(tools);
        }
    }
    tools.names.clear();
    Ok(tools)
}

async fn tool_page(upstream: &Upstream, handshake: &Handshake, cursor: Option<&str>) -> Result<ToolPage, CallError> {
    let mut members = Vec::new();
    if handshake.era == Era::Modern {
        members.push(format!("\"_meta\":{{{}}}", era::own_meta_members(&handshake.protocol_version)));
    }
    members.extend(cursor.map(|cursor| format!("\"cursor\":{}", toolyard_mcp::json::quote(cursor))));
    let params = format!("{{{}}}", members.join(","));
    let mut stream = upstream.ask(envelope::request("1", "tools/list", Some(&params))).await?;
    while let Some(message) = stream.next().await {
        let message = message?;
        // Notifications may come before the response, which is the only message with an id.
        if Message::parse(message.clone())?.kind() == Kind::Result {
            let answer: ToolAnswer =
                serde_json::from_slice(&message).map_err(|_| CallError::Unexpected("`tools` is no list"))?;
            return answer.result.ok_or(CallError::Unexpected("`tools/list` was refused"));
        }
    }
    Err(CallError::Closed)
}
