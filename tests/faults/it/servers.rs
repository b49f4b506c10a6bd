//! Servers that are held up, that end at what they do not know, that fail to start, eat memory or have no image; and
//! clocks that jump.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use toolyard_test_support::{Engine, KEY, Row, Toolyard, long, test_variable, wait_until};

const SCRIPT: &str = include_str!("server.js");

fn text(output: &std::process::Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn server(toolyard: &Toolyard, name: &str) -> Value {
    toolyard.api("GET", &format!("/servers/{name}")).send().ok()
}

#[test]
fn a_server_that_a_call_holds_up_is_busy_and_an_update_of_it_goes_through() {
    let toolyard = Toolyard::on(Engine::Sqlite).script("holds", SCRIPT).start();
    let before = toolyard.deploy("holds", &[]);
    let seen = std::thread::scope(|scope| {
        let held = scope.spawn(|| toolyard.call("holds", "block", json!({ "ms": 6000 })));
        // A client that calls too, and goes away before the server can take its call up.
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": { "name": "leaves", "version": "1" },
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        let params = json!({ "name": "echo", "arguments": {}, "_meta": meta });
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
        let gone = toolyard
            .request("POST", "/mcp/default/servers/holds")
            .key(KEY)
            .header("accept", "application/json, text/event-stream");
        let gone = gone
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", "tools/call")
            .header("mcp-name", "echo");
        let gone = gone.json(message).begin();
        let busy = toolyard
            .wait_server("holds", "it is busy", |it| it["message"].as_str().unwrap_or_default().starts_with("busy"));
        gone.abort();
        (held.join().expect("it ran"), busy)
    });
    let (answer, busy) = seen;
    let after = server(&toolyard, "holds");
    let restarts = &after["instances"][0]["restarts"];
    Row::of("servers", "a call holds the whole server up for 6 s while it is probed")
        .expected("ready, answered, not started again")
        .got(format!("{}, {}, {restarts} restarts", busy["phase"].as_str().unwrap_or_default(), answer.is_ok()));
    assert_eq!((&busy["phase"], restarts), (&json!("ready"), &json!(0)));
    assert_eq!(after["instance_id"], before["instance_id"]);
    assert!(answer.is_ok(), "{answer:?}");

    let (stop, calls, failed) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let rounds = long(2, 6);
    let updated = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                calls.fetch_add(1, Ordering::Relaxed);
                if toolyard.call("holds", "block", json!({ "ms": 3000 })).is_err() {
                    failed.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let updated = (0..rounds).filter(|round| {
            let set = format!("ROUND={round}");
            let update = ["servers", "update", "holds", "--set-env", set.as_str(), "--wait", "--timeout", "90"];
            toolyard.run(&update).status.success()
        });
        let updated = updated.count();
        stop.store(true, Ordering::Relaxed);
        updated
    });
    let (calls, failed) = (calls.into_inner(), failed.into_inner());
    Row::of("servers", format!("{rounds} updates while one call after the other holds the server up for 3 s"))
        .expected("all done, 0 calls failed")
        .got(format!("{updated} done, {failed} of {calls} calls failed"));
    assert_eq!((updated, failed), (rounds, 0));
}

#[test]
fn a_server_that_discover_ends_is_asked_initialize_and_that_is_remembered() {
    let mut toolyard = Toolyard::on(Engine::Sqlite).script("strict", SCRIPT).start();
    let first = toolyard.deploy("strict", &["--set-env", "MODE=initialize-only"]);
    let restarts = &first["instances"][0]["restarts"];
    let starts =
        |toolyard: &Toolyard| text(&toolyard.run(&["servers", "logs", "strict"])).matches("started as").count();
    let at_first = starts(&toolyard);
    let _ = toolyard.stop_by("TERM");
    toolyard.serve();
    let old = first["instance_id"].clone();
    let _ = toolyard.json(&["servers", "restart", "strict", "--wait", "--timeout", "60"]);
    let again = toolyard.wait_server("strict", "another instance serves", |it| {
        it["phase"] == "ready" && !it["instance_id"].is_null() && it["instance_id"] != old
    });
    let later = starts(&toolyard);
    Row::of("servers", "exits at any message before `initialize`")
        .expected("ready after 2 starts and 0 restarts; after a restart of Toolyard at the first start")
        .got(format!("{at_first} starts and {restarts} restarts; {later} start"));
    assert_eq!((at_first, restarts, later), (2, &json!(0), 1), "{again:#}");
}

