//! *Scale*: keeps what serves at the number of instances that is wanted, and off toolboxes that are drained or lost.
//!
//! A lost instance is placed again, a missing one added, one too many ended. An instance on a toolbox that is drained
//! is moved when its server may run elsewhere: a new one first, which passes the same gate as in a rollout (it takes
//! calls once it answered), then the old one ends. With `recreate` two must not run at once, so the old one goes first.
//! What ran on a toolbox that is lost counts as ended once others answer in its place (with `recreate`, once there is
//! another place): nobody can observe its end.
//! While a rollout of another revision is under way only a server that has nothing left to serve with is helped; unless the
//! rollout stands still, for its window or as a canary: that may last, so what serves is kept as ever, and so is the canary.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use toolyard_store::{InstanceRow, InstanceWish, Loop, OrgTx, RevisionRow, RolloutRow, ServerRef, ServerRow};
use toolyard_types::api::servers::Canary;
use toolyard_types::spec::Strategy;
use toolyard_types::state::Phase;
use toolyard_types::{InstanceId, Timestamp, ToolboxId};

use super::case::{Case, Look, Places, PlacesOf, as_it_serves, homes, near, stands_still};
use super::place;
use super::steps::{changed, dismiss, insert_instance};
use super::{AFTER_FAILURE, Pass, SERVERS_PER_PUT_OFF, lost, put_off};
use crate::{Control, Result};

/// How many servers one run looks at.
const AT_ONCE: usize = 500;
/// How long one waits that nothing can be done about, if nothing happens to it.
const WAIT: Duration = Duration::from_secs(2);

pub(crate) async fn run(control: &Control) -> Result<Pass> {
    let tx = control.store().system_read("listing servers with too few or too many instances").await?;
    let (seen, now) = (tx.last_event().await?, control.clock().now());
    let off = tx.servers_off_target(now, u32::try_from(AT_ONCE).unwrap_or(u32::MAX)).await?;
    drop(tx);
    let (mut pass, mut places) = (Pass::default(), PlacesOf::default());
    for some in off.chunks(SERVERS_PER_PUT_OFF) {
        let mut waits = Vec::new();
        for at in some {
            let now = control.clock().now();
            match act(control, *at, &mut places).await {
                Ok(true) => pass.changed += 1,
                Ok(false) => waits.push((*at, now.plus(WAIT))),
                Err(error) => {
                    pass.failed(&error);
                    waits.push((*at, now.plus(AFTER_FAILURE)));
                }
            }
        }
        put_off(control, Loop::Scale, seen, waits).await?;
    }
    if off.len() == AT_ONCE {
        pass.again();
    }
    Ok(pass)
}

/// A server that serves, as far as its number of instances goes.
struct Situation {
    /// What serves.
    serving: Case,
    /// The rollout under way, with its strategy, unless it stands still.
    under_way: Option<(RolloutRow, Strategy)>,
    /// The canary that is tried beside what serves.
    canary: Option<Case>,
}

async fn act(control: &Control, at: ServerRef, places: &mut PlacesOf) -> Result<bool> {
    let now = control.clock().now();
    let tx = control.store().org_read(at.organization).await?;
    let situation = gather(&tx, at, places, Look::Ahead).await?;
    drop(tx);
    if situation.is_none_or(|situation| decide(&situation).is_none()) {
        return Ok(false);
    }
    let mut tx = control.store().org(at.organization).await?;
    let Some(situation) = gather(&tx, at, places, Look::Locked).await? else { return Ok(false) };
    let Some((case, change)) = decide(&situation) else { return Ok(false) };
    if let Change::Place(toolbox) = &change
        && !places.still_take(&tx, &[*toolbox]).await?
    {
        return Ok(false);
    }
    apply(&mut tx, case, change, now).await?;
    changed(&mut tx, &case.server, &case.rollout);
    tx.commit().await?;
    Ok(true)
}

