//! What a revision says: everything needed to run a server, with secrets by reference only.

use crate::{CredentialId, EntryName, Name};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A text with credentials in it, resolved only where it is used.
///
/// `Bearer {token}` with a secret token is `[Text("Bearer "), Credential(id)]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(transparent)]
#[schema(as = SpecValue)] // not what `serde_json::Value` is in the document
pub struct Value(pub Vec<Part>);

/// A piece of a [`Value`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Plain text.
    Text(String),
    /// The secret of a credential.
    Credential(CredentialId),
}

impl Value {
    /// A value without secrets.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self(vec![Part::Text(text.into())])
    }

    /// A value that is one secret.
    #[must_use]
    pub fn credential(id: CredentialId) -> Self {
        Self(vec![Part::Credential(id)])
    }

    /// The credentials it refers to.
    pub fn credentials(&self) -> impl Iterator<Item = CredentialId> + '_ {
        self.0.iter().filter_map(|part| match part {
            Part::Credential(id) => Some(*id),
            Part::Text(_) => None,
        })
    }

    /// The text with every credential replaced by `secret`'s answer; `None` if one has no answer.
    pub fn render<'a>(&self, secret: impl Fn(CredentialId) -> Option<&'a str>) -> Option<String> {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Credential(id) => out.push_str(secret(*id)?),
            }
        }
        Some(out)
    }

    /// For people: the text with every credential shown as `[secret]`.
    #[must_use]
    pub fn redacted(&self) -> String {
        self.0
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.as_str(),
                Part::Credential(_) => "[secret]",
            })
            .collect()
    }
}

/// An immutable, resolved description of what to run. The lock is beside it, by digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RevisionSpec {
    /// The catalog entry and version it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<EntryVersion>,
    /// What runs.
    pub runtime: Runtime,
    /// Limits on each instance.
    #[serde(default)]
    pub limits: Limits,
    /// Host paths the server may see, beyond its package and its own directory.
    #[serde(default)]
    pub paths: Vec<PathGrant>,
    /// Whom it may reach over the network.
    #[serde(default, skip_serializing_if = "Egress::is_all")]
    pub egress: Egress,
    /// How the change from the previous revision is made.
    #[serde(default)]
    pub strategy: Strategy,
    /// Time from start to the MCP answer, in milliseconds.
    #[serde(default = "default_start_timeout_ms")]
    pub start_timeout_ms: u64,
    /// Longest time one call may take, in milliseconds.
    #[serde(default = "default_call_timeout_ms")]
    pub call_timeout_ms: u64,
    /// An optional tool call that must succeed before the revision counts as ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe_call: Option<ProbeCall>,
    /// Whether everybody shares an instance.
    #[serde(default, skip_serializing_if = "Instancing::is_default")]
    pub instancing: Instancing,
    /// Places of its own that outlive its instances and revisions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// What its sandbox allows it beyond what every server may.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub privileges: BTreeSet<Privilege>,
}

fn default_start_timeout_ms() -> u64 {
    60_000
}

fn default_call_timeout_ms() -> u64 {
    300_000
}

/// A tool call used as a readiness probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ProbeCall {
    /// The tool's name as the server gives it.
    pub tool: String,
    /// Its arguments.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub arguments: serde_json::Map<String, serde_json::Value>,
}

/// A catalog entry at a version.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EntryVersion {
    /// The entry.
    pub name: EntryName,
    /// Its version.
    pub version: String,
}

/// What runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Runtime {
    /// A package from npm, run by Node.js over stdio.
    Npm(Package),
    /// A package from PyPI, run by Python over stdio.
    Pypi(Package),
    /// A container image, over stdio, or over HTTP that only its agent reaches.
    Oci(Package),
    /// An MCP server somewhere else.
    Remote(Remote),
}

impl Runtime {
    /// The package, unless it is a remote.
    #[must_use]
    pub fn package(&self) -> Option<&Package> {
        match self {
            Runtime::Npm(package) | Runtime::Pypi(package) | Runtime::Oci(package) => Some(package),
            Runtime::Remote(_) => None,
        }
    }

