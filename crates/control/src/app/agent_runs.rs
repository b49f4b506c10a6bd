//! Which runs of a toolbox's agent asked, kept in the database: two agents with one key are found whichever replicas
//! they ask.
//!
//! A run that was followed by another has ended, unless somebody else has its key. The answer that it waits for is given
//! when the next run appears, so one that still lives asks again at once.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// How many former runs are remembered.
const FORMER_RUNS: usize = 8;
/// The longest name of a run.
pub(super) const LONGEST_RUN: usize = 64;
/// The run of a request that names none.
pub(super) const NAMELESS: &str = "-";

/// Runs of one toolbox's agent, for one enrolment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Runs {
    enrolment: u64,
    current: String,
    /// The last ones before it, and how often each asked since then.
    former: VecDeque<(String, u32)>,
}

/// What a request tells of its agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// The same run as before.
    Current,
    /// The first run of all.
    First,
    /// A run that follows another, or what a former one had sent before it ended.
    Changed,
    /// Two agents take turns.
    Shared,
}

impl Runs {
    /// As stored; what was told of another enrolment is forgotten.
    pub(super) fn read(stored: Option<&str>, enrolment: u64) -> Self {
        let stored = stored.and_then(|text| serde_json::from_str::<Self>(text).ok());
        stored.filter(|runs| runs.enrolment == enrolment).unwrap_or(Self { enrolment, ..Self::default() })
    }

    /// Whether no run asked yet.
    pub(super) fn is_empty(&self) -> bool {
        self.current.is_empty()
    }

    /// Whether a link of this run is none of another agent's. One without a run is, where the last one names its.
    pub(super) fn may_link(&self, run: Option<&str>) -> bool {
        match run {
            Some(run) => self.current == run || self.former.iter().any(|(former, _)| former == run),
            None => !toolyard_link::names_links(&self.current),
        }
    }

    /// To be stored.
    pub(super) fn written(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers serialise")
    }

    /// What a run that asks tells. What a former run had sent before it ended may arrive late, once.
    pub(super) fn note(&mut self, run: &str) -> Asked {
        if self.current == run {
            return Asked::Current;
        }
        if let Some((_, asked)) = self.former.iter_mut().find(|(former, _)| former == run) {
            *asked += 1;
            return if *asked > 1 { Asked::Shared } else { Asked::Changed };
        }
        let is_first = self.current.is_empty();
        if !is_first {
            self.former.truncate(FORMER_RUNS - 1);
            self.former.push_front((std::mem::take(&mut self.current), 0));
        }
        run.clone_into(&mut self.current);
        if is_first { Asked::First } else { Asked::Changed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_follow_each_other_and_two_agents_with_one_key_take_turns() {
        let mut restarted = Runs::default();
        // The last one's request was under way when it was killed.
        let mut told = ["a", "a", "b", "a", "b", "c", "c"].into_iter().map(|run| restarted.note(run));
        assert!(told.all(|asked| asked != Asked::Shared));
        let mut shared = Runs::default();
        let told: Vec<_> = ["a", "b", "a", "b", "a"].into_iter().map(|run| shared.note(run)).collect();
        assert_eq!(told, [Asked::First, Asked::Changed, Asked::Changed, Asked::Current, Asked::Shared]);
    }

    #[test]
    fn runs_are_forgotten_but_for_the_last_ones_and_with_their_enrolment() {
        let mut runs = Runs::read(None, 3);
        for number in 0..100 {
            runs.note(&number.to_string());
        }
        assert_eq!(runs.former.len(), FORMER_RUNS);
        assert_eq!(Runs::read(Some(&runs.written()), 3), runs);
        assert!(Runs::read(Some(&runs.written()), 4).former.is_empty());
    }
}
