//! The wire between control plane and agent (`/dtma/v1`): full desired state down, full observed state up.

use crate::grantable::{Root, why_never};
use crate::spec::{Lock, PathGrant, RevisionSpec};
use crate::state::{Phase, Reason, Status};
use crate::{
    CredentialId, InstanceId, JobId, Name, OrganizationId, Redaction, RevisionId, Secret, ServerId, Timestamp,
    ToolboxId,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Version of this wire. A control plane speaks this and the one before.
pub const AGENT_PROTOCOL: u32 = 1;

/// What is told of an instance that is ready, has calls and does not answer beside them: neither well nor ill.
pub const BUSY: &str = "busy: it has calls, and does not answer a probe beside them";

/// The header of a sync, and of a link that is made, that tells one run of an agent from another: random, made when the
/// agent starts. Two runs that speak in turn are two agents with one key.
pub const AGENT_RUN: &str = "toolyard-agent-run";

/// What an agent needs to join, as JSON in base64url: printed once at enrolment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// The token's own version: 2.
    pub v: u32,
    /// Addresses of agent listeners, as `host:port`.
    pub addresses: Vec<String>,
    /// The SHA-256 of the control plane's CA certificate (DER), in hex.
    pub ca: String,
    /// Which toolbox it is for.
    pub toolbox: ToolboxId,
    /// Good for one join.
    pub secret: Secret,
}

impl JoinToken {
    /// The version written and read here.
    pub const VERSION: u32 = 2;
}

/// `POST /dtma/v1/join`, the only request that needs no certificate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The token's secret.
    pub secret: Secret,
    /// Which toolbox the token is for.
    pub toolbox: ToolboxId,
    /// A certificate signing request (PKCS #10, DER) in base64url. Only its key is looked at.
    pub csr: String,
}

/// `POST /dtma/v1/certificate`: a new certificate for the toolbox that asks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CertificateRequest {
    /// As in [`JoinRequest`].
    pub csr: String,
    /// The certificate (DER, in base64url) where it has ended, so that no connection can be made with it. The signing
    /// request must then be for the same key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
}

/// The answer to both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentCertificate {
    /// Which toolbox the certificate names.
    pub toolbox: ToolboxId,
    /// Its name.
    pub name: Name,
    /// The certificate (DER) in base64url.
    pub certificate: String,
    /// From when it is to be renewed.
    pub renew_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// `POST /dtma/v1/sync`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SyncRequest {
    /// Oldest and newest wire version the agent speaks.
    pub protocol_min: u32,
    /// See `protocol_min`.
    pub protocol_max: u32,
    /// The agent's program version.
    pub agent_version: String,
    /// The generation last applied. The answer is held while it is still the newest and nothing was observed.
    pub generation: u64,
    /// Everything observed.
    pub observed: Observed,
}

/// The answer to a sync.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SyncResponse {
    /// The wire version chosen.
    pub protocol: u32,
    /// Which toolbox the agent is.
    pub toolbox: ToolboxId,
    /// Everything desired; `None` when the generation sent is the newest.
    pub desired: Option<Desired>,
    /// Where the gateways' link listeners are, as `host:port`, one address a gateway; none when the only gateway
    /// is where this answer came from.
    #[serde(default)]
    pub links: Vec<String>,
    /// The control plane's environment: `development`, `staging` or `production`; one of before does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// Where the replica that answers listens; one of before does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listeners: Option<Listeners>,
}

/// The ports of one replica of the control plane. An agent on the same host keeps its servers from them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listeners {
    /// What tells the network of the replica's host from others. It is another one after a reboot.
    pub host: String,
    /// What tells the replica from others on the host. It stays the same when the replica starts again.
    pub replica: String,
    /// The TCP ports of all its listeners.
    pub ports: Vec<u16>,
}

