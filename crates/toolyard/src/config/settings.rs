//! The one struct of settings.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toolyard_types::{Network, Secret};

/// A proxy on this host.
const LOOPBACK: [&str; 2] = ["127.0.0.0/8", "::1/128"];

/// Which kind of installation this is. Chooses defaults, and production refuses insecure settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Environment {
    /// A laptop: `.env` is read, plain HTTP and weak bootstrap secrets are fine.
    Development,
    /// Like production, with insecure settings warned about instead of refused.
    Staging,
    /// Insecure settings are refused at start.
    Production,
}

impl Environment {
    /// As written in settings and answers.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Development => "development",
            Self::Staging => "staging",
            Self::Production => "production",
        }
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Environment {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "development" => Ok(Self::Development),
            "staging" => Ok(Self::Staging),
            "production" => Ok(Self::Production),
            other => Err(format!(
                "environment `{}` is none of development, staging, production",
                toolyard_types::name::printable(other)
            )),
        }
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for log collectors.
    Json,
}

/// What runs servers on a toolbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EngineKind {
    /// Processes of this host.
    Process,
    /// Containers of a Docker or Podman engine on this host.
    Docker,
}

/// Every setting of `toolyard serve` and `toolyard dtma`.
///
/// A field `data_dir` is `data_dir` in `toolyard.toml`, `TOOLYARD_DATA_DIR` in the environment and
/// `--set data_dir=...` (or its own flag) on the command line.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Toolyard settings")]
pub(crate) struct Settings {
    /// Which kind of installation this is: `development`, `staging` or `production`. Set by `TOOLYARD_ENV`.
    pub env: Environment,

    /// Where Toolyard keeps its database, keys, packages and logs. Made if absent, readable by its user only.
    #[schemars(with = "String")]
    pub data_dir: PathBuf,

    /// Address of the console, the API and the MCP gateway.
    #[schemars(with = "String")]
    pub listen: SocketAddr,

    /// Address of the listener for agents: mutual TLS with certificates of this Toolyard's own CA.
    #[schemars(with = "String")]
    pub agent_listen: SocketAddr,

    /// Address of the listener for operations: metrics of the whole process, readiness in detail. It asks for no key, so
    /// only monitoring should reach it. Off when empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub operations_listen: Option<SocketAddr>,

    /// Host names that are Toolyard's own, besides that of `public_url`. A listener on loopback answers to these and to
    /// loopback names only, so that no web page reaches it by a name of its own (DNS rebinding); another one answers to
    /// any name while this is empty.
    pub allowed_hosts: Vec<String>,

    /// Addresses and networks of proxies in front of Toolyard. Many people come from one such address, so its
    /// connections are not counted as one peer's; what it says of where a request comes from (`X-Forwarded-For`) is
    /// believed when wrong passwords are counted.
    #[schemars(with = "Vec<String>")]
    pub trusted_proxies: Vec<Network>,

    /// Seconds a peer may take for the head of a request.
    #[schemars(range(min = 1, max = 600))]
    pub head_timeout_seconds: u32,

    /// Seconds that a connection may stay without a request. Longer than the proxy in front and clients keep theirs (often
    /// 60 or 90 s), so that none sends its next request on one that is just being closed.
    #[schemars(range(min = 1, max = 3600))]
    pub idle_timeout_seconds: u32,

    /// Seconds that the body of a request may be waited for in all, whatever comes.
    #[schemars(range(min = 1, max = 600))]
    pub body_timeout_seconds: u32,

    /// Bytes of a body that are worth another second: what arrives faster may take as long as it needs.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub body_bytes_per_second: u32,

    /// MiB that requests may have in memory at once, at all listeners together: heads and bodies, from their first byte to
    /// the end of the answer, and answers until they are taken. A quarter is for those who are not signed in, and one
    /// address has at most half of that. Of the rest one organization has at most three quarters, and one key or member
    /// at most half of its organization's; more is refused with `Retry-After`. As much again, in the same shares, is for
    /// what servers answered and no client has taken yet, here or at an agent, and for the lists that are known of them.
    #[schemars(range(min = 64, max = 1_000_000))]
    pub request_memory_mb: u32,

