//! The database does not take writes, or is away.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;
use toolyard_test_support::{Engine, Row, Toolyard, free_port, pause, raw, wait_until};

use crate::agent::{Agent, link};
use crate::links::SERVER;
use crate::shutdown::{SLEEPER, sleep};

const AREA: &str = "readiness";
/// The check runs every five seconds and may take four.
const NOTICED: Duration = Duration::from_secs(20);

fn status(toolyard: &Toolyard, path: &str) -> u16 {
    toolyard.request("GET", path).send().status
}

#[test]
fn writes_that_do_not_last_are_seen_and_calls_go_on() {
    let operations = free_port();
    let toolyard = Toolyard::on(Engine::Sqlite)
        .script("sleeper", SLEEPER)
        .setting(&format!("operations_listen=127.0.0.1:{operations}"))
        .start();
    let _ = toolyard.deploy("sleeper", &[]);
    let writer = Writer::hold(&toolyard);
    let noticed = wait_until(NOTICED, "writes are not ready", || status(&toolyard, "/readyz/writes") == 503);
    let call = toolyard.runtime().block_on(sleep(&toolyard, 1)).expect("no panic");
    let gateway = (status(&toolyard, "/readyz"), status(&toolyard, "/readyz/gateway"), call.status);
    Row::of(AREA, "SQLite takes no write")
        .expected("`writes` 503 within 20 s, `/readyz` and calls 200")
        .got(format!("503 after {noticed:.1?}, {gateway:?}"));
    assert_eq!(gateway, (200, 200, 200), "{}", call.text);
    let request = "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let details = raw(operations, request.as_bytes(), Duration::from_secs(5));
    assert!(details.starts_with("HTTP/1.1 200") && details.contains("\"writes\""), "{details}");
    let told = toolyard.json(&["status"]);
    assert_eq!((&told["gateway"]["ready"], &told["writes"]["ready"]), (&true.into(), &false.into()), "{told:#}");

    writer.end();
    let back = wait_until(NOTICED, "writes are ready", || status(&toolyard, "/readyz/writes") == 200);
    Row::of(AREA, "SQLite takes writes again").expected("`writes` 200 within 20 s").got(format!("{back:.1?}"));
}

#[test]
fn calls_go_on_while_the_database_is_away_and_readiness_says_which_part_is_not() {
    let base = Toolyard::on(Engine::Postgres).prepare();
    let (url, proxy) = Proxy::before(base.database().expect("a URL"));
    let toolyard = Toolyard::on(Engine::Postgres).database(&url).script("sleeper", SLEEPER).start();
    let _ = toolyard.deploy("sleeper", &[]);
    proxy.cut();
    let noticed = wait_until(NOTICED, "writes are not ready", || status(&toolyard, "/readyz/writes") == 503);
    let loops = wait_until(Duration::from_secs(40), "the control plane is not ready", || {
        status(&toolyard, "/readyz/control-plane") == 503
    });
    let call = toolyard.runtime().block_on(sleep(&toolyard, 1)).expect("no panic");
    let by_hand = toolyard.run(&["call", "sleeper", "sleep", "{\"ms\":1}"]);
    let told = String::from_utf8_lossy(&by_hand.stderr);
    assert!(by_hand.status.success(), "`toolyard call` asks the gateway where the name is served: {told}");
    let ready = status(&toolyard, "/readyz");
    Row::of(AREA, "Postgres is away")
        .expected("`writes` and `control-plane` 503, `/readyz` and calls 200")
        .got(format!("503 after {noticed:.1?} and {loops:.1?} more, {ready}, {}", call.status));
    assert_eq!((ready, call.status), (200, 200), "{}", call.text);
    proxy.mend();
    let back = wait_until(Duration::from_secs(40), "all of it is ready", || {
        ["/readyz", "/readyz/writes", "/readyz/control-plane"].iter().all(|path| status(&toolyard, path) == 200)
    });
    Row::of(AREA, "Postgres is back").expected("all parts 200 within 40 s").got(format!("{back:.1?}"));
    drop(toolyard);
    drop(base);
}

#[test]
fn a_replica_that_starts_while_the_database_is_silent_takes_no_connection_and_says_why_once() {
    let base = Toolyard::on(Engine::Postgres).prepare();
    let (url, proxy) = Proxy::before(base.database().expect("a URL"));
    proxy.silence();
    let mut replica = Toolyard::on(Engine::Postgres).database(&url).without_toolbox().prepare();
    let address = replica.url().trim_start_matches("http://").to_owned();
    replica.spawn();
    let has_ended = AtomicBool::new(false);
    let (taken, code) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let (mut taken, until) = (0, Instant::now() + Duration::from_secs(70));
            while !has_ended.load(Ordering::SeqCst) && Instant::now() < until {
                taken += u32::from(TcpStream::connect(&address).is_ok());
                pause();
            }
            taken
        });
        let code = replica.wait_exit(Duration::from_secs(60));
        has_ended.store(true, Ordering::SeqCst);
        (asking.join().expect("no panic"), code)
    });
    let text = replica.log_text();
    let told = text.lines().rfind(|line| line.starts_with("toolyard: ")).unwrap_or_default();
    Row::of(AREA, "a replica starts while Postgres is silent")
        .expected("it ends, and takes no connection before")
        .got(format!("code {code:?}, {taken} connections; {told}"));
    assert!(code.is_some_and(|code| code != 0) && taken == 0, "{code:?}, {taken}: {text}");
    let cause = told.rsplit(": ").next().unwrap_or_default();
    assert_eq!(told.matches(cause).count(), 1, "{told}");
    proxy.mend();
    replica.serve();
    drop(replica);
    drop(base);
}