/// All that should run on a toolbox. Instances that are not named here are to be stopped.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Desired {
    /// Monotonic per toolbox; a lower one is ignored.
    pub generation: u64,
    /// When the secrets in it must be forgotten unless renewed.
    pub lease_until: Timestamp,
    /// What should run.
    pub instances: Vec<DesiredInstance>,
    /// What should be resolved.
    pub jobs: Vec<ResolveJob>,
    /// Digests of locks whose packages must be kept (the last revisions of every server).
    pub keep_locks: Vec<String>,
    /// The servers whose volumes here must be kept, all others' may be removed; `None` from a control plane that does
    /// not know volumes, which is no leave to remove any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_volumes: Option<BTreeSet<ServerId>>,
    /// The servers that had an instance here and that still exist: their logs are kept for a while, all others' may be
    /// removed; `None` from a control plane of before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_logs: Option<BTreeSet<ServerId>>,
    /// Every server that exists and has been here, whose user ids must be kept; `None` from a control plane that does
    /// not tell, which is no leave to give any to another server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_users: Option<BTreeSet<ServerId>>,
}

/// One instance that should run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DesiredInstance {
    /// The instance.
    pub id: InstanceId,
    /// Whose.
    pub organization: OrganizationId,
    /// Which server.
    pub server: ServerId,
    /// The server's name, for people.
    pub server_name: Name,
    /// Which revision.
    pub revision: RevisionId,
    /// The revision's number, for people.
    pub revision_number: u32,
    /// What to run.
    pub spec: RevisionSpec,
    /// Exactly which files to install; none for an image given by digest.
    pub lock: Option<Lock>,
    /// The secrets the spec refers to.
    pub secrets: BTreeMap<CredentialId, Secret>,
    /// The versions of those that its process is started with; a control plane of before does not say.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secret_versions: BTreeMap<CredentialId, u32>,
    /// Why secrets that the spec refers to are not among those, for a person; a control plane of before does not say.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub missing: BTreeMap<CredentialId, String>,
    /// `false`: prepare everything, but do not start yet (`recreate` waits for the old one to end).
    pub run: bool,
}

/// A request to turn a package into a full lock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResolveJob {
    /// The job.
    pub id: JobId,
    /// What runs; only its package is looked at.
    pub runtime: crate::spec::Runtime,
    /// The secrets of the image's registry, if it names any.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<CredentialId, Secret>,
    /// For what its log is kept; a control plane of before does not say, and then none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<JobOf>,
}

/// What a job is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobOf {
    /// Which server.
    pub server: ServerId,
    /// Which revision of it.
    pub revision: RevisionId,
}

/// Everything an agent observed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Observed {
    /// About the toolbox.
    pub toolbox: ToolboxReport,
    /// About every instance it knows, until the control plane no longer desires it and it has ended.
    pub instances: Vec<ObservedInstance>,
    /// About every finished job that is still desired.
    pub jobs: Vec<JobResult>,
    /// What jobs that are under way tell; one that has told nothing is left out, as an agent of before leaves out all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub job_progress: Vec<JobProgress>,
}

/// What a toolbox is and can enforce.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ToolboxReport {
    /// The engine: `process` or `docker`.
    pub engine: String,
    /// Operating system and architecture, such as `linux-x86_64`.
    pub platform: String,
    /// Runtimes found and their versions, such as `node -> 20.20.2`.
    pub runtimes: BTreeMap<String, String>,
    /// Each protection, and whether this host enforces it: `own_uid`, `namespaces`, `landlock`, `seccomp`, `memory_limit`, `process_limit`, `cpu_limit`, `disk_limit`, `volume_limit`, `server_ports` (no server reaches another), `toolyard_ports` (no server reaches the listeners of its own Toolyard on its host; the detail names the ports), `egress_none`, `egress_hosts`, `volumes`, `container_http`, `path_grants`, `package_egress`.
    pub enforcement: BTreeMap<String, Enforcement>,
    /// Where on its host paths may be granted to servers, as listed and as what that leads to when the agent starts: each path with everything in it; one that ends with `/*` means what lies in it, but no dot files, and not the path itself. Absent when the agent does not tell: then it alone knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grantable_paths: Option<Vec<String>>,
    /// Revisions that ran there before the host had such a list: it lets them see other paths too.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub granted_before: BTreeSet<RevisionId>,
    /// What the host has and has left, when measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,
    /// Why its container engine does not work now; absent while it does, and when the agent does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_failure: Option<EngineFailure>,
    /// The agent's environment, which chose the defaults of its settings: `development`, `staging` or `production`. Absent when the agent does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
}

