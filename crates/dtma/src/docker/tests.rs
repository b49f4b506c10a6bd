//! An engine that hangs on one thing, and what that costs others.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{Method, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bollard::models::SystemInfo;
use serde_json::{Value as Json, json};
use tokio::sync::{RwLock, watch};
use tokio_util::task::AbortOnDropHandle;
use toolyard_types::InstanceId;
use toolyard_types::agent::DesiredInstance;
use toolyard_types::spec::{Package, PathGrant};
use toolyard_types::state::Reason;

use super::{
    ConnectError, Docker, DockerOptions, LABEL_INSTANCE, LABEL_LOCK, LABEL_ORGANIZATION, LABEL_REVISION, LABEL_SERVER,
    MAX_AT_ONCE, images, keeper, paths, users,
};
use crate::engine::EngineWait;
use crate::grants::Granted;
use crate::packages::lock;
use crate::plan::tests::instance;

/// Less than the engine is given for one request.
const SOON: Duration = Duration::from_secs(10);

/// An engine that answers as told.
struct Fake {
    docker: Docker,
    /// What it was asked, as `METHOD path?query` without the version.
    asked: watch::Receiver<Vec<String>>,
    _serves: AbortOnDropHandle<()>,
    _dir: tempfile::TempDir,
}

impl Fake {
    /// One that hangs where there is no answer, with images that were pulled for locks nothing needs.
    fn start(pulled: &[&str], answer: impl Fn(&str) -> Option<Response<Body>> + Clone + Send + Sync + 'static) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("engine.sock");
        let listener = tokio::net::UnixListener::bind(&socket).expect("a socket");
        let (sender, asked) = watch::channel(Vec::new());
        let router = axum::Router::new().fallback(move |request: Request| {
            let line = line_of(&request);
            sender.send_modify(|lines: &mut Vec<String>| lines.push(line.clone()));
            let answer = answer(&line);
            async move {
                match answer {
                    Some(answer) => answer,
                    None => std::future::pending().await,
                }
            }
        });
        let serves = AbortOnDropHandle::new(tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        }));
        let host = format!("unix://{}", socket.display());
        let api = bollard::Docker::connect_with_unix(&host, 60, bollard::API_DEFAULT_VERSION).expect("a client");
        let pulled: BTreeMap<&str, Json> =
            pulled.iter().map(|image| (*image, json!({ "locks": ["sha256:old"], "tags": [] }))).collect();
        let file = dir.path().join("images.json");
        std::fs::write(&file, json!(pulled).to_string()).expect("written");
        let docker = Docker {
            api,
            agent: "0123456789abcdef".into(),
            options: DockerOptions::default(),
            info: SystemInfo { architecture: Some("x86_64".into()), ..SystemInfo::default() },
            no_proxy: None,
            images: images::Images::open(file),
            users: users::Known::default(),
            making_network: RwLock::default(),
            starting: super::paths::Starting::default(),
            hung: std::sync::Mutex::default(),
        };
        Self { docker, asked, _serves: serves, _dir: dir }
    }

    fn was_asked(&self, beginning: &str) -> bool {
        self.asked.borrow().iter().any(|line| line.starts_with(beginning))
    }
}

fn line_of(request: &Request) -> String {
    let whole = request.uri().path_and_query().map_or("", |it| it.as_str());
    let unversioned = whole.strip_prefix("/v1.").and_then(|rest| rest.split_once('/')).map(|(_, rest)| rest);
    let method: &Method = request.method();
    format!("{method} {}", unversioned.unwrap_or(whole.trim_start_matches('/')))
}

fn said(status: u16, body: &Json) -> Response<Body> {
    let response = Response::builder().status(status).header("content-type", "application/json");
    response.body(Body::from(body.to_string())).expect("a response")
}

/// That something is gone.
fn gone() -> Response<Body> {
    Response::builder().status(204).body(Body::empty()).expect("a response")
}

