//! Which remote servers are to be probed, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use toolyard_store::{ProbePauses, ProbeRow, RevisionRow, RolloutRow, ServerRow};
use toolyard_types::spec::{
    Egress, Instancing, Limits, Remote, RemoteTransport, RevisionSpec, Runtime, Strategy, Value,
};
use toolyard_types::state::{Phase, Reason, RolloutState, Status};
use toolyard_types::{Labels, OrganizationId, RevisionId, RolloutId, ServerId, Timestamp};

use crate::world::{World, both_engines, name};

const PAUSES: ProbePauses = ProbePauses { serving: Duration::from_secs(60), awaited: Duration::from_secs(3) };

/// A remote server with a rollout that began at `began`; returns what is probed.
async fn rolled_out(world: &World, organization: OrganizationId, began: Timestamp) -> (ServerId, RevisionId) {
    let now = world.clock.now();
    let (server, revision, rollout) = (ServerId::generate(), RevisionId::generate(), RolloutId::generate());
    let tx = world.store.org(organization).await.unwrap();
    let row = ServerRow {
        id: server,
        name: name("r"),
        kind: "remote".into(),
        entry_name: None,
        entry_version: None,
        enabled: true,
        deleted: false,
        toolbox: None,
        has_volumes: false,
        postponed: None,
        toolbox_labels: Labels::default(),
        serving_revision: None,
        serving_rollout: None,
        target_revision: revision,
        rollout: Some(rollout),
        rollout_timeout_ms: 600_000,
        replicas: 1,
        observe_ms: 0,
        restart_at: None,
        next_restart_at: None,
        update_window: None,
        version: 1,
        created_at: now,
        updated_at: now,
    };
    tx.insert_server(&row).await.unwrap();
    let url = Value::text("https://remote.example/mcp");
    let spec = RevisionSpec {
        entry: None,
        runtime: Runtime::Remote(Remote { transport: RemoteTransport::StreamableHttp, url, headers: BTreeMap::new() }),
        limits: Limits::default(),
        paths: Vec::new(),
        egress: Egress::All,
        strategy: Strategy::default(),
        start_timeout_ms: 60_000,
        call_timeout_ms: 60_000,
        probe_call: None,
        instancing: Instancing::default(),
        volumes: Vec::new(),
        privileges: BTreeSet::new(),
    };
    let row = RevisionRow {
        id: revision,
        server,
        number: 1,
        spec,
        inputs: "{}".into(),
        lock_digest: None,
        created_by: String::new(),
        change: String::new(),
        created_at: now,
    };
    tx.insert_revision(&row).await.unwrap();
    let row = RolloutRow {
        id: rollout,
        server,
        from_revision: None,
        to_revision: revision,
        state: RolloutState::Progressing,
        reason: Reason::AwaitingProbe,
        message: String::new(),
        log: Vec::new(),
        started_at: began,
        deadline: began.plus(Duration::from_secs(600)),
        ended_at: None,
        from_rollout: None,
        switched_at: None,
        accept_lost_tools: false,
        canary: None,
        next_attempt_at: None,
        from_place: None,
    };
    tx.insert_rollout(&row).await.unwrap();
    tx.commit().await.unwrap();
    (server, revision)
}

async fn probed(world: &World, of: OrganizationId, (server, revision): (ServerId, RevisionId), checked_at: Timestamp) {
    let tx = world.store.org(of).await.unwrap();
    let status = Status::new(Phase::Failed, Reason::RemoteUnreachable, "", checked_at);
    let row = ProbeRow { revision, server, status, checked_at, failures: 1, slow: false, mcp: None };
    tx.put_probe(&row).await.unwrap();
    tx.commit().await.unwrap();
}

async fn is_due(world: &World) -> bool {
    let tx = world.store.system_read("test").await.unwrap();
    !tx.probes_due(world.clock.now(), PAUSES, false, 10).await.unwrap().is_empty()
}

both_engines! {
    async fn what_was_probed_before_its_rollout_began_is_due_at_once(engine) {
        let world = World::start(engine).await;
        let acme = world.organization("acme").await;
        let now = world.clock.now();
        let at = rolled_out(&world, acme, now).await;
        assert!(is_due(&world).await, "it was never probed");
        probed(&world, acme, at, now.minus(Duration::from_millis(1))).await;
        assert!(is_due(&world).await);
        probed(&world, acme, at, now).await;
        assert!(!is_due(&world).await);
        world.clock.step_ms(3000);
        assert!(is_due(&world).await);
    }

    async fn a_rollout_that_a_clock_ahead_began_has_its_remote_probed_with_pauses(engine) {
        let world = World::start(engine).await;
        let acme = world.organization("acme").await;
        let began = world.clock.now().plus(Duration::from_secs(30));
        let at = rolled_out(&world, acme, began).await;
        // By that clock, before the rollout: so it is not waited for.
        probed(&world, acme, at, began.minus(Duration::from_secs(1))).await;
        for _ in 0..3 {
            assert!(is_due(&world).await);
            probed(&world, acme, at, world.clock.now()).await;
            assert!(!is_due(&world).await);
            world.clock.step_ms(2999);
            assert!(!is_due(&world).await);
            world.clock.step_ms(1);
        }
    }
}
