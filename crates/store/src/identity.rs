//! Organizations, users, memberships, sessions and API keys.
//!
//! Who somebody is must be found before their organization is known, so look-ups by e-mail address, session
//! token and key are on [`SystemTx`]; everything else is inside one organization. Tokens and keys are
//! stored only as SHA-256.

use std::collections::{HashMap, HashSet};

use sea_orm::FromQueryResult;
use serde::Deserialize;
use toolyard_types::access::{Action, Actor, KeyScope, Role};
use toolyard_types::api::identity::{ApiKey, Member, Organization};
use toolyard_types::snapshot::KeyGrant;
use toolyard_types::{ApiKeyId, Name, OrganizationId, SessionId, Timestamp, UserId};

use crate::query::{PairRow, TextRow, json, parse, parse_option};
use crate::{EventKind, OrgTx, Result, StoreError, SystemTx};

/// The most members or keys one list reads.
const LIST_LIMIT: i64 = 1000;

/// A person with what is needed to check a password.
#[derive(Clone, Debug)]
pub struct User {
    /// Their id.
    pub id: UserId,
    /// Their e-mail address, lower case.
    pub email: String,
    /// Argon2id in PHC form.
    pub password_hash: String,
    /// Whether Toolyard made the password up and it is still the same.
    pub password_generated: bool,
}

/// A membership of a person.
#[derive(Clone, Debug)]
pub struct Membership {
    /// Where.
    pub organization: OrganizationId,
    /// Its name.
    pub organization_name: Name,
    /// As what.
    pub role: Role,
}

/// A session with whom it belongs to.
#[derive(Clone, Debug)]
pub struct SignedIn {
    /// The session.
    pub session: SessionId,
    /// The person.
    pub user: UserId,
    /// Their e-mail address.
    pub email: String,
    /// Where they are a member.
    pub membership: Membership,
    /// When it ends.
    pub expires_at: Timestamp,
    /// When its use was last written.
    pub last_seen_at: Timestamp,
    /// When the password was given last.
    pub authenticated_at: Timestamp,
    /// Whether the person's password is still the one that Toolyard made up.
    pub password_generated: bool,
}

/// A session to be written.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// Its id.
    pub id: SessionId,
    /// The person.
    pub user: UserId,
    /// SHA-256 of the token, in hex.
    pub token_hash: String,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// A key of a session to be written: good for MCP only, and for no longer than the session.
