//! Who could lead a granted path elsewhere. An engine is told a path, and resolves it by itself when it makes the mount:
//! a server that may write above that path could put a link there between our look and the engine's. So no server gets a
//! path below one that any server here may write, nor a writable one above another's; two may share a path, or read above
//! each other. Whose path it is makes no difference, nor does the name: a directory that is mounted twice is the same.
//!
//! What there is by now is read off the mounts of the containers, as the engine tells them (a label could be the image's), and
//! of those that are being started off a table that each enters before it looks at the containers: of two at once the second
//! sees the first. What is in the way may end, so who is refused for that is tried again.
//!
//! Other users of the host are not known here. So what was mounted is compared with what was looked at, where that
//! shows, before anything reaches the server.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bollard::errors::Error as ApiError;
use bollard::models::{ContainerState, ContainerSummary, ContainerSummaryStateEnum, MountPoint};
use bollard::query_parameters::ListContainersOptionsBuilder;
use toolyard_types::agent::{DesiredInstance, Failure};
use toolyard_types::name::printable;
use toolyard_types::state::Reason;
use toolyard_types::{InstanceId, ServerId};

use super::{Docker, LABEL_AGENT, LABEL_INSTANCE, LABEL_SERVER, engine_failure, is_missing, short};
use crate::agent::Context;
use crate::grants::{Answer, Granted, Question, unanswered};
use crate::mountinfo::Mounts;
use crate::packages::failure;

/// Runtimes whose containers are processes of this kernel with mounts that show.
const PLAIN_RUNTIMES: [&str; 3] = ["runc", "crun", "io.containerd.runc.v2"];

/// A path that a container has, or is about to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// Where its server sees it.
    path: PathBuf,
    /// Without links.
    source: PathBuf,
    writable: bool,
}

/// Whose a path is that is in the way of a server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    /// That of another instance of it, such as the revision that it is to replace.
    ItsOwn,
    AnotherServers,
}

type StartingServer = (ServerId, Vec<Held>);

/// Those of servers that are being started.
#[derive(Debug, Default)]
pub(super) struct Starting(Mutex<BTreeMap<InstanceId, StartingServer>>);

impl Starting {
    /// A poisoned lock means a panic between two whole changes.
    fn table(&self) -> MutexGuard<'_, BTreeMap<InstanceId, StartingServer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// That a server is being started, until its container is there.
#[derive(Debug)]
pub(super) struct Entered<'a> {
    starting: &'a Starting,
    id: InstanceId,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.starting.table().remove(&self.id);
    }
}

fn held(granted: &[Granted]) -> Vec<Held> {
    let held = |it: &Granted| Held { path: it.path.clone(), source: it.source.clone(), writable: it.writable };
    granted.iter().map(held).collect()
}

fn whose(desired: &DesiredInstance, server: Option<ServerId>) -> Whose {
    if server == Some(desired.server) { Whose::ItsOwn } else { Whose::AnotherServers }
}

/// Looks whether a server could be started beside those of other servers that run. Those of its own may end before.
///
/// # Errors
/// When it could not.
pub(super) async fn check(docker: &Docker, desired: &DesiredInstance, granted: &[Granted]) -> Result<(), Failure> {
    if granted.is_empty() {
        return Ok(());
    }
    let wanted = held(granted);
    let containers = containers(docker).await.map_err(|error| engine_failure(&error))?;
    judge(&mounts(), &wanted, of_other_servers(&containers, desired)).map_err(Conflict::into_failure)
}

