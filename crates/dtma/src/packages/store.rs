//! The directories of the store: made whole, verified before use, collected when nobody needs them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use toolyard_types::agent::Failure;
use toolyard_types::spec::{Lock, Runtime};
use toolyard_types::state::Reason;

use super::client::{Clients, Node, Python, Runtimes};
use super::manifest::{Manifest, hex};
use super::turns::{Turn, Turns};
use super::{failure, npm, pypi};
use crate::docker::ImageRun;
use crate::engine::Progress;
use crate::removals::Removals;

pub(super) const RESOLVE_TIMEOUT: Duration = Duration::from_secs(180);
pub(super) const INSTALL_TIMEOUT: Duration = Duration::from_secs(900);
/// How long a package of a version stays resolved as it was, while what it was resolved to is installed: the
/// second server of a package starts without asking its registry.
const FRESH: Duration = Duration::from_secs(3600);
/// How many are remembered; a lock may be large.
const MAX_RESOLVED: usize = 32;
/// What clients keep from one run to the next is thrown away when it has grown to more than this.
const MAX_CACHE_BYTES: u64 = 2 << 30;
/// A file takes at least this, whatever is in it.
const LEAST_BYTES: u64 = 4096;

/// A package that is installed, and how to start it.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    /// The program and its first arguments.
    pub(crate) argv: Vec<PathBuf>,
    /// What the server must see: its package and its interpreter.
    pub(crate) read_only: Vec<PathBuf>,
    /// Where the interpreter is, for `PATH`.
    pub(crate) path: PathBuf,
    /// The image it runs in; none on this host.
    pub(crate) image: Option<ImageRun>,
}

/// What a directory of the store was made from.
#[derive(Debug, Serialize, Deserialize)]
struct Meta {
    lock_digest: String,
    manifest: Manifest,
}

/// The package store of an agent.
pub(crate) struct Store {
    dir: PathBuf,
    clients: Clients,
    runtimes: Runtimes,
    turns: Turns,
    keys: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
    uv: tokio::sync::Mutex<Option<PathBuf>>,
    /// By kind, name, version and what is wanted with it; no older than [`FRESH`].
    resolved: Mutex<BTreeMap<Vec<String>, (Instant, Lock)>>,
    boot: String,
    removals: Removals,
}

impl Store {
    /// Opens the store in `dir` and throws away what an earlier agent left half-made.
    pub(crate) fn open(
        dir: PathBuf,
        clients: Clients,
        runtimes: Runtimes,
        removals: Removals,
    ) -> std::io::Result<Self> {
        std::fs::create_dir_all(&dir)?;
        for entry in std::fs::read_dir(&dir)?.flatten() {
            if is_scratch(&entry) {
                removals.begin(entry.path(), |_| ());
            }
        }
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Ok(Self {
            dir,
            clients,
            runtimes,
            turns: Turns::new(),
            keys: Mutex::default(),
            uv: tokio::sync::Mutex::default(),
            resolved: Mutex::default(),
            boot,
            removals,
        })
    }

    /// Turns a package into a full lock. What its client says is written to `log`.
    ///
    /// # Errors
    /// When there is no such package, or it cannot be run here.
    pub(crate) async fn resolve(
        &self,
        runtime: &Runtime,
        progress: Progress<'_>,
        log: Progress<'_>,
    ) -> Result<Lock, Failure> {
        let (kind, package) = match runtime {
            Runtime::Npm(package) => ("npm", package),
            Runtime::Pypi(package) => ("pypi", package),
            Runtime::Oci(_) | Runtime::Remote(_) => return Err(unsupported()),
        };
        let name: Vec<String> = [kind, package.identifier.as_str(), package.version.as_str()]
            .into_iter()
            .map(str::to_owned)
            .chain(package.with.iter().cloned())
            .collect();
        if let Some(lock) = self.fresh(&name)
            && self.dir.join(self.key(runtime, &lock)?).is_dir()
        {
            return Ok(lock);
        }
        let lock = self.ask(runtime, progress, log).await?;
        // Without a version the newest is meant, and a tag may be moved at any time.
        if package.version.starts_with(|first: char| first.is_ascii_digit()) {
            let mut resolved = self.resolved.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if resolved.len() >= MAX_RESOLVED {
                resolved.clear();
            }
            resolved.insert(name, (Instant::now(), lock.clone()));
        }
        Ok(lock)
    }

