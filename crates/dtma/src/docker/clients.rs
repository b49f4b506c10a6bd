//! Package clients in containers: npm and uv of the very image that will run what they install.
//!
//! A short-lived container of the base image, as a user that is nobody else's where we are root, with the directory being
//! filled mounted at its own path. Its network has nothing in it but a proxy to the registries; where the agent may not
//! enter a container's network it is this host's, and the toolbox says so. Install scripts never run, as everywhere. Its environment comes as a server's does: it may hold passwords of a registry or proxy.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::errors::Error as ApiError;
use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig};
use bollard::query_parameters::{AttachContainerOptionsBuilder, WaitContainerOptionsBuilder};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio_util::task::AbortOnDropHandle;
use toolyard_types::Secret;
use toolyard_types::agent::Failure;
use toolyard_types::state::Reason;

use super::egress::{self, Listed};
use super::{Docker, Handed, engine_failure, entry, existing, is_missing, mount};
use crate::desired::write_whole;
use crate::packages::{
    ASK_NODE, ASK_PYTHON, Given, LIMITS, MAX_OUTPUT_BYTES, Node, Output, PackageClients, Python, Runtimes, failure,
    give, proxied,
};
use crate::process::DiskWatch;

const PROBE_TIMEOUT: Duration = Duration::from_secs(30);

/// npm and uv in base images.
pub(crate) struct ImageClients {
    api: bollard::Docker,
    labels: std::collections::HashMap<String, String>,
    user: String,
    /// The user, when it is not ours.
    uid: Option<u32>,
    /// How the hosts of the registries are reached from a network of their own; none where it cannot be entered.
    way: Option<egress::Way>,
    node: Option<Node>,
    python: Option<Python>,
    names: BTreeMap<&'static str, String>,
    given: Given,
    /// Where temporary home directories are made.
    scratch: PathBuf,
}

/// What base images said of themselves, by their ids.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Known {
    node: BTreeMap<String, Node>,
    python: BTreeMap<String, Python>,
}

impl ImageClients {
    /// Asks the base images what is in them, once for each image.
    pub(super) async fn open(docker: &Docker, clients: &PackageClients, data_dir: &Path, uid: u32) -> Self {
        let uid = (nix::unistd::geteuid().is_root() && !docker.is_rootless()).then_some(uid);
        let user = match (docker.is_rootless(), uid) {
            // On a rootless engine this is who we are.
            (true, _) => "0:0".to_owned(),
            (false, Some(uid)) => format!("{uid}:{uid}"),
            (false, None) => format!("{}:{}", nix::unistd::geteuid(), nix::unistd::getegid()),
        };
        let (proxy, no_proxy) = (docker.options.proxy.as_deref(), docker.options.no_proxy.as_deref());
        let mut images = Self {
            api: docker.api.clone(),
            labels: docker.container_labels(),
            user,
            uid,
            way: docker.no_proxy.is_none().then(|| egress::Way::through(proxy, no_proxy)),
            node: None,
            python: None,
            names: BTreeMap::from([
                ("base_image_node", docker.options.base_image_node.clone()),
                ("base_image_python", docker.options.base_image_python.clone()),
            ]),
            given: Given::of(&clients.environment, &clients.package_hosts),
            scratch: data_dir.join("packages"),
        };
        let file = data_dir.join("base-images.json");
        let known = std::fs::read(&file).ok().and_then(|bytes| serde_json::from_slice::<Known>(&bytes).ok());
        let known = known.unwrap_or_default();
        let (node_name, python_name) = (&docker.options.base_image_node, &docker.options.base_image_python);
        let (node, python) = tokio::join!(
            images.ask(node_name, "node", &ASK_NODE, &known.node, |node: &mut Node, id| node.image = Some(id)),
            images.ask(python_name, "python3", &ASK_PYTHON, &known.python, |python: &mut Python, id| {
                python.image = Some(id);
            }),
        );
        let now = Known {
            node: node.iter().filter_map(|node| Some((node.image.clone()?, node.clone()))).collect(),
            python: python.iter().filter_map(|python| Some((python.image.clone()?, python.clone()))).collect(),
        };
        let saved = serde_json::to_vec(&now).map_err(std::io::Error::from).and_then(|bytes| write_whole(&file, &bytes));
        if let Err(error) = saved {
            tracing::debug!(%error, "the base images will be asked again at the next start");
        }
        (images.node, images.python) = (node, python);
        images
    }

    async fn ask<T: Clone + DeserializeOwned>(
        &self,
        image: &str,
        program: &str,
        arguments: &[&str],
        known: &BTreeMap<String, T>,
        set_image: impl Fn(&mut T, String),
    ) -> Option<T> {
        let id = match self.api.inspect_image(image).await {
            Ok(inspected) => inspected.id?,
            Err(error) => {
                if !is_missing(&error) {
                    tracing::warn!(image, %error, "look for a base image");
                }
                return None;
            }
        };
        if let Some(known) = known.get(&id) {
            return Some(known.clone());
        }
        let output = self.run(&id, program, arguments, Path::new("/"), PROBE_TIMEOUT).await;
        let output = output.inspect_err(|failure| tracing::warn!(image, message = failure.message, "ask a base image"));
        let output = output.ok()?;
        if !output.success {
            tracing::warn!(image, complaint = output.complaint(), "a base image lacks what it is for");
            return None;
        }
        let mut told: T = serde_json::from_slice(&output.stdout).ok()?;
        set_image(&mut told, id);
        Some(told)
    }

