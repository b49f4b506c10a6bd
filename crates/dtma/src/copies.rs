//! Copies of an instance: one for each user or session, started when they first call.
//!
//! The revision says whether there are any (`instancing`). The *base*, the instance that the control plane knows,
//! runs all the time and answers what is asked of everybody's server: its lists, its changes, its handshake. A
//! message with a key goes to that key's copy: an instance of its own kind beside the base, from the same package
//! and with the same secrets, with a directory, a user id or a container, and limits of its own. It is started by the
//! first call, kept while it is called, and stopped when its session has ended or no call came for a while. At most so
//! many run at once: then one gives way to who comes, if one may ([`who_gives_way`]), and the new one is started once
//! nothing of that one runs any more. Some may be started ahead, to be given to keys that come.
//!
//! Nobody else knows of copies: what is told of the base says how many there are, and their logs are the base's,
//! each line with the first letters of the key. They end with the base. A restarted agent goes on with those that
//! still run: whose they are is in their directories.
//!
//! A key is what gateways made of whoever calls: opaque here, and nothing a person could be known by.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;
use toolyard_mcp::stdio::{Connection, Principal};
use toolyard_types::InstanceId;
use toolyard_types::agent::Failure;
use toolyard_types::spec::{Instancing, InstancingMode};
use toolyard_types::state::{Phase, Reason};

use crate::agent::{Entry, FoundServer, Inner};
use crate::desired::{read_state, write_whole};
use crate::instance::Journal;
use crate::packages::failure;
use crate::plan::Goal;
use crate::slot::Slot;

const FILE: &str = "copy.json";
const LONGEST_KEY: usize = 64;
/// So much of a key is shown.
const SHOWN: usize = 8;
/// How long nobody has called a copy that gives way to a caller who has not clearly less than its own.
const QUIET: Duration = Duration::from_secs(60);

pub(crate) fn describe_metrics() {
    metrics::describe_counter!(
        "toolyard_dtma_copies_gave_way_total",
        "Copies of instances that were ended for another caller's, because as many ran as may."
    );
}

/// Whose copy a message is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Key(String);

impl Key {
    /// Reads one as it is sent; `None` when it is none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let good = (1..=LONGEST_KEY).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        good.then(|| Self(text.to_owned()))
    }

    fn shown(&self) -> &str {
        &self.0[..self.0.len().min(SHOWN)]
    }
}

/// What is remembered of a copy, also on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CopyOf {
    /// What it is a copy of.
    pub(crate) base: InstanceId,
    /// Whose it is; nobody's yet when it was started ahead.
    pub(crate) key: Option<Key>,
    /// Its user, where servers have users of their own.
    pub(crate) uid: Option<u32>,
    /// What its lines in the log begin with.
    pub(crate) mark: String,
}

impl CopyOf {
    /// What is written in a directory, if it is a copy's.
    pub(crate) fn load(dir: &Path) -> Option<Self> {
        read_state(&dir.join(FILE), "nobody knows whose copy it was, and it ends")
    }

    /// # Errors
    /// When it cannot be written.
    pub(crate) fn save(&self, dir: &Path) -> std::io::Result<()> {
        write_whole(&dir.join(FILE), &serde_json::to_vec(self)?)
    }
}

/// Where an instance's log is, and what its lines begin with.
#[derive(Clone, Debug)]
pub(crate) struct LogPlace {
    pub(crate) dir: std::path::PathBuf,
    pub(crate) mark: String,
}

/// How a copy is used.
#[derive(Debug)]
pub(crate) struct Usage {
    used: Mutex<Used>,
    /// Rises when the last call of one has ended that nobody needs any more.
    changed: watch::Sender<u64>,
}

#[derive(Debug)]
struct Used {
    calls: usize,
    last: Instant,
    /// Whether its session has ended.
    is_over: bool,
}

impl Usage {
    fn new(changed: watch::Sender<u64>) -> Arc<Self> {
        let used = Used { calls: 0, last: Instant::now(), is_over: false };
        Arc::new(Self { used: Mutex::new(used), changed })
    }

    fn locked(&self) -> MutexGuard<'_, Used> {
        // Nothing that holds it can panic half-way through a change.
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.locked().is_over
    }

    fn begin(self: &Arc<Self>) -> InUse {
        self.locked().calls += 1;
        InUse(Arc::clone(self))
    }

    /// For how long nobody has called; none while somebody does.
    fn idle_for(&self) -> Option<Duration> {
        let used = self.locked();
        (used.calls == 0).then(|| used.last.elapsed())
    }
}

