//! Whose turn it is to run a package client: a few run at once, and no registry that does not answer holds up all others.
//!
//! A client that has run for a while most likely waits for its registry: it goes on in the lane of the slow ones, whose
//! places are others than those of the ones that work. A single registry never takes them all, so one that does not
//! answer leaves others what they would have without it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::engine::Progress;

/// Clients that run at once and have not run for long; they are heavy on disk and network, and the servers that run come
/// first.
const WORKING: usize = 3;
/// Clients that run beside them and have run for long. Who finds no place here counts as one that works, so that no more
/// than both together ever run.
const SLOW: usize = 6;
/// How many of the places of those that work, and of the slow ones, no single registry takes.
const KEPT: usize = 1;
/// Who has run for so long is slow.
const LONG: Duration = Duration::from_secs(5);
/// Who waits for less says nothing of it.
const UNTOLD: Duration = Duration::from_millis(500);
/// How long what was told stands, whatever changes: it is written down for everybody who looks at the deployment, of
/// everyone who waits.
const TOLD_FOR: Duration = Duration::from_secs(10);

/// Who runs and who waits.
pub(super) struct Turns {
    state: Mutex<State>,
    /// Heard of when somebody may begin who could not before.
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    last: u64,
    /// Those that run: of which registry, and since when.
    running: BTreeMap<u64, (String, Instant)>,
    /// Those that wait, as they came: of which registry.
    waiting: BTreeMap<u64, String>,
    /// Nobody begins while something is done that no client may meet.
    closed: bool,
}

/// A turn, or a place among those that wait; given back when dropped.
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    number: u64,
}

/// No client runs beside the one that has this, if any, and none begins until it is dropped.
pub(super) struct Alone<'a>(&'a Turns);

impl Turns {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), changed: watch::Sender::new(()) }
    }

    /// Waits for a turn of a package of `registry`, and says now and then while it waits for how many others.
    pub(super) async fn begin(&self, registry: &str, progress: Progress<'_>) -> Turn<'_> {
        let mut changed = self.changed.subscribe();
        let turn = self.line_up(registry);
        let (mut told, mut tell_at) = (0, Instant::now() + UNTOLD);
        loop {
            changed.borrow_and_update();
            let Some((others, aged_at)) = self.try_begin(turn.number) else { break };
            let now = Instant::now();
            if others != told && now >= tell_at {
                (told, tell_at) = (others, now + TOLD_FOR);
                let packages = if others == 1 { "package" } else { "packages" };
                progress(&format!("waits for {others} other {packages} to be fetched first"));
            }
            let look_again = aged_at.into_iter().chain((others != told).then_some(tell_at)).min();
            let look = async {
                match look_again {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // What would make it fail lives as long as we do.
                _ = changed.changed() => {}
                () = look => {}
            }
        }
        if told > 0 {
            progress("");
        }
        turn
    }

    /// Keeps all clients away while nobody runs but `beside`, if that is so.
    pub(super) fn alone(&self, beside: Option<&Turn<'_>>) -> Option<Alone<'_>> {
        let mut state = self.state();
        let others = state.running.keys().any(|number| beside.is_none_or(|turn| turn.number != *number));
        if others || state.closed {
            return None;
        }
        state.closed = true;
        Some(Alone(self))
    }

    fn line_up(&self, registry: &str) -> Turn<'_> {
        let mut state = self.state();
        state.last += 1;
        let number = state.last;
        state.waiting.insert(number, registry.to_owned());
        Turn { turns: self, number }
    }

    /// Begins if that may be; else tells for how many others it waits, and when one that runs will have run for long.
    fn try_begin(&self, number: u64) -> Option<(usize, Option<Instant>)> {
        let now = Instant::now();
        let mut state = self.state();
        if state.may_begin(number, now)
            && let Some(registry) = state.waiting.remove(&number)
        {
            state.running.insert(number, (registry, now));
            drop(state);
            // Who waits behind it waits for one fewer, or for one that runs.
            self.changed.send_replace(());
            return None;
        }
        let others = state.running.len() + state.waiting.range(..number).count();
        let aged = state.running.values().map(|(_, since)| *since + LONG).filter(|at| *at > now).min();
        Some((others, aged))
    }

    /// A poisoned lock means a panic between two whole changes.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn may_begin(&self, number: u64, now: Instant) -> bool {
        if self.closed {
            return false;
        }
        let works = |since: Instant| now.duration_since(since) < LONG;
        let mut running: Vec<(&str, bool)> =
            self.running.values().map(|(registry, since)| (registry.as_str(), works(*since))).collect();
        // Those who came before begin first, where there is room for them.
        for (waiting, registry) in self.waiting.range(..=number) {
            let fits = has_room(&running, registry);
            if *waiting == number {
                return fits;
            }
            if fits {
                running.push((registry, true));
            }
        }
        false
    }
}

