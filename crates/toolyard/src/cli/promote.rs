//! `toolyard servers promote`: brings what a server runs here to another organization or another Toolyard.
//!
//! What travels is what was set, with the exact version of the entry: no secret, no revision, no lock. The other side
//! expands it, resolves its own lock and begins a rollout of its own, with its own gate. Credentials are bound anew: to
//! those that the server there is bound to already, else to those that are named, else to those of the same name.
//! What belongs to a place (toolbox, replicas, window, restarts) is taken over only when the server is new there.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use toolyard_client::{ApiError, Client, segment};
use toolyard_types::api::servers::{CreateServer, Server, ServerSettings, UpdateServer};
use toolyard_types::api::settings::CurrentSettings;
use toolyard_types::spec::{ProbeCall, RemoteTransport};
use toolyard_types::{Code, Labels, Name, Secret};

use super::context::{Context, Failure};
use super::secret::read_value;
use super::servers::{MannerFlags, Wait, Wanted, finish};
use super::{name_value, options};

/// `toolyard servers promote`.
#[derive(Clone, Debug, Args)]
pub(crate) struct PromoteArgs {
    /// The server, here.
    name: Name,
    /// The other Toolyard; this one when absent.
    #[arg(long, value_name = "URL")]
    to: Option<String>,
    /// An API key of the organization to bring it to: @FILE to read it from a file, - from standard input; on a terminal -
    /// asks for it and does not show it.
    #[arg(long, value_name = "KEY")]
    to_key: String,
    /// Its name there; the same when absent.
    #[arg(long = "as", value_name = "NAME")]
    as_name: Option<Name>,
    /// Which credential there an input or environment variable is bound to.
    #[arg(long = "credential", value_name = "NAME=CREDENTIAL", value_parser = name_value, allow_hyphen_values = true)]
    credentials: Vec<(String, String)>,
    /// The toolbox there, when the server is new.
    #[arg(long)]
    toolbox: Option<Name>,
    /// The labels of its toolbox there, when the server is new.
    #[arg(long, value_name = "KEY=VALUE", conflicts_with = "toolbox")]
    toolbox_labels: Option<Labels>,
    /// Create it there without starting it, when it is new.
    #[arg(long)]
    stopped: bool,
    #[command(flatten)]
    manner: MannerFlags,
    #[command(flatten)]
    wait: Wait,
}

/// `toolyard servers promote`.
pub(crate) async fn run(context: &Context, args: PromoteArgs) -> Result<(), Failure> {
    let key: Secret = read_value(&args.to_key, "API key")?;
    let url = args.to.clone().unwrap_or_else(|| context.client.base().to_owned());
    let there = context.elsewhere(&url, key)?;
    let name = args.as_name.clone().unwrap_or_else(|| args.name.clone());
    let here = settings(&context.client, &args.name).await?;
    let here = here.ok_or_else(|| Failure::new(format!("there is no server `{}` here", args.name)))?;
    let before = settings(&there.client, &name).await?;
    let credentials = bindings(&here, before.as_ref(), &args)?;
    let (server, wanted): (Server, _) = match &before {
        None => {
            let wanted = if args.stopped { Wanted::Nothing } else { Wanted::Rollout };
            let created = there.client.post("/servers", &creation(here, name, credentials, &args)).await;
            (created.map_err(refused)?, wanted)
        }
        Some(before) => {
            let path = format!("/servers/{}", segment(name.as_str()));
            let was: Server = there.client.get(&path).await?;
            let body = change(here, before, credentials, &args)?;
            args.manner.tell_unknown_clients(&there).await;
            let server: Server =
                there.client.send(reqwest::Method::PATCH, &path, Some(&body)).await.map_err(refused)?;
            let begun = server.rollout.as_ref().map(|it| it.id) != was.rollout.as_ref().map(|it| it.id);
            (server, if begun { Wanted::Rollout } else { Wanted::Nothing })
        }
    };
    finish(&there, server, &args.wait, wanted).await
}

/// What the other side refuses. No secret travels, so one that is missing there can only be bound.
fn refused(error: ApiError) -> Failure {
    let is_missing = error.problem().is_some_and(|problem| problem.code == Code::CredentialMissing);
    let mut failure = Failure::from(error);
    if is_missing {
        let general = options::help(Code::CredentialMissing);
        failure.details.retain(|detail| *detail != general);
        let help = "bind a credential of the other side with `--credential NAME=CREDENTIAL`; `toolyard credentials set` makes \
                    one there";
        failure.details.insert(0, help.to_owned());
    }
    failure
}

