//! What other nodes ask of this one, passed on to openraft.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use millstream_streams::{Command, NodeRecord, RegisterNode};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, StreamAppendResult, TransferLeaderRequest, VoteRequest, VoteResponse,
};

use super::{Leadership, Replica, Unavailable, incoming, read};
use crate::network::{
    RaftCalls, ReadIndexRefused, Reception, RegisterOutcome, SnapshotBytes, SnapshotOffer, SnapshotSink, StateDigest,
};
use crate::types::{LogId, NodeId, SnapshotMeta, TypeConfig, Vote};

/// Why a node takes no entries.
const FULL: &str = "the disk of this node is full";

pub(crate) struct Calls(pub(crate) Replica);

/// Whether a node is on record just as it says. Then there is nothing to write.
fn is_recorded(node: &NodeRecord, command: &RegisterNode) -> bool {
    let RegisterNode { node_id: _, incarnation, peer_address, client_address } = command;
    node.incarnation == *incarnation && node.peer_address == *peer_address && node.client_address == *client_address
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[async_trait::async_trait]
impl RaftCalls for Calls {
    async fn append(
        &self,
        request: AppendEntriesRequest<TypeConfig>,
    ) -> Result<AppendEntriesResponse<TypeConfig>, String> {
        self.0.inner.shared.removal.hear();
        if !request.entries.is_empty() && self.0.inner.shared.room.is_full() {
            self.0.inner.shared.world.probe.mark("entries_refused_full");
            return Err(FULL.to_owned());
        }
        self.0.inner.raft.append_entries(request).await.map_err(text)
    }

    fn stream_append(
        &self,
        requests: BoxStream<'static, AppendEntriesRequest<TypeConfig>>,
    ) -> BoxStream<'static, Result<StreamAppendResult<TypeConfig>, String>> {
        // Entries are refused before anything is written; the leader comes back after a while.
        let (shared, refused) = (self.0.inner.shared.clone(), Arc::new(AtomicBool::new(false)));
        let refusing = refused.clone();
        let taken = requests.take_while(move |request| {
            shared.removal.hear();
            let refuse = !request.entries.is_empty() && shared.room.is_full();
            if refuse {
                shared.world.probe.mark("entries_refused_full");
            }
            refusing.store(refuse, Ordering::Relaxed);
            std::future::ready(!refuse)
        });
        let refusal = futures::stream::poll_fn(move |_| {
            Poll::Ready(refused.swap(false, Ordering::Relaxed).then(|| Err(FULL.to_owned())))
        });
        let answers = self.0.inner.raft.stream_append(taken.boxed()).map(|answer| answer.map_err(text));
        Box::pin(answers.chain(refusal))
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

    fn receive_snapshot(&self, offer: &SnapshotOffer) -> Result<Reception, String> {
        incoming::receive(&self.0.inner.shared, offer)
    }

    fn install_snapshot(
        &self,
        offer: SnapshotOffer,
        sink: Box<dyn SnapshotSink>,
    ) -> BoxFuture<'static, Result<Vote, String>> {
        incoming::install(&self.0, offer, sink)
    }

    async fn newest_snapshot(&self, wanted: u64) -> Result<(SnapshotMeta, Box<dyn SnapshotBytes>), String> {
        let shared = &self.0.inner.shared;
        if let Some(copy) = shared.outgoing.named(wanted).filter(|_| !shared.is_suspect()) {
            return Ok((copy.meta.clone(), copy.bytes()));
        }
        // Whoever asks may need more than the last one covers.
        let copy = shared.outgoing.copy_applied(shared).await.map_err(text)?;
        Ok((copy.meta.clone(), copy.bytes()))
    }

    fn snapshot_progress(&self) -> u64 {
        self.0.inner.shared.outgoing.progress()
    }

    async fn read_index(&self, node_id: NodeId, incarnation: u64) -> Result<LogId, ReadIndexRefused> {
        if self.0.inner.shared.has_removed(node_id, incarnation) {
            return Err(ReadIndexRefused::Unavailable(format!("node {node_id} was removed from the cluster")));
        }
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
        let unrecorded = RegisterOutcome { recorded: false, leader_id: 0, removed: false };
        let leader_id = match self.0.leadership() {
            Leadership::Leader { .. } => self.0.inner.shared.node_id(),
            Leadership::Follower { leader } => return Ok(RegisterOutcome { leader_id: leader.node_id, ..unrecorded }),
            Leadership::NoLeader => return Ok(unrecorded),
        };
        if self.0.inner.shared.has_removed(node_id, incarnation) {
            return Ok(RegisterOutcome { leader_id, removed: true, ..unrecorded });
        }
        let command = RegisterNode { node_id, incarnation, peer_address, client_address };
        if self.0.with_state(|state| state.node(node_id).is_some_and(|node| is_recorded(node, &command))) {
            return Ok(RegisterOutcome { recorded: true, leader_id, removed: false });
        }
        let committed = self.0.propose(None, Command::RegisterNode(command)).await;
        match committed.map_err(|unavailable| format!("{unavailable:?}"))?.applied.outcome {
            Ok(_) => Ok(RegisterOutcome { recorded: true, leader_id, removed: false }),
            Err(refusal) => Err(refusal.to_string()),
        }
    }

    async fn compare_digest(&self, agreed: Vec<StateDigest>) -> Vec<StateDigest> {
        let shared = &self.0.inner.shared;
        shared.check_digests(&agreed);
        shared.digests.all()
    }
}
