//! Servers: what people can do with them. Each change is one transaction of rows; the loops do the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use serde_json::json;
use toolyard_policy::Resource;
use toolyard_store::{EventKind, OrgTx, Place, Postponed, RevisionRow, ServerRow};
use toolyard_types::access::Action;
use toolyard_types::api::servers::{CloneServer, CreateServer, Revision, Server, ServerSettings, UpdateServer};
use toolyard_types::api::{Page, PageQuery};
use toolyard_types::name::printable;
use toolyard_types::schedule::{TimeOfDay, UpdateWindow};
use toolyard_types::spec::{EntryVersion, PathGrant, RevisionSpec, Runtime, Strategy};
use toolyard_types::{
    Code, CredentialId, FieldError, Labels, Name, OrganizationId, RevisionId, Secret, ServerId, Timestamp, ToolboxId,
};

use super::expand::{Chosen, Given, Wish, choose, direct, expand, expand_changed, is_variable_name, kind_of, unfit};
use super::server_view::{Views, etag};
use super::{allow, audit, ceilings, credentials, flags, page_limit, places, privileges, rollouts};
use crate::reconcile::trim::KEEP_ROLLOUTS;
use crate::{Caller, Control, ControlError, Result, catalog};

/// How long a rollout may take when nobody says.
const ROLLOUT_TIMEOUT_MS: u64 = 600_000;
/// How long a new revision is observed when nobody says.
const OBSERVE_MS: u64 = 5_000;
/// The most instances of a server.
const MOST_REPLICAS: u32 = 20;
/// The most that what a revision runs may take as it is stored, in bytes, and as much what was asked for.
const MOST_SPEC_BYTES: usize = 512 << 10;
/// The most that all revisions of a server may take, in bytes: whoever changes it fast must not fill the database before
/// *trim* comes.
const MOST_REVISIONS_BYTES: u64 = 32 << 20;

pub(crate) fn unknown(name: &Name) -> ControlError {
    ControlError::NotFound(format!("server `{name}`"))
}

/// Makes a server and, unless it is to be stopped, begins its first rollout.
pub(crate) async fn create(control: &Control, caller: &Caller, request: CreateServer) -> Result<Server> {
    let (mut wish, suggested) = first_wish(control, caller.organization, &request).await?;
    let name = request.name.clone().map_or_else(|| name_from(&suggested), Ok)?;
    allow(control, caller, Action::ServerDeploy, &Resource::Server(name.clone()))?;
    let mut terms = Terms::default();
    terms.change(&request.settings)?;
    let mut tx = control.store().org_read(caller.organization).await?;
    let toolbox = places::toolbox_named(&tx, request.toolbox.as_ref()).await?;
    if toolbox.is_some() && !request.toolbox_labels.is_empty() {
        return Err(ControlError::field("toolbox_labels", "cannot be given together with `toolbox`"));
    }
    let bindings = bindings(&tx, &request.settings).await?;
    let secrets = merge(&mut wish, request.settings, &bindings)?;
    credentials::allow_bindings(control, caller, &tx, &wish, None).await?;
    privileges::check(control, caller, &name, &BTreeSet::new(), &wish.privileges)?;
    let spec = expand(&wish)?;
    drop(tx);
    terms.check(&spec)?;
    check_size(&spec, &wish, None)?;
    ceilings::check(&control.options().limits.server, (&spec, terms.replicas), None)?;
    let granted = may_grant(control, caller, &name, &spec, &[])?;

    tx = control.store().org(caller.organization).await?;
    take_name(&tx, &name).await?;
    check_secrets(control, &tx, (&wish, None), &spec, &secrets).await?;
    let spec = store_secrets(control, &mut tx, &name, (&mut wish, None), secrets, spec).await?;
    let mut server = new_server(&tx, name, &spec, toolbox, terms);
    server.toolbox_labels = request.toolbox_labels.clone();
    tx.insert_server(&server).await?;
    let revision = new_revision(&tx, &server, 1, spec, &wish, None, (caller, "create"));
    places::check(&tx, &server, &revision).await?;
    server.target_revision = revision.id;
    tx.insert_revision(&revision).await?;
    tx.update_server(&mut server).await?;
    let starts = request.start.unwrap_or(true);
    let mut detail = json!({ "kind": server.kind });
    note_granted(&mut detail, &granted);
    if !revision.spec.privileges.is_empty() {
        detail["privileges"] = json!(revision.spec.privileges);
    }
    finish_creation(&mut tx, caller, &mut server, starts, "server.create", detail).await?;
    tx.commit().await?;
    get(control, caller, &server.name).await
}

/// The paths of its host that a spec lets a server see, beyond those that were granted `before`: whoever may deploy
/// servers may not grant them for that alone.
pub(super) fn may_grant(
    control: &Control,
    caller: &Caller,
    name: &Name,
    spec: &RevisionSpec,
    before: &[PathGrant],
) -> Result<Vec<PathGrant>> {
    let had = |grant: &PathGrant| before.iter().any(|it| it.path == grant.path && it.writable >= grant.writable);
    let granted: Vec<_> = spec.paths.iter().filter(|grant| !had(grant)).cloned().collect();
    if !granted.is_empty() {
        allow(control, caller, Action::ServerGrantPath, &Resource::Server(name.clone()))?;
    }
    Ok(granted)
}

