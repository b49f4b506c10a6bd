//! From what is desired and what is seen to what is done next. Pure.
//!
//! A plan says only *which* instances and jobs there are and what each is to reach; how an instance gets
//! there (install, start, back off, stop) is its own affair (`instance`). Applying a plan and planning again
//! gives an empty plan, so nothing here remembers anything.

use std::collections::{BTreeMap, BTreeSet};

use toolyard_types::agent::Desired;
use toolyard_types::{InstanceId, JobId};

/// What an instance is to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Everything installed, nothing started.
    Prepare,
    /// Running and answering.
    Run,
    /// Ended.
    Stop,
}

/// An instance as the agent sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// What it was last told to reach.
    pub(crate) goal: Goal,
    /// It was told to stop and nothing of it runs any more.
    pub(crate) ended: bool,
    /// The control plane has been told that it ended.
    pub(crate) reported: bool,
}

/// Everything the agent sees.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(crate) instances: BTreeMap<InstanceId, Seen>,
    pub(crate) jobs: BTreeSet<JobId>,
}

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Begin an instance.
    Create(InstanceId, Goal),
    /// Tell an instance what to reach.
    Direct(InstanceId, Goal),
    /// Remove everything of an instance that has ended.
    Forget(InstanceId),
    /// Begin a resolve job.
    Resolve(JobId),
    /// Drop a job and its result.
    Drop(JobId),
}

