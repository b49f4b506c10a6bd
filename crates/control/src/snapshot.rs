//! The snapshot: everything a gateway needs to serve calls, made anew from what the outbox says changed.
//!
//! One task looks at the outbox after every commit and each second. What an event names is read again, the
//! rest is shared with the snapshot before. `made_at` is renewed only after the store has answered, so that a
//! gateway in another process can tell a quiet control plane from one that lost its database. Nothing in it is
//! secret; what a remote server's URL and headers hold is leased ([`Control::lease_remote`]).

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use toolyard_store::{
    InstanceRow, InstanceWish, OrgTx, OutboxEvent, RevisionRow, RolloutRow, ServerRow, ToolboxRow, ToolsetRow,
};
use toolyard_types::snapshot::{
    CanaryRoute, InstanceRoute, KeyGrant, OrganizationSnapshot, RemoteLease, ServerRoute, Snapshot, Target,
    ToolsetRoute,
};
use toolyard_types::spec::{InstancingMode, Remote, Runtime, Value};
use toolyard_types::state::{Phase, Reason, RolloutState};
use toolyard_types::{Name, OrganizationId, RevisionId, RolloutId, Secret, ServerId, Timestamp, ToolboxId};

use crate::app::server_view::must_run_on;
use crate::reconcile::case::place_before;
use crate::reconcile::phase::{Facts, roll_up, shown_status};
use crate::reconcile::place;
use crate::{Control, ControlError, Result};

/// How often `made_at` is renewed, and changes of other replicas are looked for.
const PERIOD: Duration = Duration::from_millis(500);
/// Commits within this time are answered by one snapshot.
const COALESCE: Duration = Duration::from_millis(5);
/// How long the answer to a change waits for the snapshot that knows it.
const CATCH_UP: Duration = Duration::from_secs(1);
/// More events than this, and everything is read again instead.
const MOST_EVENTS: u32 = 1000;
/// How many servers, or toolsets, are read at once: they may be large.
const PAGE: u32 = 100;
/// How many organizations are read at once. Each takes a connection of those that read.
const READS: usize = 2;
/// How long a renewal waits for what it reads. What takes longer comes with a later one.
const PATIENCE: Duration = Duration::from_millis(50);
/// How long what a remote server was reached with is remembered.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// How long a lease of a remote server's address is good.
const LEASE: Duration = Duration::from_secs(300);

impl Control {
    /// What gateways serve from; the receiver sees every new snapshot.
    #[must_use]
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.fleet().snapshots.subscribe()
    }

    /// A remote server's address and headers with their secrets, good for a while. Without a database it is the one that
    /// was known last, while the snapshot says that this revision serves: a first call must not need what later ones do
    /// not.
    ///
    /// # Errors
    /// When there is no such remote server that serves, or a credential cannot be opened.
    pub async fn lease_remote(&self, server: ServerId) -> Result<RemoteLease> {
        if !self.writes_work()
            && let Some(known) = self.known_lease(server)
        {
            return Ok(known);
        }
        match self.lease_remote_now(server).await {
            Err(ControlError::Store(error)) => self.known_lease(server).ok_or(ControlError::Store(error)),
            leased => leased,
        }
    }

    fn known_lease(&self, server: ServerId) -> Option<RemoteLease> {
        let snapshot = self.snapshots().borrow().clone();
        let route = snapshot.organizations.values().flat_map(|it| it.servers.values()).find(|it| it.id == server)?;
        let known = self.remote_leases().lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&(server, route.revision?)).map(|known| RemoteLease {
            url: known.url.clone(),
            headers: known.headers.clone(),
            until: self.clock().now().plus(LEASE),
        })
    }

    /// Keeps what a remote server is reached with, for when the database is away.
    pub(crate) fn remember_remote(&self, server: ServerId, revision: RevisionId, rendered: &Rendered) {
        let Rendered { url, headers, .. } = rendered;
        let remembered = KnownRemote { at: self.clock().now(), url: url.clone(), headers: headers.clone() };
        let snapshot = self.snapshots().borrow().clone();
        let there: HashSet<ServerId> =
            snapshot.organizations.values().flat_map(|it| it.servers.values()).map(|it| it.id).collect();
        let mut known = self.remote_leases().lock().unwrap_or_else(PoisonError::into_inner);
        // Each is rendered again with every probe: what was not for long is of a revision that is gone.
        let oldest = remembered.at.minus(REMEMBERED);
        known.retain(|(server, _), known| there.contains(server) && known.at >= oldest);
        known.insert((server, revision), remembered);
    }

    async fn lease_remote_now(&self, server: ServerId) -> Result<RemoteLease> {
        let unknown = || ControlError::NotFound(format!("remote server `{server}`"));
        let tx = self.store().system_read("leasing a remote server").await?;
        let organization = tx.server_organization(server).await?.ok_or_else(unknown)?;
        let tx = tx.into_org(organization);
        let row = tx.server_by_id(server).await?.filter(|row| row.enabled && !row.deleted).ok_or_else(unknown)?;
        let serving = row.serving_rollout.and(row.serving_revision).ok_or_else(unknown)?;
        let revision = tx.revision(serving).await?.ok_or_else(unknown)?;
        drop(tx);
        let Runtime::Remote(remote) = &revision.spec.runtime else { return Err(unknown()) };
        match render(self, organization, remote).await? {
            Ok(rendered) => {
                self.remember_remote(server, serving, &rendered);
                let Rendered { url, headers, .. } = rendered;
                Ok(RemoteLease { url, headers, until: self.clock().now().plus(LEASE) })
            }
            Err((_, detail)) => Err(ControlError::problem(toolyard_types::Code::ServerNotReady, detail)),
        }
    }
}

