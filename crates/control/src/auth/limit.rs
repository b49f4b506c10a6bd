//! Rate limits of what strangers may do: sign in, report what a browser saw.
//!
//! Signing in cannot be shut for everybody. Wrong passwords are counted
//!
//! - by address and account together: after five, each further one waits twice as long as the one before;
//! - by address alone, over all accounts: after twenty, likewise, up to a minute;
//! - by account alone, over all addresses: thirty at once, then ten a minute, which only an attack from very many
//!   addresses reaches, because each of them waits for itself.
//!
//! A browser that signed in to the account before has a cookie that says so (`device`): it is counted by itself, and
//! passes while strangers wait. An IPv6 address counts as its /64, which one host may have whole.
//!
//! An attempt counts when it begins, so that many at once are not all looked at before the first is counted, and is
//! forgotten when the password was right. All of it lives in memory, per replica, bounded: where too much is
//! remembered, what was not touched for longest goes first.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use toolyard_types::network::peer_of;
use toolyard_types::{Clock, SessionId, Timestamp};

use crate::{ControlError, Result};

/// Of one address, or one device, at one account.
const OF_PAIR: BackOff = BackOff { free: 5, first: Duration::from_secs(2), longest: Duration::from_secs(15 * 60) };
/// Of one address at all accounts.
const OF_ADDRESS: BackOff = BackOff { free: 20, first: Duration::from_secs(1), longest: Duration::from_secs(60) };
/// At one account, of all addresses.
const OF_ACCOUNT: Bucket = Bucket { burst: 30, every: Duration::from_secs(6) };
/// Failures are forgotten when there was none for so long.
const FORGOTTEN: Duration = Duration::from_secs(3600);
/// The most pairs, addresses and accounts remembered, each.
const REMEMBERED: usize = 10_000;
/// The longest e-mail address that is told apart from others.
const LONGEST_EMAIL: usize = 320;

/// How failures slow down the next attempts.
struct BackOff {
    free: u32,
    first: Duration,
    longest: Duration,
}

impl BackOff {
    /// How long to wait after so many failures.
    fn after(&self, failures: u32) -> Duration {
        let Some(beyond) = failures.checked_sub(self.free) else { return Duration::ZERO };
        self.first.saturating_mul(1 << beyond.min(20)).min(self.longest)
    }
}

/// So many at once, then one each time that has gone by.
struct Bucket {
    burst: u32,
    every: Duration,
}

/// Failures, or attempts that may become some.
#[derive(Clone, Copy, Default)]
struct Failures {
    count: u32,
    last: Timestamp,
    /// No attempt before then.
    until: Timestamp,
}

/// When the attempts at an account would be paid for (the generic cell rate algorithm).
#[derive(Clone, Copy, Default)]
struct Debt {
    paid_at: Timestamp,
}

/// Who tries a password, as far as that is known before.
#[derive(Clone, Debug)]
pub(crate) enum Who {
    /// Somebody at an address; none where the connection has none.
    Stranger {
        /// The account.
        email: String,
        /// Where they are.
        address: Option<IpAddr>,
    },
    /// A browser that signed in to this account before.
    Device(String),
    /// A session of the account.
    Session(SessionId),
}

/// Limits attempts to sign in.
pub(crate) struct SignInLimit {
    clock: Clock,
    counts: Arc<Mutex<Attempts>>,
}

#[derive(Default)]
struct Attempts {
    pairs: HashMap<(String, IpAddr), Failures>,
    addresses: HashMap<IpAddr, Failures>,
    accounts: HashMap<String, Debt>,
}

/// An attempt under way; it counts as a failure unless it is said to be none.
#[must_use]
pub(crate) struct Attempt {
    counts: Arc<Mutex<Attempts>>,
    pair: (String, IpAddr),
    /// For strangers only.
    account: Option<String>,
}

impl SignInLimit {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, counts: Arc::default() }
    }

    /// Counts an attempt.
    ///
    /// # Errors
    /// `rate_limited` with the time to wait.
    pub(crate) fn begin(&self, who: &Who) -> Result<Attempt> {
        let now = self.clock.now();
        let (pair, account) = match who {
            Who::Stranger { email, address } => {
                let email = email.chars().take(LONGEST_EMAIL).collect::<String>().to_lowercase();
                let address = address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), peer_of);
                ((email.clone(), address), Some(email))
            }
            Who::Device(device) => ((format!("device/{device}"), IpAddr::V4(Ipv4Addr::UNSPECIFIED)), None),
            Who::Session(session) => ((format!("session/{session}"), IpAddr::V4(Ipv4Addr::UNSPECIFIED)), None),
        };
        let mut counts = lock(&self.counts);
        counts.make_room(now);
        let wait = counts.wait(&pair, account.as_deref(), now);
        if !wait.is_zero() {
            return Err(ControlError::RateLimited { retry_after: wait });
        }
        counts.count(&pair, account.as_deref(), now);
        Ok(Attempt { counts: Arc::clone(&self.counts), pair, account })
    }
}

