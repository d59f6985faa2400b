//! Writes what is queued, one batch and one sync at a time.
//!
//! The sync under way is the time in which the next batch gathers; there is no other delay.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::frame::{self, BATCH_HEADER, Kind};
use super::index::Place;
use super::janitor::Chores;
use super::queue::{Change, Chunk, Failure, Queue};
use super::segment::{SEGMENT_HEADER, Segment};
use crate::types::{LogId, Vote};
use crate::world::{FlushTask, World};

/// What a new segment repeats of a group, as it is on stable storage.
#[derive(Debug, Clone, Default)]
pub(super) struct Durable {
    pub(super) vote: Option<Vote>,
    pub(super) purged: Option<LogId>,
    pub(super) committed: Option<LogId>,
}

/// A segment and how far its entries reach.
#[derive(Debug)]
pub(super) struct Used {
    pub(super) segment: Arc<Segment>,
    /// The greatest index of each group's entries in it.
    pub(super) last: BTreeMap<u32, u64>,
}

impl Used {
    pub(super) fn new(segment: Segment) -> Self {
        Self { segment: Arc::new(segment), last: BTreeMap::new() }
    }
}

/// The end of the log in the files.
pub(super) struct Files {
    /// Full segments that still hold entries, the oldest first.
    pub(super) sealed: VecDeque<Used>,
    pub(super) active: Used,
    /// Where the next batch starts.
    pub(super) end: u64,
    /// Number of the next batch.
    pub(super) next_batch: u64,
    pub(super) groups: BTreeMap<u32, Durable>,
    pub(super) chores: Arc<Chores>,
}

impl Files {
    /// Writes a batch whose frames start at byte [`BATCH_HEADER`] of `bytes`. Everything before is on stable storage;
    /// this is after [`Self::sync`]. Returns the place of its first frame.
    fn write(&mut self, bytes: &mut [u8]) -> io::Result<Place> {
        if self.active.segment.size < self.end + bytes.len() as u64 {
            self.roll(bytes.len() as u64)?;
        }
        self.write_here(bytes)
    }

    fn write_here(&mut self, bytes: &mut [u8]) -> io::Result<Place> {
        let segment = &self.active.segment;
        frame::seal_batch(bytes, segment.sequence, segment.seed, self.next_batch)?;
        segment.file.write_all_at(bytes, self.end)?;
        let place = Place { segment: Arc::clone(segment), offset: self.end, frame: 0 };
        self.end = frame::align(self.end + bytes.len() as u64);
        self.next_batch += 1;
        Ok(place)
    }

    fn sync(&self) -> io::Result<()> {
        self.active.segment.file.sync()
    }

    /// Goes on in a new segment with room for `length` bytes after the state that it repeats. The old one needs no
    /// sync: each of its batches had one.
    fn roll(&mut self, length: u64) -> io::Result<()> {
        let mut state = self.state_batch();
        let size = SEGMENT_HEADER + frame::align(state.len() as u64) + length;
        let next = self.chores.segment(self.active.segment.sequence + 1, size)?;
        self.chores.prepare(next.sequence + 1);
        let sealed = std::mem::replace(&mut self.active, Used::new(next));
        self.sealed.push_back(sealed);
        self.end = SEGMENT_HEADER;
        self.write_here(&mut state)?;
        self.sync()
    }

    /// A batch that says of every group what is not said by entries.
    fn state_batch(&self) -> Vec<u8> {
        let mut bytes = vec![0; BATCH_HEADER];
        for (group, durable) in &self.groups {
            let Durable { vote, purged, committed } = durable;
            if let Some(vote) = vote {
                frame::put_vote(&mut bytes, *group, vote);
            }
            if purged.is_some() {
                frame::put_log_id(&mut bytes, *group, Kind::Purge, purged.as_ref());
            }
            if committed.is_some() {
                frame::put_log_id(&mut bytes, *group, Kind::Committed, committed.as_ref());
            }
        }
        bytes
    }

    /// Writes a batch that changes nothing. A batch that another one follows is known to have been synced, so that
    /// damage to it is not taken for a torn write.
    pub(super) fn write_mark(&mut self) -> io::Result<()> {
        let mut state = self.state_batch();
        self.write(&mut state)?;
        self.sync()
    }

