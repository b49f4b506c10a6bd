//! An agent of a toolbox of its own, ended with the test.

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;
use toolyard_test_support::{Toolyard, wait_until};

pub(crate) struct Agent(Child);

impl Agent {
    /// Joins as the toolbox `name`, and waits until it has a link.
    pub(crate) fn join(toolyard: &Toolyard, name: &str) -> Self {
        let enrolled = toolyard.json(&["toolboxes", "enroll", name]);
        let token = enrolled["token"].as_str().expect("a token");
        let own = |what: &str| -> PathBuf { toolyard.dir().join(format!("{name}-{what}")) };
        let log = std::fs::File::create(own("agent.log")).expect("a log");
        let mut command = toolyard.command();
        command
            .args(["dtma", "--token", token, "--data-dir"])
            .arg(own("agent"))
            .env("npm_config_registry", toolyard.registry_url())
            .env("npm_config_cache", own("npm-cache"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log);
        let agent = Self(command.spawn().expect("the agent starts"));
        wait_until(Duration::from_secs(60), "the toolbox is there", || link(toolyard, name)["connected"] == true);
        agent
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a replica says of its link to a toolbox.
pub(crate) fn link(toolyard: &Toolyard, name: &str) -> Value {
    toolyard.api("GET", &format!("/toolboxes/{name}")).send().json()["link"].clone()
}
