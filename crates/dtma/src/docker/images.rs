//! Images: a tag becomes a digest once, and every host runs exactly that.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bollard::auth::DockerCredentials;
use bollard::errors::Error as ApiError;
use bollard::models::ImageInspect;
use bollard::query_parameters::{CreateImageOptionsBuilder, RemoveImageOptionsBuilder};
use futures_util::{FutureExt, StreamExt};
use serde::{Deserialize, Serialize};
use toolyard_types::agent::Failure;
use toolyard_types::name::printable;
use toolyard_types::spec::{Lock, Package};
use toolyard_types::state::Reason;
use toolyard_types::{CredentialId, Secret};

use super::{Docker, engine_failure, is_missing, short};
use crate::desired::{read_state, write_whole};
use crate::engine::{NeedsLock, Progress, render};
use crate::packages::{Prepared, digest, failure, lock};

/// A pull that tells nothing for this long has failed.
const PULL_SILENCE: Duration = Duration::from_secs(120);
const PULL_TIMEOUT: Duration = Duration::from_secs(1800);
const MAX_REFERENCE_BYTES: usize = 512;
/// Images removed at once.
const MAX_REMOVALS: usize = 8;

/// What an image is run as.
#[derive(Clone, Debug)]
pub(crate) struct ImageRun {
    /// The image, by digest or id.
    pub(crate) reference: String,
    /// A base image of ours, that has a shell and no program of its own.
    pub(crate) base: bool,
    /// Its own program.
    pub(crate) entrypoint: Vec<String>,
    /// The arguments to it when none are given.
    pub(crate) command: Vec<String>,
    /// The user it is made for, as the image names it.
    pub(crate) user: Option<String>,
    /// Where it wants volumes (`VOLUME`).
    pub(crate) volumes: Vec<String>,
}

impl ImageRun {
    /// A base image.
    pub(crate) fn base(id: String) -> Self {
        Self { reference: id, base: true, entrypoint: Vec::new(), command: Vec::new(), user: None, volumes: Vec::new() }
    }
}

/// What the lock of an image says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ImageLock {
    /// `name@sha256:...`, or the id of an image that is only here.
    image: String,
    /// Operating system and architecture.
    platform: String,
}

/// The images that were pulled by us.
pub(super) struct Images {
    file: PathBuf,
    pulled: Mutex<BTreeMap<String, Pulled>>,
    /// For each image that it is about now: held while it is looked for because it is wanted, and while it is removed because
    /// nothing needs it. An engine may hang on the removal of one.
    turns: Mutex<BTreeMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

/// Why an image that was pulled is here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Pulled {
    /// The digests of the locks that name it.
    locks: BTreeSet<String>,
    /// The tags it was pulled by: the engine keeps an image as long as it has one.
    tags: BTreeSet<String>,
}

impl Images {
    pub(super) fn open(file: PathBuf) -> Self {
        let pulled = read_state(&file, "images that were pulled before are not removed by themselves");
        Self { file, pulled: Mutex::new(pulled.unwrap_or_default()), turns: Mutex::default() }
    }

    /// Notes that `lock` names `image`, if it was pulled by us now or before.
    fn note(&self, image: &str, lock: &Lock, tag: Option<&str>, pulled_now: bool) {
        self.change(|pulled| {
            if pulled_now || pulled.contains_key(image) {
                let entry = pulled.entry(image.to_owned()).or_default();
                entry.locks.insert(lock.digest.clone());
                entry.tags.extend(tag.filter(|_| pulled_now).map(str::to_owned));
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Pulled>)) {
        let mut pulled = self.pulled();
        let before = pulled.clone();
        change(&mut pulled);
        if *pulled == before {
            return;
        }
        let saved = serde_json::to_vec(&*pulled).map_err(std::io::Error::from);
        if let Err(error) = saved.and_then(|bytes| write_whole(&self.file, &bytes)) {
            tracing::warn!(%error, "remember a pulled image; it will not be removed by itself");
        }
    }

    fn pulled(&self) -> MutexGuard<'_, BTreeMap<String, Pulled>> {
        // A poisoned lock means a panic between two whole changes.
        self.pulled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The turn at one image.
    async fn turn(&self, image: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| turn.strong_count() > 0);
            turns.get(image).and_then(Weak::upgrade).unwrap_or_else(|| {
                let turn = Arc::default();
                turns.insert(image.to_owned(), Arc::downgrade(&turn));
                turn
            })
        };
        turn.lock_owned().await
    }