/// For the audit log.
pub(super) fn note_granted(detail: &mut serde_json::Value, granted: &[PathGrant]) {
    if !granted.is_empty() {
        detail["granted_paths"] = json!(granted);
    }
}

async fn finish_creation(
    tx: &mut OrgTx,
    caller: &Caller,
    server: &mut ServerRow,
    starts: bool,
    action: &str,
    detail: serde_json::Value,
) -> Result<()> {
    if starts {
        rollouts::begin(tx, server, server.target_revision, rollouts::Manner::default()).await?;
    } else {
        server_changed(tx, server);
    }
    audit(tx, caller, action, format!("server/{}", server.name), detail).await
}

/// What a creation asks for, before its settings; and a name for it.
async fn first_wish(control: &Control, organization: OrganizationId, request: &CreateServer) -> Result<(Wish, String)> {
    match (&request.entry, &request.url) {
        (Some(entry), None) => {
            if request.transport.is_some() {
                return Err(ControlError::field("transport", "belongs to `url`; an entry names its own"));
            }
            let (version, document) =
                catalog::entry_document(control, organization, entry, request.version.as_deref()).await?;
            let chosen = choose(&document, request.package.as_deref())?;
            let entry_version = EntryVersion { name: entry.clone(), version };
            Ok((Wish::new(Some(entry_version), request.package.clone(), chosen), entry.short().to_owned()))
        }
        (None, Some(url)) => {
            for (field, given) in [("version", request.version.is_some()), ("package", request.package.is_some())] {
                if given {
                    return Err(ControlError::field(field, "belongs to `entry`, not to `url`"));
                }
            }
            let host = reqwest::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned));
            let chosen = direct(url, request.transport, std::iter::empty());
            Ok((Wish::new(None, None, chosen), host.unwrap_or_default()))
        }
        _ => Err(ControlError::field("entry", "give either `entry` or `url`")),
    }
}

fn name_from(text: &str) -> Result<Name> {
    Name::new(slug(text, Name::MAX_LEN))
        .map_err(|_| ControlError::field("name", "is needed: none can be made from the entry"))
}

/// Lower-case letters, digits and single dashes of a text; a long one ends with a digest of all of it.
fn slug(text: &str, longest: usize) -> String {
    let mut out = String::new();
    for character in text.chars() {
        match character.to_ascii_lowercase() {
            c if c.is_ascii_alphanumeric() => out.push(c),
            _ if !out.is_empty() && !out.ends_with('-') => out.push('-'),
            _ => {}
        }
    }
    let out = out.trim_end_matches('-').to_owned();
    if out.len() <= longest {
        return out;
    }
    let digest = crate::auth::token::sha256_hex(text);
    let head = out.get(..longest - 7).unwrap_or_default().trim_end_matches('-');
    format!("{head}-{}", digest.get(..6).unwrap_or_default())
}

async fn take_name(tx: &OrgTx, name: &Name) -> Result<()> {
    match tx.name_holder(name).await?.as_deref() {
        None => Ok(tx.take_name(name, "server").await?),
        Some("server") if tx.server(name).await?.is_some_and(|server| server.deleted) => {
            let detail = format!("server `{name}` is being deleted; its name is free once its instances have ended");
            Err(ControlError::Conflict(detail))
        }
        Some(kind) => Err(ControlError::AlreadyExists(format!("{kind} `{name}`"))),
    }
}

fn rollout_timeout(asked: Option<u64>, otherwise: u64) -> Result<u64> {
    match asked {
        Some(ms) if !(1_000..=86_400_000).contains(&ms) => {
            Err(ControlError::field("rollout_timeout_ms", "must be between 1000 and 86400000"))
        }
        asked => Ok(asked.unwrap_or(otherwise)),
    }
}

/// What is set on a server and not on its revisions: changing it makes no rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Terms {
    rollout_timeout_ms: u64,
    replicas: u32,
    observe_ms: u64,
    restart_at: Option<TimeOfDay>,
    update_window: Option<UpdateWindow>,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            rollout_timeout_ms: ROLLOUT_TIMEOUT_MS,
            replicas: 1,
            observe_ms: OBSERVE_MS,
            restart_at: None,
            update_window: None,
        }
    }
}

impl Terms {
    fn of(server: &ServerRow) -> Self {
        let ServerRow { rollout_timeout_ms, replicas, observe_ms, restart_at, update_window, .. } = *server;
        Self { rollout_timeout_ms, replicas, observe_ms, restart_at, update_window }
    }

    fn change(&mut self, settings: &ServerSettings) -> Result<()> {
        self.rollout_timeout_ms = rollout_timeout(settings.rollout_timeout_ms, self.rollout_timeout_ms)?;
        if let Some(replicas) = settings.replicas {
            if !(1..=MOST_REPLICAS).contains(&replicas) {
                return Err(ControlError::field("replicas", format!("must be between 1 and {MOST_REPLICAS}")));
            }
            self.replicas = replicas;
        }
        if let Some(seconds) = settings.observe_seconds {
            if seconds > 3600 {
                return Err(ControlError::field("observe_seconds", "must be at most 3600"));
            }
            self.observe_ms = u64::from(seconds) * 1000;
        }
        if let Some(text) = &settings.restart_at {
            self.restart_at = schedule("restart_at", text)?;
        }
        if let Some(text) = &settings.update_window {
            self.update_window = schedule("update_window", text)?;
        }
        Ok(())
    }

