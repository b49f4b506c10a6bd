//! Toolboxes: what an agent tells is never taken back by who thinks it silent.

use toolyard_store::{RemovedToolbox, ToolboxRow};
use toolyard_types::agent::ToolboxReport;
use toolyard_types::state::{Reason, Status, ToolboxState};
use toolyard_types::{Labels, Timestamp, ToolboxId};

use crate::world::{World, both_engines, name};

const STEP_MS: i64 = 60_000;

fn silent(at: Timestamp) -> Status<ToolboxState> {
    Status::new(ToolboxState::Unreachable, Reason::ToolboxUnreachable, "not heard", at)
}

async fn online(world: &World) -> (toolyard_types::OrganizationId, ToolboxRow) {
    let organization = world.organization("acme").await;
    let tx = world.store.org(organization).await.unwrap();
    let now = tx.now();
    let row = ToolboxRow {
        id: ToolboxId::generate(),
        name: name("edge"),
        status: Status::new(ToolboxState::Online, Reason::Answered, "", now),
        built_in: false,
        draining_since: None,
        labels: Labels::default(),
        enrolment: 0,
        certificate_expires_at: None,
        lost_at: None,
        last_seen_at: Some(now),
        agent_version: None,
        report: ToolboxReport::default(),
        generation: 0,
        created_at: now,
    };
    tx.insert_toolbox(&row).await.unwrap();
    tx.commit().await.unwrap();
    (organization, row)
}

both_engines! {
    async fn a_toolbox_that_was_heard_meanwhile_is_not_called_silent(engine) {
        let world = World::start(engine).await;
        let (organization, row) = online(&world).await;
        let heard = row.created_at;
        world.clock.step_ms(STEP_MS);
        let now = world.clock.now();
        let tx = world.store.system("test").await.unwrap();
        assert!(tx.touch_toolbox(row.id, now, &row.report).await.unwrap());
        tx.commit().await.unwrap();

        let tx = world.store.org(organization).await.unwrap();
        assert!(!tx.set_toolbox_silent(row.id, &silent(now), heard).await.unwrap());
        let after = tx.toolbox_by_id(row.id).await.unwrap().unwrap();
        assert_eq!((after.status, after.last_seen_at), (row.status, Some(now)));
    }

    async fn a_removed_toolbox_frees_its_name_and_still_tells_it(engine) {
        let world = World::start(engine).await;
        let (organization, row) = online(&world).await;
        world.clock.step_ms(STEP_MS);
        let now = world.clock.now();
        let tx = world.store.org(organization).await.unwrap();
        assert!(tx.removed_toolboxes([row.id]).await.unwrap().is_empty());
        tx.remove_toolbox(&row).await.unwrap();
        tx.insert_toolbox(&ToolboxRow { id: ToolboxId::generate(), ..row.clone() }).await.unwrap();
        tx.commit().await.unwrap();
        let tx = world.store.org_read(organization).await.unwrap();
        assert_eq!(tx.toolbox_by_id(row.id).await.unwrap(), None);
        let removed = RemovedToolbox { id: row.id, name: Some(row.name.clone()), at: now };
        assert_eq!(tx.removed_toolboxes([row.id, ToolboxId::generate()]).await.unwrap(), [removed]);
    }

    async fn a_silent_toolbox_keeps_when_it_was_heard_and_is_not_merely_heard_again(engine) {
        let world = World::start(engine).await;
        let (organization, row) = online(&world).await;
        world.clock.step_ms(STEP_MS);
        let now = world.clock.now();
        let tx = world.store.org(organization).await.unwrap();
        assert!(tx.set_toolbox_silent(row.id, &silent(now), row.created_at).await.unwrap());
        assert!(!tx.set_toolbox_silent(row.id, &silent(now), row.created_at).await.unwrap(), "said once");
        tx.commit().await.unwrap();

        let tx = world.store.system("test").await.unwrap();
        assert!(!tx.touch_toolbox(row.id, now, &row.report).await.unwrap(), "it must be said to be online, too");
        drop(tx);
        let tx = world.store.org_read(organization).await.unwrap();
        let after = tx.toolbox_by_id(row.id).await.unwrap().unwrap();
        assert_eq!((after.status, after.last_seen_at), (silent(now), row.last_seen_at));
    }
}
