//! Log matching: two durable logs with an entry of one leader at one index have the same there, and before it.

use std::collections::BTreeMap;

use super::log::LeaderId;
use super::seen::{NodeSeen, Seen};

/// The invariant.
#[derive(Default)]
pub(super) struct LogMatching {
    /// By index and leader the fingerprint of the entry, and who proposed the one before it.
    entries: BTreeMap<(u64, LeaderId), (u64, Option<LeaderId>)>,
}

impl super::Invariant for LogMatching {
    fn name(&self) -> &'static str {
        "log_matching"
    }

    fn check(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        seen.sound().try_for_each(|node| self.node(node))
    }
}

impl LogMatching {
    fn node(&mut self, node: &NodeSeen<'_>) -> Result<(), String> {
        for (index, entry) in node.new_entries() {
            let before = index.checked_sub(1).and_then(|before| node.log.leader_of(before));
            let (bytes, known) = self.entries.entry((index, entry.leader)).or_insert((entry.fingerprint, before));
            if *bytes != entry.fingerprint {
                return Err(format!(
                    "n{} has other bytes than another node in entry {index} of {}",
                    node.id, entry.leader
                ));
            }
            match (&known, before) {
                (None, _) => *known = before,
                (Some(known), Some(before)) if *known != before => {
                    return Err(format!(
                        "before entry {index} of {}, n{} has an entry of {before} and another node one of {known}",
                        entry.leader, node.id
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Cluster;
    use super::LogMatching;

    #[test]
    fn equal_logs_match_and_so_do_different_tails() {
        let mut cluster = Cluster::<LogMatching>::new(&[1, 2, 3]);
        for node in [1, 2] {
            cluster.append(node, 1, 1, "a");
        }
        cluster.append(1, 1, 1, "b");
        cluster.append(2, 2, 2, "c");
        cluster.holds();
    }

    #[test]
    fn one_leader_has_one_entry_at_an_index() {
        let mut cluster = Cluster::<LogMatching>::new(&[1, 2, 3]);
        cluster.append(1, 1, 1, "a");
        cluster.append(2, 1, 1, "b");
        cluster.is_violated("n2 has other bytes");
    }

    #[test]
    fn equal_entries_have_equal_ones_before_them() {
        let mut cluster = Cluster::<LogMatching>::new(&[1, 2, 3]);
        cluster.append(1, 1, 1, "a");
        cluster.append(2, 2, 2, "b");
        for node in [1, 2] {
            cluster.append(node, 3, 3, "c");
        }
        cluster.is_violated("before entry 2");
    }

    #[test]
    fn a_log_that_is_read_anew_is_looked_at_as_a_whole() {
        let mut cluster = Cluster::<LogMatching>::new(&[1, 2, 3]);
        cluster.append(1, 1, 1, "a");
        cluster.holds();
        cluster.append(2, 1, 1, "b");
        cluster.reread(2);
        cluster.is_violated("n2 has other bytes");
    }
}
