//! Within one life a node applies each entry once, in order, and only what it knows to be committed.

use std::collections::BTreeMap;

use super::events::{Event, Told};
use super::seen::Seen;

/// The invariant.
#[derive(Default)]
pub(super) struct AppliedGrows {
    /// By node the present life and what was applied last in it.
    last: BTreeMap<u64, (u64, Option<u64>)>,
    /// By node the last entry it called committed, in any life.
    committed: BTreeMap<u64, u64>,
}

impl super::Invariant for AppliedGrows {
    fn name(&self) -> &'static str {
        "applied_grows"
    }

    fn check(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        for Event { node, told } in seen.events {
            let life = seen.nodes.iter().find(|seen| seen.id == *node).map_or(0, |seen| seen.life);
            let (known, last) = self.last.entry(*node).or_insert((life, None));
            if *known != life {
                (*known, *last) = (life, None);
            }
            match (*told, *last) {
                (Told::Committed { index, .. }, _) => {
                    let committed = self.committed.entry(*node).or_default();
                    *committed = index.max(*committed);
                }
                (Told::Applied { index, .. }, Some(before)) if index != before + 1 => {
                    return Err(format!("n{node} applied entry {index} after {before}"));
                }
                (Told::Restored { index }, Some(before)) if index < before => {
                    return Err(format!("n{node} went from entry {before} back to a state of {index}"));
                }
                (Told::Applied { index, .. } | Told::Restored { index }, _) => *last = Some(index),
            }
            if let Told::Applied { index, .. } = *told
                && self.committed.get(node).is_none_or(|committed| *committed < index)
            {
                return Err(format!("n{node} applied entry {index}, which it does not know to be committed"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Cluster;
    use super::AppliedGrows;

    fn applied(indexes: &[u64]) -> Cluster<AppliedGrows> {
        let mut cluster = Cluster::new(&[1, 2, 3]);
        cluster.committed(1, 9, 1);
        for index in indexes {
            cluster.applied(1, *index, 1, "a");
        }
        cluster
    }

    #[test]
    fn one_after_the_other() {
        applied(&[1, 2, 3]).holds();
    }

    #[test]
    fn none_is_left_out_or_repeated() {
        applied(&[1, 3]).is_violated("n1 applied entry 3 after 1");
        applied(&[1, 2, 2]).is_violated("n1 applied entry 2 after 2");
    }

    #[test]
    fn a_snapshot_leaps_forward_only() {
        let mut cluster = applied(&[1, 2]);
        cluster.restored(1, 5);
        cluster.applied(1, 6, 1, "a");
        cluster.holds();
        cluster.restored(1, 4);
        cluster.is_violated("back to a state of 4");
    }

    #[test]
    fn another_life_begins_at_its_checkpoint() {
        let mut cluster = applied(&[1, 2, 3]);
        cluster.holds();
        cluster.restart(1);
        cluster.restored(1, 2);
        cluster.applied(1, 3, 1, "a");
        cluster.holds();
    }

    #[test]
    fn only_what_is_committed() {
        applied(&[9, 10]).is_violated("n1 applied entry 10, which it does not know to be committed");
    }
}
