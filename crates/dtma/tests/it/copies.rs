//! Copies of an instance for users and sessions.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use toolyard_dtma::Shutdown;
use toolyard_types::InstanceId;
use toolyard_types::agent::DesiredInstance;
use toolyard_types::spec::{Instancing, InstancingMode};
use toolyard_types::state::Phase;

use crate::world::{PATIENCE, World, alive, dies, until};

fn per_user(instance: &mut DesiredInstance, change: impl FnOnce(&mut Instancing)) {
    instance.spec.instancing.mode = InstancingMode::PerUser;
    change(&mut instance.spec.instancing);
}

async fn deploy(world: &World, change: impl FnOnce(&mut Instancing)) -> InstanceId {
    let id = world.deploy_with(&["ok"], |instance| per_user(instance, change)).await;
    world.phase(id, Phase::Ready).await;
    id
}

fn tool(name: &str, arguments: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": name, "arguments": arguments } })
}

/// Who answers a call with this key.
async fn who(world: &World, id: InstanceId, key: Option<&str>) -> Value {
    let answers = world.send_as(key, id, tool("whoami", json!({})), 30_000).await.expect("an answer");
    let text = answers[0]["result"]["content"][0]["text"].as_str().expect("text").to_owned();
    serde_json::from_str(&text).expect("JSON")
}

/// Who answers a call of a caller with this key; the problem's code when nobody does.
async fn who_for(world: &World, id: InstanceId, caller: &str, key: &str) -> Result<Value, String> {
    let answers = world.send_of(Some(caller), Some(key), id, tool("whoami", json!({})), 30_000).await;
    let answers = answers.map_err(|(_, problem)| problem["code"].as_str().unwrap_or_default().to_owned())?;
    let text = answers[0]["result"]["content"][0]["text"].as_str().expect("text").to_owned();
    Ok(serde_json::from_str(&text).expect("JSON"))
}

const ANN: &str = "000000000000000000000000000000a1";
const BEN: &str = "000000000000000000000000000000b2";
const CLEO: &str = "000000000000000000000000000000c3";

