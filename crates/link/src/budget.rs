//! How much memory requests may take at once, at all listeners of the process together: heads, bodies that are still
//! coming or being worked on, what serving a request costs by itself, and answers that nobody has taken yet. What servers
//! answered and no gateway has taken has a budget of its own, of the same kind.
//!
//! A request is charged to whoever sends it, once that is known, or to the address that it comes from where anybody may
//! ask and as soon as its body is waited for. Before that it is only looked at, so that no stranger holds up those who
//! have a key and come by the same proxy. It is charged until its answer has ended. Strangers have a part of their own, of
//! which one address may have as much as is left when they have it, so half of it alone. Of the other part one organization
//! may have three quarters of what the others leave, and of that each of its keys and members as much as is left when they
//! have it: whoever takes all that they can leaves some to the next, among their own and among others.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use metrics::{Counter, Gauge};
use toolyard_types::network::peer_of;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What a request costs by itself: its stream, its task's part, its handler. The first bytes of its body are in it.
const EACH: usize = 8 << 10;
/// So many bytes of a body are.
const FREE: usize = 2 << 10;
/// What a line of the head, and a piece of a body, costs beside its bytes.
const PIECE: usize = 64;
/// A piece of a body that is shorter is copied: it would keep the whole of what was read with it.
const SHORT: usize = 8 << 10;
/// Who is not known yet has one part of so many.
const STRANGERS: usize = 4;

/// There is no room for (more of) a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too much of requests is in memory here, or of yours (setting `request_memory_mb`); try again in a moment")]
pub struct NoRoom;

impl NoRoom {
    /// What whoever asked is told of a request that was carried out.
    pub const FOR_ITS_ANSWER: &str = "it was carried out, but too many answers that nobody has taken yet are in memory here \
                                      (setting `request_memory_mb`); look at what became of it before you send it again";

    /// This error where it is one of the causes of another.
    #[must_use]
    pub fn of(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        std::iter::successors(Some(error), |error| error.source()).find_map(|error| error.downcast_ref().copied())
    }
}

/// Who a request is charged to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Payer {
    /// Somebody at this address.
    Stranger(Option<IpAddr>),
    /// Somebody who is known, by hashes.
    Known {
        /// Whose part it is, such as an organization.
        owner: u64,
        /// Who of theirs.
        who: u64,
    },
}

impl Payer {
    /// Somebody at this address; an IPv6 /64 is one.
    #[must_use]
    pub fn stranger(address: Option<IpAddr>) -> Self {
        Self::Stranger(address.map(peer_of))
    }

    /// Somebody who is known by what they are called, and by whose part it is.
    #[must_use]
    pub fn known(owner: impl Hash, who: impl Hash) -> Self {
        Self::Known { owner: hashed(owner), who: hashed(who) }
    }
}

fn hashed(name: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

/// The memory of requests. Cheap to clone.
#[derive(Clone)]
pub struct Budget(Arc<Inner>);

struct Inner {
    taken: Mutex<Taken>,
    bytes: Gauge,
    refused: Counter,
}

struct Taken {
    strangers: Part,
    known: Part,
}

struct Part {
    most: usize,
    all: usize,
    of: HashMap<Payer, usize>,
    owners: HashMap<u64, usize>,
}

impl Part {
    fn new(most: usize) -> Self {
        Self { most, all: 0, of: HashMap::new(), owners: HashMap::new() }
    }

    fn take(&mut self, payer: Payer, bytes: usize) -> Result<(), NoRoom> {
        let own = self.of.get(&payer).copied().unwrap_or_default() + bytes;
        let all = self.all + bytes;
        let left = match payer {
            Payer::Stranger(_) => self.most.saturating_sub(all),
            Payer::Known { owner, .. } => {
                let before = self.owners.get(&owner).copied().unwrap_or_default();
                let most = self.most.saturating_sub(self.all - before) / 4 * 3;
                most.saturating_sub(before + bytes)
            }
        };
        if own > left {
            return Err(NoRoom);
        }
        if let Payer::Known { owner, .. } = payer {
            *self.owners.entry(owner).or_default() += bytes;
        }
        self.of.insert(payer, own);
        self.all = all;
        Ok(())
    }

    fn give_back(&mut self, payer: Payer, bytes: usize) {
        self.all -= bytes;
        give_back(&mut self.of, &payer, bytes);
        if let Payer::Known { owner, .. } = payer {
            give_back(&mut self.owners, &owner, bytes);
        }
    }
}

fn give_back<K: Eq + Hash>(of: &mut HashMap<K, usize>, key: &K, bytes: usize) {
    if let Some(own) = of.get_mut(key) {
        *own -= bytes;
        if *own == 0 {
            of.remove(key);
        }
    }
}

impl Taken {
    fn part(&mut self, payer: Payer) -> &mut Part {
        match payer {
            Payer::Stranger(_) => &mut self.strangers,
            Payer::Known { .. } => &mut self.known,
        }
    }
}

impl std::fmt::Debug for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Budget").finish_non_exhaustive()
    }
}

