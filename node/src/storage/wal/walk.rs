//! Reads the log files in order, for whoever needs them all: recovery, and the tools that look at a log.
//!
//! The rules by which files and batches are believed are here and in `recovery.rs`, where the reasons are.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::WalError;
use super::frame::{self, ALIGNMENT, BATCH_HEADER};
use super::segment::{self, SEGMENT_HEADER, Segment, SegmentHeader};
use super::window::Window;
use crate::world::{OpenMode, World};

/// Bytes read at once, unless a batch is larger.
const WINDOW_BYTES: u64 = 1 << 20;

/// A verified batch.
pub(super) struct Batch {
    pub(super) segment: Arc<Segment>,
    /// Where it starts in the file.
    pub(super) offset: u64,
    pub(super) sequence: u64,
    pub(super) frames: Bytes,
    /// Whether it is the first one of its segment.
    pub(super) is_first: bool,
}

/// A segment that has been read, and has at least one batch.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) segment: Arc<Segment>,
    /// Where its last batch starts.
    pub(super) last: u64,
    /// Where the next batch would start.
    pub(super) end: u64,
}

/// A segment that is being read.
struct Reading {
    window: Window,
    last: u64,
    end: u64,
    batches: u64,
}

/// A walk through all batches of a log.
pub(super) struct Walk<'w> {
    world: &'w World,
    directory: PathBuf,
    mode: OpenMode,
    ahead: VecDeque<u64>,
    reading: Option<Reading>,
    parts: Vec<Part>,
    /// Segments that were made ready, and never used.
    unused: Vec<u64>,
    spares: Vec<PathBuf>,
    /// Number of the next batch, once one is known.
    next_batch: Option<u64>,
}

/// What a walk has found besides batches.
pub(super) struct Walked {
    pub(super) parts: Vec<Part>,
    /// Files that are no part of the log.
    pub(super) others: Vec<PathBuf>,
    /// Number of the next batch.
    pub(super) next_batch: u64,
}

impl<'w> Walk<'w> {
    /// Starts before the first batch. With [`OpenMode::Write`] the segments can be written to afterwards.
    pub(super) fn open(world: &'w World, directory: &Path, mode: OpenMode) -> Result<Self, WalError> {
        let names = world.fs.list(directory).map_err(|source| WalError::Io { path: directory.to_owned(), source })?;
        let spares = names.iter().filter(|name| segment::is_spare(name)).map(|name| directory.join(name)).collect();
        let mut ahead: Vec<u64> = names.iter().filter_map(|name| segment::sequence_of(name)).collect();
        ahead.sort_unstable();
        Ok(Self {
            world,
            directory: directory.to_owned(),
            mode,
            ahead: ahead.into(),
            reading: None,
            parts: Vec::new(),
            unused: Vec::new(),
            spares,
            next_batch: None,
        })
    }

    /// Files that were not begun yet.
    pub(super) fn ahead(&self) -> usize {
        self.ahead.len()
    }

    /// The next batch. `None` at the end of the log.
    pub(super) fn next(&mut self) -> Result<Option<Batch>, WalError> {
        loop {
            if self.reading.is_none() {
                let Some(sequence) = self.ahead.pop_front() else { return Ok(None) };
                self.reading = Some(self.begin(sequence)?);
            }
            if let Some(batch) = self.batch()? {
                return Ok(Some(batch));
            }
        }
    }

    /// What was found, after the last batch.
    pub(super) fn finish(self) -> Walked {
        let unused = self.unused.iter().map(|sequence| segment::path_of(&self.directory, *sequence));
        let others = unused.chain(self.spares).collect();
        Walked { parts: self.parts, others, next_batch: self.next_batch.unwrap_or(1) }
    }

    /// Opens a segment.
    fn begin(&self, sequence: u64) -> Result<Reading, WalError> {
        let path = segment::path_of(&self.directory, sequence);
        let io = |source| WalError::Io { path: path.clone(), source };
        let corrupt = |what| WalError::Corrupt { path: path.clone(), offset: 0, what };
        // One file that was never used may follow the last one. Anything else means that one is missing.
        let before = self.unused.last().copied().or(self.parts.last().map(|part| part.segment.sequence));
        if before.is_some_and(|before| before + 1 != sequence) || !self.unused.is_empty() {
            return Err(corrupt("the file before it is missing or empty"));
        }
        let file = self.world.fs.open(&path, self.mode).map_err(io)?;
        let length = file.len().map_err(io)?;
        let mut bytes = vec![0; SEGMENT_HEADER.min(length) as usize];
        file.read_exact_at(&mut bytes, 0).map_err(io)?;
        // A file gets this name after its header was synced.
        let header = SegmentHeader::read(&bytes)
            .filter(|header| header.sequence == sequence)
            .ok_or_else(|| corrupt("its header does not verify"))?;
        let segment = Arc::new(Segment::new(path, file, &header));
        let window = Window::new(segment, WINDOW_BYTES, length.min(header.size));
        Ok(Reading { window, last: SEGMENT_HEADER, end: SEGMENT_HEADER, batches: 0 })
    }

    /// The next batch of the segment that is being read. At its end, goes on to the next.
    fn batch(&mut self) -> Result<Option<Batch>, WalError> {
        let Some(reading) = &mut self.reading else { return Ok(None) };
        let segment = Arc::clone(reading.window.segment());
        let io = |source| WalError::Io { path: segment.path.clone(), source };
        let corrupt = |offset, what| WalError::Corrupt { path: segment.path.clone(), offset, what };
        let offset = reading.end;
        if let Some((header, frames)) = reading.window.batch(offset).map_err(io)? {
            // The first batch of the oldest file may have any number.
            if self.next_batch.is_some_and(|expected| expected != header.sequence) {
                return Err(corrupt(offset, "the batch before it is missing"));
            }
            let is_first = reading.batches == 0;
            reading.batches += 1;
            reading.last = offset;
            reading.end = frame::align(offset + BATCH_HEADER as u64 + u64::from(header.length));
            self.next_batch = Some(header.sequence + 1);
            return Ok(Some(Batch { segment, offset, sequence: header.sequence, frames, is_first }));
        }
        let written = self.next_batch.unwrap_or(0);
        let is_torn = reading.window.begins_batch(offset).map_err(io)?;
        if reading.window.later_batch(offset + ALIGNMENT, written).map_err(io)?
            && !millstream_streams::mutant!(SyncedDamageCut)
        {
            return Err(corrupt(offset, "a batch does not verify, but a later one was written"));
        }
        if is_torn {
            self.world.probe.mark("torn_tail_dropped");
        }
        if 0 < reading.batches {
            segment.set_synced(reading.end);
            self.parts.push(Part { segment: Arc::clone(&segment), last: reading.last, end: reading.end });
        } else {
            self.unused.push(segment.sequence);
        }
        self.reading = None;
        Ok(None)
    }
}
