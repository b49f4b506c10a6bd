//! `toolyard toolboxes`.

use std::time::{Duration, Instant};

use clap::Subcommand;
use serde_json::{Value, json};
use toolyard_client::segment;
use toolyard_types::agent::is_laxer;
use toolyard_types::api::servers::{
    BreakerState, EnrollToolbox, EnrolledToolbox, Health, RejoinToolbox, Toolbox, ToolboxLink, UpdateToolbox,
};
use toolyard_types::api::system::Version;
use toolyard_types::state::ToolboxState;
use toolyard_types::{Labels, Name};

use super::context::{Context, Failure};
use super::output;
use super::servers::Wait;
use super::wait::{Pauses, unless_interrupted};

/// The name of the toolbox that is part of `toolyard serve`.
const BUILT_IN: &str = "local";

const REMOVE_EXAMPLES: &str = "Examples:
  toolyard toolboxes drain edge1; toolyard toolboxes remove edge1   # no call fails
  toolyard toolboxes remove edge1 --now                             # its host is gone";

/// `toolyard toolboxes ...`
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List toolboxes.
    List,
    /// Show a toolbox and what it can enforce.
    Show {
        /// The toolbox.
        name: Name,
    },
    /// Make a toolbox and print the command that starts its agent.
    Enroll {
        /// The toolbox.
        name: Name,
        /// What servers may ask of it, such as `zone=a,gpu=yes`.
        #[arg(long, value_name = "KEY=VALUE", default_value = "")]
        labels: Labels,
        /// Where its agent listens, on a host that must not dial out (`toolyard dtma --listen`).
        #[arg(long, value_name = "HOST:PORT")]
        address: Option<String>,
        /// How long the token is good for, such as `30m` or `24h`.
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = super::seconds_within::<1, 604_800>)]
        expires: u32,
    },
    /// Print another token for a toolbox: its host was installed anew, or its certificates revoked.
    Rejoin {
        /// The toolbox.
        name: Name,
        /// How long the token is good for, such as `30m` or `24h`.
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = super::seconds_within::<1, 604_800>)]
        expires: u32,
    },
    /// End a toolbox's certificates and close its connections; what it runs goes on.
    Revoke {
        /// The toolbox.
        name: Name,
    },
    /// Replace a toolbox's labels.
    Label {
        /// The toolbox.
        name: Name,
        /// All its labels from now on, such as `zone=a,gpu=yes`; empty for none.
        labels: Labels,
    },
    /// Say where a toolbox's agent listens, or that it dials.
    Address {
        /// The toolbox.
        name: Name,
        /// Where it listens from now on.
        #[arg(value_name = "HOST:PORT", required_unless_present = "none", conflicts_with = "none")]
        address: Option<String>,
        /// It dials from now on.
        #[arg(long)]
        none: bool,
    },
    /// Place nothing new on a toolbox and move what may run elsewhere.
    Drain {
        /// The toolbox.
        name: Name,
        #[command(flatten)]
        wait: Wait,
    },
    /// Place things on a drained toolbox again.
    Resume {
        /// The toolbox.
        name: Name,
    },
    /// Remove a toolbox; what runs there is placed elsewhere. Of one that is drained it waits for what still moves.
    ///
    /// What runs there ends as soon as its agent hears of it. An agent that is away goes on with it until it is heard or
    /// stopped, beside what is placed elsewhere.
    #[command(after_help = REMOVE_EXAMPLES)]
    Remove {
        /// The toolbox.
        name: Name,
        /// Do not wait for what still moves: it is placed elsewhere afterwards, and does not answer until then.
        #[arg(long)]
        now: bool,
        /// Seconds to wait at most for what still moves, such as 900 or 15m; nothing is removed when they are over.
        #[arg(long, value_name = "SECONDS", value_parser = super::seconds, default_value_t = 900, conflicts_with = "now")]
        timeout: u32,
    },
}