/// Whether an agent runs in an environment with laxer defaults than its control plane's: in development it grants paths of
/// the home directory, and does not insist on keeping servers apart. Of an environment that is not known nothing is said.
#[must_use]
pub fn is_laxer(agent: &str, control_plane: &str) -> bool {
    let rank = |environment: &str| ["development", "staging", "production"].iter().position(|it| *it == environment);
    matches!((rank(agent), rank(control_plane)), (Some(agent), Some(control_plane)) if agent < control_plane)
}

/// A container engine that does not work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EngineFailure {
    /// Why, for a person.
    pub message: String,
    /// Since when.
    pub since: Timestamp,
}

/// What a toolbox's host has and has left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Capacity {
    /// Processors that may be used.
    pub cpus: u32,
    /// Memory in all, in bytes.
    pub memory_bytes: u64,
    /// Memory that could still be used, in bytes.
    pub memory_available_bytes: u64,
    /// Room left where the agent keeps its data, in bytes.
    pub disk_free_bytes: u64,
    /// When it was measured.
    pub at: Timestamp,
}

impl ToolboxReport {
    /// The most grantable paths, and the most revisions from before there were any, that are told.
    const MOST_GRANTABLE: usize = 256;
    /// The longest grantable path, in bytes: no host has a longer one.
    const LONGEST_PATH: usize = 4_096;
    /// The most runtimes, and the most protections, that are told.
    const MOST_TOLD: usize = 256;
    /// The longest name of one, in bytes.
    const LONGEST_NAME: usize = 200;
    /// The longest text about one, in characters.
    const LONGEST_TEXT: usize = 1_000;

