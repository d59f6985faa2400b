//! The sending end of a snapshot.

use std::io;
use std::pin::pin;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use millstream_proto::internal::v1 as pb;
use millstream_proto::internal::v1::install_snapshot_request::Part;
use millstream_proto::internal::v1::install_snapshot_response::Progress;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::link::{Lane, Link};
use super::peers::Target;
use super::receive_snapshot::CHUNK_BYTES_MAX;
use super::{NetworkOptions, PeerError, Peers, SnapshotBytes, SnapshotSource};
use crate::types::wire::{log_id_to_pb, stored_membership_to_pb, vote_from_pb, vote_to_pb};
use crate::types::{SnapshotMeta, Vote};
use crate::world::{OnAnswer, OnRequest, RpcKind, World};

/// Messages read ahead of the connection.
const AHEAD: usize = 2;

/// Sends a snapshot, from where an earlier attempt broke off, and waits until it is installed. Returns the peer's vote.
/// Dropping the future ends the transfer. There is no bound on its time but on silence.
pub(super) async fn send_snapshot(
    peers: &Peers,
    target: &Target,
    vote: Vote,
    meta: SnapshotMeta,
    source: Box<dyn SnapshotSource>,
) -> Result<Vote, PeerError> {
    // Not this node's end: without room for the spool it still leads, and tries again later.
    let bytes: Arc<dyn SnapshotBytes> = Arc::from(source.spool().await.map_err(|error| cannot_read(target, error))?);
    let header = header(peers.context.envelope(target.id), Some(&vote), &meta, &*bytes);

    let link = peers.link(target, Lane::Snapshot)?;
    let mut client = link.client();
    let (parts, requests) = mpsc::channel(AHEAD);
    // There is room for it.
    let _ = parts.try_send(pb::InstallSnapshotRequest { part: Some(Part::Header(header)) });
    let deadline = peers.options.snapshot_idle_timeout;
    let answers = match tokio::time::timeout(deadline, client.install_snapshot(ReceiverStream::new(requests))).await {
        Ok(answers) => answers.map_err(|status| peers.failed(target, Lane::Snapshot, &link, &status))?.into_inner(),
        Err(_) => {
            peers.discard(target, Lane::Snapshot, &link);
            return Err(peers.silent(target, deadline));
        }
    };
    let mut answers = Answers { peers, target, link: &link, answers };
    let from = match answers.next().await? {
        Progress::Received(received) if received <= bytes.len() => received,
        Progress::Received(received) => {
            return Err(PeerError::Other(format!("it has {received} bytes of a snapshot of {}", bytes.len())));
        }
        Progress::Vote(vote) => return Ok(vote_from_pb(vote)?),
        Progress::Installing(_) => return answers.vote().await,
    };
    if 0 < from {
        peers.world.probe.mark("snapshot_resumed");
        tracing::info!(peer = target.id, from, "a snapshot transfer goes on where it broke off");
    }

    let sending = send_parts(peers, target, bytes, from, parts);
    let installed = answers.vote();
    tokio::pin!(sending, installed);
    // The peer may refuse long before all is sent; and when all is sent, it goes on.
    tokio::select! {
        biased;
        vote = &mut installed => vote,
        sent = &mut sending => match sent {
            Ok(()) => {
                peers.world.probe.mark("snapshot_sent");
                installed.await
            }
            Err(error) => {
                peers.discard(target, Lane::Snapshot, &link);
                Err(error)
            }
        }
    }
}

pub(super) fn header(
    envelope: pb::Envelope,
    vote: Option<&Vote>,
    meta: &SnapshotMeta,
    bytes: &dyn SnapshotBytes,
) -> pb::SnapshotHeader {
    pb::SnapshotHeader {
        envelope: Some(envelope),
        vote: vote.map(vote_to_pb),
        last_log_id: meta.last_log_id.as_ref().map(log_id_to_pb),
        membership: Some(stored_membership_to_pb(&meta.last_membership)),
        snapshot_id: bytes.id(),
        length: bytes.len(),
    }
}

/// What the peer says of its progress.
struct Answers<'a> {
    peers: &'a Peers,
    target: &'a Target,
    link: &'a Arc<Link>,
    answers: Streaming<pb::InstallSnapshotResponse>,
}