/// What the revisions of remote servers were reached with last; one or two of each server.
pub(crate) type RemoteLeases = Mutex<HashMap<(ServerId, RevisionId), KnownRemote>>;

/// What a revision of a remote server was reached with last.
pub(crate) struct KnownRemote {
    at: Timestamp,
    url: Secret,
    headers: Vec<(String, Secret)>,
}

/// Where a remote server is and what it is sent.
pub(crate) struct Rendered {
    /// Its address.
    pub(crate) url: Secret,
    /// What is sent with every request.
    pub(crate) headers: Vec<(String, Secret)>,
    /// The credentials in both.
    pub(crate) secrets: Vec<Secret>,
}

/// A remote server's URL and headers with their secrets, or why there are none.
pub(crate) async fn render(
    control: &Control,
    organization: OrganizationId,
    remote: &Remote,
) -> Result<Result<Rendered, (Reason, String)>> {
    let values = || std::iter::once(&remote.url).chain(remote.headers.values());
    let ids: BTreeSet<_> = values().flat_map(Value::credentials).collect();
    let secrets = crate::app::credentials::open_many(control, organization, &ids).await?;
    let fill = |value: &Value| value.render(|id| secrets.get(&id).map(Secret::expose)).map(Secret::new);
    let url = fill(&remote.url);
    let headers: Option<Vec<_>> =
        remote.headers.iter().map(|(name, value)| Some((name.clone(), fill(value)?))).collect();
    let (Some(url), Some(headers)) = (url, headers) else {
        let closed = ids.into_iter().filter(|id| !secrets.contains_key(id)).collect();
        let why = crate::app::credentials::why_not_opened(control, organization, &closed).await?;
        let why = why.into_values().collect::<Vec<_>>().join("; ");
        return Ok(Err((Reason::CredentialMissing, why)));
    };
    let secrets = secrets.into_values().collect();
    Ok(Ok(Rendered { url, headers, secrets }))
}

/// Lets who changed something wait until gateways serve by it.
#[derive(Default)]
pub(crate) struct Renewals {
    /// How many have asked for a snapshot that knows what they committed.
    asked: AtomicU64,
    /// Told when somebody has.
    wanted: Notify,
    served: watch::Sender<Served>,
}

/// How many had asked before the newest snapshot was begun.
#[derive(Debug, Default)]
struct Served {
    number: u64,
    /// The same for organizations of which something is being read still: before what is there of them was read.
    behind: HashMap<OrganizationId, u64>,
}

impl Renewals {
    async fn caught_up(&self, organization: OrganizationId) {
        let number = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        let mut served = self.served.subscribe();
        self.wanted.notify_one();
        let knows = |served: &Served| *served.behind.get(&organization).unwrap_or(&served.number) >= number;
        let _ = served.wait_for(knows).await;
    }
}