#[derive(Clone, Debug)]
pub struct NewSessionKey {
    /// Its id.
    pub id: ApiKeyId,
    /// The session it belongs to.
    pub session: SessionId,
    /// SHA-256 of the key, in hex.
    pub hash: String,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// An API key to be written.
#[derive(Clone, Debug)]
pub struct NewApiKey {
    /// Its id.
    pub id: ApiKeyId,
    /// Its name.
    pub name: Name,
    /// The first characters, to recognise it.
    pub prefix: String,
    /// SHA-256 of the key, in hex.
    pub hash: String,
    /// Its role.
    pub role: Role,
    /// What it is narrowed to.
    pub scope: Option<KeyScope>,
    /// Who made it.
    pub created_by: String,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
}

/// A key that is good now.
#[derive(Clone, Debug)]
pub struct FoundKey {
    /// What it may do.
    pub grant: KeyGrant,
    /// Whether it has another secret by now, and this one works only for a while.
    pub superseded: bool,
}

/// Another secret for an API key.
#[derive(Clone, Debug)]
pub struct KeyRotation {
    /// The first characters of the new secret.
    pub prefix: String,
    /// SHA-256 of it, in hex.
    pub hash: String,
    /// Until when the secret before works too; it ends at once when absent.
    pub previous_ends_at: Option<Timestamp>,
    /// When the key ends.
    pub expires_at: Option<Timestamp>,
}

#[derive(FromQueryResult)]
struct OrganizationRow {
    id: String,
    name: String,
    created_at: i64,
}

impl TryFrom<OrganizationRow> for Organization {
    type Error = StoreError;
    fn try_from(row: OrganizationRow) -> Result<Self> {
        Ok(Self {
            id: parse("organizations.id", &row.id)?,
            name: parse("organizations.name", &row.name)?,
            created_at: Timestamp::from_ms(row.created_at),
        })
    }
}

#[derive(FromQueryResult)]
struct UserRow {
    id: String,
    email: String,
    password_hash: String,
    password_generated: bool,
    organization_id: String,
    organization_name: String,
    role: String,
}

#[derive(FromQueryResult)]
struct MembershipRow {
    organization_id: String,
    organization_name: String,
    role: String,
}

impl TryFrom<MembershipRow> for Membership {
    type Error = StoreError;
    fn try_from(row: MembershipRow) -> Result<Self> {
        Ok(Self {
            organization: parse("memberships.organization_id", &row.organization_id)?,
            organization_name: parse("organizations.name", &row.organization_name)?,
            role: role("memberships.role", &row.role)?,
        })
    }
}

#[derive(FromQueryResult)]
struct SessionRow {
    id: String,
    user_id: String,
    email: String,
    organization_id: String,
    organization_name: String,
    role: String,
    expires_at: i64,
    last_seen_at: i64,
    authenticated_at: i64,
    password_generated: bool,
}

#[derive(FromQueryResult)]
struct MemberRow {
    id: String,
    email: String,
    role: String,
    created_at: i64,
    last_sign_in_at: Option<i64>,
}

impl TryFrom<MemberRow> for Member {
    type Error = StoreError;
    fn try_from(row: MemberRow) -> Result<Self> {
        Ok(Self {
            id: parse("users.id", &row.id)?,
            email: row.email,
            role: role("memberships.role", &row.role)?,
            created_at: Timestamp::from_ms(row.created_at),
            last_sign_in_at: row.last_sign_in_at.map(Timestamp::from_ms),
        })
    }
}

#[derive(FromQueryResult)]
struct KeyRow {
    id: String,
    name: String,
    prefix: String,
    role: String,
    scope: Option<String>,
    created_by: String,
    created_at: i64,
    expires_at: Option<i64>,
    last_used_at: Option<i64>,
    revoked_at: Option<i64>,
    rotated_at: Option<i64>,
    previous_ends_at: Option<i64>,
}

impl TryFrom<KeyRow> for ApiKey {
    type Error = StoreError;
    fn try_from(row: KeyRow) -> Result<Self> {
        Ok(Self {
            id: parse("api_keys.id", &row.id)?,
            name: parse("api_keys.name", &row.name)?,
            prefix: row.prefix,
            role: role("api_keys.role", &row.role)?,
            scope: row.scope.as_deref().map(scope).transpose()?,
            parent: parent_of(&row.created_by),
            created_by: row.created_by,
            created_at: Timestamp::from_ms(row.created_at),
            expires_at: row.expires_at.map(Timestamp::from_ms),
            last_used_at: row.last_used_at.map(Timestamp::from_ms),
            revoked_at: row.revoked_at.map(Timestamp::from_ms),
            rotated_at: row.rotated_at.map(Timestamp::from_ms),
            previous_ends_at: row.previous_ends_at.map(Timestamp::from_ms),
        })
    }
}

#[derive(FromQueryResult)]
struct GrantRow {
    hash: String,
    id: String,
    name: String,
    organization_id: String,
    organization_name: String,
    role: String,
    scope: Option<String>,
    expires_at: Option<i64>,
    member: Option<String>,
}

impl GrantRow {
    fn into_grant(self) -> Result<(String, KeyGrant)> {
        let grant = KeyGrant {
            id: parse("api_keys.id", &self.id)?,
            name: self.name,
            organization: parse("api_keys.organization_id", &self.organization_id)?,
            organization_name: parse("organizations.name", &self.organization_name)?,
            role: role("api_keys.role", &self.role)?,
            scope: self.scope.as_deref().map(scope).transpose()?,
            expires_at: self.expires_at.map(Timestamp::from_ms),
            member: parse_option("sessions.user_id", self.member.as_deref())?,
            share_of: None,
        };
        Ok((self.hash, grant))
    }
}

#[derive(FromQueryResult)]
struct MakerRow {
    id: String,
    created_by: String,
    role: String,
}

impl MakerRow {
    fn is_administrator(&self) -> bool {
        [Role::Owner, Role::Admin].iter().any(|role| role.as_str() == self.role)
    }
}

/// Who made keys.
struct Makers {
    keys: HashMap<String, MakerRow>,
    /// The ids of organization and member, joined.
    administrators: HashSet<String>,
}

impl Makers {
    /// Whose share a key uses up, if not its own: up the chain until a maker is an administrator, who makes keys for
    /// others, or nobody made it.
    fn share_of(&self, grant: &KeyGrant) -> Option<Actor> {
        if grant.member.is_some() {
            return None;
        }
        let mut of = None;
        let mut key = self.keys.get(&grant.id.to_string());
        // A key is made before those that it makes, so this ends; the number only bounds it.
        for _ in 0..=self.keys.len() {
            let made_by = key.map(|key| key.created_by.as_str()).unwrap_or_default();
            if let Some(parent) = parent_of(made_by) {
                key = self.keys.get(&parent.to_string());
                if key.is_some_and(MakerRow::is_administrator) {
                    return of;
                }
                of = Some(Actor::ApiKey(parent));
            } else if let Some(user) = made_by.strip_prefix("user:").and_then(|id| id.parse::<UserId>().ok()) {
                let administers = self.administrators.contains(&format!("{}{user}", grant.organization));
                return if administers { of } else { Some(Actor::User(user)) };
            } else {
                return of;
            }
        }
        of
    }
}

const GRANTS: &str = "SELECT k.hash, k.id, k.name, k.organization_id, o.name AS organization_name, k.role, k.scope, \
                      k.expires_at, CAST(NULL AS TEXT) AS member FROM api_keys k JOIN organizations o ON o.id = k.organization_id \
                      WHERE k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > $1)";

/// Secrets that keys had before they got another one, for as long as they work too.
const PREVIOUS_GRANTS: &str = "SELECT k.previous_hash AS hash, k.id, k.name, k.organization_id, \
                               o.name AS organization_name, k.role, k.scope, k.previous_ends_at AS expires_at, \
                               CAST(NULL AS TEXT) AS member FROM api_keys k \
                               JOIN organizations o ON o.id = k.organization_id \
                               WHERE k.revoked_at IS NULL AND k.previous_ends_at > $1";

/// Keys of sessions: with the role that the member has now, for as long as session and membership last.
const SESSION_GRANTS: &str = "SELECT k.hash, k.id, COALESCE(m.email, u.email) AS name, k.organization_id, o.name AS organization_name, \
                              m.role, CAST(NULL AS TEXT) AS scope, k.expires_at, s.user_id AS member \
                              FROM session_keys k JOIN sessions s ON s.id = k.session_id \
                              JOIN users u ON u.id = s.user_id JOIN organizations o ON o.id = k.organization_id \
                              JOIN memberships m ON m.organization_id = k.organization_id AND m.user_id = s.user_id \
                              WHERE k.expires_at > $1 AND s.expires_at > $1";

/// What `users.email` holds for person $1 with address $2. Nodes of an earlier version sign people in by it, and it is
/// unique over all organizations, which an address is not: the second one to have it is known by their id there.
const UNIQUE_EMAIL: &str = "CASE WHEN EXISTS (SELECT 1 FROM users WHERE email = $2 AND id <> $1) THEN $1 ELSE $2 END";

const PEOPLE: &str = "SELECT u.id, COALESCE(m.email, u.email) AS email, u.password_hash, u.password_generated, \
                      m.organization_id, o.name AS organization_name, m.role FROM memberships m \
                      JOIN users u ON u.id = m.user_id JOIN organizations o ON o.id = m.organization_id";

const KEYS: &str = "SELECT id, name, prefix, role, scope, created_by, created_at, expires_at, last_used_at, revoked_at, \
                    rotated_at, previous_ends_at FROM api_keys WHERE organization_id = $1";

/// The ids of the keys that somebody (`$2`) made, and of those made with these.
const MADE_BY: &str = "WITH RECURSIVE made (id) AS (\
                       SELECT id FROM api_keys WHERE organization_id = $1 AND created_by = $2 \
                       UNION SELECT k.id FROM api_keys k JOIN made ON k.created_by = 'api_key:' || made.id \
                       WHERE k.organization_id = $1) SELECT id FROM made";

/// Who made a key (`$2`), who made the key that it was made with, and so on.
const MAKERS: &str = "WITH RECURSIVE makers (maker) AS (\
                      SELECT created_by FROM api_keys WHERE organization_id = $1 AND id = $2 \
                      UNION SELECT k.created_by FROM api_keys k JOIN makers ON k.id = substr(makers.maker, 9) \
                      WHERE k.organization_id = $1 AND makers.maker LIKE 'api_key:%') SELECT maker AS text FROM makers";

impl SystemTx {
    /// Every organization, oldest first.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn organizations(&self) -> Result<Vec<Organization>> {
        let sql = "SELECT id, name, created_at FROM organizations ORDER BY created_at, id";
        self.rows::<OrganizationRow>(sql, []).await?.into_iter().map(TryInto::try_into).collect()
    }

