//! Volumes of a real engine: what outlives a server's containers, and when it goes.

use std::collections::BTreeSet;

use serde_json::json;
use toolyard_dtma::Shutdown;
use toolyard_types::agent::DesiredInstance;
use toolyard_types::spec::{Egress, Package, Runtime, Volume};
use toolyard_types::state::{Phase, Reason};
use toolyard_types::{InstanceId, Name, ServerId};

use crate::docker::{Registry, desire, docker, inspect};
use crate::world::{World, fixture_runtime, instance, until, with_secret};

fn volume(name: &str, path: &str) -> Volume {
    Volume { name: Name::new(name).expect("a name"), path: path.into() }
}

/// The volumes of a server, by name.
fn volumes_of(server: ServerId) -> Vec<String> {
    let filter = format!("label=dev.toolyard.server={server}");
    docker(&["volume", "ls", "--quiet", "--filter", &filter]).lines().map(str::to_owned).collect()
}

fn keep(world: &World, servers: &[ServerId]) {
    let kept: BTreeSet<ServerId> = servers.iter().copied().collect();
    world.desire(|all| all.keep_volumes = Some(kept));
}

/// Another instance of the server, of its next revision.
fn next(before: &DesiredInstance) -> DesiredInstance {
    let fresh = instance(before.spec.runtime.clone(), before.lock.clone().expect("a lock"));
    DesiredInstance { id: fresh.id, revision: fresh.revision, revision_number: 2, ..before.clone() }
}

async fn read(world: &World, id: InstanceId, path: &str) -> String {
    world.call(id, "read_file", json!({ "path": path })).await
}

async fn write(world: &World, id: InstanceId, path: &str, content: &str) -> String {
    world.call(id, "write_file", json!({ "path": path, "content": content })).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_outlives_revisions_and_agents_is_the_servers_alone_and_goes_with_it() {
    let mut world = World::docker().await;
    assert!(world.report().keeps_volumes());
    let lock = world.resolve(fixture_runtime(&["ok"])).await.expect("a lock");
    let mut first = instance(fixture_runtime(&["ok"]), lock.clone());
    first.spec.volumes = vec![volume("data", "/data"), volume("home", "/home/server")];
    first.spec.egress = Egress::None;
    let mut other = instance(fixture_runtime(&["ok"]), lock);
    other.spec.volumes = vec![volume("data", "/data")];
    let (server, stranger) = (first.server, other.server);
    let (first, other) = (desire(&world, first), desire(&world, other));
    world.phase(first, Phase::Ready).await;
    world.phase(other, Phase::Ready).await;

    let user = inspect(first)["Config"]["User"].as_str().expect("a user").to_owned();
    assert!(!user.starts_with('0'));
    assert_eq!(inspect(first)["HostConfig"]["CapDrop"], json!(["ALL"]));
    write(&world, first, "/data/notes", "kept").await;
    write(&world, first, "/home/server/more", "also kept").await;
    assert_eq!(read(&world, first, "/data/notes").await, "kept");
    // The same name is another place for another server.
    let foreign = world.call(other, "list_dir", json!({ "path": "/data" })).await;
    assert_eq!(foreign, "");
    assert_eq!((volumes_of(server).len(), volumes_of(stranger).len()), (2, 1));

    let desired = world.desired_instance(first);
    world.undesire(first);
    world.gone(first).await;
    let second = desire(&world, next(&desired));
    world.phase(second, Phase::Ready).await;
    assert_eq!(read(&world, second, "/data/notes").await, "kept");
    write(&world, second, "/data/notes", "changed").await;

    world.agent().shutdown(Shutdown::StopAll).await;
    assert_eq!(volumes_of(server).len(), 2, "stopping everything removes no data");
    world.start_agent().await;
    world.phase(second, Phase::Ready).await;
    assert_eq!(read(&world, second, "/data/notes").await, "changed");
    assert_eq!(read(&world, second, "/home/server/more").await, "also kept");

    // A server that is stopped is still there; one that is not known any more is gone.
    keep(&world, &[server]);
    world.undesire(second);
    world.undesire(other);
    world.gone(second).await;
    world.gone(other).await;
    until("the stranger's volume is gone", || volumes_of(stranger).is_empty()).await;
    assert_eq!(volumes_of(server).len(), 2);
    keep(&world, &[]);
    until("its volumes are gone", || volumes_of(server).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_that_knows_no_volumes_gives_no_leave_to_remove_one() {
    let world = World::docker().await;
    let id = world.deploy_with(&["ok"], |instance| instance.spec.volumes = vec![volume("data", "/data")]).await;
    let server = world.desired_instance(id).server;
    world.phase(id, Phase::Ready).await;
    world.undesire(id);
    world.gone(id).await;
    // Garbage is collected when an instance is forgotten; another one comes and goes to be sure.
    let other = world.deploy(&["ok"]).await;
    world.phase(other, Phase::Ready).await;
    world.undesire(other);
    world.gone(other).await;
    assert_eq!(volumes_of(server).len(), 1);
    keep(&world, &[]);
    until("its volume is gone", || volumes_of(server).is_empty()).await;
}

/// A server made of a shell that writes where it may, as the user that its image names.
const WRITER: &str = r#"#!/bin/sh
echo "as $(id -u)" >> /data/log || exit 3
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_with_a_user_by_name_owns_its_volume() {
    let registry = Registry::with_image();
    let script = crate::docker::SHELL_SERVER.replacen("#!/bin/sh\n", WRITER, 1);
    registry.push_as("2.0", &script, Some("app"));
    let world = World::docker().await;
    let runtime = registry.runtime("2.0");
    let lock = world.resolve(runtime.clone()).await.expect("a lock");
    let mut desired = instance(runtime, lock);
    desired.spec.volumes = vec![volume("data", "/data")];
    let Runtime::Oci(Package { environment, .. }) = &mut desired.spec.runtime else { panic!("an image") };
    environment.insert("GREETING".into(), toolyard_types::spec::Value::text("hello"));
    let server = desired.server;
    let id = desire(&world, desired);
    world.phase(id, Phase::Ready).await;
    assert_eq!(inspect(id)["Config"]["User"], "4321:4321");
    let volume = volumes_of(server).remove(0);
    let place = docker(&["volume", "inspect", "--format", "{{.Mountpoint}}", &volume]);
    assert_eq!(std::fs::read_to_string(format!("{place}/log")).expect("written"), "as 4321\n");
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&place).expect("there"));
    assert_eq!(owner, 4321);
    keep(&world, &[]);
    world.undesire(id);
    until("its volume is gone", || volumes_of(server).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_path_and_an_engine_without_volumes_are_refused() {
    let world = World::docker().await;
    let id = world.deploy_with(&["ok"], |instance| instance.spec.volumes = vec![volume("data", "/proc/1")]).await;
    let failed = world.phase(id, Phase::Failed).await;
    assert_eq!(failed.status.reason, Reason::ConfigInvalid);
    assert!(failed.status.message.contains("/proc/1"), "{}", failed.status.message);
    let world = World::new().await;
    assert!(!world.report().keeps_volumes());
    let id = world
        .deploy_with(&["ok"], |instance| {
            instance.spec.volumes = vec![volume("data", "/data")];
            with_secret(instance, "KEY", "x");
        })
        .await;
    assert_eq!(world.phase(id, Phase::Failed).await.status.reason, Reason::UnsupportedByEngine);
}
