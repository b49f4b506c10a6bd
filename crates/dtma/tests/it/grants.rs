//! Paths of the host: what is granted, what is refused, and what ran before there was a list.

use serde_json::json;
use toolyard_dtma::{GrantablePaths, Shutdown};
use toolyard_types::RevisionId;
use toolyard_types::agent::ObservedInstance;
use toolyard_types::spec::PathGrant;
use toolyard_types::state::{Phase, Reason, Status};

use crate::world::{World, fixture_runtime, instance, path_text};

fn grant(path: &str, writable: bool) -> Vec<PathGrant> {
    vec![PathGrant { path: path.to_owned(), writable }]
}

/// What becomes of an instance that wants to see a path and is only to be prepared.
async fn prepared(world: &World, path: &str) -> Status<Phase> {
    let id = world
        .deploy_with(&["ok"], |instance| {
            instance.run = false;
            instance.spec.paths = grant(path, false);
        })
        .await;
    let over = |it: &ObservedInstance| it.status.phase == Phase::Failed || it.status.message == "prepared";
    world.observed("it is prepared, or says why not", id, over).await.status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_this_host_does_not_grant_is_refused_and_never_touched() {
    let world = World::new().await;
    let lock = world.resolve(fixture_runtime(&["ok"])).await.expect("a lock");
    let shared = world.shared_dir();
    std::os::unix::fs::symlink(world.data_dir(), shared.join("way")).expect("linked");
    std::os::unix::net::UnixListener::bind(shared.join("socket")).expect("bound");
    let passwd = std::fs::read("/etc/passwd").expect("read");
    let paths = [
        "/etc".to_owned(),
        "/".to_owned(),
        "/proc".to_owned(),
        "/dev/null".to_owned(),
        path_text(&world.data_dir()),
        path_text(&world.data_dir().join("host.key")),
        path_text(world.dir.path()),
        path_text(&shared.join("way")),
        path_text(&shared.join("socket")),
    ];
    let mut ids = Vec::new();
    for path in &paths {
        let mut desired = instance(fixture_runtime(&["ok"]), lock.clone());
        desired.spec.paths = grant(path, true);
        ids.push(desired.id);
        world.desire(|all| all.instances.push(desired));
    }
    for (id, path) in ids.into_iter().zip(&paths) {
        let status = world.phase(id, Phase::Failed).await.status;
        assert_eq!((status.reason, status.next_attempt_at), (Reason::ConfigInvalid, None), "{path}");
        assert!(status.message.starts_with(&format!("path `{path}` may not be granted here")), "{}", status.message);
    }
    assert_eq!(std::fs::read("/etc/passwd").expect("read"), passwd);
    let report = world.report().enforcement["path_grants"].detail.clone();
    assert_eq!(report, format!("only `{}` (`grantable_paths`)", shared.display()));
    let told = world.report().grantable_paths.clone().expect("it tells them as data too");
    assert!(told.contains(&path_text(&shared)), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_to_be_started_later_says_while_it_is_prepared_that_it_could_not_be() {
    let world = World::new().await;
    let shared = world.shared_dir();
    std::os::unix::fs::symlink("/usr", shared.join("way")).expect("linked");
    for path in ["/usr/share".to_owned(), path_text(&shared.join("way"))] {
        let status = prepared(&world, &path).await;
        assert_eq!((status.reason, status.next_attempt_at), (Reason::ConfigInvalid, None), "{}", status.message);
        assert!(status.message.starts_with(&format!("path `{path}` may not be granted here")), "{}", status.message);
    }
    let status = prepared(&world, &path_text(&shared)).await;
    assert_eq!((status.phase, status.message.as_str()), (Phase::Pending, "prepared"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_with_a_path_that_is_no_longer_listed_runs_on_and_is_not_started_again() {
    let mut world = World::new().await;
    let path = path_text(&world.shared_dir());
    let id = world.deploy_with(&["ok"], |instance| instance.spec.paths = grant(&path, false)).await;
    let before = world.phase(id, Phase::Ready).await;

    world.drop_agent();
    let mut options = world.options();
    options.grantable_paths = GrantablePaths::default();
    world.start_agent_with(options).await;
    let ready = world.phase(id, Phase::Ready).await;
    assert_eq!(ready.pid, before.pid);
    let said = format!("it sees {path}, which this toolbox does not grant; it will not be started again with that");
    assert!(ready.status.message.contains(&said), "{}", ready.status.message);

    let crash =
        json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "crash", "arguments": {} } });
    assert!(world.send(id, crash).await.is_err());
    world.observed("refused", id, |instance| instance.status.reason == Reason::ConfigInvalid).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ran_before_there_was_a_list_runs_on_and_says_so_until_its_next_revision() {
    let mut world = World::new().await;
    let shared = world.shared_dir();
    std::fs::write(shared.join("a.txt"), "granted").expect("written");
    let path = path_text(&shared);
    let id = world.deploy_with(&["ok"], |instance| instance.spec.paths = grant(&path, false)).await;
    assert_eq!(world.phase(id, Phase::Ready).await.status.message, "");

    world.agent().shutdown(Shutdown::StopAll).await;
    std::fs::remove_file(world.data_dir().join("grants.json")).expect("as before there was a list");
    let mut options = world.options();
    options.grantable_paths = GrantablePaths::default();
    world.start_agent_with(options).await;
    let ready = world.phase(id, Phase::Ready).await;
    assert!(ready.status.message.contains(&format!("it sees {path}, which")), "{}", ready.status.message);
    assert!(ready.status.message.contains("its next revision will not start"), "{}", ready.status.message);
    assert_eq!(world.report().grantable_paths, Some(Vec::new()));
    assert_eq!(world.report().granted_before, [world.desired_instance(id).revision].into());
    let file = path_text(&shared.join("a.txt"));
    assert_eq!(world.call(id, "read_file", json!({ "path": file })).await, "granted");

    let mut next = world.desired_instance(id);
    (next.id, next.revision) = (toolyard_types::InstanceId::generate(), RevisionId::generate());
    let next_id = next.id;
    world.desire(|all| all.instances.push(next));
    assert_eq!(world.phase(next_id, Phase::Failed).await.status.reason, Reason::ConfigInvalid);

    // Nobody adds to what was written down then.
    world.agent().shutdown(Shutdown::StopAll).await;
    let mut options = world.options();
    options.grantable_paths = GrantablePaths::default();
    world.start_agent_with(options).await;
    world.phase(id, Phase::Ready).await;
    world.phase(next_id, Phase::Failed).await;
}
