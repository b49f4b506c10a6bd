//! Copies of an instance for users and sessions.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use toolyard_dtma::Shutdown;
use toolyard_types::InstanceId;
use toolyard_types::agent::DesiredInstance;
use toolyard_types::spec::{Instancing, InstancingMode};
use toolyard_types::state::Phase;

use crate::world::{World, alive, dies, until};

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
async fn no_more_copies_run_than_may() {
    let world = World::new().await;
    let id = deploy(&world, |instancing| instancing.max_copies = 1).await;
    let alice = who(&world, id, Some("alice")).await;
    let (status, problem) = world.send_as(Some("bob"), id, tool("whoami", json!({})), 5000).await.expect_err("full");
    assert_eq!((status.as_u16(), problem["code"].as_str()), (503, Some("no_capacity")));
    assert_eq!(who(&world, id, Some("alice")).await, alice);
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
