//! How servers look from outside, built with a fixed number of queries for any number of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use toolyard_store::{InstanceRow, OrgTx, ProbeRow, RemovedToolbox, RolloutRow, ServerRow, ToolboxRow};
use toolyard_types::api::servers::{Instance, Rollout, Server};
use toolyard_types::spec::EntryVersion;
use toolyard_types::state::{Phase, Reason, Status, ToolboxState};
use toolyard_types::{CredentialId, Name, RevisionId, RolloutId, ServerId, Timestamp, ToolboxId};

use crate::reconcile::phase::{Facts, Gone, is_gone, known_status, roll_up};
use crate::reconcile::place;
use crate::{Control, Result};

/// Everything about some servers, read at one moment.
pub(crate) struct Views<'a> {
    control: &'a Control,
    organization: &'a Name,
    live: HashMap<ServerId, Vec<InstanceRow>>,
    rollouts: HashMap<RolloutId, RolloutRow>,
    numbers: HashMap<RevisionId, u32>,
    toolboxes: HashMap<ToolboxId, ToolboxRow>,
    /// Those that servers must run on and that are gone.
    removed: HashMap<ToolboxId, RemovedToolbox>,
    /// Those that have no instance left, and whether there is a place for another.
    gone: HashMap<ServerId, Gone>,
    /// Those with an instance on a toolbox that was given up and that may run elsewhere, and whether there is a place.
    given_up: HashMap<ServerId, Gone>,
    silent: Vec<ToolboxId>,
    probes: HashMap<RevisionId, ProbeRow>,
    /// The name and the current version of each credential of which a running instance has a secret.
    credentials: BTreeMap<CredentialId, (Name, u32)>,
}

impl<'a> Views<'a> {
    /// Reads what belongs to these servers.
    pub(crate) async fn read(
        control: &'a Control,
        tx: &OrgTx,
        organization: &'a Name,
        rows: &[ServerRow],
    ) -> Result<Self> {
        let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
        let mut live: HashMap<_, Vec<_>> = HashMap::new();
        for instance in tx.live_instances(&ids).await? {
            live.entry(instance.server).or_default().push(instance);
        }
        let rollouts: Vec<_> = rows.iter().filter_map(|row| row.rollout).collect();
        let rollouts: HashMap<_, _> =
            tx.rollouts_by_id(&rollouts).await?.into_iter().map(|rollout| (rollout.id, rollout)).collect();
        let revisions: BTreeSet<_> = rows
            .iter()
            .flat_map(|row| [Some(row.target_revision), row.serving_revision])
            .chain(rollouts.values().flat_map(|rollout| [Some(rollout.to_revision), rollout.from_revision]))
            .flatten()
            .chain(live.values().flatten().map(|instance| instance.revision))
            .collect();
        let numbers = tx.revision_numbers(&revisions.into_iter().collect::<Vec<_>>()).await?.into_iter().collect();
        let pinned = rows.iter().filter_map(|row| row.toolbox);
        let toolboxes = pinned.chain(live.values().flatten().map(|instance| instance.toolbox));
        let toolboxes = tx.toolboxes_by_id(toolboxes).await?;
        let toolboxes: HashMap<_, _> = toolboxes.into_iter().map(|toolbox| (toolbox.id, toolbox)).collect();
        let missing: Vec<_> = rows.iter().filter_map(must_run_on).filter(|id| !toolboxes.contains_key(id)).collect();
        let removed = tx.removed_toolboxes(missing).await?.into_iter().map(|removed| (removed.id, removed)).collect();
        let without_instance = |row: &&ServerRow| {
            let rollout = row.rollout.and_then(|id| rollouts.get(&id));
            is_gone(row, rollout, live.get(&row.id).map(Vec::as_slice).unwrap_or_default())
        };
        let on_lost = |row: &&ServerRow| {
            let mut live = live.get(&row.id).into_iter().flatten();
            row.toolbox.is_none() && live.any(|it| toolboxes.get(&it.toolbox).is_some_and(ToolboxRow::is_lost))
        };
        let given_up = places(tx, &rows.iter().filter(on_lost).collect::<Vec<_>>()).await?;
        let gone = places(tx, &rows.iter().filter(without_instance).collect::<Vec<_>>()).await?;
        let silent = toolboxes
            .values()
            .filter(|toolbox| toolbox.status.phase == ToolboxState::Unreachable)
            .map(|toolbox| toolbox.id)
            .collect();
        let remote: Vec<_> = rows.iter().filter(|row| row.kind == "remote").map(|row| row.id).collect();
        let probes = tx.probes_of(&remote).await?.into_iter().map(|probe| (probe.revision, probe)).collect();
        let held: BTreeSet<_> =
            live.values().flatten().flat_map(|instance| instance.secret_versions.keys().copied()).collect();
        let credentials = tx.credential_versions(&held).await?;
        Ok(Self {
            control,
            organization,
            live,
            rollouts,
            numbers,
            toolboxes,
            removed,
            gone,
            given_up,
            silent,
            probes,
            credentials,
        })
    }