    /// Connections open at once, at most: at `listen`, and as many at `agent_listen`. Fewer where the system allows
    /// fewer file descriptors, of which a quarter is kept back.
    #[schemars(range(min = 16, max = 1_000_000))]
    pub connections: u32,

    /// Connections of one address (an IPv6 /64) at once; 0 for any number. Trusted proxies, and agents that have
    /// shown their certificate, are not counted; of those that have not, 64 at most are at the agents' listener.
    #[schemars(range(max = 1_000_000))]
    pub connections_per_peer: u32,

    /// Streams of events, and logs that are followed, open at once on this replica; 0 for any number, here and below.
    #[schemars(range(max = 1_000_000))]
    pub event_streams: u32,

    /// Streams of events that one organization may have open at once.
    #[schemars(range(max = 1_000_000))]
    pub event_streams_per_organization: u32,

    /// Streams of events that one key or member may have open at once.
    #[schemars(range(max = 1_000_000))]
    pub event_streams_per_principal: u32,

    /// Requests to the API that one organization may send a second on average; ten seconds' worth may come at once.
    #[schemars(range(max = 1_000_000))]
    pub requests_per_second_per_organization: u32,

    /// Requests to the API that one key or member may send a second on average.
    #[schemars(range(max = 1_000_000))]
    pub requests_per_second_per_principal: u32,

    /// Refused changes of one key or member that get a line of their own in the audit log in a minute; what is more, or
    /// the same again, is counted in one line.
    #[schemars(range(min = 1, max = 10_000))]
    pub audit_refusals_per_minute: u32,

    /// Where agents reach `agent_listen`, as `host:port`, tried in this order; join tokens carry it. When empty: its own
    /// address, or this host's name and address when it listens on all of them.
    pub agent_addresses: Vec<String>,

    /// Address at which `toolyard dtma` waits for its control plane, on a host that must not dial out; its toolbox is
    /// enrolled with `--address`. When absent the agent dials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub dtma_listen: Option<SocketAddr>,

    /// Seconds an agent's certificate is good for; agents renew theirs when two thirds of that have gone.
    #[schemars(range(min = 15, max = 31_536_000))]
    pub agent_certificate_seconds: u32,

    /// Seconds without a word from its agent after which a toolbox counts as unreachable.
    #[schemars(range(min = 5, max = 3600))]
    pub toolbox_silence_seconds: u32,

    /// Seconds without a word from its agent after which the servers of a toolbox that may run elsewhere are placed
    /// there; 0 for never.
    #[schemars(range(max = 604_800))]
    pub toolbox_replace_after_seconds: u32,

    /// The address people and clients use, such as `https://toolyard.example.com`. Needed in production.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_url: Option<String>,

    /// `postgres://...`; a SQLite file in the data directory when absent. To a database on another host production needs
    /// `?sslmode=verify-full` (or `verify-ca`) in it. Trusted are the public CAs that are built in, not those of the system or
    /// of `ca_bundle`; with `&sslrootcert=/path/ca.pem` those of that file instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("x-secret" = true))]
    pub database_url: Option<Secret>,

    /// Connections to the database at once: all of one replica's on Postgres (16 when absent), those that read on SQLite (4
    /// when absent). Call records have 4 more on Postgres.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 4, max = 500))]
    pub database_connections: Option<u32>,

    /// Seconds that Postgres may take for a statement that somebody waits for. After a silent failover it takes up to
    /// this and a half until everything works again.
    #[schemars(range(min = 1, max = 60))]
    pub database_timeout_seconds: u32,

    /// Connections to Postgres start with parameters that let the server end what a lost connection leaves. `false` behind a
    /// pooler that refuses them (PgBouncer in transaction mode without `ignore_startup_parameters = options`).
    pub database_session_parameters: bool,

