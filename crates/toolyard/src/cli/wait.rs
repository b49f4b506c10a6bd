//! Waiting for what goes on at the other side, whoever waits.

use std::time::Duration;

use super::context::Failure;

const FIRST_PAUSE: Duration = Duration::from_millis(150);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The pauses between two looks. Each look is a request, and most of what is waited for is over soon or takes long.
pub(crate) struct Pauses(Duration);

impl Pauses {
    pub(crate) fn new() -> Self {
        Self(FIRST_PAUSE)
    }

    pub(crate) async fn pause(&mut self) {
        tokio::time::sleep(self.next()).await;
    }

    fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = LONGEST_PAUSE.min(pause * 3 / 2);
        pause
    }
}

/// What `work` gives, unless Ctrl-C comes first: then it is left alone, and `left` says what goes on and how to follow it.
pub(crate) async fn unless_interrupted<T>(
    work: impl Future<Output = Result<T, Failure>>,
    left: impl FnOnce() -> String,
) -> Result<T, Failure> {
    tokio::select! {
        biased;
        done = work => done,
        Ok(()) = tokio::signal::ctrl_c() => Err(Failure::interrupted(left())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_second() {
        let mut pauses = Pauses::new();
        let first: Vec<_> = (0..8).map(|_| pauses.next()).collect();
        assert_eq!((first[0], first[7]), (FIRST_PAUSE, LONGEST_PAUSE));
        assert!(first.is_sorted(), "{first:?}");
    }
}