impl Budget {
    /// So many bytes for requests. The process's metrics recorder must be installed before.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        metrics::describe_gauge!("toolyard_request_memory_bytes", "Memory that requests under way are charged.");
        metrics::describe_counter!(
            "toolyard_request_memory_refused_total",
            "Requests refused because too much of requests was in memory."
        );
        let of_strangers = bytes / STRANGERS;
        let (gauge, counter) = ("toolyard_request_memory_bytes", "toolyard_request_memory_refused_total");
        Self::with_parts(of_strangers, bytes - of_strangers, metrics::gauge!(gauge), metrics::counter!(counter))
    }

    /// So many bytes for what servers sent and nobody has taken yet. The process's metrics recorder must be installed before.
    #[must_use]
    pub fn of_servers(bytes: usize) -> Self {
        metrics::describe_gauge!(
            "toolyard_server_message_memory_bytes",
            "Memory of messages of servers that nobody has taken yet."
        );
        metrics::describe_counter!(
            "toolyard_server_message_memory_refused_total",
            "Messages of servers given up because too much of them was in memory."
        );
        let (gauge, counter) = ("toolyard_server_message_memory_bytes", "toolyard_server_message_memory_refused_total");
        Self::with_parts(0, bytes, metrics::gauge!(gauge), metrics::counter!(counter))
    }

    fn with_parts(of_strangers: usize, of_known: usize, bytes: Gauge, refused: Counter) -> Self {
        let (strangers, known) = (Part::new(of_strangers), Part::new(of_known));
        Self(Arc::new(Inner { taken: Mutex::new(Taken { strangers, known }), bytes, refused }))
    }

    /// Takes so many bytes until what is given is dropped.
    ///
    /// # Errors
    /// When there is no room for them.
    pub fn hold(&self, payer: Payer, bytes: usize) -> Result<Held, NoRoom> {
        self.take(payer, bytes)?;
        Ok(Held { budget: self.clone(), payer, bytes })
    }

    /// The charge of a request with this head; a stranger is not charged yet.
    ///
    /// # Errors
    /// When there is no room for it.
    pub fn begin(&self, head: &HeaderMap, payer: Payer) -> Result<Charge, NoRoom> {
        let head = head.iter().map(|(name, value)| name.as_str().len() + value.len() + PIECE);
        let bytes = head.sum::<usize>() + EACH;
        let charge =
            Charge(Arc::new(Charged { budget: self.clone(), now: Mutex::new(Now { payer, bytes, taken: false }) }));
        if matches!(payer, Payer::Known { .. }) {
            charge.settle()?;
        }
        Ok(charge)
    }

    fn take(&self, payer: Payer, bytes: usize) -> Result<(), NoRoom> {
        let mut taken = self.0.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.part(payer).take(payer, bytes) {
            Ok(()) => self.0.bytes.increment(to_f64(bytes)),
            Err(NoRoom) => {
                self.0.refused.increment(1);
                return Err(NoRoom);
            }
        }
        Ok(())
    }

    fn give_back(&self, payer: Payer, bytes: usize) {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner).part(payer).give_back(payer, bytes);
        self.0.bytes.decrement(to_f64(bytes));
    }
}

/// Exact below 4 GiB; a gauge needs no more.
fn to_f64(bytes: usize) -> f64 {
    f64::from(u32::try_from(bytes).unwrap_or(u32::MAX))
}

/// Memory that is in use; given back when dropped.
#[derive(Debug)]
pub struct Held {
    budget: Budget,
    payer: Payer,
    bytes: usize,
}

