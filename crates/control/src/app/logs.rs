//! Logs are at the agent that ran the instance or the job; the control plane passes them on.
//!
//! An agent keeps the log of what is gone for a while, per server and revision. So the log of a failed deployment can be
//! read after its instance was removed, and that of a package that could not be resolved although there never was one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use toolyard_store::{InstanceRow, InstanceWish, OrgTx, ServerRow};
use toolyard_types::agent::{LogLine, LogStream};
use toolyard_types::state::RolloutState;
use toolyard_types::{
    Code, InstanceId, JobId, Name, OrganizationId, Problem, RevisionId, RolloutId, Timestamp, ToolboxId,
};
use tower::ServiceExt;

use super::servers::unknown;
use crate::events::Heard;
use crate::{Control, ControlError, Result};

/// The kind of a server that runs somewhere else.
const REMOTE: &str = "remote";
/// How long an agent may take to begin its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The largest problem that is read from an agent.
const LARGEST_PROBLEM: usize = 64 * 1024;
/// How many of a server's instances are looked at, the newest first.
const MOST_INSTANCES: u32 = 200;
/// How often at most a log that is followed is looked for in the next instance.
const NEXT_PAUSE: Duration = Duration::from_secs(1);
/// How often it is looked for when nothing is heard of the server.
const NEXT_EVERY: Duration = Duration::from_secs(30);
/// How often at most it is tried to open the log of an instance that has ended, when its agent does not say that it has
/// none.
const MOST_TRIES: u32 = 10;
/// How much of the next instance's log is given: all that its agent has.
const WHOLE: u32 = 10_000;

/// Which log of a server is meant.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted {
    /// That of this instance.
    pub(crate) instance: Option<InstanceId>,
    /// That of an instance of this revision.
    pub(crate) revision: Option<u32>,
    /// That of the instance that ended last, and not of the one that runs.
    pub(crate) previous: bool,
}

/// A log, and where it is.
#[derive(Clone, Debug)]
pub(crate) struct Logged {
    toolbox: ToolboxId,
    toolbox_name: String,
    /// Whether the toolbox was removed: nobody can ask it any more.
    is_removed: bool,
    of: Of,
    /// The number of the revision it is of.
    pub(crate) revision: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Instance(InstanceId),
    /// The job that was to find out what the revision's files are.
    Job(JobId),
}

impl Logged {
    /// Whose log it is; none when the revision never had an instance.
    pub(crate) fn instance(&self) -> Option<InstanceId> {
        match self.of {
            Of::Instance(id) => Some(id),
            Of::Job(_) => None,
        }
    }
}

/// Finds a log of a server.
///
/// # Errors
/// `not_found` when there is no such server, or nothing of it that may have a log; `conflict` when it is remote, so that its log
/// is somewhere else.
pub(crate) async fn find(
    control: &Control,
    organization: OrganizationId,
    name: &Name,
    wanted: Wanted,
) -> Result<Logged> {
    let tx = control.store().org_read(organization).await?;
    let server = tx.server(name).await?.ok_or_else(|| unknown(name))?;
    match look(&tx, &server, wanted).await? {
        Some(logged) => Ok(logged),
        None => Err(missing(&tx, &server, wanted).await?),
    }
}

/// Why a server has no log that is asked for.
async fn missing(tx: &OrgTx, server: &ServerRow, wanted: Wanted) -> Result<ControlError> {
    let name = &server.name;
    if server.kind == REMOTE {
        let detail =
            format!("server `{name}` is remote: it runs somewhere else, and its log is there; Toolyard has none of it");
        return Ok(ControlError::Conflict(detail));
    }
    let detail = match wanted {
        Wanted { instance: Some(id), .. } => {
            return Ok(ControlError::NotFound(format!("an instance `{id}` of server `{name}`")));
        }
        Wanted { revision: Some(number), .. } => match tx.revision_numbered(server.id, number).await? {
            Some(_) => format!("no instance of revision {number} of server `{name}` is known, so it has no log"),
            None => return Ok(ControlError::NotFound(format!("revision {number} of server `{name}`"))),
        },
        Wanted { previous: true, .. } => {
            format!("no instance of server `{name}` has ended lately, so there is no log of one before")
        }
        _ => format!("nothing of server `{name}` has run yet, so it has no log"),
    };
    Ok(ControlError::problem(Code::NotFound, detail))
}

