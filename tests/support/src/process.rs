//! Processes, and waiting for a state of the machine that nobody announces.

use std::path::Path;
use std::time::{Duration, Instant};

/// A short pause between two looks at a state.
pub fn pause() {
    std::thread::park_timeout(Duration::from_millis(20));
}

/// Waits until `true`, at most `limit`; how long it took.
#[track_caller]
pub fn wait_until(limit: Duration, what: &str, mut happened: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !happened() {
        assert!(began.elapsed() < limit, "waited {limit:?} for: {what}");
        pause();
    }
    began.elapsed()
}

/// Sends a signal by its name without `SIG`, such as `KILL`.
pub fn signal(pid: u32, name: &str) {
    let signal = format!("SIG{name}").parse::<nix::sys::signal::Signal>().expect("a signal");
    if let Ok(pid) = i32::try_from(pid) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal);
    }
}

/// Whether a process exists and is not a zombie.
#[must_use]
pub fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

/// Every living process that names `mark` in its command line or environment.
#[must_use]
pub fn processes_with(mark: &str) -> Vec<u32> {
    let names_mark = |pid: &u32| {
        ["cmdline", "environ"].iter().any(|file| {
            let text = std::fs::read(Path::new("/proc").join(pid.to_string()).join(file)).unwrap_or_default();
            String::from_utf8_lossy(&text).contains(mark)
        })
    };
    pids().filter(names_mark).filter(|pid| alive(*pid)).collect()
}

/// The living children of a process, and theirs.
#[must_use]
pub fn children_of(pid: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = pids().filter_map(|child| Some((child, parent_of(child)?))).collect();
    let mut found = vec![pid];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(child, _)| *child));
        at += 1;
    }
    found.split_off(1)
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// An environment variable that `make test` sets.
#[expect(clippy::disallowed_methods, reason = "the test's own environment, not a setting")]
#[must_use]
pub fn test_variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; run the tests with `make test`"))
}
