//! `toolyard deploy`, `servers` and `rollout`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::{Value, json};
use toolyard_client::segment;
use toolyard_types::access::Action;
use toolyard_types::api::identity::{ApiKey, Member, Why};
use toolyard_types::api::servers::{
    CloneServer, CreateServer, Instance, Revision, RollbackServer, Rollout, Server, ServerSettings, StartCanary,
    Toolset, UpdateServer,
};
use toolyard_types::api::settings::CurrentSettings;
use toolyard_types::server_json::Input;
use toolyard_types::spec::{
    Egress, EgressHost, Instancing, InstancingMode, Limits, PathGrant, Privilege, RemoteTransport, Strategy, Volume,
};
use toolyard_types::state::{Phase, Reason, RolloutState};
use toolyard_types::{EntryName, Labels, Name, NameError, Problem, RolloutId};

use super::access::{active_keys, confirm};
use super::context::{Context, Failure};
use super::logs;
use super::output::{self, Format, safe};
use super::secret::read_value;
use super::wait::{Pauses, unless_interrupted};
use super::{name_value, seconds, seconds_within};

/// `toolyard deploy`.
#[derive(Clone, Debug, Args)]
#[command(override_usage = "toolyard deploy [OPTIONS] <ENTRY>\n       toolyard deploy [OPTIONS] --remote <URL>")]
#[command(after_help = "Examples:
  toolyard deploy io.github.modelcontextprotocol/server-time --name time --wait
  toolyard deploy io.github.github/github-mcp-server --input GITHUB_PERSONAL_ACCESS_TOKEN=@token.txt --wait
  toolyard deploy --remote https://mcp.example.com/mcp --name example --header 'Authorization: @token.txt'

A package that no entry is for (what clients run with npx or uvx) gets one: write a server.json and
`toolyard catalog publish` it; docs/guides/catalog.md has a whole one. A server that writes files needs a directory of the
toolbox's host that it may write to: --path /srv/files:rw.")]
pub(crate) struct DeployArgs {
    /// The catalog entry, `namespace/name`.
    #[arg(required_unless_present = "remote", value_parser = entry_name)]
    entry: Option<EntryName>,
    /// A remote MCP server's URL, instead of an entry.
    #[arg(long, conflicts_with = "entry", value_name = "URL")]
    remote: Option<String>,
    /// How to speak to the remote server.
    #[arg(long, value_parser = ["streamable-http", "sse"], requires = "remote")]
    transport: Option<String>,
    /// A header that the remote server wants, such as `Authorization: Bearer ...`; `NAME: @FILE` reads its value from a file,
    /// `NAME: -` from standard input, and on a terminal asks for it. It is kept as a credential. Repeat for several.
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = header, requires = "remote")]
    headers: Vec<(String, String)>,
    /// The server's name; made from the entry's when absent.
    #[arg(long)]
    name: Option<Name>,
    /// The entry's version; the latest when absent.
    #[arg(long = "entry-version", value_name = "VERSION")]
    version: Option<String>,
    /// Which of the entry's packages: npm, pypi, oci or remote.
    #[arg(long)]
    package: Option<String>,
    /// The toolbox to run on; any suitable one when absent.
    #[arg(long)]
    toolbox: Option<Name>,
    /// Run on any toolbox that has these labels, such as `zone=a`; separate several by commas.
    #[arg(long, value_name = "KEY=VALUE", conflicts_with = "toolbox")]
    toolbox_labels: Option<Labels>,
    /// Create it without starting it.
    #[arg(long)]
    stopped: bool,
    #[command(flatten)]
    settings: SettingsFlags,
    #[command(flatten)]
    wait: Wait,
}