    /// The organization of a name.
    ///
    /// # Errors
    /// When the database fails or the row cannot be read.
    pub async fn organization_by_name(&self, name: &Name) -> Result<Option<Organization>> {
        let sql = "SELECT id, name, created_at FROM organizations WHERE name = $1";
        self.row::<OrganizationRow>(sql, [name.as_str().into()]).await?.map(TryInto::try_into).transpose()
    }

    /// Makes an organization.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] when the name is taken.
    pub async fn create_organization(&mut self, name: &Name) -> Result<Organization> {
        let organization = Organization { id: OrganizationId::generate(), name: name.clone(), created_at: self.now() };
        let values = [organization.id.to_string().into(), name.as_str().into(), organization.created_at.as_ms().into()];
        self.execute("INSERT INTO organizations (id, name, created_at) VALUES ($1, $2, $3)", values).await?;
        self.event(
            Some(organization.id),
            EventKind::OrganizationCreated,
            format!("organization/{name}"),
            serde_json::json!({}),
        );
        Ok(organization)
    }

    /// Whether any organization has an owner.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn any_owner(&self) -> Result<bool> {
        let sql = "SELECT organization_id, '' AS organization_name, role FROM memberships WHERE role = 'owner' LIMIT 1";
        Ok(self.row::<MembershipRow>(sql, []).await?.is_some())
    }

    /// The member with an e-mail address, which is compared in lower case, in the organization of that name or, without
    /// one, where this address has been a member longest. An address is one person's only within an organization.
    ///
    /// # Errors
    /// When the database fails or the row cannot be read.
    pub async fn member_by_email(&self, email: &str, organization: Option<&str>) -> Result<Option<(User, Membership)>> {
        // A node of an earlier version writes no address into the membership.
        let sql = format!(
            "{PEOPLE} WHERE (m.email = $1 OR m.email IS NULL AND u.email = $1) AND o.name = COALESCE($2, o.name) \
             ORDER BY m.created_at, m.organization_id LIMIT 1"
        );
        let values = [email.to_lowercase().into(), organization.map(str::to_owned).into()];
        self.row::<UserRow>(&sql, values).await?.map(UserRow::into_member).transpose()
    }

    /// Who has been an owner longest.
    ///
    /// # Errors
    /// When the database fails or the row cannot be read.
    pub async fn first_owner(&self) -> Result<Option<(User, Membership)>> {
        let sql = format!("{PEOPLE} WHERE m.role = 'owner' ORDER BY m.created_at, u.id LIMIT 1");
        self.row::<UserRow>(&sql, []).await?.map(UserRow::into_member).transpose()
    }

    /// The session of a token's SHA-256, unless it has ended.
    ///
    /// # Errors
    /// When the database fails or the row cannot be read.
    pub async fn session_by_token_hash(&self, token_hash: &str) -> Result<Option<SignedIn>> {
        let sql = "SELECT s.id, s.user_id, COALESCE(m.email, u.email) AS email, s.organization_id, o.name AS organization_name, m.role, \
                   s.expires_at, s.last_seen_at, COALESCE(s.authenticated_at, s.created_at) AS authenticated_at, \
                   u.password_generated FROM sessions s \
                   JOIN users u ON u.id = s.user_id \
                   JOIN organizations o ON o.id = s.organization_id \
                   JOIN memberships m ON m.organization_id = s.organization_id AND m.user_id = s.user_id \
                   WHERE s.token_hash = $1 AND s.expires_at > $2";
        let row = self.row::<SessionRow>(sql, [token_hash.into(), self.now().as_ms().into()]).await?;
        row.map(SessionRow::into_signed_in).transpose()
    }

    /// Forgets sessions and their keys that have ended.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete_ended_sessions(&self) -> Result<u64> {
        let now = || [self.now().as_ms().into()];
        self.execute("DELETE FROM session_keys WHERE expires_at <= $1", now()).await?;
        self.execute("DELETE FROM sessions WHERE expires_at <= $1", now()).await
    }

    /// The grant of a key's SHA-256, unless it was revoked or has ended.
    ///
    /// # Errors
    /// When the database fails or the row cannot be read.
    pub async fn key_grant_by_hash(&self, hash: &str) -> Result<Option<FoundKey>> {
        let values = || [self.now().as_ms().into(), hash.into()];
        let sql = format!("{GRANTS} AND k.hash = $2");
        let (row, superseded) = match self.row::<GrantRow>(&sql, values()).await? {
            Some(row) => (Some(row), false),
            None => {
                let sql = format!("{PREVIOUS_GRANTS} AND k.previous_hash = $2");
                (self.row::<GrantRow>(&sql, values()).await?, true)
            }
        };
        let found = row.map(GrantRow::into_grant).transpose()?;
        Ok(found.map(|(_, grant)| FoundKey { grant, superseded }))
    }

    /// Every key that is good now, those of sessions too, with its SHA-256, for the gateway's snapshot. One that cannot
    /// be read, such as one that a newer version narrowed in words unknown here, is good for nothing here and takes none
    /// of the others with it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn key_grants(&self) -> Result<Vec<(String, KeyGrant)>> {
        let now = || [self.now().as_ms().into()];
        let mut rows = self.rows::<GrantRow>(GRANTS, now()).await?;
        rows.extend(self.rows::<GrantRow>(PREVIOUS_GRANTS, now()).await?);
        rows.extend(self.rows::<GrantRow>(SESSION_GRANTS, now()).await?);
        let makers = self.makers().await?;
        let read = |row: GrantRow| {
            let id = row.id.clone();
            let unreadable = |error: &StoreError| {
                tracing::warn!(
                    key = id,
                    error = error as &dyn std::error::Error,
                    "a key cannot be read, and is refused"
                );
            };
            let (hash, grant) = row.into_grant().inspect_err(unreadable).ok()?;
            let share_of = makers.share_of(&grant);
            Some((hash, KeyGrant { share_of, ..grant }))
        };
        Ok(rows.into_iter().filter_map(read).collect())
    }

    async fn makers(&self) -> Result<Makers> {
        // Keys that have ended too: what they made lives on.
        let keys = "SELECT id, created_by, role FROM api_keys";
        let keys = self.rows::<MakerRow>(keys, []).await?.into_iter();
        let members = "SELECT organization_id || user_id AS id, '' AS created_by, role FROM memberships";
        let members = self.rows::<MakerRow>(members, []).await?.into_iter();
        Ok(Makers {
            keys: keys.map(|row| (row.id.clone(), row)).collect(),
            administrators: members.filter(MakerRow::is_administrator).map(|row| row.id).collect(),
        })
    }

    /// Writes when keys were last used; an older time never replaces a newer one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn touch_api_keys(&self, uses: &[(ApiKeyId, Timestamp)]) -> Result<()> {
        let sql = "UPDATE api_keys SET last_used_at = $2 WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $2)";
        for (id, at) in uses {
            self.execute(sql, [id.to_string().into(), at.as_ms().into()]).await?;
        }
        Ok(())
    }
}

