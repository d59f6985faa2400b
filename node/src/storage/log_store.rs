//! openraft's view of one group's log: a thin adapter over [`super::wal`].

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds, RangeInclusive};

use futures::Stream;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};

use super::wal::{GroupLog, LogCounts, ScrubCursor, Scrubbed};
use crate::types::{LogEntry, LogId, TypeConfig, Vote};

/// Entries are handed out in portions of at most this many bytes, or one entry if that is larger.
const READ_BYTES_MAX: usize = 2 << 20;

/// The log of one Raft group, for reading and writing. Cheap to clone; all clones see the same log.
#[derive(Clone)]
pub struct LogStore {
    log: GroupLog,
}

impl LogStore {
    pub(super) fn new(log: GroupLog) -> Self {
        Self { log }
    }

    /// Returns when everything asked for before is on stable storage.
    pub async fn barrier(&self) -> io::Result<()> {
        self.log.barrier().await
    }

    /// Verifies about `bytes_max` bytes of what was synced, of all groups, and says where to go on. An error of kind
    /// `InvalidData` is damage, and its message says what to do; a batch that can be read may still come from the
    /// system's cache rather than the disk.
    pub async fn scrub(&self, from: ScrubCursor, bytes_max: u64) -> io::Result<Scrubbed> {
        self.log.scrub(from, bytes_max).await
    }

    /// Whether the log waits for room on the disk. Nothing becomes durable before it has some.
    pub fn waits_for_room(&self) -> bool {
        self.log.waits_for_room()
    }

    /// What the node's log has done since it was opened.
    pub fn counts(&self) -> LogCounts {
        self.log.counts()
    }

    /// Index of the last entry known to be on stable storage with all before it. 0 if there is none.
    pub fn durable_index(&self) -> u64 {
        self.log.bounds().durable_next.saturating_sub(1)
    }

    /// Index of the first entry, or of the next one if there is none.
    pub fn first_index(&self) -> u64 {
        self.log.bounds().first
    }

    /// Index of the last entry, or of the last purged one. 0 if there is none.
    pub fn last_index(&self) -> u64 {
        self.log.bounds().last.map_or(0, |log_id| log_id.index)
    }

    /// The last purged entry.
    pub fn purged(&self) -> Option<LogId> {
        self.log.bounds().purged
    }

    /// Whether the log holds another entry at this index.
    pub fn contradicts(&self, log_id: &LogId) -> bool {
        self.log.contradicts(log_id)
    }

    /// Bytes of the entries that are not purged, to within 64 KiB.
    pub fn bytes(&self) -> u64 {
        self.log.bounds().bytes
    }

    /// Bytes of the entries from `index` on, about.
    pub fn bytes_from(&self, index: u64) -> u64 {
        self.log.bytes_from(index)
    }
}

/// The indices `start..end` that a range stands for.
fn limits(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<LogEntry>> {
        let (start, end) = limits(&range);
        self.log.read(start, end, None).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<LogEntry>> {
        let entries = self.log.read(start, end, Some(READ_BYTES_MAX)).await?;
        // A follower must not be sent entries that do not follow those it has.
        match entries.first() {
            Some(first) if first.log_id.index == start => Ok(entries),
            None if end <= start => Ok(entries),
            _ => Err(io::Error::new(io::ErrorKind::NotFound, format!("entry {start} is not in the log"))),
        }
    }

    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<LogEntry>> + Send
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        let (start, end) = limits(&range);
        // What the range means is settled now, even if the log changes while it is read.
        let bounds = self.log.bounds();
        let (start, end) = (start.max(bounds.first), end.min(bounds.next));
        let portions = Portions { log: self.log.clone(), next: start, end, read: Vec::new().into_iter() };
        futures::stream::unfold(portions, |mut portions| async move {
            let entry = portions.next().await?;
            Some((entry, portions))
        })
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.log.vote())
    }

    async fn get_key_log_ids(&mut self, range: RangeInclusive<LogId>) -> io::Result<Vec<LogId>> {
        Ok(self.log.last_of_each_leader(range.start().index, range.end().index))
    }
}

/// Entries being read portion by portion, so that a long backlog is never in memory as a whole.
struct Portions {
    log: GroupLog,
    next: u64,
    end: u64,
    read: std::vec::IntoIter<LogEntry>,
}

impl Portions {
    async fn next(&mut self) -> Option<io::Result<LogEntry>> {
        if self.end <= self.next {
            return None;
        }
        if self.read.len() == 0 {
            match self.log.read(self.next, self.end, Some(READ_BYTES_MAX)).await {
                Ok(entries) => self.read = entries.into_iter(),
                Err(error) => return self.fail(error),
            }
        }
        match self.read.next() {
            Some(entry) if entry.log_id.index == self.next => {
                self.next += 1;
                Some(Ok(entry))
            }
            _ => {
                let next = self.next;
                self.fail(io::Error::new(io::ErrorKind::NotFound, format!("entry {next} is no longer in the log")))
            }
        }
    }

    fn fail(&mut self, error: io::Error) -> Option<io::Result<LogEntry>> {
        self.next = self.end;
        Some(Err(error))
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let bounds = self.log.bounds();
        Ok(LogState { last_purged_log_id: bounds.purged, last_log_id: bounds.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.log.save_vote(vote).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.log.save_committed(committed)
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.log.committed())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = LogEntry> + Send,
        I::IntoIter: Send,
    {
        self.log.append(entries.into_iter(), callback).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.log.truncate_after(last)
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        self.log.purge(log_id)
    }
}