    /// Copy a database that is in use before its schema changes: SQLite into `backups/` of the data directory, Postgres into
    /// the schema `toolyard_backup`.
    pub migration_backup: bool,

    /// Start although the vault's master key is not the one that secrets were sealed with: for once, when that key is lost
    /// for ever. Sealed credentials must then be set again, and agents on other hosts join again.
    pub vault_key_lost: bool,

    /// The vault's master key, 32 bytes in hex or base64; a key file in the data directory when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("x-secret" = true))]
    pub vault_key: Option<Secret>,

    /// E-mail address of the first administrator, made at the first start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrap_admin_email: Option<String>,

    /// The first administrator's password. When absent one is made at the first start and shown on the terminal; without a
    /// terminal it is in `first-sign-in.txt` in the data directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("x-secret" = true))]
    pub bootstrap_admin_password: Option<Secret>,

    /// An API key that is always valid, for automation that installs Toolyard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("x-secret" = true))]
    pub bootstrap_api_key: Option<Secret>,

    /// Session cookies are sent over HTTPS only.
    pub cookie_secure: bool,

    /// Hours a browser session lasts without use.
    #[schemars(range(min = 1, max = 720))]
    pub session_hours: u32,

    /// What is logged, such as `info` or `info,toolyard_gateway=debug`.
    pub log: String,

    /// How log lines are written.
    pub log_format: LogFormat,

    /// Base URL of the MCP registry that the catalog can sync from.
    pub registry_url: String,

    /// Sync the catalog from the registry; the curated list needs no network.
    pub registry_sync: bool,

    /// Serve public catalog entries at `/v0.1/servers` without a key.
    pub registry_serve: bool,

    /// Catalog sources may have addresses in private networks.
    pub catalog_private_sources: bool,

    /// Remote MCP servers may have addresses in private networks and on this machine. With a proxy, the proxy decides.
    pub private_remotes: bool,

    /// Serve the web console at `/`, where it was built into the program.
    pub console: bool,

    /// Run servers on this machine, as toolbox `local`.
    pub local_toolbox: bool,

    /// Refuse to run servers where this host gives them neither user ids of their own nor namespaces.
    pub require_isolation: bool,

    /// Paths of this host that servers may be granted, each with everything in it; one that ends with `/*` means what
    /// lies in it, but no dot files, and not the directory itself. `~` is the home directory. Never granted, whatever
    /// is listed: Toolyard's own files, and `/`, `/etc`, `/proc`, `/sys`, `/dev`, `/run`, `/boot`.
    pub grantable_paths: Vec<String>,

    /// The most memory that one instance of a server may be given, in MiB; 0 for as much as the API takes. Like the other
    /// `server_max_` settings it binds everybody who deploys; what servers have from before stays.
    #[schemars(range(max = 1_048_576))]
    pub server_max_memory_mib: u32,

    /// The most processes and threads of one instance; 0 for as many as the API takes.
    #[schemars(range(max = 65_536))]
    pub server_max_processes: u32,

    /// The most that one instance may keep on disk, in MiB; 0 for as much as the API takes.
    #[schemars(range(max = 16_777_216))]
    pub server_max_disk_mib: u32,

    /// The most instances of one server; 0 for as many as the API takes.
    #[schemars(range(max = 20))]
    pub server_max_replicas: u32,

    /// The most copies of one instance for users or sessions; 0 for as many as the API takes.
    #[schemars(range(max = 1000))]
    pub server_max_copies: u32,

    /// First of the 65,536 user ids that servers run as, when Toolyard runs as root; when not set, a range from
    /// 2,100,000,000 on that no other installation on this host has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1000))]
    pub server_uid_base: Option<u32>,

    /// TCP ports of this host that servers running as processes do not reach, beside Toolyard's own: those of another
    /// Toolyard, of this one as a container publishes them, or of whatever else listens here.
    pub closed_ports: Vec<String>,

