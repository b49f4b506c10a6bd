//! How much one principal and one organization may have at once or ask for in a time, so that none takes what the others
//! need. In memory, per replica: what they protect is the replica's own processor and memory.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use toolyard_types::OrganizationId;
use toolyard_types::access::Actor;

use crate::{Caller, ControlError, Result};

/// The limits of a control plane; 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Streams of events, and logs that are followed, open at once on this replica.
    pub event_streams: u32,
    /// Of one organization.
    pub event_streams_per_organization: u32,
    /// Of one key or one member, with the keys that they made.
    pub event_streams_per_principal: u32,
    /// Requests a second of one organization, as an average of ten seconds.
    pub requests_per_second_per_organization: u32,
    /// Of one key or one member, with the keys that they made.
    pub requests_per_second_per_principal: u32,
    /// Refused changes of one principal that get a line of their own in the audit log, in a minute; more are counted in
    /// one line.
    pub refusals_per_minute: u32,
    /// The most that one server may be given.
    pub server: ServerCeilings,
}

/// The most that one server may be given, whoever asks; 0 is what the API takes at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerCeilings {
    /// Memory of an instance, in MiB.
    pub memory_mib: u32,
    /// Processes and threads of an instance.
    pub processes: u32,
    /// What an instance keeps on disk, in MiB.
    pub disk_mib: u32,
    /// Instances.
    pub replicas: u32,
    /// Copies of an instance, for users or sessions.
    pub copies: u32,
}

impl Default for ServerCeilings {
    fn default() -> Self {
        Self { memory_mib: 16 << 10, processes: 4096, disk_mib: 64 << 10, replicas: 20, copies: 200 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            event_streams: 1000,
            event_streams_per_organization: 500,
            event_streams_per_principal: 50,
            requests_per_second_per_organization: 2000,
            requests_per_second_per_principal: 500,
            refusals_per_minute: 20,
            server: ServerCeilings::default(),
        }
    }
}

/// Who is counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Who {
    Everybody,
    Organization(OrganizationId),
    Principal(OrganizationId, Actor),
}

impl Who {
    fn of(organization: OrganizationId, share_of: &Actor) -> [Self; 3] {
        [Self::Everybody, Self::Organization(organization), Self::Principal(organization, share_of.clone())]
    }

    fn of_what(&self) -> &'static str {
        match self {
            Self::Everybody => "this replica",
            Self::Organization(_) => "your organization",
            Self::Principal(..) => "this key or member, with the keys that they made,",
        }
    }
}

/// What is due in the order in which it gets places: whoever has fewer of them comes first. `holders` names, for each
/// place that is taken, who has it.
pub(crate) fn in_turn<T, W: Eq + Hash>(
    due: Vec<T>,
    who: impl Fn(&T) -> W,
    holders: impl IntoIterator<Item = W>,
) -> Vec<T> {
    let mut places: HashMap<W, usize> = HashMap::new();
    for holder in holders {
        *places.entry(holder).or_default() += 1;
    }
    let turn = |it: T| {
        let place = places.entry(who(&it)).or_default();
        *place += 1;
        (*place, it)
    };
    let mut due: Vec<_> = due.into_iter().map(turn).collect();
    due.sort_by_key(|(place, _)| *place);
    due.into_iter().map(|(_, it)| it).collect()
}

/// Fewer than this are not shared out: a half of them would be too little for one.
const LEAST_SHARED: u32 = 8;

/// Things that are held for a while, such as streams of events.
pub(crate) struct Shares {
    /// Of everybody, of an organization, of a principal; 0 for any number.
    most: [u32; 3],
    taken: Mutex<HashMap<Who, u32>>,
}

/// One of them; given back when dropped.
pub(crate) struct Share {
    shares: Arc<Shares>,
    of: [Who; 3],
}

impl Shares {
    pub(crate) fn new(most: [u32; 3]) -> Arc<Self> {
        Arc::new(Self { most, taken: Mutex::default() })
    }

    /// One more for this caller. `what` is the plural of what is held. As it gets full nobody gets more than is left
    /// when they have it, so that those who come late get some.
    ///
    /// # Errors
    /// `rate_limited`, saying whose share is used up.
    pub(crate) fn take(self: &Arc<Self>, caller: &Caller, what: &str) -> Result<Share> {
        self.take_of(Who::of(caller.organization, &caller.share_of), what)
    }

