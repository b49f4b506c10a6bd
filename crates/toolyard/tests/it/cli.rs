//! The command line as a person meets it: at a terminal, interrupted, in the wrong directory.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::libc;
use serde_json::{Value, json};

use crate::harness::{EVERYTHING, Engine, TIME, Toolyard, signal, wait_until};

/// A terminal with a program at it.
struct Terminal {
    keys: File,
    /// The program's side.
    device: File,
    shown: Arc<Mutex<String>>,
    child: Child,
}

impl Terminal {
    fn start(mut command: Command) -> Self {
        // SAFETY: no pointer is handed over; the descriptor is checked and nobody else has it.
        let keys = unsafe {
            let fd = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY);
            assert!(fd >= 0 && libc::grantpt(fd) == 0 && libc::unlockpt(fd) == 0, "a terminal");
            File::from_raw_fd(fd)
        };
        let mut name = [0_u8; 64];
        // SAFETY: the buffer is as long as is said.
        let named = unsafe { libc::ptsname_r(keys.as_raw_fd(), name.as_mut_ptr().cast(), name.len()) };
        assert_eq!(named, 0);
        let path = std::str::from_utf8(&name).expect("a path").trim_end_matches('\0');
        let device =
            File::options().read(true).write(true).custom_flags(libc::O_NOCTTY).open(path).expect("the program's side");
        let side = || Stdio::from(device.try_clone().expect("another handle"));
        let child = command.stdin(side()).stdout(side()).stderr(side()).spawn().expect("the CLI starts");
        let shown = Arc::<Mutex<String>>::default();
        let (mut screen, text) = (keys.try_clone().expect("another handle"), Arc::clone(&shown));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = screen.read(&mut bytes) {
                text.lock().expect("no panic").push_str(&String::from_utf8_lossy(&bytes[..read]));
            }
        });
        Self { keys, device, shown, child }
    }

    fn shown(&self) -> String {
        self.shown.lock().expect("no panic").clone()
    }

    /// Waits for the question about a secret, and types.
    #[track_caller]
    fn answer(&mut self, question: &str, keys: &str) {
        self.wait_for(question);
        assert!(!self.echoes(), "{}", self.shown());
        self.keys.write_all(keys.as_bytes()).expect("typed");
    }

    /// Waits for the question whether to go on, and types.
    #[track_caller]
    fn decide(&mut self, keys: &str) {
        self.wait_for("go on? [y/N] ");
        self.keys.write_all(keys.as_bytes()).expect("typed");
    }

    #[track_caller]
    fn wait_for(&self, question: &str) {
        wait_until(Duration::from_secs(30), question, || self.shown().ends_with(question));
    }

    /// The exit code.
    fn end(&mut self) -> Option<i32> {
        self.child.wait().expect("the CLI ends").code()
    }

    fn echoes(&self) -> bool {
        let mut modes = std::mem::MaybeUninit::<libc::termios>::uninit();
        // SAFETY: the modes are read only when they were written.
        let modes = unsafe {
            assert_eq!(libc::tcgetattr(self.device.as_raw_fd(), modes.as_mut_ptr()), 0);
            modes.assume_init()
        };
        modes.c_lflag & libc::ECHO != 0
    }
}

fn at_terminal(toolyard: &Toolyard, args: &[&str]) -> Terminal {
    let mut command = toolyard.command();
    command.args(args);
    Terminal::start(command)
}

#[test]
fn a_secret_is_asked_for_at_a_terminal_and_never_shown() {
    let toolyard = Toolyard::start(Engine::Sqlite);
    let mut terminal = at_terminal(&toolyard, &["credentials", "set", "token"]);
    terminal.answer("Secret: ", "wrong\x15s3cret-typed\r");
    assert_eq!(terminal.end(), Some(0), "{}", terminal.shown());
    wait_until(Duration::from_secs(10), "the answer", || terminal.shown().contains("version:"));
    assert!(!terminal.shown().contains("s3cret"), "{}", terminal.shown());
    assert!(terminal.echoes(), "the terminal is as it was");

    let add = ["members", "add", "ada@example.test"];
    let mut terminal = at_terminal(&toolyard, &add);
    terminal.answer("Password: ", "correct-horse-battery-9\r");
    terminal.answer("Password, again: ", "correct-horse-battery-8\r");
    assert_eq!(terminal.end(), Some(1), "{}", terminal.shown());
    let mut terminal = at_terminal(&toolyard, &add);
    terminal.answer("Password: ", "correct-horse-battery-9\r");
    terminal.answer("Password, again: ", "correct-horse-battery-9\r");
    assert_eq!(terminal.end(), Some(0), "{}", terminal.shown());

    let url = toolyard.url();
    let mut terminal = at_terminal(&toolyard, &["login", &url]);
    terminal.answer("API key: ", &format!("{}\r", crate::harness::KEY));
    assert_eq!(terminal.end(), Some(0), "{}", terminal.shown());
}

