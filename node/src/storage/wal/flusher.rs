//! Writes what is queued, one batch and one sync at a time.
//!
//! The sync under way is the time in which the next batch gathers; there is no other delay.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;

use super::Counters;
use super::frame::{self, BATCH_HEADER, Kind};
use super::index::Place;
use super::janitor::{Chores, no_room};
use super::queue::{Change, Chunk, Failure, Queue};
use super::scrub::Registry;
use super::segment::{SEGMENT_HEADER, Segment};
use super::walk::Part;
use crate::types::{LogId, Vote};
use crate::world::{FlushTask, World};

/// Between two attempts to make a segment on a full disk.
const ROOM_INTERVAL: Duration = Duration::from_millis(250);

/// What a new segment repeats of a group, as it is on stable storage.
#[derive(Debug, Clone, Default)]
pub(super) struct Durable {
    pub(super) vote: Option<Vote>,
    pub(super) purged: Option<LogId>,
    pub(super) committed: Option<LogId>,
    /// Index of the next entry.
    pub(super) next: u64,
}

/// Why a batch is not written.
#[derive(Debug)]
pub(super) enum Unwritten {
    /// There is no room for a new segment. Nothing was written; it may be tried again.
    NoRoom(io::Error),
    /// Anything else. Nobody knows what is on the disk.
    Failed(io::Error),
}

impl From<io::Error> for Unwritten {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Unwritten> for io::Error {
    fn from(unwritten: Unwritten) -> Self {
        match unwritten {
            Unwritten::NoRoom(error) | Unwritten::Failed(error) => error,
        }
    }
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

    /// A segment that was read.
    pub(super) fn recovered(part: &Part, last: Option<BTreeMap<u32, u64>>) -> Self {
        Self { segment: Arc::clone(&part.segment), last: last.unwrap_or_default() }
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
    pub(super) counters: Arc<Counters>,
    /// All of these segments, for whoever reads them again.
    pub(super) registry: Arc<Registry>,
}

impl Files {
    pub(super) fn new(
        sealed: VecDeque<Used>,
        active: Used,
        end: u64,
        next_batch: u64,
        groups: BTreeMap<u32, Durable>,
        chores: Arc<Chores>,
    ) -> Self {
        let registry = Arc::new(Registry::default());
        for used in sealed.iter().chain([&active]) {
            registry.add(&used.segment);
        }
        Self { sealed, active, end, next_batch, groups, chores, counters: Arc::default(), registry }
    }

    /// Writes a batch whose frames start at byte [`BATCH_HEADER`] of `bytes`. Everything before is on stable storage;
    /// this is after [`Self::sync`]. Returns the place of its first frame.
    fn write(&mut self, bytes: &mut [u8]) -> Result<Place, Unwritten> {
        if self.active.segment.size < self.end + bytes.len() as u64 {
            self.roll(bytes.len() as u64)?;
        }
        Ok(self.write_here(bytes)?)
    }

    fn write_here(&mut self, bytes: &mut [u8]) -> io::Result<Place> {
        let segment = &self.active.segment;
        frame::seal_batch(bytes, segment.sequence, segment.seed, self.next_batch)?;
        segment.file.write_all_at(bytes, self.end)?;
        let place = Place { segment: Arc::clone(segment), offset: self.end, frame: 0 };
        self.end = frame::align(self.end + bytes.len() as u64);
        self.next_batch += 1;
        self.counters.batches.fetch_add(1, Ordering::Relaxed);
        self.counters.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(place)
    }

