//! Reads the durable log of a node, only what is new since the last look.
//!
//! The files of a log grow at their end, and the oldest go. Whatever else happens to them (a power loss, damage, a new
//! disk) has them read anew from the beginning.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::frames::{Batch, SEGMENT_HEADER, segment_seed};
use super::log::{Change, DurableLog};
use crate::disk::{Disk, Durable};

/// A file that has been read.
struct Segment {
    inode: u64,
    seed: u32,
    /// Where the next batch starts.
    end: usize,
}

/// Where a node's log has been read to.
pub struct Reader {
    directory: PathBuf,
    /// What was read.
    pub log: DurableLog,
    /// Files of the log, by number.
    segments: BTreeMap<u64, Segment>,
    /// Number of the next batch, once one is known.
    next_batch: Option<u64>,
    version: Option<u64>,
    upheavals: u64,
}

impl Reader {
    /// Has read nothing of the log in `directory`.
    pub fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            log: DurableLog::default(),
            segments: BTreeMap::new(),
            next_batch: None,
            version: None,
            upheavals: 0,
        }
    }

    /// Reads on, and says what is new. Fails if the log makes no sense.
    pub fn read(&mut self, disk: &Disk) -> Result<Vec<Change>, String> {
        let version = disk.durable_version();
        if self.version == Some(version) {
            return Ok(Vec::new());
        }
        let upheavals = disk.upheavals();
        let anew = self.version.is_none() || self.upheavals != upheavals;
        (self.version, self.upheavals) = (Some(version), upheavals);
        disk.durable(|platter| {
            let files = segments(platter, &self.directory);
            if anew || !self.goes_on(&files) {
                return self.read_anew(platter, &files);
            }
            // What was purged. The log has heard of it already.
            self.segments.retain(|sequence, _| files.contains_key(sequence));
            self.read_on(platter, &files)
        })
    }

    /// Whether the files are those that were read, without some of the oldest, and newer ones.
    fn goes_on(&self, files: &BTreeMap<u64, u64>) -> bool {
        let Some(newest) = self.segments.keys().last() else { return true };
        let oldest = files.keys().next();
        oldest.is_some_and(|oldest| oldest <= newest)
            && self
                .segments
                .iter()
                .skip_while(|(sequence, _)| Some(*sequence) < oldest)
                .all(|(sequence, segment)| files.get(sequence) == Some(&segment.inode))
    }

    fn read_anew(&mut self, platter: &Durable<'_>, files: &BTreeMap<u64, u64>) -> Result<Vec<Change>, String> {
        self.log = DurableLog::default();
        self.segments.clear();
        self.next_batch = None;
        self.read_on(platter, files)?;
        self.log.check_beginning()?;
        Ok(vec![Change::Reread])
    }

    fn read_on(&mut self, platter: &Durable<'_>, files: &BTreeMap<u64, u64>) -> Result<Vec<Change>, String> {
        let mut changes = Vec::new();
        // The newest file that has a batch, then those behind it.
        let active = self.segments.keys().last().copied().unwrap_or(0);
        for (sequence, inode) in files.range(active..) {
            let content = platter.file(*inode).unwrap_or_default();
            let known = self.segments.get(sequence).map(|segment| (segment.seed, segment.end));
            let Some((seed, mut end)) = known.or_else(|| Some((segment_seed(content, *sequence)?, SEGMENT_HEADER)))
            else {
                break;
            };
            let start = end;
            while let Some(batch) = Batch::at(content, end, *sequence, seed) {
                if self.next_batch.is_some_and(|next| next != batch.number) {
                    break;
                }
                self.next_batch = Some(batch.number + 1);
                end = batch.end;
                for frame in batch.frames() {
                    changes.extend(self.log.take(frame?)?);
                }
            }
            if known.is_none() && start == end {
                // It was made ready and is not used yet.
                break;
            }
            self.segments.insert(*sequence, Segment { inode: *inode, seed, end });
        }
        Ok(changes)
    }
}

/// The files of a log and their inodes, by number.
fn segments(platter: &Durable<'_>, directory: &Path) -> BTreeMap<u64, u64> {
    let numbered = platter.list(directory).filter_map(|file| {
        let digits = file.name.strip_suffix(".wal").filter(|digits| digits.len() == 16)?;
        Some((u64::from_str_radix(digits, 16).ok()?, file.inode))
    });
    numbered.collect()
}
