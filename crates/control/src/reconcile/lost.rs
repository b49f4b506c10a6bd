//! *Lost*: a toolbox that has been unreachable for long is given up, so that *scale* places what ran there elsewhere.
//!
//! The silence counts from when this control plane could have heard: from its start, and anew after it was held up
//! itself, or the database was away: then no agent's word can be taken. When more than half of an organization's toolboxes fell silent together, the fault is more likely on this side of the
//! network: none of them is given up, and each says why.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use serde_json::json;
use toolyard_store::{EventKind, InstanceRow, InstanceWish, OrgTx, ToolboxRow, ToolboxSilence};
use toolyard_types::spec::Strategy;
use toolyard_types::state::{Phase, Reason, Status};
use toolyard_types::{Name, Timestamp};

use super::case::as_they_serve;
use super::{Pass, place};
use crate::app::system_line;
use crate::{Control, Result};

/// Two runs that found a database which takes writes and are further apart than this mean that nobody could be heard in
/// between: the control plane slept, or the database was away.
const LONGEST_GAP: Duration = Duration::from_secs(30);
/// Twice as long as from one run to the next, however soon toolboxes are given up.
const SHORTEST_GAP: Duration = Duration::from_secs(10);
/// How far apart toolboxes may fall silent and still do it for one reason.
const TOGETHER: Duration = Duration::from_secs(60);
/// The most servers that the audit log names.
const MOST_NAMED: usize = 100;
const HELD_BACK: &str = "its servers are not placed elsewhere: more than half of your toolboxes fell silent, which looks \
                         like a fault of the control plane's own network. Drain or remove it to move them";

pub(crate) async fn run(control: &Control) -> Result<Pass> {
    let after = control.options().toolbox_replace_after;
    let mut pass = Pass::default();
    if after.is_zero() {
        return Ok(pass);
    }
    let all = control.store().system_read("looking for toolboxes that are gone").await?.toolbox_silences().await?;
    let now = control.clock().now();
    if control.writes_work() {
        control.fleet().note_awake(now, longest_gap(after));
    }
    let awake = control.fleet().awake_for(now, longest_gap(after));
    metrics::gauge!("toolyard_toolboxes_lost").set(number(all.iter().filter(|it| it.is_lost).count()));
    let due = due(&all, now, awake, after);
    for silence in due {
        let verdict = if together(&all, silence) { Verdict::HoldBack } else { Verdict::GiveUp };
        match judge(control, silence, verdict, now, after).await {
            Ok(changed) => {
                pass.changed += usize::from(changed);
                // Much to tell takes long, and the database takes it all the while.
                if changed {
                    control.fleet().note_awake(control.clock().now(), longest_gap(after));
                }
            }
            Err(error) => pass.failed(&error),
        }
    }
    Ok(pass)
}

/// The longest time without a word from the database that still counts as silence of the toolboxes: a part of what they
/// are given, or an outage alone would use that up.
fn longest_gap(after: Duration) -> Duration {
    (after / 2).clamp(SHORTEST_GAP, LONGEST_GAP)
}

/// Counts an instance as ended with its toolbox, whose agent ends what is left of it when it is heard again. `then` says
/// what becomes of it.
pub(super) async fn give_up(
    tx: &mut OrgTx,
    instance: &InstanceRow,
    toolbox: &ToolboxRow,
    then: &str,
    now: Timestamp,
) -> Result<()> {
    let heard = toolbox.last_seen_at.unwrap_or_default();
    let message = format!("lost with its toolbox `{}`, which was last heard at {heard}; {then}", toolbox.name);
    let ended = InstanceRow {
        status: Status::new(Phase::Stopped, Reason::ToolboxUnreachable, message, now),
        desired: InstanceWish::Stop,
        ended_at: Some(now),
        ..instance.clone()
    };
    tx.update_instance(&ended).await?;
    tx.bump_generation(toolbox.id).await?;
    metrics::counter!("toolyard_instances_lost_total").increment(1);
    Ok(())
}

fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    GiveUp,
    HoldBack,
}

/// The toolboxes that were silent for long enough, all of it while somebody listened.
fn due(all: &[ToolboxSilence], now: Timestamp, awake: Duration, after: Duration) -> Vec<&ToolboxSilence> {
    let long = |it: &&ToolboxSilence| now.since(it.last_seen_at).min(awake) >= after;
    all.iter().filter(|it| it.is_silent && !it.is_lost).filter(long).collect()
}

/// Whether more than half of its organization's toolboxes that were there fell silent with this one. Those that were
/// silent before are another story, and so are those of others, who could hold back everybody's with a few of their own.
fn together(all: &[ToolboxSilence], one: &ToolboxSilence) -> bool {
    let there = all.iter().filter(|it| {
        it.organization == one.organization && !it.is_lost && one.last_seen_at.since(it.last_seen_at) <= TOGETHER
    });
    let with_it = |it: &&ToolboxSilence| it.is_silent && it.last_seen_at.since(one.last_seen_at) <= TOGETHER;
    there.clone().filter(with_it).count() * 2 > there.count()
}

async fn judge(
    control: &Control,
    silence: &ToolboxSilence,
    verdict: Verdict,
    now: Timestamp,
    after: Duration,
) -> Result<bool> {
    let heard = silence.last_seen_at;
    let (message, lost_at) = match verdict {
        Verdict::HoldBack => (format!("its agent was last heard at {heard}; {HELD_BACK}"), None),
        Verdict::GiveUp => {
            (format!("its agent was last heard at {heard}; what may run elsewhere is placed there"), Some(now))
        }
    };
    if verdict == Verdict::HoldBack && silence.message == message {
        return Ok(false);
    }
    // With many servers and toolboxes that takes long, and is only told: nobody waits with a write for it.
    let tx = control.store().org_read(silence.organization).await?;
    let Some(toolbox) = tx.toolbox_by_id(silence.id).await? else { return Ok(false) };
    let servers = movable(&tx, &toolbox, verdict).await?;
    drop(tx);
    let mut tx = control.store().org(silence.organization).await?;
    if !tx.set_toolbox_lost(toolbox.id, lost_at, &message, heard).await? {
        return Ok(false);
    }
    tell(&mut tx, &toolbox, verdict, &servers, heard, after).await?;
    tx.commit().await?;
    match verdict {
        Verdict::GiveUp => {
            metrics::counter!("toolyard_toolboxes_given_up_total").increment(1);
            let (name, servers) = (&toolbox.name, servers.len());
            tracing::warn!(toolbox.name = %name, servers, last_heard = %heard, "a toolbox was evicted; what may run elsewhere is placed there");
        }
        Verdict::HoldBack => {
            metrics::counter!("toolyard_toolboxes_held_back_total").increment(1);
            tracing::error!(toolbox.name = %toolbox.name, last_heard = %heard, "{HELD_BACK}");
        }
    }
    Ok(true)
}

/// The servers that serve from a toolbox and may run elsewhere, by name; when it is given up those that *scale* has a
/// place for now.
async fn movable(tx: &OrgTx, toolbox: &ToolboxRow, verdict: Verdict) -> Result<Vec<Name>> {
    let mut instances = tx.instances_on(toolbox.id).await?;
    instances.retain(InstanceRow::should_serve);
    let revisions: BTreeSet<_> = instances.iter().map(|instance| instance.revision).collect();
    let revisions = tx.revision_outlines(&revisions.into_iter().collect::<Vec<_>>()).await?;
    let revisions: HashMap<_, _> = revisions.into_iter().map(|revision| (revision.id, revision)).collect();
    let servers: BTreeSet<_> = instances.iter().map(|instance| instance.server).collect();
    let servers = tx.servers_by_id(&servers.into_iter().collect::<Vec<_>>()).await?;
    let servers = as_they_serve(tx, servers).await?;
    let toolboxes = tx.toolboxes().await?;
    let mut names: Vec<Name> = servers
        .into_iter()
        .filter(|server| server.enabled && !server.deleted && server.toolbox.is_none())
        .filter(|server| {
            let mut serving = instances.iter().filter(|it| Some(it.rollout) == server.serving_rollout);
            serving.any(|instance| {
                revisions.get(&instance.revision).is_some_and(|revision| {
                    revision.spec.strategy != Strategy::Recreate
                        && (verdict == Verdict::HoldBack || place::has_place(server, revision, &toolboxes))
                })
            })
        })
        .map(|server| server.name)
        .collect();
    names.sort();
    Ok(names)
}

