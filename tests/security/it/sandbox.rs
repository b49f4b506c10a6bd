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

/// Ways to Toolyard's own ports and to be reached by others that are not an ordinary connection and an ordinary port.
const NETWORK: &str = r#"
import ctypes, errno, os, socket, struct, threading, time
libc = ctypes.CDLL(None, use_errno=True)
HEAD, FAST = b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n", 0x20000000

def tried(name, work):
    try: print(name, "done", work() or "", flush=True)
    except socket.timeout: print(name, "ETIMEDOUT")
    except OSError as error: print(name, errno.errorcode.get(error.errno, error))

def speak(port, *kind, send=None):
    with socket.socket(*kind) as s:
        host = "127.0.0.1" if s.family == socket.AF_INET else "::ffff:127.0.0.1"
        s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 1, 0))
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 1, 0))
        if send: send(s, (host, port))
        else: s.connect((host, port)); s.sendall(HEAD)
        return s.recv(10)

for port in PORTS:
    for family in (socket.AF_INET, socket.AF_INET6):
        stream = (family, socket.SOCK_STREAM)
        tried("multipath TCP", lambda: speak(port, *stream, 262))
        tried("fast open by sendto", lambda: speak(port, *stream, send=lambda s, to: s.sendto(HEAD, FAST, to)))
        tried("fast open by sendmsg", lambda: speak(port, *stream, send=lambda s, to: s.sendmsg([HEAD], [], FAST, to)))

def fast_by_sendmmsg():
    if libc.sendmmsg(-1, None, 0, FAST) < 0: raise OSError(ctypes.get_errno(), "")

tried("fast open by sendmmsg", fast_by_sendmmsg)
for name, kind in {"SCTP": (1, 132), "SCTP packets": (5, 132), "DCCP": (6, 33), "UDP-Lite": (2, 136), "SMC": (1, 256)}.items():
    tried(name, lambda: socket.socket(socket.AF_INET, *kind))
tried("another protocol for a TCP socket", lambda: socket.socket().setsockopt(6, 31, b"smc"))

def listen(family, protocol):
    with socket.socket(family, socket.SOCK_STREAM, protocol) as s:
        s.listen(); return s.getsockname()

for family in (socket.AF_INET, socket.AF_INET6):
    tried("listening without a port", lambda: listen(family, 0))
    tried("multipath listening", lambda: listen(family, 262))

def swapped():
    tcp, unix = socket.socket(), socket.socket(socket.AF_UNIX)
    unix.bind(f"/tmp/swap-{os.getpid()}")
    fd, going = os.dup(unix.fileno()), True
    def swap():
        while going: os.dup2(tcp.fileno(), fd); os.dup2(unix.fileno(), fd)
    thread = threading.Thread(target=swap); thread.start()
    until = time.monotonic() + 1
    try:
        while time.monotonic() < until:
            libc.listen(fd, 1)
            if tcp.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN): return
    finally: going = False; thread.join()
    raise OSError(errno.EACCES, "")

tried("listening while the socket is exchanged", swapped)
"#;

/// What servers do with sockets all day.
const SOCKETS: &str = r#"
import os, socket, struct
with socket.socket(socket.AF_UNIX) as s, socket.socket(socket.AF_UNIX) as c:
    s.bind(f"/tmp/own-{os.getpid()}"); s.listen()
    c.connect(s.getsockname())
    a = s.accept()[0]; a.sendall(b"x")
    print(c.recv(1) == b"x", struct.unpack("3i", c.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1] == os.getuid())
a, b = socket.socketpair(); a.sendall(b"x"); print(b.recv(1) == b"x")
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    for family in (socket.AF_INET, socket.AF_INET6): socket.socket(family, kind | socket.SOCK_NONBLOCK).close()
try: socket.socket().listen(-1); print("listens")
except PermissionError: print(True)
with socket.create_connection(("127.0.0.1", PORT), 5) as s: print(s.recv(1) == b"x")
"#;

/// Holds as many descriptors on their way between sockets as its user may, until it is stopped.
const ON_THEIR_WAY: &str = r#"
import array, os, resource, socket, time
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]; resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
read, write = os.pipe()
if os.fork() == 0:
    for fd in (0, 1, 2): os.close(fd)
    os.setsid(); null, held, ended = os.open("/dev/null", 0), [], b"?"
    while ended == b"?":
        pair = socket.socketpair(); held.append(pair); pair[0].setblocking(False)
        try:
            while True: pair[0].sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [null] * 253))])
        except BlockingIOError: pass
        except OSError as error: ended = str(error.errno).encode()
    os.write(write, ended); time.sleep(300)
