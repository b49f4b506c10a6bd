//! Hosts that enforce less, supervisors that die, and the API's refusals.

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use http_body_util::BodyExt;
use serde_json::json;
use toolyard_dtma::Agent;
use toolyard_types::InstanceId;
use toolyard_types::state::{Phase, Reason};

use crate::world::{World, dies, fixture_runtime, instance, processes_with, supervisor};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_supervisor_takes_its_server_along_and_the_agent_starts_it_again() {
    let world = World::new().await;
    let id = world.deploy(&["stubborn"]).await;
    let pid = world.phase(id, Phase::Ready).await.pid.expect("a pid");
    world.call(id, "fork", json!({})).await;
    let all = processes_with(&id.to_string());
    nix::sys::signal::kill(supervisor_of(pid), nix::sys::signal::Signal::SIGKILL).expect("killed");
    dies(pid).await;
    if world.report().enforcement["namespaces"].enforced {
        for pid in all {
            dies(pid).await;
        }
    }
    world.observed("ready again", id, |i| i.status.phase == Phase::Ready && i.pid != Some(pid)).await;
}

/// The nearest ancestor that is a supervisor.
fn supervisor_of(pid: u32) -> nix::unistd::Pid {
    let mut pid = pid;
    loop {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a living process");
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_ascii_whitespace().nth(1));
        pid = parent.expect("a parent").parse().expect("a number");
        let parent = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("small"));
        // The namespace's first process has the supervisor's command line too, but a parent that also has.
        let grandparent = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a living process");
        let above: u32 = grandparent
            .rsplit(')')
            .next()
            .and_then(|rest| rest.split_ascii_whitespace().nth(1))
            .expect("a parent")
            .parse()
            .expect("a number");
        let is =
            |pid: u32| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.ends_with(b"supervise\0"));
        if is(pid) && !is(above) {
            return parent;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_agents_never_share_a_data_directory() {
    let world = World::new().await;
    let error = Agent::start(world.options()).await.err().expect("refused");
    assert!(error.to_string().starts_with("another agent uses"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_refuses_with_problems() {
    let world = World::new().await;
    let nobody = InstanceId::generate();
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    let (status, problem) = world.send(nobody, message.clone()).await.expect_err("unknown");
    assert_eq!((status.as_u16(), problem["code"].as_str()), (404, Some("not_found")));
    assert_eq!(world.get("/v1/instances/..%2f..%2fetc/logs").await.0.as_u16(), 404);

    let silent = world.deploy(&["never-answer"]).await;
    world.phase(silent, Phase::Starting).await;
    let (status, problem) = world.send(silent, message).await.expect_err("not ready");
    assert_eq!((status.as_u16(), problem["code"].as_str()), (503, Some("server_not_ready")));

    let ready = world.deploy(&["ok"]).await;
    world.phase(ready, Phase::Ready).await;
    let huge = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping", "params": { "x": "x".repeat(9 << 20) } });
    let (status, problem) = world.send(ready, huge).await.expect_err("too large");
    assert_eq!((status.as_u16(), problem["code"].as_str()), (413, Some("payload_too_large")));
    let (status, problem) = world.send(ready, json!(["not", "a", "message"])).await.expect_err("not a message");
    assert_eq!((status.as_u16(), problem["code"].as_str()), (400, Some("bad_request")));
    let (status, handshake) = world.get(&format!("/v1/instances/{ready}/handshake")).await;
    assert_eq!(status.as_u16(), 200);
    let handshake: serde_json::Value = serde_json::from_slice(&handshake).expect("JSON");
    assert_eq!(handshake["server_name"], "toolyard-fixture");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_ends_a_call_its_server_is_told_so_and_the_next_one_is_answered() {
    let world = World::new().await;
    let id = world.deploy(&["ok"]).await;
    world.phase(id, Phase::Ready).await;
    let params = json!({ "name": "sleep", "arguments": { "ms": 20_000 } });
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    let (status, problem) = world.send_within(id, message, 300).await.expect_err("late");
    assert_eq!((status.as_u16(), problem["code"].as_str()), (504, Some("upstream_timeout")));
    world.logged(id, "given up: the call's deadline passed").await;
    assert_eq!(world.call(id, "echo", json!({ "message": "next" })).await, "next");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_path_that_is_not_there_and_a_missing_executable_are_configuration_errors() {
    let world = World::new().await;
    let lock = world.resolve(fixture_runtime(&["ok"])).await.expect("a lock");
    let mut no_path = instance(fixture_runtime(&["ok"]), lock.clone());
    no_path.spec.paths = vec![toolyard_types::spec::PathGrant { path: "/no/such/path".into(), writable: false }];
    let mut no_command = instance(fixture_runtime(&["ok"]), lock);
    let toolyard_types::spec::Runtime::Npm(package) = &mut no_command.spec.runtime else { panic!("npm") };
    package.command = Some("no-such-command".into());
    let ids = [no_path.id, no_command.id];
    world.desire(|all| all.instances.extend([no_path, no_command]));
    for id in ids {
        let failed = world.phase(id, Phase::Failed).await;
        assert_eq!((failed.status.reason, failed.status.next_attempt_at), (Reason::ConfigInvalid, None));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_followed_log_goes_on_with_what_is_written_later() {
    let world = World::new().await;
    let id = world.deploy(&["ok"]).await;
    world.phase(id, Phase::Ready).await;
    let mut log = world.follow(id).await;
    world.call(id, "say", json!({ "message": "later" })).await;
    let mut text = String::new();
    while !text.contains("later") {
        let chunk = tokio::time::timeout(crate::world::PATIENCE, log.frame()).await.expect("in time");
        let chunk = chunk.expect("the log goes on").expect("readable").into_data().expect("data");
        text.push_str(std::str::from_utf8(&chunk).expect("utf-8"));
    }
    assert!(text.contains("fixture ok starts"));
    world.undesire(id);
    world.gone(id).await;
    while let Some(frame) = tokio::time::timeout(crate::world::PATIENCE, log.frame()).await.expect("it ends") {
        frame.expect("readable");
    }
}

/// Runs this test program again as somebody without privileges, who sees less of the host.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_without_root_runs_servers_and_ends_them_all() {
    if !nix::unistd::Uid::effective().is_root() {
        return as_anybody().await;
    }
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).expect("opened");
    for (name, program) in [("it", std::env::current_exe().expect("a program")), ("supervisor", supervisor())] {
        std::fs::copy(program, dir.path().join(name)).expect("copied");
    }
    let mut command = tokio::process::Command::new(dir.path().join("it"));
    command.args(["--exact", "fallback::an_agent_without_root_runs_servers_and_ends_them_all", "--nocapture"]);
    command.uid(65534).gid(65534).current_dir(dir.path()).kill_on_drop(true);
    command.env("HOME", dir.path()).env("TMPDIR", dir.path()).env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = command.output().await.expect("run");
    let text = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&text));
}

async fn as_anybody() {
    let mut world = World::new().await;
    let report = world.report().clone();
    assert!(!report.enforcement["own_uid"].enforced);
    eprintln!("{report:#?}");
    let id = world.deploy(&["stubborn"]).await;
    let pid = world.phase(id, Phase::Ready).await.pid.expect("a pid");
    world.call(id, "fork", json!({})).await;
    let hidden = world.call(id, "read_file", json!({ "path": world.data_dir().join("host.key") })).await;
    assert!(hidden.starts_with("ENOENT") || hidden.starts_with("EACCES"), "{hidden}");
    let hungry = world.deploy_with(&["ok"], |instance| instance.spec.limits.memory_bytes = 200 << 20).await;
    world.phase(hungry, Phase::Ready).await;
    let params = json!({ "name": "eat_memory", "arguments": { "bytes": 1_u64 << 30 } });
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    assert!(world.send(hungry, message).await.is_err());
    world.observed("out of memory", hungry, |i| i.status.reason == Reason::OutOfMemory).await;
    let all = processes_with(&id.to_string());
    assert!(all.len() >= 2, "{all:?}");
    world.drop_agent();
    dies(pid).await;
    for pid in all {
        dies(pid).await;
    }
}
