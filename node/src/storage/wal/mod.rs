//! The write-ahead log: votes and entries of all Raft groups of a node, in one sequence of files.
//!
//! A promise of Raft counts from the moment it is on stable storage, so everything waits for this module. All groups
//! share one flusher: it takes all that is queued, writes it as one *batch*, syncs once, and tells whoever waits, in
//! order. While a sync is under way the next batch gathers; that is the whole of the group commit, there is no timer. As
//! there is one queue, what is durable is always a prefix of what was asked for: no entry without the vote of its term.
//!
//! # Bytes
//! All numbers are little-endian. A *segment* is a file `<sequence, 16 hex digits>.wal` of fixed size, written in full and
//! synced, with its name, before it is used; so the sync of a batch has no metadata to write. It is written full of zeros,
//! or is the file of an old segment, which is renamed to `<sequence>.spare` when it is purged and gets a new header and a
//! new name when its turn comes; what is behind the last batch may therefore be anything.
//!
//! ```text
//! segment   0 magic u64            batch    0 magic u32           frame    0 length u32, of the payload
//!           8 sequence u64                  4 length u32, frames           4 group u32
//!          16 salt u64, random              8 segment u64                  8 kind u8
//!          24 size u64, of the file        16 sequence u64                 9 flag u8
//!          32 crc32c u32, of 0..32         24 crc32c u32, of frames       10 zero u16
//!          36 zeros                        28 crc32c u32, of 0..28        12 index u64
//!          64 batches ..                   32 frames ..                   20 term u64
//!                                             zeros up to 8 n             28 node u64
//!                                                                         36 payload ..
//! kinds     1 Append    flag: 0 blank, 1 proposal, 2 membership
//!           2 Vote      flag: 1 committed
//!           3 Truncate  entries after this one are gone; flag: 0 all are
//!           4 Purge     entries up to this one are gone
//!           5 Committed flag: 0 none
//!           6 Next      the group's next entry is this one
//! ```
//! The magic of a segment is `MILWAL`, 0 and the version, 1. This version is frozen: `tests/fixtures/wal-1` is read for
//! ever, and is what the same operations write.
//!
//! The checksums of batches are seeded with the segment's sequence and salt: bytes of another file never verify, and no
//! client can write a payload that looks like a batch. The header has a checksum of its own because it is evidence:
//! *batch n+1 is written only after the sync of batch n*, so where a header n+1 is found, batch n was durable. See
//! `recovery.rs` for what follows from that.
//!
//! The first batch of a segment repeats the vote, purge point and committed id of every group, so a segment can be
//! removed as soon as all entries in it are purged; and it says which entry is next, so that one that was removed though
//! its entries are needed is missed.
//!
//! # What was left out
//! Batches are not compressed. A flipped bit in the very last batch before a crash cannot be
//! told from a torn write and is cut off; a batch that changes nothing, written at every start and orderly end, keeps
//! that window small.

mod flusher;
mod frame;
mod group;
mod index;
mod inspect;
mod janitor;
mod payload;
mod queue;
mod reader;
mod recovery;
mod scrub;
mod segment;
mod sizes;
mod walk;
mod window;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use self::flusher::Flusher;
use self::group::Group;
pub use self::inspect::{Content, Dump, DumpedFrame, GroupSummary, Progress, Verified, dump, verify};
use self::janitor::Janitor;
use self::queue::{Done, Queue};
use self::reader::Cursor;
use self::scrub::Registry;
pub use self::scrub::{ScrubCursor, Scrubbed};
use super::log_store::LogStore;
use crate::types::{LogEntry, LogId, Vote};
use crate::world::World;

/// How the log uses memory and disk.
#[derive(Debug, Clone)]
pub struct WalOptions {
    /// Size of a segment in bytes. A single append that is larger gets a segment of its own.
    pub segment_bytes: u64,
    /// Bytes of a batch, beyond which the rest waits for the next one.
    pub flush_bytes_max: usize,
    /// Bytes of the newest entries kept in memory, per group. Entries that are not durable yet are kept in any case.
    pub tail_bytes_max: usize,
    /// Old segments whose files are kept to become new ones, which spares the zeroing.
    pub spares_max: usize,
    /// Bytes queued and not yet on stable storage, at which an append waits before it adds to them.
    pub unsynced_bytes_max: usize,
    /// Whether this directory has held a log before. Then it is an error if there is none, and no new one is started.
    pub must_exist: bool,
    /// How long a sync takes in a world without threads. `None`: until other tasks have had their turn.
    pub simulated_sync_latency: Option<Duration>,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            flush_bytes_max: 4 << 20,
            tail_bytes_max: 64 << 20,
            spares_max: 2,
            unsynced_bytes_max: 64 << 20,
            must_exist: false,
            simulated_sync_latency: None,
        }
    }
}