/// Waits until this process's gateway serves an organization from a snapshot begun after this was called, a second at
/// most: a store that does not answer is no reason to hold back the answer to what was committed.
pub(crate) async fn caught_up(control: &Control, organization: OrganizationId) {
    tokio::select! {
        () = control.fleet().renewals.caught_up(organization) => {}
        () = control.stopping().cancelled() => {}
        () = tokio::time::sleep(CATCH_UP) => tracing::warn!("the gateway hears of a change later than its answer was given"),
    }
}

/// Keeps the snapshot new until the control plane stops.
pub(crate) async fn keep(control: Control) {
    let mut wakes = control.store().wakes();
    let renewals = &control.fleet().renewals;
    // The first snapshot's version goes on from here: a version never stands for two pictures.
    let first = Arc::clone(&control.fleet().snapshots.borrow());
    let mut keeper = Keeper { snapshot: (*first).clone(), ..Keeper::default() };
    loop {
        wakes.mark_unchanged();
        count_connections(&control);
        let asked = renewals.asked.load(Ordering::Acquire);
        match keeper.renew(&control, asked).await {
            Ok(()) => drop(renewals.served.send_replace(Served { number: asked, behind: keeper.known_of_behind() })),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the snapshot could not be renewed");
                // Who asked waits for the next one, which need not come at once.
                tokio::time::sleep(COALESCE).await;
            }
        }
        // Somebody waits for the answer to a change; whatever else was committed meanwhile comes along.
        let coalesce = async {
            if wakes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(COALESCE).await;
        };
        tokio::select! {
            () = control.stopping().cancelled() => return,
            () = renewals.wanted.notified() => {}
            () = keeper.read_more(&control) => {}
            () = tokio::time::sleep(PERIOD) => {}
            () = coalesce => {}
        }
    }
}

/// How many connections to the database are open, and of those idle.
fn count_connections(control: &Control) {
    let (open, idle) = control.store().connections();
    let idle = u32::try_from(idle).unwrap_or(u32::MAX);
    for (state, number) in [("open", open), ("idle", idle)] {
        metrics::gauge!("toolyard_database_connections", "state" => state).set(f64::from(number));
    }
}

/// Makes the first snapshot, before anything is served.
pub(crate) async fn make_first(control: &Control) -> Result<()> {
    let mut keeper = Keeper::default();
    let began = control.clock().now();
    control.in_time(keeper.look(control)).await?;
    while keeper.begin_reads(control) {
        if let Err(error) = keeper.end_read().await {
            // Of one among many it is told, and tried again.
            if keeper.names.len() == 1 {
                return Err(error);
            }
            note_unread(&error);
        }
    }
    keeper.publish(control, began);
    Ok(())
}

fn note_unread(error: &ControlError) {
    let error = error as &dyn std::error::Error;
    tracing::warn!(error, "an organization's part of the snapshot could not be renewed");
}

/// Makes snapshots. Each organization is read apart from the others, in a task of its own: one whose things take long to
/// read, or cannot be read, keeps nobody else's changes from the gateway, and no key of its own from being revoked.
#[derive(Default)]
struct Keeper {
    /// The newest event that is in the snapshot, or in what must be read; none before the first.
    seen: Option<i64>,
    names: HashMap<OrganizationId, Name>,
    snapshot: Snapshot,
    /// Whether it differs from the one that was published.
    changed: bool,
    /// What must be read and is not being read, with its turn.
    stale: HashMap<OrganizationId, (u64, Stale)>,
    turns: u64,
    /// What could not be read, and is tried again by the next renewal.
    failed: Vec<(OrganizationId, Stale)>,
    /// What is being read, each organization once at a time.
    reading: HashMap<tokio::task::Id, Reading>,
    reads: JoinSet<Result<OrganizationSnapshot>>,
    /// How many had asked for a snapshot before this renewal began.
    asked: u64,
    /// The same before what is known of an organization was read.
    known: HashMap<OrganizationId, u64>,
}

/// What is being read.
struct Reading {
    organization: OrganizationId,
    stale: Stale,
    /// How many had asked before it was begun.
    asked: u64,
}

/// What of an organization must be read again.
#[derive(Clone, Debug, PartialEq)]
enum Stale {
    Everything,
    Parts { servers: BTreeSet<Name>, toolsets: BTreeSet<Name>, credentials: bool },
}