    fn fresh(&self, name: &[String]) -> Option<Lock> {
        let mut resolved = self.resolved.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        resolved.retain(|_, (at, _)| at.elapsed() < FRESH);
        resolved.get(name).map(|(_, lock)| lock.clone())
    }

    async fn ask(&self, runtime: &Runtime, progress: Progress<'_>, log: Progress<'_>) -> Result<Lock, Failure> {
        let _turn = self.turn_to_install(runtime, progress).await;
        let (_workshop, work) = self.workshop()?;
        match runtime {
            Runtime::Npm(package) if !package.with.is_empty() => {
                Err(failure(Reason::ConfigInvalid, "only a PyPI package can have further requirements"))
            }
            Runtime::Npm(package) => {
                self.node()?;
                npm::resolve(&self.clients, package, &work, log).await
            }
            Runtime::Pypi(package) => {
                let uv = self.uv().await?;
                let tools = pypi::Tools { clients: &self.clients, uv: &uv, python: self.python()?, log };
                pypi::resolve(&tools, package, &work).await
            }
            Runtime::Oci(_) | Runtime::Remote(_) => Err(unsupported()),
        }
    }

    /// Makes sure that exactly what `lock` names is installed and unchanged. What its client says is written to `log`.
    ///
    /// # Errors
    /// When it cannot be installed, or not be run here.
    pub(crate) async fn prepare(
        &self,
        runtime: &Runtime,
        lock: &Lock,
        progress: Progress<'_>,
        log: Progress<'_>,
    ) -> Result<Prepared, Failure> {
        check_digest(lock)?;
        let key = self.key(runtime, lock)?;
        let turn = self.turn(&key);
        let _turn = turn.lock().await;
        let dir = self.dir.join(&key);
        if !self.verify(&dir).await? {
            self.install(runtime, lock, &dir, (progress, log)).await?;
        }
        self.prepared(runtime, &dir.join("files"))
    }

    async fn turn_to_install(&self, runtime: &Runtime, progress: Progress<'_>) -> Turn<'_> {
        let turn = self.turns.begin(&self.registry_of(runtime), progress).await;
        // The first of those that run finds a cache within its bound, which then has room for what they fetch.
        if let Some(_alone) = self.turns.alone(Some(&turn)) {
            self.tend_cache().await;
        }
        turn
    }

    /// Empties the clients' cache when it is too large. Only while no client runs.
    async fn tend_cache(&self) {
        let cache = self.dir.join(CACHE);
        let away = self.dir.join(format!(".scratch-gone{CACHE}"));
        let tend = move || {
            if size(&cache, MAX_CACHE_BYTES).is_none_or(|bytes| bytes > MAX_CACHE_BYTES) {
                tracing::info!(path = %cache.display(), "emptying the cache of the package clients: it is too large");
                throw_away(&away);
                match std::fs::rename(&cache, &away) {
                    Ok(()) => throw_away(&away),
                    Err(error) => tracing::warn!(path = %cache.display(), %error, "empty the cache"),
                }
            }
        };
        // A panic there is a bug to see in the log.
        if let Err(error) = tokio::task::spawn_blocking(tend).await {
            tracing::error!(%error, "tend the cache");
        }
    }

    /// Removes what is of no lock that is needed, by its digest. Runs beside everything else: only whole directories go.
    pub(crate) fn collect_garbage(&self, is_needed: &dyn Fn(&str) -> bool) {
        // While no client runs nothing half-made is anybody's.
        if let Some(_alone) = self.turns.alone(None) {
            let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
            entries.filter(is_scratch).for_each(|entry| self.removals.begin(entry.path(), |_| ()));
        }
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let broken = name.starts_with(".broken-");
            if name.starts_with('.') && !broken || name == "tools" {
                continue;
            }
            let meta = std::fs::read(entry.path().join("meta.json")).unwrap_or_default();
            let digest = serde_json::from_slice::<LockDigest>(&meta).map(|meta| meta.lock_digest);
            // Whoever prepares it needs it before they have their turn: nobody begins to between the look and the removal.
            let turn = self.turn(&name);
            let Ok(_turn) = turn.try_lock() else { continue };
            if digest.is_ok_and(|digest| is_needed(&digest)) {
                continue;
            }
            // Out of the way first, so that nobody finds half of it.
            let away = self.dir.join(format!(".scratch-gone-{name}"));
            if std::fs::rename(entry.path(), &away).is_ok() {
                tracing::info!(package.key = name, "removing a package nothing needs any more");
                self.removals.begin(away, |_| ());
            }
        }
    }

