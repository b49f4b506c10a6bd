//! A hostile server: what it asks of the kernel, whom it reaches, what it fills.

use serde_json::{Value, json};
use toolyard_test_support::{Engine, Row, Toolyard, User};

/// A server whose one tool runs a Python program.
const HOSTILE: &str = r#"#!/usr/bin/env node
const { spawnSync } = require("node:child_process");
const send = (message) => process.stdout.write(JSON.stringify({ jsonrpc: "2.0", ...message }) + "\n");
require("node:readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const { id, method, params } = JSON.parse(line);
  if (id === undefined) return;
  if (method === "initialize") {
    const serverInfo = { name: "hostile", version: "1.0.0" };
    return send({ id, result: { protocolVersion: params.protocolVersion, capabilities: { tools: {} }, serverInfo } });
  }
  if (method === "tools/list") {
    return send({ id, result: { tools: [{ name: "run", description: "runs", inputSchema: { type: "object" } }] } });
  }
  if (method !== "tools/call") return send({ id, error: { code: -32601, message: "method not found" } });
  const ran = spawnSync("/usr/bin/python3", ["-"], { input: params.arguments.script, encoding: "utf8" });
  send({ id, result: { content: [{ type: "text", text: ran.stdout + ran.stderr }] } });
}).on("close", () => process.exit(0));
"#;

const KERNEL: &str = r#"
import ctypes, errno, platform
libc = ctypes.CDLL(None, use_errno=True)
at = {"x86_64": 0, "aarch64": 1}[platform.machine()]
calls = {
    "unshare(NEWUSER)": (272, 97, 0x10000000), "unshare(NEWNET)": (272, 97, 0x40000000), "clone3": (435, 435, 0),
    "mount": (165, 40, 0), "setns": (308, 268, 0), "bpf": (321, 280, 0), "perf_event_open": (298, 241, 0),
    "userfaultfd": (323, 282, 1), "ptrace": (101, 117, 0), "keyctl": (250, 219, 0), "add_key": (248, 217, 0),
    "process_vm_readv": (310, 270, 1), "io_uring_setup": (425, 425, 1),
}
for name, call in calls.items():
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(call[at]), ctypes.c_long(call[2]), *[ctypes.c_long(0)] * 5)
    print(name, "done" if result >= 0 else errno.errorcode[ctypes.get_errno()])
"#;

fn run(toolyard: &Toolyard, server: &str, script: &str) -> String {
    toolyard.call(server, "run", json!({ "script": script })).unwrap_or_else(|error| panic!("{error:?}"))
}

/// Runs a test as whoever runs the tests, and as `nobody`.
fn each_user(test: impl Fn(User, &str)) {
    for (user, name) in [(User::Own, "root"), (User::Plain, "a plain user")] {
        test(user, name);
    }
}

fn row(name: &str, tried: &str) -> Row {
    Row::of("sandbox", format!("{tried} (Toolyard as {name})"))
}

#[test]
fn a_hostile_server_gets_nothing_of_the_kernel_of_toolyard_and_of_its_neighbours() {
    each_user(|user, name| {
        let toolyard = Toolyard::on(Engine::Sqlite).user(user).script("hostile", HOSTILE).start();
        toolyard.deploy("hostile", &[]);

        let ran = run(&toolyard, "hostile", KERNEL);
        let refused = ran.lines().filter(|line| line.ends_with("EPERM") || line.ends_with("ENOSYS")).count();
        let what = "13 system calls: new namespaces, mount, keys, bpf, perf, userfaultfd, ptrace, io_uring";
        row(name, what).expected("13 refused").got(format!("{refused} refused"));
        assert_eq!(refused, 13, "{ran}");

        let report = toolyard.json(&["toolboxes", "show", "local"])["report"]["enforcement"]["toolyard_ports"].clone();
        let listeners = [(toolyard.port, "the public listener"), (toolyard.agent_port, "the agent listener")];
        if report["enforced"] != true {
            // Kernels may let a plain user put no filter on a TCP socket; then that is said.
            assert_eq!(user, User::Plain, "{report}");
            row(name, "connecting to Toolyard's listeners").expected("said on the toolbox").got(&report["detail"]);
        }
        for (port, what) in listeners.into_iter().filter(|_| report["enforced"] == true) {
            let script = format!(
                "import socket\nfor host in ('127.0.0.1', '::ffff:127.0.0.1', '0.0.0.0'):\n    try:\n        \
                 socket.create_connection((host, {port}), 1); print('reached')\n    except OSError as e: print(e)\n"
            );
            let ran = run(&toolyard, "hostile", &script);
            let reached = ran.matches("reached").count();
            row(name, &format!("connecting to {what} in three ways"))
                .expected("0 reached")
                .got(format!("{reached} reached"));
            assert!(reached == 0 && ran.lines().count() == 3, "{ran}");
        }

        let script = "import socket\ntry: socket.create_server(('127.0.0.1', 0)); print('listens')\n\
                      except OSError as e: print(e.strerror)\n";
        let ran = run(&toolyard, "hostile", script);
        row(name, "listening where other servers are").expected("Permission denied").got(ran.trim());
        assert!(ran.starts_with("Permission denied"), "{ran}");
    });
}