    /// The same without what would be too much. Of grantable paths it tells nothing then: half of a list would refuse what
    /// is in the other half.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        let listed = self.grantable_paths.as_deref().unwrap_or_default();
        let many = listed.len().max(self.granted_before.len()) > Self::MOST_GRANTABLE;
        if many || listed.iter().any(|path| path.len() > Self::LONGEST_PATH) {
            self.grantable_paths = None;
            self.granted_before.clear();
        }
        self.engine = head(self.engine);
        self.platform = head(self.platform);
        self.environment = self.environment.map(head);
        self.engine_failure =
            self.engine_failure.map(|failure| EngineFailure { message: head(failure.message), ..failure });
        self.runtimes.retain(|name, _| name.len() <= Self::LONGEST_NAME);
        self.enforcement.retain(|name, _| name.len() <= Self::LONGEST_NAME);
        let version = |(name, version): (String, String)| (name, head(version));
        self.runtimes = self.runtimes.into_iter().take(Self::MOST_TOLD).map(version).collect();
        let detail = |(name, it): (String, Enforcement)| (name, Enforcement { detail: head(it.detail), ..it });
        self.enforcement = self.enforcement.into_iter().take(Self::MOST_TOLD).map(detail).collect();
        self
    }

    /// The first path of a revision that its host is known to refuse, by its name; `None` when it may grant them all.
    /// What it does not tell, and where a path leads, its agent decides.
    #[must_use]
    pub fn refused_path<'a>(&self, revision: RevisionId, paths: &'a [PathGrant]) -> Option<&'a str> {
        let listed = self.grantable_paths.as_ref().filter(|_| !paths.is_empty())?;
        if self.granted_before.contains(&revision) {
            return None;
        }
        let roots: Vec<Root> = listed.iter().map(|root| Root::new(root)).collect();
        let refuses = |path: &&str| {
            let path = Path::new(*path);
            why_never(path).is_some() || !roots.iter().any(|root| root.holds(path))
        };
        paths.iter().map(|grant| grant.path.as_str()).find(refuses)
    }

    /// Whether it can keep a server's volumes. An agent that does not know them would ignore them.
    #[must_use]
    pub fn keeps_volumes(&self) -> bool {
        self.enforcement.get("volumes").is_some_and(|it| it.enforced)
    }

    /// Whether it can speak HTTP to a server inside its container.
    #[must_use]
    pub fn speaks_container_http(&self) -> bool {
        self.enforcement.get("container_http").is_some_and(|it| it.enforced)
    }

    /// Whether it can send headers with that: an agent of before would leave them out.
    #[must_use]
    pub fn sends_container_headers(&self) -> bool {
        self.enforcement.get("container_http_headers").is_some_and(|it| it.enforced)
    }

    /// Whether it installs what a PyPI package wants beside itself: an agent of before would leave that out.
    #[must_use]
    pub fn takes_requirements(&self) -> bool {
        self.enforcement.get("package_requirements").is_some_and(|it| it.enforced)
    }

    /// Whether it can keep a server to whom it may reach.
    #[must_use]
    pub fn enforces_egress(&self, egress: &crate::spec::Egress) -> bool {
        let enforced = |name: &str| self.enforcement.get(name).is_some_and(|it| it.enforced);
        match egress {
            crate::spec::Egress::All => true,
            crate::spec::Egress::None => enforced("egress_none"),
            crate::spec::Egress::Hosts { .. } => enforced("egress_hosts"),
        }
    }
}

/// The beginning of what a toolbox says of itself.
fn head(text: String) -> String {
    if text.len() <= ToolboxReport::LONGEST_TEXT {
        return text;
    }
    text.chars().take(ToolboxReport::LONGEST_TEXT).collect()
}

/// Whether a host enforces a protection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Enforcement {
    /// Enforced.
    pub enforced: bool,
    /// By what means, or why not.
    pub detail: String,
}

/// What was observed of one instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObservedInstance {
    /// The instance.
    pub id: InstanceId,
    /// Where it is and why.
    pub status: Status<Phase>,
    /// The server's process, in the host's numbering.
    #[serde(default)]
    pub pid: Option<u32>,
    /// Since when it has answered.
    #[serde(default)]
    pub ready_since: Option<Timestamp>,
    /// How often it was started again after ending by itself.
    #[serde(default)]
    pub restarts: u32,
    /// How it ended last, if it did.
    #[serde(default)]
    pub exit: Option<Exit>,
    /// What it answered to the probe.
    #[serde(default)]
    pub mcp: Option<McpInfo>,
    /// What it uses, when measured.
    #[serde(default)]
    pub usage: Option<Usage>,
    /// The container it runs in, when it runs in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// When it last answered a probe or a call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success_at: Option<Timestamp>,
    /// How many probes in a row it failed.
    #[serde(default)]
    pub failures: u32,
    /// How many copies of it run, beside itself, for single users or sessions.
    #[serde(default)]
    pub copies: u32,
    /// The versions of the secrets with which its process was started, or the oldest of those of its copies. One that is
    /// not here is not known; an agent of before tells of none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secret_versions: BTreeMap<CredentialId, u32>,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Exit {
    /// The exit code, unless a signal ended it.
    #[serde(default)]
    pub code: Option<i32>,
    /// The signal that ended it.
    #[serde(default)]
    pub signal: Option<i32>,
    /// When.
    pub at: Timestamp,
    /// The last lines it wrote to standard error, bounded.
    #[serde(default)]
    pub stderr_tail: String,
    /// Why its agent ended it, such as that it did not get ready in time; none when it ended by itself or was to stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// What a server said of itself when probed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct McpInfo {
    /// Which protocol era it speaks.
    pub era: Era,
    /// The protocol version agreed on.
    pub protocol_version: String,
    /// Its own name, bounded; hostile text.
    pub server_name: String,
    /// Its own version, bounded; hostile text.
    pub server_version: String,
    /// How many tools it listed.
    pub tools: u32,
    /// The names of the tools it listed, bounded; hostile text. Empty when the agent does not tell them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_names: Vec<String>,
}