/// What is at a path, by its mode as Go has it.
fn is_what(mode: u32, link_target: &str) -> Response<Body> {
    let stat =
        json!({ "name": "x", "size": 7, "mode": mode, "mtime": "2026-01-01T00:00:00Z", "linkTarget": link_target });
    let stat = BASE64_STANDARD.encode(stat.to_string());
    let response = Response::builder().header("X-Docker-Container-Path-Stat", stat);
    response.body(Body::empty()).expect("a response")
}

/// An archive of one file.
fn archive(content: &str) -> Response<Body> {
    let mut archive = vec![0; 512];
    archive[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    archive[156] = b'0';
    archive.extend_from_slice(content.as_bytes());
    archive.resize(archive.len().next_multiple_of(512), 0);
    Response::builder().header("content-type", "application/x-tar").body(Body::from(archive)).expect("a response")
}

/// Makes an engine that takes what it is asked and answers only once it is thawed.
fn frozen(socket: &Path) -> (watch::Sender<bool>, AbortOnDropHandle<()>) {
    let listener = tokio::net::UnixListener::bind(socket).expect("a socket");
    let (thaw, thawed) = watch::channel(false);
    let router = axum::Router::new().fallback(move |request: Request| {
        let (line, mut thawed) = (line_of(&request), thawed.clone());
        async move {
            let _ = thawed.wait_for(|thawed| *thawed).await;
            match line.as_str() {
                "GET version" => said(200, &json!({ "ApiVersion": "1.44" })),
                "GET info" => said(200, &json!({ "NCPU": 7 })),
                _ => said(404, &json!({ "message": "no such thing" })),
            }
        }
    });
    let serves = AbortOnDropHandle::new(tokio::spawn(async move {
        let _ = axum::serve(listener, router).await;
    }));
    (thaw, serves)
}

#[tokio::test]
async fn an_engine_that_is_not_there_or_hangs_is_waited_for_and_used_when_it_answers() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("engine.sock");
    let host = format!("unix://{}", socket.display());
    let wait = EngineWait::default();
    let mut why = wait.why();
    let engine = async {
        let refused = format!("the container engine at `{host}` does not answer: ");
        drop(why.wait_for(|why| why.as_ref().is_some_and(|why| why.starts_with(&refused))).await.expect("it waits"));
        let (thaw, serves) = frozen(&socket);
        let silent = format!("{refused}it is silent");
        drop(why.wait_for(|why| why.as_ref() == Some(&silent)).await.expect("it waits"));
        thaw.send_replace(true);
        // Kept until the end, and not waited for.
        [serves]
    };
    let both = async { tokio::join!(super::reach(&host, &wait), engine) };
    let (reached, _serves) = tokio::time::timeout(SOON, both).await.expect("it goes on");
    let Ok((_, info)) = reached else { panic!("the engine answers") };
    assert_eq!(info.ncpu, Some(7));
    assert_eq!(*wait.why().borrow(), None);
}

#[tokio::test]
async fn a_wait_for_an_engine_ends_when_it_is_given_up_and_none_begins_for_an_address_that_is_none() {
    let wait = EngineWait::default();
    let mut why = wait.why();
    let gives_up = async {
        drop(why.wait_for(Option::is_some).await.expect("it waits"));
        wait.give_up();
    };
    let both = async { tokio::join!(super::reach("unix:///nowhere/engine.sock", &wait), gives_up) };
    let (reached, ()) = tokio::time::timeout(SOON, both).await.expect("it ends");
    assert!(matches!(reached, Err(ConnectError::GivenUp)));
    let wait = EngineWait::default();
    let reached = super::reach("tcp://127.0.0.1:2375", &wait).await;
    assert!(matches!(reached, Err(ConnectError::Address(_))));
}