    /// Takes note of a change that is on stable storage and tells its group.
    fn record(&mut self, change: Change, batch: &Place) {
        match change {
            Change::Append { group, epoch, first, next, frame } => {
                self.active.last.entry(group.id).and_modify(|last| *last = next.max(*last + 1) - 1).or_insert(next - 1);
                group.appended(epoch, first, next, &Place { frame, ..batch.clone() });
            }
            Change::Truncate { group, epoch, from, next } => group.truncated(epoch, from, next),
            Change::Purge { group, epoch, log_id, next } => {
                self.groups.entry(group.id).or_default().purged = Some(log_id);
                group.purged(epoch, log_id.index, next);
            }
            Change::Vote { group, vote } => self.groups.entry(group).or_default().vote = Some(vote),
            Change::Committed { group, log_id } => self.groups.entry(group).or_default().committed = log_id,
        }
    }

    /// Removes the oldest segments while all their entries are purged.
    pub(super) fn remove_purged(&mut self) {
        let mut paths = Vec::new();
        while let Some(oldest) = self.sealed.front() {
            let purged = |group| self.groups.get(group).and_then(|durable| durable.purged).map(|log_id| log_id.index);
            if !oldest.last.iter().all(|(group, last)| Some(*last) <= purged(group)) {
                break;
            }
            paths.extend(self.sealed.pop_front().map(|used| used.segment.path.clone()));
        }
        if !paths.is_empty() {
            self.chores.remove(paths);
        }
    }
}

/// The flusher.
pub(super) struct Flusher {
    pub(super) world: World,
    pub(super) queue: Arc<Queue>,
    pub(super) files: Files,
    /// Time a sync takes in a world without threads.
    pub(super) simulated_sync_latency: Option<Duration>,
    /// Set when the flusher has ended.
    pub(super) stopped: watch::Sender<bool>,
}

impl Flusher {
    fn write(&mut self, chunk: &mut Chunk) -> io::Result<Option<Place>> {
        if chunk.is_empty() { Ok(None) } else { self.files.write(&mut chunk.bytes).map(Some) }
    }

    /// Tells whoever waits for a batch, in order.
    fn complete(&mut self, chunk: Chunk, place: Option<Place>) {
        let Chunk { bytes, changes, done } = chunk;
        let mut purges = false;
        if let Some(place) = place {
            for change in changes {
                purges |= matches!(change, Change::Purge { .. });
                self.files.record(change, &place);
            }
        }
        for done in done {
            done.complete(Ok(()));
        }
        self.queue.recycle(bytes);
        if purges {
            self.files.remove_purged();
        }
    }

    /// Ends the node: after a failed write or sync nobody knows what is on stable storage. A second sync that succeeds
    /// would prove nothing, because the kernel may have dropped the pages of the first.
    fn fail(&self, chunk: Chunk, error: &io::Error) {
        let reason = format!("the log could not be written: {error}");
        let failure = Failure::new(error.kind(), reason.as_str());
        // Nobody may be told of a success between the failure and the end.
        self.world.abort.abort(&reason);
        for done in chunk.done {
            done.complete(Err(failure.error()));
        }
        self.queue.fail(failure);
    }

    /// Leaves a mark behind the last batch.
    fn finish(&mut self) {
        if let Err(error) = self.files.write_mark() {
            tracing::warn!(%error, "the log could not be closed in order; nothing is lost");
        }
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        // However the flusher ends, nobody waits for it in vain.
        self.queue.fail(Failure::new(io::ErrorKind::BrokenPipe, "the log is closed"));
        self.files.chores.close();
        self.stopped.send_replace(true);
    }
}

impl FlushTask for Flusher {
    fn run(mut self: Box<Self>) {
        while let Some(mut chunk) = self.queue.take_blocking() {
            let written = self.write(&mut chunk).and_then(|place| {
                if place.is_some() {
                    self.files.sync()?;
                }
                Ok(place)
            });
            match written {
                Ok(place) => self.complete(chunk, place),
                Err(error) => return self.fail(chunk, &error),
            }
        }
        self.finish();
    }

    fn run_async(mut self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            while let Some(mut chunk) = self.queue.take().await {
                let written = self.write(&mut chunk);
                // A sync takes time, in which more is queued.
                match self.simulated_sync_latency {
                    Some(latency) => tokio::time::sleep(latency).await,
                    None => tokio::task::yield_now().await,
                }
                let synced = written.and_then(|place| {
                    if place.is_some() {
                        self.files.sync()?;
                    }
                    Ok(place)
                });
                match synced {
                    Ok(place) => self.complete(chunk, place),
                    Err(error) => return self.fail(chunk, &error),
                }
            }
            self.finish();
        })
    }
}