/// What a person should know of the paths of a server that runs: why it would not be started again beside others that run,
/// as it was by an earlier version.
pub(super) async fn remark(docker: &Docker, desired: &DesiredInstance) -> String {
    let granted = &desired.spec.paths;
    if granted.is_empty() {
        return String::new();
    }
    let containers = match containers(docker).await {
        Ok(containers) => containers,
        Err(error) => {
            tracing::debug!(instance.id = %desired.id, %error, "ask what paths containers have");
            return String::new();
        }
    };
    let own = containers.iter().filter(|it| it.instance == desired.id).flat_map(|it| &it.held);
    let is_granted = |it: &&Held| granted.iter().any(|grant| Path::new(&grant.path) == it.path);
    let own: Vec<Held> = own.filter(is_granted).cloned().collect();
    match judge(&mounts(), &own, of_other_servers(&containers, desired)) {
        Ok(()) => String::new(),
        Err(conflict) => conflict.into_remark(),
    }
}

fn of_other_servers<'a>(
    containers: &'a [Container],
    desired: &DesiredInstance,
) -> impl Iterator<Item = (Whose, &'a Held)> {
    let server = desired.server;
    let others = containers.iter().filter(move |it| it.server != Some(server)).flat_map(|it| &it.held);
    others.map(|held| (Whose::AnotherServers, held))
}

/// Enters a server that is about to be started, if nobody could lead its paths elsewhere nor it another's.
///
/// # Errors
/// When somebody could.
pub(super) async fn enter<'a>(
    docker: &'a Docker,
    desired: &DesiredInstance,
    granted: &[Granted],
) -> Result<Option<Entered<'a>>, Failure> {
    if granted.is_empty() {
        return Ok(None);
    }
    let wanted = held(granted);
    let entered = {
        let mut table = docker.starting.table();
        let others = table.iter().filter(|(id, _)| **id != desired.id);
        let others =
            others.flat_map(|(_, (server, held))| held.iter().map(move |it| (whose(desired, Some(*server)), it)));
        judge(&mounts(), &wanted, others).map_err(Conflict::into_failure)?;
        table.insert(desired.id, (desired.server, wanted.clone()));
        Entered { starting: &docker.starting, id: desired.id }
    };
    // Only now: whoever left the table meanwhile has a container.
    let containers = containers(docker).await.map_err(|error| engine_failure(&error))?;
    let others = containers.iter().filter(|it| it.instance != desired.id);
    let others = others.flat_map(|other| other.held.iter().map(move |it| (whose(desired, other.server), it)));
    judge(&mounts(), &wanted, others).map_err(Conflict::into_failure)?;
    Ok(Some(entered))
}

/// Compares what a container that was just started has mounted with what was looked at, where that shows.
///
/// # Errors
/// When it is something else, or does not answer.
pub(super) async fn compare(
    docker: &Docker,
    context: &Context,
    desired: &DesiredInstance,
    (container, state): (&str, &ContainerState),
    granted: &[Granted],
) -> Result<(), Failure> {
    let pid = state.pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0);
    let Some(pid) = pid.filter(|_| !granted.is_empty() && has_plain_runtime(docker)) else { return Ok(()) };
    let question = Question::IsMounted { pid, container: container.to_owned(), granted: granted.to_vec() };
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    let (reason, message) = match context.grants.looks().ask(&root, Some(desired.organization), question).await {
        Ok(Answer::Mounted) => return Ok(()),
        Ok(Answer::Otherwise(path)) => {
            let path = printable(&path.to_string_lossy());
            let message = format!(
                "the container engine mounted something else at path `{path}` than was looked at, so the container was \
                 ended: somebody changes directories above it"
            );
            tracing::error!(instance.id = %desired.id, server.name = %desired.server_name, "{message}");
            (Reason::EngineUnavailable, message)
        }
        Ok(Answer::Forbidden { path, why }) => {
            let path = printable(&path.to_string_lossy());
            (Reason::ConfigInvalid, format!("path `{path}` may not be granted here: {why}"))
        }
        Ok(Answer::Unseen { path, why }) => {
            let path = printable(&path.to_string_lossy());
            (
                Reason::EngineUnavailable,
                format!("what the container engine mounted at path `{path}` was not found: {why}"),
            )
        }
        Ok(other) => (Reason::Internal, format!("what is mounted was not told: {other:?}")),
        Err(why) => (Reason::EngineUnavailable, format!("one of its paths {}", unanswered(&why))),
    };
    Err(failure(reason, message))
}

