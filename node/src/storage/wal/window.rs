//! A file of the log, read forward through a bounded window.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::frame::{ALIGNMENT, BATCH_HEADER, BatchHeader};
use super::segment::Segment;

/// Reads parts of a segment, each mostly from the bytes that were read for the one before.
#[derive(Debug, Clone)]
pub(super) struct Window {
    segment: Arc<Segment>,
    /// Bytes read at once, unless more are asked for.
    step: u64,
    /// Where the file ends.
    end: u64,
    bytes: Bytes,
    /// Where `bytes` starts in the file.
    at: u64,
}

impl Window {
    /// An empty window that never looks beyond byte `end`, the length of the file or less.
    pub(super) fn new(segment: Arc<Segment>, step: u64, end: u64) -> Self {
        Self { segment, step, end, bytes: Bytes::new(), at: 0 }
    }

    pub(super) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// Whether nothing was read yet, or it was forgotten.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Forgets what was read, which may have changed.
    pub(super) fn clear(&mut self) {
        self.bytes = Bytes::new();
    }

    /// `length` bytes from `at` on. `None` if the file ends before.
    pub(super) fn view(&mut self, at: u64, length: u64) -> io::Result<Option<Bytes>> {
        let Some(end) = at.checked_add(length).filter(|end| *end <= self.end) else {
            return Ok(None);
        };
        if at < self.at || self.at + (self.bytes.len() as u64) < end {
            let mut bytes = vec![0; length.max(self.step.min(self.end - at)) as usize];
            self.segment.file.read_exact_at(&mut bytes, at)?;
            (self.bytes, self.at) = (bytes.into(), at);
        }
        let from = (at - self.at) as usize;
        Ok(Some(self.bytes.slice(from..from + length as usize)))
    }

    /// The batch at `at`: its header and frames, if both verify.
    pub(super) fn batch(&mut self, at: u64) -> io::Result<Option<(BatchHeader, Bytes)>> {
        let Some(header) = self.view(at, BATCH_HEADER as u64)? else { return Ok(None) };
        let Some(header) = BatchHeader::read(&header, self.segment.sequence, self.segment.seed) else {
            return Ok(None);
        };
        let frames = self.view(at + BATCH_HEADER as u64, u64::from(header.length))?;
        let verifies = |frames: &Bytes| {
            header.verifies(frames, self.segment.seed) || millstream_streams::mutant!(TornTailAccepted)
        };
        Ok(frames.filter(verifies).map(|frames| (header, frames)))
    }

    /// Whether the header of a batch verifies at `at`, whatever is behind it.
    pub(super) fn begins_batch(&mut self, at: u64) -> io::Result<bool> {
        let (sequence, seed) = (self.segment.sequence, self.segment.seed);
        if self.end < at + BATCH_HEADER as u64 {
            return Ok(false);
        }
        let header = self.view(at, BATCH_HEADER as u64)?;
        Ok(header.is_some_and(|bytes| BatchHeader::read(&bytes, sequence, seed).is_some()))
    }

    /// Whether the header of a batch with a number above `sequence` is found at `from` or later.
    pub(super) fn later_batch(&mut self, from: u64, sequence: u64) -> io::Result<bool> {
        let mut at = from;
        while at + BATCH_HEADER as u64 <= self.end {
            let length = self.step.clamp(BATCH_HEADER as u64, self.end - at);
            let Some(bytes) = self.view(at, length)? else { return Ok(false) };
            let starts = (0..=bytes.len() - BATCH_HEADER).step_by(ALIGNMENT as usize);
            let found = starts
                .filter_map(|start| BatchHeader::read(&bytes[start..], self.segment.sequence, self.segment.seed))
                .any(|header| sequence < header.sequence);
            if found {
                return Ok(true);
            }
            // The next part starts at the first place that was not tried.
            at += (length - BATCH_HEADER as u64) / ALIGNMENT * ALIGNMENT + ALIGNMENT;
        }
        Ok(false)
    }
}