/// Why the log does not open.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The operating system says so.
    #[error(
        "the log at {} cannot be used: {source}; see that the disk works, has room and can be written to, and start the \
         node again",
        path.display()
    )]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// Data that had been synced is not there any more.
    #[error(
        "corruption of synced data in the log file {} at byte {offset} ({what}): a node must not vote with a log that \
         has lost entries, so remove this node's data directory and let it rejoin under a new node id",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// There was a log, and there is none any more.
    #[error(
        "the log in {} is missing, although this node has had one: a node must not vote with a log that has \
         lost entries, so put its files back, or remove this node's data directory and let it rejoin under a new node id",
        path.display()
    )]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// A batch verifies and decodes, and does not follow those before it.
    #[error(
        "the log file {} contradicts at byte {offset} what comes before it ({what}), which no disk does and a fault of this \
         program may: keep a copy of this node's data directory for a report, then remove it and let the node rejoin under \
         a new node id",
        path.display()
    )]
    Inconsistent {
        /// The file.
        path: PathBuf,
        /// Where its batch starts in the file.
        offset: u64,
        /// What does not fit.
        what: String,
    },
    /// A batch verifies, but makes no sense.
    #[error(
        "the log file {} holds at byte {offset} what this version does not understand ({source}): start the version \
         that wrote it",
        path.display()
    )]
    Undecodable {
        /// The file.
        path: PathBuf,
        /// Where its batch starts in the file.
        offset: u64,
        /// What is not understood.
        source: io::Error,
    },
}

/// What the flusher counts.
#[derive(Debug, Default)]
struct Counters {
    syncs: AtomicU64,
    batches: AtomicU64,
    entries: AtomicU64,
    bytes: AtomicU64,
    /// Whether it waits for room on the disk.
    waits_for_room: AtomicBool,
}

/// What the log has done since it was opened. Divide two differences for syncs per entry, or bytes per sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogCounts {
    /// Syncs of batches. Those that make a new segment ready are not counted.
    pub syncs: u64,
    /// Batches written.
    pub batches: u64,
    /// Entries made durable, of all groups.
    pub entries: u64,
    /// Bytes of batches written.
    pub bytes: u64,
}

/// The log of a node. Open it once per directory.
pub struct Wal {
    shared: Arc<Shared>,
}

