//! Whether processes moved while they were looked at, and stopping them so that they do not.
//!
//! They are stopped by a signal, not by a control group: every host has signals, a stopped process can be killed still,
//! and nothing is left behind that only a living supervisor could undo: when that dies, what it started is killed as ever.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process::unnamed::threads;

/// So long processes may take to stand still.
const STOP_WITHIN: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(2);
/// More threads than this are not looked at between pieces of other work: they count as moving.
const MAX_THREADS: usize = 512;

/// Tells the processes that are there now.
pub(crate) type Pids<'a> = &'a dyn Fn() -> Vec<i32>;

/// What threads did until some time.
#[derive(Debug)]
pub(super) struct Activity {
    threads: BTreeMap<i32, Thread>,
    /// Parents of theirs that are none of them, such as the first process of a namespace: who ends between two looks is
    /// waited for by one, which runs for that.
    parents: BTreeMap<i32, Thread>,
    /// The same where that is us: children of ours, and a number that grows with each that ended and was waited for.
    children: Vec<u8>,
    reaped: i64,
}

#[derive(Debug, PartialEq, Eq)]
struct Thread {
    state: u8,
    /// How long it ran and waited to run, and how often: `/proc/PID/task/TID/schedstat`.
    ran: String,
}

impl Activity {
    /// Of these processes; none when they are too many.
    pub(super) fn of_few(pids: &[i32]) -> Option<Self> {
        let mut found = Vec::new();
        for pid in pids {
            found.extend(threads(*pid));
            if found.len() > MAX_THREADS {
                return None;
            }
        }
        Some(Self::of(pids, found))
    }

    fn of_all(pids: &[i32]) -> Self {
        Self::of(pids, pids.iter().flat_map(|pid| threads(*pid)).collect())
    }

    fn of(pids: &[i32], threads: Vec<(i32, i32)>) -> Self {
        let own = nix::unistd::getpid().as_raw();
        let parents: BTreeSet<i32> = pids.iter().filter_map(|pid| parent(*pid)).filter(|pid| *pid != own).collect();
        let parents = parents.into_iter().filter(|pid| !pids.contains(pid)).map(|pid| (pid, pid)).collect();
        let look = |all: Vec<(i32, i32)>| all.into_iter().filter_map(|(pid, tid)| Some((tid, Thread::of(pid, tid)?)));
        // We have one thread, and so all our children are its.
        let children = std::fs::read(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
        Self { threads: look(threads).collect(), parents: look(parents).collect(), children, reaped: reaped() }
    }

    /// Whether none of them ran between this and later, and none came or went.
    pub(super) fn is_still(&self, later: &Self) -> bool {
        self.is_same(later, Thread::slept)
    }

    /// Whether each of them is as it was, as `same` has it. Where there is nobody, somebody was missed.
    fn is_same(&self, later: &Self, same: impl Fn(&Thread, &Thread) -> bool) -> bool {
        let all = |were: &BTreeMap<i32, Thread>, are: &BTreeMap<i32, Thread>| {
            were.len() == are.len() && were.iter().zip(are).all(|((a, was), (b, is))| a == b && same(was, is))
        };
        !self.threads.is_empty()
            && self.reaped == later.reaped
            && self.children == later.children
            && all(&self.threads, &later.threads)
            && all(&self.parents, &later.parents)
    }
}

impl Thread {
    fn of(pid: i32, tid: i32) -> Option<Self> {
        let of = |file: &str| std::fs::read(format!("/proc/{pid}/task/{tid}/{file}")).ok();
        let stat = of("stat")?;
        // The command's name stands in parentheses and may hold anything, also parentheses.
        let after = stat.iter().rposition(|byte| *byte == b')')? + 2;
        let state = *stat.get(after)?;
        Some(Self { state, ran: String::from_utf8(of("schedstat").unwrap_or_default()).ok()? })
    }

    /// One that waits inside the kernel, for a disk or for a child that took its place, gets time to come out of there.
    fn stands(&self, late: bool) -> bool {
        matches!(self.state, b'T' | b't' | b'Z' | b'X') || (late && self.state == b'D')
    }

