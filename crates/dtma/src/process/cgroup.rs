//! Limits by control groups, version 1 or 2, where this process may make them.
//!
//! A group is made below our own, so that a limit set on Toolyard itself still holds for what it runs:
//! `<controller>/<our group>/toolyard/<instance>`. Whatever cannot be set is reported and watched instead.

use std::path::{Path, PathBuf};

use toolyard_types::spec::Limits;

/// The groups of one instance.
#[derive(Debug, Default)]
pub(crate) struct Cgroup {
    memory: Option<Controller>,
    /// Whether what waits in sockets is bounded too.
    socket_memory: bool,
    pids: Option<Controller>,
    cpu: Option<Controller>,
}

#[derive(Clone, Debug)]
struct Controller {
    dir: PathBuf,
    unified: bool,
}

impl Cgroup {
    /// Makes groups named `name` with `limits`, as far as this process may.
    pub(crate) fn create(name: &str, limits: &Limits) -> Self {
        let memory = controller("memory", name).filter(|group| set_memory(group, limits.memory_bytes));
        let socket_memory = memory.as_ref().is_some_and(|group| limit_sockets(group, limits.memory_bytes));
        let pids = controller("pids", name).filter(|group| write(&group.dir, "pids.max", limits.processes));
        let cpu = match limits.cpu_millis {
            0 => None,
            millis => controller("cpu", name).filter(|group| set_cpu(group, millis)),
        };
        Self { memory, socket_memory, pids, cpu }
    }

    /// Whether the memory limit is the kernel's to keep.
    pub(crate) fn limits_memory(&self) -> bool {
        self.memory.is_some()
    }

    /// Whether it holds for what waits in sockets too.
    pub(crate) fn limits_socket_memory(&self) -> bool {
        self.limits_memory() && self.socket_memory
    }

    /// Whether the process limit is the kernel's to keep.
    pub(crate) fn limits_processes(&self) -> bool {
        self.pids.is_some()
    }

    /// Whether the processor limit is the kernel's to keep.
    pub(crate) fn limits_cpu(&self) -> bool {
        self.cpu.is_some()
    }

    /// Puts a process, and so its later children, into the groups. A group that does not take it limits
    /// nothing and is given up: one may be allowed to make groups and not to move processes there.
    pub(crate) fn add(&mut self, pid: i32) {
        for group in [&mut self.memory, &mut self.pids, &mut self.cpu] {
            if let Some(refused) = group.take_if(|group| !write(&group.dir, "cgroup.procs", pid)) {
                let _ = std::fs::remove_dir(refused.dir);
            }
        }
    }

    /// The processes in it, if there is a group at all.
    pub(crate) fn processes(&self) -> Option<Vec<i32>> {
        let dir = self.dirs().next()?;
        let text = std::fs::read_to_string(dir.join("cgroup.procs")).ok()?;
        // Zero stands for a process we cannot see, and means our own group to `kill`.
        Some(text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect())
    }

    /// How often the kernel killed in it for want of memory.
    pub(crate) fn memory_kills(&self) -> u64 {
        let Some(group) = &self.memory else { return 0 };
        let file = if group.unified { "memory.events" } else { "memory.oom_control" };
        let text = std::fs::read_to_string(group.dir.join(file)).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
    }

    /// Removes the groups; those that still hold a process stay.
    pub(crate) fn remove(&self) {
        for dir in self.dirs() {
            let _ = std::fs::remove_dir(dir);
        }
    }

    fn dirs(&self) -> impl Iterator<Item = &Path> {
        [&self.memory, &self.pids, &self.cpu].into_iter().flatten().map(|group| group.dir.as_path())
    }
}

fn set_memory(group: &Controller, bytes: u64) -> bool {
    if group.unified {
        // Without swap accounting the file is not there; then there is nothing to limit.
        write(&group.dir, "memory.swap.max", 0);
        return write(&group.dir, "memory.max", bytes);
    }
    let limited = write(&group.dir, "memory.limit_in_bytes", bytes);
    write(&group.dir, "memory.memsw.limit_in_bytes", bytes);
    limited
}

/// Version 2 counts what waits in sockets with the rest. Version 1 counts it apart, and only where this is set, which
/// holds for UDP too, whatever its name says.
fn limit_sockets(group: &Controller, bytes: u64) -> bool {
    group.unified || write(&group.dir, "memory.kmem.tcp.limit_in_bytes", bytes)
}

fn set_cpu(group: &Controller, millis: u32) -> bool {
    let quota_us = u64::from(millis) * 100;
    if group.unified {
        return write(&group.dir, "cpu.max", format!("{quota_us} 100000"));
    }
    write(&group.dir, "cpu.cfs_period_us", 100_000) && write(&group.dir, "cpu.cfs_quota_us", quota_us.max(1000))
}