async fn look(tx: &OrgTx, server: &ServerRow, wanted: Wanted) -> Result<Option<Logged>> {
    let instances = tx.instances_of_server(server.id, MOST_INSTANCES).await?;
    let revisions: BTreeSet<_> = instances.iter().map(|instance| instance.revision).collect();
    let revisions: Vec<_> = revisions.into_iter().collect();
    let numbers: BTreeMap<_, _> = tx.revision_numbers(&revisions).await?.into_iter().collect();
    let found = match unplaced(tx, server, wanted, &instances).await? {
        Some((job, toolbox, revision)) => Some((Of::Job(job), toolbox, revision)),
        None => choose(&instances, server.serving_rollout, wanted, &numbers, &BTreeSet::new())
            .map(|it| (Of::Instance(it.id), it.toolbox, numbers.get(&it.revision).copied().unwrap_or_default())),
    };
    let Some((of, toolbox, revision)) = found else { return Ok(None) };
    let (toolbox_name, is_removed) = whereabouts(tx, toolbox).await?;
    Ok(Some(Logged { toolbox, toolbox_name, is_removed, of, revision }))
}

/// The name of a toolbox, and whether it was removed.
async fn whereabouts(tx: &OrgTx, id: ToolboxId) -> Result<(String, bool)> {
    if let Some(row) = tx.toolbox_by_id(id).await? {
        return Ok((row.name.to_string(), false));
    }
    let name = tx.removed_toolboxes([id]).await?.pop().and_then(|removed| removed.name);
    Ok((name.map(|name| name.to_string()).unwrap_or_default(), true))
}

/// The instance whose log people mean: of those that are asked for the newest that lives, rather one that serves, else
/// the newest.
fn choose<'a>(
    instances: &'a [InstanceRow],
    serving: Option<RolloutId>,
    wanted: Wanted,
    numbers: &BTreeMap<RevisionId, u32>,
    seen: &BTreeSet<InstanceId>,
) -> Option<&'a InstanceRow> {
    let asked = |it: &&InstanceRow| {
        !seen.contains(&it.id)
            && wanted.instance.is_none_or(|id| it.id == id)
            && wanted.revision.is_none_or(|number| numbers.get(&it.revision) == Some(&number))
    };
    let asked: Vec<_> = instances.iter().filter(asked).collect();
    let lives = |it: &InstanceRow| it.ended_at.is_none();
    let now = asked.iter().max_by_key(|it| (lives(it), lives(it) && Some(it.rollout) == serving, it.id)).copied()?;
    if !wanted.previous || wanted.instance.is_some() {
        return Some(now);
    }
    // What is being stopped ends after all that ended already.
    let ends = |it: &InstanceRow| !lives(it) || matches!(it.desired, InstanceWish::Retire | InstanceWish::Stop);
    let before = asked.into_iter().filter(|it| ends(it) && it.id != now.id);
    let before = before.max_by_key(|it| (lives(it), it.ended_at, it.id));
    // The only one that there was, as of a first deployment that failed, is what ended last.
    before.or(Some(now).filter(|it| !lives(it)))
}

/// The job of a revision that never got as far as an instance, when that revision is meant.
async fn unplaced(
    tx: &OrgTx,
    server: &ServerRow,
    wanted: Wanted,
    instances: &[InstanceRow],
) -> Result<Option<(JobId, ToolboxId, u32)>> {
    let revision = match (wanted.instance, wanted.revision) {
        (Some(_), _) => return Ok(None),
        (None, Some(number)) => tx.revision_numbered(server.id, number).await?,
        // What ended last is the change that failed; without one, what there is.
        (None, None) if wanted.previous || instances.is_empty() => match server.rollout {
            Some(id) => match tx.rollout(id).await?.filter(|it| it.state != RolloutState::Done) {
                Some(rollout) => tx.revision(rollout.to_revision).await?,
                None => None,
            },
            None => None,
        },
        (None, None) => None,
    };
    let Some(revision) = revision else { return Ok(None) };
    if instances.iter().any(|instance| instance.revision == revision.id) {
        return Ok(None);
    }
    let job = tx.jobs_of(revision.id).await?.into_iter().next();
    Ok(job.map(|job| (job.id, job.toolbox, revision.number)))
}

