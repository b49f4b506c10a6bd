//! Servers: what should run, and which revision and rollout serve.
//!
//! Whoever changes anything about a server (its instances, its rollouts) locks its row first
//! ([`OrgTx::lock_server`]), so that two loops, two replicas and a request never interleave.

use std::collections::HashMap;

use sea_orm::FromQueryResult;
use serde::{Deserialize, Serialize};
use toolyard_types::api::servers::Canary;
use toolyard_types::schedule::{TimeOfDay, UpdateWindow};
use toolyard_types::{EntryName, Labels, Name, OrganizationId, RevisionId, RolloutId, ServerId, Timestamp, ToolboxId};

use crate::attempts::Loop;
use crate::query::{TextRow, count, json, parse, parse_option, placeholders, to_i32, to_i64, to_json};
use crate::rollouts::Place;
use crate::{OrgTx, Result, StoreError, SystemTx};

/// A server.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerRow {
    /// Its id.
    pub id: ServerId,
    /// Its name.
    pub name: Name,
    /// `npm`, `pypi`, `oci` or `remote`.
    pub kind: String,
    /// The catalog entry it came from.
    pub entry_name: Option<EntryName>,
    /// And its version.
    pub entry_version: Option<String>,
    /// Whether it should run.
    pub enabled: bool,
    /// Whether it is being deleted.
    pub deleted: bool,
    /// Where it must run; any toolbox when absent.
    pub toolbox: Option<ToolboxId>,
    /// Whether it has, or once had, volumes on the toolbox where it must run.
    pub has_volumes: bool,
    /// The labels that its toolbox must have.
    pub toolbox_labels: Labels,
    /// The revision that serves, or served last.
    pub serving_revision: Option<RevisionId>,
    /// The rollout whose instances serve; absent when nothing should.
    pub serving_rollout: Option<RolloutId>,
    /// The revision it should have.
    pub target_revision: RevisionId,
    /// The change that begins once what serves was restarted; look at [`ServerRow::waiting`].
    pub postponed: Option<Postponed>,
    /// The last rollout that was begun.
    pub rollout: Option<RolloutId>,
    /// How long a rollout may take.
    pub rollout_timeout_ms: u64,
    /// How many instances should serve at once.
    pub replicas: u32,
    /// How long a new revision serves before the old one is stopped.
    pub observe_ms: u64,
    /// At what time of day it is restarted.
    pub restart_at: Option<TimeOfDay>,
    /// When it is restarted next.
    pub next_restart_at: Option<Timestamp>,
    /// When changes to it may be made; at any time when absent.
    pub update_window: Option<UpdateWindow>,
    /// Rises with every change.
    pub version: i64,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// A change that was taken back for a restart of what serves, or when its server was stopped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Postponed {
    /// It begins when this rollout has ended; absent for a server that is stopped, of which none has begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<RolloutId>,
    /// To this revision.
    pub revision: RevisionId,
    /// To there, when it moves the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// Whether the revision may list fewer tools.
    #[serde(default)]
    pub accept_lost_tools: bool,
    /// What takes a part of the calls first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
    /// Whether it waits for its server's update window.
    #[serde(default)]
    pub held: bool,
}

/// A server and whose it is, for loops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerRef {
    /// Whose.
    pub organization: OrganizationId,
    /// Which.
    pub server: ServerId,
}

/// The order of a list of servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerSort {
    /// By name.
    #[default]
    Name,
    /// By name, backwards.
    NameDescending,
    /// The oldest first.
    Created,
    /// The newest first.
    CreatedDescending,
}

/// Where the next page of a list of servers starts: after this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerPosition {
    /// In a list by name.
    Name(Name),
    /// In a list by age.
    Created(Timestamp, ServerId),
}

/// Which servers a page has.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServersPage<'a> {
    /// After this one, which is of the same order.
    pub after: Option<&'a ServerPosition>,
    /// Those whose name or entry holds this.
    pub search: Option<&'a str>,
    /// Those that run on this toolbox, or must.
    pub toolbox: Option<ToolboxId>,
    /// In this order.
    pub sort: ServerSort,
    /// At most so many.
    pub limit: u32,
}