    /// Every value in it that may hold a credential.
    pub fn values(&self) -> Box<dyn Iterator<Item = &Value> + '_> {
        let registry = self.package().and_then(|package| package.registry.as_ref());
        Box::new(self.started_with().chain(registry))
    }

    /// The values that a server goes on with once it was started: all but the login to its image's registry.
    pub fn started_with(&self) -> Box<dyn Iterator<Item = &Value> + '_> {
        match self {
            Runtime::Npm(p) | Runtime::Pypi(p) | Runtime::Oci(p) => {
                let headers = p.http.iter().flat_map(|http| http.headers.values());
                Box::new(p.arguments.iter().chain(p.environment.values()).chain(headers))
            }
            Runtime::Remote(remote) => Box::new(std::iter::once(&remote.url).chain(remote.headers.values())),
        }
    }
}

/// A package and how it is started. It is started directly, never through a shell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = SpecPackage)] // an entry's package has the name in the document
pub struct Package {
    /// The name in its registry, or the image without its tag.
    pub identifier: String,
    /// The exact version; for an image its tag or digest. Empty for the newest at resolve time.
    #[serde(default)]
    pub version: String,
    /// The executable in the package, when it is not the one named like the package.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// What is installed beside it from the index, as in `uvx --with`: names with extras and versions, such as `mcp<2`.
    /// For packages of PyPI only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub with: Vec<String>,
    /// Arguments to it.
    #[serde(default)]
    pub arguments: Vec<Value>,
    /// Its environment; nothing else but the configured list is passed on.
    #[serde(default)]
    pub environment: BTreeMap<String, Value>,
    /// Who pulls the image, as `user:password` or a bare token; nobody in particular when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<Value>,
    /// Where it listens for Streamable HTTP, in a container; it speaks over stdio when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpEndpoint>,
}

/// Where a server in a container listens for Streamable HTTP, inside its own network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct HttpEndpoint {
    /// The port.
    pub port: u16,
    /// The path, and what is asked with it.
    #[schema(example = "/mcp")]
    pub path: String,
    /// Headers sent with every request.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Value>,
}

/// A remote MCP server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Remote {
    /// The protocol.
    pub transport: RemoteTransport,
    /// Where.
    pub url: Value,
    /// Headers sent with every request.
    #[serde(default)]
    pub headers: BTreeMap<String, Value>,
}

/// How a remote server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RemoteTransport {
    /// Streamable HTTP (2025-03-26 and later).
    StreamableHttp,
    /// HTTP with SSE (2024-11-05).
    Sse,
}

/// Limits on one instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Limits {
    /// Resident memory of all its processes together, in bytes.
    pub memory_bytes: u64,
    /// How many processes and threads at once.
    pub processes: u32,
    /// Share of processor time in thousandths of one core; zero for no limit.
    #[serde(default)]
    pub cpu_millis: u32,
    /// What it keeps in its own directory and its temporary one together, in bytes; zero for no limit. Who sets limits
    /// and says nothing of it gets 1 GiB; a revision that was made before there was this limit has none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub disk_bytes: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_bytes: 1 << 30, processes: 256, cpu_millis: 0, disk_bytes: 1 << 30 }
    }
}

/// Limits as a person sets and reads them: what is left out gets its default, and zero is said. In what is stored and
/// sent to agents what is left out is no limit, as it was for those who wrote it.
#[derive(Serialize, Deserialize)]
struct SaidLimits {
    memory_bytes: u64,
    processes: u32,
    #[serde(default)]
    cpu_millis: u32,
    #[serde(default = "default_disk_bytes")]
    disk_bytes: u64,
}

fn default_disk_bytes() -> u64 {
    Limits::default().disk_bytes
}

impl From<SaidLimits> for Limits {
    fn from(said: SaidLimits) -> Self {
        let SaidLimits { memory_bytes, processes, cpu_millis, disk_bytes } = said;
        Self { memory_bytes, processes, cpu_millis, disk_bytes }
    }
}

