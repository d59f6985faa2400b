//! What must hold, whatever happened: one file per property.
//!
//! A checker reads the evidence and names the first violation. It knows the promise and nothing of how it is kept.

mod acknowledged_appends_stay;
mod acknowledged_entries_rest;
mod batches_are_whole;
#[cfg(test)]
mod changes;
mod claims_wait;
mod deliveries_are_complete;
mod descriptions_fit;
mod endings_agree;
mod errors_tell_the_truth;
#[cfg(test)]
mod generator;
mod groups;
mod guards_hold;
mod keys_take_effect_once;
mod ledger;
mod new_entries_are_delivered_once;
mod nothing_is_invented;
mod order_is_kept;
mod owners_take_turns;
mod pending_lists_agree;
mod reads_follow_the_order;
mod refusals_have_a_cause;
mod removed_entries_are_gone;
mod replicas_agree;
mod search;
#[cfg(test)]
mod testing;
mod waiting_reads_wake;

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Call, Entry, GroupName, Id};
use ledger::{Ledger, NEVER};

/// What a simulation leaves behind.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// What the clients did and saw.
    pub calls: Vec<Call>,
    /// Streams and groups, read when the groups had been drained.
    pub end: Ending,
    /// The same, read again later: at least once after all nodes had lost their power, if the simulation does that.
    pub later: Vec<Ending>,
    /// The nodes, looked at after they had time to catch up.
    pub replicas: Vec<ReplicaEnd>,
    /// From when to when nothing was broken, nor had been for a while, in simulated milliseconds.
    pub calm: Vec<(u64, u64)>,
    /// By how much a node's clock was ever ahead of or behind another's, in milliseconds; `None`: nobody knows.
    pub clock_skew_ms: Option<u64>,
}

/// All streams and groups, as linearizable reads found them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ending {
    /// The entries of each stream.
    pub streams: BTreeMap<String, Vec<Entry>>,
    /// The groups that were drained.
    pub groups: BTreeMap<GroupName, GroupEnd>,
    /// The nodes at which a linearizable read was answered soon.
    pub serving: BTreeSet<String>,
}

/// How a group stands at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupEnd {
    /// It was to deliver the entries after this.
    pub start: Id,
    /// Entries delivered and not acknowledged.
    pub pending: u64,
    /// Entries not delivered; `None` if the store does not know.
    pub lag: Option<u64>,
    /// The last id that was delivered.
    pub last_delivered: Id,
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

type Check = fn(&Evidence, &Ledger<'_>) -> Result<(), String>;

const CHECKS: [(&str, Check); 21] = [
    ("acknowledged appends stay", acknowledged_appends_stay::check),
    ("nothing is invented", nothing_is_invented::check),
    ("errors tell the truth", errors_tell_the_truth::check),
    ("refusals have a cause", refusals_have_a_cause::check),
    ("order is kept", order_is_kept::check),
    ("reads follow the order", reads_follow_the_order::check),
    ("a search agrees", search::check),
    ("descriptions fit", descriptions_fit::check),
    ("keys take effect once", keys_take_effect_once::check),
    ("batches are whole", batches_are_whole::check),
    ("guards hold", guards_hold::check),
    ("removed entries are gone", removed_entries_are_gone::check),
    ("waiting reads wake", waiting_reads_wake::check),
    ("new entries are delivered once", new_entries_are_delivered_once::check),
    ("owners take turns", owners_take_turns::check),
    ("claims wait", claims_wait::check),
    ("pending lists agree", pending_lists_agree::check),
    ("acknowledged entries rest", acknowledged_entries_rest::check),
    ("deliveries are complete", deliveries_are_complete::check),
    ("endings agree", endings_agree::check),
    ("replicas agree", replicas_agree::check),
];

/// Holds the evidence against every property. One violation per property at most.
pub fn check(evidence: &Evidence) -> Vec<Violation> {
    let ledger = Ledger::new(evidence);
    CHECKS
        .iter()
        .filter_map(|(property, check)| check(evidence, &ledger).err().map(|problem| Violation { property, problem }))
        .collect()
}

/// How often each reason of the error contract was given to the clients; the empty name: none was, because no node was
/// reached.
pub fn reasons(calls: &[Call]) -> BTreeMap<String, u64> {
    refusals_have_a_cause::count(calls)
}
