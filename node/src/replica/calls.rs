//! What other nodes ask of this one, passed on to openraft.

use futures::StreamExt;
use futures::stream::BoxStream;
use millstream_streams::{Command, RegisterNode};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, StreamAppendResult, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use openraft::storage::Snapshot;

use super::{Leadership, Replica, Unavailable, read, snapshot};
use crate::network::{RaftCalls, ReadIndexRefused, RegisterOutcome, SnapshotSink};
use crate::types::{LogId, NodeId, SnapshotMeta, TypeConfig, Vote};

pub(crate) struct Calls(pub(crate) Replica);

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[async_trait::async_trait]
impl RaftCalls for Calls {
    async fn append(
        &self,
        request: AppendEntriesRequest<TypeConfig>,
    ) -> Result<AppendEntriesResponse<TypeConfig>, String> {
        self.0.inner.raft.append_entries(request).await.map_err(text)
    }

    fn stream_append(
        &self,
        requests: BoxStream<'static, AppendEntriesRequest<TypeConfig>>,
    ) -> BoxStream<'static, Result<StreamAppendResult<TypeConfig>, String>> {
        Box::pin(self.0.inner.raft.stream_append(requests).map(|answer| answer.map_err(text)))
    }

    async fn vote(&self, request: VoteRequest<TypeConfig>) -> Result<VoteResponse<TypeConfig>, String> {
        self.0.inner.raft.vote(request).await.map_err(text)
    }

    async fn pre_vote(&self, request: VoteRequest<TypeConfig>) -> Result<VoteResponse<TypeConfig>, String> {
        self.0.inner.raft.pre_vote(request).await.map_err(text)
    }

    async fn transfer_leader(&self, request: TransferLeaderRequest<TypeConfig>) -> Result<bool, String> {
        let handled = self.0.inner.raft.handle_transfer_leader(request).await.map_err(text)?;
        Ok(handled.is_ok())
    }

    fn receive_snapshot(&self) -> Result<Box<dyn SnapshotSink>, String> {
        snapshot::receive(&self.0.inner.shared).map_err(text)
    }

    async fn install_snapshot(
        &self,
        vote: Vote,
        meta: SnapshotMeta,
        sink: Box<dyn SnapshotSink>,
    ) -> Result<Vote, String> {
        let snapshot = Snapshot { meta, snapshot: snapshot::received(sink)? };
        let response = self.0.inner.raft.install_full_snapshot(vote, snapshot).await.map_err(text)?;
        Ok(response.vote)
    }

    async fn read_index(&self) -> Result<LogId, ReadIndexRefused> {
        match read::as_leader(&self.0.inner.shared, &self.0.inner.raft).await {
            Ok(log_id) => Ok(log_id),
            Err(Unavailable::NotLeader(leader)) => Err(ReadIndexRefused::NotLeader { leader_id: Some(leader.node_id) }),
            Err(Unavailable::NoLeader) => Err(ReadIndexRefused::NotLeader { leader_id: None }),
            Err(other) => Err(ReadIndexRefused::Unavailable(format!("{other:?}"))),
        }
    }

    async fn register(
        &self,
        node_id: NodeId,
        incarnation: u64,
        peer_address: String,
        client_address: String,
    ) -> Result<RegisterOutcome, String> {
        let leader_id = match self.0.leadership() {
            Leadership::Leader { .. } => self.0.inner.shared.node_id(),
            Leadership::Follower { leader } => {
                return Ok(RegisterOutcome { recorded: false, leader_id: leader.node_id });
            }
            Leadership::NoLeader => return Ok(RegisterOutcome { recorded: false, leader_id: 0 }),
        };
        let command = RegisterNode { node_id, incarnation, peer_address, client_address };
        let committed = self.0.propose(None, Command::RegisterNode(command)).await;
        match committed.map_err(|unavailable| format!("{unavailable:?}"))?.applied.outcome {
            Ok(_) => Ok(RegisterOutcome { recorded: true, leader_id }),
            Err(refusal) => Err(refusal.to_string()),
        }
    }
}