/// The processes of copies, in the host's numbering, by their directories.
fn copies(world: &World, id: InstanceId) -> Vec<InstanceId> {
    let dirs = std::fs::read_dir(world.data_dir().join("instances")).expect("a directory").flatten();
    let ids = dirs.filter_map(|dir| dir.file_name().to_str()?.parse::<InstanceId>().ok());
    ids.filter(|other| *other != id && world.instance_dir(*other).join("copy.json").exists()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_key_has_one_copy_of_its_own_and_none_outlives_the_instance() {
    let world = World::new().await;
    let id = deploy(&world, |_| {}).await;
    let base = who(&world, id, None).await;
    let first = futures_util::future::join_all((0..5).map(|_| who(&world, id, Some("alice-0123456789")))).await;
    let alices: BTreeSet<_> = first.iter().map(Value::to_string).collect();
    assert_eq!(alices.len(), 1, "calls that come together start one copy");
    let bob = who(&world, id, Some("bob")).await;
    let dirs: BTreeSet<_> = [&base, &first[0], &bob].iter().map(|who| who["cwd"].to_string()).collect();
    assert_eq!(dirs.len(), 3);
    if world.report().enforcement["own_uid"].enforced {
        let uids: BTreeSet<_> = [&base, &first[0], &bob].iter().map(|who| who["uid"].to_string()).collect();
        assert_eq!(uids.len(), 3);
    }
    world.observed("two copies", id, |instance| instance.copies == 2).await;
    world.observe("and they are no instances", |observed| (observed.instances.len() == 1).then_some(())).await;
    world.send_as(Some("bob"), id, tool("say", json!({ "message": "I am his" })), 30_000).await.expect("said");
    world.logged(id, "Stderr [bob] I am his").await;
    world.logged(id, "Stderr [alice-01] fixture ok starts").await;

    let (status, problem) = world.send_as(Some("not a key"), id, tool("echo", json!({})), 1000).await.expect_err("no");
    assert_eq!((status.as_u16(), problem["code"].as_str()), (400, Some("bad_request")));

    world.undesire(id);
    world.gone(id).await;
    assert_eq!(copies(&world, id), Vec::<InstanceId>::new());
    let left = crate::world::processes_with(&world.data_dir().join("instances").to_string_lossy());
    assert_eq!(left, Vec::<u32>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_nobody_calls_is_stopped_and_started_again_when_somebody_does() {
    let world = World::new().await;
    let id = deploy(&world, |instancing| instancing.idle_stop_ms = 1000).await;
    let first = who(&world, id, Some("alice")).await;
    let slow = world.send_as(Some("alice"), id, tool("sleep", json!({ "ms": 2500 })), 30_000).await;
    assert_eq!(slow.expect("kept while it is called")[0]["result"]["content"][0]["text"], "slept");
    assert_eq!(who(&world, id, Some("alice")).await, first);
    world.observed("stopped", id, |instance| instance.copies == 0).await;
    until("its directory is gone", || copies(&world, id).is_empty()).await;
    assert_ne!(who(&world, id, Some("alice")).await["cwd"], first["cwd"]);
    assert_eq!(who(&world, id, None).await, who(&world, id, None).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_hangs_for_good_is_started_again_and_no_other_is() {
    let mut world = World::new().await;
    world.restart_agent_that_waits(std::time::Duration::from_secs(2)).await;
    let id = deploy(&world, |_| {}).await;
    let bob = who(&world, id, Some("bob")).await;
    world.send_as(Some("alice"), id, tool("hang", json!({})), 30_000).await.expect("it answers once more");
    let again = async {
        while world.log_text(id).await.matches("Toolyard [alice] ready after").count() < 2 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.expect("it is started again");
    world.logged(id, "Toolyard [alice] it stopped answering").await;
    who(&world, id, Some("alice")).await;
    assert_eq!(who(&world, id, Some("bob")).await, bob);
    assert_eq!(world.phase(id, Phase::Ready).await.restarts, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_copies_run_than_may() {
    let world = World::new().await;
    let id = deploy(&world, |instancing| instancing.max_copies = 1).await;
    let alice = who(&world, id, Some("alice")).await;
    let (status, problem) = world.send_as(Some("bob"), id, tool("whoami", json!({})), 5000).await.expect_err("full");
    assert_eq!((status.as_u16(), problem["code"].as_str()), (503, Some("no_capacity")));
    assert_eq!(who(&world, id, Some("alice")).await, alice);
}

/// The name of a call.
const CALL: &str = "0000000000000000000000000000ca11";

/// Says with a key that a call is given up.
async fn give_up(world: &World, id: InstanceId, key: &str) -> Result<Vec<Value>, (http::StatusCode, Value)> {
    let params = json!({ "requestId": CALL, "reason": "enough" });
    let cancelled = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": params });
    let headers = [("toolyard-instance-key", Some(key)), ("toolyard-call", Some(CALL))];
    world.send_with(&headers, id, cancelled, 2000).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_gives_up_a_call_whose_copy_is_gone_starts_none_and_has_none_give_way() {
    let world = World::new().await;
    let id = deploy(&world, |instancing| instancing.max_copies = 1).await;
    assert_eq!(give_up(&world, id, "alice").await, Ok(Vec::new()));
    // The one place is free still.
    let bob = who(&world, id, Some("bob")).await;
    assert_eq!(give_up(&world, id, "alice").await, Ok(Vec::new()));
    let answer = json!({ "jsonrpc": "2.0", "id": 1, "result": {} });
    assert_eq!(
        world.send_as(Some("alice"), id, answer, 2000).await,
        Ok(Vec::new()),
        "nor does an answer to its server"
    );
    assert_eq!(who(&world, id, Some("bob")).await, bob);
    assert_eq!(copies(&world, id).len(), 1);

    let headers = [("toolyard-instance-key", Some("bob")), ("toolyard-call", Some(CALL))];
    let slow = world.send_with(&headers, id, tool("sleep", json!({ "ms": 10_000 })), 30_000);
    let giving_up = async {
        // It has begun before this does.
        tokio::task::yield_now().await;
        give_up(&world, id, "bob").await
    };
    let (slow, given_up) = tokio::join!(biased; slow, giving_up);
    assert_eq!(given_up, Ok(Vec::new()));
    let (_, problem) = slow.expect_err("it is given up");
    assert_eq!(problem["code"], "upstream_failed", "{problem}");
    assert_eq!(who(&world, id, Some("bob")).await, bob, "a copy that is there goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_gives_up_a_call_takes_no_copy_that_was_started_ahead() {
    let world = World::new().await;
    let id = deploy(&world, |instancing| instancing.warm = 1).await;
    world.observed("one is ahead", id, |instance| instance.copies == 1).await;
    let ahead = copies(&world, id);
    assert_eq!(give_up(&world, id, "bob").await, Ok(Vec::new()));
    let alice = who(&world, id, Some("alice")).await;
    assert!(alice["cwd"].as_str().expect("a path").contains(&ahead[0].to_string()), "{alice} {ahead:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_whose_session_has_ended_ends_at_once_or_after_the_call_that_it_has() {
    let world = World::new().await;
    let id = deploy(&world, |_| {}).await;
    let (first, other) = (who(&world, id, Some("first-session")).await, who(&world, id, Some("other")).await);
    world.observed("two copies", id, |instance| instance.copies == 2).await;
    assert_eq!(world.end_copy(Some("first-session"), &id.to_string()).await.as_u16(), 204);
    world.observed("one has ended", id, |instance| instance.copies == 1).await;
    until("its directory is gone", || copies(&world, id).len() == 1).await;
    world.logged(id, "[first-se] this copy ends: its session has ended").await;
    assert_eq!(who(&world, id, Some("other")).await, other);
    assert_ne!(who(&world, id, Some("first-session")).await["cwd"], first["cwd"]);

    let slow = world.send_as(Some("other"), id, tool("sleep", json!({ "ms": 2000 })), 30_000);
    let ending = async {
        // It has begun before this does.
        tokio::task::yield_now().await;
        world.end_copy(Some("other"), &id.to_string()).await
    };
    let (slow, ended) = tokio::join!(biased; slow, ending);
    assert_eq!(slow.expect("it goes on to its end")[0]["result"]["content"][0]["text"], "slept");
    assert_eq!(ended.as_u16(), 204);
    world.logged(id, "[other] this copy ends: its session has ended").await;
    until("it has ended", || copies(&world, id).len() == 1).await;

    for (key, instance, status) in [
        (Some("nobody's"), id.to_string(), 400),
        (None, id.to_string(), 400),
        (Some("nobodys"), id.to_string(), 204),
        (Some("other"), InstanceId::generate().to_string(), 204),
        (Some("other"), "none".to_owned(), 404),
    ] {
        assert_eq!(world.end_copy(key, &instance).await.as_u16(), status, "{key:?} {instance}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_one_after_the_other_need_one_place_when_each_is_ended() {
    let world = World::new().await;
    let id = deploy(&world, |instancing| instancing.max_copies = 1).await;
    for session in ["one", "two", "three", "four"] {
        who_for(&world, id, ANN, session).await.expect("there is room for it");
        assert_eq!(world.end_copy(Some(session), &id.to_string()).await.as_u16(), 204);
    }
    until("none is left", || copies(&world, id).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_with_more_sessions_than_may_loses_the_copy_they_used_longest_ago() {
    let world = World::new().await;
    let id = deploy(&world, |instancing| instancing.max_copies = 2).await;
    let one = who_for(&world, id, ANN, "one").await.expect("a copy");
    let two = who_for(&world, id, ANN, "two").await.expect("a copy");
    who_for(&world, id, ANN, "three").await.expect("a copy");
    assert_eq!(who_for(&world, id, ANN, "two").await.expect("it is there"), two);
    world.logged(id, "[one] this copy gives way to another one").await;
    world.observed("no more than may", id, |instance| instance.copies == 2).await;
    assert_ne!(who_for(&world, id, ANN, "one").await.expect("a new one")["cwd"], one["cwd"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_most_copies_gives_one_up_to_who_has_none_and_none_with_a_call() {
    let world = World::new().await;
    let id = deploy(&world, |instancing| instancing.max_copies = 2).await;
    let busy = who_for(&world, id, ANN, "busy").await.expect("a copy");
    let idle = who_for(&world, id, ANN, "idle").await.expect("a copy");
    let slow = world.send_of(Some(ANN), Some("busy"), id, tool("sleep", json!({ "ms": 2000 })), 30_000);
    let newcomer = async {
        tokio::task::yield_now().await;
        who_for(&world, id, BEN, "bens").await
    };
    let (slow, bens) = tokio::join!(biased; slow, newcomer);
    assert_eq!(slow.expect("it goes on")[0]["result"]["content"][0]["text"], "slept");
    let bens = bens.expect("a copy");
    assert_eq!(who_for(&world, id, ANN, "busy").await.expect("it is there"), busy);
    world.logged(id, "[idle] this copy gives way to another one").await;
    // Now they have one each, and were just called.
    assert_eq!(who_for(&world, id, CLEO, "cleos").await, Err("no_capacity".to_owned()));
    assert_eq!(who_for(&world, id, BEN, "bens").await.expect("it is there"), bens);
    assert_ne!(who_for(&world, id, ANN, "idle").await.expect("for their other one")["cwd"], idle["cwd"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_gives_way_and_ends_with_its_session_like_a_process() {
    let world = World::docker().await;
    let id = deploy(&world, |instancing| instancing.max_copies = 1).await;
    let read = || tool("read_file", json!({ "path": "/etc/hostname" }));
    for session in ["one", "two"] {
        world.send_of(Some(ANN), Some(session), id, read(), 30_000).await.expect("an answer");
    }
    world.logged(id, "[one] this copy gives way to another one").await;
    assert_eq!(world.end_copy(Some("two"), &id.to_string()).await.as_u16(), 204);
    world.observed("it has ended", id, |instance| instance.copies == 0).await;
    world.undesire(id);
    world.gone(id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_started_ahead_are_given_to_who_comes_and_replaced() {
    let world = World::new().await;
    let id = deploy(&world, |instancing| instancing.warm = 1).await;
    world.observed("one is ahead", id, |instance| instance.copies == 1).await;
    let ahead = copies(&world, id);
    let alice = who(&world, id, Some("alice")).await;
    assert!(alice["cwd"].as_str().expect("a path").contains(&ahead[0].to_string()), "{alice} {ahead:?}");
    world.observed("another is ahead", id, |instance| instance.copies == 2).await;
    assert_eq!(who(&world, id, Some("alice")).await, alice);
    assert_ne!(who(&world, id, Some("bob")).await["cwd"], alice["cwd"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_agent_goes_on_with_copies_and_hands_nobodys_to_anybody() {
    let mut world = World::new().await;
    let id = deploy(&world, |instancing| instancing.warm = 1).await;
    world.observed("one is ahead", id, |instance| instance.copies == 1).await;
    let alice = who(&world, id, Some("alice")).await;
    world.observed("another is ahead", id, |instance| instance.copies == 2).await;
    let key_of =
        |copy: &InstanceId| std::fs::read_to_string(world.instance_dir(*copy).join("copy.json")).unwrap_or_default();
    until("whose it is was noted", || copies(&world, id).iter().any(|copy| key_of(copy).contains("alice"))).await;
    let nobodys = copies(&world, id).into_iter().find(|copy| !key_of(copy).contains("alice")).expect("one is ahead");
    world.agent().shutdown(Shutdown::Leave).await;
    world.start_agent().await;
    world.phase(id, Phase::Ready).await;
    assert_eq!(who(&world, id, Some("alice")).await, alice);
    until("nobody's has ended", || !copies(&world, id).contains(&nobodys)).await;
    assert_ne!(who(&world, id, Some("bob")).await["cwd"], alice["cwd"]);
    let base = world.phase(id, Phase::Ready).await.pid.expect("a pid");
    world.agent().shutdown(Shutdown::StopAll).await;
    assert!(!alive(base));
    dies(base).await;
    let left = crate::world::processes_with(&world.data_dir().join("instances").to_string_lossy());
    assert_eq!(left, Vec::<u32>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_a_container_of_its_own() {
    let world = World::docker().await;
    let id = deploy(&world, |instancing| instancing.idle_stop_ms = 3000).await;
    let host = async |key: Option<&str>| {
        let read = tool("read_file", json!({ "path": "/etc/hostname" }));
        let answers = world.send_as(key, id, read, 30_000).await.expect("an answer");
        answers[0]["result"]["content"][0]["text"].as_str().expect("text").to_owned()
    };
    let hosts: BTreeSet<_> = [host(None).await, host(Some("alice")).await, host(Some("bob")).await].into();
    assert_eq!(hosts.len(), 3);
    world.logged(id, "Stderr [alice] fixture ok starts").await;
    world.observed("idle copies ended", id, |instance| instance.copies == 0).await;
    world.undesire(id);
    world.gone(id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_asks_for_progress_hears_that_its_copy_is_being_started() {
    let world = World::new().await;
    let id = world.deploy_with(&["slow-start", "2500"], |instance| per_user(instance, |_| {})).await;
    world.phase(id, Phase::Ready).await;
    let mut call = tool("echo", json!({ "message": "at last" }));
    call["params"]["_meta"] = json!({ "progressToken": "mine" });
    let heard = world.send_as(Some("alice"), id, call.clone(), 30_000).await.expect("an answer");
    let (answer, words) = heard.split_last().expect("several messages");
    assert_eq!(answer["result"]["content"][0]["text"], "at last");
    assert!(!words.is_empty() && words.iter().all(|word| word["params"]["progressToken"] == "mine"), "{words:?}");
    assert!(words.iter().all(|word| word["method"] == "notifications/progress"));

    let late = world.send_as(Some("bob"), id, call, 1500).await.expect("an answer has begun");
    let error = &late.last().expect("an error")["error"];
    assert_eq!(error["data"]["code"], "upstream_timeout");
    let (_, problem) = world.send_as(Some("carol"), id, tool("echo", json!({})), 1500).await.expect_err("too late");
    assert_eq!(problem["code"], "upstream_timeout");
}
