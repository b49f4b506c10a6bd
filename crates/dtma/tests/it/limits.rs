//! What servers are kept from, and what they may use.

use serde_json::json;
use toolyard_types::agent::{Listeners, Observed};
use toolyard_types::spec::{Egress, PathGrant, Privilege};
use toolyard_types::state::{Phase, Reason};

use crate::world::{World, alive, path_text, processes_with, until, with_secret};

fn enforced(world: &World, protection: &str) -> bool {
    world.report().enforcement.get(protection).is_some_and(|entry| entry.enforced)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_report_says_what_this_host_is_and_enforces() {
    let world = World::new().await;
    let report = world.report();
    assert_eq!(report.engine, "process");
    assert!(report.runtimes.contains_key("node") && report.runtimes.contains_key("python"), "{:?}", report.runtimes);
    for protection in [
        "own_uid",
        "namespaces",
        "landlock",
        "seccomp",
        "server_ports",
        "egress_none",
        "disk_limit",
        "memory_limit",
        "process_limit",
    ] {
        let entry = report.enforcement.get(protection).expect(protection);
        assert!(!entry.detail.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_eats_memory_is_killed_and_said_to_have() {
    let world = World::new().await;
    let id = world.deploy_with(&["ok"], |instance| instance.spec.limits.memory_bytes = 200 << 20).await;
    world.phase(id, Phase::Ready).await;
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "eat_memory", "arguments": { "bytes": 1_u64 << 30 } } });
    assert!(world.send(id, message).await.is_err());
    let killed = world.observed("out of memory", id, |i| i.status.reason == Reason::OutOfMemory).await;
    assert_eq!(killed.exit.expect("its exit").signal, Some(9));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_keeps_memory_in_files_of_its_own_is_killed_and_said_to_have() {
    // Open and mapped by nobody; and written by a process that ended.
    let scripts = [
        "import os, time
fds = [os.memfd_create('x') for _ in range(40)]
for fd in fds: os.write(fd, bytes(10 << 20))
time.sleep(30)",
        "import mmap, os, time
memory = mmap.mmap(-1, 400 << 20)
for n in range(40):
    if os.fork() == 0:
        memory[n * (10 << 20):(n + 1) * (10 << 20)] = bytes(10 << 20)
        os._exit(0)
    os.wait()
time.sleep(30)",
    ];
    for script in scripts {
        let world = World::new().await;
        let id = world.deploy_with(&["ok"], |instance| instance.spec.limits.memory_bytes = 300 << 20).await;
        world.phase(id, Phase::Ready).await;
        let _ = world.send(id, python(script)).await;
        world.observed("out of memory", id, |i| i.status.reason == Reason::OutOfMemory).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_in_the_sockets_of_a_server_is_within_its_limit() {
    let world = World::new().await;
    let memory = &world.report().enforcement["memory_limit"];
    if !memory.enforced || memory.detail.contains("sockets") {
        return;
    }
    let id = world.deploy_with(&["ok"], |instance| instance.spec.limits.memory_bytes = 200 << 20).await;
    world.phase(id, Phase::Ready).await;
    let script = "
import socket
def udp(): return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender, receivers = udp(), [udp() for _ in range(300)]
for receiver in receivers:
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 30)
    receiver.bind(('127.0.0.1', 0))
    receiver.setblocking(False)
    for _ in range(100):
        try: sender.sendto(bytes(60000), receiver.getsockname())
        except OSError: break
held = 0
for receiver in receivers:
    try:
        while True: held += len(receiver.recv(60000))
    except BlockingIOError: pass
print(held)
";
    let held: u64 = run(&world, id, script).await.trim().parse().expect("a number");
    assert!(held > 10 << 20 && held < 200 << 20, "{held}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_has_no_more_files_open_than_it_needs_whatever_toolyard_may() {
    let world = World::new().await;
    let id = world.deploy(&["ok"]).await;
    world.phase(id, Phase::Ready).await;
    let limits = run(&world, id, "import resource\nprint(*resource.getrlimit(resource.RLIMIT_NOFILE))").await;
    let limits: Vec<u64> = limits.split_whitespace().map(|limit| limit.parse().expect("a number")).collect();
    assert!(limits.len() == 2 && limits.iter().all(|limit| *limit <= 4096), "{limits:?}");
}

/// The umask is the whole process's: each test is one.
fn set_umask(mask: u32) {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(mask));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_installed_and_runs_whatever_the_umask_that_toolyard_was_started_with() {
    use std::os::unix::fs::PermissionsExt;
    set_umask(0o077);
    let world = World::new().await;
    let id = world.deploy(&["ok"]).await;
    world.phase(id, Phase::Ready).await;
    let script = "import os\nmask = os.umask(0)\nprint(oct(mask), open('/etc/passwd').read() != '')";
    assert_eq!(run(&world, id, script).await.trim(), "0o22 True");
    let mode = std::fs::metadata(world.data_dir()).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o711);
    // And nobody but who runs Toolyard writes, or reads what is private, when it shuts nobody out.
    set_umask(0);
    let world = World::new().await;
    let id = world.deploy_with(&["ok"], |instance| with_secret(instance, "API_KEY", "canary-5b1e7c")).await;
    world.phase(id, Phase::Ready).await;
    let writable = found(&world.data_dir(), 0o022);
    assert_eq!(writable, Vec::<std::path::PathBuf>::new());
    let readable = found(&world.data_dir(), 0o044);
    let private = |path: &&std::path::PathBuf| path.is_file() && !path.starts_with(world.data_dir().join("packages"));
    assert_eq!(readable.iter().filter(private).collect::<Vec<_>>(), Vec::<&std::path::PathBuf>::new());
}

/// What has one of these permissions, but for links, and what servers and clients made for themselves.
fn found(dir: &std::path::Path, mode: u32) -> Vec<std::path::PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let (path, metadata) = (entry.path(), entry.metadata().expect("it stays"));
            if metadata.is_symlink() || ["work", "tmp", ".cache"].iter().any(|own| path.ends_with(own)) {
                continue;
            }
            if metadata.permissions().mode() & mode != 0 {
                found.push(path.clone());
            }
            if metadata.is_dir() {
                dirs.push(path);
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_cannot_start_more_processes_than_its_limit() {
    let world = World::new().await;
    let id = world.deploy_with(&["ok"], |instance| instance.spec.limits.processes = 40).await;
    world.phase(id, Phase::Ready).await;
    if enforced(&world, "process_limit") {
        let failed = world.call(id, "many_processes", json!({ "count": 60 })).await;
        assert!(failed.parse::<u32>().expect("a number") > 10, "{failed}");
        assert_eq!(world.call(id, "echo", json!({ "message": "alive" })).await, "alive");
    } else {
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "many_processes", "arguments": { "count": 60 } } });
        let _ = world.send(id, message).await;
        world.observed("killed", id, |instance| instance.exit.is_some()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usage_is_measured_over_all_processes_of_a_server() {
    let world = World::new().await;
    let id = world.deploy(&["ok"]).await;
    world.phase(id, Phase::Ready).await;
    world.call(id, "fork", json!({})).await;
    until("usage is measured", || {
        world
            .slot_usage(id)
            .is_some_and(|usage| usage.processes >= 2 && usage.memory_bytes > 1 << 20 && usage.cpu_ms > 0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_reaches_its_server_and_no_file() {
    const CANARY: &str = "canary-7f3a9b1c5d";
    let world = World::new().await;
    let id = world.deploy_with(&["ok"], |instance| with_secret(instance, "API_KEY", CANARY)).await;
    let pid = world.phase(id, Phase::Ready).await.pid.expect("a pid");
    assert_eq!(world.call(id, "env", json!({ "name": "API_KEY" })).await, CANARY);
    world.call(id, "say", json!({ "message": format!("the key is {CANARY}") })).await;
    world.logged(id, "the key is [redacted]").await;
    let found = files_with(world.dir.path(), CANARY);
    assert_eq!(found, Vec::<std::path::PathBuf>::new());
    for other in processes_with(CANARY) {
        assert_eq!(other, pid, "only the server itself holds its secret");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_a_server_says_when_it_should_answer_is_told_to_nobody() {
    const CANARY: &str = "canary-2d8e6f4a10";
    let world = World::new().await;
    let id = world
        .deploy_with(&["indiscreet"], |instance| {
            with_secret(instance, "API_KEY", CANARY);
            instance.spec.start_timeout_ms = 2500;
        })
        .await;
    let failed = world.phase(id, Phase::Failed).await;
    assert_eq!(failed.status.reason, Reason::HandshakeFailed);
    assert!(failed.status.message.contains("my key is [redacted]"), "{}", failed.status.message);
    assert_eq!(files_with(world.dir.path(), CANARY), Vec::<std::path::PathBuf>::new());
}

fn files_with(dir: &std::path::Path, needle: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                dirs.push(entry.path());
            } else if kind.is_file() {
                let bytes = std::fs::read(entry.path()).unwrap_or_default();
                if bytes.windows(needle.len()).any(|window| window == needle.as_bytes()) {
                    found.push(entry.path());
                }
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_sees_its_own_directory_and_nothing_of_ours_or_its_neighbours() {
    let world = World::new().await;
    let one = world.deploy(&["ok"]).await;
    let other = world.deploy(&["ok"]).await;
    world.phase(one, Phase::Ready).await;
    world.phase(other, Phase::Ready).await;
    if !enforced(&world, "own_uid") && !enforced(&world, "namespaces") && !enforced(&world, "landlock") {
        return;
    }
    let me = world.call(one, "whoami", json!({})).await;
    let me: serde_json::Value = serde_json::from_str(&me).expect("JSON");
    assert_eq!(me["cwd"], world.instance_dir(one).join("work").to_str().expect("utf-8"));
    if enforced(&world, "own_uid") {
        let neighbour = world.call(other, "whoami", json!({})).await;
        let neighbour: serde_json::Value = serde_json::from_str(&neighbour).expect("JSON");
        assert!(me["uid"].as_u64() >= Some(2_100_000_000) && me["uid"] != neighbour["uid"], "{me} {neighbour}");
    }
    let written = json!({ "path": "note.txt", "content": "mine" });
    assert_eq!(world.call(one, "write_file", written).await, "written");
    assert_eq!(world.call(one, "read_file", json!({ "path": "note.txt" })).await, "mine");
    assert_eq!(world.call(one, "write_file", json!({ "path": "/tmp/x", "content": "mine" })).await, "written");
    let hidden = [
        world.data_dir().join("host.key"),
        world.data_dir().join("desired.json"),
        world.instance_dir(one).join("instance.json"),
        world.instance_dir(one).join("logs/current.jsonl"),
        world.instance_dir(other).join("work"),
        "/root".into(),
        "/etc/shadow".into(),
        format!("/proc/{}/environ", std::process::id()).into(),
    ];
    for path in hidden {
        let text = world.call(one, "read_file", json!({ "path": path })).await;
        assert!(["ENOENT", "EACCES", "EISDIR"].iter().any(|code| text.starts_with(code)), "{}: {text}", path.display());
        let text = world.call(one, "list_dir", json!({ "path": path })).await;
        assert!(
            ["ENOENT", "EACCES", "ENOTDIR"].iter().any(|code| text.starts_with(code)),
            "{}: {text}",
            path.display()
        );
    }
    for path in ["/usr/x", "/etc/x", "/x"] {
        let text = world.call(one, "write_file", json!({ "path": path, "content": "x" })).await;
        assert!(["EROFS", "EACCES", "ENOENT"].iter().any(|code| text.starts_with(code)), "{path}: {text}");
    }
}

/// Makes system calls that no server needs and prints what the kernel answered to each.
const FORBIDDEN_CALLS: &str = r#"
import ctypes, errno, platform, socket
libc = ctypes.CDLL(None, use_errno=True)
calls = {  # name: (x86_64, aarch64, arguments)
    "unshare_user": (272, 97, (0x10000000,)), "unshare_net": (272, 97, (0x40000000,)), "unshare_mount": (272, 97, (0x20000,)),
    "unshare_time": (272, 97, (0x80,)), "clone_user": (56, 220, (0x10000000 | 17, 0, 0, 0, 0)),
    "setns": (308, 268, (0, 0)), "mount": (165, 40, (0, 0, 0, 0, 0)), "umount2": (166, 39, (0, 0)),
    "pivot_root": (155, 41, (0, 0)), "chroot": (161, 51, (0,)), "open_tree": (428, 428, (0, 0, 0)), "fsopen": (430, 430, (0, 0)),
    "keyctl": (250, 219, (0, -3, 1)), "add_key": (248, 217, (0, 0, 0, 0, -3)), "request_key": (249, 218, (0, 0, 0, 0)),
    "bpf": (321, 280, (0, 0, 0)), "perf_event_open": (298, 241, (0, 0, -1, -1, 0)), "userfaultfd": (323, 282, (1,)),
    "ptrace": (101, 117, (0, 0, 0, 0)), "process_vm_readv": (310, 270, (1, 0, 0, 0, 0, 0)), "pidfd_getfd": (438, 438, (0, 0, 0)),
    "clone3": (435, 435, (0, 0)), "io_uring_setup": (425, 425, (1, 0)),
    "fchmod": (91, 52, (-1, 0o4755)), "openat": (257, 56, (-1, 0, 0o100, 0o2755)), "openat2": (437, 437, (-1, 0, 0, 0)),
}
at = {"x86_64": 0, "aarch64": 1}[platform.machine()]
for name, call in calls.items():
    ctypes.set_errno(0)
    result = libc.syscall(*[ctypes.c_long(n) for n in (call[at], *call[2])])
    if name == "clone_user" and result == 0:
        libc._exit(0)
    print(name, result, errno.errorcode.get(ctypes.get_errno(), "none"))
if at == 0:
    ctypes.set_errno(0)
    print("x32", libc.syscall(ctypes.c_long(0x40000000 | 39)), errno.errorcode.get(ctypes.get_errno(), "none"))
for family in (38, 40, 21):  # AF_ALG, AF_VSOCK, AF_RDS
    try:
        socket.socket(family, socket.SOCK_SEQPACKET)
        print("family", family, "made")
    except OSError as error:
        print("family", family, errno.errorcode[error.errno])
print("threads and processes", end=" ")
import subprocess, threading
thread = threading.Thread(target=lambda: None); thread.start(); thread.join()
print(subprocess.run(["true"]).returncode)
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn system_calls_that_no_server_needs_are_refused() {
    let world = World::new().await;
    let id = world.deploy(&["ok"]).await;
    world.phase(id, Phase::Ready).await;
    assert!(enforced(&world, "seccomp"), "{:?}", world.report().enforcement["seccomp"]);
    let ran = run(&world, id, FORBIDDEN_CALLS).await;
    for line in ran.lines() {
        let refused = match line.split(' ').next() {
            Some("clone3" | "io_uring_setup" | "openat2" | "x32") => line.ends_with("-1 ENOSYS"),
            Some("family") => line.ends_with("EPERM"),
            Some("threads") => line.ends_with(" 0"),
            _ => line.ends_with("-1 EPERM"),
        };
        assert!(refused, "{ran}");
    }
    assert!(ran.lines().count() >= 30, "{ran}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_namespaces_are_made_by_who_is_allowed_to() {
    let world = World::new().await;
    let browser = world.deploy_with(&["ok"], |instance| privilege(instance, Privilege::NewNamespaces)).await;
    world.phase(browser, Phase::Ready).await;
    let ran = run(&world, browser, FORBIDDEN_CALLS).await;
    assert!(ran.contains("unshare_user 0 ") && ran.contains("mount -1 EPERM"), "{ran}");
    assert_eq!(run(&world, browser, BROWSERS_SANDBOX).await.trim(), "shut in");
}

/// What a browser does to shut its pages in: a user namespace of its own, and an empty root.
const BROWSERS_SANDBOX: &str = r#"
import ctypes, os
uid, gid = os.getuid(), os.getgid()
assert ctypes.CDLL(None).unshare(0x10000000) == 0
for file, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
    with open("/proc/self/" + file, "w") as to:
        to.write(text)
os.chroot("/proc/self/fdinfo")
os.chdir("/")
print("shut in" if os.getuid() == uid else os.getuid())
"#;

fn privilege(instance: &mut toolyard_types::agent::DesiredInstance, privilege: Privilege) {
    instance.spec.privileges = [privilege].into();
}

/// Takes as many UDP ports as it gets, in two processes; then gives them back and takes one.
const MANY_DATAGRAMS: &str = r#"
import errno, os, socket, time
def take():
    held = []
    try:
        while len(held) < 5000:
            one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            one.bind(("127.0.0.1", 0))
            held.append(one)
    except OSError as error:
        return held, errno.errorcode[error.errno]
    return held, "none"
held, first = take()
read, write = os.pipe()
if os.fork() == 0:
    more, second = take()
    os.write(write, f"{len(more)} {second}".encode())
    os._exit(0)
os.wait()
print(len(held), first, os.read(read, 100).decode())
for one in held:
    one.close()
again, until = [], time.monotonic() + 20
while not again and time.monotonic() < until:  # they are counted once a second
    again = take()[0]
print(len(again))
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_leaves_the_host_its_udp_ports() {
    let mut world = World::new().await;
    let ours = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    world.own_ports = vec![ours.local_addr().expect("an address").port()];
    world.agent().shutdown(toolyard_dtma::Shutdown::StopAll).await;
    world.start_agent().await;
    let id = world.deploy(&["ok"]).await;
    world.phase(id, Phase::Ready).await;
    if !enforced(&world, "own_uid") || !enforced(&world, "toolyard_ports") {
        return;
    }
    let ran = run(&world, id, MANY_DATAGRAMS).await;
    let again = ran.strip_prefix("1024 EMFILE 0 EMFILE\n").unwrap_or_else(|| panic!("{ran}"));
    // Other sockets of the server count once they are counted.
    assert!(again.trim().parse::<u32>().is_ok_and(|made| (900..=1024).contains(&made)), "{ran}");
}

/// Listens on a port of its own and stays there; prints the port, or why not.
const LISTEN: &str = r#"
import errno, os, socket, sys
try:
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    with socket.create_connection(listener.getsockname(), 5) as client, listener.accept()[0] as server:
        server.sendall(b"heard"); print(client.recv(5).decode())
except OSError as error:
    print(errno.errorcode[error.errno])
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_listens_where_others_are_only_when_it_may() {
    let world = World::new().await;
    let plain = world.deploy(&["ok"]).await;
    let listener = world.deploy_with(&["ok"], |instance| privilege(instance, Privilege::Listen)).await;
    world.phase(plain, Phase::Ready).await;
    world.phase(listener, Phase::Ready).await;
    if enforced(&world, "server_ports") {
        assert_eq!(run(&world, plain, LISTEN).await.trim(), "EACCES");
    }
    assert!(run(&world, listener, LISTEN).await.contains("heard"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_a_network_reaches_itself_and_nobody_else() {
    let world = World::new().await;
    let id = world.deploy_with(&["ok"], |instance| instance.spec.egress = Egress::None).await;
    if !enforced(&world, "egress_none") {
        let failed = world.phase(id, Phase::Failed).await;
        assert_eq!(failed.status.reason, Reason::UnsupportedByEngine);
        return;
    }
    world.phase(id, Phase::Ready).await;
    let outside = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = outside.local_addr().expect("an address").port();
    let script = format!(
        "import errno, socket\ntry:\n    socket.create_connection(('127.0.0.1', {port}), 5); print('reached')\n\
         except OSError as error: print(errno.errorcode[error.errno])\n\
         try:\n    socket.create_connection(('192.0.2.1', 80), 5); print('reached')\n\
         except OSError as error: print(errno.errorcode[error.errno])\n"
    );
    assert_eq!(run(&world, id, &script).await, "ECONNREFUSED\nENETUNREACH\n");
    assert!(run(&world, id, LISTEN).await.contains("heard"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_fills_the_disk_is_stopped_and_what_it_kept_in_its_own_directory_stays() {
    let world = World::new().await;
    let id = world.deploy_with(&["ok"], |instance| instance.spec.limits.disk_bytes = 64 << 20).await;
    world.phase(id, Phase::Ready).await;
    let allowed = json!({ "program": "/bin/sh", "arguments": ["-c", "head -c 20000000 /dev/zero > fits && echo ok"] });
    assert!(world.call(id, "run", allowed).await.contains("ok"));
    // One file in sight, one that has no name any more.
    let script = "(exec 3> gone; rm gone; head -c 40000000 /dev/zero >&3; exec sleep 1000) & \
                  head -c 40000000 /dev/zero > /tmp/more; sleep 1000";
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": "run", "arguments": { "program": "/bin/sh", "arguments": ["-c", script] } } });
    assert!(world.send(id, message).await.is_err());
    world.observed("over its limit", id, |i| i.status.reason == Reason::OutOfDisk).await;
    // What was temporary is gone, so that it can start again.
    world.phase(id, Phase::Ready).await;
    assert_eq!(world.call(id, "list_dir", json!({ "path": "." })).await, "fits");
    let temporary = world.call(id, "list_dir", json!({ "path": "/tmp" })).await;
    assert!(!temporary.contains("more"), "{temporary}");
    assert!(world.log_text(id).await.contains("kept more than 67108864 bytes on disk"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_own_directory_is_over_its_limit_keeps_it_and_is_tried_again_ever_more_slowly() {
    let world = World::new().await;
    let id = world.deploy_with(&["ok"], |instance| instance.spec.limits.disk_bytes = 16 << 20).await;
    world.phase(id, Phase::Ready).await;
    let script = "head -c 40000000 /dev/zero > kept; sleep 1000";
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": "run", "arguments": { "program": "/bin/sh", "arguments": ["-c", script] } } });
    assert!(world.send(id, message).await.is_err());
    let waits = |at_least: u32| {
        move |i: &toolyard_types::agent::ObservedInstance| {
            i.status.reason == Reason::OutOfDisk && i.restarts >= at_least && i.status.next_attempt_at.is_some()
        }
    };
    world.observed("over its limit", id, waits(1)).await;
    let began = std::time::Instant::now();
    let third = world.observed("over its limit again", id, waits(3)).await;
    assert!(began.elapsed() >= std::time::Duration::from_secs(3), "{:?}", began.elapsed());
    let message = &third.status.message;
    assert!(message.contains("kept more than 16777216 bytes on disk"), "{message}");
    assert_eq!(std::fs::metadata(world.instance_dir(id).join("work/kept")).expect("kept").len(), 40_000_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_keeps_what_cannot_be_measured_is_told_so_and_loses_nothing() {
    let world = World::new().await;
    let id = world.deploy(&["ok"]).await;
    world.phase(id, Phase::Ready).await;
    // Deeper than a path may be long, which not even root can open.
    let script = "import os, time\nopen('kept', 'w').write('mine')\n\
                  for _ in range(20): os.mkdir('n' * 250); os.chdir('n' * 250)\ntime.sleep(1000)";
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": "run", "arguments": { "program": "/usr/bin/python3", "arguments": ["-c", script] } } });
    assert!(world.send(id, message).await.is_err());
    let ended = world.observed("it cannot be measured", id, |i| i.status.reason == Reason::OutOfDisk).await;
    let message = &ended.status.message;
    assert!(message.contains("cannot be measured: `work/nnn") && message.contains("ENAMETOOLONG"), "{message}");
    let kept = world.instance_dir(id).join("work/kept");
    assert_eq!(std::fs::read_to_string(kept).expect("kept"), "mine");
}

/// Keeps 80 MB where who goes through directories and descriptors one after the other does not see them.
const NEVER_THERE: [&str; 2] = [
    "import os
for place in 'ab':
    for n in range(1000): os.makedirs(f'{place}/{n}')
os.mkdir('a/full')
open('a/full/big', 'wb').write(bytes(80_000_000))
while True:
    os.rename('a/full', 'b/full')
    os.rename('b/full', 'a/full')",
    "import os
f = open('big', 'wb')
os.unlink('big')
f.write(bytes(80_000_000))
f.flush()
while True:
    if os.fork() > 0: os._exit(0)
    os.setsid()",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_moves_what_it_keeps_while_it_is_counted_is_stopped() {
    for script in NEVER_THERE {
        let world = World::new().await;
        let id = world.deploy_with(&["ok"], |instance| instance.spec.limits.disk_bytes = 64 << 20).await;
        world.phase(id, Phase::Ready).await;
        // The call may be answered: its process ends when another has the file.
        let _ = world.send(id, python(script)).await;
        world.observed("over its limit", id, |i| i.status.reason == Reason::OutOfDisk).await;
    }
}

fn python(script: &str) -> serde_json::Value {
    json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": "run", "arguments": { "program": "/usr/bin/python3", "arguments": ["-c", script] } } })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_changes_its_files_all_the_time_goes_on_when_others_fill_the_disk() {
    let world = World::new().await;
    let id = world.deploy_with(&["ok"], |instance| instance.spec.limits.disk_bytes = 16 << 20).await;
    world.phase(id, Phase::Ready).await;
    let script = "import os, time
began = time.monotonic()
n = 0
while time.monotonic() - began < 10:
    n += 1
    open(f'file{n % 50}', 'w').write(str(n))
    if n > 50: os.unlink(f'file{(n + 25) % 50}')
print('went on')";
    let fill = async {
        for n in 0..10 {
            tokio::fs::write(world.dir.path().join(format!("filling{n}")), vec![1; 8 << 20]).await.expect("written");
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
    };
    let (answer, ()) = tokio::join!(world.send(id, python(script)), fill);
    let answer = answer.expect("an answer");
    assert!(format!("{answer:?}").contains("went on"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_a_revision_without_a_disk_limit_keeps_what_it_likes() {
    let world = World::new().await;
    let id = world.deploy_with(&["ok"], |instance| instance.spec.limits.disk_bytes = 0).await;
    world.phase(id, Phase::Ready).await;
    let script = "head -c 40000000 /dev/zero > kept && sleep 3 && echo ok";
    let kept = json!({ "program": "/bin/sh", "arguments": ["-c", script] });
    assert!(world.call(id, "run", kept).await.contains("ok"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_does_not_reach_where_toolyard_listens_and_everything_else_as_before() {
    let mut world = World::new().await;
    let ours = [std::net::TcpListener::bind("127.0.0.1:0"), std::net::TcpListener::bind("[::1]:0")];
    let ours = ours.map(|listener| listener.expect("a port"));
    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = |listener: &std::net::TcpListener| listener.local_addr().expect("an address").port();
    world.own_ports = ours.iter().map(port).collect();
    world.agent().shutdown(toolyard_dtma::Shutdown::StopAll).await;
    world.start_agent().await;
    assert!(enforced(&world, "toolyard_ports"), "{:?}", world.report().enforcement["toolyard_ports"]);
    let id = world.deploy(&["ok"]).await;
    world.phase(id, Phase::Ready).await;
    let script = format!(
        r#"
import socket
SO_ATTACH_FILTER, SO_DETACH_FILTER, SO_LOCK_FILTER = 26, 27, 44
def reach(host, port, before=lambda s: None, kind=socket.SOCK_STREAM, protocol=0):
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind, protocol) as s:
            s.settimeout(1)
            before(s)
            s.connect((host, port))
            return "reached"
    except OSError as error:
        return type(error).__name__ + " " + str(error)
def detach(s): s.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
def unlock(s): s.setsockopt(socket.SOL_SOCKET, SO_LOCK_FILTER, 0)
def hurry(s):
    try: s.sendto(b"x", 0x20000000, ("127.0.0.1", {four}))  # MSG_FASTOPEN
    except OSError: pass
print(reach("127.0.0.1", {four}))
print(reach("127.9.9.9", {four}))
print(reach("::1", {six}))
print(reach("::ffff:127.0.0.1", {four}))
print(reach("0.0.0.0", {four}))
print(reach("127.0.0.1", {four}, detach))
print(reach("127.0.0.1", {four}, unlock))
print(reach("127.0.0.1", {four}, hurry))
print(reach("127.0.0.1", {four}, protocol=262))
print("---")
print(reach("127.0.0.1", {other}))
print(reach("::ffff:127.0.0.1", {other}))
print(all(reach("127.0.0.1", {other}) == "reached" for _ in range(200)))
import asyncio
async def later():
    reader, writer = await asyncio.open_connection("127.0.0.1", {other}); writer.close(); return "reached"
print(asyncio.run(later()))
"#,
        four = port(&ours[0]),
        six = port(&ours[1]),
        other = port(&other),
    );
    // Whoever is reached must have room for all of them.
    let drain = std::thread::spawn(move || other.incoming().take(203).count());
    let ran = run(&world, id, &script).await;
    let (shut, open) = ran.split_once("---").unwrap_or_else(|| panic!("{ran}"));
    assert!(shut.lines().count() == 9 && !shut.contains("reached"), "{ran}");
    assert_eq!(
        open.trim(),
        "reached
reached
True
reached"
    );
    assert_eq!(drain.join().expect("drained"), 203);
}

/// Runs a Python program in a server and returns what it printed.
async fn run(world: &World, id: toolyard_types::InstanceId, script: &str) -> String {
    let ran =
        world.call(id, "run", json!({ "program": "/usr/bin/python3", "arguments": ["-"], "input": script })).await;
    let ran: serde_json::Value = serde_json::from_str(&ran).expect("JSON");
    ran["out"].as_str().expect("text").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_taken_over_does_not_reach_where_toolyard_listens_by_now() {
    let listen = || std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = |listener: &std::net::TcpListener| listener.local_addr().expect("an address").port();
    let (before, now) = (listen(), listen());
    let mut world = World::new().await;
    world.own_ports = vec![port(&before)];
    world.agent().shutdown(toolyard_dtma::Shutdown::StopAll).await;
    world.start_agent().await;
    assert!(enforced(&world, "toolyard_ports"), "{:?}", world.report().enforcement["toolyard_ports"]);
    let id = world.deploy(&["ok"]).await;
    let without = world.deploy_with(&["ok"], |instance| instance.spec.egress = Egress::None).await;
    let first = world.phase(id, Phase::Ready).await.pid;
    let apart = world.phase(without, Phase::Ready).await.pid;
    let script = |listener: &std::net::TcpListener| {
        let port = port(listener);
        format!(
            "import socket\ntry: socket.create_connection(('127.0.0.1', {port}), 1)\nexcept OSError: print('shut')\nelse: print('open')"
        )
    };
    assert_eq!(run(&world, id, &script(&now)).await.trim(), "open");
    // The same, or fewer: nobody is started anew.
    for ports in [vec![port(&before)], vec![]] {
        world.own_ports = ports;
        world.agent().shutdown(toolyard_dtma::Shutdown::Leave).await;
        world.start_agent().await;
        assert_eq!(world.phase(id, Phase::Ready).await.pid, first);
    }
    world.own_ports = vec![port(&before), port(&now)];
    world.agent().shutdown(toolyard_dtma::Shutdown::Leave).await;
    world.start_agent().await;
    let again = world.observed("started anew", id, |i| i.status.phase == Phase::Ready && i.pid != first).await;
    assert_eq!(again.restarts, 0, "it did not fail");
    for listener in [&before, &now] {
        assert_eq!(run(&world, id, &script(listener)).await.trim(), "shut");
    }
    world.logged(id, &format!("it reaches port {}", port(&now))).await;
    assert_eq!(world.phase(without, Phase::Ready).await.pid, apart, "who has a network of its own reaches nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_does_not_reach_where_its_control_plane_listens_on_the_same_host_also_while_that_is_away() {
    let listen = || std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = |listener: &std::net::TcpListener| listener.local_addr().expect("an address").port();
    let (ours, theirs) = (listen(), listen());
    let mut world = World::new().await;
    if !enforced(&world, "toolyard_ports") {
        return;
    }
    let tell = |host: String, port: u16| {
        let listeners = Listeners { host, replica: "one".to_owned(), ports: vec![port] };
        *world.control.listeners.lock().expect("not poisoned") = Some(listeners);
    };
    let reach = |port: u16| {
        format!(
            "import socket\ntry: socket.create_connection(('127.0.0.1', {port}), 1)\nexcept OSError: print('shut')\nelse: print('open')"
        )
    };
    // A control plane of another host has the ports of another host.
    tell("another".to_owned(), port(&theirs));
    let first = world.deploy(&["ok"]).await;
    world.phase(first, Phase::Ready).await;
    assert_eq!(run(&world, first, &reach(port(&theirs))).await.trim(), "open");

    tell(toolyard_dtma::loopback_id().expect("it is Linux"), port(&ours));
    let id = world.deploy(&["ok"]).await;
    world.phase(id, Phase::Ready).await;
    assert_eq!(run(&world, id, &reach(port(&ours))).await.trim(), "shut");
    assert_eq!(run(&world, id, &reach(port(&theirs))).await.trim(), "open");
    let told = |observed: &Observed| {
        let detail = &observed.toolbox.enforcement.get("toolyard_ports")?.detail;
        detail.ends_with(&format!("; ports: {}", port(&ours))).then_some(())
    };
    world.observe("the report names the port", told).await;

    // After a reboot servers start before it answers.
    world.agent().shutdown(toolyard_dtma::Shutdown::StopAll).await;
    let mut options = world.options();
    options.control = toolyard_link::in_process(axum::Router::new());
    world.start_agent_with(options).await;
    for id in [first, id] {
        until("it answers again", || world.slot_phase(id) == Some(Phase::Ready)).await;
        assert_eq!(run(&world, id, &reach(port(&ours))).await.trim(), "shut");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn granted_paths_are_seen_as_granted() {
    let world = World::new().await;
    let shared = world.shared_dir();
    std::fs::write(shared.join("a.txt"), "granted").expect("written");
    open(&shared);
    let path = path_text(&shared);
    let grant = |writable| vec![PathGrant { path: path.clone(), writable }];
    let reader = world.deploy_with(&["ok"], |instance| instance.spec.paths = grant(false)).await;
    let writer = world.deploy_with(&["ok"], |instance| instance.spec.paths = grant(true)).await;
    world.phase(reader, Phase::Ready).await;
    world.phase(writer, Phase::Ready).await;
    let file = format!("{path}/a.txt");
    assert_eq!(world.call(reader, "read_file", json!({ "path": file })).await, "granted");
    let refused = world.call(reader, "write_file", json!({ "path": format!("{path}/b"), "content": "x" })).await;
    assert!(refused.starts_with("EROFS") || refused.starts_with("EACCES"), "{refused}");
    assert_eq!(
        world.call(writer, "write_file", json!({ "path": format!("{path}/b"), "content": "x" })).await,
        "written"
    );
}

fn open(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).expect("opened");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_the_lease_has_ended_a_server_with_secrets_is_not_started_and_one_without_is() {
    let mut world = World::new().await;
    let secret = world.deploy_with(&["ok"], |instance| with_secret(instance, "API_KEY", "canary-lease")).await;
    let plain = world.deploy(&["ok"]).await;
    world.phase(secret, Phase::Ready).await;
    world.phase(plain, Phase::Ready).await;
    world.agent().shutdown(toolyard_dtma::Shutdown::StopAll).await;

    let mut options = world.options();
    options.clock =
        toolyard_types::Clock::stopped_at(crate::world::in_a_day().plus(std::time::Duration::from_secs(60)));
    // The control plane is away.
    options.control = toolyard_link::in_process(axum::Router::new());
    world.start_agent_with(options).await;
    until("the one without secrets answers", || world.slot_phase(plain) == Some(Phase::Ready)).await;
    until("the lease is seen to have ended", || world.slot_reason(secret) == Some(Reason::CredentialExpired)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_secret_the_control_plane_does_not_have_fails_with_what_that_says_of_it() {
    let world = World::new().await;
    let why = "credential `own` was sealed with another master key; set it again";
    let id = world
        .deploy_with(&["ok"], |instance| {
            with_secret(instance, "API_KEY", "canary-missing");
            let ids = std::mem::take(&mut instance.secrets).into_keys();
            instance.missing = ids.map(|id| (id, why.to_owned())).collect();
        })
        .await;
    let failed = world.phase(id, Phase::Failed).await;
    assert_eq!((failed.status.reason, failed.status.message.as_str()), (Reason::CredentialMissing, why));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_reboot_the_same_servers_come_back_without_the_control_plane() {
    let mut world = World::new().await;
    let id = world.deploy_with(&["ok"], |instance| with_secret(instance, "API_KEY", "canary-reboot")).await;
    let pid = world.phase(id, Phase::Ready).await.pid.expect("a pid");
    world.agent().shutdown(toolyard_dtma::Shutdown::StopAll).await;
    assert!(!alive(pid));
    let mut options = world.options();
    options.control = toolyard_link::in_process(axum::Router::new());
    world.start_agent_with(options).await;
    until("it answers again", || world.slot_phase(id) == Some(Phase::Ready)).await;
    assert_eq!(world.call(id, "env", json!({ "name": "API_KEY" })).await, "canary-reboot");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_on_standard_error_and_a_huge_answer_do_no_harm() {
    let world = World::new().await;
    let id = world.deploy(&["ok"]).await;
    world.phase(id, Phase::Ready).await;
    assert_eq!(world.call(id, "stderr_flood", json!({ "lines": 20_000 })).await, "flooded");
    let logs = std::fs::read_dir(world.instance_dir(id).join("logs")).expect("logs");
    let bytes: u64 = logs.map(|entry| entry.expect("a file").metadata().expect("metadata").len()).sum();
    assert!(bytes <= 2 << 20, "{bytes}");
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "big", "arguments": { "bytes": 100 << 20 } } });
    let (status, problem) = world.send(id, message).await.expect_err("too long");
    assert_eq!((status.as_u16(), problem["code"].as_str()), (502, Some("upstream_failed")), "{problem}");
    assert_eq!(world.call(id, "echo", json!({ "message": "still here" })).await, "still here");
}
