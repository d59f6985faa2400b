//! Who says that an entry is committed says that it is durable on a quorum of the voters. It must be so at that moment.

use super::events::{Event, Told};
use super::seen::Seen;

/// The invariant. Remembers nothing: each entry is looked at when the first node calls it committed.
#[derive(Default)]
pub(super) struct CommittedIsDurable;

impl super::Invariant for CommittedIsDurable {
    fn name(&self) -> &'static str {
        "committed_is_durable"
    }

    fn check(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        let mut before = seen.committed.last_before;
        for Event { node, told } in seen.events {
            let (Told::Committed { index, term } | Told::Applied { index, term, .. }) = *told else { continue };
            if Some(index) <= before {
                continue;
            }
            before = Some(index);
            let leader = seen.committed.entry(index).map(|entry| entry.leader).filter(|leader| leader.term == term);
            let holders = || seen.nodes.iter().filter(|node| leader.is_some_and(|leader| node.holds(index, leader)));
            // Who votes at that moment is known to the leader alone: by what the holders know, at the entry or later.
            let mut known = false;
            let enough = holders().any(|holder| {
                [index, u64::MAX].into_iter().filter_map(|last| seen.members.by_log(holder.log, last)).any(|voters| {
                    known = true;
                    seen.has_quorum(voters, |node| leader.is_some_and(|leader| node.holds(index, leader)))
                })
            });
            let unknown = leader.is_some() && !known;
            if enough || unknown || seen.nodes.iter().all(|node| node.damaged) {
                continue;
            }
            let holders: Vec<_> = holders().map(|node| format!("n{}", node.id)).collect();
            return Err(format!(
                "n{node} calls entry {index} of term {term} committed, which is durable on {holders:?} only"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Cluster;
    use super::CommittedIsDurable;

    #[test]
    fn a_majority_is_enough() {
        let mut cluster = Cluster::<CommittedIsDurable>::new(&[1, 2, 3]);
        cluster.append(1, 1, 1, "a");
        cluster.append(2, 1, 1, "a");
        cluster.committed(1, 1, 1);
        cluster.holds();
    }

    #[test]
    fn the_leader_alone_is_not() {
        let mut cluster = Cluster::<CommittedIsDurable>::new(&[1, 2, 3]);
        cluster.append(1, 1, 1, "a");
        cluster.committed(1, 1, 1);
        cluster.is_violated("durable on [\"n1\"] only");
    }

    #[test]
    fn nobody_is_not() {
        let mut cluster = Cluster::<CommittedIsDurable>::new(&[1, 2, 3]);
        cluster.committed(2, 1, 1);
        cluster.is_violated("durable on [] only");
    }

    #[test]
    fn another_leaders_entry_does_not_count() {
        let mut cluster = Cluster::<CommittedIsDurable>::new(&[1, 2, 3]);
        cluster.append(1, 2, 1, "a");
        cluster.append(2, 1, 1, "b");
        cluster.committed(1, 1, 2);
        cluster.is_violated("durable on [\"n1\"] only");
    }

    #[test]
    fn a_learner_does_not_count() {
        let mut cluster = Cluster::<CommittedIsDurable>::new(&[1, 2, 3]);
        cluster.add_node(4);
        cluster.change_members_at(4, 0, 0, 0, &[&[1, 2, 3]]);
        for node in [1, 4] {
            cluster.append(node, 1, 1, "a");
        }
        cluster.committed(1, 1, 1);
        cluster.is_violated("durable on [\"n1\", \"n4\"] only");
    }

    #[test]
    fn a_change_of_members_needs_both_majorities_or_the_new_one() {
        let durable_on = |nodes: &[u64]| {
            let mut cluster = Cluster::<CommittedIsDurable>::new(&[1, 2, 3]);
            cluster.add_node(4);
            cluster.add_node(5);
            for node in nodes {
                // Nodes 4 and 5 have not been sent entry 0: their logs begin with this one, which does no harm here.
                cluster.change_members_at(*node, 1, 1, 1, &[&[1, 2, 3], &[1, 4, 5]]);
            }
            cluster.committed(1, 1, 1);
            cluster
        };
        durable_on(&[1, 2]).is_violated("only");
        durable_on(&[1, 2, 4]).holds();
        durable_on(&[1, 4]).holds();
    }

    #[test]
    fn what_a_checkpoint_covers_is_held() {
        let mut cluster = Cluster::<CommittedIsDurable>::new(&[1, 2, 3]);
        cluster.append(1, 1, 1, "a");
        cluster.checkpoint(2, 1);
        cluster.committed(1, 1, 1);
        cluster.holds();
    }

    #[test]
    fn a_damaged_disk_is_not_blamed() {
        let mut cluster = Cluster::<CommittedIsDurable>::new(&[1, 2, 3]);
        cluster.append(1, 1, 1, "a");
        cluster.damage(2);
        cluster.committed(1, 1, 1);
        cluster.holds();
    }
}
