//! Passwords: Argon2id, with the costs that OWASP recommends (19 MiB, 2 passes), off the async threads.
//!
//! At most two are computed at once: each takes 19 MiB and some 50 ms of a core, and a flood of sign-ins must not take the
//! machine. What comes on top waits in line, for a bounded time and in a bounded number. Strangers have a line of their
//! own, of which one is computed at a time and which no address fills alone: whoever is known here already never waits
//! behind them. An unknown e-mail address costs the same work as a known one.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use toolyard_types::network::peer_of;
use toolyard_types::{Code, Secret};

use crate::{ControlError, Result};

/// Computed at once.
const AT_ONCE: usize = 2;
/// Computed at once for strangers.
const OF_STRANGERS: usize = 1;
/// In line, or being computed, at once: in each of the two lines.
const IN_LINE: usize = 128;
/// The same, of one address.
const OF_ADDRESS: usize = 8;
/// How long a password waits in line.
const PATIENCE: Duration = Duration::from_secs(20);
/// The shortest password that may be set, in characters.
const SHORTEST: usize = 12;
/// The longest password that is looked at, in characters.
const LONGEST: usize = 128;

/// What an unknown person's password is compared with: a hash of the same costs that no password has.
const DECOY: &str = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// In which line a password waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// Somebody who is signed in, has a key, or whose browser signed in before.
    Known,
    /// Anybody else, at an address.
    Stranger(Option<IpAddr>),
}

/// How many are in line from each address.
type ByAddress = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// Computes password hashes.
pub(crate) struct Passwords {
    slots: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    known_line: Arc<Semaphore>,
    strangers_line: Arc<Semaphore>,
    by_address: ByAddress,
}

/// What is held until a password was computed, also when nobody waits for it any more.
struct Turn {
    _slot: OwnedSemaphorePermit,
    _stranger: Option<OwnedSemaphorePermit>,
    _place: Place,
}

/// A place in a line.
struct Place {
    _line: OwnedSemaphorePermit,
    address: Option<(IpAddr, ByAddress)>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((address, by_address)) = self.address.take() else { return };
        let mut by_address = by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&address);
            }
        }
    }
}

impl Passwords {
    pub(crate) fn new() -> Self {
        Self {
            slots: Arc::new(Semaphore::new(AT_ONCE)),
            strangers: Arc::new(Semaphore::new(OF_STRANGERS)),
            known_line: Arc::new(Semaphore::new(IN_LINE)),
            strangers_line: Arc::new(Semaphore::new(IN_LINE)),
            by_address: Arc::default(),
        }
    }

    /// The hash to store, in PHC form.
    ///
    /// # Errors
    /// `no_capacity` when the line is full or does not move.
    pub(crate) async fn hash(&self, password: &Secret) -> Result<String> {
        let password = password.clone();
        self.compute(Line::Known, move || hash_now(&password)).await?
    }

    /// Whether `password` is the one of `hash`; without a hash, the same work for `false`.
    ///
    /// # Errors
    /// `no_capacity` when the line is full or does not move.
    pub(crate) async fn verify(&self, line: Line, password: &Secret, hash: Option<String>) -> Result<bool> {
        let password = password.clone();
        self.compute(line, move || match hash {
            Some(hash) => verify_now(&password, &hash),
            None => {
                verify_now(&password, DECOY);
                false
            }
        })
        .await
    }

    async fn compute<T: Send + 'static>(&self, line: Line, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let place = self.place(line)?;
        let turn = tokio::time::timeout(PATIENCE, self.turn(line, place)).await.map_err(|_| busy())??;
        // The work holds its turn: it goes on when whoever asked for it has hung up.
        let work = move || {
            let _turn = turn;
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(ControlError::internal("computing a password hash"))
    }

    fn place(&self, line: Line) -> Result<Place> {
        let Line::Stranger(address) = line else {
            let line = Arc::clone(&self.known_line).try_acquire_owned().map_err(|_| busy())?;
            return Ok(Place { _line: line, address: None });
        };
        let line = Arc::clone(&self.strangers_line).try_acquire_owned().map_err(|_| busy())?;
        let address = address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), peer_of);
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_address.entry(address).or_default();
        if *count >= OF_ADDRESS {
            return Err(ControlError::RateLimited { retry_after: Duration::from_secs(1) });
        }
        *count += 1;
        Ok(Place { _line: line, address: Some((address, Arc::clone(&self.by_address))) })
    }

    async fn turn(&self, line: Line, place: Place) -> Result<Turn> {
        let wait = async |semaphore: &Arc<Semaphore>| {
            let permit = Arc::clone(semaphore).acquire_owned().await;
            permit.map_err(ControlError::internal("waiting to check a password"))
        };
        let stranger = match line {
            Line::Known => None,
            Line::Stranger(_) => Some(wait(&self.strangers).await?),
        };
        Ok(Turn { _slot: wait(&self.slots).await?, _stranger: stranger, _place: place })
    }
}

fn busy() -> ControlError {
    ControlError::problem(Code::NoCapacity, "too many people are signing in at once; try again in a moment")
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
        assert!(
            passwords.verify(Line::Known, &Secret::new("correct-horse-battery"), Some(hash.clone())).await.unwrap()
        );
        assert!(!passwords.verify(Line::Known, &Secret::new("wrong"), Some(hash)).await.unwrap());
        assert!(!passwords.verify(Line::Known, &Secret::new("correct-horse-battery"), None).await.unwrap());
        let decoy = argon2::password_hash::phc::PasswordHash::new(DECOY).unwrap();
        let costs = hash_now(&Secret::new("x")).unwrap();
        let costs = argon2::password_hash::phc::PasswordHash::new(&costs).unwrap();
        assert_eq!((decoy.algorithm, decoy.params), (costs.algorithm, costs.params), "the decoy costs as much");
        assert!(!passwords.verify(Line::Known, &Secret::new("x"), Some("no hash at all".into())).await.unwrap());
    }

    #[tokio::test]
    async fn strangers_fill_only_their_own_line_and_no_address_fills_it_alone() {
        let passwords = Passwords::new();
        let stranger = |n: u32| Line::Stranger(Some(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + n))));
        let of_one: Vec<_> = (0..OF_ADDRESS).map(|_| passwords.place(stranger(1)).unwrap()).collect();
        assert_eq!(passwords.place(stranger(1)).err().unwrap().code(), Code::RateLimited);
        let others: Vec<_> = (2..).map(|n| passwords.place(stranger(n))).take_while(Result::is_ok).collect();
        assert_eq!(of_one.len() + others.len(), IN_LINE);
        assert_eq!(passwords.place(stranger(1000)).err().unwrap().code(), Code::NoCapacity);

        // A stranger is being computed: there is a slot for whoever is known, and none for the next stranger.
        let being_computed = passwords.turn(stranger(1), of_one.into_iter().next().unwrap()).await.unwrap();
        let known = passwords.turn(Line::Known, passwords.place(Line::Known).unwrap()).await.unwrap();
        drop(known);
        assert!(passwords.strangers.try_acquire().is_err());
        drop(being_computed);
        drop(others);
        assert!(passwords.by_address.lock().unwrap().is_empty(), "who has gone is not counted");
        passwords.place(stranger(1)).unwrap();
    }
}
