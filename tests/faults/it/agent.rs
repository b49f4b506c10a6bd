//! An agent of a toolbox of its own, ended with the test.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;
use toolyard_test_support::{Toolyard, processes_with, signal, wait_until};

pub(crate) struct Agent {
    name: String,
    data_dir: PathBuf,
    child: Option<Child>,
}

impl Agent {
    /// Joins as the toolbox `name`, and waits until it has a link.
    pub(crate) fn join(toolyard: &Toolyard, name: &str) -> Self {
        let enrolled = toolyard.json(&["toolboxes", "enroll", name]);
        let token = enrolled["token"].as_str().expect("a token");
        let data_dir = toolyard.dir().join(format!("{name}-agent"));
        let mut agent = Self { name: name.to_owned(), data_dir, child: None };
        agent.spawn(toolyard, &["--token", token]);
        wait_until(Duration::from_secs(60), "the toolbox is there", || link(toolyard, name)["connected"] == true);
        agent
    }

    /// Starts it again on its data directory, without waiting for anything.
    pub(crate) fn start(&mut self, toolyard: &Toolyard) {
        self.spawn(toolyard, &[]);
    }

    fn spawn(&mut self, toolyard: &Toolyard, args: &[&str]) {
        let own = |what: &str| toolyard.dir().join(format!("{}-{what}", self.name));
        let log = OpenOptions::new().create(true).append(true).open(own("agent.log")).expect("a log");
        let mut command = toolyard.command();
        command
            .arg("dtma")
            .args(args)
            .arg("--data-dir")
            .arg(&self.data_dir)
            .env("npm_config_registry", toolyard.registry_url())
            .env("npm_config_cache", own("npm-cache"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log);
        self.child = Some(command.spawn().expect("the agent starts"));
    }

    /// `SIGKILL` to the agent itself, and to nothing else.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Ends what it ran before it was killed, as a reboot of its host does.
    pub(crate) fn end_servers(&self) {
        let mark = self.data_dir.display().to_string();
        wait_until(Duration::from_secs(20), "its servers have ended", || {
            let left = processes_with(&mark);
            left.iter().for_each(|pid| signal(*pid, "KILL"));
            left.is_empty()
        });
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a replica says of its link to a toolbox.
pub(crate) fn link(toolyard: &Toolyard, name: &str) -> Value {
    toolyard.api("GET", &format!("/toolboxes/{name}")).send().json()["link"].clone()
}