/// A call on a copy; while it lasts the copy is kept.
#[derive(Debug)]
pub(crate) struct InUse(Arc<Usage>);

impl Drop for InUse {
    fn drop(&mut self) {
        let mut used = self.0.locked();
        used.calls = used.calls.saturating_sub(1);
        used.last = Instant::now();
        let ends = used.is_over && used.calls == 0;
        drop(used);
        if ends {
            self.0.changed.send_modify(|count| *count += 1);
        }
    }
}

/// A copy in the agent's table.
pub(crate) struct Copy {
    pub(crate) base: InstanceId,
    key: Option<Key>,
    /// Whose it is, as far as gateways told since this agent began.
    owner: Option<Principal>,
    usage: Arc<Usage>,
}

/// Why a copy ends while its instance goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    SessionEnded,
    Unused,
    GaveWay,
}

impl Why {
    fn text(self) -> &'static str {
        match self {
            Self::SessionEnded => "this copy ends: its session has ended",
            Self::Unused => "this copy ends: nobody has called it for a while; what it kept is gone",
            Self::GaveWay => {
                "this copy gives way to another one, because as many run as may; what it kept is gone, and the next call \
                 of its user or session starts a new one"
            }
        }
    }
}

/// Where a message goes.
pub(crate) enum Destination {
    /// To the instance it names.
    Base(Arc<Slot>),
    /// To a copy of it, which may still be starting.
    Copy(Arc<Slot>, InUse),
}

impl Inner {
    /// Where a message to `id` goes; none when there is no such instance.
    ///
    /// # Errors
    /// When it is for a copy and no more may be started.
    pub(crate) fn destination(
        self: &Arc<Self>,
        id: InstanceId,
        key: Option<Key>,
        owner: Option<Principal>,
    ) -> Result<Option<Destination>, Failure> {
        let mut table = self.instances();
        let Some(entry) = table.get(&id) else { return Ok(None) };
        let Some(key) = key.filter(|_| entry.instancing.mode != InstancingMode::Shared) else {
            return Ok(Some(Destination::Base(Arc::clone(&entry.slot))));
        };
        if *entry.goal.borrow() != Goal::Run {
            // It says itself why it takes nothing.
            return Ok(Some(Destination::Base(Arc::clone(&entry.slot))));
        }
        let instancing = entry.instancing.clone();
        if let Some((slot, copy)) = copy_of_key(&mut table, id, &key) {
            copy.owner = owner.or(copy.owner);
            return Ok(Some(Destination::Copy(slot, copy.usage.begin())));
        }
        let copy = match take_warm(&mut table, id) {
            Some(copy) => copy,
            None => self.start_copy(&mut table, id, &instancing, Some((&key, owner)))?,
        };
        let entry = table.get_mut(&copy).expect("it was just found or put there");
        let slot = Arc::clone(&entry.slot);
        let kept = entry.copy.as_mut().expect("it is a copy");
        (kept.key, kept.owner) = (Some(key.clone()), owner);
        let in_use = kept.usage.begin();
        drop(table);
        self.give(copy, key);
        // One that was started ahead is replaced.
        self.copies_changed.send_modify(|count| *count += 1);
        Ok(Some(Destination::Copy(slot, in_use)))
    }

    /// The copies of a key that answer, also one that is being stopped; none when what has that key goes to the instance
    /// itself, or there is no such instance.
    pub(crate) fn answering_copies(&self, base: InstanceId, key: &Key) -> Option<Vec<Connection>> {
        let table = self.instances();
        table.get(&base).filter(|entry| entry.instancing.mode != InstancingMode::Shared)?;
        let has_key = |entry: &&Entry| entry.copy.as_ref().is_some_and(|copy| copy.key.as_ref() == Some(key));
        Some(copies_of(&table, base).filter(has_key).filter_map(|entry| entry.slot.connection()).collect())
    }

    /// Takes that nobody needs the copy of a key any more: it ends now, or after the calls that it has.
    pub(crate) fn copy_is_over(&self, base: InstanceId, key: &Key) {
        let mut table = self.instances();
        let Some((_, copy)) = copy_of_key(&mut table, base, key) else { return };
        copy.usage.locked().is_over = true;
        drop(table);
        self.copies_changed.send_modify(|count| *count += 1);
    }