impl Attempt {
    /// The password was right: what failed before at this address or device is forgotten.
    pub(crate) fn succeeded(self) {
        let mut counts = lock(&self.counts);
        counts.pairs.remove(&self.pair);
        counts.take_back(&self.pair, self.account.as_deref());
    }

    /// The password was not looked at.
    pub(crate) fn undecided(self) {
        let mut counts = lock(&self.counts);
        if let Some(failures) = counts.pairs.get_mut(&self.pair) {
            failures.undo();
        }
        counts.take_back(&self.pair, self.account.as_deref());
    }
}

impl Attempts {
    /// How long this attempt has to wait; zero when it may be made now.
    fn wait(&self, pair: &(String, IpAddr), account: Option<&str>, now: Timestamp) -> Duration {
        let own = self.pairs.get(pair).map_or(Duration::ZERO, |failures| failures.until.since(now));
        let Some(account) = account else { return own };
        let address = self.addresses.get(&pair.1).map_or(Duration::ZERO, |failures| failures.until.since(now));
        let debt = self.accounts.get(account).map_or(Duration::ZERO, |debt| debt.paid_at.since(now));
        own.max(address).max(debt.saturating_sub(OF_ACCOUNT.every * (OF_ACCOUNT.burst - 1)))
    }

    fn count(&mut self, pair: &(String, IpAddr), account: Option<&str>, now: Timestamp) {
        self.pairs.entry(pair.clone()).or_default().count(now, &OF_PAIR);
        if let Some(account) = account {
            self.addresses.entry(pair.1).or_default().count(now, &OF_ADDRESS);
            let debt = self.accounts.entry(account.to_owned()).or_default();
            debt.paid_at = debt.paid_at.max(now).plus(OF_ACCOUNT.every);
        }
    }

    fn take_back(&mut self, pair: &(String, IpAddr), account: Option<&str>) {
        let Some(account) = account else { return };
        if let Some(failures) = self.addresses.get_mut(&pair.1) {
            failures.undo();
        }
        if let Some(debt) = self.accounts.get_mut(account) {
            debt.paid_at = debt.paid_at.minus(OF_ACCOUNT.every);
        }
    }

    fn make_room(&mut self, now: Timestamp) {
        let old = |failures: &Failures| now.since(failures.last) > FORGOTTEN;
        make_room(&mut self.pairs, |failures| (old(failures), failures.last));
        make_room(&mut self.addresses, |failures| (old(failures), failures.last));
        make_room(&mut self.accounts, |debt| (debt.paid_at <= now, debt.paid_at));
    }
}

impl Failures {
    fn count(&mut self, now: Timestamp, back_off: &BackOff) {
        if now.since(self.last) > FORGOTTEN {
            *self = Self::default();
        }
        self.count = self.count.saturating_add(1);
        self.last = now;
        self.until = now.plus(back_off.after(self.count));
    }

    fn undo(&mut self) {
        self.count = self.count.saturating_sub(1);
        self.until = self.last;
    }
}

/// Forgets what is over, then the quarter that was not touched for longest; `age` tells both.
fn make_room<K: Hash + Eq + Clone, V>(map: &mut HashMap<K, V>, age: impl Fn(&V) -> (bool, Timestamp)) {
    if map.len() < REMEMBERED {
        return;
    }
    map.retain(|_, value| !age(value).0);
    if map.len() < REMEMBERED * 3 / 4 {
        return;
    }
    let mut ages: Vec<Timestamp> = map.values().map(|value| age(value).1).collect();
    let quarter = ages.len() / 4;
    let (_, oldest, _) = ages.select_nth_unstable(quarter);
    let oldest = *oldest;
    map.retain(|_, value| age(value).1 > oldest);
}

fn lock<T>(counts: &Mutex<T>) -> MutexGuard<'_, T> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

const WINDOW: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Counts {
    all: Window,
    by_key: HashMap<String, Window>,
}

#[derive(Clone, Copy, Default)]
struct Window {
    since: Timestamp,
    count: u32,
}

impl Window {
    /// Counts one more; tells how long to wait when there were too many.
    fn take(&mut self, now: Timestamp, most: u32) -> Option<Duration> {
        let age = now.since(self.since);
        if age >= WINDOW {
            *self = Self { since: now, count: 0 };
        }
        if self.count >= most {
            return Some(WINDOW.saturating_sub(age).max(Duration::from_secs(1)));
        }
        self.count += 1;
        None
    }
}

const REPORTS_PER_SESSION: u32 = 60;
const REPORTS_OF_STRANGERS: u32 = 120;

/// Rate limit of what browsers report about the console: per session, and for all strangers together. Toolyard does not
/// know a stranger's address behind a proxy, so it does not count by it.
pub(crate) struct ReportLimit {
    clock: Clock,
    counts: Mutex<Counts>,
}

