//! A world for the log's tests: the flusher is a task, syncs are counted and can fail, and an abort is only noted.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use bytes::Bytes;
use millstream_node::storage::{LogStore, Wal, WalError, WalOptions};
use millstream_node::types::{CommittedLeaderId, LogEntry, LogId, LogPayload, Proposal, Vote};
use millstream_node::world::{Abort, File, FlushTask, Fs, OpenMode, RealFs, Spawn, World};
use openraft::RaftLogReader;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::vote::RaftLeaderId;

/// What was done to files, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Deed {
    Write { file: PathBuf, offset: u64, length: usize },
    Sync { file: PathBuf },
    Create { file: PathBuf },
    Rename { from: PathBuf, to: PathBuf },
}

/// The machine's files, without waiting for its disk, and with faults on demand.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    pub(crate) deeds: Arc<Mutex<Vec<Deed>>>,
    pub(crate) syncs: Arc<AtomicUsize>,
    pub(crate) fail_syncs: Arc<AtomicBool>,
    pub(crate) fail_writes: Arc<AtomicBool>,
    pub(crate) reads: Arc<Reads>,
}

/// Where reads wait while they are held.
#[derive(Default)]
pub(crate) struct Reads {
    held: Mutex<bool>,
    released: Condvar,
    waiting: AtomicUsize,
}

impl Reads {
    /// Reads that begin from now on wait.
    pub(crate) fn hold(&self) {
        *self.held.lock().expect("not poisoned") = true;
    }

    /// They go on.
    pub(crate) fn release(&self) {
        *self.held.lock().expect("not poisoned") = false;
        self.released.notify_all();
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    fn pass(&self) {
        let mut held = self.held.lock().expect("not poisoned");
        self.waiting.fetch_add(1, Ordering::SeqCst);
        while *held {
            held = self.released.wait(held).expect("not poisoned");
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

struct DiskFile {
    path: PathBuf,
    inner: Arc<dyn File>,
    disk: Disk,
}

impl File for DiskFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.disk.reads.pass();
        self.inner.read_exact_at(buf, offset)
    }
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        if self.disk.fail_writes.load(Ordering::SeqCst) {
            return Err(io::Error::other("no space"));
        }
        let deed = Deed::Write { file: self.path.clone(), offset, length: buf.len() };
        self.disk.deeds.lock().expect("not poisoned").push(deed);
        self.inner.write_all_at(buf, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn sync(&self) -> io::Result<()> {
        if self.disk.fail_syncs.load(Ordering::SeqCst) {
            return Err(io::Error::other("the disk is on fire"));
        }
        self.disk.syncs.fetch_add(1, Ordering::SeqCst);
        self.disk.deeds.lock().expect("not poisoned").push(Deed::Sync { file: self.path.clone() });
        Ok(())
    }
}

impl Fs for Disk {
    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let inner = RealFs.open(path, mode)?;
        if mode == OpenMode::CreateNew {
            self.deeds.lock().expect("not poisoned").push(Deed::Create { file: path.to_owned() });
        }
        Ok(Arc::new(DiskFile { path: path.to_owned(), inner, disk: self.clone() }))
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        RealFs.create_dir_all(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        RealFs.list(path)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        RealFs.exists(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.deeds.lock().expect("not poisoned").push(Deed::Rename { from: from.to_owned(), to: to.to_owned() });
        RealFs.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        RealFs.remove_file(path)
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        RealFs.remove_dir_all(path)
    }
    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        RealFs.lock(path)
    }
}

/// Runs the flusher as a task, blocking work where it is asked for.
struct Tasks;

impl Spawn for Tasks {
    fn spawn_flusher(&self, task: Box<dyn FlushTask>) -> io::Result<()> {
        tokio::spawn(task.run_async());
        Ok(())
    }
    fn blocking(&self, job: Box<dyn FnOnce() + Send>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async { job() })
    }
}

/// Notes why the node was to end.
#[derive(Default)]
pub(crate) struct Aborts(pub(crate) Mutex<Vec<String>>);

impl Abort for Aborts {
    fn abort(&self, reason: &str) {
        self.0.lock().expect("not poisoned").push(reason.to_owned());
    }
}

/// A world over this disk. With threads, or with tasks only.
pub(crate) fn world(disk: &Disk, threads: bool) -> (World, Arc<Aborts>) {
    let aborts = Arc::new(Aborts::default());
    let mut world = World { fs: Arc::new(disk.clone()), abort: aborts.clone(), ..World::real() };
    if !threads {
        world.spawn = Arc::new(Tasks);
    }
    (world, aborts)
}

pub(crate) fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(work)
}

pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId { leader_id: CommittedLeaderId::new(term, 1), index }
}

