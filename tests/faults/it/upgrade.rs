//! The data of an earlier version. `fixtures/make.py` made it once with 0.1.0; it is never made again.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use toolyard_test_support::{Engine, Row, Toolyard, each_engine, wait_until};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures");

fn shell(script: &str) {
    let done = Command::new("sh").args(["-ec", script]).output().expect("a shell");
    assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Unpacks a data directory of 0.1.0 into `dir`.
fn unpack(engine: Engine, dir: &Path) -> PathBuf {
    let name = if engine == Engine::Sqlite { "sqlite" } else { "postgres" };
    shell(&format!("tar -xzf {FIXTURES}/0.1.0-{name}.tar.gz -C {}", dir.display()));
    dir.join("data")
}

fn items(toolyard: &Toolyard, path: &str) -> Vec<Value> {
    toolyard.api("GET", path).send().ok()["items"].as_array().cloned().unwrap_or_default()
}

fn named(items: &[Value], name: &str) -> bool {
    items.iter().any(|item| item["name"] == name)
}

#[test]
fn the_data_of_0_1_0_starts_and_serves_on_either_database() {
    each_engine(|engine| {
        let dir = tempfile::tempdir().expect("a directory");
        // Servers run as users of their own, who must get to their files.
        shell(&format!("chmod 755 {}", dir.path().display()));
        let data = unpack(engine, dir.path());
        // Records are kept as long as they may be, however old this test has become.
        let mut toolyard = Toolyard::on(engine).data_dir(&data).setting("call_retention_days=3650").prepare();
        if let Some(url) = toolyard.database() {
            shell(&format!(
                "gzip -dc {FIXTURES}/0.1.0-postgres.sql.gz | psql -q -v ON_ERROR_STOP=1 -d '{url}' >/dev/null"
            ));
        }
        toolyard.serve();
        toolyard.wait_server("upgraded", "the server runs again", |server| server["phase"] == "ready");
        wait_until(Duration::from_secs(30), "a call is answered with the credential's value", || {
            toolyard.call("upgraded", "echo", json!({ "message": "hi" })).is_ok_and(|text| text == "hi sesame")
        });
        assert_eq!(toolyard.api("GET", "/toolsets/set").send().ok()["members"][0]["server"], "upgraded");
        assert!(named(&items(&toolyard, "/credentials"), "token"));
        let keys = items(&toolyard, "/keys");
        assert!(named(&keys, "reader") && named(&keys, "caller"), "{keys:?}");
        assert_eq!(items(&toolyard, "/servers/upgraded/revisions").len(), 1);
        let audit = items(&toolyard, "/audit?limit=200");
        assert!(audit.iter().any(|line| line["action"] == "server.create"), "{audit:?}");
        let calls = items(&toolyard, "/calls?limit=200");
        assert!(calls.len() >= 3, "the calls of then and of now: {calls:?}");
        if engine == Engine::Sqlite {
            let copies = std::fs::read_dir(data.join("backups")).expect("a backup before the migration").count();
            assert_eq!(copies, 1);
        }
        // What is changed now is there after a restart, and nothing is migrated twice.
        let _ = toolyard.api("PUT", "/credentials/new").json(json!({ "secret": "x" })).send().ok();
        toolyard.stop_by("TERM");
        toolyard.serve();
        assert!(named(&items(&toolyard, "/credentials"), "new"));
        Row::of("upgrade", format!("this version on the data of 0.1.0 ({engine:?})"))
            .expected("starts, serves, keeps everything")
            .got("as expected");
    });
}
