//! What a server or a package client uses, held against what it may use, where the kernel does not do that for us.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::unistd::Uid;
use toolyard_types::spec::Limits;

use super::cgroup::Cgroup;
use super::platform::{DiskWatch, SharedMemory};
use super::tree::{self, Measured};
use super::wire::Killed;

const MEASURE_EVERY: Duration = Duration::from_secs(3);
/// Where the kernel keeps no limit, we look more often: memory grows fast.
const WATCH_EVERY: Duration = Duration::from_millis(250);

/// Watches what runs below one supervisor.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) cgroup: Cgroup,
    limits: Limits,
    disk: DiskWatch,
    shared: SharedMemory,
    measured_at: Instant,
    cpu_ms: u64,
}

/// More than it may use.
#[derive(Debug)]
pub(super) struct Excess {
    pub(super) killed: Killed,
    /// What, for a person.
    pub(super) text: String,
}

impl Watch {
    /// Watches what runs in `cgroup` and keeps what it keeps in `dirs`.
    pub(super) fn new(limits: &Limits, cgroup: Cgroup, dirs: Vec<PathBuf>) -> Self {
        let disk = DiskWatch::new(dirs, limits.disk_bytes);
        let shared = SharedMemory::default();
        Self { cgroup, limits: limits.clone(), disk, shared, measured_at: Instant::now(), cpu_ms: 0 }
    }

    /// How long nothing is to be done here.
    pub(super) fn next(&self) -> Duration {
        self.next_measure().min(self.disk.next_look())
    }

    fn next_measure(&self) -> Duration {
        let watched = !(self.cgroup.limits_memory() && self.cgroup.limits_processes());
        let every = if watched { WATCH_EVERY } else { MEASURE_EVERY };
        every.saturating_sub(self.measured_at.elapsed())
    }

    /// Measures what processes use, when it is time to.
    pub(super) fn measure(&mut self, pids: impl FnOnce(&Cgroup) -> Vec<i32>) -> Option<(Measured, Option<Excess>)> {
        if !self.next_measure().is_zero() {
            return None;
        }
        let pids = pids(&self.cgroup);
        let mut measured = tree::measure(&pids);
        // With root each server has a user of its own, and uses up nothing but that.
        let shares_user = !Uid::effective().is_root();
        if shares_user || !self.cgroup.limits_memory() {
            let held = self.shared.measure(self.limits.memory_bytes, &pids);
            if !self.cgroup.limits_memory() {
                measured.memory_bytes += held.saturating_sub(measured.shared_bytes);
            }
        }
        self.measured_at = Instant::now();
        // Processes that ended took their time with them; what was used stays used.
        self.cpu_ms = self.cpu_ms.max(measured.cpu_ms);
        measured.cpu_ms = self.cpu_ms;
        let Limits { memory_bytes, processes, .. } = self.limits;
        let over_memory = !self.cgroup.limits_memory() && measured.memory_bytes > memory_bytes;
        let over_processes = !self.cgroup.limits_processes() && measured.threads > processes;
        let excess = if over_memory {
            Some(self.of_memory())
        } else if over_processes {
            let text = format!("had more than {processes} processes and threads");
            Some(Excess { killed: Killed::Processes, text })
        } else if let Some(text) = self.shared.too_many_watches().filter(|_| shares_user) {
            Some(Excess { killed: Killed::Processes, text })
        } else {
            self.killed_by_kernel()
        };
        Some((measured, excess))
    }

    /// What the kernel killed for, if it did.
    pub(super) fn killed_by_kernel(&self) -> Option<Excess> {
        (self.cgroup.memory_kills() > 0).then(|| self.of_memory())
    }

    fn of_memory(&self) -> Excess {
        let text = format!("used more than {} bytes of memory", self.limits.memory_bytes);
        Excess { killed: Killed::Memory, text }
    }

    /// Looks at what is kept on disk, when it is time to. Stops the processes of `pids` for a while when it must.
    pub(super) fn look_at_disk(&mut self, pids: impl Fn(&Cgroup) -> Vec<i32>) -> Option<Excess> {
        self.disk.look(Some(&|| pids(&self.cgroup))).map(|text| Excess { killed: Killed::Disk, text })
    }
}
