//! The database fails: its disk is full, it falls silent, it is gone, it is another's.

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use toolyard_test_support::{
    Engine, KEY, Row, Toolyard, each_engine, free_port, long, pause, raw, test_variable, wait_until,
};

/// A file system of its own that can be filled. Needs root.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"]).arg(dir.path()).status();
        assert!(mounted.expect("mount").success(), "tests of faults run as root");
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn fill(&self) {
        let mut file = std::fs::File::create(self.path().join("fill")).expect("a file");
        let block = [0_u8; 64 << 10];
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.path().join("fill")).expect("it was filled");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn key_id(toolyard: &Toolyard, name: &str) -> String {
    let keys = toolyard.api("GET", "/keys").send().ok();
    let found = keys["items"].as_array().and_then(|keys| keys.iter().find(|key| key["name"] == name));
    found.and_then(|key| key["id"].as_str()).expect("the key").to_owned()
}

#[test]
fn every_write_that_was_acknowledged_around_a_full_disk_is_there_afterwards() {
    let disk = SmallDisk::mount();
    let data = disk.path().join("data");
    let mut toolyard = Toolyard::on(Engine::Sqlite).without_toolbox().data_dir(&data).start();
    let leaver = toolyard.make_key("leaver", "admin");
    let leaver_id = key_id(&toolyard, "leaver");
    let secret = "x".repeat(3000);
    let full = Duration::from_secs(long(3, 10));
    let (filled, freed) = (Duration::from_secs(1), Duration::from_secs(1) + full);
    let (began, mut is_full, mut asked) = (Instant::now(), false, Vec::new());
    // Fifty a second: before, while the disk is full, and after.
    while began.elapsed() < freed + Duration::from_secs(3) {
        let name = format!("c-{}", asked.len());
        let put = toolyard.api("PUT", &format!("/credentials/{name}")).json(json!({ "secret": secret })).begin();
        asked.push((name, put));
        if !is_full && began.elapsed() > filled && began.elapsed() < freed {
            disk.fill();
            is_full = true;
        } else if is_full && began.elapsed() > freed {
            disk.free();
            is_full = false;
        }
        pause();
    }
    let (all, mut written) = (asked.len(), Vec::new());
    for (name, put) in asked {
        let answer = toolyard.runtime().block_on(put).expect("the request ended");
        assert_ne!(answer.status, 0, "every write is answered: {}", answer.text);
        if answer.status == 200 {
            written.push(name);
        }
    }
    assert!(written.len() < all, "the disk was full");
    assert_eq!(toolyard.api("DELETE", &format!("/keys/{leaver_id}")).send().status, 204);
    wait_until(Duration::from_secs(5), "the deleted key is refused", || {
        toolyard.request("GET", "/api/v1/servers").key(&leaver).send().status == 401
    });
    let lost = |toolyard: &Toolyard| {
        let is_gone = |name: &&String| toolyard.api("GET", &format!("/credentials/{name}")).send().status != 200;
        written.iter().filter(is_gone).count()
    };
    let lost_now = lost(&toolyard);
    toolyard.stop_by("TERM");
    toolyard.serve();
    let lost_later = lost(&toolyard);
    assert_eq!(toolyard.request("GET", "/api/v1/servers").key(&leaver).send().status, 401);
    Row::of("storage", format!("disk full for {} s under constant writes (SQLite)", full.as_secs()))
        .expected("0 acknowledged writes lost, now and after a restart")
        .got(format!("{lost_now} and {lost_later} of {} lost; {} refused", written.len(), all - written.len()));
    assert_eq!((lost_now, lost_later), (0, 0));
}

/// Has Postgres do something.
fn order(sql: &str) {
    let admin = test_variable("TOOLYARD_TEST_POSTGRES_URL");
    let done = Command::new("psql").args(["-q", "-d", &admin, "-c", sql]).status();
    assert!(done.expect("psql runs").success(), "{sql}");
}

