//! Catalog sources and entries that want more than they are given.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use toolyard_test_support::{Answer, Engine, KEY, Row, Toolyard, each_engine, wait_until};

/// A host of somebody else's: answers everything with an empty list and keeps what it was sent.
struct Stranger {
    url: String,
    heard: Arc<Mutex<String>>,
}

impl Stranger {
    fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let heard = Arc::new(Mutex::new(String::new()));
        let kept = heard.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut chunk = [0; 16 << 10];
                let read = stream.read(&mut chunk).unwrap_or_default();
                kept.lock().expect("not poisoned").push_str(&String::from_utf8_lossy(&chunk[..read]));
                let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n[]";
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        Self { url, heard }
    }

    /// What it was sent until now.
    fn heard(&self) -> String {
        self.heard.lock().expect("not poisoned").clone()
    }
}

#[test]
fn a_key_goes_to_nobody_but_its_own_toolyard() {
    let toolyard = Toolyard::on(Engine::Sqlite).without_toolbox().start();
    let stranger = Stranger::listen();

    let _ = toolyard.json(&["catalog", "sources", "add", "theirs", &stranger.url, "--kind", "file"]);
    wait_until(Duration::from_secs(20), "the source is synced", || !stranger.heard().is_empty());
    let old = toolyard.run(&["catalog", "sources", "add", "other", "--kind", "file", "--url", &stranger.url]);
    assert_eq!(old.status.code(), Some(2), "the old spelling is wrong usage");
    let leaked = stranger.heard().contains(KEY) || stranger.heard().to_lowercase().contains("authorization");
    Row::of("catalog", "a source's address given to the command line, with `--url` and without")
        .expected("the key stays here")
        .got(if leaked { "the key was sent there" } else { "the key stays here" });
    assert!(!leaked, "{}", stranger.heard());

    let plain = |args: &[&str]| {
        let mut command = toolyard.command();
        command.args(args).env_remove("TOOLYARD_URL").env_remove("TOOLYARD_API_KEY");
        command.output().expect("the CLI runs")
    };
    let login = plain(&["login", &toolyard.url(), "--key", KEY]);
    assert!(login.status.success(), "{}", String::from_utf8_lossy(&login.stderr));
    assert!(plain(&["servers", "list"]).status.success(), "what was remembered is used");
    let _ = plain(&["servers", "list", "--url", &stranger.url]);
    let leaked = stranger.heard().contains(KEY);
    Row::of("catalog", "another `--url` after `toolyard login`").expected("no key is sent").got(if leaked {
        "the remembered key was sent"
    } else {
        "no key is sent"
    });
    assert!(stranger.heard().contains("/api/v1/servers") && !leaked, "{}", stranger.heard());
}

fn document(version: &str, description: &str) -> Value {
    json!({ "server": {
        "name": "com.example/tool", "description": description, "version": version,
        "remotes": [{ "type": "streamable-http", "url": "https://mcp.example.com/" }],
    }})
}

#[test]
fn nothing_is_approved_that_the_reviewer_did_not_see() {
    each_engine(|engine| {
        let toolyard = Toolyard::on(engine).without_toolbox().start();
        let developer = toolyard.make_key("developer", "developer");
        let submit = |version: &str, description: &str| {
            let request = toolyard.request("POST", "/api/v1/catalog/entries").key(&developer);
            request.json(document(version, description)).send().ok()
        };
        let path = "/catalog/entries/com.example%2Ftool";
        let approve = |seen: Option<&str>| -> Answer {
            let mut request = toolyard.api("POST", &format!("{path}/review"));
            if let Some(seen) = seen {
                request = request.header("if-match", &format!("\"{seen}\""));
            }
            request.json(json!({ "approve": true })).send()
        };
        submit("1.0.0", "Never looked at");
        submit("2.0.0", "Harmless");
        let seen = toolyard.api("GET", path).send().ok()["digest"].as_str().expect("a digest").to_owned();
        submit("2.0.0", "Harmful");
        let (blind, stale) = (approve(None), approve(Some(&seen)));
        Row::of("catalog", format!("another document under the version that is being reviewed ({engine:?})"))
            .expected("412, nothing approved")
            .got(format!("{} {}", stale.status, stale.code()));
        assert_eq!((blind.status, stale.status), (428, 412), "{} {}", blind.text, stale.text);
        assert_eq!(toolyard.api("GET", path).send().ok()["review"], "submitted");

        let shown = toolyard.json(&["catalog", "show", "com.example/tool"]);
        let digest = shown["digest"].as_str().expect("a digest");
        let _ = toolyard.json(&["catalog", "review", "com.example/tool", "--approve", digest]);
        let smuggled = toolyard.api("GET", &format!("{path}?version=1.0.0")).send();
        Row::of("catalog", format!("an older version submitted beside the reviewed one ({engine:?})"))
            .expected("404 after the approval")
            .got(smuggled.status);
        assert_eq!(smuggled.status, 404, "{}", smuggled.text);
    });
}

#[test]
fn sources_that_never_answer_hold_no_other_up() {
    each_engine(|engine| {
        let toolyard = Toolyard::on(engine).without_toolbox().start();
        let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
        let silent = format!("http://{}", silent.local_addr().expect("an address"));
        for name in ["silent-a", "silent-b", "silent-c"] {
            let body = json!({ "name": name, "kind": "registry", "url": silent });
            assert_eq!(toolyard.api("POST", "/catalog/sources").json(body).send().status, 201);
        }
        let stranger = Stranger::listen();
        let body = json!({ "name": "honest", "kind": "file", "url": stranger.url });
        assert_eq!(toolyard.api("POST", "/catalog/sources").json(body).send().status, 201);
        let took = wait_until(Duration::from_secs(10), "the honest source is synced", || {
            let sources = toolyard.api("GET", "/catalog/sources").send().ok();
            let items = sources["items"].as_array().cloned().unwrap_or_default();
            items.iter().any(|source| source["name"] == "honest" && source["sync_state"] == "done")
        });
        Row::of("catalog", format!("three sources that never answer, before an honest one ({engine:?})"))
            .expected("the honest one is synced within 10 s")
            .got(format!("{took:.1?}"));
    });
}
