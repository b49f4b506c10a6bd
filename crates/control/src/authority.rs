//! The CA of the agents' connections: made at the first start, kept in the store with its key sealed by the vault, so
//! that every replica has the same one.

use std::sync::Arc;

use toolyard_link::tls::{Authority, TlsError};
use toolyard_store::{SealedAuthority, Store};
use toolyard_types::{Clock, OrganizationId};

use crate::vault::{Place, Vault, VaultError};
use crate::{Control, ControlError, Result};

const SUBJECT: &str = "authority/agents";

/// The CA of this store; makes it when there is none. With another master key than the one that sealed it, agents on
/// other hosts cannot be known, but everything else goes on: then this is a CA for now, which is not stored.
///
/// # Errors
/// When the store fails, or what it holds was changed.
pub(crate) async fn open_or_make(store: &Store, vault: &Vault, clock: &Clock) -> Result<Arc<Authority>> {
    let reading = "reading the CA of the agents' connections";
    let stored = store.system_read(reading).await?.authority().await?;
    let stored = match stored {
        Some(stored) => stored,
        None => make(store, vault, clock).await?,
    };
    let key = match vault.unseal(&place(), &stored.sealed_key) {
        Ok(key) => key,
        Err(VaultError::UnknownKey(id)) => {
            tracing::error!(
                key.id = id,
                "the CA of the agents' connections was sealed with a master key of the vault that is not here; agents on \
                 other hosts cannot connect until that key is back"
            );
            return Authority::generate(clock.now()).map(Arc::new).map_err(ControlError::internal(reading));
        }
        Err(error) => return Err(error.into()),
    };
    Authority::open(&stored.certificate, &key).map(Arc::new).map_err(ControlError::internal(reading))
}

/// Refuses while the CA is one for now: what it signs would be of no use once the key is back.
///
/// # Errors
/// `conflict` then, or when the store fails.
pub(crate) async fn require_stored(control: &Control) -> Result<()> {
    let stored = control.store().system_read("comparing the CA of the agents' connections").await?.authority().await?;
    if stored.is_some_and(|stored| stored.certificate == control.authority().certificate_pem()) {
        return Ok(());
    }
    let why = "the CA of the agents' connections was sealed with a master key of the vault that is not here; put that \
               key back before a toolbox joins";
    Err(ControlError::Conflict(why.to_owned()))
}

async fn make(store: &Store, vault: &Vault, clock: &Clock) -> Result<SealedAuthority> {
    let making = "making the CA of the agents' connections";
    let broken = |error: TlsError| ControlError::internal(making)(error);
    let authority = Authority::generate(clock.now()).map_err(broken)?;
    let certificate = authority.certificate_pem();
    let sealed_key = vault.seal(&place(), &authority.key_pem());
    let tx = store.system(making).await?;
    tx.insert_authority(SealedAuthority { certificate, sealed_key }).await?;
    // Another replica may have been first: then its CA is everybody's.
    let stored = tx.authority().await?;
    tx.commit().await?;
    stored.ok_or_else(|| ControlError::internal(making)("it was not stored"))
}

/// The CA belongs to no tenant.
fn place() -> Place<'static> {
    let nobody: OrganizationId = "00000000-0000-0000-0000-000000000000".parse().expect("the constant is a UUID");
    Place { organization: nobody, subject: SUBJECT, version: 1 }
}
