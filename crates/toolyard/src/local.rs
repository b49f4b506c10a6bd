//! What this machine gives an agent: programs, environment, user ids.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use toolyard_dtma::{AgentOptions, DockerOptions, EngineOptions, PackageClients};
use toolyard_link::Channel;
use toolyard_types::Clock;

use crate::config::{EngineKind, Settings};
use crate::net;

/// How many user ids servers may have.
const SERVER_UIDS: u32 = 65_536;

/// The options of an agent on this machine.
///
/// # Errors
/// When this program's own file cannot be found.
pub(crate) fn agent_options(
    settings: &Settings,
    environment: &BTreeMap<String, String>,
    data_dir: PathBuf,
    control: Channel,
) -> Result<AgentOptions, String> {
    let supervisor_exe =
        std::env::current_exe().map_err(|error| format!("cannot find this program's file: {error}"))?;
    Ok(AgentOptions {
        data_dir,
        control,
        engine: engine_options(settings, environment),
        supervisor_exe,
        clients: package_clients(settings, environment),
        orphan_grace: Duration::from_secs(settings.orphan_grace_seconds.into()),
        stop_wait: AgentOptions::DEFAULT_STOP_WAIT,
        server_uids: settings.server_uid_base..=settings.server_uid_base.saturating_add(SERVER_UIDS - 1),
        version: env!("CARGO_PKG_VERSION").into(),
        clock: Clock::system(),
    })
}

pub(crate) fn engine_options(settings: &Settings, environment: &BTreeMap<String, String>) -> EngineOptions {
    match settings.engine {
        EngineKind::Process => EngineOptions::Process,
        EngineKind::Docker => EngineOptions::Docker(DockerOptions {
            host: settings.docker_host.clone().or_else(|| environment.get("DOCKER_HOST").cloned()),
            base_image_node: settings.base_image_node.clone(),
            base_image_python: settings.base_image_python.clone(),
            runtime: settings.container_runtime.clone(),
            proxy: settings.proxy.clone(),
            no_proxy: settings.no_proxy.clone(),
        }),
    }
}

fn package_clients(settings: &Settings, environment: &BTreeMap<String, String>) -> PackageClients {
    let python = match &settings.python {
        Some(python) => vec![PathBuf::from(python)],
        None => ["python3", "/usr/bin/python3", "/usr/local/bin/python3", "python"].map(PathBuf::from).to_vec(),
    };
    PackageClients {
        npm: settings.npm.clone().into(),
        node: settings.node.clone().into(),
        python,
        uv: "uv".into(),
        environment: net::client_environment(settings, environment),
        for_servers: settings.server_environment.clone(),
    }
}