const COLUMNS: &str = "id, name, kind, entry_name, entry_version, enabled, deleted, toolbox_id, toolbox_labels, serving_revision_id, \
                       serving_rollout_id, target_revision_id, rollout_id, rollout_timeout_ms, version, created_at, updated_at, \
                       replicas, observe_ms, restart_at, next_restart_at, update_window, has_volumes, postponed";

#[derive(FromQueryResult)]
struct Row {
    id: String,
    name: String,
    kind: String,
    entry_name: Option<String>,
    entry_version: Option<String>,
    enabled: bool,
    deleted: bool,
    toolbox_id: Option<String>,
    toolbox_labels: String,
    serving_revision_id: Option<String>,
    serving_rollout_id: Option<String>,
    target_revision_id: String,
    rollout_id: Option<String>,
    rollout_timeout_ms: i64,
    version: i64,
    created_at: i64,
    updated_at: i64,
    replicas: i32,
    observe_ms: i64,
    restart_at: Option<String>,
    next_restart_at: Option<i64>,
    update_window: Option<String>,
    has_volumes: bool,
    postponed: Option<String>,
}

impl TryFrom<Row> for ServerRow {
    type Error = StoreError;
    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: parse("servers.id", &row.id)?,
            name: parse("servers.name", &row.name)?,
            kind: row.kind,
            entry_name: parse_option("servers.entry_name", row.entry_name.as_deref())?,
            entry_version: row.entry_version,
            enabled: row.enabled,
            deleted: row.deleted,
            toolbox: parse_option("servers.toolbox_id", row.toolbox_id.as_deref())?,
            has_volumes: row.has_volumes,
            toolbox_labels: json("servers.toolbox_labels", &row.toolbox_labels)?,
            serving_revision: parse_option("servers.serving_revision_id", row.serving_revision_id.as_deref())?,
            serving_rollout: parse_option("servers.serving_rollout_id", row.serving_rollout_id.as_deref())?,
            target_revision: parse("servers.target_revision_id", &row.target_revision_id)?,
            postponed: row.postponed.map(|text| json("servers.postponed", &text)).transpose()?,
            rollout: parse_option("servers.rollout_id", row.rollout_id.as_deref())?,
            rollout_timeout_ms: count("servers.rollout_timeout_ms", row.rollout_timeout_ms)?,
            replicas: count("servers.replicas", i64::from(row.replicas))?,
            observe_ms: count("servers.observe_ms", row.observe_ms)?,
            restart_at: parse_option("servers.restart_at", row.restart_at.as_deref())?,
            next_restart_at: row.next_restart_at.map(Timestamp::from_ms),
            update_window: parse_option("servers.update_window", row.update_window.as_deref())?,
            version: row.version,
            created_at: Timestamp::from_ms(row.created_at),
            updated_at: Timestamp::from_ms(row.updated_at),
        })
    }
}

#[derive(FromQueryResult)]
pub(crate) struct RefRow {
    organization_id: String,
    id: String,
}

pub(crate) fn text<T: ToString>(value: Option<&T>) -> sea_orm::Value {
    value.map(ToString::to_string).into()
}

impl ServerRow {
    /// The change that begins after what is being done now. One that was postponed before something else was done, such as
    /// by a program that does not know of it, counts for nothing.
    #[must_use]
    pub fn waiting(&self) -> Option<&Postponed> {
        self.postponed.as_ref().filter(|postponed| match postponed.after {
            Some(rollout) => self.enabled && self.rollout == Some(rollout),
            None => !self.enabled,
        })
    }

    /// Gives it the place that it is meant to have once all is done that was asked for; tells the one before.
    pub fn take_meant_place(&mut self) -> Option<Place> {
        let Place { toolbox, labels } = self.waiting()?.place.clone().filter(|_| !self.has_volumes)?;
        Some(Place {
            toolbox: std::mem::replace(&mut self.toolbox, toolbox),
            labels: std::mem::replace(&mut self.toolbox_labels, labels),
        })
    }