#[test]
fn the_log_of_a_failed_deployment_can_be_read_after_its_instance_is_gone() {
    let toolyard = Toolyard::on(Engine::Sqlite).script("broken", SCRIPT).start();
    let args = [
        "deploy",
        "com.example/broken",
        "--name",
        "broken",
        "--set-env",
        "MODE=missing-file",
        "--wait",
        "--timeout",
        "90",
    ];
    let refused = text(&toolyard.run(&args));
    let names = refused.contains("Cannot find module './made-by-a-script.json'");
    let gone = |toolyard: &Toolyard| {
        wait_until(Duration::from_secs(60), "the failed instance is gone", || {
            server(toolyard, "broken")["instances"]
                .as_array()
                .is_none_or(|all| all.iter().all(|it| it["phase"] == "ready"))
        });
        // Its agent forgets it a moment later.
        wait_until(Duration::from_secs(60), "its directory is gone", || {
            let dirs = std::fs::read_dir(toolyard.data_dir().join("toolbox/instances")).map_or(0, Iterator::count);
            dirs == server(toolyard, "broken")["instances"].as_array().map_or(0, Vec::len)
        });
    };
    gone(&toolyard);
    let log = toolyard.run(&["servers", "logs", "broken", "--tail", "1000"]);
    let kept = log.status.success() && text(&log).contains("Cannot find module") && text(&log).contains("npm: ");
    let only = toolyard.run(&["servers", "logs", "broken", "--previous", "--tail", "1000"]);
    assert!(
        only.status.success() && text(&only).contains("npm: "),
        "what ended last is all that there was: {}",
        text(&only)
    );
    Row::of("servers", "a deployment that fails: its message and, once its instance is gone, its log")
        .expected("the message names the missing module; the log is there with the installer's output")
        .got(format!("named: {names}; kept: {kept}"));
    assert!(names, "{refused}");
    assert!(kept, "{}", text(&log));

    let _ = toolyard.json(&["servers", "update", "broken", "--set-env", "MODE=well", "--wait", "--timeout", "90"]);
    let rolled_back =
        toolyard.run(&["servers", "update", "broken", "--set-env", "MODE=missing-file", "--wait", "--timeout", "90"]);
    assert!(!rolled_back.status.success());
    gone(&toolyard);
    let serves = text(&toolyard.run(&["servers", "logs", "broken"]));
    let previous = text(&toolyard.run(&["servers", "logs", "broken", "--previous"]));
    let second = text(&toolyard.run(&["servers", "logs", "broken", "--revision", "2"]));
    Row::of("servers", "an update that is rolled back: `logs`, `logs --previous`, `logs --revision 2`")
        .expected("of what serves; of what failed; of what serves")
        .got(format!(
            "{}; {}; {}",
            serves.contains("started as well"),
            previous.contains("Cannot find module"),
            second.contains("started as well")
        ));
    assert!(serves.contains("started as well"), "{serves}");
    assert!(previous.contains("Cannot find module"), "{previous}");
    assert!(second.contains("started as well"), "{second}");
    let unknown = toolyard.run(&["servers", "logs", "broken", "--revision", "9"]);
    assert!(!unknown.status.success() && text(&unknown).contains("revision 9"), "{}", text(&unknown));
}

#[test]
fn a_followed_log_goes_on_with_the_next_instance() {
    let toolyard = Toolyard::on(Engine::Sqlite).script("followed", SCRIPT).start();
    let _ = toolyard.deploy("followed", &[]);
    let out = toolyard.dir().join("followed.log");
    let file = std::fs::File::create(&out).expect("a file");
    let mut child =
        toolyard.command().args(["servers", "logs", "followed", "--follow"]).stdout(file).spawn().expect("it runs");
    let read = || std::fs::read_to_string(&out).unwrap_or_default();
    wait_until(Duration::from_secs(20), "the log is followed", || read().contains("started as"));
    let _ = toolyard.json(&["servers", "restart", "followed", "--wait", "--timeout", "60"]);
    // Well before the agent's next turn with the control plane, which may be half a minute away.
    wait_until(Duration::from_secs(15), "the log goes on", || {
        read().matches("started as").count() == 2 && read().contains("goes on with the next instance")
    });
    let _ = toolyard.run(&["servers", "delete", "followed"]);
    let began = Instant::now();
    wait_until(Duration::from_secs(60), "the log ends with the server", || {
        child.try_wait().is_ok_and(|it| it.is_some())
    });
    Row::of("servers", "`logs --follow` over a restart and a deletion")
        .expected("both instances' lines, then the end")
        .got(format!("both, ended after {} s", began.elapsed().as_secs()));
}