    /// Whether a revision can have them.
    fn check(&self, spec: &RevisionSpec) -> Result<()> {
        if self.replicas == 1 {
            return Ok(());
        }
        if matches!(spec.runtime, Runtime::Remote(_)) {
            return Err(ControlError::field(
                "replicas",
                "a remote server runs somewhere else; there is nothing to copy",
            ));
        }
        if !spec.volumes.is_empty() {
            return Err(ControlError::field("replicas", "must be 1 with volumes: a volume has one writer"));
        }
        let mode = spec.instancing.mode;
        if !mode.is_shared() {
            // A user's or a session's calls would find another copy each time.
            let message = format!("more than one is for shared instances; these are `{}`", mode.as_str());
            return Err(ControlError::field("replicas", message));
        }
        Ok(())
    }

    fn write(self, server: &mut ServerRow, now: Timestamp) {
        if self.restart_at != server.restart_at {
            server.next_restart_at = self.restart_at.map(|time| time.next_after(now));
        }
        server.restart_at = self.restart_at;
        server.update_window = self.update_window;
        server.rollout_timeout_ms = self.rollout_timeout_ms;
        server.replicas = self.replicas;
        server.observe_ms = self.observe_ms;
    }
}

/// A time as it is written; none when it is empty.
fn schedule<T: FromStr<Err: ToString>>(field: &str, text: &str) -> Result<Option<T>> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error: T::Err| ControlError::field(field, error.to_string()))
}

/// The credentials that settings bind, by the name they are bound to.
async fn bindings(tx: &OrgTx, settings: &ServerSettings) -> Result<BTreeMap<String, CredentialId>> {
    if settings.credentials.is_empty() {
        return Ok(BTreeMap::new());
    }
    let known = tx.credential_ids().await?;
    let missing: Vec<_> = settings.credentials.values().filter(|name| !known.contains_key(*name)).collect();
    if let Some(name) = missing.first() {
        let detail = format!("there is no credential `{name}`");
        return Err(ControlError::problem(Code::CredentialMissing, detail));
    }
    Ok(settings.credentials.iter().filter_map(|(key, name)| Some((key.clone(), *known.get(name)?))).collect())
}

/// A secret that was passed and is not in the vault yet; the wish holds its placeholder.
struct NewSecret {
    input: String,
    placeholder: CredentialId,
    secret: Secret,
}

/// Adds settings to a wish. What is secret stays outside of it.
fn merge(
    wish: &mut Wish,
    settings: ServerSettings,
    bindings: &BTreeMap<String, CredentialId>,
) -> Result<Vec<NewSecret>> {
    let mut secrets = Vec::new();
    let keys: Vec<_> = settings.inputs.keys().chain(bindings.keys()).cloned().collect();
    declare_headers(wish, &keys);
    for key in &settings.unset_environment {
        wish.environment.remove(key);
        wish.inputs.remove(key);
        wish.registry = wish.registry.take().filter(|_| key != "registry");
    }
    for (asked, value) in settings.inputs {
        let key = wish.input_key(&asked).unwrap_or(asked);
        give(wish, &mut secrets, key, value);
    }
    for (name, value) in settings.environment {
        // A declared variable is an input however it is passed, so that a secret never ends up in a spec.
        if wish.declared().contains_key(name.as_str()) {
            give(wish, &mut secrets, name, Secret::new(value));
        } else if wish.makes_secret(&name) {
            // Taken as it is it would stand in the spec for everybody to read.
            let message = "the entry makes it from a secret; pass that secret as an input, or bind a credential";
            return Err(ControlError::field(format!("environment.{name}"), message));
        } else {
            wish.environment.insert(name, Given::Text(value));
        }
    }
    for (asked, id) in bindings {
        match (wish.input_key(asked), &wish.chosen) {
            (None, Chosen::Package(package)) if asked == "registry" && package.registry_type == "oci" => {
                wish.registry = Some(*id);
            }
            (Some(key), _) => drop(wish.inputs.insert(key, Given::Credential(*id))),
            (None, Chosen::Package(_)) if is_variable_name(asked) => {
                wish.environment.insert(asked.clone(), Given::Credential(*id));
            }
            (None, _) => {
                let message = format!("the entry has no such input; {}", wish.known_inputs());
                return Err(ControlError::field(format!("credentials.{asked}"), message));
            }
        }
    }
    wish.arguments = settings.arguments.unwrap_or_else(|| std::mem::take(&mut wish.arguments));
    wish.limits = settings.limits.unwrap_or_else(|| wish.limits.clone());
    wish.paths = settings.paths.unwrap_or_else(|| std::mem::take(&mut wish.paths));
    wish.egress = settings.egress.unwrap_or_else(|| std::mem::take(&mut wish.egress));
    // Volumes are reason enough for `recreate`; who asks for another strategy is told that it does not go.
    let with_volumes = settings.volumes.as_ref().is_some_and(|volumes| !volumes.is_empty());
    let otherwise = if with_volumes { Strategy::Recreate } else { wish.strategy };
    wish.strategy = settings.strategy.unwrap_or(otherwise);
    wish.volumes = settings.volumes.unwrap_or_else(|| std::mem::take(&mut wish.volumes));
    wish.privileges = settings.privileges.unwrap_or_else(|| std::mem::take(&mut wish.privileges));
    wish.instancing = settings.instancing.unwrap_or_else(|| wish.instancing.clone());
    wish.start_timeout_ms = settings.start_timeout_ms.unwrap_or(wish.start_timeout_ms);
    wish.call_timeout_ms = settings.call_timeout_ms.unwrap_or(wish.call_timeout_ms);
    // One without a tool takes away the one that was set.
    wish.probe_call = settings.probe_call.or_else(|| wish.probe_call.take()).filter(|call| !call.tool.is_empty());
    Ok(secrets)
}

