//! Servers in containers of a real engine, with a real registry beside it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value as Json, json};
use toolyard_dtma::Shutdown;
use toolyard_types::InstanceId;
use toolyard_types::agent::{DesiredInstance, Era};
use toolyard_types::spec::{Egress, Package, Runtime};
use toolyard_types::state::{Phase, Reason};

use crate::world::{World, docker_command, fixture_runtime, instance, package, until, with_secret};

/// What the engine's own command line says.
pub(crate) fn docker(arguments: &[&str]) -> String {
    let output = docker_command().args(arguments).output().expect("docker");
    assert!(output.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

/// All that is left of an instance in the engine.
pub(crate) fn containers_of(id: InstanceId) -> String {
    docker(&["ps", "--all", "--quiet", "--no-trunc", "--filter", &format!("label=dev.toolyard.instance={id}")])
}

pub(crate) fn inspect(id: InstanceId) -> Json {
    let inspected = docker(&["inspect", &containers_of(id)]);
    serde_json::from_str::<Json>(&inspected).expect("JSON")[0].take()
}

/// A registry with one image: a server made of a shell.
pub(crate) struct Registry {
    process: std::process::Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        for tag in ["1.0", "2.0"] {
            let name = format!("127.0.0.1:{}/shell:{tag}", self.port);
            let _ = docker_command().args(["rmi", "--force", &name]).output();
        }
    }
}

pub(crate) const SHELL_SERVER: &str = r#"#!/bin/sh
echo "shell server as $(id -u)" >&2
answer() { echo '{"jsonrpc":"2.0","id":'"$id"',"result":'"$1"'}'; }
while IFS= read -r line; do
  id=$(echo "$line" | sed -n 's/.*"id": *\([^,}]*\).*/\1/p')
  case $line in
    *'"initialize"'*) answer '{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"shell","version":"1"}}' ;;
    *'"tools/list"'*) answer '{"tools":[{"name":"say","inputSchema":{"type":"object"}}]}' ;;
    *'"tools/call"'*) answer '{"content":[{"type":"text","text":"'"$GREETING $*"'"}]}' ;;
    *'"ping"'*) answer '{}' ;;
    *'"id"'*) echo '{"jsonrpc":"2.0","id":'"$id"',"error":{"code":-32601,"message":"no such method"}}' ;;
  esac
done
"#;