#[test]
fn a_server_or_a_toolset_is_deleted_from_a_terminal_only_when_its_person_says_so() {
    let toolyard = Toolyard::start(Engine::Sqlite);
    toolyard.json(&["deploy", TIME, "--name", "time", "--stopped"]);
    let delete = ["servers", "delete", "time", "--wait"];
    let mut terminal = at_terminal(&toolyard, &delete);
    terminal.decide("n\r");
    assert_eq!(terminal.end(), Some(1), "{}", terminal.shown());
    assert_eq!(toolyard.json(&["servers", "show", "time"])["name"], "time");
    let mut terminal = at_terminal(&toolyard, &delete);
    terminal.decide("y\r");
    assert_eq!(terminal.end(), Some(0), "{}", terminal.shown());
    assert!(!toolyard.run(&["servers", "show", "time"]).status.success());

    toolyard.json(&["deploy", TIME, "--name", "time", "--stopped"]);
    let mut terminal = at_terminal(&toolyard, &[&delete[..], &["--yes"]].concat());
    assert_eq!(terminal.end(), Some(0), "nobody is asked: {}", terminal.shown());

    toolyard.json(&["deploy", TIME, "--name", "clock", "--stopped"]);
    toolyard.json(&["toolsets", "create", "all", "--servers", "clock"]);
    let mut terminal = at_terminal(&toolyard, &["servers", "delete", "clock"]);
    terminal.decide("n\r");
    assert_eq!(terminal.end(), Some(1), "{}", terminal.shown());
    assert!(terminal.shown().contains("it stays in the toolsets all"), "{}", terminal.shown());
    assert_eq!(toolyard.json(&["servers", "delete", "clock", "--wait"])["toolsets"], json!(["all"]));
    let delete = ["toolsets", "delete", "all"];
    let mut terminal = at_terminal(&toolyard, &delete);
    terminal.decide("n\r");
    assert_eq!(terminal.end(), Some(1), "{}", terminal.shown());
    assert_eq!(toolyard.json(&["toolsets", "show", "all"])["name"], "all");
    let mut terminal = at_terminal(&toolyard, &[&delete[..], &["--yes"]].concat());
    assert_eq!(terminal.end(), Some(0), "nobody is asked: {}", terminal.shown());
    toolyard.json(&["deploy", TIME, "--name", "time", "--stopped"]);
    toolyard.json(&["toolsets", "create", "all", "--servers", "time"]);
    toolyard.ok(&delete);
}

#[test]
fn an_interrupt_at_the_question_gives_the_echo_back() {
    let toolyard = Toolyard::start(Engine::Sqlite);
    let mut terminal = at_terminal(&toolyard, &["credentials", "set", "token"]);
    terminal.answer("Secret: ", "half\x03");
    assert_eq!(terminal.end(), Some(130), "{}", terminal.shown());
    assert!(terminal.echoes());
    assert_eq!(toolyard.json(&["credentials", "list"])["items"], json!([]));
}

#[test]
fn without_a_terminal_all_of_standard_input_is_the_secret_and_an_empty_one_is_told() {
    let toolyard = Toolyard::start(Engine::Sqlite);
    let set = |input: &str| {
        let mut command = toolyard.command();
        command.args(["credentials", "set", "token"]).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.stdout(Stdio::null()).spawn().expect("the CLI starts");
        child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("written");
        child.wait_with_output().expect("the CLI ends")
    };
    let empty = set("");
    assert!(!empty.status.success() && errors(&empty).contains("nothing came on standard input"), "{}", errors(&empty));
    assert!(!errors(&empty).contains("Secret: "), "nobody is asked");
    assert!(set("two\nlines\n").status.success());
    let nobody = toolyard.command().args(["deploy", TIME, "--input", "zone=-"]).stdin(Stdio::null()).output();
    assert!(errors(&nobody.expect("the CLI runs")).contains("`zone` was to come from"));
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a line that the CLI printed for people to repeat.
fn repeat(toolyard: &Toolyard, line: &str, dir: &Path) -> Output {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("toolyard() {{ \"$PROGRAM\" \"$@\"; }}; {line}")]);
    shell.env("PROGRAM", env!("CARGO_BIN_EXE_toolyard")).current_dir(dir);
    let same = toolyard.command();
    for (name, value) in same.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.output().expect("a shell runs")
}

