//! Toolboxes that vanish: what ran there is placed elsewhere, once, and ends where it was when they are back.

use serde_json::{Value, json};
use toolyard_types::snapshot::Target;
use toolyard_types::state::Phase;

use crate::agent::FakeAgent;
use crate::harness::{Engine, TestControl, both_engines};
use crate::servers::EVERYTHING;

/// Much less than a gap in which a control plane heard nobody: a run may span a step.
const STEP_MS: i64 = 15_000;

/// Time passes, in which only these agents are heard.
async fn pass(t: &TestControl, ms: i64, heard: &[(&str, &FakeAgent)]) {
    for _ in 0..ms / STEP_MS {
        t.clock.step_ms(STEP_MS);
        let now = t.clock.now();
        for (name, agent) in heard {
            agent.uses(1, 1, now);
            t.wait(&format!("/api/v1/toolboxes/{name}"), |_, body| body["last_seen_at"] == json!(now)).await;
        }
        t.control.wake_loops();
        t.wait_loop("follow_up").await;
        t.wait_loop("lost").await;
    }
}

async fn toolbox_id(t: &TestControl, name: &str) -> toolyard_types::ToolboxId {
    let body = t.get(&format!("/api/v1/toolboxes/{name}")).await.expect(200).body;
    body["id"].as_str().unwrap().parse().unwrap()
}

async fn audited(t: &TestControl, action: &str) -> Vec<Value> {
    let audit = t.get("/api/v1/audit?limit=200").await.expect(200).body;
    audit["items"].as_array().unwrap().iter().filter(|line| line["action"] == action).cloned().collect()
}

/// Servers on `edge`, which then vanishes; another toolbox is there.
async fn vanished(engine: Engine) -> (TestControl, FakeAgent, FakeAgent) {
    let t = TestControl::start(engine).await;
    let edge = t.join("edge").await;
    t.deploy("free").await;
    t.post("/api/v1/servers", json!({ "name": "tied", "entry": EVERYTHING, "toolbox": "edge" })).await.expect(201);
    t.wait_rollout("tied", "done").await;
    let local = FakeAgent::local(&t.control).await;
    t.wait("/api/v1/toolboxes/local", |_, body| body["state"] == "online").await;
    edge.vanish();
    (t, edge, local)
}