    /// Removes images that we pulled and that no lock names which is needed. One that something else uses stays.
    pub(super) async fn collect_garbage(&self, api: &bollard::Docker, is_needed: &NeedsLock<'_>) {
        let pulled: Vec<String> = self.pulled().keys().cloned().collect();
        let api = &short(api);
        let removals =
            pulled.into_iter().map(|image| async move { self.remove_unneeded(api, &image, is_needed).await }.boxed());
        super::all(removals.collect(), MAX_REMOVALS).await;
    }

    async fn remove_unneeded(&self, api: &bollard::Docker, image: &str, is_needed: &NeedsLock<'_>) {
        // Whoever wants it needs it before they look: they find it, or pull it again. And asked anew for each: removing
        // one takes its time.
        let _turn = self.turn(image).await;
        let Some(why) = self.pulled().get(image).cloned() else { return };
        if why.locks.iter().any(|digest| is_needed(digest)) {
            return;
        }
        // The last tag of a name takes the digest with it.
        let mut gone = true;
        for name in why.tags.iter().map(String::as_str).chain([image]) {
            let options = RemoveImageOptionsBuilder::new().force(false).noprune(false).build();
            match api.remove_image(name, Some(options), None).await {
                Ok(_) => tracing::info!(image = name, "removed an image nothing needs any more"),
                Err(error) if is_missing(&error) => {}
                Err(error) => {
                    // A container of somebody else's may use it.
                    tracing::debug!(image = name, %error, "an image stays for now");
                    gone = false;
                    if matches!(error, ApiError::RequestTimeoutError) {
                        break;
                    }
                }
            }
        }
        if gone {
            self.change(|pulled| drop(pulled.remove(image)));
        }
    }
}

impl Docker {
    /// Finds the digest of an image.
    ///
    /// # Errors
    /// When there is no such image, or it is for other machines.
    pub(crate) async fn resolve(
        &self,
        package: &Package,
        secrets: &BTreeMap<CredentialId, Secret>,
    ) -> Result<Lock, Failure> {
        let reference = reference(package)?;
        let before = self.inspect(&reference).await?;
        let inspected = match self.pull(&reference, login(package, secrets)?, &|_| {}).await {
            Ok(()) => self.inspect(&reference).await?.ok_or_else(|| not_found(&reference))?,
            // An image that was built here and is in no registry is as good as one that is.
            Err(failed) => match before.clone().filter(|it| it.repo_digests.as_ref().is_none_or(Vec::is_empty)) {
                Some(local) => local,
                None => return Err(failed),
            },
        };
        let platform = self.check_platform(&reference, &inspected)?;
        let name = package.identifier.clone();
        let in_registry = inspected.repo_digests.iter().flatten().find(|it| same_name(it, &name)).cloned();
        let image = in_registry.or_else(|| inspected.id.clone()).ok_or_else(|| not_found(&reference))?;
        let content = serde_json::to_string(&ImageLock { image: image.clone(), platform });
        let content = content.map_err(|error| failure(Reason::Internal, error.to_string()))?;
        let version = if package.version.is_empty() { "latest".to_owned() } else { package.version.clone() };
        let lock = lock(version, content);
        self.images.note(&image, &lock, Some(&reference), before.is_none());
        Ok(lock)
    }