impl Keeper {
    async fn renew(&mut self, control: &Control, asked: u64) -> Result<()> {
        // What was committed before this is in the snapshot, or its organization is behind.
        let began = control.clock().now();
        control.in_time(self.look(control)).await?;
        self.asked = asked;
        for (organization, stale) in std::mem::take(&mut self.failed) {
            self.note(organization, stale);
        }
        let until = Instant::now() + PATIENCE;
        while self.begin_reads(control) {
            match tokio::time::timeout_at(until, self.end_read()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => note_unread(&error),
                Err(_) => break,
            }
        }
        self.publish(control, began);
        Ok(())
    }

    /// Looks what changed since the last time, and what of that must be read.
    async fn look(&mut self, control: &Control) -> Result<()> {
        let tx = control.store().system_read("renewing the snapshot").await?;
        let newest = tx.last_event().await?;
        if self.seen == Some(newest) {
            return Ok(());
        }
        let events = match self.seen {
            Some(seen) => Some(tx.events_after(seen, MOST_EVENTS).await?),
            None => None,
        };
        let complete = events.filter(|events| events.last().map(|event| event.sequence) == Some(newest));
        // Keys are few and one query; an expired one leaves with the next change or at the gateway's own check.
        let keys = tx.key_grants().await?.into_iter().map(|(hash, grant)| (hash, Arc::new(grant))).collect();
        let organizations = tx.organizations().await?;
        drop(tx);
        self.names = organizations.into_iter().map(|organization| (organization.id, organization.name)).collect();
        self.known.retain(|organization, _| self.names.contains_key(organization));
        for (organization, stale) in stale_of(complete, self.names.keys().copied()) {
            self.note(organization, stale);
        }
        let names: BTreeSet<_> = self.names.values().cloned().collect();
        self.snapshot.organizations.retain(|name, _| names.contains(name));
        self.snapshot.keys = merged(&self.snapshot.keys, keys);
        self.seen = Some(newest);
        self.changed = true;
        Ok(())
    }

    fn note(&mut self, organization: OrganizationId, stale: Stale) {
        match self.stale.entry(organization) {
            Entry::Occupied(mut known) => known.get_mut().1.add(stale),
            Entry::Vacant(new) => {
                self.turns += 1;
                new.insert((self.turns, stale));
            }
        }
    }

    /// Begins to read what is not being read, as far as there is room; whether anything is being read.
    fn begin_reads(&mut self, control: &Control) -> bool {
        while self.reads.len() < READS {
            let busy: BTreeSet<_> = self.reading.values().map(|it| it.organization).collect();
            let waiting = self.stale.iter().filter(|(organization, _)| !busy.contains(*organization));
            let Some(organization) = waiting.min_by_key(|(_, (turn, _))| *turn).map(|(organization, _)| *organization)
            else {
                break;
            };
            let Some((_, stale)) = self.stale.remove(&organization) else { break };
            let Some(name) = self.names.get(&organization).cloned() else { continue };
            let before = self.snapshot.organizations.get(&name).cloned();
            let (control, again) = (control.clone(), stale.clone());
            let read = self.reads.spawn(async move {
                control.in_time(read_organization(&control, organization, name, before, stale)).await
            });
            self.reading.insert(read.id(), Reading { organization, stale: again, asked: self.asked });
        }
        !self.reads.is_empty()
    }

    /// Waits for something that is being read, and takes it. May be given up and begun again.
    ///
    /// # Errors
    /// Why it could not be read.
    async fn end_read(&mut self) -> Result<()> {
        let Some(ended) = self.reads.join_next_with_id().await else { return Ok(()) };
        let id = ended.as_ref().map_or_else(tokio::task::JoinError::id, |(id, _)| *id);
        let Some(Reading { organization, stale, asked }) = self.reading.remove(&id) else { return Ok(()) };
        let read = match ended {
            Ok((_, read)) => read,
            Err(error) => Err(ControlError::internal("reading an organization")(error.to_string())),
        };
        let next = match read {
            Ok(next) => next,
            Err(error) => {
                self.failed.push((organization, stale));
                return Err(error);
            }
        };
        // It may have another name by now, or be gone; then that is read as well.
        if self.names.get(&organization) == Some(&next.name) {
            self.snapshot.organizations.insert(next.name.clone(), Arc::new(next));
            self.known.insert(organization, asked);
            self.changed = true;
        }
        Ok(())
    }

