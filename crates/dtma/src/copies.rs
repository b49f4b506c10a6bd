//! Copies of an instance: one for each user or session, started when they first call.
//!
//! The revision says whether there are any (`instancing`). The *base*, the instance that the control plane knows,
//! runs all the time and answers what is asked of everybody's server: its lists, its changes, its handshake. A
//! message with a key goes to that key's copy: an instance of its own kind beside the base, from the same package
//! and with the same secrets, with a directory, a user id or a container, and limits of its own. It is started by the
//! first call, kept while it is called, and stopped when no call came for a while. At most so many run at once; some
//! may be started ahead, to be given to keys that come.
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
use tokio::time::Instant;
use toolyard_types::InstanceId;
use toolyard_types::agent::Failure;
use toolyard_types::spec::{Instancing, InstancingMode};
use toolyard_types::state::{Phase, Reason};

use crate::agent::{Entry, FoundServer, Inner};
use crate::desired::{read_state, write_whole};
use crate::packages::failure;
use crate::plan::Goal;
use crate::slot::Slot;

const FILE: &str = "copy.json";
const LONGEST_KEY: usize = 64;
/// So much of a key is shown.
const SHOWN: usize = 8;

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
pub(crate) struct Usage(Mutex<Used>);

#[derive(Debug)]
struct Used {
    calls: usize,
    last: Instant,
}

impl Usage {
    fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Used { calls: 0, last: Instant::now() })))
    }

    fn locked(&self) -> MutexGuard<'_, Used> {
        // Nothing that holds it can panic half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
    }
}

/// A copy in the agent's table.
pub(crate) struct Copy {
    pub(crate) base: InstanceId,
    key: Option<Key>,
    usage: Arc<Usage>,
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
        if let Some((entry, usage)) = copy_of_key(&table, id, &key) {
            return Ok(Some(Destination::Copy(Arc::clone(&entry.slot), usage.begin())));
        }
        let copy = match take_warm(&mut table, id) {
            Some(copy) => copy,
            None => self.start_copy(&mut table, id, &instancing, Some(&key))?,
        };
        let entry = table.get_mut(&copy).expect("it was just found or put there");
        let slot = Arc::clone(&entry.slot);
        let kept = entry.copy.as_mut().expect("it is a copy");
        kept.key = Some(key.clone());
        let in_use = kept.usage.begin();
        drop(table);
        self.give(copy, key);
        // One that was started ahead is replaced.
        self.copies_changed.send_modify(|count| *count += 1);
        Ok(Some(Destination::Copy(slot, in_use)))
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

    fn start_copy(
        self: &Arc<Self>,
        table: &mut BTreeMap<InstanceId, Entry>,
        base: InstanceId,
        instancing: &Instancing,
        key: Option<&Key>,
    ) -> Result<InstanceId, Failure> {
        let running = copies_of(table, base).count();
        if running >= usize::try_from(instancing.max_copies).unwrap_or(usize::MAX) {
            let message = format!("{running} copies of the server run already, which is as many as may");
            return Err(failure(Reason::NoCapacity, message));
        }
        let id = InstanceId::generate();
        let desired = self.context.desired_as(base, id);
        let desired = desired.ok_or_else(|| failure(Reason::Superseded, "the instance is no longer wanted"))?;
        self.context
            .add_copy(id, base, key.cloned(), mark(id, key))
            .map_err(|error| failure(Reason::NoCapacity, format!("there is no user for one more copy: {error}")))?;
        let known_era = table.get(&base).and_then(|entry| entry.slot.era());
        let copy = Copy { base, key: key.cloned(), usage: Usage::new() };
        self.put(table, desired, Goal::Run, None, Some(copy), known_era);
        Ok(id)
    }

    /// Goes on with a copy that an earlier agent started.
    pub(crate) fn adopt_copy(self: &Arc<Self>, noted: CopyOf, (saved, running): FoundServer) {
        let desired = self.context.known(saved.id).unwrap_or(saved);
        // One of nobody's may have been given to somebody just before its agent ended: nobody else gets it.
        let goal = if noted.key.is_some() { Goal::Run } else { Goal::Stop };
        let copy = Copy { base: noted.base, key: noted.key, usage: Usage::new() };
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

    /// Stops copies that nobody calls or whose base is to end, forgets those that have ended, starts some ahead, and
    /// tells how many there are. Returns when to look again.
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
                Some(idle) if idle >= idle_stop => {
                    tracing::debug!(instance.id = %copy.base, copy.id = %id, "stopping a copy that nobody calls");
                    entry.goal.send_replace(Goal::Stop);
                }
                Some(idle) => next = Some(next.unwrap_or(Duration::MAX).min(idle_stop - idle)),
                None => {}
            }
        }
        for id in ended {
            table.remove(&id);
            self.context.forget_copy(id);
            self.remove_instance_dir(id);
        }
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

/// The copy of a key, unless it is being stopped: then the key gets a new one.
fn copy_of_key<'a>(
    table: &'a BTreeMap<InstanceId, Entry>,
    base: InstanceId,
    key: &Key,
) -> Option<(&'a Entry, &'a Arc<Usage>)> {
    let mut copies = copies_of(table, base).filter(|entry| *entry.goal.borrow() == Goal::Run);
    copies.find_map(|entry| {
        let copy = entry.copy.as_ref().filter(|copy| copy.key.as_ref() == Some(key))?;
        Some((entry, &copy.usage))
    })
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

    #[tokio::test(start_paused = true)]
    async fn a_copy_is_idle_from_the_end_of_its_last_call() {
        let usage = Usage::new();
        let (one, two) = (usage.begin(), usage.begin());
        tokio::time::advance(Duration::from_secs(5)).await;
        drop(one);
        assert_eq!(usage.idle_for(), None);
        drop(two);
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(usage.idle_for(), Some(Duration::from_secs(3)));
    }
}
