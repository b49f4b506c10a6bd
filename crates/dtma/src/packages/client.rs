//! Running npm, uv and the interpreters: bounded in time and output, with an environment that is given.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use toolyard_types::agent::Failure;
use toolyard_types::state::Reason;

use super::failure;
use crate::docker::ImageClients;

pub(crate) const MAX_OUTPUT_BYTES: u64 = 64 << 20;
const PROBE_TIMEOUT: Duration = Duration::from_secs(20);

/// What Node.js is asked to tell of itself.
pub(crate) const ASK_NODE: [&str; 2] =
    ["-e", "console.log(JSON.stringify({executable: process.execPath, version: process.version.slice(1)}))"];
/// What Python is asked to tell of itself; it fails where it could not run packages.
pub(crate) const ASK_PYTHON: [&str; 3] = [
    "-I",
    "-c",
    "import json, os, sys; \
    assert sys.version_info >= (3, 10); import venv; \
    print(json.dumps({'executable': os.path.realpath(sys._base_executable), 'prefix': sys.base_prefix, \
    'version': '%d.%d.%d' % sys.version_info[:3]}))",
];

/// The programs that install and run packages.
#[derive(Clone, Debug)]
pub struct PackageClients {
    /// `npm`, or its path.
    pub npm: PathBuf,
    /// `node`, or its path.
    pub node: PathBuf,
    /// Python interpreters, best first.
    pub python: Vec<PathBuf>,
    /// `uv`, or its path; fetched into the store when it is not there.
    pub uv: PathBuf,
    /// The whole environment of package clients: `PATH`, `HOME`, proxy, certificates.
    pub environment: BTreeMap<String, String>,
    /// Names of those that servers get too. A value that is an existing path is shown to them, read-only.
    pub for_servers: Vec<String>,
}

/// Where package clients run.
#[derive(Debug)]
pub(crate) enum Clients {
    /// On this host.
    Host(PackageClients),
    /// In containers, of the images that run the packages.
    Images(Box<ImageClients>),
}

impl Clients {
    /// Runs npm to its end.
    pub(super) async fn npm(&self, arguments: &[&str], dir: &Path, timeout: Duration) -> Result<Output, Failure> {
        match self {
            Clients::Host(clients) => clients.run(&clients.npm, arguments, dir, timeout).await,
            Clients::Images(clients) => clients.npm(arguments, dir, timeout).await,
        }
    }

    /// Runs uv to its end.
    pub(super) async fn uv(
        &self,
        uv: &Path,
        arguments: &[&str],
        dir: &Path,
        timeout: Duration,
    ) -> Result<Output, Failure> {
        match self {
            Clients::Host(clients) => clients.run(uv, arguments, dir, timeout).await,
            Clients::Images(clients) => clients.uv(arguments, dir, timeout).await,
        }
    }
}

/// The interpreters found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Runtimes {
    pub(crate) node: Option<Node>,
    pub(crate) python: Option<Python>,
}

/// Node.js.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Node {
    pub(crate) executable: PathBuf,
    pub(crate) version: String,
    /// The image it is in, by id; none on this host.
    #[serde(default)]
    pub(crate) image: Option<String>,
}

/// Python.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Python {
    pub(crate) executable: PathBuf,
    pub(crate) prefix: PathBuf,
    pub(crate) version: String,
    /// The image it is in, by id; none on this host.
    #[serde(default)]
    pub(crate) image: Option<String>,
}

impl Runtimes {
    /// Looks for interpreters, all at once; `open_only` tells meanwhile whether only those will do that every
    /// user can reach.
    pub(crate) async fn detect(clients: &PackageClients, open_only: impl Future<Output = bool>) -> Self {
        let pythons =
            clients.python.iter().map(|candidate| async move { clients.ask::<Python>(candidate, &ASK_PYTHON).await });
        let node = clients.ask::<Node>(&clients.node, &ASK_NODE);
        let (node, pythons, open_only) = tokio::join!(node, futures_util::future::join_all(pythons), open_only);
        let usable = |program: &Path| !open_only || crate::process::open_to_all(program);
        Self {
            node: node.filter(|node| usable(&node.executable)),
            python: pythons.into_iter().flatten().find(|python| usable(&python.executable)),
        }
    }

    /// For the toolbox's report.
    pub(crate) fn versions(&self) -> BTreeMap<String, String> {
        let node = self.node.iter().map(|node| ("node".to_owned(), node.version.clone()));
        let python = self.python.iter().map(|python| ("python".to_owned(), python.version.clone()));
        node.chain(python).collect()
    }
}

