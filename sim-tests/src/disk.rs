//! A simulated disk that keeps its promises to the letter, and nothing beyond them.
//!
//! Every file has two images: what a read returns now, and what is on the platter. A write changes the first; only
//! [`File::sync`] brings it to the second. The same holds for the names in a directory and [`Fs::sync_dir`]: a file that
//! was synced, but whose name was not, is gone after a power loss.
//!
//! - **The process dies** ([`Disk::kill_process`]): what was written stays readable, but is still not durable. A program
//!   that reads it after a restart and relies on it is wrong.
//! - **The power fails** ([`Disk::power_loss`]): each write since the last sync is lost, kept, or torn at sectors of 512
//!   bytes; each unsynced change of a name is lost or kept. The seed decides.
//!
//! The driver owns the disk; a node gets a [`SimFs`] for one life of its process. After that life every call of the old
//! handle fails, so destructors that run late, where a real process would have none, change nothing.
//!
//! - **The disk fails**: at a numbered step ([`Disk::plan`]) the life ends, or an operation fails; or there is no room.
//!
//! What is absent: slow syncs, damage of what was synced.

mod faults;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millstream_node::world::{File, Fs, OpenMode};

pub use self::faults::{Faults, Step};
use self::faults::{Progress, Verdict, broken, no_room};
use crate::entropy::Rng;
use crate::trace::{Trace, fingerprint};

/// The unit that a disk writes as a whole, in bytes.
pub const SECTOR: usize = 512;

/// What a disk has been through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Writes and changes of length.
    pub writes: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Syncs of files.
    pub syncs: u64,
    /// Syncs of directories.
    pub directory_syncs: u64,
    /// Power losses.
    pub power_losses: u64,
    /// Unsynced writes that a power loss undid.
    pub writes_lost: u64,
    /// Unsynced writes that survived a power loss.
    pub writes_kept: u64,
    /// Unsynced writes of which some sectors survived a power loss.
    pub writes_torn: u64,
    /// Unsynced changes of names that a power loss undid.
    pub names_lost: u64,
    /// Unsynced changes of names that survived a power loss.
    pub names_kept: u64,
}

/// A node's disk, as the driver holds it. Cheap to clone.
#[derive(Clone)]
pub struct Disk(Arc<Mutex<State>>);

/// The disk as one life of the node's process sees it.
pub struct SimFs {
    disk: Disk,
    life: u64,
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

struct State {
    node: String,
    rng: Rng,
    trace: Option<Trace>,
    life: u64,
    inodes: BTreeMap<u64, Inode>,
    inode_next: u64,
    locks: BTreeMap<PathBuf, u64>,
    written_last: Option<u64>,
    counters: Counters,
    faults: Progress,
}

enum Inode {
    File(Images<Vec<u8>, Write>),
    Directory(Images<Names, Rename>),
}

type Names = BTreeMap<String, u64>;

/// What is read, what is on the platter, and the changes between the two in order.
struct Images<T, C> {
    volatile: T,
    durable: T,
    unsynced: Vec<C>,
}

#[derive(Clone)]
enum Write {
    Bytes { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Clone)]
enum Rename {
    Link { name: String, inode: u64 },
    Unlink { name: String },
    Move { from: String, to: String, inode: u64 },
}

impl Write {
    fn apply(&self, content: &mut Vec<u8>) {
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
}

impl Rename {
    fn apply(&self, names: &mut Names) {
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
}

impl Images<Vec<u8>, Write> {
    fn change(&mut self, write: Write) {
        write.apply(&mut self.volatile);
        self.unsynced.push(write);
    }

    fn sync(&mut self) {
        for write in self.unsynced.drain(..) {
            write.apply(&mut self.durable);
        }
    }
}

impl Images<Names, Rename> {
    fn change(&mut self, rename: Rename) {
        rename.apply(&mut self.volatile);
        self.unsynced.push(rename);
    }

