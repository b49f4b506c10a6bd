//! Paths of the host: what a deployer asks for, what an entry grants itself, and what a container is given.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};
use toolyard_test_support::{Engine, Row, Toolyard, User, each_engine, wait_until};

/// Reads and writes whatever it is asked to, and says what happened.
const FILES: &str = r#"
const fs = require('fs')
const send = (id, result) => process.stdout.write(JSON.stringify({ jsonrpc: '2.0', id, result }) + '\n')
const tools = {
  read: ({ path }) => fs.readFileSync(path, 'utf8').slice(0, 200),
  write: ({ path }) => (fs.writeFileSync(path, 'written'), 'written'),
}
require('readline').createInterface({ input: process.stdin }).on('line', (line) => {
  const { id, method, params } = JSON.parse(line)
  if (id === undefined) return
  if (method === 'initialize')
    return send(id, { protocolVersion: '2025-06-18', capabilities: { tools: {} }, serverInfo: { name: 'files', version: '1' } })
  if (method === 'tools/list')
    return send(id, { tools: Object.keys(tools).map((name) => ({ name, inputSchema: { type: 'object' } })) })
  if (method === 'tools/call') {
    let text
    try { text = tools[params.name](params.arguments) } catch (error) { text = String(error.code) }
    return send(id, { content: [{ type: 'text', text }] })
  }
  process.stdout.write(JSON.stringify({ jsonrpc: '2.0', id, error: { code: -32601, message: method } }) + '\n')
})
"#;

fn path(path: impl AsRef<Path>) -> String {
    path.as_ref().display().to_string()
}

/// A directory that is mounted a second time, until this is dropped.
struct MountedAgain(PathBuf);

impl MountedAgain {
    /// None, and says so, where only root may and we are not.
    fn at(directory: &Path, at: PathBuf) -> Option<Self> {
        std::fs::create_dir_all(&at).expect("made");
        match mount(Some(directory), &at, None::<&str>, MsFlags::MS_BIND, None::<&str>) {
            Ok(()) => Some(Self(at)),
            Err(error) => {
                assert!(!nix::unistd::Uid::effective().is_root(), "root mounts a directory again: {error}");
                eprintln!("not tested: `{}` cannot be mounted again: {error}", directory.display());
                None
            }
        }
    }
}

impl Drop for MountedAgain {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// Deploys with these paths; what the server's rollout came to.
fn deploy(toolyard: &Toolyard, name: &str, paths: Value) -> Value {
    let body = json!({ "name": name, "entry": "com.example/files", "paths": paths });
    let _ = toolyard.api("POST", "/servers").json(body).send().ok();
    toolyard.wait_server(name, "its rollout is over", |server| server["rollout"]["state"] != "progressing")
}

/// Attacks of somebody who may grant paths, against a host that says which there are.
fn attacks(engine: Engine, user: User) {
    let mut toolyard = Toolyard::on(engine).user(user).script("files", FILES).start();
    let shared = toolyard.dir().join("shared");
    for dir in [&shared, &toolyard.dir().join(".hidden")] {
        std::fs::create_dir(dir).expect("made");
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o777)).expect("opened");
    }
    symlink(toolyard.data_dir(), shared.join("way")).expect("linked");
    wait_until(Duration::from_secs(60), "the toolbox has started", || {
        toolyard.data_dir().join("toolbox/host.key").exists()
    });
    // Names that only the host's owner can make.
    let names = toolyard.dir().join("names");
    std::fs::create_dir_all(names.join("linked")).expect("made");
    std::fs::hard_link(toolyard.data_dir().join("vault.key"), names.join("linked/key")).expect("linked");
    let again = [
        MountedAgain::at(toolyard.data_dir(), names.join("mounted/data")),
        MountedAgain::at(&toolyard.data_dir().join("toolbox"), names.join("mounted/toolbox")),
        MountedAgain::at(toolyard.dir(), names.join("above")),
    ];
    let _socket = std::os::unix::net::UnixListener::bind(shared.join("socket")).expect("bound");
    let open = toolyard.dir().join("sockets/open");
    std::fs::create_dir_all(&open).expect("made");
    let _open_socket = std::os::unix::net::UnixListener::bind(open.join("socket")).expect("bound");
    std::fs::set_permissions(open.join("socket"), std::fs::Permissions::from_mode(0o777)).expect("opened");
    let (passwd, group) = (std::fs::read("/etc/passwd").expect("read"), std::fs::read("/etc/group").expect("read"));
    let attacks = [
        ("/etc, writable", "/etc".to_owned()),
        ("the root directory", "/".to_owned()),
        ("/proc", "/proc".to_owned()),
        ("the engine's socket", "/run".to_owned()),
        ("the vault key", path(toolyard.data_dir().join("vault.key"))),
        ("what holds the data directory", path(toolyard.dir())),
        ("a link to the data directory", path(shared.join("way"))),
        ("a socket", path(shared.join("socket"))),
        ("a directory with a socket that everybody may use below it", path(toolyard.dir().join("sockets"))),
        ("a dot file of the home directory", path(toolyard.dir().join(".hidden"))),
        ("what is not listed", "/usr/share".to_owned()),
    ];
    let by_other_names = [
        ("a hard link of the vault key", "linked/key"),
        ("a directory with a hard link of the vault key", "linked"),
        ("a second mount of the data directory", "mounted/data"),
        ("the vault key in a second mount of the data directory", "mounted/data/vault.key"),
        ("the store in a second mount of the data directory", "mounted/data/toolyard.db"),
        ("the toolbox in a second mount of the data directory", "mounted/data/toolbox"),
        ("a second mount of the toolbox", "mounted/toolbox"),
        ("a directory with a second mount of the data directory below it", "mounted"),
        ("a second mount of what holds the data directory", "above"),
        ("the vault key in a second mount of what holds the data directory", "above/data/vault.key"),
    ];
    for (number, (what, name)) in by_other_names.into_iter().enumerate() {
        // Some are not there: the store is in Postgres, or nothing can be mounted.
        let target = names.join(name);
        if !target.exists() || (!name.starts_with("linked") && again.iter().any(Option::is_none)) {
            continue;
        }
        let ended = deploy(&toolyard, &format!("name-{number}"), json!([{ "path": path(&target), "writable": false }]));
        let got = format!("{}: {}", ended["rollout"]["state"], ended["rollout"]["reason"]).replace('"', "");
        Row::of("paths of the host", format!("a grant of {what} ({engine:?}, {user:?} user)"))
            .expected("failed: config_invalid")
            .got(&got);
        assert_eq!(got, "failed: config_invalid", "{what}: {ended:#}");
        let told = ended["rollout"]["message"].as_str().unwrap_or_default();
        assert!(told.contains("by another name"), "{what}: {ended:#}");
    }
    for (number, (what, target)) in attacks.iter().enumerate() {
        let name = format!("attack-{number}");
        let ended = deploy(&toolyard, &name, json!([{ "path": target, "writable": true }]));
        let got = format!("{}: {}", ended["rollout"]["state"], ended["rollout"]["reason"]).replace('"', "");
        Row::of("paths of the host", format!("a grant of {what} ({engine:?}, {user:?} user)"))
            .expected("failed: config_invalid")
            .got(&got);
        assert_eq!(got, "failed: config_invalid", "{what}: {ended:#}");
    }
    assert_eq!(std::fs::read("/etc/passwd").expect("read"), passwd);
    assert_eq!(std::fs::read("/etc/group").expect("read"), group);
    Row::of("paths of the host", format!("the host's accounts after that ({engine:?}, {user:?} user)"))
        .expected("as they were")
        .got("as they were");

    // What is listed works: the walls are not just closed.
    let ended = deploy(&toolyard, "good", json!([{ "path": path(&shared), "writable": true }]));
    assert_eq!(ended["rollout"]["state"], "done", "{ended:#}");
    let file = path(shared.join("note"));
    let mut got = String::new();
    wait_until(Duration::from_secs(20), "the gateway knows the server", || {
        toolyard.call("good", "write", json!({ "path": file })).map(|text| got = text).is_ok()
    });
    assert_eq!(got, "written");
    let key = toolyard.call("good", "read", json!({ "path": toolyard.data_dir().join("vault.key") }));
    assert!(matches!(key.as_deref(), Ok("ENOENT" | "EACCES")), "{key:?}");
    toolyard.stop_by("TERM");
}

