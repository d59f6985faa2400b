//! The sending end of a snapshot.

use std::future::pending;
use std::io;
use std::sync::Arc;

use millstream_proto::internal::v1 as pb;
use millstream_proto::internal::v1::install_snapshot_request::Part;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::link::Lane;
use super::peers::Target;
use super::receive_snapshot::CHUNK_BYTES_MAX;
use super::snapshot::blocking;
use super::{PeerError, Peers, SnapshotBytes, SnapshotSource};
use crate::types::wire::{log_id_to_pb, stored_membership_to_pb, vote_from_pb, vote_to_pb};
use crate::types::{SnapshotMeta, Vote};
use crate::world::World;

/// Messages read ahead of the connection.
const AHEAD: usize = 2;

/// Sends a snapshot and waits until it is installed. Returns the peer's vote. Dropping the future ends the transfer.
pub(super) async fn send_snapshot(
    peers: &Peers,
    target: &Target,
    vote: Vote,
    meta: SnapshotMeta,
    source: Box<dyn SnapshotSource>,
) -> Result<Vote, PeerError> {
    // Not this node's end: without room for the spool it still leads, and tries again later.
    let bytes: Arc<dyn SnapshotBytes> = Arc::from(source.spool().await.map_err(|error| cannot_read(target, error))?);
    let header = pb::SnapshotHeader {
        envelope: Some(peers.context.envelope(target.id)),
        vote: Some(vote_to_pb(&vote)),
        last_log_id: meta.last_log_id.as_ref().map(log_id_to_pb),
        membership: Some(stored_membership_to_pb(&meta.last_membership)),
    };

    let link = peers.link(target, Lane::Snapshot)?;
    let mut client = link.client();
    let (parts, requests) = mpsc::channel(AHEAD);
    let sending = send_parts(peers, target, header, bytes, parts);
    let installing = client.install_snapshot(ReceiverStream::new(requests));
    tokio::pin!(sending, installing);

    // The peer may refuse long before all is sent.
    let answer = tokio::select! {
        biased;
        answer = &mut installing => answer,
        sent = &mut sending => {
            if let Err(error) = sent {
                peers.discard(target, Lane::Snapshot, &link);
                return Err(error);
            }
            let deadline = peers.options.snapshot_install_timeout;
            match tokio::time::timeout(deadline, installing).await {
                Ok(answer) => answer,
                Err(_) => {
                    peers.discard(target, Lane::Snapshot, &link);
                    return Err(peers.silent(target, deadline));
                }
            }
        }
    };
    let answer = answer.map_err(|status| peers.failed(target, Lane::Snapshot, &link, &status))?.into_inner();
    peers.check_answer(target, Lane::Snapshot, &link, answer.envelope.as_ref())?;
    let vote = answer.vote.ok_or_else(|| PeerError::Other("an answer without a vote".into()))?;
    Ok(vote_from_pb(vote)?)
}

/// Feeds the connection, as fast as it takes.
async fn send_parts(
    peers: &Peers,
    target: &Target,
    header: pb::SnapshotHeader,
    bytes: Arc<dyn SnapshotBytes>,
    parts: mpsc::Sender<pb::InstallSnapshotRequest>,
) -> Result<(), PeerError> {
    let send = async |part| {
        let deadline = peers.options.snapshot_idle_timeout;
        match tokio::time::timeout(deadline, parts.send(pb::InstallSnapshotRequest { part: Some(part) })).await {
            Ok(Ok(())) => Ok(()),
            // gRPC has let go of the requests: the call knows why.
            Ok(Err(_)) => pending().await,
            Err(_) => Err(peers.silent(target, deadline)),
        }
    };

    let chunk_bytes = peers.options.snapshot_chunk_bytes.clamp(1, CHUNK_BYTES_MAX) as u64;
    let length = bytes.len();
    send(Part::Header(header)).await?;
    let mut offset = 0;
    while offset < length {
        let chunk = read_chunk(&peers.world, &bytes, offset, chunk_bytes.min(length - offset) as usize);
        let chunk = chunk.await.map_err(|error| cannot_read(target, error))?;
        offset += chunk.data.len() as u64;
        send(Part::Chunk(chunk)).await?;
    }
    send(Part::End(pb::SnapshotEnd { length })).await
}

async fn read_chunk(
    world: &World,
    bytes: &Arc<dyn SnapshotBytes>,
    offset: u64,
    length: usize,
) -> io::Result<pb::SnapshotChunk> {
    let bytes = bytes.clone();
    blocking(world, move || {
        let mut data = vec![0; length];
        bytes.read_at(offset, &mut data)?;
        Ok(pb::SnapshotChunk { offset, crc32c: crc32c::crc32c(&data), data: data.into() })
    })
    .await
}

fn cannot_read(target: &Target, error: io::Error) -> PeerError {
    tracing::warn!(peer = target.id, %error, "cannot read the snapshot to send");
    PeerError::Other(format!("cannot read the snapshot to send: {error}"))
}