    /// Whether it did not run between this and later.
    fn slept(&self, later: &Self) -> bool {
        // A kernel may be made without these numbers.
        let told = !self.ran.is_empty() && self.ran.trim() != "0 0 0";
        told && self.ran == later.ran && self.state != b'R' && later.state != b'R'
    }

    /// [`Thread::slept`] of one that was stopped, or that finished a call it could not be stopped in.
    fn stood(&self, later: &Self) -> bool {
        let finished = self.state == b'D' && matches!(later.state, b'D' | b'T' | b't');
        finished || (self.ran == later.ran && self.state == later.state)
    }
}

fn parent(pid: i32) -> Option<i32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok()).filter(|pid| *pid > 0)
}

fn reaped() -> i64 {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN);
    usage.map_or(0, |usage| usage.voluntary_context_switches() + usage.involuntary_context_switches())
}

/// Processes that stand still, until this is dropped.
pub(super) struct Standing<'a> {
    pids: Pids<'a>,
    stopped: BTreeSet<i32>,
    activity: Option<Activity>,
}

impl<'a> Standing<'a> {
    /// Stops all of them; none when they do not come to stand.
    pub(super) fn stop(pids: Pids<'a>) -> Option<Self> {
        let mut standing = Self { pids, stopped: BTreeSet::new(), activity: None };
        let until = Instant::now() + STOP_WITHIN;
        loop {
            let known = standing.stopped.len();
            let activity = standing.stop_once();
            let late = Instant::now() >= until;
            // What a pass finds for the first time may have forked before it stopped.
            let all_known = !activity.threads.is_empty() && standing.stopped.len() == known;
            if all_known && activity.threads.values().all(|thread| thread.stands(late)) {
                standing.activity = Some(activity);
                return Some(standing);
            }
            if late {
                return None;
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Without us: who stops itself continues nobody.
    fn list(&self) -> Vec<i32> {
        let own = nix::unistd::getpid().as_raw();
        (self.pids)().into_iter().filter(|pid| *pid != own).collect()
    }

    fn stop_once(&mut self) -> Activity {
        let pids = self.list();
        for pid in &pids {
            // It may have ended; then another pass finds what it left.
            let _ = kill(Pid::from_raw(*pid), Signal::SIGSTOP);
        }
        self.stopped.extend(&pids);
        Activity::of_all(&pids)
    }

    /// Whether they have stood since.
    pub(super) fn stands(&self) -> bool {
        let now = Activity::of_all(&self.list());
        self.activity.as_ref().is_some_and(|activity| activity.is_same(&now, Thread::stood))
    }
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        self.stopped.extend(self.list());
        for pid in &self.stopped {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGCONT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    fn pid(child: &Child) -> i32 {
        i32::try_from(child.id()).expect("small")
    }

    #[test]
    fn processes_stand_still_until_they_are_let_go_and_it_is_seen_when_they_do_not() {
        let mut busy = Command::new("/bin/sh").args(["-c", "while :; do :; done"]).spawn().expect("it starts");
        let pids = [pid(&busy)];
        let list = || pids.to_vec();
        let now = || Activity::of_few(&pids).expect("few");
        assert!(!now().is_still(&now()));
        let standing = Standing::stop(&list).expect("it stands");
        assert!(standing.stands());
        assert!(now().is_still(&now()));
        kill(Pid::from_raw(pids[0]), Signal::SIGCONT).expect("continued");
        while standing.stands() {
            std::thread::sleep(PAUSE);
        }
        drop(standing);
        let standing = Standing::stop(&list).expect("it stands again");
        drop(standing);
        while now().threads.values().any(|thread| thread.state == b'T') {
            std::thread::sleep(PAUSE);
        }
        busy.kill().expect("killed");
        busy.wait().expect("ended");
    }

    #[test]
    fn who_ended_is_nobody_who_stands() {
        let mut ended = Command::new("/bin/true").spawn().expect("it starts");
        let pids = [pid(&ended)];
        ended.wait().expect("ended");
        assert!(Standing::stop(&|| pids.to_vec()).is_none());
        let none = Activity::of_few(&pids).expect("few");
        assert!(!none.is_still(&none));
    }
}