#[test]
fn the_undo_that_is_printed_undoes_exactly_this() {
    let toolyard = Toolyard::start(Engine::Sqlite);
    toolyard.json(&["deploy", TIME, "--name", "time", "--stopped"]);
    let file = toolyard.dir.path().join("its own.json");
    let connect = ["connect", "time", "--client", "claude-desktop", "--key-name", "desk", "--file", "its own.json"];
    let url = toolyard.url();
    let said = toolyard.ok(&[&connect[..], &["--url", &url.replace("127.0.0.1", "localhost")]].concat());
    let written: Value = serde_json::from_str(&std::fs::read_to_string(&file).expect("a file")).expect("JSON");
    let arguments = &written["mcpServers"]["toolyard-time"]["args"];
    assert!(!arguments.to_string().contains("--allow-http"), "this machine needs nothing: {written:#}");
    let undo = said.lines().find_map(|line| line.strip_prefix("undo:")).expect("it says how to undo it").trim();
    for wanted in ["--file '", "--key-name desk", "--url http://localhost:"] {
        assert!(undo.contains(wanted), "{undo}");
    }
    let elsewhere = tempfile::tempdir().expect("a directory");
    let undone = repeat(&toolyard, undo, elsewhere.path());
    assert!(undone.status.success(), "{undo}: {}", errors(&undone));
    assert!(!std::fs::read_to_string(&file).expect("a file").contains("toolyard-time"));
    let keys = toolyard.json(&["keys", "list", "--active"]);
    let named = |key: &Value| key["name"] == "desk";
    assert!(!keys["items"].as_array().expect("keys").iter().any(named), "its key was revoked: {keys:#}");

    let connect = ["connect", "time", "--client", "windsurf", "--file", "another.json"];
    for _made_then_rotated in 0..2 {
        let answer = toolyard.json(&connect);
        assert_eq!(answer["key_name"], "windsurf-time", "the key that is in the entry: {answer:#}");
        assert!(answer["undo"].as_str().is_some_and(|undo| undo.contains("another.json --undo")), "{answer:#}");
    }
    let given = toolyard.json(&[&connect[..], &["--key", crate::harness::KEY]].concat());
    assert_eq!(given["key_name"], Value::Null, "nobody knows the name of a key that is given: {given:#}");
}