/// Opens a log at its agent; the body goes on as long as the agent writes.
///
/// # Errors
/// `not_found` when the agent does not have it any more, `conflict` when its toolbox was removed, `server_not_ready` while
/// the agent is not connected, `upstream_failed` when it does not answer.
pub(crate) async fn open(control: &Control, logged: &Logged, tail: u32, follow: bool) -> Result<Body> {
    let toolbox = &logged.toolbox_name;
    if logged.is_removed {
        let detail = match toolbox.as_str() {
            "" => "its log stayed on a toolbox that was removed".to_owned(),
            toolbox => format!("its log stayed on toolbox `{toolbox}`, which was removed"),
        };
        return Err(ControlError::Conflict(detail));
    }
    let channel = control.bulk_channel(logged.toolbox).ok_or_else(|| {
        let detail = format!("the agent of toolbox `{toolbox}`, which has the log, is not connected now");
        ControlError::problem(Code::ServerNotReady, detail)
    })?;
    let path = match logged.of {
        Of::Instance(id) => format!("/v1/instances/{id}/logs?tail={tail}&follow={follow}"),
        Of::Job(id) => format!("/v1/jobs/{id}/logs?tail={tail}"),
    };
    let request = Request::get(path).body(Body::empty()).map_err(ControlError::internal("asking for a log"))?;
    let failed = |detail: &str| ControlError::problem(Code::UpstreamFailed, detail);
    let response = match tokio::time::timeout(PATIENCE, channel.oneshot(request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "an agent could not be asked for a log");
            return Err(failed("the toolbox's agent cannot be reached"));
        }
        // Not `upstream_timeout`: that is a server's, and it advises to let its calls take longer.
        Err(_) => return Err(failed("the toolbox's agent did not answer in time")),
    };
    if response.status().is_success() {
        return Ok(response.into_body());
    }
    if response.status() == StatusCode::NOT_FOUND {
        let of = format!("the log of revision {} on toolbox `{}`", logged.revision, logged.toolbox_name);
        return Err(ControlError::NotFound(of));
    }
    let body = Limited::new(response.into_body(), LARGEST_PROBLEM).collect().await.ok();
    let problem = body.and_then(|body| serde_json::from_slice::<Problem>(&body.to_bytes()).ok());
    Err(failed(&problem.map_or_else(|| "the toolbox's agent has no log".to_owned(), |problem| problem.detail)))
}

/// A log that is followed, and the next instance's when that one is gone, until the server is.
pub(crate) fn on_and_on(
    control: Control,
    organization: OrganizationId,
    name: Name,
    first: Logged,
    body: Body,
) -> impl Stream<Item = Result<Bytes, axum::Error>> {
    // Heard from before its first instance is read: what happens to the server meanwhile waits here.
    let (_, mut heard) = control.follow_events(organization);
    async_stream::stream! {
        let mut last = first.instance();
        let mut seen: BTreeSet<InstanceId> = last.into_iter().collect();
        let mut body = Some(body);
        // Whether there is, or may be, a next one to look for at once.
        let mut waits = false;
        // How often the log of the next one could not be opened since it has ended.
        let mut tries = 0;
        loop {
            let mut broke = false;
            if let Some(body) = body.take() {
                let mut pieces = body.into_data_stream();
                while let Some(piece) = pieces.next().await {
                    broke = piece.is_err();
                    yield piece;
                }
            }
            if broke {
                return;
            }
            tokio::time::sleep(NEXT_PAUSE).await;
            if !std::mem::take(&mut waits) {
                let _ = tokio::time::timeout(NEXT_EVERY, news_of(&name, &mut heard)).await;
            }
            let next = match next_of(&control, organization, &name, last, &seen).await {
                Ok(Some(next)) => next,
                Ok(None) => continue,
                // The server is gone.
                Err(ControlError::NotFound(_)) => return,
                // Nobody can say now which is next.
                Err(_) => {
                    waits = true;
                    continue;
                }
            };
            let revision = next.logged.revision;
            let opened = open(&control, &next.logged, WHOLE, next.lives).await;
            // One that came and went is followed by another, of which nothing more may be heard.
            waits = !next.lives || opened.is_err();
            if let Err(error) = &opened {
                tries += u32::from(!next.lives);
                if !is_left_out(error, next.lives, tries) {
                    continue;
                }
            }
            tries = 0;
            let opened = opened.ok();
            last = next.logged.instance();
            seen.extend(last);
            let line = between(control.clock().now(), last, revision, opened.is_some());
            if let Ok(mut line) = serde_json::to_vec(&line) {
                line.push(b'\n');
                yield Ok(line.into());
            }
            body = opened;
        }
    }
}

