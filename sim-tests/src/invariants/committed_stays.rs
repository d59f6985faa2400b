//! What is committed never changes: nobody applies another entry at its place, and who has it durably keeps it until its
//! durable state covers it.

use std::collections::BTreeMap;

use super::events::{Event, Told};
use super::seen::{NodeSeen, Seen};
use crate::trace::fingerprint;

/// The invariant.
#[derive(Default)]
pub(super) struct CommittedStays {
    /// By node and disk the last committed entry it has had durably, and with it all before.
    held: BTreeMap<(u64, u64), u64>,
}

impl super::Invariant for CommittedStays {
    fn name(&self) -> &'static str {
        "committed_stays"
    }

    fn check(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        for Event { node, told } in seen.events {
            let (index, term, proposal) = match *told {
                Told::Committed { index, term } => (index, term, None),
                Told::Applied { index, term, proposal } => (index, term, Some(proposal)),
                Told::Restored { .. } => continue,
            };
            let Some(entry) = seen.committed.entry(index) else { continue };
            if entry.leader.term != term || proposal.is_some_and(|proposal| entry.proposal != proposal) {
                let blank = if proposal == Some(fingerprint(&[])) { ", without a command" } else { "" };
                return Err(format!(
                    "at index {index} the entry of {} is committed, and n{node} has another of term {term}{blank}",
                    entry.leader
                ));
            }
        }
        seen.sound().try_for_each(|node| self.keeps(node, seen))
    }
}

impl CommittedStays {
    fn keeps(&mut self, node: &NodeSeen<'_>, seen: &Seen<'_>) -> Result<(), String> {
        let key = (node.id, node.replacements);
        let held = self.held.get(&key).copied();
        if let Some(held) = held
            && let Some(entry) = seen.committed.entry(held)
            && !node.holds(held, entry.leader)
        {
            let now = match node.log.entry(held) {
                Some(other) => format!("has that of {} in its place", other.leader),
                None => format!("has a log that ends before entry {}", node.log.next()),
            };
            return Err(format!("n{} had the committed entry {held} of {} durably, and {now}", node.id, entry.leader));
        }
        // A log that has this entry has all before it.
        let more = seen.committed.from(held.map_or(0, |held| held + 1));
        let more = more.take_while(|(index, entry)| node.holds(*index, entry.leader)).last();
        if let Some((index, _)) = more {
            self.held.insert(key, index);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Cluster;
    use super::CommittedStays;

    /// Entry 1 is committed and durable on n1 and n2.
    fn committed() -> Cluster<CommittedStays> {
        let mut cluster = Cluster::new(&[1, 2, 3]);
        cluster.append(1, 1, 1, "a");
        cluster.append(2, 1, 1, "a");
        cluster.applied(1, 1, 1, "a");
        cluster.holds();
        cluster
    }

    #[test]
    fn all_may_apply_the_same_and_repeat_it() {
        let mut cluster = committed();
        cluster.applied(2, 1, 1, "a");
        cluster.applied(1, 1, 1, "a");
        cluster.holds();
    }

    #[test]
    fn nobody_may_apply_another_entry() {
        let mut cluster = committed();
        cluster.applied(3, 1, 2, "a");
        cluster.is_violated("n3 has another of term 2");
    }

    #[test]
    fn nobody_may_apply_other_bytes() {
        let mut cluster = committed();
        cluster.applied(3, 1, 1, "b");
        cluster.is_violated("n3 has another of term 1");
    }

    #[test]
    fn a_node_may_not_drop_a_committed_entry() {
        let mut cluster = committed();
        cluster.truncate(2, 0);
        cluster.is_violated("n2 had the committed entry 1");
    }

    #[test]
    fn a_node_may_drop_what_is_not_committed() {
        let mut cluster = committed();
        cluster.append(1, 1, 2, "b");
        cluster.holds();
        cluster.truncate(1, 1);
        cluster.holds();
    }

    #[test]
    fn a_power_loss_may_not_take_a_committed_entry() {
        let mut cluster = committed();
        cluster.lose_log(2);
        cluster.is_violated("n2 had the committed entry 1");
    }

    #[test]
    fn a_purged_entry_is_kept_in_the_state() {
        let mut cluster = committed();
        cluster.purge(1, 1, 1);
        cluster.holds();
    }

    #[test]
    fn a_new_disk_starts_afresh() {
        let mut cluster = committed();
        cluster.lose_log(2);
        cluster.replace(2);
        cluster.holds();
    }
}