    fn sync(&self) -> io::Result<()> {
        let file = &self.active.segment.file;
        let retried = |error| if millstream_streams::mutant!(FsyncTriedAgain) { file.sync() } else { Err(error) };
        file.sync()
            .or_else(retried)
            .or_else(|error| if millstream_streams::mutant!(FsyncErrorIgnored) { Ok(()) } else { Err(error) })?;
        self.active.segment.set_synced(self.end);
        self.counters.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Goes on in a new segment with room for `length` bytes after the state that it repeats. The old one needs no
    /// sync: each of its batches had one.
    fn roll(&mut self, length: u64) -> Result<(), Unwritten> {
        let mut state = self.state_batch();
        let size = SEGMENT_HEADER + frame::align(state.len() as u64) + length;
        let made = self.chores.segment(self.active.segment.sequence + 1, size);
        let next = made.map_err(|error| match no_room(&error) {
            true => Unwritten::NoRoom(error),
            false => Unwritten::Failed(error),
        })?;
        let next = Used::new(next);
        self.registry.add(&next.segment);
        let sealed = std::mem::replace(&mut self.active, next);
        self.sealed.push_back(sealed);
        self.end = SEGMENT_HEADER;
        self.write_here(&mut state)?;
        self.sync()?;
        // Not before: an unused segment may only stand behind one that has a batch.
        self.chores.prepare(self.active.segment.sequence + 1);
        Ok(())
    }

    /// A batch that says of every group what is not said by entries.
    fn state_batch(&self) -> Vec<u8> {
        let mut bytes = vec![0; BATCH_HEADER];
        for (group, durable) in &self.groups {
            let Durable { vote, purged, committed, next } = durable;
            if let Some(vote) = vote {
                frame::put_vote(&mut bytes, *group, vote);
            }
            if purged.is_some() {
                frame::put_log_id(&mut bytes, *group, Kind::Purge, purged.as_ref());
            }
            if committed.is_some() {
                frame::put_log_id(&mut bytes, *group, Kind::Committed, committed.as_ref());
            }
            if 0 < *next {
                frame::put_next(&mut bytes, *group, *next);
            }
        }
        bytes
    }

    /// Writes a batch that changes nothing. A batch that another one follows is known to have been synced, so that
    /// damage to it is not taken for a torn write.
    pub(super) fn write_mark(&mut self) -> Result<(), Unwritten> {
        let mut state = self.state_batch();
        self.write(&mut state)?;
        Ok(self.sync()?)
    }

    /// Takes note of a change that is on stable storage and tells its group.
    fn record(&mut self, change: Change, batch: &Place) {
        match change {
            Change::Append { group, epoch, first, next, frame } => {
                self.active.last.entry(group.id).and_modify(|last| *last = next.max(*last + 1) - 1).or_insert(next - 1);
                self.groups.entry(group.id).or_default().next = next;
                self.counters.entries.fetch_add(next - first, Ordering::Relaxed);
                group.appended(epoch, first, next, &Place { frame, ..batch.clone() });
            }
            Change::Truncate { group, epoch, from, next } => {
                self.groups.entry(group.id).or_default().next = next;
                group.truncated(epoch, from, next);
            }
            Change::Purge { group, epoch, log_id, next } => {
                let durable = self.groups.entry(group.id).or_default();
                (durable.purged, durable.next) = (Some(log_id), next);
                group.purged(epoch, log_id.index, next);
            }
            Change::Vote { group, vote } => self.groups.entry(group).or_default().vote = Some(vote),
            Change::Committed { group, log_id } => self.groups.entry(group).or_default().committed = log_id,
        }
    }

    /// Removes the oldest segments while all their entries are purged.
    pub(super) fn remove_purged(&mut self) {
        let purged = |group: &u32| self.groups.get(group).and_then(|durable| durable.purged).map(|log_id| log_id.index);
        let kept = |used: &Used| !used.last.iter().all(|(group, last)| Some(*last) <= purged(group));
        let count = self.sealed.iter().position(kept).unwrap_or(self.sealed.len());
        let retired: Vec<_> = self.sealed.drain(..count).map(|used| self.chores.retired(used.segment)).collect();
        if !retired.is_empty() {
            self.chores.retire(retired);
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

/// What became of an attempt to write.
enum Attempt {
    Written(Option<Place>),
    /// There is no room for it yet.
    Wait,
    /// There was none until the log was closed.
    GiveUp(io::Error),
}

impl Flusher {
    /// Writes a chunk, if there is anything to write. What does not fit on the disk waits until it does: nothing was
    /// written of it, and nobody was told.
    fn write(&mut self, chunk: &mut Chunk) -> io::Result<Attempt> {
        if self.files.chores.is_broken() {
            return Err(io::Error::other("the directory of the log could not be synced"));
        }
        let waited = self.files.counters.waits_for_room.load(Ordering::Relaxed);
        let written = if chunk.is_empty() { Ok(None) } else { self.files.write(&mut chunk.bytes).map(Some) };
        let waits = &self.files.counters.waits_for_room;
        match written {
            Ok(place) => {
                waits.store(false, Ordering::Relaxed);
                Ok(Attempt::Written(place))
            }
            Err(Unwritten::NoRoom(error)) if self.queue.is_closed() => Ok(Attempt::GiveUp(error)),
            Err(Unwritten::NoRoom(error)) => {
                if !waited {
                    self.world.probe.mark("log_waits_for_room");
                    tracing::error!(%error, "the disk is full: the log waits for room");
                }
                waits.store(true, Ordering::Relaxed);
                Ok(Attempt::Wait)
            }
            Err(Unwritten::Failed(error)) => Err(error),
        }
    }

    fn sync(&self, place: Option<Place>) -> io::Result<Option<Place>> {
        if place.is_some() {
            self.files.sync()?;
        }
        Ok(place)
    }

    /// Ends the log without a fault of the disk's.
    fn give_up(&self, chunk: Chunk, error: &io::Error) {
        let failure = Failure::new(error.kind(), format!("the log was closed while it waited for room: {error}"));
        for done in chunk.done {
            done.complete(Err(failure.error()));
        }
        self.queue.fail(failure);
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
        if let Err(error) = self.files.write_mark().map_err(io::Error::from) {
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
            let place = loop {
                match self.write(&mut chunk) {
                    Ok(Attempt::Written(place)) => break self.sync(place),
                    Ok(Attempt::Wait) => self.queue.wait_closed(ROOM_INTERVAL),
                    Ok(Attempt::GiveUp(error)) => return self.give_up(chunk, &error),
                    Err(error) => break Err(error),
                }
            };
            match place {
                Ok(place) => self.complete(chunk, place),
                Err(error) => return self.fail(chunk, &error),
            }
        }
        self.finish();
    }

    fn run_async(mut self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            while let Some(mut chunk) = self.queue.take().await {
                let written = loop {
                    match self.write(&mut chunk) {
                        Ok(Attempt::Written(place)) => break Ok(place),
                        Ok(Attempt::Wait) => tokio::time::sleep(ROOM_INTERVAL).await,
                        Ok(Attempt::GiveUp(error)) => return self.give_up(chunk, &error),
                        Err(error) => break Err(error),
                    }
                };
                // A sync takes time, in which more is queued.
                match self.simulated_sync_latency {
                    Some(latency) => tokio::time::sleep(latency).await,
                    None => tokio::task::yield_now().await,
                }
                match written.and_then(|place| self.sync(place)) {
                    Ok(place) => self.complete(chunk, place),
                    Err(error) => return self.fail(chunk, &error),
                }
            }
            self.finish();
        })
    }
}
