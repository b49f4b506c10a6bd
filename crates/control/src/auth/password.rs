//! Passwords: Argon2id, with the costs that OWASP recommends (19 MiB, 2 passes), off the async threads.
//!
//! At most two are computed at once: each takes 19 MiB and some 50 ms of a core, and a flood of sign-ins must
//! not take the machine. An unknown e-mail address costs the same work as a known one.

use std::sync::Arc;

use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use tokio::sync::Semaphore;
use toolyard_types::Secret;

use crate::{ControlError, Result};

const AT_ONCE: usize = 2;
/// The shortest password that may be set, in characters.
const SHORTEST: usize = 12;
/// The longest password that is looked at, in characters.
const LONGEST: usize = 128;

/// What an unknown person's password is compared with: a hash of the same costs that no password has.
const DECOY: &str = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Computes password hashes.
pub(crate) struct Passwords {
    permits: Arc<Semaphore>,
}

impl Passwords {
    pub(crate) fn new() -> Self {
        Self { permits: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// The hash to store, in PHC form.
    pub(crate) async fn hash(&self, password: &Secret) -> Result<String> {
        let password = password.clone();
        self.compute(move || hash_now(&password)).await?
    }

    /// Whether `password` is the one of `hash`; without a hash, the same work for `false`.
    pub(crate) async fn verify(&self, password: &Secret, hash: Option<String>) -> Result<bool> {
        let password = password.clone();
        self.compute(move || match hash {
            Some(hash) => verify_now(&password, &hash),
            None => {
                verify_now(&password, DECOY);
                false
            }
        })
        .await
    }

    async fn compute<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let _permit = self.permits.acquire().await.map_err(ControlError::internal("waiting to check a password"))?;
        tokio::task::spawn_blocking(work).await.map_err(ControlError::internal("computing a password hash"))
    }
}

/// Checks the length of a password that is to be set.
///
/// # Errors
/// `validation_failed` when it is too short or too long.
pub(crate) fn check(field: &str, password: &Secret) -> Result<()> {
    let length = password.expose().chars().count();
    if (SHORTEST..=LONGEST).contains(&length) {
        return Ok(());
    }
    Err(ControlError::field(field, format!("a password must have {SHORTEST} to {LONGEST} characters")))
}

/// Whether a password is longer than any that can be set.
pub(crate) fn is_too_long(password: &Secret) -> bool {
    password.expose().len() > LONGEST * 4
}

fn hash_now(password: &Secret) -> Result<String> {
    let hash = Argon2::default().hash_password(password.expose().as_bytes());
    Ok(hash.map_err(|error| ControlError::internal("hashing a password")(error.to_string()))?.to_string())
}

fn verify_now(password: &Secret, hash: &str) -> bool {
    Argon2::default().verify_password(password.expose().as_bytes(), hash).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_verified_against_its_own_hash_only() {
        let passwords = Passwords::new();
        let hash = passwords.hash(&Secret::new("correct-horse-battery")).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(passwords.verify(&Secret::new("correct-horse-battery"), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify(&Secret::new("wrong"), Some(hash)).await.unwrap());
        assert!(!passwords.verify(&Secret::new("correct-horse-battery"), None).await.unwrap());
        let decoy = argon2::password_hash::phc::PasswordHash::new(DECOY).unwrap();
        let costs = hash_now(&Secret::new("x")).unwrap();
        let costs = argon2::password_hash::phc::PasswordHash::new(&costs).unwrap();
        assert_eq!((decoy.algorithm, decoy.params), (costs.algorithm, costs.params), "the decoy costs as much");
        assert!(!passwords.verify(&Secret::new("x"), Some("no hash at all".into())).await.unwrap());
    }
}
