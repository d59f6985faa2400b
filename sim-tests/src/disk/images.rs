//! The two images of everything: what is read now, and what is on the platter.

use std::collections::BTreeMap;

use super::counters::Counters;
use crate::entropy::Rng;

/// The unit that a disk writes as a whole, in bytes.
pub const SECTOR: usize = 512;

pub(super) enum Inode {
    File(Images<Vec<u8>, Write>),
    Directory(Images<Names, Rename>),
}

/// The names in a directory, and the inodes behind them.
pub(super) type Names = BTreeMap<String, u64>;

/// What is read, what is on the platter, and the changes between the two in order.
pub(super) struct Images<T, C> {
    pub(super) volatile: T,
    pub(super) durable: T,
    pub(super) unsynced: Vec<C>,
    /// The disk's version when what is on the platter last changed.
    pub(super) durable_since: u64,
}

#[derive(Clone)]
pub(super) enum Write {
    Bytes { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Clone)]
pub(super) enum Rename {
    Link { name: String, inode: u64 },
    Unlink { name: String },
    Move { from: String, to: String, inode: u64 },
}

impl Write {
    pub(super) fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Write::Bytes { offset, bytes } => {
                let end = offset + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*offset..end].copy_from_slice(bytes);
            }
            Write::Length(length) => content.resize(*length, 0),
        }
    }

    /// Applies what the end of the power leaves of this write, which was not synced.
    pub(super) fn survive(&self, content: &mut Vec<u8>, rng: &mut Rng, counters: &mut Counters) {
        match (rng.below(3), self) {
            (0, _) => counters.writes_lost += 1,
            (1, Write::Bytes { offset, bytes }) => {
                counters.writes_torn += 1;
                // The new length reached the disk. A sector that did not keeps its old bytes, or zeros if it is new.
                let end = offset + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                let mut at = *offset;
                while at < end {
                    let sector_end = end.min((at / SECTOR + 1) * SECTOR);
                    if rng.one_in(2) {
                        content[at..sector_end].copy_from_slice(&bytes[at - offset..sector_end - offset]);
                    }
                    at = sector_end;
                }
            }
            _ => {
                counters.writes_kept += 1;
                self.apply(content);
            }
        }
    }
}

impl Rename {
    /// The inode that gets a name.
    pub(super) fn inode(&self) -> Option<u64> {
        match self {
            Rename::Link { inode, .. } | Rename::Move { inode, .. } => Some(*inode),
            Rename::Unlink { .. } => None,
        }
    }

    pub(super) fn apply(&self, names: &mut Names) {
        match self {
            Rename::Link { name, inode } => {
                names.insert(name.clone(), *inode);
            }
            Rename::Unlink { name } => {
                names.remove(name);
            }
            Rename::Move { from, to, inode } => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
        }
    }

    /// Applies what the end of the power leaves of this change, which was not synced.
    pub(super) fn survive(&self, names: &mut Names, rng: &mut Rng, counters: &mut Counters) {
        if rng.one_in(2) {
            self.apply(names);
            counters.names_kept += 1;
        } else {
            counters.names_lost += 1;
        }
    }
}

impl Images<Vec<u8>, Write> {
    pub(super) fn change(&mut self, write: Write) {
        write.apply(&mut self.volatile);
        self.unsynced.push(write);
    }

    /// Brings everything to the platter, at this version of the disk.
    pub(super) fn sync(&mut self, version: u64) {
        for write in self.unsynced.drain(..) {
            write.apply(&mut self.durable);
            self.durable_since = version;
        }
    }

    /// What the end of the power leaves. The writes are taken one by one, so any subset of them may survive; that is
    /// also any order, because of two writes to one place the earlier wins exactly if the later is lost.
    pub(super) fn lose_power(&mut self, version: u64, rng: &mut Rng, counters: &mut Counters) {
        for write in std::mem::take(&mut self.unsynced) {
            write.survive(&mut self.durable, rng, counters);
            self.durable_since = version;
        }
        self.volatile.clone_from(&self.durable);
    }
}

impl Images<Names, Rename> {
    pub(super) fn change(&mut self, rename: Rename) {
        rename.apply(&mut self.volatile);
        self.unsynced.push(rename);
    }

    /// Brings everything to the platter, at this version of the disk.
    pub(super) fn sync(&mut self, version: u64) {
        for rename in self.unsynced.drain(..) {
            rename.apply(&mut self.durable);
            self.durable_since = version;
        }
    }

    /// What the end of the power leaves.
    pub(super) fn lose_power(&mut self, version: u64, rng: &mut Rng, counters: &mut Counters) {
        for rename in std::mem::take(&mut self.unsynced) {
            rename.survive(&mut self.durable, rng, counters);
            self.durable_since = version;
        }
        self.volatile.clone_from(&self.durable);
    }
}

impl<T: Default, C> Default for Images<T, C> {
    fn default() -> Self {
        Self { volatile: T::default(), durable: T::default(), unsynced: Vec::new(), durable_since: 0 }
    }
}