    /// Notes whose a copy is now, for the next agent.
    fn give(&self, copy: InstanceId, key: Key) {
        let Some(noted) = self.context.note_copy(copy, |noted| noted.key = Some(key)) else { return };
        let dir = self.context.instance_dir(copy);
        tokio::task::spawn_blocking(move || {
            // Without its directory it has not begun, and begins by writing this.
            if dir.exists()
                && let Err(error) = noted.save(&dir)
            {
                tracing::warn!(instance.id = %copy, %error, "note whose a copy is");
            }
        });
    }

    /// Starts a copy, for `whose` or ahead. Where there are as many as may be one gives way to it, and it waits until nothing
    /// of that one runs any more.
    fn start_copy(
        self: &Arc<Self>,
        table: &mut BTreeMap<InstanceId, Entry>,
        base: InstanceId,
        instancing: &Instancing,
        whose: Option<(&Key, Option<Principal>)>,
    ) -> Result<InstanceId, Failure> {
        let most = most(instancing);
        let full = || {
            let message =
                format!("{most} copies of the server run already, which is as many as may, and none may give way");
            failure(Reason::NoCapacity, message)
        };
        let kept = held(table, base);
        let gives_way = match whose {
            // Nothing makes room for what nobody has asked for yet.
            None if there(table, base).count() >= most => return Err(full()),
            Some((_, owner)) if kept.len() >= most => Some(who_gives_way(&kept, owner).ok_or_else(full)?),
            _ => None,
        };
        let key = whose.map(|(key, _)| key);
        let id = InstanceId::generate();
        let desired = self.context.desired_as(base, id);
        let desired = desired.ok_or_else(|| failure(Reason::Superseded, "the instance is no longer wanted"))?;
        self.context
            .add_copy(id, base, key.cloned(), mark(id, key))
            .map_err(|error| failure(Reason::NoCapacity, format!("there is no user for one more copy: {error}")))?;
        if let Some(held) = gives_way
            && let Some(entry) = table.get(&held.id)
        {
            let why = if held.is_over { Why::SessionEnded } else { Why::GaveWay };
            if why == Why::GaveWay {
                metrics::counter!("toolyard_dtma_copies_gave_way_total").increment(1);
            }
            self.end_copy(held.id, base, entry, why);
        }
        let goal = if running(table, base) < most { Goal::Run } else { Goal::Prepare };
        let known_era = table.get(&base).and_then(|entry| entry.slot.era());
        let usage = Usage::new(self.copies_changed.clone());
        let copy = Copy { base, key: key.cloned(), owner: whose.and_then(|(_, owner)| owner), usage };
        self.put(table, desired, goal, None, Some(copy), known_era);
        Ok(id)
    }

    /// Has a copy end, and says why in the log.
    fn end_copy(&self, id: InstanceId, base: InstanceId, entry: &Entry, why: Why) {
        entry.goal.send_replace(Goal::Stop);
        tracing::debug!(instance.id = %base, copy.id = %id, "{}", why.text());
        let context = Arc::clone(&self.context);
        let place = context.log_place(id, &context.instance_dir(id));
        tokio::task::spawn_blocking(move || {
            // Its base is kept until its copies are gone; only what is left of one must not be made anew.
            if place.dir.exists() {
                Journal::open(&context, &place, &BTreeMap::new()).write(why.text());
            }
        });
    }

    /// Starts copies that waited until others had ended.
    fn start_waiting(table: &BTreeMap<InstanceId, Entry>) {
        for entry in table.values().filter(|entry| *entry.goal.borrow() == Goal::Prepare) {
            let Some(copy) = &entry.copy else { continue };
            let has_room = table.get(&copy.base).is_some_and(|base| running(table, copy.base) < most(&base.instancing));
            if has_room {
                entry.goal.send_replace(Goal::Run);
            }
        }
    }

    /// Goes on with a copy that an earlier agent started.
    pub(crate) fn adopt_copy(self: &Arc<Self>, noted: CopyOf, (saved, running): FoundServer) {
        let desired = self.context.known(saved.id).unwrap_or(saved);
        // One of nobody's may have been given to somebody just before its agent ended: nobody else gets it.
        let goal = if noted.key.is_some() { Goal::Run } else { Goal::Stop };
        let usage = Usage::new(self.copies_changed.clone());
        let copy = Copy { base: noted.base, key: noted.key, owner: None, usage };
        self.put(&mut self.instances(), desired, goal, Some(running), Some(copy), None);
    }

