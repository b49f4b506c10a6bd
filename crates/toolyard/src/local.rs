//! What this machine gives an agent: programs, environment, user ids.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toolyard_dtma::{AgentOptions, DockerOptions, EngineOptions, EngineWait, GrantablePaths, PackageClients};
use toolyard_link::Channel;
use toolyard_mcp::Room;
use toolyard_types::spec::EgressHost;
use toolyard_types::{Clock, ToolboxId};

use crate::cli::profile_dirs;
use crate::config::{EngineKind, Settings};
use crate::net;

/// How many user ids servers may have.
const SERVER_UIDS: u32 = 65_536;

/// The most ports that the host's owner may close to servers.
const MOST_CLOSED_PORTS: usize = 256;

/// How long an agent that is starting has to end when it is told to.
const START_GRACE: Duration = Duration::from_secs(2);

/// What comes of a start that nobody wants any more: its wait for the engine is given up, and it has some time to end by
/// itself; `None` when it did not.
pub(crate) async fn ended<T>(wait: &EngineWait, starting: impl Future<Output = T>) -> Option<T> {
    wait.give_up();
    let ended = tokio::time::timeout(START_GRACE, starting).await.ok();
    if ended.is_none() {
        tracing::warn!("stopped while the toolbox still started; what ran on it is left as it is");
    }
    ended
}

/// The options of an agent on this machine.
///
/// # Errors
/// When this program's own file cannot be found, or a setting cannot be used.
pub(crate) fn agent_options(
    settings: &Settings,
    environment: &BTreeMap<String, String>,
    toolbox: ToolboxId,
    data_dir: PathBuf,
    control: Channel,
    mut own_ports: Vec<u16>,
    room: Room,
) -> Result<AgentOptions, String> {
    own_ports.extend(closed_ports(settings)?);
    let supervisor_exe =
        std::env::current_exe().map_err(|error| format!("cannot find this program's file: {error}"))?;
    Ok(AgentOptions {
        toolbox,
        data_dir,
        control,
        engine: engine_options(settings, environment),
        engine_wait: EngineWait::default(),
        supervisor_exe,
        clients: package_clients(settings, environment, net::bundle_for_clients(settings).as_deref())?,
        orphan_grace: Duration::from_secs(settings.orphan_grace_seconds.into()),
        stop_wait: AgentOptions::DEFAULT_STOP_WAIT,
        hang_wait: AgentOptions::DEFAULT_HANG_WAIT,
        grantable_paths: grantable_paths(settings, environment)?,
        server_uids: settings.server_uid_base.map(|base| base..=base.saturating_add(SERVER_UIDS - 1)),
        own_ports,
        room,
        version: env!("CARGO_PKG_VERSION").into(),
        environment: settings.env.as_str().into(),
        clock: Clock::system(),
    })
}

/// What is wrong with the settings of an agent on this machine, before anything is made of them; each names its setting.
pub(crate) fn check(settings: &Settings, environment: &BTreeMap<String, String>) -> Vec<String> {
    let clients = package_clients(settings, environment, settings.ca_bundle.as_deref()).err();
    let paths = grantable_paths(settings, environment).err();
    paths.into_iter().chain(clients).chain(closed_ports(settings).err()).collect()
}

fn closed_ports(settings: &Settings) -> Result<Vec<u16>, String> {
    // Each makes the filter of every socket longer, which is bounded.
    if settings.closed_ports.len() > MOST_CLOSED_PORTS {
        return Err(format!("setting `closed_ports`: more than {MOST_CLOSED_PORTS} ports"));
    }
    let parsed = settings.closed_ports.iter().map(|text| match text.trim().parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => {
            let shown = toolyard_types::name::printable(text);
            Err(format!("setting `closed_ports`: `{shown}` is not a port from 1 to 65535"))
        }
    });
    parsed.collect()
}

