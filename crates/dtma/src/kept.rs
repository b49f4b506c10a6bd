//! Logs of what is gone: of instances that were forgotten, and of jobs. Kept per server and revision, so that a failed
//! deployment can be looked into, and bounded in number, size and age.
//!
//! Each has a directory named by its instance or job, with the log as [`crate::process::log`] writes it and what it is
//! of. Logs of servers that the control plane does not know any more go with the next collection.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toolyard_types::agent::DesiredInstance;
use toolyard_types::{RevisionId, ServerId, Timestamp};

use crate::desired::write_whole;
use crate::process::log::LOGS;

const FILE: &str = "of.json";
/// How many are kept of a revision, and of a server.
const PER_REVISION: usize = 3;
const PER_SERVER: usize = 20;
/// How much is kept in all, and for how long.
const MAX_BYTES: u64 = 256 << 20;
const KEEP_FOR: Duration = Duration::from_secs(14 * 24 * 3600);

/// What a log is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Of {
    pub(crate) server: ServerId,
    pub(crate) revision: RevisionId,
    /// When what it is of began or ended.
    pub(crate) at: Timestamp,
}

/// The kept logs of an agent.
#[derive(Debug)]
pub(crate) struct KeptLogs {
    dir: PathBuf,
    /// Held by who makes and who removes: what has no [`FILE`] while it is free was never finished.
    turn: Mutex<()>,
}

impl KeptLogs {
    /// Those in the agent's data directory.
    pub(crate) fn open(data_dir: &Path) -> Self {
        Self { dir: data_dir.join(LOGS), turn: Mutex::default() }
    }

    /// Where the log of an instance or a job is kept, if it is.
    pub(crate) fn find(&self, id: &str) -> Option<PathBuf> {
        let dir = self.dir.join(id);
        dir.join(FILE).is_file().then_some(dir)
    }

    /// Makes a place for the log of an instance or a job.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn make(&self, id: &str, of: &Of) -> io::Result<PathBuf> {
        let _turn = self.turn();
        self.make_in_turn(id, of)
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make_in_turn(&self, id: &str, of: &Of) -> io::Result<PathBuf> {
        use std::os::unix::fs::DirBuilderExt;
        let dir = self.dir.join(id);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        write_whole(&dir.join(FILE), &serde_json::to_vec(of)?)?;
        Ok(dir)
    }

    /// Keeps the log in an instance's directory, which is about to be removed.
    ///
    /// # Errors
    /// When it cannot be moved.
    pub(crate) fn keep(&self, instance_dir: &Path, now: Timestamp) -> io::Result<()> {
        // From the first look on: a directory may be removed twice at once, and only the first finds a log there.
        let _turn = self.turn();
        let logs = instance_dir.join(LOGS);
        if !crate::process::log::current_file(instance_dir).is_file() {
            return Ok(());
        }
        let saved = std::fs::read(instance_dir.join("instance.json"))?;
        let desired: DesiredInstance = serde_json::from_slice(&saved)?;
        let of = Of { server: desired.server, revision: desired.revision, at: now };
        let dir = self.make_in_turn(&desired.id.to_string(), &of)?;
        std::fs::rename(logs, dir.join(LOGS))
    }

    /// Removes what is too much or too old, or of no server in `servers`, when those are known.
    pub(crate) fn collect(&self, servers: Option<&BTreeSet<ServerId>>, now: Timestamp) {
        let _turn = self.turn();
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return };
        let mut found: Vec<(Of, PathBuf)> = Vec::new();
        for dir in entries.flatten().map(|entry| entry.path()) {
            let of = std::fs::read(dir.join(FILE)).ok().and_then(|bytes| serde_json::from_slice::<Of>(&bytes).ok());
            match of {
                Some(of) => found.push((of, dir)),
                None => remove(&dir),
            }
        }
        // The newest first: what comes beyond a bound goes.
        found.sort_by_key(|(of, _)| std::cmp::Reverse(of.at));
        let (mut of_revision, mut of_server) = (BTreeMap::new(), BTreeMap::new());
        let mut bytes = 0;
        for (of, dir) in found {
            let in_revision = count(&mut of_revision, of.revision);
            let in_server = count(&mut of_server, of.server);
            let wanted = servers.is_none_or(|servers| servers.contains(&of.server))
                && in_revision <= PER_REVISION
                && in_server <= PER_SERVER
                && now.since(of.at) <= KEEP_FOR;
            // What goes takes no room from others.
            let with_it = bytes + if wanted { size(&dir.join(LOGS)) } else { 0 };
            if wanted && with_it <= MAX_BYTES {
                bytes = with_it;
            } else {
                remove(&dir);
            }
        }
    }
}

fn count<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K) -> usize {
    let count = counts.entry(key).or_default();
    *count += 1;
    *count
}

