//! What must hold, whatever happened: one file per property.
//!
//! A checker reads the evidence and names the first violation. It knows the promise and nothing of how it is kept.

mod acknowledged_appends_stay;
mod acknowledged_entries_rest;
mod batches_are_whole;
mod deliveries_are_complete;
mod errors_tell_the_truth;
mod new_entries_are_delivered_once;
mod nothing_is_invented;
mod order_is_kept;
mod removed_entries_are_gone;
mod replicas_agree;
#[cfg(test)]
mod testing;

use std::collections::BTreeSet;

use crate::history::{Action, Call, Entry, Id, Outcome};

/// What a simulation leaves behind.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// What the clients did and saw.
    pub calls: Vec<Call>,
    /// The whole stream, read at the end.
    pub stream: Vec<Entry>,
    /// The group, looked at after the drain.
    pub group: GroupEnd,
    /// The nodes, looked at after they had time to catch up.
    pub replicas: Vec<ReplicaEnd>,
}

impl Evidence {
    /// The entries that a consumer has removed or may have.
    fn removable(&self) -> BTreeSet<Id> {
        let attempts = self.calls.iter().filter_map(|call| match (&call.action, &call.answer) {
            (Action::AckAndDelete { .. }, Some((_, Outcome::NothingChanged(_)))) => None,
            (Action::AckAndDelete { ids }, _) => Some(ids),
            _ => None,
        });
        attempts.flatten().copied().collect()
    }
}

/// How a group stands at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupEnd {
    /// Entries delivered and not acknowledged.
    pub pending: u64,
}

/// How a node stands at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaEnd {
    /// Its name.
    pub node: String,
    /// Last log index applied.
    pub applied_index: u64,
    /// Digest of the state there.
    pub state_digest: String,
}

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which property.
    pub property: &'static str,
    /// What is wrong, with the facts.
    pub problem: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.property, self.problem)
    }
}

type Check = fn(&Evidence) -> Result<(), String>;

const CHECKS: [(&str, Check); 10] = [
    ("acknowledged appends stay", acknowledged_appends_stay::check),
    ("nothing is invented", nothing_is_invented::check),
    ("errors tell the truth", errors_tell_the_truth::check),
    ("order is kept", order_is_kept::check),
    ("new entries are delivered once", new_entries_are_delivered_once::check),
    ("acknowledged entries rest", acknowledged_entries_rest::check),
    ("deliveries are complete", deliveries_are_complete::check),
    ("batches are whole", batches_are_whole::check),
    ("removed entries are gone", removed_entries_are_gone::check),
    ("replicas agree", replicas_agree::check),
];

/// Holds the evidence against every property. One violation per property at most.
pub fn check(evidence: &Evidence) -> Vec<Violation> {
    CHECKS
        .iter()
        .filter_map(|(property, check)| check(evidence).err().map(|problem| Violation { property, problem }))
        .collect()
}
