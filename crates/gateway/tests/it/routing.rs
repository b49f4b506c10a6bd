use crate::world::*;
use http::StatusCode;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use toolyard_types::RevisionId;
use toolyard_types::snapshot::{CallOutcome, CanaryRoute, Target};
use toolyard_types::spec::InstancingMode;
use toolyard_types::state::Phase;

const TWO: &str = "/mcp/default/servers/two";

fn is_ok((status, answer): &(StatusCode, serde_json::Value)) -> bool {
    *status == StatusCode::OK && answer["result"].is_object()
}

fn canary(world: &World, instance: &str, weight: u8, clients: &[&str]) -> CanaryRoute {
    CanaryRoute {
        revision: RevisionId::generate(),
        instances: vec![world.instance(instance)],
        weight,
        clients: clients.iter().map(|client| (*client).to_owned()).collect(),
        call_timeout_ms: 20_000,
        instancing: InstancingMode::Shared,
    }
}

#[tokio::test]
async fn calls_go_round_and_round_a_busy_instance() {
    let world = world().replicated("two", &["a", "b"]).start().await;
    for _ in 0..10 {
        assert!(is_ok(&world.call(TWO, "echo").await));
    }
    assert_eq!((world.calls("a"), world.calls("b")), (5, 5));
    let (busy, free) = {
        let slow = world.call(TWO, "slow");
        let others = async {
            let before = (world.calls("a"), world.calls("b"));
            let landed = async {
                while (world.calls("a"), world.calls("b")) == before {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(LONG, landed).await.expect("it lands");
            let busy = if world.calls("a") > before.0 { "a" } else { "b" };
            for _ in 0..6 {
                assert!(is_ok(&world.call(TWO, "echo").await));
            }
            busy
        };
        tokio::select! {
            _ = slow => unreachable!("it never answers"),
            busy = others => if busy == "a" { ("a", "b") } else { ("b", "a") },
        }
    };
    assert_eq!((world.calls(busy), world.calls(free)), (6, 11));
}

#[tokio::test]
async fn an_instance_whose_toolbox_has_no_link_is_passed_by() {
    let world = world().replicated("two", &["a", "b"]).start().await;
    world.cut("a");
    for _ in 0..6 {
        assert!(is_ok(&world.call(TWO, "echo").await));
    }
    assert_eq!((world.calls("a"), world.calls("b")), (0, 6));
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_a_moment_for_a_link_that_was_just_lost_and_not_for_one_that_stays_away() {
    let world = world().replicated("two", &["a", "b"]).start().await;
    world.reroute("two", |route| route.target = Target::Instances(vec![world.instance("a")]));
    world.cut("a");
    let healed = async {
        // Time passes only once the call waits.
        tokio::time::sleep(Duration::from_millis(100)).await;
        world.heal("a");
    };
    let (answer, ()) = tokio::join!(world.call(TWO, "echo"), healed);
    assert!(is_ok(&answer), "{answer:?}");
    world.cut("a");
    let (_, answer) = world.call(TWO, "echo").await;
    assert_eq!(answer["error"]["data"]["code"], "upstream_failed");
    let began = tokio::time::Instant::now();
    let (_, answer) = world.call(TWO, "echo").await;
    assert_eq!(answer["error"]["data"]["code"], "upstream_failed");
    assert!(began.elapsed() < Duration::from_secs(1), "only the first calls wait");
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_a_moment_also_when_no_instance_of_several_has_its_link_yet() {
    let world = world().replicated("two", &["a", "b"]).start().await;
    world.cut("a");
    world.cut("b");
    let healed = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        world.heal("a");
        world.heal("b");
    };
    let (answer, ()) = tokio::join!(world.call(TWO, "echo"), healed);
    assert!(is_ok(&answer), "{answer:?}");
}

#[tokio::test]
async fn calls_are_held_for_a_server_that_starts_and_not_for_one_that_failed() {
    let world = world().replicated("two", &["a"]).toolset("all", &["two"]).start().await;
    let all = "/mcp/default/toolsets/all";
    assert!(is_ok(&world.call(all, "two__echo").await), "its tools are known");
    for (path, tool) in [(TWO, "echo"), (all, "two__echo")] {
        world.reroute("two", |route| (route.target, route.is_coming) = (Target::None, true));
        let started = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let target = Target::Instances(vec![world.instance("a")]);
            world.reroute("two", |route| (route.target, route.is_coming, route.phase) = (target, false, Phase::Ready));
        };
        let (answer, ()) = tokio::join!(world.call(path, tool), started);
        assert!(is_ok(&answer), "{path}: {answer:?}");
        world.reroute("two", |route| (route.target, route.phase) = (Target::None, Phase::Failed));
        let began = Instant::now();
        let (_, answer) = world.call(path, tool).await;
        assert_eq!(answer["error"]["data"]["code"], "server_not_ready", "{path}");
        assert!(began.elapsed() < Duration::from_millis(500));
    }
}

/// What was ready was told to make room, and its agent has not heard of it.
fn makes_room(route: &mut toolyard_types::snapshot::ServerRoute) {
    (route.target, route.is_coming, route.phase) = (Target::None, true, Phase::Ready);
}

#[tokio::test]
async fn calls_are_held_while_an_instance_makes_room_whatever_the_phase_says_and_their_records_tell_the_whole_time() {
    let mut world = world().replicated("two", &["a"]).start().await;
    world.reroute("two", makes_room);
    let moved = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let target = Target::Instances(vec![world.instance("a")]);
        world.reroute("two", |route| (route.target, route.is_coming) = (target, false));
    };
    let (answer, ()) = tokio::join!(world.call(TWO, "echo"), moved);
    assert!(is_ok(&answer), "{answer:?}");
    let record = world.record().await;
    assert_eq!(record.outcome, CallOutcome::Ok);
    assert!(record.duration_us >= 300_000, "what it was held is part of it: {} us", record.duration_us);
    // Nobody comes.
    world.reroute("two", makes_room);
    let (_, answer) = world.call(TWO, "echo").await;
    assert_eq!(answer["error"]["data"]["code"], "server_not_ready", "{answer}");
    assert!(!answer["error"]["message"].as_str().unwrap().contains("ready: "), "{answer}");
    let record = world.record().await;
    assert_eq!(record.outcome, CallOutcome::ServerNotReady, "as the client was told");
    assert!(record.duration_us >= 1_900_000, "held for two seconds here: {} us", record.duration_us);
}

#[tokio::test]
async fn a_request_that_waited_for_news_of_its_server_is_not_let_in_again_and_again_at_the_end_of_its_hold() {
    let world = world().replicated("two", &["a"]).start().await;
    world.reroute("two", makes_room);
    let with_it = world.snapshots.borrow().clone();
    world.snapshots.send_modify(|snapshot| {
        let snapshot = Arc::make_mut(snapshot);
        Arc::make_mut(snapshot.organizations.get_mut("default").unwrap()).servers.remove("two");
    });
    let news = async {
        // A part of the time for which a request is held has gone by.
        tokio::time::sleep(Duration::from_millis(20)).await;
        world.clock.step_ms(1);
        let mut next = (*with_it).clone();
        (next.version, next.made_at) = (next.version + 1, world.clock.now());
        world.snapshots.send_replace(Arc::new(next));
    };
    let ((_, answer), ()) = tokio::join!(world.call(TWO, "echo"), news);
    assert_eq!(answer["error"]["data"]["code"], "server_not_ready", "{answer}");
    let let_in = world.let_in.load(std::sync::atomic::Ordering::Relaxed);
    assert!(let_in <= 2, "once with the news, and once when nobody came: {let_in}");
}

#[tokio::test]
async fn lists_and_handshakes_are_held_while_an_instance_makes_room() {
    let world = world().replicated("two", &["a"]).start().await;
    world.reroute("two", makes_room);
    let moved = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let target = Target::Instances(vec![world.instance("a")]);
        world.reroute("two", |route| (route.target, route.is_coming) = (target, false));
    };
    tokio::join!(ask_everything(&world), moved);
}