/// What servers may be shown of this host. The directory Toolyard was started in may hold its configuration, and its user's
/// own a key of `toolyard login`, now or later.
fn grantable_paths(settings: &Settings, environment: &BTreeMap<String, String>) -> Result<GrantablePaths, String> {
    let home = environment.get("HOME").filter(|home| home.starts_with('/')).map(|home| home.trim_end_matches('/'));
    let mut roots = Vec::new();
    for written in &settings.grantable_paths {
        let root = match (written.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with('/')), home) {
            (None, _) => written.clone(),
            (Some(rest), Some(home)) => format!("{home}{rest}"),
            (Some(_), None) => continue,
        };
        match GrantablePaths::check_root(&root) {
            Ok(()) => roots.push(root),
            // Where the home directory is `/` there is none to speak of.
            Err(_) if written.starts_with('~') => {}
            Err(why) => {
                let shown = toolyard_types::name::printable(written);
                return Err(format!("setting `grantable_paths`: `{shown}` {why}"));
            }
        }
    }
    let here = std::env::current_dir().map_err(|error| format!("cannot find the current directory: {error}"))?;
    let own = std::iter::once(&settings.data_dir).chain(&settings.file).map(|path| here.join(path));
    let own = own.filter(|path| path.exists()).collect();
    let once_there = ["toolyard.toml", ".env"].map(PathBuf::from).into_iter().chain(profile_dirs(environment));
    Ok(GrantablePaths { roots, own, once_there: once_there.map(|path| here.join(path)).collect() })
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

fn package_clients(
    settings: &Settings,
    environment: &BTreeMap<String, String>,
    bundle: Option<&Path>,
) -> Result<PackageClients, String> {
    if let Some(bad) = settings.package_hosts.iter().find(|host| EgressHost::parse(host).is_none()) {
        let shown = toolyard_types::name::printable(bad);
        return Err(format!("setting `package_hosts`: `{shown}` is not `host`, `host:port` or `*.domain`"));
    }
    let python = match &settings.python {
        Some(python) => vec![PathBuf::from(python)],
        None => ["python3", "/usr/bin/python3", "/usr/local/bin/python3", "python"].map(PathBuf::from).to_vec(),
    };
    Ok(PackageClients {
        npm: settings.npm.clone().into(),
        node: settings.node.clone().into(),
        python,
        uv: "uv".into(),
        environment: net::client_environment(settings, environment, bundle),
        package_hosts: settings.package_hosts.clone(),
        for_servers: settings.server_environment.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, Overrides, load};

    #[test]
    fn the_file_of_settings_is_toolyards_own_wherever_it_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("production.toml");
        std::fs::write(&file, "session_hours = 3").expect("written");
        let overrides = Overrides { file: Some(file.clone()), ..Overrides::default() };
        let loaded = load(&BTreeMap::new(), dir.path(), &overrides).expect("valid");
        let paths = grantable_paths(&loaded.settings, &BTreeMap::new()).expect("they can be granted");
        assert!(paths.own.contains(&file), "{:?}", paths.own);
    }

    #[test]
    fn what_login_remembers_is_toolyards_own_once_it_is_there() {
        let settings = Settings::defaults(Environment::Production);
        let dirs = |pairs: &[(&str, &str)]| {
            let environment = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            grantable_paths(&settings, &environment).expect("they can be granted").once_there
        };
        assert!(dirs(&[("HOME", "/home/me")]).contains(&"/home/me/.config/toolyard".into()));
        let elsewhere = dirs(&[("HOME", "/home/me"), ("XDG_CONFIG_HOME", "/srv/config")]);
        assert!(elsewhere.contains(&"/srv/config/toolyard".into()), "{elsewhere:?}");
    }

    #[test]
    fn the_home_directory_is_grantable_in_development_and_nothing_in_production() {
        let roots = |settings: &Settings, home: &str| {
            let environment = BTreeMap::from([("HOME".to_owned(), home.to_owned())]);
            grantable_paths(settings, &environment).map(|paths| paths.roots)
        };
        let development = Settings::defaults(Environment::Development);
        assert_eq!(roots(&development, "/home/me/"), Ok(vec!["/home/me/*".to_owned()]));
        for home in ["/", "", "relative", "/etc"] {
            assert_eq!(roots(&development, home), Ok(vec![]), "{home}");
        }
        let mut production = Settings::defaults(Environment::Production);
        assert_eq!(roots(&production, "/home/me"), Ok(vec![]));
        for bad in ["/", "/etc", "srv", "/srv/../etc", "/*", "/proc/1/*"] {
            production.grantable_paths = vec![bad.to_owned()];
            let error = roots(&production, "/home/me").expect_err(bad);
            assert!(error.starts_with("setting `grantable_paths`: `"), "{error}");
        }
    }
}