fn size(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    files.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

fn remove(dir: &Path) {
    if let Err(error) = std::fs::remove_dir_all(dir) {
        tracing::warn!(path = %dir.display(), %error, "remove a kept log");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_logs_of_each_revision_and_server_are_kept_and_those_of_servers_that_are_gone_are_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let kept = KeptLogs::open(dir.path());
        let (server, gone) = (ServerId::generate(), ServerId::generate());
        let now = Timestamp::from_ms(1_000_000_000_000);
        let hour = Duration::from_secs(3600);
        let make = |id: &str, server, revision, at| {
            kept.make(id, &Of { server, revision, at }).expect("made");
        };
        let revision = RevisionId::generate();
        for number in 0..5_u32 {
            make(&format!("same-{number}"), server, revision, now.minus(hour * number));
        }
        for number in 0..30_u32 {
            make(&format!("other-{number}"), server, RevisionId::generate(), now.minus(hour * (number + 10)));
        }
        make("old", ServerId::generate(), RevisionId::generate(), now.minus(KEEP_FOR + hour));
        make("gone", gone, RevisionId::generate(), now);
        kept.collect(None, now);
        let is_kept = |id: &str| kept.find(id).is_some();
        assert!(is_kept("same-0") && is_kept("same-2") && !is_kept("same-3"));
        assert!(is_kept("other-0") && is_kept("other-14") && !is_kept("other-15"));
        assert!(!is_kept("old") && is_kept("gone"));
        kept.collect(Some(&BTreeSet::from([server])), now);
        assert!(is_kept("same-0") && !is_kept("gone"));
    }

    #[test]
    fn a_log_that_goes_takes_no_room_from_those_that_stay() {
        let dir = tempfile::tempdir().expect("a directory");
        let kept = KeptLogs::open(dir.path());
        let now = Timestamp::from_ms(1_000_000_000_000);
        let hour = Duration::from_secs(3600);
        let make = |id: &str, revision, at, bytes| {
            let made = kept.make(id, &Of { server: ServerId::generate(), revision, at }).expect("made").join(LOGS);
            std::fs::create_dir(&made).expect("a directory");
            // Without blocks: only its length counts.
            std::fs::File::create(made.join("current.jsonl")).and_then(|file| file.set_len(bytes)).expect("written");
        };
        let noisy = RevisionId::generate();
        (0..8).for_each(|number| make(&format!("noisy-{number}"), noisy, now.minus(hour * number), MAX_BYTES / 4));
        make("quiet", RevisionId::generate(), now.minus(hour * 10), MAX_BYTES / 4);
        make("too-much", RevisionId::generate(), now.minus(hour * 11), MAX_BYTES);
        make("older", RevisionId::generate(), now.minus(hour * 12), 0);
        kept.collect(None, now);
        let is_kept = |id: &str| kept.find(id).is_some();
        assert!(is_kept("noisy-2") && !is_kept("noisy-3"));
        assert!(is_kept("quiet") && !is_kept("too-much") && is_kept("older"));
    }

    #[test]
    fn a_log_is_kept_once_when_its_directory_is_removed_twice_at_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let kept = KeptLogs::open(dir.path());
        let now = Timestamp::from_ms(1_000_000_000_000);
        for number in 0..200 {
            let id = toolyard_types::InstanceId::generate();
            let instance = dir.path().join(format!("instance-{number}"));
            std::fs::create_dir_all(instance.join(LOGS)).expect("made");
            std::fs::write(crate::process::log::current_file(&instance), "").expect("written");
            let saved = serde_json::to_vec(&crate::plan::tests::instance(id, true)).expect("JSON");
            std::fs::write(instance.join("instance.json"), saved).expect("written");
            let retire = || kept.keep(&instance, now).map(|()| std::fs::remove_dir_all(&instance));
            let (one, two) = std::thread::scope(|scope| {
                let other = scope.spawn(retire);
                (retire(), other.join().expect("it ends"))
            });
            assert!(one.is_ok() && two.is_ok(), "{one:?} {two:?}");
            assert!(kept.find(&id.to_string()).is_some_and(|kept| crate::process::log::current_file(&kept).is_file()));
        }
    }

    #[test]
    fn a_log_that_is_being_made_is_not_taken_for_one_that_was_never_finished() {
        let dir = tempfile::tempdir().expect("a directory");
        let kept = KeptLogs::open(dir.path());
        let now = Timestamp::from_ms(1_000_000_000_000);
        std::fs::create_dir_all(kept.dir.join("unfinished")).expect("a directory");
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Acquire) {
                    kept.collect(None, now);
                }
            });
            for number in 0..200 {
                let of = Of { server: ServerId::generate(), revision: RevisionId::generate(), at: now };
                kept.make(&number.to_string(), &of).expect("made while others are removed");
            }
            done.store(true, std::sync::atomic::Ordering::Release);
        });
        assert!((0..200).all(|number| kept.find(&number.to_string()).is_some()));
        assert!(!kept.dir.join("unfinished").exists());
    }
}
