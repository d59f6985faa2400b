//! When checkpoints are written, and how much of the log is kept behind them.
//!
//! A checkpoint is due by the bytes of log since the last one, by the bytes of state that changed, or by entries: the first
//! two bound the replay after a restart and the memory, the last the replay of many small commands. Each node scales its
//! bounds by a factor of its own, so that nodes which get the same log do not all write at once.
//!
//! The log behind a checkpoint is kept for followers that fall behind: so many bytes, and more while somebody is being
//! sent a snapshot or is catching up with what came since. Otherwise whoever has just got a snapshot would need another one.

use std::collections::BTreeMap;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use tokio::time::Instant;

use super::shared::Shared;
use super::{Raft, Replica, checkpoint};
use crate::config::CheckpointOptions;
use crate::types::NodeId;

/// A follower whose log grows is waited for. One that has stood still for so long is not: 10 s.
const STILL_MAX: Duration = Duration::from_secs(10);

/// Writes checkpoints and purges the log behind them while the replica runs.
pub(crate) fn drive(replica: &Replica) {
    let (shared, raft) = (replica.inner.shared.clone(), replica.inner.raft.clone());
    let mut ready = replica.inner.ready.subscribe();
    tokio::spawn(async move {
        let mut followers = Followers::default();
        loop {
            tokio::select! {
                biased;
                stopping = ready.wait_for(|ready| !ready) => { drop(stopping); return }
                () = tokio::time::sleep(shared.config.checkpoint.interval) => {}
            }
            if is_due(&shared) {
                // An error has ended this node.
                if checkpoint::write(&shared).await.is_err() {
                    return;
                }
                // Fails only if Raft has stopped, which has its own watchman.
                let _ = raft.trigger().snapshot().await;
            }
            shared.outgoing.expire();
            shared.incoming.expire();
            let floor = followers.floor(&raft, shared.log.first_index());
            if let Some(index) = purgeable(&shared, floor) {
                shared.world.probe.mark("log_purged");
                if is_past_follower(&raft, index) {
                    shared.world.probe.mark("log_purged_past_follower");
                }
                let _ = raft.trigger().purge_log(index).await;
            }
        }
    });
}

/// Whether a follower of this leader has less of the log than up to this entry.
fn is_past_follower(raft: &Raft, index: u64) -> bool {
    let receiver = raft.metrics();
    let metrics = receiver.borrow_watched();
    let mut matched = metrics.replication.iter().flatten().map(|(_, matched)| matched.as_ref());
    matched.any(|matched| matched.map_or(0, |id| id.index) < index)
}

/// A bound scaled by a node's factor, 0.75 to 1.25. Neighbouring ids are far apart: multiples of the golden section.
fn staggered(bound: u64, node_id: NodeId) -> u64 {
    let permille = 750 + (node_id.wrapping_mul(618) % 1_000) / 2;
    (u128::from(bound) * u128::from(permille) / 1_000).min(u128::from(u64::MAX)) as u64
}

/// From how many bytes of changed state on a checkpoint is due: before the gate shuts, whatever the node's factor is, or
/// apply would wait for a checkpoint that never comes.
fn dirty_bytes_due(limits: &CheckpointOptions, node_id: NodeId) -> u64 {
    let shut_at = limits.dirty_bytes_max.max(limits.dirty_bytes);
    staggered(limits.dirty_bytes, node_id).min(shut_at / 2)
}

fn is_due(shared: &Shared) -> bool {
    let limits = &shared.config.checkpoint;
    let staggered = |bound| staggered(bound, shared.node_id());
    let covered = shared.checkpoint().and_then(|meta| meta.last_log_id).map_or(0, |id| id.index);
    let (applied, dirty) = {
        let machine = shared.machine();
        (machine.applied_index(), machine.state.dirty_bytes())
    };
    if applied <= covered {
        return false;
    }
    staggered(limits.entries) <= applied - covered
        || dirty_bytes_due(limits, shared.node_id()) <= dirty
        || staggered(limits.log_bytes) <= shared.log.bytes_from(covered + 1)
}