    fn take_of(self: &Arc<Self>, of: [Who; 3], what: &str) -> Result<Share> {
        let refused = |why: String| ControlError::Limited {
            detail: format!("too many {what} are open: {why}"),
            retry_after: Duration::from_secs(5),
        };
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = |who: &Who| taken.get(who).copied().unwrap_or_default();
        for (who, most) in of.iter().zip(self.most) {
            if most > 0 && count(who) >= most {
                return Err(refused(format!("{} may have {most} at once", who.of_what())));
            }
        }
        // Each within what holds it: the last is a principal, in its organization, on this replica.
        for (outer, inner) in [(0, 1), (0, 2), (1, 2)] {
            let most = self.most[outer];
            let left = most.saturating_sub(count(&of[outer]));
            if most >= LEAST_SHARED && count(&of[inner]) >= left {
                let (who, all) = (of[inner].of_what(), of[outer].of_what());
                return Err(refused(format!("{who} has half of what is left of the {most} that {all} may have")));
            }
        }
        for who in &of {
            *taken.entry(who.clone()).or_default() += 1;
        }
        Ok(Share { shares: Arc::clone(self), of })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.shares.taken.lock().unwrap_or_else(PoisonError::into_inner);
        for who in &self.of {
            if let Some(count) = taken.get_mut(who) {
                *count -= 1;
                if *count == 0 {
                    taken.remove(who);
                }
            }
        }
    }
}

/// Work that takes a processor for a while, such as searches: one piece of each principal at a time, and of everybody so
/// many that the processors are not theirs alone. Whoever asks for much waits behind themselves.
pub(crate) struct Turns {
    all: Arc<Semaphore>,
    /// Those of principals who work or wait.
    own: Mutex<HashMap<Who, Arc<Semaphore>>>,
    patience: Duration,
}

impl Turns {
    /// So many at once; nobody waits for longer than `patience`.
    pub(crate) fn new(at_once: usize, patience: Duration) -> Self {
        Self { all: Arc::new(Semaphore::new(at_once)), own: Mutex::default(), patience }
    }

    /// Does `work` on a thread of its own when it is this caller's turn. It goes on when whoever asked is gone, and keeps
    /// the turn until it ends.
    ///
    /// # Errors
    /// `rate_limited` when no turn came in time, `internal` when the work panicked.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        caller: &Caller,
        doing: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let own = self.own_turn(caller);
        let both = async { (own.acquire_owned().await, Arc::clone(&self.all).acquire_owned().await) };
        // Neither is ever closed.
        let Ok((Ok(own), Ok(of_all))) = tokio::time::timeout(self.patience, both).await else {
            return Err(ControlError::RateLimited { retry_after: self.patience });
        };
        let turn: [OwnedSemaphorePermit; 2] = [own, of_all];
        let in_turn = move || {
            let _turn = turn;
            work()
        };
        tokio::task::spawn_blocking(in_turn).await.map_err(ControlError::internal(doing))
    }

    fn own_turn(&self, caller: &Caller) -> Arc<Semaphore> {
        let [_, _, who] = Who::of(caller.organization, &caller.share_of);
        let mut known = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(known.entry(who).or_insert_with(|| Arc::new(Semaphore::new(1))))
    }
}

/// Rates are averages of this time: so much may come at once.
const BURST: Duration = Duration::from_secs(10);
/// How many are remembered; when full, those that have been quiet are forgotten first, then all.
const REMEMBERED: usize = 10_000;

/// Things that come and go, such as requests.
pub(crate) struct Rates {
    /// A second, of an organization and of a principal; 0 for any number.
    most: [u32; 2],
    buckets: Mutex<HashMap<Who, Bucket>>,
}

/// When what came so far would have been allowed to come, evenly spread.
#[derive(Clone, Copy)]
struct Bucket {
    until: Instant,
}

impl Rates {
    pub(crate) fn new(most: [u32; 2]) -> Self {
        Self { most, buckets: Mutex::default() }
    }