async fn gather(tx: &OrgTx, at: ServerRef, places: &mut PlacesOf, look: Look) -> Result<Option<Situation>> {
    let Some(server) = look.server(tx, at.server).await? else { return Ok(None) };
    let (Some(serving), Some(revision)) = (server.serving_rollout, server.serving_revision) else { return Ok(None) };
    let (Some(rollout), Some(revision)) = (tx.rollout(serving).await?, tx.revision(revision).await?) else {
        return Ok(None);
    };
    let live = tx.live_instances(&[server.id]).await?;
    let places = places.read(tx).await?;
    let (mut under_way, mut canary) = (None, None);
    let as_served = match tx.rollout_under_way(&server).await? {
        None => server,
        Some(next) => {
            let Some(to) = tx.revision(next.to_revision).await? else { return Ok(None) };
            let as_served = as_it_serves(tx, server.clone(), Some(&next)).await?;
            if !stands_still(&next) {
                under_way = Some((next, to.spec.strategy));
            } else if next.canary.as_ref().is_some_and(Canary::is_on_trial) {
                canary = Some(case_of(tx, (server, next, to), &live, places.clone()).await?);
            }
            as_served
        }
    };
    let serving = case_of(tx, (as_served, rollout, revision), &live, places).await?;
    Ok(Some(Situation { serving, under_way, canary }))
}

/// What a rollout made, to be kept as it should be.
async fn case_of(
    tx: &OrgTx,
    (server, rollout, revision): (ServerRow, RolloutRow, RevisionRow),
    live: &[InstanceRow],
    places: Arc<Places>,
) -> Result<Case> {
    Ok(Case {
        jobs: Vec::new(),
        near: near(tx, live, None).await?,
        mine: live.iter().filter(|instance| instance.rollout == rollout.id).cloned().collect(),
        homes: homes(tx, &server, &revision, live).await?,
        live: live.to_vec(),
        places,
        removed: None,
        probe: None,
        served_tools: BTreeSet::new(),
        server,
        deadline: rollout.deadline,
        rollout,
        revision,
    })
}

/// What is done next.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    /// One more, on this toolbox.
    Place(ToolboxId),
    /// These end.
    Dismiss(Vec<InstanceId>),
    /// These are gone with their toolbox.
    GiveUp(Vec<InstanceId>),
}

fn decide(situation: &Situation) -> Option<(&Case, Change)> {
    let Situation { serving, under_way, canary } = situation;
    if let Some((rollout, strategy)) = under_way {
        // One that is observed goes back by itself; while a `recreate` is under way the old one is down on purpose. A
        // rollout of the same revision, as when a server is moved, brings what would be placed here.
        let lost = lost(serving);
        let is_down = !serving.mine.iter().any(|it| it.should_serve() && !lost.contains(&it.toolbox))
            && *strategy == Strategy::Surge
            && rollout.switched_at.is_none()
            && rollout.to_revision != serving.revision.id;
        return if is_down {
            place::choose(serving).ok().map(|toolbox| (serving, Change::Place(toolbox)))
        } else {
            None
        };
    }
    let change = towards(serving, serving.replicas()).map(|change| (serving, change));
    change.or_else(|| canary.as_ref().and_then(|canary| Some((canary, towards(canary, 1)?))))
}

/// The next step towards so many instances where they may be.
fn towards(case: &Case, replicas: usize) -> Option<Change> {
    let drained: BTreeSet<ToolboxId> =
        case.near.iter().filter(|toolbox| toolbox.draining_since.is_some()).map(|toolbox| toolbox.id).collect();
    let shape = Shape {
        replicas,
        one_at_a_time: case.revision.spec.strategy == Strategy::Recreate,
        lost: lost(case),
        drained: if case.server.toolbox.is_some() { BTreeSet::new() } else { drained },
        place: place::choose(case).ok(),
    };
    plan(&shape, &case.mine)
}