#[test]
fn an_agent_that_restarts_while_sqlite_takes_no_write_serves_its_servers_again() {
    let toolyard = Toolyard::on(Engine::Sqlite).without_toolbox().script("links", SERVER).start();
    let mut agent = Agent::join(&toolyard, "far");
    let _ = toolyard.deploy("links", &["--toolbox", "far"]);
    let writer = Writer::hold(&toolyard);
    restarts(&mut agent, &[&toolyard], "SQLite takes no write");
    writer.end();
    is_heard_again(&toolyard);
}

#[test]
fn an_agent_that_restarts_while_the_database_is_away_serves_its_servers_again() {
    let base = Toolyard::on(Engine::Postgres).prepare();
    let (url, proxy) = Proxy::before(base.database().expect("a URL"));
    let first = Toolyard::on(Engine::Postgres).database(&url).without_toolbox().script("links", SERVER).start();
    let mut agent = Agent::join(&first, "far");
    let _ = first.deploy("links", &["--toolbox", "far"]);
    let second = first.replica(&[]);
    wait_until(Duration::from_secs(60), "it has a link to both", || link(&second, "far")["connected"] == true);

    // At once, before anybody has noticed.
    proxy.silence();
    restarts(&mut agent, &[&first, &second], "Postgres falls silent");
    proxy.mend();
    is_heard_again(&first);

    proxy.cut();
    for replica in [&first, &second] {
        wait_until(NOTICED, "writes are not ready", || status(replica, "/readyz/writes") == 503);
    }
    restarts(&mut agent, &[&first, &second], "Postgres is away");
    proxy.mend();
    is_heard_again(&first);
    drop((first, second));
    drop(base);
}

/// Kills an agent and starts it again, and waits each time until the calls of every replica get to its server.
fn restarts(agent: &mut Agent, replicas: &[&Toolyard], away: &str) {
    for (what, servers_too) in [("an agent", false), ("an agent with all it runs", true)] {
        agent.kill();
        if servers_too {
            agent.end_servers();
        }
        agent.start(replicas[0]);
        for replica in replicas {
            let took = wait_until(Duration::from_secs(60), "calls are answered again", || {
                replica.call("links", "sleep", json!({})).is_ok()
            });
            Row::of(AREA, format!("{away}, and {what} is killed and started again"))
                .expected("calls through it are answered, by every replica")
                .got(format!("answered after {took:.1?}"));
        }
    }
}

/// Waits until an agent is told what to run again, and has not been taken for two.
fn is_heard_again(toolyard: &Toolyard) {
    wait_until(Duration::from_secs(60), "writes are ready", || status(toolyard, "/readyz/writes") == 200);
    let _ = toolyard.json(&["servers", "restart", "links", "--wait", "--timeout", "120"]);
    wait_until(Duration::from_secs(20), "calls go on", || toolyard.call("links", "sleep", json!({})).is_ok());
    let audit = toolyard.api("GET", "/audit?limit=200").send().ok();
    assert!(!audit.to_string().contains("toolbox.revoke"), "{audit:#}");
}

/// Another process in the place of the one writer of a SQLite file.
struct Writer {
    child: Child,
    /// Kept open: it would die of a pipe that nobody reads.
    _says: ChildStdout,
}

impl Writer {
    fn hold(toolyard: &Toolyard) -> Self {
        let hold = "import sqlite3, sys\nc = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)\n\
                    c.execute('BEGIN IMMEDIATE')\nprint('held', flush=True)\nsys.stdin.read()";
        let mut child = Command::new("python3")
            .args(["-c", hold])
            .arg(toolyard.data_dir().join("toolyard.db"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 runs");
        let mut says = child.stdout.take().expect("a pipe");
        says.read_exact(&mut [0; 5]).expect("it holds the place");
        Self { child, _says: says }
    }

    fn end(mut self) {
        drop(self.child.stdin.take());
        self.child.wait().expect("it ends");
    }
}

/// A proxy that can be cut, or carry nothing while it stays open.
struct Proxy {
    is_cut: Arc<AtomicBool>,
    is_silent: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    /// One before the server of this URL, and the URL by way of it.
    fn before(url: &str) -> (String, Self) {
        let (before, rest) = url.split_once('@').expect("a user");
        let (server, database) = rest.split_once('/').expect("a database");
        let server: SocketAddr = server.parse().expect("an address");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("{before}@{}/{database}", listener.local_addr().expect("an address"));
        let proxy = Self { is_cut: Arc::default(), is_silent: Arc::default(), open: Arc::default() };
        let (is_cut, open) = (Arc::clone(&proxy.is_cut), Arc::clone(&proxy.open));
        let is_silent = Arc::clone(&proxy.is_silent);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(server) else { continue };
                if is_cut.load(Ordering::SeqCst) {
                    continue;
                }
                let both = |stream: &TcpStream| stream.try_clone().expect("a second handle");
                open.lock().expect("no panic").extend([both(&client), both(&server)]);
                let (from_client, to_server) = (both(&client), both(&server));
                for (from, to) in [(from_client, to_server), (server, client)] {
                    let is_silent = Arc::clone(&is_silent);
                    std::thread::spawn(move || pump(from, to, &is_silent));
                }
            }
        });
        (url, proxy)
    }

    fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
        for stream in self.open.lock().expect("no panic").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn silence(&self) {
        self.is_silent.store(true, Ordering::SeqCst);
    }

    fn mend(&self) {
        self.is_cut.store(false, Ordering::SeqCst);
        self.is_silent.store(false, Ordering::SeqCst);
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, is_silent: &AtomicBool) {
    let mut buffer = [0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        while is_silent.load(Ordering::SeqCst) {
            pause();
        }
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
