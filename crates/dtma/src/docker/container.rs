//! What a server's container is: its limits, its mounts, and what it is kept from.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, ResourcesUlimits, RestartPolicy,
    RestartPolicyNameEnum,
};
use http::HeaderMap;
use toolyard_types::agent::{DesiredInstance, Failure};
use toolyard_types::spec::{Egress, EgressHost, Package, PathGrant};
use toolyard_types::state::Reason;
use toolyard_types::{CredentialId, Secret};

use super::{
    Docker, Handed, LABEL_INSTANCE, LABEL_LOCK, LABEL_ORGANIZATION, LABEL_REVISION, LABEL_SERVER, egress, entry,
    existing, mount, users, volumes,
};
use crate::agent::Context;
use crate::engine::{MAX_OPEN_FILES, render};
use crate::grants::{self, Granted};
use crate::packages::{Prepared, failure};

/// Where a server may write, beside what it was granted; gone when it ends. Its size counts as its memory.
const HOME: &str = "/home/server";
const HOME_SIZE: &str = "size=256m";
const TMP_SIZE: &str = "size=64m";
/// The user of servers on an engine that has no users to give away.
const ROOTLESS_USER: users::Ids = (10001, 10001);

/// A container to make.
pub(super) struct Plan {
    pub(super) body: ContainerCreateBody,
    /// Sent to it before anything else, when it waits for that.
    pub(super) handed: Option<Handed>,
    /// Whom it may reach through a proxy of ours.
    pub(super) hosts: Option<Vec<EgressHost>>,
    /// What it wants with every request, if it speaks HTTP.
    pub(super) headers: HeaderMap,
    /// The paths of the host that are mounted.
    pub(super) granted: Vec<Granted>,
}

/// # Errors
/// When the engine cannot do what the revision asks, or a secret is missing.
pub(super) async fn plan(
    docker: &Docker,
    context: &Context,
    desired: &DesiredInstance,
    prepared: &Prepared,
    secrets: &BTreeMap<CredentialId, Secret>,
) -> Result<Plan, Failure> {
    let spec = &desired.spec;
    let package = spec.runtime.package().ok_or_else(|| failure(Reason::ConfigInvalid, "there is no package to run"))?;
    let image = prepared.image.as_ref().ok_or_else(|| failure(Reason::Internal, "the package has no image"))?;
    let hosts = match &spec.egress {
        Egress::Hosts { hosts } => Some(listed(hosts)?),
        _ => None,
    };
    let environment = environment(context, (package, &spec.paths), prepared, hosts.is_some(), secrets)?;
    let arguments =
        package.arguments.iter().map(|argument| render(argument, secrets)).collect::<Result<Vec<_>, _>>()?;
    let (own_uid, granted) = granted(docker, context, desired).await?;
    // A user or group that an image names is one of the host's too: with paths of the host, it could be the one that
    // a socket or a file there belongs to.
    let named = match image.user.as_deref().filter(|_| granted.is_empty()) {
        Some(user) => users::of(docker, &image.reference, user).await?,
        None => None,
    };
    if !image.base {
        users::check(docker, &image.reference).await?;
    }
    let (uid, gid) = match (named, own_uid) {
        (Some(ids), _) => ids,
        (None, Some(uid)) => (uid, uid),
        (None, None) => ROOTLESS_USER,
    };
    let mut body = ContainerCreateBody {
        image: Some(image.reference.clone()),
        user: Some(format!("{uid}:{gid}")),
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        open_stdin: Some(true),
        // It stays open when an agent goes; the next one attaches again.
        stdin_once: Some(false),
        tty: Some(false),
        // What an image wants to run again and again is not asked for; servers are probed.
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".into()]), ..Default::default() }),
        labels: Some(labels(docker, desired)),
        host_config: Some(host_config(docker, context, desired, prepared, (&granted, (uid, gid)))?),
        ..Default::default()
    };
    let mut argv: Vec<Secret> = prepared.argv.iter().map(|part| Secret::new(part.to_string_lossy())).collect();
    argv.extend(image.entrypoint.iter().map(Secret::new));
    if arguments.is_empty() {
        argv.extend(image.command.iter().map(Secret::new));
    } else {
        argv.extend(arguments);
    }
    // An image of somebody else may have no shell, so it gets one to run only when there is something to hide.
    let mut values = package.arguments.iter().chain(package.environment.values());
    let hide = image.base || values.any(|value| value.credentials().next().is_some());
    let handed = if hide {
        body.entrypoint = Some(entry::entrypoint());
        body.cmd = Some(Vec::new());
        if image.base {
            body.working_dir = Some(HOME.to_owned());
        }
        Some(Handed { environment, argv })
    } else {
        let plain = |(name, value): (&String, &Secret)| format!("{name}={}", value.expose());
        body.env = Some(environment.iter().map(plain).collect());
        let mut argv = argv.iter().map(|part| part.expose().to_owned());
        body.entrypoint = Some(argv.by_ref().take(image.entrypoint.len().max(1)).collect());
        body.cmd = Some(argv.collect());
        None
    };
    let headers = package.http.as_ref().map(|endpoint| super::http::headers(endpoint, secrets)).transpose()?;
    Ok(Plan { body, handed, hosts, headers: headers.unwrap_or_default(), granted })
}