#[tokio::test]
async fn a_container_on_which_the_engine_hangs_holds_up_no_others_removal() {
    let names: Vec<String> = (0..3 * MAX_AT_ONCE).map(|number| format!("other-{number}")).collect();
    let listed: Vec<Json> = std::iter::once("hangs")
        .chain(names.iter().map(String::as_str))
        .map(|name| json!({ "Id": name, "Labels": { LABEL_INSTANCE: InstanceId::generate() } }))
        .collect();
    let fake = Fake::start(&[], move |line| match line {
        line if line.starts_with("GET containers/json") => Some(said(200, &json!(listed))),
        line if line.starts_with("DELETE containers/hangs?") => None,
        line if line.starts_with("DELETE containers/") => Some(gone()),
        _ => Some(said(404, &json!({ "message": "no such thing" }))),
    });
    let mut asked = fake.asked.clone();
    let all_others = asked.wait_for(|lines| {
        names.iter().all(|name| {
            let removal = format!("DELETE containers/{name}?");
            lines.iter().any(|line| line.starts_with(&removal))
        })
    });
    let (known, is_needed) = (|id: Option<InstanceId>| id.is_none(), |_: &str| true);
    tokio::select! {
        () = fake.docker.collect_garbage(&known, &is_needed) => {
            panic!("the engine hangs on one of them");
        }
        removed = tokio::time::timeout(SOON, all_others) => assert!(matches!(removed, Ok(Ok(_)))),
    }
    assert!(fake.was_asked("DELETE containers/hangs?"));
}

#[tokio::test]
async fn containers_whose_removal_hung_come_after_the_others_and_a_few_at_a_time() {
    let fake = Fake::start(&[], |line| line.starts_with("DELETE containers/new?").then(gone));
    let hung: Vec<String> = (0..2 * MAX_AT_ONCE).map(|number| format!("hung-{number}")).collect();
    fake.docker.hung().extend(hung.iter().map(|id| (id.clone(), 1)));
    let unwanted = hung.iter().cloned().chain(["new".to_owned()]).collect();
    let mut asked = fake.asked.clone();
    let new = asked.wait_for(|lines| lines.iter().any(|line| line.starts_with("DELETE containers/new?")));
    tokio::select! {
        () = fake.docker.remove_unwanted(unwanted) => panic!("the engine hangs on some of them"),
        removed = tokio::time::timeout(SOON, new) => assert!(matches!(removed, Ok(Ok(_)))),
    }
    let tried = fake.asked.borrow().iter().filter(|line| line.starts_with("DELETE containers/hung-")).count();
    assert!(tried <= super::MAX_HUNG_AT_ONCE, "{tried}");
}

#[tokio::test]
async fn an_image_whose_removal_hangs_holds_up_no_start_of_another() {
    let fake = Fake::start(&["a@sha256:1"], |line| match line {
        line if line.starts_with("DELETE images/") => None,
        line if line.starts_with("GET images/") => Some(said(200, &json!({ "Os": "linux", "Architecture": "amd64" }))),
        line if line.starts_with("GET containers/json") => Some(said(200, &json!([]))),
        _ => Some(said(404, &json!({ "message": "no such thing" }))),
    });
    let package: Package = serde_json::from_value(json!({ "identifier": "b" })).expect("a package");
    let lock = lock("1".into(), json!({ "image": "b@sha256:2", "platform": "linux/amd64" }).to_string());
    let mut asked = fake.asked.clone();
    let prepares = async {
        let removing = asked.wait_for(|lines| lines.iter().any(|line| line.starts_with("DELETE images/"))).await;
        drop(removing.expect("the engine is there"));
        fake.docker.prepare(&package, &lock, &BTreeMap::new(), &|_| {}).await.map(drop)
    };
    let (known, is_needed) = (|id: Option<InstanceId>| id.is_none(), |_: &str| false);
    tokio::select! {
        () = fake.docker.collect_garbage(&known, &is_needed) => {
            panic!("the engine hangs on the image");
        }
        prepared = tokio::time::timeout(SOON, prepares) => assert!(matches!(prepared, Ok(Ok(())))),
    }
}