impl Registry {
    fn start(private: bool) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
        let config = dir.path().join("config.yml");
        let data = dir.path().join("data").display().to_string();
        let users = dir.path().join("users").display().to_string();
        std::fs::write(&users, "toolyard:$2b$04$fn2qpdphOgmHG/0iYrkQuO8MYJ5GbyQl5MdgwbZ4x5L0aJzSgh7bG\n")
            .expect("written");
        let auth = match private {
            true => format!("auth: {{htpasswd: {{realm: test, path: {users}}}}}\n"),
            false => String::new(),
        };
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {data}}}}}\nhttp: {{addr: 127.0.0.1:{port}}}\n{auth}"
        );
        std::fs::write(&config, text).expect("written");
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry: on Debian, apt-get install docker-registry");
        let registry = Self { process, port, dir };
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(std::time::Instant::now() < deadline, "the registry did not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    /// A registry that wants to know who asks: `toolyard`, with the password `pull-me`.
    fn private() -> Self {
        Self::start(true)
    }

    /// A registry that has the image at `shell:1.0`.
    pub(crate) fn with_image() -> Self {
        let registry = Self::start(false);
        registry.push("1.0", SHELL_SERVER);
        registry
    }

    fn name(&self) -> String {
        format!("127.0.0.1:{}/shell", self.port)
    }

    /// Pushes an image and forgets it here; its digest.
    fn push(&self, tag: &str, script: &str) -> String {
        self.push_as(tag, script, None)
    }

    /// [`Self::push`], of an image that is made for a user.
    pub(crate) fn push_as(&self, tag: &str, script: &str, user: Option<&str>) -> String {
        self.push_with(tag, script, user, "")
    }

    /// [`Self::push_as`], of an image with more groups.
    fn push_with(&self, tag: &str, script: &str, user: Option<&str>, groups: &str) -> String {
        let root = tempfile::tempdir_in(self.dir.path()).expect("a directory");
        let root = root.path();
        std::fs::create_dir_all(root.join("bin")).expect("a directory");
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
        std::fs::copy(busybox.expect("busybox-static"), root.join("bin/busybox")).expect("busybox");
        for tool in ["sh", "sed", "id"] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(tool)).expect("a link");
        }
        std::fs::write(root.join("server"), script).expect("written");
        std::fs::create_dir(root.join("etc")).expect("a directory");
        let users = "root:x:0:0::/:/bin/sh\ntoor:x:0:1000::/:/bin/sh\napp:x:4321:4321::/:/bin/sh\n\
                     op:x:4322:0::/:/bin/sh\n";
        std::fs::write(root.join("etc/passwd"), users).expect("written");
        let groups = format!("root:x:0:app\nwheel:x:0:app\n{groups}");
        std::fs::write(root.join("etc/group"), groups).expect("written");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(root.join("server"), mode).expect("executable");
        let tar = self.dir.path().join(format!("{tag}.tar"));
        let packed = Command::new("tar").arg("-C").arg(root).arg("-cf").arg(&tar).arg(".").status().expect("tar");
        assert!(packed.success());
        let name = format!("{}:{tag}", self.name());
        docker(&[
            "import",
            "-c",
            "ENTRYPOINT [\"/server\"]",
            "-c",
            "CMD [\"by\",\"default\"]",
            "-c",
            "ENV PATH=/bin",
            "-c",
            &format!("USER {}", user.unwrap_or("0")),
            &tar.display().to_string(),
            &name,
        ]);
        docker(&["push", "--quiet", &name]);
        let digest = docker(&["inspect", "--format", "{{index .RepoDigests 0}}", &name]);
        docker(&["rmi", &name]);
        digest
    }

    pub(crate) fn runtime(&self, version: &str) -> Runtime {
        Runtime::Oci(Package { version: version.into(), ..package(&self.name()) })
    }
}

