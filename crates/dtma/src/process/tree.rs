//! Processes of the host, as `/proc` shows them: descendants, and what they use.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use toolyard_types::Timestamp;
use toolyard_types::agent::Usage;

/// Each pass may find what was forked during the last one.
const MAX_PASSES: usize = 200;
const PAUSE: Duration = Duration::from_millis(5);

/// A process as `/proc/<pid>/stat` shows it.
#[derive(Clone, Copy, Debug)]
struct Process {
    pid: i32,
    parent: i32,
    zombie: bool,
    threads: u32,
    cpu_ticks: u64,
}

/// What a set of processes uses together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Measured {
    /// Resident memory.
    pub(crate) memory_bytes: u64,
    /// What of that may belong to files, or to memory that is shared.
    pub(crate) shared_bytes: u64,
    /// Processor time, of those that live and of those they have waited for.
    pub(crate) cpu_ms: u64,
    /// Processes that are not zombies.
    pub(crate) processes: u32,
    /// Their threads.
    pub(crate) threads: u32,
}

impl Measured {
    /// As it is reported.
    pub(crate) fn usage(self, at: Timestamp) -> Usage {
        Usage { memory_bytes: self.memory_bytes, cpu_ms: self.cpu_ms, processes: self.processes, at }
    }
}

/// Every descendant of `root`, without `root` and without zombies. Empty where there is no `/proc`.
///
/// A process that loses its parent falls to the nearest subreaper or the init of its namespace, both of
/// which we are, so a chain of parents always leads back to `root`.
pub(crate) fn descendants(root: i32) -> Vec<i32> {
    let all = all_processes();
    let mut found = Vec::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        for process in all.iter().filter(|process| process.parent == parent) {
            parents.push(process.pid);
            if !process.zombie {
                found.push(process.pid);
            }
        }
    }
    found
}

/// Ends what was started for the instance in `dir` and outlived its supervisor, as far as it can be told: by
/// the home it was given and by where it works. Only for hosts without namespaces, where the kernel does not.
pub(crate) fn end_leftovers(dir: &Path) {
    let work = dir.join("work");
    let home = [b"HOME=", work.as_os_str().as_encoded_bytes()].concat();
    for _ in 0..MAX_PASSES {
        let left = all_processes().into_iter().filter(|process| !process.zombie && belongs(process.pid, &work, &home));
        let mut ended = 0;
        for process in left {
            ended += u32::from(kill(Pid::from_raw(process.pid), Signal::SIGKILL).is_ok());
        }
        if ended == 0 {
            return;
        }
        std::thread::sleep(PAUSE);
    }
}

fn belongs(pid: i32, work: &Path, home: &[u8]) -> bool {
    std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == work)
        || std::fs::read(format!("/proc/{pid}/environ"))
            .is_ok_and(|environment| environment.split(|byte| *byte == 0).any(|variable| variable == home))
}

/// Whether a thread of `pids` waits in the kernel beyond any signal.
pub(super) fn hang(pids: &[i32]) -> bool {
    let threads = |pid: &i32| std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    pids.iter().flat_map(threads).any(|thread| {
        let stat = std::fs::read(thread.path().join("stat")).unwrap_or_default();
        let state = String::from_utf8_lossy(&stat).rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        state == Some('D')
    })
}

/// What `pids` use together; those that are gone count nothing.
pub(crate) fn measure(pids: &[i32]) -> Measured {
    let mut total = Measured::default();
    for process in pids.iter().filter_map(|pid| process(*pid)).filter(|process| !process.zombie) {
        let (resident, shared) = resident_bytes(process.pid);
        total.memory_bytes += resident + page_table_bytes(process.pid);
        total.shared_bytes += shared;
        total.cpu_ms += process.cpu_ticks.saturating_mul(1000) / ticks_per_second();
        total.processes += 1;
        total.threads += process.threads;
    }
    total
}

fn all_processes() -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter_map(process).collect()
}

fn process(pid: i32) -> Option<Process> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    // The command's name stands in parentheses and may hold anything, also parentheses.
    let fields: Vec<&str> = stat.get(stat.rfind(')')? + 2..)?.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
    let threads = u32::try_from(number(17)?).ok()?;
    Some(Process {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        // One whose first thread ended lives on in the others.
        zombie: matches!(*fields.first()?, "Z" | "X") && threads <= 1,
        threads,
        cpu_ticks: (11..=14).filter_map(number).sum(),
    })
}

/// What is resident, and what of that may be shared.
fn resident_bytes(pid: i32) -> (u64, u64) {
    let pages = |file: &Path| {
        let text = std::fs::read_to_string(file).ok()?;
        let mut numbers = text.split_ascii_whitespace().skip(1).map_while(|number| number.parse::<u64>().ok());
        Some((numbers.next()?, numbers.next()?))
    };
    let of_first = pages(&Path::new("/proc").join(pid.to_string()).join("statm")).filter(|pages| pages.0 > 0);
    // A thread that ended has none, also when it was the first and others go on.
    let of_others = || {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        threads.filter_map(|thread| pages(&thread.path().join("statm"))).max()
    };
    let (resident, shared) = of_first.or_else(of_others).unwrap_or_default();
    (resident.saturating_mul(page_bytes()), shared.saturating_mul(page_bytes()))
}

/// What its tables of pages take (proc(5), `VmPTE` in kB): reading a large empty file costs nothing else.
fn page_table_bytes(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmPTE:")?.trim().strip_suffix(" kB")?.trim().parse().ok());
    kib.unwrap_or(0_u64).saturating_mul(1024)
}

fn page_bytes() -> u64 {
    system_number(nix::unistd::SysconfVar::PAGE_SIZE, 4096)
}

fn ticks_per_second() -> u64 {
    system_number(nix::unistd::SysconfVar::CLK_TCK, 100)
}

fn system_number(variable: nix::unistd::SysconfVar, otherwise: u64) -> u64 {
    let value = nix::unistd::sysconf(variable).ok().flatten();
    value.and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0).unwrap_or(otherwise)
}
