//! Reads entries from segment files.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::frame::{self, BATCH_HEADER, Frame, Kind};
use super::index::Span;
use super::window::Window;
use crate::types::LogEntry;

/// Bytes read at once, unless a batch is larger.
const WINDOW_BYTES: u64 = 128 << 10;

/// Remembers where a reader stopped, so that reading on in order verifies each batch once.
#[derive(Debug, Clone)]
pub(super) struct Cursor {
    /// The entry at this position.
    next: u64,
    /// Where its run starts; the cursor serves no other.
    run: (u64, u64, usize),
    /// Changes when entries may have been replaced.
    epoch: u64,
    window: Window,
    /// The verified frames of the batch at hand.
    frames: Bytes,
    /// Where the next frame starts among them.
    frame: usize,
    /// Where the batch after it starts in the file.
    next_batch: u64,
}

impl Cursor {
    /// A cursor at the start of a span's run.
    fn open(span: &Span, epoch: u64) -> io::Result<Self> {
        let segment = Arc::clone(&span.place.segment);
        let end = segment.size;
        let mut cursor = Self {
            next: 0,
            run: run_of(span),
            epoch,
            window: Window::new(segment, WINDOW_BYTES, end),
            frames: Bytes::new(),
            frame: 0,
            next_batch: span.place.offset,
        };
        cursor.read_batch()?;
        cursor.frame = span.place.frame;
        Ok(cursor)
    }

    /// Makes the next batch the one at hand.
    fn read_batch(&mut self) -> io::Result<()> {
        let had_window = !self.window.is_empty();
        match self.try_read_batch() {
            // The window may be from before this batch was written.
            Err(_) if had_window => {
                self.window.clear();
                self.try_read_batch()
            }
            result => result,
        }
    }

    fn try_read_batch(&mut self) -> io::Result<()> {
        let at = self.next_batch;
        let (header, frames) =
            self.window.batch(at)?.ok_or_else(|| self.damaged(at, "a batch does not match its checksum"))?;
        self.next_batch = frame::align(at + BATCH_HEADER as u64 + u64::from(header.length));
        self.frames = frames;
        self.frame = 0;
        Ok(())
    }

    fn damaged(&self, at: u64, what: &str) -> io::Error {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "the log file {} is damaged at byte {at} ({what}): remove this node's data directory and let it rejoin \
                 under a new node id",
                self.window.segment().path.display()
            ),
        )
    }

    /// Goes to the next entry of `group` and returns its length in bytes.
    fn seek(&mut self, group: u32) -> io::Result<usize> {
        loop {
            while self.frames.len() <= self.frame {
                self.read_batch()?;
            }
            let head = Frame::read(&self.frames, self.frame)?;
            let end = head.end(self.frame);
            if head.kind == Kind::Append && head.group == group && self.next <= head.log_id.index {
                return Ok(end - self.frame);
            }
            self.frame = end;
        }
    }

    /// Takes the entry it has gone to.
    fn take(&mut self) -> io::Result<LogEntry> {
        let head = Frame::read(&self.frames, self.frame)?;
        let entry = head.entry(&self.frames, self.frame)?;
        if entry.log_id.index != self.next {
            return Err(self.damaged(self.next_batch, "an entry is not where it was written"));
        }
        self.frame = head.end(self.frame);
        self.next += 1;
        Ok(entry)
    }
}

fn run_of(span: &Span) -> (u64, u64, usize) {
    (span.place.segment.sequence, span.place.offset, span.place.frame)
}

/// Reads the entries of these spans, or at most `bytes_max` bytes of the first ones, or the first one.
pub(super) fn read(
    group: u32,
    epoch: u64,
    spans: &[Span],
    bytes_max: Option<usize>,
    cursor: Option<Cursor>,
) -> io::Result<(Vec<LogEntry>, Option<Cursor>)> {
    let mut cursor = cursor;
    let mut entries = Vec::new();
    let mut bytes = 0;
    for span in spans {
        let fits = cursor
            .as_ref()
            .is_some_and(|cursor| cursor.epoch == epoch && cursor.run == run_of(span) && cursor.next == span.from);
        let mut here = match cursor.take().filter(|_| fits) {
            Some(cursor) => cursor,
            None => Cursor::open(span, epoch)?,
        };
        here.next = span.from;
        while here.next < span.to {
            bytes += here.seek(group)?;
            if bytes_max.is_some_and(|max| max < bytes) && !entries.is_empty() {
                return Ok((entries, Some(here)));
            }
            entries.push(here.take()?);
        }
        cursor = Some(here);
    }
    Ok((entries, cursor))
}