/// `toolyard toolboxes ...`
pub(crate) async fn run(context: &Context, command: Command) -> Result<(), Failure> {
    let client = &context.client;
    match command {
        Command::List => {
            let toolboxes: Vec<Toolbox> = client.list("/toolboxes", &json!({})).await?;
            output::print_list(
                context.format,
                &toolboxes,
                &["NAME", "STATE", "ENGINE", "LABELS", "VERSION", "INSTANCES", "CERTIFICATE UNTIL", "LAST SEEN"],
                |toolbox| {
                    vec![
                        toolbox.name.to_string(),
                        toolbox.state.to_string(),
                        toolbox.engine.clone(),
                        toolbox.labels.to_string(),
                        toolbox.version.clone().unwrap_or_default(),
                        toolbox.instances.to_string(),
                        toolbox.certificate_expires_at.map(|at| at.to_string()).unwrap_or_default(),
                        toolbox.last_seen_at.map_or("never".into(), |at| at.to_string()),
                    ]
                },
            );
        }
        Command::Show { name } => {
            let toolbox: Toolbox = client.get(&path(&name)).await?;
            // A control plane that does not answer this has answered all that was asked for.
            let control_plane: Option<Version> = client.get("/version").await.ok();
            print_with(context, &toolbox, control_plane.map(|version| version.environment).as_deref());
        }
        Command::Enroll { name, labels, address, expires } => {
            let body = EnrollToolbox { name, labels, address, expires_seconds: Some(expires) };
            print_token(context, &client.post("/toolboxes", &body).await?);
        }
        Command::Rejoin { name, expires } => {
            let body = RejoinToolbox { expires_seconds: Some(expires) };
            print_token(context, &client.post(&format!("{}/rejoin", path(&name)), &body).await?);
        }
        Command::Revoke { name } => print(context, &client.post(&format!("{}/revoke", path(&name)), &json!({})).await?),
        Command::Drain { name, wait } => {
            let toolbox: Toolbox = client.post(&format!("{}/drain", path(&name)), &json!({})).await?;
            let toolbox = match wait.limit() {
                Some(limit) => {
                    let draining = drained(context, toolbox, limit);
                    let show = context.command(&["toolboxes", "show", name.as_str()]);
                    unless_interrupted(draining, || format!("interrupted; it is drained all the same: `{show}`"))
                        .await?
                }
                None => toolbox,
            };
            print(context, &toolbox);
        }
        Command::Resume { name } => print(context, &client.post(&format!("{}/resume", path(&name)), &json!({})).await?),
        Command::Label { name, labels } => {
            let body = UpdateToolbox { labels: Some(labels), ..UpdateToolbox::default() };
            print(context, &client.send(reqwest::Method::PATCH, &path(&name), Some(&body)).await?);
        }
        Command::Address { name, address, none: _ } => {
            let body = UpdateToolbox { address: Some(address.unwrap_or_default()), ..UpdateToolbox::default() };
            print(context, &client.send(reqwest::Method::PATCH, &path(&name), Some(&body)).await?);
        }
        Command::Remove { name, now, timeout } => {
            if !now {
                let draining = drained(context, client.get(&path(&name)).await?, Duration::from_secs(timeout.into()));
                unless_interrupted(draining, || "interrupted; it is drained all the same, and not removed".into())
                    .await?;
            }
            let _: Value = client.send(reqwest::Method::DELETE, &path(&name), None::<&()>).await?;
            output::print_fields(
                context.format,
                &json!({ "name": name, "state": "removed" }),
                &[("removed", name.to_string())],
            );
        }
    }
    Ok(())
}

/// Waits until a toolbox that is drained has only what stays there. One that is not drained, or not heard, is as it is.
async fn drained(context: &Context, mut toolbox: Toolbox, limit: Duration) -> Result<Toolbox, Failure> {
    let until = Instant::now() + limit;
    let mut said = String::new();
    let mut pauses = Pauses::new();
    loop {
        let still = toolbox.drain.as_ref().filter(|_| toolbox.state == ToolboxState::Draining);
        if still.is_none_or(|drain| drain.moving + drain.ending == 0) {
            return Ok(toolbox);
        }
        if Instant::now() > until {
            let message =
                format!("toolbox `{}` was not drained in {} seconds; it goes on", toolbox.name, limit.as_secs());
            let why = "`toolyard servers list --toolbox NAME` tells what runs there, `toolyard servers show` why it does not move; \
                       `toolyard toolboxes remove NAME --now` does not wait";
            let details = vec![toolbox.message.clone(), why.replace("NAME", toolbox.name.as_str())];
            return Err(Failure { details, ..Failure::new(message) });
        }
        if said != toolbox.message {
            said.clone_from(&toolbox.message);
            output::progress(context.format, &said);
        }
        pauses.pause().await;
        toolbox = context.client.get(&path(&toolbox.name)).await?;
    }
}