/// What a client said.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) success: bool,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Output {
    /// What it complained about, for a person: bounded, without addresses' passwords and tokens.
    pub(crate) fn complaint(&self) -> String {
        let lines: Vec<&str> = self.stderr.lines().filter(|line| !line.trim().is_empty()).collect();
        let text = lines[lines.len().saturating_sub(12)..].join("\n");
        crate::process::log::bounded(without_secrets(&text), 800)
    }
}

impl PackageClients {
    async fn ask<T: for<'de> Deserialize<'de>>(&self, program: &Path, arguments: &[&str]) -> Option<T> {
        let output = self.run(program, arguments, Path::new("/"), PROBE_TIMEOUT).await.ok()?;
        output.success.then(|| serde_json::from_slice(&output.stdout).ok())?
    }

    /// Runs a client to its end.
    ///
    /// # Errors
    /// When it cannot be started or takes too long.
    pub(super) async fn run(
        &self,
        program: &Path,
        arguments: &[&str],
        dir: &Path,
        timeout: Duration,
    ) -> Result<Output, Failure> {
        let name = program.display();
        let mut child = Command::new(self.find(program))
            .args(arguments)
            .current_dir(dir)
            .env_clear()
            .envs(&self.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failure(Reason::EngineUnavailable, format!("start `{name}`: {error}")))?;
        // Dropped before `child`: a group's number is safe to use while its leader was not waited for.
        let mut group = Group::of(&child);
        let stdout = child.stdout.take().expect("standard output was asked to be a pipe");
        let stderr = child.stderr.take().expect("standard error was asked to be a pipe");
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let work = async {
            let mut out_reader = stdout.take(MAX_OUTPUT_BYTES);
            let mut err_reader = stderr.take(MAX_OUTPUT_BYTES);
            let (a, b) = tokio::join!(out_reader.read_to_end(&mut out), err_reader.read_to_end(&mut err));
            a.and(b)?;
            child.wait().await
        };
        let status = match tokio::time::timeout(timeout, work).await {
            Ok(Ok(status)) => status,
            Ok(Err(error)) => return Err(failure(Reason::InstallFailed, format!("run `{name}`: {error}"))),
            Err(_) => {
                let message = format!("`{name}` did not end within {} s", timeout.as_secs());
                return Err(failure(Reason::InstallFailed, message));
            }
        };
        group.0 = None;
        let stderr = String::from_utf8_lossy(&err).into_owned();
        Ok(Output { success: status.success(), stdout: out, stderr })
    }

    /// Finds a program by the `PATH` the clients get, not by ours.
    pub(super) fn find(&self, program: &Path) -> PathBuf {
        if program.components().count() > 1 {
            return program.to_owned();
        }
        let path = self.environment.get("PATH").map(String::as_str).unwrap_or_default();
        let found = path.split(':').map(|dir| Path::new(dir).join(program)).find(|file| file.is_file());
        found.unwrap_or_else(|| program.to_owned())
    }
}

/// A client's process group: clients start programs of their own, which end with them when we give up.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &tokio::process::Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Nothing of it may be left; then there is nothing to end.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

/// `text` with `user:password@` and query strings cut out of addresses, and lines about tokens left out.
fn without_secrets(text: &str) -> String {
    let telling = |line: &&str| {
        let line = line.to_ascii_lowercase();
        !["_auth", "password", "token", "authorization"].iter().any(|word| line.contains(word))
    };
    let lines = text.lines().filter(telling).map(|line| line.split(' ').map(clean_word).collect::<Vec<_>>().join(" "));
    lines.collect::<Vec<_>>().join("\n")
}

fn clean_word(word: &str) -> String {
    let Some((scheme, rest)) = word.split_once("://") else { return word.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority.rsplit('@').next().unwrap_or_default();
    let path = path.split(['?', '#']).next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_that_takes_too_long_ends_with_everything_it_started() {
        let dir = tempfile::tempdir().expect("a directory");
        let clients = PackageClients {
            npm: "npm".into(),
            node: "node".into(),
            python: vec![],
            uv: "uv".into(),
            environment: BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into())]),
            for_servers: vec![],
        };
        let script = "sleep 1000 >/dev/null 2>&1 & echo $! > pid; wait";
        let late = clients.run(Path::new("sh"), &["-c", script], dir.path(), Duration::from_secs(2)).await;
        assert!(late.expect_err("late").message.contains("did not end"));
        let pid: i32 =
            std::fs::read_to_string(dir.path().join("pid")).expect("it began").trim().parse().expect("a pid");
        let gone = async {
            while std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), gone).await.expect("nothing is left");
    }

    #[test]
    fn a_complaint_holds_no_credentials() {
        let stderr = "npm error 401 GET https://me:s3cret@packages.example/x?key=abc\nnpm error _authToken=zzz";
        let output = Output { success: false, stdout: vec![], stderr: stderr.into() };
        assert_eq!(output.complaint(), "npm error 401 GET https://packages.example/x");
    }
}
