//! Packages are resolved, installed, verified and collected by the ordinary clients.

use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use toolyard_testkit::fixture;
use toolyard_testkit::npm_registry::{NpmPackage, NpmRegistry, SET_ID_FILE};
use toolyard_types::JobId;
use toolyard_types::agent::ResolveJob;
use toolyard_types::spec::Runtime;
use toolyard_types::state::{Phase, Reason};

use crate::world::{World, clients, fixture_runtime, instance, package, until};

/// A host whose npm and uv are set up as the developer's.
async fn online() -> World {
    let mut world = World::new().await;
    world.drop_agent();
    let mut options = world.options();
    options.clients = clients();
    world.start_agent_with(options).await;
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_npm_server_is_resolved_installed_and_answers() {
    let world = online().await;
    let runtime = Runtime::Npm(package("@modelcontextprotocol/server-everything"));
    let lock = world.resolve(runtime.clone()).await.expect("a lock");
    assert!(lock.version.split('.').count() == 3, "{}", lock.version);
    assert!(!lock.content.contains("\"resolved\""));
    let desired = instance(runtime, lock);
    let id = desired.id;
    world.desire(|all| all.instances.push(desired));
    world.phase(id, Phase::Ready).await;
    let echo = world.call(id, "echo", json!({ "message": "hi" })).await;
    assert!(echo.contains("hi"), "{echo}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_pypi_server_is_resolved_installed_and_answers() {
    let world = online().await;
    let runtime = Runtime::Pypi(package("mcp-server-time"));
    let lock = world.resolve(runtime.clone()).await.expect("a lock");
    assert!(!lock.version.is_empty() && lock.content.contains("--hash=sha256:"));
    let desired = instance(runtime, lock);
    let id = desired.id;
    world.desire(|all| all.instances.push(desired));
    world.phase(id, Phase::Ready).await;
    let time = world.call(id, "get_current_time", json!({ "timezone": "UTC" })).await;
    assert!(time.contains("UTC"), "{time}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_pypi_package_wants_beside_itself_is_resolved_and_installed_with_it() {
    let world = online().await;
    let mut wanted = package("mcp-server-time");
    wanted.with = vec!["mcp<2".into(), "six".into()];
    let runtime = Runtime::Pypi(wanted);
    let lock = world.resolve(runtime.clone()).await.expect("a lock");
    assert!(["\nmcp==1.", "\nsix=="].iter().all(|line| lock.content.contains(line)), "{}", lock.content);
    let without = world.resolve(Runtime::Pypi(package("mcp-server-time"))).await.expect("a lock");
    assert_ne!(without.digest, lock.digest);
    let desired = instance(runtime, lock);
    let id = desired.id;
    world.desire(|all| all.instances.push(desired));
    world.phase(id, Phase::Ready).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_never_answers_holds_up_nobody_else_and_who_waits_behind_it_says_so() {
    // Whoever connects waits for ever: nobody accepts.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut world = World::new().await;
    world.drop_agent();
    let mut options = world.options();
    let address = format!("http://{}/", silent.local_addr().expect("an address"));
    options.clients.environment.insert("npm_config_@silent:registry".into(), address);
    options.clients.environment.insert("npm_config_fetch_timeout".into(), "120000".into());
    world.start_agent_with(options).await;
    let jobs = (0..3).map(|number| ResolveJob {
        id: JobId::generate(),
        runtime: Runtime::Npm(package(&format!("@silent/p{number}"))),
        secrets: Default::default(),
        of: None,
    });
    world.desire(|all| all.jobs.extend(jobs));
    let waits = "waits for 2 other packages to be fetched first";
    let told = |told: &toolyard_types::agent::JobProgress| (told.message == waits).then_some(());
    world.observe("the third one waits", |observed| observed.job_progress.iter().find_map(told)).await;
    let began = Instant::now();
    let id = world.deploy(&["ok"]).await;
    world.phase(id, Phase::Ready).await;
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_packages_and_versions_are_not_found_in_either_registry() {
    let world = online().await;
    let mut wrong_version = package("@modelcontextprotocol/server-everything");
    wrong_version.version = "0.0.0-never".into();
    let mut wrong_pypi_version = package("mcp-server-time");
    wrong_pypi_version.version = "0.0.0.1".into();
    for runtime in [
        Runtime::Npm(package("toolyard-no-such-package-0b1c")),
        Runtime::Npm(wrong_version),
        Runtime::Pypi(package("toolyard-no-such-package-0b1c")),
        Runtime::Pypi(wrong_pypi_version),
    ] {
        let failure = world.resolve(runtime.clone()).await.expect_err("there is no such package");
        assert_eq!(failure.reason, Reason::PackageNotFound, "{runtime:?}: {}", failure.message);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_a_package_of_the_registry_is_refused() {
    let world = World::new().await;
    for identifier in ["../evil", "file:/etc", "git+https://example.test/x", "--registry=x", "a b"] {
        for runtime in [Runtime::Npm(package(identifier)), Runtime::Pypi(package(identifier))] {
            let failure = world.resolve(runtime).await.expect_err("not a name");
            assert!(
                matches!(failure.reason, Reason::ConfigInvalid | Reason::EngineUnavailable),
                "{identifier}: {failure:?}"
            );
        }
    }
    let failure = world.resolve(Runtime::Oci(package("x"))).await.expect_err("no containers here");
    assert_eq!(failure.reason, Reason::UnsupportedByEngine);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_not_the_one_the_lock_names_is_refused() {
    let world = World::new().await;
    let runtime = fixture_runtime(&["ok"]);
    let lock = world.resolve(runtime.clone()).await.expect("a lock");
    world.registry.tamper(fixture::NAME);
    let npm = instance(runtime.clone(), lock.clone());
    let mut forged = lock;
    forged.content.push(' ');
    let changed_lock = instance(runtime, forged);
    let ids = [npm.id, changed_lock.id];
    world.desire(|all| all.instances.extend([npm, changed_lock]));
    for id in ids {
        let failed = world.phase(id, Phase::Failed).await;
        assert_eq!(failed.status.reason, Reason::ChecksumMismatch, "{}", failed.status.message);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_hash_in_a_pypi_lock_is_refused() {
    let world = online().await;
    let runtime = Runtime::Pypi(package("mcp-server-time"));
    let mut lock = world.resolve(runtime.clone()).await.expect("a lock");
    let content: Vec<String> = lock
        .content
        .lines()
        .map(|line| match line.split_once("--hash=sha256:") {
            Some((before, rest)) => format!("{before}--hash=sha256:{}{}", "0".repeat(64), &rest[64..]),
            None => line.to_owned(),
        })
        .collect();
    lock.content = content.join("\n");
    lock.digest = digest(&lock.content);
    let desired = instance(runtime, lock);
    let id = desired.id;
    world.desire(|all| all.instances.push(desired));
    let failed = world.phase(id, Phase::Failed).await;
    assert_eq!(failed.status.reason, Reason::ChecksumMismatch, "{}", failed.status.message);
}

fn digest(content: &str) -> String {
    use sha2::Digest;
    let hex: String = sha2::Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_installed_package_starts_without_its_registry_and_a_changed_one_is_installed_again() {
    let mut world = World::new().await;
    let first = world.deploy(&["ok"]).await;
    world.phase(first, Phase::Ready).await;
    let lock = world.resolve(fixture_runtime(&["ok"])).await.expect("a lock");

    world.drop_agent();
    let mut options = world.options();
    // Nobody listens there.
    options.clients.environment.insert("npm_config_registry".into(), "http://127.0.0.1:9/".into());
    options.clients.environment.insert("npm_config_offline".into(), "true".into());
    world.start_agent_with(options).await;
    let desired = instance(fixture_runtime(&["ok"]), lock.clone());
    let second = desired.id;
    world.desire(|all| all.instances.push(desired));
    world.phase(second, Phase::Ready).await;
    world.drop_agent();
    world.start_agent().await;

    let packages = world.data_dir().join("packages");
    let key = std::fs::read_dir(&packages)
        .expect("the store")
        .flatten()
        .find(|entry| entry.path().join("meta.json").is_file())
        .expect("a package");
    let script = key.path().join(format!("files/node_modules/{}/server.js", fixture::NAME));
    let whole = std::fs::read(&script).expect("the script");
    std::fs::write(&script, "process.exit(9)").expect("tampered with");
    let desired = instance(fixture_runtime(&["ok"]), lock);
    let third = desired.id;
    world.desire(|all| all.instances.push(desired));
    world.phase(third, Phase::Ready).await;
    assert_eq!(std::fs::read(&script).expect("installed again"), whole);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_revision_needs_is_collected_and_what_is_kept_stays() {
    let world = World::new().await;
    let id = world.deploy(&["ok"]).await;
    world.phase(id, Phase::Ready).await;
    let installed = || {
        let entries = std::fs::read_dir(world.data_dir().join("packages")).expect("the store").flatten();
        entries.filter(|entry| entry.path().join("meta.json").is_file()).count()
    };
    assert_eq!(installed(), 1);
    let mut lock = String::new();
    world.desire(|all| {
        lock = all.instances[0].lock.as_ref().expect("a lock").digest.clone();
        all.keep_locks = vec![lock.clone()];
        all.instances.clear();
    });
    world.gone(id).await;
    until("the instance's directory is removed", || !world.instance_dir(id).exists()).await;
    assert_eq!(installed(), 1);

    let again = world.deploy(&["ok"]).await;
    world.phase(again, Phase::Ready).await;
    world.desire(|all| all.keep_locks.clear());
    world.undesire(again);
    until("the package is collected", || installed() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_package_that_is_installed_is_resolved_again_without_its_registry() {
    let mut world = World::new().await;
    let mut wanted = package(fixture::NAME);
    wanted.version = fixture::VERSION.into();
    let runtime = Runtime::Npm(wanted);
    let lock = world.resolve(runtime.clone()).await.expect("a lock");
    let desired = instance(runtime.clone(), lock.clone());
    let id = desired.id;
    world.desire(|all| all.instances.push(desired));
    world.phase(id, Phase::Ready).await;

    world.registry = NpmRegistry::start(Vec::new()).await.expect("another registry, at another address");
    assert_eq!(world.resolve(runtime).await.expect("the same lock"), lock);
    let mut other = package(fixture::NAME);
    other.version = "9.9.9".into();
    assert!(world.resolve(Runtime::Npm(other)).await.is_err(), "the registry is gone");
}

/// The fixture with a file that its archive gives the rights of its owner and group.
pub(crate) fn set_id() -> NpmPackage {
    let mut server = fixture::package();
    server.files.push((SET_ID_FILE.into(), b"#!/bin/sh\n".to_vec()));
    server
}

/// Deploys [`set_id`], and looks at what every user of the host may run now.
pub(crate) async fn is_installed_whole_and_without_rights(world: &World) {
    use std::os::unix::fs::PermissionsExt;
    let id = world.deploy(&["ok"]).await;
    world.phase(id, Phase::Ready).await;
    let entries = std::fs::read_dir(world.data_dir().join("packages")).expect("the store").flatten();
    let file = format!("files/node_modules/{}/{SET_ID_FILE}", fixture::NAME);
    let found = entries.map(|entry| entry.path().join(&file)).find(|path| path.is_file()).expect("it is not left out");
    let mode = std::fs::metadata(found).expect("there").permissions().mode();
    assert_eq!(mode & 0o7777, 0o755);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_package_is_installed_whole_and_without_the_rights_that_its_archive_asks_for() {
    let world = World::with_packages(vec![set_id()]).await;
    is_installed_whole_and_without_rights(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_package_of_which_npm_cannot_write_a_file_is_not_installed_however_little_npm_is_to_say() {
    let mut server = fixture::package();
    server.files.push(("n".repeat(300), b"x".to_vec()));
    let mut world = World::with_packages(vec![server]).await;
    world.drop_agent();
    let mut options = world.options();
    for (name, value) in [("npm_config_loglevel", "error"), ("npm_config_color", "always")] {
        options.clients.environment.insert(name.into(), value.into());
    }
    world.start_agent_with(options).await;
    let id = world.deploy(&["ok"]).await;
    let status = world.phase(id, Phase::Failed).await.status;
    assert_eq!(status.reason, Reason::InstallFailed, "{}", status.message);
    assert!(status.message.contains("TAR_ENTRY_ERROR ENAMETOOLONG"), "{}", status.message);
}

/// A package of the registry here that brings `inner` with it.
fn bundler(name: &str, more: &Json, inner: &Json) -> NpmPackage {
    let mut manifest = json!({ "name": name, "version": "1.0.0", "bundleDependencies": ["inner"] });
    let mut brought = json!({ "name": "inner", "version": "1.0.0" });
    for (into, from) in [(&mut manifest, more), (&mut brought, inner)] {
        for (member, value) in from.as_object().into_iter().flatten() {
            into[member] = value.clone();
        }
    }
    let files = [
        ("package.json", manifest.to_string()),
        ("index.js", "require('inner')".to_owned()),
        ("node_modules/inner/package.json", brought.to_string()),
        ("node_modules/inner/index.js", String::new()),
    ];
    let files = files.map(|(path, text)| (path.to_owned(), text.into_bytes()));
    NpmPackage { name: name.to_owned(), version: "1.0.0".into(), files: files.into() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_package_comes_with_what_it_brings_with_it() {
    // `inner` is in no registry.
    let asked = json!({ "dependencies": { "inner": "^1.0.0" } });
    let elsewhere = json!({ "dependencies": { "inner": "file:../inner" } });
    let mut server = fixture::package();
    let manifest = json!({
        "name": fixture::NAME,
        "version": fixture::VERSION,
        "bin": { (fixture::NAME): "server.js" },
        "dependencies": { "plain": "1.0.0" },
        "optionalDependencies": { "optional": "1.0.0" },
    });
    for (path, bytes) in &mut server.files {
        match path.as_str() {
            "package.json" => *bytes = manifest.to_string().into_bytes(),
            _ => bytes.extend_from_slice(b"\nrequire('plain');\nrequire('optional');\n"),
        }
    }
    let packages = vec![server, bundler("plain", &asked, &json!({})), bundler("optional", &elsewhere, &json!({}))];
    let world = World::with_packages(packages).await;
    let lock = world.resolve(fixture_runtime(&["ok"])).await.expect("a lock");
    for name in ["plain", "optional"] {
        assert!(lock.content.contains(&format!("node_modules/{name}/node_modules/inner")), "{}", lock.content);
    }
    let desired = instance(fixture_runtime(&["ok"]), lock);
    let id = desired.id;
    world.desire(|all| all.instances.push(desired));
    world.phase(id, Phase::Ready).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_package_that_brings_others_makes_nobody_fetch_from_outside_the_registries() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (asked, mut asks) = tokio::sync::mpsc::unbounded_channel();
    let inside = tokio::spawn(async move { while listener.accept().await.is_ok() && asked.send(()).is_ok() {} });
    let inner = json!({ "dependencies": { "inner": "1.0.0" } });
    let places =
        [format!("http://127.0.0.1:{port}/x.tgz"), format!("git+http://127.0.0.1:{port}/x.git"), "file:/etc".into()];
    let mut packages = Vec::new();
    for (number, place) in places.iter().enumerate() {
        let beside = json!({ "dependencies": { "inner": "1.0.0", "evil": place } });
        packages.push(bundler(&format!("beside-{number}"), &beside, &json!({})));
        packages.push(bundler(&format!("within-{number}"), &inner, &json!({ "dependencies": { "evil": place } })));
        let optional = json!({ "optionalDependencies": { "evil": place } });
        packages.push(bundler(&format!("optional-{number}"), &inner, &optional));
    }
    let names: Vec<_> = packages.iter().map(|package| package.name.clone()).collect();
    let world = World::with_packages(packages).await;
    for name in names {
        let refused = world.resolve(Runtime::Npm(package(&name))).await;
        assert!(refused.is_err(), "{name}: {refused:?}");
    }
    inside.abort();
    assert!(asks.try_recv().is_err(), "somebody asked there");
}