/// The line before the log of the `next` instance.
fn between(at: Timestamp, next: Option<InstanceId>, revision: u32, is_open: bool) -> LogLine {
    let id = next.map_or_else(String::new, |id| format!(" {id}"));
    let text = match is_open {
        true => format!("-- goes on with the next instance,{id} of revision {revision}"),
        false => format!("-- an instance,{id} of revision {revision}, came and went; its log cannot be read"),
    };
    LogLine { at, stream: LogStream::Toolyard, text, instance: next }
}

/// Ready when something was heard of a server, or may have been.
async fn news_of(name: &Name, heard: &mut Receiver<Arc<Heard>>) {
    let subject = format!("server/{name}");
    loop {
        match heard.recv().await {
            Ok(event) if event.subject != subject => {}
            Ok(_) | Err(RecvError::Lagged(_)) => break,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
    // One look is for all that was heard so far.
    while heard.try_recv().is_ok() {}
}

/// Whether a followed log goes on without an instance whose log could not be opened. One that lives is waited for; so is,
/// for a while, an agent that cannot be asked now.
fn is_left_out(error: &ControlError, lives: bool, tries: u32) -> bool {
    let for_good = matches!(error, ControlError::NotFound(_) | ControlError::Conflict(_));
    !lives && (for_good || tries >= MOST_TRIES)
}

/// What a followed log goes on with.
struct Next {
    logged: Logged,
    /// Whether it goes on itself.
    lives: bool,
}

/// The instance that a followed log goes on with, once there is one.
async fn next_of(
    control: &Control,
    organization: OrganizationId,
    name: &Name,
    last: Option<InstanceId>,
    seen: &BTreeSet<InstanceId>,
) -> Result<Option<Next>> {
    let _turn = control.turn_to_catch_up().await;
    let tx = control.store().org_read(organization).await?;
    let server = tx.server(name).await?.ok_or_else(|| unknown(name))?;
    let instances = tx.instances_of_server(server.id, MOST_INSTANCES).await?;
    let Some(next) = choose_next(&instances, server.serving_rollout, last, seen) else { return Ok(None) };
    let numbers = tx.revision_numbers(&[next.revision]).await?;
    let revision = numbers.into_iter().next().map(|(_, number)| number).unwrap_or_default();
    let (toolbox_name, is_removed) = whereabouts(&tx, next.toolbox).await?;
    let logged = Logged { toolbox: next.toolbox, toolbox_name, is_removed, of: Of::Instance(next.id), revision };
    Ok(Some(Next { logged, lives: next.ended_at.is_none() }))
}

/// The first instance that was started after the `last` one and outlived it, also when it has ended by now; those beside it
/// had logs of their own all the time. Else the one that people mean, of those that live.
fn choose_next<'a>(
    instances: &'a [InstanceRow],
    serving: Option<RolloutId>,
    last: Option<InstanceId>,
    seen: &BTreeSet<InstanceId>,
) -> Option<&'a InstanceRow> {
    let last = last.and_then(|last| instances.iter().find(|it| it.id == last));
    let outlived = |it: &InstanceRow, last: &InstanceRow| {
        it.ended_at.is_none() || last.ended_at.is_some_and(|end| it.ended_at >= Some(end))
    };
    let after = last.and_then(|last| {
        let later =
            instances.iter().filter(|it| !seen.contains(&it.id) && it.id > last.id && it.rollout != last.rollout);
        later.filter(|it| outlived(it, last)).min_by_key(|it| it.id)
    });
    let now = || choose(instances, serving, Wanted::default(), &BTreeMap::new(), seen);
    after.or_else(|| now().filter(|it| it.ended_at.is_none()))
}

