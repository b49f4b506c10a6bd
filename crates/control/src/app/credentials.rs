//! Credentials: secrets that servers get by reference.
//!
//! A secret comes in once and never goes out through the API. [`open_many`] and [`open_versions`] are for what delivers
//! secrets to the one server that has them, the leases of remote servers and the agents' sync; [`open_held`] for the check
//! that headers, URLs and variables can hold them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use toolyard_policy::Resource;
use toolyard_store::{OrgTx, RevisionRow, SealedCredential, StoreError};
use toolyard_types::access::Action;
use toolyard_types::api::identity::{Credential, PutCredential};
use toolyard_types::api::{Page, PageQuery};
use toolyard_types::name::printable;
use toolyard_types::{Code, CredentialId, FieldError, Name, OrganizationId, Secret};

use super::expand::{NUL, Wish, unfit};
use super::servers::server_changed;
use super::{allow, audit, next_cursor, page_limit};
use crate::vault::{Place, Vault};
use crate::{Caller, Control, ControlError, Result};

const LARGEST_SECRET: usize = 64 * 1024;
const LONGEST_DESCRIPTION: usize = 500;

/// The credentials, without their secrets; for a narrowed key those that it may use.
pub(crate) async fn list(control: &Control, caller: &Caller, query: &PageQuery) -> Result<Page<Credential>> {
    let limit = page_limit(query)?;
    let tx = control.store().org_read(caller.organization).await?;
    let items = tx.credentials(query.cursor.as_deref(), limit + 1).await?;
    let mut page = next_cursor(items, limit, |credential| credential.name.to_string());
    page.items.retain(|credential| {
        control.decider().allows(caller, Action::CredentialRead, &Resource::Credential(credential.name.clone()))
    });
    mark_unreadable(control, &tx, &mut page.items).await?;
    Ok(page)
}

/// Refuses to bind a credential that the caller may not use: whoever deploys a server can read what it gets. What a
/// server has bound `before`, to the same input, may stay so.
///
/// # Errors
/// `forbidden`, naming the credential and the rule; or when the store fails.
pub(crate) async fn allow_bindings(
    control: &Control,
    caller: &Caller,
    tx: &OrgTx,
    wish: &Wish,
    before: Option<&Wish>,
) -> Result<()> {
    let kept = before.map(Wish::bound).unwrap_or_default();
    let added: BTreeSet<CredentialId> =
        wish.bound().into_iter().filter(|binding| !kept.contains(binding)).map(|(_, id)| id).collect();
    if added.is_empty() {
        return Ok(());
    }
    // A secret that is passed with the request is not in the vault yet: whoever passes it knows it.
    let known = tx.credential_ids().await?;
    let known = known.into_iter().filter(|(_, id)| added.contains(id)).map(|(name, _)| name);
    known.into_iter().try_for_each(|name| allow(control, caller, Action::CredentialUse, &Resource::Credential(name)))
}

/// One credential, without its secret.
pub(crate) async fn get(control: &Control, caller: &Caller, name: &Name) -> Result<Credential> {
    let tx = control.store().org_read(caller.organization).await?;
    let mut credential = tx.credential_named(name).await?.ok_or_else(|| unknown(name))?;
    mark_unreadable(control, &tx, std::slice::from_mut(&mut credential)).await?;
    Ok(credential)
}

/// Marks those whose secret was sealed with a master key that is not here.
async fn mark_unreadable(control: &Control, tx: &OrgTx, credentials: &mut [Credential]) -> Result<()> {
    let ids = credentials.iter().map(|credential| credential.id).collect();
    let unreadable = unreadable(control, tx, &ids).await?;
    for credential in credentials {
        credential.unreadable = unreadable.contains(&credential.id);
    }
    Ok(())
}

async fn unreadable(control: &Control, tx: &OrgTx, ids: &BTreeSet<CredentialId>) -> Result<BTreeSet<CredentialId>> {
    let heads = tx.envelope_heads(ids, u32::try_from(Vault::HEAD_LEN).unwrap_or(u32::MAX)).await?;
    Ok(heads.into_iter().filter(|(_, head)| !control.vault().has_key_of(head)).map(|(id, _)| id).collect())
}

/// Why the secrets of these credentials were not opened, for a person.
///
/// # Errors
/// When the store fails.
pub(crate) async fn why_not_opened(
    control: &Control,
    organization: OrganizationId,
    ids: &BTreeSet<CredentialId>,
) -> Result<BTreeMap<CredentialId, String>> {
    if ids.is_empty() {
        return Ok(BTreeMap::new());
    }
    let tx = control.store().org_read(organization).await?;
    let names = tx.credential_versions(ids).await?;
    let unreadable = unreadable(control, &tx, ids).await?;
    let why = |id: &CredentialId| match names.get(id) {
        None => "a credential that it gets was deleted; bind another".to_owned(),
        Some((name, _)) => {
            let what = match unreadable.contains(id) {
                true => "was sealed with another master key",
                false => "cannot be opened",
            };
            format!("credential `{name}` {what}; set it again: toolyard credentials set {name}")
        }
    };
    Ok(ids.iter().map(|id| (*id, why(id))).collect())
}