    /// Counts one more of this principal.
    ///
    /// # Errors
    /// `rate_limited` with the time to wait.
    pub(crate) fn count(&self, caller: &Caller) -> Result<()> {
        if self.most == [0, 0] {
            return Ok(());
        }
        let [_, organization, own] = Who::of(caller.organization, &caller.share_of);
        let now = Instant::now();
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= REMEMBERED {
            buckets.retain(|_, bucket| bucket.until > now);
        }
        if buckets.len() >= REMEMBERED {
            buckets.clear();
        }
        // The own share first: who is over it does not use up that of the organization.
        for (who, most) in [(own, self.most[1]), (organization, self.most[0])] {
            let Some(each) = Duration::from_secs(1).checked_div(most) else { continue };
            let of_what = who.of_what();
            let bucket = buckets.entry(who).or_insert(Bucket { until: now });
            let from = bucket.until.max(now);
            if from.saturating_duration_since(now) + each > BURST {
                let retry_after = (from + each).saturating_duration_since(now + BURST).max(Duration::from_secs(1));
                let detail = format!("too many requests: {of_what} may send {most} a second");
                return Err(ControlError::Limited { detail, retry_after });
            }
            bucket.until = from + each;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use toolyard_types::access::{Principal, Role};
    use toolyard_types::{ApiKeyId, Name};

    fn caller(organization: OrganizationId) -> Caller {
        let principal = Principal {
            actor: Actor::ApiKey(ApiKeyId::generate()),
            display: "a key".into(),
            organization,
            organization_name: Name::new("default").expect("a name"),
            role: Role::Viewer,
            scope: None,
            replaced_secret: false,
        };
        Caller::signing_in(principal, None)
    }

    #[test]
    fn whoever_has_the_fewest_places_comes_first_and_keeps_their_own_order() {
        let due = vec![("many", 1), ("many", 2), ("few", 3), ("new", 4), ("new", 5)];
        let holders = ["many", "many", "few"];
        let expected = vec![("new", 4), ("few", 3), ("new", 5), ("many", 1), ("many", 2)];
        assert_eq!(in_turn(due, |(who, _)| *who, holders), expected);
    }

    #[test]
    fn nobody_takes_the_shares_of_others() {
        let shares = Shares::new([5, 4, 2]);
        let (one, two) = (OrganizationId::generate(), OrganizationId::generate());
        let (key, other, foreign) = (caller(one), caller(one), caller(two));
        let mut held: Vec<_> = (0..2).map(|_| shares.take(&key, "streams").expect("a share")).collect();
        assert!(shares.take(&key, "streams").is_err());
        held.extend((0..2).map(|_| shares.take(&other, "streams").expect("a share")));
        assert!(shares.take(&caller(one), "streams").is_err());
        held.push(shares.take(&foreign, "streams").expect("a share"));
        assert!(shares.take(&caller(two), "streams").is_err());
        held.remove(0);
        held.push(shares.take(&key, "streams").expect("one was given back"));
        held.clear();
        assert!(shares.taken.lock().expect("no panic").is_empty());
    }

    #[test]
    fn the_keys_that_a_key_made_have_its_share_and_the_last_ones_are_for_many() {
        let shares = Shares::new([1000, 100, 40]);
        let organization = OrganizationId::generate();
        let maker = caller(organization);
        let mut held = Vec::new();
        let mut all_of = |caller: &Caller| {
            let before = held.len();
            held.extend(std::iter::from_fn(|| shares.take(caller, "streams").ok()));
            held.len() - before
        };
        let children = (0..12).map(|_| {
            let mut child = caller(organization);
            child.share_of = maker.actor.clone();
            child
        });
        assert_eq!(children.map(|child| all_of(&child)).sum::<usize>(), 40);
        assert_eq!(all_of(&maker), 0);
        let others: Vec<_> = (0..5).map(|_| all_of(&caller(organization))).collect();
        assert_eq!(others, [30, 15, 8, 4, 2]);
    }

    const LONG: Duration = Duration::from_secs(60);

    /// Work that waits until it is told to end.
    fn endless() -> (std::sync::mpsc::Sender<()>, impl FnOnce() + Send + 'static) {
        let (end, told) = std::sync::mpsc::channel();
        let work = move || {
            let _ = told.recv();
        };
        (end, work)
    }

    #[tokio::test]
    async fn a_callers_second_search_waits_for_the_first_and_that_of_others_does_not() {
        let turns = Turns::new(2, LONG);
        let organization = OrganizationId::generate();
        let (one, two) = (caller(organization), caller(organization));
        let mut child = caller(organization);
        child.share_of = one.actor.clone();
        let (end, work) = endless();
        let mut first = std::pin::pin!(turns.run(&one, "searching", work));
        assert!(first.as_mut().now_or_never().is_none(), "it works");
        let mut second = std::pin::pin!(turns.run(&one, "searching", || "second"));
        let mut childs = std::pin::pin!(turns.run(&child, "searching", || "the child's"));
        assert!(second.as_mut().now_or_never().is_none() && childs.as_mut().now_or_never().is_none());
        for other in [&two, &two, &caller(OrganizationId::generate())] {
            let done = tokio::time::timeout(LONG, turns.run(other, "searching", || "another")).await;
            assert_eq!(done.expect("nobody is before it").expect("a turn"), "another");
        }
        assert!(second.as_mut().now_or_never().is_none() && childs.as_mut().now_or_never().is_none());
        end.send(()).expect("it waits for that");
        first.await.expect("it ends");
        assert_eq!(second.await.expect("its turn"), "second");
        assert_eq!(childs.await.expect("its turn"), "the child's");
        // Nobody is remembered who neither works nor waits.
        drop(turns.own_turn(&two));
        assert_eq!(turns.own.lock().expect("no panic").len(), 1);
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_keeps_its_turn_until_its_search_ends() {
        let turns = Turns::new(1, LONG);
        let (one, two) = (caller(OrganizationId::generate()), caller(OrganizationId::generate()));
        let (end, work) = endless();
        let mut left = Box::pin(turns.run(&one, "searching", work));
        assert!(left.as_mut().now_or_never().is_none());
        drop(left);
        let mut own = std::pin::pin!(turns.run(&one, "searching", || ()));
        let mut others = std::pin::pin!(turns.run(&two, "searching", || ()));
        assert!(own.as_mut().now_or_never().is_none() && others.as_mut().now_or_never().is_none());
        // Who leaves while they wait keeps nobody up.
        let mut gives_up = Box::pin(turns.run::<()>(&two, "searching", || panic!("nobody waits for it")));
        assert!(gives_up.as_mut().now_or_never().is_none());
        drop(gives_up);
        end.send(()).expect("it goes on");
        let both = async { tokio::join!(own, others) };
        let (own, others) = tokio::time::timeout(LONG, both).await.expect("the search ended");
        assert!(own.is_ok() && others.is_ok());
    }

    #[tokio::test]
    async fn who_waits_too_long_for_a_turn_is_told_when_to_ask_again_and_a_panic_gives_the_turn_back() {
        let patience = Duration::from_millis(20);
        let turns = Turns::new(1, patience);
        let (one, two) = (caller(OrganizationId::generate()), caller(OrganizationId::generate()));
        let (end, work) = endless();
        let mut first = std::pin::pin!(turns.run(&one, "searching", work));
        assert!(first.as_mut().now_or_never().is_none());
        for waits in [&one, &two] {
            let late = turns.run(waits, "searching", || ()).await;
            assert!(matches!(late, Err(ControlError::RateLimited { retry_after }) if retry_after == patience));
        }
        drop(end);
        first.await.expect("it ends");
        let broken: Result<()> = turns.run(&one, "searching", || panic!("as a bug would")).await;
        assert_eq!(broken.expect_err("it panicked").code(), toolyard_types::Code::Internal);
        assert!(turns.run(&two, "searching", || ()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_fine_and_then_the_rate_holds_for_each_on_its_own() {
        let rates = Rates::new([100, 10]);
        let (key, other) = (caller(OrganizationId::generate()), caller(OrganizationId::generate()));
        let allowed = |key: &Caller| (0..1000).filter(|_| rates.count(key).is_ok()).count();
        assert_eq!(allowed(&key), 100);
        assert_eq!(allowed(&other), 100);
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(allowed(&key), 30);
        assert!(matches!(rates.count(&key), Err(ControlError::Limited { .. })));
    }
}
