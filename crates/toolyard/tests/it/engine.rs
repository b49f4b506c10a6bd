//! A container engine that hangs, or is not there: what that costs, and that it is used when it answers.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::fleet::toolbox;
use crate::harness::{Engine, Toolyard, signal, wait_until};

/// An agent looks every 10 s, and is patient for 15 s with an engine that hangs.
const NOTICED: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(20);

/// A container engine with nothing in it, which can be frozen: then it takes what it is asked and does not answer.
struct FakeEngine {
    socket: PathBuf,
    is_frozen: Arc<(Mutex<bool>, Condvar)>,
}

impl FakeEngine {
    fn frozen(dir: &Path) -> Self {
        let socket = dir.join("engine.sock");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let is_frozen = Arc::new((Mutex::new(true), Condvar::new()));
        let frozen = Arc::clone(&is_frozen);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let frozen = Arc::clone(&frozen);
                std::thread::spawn(move || answer(stream, &frozen));
            }
        });
        Self { socket, is_frozen }
    }

    fn freeze(&self, freeze: bool) {
        let (is_frozen, changed) = &*self.is_frozen;
        *is_frozen.lock().unwrap_or_else(PoisonError::into_inner) = freeze;
        changed.notify_all();
    }

    /// The setting that names it.
    fn setting(&self) -> String {
        format!("docker_host=unix://{}", self.socket.display())
    }
}