    fn sync(&mut self) {
        for rename in self.unsynced.drain(..) {
            rename.apply(&mut self.durable);
        }
    }
}

impl<T: Default, C> Default for Images<T, C> {
    fn default() -> Self {
        Self { volatile: T::default(), durable: T::default(), unsynced: Vec::new() }
    }
}

/// The inode of `/`.
const ROOT: u64 = 0;

impl Disk {
    /// An empty disk of `node`. `rng` decides what survives a power loss.
    pub fn new(node: &str, rng: Rng, trace: Option<Trace>) -> Self {
        Self(Arc::new(Mutex::new(State {
            node: node.to_owned(),
            rng,
            trace,
            life: 0,
            inodes: BTreeMap::from([(ROOT, Inode::Directory(Images::default()))]),
            inode_next: ROOT + 1,
            locks: BTreeMap::new(),
            written_last: None,
            counters: Counters::default(),
            faults: Progress::default(),
        })))
    }

    /// Sets the faults to come, and counts steps from 1 again.
    pub fn plan(&self, faults: Faults) {
        self.lock().faults = Progress { plan: faults, ..Progress::default() };
    }

    /// Steps begun since the last [`plan`](Self::plan).
    pub fn steps(&self) -> u64 {
        self.lock().faults.steps
    }

    /// Whether the crash that was planned has come.
    pub fn has_crashed(&self) -> bool {
        self.lock().faults.crashed
    }

    /// What failed by plan, if anything has.
    pub fn failed(&self) -> Option<Step> {
        self.lock().faults.failed
    }

    /// The new name that a rename was to give, if it is what failed by plan.
    pub fn failed_name(&self) -> Option<String> {
        self.lock().faults.failed_name.clone()
    }

    /// The disk for the present life of the node's process.
    pub fn mount(&self) -> SimFs {
        SimFs { disk: self.clone(), life: self.lock().life }
    }

    /// Ends the present life: locks are released, old handles fail, unsynced data stays readable and unsynced.
    pub fn kill_process(&self) {
        let mut state = self.lock();
        state.life += 1;
        state.locks.clear();
    }

    /// Ends the present life and takes the power away: of what was not synced, the seed decides what is left.
    pub fn power_loss(&self) {
        self.kill_process();
        self.lock().lose_unsynced();
    }

    /// Whether a write is under way: the file written last has not been synced since.
    pub fn is_writing(&self) -> bool {
        let state = self.lock();
        let file = state.written_last.and_then(|inode| state.inodes.get(&inode));
        matches!(file, Some(Inode::File(file)) if !file.unsynced.is_empty())
    }

    /// What the disk has been through.
    pub fn counters(&self) -> Counters {
        self.lock().counters
    }

    /// What would be found after a power loss that keeps nothing unsynced: path and content, in order.
    pub fn durable_files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let state = self.lock();
        let mut files = Vec::new();
        state.collect_durable(ROOT, Path::new("/"), &mut files);
        files
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere fails the simulation anyway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, if `life` is still the present one.
    fn enter(&self, life: u64) -> io::Result<MutexGuard<'_, State>> {
        let state = self.lock();
        if state.life != life {
            return Err(io::Error::other("the process that opened this has ended"));
        }
        Ok(state)
    }
}

impl State {
    fn lose_unsynced(&mut self) {
        let Self { node, rng, trace, inodes, counters, .. } = self;
        counters.power_losses += 1;
        let before = *counters;
        for inode in inodes.values_mut() {
            match inode {
                Inode::File(file) => {
                    for write in std::mem::take(&mut file.unsynced) {
                        survive(&write, &mut file.durable, rng, counters);
                    }
                    file.volatile = file.durable.clone();
                }
                Inode::Directory(directory) => {
                    for rename in std::mem::take(&mut directory.unsynced) {
                        if rng.one_in(2) {
                            rename.apply(&mut directory.durable);
                            counters.names_kept += 1;
                        } else {
                            counters.names_lost += 1;
                        }
                    }
                    directory.volatile = directory.durable.clone();
                }
            }
        }
        if let Some(trace) = trace {
            trace.line(
                "disk",
                format_args!(
                    "{node} power loss: writes lost {} kept {} torn {}, names lost {} kept {}",
                    counters.writes_lost - before.writes_lost,
                    counters.writes_kept - before.writes_kept,
                    counters.writes_torn - before.writes_torn,
                    counters.names_lost - before.names_lost,
                    counters.names_kept - before.names_kept,
                ),
            );
        }
        self.forget_unreachable();
    }