/// Makes a credential, or gives one a new secret.
pub(crate) async fn put(control: &Control, caller: &Caller, name: &Name, put: &PutCredential) -> Result<Credential> {
    check(put)?;
    let mut tx = control.store().org(caller.organization).await?;
    // A server that is given it at this moment is looked at here, or its change looks at the new secret. A rollback looks at
    // none: a secret that has come not to fit keeps nobody from going back.
    tx.lock_credential(name).await?;
    let before = tx.credential_named(name).await?;
    if let Some(credential) = &before {
        check_uses(&tx, credential, &put.secret).await?;
    }
    let action = if before.is_some() { "credential.update" } else { "credential.create" };
    write(control, &mut tx, name, before, put.description.as_deref(), &put.secret, false).await?;
    audit(&mut tx, caller, action, format!("credential/{name}"), json!({})).await?;
    let after = tx.credential_named(name).await?.ok_or_else(|| unknown(name))?;
    // An agent holds secrets for a day: it gets the new one now, for the next start.
    tx.bump_generations_using(after.id).await?;
    // They show that they run with an older one now.
    for server in tx.servers_named(after.outdated_in.as_deref().unwrap_or_default()).await? {
        server_changed(&mut tx, &server);
    }
    tx.commit().await?;
    Ok(after)
}

/// Forgets a credential that no server uses.
pub(crate) async fn delete(control: &Control, caller: &Caller, name: &Name) -> Result<()> {
    let mut tx = control.store().org(caller.organization).await?;
    tx.lock_credential(name).await?;
    let credential = tx.credential_named(name).await?.ok_or_else(|| unknown(name))?;
    if let Some(server) = credential.used_by.first() {
        let others = credential.used_by.len() - 1;
        let more = if others == 0 { String::new() } else { format!(" and {others} more") };
        return Err(ControlError::Conflict(format!("credential `{name}` is used by server `{server}`{more}")));
    }
    tx.delete_credential(&credential).await?;
    audit(&mut tx, caller, "credential.delete", format!("credential/{name}"), json!({})).await?;
    Ok(tx.commit().await?)
}

/// Stores the secret of a server's input under `name` (`{server}-{input}`), in the caller's transaction: a new
/// credential, or a new version of the one of that name.
///
/// # Errors
/// `validation_failed` when the secret is empty or too large; else when the store fails.
pub(crate) async fn store_input_secret(
    control: &Control,
    tx: &mut OrgTx,
    name: &Name,
    secret: &Secret,
) -> Result<CredentialId> {
    check_secret(name.as_str(), secret)?;
    let before = tx.credential_named(name).await?;
    write(control, tx, name, before, None, secret, true).await
}

/// Opens the secrets of these credentials. One that does not exist, or that cannot be opened with the keys that
/// are here, is left out: it costs the servers that need it, not every server of the same toolbox.
///
/// # Errors
/// When the store fails.
pub(crate) async fn open_many(
    control: &Control,
    organization: OrganizationId,
    ids: &BTreeSet<CredentialId>,
) -> Result<BTreeMap<CredentialId, Secret>> {
    let opened = open_versions(control, organization, ids).await?;
    Ok(opened.into_iter().map(|(id, (secret, _))| (id, secret)).collect())
}

/// The same, each with its version.
///
/// # Errors
/// When the store fails.
pub(crate) async fn open_versions(
    control: &Control,
    organization: OrganizationId,
    ids: &BTreeSet<CredentialId>,
) -> Result<BTreeMap<CredentialId, (Secret, u32)>> {
    if ids.is_empty() {
        return Ok(BTreeMap::new());
    }
    let tx = control.store().org_read(organization).await?;
    let sealed = tx.sealed_credentials(ids).await?;
    drop(tx);
    let versions: BTreeMap<_, _> = sealed.iter().map(|sealed| (sealed.id, sealed.version)).collect();
    let opened = unseal(control, organization, sealed).into_iter();
    Ok(opened.filter_map(|(id, secret)| Some((id, (secret, *versions.get(&id)?)))).collect())
}

/// [`open_many`] in a transaction that gives them to a server, each by what it is bound to; they stay as they are until it ends.
///
/// # Errors
/// `validation_failed`, naming what they are bound to, when some were deleted; or when the store fails.
pub(super) async fn open_held(
    control: &Control,
    tx: &OrgTx,
    bound: &[(&str, CredentialId)],
) -> Result<BTreeMap<CredentialId, Secret>> {
    let ids: BTreeSet<CredentialId> = bound.iter().map(|(_, id)| *id).collect();
    tx.hold_credentials(&ids).await?;
    let sealed = tx.sealed_credentials(&ids).await?;
    let known: BTreeSet<CredentialId> = sealed.iter().map(|sealed| sealed.id).collect();
    let deleted = bound.iter().filter(|(_, id)| !known.contains(id)).map(|(key, _)| FieldError {
        field: format!("credentials.{}", printable(key)),
        message: "the credential was deleted; bind another".to_owned(),
    });
    let deleted: Vec<_> = deleted.collect();
    if !deleted.is_empty() {
        return Err(ControlError::Invalid(deleted));
    }
    Ok(unseal(control, tx.organization(), sealed))
}