both_engines! {
    async fn what_ran_on_a_toolbox_that_vanished_runs_elsewhere_and_ends_there_when_it_is_back(engine) {
        let (t, edge, local) = vanished(engine).await;
        pass(&t, 280_000, &[("local", &local)]).await;
        let waits = t.get("/api/v1/toolboxes/edge").await.expect(200).body;
        assert_eq!((&waits["state"], &waits["lost_at"]), (&json!("unreachable"), &Value::Null), "{waits}");
        assert_eq!(t.get("/api/v1/servers/free").await.body["reason"], "toolbox_unreachable");
        pass(&t, 45_000, &[("local", &local)]).await;
        let moved = t.wait("/api/v1/servers/free", |_, body| {
            let instances = body["instances"].as_array().unwrap();
            body["phase"] == "ready" && instances.len() == 1 && instances[0]["toolbox"] == "local"
        }).await;
        assert_eq!(moved["revision"], 1);
        let tied = t.get("/api/v1/servers/tied").await.expect(200).body;
        assert_eq!((&tied["phase"], &tied["reason"]), (&json!("degraded"), &json!("toolbox_unreachable")), "{tied}");
        assert_eq!(tied["message"], "its toolbox `edge` is unreachable, and it must run there");
        let lost = t.get("/api/v1/toolboxes/edge").await.expect(200).body;
        assert!(lost["message"].as_str().unwrap().ends_with("what may run elsewhere is placed there"), "{lost}");
        assert!(lost["lost_at"].is_string(), "{lost}");
        let lines = audited(&t, "toolbox.replace").await;
        assert_eq!((lines.len(), &lines[0]["outcome"], &lines[0]["target"]), (1, &json!("done"), &json!("toolbox/edge")));
        let moves = &lines[0]["detail"];
        assert_eq!((&moves["servers"], &moves["count"]), (&json!(["free"]), &json!(1)), "what must run there is not among them");
        assert_eq!(edge.deeds(), ["run free@1", "run tied@1"]);

        let _back = edge.continue_with(&t.control, toolbox_id(&t, "edge").await);
        let back = t.wait("/api/v1/toolboxes/edge", |_, body| body["state"] == "online").await;
        assert_eq!(back["lost_at"], Value::Null);
        t.wait("/api/v1/version", |_, _| edge.deeds() == ["run free@1", "run tied@1", "stop free@1"]).await;
        let lines = audited(&t, "toolbox.return").await;
        assert_eq!((lines.len(), &lines[0]["detail"]["stops"]), (1, &json!(1)), "{lines:?}");
        t.wait("/api/v1/servers/tied", |_, body| body["phase"] == "ready").await;
        let stays = t.get("/api/v1/servers/free").await.expect(200).body;
        assert_eq!((&stays["instance_id"], &stays["phase"]), (&moved["instance_id"], &json!("ready")));
    }

    async fn giving_up_a_toolbox_from_which_nothing_can_move_tells_of_no_move(engine) {
        let t = TestControl::start(engine).await;
        let edge = t.join("edge").await;
        t.patch("/api/v1/toolboxes/edge", json!({ "labels": { "zone": "a" } })).await.expect(200);
        for (name, more) in [
            ("tied", json!({ "toolbox": "edge" })),
            ("zoned", json!({ "toolbox_labels": { "zone": "a" } })),
            ("single", json!({ "strategy": "recreate" })),
        ] {
            let mut body = json!({ "name": name, "entry": EVERYTHING });
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            t.post("/api/v1/servers", body).await.expect(201);
            t.wait_rollout(name, "done").await;
        }
        let local = FakeAgent::local(&t.control).await;
        t.wait("/api/v1/toolboxes/local", |_, body| body["state"] == "online").await;
        edge.vanish();
        pass(&t, 320_000, &[("local", &local)]).await;
        t.wait("/api/v1/toolboxes/edge", |_, body| body["lost_at"].is_string()).await;
        assert_eq!(audited(&t, "toolbox.replace").await, Vec::<Value>::new());
        assert!(local.deeds().is_empty(), "{:?}", local.deeds());
        let zoned = t.get("/api/v1/servers/zoned").await.expect(200).body;
        let message = "its toolbox `edge` is unreachable, and no other can take it: no toolbox with the labels `zone=a` is online";
        assert_eq!(zoned["message"], message);
        let single = t.get("/api/v1/servers/single").await.expect(200).body;
        assert!(single["message"].as_str().unwrap().contains("another instance begins where one may run"), "{single}");
    }

    async fn what_is_stopped_or_deleted_is_gone_with_a_toolbox_that_is_given_up_and_ends_there_when_it_is_back(engine) {
        let (t, edge, local) = vanished(engine).await;
        t.delete("/api/v1/servers/tied").await.expect(202);
        t.post("/api/v1/servers/free/stop", json!({})).await.expect(202);
        pass(&t, 60_000, &[("local", &local)]).await;
        let waits = t.get("/api/v1/servers/tied").await.expect(200).body;
        assert_eq!((&waits["phase"], &waits["reason"]), (&json!("stopping"), &json!("toolbox_unreachable")), "{waits}");
        assert_eq!(waits["message"], "being deleted; its toolbox has not been heard for too long");
        pass(&t, 260_000, &[("local", &local)]).await;
        t.wait("/api/v1/servers/tied", |status, _| status == 404).await;
        let stopped = t.wait("/api/v1/servers/free", |_, body| body["phase"] == "stopped").await;
        assert_eq!(stopped["instances"], json!([]));
        // Its name is free, and what was stopped may begin elsewhere.
        t.deploy("tied").await;
        t.post("/api/v1/servers/free/start", json!({})).await.expect(202);
        t.wait_rollout("free", "done").await;
        // What is deleted later does not wait for anything.
        t.delete("/api/v1/servers/tied").await.expect(202);
        t.wait("/api/v1/servers/tied", |status, _| status == 404).await;

        let _back = edge.continue_with(&t.control, toolbox_id(&t, "edge").await);
        t.wait("/api/v1/version", |_, _| edge.deeds().len() == 4).await;
        let mut deeds = edge.deeds();
        deeds.sort();
        assert_eq!(deeds, ["run free@1", "run tied@1", "stop free@1", "stop tied@1"]);
        let lines = audited(&t, "toolbox.return").await;
        assert_eq!(lines[0]["detail"]["stops"], json!(2), "{lines:?}");
    }

    async fn what_was_superseded_is_gone_with_a_toolbox_that_is_given_up(engine) {
        let (t, edge, local) = vanished(engine).await;
        t.patch("/api/v1/servers/tied", json!({ "toolbox": "local" })).await.expect(202);
        t.wait_rollout("tied", "done").await;
        pass(&t, 60_000, &[("local", &local)]).await;
        let both = t.get("/api/v1/servers/tied").await.expect(200).body;
        assert_eq!(both["instances"].as_array().unwrap().len(), 2, "nobody saw the old one end: {both}");
        pass(&t, 260_000, &[("local", &local)]).await;
        let moved = t.wait("/api/v1/servers/tied", |_, body| body["instances"].as_array().unwrap().len() == 1).await;
        assert_eq!((&moved["instances"][0]["toolbox"], &moved["phase"]), (&json!("local"), &json!("ready")));
        drop(edge);
    }

    async fn what_must_not_run_twice_waits_for_a_lost_toolbox_until_it_is_moved_by_name(engine) {
        let t = TestControl::start(engine).await;
        let edge = t.join("edge").await;
        let body = json!({ "name": "one", "entry": EVERYTHING, "strategy": "recreate", "rollout_timeout_ms": 3_000_000 });
        t.post("/api/v1/servers", body).await.expect(201);
        t.wait_rollout("one", "done").await;
        let local = FakeAgent::local(&t.control).await;
        t.wait("/api/v1/toolboxes/local", |_, body| body["state"] == "online").await;
        edge.vanish();
        pass(&t, 60_000, &[("local", &local)]).await;
        t.patch("/api/v1/servers/one", json!({ "environment": { "A": "1" } })).await.expect(202);
        let until = |body: &Value, what: &str| {
            body["rollout"]["reason"] == "toolbox_unreachable" && body["rollout"]["message"].as_str().unwrap().ends_with(what)
        };
        let by_name = "until `edge` is heard or removed, or the server is moved to another toolbox by name";
        t.wait("/api/v1/servers/one", |_, body| until(body, by_name)).await;
        pass(&t, 260_000, &[("local", &local)]).await;
        t.wait("/api/v1/toolboxes/edge", |_, body| body["lost_at"].is_string()).await;
        t.post("/api/v1/servers/one/stop", json!({})).await.expect(202);
        pass(&t, 20_000, &[("local", &local)]).await;
        let stopping = t.get("/api/v1/servers/one").await.expect(200).body;
        assert_eq!((&stopping["phase"], &stopping["reason"]), (&json!("stopping"), &json!("toolbox_unreachable")));
        let message = "its toolbox `edge` is unreachable and may still run it; it counts as stopped once `edge` is heard or removed";
        assert_eq!(stopping["message"], message, "{stopping}");
        t.post("/api/v1/servers/one/start", json!({})).await.expect(202);
        t.wait("/api/v1/servers/one", |_, body| until(body, by_name)).await;
        pass(&t, 20_000, &[("local", &local)]).await;
        assert_eq!(local.deeds(), ["prepare one@2", "stop one@2", "prepare one@1"]);
        t.patch("/api/v1/servers/one", json!({ "toolbox": "local" })).await.expect(202);
        t.wait_rollout("one", "done").await;
        // Together with the change that the stop came before.
        assert_eq!(local.deeds().last().unwrap(), "run one@2");
        let _back = edge.continue_with(&t.control, toolbox_id(&t, "edge").await);
        t.wait("/api/v1/version", |_, _| edge.deeds() == ["run one@1", "stop one@1"]).await;
    }

    async fn a_move_of_what_must_not_run_twice_goes_on_once_its_old_toolbox_is_given_up(engine) {
        let t = TestControl::start(engine).await;
        let edge = t.join("edge").await;
        t.patch("/api/v1/toolboxes/edge", json!({ "labels": { "zone": "a" } })).await.expect(200);
        t.patch("/api/v1/toolboxes/local", json!({ "labels": { "zone": "b" } })).await.expect(200);
        for name in ["one", "two"] {
            let body = json!({ "name": name, "entry": EVERYTHING, "strategy": "recreate" });
            t.post("/api/v1/servers", body).await.expect(201);
            t.wait_rollout(name, "done").await;
        }
        let local = FakeAgent::local(&t.control).await;
        t.wait("/api/v1/toolboxes/local", |_, body| body["state"] == "online").await;
        edge.vanish();
        pass(&t, 60_000, &[("local", &local)]).await;
        t.patch("/api/v1/servers/one", json!({ "toolbox": "local" })).await.expect(202);
        t.patch("/api/v1/servers/two", json!({ "toolbox_labels": { "zone": "b" } })).await.expect(202);
        for name in ["one", "two"] {
            let waits = t.wait(&format!("/api/v1/servers/{name}"), |_, body| body["rollout"]["reason"] == "toolbox_unreachable").await;
            let message = waits["rollout"]["message"].as_str().unwrap();
            assert!(message.starts_with("toolbox `edge`, last heard at 2026-11-22T12:0"), "{message}");
            assert!(message.ends_with("until `edge` is heard, evicted or removed"), "{message}");
        }
        pass(&t, 260_000, &[("local", &local)]).await;
        for name in ["one", "two"] {
            let moved = t.wait_rollout(name, "done").await;
            assert_eq!((moved["instances"].as_array().unwrap().len(), &moved["instances"][0]["toolbox"]), (1, &json!("local")));
        }
        let _back = edge.continue_with(&t.control, toolbox_id(&t, "edge").await);
        t.wait("/api/v1/version", |_, _| edge.deeds().len() == 4).await;
    }

    async fn calls_are_held_from_when_what_serves_is_to_make_room_and_not_for_a_toolbox_that_is_not_heard(engine) {
        let t = TestControl::start(engine).await;
        let edge = t.join("edge").await;
        let body = json!({ "name": "one", "entry": EVERYTHING, "strategy": "recreate", "rollout_timeout_ms": 3_000_000 });
        t.post("/api/v1/servers", body).await.expect(201);
        t.wait_rollout("one", "done").await;
        let local = FakeAgent::local(&t.control).await;
        t.wait("/api/v1/toolboxes/local", |_, body| body["state"] == "online").await;
        // It does not hear that its instance is to end, and goes on saying that it is ready.
        edge.vanish();
        t.patch("/api/v1/servers/one", json!({ "toolbox": "local" })).await.expect(202);
        t.wait_route_with("one", |route| {
            route.target == Target::None && route.is_coming && route.phase == Phase::Stopping
        })
        .await;
        let seen = t.get("/api/v1/servers/one").await.expect(200).body;
        assert_eq!((&seen["phase"], &seen["message"]), (&json!("stopping"), &json!("its instance ends, and another begins")));
        pass(&t, 60_000, &[("local", &local)]).await;
        t.wait_route_with("one", |route| route.target == Target::None && !route.is_coming).await;
        let _back = edge.continue_with(&t.control, toolbox_id(&t, "edge").await);
        t.wait_rollout("one", "done").await;
        t.wait_route_with("one", |route| matches!(route.target, Target::Instances(_))).await;
        assert_eq!(local.deeds(), ["prepare one@1", "run one@1"]);
    }

    async fn with_recreate_a_start_waits_for_the_end_of_what_was_stopped(engine) {
        let t = TestControl::start(engine).await;
        let agent = FakeAgent::local(&t.control).await;
        let body = json!({ "name": "one", "entry": EVERYTHING, "strategy": "recreate" });
        t.post("/api/v1/servers", body).await.expect(201);
        t.wait_rollout("one", "done").await;
        agent.let_end(false);
        t.post("/api/v1/servers/one/stop", json!({})).await.expect(202);
        t.post("/api/v1/servers/one/start", json!({})).await.expect(202);
        t.wait("/api/v1/version", |_, _| agent.deeds().contains(&"prepare one@1".to_owned())).await;
        t.wait_loop("rollout").await;
        assert_eq!(agent.deeds(), ["run one@1", "stop one@1", "prepare one@1"]);
        agent.let_end(true);
        t.wait_rollout("one", "done").await;
        assert_eq!(agent.deeds().last().unwrap(), "run one@1");
    }

    async fn a_control_plane_that_was_restarted_or_held_up_waits_anew(engine) {
        let (t, _edge, local) = vanished(engine).await;
        pass(&t, 240_000, &[("local", &local)]).await;
        // It sleeps for an hour, and hears nobody meanwhile.
        t.clock.step_ms(3_600_000);
        pass(&t, 240_000, &[("local", &local)]).await;
        let (clock, toolbox) = (t.clock.clone(), t.control.local_toolbox().await.unwrap().unwrap());
        let t = TestControl::on(t.stop().await, clock).await;
        let local = local.continue_with(&t.control, toolbox);
        pass(&t, 240_000, &[("local", &local)]).await;
        assert_eq!(t.get("/api/v1/toolboxes/edge").await.expect(200).body["lost_at"], Value::Null);
        pass(&t, 80_000, &[("local", &local)]).await;
        t.wait("/api/v1/toolboxes/edge", |_, body| body["lost_at"].is_string()).await;
    }

    async fn a_time_in_which_the_database_was_away_is_not_counted_as_silence(engine) {
        let (t, _edge, local) = vanished(engine).await;
        pass(&t, 240_000, &[("local", &local)]).await;
        t.database().hide_toolboxes(true).await;
        for _ in 0..2 {
            t.clock.step_ms(40_000);
            t.wait_loop("lost").await;
        }
        t.database().hide_toolboxes(false).await;
        // Longer than what is given altogether, and less since it is back.
        pass(&t, 240_000, &[("local", &local)]).await;
        assert_eq!(t.get("/api/v1/toolboxes/edge").await.expect(200).body["lost_at"], Value::Null);
        pass(&t, 80_000, &[("local", &local)]).await;
        t.wait("/api/v1/toolboxes/edge", |_, body| body["lost_at"].is_string()).await;
    }

    async fn nobody_is_unreachable_for_a_time_in_which_the_database_took_no_writes(engine) {
        let (t, _edge, _local) = vanished(engine).await;
        let state = async || t.get("/api/v1/toolboxes/edge").await.expect(200).body["state"].clone();
        let writes = async |work: bool| {
            t.wait("/api/v1/version", |_, _| t.control.readiness().writes.ready == work).await;
        };
        t.database().refuse_write_checks(true).await;
        writes(false).await;
        t.clock.step_ms(100_000);
        t.wait_loop("follow_up").await;
        assert_eq!(state().await, "online");
        t.database().refuse_write_checks(false).await;
        writes(true).await;
        t.clock.step_ms(29_000);
        t.wait_loop("follow_up").await;
        assert_eq!(state().await, "online", "its agent has time to be heard");
        t.clock.step_ms(2_000);
        t.wait("/api/v1/toolboxes/edge", |_, body| body["state"] == "unreachable").await;
    }

    async fn a_change_that_waits_and_a_canary_keep_nothing_on_a_toolbox_that_vanished(engine) {
        let t = TestControl::start(engine).await;
        let edge = t.join("edge").await;
        for (name, change) in [
            ("waits", json!({ "environment": { "A": "1" }, "update_window": "13:00-14:00" })),
            ("tried", json!({ "environment": { "A": "1" }, "canary": { "weight": 10 } })),
        ] {
            t.deploy(name).await;
            t.patch(&format!("/api/v1/servers/{name}"), change).await.expect(202);
        }
        t.wait("/api/v1/servers/tried", |_, body| body["rollout"]["reason"] == "canary").await;
        let local = FakeAgent::local(&t.control).await;
        t.wait("/api/v1/toolboxes/local", |_, body| body["state"] == "online").await;
        edge.vanish();
        pass(&t, 320_000, &[("local", &local)]).await;
        for (name, count, reason) in [("waits", 1, "outside_window"), ("tried", 2, "canary")] {
            let moved = t.wait(&format!("/api/v1/servers/{name}"), |_, body| {
                let instances = body["instances"].as_array().unwrap();
                instances.len() == count && instances.iter().all(|it| it["toolbox"] == "local" && it["phase"] == "ready")
            }).await;
            assert_eq!((&moved["revision"], &moved["rollout"]["reason"]), (&json!(1), &json!(reason)), "{moved}");
        }
    }

    async fn when_most_toolboxes_vanish_at_once_none_is_given_up(engine) {
        let (t, edge, local) = vanished(engine).await;
        let other = t.join("other").await;
        other.vanish();
        pass(&t, 400_000, &[("local", &local)]).await;
        let held = t.get("/api/v1/toolboxes/edge").await.expect(200).body;
        assert_eq!((&held["state"], &held["lost_at"]), (&json!("unreachable"), &Value::Null));
        assert!(held["message"].as_str().unwrap().contains("more than half of your toolboxes fell silent"), "{held}");
        let lines = audited(&t, "toolbox.replace").await;
        assert_eq!(lines.len(), 1, "said once, of the one with a server that would move: {lines:?}");
        assert_eq!((&lines[0]["outcome"], &lines[0]["detail"]["servers"]), (&json!("refused"), &json!(["free"])));
        assert_eq!(t.get("/api/v1/servers/free").await.body["instances"][0]["toolbox"], "edge");
        let other = other.continue_with(&t.control, toolbox_id(&t, "other").await);
        pass(&t, 45_000, &[("local", &local), ("other", &other)]).await;
        t.wait("/api/v1/toolboxes/edge", |_, body| body["lost_at"].is_string()).await;
        t.wait("/api/v1/servers/free", |_, body| {
            body["instances"].as_array().is_some_and(|all| all.len() == 1 && all[0]["toolbox"] != "edge")
        }).await;
        drop(edge);
    }
}