#[cfg(test)]
mod tests {
    use toolyard_types::state::Phase;

    use super::*;
    use crate::reconcile::phase::tests::{instance, rollout, server};

    #[test]
    fn the_log_that_is_meant_is_that_of_what_serves_and_the_previous_one_that_of_what_ended_last() {
        let server = server();
        let (old, new) = (rollout(&server, RolloutState::Done), rollout(&server, RolloutState::RolledBack));
        let numbers = BTreeMap::from([(old.to_revision, 1)]);
        let serves = instance(&old, Phase::Ready);
        let mut failed = instance(&new, Phase::Failed);
        failed.revision = RevisionId::generate();
        failed.ended_at = Some(Timestamp::from_ms(9));
        let mut before = instance(&old, Phase::Stopped);
        before.ended_at = Some(Timestamp::from_ms(5));
        let all = [failed.clone(), serves.clone(), before.clone()];
        let numbers = BTreeMap::from([(failed.revision, 2), (serves.revision, 1)]).into_iter().chain(numbers).collect();
        let chosen = |wanted: Wanted, seen: &[InstanceId]| {
            choose(&all, Some(old.id), wanted, &numbers, &seen.iter().copied().collect()).map(|it| it.id)
        };
        assert_eq!(chosen(Wanted::default(), &[]), Some(serves.id));
        let previous = Wanted { previous: true, ..Wanted::default() };
        assert_eq!(chosen(previous, &[]), Some(failed.id));
        assert_eq!(chosen(Wanted { revision: Some(2), ..Wanted::default() }, &[]), Some(failed.id));
        assert_eq!(chosen(Wanted { revision: Some(1), ..previous }, &[]), Some(before.id));
        assert_eq!(chosen(Wanted { revision: Some(7), ..Wanted::default() }, &[]), None);
        assert_eq!(chosen(Wanted { instance: Some(before.id), ..Wanted::default() }, &[]), Some(before.id));
        assert_eq!(chosen(Wanted::default(), &[serves.id]), Some(failed.id.max(before.id)));
    }

    #[test]
    fn what_is_being_stopped_is_the_previous_one_of_what_serves() {
        let server = server();
        let (old, new) = (rollout(&server, RolloutState::Done), rollout(&server, RolloutState::Done));
        let mut ended = instance(&old, Phase::Stopped);
        ended.ended_at = Some(Timestamp::from_ms(9));
        let mut drains = instance(&old, Phase::Ready);
        drains.desired = InstanceWish::Retire;
        let serves = instance(&new, Phase::Ready);
        let all = [ended, drains.clone(), serves.clone()];
        let chosen = |previous: bool| {
            let wanted = Wanted { previous, ..Wanted::default() };
            choose(&all, Some(new.id), wanted, &BTreeMap::new(), &BTreeSet::new()).map(|it| it.id)
        };
        assert_eq!((chosen(false), chosen(true)), (Some(serves.id), Some(drains.id)));
    }

    #[test]
    fn the_previous_log_of_a_first_deployment_that_failed_is_that_of_its_only_instance() {
        let server = server();
        let first = rollout(&server, RolloutState::Failed);
        let mut only = instance(&first, Phase::Failed);
        let numbers = BTreeMap::from([(only.revision, 1)]);
        let previous = Wanted { previous: true, ..Wanted::default() };
        let chosen = |only: &InstanceRow, wanted: Wanted| {
            choose(std::slice::from_ref(only), None, wanted, &numbers, &BTreeSet::new()).map(|it| it.id)
        };
        assert_eq!(chosen(&only, previous), None, "it has not ended");
        only.ended_at = Some(Timestamp::from_ms(9));
        assert_eq!(chosen(&only, previous), Some(only.id));
        assert_eq!(chosen(&only, Wanted { revision: Some(1), ..previous }), Some(only.id));
        assert_eq!(chosen(&only, Wanted::default()), Some(only.id));
    }