    /// The revision that it is meant to have once all is done that was asked for.
    #[must_use]
    pub fn meant_revision(&self) -> RevisionId {
        self.waiting().map_or(self.target_revision, |postponed| postponed.revision)
    }
}

impl OrgTx {
    /// Writes a new server.
    ///
    /// # Errors
    /// When the name is taken or the database fails.
    pub async fn insert_server(&self, server: &ServerRow) -> Result<()> {
        let sql = format!(
            "INSERT INTO servers (organization_id, {COLUMNS}) VALUES \
             ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25)"
        );
        let values = [
            self.organization().to_string().into(),
            server.id.to_string().into(),
            server.name.to_string().into(),
            server.kind.clone().into(),
            text(server.entry_name.as_ref()),
            server.entry_version.clone().into(),
            server.enabled.into(),
            server.deleted.into(),
            text(server.toolbox.as_ref()),
            to_json(&server.toolbox_labels).into(),
            text(server.serving_revision.as_ref()),
            text(server.serving_rollout.as_ref()),
            server.target_revision.to_string().into(),
            text(server.rollout.as_ref()),
            to_i64(server.rollout_timeout_ms).into(),
            server.version.into(),
            server.created_at.as_ms().into(),
            server.updated_at.as_ms().into(),
            to_i32(server.replicas).into(),
            to_i64(server.observe_ms).into(),
            text(server.restart_at.as_ref()),
            server.next_restart_at.map(Timestamp::as_ms).into(),
            text(server.update_window.as_ref()),
            server.has_volumes.into(),
            server.postponed.as_ref().map(to_json).into(),
        ];
        self.execute(&sql, values).await?;
        Ok(())
    }

    /// Writes what may change of a server and raises its version.
    ///
    /// # Errors
    /// [`StoreError::Stale`] when it was changed since it was read.
    pub async fn update_server(&self, server: &mut ServerRow) -> Result<()> {
        let now = self.now();
        let sql = "UPDATE servers SET kind = $3, entry_name = $4, entry_version = $5, enabled = $6, deleted = $7, \
                   toolbox_id = $8, serving_revision_id = $9, serving_rollout_id = $10, target_revision_id = $11, \
                   rollout_id = $12, rollout_timeout_ms = $13, version = version + 1, updated_at = $14, \
                   replicas = $16, observe_ms = $17, restart_at = $18, next_restart_at = $19, update_window = $20, \
                   has_volumes = $21, toolbox_labels = $22, postponed = $23 \
                   WHERE organization_id = $1 AND id = $2 AND version = $15";
        let values = [
            self.organization().to_string().into(),
            server.id.to_string().into(),
            server.kind.clone().into(),
            text(server.entry_name.as_ref()),
            server.entry_version.clone().into(),
            server.enabled.into(),
            server.deleted.into(),
            text(server.toolbox.as_ref()),
            text(server.serving_revision.as_ref()),
            text(server.serving_rollout.as_ref()),
            server.target_revision.to_string().into(),
            text(server.rollout.as_ref()),
            to_i64(server.rollout_timeout_ms).into(),
            now.as_ms().into(),
            server.version.into(),
            to_i32(server.replicas).into(),
            to_i64(server.observe_ms).into(),
            text(server.restart_at.as_ref()),
            server.next_restart_at.map(Timestamp::as_ms).into(),
            text(server.update_window.as_ref()),
            server.has_volumes.into(),
            to_json(&server.toolbox_labels).into(),
            server.postponed.as_ref().map(to_json).into(),
        ];
        if self.execute(sql, values).await? == 0 {
            return Err(StoreError::Stale);
        }
        server.version += 1;
        server.updated_at = now;
        Ok(())
    }

    /// A server by name, also one that is being deleted.
    ///
    /// # Errors
    /// When the database fails or the row cannot be read.
    pub async fn server(&self, name: &Name) -> Result<Option<ServerRow>> {
        let sql =
            format!("SELECT {COLUMNS} FROM servers WHERE organization_id = $1 AND name = $2 ORDER BY deleted LIMIT 1");
        let values = [self.organization().to_string().into(), name.to_string().into()];
        self.row::<Row>(sql, values).await?.map(TryInto::try_into).transpose()
    }