fn answer(mut stream: UnixStream, frozen: &(Mutex<bool>, Condvar)) {
    let (mut request, mut piece) = (Vec::new(), [0; 4096]);
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut piece) {
            Ok(read) if read > 0 => request.extend_from_slice(&piece[..read]),
            _ => return,
        }
    }
    let (is_frozen, changed) = frozen;
    let is_frozen = is_frozen.lock().unwrap_or_else(PoisonError::into_inner);
    drop(changed.wait_while(is_frozen, |is_frozen| *is_frozen));
    let request = String::from_utf8_lossy(&request).into_owned();
    let path = request.split_whitespace().nth(1).and_then(|path| path.split('?').next()).unwrap_or_default();
    let (status, body) = match path.rsplit('/').next().unwrap_or_default() {
        "_ping" => ("200 OK", r#""OK""#),
        "version" => ("200 OK", r#"{"ApiVersion":"1.44"}"#),
        "info" => ("200 OK", r#"{"OSType":"linux"}"#),
        "json" if path.ends_with("/containers/json") => ("200 OK", "[]"),
        "networks" => ("200 OK", "[]"),
        "volumes" => ("200 OK", r#"{"Volumes":[]}"#),
        _ => ("404 Not Found", r#"{"message":"no such thing"}"#),
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}", body.len());
    // Who asked may have given up.
    let _ = write!(stream, "{head}\r\nConnection: close\r\n\r\n{body}");
}

#[test]
fn an_engine_that_hangs_holds_up_the_toolbox_of_this_machine_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let engine = FakeEngine::frozen(dir.path());
    let address = engine.setting();
    let mut toolyard = Toolyard::start_with(Engine::Sqlite, "127.0.0.1", &["engine=docker", &address]);
    for said in ["waiting until the container engine answers", "is ready at"] {
        wait_until(SOON, said, || toolyard.log_text().contains(said));
    }
    let waits = toolbox(&toolyard, "local");
    assert_eq!((&waits["state"], &waits["reason"]), (&"enrolling".into(), &"engine_unavailable".into()), "{waits:#}");
    assert!(waits["message"].as_str().is_some_and(|why| why.contains("does not answer")), "{waits:#}");
    assert_eq!(toolyard.stop_by("TERM"), Some(0), "a stop does not wait for it");

    toolyard.serve();
    wait_until(SOON, "it waits again", || toolbox(&toolyard, "local")["reason"] == "engine_unavailable");
    engine.freeze(false);
    let is_well = |toolyard: &Toolyard| {
        let local = toolbox(toolyard, "local");
        local["state"] == "online" && local["reason"] == "answered" && local["engine"] == "docker"
    };
    wait_until(SOON, "its toolbox is online", || is_well(&toolyard));

    engine.freeze(true);
    wait_until(NOTICED, "its toolbox says that the engine hangs", || {
        let local = toolbox(&toolyard, "local");
        local["state"] == "online" && local["reason"] == "engine_unavailable"
    });
    engine.freeze(false);
    wait_until(NOTICED, "its toolbox says that the engine answers", || is_well(&toolyard));
    toolyard.terminate();
}

#[test]
fn a_late_engine_that_cannot_be_used_ends_the_program_as_a_signal_does_and_with_its_error() {
    let dir = tempfile::tempdir().expect("a directory");
    let engine = FakeEngine::frozen(dir.path());
    let address = engine.setting();
    let settings = ["engine=docker", &address, "container_runtime=nowhere"];
    let mut toolyard = Toolyard::start_with(Engine::Sqlite, "127.0.0.1", &settings);
    wait_until(SOON, "it serves", || toolyard.log_text().contains("is ready at"));
    engine.freeze(false);
    let told = "toolyard: use the container engine: the container engine has no runtime `nowhere`";
    wait_until(NOTICED, "it ends", || toolyard.log_text().contains(told));
    assert!(toolyard.log_text().contains("another signal ends the waiting"), "{}", toolyard.log_text());
    assert_eq!(toolyard.stop_by("TERM"), Some(1), "{}", toolyard.log_text());
}

#[test]
fn an_agent_whose_engine_is_not_there_says_so_and_ends_when_it_is_told_to_and_starts_when_the_engine_does() {
    let toolyard = Toolyard::start_with(Engine::Sqlite, "127.0.0.1", &["local_toolbox=false"]);
    let token = toolyard.json(&["toolboxes", "enroll", "docks"])["token"].as_str().expect("a token").to_owned();
    let dir = tempfile::tempdir().expect("a directory");
    let (socket, log) = (dir.path().join("engine.sock"), dir.path().join("agent.log"));
    let start = || {
        let file = std::fs::File::create(&log).expect("a log file");
        let mut command: Command = toolyard.command();
        command.env("TOOLYARD_TOKEN", &token).args(["dtma", "--engine", "docker", "--data-dir"]);
        command.arg(dir.path().join("data")).args(["--set", &format!("docker_host=unix://{}", socket.display())]);
        command.stdin(Stdio::null()).stdout(file.try_clone().expect("a second handle")).stderr(file);
        let agent = command.spawn().expect("the agent starts");
        wait_until(SOON, "it says that it waits", || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            text.contains("waiting until the container engine answers")
        });
        agent
    };
    let mut agent = start();
    signal(agent.id(), "TERM");
    let mut ended = None;
    wait_until(SOON, "it ends", || {
        ended = agent.try_wait().expect("the agent can be waited for");
        ended.is_some()
    });
    assert_eq!(ended.and_then(|status| status.code()), Some(0));

    let mut agent = start();
    assert_eq!(toolbox(&toolyard, "docks")["state"], "enrolling");
    FakeEngine::frozen(dir.path()).freeze(false);
    wait_until(SOON, "its toolbox is online", || toolbox(&toolyard, "docks")["state"] == "online");
    signal(agent.id(), "INT");
    let _ = agent.wait();
}

#[test]
fn an_address_that_is_no_engines_ends_the_start_with_what_it_must_be() {
    let dir = tempfile::tempdir().expect("a directory");
    let port = |name: &str| format!("{name}=127.0.0.1:{}", crate::harness::free_port());
    let mut command = Command::new(env!("CARGO_BIN_EXE_toolyard"));
    command.current_dir(dir.path()).args(["serve", "--data-dir"]).arg(dir.path().join("data"));
    for setting in
        [port("listen"), port("agent_listen"), "engine=docker".into(), "docker_host=tcp://127.0.0.1:1".into()]
    {
        command.args(["--set", &setting]);
    }
    let output = command.env_remove("TOOLYARD_ENV").stdin(Stdio::null()).output().expect("it ends");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && told.contains("is not the address of a container engine"), "{told}");
}