    /// Where one of them is and why.
    pub(crate) fn status(&self, row: &ServerRow) -> Status<Phase> {
        let live = self.live.get(&row.id).map(Vec::as_slice).unwrap_or_default();
        let rollout = row.rollout.and_then(|id| self.rollouts.get(&id));
        let probe = row.serving_revision.and_then(|revision| self.probes.get(&revision));
        let removed = self.removed(row);
        let (silent, gone) = (self.silent.as_slice(), self.gone.get(&row.id));
        let mut status = roll_up(&Facts { server: row, rollout, live, probe, silent, removed, gone });
        if status.reason == Reason::ToolboxUnreachable
            && let Some(since) = live.iter().filter_map(|it| self.silent_since(it.toolbox)).max()
        {
            status.since = since;
        }
        if status.reason == Reason::ToolboxUnreachable
            && let Some(lost) =
                live.iter().filter_map(|it| self.toolboxes.get(&it.toolbox)).find(|it| it.lost_at.is_some())
        {
            status.message = if status.phase == Phase::Stopping {
                let name = &lost.name;
                format!(
                    "its toolbox `{name}` is unreachable and may still run it; it counts as stopped once `{name}` is heard or removed"
                )
            } else if row.toolbox.is_some() {
                format!("its toolbox `{}` is unreachable, and it must run there", lost.name)
            } else if let Some((_, why)) = self.given_up.get(&row.id).and_then(|given_up| given_up.why.as_ref()) {
                format!("its toolbox `{}` is unreachable, and no other can take it: {why}", lost.name)
            } else {
                let name = &lost.name;
                format!(
                    "its toolbox `{name}` is unreachable; another instance begins where one may run, unless none may run beside it (`recreate`)"
                )
            };
        }
        status
    }

    /// Since when one of them has had no instance although it should, with no rollout under way.
    pub(crate) fn nowhere_since(&self, row: &ServerRow) -> Option<Timestamp> {
        self.gone.contains_key(&row.id).then(|| self.status(row).since)
    }

    /// How one of them looks.
    pub(crate) fn server(&self, row: &ServerRow) -> Server {
        let live = self.live.get(&row.id).map(Vec::as_slice).unwrap_or_default();
        let rollout = row.rollout.and_then(|id| self.rollouts.get(&id));
        let status = self.status(row);
        let mut serving =
            live.iter().filter(|it| Some(it.rollout) == row.serving_rollout && self.known(it).phase == Phase::Ready);
        let instance_id = serving.next().filter(|_| serving.next().is_none()).map(|instance| instance.id);
        let revision = row.serving_rollout.and(row.serving_revision).unwrap_or(row.target_revision);
        Server {
            id: row.id,
            name: row.name.clone(),
            entry: row
                .entry_name
                .clone()
                .map(|name| EntryVersion { name, version: row.entry_version.clone().unwrap_or_default() }),
            kind: row.kind.clone(),
            enabled: row.enabled,
            phase: status.phase,
            reason: status.reason,
            message: status.message,
            since: status.since,
            next_attempt_at: status.next_attempt_at,
            revision: self.number(revision),
            instance_id,
            instances: live.iter().map(|instance| self.instance(instance)).collect(),
            rollout: rollout.map(|rollout| self.rollout(&row.name, rollout)),
            toolbox: match self.removed(row) {
                Some(removed) => removed.name.clone(),
                None => row.toolbox.and_then(|id| self.toolbox_name(id)),
            },
            toolbox_removed_at: self.removed(row).map(|removed| removed.at),
            toolbox_labels: row.toolbox_labels.clone(),
            replicas: row.replicas,
            observe_seconds: u32::try_from(row.observe_ms / 1000).unwrap_or(u32::MAX),
            restart_at: row.restart_at,
            update_window: row.update_window,
            mcp_path: format!("/mcp/{}/servers/{}", self.organization, row.name),
            created_at: row.created_at,
            updated_at: row.updated_at,
            etag: etag(row),
        }
    }

    /// How a rollout looks.
    pub(crate) fn rollout(&self, server: &Name, rollout: &RolloutRow) -> Rollout {
        Rollout {
            id: rollout.id,
            server: server.clone(),
            state: rollout.state,
            reason: rollout.reason,
            message: rollout.message.clone(),
            from_revision: rollout.from_revision.map(|id| self.number(id)),
            to_revision: self.number(rollout.to_revision),
            started_at: rollout.started_at,
            deadline: rollout.deadline,
            ended_at: rollout.ended_at,
            log: rollout.log.clone(),
            switched_at: rollout.switched_at,
            canary: rollout.canary.clone(),
            next_attempt_at: rollout.next_attempt_at,
        }
    }

