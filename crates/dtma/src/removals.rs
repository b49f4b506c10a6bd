//! Directories that are being removed, beside everything else: a server may leave millions of files.
//!
//! Each is first moved out of the way, to a name of its own beside it, so that what begins where it was meets nothing of
//! it and loses nothing to its removal. Only until then does anybody have to wait.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, watch};

/// So many are removed at once; the disk has other work.
const AT_ONCE: usize = 2;
/// How the names begin of what was moved away. What an agent leaves of it the next one removes.
const GONE: &str = ".scratch-gone-";

/// What is being removed. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Removals(Arc<Inner>);

struct Inner {
    under_way: Mutex<BTreeSet<PathBuf>>,
    /// Heard of when there is one less.
    changed: watch::Sender<()>,
    turns: Semaphore,
}

/// A directory that is not to be removed once more meanwhile.
struct UnderWay(Removals, PathBuf);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way().remove(&self.1);
        self.0.0.changed.send_replace(());
    }
}

impl UnderWay {
    /// Moves it away. One that cannot be moved stays, and is removed where it is; none when there is nothing.
    fn moved(self) -> Option<Self> {
        let name = self.1.file_name().unwrap_or_default();
        if name.as_encoded_bytes().starts_with(GONE.as_bytes()) {
            return Some(self);
        }
        let away = self.1.with_file_name(format!("{GONE}{:016x}", rand::random::<u64>()));
        let away = self.0.note(away)?;
        match std::fs::rename(&self.1, &away.1) {
            Ok(()) => Some(away),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(path = %self.1.display(), %error, "move a directory away; it is removed where it is");
                Some(self)
            }
        }
    }

    fn remove(&self) {
        match crate::process::remove::remove_all(&self.1) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.1.display(), %error, "remove a directory");
            }
            _ => {}
        }
    }
}

impl Removals {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner {
            under_way: Mutex::default(),
            changed: watch::Sender::new(()),
            turns: Semaphore::new(AT_ONCE),
        }))
    }

    /// Does `before` soon and then has a directory removed with all in it; nothing when that is under way. Waits for
    /// neither. Whoever makes it anew meanwhile waits for [`Self::out_of_the_way`].
    pub(crate) fn begin(&self, dir: PathBuf, before: impl FnOnce(&Path) + Send + 'static) {
        let Some(under_way) = self.note(dir) else { return };
        let removals = self.clone();
        tokio::spawn(async move {
            let begun = tokio::task::spawn_blocking(move || {
                before(&under_way.1);
                under_way.moved()
            });
            // A panic there is a bug to see in the log; the next round tries again.
            let (Ok(Some(left)), Ok(_turn)) = (begun.await, removals.0.turns.acquire().await) else { return };
            if let Err(error) = tokio::task::spawn_blocking(move || left.remove()).await {
                tracing::error!(%error, "remove a directory");
            }
        });
    }

    /// Waits until nothing is left at a path of a directory whose removal has begun.
    pub(crate) async fn out_of_the_way(&self, dir: &Path) {
        let mut changed = self.0.changed.subscribe();
        while self.under_way().contains(dir) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    fn note(&self, dir: PathBuf) -> Option<UnderWay> {
        let is_new = self.under_way().insert(dir.clone());
        is_new.then(|| UnderWay(self.clone(), dir))
    }

    fn under_way(&self) -> MutexGuard<'_, BTreeSet<PathBuf>> {
        self.0.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    /// Waits until nothing is being removed any more.
    async fn done(removals: &Removals) {
        let mut changed = removals.0.changed.subscribe();
        let none_left = async {
            while !removals.under_way().is_empty() {
                changed.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(10), none_left).await.unwrap();
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_directory_is_removed_once_at_a_time_and_nobody_waits_for_it() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("many");
        std::fs::create_dir_all(dir.join("deep/er")).unwrap();
        let removals = Removals::new();
        let (go, wait) = mpsc::channel::<()>();
        removals.begin(dir.clone(), move |_| wait.recv().unwrap());
        removals.begin(dir.clone(), |_| panic!("it is under way"));
        assert!(dir.exists());
        go.send(()).unwrap();
        done(&removals).await;
        assert_eq!(names(root.path()), Vec::<String>::new());
        std::fs::create_dir(&dir).unwrap();
        removals.begin(dir.clone(), |_| ());
        removals.begin(root.path().join("not-there"), |_| ());
        done(&removals).await;
        assert_eq!(names(root.path()), Vec::<String>::new());
    }

    #[tokio::test]
    async fn what_begins_where_something_is_removed_loses_nothing_to_it_and_does_not_wait_for_its_end() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("instance");
        std::fs::create_dir_all(dir.join("work")).unwrap();
        std::fs::write(dir.join("work/old"), "").unwrap();
        let removals = Removals::new();
        // As while two others, with very many files, have every turn.
        let turns = removals.0.turns.acquire_many(2).await.unwrap();
        let (go, wait) = mpsc::channel::<()>();
        removals.begin(dir.clone(), move |_| wait.recv().unwrap());
        let mut begins = std::pin::pin!(removals.out_of_the_way(&dir));
        let early = tokio::time::timeout(Duration::ZERO, &mut begins).await;
        assert!(early.is_err(), "its log is not kept yet");
        go.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(10), begins).await.expect("no turn is needed for that");
        assert!(!dir.exists(), "what begins meets nothing");
        std::fs::create_dir_all(dir.join("work")).unwrap();
        std::fs::write(dir.join("work/new"), "").unwrap();
        // What was moved away is removed once, whoever finds it.
        let away = names(root.path()).into_iter().find(|name| name.starts_with(GONE)).unwrap();
        removals.begin(root.path().join(away), |_| panic!("it is under way"));
        drop(turns);
        done(&removals).await;
        assert_eq!(names(root.path()), ["instance"]);
        assert_eq!(names(&dir.join("work")), ["new"]);
    }

    #[tokio::test]
    async fn what_an_earlier_agent_had_moved_away_is_removed_by_the_next() {
        let root = tempfile::tempdir().unwrap();
        let left = root.path().join(format!("{GONE}0123456789abcdef"));
        std::fs::create_dir_all(left.join("work")).unwrap();
        let removals = Removals::new();
        removals.begin(left, |_| ());
        done(&removals).await;
        assert_eq!(names(root.path()), Vec::<String>::new());
    }
}