    /// Drops inodes that no name leads to any more. Only while no process has a file open.
    fn forget_unreachable(&mut self) {
        let mut reached = std::collections::BTreeSet::new();
        let mut todo = vec![ROOT];
        while let Some(inode) = todo.pop() {
            if reached.insert(inode)
                && let Some(Inode::Directory(directory)) = self.inodes.get(&inode)
            {
                todo.extend(directory.volatile.values().chain(directory.durable.values()));
            }
        }
        self.inodes.retain(|inode, _| reached.contains(inode));
    }

    fn collect_durable(&self, inode: u64, path: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
        match &self.inodes[&inode] {
            Inode::File(file) => files.push((path.to_owned(), file.durable.clone())),
            Inode::Directory(directory) => {
                for (name, inode) in &directory.durable {
                    self.collect_durable(*inode, &path.join(name), files);
                }
            }
        }
    }

    /// Begins a step of the present life: whether it may happen.
    fn step(&mut self, step: Step) -> io::Result<()> {
        match self.faults.next(step) {
            Verdict::Happens => Ok(()),
            Verdict::Fails => Err(broken()),
            Verdict::Crash => {
                self.life += 1;
                self.locks.clear();
                Err(io::Error::other("the process that opened this has ended"))
            }
        }
    }

    /// Bytes that may still be written.
    fn room(&self) -> u64 {
        let Some(quota) = self.faults.plan.quota else { return u64::MAX };
        let files = self.inodes.values().map(|inode| match inode {
            Inode::File(file) => file.volatile.len() as u64,
            Inode::Directory(_) => 0,
        });
        quota.saturating_sub(files.sum())
    }

    fn trace(&self, event: fmt::Arguments<'_>) {
        if let Some(trace) = &self.trace {
            trace.line("disk", format_args!("{} {event}", self.node));
        }
    }

    /// The inode at `path`.
    fn find(&self, path: &Path) -> io::Result<u64> {
        let mut inode = ROOT;
        for name in names(path)? {
            let Inode::Directory(directory) = &self.inodes[&inode] else {
                return Err(io::ErrorKind::NotADirectory.into());
            };
            inode = *directory.volatile.get(name).ok_or_else(|| not_found(path))?;
        }
        Ok(inode)
    }