    #[test]
    fn the_line_between_two_logs_names_the_instance_that_comes_next() {
        let id = InstanceId::generate();
        let line = between(Timestamp::from_ms(1), Some(id), 7, true);
        assert_eq!(line.text, format!("-- goes on with the next instance, {id} of revision 7"));
        assert_eq!((line.stream, line.instance), (LogStream::Toolyard, Some(id)));
        assert_eq!(between(Timestamp::from_ms(1), Some(id), 7, false).instance, Some(id), "also one without a log");
    }

    #[test]
    fn an_instance_is_left_out_of_a_followed_log_when_its_agent_has_no_log_of_it_or_cannot_be_asked_for_long() {
        let none = ControlError::NotFound("the log".into());
        let away = ControlError::problem(Code::ServerNotReady, "not connected now");
        let removed = ControlError::Conflict("its log stayed on a toolbox that was removed".into());
        assert!(is_left_out(&none, false, 1) && is_left_out(&removed, false, 1));
        assert!(!is_left_out(&none, true, 0), "an agent that has not begun with it yet");
        assert!(!is_left_out(&away, false, 1) && !is_left_out(&away, false, MOST_TRIES - 1));
        assert!(is_left_out(&away, false, MOST_TRIES));
        assert!(!is_left_out(&away, true, 0));
    }

    #[test]
    fn a_followed_log_leaves_out_no_instance_that_came_and_went_and_takes_up_none_that_was_there_beside_it() {
        let server = server();
        let rollouts: Vec<_> = (0..4).map(|_| rollout(&server, RolloutState::Done)).collect();
        let of = |rollout: usize, ended: Option<i64>| {
            let mut instance = instance(&rollouts[rollout], Phase::Ready);
            // In the order in which they are made here.
            instance.id = InstanceId::generate();
            instance.ended_at = ended.map(Timestamp::from_ms);
            instance
        };
        let next = |all: &[InstanceRow], serving: usize, followed: &[InstanceId]| {
            let seen = followed.iter().copied().collect();
            choose_next(all, Some(rollouts[serving].id), followed.last().copied(), &seen).map(|it| it.id)
        };
        // Two restarts, one after the other; a deployment had failed while the first one served.
        let (first, failed) = (of(0, Some(10)), of(1, Some(5)));
        let (second, third) = (of(2, Some(12)), of(3, None));
        let all = [first.clone(), failed.clone(), second.clone(), third.clone()];
        assert_eq!(next(&all, 3, &[first.id]), Some(second.id), "it is gone, and was there");
        assert_eq!(next(&all, 3, &[first.id, second.id]), Some(third.id));
        assert_eq!(next(&all, 3, &[first.id, second.id, third.id]), None);
        // Seen before its end was told: the next one is there already.
        let ending = [InstanceRow { ended_at: None, ..first.clone() }, third.clone()];
        assert_eq!(next(&ending, 3, &[first.id]), Some(third.id));
        // Replicas of one rollout: when one goes the log goes on with the next rollout, and else with one that lives.
        let (one, two, three) = (of(0, Some(20)), of(0, Some(21)), of(0, None));
        assert_eq!(next(&[one.clone(), two.clone(), three.clone()], 0, &[one.id]), Some(three.id));
        let newer = of(1, None);
        assert_eq!(next(&[one.clone(), two, three, newer.clone()], 0, &[one.id]), Some(newer.id));
        // Of a job's log nobody knows what came before.
        assert_eq!(next(&[one.clone(), newer.clone()], 1, &[]), Some(newer.id));
        assert_eq!(next(&[one], 1, &[]), None);
    }
}