#[test]
fn a_followed_log_leaves_out_no_instance_between_two_restarts() {
    let toolyard = Toolyard::on(Engine::Sqlite).script("hasty", SCRIPT).start();
    let _ = toolyard.deploy("hasty", &["--observe", "0"]);
    let out = toolyard.dir().join("hasty.log");
    let file = std::fs::File::create(&out).expect("a file");
    let mut child =
        toolyard.command().args(["servers", "logs", "hasty", "--follow"]).stdout(file).spawn().expect("it runs");
    let started = || std::fs::read_to_string(&out).unwrap_or_default().matches("started as").count();
    wait_until(Duration::from_secs(20), "the log is followed", || started() == 1);
    // As fast as they go: the second may be gone before anybody has looked for it.
    for _ in 0..2 {
        let _ = toolyard.json(&["servers", "restart", "hasty", "--wait", "--timeout", "60"]);
    }
    wait_until(Duration::from_secs(60), "the log has the starts of all three", || started() == 3);
    let _ = toolyard.run(&["servers", "delete", "hasty"]);
    wait_until(Duration::from_secs(60), "the log ends with the server", || {
        child.try_wait().is_ok_and(|it| it.is_some_and(|it| it.success()))
    });
    Row::of("servers", "`logs --follow` over two restarts in a row")
        .expected("the lines of 3 instances, each once")
        .got(format!("of {}", started()));
    assert_eq!(started(), 3);
}

#[test]
fn a_followed_log_says_that_toolyard_went_away_and_goes_on_when_it_is_back() {
    let mut toolyard = Toolyard::on(Engine::Sqlite).script("lasting", SCRIPT).start();
    let _ = toolyard.deploy("lasting", &[]);
    let (out, err) = (toolyard.dir().join("lasting.log"), toolyard.dir().join("lasting.err"));
    let file = |path: &Path| std::fs::File::create(path).expect("a file");
    let mut follows = toolyard.command();
    follows.args(["servers", "logs", "lasting", "--follow"]).stdout(file(&out)).stderr(file(&err));
    let mut child = follows.spawn().expect("it runs");
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    wait_until(Duration::from_secs(20), "the log is followed", || read(&out).contains("started as"));
    let _ = toolyard.stop_by("TERM");
    wait_until(Duration::from_secs(20), "it says so", || read(&err).contains("the connection to the log was lost"));
    toolyard.serve();
    let _ = toolyard.wait_server("lasting", "it serves", |it| it["phase"] == "ready");
    let _ = toolyard.json(&["servers", "restart", "lasting", "--wait", "--timeout", "60"]);
    wait_until(Duration::from_secs(60), "the log goes on", || read(&out).matches("started as").count() > 1);
    let _ = toolyard.run(&["servers", "delete", "lasting"]);
    wait_until(Duration::from_secs(60), "the log ends with the server", || {
        child.try_wait().is_ok_and(|it| it.is_some_and(|it| it.success()))
    });
    let log = read(&out);
    let mut lines: Vec<&str> = log.lines().filter(|line| line.contains("started as")).collect();
    let starts = lines.len();
    lines.sort_unstable();
    lines.dedup();
    Row::of("servers", "`logs --follow` while Toolyard is restarted, then its server")
        .expected("it says that it was cut off, goes on with the next instance, and prints no line twice")
        .got(format!("it said so; {starts} starts, {} of them twice", starts - lines.len()));
    assert!(starts >= 2 && starts == lines.len(), "{log}");
}

#[test]
fn a_server_that_eats_all_its_memory_is_killed_alone_and_comes_back() {
    let toolyard = Toolyard::on(Engine::Sqlite).script("eater", SCRIPT).script("other", SCRIPT).start();
    let _ = toolyard.deploy("eater", &["--memory", "200M"]);
    let _ = toolyard.deploy("other", &[]);
    let eaten = toolyard.call("eater", "eat", json!({}));
    let killed = toolyard.wait_server("eater", "it was out of memory", |it| {
        it["reason"] == "out_of_memory" || it["instances"][0]["restarts"] == 1
    });
    let beside = toolyard.call("other", "echo", json!({ "text": "well" }));
    let back =
        toolyard.wait_server("eater", "it is back", |it| it["phase"] == "ready" && it["instances"][0]["restarts"] == 1);
    let log = text(&toolyard.run(&["servers", "logs", "eater"]));
    Row::of("servers", "a call eats more than the 200 MB that its server may have")
        .expected("the call fails, the log says why, the server comes back, others answer")
        .got(format!(
            "failed: {}, said: {}, {}, others: {}",
            eaten.is_err(),
            log.contains("out of memory"),
            back["phase"].as_str().unwrap_or_default(),
            beside.is_ok()
        ));
    assert!(eaten.is_err() && log.contains("out of memory"), "{killed:#}\n{log}");
    assert_eq!(beside.expect("it answers"), "well");
}