/// Flags that set a server's settings.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct SettingsFlags {
    /// An input of the entry: NAME=VALUE, NAME=@FILE to read it from a file, NAME=- from standard input; on a terminal
    /// NAME=- asks for it and does not show it.
    #[arg(long = "input", value_name = "NAME=VALUE", value_parser = name_value, allow_hyphen_values = true)]
    inputs: Vec<(String, String)>,
    /// An environment variable.
    #[arg(long = "set-env", alias = "env", value_name = "NAME=VALUE", value_parser = name_value)]
    set_env: Vec<(String, String)>,
    /// Remove an environment variable.
    #[arg(long = "unset-env", value_name = "NAME", allow_hyphen_values = true)]
    unset_env: Vec<String>,
    /// Bind a credential to an input or environment variable.
    #[arg(long = "credential", value_name = "NAME=CREDENTIAL", value_parser = name_value, allow_hyphen_values = true)]
    credentials: Vec<(String, String)>,
    /// An argument after the entry's own; repeat for several.
    #[arg(long = "arg", value_name = "ARGUMENT", allow_hyphen_values = true)]
    arguments: Vec<String>,
    /// Memory limit of an instance, such as 512M or 2G.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<u64>,
    /// Limit of processes and threads of an instance.
    #[arg(long, value_name = "N")]
    processes: Option<u32>,
    /// How much an instance may keep on disk in its own directories, such as 512M or 2G; 1G unless set.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    disk: Option<u64>,
    /// Allow it what sandboxes refuse: `new_namespaces` (browsers need it) or `listen` (on TCP ports of its host); repeat
    /// for both, `none` for nothing any more. Takes `server:grant_privilege`.
    #[arg(long = "privilege", value_name = "PRIVILEGE", value_parser = privilege)]
    privileges: Vec<Option<Privilege>>,
    /// A host path the server may read, or PATH:rw to write too; repeat for several.
    #[arg(long = "path", value_name = "PATH[:rw]")]
    paths: Vec<String>,
    /// A place of its own that outlives instances and revisions, such as `data:/data`; repeat for several, `none` for
    /// none any more. The server then stays on its toolbox, and a new revision starts when the old one has ended.
    #[arg(long = "volume", value_name = "NAME:PATH", value_parser = volume)]
    volumes: Vec<Option<Volume>>,
    /// Whom it may reach: `all`, `none`, or hosts such as `api.example.com,*.example.org:8443`.
    #[arg(long, value_name = "WHOM", value_parser = egress)]
    egress: Option<Egress>,
    /// How a new revision replaces the old.
    #[arg(long, value_parser = ["surge", "recreate"])]
    strategy: Option<String>,
    /// Seconds from start to the MCP answer, such as 90 or 2m; 60 unless set.
    #[arg(long, value_name = "SECONDS", value_parser = seconds_within::<1, 3600>)]
    start_timeout: Option<u32>,
    /// Seconds one call may take, such as 60 or 10m; 300 unless set.
    #[arg(long, value_name = "SECONDS", value_parser = seconds_within::<1, 86_400>)]
    call_timeout: Option<u32>,
    /// Seconds a rollout may take in all, such as 900 or 15m; 600 unless set.
    #[arg(long, value_name = "SECONDS", value_parser = seconds_within::<1, 86_400>)]
    rollout_timeout: Option<u32>,
    /// How many instances serve at once, 1 to 20; changing only this makes no new revision.
    #[arg(long, value_name = "N")]
    replicas: Option<u32>,
    /// Seconds that a new revision is observed while the old one runs on, such as 30 or 2m, at most 1h; 5 unless set.
    #[arg(long, value_name = "SECONDS", value_parser = seconds_within::<0, 3600>)]
    observe: Option<u32>,
    /// Restart it each day at this time (UTC), such as `03:30`; `none` for never.
    #[arg(long, value_name = "TIME")]
    restart_at: Option<String>,
    /// Make changes only then (UTC), such as `02:00-05:00` or `sat,sun 22:00-04:00`; `none` for at any time.
    #[arg(long, value_name = "WINDOW")]
    update_window: Option<String>,
    /// Who shares an instance: everybody, or one user or one session each has a copy.
    #[arg(long, value_parser = ["shared", "per_user", "per_session"])]
    instancing: Option<String>,
    /// The most copies at once for users or sessions, 1 to 1000; 20 unless set.
    #[arg(long, value_name = "N", requires = "instancing")]
    max_copies: Option<u32>,
    /// Seconds after which a copy without a call ends, such as 90 or 10m; 600 unless set.
    #[arg(long, value_name = "SECONDS", value_parser = seconds_within::<1, 86_400>, requires = "instancing")]
    idle_stop: Option<u32>,
    /// How many copies are started ahead.
    #[arg(long, value_name = "N", requires = "instancing")]
    warm: Option<u32>,
}

/// Flags that say how a new revision takes over.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct MannerFlags {
    /// Let the new revision serve although it lists fewer tools than the old one.
    #[arg(long)]
    accept_lost_tools: bool,
    /// Try the new revision on this part of the calls first, such as `10%`; then `rollout promote` or `rollout cancel`.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    canary: Option<u8>,
    /// Try it on every call of this API key (its name), or actor (`user:<id>`); repeat for several.
    #[arg(long = "canary-client", value_name = "NAME")]
    canary_clients: Vec<String>,
    /// Let it serve by itself after this many seconds without a failure, such as 600 or 1h.
    #[arg(long, value_name = "SECONDS", value_parser = seconds_within::<1, 604_800>)]
    promote_after: Option<u32>,
    /// Begin now although it is outside the server's update window.
    #[arg(long)]
    now: bool,
}

impl MannerFlags {
    pub(crate) fn accepts_lost_tools(&self) -> bool {
        self.accept_lost_tools
    }

    pub(crate) fn is_now(&self) -> bool {
        self.now
    }

    /// Says, on standard error, which clients of a canary nobody is known by: they are never tried. Who may not see whom
    /// there is says nothing.
    pub(crate) async fn tell_unknown_clients(&self, context: &Context) {
        if self.canary_clients.is_empty() {
            return;
        }
        // A caller that sees only its own keys cannot tell that there is no such key.
        let asked = json!({ "action": Action::KeyRead, "resource": "api_key/other" });
        let keys = match context.client.get_with::<Why>("/why", &asked).await {
            Ok(why) if why.allowed => active_keys(context, None).await.ok(),
            _ => None,
        };
        let members = context.client.list::<Member>("/members", &json!({})).await.ok();
        for client in unknown_clients(&self.canary_clients, keys.as_deref(), members.as_deref()) {
            eprintln!(
                "warning: there is no API key or member `{}` that works, so the canary serves none of its calls; \
                 `toolyard keys list --active` shows the names",
                safe(client)
            );
        }
    }

    pub(crate) fn canary(&self) -> Result<Option<StartCanary>, Failure> {
        if self.canary.is_none() && self.canary_clients.is_empty() {
            return match self.promote_after {
                Some(_) => Err(Failure::new("`--promote-after` needs `--canary` or `--canary-client`")),
                None => Ok(None),
            };
        }
        Ok(Some(StartCanary {
            weight: self.canary.unwrap_or(0),
            clients: self.canary_clients.clone(),
            promote_after_seconds: self.promote_after,
        }))
    }
}

/// Those of `clients` whom none of the keys and members is, as far as these are known.
fn unknown_clients<'a>(
    clients: &'a [String],
    keys: Option<&[ApiKey]>,
    members: Option<&[Member]>,
) -> impl Iterator<Item = &'a str> {
    clients.iter().map(String::as_str).filter(move |client| match client.split_once(':') {
        Some(("user", id)) => members.is_some_and(|members| !members.iter().any(|it| it.id.to_string() == id)),
        Some(("api_key", id)) => keys.is_some_and(|keys| !keys.iter().any(|it| it.id.to_string() == id)),
        // An e-mail address is no name of a key, and the other way round.
        _ if client.contains('@') => members.is_some_and(|members| !members.iter().any(|it| it.email == *client)),
        _ => keys.is_some_and(|keys| !keys.iter().any(|it| it.name.as_str() == *client)),
    })
}