async fn settings(client: &Client, name: &Name) -> Result<Option<CurrentSettings>, Failure> {
    match client.get(&format!("/servers/{}/settings", segment(name.as_str()))).await {
        Ok(settings) => Ok(Some(settings)),
        Err(error) if error.problem().is_some_and(|problem| problem.code == Code::NotFound) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What a credential may be bound to: inputs of the entry, and what is set here or there.
fn inputs(here: &CurrentSettings, before: Option<&CurrentSettings>) -> BTreeSet<String> {
    let set = |settings: &CurrentSettings| -> Vec<String> {
        let texts = settings.inputs.keys().chain(settings.environment.keys());
        texts.chain(settings.credentials.keys()).cloned().collect()
    };
    let of_package = here.package.iter().flat_map(|package| package.inputs().into_keys());
    let of_remote = here.remote.iter().flat_map(|remote| remote.inputs().into_keys());
    let declared = of_package.chain(of_remote).map(str::to_owned);
    declared.chain(set(here)).chain(before.into_iter().flat_map(set)).chain(["registry".to_owned()]).collect()
}

/// What each secret of the server is bound to there; nothing for what is bound there already.
fn bindings(
    here: &CurrentSettings,
    before: Option<&CurrentSettings>,
    args: &PromoteArgs,
) -> Result<BTreeMap<String, Name>, Failure> {
    let mut bound = BTreeMap::new();
    let known = inputs(here, before);
    for (input, credential) in &args.credentials {
        if !known.contains(input) {
            let known = known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            return Err(Failure::new(format!("`{}` has no input `{input}` to bind; it has {known}", args.name)));
        }
        let name = Name::new(credential.clone()).map_err(|error| Failure::new(error.to_string()))?;
        bound.insert(input.clone(), name);
    }
    for (input, credential) in &here.credentials {
        let kept = before.is_some_and(|before| before.credentials.contains_key(input));
        if kept || bound.contains_key(input) {
            continue;
        }
        let Some(name) = &credential.name else {
            let message = format!("say what `{input}` is bound to there: `--credential {input}=NAME`");
            return Err(Failure::new(message));
        };
        bound.insert(input.clone(), name.clone());
    }
    Ok(bound)
}

/// What was set here, without what belongs to a place.
fn carried(here: &CurrentSettings, credentials: BTreeMap<String, Name>) -> ServerSettings {
    ServerSettings {
        inputs: here.inputs.iter().map(|(name, value)| (name.clone(), Secret::new(value.clone()))).collect(),
        environment: here.environment.clone(),
        credentials,
        arguments: Some(here.arguments.clone()),
        limits: Some(here.limits.clone()),
        paths: Some(here.paths.clone()),
        egress: Some(here.egress.clone()),
        strategy: Some(here.strategy),
        start_timeout_ms: Some(here.start_timeout_ms),
        call_timeout_ms: Some(here.call_timeout_ms),
        probe_call: here.probe_call.clone(),
        rollout_timeout_ms: Some(here.rollout_timeout_ms),
        instancing: Some(here.instancing.clone()),
        volumes: Some(here.volumes.clone()),
        privileges: Some(here.privileges.clone()).filter(|privileges| !privileges.is_empty()),
        ..ServerSettings::default()
    }
}

fn creation(
    here: CurrentSettings,
    name: Name,
    credentials: BTreeMap<String, Name>,
    args: &PromoteArgs,
) -> CreateServer {
    let settings = ServerSettings {
        replicas: Some(here.replicas),
        observe_seconds: Some(here.observe_seconds),
        restart_at: here.restart_at.map(|time| time.to_string()),
        update_window: here.update_window.map(|window| window.to_string()),
        ..carried(&here, credentials)
    };
    let remote = here.remote.filter(|_| here.entry.is_none());
    let transport = remote.as_ref().map(|remote| match remote.kind.as_str() {
        "sse" => RemoteTransport::Sse,
        _ => RemoteTransport::StreamableHttp,
    });
    CreateServer {
        name: Some(name),
        version: here.entry.as_ref().map(|entry| entry.version.clone()),
        package: here.entry.as_ref().map(|_| here.kind.clone()),
        entry: here.entry.map(|entry| entry.name),
        url: remote.and_then(|remote| remote.url),
        transport,
        settings,
        toolbox: args.toolbox.clone(),
        toolbox_labels: args.toolbox_labels.clone().unwrap_or_default(),
        start: args.stopped.then_some(false),
    }
}

fn change(
    here: CurrentSettings,
    before: &CurrentSettings,
    credentials: BTreeMap<String, Name>,
    args: &PromoteArgs,
) -> Result<UpdateServer, Failure> {
    let entry = |settings: &CurrentSettings| settings.entry.as_ref().map(|entry| entry.name.clone());
    if (entry(&here), &here.kind) != (entry(before), &before.kind) {
        let message = "the server there was made from another entry; use another name with `--as`, or delete it there";
        return Err(Failure::new(message));
    }
    let set = |settings: &CurrentSettings| -> BTreeSet<String> {
        let texts = settings.inputs.keys().chain(settings.environment.keys());
        texts.chain(settings.credentials.keys()).cloned().collect()
    };
    let mut settings = carried(&here, credentials);
    if here.probe_call.is_none() && before.probe_call.is_some() {
        // One without a tool takes away the one that was set.
        settings.probe_call = Some(ProbeCall { tool: String::new(), arguments: serde_json::Map::new() });
    }
    settings.unset_environment = set(before).difference(&set(&here)).cloned().collect();
    Ok(UpdateServer {
        url: here.remote.filter(|_| here.entry.is_none()).and_then(|remote| remote.url),
        version: here.entry.map(|entry| entry.version),
        settings,
        toolbox: None,
        toolbox_labels: None,
        any_toolbox: false,
        accept_lost_tools: args.manner.accepts_lost_tools(),
        canary: args.manner.canary()?,
        now: args.manner.is_now(),
    })
}
