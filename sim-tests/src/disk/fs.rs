//! The disk as a node sees it: [`Fs`] and [`File`].

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard};

use millstream_node::world::{File, Fs, OpenMode};

use super::damage::elsewhere;
use super::faults::{Operation, unreadable};
use super::images::{Images, Inode, Rename, SECTOR, Write};
use super::names::{ROOT, names};
use super::steps::{Step, broken, no_room};
use super::{Disk, State};
use crate::trace::fingerprint;

/// The disk as one life of the node's process sees it.
pub struct SimFs {
    pub(super) disk: Disk,
    pub(super) life: u64,
}

struct SimFile {
    disk: Disk,
    life: u64,
    inode: u64,
    writable: bool,
}

/// A lock on a file, until it is dropped or the process ends.
struct FileLock {
    disk: Disk,
    life: u64,
    path: PathBuf,
}

impl SimFs {
    fn enter(&self) -> io::Result<MutexGuard<'_, State>> {
        self.disk.enter(self.life)
    }
}

impl Fs for SimFs {
    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        Ok(self.enter()?.room())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut state = self.enter()?;
        let inode = match (state.find(path), mode) {
            (Ok(_), OpenMode::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Ok(inode), OpenMode::Read | OpenMode::Write) => inode,
            (Err(error), OpenMode::CreateNew) if error.kind() == io::ErrorKind::NotFound => {
                let (parent, name) = state.find_place(path)?;
                state.trace(format_args!("create {}", path.display()));
                state.create(parent, name, Inode::File(Images::default()))?
            }
            (Err(error), _) => return Err(error),
        };
        state.file(inode)?;
        let writable = mode != OpenMode::Read;
        *state.open.entry(inode).or_default() += 1;
        Ok(Arc::new(SimFile { disk: self.disk.clone(), life: self.life, inode, writable }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.enter()?;
        let mut inode = ROOT;
        for name in names(path)? {
            inode = match state.directory(inode)?.volatile.get(name) {
                Some(child) => *child,
                None => {
                    state.trace(format_args!("create directory {name} of {}", path.display()));
                    state.create(inode, name.to_owned(), Inode::Directory(Images::default()))?
                }
            };
        }
        state.directory(inode).map(drop)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut state = self.enter()?;
        let inode = state.find(path)?;
        Ok(state.directory(inode)?.volatile.keys().cloned().collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        match self.enter()?.find(path) {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.enter()?;
        let inode = state.find(from)?;
        let (from_parent, from_name) = state.find_place(from)?;
        let (to_parent, to_name) = state.find_place(to)?;
        let had_failed = state.faults.failed.is_some();
        state.approach(inode);
        let happens = state.step(Step::Rename);
        if !had_failed && state.faults.failed.is_some() {
            state.faults.failed_name = Some(to_name.clone());
        }
        if let Err(error) = happens {
            state.counters.renames_failed += 1;
            return Err(error);
        }
        state.trace(format_args!("rename {} to {to_name}", from.display()));
        if from_parent != to_parent {
            // Harsher than a journal: a power loss may keep the new name, the old one, both or none.
            state.directory(to_parent)?.change(Rename::Link { name: to_name, inode });
            state.directory(from_parent)?.change(Rename::Unlink { name: from_name });
        } else if from_name != to_name {
            state.directory(from_parent)?.change(Rename::Move { from: from_name, to: to_name, inode });
        }
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.enter()?;
        let inode = state.find(path)?;
        state.file(inode)?;
        let (parent, name) = state.find_place(path)?;
        state.approach(inode);
        state.step(Step::Remove)?;
        state.trace(format_args!("remove {}", path.display()));
        state.directory(parent)?.change(Rename::Unlink { name });
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.enter()?;
        let inode = state.find(path)?;
        state.directory(inode)?;
        let (parent, name) = state.find_place(path)?;
        state.trace(format_args!("remove directory {}", path.display()));
        state.remove_all(parent, name)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.enter()?;
        let inode = state.find(path)?;
        state.directory(inode)?;
        state.approach(inode);
        if let Err(error) = state.step(Step::SyncDir) {
            state.counters.directory_syncs_failed += 1;
            return Err(error);
        }
        state.version += 1;
        let version = state.version;
        state.directory(inode)?.sync(version);
        state.counters.directory_syncs += 1;
        state.trace(format_args!("sync directory {}", path.display()));
        state.forget_unreachable();
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let mut state = self.enter()?;
        match state.find(path) {
            Ok(inode) => state.file(inode).map(drop)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let (parent, name) = state.find_place(path)?;
                state.create(parent, name, Inode::File(Images::default()))?;
            }
            Err(error) => return Err(error),
        }
        if state.locks.contains_key(path) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.locks.insert(path.to_owned(), self.life);
        Ok(Box::new(FileLock { disk: self.disk.clone(), life: self.life, path: path.to_owned() }))
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // After the life that took it, the lock is gone already and may be another's.
        if let Ok(mut state) = self.disk.enter(self.life) {
            state.locks.remove(&self.path);
        }
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        // With a life all that it had open is closed.
        if let Ok(mut state) = self.disk.enter(self.life) {
            state.close(self.inode);
        }
    }
}

impl SimFile {
    fn enter(&self) -> io::Result<MutexGuard<'_, State>> {
        self.disk.enter(self.life)
    }

    fn change(&self, write: Write) -> io::Result<()> {
        let mut state = self.enter()?;
        if !self.writable {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the file is open for reading only"));
        }
        let (step, length) = match &write {
            Write::Bytes { offset, bytes } => (Step::Write, offset + bytes.len()),
            Write::Length(length) => (Step::SetLen, *length),
        };
        state.approach(self.inode);
        if let Err(error) = state.step(step) {
            state.counters.writes_failed += 1;
            return Err(error);
        }
        let grows = (length as u64).saturating_sub(state.file(self.inode)?.volatile.len() as u64);
        if state.room() < grows {
            state.counters.writes_without_room += 1;
            state.trace(format_args!("no room for #{}", self.inode));
            return Err(no_room());
        }
        state.counters.writes += 1;
        match &write {
            Write::Bytes { offset, bytes } => {
                state.counters.bytes += bytes.len() as u64;
                let (length, fingerprint) = (bytes.len(), fingerprint(bytes));
                state.trace(format_args!("write #{} at {offset} {length} {fingerprint:016x}", self.inode));
            }
            Write::Length(length) => state.trace(format_args!("length #{} {length}", self.inode)),
        }
        state.change(self.inode, write)?;
        state.written_last = Some(self.inode);
        Ok(())
    }
}

impl File for SimFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.enter()?;
        state.read(self.inode, offset, buf.len())?;
        let content = &state.file(self.inode)?.volatile;
        let bytes = usize::try_from(offset)
            .ok()
            .and_then(|start| content.get(start..start.checked_add(buf.len())?))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(bytes);
        Ok(())
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        self.change(Write::Bytes { offset, bytes: buf.to_vec() })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Write::Length(usize::try_from(len).map_err(io::Error::other)?))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.enter()?.file(self.inode)?.volatile.len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.enter()?;
        let failed_before = state.faults.failed;
        state.approach(self.inode);
        if let Err(error) = state.step(Step::Sync) {
            if state.life == self.life {
                state.counters.syncs_failed += 1;
                if state.faults.failed == failed_before {
                    state.fail_sync(self.inode)?;
                } else {
                    // By plan. The pages are clean now, and what they hold will never be written.
                    state.file(self.inode)?.unsynced.clear();
                }
            }
            return Err(error);
        }
        state.version += 1;
        let version = state.version;
        state.file(self.inode)?.sync(version);
        state.counters.syncs += 1;
        state.trace(format_args!("sync #{}", self.inode));
        Ok(())
    }
}

