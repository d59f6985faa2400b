//! Reads the log files at the start.
//!
//! The end of the log is the first batch that does not verify. That is normal if it is the very last one that was
//! written: its pages reach the disk in any order. But no batch is written before the one before it is synced, so if any
//! header of a later batch is found, what does not verify *was* synced, and this node must not start: it would forget
//! what it has promised to the others.
//!
//! The last batch that verifies may have come from the page cache: after a crash of the process, or after a failed
//! sync, it can be read and yet is not durable. So it is written and synced again before anybody is told of it.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::flusher::{Durable, Files, Used};
use super::frame::{self, ALIGNMENT, BATCH_HEADER, BatchHeader, Frame, Kind};
use super::group::Group;
use super::index::Place;
use super::janitor::Chores;
use super::segment::{self, SEGMENT_HEADER, Segment, SegmentHeader};
use super::{WalError, WalOptions};
use crate::types::LogId;
use crate::world::{OpenMode, World};

/// The log, as it is in the files.
pub(super) struct Recovered {
    pub(super) files: Files,
    pub(super) groups: BTreeMap<u32, Arc<Group>>,
}

/// Reads the log in `directory`, or starts one.
pub(super) fn recover(world: &World, directory: &Path, options: &WalOptions) -> Result<Recovered, WalError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| WalError::Io { path, source }
    };
    world.fs.create_dir_all(directory).map_err(at(directory))?;
    if let Some(parent) = directory.parent() {
        world.fs.sync_dir(parent).map_err(at(parent))?;
    }
    let names = world.fs.list(directory).map_err(at(directory))?;
    let sequences: Vec<u64> = names.iter().filter_map(|name| segment::sequence_of(name)).collect();

    let mut replay = Replay { options, groups: BTreeMap::new(), saved: BTreeMap::new() };
    let mut read: VecDeque<Read> = VecDeque::new();
    let mut empty = Vec::new();
    let mut expected = None;
    for sequence in &sequences {
        let path = segment::path_of(directory, *sequence);
        match read_segment(world, &path, *sequence, expected, &mut replay)? {
            Some(segment) => {
                let missing = read.back().is_some_and(|before| before.used.segment.sequence + 1 != *sequence);
                if missing || !empty.is_empty() {
                    return Err(WalError::Corrupt { path, offset: 0, what: "the file before it is missing or empty" });
                }
                expected = Some(segment.next_batch);
                if let Some(before) = read.back_mut() {
                    before.content = Vec::new();
                }
                read.push_back(segment);
            }
            None => empty.push(path),
        }
    }
    // Segments that were made ready, and never used.
    for path in empty {
        world.fs.remove_file(&path).map_err(at(&path))?;
    }

    let chores = Arc::new(Chores::new(world.clone(), directory.to_owned(), options.segment_bytes));
    let mut files = match read.pop_back() {
        Some(mut last) => {
            rewrite_tail(&mut last).map_err(at(&last.used.segment.path))?;
            world.fs.sync_dir(directory).map_err(at(directory))?;
            Files {
                sealed: read.into_iter().map(|read| read.used).collect(),
                end: last.end,
                next_batch: last.next_batch,
                active: last.used,
                groups: BTreeMap::new(),
                chores,
            }
        }
        None => {
            let first = chores.segment(1, options.segment_bytes.max(SEGMENT_HEADER)).map_err(at(directory))?;
            Files {
                sealed: VecDeque::new(),
                active: Used::new(first),
                end: SEGMENT_HEADER,
                next_batch: 1,
                groups: BTreeMap::new(),
                chores,
            }
        }
    };
    replay.check_first_entries(&files)?;
    files.groups = replay.durable();
    files.write_mark().map_err(at(&files.active.segment.path))?;
    files.remove_purged();
    Ok(Recovered { files, groups: replay.groups })
}

/// A segment that has been read.
struct Read {
    used: Used,
    /// The whole file. Dropped for all but the last one.
    content: Vec<u8>,
    /// Where the last batch starts.
    last: u64,
    /// Where the next batch starts.
    end: u64,
    next_batch: u64,
}

/// Reads one segment. `None` if it was never used. `expected` is the number of the batch it must start with.
fn read_segment(
    world: &World,
    path: &Path,
    sequence: u64,
    expected: Option<u64>,
    replay: &mut Replay<'_>,
) -> Result<Option<Read>, WalError> {
    let io = |source| WalError::Io { path: path.to_owned(), source };
    let corrupt = |offset, what| WalError::Corrupt { path: path.to_owned(), offset, what };
    let file = world.fs.open(path, OpenMode::Write).map_err(io)?;
    let length = file.len().map_err(io)?;
    let mut content = vec![0; usize::try_from(length).map_err(|_| corrupt(0, "it is too long to be read"))?];
    file.read_exact_at(&mut content, 0).map_err(io)?;

    let Some(header) = SegmentHeader::read(&content).filter(|header| header.sequence == sequence) else {
        // The header is durable before the first batch is written, so a segment without one holds nothing else.
        let unused = content.iter().skip(SEGMENT_HEADER as usize).all(|byte| *byte == 0);
        return if unused { Ok(None) } else { Err(corrupt(0, "its header does not verify")) };
    };
    let segment = Arc::new(Segment { sequence, seed: header.seed(), size: header.size, path: path.to_owned(), file });
    let mut read = Read {
        used: Used { segment, last: BTreeMap::new() },
        content: Vec::new(),
        last: SEGMENT_HEADER,
        end: SEGMENT_HEADER,
        next_batch: expected.unwrap_or(0),
    };
    let mut batches: u64 = 0;
    while let Some((header, frames)) = batch_at(&content, read.end, &read.used.segment) {
        // The first batch of the oldest file may have any number.
        let in_order = header.sequence == read.next_batch || (batches == 0 && expected.is_none());
        if !in_order {
            return Err(corrupt(read.end, "the batch before it is missing"));
        }
        replay.batch(frames, read.end, &mut read.used).map_err(|source| WalError::Undecodable {
            path: path.to_owned(),
            offset: read.end,
            source,
        })?;
        batches += 1;
        read.last = read.end;
        read.end = frame::align(read.end + BATCH_HEADER as u64 + u64::from(header.length));
        read.next_batch = header.sequence + 1;
    }
    if later_batch(&content, read.end, &read.used.segment, read.next_batch) {
        return Err(corrupt(read.end, "a batch does not verify, but a later one was written"));
    }
    read.content = content;
    Ok((0 < batches).then_some(read))
}