fn give(wish: &mut Wish, secrets: &mut Vec<NewSecret>, key: String, value: Secret) {
    if wish.is_secret(&key) {
        let placeholder = CredentialId::generate();
        wish.inputs.insert(key.clone(), Given::Credential(placeholder));
        secrets.push(NewSecret { input: key, placeholder, secret: value });
    } else {
        wish.inputs.insert(key, Given::Text(value.expose().to_owned()));
    }
}

/// A server given by URL takes any header as an input.
fn declare_headers(wish: &mut Wish, keys: &[String]) {
    if wish.entry.is_some() {
        return;
    }
    let unknown: Vec<_> = keys.iter().filter(|key| wish.input_key(key).is_none()).cloned().collect();
    if let Chosen::Remote(remote) = &mut wish.chosen
        && let Chosen::Remote(more) = direct("", None, unknown.into_iter())
    {
        remote.headers.extend(more.headers);
    }
}

/// Refuses secrets that cannot be where the server would get them, such as one with the line break of its file in a header:
/// the server would never be reached. What was bound `before`, to the same input, may stay so. In the transaction that gives
/// them to the server: none of them gets another secret before its end.
async fn check_secrets(
    control: &Control,
    tx: &OrgTx,
    (wish, before): (&Wish, Option<&Wish>),
    spec: &RevisionSpec,
    secrets: &[NewSecret],
) -> Result<()> {
    let kept = before.filter(|before| before.entry == wish.entry).map(Wish::bound).unwrap_or_default();
    let added: Vec<_> = wish.bound().into_iter().filter(|binding| !kept.contains(binding)).collect();
    let passed: BTreeMap<_, _> = secrets.iter().map(|new| (new.placeholder, &new.secret)).collect();
    let bound: Vec<_> = added.iter().copied().filter(|(_, id)| !passed.contains_key(id)).collect();
    let bound = credentials::open_held(control, tx, &bound).await?;
    let errors = added.into_iter().filter_map(|(key, id)| {
        let (noun, secret) = match passed.get(&id) {
            Some(secret) => ("inputs", *secret),
            None => ("credentials", bound.get(&id)?),
        };
        let message = unfit(&spec.runtime, id, secret.expose())?.to_owned();
        Some(FieldError { field: format!("{noun}.{}", printable(key)), message })
    });
    let errors: Vec<_> = errors.collect();
    if errors.is_empty() { Ok(()) } else { Err(ControlError::Invalid(errors)) }
}

/// Puts new secrets into the vault and their ids where the placeholders were.
async fn store_secrets(
    control: &Control,
    tx: &mut OrgTx,
    server: &Name,
    (wish, before): (&mut Wish, Option<&Wish>),
    secrets: Vec<NewSecret>,
    spec: RevisionSpec,
) -> Result<RevisionSpec> {
    if secrets.is_empty() {
        return Ok(spec);
    }
    for NewSecret { input, placeholder, secret } in secrets {
        let name = credential_name(tx, server, &input, placeholder).await?;
        let id = credentials::store_input_secret(control, tx, &name, &secret).await?;
        wish.inputs.insert(input, Given::Credential(id));
    }
    match before {
        Some(before) => expand_changed(wish, before),
        None => expand(wish),
    }
}

/// `{server}-{input}`, or with something added when somebody's own credential has that name: a secret that is
/// passed to one server must not change another's, so each passed secret is a credential of its own.
async fn credential_name(tx: &OrgTx, server: &Name, input: &str, placeholder: CredentialId) -> Result<Name> {
    let text = format!("{server}-{input}");
    let plain = credential_slug(&text)?;
    if tx.credential_named(&plain).await?.is_none() {
        return Ok(plain);
    }
    credential_slug(&format!("{text}-{placeholder}"))
}

fn credential_slug(text: &str) -> Result<Name> {
    Name::new(slug(text, Name::MAX_LEN)).map_err(ControlError::internal("naming a credential"))
}

fn new_server(tx: &OrgTx, name: Name, spec: &RevisionSpec, toolbox: Option<ToolboxId>, terms: Terms) -> ServerRow {
    let now = tx.now();
    ServerRow {
        id: ServerId::generate(),
        name,
        kind: kind_of(&spec.runtime).to_owned(),
        entry_name: spec.entry.as_ref().map(|entry| entry.name.clone()),
        entry_version: spec.entry.as_ref().map(|entry| entry.version.clone()),
        enabled: false,
        deleted: false,
        toolbox,
        has_volumes: false,
        postponed: None,
        toolbox_labels: Labels::default(),
        serving_revision: None,
        serving_rollout: None,
        target_revision: RevisionId::generate(),
        rollout: None,
        rollout_timeout_ms: terms.rollout_timeout_ms,
        replicas: terms.replicas,
        observe_ms: terms.observe_ms,
        restart_at: terms.restart_at,
        next_restart_at: terms.restart_at.map(|time| time.next_after(now)),
        update_window: terms.update_window,
        version: 1,
        created_at: now,
        updated_at: now,
    }
}

