//! Running npm, uv and pip: bounded in time and output, behind the walls of a server, as a user of their own where we are
//! root, with an environment made from nothing, and where the host allows it with a network in which there is nothing but
//! a proxy to the registries.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use toolyard_types::agent::Failure;
use toolyard_types::spec::Limits;
use toolyard_types::state::Reason;
use toolyard_types::{InstanceId, Secret};

use super::failure;
use super::registries::Given;
use crate::docker::ImageClients;
use crate::docker::egress::{self, Listed, Way};
use crate::engine::Progress;
use crate::grants::Granted;
use crate::process::client;
use crate::process::wire::{Isolation, StartOrder};

pub(crate) const MAX_OUTPUT_BYTES: u64 = 64 << 20;
/// How much of what a client says is written down.
const TOLD_BYTES: usize = 64 << 10;
const TOLD_LINES: usize = 200;
/// How much of it is told as the reason why it failed.
const COMPLAINT_LINES: usize = 12;
/// How uv, npm and pip say that they do not trust a certificate.
const DISTRUST: &[&str] = &[
    "unknownissuer",
    "self_signed_cert",
    "unable_to_get_issuer_cert",
    "unable_to_verify_leaf_signature",
    "certificate_verify_failed",
];
const PROBE_TIMEOUT: Duration = Duration::from_secs(20);
/// What a client may use; large dependency trees take a lot.
pub(crate) const LIMITS: Limits =
    Limits { memory_bytes: 4 << 30, processes: 1024, cpu_millis: 0, disk_bytes: 16 << 30 };

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
    /// Hosts beyond the registries from which packages may be fetched, as `host`, `host:port` or `*.domain`.
    pub package_hosts: Vec<String>,
    /// Names of those that servers get too. A value that is an existing path is shown to them, read-only.
    pub for_servers: Vec<String>,
}

/// Where package clients run.
pub(crate) enum Clients {
    /// On this host, kept from everything that is not theirs.
    Host(Box<HostClients>),
    /// In containers, of the images that run the packages.
    Images(Box<ImageClients>),
}

impl Clients {
    /// Runs npm to its end, in the directory `work` of a workshop.
    pub(super) async fn npm(&self, arguments: &[&str], dir: &Path, timeout: Duration) -> Result<Output, Failure> {
        match self {
            Clients::Host(clients) => clients.npm(arguments, dir, timeout).await,
            Clients::Images(clients) => clients.npm(arguments, dir, timeout).await,
        }
    }

    /// Runs uv to its end, in the directory `work` of a workshop.
    pub(super) async fn uv(
        &self,
        uv: &Path,
        arguments: &[&str],
        dir: &Path,
        timeout: Duration,
    ) -> Result<Output, Failure> {
        match self {
            Clients::Host(clients) => clients.uv(uv, arguments, dir, timeout).await,
            Clients::Images(clients) => clients.uv(arguments, dir, timeout).await,
        }
    }

    /// What they are given.
    pub(super) fn given(&self) -> &Given {
        match self {
            Clients::Host(clients) => &clients.given,
            Clients::Images(clients) => clients.given(),
        }
    }

    /// The user they run as, when it is not ours.
    pub(super) fn uid(&self) -> Option<u32> {
        match self {
            Clients::Host(clients) => clients.walls.uid,
            Clients::Images(clients) => clients.uid(),
        }
    }
}

/// What keeps package clients of this host from everything that is not theirs.
#[derive(Clone, Debug)]
pub(crate) struct Walls {
    /// The program that makes the walls.
    pub(crate) supervisor: PathBuf,
    pub(crate) namespaces: bool,
    pub(crate) landlock: bool,
    pub(crate) seccomp: bool,
    pub(crate) own_network: bool,
    /// The user they run as, when it is not ours.
    pub(crate) uid: Option<u32>,
}

