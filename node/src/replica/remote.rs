//! What this node asks of the leader when it is another.

use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;

use super::{Leadership, Replica, peer_address};
use crate::network::{Execute, Executed, NotExecuted, PeerError, Stored};
use crate::types::NodeId;

impl Replica {
    /// Asks the leader to do something; says by `waits` when it waits there. An error says nothing of what became of it.
    pub(crate) async fn execute_at(
        &self,
        leader: NodeId,
        call: &Execute,
        deadline: Duration,
        waits: &(dyn Fn() + Sync),
    ) -> Result<Result<Executed, NotExecuted>, PeerError> {
        let peers = &self.inner.peers;
        match peer_address(&self.inner.raft, leader) {
            Some(address) if call.wait.is_zero() => peers.execute(leader, &address, call, deadline).await,
            Some(address) => peers.execute_waiting(leader, &address, call, deadline, waits).await,
            None => Ok(Err(NotExecuted::NotLeader { leader_id: None })),
        }
    }

    /// Where a log entry is on stable storage, as the leader knows; `None`: nobody who leads could be asked.
    pub(crate) async fn stored(&self, log_index: u64) -> Option<Stored> {
        match self.leadership() {
            Leadership::Leader { .. } => self.stored_here(log_index),
            Leadership::Follower { leader } => {
                let address = peer_address(&self.inner.raft, leader.node_id)?;
                self.inner.peers.stored(leader.node_id, &address, log_index).await.ok().flatten()
            }
            Leadership::NoLeader => None,
        }
    }

    /// Where a log entry is on stable storage; `None`: this node does not lead.
    pub(crate) fn stored_here(&self, log_index: u64) -> Option<Stored> {
        let shared = &self.inner.shared;
        let receiver = self.inner.raft.metrics();
        let metrics = receiver.borrow_watched();
        let progress = metrics.replication.as_ref().filter(|_| metrics.state == ServerState::Leader)?;
        // A follower says that it has an entry once that is on its stable storage.
        let others = progress.iter().filter(|(id, _)| **id != shared.node_id());
        let has_it = |matched: Option<u64>| matched.is_some_and(|matched| log_index <= matched);
        let elsewhere = others.filter(|(_, matched)| has_it(matched.as_ref().map(|log_id| log_id.index))).count();
        let elsewhere = u32::try_from(elsewhere).unwrap_or(u32::MAX);
        Some(Stored { here: log_index <= shared.log.durable_index(), elsewhere })
    }
}