/// The batch at `offset`, if it verifies.
fn batch_at<'c>(content: &'c [u8], offset: u64, segment: &Segment) -> Option<(BatchHeader, &'c [u8])> {
    let bytes = content.get(usize::try_from(offset).ok()?..)?;
    let header = BatchHeader::read(bytes, segment.sequence, segment.seed)?;
    let frames = bytes.get(BATCH_HEADER..BATCH_HEADER + header.length as usize)?;
    header.verifies(frames, segment.seed).then_some((header, frames))
}

/// Whether a batch was begun after the one that should be at `offset`.
fn later_batch(content: &[u8], offset: u64, segment: &Segment, expected: u64) -> bool {
    let from = (offset + ALIGNMENT) as usize;
    let starts = (from..content.len().saturating_sub(BATCH_HEADER - 1)).step_by(ALIGNMENT as usize);
    starts
        .filter_map(|start| BatchHeader::read(&content[start..], segment.sequence, segment.seed))
        .any(|header| expected < header.sequence)
}

/// Makes the last batch durable and clears what follows it.
fn rewrite_tail(read: &mut Read) -> io::Result<()> {
    let Read { used, content, last, end, .. } = read;
    let file = &*used.segment.file;
    let (last, end) = (*last as usize, (*end as usize).min(content.len()));
    file.write_all_at(&content[last..end], last as u64)?;
    let garbage = content[end..].iter().rposition(|byte| *byte != 0).map_or(end, |at| end + at + 1);
    segment::write_zeros(file, end as u64, garbage as u64)?;
    segment::write_zeros(file, content.len() as u64, used.segment.size)?;
    file.sync()?;
    // Up to 64 MiB that nobody needs any more.
    *content = Vec::new();
    Ok(())
}

/// The groups, as far as they have been read.
struct Replay<'o> {
    options: &'o WalOptions,
    groups: BTreeMap<u32, Arc<Group>>,
    /// The committed log id that was saved last, whether or not the log holds that entry.
    saved: BTreeMap<u32, LogId>,
}

impl Replay<'_> {
    fn batch(&mut self, frames: &[u8], offset: u64, used: &mut Used) -> io::Result<()> {
        let mut place = Place { segment: Arc::clone(&used.segment), offset, frame: 0 };
        while place.frame < frames.len() {
            let frame = Frame::read(frames, place.frame)?;
            let group = self
                .groups
                .entry(frame.group)
                .or_insert_with(|| Arc::new(Group::new(frame.group, self.options.tail_bytes_max)));
            let mut log = group.lock();
            let end = frame.end(place.frame);
            match frame.kind {
                Kind::Append => {
                    log.recover_entry(&frame.log_id, (end - place.frame) as u64, &place)?;
                    let last = used.last.entry(frame.group).or_default();
                    *last = frame.log_id.index.max(*last);
                }
                Kind::Vote => log.vote = Some(frame.vote()),
                Kind::Truncate => log.recover_truncation(frame.optional_log_id()),
                Kind::Purge => log.recover_purge(frame.log_id),
                Kind::Committed => match frame.optional_log_id() {
                    Some(log_id) => {
                        // It may name an entry that did not make it to the disk; then the one before counts.
                        if log.holds(&log_id) {
                            log.committed = Some(log_id);
                        }
                        self.saved.insert(frame.group, log_id);
                    }
                    None => {
                        log.committed = None;
                        self.saved.remove(&frame.group);
                    }
                },
            }
            place.frame = end;
        }
        Ok(())
    }

    /// A log whose first entries are missing, though they were not purged, has lost a file.
    fn check_first_entries(&self, files: &Files) -> Result<(), WalError> {
        let oldest = files.sealed.front().unwrap_or(&files.active);
        for group in self.groups.values() {
            let log = group.lock();
            let expected = log.purged.map_or(0, |log_id| log_id.index + 1);
            if 1 < oldest.segment.sequence && !log.is_empty() && expected < log.first {
                let path = oldest.segment.path.clone();
                return Err(WalError::Corrupt { path, offset: 0, what: "the file before it is missing" });
            }
        }
        Ok(())
    }

    /// Settles what is committed, and says what is durable.
    fn durable(&self) -> BTreeMap<u32, Durable> {
        let durable = |(id, group): (&u32, &Arc<Group>)| {
            let mut log = group.lock();
            if let Some(saved) = self.saved.get(id).filter(|saved| log.holds(saved)) {
                log.committed = Some(*saved);
            }
            (*id, Durable { vote: log.vote, purged: log.purged, committed: log.committed })
        };
        self.groups.iter().map(durable).collect()
    }
}