impl From<&Limits> for SaidLimits {
    fn from(limits: &Limits) -> Self {
        let Limits { memory_bytes, processes, cpu_millis, disk_bytes } = *limits;
        Self { memory_bytes, processes, cpu_millis, disk_bytes }
    }
}

/// Limits as a person reads them.
pub(crate) mod said_limits {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Limits, SaidLimits};

    pub(crate) fn serialize<S: Serializer>(limits: &Limits, serializer: S) -> Result<S::Ok, S::Error> {
        SaidLimits::from(limits).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Limits, D::Error> {
        SaidLimits::deserialize(deserializer).map(Limits::from)
    }
}

/// Limits as a person sets them, or not.
pub(crate) mod said_limits_if_any {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Limits, SaidLimits};

    pub(crate) fn serialize<S: Serializer>(limits: &Option<Limits>, serializer: S) -> Result<S::Ok, S::Error> {
        limits.as_ref().map(SaidLimits::from).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Limits>, D::Error> {
        Ok(Option::<SaidLimits>::deserialize(deserializer)?.map(Limits::from))
    }
}

/// A host path a server may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PathGrant {
    /// The absolute path, the same inside and outside.
    pub path: String,
    /// Whether it may be written.
    #[serde(default)]
    pub writable: bool,
}

/// A place of a server's own that outlives its instances and revisions; gone when the server is deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// Its name, one for each of the server's volumes.
    pub name: Name,
    /// Where the server finds it: an absolute path.
    #[schema(example = "/data")]
    pub path: String,
}

impl Volume {
    /// The most volumes of one server.
    pub const MOST: usize = 16;
    /// The longest path, in bytes.
    pub const LONGEST_PATH: usize = 255;
    /// What lies at or below these is the system's, or gone when an instance ends.
    const RESERVED: [&str; 4] = ["/proc", "/sys", "/dev", "/tmp"];

    /// Whether its path can be one.
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    pub fn check_path(&self) -> Result<(), &'static str> {
        let path = self.path.as_str();
        let Some(below) = path.strip_prefix('/') else { return Err("must be an absolute path") };
        if path.len() > Self::LONGEST_PATH || path.contains(|c: char| c.is_control() || c == ':') {
            return Err("must have at most 255 bytes, and no control character or `:`");
        }
        if below.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err("must name a directory below `/`, without `.`, `..` or an empty part");
        }
        let is_below =
            |top: &&str| path.strip_prefix(*top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if Self::RESERVED.iter().any(is_below) {
            return Err("must not be at or below `/proc`, `/sys`, `/dev` or `/tmp`");
        }
        Ok(())
    }
}

/// Whom a server may reach over the network. Enforced outside it, by the engine; one that cannot refuses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "policy", rename_all = "snake_case")]
pub enum Egress {
    /// Everything its toolbox can reach.
    #[default]
    All,
    /// Nothing.
    None,
    /// The hosts listed, by HTTP and HTTPS through a proxy, and nothing else.
    Hosts {
        /// `host`, `host:port` or `*.domain`; without a port, 80 and 443.
        hosts: Vec<String>,
    },
}

impl Egress {
    /// Whether there is nothing to enforce.
    #[must_use]
    pub fn is_all(&self) -> bool {
        *self == Egress::All
    }
}

/// Where the proxy to the listed hosts listens inside a container: no server there can have this port.
pub const EGRESS_PROXY_PORT: u16 = 3128;

/// A host that may be reached: `host`, `host:port`, `*.domain` or `*.domain:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressHost {
    name: String,
    below: bool,
    port: Option<u16>,
}

impl EgressHost {
    /// Reads one as it is written; `None` when it is not a host.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                (host, Some(port.parse::<u16>().ok().filter(|port| *port > 0)?))
            }
            _ => (text, None),
        };
        let (below, host) = match host.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, host),
        };
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if let Some(address) = address.filter(|address| !below && address.parse::<std::net::Ipv6Addr>().is_ok()) {
            return Some(Self { name: address.to_ascii_lowercase(), below, port });
        }
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
                && !label.starts_with('-')
        };
        let named = host.len() <= 253 && host.split('.').all(label);
        named.then(|| Self { name: host.to_ascii_lowercase(), below, port })
    }

    /// Whether it names this host and port.
    #[must_use]
    pub fn matches(&self, host: &str, port: u16) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let named = match self.below {
            true => host.strip_suffix(&self.name).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
            false => host == self.name,
        };
        named && self.port.map_or(matches!(port, 80 | 443), |only| only == port)
    }
}

