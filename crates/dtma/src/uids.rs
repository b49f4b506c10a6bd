//! A user id of its own for every server, the same one for as long as the server is known here, and for every copy
//! of an instance while it is there.
//!
//! Two installations on one host must share none: each takes a range of its own, by chance where nobody is seen to have
//! it, and writes down on the host that it did. Where nothing can be written down, as in a container, chance is left.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use toolyard_types::agent::DesiredInstance;
use toolyard_types::{InstanceId, ServerId};

use crate::copies::CopyOf;
use crate::desired::{read_state, write_whole};

/// User ids that no distribution gives to people, services, containers or subordinate ranges.
pub(crate) const SPACE: RangeInclusive<u32> = 2_100_000_000..=2_147_483_647;
/// How many user ids an installation has.
const EACH: u32 = 65_536;
/// Where the installations of a host write down which range is whose.
pub(crate) const CLAIMS: &str = "/var/lib/toolyard-uids";

/// The range of an installation, in its data directory.
#[derive(Serialize, Deserialize)]
struct Chosen {
    first: u32,
}

/// The range of the installation in `data_dir`, the same for as long as nobody else is found to have it.
///
/// # Errors
/// When it cannot be remembered, or every range of the host is taken.
pub(crate) fn range_of(data_dir: &Path, claims: &Path) -> io::Result<RangeInclusive<u32>> {
    let file = data_dir.join("uid-range.json");
    let chosen =
        read_state::<Chosen>(&file, "this installation takes another range of user ids, if that is not its first");
    // One of before had the first range, as every other.
    let of_before = || data_dir.join("uids.json").exists().then_some(*SPACE.start());
    let mut candidates = chosen.map(|chosen| chosen.first).or_else(of_before).into_iter().chain(anywhere());
    let first = match Claims::open(claims) {
        Ok(claims) => candidates.find(|first| claims.take(*first, data_dir)),
        Err(error) => {
            tracing::debug!(path = %claims.display(), %error, "write down which user ids are whose");
            candidates.next()
        }
    };
    let first = first.ok_or_else(|| io::Error::other("every range of user ids of this host is taken"))?;
    write_whole(&file, &serde_json::to_vec(&Chosen { first })?)?;
    Ok(first..=first + (EACH - 1))
}

/// Every range there is, from a random one on.
fn anywhere() -> impl Iterator<Item = u32> {
    let ranges = (SPACE.end() - SPACE.start()) / EACH;
    let from = rand::random_range(0..ranges);
    (0..ranges).map(move |step| SPACE.start() + (from + step) % ranges * EACH)
}

/// Which range is whose on this host: a file for each, with the data directory in it.
struct Claims {
    dir: PathBuf,
    _lock: Flock<std::fs::File>,
}

impl Claims {
    fn open(dir: &Path) -> io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
        // Who may open it may hold it.
        let mut options = std::fs::File::options();
        let lock = options.write(true).create(true).truncate(true).mode(0o600).open(dir.join("lock"))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| io::Error::from(error))?;
        Ok(Self { dir: dir.to_owned(), _lock: lock })
    }

    /// Whether a range is now that of `data_dir`.
    fn take(&self, first: u32, data_dir: &Path) -> bool {
        let file = self.dir.join(first.to_string());
        let holder = std::fs::read_to_string(&file).map(PathBuf::from);
        let is_other = |holder: &PathBuf| holder != data_dir && has_range(holder, first);
        !holder.is_ok_and(|holder| is_other(&holder))
            && write_whole(&file, data_dir.as_os_str().as_encoded_bytes()).is_ok()
    }
}

/// Whether the installation in a data directory is still there and has this range.
fn has_range(data_dir: &Path, first: u32) -> bool {
    let chosen = std::fs::read(data_dir.join("uid-range.json"));
    chosen.is_ok_and(|bytes| serde_json::from_slice::<Chosen>(&bytes).is_ok_and(|chosen| chosen.first == first))
}

/// Hands out user ids and remembers them across restarts.
#[derive(Debug)]
pub(crate) struct Uids {
    file: PathBuf,
    range: RangeInclusive<u32>,
    given: BTreeMap<ServerId, u32>,
    copies: BTreeMap<InstanceId, u32>,
    /// The ones given last to a server and to a copy. What one that is gone left behind is its own for as long as
    /// possible.
    last_server: u32,
    last_copy: u32,
}