pub(crate) fn entry(term: u64, index: u64, bytes: usize) -> LogEntry {
    let bytes = (0..bytes).map(|at| (at as u64 * 7 + index) as u8).collect::<Vec<_>>();
    LogEntry { log_id: log_id(term, index), payload: LogPayload::Normal(Proposal(Bytes::from(bytes))) }
}

pub(crate) fn entries(term: u64, indices: std::ops::Range<u64>, bytes: usize) -> Vec<LogEntry> {
    indices.map(|index| entry(term, index, bytes)).collect()
}

/// Appends without waiting.
pub(crate) async fn append(log: &mut LogStore, entries: Vec<LogEntry>) {
    log.append(entries, IOFlushed::noop()).await.expect("appends");
}

pub(crate) fn small() -> WalOptions {
    WalOptions {
        segment_bytes: 4096,
        flush_bytes_max: 1 << 20,
        tail_bytes_max: 0,
        simulated_sync_latency: None,
        ..WalOptions::default()
    }
}

pub(crate) fn segments(path: &Path) -> Vec<String> {
    RealFs.list(path).expect("lists")
}

/// The files of a log, by name.
pub(crate) type Image = BTreeMap<String, Vec<u8>>;

pub(crate) fn read_image(path: &Path) -> Image {
    let read = |name: String| (name.clone(), std::fs::read(path.join(name)).expect("reads"));
    segments(path).into_iter().map(read).collect()
}

/// Puts them in place of what is there.
pub(crate) fn write_image(path: &Path, image: &Image) {
    if path.exists() {
        std::fs::remove_dir_all(path).expect("removes");
    }
    std::fs::create_dir_all(path).expect("creates");
    for (name, content) in image {
        std::fs::write(path.join(name), content).expect("writes");
    }
}

/// What a log says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Seen {
    pub(crate) vote: Option<Vote>,
    pub(crate) purged: Option<LogId>,
    pub(crate) entries: Vec<LogEntry>,
}

impl Seen {
    pub(crate) async fn of(log: &mut LogStore) -> Self {
        Self {
            vote: log.read_vote().await.expect("reads"),
            purged: log.get_log_state().await.expect("reads").last_purged_log_id,
            entries: log.try_get_log_entries(..).await.expect("what has been recovered can be read"),
        }
    }
}

/// Opens a log and looks at it; then makes sure that it can be used and opened once more.
pub(crate) async fn open_and_use(path: &Path) -> Result<Seen, WalError> {
    let (world, _) = world(&Disk::default(), false);
    let wal = Wal::open(&world, path, small())?;
    let mut log = wal.group(0);
    let seen = Seen::of(&mut log).await;
    // Shorter than what may have been cut off, so that its remains would show.
    let next = log.get_log_state().await.expect("reads").last_log_id.map_or(0, |last| last.index + 1);
    append(&mut log, entries(9, next..next + 1, 1)).await;
    wal.close().await;
    drop((wal, log));

    let wal = Wal::open(&world, path, small()).expect("what was recovered opens again");
    let mut expected = seen.entries.clone();
    expected.extend(entries(9, next..next + 1, 1));
    assert_eq!(wal.group(0).try_get_log_entries(..).await.expect("reads"), expected);
    wal.close().await;
    Ok(seen)
}