    /// Makes sure that the image of a lock is here.
    ///
    /// # Errors
    /// When it cannot be had.
    pub(crate) async fn prepare(
        &self,
        package: &Package,
        lock: &Lock,
        secrets: &BTreeMap<CredentialId, Secret>,
        progress: Progress<'_>,
    ) -> Result<Prepared, Failure> {
        if lock.digest != digest(&lock.content) {
            return Err(failure(Reason::ChecksumMismatch, "the lock is not the one its digest names"));
        }
        let locked: ImageLock = serde_json::from_str(&lock.content)
            .map_err(|error| failure(Reason::ConfigInvalid, format!("read the lock: {error}")))?;
        let image = &locked.image;
        let turn = self.images.turn(image).await;
        let found = self.inspect(image).await?;
        drop(turn);
        let inspected = match found {
            Some(inspected) => {
                self.images.note(image, lock, None, false);
                inspected
            }
            None if !image.contains('@') => return Err(not_found(image)),
            None => {
                self.pull(image, login(package, secrets)?, progress).await?;
                self.images.note(image, lock, None, true);
                self.inspect(image).await?.ok_or_else(|| not_found(image))?
            }
        };
        self.check_platform(image, &inspected)?;
        let config = inspected.config.unwrap_or_default();
        let run = ImageRun {
            reference: image.clone(),
            base: false,
            entrypoint: config.entrypoint.unwrap_or_default(),
            command: config.cmd.unwrap_or_default(),
            user: config.user.filter(|user| !user.is_empty()),
            volumes: config.volumes.unwrap_or_default(),
        };
        Ok(Prepared { argv: Vec::new(), read_only: Vec::new(), path: PathBuf::new(), image: Some(run) })
    }

