//! The CA of the agents' connections: made at the first start, kept in the store with its key sealed by the vault, so
//! that every replica has the same one.

use std::sync::Arc;

use toolyard_link::tls::{Authority, TlsError};
use toolyard_store::{SealedAuthority, Store};
use toolyard_types::{Clock, OrganizationId};

use crate::vault::{Place, Vault, VaultError};
use crate::{ControlError, Result};

const SUBJECT: &str = "authority/agents";

/// The CA of this store; makes it when there is none. It was sealed at the first start, so it tells whether the master key
/// is the right one. With another, nothing that is sealed can be opened: that is refused, unless the right one is `lost`
/// for ever. Then a new CA takes its place, and agents on other hosts join again.
///
/// # Errors
/// When the master key is another, the store fails, or what it holds was changed.
pub(crate) async fn open_or_make(store: &Store, vault: &Vault, clock: &Clock, lost: bool) -> Result<Arc<Authority>> {
    let reading = "reading the CA of the agents' connections";
    let stored = store.system_read(reading).await?.authority().await?;
    let stored = match stored {
        Some(stored) => stored,
        None => make(store, vault, clock, false).await?,
    };
    let (stored, key) = match vault.unseal(&place(), &stored.sealed_key) {
        Err(VaultError::UnknownKey(_)) if lost => {
            tracing::error!(
                "the vault's master key is another than the one that was lost: credentials must be set again, and agents on \
                 other hosts join again"
            );
            let stored = make(store, vault, clock, true).await?;
            let key = vault.unseal(&place(), &stored.sealed_key)?;
            (stored, key)
        }
        Err(VaultError::UnknownKey(sealed_with)) => {
            return Err(VaultError::WrongKey { sealed_with, current: vault.key_id() }.into());
        }
        opened => (stored, opened?),
    };
    Authority::open(&stored.certificate, &key).map(Arc::new).map_err(ControlError::internal(reading))
}

async fn make(store: &Store, vault: &Vault, clock: &Clock, instead: bool) -> Result<SealedAuthority> {
    let making = "making the CA of the agents' connections";
    let broken = |error: TlsError| ControlError::internal(making)(error);
    let authority = Authority::generate(clock.now()).map_err(broken)?;
    let certificate = authority.certificate_pem();
    let sealed_key = vault.seal(&place(), &authority.key_pem());
    let tx = store.system(making).await?;
    if instead {
        tx.delete_authority().await?;
    }
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
