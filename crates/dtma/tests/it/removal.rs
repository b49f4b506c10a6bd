//! An agent whose control plane says that its toolbox was removed, or refuses it otherwise.

use serde_json::json;
use toolyard_dtma::Shutdown;
use toolyard_types::Code;
use toolyard_types::state::Phase;

use crate::world::{World, alive, dies, with_secret};

/// What is kept for a restart.
fn kept(world: &World) -> serde_json::Value {
    let bytes = std::fs::read(world.data_dir().join("desired.json")).expect("it is kept");
    serde_json::from_slice(&bytes).expect("JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_its_toolbox_was_removed_an_agent_ends_what_it_runs_and_starts_nothing_again() {
    let mut world = World::new().await;
    let id = world.deploy_with(&["ok"], |instance| with_secret(instance, "API_KEY", "sesame")).await;
    let pid = world.phase(id, Phase::Ready).await.pid.expect("a pid");
    world.refuse(Some(Code::ToolboxRemoved));
    dies(pid).await;
    world.gone(id).await;
    assert_eq!(kept(&world)["desired"]["instances"], json!([]));

    // Neither with the control plane's word nor without.
    world.agent().shutdown(Shutdown::Leave).await;
    world.start_agent().await;
    assert_eq!(world.slot_phase(id), None);
    assert_eq!(kept(&world)["desired"]["generation"], 0);

    // A database that was set back to when it was there: all that is desired comes down, of whichever generation.
    world.agent().shutdown(Shutdown::Leave).await;
    world.refuse(None);
    world.start_agent().await;
    world.phase(id, Phase::Ready).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_outlived_the_agent_of_a_removed_toolbox_ends_when_that_is_back() {
    let mut world = World::new().await;
    let id = world.deploy(&["ok"]).await;
    let pid = world.phase(id, Phase::Ready).await.pid.expect("a pid");
    world.drop_agent();
    world.refuse(Some(Code::ToolboxRemoved));
    world.start_agent().await;
    dies(pid).await;
    world.gone(id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_agent_runs_goes_on_when_its_certificate_was_revoked() {
    let mut world = World::new().await;
    let id = world.deploy(&["ok"]).await;
    let pid = world.phase(id, Phase::Ready).await.pid.expect("a pid");
    let generation = kept(&world)["desired"]["generation"].clone();
    world.refuse(Some(Code::CertificateRevoked));
    world.drop_agent();
    world.start_agent().await;
    world.phase(id, Phase::Ready).await;
    assert!(alive(pid));
    assert_eq!(kept(&world)["desired"]["generation"], generation);
    assert_eq!(world.call(id, "echo", json!({ "message": "still" })).await, "still");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_joins_as_another_toolbox_begins_at_that_ones_generation() {
    let mut world = World::new().await;
    let old = world.deploy(&["ok"]).await;
    world.phase(old, Phase::Ready).await;
    let before = kept(&world)["desired"]["generation"].as_u64().expect("a number");
    world.agent().shutdown(Shutdown::StopAll).await;
    world.belong_to_another();
    world.start_agent().await;
    let new = world.deploy(&["ok"]).await;
    world.phase(new, Phase::Ready).await;
    assert!(kept(&world)["desired"]["generation"].as_u64().expect("a number") <= before);
    assert_eq!(world.slot_phase(old), None);
}