/// A revision; it has the lock of `before` when the same package is installed.
fn new_revision(
    tx: &OrgTx,
    server: &ServerRow,
    number: u32,
    spec: RevisionSpec,
    wish: &Wish,
    before: Option<&RevisionRow>,
    (caller, change): (&Caller, &str),
) -> RevisionRow {
    let same = |before: &&RevisionRow| match (before.spec.runtime.package(), spec.runtime.package()) {
        (Some(old), Some(new)) => {
            kind_of(&before.spec.runtime) == kind_of(&spec.runtime)
                && (&old.identifier, &old.version) == (&new.identifier, &new.version)
        }
        _ => false,
    };
    let lock_digest = before.filter(same).and_then(|before| before.lock_digest.clone());
    RevisionRow {
        id: RevisionId::generate(),
        server: server.id,
        number,
        spec,
        inputs: serde_json::to_string(wish).expect("a wish has string keys and serialises"),
        lock_digest,
        created_by: caller.display.clone(),
        change: change.to_owned(),
        created_at: tx.now(),
    }
}

/// Refuses a revision that is too large to be kept many times; what a server has from before stays.
fn check_size(spec: &RevisionSpec, wish: &Wish, before: Option<(&RevisionSpec, &Wish)>) -> Result<()> {
    let sizes = (bytes_of(spec), bytes_of(wish));
    let had = before.map_or((0, 0), |(spec, wish)| (bytes_of(spec), bytes_of(wish)));
    let fits = |bytes: usize, had: usize| bytes <= MOST_SPEC_BYTES.max(had);
    if fits(sizes.0, had.0) && fits(sizes.1, had.1) {
        return Ok(());
    }
    let parts = [
        ("environment", bytes_of(&wish.environment)),
        ("inputs", bytes_of(&wish.inputs)),
        ("arguments", bytes_of(&wish.arguments)),
        ("paths", bytes_of(&wish.paths)),
        ("probe_call", bytes_of(&wish.probe_call)),
        ("entry", bytes_of(&wish.chosen)),
    ];
    let (field, taken) = parts.into_iter().max_by_key(|(_, bytes)| *bytes).unwrap_or_default();
    let (taken, most, all) = (taken >> 10, MOST_SPEC_BYTES >> 10, sizes.0.max(sizes.1) >> 10);
    let message = format!("takes {taken} KiB; all that is set on a server may take {most} KiB and takes {all}");
    Err(ControlError::field(field, message))
}

fn bytes_of(value: &impl serde::Serialize) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX, |json| json.len())
}

fn too_many_bytes(server: &ServerRow) -> ControlError {
    ControlError::Conflict(format!(
        "the revisions of server `{}` that are in use take more than {} MiB together; try again when its rollout and the \
         instances of earlier revisions have ended, or set less on it",
        server.name,
        MOST_REVISIONS_BYTES >> 20
    ))
}

/// What was asked for when a revision was made.
pub(super) fn wish_of(revision: &RevisionRow) -> Result<Wish> {
    serde_json::from_str(&revision.inputs).map_err(ControlError::internal("reading a revision"))
}

pub(super) fn server_changed(tx: &mut OrgTx, server: &ServerRow) {
    tx.event(EventKind::ServerChanged, format!("server/{}", server.name), json!({ "id": server.id }));
}

/// Locks a server that is not being deleted.
pub(super) async fn locked(tx: &OrgTx, name: &Name) -> Result<ServerRow> {
    let id = tx.server(name).await?.ok_or_else(|| unknown(name))?.id;
    let server = tx.lock_server(id).await?.ok_or_else(|| unknown(name))?;
    if server.deleted {
        return Err(ControlError::Conflict(format!("server `{name}` is being deleted")));
    }
    Ok(server)
}

/// One server, also one that is being deleted.
pub(crate) async fn get(control: &Control, caller: &Caller, name: &Name) -> Result<Server> {
    let tx = control.store().org_read(caller.organization).await?;
    let row = tx.server(name).await?.ok_or_else(|| unknown(name))?;
    let views = Views::read(control, &tx, &caller.organization_name, std::slice::from_ref(&row)).await?;
    Ok(views.server(&row))
}