impl Held {
    /// The same bytes, which are in use until nobody has any of them any more.
    #[must_use]
    pub fn around(self, bytes: Bytes) -> Bytes {
        struct Kept(Bytes, #[expect(dead_code, reason = "dropped with the bytes")] Held);
        impl AsRef<[u8]> for Kept {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        Bytes::from_owner(Kept(bytes, self))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.give_back(self.payer, self.bytes);
    }
}

/// What a request is charged; given back when the last clone is dropped. An extension of every request of a listener.
#[derive(Clone)]
pub struct Charge(Arc<Charged>);

struct Charged {
    budget: Budget,
    now: Mutex<Now>,
}

struct Now {
    payer: Payer,
    bytes: usize,
    /// Whether it is charged.
    taken: bool,
}

impl Charge {
    /// From now on it is known who asks.
    ///
    /// # Errors
    /// When they have no room for it.
    pub fn known(&self, owner: impl Hash, who: impl Hash) -> Result<(), NoRoom> {
        let payer = Payer::known(owner, who);
        let mut now = self.0.now.lock().unwrap_or_else(PoisonError::into_inner);
        if now.taken && now.payer == payer {
            return Ok(());
        }
        self.0.budget.take(payer, now.bytes)?;
        if now.taken {
            self.0.budget.give_back(now.payer, now.bytes);
        }
        (now.payer, now.taken) = (payer, true);
        Ok(())
    }

    /// From now on it is charged, whoever asks.
    ///
    /// # Errors
    /// When there is no room for it.
    pub fn settle(&self) -> Result<(), NoRoom> {
        self.add(0)
    }

    /// Takes so many bytes more, for an answer, until what is given is dropped.
    ///
    /// # Errors
    /// When there is no room for them.
    pub fn hold(&self, bytes: usize) -> Result<Held, NoRoom> {
        let payer = self.0.now.lock().unwrap_or_else(PoisonError::into_inner).payer;
        self.0.budget.hold(payer, bytes)
    }

    fn add(&self, bytes: usize) -> Result<(), NoRoom> {
        let mut now = self.0.now.lock().unwrap_or_else(PoisonError::into_inner);
        let due = if now.taken { bytes } else { now.bytes + bytes };
        if due > 0 {
            self.0.budget.take(now.payer, due)?;
        }
        now.bytes += bytes;
        now.taken = true;
        Ok(())
    }
}

impl Drop for Charged {
    fn drop(&mut self) {
        let now = self.now.get_mut().unwrap_or_else(PoisonError::into_inner);
        if now.taken {
            self.budget.give_back(now.payer, now.bytes);
        }
    }
}

/// A body that is charged for what comes of it, and fails with [`NoRoom`].
pub struct Metered<B> {
    body: B,
    charge: Charge,
    settled: bool,
    received: usize,
}

impl<B> Metered<B> {
    /// A body of the request that this is charged for.
    pub fn new(body: B, charge: Charge) -> Self {
        Self { body, charge, settled: false, received: 0 }
    }
}

impl<B> Body for Metered<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if !this.settled {
            this.charge.settle()?;
            this.settled = true;
        }
        let Some(frame) = ready!(Pin::new(&mut this.body).poll_frame(cx)) else { return Poll::Ready(None) };
        let frame = frame.map_err(Into::into)?;
        let ended = this.body.is_end_stream();
        let Ok(data) = frame.into_data() else { return Poll::Ready(None) };
        this.received = this.received.saturating_add(data.len() + PIECE);
        if this.received > FREE {
            // What was free so far is paid with the first that is not.
            let before = this.received - data.len() - PIECE;
            let due = if before <= FREE { this.received - FREE } else { data.len() + PIECE };
            this.charge.add(due)?;
        }
        let data = if data.len() < SHORT && !ended { Bytes::copy_from_slice(&data) } else { data };
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, Full, StreamBody};

    const KIB: usize = 1 << 10;

    fn request(budget: &Budget, payer: Payer) -> Result<Charge, NoRoom> {
        let charge = budget.begin(&HeaderMap::new(), payer)?;
        charge.settle()?;
        Ok(charge)
    }