impl Answers<'_> {
    async fn next(&mut self) -> Result<Progress, PeerError> {
        let Self { peers, target, link, answers } = self;
        let deadline = peers.options.snapshot_idle_timeout;
        let answer = match tokio::time::timeout(deadline, answers.message()).await {
            Ok(Ok(Some(answer))) => answer,
            Ok(Ok(None)) => return Err(PeerError::Other("no end to the answers about a snapshot".into())),
            Ok(Err(status)) => return Err(peers.failed(target, Lane::Snapshot, link, &status)),
            Err(_) => {
                peers.discard(target, Lane::Snapshot, link);
                return Err(peers.silent(target, deadline));
            }
        };
        match peers.world.rpc.answer(RpcKind::SnapshotPart, target.id) {
            OnAnswer::Pass => {}
            OnAnswer::Delay(delay) => tokio::time::sleep(delay).await,
            OnAnswer::Drop => {
                tokio::time::sleep(deadline).await;
                peers.discard(target, Lane::Snapshot, link);
                return Err(peers.silent(target, deadline));
            }
        }
        peers.check_answer(target, Lane::Snapshot, link, answer.envelope.as_ref())?;
        answer.progress.ok_or_else(|| PeerError::Other("an answer without content".into()))
    }

    /// Waits for the end.
    async fn vote(&mut self) -> Result<Vote, PeerError> {
        loop {
            if let Progress::Vote(vote) = self.next().await? {
                return Ok(vote_from_pb(vote)?);
            }
        }
    }
}

/// Feeds the connection, as fast as it takes. Whether it takes anything, the answers tell.
async fn send_parts(
    peers: &Peers,
    target: &Target,
    bytes: Arc<dyn SnapshotBytes>,
    from: u64,
    parts: mpsc::Sender<pb::InstallSnapshotRequest>,
) -> Result<(), PeerError> {
    let send = async |part| {
        if parts.send(pb::InstallSnapshotRequest { part: Some(part) }).await.is_err() {
            // gRPC has let go of the requests: the answers know why.
            std::future::pending::<()>().await;
        }
    };
    let mut chunks = pin!(chunks(&peers.world, &bytes, from, &peers.options));
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| cannot_read(target, error))?;
        match peers.world.rpc.request(RpcKind::SnapshotPart, target.id) {
            OnRequest::Pass => {}
            // Nothing overtakes it: that is the end of the transfer.
            OnRequest::Drop => std::future::pending::<()>().await,
            OnRequest::Delay(delay) => tokio::time::sleep(delay).await,
            OnRequest::Duplicate(delay) => {
                send(Part::Chunk(chunk.clone())).await;
                tokio::time::sleep(delay).await;
            }
        }
        send(Part::Chunk(chunk)).await;
    }
    send(Part::End(pb::SnapshotEnd { length: bytes.len() })).await;
    Ok(())
}

/// The chunks from `from` on. Nothing follows one that cannot be read.
pub(super) fn chunks(
    world: &World,
    bytes: &Arc<dyn SnapshotBytes>,
    from: u64,
    options: &NetworkOptions,
) -> impl Stream<Item = io::Result<pb::SnapshotChunk>> + Send + use<> {
    let (world, bytes, end) = (world.clone(), bytes.clone(), bytes.len());
    let chunk_bytes = options.snapshot_chunk_bytes.clamp(1, CHUNK_BYTES_MAX) as u64;
    futures::stream::unfold(from, move |offset| {
        let (world, bytes, length) = (world.clone(), bytes.clone(), chunk_bytes.min(end.saturating_sub(offset)));
        async move {
            if length == 0 {
                return None;
            }
            let read = move || {
                let mut data = vec![0; length as usize];
                bytes.read_at(offset, &mut data)?;
                Ok(pb::SnapshotChunk { offset, crc32c: crc32c::crc32c(&data), data: data.into() })
            };
            let chunk = world.blocking(read).await;
            let next = if chunk.is_ok() { offset + length } else { end };
            Some((chunk, next))
        }
    })
}

fn cannot_read(target: &Target, error: io::Error) -> PeerError {
    tracing::warn!(peer = target.id, %error, "cannot read the snapshot to send");
    PeerError::Other(format!("cannot read the snapshot to send: {error}"))
}