/// What to do next. Without a desired state nothing is done: not knowing is no reason to stop anything.
pub(crate) fn plan(desired: Option<&Desired>, view: &View) -> Vec<Action> {
    let Some(desired) = desired else { return Vec::new() };
    let wanted: BTreeMap<InstanceId, Goal> = desired
        .instances
        .iter()
        .map(|instance| (instance.id, if instance.run { Goal::Run } else { Goal::Prepare }))
        .collect();
    let mut actions = Vec::new();
    for (id, seen) in &view.instances {
        match wanted.get(id) {
            Some(goal) if seen.goal != *goal => actions.push(Action::Direct(*id, *goal)),
            None if seen.goal != Goal::Stop => actions.push(Action::Direct(*id, Goal::Stop)),
            None if seen.ended && seen.reported => actions.push(Action::Forget(*id)),
            _ => {}
        }
    }
    let new = wanted.iter().filter(|(id, _)| !view.instances.contains_key(id));
    actions.extend(new.map(|(id, goal)| Action::Create(*id, *goal)));
    let jobs: BTreeSet<JobId> = desired.jobs.iter().map(|job| job.id).collect();
    actions.extend(jobs.difference(&view.jobs).map(|id| Action::Resolve(*id)));
    actions.extend(view.jobs.difference(&jobs).map(|id| Action::Drop(*id)));
    actions
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use toolyard_types::agent::{DesiredInstance, ResolveJob};
    use toolyard_types::spec::{Package, RevisionSpec, Runtime};
    use toolyard_types::{Name, OrganizationId, RevisionId, ServerId, Timestamp};

    fn runtime() -> Runtime {
        Runtime::Npm(Package {
            identifier: "a".into(),
            version: "1.0.0".into(),
            command: None,
            with: vec![],
            arguments: vec![],
            environment: BTreeMap::new(),
            registry: None,
            http: None,
        })
    }

    pub(crate) fn instance(id: InstanceId, run: bool) -> DesiredInstance {
        let spec = serde_json::json!({ "runtime": runtime() });
        let spec: RevisionSpec = serde_json::from_value(spec).expect("a spec");
        DesiredInstance {
            id,
            organization: OrganizationId::generate(),
            server: ServerId::generate(),
            server_name: Name::new("a").expect("a name"),
            revision: RevisionId::generate(),
            revision_number: 1,
            spec,
            lock: None,
            secrets: BTreeMap::new(),
            secret_versions: BTreeMap::new(),
            missing: BTreeMap::new(),
            run,
        }
    }

    /// What the agent does with actions, as far as a plan can see it.
    fn apply(view: &mut View, actions: &[Action]) {
        for action in actions {
            match *action {
                Action::Create(id, goal) => {
                    let before = view.instances.insert(id, Seen { goal, ended: false, reported: false });
                    assert_eq!(before, None, "two instances of one id");
                }
                Action::Direct(id, goal) => {
                    let seen = view.instances.get_mut(&id).expect("only known instances are directed");
                    *seen = Seen { goal, ended: false, reported: false };
                }
                Action::Forget(id) => {
                    let seen = view.instances.remove(&id).expect("only known instances are forgotten");
                    assert!(seen.ended, "a running instance was forgotten");
                }
                Action::Resolve(id) => assert!(view.jobs.insert(id), "a job began twice"),
                Action::Drop(id) => assert!(view.jobs.remove(&id)),
            }
        }
    }

    prop_compose! {
        fn pools()(count in 1_usize..6) -> (Vec<InstanceId>, Vec<JobId>) {
            ((0..count).map(|_| InstanceId::generate()).collect(), (0..count).map(|_| JobId::generate()).collect())
        }
    }

    fn desired(instances: &[(InstanceId, u8)], jobs: &[(JobId, bool)]) -> Desired {
        let instances = instances.iter().filter(|(_, kind)| *kind > 0).map(|(id, kind)| instance(*id, *kind == 2));
        let jobs = jobs.iter().filter(|(_, on)| *on).map(|(id, _)| ResolveJob {
            id: *id,
            runtime: runtime(),
            secrets: BTreeMap::new(),
            of: None,
        });
        Desired {
            generation: 1,
            lease_until: Timestamp::default(),
            instances: instances.collect(),
            jobs: jobs.collect(),
            keep_locks: vec![],
            keep_volumes: None,
            keep_logs: None,
            keep_users: None,
        }
    }

    proptest! {
        #[test]
        fn a_plan_once_applied_leaves_nothing_to_do_and_the_view_converges(
            (instances, jobs) in pools(),
            rounds in proptest::collection::vec(proptest::collection::vec((0_u8..3, any::<bool>()), 6), 1..8),
        ) {
            let mut view = View::default();
            let mut last = desired(&[], &[]);
            for round in rounds {
                let kinds: Vec<_> = instances.iter().copied().zip(round.iter().map(|(kind, _)| *kind)).collect();
                let flags: Vec<_> = jobs.iter().copied().zip(round.iter().map(|(_, on)| *on)).collect();
                last = desired(&kinds, &flags);
                let actions = plan(Some(&last), &view);
                apply(&mut view, &actions);
                prop_assert_eq!(plan(Some(&last), &view), vec![]);
            }
            for seen in view.instances.values_mut().filter(|seen| seen.goal == Goal::Stop) {
                *seen = Seen { ended: true, reported: true, ..*seen };
            }
            let actions = plan(Some(&last), &view);
            apply(&mut view, &actions);
            let wanted: BTreeSet<_> = last.instances.iter().map(|instance| instance.id).collect();
            prop_assert_eq!(view.instances.keys().copied().collect::<BTreeSet<_>>(), wanted);
        }
    }

    #[test]
    fn without_a_desired_state_nothing_is_stopped() {
        let seen = Seen { goal: Goal::Run, ended: false, reported: false };
        let view = View { instances: BTreeMap::from([(InstanceId::generate(), seen)]), jobs: BTreeSet::new() };
        assert_eq!(plan(None, &view), vec![]);
    }

    #[test]
    fn an_instance_is_forgotten_only_after_its_end_was_reported() {
        let id = InstanceId::generate();
        let seen = |reported| Seen { goal: Goal::Stop, ended: true, reported };
        let nothing = desired(&[], &[]);
        let view = |reported| View { instances: BTreeMap::from([(id, seen(reported))]), jobs: BTreeSet::new() };
        assert_eq!(plan(Some(&nothing), &view(false)), vec![]);
        assert_eq!(plan(Some(&nothing), &view(true)), vec![Action::Forget(id)]);
    }
}