print(os.read(read, 9).decode())
"#;

/// Watches a good quarter of all descriptors that its user may, in as many processes as that takes.
const WATCHES: &str = r#"
import os, select, time
most = int(open("/proc/sys/fs/epoll/max_user_watches").read()) // 4 + 20000
each = 1800
for _ in range(most // (each * each) + 1):
    if os.fork() == 0:
        fds = [fd for _ in range(each // 2) for fd in os.pipe()]
        held = []
        for _ in range(each):
            held.append(select.epoll())
            for fd in fds: held[-1].register(fd, 0)
        time.sleep(120)
time.sleep(120)
"#;

/// Limits of its supervisor, which is process 1 where it has processes of its own.
const LIMITS_OF_OTHERS: &str = r#"
import os, resource
for name in ("NOFILE", "NPROC", "FSIZE"):
    try: resource.prlimit(1, getattr(resource, "RLIMIT_" + name), (1, 1)); print("set")
    except OSError as error: print(error.strerror)
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200)); print(resource.getrlimit(resource.RLIMIT_NOFILE))
"#;

/// Every way to make a program that gives who runs it the rights of its owner or group; then what servers do all day.
const SET_ID: &str = r#"
import ctypes, errno, os, platform, stat, struct, subprocess
libc = ctypes.CDLL(None, use_errno=True)
at = {"x86_64": 0, "aarch64": 1}[platform.machine()]
HERE, MAKE, UNNAMED = -100, os.O_CREAT | os.O_RDWR, os.O_TMPFILE | os.O_RDWR
os.chdir("SHARED")
open("own", "w").close()
own = os.open("own", os.O_RDONLY)

def tried(name, numbers, *arguments):
    if numbers[at] is None: return
    ctypes.set_errno(0)
    arguments = [ctypes.c_long(it) if isinstance(it, int) else it for it in arguments]
    result = libc.syscall(ctypes.c_long(numbers[at]), *arguments)
    print("tried", name, "done" if result >= 0 else errno.errorcode[ctypes.get_errno()])

for mode in (0o4755, 0o2755, 0o6755):
    new = lambda name: f"{name}-{mode:o}".encode()
    tried("chmod", (90, None), b"own", mode)
    tried("fchmod", (91, 52), own, mode)
    tried("fchmod with more in the register", (91, 52), own, mode | 1 << 40)
    tried("fchmodat", (268, 53), HERE, b"own", mode)
    tried("fchmodat2", (452, 452), HERE, b"own", mode, 0)
    tried("mknod", (133, None), new("mknod"), stat.S_IFREG | mode, 0)
    tried("mknodat", (259, 33), HERE, new("mknodat"), stat.S_IFREG | mode, 0)
    tried("creat", (85, None), new("creat"), mode)
    tried("open", (2, None), new("open"), MAKE, mode)
    tried("open without a name", (2, None), b".", UNNAMED, mode)
    tried("openat", (257, 56), HERE, new("openat"), MAKE, mode)
    tried("openat without a name", (257, 56), HERE, b".", UNNAMED, mode)
    tried("openat2", (437, 437), HERE, new("openat2"), struct.pack("3Q", MAKE, mode, 0), 24)
try: os.setxattr("own", "security.capability", struct.pack("<5I", 0x02000001, 1 << 7, 0, 0, 0)); print("tried capabilities done")
except OSError as error: print("tried capabilities", errno.errorcode[error.errno])

os.chmod("own", 0o755)
os.close(os.open("made", MAKE, 0o644))
os.mkdir("directory", 0o755)
# Of a directory's mode the kernel leaves the bits out, so whoever makes one like another need not.
made = []
for mode in (0o4755, 0o2755, 0o6755):
    os.mkdir(f"mkdir-{mode:o}", mode)
    os.mkdir(f"mkdirat-{mode:o}", mode, dir_fd=os.open(".", os.O_RDONLY))
    made += [oct(os.stat(f"{call}-{mode:o}").st_mode & 0o6777) for call in ("mkdir", "mkdirat")]
print("directories", *sorted(set(made)))
print("copied", subprocess.run(["cp", "-r", "from/marked", "copied"], capture_output=True, text=True).stderr, end="")
print(oct(os.stat("copied").st_mode), open("copied/file").read())
# What only opens a file has anything there.
opened = libc.syscall(*map(ctypes.c_long, ((257, 56)[at], HERE)), b"own", ctypes.c_long(os.O_RDONLY), ctypes.c_long(0o6755))
print(oct(os.stat("own").st_mode), oct(os.stat("made").st_mode), oct(os.stat("directory").st_mode), opened > 0)
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
fn a_hostile_server_gets_round_no_list_of_ports_by_another_protocol_or_by_no_port() {
    each_user(|user, name| {
        let toolyard = Toolyard::on(Engine::Sqlite).user(user).script("hostile", HOSTILE).start();
        toolyard.deploy("hostile", &[]);
        let report = toolyard.json(&["toolboxes", "show", "local"])["report"]["enforcement"].clone();
        for protection in ["toolyard_ports", "server_ports"] {
            assert_eq!(report[protection]["enforced"], true, "{report}");
        }
        let script = NETWORK.replace("PORTS", &format!("({}, {})", toolyard.port, toolyard.agent_port));
        let ran = run(&toolyard, "hostile", &script);
        let done: Vec<_> = ran.lines().filter(|line| line.contains(" done")).collect();
        let what = "multipath TCP, TCP fast open, SCTP, DCCP, SMC to Toolyard's listeners; listening without a port";
        row(name, what).expected("24 refused, 0 done").got(format!(
            "{} refused, {} done",
            ran.lines().count(),
            done.len()
        ));
        assert!(done.is_empty() && ran.lines().count() == 24 && !ran.contains("Traceback"), "{ran}");
        assert_eq!(ran.matches("listening without a port EACCES").count(), 2, "{ran}");

        // What is nobody else's business goes on.
        let other = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = other.local_addr().expect("an address").port();
        let greeter = std::thread::spawn(move || {
            let (mut stream, _) = other.accept().expect("somebody connects");
            std::io::Write::write_all(&mut stream, b"x").expect("written");
        });
        let ran = run(&toolyard, "hostile", &SOCKETS.replace("PORT", &port.to_string()));
        assert_eq!(ran, "True True\nTrue\nTrue\nTrue\n");
        greeter.join().expect("it was reached");
    });
}

#[test]
fn a_server_leaves_no_program_on_the_host_that_gives_others_the_rights_of_its_user() {
    use std::os::unix::fs::PermissionsExt;
    each_user(|user, name| {
        let toolyard = Toolyard::on(Engine::Sqlite).user(user).script("hostile", HOSTILE).start();
        let shared = toolyard.dir().join("shared");
        std::fs::create_dir(&shared).expect("made");
        std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o777)).expect("opened");
        let marked = shared.join("from/marked");
        std::fs::create_dir_all(&marked).expect("made");
        std::fs::write(marked.join("file"), "as it was").expect("written");
        std::fs::set_permissions(&marked, std::fs::Permissions::from_mode(0o2755)).expect("marked");
        let shared = shared.display().to_string();
        toolyard.deploy("hostile", &["--path", &format!("{shared}:rw")]);
        let ran = run(&toolyard, "hostile", &SET_ID.replace("SHARED", &shared));
        let tried = ran.lines().filter(|line| line.starts_with("tried ")).count();
        let refused = ran.lines().filter(|line| line.ends_with(" EPERM") || line.ends_with(" ENOSYS")).count();
        let mode = |path: &std::path::Path| std::fs::metadata(path).expect("it stays").permissions().mode();
        let entries = std::fs::read_dir(&shared).expect("there").flatten();
        let left = entries.filter(|entry| mode(&entry.path()) & 0o6000 != 0).count();
        row(name, "set-user-id and set-group-id files in a granted path: chmod, mknod, open and their like")
            .expected(format!("{tried} of {tried} refused, 0 files"))
            .got(format!("{refused} of {tried} refused, {left} files"));
        assert!(tried >= 25 && refused == tried && left == 0, "{ran}");
        // What is nobody else's business goes on.
        assert!(ran.contains("\ndirectories 0o755\ncopied 0o40755 as it was\n"), "{ran}");
        assert_eq!(ran.lines().last(), Some("0o100755 0o100644 0o40755 True"), "{ran}");
        assert_eq!(mode(&toolyard.dir().join("shared/own")) & 0o7777, 0o755);
    });
}