/// What narrows a key. What this version does not know would narrow it too: it is no scope that can be kept here.
fn scope(text: &str) -> Result<KeyScope> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Known {
        #[serde(default)]
        actions: Vec<Action>,
        #[serde(default)]
        resources: Vec<Name>,
        #[serde(default)]
        credentials: Vec<Name>,
    }
    let Known { actions, resources, credentials } = json("api_keys.scope", text)?;
    Ok(KeyScope { actions, resources, credentials })
}

impl UserRow {
    fn into_member(self) -> Result<(User, Membership)> {
        let user = User {
            id: parse("users.id", &self.id)?,
            email: self.email,
            password_hash: self.password_hash,
            password_generated: self.password_generated,
        };
        let membership = Membership {
            organization: parse("memberships.organization_id", &self.organization_id)?,
            organization_name: parse("organizations.name", &self.organization_name)?,
            role: role("memberships.role", &self.role)?,
        };
        Ok((user, membership))
    }
}

impl SessionRow {
    fn into_signed_in(self) -> Result<SignedIn> {
        Ok(SignedIn {
            session: parse("sessions.id", &self.id)?,
            user: parse("sessions.user_id", &self.user_id)?,
            email: self.email,
            membership: Membership {
                organization: parse("sessions.organization_id", &self.organization_id)?,
                organization_name: parse("organizations.name", &self.organization_name)?,
                role: role("memberships.role", &self.role)?,
            },
            expires_at: Timestamp::from_ms(self.expires_at),
            last_seen_at: Timestamp::from_ms(self.last_seen_at),
            authenticated_at: Timestamp::from_ms(self.authenticated_at),
            password_generated: self.password_generated,
        })
    }
}

