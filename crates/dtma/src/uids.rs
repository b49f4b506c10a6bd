//! A user id of its own for every server, the same one for as long as the server is known here, and for every copy
//! of an instance while it is there.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use toolyard_types::{InstanceId, ServerId};

use crate::desired::write_whole;

/// Hands out user ids and remembers them across restarts.
#[derive(Debug)]
pub(crate) struct Uids {
    file: PathBuf,
    range: RangeInclusive<u32>,
    given: BTreeMap<ServerId, u32>,
    copies: BTreeMap<InstanceId, u32>,
    /// The one given to a copy last. What a copy that is gone left behind is its own for as long as possible.
    last_copy: u32,
}

impl Uids {
    /// Reads what was given before.
    pub(crate) fn open(file: PathBuf, range: RangeInclusive<u32>) -> Self {
        let given = std::fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let last_copy = *range.end();
        Self { file, range, given: given.unwrap_or_default(), copies: BTreeMap::new(), last_copy }
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
        let uid = self.range.clone().find(|uid| !used.contains(uid)).ok_or_else(all_taken)?;
        let mut given = self.given.clone();
        given.insert(server, uid);
        // Written first: an id that is forgotten at a restart would be given to a second server.
        write_whole(&self.file, &serde_json::to_vec(&given)?)?;
        self.given = given;
        Ok(uid)
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

fn all_taken() -> io::Error {
    io::Error::other("every user id of the configured range is taken")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_and_copies_never_share_a_user_and_a_copys_is_not_given_again_at_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut uids = Uids::open(dir.path().join("uids.json"), 10..=14);
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
        let mut again = Uids::open(dir.path().join("uids.json"), 10..=14);
        assert_eq!(again.of(server).expect("the same"), 10);
    }
}
