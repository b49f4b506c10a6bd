//! *Remote*: probes remote MCP servers, which no agent watches: at once when a rollout waits for it, each minute
//! while one serves. The result is a row, so every replica sees the same.
//!
//! The loop only starts probes, which go on beside each other and beside it. What answers never waits for what hangs: a
//! probe holds a quick place for at most [`QUICK_TIME`] and goes on without it, and a revision whose last probe took longer
//! has one of the slow places the next time. A place that gets free goes to whoever has the fewest of them: of every
//! organization what rollouts wait for is one, and what serves is another. No organization has more than half of a lane,
//! and no server is asked again by this process right after it was, whatever the clocks say.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::Instant;
use toolyard_link::{Budget, Payer};
use toolyard_mcp::http::Upstream;
use toolyard_mcp::{CallError, Handshake, HandshakeError, Held, Kind, Message, Room, envelope, era};
use toolyard_store::{DueProbe, EventKind, ProbePauses, ProbeRow, RevisionRow, ServerRow};
use toolyard_types::agent::{Era, McpInfo};
use toolyard_types::spec::{Remote, RemoteTransport, Runtime};
use toolyard_types::state::{Phase, Reason, RolloutState, Status};
use toolyard_types::{OrganizationId, Redaction, RevisionId, ServerId, Timestamp};
use tracing::Instrument;

use super::{AFTER_FAILURE, Pass};
use crate::fleet::locked;
use crate::limits::in_turn;
use crate::snapshot::Rendered;
use crate::{Control, ControlError, Result};

/// How long a handshake, and reading the tools after it, may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// How often a serving remote server is probed, and the pause between probes that a rollout waits for.
const PROBE_PAUSES: ProbePauses = ProbePauses { serving: Duration::from_secs(60), awaited: Duration::from_secs(3) };
/// How long a probe may hold a quick place; one that takes longer is slow.
const QUICK_TIME: Duration = Duration::from_secs(2);
/// How many hold a quick place at once...
const QUICK_PLACES: usize = 32;
/// ...and with those that held one and go on. So of many that are new and hang this many are asked within seconds.
const QUICK_PROBES: usize = 256;
/// How many of those may be of one organization: new ones that hang keep their places until they are given up.
const QUICK_SHARE: usize = QUICK_PROBES / 2;
/// How many that were slow the last time are probed at once.
const SLOW_PROBES: usize = 128;
/// How many of those may be of one organization.
const SLOW_SHARE: usize = SLOW_PROBES / 2;
/// How many are looked at for the places that are free.
const PROBES_LISTED: usize = 256;
/// How long after one looked for slow ones one looks again: quick places get free all the time, and each wakes the loop.
const SLOW_LOOK_PAUSE: Duration = Duration::from_millis(500);
/// How long a server that was probed is left alone by this process. When it was is written by clocks that may differ, and
/// replicas that disagree must not ask it without a pause.
const REPROBE_PAUSE: Duration = Duration::from_secs(1);
/// What all lists of tools that are being read may take, in bytes.
const TOOL_LISTS_BYTES: usize = 128 << 20;
/// How many pages of tools are read.
const TOOL_LIST_PAGES: usize = 20;
/// Said of a server whose list found no room.
const NO_ROOM: &str = "the remote server answered, but there is no memory here yet for the list of its tools; it is asked \
                       again soon";

pub(crate) async fn run(control: &Control) -> Result<Pass> {
    // The composition root gives it in a moment; until then nothing is known of any remote.
    if control.remote_client().is_none() {
        return Ok(Pass::default());
    }
    let mut pass = Pass::default();
    let probes = control.probes();
    let failed = std::mem::take(&mut *locked(&probes.failed));
    failed.iter().for_each(|error| pass.failed(error));
    start_due(control, Lane::Quick, &mut pass).await?;
    let until_slow = probes.until_slow();
    if until_slow.is_zero() {
        start_due(control, Lane::Slow, &mut pass).await?;
    } else {
        pass.again_in(until_slow);
    }
    Ok(pass)
}