    fn key(&self, runtime: &Runtime, lock: &Lock) -> Result<String, Failure> {
        let (kind, version, image) = match runtime {
            Runtime::Npm(_) => self.node().map(|node| ("node", &node.version, &node.image))?,
            Runtime::Pypi(_) => self.python().map(|python| ("python", &python.version, &python.image))?,
            Runtime::Oci(_) | Runtime::Remote(_) => return Err(unsupported()),
        };
        let mut hasher = Sha256::new();
        for part in [lock.digest.as_str(), platform().as_str(), kind, version] {
            hasher.update(part);
            hasher.update([0]);
        }
        // What was installed in one image may not run in another.
        hasher.update(image.as_deref().unwrap_or_default());
        Ok(hex(&hasher.finalize()))
    }

    /// Where a package comes from: a scope may have a registry of its own.
    fn registry_of(&self, runtime: &Runtime) -> String {
        match runtime {
            Runtime::Npm(package) => match package.identifier.split_once('/') {
                Some((scope, _)) if self.clients.given().has_registry_of(scope) => format!("npm {scope}"),
                _ => "npm".to_owned(),
            },
            _ => "pypi".to_owned(),
        }
    }

    fn turn(&self, key: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut keys = self.keys.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        keys.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(keys.entry(key.to_owned()).or_default())
    }

    /// Whether `dir` is there and as it was made. A broken one is put aside; what runs from it keeps it.
    async fn verify(&self, dir: &Path) -> Result<bool, Failure> {
        let (dir, boot) = (dir.to_owned(), self.boot.clone());
        let check = move || -> std::io::Result<bool> {
            let Ok(meta) = std::fs::read(dir.join("meta.json")) else {
                return put_aside(&dir).map(|()| false);
            };
            let Ok(meta) = serde_json::from_slice::<Meta>(&meta) else { return put_aside(&dir).map(|()| false) };
            let files = dir.join("files");
            let seen = std::fs::read_to_string(dir.join("verified")).is_ok_and(|seen| seen == boot);
            let right = if seen { meta.manifest.looks_right(&files) } else { meta.manifest.is_right(&files) };
            if !right.unwrap_or(false) {
                tracing::warn!(path = %dir.display(), "an installed package has changed; it is installed again");
                return put_aside(&dir).map(|()| false);
            }
            if !seen {
                write_readable(&dir.join("verified"), boot.as_bytes())?;
            }
            Ok(true)
        };
        let result = tokio::task::spawn_blocking(check).await;
        result.map_err(|error| failure(Reason::Internal, error.to_string()))?.map_err(io_failure)
    }

