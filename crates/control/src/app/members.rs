//! Members and their roles. There is always an owner.
//!
//! Whoever knows a member's password acts with all of the member's role. So only who holds all of a role themselves makes a
//! member with it, takes or gives it, sets the password of a member who has it, or removes them.

use serde_json::json;
use toolyard_policy::Resource;
use toolyard_store::{OrgTx, StoreError};
use toolyard_types::UserId;
use toolyard_types::access::{Action, Role};
use toolyard_types::api::Page;
use toolyard_types::api::identity::{CreateMember, Member, UpdateMember};

use super::{allow, audit, keys};
use crate::auth::{self, password};
use crate::{Caller, Control, ControlError, Result};

const LONGEST_EMAIL: usize = 254;
/// The most actions that a refusal names.
const NAMED: usize = 3;

/// The members, by e-mail address.
pub(crate) async fn list(control: &Control, caller: &Caller) -> Result<Page<Member>> {
    let tx = control.store().org_read(caller.organization).await?;
    Ok(Page::whole(tx.members().await?))
}

/// One member.
pub(crate) async fn get(control: &Control, caller: &Caller, id: UserId) -> Result<Member> {
    let tx = control.store().org_read(caller.organization).await?;
    tx.member(id).await?.ok_or_else(|| unknown(id))
}

/// Adds a member with a first password.
pub(crate) async fn create(control: &Control, caller: &Caller, create: &CreateMember) -> Result<Member> {
    let owner = create.role == Role::Owner;
    allow(control, caller, Action::MemberManage, &Resource::Member { owner })?;
    allow_role(control, caller, create.role)?;
    auth::allow_new_power(control, caller)?;
    check_email(&create.email)?;
    password::check("password", &create.password)?;
    let hash = control.auth().passwords.hash(&create.password).await?;
    let mut tx = control.store().org(caller.organization).await?;
    auth::hold(&tx, caller).await?;
    let member = tx.create_member(&create.email, &hash, create.role).await.map_err(|error| match error {
        StoreError::AlreadyExists => ControlError::AlreadyExists("a member with this e-mail address".to_owned()),
        error => error.into(),
    })?;
    let detail = json!({ "email": member.email, "role": member.role });
    audit(&mut tx, caller, "member.create", format!("member/{}", member.id), detail).await?;
    tx.commit().await?;
    Ok(member)
}

/// Gives a member another role or password. Keys of the member that would have more power are revoked.
pub(crate) async fn update(control: &Control, caller: &Caller, id: UserId, update: &UpdateMember) -> Result<Member> {
    if update.role.is_some() || update.password.is_some() {
        auth::allow_new_power(control, caller)?;
    }
    let hash = match &update.password {
        Some(password) => {
            password::check("password", password)?;
            Some(control.auth().passwords.hash(password).await?)
        }
        None => None,
    };
    let mut tx = control.store().org(caller.organization).await?;
    // Owners are counted first: the count locks their rows, so nobody changes them meanwhile.
    let owners = tx.owners().await?;
    auth::hold(&tx, caller).await?;
    let member = tx.member(id).await?.ok_or_else(|| unknown(id))?;
    let owner = member.role == Role::Owner || update.role == Some(Role::Owner);
    allow(control, caller, Action::MemberManage, &Resource::Member { owner })?;
    if update.role.is_some() || update.password.is_some() {
        for role in [Some(member.role), update.role].into_iter().flatten() {
            allow_role(control, caller, role)?;
        }
    }
    if update.revoke_keys {
        allow(control, caller, Action::KeyManage, &Resource::ApiKey { own: false })?;
    }
    if let Some(role) = update.role
        && role != member.role
    {
        keep_an_owner(owners, &member, Some(role))?;
        tx.set_member_role(id, role).await?;
        tx.revoke_api_keys_made_by(&maker(id), Some(role)).await?;
    }
    if let Some(hash) = &hash {
        tx.set_member_password(id, hash).await?;
    }
    let mut detail = json!({ "role": update.role, "password_changed": hash.is_some() });
    if update.revoke_keys {
        detail["revoked_keys"] = keys::revoke_made_by(&mut tx, id).await?;
    }
    audit(&mut tx, caller, "member.update", format!("member/{id}"), detail).await?;
    let member = tx.member(id).await?.ok_or_else(|| unknown(id))?;
    tx.commit().await?;
    Ok(member)
}

/// Removes a member, with their sessions and keys.
pub(crate) async fn delete(control: &Control, caller: &Caller, id: UserId) -> Result<()> {
    let mut tx = control.store().org(caller.organization).await?;
    let owners = tx.owners().await?;
    let member = tx.member(id).await?.ok_or_else(|| unknown(id))?;
    let owner = member.role == Role::Owner;
    allow(control, caller, Action::MemberManage, &Resource::Member { owner })?;
    allow_role(control, caller, member.role)?;
    keep_an_owner(owners, &member, None)?;
    remove(&mut tx, id).await?;
    audit(&mut tx, caller, "member.delete", format!("member/{id}"), json!({ "email": member.email })).await?;
    Ok(tx.commit().await?)
}

async fn remove(tx: &mut OrgTx, id: UserId) -> Result<()> {
    // Without a session they make no key meanwhile.
    tx.delete_member(id).await?;
    tx.revoke_api_keys_made_by(&maker(id), None).await?;
    Ok(())
}

/// Refuses what gives or takes a role of which the caller does not hold every action.
fn allow_role(control: &Control, caller: &Caller, role: Role) -> Result<()> {
    let beyond = control.decider().beyond(caller, role);
    if beyond.is_empty() {
        return Ok(());
    }
    let named: Vec<_> = beyond.iter().take(NAMED).map(|action| format!("`{}`", action.as_str())).collect();
    let more = match beyond.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let detail = format!(
        "a member acts with all of their role, and of role `{role}` this is more than you may do: {}{more}; use a key \
         that is not narrowed, or sign in",
        named.join(", ")
    );
    Err(ControlError::forbidden(detail))
}

/// Who made a key, as the key says it.
fn maker(id: UserId) -> String {
    toolyard_types::access::Actor::User(id).to_string()
}

fn keep_an_owner(owners: usize, member: &Member, becomes: Option<Role>) -> Result<()> {
    if member.role == Role::Owner && becomes != Some(Role::Owner) && owners <= 1 {
        let text = "the last owner cannot be removed or given another role; make somebody else an owner first";
        return Err(ControlError::Conflict(text.to_owned()));
    }
    Ok(())
}

fn unknown(id: UserId) -> ControlError {
    ControlError::NotFound(format!("member `{id}`"))
}

/// Whether a text has the form of an e-mail address. Enough to catch typing errors; whether mail arrives is nobody's
/// promise.
#[must_use]
pub fn is_email(text: &str) -> bool {
    let plain = |c: char| !c.is_whitespace() && !toolyard_types::name::is_hidden(c);
    let good = match text.split_once('@') {
        Some((local, domain)) => !local.is_empty() && !domain.is_empty() && !domain.contains('@'),
        None => false,
    };
    good && text.len() <= LONGEST_EMAIL && text.chars().all(plain)
}

pub(crate) fn check_email(email: &str) -> Result<()> {
    if is_email(email) {
        return Ok(());
    }
    Err(ControlError::field("email", "must be an e-mail address such as `name@example.org`"))
}
