//! What loops take: what is due, of every organization in turn.

use std::collections::BTreeSet;
use std::time::Duration;

use toolyard_store::{EventKind, Loop, ServerRef, Store};
use toolyard_types::{OrganizationId, Timestamp};

use crate::migrations::execute;
use crate::world::{World, both_engines};

/// Rollouts under way in an organization, a server each: `prefix-0`, `prefix-1`, ...
async fn rollouts(world: &World, prefix: u8, organization: OrganizationId, many: u32) -> Vec<ServerRef> {
    let id = |kind: u8, number: u32| format!("00000000-0000-7000-8{kind:x}{prefix:02x}-{number:012x}");
    let (mut servers, mut under_way, mut refs) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..many {
        let (server, rollout) = (id(1, number), id(2, number));
        servers.push(format!(
            "('{server}', '{organization}', '{prefix}-{number}', 'npm', TRUE, FALSE, '{}', 1000, 1, 0, 0, '{rollout}')",
            id(3, number)
        ));
        under_way.push(format!(
            "('{rollout}', '{organization}', '{server}', '{}', 'progressing', 'requested', '', '[]', {number}, 0)",
            id(3, number)
        ));
        refs.push(ServerRef { organization, server: server.parse().unwrap() });
    }
    let servers = format!(
        "INSERT INTO servers (id, organization_id, name, kind, enabled, deleted, target_revision_id, rollout_timeout_ms, \
         version, created_at, updated_at, rollout_id) VALUES {}",
        servers.join(", ")
    );
    execute(world.database.location(), &servers).await;
    let under_way = format!(
        "INSERT INTO rollouts (id, organization_id, server_id, to_revision_id, state, reason, message, log, started_at, \
         deadline) VALUES {}",
        under_way.join(", ")
    );
    execute(world.database.location(), &under_way).await;
    refs
}

async fn due(store: &Store, now: Timestamp, limit: u32) -> BTreeSet<ServerRef> {
    let tx = store.system_read("test").await.unwrap();
    tx.rollouts_due(now, limit).await.unwrap().into_iter().collect()
}

async fn put_off(store: &Store, seen: i64, servers: impl IntoIterator<Item = ServerRef>, until: Timestamp) {
    let waits: Vec<_> = servers.into_iter().map(|at| (at, until)).collect();
    let tx = store.system("test").await.unwrap();
    tx.put_off(Loop::Rollout, seen, &waits).await.unwrap();
    tx.commit().await.unwrap();
}

async fn newest(store: &Store) -> i64 {
    store.system_read("test").await.unwrap().last_event().await.unwrap()
}

async fn event(store: &Store, organization: OrganizationId, kind: EventKind, subject: &str) {
    let mut tx = store.org(organization).await.unwrap();
    tx.event(kind, subject, serde_json::json!({}));
    tx.commit().await.unwrap();
}

both_engines! {
    async fn however_many_rollouts_of_one_organization_wait_those_of_another_have_their_turn(engine) {
        let world = World::start(engine).await;
        let (many, few) = (world.organization("many").await, world.organization("few").await);
        let waiting = rollouts(&world, 1, many, 700).await;
        let other = rollouts(&world, 2, few, 1).await;
        let now = world.clock.now();
        let first = due(&world.store, now, 500).await;
        assert_eq!(first.len(), 500);
        assert!(first.contains(&other[0]));
        // What was looked at waits; then it is the turn of the rest, and of nobody twice.
        put_off(&world.store, newest(&world.store).await, first.clone(), now.plus(Duration::from_secs(60))).await;
        let second = due(&world.store, now, 500).await;
        assert_eq!(second.len(), 201);
        assert!(second.is_disjoint(&first));
        assert!(waiting.iter().all(|at| first.contains(at) || second.contains(at)));
    }

    async fn what_waits_is_due_at_its_time_and_when_something_happens_to_it(engine) {
        let world = World::start(engine).await;
        let (here, there) = (world.organization("here").await, world.organization("there").await);
        let (own, others) = (rollouts(&world, 1, here, 3).await, rollouts(&world, 2, there, 1).await);
        let (store, now) = (&world.store, world.clock.now());
        let minute = now.plus(Duration::from_secs(60));
        let all: Vec<_> = own.iter().chain(&others).copied().collect();
        put_off(store, newest(store).await, all.clone(), minute).await;
        assert!(due(store, now, 10).await.is_empty());
        event(store, here, EventKind::ServerChanged, "server/1-1").await;
        assert_eq!(due(store, now, 10).await, BTreeSet::from([own[1]]));
        event(store, here, EventKind::ToolboxChanged, "toolbox/local").await;
        assert_eq!(due(store, now, 10).await, own.iter().copied().collect());
        assert_eq!(due(store, minute, 10).await, all.into_iter().collect());
    }

    async fn what_happened_while_a_loop_looked_is_not_put_off(engine) {
        let world = World::start(engine).await;
        let organization = world.organization("acme").await;
        let servers = rollouts(&world, 1, organization, 3).await;
        let (store, now) = (&world.store, world.clock.now());
        let seen = newest(store).await;
        event(store, organization, EventKind::ServerChanged, "server/1-2").await;
        put_off(store, seen, servers.clone(), now.plus(Duration::from_secs(60))).await;
        assert_eq!(due(store, now, 10).await, BTreeSet::from([servers[2]]));
    }

    async fn a_clock_that_was_set_back_holds_nothing_up(engine) {
        let world = World::start(engine).await;
        let organization = world.organization("acme").await;
        let servers = rollouts(&world, 1, organization, 1).await;
        let (store, now) = (&world.store, world.clock.now());
        put_off(store, newest(store).await, servers.clone(), now.plus(Duration::from_secs(60))).await;
        assert!(due(store, now, 10).await.is_empty());
        assert_eq!(due(store, now.minus(Duration::from_secs(3600)), 10).await.len(), 1);
    }
}
