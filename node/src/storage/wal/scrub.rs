//! Reads synced batches again, to find damage before anybody needs them.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::frame::{self, BATCH_HEADER};
use super::segment::{SEGMENT_HEADER, Segment};
use super::window::Window;

/// Bytes read at once, unless a batch is larger.
const WINDOW_BYTES: u64 = 256 << 10;

/// Where a scrub of the log goes on. The default is its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct ScrubCursor {
    /// The segment.
    segment: u64,
    /// Where the next batch starts in it; 0 for the first.
    offset: u64,
}

/// What one step of a scrub has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scrubbed {
    /// Bytes of batches that were read and verified.
    pub bytes: u64,
    /// Where to go on. `None` at the end of what is synced: the next round starts with the default cursor.
    pub next: Option<ScrubCursor>,
}

/// The segments that are part of the log. It does not keep them: one that is purged is gone.
#[derive(Debug, Default)]
pub(super) struct Registry(Mutex<BTreeMap<u64, Weak<Segment>>>);

impl Registry {
    pub(super) fn add(&self, segment: &Arc<Segment>) {
        let mut segments = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        segments.retain(|_, segment| 0 < segment.strong_count());
        segments.insert(segment.sequence, Arc::downgrade(segment));
    }

    /// The first segment from `sequence` on.
    fn from(&self, sequence: u64) -> Option<Arc<Segment>> {
        let segments = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        segments.range(sequence..).find_map(|(_, segment)| segment.upgrade())
    }

    /// Verifies about `bytes_max` bytes of synced batches, at least one. Blocks on files.
    pub(super) fn scrub(&self, from: ScrubCursor, bytes_max: u64) -> io::Result<Scrubbed> {
        let mut at = from;
        let mut bytes = 0;
        while let Some(segment) = self.from(at.segment) {
            if at.segment != segment.sequence || at.offset < SEGMENT_HEADER {
                at = ScrubCursor { segment: segment.sequence, offset: SEGMENT_HEADER };
            }
            let synced = segment.synced();
            let mut window = Window::new(Arc::clone(&segment), WINDOW_BYTES, synced.min(segment.size));
            while at.offset < synced {
                if bytes_max <= bytes && 0 < bytes {
                    return Ok(Scrubbed { bytes, next: Some(at) });
                }
                let (header, _) = window.batch(at.offset)?.ok_or_else(|| damaged(&segment, at.offset))?;
                let next = frame::align(at.offset + BATCH_HEADER as u64 + u64::from(header.length));
                bytes += next - at.offset;
                at.offset = next;
            }
            at = ScrubCursor { segment: segment.sequence + 1, offset: SEGMENT_HEADER };
        }
        Ok(Scrubbed { bytes, next: None })
    }
}

fn damaged(segment: &Segment, offset: u64) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!(
            "the log file {} is damaged at byte {offset}: remove this node's data directory and let it rejoin under a \
             new node id",
            segment.path.display()
        ),
    )
}