#[test]
fn an_entry_of_another_toolyard_is_neither_replaced_nor_undone_unless_somebody_says_so() {
    let (production, development) = (Toolyard::start(Engine::Sqlite), Toolyard::start(Engine::Sqlite));
    for toolyard in [&production, &development] {
        toolyard.json(&["deploy", TIME, "--name", "time", "--stopped"]);
    }
    let file = production.dir.path().join("mcp_config.json");
    let path = file.to_str().expect("text");
    let connect = ["connect", "time", "--client", "windsurf", "--file", path];
    let and = |more: &[&'static str]| [&connect[..], more].concat();
    let text = || std::fs::read_to_string(&file).expect("a file");
    let entries = || {
        let written: Value = serde_json::from_str(&text()).expect("JSON");
        let entries: std::collections::BTreeSet<_> =
            written["mcpServers"].as_object().expect("entries").keys().collect();
        entries.into_iter().cloned().collect::<Vec<String>>()
    };
    let keys = |toolyard: &Toolyard| toolyard.json(&["keys", "list", "--active"])["items"].as_array().map(Vec::len);

    production.ok(&connect);
    let (written, before) = (text(), keys(&development));
    for (args, wanted) in [(connect.to_vec(), "--as"), (and(&["--undo"]), "nothing was changed")] {
        let refused = development.run(&args);
        let told = errors(&refused);
        assert!(!refused.status.success() && told.contains(&production.url()) && told.contains(wanted), "{told}");
    }
    assert_eq!((text(), keys(&development)), (written, before));

    let said = development.ok(&and(&["--as", "toolyard-dev-time"]));
    assert!(said.contains("--as toolyard-dev-time"), "so does the undo: {said}");
    assert_eq!(entries(), ["toolyard-dev-time", "toolyard-time"]);
    production.ok(&and(&["--undo"]));
    assert_eq!(entries(), ["toolyard-dev-time"]);

    production.ok(&connect);
    let replaced = development.run(&and(&["--replace"]));
    assert!(replaced.status.success() && errors(&replaced).contains("was not revoked"), "{}", errors(&replaced));
    let kept = production.run(&and(&["--undo"]));
    let told = errors(&kept);
    assert!(
        !kept.status.success() && told.contains("API key `windsurf-time") && told.contains("keys revoke"),
        "{told}"
    );
}

#[test]
fn an_entry_of_another_server_is_neither_replaced_nor_undone() {
    let toolyard = Toolyard::start(Engine::Sqlite);
    for name in ["time", "clock"] {
        toolyard.json(&["deploy", TIME, "--name", name, "--stopped"]);
    }
    let file = toolyard.dir.path().join("mcp_config.json");
    let path = file.to_str().expect("text");
    let connect = |name: &'static str, more: &[&str]| {
        let args = ["connect", name, "--client", "windsurf", "--file", path, "--as", "mine"];
        toolyard.run(&[&args[..], more].concat())
    };
    let text = || std::fs::read_to_string(&file).expect("a file");
    let first = connect("time", &[]);
    assert!(first.status.success(), "{}", errors(&first));
    let written = text();
    for (more, wanted) in [(&[][..], "--as"), (&["--undo"][..], "no key was revoked")] {
        let refused = connect("clock", more);
        let told = errors(&refused);
        assert!(!refused.status.success() && told.contains("which is not `clock`") && told.contains(wanted), "{told}");
    }
    assert_eq!(text(), written);
    let again = connect("time", &[]);
    assert!(again.status.success() && text() != written, "its own has another secret: {}", errors(&again));
    let undone = connect("time", &["--undo"]);
    assert!(undone.status.success() && !text().contains("mine"), "{}", errors(&undone));
}

#[test]
fn a_client_whose_file_is_not_changed_leaves_no_key_and_says_what_to_do() {
    let toolyard = Toolyard::start(Engine::Sqlite);
    toolyard.json(&["deploy", TIME, "--name", "time", "--stopped"]);
    let file = toolyard.dir.path().join("settings.json");
    std::fs::write(&file, "{\n  // mine\n  \"theme\": \"dark\",\n}\n").expect("a file");
    let keys = || toolyard.json(&["keys", "list", "--active"])["items"].as_array().map(Vec::len);
    let before = keys();
    for args in [&["--client", "zed", "--file", "settings.json"][..], &["--client", "codex"]] {
        let refused = toolyard.run(&[&["connect", "time"], args].concat());
        assert!(!refused.status.success() && errors(&refused).contains("--print"), "{}", errors(&refused));
    }
    assert_eq!(keys(), before);
    let codex = ["connect", "time", "--client", "codex", "--key", crate::harness::KEY, "--print"];
    let (shown, told) = (toolyard.ok(&codex), toolyard.json(&codex));
    assert!(told["path"].as_str().is_some_and(|path| path.ends_with(".codex/config.toml")), "{told:#}");
    assert_eq!(told["content"].as_str().map(str::trim_end), Some(shown.trim_end()), "{told:#}");
    let mut homeless = toolyard.command();
    homeless.args(["connect", "time", "--client", "cursor"]).env("HOME", "").env("XDG_CONFIG_HOME", "");
    let refused = homeless.output().expect("the CLI runs");
    assert!(errors(&refused).contains("no home directory"), "{}", errors(&refused));
    assert!(!toolyard.dir.path().join(".cursor").exists());
}

#[test]
fn waiting_shows_the_steps_also_without_a_terminal_and_can_be_left() {
    let toolyard = Toolyard::start(Engine::Sqlite);
    let deployed = toolyard.run(&["deploy", EVERYTHING, "--name", "everything", "--wait"]);
    let steps = errors(&deployed);
    assert!(deployed.status.success() && steps.lines().count() > 1, "{steps}");
    let lines: std::collections::BTreeSet<&str> = steps.lines().collect();
    assert_eq!(lines.len(), steps.lines().count(), "each once: {steps}");

    let mut update = toolyard.command();
    update.args(["servers", "update", "everything", "--set-env", "DEMO=1", "--observe", "120", "--wait"]);
    let waiting = update.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the CLI starts");
    wait_until(Duration::from_secs(120), "the new revision is observed", || {
        toolyard.json(&["rollout", "status", "everything"])["reason"] == "observing"
    });
    signal(waiting.id(), "INT");
    let left = waiting.wait_with_output().expect("the CLI ends");
    assert_eq!(left.status.code(), Some(130));
    let said = errors(&left);
    assert!(said.contains("goes on all the same") && said.contains("toolyard rollout status everything"), "{said}");
    assert_eq!(toolyard.json(&["rollout", "status", "everything"])["state"], "progressing");

    tools_that_are_not_there_are_told(&toolyard);
}