/// Changes a server: a new revision and a rollout to it; only the part of the calls that a canary under way takes when
/// nothing else changes; nothing when nothing does.
pub(crate) async fn update(
    control: &Control,
    caller: &Caller,
    name: &Name,
    request: UpdateServer,
    if_match: Option<&str>,
) -> Result<Server> {
    let tx = control.store().org_read(caller.organization).await?;
    let mut row = tx.server(name).await?.ok_or_else(|| unknown(name))?;
    check_match(&row, if_match)?;
    let base = tx.revision(row.meant_revision()).await?.ok_or_else(|| unknown(name))?;
    let bindings = bindings(&tx, &request.settings).await?;
    let place_asked = places::asked(&tx, &request).await?;
    row.take_meant_place();
    let removed = places::is_removed(&tx, &row).await?;
    let tries_otherwise = match &request.canary {
        Some(asked) => rollouts::with_other_canary(&tx, &row, asked).await?.is_some(),
        None => false,
    };
    let waits = row.waiting().is_some_and(|it| it.held) || rollouts::held(&tx, &row).await?.is_some();
    let begins = request.now && waits;
    drop(tx);
    let before = wish_of(&base)?;
    let mut wish = before.clone();
    if let Some(version) = &request.version {
        wish = with_version(control, caller.organization, wish, version).await?;
    }
    if let Some(url) = &request.url {
        set_url(&mut wish, url)?;
    }
    let mut terms = Terms::of(&row);
    terms.change(&request.settings)?;
    let place = places::new(&place_asked, &row, &base.spec, removed)?;
    let secrets = merge(&mut wish, request.settings, &bindings)?;
    let spec = expand_changed(&wish, &before)?;
    let tx = control.store().org_read(caller.organization).await?;
    let bound_before = (!is_elsewhere(&spec, &base.spec)).then_some(&before);
    credentials::allow_bindings(control, caller, &tx, &wish, bound_before).await?;
    drop(tx);
    privileges::check(control, caller, name, &base.spec.privileges, &wish.privileges)?;
    terms.check(&spec)?;
    check_size(&spec, &wish, Some((&base.spec, &before)))?;
    let had = (&base.spec, row.replicas);
    ceilings::check(&control.options().limits.server, (&spec, terms.replicas), Some(had))?;
    let granted = may_grant(control, caller, name, &spec, &base.spec.paths)?;
    let changes_nothing = secrets.is_empty() && spec == base.spec && terms == Terms::of(&row) && place.is_none();
    let other_canary = row.waiting().is_some_and(|it| it.canary.is_some()) && request.canary.is_some();
    if changes_nothing && !tries_otherwise && !other_canary && !begins {
        return get(control, caller, name).await;
    }

    let mut tx = control.store().org(caller.organization).await?;
    let mut server = locked(&tx, name).await?;
    check_match(&server, if_match)?;
    if server.meant_revision() != base.id {
        return Err(ControlError::Store(toolyard_store::StoreError::Stale));
    }
    check_secrets(control, &tx, (&wish, Some(&before)), &spec, &secrets).await?;
    let scaled = (server.replicas != terms.replicas).then_some(terms.replicas);
    let now = tx.now();
    terms.write(&mut server, now);
    let mut detail = json!({});
    note_granted(&mut detail, &granted);
    let serves_at = server.take_meant_place();
    let removed = places::is_removed(&tx, &server).await?;
    // What runs nowhere keeps nobody from anything: it need not wait.
    let within_window = !request.now && !removed;
    let from_place = places::change(&place_asked, &mut server, &base.spec, removed)?;
    if from_place.is_some() {
        detail["toolbox"] = json!(request.toolbox);
        detail["toolbox_labels"] = json!(server.toolbox_labels);
        if server.has_volumes {
            detail["left_volumes"] = json!(true);
        }
    }
    let moves = from_place.is_some() && server.enabled && !places::is_reached(&tx, &server).await?;
    let spec = store_secrets(control, &mut tx, name, (&mut wish, Some(&before)), secrets, spec).await?;
    if spec == base.spec && from_place.is_some() {
        places::check(&tx, &server, &base).await?;
    }
    if spec == base.spec && moves {
        if request.canary.is_some() {
            return Err(ControlError::field("canary", "a server that only moves has no other revision to try"));
        }
        let from_place = serves_at.or(from_place);
        let manner = rollouts::Manner { within_window, from_place, ..rollouts::Manner::default() };
        rollouts::begin(&mut tx, &mut server, base.id, manner).await?;
    } else if spec == base.spec {
        // Nothing else of the revision that is tried changes: it goes on to be tried, on another part of the calls.
        if let Some(asked) = request.canary {
            let postponed = server.waiting().filter(|_| other_canary).cloned();
            match rollouts::change_canary(&mut tx, &server, &base, asked.clone()).await? {
                Some(canary) => detail["canary"] = json!(canary),
                None if postponed.is_some() => {
                    let canary = Some(rollouts::canary(asked, &server, &base.spec)?);
                    detail["canary"] = json!(canary);
                    server.postponed = postponed.map(|postponed| Postponed { canary, ..postponed });
                }
                // Somebody decided about it a moment ago.
                None if changes_nothing => return Err(ControlError::Store(toolyard_store::StoreError::Stale)),
                None => {}
            }
        }
        rollouts::wait_anew(&mut tx, &mut server, begins).await?;
        if begins {
            detail["now"] = json!(true);
        }
        // Unless it is to be elsewhere now, it goes on where it is.
        if from_place.is_some() {
            server.postponed = server.postponed.take().map(|postponed| Postponed { place: None, ..postponed });
        } else if let Some(Place { toolbox, labels }) = serves_at {
            (server.toolbox, server.toolbox_labels) = (toolbox, labels);
        }
        tx.update_server(&mut server).await?;
        server_changed(&mut tx, &server);
    } else {
        let from_place = serves_at.or(from_place);
        let number = tx.last_revision_number(server.id).await? + 1;
        let revision = new_revision(&tx, &server, number, spec, &wish, Some(&base), (caller, "update"));
        let canary = request.canary.map(|asked| rollouts::canary(asked, &server, &revision.spec)).transpose()?;
        places::check(&tx, &server, &revision).await?;
        tx.insert_revision(&revision).await?;
        if !tx.keep_revisions_within(&server, number, MOST_REVISIONS_BYTES).await? {
            return Err(too_many_bytes(&server));
        }
        let manner =
            rollouts::Manner { accept_lost_tools: request.accept_lost_tools, canary, within_window, from_place };
        detail["revision"] = json!(number);
        if revision.spec.privileges != base.spec.privileges {
            detail["privileges"] = json!(revision.spec.privileges);
        }
        if manner.accept_lost_tools {
            detail["accept_lost_tools"] = json!(true);
        }
        if let Some(canary) = &manner.canary {
            detail["canary"] = json!(canary);
        }
        rollouts::point_to(&mut tx, &mut server, &revision, manner).await?;
    }
    if let Some(replicas) = scaled {
        detail["replicas"] = json!(replicas);
    }
    audit(&mut tx, caller, "server.update", format!("server/{name}"), detail).await?;
    tx.commit().await?;
    get(control, caller, name).await
}