    /// Waits until something that took longer than a renewal waits was read; for ever when there is nothing.
    async fn read_more(&mut self, control: &Control) {
        if !self.begin_reads(control) {
            return std::future::pending().await;
        }
        if let Err(error) = self.end_read().await {
            note_unread(&error);
        }
    }

    /// The organizations of which something that changed is not in the snapshot.
    fn behind(&self) -> impl Iterator<Item = OrganizationId> {
        let reading = self.reading.values().map(|it| it.organization);
        self.stale.keys().copied().chain(self.failed.iter().map(|(organization, _)| *organization)).chain(reading)
    }

    /// How many had asked before what is known of those was read.
    fn known_of_behind(&self) -> HashMap<OrganizationId, u64> {
        self.behind().map(|organization| (organization, *self.known.get(&organization).unwrap_or(&0))).collect()
    }

    /// How many servers are in each phase, and how many organizations are behind.
    fn measure(&self) {
        let mut counts: HashMap<Phase, u32> = Phase::ALL.iter().map(|phase| (*phase, 0)).collect();
        for route in self.snapshot.organizations.values().flat_map(|organization| organization.servers.values()) {
            *counts.entry(route.phase).or_default() += 1;
        }
        for (phase, count) in counts {
            metrics::gauge!("toolyard_servers", "phase" => phase.as_str()).set(f64::from(count));
        }
    }

    fn publish(&mut self, control: &Control, began: Timestamp) {
        let before = self.snapshot.made_at;
        let since = |organization| *self.snapshot.behind.get(&organization).unwrap_or(&before);
        let behind: HashMap<_, _> = self.behind().map(|organization| (organization, since(organization))).collect();
        let is_as_before = behind == self.snapshot.behind;
        self.snapshot.behind = behind;
        let behind = u32::try_from(self.snapshot.behind.len()).unwrap_or(u32::MAX);
        metrics::gauge!("toolyard_snapshot_organizations_behind").set(f64::from(behind));
        let changed = std::mem::take(&mut self.changed);
        if changed {
            self.measure();
        } else if self.snapshot.made_at == began && is_as_before {
            return;
        }
        self.snapshot.version += u64::from(changed);
        self.snapshot.made_at = began;
        control.fleet().snapshots.send_replace(Arc::new(self.snapshot.clone()));
    }
}

/// Reads an organization, or what of it changed since `before`.
async fn read_organization(
    control: &Control,
    organization: OrganizationId,
    name: Name,
    before: Option<Arc<OrganizationSnapshot>>,
    stale: Stale,
) -> Result<OrganizationSnapshot> {
    let tx = control.store().org_read(organization).await?;
    let next = match (stale, before) {
        (Stale::Parts { servers, toolsets, credentials }, Some(before)) => {
            let mut next = (*before).clone();
            refresh_servers(&tx, &mut next, servers).await?;
            refresh_toolsets(&tx, &mut next, toolsets).await?;
            next.credentials += u64::from(credentials);
            next
        }
        (_, before) => OrganizationSnapshot {
            id: organization,
            name,
            credentials: before.map_or(0, |before| before.credentials + 1),
            servers: all_servers(&tx).await?,
            toolsets: all_toolsets(&tx).await?,
        },
    };
    Ok(next)
}

/// Keeps the grants that did not change as they are, so that gateways can tell by the pointer.
fn merged(
    old: &HashMap<String, Arc<KeyGrant>>,
    mut new: HashMap<String, Arc<KeyGrant>>,
) -> HashMap<String, Arc<KeyGrant>> {
    for (hash, grant) in &mut new {
        if let Some(before) = old.get(hash).filter(|before| *before == grant) {
            *grant = Arc::clone(before);
        }
    }
    new
}

/// What must be read again after events; everything when they are not all known.
fn stale_of(
    events: Option<Vec<OutboxEvent>>,
    organizations: impl Iterator<Item = OrganizationId>,
) -> HashMap<OrganizationId, Stale> {
    let Some(events) = events else { return organizations.map(|id| (id, Stale::Everything)).collect() };
    let mut all = HashMap::new();
    for event in events {
        let Some(organization) = event.organization else { continue };
        let noun = event.kind.split('.').next().unwrap_or_default();
        let named = event.subject.split_once('/').and_then(|(_, name)| Name::new(name).ok());
        let stale = match (noun, named) {
            ("server", Some(name)) => Stale::parts([name], [], false),
            ("toolset", Some(name)) => Stale::parts([], [name], false),
            ("credential", _) => Stale::parts([], [], true),
            ("toolbox" | "server" | "toolset" | "organization", _) => Stale::Everything,
            _ => continue,
        };
        all.entry(organization).or_insert_with(|| Stale::parts([], [], false)).add(stale);
    }
    all
}