/// The user of a server's own, and what it may see of this host.
///
/// # Errors
/// When there is no user left, or a path may not be granted.
pub(super) async fn granted(
    docker: &Docker,
    context: &Context,
    desired: &DesiredInstance,
) -> Result<(Option<u32>, Vec<Granted>), Failure> {
    // A rootless engine's root is a user like us.
    let own_uid = match docker.is_rootless() {
        true => None,
        false => {
            let uid = context.uid_of(desired);
            Some(uid.map_err(|error| failure(Reason::EngineUnavailable, error.to_string()))?)
        }
    };
    Ok((own_uid, context.grants.of(desired, own_uid).await?))
}

fn listed(hosts: &[String]) -> Result<Vec<EgressHost>, Failure> {
    let parse = |host: &String| {
        let message = || format!("`{}` is not a host", toolyard_types::name::printable(host));
        EgressHost::parse(host).ok_or_else(|| failure(Reason::ConfigInvalid, message()))
    };
    hosts.iter().map(parse).collect()
}

fn labels(docker: &Docker, desired: &DesiredInstance) -> HashMap<String, String> {
    let mut labels = docker.container_labels();
    let lock = desired.lock.as_ref().map(|lock| lock.digest.clone());
    labels.extend([
        (LABEL_INSTANCE.to_owned(), desired.id.to_string()),
        (LABEL_ORGANIZATION.to_owned(), desired.organization.to_string()),
        (LABEL_SERVER.to_owned(), desired.server.to_string()),
        (LABEL_REVISION.to_owned(), desired.revision.to_string()),
    ]);
    labels.extend(lock.map(|lock| (LABEL_LOCK.to_owned(), lock)));
    labels
}

fn host_config(
    docker: &Docker,
    context: &Context,
    desired: &DesiredInstance,
    prepared: &Prepared,
    (granted, (uid, gid)): (&[Granted], users::Ids),
) -> Result<HostConfig, Failure> {
    let spec = &desired.spec;
    let memory = i64::try_from(spec.limits.memory_bytes).unwrap_or(i64::MAX);
    let mut mounts: Vec<_> = prepared.read_only.iter().map(|path| mount(path, true)).collect();
    mounts.extend(existing(context.shown_to_servers.iter().cloned()).iter().map(|path| mount(path, true)));
    mounts.extend(granted.iter().map(|it| super::mount_at(&it.source, &it.path, !it.writable)));
    mounts.extend(volumes::mounts(docker, desired)?);
    // A place cannot be both.
    let kept = |path: &str| spec.volumes.iter().any(|volume| volume.path == path);
    // Where an image has a directory engines give it that one's mode, whatever is asked for: so it is the server's own.
    let scratch = |size: &str| format!("rw,nosuid,nodev,exec,mode=1777,uid={uid},gid={gid},{size}");
    let mut tmpfs = HashMap::from([("/tmp".to_owned(), scratch(TMP_SIZE))]);
    if !kept(HOME) {
        tmpfs.insert(HOME.to_owned(), scratch(HOME_SIZE));
    }
    // Docker makes a volume on the host, of any size, for each that an image asks for and nobody mounts.
    for path in prepared.image.iter().flat_map(|image| &image.volumes) {
        let path = as_engines_read(path);
        let is_mounted =
            kept(&path) || granted.iter().any(|it| it.path.as_os_str() == path.as_str()) || tmpfs.contains_key(&path);
        if path != "/" && !is_mounted {
            tmpfs.insert(path, scratch(HOME_SIZE));
        }
    }
    let network = match &spec.egress {
        Egress::All => docker.network(),
        Egress::None | Egress::Hosts { .. } => "none".to_owned(),
    };
    let limits = &spec.limits;
    let open_files = ResourcesUlimits {
        name: Some("nofile".into()),
        soft: Some(MAX_OPEN_FILES.into()),
        hard: Some(MAX_OPEN_FILES.into()),
    };
    Ok(HostConfig {
        ulimits: Some(vec![open_files]),
        memory: Some(memory),
        memory_swap: Some(memory),
        // The first process is the engine's own and not the server's.
        pids_limit: Some(i64::from(limits.processes) + 1),
        nano_cpus: (limits.cpu_millis > 0).then(|| i64::from(limits.cpu_millis) * 1_000_000),
        init: Some(true),
        readonly_rootfs: Some(true),
        cap_drop: Some(vec!["ALL".into()]),
        security_opt: Some(vec!["no-new-privileges".into()]),
        tmpfs: Some(tmpfs),
        mounts: Some(mounts),
        network_mode: Some(network),
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        log_config: Some(HostConfigLogConfig { typ: Some("none".into()), config: None }),
        runtime: docker.options.runtime.clone(),
        ..Default::default()
    })
}

