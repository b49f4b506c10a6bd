//! Directories that are being removed, beside everything else: a server may leave millions of files.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

/// So many are removed at once; the disk has other work.
const AT_ONCE: usize = 2;

/// What is being removed. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Removals(Arc<Inner>);

struct Inner {
    under_way: Mutex<BTreeSet<PathBuf>>,
    turns: Semaphore,
}

/// A directory that is not to be removed once more meanwhile.
struct UnderWay(Removals, PathBuf);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

impl Removals {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner { under_way: Mutex::default(), turns: Semaphore::new(AT_ONCE) }))
    }

    /// Does `before` at once and then has a directory removed with all in it; nothing when that is under way. Waits for
    /// neither.
    pub(crate) fn begin(&self, dir: PathBuf, before: impl FnOnce(&Path) + Send + 'static) {
        if !self.0.under_way.lock().unwrap_or_else(PoisonError::into_inner).insert(dir.clone()) {
            return;
        }
        let (removals, under_way) = (self.clone(), UnderWay(self.clone(), dir));
        tokio::spawn(async move {
            let begun = tokio::task::spawn_blocking(move || {
                before(&under_way.1);
                under_way
            });
            let (Ok(under_way), Ok(_turn)) = (begun.await, removals.0.turns.acquire().await) else { return };
            let remove = move || {
                let dir = &under_way.1;
                match crate::process::remove::remove_all(dir) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        tracing::warn!(path = %dir.display(), %error, "remove a directory");
                    }
                    _ => {}
                }
            };
            // A panic there is a bug to see in the log; the next round tries again.
            if let Err(error) = tokio::task::spawn_blocking(remove).await {
                tracing::error!(%error, "remove a directory");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

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
        let removed = async {
            while dir.exists() || !removals.0.under_way.lock().unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), removed).await.unwrap();
        std::fs::create_dir(&dir).unwrap();
        removals.begin(dir.clone(), |_| ());
        tokio::time::timeout(Duration::from_secs(10), async {
            while dir.exists() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await
        .unwrap();
    }
}