fn none_is_empty(text: &str) -> String {
    if text == "none" { String::new() } else { text.to_owned() }
}

fn percent(text: &str) -> Result<u8, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim().parse::<u8>().ok();
    number.filter(|number| *number <= 100).ok_or_else(|| "must be 0 to 100, such as `10%`".into())
}

impl SettingsFlags {
    fn settings(&self) -> Result<ServerSettings, Failure> {
        let credentials = self.credentials.iter().map(|(input, credential)| {
            let name = Name::new(credential.clone()).map_err(|error| Failure::new(error.to_string()))?;
            Ok((input.clone(), name))
        });
        let limits = (self.memory.is_some() || self.processes.is_some() || self.disk.is_some()).then(|| {
            let mut limits = Limits::default();
            limits.memory_bytes = self.memory.unwrap_or(limits.memory_bytes);
            limits.processes = self.processes.unwrap_or(limits.processes);
            limits.disk_bytes = self.disk.unwrap_or(limits.disk_bytes);
            limits
        });
        let path = |text: &String| match text.strip_suffix(":rw") {
            Some(path) => PathGrant { path: path.to_owned(), writable: true },
            None => PathGrant { path: text.clone(), writable: false },
        };
        let inputs = self.inputs.iter().map(|(name, value)| Ok((name.clone(), read_value(value, name)?)));
        Ok(ServerSettings {
            inputs: inputs.collect::<Result<_, Failure>>()?,
            environment: self.set_env.iter().cloned().collect::<BTreeMap<_, _>>(),
            unset_environment: self.unset_env.clone(),
            credentials: credentials.collect::<Result<_, Failure>>()?,
            arguments: (!self.arguments.is_empty()).then(|| self.arguments.clone()),
            limits,
            paths: (!self.paths.is_empty()).then(|| self.paths.iter().map(path).collect()),
            volumes: (!self.volumes.is_empty()).then(|| self.volumes.iter().flatten().cloned().collect()),
            egress: self.egress.clone(),
            privileges: (!self.privileges.is_empty()).then(|| self.privileges.iter().flatten().copied().collect()),
            strategy: self.strategy.as_deref().map(|s| if s == "surge" { Strategy::Surge } else { Strategy::Recreate }),
            start_timeout_ms: self.start_timeout.map(milliseconds),
            call_timeout_ms: self.call_timeout.map(milliseconds),
            rollout_timeout_ms: self.rollout_timeout.map(milliseconds),
            replicas: self.replicas,
            observe_seconds: self.observe,
            restart_at: self.restart_at.as_deref().map(none_is_empty),
            update_window: self.update_window.as_deref().map(none_is_empty),
            instancing: self.instancing.as_deref().map(|mode| self.instancing(mode)),
            ..ServerSettings::default()
        })
    }
}

impl SettingsFlags {
    fn instancing(&self, mode: &str) -> Instancing {
        let otherwise = Instancing::default();
        Instancing {
            mode: match mode {
                "per_user" => InstancingMode::PerUser,
                "per_session" => InstancingMode::PerSession,
                _ => InstancingMode::Shared,
            },
            max_copies: self.max_copies.unwrap_or(otherwise.max_copies),
            idle_stop_ms: self.idle_stop.map_or(otherwise.idle_stop_ms, milliseconds),
            warm: self.warm.unwrap_or(otherwise.warm),
        }
    }
}

fn entry_name(text: &str) -> Result<EntryName, String> {
    EntryName::new(text).map_err(|error| {
        format!(
            "{error}; `toolyard catalog search` finds one, `toolyard catalog publish` makes one of a server.json of your own, and \
             `--remote URL` needs none"
        )
    })
}

/// `NAME: VALUE`, as HTTP writes it.
fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((name, value)) if !name.trim().is_empty() && !value.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("must be `NAME: VALUE`, such as `Authorization: Bearer ...`".into()),
    }
}

/// `NAME:PATH`, or nothing for `none`.
fn volume(text: &str) -> Result<Option<Volume>, String> {
    if text == "none" {
        return Ok(None);
    }
    let (name, path) = text.split_once(':').ok_or("must be `NAME:PATH`, such as `data:/data`, or `none`")?;
    let volume = Volume { name: name.parse().map_err(|error: NameError| error.to_string())?, path: path.to_owned() };
    match volume.check_path() {
        Ok(()) => Ok(Some(volume)),
        Err(message) => Err(format!("the path {message}")),
    }
}

fn privilege(text: &str) -> Result<Option<Privilege>, String> {
    match Privilege::ALL.into_iter().find(|privilege| privilege.as_str() == text) {
        None if text != "none" => Err("must be `new_namespaces`, `listen` or `none`".into()),
        privilege => Ok(privilege),
    }
}

fn egress(text: &str) -> Result<Egress, String> {
    match text {
        "all" => return Ok(Egress::All),
        "none" => return Ok(Egress::None),
        _ => {}
    }
    let hosts: Vec<String> = text.split(',').map(|host| host.trim().to_owned()).collect();
    match hosts.iter().find(|host| EgressHost::parse(host).is_none()) {
        Some(bad) => Err(format!("`{bad}` is not `host`, `host:port` or `*.domain`; or use `all` or `none`")),
        None => Ok(Egress::Hosts { hosts }),
    }
}

/// Seconds, as a number or with a unit.
fn milliseconds(seconds: u32) -> u64 {
    u64::from(seconds) * 1000
}

fn size(text: &str) -> Result<u64, String> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let shift = match unit.to_ascii_uppercase().trim_end_matches("IB").trim_end_matches('B') {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return Err("must be a number with K, M or G, such as 512M".into()),
    };
    let number: u64 = digits.parse().map_err(|_| "must be a number with K, M or G, such as 512M".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "is too large".into())
}