#[test]
fn a_server_that_uses_up_what_a_user_shares_stops_no_other_from_starting() {
    each_user(|user, name| {
        let toolyard = Toolyard::on(Engine::Sqlite).user(user).script("hostile", HOSTILE).start();
        toolyard.deploy("hostile", &[]);
        // `ETOOMANYREFS`: nobody of this user with the same limit sends another.
        assert_eq!(run(&toolyard, "hostile", ON_THEIR_WAY), "109\n");
        let other = toolyard.json(&["deploy", "com.example/hostile", "--name", "other", "--wait", "--timeout", "60"]);
        row(name, "as many descriptors on their way as the user may have; another server is deployed")
            .expected("ready")
            .got(&other["phase"]);
        assert_eq!(other["phase"], "ready", "{other}");

        let ran = run(&toolyard, "other", LIMITS_OF_OTHERS);
        let refused = ran.matches("Operation not permitted").count();
        row(name, "setting three limits of its supervisor").expected("3 refused").got(format!("{refused} refused"));
        assert_eq!((refused, ran.lines().last()), (3, Some("(100, 200)")), "{ran}");
    });
}

#[test]
fn a_server_that_uses_up_what_its_user_may_watch_is_stopped_where_others_have_the_same_user() {
    let toolyard = Toolyard::on(Engine::Sqlite).user(User::Plain).script("hostile", HOSTILE).start();
    toolyard.deploy("hostile", &[]);
    let ended = toolyard.call("hostile", "run", json!({ "script": WATCHES }));
    let log = String::from_utf8_lossy(&toolyard.run(&["servers", "logs", "hostile"]).stdout).into_owned();
    let told = log.lines().any(|line| line.contains("descriptors by epoll"));
    row("a plain user", "watching more than a quarter of what the kernel lets the user watch by epoll")
        .expected("stopped, and its log says so")
        .got(format!("{ended:?}, {told}"));
    assert!(ended.is_err() && told, "{ended:?}: {log}");
}