    /// A server by id.
    ///
    /// # Errors
    /// When the database fails or the row cannot be read.
    pub async fn server_by_id(&self, id: ServerId) -> Result<Option<ServerRow>> {
        let sql = format!("SELECT {COLUMNS} FROM servers WHERE organization_id = $1 AND id = $2");
        let values = [self.organization().to_string().into(), id.to_string().into()];
        self.row::<Row>(sql, values).await?.map(TryInto::try_into).transpose()
    }

    /// Servers by id.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn servers_by_id(&self, ids: &[ServerId]) -> Result<Vec<ServerRow>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT {COLUMNS} FROM servers WHERE organization_id = $1 AND id IN ({})",
            placeholders(2, ids.len())
        );
        let values = std::iter::once(self.organization().to_string().into())
            .chain(ids.iter().map(|id| id.to_string().into()))
            .collect::<Vec<_>>();
        self.rows::<Row>(sql, values).await?.into_iter().map(TryInto::try_into).collect()
    }

    /// The servers with these names, also those that are being deleted.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn servers_named(&self, names: &[Name]) -> Result<Vec<ServerRow>> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT {COLUMNS} FROM servers WHERE organization_id = $1 AND name IN ({}) ORDER BY name",
            placeholders(2, names.len())
        );
        let values = std::iter::once(self.organization().to_string().into())
            .chain(names.iter().map(|name| name.as_str().into()))
            .collect::<Vec<_>>();
        self.rows::<Row>(sql, values).await?.into_iter().map(TryInto::try_into).collect()
    }

    /// The servers that have volumes on a toolbox, also those that are being deleted.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn servers_with_volumes(&self, toolbox: ToolboxId) -> Result<Vec<ServerId>> {
        let sql =
            "SELECT id AS text FROM servers WHERE organization_id = $1 AND toolbox_id = $2 AND has_volumes ORDER BY id";
        let values = [self.organization().to_string().into(), toolbox.to_string().into()];
        let rows = self.rows::<TextRow>(sql, values).await?;
        rows.into_iter().map(|row| parse("servers.id", &row.text)).collect()
    }

    /// The servers that have, or had not long ago, an instance or a job on a toolbox and are not deleted.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn servers_known_on(&self, toolbox: ToolboxId) -> Result<Vec<ServerId>> {
        let sql = "SELECT id AS text FROM servers WHERE organization_id = $1 AND NOT deleted AND (\
                   id IN (SELECT server_id FROM instances WHERE toolbox_id = $2) OR id IN (SELECT revisions.server_id \
                   FROM jobs JOIN revisions ON revisions.id = jobs.revision_id WHERE jobs.toolbox_id = $2)) ORDER BY id";
        let values = [self.organization().to_string().into(), toolbox.to_string().into()];
        let rows = self.rows::<TextRow>(sql, values).await?;
        rows.into_iter().map(|row| parse("servers.id", &row.text)).collect()
    }

    /// The servers that have or had an instance on a toolbox, or keep volumes there.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn servers_once_on(&self, toolbox: ToolboxId) -> Result<Vec<ServerId>> {
        let sql = "SELECT server_id AS text FROM instances WHERE organization_id = $1 AND toolbox_id = $2 \
                   UNION SELECT id AS text FROM servers WHERE organization_id = $1 AND toolbox_id = $2 AND has_volumes \
                   ORDER BY text";
        let values = [self.organization().to_string().into(), toolbox.to_string().into()];
        let rows = self.rows::<TextRow>(sql, values).await?;
        rows.into_iter().map(|row| parse("servers.id", &row.text)).collect()
    }

    /// Reads a server so that nobody else changes it, its instances or its rollouts until this commits.
    ///
    /// # Errors
    /// When the database fails or the row cannot be read.
    pub async fn lock_server(&self, id: ServerId) -> Result<Option<ServerRow>> {
        let sql = format!("SELECT {COLUMNS} FROM servers WHERE organization_id = $1 AND id = $2{}", self.for_update());
        let values = [self.organization().to_string().into(), id.to_string().into()];
        self.row::<Row>(sql, values).await?.map(TryInto::try_into).transpose()
    }

    /// A page of servers.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn servers_list(&self, page: &ServersPage<'_>) -> Result<Vec<ServerRow>> {
        let mut values: Vec<sea_orm::Value> =
            vec![self.organization().to_string().into(), like(page.search.unwrap_or_default()).into()];
        let mut wheres = String::new();
        if let Some(toolbox) = page.toolbox {
            values.push(toolbox.to_string().into());
            wheres.push_str(
                " AND (toolbox_id = $3 OR id IN (SELECT server_id FROM instances \
                 WHERE organization_id = $1 AND toolbox_id = $3 AND ended_at IS NULL))",
            );
        }
        let (after, order) = match page.sort {
            ServerSort::Name => (">", "name"),
            ServerSort::NameDescending => ("<", "name DESC"),
            ServerSort::Created => (">", "created_at, id"),
            ServerSort::CreatedDescending => ("<", "created_at DESC, id DESC"),
        };
        let place = values.len();
        match page.after {
            None => {}
            Some(ServerPosition::Name(name)) => {
                values.push(name.to_string().into());
                wheres.push_str(&format!(" AND name {after} ${}", place + 1));
            }
            Some(ServerPosition::Created(at, id)) => {
                values.extend([at.as_ms().into(), id.to_string().into()]);
                wheres.push_str(&format!(" AND (created_at, id) {after} (${}, ${})", place + 1, place + 2));
            }
        }
        values.push(i64::from(page.limit).into());
        let sql = format!(
            "SELECT {COLUMNS} FROM servers WHERE organization_id = $1 \
             AND (name LIKE $2 ESCAPE '!' OR COALESCE(entry_name, '') LIKE $2 ESCAPE '!'){wheres} ORDER BY {order} LIMIT ${}",
            values.len()
        );
        self.rows::<Row>(sql, values).await?.into_iter().map(TryInto::try_into).collect()
    }

    /// Servers by name after `after`, whose name or entry holds `search`, at most `limit`.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn servers_page(&self, after: Option<&Name>, search: Option<&str>, limit: u32) -> Result<Vec<ServerRow>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM servers WHERE organization_id = $1 AND name > $2 \
             AND (name LIKE $3 ESCAPE '!' OR COALESCE(entry_name, '') LIKE $3 ESCAPE '!') ORDER BY name LIMIT $4"
        );
        let values = [
            self.organization().to_string().into(),
            after.map_or(String::new(), ToString::to_string).into(),
            like(search.unwrap_or_default()).into(),
            i64::from(limit).into(),
        ];
        self.rows::<Row>(sql, values).await?.into_iter().map(TryInto::try_into).collect()
    }

    /// How many servers there are, and how many of them should run; only those of these names, when given.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn count_servers(&self, names: Option<&[Name]>) -> Result<(u64, u64)> {
        #[derive(FromQueryResult)]
        struct Row {
            enabled: bool,
            number: i64,
        }
        let named = match names {
            Some([]) => return Ok((0, 0)),
            Some(names) => format!("AND name IN ({})", placeholders(2, names.len())),
            None => String::new(),
        };
        let sql = format!(
            "SELECT enabled, COUNT(*) AS number FROM servers WHERE organization_id = $1 AND NOT deleted {named} GROUP BY enabled"
        );
        let values: Vec<_> = std::iter::once(self.organization().to_string().into())
            .chain(names.into_iter().flatten().map(|name| name.as_str().into()))
            .collect();
        let (mut all, mut enabled) = (0, 0);
        for row in self.rows::<Row>(sql, values).await? {
            let number: u64 = count("servers", row.number)?;
            all += number;
            enabled += if row.enabled { number } else { 0 };
        }
        Ok((all, enabled))
    }

    /// The ids of the servers with these names that are not being deleted.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn server_ids(&self, names: &[Name]) -> Result<Vec<ServerId>> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT id AS text FROM servers WHERE organization_id = $1 AND NOT deleted AND name IN ({})",
            placeholders(2, names.len())
        );
        let values: Vec<_> = std::iter::once(self.organization().to_string().into())
            .chain(names.iter().map(|name| name.as_str().into()))
            .collect();
        self.rows::<TextRow>(sql, values).await?.iter().map(|row| parse("servers.id", &row.text)).collect()
    }

    /// The names of servers by id.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn server_names(&self, ids: &[ServerId]) -> Result<HashMap<ServerId, Name>> {
        let rows = self.pairs("SELECT id, name AS text FROM servers", ids.iter().map(ToString::to_string)).await?;
        rows.iter().map(|row| Ok((parse("servers.id", &row.id)?, parse("servers.name", &row.text)?))).collect()
    }

    /// The servers with these names that are not being deleted.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn existing_servers(&self, names: &[Name]) -> Result<Vec<String>> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT name AS text FROM servers WHERE organization_id = $1 AND NOT deleted AND name IN ({})",
            placeholders(2, names.len())
        );
        let values = std::iter::once(self.organization().to_string().into())
            .chain(names.iter().map(|name| name.to_string().into()))
            .collect::<Vec<_>>();
        Ok(self.rows::<TextRow>(sql, values).await?.into_iter().map(|row| row.text).collect())
    }

    /// Removes every row of a server whose instances have ended, with the credentials that were made from its
    /// inputs alone, and frees its name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remove_server(&mut self, server: &ServerRow) -> Result<()> {
        self.delete_input_credentials(server.id).await?;
        for table in ["jobs WHERE revision_id IN (SELECT id FROM revisions WHERE server_id = $2)"]
            .into_iter()
            .chain(["instances WHERE server_id = $2", "rollouts WHERE server_id = $2"])
            .chain(["remote_probes WHERE server_id = $2", "revisions WHERE server_id = $2", "servers WHERE id = $2"])
        {
            let sql = format!("DELETE FROM {table} AND organization_id = $1");
            self.execute(&sql, [self.organization().to_string().into(), server.id.to_string().into()]).await?;
        }
        self.free_name(&server.name).await
    }
}