impl Uids {
    /// Reads what was given before. Where that is not known it is what servers have whose directories are in
    /// `instances`: they may run, and nobody else may get theirs.
    pub(crate) fn open(file: PathBuf, instances: &Path, range: RangeInclusive<u32>) -> Self {
        let given = read_state(&file, "servers keep the users that their directories belong to");
        let mut given: BTreeMap<ServerId, u32> = given.unwrap_or_else(|| users_of(instances));
        // From before this installation had the range that it has now.
        given.retain(|_, uid| range.contains(uid));
        let last_server = given.values().max().copied().unwrap_or(*range.end());
        let last_copy = *range.end();
        Self { file, range, given, copies: BTreeMap::new(), last_server, last_copy }
    }

    /// The user id of a server.
    ///
    /// # Errors
    /// When the range is used up or the file cannot be written.
    pub(crate) fn of(&mut self, server: ServerId) -> io::Result<u32> {
        if let Some(uid) = self.given.get(&server) {
            return Ok(*uid);
        }
        let used = self.used();
        let (from, to) = (*self.range.start(), *self.range.end());
        let mut candidates = (self.last_server.saturating_add(1)..=to).chain(from..=self.last_server.min(to));
        let uid = candidates.find(|uid| !used.contains(uid)).ok_or_else(all_taken)?;
        let mut given = self.given.clone();
        given.insert(server, uid);
        // Written first: an id that is forgotten at a restart would be given to a second server.
        write_whole(&self.file, &serde_json::to_vec(&given)?)?;
        (self.given, self.last_server) = (given, uid);
        Ok(uid)
    }

    /// Takes back what was given to servers that are not `kept`; nothing of them runs or lies here any more.
    fn keep_only(&mut self, kept: &dyn Fn(ServerId) -> bool) -> io::Result<()> {
        let given: BTreeMap<_, _> =
            self.given.iter().filter(|(id, _)| kept(**id)).map(|(id, uid)| (*id, *uid)).collect();
        if given.len() < self.given.len() {
            write_whole(&self.file, &serde_json::to_vec(&given)?)?;
            tracing::info!(count = self.given.len() - given.len(), "took back the user ids of deleted servers");
            self.given = given;
        }
        Ok(())
    }

    /// A user id for a copy; where these are remembered is the copy's affair.
    ///
    /// # Errors
    /// When the range is used up.
    pub(crate) fn of_copy(&mut self, copy: InstanceId) -> io::Result<u32> {
        let used = self.used();
        // From the end down, so that servers, which keep theirs, are given the others.
        let (from, to) = (*self.range.start(), *self.range.end());
        let mut candidates = (from..self.last_copy).rev().chain((self.last_copy..=to).rev());
        let uid = candidates.find(|uid| !used.contains(uid)).ok_or_else(all_taken)?;
        self.last_copy = uid;
        self.copies.insert(copy, uid);
        Ok(uid)
    }

    /// Notes what an earlier agent gave to a copy.
    pub(crate) fn keep_copy(&mut self, copy: InstanceId, uid: u32) {
        self.copies.insert(copy, uid);
    }

    /// Takes a copy's user id back; nothing of the copy runs any more.
    pub(crate) fn end_copy(&mut self, copy: InstanceId) {
        self.copies.remove(&copy);
    }

    fn used(&self) -> BTreeSet<u32> {
        self.given.values().chain(self.copies.values()).copied().collect()
    }
}

/// User ids that are given beside each other. Whoever also needs the table of instances locks that first.
pub(crate) fn locked(uids: &Mutex<Uids>) -> MutexGuard<'_, Uids> {
    // Nothing that holds it can panic half-way through a change.
    uids.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes back what was given to servers that are neither `kept` nor in the `table`. Whoever asks for one is put there
/// before, and finds the ids locked from the moment on at which it was looked for.
///
/// # Errors
/// When that cannot be remembered; then they keep them.
pub(crate) fn give_back<T>(
    uids: &Mutex<Uids>,
    table: MutexGuard<'_, T>,
    servers: impl FnOnce(&T) -> BTreeSet<ServerId>,
    kept: &dyn Fn(ServerId) -> bool,
) -> io::Result<()> {
    let mut uids = locked(uids);
    let here = servers(&table);
    // Not held while it is written down. Who needs an id meanwhile waits, and with a copy that is started whoever needs
    // the table: for one small file, and only when a server was deleted.
    drop(table);
    uids.keep_only(&|server| here.contains(&server) || kept(server))
}