impl Stale {
    fn parts(
        servers: impl IntoIterator<Item = Name>,
        toolsets: impl IntoIterator<Item = Name>,
        credentials: bool,
    ) -> Self {
        let (servers, toolsets) = (servers.into_iter().collect(), toolsets.into_iter().collect());
        Self::Parts { servers, toolsets, credentials }
    }

    fn add(&mut self, more: Self) {
        match (self, more) {
            (Self::Everything, _) => {}
            (known, Self::Everything) => *known = Self::Everything,
            (
                Self::Parts { servers, toolsets, credentials },
                Self::Parts { servers: s, toolsets: t, credentials: c },
            ) => {
                servers.extend(s);
                toolsets.extend(t);
                *credentials |= c;
            }
        }
    }
}

async fn refresh_servers(tx: &OrgTx, next: &mut OrganizationSnapshot, names: BTreeSet<Name>) -> Result<()> {
    let mut rows = Vec::new();
    for name in names {
        match tx.server(&name).await?.filter(|row| !row.deleted) {
            Some(row) => rows.push(row),
            None => drop(next.servers.remove(&name)),
        }
    }
    for (name, route) in routes(tx, rows).await? {
        next.servers.insert(name, route);
    }
    Ok(())
}

async fn refresh_toolsets(tx: &OrgTx, next: &mut OrganizationSnapshot, names: BTreeSet<Name>) -> Result<()> {
    for name in names {
        match tx.toolset(&name).await? {
            Some(row) => drop(next.toolsets.insert(name, toolset_route(row))),
            None => drop(next.toolsets.remove(&name)),
        }
    }
    Ok(())
}

fn toolset_route(row: ToolsetRow) -> Arc<ToolsetRoute> {
    Arc::new(ToolsetRoute { id: row.id, description: row.description, members: row.members })
}

async fn all_servers(tx: &OrgTx) -> Result<BTreeMap<Name, Arc<ServerRoute>>> {
    let mut all = BTreeMap::new();
    let mut after: Option<Name> = None;
    loop {
        let page = tx.servers_page(after.as_ref(), None, PAGE).await?;
        let full = page.len() == usize::try_from(PAGE).unwrap_or(usize::MAX);
        after = page.last().map(|row| row.name.clone());
        all.extend(routes(tx, page.into_iter().filter(|row| !row.deleted).collect()).await?);
        if !full {
            return Ok(all);
        }
    }
}

async fn all_toolsets(tx: &OrgTx) -> Result<BTreeMap<Name, Arc<ToolsetRoute>>> {
    let mut all = BTreeMap::new();
    let mut after: Option<Name> = None;
    loop {
        let page = tx.toolsets_page(after.as_ref(), PAGE).await?;
        let full = page.len() == usize::try_from(PAGE).unwrap_or(usize::MAX);
        after = page.last().map(|row| row.name.clone());
        all.extend(page.into_iter().map(|row| (row.name.clone(), toolset_route(row))));
        if !full {
            return Ok(all);
        }
    }
}

