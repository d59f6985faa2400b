//! Whether there is room on the disks, and what is done when there is not.
//!
//! Each node looks at its disk once a second, and says in the envelope of whatever it sends whether it has room. There
//! are two marks. Below the *reserve* it has no room: the leader refuses commands that make the state larger once fewer
//! than a majority of the voters have some. What makes it smaller, and votes and membership, live off the reserve. Below
//! a quarter of the reserve the node is *full*: it takes no more entries, and says so before it writes any, so that the
//! leader backs off and the node never comes to the point where a write fails. A leader that is full hands over. All
//! this ends by itself, as soon as there is room again.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use tokio::sync::oneshot;

use super::shared::Shared;
use super::{Leadership, Replica, Unavailable};
use crate::types::NodeId;

/// How often to look.
const INTERVAL: Duration = Duration::from_secs(1);
/// The reserve divided by this is where a node is full.
const FULL_SHARE: u64 = 4;
/// A mark is left again when there is this much more room, as a share of the reserve: so that it is not crossed back and
/// forth.
const SLACK_SHARE: u64 = 8;

/// How much room a node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Enough,
    /// The reserve is being used.
    Reserve,
    /// Not even that is left.
    Full,
}

/// The room of this node, and what the others said of theirs.
pub(crate) struct Room {
    /// Bytes to keep free. 0: no guard.
    reserve_bytes: u64,
    level: AtomicU8,
    /// Others that have no room, by what they said last. A std lock, held for moments.
    without: Mutex<BTreeSet<NodeId>>,
}

impl Room {
    pub(crate) fn new(reserve_bytes: u64) -> Self {
        Self { reserve_bytes, level: AtomicU8::new(Level::Enough as u8), without: Mutex::default() }
    }

    fn level(&self) -> Level {
        match self.level.load(Ordering::Relaxed) {
            0 => Level::Enough,
            1 => Level::Reserve,
            _ => Level::Full,
        }
    }

    /// Whether this node has none.
    pub(crate) fn is_short(&self) -> bool {
        Level::Enough < self.level()
    }

    /// Whether this node can take no more entries.
    pub(crate) fn is_full(&self) -> bool {
        self.level() == Level::Full
    }

    /// Takes note of what another node says of itself.
    pub(crate) fn note(&self, node_id: NodeId, short: bool) {
        let mut without = self.without.lock().unwrap_or_else(PoisonError::into_inner);
        match short {
            true => without.insert(node_id),
            false => without.remove(&node_id),
        };
    }

    /// Takes note of how much is free here, and whether the log waits for room.
    fn judge(&self, free_bytes: u64, waits: bool) {
        let before = self.level();
        let slack = self.reserve_bytes / SLACK_SHARE;
        // To leave a level takes more than not to enter it.
        let below =
            |mark: u64, level: Level| free_bytes < if level <= before { mark.saturating_add(slack) } else { mark };
        let now = if waits || below(self.reserve_bytes / FULL_SHARE, Level::Full) {
            Level::Full
        } else if below(self.reserve_bytes, Level::Reserve) {
            Level::Reserve
        } else {
            Level::Enough
        };
        let now = if self.reserve_bytes == 0 && !waits { Level::Enough } else { now };
        self.level.store(now as u8, Ordering::Relaxed);
        match now {
            _ if now == before => {}
            Level::Enough => tracing::info!(free_bytes, "there is room on the disk again"),
            Level::Reserve => tracing::warn!(free_bytes, "the disk is nearly full: what is left is kept for deletions"),
            Level::Full => tracing::error!(free_bytes, "the disk is full: this node takes no more entries"),
        }
    }
}

/// The voters without room, as far as this node knows.
pub(crate) fn voters_without(shared: &Shared, raft: &super::Raft) -> BTreeSet<NodeId> {
    let mut without = shared.room.without.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if shared.room.is_short() {
        without.insert(shared.node_id());
    }
    if !without.is_empty() {
        let voters: BTreeSet<NodeId> = raft.metrics().borrow_watched().membership_config.voter_ids().collect();
        without.retain(|id| voters.contains(id) || millstream_streams::mutant!(LearnersCountForRoom));
    }
    without
}