/// Whether to wait for the change to end.
#[derive(Clone, Debug, Args)]
pub(crate) struct Wait {
    /// Wait until the change ended, with its steps on standard error; exit code 1 when it failed. One that waits for its
    /// update window, or for a decision about its canary, counts as arrived: exit code 0, and `waiting` in the table and
    /// the reason of `rollout` in JSON say so. Ctrl-C ends the waiting, not the change.
    #[arg(long)]
    wait: bool,
    /// Seconds to wait at most, such as 900 or 15m.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value_t = 900)]
    timeout: u32,
}

impl Wait {
    /// How long to wait at most, if at all.
    pub(crate) fn limit(&self) -> Option<Duration> {
        self.wait.then(|| Duration::from_secs(self.timeout.into()))
    }
}

/// `toolyard servers ...`
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List servers.
    List {
        /// Only those whose name has this in it.
        #[arg(long)]
        search: Option<String>,
        /// Only those in this phase.
        #[arg(long)]
        phase: Option<String>,
        /// Only those that run on this toolbox, or must.
        #[arg(long)]
        toolbox: Option<Name>,
        /// In this order; `-` turns it around.
        #[arg(long, value_parser = ["name", "-name", "created_at", "-created_at"], allow_hyphen_values = true)]
        sort: Option<String>,
    },
    /// Show a server.
    #[command(aliases = ["get", "describe"])]
    Show {
        /// The server.
        name: Name,
    },
    /// Change a server's settings; makes a new revision.
    Update {
        /// The server.
        name: Name,
        /// Another version of the entry, or `latest`.
        #[arg(long = "entry-version", value_name = "VERSION")]
        version: Option<String>,
        /// Another URL, for a remote server that was registered by its URL.
        #[arg(long, value_name = "URL")]
        remote: Option<String>,
        #[command(flatten)]
        place: PlaceFlags,
        #[command(flatten)]
        settings: Box<SettingsFlags>,
        #[command(flatten)]
        manner: MannerFlags,
        #[command(flatten)]
        wait: Wait,
    },
    /// Start a stopped server.
    Start(Target),
    /// Stop a server; it stays deployed.
    Stop(Target),
    /// Replace a server's instances by new ones of the same revision.
    Restart(Target),
    /// Go back to an earlier revision.
    Rollback {
        /// The server.
        name: Name,
        /// The revision's number; the one before when absent.
        #[arg(long)]
        revision: Option<u32>,
        #[command(flatten)]
        wait: Wait,
    },
    /// Copy a server under a new name.
    Clone {
        /// The server.
        name: Name,
        /// The copy's name.
        copy: Name,
        #[command(flatten)]
        wait: Wait,
    },
    /// Bring what a server runs to another organization or another Toolyard; credentials are bound anew.
    Promote(Box<super::promote::PromoteArgs>),
    /// Stop a server and remove it, with its logs and volumes.
    #[command(aliases = ["rm", "remove"])]
    Delete(DeleteArgs),
    /// List a server's revisions.
    Revisions {
        /// The server.
        name: Name,
    },
    /// Print a server's log.
    Logs {
        /// The server.
        name: Name,
        /// How many lines from the end.
        #[arg(long, default_value_t = 100)]
        tail: u32,
        /// Go on printing as lines arrive, also those of the next instance when this one is gone. After a lost connection, or
        /// a restart of Toolyard, it goes on behind the last line; exit code 1 when it cannot within two minutes.
        #[arg(long, short)]
        follow: bool,
        /// Print the log of the instance that ended last: of a deployment that failed, or of what ran before.
        #[arg(long, short)]
        previous: bool,
        /// Print the log of this revision's instance.
        #[arg(long, value_name = "NUMBER")]
        revision: Option<u32>,
        /// Print the log of this instance.
        #[arg(long, value_name = "ID", conflicts_with_all = ["previous", "revision"])]
        instance: Option<String>,
    },
}

/// Where a server runs from now on: a new instance there takes over before the old one ends.
#[derive(Clone, Debug, Args)]
pub(crate) struct PlaceFlags {
    /// Run on this toolbox from now on.
    #[arg(long)]
    toolbox: Option<Name>,
    /// Run on any toolbox that has these labels from now on, such as `zone=a`; separate several by commas.
    #[arg(long, value_name = "KEY=VALUE", conflicts_with = "toolbox")]
    toolbox_labels: Option<Labels>,
    /// Run on any suitable toolbox from now on.
    #[arg(long, conflicts_with_all = ["toolbox", "toolbox_labels"])]
    any_toolbox: bool,
}

/// A server and whether to wait.
#[derive(Clone, Debug, Args)]
pub(crate) struct Target {
    /// The server.
    name: Name,
    #[command(flatten)]
    wait: Wait,
}

/// `toolyard servers delete`.
#[derive(Clone, Debug, Args)]
pub(crate) struct DeleteArgs {
    /// The server.
    name: Name,
    /// Do not ask; without a terminal nobody is asked.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    wait: Wait,
}

/// `toolyard rollout ...`
#[derive(Debug, Subcommand)]
pub(crate) enum RolloutCommand {
    /// Show the rollout under way, or the last one.
    Status {
        /// The server.
        name: Name,
    },
    /// Let the revision that is tried as a canary serve.
    Promote {
        /// The server.
        name: Name,
        #[command(flatten)]
        wait: Wait,
    },
    /// Stop the rollout; the old revision serves on, or again.
    Cancel {
        /// The server.
        name: Name,
    },
    /// What others call `servers rollback`.
    #[command(hide = true)]
    Undo {
        /// The server.
        name: Name,
        /// The revision's number; the one before when absent.
        #[arg(long, alias = "to-revision")]
        revision: Option<u32>,
        #[command(flatten)]
        wait: Wait,
    },
    /// What others call `servers revisions`.
    #[command(hide = true)]
    History {
        /// The server.
        name: Name,
    },
}