fn has_plain_runtime(docker: &Docker) -> bool {
    let runtime = docker.options.runtime.as_ref().or(docker.info.default_runtime.as_ref());
    runtime.is_none_or(|runtime| PLAIN_RUNTIMES.contains(&runtime.as_str()))
}

struct Container {
    instance: InstanceId,
    server: Option<ServerId>,
    held: Vec<Held>,
}

/// Containers of servers that run, or may.
async fn containers(docker: &Docker) -> Result<Vec<Container>, ApiError> {
    let filters = HashMap::from([("label", vec![format!("{LABEL_AGENT}={}", docker.agent)])]);
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    let api = short(&docker.api);
    let found = api.list_containers(Some(options)).await?;
    let ended = [Some(ContainerSummaryStateEnum::EXITED), Some(ContainerSummaryStateEnum::DEAD)];
    let mut containers = Vec::new();
    for mut summary in found.into_iter().filter(|summary| !ended.contains(&summary.state)) {
        if summary.mounts.is_none() {
            // Some versions of Podman tell them only of one that is asked for.
            summary.mounts = mounts_of(&api, summary.id.as_deref().unwrap_or_default()).await?;
        }
        containers.extend(container(summary));
    }
    Ok(containers)
}

async fn mounts_of(api: &bollard::Docker, id: &str) -> Result<Option<Vec<MountPoint>>, ApiError> {
    match api.inspect_container(id, None).await {
        Err(error) if is_missing(&error) => Ok(None),
        other => Ok(other?.mounts),
    }
}

/// A server's, with all that it has of the host; none when it is a package client's or one that never runs.
fn container(summary: ContainerSummary) -> Option<Container> {
    let labels = summary.labels.unwrap_or_default();
    let instance = labels.get(LABEL_INSTANCE)?.parse().ok()?;
    let server = labels.get(LABEL_SERVER).and_then(|id| id.parse().ok());
    let mounts = summary.mounts.unwrap_or_default().into_iter();
    let bound = mounts.filter(|mount| mount.typ.as_deref() == Some("bind"));
    let held = bound.filter_map(|mount| {
        let path = mount.destination.unwrap_or_default().into();
        Some(Held { path, source: mount.source?.into(), writable: mount.rw != Some(false) })
    });
    Some(Container { instance, server, held: held.collect() })
}

/// What is in the way of a path, for a person: nothing of whose it is.
#[derive(Debug)]
struct Conflict {
    path: PathBuf,
    /// What the path is.
    is: &'static str,
    /// What to do.
    remedy: &'static str,
    /// Whether it passes when another container ends.
    passes: bool,
}

impl Conflict {
    fn into_failure(self) -> Failure {
        let Self { path, is, remedy, passes } = self;
        let path = printable(&path.to_string_lossy());
        let reason = if passes { Reason::EngineUnavailable } else { Reason::ConfigInvalid };
        failure(reason, format!("path `{path}` may not be granted here: it {is}; {remedy}"))
    }

    fn into_remark(self) -> String {
        let Self { path, is, remedy, .. } = self;
        let path = printable(&path.to_string_lossy());
        format!("it will not be started again while its path `{path}` {is}; {remedy}")
    }
}