/// Refuses what makes the state larger, if this node leads and the voters have no room for it.
pub(crate) fn check_growth(replica: &Replica) -> Result<(), Unavailable> {
    let (shared, raft) = (&replica.inner.shared, &replica.inner.raft);
    let without = voters_without(shared, raft);
    if without.is_empty() {
        return Ok(());
    }
    let voters = raft.metrics().borrow_watched().membership_config.voter_ids().count();
    let majority = voters / 2 + 1;
    let enough = majority <= voters.saturating_sub(without.len()) && !shared.room.is_full();
    let leads = matches!(replica.leadership(), Leadership::Leader { .. });
    if enough || !leads { Ok(()) } else { Err(Unavailable::DiskFull { nodes: without.into_iter().collect() }) }
}

/// Looks at the disks once, before the replica starts. Blocks.
pub(crate) fn look(shared: &Shared) {
    shared.room.judge(free_bytes(shared), shared.log.waits_for_room());
}

/// The least of what is free where the node writes. What cannot be asked is not judged by.
fn free_bytes(shared: &Shared) -> u64 {
    let paths = [shared.config.data_dir.clone(), shared.data_dir.wal_path(), shared.data_dir.state_path()];
    let free = |path: &PathBuf| shared.world.fs.free_bytes(path).ok();
    paths.iter().filter_map(free).min().unwrap_or(u64::MAX)
}

/// Looks at the disks while the replica runs.
pub(crate) fn watch_room(replica: &Replica) {
    let replica = replica.clone();
    let mut ready = replica.inner.ready.subscribe();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                biased;
                stopping = ready.wait_for(|ready| !ready) => { drop(stopping); return }
                () = tokio::time::sleep(INTERVAL) => {}
            }
            let shared = Arc::clone(&replica.inner.shared);
            let (tell, looked) = oneshot::channel();
            let spawn = Arc::clone(&shared.world.spawn);
            let job = move || {
                look(&shared);
                // Nobody waits any more if the node has stopped.
                let _ = tell.send(());
            };
            spawn.blocking(Box::new(job)).await;
            let _ = looked.await;
            if replica.inner.shared.room.is_full() {
                hand_over(&replica).await;
            }
        }
    });
}

/// Hands leadership to a voter that has room, if this node leads and there is one that keeps up.
async fn hand_over(replica: &Replica) {
    let (shared, raft) = (&replica.inner.shared, &replica.inner.raft);
    let without = voters_without(shared, raft);
    let target = {
        let receiver = raft.metrics();
        let metrics = receiver.borrow_watched();
        let voters: BTreeSet<NodeId> = metrics.membership_config.voter_ids().collect();
        let others = metrics.replication.iter().flatten();
        others
            .filter(|(id, _)| **id != shared.node_id() && voters.contains(id) && !without.contains(id))
            .max_by_key(|(_, matched)| matched.as_ref().map_or(0, |id| id.index))
            .map(|(id, _)| *id)
    };
    if let Some(target) = target {
        tracing::warn!(target, "the disk is full: leadership goes to a node that has room");
        // Tried again with the next look.
        let _ = raft.trigger().transfer_leader(target).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_left_later_than_entered() {
        let room = Room::new(800);
        for (free, level) in [
            (800, Level::Enough),
            (799, Level::Reserve),
            (899, Level::Reserve),
            (900, Level::Enough),
            (200, Level::Reserve),
            (199, Level::Full),
            (299, Level::Full),
            (300, Level::Reserve),
            (0, Level::Full),
            (5000, Level::Enough),
        ] {
            room.judge(free, false);
            assert_eq!(room.level(), level, "{free} bytes free");
        }
        room.judge(5000, true);
        assert!(room.is_full(), "the log knows better");
        let unguarded = Room::new(0);
        unguarded.judge(0, false);
        assert!(!unguarded.is_short());
    }
}