fn environment(
    context: &Context,
    (package, paths): (&Package, &[PathGrant]),
    prepared: &Prepared,
    proxied: bool,
    secrets: &BTreeMap<CredentialId, Secret>,
) -> Result<BTreeMap<String, Secret>, Failure> {
    let mut environment = BTreeMap::from([
        ("HOME".to_owned(), Secret::new(HOME)),
        ("TMPDIR".to_owned(), Secret::new("/tmp")),
        ("LANG".to_owned(), Secret::new("C.UTF-8")),
    ]);
    if prepared.image.as_ref().is_some_and(|image| image.base) {
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", prepared.path.display());
        environment.insert("PATH".to_owned(), Secret::new(path));
    }
    environment.extend(context.environment_for_servers().map(|(name, value)| (name.to_owned(), Secret::new(value))));
    environment.extend(grants::environment_for(paths));
    if proxied {
        let address = Secret::new(egress::address());
        let names = ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"];
        environment.extend(names.map(|name| (name.to_owned(), address.clone())));
        // Node.js looks at them only when told to.
        environment.insert("NODE_USE_ENV_PROXY".to_owned(), Secret::new("1"));
        environment.retain(|name, _| !["NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"].contains(&name.as_str()));
    }
    for (name, value) in &package.environment {
        if !entry::is_variable(name) {
            let message = format!("`{}` is not a variable's name", toolyard_types::name::printable(name));
            return Err(failure(Reason::ConfigInvalid, message));
        }
        environment.insert(name.clone(), render(value, secrets)?);
    }
    Ok(environment)
}

/// Where an engine mounts what an image asks for: below `/`, without `.`, `..` and doubled slashes.
fn as_engines_read(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_of_an_image_is_where_engines_mount_it_however_it_is_written() {
        for (written, read) in [
            ("/data", "/data"),
            ("data", "/data"),
            ("./data", "/data"),
            ("/data/", "/data"),
            ("//data//in///", "/data/in"),
            ("/./x", "/x"),
            ("/x/.", "/x"),
            ("/data/../etc", "/etc"),
            ("/data/in/../../etc/./passwd", "/etc/passwd"),
            ("/home/./server/", HOME),
            ("/var/../tmp", "/tmp"),
            // Above the root there is nothing.
            ("/../../x", "/x"),
            ("../x", "/x"),
            // These are the root itself, which is no place for a volume.
            ("/", "/"),
            ("", "/"),
            (".", "/"),
            ("..", "/"),
            ("/data/..", "/"),
            // Names that only look like it.
            ("/...", "/..."),
            ("/data/..x", "/data/..x"),
            ("/.data", "/.data"),
        ] {
            assert_eq!(as_engines_read(written), read, "{written}");
        }
    }
}