    /// Ends what is left of copies that an earlier agent had and that do not run any more.
    pub(crate) async fn forget_lost_copies(&self) {
        for id in self.context.noted_copies() {
            if !self.instances().contains_key(&id) {
                self.context.end_process_leftovers(id).await;
                self.context.forget_copy(id);
                self.remove_instance_dir(id);
            }
        }
    }

    /// Stops copies that nobody calls or needs or whose base is to end, forgets those that have ended, starts those that
    /// waited for that and some ahead, and tells how many there are. Returns when to look again.
    pub(crate) fn tend_copies(self: &Arc<Self>) -> Option<Instant> {
        let mut table = self.instances();
        let mut ended = Vec::new();
        let mut next: Option<Duration> = None;
        for (id, entry) in table.iter() {
            let Some(copy) = &entry.copy else { continue };
            if entry.slot.ended().0 {
                ended.push(*id);
                continue;
            }
            if *entry.goal.borrow() == Goal::Stop {
                continue;
            }
            let base = table.get(&copy.base).filter(|base| *base.goal.borrow() == Goal::Run);
            let Some(base) = base else {
                entry.goal.send_replace(Goal::Stop);
                continue;
            };
            let idle_stop = Duration::from_millis(base.instancing.idle_stop_ms);
            match copy.usage.idle_for().filter(|_| copy.key.is_some()) {
                Some(_) if copy.usage.is_over() => self.end_copy(*id, copy.base, entry, Why::SessionEnded),
                Some(idle) if idle >= idle_stop => self.end_copy(*id, copy.base, entry, Why::Unused),
                Some(idle) => next = Some(next.unwrap_or(Duration::MAX).min(idle_stop - idle)),
                None => {}
            }
        }
        for id in ended {
            table.remove(&id);
            self.context.forget_copy(id);
            self.remove_instance_dir(id);
        }
        Self::start_waiting(&table);
        self.start_ahead(&mut table);
        if self.count_copies(&table) {
            drop(table);
            self.changed.send_modify(|count| *count += 1);
        }
        next.map(|wait| Instant::now() + wait)
    }

    fn start_ahead(self: &Arc<Self>, table: &mut BTreeMap<InstanceId, Entry>) {
        let bases = table.iter().filter(|(_, base)| {
            let ahead = base.copy.is_none() && base.instancing.mode != InstancingMode::Shared;
            ahead && base.instancing.warm > 0 && *base.goal.borrow() == Goal::Run
        });
        // What cannot start itself has no copies ahead.
        let ready = bases.filter(|(_, base)| base.slot.status().phase == Phase::Ready);
        let ready: Vec<_> = ready.map(|(id, base)| (*id, base.instancing.clone())).collect();
        for (base, instancing) in ready {
            let warm = copies_of(table, base).filter(|entry| entry.copy.as_ref().is_some_and(|it| it.key.is_none()));
            let missing = usize::try_from(instancing.warm).unwrap_or(usize::MAX).saturating_sub(warm.count());
            for _ in 0..missing {
                if self.start_copy(table, base, &instancing, None).is_err() {
                    break;
                }
            }
        }
    }

    /// Notes how many copies of each base answer; whether one has more or fewer than before.
    fn count_copies(&self, table: &BTreeMap<InstanceId, Entry>) -> bool {
        let mut counts: BTreeMap<InstanceId, u32> = BTreeMap::new();
        for entry in table.values() {
            if let Some(copy) = entry.copy.as_ref().filter(|_| entry.slot.connection().is_some()) {
                *counts.entry(copy.base).or_default() += 1;
            }
        }
        let mut differs = false;
        for (id, entry) in table.iter().filter(|(_, entry)| entry.copy.is_none()) {
            let count = counts.get(id).copied().unwrap_or_default();
            let mut state = entry.slot.state();
            differs |= std::mem::replace(&mut state.observed.copies, count) != count;
        }
        differs
    }

    /// The bases that copies, running or ending, are left of.
    pub(crate) fn copied(table: &BTreeMap<InstanceId, Entry>) -> BTreeSet<InstanceId> {
        table.values().filter_map(|entry| Some(entry.copy.as_ref()?.base)).collect()
    }
}