#[test]
fn a_postgres_that_refuses_to_grow_takes_no_writes_until_it_does_again() {
    const NOTICED: Duration = Duration::from_secs(30);
    let disk = SmallDisk::mount();
    let owned = Command::new("chown").arg("postgres").arg(disk.path()).status();
    assert!(owned.expect("chown runs").success(), "Postgres runs as `postgres` on this host");
    // It never starts: its database is dropped at the end.
    let owner = Toolyard::on(Engine::Postgres).prepare();
    let url = owner.database().expect("a Postgres").to_owned();
    let name = url.rsplit('/').next().expect("a name");
    order(&format!("CREATE TABLESPACE small_{name} LOCATION '{}'", disk.path().display()));
    order(&format!("ALTER DATABASE {name} SET TABLESPACE small_{name}"));
    let toolyard = Toolyard::on(Engine::Postgres).database(&url).without_toolbox().start();
    let ready = || toolyard.request("GET", "/readyz/writes").send().status;
    assert_eq!(ready(), 200);

    disk.fill();
    let mut number = 0;
    let mut make_key = || {
        number += 1;
        let body = json!({ "name": format!("key-{number}"), "role": "viewer" });
        toolyard.api("POST", "/keys").json(body).send().status
    };
    // Rows go into what is there until a table must grow.
    wait_until(NOTICED, "a write is refused", || make_key() == 503);
    let noticed = wait_until(NOTICED, "writes are not ready", || ready() == 503);
    let told = toolyard.json(&["status"]);
    assert_eq!(told["writes"]["ready"], false, "{told:#}");
    // It stays so while nobody else is refused.
    let checks = Instant::now();
    while checks.elapsed() < Duration::from_secs(long(6, 60)) {
        assert_eq!(ready(), 503, "{}", toolyard.log_text());
        pause();
    }

    disk.free();
    let back = wait_until(NOTICED, "writes are ready", || ready() == 200);
    assert_eq!(make_key(), 201);
    Row::of("storage", "the disk of Postgres is full while rows that fit are taken")
        .expected("`writes` is 503 until there is room, and 200 after that")
        .got(format!("503 after {noticed:.1?}, 200 again after {back:.1?}"));
    drop(toolyard);
    drop(owner);
    order(&format!("DROP TABLESPACE small_{name}"));
}

/// A proxy whose connections can be frozen: from then on they carry nothing and never end, and new ones work.
struct FreezingProxy {
    address: SocketAddr,
    frozen: Arc<AtomicU64>,
}

impl FreezingProxy {
    fn start(to: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let frozen = Arc::new(AtomicU64::new(0));
        let freezing = Arc::clone(&frozen);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&to) else { continue };
                let born = freezing.load(Ordering::SeqCst);
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().expect("a handle"), to.try_clone().expect("a handle"));
                    let freezing = Arc::clone(&freezing);
                    std::thread::spawn(move || pump(from, to, born, &freezing));
                }
            }
        });
        Self { address, frozen }
    }

    fn freeze(&self) {
        self.frozen.fetch_add(1, Ordering::SeqCst);
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, born: u64, frozen: &AtomicU64) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = std::io::Read::read(&mut from, &mut buffer).unwrap_or(0);
        while frozen.load(Ordering::SeqCst) != born {
            std::thread::park_timeout(Duration::from_secs(3600));
        }
        if read == 0 || std::io::Write::write_all(&mut to, &buffer[..read]).is_err() {
            let _ = to.shutdown(Shutdown::Both);
            return;
        }
    }
}

/// A proxy before the Postgres of `url`, and the URL of the same database through it.
fn behind_a_proxy(url: &str) -> (FreezingProxy, String) {
    let authority = url.split("://").nth(1).and_then(|rest| rest.split('/').next()).expect("a host");
    let host = authority.rsplit('@').next().expect("a host").to_owned();
    let proxy = FreezingProxy::start(host.clone());
    let through = url.replace(&host, &proxy.address.to_string());
    (proxy, through)
}

/// A number, asked of Postgres itself.
fn ask(sql: &str) -> u64 {
    let admin = test_variable("TOOLYARD_TEST_POSTGRES_URL");
    let output = Command::new("psql").args(["-tA", "-d", &admin, "-c", sql]).output().expect("psql runs");
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number")
}

fn open_and_idle(operations: u16) -> Option<(f64, f64)> {
    let request = format!("GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:{operations}\r\nConnection: close\r\n\r\n");
    let text = raw(operations, request.as_bytes(), Duration::from_secs(5));
    let value = |state: &str| {
        let start = format!("toolyard_database_connections{{state=\"{state}\"}}");
        text.lines().find(|line| line.starts_with(&start))?.rsplit(' ').next()?.parse().ok()
    };
    Some((value("open")?, value("idle")?))
}

