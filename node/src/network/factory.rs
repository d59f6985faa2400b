//! openraft's clients.

use std::future::Future;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use millstream_proto::internal::v1 as pb;
use openraft::alias::SnapshotOf;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkFactory, RaftNetworkV2};

use super::convert::{
    append_response_from_pb, append_to_pb, as_stream_result, vote_request_to_pb, vote_response_from_pb,
};
use super::peers::Target;
use super::replication::replicate;
use super::send_snapshot::send_snapshot;
use super::{Peers, SnapshotSource};
use crate::types::wire::{log_id_to_pb, vote_to_pb};
use crate::types::{NodeId, PeerNode, TypeConfig, Vote};
use crate::world::RpcKind;

type Rpc<T> = Result<T, RPCError<TypeConfig>>;
type Answers<'s> = BoxStream<'s, Rpc<StreamAppendResult<TypeConfig>>>;

/// Hands out clients that share the channels of [`Peers`].
#[derive(Clone)]
pub struct NetworkFactory(pub Arc<Peers>);

impl NetworkFactory {
    fn client(&self, id: NodeId, node: &PeerNode, heartbeat: bool) -> PeerNetwork {
        let target = Target { id, address: node.peer_address.clone() };
        PeerNetwork { peers: self.0.clone(), target, heartbeat }
    }
}

impl RaftNetworkFactory<TypeConfig> for NetworkFactory {
    type Network = PeerNetwork;

    // Also the client for votes, transfers and snapshots: the call decides which channel it takes.
    async fn new_client(&mut self, target: NodeId, node: &PeerNode) -> PeerNetwork {
        self.client(target, node, false)
    }

    async fn new_heartbeat_client(&mut self, target: NodeId, node: &PeerNode) -> PeerNetwork {
        self.client(target, node, true)
    }
}

/// A client for one peer. Every failure is `Unreachable`, because openraft backs off on nothing else.
pub struct PeerNetwork {
    peers: Arc<Peers>,
    target: Target,
    /// Append by unary calls on the control channel. openraft's heartbeats are streams of one request: a gRPC stream for
    /// each would cost more, and on the replication channel they would wait behind entries.
    heartbeat: bool,
}

impl PeerNetwork {
    fn envelope(&self) -> Option<pb::Envelope> {
        Some(self.peers.context.envelope(self.target.id))
    }

    /// Where the peer is now: openraft keeps its clients when a node's address changes.
    fn target(&self) -> Target {
        let Target { id, address } = &self.target;
        Target { id: *id, address: self.peers.address_of(*id).unwrap_or_else(|| address.clone()) }
    }

    /// AppendEntries one after the other, each by a call of its own.
    fn append_one_by_one<'s, S>(&'s self, input: S, option: RPCOption) -> Answers<'s>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let answers = futures::stream::unfold(Some(input), move |input| {
            let option = option.clone();
            async move {
                let mut input = input?;
                let request = input.next().await?;
                let prev = request.prev_log_id;
                let last = request.entries.last().map(|entry| entry.log_id).or(prev);
                let answer = match self.append(request, option).await {
                    Ok(response) => as_stream_result(response, prev, last).map_err(unreachable),
                    Err(error) => Err(error),
                };
                // Whatever follows a request that was not taken in full would not fit.
                let go_on = matches!(&answer, Ok(Ok(matched)) if *matched == last);
                Some((answer, go_on.then_some(input)))
            }
        });
        Box::pin(answers)
    }

    async fn append(
        &self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<AppendEntriesResponse<TypeConfig>> {
        let request = pb::AppendRequest { envelope: self.envelope(), append: Some(append_to_pb(request)) };
        let answer = self
            .peers
            .call(&self.target(), RpcKind::Heartbeat, option.soft_ttl(), request, |mut client, request| async move {
                client.append(request).await
            })
            .await
            .map_err(unreachable)?;
        append_response_from_pb(answer.result).map_err(unreachable)
    }
}

impl RaftNetworkV2<TypeConfig> for PeerNetwork {
    type SnapshotData = Box<dyn SnapshotSource>;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<AppendEntriesResponse<TypeConfig>> {
        self.append(request, option).await
    }

    fn stream_append<'s, S>(&'s mut self, input: S, option: RPCOption) -> BoxFuture<'s, Rpc<Answers<'s>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let answers = match self.heartbeat {
            true => self.append_one_by_one(input, option),
            // The option's time is a heartbeat's, three quarters of the interval; an answer here includes the peer's
            // fsync and gets the configured `answer_timeout`.
            false => replicate(self.peers.clone(), self.target(), input),
        };
        Box::pin(async move { Ok(answers) })
    }

    async fn vote(&mut self, request: VoteRequest<TypeConfig>, option: RPCOption) -> Rpc<VoteResponse<TypeConfig>> {
        let request = pb::VoteRequest { envelope: self.envelope(), arguments: Some(vote_request_to_pb(&request)) };
        let answer = self
            .peers
            .call(&self.target(), RpcKind::Vote, option.soft_ttl(), request, |mut client, request| async move {
                client.vote(request).await
            })
            .await
            .map_err(unreachable)?;
        vote_response_from_pb(answer.result).map_err(unreachable)
    }

    async fn pre_vote(&mut self, request: VoteRequest<TypeConfig>, option: RPCOption) -> Rpc<VoteResponse<TypeConfig>> {
        let request = pb::PreVoteRequest { envelope: self.envelope(), arguments: Some(vote_request_to_pb(&request)) };
        let answer = self
            .peers
            .call(&self.target(), RpcKind::PreVote, option.soft_ttl(), request, |mut client, request| async move {
                client.pre_vote(request).await
            })
            .await
            .map_err(unreachable)?;
        vote_response_from_pb(answer.result).map_err(unreachable)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, Self::SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        // The option's time is for one chunk of the old protocol; progress is watched by `snapshot_idle_timeout`.
        let target = self.target();
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = send_snapshot(&self.peers, &target, vote, snapshot.meta, snapshot.snapshot) => match sent {
                Ok(vote) => Ok(SnapshotResponse::new(vote)),
                Err(error) => Err(StreamingError::Unreachable(Unreachable::from_string(error))),
            },
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<TransferLeaderResponse<TypeConfig>> {
        let request = pb::TransferLeaderRequest {
            envelope: self.envelope(),
            from_leader: Some(vote_to_pb(request.from_leader())),
            last_log_id: request.last_log_id().map(log_id_to_pb),
            target_id: *request.to_node_id(),
        };
        let answer = self
            .peers
            .call(&self.target(), RpcKind::Transfer, option.soft_ttl(), request, |mut client, request| async move {
                client.transfer_leader(request).await
            })
            .await
            .map_err(unreachable)?;
        match answer.accepted {
            true => Ok(Ok(())),
            // openraft only logs the answer, and the peer does not say why.
            false => Err(unreachable(format!("node {} declines to take over", self.target.id))),
        }
    }
}

/// Failed for openraft, to be tried again after its backoff.
pub(super) fn unreachable(error: impl ToString) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::from_string(error))
}