/// Starts as many probes of those that are due as there are free places.
async fn start_due(control: &Control, lane: Lane, pass: &mut Pass) -> Result<()> {
    let probes = control.probes();
    // Before anything is read: what gets free from now on is told, unless nothing turns out to wait for it.
    probes.waits(lane).store(true, Ordering::SeqCst);
    // Before it is read what is due: what ends after this may still be read as due.
    let under_way = probes.under_way();
    let mut places = Places::of(lane, &under_way);
    if places.free == 0 {
        return Ok(());
    }
    // What is under way is due until it ends.
    let most = u32::try_from(under_way.len() + PROBES_LISTED).unwrap_or(u32::MAX);
    let tx = control.store().system_read("listing remote servers to probe").await?;
    let mut due = tx.probes_due(control.clock().now(), PROBE_PAUSES, lane == Lane::Slow, most).await?;
    drop(tx);
    let now = Instant::now();
    due.retain(|at| {
        let known = under_way.get(&at.revision);
        if let Some(UnderWay { stage: Stage::Rests(until), .. }) = known {
            pass.again_in(until.saturating_duration_since(now));
        }
        known.is_none()
    });
    let mut waits = false;
    for at in lane.in_turn(due, &under_way) {
        if !places.has_one_for(at.organization) {
            waits = true;
            continue;
        }
        match read(control, at).await {
            Ok(Some(due)) => {
                let Some(place) = Place::take(control, at, lane) else { continue };
                let probe = run_probe(control.clone(), place, due).instrument(tracing::Span::current());
                control.spawn("probe of a remote server", probe);
                places.give(at.organization);
                pass.changed += 1;
            }
            Ok(None) => {}
            Err(error) => {
                pass.failed(&error);
                probes.rest(at, AFTER_FAILURE);
            }
        }
    }
    if !waits {
        probes.waits(lane).store(false, Ordering::SeqCst);
    }
    Ok(())
}

/// The probes of remote servers that go on in this process.
#[derive(Default)]
pub(crate) struct Probes {
    under_way: Mutex<HashMap<RevisionId, UnderWay>>,
    /// Why probes could not be made, until the loop tells. Bounded: one of each that was under way.
    failed: Mutex<Vec<ControlError>>,
    /// Whether a probe waits for a place of the quick lane, and of the slow one, as far as is known.
    waits: [AtomicBool; 2],
    /// Told when one gets free that is waited for.
    freed: Notify,
    /// Not before then is it looked for slow ones.
    next_slow: Mutex<Option<Instant>>,
    memory: OnceLock<Budget>,
}

/// A probe that goes on.
#[derive(Clone, Copy)]
struct UnderWay {
    /// Whose it is, and whether a rollout waits for it.
    of: (OrganizationId, bool),
    stage: Stage,
}

/// What may answer soon, and what did not the last time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    Quick,
    Slow,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It holds a quick place.
    Quick,
    /// It held a quick place for as long as it may.
    WentOn,
    /// It holds a slow place.
    Slow,
    /// It has ended, or could not be made, and is not made again until then.
    Rests(Instant),
}

impl Stage {
    fn lane(self) -> Option<Lane> {
        match self {
            Self::Quick | Self::WentOn => Some(Lane::Quick),
            Self::Slow => Some(Lane::Slow),
            Self::Rests(_) => None,
        }
    }
}

impl Lane {
    /// How many places are free.
    fn free(self, under_way: &HashMap<RevisionId, UnderWay>) -> usize {
        let count = |stage: Stage| under_way.values().filter(|it| it.stage == stage).count();
        match self {
            Self::Quick => {
                let quick = count(Stage::Quick);
                QUICK_PLACES.saturating_sub(quick).min(QUICK_PROBES.saturating_sub(quick + count(Stage::WentOn)))
            }
            Self::Slow => SLOW_PROBES.saturating_sub(count(Stage::Slow)),
        }
    }

    /// How many places one organization may have.
    fn share(self) -> usize {
        match self {
            Self::Quick => QUICK_SHARE,
            Self::Slow => SLOW_SHARE,
        }
    }

    /// Those that have its places.
    fn holders(self, under_way: &HashMap<RevisionId, UnderWay>) -> impl Iterator<Item = (OrganizationId, bool)> {
        under_way.values().filter(move |it| it.stage.lane() == Some(self)).map(|it| it.of)
    }

    /// What is due in the order in which it gets places.
    fn in_turn(self, due: Vec<DueProbe>, under_way: &HashMap<RevisionId, UnderWay>) -> Vec<DueProbe> {
        in_turn(due, |at| (at.organization, at.awaited), self.holders(under_way))
    }
}

/// The places of a lane while they are given away.
struct Places {
    free: usize,
    /// How many one organization may have, and how many each has.
    share: usize,
    held: HashMap<OrganizationId, usize>,
}