#[test]
fn waiting_for_a_change_ends_where_it_waits_for_its_update_window_and_says_so() {
    let toolyard = Toolyard::start(Engine::Sqlite);
    toolyard.json(&["deploy", EVERYTHING, "--name", "everything", "--wait"]);
    let today = toolyard_types::clock::Clock::system().now().as_ms() / 86_400_000;
    // Days are counted from a Thursday. It is neither today nor, should midnight come, tomorrow.
    let days = ["thu", "fri", "sat", "sun", "mon", "tue", "wed"];
    let day = days[usize::try_from((today + 3) % 7).expect("a weekday")];
    toolyard.ok(&["servers", "update", "everything", "--update-window", &format!("{day} 10:00-11:00")]);
    let said = toolyard.ok(&["servers", "update", "everything", "--set-env", "DEMO=1", "--wait"]);
    let value = |name: &str| said.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    assert_eq!(value("revision:"), Some("1"), "{said}");
    let waiting = value("waiting:").expect("it says what waits");
    assert!(waiting.starts_with("revision 2 waits for the update window") && waiting.contains("opens at"), "{said}");
    let shown = toolyard.json(&["servers", "show", "everything"]);
    assert_eq!(
        (&shown["phase"], &shown["rollout"]["reason"]),
        (&json!("ready"), &json!("outside_window")),
        "{shown:#}"
    );
    toolyard.ok(&["rollout", "cancel", "everything"]);
    assert!(!toolyard.ok(&["servers", "show", "everything"]).contains("waiting:"));
}

fn tools_that_are_not_there_are_told(toolyard: &Toolyard) {
    let made = toolyard.run(&["toolsets", "create", "few", "--tool", "everything=echo", "--tool", "everything=nope"]);
    assert!(made.status.success(), "it may come later: {}", errors(&made));
    assert!(errors(&made).contains("no tool `nope`") && !errors(&made).contains("`echo`"), "{}", errors(&made));
    let renamed =
        toolyard.run(&["toolsets", "update", "few", "--servers", "everything", "--rename", "everything/gone=x"]);
    assert!(errors(&renamed).contains("no tool `gone`"), "{}", errors(&renamed));
}

#[test]
fn an_entry_is_checked_and_shown_with_the_inputs_that_deploying_it_takes() {
    let toolyard = Toolyard::start(Engine::Sqlite);
    let file = toolyard.dir.path().join("server.json");
    let mut entry = json!({
        "$schema": "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json",
        "name": "test.example/issues",
        "version": "1.0.0",
        "remotes": [{
            "type": "streamable-http",
            "url": "https://mcp.example.com/mcp",
            "headers": [
                { "name": "Authorization", "value": "Bearer {token}", "variables": { "token": { "isSecret": true } } },
                { "name": "X-Region" },
            ],
        }],
    });
    std::fs::write(&file, entry.to_string()).expect("a file");
    let check = ["catalog", "publish", "server.json", "--dry-run", "--output", "json"];
    let invalid = toolyard.run(&check);
    let answer: Value = serde_json::from_slice(&invalid.stdout).expect("one document");
    assert_eq!(invalid.status.code(), Some(1), "{answer:#}");
    assert!(!answer["validation"]["errors"].as_array().expect("errors").is_empty(), "{answer:#}");
    assert!(errors(&invalid).contains("cannot be published as it is"), "{}", errors(&invalid));

    entry["description"] = json!("Issues.");
    std::fs::write(&file, entry.to_string()).expect("a file");
    toolyard.json(&["catalog", "publish", "server.json"]);
    let shown = toolyard.ok(&["catalog", "show", "test.example/issues"]);
    assert!(shown.contains("https://mcp.example.com/mcp") && shown.contains("token, secret"), "{shown}");
    assert!(shown.contains("X-Region") && !shown.contains("Authorization"), "{shown}");
    toolyard.json(&["credentials", "set", "issues", "--secret", "s3cret"]);
    let deploy = ["deploy", "test.example/issues", "--name", "issues", "--stopped", "--credential"];
    let refused = toolyard.run(&[&deploy[..], &["Authorization=issues"]].concat());
    let told = errors(&refused);
    let wanted = "--credential Authorization: the entry has no such input; it has: X-Region, token";
    assert!(told.contains(wanted), "{told}");
    toolyard.json(&[&deploy[..], &["token=issues", "--input", "X-Region=eu"]].concat());
}

