//! Production on a host that gives servers neither users nor namespaces of their own.

use std::process::Command;

use toolyard_test_support::{Engine, Row, Toolyard};

/// A plain user who can make no namespaces.
const NOTHING: &str =
    "echo 0 > /proc/sys/user/max_user_namespaces; exec setpriv --ambient-caps=-all --inh-caps=-all \"$@\"";

#[test]
fn neither_toolyard_nor_an_agent_runs_servers_that_nothing_keeps_apart_in_production() {
    let toolyard = Toolyard::on(Engine::Sqlite).without_toolbox().start();
    let enrolled = toolyard.json(&["toolboxes", "enroll", "edge"]);
    let token = enrolled["token"].as_str().expect("a token");
    let data = |name: &str| toolyard.dir().join(name);
    let run = |name: &str, args: &[&str]| {
        let dir = data(name);
        std::fs::create_dir(&dir).expect("a directory");
        let mut command = Command::new("timeout");
        command
            .args(["60", "unshare", "-U", "--map-user=1000", "--keep-caps", "sh", "-c", NOTHING, "sh"])
            .arg(toolyard.command().get_program())
            .args(args)
            .arg("--data-dir")
            .arg(&dir)
            .args(["--set", "operations_listen="])
            .env("TOOLYARD_ENV", "production")
            .env("TOOLYARD_PUBLIC_URL", "https://toolyard.example.test");
        let output = command.output().expect("unshare and setpriv of util-linux");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Row::of("isolation", format!("`toolyard {}` in production where nothing keeps servers apart", args[0]))
            .expected("refused: `require_isolation`, exit code 78")
            .got(format!("exit code {:?}", output.status.code()));
        assert!(said.contains("setting `require_isolation`"), "{said}");
        assert_eq!(output.status.code(), Some(78), "{said}");
    };
    run("agent", &["dtma", "--token", token]);
    run("serve", &["serve", "--listen", "127.0.0.1:0", "--agent-listen", "127.0.0.1:0"]);
}
