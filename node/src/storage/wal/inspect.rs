//! Looks at a log that nobody has open, without changing it: `verify` and `dump`.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

use super::WalError;
use super::frame::{BATCH_HEADER, Frame, Kind};
use super::recovery::Replay;
use super::walk::{Batch, Walk};
use crate::types::{LogEntry, LogId, Vote};
use crate::world::{OpenMode, World};

/// How far [`verify`] has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of batches verified so far.
    pub bytes: u64,
    /// The segment that is being read.
    pub segment: u64,
    /// Segments after it.
    pub segments_left: usize,
}

/// A log that was read as a whole and makes sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Segments with at least one batch.
    pub segments: u64,
    /// Batches in them.
    pub batches: u64,
    /// Bytes of those batches.
    pub bytes: u64,
    /// Log entries in them, also those that were purged or replaced later.
    pub entries: u64,
    /// Where the log ends: the file, and the byte behind its last batch. `None` if nothing was ever written. A batch
    /// that was torn there by a crash was never confirmed to anybody, and is cut off at the next start.
    pub end: Option<(PathBuf, u64)>,
    /// What is in the log, by group.
    pub groups: BTreeMap<u32, GroupSummary>,
}

/// What a group's log holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSummary {
    /// The vote.
    pub vote: Option<Vote>,
    /// The last purged entry.
    pub purged: Option<LogId>,
    /// The last entry, or the last purged one if there is none.
    pub last: Option<LogId>,
    /// Index of the first entry, or of the next one if there is none.
    pub first: u64,
    /// What was noted as committed, if the log holds it.
    pub committed: Option<LogId>,
}

/// Reads all segments of the log in the directory `path` and checks every checksum, the order of batches and entries,
/// and that every frame can be decoded. By the rules of recovery: what this refuses does not start either. Writes
/// nothing. Calls `progress` after each batch. Blocks on files.
pub fn verify(world: &World, path: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Verified, WalError> {
    let mut walk = Walk::open(world, path, OpenMode::Read)?;
    let mut replay = Replay::new(0);
    let (mut batches, mut bytes) = (0, 0);
    while let Some(batch) = walk.next()? {
        replay.batch(&batch)?;
        frames_of(&batch)?;
        batches += 1;
        bytes += (BATCH_HEADER + batch.frames.len()) as u64;
        progress(Progress { bytes, segment: batch.segment.sequence, segments_left: walk.ahead() });
    }
    let walked = walk.finish();
    replay.check_beginning(walked.parts.first())?;
    let groups = replay.groups.iter().map(|(id, group)| {
        let log = group.lock();
        let (vote, purged, committed) = (log.vote, log.purged, log.committed);
        (*id, GroupSummary { vote, purged, last: log.last_log_id(), first: log.first, committed })
    });
    Ok(Verified {
        segments: walked.parts.len() as u64,
        batches,
        bytes,
        entries: replay.entries,
        end: walked.parts.last().map(|part| (part.segment.path.clone(), part.end)),
        groups: groups.collect(),
    })
}

/// One frame of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct DumpedFrame {
    /// Its segment.
    pub segment: u64,
    /// The number of its batch.
    pub batch: u64,
    /// Where the batch starts in the file.
    pub batch_offset: u64,
    /// Where the frame starts in the file.
    pub offset: u64,
    /// The group it belongs to.
    pub group: u32,
    /// What it says.
    pub content: Content,
}

/// What a frame says.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// An entry is appended.
    Append(LogEntry),
    /// A vote is saved.
    Vote(Vote),
    /// Entries after this one are gone; all, if it is absent.
    Truncate(Option<LogId>),
    /// Entries up to this one are gone.
    Purge(LogId),
    /// Entries up to this one are committed.
    Committed(Option<LogId>),
    /// At the start of a segment: index of the group's next entry.
    Next(u64),
}

/// The frames of a log, in order. Ends after the first error.
pub struct Dump<'w> {
    walk: Option<Walk<'w>>,
    ready: VecDeque<DumpedFrame>,
}

/// Reads the log in the directory `path` frame by frame, without changing it. Blocks on files.
pub fn dump<'w>(world: &'w World, path: &Path) -> Result<Dump<'w>, WalError> {
    Ok(Dump { walk: Some(Walk::open(world, path, OpenMode::Read)?), ready: VecDeque::new() })
}

impl Iterator for Dump<'_> {
    type Item = Result<DumpedFrame, WalError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Some(Ok(frame));
            }
            let read = self.walk.as_mut()?.next().transpose()?;
            match read.and_then(|batch| frames_of(&batch)) {
                Ok(frames) => self.ready = frames,
                Err(error) => {
                    self.walk = None;
                    return Some(Err(error));
                }
            }
        }
    }
}

/// The frames of a batch, decoded.
fn frames_of(batch: &Batch) -> Result<VecDeque<DumpedFrame>, WalError> {
    let undecodable = |source| WalError::Undecodable { path: batch.segment.path.clone(), offset: batch.offset, source };
    let mut frames = VecDeque::new();
    let mut at = 0;
    while at < batch.frames.len() {
        let frame = Frame::read(&batch.frames, at).map_err(undecodable)?;
        let content = match frame.kind {
            Kind::Append => frame.entry(&batch.frames, at).map(Content::Append),
            Kind::Vote => Ok(Content::Vote(frame.vote())),
            Kind::Truncate => Ok(Content::Truncate(frame.optional_log_id())),
            Kind::Purge => Ok(Content::Purge(frame.log_id)),
            Kind::Committed => Ok(Content::Committed(frame.optional_log_id())),
            Kind::Next => Ok(Content::Next(frame.log_id.index)),
        };
        frames.push_back(DumpedFrame {
            segment: batch.segment.sequence,
            batch: batch.sequence,
            batch_offset: batch.offset,
            offset: batch.offset + (BATCH_HEADER + at) as u64,
            group: frame.group,
            content: content.map_err(undecodable)?,
        });
        at = frame.end(at);
    }
    Ok(frames)
}
