//! What is known of revisions beyond their instances: which of their servers must not be asked `server/discover`.
//!
//! A server that ends at a message it does not know is started again with `initialize`. Every later instance of its
//! revision is spoken to like that at once, also by an agent that was restarted.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use toolyard_types::{RevisionId, Timestamp};

use crate::desired::{read_state, write_whole};

const FILE: &str = "revisions.json";
/// The oldest are forgotten first, and found out again.
const MOST: usize = 2000;

/// Kept in the agent's data directory.
#[derive(Debug)]
pub(crate) struct Revisions {
    file: PathBuf,
    /// Those that are asked `initialize` only, and since when that is known.
    plain: Mutex<BTreeMap<RevisionId, Timestamp>>,
}

impl Revisions {
    /// Reads what an earlier agent knew. What cannot be read is found out again.
    pub(crate) fn open(data_dir: &std::path::Path) -> Self {
        let file = data_dir.join(FILE);
        let known = read_state(&file, "how servers are to be asked is found out again");
        Self { file, plain: Mutex::new(known.unwrap_or_default()) }
    }

    /// Whether a server of the revision is to be asked `initialize` first.
    pub(crate) fn is_plain(&self, revision: RevisionId) -> bool {
        self.plain.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&revision)
    }

    /// Notes how a server of the revision is to be asked.
    pub(crate) fn note_plain(&self, revision: RevisionId, plain: bool, now: Timestamp) {
        let mut known = self.plain.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.contains_key(&revision);
        if before == plain {
            return;
        }
        if plain {
            known.insert(revision, now);
        } else {
            known.remove(&revision);
        }
        if known.len() > MOST
            && let Some(oldest) = known.iter().min_by_key(|(_, at)| **at).map(|(id, _)| *id)
        {
            known.remove(&oldest);
        }
        let written = serde_json::to_vec(&*known).map_err(std::io::Error::from);
        if let Err(error) = written.and_then(|bytes| write_whole(&self.file, &bytes)) {
            tracing::warn!(%error, "note how the servers of a revision are asked; a restarted agent finds it out again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_survives_the_agent_and_is_bounded() {
        let dir = tempfile::tempdir().expect("a directory");
        let ids: Vec<_> = (0..=MOST).map(|_| RevisionId::generate()).collect();
        let known = Revisions::open(dir.path());
        for (at, id) in ids.iter().enumerate() {
            known.note_plain(*id, true, Timestamp::from_ms(i64::try_from(at).expect("a number")));
        }
        let again = Revisions::open(dir.path());
        assert_eq!((again.is_plain(ids[0]), again.is_plain(ids[1]), again.is_plain(ids[MOST])), (false, true, true));
        again.note_plain(ids[1], false, Timestamp::from_ms(0));
        assert!(!Revisions::open(dir.path()).is_plain(ids[1]));
    }
}
