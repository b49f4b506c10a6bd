//! Toolyard's own TCP ports on this host: no server here reaches them.
//!
//! Some are given when the agent starts. A control plane that shares the host's loopback interface tells its own with every
//! answer to a sync. They are kept on disk: after a reboot servers start before it answers.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use toolyard_link::tls::fingerprint;
use toolyard_types::agent::Listeners;

use crate::desired::{read_state, write_whole};

/// Where replicas of the control plane listen on this host; removed by a join, which may be to another control plane.
pub(crate) const LISTENERS_FILE: &str = "listeners.json";
/// Every port makes the filter of each socket longer.
const MOST_REPLICAS: usize = 8;
const MOST_PORTS: usize = 8;

/// The ports that are known.
pub(crate) struct OwnPorts {
    given: Vec<u16>,
    host: Option<String>,
    file: PathBuf,
    /// Of each replica on this host what it told last.
    heard: Mutex<Vec<Listeners>>,
}

impl OwnPorts {
    /// Those that are given, and those that an earlier agent heard of.
    pub(crate) fn open(data_dir: &Path, given: Vec<u16>) -> Self {
        let file = data_dir.join(LISTENERS_FILE);
        let heard = read_state(&file, "the control plane tells it again");
        Self { given, host: loopback_id(), file, heard: Mutex::new(heard.unwrap_or_default()) }
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<u16> {
        let heard = self.heard();
        let ports: BTreeSet<u16> =
            self.given.iter().chain(heard.iter().flat_map(|replica| &replica.ports)).copied().collect();
        ports.into_iter().collect()
    }

    /// Takes where a replica of the control plane listens, if that is here: servers that start from now on are kept from
    /// there.
    pub(crate) fn hear(&self, mut told: Listeners) {
        if self.host.as_ref() != Some(&told.host) {
            return;
        }
        told.ports.truncate(MOST_PORTS);
        let mut heard = self.heard();
        if heard.contains(&told) {
            return;
        }
        heard.retain(|known| known.replica != told.replica);
        heard.push(told);
        let surplus = heard.len().saturating_sub(MOST_REPLICAS);
        heard.drain(..surplus);
        let saved = serde_json::to_vec(&*heard).map_err(io::Error::from);
        if let Err(error) = saved.and_then(|bytes| write_whole(&self.file, &bytes)) {
            tracing::warn!(%error, "save where the control plane listens; a restarted agent hears it with its first sync");
        }
    }

    fn heard(&self) -> MutexGuard<'_, Vec<Listeners>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What tells the loopback interface that this process has from others: one network of one running kernel. `None` where the
/// system does not say.
#[must_use]
pub fn loopback_id() -> Option<String> {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let network = std::fs::read_link("/proc/self/ns/net").ok()?;
    Some(fingerprint(format!("{} {}", kernel.trim(), network.display()).as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(host: &str, replica: &str, ports: &[u16]) -> Listeners {
        Listeners { host: host.to_owned(), replica: replica.to_owned(), ports: ports.to_vec() }
    }

    fn opened(dir: &Path) -> OwnPorts {
        OwnPorts { host: Some("here".to_owned()), ..OwnPorts::open(dir, vec![8081]) }
    }

    #[test]
    fn what_the_control_plane_tells_counts_on_its_own_host_only_and_for_the_next_agent_too() {
        let dir = tempfile::tempdir().expect("a directory");
        let ports = opened(dir.path());
        ports.hear(told("elsewhere", "a", &[1]));
        assert_eq!(ports.all(), [8081]);
        ports.hear(told("here", "a", &[8080, 8081]));
        ports.hear(told("here", "b", &[9080]));
        assert_eq!(ports.all(), [8080, 8081, 9080]);
        // It was started again with another port.
        ports.hear(told("here", "a", &[8090, 8081]));
        assert_eq!(ports.all(), [8081, 8090, 9080]);
        ports.hear(told("elsewhere", "a", &[]));
        assert_eq!(opened(dir.path()).all(), [8081, 8090, 9080]);
    }

    #[test]
    fn what_is_told_is_bounded_and_a_file_that_cannot_be_read_counts_as_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let ports = opened(dir.path());
        for replica in 0..100_u16 {
            ports.hear(told("here", &replica.to_string(), &[replica + 1000; 100]));
        }
        assert_eq!(ports.all().len(), 1 + MOST_REPLICAS);
        assert!(ports.heard().iter().all(|replica| replica.ports.len() == MOST_PORTS));
        std::fs::write(dir.path().join(LISTENERS_FILE), "").expect("written");
        assert_eq!(opened(dir.path()).all(), [8081]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn processes_of_one_host_call_its_network_the_same() {
        assert_eq!(loopback_id(), loopback_id());
        assert!(loopback_id().is_some_and(|id| id.len() == 64));
    }
}