/// `toolyard deploy`.
pub(crate) async fn deploy(context: &Context, args: DeployArgs) -> Result<(), Failure> {
    let mut settings = args.settings.settings()?;
    for (name, value) in &args.headers {
        settings.inputs.insert(name.clone(), read_value(value, name)?);
    }
    let body = CreateServer {
        name: args.name,
        entry: args.entry,
        version: args.version,
        package: args.package,
        url: args.remote,
        transport: args.transport.map(|text| match text.as_str() {
            "sse" => RemoteTransport::Sse,
            _ => RemoteTransport::StreamableHttp,
        }),
        settings,
        toolbox: args.toolbox,
        toolbox_labels: args.toolbox_labels.unwrap_or_default(),
        start: args.stopped.then_some(false),
    };
    let server: Server = context.client.post("/servers", &body).await?;
    tell_suggestions(context, &server).await?;
    let wanted = if args.stopped { Wanted::Nothing } else { Wanted::Rollout };
    finish(context, server, &args.wait, wanted).await
}

/// Says which paths the entry suggests that nobody gave: the server does not see them.
async fn tell_suggestions(context: &Context, server: &Server) -> Result<(), Failure> {
    if !matches!(server.kind.as_str(), "npm" | "pypi") {
        return Ok(());
    }
    let settings: CurrentSettings = context.client.get(&path(&server.name, "/settings")).await?;
    for (input, suggested) in suggested_paths(&settings) {
        eprintln!(
            "{}",
            output::safe(&format!(
                "the entry suggests the path `{suggested}`, which `{}` does not see; `--input {input}={suggested}` lets it",
                server.name
            ))
        );
    }
    Ok(())
}

/// The paths of the host that the entry has as defaults and nobody gave, by their inputs.
fn suggested_paths(settings: &CurrentSettings) -> Vec<(String, String)> {
    let Some(package) = &settings.package else { return Vec::new() };
    let is_path = |input: &Input| input.format.as_deref() == Some("filepath");
    let given = |name: &str| settings.inputs.contains_key(name) || settings.credentials.contains_key(name);
    let suggested = package.inputs().into_iter().filter(|(name, input)| is_path(input) && !given(name));
    let suggested = suggested.filter_map(|(name, input)| Some((name.to_owned(), input.default.clone()?)));
    suggested.filter(|(_, path)| path.starts_with('/')).collect()
}

/// `toolyard servers ...`
pub(crate) async fn run(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::List { search, phase, toolbox, sort } => {
            let asked =
                [("search", search), ("phase", phase), ("toolbox", toolbox.map(|it| it.to_string())), ("sort", sort)];
            list(context, asked).await
        }
        Command::Show { name } => {
            let server: Server = context.client.get(&path(&name, "")).await?;
            let settings: CurrentSettings = context.client.get(&path(&name, "/settings")).await?;
            print_shown(context.format, &Shown { server, privileges: settings.privileges });
            Ok(())
        }
        Command::Update { name, version, remote, place, settings, manner, wait } => {
            let body = UpdateServer {
                version,
                url: remote,
                toolbox: place.toolbox,
                toolbox_labels: place.toolbox_labels,
                any_toolbox: place.any_toolbox,
                settings: settings.settings()?,
                accept_lost_tools: manner.accept_lost_tools,
                canary: manner.canary()?,
                now: manner.now,
            };
            manner.tell_unknown_clients(context).await;
            let before: Server = context.client.get(&path(&name, "")).await?;
            let server: Server = context.client.send(reqwest::Method::PATCH, &path(&name, ""), Some(&body)).await?;
            tell_suggestions(context, &server).await?;
            let id = |server: &Server| server.rollout.as_ref().map(|rollout| rollout.id);
            // What makes no rollout, such as another number of replicas, is not judged by the last one.
            let wanted = if id(&before) == id(&server) { Wanted::Replicas } else { Wanted::Rollout };
            if body.canary.is_some() && wanted == Wanted::Replicas && !is_tried(&server) {
                eprintln!(
                    "note: no revision is tried: a canary begins with a change, and there was none to the revision"
                );
            }
            finish(context, server, &wait, wanted).await
        }
        Command::Start(target) => begin(context, target, "/start").await,
        Command::Stop(target) => act(context, target, "/stop", Wanted::Stopped).await,
        Command::Restart(target) => begin(context, target, "/restart").await,
        Command::Rollback { name, revision, wait } => {
            let server = context.client.post(&path(&name, "/rollback"), &RollbackServer { revision }).await?;
            finish(context, server, &wait, Wanted::Rollout).await
        }
        Command::Clone { name, copy, wait } => {
            let server = context.client.post(&path(&name, "/clone"), &CloneServer { name: copy }).await?;
            finish(context, server, &wait, Wanted::Rollout).await
        }
        Command::Promote(args) => super::promote::run(context, *args).await,
        Command::Delete(args) => delete(context, args).await,
        Command::Revisions { name } => revisions(context, &name).await,
        Command::Logs { name, tail, follow, previous, revision, instance } => {
            let server = path(&name, "");
            let asked = logs::Asked { name, server, tail, follow, previous, revision, instance };
            logs::run(context, &asked).await
        }
    }
}

/// `toolyard rollout ...`
pub(crate) async fn rollout(context: &Context, command: RolloutCommand) -> Result<(), Failure> {
    let rollout: Rollout = match command {
        RolloutCommand::Promote { name, wait } => {
            let rollout = context.client.post(&path(&name, "/rollout/promote"), &json!({})).await?;
            if wait.wait {
                let server = context.client.get(&path(&name, "")).await?;
                return finish(context, server, &wait, Wanted::Rollout).await;
            }
            rollout
        }
        RolloutCommand::Status { name } => context.client.get(&path(&name, "/rollout")).await?,
        RolloutCommand::Cancel { name } => context.client.post(&path(&name, "/rollout/cancel"), &json!({})).await?,
        RolloutCommand::Undo { name, revision, wait } => {
            return run(context, Command::Rollback { name, revision, wait }).await;
        }
        RolloutCommand::History { name } => return revisions(context, &name).await,
    };
    print_rollout(context.format, &rollout);
    Ok(())
}