fn print_token(context: &Context, enrolled: &EnrolledToolbox) {
    let fields = [
        ("token", enrolled.token.clone()),
        ("good until", enrolled.expires_at.to_string()),
        match &enrolled.toolbox.address {
            Some(address) => ("is reached at", address.clone()),
            None => ("reaches", enrolled.addresses.join(", ")),
        },
        ("command", enrolled.command.clone()),
        ("keeps its data", "where `--data-dir DIR` says; never in the data directory of `toolyard serve`".to_owned()),
    ];
    output::print_fields(context.format, enrolled, &fields);
}

fn path(name: &Name) -> String {
    format!("/toolboxes/{}", segment(name.as_str()))
}

fn print(context: &Context, toolbox: &Toolbox) {
    print_with(context, toolbox, None);
}

/// Prints a toolbox; with the environment of its control plane also whether its agent's is a laxer one.
fn print_with(context: &Context, toolbox: &Toolbox, control_plane: Option<&str>) {
    let mut fields = vec![
        ("name", toolbox.name.to_string()),
        ("state", toolbox.state.to_string()),
        ("reason", format!("{} {}", toolbox.reason, toolbox.message)),
        ("draining", if toolbox.draining { "yes" } else { "no" }.to_owned()),
        ("labels", toolbox.labels.to_string()),
        ("version", toolbox.version.clone().unwrap_or_default()),
        ("certificate until", toolbox.certificate_expires_at.map(|at| at.to_string()).unwrap_or_default()),
        ("address", address(toolbox)),
        ("link", link(&toolbox.link)),
        ("engine", toolbox.engine.clone()),
        ("platform", toolbox.report.platform.clone()),
        ("instances", toolbox.instances.to_string()),
    ];
    if let Some(ours) = &toolbox.report.environment {
        let stricter = control_plane.filter(|theirs| is_laxer(ours, theirs));
        let text = match stricter {
            Some(theirs) => format!(
                "{ours}, and its control plane's is {theirs}: its defaults are laxer; start its agent with TOOLYARD_ENV={theirs}"
            ),
            None => ours.clone(),
        };
        fields.push(("environment", output::safe(&text)));
    }
    if let Some(failure) = &toolbox.offer_failure {
        let text = format!("{} ({} attempts failed, the last at {})", failure.message, failure.failures, failure.at);
        fields.push(("not reached", output::safe(&text)));
    }
    if let Some(capacity) = &toolbox.report.capacity {
        let gib = |bytes: u64| format!("{}.{} GiB", bytes >> 30, ((bytes % (1 << 30)) * 10) >> 30);
        let (memory, available) = (gib(capacity.memory_bytes), gib(capacity.memory_available_bytes));
        let disk = gib(capacity.disk_free_bytes);
        let text = format!("{} cpus, {available} of {memory} memory free, {disk} disk free", capacity.cpus);
        fields.push(("capacity", text));
    }
    if let Some(health) = &toolbox.health {
        fields.push(("health", fares(health)));
        fields.push(("last answer", health.last_success_at.map(|at| at.to_string()).unwrap_or_default()));
        for error in &health.recent_errors {
            let server = error.server.as_ref().map(Name::as_str).unwrap_or_default();
            fields.push(("error", output::safe(&format!("{} {server}: {} {}", error.at, error.reason, error.message))));
        }
    }
    for (protection, enforcement) in &toolbox.report.enforcement {
        let word = if enforcement.enforced { "enforced" } else { "NOT enforced" };
        fields.push((protection, format!("{word}: {}", enforcement.detail)));
    }
    output::print_fields(context.format, toolbox, &fields);
}

/// Where the control plane reaches its agent.
fn address(toolbox: &Toolbox) -> String {
    match &toolbox.address {
        Some(address) => address.clone(),
        None if toolbox.name.as_str() == BUILT_IN => "none: its agent is part of `toolyard serve`".to_owned(),
        None => "none: its agent dials".to_owned(),
    }
}

/// How what runs on a toolbox fares.
fn fares(health: &Health) -> String {
    if health.phases.is_empty() {
        return "no instances".to_owned();
    }
    let phases: Vec<_> = health.phases.iter().map(|count| format!("{} {}", count.count, count.phase)).collect();
    let restarts = if health.restarts == 1 { "restart" } else { "restarts" };
    format!("{}; {} {restarts}", phases.join(", "), health.restarts)
}

fn link(link: &ToolboxLink) -> String {
    let connected = if link.connected { "connected" } else { "not connected" };
    match link.breaker {
        BreakerState::Closed => connected.to_owned(),
        state => format!("{connected}, breaker {} after {} calls without an answer", state.as_str(), link.failures),
    }
}