impl Places {
    fn of(lane: Lane, under_way: &HashMap<RevisionId, UnderWay>) -> Self {
        let mut held: HashMap<OrganizationId, usize> = HashMap::new();
        for (organization, _) in lane.holders(under_way) {
            *held.entry(organization).or_default() += 1;
        }
        Self { free: lane.free(under_way), share: lane.share(), held }
    }

    fn has_one_for(&self, organization: OrganizationId) -> bool {
        self.free > 0 && self.held.get(&organization).is_none_or(|held| *held < self.share)
    }

    fn give(&mut self, organization: OrganizationId) {
        self.free = self.free.saturating_sub(1);
        *self.held.entry(organization).or_default() += 1;
    }
}

impl Probes {
    fn under_way(&self) -> HashMap<RevisionId, UnderWay> {
        let mut under_way = locked(&self.under_way);
        let now = Instant::now();
        under_way.retain(|_, it| !matches!(it.stage, Stage::Rests(until) if until <= now));
        under_way.clone()
    }

    fn waits(&self, lane: Lane) -> &AtomicBool {
        let [quick, slow] = &self.waits;
        match lane {
            Lane::Quick => quick,
            Lane::Slow => slow,
        }
    }

    /// A place of a lane got free.
    fn got_free(&self, lane: Lane) {
        if self.waits(lane).swap(false, Ordering::SeqCst) {
            self.freed.notify_one();
        }
    }

    /// Waits until a place gets free that a probe waits for.
    pub(crate) async fn freed(&self) {
        self.freed.notified().await;
    }

    /// How long until one may look for slow ones; zero is once, and the pause begins anew.
    fn until_slow(&self) -> Duration {
        let now = Instant::now();
        let mut next = locked(&self.next_slow);
        let left = next.map_or(Duration::ZERO, |next| next.saturating_duration_since(now));
        if left.is_zero() {
            *next = Some(now + SLOW_LOOK_PAUSE);
        }
        left
    }

    /// Leaves one alone for so long.
    fn rest(&self, at: DueProbe, pause: Duration) {
        let stage = Stage::Rests(Instant::now() + pause);
        locked(&self.under_way).insert(at.revision, UnderWay { of: (at.organization, at.awaited), stage });
    }

    /// Room for what a server lists, of which no organization takes all.
    fn room(&self, organization: OrganizationId, server: ServerId) -> Room {
        let budget = self.memory.get_or_init(|| Budget::of_servers(TOOL_LISTS_BYTES)).clone();
        let payer = Payer::known(organization, server);
        Room::new(Arc::new(move |_, bytes| Some(Box::new(budget.hold(payer, bytes).ok()?) as Held)))
    }
}

/// A probe's place; given back when dropped, and what was probed rests then.
struct Place {
    control: Control,
    at: DueProbe,
    lane: Lane,
    rest: Duration,
}

impl Place {
    /// A place for a probe, unless there is one of that revision already.
    fn take(control: &Control, at: DueProbe, lane: Lane) -> Option<Self> {
        let stage = match lane {
            Lane::Quick => Stage::Quick,
            Lane::Slow => Stage::Slow,
        };
        let mut under_way = locked(&control.probes().under_way);
        if under_way.contains_key(&at.revision) {
            return None;
        }
        under_way.insert(at.revision, UnderWay { of: (at.organization, at.awaited), stage });
        drop(under_way);
        Some(Self { control: control.clone(), at, lane, rest: REPROBE_PAUSE })
    }

    /// Goes on without a quick place.
    fn go_on(&self) {
        if let Some(it) = locked(&self.control.probes().under_way).get_mut(&self.at.revision)
            && it.stage == Stage::Quick
        {
            it.stage = Stage::WentOn;
        }
        self.control.probes().got_free(Lane::Quick);
    }

    /// The probe could not be made.
    fn failed(mut self, error: ControlError) {
        locked(&self.control.probes().failed).push(error);
        self.rest = AFTER_FAILURE;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let probes = self.control.probes();
        probes.rest(self.at, self.rest);
        probes.got_free(self.lane);
    }
}

/// A revision that is probed.
struct Probed {
    organization: OrganizationId,
    server: ServerRow,
    revision: RevisionRow,
    before: Option<ProbeRow>,
    serves: bool,
    /// When the rollout began that waits for it.
    began: Option<Timestamp>,
}

