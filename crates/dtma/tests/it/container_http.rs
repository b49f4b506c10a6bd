//! Servers in containers that speak HTTP, reached by nobody but their agent.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use toolyard_testkit::npm_registry::NpmPackage;
use toolyard_types::InstanceId;
use toolyard_types::agent::{DesiredInstance, Era};
use toolyard_types::spec::{Egress, HttpEndpoint, Package, Part, Runtime, Value};
use toolyard_types::state::{Phase, Reason};

use crate::docker::{containers_of, desire, docker, gateway, inspect, origin};
use crate::world::{World, instance, package, until, with_secret};

/// An image with a server in it, of this test's own.
struct Image {
    tag: String,
    dir: tempfile::TempDir,
}

impl Image {
    fn make() -> Self {
        let tag = format!("t{:016x}", rand_tag());
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("server.js");
        std::fs::write(&file, include_str!("container_http.js")).expect("written");
        let made = docker(&["create", "toolyard/base-node:1", "node"]);
        docker(&["cp", &file.display().to_string(), &format!("{made}:/server.js")]);
        let change = r#"ENTRYPOINT ["node","/server.js"]"#;
        docker(&[
            "commit",
            "--change",
            change,
            "--change",
            "VOLUME /fill",
            &made,
            &format!("toolyard-test-http:{tag}"),
        ]);
        docker(&["rm", &made]);
        Self { tag, dir }
    }

    async fn desired(&self, world: &World, mode: &str, path: &str) -> DesiredInstance {
        assert!(self.dir.path().exists());
        let mut package = Package {
            version: self.tag.clone(),
            http: Some(HttpEndpoint { port: 8123, path: path.to_owned(), headers: BTreeMap::new() }),
            ..package("toolyard-test-http")
        };
        package.environment.insert("MODE".into(), Value::text(mode));
        let runtime = Runtime::Oci(package);
        let lock = world.resolve(runtime.clone()).await.expect("a lock");
        instance(runtime, lock)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let name = format!("toolyard-test-http:{}", self.tag);
        let _ = crate::world::docker_command().args(["rmi", "--force", &name]).output();
    }
}

/// Different for every run of a test.
fn rand_tag() -> u128 {
    InstanceId::generate().to_string().bytes().fold(0, |sum: u128, byte| sum.wrapping_mul(31).wrapping_add(byte.into()))
        & 0xffff_ffff_ffff_ffff
}