/// What the log and the views of its groups share. Gone when the last of them is; then the flusher ends.
struct Shared {
    world: World,
    options: WalOptions,
    queue: Arc<Queue>,
    groups: Mutex<BTreeMap<u32, Arc<Group>>>,
    counters: Arc<Counters>,
    registry: Arc<Registry>,
    stopped: watch::Receiver<bool>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl Wal {
    /// Opens the log in the directory `path`, or starts one, and starts its flusher. Blocks on files.
    pub fn open(world: &World, path: &Path, options: WalOptions) -> Result<Self, WalError> {
        let recovery::Recovered { files, groups } = recovery::recover(world, path, &options)?;
        let io = |source| WalError::Io { path: path.to_owned(), source };
        let queue = Arc::new(Queue::new(options.flush_bytes_max, options.unsynced_bytes_max));
        let (stopped, watch) = watch::channel(false);
        let (counters, registry) = (Arc::clone(&files.counters), Arc::clone(&files.registry));
        let chores = Arc::clone(&files.chores);
        chores.prepare(files.active.segment.sequence + 1);
        Janitor::start(&chores).map_err(io)?;
        let flusher = Flusher {
            world: world.clone(),
            queue: Arc::clone(&queue),
            files,
            simulated_sync_latency: options.simulated_sync_latency,
            stopped,
        };
        world.spawn.spawn_flusher(Box::new(flusher)).map_err(io)?;
        let groups = Mutex::new(groups);
        let shared = Shared { world: world.clone(), options, queue, groups, counters, registry, stopped: watch };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The log of one group. Empty if nothing was written to it.
    pub fn group(&self, group: u32) -> LogStore {
        let mut groups = self.shared.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let log =
            groups.entry(group).or_insert_with(|| Arc::new(Group::new(group, self.shared.options.tail_bytes_max)));
        LogStore::new(GroupLog { shared: Arc::clone(&self.shared), group: Arc::clone(log), cursor: None })
    }

    /// Flushes what is queued and ends the flusher. Whatever is asked of the log later fails.
    pub fn close(&self) -> impl Future<Output = ()> + Send + use<> {
        self.shared.queue.close();
        let mut stopped = self.shared.stopped.clone();
        async move {
            // An error means that the flusher is gone, which is as good.
            let _ = stopped.wait_for(|stopped| *stopped).await;
        }
    }
}

/// One group's view of the log, in terms of entries.
#[derive(Clone)]
pub(super) struct GroupLog {
    shared: Arc<Shared>,
    group: Arc<Group>,
    /// Where the last read from files stopped.
    cursor: Option<Cursor>,
}

/// The bounds of a group's log.
pub(super) struct Bounds {
    /// The last purged entry.
    pub(super) purged: Option<LogId>,
    /// The last entry, or the last purged one if there is none.
    pub(super) last: Option<LogId>,
    /// Entries `first..next` are there.
    pub(super) first: u64,
    pub(super) next: u64,
    /// Entries below this are on stable storage.
    pub(super) durable_next: u64,
    /// Bytes of the entries, about.
    pub(super) bytes: u64,
}

impl GroupLog {
    pub(super) fn bounds(&self) -> Bounds {
        let log = self.group.lock();
        Bounds {
            purged: log.purged,
            last: log.last_log_id(),
            first: log.first,
            next: log.next,
            durable_next: log.durable_next(),
            bytes: log.bytes(),
        }
    }

    pub(super) fn counts(&self) -> LogCounts {
        let Counters { syncs, batches, entries, bytes, waits_for_room: _ } = &*self.shared.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LogCounts { syncs: read(syncs), batches: read(batches), entries: read(entries), bytes: read(bytes) }
    }

    /// Whether the log waits for room on the disk.
    pub(super) fn waits_for_room(&self) -> bool {
        self.shared.counters.waits_for_room.load(Ordering::Relaxed)
    }

    /// Verifies about `bytes_max` bytes of synced batches, of all groups.
    pub(super) async fn scrub(&self, from: ScrubCursor, bytes_max: u64) -> io::Result<Scrubbed> {
        let registry = Arc::clone(&self.shared.registry);
        let (answer, scrubbed) = oneshot::channel();
        // Whoever asked may be gone.
        let job = move || drop(answer.send(registry.scrub(from, bytes_max)));
        self.shared.world.spawn.blocking(Box::new(job)).await;
        scrubbed.await.map_err(|_| gone())?
    }

    pub(super) fn bytes_from(&self, index: u64) -> u64 {
        self.group.lock().bytes_from(index)
    }

    pub(super) fn contradicts(&self, log_id: &LogId) -> bool {
        self.group.lock().log_id(log_id.index).is_some_and(|found| found != *log_id)
    }

    pub(super) fn vote(&self) -> Option<Vote> {
        self.group.lock().vote
    }

    pub(super) fn committed(&self) -> Option<LogId> {
        self.group.lock().committed
    }

    pub(super) fn last_of_each_leader(&self, first: u64, last: u64) -> Vec<LogId> {
        self.group.lock().last_of_each_leader(first, last)
    }

    /// Waits while too much is queued.
    pub(super) async fn append(
        &self,
        entries: impl Iterator<Item = LogEntry>,
        callback: openraft::storage::IOFlushed<crate::types::TypeConfig>,
    ) -> io::Result<()> {
        self.shared.queue.room().await;
        self.group.append(&self.shared.queue, entries, Done::Raft(callback))
    }

    pub(super) fn save_committed(&self, committed: Option<LogId>) -> io::Result<()> {
        if let Some(committed) = &committed {
            self.shared.world.probe.committed(committed.index, committed.leader_id.term);
        }
        self.group.save_committed(&self.shared.queue, committed)
    }

    pub(super) fn truncate_after(&self, last: Option<LogId>) -> io::Result<()> {
        self.shared.world.probe.mark("log_truncated");
        self.group.truncate_after(&self.shared.queue, last)
    }

    pub(super) fn purge(&self, log_id: LogId) -> io::Result<()> {
        self.group.purge(&self.shared.queue, log_id)
    }

    /// Returns when the vote is on stable storage.
    pub(super) async fn save_vote(&self, vote: &Vote) -> io::Result<()> {
        let (done, flushed) = oneshot::channel();
        self.group.save_vote(&self.shared.queue, vote, Done::Waiter(done))?;
        if millstream_streams::mutant!(VoteNotSynced) {
            return Ok(());
        }
        flushed.await.map_err(|_| gone())?
    }

    /// Returns when everything queued before is on stable storage.
    pub(super) async fn barrier(&self) -> io::Result<()> {
        let (done, flushed) = oneshot::channel();
        self.shared.queue.push()?.end_with(Done::Waiter(done));
        flushed.await.map_err(|_| gone())?
    }

    /// Entries of the range `start..end` that are there; all of them, or about `bytes_max` bytes, at least one.
    pub(super) async fn read(&mut self, start: u64, end: u64, bytes_max: Option<usize>) -> io::Result<Vec<LogEntry>> {
        let (plan, epoch) = {
            let log = self.group.lock();
            (log.plan(start, end, bytes_max), log.epoch())
        };
        if plan.spans.is_empty() {
            // A reader that has caught up stays that way; it need not hold a window of a file.
            self.cursor = None;
            return Ok(plan.tail);
        }
        let (group, cursor) = (self.group.id, self.cursor.take());
        let (answer, read) = oneshot::channel();
        let job = move || {
            // Whoever asked may be gone.
            let _ = answer.send(reader::read(group, epoch, &plan.spans, bytes_max, cursor));
        };
        let tail = plan.tail;
        self.shared.world.spawn.blocking(Box::new(job)).await;
        let (mut entries, cursor) = read.await.map_err(|_| gone())??;
        self.cursor = cursor;
        entries.extend(tail);
        Ok(entries)
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the log is closed")
}