/// The lost toolboxes, as far as they concern a server: one that must run there waits for it, and so does one that must
/// not run twice, because a toolbox that cannot be heard may well be running it.
fn lost(case: &Case) -> BTreeSet<ToolboxId> {
    if case.server.toolbox.is_some() || case.revision.spec.strategy == Strategy::Recreate {
        return BTreeSet::new();
    }
    case.near.iter().filter(|toolbox| toolbox.is_lost()).map(|toolbox| toolbox.id).collect()
}

/// What the number and the places of instances should be.
struct Shape {
    replicas: usize,
    /// Whether an instance must have ended before another takes its place.
    one_at_a_time: bool,
    /// Toolboxes that instances should leave.
    drained: BTreeSet<ToolboxId>,
    /// Toolboxes whose instances are gone.
    lost: BTreeSet<ToolboxId>,
    /// Where another one could go.
    place: Option<ToolboxId>,
}

/// The next step towards a shape; `None` when nothing is to be done, or can be.
fn plan(shape: &Shape, instances: &[InstanceRow]) -> Option<Change> {
    let (gone, here): (Vec<_>, Vec<_>) = instances.iter().partition(|instance| shape.lost.contains(&instance.toolbox));
    let (leaving, kept): (Vec<_>, Vec<_>) = here
        .iter()
        .copied()
        .filter(|instance| instance.should_serve())
        .partition(|instance| shape.drained.contains(&instance.toolbox));
    if kept.len() > shape.replicas {
        return worst(&kept).map(|instance| Change::Dismiss(vec![instance]));
    }
    let ready = kept.iter().filter(|instance| instance.status.phase == Phase::Ready).count();
    if !leaving.is_empty() && (ready >= shape.replicas || (shape.one_at_a_time && shape.place.is_some())) {
        return Some(Change::Dismiss(leaving.iter().map(|instance| instance.id).collect()));
    }
    if !gone.is_empty() && (ready >= shape.replicas || (shape.one_at_a_time && shape.place.is_some())) {
        return Some(Change::GiveUp(gone.iter().map(|instance| instance.id).collect()));
    }
    // Beyond the number that is wanted there is one more only while it takes over from one that leaves.
    let room = if shape.one_at_a_time { instances.len() < shape.replicas } else { kept.len() < shape.replicas };
    if room { shape.place.map(Change::Place) } else { None }
}

/// The instance that is missed least: one that is not ready, on the toolbox with most of them, the newest.
fn worst(instances: &[&InstanceRow]) -> Option<InstanceId> {
    let mut crowd: HashMap<ToolboxId, usize> = HashMap::new();
    for instance in instances {
        *crowd.entry(instance.toolbox).or_default() += 1;
    }
    let worth = |instance: &&&InstanceRow| {
        let ready = instance.status.phase == Phase::Ready;
        (!ready, crowd.get(&instance.toolbox).copied().unwrap_or_default(), instance.id)
    };
    instances.iter().max_by_key(worth).map(|instance| instance.id)
}