#[test]
fn completions_end_quietly_when_nobody_reads_them() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_toolyard"));
    command.args(["completions", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the CLI starts");
    drop(child.stdout.take());
    let ended = child.wait_with_output().expect("the CLI ends");
    assert!(ended.status.success() && ended.stderr.is_empty(), "{}", errors(&ended));
}

#[test]
fn a_failure_that_cannot_be_printed_is_still_told_by_the_exit_code() {
    for format in ["table", "json"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_toolyard"));
        command.args(["--url", "http://127.0.0.1:1", "--output", format, "call", "nosuch", "echo", "{}"]);
        let full = || File::options().write(true).open("/dev/full").expect("it is there on Linux");
        let ended = command.stdout(full()).stderr(full()).status().expect("the CLI starts");
        assert_eq!(ended.code(), Some(1), "{format}");
    }
}

#[test]
fn what_the_api_refuses_is_told_by_the_options_of_the_command_line() {
    let toolyard = Toolyard::start(Engine::Sqlite);
    let refused = |args: &[&str]| {
        let output = toolyard.run(args);
        assert!(!output.status.success(), "{args:?}");
        errors(&output)
    };
    let unknown = refused(&["deploy", TIME, "--name", "time", "--input", "LEVEL=1"]);
    assert!(unknown.contains("--input LEVEL: ") && unknown.contains("`--set-env`"), "{unknown}");
    let empty = refused(&["toolsets", "create", "none"]);
    assert!(empty.contains("--servers: must be 1 to"), "{empty}");
    let elsewhere = refused(&["servers", "list", "--url", &format!("{}/mcp", toolyard.url())]);
    assert!(elsewhere.contains("that of Toolyard itself"), "{elsewhere}");
    let usage = refused(&["deploy"]);
    assert!(usage.contains("Usage: toolyard deploy [OPTIONS] <ENTRY>"), "{usage}");
}

/// A Toolyard that answers every request by its path with its query.
fn answering(answer: impl Fn(&str) -> Value + Send + 'static) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let body = answer(head.split(' ').nth(1).unwrap_or_default()).to_string();
            let length = body.len();
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
        }
    });
    url
}

#[test]
fn a_list_of_several_pages_is_shown_whole_and_one_without_an_end_says_that_there_is_more() {
    let credential = |name: &str| {
        json!({
            "id": "0193a5c0-0000-7000-8000-000000000000", "name": name, "version": 1, "used_by": [],
            "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z",
        })
    };
    let url = answering(move |path| match path.contains("cursor=") {
        false => json!({ "items": [credential("first")], "next_cursor": "first" }),
        true if path.contains("cursor=first") => json!({ "items": [], "next_cursor": "second" }),
        true if path.contains("cursor=second") => json!({ "items": [credential("last")], "next_cursor": "second" }),
        true => panic!("{path}"),
    });
    let dir = tempfile::tempdir().expect("a directory");
    let listed = plain(dir.path(), &["credentials", "list", "--output", "json", "--url", &url]);
    let answer: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    let names: Vec<_> = answer["items"].as_array().expect("items").iter().map(|item| item["name"].clone()).collect();
    assert_eq!(names, ["first", "last"], "a cursor that leads nowhere ends it too: {}", errors(&listed));

    let toolyard = Toolyard::start(Engine::Sqlite);
    for name in ["one", "two"] {
        toolyard.json(&["credentials", "set", name, "--secret", "s3cret"]);
    }
    for format in ["table", "json"] {
        let some = toolyard.run(&["audit", "--action", "credential", "--limit", "1", "--output", format]);
        assert!(some.status.success() && errors(&some).contains("there are more"), "{}", errors(&some));
        let all = toolyard.run(&["audit", "--action", "credential", "--limit", "1000", "--output", format]);
        assert!(all.status.success() && all.stderr.is_empty(), "{}", errors(&all));
    }
    let nobody = errors(&toolyard.run(&["members", "remove", "nosuch"]));
    assert!(nobody.contains("there is no member `nosuch`") && nobody.contains("e-mail address"), "{nobody}");
}

