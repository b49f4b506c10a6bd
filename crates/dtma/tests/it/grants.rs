//! Paths of the host: what is granted, what is refused, and what ran before there was a list.

use std::path::{Path, PathBuf};

use serde_json::json;
use toolyard_dtma::{GrantablePaths, Shutdown};
use toolyard_types::RevisionId;
use toolyard_types::agent::ObservedInstance;
use toolyard_types::spec::PathGrant;
use toolyard_types::state::{Phase, Reason, Status};

use crate::world::{World, fixture_runtime, instance, path_text};
#[cfg(target_os = "linux")]
use {
    crate::hanging::{Answers, Hanging},
    crate::world::{PATIENCE, processes_with, until},
    std::time::Duration,
};

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

/// Another name of a directory, which it has until this is dropped.
struct OtherName(PathBuf);

impl OtherName {
    /// Mounts a directory a second time; none, and says so, where only root may and we are not.
    fn of(directory: &Path, name: &Path) -> Option<Self> {
        std::fs::create_dir(name).expect("made");
        #[cfg(target_os = "linux")]
        {
            use nix::mount::{MsFlags, mount};
            let none = None::<&str>;
            let Err(error) = mount(Some(directory), name, none, MsFlags::MS_BIND, none) else {
                return Some(Self(name.to_owned()));
            };
            assert!(!nix::unistd::Uid::effective().is_root(), "root mounts a directory again: {error}");
        }
        eprintln!("not tested: `{}` cannot be mounted again here", directory.display());
        None
    }
}