    async fn inspect(&self, image: &str) -> Result<Option<ImageInspect>, Failure> {
        match short(&self.api).inspect_image(image).await {
            Ok(inspected) => Ok(Some(inspected)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(engine_failure(&error)),
        }
    }

    /// Pulls an image and tells how far it has come.
    async fn pull(&self, image: &str, login: Option<DockerCredentials>, progress: Progress<'_>) -> Result<(), Failure> {
        let options = CreateImageOptionsBuilder::new().from_image(image).build();
        let mut steps = Box::pin(self.api.create_image(Some(options), None, login));
        let mut layers: BTreeMap<String, (i64, i64)> = BTreeMap::new();
        let mut told = 0;
        let work = async {
            loop {
                let step = tokio::time::timeout(PULL_SILENCE, steps.next()).await;
                let step = step.map_err(|_| failure(Reason::InstallFailed, "the registry fell silent"))?;
                let Some(step) = step else { return Ok(()) };
                let step = step.map_err(|error| pull_failure(image, &error))?;
                if let Some(error) = step.error_detail.and_then(|error| error.message) {
                    return Err(refused(image, &error));
                }
                let detail = step.progress_detail.unwrap_or_default();
                if let (Some(layer), Some(current), Some(total)) = (step.id, detail.current, detail.total) {
                    layers.insert(layer, (current, total));
                    let sum = |of: fn(&(i64, i64)) -> i64| layers.values().map(of).sum::<i64>();
                    let percent = sum(|it| it.0).saturating_mul(100) / sum(|it| it.1).max(1);
                    // Layers are met one by one, so it may seem to go back; people are told only of more.
                    if percent >= told + 10 {
                        told = percent;
                        progress(&format!("pulling the image: {percent} %"));
                    }
                }
            }
        };
        let late = |_| Err(failure(Reason::InstallFailed, "the image was not pulled in time"));
        tokio::time::timeout(PULL_TIMEOUT, work).await.unwrap_or_else(late)
    }

    fn check_platform(&self, image: &str, inspected: &ImageInspect) -> Result<String, Failure> {
        let os = inspected.os.clone().unwrap_or_default();
        let architecture = inspected.architecture.clone().unwrap_or_default();
        let ours = (self.info.os_type.as_deref().unwrap_or("linux"), architecture_of(&self.info));
        if (os.as_str(), architecture.as_str()) == ours {
            return Ok(format!("{os}/{architecture}"));
        }
        let message =
            format!("image `{}` is for {os}/{architecture}, this engine runs {}/{}", printable(image), ours.0, ours.1);
        Err(failure(Reason::UnsupportedByEngine, message))
    }
}

/// Who pulls. The engine keeps none of it.
fn login(package: &Package, secrets: &BTreeMap<CredentialId, Secret>) -> Result<Option<DockerCredentials>, Failure> {
    let Some(registry) = &package.registry else { return Ok(None) };
    let secret = render(registry, secrets)?;
    let secret = secret.expose().trim();
    Ok(Some(match secret.split_once(':') {
        Some((user, password)) => DockerCredentials {
            username: Some(user.to_owned()),
            password: Some(password.to_owned()),
            ..DockerCredentials::default()
        },
        None => DockerCredentials { registrytoken: Some(secret.to_owned()), ..DockerCredentials::default() },
    }))
}

/// The engine's architecture by the name images use.
fn architecture_of(info: &bollard::models::SystemInfo) -> &str {
    match info.architecture.as_deref().unwrap_or_default() {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "armv7l" => "arm",
        "i386" | "i686" => "386",
        other => other,
    }
}

/// `name:tag` or `name@digest`.
fn reference(package: &Package) -> Result<String, Failure> {
    let name = &package.identifier;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/' | ':');
    let good = !name.is_empty() && name.chars().all(plain) && name.starts_with(|c: char| c.is_ascii_alphanumeric());
    let version = package.version.as_str();
    let digest = version.strip_prefix("sha256:");
    let good_version = match digest {
        Some(hex) => hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => {
            version.len() <= 128 && version.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
        }
    };
    if !good || !good_version || name.len() > MAX_REFERENCE_BYTES {
        let message = format!("`{}:{}` is not an image", printable(name), printable(version));
        return Err(failure(Reason::ConfigInvalid, message));
    }
    Ok(match (digest, version) {
        (Some(_), digest) => format!("{name}@{digest}"),
        (None, "") => format!("{name}:latest"),
        (None, tag) => format!("{name}:{tag}"),
    })
}

/// Whether a repository's digest is of this name; the usual registry may be left out of either.
fn same_name(repo_digest: &str, name: &str) -> bool {
    fn short(name: &str) -> &str {
        let name = name.strip_prefix("docker.io/").unwrap_or(name);
        name.strip_prefix("library/").unwrap_or(name)
    }
    repo_digest.split_once('@').is_some_and(|(repository, _)| short(repository) == short(name))
}

fn not_found(image: &str) -> Failure {
    failure(Reason::ImageNotFound, format!("there is no image `{}`", printable(image)))
}

fn pull_failure(image: &str, error: &ApiError) -> Failure {
    match error {
        ApiError::DockerResponseServerError { message, .. } => refused(image, message),
        ApiError::DockerStreamError { error } => refused(image, error),
        other => engine_failure(other),
    }
}

/// What the registry said, through the engine and as text only.
fn refused(image: &str, said: &str) -> Failure {
    let lower = said.to_ascii_lowercase();
    let any = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let shown = printable(image);
    if any(&["no matching manifest"]) {
        return failure(Reason::UnsupportedByEngine, format!("image `{shown}` is not made for this platform"));
    }
    if any(&["no basic auth credentials", "unauthorized", "authentication required", "denied"]) {
        let message = format!("the registry does not let us pull `{shown}`, or there is no such image: {said}");
        return failure(Reason::ImageNotFound, message);
    }
    if any(&["manifest unknown", "not found", "name unknown", "does not exist"]) {
        return not_found(image);
    }
    failure(Reason::InstallFailed, format!("pull `{shown}`: {said}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(identifier: &str, version: &str) -> Package {
        serde_json::from_value(serde_json::json!({ "identifier": identifier, "version": version })).expect("a package")
    }

    #[test]
    fn an_image_is_named_by_tag_or_digest_and_nothing_else() {
        let named = |name: &str, version: &str| reference(&package(name, version)).ok();
        assert_eq!(named("host:5000/a/b", "1.2").as_deref(), Some("host:5000/a/b:1.2"));
        assert_eq!(named("a/b", "").as_deref(), Some("a/b:latest"));
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(named("a/b", &digest), Some(format!("a/b@{digest}")));
        for (name, version) in [("", "1"), ("-x", "1"), ("a b", "1"), ("a?x", "1"), ("a", "1/2"), ("a", "sha256:1")] {
            assert_eq!(named(name, version), None, "{name} {version}");
        }
    }

    #[test]
    fn the_usual_registry_may_be_left_out() {
        assert!(same_name("node@sha256:1", "docker.io/library/node"));
        assert!(same_name("host:5000/a@sha256:1", "host:5000/a"));
        assert!(!same_name("other/a@sha256:1", "a"));
    }
}