    #[test]
    fn whoever_takes_all_they_can_leaves_room_for_others_known_or_not() {
        let budget = Budget::new(1024 * KIB);
        let address = IpAddr::from([192, 0, 2, 1]);
        let greedy = Payer::stranger(Some(address));
        let held: Vec<_> = std::iter::from_fn(|| request(&budget, greedy).ok()).collect();
        assert_eq!(held.len(), 16, "half of a quarter");
        assert!(request(&budget, Payer::stranger(Some(IpAddr::from([192, 0, 2, 2])))).is_ok());
        let keyed = budget.begin(&HeaderMap::new(), greedy).expect("nobody is charged before they are known");
        assert_eq!(keyed.known("acme", "somebody at the same address"), Ok(()));
        drop(keyed);
        let known: Vec<_> = std::iter::from_fn(|| request(&budget, Payer::known("acme", "greedy")).ok()).collect();
        assert_eq!(known.len(), 36, "half of three quarters of three quarters");
        assert!(request(&budget, Payer::known("acme", "other")).is_ok());
        assert_eq!(held[0].known("acme", "greedy"), Err(NoRoom));
        assert_eq!(held[0].known("acme", "other"), Ok(()));
        assert!(request(&budget, greedy).is_ok(), "that one is the other's now");
        drop((held, known));
        let taken = budget.0.taken.lock().expect("no panic");
        assert_eq!((taken.strangers.all, taken.known.all), (0, 0));
        assert!(taken.strangers.of.is_empty() && taken.known.of.is_empty());
    }

    #[tokio::test]
    async fn a_body_is_taken_while_there_is_room_and_paid_for_until_its_request_has_ended() {
        let budget = Budget::new(1024 * KIB);
        let charge = request(&budget, Payer::known("acme", "a")).expect("room");
        let large = |bytes: usize| Full::new(Bytes::from(vec![b'x'; bytes]));
        let whole = Metered::new(large(250 * KIB), charge.clone()).collect().await.expect("room").to_bytes();
        assert_eq!(whole.len(), 250 * KIB);
        let other = request(&budget, Payer::known("acme", "a")).expect("room");
        let error = Metered::new(large(250 * KIB), other).collect().await.expect_err("no room for two");
        assert!(NoRoom::of(&*error).is_some());
        drop(charge);
        let other = request(&budget, Payer::known("acme", "a")).expect("room");
        Metered::new(large(250 * KIB), other).collect().await.expect("room again");
    }

    #[test]
    fn an_organization_of_many_keys_leaves_room_for_others_and_each_key_for_the_next() {
        let budget = Budget::of_servers(1024 * KIB);
        let take = |owner: &'static str, who: usize| {
            std::iter::from_fn(|| budget.hold(Payer::known(owner, who), 16 * KIB).ok()).collect::<Vec<_>>()
        };
        let held: Vec<_> = (0..100).map(|key| take("greedy", key)).collect();
        assert!(!held[1].is_empty(), "the first key has left some");
        assert!(held.iter().map(Vec::len).sum::<usize>() <= 48, "three quarters at most");
        assert!(take("other", 0).len() >= 6, "three quarters of the rest, half of it for one key");
        drop(held);
        let taken = budget.0.taken.lock().expect("no panic");
        assert!(taken.known.owners.is_empty() && taken.known.of.is_empty());
    }

    #[test]
    fn what_is_held_is_in_use_until_nobody_has_any_of_it() {
        let budget = Budget::of_servers(100 * KIB);
        let hold = |who: &str| budget.hold(Payer::known("acme", who), 20 * KIB);
        let (first, other) = (hold("a").expect("room"), hold("b").expect("room"));
        assert!(hold("a").is_err() && hold("b").is_err());
        let bytes = first.around(Bytes::from(vec![b'x'; 20 * KIB]));
        let part = bytes.slice(..1);
        drop((bytes, other));
        assert!(hold("a").is_err(), "a part of it is in use");
        drop(part);
        drop(hold("a").expect("room again"));
        assert_eq!(budget.0.taken.lock().expect("no panic").known.all, 0);
    }

    #[tokio::test]
    async fn a_body_of_single_bytes_is_charged_what_it_costs() {
        let budget = Budget::new(1024 * KIB);
        let drops = futures_util::stream::iter((0..100_000).map(|_| {
            let read = Bytes::from(vec![b'x'; 10_000]);
            Ok::<_, BoxError>(Frame::data(read.slice(..1)))
        }));
        let charge = request(&budget, Payer::known("acme", "a")).expect("room");
        let error = Metered::new(StreamBody::new(drops), charge).collect().await.expect_err("too many pieces");
        assert!(NoRoom::of(&*error).is_some());
    }
}