/// Reads what is probed; `None` when nobody needs it any more.
async fn read(control: &Control, at: DueProbe) -> Result<Option<Probed>> {
    let tx = control.store().org_read(at.organization).await?;
    let Some(server) = tx.server_by_id(at.server).await? else { return Ok(None) };
    let Some(revision) = tx.revision(at.revision).await? else { return Ok(None) };
    let rollout = match server.rollout {
        Some(id) => tx.rollout(id).await?,
        None => None,
    };
    let waits = rollout.filter(|rollout| {
        let goes_on = rollout.state == RolloutState::Progressing && rollout.reason != Reason::OutsideWindow;
        goes_on && rollout.to_revision == at.revision
    });
    let serves = server.serving_rollout.is_some() && server.serving_revision == Some(at.revision);
    if waits.is_none() && !serves {
        return Ok(None);
    }
    let before = tx.probes_of(&[server.id]).await?.into_iter().find(|probe| probe.revision == at.revision);
    let began = waits.map(|rollout| rollout.started_at);
    Ok(Some(Probed { organization: at.organization, server, revision, before, serves, began }))
}

/// One probe, to its end or until everything ends.
async fn run_probe(control: Control, place: Place, due: Probed) {
    let to_its_end = async {
        let mut probe = std::pin::pin!(control.in_time(probe(&control, &due)));
        match tokio::time::timeout(QUICK_TIME, probe.as_mut()).await {
            Ok(done) => done,
            Err(_) => {
                place.go_on();
                probe.await
            }
        }
    };
    let done = control.stopping().run_until_cancelled(to_its_end).await;
    if let Some(Err(error)) = done {
        place.failed(error);
    }
}

async fn probe(control: &Control, due: &Probed) -> Result<()> {
    let Runtime::Remote(remote) = &due.revision.spec.runtime else { return Ok(()) };
    let (outcome, slow) = ask(control, due, remote).await?;
    let now = control.clock().now();
    let known = || due.before.as_ref().and_then(|it| it.mcp.clone());
    let (phase, reason, message, mcp) = match outcome {
        Ok(mcp) => (Phase::Ready, Reason::Answered, String::new(), Some(mcp)),
        // That says nothing of the server: one that serves is as it was.
        Err((Reason::AwaitingProbe, _)) if due.serves => return Err(no_room()),
        Err((Reason::AwaitingProbe, message)) => (Phase::Starting, Reason::AwaitingProbe, message, known()),
        Err((reason, message)) => (Phase::Failed, reason, message, known()),
    };
    let failures = match phase {
        Phase::Ready => 0,
        Phase::Starting => failures_before(due),
        _ => failures_before(due).saturating_add(1),
    };
    let mut status = Status::new(phase, reason, message, now);
    let mut changed = true;
    if let Some(before) = &due.before {
        changed = before.status.differs_from(&status) || before.checked_at < due.revision.created_at;
        status = before.status.followed_by(status);
    }
    let (revision, server) = (due.revision.id, due.server.id);
    let row = ProbeRow { revision, server, status, checked_at: now, failures, slow, mcp };
    // Many may end at once.
    let _turn = control.fleet().turn().await;
    let mut tx = control.store().org(due.organization).await?;
    // It may have been removed while it was probed.
    if tx.lock_server(server).await?.is_none() || tx.revision_numbers(&[revision]).await?.is_empty() {
        return Ok(());
    }
    tx.put_probe(&row).await?;
    // A rollout waits for the probe, whatever came of it.
    if changed || failures > 0 || due.began.is_some() {
        let data = json!({ "id": server, "phase": row.status.phase, "reason": row.status.reason });
        tx.event(EventKind::ServerChanged, format!("server/{}", due.server.name), data);
    }
    tx.commit().await?;
    if phase == Phase::Starting { Err(no_room()) } else { Ok(()) }
}

/// What the loop tells of a probe whose answer found no room.
fn no_room() -> ControlError {
    ControlError::internal("probing a remote server")(NO_ROOM)
}

/// How many probes in a row failed before this one; those before a rollout do not count against it.
fn failures_before(due: &Probed) -> u32 {
    let before = due.before.as_ref().filter(|probe| due.began.is_none_or(|began| probe.checked_at >= began));
    before.map_or(0, |probe| probe.failures)
}

/// What a remote server said of itself, or why nothing came of it; [`Reason::AwaitingProbe`] when that is ours.
type Introduced = Result<McpInfo, (Reason, String)>;