#[test]
fn a_postgres_that_falls_silent_six_times_costs_no_connection_and_no_request_stays_unanswered() {
    // It never starts: its database is dropped at the end.
    let owner = Toolyard::on(Engine::Postgres).prepare();
    let url = owner.database().expect("a Postgres");
    let (proxy, through) = behind_a_proxy(url);
    let operations = free_port();
    let toolyard = Toolyard::on(Engine::Postgres)
        .database(&through)
        .without_toolbox()
        .setting("snapshot_max_age_seconds=5")
        .setting(&format!("operations_listen=127.0.0.1:{operations}"))
        .start();
    let (mut slowest, mut begun) = (Duration::ZERO, Vec::new());
    for round in 0..6 {
        for n in 0..10 {
            let put = toolyard.api("PUT", &format!("/credentials/r{round}-{n}")).json(json!({ "secret": "x" }));
            begun.push(put.begin());
            begun.push(toolyard.api("GET", "/servers").begin());
        }
        proxy.freeze();
        let frozen = Instant::now();
        let works = || {
            let put = toolyard.api("PUT", &format!("/credentials/after-{round}")).json(json!({ "secret": "x" }));
            put.send().status == 200 && toolyard.api("GET", "/servers").send().status == 200
        };
        while !works() {
            assert!(frozen.elapsed() < Duration::from_secs(30), "{}", toolyard.log_text());
            pause();
        }
        slowest = slowest.max(frozen.elapsed());
    }
    let mut unanswered = 0;
    for request in begun {
        unanswered += usize::from(toolyard.runtime().block_on(request).expect("the request ended").status == 0);
    }
    // For longer than a snapshot may be old: a gateway that hears nothing new refuses by then.
    let list = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" });
    let ask_gateway = || toolyard.request("POST", "/mcp/default/servers/nobody").key(KEY).json(list.clone()).send();
    let until = Instant::now() + Duration::from_secs(6);
    let mut gateway = ask_gateway();
    while Instant::now() < until && gateway.code() != "snapshot_stale" {
        pause();
        gateway = ask_gateway();
    }
    let (_, name) = url.rsplit_once('/').expect("a database");
    wait_until(Duration::from_secs(10), "the server has ended every transaction that a lost connection left", || {
        let left = "state LIKE 'idle in transaction%' AND state_change < now() - interval '4 s'";
        ask(&format!("SELECT COUNT(*) FROM pg_stat_activity WHERE datname = '{name}' AND {left}")) == 0
    });
    wait_until(Duration::from_secs(10), "every connection of the pool is free again", || {
        open_and_idle(operations).is_some_and(|(open, idle)| open <= 16.0 && idle >= open - 2.0)
    });
    Row::of("storage", "Postgres falls silent six times, new connections work")
        .expected("every request answered, back in less than 5 s, no connection lost, the gateway serves on")
        .got(format!(
            "{unanswered} unanswered, back in {:.1} s at most, gateway {}",
            slowest.as_secs_f32(),
            gateway.status
        ));
    assert_eq!(unanswered, 0);
    // What other tests take of the machine at the same time is no fault of the database.
    assert!(slowest < long(Duration::from_secs(15), Duration::from_secs(5)), "back after {slowest:?}");
    assert_ne!(gateway.code(), "snapshot_stale", "{}", gateway.text);
}

/// Starts what is expected to refuse; what it says.
#[track_caller]
fn refusal(toolyard: &mut Toolyard) -> String {
    refusal_with_code(toolyard).0
}

/// What a start says that is refused, and its exit code.
fn refusal_with_code(toolyard: &mut Toolyard) -> (String, Option<i32>) {
    let before = toolyard.log_text().len();
    toolyard.spawn();
    let code = toolyard.wait_exit(Duration::from_secs(30));
    let text = toolyard.log_text().split_off(before);
    assert!(code.is_some_and(|code| code != 0), "{code:?}: {text}");
    (text, code)
}

/// The exit code after which no service manager starts it again: a wrong configuration stays one.
const WRONG_CONFIGURATION: Option<i32> = Some(78);

fn put(toolyard: &Toolyard, name: &str) -> Value {
    toolyard.api("PUT", &format!("/credentials/{name}")).json(json!({ "secret": "x" })).send().ok()
}

