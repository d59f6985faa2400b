//! Where entries are in the files.
//!
//! Batches of a segment follow each other without gaps, so it is enough to know the place of one batch every 64 KiB: a
//! reader walks from there. 40 bytes of memory per 64 KiB of log.

use std::collections::VecDeque;
use std::sync::Arc;

use super::segment::Segment;

/// Bytes of a segment between two runs.
const RUN_BYTES: u64 = 64 << 10;

/// Entries from `first` on are found, in order, from this place on, until the next run begins.
#[derive(Debug)]
struct Run {
    first: u64,
    place: Place,
}

/// The index of one group.
#[derive(Debug, Default)]
pub(super) struct Index {
    runs: VecDeque<Run>,
    /// One past the last entry.
    next: u64,
    /// Whether the last run must not be continued because what follows it in the file is no longer its.
    broken: bool,
}

/// Where an entry's frame is.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) segment: Arc<Segment>,
    /// Where its batch starts in the file.
    pub(super) offset: u64,
    /// Where its frame starts among the frames of the batch.
    pub(super) frame: usize,
}

/// Entries `from..to`, to be found from `place` on.
#[derive(Debug, Clone)]
pub(super) struct Span {
    pub(super) place: Place,
    pub(super) from: u64,
    pub(super) to: u64,
}

impl Index {
    /// Entries `first..next` follow each other from `place` on.
    pub(super) fn append(&mut self, first: u64, next: u64, place: &Place) {
        let continues = !self.broken
            && first == self.next
            && self.runs.back().is_some_and(|run| {
                Arc::ptr_eq(&run.place.segment, &place.segment) && place.offset - run.place.offset < RUN_BYTES
            });
        if !continues {
            self.runs.push_back(Run { first, place: place.clone() });
            self.broken = false;
        }
        self.next = next;
    }

    /// Entries from `from` on are gone.
    pub(super) fn truncate(&mut self, from: u64) {
        while self.runs.back().is_some_and(|run| from <= run.first) {
            self.runs.pop_back();
        }
        self.next = self.next.min(from);
        self.broken = true;
    }

    /// Entries up to `last` are gone.
    pub(super) fn purge(&mut self, last: u64) {
        let first = last + 1;
        if self.next <= first {
            self.runs.clear();
            self.next = first;
            return;
        }
        while self.runs.get(1).is_some_and(|run| run.first <= first) {
            self.runs.pop_front();
        }
    }

    /// Where the entries `start..end` are.
    pub(super) fn spans(&self, start: u64, end: u64) -> Vec<Span> {
        let at = self.runs.partition_point(|run| run.first <= start).saturating_sub(1);
        let mut spans = Vec::new();
        let mut from = start;
        for (at, run) in self.runs.iter().enumerate().skip(at) {
            if end <= from {
                break;
            }
            let to = self.runs.get(at + 1).map_or(end, |next| next.first.min(end));
            spans.push(Span { place: run.place.clone(), from, to });
            from = to;
        }
        spans
    }
}