/// Asks a remote server to introduce itself, and tells whether that took long.
async fn ask(control: &Control, due: &Probed, remote: &Remote) -> Result<(Introduced, bool)> {
    let refused = |reason: Reason, message: &str| Ok((Err((reason, message.to_owned())), false));
    let Some(client) = control.remote_client() else {
        let message = "this control plane was started without a client for remote servers";
        return refused(Reason::EngineUnavailable, message);
    };
    if remote.transport == RemoteTransport::Sse {
        let message = "the HTTP+SSE transport of 2024-11-05 is not spoken to remote servers; use Streamable HTTP";
        return refused(Reason::UnsupportedByEngine, message);
    }
    let turn = control.fleet().turn().await;
    let rendered = match crate::snapshot::render(control, due.organization, remote).await? {
        Ok(rendered) => rendered,
        Err(problem) => return Ok((Err(problem), false)),
    };
    drop(turn);
    control.remember_remote(due.server.id, due.revision.id, &rendered);
    let Rendered { url, headers, secrets } = rendered;
    let Ok(uri) = url.expose().parse::<http::Uri>() else {
        return refused(Reason::ConfigInvalid, "its URL cannot be used");
    };
    let mut map = HeaderMap::new();
    for (name, value) in &headers {
        let (Ok(name), Ok(mut value)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value.expose()))
        else {
            return refused(Reason::ConfigInvalid, &format!("header `{name}` has a value that cannot be sent"));
        };
        value.set_sensitive(true);
        map.insert(name, value);
    }
    let host = uri.authority().map_or_else(String::new, |authority| {
        let port = authority.port().map_or_else(String::new, |port| format!(":{port}"));
        format!("{}{port}", authority.host())
    });
    let known = due.before.as_ref().and_then(|probe| probe.mcp.as_ref()).map(|mcp| mcp.era);
    let room = control.probes().room(due.organization, due.server.id);
    let upstream = Upstream::with_room(client, uri, map, room).knowing(known);
    let began = Instant::now();
    let introduced = introduce(&upstream).await;
    // A session a minute would pile up at the server.
    upstream.close().await;
    let slow = began.elapsed() >= QUICK_TIME;
    // Whoever is shown a secret may say it again, in an error or as its own name.
    let redaction = Redaction::of(&secrets);
    // Its server may say anything, and Postgres takes no NUL.
    let clean = |text: String| redaction.clean(&text).replace('\0', "\u{fffd}");
    let introduced = match introduced {
        Ok(mcp) => Ok(mcp.redacted(&redaction)),
        Err((Reason::RemoteUnreachable, message)) => {
            Err((Reason::RemoteUnreachable, clean(format!("`{host}`: {message}"))))
        }
        Err((reason, message)) => Err((reason, clean(message))),
    };
    Ok((introduced, slow))
}