    async fn install(
        &self,
        runtime: &Runtime,
        lock: &Lock,
        dir: &Path,
        (progress, log): (Progress<'_>, Progress<'_>),
    ) -> Result<(), Failure> {
        let _turn = self.turn_to_install(runtime, progress).await;
        let (workshop, work) = self.workshop()?;
        match runtime {
            Runtime::Npm(_) => npm::install(&self.clients, lock, &work, log).await?,
            Runtime::Pypi(_) => {
                let uv = self.uv().await?;
                let tools = pypi::Tools { clients: &self.clients, uv: &uv, python: self.python()?, log };
                pypi::install(&tools, lock, &work).await?;
            }
            Runtime::Oci(_) | Runtime::Remote(_) => return Err(unsupported()),
        }
        let (digest, dir, boot) = (lock.digest.clone(), dir.to_owned(), self.boot.clone());
        let scratch = self.scratch()?;
        let uid = self.clients.uid();
        let finish = move || -> std::io::Result<()> {
            let files = scratch.path().join("files");
            std::fs::rename(&work, &files)?;
            drop(workshop);
            // From here on it is nobody's but ours.
            if uid.is_some() {
                give(&files, Some(nix::unistd::geteuid().as_raw()))?;
            }
            let meta = Meta { lock_digest: digest, manifest: Manifest::of(&files)? };
            write_readable(&scratch.path().join("meta.json"), &serde_json::to_vec(&meta)?)?;
            write_readable(&scratch.path().join("verified"), boot.as_bytes())?;
            readable_by_all(scratch.path())?;
            std::fs::rename(scratch.keep(), dir)
        };
        let result = tokio::task::spawn_blocking(finish).await;
        result.map_err(|error| failure(Reason::Internal, error.to_string()))?.map_err(io_failure)
    }

    fn prepared(&self, runtime: &Runtime, files: &Path) -> Result<Prepared, Failure> {
        match runtime {
            Runtime::Npm(package) => {
                let node = self.node()?;
                let script = npm::script(files, package)?;
                let bin = node.executable.parent().unwrap_or(Path::new("/usr/bin")).to_owned();
                let mut read_only = vec![files.to_owned()];
                if node.image.is_none() {
                    read_only.push(node.executable.clone());
                    read_only.extend(shared_node(&bin));
                }
                let argv = vec![node.executable.clone(), script];
                Ok(Prepared { argv, read_only, path: bin, image: node.image.clone().map(ImageRun::base) })
            }
            Runtime::Pypi(package) => {
                let python = self.python()?;
                let (interpreter, script) = pypi::script(files, package)?;
                let bin = files.join("venv/bin");
                // Not the whole prefix: that may be a person's home.
                let mut read_only = vec![files.to_owned()];
                if python.image.is_none() {
                    read_only.extend([python.prefix.join("bin"), python.prefix.join("lib")]);
                }
                let image = python.image.clone().map(ImageRun::base);
                Ok(Prepared { argv: vec![interpreter, script], read_only, path: bin, image })
            }
            Runtime::Oci(_) | Runtime::Remote(_) => Err(unsupported()),
        }
    }

    fn node(&self) -> Result<&Node, Failure> {
        let missing = || match &self.clients {
            Clients::Host(_) => failure(Reason::EngineUnavailable, "Node.js was not found on this host"),
            Clients::Images(clients) => clients.missing("Node.js", "base_image_node"),
        };
        self.runtimes.node.as_ref().ok_or_else(missing)
    }

    fn python(&self) -> Result<&Python, Failure> {
        let missing = || match &self.clients {
            Clients::Host(_) => {
                let message = "Python 3.10 or newer with `venv` was not found on this host";
                failure(Reason::EngineUnavailable, message)
            }
            Clients::Images(clients) => clients.missing("Python 3.10 or newer", "base_image_python"),
        };
        self.runtimes.python.as_ref().ok_or_else(missing)
    }