/// Whether a remote server is put elsewhere, by its URL, by an input of that or by another version of its entry: whoever
/// says where a server is says who gets its secrets.
pub(super) fn is_elsewhere(spec: &RevisionSpec, before: &RevisionSpec) -> bool {
    match (&spec.runtime, &before.runtime) {
        (Runtime::Remote(remote), Runtime::Remote(before)) => remote.url != before.url,
        (Runtime::Remote(_), _) => true,
        _ => false,
    }
}

/// Puts a remote server elsewhere.
fn set_url(wish: &mut Wish, url: &str) -> Result<()> {
    match &mut wish.chosen {
        Chosen::Remote(remote) if wish.entry.is_none() => {
            remote.url = Some(url.to_owned());
            Ok(())
        }
        _ => Err(ControlError::field("url", "only a remote server that was registered by its URL has one to change")),
    }
}

/// The same wish for another version of its entry; inputs that the version no longer has are dropped.
async fn with_version(control: &Control, organization: OrganizationId, wish: Wish, version: &str) -> Result<Wish> {
    let Some(entry) = &wish.entry else {
        return Err(ControlError::field("version", "this server was not made from a catalog entry"));
    };
    let version = Some(version).filter(|version| *version != "latest");
    let (version, document) = catalog::entry_document(control, organization, &entry.name, version).await?;
    let kind = match &wish.chosen {
        Chosen::Package(package) => package.registry_type.clone(),
        Chosen::Remote(_) => "remote".to_owned(),
    };
    let chosen = choose(&document, Some(&kind))?;
    let mut next = Wish { entry: Some(EntryVersion { name: entry.name.clone(), version }), chosen, ..wish.clone() };
    let declared: Vec<String> = next.declared().into_keys().map(str::to_owned).collect();
    next.inputs.retain(|key, _| declared.contains(key));
    Ok(next)
}

fn check_match(row: &ServerRow, if_match: Option<&str>) -> Result<()> {
    match if_match.map(|tag| tag.trim().trim_start_matches("W/").trim_matches('"')) {
        None | Some("*") => Ok(()),
        Some(tag) if tag == etag(row) => Ok(()),
        Some(_) => Err(ControlError::Store(toolyard_store::StoreError::Stale)),
    }
}

/// Copies a server under a new name. Its credentials are shared by reference, not copied.
pub(crate) async fn clone(control: &Control, caller: &Caller, name: &Name, request: CloneServer) -> Result<Server> {
    flags::require(control, caller, "server_clone")?;
    allow(control, caller, Action::ServerDeploy, &Resource::Server(request.name.clone()))?;
    let mut tx = control.store().org(caller.organization).await?;
    let mut origin = locked(&tx, name).await?;
    origin.take_meant_place();
    let base = tx.revision(origin.meant_revision()).await?.ok_or_else(|| unknown(name))?;
    if places::is_removed(&tx, &origin).await? {
        let detail = format!("the toolbox where server `{name}` must run was removed; move it to another first");
        return Err(ControlError::Conflict(detail));
    }
    let wish = wish_of(&base)?;
    credentials::allow_bindings(control, caller, &tx, &wish, None).await?;
    credentials::hold_bound(&tx, &wish).await?;
    let granted = may_grant(control, caller, &request.name, &base.spec, &[])?;
    privileges::check(control, caller, &request.name, &BTreeSet::new(), &base.spec.privileges)?;
    check_size(&base.spec, &wish, None)?;
    ceilings::check(&control.options().limits.server, (&base.spec, Terms::of(&origin).replicas), None)?;
    take_name(&tx, &request.name).await?;
    let mut server = new_server(&tx, request.name, &base.spec, origin.toolbox, Terms::of(&origin));
    server.toolbox_labels = origin.toolbox_labels.clone();
    tx.insert_server(&server).await?;
    let change = format!("clone of {name} revision {}", base.number);
    let revision = new_revision(&tx, &server, 1, base.spec.clone(), &wish, Some(&base), (caller, &change));
    places::check(&tx, &server, &revision).await?;
    tx.insert_revision(&revision).await?;
    server.target_revision = revision.id;
    tx.update_server(&mut server).await?;
    let mut detail = json!({ "of": name });
    note_granted(&mut detail, &granted);
    finish_creation(&mut tx, caller, &mut server, origin.enabled, "server.clone", detail).await?;
    tx.commit().await?;
    get(control, caller, &server.name).await
}

