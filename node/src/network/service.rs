//! The serving end: decodes, checks who asks, passes on, and signs the answer.
//!
//! Codes: `FAILED_PRECONDITION` is a refusal for reasons of identity (see [`identity`](super::identity)),
//! `INVALID_ARGUMENT` a message that makes no sense, `DATA_LOSS` a damaged snapshot, `ABORTED` a failure of this node.

use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use futures::stream::BoxStream;
use millstream_proto::internal::v1 as pb;
use millstream_proto::internal::v1::execute_waiting_response::Step;
use millstream_proto::internal::v1::raft_service_server::{RaftService, RaftServiceServer};
use openraft::raft::AppendEntriesRequest;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::convert::{
    append_from_pb, append_response_to_pb, present_vote, stream_result_to_pb, transfer_from_pb, vote_request_from_pb,
    vote_response_to_pb,
};
use super::link::FRAME_BYTES;
use super::receive_snapshot::Receiver;
use super::throttle::Throttle;
use super::{
    CommandCalls, Execute, NetworkOptions, PeerContext, RaftCalls, ReadIndexRefused, SnapshotOffer, StateDigest,
    commands, fetch_snapshot,
};
use crate::types::wire::{WireError, log_id_to_pb, snapshot_meta_from_pb};
use crate::types::{NodeId, TypeConfig};
use crate::world::World;

/// Messages about a snapshot that wait for the connection.
const SNAPSHOT_ANSWERS: usize = 2;

/// The service for the peer port.
pub fn raft_service(
    world: World,
    calls: Arc<dyn RaftCalls>,
    commands: Arc<dyn CommandCalls>,
    context: Arc<dyn PeerContext>,
    options: NetworkOptions,
) -> RaftServiceServer<RaftApi> {
    let message_bytes_max = options.message_bytes_max;
    let api =
        Arc::new(Api { world, calls, commands, context, warnings: Throttle::new(options.warning_interval), options });
    RaftServiceServer::new(RaftApi(api))
        .max_decoding_message_size(message_bytes_max)
        .max_encoding_message_size(message_bytes_max)
}

/// A server for the peer port, with the windows and pings that the callers' end has.
pub fn server_builder(options: &NetworkOptions) -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(options.keep_alive_interval))
        .http2_keepalive_timeout(Some(options.keep_alive_timeout))
        .initial_stream_window_size(options.stream_window_bytes)
        .initial_connection_window_size(options.connection_window_bytes)
        .max_frame_size(FRAME_BYTES)
}

/// Serves [`RaftCalls`] over gRPC.
pub struct RaftApi(Arc<Api>);

struct Api {
    world: World,
    calls: Arc<dyn RaftCalls>,
    commands: Arc<dyn CommandCalls>,
    context: Arc<dyn PeerContext>,
    options: NetworkOptions,
    warnings: Throttle,
}

impl Api {
    /// Whom a request is from, if it is to be heard. `from` is whom it must be from, if that is known.
    fn admit(&self, envelope: Option<&pb::Envelope>, from: Option<NodeId>) -> Result<NodeId, Status> {
        let sender = envelope.map_or(0, |envelope| envelope.from);
        match self.context.check(envelope, from) {
            Ok(()) => Ok(sender),
            Err(error) => {
                if self.warnings.admits(sender) {
                    tracing::warn!(peer = sender, %error, "refused a peer's message");
                }
                Err(error.to_status())
            }
        }
    }

    fn sign(&self, to: NodeId) -> Option<pb::Envelope> {
        Some(self.context.envelope(to))
    }

    /// A message of a replication stream.
    fn admit_append(
        &self,
        message: pb::StreamAppendRequest,
        from: Option<NodeId>,
    ) -> Result<(NodeId, AppendEntriesRequest<TypeConfig>), Status> {
        let from = self.admit(message.envelope.as_ref(), from)?;
        Ok((from, append_from_pb(message.append).map_err(senseless)?))
    }
}

#[tonic::async_trait]
impl RaftService for RaftApi {
    type StreamAppendStream = BoxStream<'static, Result<pb::StreamAppendResponse, Status>>;