impl SystemTx {
    /// Whose server it is.
    ///
    /// # Errors
    /// When the database fails or the row cannot be read.
    pub async fn server_organization(&self, id: ServerId) -> Result<Option<OrganizationId>> {
        let sql = "SELECT organization_id AS text FROM servers WHERE id = $1";
        let row = self.row::<TextRow>(sql, [id.to_string().into()]).await?;
        row.map(|row| parse("servers.organization_id", &row.text)).transpose()
    }

    /// Servers that are being deleted and whose instances have all ended. Those that wait for a silent toolbox
    /// are not among them: they must not take the places of others.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn deleted_servers(&self, limit: u32) -> Result<Vec<ServerRef>> {
        let sql = "SELECT organization_id, id FROM servers WHERE deleted = TRUE AND NOT EXISTS (SELECT 1 FROM instances \
                   WHERE instances.server_id = servers.id AND ended_at IS NULL) ORDER BY id LIMIT $1";
        self.refs(sql, limit).await
    }

    /// Servers that serve from toolboxes with more or fewer instances than they should have, or that have one which serves,
    /// or which their rollout made, on a toolbox that is drained or lost although it may run elsewhere; those that are to
    /// be looked at now.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn servers_off_target(&self, now: Timestamp, limit: u32) -> Result<Vec<ServerRef>> {
        let off = "SELECT organization_id, id, 0 AS urgency FROM servers WHERE enabled AND NOT deleted AND kind <> 'remote' \
                   AND serving_rollout_id IS NOT NULL AND replicas <> (SELECT COUNT(*) FROM instances \
                   WHERE instances.rollout_id = servers.serving_rollout_id AND ended_at IS NULL AND desired IN ('run', 'prepare')) \
                   UNION SELECT servers.organization_id AS organization_id, servers.id AS id, 0 AS urgency FROM toolboxes \
                   JOIN instances ON instances.toolbox_id = toolboxes.id AND instances.ended_at IS NULL \
                   AND instances.desired = 'run' JOIN servers ON servers.id = instances.server_id \
                   AND instances.rollout_id IN (servers.serving_rollout_id, servers.rollout_id) \
                   AND servers.enabled AND NOT servers.deleted AND (servers.toolbox_id IS NULL OR EXISTS \
                   (SELECT 1 FROM rollouts WHERE rollouts.id = servers.rollout_id AND rollouts.state = 'progressing' \
                   AND rollouts.from_place IS NOT NULL)) \
                   WHERE (toolboxes.draining_since IS NOT NULL \
                   OR (toolboxes.lost_at IS NOT NULL AND toolboxes.state = 'unreachable')) AND toolboxes.state <> 'removed'";
        self.due(Loop::Scale, off, now, limit).await
    }

    /// Servers with living instances that belong neither to what serves nor to a rollout under way, or that are to end
    /// once the calls to them have.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn servers_with_superseded(&self, limit: u32) -> Result<Vec<ServerRef>> {
        let sql = "SELECT DISTINCT servers.organization_id AS organization_id, servers.id AS id FROM instances \
                   JOIN servers ON servers.id = instances.server_id WHERE instances.ended_at IS NULL \
                   AND instances.desired <> 'stop' AND (servers.deleted OR NOT servers.enabled \
                   OR instances.desired = 'retire' \
                   OR (instances.rollout_id <> COALESCE(servers.serving_rollout_id, '') AND NOT EXISTS \
                   (SELECT 1 FROM rollouts WHERE rollouts.server_id = servers.id AND state = 'progressing' \
                   AND (rollouts.id = instances.rollout_id OR rollouts.from_rollout_id = instances.rollout_id)))) LIMIT $1";
        self.refs(sql, limit).await
    }

    /// Servers with instances that are to end on toolboxes that are lost, where nobody can observe their end.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn servers_ending_on_lost(&self, limit: u32) -> Result<Vec<ServerRef>> {
        let sql = "SELECT DISTINCT instances.organization_id AS organization_id, instances.server_id AS id FROM toolboxes \
                   JOIN instances ON instances.toolbox_id = toolboxes.id AND instances.ended_at IS NULL \
                   AND instances.desired = 'stop' \
                   WHERE toolboxes.lost_at IS NOT NULL AND toolboxes.state = 'unreachable' LIMIT $1";
        self.refs(sql, limit).await
    }

    /// Servers whose time of a scheduled restart has come.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn servers_to_restart(&self, now: Timestamp, limit: u32) -> Result<Vec<ServerRef>> {
        let sql = "SELECT organization_id, id FROM servers WHERE next_restart_at <= $1 AND NOT deleted \
                   ORDER BY next_restart_at LIMIT $2";
        read_refs(self.rows::<RefRow>(sql, [now.as_ms().into(), i64::from(limit).into()]).await?)
    }

    /// Servers of which a change was postponed, and that no rollout changes now.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn servers_with_postponed(&self, limit: u32) -> Result<Vec<ServerRef>> {
        let sql = "SELECT s.organization_id, s.id FROM servers s WHERE s.postponed IS NOT NULL AND s.enabled AND NOT s.deleted \
                   AND NOT EXISTS (SELECT 1 FROM rollouts o WHERE o.id = s.rollout_id AND o.state = 'progressing') \
                   ORDER BY s.id LIMIT $1";
        self.refs(sql, limit).await
    }

    async fn refs(&self, sql: &str, limit: u32) -> Result<Vec<ServerRef>> {
        read_refs(self.rows::<RefRow>(sql, [i64::from(limit).into()]).await?)
    }
}

pub(crate) fn read_refs(rows: Vec<RefRow>) -> Result<Vec<ServerRef>> {
    rows.into_iter()
        .map(|row| {
            Ok(ServerRef {
                organization: parse("servers.organization_id", &row.organization_id)?,
                server: parse("servers.id", &row.id)?,
            })
        })
        .collect()
}

/// A LIKE pattern that holds `text` as it is.
fn like(text: &str) -> String {
    let mut pattern = String::from("%");
    for character in text.chars().take(200) {
        if matches!(character, '%' | '_' | '!') {
            pattern.push('!');
        }
        pattern.extend(character.to_lowercase());
    }
    pattern.push('%');
    pattern
}
