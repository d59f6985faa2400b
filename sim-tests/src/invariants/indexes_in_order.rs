//! What is purged is covered by the durable state, and that covers nothing that is not committed. A node's own checkpoint
//! covers nothing that is not durable in its log, and the durable state never goes back.

use std::collections::BTreeMap;

use super::events::{Event, Told};
use super::log::Change;
use super::seen::{NodeSeen, Seen};

/// The invariant.
#[derive(Default)]
pub(super) struct IndexesInOrder {
    /// By node and disk.
    nodes: BTreeMap<(u64, u64), Remembered>,
}

#[derive(Default)]
struct Remembered {
    checkpoint: Option<u64>,
    /// The last entry that it applied itself, one after the other since it was restored.
    applied: Option<u64>,
    /// The state that it was restored to.
    restored: Option<u64>,
}

impl super::Invariant for IndexesInOrder {
    fn name(&self) -> &'static str {
        "indexes_in_order"
    }

    fn check(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        for Event { node, told } in seen.events {
            let Some(node) = seen.nodes.iter().find(|seen| seen.id == *node) else { continue };
            let remembered = self.nodes.entry((node.id, node.replacements)).or_default();
            match *told {
                Told::Applied { index, .. } => remembered.applied = Some(index),
                Told::Restored { index } => (remembered.applied, remembered.restored) = (None, Some(index)),
                Told::Committed { .. } => {}
            }
        }
        for node in seen.sound().filter(|node| node.checkpoint_changed || !node.changes.is_empty()) {
            let remembered = self.nodes.entry((node.id, node.replacements)).or_default();
            check(node, remembered, seen)?;
            remembered.checkpoint = node.checkpoint;
        }
        Ok(())
    }
}

fn check(node: &NodeSeen<'_>, before: &Remembered, seen: &Seen<'_>) -> Result<(), String> {
    let NodeSeen { id, log, checkpoint, .. } = node;
    let purged = log.purged.map(|purged| purged.index);
    let looked = node.changes.iter().any(|change| matches!(change, Change::Purged | Change::Reread));
    // Where the engine's files cannot be read, nothing is known of the checkpoint.
    if (looked || node.checkpoint_changed) && checkpoint.is_some() && *checkpoint < purged {
        return Err(format!("n{id} has purged {purged:?} and its durable state covers {checkpoint:?}"));
    }
    if seen.committed.last < purged || seen.committed.last < *checkpoint {
        let last = seen.committed.last;
        return Err(format!("n{id} has purged {purged:?}, has a state of {checkpoint:?}, and committed is {last:?}"));
    }
    if *checkpoint < before.checkpoint {
        return Err(format!("the durable state of n{id} covered {:?} and covers {checkpoint:?}", before.checkpoint));
    }
    let own = |index: &u64| before.restored < Some(*index) && Some(*index) <= before.applied;
    match checkpoint.filter(|_| node.checkpoint_changed).filter(own) {
        Some(checkpoint) if log.next() <= checkpoint => {
            let next = log.next();
            Err(format!("n{id} has a durable state of {checkpoint}, and a durable log that ends before entry {next}"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Cluster;
    use super::IndexesInOrder;

    /// Entries 1 to 3 are durable, committed and applied on n1.
    fn applied() -> Cluster<IndexesInOrder> {
        let mut cluster = Cluster::new(&[1, 2, 3]);
        cluster.restored(1, 0);
        for index in 1..=3 {
            cluster.append(1, 1, 1, "a");
            cluster.applied(1, index, 1, "a");
        }
        cluster.holds();
        cluster
    }

    #[test]
    fn purged_then_checkpoint_then_committed() {
        let mut cluster = applied();
        cluster.checkpoint(1, 3);
        cluster.holds();
        cluster.purge(1, 1, 2);
        cluster.holds();
    }

    #[test]
    fn nothing_is_purged_before_it_is_in_a_checkpoint() {
        let mut cluster = applied();
        cluster.checkpoint(1, 1);
        cluster.purge(1, 1, 2);
        cluster.is_violated("n1 has purged Some(2) and its durable state covers Some(1)");
    }

    #[test]
    fn a_checkpoint_has_only_what_is_committed() {
        let mut cluster = applied();
        cluster.checkpoint(1, 4);
        cluster.is_violated("committed is Some(3)");
    }

    #[test]
    fn a_checkpoint_of_ones_own_is_not_ahead_of_the_log() {
        let mut cluster = applied();
        cluster.applied(1, 4, 1, "not durable");
        cluster.checkpoint(1, 4);
        cluster.is_violated("ends before entry 4");
    }

    #[test]
    fn a_received_state_may_be_ahead_of_the_log() {
        let mut cluster = applied();
        cluster.committed(2, 9, 1);
        cluster.restored(1, 9);
        cluster.checkpoint(1, 9);
        cluster.holds();
    }

    #[test]
    fn the_durable_state_does_not_go_back() {
        let mut cluster = applied();
        cluster.checkpoint(1, 3);
        cluster.holds();
        cluster.checkpoint(1, 2);
        cluster.is_violated("covered Some(3) and covers Some(2)");
    }
}