    /// The directory that holds `path`, and its name there.
    fn find_place(&self, path: &Path) -> io::Result<(u64, String)> {
        let parent = path.parent().ok_or_else(|| io::Error::other("the root has no name"))?;
        let name = names(path)?.pop().ok_or_else(|| io::Error::other("the root has no name"))?;
        let parent = self.find(parent)?;
        match &self.inodes[&parent] {
            Inode::Directory(_) => Ok((parent, name.to_owned())),
            Inode::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn directory(&mut self, inode: u64) -> io::Result<&mut Images<Names, Rename>> {
        match self.inodes.get_mut(&inode) {
            Some(Inode::Directory(directory)) => Ok(directory),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn file(&mut self, inode: u64) -> io::Result<&mut Images<Vec<u8>, Write>> {
        match self.inodes.get_mut(&inode) {
            Some(Inode::File(file)) => Ok(file),
            _ => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn create(&mut self, parent: u64, name: String, inode: Inode) -> io::Result<u64> {
        self.step(Step::Create)?;
        let number = self.inode_next;
        self.inode_next += 1;
        self.inodes.insert(number, inode);
        self.directory(parent)?.change(Rename::Link { name, inode: number });
        Ok(number)
    }

    fn remove_all(&mut self, parent: u64, name: String) -> io::Result<()> {
        let inode = self.directory(parent)?.volatile.get(&name).copied();
        // Each of its files is a step: a crash may come between them.
        if let Some(inode) = inode
            && let Some(Inode::Directory(directory)) = self.inodes.get(&inode)
        {
            for child in directory.volatile.keys().cloned().collect::<Vec<_>>() {
                self.remove_all(inode, child)?;
            }
        }
        self.step(Step::Remove)?;
        self.directory(parent)?.change(Rename::Unlink { name });
        Ok(())
    }
}

/// Applies what the power loss leaves of one unsynced write.
fn survive(write: &Write, content: &mut Vec<u8>, rng: &mut Rng, counters: &mut Counters) {
    match (rng.below(3), write) {
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
            write.apply(content);
        }
    }
}

fn names(path: &Path) -> io::Result<Vec<&str>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => {
                names.push(name.to_str().ok_or_else(|| io::Error::other("a name is not UTF-8"))?);
            }
            Component::Prefix(_) | Component::ParentDir => {
                return Err(io::Error::other(format!("{} is not a plain path", path.display())));
            }
        }
    }
    Ok(names)
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{} does not exist", path.display()))
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
        if from_parent != to_parent {
            return Err(io::Error::other("a rename across directories is not part of the contract"));
        }
        let had_failed = state.faults.failed.is_some();
        let happens = state.step(Step::Rename);
        if !had_failed && state.faults.failed.is_some() {
            state.faults.failed_name = Some(to_name.clone());
        }
        happens?;
        state.trace(format_args!("rename {} to {to_name}", from.display()));
        if from_name != to_name {
            state.directory(from_parent)?.change(Rename::Move { from: from_name, to: to_name, inode });
        }
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.enter()?;
        let inode = state.find(path)?;
        state.file(inode)?;
        let (parent, name) = state.find_place(path)?;
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
        state.step(Step::SyncDir)?;
        state.directory(inode)?.sync();
        state.counters.directory_syncs += 1;
        state.trace(format_args!("sync directory {}", path.display()));
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
        state.step(step)?;
        let grows = (length as u64).saturating_sub(state.file(self.inode)?.volatile.len() as u64);
        if state.room() < grows {
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
        state.file(self.inode)?.change(write);
        state.written_last = Some(self.inode);
        Ok(())
    }
}

impl File for SimFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.enter()?;
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
        if let Err(error) = state.step(Step::Sync) {
            if state.faults.failed == Some(Step::Sync) && state.life == self.life {
                // The pages are clean now, and what they hold will never be written.
                state.file(self.inode)?.unsynced.clear();
            }
            return Err(error);
        }
        state.file(self.inode)?.sync();
        state.counters.syncs += 1;
        state.trace(format_args!("sync #{}", self.inode));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(seed: u64) -> Disk {
        Disk::new("n1", Rng::stream(seed, "disk"), None)
    }

    fn write_new(fs: &SimFs, path: &str, content: &[u8]) -> Arc<dyn File> {
        let file = fs.open(Path::new(path), OpenMode::CreateNew).expect("the file is new");
        file.write_all_at(content, 0).expect("written");
        file
    }

    fn read(disk: &Disk, path: &str) -> Option<Vec<u8>> {
        match disk.mount().read(Path::new(path)) {
            Ok(content) => Some(content),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => panic!("{path}: {error}"),
        }
    }

    #[test]
    fn synced_content_under_a_synced_name_survives_a_power_loss() {
        for seed in 0..50 {
            let disk = disk(seed);
            let fs = disk.mount();
            write_new(&fs, "/a", b"kept").sync().expect("synced");
            fs.sync_dir(Path::new("/")).expect("synced");
            disk.power_loss();
            assert_eq!(read(&disk, "/a").as_deref(), Some(&b"kept"[..]));
        }
    }

    #[test]
    fn a_name_is_durable_only_after_its_directory_was_synced() {
        let survivors = (0..50)
            .filter(|seed| {
                let disk = disk(*seed);
                write_new(&disk.mount(), "/a", b"content").sync().expect("synced");
                disk.power_loss();
                read(&disk, "/a").is_some()
            })
            .count();
        assert!((1..50).contains(&survivors), "{survivors} of 50 unsynced names survived");
    }

    #[test]
    fn a_directory_of_directories_needs_a_sync_at_each_level() {
        let lost = (0..50).any(|seed| {
            let disk = disk(seed);
            let fs = disk.mount();
            fs.create_dir_all(Path::new("/data/wal")).expect("created");
            write_new(&fs, "/data/wal/1", b"x").sync().expect("synced");
            fs.sync_dir(Path::new("/data/wal")).expect("synced");
            fs.sync_dir(Path::new("/data")).expect("synced");
            disk.power_loss();
            read(&disk, "/data/wal/1").is_none()
        });
        assert!(lost, "the name /data was never synced, and yet it survived every time");
    }

    #[test]
    fn an_unsynced_write_is_lost_kept_or_torn() {
        let (mut lost, mut kept, mut torn) = (0, 0, 0);
        for seed in 0..200 {
            let disk = disk(seed);
            let fs = disk.mount();
            let file = write_new(&fs, "/a", &[1; 4 * SECTOR]);
            file.sync().expect("synced");
            fs.sync_dir(Path::new("/")).expect("synced");
            assert!(!disk.is_writing());
            file.write_all_at(&[2; 2 * SECTOR], SECTOR as u64).expect("written");
            assert!(disk.is_writing());
            disk.power_loss();
            assert!(!disk.is_writing());
            let content = read(&disk, "/a").expect("the name was synced");
            assert_eq!(content.len(), 4 * SECTOR);
            let sectors = content.chunks(SECTOR).map(|sector| {
                assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is written as a whole");
                sector[0]
            });
            match sectors.collect::<Vec<_>>()[..] {
                [1, 1, 1, 1] => lost += 1,
                [1, 2, 2, 1] => kept += 1,
                [1, 1, 2, 1] | [1, 2, 1, 1] => torn += 1,
                ref other => panic!("sectors {other:?}"),
            }
        }
        assert!(lost > 20 && kept > 20 && torn > 20, "lost {lost}, kept {kept}, torn {torn}");
    }

    #[test]
    fn a_later_write_may_survive_an_earlier_one() {
        let hole = (0..100).any(|seed| {
            let disk = disk(seed);
            let fs = disk.mount();
            let file = write_new(&fs, "/a", b"");
            fs.sync_dir(Path::new("/")).expect("synced");
            file.write_all_at(&[1; SECTOR], 0).expect("written");
            file.write_all_at(&[2; SECTOR], SECTOR as u64).expect("written");
            disk.power_loss();
            read(&disk, "/a")
                .is_some_and(|content| content.len() == 2 * SECTOR && content[0] == 0 && content[SECTOR] == 2)
        });
        assert!(hole, "no seed reordered two writes");
    }

    #[test]
    fn after_a_killed_process_unsynced_data_is_readable_but_not_durable() {
        let lost = (0..50).any(|seed| {
            let disk = disk(seed);
            let fs = disk.mount();
            let file = write_new(&fs, "/a", b"unsynced");
            disk.kill_process();
            assert_eq!(read(&disk, "/a").as_deref(), Some(&b"unsynced"[..]));
            assert!(file.write_all_at(b"late", 0).is_err(), "the old life is over");
            assert!(fs.exists(Path::new("/a")).is_err(), "the old life is over");
            disk.power_loss();
            read(&disk, "/a").is_none()
        });
        assert!(lost, "reading made it durable");
    }

    #[test]
    fn a_sync_in_the_next_life_makes_the_last_lifes_writes_durable() {
        for seed in 0..50 {
            let disk = disk(seed);
            write_new(&disk.mount(), "/a", b"written");
            disk.kill_process();
            let fs = disk.mount();
            fs.open(Path::new("/a"), OpenMode::Write).expect("open").sync().expect("synced");
            fs.sync_dir(Path::new("/")).expect("synced");
            disk.power_loss();
            assert_eq!(read(&disk, "/a").as_deref(), Some(&b"written"[..]));
        }
    }

    #[test]
    fn an_atomic_write_leaves_the_old_or_the_new_content() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..50 {
            let disk = disk(seed);
            let fs = disk.mount();
            fs.write_atomically(Path::new("/a"), b"old").expect("written");
            // The steps of write_atomically, without the last sync.
            write_new(&fs, "/a.new", b"new").sync().expect("synced");
            fs.rename(Path::new("/a.new"), Path::new("/a")).expect("renamed");
            disk.power_loss();
            seen.insert(read(&disk, "/a").expect("one of the two is there"));

            let fs = disk.mount();
            fs.write_atomically(Path::new("/a"), b"newest").expect("written");
            disk.power_loss();
            assert_eq!(read(&disk, "/a").as_deref(), Some(&b"newest"[..]));
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [b"new".to_vec(), b"old".to_vec()]);
    }

