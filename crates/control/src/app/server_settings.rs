//! What was set on a server, read back, and as a change that changes nothing: what a form or a script edits and sends.

use std::collections::{BTreeMap, BTreeSet};

use toolyard_policy::Resource;
use toolyard_types::access::Action;
use toolyard_types::api::servers::ServerSettings;
use toolyard_types::api::settings::{BoundCredential, CurrentSettings};
use toolyard_types::{CredentialId, Name, Secret};

use super::expand::{Chosen, Given, Wish, kind_of};
use super::server_view::etag;
use super::servers::{unknown, wish_of};
use crate::{Caller, Control, Result};

/// The settings of the revision that is meant to run.
///
/// # Errors
/// `not_found`.
pub(crate) async fn get(control: &Control, caller: &Caller, name: &Name) -> Result<CurrentSettings> {
    let tx = control.store().org_read(caller.organization).await?;
    let server = tx.server(name).await?.ok_or_else(|| unknown(name))?;
    let revision = tx.revision(server.meant_revision()).await?.ok_or_else(|| unknown(name))?;
    let wish = wish_of(&revision)?;
    let names: BTreeMap<CredentialId, Name> =
        match control.decider().allows(caller, Action::CredentialRead, &Resource::Organization) {
            true => tx.credential_ids().await?.into_iter().map(|(name, id)| (id, name)).collect(),
            false => BTreeMap::new(),
        };
    let bound = |id: CredentialId| BoundCredential { id, name: names.get(&id).cloned() };
    let kind = kind_of(&revision.spec.runtime).to_owned();
    let unsaid = Unsaid::of(&wish);
    let (inputs, mut credentials) = split(wish.inputs, bound);
    let (environment, more) = split(wish.environment, bound);
    credentials.extend(more);
    credentials.extend(wish.registry.map(|id| ("registry".to_owned(), bound(id))));
    let (package, remote) = match wish.chosen {
        Chosen::Package(package) => (Some(*package), None),
        Chosen::Remote(remote) => (None, Some(*remote)),
    };
    let mut settings = CurrentSettings {
        revision: revision.number,
        etag: etag(&server),
        entry: wish.entry,
        kind,
        package,
        remote,
        inputs,
        environment,
        credentials,
        arguments: wish.arguments,
        limits: wish.limits,
        paths: wish.paths,
        egress: wish.egress,
        strategy: wish.strategy,
        instancing: wish.instancing,
        volumes: wish.volumes,
        privileges: wish.privileges,
        start_timeout_ms: wish.start_timeout_ms,
        call_timeout_ms: wish.call_timeout_ms,
        probe_call: wish.probe_call,
        rollout_timeout_ms: server.rollout_timeout_ms,
        replicas: server.replicas,
        observe_seconds: u32::try_from(server.observe_ms / 1000).unwrap_or(u32::MAX),
        restart_at: server.restart_at,
        update_window: server.update_window,
        change: ServerSettings::default(),
    };
    settings.change = change(&settings, &unsaid);
    Ok(settings)
}

/// What cannot be sent again as what it is, because the entry has it as another thing since the server got another version
/// of it. Left out of a change it stays.
struct Unsaid {
    /// Inputs whose text would be kept as a secret now.
    inputs: BTreeSet<String>,
    /// Variables that would be inputs now.
    environment: BTreeSet<String>,
}

impl Unsaid {
    fn of(wish: &Wish) -> Self {
        let variables = wish.environment.iter().filter(|(name, given)| match given {
            Given::Text(_) => wish.declared().contains_key(name.as_str()) || wish.makes_secret(name),
            Given::Credential(_) => wish.input_key(name).is_some(),
        });
        Self {
            inputs: wish.inputs.keys().filter(|key| wish.is_secret(key)).cloned().collect(),
            environment: variables.map(|(name, _)| name.clone()).collect(),
        }
    }
}

fn change(settings: &CurrentSettings, unsaid: &Unsaid) -> ServerSettings {
    let inputs = settings.inputs.iter().filter(|(key, _)| !unsaid.inputs.contains(*key));
    let environment = settings.environment.iter().filter(|(name, _)| !unsaid.environment.contains(*name));
    let credentials = settings.credentials.iter().filter(|(key, _)| !unsaid.environment.contains(*key));
    ServerSettings {
        // No secrets: everybody who may see the server reads these above; a change only has them in that type.
        inputs: inputs.map(|(key, text)| (key.clone(), Secret::new(text.clone()))).collect(),
        environment: environment.map(|(name, text)| (name.clone(), text.clone())).collect(),
        unset_environment: Vec::new(),
        credentials: credentials.filter_map(|(key, bound)| Some((key.clone(), bound.name.clone()?))).collect(),
        arguments: Some(settings.arguments.clone()),
        limits: Some(settings.limits.clone()),
        paths: Some(settings.paths.clone()),
        egress: Some(settings.egress.clone()),
        strategy: Some(settings.strategy),
        start_timeout_ms: Some(settings.start_timeout_ms),
        call_timeout_ms: Some(settings.call_timeout_ms),
        probe_call: settings.probe_call.clone(),
        rollout_timeout_ms: Some(settings.rollout_timeout_ms),
        instancing: Some(settings.instancing.clone()),
        volumes: Some(settings.volumes.clone()),
        privileges: Some(settings.privileges.clone()),
        replicas: Some(settings.replicas),
        observe_seconds: Some(settings.observe_seconds),
        restart_at: settings.restart_at.map(|time| time.to_string()),
        update_window: settings.update_window.map(|window| window.to_string()),
    }
}

/// What is text and what is a credential.
fn split(
    given: BTreeMap<String, Given>,
    bound: impl Fn(CredentialId) -> BoundCredential,
) -> (BTreeMap<String, String>, BTreeMap<String, BoundCredential>) {
    let (mut texts, mut credentials) = (BTreeMap::new(), BTreeMap::new());
    for (key, given) in given {
        match given {
            Given::Text(text) => drop(texts.insert(key, text)),
            Given::Credential(id) => drop(credentials.insert(key, bound(id))),
        }
    }
    (texts, credentials)
}