/// The users that the directories of instances belong to, by server. Those of copies are noted elsewhere.
fn users_of(instances: &Path) -> BTreeMap<ServerId, u32> {
    let mut users = BTreeMap::new();
    let dirs = std::fs::read_dir(instances).into_iter().flatten().flatten().map(|entry| entry.path());
    for dir in dirs.filter(|dir| CopyOf::load(dir).is_none()) {
        let saved = std::fs::read(dir.join("instance.json")).ok();
        let saved = saved.and_then(|saved| serde_json::from_slice::<DesiredInstance>(&saved).ok());
        let owner = std::fs::symlink_metadata(dir.join("work")).map(|work| work.uid());
        if let Some((saved, owner)) = saved.zip(owner.ok()) {
            users.insert(saved.server, owner);
        }
    }
    users
}

fn all_taken() -> io::Error {
    io::Error::other("every user id of the configured range is taken")
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn servers_and_copies_never_share_a_user_and_a_copys_is_not_given_again_at_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut uids = Uids::open(dir.path().join("uids.json"), dir.path(), 10..=14);
        let server = ServerId::generate();
        let copies = [InstanceId::generate(), InstanceId::generate()];
        assert_eq!(uids.of(server).expect("one"), 10);
        assert_eq!(uids.of_copy(copies[0]).expect("one"), 13);
        uids.end_copy(copies[0]);
        assert_eq!(uids.of_copy(copies[1]).expect("one"), 12);
        uids.keep_copy(copies[0], 11);
        assert_eq!(uids.of(ServerId::generate()).expect("one"), 13);
        assert_eq!(uids.of_copy(InstanceId::generate()).expect("one"), 14);
        assert!(uids.of_copy(InstanceId::generate()).is_err() && uids.of(ServerId::generate()).is_err());
        let mut again = Uids::open(dir.path().join("uids.json"), dir.path(), 10..=14);
        assert_eq!(again.of(server).expect("the same"), 10);
    }

    #[test]
    fn a_deleted_servers_user_is_given_to_another_only_when_all_others_are() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut uids = Uids::open(dir.path().join("uids.json"), dir.path(), 10..=12);
        let servers = [ServerId::generate(), ServerId::generate(), ServerId::generate(), ServerId::generate()];
        assert_eq!(uids.of(servers[0]).expect("one"), 10);
        assert_eq!(uids.of(servers[1]).expect("one"), 11);
        uids.keep_only(&|server| server != servers[0]).expect("written");
        assert_eq!(uids.of(servers[2]).expect("one"), 12);
        assert_eq!(uids.of(servers[3]).expect("the one that was given back"), 10);
        let mut again = Uids::open(dir.path().join("uids.json"), dir.path(), 10..=12);
        assert_eq!(again.of(servers[1]).expect("the same"), 11);
        assert!(again.of(servers[0]).is_err());
    }

    /// A server's id, once there is one for it: all are somebody's until the collector has looked again.
    fn given(uids: &Mutex<Uids>, server: ServerId) -> u32 {
        loop {
            let given = locked(uids).of(server);
            match given {
                Ok(uid) => return uid,
                Err(_) => std::thread::yield_now(),
            }
        }
    }

    /// Notes who uses an id; nobody else may.
    fn begin_use(in_use: &Mutex<BTreeMap<u32, String>>, uid: u32, by: String) {
        let other = in_use.lock().expect("no panic").insert(uid, by);
        assert_eq!(other, None, "{uid} is that of two");
    }

    #[test]
    fn ids_are_taken_back_beside_starts_and_none_that_is_in_use_is_given_to_another() {
        const ROUNDS: usize = 25;
        let dir = tempfile::tempdir().expect("a directory");
        // So few that what was taken back is given again soon.
        let uids = Arc::new(Mutex::new(Uids::open(dir.path().join("uids.json"), dir.path(), 10..=17)));
        let table = Arc::new(Mutex::new(BTreeSet::<ServerId>::new()));
        let in_use = Arc::new(Mutex::new(BTreeMap::<u32, String>::new()));
        let (ended, ends) = mpsc::channel::<()>();
        let mut threads = Vec::new();
        for _ in 0..4 {
            let (uids, table, in_use) = (Arc::clone(&uids), Arc::clone(&table), Arc::clone(&in_use));
            let ended = ended.clone();
            threads.push(std::thread::spawn(move || {
                for _ in 0..ROUNDS {
                    let server = ServerId::generate();
                    // As an instance is put into the table, and its task asks for its user later.
                    table.lock().expect("no panic").insert(server);
                    let uid = given(&uids, server);
                    begin_use(&in_use, uid, server.to_string());
                    std::thread::yield_now();
                    assert_eq!(locked(&uids).of(server).expect("its own"), uid, "it was taken from one that is here");
                    in_use.lock().expect("no panic").remove(&uid);
                    table.lock().expect("no panic").remove(&server);
                }
                drop(ended);
            }));
        }
        let (of_copies, used_by_copies) = (Arc::clone(&uids), Arc::clone(&in_use));
        let (copied, ended_copies) = (Arc::clone(&table), ended.clone());
        threads.push(std::thread::spawn(move || {
            for _ in 0..4 * ROUNDS {
                let copy = InstanceId::generate();
                // As a copy is put into the table: while that is locked.
                let table = copied.lock().expect("no panic");
                let uid = locked(&of_copies).of_copy(copy);
                drop(table);
                let Ok(uid) = uid else { continue };
                begin_use(&used_by_copies, uid, copy.to_string());
                used_by_copies.lock().expect("no panic").remove(&uid);
                locked(&of_copies).end_copy(copy);
            }
            drop(ended_copies);
        }));
        // The collector goes on until all of these have ended.
        drop(ended);
        threads.push(std::thread::spawn(move || {
            while ends.try_recv() == Err(mpsc::TryRecvError::Empty) {
                give_back(&uids, table.lock().expect("no panic"), BTreeSet::clone, &|_| false).expect("written");
            }
        }));
        let until = Instant::now() + Duration::from_secs(60);
        while threads.iter().any(|thread| !thread.is_finished()) {
            assert!(Instant::now() < until, "they wait for each other");
            std::thread::park_timeout(Duration::from_millis(5));
        }
        threads.into_iter().for_each(|thread| thread.join().expect("no id was that of two"));
    }

    #[test]
    fn servers_keep_the_users_of_their_directories_when_who_has_which_is_lost() {
        let dir = tempfile::tempdir().expect("a directory");
        let own = nix::unistd::geteuid().as_raw();
        let (server, range) = (ServerId::generate(), own..=own + 2);
        let work = dir.path().join("instances/one/work");
        std::fs::create_dir_all(&work).expect("made");
        let saved = DesiredInstance { server, ..crate::plan::tests::instance(InstanceId::generate(), true) };
        let saved = serde_json::to_vec(&saved).expect("JSON");
        std::fs::write(work.with_file_name("instance.json"), saved).expect("written");
        let file = dir.path().join("uids.json");
        for broken in ["", "{"] {
            std::fs::write(&file, broken).expect("written");
            let mut uids = Uids::open(file.clone(), &dir.path().join("instances"), range.clone());
            assert_eq!(uids.of(ServerId::generate()).expect("another"), own + 1);
            assert_eq!(uids.of(server).expect("its own"), own);
        }
    }

    #[test]
    fn two_installations_on_one_host_share_no_user() {
        let host = tempfile::tempdir().expect("a directory");
        let claims = host.path().join("claims");
        let data_dir = |name: &str| {
            let dir = host.path().join(name);
            std::fs::create_dir_all(&dir).expect("a directory");
            dir
        };
        let (one, two) = (data_dir("one"), data_dir("two"));
        // Both are of before, when every installation had the same range.
        std::fs::write(one.join("uids.json"), "{}").expect("written");
        std::fs::write(two.join("uids.json"), "{}").expect("written");
        let first = range_of(&one, &claims).expect("a range");
        assert_eq!(first, 2_100_000_000..=2_100_065_535);
        let second = range_of(&two, &claims).expect("a range");
        assert!(second.start() > first.end() && *second.end() <= 2_147_483_647, "{second:?}");
        assert_eq!(range_of(&two, &claims).expect("the same"), second);
        assert_eq!(range_of(&one, &claims).expect("the same"), first);
        // One that is gone holds nothing.
        std::fs::remove_dir_all(&one).expect("removed");
        let three = data_dir("three");
        std::fs::write(three.join("uids.json"), "{}").expect("written");
        assert_eq!(range_of(&three, &claims).expect("a range"), first);
        // Where nothing can be written down there is still a range.
        assert!(range_of(&data_dir("four"), Path::new("/proc/claims")).is_ok());
    }
}