    #[test]
    fn a_removal_may_come_undone() {
        let (mut back, mut gone) = (0, 0);
        for seed in 0..50 {
            let disk = disk(seed);
            let fs = disk.mount();
            fs.create_dir_all(Path::new("/d")).expect("created");
            write_new(&fs, "/d/a", b"x").sync().expect("synced");
            fs.sync_dir(Path::new("/d")).expect("synced");
            fs.sync_dir(Path::new("/")).expect("synced");
            fs.remove_dir_all(Path::new("/d")).expect("removed");
            assert!(!fs.exists(Path::new("/d")).expect("looked up"));
            disk.power_loss();
            if read(&disk, "/d/a").is_some() {
                back += 1;
            } else {
                gone += 1;
            }
        }
        assert!(back > 0 && gone > 0, "back {back}, gone {gone}");
    }

    #[test]
    fn a_lock_is_held_until_dropped_or_the_process_ends() {
        let disk = disk(1);
        let fs = disk.mount();
        let first = fs.lock(Path::new("/lock")).expect("free");
        let refused = fs.lock(Path::new("/lock")).err().expect("held");
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        drop(first);
        let second = fs.lock(Path::new("/lock")).expect("free again");
        disk.kill_process();
        let third = disk.mount().lock(Path::new("/lock")).expect("freed by the end of the process");
        // A destructor that runs late must not free the next life's lock.
        drop(second);
        assert!(disk.mount().lock(Path::new("/lock")).is_err());
        drop(third);
    }