/// Package clients of this host.
pub(crate) struct HostClients {
    clients: PackageClients,
    given: Given,
    walls: Walls,
    way: Way,
    /// What they keep from one run to the next.
    cache: PathBuf,
    node: Option<Node>,
    python: Option<Python>,
}

impl HostClients {
    pub(crate) fn new(clients: PackageClients, walls: Walls, runtimes: &Runtimes, store: &Path) -> Self {
        let given = Given::of(&clients.environment, &clients.package_hosts);
        let proxy = |names: [&str; 2]| names.iter().find_map(|name| given.proxies.get(*name)).map(String::as_str);
        let way = Way::through(
            proxy(["HTTPS_PROXY", "https_proxy"]).or(proxy(["HTTP_PROXY", "http_proxy"])),
            proxy(["NO_PROXY", "no_proxy"]),
        );
        let (node, python) = (runtimes.node.clone(), runtimes.python.clone());
        Self { clients, given, walls, way, cache: store.join(super::store::CACHE), node, python }
    }

    /// Finds a program as a person would.
    pub(super) fn find_uv(&self) -> PathBuf {
        self.clients.find(&self.clients.uv)
    }

    async fn npm(&self, arguments: &[&str], dir: &Path, timeout: Duration) -> Result<Output, Failure> {
        let missing = |what: &str| failure(Reason::EngineUnavailable, format!("{what} was not found on this host"));
        let node = self.node.as_ref().ok_or_else(|| missing("Node.js"))?;
        let script = self.npm_script(node).ok_or_else(|| missing("npm"))?;
        // `lib/node_modules/npm/bin/npm-cli.js`
        let package = script.parent().and_then(Path::parent).unwrap_or(&script).to_owned();
        let mut read_only = vec![node.executable.clone(), package];
        read_only.extend(super::store::shared_node(node.executable.parent().unwrap_or(Path::new("/usr/bin"))));
        let argv = [node.executable.as_path(), script.as_path()];
        self.run(&argv, arguments, read_only, dir, timeout).await
    }

    /// npm itself, not what starts it: that may be a script of a version manager.
    fn npm_script(&self, node: &Node) -> Option<PathBuf> {
        let found = std::fs::canonicalize(self.clients.find(&self.clients.npm)).ok();
        let beside = || {
            let prefix = node.executable.parent()?.parent()?;
            std::fs::canonicalize(prefix.join("lib/node_modules/npm/bin/npm-cli.js")).ok()
        };
        found.filter(|path| path.extension().is_some_and(|end| end == "js")).or_else(beside)
    }

    async fn uv(&self, uv: &Path, arguments: &[&str], dir: &Path, timeout: Duration) -> Result<Output, Failure> {
        let uv = std::fs::canonicalize(uv).unwrap_or_else(|_| uv.to_owned());
        let read_only = self.python_paths().chain([uv.clone()]).collect();
        self.run(&[&uv], arguments, read_only, dir, timeout).await
    }

    /// Runs Python to its end, in the directory `work` of a workshop.
    pub(super) async fn python(&self, arguments: &[&str], dir: &Path, timeout: Duration) -> Result<Output, Failure> {
        let missing = || failure(Reason::EngineUnavailable, "Python was not found on this host");
        let python = self.python.as_ref().ok_or_else(missing)?;
        self.run(&[&python.executable], arguments, self.python_paths().collect(), dir, timeout).await
    }

    fn python_paths(&self) -> impl Iterator<Item = PathBuf> {
        let python = self.python.iter();
        python.flat_map(|python| [python.executable.clone(), python.prefix.join("bin"), python.prefix.join("lib")])
    }

    /// Makes the cache the clients' own. That of a data directory that was copied or restored belongs to a user of the
    /// installation before.
    fn own_cache(&self) -> std::io::Result<()> {
        use std::os::unix::fs::MetadataExt;
        if self.walls.uid.is_some_and(|uid| std::fs::metadata(&self.cache).is_ok_and(|cache| cache.uid() != uid)) {
            super::store::give(&self.cache, self.walls.uid)?;
        }
        super::store::give_top(&self.cache, self.walls.uid)
    }