#[test]
fn what_is_removed_by_its_id_is_answered_with_its_name() {
    let toolyard = Toolyard::start(Engine::Sqlite);
    let key = toolyard.json(&["keys", "create", "ci"]);
    let revoked = toolyard.json(&["keys", "revoke", key["id"].as_str().expect("an id")]);
    assert_eq!(revoked, json!({ "id": key["id"], "name": "ci", "state": "removed" }));
    let email = "ada@example.test";
    let member = toolyard.json(&["members", "add", email, "--password", "correct-horse-battery-9"]);
    let removed = toolyard.json(&["members", "remove", email]);
    assert_eq!(removed, json!({ "id": member["id"], "name": email, "state": "removed" }));
}

/// A CA's certificate, of which nothing is signed.
const CA: &str = "-----BEGIN CERTIFICATE-----
MIIBcDCCARegAwIBAgIUHkR2ZX15+b1zOViRRjVjEx5A9l8wCgYIKoZIzj0EAwIw
DTELMAkGA1UEAwwCY2EwIBcNMjYxMTMwMDMyMTIyWhgPMjEyNjExMDYwMzIxMjJa
MA0xCzAJBgNVBAMMAmNhMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEGKdRs5t0
fThBvcDxYjeWSFE2QhMrsS0O3Pjiq7YCjnPRsr2MTv6iXwwWVzdU6ivIKte8rEIK
oOE53oEH6fZhDqNTMFEwHQYDVR0OBBYEFMo2KiReWjzIjw3QuWf/l0WIBj7/MB8G
A1UdIwQYMBaAFMo2KiReWjzIjw3QuWf/l0WIBj7/MA8GA1UdEwEB/wQFMAMBAf8w
CgYIKoZIzj0EAwIDRwAwRAIgL8282Ux/aU0Jtf6GPzDdU2Y4eRCdM/pnn7yFCgTV
oRsCIFNtKtFdBFJnJW1kGzukC0+WLUMreXlr9Wxa0MSKIO+u
-----END CERTIFICATE-----
";

#[test]
fn a_login_remembers_where_the_ca_is_wherever_the_next_command_runs() {
    let toolyard = Toolyard::start(Engine::Sqlite);
    let ca = toolyard.dir.path().join("ca.pem");
    let url = toolyard.url();
    let login = ["login", &url, "--key", crate::harness::KEY, "--ca-file", "ca.pem"];
    std::fs::write(&ca, "no certificate").expect("a file");
    let none = errors(&toolyard.run(&login));
    assert!(none.contains("holds no PEM certificates"), "{none}");
    std::fs::write(&ca, CA).expect("a file");
    toolyard.ok(&login);
    let elsewhere = tempfile::tempdir().expect("a directory");
    let status = || toolyard.command().current_dir(elsewhere.path()).arg("status").output().expect("the CLI runs");
    assert!(status().status.success(), "{}", errors(&status()));
    std::fs::remove_file(&ca).expect("removed");
    let told = errors(&status());
    assert!(told.contains("cannot read") && told.contains("ca.pem"), "it is read each time: {told}");
}

#[test]
fn a_log_of_a_server_that_never_ran_is_told_with_where_to_look_and_not_to_check_the_name() {
    let toolyard = Toolyard::start(Engine::Sqlite);
    toolyard.json(&["deploy", TIME, "--name", "time", "--stopped"]);
    for (more, why) in
        [(&[][..], "has run yet"), (&["--previous"][..], "has ended"), (&["--revision", "99"], "revision 99")]
    {
        let told = errors(&toolyard.run(&[&["servers", "logs", "time"], more].concat()));
        assert!(told.contains(why) && told.contains("toolyard servers show time"), "{told}");
        assert!(!told.contains("heck the name"), "{told}");
    }
    let unknown = errors(&toolyard.run(&["servers", "logs", "none"]));
    assert!(unknown.contains("server `none`") && !unknown.contains("servers show"), "{unknown}");
}