impl State {
    /// Counts a read: whether it may happen.
    fn read(&mut self, inode: u64, offset: u64, length: usize) -> io::Result<()> {
        if self.injected.strikes(Operation::Read) {
            self.counters.reads_failed += 1;
            self.trace(format_args!("read of #{inode} fails"));
            return Err(broken());
        }
        let first = usize::try_from(offset).map_err(io::Error::other)? / SECTOR;
        let end = (offset as usize).saturating_add(length).div_ceil(SECTOR);
        if first < end && self.injected.unreadable.range((inode, first)..(inode, end)).next().is_some() {
            self.counters.reads_failed += 1;
            self.trace(format_args!("read of #{inode} meets a lost sector"));
            return Err(unreadable());
        }
        Ok(())
    }

    /// Changes a file, or lets the write go astray.
    fn change(&mut self, inode: u64, write: Write) -> io::Result<()> {
        let misdirected = self.injected.misdirects();
        let Write::Bytes { offset, bytes } = &write else {
            self.file(inode)?.change(write);
            return Ok(());
        };
        // A sector that is written is good again.
        for sector in offset / SECTOR..(offset + bytes.len()).div_ceil(SECTOR) {
            self.injected.unreadable.remove(&(inode, sector));
        }
        let Some(seed) = misdirected else {
            self.file(inode)?.change(write);
            return Ok(());
        };
        let file = self.file(inode)?;
        let other = elsewhere(*offset, bytes.len(), file.volatile.len(), seed);
        write.apply(&mut file.volatile);
        file.unsynced.push(Write::Bytes { offset: other, bytes: bytes.clone() });
        self.counters.writes_misdirected += 1;
        self.damaged = true;
        self.trace(format_args!("write #{inode} at {offset} goes to {other}"));
        Ok(())
    }
}
