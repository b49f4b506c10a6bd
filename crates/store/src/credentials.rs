//! Credentials: sealed secrets, and which servers use them.
//!
//! The store never sees a secret, only the vault's envelope. Which revision refers to which credential is
//! written beside the revision, so that "who uses it" is an indexed question.

use std::collections::{BTreeMap, BTreeSet};

use sea_orm::FromQueryResult;
use toolyard_types::api::identity::Credential;
use toolyard_types::spec::RevisionSpec;
use toolyard_types::{CredentialId, Name, RevisionId, ServerId, Timestamp};

use crate::instances::read_versions;
use crate::query::{PairRow, TextRow, count, parse, placeholders, to_i32};
use crate::{EventKind, OrgTx, Result, RevisionRow, StoreError};

/// A sealed secret with the version it was sealed for.
#[derive(Clone, Debug)]
pub struct SealedCredential {
    /// The credential.
    pub id: CredentialId,
    /// The version it was sealed for.
    pub version: u32,
    /// The vault's envelope.
    pub envelope: Vec<u8>,
}

#[derive(FromQueryResult)]
struct Row {
    id: String,
    name: String,
    description: String,
    version: i32,
    created_at: i64,
    updated_at: i64,
}

impl TryFrom<Row> for Credential {
    type Error = StoreError;
    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: parse("credentials.id", &row.id)?,
            name: parse("credentials.name", &row.name)?,
            description: row.description,
            version: count("credentials.version", i64::from(row.version))?,
            used_by: Vec::new(),
            outdated_in: None,
            unknown_in: None,
            unreadable: false,
            created_at: Timestamp::from_ms(row.created_at),
            updated_at: Timestamp::from_ms(row.updated_at),
        })
    }
}

#[derive(FromQueryResult)]
struct SealedRow {
    id: String,
    version: i32,
    sealed: Vec<u8>,
}

#[derive(FromQueryResult)]
struct UseRow {
    credential_id: String,
    server: String,
}

/// A running instance that may have a credential's secret.
#[derive(FromQueryResult)]
struct HolderRow {
    credential_id: String,
    revision_id: String,
    server: String,
    secret_versions: Option<String>,
    created_at: i64,
}

#[derive(FromQueryResult)]
struct VersionRow {
    id: String,
    name: String,
    version: i32,
}

const COLUMNS: &str = "id, name, description, version, created_at, updated_at";

#[derive(FromQueryResult)]
struct InputsRow {
    number: i32,
    text: String,
}