    /// uv from the `PATH`, or fetched into the store by the first who needs it.
    async fn uv(&self) -> Result<PathBuf, Failure> {
        let Clients::Host(clients) = &self.clients else { return Ok(PathBuf::from("uv")) };
        let mut known = self.uv.lock().await;
        if let Some(uv) = &*known {
            return Ok(uv.clone());
        }
        let tools = self.dir.join("tools");
        let fetched = tools.join("bin/uv");
        let installed = clients.find_uv();
        let uv = if installed.is_file() {
            installed
        } else {
            if !fetched.is_file() {
                self.python()?;
                let (_workshop, work) = self.workshop()?;
                pypi::fetch_uv(clients, &work).await?;
                let ours = self.clients.uid().map(|_| nix::unistd::geteuid().as_raw());
                give(&work, ours).and_then(|()| readable_by_all(&work)).map_err(io_failure)?;
                // What is there has no uv in it: an older layout, or a hand that removed it.
                if tools.exists() {
                    crate::process::remove::remove_all(&tools).map_err(io_failure)?;
                }
                std::fs::rename(&work, &tools).map_err(io_failure)?;
            }
            fetched
        };
        *known = Some(uv.clone());
        Ok(uv)
    }

    /// A directory for one piece of work, and the directory in it that the clients fill.
    fn workshop(&self) -> Result<(tempfile::TempDir, PathBuf), Failure> {
        let workshop = self.scratch()?;
        let work = workshop.path().join("work");
        std::fs::create_dir(&work).and_then(|()| passable(workshop.path())).map_err(io_failure)?;
        give_top(&work, self.clients.uid()).map_err(io_failure)?;
        Ok((workshop, work))
    }

    fn scratch(&self) -> Result<tempfile::TempDir, Failure> {
        use std::os::unix::fs::PermissionsExt;
        let own = std::fs::Permissions::from_mode(0o700);
        tempfile::Builder::new().prefix(".scratch-").permissions(own).tempdir_in(&self.dir).map_err(io_failure)
    }
}

/// What clients keep from one run to the next.
pub(super) const CACHE: &str = ".cache";

fn is_scratch(entry: &std::fs::DirEntry) -> bool {
    entry.file_name().to_string_lossy().starts_with(".scratch-")
}

fn throw_away(dir: &Path) {
    match crate::process::remove::remove_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(path = %dir.display(), %error, "a half-made package stays behind");
        }
        _ => {}
    }
}

/// How much is in a directory, as far as it matters whether that is more than `bound`; nothing when that cannot be told.
/// No link is followed.
fn size(dir: &Path, bound: u64) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        let entries = match std::fs::read_dir(&dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries.ok()?,
        };
        for entry in entries {
            let entry = entry.ok()?;
            let metadata = entry.metadata().ok()?;
            bytes += (metadata.blocks() * 512).max(LEAST_BYTES);
            if metadata.is_dir() {
                dirs.push(entry.path());
            }
            if bytes > bound {
                return Some(bytes);
            }
        }
    }
    Some(bytes)
}

/// The longest file that a client makes and we read: no longer a lock is taken by the control plane.
const MAX_MADE_BYTES: u64 = 8 << 20;

/// Writes a file for a client, which may be another user than we are and reads it whatever our umask is.
pub(super) fn hand_in(path: &Path, text: &str) -> Result<(), Failure> {
    write_readable(path, text.as_bytes()).map_err(|error| about_file("write", path, &error))
}

fn write_readable(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, bytes)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))
}

/// Reads a file that a client made: whatever it is a link to is not read.
pub(super) fn read_made(path: &Path) -> Result<String, Failure> {
    read_regular(path).map_err(|error| about_file("read", path, &error))
}

fn about_file(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    failure(Reason::InstallFailed, format!("{what} `{name}`: {error}"))
}

fn read_regular(path: &Path) -> std::io::Result<String> {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let file = std::fs::File::options().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is no regular file"));
    }
    let mut text = String::new();
    file.take(MAX_MADE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_MADE_BYTES {
        return Err(std::io::Error::other(format!("it is longer than {MAX_MADE_BYTES} bytes")));
    }
    Ok(text)
}