/// Tells what becomes of a toolbox; the audit log only when something becomes of its servers.
async fn tell(
    tx: &mut OrgTx,
    toolbox: &ToolboxRow,
    verdict: Verdict,
    servers: &[Name],
    heard: Timestamp,
    after: Duration,
) -> Result<()> {
    let lost = verdict == Verdict::GiveUp;
    let data = json!({ "id": toolbox.id, "state": toolbox.status.phase, "lost": lost, "last_heard_at": heard });
    tx.event(EventKind::ToolboxChanged, format!("toolbox/{}", toolbox.name), data);
    if servers.is_empty() {
        return Ok(());
    }
    let named = servers.get(..MOST_NAMED).unwrap_or(servers);
    let mut detail = json!({ "last_heard_at": heard, "servers": named, "count": servers.len() });
    if lost {
        detail["after_seconds"] = json!(after.as_secs());
    } else {
        detail["why"] = json!(HELD_BACK);
    }
    let line = system_line("lost", "toolbox.replace", format!("toolbox/{}", toolbox.name), lost, detail);
    Ok(tx.audit(&line).await?)
}

#[cfg(test)]
mod tests {
    use toolyard_types::{OrganizationId, ToolboxId};

    use super::*;

    fn seen(seconds: i64, is_silent: bool, is_lost: bool) -> ToolboxSilence {
        ToolboxSilence {
            organization: OrganizationId::generate(),
            id: ToolboxId::generate(),
            is_silent,
            is_lost,
            last_seen_at: Timestamp::from_ms(seconds * 1000),
            message: String::new(),
        }
    }

    #[test]
    fn a_toolbox_is_due_after_a_silence_that_somebody_listened_to() {
        let all = [seen(0, true, false), seen(990, false, false), seen(800, true, false), seen(0, true, true)];
        let (now, after) = (Timestamp::from_ms(1_000_000), Duration::from_secs(300));
        assert_eq!(due(&all, now, Duration::from_secs(1000), after), [&all[0]]);
        assert!(due(&all, now, Duration::from_secs(299), after).is_empty(), "the control plane began a moment ago");
    }

    #[test]
    fn more_than_half_of_ones_own_at_once_is_our_own_fault() {
        let organization = OrganizationId::generate();
        let of = |seconds, is_silent, is_lost| ToolboxSilence { organization, ..seen(seconds, is_silent, is_lost) };
        let (up, down, lost) = (of(990, false, false), of(100, true, false), of(100, true, true));
        assert!(together(&[down.clone(), of(130, true, false), up.clone()], &down));
        assert!(!together(&[down.clone(), up.clone()], &down), "half is not more than half");
        assert!(
            !together(&[lost.clone(), lost, down.clone(), up.clone()], &down),
            "those given up before do not count"
        );
        assert!(
            !together(&[of(0, true, false), of(10, true, false), down.clone(), up.clone()], &down),
            "nor others' faults"
        );
        let strangers = [seen(100, true, false), seen(100, true, false), seen(100, true, false)];
        let all: Vec<_> = strangers.into_iter().chain([down.clone(), up]).collect();
        assert!(!together(&all, &down), "nor toolboxes of others");
    }
}
