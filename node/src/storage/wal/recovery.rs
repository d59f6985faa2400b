//! Reads the log at the start, and the rules by which its files are believed.
//!
//! # The end of the log
//! The end of the log is the first batch that does not verify. That is normal if it is the very last one that was
//! written: its pages reach the disk in any order. But no batch is written before the one before it is synced, so if any
//! header of a later batch is found, what does not verify *was* synced, and this node must not start: it would forget
//! what it has promised to the others. As at most one batch is not synced, nothing but that one is ever cut off.
//!
//! The last batch that verifies may have come from the page cache: after a crash of the process, or after a failed
//! sync, it can be read and yet is not durable. So it is written and synced again before anybody is told of it.
//!
//! # Files
//! A file is made under the name `<sequence>.spare`. It gets its header, is synced, then renamed to `<sequence>.wal`, and
//! the directory is synced before the first batch is written. So wherever the power fails:
//! - A `.spare` file is no part of the log, whatever is in it. It is removed.
//! - A `.wal` file has a header that verifies and names it. If not, it was damaged.
//! - A `.wal` file without any batch of its own was not used yet. There is at most one, behind all others. It is removed.
//! - The sequences have no gap, and neither have the batches of two files. If they have, a file is missing.
//!
//! What is behind the last batch of a file may be zeros, a torn batch, or batches of the segment that the file was
//! before: an old segment is renamed to `.spare`, the directory is synced, and only then may a new header be written to
//! it. Old batches are told from new ones by two things: the header of a batch names its segment, and checksums are
//! seeded with the segment's sequence and salt. So they are neither taken for batches nor for evidence of later ones.
//!
//! # The beginning of the log
//! The first batch of a segment says of each group what is purged and which entry is next. If those between are not
//! purged by the end of the log, they must be in earlier files. Whether there must be a log at all is not for the log
//! to know: see [`WalOptions::must_exist`].

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::flusher::{Durable, Files, Used};
use super::frame::{BATCH_HEADER, Frame, Kind};
use super::group::Group;
use super::index::Place;
use super::janitor::Chores;
use super::segment::{self, SEGMENT_HEADER};
use super::walk::{Batch, Part, Walk};
use super::{WalError, WalOptions, reader};
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
    let mut walk = Walk::open(world, directory, OpenMode::Write)?;
    let mut replay = Replay::new(options.tail_bytes_max);
    while let Some(batch) = walk.next()? {
        replay.batch(&batch)?;
    }
    let walked = walk.finish();
    if walked.parts.is_empty() {
        let began = |path: &&std::path::PathBuf| path.extension().is_some_and(|extension| extension == "wal");
        let first = segment::path_of(directory, 1);
        let other = walked.others.iter().filter(began).find(|path| **path != first);
        if options.must_exist || other.is_some() {
            return Err(WalError::Missing { path: directory.to_owned() });
        }
    }
    replay.check_beginning(walked.parts.first())?;
    for path in &walked.others {
        match world.fs.remove_file(path) {
            // A node that was killed within its process may still have been at work on it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed.map_err(at(path))?,
        }
    }
    world.fs.sync_dir(directory).map_err(at(directory))?;

    let chores = Arc::new(Chores::new(world.clone(), directory.to_owned(), options.segment_bytes, options.spares_max));
    let groups = replay.settle();
    let mut sealed: VecDeque<Used> =
        walked.parts.iter().map(|part| Used::recovered(part, replay.last.remove(&part.segment.sequence))).collect();
    let (active, end) = match (sealed.pop_back(), walked.parts.last()) {
        (Some(active), Some(part)) => {
            if !millstream_streams::mutant!(TailNotRewritten) {
                rewrite_tail(part).map_err(at(&part.segment.path))?;
            }
            (active, part.end)
        }
        _ => {
            let size = options.segment_bytes.max(SEGMENT_HEADER);
            let first = chores.segment(1, size).map_err(at(directory))?;
            (Used::new(first), SEGMENT_HEADER)
        }
    };
    let mut files = Files::new(sealed, active, end, walked.next_batch, groups, chores);
    fill_tails(&replay)?;
    files.write_mark().map_err(|error| at(directory)(error.into()))?;
    files.remove_purged();
    Ok(Recovered { files, groups: replay.groups })
}

/// Makes the last batch durable, and sees to it that nothing behind it is taken for a batch.
fn rewrite_tail(part: &Part) -> io::Result<()> {
    let Part { segment, last, end } = part;
    let file = &*segment.file;
    let length = file.len()?;
    let mut batch = vec![0; (end.min(&length) - last) as usize];
    file.read_exact_at(&mut batch, *last)?;
    file.write_all_at(&batch, *last)?;
    if end + BATCH_HEADER as u64 <= segment.size {
        // The header of a torn batch, perhaps.
        file.write_all_at(&[0; BATCH_HEADER], *end)?;
    }
    file.sync()?;
    // If the file was cut.
    segment::write_zeros(file, file.len()?, segment.size)
}