/// Others may pass through a directory to what is theirs.
fn passable(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o711))
}

/// Makes a directory a user's own; ours where there is no such user.
pub(super) fn give_top(dir: &Path, uid: Option<u32>) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    if uid.is_some() {
        std::os::unix::fs::lchown(dir, uid, uid)?;
    }
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
}

/// Makes a directory and everything in it a user's own. Links are never followed.
pub(crate) fn give(dir: &Path, uid: Option<u32>) -> std::io::Result<()> {
    if uid.is_none() {
        return Ok(());
    }
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        std::os::unix::fs::lchown(&dir, uid, uid)?;
        for entry in std::fs::read_dir(&dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                dirs.push(entry.path());
            } else {
                std::os::unix::fs::lchown(entry.path(), uid, uid)?;
            }
        }
    }
    Ok(())
}

/// Node.js as a library, when it is built that way.
pub(super) fn shared_node(bin: &Path) -> Vec<PathBuf> {
    let lib = bin.with_file_name("lib");
    let entries = std::fs::read_dir(lib).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("libnode"))
        .map(|entry| entry.path())
        .collect()
}

#[derive(Deserialize)]
struct LockDigest {
    lock_digest: String,
}

/// A lock with its digest.
pub(crate) fn lock(version: String, content: String) -> Lock {
    Lock { digest: digest(&content), version, content }
}

/// How content is named.
pub(crate) fn digest(content: &str) -> String {
    format!("sha256:{}", hex(&Sha256::digest(content)))
}

fn check_digest(lock: &Lock) -> Result<(), Failure> {
    if lock.digest == digest(&lock.content) {
        return Ok(());
    }
    Err(failure(Reason::ChecksumMismatch, "the lock is not the one its digest names"))
}

fn put_aside(dir: &Path) -> std::io::Result<()> {
    let Some(name) = dir.file_name().filter(|_| dir.exists()) else { return Ok(()) };
    let aside = dir.with_file_name(format!(".broken-{}", name.to_string_lossy()));
    if aside.exists() {
        crate::process::remove::remove_all(&aside)?;
    }
    std::fs::rename(dir, aside)
}

/// Servers run as users of their own and read what the agent's clients wrote. Every other user of the host does too: an
/// archive must not make a program of it that has our rights, or those of our group.
fn readable_by_all(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        open_mode(&dir, &std::fs::metadata(&dir)?, 0o555)?;
        for entry in std::fs::read_dir(dir)?.flatten() {
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                dirs.push(entry.path());
            } else if metadata.is_file() {
                let executable = metadata.permissions().mode() & 0o100 != 0;
                open_mode(&entry.path(), &metadata, if executable { 0o555 } else { 0o444 })?;
            }
        }
    }
    Ok(())
}

fn open_mode(path: &Path, metadata: &std::fs::Metadata, add: u32) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = metadata.permissions().mode() & 0o7777;
    let wanted = (mode & 0o777) | add;
    if mode == wanted {
        return Ok(());
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(wanted))
}

fn io_failure(error: std::io::Error) -> Failure {
    // A name in a package that is too long here stays so.
    let is_final = error.kind() == std::io::ErrorKind::InvalidFilename;
    let reason = if is_final { Reason::ConfigInvalid } else { Reason::InstallFailed };
    failure(reason, format!("write the package store: {error}"))
}

fn unsupported() -> Failure {
    failure(Reason::UnsupportedByEngine, "a container image needs a toolbox with a container engine")
}