async fn apply(tx: &mut OrgTx, case: &Case, change: Change, now: Timestamp) -> Result<()> {
    match change {
        Change::Place(toolbox) => {
            insert_instance(tx, &case.rollout, case.revision.id, toolbox, InstanceWish::Run, now).await?;
            case.places.placed(toolbox);
            Ok(())
        }
        Change::Dismiss(ids) => dismiss(tx, case.mine.iter().filter(|instance| ids.contains(&instance.id))).await,
        Change::GiveUp(ids) => {
            for instance in case.mine.iter().filter(|instance| ids.contains(&instance.id)) {
                if let Some(toolbox) = case.toolbox(instance.toolbox) {
                    lost::give_up(tx, instance, toolbox, "it was replaced", now).await?;
                }
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use toolyard_types::state::RolloutState;

    use super::super::phase::tests as rows;
    use super::*;

    proptest! {
        /// From any number of instances anywhere, the steps lead to the number that is wanted, off what is drained;
        /// and on the way there are never fewer that answer than at the beginning, up to that number.
        #[test]
        fn the_steps_lead_to_the_shape_without_a_gap(
            begin in proptest::collection::vec((0..4_usize, any::<bool>()), 0..8),
            replicas in 1..5_usize,
            drained in proptest::collection::vec(any::<bool>(), 4),
            lost in proptest::collection::vec(any::<bool>(), 4),
        ) {
            let toolboxes: Vec<_> = (0..5).map(|_| ToolboxId::generate()).collect();
            let server = rows::server();
            let rollout = rows::rollout(&server, RolloutState::Done);
            let instance = |toolbox: ToolboxId, ready: bool| {
                let mut row = rows::instance(&rollout, if ready { Phase::Ready } else { Phase::Starting });
                row.toolbox = toolbox;
                row
            };
            let mut all: Vec<_> = begin.iter().map(|(at, ready)| instance(toolboxes[*at], *ready)).collect();
            let shape = Shape {
                replicas,
                one_at_a_time: false,
                lost: (0..4).filter(|at| lost[*at]).map(|at| toolboxes[at]).collect(),
                drained: (0..4).filter(|at| drained[*at]).map(|at| toolboxes[at]).collect(),
                place: Some(toolboxes[4]),
            };
            let answering = |all: &[InstanceRow]| {
                all.iter().filter(|row| row.status.phase == Phase::Ready && !shape.lost.contains(&row.toolbox)).count()
            };
            let enough = answering(&all).min(replicas);
            for step in 0.. {
                prop_assert!(step < 40, "it comes to an end");
                match plan(&shape, &all) {
                    Some(Change::Place(toolbox)) => all.push(instance(toolbox, false)),
                    Some(Change::Dismiss(ids) | Change::GiveUp(ids)) => all.retain(|row| !ids.contains(&row.id)),
                    // Nothing to do until one that starts answers.
                    None => match all.iter_mut().find(|row| row.status.phase != Phase::Ready) {
                        Some(row) => row.status.phase = Phase::Ready,
                        None => break,
                    },
                }
                prop_assert!(answering(&all) >= enough, "{} of {enough} answer", answering(&all));
            }
            prop_assert_eq!(all.len(), replicas);
            prop_assert!(all.iter().all(|row| !shape.drained.contains(&row.toolbox) && !shape.lost.contains(&row.toolbox)));
        }
    }

    #[test]
    fn with_one_writer_the_old_one_ends_first_and_only_when_there_is_another_place() {
        let server = rows::server();
        let rollout = rows::rollout(&server, RolloutState::Done);
        let mut old = rows::instance(&rollout, Phase::Ready);
        let place = ToolboxId::generate();
        let shape = |place| Shape {
            replicas: 1,
            one_at_a_time: true,
            drained: BTreeSet::from([old.toolbox]),
            lost: BTreeSet::new(),
            place,
        };
        let (nowhere, somewhere) = (shape(None), shape(Some(place)));
        assert_eq!(plan(&nowhere, std::slice::from_ref(&old)), None);
        assert_eq!(plan(&somewhere, &[old.clone()]), Some(Change::Dismiss(vec![old.id])));
        old.desired = InstanceWish::Retire;
        assert_eq!(plan(&somewhere, std::slice::from_ref(&old)), None, "it has not ended yet");
        assert_eq!(plan(&somewhere, &[]), Some(Change::Place(place)));
    }

    #[test]
    fn with_one_writer_what_is_lost_is_given_up_first_and_only_when_there_is_another_place() {
        let server = rows::server();
        let rollout = rows::rollout(&server, RolloutState::Done);
        let old = rows::instance(&rollout, Phase::Ready);
        let place = ToolboxId::generate();
        let shape = |place| Shape {
            replicas: 1,
            one_at_a_time: true,
            drained: BTreeSet::new(),
            lost: BTreeSet::from([old.toolbox]),
            place,
        };
        assert_eq!(plan(&shape(None), std::slice::from_ref(&old)), None);
        assert_eq!(plan(&shape(Some(place)), std::slice::from_ref(&old)), Some(Change::GiveUp(vec![old.id])));
        assert_eq!(plan(&shape(Some(place)), &[]), Some(Change::Place(place)));
    }
}
