//! Linearizable reads by ReadIndex.
//!
//! A read may be answered from a state that covers every command acknowledged before it arrived. The leader finds out how
//! far that is by one round of heartbeats; a follower asks the leader. Reads that arrive during a round share the next.

use std::sync::Arc;
use std::time::Duration;

use openraft::ReadPolicy;
use openraft::errors::{LinearizableReadError, RaftError};
use tokio::sync::{mpsc, oneshot};

use super::shared::Shared;
use super::{Leadership, Raft, Unavailable, leadership_of};
use crate::network::{PeerError, Peers};
use crate::types::LogId;

/// Reads that may wait for an index at once; more are answered "overloaded".
const WAITING_MAX: usize = 16_384;

/// An answer to one waiting read: the index its state must have applied.
type Answer = oneshot::Sender<Result<u64, Unavailable>>;

/// Hands out read indexes.
pub(crate) struct ReadIndex(mpsc::Sender<Answer>);

impl ReadIndex {
    /// Starts the task that asks for indexes. It ends when the last handle is gone.
    pub(crate) fn start(shared: Arc<Shared>, raft: Raft, peers: Arc<Peers>) -> Self {
        let (ask, mut asked) = mpsc::channel::<Answer>(WAITING_MAX);
        tokio::spawn(async move {
            let mut waiting = Vec::new();
            while asked.recv_many(&mut waiting, WAITING_MAX).await > 0 {
                let index = current(&shared, &raft, &peers).await;
                for answer in waiting.drain(..) {
                    // A read that has given up does not mind.
                    let _ = answer.send(index.clone());
                }
            }
        });
        Self(ask)
    }

    /// An index that covers every command acknowledged before this call.
    pub(crate) async fn get(&self) -> Result<u64, Unavailable> {
        let (answer, index) = oneshot::channel();
        self.0.try_send(answer).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Unavailable::Overloaded { limit: WAITING_MAX as u64 },
            mpsc::error::TrySendError::Closed(_) => Unavailable::NotReady,
        })?;
        index.await.unwrap_or(Err(Unavailable::NotReady))
    }
}

async fn current(shared: &Shared, raft: &Raft, peers: &Peers) -> Result<u64, Unavailable> {
    match leadership_of(shared, raft) {
        Leadership::Leader { .. } => as_leader(shared, raft).await.map(|id| id.index),
        Leadership::NoLeader => Err(Unavailable::NoLeader),
        Leadership::Follower { .. } if millstream_streams::mutant!(FollowerReadsAlone) => Ok(*shared.applied.borrow()),
        Leadership::Follower { leader } => {
            let address = super::peer_address(raft, leader.node_id);
            let Some(address) = address else { return Err(Unavailable::NoLeader) };
            match peers.read_index(leader.node_id, &address).await {
                Ok(log_id) => Ok(log_id.index),
                Err(PeerError::Identity(sentence)) => {
                    shared.fail(sentence);
                    Err(Unavailable::NotReady)
                }
                Err(_) => Err(Unavailable::NoLeader),
            }
        }
    }
}

/// The index, if this node leads.
pub(crate) async fn as_leader(shared: &Shared, raft: &Raft) -> Result<LogId, Unavailable> {
    let time = Duration::from_millis(2 * shared.config.raft.election_ms_max);
    let lease = millstream_streams::mutant!(LeaseReads);
    let policy = if lease { ReadPolicy::LeaseRead } else { ReadPolicy::ReadIndex };
    let asked = tokio::time::timeout(time, raft.get_read_log_id(policy)).await;
    match asked {
        Ok(Ok((read, _applied))) => Ok(*read.log_id()),
        Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)))) => {
            Err(super::not_leader(shared, &forward))
        }
        Ok(Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)))) | Err(_) => Err(Unavailable::NoLeader),
        Ok(Err(RaftError::Fatal(_))) => Err(Unavailable::Stopped),
    }
}

/// Waits until this node has applied `index`.
pub(crate) async fn applied_at_least(shared: &Shared, index: u64, patience: Duration) -> Result<(), Unavailable> {
    if millstream_streams::mutant!(ReadsBeforeApplied) {
        return Ok(());
    }
    let mut applied = shared.applied.subscribe();
    let reached = applied.wait_for(|applied| index <= *applied);
    match tokio::time::timeout(patience, reached).await {
        Ok(Ok(_)) => Ok(()),
        // Behind for so long: somebody else may serve the read.
        Ok(Err(_)) | Err(_) => Err(Unavailable::NotReady),
    }
}