#[test]
fn a_database_file_that_was_there_and_is_gone_or_empty_is_refused_until_it_is_back() {
    let mut toolyard = Toolyard::on(Engine::Sqlite).without_toolbox().start();
    let _ = put(&toolyard, "kept");
    toolyard.stop_by("TERM");
    let (data, aside) = (toolyard.data_dir().to_owned(), toolyard.dir().join("aside"));
    std::fs::create_dir(&aside).expect("a directory");
    let (database, copy) = (data.join("toolyard.db"), aside.join("toolyard.db"));
    assert!(!data.join("toolyard.db-wal").exists(), "the file is all there is to copy");
    std::fs::rename(&database, &copy).expect("moved");
    let gone = refusal(&mut toolyard);
    assert!(gone.contains("is gone or empty") && gone.contains("put it back from a backup"), "{gone}");
    assert!(!database.exists(), "nothing is made in its place");
    std::fs::write(&database, "").expect("an empty file");
    let empty = refusal(&mut toolyard);
    assert!(empty.contains("is gone or empty"), "{empty}");
    std::fs::rename(&copy, &database).expect("moved back");
    toolyard.serve();
    assert_eq!(toolyard.api("GET", "/credentials/kept").send().status, 200);
    Row::of("start", "the database file is gone, or empty").expected("refused, with the way out").got("refused");
}

#[test]
fn a_data_directory_that_meets_another_database_is_refused() {
    let mut toolyard = Toolyard::on(Engine::Postgres).without_toolbox().start();
    toolyard.stop_by("TERM");
    let on = |database: Option<&str>| {
        let builder = Toolyard::on(Engine::Postgres).without_toolbox().data_dir(toolyard.data_dir());
        match database {
            Some(url) => builder.database(url).prepare(),
            None => builder.prepare(),
        }
    };
    let gone = refusal(&mut on(None));
    assert!(gone.contains("`database_url` is gone or empty"), "{gone}");
    let mut without_url = Toolyard::on(Engine::Sqlite).without_toolbox().data_dir(toolyard.data_dir()).prepare();
    let (no_url, code) = refusal_with_code(&mut without_url);
    let names_it = no_url.contains("uses Postgres, and `database_url` is not set") && !no_url.contains("backup");
    assert!(names_it && code == WRONG_CONFIGURATION, "{code:?}: {no_url}");
    assert!(!toolyard.data_dir().join("toolyard.db").exists(), "nothing is made in its place");
    let mut other = Toolyard::on(Engine::Postgres).without_toolbox().start();
    other.stop_by("TERM");
    let (another, code) = refusal_with_code(&mut on(other.database()));
    assert!(another.contains("belongs to installation") && code == WRONG_CONFIGURATION, "{code:?}: {another}");
    Row::of("start", "a data directory with an empty database, and with another's").expected("refused").got("refused");
}

#[test]
fn another_master_key_is_refused_and_so_is_none_until_the_right_one_is_back() {
    each_engine(|engine| {
        let mut toolyard = Toolyard::on(engine).without_toolbox().start();
        let _ = put(&toolyard, "old");
        toolyard.stop_by("TERM");
        let key = toolyard.data_dir().join("vault.key");
        let right = std::fs::read(&key).expect("the key");
        std::fs::write(&key, format!("{}\n", "07".repeat(32))).expect("another key");
        let (wrong, code) = refusal_with_code(&mut toolyard);
        assert!(wrong.contains("is not the one that this database is sealed with"), "{wrong}");
        assert_eq!(code, WRONG_CONFIGURATION);
        std::fs::remove_file(&key).expect("no key");
        let (lost, code) = refusal_with_code(&mut toolyard);
        assert!(lost.contains("put it back") && lost.contains("vault_key_lost"), "{lost}");
        assert_eq!(code, WRONG_CONFIGURATION);
        std::fs::write(&key, right).expect("the right key");
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("its mode");
        toolyard.serve();
        Row::of("start", format!("another master key, and none ({engine:?})"))
            .expected("refused, with the way out")
            .got("refused");
    });
}

#[test]
fn a_second_control_plane_on_a_data_directory_is_refused_at_once_and_the_first_goes_on() {
    each_engine(|engine| {
        let first = Toolyard::on(engine).without_toolbox().start();
        let second = Toolyard::on(engine).without_toolbox().data_dir(first.data_dir());
        let mut second = match first.database() {
            Some(url) => second.database(url).prepare(),
            None => second.prepare(),
        };
        let began = Instant::now();
        let refused = refusal(&mut second);
        assert!(refused.contains(&format!("is in use by another Toolyard (process {})", first.pid())), "{refused}");
        assert!(began.elapsed() < Duration::from_secs(5));
        let _ = put(&first, "still");
        Row::of("start", format!("two control planes on one data directory ({engine:?})"))
            .expected("the second is refused at once")
            .got("refused");
    });
}