async fn call_for(world: &World, id: InstanceId, tool: &str, arguments: Json) -> Result<Vec<Json>, String> {
    let meta = json!({
        "progressToken": "mine",
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let params = json!({ "name": tool, "arguments": arguments, "_meta": meta });
    let message = json!({ "jsonrpc": "2.0", "id": "one", "method": "tools/call", "params": params });
    world.send(id, message).await.map_err(|(status, body)| format!("{status} {body}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_that_an_image_asks_for_is_in_memory_and_not_on_the_hosts_disk() {
    let image = Image::make();
    let world = World::docker().await;
    let desired = image.desired(&world, "legacy", "/mcp").await;
    let id = desire(&world, desired);
    world.phase(id, Phase::Ready).await;
    let inspected = inspect(id);
    let on_disk: Vec<_> =
        inspected["Mounts"].as_array().expect("mounts").iter().filter(|it| it["Type"] == "volume").collect();
    assert!(on_disk.is_empty(), "{on_disk:?}");
    assert!(inspected["HostConfig"]["Tmpfs"]["/fill"].as_str().expect("in memory").contains("size=256m"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_over_http_that_hangs_for_good_is_started_again_also_by_an_agent_that_has_no_session_with_it() {
    let image = Image::make();
    let mut world = World::docker().await;
    let desired = image.desired(&world, "legacy", "/mcp").await;
    let id = desire(&world, desired);
    world.phase(id, Phase::Ready).await;
    assert_eq!(world.call(id, "hang", json!({})).await, "hangs");
    // Longer than the opening of a session may take.
    world.restart_agent_that_waits(std::time::Duration::from_secs(20)).await;
    let again = world.observed("ready again", id, |i| i.status.phase == Phase::Ready && i.restarts == 1).await;
    let failure = again.exit.and_then(|exit| exit.failure).expect("why it was ended");
    assert_eq!(failure.reason, Reason::ProbeFailed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_over_http_is_one_like_any_other_and_reached_by_its_agent_only() {
    let image = Image::make();
    let mut world = World::docker().await;
    assert!(world.report().speaks_container_http());
    let mut desired = image.desired(&world, "legacy", "/mcp").await;
    desired.spec.egress = Egress::None;
    let id = desire(&world, desired);
    let ready = world.phase(id, Phase::Ready).await;
    let mcp = ready.mcp.expect("it answered");
    assert_eq!((mcp.era, mcp.server_name.as_str(), mcp.tools), (Era::Legacy, "over-http", 7));
    assert_eq!(world.call(id, "echo", json!({ "text": "hi\nthere" })).await, "hi\nthere");
    let seen = call_for(&world, id, "progress", json!({})).await.expect("answers");
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert_eq!(seen[0]["params"]["progressToken"], "mine", "{seen:?}");
    assert_eq!(seen[1]["id"], "one");
    world.logged(id, "Stdout listening on 8123").await;

    let inspected = inspect(id);
    assert_eq!(inspected["HostConfig"]["NetworkMode"], "none");
    assert_eq!(inspected["NetworkSettings"]["Ports"], json!({}));
    assert!(std::net::TcpStream::connect("127.0.0.1:8123").is_err(), "nothing of it is on the host");

    let container = containers_of(id);
    world.drop_agent();
    world.start_agent().await;
    let after = world.observed("taken over", id, |instance| instance.status.phase == Phase::Ready).await;
    assert_eq!((after.pid, containers_of(id)), (ready.pid, container));
    assert_eq!(world.call(id, "echo", json!({ "text": "again" })).await, "again");

    // Its end is seen, and it comes back.
    let crashed = call_for(&world, id, "crash", json!({})).await;
    assert!(crashed.is_err(), "{crashed:?}");
    world.observed("ready again", id, |it| it.status.phase == Phase::Ready && it.pid != ready.pid).await;
    assert_eq!(world.call(id, "echo", json!({ "text": "back" })).await, "back");
    world.undesire(id);
    world.gone(id).await;
    assert_eq!(containers_of(id), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_over_http_that_discover_ends_is_asked_initialize_also_by_an_agent_that_was_restarted() {
    let image = Image::make();
    let mut world = World::docker().await;
    let id = desire(&world, image.desired(&world, "ends-at-discover", "/mcp").await);
    let ready = world.phase(id, Phase::Ready).await;
    assert_eq!((ready.restarts, ready.exit), (0, None), "it has not failed");
    world.drop_agent();
    world.start_agent().await;
    let after = world.observed("taken over", id, |instance| instance.status.phase == Phase::Ready).await;
    assert_eq!(world.call(id, "echo", json!({ "text": "again" })).await, "again");
    assert_eq!(after.pid, ready.pid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_modern_server_is_spoken_to_as_one_and_its_egress_is_kept() {
    let image = Image::make();
    let world = World::docker().await;
    let (port, other) = (origin().await, origin().await);
    let mut desired = image.desired(&world, "modern", "/mcp").await;
    desired.spec.egress = Egress::Hosts { hosts: vec![format!("localhost:{port}")] };
    let listed = desire(&world, desired);
    let all = desire(&world, image.desired(&world, "modern", "/mcp").await);
    let ready = world.phase(listed, Phase::Ready).await;
    assert_eq!(ready.mcp.expect("it answered").era, Era::Modern);
    world.phase(all, Phase::Ready).await;
    assert_eq!(world.call(listed, "echo", json!({ "text": "hi" })).await, "hi");
    let at = |host: &str, port: u16| json!({ "host": host, "port": port });
    assert_eq!(world.call(listed, "proxied", at("localhost", port)).await, "200");
    assert_eq!(world.call(listed, "proxied", at("localhost", other)).await, "403");
    assert_eq!(world.call(listed, "straight", at(&gateway(), port)).await, "ENETUNREACH");
    assert_eq!(world.call(all, "straight", at(&gateway(), port)).await, "connected");
    assert_eq!(inspect(all)["HostConfig"]["PortBindings"], Json::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_answer_http_as_it_should_says_so() {
    let image = Image::make();
    let world = World::docker().await;
    // Slow to listen is no reason to fail.
    let slow = desire(&world, image.desired(&world, "slow", "/mcp").await);
    let mut nowhere = image.desired(&world, "legacy", "/nowhere").await;
    nowhere.spec.start_timeout_ms = 20_000;
    let nowhere = desire(&world, nowhere);
    let mut deaf = image.desired(&world, "deaf", "/mcp").await;
    deaf.spec.start_timeout_ms = 3_000;
    let deaf = desire(&world, deaf);
    world.phase(slow, Phase::Ready).await;
    let failed = world.phase(nowhere, Phase::Failed).await;
    assert_eq!(failed.status.reason, Reason::HandshakeFailed, "{:?}", failed.status);
    assert!(failed.status.message.contains("404"), "{}", failed.status.message);
    let failed = world.phase(deaf, Phase::Failed).await;
    assert_eq!(failed.status.reason, Reason::StartTimeout, "{:?}", failed.status);

    // One that runs and listens no more is of no use: it is started again.
    let before = world.phase(slow, Phase::Ready).await.pid;
    assert_eq!(world.call(slow, "close", json!({})).await, "closing");
    until("it listens no more, or is another one", || {
        let pid = world.slot_pid(slow);
        pid != before
    })
    .await;
    world.observed("ready again", slow, |it| it.status.phase == Phase::Ready && it.pid != before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_of_http_is_an_answer_to_its_call_alone() {
    let image = Image::make();
    let world = World::docker().await;
    let id = desire(&world, image.desired(&world, "legacy", "/mcp").await);
    let ready = world.phase(id, Phase::Ready).await;
    let failed = call_for(&world, id, "status", json!({ "status": 500 })).await.expect("an answer");
    assert!(failed[0]["error"]["message"].as_str().is_some_and(|text| text.contains("500")), "{failed:?}");
    // A session that the server has forgotten is opened again.
    world.call(id, "forget", json!({})).await;
    assert_eq!(world.call(id, "echo", json!({ "text": "on" })).await, "on");
    assert_eq!(world.phase(id, Phase::Ready).await.pid, ready.pid);
}

/// The same server as a package.
fn over_http() -> NpmPackage {
    let manifest = json!({ "name": "over-http", "version": "1.0.0", "bin": "server.js" });
    NpmPackage {
        name: "over-http".into(),
        version: "1.0.0".into(),
        files: vec![
            ("package.json".into(), manifest.to_string().into_bytes()),
            ("server.js".into(), format!("#!/usr/bin/env node\n{}", include_str!("container_http.js")).into_bytes()),
        ],
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_package_over_http_is_installed_and_gets_its_headers_from_every_agent() {
    let mut world = World::docker_with(vec![over_http()]).await;
    assert!(world.report().sends_container_headers());
    let endpoint = |headers| HttpEndpoint { port: 8123, path: "/mcp".to_owned(), headers };
    let plain = Package { http: Some(endpoint(BTreeMap::new())), ..package("over-http") };
    let lock = world.resolve(Runtime::Npm(plain.clone())).await.expect("a lock");
    let mut silent = instance(Runtime::Npm(plain), lock);
    silent.spec.egress = Egress::None;
    with_secret(&mut silent, "TOKEN", "hidden-token");

    let mut told = DesiredInstance { id: InstanceId::generate(), ..silent.clone() };
    let Runtime::Npm(package) = &mut told.spec.runtime else { panic!("npm") };
    let token = package.environment["TOKEN"].credentials().next().expect("a credential");
    let bearer = Value(vec![Part::Text("Bearer ".to_owned()), Part::Credential(token)]);
    package.http = Some(endpoint(BTreeMap::from([("Authorization".to_owned(), bearer)])));

    let (silent, told) = (desire(&world, silent), desire(&world, told));
    let ready = world.phase(told, Phase::Ready).await;
    assert_eq!(ready.mcp.expect("it answered").server_name, "over-http");
    assert_eq!(world.call(told, "echo", json!({ "text": "hi" })).await, "hi");
    let refused = world.phase(silent, Phase::Failed).await;
    assert!(refused.status.message.contains("401"), "{:?}", refused.status);
    assert!(!inspect(told).to_string().contains("hidden-token"));

    world.drop_agent();
    world.start_agent().await;
    let after = world.observed("taken over", told, |it| it.status.phase == Phase::Ready).await;
    assert_eq!(after.pid, ready.pid, "it ran on");
    assert_eq!(world.call(told, "echo", json!({ "text": "again" })).await, "again");
}