#[tokio::test]
async fn a_client_of_a_canary_does_not_wait_for_the_instance_of_the_others() {
    let world = world().replicated("two", &["old", "new"]).start().await;
    let trial = canary(&world, "new", 0, &[KEY]);
    world.reroute("two", |route| {
        makes_room(route);
        route.canary = Some(trial);
    });
    let began = Instant::now();
    assert!(is_ok(&world.call(TWO, "echo").await));
    assert!(began.elapsed() < Duration::from_secs(1), "the others' instance never comes here");
}

#[tokio::test(start_paused = true)]
async fn a_call_to_a_toolbox_that_lost_its_link_goes_to_the_instance_that_takes_over_elsewhere() {
    let world = world().replicated("two", &["a", "b"]).start().await;
    let (only, other) = (world.instance("a"), world.instance("b"));
    world.reroute("two", |route| route.target = Target::Instances(vec![only]));
    world.cut("a");
    let moved = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        world.reroute("two", makes_room);
        tokio::time::sleep(Duration::from_millis(200)).await;
        world.reroute("two", |route| (route.target, route.is_coming) = (Target::Instances(vec![other]), false));
    };
    let (answer, ()) = tokio::join!(world.call(TWO, "echo"), moved);
    assert!(is_ok(&answer), "{answer:?}");
    assert_eq!((world.calls("a"), world.calls("b")), (0, 1));
}