    async fn run(
        &self,
        argv: &[&Path],
        arguments: &[&str],
        mut read_only: Vec<PathBuf>,
        dir: &Path,
        timeout: Duration,
    ) -> Result<Output, Failure> {
        let io_failure = |error: std::io::Error| failure(Reason::InstallFailed, format!("prepare a client: {error}"));
        let workshop = dir.parent().ok_or_else(|| failure(Reason::Internal, "a client needs a workshop"))?;
        let home = workshop.join("home");
        for own in [&home, &self.cache] {
            std::fs::create_dir_all(own).map_err(io_failure)?;
        }
        self.given.write_home(&home).map_err(io_failure)?;
        super::store::give(&home, self.walls.uid).map_err(io_failure)?;
        super::store::give_top(&home, self.walls.uid).map_err(io_failure)?;
        self.own_cache().map_err(io_failure)?;
        read_only.extend(self.given.shown.iter().cloned());
        read_only.extend(["/etc/uv", "/etc/pip.conf", "/etc/npmrc"].map(PathBuf::from));
        let granted = [&home, &self.cache].into_iter().map(|path| Granted::own(path)).collect::<Result<_, _>>();
        let texts = argv.iter().map(|part| part.to_string_lossy().into_owned());
        let order = StartOrder {
            instance: InstanceId::generate(),
            dir: workshop.to_owned(),
            argv: texts.chain(arguments.iter().map(|text| (*text).to_owned())).map(Secret::new).collect(),
            environment: self.environment(workshop, &home),
            isolation: Isolation {
                uid: self.walls.uid,
                namespaces: self.walls.namespaces,
                landlock: self.walls.landlock,
                seccomp: self.walls.seccomp,
                read_only,
                granted: granted.map_err(io_failure)?,
                ..Isolation::default()
            },
            limits: LIMITS,
            orphan_grace_ms: 0,
            stop_wait_ms: 0,
            log_dir: None,
            log_mark: String::new(),
            redact: vec![],
        };
        let listed = Listed::new(self.given.hosts.clone());
        let run = client::start(&self.walls.supervisor, order, self.walls.own_network).await;
        let run = run.map_err(|error| failure(Reason::EngineUnavailable, crate::instance::chain(&error)))?;
        let _proxy = run
            .listener
            .map(|listener| egress::serve_on(listener, Arc::clone(&listed), self.way.clone()))
            .transpose()
            .map_err(io_failure)?;
        let name = argv.last().and_then(|program| program.file_name()).unwrap_or_default().to_string_lossy();
        let mut output = to_end(run.child, &name, timeout).await?;
        output.tell_refused(&listed.refused());
        output.tell_distrust();
        Ok(output)
    }

    fn environment(&self, workshop: &Path, home: &Path) -> BTreeMap<String, Secret> {
        let mut environment = self.given.environment.clone();
        let bin = self.node.as_ref().and_then(|node| node.executable.parent()).unwrap_or(Path::new("/usr/bin"));
        let temporary = if self.walls.namespaces { PathBuf::from("/tmp") } else { workshop.join("tmp") };
        let cache = |name: &str| self.cache.join(name).to_string_lossy().into_owned();
        let own = [
            ("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", bin.display())),
            ("HOME", home.to_string_lossy().into_owned()),
            ("TMPDIR", temporary.to_string_lossy().into_owned()),
            ("LANG", "C.UTF-8".to_owned()),
            ("npm_config_cache", cache("npm")),
            ("UV_CACHE_DIR", cache("uv")),
            ("UV_PYTHON_DOWNLOADS", "never".to_owned()),
            ("PIP_CACHE_DIR", cache("pip")),
        ];
        environment.extend(own.map(|(name, value)| (name.to_owned(), value)));
        match self.walls.own_network {
            true => environment.extend(proxied()),
            false => environment.extend(self.given.proxies.clone()),
        }
        environment.into_iter().map(|(name, value)| (name, Secret::new(value))).collect()
    }
}

