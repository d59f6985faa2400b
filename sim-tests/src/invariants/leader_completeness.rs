//! Leader completeness: who is elected has, durably, all that was committed by leaders before it.

use std::collections::BTreeSet;

use super::leaders_are_elected::established;
use super::log::LeaderId;
use super::seen::Seen;

/// The invariant.
#[derive(Default)]
pub(super) struct LeaderCompleteness {
    seen: BTreeSet<LeaderId>,
}

impl super::Invariant for LeaderCompleteness {
    fn name(&self) -> &'static str {
        "leader_completeness"
    }

    fn check(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        for leader in established(seen) {
            if !self.seen.insert(leader) {
                continue;
            }
            let Some(node) = seen.node(leader.node) else { continue };
            // A node that has this one has all before it.
            let before = seen.committed.last_of_leaders_before(leader);
            if let Some((index, entry)) = before.filter(|(index, entry)| !node.holds(*index, entry.leader)) {
                return Err(format!("{leader} leads without the committed entry {index} of {}", entry.leader));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Cluster;
    use super::LeaderCompleteness;

    /// Entry 1 is committed and durable on n1 and n2.
    fn committed() -> Cluster<LeaderCompleteness> {
        let mut cluster = Cluster::new(&[1, 2, 3]);
        cluster.append(1, 1, 1, "a");
        cluster.append(2, 1, 1, "a");
        cluster.committed(1, 1, 1);
        cluster.holds();
        cluster
    }

    #[test]
    fn who_has_what_is_committed_may_lead() {
        let mut cluster = committed();
        cluster.append(1, 1, 2, "not committed");
        cluster.vote(2, 2, 2, true);
        cluster.holds();
    }

    #[test]
    fn who_has_it_not_may_not() {
        let mut cluster = committed();
        cluster.vote(3, 2, 3, true);
        cluster.is_violated("term 2 of n3 leads without the committed entry 1");
    }

    #[test]
    fn who_has_it_in_its_state_may() {
        let mut cluster = committed();
        cluster.checkpoint(3, 1);
        cluster.vote(3, 2, 3, true);
        cluster.holds();
    }
}
