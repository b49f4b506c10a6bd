//! Package clients: what a package makes them fetch, and what a deployer makes a server load.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::json;
use toolyard_test_support::{Engine, Row, Toolyard, User, each_engine};

const SERVER: &str = "process.stdin.resume()";

/// Something inside the network that nobody may make us ask: how often it was asked all the same.
fn inside() -> (u16, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        for _stream in listener.incoming() {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    (port, asked)
}

fn attacks(engine: Engine, user: User) {
    let (port, asked) = inside();
    let http = format!("http://127.0.0.1:{port}/x.tgz");
    let from = |place: &str| json!({ "dependencies": { "inner": place } });
    // npm looks into what a package brings with it by installing it, which must not open another way.
    let bundling = json!({ "dependencies": { "inner": &http, "brought": "1.0.0" }, "bundleDependencies": ["brought"] });
    let attacks = [
        ("an http address", from(&http)),
        ("a git address", from(&format!("git+http://127.0.0.1:{port}/x.git"))),
        ("a path of the host", from("file:/etc")),
        ("an http address, of a package that brings others with it", bundling),
    ];
    let mut builder = Toolyard::on(engine).user(user);
    for (number, (_, dependencies)) in attacks.iter().enumerate() {
        builder = builder.package(&format!("evil-{number}"), dependencies, SERVER);
    }
    let mut toolyard = builder.start();
    for (number, (what, _)) in attacks.iter().enumerate() {
        let name = format!("evil-{number}");
        let body = json!({ "name": name, "entry": format!("com.example/{name}") });
        let _ = toolyard.api("POST", "/servers").json(body).send().ok();
        let ended = toolyard.wait_server(&name, "its rollout is over", |it| it["rollout"]["state"] != "progressing");
        let got =
            format!("{}, asked {} times", ended["rollout"]["state"], asked.load(Ordering::Relaxed)).replace('"', "");
        Row::of("package clients", format!("a dependency at {what} ({engine:?}, {user:?} user)"))
            .expected("failed, asked 0 times")
            .got(&got);
        assert_eq!(got, "failed, asked 0 times", "{ended:#}");
    }
    toolyard.stop_by("TERM");
}

#[test]
fn a_package_makes_nobody_fetch_from_outside_the_registries_as_root() {
    attacks(Engine::Sqlite, User::Own);
}

#[test]
fn a_package_makes_nobody_fetch_from_outside_the_registries_as_a_plain_user() {
    attacks(Engine::Sqlite, User::Plain);
}

#[test]
fn nobody_makes_a_server_load_code_by_a_variable() {
    each_engine(|engine| {
        let toolyard = Toolyard::on(engine).without_toolbox().script("plain", SERVER).start();
        for variable in ["NODE_OPTIONS", "LD_PRELOAD", "PYTHONPATH", "BASH_ENV"] {
            let body = json!({ "name": "one", "entry": "com.example/plain", "environment": { variable: "x" } });
            let status = toolyard.api("POST", "/servers").json(body).send().status;
            Row::of("package clients", format!("`{variable}` for a server ({engine:?})")).expected(422).got(status);
            assert_eq!(status, 422);
        }
    });
}