/// What tells clients of the proxy in their own network; a person's own proxy is the agent's affair then.
pub(crate) fn proxied() -> impl Iterator<Item = (String, String)> {
    let names =
        ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "npm_config_proxy", "npm_config_https_proxy"];
    let none = ["NO_PROXY", "no_proxy", "npm_config_noproxy"].map(|name| (name.to_owned(), String::new()));
    names.into_iter().map(|name| (name.to_owned(), egress::address())).chain(none)
}

/// Reads what a client says until it ends.
async fn to_end(mut child: tokio::process::Child, name: &str, timeout: Duration) -> Result<Output, Failure> {
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
    Ok(Output { success: status.success(), stdout: out, stderr, refused: vec![] })
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
    /// The hosts that it asked for and that are no registry, as `host:port`.
    pub(crate) refused: Vec<String>,
}

impl Output {
    /// Adds the hosts that it asked for and that are no registry.
    pub(crate) fn tell_refused(&mut self, refused: &[String]) {
        self.refused = refused.to_vec();
        if !self.success && !refused.is_empty() {
            let hosts = refused.join("`, `");
            self.stderr.push_str(&format!(
                "\npackages come from the configured registries only; refused: `{hosts}` (`package_hosts` lets more)\n"
            ));
        }
    }

    /// Adds what to do about a certificate that it does not trust.
    pub(crate) fn tell_distrust(&mut self) {
        let said = self.stderr.to_ascii_lowercase();
        if !self.success && DISTRUST.iter().any(|word| said.contains(word)) {
            self.stderr.push_str(
                "\nthe certificate there is of a CA that is not trusted here; `ca_bundle` of the toolbox's agent names a \
                 file with further CAs\n",
            );
        }
    }

    /// Whether it complains of an address at a host that is no registry: trying again changes nothing. Beside one it may
    /// have failed for another reason.
    pub(super) fn is_refused(&self) -> bool {
        let complaint = self.complaint().to_ascii_lowercase();
        let mut hosts = self.refused.iter().filter_map(|refused| Some(refused.rsplit_once(':')?.0));
        hosts.any(|host| {
            let address = format!("://{}", host.to_ascii_lowercase());
            let mut after = complaint.split(address.as_str()).skip(1);
            after.any(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.')))
        })
    }

    /// What it complained about, for a person: bounded, without addresses' passwords and tokens.
    pub(crate) fn complaint(&self) -> String {
        let telling = |line: &&str| !line.trim().is_empty() && !line.starts_with("npm warn Unknown env config");
        let mut lines = npm_complaint(&self.stderr);
        if lines.is_empty() {
            lines = self.stderr.lines().filter(telling).collect();
            lines.drain(..lines.len().saturating_sub(COMPLAINT_LINES));
        }
        let text = lines.join("\n");
        crate::process::log::bounded(without_secrets(&text), 800)
    }

    /// Writes down what it said, without what a complaint leaves out.
    pub(super) fn tell(&self, client: &str, log: Progress<'_>) {
        let said = String::from_utf8_lossy(&self.stdout[..self.stdout.len().min(TOLD_BYTES)]);
        let complained = self.stderr.lines().rev().take(TOLD_LINES).collect::<Vec<_>>();
        let lines = said.lines().take(TOLD_LINES).chain(complained.into_iter().rev());
        for line in lines.filter(|line| !line.trim().is_empty()) {
            let line = without_secrets(line);
            if !line.is_empty() {
                log(&format!("{client}: {line}"));
            }
        }
        if !self.success {
            log(&format!("{client} failed"));
        }
    }
}

/// What npm says went wrong, from where it begins to say so, and what others added after it; without the help that npm
/// prints of its command. Nothing of what another client says.
fn npm_complaint(stderr: &str) -> Vec<&str> {
    let is_error = |line: &&str| line.starts_with("npm error") || line.starts_with("npm ERR!");
    let said = |line: &str| line.trim_start_matches("npm error").trim_start_matches("npm ERR!").trim().to_owned();
    let all: Vec<&str> = stderr.lines().collect();
    let Some(last) = all.iter().rposition(is_error) else { return Vec::new() };
    let (npm, after) = all.split_at(last + 1);
    let errors: Vec<&str> = npm.iter().copied().filter(|line| is_error(line)).collect();
    let parts: Vec<&[&str]> = errors.split(|line| said(line).is_empty()).filter(|part| !part.is_empty()).collect();
    // The help begins with what the command is for.
    let usage = parts.iter().position(|part| part.first().is_some_and(|line| said(line) == "Usage:"));
    let kept = usage.map_or(parts.len(), |usage| usage.saturating_sub(1).max(1));
    let lines = parts.iter().take(kept).flat_map(|part| part.iter().copied());
    let lines = lines.filter(|line| !said(line).starts_with("A complete log of this run")).take(COMPLAINT_LINES);
    lines.chain(after.iter().copied().filter(|line| !line.trim().is_empty())).collect()
}

impl PackageClients {
    async fn ask<T: for<'de> Deserialize<'de>>(&self, program: &Path, arguments: &[&str]) -> Option<T> {
        let output = self.run(program, arguments, Path::new("/"), PROBE_TIMEOUT).await.ok()?;
        output.success.then(|| serde_json::from_slice(&output.stdout).ok())?
    }