    /// What the clients are given.
    pub(crate) fn given(&self) -> &Given {
        &self.given
    }

    /// The user they run as, when it is not ours.
    pub(crate) fn uid(&self) -> Option<u32> {
        self.uid
    }

    /// What the base images run.
    pub(crate) fn runtimes(&self) -> Runtimes {
        Runtimes { node: self.node.clone(), python: self.python.clone() }
    }

    /// Says that there is no image for something.
    pub(crate) fn missing(&self, what: &str, setting: &str) -> Failure {
        let name = self.names.get(setting).map(String::as_str).unwrap_or_default();
        let message = format!(
            "the container engine has no image `{name}` with {what} in it; build one with deploy/images/build.sh, or \
             set `{setting}`, then restart the agent"
        );
        failure(Reason::EngineUnavailable, message)
    }

    /// Runs npm to its end.
    pub(crate) async fn npm(&self, arguments: &[&str], dir: &Path, timeout: Duration) -> Result<Output, Failure> {
        let image = self.node.as_ref().and_then(|node| node.image.as_deref());
        let image = image.ok_or_else(|| self.missing("Node.js", "base_image_node"))?;
        self.run(image, "npm", arguments, dir, timeout).await
    }

    /// Runs uv to its end.
    pub(crate) async fn uv(&self, arguments: &[&str], dir: &Path, timeout: Duration) -> Result<Output, Failure> {
        let image = self.python.as_ref().and_then(|python| python.image.as_deref());
        let image = image.ok_or_else(|| self.missing("Python 3.10 or newer", "base_image_python"))?;
        self.run(image, "uv", arguments, dir, timeout).await
    }

    async fn run(
        &self,
        image: &str,
        program: &str,
        arguments: &[&str],
        dir: &Path,
        timeout: Duration,
    ) -> Result<Output, Failure> {
        let home = self.home().map_err(|error| failure(Reason::InstallFailed, error.to_string()))?;
        let path = "/usr/local/bin:/usr/bin:/bin".to_owned();
        let mut environment = self.given.environment.clone();
        match self.way {
            Some(_) => environment.extend(proxied()),
            None => environment.extend(self.given.proxies.clone()),
        }
        environment
            .extend([("HOME".to_owned(), home.path().to_string_lossy().into_owned()), ("PATH".to_owned(), path)]);
        let handed = Handed {
            environment: environment
                .into_iter()
                .filter(|(name, _)| entry::is_variable(name))
                .map(|(name, value)| (name, Secret::new(value)))
                .collect(),
            argv: std::iter::once(program).chain(arguments.iter().copied()).map(Secret::new).collect(),
        };
        let body = self.body(image, dir, home.path());
        let listed = Listed::new(self.given.hosts.clone());
        let work = tokio::time::timeout(timeout, self.run_to_end(body, &handed, &listed));
        let filled = [dir, home.path()].into_iter().filter(|dir| *dir != Path::new("/")).map(Path::to_owned);
        let result = tokio::select! {
            result = work => result,
            excess = excess_on_disk(filled.collect()) => {
                return Err(failure(Reason::InstallFailed, format!("`{program}` was ended: {excess}")));
            }
        };
        match result {
            Ok(Ok(mut output)) => {
                output.tell_refused(&listed.refused());
                output.tell_distrust();
                Ok(output)
            }
            Ok(Err(error)) => Err(engine_failure(&error)),
            Err(_) => {
                let message = format!("`{program}` did not end within {} s", timeout.as_secs());
                Err(failure(Reason::InstallFailed, message))
            }
        }
    }

