//! The outbox: events in the order of commits, none missed.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use toolyard_store::EventKind;

use crate::world::{World, both_engines};

both_engines! {
    async fn a_reader_that_goes_on_after_the_last_number_misses_no_late_commit(engine) {
        let world = World::start(engine).await;
        let organization = world.organization("acme").await;
        let (writers, each) = (8_usize, 25_usize);
        let tasks: Vec<_> = (0..writers).map(|writer| {
            let store = world.store.clone();
            tokio::spawn(async move {
                for number in 0..each {
                    let mut tx = store.org(organization).await.unwrap();
                    tx.event(EventKind::CatalogChanged, format!("{writer}/{number}"), json!({}));
                    // Others commit between the first statement of this transaction and its commit.
                    tokio::task::yield_now().await;
                    tx.commit().await.unwrap();
                }
            })
        }).collect();
        let mut seen = BTreeSet::new();
        let mut reached = 0;
        let reading = async {
            while seen.len() < writers * each {
                let tx = world.store.system_read("test").await.unwrap();
                for event in tx.events_after(reached, 7).await.unwrap() {
                    assert!(event.sequence > reached);
                    reached = event.sequence;
                    if event.kind == EventKind::CatalogChanged.as_str() {
                        assert!(seen.insert(event.subject));
                    }
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), reading).await.expect("every event is seen");
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(seen.len(), writers * each);
    }

    async fn a_transaction_that_is_dropped_leaves_no_event(engine) {
        let world = World::start(engine).await;
        let organization = world.organization("acme").await;
        let before = world.store.system_read("test").await.unwrap().last_event().await.unwrap();
        let mut tx = world.store.org(organization).await.unwrap();
        tx.event(EventKind::CatalogChanged, "x", json!({}));
        drop(tx);
        let tx = world.store.system_read("test").await.unwrap();
        assert_eq!(tx.events_after(before, 10).await.unwrap(), []);
    }

    async fn a_commit_with_events_wakes_who_waits(engine) {
        let world = World::start(engine).await;
        let organization = world.organization("acme").await;
        let mut wakes = world.store.wakes();
        wakes.borrow_and_update();
        let tx = world.store.org(organization).await.unwrap();
        tx.commit().await.unwrap();
        assert!(!wakes.has_changed().unwrap(), "a commit without events wakes nobody");
        let mut tx = world.store.org(organization).await.unwrap();
        tx.event(EventKind::CatalogChanged, "x", json!({}));
        tx.commit().await.unwrap();
        tokio::time::timeout(Duration::from_secs(5), wakes.changed()).await.unwrap().unwrap();
    }

    async fn an_organization_reads_its_own_events_and_those_for_all(engine) {
        let world = World::start(engine).await;
        let (acme, other) = (world.organization("acme").await, world.organization("other").await);
        let start = world.store.system_read("test").await.unwrap().last_event().await.unwrap();
        let mut tx = world.store.system("test").await.unwrap();
        tx.event(Some(acme), EventKind::CatalogChanged, "acme", json!({}));
        tx.event(Some(other), EventKind::CatalogChanged, "other", json!({}));
        tx.event(None, EventKind::CatalogChanged, "all", json!({}));
        tx.commit().await.unwrap();
        let events = world.store.org_read(acme).await.unwrap().events_after(start, 10).await.unwrap();
        let subjects: Vec<_> = events.into_iter().map(|event| event.subject).collect();
        assert_eq!(subjects, ["acme", "all"]);
    }

    async fn old_events_are_forgotten_and_numbers_go_on(engine) {
        let world = World::start(engine).await;
        world.organization("acme").await;
        let last = world.store.system_read("test").await.unwrap().last_event().await.unwrap();
        world.clock.step_ms(1000);
        let tx = world.store.system("test").await.unwrap();
        assert!(tx.trim_events(tx.now()).await.unwrap() > 0);
        tx.commit().await.unwrap();
        world.organization("other").await;
        let tx = world.store.system_read("test").await.unwrap();
        assert!(tx.last_event().await.unwrap() > last);
    }
}

#[test]
fn every_kind_of_event_is_read_as_it_was_written() {
    for kind in EventKind::ALL {
        assert_eq!(EventKind::parse(kind.as_str()), Some(*kind));
    }
    assert_eq!(EventKind::parse("server.exploded"), None);
}