/// Whether a server may have what it wants beside what others have.
///
/// # Errors
/// What is in the way.
fn judge<'a>(
    mounts: &Mounts,
    wanted: &[Held],
    others: impl Iterator<Item = (Whose, &'a Held)>,
) -> Result<(), Conflict> {
    for want in wanted {
        // Between two of its own only one can be below.
        if wanted.iter().any(|own| own.writable && leads(mounts, &own.source, &want.source)) {
            return Err(Conflict {
                path: want.source.clone(),
                is: "is below a path that this server may write, and could lead elsewhere",
                remedy: "grant it only one of both",
                passes: false,
            });
        }
    }
    for (whose, other) in others {
        for want in wanted {
            let is_below = other.writable && leads(mounts, &other.source, &want.source);
            let is_above = want.writable && leads(mounts, &want.source, &other.source);
            if !is_below && !is_above {
                continue;
            }
            let (is, remedy) = match (is_below, whose) {
                (true, Whose::AnotherServers) => (
                    "is below a path that a server on this toolbox may write, and could lead elsewhere",
                    "grant that server its path for reading only, or both the same path, or end that server first",
                ),
                (false, Whose::AnotherServers) => (
                    "is above a path that a server on this toolbox has, and who writes it could lead that elsewhere",
                    "grant it for reading only, or both the same path, or end that server first",
                ),
                (true, Whose::ItsOwn) => (
                    "is below a path that a running instance of this server may write, and could lead elsewhere",
                    "`--strategy recreate` ends that one first",
                ),
                (false, Whose::ItsOwn) => (
                    "is above a path that a running instance of this server has, and could lead that elsewhere",
                    "`--strategy recreate` ends that one first",
                ),
            };
            return Err(Conflict { path: want.source.clone(), is, remedy, passes: true });
        }
    }
    Ok(())
}

/// What is mounted where on this host. Where that cannot be told, paths are compared by their names.
fn mounts() -> Mounts {
    Mounts::here().unwrap_or_else(|_| Mounts::by_name())
}