/// Deletes a server: it is stopped now, and gone once the end of its instances was observed.
pub(crate) async fn delete(control: &Control, caller: &Caller, name: &Name) -> Result<Server> {
    let mut tx = control.store().org(caller.organization).await?;
    let id = tx.server(name).await?.ok_or_else(|| unknown(name))?.id;
    let mut server = tx.lock_server(id).await?.ok_or_else(|| unknown(name))?;
    if !server.deleted {
        server.deleted = true;
        rollouts::halt(&mut tx, &mut server, "the server was deleted").await?;
        audit(&mut tx, caller, "server.delete", format!("server/{name}"), json!({})).await?;
    }
    let views = Views::read(control, &tx, &caller.organization_name, std::slice::from_ref(&server)).await?;
    let view = views.server(&server);
    tx.commit().await?;
    Ok(view)
}

/// A server's revisions, newest first.
pub(crate) async fn revisions(
    control: &Control,
    caller: &Caller,
    name: &Name,
    query: &PageQuery,
) -> Result<Page<Revision>> {
    let limit = page_limit(query)?;
    let before = match query.cursor.as_deref() {
        None => u32::try_from(i32::MAX).unwrap_or(u32::MAX),
        Some(cursor) => cursor.parse().map_err(|_| ControlError::field("cursor", "is not one of this list's"))?,
    };
    let tx = control.store().org_read(caller.organization).await?;
    let server = tx.server(name).await?.ok_or_else(|| unknown(name))?;
    let page = tx.revisions_page(server.id, before, limit).await?;
    let next_cursor = page.rows.last().filter(|_| page.more).map(|row| row.number.to_string());
    let past = Past::read(&tx, &server).await?;
    let items = page
        .rows
        .into_iter()
        .map(|row| Revision {
            served: past.served(&row),
            id: row.id,
            number: row.number,
            spec: row.spec,
            lock_digest: row.lock_digest,
            created_by: row.created_by,
            created_at: row.created_at,
            change: row.change,
        })
        .collect();
    Ok(Page { items, next_cursor })
}

/// What is known of whether a server's revisions ever served.
struct Past {
    served: BTreeSet<RevisionId>,
    /// Revisions that were made since then have all of their rollouts here; of earlier ones some may be forgotten.
    whole_since: Timestamp,
}

impl Past {
    async fn read(tx: &OrgTx, server: &ServerRow) -> Result<Self> {
        let kept = tx.past_rollouts(server.id, KEEP_ROLLOUTS).await?;
        let serving = server.serving_rollout.and(server.serving_revision);
        let is_whole = kept.len() < usize::try_from(KEEP_ROLLOUTS).unwrap_or(usize::MAX);
        Ok(Self {
            served: kept
                .iter()
                .flat_map(|rollout| [rollout.from_revision, Some(rollout.to_revision).filter(|_| rollout.served)])
                .chain([serving])
                .flatten()
                .collect(),
            whole_since: kept.last().filter(|_| !is_whole).map(|oldest| oldest.started_at).unwrap_or_default(),
        })
    }

    fn served(&self, revision: &RevisionRow) -> Option<bool> {
        let served = self.served.contains(&revision.id);
        (served || revision.created_at >= self.whole_since).then_some(served)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_for_no_input_is_refused_with_the_inputs_that_there_are() {
        let refused = |document: serde_json::Value, asked: &str| {
            let chosen = choose(&serde_json::from_value(document).unwrap(), None).unwrap();
            let entry = EntryVersion { name: "a/b".parse().unwrap(), version: "1".into() };
            let bindings = BTreeMap::from([(asked.to_owned(), CredentialId::generate())]);
            match merge(&mut Wish::new(Some(entry), None, chosen), ServerSettings::default(), &bindings) {
                Err(ControlError::Invalid(errors)) => format!("{}: {}", errors[0].field, errors[0].message),
                Err(other) => panic!("{other:?}"),
                Ok(_) => String::new(),
            }
        };
        let remote = json!({"name": "a/b", "remotes": [{"type": "streamable-http", "url": "https://example.test/mcp",
            "headers": [
                {"name": "X-Region"},
                {"name": "Authorization", "value": "Bearer {key}", "variables": {"key": {}}}]}]});
        let told = refused(remote, "Authorization");
        assert_eq!(told, "credentials.Authorization: the entry has no such input; it has: X-Region, key");
        let package = json!({"name": "a/b", "packages": [{"registryType": "npm", "identifier": "p", "version": "1"}]});
        let told = refused(package.clone(), "--token");
        assert_eq!(told, "credentials.--token: the entry has no such input; it has no inputs");
        assert_eq!(refused(package, "TOKEN"), "", "other variables may be secrets too");
    }

    #[test]
    fn a_slug_is_a_name_and_long_ones_stay_apart() {
        assert_eq!(slug("Server_Everything", 40), "server-everything");
        assert_eq!(slug("--a..B--", 40), "a-b");
        let (one, two) = (slug(&"x".repeat(60), 40), slug(&"x".repeat(61), 40));
        assert_eq!((one.len(), two.len()), (40, 40));
        assert_ne!(one, two);
        assert!(toolyard_types::Name::new(one).is_ok());
    }
}