/// Reads the newest entries of each group into memory.
fn fill_tails(replay: &Replay) -> Result<(), WalError> {
    for group in replay.groups.values() {
        let Some((epoch, spans)) = group.lock().missing_tail(replay.tail_bytes_max) else { continue };
        let Some(path) = spans.first().map(|span| span.place.segment.path.clone()) else { continue };
        let (entries, _) =
            reader::read(group.id, epoch, &spans, None, None).map_err(|source| WalError::Io { path, source })?;
        group.lock().fill_tail(entries, replay.tail_bytes_max);
    }
    Ok(())
}

/// The groups, as far as they have been read.
pub(super) struct Replay {
    tail_bytes_max: usize,
    pub(super) groups: BTreeMap<u32, Arc<Group>>,
    /// The committed log id that was saved last, whether or not the log holds that entry.
    saved: BTreeMap<u32, LogId>,
    /// The first segment, and by group which entry was the next when it began.
    begins: Option<(u64, BTreeMap<u32, u64>)>,
    /// By segment the greatest index of each group's entries in it.
    last: BTreeMap<u64, BTreeMap<u32, u64>>,
    /// Entries read, including those that were replaced.
    pub(super) entries: u64,
}

impl Replay {
    pub(super) fn new(tail_bytes_max: usize) -> Self {
        Self {
            tail_bytes_max,
            groups: BTreeMap::new(),
            saved: BTreeMap::new(),
            begins: None,
            last: BTreeMap::new(),
            entries: 0,
        }
    }

    /// Takes in the next batch.
    pub(super) fn batch(&mut self, batch: &Batch) -> Result<(), WalError> {
        let (path, offset) = (|| batch.segment.path.clone(), batch.offset);
        let undecodable = |source| WalError::Undecodable { path: path(), offset, source };
        let inconsistent = |error: io::Error| WalError::Inconsistent { path: path(), offset, what: error.to_string() };
        let frames = &batch.frames;
        let (begins_in, begins) = self.begins.get_or_insert((batch.segment.sequence, BTreeMap::new()));
        let is_beginning = batch.is_first && *begins_in == batch.segment.sequence;
        let last = self.last.entry(batch.segment.sequence).or_default();
        let mut place = Place { segment: Arc::clone(&batch.segment), offset: batch.offset, frame: 0 };
        while place.frame < frames.len() {
            let frame = Frame::read(frames, place.frame).map_err(undecodable)?;
            let group = self
                .groups
                .entry(frame.group)
                .or_insert_with(|| Arc::new(Group::new(frame.group, self.tail_bytes_max)));
            let mut log = group.lock();
            let end = frame.end(place.frame);
            match frame.kind {
                Kind::Append => {
                    let bytes = (end - place.frame) as u64;
                    log.recover_entry(&frame.log_id, bytes, &place).map_err(inconsistent)?;
                    let last = last.entry(frame.group).or_default();
                    *last = frame.log_id.index.max(*last);
                    self.entries += 1;
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
                Kind::Next => {
                    if is_beginning {
                        begins.insert(frame.group, frame.log_id.index);
                    }
                }
            }
            place.frame = end;
        }
        Ok(())
    }

    /// A log whose first entries are missing, though they were not purged, has lost a file.
    pub(super) fn check_beginning(&self, oldest: Option<&Part>) -> Result<(), WalError> {
        let Some(oldest) = oldest.filter(|oldest| 1 < oldest.segment.sequence) else { return Ok(()) };
        for group in self.groups.values() {
            let kept_from = group.lock().purged.map_or(0, |log_id| log_id.index + 1);
            // A group that is not named had no entry yet.
            let began = self.begins.as_ref().and_then(|(_, begins)| begins.get(&group.id)).copied().unwrap_or(0);
            if kept_from < began {
                let path = oldest.segment.path.clone();
                return Err(WalError::Corrupt { path, offset: 0, what: "the file before it is missing" });
            }
        }
        Ok(())
    }

    /// Settles what is committed, and says what is durable.
    fn settle(&self) -> BTreeMap<u32, Durable> {
        let durable = |(id, group): (&u32, &Arc<Group>)| {
            let mut log = group.lock();
            if let Some(saved) = self.saved.get(id).filter(|saved| log.holds(saved)) {
                log.committed = Some(*saved);
            }
            (*id, Durable { vote: log.vote, purged: log.purged, committed: log.committed, next: log.next })
        };
        self.groups.iter().map(durable).collect()
    }
}