#[test]
fn a_key_is_taken_without_its_line_end_and_a_version_that_cannot_be_asked_is_told() {
    let toolyard = Toolyard::start(Engine::Sqlite);
    let with_key =
        |key: &str| toolyard.command().env("TOOLYARD_API_KEY", key).arg("status").output().expect("the CLI runs");
    let ended = with_key(&format!("{}\r\n", crate::harness::KEY));
    assert!(ended.status.success(), "{}", errors(&ended));
    let none = with_key("ty_\rk");
    assert!(none.status.code() == Some(2) && errors(&none).contains("no key has"), "{}", errors(&none));
    let nobody = ["version", "--url", "https://127.0.0.1:1", "--output", "json"];
    let version = toolyard.run(&nobody);
    let answer: Value = serde_json::from_slice(&version.stdout).expect("JSON");
    assert!(version.status.success() && answer["server"].is_null(), "{answer:#}");
    assert!(answer["problem"].as_str().is_some_and(|why| why.contains("cannot reach")), "{answer:#}");
    let tls = toolyard.run(&["keys", "list", "--url", &toolyard.url().replace("http://", "https://")]);
    assert!(!tls.status.success() && errors(&tls).contains("plain HTTP"), "{}", errors(&tls));
    let outcome = toolyard.run(&["calls", "--outcome", "nosuch"]);
    assert!(
        errors(&outcome).contains("--outcome") && errors(&outcome).contains("upstream_failed"),
        "{}",
        errors(&outcome)
    );
}

fn plain(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_toolyard"));
    command.current_dir(dir).env_remove("TOOLYARD_ENV").args(args).output().expect("toolyard runs")
}

#[test]
fn the_configuration_is_checked_in_json_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let check = |more: &[&str]| {
        let output = plain(dir.path(), &[&["config", "check", "--output", "json"], more].concat());
        let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        (output.status.code(), answer)
    };
    let (code, valid) = check(&[]);
    assert_eq!((code, &valid["ok"], &valid["problems"]), (Some(0), &json!(true), &json!([])), "{valid:#}");
    let told = valid["production_refuses"][0].as_str().unwrap_or_default();
    assert!(told.contains("public_url") && valid["production_refuses"][1].is_null(), "by its own defaults: {valid:#}");
    let (code, wrong) = check(&["--set", "colour=red"]);
    assert_eq!((code, &wrong["ok"]), (Some(78), &json!(false)), "{wrong:#}");
    assert!(wrong["problems"][0].as_str().expect("text").contains("colour"), "{wrong:#}");
    let (code, insecure) = check(&["--set", "env=production"]);
    assert_eq!((code, &insecure["ok"]), (Some(78), &json!(false)), "{insecure:#}");
}

#[test]
fn a_password_is_reset_where_toolyard_keeps_its_data_and_nowhere_else() {
    let empty = tempfile::tempdir().expect("a directory");
    let refused = plain(empty.path(), &["reset-password", "--output", "json"]);
    let answer: Value = serde_json::from_slice(&refused.stdout).expect("JSON");
    assert_eq!(refused.status.code(), Some(1));
    let message = answer["error"]["message"].as_str().expect("a message");
    assert!(message.contains("--data-dir") && !message.contains("backup"), "{message}");
    assert_eq!(std::fs::read_dir(empty.path()).expect("a directory").count(), 0, "nothing is made there");

    let toolyard = Toolyard::start(Engine::Sqlite);
    let data = toolyard.dir.path().join("data");
    let data_dir = data.to_str().expect("text");
    let reset = plain(empty.path(), &["reset-password", "--data-dir", data_dir, "--output", "json"]);
    let answer: Value = serde_json::from_slice(&reset.stdout).expect("JSON");
    assert_eq!(answer["email"], "admin@example.test", "{answer:#}");
    let file = std::fs::read_to_string(answer["file"].as_str().expect("a file")).expect("the file");
    let password = file.lines().find_map(|line| line.strip_prefix("# password: ")).expect("a password");
    assert!(!answer.to_string().contains(password) && !file.contains("http"), "{file}");

    for format in ["table", "json"] {
        let full = File::options().write(true).open("/dev/full").expect("it is there on Linux");
        let mut command = Command::new(env!("CARGO_BIN_EXE_toolyard"));
        command.args(["reset-password", "--data-dir", data_dir, "--output", format]);
        command.current_dir(empty.path()).env_remove("TOOLYARD_ENV").stdout(full);
        let untold = command.output().expect("toolyard runs");
        assert_eq!(untold.status.code(), Some(1), "{format}: {}", errors(&untold));
        assert!(errors(&untold).contains("first-sign-in.txt"), "{format}: {}", errors(&untold));
    }
}