impl Drop for OtherName {
    fn drop(&mut self) {
        #[cfg(target_os = "linux")]
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

/// Nobody gets any of these, since Toolyard's own files are there.
async fn refused_by_another_name(world: &World, paths: &[PathBuf]) {
    for path in paths {
        let path = path_text(path);
        let status = prepared(world, &path).await;
        assert_eq!((status.reason, status.next_attempt_at), (Reason::ConfigInvalid, None), "{}", status.message);
        let told = format!("path `{path}` may not be granted here: Toolyard's own files are there by another name, `");
        assert!(status.message.starts_with(&told), "{}", status.message);
    }
}

/// Tries names of Toolyard's own files that lie where paths may be granted.
async fn own_files_are_refused_by_any_name(world: &World) {
    let (shared, data_dir) = (world.shared_dir(), world.data_dir());
    let links = shared.join("links");
    std::fs::create_dir(&links).expect("made");
    std::fs::hard_link(data_dir.join("host.key"), links.join("key")).expect("linked");
    refused_by_another_name(world, &[links.join("key"), links.clone(), shared.clone()]).await;
    std::fs::remove_file(links.join("key")).expect("removed");

    let bound = shared.join("bound");
    std::fs::create_dir(&bound).expect("made");
    let names = [
        OtherName::of(&data_dir, &bound.join("data")),
        OtherName::of(&data_dir.join("instances"), &bound.join("instances")),
        OtherName::of(world.dir.path(), &shared.join("above")),
    ];
    if names.iter().all(Option::is_some) {
        let in_them = ["data", "data/host.key", "data/instances", "instances"].map(|name| bound.join(name));
        refused_by_another_name(world, &in_them).await;
        let above = shared.join("above");
        refused_by_another_name(world, &[above.join("dtma/host.key"), above.join("dtma"), above]).await;
        refused_by_another_name(world, &[bound, shared.clone()]).await;
    }
    drop(names);
    let status = prepared(world, &path_text(&shared)).await;
    assert_eq!((status.phase, status.message.as_str()), (Phase::Pending, "prepared"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn toolyards_own_files_are_refused_by_any_other_name() {
    own_files_are_refused_by_any_name(&World::new().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_container_gets_toolyards_own_files_by_any_other_name() {
    own_files_are_refused_by_any_name(&World::docker().await).await;
}

/// What becomes of a server when Toolyard's own files get another name in its path while its agent is away.
async fn runs_on_and_says_so(get_another_name: impl FnOnce(&Path, &Path) -> Option<OtherName>) {
    let mut world = World::new().await;
    let shared = world.shared_dir();
    let path = path_text(&shared);
    let id = world.deploy_with(&["ok"], |instance| instance.spec.paths = grant(&path, false)).await;
    let before = world.phase(id, Phase::Ready).await;
    world.drop_agent();
    let name = get_another_name(&world.data_dir(), &shared);
    if name.is_none() && !shared.join("key").exists() {
        return;
    }
    world.start_agent().await;
    let said = format!("it sees {path}, which this toolbox does not grant; it will not be started again with that");
    let ready = remarked(&world, id, &said).await;
    assert_eq!(ready.pid, before.pid);
    let crash =
        json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "crash", "arguments": {} } });
    assert!(world.send(id, crash).await.is_err());
    let refused = |it: &ObservedInstance| it.status.message.contains("Toolyard's own files are there by another name");
    let refused = world.observed("it is refused", id, refused).await;
    assert_eq!(refused.status.reason, Reason::ConfigInvalid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_when_a_hard_link_of_toolyards_own_gets_into_its_path_runs_on_and_says_so() {
    runs_on_and_says_so(|data_dir, shared| {
        std::fs::hard_link(data_dir.join("host.key"), shared.join("key")).expect("linked");
        None
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_when_the_data_directory_is_mounted_in_its_path_runs_on_and_says_so() {
    runs_on_and_says_so(|data_dir, shared| OtherName::of(data_dir, &shared.join("bound"))).await;
}

/// Waits until a server that is ready has this remark, which comes a moment after it answers.
async fn remarked(world: &World, id: toolyard_types::InstanceId, remark: &str) -> ObservedInstance {
    let has_it = |it: &ObservedInstance| it.status.phase == Phase::Ready && it.status.message.contains(remark);
    world.observed(remark, id, has_it).await
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
    let said = format!("it sees {path}, which this toolbox does not grant; it will not be started again with that");
    let ready = remarked(&world, id, &said).await;
    assert_eq!(ready.pid, before.pid);

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
    let ready = remarked(&world, id, &format!("it sees {path}, which")).await;
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

/// A server whose path does not answer.
#[cfg(target_os = "linux")]
async fn does_not_answer(world: &World, path: &str) -> toolyard_types::InstanceId {
    let id = world.deploy_with(&["ok"], |instance| instance.spec.paths = grant(path, false)).await;
    let status = world.phase(id, Phase::Failed).await.status;
    assert_eq!(status.reason, Reason::EngineUnavailable, "{}", status.message);
    assert_eq!(status.message, format!("path `{path}` does not answer; its file system hangs"));
    assert!(status.next_attempt_at.is_some());
    id
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_whose_file_system_hangs_fails_its_servers_and_holds_up_nothing_else() {
    let mut world = World::new().await;
    let shared = world.shared_dir();
    let Some(hanging) = Hanging::at(&shared.join("hang"), Answers::Nothing) else { return };
    let path = path_text(&shared.join("hang/sub"));

    // Also where it is listed, and first.
    world.drop_agent();
    let mut options = world.options();
    options.grantable_paths.roots.insert(0, path_text(&shared.join("hang")));
    tokio::time::timeout(PATIENCE, world.start_agent_with(options)).await.expect("the agent starts");

    let first = does_not_answer(&world, &path).await;
    let second = does_not_answer(&world, &path).await;
    let looks = || processes_with(&format!("TOOLYARD_LOOKS_AT={path}")).len();
    assert_eq!(looks(), 1, "of those that hang there is one for a path");

    let good = path_text(&shared);
    let other = world.deploy_with(&["ok"], |instance| instance.spec.paths = grant(&good, false)).await;
    world.phase(other, Phase::Failed).await;
    let apart = shared.join("apart");
    std::fs::create_dir(&apart).expect("made");
    let apart = path_text(&apart);
    let other = world.deploy_with(&["ok"], |instance| instance.spec.paths = grant(&apart, true)).await;
    world.phase(other, Phase::Ready).await;

    world.undesire(first);
    world.gone(first).await;
    drop(hanging);
    until("who looked has ended", || looks() == 0).await;
    world.observed("it is looked at again", second, |it| it.status.reason == Reason::ConfigInvalid).await;
    let stopped = world.agent().shutdown(Shutdown::StopAll);
    tokio::time::timeout(PATIENCE, stopped).await.expect("the agent stops");
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_ends_in_time_while_a_path_hangs() {
    let mut world = World::new().await;
    let shared = world.shared_dir();
    let Some(_hanging) = Hanging::at(&shared.join("hang"), Answers::Nothing) else { return };
    does_not_answer(&world, &path_text(&shared.join("hang/sub"))).await;
    let stopped = world.agent().shutdown(Shutdown::StopAll);
    tokio::time::timeout(Duration::from_secs(20), stopped).await.expect("the agent stops");
    // Nothing of the agent's is held by who looks there: another one takes its place.
    world.start_agent().await;
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_in_a_file_system_is_stopped_all_the_same() {
    let world = World::new().await;
    let disk = world.shared_dir().join("disk");
    let Some(_hanging) = Hanging::at(&disk, Answers::Itself) else { return };
    let path = path_text(&disk);
    let id = world
        .deploy_with(&["ok"], |instance| {
            instance.spec.paths = grant(&path, false);
            instance.spec.call_timeout_ms = 1000;
        })
        .await;
    world.phase(id, Phase::Ready).await;
    let arguments = json!({ "path": path_text(&disk.join("sub")) });
    let params = json!({ "name": "read_file", "arguments": arguments });
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    // It gets no answer; what is said of that is not the point.
    let _ = world.send_within(id, call, 1000).await;
    world.undesire(id);
    world.gone(id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_container_gets_a_path_that_another_could_lead_elsewhere() {
    let world = World::docker().await;
    let shared = world.shared_dir();
    std::fs::create_dir(shared.join("x")).expect("made");
    let (above, below) = (path_text(&shared), path_text(&shared.join("x")));
    let deploy = |path: String, writable: bool| {
        world.deploy_with(&["ok"], move |instance| instance.spec.paths = grant(&path, writable))
    };
    let refused = async |id: toolyard_types::InstanceId, why: &str| {
        let status = world.phase(id, Phase::Failed).await.status;
        assert_eq!(status.reason, Reason::EngineUnavailable, "{}", status.message);
        assert!(status.message.contains(why) && status.next_attempt_at.is_some(), "{}", status.message);
    };
    let writes = deploy(above.clone(), true).await;
    world.phase(writes, Phase::Ready).await;
    let reads = deploy(below.clone(), false).await;
    refused(reads, "it is below a path that a server on this toolbox may write").await;
    let same = deploy(above.clone(), true).await;
    world.phase(same, Phase::Ready).await;
    for id in [writes, same] {
        world.undesire(id);
        world.gone(id).await;
    }
    // Nothing is in its way any more, so it starts by itself.
    world.phase(reads, Phase::Ready).await;
    refused(deploy(above.clone(), true).await, "it is above a path that a server on this toolbox has").await;
    let beside = deploy(above, false).await;
    world.phase(beside, Phase::Ready).await;
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_could_lead_the_one_after_it_elsewhere_is_named_with_the_way_out() {
    let world = World::docker().await;
    let shared = world.shared_dir();
    std::fs::create_dir(shared.join("x")).expect("made");
    let wide = path_text(&shared);
    let old = world.deploy_with(&["ok"], |instance| instance.spec.paths = grant(&wide, true)).await;
    world.phase(old, Phase::Ready).await;
    let mut narrow = world.desired_instance(old);
    (narrow.id, narrow.revision) = (toolyard_types::InstanceId::generate(), RevisionId::generate());
    narrow.spec.paths = grant(&path_text(&shared.join("x")), true);
    let new = narrow.id;
    world.desire(|all| all.instances.push(narrow));
    let status = world.phase(new, Phase::Failed).await.status;
    assert!(status.message.contains("a running instance of this server"), "{}", status.message);
    assert!(status.message.contains("`--strategy recreate`") && status.next_attempt_at.is_some(), "{}", status.message);
    world.undesire(old);
    world.gone(old).await;
    world.phase(new, Phase::Ready).await;
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_never_answered_is_compared_again_by_the_next_agent() {
    let mut world = World::docker().await;
    let path = world.shared_dir().join("x");
    std::fs::create_dir(&path).expect("made");
    let wanted = path_text(&path);
    let id = world.deploy_with(&["never-answer"], |instance| instance.spec.paths = grant(&wanted, false)).await;
    let before = world.observed("it runs", id, |it| it.container_id.is_some()).await.container_id;
    world.drop_agent();
    world.start_agent().await;
    let same = world.observed("it runs on", id, |it| it.container_id.is_some()).await;
    assert_eq!(same.container_id, before);
    let (pid, container) = (same.pid.expect("it runs"), before.clone().expect("it runs"));
    let its_own = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    if !nix::unistd::Uid::effective().is_root() || !its_own.contains(&container) {
        eprintln!("not tested: what a container has mounted does not show here");
        return;
    }
    world.drop_agent();
    std::fs::rename(&path, world.shared_dir().join("old")).expect("moved");
    std::fs::create_dir(&path).expect("made");
    world.start_agent().await;
    let other = |it: &ObservedInstance| it.container_id.is_some() && it.container_id != before;
    world.observed("what has something else is made anew", id, other).await;
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_path_hangs_is_called_at_once_by_the_agent_that_takes_it_over() {
    let mut world = World::new().await;
    let path = world.shared_dir().join("x");
    std::fs::create_dir(&path).expect("made");
    let wanted = path_text(&path);
    let id = world.deploy_with(&["ok"], |instance| instance.spec.paths = grant(&wanted, false)).await;
    let before = world.phase(id, Phase::Ready).await;
    world.drop_agent();
    std::fs::remove_dir(&path).expect("removed");
    let Some(_hanging) = Hanging::at(&path, Answers::Nothing) else { return };
    world.start_agent().await;
    let ready = world.phase(id, Phase::Ready).await;
    assert_eq!((ready.pid, ready.status.message.as_str()), (before.pid, ""));
    assert_eq!(world.call(id, "echo", json!({ "message": "at once" })).await, "at once");
    remarked(&world, id, "does not answer; its file system hangs").await;
}