/// The routes of servers, with a fixed number of queries.
async fn routes(tx: &OrgTx, rows: Vec<ServerRow>) -> Result<Vec<(Name, Arc<ServerRoute>)>> {
    let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
    let mut live: HashMap<ServerId, Vec<InstanceRow>> = HashMap::new();
    for instance in tx.live_instances(&ids).await? {
        live.entry(instance.server).or_default().push(instance);
    }
    let rollouts: Vec<_> = rows.iter().filter_map(|row| row.rollout).collect();
    let rollouts: HashMap<_, _> =
        tx.rollouts_by_id(&rollouts).await?.into_iter().map(|rollout| (rollout.id, rollout)).collect();
    // Every toolbox is read only where nothing runs that may take the calls.
    let nowhere: Vec<&ServerRow> =
        rows.iter().filter(|row| row.enabled && row.kind != "remote" && !live.contains_key(&row.id)).collect();
    let toolboxes = if nowhere.is_empty() { Vec::new() } else { tx.toolboxes().await? };
    let revisions: Vec<_> = rows
        .iter()
        .filter_map(|row| row.serving_rollout.and(row.serving_revision))
        .chain(nowhere.iter().filter_map(|row| Some(rollouts.get(&row.rollout?)?.to_revision)))
        .chain(rollouts.values().filter(|it| is_tried(it)).map(|it| it.to_revision))
        .chain(rollouts.values().filter(|it| is_observed(it)).filter_map(|it| it.from_revision))
        .collect();
    let revisions: HashMap<_, _> =
        tx.revision_outlines(&revisions).await?.into_iter().map(|revision| (revision.id, revision)).collect();
    let probes = tx.probes_of(&ids).await?;
    let silent = tx.unreachable_toolboxes().await?;
    let pinned: Vec<_> = rows.iter().filter_map(must_run_on).collect();
    let removed = tx.removed_toolboxes(pinned).await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let live = live.remove(&row.id).unwrap_or_default();
            let probe = probes.iter().find(|probe| Some(probe.revision) == row.serving_revision);
            let rollout = row.rollout.and_then(|id| rollouts.get(&id));
            let removed = must_run_on(&row).and_then(|id| removed.iter().find(|removed| removed.id == id));
            // Whether there is a place for it depends on every toolbox, and is found out for those who look at it.
            let gone = None;
            let status = roll_up(&Facts { server: &row, rollout, live: &live, probe, silent: &silent, removed, gone });
            let (serving, revision) = serving(&row, rollout, &live, &silent);
            let revision = revision.and_then(|id| revisions.get(&id));
            let runs = row.enabled && !row.deleted;
            let has_place = || row.kind == "remote" || has_place(&row, rollout, &revisions, &toolboxes);
            let may_begin = runs && removed.is_none() && (!live.is_empty() || has_place());
            let is_coming = may_begin && is_coming(&row, rollout, &live, &silent);
            let target = match revision.map(|revision| &revision.spec.runtime).filter(|_| runs) {
                Some(Runtime::Remote(remote)) => Target::Remote { transport: remote.transport },
                Some(_) => serving.map_or(Target::None, |serving| instances(serving, &live, &silent)),
                None => Target::None,
            };
            let route = ServerRoute {
                organization: tx.organization(),
                id: row.id,
                revision: revision.map(|revision| revision.id),
                rollout: serving,
                target,
                is_coming,
                phase: status.phase,
                reason: status.reason,
                message: status.message,
                call_timeout_ms: revision.map_or(300_000, |revision| revision.spec.call_timeout_ms),
                instancing: revision.map_or(InstancingMode::Shared, |revision| revision.spec.instancing.mode),
                canary: rollout.filter(|_| runs).and_then(|rollout| canary(rollout, &live, &silent, &revisions)),
            };
            (row.name, Arc::new(route))
        })
        .collect())
}

/// Whether a rollout goes on by itself: one that waits for its window does nothing until that opens.
fn is_under_way(rollout: &RolloutRow) -> bool {
    rollout.state == RolloutState::Progressing && rollout.reason != Reason::OutsideWindow
}

/// Whether a rollout's revision takes a part of the calls.
fn is_tried(rollout: &RolloutRow) -> bool {
    let tried = rollout.canary.as_ref().is_some_and(|canary| canary.started_at.is_some());
    tried && rollout.state == RolloutState::Progressing && rollout.switched_at.is_none()
}

/// Whether a rollout's revision serves while what served before runs on.
fn is_observed(rollout: &RolloutRow) -> bool {
    rollout.state == RolloutState::Progressing && rollout.switched_at.is_some()
}

/// The rollout and the revision that serve. A revision that is observed and has nothing ready any more does not, even
/// before its rollout has gone back.
fn serving(
    row: &ServerRow,
    rollout: Option<&RolloutRow>,
    live: &[InstanceRow],
    silent: &[ToolboxId],
) -> (Option<RolloutId>, Option<RevisionId>) {
    let observed = rollout.filter(|rollout| is_observed(rollout) && Some(rollout.id) == row.serving_rollout);
    if let Some(rollout) = observed
        && let (Some(previous), Some(revision)) = (rollout.from_rollout, rollout.from_revision)
        && of(rollout.id, Phase::Ready, live, silent).is_empty()
        && !of(previous, Phase::Ready, live, silent).is_empty()
    {
        return (Some(previous), Some(revision));
    }
    (row.serving_rollout, row.serving_rollout.and(row.serving_revision))
}