    #[test]
    fn errors_are_those_of_the_contract() {
        let disk = disk(1);
        let fs = disk.mount();
        let kind = |result: io::Result<Arc<dyn File>>| result.err().expect("an error").kind();
        assert_eq!(kind(fs.open(Path::new("/a"), OpenMode::Read)), io::ErrorKind::NotFound);
        assert_eq!(kind(fs.open(Path::new("/d/a"), OpenMode::CreateNew)), io::ErrorKind::NotFound);
        let file = write_new(&fs, "/a", b"1234");
        assert_eq!(kind(fs.open(Path::new("/a"), OpenMode::CreateNew)), io::ErrorKind::AlreadyExists);
        assert_eq!(kind(fs.open(Path::new("/"), OpenMode::Read)), io::ErrorKind::IsADirectory);
        let short = file.read_exact_at(&mut [0; 2], 3).expect_err("ends first");
        assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);
        let reader = fs.open(Path::new("/a"), OpenMode::Read).expect("open");
        assert_eq!(reader.write_all_at(b"x", 0).expect_err("refused").kind(), io::ErrorKind::PermissionDenied);
        fs.create_dir_all(Path::new("/b/c")).expect("created");
        write_new(&fs, "/b/z", b"");
        assert_eq!(fs.list(Path::new("/b")).expect("listed"), ["c", "z"]);
    }

    #[test]
    fn the_same_seed_loses_the_same_things() {
        let run = |seed| {
            let disk = disk(seed);
            let fs = disk.mount();
            for number in 0..20_u8 {
                let file = write_new(&fs, &format!("/{number}"), &[number; 3_000]);
                file.set_len(2_000 + u64::from(number)).expect("cut");
            }
            disk.power_loss();
            (disk.durable_files(), disk.counters())
        };
        assert_eq!(run(4), run(4));
        assert_ne!(run(4), run(5));
        let counters = run(4).1;
        assert_eq!(counters.writes_lost + counters.writes_kept + counters.writes_torn, 40);
        assert_eq!(counters.names_lost + counters.names_kept, 20);
    }
}