    /// The last rollout of a server, as it looks.
    pub(crate) fn last_rollout(&self, row: &ServerRow) -> Option<Rollout> {
        self.rollouts.get(&row.rollout?).map(|rollout| self.rollout(&row.name, rollout))
    }

    /// The toolbox where a server must run, when that was removed.
    fn removed(&self, row: &ServerRow) -> Option<&RemovedToolbox> {
        self.removed.get(&must_run_on(row)?)
    }

    fn number(&self, id: RevisionId) -> u32 {
        self.numbers.get(&id).copied().unwrap_or_default()
    }

    /// Since when a toolbox has been silent, if it is.
    fn silent_since(&self, id: ToolboxId) -> Option<Timestamp> {
        let toolbox = self.toolboxes.get(&id).filter(|toolbox| toolbox.status.phase == ToolboxState::Unreachable)?;
        Some(toolbox.status.since)
    }

    fn toolbox_name(&self, id: ToolboxId) -> Option<Name> {
        self.toolboxes.get(&id).map(|toolbox| toolbox.name.clone())
    }

    /// What is known now of an instance.
    fn known(&self, row: &InstanceRow) -> Status<Phase> {
        known_status(row, self.silent_since(row.toolbox))
    }

    fn instance(&self, row: &InstanceRow) -> Instance {
        let status = self.known(row);
        Instance {
            id: row.id,
            toolbox: self.toolbox_name(row.toolbox),
            revision: self.number(row.revision),
            phase: status.phase,
            reason: status.reason,
            message: status.message,
            since: status.since,
            next_attempt_at: status.next_attempt_at,
            pid: row.pid,
            ready_since: row.ready_since,
            restarts: row.restarts,
            exit: row.exit.clone(),
            mcp: row.mcp.clone(),
            usage: self.control.fleet().usage_of(row.toolbox, row.id),
            container_id: row.container_id.clone(),
            last_success_at: self.control.fleet().answered(row.toolbox, row.id).max(row.last_success_at),
            failures: row.failures,
            copies: row.copies,
            outdated_secrets: self.outdated(row),
        }
    }

    /// The credentials of which an instance was started with an older secret than the current one, by name. What is being
    /// stopped is nothing to restart.
    fn outdated(&self, row: &InstanceRow) -> Vec<Name> {
        if !row.should_serve() {
            return Vec::new();
        }
        let outdated = |(id, version): (&CredentialId, &u32)| {
            let (name, current) = self.credentials.get(id)?;
            (version < current).then(|| name.clone())
        };
        let names: BTreeSet<_> = row.secret_versions.iter().filter_map(outdated).collect();
        names.into_iter().collect()
    }
}

/// Whether there is a place for another instance of servers. Every toolbox is read only when there are some.
async fn places(tx: &OrgTx, rows: &[&ServerRow]) -> Result<HashMap<ServerId, Gone>> {
    if rows.is_empty() {
        return Ok(HashMap::new());
    }
    let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
    let ends: HashMap<_, _> = tx.last_ends(&ids).await?.into_iter().collect();
    let revisions: Vec<_> = rows.iter().filter_map(|row| row.serving_revision).collect();
    let revisions: HashMap<_, _> =
        tx.revision_outlines(&revisions).await?.into_iter().map(|revision| (revision.id, revision)).collect();
    let toolboxes = tx.toolboxes().await?;
    let looked_at = rows.iter().map(|row| {
        let revision = row.serving_revision.and_then(|id| revisions.get(&id));
        let why = revision.and_then(|revision| place::why_nowhere(row, revision, &toolboxes));
        (row.id, Gone { since: ends.get(&row.id).copied(), why })
    });
    Ok(looked_at.collect())
}

/// The one toolbox that may run a server; what runs elsewhere needs none.
pub(crate) fn must_run_on(row: &ServerRow) -> Option<ToolboxId> {
    row.toolbox.filter(|_| row.kind != "remote")
}

/// Changes with what people set, not with what the loops observe: an edit is not refused because a rollout
/// ended meanwhile, unless that changed which revision is meant.
pub(crate) fn etag(row: &ServerRow) -> String {
    let text = format!(
        "{} {} {} {} {:?} {} {} {} {:?} {:?} {}",
        row.id,
        row.target_revision,
        row.enabled,
        row.deleted,
        row.toolbox,
        row.rollout_timeout_ms,
        row.replicas,
        row.observe_ms,
        row.restart_at,
        row.update_window,
        row.toolbox_labels
    );
    let digest = crate::auth::token::sha256_hex(&text);
    digest.chars().take(16).collect()
}