pub(crate) fn desire(world: &World, desired: DesiredInstance) -> InstanceId {
    let id = desired.id;
    world.desire(|all| all.instances.push(desired));
    id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_npm_server_is_installed_in_the_image_that_runs_it_called_and_gone_without_a_trace() {
    let world = World::docker().await;
    assert_eq!(world.report().engine, "docker");
    assert!(world.report().runtimes.contains_key("node"), "{:?}", world.report().runtimes);
    let id = world.deploy(&["ok"]).await;
    let ready = world.phase(id, Phase::Ready).await;
    assert!(ready.container_id.as_deref().is_some_and(|id| id.len() == 64), "{:?}", ready.container_id);
    let mcp = ready.mcp.expect("it answered");
    assert_eq!((mcp.era, mcp.server_name.as_str()), (Era::Legacy, "toolyard-fixture"));
    assert_eq!(world.call(id, "echo", json!({ "message": "hi" })).await, "hi");
    world.logged(id, "Stderr fixture ok starts").await;
    until("its use is measured", || {
        world
            .slot_usage(id)
            .is_some_and(|usage| usage.memory_bytes > 1 << 20 && usage.cpu_ms > 0 && usage.processes > 0)
    })
    .await;
    let network = inspect(id)["HostConfig"]["NetworkMode"].as_str().expect("a network").to_owned();
    assert!(network.starts_with("toolyard-"), "{network}");
    world.undesire(id);
    let stopped = world.phase(id, Phase::Stopped).await;
    assert!(stopped.exit.is_some());
    world.gone(id).await;
    assert_eq!(containers_of(id), "");
    let networks = || docker(&["network", "ls", "--format", "{{.Name}}"]);
    until("its network is gone", || !networks().lines().any(|name| name == network)).await;
    let agent = std::fs::read_to_string(world.data_dir().join("agent.id")).expect("an id");
    let volumes = docker(&["volume", "ls", "--quiet", "--filter", &format!("label=dev.toolyard.agent={agent}")]);
    assert_eq!(volumes, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_package_is_installed_in_an_image_whole_and_without_the_rights_that_its_archive_asks_for() {
    let world = World::docker_with(vec![crate::packages::set_id()]).await;
    crate::packages::is_installed_whole_and_without_rights(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_pypi_server_is_installed_in_the_image_that_runs_it() {
    let world = World::docker().await;
    let runtime = Runtime::Pypi(package("mcp-server-time"));
    let lock = world.resolve(runtime.clone()).await.expect("a lock");
    let id = desire(&world, instance(runtime, lock));
    world.phase(id, Phase::Ready).await;
    let answer = world.call(id, "get_current_time", json!({ "timezone": "Europe/Berlin" })).await;
    assert!(answer.contains("Europe/Berlin"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_is_kept_from_everything_and_its_configuration_knows_no_secret() {
    let world = World::docker().await;
    let secret = "s3cret of\nseveral \\ lines";
    let id = world.deploy_with(&["ok"], |instance| with_secret(instance, "API_KEY", secret)).await;
    world.phase(id, Phase::Ready).await;
    let said = world.call(id, "env", json!({ "name": "API_KEY" })).await;
    assert!(said.contains("s3cret of"), "{said}");
    let inspected = inspect(id);
    assert!(!inspected.to_string().contains("s3cret"), "{inspected}");
    let agents = std::fs::read_to_string(world.data_dir().join("agent.id")).expect("an id");
    assert_eq!(inspected["Config"]["Labels"]["dev.toolyard.agent"], agents.as_str());
    let host = &inspected["HostConfig"];
    assert_eq!(host["ReadonlyRootfs"], true);
    assert_eq!(host["CapDrop"], json!(["ALL"]));
    assert_eq!(host["SecurityOpt"], json!(["no-new-privileges"]));
    assert_eq!((&host["Memory"], &host["MemorySwap"]), (&json!(1 << 30), &json!(1 << 30)));
    assert_eq!(host["PidsLimit"], 257);
    assert_eq!(host["LogConfig"]["Type"], "none");
    assert!(!inspected["Config"]["User"].as_str().expect("a user").starts_with('0'));
    let pid = world.observed("it runs", id, |instance| instance.pid.is_some()).await.pid.expect("a pid");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    assert!(status.contains("CapEff:\t0000000000000000") && status.contains("NoNewPrivs:\t1"), "{status}");
    assert!(status.contains("Seccomp:\t2"), "{status}");
    let wrote = world.call(id, "write_file", json!({ "path": "/usr/bin/x", "content": "x" })).await;
    assert!(wrote.contains("EROFS"), "{wrote}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_hangs_for_good_is_ended_and_started_again() {
    let mut world = World::docker().await;
    world.restart_agent_that_waits(Duration::from_secs(2)).await;
    let id = world.deploy(&["ok"]).await;
    world.phase(id, Phase::Ready).await;
    assert_eq!(world.call(id, "hang", json!({})).await, "hangs");
    let again = world.observed("ready again", id, |i| i.status.phase == Phase::Ready && i.restarts == 1).await;
    let failure = again.exit.and_then(|exit| exit.failure).expect("why it was ended");
    assert_eq!(failure.reason, Reason::ProbeFailed);
    world.logged(id, "Toolyard it stopped answering").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_eats_memory_is_killed_and_said_to_have() {
    let world = World::docker().await;
    let id = world.deploy_with(&["ok"], |instance| instance.spec.limits.memory_bytes = 200 << 20).await;
    world.phase(id, Phase::Ready).await;
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "eat_memory", "arguments": { "bytes": 1_u64 << 30 } } });
    assert!(world.send(id, message).await.is_err());
    let killed = world.observed("out of memory", id, |i| i.status.reason == Reason::OutOfMemory).await;
    assert_eq!(killed.exit.expect("its exit").signal, Some(9));
    world.observed("ready again", id, |i| i.status.phase == Phase::Ready && i.restarts == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_is_seen_and_one_that_exits_at_once_is_a_crash_loop_with_its_last_words() {
    let world = World::docker().await;
    let id = world.deploy(&["ok"]).await;
    let first = world.phase(id, Phase::Ready).await.pid;
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "crash", "arguments": { "code": 7 } } });
    assert!(world.send(id, message).await.is_err());
    let crashed = world.phase(id, Phase::Degraded).await;
    assert_eq!((crashed.status.reason, crashed.exit.expect("its exit").code), (Reason::Exited, Some(7)));
    world.observed("ready again", id, |i| i.status.phase == Phase::Ready && i.pid != first).await;
    let looping = world.deploy(&["long-last-words"]).await;
    let failed = world.phase(looping, Phase::Failed).await;
    assert_eq!(failed.status.reason, Reason::CrashLoop);
    let exit = failed.exit.expect("its exit");
    assert_eq!(exit.code, Some(4));
    assert!(exit.stderr_tail.ends_with("the very last word\n"), "{}", exit.stderr_tail);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_discover_ends_is_started_again_and_asked_initialize() {
    let world = World::docker().await;
    let id = world.deploy(&["initialize-only"]).await;
    let ready = world.phase(id, Phase::Ready).await;
    assert_eq!((ready.restarts, ready.exit), (0, None), "it has not failed");
    assert_eq!(world.call(id, "first_method", json!({})).await, "initialize");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_agent_goes_on_with_the_same_container() {
    let mut world = World::docker().await;
    // It would end of anything that is no message.
    let id = world.deploy(&["strict"]).await;
    let before = world.phase(id, Phase::Ready).await;
    let container = containers_of(id);
    world.drop_agent();
    world.start_agent().await;
    let after = world.observed("taken over", id, |instance| instance.status.phase == Phase::Ready).await;
    assert_eq!((after.pid, after.ready_since), (before.pid, before.ready_since));
    assert_eq!(world.call(id, "echo", json!({ "message": "again" })).await, "again");
    assert_eq!(containers_of(id), container);
    world.agent().shutdown(Shutdown::Leave).await;
    docker(&["kill", &container]);
    world.start_agent().await;
    let again = world.observed("ready again", id, |i| i.status.phase == Phase::Ready && i.pid != before.pid).await;
    assert_ne!(containers_of(id), container);
    assert_eq!(again.restarts, 1, "what ended while no agent was there is an exit like any other");
    let agent =
        format!("label=dev.toolyard.agent={}", std::fs::read_to_string(world.data_dir().join("agent.id")).unwrap());
    world.agent().shutdown(Shutdown::StopAll).await;
    assert_eq!(containers_of(id), "");
    assert_eq!(docker(&["network", "ls", "--quiet", "--filter", &agent]), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_of_instances_that_are_not_known_any_more_are_removed() {
    let mut world = World::docker().await;
    let id = world.deploy(&["ok"]).await;
    world.phase(id, Phase::Ready).await;
    world.drop_agent();
    std::fs::remove_dir_all(world.instance_dir(id)).expect("it was there");
    world.undesire(id);
    world.start_agent().await;
    // Something else comes and goes, after which garbage is collected.
    let other = world.deploy(&["modern"]).await;
    world.phase(other, Phase::Ready).await;
    world.undesire(other);
    world.gone(other).await;
    until("its container is gone", || containers_of(id).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_is_pinned_to_its_digest_and_removed_when_nothing_needs_it() {
    let registry = Registry::with_image();
    let world = World::docker().await;
    let lock = world.resolve(registry.runtime("1.0")).await.expect("a lock");
    let content: Json = serde_json::from_str(&lock.content).expect("JSON");
    let pinned = content["image"].as_str().expect("an image").to_owned();
    assert!(pinned.starts_with(&format!("{}@sha256:", registry.name())), "{pinned}");
    // The tag moves on; the revision does not.
    let moved = registry.push("1.0", &SHELL_SERVER.replace("$GREETING", "other"));
    assert_ne!(moved, pinned);
    let mut desired = instance(registry.runtime("1.0"), lock.clone());
    let Runtime::Oci(package) = &mut desired.spec.runtime else { panic!("an image") };
    package.environment.insert("GREETING".into(), toolyard_types::spec::Value::text("hello"));
    let id = desire(&world, desired);
    world.phase(id, Phase::Ready).await;
    assert_eq!(world.call(id, "say", json!({})).await, "hello by default");
    assert!(!world.log_text(id).await.contains("shell server as 0"));
    world.undesire(id);
    world.gone(id).await;
    let images = || docker(&["images", "--digests", "--format", "{{.Repository}}@{{.Digest}}"]);
    until("the image is gone", || !images().contains(&pinned)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_runs_as_root_or_in_its_group_by_whatever_name_its_image_calls_them() {
    let registry = Registry::with_image();
    let world = World::docker().await;
    let deploy = async |tag: &str, user: &str| {
        registry.push_as(tag, SHELL_SERVER, Some(user));
        let lock = world.resolve(registry.runtime(tag)).await.expect("a lock");
        let mut desired = instance(registry.runtime(tag), lock);
        let Runtime::Oci(package) = &mut desired.spec.runtime else { panic!("an image") };
        package.environment.insert("GREETING".into(), toolyard_types::spec::Value::text("hello"));
        desire(&world, desired)
    };
    let cases = [
        ("toor", None),
        ("toor:1234", None),
        ("op", None),
        ("1234:wheel", None),
        ("app", Some("4321")),
        ("5555", Some("5555")),
    ];
    for (number, (user, own)) in cases.into_iter().enumerate() {
        let id = deploy(&format!("3.{number}"), user).await;
        world.phase(id, Phase::Ready).await;
        let pid = world.observed("it runs", id, |instance| instance.pid.is_some()).await.pid.expect("a pid");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let ids = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
            line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        let all = [ids("Uid:"), ids("Gid:"), ids("Groups:")].concat();
        assert!(!all.is_empty() && !all.iter().any(|id| id == "0"), "{user}: {all:?}");
        assert!(own.is_none_or(|own| ids("Uid:").iter().all(|id| id == own)), "{user}: {all:?}");
        world.undesire(id);
        world.gone(id).await;
    }
    for (tag, user) in [("4.0", "nobody-here"), ("4.1", "4294967295")] {
        let id = deploy(tag, user).await;
        let failed = world.phase(id, Phase::Failed).await;
        assert_eq!(failed.status.reason, Reason::ConfigInvalid, "{user}: {}", failed.status.message);
        assert_eq!(failed.status.next_attempt_at, None, "{user}");
        assert!(failed.status.message.contains(user), "{}", failed.status.message);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_gives_its_user_no_group_by_a_name_that_is_a_number() {
    let registry = Registry::start(false);
    let world = World::docker().await;
    registry.push_with("5.0", SHELL_SERVER, Some("4321:77"), "77:x:0:\n");
    let lock = world.resolve(registry.runtime("5.0")).await.expect("a lock");
    let id = desire(&world, instance(registry.runtime("5.0"), lock));
    let failed = world.phase(id, Phase::Failed).await;
    assert_eq!(failed.status.reason, Reason::ConfigInvalid, "{}", failed.status.message);
    assert!(failed.status.message.contains("`77`"), "{}", failed.status.message);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_may_write_to_its_home_and_to_the_directory_for_temporary_files() {
    let world = World::docker().await;
    let lock = world.resolve(fixture_runtime(&["ok"])).await.expect("a lock");
    let id = desire(&world, instance(fixture_runtime(&["ok"]), lock));
    world.phase(id, Phase::Ready).await;
    for path in ["/home/server/kept", "/tmp/kept"] {
        world.call(id, "write_file", json!({ "path": path, "content": "it is" })).await;
        assert_eq!(world.call(id, "read_file", json!({ "path": path })).await, "it is");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_reaches_a_strangers_image_and_not_its_configuration() {
    let registry = Registry::with_image();
    let world = World::docker().await;
    let lock = world.resolve(registry.runtime("")).await;
    assert_eq!(lock.expect_err("there is no `latest`").reason, Reason::ImageNotFound);
    let lock = world.resolve(registry.runtime("1.0")).await.expect("a lock");
    let mut desired = instance(registry.runtime("1.0"), lock);
    let credential = toolyard_types::CredentialId::generate();
    desired.secrets.insert(credential, toolyard_types::Secret::new("hidden-greeting"));
    let Runtime::Oci(package) = &mut desired.spec.runtime else { panic!("an image") };
    package.environment.insert("GREETING".into(), toolyard_types::spec::Value::credential(credential));
    package.arguments = vec![toolyard_types::spec::Value::text("to you")];
    let id = desire(&world, desired);
    world.phase(id, Phase::Ready).await;
    assert_eq!(world.call(id, "say", json!({})).await, "hidden-greeting to you");
    assert!(!inspect(id).to_string().contains("hidden-greeting"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_pulled_is_said_so() {
    let registry = Registry::start(false);
    let world = World::docker().await;
    let missing = world.resolve(registry.runtime("9.9")).await.expect_err("no such image");
    assert_eq!(missing.reason, Reason::ImageNotFound, "{}", missing.message);
    let invalid = Runtime::Oci(package("not an image"));
    assert_eq!(world.resolve(invalid).await.expect_err("no image").reason, Reason::ConfigInvalid);
    let private = Registry::private();
    let refused = world.resolve(private.runtime("1.0")).await.expect_err("not for us");
    assert_eq!(refused.reason, Reason::ImageNotFound, "{}", refused.message);
    assert!(refused.message.contains("does not let us pull"), "{}", refused.message);
    let credential = toolyard_types::CredentialId::generate();
    let secrets = |text: &str| std::collections::BTreeMap::from([(credential, toolyard_types::Secret::new(text))]);
    let known = Runtime::Oci(Package {
        registry: Some(toolyard_types::spec::Value::credential(credential)),
        version: "1.0".into(),
        ..package(&private.name())
    });
    let wrong = world.resolve_with(known.clone(), secrets("toolyard:wrong")).await.expect_err("not the password");
    assert!(wrong.message.contains("does not let us pull"), "{}", wrong.message);
    let let_in = world.resolve_with(known, secrets("toolyard:pull-me")).await.expect_err("there is nothing yet");
    assert!(let_in.message.contains("there is no image"), "{}", let_in.message);
}

/// A server that opens a connection when it is told to: straight, or through the proxy it was given.
const DIALLER: &str = r#"
const net = require("node:net"), http = require("node:http"), rl = require("node:readline");
const text = (id, value) => console.log(JSON.stringify({ jsonrpc: "2.0", id, result: { content: [{ type: "text", text: String(value) }] } }));
rl.createInterface({ input: process.stdin }).on("line", (line) => {
  if (line === "") return;
  const { id, method, params } = JSON.parse(line);
  const answer = (result) => console.log(JSON.stringify({ jsonrpc: "2.0", id, result }));
  if (method === "initialize") return answer({ protocolVersion: "2025-06-18", capabilities: { tools: {} }, serverInfo: { name: "dialler", version: "1" } });
  if (method === "tools/list") return answer({ tools: ["straight", "proxied", "resolve"].map((name) => ({ name, inputSchema: { type: "object" } })) });
  if (method === "ping") return answer({});
  if (method !== "tools/call") return id === undefined ? undefined : console.log(JSON.stringify({ jsonrpc: "2.0", id, error: { code: -32601, message: "no" } }));
  const { host, port } = params.arguments;
  if (params.name === "resolve") return require("node:dns").lookup(host, (error, found) => text(id, error ? error.code : found));
  if (params.name === "straight") {
    const socket = net.connect({ host, port, timeout: 3000 }, () => { socket.destroy(); text(id, "connected"); });
    socket.on("error", (error) => text(id, error.code)).on("timeout", () => { socket.destroy(); text(id, "timeout"); });
    return;
  }
  // Node.js itself honours the proxy it was given.
  http.get({ host, port, path: "/" }, (response) => { response.resume(); text(id, response.statusCode); })
    .on("error", (error) => text(id, error.code));
});
"#;

fn dialler() -> toolyard_testkit::npm_registry::NpmPackage {
    let manifest = json!({ "name": "dialler", "version": "1.0.0", "bin": "server.js" });
    toolyard_testkit::npm_registry::NpmPackage {
        name: "dialler".into(),
        version: "1.0.0".into(),
        files: vec![
            ("package.json".into(), manifest.to_string().into_bytes()),
            ("server.js".into(), format!("#!/usr/bin/env node\n{DIALLER}").into_bytes()),
        ],
    }
}

/// An HTTP server on every address of this host.
pub(crate) async fn origin() -> u16 {
    let app = axum::Router::new().route("/", axum::routing::get(|| async { "hello" }));
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move { axum::serve(listener, app).await });
    port
}

/// The bridge's address on this host: what a container on a network reaches.
pub(crate) fn gateway() -> String {
    docker(&["network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_reaches_all_none_or_only_the_hosts_listed() {
    let mut world = World::docker_with(vec![dialler()]).await;
    let (port, other) = (origin().await, origin().await);
    let runtime = Runtime::Npm(package("dialler"));
    let lock = world.resolve(runtime.clone()).await.expect("a lock");
    let deploy = |egress: Egress| {
        let mut desired = instance(runtime.clone(), lock.clone());
        desired.spec.egress = egress;
        desire(&world, desired)
    };
    let hosts = vec![format!("localhost:{port}"), "*.example.invalid".to_owned()];
    let (all, none, listed) = (deploy(Egress::All), deploy(Egress::None), deploy(Egress::Hosts { hosts }));
    for id in [all, none, listed] {
        world.phase(id, Phase::Ready).await;
    }
    let gateway = gateway();
    let at = |host: &str, port: u16| json!({ "host": host, "port": port });
    assert_eq!(world.call(all, "straight", at(&gateway, port)).await, "connected");
    for id in [none, listed] {
        let straight = world.call(id, "straight", at(&gateway, port)).await;
        assert_eq!(straight, "ENETUNREACH");
        let named = world.call(id, "resolve", at("example.com", 0)).await;
        assert!(matches!(named.as_str(), "EAI_AGAIN" | "ENOTFOUND"), "{named}");
    }
    assert_eq!(world.call(none, "proxied", at("localhost", port)).await, "ECONNREFUSED");
    assert_eq!(world.call(listed, "proxied", at("localhost", port)).await, "200");
    assert_eq!(world.call(listed, "proxied", at("localhost", other)).await, "403");
    assert_eq!(world.call(listed, "proxied", at("127.0.0.1", port)).await, "403");
    assert_eq!(world.call(listed, "proxied", at("sub.example.invalid", 80)).await, "502");
    // The next agent opens the proxy again, and nobody else may stand in for it meanwhile.
    world.drop_agent();
    world.start_agent().await;
    world.observed("taken over", listed, |instance| instance.status.phase == Phase::Ready).await;
    assert_eq!(world.call(listed, "proxied", at("localhost", port)).await, "200");
    assert_eq!(world.call(listed, "proxied", at("localhost", other)).await, "403");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_refuse_what_they_cannot_enforce() {
    let world = World::new().await;
    let hosts = Egress::Hosts { hosts: vec!["api.example.test".into()] };
    let id = world.deploy_with(&["ok"], |instance| instance.spec.egress = hosts.clone()).await;
    let failed = world.phase(id, Phase::Failed).await;
    assert_eq!(failed.status.reason, Reason::UnsupportedByEngine);
}