impl OrgTx {
    /// The members, by e-mail address.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn members(&self) -> Result<Vec<Member>> {
        let sql = "SELECT u.id, COALESCE(m.email, u.email) AS email, m.role, m.created_at, u.last_sign_in_at \
                   FROM memberships m JOIN users u ON u.id = m.user_id WHERE m.organization_id = $1 \
                   ORDER BY email LIMIT $2";
        let values = [self.organization().to_string().into(), LIST_LIMIT.into()];
        self.rows::<MemberRow>(sql, values).await?.into_iter().map(TryInto::try_into).collect()
    }

    /// One member.
    ///
    /// # Errors
    /// When the database fails or the row cannot be read.
    pub async fn member(&self, user: UserId) -> Result<Option<Member>> {
        let sql = "SELECT u.id, COALESCE(m.email, u.email) AS email, m.role, m.created_at, u.last_sign_in_at \
                   FROM memberships m JOIN users u ON u.id = m.user_id \
                   WHERE m.organization_id = $1 AND m.user_id = $2";
        let values = [self.organization().to_string().into(), user.to_string().into()];
        self.row::<MemberRow>(sql, values).await?.map(TryInto::try_into).transpose()
    }

    /// Makes a person and their membership here.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] when a member here has the e-mail address.
    pub async fn create_member(&mut self, email: &str, password_hash: &str, role: Role) -> Result<Member> {
        let (id, now) = (UserId::generate(), self.now());
        let email = email.to_lowercase();
        self.check_email_is_free(&email, id).await?;
        let sql =
            format!("INSERT INTO users (id, email, password_hash, created_at) VALUES ($1, {UNIQUE_EMAIL}, $3, $4)");
        let values = [id.to_string().into(), email.clone().into(), password_hash.into(), now.as_ms().into()];
        self.execute(&sql, values).await?;
        let sql = "INSERT INTO memberships (organization_id, user_id, role, created_at, email) \
                   VALUES ($1, $2, $3, $4, $5)";
        let organization = self.organization().to_string();
        let values = [
            organization.into(),
            id.to_string().into(),
            role.as_str().into(),
            now.as_ms().into(),
            email.clone().into(),
        ];
        self.execute(sql, values).await?;
        self.event(EventKind::MemberChanged, format!("member/{id}"), serde_json::json!({}));
        Ok(Member { id, email, role, created_at: now, last_sign_in_at: None })
    }

    /// The index of memberships does not know addresses that a node of an earlier version wrote.
    async fn check_email_is_free(&self, email: &str, of: UserId) -> Result<()> {
        let sql = "SELECT u.email AS text FROM memberships m JOIN users u ON u.id = m.user_id \
                   WHERE m.organization_id = $1 AND COALESCE(m.email, u.email) = $2 AND m.user_id <> $3 LIMIT 1";
        let values = [self.organization().to_string().into(), email.into(), of.to_string().into()];
        match self.row::<TextRow>(sql, values).await? {
            Some(_) => Err(StoreError::AlreadyExists),
            None => Ok(()),
        }
    }

    /// The password hash of a member, in PHC form. In a transaction that writes it stays so until the end.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn member_password(&self, user: UserId) -> Result<Option<String>> {
        let lock = self.for_update();
        let sql = format!(
            "SELECT password_hash AS text FROM users WHERE id = $2 AND EXISTS \
             (SELECT 1 FROM memberships WHERE organization_id = $1 AND user_id = $2){lock}"
        );
        let values = [self.organization().to_string().into(), user.to_string().into()];
        Ok(self.row::<TextRow>(&sql, values).await?.map(|row| row.text))
    }

    /// Gives a member another role; `false` when there is no such member.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_member_role(&mut self, user: UserId, role: Role) -> Result<bool> {
        let sql = "UPDATE memberships SET role = $3 WHERE organization_id = $1 AND user_id = $2";
        let values = [self.organization().to_string().into(), user.to_string().into(), role.as_str().into()];
        let changed = self.execute(sql, values).await? > 0;
        self.event(EventKind::MemberChanged, format!("member/{user}"), serde_json::json!({}));
        Ok(changed)
    }

    /// Gives a member another password and ends their sessions; `false` when there is no such member.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_member_password(&mut self, user: UserId, password_hash: &str) -> Result<bool> {
        let sql = "UPDATE users SET password_hash = $3, password_generated = FALSE WHERE id = $2 AND EXISTS \
                   (SELECT 1 FROM memberships WHERE organization_id = $1 AND user_id = $2)";
        let values = [self.organization().to_string().into(), user.to_string().into(), password_hash.into()];
        let changed = self.execute(sql, values).await? > 0;
        if changed {
            self.execute("DELETE FROM sessions WHERE user_id = $1", [user.to_string().into()]).await?;
            // Keys of these sessions went with them: gateways must hear of it.
            self.event(EventKind::SessionChanged, format!("member/{user}"), serde_json::json!({}));
        }
        Ok(changed)
    }

    /// Notes that Toolyard made up a member's password: they are asked for one of their own.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn note_generated_password(&self, user: UserId) -> Result<()> {
        let sql = "UPDATE users SET password_generated = TRUE WHERE id = $2 AND EXISTS \
                   (SELECT 1 FROM memberships WHERE organization_id = $1 AND user_id = $2)";
        let values = [self.organization().to_string().into(), user.to_string().into()];
        self.execute(sql, values).await?;
        Ok(())
    }

    /// Gives a member another e-mail address; `false` when there is no such member.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] when another member here has it.
    pub async fn set_member_email(&mut self, user: UserId, email: &str) -> Result<bool> {
        let email = email.to_lowercase();
        self.check_email_is_free(&email, user).await?;
        let sql = "UPDATE memberships SET email = $3 WHERE organization_id = $1 AND user_id = $2";
        let values = [self.organization().to_string().into(), user.to_string().into(), email.clone().into()];
        let changed = self.execute(sql, values).await? > 0;
        if changed {
            let sql = format!("UPDATE users SET email = {UNIQUE_EMAIL} WHERE id = $1");
            self.execute(&sql, [user.to_string().into(), email.into()]).await?;
            self.event(EventKind::MemberChanged, format!("member/{user}"), serde_json::json!({}));
        }
        Ok(changed)
    }

    /// Removes a member and their sessions here, and the person when this was their last membership;
    /// `false` when there is no such member.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete_member(&mut self, user: UserId) -> Result<bool> {
        let key = || [self.organization().to_string().into(), user.to_string().into()];
        self.execute("DELETE FROM sessions WHERE organization_id = $1 AND user_id = $2", key()).await?;
        let sql = "DELETE FROM memberships WHERE organization_id = $1 AND user_id = $2";
        if self.execute(sql, key()).await? == 0 {
            return Ok(false);
        }
        let sql = "DELETE FROM users WHERE id = $1 AND NOT EXISTS (SELECT 1 FROM memberships WHERE user_id = $1)";
        self.execute(sql, [user.to_string().into()]).await?;
        self.event(EventKind::MemberChanged, format!("member/{user}"), serde_json::json!({}));
        Ok(true)
    }

    /// How many owners there are. Taken under the write lock of this transaction on SQLite; on Postgres the
    /// rows are locked, so that two owners cannot demote each other at once.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn owners(&self) -> Result<usize> {
        #[derive(FromQueryResult)]
        struct Row {
            #[expect(dead_code, reason = "the row is counted, its content is not needed")]
            user_id: String,
        }
        let lock = self.for_update();
        let sql = format!("SELECT user_id FROM memberships WHERE organization_id = $1 AND role = 'owner'{lock}");
        Ok(self.rows::<Row>(&sql, [self.organization().to_string().into()]).await?.len())
    }

    /// Writes a session and the time of this sign-in.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn create_session(&self, session: &NewSession) -> Result<()> {
        let now = self.now().as_ms();
        let sql = "INSERT INTO sessions (id, organization_id, user_id, token_hash, created_at, expires_at, last_seen_at) \
                   VALUES ($1, $2, $3, $4, $5, $6, $5)";
        let values = [
            session.id.to_string().into(),
            self.organization().to_string().into(),
            session.user.to_string().into(),
            session.token_hash.as_str().into(),
            now.into(),
            session.expires_at.as_ms().into(),
        ];
        self.execute(sql, values).await?;
        let values = [session.user.to_string().into(), now.into()];
        self.execute("UPDATE users SET last_sign_in_at = $2 WHERE id = $1", values).await?;
        Ok(())
    }

    /// Moves a session's end.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn extend_session(&self, session: SessionId, expires_at: Timestamp) -> Result<()> {
        let sql = "UPDATE sessions SET expires_at = $3, last_seen_at = $4 WHERE organization_id = $1 AND id = $2";
        let values = [
            self.organization().to_string().into(),
            session.to_string().into(),
            expires_at.as_ms().into(),
            self.now().as_ms().into(),
        ];
        self.execute(sql, values).await?;
        Ok(())
    }

    /// Notes that the password was given again in a session.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_session_authenticated(&self, session: SessionId) -> Result<()> {
        let sql = "UPDATE sessions SET authenticated_at = $3 WHERE organization_id = $1 AND id = $2";
        let now = self.now().as_ms();
        let values = [self.organization().to_string().into(), session.to_string().into(), now.into()];
        self.execute(sql, values).await?;
        Ok(())
    }

    /// The role of a session's member now, held until this transaction ends: neither the session nor the membership
    /// changes meanwhile. `None` when one of them has ended.
    ///
    /// # Errors
    /// When the database fails or the row cannot be read.
    pub async fn hold_session(&self, session: SessionId) -> Result<Option<Role>> {
        let lock = self.for_update();
        let sql = format!(
            "SELECT m.role AS text FROM sessions s JOIN memberships m ON m.organization_id = s.organization_id \
             AND m.user_id = s.user_id WHERE s.organization_id = $1 AND s.id = $2{lock}"
        );
        let values = [self.organization().to_string().into(), session.to_string().into()];
        let row = self.row::<TextRow>(&sql, values).await?;
        row.map(|row| role("memberships.role", &row.text)).transpose()
    }

    /// Whether a key is good now, held until this transaction ends: it is not revoked meanwhile.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn hold_api_key(&self, id: ApiKeyId) -> Result<bool> {
        let lock = self.for_update();
        let sql = format!(
            "SELECT id AS text FROM api_keys WHERE organization_id = $1 AND id = $2 AND revoked_at IS NULL \
             AND (expires_at IS NULL OR expires_at > $3){lock}"
        );
        let values = [self.organization().to_string().into(), id.to_string().into(), self.now().as_ms().into()];
        Ok(self.row::<TextRow>(&sql, values).await?.is_some())
    }

    /// Ends a session.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete_session(&mut self, session: SessionId) -> Result<()> {
        let (organization, id) = (self.organization().to_string(), session.to_string());
        let values = || [organization.clone().into(), id.clone().into()];
        let keys = "DELETE FROM session_keys WHERE organization_id = $1 AND session_id = $2";
        if self.execute(keys, values()).await? > 0 {
            self.session_event(session).await?;
        }
        self.execute("DELETE FROM sessions WHERE organization_id = $1 AND id = $2", values()).await?;
        Ok(())
    }

    /// Notes that something happened to a session that is still there, with whose it is: they hear of it in each of theirs.
    async fn session_event(&mut self, session: SessionId) -> Result<()> {
        let sql = "SELECT user_id AS text FROM sessions WHERE organization_id = $1 AND id = $2";
        let values = [self.organization().to_string().into(), session.to_string().into()];
        let member = self.row::<TextRow>(sql, values).await?.map(|row| row.text);
        let data = serde_json::json!({ "member": member });
        self.event(EventKind::SessionChanged, format!("session/{session}"), data);
        Ok(())
    }

    /// Writes a key of a session and forgets its oldest ones beyond `most`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn create_session_key(&mut self, key: &NewSessionKey, most: u32) -> Result<()> {
        let organization = self.organization().to_string();
        let sql = "INSERT INTO session_keys (id, session_id, organization_id, hash, created_at, expires_at) \
                   VALUES ($1, $2, $3, $4, $5, $6)";
        let values = [
            key.id.to_string().into(),
            key.session.to_string().into(),
            organization.clone().into(),
            key.hash.as_str().into(),
            self.now().as_ms().into(),
            key.expires_at.as_ms().into(),
        ];
        self.execute(sql, values).await?;
        let sql = "SELECT id AS text FROM session_keys WHERE organization_id = $1 AND session_id = $2 ORDER BY id DESC";
        let all = self.rows::<TextRow>(sql, [organization.clone().into(), key.session.to_string().into()]).await?;
        for surplus in all.into_iter().skip(usize::try_from(most).unwrap_or(usize::MAX)) {
            let sql = "DELETE FROM session_keys WHERE organization_id = $1 AND id = $2";
            self.execute(sql, [organization.clone().into(), surplus.text.into()]).await?;
        }
        self.session_event(key.session).await
    }

    /// The API keys after `after` (an id), newest last, at most `limit`; only those `made_by` somebody, and those made with
    /// these, when given; only those that are good now when `active`.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn api_keys(
        &self,
        after: Option<ApiKeyId>,
        made_by: Option<&str>,
        active: bool,
        limit: u32,
    ) -> Result<Vec<ApiKey>> {
        let sql = format!(
            "{KEYS} AND ($2 = '' OR id IN ({MADE_BY})) AND id > $3 \
             AND ($5 = 0 OR (revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $5))) ORDER BY id LIMIT $4"
        );
        let good_at = if active { self.now().as_ms() } else { 0 };
        let values = [
            self.organization().to_string().into(),
            made_by.unwrap_or_default().into(),
            after.map(|id| id.to_string()).unwrap_or_default().into(),
            i64::from(limit).into(),
            good_at.into(),
        ];
        self.rows::<KeyRow>(&sql, values).await?.into_iter().map(TryInto::try_into).collect()
    }

    /// Whether somebody made a key, or a key that it was made with.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn has_made_api_key(&self, maker: &str, id: ApiKeyId) -> Result<bool> {
        let sql =
            format!("SELECT id AS text FROM api_keys WHERE organization_id = $1 AND id = $3 AND id IN ({MADE_BY})");
        let values = [self.organization().to_string().into(), maker.into(), id.to_string().into()];
        Ok(self.row::<TextRow>(&sql, values).await?.is_some())
    }

    /// Whether there is a key that is good now and that the first start did not make.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn has_own_keys(&self) -> Result<bool> {
        let sql = "SELECT id AS text FROM api_keys WHERE organization_id = $1 AND revoked_at IS NULL \
                   AND (expires_at IS NULL OR expires_at > $2) AND created_by <> 'system:bootstrap' LIMIT 1";
        let values = [self.organization().to_string().into(), self.now().as_ms().into()];
        Ok(self.row::<TextRow>(sql, values).await?.is_some())
    }

    /// How these (`user:id`, `api_key:id`) are shown to people: by e-mail address or the key's name. Who is none of this
    /// organization is left out.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn actor_names(&self, actors: &[&str]) -> Result<HashMap<String, String>> {
        let of = |kind: &'static str| {
            actors.iter().filter_map(move |actor| actor.strip_prefix(kind)?.strip_prefix(':')).map(str::to_owned)
        };
        let keys = self.pairs("SELECT id, name AS text FROM api_keys", of("api_key")).await?;
        let members = "SELECT id, text FROM (SELECT m.organization_id, u.id, COALESCE(m.email, u.email) AS text FROM memberships m \
                       JOIN users u ON u.id = m.user_id) AS known";
        let members = self.pairs(members, of("user")).await?;
        let named = |kind: &'static str| move |row: PairRow| (format!("{kind}:{}", row.id), row.text);
        Ok(keys.into_iter().map(named("api_key")).chain(members.into_iter().map(named("user"))).collect())
    }

    /// One API key.
    ///
    /// # Errors
    /// When the database fails or the row cannot be read.
    pub async fn api_key(&self, id: ApiKeyId) -> Result<Option<ApiKey>> {
        let sql = format!("{KEYS} AND id = $2");
        let values = [self.organization().to_string().into(), id.to_string().into()];
        self.row::<KeyRow>(&sql, values).await?.map(TryInto::try_into).transpose()
    }

    /// The key of a SHA-256, also when it was revoked.
    ///
    /// # Errors
    /// When the database fails or the row cannot be read.
    pub async fn api_key_by_hash(&self, hash: &str) -> Result<Option<ApiKey>> {
        let sql = format!("{KEYS} AND hash = $2");
        let values = [self.organization().to_string().into(), hash.into()];
        self.row::<KeyRow>(&sql, values).await?.map(TryInto::try_into).transpose()
    }

    /// The keys of a name that are not revoked.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn active_api_keys_named(&self, name: &Name) -> Result<Vec<ApiKey>> {
        let sql = format!("{KEYS} AND name = $2 AND revoked_at IS NULL ORDER BY id");
        let values = [self.organization().to_string().into(), name.as_str().into()];
        self.rows::<KeyRow>(&sql, values).await?.into_iter().map(TryInto::try_into).collect()
    }

    /// How many keys there are that are not revoked and have not ended, and how many bytes what they are narrowed to takes.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn active_api_keys_size(&self) -> Result<(u64, u64)> {
        #[derive(FromQueryResult)]
        struct Size {
            keys: i64,
            bytes: i64,
        }
        let sql = "SELECT COUNT(*) AS keys, CAST(COALESCE(SUM(octet_length(scope)), 0) AS BIGINT) AS bytes FROM api_keys \
                   WHERE organization_id = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)";
        let values = [self.organization().to_string().into(), self.now().as_ms().into()];
        let size = self.row::<Size>(sql, values).await?;
        let count = |number: i64| u64::try_from(number).unwrap_or(0);
        Ok(size.map_or((0, 0), |size| (count(size.keys), count(size.bytes))))
    }

    /// Writes an API key.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] when the same key was stored before.
    pub async fn create_api_key(&mut self, key: &NewApiKey) -> Result<ApiKey> {
        let now = self.now();
        let scope = key.scope.as_ref().map(|scope| serde_json::json!(scope).to_string());
        let sql = "INSERT INTO api_keys (id, organization_id, name, prefix, hash, role, scope, created_by, created_at, \
                   expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
        let values = [
            key.id.to_string().into(),
            self.organization().to_string().into(),
            key.name.as_str().into(),
            key.prefix.as_str().into(),
            key.hash.as_str().into(),
            key.role.as_str().into(),
            scope.into(),
            key.created_by.as_str().into(),
            now.as_ms().into(),
            key.expires_at.map(Timestamp::as_ms).into(),
        ];
        self.execute(sql, values).await?;
        self.key_event(EventKind::ApiKeyChanged, key.id, serde_json::json!({ "name": key.name })).await?;
        Ok(ApiKey {
            id: key.id,
            name: key.name.clone(),
            prefix: key.prefix.clone(),
            role: key.role,
            scope: key.scope.clone(),
            parent: parent_of(&key.created_by),
            created_by: key.created_by.clone(),
            created_at: now,
            expires_at: key.expires_at,
            last_used_at: None,
            revoked_at: None,
            rotated_at: None,
            previous_ends_at: None,
        })
    }

    /// Gives an API key that is not revoked another secret; `false` when there is none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn rotate_api_key(&mut self, id: ApiKeyId, rotation: &KeyRotation) -> Result<bool> {
        let sql = "UPDATE api_keys SET previous_hash = hash, previous_ends_at = $5, hash = $3, prefix = $4, \
                   expires_at = $6, rotated_at = $7 WHERE organization_id = $1 AND id = $2 AND revoked_at IS NULL";
        let now = self.now();
        let values = [
            self.organization().to_string().into(),
            id.to_string().into(),
            rotation.hash.as_str().into(),
            rotation.prefix.as_str().into(),
            // What ends at once ends now: nothing is good at the moment it ends.
            rotation.previous_ends_at.unwrap_or(now).as_ms().into(),
            rotation.expires_at.map(Timestamp::as_ms).into(),
            now.as_ms().into(),
        ];
        let rotated = self.execute(sql, values).await? > 0;
        if rotated {
            self.key_event(EventKind::ApiKeyChanged, id, serde_json::json!({})).await?;
        }
        Ok(rotated)
    }

    /// Revokes an API key from now on; `false` when there is none or it was revoked before.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn revoke_api_key(&mut self, id: ApiKeyId) -> Result<bool> {
        let sql = "UPDATE api_keys SET revoked_at = $3 WHERE organization_id = $1 AND id = $2 AND revoked_at IS NULL";
        let values = [self.organization().to_string().into(), id.to_string().into(), self.now().as_ms().into()];
        let revoked = self.execute(sql, values).await? > 0;
        if revoked {
            self.key_event(EventKind::ApiKeyRevoked, id, serde_json::json!({})).await?;
        }
        Ok(revoked)
    }
}

