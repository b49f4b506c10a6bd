//! What was set on a server, read back. A form that shows it and sends it again changes nothing.

use std::collections::BTreeMap;

use toolyard_policy::Resource;
use toolyard_types::access::Action;
use toolyard_types::api::settings::{BoundCredential, CurrentSettings};
use toolyard_types::{CredentialId, Name};

use super::expand::{Chosen, Given, kind_of};
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
    let revision = tx.revision(server.target_revision).await?.ok_or_else(|| unknown(name))?;
    let wish = wish_of(&revision)?;
    let names: BTreeMap<CredentialId, Name> =
        match control.decider().allows(caller, Action::CredentialRead, &Resource::Organization) {
            true => tx.credential_ids().await?.into_iter().map(|(name, id)| (id, name)).collect(),
            false => BTreeMap::new(),
        };
    let bound = |id: CredentialId| BoundCredential { id, name: names.get(&id).cloned() };
    let kind = kind_of(&revision.spec.runtime).to_owned();
    let (inputs, mut credentials) = split(wish.inputs, bound);
    let (environment, more) = split(wish.environment, bound);
    credentials.extend(more);
    credentials.extend(wish.registry.map(|id| ("registry".to_owned(), bound(id))));
    let (package, remote) = match wish.chosen {
        Chosen::Package(package) => (Some(*package), None),
        Chosen::Remote(remote) => (None, Some(*remote)),
    };
    Ok(CurrentSettings {
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
    })
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