    /// Names of Toolyard's own environment variables that servers may see too.
    pub server_environment: Vec<String>,

    /// A file of CA certificates (PEM) trusted besides the system's: by Toolyard, package clients and servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub ca_bundle: Option<PathBuf>,

    /// Proxy for outgoing requests, as URL: for Toolyard, package clients and servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,

    /// Hosts reached without the proxy, separated by commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_proxy: Option<String>,

    /// Hosts beyond the registries that npm, uv and pip are set to use from which packages may be fetched, as `host`,
    /// `host:port` or `*.domain`: for a registry whose files are somewhere else.
    pub package_hosts: Vec<String>,

    /// What runs servers on this machine's toolbox: `process` or `docker`.
    pub engine: EngineKind,

    /// Address of the container engine, `unix://` and the path of its socket; `DOCKER_HOST`, else the usual socket, when
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker_host: Option<String>,

    /// The image that npm packages are installed and run in, on a toolbox with containers. By digest where several
    /// hosts must be the same.
    pub base_image_node: String,

    /// The image that PyPI packages are installed and run in, on a toolbox with containers.
    pub base_image_python: String,

    /// A container runtime by its name in the engine, such as `runsc` (gVisor) or `kata`; the engine's default when
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_runtime: Option<String>,

    /// The Node.js executable.
    pub node: String,

    /// The npm executable.
    pub npm: String,

    /// The Python executable; the first suitable of the usual ones when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub python: Option<String>,

    /// Seconds a server outlives an agent that went away.
    #[schemars(range(min = 1, max = 3600))]
    pub orphan_grace_seconds: u32,

    /// Seconds between the signal to stop, when readiness begins to fail, and the moment the listeners close: as long as
    /// a load balancer may take to notice.
    #[schemars(range(min = 0, max = 300))]
    pub shutdown_delay_seconds: u32,

    /// Seconds that requests under way get to finish after that; then calls are told `shutting_down`.
    #[schemars(range(min = 0, max = 600))]
    pub drain_seconds: u32,

    /// Seconds the gateway serves from its last picture of the control plane before it refuses calls.
    #[schemars(range(min = 5, max = 86400))]
    pub snapshot_max_age_seconds: u32,

    /// MCP calls that the gateway has under way at once; what is beyond is refused at once, with `Retry-After`.
    #[schemars(range(min = 1, max = 1000000))]
    pub calls_at_once: u32,

    /// Of these, the calls to one server: one that hangs fills its own part, and the others are called on.
    #[schemars(range(min = 1, max = 1000000))]
    pub calls_at_once_per_server: u32,

    /// Of these, the calls of one API key; it may have as many streams of changes open.
    #[schemars(range(min = 1, max = 1000000))]
    pub calls_at_once_per_key: u32,

    /// Of these, the calls of one organization; it may have as many streams of changes open.
    #[schemars(range(min = 1, max = 1000000))]
    pub calls_at_once_per_organization: u32,

    /// Seconds that a call waits for a server that starts, restarts or changes its revision before it fails.
    #[schemars(range(min = 0, max = 60))]
    pub call_hold_seconds: u32,

    /// Days that call records are kept.
    #[schemars(range(min = 1, max = 3650))]
    pub call_retention_days: u32,

    /// How many call records are kept at most, of all organizations; the oldest go first. A million are some 400 MB.
    #[schemars(range(min = 10_000))]
    pub call_max_records: u64,

    /// Days that audit records are kept.
    #[schemars(range(min = 1, max = 3650))]
    pub audit_retention_days: u32,

    /// How many audit records of each organization are kept at most; the oldest go first, and of those that tell of
    /// something refused a quarter is kept, so that refusals cannot push out what was done.
    #[schemars(range(min = 1000))]
    pub audit_max_records: u64,

    /// How many revisions of a server are kept, the newest ones; beside them those that serve, that a rollout goes from or
    /// to, that an instance runs, or that a rollback goes to.
    #[schemars(range(min = 10, max = 10_000))]
    pub revisions_kept: u32,