    /// Runs an interpreter to its end, as the person would who set it.
    ///
    /// # Errors
    /// When it cannot be started or takes too long.
    async fn run(&self, program: &Path, arguments: &[&str], dir: &Path, timeout: Duration) -> Result<Output, Failure> {
        let name = program.display().to_string();
        let child = Command::new(self.find(program))
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
        to_end(child, &name, timeout).await
    }

    /// Finds a program by the `PATH` the clients get, not by ours.
    fn find(&self, program: &Path) -> PathBuf {
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
impl HostClients {
    /// Clients that are nowhere, for what is kept in `store`.
    pub(super) fn of_nothing(uid: Option<u32>, store: &Path) -> Self {
        let clients = PackageClients {
            npm: "npm".into(),
            node: "node".into(),
            python: vec![],
            uv: "uv".into(),
            environment: BTreeMap::new(),
            package_hosts: vec![],
            for_servers: vec![],
        };
        let walls = Walls {
            supervisor: PathBuf::new(),
            namespaces: false,
            landlock: false,
            seccomp: false,
            own_network: false,
            uid,
        };
        Self::new(clients, walls, &Runtimes::default(), store)
    }
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
            package_hosts: vec![],
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
    fn the_cache_of_a_copied_data_directory_becomes_the_clients_own() {
        use std::os::unix::fs::{MetadataExt, lchown};
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let clients = HostClients::of_nothing(Some(54_321), dir.path());
        let kept = clients.cache.join("npm/kept");
        std::fs::create_dir_all(kept.parent().expect("a directory")).expect("a directory");
        std::fs::write(&kept, "").expect("written");
        lchown(&clients.cache, Some(12_345), Some(12_345)).expect("root may");
        clients.own_cache().expect("root may");
        assert_eq!(std::fs::metadata(&kept).expect("it is there").uid(), 54_321);
    }

    #[test]
    fn a_complaint_of_npm_says_what_went_wrong_and_not_how_npm_is_used() {
        let help = "npm error\nnpm error Clean install a project\nnpm error\nnpm error Usage:\nnpm error npm ci\nnpm error\n\
                    npm error Options:\nnpm error [--no-fund]\nnpm error\nnpm error   --install-links\n\
                    npm error     When set file: protocol dependencies will be packed\nnpm error\n\
                    npm error aliases: ic\nnpm error\nnpm error Run \"npm help ci\" for more info\n\
                    npm error A complete log of this run can be found in: /x\n";
        let of = |stderr: String| Output { success: false, stdout: vec![], stderr, refused: vec![] }.complaint();
        let said = "npm warn deprecated x\nnpm error code EUSAGE\nnpm error\nnpm error Missing: a@1 from lock file\n";
        assert_eq!(of(format!("{said}{help}")), "npm error code EUSAGE\nnpm error Missing: a@1 from lock file");
        let old = format!("{said}{help}").replace("npm error", "npm ERR!");
        assert_eq!(of(old), "npm ERR! code EUSAGE\nnpm ERR! Missing: a@1 from lock file");
        // Of much it is the beginning that says why.
        let many: String = (0..100).map(|number| format!("npm error notarget {number}\n")).collect();
        let many = of(format!("npm error code ETARGET\n{many}"));
        assert!(
            many.starts_with("npm error code ETARGET\nnpm error notarget 0\n") && many.lines().count() <= 12,
            "{many}"
        );
        let added = "\npackages come from the configured registries only; refused: `x`\n";
        assert_eq!(
            of(format!("npm error code EALLOW\nnpm error A complete log of this run can be found in: /x\n{added}")),
            format!("npm error code EALLOW{}", added.trim_end())
        );
        assert_eq!(of("error: no\n  cause: such package\n".into()), "error: no\n  cause: such package");
    }

    #[test]
    fn a_complaint_holds_no_credentials() {
        let stderr = "npm error 401 GET https://me:s3cret@packages.example/x?key=abc\nnpm error _authToken=zzz";
        let output = Output { success: false, stdout: vec![], stderr: stderr.into(), refused: vec![] };
        assert_eq!(output.complaint(), "npm error 401 GET https://packages.example/x");
    }

    #[test]
    fn a_complaint_of_a_certificate_names_the_setting_for_it() {
        let of = |success, stderr: &str| {
            let mut output = Output { success, stdout: vec![], stderr: stderr.into(), refused: vec![] };
            output.tell_distrust();
            output.complaint()
        };
        for distrust in [
            "error: Failed to fetch: `https://py.example/simple/x/`\n  cause: invalid peer certificate: UnknownIssuer",
            "npm error code SELF_SIGNED_CERT_IN_CHAIN\nnpm error request to https://npm.example/x failed\n\
             npm error A complete log of this run can be found in: /x",
            "npm error code UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
            "WARNING: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed\nERROR: No matching distribution found",
        ] {
            assert!(of(false, distrust).contains("`ca_bundle`"), "{distrust}");
        }
        assert!(!of(true, "warning: UnknownIssuer").contains("ca_bundle"));
        assert!(!of(false, "npm error code ETIMEDOUT").contains("ca_bundle"));
    }

    #[test]
    fn only_an_address_that_a_client_complains_of_is_why_it_was_refused() {
        let refused = |stderr: &str| {
            let mut output = Output { success: false, stdout: vec![], stderr: stderr.into(), refused: vec![] };
            output.tell_refused(&["files.example:443".to_owned()]);
            output.is_refused()
        };
        for there in ["https://files.example/a.tgz", "http://Files.example:443/a.tgz", "https://files.example"] {
            assert!(refused(&format!("npm error code E403\nnpm error 403 403 Forbidden - GET {there}\n")), "{there}");
            assert!(refused(&format!("error: Failed to fetch: `{there}`\n  Caused by: tunnel error\n")), "{there}");
        }
        let elsewhere = "npm error code ETIMEDOUT\nnpm error request to https://registry.example/a failed\n";
        assert!(!refused(elsewhere), "it asked for both, and failed for the registry");
        assert!(!refused(&format!("npm warn GET https://files.example/a\n{elsewhere}")));
        assert!(!refused("npm error GET https://files.example.test/a\nnpm error GET https://files.example-2/a\n"));
    }
}