#[test]
fn nobody_gets_a_path_that_the_host_does_not_list_from_a_toolbox_that_runs_as_root() {
    each_engine(|engine| attacks(engine, User::Own));
}

#[test]
fn nobody_gets_a_path_that_the_host_does_not_list_from_a_toolbox_of_a_plain_user() {
    attacks(Engine::Sqlite, User::Plain);
}

#[test]
fn who_deploys_grants_nothing_and_an_entry_grants_itself_nothing() {
    each_engine(|engine| {
        let toolyard = Toolyard::on(engine).without_toolbox().script("files", FILES).start();
        let developer = toolyard.make_key("developer", "developer");
        let body =
            json!({ "name": "one", "entry": "com.example/files", "paths": [{ "path": "/srv", "writable": true }] });
        let status = toolyard.request("POST", "/api/v1/servers").key(&developer).json(body).send().status;
        Row::of("paths of the host", format!("a developer's grant ({engine:?})")).expected(403).got(status);
        assert_eq!(status, 403);

        let data_dir = path(toolyard.data_dir());
        let input = |required: bool| json!({ "name": "DIR", "format": "filepath", "default": data_dir, "isRequired": required });
        let mut entry = json!({ "name": "com.example/greedy", "description": "x", "version": "1.0.0", "packages": [{
            "registryType": "npm", "identifier": "files", "version": "1.0.0", "transport": { "type": "stdio" },
            "environmentVariables": [input(false)] }] });
        toolyard.publish(&entry);
        let body = |name: &str| json!({ "name": name, "entry": "com.example/greedy", "start": false });
        let _ = toolyard.api("POST", "/servers").json(body("optional")).send().ok();
        let revisions = toolyard.api("GET", "/servers/optional/revisions").send().ok();
        let granted = &revisions["items"][0]["spec"]["paths"];
        Row::of("paths of the host", format!("an entry whose default is the data directory ({engine:?})"))
            .expected("[]")
            .got(granted);
        assert_eq!(*granted, json!([]));
        entry["version"] = json!("1.0.1");
        entry["packages"][0]["environmentVariables"] = json!([input(true)]);
        toolyard.publish(&entry);
        let answer = toolyard.api("POST", "/servers").json(body("required")).send();
        assert_eq!(answer.status, 422, "{}", answer.text);
        assert!(answer.text.contains("the entry suggests"), "{}", answer.text);
    });
}