impl ReportLimit {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, counts: Mutex::default() }
    }

    /// Counts a batch of a session, or of a stranger.
    ///
    /// # Errors
    /// `rate_limited` with the time to wait.
    pub(crate) fn attempt(&self, session: Option<&str>) -> Result<()> {
        let now = self.clock.now();
        let mut counts = lock(&self.counts);
        if counts.by_key.len() >= REMEMBERED {
            counts.by_key.retain(|_, window| now.since(window.since) < WINDOW);
        }
        if counts.by_key.len() >= REMEMBERED {
            counts.by_key.clear();
        }
        let wait = match session {
            Some(session) => counts.by_key.entry(session.to_owned()).or_default().take(now, REPORTS_PER_SESSION),
            None => counts.all.take(now, REPORTS_OF_STRANGERS),
        };
        wait.map_or(Ok(()), |retry_after| Err(ControlError::RateLimited { retry_after }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit() -> (SignInLimit, Clock) {
        let clock = Clock::stopped_at(Timestamp::from_ms(10_000_000));
        (SignInLimit::new(clock.clone()), clock)
    }

    fn stranger(email: &str, address: &str) -> Who {
        Who::Stranger { email: email.to_owned(), address: Some(address.parse().unwrap()) }
    }

    /// The seconds that an attempt has to wait; one that need not is made, and fails.
    fn tries(limit: &SignInLimit, who: &Who) -> u64 {
        match limit.begin(who) {
            Ok(attempt) => {
                drop(attempt);
                0
            }
            Err(ControlError::RateLimited { retry_after }) => retry_after.as_secs(),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn after_five_failures_each_further_one_waits_twice_as_long() {
        let (limit, clock) = limit();
        let who = stranger("a@example.test", "192.0.2.1");
        assert!((0..5).all(|_| tries(&limit, &who) == 0));
        let mut waits = Vec::new();
        for _ in 0..11 {
            let wait = tries(&limit, &who);
            waits.push(wait);
            clock.step_ms(i64::try_from(wait).unwrap() * 1000);
            assert_eq!(tries(&limit, &who), 0);
        }
        assert_eq!(waits, [2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]);
        clock.step_ms(3_601_000);
        assert!((0..5).all(|_| tries(&limit, &who) == 0), "an hour without one forgets them");
    }

    #[test]
    fn whoever_fails_costs_neither_another_address_nor_another_account() {
        let (limit, _) = limit();
        while tries(&limit, &stranger("a@example.test", "2001:db8::1")) == 0 {}
        assert!(tries(&limit, &stranger("A@example.test", "2001:db8::2")) > 0, "one /64 is one host");
        assert_eq!(tries(&limit, &stranger("a@example.test", "2001:db8:0:1::1")), 0);
        assert_eq!(tries(&limit, &stranger("b@example.test", "2001:db8::1")), 0);
    }

    #[test]
    fn an_address_that_tries_many_accounts_has_to_wait_at_all_of_them() {
        let (limit, _) = limit();
        let made = (0..500).filter(|n| tries(&limit, &stranger(&format!("{n}@example.test"), "192.0.2.1")) == 0);
        assert_eq!(made.count(), 20);
        assert_eq!(tries(&limit, &stranger("new@example.test", "192.0.2.2")), 0);
    }

    #[test]
    fn an_account_under_attack_from_everywhere_lets_its_own_devices_pass() {
        let (limit, clock) = limit();
        let from = |n: u32| stranger("admin@example.test", &Ipv4Addr::from(0x0a00_0000 + n).to_string());
        assert_eq!((0..1000).filter(|n| tries(&limit, &from(*n)) == 0).count(), 30);
        assert!((0..5).all(|_| tries(&limit, &Who::Device("one".to_owned())) == 0));
        assert_eq!(tries(&limit, &Who::Device("one".to_owned())), 2, "a stolen device is no way around");
        assert_eq!(tries(&limit, &Who::Device("two".to_owned())), 0);
        clock.step_ms(60_000);
        assert_eq!((1000..2000).filter(|n| tries(&limit, &from(*n)) == 0).count(), 10);
    }

    #[test]
    fn what_succeeded_or_was_not_looked_at_does_not_count() {
        let (limit, _) = limit();
        let who = stranger("a@example.test", "192.0.2.1");
        for _ in 0..100 {
            limit.begin(&who).unwrap().succeeded();
            limit.begin(&who).unwrap().undecided();
        }
        assert!((0..5).all(|_| tries(&limit, &who) == 0));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_newest_stays() {
        let (limit, clock) = limit();
        for n in 0..30_000_u32 {
            clock.step_ms(1);
            let _ = tries(&limit, &stranger("a@example.test", &Ipv4Addr::from(0x0a00_0000 + n).to_string()));
            let _ = tries(&limit, &stranger(&format!("{n}@example.test"), &Ipv4Addr::from(n).to_string()));
        }
        let counts = lock(&limit.counts);
        assert!(counts.pairs.len() <= REMEMBERED && counts.addresses.len() <= REMEMBERED);
        assert!(counts.accounts.len() <= REMEMBERED && counts.accounts.contains_key("a@example.test"));
    }
}