fn copies_of(table: &BTreeMap<InstanceId, Entry>, base: InstanceId) -> impl Iterator<Item = &Entry> {
    table.values().filter(move |entry| entry.copy.as_ref().is_some_and(|copy| copy.base == base))
}

/// Those of which something may run, or is to.
fn there(table: &BTreeMap<InstanceId, Entry>, base: InstanceId) -> impl Iterator<Item = &Entry> {
    copies_of(table, base).filter(|entry| !entry.slot.ended().0)
}

/// How many copies have a process, also one that is being stopped, or may have one at any moment.
fn running(table: &BTreeMap<InstanceId, Entry>, base: InstanceId) -> usize {
    there(table, base).filter(|entry| *entry.goal.borrow() != Goal::Prepare).count()
}

fn most(instancing: &Instancing) -> usize {
    usize::try_from(instancing.max_copies).unwrap_or(usize::MAX)
}

/// The copy of a key, unless it is being stopped: then the key gets a new one.
fn copy_of_key<'a>(
    table: &'a mut BTreeMap<InstanceId, Entry>,
    base: InstanceId,
    key: &Key,
) -> Option<(Arc<Slot>, &'a mut Copy)> {
    table.values_mut().find_map(|entry| {
        let stays = *entry.goal.borrow() != Goal::Stop;
        let is_it = |copy: &&mut Copy| stays && copy.base == base && copy.key.as_ref() == Some(key);
        let copy = entry.copy.as_mut().filter(is_it)?;
        Some((Arc::clone(&entry.slot), copy))
    })
}

/// A copy that is not being stopped, as far as it matters to whether it gives way.
struct Held {
    id: InstanceId,
    owner: Option<Principal>,
    /// For how long nobody has called; none while somebody does, or waits for it to start.
    idle: Option<Duration>,
    is_over: bool,
}

fn held(table: &BTreeMap<InstanceId, Entry>, base: InstanceId) -> Vec<Held> {
    let copies = table.iter().filter(|(_, entry)| *entry.goal.borrow() != Goal::Stop);
    let held = copies.filter_map(|(id, entry)| {
        let copy = entry.copy.as_ref().filter(|copy| copy.base == base)?;
        let (idle, is_over) = (copy.usage.idle_for(), copy.usage.is_over());
        Some(Held { id: *id, owner: copy.owner, idle, is_over })
    });
    held.collect()
}

/// Which copy gives way to a new one of `owner`; never one with a call. In this order, of several the one that was
/// called the longest time ago: one whose session has ended; one of `owner`'s own; one of who has most, if they have two
/// more than `owner`; one that nobody has called for a while, unless it is known that its owner has no more than `owner`.
fn who_gives_way(copies: &[Held], owner: Option<Principal>) -> Option<&Held> {
    let count = |owner: Principal| copies.iter().filter(|copy| copy.owner == Some(owner)).count();
    let own = owner.map(count);
    let more = |copy: &Held| Some(count(copy.owner?).saturating_sub(own?));
    let idle: Vec<_> = copies.iter().filter_map(|copy| Some((copy, copy.idle?))).collect();
    let longest = |may: &dyn Fn(&Held, Duration) -> bool| {
        idle.iter().filter(|(copy, idle)| may(copy, *idle)).max_by_key(|(_, idle)| *idle)
    };
    let of_most = || {
        let rich = idle.iter().filter(|(copy, _)| more(copy).is_some_and(|more| more >= 2));
        rich.max_by_key(|(copy, idle)| (more(copy), *idle))
    };
    longest(&|copy, _| copy.is_over)
        .or_else(|| longest(&|copy, _| owner.is_some() && copy.owner == owner))
        .or_else(of_most)
        .or_else(|| longest(&|copy, idle| idle >= QUIET && more(copy).is_none_or(|more| more >= 1)))
        .map(|(copy, _)| *copy)
}

/// A copy that was started ahead, rather one that answers already.
fn take_warm(table: &mut BTreeMap<InstanceId, Entry>, base: InstanceId) -> Option<InstanceId> {
    let warm = table.iter().filter(|(_, entry)| {
        let free = entry.copy.as_ref().is_some_and(|copy| copy.base == base && copy.key.is_none());
        free && *entry.goal.borrow() == Goal::Run
    });
    warm.max_by_key(|(_, entry)| entry.slot.connection().is_some()).map(|(id, _)| *id)
}

