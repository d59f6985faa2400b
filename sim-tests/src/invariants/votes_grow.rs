//! A node's durable vote never goes back, whatever becomes of its process or its power.

use std::collections::BTreeMap;

use super::log::Vote;
use super::seen::Seen;

/// The invariant.
#[derive(Default)]
pub(super) struct VotesGrow {
    /// By node and disk the last durable vote.
    last: BTreeMap<(u64, u64), Vote>,
}

impl super::Invariant for VotesGrow {
    fn name(&self) -> &'static str {
        "votes_grow"
    }

    fn check(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        for node in seen.sound().filter(|node| !node.changes.is_empty()) {
            let key = (node.id, node.replacements);
            let last = self.last.get(&key).copied();
            if node.log.vote < last {
                let now = node.log.vote.map_or("none".into(), |vote| vote.to_string());
                let last = last.map_or("none".into(), |vote| vote.to_string());
                return Err(format!("the durable vote of n{} was {last} and is {now}", node.id));
            }
            if let Some(vote) = node.log.vote {
                self.last.insert(key, vote);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Cluster;
    use super::VotesGrow;

    #[test]
    fn a_later_vote_replaces_an_earlier_one() {
        let mut cluster = Cluster::<VotesGrow>::new(&[1, 2, 3]);
        for (term, node, committed) in [(1, 1, false), (1, 1, true), (1, 2, false), (2, 1, false)] {
            cluster.vote(1, term, node, committed);
            cluster.holds();
        }
    }

    #[test]
    fn an_earlier_vote_does_not() {
        for (term, node, committed) in [(1, 3, true), (2, 1, true), (2, 2, false)] {
            let mut cluster = Cluster::<VotesGrow>::new(&[1, 2, 3]);
            cluster.vote(1, 2, 2, true);
            cluster.holds();
            cluster.vote(1, term, node, committed);
            cluster.is_violated("the durable vote of n1 was term 2 of n2, granted");
        }
    }

    #[test]
    fn a_power_loss_may_not_take_it() {
        let mut cluster = Cluster::<VotesGrow>::new(&[1, 2, 3]);
        cluster.vote(1, 2, 2, true);
        cluster.holds();
        cluster.lose_log(1);
        cluster.is_violated("is none");
    }

    #[test]
    fn a_new_disk_has_none() {
        let mut cluster = Cluster::<VotesGrow>::new(&[1, 2, 3]);
        cluster.vote(1, 2, 2, true);
        cluster.holds();
        cluster.lose_log(1);
        cluster.replace(1);
        cluster.holds();
    }
}
