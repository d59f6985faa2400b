//! One group's log: what is in it, and where.
//!
//! There are two views. The *log* is what openraft sees: it changes the moment openraft says so. The *index* says where
//! entries are in the files; it follows as batches become durable. The newest entries are kept in memory, and at least
//! all those the index does not know yet.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::frame::{self, Kind};
use super::index::{Index, Place, Span};
use super::queue::{Change, Done, Push, Queue};
use super::sizes::Sizes;
use crate::types::{CommittedLeaderId, LogEntry, LogId, Vote};

/// What an entry in memory costs beside its payload, in bytes.
const ENTRY_OVERHEAD: usize = 96;

/// One group.
pub(super) struct Group {
    pub(super) id: u32,
    tail_bytes_max: usize,
    /// A std lock: held for work in memory only. Taken before that of the queue, so that the queue has the frames of a
    /// group in the order of its changes.
    log: Mutex<Log>,
}

/// The log of a group.
pub(super) struct Log {
    pub(super) vote: Option<Vote>,
    pub(super) committed: Option<LogId>,
    pub(super) purged: Option<LogId>,
    /// Entries `first..next` are there.
    pub(super) first: u64,
    pub(super) next: u64,
    /// From which index on which leader's entries stand.
    leaders: VecDeque<(u64, CommittedLeaderId)>,
    sizes: Sizes,
    /// The last entries.
    tail: VecDeque<LogEntry>,
    tail_bytes: usize,
    /// Counts how often the end of the log was moved by something else than an append.
    epoch: u64,
    /// Entries below this are on stable storage, as they are in the log now.
    durable_next: u64,
    index: Index,
}

/// Where the entries of a range are.
pub(super) struct Plan {
    /// Those to be read from files.
    pub(super) spans: Vec<Span>,
    /// Those that follow, from memory.
    pub(super) tail: Vec<LogEntry>,
}

impl Group {
    pub(super) fn new(id: u32, tail_bytes_max: usize) -> Self {
        Self { id, tail_bytes_max, log: Mutex::new(Log::new()) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds entries; `done` is told when they are on stable storage, or why they never will be.
    pub(super) fn append(
        self: &Arc<Self>,
        queue: &Queue,
        entries: impl Iterator<Item = LogEntry>,
        done: Done,
    ) -> io::Result<()> {
        match self.try_append(queue, entries) {
            Ok(push) if millstream_streams::mutant!(AckBeforeFsync) => {
                push.end();
                done.complete(Ok(()));
                Ok(())
            }
            Ok(push) => {
                push.end_with(done);
                Ok(())
            }
            Err(error) => {
                done.complete(Err(io::Error::new(error.kind(), error.to_string())));
                Err(error)
            }
        }
    }

    fn try_append<'q>(
        self: &Arc<Self>,
        queue: &'q Queue,
        entries: impl Iterator<Item = LogEntry>,
    ) -> io::Result<Push<'q>> {
        let mut log = self.lock();
        let mut push = queue.push()?;
        for entry in entries {
            let index = entry.log_id.index;
            log.check_next(index)?;
            let chunk = push.chunk();
            let frame = chunk.bytes.len() - frame::BATCH_HEADER;
            let bytes = frame::put_entry(&mut chunk.bytes, self.id, &entry)?;
            match chunk.changes.last_mut() {
                Some(Change::Append { group, epoch, next, .. })
                    if *next == index && *epoch == log.epoch && Arc::ptr_eq(group, self) =>
                {
                    *next = index + 1;
                }
                _ => chunk.changes.push(Change::Append {
                    group: Arc::clone(self),
                    epoch: log.epoch,
                    first: index,
                    next: index + 1,
                    frame,
                }),
            }
            log.extend(&entry.log_id, bytes as u64);
            log.tail_bytes += tail_cost(&entry);
            log.tail.push_back(entry);
        }
        log.evict(self.tail_bytes_max);
        Ok(push)
    }

