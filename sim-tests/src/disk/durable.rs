//! The platter, as a checker looks at it.

use std::path::Path;

use super::images::Inode;
use super::names::{ROOT, names};
use super::{Disk, State};

/// What would be found after a power loss that keeps nothing unsynced. Borrowed from the disk, so that a look costs no copy.
pub struct Durable<'d>(&'d State);

/// A name on the platter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DurableName<'d> {
    /// The last part of the path.
    pub name: &'d str,
    /// The file behind it. Numbers are never used again.
    pub inode: u64,
}

impl Disk {
    /// Counts the changes of the platter: while it is the same, so is everything [`Self::durable`] shows.
    pub fn durable_version(&self) -> u64 {
        self.lock().version
    }

    /// Counts what changes the platter otherwise than by syncs: power losses, damage, a new disk. What is appended to a
    /// file can be read from where the last look ended only while this is the same.
    pub fn upheavals(&self) -> u64 {
        let state = self.lock();
        state.counters.power_losses + state.replacements
    }

    /// How often the disk was replaced by an empty one.
    pub fn replacements(&self) -> u64 {
        self.lock().replacements
    }

    /// Which life of the node's process this is.
    pub fn life(&self) -> u64 {
        self.lock().life
    }

    /// Looks at the platter. Nothing else may use the disk meanwhile.
    pub fn durable<R>(&self, look: impl FnOnce(&Durable<'_>) -> R) -> R {
        look(&Durable(&self.lock()))
    }
}

impl Durable<'_> {
    /// The names in a directory, in order. Empty if there is no such directory.
    pub fn list(&self, path: &Path) -> impl Iterator<Item = DurableName<'_>> {
        let names = match self.find(path) {
            Some(Inode::Directory(directory)) => Some(&directory.durable),
            _ => None,
        };
        names.into_iter().flatten().map(|(name, inode)| DurableName { name, inode: *inode })
    }

    /// A file's content.
    pub fn file(&self, inode: u64) -> Option<&[u8]> {
        match self.0.inodes.get(&inode) {
            Some(Inode::File(file)) => Some(&file.durable),
            _ => None,
        }
    }

    /// The disk's version when a file's content last changed; 0 if it never did.
    pub fn file_version(&self, inode: u64) -> u64 {
        match self.0.inodes.get(&inode) {
            Some(Inode::File(file)) => file.durable_since,
            _ => 0,
        }
    }

    fn find(&self, path: &Path) -> Option<&Inode> {
        let mut found = self.0.inodes.get(&ROOT)?;
        for name in names(path).ok()? {
            let Inode::Directory(directory) = found else { return None };
            found = self.0.inodes.get(directory.durable.get(name)?)?;
        }
        Some(found)
    }
}