#[tokio::test]
async fn a_call_is_held_for_an_instance_that_is_started_again_under_its_agent() {
    let world = world().replicated("two", &["a"]).start().await;
    let connection = world.lose("a");
    let back = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        world.put_back("a", connection);
    };
    let (answer, ()) = tokio::join!(world.call(TWO, "echo"), back);
    assert!(is_ok(&answer), "{answer:?}");
    world.lose("a");
    let began = Instant::now();
    let (_, answer) = world.call(TWO, "echo").await;
    assert_eq!(answer["error"]["data"]["code"], "server_not_ready");
    assert!(began.elapsed() < Duration::from_secs(4), "two seconds here, and no longer");
}

#[tokio::test]
async fn a_call_that_was_not_delivered_is_given_to_another_instance_and_one_that_was_is_not() {
    let world = world().replicated("two", &["a", "b"]).start().await;
    world.stop("a");
    for _ in 0..6 {
        assert!(is_ok(&world.call(TWO, "echo").await));
    }
    assert_eq!((world.calls("a"), world.calls("b")), (0, 6));
    let world = crate::world::world().replicated("two", &["a", "b"]).start().await;
    let slow = world.call(TWO, "slow");
    let broken = async {
        let landed = async {
            while world.calls("a") + world.calls("b") == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, landed).await.expect("it lands");
        world.break_toolbox();
    };
    let ((_, answer), ()) = tokio::join!(slow, broken);
    assert_eq!(answer["error"]["data"]["code"], "upstream_failed", "{answer}");
    assert_eq!(world.calls("a") + world.calls("b"), 1);
}

#[tokio::test]
async fn a_call_is_recorded_with_the_revision_that_had_it() {
    let mut world = world().replicated("two", &["old", "new"]).start().await;
    let (old, mut trial) = (world.instance("old"), canary(&world, "new", 0, &[]));
    let (stable, tried) = (RevisionId::generate(), trial.revision);
    world.reroute("two", |route| {
        route.revision = Some(stable);
        route.target = Target::Instances(vec![old.clone()]);
        route.canary = Some(trial.clone());
    });
    assert!(is_ok(&world.call(TWO, "echo").await));
    assert_eq!(world.record().await.revision, Some(stable));
    trial.clients = vec![KEY.to_owned()];
    world.reroute("two", |route| route.canary = Some(trial.clone()));
    assert!(is_ok(&world.call(TWO, "echo").await));
    assert_eq!(world.record().await.revision, Some(tried));
}

