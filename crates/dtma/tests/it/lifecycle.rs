//! Instances come, answer, crash, are taken over, and go.

use http_body_util::BodyExt;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use toolyard_dtma::{AgentOptions, Shutdown};
use toolyard_types::agent::{DesiredInstance, Era, JobOf, LogStream, ObservedInstance, ResolveJob};
use toolyard_types::spec::Runtime;
use toolyard_types::state::{Phase, Reason};

use toolyard_types::{InstanceId, JobId, RevisionId, Secret, ServerId};

use crate::world::{PATIENCE, World, alive, dies, fixture_runtime, package, processes_with, until, with_secret};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_resolved_installed_started_probed_called_and_stopped_with_nothing_left() {
    let world = World::new().await;
    let id = world.deploy(&["ok"]).await;
    let ready = world.phase(id, Phase::Ready).await;
    let mcp = ready.mcp.expect("it answered");
    assert_eq!((mcp.era, mcp.server_name.as_str()), (Era::Legacy, "toolyard-fixture"));
    assert!(mcp.tools > 5 && ready.ready_since.is_some());
    assert_eq!(mcp.tool_names.len(), usize::try_from(mcp.tools).expect("a few"));
    assert!(mcp.tool_names.iter().any(|name| name == "echo"));
    assert!(ready.last_success_at.is_some() && ready.failures == 0 && ready.container_id.is_none());
    let pid = ready.pid.expect("it runs");
    assert!(alive(pid));

    assert_eq!(world.call(id, "echo", json!({ "message": "hi" })).await, "hi");
    let grandchild: u32 = world.call(id, "fork", json!({})).await.parse().expect("a pid");
    assert!(grandchild > 0);
    world.logged(id, "Stderr fixture ok starts").await;

    world.undesire(id);
    let stopped = world.phase(id, Phase::Stopped).await;
    assert_eq!(stopped.exit.expect("its exit was seen").code, Some(0));
    world.gone(id).await;
    assert!(!alive(pid));
    assert_eq!(processes_with(&id.to_string()), Vec::<u32>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_modern_server_is_recognised() {
    let world = World::new().await;
    let id = world.deploy(&["modern"]).await;
    let mcp = world.phase(id, Phase::Ready).await.mcp.expect("it answered");
    assert_eq!((mcp.era, mcp.protocol_version.as_str()), (Era::Modern, "2026-07-28"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_agent_serves_and_knows_where_gateways_are_before_the_control_plane_answers() {
    let mut world = World::new().await;
    let id = world.deploy(&["ok"]).await;
    world.phase(id, Phase::Ready).await;
    let gateways = vec!["a.example:8081".to_owned(), "b.example:8081".to_owned()];
    world.control.links.lock().expect("not poisoned").clone_from(&gateways);
    // Has it answered at once.
    world.desire(|_| {});
    let told = async { world.links().wait_for(|links| *links == gateways).await.map(drop) };
    tokio::time::timeout(PATIENCE, told).await.expect("in time").expect("the agent lives");
    world.drop_agent();
    let options = AgentOptions { control: toolyard_link::in_process(axum::Router::new()), ..world.options() };
    world.start_agent_with(options).await;
    assert_eq!(*world.links().borrow(), gateways);
    assert_eq!(world.call(id, "echo", json!({ "message": "still" })).await, "still");
    world.drop_agent();
    world.start_agent().await;
    world.phase(id, Phase::Ready).await;
    world.undesire(id);
    world.gone(id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_agent_goes_on_with_the_same_process() {
    let mut world = World::new().await;
    let id = world.deploy(&["ok"]).await;
    let before = world.phase(id, Phase::Ready).await;
    world.drop_agent();
    world.start_agent().await;
    let after = world.observed("taken over", id, |instance| instance.status.phase == Phase::Ready).await;
    assert_eq!(after.pid, before.pid);
    assert_eq!(after.ready_since, before.ready_since);
    assert_eq!(world.call(id, "echo", json!({ "message": "again" })).await, "again");
    world.undesire(id);
    world.gone(id).await;
    dies(before.pid.expect("a pid")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_takes_nothing_but_messages_lives_through_take_overs() {
    let mut world = World::new().await;
    let id = world.deploy(&["strict"]).await;
    let before = world.phase(id, Phase::Ready).await;
    for message in ["once", "twice"] {
        world.drop_agent();
        world.start_agent().await;
        world.phase(id, Phase::Ready).await;
        assert_eq!(world.call(id, "echo", json!({ "message": message })).await, message);
    }
    let after = world.phase(id, Phase::Ready).await;
    assert_eq!((after.pid, after.restarts), (before.pid, before.restarts));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_an_agent_left_half_written_breaks_one_line_and_not_the_next_message() {
    let mut world = World::new().await;
    let id = world.deploy(&["lenient"]).await;
    let pid = world.phase(id, Phase::Ready).await.pid.expect("a pid");
    let server = Pid::from_raw(i32::try_from(pid).expect("a pid"));
    // It reads nothing while it is stopped, and a pipe does not hold the whole message.
    kill(server, Signal::SIGSTOP).expect("stopped");
    let arguments = json!({ "message": "x".repeat(1 << 20) });
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "echo", "arguments": arguments } });
    let cut = world.instance_dir(id).join("input-cut");
    tokio::select! {
        answer = world.send(id, message) => panic!("a stopped server answered: {answer:?}"),
        () = until("a message is half-written", || cut.exists()) => {}
    }
    world.drop_agent();
    world.start_agent().await;
    let taken_over = world.phase(id, Phase::Ready).await;
    kill(server, Signal::SIGCONT).expect("it goes on");
    assert_eq!(world.call(id, "echo", json!({ "message": "next" })).await, "next");
    assert_eq!(world.call(id, "broken_lines", json!({})).await, "1");
    assert!(!cut.exists(), "all that was written since is whole");

    world.drop_agent();
    world.start_agent().await;
    world.phase(id, Phase::Ready).await;
    assert_eq!(world.call(id, "broken_lines", json!({})).await, "1");
    assert_eq!(taken_over.pid, Some(pid));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_says_on_standard_output_while_its_agent_is_away_is_in_its_log() {
    let mut world = World::new().await;
    let id = world.deploy(&["ok"]).await;
    let pid = world.phase(id, Phase::Ready).await.pid;
    assert_eq!(world.call(id, "babble_at", json!({ "path": "now", "lines": 500 })).await, "waits");
    world.drop_agent();
    let now = world.instance_dir(id).join("work/now");
    std::fs::write(&now, "").expect("written");
    until("it has said all", || !now.exists()).await;
    world.start_agent().await;
    assert_eq!(world.phase(id, Phase::Ready).await.pid, pid);
    world.logged(id, "Stdout babble 499").await;
    let said = world.log(id).await.into_iter().filter(|line| line.stream == LogStream::Stdout).map(|line| line.text);
    let expected: Vec<String> = (0..500).map(|line| format!("babble {line}")).collect();
    assert_eq!(said.collect::<Vec<_>>(), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_says_last_on_standard_output_is_in_its_log_whether_or_not_an_agent_sees_it_end() {
    let mut world = World::new().await;
    let (seen, unseen) = (world.deploy(&["ok"]).await, world.deploy(&["ok"]).await);
    let mut babbled = Vec::new();
    for id in [seen, unseen] {
        world.phase(id, Phase::Ready).await;
        assert_eq!(world.call(id, "babble_at", json!({ "path": "now", "lines": 500 })).await, "waits");
        babbled.push(world.instance_dir(id).join("work/now"));
    }
    std::fs::write(&babbled[0], "").expect("written");
    until("it has said all", || !babbled[0].exists()).await;
    let crash =
        json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "crash", "arguments": {} } });
    assert!(world.send(seen, crash).await.is_err());
    world.logged(seen, "Stdout babble 499").await;

    let pid = world.phase(unseen, Phase::Ready).await.pid.expect("it runs");
    world.drop_agent();
    std::fs::write(&babbled[1], "").expect("written");
    until("it has said all", || !babbled[1].exists()).await;
    kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), Signal::SIGKILL).expect("killed");
    dies(pid).await;
    world.start_agent().await;
    world.logged(unseen, "Stdout babble 499").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_an_earlier_agent_knew_is_not_asked_for_its_era_again() {
    let mut world = World::new().await;
    let id = world.deploy(&["ok"]).await;
    let first = world.phase(id, Phase::Ready).await.pid;
    assert_eq!(world.call(id, "first_method", json!({})).await, "server/discover");
    world.agent().shutdown(Shutdown::StopAll).await;
    world.start_agent().await;
    world.observed("ready again", id, |i| i.status.phase == Phase::Ready && i.pid != first).await;
    assert_eq!(world.call(id, "first_method", json!({})).await, "initialize");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_agent_every_descendant_ends_after_the_grace() {
    let mut world = World::new().await;
    let id = world.deploy(&["stubborn"]).await;
    let pid = world.phase(id, Phase::Ready).await.pid.expect("a pid");
    world.call(id, "fork", json!({})).await;
    let all = processes_with(&id.to_string());
    assert!(all.len() >= 2, "{all:?}");
    world.drop_agent();
    dies(pid).await;
    for pid in all {
        dies(pid).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_stops_all_leaves_nothing_running() {
    let mut world = World::new().await;
    let id = world.deploy(&["stubborn"]).await;
    let pid = world.phase(id, Phase::Ready).await.pid.expect("a pid");
    world.agent().shutdown(Shutdown::StopAll).await;
    assert!(!alive(pid));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_is_seen_and_the_server_is_started_again() {
    let world = World::new().await;
    let id = world.deploy(&["ok"]).await;
    let first = world.phase(id, Phase::Ready).await.pid;
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "crash", "arguments": { "code": 7 } } });
    // The call reached it, and may have been carried out.
    assert_eq!(world.send(id, message).await.expect_err("it crashed").1["code"], "upstream_failed");
    let crashed = world.phase(id, Phase::Degraded).await;
    assert_eq!(crashed.status.reason, Reason::Exited);
    assert!(crashed.status.next_attempt_at.is_some());
    assert_eq!(crashed.exit.expect("its exit").code, Some(7));
    let again = world.observed("ready again", id, |i| i.status.phase == Phase::Ready && i.pid != first).await;
    assert_eq!(again.restarts, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_versions_of_secrets_told_are_those_the_process_was_started_with_also_by_another_agent() {
    let mut world = World::new().await;
    let id = world
        .deploy_with(&["ok"], |instance| {
            with_secret(instance, "API_KEY", "first");
            instance.secret_versions = instance.secrets.keys().map(|id| (*id, 1)).collect();
        })
        .await;
    let told = |it: &ObservedInstance| it.secret_versions.values().copied().collect::<Vec<_>>();
    let first = world.phase(id, Phase::Ready).await;
    assert_eq!(told(&first), [1]);
    world.desire(|all| {
        for instance in &mut all.instances {
            instance.secrets.values_mut().for_each(|secret| *secret = Secret::new("second"));
            instance.secret_versions.values_mut().for_each(|version| *version = 2);
        }
    });
    world.drop_agent();
    world.start_agent().await;
    until("it is taken over", || world.slot_phase(id) == Some(Phase::Ready)).await;
    assert_eq!(world.call(id, "env", json!({ "name": "API_KEY" })).await, "first");
    let taken_over = world.told(id).expect("it is known");
    assert_eq!((taken_over.pid, told(&taken_over)), (first.pid, vec![1]));

    let pid = first.pid.expect("a pid");
    kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), Signal::SIGKILL).expect("killed");
    let again = |it: &ObservedInstance| it.status.phase == Phase::Ready && it.pid.is_some_and(|now| now != pid);
    assert_eq!(told(&world.observed("ready again", id, again).await), [2]);
    assert_eq!(world.call(id, "env", json!({ "name": "API_KEY" })).await, "second");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_while_the_agent_was_away_is_counted_with_those_before_it() {
    let mut world = World::new().await;
    let id = world.deploy(&["ok"]).await;
    let mut pid = world.phase(id, Phase::Ready).await.pid.expect("a pid");
    for restarts in 1..=3 {
        let server = Pid::from_raw(i32::try_from(pid).expect("a pid"));
        // The second of them while no agent is there.
        let away = restarts == 2;
        if away {
            world.drop_agent();
        }
        kill(server, Signal::SIGKILL).expect("killed");
        dies(pid).await;
        if away {
            world.start_agent().await;
        }
        let again = |it: &ObservedInstance| it.status.phase == Phase::Ready && it.pid.is_some_and(|now| now != pid);
        let again = world.observed("ready again", id, again).await;
        assert_eq!(again.restarts, restarts);
        pid = again.pid.expect("a pid");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_exits_at_once_is_a_crash_loop_with_its_last_words() {
    let world = World::new().await;
    let id = world.deploy(&["exit-at-once", "3"]).await;
    let failed = world.phase(id, Phase::Failed).await;
    assert_eq!(failed.status.reason, Reason::CrashLoop);
    let exit = failed.exit.expect("its exit");
    assert_eq!(exit.code, Some(3), "{exit:?} {}", world.log_text(id).await);
    assert!(exit.stderr_tail.contains("fatal: nothing to do"), "{}", exit.stderr_tail);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_very_last_words_of_a_server_are_kept_however_many_it_had() {
    let world = World::new().await;
    let id = world.deploy(&["long-last-words"]).await;
    let failed = world.phase(id, Phase::Failed).await;
    let exit = failed.exit.expect("its exit");
    assert_eq!(exit.code, Some(4));
    assert!(exit.stderr_tail.ends_with("the very last word\n"), "{}", exit.stderr_tail);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_leaves_ends_its_installs_and_nothing_else() {
    let mut world = World::new().await;
    let id = world.deploy(&["ok"]).await;
    let pid = world.phase(id, Phase::Ready).await.pid.expect("a pid");
    let kept = world.router();
    let mut options = world.options();
    let script = world.dir.path().join("slow-npm/bin/npm-cli.js");
    world.agent().shutdown(Shutdown::Leave).await;
    std::fs::create_dir_all(script.parent().expect("a directory")).expect("made");
    std::fs::write(&script, "setInterval(() => {}, 1000)").expect("a script");
    options.clients.npm.clone_from(&script);
    world.start_agent_with(options).await;
    world.desire(|desired| {
        let runtime = fixture_runtime(&["modern"]);
        desired.jobs.push(toolyard_types::agent::ResolveJob {
            id: toolyard_types::JobId::generate(),
            runtime,
            secrets: Default::default(),
            of: None,
        });
    });
    // Its own process id is that of its namespace.
    let mark = script.to_str().expect("text").to_owned();
    let running = || {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.find(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&mark)
        })
    };
    until("npm runs", || running().is_some()).await;
    let npm = running().expect("a pid");
    let also_kept = world.router();
    world.agent().shutdown(Shutdown::Leave).await;
    dies(npm).await;
    assert!(alive(pid), "the server was to stay");
    world.start_agent().await;
    assert_eq!(world.phase(id, Phase::Ready).await.pid, Some(pid));
    drop((kept, also_kept));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_never_answers_times_out() {
    let world = World::new().await;
    let id = world.deploy_with(&["never-answer"], |instance| instance.spec.start_timeout_ms = 2500).await;
    let failed = world.phase(id, Phase::Failed).await;
    assert_eq!(failed.status.reason, Reason::StartTimeout);
    assert!(failed.status.next_attempt_at.is_some());
    let log = world.log_text(id).await;
    assert!(!log.contains("did not end when its input was closed"), "nobody closed it: {log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_standard_output_is_a_failed_handshake_and_noise_is_only_logged() {
    let world = World::new().await;
    let garbage = world.deploy_with(&["garbage"], |instance| instance.spec.start_timeout_ms = 2500).await;
    let noisy = world.deploy(&["noisy"]).await;
    world.phase(noisy, Phase::Ready).await;
    assert_eq!(world.call(noisy, "echo", json!({ "message": "clear" })).await, "clear");
    let line = world.log(noisy).await.into_iter().find(|line| line.stream == LogStream::Stdout).expect("noise");
    assert_eq!(line.text, "a banner on standard output");
    let failed = world.phase(garbage, Phase::Failed).await;
    assert_eq!(failed.status.reason, Reason::HandshakeFailed);
    assert!(failed.status.message.contains("not JSON-RPC"), "{}", failed.status.message);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prepared_instance_starts_only_when_told() {
    let world = World::new().await;
    let id = world.deploy_with(&["ok"], |instance| instance.run = false).await;
    let prepared = world.observed("prepared", id, |instance| instance.status.message == "prepared").await;
    assert_eq!((prepared.status.phase, prepared.pid), (Phase::Pending, None));
    world.desire(|desired| desired.instances[0].run = true);
    world.phase(id, Phase::Ready).await;
    world.desire(|desired| desired.instances[0].run = false);
    world.observed("stopped, still prepared", id, |i| i.status.message == "prepared" && i.pid.is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_call_that_takes_too_long_or_fails_is_told_as_such() {
    let world = World::new().await;
    let probing = |tool: &str, ms: u64| {
        let arguments = json!({ "ms": ms }).as_object().expect("an object").clone();
        toolyard_types::spec::ProbeCall { tool: tool.into(), arguments }
    };
    let slow = world.deploy_with(&["ok"], |instance| {
        instance.spec.start_timeout_ms = 2500;
        instance.spec.probe_call = Some(probing("sleep", 60_000));
    });
    let slow = slow.await;
    let unknown = world.deploy_with(&["ok"], |instance| instance.spec.probe_call = Some(probing("none", 0))).await;
    for (id, why) in [(slow, "was not answered within the 2500 ms"), (unknown, "unknown tool")] {
        let failed = world.phase(id, Phase::Failed).await;
        assert_eq!(failed.status.reason, Reason::ProbeFailed);
        assert!(failed.status.message.contains(why), "{}", failed.status.message);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_is_seen_within_about_ten_seconds() {
    let world = World::new().await;
    let id = world.deploy(&["deaf-after", "2000"]).await;
    let ready = world.phase(id, Phase::Ready).await;
    let failing = world.observed("a check failed", id, |instance| instance.failures > 0).await;
    assert_eq!(failing.status.phase, Phase::Ready, "one silence is not yet a hang");
    let degraded = world.phase(id, Phase::Degraded).await;
    assert_eq!((degraded.status.reason, degraded.pid), (Reason::ProbeFailed, ready.pid));
    assert!(degraded.failures >= 3 && degraded.last_success_at < Some(degraded.status.since));
    let took = degraded.status.since.since(degraded.last_success_at.expect("it answered once"));
    assert!(took < std::time::Duration::from_secs(14), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_held_up_by_a_call_is_busy_and_neither_failing_nor_hurt() {
    let world = World::new().await;
    let id = world.deploy(&["fragile"]).await;
    let ready = world.phase(id, Phase::Ready).await;
    let call = |tool: &str, ms: u64| json!({ "jsonrpc": "2.0", "id": ms, "method": "tools/call", "params": { "name": tool, "arguments": { "ms": ms } } });
    let held_up = world.send(id, call("block", 6000));
    let meanwhile = async {
        // It cannot take this one up before its caller goes away.
        let (_, problem) = world.send_within(id, call("sleep", 60_000), 500).await.expect_err("it is held up");
        assert_eq!(problem["code"], "upstream_timeout");
        let busy = world.observed("busy", id, |instance| instance.status.message == toolyard_types::agent::BUSY).await;
        assert_eq!((busy.status.phase, busy.failures), (Phase::Ready, 0));
        assert_eq!(busy.status.since, ready.status.since, "it has been ready all the time");
    };
    let (answer, ()) = tokio::join!(held_up, meanwhile);
    assert_eq!(answer.expect("it was only slow")[0]["result"]["content"][0]["text"], "blocked");
    let after = world.observed("not busy", id, |instance| instance.status.message.is_empty()).await;
    assert_eq!((after.pid, after.restarts, after.failures), (ready.pid, 0, 0));
    assert_eq!(world.call(id, "echo", json!({ "message": "well" })).await, "well");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_calls_is_busy_only_for_as_long_as_a_call_may_take() {
    let world = World::new().await;
    let id = world.deploy_with(&["deaf-after", "2000"], |instance| instance.spec.call_timeout_ms = 6000).await;
    world.phase(id, Phase::Ready).await;
    world.observed("it is deaf", id, |instance| instance.failures > 0).await;
    let call =
        json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "echo", "arguments": {} } });
    let (called, degraded) = tokio::join!(world.send_within(id, call, 15_000), world.phase(id, Phase::Degraded));
    assert_eq!(degraded.status.reason, Reason::ProbeFailed);
    drop(called);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_for_good_is_ended_and_started_again_in_either_era() {
    let mut world = World::new().await;
    world.restart_agent_that_waits(std::time::Duration::from_secs(2)).await;
    let ids = [world.deploy(&["ok"]).await, world.deploy(&["modern"]).await];
    for id in ids {
        world.phase(id, Phase::Ready).await;
        assert_eq!(world.call(id, "hang", json!({})).await, "hangs");
    }
    for id in ids {
        let again = world.observed("ready again", id, |i| i.status.phase == Phase::Ready && i.restarts == 1).await;
        let failure = again.exit.and_then(|exit| exit.failure).expect("why it was ended");
        assert_eq!(failure.reason, Reason::ProbeFailed);
        assert!(failure.message.starts_with("it did not answer for "), "{}", failure.message);
        world.logged(id, "Toolyard it stopped answering").await;
        world.logged(id, "Toolyard does not run: it did not answer for ").await;
        assert_eq!(world.call(id, "echo", json!({ "message": "well" })).await, "well");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_answers_again_soon_enough_is_kept_and_its_log_says_both() {
    let world = World::new().await;
    let id = world.deploy(&["ok"]).await;
    let pid = world.phase(id, Phase::Ready).await.pid.expect("it runs");
    let server = Pid::from_raw(i32::try_from(pid).expect("a pid"));
    kill(server, Signal::SIGSTOP).expect("it stands still");
    world.phase(id, Phase::Degraded).await;
    world.logged(id, "Toolyard it stopped answering").await;
    kill(server, Signal::SIGCONT).expect("it goes on");
    let after = world.phase(id, Phase::Ready).await;
    assert_eq!((after.pid, after.restarts), (Some(pid), 0));
    world.logged(id, "Toolyard it answers again").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_a_call_holds_up_is_ended_only_when_no_call_may_take_so_long() {
    let mut world = World::new().await;
    world.restart_agent_that_waits(std::time::Duration::from_secs(2)).await;
    let held_up = world.deploy_with(&["ok"], |instance| instance.spec.call_timeout_ms = 60_000).await;
    let stuck = world.deploy_with(&["ok"], |instance| instance.spec.call_timeout_ms = 5000).await;
    let pid = world.phase(held_up, Phase::Ready).await.pid;
    world.phase(stuck, Phase::Ready).await;
    let block = |ms: u64| json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "block", "arguments": { "ms": ms } } });
    let (answered, failed) =
        tokio::join!(world.send(held_up, block(15_000)), world.send_within(stuck, block(600_000), 40_000));
    assert_eq!(answered.expect("it was only slow")[0]["result"]["content"][0]["text"], "blocked");
    let after = world.observed("not busy", held_up, |instance| instance.status.message.is_empty()).await;
    assert_eq!((after.status.phase, after.pid, after.restarts), (Phase::Ready, pid, 0));
    assert!(failed.is_err());
    world.observed("ready again", stuck, |i| i.status.phase == Phase::Ready && i.restarts == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_discover_ends_or_wedges_is_asked_initialize_from_then_on() {
    let mut world = World::new().await;
    let ends = world.deploy(&["initialize-only"]).await;
    let wedged = world.deploy_with(&["wedged-by-discover"], |instance| instance.spec.start_timeout_ms = 3000).await;
    for id in [ends, wedged] {
        let ready = world.phase(id, Phase::Ready).await;
        assert_eq!((ready.restarts, ready.exit), (0, None), "it has not failed");
        assert_eq!(world.call(id, "first_method", json!({})).await, "initialize");
        assert_eq!(starts(&world, id).await, 2);
    }
    // Another instance of the revision, and one of an agent that was restarted, are asked so at once.
    let second = DesiredInstance { id: InstanceId::generate(), ..world.desired_instance(ends) };
    let third = DesiredInstance { id: InstanceId::generate(), ..world.desired_instance(ends) };
    let (second_id, third_id) = (second.id, third.id);
    world.desire(|all| all.instances.push(second));
    world.phase(second_id, Phase::Ready).await;
    assert_eq!(starts(&world, second_id).await, 1);
    world.agent().shutdown(Shutdown::StopAll).await;
    world.desire(|all| all.instances.push(third));
    world.start_agent().await;
    world.phase(third_id, Phase::Ready).await;
    assert_eq!(starts(&world, third_id).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_of_what_is_gone_is_kept_with_what_its_installer_said_until_its_server_is_gone() {
    let world = World::new().await;
    let id = world.deploy(&["exit-at-once", "3"]).await;
    let failed = world.phase(id, Phase::Failed).await;
    assert!(failed.status.message.contains("exit code 3: fatal: nothing to do"), "{}", failed.status.message);
    let other = world.deploy(&["ok"]).await;
    world.phase(other, Phase::Ready).await;
    let server = world.desired_instance(id).server;
    world.desire(|all| all.keep_logs = Some([server].into()));
    world.undesire(id);
    world.gone(id).await;
    until("its directory is gone", || !world.instance_dir(id).exists()).await;
    let log = world.log_text(id).await;
    assert!(log.contains("Toolyard npm: added 1 package") && log.contains("Stderr fatal: nothing to do"), "{log}");
    let mut followed = world.follow(id).await;
    while let Some(frame) = tokio::time::timeout(crate::world::PATIENCE, followed.frame()).await.expect("it ends") {
        frame.expect("readable");
    }
    // What goes next takes the logs of servers along that are not known any more.
    world.desire(|all| all.keep_logs = Some([].into()));
    world.undesire(other);
    world.gone(other).await;
    let kept = world.data_dir().join("logs");
    until("no log is left", || std::fs::read_dir(&kept).expect("kept logs").next().is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_of_a_package_that_cannot_be_resolved_is_kept_under_its_job() {
    let world = World::new().await;
    let id = JobId::generate();
    let of = Some(JobOf { server: ServerId::generate(), revision: RevisionId::generate() });
    let runtime = Runtime::Npm(package("no-such-package"));
    world.desire(|desired| desired.jobs.push(ResolveJob { id, runtime, secrets: Default::default(), of }));
    world.observe("the job has failed", |observed| observed.jobs.iter().find(|job| job.id == id).map(|_| ())).await;
    let (status, log) = world.get(&format!("/v1/jobs/{id}/logs")).await;
    let log = String::from_utf8(log).expect("text");
    assert_eq!(status.as_u16(), 200);
    assert!(log.contains("npm: npm error code E404") && log.contains("not resolved: "), "{log}");
    assert_eq!(world.get(&format!("/v1/jobs/{}/logs", JobId::generate())).await.0.as_u16(), 404);
}

/// How often the fixture was started.
async fn starts(world: &World, id: InstanceId) -> usize {
    world.log_text(id).await.matches(" starts").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_stopped_ends_its_calls_first_and_takes_no_new_ones() {
    let world = World::new().await;
    let id = world.deploy(&["ok"]).await;
    world.phase(id, Phase::Ready).await;
    let call = |tool: &str, arguments: serde_json::Value| json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": tool, "arguments": arguments } });
    let slow = world.send(id, call("sleep", json!({ "ms": 1500 })));
    let meanwhile = async {
        world.logged(id, "fixture ok starts").await;
        world.undesire(id);
        world.phase(id, Phase::Stopping).await;
        world.send(id, call("echo", json!({ "message": "late" }))).await
    };
    let (slow, late) = tokio::join!(slow, meanwhile);
    assert_eq!(slow.expect("it was under way")[0]["result"]["content"][0]["text"], "slept");
    assert_eq!(late.expect_err("it stops").1["code"], "server_not_ready");
    world.gone(id).await;
}
