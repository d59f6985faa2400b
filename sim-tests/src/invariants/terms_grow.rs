//! Along each durable log the leaders' ids do not decrease. A log in which they do has an entry that should have been cut off.

use super::log::Change;
use super::seen::{NodeSeen, Seen};

/// The invariant. Remembers nothing: an entry is looked at when it becomes durable.
#[derive(Default)]
pub(super) struct TermsGrow;

impl super::Invariant for TermsGrow {
    fn name(&self) -> &'static str {
        "terms_grow"
    }

    fn check(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        seen.sound().try_for_each(node)
    }
}

fn node(node: &NodeSeen<'_>) -> Result<(), String> {
    for (index, entry) in node.new_entries() {
        let before = index.checked_sub(1).and_then(|before| node.log.leader_of(before));
        if let Some(before) = before.filter(|before| entry.leader < *before) {
            return Err(format!("n{} has entry {index} of {} behind one of {before}", node.id, entry.leader));
        }
    }
    // An entry goes behind what the vote allows.
    let appended = node.changes.iter().any(|change| matches!(change, Change::Appended(_) | Change::Reread));
    let last = node.log.entries().next_back();
    match (last, node.log.vote) {
        (Some((index, entry)), vote) if appended && vote.is_none_or(|vote| vote.leader < entry.leader) => {
            // The very first entry, which forms a cluster, is nobody's.
            if entry.leader.term == 0 {
                return Ok(());
            }
            Err(format!("n{} has entry {index} of {} durably, and not the vote for it", node.id, entry.leader))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Cluster;
    use super::TermsGrow;

    #[test]
    fn leaders_follow_each_other() {
        let mut cluster = Cluster::<TermsGrow>::new(&[1, 2, 3]);
        cluster.vote(1, 3, 1, false);
        cluster.append(1, 1, 2, "a");
        cluster.append(1, 1, 3, "b");
        cluster.append(1, 3, 1, "c");
        cluster.holds();
    }

    #[test]
    fn an_entry_of_an_earlier_leader_does_not_follow() {
        let mut cluster = Cluster::<TermsGrow>::new(&[1, 2, 3]);
        cluster.vote(1, 3, 1, false);
        cluster.append(1, 2, 2, "a");
        cluster.append(1, 1, 1, "b");
        cluster.is_violated("n1 has entry 2 of term 1 of n1 behind one of term 2 of n2");
    }

    #[test]
    fn an_entry_needs_the_vote_for_its_leader() {
        let mut cluster = Cluster::<TermsGrow>::new(&[1, 2, 3]);
        cluster.vote(1, 1, 2, true);
        cluster.append(1, 2, 2, "a");
        cluster.is_violated("not the vote for it");
    }

    #[test]
    fn the_entry_that_replaces_another_may_be_older_than_what_was_cut_off() {
        let mut cluster = Cluster::<TermsGrow>::new(&[1, 2, 3]);
        cluster.vote(1, 3, 1, false);
        cluster.append(1, 2, 2, "a");
        cluster.truncate(1, 0);
        cluster.append(1, 1, 1, "b");
        cluster.holds();
    }
}
