//! Election safety: a leader leads because a quorum of the voters gave it its vote, durably. A vote that is only in memory can
//! be given twice, and then two leaders have the same id, or one is elected that does not know what was committed.
//!
//! Ids of leaders are totally ordered here (term, then node), and openraft allows two leaders of one term, the later of which
//! deposes the earlier. So there is no rule of one leader per term; that two logs of one leader id agree is for
//! `log_matching` to say.

use std::collections::BTreeSet;

use super::log::LeaderId;
use super::seen::Seen;

/// The invariant.
#[derive(Default)]
pub(super) struct LeadersAreElected {
    seen: BTreeSet<LeaderId>,
}

impl super::Invariant for LeadersAreElected {
    fn name(&self) -> &'static str {
        "leaders_are_elected"
    }

    fn check(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        for leader in established(seen) {
            if !self.seen.insert(leader) {
                continue;
            }
            let Some(node) = seen.node(leader.node) else { continue };
            let Some(voters) = seen.members.by_log(node.log, u64::MAX) else { continue };
            let voted = |vote: Option<super::log::Vote>| vote.is_some_and(|vote| leader <= vote.leader);
            if !seen.has_quorum(voters, |node| voted(node.log.vote)) {
                let votes = seen.nodes.iter().map(|node| match node.log.vote {
                    Some(vote) => format!("n{}: {vote}", node.id),
                    None => format!("n{}: none", node.id),
                });
                let votes = votes.collect::<Vec<_>>().join(", ");
                return Err(format!("{leader} leads without a quorum of durable votes, which are {votes}"));
            }
        }
        Ok(())
    }
}

/// Leaders that a quorum is said to have elected, by durable votes that have changed.
pub(super) fn established(seen: &Seen<'_>) -> impl Iterator<Item = LeaderId> {
    let changed = seen.nodes.iter().filter(|node| !node.changes.is_empty());
    changed.filter_map(|node| node.log.vote).filter(|vote| vote.committed).map(|vote| vote.leader)
}

#[cfg(test)]
mod tests {
    use super::super::testing::Cluster;
    use super::LeadersAreElected;

    #[test]
    fn a_majority_elects() {
        let mut cluster = Cluster::<LeadersAreElected>::new(&[1, 2, 3]);
        cluster.vote(1, 1, 1, false);
        cluster.vote(2, 1, 1, false);
        cluster.holds();
        cluster.vote(1, 1, 1, true);
        cluster.holds();
    }

    #[test]
    fn a_vote_that_is_not_durable_does_not_count() {
        let mut cluster = Cluster::<LeadersAreElected>::new(&[1, 2, 3]);
        cluster.vote(1, 1, 1, true);
        cluster.is_violated("term 1 of n1 leads without a quorum");
    }

    #[test]
    fn a_vote_for_an_earlier_leader_does_not_count() {
        let mut cluster = Cluster::<LeadersAreElected>::new(&[1, 2, 3]);
        cluster.vote(2, 1, 2, false);
        cluster.vote(3, 1, 2, false);
        cluster.vote(3, 2, 3, true);
        cluster.is_violated("term 2 of n3 leads without a quorum");
    }

    #[test]
    fn a_voter_may_have_moved_on() {
        let mut cluster = Cluster::<LeadersAreElected>::new(&[1, 2, 3]);
        cluster.vote(2, 3, 3, false);
        cluster.vote(1, 1, 1, true);
        cluster.holds();
    }
}
