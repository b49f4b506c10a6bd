//! The first organization, its administrator and the bootstrap key.

use toolyard_store::{KeyRotation, NewApiKey, OrgTx, Store};
use toolyard_types::access::Role;
use toolyard_types::{ApiKeyId, Name, Secret};

use super::password::Passwords;
use super::token;
use crate::app::system_line;
use crate::{Bootstrap, ControlError, Result};

/// The organization that the first start makes.
pub(crate) const DEFAULT_ORGANIZATION: &str = "default";
const DEFAULT_EMAIL: &str = "admin@localhost";
const BOOTSTRAP: &str = "bootstrap";
/// Who made the key of the setting `bootstrap_api_key`.
pub(crate) const MADE_BY: &str = "system:bootstrap";

/// How the administrator signs in for the first time. The password was made up and is shown only now.
#[derive(Clone, Debug)]
pub struct FirstSignIn {
    /// The e-mail address.
    pub email: String,
    /// The password.
    pub password: Secret,
}

/// Makes what is missing; running it again changes nothing.
pub(crate) async fn run(store: &Store, bootstrap: &Bootstrap) -> Result<Option<FirstSignIn>> {
    let administrator = prepare_administrator(store, bootstrap).await?;
    let name = Name::new(DEFAULT_ORGANIZATION).expect("the default organization's name is a name");
    let mut tx = store.system("make the first organization").await?;
    tx.lock(BOOTSTRAP).await?;
    let organization = match tx.organization_by_name(&name).await? {
        Some(organization) => organization,
        None => tx.create_organization(&name).await?,
    };
    let mut tx = tx.into_org(organization.id);
    let mut first_sign_in = None;
    if let Some(administrator) = administrator
        && tx.owners().await? == 0
    {
        let member = tx.create_member(&administrator.email, &administrator.password_hash, Role::Owner).await?;
        if administrator.shown.is_some() {
            tx.note_generated_password(member.id).await?;
        }
        first_sign_in = administrator.shown;
    }
    if let Some(key) = &bootstrap.api_key {
        put_key(&mut tx, key).await?;
    }
    tx.commit().await?;
    Ok(first_sign_in)
}

/// Gives the member of an e-mail address, or the first owner, a password that is made up, and ends their sessions.
/// For whoever has the host, which is more power than any password gives.
///
/// # Errors
/// `not_found` when there is no such member; when the database fails.
pub async fn reset_password(store: &Store, email: Option<&str>) -> Result<FirstSignIn> {
    let password = token::password();
    let hash = Passwords::new().hash(&password).await?;
    let tx = store.system("give a member a new password").await?;
    let found = match email {
        Some(email) => tx.member_by_email(email, None).await?,
        None => tx.first_owner().await?,
    };
    let Some((user, membership)) = found else {
        let who = email.map_or_else(|| "an owner".to_owned(), |email| format!("the member `{email}`"));
        return Err(ControlError::NotFound(who));
    };
    let mut tx = tx.into_org(membership.organization);
    tx.set_member_password(user.id, &hash).await?;
    tx.note_generated_password(user.id).await?;
    let target = format!("member/{}", user.id);
    tx.audit(&system_line("reset-password", "member.password", target, true, serde_json::json!({}))).await?;
    tx.commit().await?;
    Ok(FirstSignIn { email: user.email, password })
}

struct Administrator {
    email: String,
    password_hash: String,
    shown: Option<FirstSignIn>,
}

/// Hashes the administrator's password before the transaction, which must stay short; nothing when there is an
/// administrator already.
async fn prepare_administrator(store: &Store, bootstrap: &Bootstrap) -> Result<Option<Administrator>> {
    if store.system_read("look for an administrator").await?.any_owner().await? {
        return Ok(None);
    }
    let email = bootstrap.admin_email.clone().unwrap_or_else(|| DEFAULT_EMAIL.to_owned());
    let given = bootstrap.admin_password.clone();
    if let Some(password) = &given {
        super::password::check("bootstrap.admin_password", password)?;
    }
    let password = given.clone().unwrap_or_else(token::password);
    let password_hash = Passwords::new().hash(&password).await?;
    let shown = given.is_none().then(|| FirstSignIn { email: email.clone(), password });
    Ok(Some(Administrator { email, password_hash, shown }))
}

/// Makes the bootstrap key, or gives it the secret of the setting. It stays the same key then, as any that is rotated: the
/// keys that were made with it are known as its children and end when it is revoked. A key that somebody revoked stays
/// revoked, and ends no other.
async fn put_key(tx: &mut OrgTx, key: &Secret) -> Result<()> {
    let (prefix, hash) = (token::shown_prefix(key.expose()), token::sha256_hex(key.expose()));
    let name = Name::new(BOOTSTRAP).expect("the bootstrap key's name is a name");
    if let Some(known) = tx.api_key_by_hash(&hash).await? {
        if known.revoked_at.is_some() {
            tracing::warn!("the bootstrap API key was revoked and stays revoked; set another one");
        }
        return Ok(());
    }
    let current = tx.active_api_keys_named(&name).await?.into_iter().find(|key| key.created_by == MADE_BY);
    let (id, action) = match current {
        Some(current) => {
            tx.rotate_api_key(current.id, &KeyRotation { prefix, hash, previous_ends_at: None, expires_at: None })
                .await?;
            (current.id, "api_key.rotate")
        }
        None => {
            let id = ApiKeyId::generate();
            let (role, created_by) = (Role::Owner, MADE_BY.to_owned());
            let new = NewApiKey { id, name, prefix, hash, role, scope: None, created_by, expires_at: None };
            tx.create_api_key(&new).await?;
            (id, "api_key.create")
        }
    };
    let detail = serde_json::json!({ "setting": "bootstrap_api_key" });
    tx.audit(&system_line(BOOTSTRAP, action, format!("api_key/{id}"), true, detail)).await?;
    Ok(())
}
