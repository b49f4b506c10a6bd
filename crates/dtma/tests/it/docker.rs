//! Servers in containers of a real engine.

use serde_json::json;
use toolyard_types::agent::Era;
use toolyard_types::state::Phase;

use crate::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_npm_server_is_installed_in_the_image_that_runs_it_called_and_gone_without_a_trace() {
    let world = World::docker().await;
    let id = world.deploy(&["ok"]).await;
    let ready = world.phase(id, Phase::Ready).await;
    let mcp = ready.mcp.expect("it answered");
    assert_eq!((mcp.era, mcp.server_name.as_str()), (Era::Legacy, "toolyard-fixture"));
    assert_eq!(world.call(id, "echo", json!({ "message": "hi" })).await, "hi");
    assert!(world.log_text(id).await.contains("Stderr fixture ok starts"));
    world.undesire(id);
    world.phase(id, Phase::Stopped).await;
    world.gone(id).await;
}