#[tokio::test]
async fn an_image_whose_list_of_users_no_engine_could_read_is_refused_and_its_container_removed_unstarted() {
    const PIPE: u32 = 0o644 | (1 << 25);
    const LINK: u32 = 0o777 | (1 << 27);
    const DIRECTORY: u32 = 0o755 | (1 << 31);
    const DEVICE: u32 = 0o644 | (1 << 26) | (1 << 21);
    const PLAIN: &str = "root:x:0:\nwheel:x:0:\n";
    for (users, groups, end, named, is_refused) in [
        (0o644, 0o644, 0o644, PLAIN, false),
        (LINK, 0o644, 0o644, PLAIN, false),
        (0o644, LINK, 0o644, PLAIN, false),
        (PIPE, 0o644, 0o644, PLAIN, true),
        (0o644, PIPE, 0o644, PLAIN, true),
        (LINK, 0o644, PIPE, PLAIN, true),
        (DIRECTORY, 0o644, 0o644, PLAIN, true),
        (0o644, DEVICE, 0o644, PLAIN, true),
        (0o644, 0o644, 0o644, "77:x:0:\n", true),
        (0o644, LINK, 0o644, "77:x:0:\n", true),
    ] {
        let fake = Fake::start(&[], move |line| {
            let target = |mode: u32| if mode == LINK { "/elsewhere" } else { "" };
            match line {
                line if line.starts_with("POST containers/create") => {
                    Some(said(201, &json!({ "Id": "made", "Warnings": [] })))
                }
                line if line.starts_with("HEAD ") && line.ends_with("passwd") => Some(is_what(users, target(users))),
                line if line.starts_with("HEAD ") && line.ends_with("group") => Some(is_what(groups, target(groups))),
                line if line.starts_with("HEAD ") => Some(is_what(end, "")),
                line if line.starts_with("GET containers/made/archive?") => {
                    let at = if groups == LINK { "elsewhere" } else { "group" };
                    line.ends_with(at).then(|| archive(named))
                }
                line if line.starts_with("DELETE containers/made?") => Some(gone()),
                _ => None,
            }
        });
        let checked = tokio::time::timeout(SOON, users::check(&fake.docker, "image")).await.expect("an answer");
        let refused = checked.map_err(|failure| failure.reason);
        let expected = if is_refused { Err(Reason::ConfigInvalid) } else { Ok(()) };
        assert_eq!(refused, expected, "{users:o} {groups:o} {end:o} {named}");
        assert!(fake.was_asked("DELETE containers/made?"));
        let is_opened = fake.was_asked("GET containers/made/archive?");
        assert_eq!(is_opened, !is_refused || named != PLAIN, "only what is a file is opened");
        assert!(!fake.was_asked("POST containers/made"), "nothing is started");
    }
}

#[tokio::test]
async fn of_two_servers_that_start_at_once_only_one_gets_a_path_that_the_other_could_lead_elsewhere() {
    let granted = |path: &str, writable| {
        let (path, source) = (path.into(), path.into());
        vec![Granted { path, source, writable, device: 1, inode: 1, forbidden: vec![] }]
    };
    let (above, below) = (granted("/srv/share", true), granted("/srv/share/x", false));
    let (first, second) = (instance(InstanceId::generate(), true), instance(InstanceId::generate(), true));
    let container = json!({
        "Id": "made",
        "State": "running",
        // Another label that is its image's.
        "Labels": { LABEL_INSTANCE: first.id, "dev.toolyard.paths": "[]" },
        "Mounts": [{ "Type": "bind", "Source": "/srv/share", "Destination": "/srv/share", "RW": true }],
    });
    let is_made = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let made = std::sync::Arc::clone(&is_made);
    let fake = Fake::start(&[], move |line| match made.load(std::sync::atomic::Ordering::Acquire) {
        _ if !line.starts_with("GET containers/json") => None,
        true => Some(said(200, &json!([container]))),
        false => Some(said(200, &json!([]))),
    });
    let entered = paths::enter(&fake.docker, &first, &above).await.expect("it is alone");
    let refused = paths::enter(&fake.docker, &second, &below).await.expect_err("the first could lead it elsewhere");
    assert_eq!(refused.reason, Reason::EngineUnavailable, "the first may end");
    is_made.store(true, std::sync::atomic::Ordering::Release);
    drop(entered);
    assert!(paths::enter(&fake.docker, &second, &below).await.is_err(), "by now it has a container");
    assert!(paths::check(&fake.docker, &second, &below).await.is_err());
    assert!(paths::enter(&fake.docker, &first, &above).await.is_ok(), "it is in nobody's way when it starts again");
    is_made.store(false, std::sync::atomic::Ordering::Release);
    assert!(paths::enter(&fake.docker, &second, &below).await.is_ok(), "nobody writes there any more");
}