#[tokio::test]
async fn a_canary_gets_exactly_its_part_and_every_call_of_the_clients_it_lists() {
    let world = world().replicated("two", &["old", "new"]).start().await;
    let old = world.instance("old");
    world.reroute("two", |route| {
        route.target = Target::Instances(vec![old]);
        route.canary = Some(canary(&world, "new", 10, &[]));
    });
    for _ in 0..1000 {
        assert!(is_ok(&world.call(TWO, "echo").await));
    }
    assert_eq!((world.calls("old"), world.calls("new")), (900, 100));
    world.reroute("two", |route| route.canary = Some(canary(&world, "new", 0, &[KEY])));
    for _ in 0..10 {
        assert!(is_ok(&world.call(TWO, "echo").await));
    }
    assert_eq!(world.calls("new"), 110);
    world.fixture("new").set_tools(r#"{"name":"newer"}"#);
    let listed = tool_names(&json(world.modern(TWO, "tools/list", None, "").await).await);
    assert_eq!(listed, ["newer"], "a client of the canary sees what it lists");
    // A canary that takes nothing any more costs nobody a call.
    world.stop("new");
    assert!(is_ok(&world.call(TWO, "echo").await));
    assert_eq!(world.calls("old"), 901);
}

/// Fifty calls a second over a switch from one instance to another; `stops_first` when the old instance takes no
/// calls any more a moment before the gateway hears of the new one.
async fn calls_over_a_switch(stops_first: bool) {
    const CALLS: usize = 60;
    let world = Arc::new(world().replicated("two", &["old", "new"]).start().await);
    let (old, new) = (world.instance("old"), world.instance("new"));
    world.reroute("two", |route| route.target = Target::Instances(vec![old]));
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..CALLS {
        pace.tick().await;
        let switch = || {
            world.reroute("two", |route| {
                route.revision = Some(RevisionId::generate());
                route.target = Target::Instances(vec![new.clone()]);
            });
        };
        match (number, stops_first) {
            (20, true) | (25, false) => world.stop("old"),
            (25, true) | (20, false) => switch(),
            _ => {}
        }
        let world = world.clone();
        calls.spawn(async move { world.call(TWO, "delay").await });
    }
    let answers = tokio::time::timeout(LONG, calls.join_all()).await.expect("all are answered");
    let failed: Vec<_> = answers.iter().filter(|answer| !is_ok(answer)).collect();
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(world.calls("old") + world.calls("new"), CALLS);
    assert!(world.calls("old") >= 20 && world.calls("new") >= 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_under_fifty_calls_a_second_fails_none_of_them() {
    calls_over_a_switch(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_that_is_heard_of_late_fails_no_call_either() {
    calls_over_a_switch(true).await;
}

#[tokio::test]
async fn calls_of_a_server_with_copies_name_their_users_or_sessions_and_lists_do_not() {
    let world = world().replicated("two", &["a", "b"]).start().await;
    world.reroute("two", |route| route.instancing = InstancingMode::PerUser);
    assert!(is_ok(&world.call(TWO, "echo").await));
    world.modern(TWO, "tools/list", None, "").await;
    let keys = world.take_keys();
    let user = keys[0].clone().expect("a call has a key");
    assert!(user.len() == 64 && user.bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert!(keys.len() > 1 && keys[1..].iter().all(Option::is_none));
    for _ in 0..4 {
        assert!(is_ok(&world.call(TWO, "echo").await));
    }
    assert!(world.take_keys().iter().all(|key| key.as_ref() == Some(&user)));
    assert!(world.calls("a") == 0 || world.calls("b") == 0, "one user stays with one instance");

    world.reroute("two", |route| route.instancing = InstancingMode::PerSession);
    let mut sessions = Vec::new();
    for _ in 0..2 {
        let session = world.initialize(TWO, "2025-06-18").await;
        world.take_keys();
        for id in 1..=2 {
            let body = format!(
                r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"echo","arguments":{{}}}}}}"#
            );
            assert_eq!(world.legacy(TWO, &session, body).await.status(), StatusCode::OK);
        }
        let keys = world.take_keys();
        assert_eq!(keys[0], keys[1]);
        sessions.push(keys[0].clone().expect("a key"));
    }
    assert!(sessions[0] != sessions[1] && !sessions.contains(&user));
    assert!(is_ok(&world.call(TWO, "echo").await));
    assert_eq!(world.take_keys(), [Some(user)], "a client without sessions has the copy of its user");
}

#[tokio::test]
async fn a_session_that_is_ended_ends_its_copies_and_nobody_elses() {
    let world = world().replicated("two", &["a", "b"]).toolset("all", &["two"]).start().await;
    world.reroute("two", |route| route.instancing = InstancingMode::PerUser);
    let of_a_user = world.initialize(TWO, "2025-06-18").await;
    assert_eq!(world.end_session(TWO, &of_a_user).await, StatusCode::NO_CONTENT);

    world.reroute("two", |route| route.instancing = InstancingMode::PerSession);
    let session = world.initialize(TWO, "2025-06-18").await;
    world.take_keys();
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{}}}"#;
    assert_eq!(world.legacy(TWO, &session, body).await.status(), StatusCode::OK);
    let key = world.take_keys()[0].clone().expect("a key");
    assert_eq!(world.end_session(TWO, &session).await, StatusCode::NO_CONTENT);
    let at = |names: &[&str]| names.iter().map(|name| world.instance(name).id).collect::<HashSet<_>>();
    // Either may have been asked while the other could not be reached.
    let ended = world.ended_copies(2).await;
    assert_eq!(ended.iter().map(|(instance, _)| *instance).collect::<HashSet<_>>(), at(&["a", "b"]));
    assert!(ended.iter().all(|(_, ended)| *ended == key), "{ended:?} {key}");
    assert_eq!(world.end_session(TWO, &session).await, StatusCode::NOT_FOUND);

    let all = "/mcp/default/toolsets/all";
    let session = world.initialize(all, "2025-06-18").await;
    assert_eq!(world.end_session(all, &session).await, StatusCode::NO_CONTENT);
    let ended = world.ended_copies(4).await;
    assert!(ended.len() == 4 && ended[2..].iter().all(|(_, ended)| *ended != key), "{ended:?}");
}