/// The instances that take calls: those that are ready, else those that were and may be again any moment.
fn instances(serving: RolloutId, live: &[InstanceRow], silent: &[ToolboxId]) -> Target {
    let ready = of(serving, Phase::Ready, live, silent);
    let chosen = if ready.is_empty() { of(serving, Phase::Degraded, live, silent) } else { ready };
    if chosen.is_empty() { Target::None } else { Target::Instances(chosen) }
}

/// Whether somebody is about to take the calls of a server that is meant to run. That a rollout is under way or that it
/// has served says so; what was observed only says what stands in the way: an instance that failed, or a toolbox that is
/// not heard. The phase does not tell: what was told to make room is ready until its agent has heard of it.
fn is_coming(row: &ServerRow, rollout: Option<&RolloutRow>, live: &[InstanceRow], silent: &[ToolboxId]) -> bool {
    let is_heard = |it: &InstanceRow| !silent.contains(&it.toolbox);
    // When the one of a rollout fails, what served before begins again.
    let is_spare = |it: &InstanceRow| row.serving_rollout.is_some_and(|serving| serving != it.rollout);
    let can_start = |it: &InstanceRow| is_heard(it) && (it.status.phase != Phase::Failed || is_spare(it));
    let comes = |it: &InstanceRow| match it.desired {
        InstanceWish::Run => can_start(it),
        // What follows on an end waits until it was observed.
        InstanceWish::Prepare => can_start(it) && live.iter().all(is_heard),
        InstanceWish::Retire | InstanceWish::Stop => live.iter().all(is_heard),
    };
    (rollout.is_some_and(is_under_way) || row.serving_rollout.is_some()) && (live.is_empty() || live.iter().any(comes))
}

/// Whether a toolbox that is online can run what may begin of a server that runs nowhere: the revision of the rollout
/// under way, or else what served. When one comes, the snapshot is made anew.
fn has_place(
    row: &ServerRow,
    rollout: Option<&RolloutRow>,
    revisions: &HashMap<RevisionId, RevisionRow>,
    toolboxes: &[ToolboxRow],
) -> bool {
    let next = rollout.filter(|it| is_under_way(it)).map(|it| it.to_revision);
    let served = row.serving_rollout.and(row.serving_revision);
    let can_run = |row: &ServerRow, id: Option<RevisionId>| {
        id.and_then(|id| revisions.get(&id)).is_some_and(|revision| place::has_place(row, revision, toolboxes))
    };
    if can_run(row, next) {
        return true;
    }
    let under_way = rollout.filter(|it| it.state == RolloutState::Progressing);
    let mut row = row.clone();
    if let Some(before) = under_way.and_then(|rollout| place_before(&row, rollout)) {
        (row.toolbox, row.toolbox_labels) = (before.toolbox, before.labels.clone());
    }
    can_run(&row, served)
}

/// The instances of a rollout that may take calls and are in a phase.
fn of(rollout: RolloutId, phase: Phase, live: &[InstanceRow], silent: &[ToolboxId]) -> Vec<InstanceRoute> {
    live.iter()
        .filter(|it| it.rollout == rollout && it.should_serve())
        .filter(|it| shown_status(it, silent).phase == phase)
        .filter_map(|it| Some(InstanceRoute { id: it.id, toolbox: it.toolbox, era: it.mcp.as_ref()?.era }))
        .collect()
}

/// The revision that takes a part of the calls, while it has an instance that is ready.
fn canary(
    rollout: &RolloutRow,
    live: &[InstanceRow],
    silent: &[ToolboxId],
    revisions: &HashMap<RevisionId, RevisionRow>,
) -> Option<CanaryRoute> {
    let plan = rollout.canary.as_ref().filter(|_| is_tried(rollout))?;
    let spec = &revisions.get(&rollout.to_revision)?.spec;
    let instances = of(rollout.id, Phase::Ready, live, silent);
    (!instances.is_empty()).then(|| CanaryRoute {
        revision: rollout.to_revision,
        instances,
        weight: plan.weight,
        clients: plan.clients.clone(),
        call_timeout_ms: spec.call_timeout_ms,
        instancing: spec.instancing.mode,
    })
}
