//! Pulling a snapshot: a node whose state is lost asks a peer for its newest one, before it takes part again.

use std::pin::pin;
use std::sync::Arc;

use futures::StreamExt;
use millstream_proto::internal::v1 as pb;
use millstream_proto::internal::v1::fetch_snapshot_response::Part;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Status;

use super::link::Lane;
use super::peers::Target;
use super::receive_snapshot::{cannot_store, check_end, take};
use super::send_snapshot::{chunks, header};
use super::{NetworkOptions, PeerError, Peers, RaftCalls, SnapshotBytes, SnapshotSink};
use crate::types::wire::snapshot_meta_from_pb;
use crate::types::{NodeId, SnapshotMeta};
use crate::world::World;

/// Has a snapshot made and sends its parts, from where the caller has it, as long as somebody takes them. What has been
/// begun is made also if nobody does: for the next attempt.
pub(super) async fn serve(
    world: &World,
    calls: &Arc<dyn RaftCalls>,
    envelope: pb::Envelope,
    request: pb::FetchSnapshotRequest,
    options: &NetworkOptions,
    parts: mpsc::Sender<Result<Part, Status>>,
) {
    let idle_timeout = options.snapshot_idle_timeout;
    let send = async |part| matches!(tokio::time::timeout(idle_timeout, parts.send(part)).await, Ok(Ok(())));
    let (maker, wanted) = (calls.clone(), request.snapshot_id);
    let mut making = tokio::spawn(async move { maker.newest_snapshot(wanted).await });
    let made = loop {
        tokio::select! {
            biased;
            made = &mut making => break made,
            () = tokio::time::sleep(idle_timeout / 4) => {
                if !send(Ok(Part::Preparing(calls.snapshot_progress()))).await {
                    return;
                }
            }
        }
    };
    let (meta, bytes) = match made {
        Ok(Ok(snapshot)) => snapshot,
        Ok(Err(problem)) => {
            send(Err(Status::aborted(problem))).await;
            return;
        }
        Err(_) => {
            send(Err(Status::aborted("the snapshot could not be made"))).await;
            return;
        }
    };
    let bytes: Arc<dyn SnapshotBytes> = Arc::from(bytes);
    if !send(Ok(Part::Header(header(envelope, None, &meta, &*bytes)))).await {
        return;
    }
    let length = bytes.len();
    let same = request.snapshot_id == bytes.id() && request.received <= length;
    let from = if same { request.received } else { 0 };
    let mut chunks = pin!(chunks(world, &bytes, from, options));
    while let Some(chunk) = chunks.next().await {
        let failed = chunk.is_err();
        let part = chunk.map(Part::Chunk);
        let part = part.map_err(|error| Status::aborted(format!("cannot read the snapshot to send: {error}")));
        if !send(part).await || failed {
            return;
        }
    }
    send(Ok(Part::End(pb::SnapshotEnd { length }))).await;
}

impl Peers {
    /// Fetches a peer's newest snapshot. `sink` is asked for a place with the snapshot's id and length, and says by
    /// [`SnapshotSink::received`] how much of that one an earlier attempt has left. Returns what the snapshot covers.
    pub async fn fetch_snapshot(
        &self,
        to: NodeId,
        address: &str,
        had: Option<(u64, u64)>,
        sink: impl FnOnce(u64, u64) -> std::io::Result<Box<dyn SnapshotSink>>,
    ) -> Result<(SnapshotMeta, Box<dyn SnapshotSink>), PeerError> {
        let target = Target { id: to, address: address.to_owned() };
        let (snapshot_id, received) = had.unwrap_or_default();
        let request = pb::FetchSnapshotRequest { envelope: Some(self.context.envelope(to)), snapshot_id, received };
        let link = self.link(&target, Lane::Snapshot)?;
        let mut client = link.client();
        // The peer may have to write a checkpoint and copy it first, and says so meanwhile.
        let deadline = self.options.snapshot_idle_timeout;
        let mut parts = match tokio::time::timeout(deadline, client.fetch_snapshot(request)).await {
            Ok(parts) => parts.map_err(|status| self.failed(&target, Lane::Snapshot, &link, &status))?.into_inner(),
            Err(_) => return Err(self.silent(&target, deadline)),
        };
        let mut next = async || {
            let part = match tokio::time::timeout(deadline, parts.message()).await {
                Ok(Ok(Some(part))) => part,
                Ok(Ok(None)) => return Err(PeerError::Other("a snapshot without its end".into())),
                Ok(Err(status)) => return Err(self.failed(&target, Lane::Snapshot, &link, &status)),
                Err(_) => {
                    self.discard(&target, Lane::Snapshot, &link);
                    return Err(self.silent(&target, deadline));
                }
            };
            self.check_answer(&target, Lane::Snapshot, &link, part.envelope.as_ref())?;
            part.part.ok_or_else(|| PeerError::Other("a snapshot message without content".into()))
        };

        let stall_timeout = self.options.snapshot_stall_timeout;
        let (mut copied, mut since) = (None, Instant::now());
        let header = loop {
            match next().await? {
                Part::Preparing(now) if copied != Some(now) => (copied, since) = (Some(now), Instant::now()),
                Part::Preparing(_) if since.elapsed() < stall_timeout => {}
                Part::Preparing(copied) => {
                    return Err(PeerError::Other(format!(
                        "node {to} says that it makes a snapshot, and for {stall_timeout:?} has got no further than \
                         {copied} bytes"
                    )));
                }
                Part::Header(header) => break header,
                Part::Chunk(_) | Part::End(_) => {
                    return Err(PeerError::Other("a snapshot begins with its header".into()));
                }
            }
        };
        let meta = snapshot_meta_from_pb(header.last_log_id, header.membership)?;
        let refused = |status: Status| PeerError::Other(status.message().to_owned());
        let mut sink = sink(header.snapshot_id, header.length).map_err(cannot_store).map_err(refused)?;
        let mut received = sink.received();
        loop {
            match next().await? {
                Part::Header(_) | Part::Preparing(_) => {
                    return Err(PeerError::Other("a snapshot has one header".into()));
                }
                Part::Chunk(chunk) => {
                    sink = take(&self.world, sink, chunk, &mut received, header.length).await.map_err(refused)?;
                }
                Part::End(end) => {
                    check_end(&end, received, header.length).map_err(refused)?;
                    return Ok((meta, sink));
                }
            }
        }
    }
}