impl OrgTx {
    /// How many credentials there are.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn count_credentials(&self) -> Result<u64> {
        self.count_rows("credentials", "").await
    }

    /// Credentials by name after `after`, at most `limit`, with the servers that use them.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn credentials(&self, after: Option<&str>, limit: u32) -> Result<Vec<Credential>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM credentials WHERE organization_id = $1 AND name > $2 ORDER BY name LIMIT $3"
        );
        let values =
            [self.organization().to_string().into(), after.unwrap_or_default().into(), i64::from(limit).into()];
        let rows = self.rows::<Row>(sql, values).await?;
        self.with_uses(rows.into_iter().map(TryInto::try_into).collect::<Result<_>>()?).await
    }

    /// One credential, with the servers that use it.
    ///
    /// # Errors
    /// When the database fails or the row cannot be read.
    pub async fn credential_named(&self, name: &Name) -> Result<Option<Credential>> {
        let sql = format!("SELECT {COLUMNS} FROM credentials WHERE organization_id = $1 AND name = $2");
        let row = self.row::<Row>(sql, [self.organization().to_string().into(), name.as_str().into()]).await?;
        let found: Vec<Credential> = row.map(TryInto::try_into).transpose()?.into_iter().collect();
        Ok(self.with_uses(found).await?.pop())
    }

    async fn with_uses(&self, mut credentials: Vec<Credential>) -> Result<Vec<Credential>> {
        if credentials.is_empty() {
            return Ok(credentials);
        }
        let sql = format!(
            "SELECT DISTINCT u.credential_id, s.name AS server FROM revision_credentials u \
             JOIN revisions r ON r.id = u.revision_id \
             JOIN servers s ON s.id = r.server_id AND NOT s.deleted \
             LEFT JOIN rollouts o ON o.id = s.rollout_id AND o.state = 'progressing' \
             WHERE u.organization_id = $1 AND u.credential_id IN ({}) \
             AND (s.target_revision_id = r.id OR s.serving_revision_id = r.id OR o.from_revision_id = r.id \
             OR s.postponed LIKE '%' || r.id || '%') ORDER BY server",
            placeholders(2, credentials.len())
        );
        let mut values: Vec<sea_orm::Value> = vec![self.organization().to_string().into()];
        values.extend(credentials.iter().map(|credential| credential.id.to_string().into()));
        let mut uses: BTreeMap<String, Vec<Name>> = BTreeMap::new();
        for row in self.rows::<UseRow>(sql, values).await? {
            uses.entry(row.credential_id).or_default().push(parse("servers.name", &row.server)?);
        }
        for credential in &mut credentials {
            credential.used_by = uses.remove(&credential.id.to_string()).unwrap_or_default();
        }
        self.with_outdated(&mut credentials).await?;
        Ok(credentials)
    }

    /// Says which servers run with an older secret of these, and of which that is not known.
    async fn with_outdated(&self, credentials: &mut [Credential]) -> Result<()> {
        let sql = format!(
            "SELECT u.credential_id, u.revision_id, s.name AS server, i.secret_versions, i.created_at \
             FROM revision_credentials u \
             JOIN revisions r ON r.id = u.revision_id \
             JOIN servers s ON s.id = r.server_id AND NOT s.deleted \
             JOIN instances i ON i.server_id = r.server_id AND i.revision_id = r.id AND i.ended_at IS NULL \
             AND i.desired = 'run' AND (i.pid IS NOT NULL OR i.copies > 0) \
             WHERE u.organization_id = $1 AND u.credential_id IN ({})",
            placeholders(2, credentials.len())
        );
        let mut values: Vec<sea_orm::Value> = vec![self.organization().to_string().into()];
        values.extend(credentials.iter().map(|credential| credential.id.to_string().into()));
        let current: BTreeMap<_, _> = credentials.iter().map(|it| (it.id, (it.version, it.updated_at))).collect();
        let (mut outdated, mut untold) = (BTreeSet::new(), Vec::new());
        for row in self.rows::<HolderRow>(sql, values).await? {
            let id: CredentialId = parse("revision_credentials.credential_id", &row.credential_id)?;
            let server: Name = parse("servers.name", &row.server)?;
            let revision: RevisionId = parse("revision_credentials.revision_id", &row.revision_id)?;
            let Some((current, set_at)) = current.get(&id) else { continue };
            match read_versions(row.secret_versions.as_deref())?.get(&id) {
                Some(version) if version < current => {
                    outdated.insert((id, server));
                }
                Some(_) => {}
                // There was none before, or the instance was made after it was set: it has no older one.
                None if *current == 1 || Timestamp::from_ms(row.created_at) > *set_at => {}
                None => untold.push((id, server, revision)),
            }
        }
        // A registry's secret is not told either, and no process goes on with it.
        let revisions: BTreeSet<RevisionId> = untold.iter().map(|(.., revision)| *revision).collect();
        let revisions: Vec<_> = revisions.into_iter().collect();
        let of_one = |revision: RevisionRow| -> Vec<_> {
            let ids = revision.spec.runtime.started_with().flat_map(|value| value.credentials());
            ids.map(|id| (id, revision.id)).collect()
        };
        let started_with: BTreeSet<_> = self.map_revisions(&revisions, of_one).await?.into_iter().flatten().collect();
        let unknown: BTreeSet<_> = untold
            .into_iter()
            .filter(|(id, _, revision)| started_with.contains(&(*id, *revision)))
            .map(|(id, server, _)| (id, server))
            .filter(|known| !outdated.contains(known))
            .collect();
        for credential in credentials {
            let of = |set: &BTreeSet<(CredentialId, Name)>| {
                let of_it = set.iter().filter(|(id, _)| *id == credential.id);
                Some(of_it.map(|(_, server)| server.clone()).collect::<Vec<_>>())
            };
            (credential.outdated_in, credential.unknown_in) = (of(&outdated), of(&unknown));
        }
        Ok(())
    }

    /// The name and the current version of each of these credentials; unknown ones are left out.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn credential_versions(
        &self,
        ids: &BTreeSet<CredentialId>,
    ) -> Result<BTreeMap<CredentialId, (Name, u32)>> {
        let mut found = BTreeMap::new();
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        for chunk in ids.chunks(500) {
            let sql = format!(
                "SELECT id, name, version FROM credentials WHERE organization_id = $1 AND id IN ({})",
                placeholders(2, chunk.len())
            );
            let mut values: Vec<sea_orm::Value> = vec![self.organization().to_string().into()];
            values.extend(chunk.iter().map(|id| id.as_str().into()));
            for row in self.rows::<VersionRow>(sql, values).await? {
                let version = count("credentials.version", i64::from(row.version))?;
                found.insert(parse("credentials.id", &row.id)?, (parse("credentials.name", &row.name)?, version));
            }
        }
        Ok(found)
    }

    /// Locks a credential until this transaction ends, if there is one of this name: what is read after that of who uses it
    /// holds. SQLite has one writer, so it needs no lock.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn lock_credential(&self, name: &Name) -> Result<()> {
        let lock = self.for_update();
        let sql = format!("SELECT id AS text FROM credentials WHERE organization_id = $1 AND name = $2{lock}");
        self.row::<TextRow>(sql, [self.organization().to_string().into(), name.as_str().into()]).await?;
        Ok(())
    }

    /// Keeps credentials as they are until this transaction ends: whoever gives one another secret, or deletes it, waits
    /// ([`Self::lock_credential`]). SQLite has one writer, so it needs no lock.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn hold_credentials(&self, ids: &BTreeSet<CredentialId>) -> Result<()> {
        if ids.is_empty() || !self.is_postgres() {
            return Ok(());
        }
        let sql = format!(
            "SELECT id AS text FROM credentials WHERE organization_id = $1 AND id IN ({}) ORDER BY id FOR SHARE",
            placeholders(2, ids.len())
        );
        let mut values: Vec<sea_orm::Value> = vec![self.organization().to_string().into()];
        values.extend(ids.iter().map(|id| id.to_string().into()));
        self.rows::<TextRow>(sql, values).await?;
        Ok(())
    }

    /// Writes a new credential of version 1; one made from a server's input goes when the last server that
    /// refers to it goes.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] when the name is taken.
    pub async fn insert_credential(
        &mut self,
        id: CredentialId,
        name: &Name,
        description: &str,
        envelope: Vec<u8>,
        from_input: bool,
    ) -> Result<()> {
        let sql = "INSERT INTO credentials (id, organization_id, name, description, version, sealed, created_at, \
                   updated_at, from_input) VALUES ($1, $2, $3, $4, 1, $5, $6, $6, $7)";
        let values = [
            id.to_string().into(),
            self.organization().to_string().into(),
            name.as_str().into(),
            description.into(),
            envelope.into(),
            self.now().as_ms().into(),
            from_input.into(),
        ];
        self.execute(sql, values).await?;
        self.credential_changed(name, 1);
        Ok(())
    }

    /// Gives a credential another secret; `version` is the one it was sealed for.
    ///
    /// # Errors
    /// [`StoreError::Stale`] when somebody else changed it meanwhile.
    pub async fn update_credential(
        &mut self,
        credential: &Credential,
        description: &str,
        version: u32,
        envelope: Vec<u8>,
    ) -> Result<()> {
        let sql = "UPDATE credentials SET description = $4, version = $5, sealed = $6, updated_at = $7 \
                   WHERE organization_id = $1 AND id = $2 AND version = $3";
        let values = [
            self.organization().to_string().into(),
            credential.id.to_string().into(),
            to_i32(credential.version).into(),
            description.into(),
            to_i32(version).into(),
            envelope.into(),
            self.now().as_ms().into(),
        ];
        if self.execute(sql, values).await? == 0 {
            return Err(StoreError::Stale);
        }
        self.credential_changed(&credential.name, version);
        Ok(())
    }

    /// Forgets a credential and its secret.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete_credential(&mut self, credential: &Credential) -> Result<()> {
        let values = [self.organization().to_string().into(), credential.id.to_string().into()];
        self.execute("DELETE FROM credentials WHERE organization_id = $1 AND id = $2", values).await?;
        self.event(EventKind::CredentialDeleted, format!("credential/{}", credential.name), serde_json::json!({}));
        Ok(())
    }

    /// Forgets the credentials that were made from a server's inputs and that no other server's revisions
    /// refer to; part of removing the server. Who gives one to another server holds it ([`Self::hold_credentials`]): each is
    /// locked first, and who refers to it is looked at again after that.
    pub(crate) async fn delete_input_credentials(&mut self, server: ServerId) -> Result<()> {
        const ELSEWHERE: &str = "EXISTS (SELECT 1 FROM revision_credentials u JOIN revisions r ON r.id = u.revision_id \
                                 WHERE u.credential_id = credentials.id AND r.server_id <> $2)";
        let sql = format!(
            "SELECT id, name AS text FROM credentials WHERE organization_id = $1 AND from_input \
             AND EXISTS (SELECT 1 FROM revision_credentials u JOIN revisions r ON r.id = u.revision_id \
             WHERE u.credential_id = credentials.id AND r.server_id = $2) AND NOT {ELSEWHERE} ORDER BY id{}",
            self.for_update()
        );
        let (organization, server) = (self.organization().to_string(), server.to_string());
        let candidates = self.rows::<PairRow>(sql, [organization.clone().into(), server.clone().into()]).await?;
        let sql = format!("DELETE FROM credentials WHERE organization_id = $1 AND id = $3 AND NOT {ELSEWHERE}");
        for PairRow { id, text: name } in candidates {
            let values = [organization.clone().into(), server.clone().into(), id.into()];
            if self.execute(&sql, values).await? > 0 {
                self.event(EventKind::CredentialDeleted, format!("credential/{name}"), serde_json::json!({}));
            }
        }
        Ok(())
    }

    /// The credentials that were made from inputs and that of all revisions only these refer to, locked.
    pub(crate) async fn input_credentials_of(&self, revisions: &[String]) -> Result<Vec<PairRow>> {
        let these = placeholders(2, revisions.len());
        let sql = format!(
            "SELECT id, name AS text FROM credentials WHERE organization_id = $1 AND from_input \
             AND EXISTS (SELECT 1 FROM revision_credentials u \
             WHERE u.organization_id = $1 AND u.credential_id = credentials.id AND u.revision_id IN ({these})) \
             AND NOT EXISTS (SELECT 1 FROM revision_credentials u \
             WHERE u.organization_id = $1 AND u.credential_id = credentials.id AND u.revision_id NOT IN ({these})) \
             ORDER BY id{}",
            self.for_update()
        );
        let mut values: Vec<sea_orm::Value> = vec![self.organization().to_string().into()];
        values.extend(revisions.iter().map(|id| id.as_str().into()));
        self.rows(sql, values).await
    }

    /// Forgets those of these credentials that no revision refers to any more, nor what was asked for when one of the
    /// server's was made: an input that a revision does not use may be used by the next one.
    pub(crate) async fn delete_unused_input_credentials(
        &mut self,
        server: ServerId,
        credentials: Vec<PairRow>,
    ) -> Result<()> {
        if credentials.is_empty() {
            return Ok(());
        }
        // Their texts are read once, in parts: there may be as many of them as there are credentials.
        let mut unnamed: Vec<PairRow> = credentials;
        let mut after = 0_i64;
        loop {
            let sql = "SELECT number, inputs AS text FROM revisions WHERE organization_id = $1 AND server_id = $2 AND number > $3 \
                       ORDER BY number LIMIT 1";
            let values = [self.organization().to_string().into(), server.to_string().into(), after.into()];
            let Some(revision) = self.row::<InputsRow>(sql, values).await? else { break };
            after = i64::from(revision.number);
            unnamed.retain(|credential| !revision.text.contains(&credential.id));
        }
        let sql = "DELETE FROM credentials WHERE organization_id = $1 AND id = $2 AND NOT EXISTS \
                   (SELECT 1 FROM revision_credentials u WHERE u.organization_id = $1 AND u.credential_id = credentials.id)";
        for PairRow { id, text: name } in unnamed {
            let values = [self.organization().to_string().into(), id.into()];
            if self.execute(sql, values).await? > 0 {
                self.event(EventKind::CredentialDeleted, format!("credential/{name}"), serde_json::json!({}));
            }
        }
        Ok(())
    }

    fn credential_changed(&mut self, name: &Name, version: u32) {
        self.event(
            EventKind::CredentialChanged,
            format!("credential/{name}"),
            serde_json::json!({ "version": version }),
        );
    }

    /// The sealed secrets of these credentials; unknown ones are left out.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn sealed_credentials(&self, ids: &BTreeSet<CredentialId>) -> Result<Vec<SealedCredential>> {
        let mut found = Vec::with_capacity(ids.len());
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        for chunk in ids.chunks(500) {
            let sql = format!(
                "SELECT id, version, sealed FROM credentials WHERE organization_id = $1 AND id IN ({})",
                placeholders(2, chunk.len())
            );
            let mut values: Vec<sea_orm::Value> = vec![self.organization().to_string().into()];
            values.extend(chunk.iter().map(|id| id.as_str().into()));
            for row in self.rows::<SealedRow>(sql, values).await? {
                found.push(SealedCredential {
                    id: parse("credentials.id", &row.id)?,
                    version: count("credentials.version", i64::from(row.version))?,
                    envelope: row.sealed,
                });
            }
        }
        Ok(found)
    }

    /// The first bytes of the envelopes of these credentials; unknown ones are left out.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn envelope_heads(
        &self,
        ids: &BTreeSet<CredentialId>,
        length: u32,
    ) -> Result<BTreeMap<CredentialId, Vec<u8>>> {
        let mut found = BTreeMap::new();
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        for chunk in ids.chunks(500) {
            let sql = format!(
                "SELECT id, version, substr(sealed, 1, {length}) AS sealed FROM credentials \
                 WHERE organization_id = $1 AND id IN ({})",
                placeholders(2, chunk.len())
            );
            let mut values: Vec<sea_orm::Value> = vec![self.organization().to_string().into()];
            values.extend(chunk.iter().map(|id| id.as_str().into()));
            for row in self.rows::<SealedRow>(sql, values).await? {
                found.insert(parse("credentials.id", &row.id)?, row.sealed);
            }
        }
        Ok(found)
    }

    /// The ids of credentials by name; unknown ones are left out.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn credential_ids(&self) -> Result<BTreeMap<Name, CredentialId>> {
        #[derive(FromQueryResult)]
        struct Pair {
            id: String,
            name: String,
        }
        let sql = "SELECT id, name FROM credentials WHERE organization_id = $1";
        let rows = self.rows::<Pair>(sql, [self.organization().to_string().into()]).await?;
        rows.into_iter()
            .map(|row| Ok((parse("credentials.name", &row.name)?, parse("credentials.id", &row.id)?)))
            .collect()
    }

    /// Notes which credentials a revision refers to; part of writing one.
    pub(crate) async fn note_credential_uses(&self, revision: RevisionId, spec: &RevisionSpec) -> Result<()> {
        let ids: BTreeSet<CredentialId> = spec.runtime.values().flat_map(|value| value.credentials()).collect();
        for id in ids {
            let sql = "INSERT INTO revision_credentials (organization_id, revision_id, credential_id) \
                       VALUES ($1, $2, $3)";
            let values = [self.organization().to_string().into(), revision.to_string().into(), id.to_string().into()];
            self.execute(sql, values).await?;
        }
        Ok(())
    }
}

impl crate::SystemTx {
    /// Whether any organization has a credential.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn any_credential(&self) -> Result<bool> {
        Ok(self.row::<TextRow>("SELECT id AS text FROM credentials LIMIT 1", []).await?.is_some())
    }
}