impl McpInfo {
    /// The most names that are told.
    pub const MOST_TOOL_NAMES: usize = 2000;
    /// The longest name that is told whole, in characters.
    pub const LONGEST_TOOL_NAME: usize = 128;

    /// The same without secrets: whoever is given one may say it as its own name. Names of tools stay, as in every list.
    #[must_use]
    pub fn redacted(self, redaction: &Redaction) -> Self {
        let clean = |text: String| redaction.clean(&text).into_owned();
        Self {
            protocol_version: clean(self.protocol_version),
            server_name: clean(self.server_name),
            server_version: clean(self.server_version),
            ..self
        }
    }
}

/// The two eras of MCP: before and after sessions were removed (`docs/ARCHITECTURE.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Era {
    /// 2024-11-05 to 2025-11-25: `initialize`, sessions.
    Legacy,
    /// 2026-07-28 and later: every request describes itself.
    Modern,
}

/// What an instance uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Usage {
    /// Resident memory of all its processes, in bytes.
    pub memory_bytes: u64,
    /// Processor time used since start, in milliseconds.
    pub cpu_ms: u64,
    /// How many processes.
    pub processes: u32,
    /// When it was measured.
    pub at: Timestamp,
}

/// How far a resolve job is that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobProgress {
    /// The job.
    pub id: JobId,
    /// For a person, bounded; empty when it goes on with what it is for.
    pub message: String,
}

/// How a resolve job ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobResult {
    /// The job.
    pub id: JobId,
    /// The lock, or why there is none.
    pub outcome: Result<Lock, Failure>,
}

/// A failure with its code and a text for a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Failure {
    /// The code.
    pub reason: Reason,
    /// For a person; bounded, without secrets.
    pub message: String,
}

/// `GET /v1/instances/{id}/logs?tail&follow`, also of an instance that is gone, and `GET /v1/jobs/{id}/logs?tail`: one
/// JSON object a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LogLine {
    /// When the line was read.
    pub at: Timestamp,
    /// Where it came from.
    pub stream: LogStream,
    /// The text, bounded; hostile, to be escaped where it is shown.
    pub text: String,
    /// On a line between the logs of two instances: the one whose lines come next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceId>,
}

