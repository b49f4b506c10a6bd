//! The database does not take writes, or is away.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use toolyard_test_support::{Engine, Row, Toolyard, free_port, raw, wait_until};

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
    // Another process holds the one writer's place.
    let hold = "import sqlite3, sys\nc = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)\n\
                c.execute('BEGIN IMMEDIATE')\nprint('held', flush=True)\nsys.stdin.read()";
    let mut holder = Command::new("python3")
        .args(["-c", hold])
        .arg(toolyard.data_dir().join("toolyard.db"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 runs");
    // Kept open: the holder would die of a pipe that nobody reads.
    let mut says = holder.stdout.take().expect("a pipe");
    says.read_exact(&mut [0; 5]).expect("it holds the place");

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

    drop(holder.stdin.take());
    holder.wait().expect("it ends");
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

/// A proxy that can be cut.
struct Proxy {
    is_cut: Arc<AtomicBool>,
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
        let proxy = Self { is_cut: Arc::default(), open: Arc::default() };
        let (is_cut, open) = (Arc::clone(&proxy.is_cut), Arc::clone(&proxy.open));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(server) else { continue };
                if is_cut.load(Ordering::SeqCst) {
                    continue;
                }
                let both = |stream: &TcpStream| stream.try_clone().expect("a second handle");
                open.lock().expect("no panic").extend([both(&client), both(&server)]);
                let (from_client, to_server) = (both(&client), both(&server));
                std::thread::spawn(move || pump(from_client, to_server));
                std::thread::spawn(move || pump(server, client));
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

    fn mend(&self) {
        self.is_cut.store(false, Ordering::SeqCst);
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