fn path(name: &Name, rest: &str) -> String {
    format!("/servers/{}{rest}", segment(name.as_str()))
}

async fn list(context: &Context, asked: [(&str, Option<String>); 4]) -> Result<(), Failure> {
    let query: BTreeMap<_, _> = asked.into_iter().collect();
    let servers: Vec<Server> = context.client.list("/servers", &query).await?;
    output::print_list(context.format, &servers, &["NAME", "PHASE", "REASON", "REVISION", "KIND", "SINCE"], |server| {
        vec![
            server.name.to_string(),
            server.phase.to_string(),
            server.reason.to_string(),
            server.revision.to_string(),
            server.kind.clone(),
            server.since.to_string(),
        ]
    });
    // A note, not a phase: it serves.
    for server in servers.iter().filter(|_| context.format == Format::Table) {
        if let Some(note) = outdated_note(server) {
            let restart = context.command(&["servers", "restart", server.name.as_str()]);
            eprintln!("{}", safe(&format!("`{}` {note}: `{restart}`", server.name)));
        }
    }
    Ok(())
}

/// That something of a server was started with an older secret than the current one.
fn outdated_note(server: &Server) -> Option<String> {
    let outdated = server.instances.iter().flat_map(|instance| &instance.outdated_secrets);
    let names: BTreeSet<&str> = outdated.map(Name::as_str).collect();
    let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    let names = names.join(", ");
    (!names.is_empty()).then(|| format!("runs with an older secret of {names}; restart it to use the new one"))
}

/// That a change of a server is not made yet, and does not go on by itself now.
fn waiting_note(server: &Server) -> Option<String> {
    let rollout = server.rollout.as_ref().filter(|it| it.state == RolloutState::Progressing)?;
    match rollout.reason {
        Reason::OutsideWindow => Some(format!("revision {} {}", rollout.to_revision, rollout.message)),
        Reason::Canary => Some(format!("{}, until it is decided about", rollout.message)),
        _ => None,
    }
}

async fn act(context: &Context, target: Target, rest: &str, wanted: Wanted) -> Result<(), Failure> {
    let server = context.client.post(&path(&target.name, rest), &json!({})).await?;
    finish(context, server, &target.wait, wanted).await
}

/// Begins what a change may come after that waits.
async fn begin(context: &Context, target: Target, rest: &str) -> Result<(), Failure> {
    let server: Server = context.client.post(&path(&target.name, rest), &json!({})).await?;
    let wanted = server.rollout.as_ref().map_or(Wanted::Rollout, |begun| Wanted::RolloutOf(begun.id));
    finish(context, server, &target.wait, wanted).await
}

/// What `--wait` waits for.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Wanted {
    Nothing,
    /// The last rollout, whichever it is by then.
    Rollout,
    /// This rollout.
    RolloutOf(RolloutId),
    Replicas,
    Stopped,
}

impl Wanted {
    fn is(self, rollout: &Rollout) -> bool {
        match self {
            Self::Rollout => true,
            Self::RolloutOf(id) => rollout.id == id,
            _ => false,
        }
    }
}

pub(crate) async fn finish(context: &Context, server: Server, wait: &Wait, wanted: Wanted) -> Result<(), Failure> {
    if !wait.wait || wanted == Wanted::Nothing {
        print_server(context.format, &server);
        return Ok(());
    }
    let name = server.name.clone();
    let more = || {
        let words: [&str; 3] = match wanted {
            Wanted::Rollout | Wanted::RolloutOf(_) => ["rollout", "status", name.as_str()],
            _ => ["servers", "show", name.as_str()],
        };
        format!("`{}` tells how far it is", context.command(&words))
    };
    let ended = follow(context, server, wait, wanted, &more);
    let server =
        unless_interrupted(ended, || format!("interrupted; `{name}` goes on all the same: {}", more())).await?;
    match &server.rollout {
        Some(rollout)
            if wanted.is(rollout) && !matches!(rollout.state, RolloutState::Done | RolloutState::Progressing) =>
        {
            // For people the steps stand there already.
            let untold = if context.format == Format::Json { &rollout.log[..] } else { &[] };
            let details = untold.iter().map(|step| format!("{}  {}", step.at, step.message)).collect();
            let message = format!("`{}` {}: {}", server.name, rollout.state, rollout.message);
            Err(Failure { code: rollout.reason.to_string(), details, ..Failure::new(message) })
        }
        _ => {
            print_server(context.format, &server);
            Ok(())
        }
    }
}

/// Looks until it is over, and for people prints the steps of the rollout on standard error as they come.
async fn follow(
    context: &Context,
    mut server: Server,
    wait: &Wait,
    wanted: Wanted,
    more: impl Fn() -> String,
) -> Result<Server, Failure> {
    let until = Instant::now() + Duration::from_secs(wait.timeout.into());
    let steps = |server: &Server| server.rollout.as_ref().map_or_else(Vec::new, |rollout| rollout.log.clone());
    // Elsewhere the rollout is the one before, which nobody waits for.
    let mut said = if server.rollout.as_ref().is_some_and(|it| wanted.is(it)) { 0 } else { steps(&server).len() };
    let mut pauses = Pauses::new();
    loop {
        let steps = steps(&server);
        for step in steps.iter().skip(said).filter(|_| context.format == Format::Table) {
            eprintln!("{}  {}", step.at, safe(&step.message));
        }
        said = steps.len().max(said);
        if is_over(&server, wanted) {
            return Ok(server);
        }
        if Instant::now() > until {
            let name = &server.name;
            let message =
                format!("`{name}` did not get there in {} seconds; it goes on: {}", wait.timeout, stand(&server));
            return Err(Failure { details: vec![more()], ..Failure::new(message) });
        }
        pauses.pause().await;
        server = context.client.get(&path(&server.name, "")).await?;
    }
}