fn write(dir: &Path, file: &str, value: impl std::fmt::Display) -> bool {
    std::fs::write(dir.join(file), value.to_string()).is_ok()
}

/// Makes the group `toolyard/<name>` of one controller.
fn controller(kind: &str, name: &str) -> Option<Controller> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let mount = mounts.lines().filter_map(parse_mount).find(|mount| mount.has(kind))?;
    for base in mount.bases(&own, kind) {
        let parent = base.join("toolyard");
        let dir = parent.join(name);
        let delegated = !mount.unified || (delegate(&base, kind) && make(&parent) && delegate(&parent, kind));
        if delegated && make(&parent) && make(&dir) {
            remove_stale(&parent);
            return Some(Controller { dir, unified: mount.unified });
        }
    }
    None
}

/// Removes what killed supervisors left; a group's name ends in its supervisor's process id.
fn remove_stale(parent: &Path) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let supervisor = name.to_str().and_then(|name| name.rsplit_once('.')?.1.parse::<u32>().ok());
        if supervisor.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            let _ = std::fs::remove_dir(entry.path());
        }
    }
}

fn make(dir: &Path) -> bool {
    dir.is_dir() || std::fs::create_dir(dir).is_ok()
}

/// Lets children of a version 2 group use a controller.
fn delegate(dir: &Path, kind: &str) -> bool {
    let enabled = std::fs::read_to_string(dir.join("cgroup.subtree_control")).unwrap_or_default();
    enabled.split_ascii_whitespace().any(|word| word == kind)
        || write(dir, "cgroup.subtree_control", format!("+{kind}"))
}

#[derive(Debug, PartialEq, Eq)]
struct Mount<'a> {
    root: &'a str,
    point: &'a str,
    options: &'a str,
    unified: bool,
}

impl Mount<'_> {
    fn has(&self, kind: &str) -> bool {
        if self.unified {
            let controllers = std::fs::read_to_string(Path::new(self.point).join("cgroup.controllers"));
            return controllers.unwrap_or_default().split_ascii_whitespace().any(|word| word == kind);
        }
        self.options.split(',').any(|word| word == kind)
    }

    /// Where to make groups, best first: below our own group, else at the top of what we see.
    fn bases(&self, own: &str, kind: &str) -> Vec<PathBuf> {
        let top = PathBuf::from(self.point);
        let path = own.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let controllers = parts.next()?;
            let matches = if self.unified { controllers.is_empty() } else { controllers.split(',').any(|c| c == kind) };
            matches.then(|| parts.next())?
        });
        let below = path.and_then(|path| Path::new(path).strip_prefix(self.root).ok()).map(|path| top.join(path));
        below.into_iter().filter(|dir| dir.is_dir()).chain([top]).collect()
    }
}

fn parse_mount(line: &str) -> Option<Mount<'_>> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(3);
    let (root, point) = (left.next()?, left.next()?);
    let mut right = right.split(' ');
    let unified = match right.next()? {
        "cgroup" => false,
        "cgroup2" => true,
        _ => return None,
    };
    Some(Mount { root, point, options: right.nth(1)?, unified })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_read_from_the_mount_table() {
        let v1 = "32 26 0:28 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory";
        assert_eq!(
            parse_mount(v1),
            Some(Mount { root: "/", point: "/sys/fs/cgroup/memory", options: "rw,memory", unified: false })
        );
        let v2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";
        assert!(parse_mount(v2).expect("a mount").unified);
        assert_eq!(parse_mount("24 30 0:22 / /proc rw - proc proc rw"), None);
    }

    #[test]
    fn a_group_that_takes_no_process_limits_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let (taking, refusing) = (dir.path().join("taking"), dir.path().join("refusing"));
        std::fs::create_dir(&taking).expect("a group");
        let controller = |dir: &Path| Some(Controller { dir: dir.to_owned(), unified: true });
        let mut group = Cgroup { memory: controller(&refusing), pids: controller(&taking), ..Cgroup::default() };
        group.add(1);
        assert_eq!((group.limits_memory(), group.limits_processes()), (false, true));
    }

    #[test]
    fn a_group_of_our_own_comes_before_the_top() {
        let point = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(point.path().join("service")).expect("a group");
        let point_text = point.path().to_str().expect("utf-8");
        let mount = Mount { root: "/", point: point_text, options: "rw,memory", unified: false };
        let bases = mount.bases("4:memory:/service\n1:cpu:/\n", "memory");
        assert_eq!(bases, [point.path().join("service"), point.path().to_owned()]);
    }
}