/// Keeps the credentials that a revision of a server refers to until the transaction ends that has the server run it.
///
/// # Errors
/// `credential_missing`, naming what it was bound to, when one was deleted; or when the store fails.
pub(super) async fn hold_bound(tx: &OrgTx, wish: &Wish) -> Result<()> {
    let bound = wish.bound();
    let ids: BTreeSet<CredentialId> = bound.iter().map(|(_, id)| *id).collect();
    tx.hold_credentials(&ids).await?;
    let known = tx.credential_versions(&ids).await?;
    let Some((key, _)) = bound.into_iter().find(|(_, id)| !known.contains_key(id)) else { return Ok(()) };
    let detail =
        format!("the credential that was bound to `{}` was deleted; update the server with another", printable(key));
    Err(ControlError::problem(Code::CredentialMissing, detail))
}

fn unseal(
    control: &Control,
    organization: OrganizationId,
    sealed: Vec<SealedCredential>,
) -> BTreeMap<CredentialId, Secret> {
    let open = |sealed: SealedCredential| {
        let subject = subject(sealed.id);
        let place = Place { organization, subject: &subject, version: sealed.version };
        match control.vault().unseal(&place, &sealed.envelope) {
            Ok(secret) => Some((sealed.id, secret)),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, credential.id = %sealed.id, "a credential cannot be opened; its servers miss it");
                None
            }
        }
    };
    sealed.into_iter().filter_map(open).collect()
}

/// Seals a secret for a new credential or the next version of a known one, and writes it. A new one made
/// `from_input` belongs to the server it was passed to and goes with it.
async fn write(
    control: &Control,
    tx: &mut OrgTx,
    name: &Name,
    before: Option<Credential>,
    description: Option<&str>,
    secret: &Secret,
    from_input: bool,
) -> Result<CredentialId> {
    let (id, version) = match &before {
        Some(credential) => (credential.id, credential.version.saturating_add(1)),
        None => (CredentialId::generate(), 1),
    };
    let subject = subject(id);
    let place = Place { organization: tx.organization(), subject: &subject, version };
    let envelope = control.vault().seal(&place, secret);
    let written = match &before {
        Some(before) => {
            let description = description.unwrap_or(&before.description);
            tx.update_credential(before, description, version, envelope).await
        }
        None => tx.insert_credential(id, name, description.unwrap_or_default(), envelope, from_input).await,
    };
    match written {
        Ok(()) => Ok(id),
        Err(StoreError::AlreadyExists | StoreError::Stale) => {
            Err(ControlError::Conflict(format!("credential `{name}` is being changed by somebody else")))
        }
        Err(error) => Err(error.into()),
    }
}

/// What an envelope of this credential is sealed for.
fn subject(id: CredentialId) -> String {
    format!("credential/{id}")
}

fn unknown(name: &Name) -> ControlError {
    ControlError::NotFound(format!("credential `{name}`"))
}

fn check(put: &PutCredential) -> Result<()> {
    if put.description.as_ref().is_some_and(|text| text.chars().count() > LONGEST_DESCRIPTION) {
        let message = format!("may have at most {LONGEST_DESCRIPTION} characters");
        return Err(ControlError::field("description", message));
    }
    check_secret("secret", &put.secret)
}

/// Refuses a secret that cannot be where servers get the credential, such as in a header: nobody would reach them any more.
async fn check_uses(tx: &OrgTx, credential: &Credential, secret: &Secret) -> Result<()> {
    // Nearly every one: a header, a URL and a variable can all hold it, and no server is read for it.
    let fits_anywhere = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    if secret.expose().bytes().all(fits_anywhere) {
        return Ok(());
    }
    let servers = tx.servers_named(&credential.used_by).await?;
    let revisions: Vec<_> = servers
        .iter()
        .flat_map(|server| [Some(server.target_revision), server.serving_revision, Some(server.meant_revision())])
        .flatten()
        .collect();
    let misfits = |revision: RevisionRow| {
        let why = unfit(&revision.spec.runtime, credential.id, secret.expose())?;
        Some((revision.server, why))
    };
    match tx.map_revisions(&revisions, misfits).await?.into_iter().flatten().next() {
        None => Ok(()),
        Some((id, why)) => {
            let name = servers.iter().find(|server| server.id == id).map_or("", |server| server.name.as_str());
            Err(ControlError::field("secret", format!("{why}; server `{name}` gets it there")))
        }
    }
}

fn check_secret(field: &str, secret: &Secret) -> Result<()> {
    match secret.expose().len() {
        0 => Err(ControlError::field(field, "a secret must not be empty")),
        length if length > LARGEST_SECRET => {
            Err(ControlError::field(field, format!("a secret may have at most {LARGEST_SECRET} bytes")))
        }
        // No variable, argument, header or URL can hold one.
        _ if secret.expose().contains('\0') => Err(ControlError::field(field, NUL)),
        _ => Ok(()),
    }
}