    async fn stream_append(
        &self,
        request: Request<Streaming<pb::StreamAppendRequest>>,
    ) -> Result<Response<Self::StreamAppendStream>, Status> {
        let api = self.0.clone();
        let mut incoming = request.into_inner();
        // A caller opens a stream only when it has something to send.
        let first = match tokio::time::timeout(api.options.answer_timeout, incoming.message()).await {
            Ok(first) => first?.ok_or_else(|| Status::invalid_argument("a replication stream without requests"))?,
            Err(_) => return Err(Status::aborted("the replication stream does not begin")),
        };
        let (from, first) = api.admit_append(first, None)?;

        // Why the requests ended, if not by the caller's will. The requests before are still answered.
        let broken: Arc<Mutex<Option<Status>>> = Arc::default();
        let (reader, breakage) = (api.clone(), broken.clone());
        let rest =
            futures::stream::unfold((incoming, reader, breakage), move |(mut incoming, api, broken)| async move {
                let append = match incoming.message().await {
                    Ok(Some(message)) => api.admit_append(message, Some(from)),
                    Ok(None) => return None,
                    Err(status) => Err(status),
                };
                match append {
                    Ok((_, append)) => Some((append, (incoming, api, broken))),
                    Err(status) => {
                        *broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
                        None
                    }
                }
            });
        let requests = futures::stream::iter([first]).chain(rest);

        let answers = api.calls.stream_append(Box::pin(requests)).map(move |answer| match answer {
            Ok(result) => {
                Ok(pb::StreamAppendResponse { envelope: api.sign(from), result: Some(stream_result_to_pb(result)) })
            }
            Err(error) => Err(Status::aborted(error)),
        });
        let end = futures::stream::poll_fn(move |_| {
            let status = broken.lock().unwrap_or_else(PoisonError::into_inner).take();
            std::task::Poll::Ready(status.map(Err))
        });
        Ok(Response::new(Box::pin(answers.chain(end))))
    }

    async fn append(&self, request: Request<pb::AppendRequest>) -> Result<Response<pb::AppendResponse>, Status> {
        let request = request.into_inner();
        let from = self.0.admit(request.envelope.as_ref(), None)?;
        let append = append_from_pb(request.append).map_err(senseless)?;
        let result = self.0.calls.append(append).await.map_err(Status::aborted)?;
        Ok(Response::new(pb::AppendResponse {
            envelope: self.0.sign(from),
            result: Some(append_response_to_pb(result)),
        }))
    }

    async fn vote(&self, request: Request<pb::VoteRequest>) -> Result<Response<pb::VoteResponse>, Status> {
        let request = request.into_inner();
        let from = self.0.admit(request.envelope.as_ref(), None)?;
        let arguments = vote_request_from_pb(request.arguments).map_err(senseless)?;
        let result = self.0.calls.vote(arguments).await.map_err(Status::aborted)?;
        let result = Some(vote_response_to_pb(&result));
        Ok(Response::new(pb::VoteResponse { envelope: self.0.sign(from), result }))
    }