#[tokio::test]
async fn a_toolbox_that_cannot_be_told_of_an_ended_session_keeps_its_client_waiting_for_nothing() {
    let world = world().replicated("two", &["a", "b"]).start().await;
    let (a, trial) = (world.instance("a"), canary(&world, "b", 0, &[]));
    world.reroute("two", |route| {
        route.instancing = InstancingMode::PerSession;
        route.target = Target::Instances(vec![a]);
        route.canary = Some(CanaryRoute { instancing: InstancingMode::PerSession, ..trial });
    });
    let session = world.initialize(TWO, "2025-06-18").await;
    world.cut("a");
    assert_eq!(world.end_session(TWO, &session).await, StatusCode::NO_CONTENT);
    let ended = world.ended_copies(1).await;
    assert_eq!(ended[0].0, world.instance("b").id, "a canary has copies of its own");
}

/// What a client asks for before it calls, of which all has to be answered.
async fn ask_everything(world: &World) {
    for method in ["tools/list", "prompts/list", "resources/list", "resources/templates/list", "server/discover"] {
        let answer = json(world.modern(TWO, method, None, "").await).await;
        assert!(answer["result"].is_object(), "{method}: {answer}");
    }
    world.initialize(TWO, "2025-06-18").await;
}

#[tokio::test]
async fn lists_and_handshakes_come_from_whichever_instance_can_be_asked() {
    for lose in [true, false] {
        let world = world().replicated("two", &["a", "b"]).start().await;
        if lose {
            // The gateway finds out only when it asks.
            world.lose("a");
        } else {
            world.cut("a");
        }
        let began = Instant::now();
        ask_everything(&world).await;
        assert!(began.elapsed() < Duration::from_secs(1), "nothing is held while one answers");
    }
}

#[tokio::test(start_paused = true)]
async fn lists_and_handshakes_wait_a_moment_for_a_link_that_is_not_there_yet() {
    let world = world().replicated("two", &["a"]).start().await;
    world.cut("a");
    let healed = async {
        tokio::time::sleep(Duration::from_millis(1000)).await;
        world.heal("a");
    };
    tokio::join!(ask_everything(&world), healed);
}
