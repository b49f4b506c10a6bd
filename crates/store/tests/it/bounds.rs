//! What grows is bounded, and what is deleted gives its space back.

use toolyard_store::{AuditFilter, CatalogEntry, CatalogSource, CatalogVersion, Location, NewAudit, Store};
use toolyard_types::{EntryId, OrganizationId, SourceId, Timestamp};

use crate::world::{World, both_engines, name};

async fn write(store: &Store, organization: OrganizationId, action: &str, done: bool) {
    let mut tx = store.org(organization).await.unwrap();
    let line = NewAudit {
        actor: "api_key:1".into(),
        actor_display: "ci".into(),
        action: action.into(),
        target: "server/a".into(),
        done,
        detail: serde_json::json!({}),
        request_id: None,
    };
    tx.audit(&line).await.unwrap();
    tx.commit().await.unwrap();
}

async fn actions(world: &World, organization: OrganizationId) -> Vec<String> {
    let tx = world.store.org_read(organization).await.unwrap();
    let lines = tx.audit_records(&AuditFilter::default(), None, 1000).await.unwrap();
    lines.into_iter().map(|line| line.action).collect()
}

async fn trim(world: &World, organization: OrganizationId, before: Timestamp, most: u64) -> u64 {
    let mut gone = 0;
    loop {
        let tx = world.store.system("test").await.unwrap();
        let now = tx.trim_audit(organization, before, most, 3).await.unwrap();
        tx.commit().await.unwrap();
        gone += now;
        if now == 0 {
            return gone;
        }
    }
}

both_engines! {
    async fn audit_records_go_by_age_and_by_number_the_oldest_first(engine) {
        let world = World::start(engine).await;
        let (acme, other) = (world.organization("acme").await, world.organization("other").await);
        for number in 0..10 {
            write(&world.store, acme, &format!("old.{number}"), true).await;
        }
        world.clock.step_ms(1000);
        let between = world.clock.now();
        for number in 0..10 {
            write(&world.store, acme, &format!("new.{number}"), true).await;
            write(&world.store, other, "their.own", true).await;
        }
        assert_eq!(trim(&world, acme, between, 100).await, 10);
        assert!(actions(&world, acme).await.iter().all(|action| action.starts_with("new.")));
        assert_eq!(trim(&world, acme, between, 4).await, 6);
        assert_eq!(actions(&world, acme).await, ["new.9", "new.8", "new.7", "new.6"]);
        assert_eq!(actions(&world, other).await.len(), 10, "another organization's are its own");
    }

    async fn refusals_cannot_push_out_what_was_done(engine) {
        let world = World::start(engine).await;
        let acme = world.organization("acme").await;
        write(&world.store, acme, "server.delete", true).await;
        for _ in 0..40 {
            write(&world.store, acme, "server.create", false).await;
        }
        assert_eq!(trim(&world, acme, Timestamp::from_ms(0), 20).await, 35);
        let left = actions(&world, acme).await;
        assert_eq!((left.len(), left.last().map(String::as_str)), (6, Some("server.delete")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sqlite_file_shrinks_when_a_large_source_is_removed() {
    let world = World::start(crate::world::Engine::Sqlite).await;
    let acme = world.organization("acme").await;
    let now = world.clock.now();
    let source = CatalogSource {
        id: SourceId::generate(),
        name: name("hostile"),
        kind: "registry".into(),
        url: None,
        enabled: true,
        sync_state: "done".into(),
        sync_message: String::new(),
        position: "{}".into(),
        synced_at: None,
        next_sync_at: None,
        created_at: now,
    };
    let entry = |number: usize| CatalogEntry {
        id: EntryId::generate(),
        source_id: source.id,
        name: format!("a/{number}"),
        latest_version: "1".into(),
        title: None,
        description: String::new(),
        categories: Vec::new(),
        categories_set: false,
        kinds: Vec::new(),
        status: "active".into(),
        status_message: None,
        review: "approved".into(),
        review_reason: None,
        submitted_by: None,
        verified_by: None,
        public: false,
        rating_sum: 0,
        rating_count: 0,
        seen_at: now,
        created_at: now,
        updated_at: now,
    };
    let entries: Vec<_> = (0..400).map(entry).collect();
    let version = |entry: &CatalogEntry| CatalogVersion {
        entry_id: entry.id,
        version: "1".into(),
        document: "x".repeat(100_000),
        status: "active".into(),
        status_message: None,
        latest: true,
        published_at: None,
        updated_at: now,
    };
    let mut tx = world.store.org(acme).await.unwrap();
    tx.insert_catalog_source(&source).await.unwrap();
    tx.put_catalog_entries(&entries).await.unwrap();
    let versions: Vec<_> = entries.iter().map(version).collect();
    tx.put_catalog_versions(&versions, false).await.unwrap();
    assert_eq!(tx.measure_catalog_source(source.id).await.unwrap(), (400, 40_000_000));
    tx.commit().await.unwrap();
    assert_eq!(world.store.give_back_space().await.unwrap(), 0);

    let mut tx = world.store.org(acme).await.unwrap();
    tx.delete_catalog_source(source.id).await.unwrap();
    tx.commit().await.unwrap();
    assert!(world.store.give_back_space().await.unwrap() > 5_000);
    let Location::Sqlite(path) = world.database.location() else { panic!("a file") };
    let bytes = std::fs::metadata(path).unwrap().len();
    assert!(bytes < 10 << 20, "{bytes}");
}