/// Up to which entry the log may be purged; `None`: not at all. `floor`: what followers still need follows this index.
fn purgeable(shared: &Shared, floor: Option<u64>) -> Option<u64> {
    let options = &shared.config.log;
    let covered = shared.checkpoint()?.last_log_id?.index;
    let (first, last) = (shared.log.first_index(), shared.log.last_index());
    let kept = |bytes: u64| first_kept(first, last, |index| shared.log.bytes_from(index) <= bytes);
    let by_entries = (last + 1).saturating_sub(options.entries_kept);
    let wanted = kept(options.bytes_kept).max(by_entries);
    let needed = floor.into_iter().chain(shared.outgoing.needs_log_from()).min().map(|index| index + 1);
    let next = match needed {
        Some(needed) => next_kept(wanted, needed, kept(options.bytes_kept_for_transfer)),
        None => wanted,
    };
    // What the checkpoint does not cover stays.
    next.min(covered + 1).checked_sub(1).filter(|index| first <= *index)
}

/// The first entry that is kept if `wanted` is without followers, `needed` is what they need, and no more than from
/// `at_most` on is kept for them. A follower never makes it less.
fn next_kept(wanted: u64, needed: u64, at_most: u64) -> u64 {
    needed.max(at_most).min(wanted)
}

/// The smallest index from which on the entries `first..=last` are few enough; `last + 1` if none are.
fn first_kept(first: u64, last: u64, few_enough: impl Fn(u64) -> bool) -> u64 {
    let (mut low, mut high) = (first, last + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        if few_enough(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

/// How far the followers are, as seen by the leader.
#[derive(Default)]
struct Followers(BTreeMap<NodeId, Seen>);

struct Seen {
    matched: u64,
    since: Instant,
}

impl Followers {
    /// The index up to which all followers are that can still go on with the log, and do. `None`: no such follower.
    fn floor(&mut self, raft: &Raft, first_log_index: u64) -> Option<u64> {
        let receiver = raft.metrics();
        let metrics = receiver.borrow_watched();
        let Some(replication) = &metrics.replication else {
            self.0.clear();
            return None;
        };
        let now = Instant::now();
        self.0.retain(|id, _| replication.contains_key(id));
        let mut floor = None;
        for (id, matched) in replication.iter() {
            let matched = matched.as_ref().map_or(0, |id| id.index);
            let seen = self.0.entry(*id).or_insert(Seen { matched, since: now });
            if seen.matched != matched {
                *seen = Seen { matched, since: now };
            }
            let goes_on = first_log_index <= matched + 1 && now.duration_since(seen.since) < STILL_MAX;
            if goes_on {
                floor = Some(floor.unwrap_or(u64::MAX).min(matched));
            }
        }
        floor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_of_a_cluster_are_far_apart() {
        for first in [1, 4, 100] {
            let mut bounds: Vec<_> = (first..first + 3).map(|id| staggered(1_000, id)).collect();
            assert!(bounds.iter().all(|bound| (750..=1_250).contains(bound)), "{bounds:?}");
            bounds.sort_unstable();
            assert!(bounds.windows(2).all(|pair| 90 <= pair[1] - pair[0]), "{bounds:?}");
        }
        assert_eq!(staggered(u64::MAX, 3), u64::MAX);
    }

    #[test]
    fn a_checkpoint_is_due_before_the_gate_shuts() {
        for (dirty_bytes, dirty_bytes_max) in [(1_000, 1_000), (1_000, 1_100), (1_000, 4_000), (1_000, 0)] {
            let limits = CheckpointOptions { dirty_bytes, dirty_bytes_max, ..CheckpointOptions::default() };
            for node_id in 1..=10 {
                let due = dirty_bytes_due(&limits, node_id);
                assert!(0 < due && due < dirty_bytes_max.max(dirty_bytes), "node {node_id}: {due} of {limits:?}");
            }
        }
    }

    #[test]
    fn followers_keep_more_of_the_log_and_never_less() {
        // Wanted, needed, and the bound for followers.
        for (wanted, needed, at_most, first) in
            [(50, 20, 10, 20), (50, 20, 30, 30), (50, 20, 80, 50), (50, 90, 10, 50), (50, 50, 50, 50)]
        {
            assert_eq!(next_kept(wanted, needed, at_most), first, "{wanted} {needed} {at_most}");
        }
    }

    #[test]
    fn as_much_of_the_log_is_kept_as_asked() {
        // Entries 10..=19 of 100 bytes each.
        let bytes_from = |index: u64| (20 - index) * 100;
        for (bytes, first) in [(0, 20), (99, 20), (100, 19), (550, 15), (1_000, 10), (u64::MAX, 10)] {
            assert_eq!(first_kept(10, 19, |index| bytes_from(index) <= bytes), first, "{bytes}");
        }
    }
}