#[test]
fn who_has_a_network_of_its_own_listens_there_and_nowhere_else() {
    let script = r#"
import ctypes, errno, os, socket
libc = ctypes.CDLL(None, use_errno=True)
before = socket.socket()
if libc.unshare(0x10000000 | 0x40000000): raise OSError(ctypes.get_errno(), "unshare")
own = socket.socket(); own.listen(); print("own", own.getsockname()[1] > 0)
try: before.listen(); print("listens outside")
except OSError as error: print(errno.errorcode[error.errno])
"#;
    each_user(|user, name| {
        let toolyard = Toolyard::on(Engine::Sqlite).user(user).script("hostile", HOSTILE).start();
        toolyard.deploy("hostile", &["--privilege", "new_namespaces"]);
        let ran = run(&toolyard, "hostile", script);
        row(name, "listening outside on a socket kept when moving to a network of one's own")
            .expected("EACCES")
            .got(ran.lines().last().unwrap_or_default());
        assert_eq!(ran, "own True\nEACCES\n");
    });
}

#[test]
fn nobody_who_deploys_gives_a_server_more_than_its_ceilings() {
    let toolyard =
        Toolyard::on(Engine::Sqlite).script("hostile", HOSTILE).setting("server_max_memory_mib=2048").start();
    let developer = toolyard.make_key("developer", "developer");
    toolyard.deploy("hostile", &["--memory", "2G"]);
    let huge = json!({
        "limits": { "memory_bytes": 100_u64 << 30, "processes": 65_536, "disk_bytes": 4000_u64 << 30 },
        "instancing": { "mode": "per_user", "max_copies": 1000 },
    });
    let refused = toolyard.request("PATCH", "/api/v1/servers/hostile").key(&developer).json(huge.clone()).send();
    let fields = ["limits.memory_bytes", "limits.processes", "limits.disk_bytes", "instancing.max_copies"];
    let named = fields.iter().filter(|field| refused.text.contains(*field)).count();
    Row::of("sandbox", "a developer asks for 100 GiB of memory, 65,536 processes, 4 TiB of disk and 1,000 copies")
        .expected("422 validation_failed, 4 named")
        .got(format!("{} {}, {named} named", refused.status, refused.code()));
    assert_eq!((refused.code().as_str(), named), ("validation_failed", 4), "{}", refused.text);
    assert!(refused.text.contains("at most 2048 MiB here"), "{}", refused.text);
    let mut made = huge;
    made["name"] = json!("another");
    made["entry"] = json!("com.example/hostile");
    let refused = toolyard.request("POST", "/api/v1/servers").key(&developer).json(made).send();
    assert_eq!(refused.code(), "validation_failed", "{}", refused.text);
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

/// Files that no directory and no descriptor shows: mapped, or on their way through a socket that nobody reads.
const HIDDEN: &str = r#"
import array, mmap, os, socket, time
one, two = socket.socketpair()
kept = []
for number in range(24):
    with open("part", "w+b") as f:
        for _ in range(16): f.write(bytes(1 << 20))
        f.flush()
        if MAPPED: kept.append(mmap.mmap(f.fileno(), 4096))
        else: one.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [f.fileno()]))])
    os.unlink("part")
    time.sleep(0.5)