/// What a sandbox refuses unless somebody with `server:grant_privilege` allowed it to this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Privilege {
    /// To make new namespaces, as the sandbox of a browser does.
    NewNamespaces,
    /// To listen on TCP ports of its host, where other servers may reach it.
    Listen,
}

impl Privilege {
    /// Every privilege.
    pub const ALL: [Privilege; 2] = [Self::NewNamespaces, Self::Listen];

    /// As written on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NewNamespaces => "new_namespaces",
            Self::Listen => "listen",
        }
    }
}

/// How a revision replaces the previous one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Start the new one, wait until it answers, switch, then stop the old one.
    #[default]
    Surge,
    /// Prepare the new one, stop the old one, then start the new one.
    Recreate,
}

/// Whether all clients share an instance, or each user or session has a copy of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Instancing {
    /// Who shares one.
    #[serde(default)]
    pub mode: InstancingMode,
    /// The most copies that run at once for one instance.
    #[serde(default = "default_max_copies")]
    #[schema(minimum = 1, maximum = 1000)]
    pub max_copies: u32,
    /// How long a copy without a call goes on, in milliseconds.
    #[serde(default = "default_idle_stop_ms")]
    #[schema(minimum = 1000, maximum = 86_400_000)]
    pub idle_stop_ms: u64,
    /// How many copies are started ahead.
    #[serde(default)]
    #[schema(maximum = 1000)]
    pub warm: u32,
}

fn default_max_copies() -> u32 {
    20
}

fn default_idle_stop_ms() -> u64 {
    600_000
}

impl Default for Instancing {
    fn default() -> Self {
        Self {
            mode: InstancingMode::default(),
            max_copies: default_max_copies(),
            idle_stop_ms: default_idle_stop_ms(),
            warm: 0,
        }
    }
}

impl Instancing {
    /// Whether it says nothing but what is so anyway.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Who shares an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum InstancingMode {
    /// Everybody.
    #[default]
    Shared,
    /// The calls of one user, or one API key, have a copy of their own.
    PerUser,
    /// The calls of one MCP session have a copy of their own; of one user where the client has no sessions.
    PerSession,
}

impl InstancingMode {
    /// As written on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::PerUser => "per_user",
            Self::PerSession => "per_session",
        }
    }

    /// Whether everybody shares one.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Shared)
    }
}