impl OrgTx {
    /// Notes that something happened to a key, with who made it: they may hear of it, and readers of events need not look
    /// for them.
    async fn key_event(&mut self, kind: EventKind, id: ApiKeyId, mut data: serde_json::Value) -> Result<()> {
        let values = [self.organization().to_string().into(), id.to_string().into()];
        let makers = self.rows::<TextRow>(MAKERS, values).await?;
        data["made_by"] = makers.into_iter().map(|row| row.text).collect::<Vec<_>>().into();
        self.event(kind, format!("api_key/{id}"), data);
        Ok(())
    }

    /// Revokes the keys that somebody made that have more power than `keep`, all of them without it, and every key made
    /// with a key that is revoked. Tells which.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn revoke_api_keys_made_by(&mut self, maker: &str, keep: Option<Role>) -> Result<Vec<ApiKey>> {
        let sql = format!("{KEYS} AND created_by = $2");
        let mut revoked = Vec::new();
        let mut makers = vec![(maker.to_owned(), keep)];
        while let Some((maker, keep)) = makers.pop() {
            // A maker is revoked before its keys are read, so that it makes none meanwhile.
            let rows = self.rows::<KeyRow>(&sql, [self.organization().to_string().into(), maker.into()]).await?;
            for key in rows.into_iter().map(ApiKey::try_from).collect::<Result<Vec<_>>>()? {
                // Roles are ordered from most to least power.
                let ends = keep.is_none_or(|keep| key.role < keep);
                // A key that was revoked earlier may have made others.
                makers.push((Actor::ApiKey(key.id).to_string(), keep.filter(|_| !ends)));
                if ends && self.revoke_api_key(key.id).await? {
                    revoked.push(key);
                }
            }
        }
        Ok(revoked)
    }
}