    fn body(&self, image: &str, dir: &Path, home: &Path) -> ContainerCreateBody {
        let mut mounts: Vec<_> =
            existing(self.given.shown.iter().cloned()).iter().map(|path| mount(path, true)).collect();
        mounts.push(mount(home, false));
        if dir != Path::new("/") {
            mounts.push(mount(dir, false));
        }
        ContainerCreateBody {
            image: Some(image.to_owned()),
            user: Some(self.user.clone()),
            working_dir: Some(dir.to_string_lossy().into_owned()),
            entrypoint: Some(entry::entrypoint()),
            cmd: Some(Vec::new()),
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            open_stdin: Some(true),
            stdin_once: Some(true),
            labels: Some(self.labels.clone()),
            host_config: Some(HostConfig {
                init: Some(true),
                readonly_rootfs: Some(true),
                cap_drop: Some(vec!["ALL".into()]),
                security_opt: Some(vec!["no-new-privileges".into()]),
                memory: i64::try_from(LIMITS.memory_bytes).ok(),
                memory_swap: i64::try_from(LIMITS.memory_bytes).ok(),
                pids_limit: Some(i64::from(LIMITS.processes)),
                mounts: Some(mounts),
                network_mode: Some(if self.way.is_some() { "none" } else { "host" }.into()),
                log_config: Some(HostConfigLogConfig { typ: Some("none".into()), config: None }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    async fn run_to_end(
        &self,
        body: ContainerCreateBody,
        handed: &Handed,
        listed: &Arc<Listed>,
    ) -> Result<Output, ApiError> {
        let created = self.api.create_container(None, body).await?;
        let mut removal = Removal::of(&self.api, &created.id);
        let options = AttachContainerOptionsBuilder::new().stdin(true).stdout(true).stderr(true).stream(true).build();
        let mut attached = self.api.attach_container(&created.id, Some(options)).await?;
        self.api.start_container(&created.id, None).await?;
        // It waits for what it is handed, so nothing has run there yet.
        let _proxy = match &self.way {
            Some(way) => Some(self.open_proxy(&created.id, listed, way.clone()).await?),
            None => None,
        };
        let preamble = entry::preamble(handed);
        attached.input.write_all(&preamble).await.map_err(|err| ApiError::IOError { err })?;
        attached.input.flush().await.map_err(|err| ApiError::IOError { err })?;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        while let Some(piece) = attached.output.next().await {
            let (out, piece) = match piece? {
                LogOutput::StdErr { message } => (&mut stderr, message),
                LogOutput::StdOut { message } | LogOutput::Console { message } => (&mut stdout, message),
                LogOutput::StdIn { .. } => continue,
            };
            let room = usize::try_from(MAX_OUTPUT_BYTES).unwrap_or(usize::MAX).saturating_sub(out.len());
            out.extend_from_slice(piece.get(..room.min(piece.len())).unwrap_or_default());
        }
        let options = WaitContainerOptionsBuilder::new().condition("not-running").build();
        let code = match self.api.wait_container(&created.id, Some(options)).next().await {
            Some(Ok(answer)) => answer.status_code,
            Some(Err(ApiError::DockerContainerWaitError { code, .. })) => code,
            Some(Err(error)) => return Err(error),
            None => return Err(ApiError::RequestTimeoutError),
        };
        removal.now().await;
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        Ok(Output { success: code == 0, stdout, stderr, refused: vec![] })
    }

    /// Opens the proxy to the registries in a container's network.
    async fn open_proxy(
        &self,
        container: &str,
        listed: &Arc<Listed>,
        way: egress::Way,
    ) -> Result<AbortOnDropHandle<()>, ApiError> {
        let inspected = self.api.inspect_container(container, None).await?;
        let pid = inspected.state.and_then(|state| state.pid).and_then(|pid| u32::try_from(pid).ok());
        let pid = pid.filter(|pid| *pid > 0).ok_or(ApiError::RequestTimeoutError)?;
        egress::serve_in(pid, Arc::clone(listed), way).map_err(|err| ApiError::IOError { err })
    }

    /// A home directory with a person's own settings, for one run.
    fn home(&self) -> std::io::Result<tempfile::TempDir> {
        use std::os::unix::fs::PermissionsExt;
        let own = std::fs::Permissions::from_mode(0o700);
        let home = tempfile::Builder::new().prefix(".scratch-home-").permissions(own).tempdir_in(&self.scratch)?;
        self.given.write_home(home.path())?;
        give(home.path(), self.uid)?;
        Ok(home)
    }
}

/// Watches what a client keeps in directories of this host, which the engine does not bound; comes back when that is
/// more than it may.
async fn excess_on_disk(dirs: Vec<PathBuf>) -> String {
    let mut watch = DiskWatch::new(dirs, LIMITS.disk_bytes);
    loop {
        tokio::time::sleep(watch.next_look()).await;
        let look = move || {
            // Its processes may be another host's; what they have open and deleted goes with them.
            let found = watch.look(None);
            (watch, found)
        };
        watch = match tokio::task::spawn_blocking(look).await {
            Ok((watch, None)) => watch,
            Ok((_, Some(found))) => return found,
            Err(error) => return format!("what it keeps on disk cannot be measured: {error}"),
        };
    }
}

/// Removes a container when it is done or given up.
pub(super) struct Removal {
    api: bollard::Docker,
    id: Option<String>,
}

impl Removal {
    pub(super) fn of(api: &bollard::Docker, id: &str) -> Self {
        Self { api: api.clone(), id: Some(id.to_owned()) }
    }

    pub(super) async fn now(&mut self) {
        if let Some(id) = self.id.take()
            && let Err(error) = super::remove(&self.api, &id).await
        {
            tracing::warn!(container.id = id, %error, "remove a container");
        }
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        let (Some(id), Ok(runtime)) = (self.id.take(), tokio::runtime::Handle::try_current()) else { return };
        let api = self.api.clone();
        // Bounded by the request's own time limit; what is left is removed at the next start.
        runtime.spawn(async move { super::remove(&api, &id).await });
    }
}