#[test]
fn an_image_that_does_not_exist_fails_its_deployment_and_costs_what_serves_nothing() {
    let docker = test_variable("TOOLYARD_TEST_DOCKER_HOST");
    let toolyard = Toolyard::on(Engine::Sqlite)
        .setting("engine=docker")
        .setting(&format!("docker_host={docker}"))
        .script("beside", SCRIPT)
        .start();
    toolyard.publish(&json!({
        "$schema": "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json",
        "name": "com.example/no-image",
        "description": "An image that nobody has",
        "version": "1.0.0",
        "packages": [{
            "registryType": "oci",
            "identifier": "127.0.0.1:9/nobody/nothing:1",
            "transport": { "type": "stdio" },
        }],
    }));
    let _ = toolyard.deploy("beside", &[]);
    let began = Instant::now();
    let deployed =
        toolyard.run(&["deploy", "com.example/no-image", "--name", "no-image", "--wait", "--timeout", "120"]);
    let took = began.elapsed().as_secs();
    let failed = server(&toolyard, "no-image");
    let beside = toolyard.call("beside", "echo", json!({ "text": "well" }));
    let reason = failed["reason"].as_str().unwrap_or_default().to_owned();
    Row::of("servers", "an image that does not exist")
        .expected("failed with a reason and a message; others answer")
        .got(format!(
            "{} ({reason}) after {took} s; others: {}",
            failed["phase"].as_str().unwrap_or_default(),
            beside.is_ok()
        ));
    assert!(!deployed.status.success());
    assert_eq!(failed["phase"], "failed", "{failed:#}");
    assert!(failed["message"].as_str().is_some_and(|message| !message.is_empty()), "{failed:#}");
    assert_eq!(beside.expect("it answers"), "well");
    for name in ["beside", "no-image"] {
        let _ = toolyard.run(&["servers", "delete", name]);
    }
    wait_until(Duration::from_secs(60), "its container is gone", || {
        toolyard.api("GET", "/servers/beside").send().status == 404
    });
}

#[test]
fn a_clock_that_jumps_back_or_ahead_over_a_restart_costs_no_server() {
    for (what, seconds) in [("back by two hours", -7200_i64), ("ahead by three days", 3 * 86_400)] {
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path().join("data");
        let before = Toolyard::on(Engine::Sqlite).data_dir(&data).script("steady", SCRIPT).start();
        let _ = before.deploy("steady", &[]);
        let mut before = before;
        let _ = before.stop_by("TERM");
        let skew = skewed_clock(dir.path(), seconds);
        let after = Toolyard::on(Engine::Sqlite).in_place_of(&before);
        let after = after.variable("LD_PRELOAD", &skew).script("steady", SCRIPT).start();
        let ready = after.wait_server("steady", "it serves", |it| it["phase"] == "ready");
        let answer = after.call("steady", "echo", json!({ "text": "well" }));
        let updated = after.run(&["servers", "update", "steady", "--set-env", "A=1", "--wait", "--timeout", "90"]);
        let log = text(&after.run(&["servers", "logs", "steady"]));
        Row::of("clock", format!("set {what} while Toolyard was down"))
            .expected("the server serves, is updated, and has its log")
            .got(format!(
                "{}, updated: {}, log: {}",
                answer.is_ok(),
                updated.status.success(),
                log.contains("started as")
            ));
        assert_eq!(answer.expect("it answers"), "well", "{ready:#}");
        assert!(updated.status.success(), "{}", text(&updated));
        assert!(log.contains("started as"), "{log}");
        drop(before);
    }
}

/// A library that, when it is loaded first, moves a program's wall clock.
fn skewed_clock(dir: &Path, seconds: i64) -> String {
    let (source, library) = (dir.join("clock.c"), dir.join(format!("clock{seconds}.so")));
    let code = format!(
        "#define _GNU_SOURCE\n#include <dlfcn.h>\n#include <time.h>\n\
         int clock_gettime(clockid_t id, struct timespec *ts) {{\n\
         static int (*real)(clockid_t, struct timespec *);\n\
         if (!real) real = dlsym(RTLD_NEXT, \"clock_gettime\");\n\
         int result = real(id, ts);\n\
         if (result == 0 && id == CLOCK_REALTIME) ts->tv_sec += {seconds};\n\
         return result; }}\n"
    );
    std::fs::write(&source, code).expect("written");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl").status();
    assert!(built.is_ok_and(|status| status.success()), "cc is needed to build the program too");
    library.display().to_string()
}
