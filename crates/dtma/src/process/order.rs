//! What a supervisor is told to start.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toolyard_types::agent::{DesiredInstance, Failure};
use toolyard_types::spec::{Egress, Package, PathGrant, Privilege};
use toolyard_types::state::Reason;
use toolyard_types::{CredentialId, Secret};

use super::wire::{Isolation, StartOrder};
use crate::agent::Context;
use crate::desired::write_whole;
use crate::engine::render;
use crate::grants;
use crate::packages::{Prepared, failure};

/// In an instance's directory: the ports that its server does not reach.
const PORTS_FILE: &str = "ports.json";

/// How to run one server as a process of this host.
///
/// # Errors
/// When this host cannot do what the revision asks, or a secret is missing.
pub(crate) async fn order(
    context: &Context,
    desired: &DesiredInstance,
    dir: &Path,
    prepared: &Prepared,
) -> Result<StartOrder, Failure> {
    let spec = &desired.spec;
    let package = spec.runtime.package().ok_or_else(|| failure(Reason::ConfigInvalid, "there is no package to run"))?;
    if spec.limits.cpu_millis > 0 && !context.enforces("cpu_limit") {
        return Err(failure(Reason::UnsupportedByEngine, "this host cannot limit processor time"));
    }
    let secrets = context.secrets(desired)?;
    let mut argv: Vec<Secret> = prepared.argv.iter().map(|part| Secret::new(part.to_string_lossy())).collect();
    for argument in &package.arguments {
        argv.push(render(argument, &secrets)?);
    }
    let isolation = isolation(context, desired, prepared).await?;
    let environment = environment(context, dir, prepared, (package, &spec.paths), &secrets, &isolation)?;
    let log = context.log_place(desired.id, dir);
    Ok(StartOrder {
        instance: desired.id,
        dir: dir.to_owned(),
        argv,
        environment,
        isolation,
        limits: spec.limits.clone(),
        orphan_grace_ms: millis(context.orphan_grace),
        stop_wait_ms: millis(context.stop_wait),
        log_dir: (log.dir != dir).then_some(log.dir),
        log_mark: log.mark,
        redact: secrets.into_values().collect(),
    })
}

async fn isolation(context: &Context, desired: &DesiredInstance, prepared: &Prepared) -> Result<Isolation, Failure> {
    let uid = match context.enforces("own_uid") {
        true => {
            let uid = context.uid_of(desired);
            Some(uid.map_err(|error| failure(Reason::EngineUnavailable, error.to_string()))?)
        }
        false => None,
    };
    let mut read_only = prepared.read_only.clone();
    read_only.extend(context.shown_to_servers.iter().cloned());
    let granted = context.grants.of(desired, uid).await?;
    let (shut_ports, refused_ports) = closed_ports(context);
    let has = |privilege| desired.spec.privileges.contains(&privilege);
    Ok(Isolation {
        uid,
        namespaces: context.enforces("namespaces"),
        landlock: context.enforces("landlock"),
        seccomp: context.enforces("seccomp"),
        new_namespaces: has(Privilege::NewNamespaces),
        // Said before by who prepared it: where this is not enforced, such a server does not get here.
        own_network: desired.spec.egress == Egress::None,
        listen: has(Privilege::Listen),
        refuse_listen: !has(Privilege::Listen) && context.enforces("server_ports"),
        shut_ports,
        refused_ports,
        read_only,
        granted,
    })
}

/// The ports of this host that a server started now does not reach: by a filter on its sockets, and by Landlock.
pub(crate) fn closed_ports(context: &Context) -> (Vec<u16>, Vec<u16>) {
    let own_ports = context.own_ports.all();
    match (context.enforces("socket_filter"), context.enforces("toolyard_ports")) {
        (true, _) => (own_ports, Vec::new()),
        // It knows no addresses: what everybody serves on such a port would be lost too.
        (false, true) => (Vec::new(), own_ports.into_iter().filter(|port| *port >= 1024).collect()),
        (false, false) => (Vec::new(), Vec::new()),
    }
}

/// Notes which ports a server that is about to start does not reach, for an agent that takes it over.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn note_ports(order: &StartOrder) -> std::io::Result<()> {
    let Isolation { shut_ports, refused_ports, .. } = &order.isolation;
    let ports: Vec<u16> = shut_ports.iter().chain(refused_ports).copied().collect();
    write_whole(&order.dir.join(PORTS_FILE), &serde_json::to_vec(&ports)?)
}

/// Toolyard's own ports that a server which was started earlier reaches, and one started now would not: what it was
/// started with is locked. One of an agent that noted nothing is taken to reach none, so that an update replaces no
/// server.
pub(crate) fn open_ports(context: &Context, desired: &DesiredInstance, dir: &Path) -> Vec<u16> {
    let noted = std::fs::read(dir.join(PORTS_FILE)).ok();
    let noted = noted.and_then(|bytes| serde_json::from_slice::<Vec<u16>>(&bytes).ok());
    let Some(noted) = noted.filter(|_| desired.spec.egress != Egress::None) else { return Vec::new() };
    let (shut_ports, refused_ports) = closed_ports(context);
    shut_ports.into_iter().chain(refused_ports).filter(|port| !noted.contains(port)).collect()
}

fn environment(
    context: &Context,
    dir: &Path,
    prepared: &Prepared,
    (package, paths): (&Package, &[PathGrant]),
    secrets: &BTreeMap<CredentialId, Secret>,
    isolation: &Isolation,
) -> Result<BTreeMap<String, Secret>, Failure> {
    let home = dir.join("work");
    let temporary = if isolation.namespaces { PathBuf::from("/tmp") } else { dir.join("tmp") };
    let mut environment = BTreeMap::from([
        ("PATH".to_owned(), Secret::new(format!("{}:/usr/local/bin:/usr/bin:/bin", prepared.path.display()))),
        ("HOME".to_owned(), Secret::new(home.to_string_lossy())),
        ("TMPDIR".to_owned(), Secret::new(temporary.to_string_lossy())),
        ("LANG".to_owned(), Secret::new("C.UTF-8")),
    ]);
    let passed = context.environment_for_servers();
    environment.extend(passed.map(|(name, value)| (name.to_owned(), Secret::new(value))));
    environment.extend(grants::environment_for(paths));
    for (name, value) in &package.environment {
        environment.insert(name.clone(), render(value, secrets)?);
    }
    Ok(environment)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