/// Whether who may write below `above` could lead `path` elsewhere: a directory that it goes through lies there.
fn leads(mounts: &Mounts, above: &Path, path: &Path) -> bool {
    if path != above && path.starts_with(above) {
        return true;
    }
    let writable = mounts.all_of(above).unwrap_or_default();
    let mut through = path.ancestors().skip(1).filter_map(|directory| mounts.place(directory));
    through.any(|place| writable.iter().any(|(_, above)| place.is_in(above)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 8:2 / /srv rw,relatime shared:2 - xfs /dev/sdb1 rw
31 30 8:3 / /srv/share/disk rw - ext4 /dev/sdc1 rw
32 22 8:2 /share/deep /mnt/deep rw - xfs /dev/sdb1 rw
33 22 8:3 / /mnt/disk rw - ext4 /dev/sdc1 rw
34 22 8:2 / /mnt/with\\040space rw - xfs /dev/sdb1 rw
";

    fn table() -> Mounts {
        Mounts::parse(TABLE.as_bytes()).expect("a table")
    }

    fn held(source: &str, writable: bool) -> Held {
        Held { path: source.into(), source: source.into(), writable }
    }

    fn refused(wanted: &[(&str, bool)], others: &[(&str, bool)]) -> Option<String> {
        let all = |paths: &[(&str, bool)]| paths.iter().map(|(path, writable)| held(path, *writable)).collect();
        let (wanted, others): (Vec<Held>, Vec<Held>) = (all(wanted), all(others));
        let others = others.iter().map(|held| (Whose::AnotherServers, held));
        let judged = judge(&table(), &wanted, others);
        judged.err().map(|conflict| {
            let is_its_own = conflict.is.contains("this server");
            let failure = conflict.into_failure();
            let reason = if is_its_own { Reason::ConfigInvalid } else { Reason::EngineUnavailable };
            assert_eq!(failure.reason, reason, "who may end is not in the way for good: {}", failure.message);
            failure.message
        })
    }

    #[test]
    fn nobody_gets_a_path_below_one_that_another_may_write_nor_writes_above_anothers() {
        for path in ["/srv/share/x", "/srv/share/x/deep", "/srv/share/disk", "/srv/share/disk/x"] {
            for writable in [false, true] {
                assert!(refused(&[(path, writable)], &[("/srv/share", true)]).is_some(), "{path}");
                assert!(refused(&[("/srv/share", true)], &[(path, writable)]).is_some(), "{path}");
            }
        }
        for (one, other) in [("/srv/share", "/srv/shared"), ("/srv/a", "/srv/b"), ("/srv/share", "/srv/share")] {
            assert_eq!(refused(&[(one, true)], &[(other, true)]), None, "{one} {other}");
        }
        assert_eq!(refused(&[("/srv/share/x", true)], &[("/srv/share", false)]), None);
        assert_eq!(refused(&[("/srv/share", false)], &[("/srv/share/x", true)]), None);
    }

    #[test]
    fn a_directory_that_is_mounted_twice_is_the_same_by_both_names() {
        for path in ["/mnt/deep/x", "/mnt/disk/x", "/mnt/with space/share/x"] {
            assert!(refused(&[(path, false)], &[("/srv/share", true)]).is_some(), "{path}");
            assert!(refused(&[("/srv/share", true)], &[(path, false)]).is_some(), "{path}");
        }
        // A mount stays what it is, whatever becomes of the name that it was made by.
        for path in ["/mnt/deep", "/mnt/disk", "/mnt/with space/share", "/mnt/with space/other"] {
            assert_eq!(refused(&[(path, true)], &[("/srv/share", true)]), None, "{path}");
        }
    }

    #[test]
    fn one_server_may_not_lead_its_own_path_elsewhere_either() {
        let message = refused(&[("/srv/share", true), ("/srv/share/x", false)], &[]).expect("refused");
        assert!(message.starts_with("path `/srv/share/x` may not be granted here: it is below"), "{message}");
        assert_eq!(refused(&[("/srv/share", false), ("/srv/share/x", true)], &[]), None);
    }

    #[test]
    fn without_a_table_of_mounts_names_are_compared() {
        let leads = |above: &str, path: &str| super::leads(&Mounts::by_name(), Path::new(above), Path::new(path));
        assert!(leads("/srv", "/srv/x"));
        assert!(!leads("/srv", "/srv"));
        assert!(!leads("/srv", "/srvx"));
    }

    #[test]
    fn what_its_own_other_instance_has_is_told_with_what_ends_that_one_first() {
        let (new, old) = ([held("/srv/share/x", true)], held("/srv/share", true));
        for (wanted, other) in [(&new[..], &old), (std::slice::from_ref(&old), &new[0])] {
            let conflict = judge(&table(), wanted, [(Whose::ItsOwn, other)].into_iter());
            let failure = conflict.expect_err("refused").into_failure();
            assert_eq!(failure.reason, Reason::EngineUnavailable);
            assert!(failure.message.contains("a running instance of this server"), "{}", failure.message);
            assert!(failure.message.contains("`--strategy recreate`"), "{}", failure.message);
        }
    }

    #[test]
    fn what_a_container_has_is_what_it_has_mounted_whatever_its_labels_say() {
        let id = InstanceId::generate();
        let mount = |typ: &str, source: &str, rw| MountPoint {
            typ: Some(typ.into()),
            source: Some(source.into()),
            destination: Some(source.into()),
            rw,
            ..Default::default()
        };
        let mounts = vec![
            mount("bind", "/srv/a", Some(true)),
            mount("bind", "/srv/b", Some(false)),
            mount("bind", "/srv/c", None),
            mount("volume", "/var/lib/docker/volumes/x/_data", Some(true)),
        ];
        let summary = |instance: String| {
            let labels = [(LABEL_INSTANCE.to_owned(), instance), ("dev.toolyard.paths".to_owned(), "[]".to_owned())];
            ContainerSummary { labels: Some(labels.into()), mounts: Some(mounts.clone()), ..Default::default() }
        };
        let found = container(summary(id.to_string())).expect("a server's");
        assert_eq!(found.instance, id);
        assert_eq!(found.held, [held("/srv/a", true), held("/srv/b", false), held("/srv/c", true)]);
        assert!(container(summary(String::new())).is_none());
        assert!(container(ContainerSummary::default()).is_none());
    }
}