#[test]
fn a_server_that_fills_the_disk_is_stopped() {
    each_user(|user, name| {
        let toolyard = Toolyard::on(Engine::Sqlite).user(user).script("hostile", HOSTILE).start();
        toolyard.deploy("hostile", &["--disk", "64M"]);
        let fill =
            "f = open('fill', 'wb')\nfor _ in range(512): f.write(bytes(1 << 20))\nimport time; time.sleep(60)\n";
        let answer = toolyard.call("hostile", "run", json!({ "script": fill }));
        let stopped = |server: &Value| server.to_string().contains("out_of_disk");
        toolyard.wait_server("hostile", "it is stopped", stopped);
        row(name, "writing 512 MiB with a limit of 64 MiB").expected("stopped within seconds").got(match answer {
            Ok(text) => format!("answered {text}"),
            Err(_) => "stopped".to_owned(),
        });
    });
}

#[test]
fn two_installations_on_one_host_share_no_user_id() {
    let own = "import os; print(os.getuid())";
    let uid = |toolyard: &Toolyard| {
        toolyard.deploy("hostile", &[]);
        run(toolyard, "hostile", own).trim().parse::<u32>().expect("a number")
    };
    let [one, two] = [(), ()].map(|()| Toolyard::on(Engine::Sqlite).script("hostile", HOSTILE).start());
    let (first, second) = (uid(&one), uid(&two));
    Row::of("sandbox", "the user ids of servers of two installations")
        .expected("in different ranges")
        .got(format!("{first}, {second}"));
    assert!(first.abs_diff(second) >= 65_536 - 1 && first >= 2_100_000_000, "{first} {second}");
}

#[test]
fn only_who_may_allows_a_server_what_sandboxes_refuse() {
    let toolyard = Toolyard::on(Engine::Sqlite).script("hostile", HOSTILE).start();
    let developer = toolyard.make_key("developer", "developer");
    let wish =
        json!({ "name": "browser", "entry": "com.example/hostile", "privileges": ["new_namespaces"], "start": false });
    let refused = toolyard.request("POST", "/api/v1/servers").key(&developer).json(wish.clone()).send();
    Row::of("sandbox", "a developer allows a server new namespaces").expected("403").got(refused.status);
    assert_eq!((refused.status, refused.code().as_str()), (403, "forbidden"), "{}", refused.text);
    toolyard.deploy("hostile", &["--privilege", "new_namespaces"]);
    let ran = run(&toolyard, "hostile", KERNEL);
    assert!(ran.contains("unshare(NEWUSER) done") && ran.contains("mount EPERM"), "{ran}");
    // Who deploys keeps what was allowed, cannot add to it, and can take it away.
    let change =
        |body: Value| toolyard.request("PATCH", "/api/v1/servers/hostile").key(&developer).json(body).send().status;
    assert_eq!(change(json!({ "arguments": ["x"] })), 202);
    assert_eq!(change(json!({ "privileges": ["new_namespaces", "listen"] })), 403);
    assert_eq!(change(json!({ "privileges": [] })), 202);
    assert_eq!(change(json!({ "privileges": ["new_namespaces"] })), 403);
    let back = toolyard.request("POST", "/api/v1/servers/hostile/rollback").key(&developer);
    let back = back.json(json!({ "revision": 1 })).send();
    Row::of("sandbox", "a developer rolls back to a revision with a privilege").expected("403").got(back.status);
    assert_eq!(back.status, 403, "{}", back.text);
}
