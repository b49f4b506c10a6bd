//! `toolyard dtma` processes, each on a host.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::network::Host;
use crate::world::{Toolyard, alive, pause, processes_with, signal, test_variable};

const ONLINE: Duration = Duration::from_secs(90);

/// What runs servers on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runs {
    Processes,
    Containers,
}

/// An agent of this test's own. Stopped with its servers when dropped.
pub(crate) struct Agent {
    child: Option<Child>,
    pub(crate) dir: tempfile::TempDir,
    host: Option<Host>,
    runs: Runs,
    settings: Vec<String>,
    listen: Option<String>,
    real_packages: bool,
}

impl Agent {
    /// An agent that is not started yet.
    pub(crate) fn new(host: Option<&Host>, runs: Runs) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        Self { child: None, dir, host: host.cloned(), runs, settings: Vec::new(), listen: None, real_packages: false }
    }

    /// The same with a setting, as `name=value`.
    pub(crate) fn with(mut self, setting: String) -> Self {
        self.settings.push(setting);
        self
    }

    /// The same, waiting for its control plane at this address instead of dialling it.
    pub(crate) fn listening(mut self, address: &str) -> Self {
        self.listen = Some(address.to_owned());
        self
    }

    /// The same with packages from the registry that this machine uses, not the test's own.
    pub(crate) fn with_real_packages(mut self) -> Self {
        self.real_packages = true;
        self
    }

    /// A new toolbox with its agent, online.
    #[track_caller]
    pub(crate) fn enrolled(toolyard: &Toolyard, name: &str, labels: &str, host: Option<&Host>, runs: Runs) -> Self {
        Self::new(host, runs).joined(toolyard, name, labels)
    }

    /// A new toolbox with this agent, online.
    #[track_caller]
    pub(crate) fn joined(mut self, toolyard: &Toolyard, name: &str, labels: &str) -> Self {
        let token = toolyard.enroll(name, labels);
        self.start(toolyard, Some(&token));
        self.wait_online(toolyard, name);
        self
    }

    /// Starts it (again) on its data directory.
    pub(crate) fn start(&mut self, toolyard: &Toolyard, token: Option<&str>) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.path().join("agent.log"));
        let log = log.expect("a log file");
        let mut command = self.command(toolyard);
        if let Some(token) = token {
            command.args(["--token", token]);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
        self.child = Some(command.spawn().expect("the agent starts"));
    }

    /// `toolyard dtma` with its options, not started.
    pub(crate) fn command(&self, toolyard: &Toolyard) -> Command {
        let mut command = match &self.host {
            Some(host) => host.command(toolyard.program()),
            None => Command::new(toolyard.program()),
        };
        toolyard.furnish(&mut command);
        if !self.real_packages {
            toolyard.furnish_packages(&mut command);
        }
        command.current_dir(self.dir.path()).args(["dtma", "--data-dir"]).arg(self.data());
        match self.runs {
            Runs::Processes => command.args(["--engine", "process"]),
            Runs::Containers => {
                command.env("DOCKER_HOST", test_variable("TOOLYARD_TEST_DOCKER_HOST")).args(["--engine", "docker"])
            }
        };
        command.args(self.listen.iter().flat_map(|address| ["--listen", address]));
        command.args(self.settings.iter().flat_map(|setting| ["--set", setting]));
        command
    }

    /// Its data directory.
    pub(crate) fn data(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running agent").id()
    }

    /// Waits until its toolbox is online and linked; how long that took.
    #[track_caller]
    pub(crate) fn wait_online(&self, toolyard: &Toolyard, name: &str) -> Duration {
        let began = Instant::now();
        loop {
            let toolbox = toolyard.toolbox(name);
            if toolbox["state"] == "online" && toolbox["link"]["connected"] == true {
                return began.elapsed();
            }
            assert!(began.elapsed() < ONLINE, "{name} is {toolbox:#}\n{}\n{}", self.log(), toolyard.log_text());
            pause();
        }
    }

    /// What it wrote.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("agent.log")).unwrap_or_default()
    }

    /// `SIGKILL`, to the agent and nothing else.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// The processes of its host that are its own work: supervisors and servers.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let own = self.child.as_ref().map(Child::id);
        processes_with(&self.dir.path().display().to_string())
            .into_iter()
            .filter(|pid| Some(*pid) != own && *pid != std::process::id())
            .collect()
    }

    /// Ctrl-C: its servers are stopped too. `false` when it did not end in time.
    pub(crate) fn interrupt(&mut self) -> bool {
        let Some(mut child) = self.child.take() else { return true };
        signal(child.id(), "CONT");
        signal(child.id(), "INT");
        let until = Instant::now() + Duration::from_secs(30);
        while Instant::now() < until {
            if matches!(child.try_wait(), Ok(Some(_))) {
                return true;
            }
            pause();
        }
        let _ = child.kill();
        let _ = child.wait();
        false
    }

    /// The certificate, its key and everything else that says who it is.
    pub(crate) fn steal_identity(&self, other: &Self) {
        let (from, to) = (self.data().join("identity"), other.data().join("identity"));
        std::fs::create_dir_all(&to).expect("a directory");
        for file in std::fs::read_dir(from).expect("an identity").flatten() {
            std::fs::copy(file.path(), to.join(file.file_name())).expect("a copy");
        }
        let mode = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o700);
        std::fs::set_permissions(Path::new(&to), mode).expect("its mode");
    }

    /// Has it, before its start, know no other control plane than the one at this address.
    pub(crate) fn ask_only(&self, address: &str) {
        let path = self.data().join("identity/identity.json");
        let text = std::fs::read_to_string(&path).expect("an identity");
        let mut identity: Value = serde_json::from_str(&text).expect("JSON");
        identity["addresses"] = json!([address]);
        std::fs::write(&path, identity.to_string()).expect("the file is written");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.interrupt();
        for pid in self.processes().into_iter().filter(|pid| alive(*pid)) {
            signal(pid, "KILL");
        }
    }
}

/// The process of a server's only instance.
#[track_caller]
pub(crate) fn pid_of(server: &Value) -> u32 {
    let pid = server["instances"][0]["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
    pid.unwrap_or_else(|| panic!("no running instance: {server:#}"))
}