/// The full, exact set of files a revision installs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Lock {
    /// `sha256:` and the hex digest of `content`.
    pub digest: String,
    /// The exact version of the package that was asked for.
    pub version: String,
    /// npm: a `package-lock.json`; pypi: requirements with hashes.
    pub content: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_goes_on_with_all_its_secrets_but_the_one_of_its_images_registry() {
        fn ids<'a>(values: impl Iterator<Item = &'a Value>) -> BTreeSet<CredentialId> {
            values.flat_map(Value::credentials).collect()
        }
        let [argument, variable, header, registry] = [(); 4].map(|()| CredentialId::generate());
        let runtime = Runtime::Oci(Package {
            identifier: "example/server".to_owned(),
            version: "1".to_owned(),
            command: None,
            with: Vec::new(),
            arguments: vec![Value::credential(argument)],
            environment: [("TOKEN".to_owned(), Value::credential(variable))].into(),
            registry: Some(Value::credential(registry)),
            http: Some(HttpEndpoint {
                port: 80,
                path: "/mcp".to_owned(),
                headers: [("Authorization".to_owned(), Value::credential(header))].into(),
            }),
        });
        assert_eq!(ids(runtime.started_with()), BTreeSet::from([argument, variable, header]));
        assert_eq!(ids(runtime.values()), BTreeSet::from([argument, variable, header, registry]));
    }

    #[test]
    fn a_host_is_matched_whole_with_its_port() {
        let host = |text: &str| EgressHost::parse(text).expect("a host");
        assert!(host("api.example.test").matches("API.example.test.", 443));
        assert!(host("api.example.test").matches("api.example.test", 80));
        assert!(!host("api.example.test").matches("api.example.test", 22));
        assert!(host("api.example.test:8443").matches("api.example.test", 8443));
        assert!(!host("api.example.test:8443").matches("api.example.test", 443));
        assert!(!host("example.test").matches("evil-example.test", 443));
        assert!(!host("example.test").matches("api.example.test", 443));
        assert!(host("*.example.test").matches("a.b.example.test", 443));
        assert!(!host("*.example.test").matches("example.test", 443));
        assert!(!host("*.example.test").matches(".example.test", 443));
        assert!(host("[2001:db8::1]:443").matches("2001:db8::1", 443));
        for bad in ["", "*", "*.", "a b", "http://a", "a:0", "a:x", "a/b", "-a", "a..b", "2001:db8::1", "*.[::1]"] {
            assert!(EgressHost::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_volume_lies_below_the_root_and_not_in_what_is_the_systems() {
        let check = |path: &str| Volume { name: Name::new("data").unwrap(), path: path.into() }.check_path();
        for good in ["/data", "/home/server", "/home/server/cache", "/tmpfoo", "/var/lib/x.y"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let long = format!("/{}", "x".repeat(255));
        for bad in [
            "", "/", "data", "./data", "/data/", "//data", "/a//b", "/a/../b", "/..", "/a/.", "/proc", "/proc/1",
            "/sys/x", "/dev", "/dev/shm", "/tmp", "/tmp/x", "/a:b", "/a\nb", &long,
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_revision_made_before_there_was_a_disk_limit_has_none_and_is_written_as_it_was() {
        let stored = r#"{"memory_bytes":1073741824,"processes":256,"cpu_millis":0}"#;
        let limits: Limits = serde_json::from_str(stored).unwrap();
        assert_eq!(limits.disk_bytes, 0);
        assert_eq!(serde_json::to_string(&limits).unwrap(), stored);
        let new = serde_json::to_value(Limits::default()).unwrap();
        assert_eq!(new["disk_bytes"], 1 << 30);
    }

    #[test]
    fn who_sets_limits_without_one_on_disk_gets_the_default_and_no_limit_is_said() {
        #[derive(Serialize, Deserialize)]
        struct Said {
            #[serde(with = "said_limits")]
            limits: Limits,
            #[serde(default, skip_serializing_if = "Option::is_none", with = "said_limits_if_any")]
            set: Option<Limits>,
        }
        let limits = r#"{"memory_bytes":67108864,"processes":8}"#;
        let said: Said = serde_json::from_str(&format!(r#"{{"limits":{limits},"set":{limits}}}"#)).unwrap();
        assert_eq!(said.limits.disk_bytes, 1 << 30);
        assert_eq!(said.set.as_ref(), Some(&said.limits));
        let unlimited = Said { limits: Limits { disk_bytes: 0, ..said.limits.clone() }, set: None };
        let text = serde_json::to_string(&unlimited).unwrap();
        assert_eq!(text, r#"{"limits":{"memory_bytes":67108864,"processes":8,"cpu_millis":0,"disk_bytes":0}}"#);
        let again: Said = serde_json::from_str(&text).unwrap();
        assert_eq!((again.limits, again.set), (unlimited.limits, None));
    }

    #[test]
    fn a_value_renders_its_secret_only_when_it_has_one() {
        let id = CredentialId::generate();
        let value = Value(vec![Part::Text("Bearer ".into()), Part::Credential(id)]);
        assert_eq!(value.render(|_| Some("s3cret")).as_deref(), Some("Bearer s3cret"));
        assert_eq!(value.render(|_| None), None);
        assert_eq!(value.redacted(), "Bearer [secret]");
    }
}
