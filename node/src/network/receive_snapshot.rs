//! The receiving end of a snapshot.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use millstream_proto::internal::v1 as pb;
use millstream_proto::internal::v1::install_snapshot_request::Part;
use millstream_proto::internal::v1::install_snapshot_response::Progress;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::{Status, Streaming};

use super::{RaftCalls, Reception, SnapshotOffer, SnapshotSink};
use crate::types::wire::vote_to_pb;
use crate::world::World;

/// Largest piece of a snapshot, in bytes: 1 MiB.
pub(super) const CHUNK_BYTES_MAX: usize = 1 << 20;
/// The sender hears of progress at least once in so many bytes.
const PROGRESS_BYTES: u64 = 4 << 20;

/// Where the sender hears how far it is.
pub(super) type Answers = mpsc::Sender<Result<Progress, Status>>;

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

    /// Receives and installs what was offered, and tells the sender how far it is. Once all has arrived, it is installed
    /// even if the sender goes away.
    pub(super) async fn run(
        mut self,
        world: &World,
        calls: &Arc<dyn RaftCalls>,
        offer: SnapshotOffer,
        answers: &Answers,
    ) -> Result<(), Status> {
        let mut installing = match calls.receive_snapshot(&offer).map_err(Status::aborted)? {
            Reception::Wanted(sink) => {
                let sink = self.body(world, sink, offer.length, answers).await?;
                calls.install_snapshot(offer, sink)
            }
            Reception::InHand(installing) => installing,
        };
        loop {
            tokio::select! {
                biased;
                installed = &mut installing => {
                    let vote = installed.map_err(Status::aborted)?;
                    return tell(answers, Progress::Vote(vote_to_pb(&vote))).await;
                }
                () = tokio::time::sleep(self.idle_timeout / 4) => tell(answers, Progress::Installing(true)).await?,
            }
        }
    }

    /// All that follows the header, into `sink`. Anything missing, repeated or changed on the way fails the transfer.
    async fn body(
        &mut self,
        world: &World,
        mut sink: Box<dyn SnapshotSink>,
        length: u64,
        answers: &Answers,
    ) -> Result<Box<dyn SnapshotSink>, Status> {
        let mut received = sink.received();
        tell(answers, Progress::Received(received)).await?;
        let (mut told, mut told_at) = (received, Instant::now());
        loop {
            match self.part().await? {
                Part::Header(_) => return Err(Status::invalid_argument("a snapshot has one header")),
                Part::Chunk(chunk) => {
                    sink = take(world, sink, chunk, &mut received, length).await?;
                    if PROGRESS_BYTES <= received - told || self.idle_timeout / 4 <= told_at.elapsed() {
                        tell(answers, Progress::Received(received)).await?;
                        (told, told_at) = (received, Instant::now());
                    }
                }
                Part::End(end) => return check_end(&end, received, length).map(|()| sink),
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

async fn tell(answers: &Answers, progress: Progress) -> Result<(), Status> {
    answers.send(Ok(progress)).await.map_err(|_| Status::cancelled("the sender has gone away"))
}

fn check(chunk: &pb::SnapshotChunk, received: u64) -> Result<(), Status> {
    if chunk.offset != received {
        return Err(Status::data_loss(format!("a chunk at {} where {received} was expected", chunk.offset)));
    }
    if chunk.data.is_empty() || CHUNK_BYTES_MAX < chunk.data.len() {
        return Err(Status::invalid_argument(format!("a chunk of {} bytes", chunk.data.len())));
    }
    if crc32c::crc32c(&chunk.data) != chunk.crc32c {
        return Err(Status::data_loss(format!("the chunk at {received} has changed on its way")));
    }
    Ok(())
}

/// Takes the next chunk of a snapshot of `length` bytes, of which there are `received`. Anything missing, repeated or
/// changed on the way is refused. Lends the sink to a job that may block.
pub(super) async fn take(
    world: &World,
    mut sink: Box<dyn SnapshotSink>,
    chunk: pb::SnapshotChunk,
    received: &mut u64,
    length: u64,
) -> Result<Box<dyn SnapshotSink>, Status> {
    check(&chunk, *received)?;
    *received += chunk.data.len() as u64;
    if length < *received {
        return Err(Status::data_loss(format!("more than the {length} bytes of the snapshot")));
    }
    world
        .blocking(move || {
            sink.write(&chunk.data)?;
            Ok(sink)
        })
        .await
        .map_err(cannot_store)
}

/// Whether a snapshot of `length` bytes may end here.
pub(super) fn check_end(end: &pb::SnapshotEnd, received: u64, length: u64) -> Result<(), Status> {
    if end.length != received || length != received {
        return Err(Status::data_loss(format!("a snapshot of {length} bytes, of which {received} came")));
    }
    Ok(())
}

pub(super) fn cannot_store(error: io::Error) -> Status {
    Status::aborted(format!("cannot store the snapshot: {error}"))
}