    /// Saves a vote; `done` is told when it is on stable storage.
    pub(super) fn save_vote(&self, queue: &Queue, vote: &Vote, done: Done) -> io::Result<()> {
        let mut log = self.lock();
        let mut push = queue.push()?;
        if millstream_streams::mutant!(VoteNotWritten) {
            log.vote = Some(*vote);
            push.end_with(done);
            return Ok(());
        }
        let chunk = push.chunk();
        frame::put_vote(&mut chunk.bytes, self.id, vote);
        chunk.changes.push(Change::Vote { group: self.id, vote: *vote });
        push.end_with(done);
        log.vote = Some(*vote);
        Ok(())
    }

    /// Saves what is committed, some time.
    pub(super) fn save_committed(&self, queue: &Queue, committed: Option<LogId>) -> io::Result<()> {
        let mut log = self.lock();
        let mut push = queue.push()?;
        let chunk = push.chunk();
        frame::put_log_id(&mut chunk.bytes, self.id, Kind::Committed, committed.as_ref());
        chunk.changes.push(Change::Committed { group: self.id, log_id: committed });
        push.end_lazily();
        log.committed = committed;
        Ok(())
    }

    /// Removes the entries after `last`. Durable with whatever is flushed next.
    pub(super) fn truncate_after(self: &Arc<Self>, queue: &Queue, last: Option<LogId>) -> io::Result<()> {
        let mut log = self.lock();
        let from = last.map_or(0, |last| last.index + u64::from(!millstream_streams::mutant!(TruncateOneTooMany)));
        if from >= log.next {
            return Ok(());
        }
        let mut push = queue.push()?;
        log.truncate(from);
        if millstream_streams::mutant!(TruncateNotWritten) {
            return Ok(());
        }
        let chunk = push.chunk();
        frame::put_log_id(&mut chunk.bytes, self.id, Kind::Truncate, last.as_ref());
        let (epoch, next) = (log.epoch, log.next);
        chunk.changes.push(Change::Truncate { group: Arc::clone(self), epoch, from, next });
        push.end_lazily();
        Ok(())
    }

    /// Removes the entries up to `log_id`. Flushed now, for the disk space, but nobody waits.
    pub(super) fn purge(self: &Arc<Self>, queue: &Queue, log_id: LogId) -> io::Result<()> {
        let mut log = self.lock();
        if log.purged >= Some(log_id) {
            return Ok(());
        }
        let mut push = queue.push()?;
        log.purge(log_id);
        let chunk = push.chunk();
        frame::put_log_id(&mut chunk.bytes, self.id, Kind::Purge, Some(&log_id));
        let (epoch, next) = (log.epoch, log.next);
        chunk.changes.push(Change::Purge { group: Arc::clone(self), epoch, log_id, next });
        push.end();
        Ok(())
    }

    /// Entries `first..next` are on stable storage, from `place` on.
    pub(super) fn appended(&self, epoch: u64, first: u64, next: u64, place: &Place) {
        let mut log = self.lock();
        log.index.append(first, next, place);
        log.flushed(epoch, next);
        log.evict(self.tail_bytes_max);
    }

    /// That entries from `from` on are gone is on stable storage.
    pub(super) fn truncated(&self, epoch: u64, from: u64, next: u64) {
        let mut log = self.lock();
        log.index.truncate(from);
        log.flushed(epoch, next);
    }

    /// That entries up to `last` are gone is on stable storage.
    pub(super) fn purged(&self, epoch: u64, last: u64, next: u64) {
        let mut log = self.lock();
        log.index.purge(last);
        log.flushed(epoch, next);
    }
}

