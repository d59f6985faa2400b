//! Coverage marks: what a run has seen happen, and how often.
//!
//! A sweep in which nothing fails proves little if nothing happened. So interesting moments are counted, and a long
//! sweep fails if a kind of fault, or one of the [`EXPECTED`], was not seen at all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::plan::ACTIONS;

/// Counts of a run, by name. Cheap to clone.
#[derive(Clone, Default)]
pub struct Marks(Arc<Mutex<BTreeMap<&'static str, u64>>>);

impl Marks {
    /// It has happened once more.
    pub fn mark(&self, name: &'static str) {
        self.add(name, 1);
    }

    /// It has happened so often. 0: nothing is noted.
    pub fn add(&self, name: &'static str, count: u64) {
        if 0 < count {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default() += count;
        }
    }

    /// All counts.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }
}

/// So many seeds see everything that is expected; with fewer, a mark that is missing is told and no failure.
pub const SEEDS_MIN: u64 = 100;

/// What many seeds together must have seen, beside each of the [`ACTIONS`].
pub const EXPECTED: &[&str] = &[
    "power_cut_of_all",
    "power_cut_while_writing",
    "crash_came",
    "learner_added",
    "learner_promoted",
    "follower_removed",
    "leader_removed",
    "leadership_transferred",
    "backup_made",
    "leader_elected",
    "leader_elected_under_fault",
    "stopped_by_disk",
    "outcome_unknown",
    "door_answered",
    "door_clusterdown",
    "door_outcome_unknown",
    "asked_again",
    "promise_nothing_changed",
    "entry_taken_over",
    "write_lost",
    "write_torn",
    "name_lost",
    "core_alone",
    "engine_memory",
    "engine_redb",
    "five_voters",
];

/// Which of the expected marks are missing.
pub fn missing(counts: &BTreeMap<String, u64>) -> Vec<&'static str> {
    ACTIONS.iter().chain(EXPECTED).copied().filter(|name| counts.get(*name).copied().unwrap_or(0) == 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_seen_is_missing() {
        let marks = Marks::default();
        ACTIONS.iter().chain(EXPECTED.iter().skip(1)).for_each(|name| marks.mark(name));
        marks.add(EXPECTED[0], 0);
        assert_eq!(missing(&marks.counts()), [EXPECTED[0]]);
        marks.add(EXPECTED[0], 2);
        assert!(missing(&marks.counts()).is_empty());
    }
}