    async fn pre_vote(&self, request: Request<pb::PreVoteRequest>) -> Result<Response<pb::PreVoteResponse>, Status> {
        let request = request.into_inner();
        let from = self.0.admit(request.envelope.as_ref(), None)?;
        let arguments = vote_request_from_pb(request.arguments).map_err(senseless)?;
        let result = self.0.calls.pre_vote(arguments).await.map_err(Status::aborted)?;
        let result = Some(vote_response_to_pb(&result));
        Ok(Response::new(pb::PreVoteResponse { envelope: self.0.sign(from), result }))
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderResponse>, Status> {
        let request = request.into_inner();
        let from = self.0.admit(request.envelope.as_ref(), None)?;
        let transfer = transfer_from_pb(request).map_err(senseless)?;
        let accepted = self.0.calls.transfer_leader(transfer).await.map_err(Status::aborted)?;
        Ok(Response::new(pb::TransferLeaderResponse { envelope: self.0.sign(from), accepted }))
    }

    type InstallSnapshotStream = BoxStream<'static, Result<pb::InstallSnapshotResponse, Status>>;

    async fn install_snapshot(
        &self,
        request: Request<Streaming<pb::InstallSnapshotRequest>>,
    ) -> Result<Response<Self::InstallSnapshotStream>, Status> {
        let api = self.0.clone();
        let mut receiver = Receiver::new(request.into_inner(), api.options.snapshot_idle_timeout);
        let header = receiver.header().await?;
        let from = api.admit(header.envelope.as_ref(), None)?;
        let vote = present_vote(header.vote).map_err(senseless)?;
        let meta = snapshot_meta_from_pb(header.last_log_id, header.membership).map_err(senseless)?;
        let offer = SnapshotOffer { id: header.snapshot_id, length: header.length, meta, vote };

        let (answers, told) = mpsc::channel(SNAPSHOT_ANSWERS);
        let task = api.clone();
        tokio::spawn(async move {
            if let Err(status) = receiver.run(&task.world, &task.calls, offer, &answers).await {
                // Nobody may be listening any more.
                let _ = answers.send(Err(status)).await;
            }
        });
        let signed = ReceiverStream::new(told).map(move |progress| {
            progress.map(|progress| pb::InstallSnapshotResponse { envelope: api.sign(from), progress: Some(progress) })
        });
        Ok(Response::new(Box::pin(signed)))
    }

    type FetchSnapshotStream = BoxStream<'static, Result<pb::FetchSnapshotResponse, Status>>;

    async fn fetch_snapshot(
        &self,
        request: Request<pb::FetchSnapshotRequest>,
    ) -> Result<Response<Self::FetchSnapshotStream>, Status> {
        let request = request.into_inner();
        let api = self.0.clone();
        let from = api.admit(request.envelope.as_ref(), None)?;
        let (parts, sent) = mpsc::channel(SNAPSHOT_ANSWERS);
        let task = api.clone();
        tokio::spawn(async move {
            let envelope = task.context.envelope(from);
            fetch_snapshot::serve(&task.world, &task.calls, envelope, request, &task.options, parts).await;
        });
        let signed = ReceiverStream::new(sent)
            .map(move |part| part.map(|part| pb::FetchSnapshotResponse { envelope: api.sign(from), part: Some(part) }));
        Ok(Response::new(Box::pin(signed)))
    }

    async fn read_index(
        &self,
        request: Request<pb::ReadIndexRequest>,
    ) -> Result<Response<pb::ReadIndexResponse>, Status> {
        let envelope = request.into_inner().envelope;
        let from = self.0.admit(envelope.as_ref(), None)?;
        let incarnation = envelope.map_or(0, |envelope| envelope.from_incarnation);
        let (read_log_id, leader_id) = match self.0.calls.read_index(from, incarnation).await {
            Ok(log_id) => (Some(log_id_to_pb(&log_id)), 0),
            Err(ReadIndexRefused::NotLeader { leader_id }) => (None, leader_id.unwrap_or(0)),
            Err(ReadIndexRefused::Unavailable(reason)) => return Err(Status::aborted(reason)),
        };
        Ok(Response::new(pb::ReadIndexResponse { envelope: self.0.sign(from), read_log_id, leader_id }))
    }

    async fn register(&self, request: Request<pb::RegisterRequest>) -> Result<Response<pb::RegisterResponse>, Status> {
        let request = request.into_inner();
        let from = self.0.admit(request.envelope.as_ref(), None)?;
        let incarnation = request.envelope.as_ref().map_or(0, |envelope| envelope.from_incarnation);
        let outcome = self.0.calls.register(from, incarnation, request.peer_address, request.client_address);
        let outcome = outcome.await.map_err(Status::aborted)?;
        Ok(Response::new(pb::RegisterResponse {
            envelope: self.0.sign(from),
            recorded: outcome.recorded,
            leader_id: outcome.leader_id,
            removed: outcome.removed,
        }))
    }

    async fn compare_digest(
        &self,
        request: Request<pb::CompareDigestRequest>,
    ) -> Result<Response<pb::CompareDigestResponse>, Status> {
        let request = request.into_inner();
        let from = self.0.admit(request.envelope.as_ref(), None)?;
        let agreed: Option<Vec<_>> = request.agreed.iter().map(StateDigest::from_pb).collect();
        let agreed = agreed.ok_or_else(|| Status::invalid_argument("a digest that makes no sense"))?;
        let digests = self.0.calls.compare_digest(agreed).await.into_iter().map(StateDigest::to_pb).collect();
        Ok(Response::new(pb::CompareDigestResponse { envelope: self.0.sign(from), digests }))
    }

    async fn execute(&self, request: Request<pb::ExecuteRequest>) -> Result<Response<pb::ExecuteResponse>, Status> {
        let request = request.into_inner();
        let from = self.0.admit(request.envelope.as_ref(), None)?;
        let call =
            Execute::from_pb(&request.proposal, 0).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let result = commands::executed_to_pb(self.0.commands.execute(call, &|| {}).await);
        Ok(Response::new(pb::ExecuteResponse { envelope: self.0.sign(from), result: Some(result) }))
    }

    type ExecuteWaitingStream = BoxStream<'static, Result<pb::ExecuteWaitingResponse, Status>>;

    async fn execute_waiting(
        &self,
        request: Request<pb::ExecuteWaitingRequest>,
    ) -> Result<Response<Self::ExecuteWaitingStream>, Status> {
        let request = request.into_inner();
        let from = self.0.admit(request.envelope.as_ref(), None)?;
        let call = Execute::from_pb(&request.proposal, request.wait_ms);
        let call = call.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let (api, signer) = (self.0.clone(), self.0.clone());
        let (waiting, waits) = mpsc::channel(1);
        // A caller that goes away drops this, and with it the place in the queue.
        let executing = async move {
            // Once is enough.
            let say = || drop(waiting.try_send(Step::Waiting(pb::Waiting {})));
            Step::Result(commands::executed_to_pb(api.commands.execute(call, &say).await))
        };
        let answers = futures::stream::select(ReceiverStream::new(waits), futures::stream::once(executing));
        let signed =
            answers.map(move |step| Ok(pb::ExecuteWaitingResponse { envelope: signer.sign(from), step: Some(step) }));
        Ok(Response::new(Box::pin(signed)))
    }

    async fn stored(&self, request: Request<pb::StoredRequest>) -> Result<Response<pb::StoredResponse>, Status> {
        let request = request.into_inner();
        let from = self.0.admit(request.envelope.as_ref(), None)?;
        let (leads, stored) = match self.0.commands.stored(request.log_index) {
            Some(stored) => (true, stored),
            None => (false, Default::default()),
        };
        let (here, elsewhere) = (stored.here, stored.elsewhere);
        Ok(Response::new(pb::StoredResponse { envelope: self.0.sign(from), leads, here, elsewhere }))
    }
}

fn senseless(error: WireError) -> Status {
    Status::invalid_argument(error.to_string())
}
