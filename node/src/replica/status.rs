//! What a replica says of itself.

use std::sync::Arc;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;

use super::{Comparison, Replica, ScrubStatus, space};
use crate::storage::LogCounts;
use crate::types::NodeId;

/// For response headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Empty until known.
    pub cluster_id: Arc<str>,
    /// This node.
    pub node_id: u64,
    /// Its term.
    pub term: u64,
    /// Last index applied to its state.
    pub applied_index: u64,
}

/// A node's part in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Proposes.
    Leader,
    /// Follows.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Has no vote.
    Learner,
}

/// A member as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its id.
    pub node_id: u64,
    /// Where nodes reach it.
    pub peer_address: String,
    /// Where clients reach it; empty if it has not registered yet.
    pub client_address: String,
    /// Whether it votes.
    pub voter: bool,
    /// Leader only: the last index known to be on it.
    pub matched_index: Option<u64>,
}

/// The state of the replica.
#[derive(Debug, Clone)]
pub struct Status {
    /// Empty until known.
    pub cluster_id: Arc<str>,
    /// This node.
    pub node_id: u64,
    /// Its part.
    pub role: Role,
    /// The leader it knows.
    pub leader_id: Option<u64>,
    /// Its term.
    pub term: u64,
    /// Last index in its log.
    pub last_log_index: u64,
    /// Last index known to be committed.
    pub committed_index: u64,
    /// Last index applied.
    pub applied_index: u64,
    /// Index of the newest synced checkpoint.
    pub checkpoint_index: u64,
    /// Last index on stable storage.
    pub durable_index: u64,
    /// First index still in the log.
    pub first_log_index: u64,
    /// What its log has done since the node started.
    pub log_counts: LogCounts,
    /// The voters whose disks are nearly full, as far as this node knows.
    pub nodes_without_room: Vec<u64>,
    /// The state's digest, taken at `applied_index`.
    pub state_digest: u128,
    /// The members.
    pub members: Vec<MemberStatus>,
    /// What came of comparing this replica's state with the others'. Only a leader compares.
    pub comparison: Comparison,
    /// How far the scrub of store and log is.
    pub scrub: ScrubStatus,
    /// It has found out that it was removed from the cluster.
    pub removed: bool,
}

impl Replica {
    /// For response headers.
    pub fn position(&self) -> Position {
        let shared = &self.inner.shared;
        Position {
            cluster_id: shared.identities().cluster_id.clone(),
            node_id: shared.node_id(),
            term: self.inner.raft.metrics().borrow_watched().current_term,
            applied_index: *shared.applied.borrow(),
        }
    }

    /// For the administrator.
    pub fn status(&self) -> Status {
        let shared = &self.inner.shared;
        let metrics = self.inner.raft.metrics().borrow_watched().clone();
        let (applied_index, state_digest) = {
            let machine = shared.machine();
            (machine.applied_index(), machine.state.digest())
        };
        let identities = shared.identities().clone();
        let voters: Vec<NodeId> = metrics.membership_config.voter_ids().collect();
        let members = metrics.membership_config.nodes().map(|(id, node)| MemberStatus {
            node_id: *id,
            peer_address: node.peer_address.clone(),
            client_address: identities.nodes.get(id).map(|node| node.client_address.clone()).unwrap_or_default(),
            voter: voters.contains(id),
            matched_index: metrics
                .replication
                .as_ref()
                .and_then(|progress| progress.get(id))
                .map(|matched| matched.as_ref().map_or(0, |log_id| log_id.index)),
        });
        Status {
            cluster_id: identities.cluster_id.clone(),
            node_id: shared.node_id(),
            role: match metrics.state {
                ServerState::Leader => Role::Leader,
                ServerState::Candidate => Role::Candidate,
                ServerState::Learner => Role::Learner,
                ServerState::Follower | ServerState::Shutdown => Role::Follower,
            },
            leader_id: metrics.current_leader,
            term: metrics.current_term,
            last_log_index: metrics.last_log_index.unwrap_or(0),
            committed_index: metrics.cluster_committed.map_or(0, |log_id| log_id.index),
            applied_index,
            checkpoint_index: shared.checkpoint().and_then(|meta| meta.last_log_id).map_or(0, |log_id| log_id.index),
            durable_index: shared.log.durable_index(),
            first_log_index: shared.log.first_index(),
            log_counts: shared.log.counts(),
            nodes_without_room: space::voters_without(shared, &self.inner.raft).into_iter().collect(),
            state_digest,
            members: members.collect(),
            comparison: shared.digests.comparison(),
            scrub: shared.scrub.status(),
            removed: shared.removal.is_known(),
        }
    }
}