    /// The file that some of them were read from; no setting itself.
    #[serde(skip)]
    pub file: Option<PathBuf>,
}

impl Settings {
    /// The defaults of an environment.
    pub(crate) fn defaults(env: Environment) -> Self {
        let hardened = env != Environment::Development;
        Self {
            env,
            data_dir: PathBuf::from(if hardened { "/var/lib/toolyard" } else { ".toolyard" }),
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            agent_listen: SocketAddr::from(([127, 0, 0, 1], 8081)),
            operations_listen: hardened.then(|| SocketAddr::from(([127, 0, 0, 1], 9464))),
            allowed_hosts: Vec::new(),
            trusted_proxies: LOOPBACK.map(|network| network.parse().expect("a network")).to_vec(),
            head_timeout_seconds: 30,
            idle_timeout_seconds: 120,
            body_timeout_seconds: 30,
            body_bytes_per_second: 4096,
            request_memory_mb: 256,
            connections: 10_000,
            connections_per_peer: 1000,
            event_streams: 1000,
            event_streams_per_organization: 500,
            event_streams_per_principal: 50,
            requests_per_second_per_organization: 2000,
            requests_per_second_per_principal: 500,
            audit_refusals_per_minute: 20,
            agent_addresses: Vec::new(),
            dtma_listen: None,
            agent_certificate_seconds: 24 * 3600,
            toolbox_silence_seconds: 45,
            toolbox_replace_after_seconds: 300,
            public_url: None,
            database_url: None,
            database_connections: None,
            database_timeout_seconds: 3,
            database_session_parameters: true,
            migration_backup: true,
            vault_key_lost: false,
            vault_key: None,
            bootstrap_admin_email: None,
            bootstrap_admin_password: None,
            bootstrap_api_key: None,
            cookie_secure: hardened,
            session_hours: 12,
            log: "info".into(),
            log_format: if hardened { LogFormat::Json } else { LogFormat::Text },
            registry_url: "https://registry.modelcontextprotocol.io".into(),
            registry_sync: false,
            registry_serve: true,
            catalog_private_sources: !hardened,
            private_remotes: !hardened,
            console: true,
            local_toolbox: true,
            require_isolation: env == Environment::Production,
            grantable_paths: if hardened { Vec::new() } else { vec!["~/*".into()] },
            server_max_memory_mib: 16 << 10,
            server_max_processes: 4096,
            server_max_disk_mib: 64 << 10,
            server_max_replicas: 20,
            server_max_copies: 200,
            server_uid_base: None,
            closed_ports: Vec::new(),
            server_environment: [
                "HTTP_PROXY",
                "HTTPS_PROXY",
                "NO_PROXY",
                "http_proxy",
                "https_proxy",
                "no_proxy",
                "SSL_CERT_FILE",
                "SSL_CERT_DIR",
                "NODE_EXTRA_CA_CERTS",
                "REQUESTS_CA_BUNDLE",
            ]
            .map(String::from)
            .to_vec(),
            ca_bundle: None,
            proxy: None,
            no_proxy: None,
            package_hosts: Vec::new(),
            engine: EngineKind::Process,
            docker_host: None,
            base_image_node: "toolyard/base-node:1".into(),
            base_image_python: "toolyard/base-python:1".into(),
            container_runtime: None,
            node: "node".into(),
            npm: "npm".into(),
            python: None,
            orphan_grace_seconds: 10,
            shutdown_delay_seconds: if hardened { 5 } else { 0 },
            drain_seconds: 30,
            snapshot_max_age_seconds: 300,
            calls_at_once: 10_000,
            calls_at_once_per_server: 200,
            calls_at_once_per_key: 400,
            calls_at_once_per_organization: 2000,
            call_hold_seconds: 5,
            call_retention_days: 30,
            call_max_records: 50_000_000,
            audit_retention_days: 365,
            audit_max_records: 1_000_000,
            revisions_kept: 100,
            file: None,
        }
    }
}