fn mark(id: InstanceId, key: Option<&Key>) -> String {
    match key {
        Some(key) => format!("[{}] ", key.shown()),
        None => {
            let id = id.to_string();
            format!("[ahead {}] ", &id[id.len().saturating_sub(SHOWN)..])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_short_opaque_word() {
        let hash = "a".repeat(64);
        for good in ["a", "A-b_9", hash.as_str()] {
            assert!(Key::parse(good).is_some(), "{good}");
        }
        let long = "a".repeat(65);
        for bad in ["", "a b", "a/b", "..", "a\u{e9}", long.as_str()] {
            assert!(Key::parse(bad).is_none(), "{bad}");
        }
        assert_eq!(Key::parse(&hash).expect("a key").shown().len(), SHOWN);
    }

    /// Copies of owners by number, 0 for one that is not known, and for how many seconds nobody has called each.
    fn copies(all: &[(u128, Option<u64>)]) -> Vec<Held> {
        let held = all.iter().map(|(owner, idle)| Held {
            id: InstanceId::generate(),
            owner: (*owner > 0).then_some(Principal(*owner)),
            idle: idle.map(Duration::from_secs),
            is_over: false,
        });
        held.collect()
    }

    /// The place of the one that gives way to a new one of `owner`.
    fn gives_way(copies: &[Held], owner: u128) -> Option<usize> {
        let gives = who_gives_way(copies, (owner > 0).then_some(Principal(owner)))?;
        copies.iter().position(|copy| copy.id == gives.id)
    }

    #[test]
    fn one_of_an_ended_session_gives_way_first_and_then_the_longest_idle_of_the_same_caller() {
        let mut all = copies(&[(1, Some(90)), (1, Some(5)), (2, Some(70)), (1, Some(1))]);
        assert_eq!(gives_way(&all, 1), Some(0));
        all[3].is_over = true;
        assert_eq!(gives_way(&all, 1), Some(3));
        assert_eq!(gives_way(&all, 2), Some(3));
    }

    #[test]
    fn one_of_who_has_most_gives_way_to_who_has_two_less() {
        let all = copies(&[(1, Some(2)), (1, Some(5)), (1, Some(1)), (2, Some(50)), (2, None)]);
        assert_eq!(gives_way(&all, 3), Some(1));
        // Their own comes first, and one more is not two more.
        assert_eq!(gives_way(&all, 2), Some(3));
        let all = copies(&[(1, Some(2)), (1, Some(5)), (2, None)]);
        assert_eq!((gives_way(&all, 2), gives_way(&all, 3)), (None, Some(1)));
    }

    #[test]
    fn one_that_was_quiet_for_a_minute_gives_way_except_to_who_has_as_many() {
        let quiet = copies(&[(1, Some(59)), (2, Some(60)), (3, None)]);
        assert_eq!((gives_way(&quiet, 4), gives_way(&quiet, 3)), (Some(1), None));
        // Of older gateways nobody knows whose it is.
        assert_eq!(gives_way(&quiet, 0), Some(1));
        let unknown = copies(&[(0, Some(59)), (0, Some(61)), (1, None)]);
        assert_eq!((gives_way(&unknown, 0), gives_way(&unknown, 1)), (Some(1), Some(1)));
        assert_eq!(gives_way(&copies(&[(0, Some(59)), (1, Some(59)), (0, None)]), 0), None);
    }

    #[test]
    fn one_with_a_call_never_gives_way() {
        let mut all = copies(&[(1, None), (1, None), (1, None)]);
        all[0].is_over = true;
        assert_eq!((gives_way(&all, 1), gives_way(&all, 2), gives_way(&all, 0)), (None, None, None));
    }

    #[tokio::test]
    async fn one_that_nobody_needs_says_when_its_last_call_has_ended() {
        let changed = watch::Sender::new(0);
        let usage = Usage::new(changed.clone());
        let (one, two) = (usage.begin(), usage.begin());
        usage.locked().is_over = true;
        drop(one);
        assert_eq!(*changed.borrow(), 0);
        drop(two);
        assert_eq!(*changed.borrow(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_copy_is_idle_from_the_end_of_its_last_call() {
        let usage = Usage::new(watch::Sender::new(0));
        let (one, two) = (usage.begin(), usage.begin());
        tokio::time::advance(Duration::from_secs(5)).await;
        drop(one);
        assert_eq!(usage.idle_for(), None);
        drop(two);
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(usage.idle_for(), Some(Duration::from_secs(3)));
    }
}