/// Whether one more of a registry may run beside those that run, each with whether it works.
fn has_room(running: &[(&str, bool)], registry: &str) -> bool {
    let own = running.iter().filter(|(other, _)| *other == registry);
    let own_working = own.clone().filter(|(_, works)| *works).count();
    let slow = running.iter().filter(|(_, works)| !works).count();
    let working = running.len() - slow.min(SLOW);
    working < WORKING && own_working < WORKING - KEPT && own.count() < SLOW - KEPT
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.turns.state();
        state.running.remove(&self.number);
        state.waiting.remove(&self.number);
        drop(state);
        self.turns.changed.send_replace(());
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.0.state().closed = false;
        self.0.changed.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A turn that is to be had at once.
    async fn now<'a>(turns: &'a Turns, registry: &str) -> Turn<'a> {
        let turn = tokio::time::timeout(Duration::ZERO, turns.begin(registry, &|_| {})).await;
        turn.unwrap_or_else(|_| panic!("there is a place for `{registry}`"))
    }

    async fn waits(turns: &Turns, registry: &str) -> bool {
        tokio::time::timeout(Duration::ZERO, turns.begin(registry, &|_| {})).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn no_registry_takes_the_last_place_and_what_runs_long_holds_up_nobody() {
        let turns = Turns::new();
        let mut hangs = vec![now(&turns, "slow").await, now(&turns, "slow").await];
        assert!(waits(&turns, "slow").await);
        let other = now(&turns, "other").await;
        assert!(waits(&turns, "other").await, "three work at once");
        drop(other);
        drop(now(&turns, "other").await);
        tokio::time::advance(LONG).await;
        // None of these is taken for one that works any more.
        for _ in 0..3 {
            hangs.push(now(&turns, "slow").await);
            tokio::time::advance(LONG).await;
        }
        assert!(waits(&turns, "slow").await, "one place is never a single registry's");
        let others = [now(&turns, "other").await, now(&turns, "other").await, now(&turns, "third").await];
        assert!(waits(&turns, "third").await, "three work at once");
        drop(others);
        hangs.clear();
        drop(now(&turns, "slow").await);
    }

    #[tokio::test(start_paused = true)]
    async fn many_packages_of_a_registry_that_hangs_hold_up_none_of_another() {
        let turns = &Turns::new();
        let hangs = (0..17).map(|_| async move {
            let _turn = turns.begin("hangs", &|_| {}).await;
            std::future::pending::<()>().await;
        });
        let others = async {
            // By then it has all that it gets.
            tokio::time::sleep(10 * LONG).await;
            let began = Instant::now();
            let eight = (0..8).map(|_| async move {
                let _turn = turns.begin("other", &|_| {}).await;
                tokio::time::sleep(Duration::from_secs(3)).await;
            });
            futures_util::future::join_all(eight).await;
            began.elapsed().as_secs()
        };
        let took = tokio::select! {
            _ = futures_util::future::join_all(hangs) => panic!("what hangs does not end"),
            took = others => took,
        };
        assert_eq!(took, 12, "two at once, as if nothing hung");
    }

    #[tokio::test(start_paused = true)]
    async fn however_many_registries_are_slow_no_more_run_than_have_a_place() {
        let turns = Turns::new();
        let mut running = Vec::new();
        for number in 0..WORKING + SLOW {
            running.push(now(&turns, &format!("registry {number}")).await);
            tokio::time::advance(LONG).await;
        }
        assert!(waits(&turns, "one more").await);
        running.pop();
        drop(now(&turns, "one more").await);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_says_for_how_many_and_comes_in_turn() {
        let turns = Turns::new();
        let (first, second) = (now(&turns, "a").await, now(&turns, "a").await);
        let told = Mutex::new(Vec::new());
        let say = |text: &str| told.lock().expect("no panic").push(text.to_owned());
        let begun = Mutex::new(Vec::new());
        let third = async {
            let _turn = turns.begin("a", &say).await;
            begun.lock().expect("no panic").push(3);
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        let fourth = async {
            let _turn = turns.begin("a", &|_| {}).await;
            begun.lock().expect("no panic").push(4);
        };
        let ends = async {
            tokio::time::sleep(2 * UNTOLD).await;
            drop(first);
            tokio::time::sleep(Duration::from_millis(10)).await;
            drop(second);
        };
        tokio::join!(third, fourth, ends);
        assert_eq!(*begun.lock().expect("no panic"), [3, 4]);
        assert_eq!(*told.lock().expect("no panic"), ["waits for 2 other packages to be fetched first", ""]);
        assert!(turns.state().waiting.is_empty() && turns.state().running.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_in_a_line_that_moves_tells_so_every_ten_seconds_and_not_with_each_that_ends() {
        let turns = Turns::new();
        let (first, second) = (now(&turns, "a").await, now(&turns, "a").await);
        let told = Mutex::new(Vec::new());
        let began = Instant::now();
        let say = |text: &str| told.lock().expect("no panic").push((began.elapsed().as_secs(), text.to_owned()));
        let runs = async || {
            let _turn = turns.begin("a", &|_| {}).await;
            tokio::time::sleep(Duration::from_secs(4)).await;
        };
        let waits = async { drop(turns.begin("a", &say).await) };
        let ends = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop((first, second));
        };
        // Two run at once and each runs for four seconds: the last one comes after 13 of them.
        tokio::join!(runs(), runs(), runs(), runs(), runs(), runs(), waits, ends);
        let waiting = |others: usize| format!("waits for {others} other packages to be fetched first");
        let expected = [(0, waiting(8)), (10, waiting(2)), (13, String::new())];
        assert_eq!(*told.lock().expect("no panic"), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_waiting_leaves_its_place_and_who_is_alone_keeps_all_away() {
        let turns = Turns::new();
        let (first, second) = (now(&turns, "a").await, now(&turns, "a").await);
        assert!(waits(&turns, "a").await && turns.state().waiting.is_empty());
        assert!(turns.alone(None).is_none() && turns.alone(Some(&first)).is_none());
        drop(second);
        let alone = turns.alone(Some(&first)).expect("nobody else runs");
        assert!(waits(&turns, "b").await && turns.alone(Some(&first)).is_none());
        drop(alone);
        drop((first, now(&turns, "b").await));
        assert!(turns.alone(None).is_some());
    }
}