time.sleep(20)
"#;

#[test]
fn a_server_that_hides_what_it_keeps_on_disk_is_stopped() {
    // A plain user may not look at what is mapped: there only as much as is mapped counts, which the guide says. What is in
    // flight counts by the space that the file system loses, to which others give back: it needs a disk that is quiet.
    let as_root = [("mapped files without a name", "True"), ("files that are only in flight", "False")];
    let in_all = toolyard_test_support::long(1, as_root.len());
    for (user, name, ways) in
        [(User::Own, "root", &as_root[..in_all]), (User::Plain, "a plain user", &as_root[1..in_all])]
    {
        if ways.is_empty() {
            continue;
        }
        let toolyard = Toolyard::on(Engine::Sqlite).user(user).script("hostile", HOSTILE).start();
        for (number, (what, mapped)) in ways.iter().enumerate() {
            let server = format!("hostile-{number}");
            let options = ["--name", &server, "--disk", "64M", "--wait", "--timeout", "120"];
            let _ = toolyard.json(&[&["deploy", "com.example/hostile"], &options[..]].concat());
            let path = format!("/mcp/default/servers/{server}");
            let ready = || toolyard.call(&server, "run", json!({ "script": "" })).is_ok();
            toolyard_test_support::wait_until(std::time::Duration::from_secs(20), &path, ready);
            let _ = toolyard.call(&server, "run", json!({ "script": HIDDEN.replace("MAPPED", mapped) }));
            let stopped = |server: &Value| server.to_string().contains("out_of_disk");
            toolyard.wait_server(&server, "it is stopped", stopped);
            row(name, &format!("keeping 384 MiB as {what} with a limit of 64 MiB")).expected("stopped").got("stopped");
        }
    }
}

/// A full directory that is never where who counts is looking.
const MOVED: &str = r#"
import os
for place in "ab":
    for n in range(1000): os.makedirs(f"{place}/{n}")
os.mkdir("a/full")
with open("a/full/big", "wb") as f:
    for _ in range(384): f.write(bytes(1 << 20))
while True:
    os.rename("a/full", "b/full")
    os.rename("b/full", "a/full")
"#;

/// A file without a name in the hands of processes that hand it on and end, each in a session of its own.
const HANDED_ON: &str = r#"
import os
f = open("big", "wb")
os.unlink("big")
for _ in range(384): f.write(bytes(1 << 20))
f.flush()
while True:
    if os.fork() > 0: os._exit(0)
    os.setsid()
"#;

#[test]
fn a_server_that_moves_what_it_keeps_on_disk_is_stopped() {
    let ways =
        [("a directory that is renamed all the time", MOVED), ("a deleted file that processes hand on", HANDED_ON)];
    each_user(|user, name| {
        let toolyard = Toolyard::on(Engine::Sqlite).user(user).script("hostile", HOSTILE).start();
        for (number, (what, script)) in ways.iter().enumerate() {
            let server = format!("hostile-{number}");
            let options = ["--name", &server, "--disk", "64M", "--wait", "--timeout", "120"];
            let _ = toolyard.json(&[&["deploy", "com.example/hostile"], &options[..]].concat());
            let path = format!("/mcp/default/servers/{server}");
            let ready = || toolyard.call(&server, "run", json!({ "script": "" })).is_ok();
            toolyard_test_support::wait_until(std::time::Duration::from_secs(20), &path, ready);
            let _ = toolyard.call(&server, "run", json!({ "script": script }));
            // It is started again a second later: what stays is in its log.
            let log = || String::from_utf8_lossy(&toolyard.run(&["servers", "logs", &server]).stdout).into_owned();
            let is_stopped = || log().contains("bytes on disk");
            toolyard_test_support::wait_until(std::time::Duration::from_secs(60), "it is stopped", is_stopped);
            row(name, &format!("keeping 384 MiB as {what} with a limit of 64 MiB")).expected("stopped").got("stopped");
        }
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