impl OrgTx {
    /// Ends every key that was made with this one, and with those, at `end` at the latest. Tells how many end earlier now.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn end_api_keys_made_with(&mut self, id: ApiKeyId, end: Timestamp) -> Result<u64> {
        let sql = "UPDATE api_keys SET expires_at = $3 WHERE organization_id = $1 AND id = $2 AND revoked_at IS NULL";
        let (mut makers, mut ended) = (vec![id], 0);
        while let Some(maker) = makers.pop() {
            let values = [self.organization().to_string().into(), Actor::ApiKey(maker).to_string().into()];
            let rows = self.rows::<KeyRow>(&format!("{KEYS} AND created_by = $2"), values).await?;
            for key in rows.into_iter().map(ApiKey::try_from).collect::<Result<Vec<_>>>()? {
                makers.push(key.id);
                if key.expires_at.is_some_and(|own| own <= end) {
                    continue;
                }
                let values = [self.organization().to_string().into(), key.id.to_string().into(), end.as_ms().into()];
                if self.execute(sql, values).await? > 0 {
                    self.key_event(EventKind::ApiKeyChanged, key.id, serde_json::json!({})).await?;
                    ended += 1;
                }
            }
        }
        Ok(ended)
    }
}

/// The key that made another one.
fn parent_of(created_by: &str) -> Option<ApiKeyId> {
    created_by.strip_prefix("api_key:")?.parse().ok()
}

fn role(what: &str, text: &str) -> Result<Role> {
    text.parse().map_err(|source: String| StoreError::Corrupt { what: what.to_owned(), source: source.into() })
}
