//! What other nodes ask of this one. Implemented by the replica.

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, StreamAppendResult, TransferLeaderRequest, VoteRequest, VoteResponse,
};

use super::{Reception, SnapshotBytes, SnapshotOffer, SnapshotSink, StateDigest};
use crate::types::{LogId, NodeId, SnapshotMeta, TypeConfig, Vote};

/// The node behind [`raft_service`](super::raft_service). An `Err` is a failure of this node (its Raft has stopped, its
/// disk is full); the caller sees it as out of reach and comes back later.
///
/// A call is dropped when the caller goes away.
#[tonic::async_trait]
pub trait RaftCalls: Send + Sync + 'static {
    /// AppendEntries, alone: a heartbeat.
    async fn append(
        &self,
        request: AppendEntriesRequest<TypeConfig>,
    ) -> Result<AppendEntriesResponse<TypeConfig>, String>;

    /// AppendEntries, one after the other. Answers come in the order of the requests; an error ends them. `requests`
    /// ends when the caller has no more or is gone.
    fn stream_append(
        &self,
        requests: BoxStream<'static, AppendEntriesRequest<TypeConfig>>,
    ) -> BoxStream<'static, Result<StreamAppendResult<TypeConfig>, String>>;

    /// RequestVote.
    async fn vote(&self, request: VoteRequest<TypeConfig>) -> Result<VoteResponse<TypeConfig>, String>;

    /// Pre-Vote: changes nothing.
    async fn pre_vote(&self, request: VoteRequest<TypeConfig>) -> Result<VoteResponse<TypeConfig>, String>;

    /// The leader asks this node to take over. Whether it campaigns.
    async fn transfer_leader(&self, request: TransferLeaderRequest<TypeConfig>) -> Result<bool, String>;

    /// What to do with a snapshot that is offered: take it, perhaps from where an earlier attempt broke off, or wait for
    /// what is here already.
    fn receive_snapshot(&self, offer: &SnapshotOffer) -> Result<Reception, String>;

    /// Installs the snapshot in `sink`, which has all its bytes. Goes on also when the future is dropped; it resolves with
    /// this node's vote afterwards.
    fn install_snapshot(
        &self,
        offer: SnapshotOffer,
        sink: Box<dyn SnapshotSink>,
    ) -> BoxFuture<'static, Result<Vote, String>>;

    /// A snapshot of all that is applied here, for a node that has lost its state; or the one that `wanted` names, if it is
    /// still there: that one is half sent. 0 names none. Goes on also when the caller goes away.
    async fn newest_snapshot(&self, wanted: u64) -> Result<(SnapshotMeta, Box<dyn SnapshotBytes>), String>;

    /// Bytes that this node has copied for snapshots since its start. While it stands still, none comes nearer.
    fn snapshot_progress(&self) -> u64;

    /// A log entry that covers every command acknowledged before the call. Only a leader can tell, and tells none to a node
    /// that was removed: that one will never apply it.
    async fn read_index(&self, node_id: NodeId, incarnation: u64) -> Result<LogId, ReadIndexRefused>;

    /// Records the incarnation and the addresses of a member.
    async fn register(
        &self,
        node_id: NodeId,
        incarnation: u64,
        peer_address: String,
        client_address: String,
    ) -> Result<RegisterOutcome, String>;

    /// What this replica remembers of its state. `agreed` is what a majority of the voters agrees on, as the leader
    /// found; a replica that remembers something else stops.
    async fn compare_digest(&self, agreed: Vec<StateDigest>) -> Vec<StateDigest>;
}

/// Why there is no read index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadIndexRefused {
    /// This node does not lead.
    NotLeader {
        /// Who does, as far as it knows.
        leader_id: Option<NodeId>,
    },
    /// It cannot tell now: it has not heard from a majority, or is stopping.
    Unavailable(String),
}

/// What became of a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegisterOutcome {
    /// It is recorded in replicated state. False: the node asked does not lead.
    pub recorded: bool,
    /// The leader that the node asked knows; 0 if none.
    pub leader_id: NodeId,
    /// The sender was removed from the cluster, as its leader says.
    pub removed: bool,
}
