//! What the host has and has left.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use toolyard_types::Clock;
use toolyard_types::agent::Capacity;

/// How long a measurement is good.
const GOOD_FOR: Duration = Duration::from_secs(30);

/// Measures the host now and then.
pub(crate) struct Meter {
    data_dir: PathBuf,
    clock: Clock,
    last: Mutex<Option<(Instant, Capacity)>>,
}

impl Meter {
    pub(crate) fn new(data_dir: PathBuf, clock: Clock) -> Arc<Self> {
        Arc::new(Self { data_dir, clock, last: Mutex::new(None) })
    }

    /// What was measured last.
    pub(crate) fn last(&self) -> Option<Capacity> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().map(|(_, capacity)| capacity.clone())
    }

    /// Measures again when the last time is long ago. A file system may take its time, so it is done beside.
    pub(crate) async fn renew(self: &Arc<Self>) {
        let good = {
            let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            last.as_ref().is_some_and(|(at, _)| at.elapsed() < GOOD_FOR)
        };
        if good {
            return;
        }
        let (dir, now) = (self.data_dir.clone(), self.clock.now());
        let measured = tokio::task::spawn_blocking(move || measure(&dir, now)).await.ok().flatten();
        if let Some(capacity) = measured {
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), capacity));
        }
    }
}

fn measure(data_dir: &Path, at: toolyard_types::Timestamp) -> Option<Capacity> {
    let (memory_bytes, memory_available_bytes) = memory()?;
    let disk = nix::sys::statvfs::statvfs(data_dir).ok()?;
    #[cfg_attr(target_os = "linux", expect(clippy::useless_conversion, reason = "it is a smaller number elsewhere"))]
    let disk_free_bytes = u64::from(disk.blocks_available()).saturating_mul(u64::from(disk.fragment_size()));
    Some(Capacity {
        cpus: std::thread::available_parallelism().map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX)),
        memory_bytes,
        memory_available_bytes,
        disk_free_bytes,
        at,
    })
}

/// All memory, and what could still be used.
#[cfg(target_os = "linux")]
fn memory() -> Option<(u64, u64)> {
    parse(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

/// Not known without more than the standard library.
#[cfg(not(target_os = "linux"))]
fn memory() -> Option<(u64, u64)> {
    None
}

#[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "there is no such file elsewhere"))]
fn parse(meminfo: &str) -> Option<(u64, u64)> {
    let kilobytes = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    Some((kilobytes("MemTotal")?.saturating_mul(1024), kilobytes("MemAvailable")?.saturating_mul(1024)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read_in_kilobytes() {
        let table = "MemTotal:       16318412 kB\nMemFree:          100 kB\nMemAvailable:    8000000 kB\n";
        assert_eq!(parse(table), Some((16_318_412 * 1024, 8_000_000 * 1024)));
        assert_eq!(parse("MemTotal: many kB"), None);
    }

    #[tokio::test]
    async fn this_host_is_measured_once_and_then_not_for_a_while() {
        let meter = Meter::new(std::env::temp_dir(), Clock::system());
        assert_eq!(meter.last(), None);
        meter.renew().await;
        let first = meter.last();
        meter.renew().await;
        assert_eq!(meter.last(), first);
        #[cfg(target_os = "linux")]
        {
            let capacity = first.expect("measured");
            assert!(capacity.cpus > 0 && capacity.memory_available_bytes <= capacity.memory_bytes);
        }
    }
}