/// Where it stands, for people.
fn stand(server: &Server) -> String {
    let rollout = server.rollout.as_ref().filter(|rollout| rollout.state == RolloutState::Progressing);
    let (reason, message) = rollout.map_or((server.reason, &server.message), |it| (it.reason, &it.message));
    if message.is_empty() {
        format!("{}, {reason}", server.phase)
    } else {
        format!("{}, {reason}: {message}", server.phase)
    }
}

fn is_over(server: &Server, wanted: Wanted) -> bool {
    match wanted {
        Wanted::Nothing => true,
        Wanted::Stopped => server.phase == Phase::Stopped && server.instances.is_empty(),
        Wanted::Replicas => {
            let goes_on = |it: &Rollout| it.state == RolloutState::Progressing && !stands_still(it);
            server.rollout.as_ref().is_none_or(goes_on) || has_replicas(server)
        }
        Wanted::Rollout | Wanted::RolloutOf(_) => match &server.rollout {
            None => true,
            // What begins after it does so once it has ended, and a minute later when it failed.
            Some(rollout) if !wanted.is(rollout) => has_replicas(server),
            Some(rollout) if rollout.state == RolloutState::Progressing => stands_still(rollout),
            Some(rollout) => rollout.state != RolloutState::Done || has_replicas(server),
        },
    }
}

/// Whether a rollout has got as far as it does by itself: a canary waits for somebody, and what is outside its window for
/// its time. What serves is scaled meanwhile.
fn stands_still(rollout: &Rollout) -> bool {
    matches!(rollout.reason, Reason::Canary | Reason::OutsideWindow)
}

/// Whether a revision is to be tried, or is, and nobody decided about it.
fn is_tried(server: &Server) -> bool {
    let under_way = server.rollout.as_ref().filter(|rollout| rollout.state == RolloutState::Progressing);
    under_way.and_then(|rollout| rollout.canary.as_ref()).is_some_and(|canary| canary.promoted_at.is_none())
}

/// Whether as many instances answer as should.
fn has_replicas(server: &Server) -> bool {
    let ready = server.instances.iter().filter(|it| it.phase == Phase::Ready && it.revision == server.revision).count();
    !server.enabled || server.kind == "remote" || u32::try_from(ready).is_ok_and(|ready| ready >= server.replicas)
}

async fn delete(context: &Context, args: DeleteArgs) -> Result<(), Failure> {
    let server_path = path(&args.name, "");
    let toolsets = toolsets_with(context, &args.name).await;
    let left = match toolsets.as_slice() {
        [] => String::new(),
        names => format!("{}; calls to its tools there say that it does not exist", names.join(", ")),
    };
    if !args.yes && std::io::stdin().is_terminal() {
        // Nobody is asked about a name that was mistyped.
        let server: Server = context.client.get(&server_path).await?;
        eprintln!("server `{}` is stopped and removed, and so are its logs and what its volumes keep", server.name);
        if !left.is_empty() {
            eprintln!("it stays in the toolsets {}", output::safe(&left));
        }
        confirm()?;
    }
    let _: Value = context.client.send(reqwest::Method::DELETE, &server_path, None::<&()>).await?;
    if args.wait.wait {
        let gone = wait_until_gone(context, &server_path, Duration::from_secs(args.wait.timeout.into()));
        let show = context.command(&["servers", "show", args.name.as_str()]);
        unless_interrupted(gone, || format!("interrupted; it is stopped and removed all the same: `{show}`")).await?;
    }
    let done = if args.wait.wait { "deleted" } else { "deleting" };
    output::print_fields(
        context.format,
        &json!({ "name": args.name, "state": done, "toolsets": toolsets }),
        &[(done, args.name.to_string()), ("still in toolsets", left)],
    );
    Ok(())
}

/// The toolsets that a server is in, as far as this key may know them.
async fn toolsets_with(context: &Context, name: &Name) -> Vec<String> {
    let toolsets: Vec<Toolset> = context.client.list("/toolsets", &json!({})).await.unwrap_or_default();
    let has_it = |toolset: &Toolset| toolset.members.iter().any(|member| member.server == *name);
    toolsets.into_iter().filter(has_it).map(|toolset| toolset.name.to_string()).collect()
}