async fn introduce(upstream: &Upstream) -> Introduced {
    let handshake = match upstream.handshake(ANSWER_TIMEOUT).await {
        Ok(handshake) => handshake,
        Err(error) => return Err(failure(&error)),
    };
    let failed = |what: String| Err((Reason::ProbeFailed, what));
    let Tools { count, names } = match tokio::time::timeout(ANSWER_TIMEOUT, list_tools(upstream, &handshake)).await {
        Ok(Ok(tools)) => tools,
        Ok(Err(CallError::NoRoom)) => return Err((Reason::AwaitingProbe, NO_ROOM.to_owned())),
        // A list that was read changed nothing, so there is no doubt to tell of.
        Ok(Err(error @ (CallError::Status(_) | CallError::Dropped))) => {
            return failed(format!("listing its tools: {}", HandshakeError::from(error)));
        }
        Ok(Err(error)) => return failed(format!("listing its tools: {error}")),
        Err(_) => return failed(format!("it did not list its tools within {ANSWER_TIMEOUT:?}")),
    };
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
        HandshakeError::NoRoom => return (Reason::AwaitingProbe, NO_ROOM.to_owned()),
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

/// The tools that it lists, on at most [`TOOL_LIST_PAGES`] pages.
async fn list_tools(upstream: &Upstream, handshake: &Handshake) -> Result<Tools, CallError> {
    let mut tools = Tools::default();
    if !handshake.has_capability("tools") {
        return Ok(tools);
    }
    let mut cursor = None;
    for _ in 0..TOOL_LIST_PAGES {
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
    Err(CallError::Ended)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn due(organization: OrganizationId, awaited: bool) -> DueProbe {
        DueProbe { organization, server: ServerId::generate(), revision: RevisionId::generate(), awaited }
    }

    fn under_way(of: OrganizationId, awaited: bool, stage: Stage, many: usize) -> HashMap<RevisionId, UnderWay> {
        (0..many).map(|_| (RevisionId::generate(), UnderWay { of: (of, awaited), stage })).collect()
    }

    #[test]
    fn what_hangs_takes_quick_places_for_a_moment_and_slow_places_of_nobody_else() {
        let organization = OrganizationId::generate();
        let mut all = under_way(organization, true, Stage::Quick, QUICK_PLACES);
        assert_eq!((Lane::Quick.free(&all), Lane::Slow.free(&all)), (0, SLOW_PROBES));
        for it in all.values_mut() {
            it.stage = Stage::WentOn;
        }
        assert_eq!((Lane::Quick.free(&all), Lane::Slow.free(&all)), (QUICK_PLACES, SLOW_PROBES));
        all.extend(under_way(organization, true, Stage::Slow, SLOW_PROBES));
        assert_eq!((Lane::Quick.free(&all), Lane::Slow.free(&all)), (QUICK_PLACES, 0));
        all.extend(under_way(organization, true, Stage::WentOn, QUICK_PROBES - QUICK_PLACES - 1));
        assert_eq!(Lane::Quick.free(&all), 1);
    }

    #[test]
    fn whoever_has_the_fewest_places_gets_the_next() {
        let (many, few) = (OrganizationId::generate(), OrganizationId::generate());
        let mut all = under_way(many, true, Stage::WentOn, 30);
        all.extend(under_way(few, true, Stage::Quick, 1));
        all.extend(under_way(few, true, Stage::Slow, 10));
        let hanging: Vec<_> = (0..3).map(|_| due(many, true)).collect();
        let (new, healthy) = (due(few, true), due(many, false));
        let listed = [hanging.clone(), vec![new, healthy]].concat();
        let expected = [vec![healthy, new], hanging].concat();
        assert_eq!(Lane::Quick.in_turn(listed, &all), expected);
    }

    #[test]
    fn an_organization_whose_new_remotes_all_hang_leaves_half_of_the_places_to_others() {
        let (hangs, other) = (OrganizationId::generate(), OrganizationId::generate());
        for (lane, stage) in [(Lane::Quick, Stage::WentOn), (Lane::Slow, Stage::Slow)] {
            let mut all = under_way(hangs, true, stage, lane.share() - 2);
            all.extend(under_way(hangs, false, stage, 1));
            let mut places = Places::of(lane, &all);
            assert!(places.has_one_for(hangs));
            places.give(hangs);
            assert!(!places.has_one_for(hangs) && places.has_one_for(other));
            for _ in 0..places.free {
                places.give(other);
            }
            assert!(!places.has_one_for(OrganizationId::generate()), "none is left");
        }
    }

    #[test]
    fn a_place_that_gets_free_wakes_the_loop_only_when_a_probe_waits_for_one_of_that_lane() {
        let probes = Probes::default();
        let is_woken = || probes.freed().now_or_never().is_some();
        probes.got_free(Lane::Quick);
        assert!(!is_woken());
        probes.waits(Lane::Quick).store(true, Ordering::SeqCst);
        probes.got_free(Lane::Slow);
        assert!(!is_woken());
        probes.got_free(Lane::Quick);
        probes.got_free(Lane::Quick);
        assert!(is_woken());
        assert!(!is_woken(), "once");
    }

    #[tokio::test(start_paused = true)]
    async fn slow_ones_are_not_looked_for_each_time_a_quick_place_gets_free() {
        let probes = Probes::default();
        assert!(probes.until_slow().is_zero());
        tokio::time::advance(SLOW_LOOK_PAUSE / 5).await;
        assert_eq!(probes.until_slow(), SLOW_LOOK_PAUSE * 4 / 5);
        tokio::time::advance(SLOW_LOOK_PAUSE).await;
        assert!(probes.until_slow().is_zero());
        assert!(!probes.until_slow().is_zero());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_probed_is_left_alone_for_a_moment_and_holds_no_place() {
        let probes = Probes::default();
        let at = due(OrganizationId::generate(), true);
        probes.rest(at, REPROBE_PAUSE);
        let all = probes.under_way();
        assert!(all.contains_key(&at.revision));
        assert_eq!(Lane::Quick.free(&all), QUICK_PLACES);
        tokio::time::advance(REPROBE_PAUSE).await;
        assert!(probes.under_way().is_empty());
    }

    #[test]
    fn no_room_for_an_answer_is_not_the_servers_failure() {
        assert_eq!(failure(&HandshakeError::from(CallError::NoRoom)).0, Reason::AwaitingProbe);
        assert_eq!(failure(&HandshakeError::Status(401)).0, Reason::HandshakeFailed);
    }
}