#[tokio::test]
async fn two_that_run_and_would_not_be_started_beside_each_other_say_so() {
    let [mut reads, mut writes] = [(); 2].map(|()| instance(InstanceId::generate(), true));
    reads.spec.paths = vec![PathGrant { path: "/srv/share/x/".into(), writable: false }];
    writes.spec.paths = vec![PathGrant { path: "/srv/share".into(), writable: true }];
    let container = |it: &DesiredInstance, path: &str, writable: bool, mounts: bool| {
        let mounted = json!([{ "Type": "bind", "Source": path, "Destination": path, "RW": writable }]);
        let labels = json!({ LABEL_INSTANCE: it.id, LABEL_SERVER: it.server });
        let (id, mounts) = (it.id.to_string(), mounts.then_some(mounted));
        json!({ "Id": id, "State": "running", "Labels": labels, "Mounts": mounts })
    };
    let asked = json!({ "Mounts": container(&writes, "/srv/share", true, true)["Mounts"] });
    // Of one the engine tells the mounts only when it is asked for it.
    let all = json!([container(&reads, "/srv/share/x", false, true), container(&writes, "/srv/share", true, false)]);
    let fake = Fake::start(&[], move |line| match line {
        line if line.starts_with("GET containers/json") => Some(said(200, &all)),
        line if line.starts_with("GET containers/") => Some(said(200, &asked)),
        _ => None,
    });
    for (it, place) in [(&reads, "`/srv/share/x` is below"), (&writes, "`/srv/share` is above")] {
        let remark = tokio::time::timeout(SOON, paths::remark(&fake.docker, it)).await.expect("an answer");
        assert!(remark.starts_with(&format!("it will not be started again while its path {place}")), "{remark}");
    }
    let alone = DesiredInstance { server: writes.server, ..reads.clone() };
    let remark = paths::remark(&fake.docker, &alone).await;
    assert_eq!(remark, "", "another revision of the server ends before, or says what would end it");
}

#[tokio::test]
async fn no_container_of_ours_has_a_label_of_ours_that_is_its_images() {
    let fake = Fake::start(&[], |_| None);
    let labels = fake.docker.container_labels();
    for name in [LABEL_INSTANCE, LABEL_SERVER, LABEL_ORGANIZATION, LABEL_REVISION, LABEL_LOCK] {
        assert_eq!(labels.get(name).map(String::as_str), Some(""), "{name}");
    }
}

#[test]
fn what_an_engine_refuses_of_an_image_is_said_at_once_and_what_the_host_lacks_is_not_the_images_fault() {
    let reason = |status_code: u16, message: &str| {
        let message = message.to_owned();
        keeper::not_started(&bollard::errors::Error::DockerResponseServerError { status_code, message }).reason
    };
    for (status, message) in [
        (400, "no command specified"),
        (400, "invalid environment variable: =x"),
        (400, "the working directory 'x' is invalid, it needs to be an absolute path"),
        (500, "OCI runtime create failed: runc create failed: error mounting \"tmpfs\" to rootfs: not a directory"),
    ] {
        assert_eq!(reason(status, message), Reason::ConfigInvalid, "{message}");
    }
    for (status, message) in [
        (500, "the database is locked"),
        (500, "OCI runtime create failed: unable to apply cgroup configuration"),
        (500, "OCI runtime create failed: fork: resource temporarily unavailable"),
        (500, "OCI runtime create failed: runc create failed: can't get final child's PID from pipe: EOF"),
        (400, "client version 1.53 is too new. Maximum supported API version is 1.52"),
        (400, "invalid mount config for type \"bind\": bind source path does not exist: /data"),
    ] {
        assert_eq!(reason(status, message), Reason::EngineUnavailable, "{message}");
    }
}