/// Where a log line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    /// The server's standard error.
    Stderr,
    /// Noise the server wrote to standard output, which is for the protocol only.
    Stdout,
    /// Toolyard about the instance: started, ready, exited, killed.
    Toolyard,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(paths: &[&str]) -> Vec<PathGrant> {
        paths.iter().map(|path| PathGrant { path: (*path).to_owned(), writable: false }).collect()
    }

    fn report(listed: &[&str]) -> ToolboxReport {
        let listed = listed.iter().map(|root| (*root).to_owned()).collect();
        ToolboxReport { grantable_paths: Some(listed), ..ToolboxReport::default() }
    }

    #[test]
    fn the_first_path_that_a_host_does_not_list_is_told_and_what_is_not_known_is_not_refused() {
        let (revision, asked) = (RevisionId::generate(), grants(&["/srv/a/", "/srv/ab", "/etc"]));
        assert_eq!(report(&["/srv/a"]).refused_path(revision, &asked), Some("/srv/ab"));
        assert_eq!(report(&["/srv/*"]).refused_path(revision, &asked), Some("/etc"));
        assert_eq!(report(&[]).refused_path(revision, &asked), Some("/srv/a/"));
        assert_eq!(report(&[]).refused_path(revision, &[]), None);
        assert_eq!(ToolboxReport::default().refused_path(revision, &asked), None);
        let before = ToolboxReport { granted_before: [revision].into(), ..report(&[]) };
        assert_eq!(before.refused_path(revision, &asked), None);
        assert_eq!(before.refused_path(RevisionId::generate(), &asked), Some("/srv/a/"));
    }

    #[test]
    fn a_report_of_an_agent_that_does_not_tell_what_it_grants_is_read_and_a_list_that_is_too_long_is_none() {
        let of_before = r#"{"engine":"process","platform":"linux","runtimes":{},"enforcement":{}}"#;
        let read: ToolboxReport = serde_json::from_str(of_before).expect("it is read");
        assert_eq!((&read.grantable_paths, read.granted_before.len()), (&None, 0));
        assert_eq!(serde_json::to_string(&read).expect("written"), of_before);
        let many = vec!["/srv/a"; ToolboxReport::MOST_GRANTABLE];
        assert_eq!(report(&many).bounded(), report(&many));
        let more = ToolboxReport {
            granted_before: [RevisionId::generate()].into(),
            ..report(&[&many[..], &["/srv/b"]].concat())
        };
        assert_eq!(more.bounded(), ToolboxReport::default());
        let longest = format!("/{}", "a".repeat(ToolboxReport::LONGEST_PATH - 1));
        assert_eq!(report(&[longest.as_str()]).bounded(), report(&[longest.as_str()]));
        let longer = format!("{longest}a");
        assert_eq!(report(&["/srv/a", longer.as_str()]).bounded(), ToolboxReport::default());
    }

    #[test]
    fn an_agent_is_laxer_than_its_control_plane_only_where_both_environments_are_known() {
        let laxer = [("development", "staging"), ("development", "production"), ("staging", "production")];
        assert!(laxer.iter().all(|(agent, control_plane)| is_laxer(agent, control_plane)));
        let not =
            [("production", "production"), ("production", "development"), ("", "production"), ("development", "x")];
        assert!(not.iter().all(|(agent, control_plane)| !is_laxer(agent, control_plane)));
    }

    #[test]
    fn a_report_tells_no_more_runtimes_and_protections_than_a_host_can_have_and_no_endless_texts() {
        let long = "ü".repeat(5_000);
        let enforcement = |detail: &str| Enforcement { enforced: true, detail: detail.to_owned() };
        let mut told = ToolboxReport { engine: long.clone(), platform: long.clone(), ..ToolboxReport::default() };
        told.runtimes.insert("node".into(), long.clone());
        told.runtimes.insert(long.clone(), "1".into());
        told.enforcement.insert("volumes".into(), enforcement(&long));
        told.enforcement.insert(long.clone(), enforcement(""));
        let failure = |message: &str| Some(EngineFailure { message: message.to_owned(), since: Timestamp::default() });
        told.engine_failure = failure(&long);
        let head = "ü".repeat(ToolboxReport::LONGEST_TEXT);
        let kept = ToolboxReport {
            engine: head.clone(),
            platform: head.clone(),
            runtimes: [("node".to_owned(), head.clone())].into(),
            enforcement: [("volumes".to_owned(), enforcement(&head))].into(),
            engine_failure: failure(&head),
            ..ToolboxReport::default()
        };
        assert_eq!(told.clone().bounded(), kept);
        assert_eq!(kept.clone().bounded(), kept, "so that the same report is the same again");
        for number in 0..1_000 {
            told.runtimes.insert(format!("r{number}"), "1".into());
            told.enforcement.insert(format!("e{number}"), enforcement(""));
        }
        let bounded = told.bounded();
        let most = ToolboxReport::MOST_TOLD;
        assert_eq!((bounded.runtimes.len(), bounded.enforcement.len()), (most, most));
    }
}