impl Log {
    fn new() -> Self {
        Self {
            vote: None,
            committed: None,
            purged: None,
            first: 0,
            next: 0,
            leaders: VecDeque::new(),
            sizes: Sizes::default(),
            tail: VecDeque::new(),
            tail_bytes: 0,
            epoch: 0,
            durable_next: 0,
            index: Index::default(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first == self.next
    }

    /// The last entry, or the last purged one if there is none.
    pub(super) fn last_log_id(&self) -> Option<LogId> {
        if self.is_empty() { self.purged } else { self.log_id(self.next - 1) }
    }

    /// The log id at `index`, if that entry is there.
    pub(super) fn log_id(&self, index: u64) -> Option<LogId> {
        if index < self.first || self.next <= index {
            return None;
        }
        let after = self.leaders.partition_point(|(from, _)| *from <= index);
        let (_, leader_id) = self.leaders.get(after.checked_sub(1)?)?;
        Some(LogId { leader_id: *leader_id, index })
    }

    /// The last entry of each leader among `first..=last`.
    pub(super) fn last_of_each_leader(&self, first: u64, last: u64) -> Vec<LogId> {
        let ends = self.leaders.iter().skip(1).map(|(from, _)| from - 1).filter(|end| first <= *end && *end < last);
        ends.chain([last]).filter_map(|index| self.log_id(index)).collect()
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn durable_next(&self) -> u64 {
        self.durable_next
    }

    /// Bytes of the entries in the log, about.
    pub(super) fn bytes(&self) -> u64 {
        self.sizes.bytes(self.first, self.next)
    }

    /// Bytes of the entries from `index` on, about.
    pub(super) fn bytes_from(&self, index: u64) -> u64 {
        self.sizes.bytes(index.max(self.first).min(self.next), self.next)
    }

    /// Whether an entry may follow at `index`. An empty log takes any that is not purged.
    fn check_next(&self, index: u64) -> io::Result<()> {
        let fits = index == self.next || (self.is_empty() && self.first <= index);
        if fits {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("entry {index} does not follow the log, which holds {}..{}", self.first, self.next),
        ))
    }

    /// Counts an entry in.
    fn extend(&mut self, log_id: &LogId, bytes: u64) {
        if self.is_empty() {
            self.first = log_id.index;
        }
        self.next = log_id.index + 1;
        if self.leaders.back().is_none_or(|(_, leader_id)| *leader_id != log_id.leader_id) {
            self.leaders.push_back((log_id.index, log_id.leader_id));
        }
        self.sizes.append(log_id.index, bytes);
    }

    /// Removes entries from `from` on.
    fn truncate(&mut self, from: u64) {
        let next = from.max(self.purged.map_or(0, |purged| purged.index + 1)).min(self.next);
        let dropped = (self.next - next).min(self.tail.len() as u64) as usize;
        for entry in self.tail.drain(self.tail.len() - dropped..) {
            self.tail_bytes -= tail_cost(&entry);
        }
        self.sizes.truncate(next, self.next);
        self.next = next;
        // While files are read, the entries before may be in one that is gone because they were purged later.
        self.first = self.first.min(next);
        while self.leaders.back().is_some_and(|(from, _)| next <= *from) {
            self.leaders.pop_back();
        }
        self.epoch += 1;
        self.durable_next = self.durable_next.min(next);
    }

    /// Removes entries up to `log_id`, which may be beyond the last one.
    fn purge(&mut self, log_id: LogId) {
        let first = log_id.index + 1;
        self.purged = Some(log_id);
        if self.next <= first {
            // The end of the log moves, too, unless exactly all of it goes.
            self.epoch += u64::from(self.next < first);
            self.tail.clear();
            self.tail_bytes = 0;
            self.leaders.clear();
            self.sizes = Sizes::default();
            (self.first, self.next) = (first, first);
            return;
        }
        self.first = self.first.max(first);
        while self.next - (self.tail.len() as u64) < self.first {
            self.pop_tail();
        }
        while self.leaders.get(1).is_some_and(|(from, _)| *from <= self.first) {
            self.leaders.pop_front();
        }
        self.sizes.purge(self.first);
    }

    fn flushed(&mut self, epoch: u64, next: u64) {
        // If the end was moved since, the frame that says so completes later.
        if epoch == self.epoch {
            self.durable_next = next;
        }
    }

    /// Drops the oldest entries in memory that can be read from files, while there are too many.
    fn evict(&mut self, tail_bytes_max: usize) {
        while tail_bytes_max < self.tail_bytes && self.next - (self.tail.len() as u64) < self.durable_next {
            self.pop_tail();
        }
    }

    fn pop_tail(&mut self) {
        if let Some(entry) = self.tail.pop_front() {
            self.tail_bytes -= tail_cost(&entry);
        }
    }

    /// Where to find the entries of `start..end` that are there. Stops early at `bytes_max` bytes of entries in memory,
    /// but not before the first; if any are to be read from files, then with those.
    pub(super) fn plan(&self, start: u64, end: u64, bytes_max: Option<usize>) -> Plan {
        let start = start.max(self.first);
        let end = end.min(self.next);
        let tail_first = self.next - self.tail.len() as u64;
        let spans = if start < end.min(tail_first) { self.index.spans(start, end.min(tail_first)) } else { Vec::new() };
        let mut tail = Vec::new();
        if bytes_max.is_none() || spans.is_empty() {
            let from = start.max(tail_first);
            let mut bytes = 0;
            let wanted = self.tail.iter().skip((from - tail_first) as usize).take(end.saturating_sub(from) as usize);
            for entry in wanted {
                bytes += tail_cost(entry);
                if bytes_max.is_some_and(|max| max < bytes) && !tail.is_empty() {
                    break;
                }
                tail.push(entry.clone());
            }
        }
        Plan { spans, tail }
    }

    /// Takes in an entry found in a file.
    pub(super) fn recover_entry(&mut self, log_id: &LogId, bytes: u64, place: &Place) -> io::Result<()> {
        self.check_next(log_id.index)?;
        self.extend(log_id, bytes);
        self.index.append(log_id.index, log_id.index + 1, place);
        self.durable_next = self.next;
        Ok(())
    }

    /// Takes in a truncation found in a file.
    pub(super) fn recover_truncation(&mut self, last: Option<LogId>) {
        let from = last.map_or(0, |last| last.index + 1);
        if from < self.next {
            self.truncate(from);
            self.index.truncate(from);
            self.durable_next = self.next;
        }
    }

    /// Takes in a purge found in a file.
    pub(super) fn recover_purge(&mut self, log_id: LogId) {
        if self.purged < Some(log_id) {
            self.purge(log_id);
            self.index.purge(log_id.index);
            self.durable_next = self.next;
        }
    }

    /// Where the newest entries are that belong in memory and are not there, after all files were read.
    pub(super) fn missing_tail(&self, tail_bytes_max: usize) -> Option<(u64, Vec<Span>)> {
        let cost = |start: u64| self.sizes.bytes(start, self.next) + (self.next - start) * ENTRY_OVERHEAD as u64;
        let (mut start, mut end) = (self.first, self.next - self.tail.len() as u64);
        if start == end || tail_bytes_max == 0 {
            return None;
        }
        let last = end;
        // The first entry from which on all fit.
        while start < end {
            let middle = start + (end - start) / 2;
            if cost(middle) <= tail_bytes_max as u64 { end = middle } else { start = middle + 1 }
        }
        Some((self.epoch, self.index.spans(start, last)))
    }

    /// Takes the entries just before those in memory.
    pub(super) fn fill_tail(&mut self, entries: Vec<LogEntry>, tail_bytes_max: usize) {
        for mut entry in entries.into_iter().rev() {
            if let crate::types::LogPayload::Normal(proposal) = &mut entry.payload {
                // Without what else was read with it.
                proposal.0 = bytes::Bytes::copy_from_slice(&proposal.0);
            }
            self.tail_bytes += tail_cost(&entry);
            self.tail.push_front(entry);
        }
        self.evict(tail_bytes_max);
    }

    /// Whether this log id is in the log, or purged from it.
    pub(super) fn holds(&self, log_id: &LogId) -> bool {
        self.purged.is_some_and(|purged| log_id.index <= purged.index) || self.log_id(log_id.index) == Some(*log_id)
    }
}

fn tail_cost(entry: &LogEntry) -> usize {
    let payload = match &entry.payload {
        crate::types::LogPayload::Normal(proposal) => proposal.0.len(),
        _ => 0,
    };
    ENTRY_OVERHEAD + frame::FRAME_HEADER + payload
}