async fn wait_until_gone(context: &Context, server_path: &str, limit: Duration) -> Result<(), Failure> {
    let until = Instant::now() + limit;
    let mut pauses = Pauses::new();
    loop {
        match context.client.get::<Server>(server_path).await {
            Ok(_) if Instant::now() > until => return Err(Failure::new("it is still being stopped")),
            Ok(_) => pauses.pause().await,
            Err(error) if error.problem().is_some_and(is_gone) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn is_gone(problem: &Problem) -> bool {
    problem.code == toolyard_types::Code::NotFound
}

async fn revisions(context: &Context, name: &Name) -> Result<(), Failure> {
    let revisions: Vec<Revision> = context.client.list(&path(name, "/revisions"), &json!({})).await?;
    output::print_list(context.format, &revisions, &["REVISION", "CHANGE", "BY", "AT", "LOCK"], |revision| {
        vec![
            revision.number.to_string(),
            revision.change.clone(),
            revision.created_by.clone(),
            revision.created_at.to_string(),
            revision.lock_digest.clone().unwrap_or_default(),
        ]
    });
    Ok(())
}

/// A server with what its sandbox allows it beyond what every server may.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    server: Server,
    privileges: BTreeSet<Privilege>,
}

fn print_shown(format: Format, shown: &Shown) {
    let allowed: Vec<&str> = shown.privileges.iter().map(|privilege| privilege.as_str()).collect();
    let mut fields = fields_of(&shown.server);
    fields.push(("privileges", allowed.join(", ")));
    output::print_fields(format, shown, &fields);
}

fn print_server(format: Format, server: &Server) {
    output::print_fields(format, server, &fields_of(server));
}

fn fields_of(server: &Server) -> Vec<(&'static str, String)> {
    let instance = |instance: &Instance| {
        let pid = match &instance.container_id {
            Some(id) => format!(", container {}", id.get(..12).unwrap_or(id)),
            None => instance.pid.map_or(String::new(), |pid| format!(", pid {pid}")),
        };
        let toolbox = instance.toolbox.as_ref().map_or("?", Name::as_str);
        format!("{} on {toolbox}, revision {}, {}{pid}", instance.id, instance.revision, instance.phase)
    };
    let reason = if server.message.is_empty() {
        server.reason.to_string()
    } else {
        format!("{}: {}", server.reason, server.message)
    };
    let instances: Vec<String> = server.instances.iter().map(instance).collect();
    let toolbox = match (&server.toolbox, server.toolbox_removed_at) {
        (Some(name), Some(at)) => format!("{name}, which was removed at {at}"),
        (None, Some(at)) => format!("one that was removed at {at}"),
        (Some(name), None) => name.to_string(),
        (None, None) if !server.toolbox_labels.is_empty() => format!("any with {}", server.toolbox_labels),
        (None, None) => String::new(),
    };
    vec![
        ("name", server.name.to_string()),
        ("phase", server.phase.to_string()),
        ("reason", reason),
        ("waiting", waiting_note(server).unwrap_or_default()),
        ("next attempt", server.next_attempt_at.map_or(String::new(), |at| at.to_string())),
        ("revision", server.revision.to_string()),
        ("entry", server.entry.as_ref().map_or(String::new(), |entry| format!("{} {}", entry.name, entry.version))),
        ("replicas", server.replicas.to_string()),
        ("toolbox", toolbox),
        ("instances", instances.join("; ")),
        ("note", outdated_note(server).unwrap_or_default()),
        ("MCP path", server.mcp_path.clone()),
    ]
}

fn print_rollout(format: Format, rollout: &Rollout) {
    let from = rollout.from_revision.map_or("nothing".into(), |number| number.to_string());
    let canary = rollout.canary.as_ref().map_or(String::new(), |canary| {
        let clients =
            if canary.clients.is_empty() { String::new() } else { format!(", {}", canary.clients.join(", ")) };
        format!("{} %{}", canary.weight, safe(&clients))
    });
    let steps: Vec<String> = rollout.log.iter().map(|step| format!("{} {}", step.at, step.message)).collect();
    output::print_fields(
        format,
        rollout,
        &[
            ("server", rollout.server.to_string()),
            ("state", rollout.state.to_string()),
            ("reason", format!("{} {}", rollout.reason, rollout.message)),
            ("change", format!("revision {from} to {}", rollout.to_revision)),
            ("canary", canary),
            ("serves since", rollout.switched_at.map_or(String::new(), |at| at.to_string())),
            ("next attempt", rollout.next_attempt_at.map_or(String::new(), |at| at.to_string())),
            ("steps", steps.join("; ")),
        ],
    );
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use serde_json::json;
    use toolyard_types::api::identity::{ApiKey, Member};

    use super::{SettingsFlags, size, unknown_clients};

    #[test]
    fn how_long_a_call_may_take_is_a_setting_of_its_own() {
        #[derive(Parser)]
        struct Given {
            #[command(flatten)]
            settings: SettingsFlags,
        }
        let settings = |words: &[&str]| {
            let words = std::iter::once("deploy").chain(words.iter().copied());
            let given = Given::try_parse_from(words).expect("options that there are");
            given.settings.settings().expect("settings")
        };
        assert_eq!(settings(&["--call-timeout", "60s"]).call_timeout_ms, Some(60_000));
        let both = settings(&["--call-timeout", "600", "--start-timeout", "2m"]);
        assert_eq!((both.call_timeout_ms, both.start_timeout_ms), (Some(600_000), Some(120_000)));
        assert_eq!(settings(&[]).call_timeout_ms, None);
        assert_eq!(settings(&["--observe", "2m"]).observe_seconds, Some(120));
    }

    #[test]
    fn a_client_of_a_canary_that_nobody_is_known_by_is_found_where_all_are_known() {
        let id = toolyard_types::ApiKeyId::generate();
        let key = json!({
            "id": id, "name": "ci", "prefix": "ty_0123", "role": "developer", "created_by": "user:x",
            "created_at": "2026-01-01T00:00:00Z",
        });
        let keys: [ApiKey; 1] = [serde_json::from_value(key).expect("a key")];
        let clients = ["ci", "cii", "user:x", "ada@example.org"].map(str::to_owned);
        let clients = clients.into_iter().chain([format!("api_key:{id}")]);
        let clients: Vec<String> = clients.collect();
        let unknown = |keys: Option<&[ApiKey]>, members: Option<&[Member]>| -> Vec<String> {
            unknown_clients(&clients, keys, members).map(str::to_owned).collect()
        };
        assert_eq!(unknown(Some(&keys), Some(&[])), ["cii", "user:x", "ada@example.org"]);
        assert_eq!(unknown(Some(&keys), None), ["cii"], "nobody knows the members");
        assert_eq!(unknown(None, Some(&[])), ["user:x", "ada@example.org"], "nobody knows the keys");
        assert!(unknown(None, None).is_empty());
    }

    #[test]
    fn sizes_are_read_with_their_unit() {
        assert_eq!((size("512M"), size("2g"), size("1KiB"), size("7")), (Ok(512 << 20), Ok(2 << 30), Ok(1024), Ok(7)));
        assert!(size("lots").is_err() && size("1T").is_err() && size("99999999999999999999").is_err());
    }
}
