//! The receiving end of a snapshot.

use std::io;
use std::time::Duration;

use millstream_proto::internal::v1 as pb;
use millstream_proto::internal::v1::install_snapshot_request::Part;
use tonic::{Status, Streaming};

use super::SnapshotSink;
use super::snapshot::blocking;
use crate::world::World;

/// Largest piece of a snapshot, in bytes: 1 MiB.
pub(super) const CHUNK_BYTES_MAX: usize = 1 << 20;

/// A snapshot on its way in.
pub(super) struct Receiver {
    parts: Streaming<pb::InstallSnapshotRequest>,
    idle_timeout: Duration,
}

impl Receiver {
    pub(super) fn new(parts: Streaming<pb::InstallSnapshotRequest>, idle_timeout: Duration) -> Self {
        Self { parts, idle_timeout }
    }

    /// The first message.
    pub(super) async fn header(&mut self) -> Result<pb::SnapshotHeader, Status> {
        match self.part().await? {
            Part::Header(header) => Ok(header),
            Part::Chunk(_) | Part::End(_) => Err(Status::invalid_argument("a snapshot begins with its header")),
        }
    }

    /// All that follows, into `sink`, until it is on stable storage. Anything missing, repeated or changed on the way
    /// fails the transfer.
    pub(super) async fn body(
        &mut self,
        world: &World,
        mut sink: Box<dyn SnapshotSink>,
    ) -> Result<Box<dyn SnapshotSink>, Status> {
        let mut received = 0;
        loop {
            match self.part().await? {
                Part::Header(_) => return Err(Status::invalid_argument("a snapshot has one header")),
                Part::Chunk(chunk) => {
                    check(&chunk, received)?;
                    received += chunk.data.len() as u64;
                    sink = with_sink(world, sink, move |sink| sink.write(&chunk.data)).await?;
                }
                Part::End(pb::SnapshotEnd { length }) if length == received => {
                    return with_sink(world, sink, |sink| sink.finish()).await;
                }
                Part::End(pb::SnapshotEnd { length }) => {
                    return Err(Status::data_loss(format!("a snapshot of {length} bytes, of which {received} came")));
                }
            }
        }
    }

    async fn part(&mut self) -> Result<Part, Status> {
        let message = match tokio::time::timeout(self.idle_timeout, self.parts.message()).await {
            Ok(message) => message?,
            Err(_) => return Err(Status::aborted("the snapshot transfer makes no progress")),
        };
        let message = message.ok_or_else(|| Status::data_loss("the snapshot ended before its end"))?;
        message.part.ok_or_else(|| Status::invalid_argument("a snapshot message without content"))
    }
}

fn check(chunk: &pb::SnapshotChunk, received: u64) -> Result<(), Status> {
    if chunk.offset != received {
        return Err(Status::data_loss(format!("a chunk at {} where {received} was expected", chunk.offset)));
    }
    if CHUNK_BYTES_MAX < chunk.data.len() {
        return Err(Status::invalid_argument(format!("a chunk of {} bytes", chunk.data.len())));
    }
    if crc32c::crc32c(&chunk.data) != chunk.crc32c {
        return Err(Status::data_loss(format!("the chunk at {received} has changed on its way")));
    }
    Ok(())
}

/// Lends the sink to a job that may block.
async fn with_sink(
    world: &World,
    mut sink: Box<dyn SnapshotSink>,
    job: impl FnOnce(&mut dyn SnapshotSink) -> io::Result<()> + Send + 'static,
) -> Result<Box<dyn SnapshotSink>, Status> {
    blocking(world, move || {
        job(&mut *sink)?;
        Ok(sink)
    })
    .await
    .map_err(|error| Status::aborted(format!("cannot store the snapshot: {error}")))
}
