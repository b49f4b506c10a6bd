//! A user id of its own for every server, the same one for as long as the server is known here.

use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use toolyard_types::ServerId;

use crate::desired::write_whole;

/// Hands out user ids and remembers them across restarts.
#[derive(Debug)]
pub(crate) struct Uids {
    file: PathBuf,
    range: RangeInclusive<u32>,
    given: BTreeMap<ServerId, u32>,
}

impl Uids {
    /// Reads what was given before.
    pub(crate) fn open(file: PathBuf, range: RangeInclusive<u32>) -> Self {
        let given = std::fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Self { file, range, given: given.unwrap_or_default() }
    }

    /// The user id of a server.
    ///
    /// # Errors
    /// When the range is used up or the file cannot be written.
    pub(crate) fn of(&mut self, server: ServerId) -> io::Result<u32> {
        if let Some(uid) = self.given.get(&server) {
            return Ok(*uid);
        }
        let used: std::collections::BTreeSet<u32> = self.given.values().copied().collect();
        let free = self.range.clone().find(|uid| !used.contains(uid));
        let uid = free.ok_or_else(|| io::Error::other("every user id of the configured range is taken"))?;
        let mut given = self.given.clone();
        given.insert(server, uid);
        // Written first: an id that is forgotten at a restart would be given to a second server.
        write_whole(&self.file, &serde_json::to_vec(&given)?)?;
        self.given = given;
        Ok(uid)
    }
}