/// Operating system and architecture.
pub(crate) fn platform() -> String {
    format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packages::client::HostClients;

    fn store(dir: &Path) -> Store {
        let clients = HostClients::of_nothing(None, dir);
        Store::open(dir.to_owned(), Clients::Host(Box::new(clients)), Runtimes::default(), Removals::new())
            .expect("a store")
    }

    fn package() -> Runtime {
        Runtime::Npm(serde_json::from_value(serde_json::json!({ "identifier": "@a/b" })).expect("a package"))
    }

    #[test]
    fn what_is_installed_is_readable_by_all_and_gives_nobody_rights_of_ours() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a directory");
        let modes = [
            ("directory", 0o2700, 0o755),
            ("program", 0o6755, 0o755),
            ("locked", 0o2744, 0o755),
            ("text", 0o4600, 0o644),
        ];
        for (name, mode, _) in modes {
            let path = dir.path().join(name);
            if name == "directory" {
                std::fs::create_dir(&path).expect("made");
            } else {
                std::fs::write(&path, "").expect("written");
            }
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("its owner may");
        }
        readable_by_all(dir.path()).expect("its owner may");
        for (name, _, mode) in modes {
            let found = std::fs::metadata(dir.path().join(name)).expect("there").permissions().mode();
            assert_eq!(found & 0o7777, mode, "{name}");
        }
    }

    #[tokio::test]
    async fn a_cache_that_is_too_large_is_emptied_when_no_client_runs_and_one_that_is_not_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = store(dir.path());
        let kept = dir.path().join(".cache/npm/kept");
        std::fs::create_dir_all(kept.parent().expect("a directory")).expect("a directory");
        std::fs::write(&kept, vec![1; 1 << 20]).expect("written");
        drop(store.turn_to_install(&package(), &|_| {}).await);
        assert!(kept.is_file());
        // Its blocks are what counts, and those are there without anybody having written them.
        let large = std::fs::File::create(dir.path().join(".cache/large")).expect("a file");
        let length = nix::libc::off_t::try_from(MAX_CACHE_BYTES).expect("small");
        if nix::fcntl::fallocate(&large, nix::fcntl::FallocateFlags::empty(), 0, length).is_err() {
            return;
        }
        let running = store.turns.begin("another", &|_| {}).await;
        drop(store.turn_to_install(&package(), &|_| {}).await);
        assert!(kept.is_file(), "the client that runs still needs it");
        drop(running);
        drop(store.turn_to_install(&package(), &|_| {}).await);
        let left: Vec<_> = std::fs::read_dir(dir.path()).expect("there").flatten().map(|entry| entry.path()).collect();
        assert_eq!(left, Vec::<PathBuf>::new());
    }

    #[tokio::test]
    async fn a_package_that_is_being_prepared_is_not_removed_and_none_is_prepared_while_it_is_looked_at() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = store(dir.path());
        let package = dir.path().join("key");
        std::fs::create_dir(&package).expect("a directory");
        std::fs::write(package.join("meta.json"), r#"{"lock_digest":"sha256:1"}"#).expect("written");
        let turn = store.turn("key");
        let prepares = turn.lock().await;
        store.collect_garbage(&|_| false);
        assert!(package.is_dir(), "somebody prepares it");
        drop(prepares);
        store.collect_garbage(&|digest| {
            assert!(turn.try_lock().is_err(), "whoever wants it now waits until it is decided");
            digest == "sha256:1"
        });
        assert!(package.is_dir(), "somebody needs it");
        store.collect_garbage(&|_| false);
        assert!(!package.exists(), "it is out of the way at once");
        assert!(turn.try_lock().is_ok());
    }

    #[tokio::test]
    async fn what_was_left_half_made_goes_with_the_garbage_and_not_while_a_client_runs() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = store(dir.path());
        let half_made = dir.path().join(".scratch-x/work");
        std::fs::create_dir_all(&half_made).expect("a directory");
        let running = store.turns.begin("another", &|_| {}).await;
        store.collect_garbage(&|_| false);
        tokio::task::yield_now().await;
        assert!(half_made.is_dir());
        drop(running);
        store.collect_garbage(&|_| false);
        let gone = async {
            while half_made.exists() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), gone).await.expect("it goes");
    }
}
