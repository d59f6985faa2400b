//! What the storage does, step by step.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::ops::RangeInclusive;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use millstream_node::config::Engine;
use millstream_node::storage::{
    Batch, DataDir, LogStore, NextGeneration, SnapshotFile, SnapshotWriter, StateDir, StateStore, StoreError, Wal,
    WalOptions,
};
use millstream_node::types::Vote;
use millstream_node::world::{Abort, FlushTask, Fs, Job, OpenMode, Spawn, World};
use millstream_sim_tests::clock::NodeClock;
use millstream_sim_tests::disk::{Disk, Step};
use millstream_sim_tests::entropy::{Rng, SimRandom, Time};
use openraft::storage::{IOFlushed, RaftLogStorage};

use crate::promises::{Promises, Rows, all_rows, entry, log_id};

/// Bytes of a snapshot that are received at once.
const CHUNK_BYTES: usize = 1_500;

/// The data directory. The disk is mounted at the first part of it.
pub(crate) const DATA: &str = "/disk/data";

/// How a run of the script ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    AtItsEnd,
    /// By an error, or because the node was to be aborted.
    Early,
}

/// A machine with a disk.
pub(crate) struct Machine {
    pub(crate) disk: Disk,
    pub(crate) engine: Engine,
    aborted: Arc<Aborted>,
    failed: Cell<Option<Step>>,
    failed_name: RefCell<Option<String>>,
    crashed: Cell<bool>,
    unimportant: RefCell<Vec<RangeInclusive<u64>>>,
}

#[derive(Default)]
struct Aborted(AtomicBool);

impl Abort for Aborted {
    fn abort(&self, _reason: &str) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Tasks instead of threads, and blocking work where it is asked for.
struct Tasks;

impl Spawn for Tasks {
    fn spawn_flusher(&self, task: Box<dyn FlushTask>) -> io::Result<()> {
        tokio::spawn(task.run_async());
        Ok(())
    }
    fn blocking(&self, job: Job) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async { job() })
    }
}

/// Segments so small that a few appends fill one.
pub(crate) fn options() -> WalOptions {
    WalOptions { segment_bytes: 4_096, flush_bytes_max: 1 << 20, tail_bytes_max: 0, ..WalOptions::default() }
}

/// Runs to the end in a runtime of its own; tasks that are left are dropped. Time passes when there is nothing else to do.
pub(crate) fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(work)
}

/// Longer than anything takes but waiting for room on the disk, which never comes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Does not wait for ever.
async fn bounded<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| Err(io::ErrorKind::StorageFull.into()))
}

impl Machine {
    /// With an empty file system.
    pub(crate) fn new(disk: Disk, engine: Engine) -> Self {
        let fs = disk.mount();
        fs.create_dir_all(Path::new("/disk")).expect("created");
        fs.sync_dir(Path::new("/")).expect("synced");
        Self {
            disk,
            engine,
            aborted: Arc::default(),
            failed: Cell::default(),
            failed_name: RefCell::default(),
            crashed: Cell::default(),
            unimportant: RefCell::default(),
        }
    }

    /// The world of the present life.
    pub(crate) fn world(&self) -> World {
        World {
            fs: Arc::new(self.disk.mount()),
            clock: Arc::new(NodeClock::new(Time::default())),
            random: Arc::new(SimRandom::new(Rng::stream(1, "node"))),
            spawn: Arc::new(Tasks),
            abort: Arc::clone(&self.aborted) as Arc<dyn Abort>,
            ..World::real()
        }
    }

    /// What had failed by plan when the script ended.
    pub(crate) fn failed_in_time(&self) -> Option<Step> {
        self.failed.get()
    }

    /// The new name of the rename that failed, if one did.
    pub(crate) fn failed_name(&self) -> Option<String> {
        self.failed_name.borrow().clone()
    }

    /// Nothing depends on the steps after `before` up to now.
    fn nothing_depends_on(&self, before: u64) {
        self.unimportant.borrow_mut().push(before + 1..=self.disk.steps());
    }

    /// Whether nothing depends on a step.
    pub(crate) fn is_unimportant(&self, step: u64) -> bool {
        self.unimportant.borrow().iter().any(|steps| steps.contains(&step))
    }

    /// Whether the disk had crashed by plan when the script ended.
    pub(crate) fn crashed_in_time(&self) -> bool {
        self.crashed.get()
    }

    /// Runs the script until it ends or the node must.
    pub(crate) fn run(&self, promises: &mut Promises) -> Ended {
        let outcome = run(async {
            let mut node = Node::open(self, promises)?;
            let mut outcome = bounded(node.script(promises)).await;
            if outcome.is_ok() {
                let before = self.disk.steps();
                drop(node);
                self.nothing_depends_on(before);
                node = Node::open(self, promises)?;
                outcome = bounded(node.script_after_restart(promises)).await;
            }
            if outcome.is_err() {
                // Nothing may be acknowledged any more by what has failed.
                node.must_refuse(promises).await;
            }
            // An engine may write while it is closed, to find less to do at the next start.
            let before = self.disk.steps();
            drop(node);
            self.nothing_depends_on(before);
            outcome
        });
        self.failed.set(self.disk.failed());
        *self.failed_name.borrow_mut() = self.disk.failed_name();
        self.crashed.set(self.disk.has_crashed());
        match outcome {
            Ok(()) => Ended::AtItsEnd,
            Err(_) => Ended::Early,
        }
    }

    /// One more of each, after a restart.
    pub(crate) fn goes_on(&self, promises: &mut Promises) -> io::Result<()> {
        self.aborted.0.store(false, Ordering::SeqCst);
        run(async {
            let mut node = Node::open(self, promises)?;
            let term =
                promises.terms.last().copied().unwrap_or(1).max(promises.vote.map_or(0, |vote| vote.leader_id.term));
            node.vote(promises, term + 1).await?;
            node.append(promises, term + 1, 3).await?;
            node.commit(promises, 77, 3)?;
            node.wal.close().await;
            Ok(())
        })
    }
}

/// The state of another node: the same rows and one more.
fn of_another(rows: &Rows, how: &'static [u8]) -> Rows {
    let mut rows = rows.clone();
    rows.insert(vec![3, 3], Bytes::from_static(how));
    rows
}

fn write_snapshot(world: &World, path: &Path, rows: &Rows) -> io::Result<()> {
    let mut writer = SnapshotWriter::create(world, path)?;
    for (key, value) in rows {
        writer.row(key, value)?;
    }
    writer.finish().map(drop)
}

/// Receives a snapshot of these rows, chunk by chunk. The connection breaks once, and the transfer goes on where it was.
fn receive(world: &World, path: &Path, rows: &Rows) -> io::Result<()> {
    let elsewhere = Machine::new(Disk::new("n2", Rng::stream(2, "disk"), None), Engine::Memory).world();
    let sent = Path::new("/disk/outgoing");
    write_snapshot(&elsewhere, sent, rows)?;
    let sent = elsewhere.fs.read(sent)?;
    let file = world.fs.open(path, OpenMode::CreateNew)?;
    for (chunk, n) in sent.chunks(CHUNK_BYTES).zip(0..) {
        if n == 2 {
            let received = file.len()?;
            assert_eq!(received, n * CHUNK_BYTES as u64, "the sender hears how much there is");
        }
        file.write_all_at(chunk, n * CHUNK_BYTES as u64)?;
    }
    Ok(())
}

/// Fills a generation with what was received.
fn fill(world: &World, path: &Path, next: &NextGeneration) -> io::Result<()> {
    let mut batch = Batch::new();
    for row in SnapshotFile::open(world, path)? {
        let (key, value) = row?;
        batch.push((key, Some(value)));
        if 5 <= batch.len() {
            next.store.commit(std::mem::take(&mut batch)).map_err(io::Error::other)?;
        }
    }
    next.store.commit(batch).map_err(io::Error::other)
}

/// Removes what the last run has left on its way, as a start does.
pub(crate) fn empty_spool(world: &World, data_dir: &DataDir) -> io::Result<()> {
    let spool = data_dir.spool_path();
    if world.fs.exists(&spool)? {
        world.fs.remove_dir_all(&spool)?;
    }
    world.fs.create_dir_all(&spool)
}

/// Opens the state as a start does: one that is of no use is set aside, and another node's takes its place.
pub(crate) fn open_state(
    machine: &Machine,
    world: &World,
    data_dir: &DataDir,
    promises: &Promises,
) -> io::Result<(StateDir, Arc<dyn StateStore>)> {
    let path = data_dir.state_path();
    let opened = match StateDir::open(world, &path, machine.engine) {
        Err(StoreError::Corrupt { what }) if promises.elsewhere.is_some() => {
            StateDir::set_aside(world, &path, machine.engine, &what, promises.purge_asked)
        }
        opened => opened,
    };
    let (state_dir, before) = opened.map_err(io::Error::other)?;
    if state_dir.must_rebuild().is_none() {
        return Ok((state_dir, before));
    }
    let rows = promises.elsewhere.as_ref().ok_or_else(|| io::Error::other("a sound state was set aside"))?;
    let path = data_dir.spool_path().join("fetched");
    receive(world, &path, rows)?;
    let next = state_dir.create_next().map_err(io::Error::other)?;
    fill(world, &path, &next)?;
    let store = state_dir.switch_to(next).map_err(io::Error::other)?;
    let steps = machine.disk.steps();
    drop(before);
    machine.nothing_depends_on(steps);
    state_dir.rebuilt(promises.purge_asked).map_err(io::Error::other)?;
    world.fs.remove_file(&path)?;
    Ok((state_dir, store))
}

/// A node's storage, as the replica uses it.
struct Node<'m> {
    machine: &'m Machine,
    world: World,
    data_dir: DataDir,
    wal: Wal,
    log: LogStore,
    state_dir: StateDir,
    store: Arc<dyn StateStore>,
}

impl<'m> Node<'m> {
    fn open(machine: &'m Machine, promises: &mut Promises) -> io::Result<Self> {
        let world = machine.world();
        let data_dir = DataDir::open(&world, Path::new(DATA), 1).map_err(io::Error::other)?;
        promises.incarnation = Some(data_dir.identity().incarnation);
        empty_spool(&world, &data_dir)?;
        let wal = Wal::open(&world, &data_dir.wal_path(), options()).map_err(io::Error::other)?;
        let (state_dir, store) = open_state(machine, &world, &data_dir, promises)?;
        let log = wal.group(0);
        Ok(Self { machine, world, data_dir, wal, log, state_dir, store })
    }

    async fn script(&mut self, promises: &mut Promises) -> io::Result<()> {
        self.data_dir.set_cluster_id("c").map_err(io::Error::other)?;
        self.vote(promises, 1).await?;
        for _ in 0..6 {
            self.append(promises, 1, 4).await?;
        }
        self.commit(promises, 1, 8)?;
        self.send()?;
        self.append(promises, 1, 9).await?;
        self.purge(promises, 14).await?;
        self.commit(promises, 2, 5)?;
        self.append(promises, 1, 3).await?;
        self.truncate(promises, 30).await?;
        self.vote(promises, 2).await?;
        self.append(promises, 2, 12).await?;
        self.install(promises)?;
        self.append(promises, 2, 2).await?;
        self.commit(promises, 3, 6)?;
        self.purge(promises, 40).await?;
        for _ in 0..4 {
            self.append(promises, 2, 5).await?;
        }
        self.truncate(promises, 55).await?;
        self.append(promises, 3, 4).await?;
        self.suspect(promises)?;
        self.close().await
    }

    /// The state has been replaced by another member's.
    async fn script_after_restart(&mut self, promises: &mut Promises) -> io::Result<()> {
        self.append(promises, 3, 3).await?;
        self.commit(promises, 4, 4)?;
        self.purge(promises, 57).await?;
        self.close().await
    }

    async fn close(&self) -> io::Result<()> {
        // What is written then is a mark that nothing depends on.
        let before = self.machine.disk.steps();
        self.wal.close().await;
        self.machine.nothing_depends_on(before);
        self.alive()
    }

    /// The node was not to be aborted.
    fn alive(&self) -> io::Result<()> {
        if self.machine.aborted.0.load(Ordering::SeqCst) { Err(io::Error::other("aborted")) } else { Ok(()) }
    }

    async fn vote(&mut self, promises: &mut Promises, term: u64) -> io::Result<()> {
        let vote = Vote::new_committed(term, 1);
        promises.vote_asked = Some(vote);
        self.log.save_vote(&vote).await?;
        self.alive()?;
        promises.vote = Some(vote);
        Ok(())
    }

    async fn append(&mut self, promises: &mut Promises, term: u64, count: u64) -> io::Result<()> {
        let next = promises.terms_asked.len() as u64 + 1;
        promises.terms_asked.extend((0..count).map(|_| term));
        self.log.append((next..next + count).map(|index| entry(term, index)), IOFlushed::noop()).await?;
        self.log.barrier().await?;
        self.alive()?;
        promises.terms.clone_from(&promises.terms_asked);
        promises.kept = promises.terms.len() as u64;
        Ok(())
    }

    async fn truncate(&mut self, promises: &mut Promises, last: u64) -> io::Result<()> {
        let term = promises.terms_asked[last as usize - 1];
        promises.terms_asked.truncate(last as usize);
        promises.kept = promises.kept.min(last);
        self.log.truncate_after(Some(log_id(term, last))).await?;
        self.log.barrier().await?;
        self.alive()?;
        promises.terms.clone_from(&promises.terms_asked);
        promises.kept = promises.terms.len() as u64;
        Ok(())
    }

    async fn purge(&mut self, promises: &mut Promises, index: u64) -> io::Result<()> {
        promises.purge_asked = index;
        let term = promises.terms[index as usize - 1];
        self.log.purge(log_id(term, index)).await?;
        self.log.barrier().await?;
        self.alive()
    }

    /// A checkpoint: some rows changed, some added, some removed.
    fn commit(&mut self, promises: &mut Promises, number: u8, rows: u8) -> io::Result<()> {
        let mut batch = Batch::new();
        for row in 0..rows {
            let value = Bytes::from(vec![number ^ row; 200 + usize::from(row) * 10]);
            batch.push((vec![1, row], Some(value.clone())));
            batch.push((vec![2, number, row], Some(value)));
        }
        batch.push((vec![2, number - 1, 0], None));
        promises.rows_asked.clone_from(&promises.rows);
        for (key, value) in &batch {
            match value {
                Some(value) => drop(promises.rows_asked.insert(key.clone(), value.clone())),
                None => drop(promises.rows_asked.remove(key)),
            }
        }
        self.store.commit(batch).map_err(io::Error::other)?;
        self.alive()?;
        promises.rows.clone_from(&promises.rows_asked);
        Ok(())
    }

    /// Spools the state for another node, and reads it back as it is sent.
    fn send(&self) -> io::Result<()> {
        let path = self.data_dir.spool_path().join("outgoing");
        let rows = all_rows(&*self.store).map_err(io::Error::other)?;
        write_snapshot(&self.world, &path, &rows)?;
        let found: io::Result<Rows> = SnapshotFile::open(&self.world, &path)?.collect();
        assert_eq!(found?, rows, "what is sent is what is stored");
        self.alive()?;
        self.world.fs.remove_file(&path)
    }

    /// Receives another node's state, and installs it.
    fn install(&mut self, promises: &mut Promises) -> io::Result<()> {
        let rows = of_another(&promises.rows, b"installed");
        let path = self.data_dir.spool_path().join("incoming");
        receive(&self.world, &path, &rows)?;
        let next = self.state_dir.create_next().map_err(io::Error::other)?;
        fill(&self.world, &path, &next)?;
        self.state_dir.prepare(&next).map_err(io::Error::other)?;
        promises.rows_asked = rows;
        let before = std::mem::replace(&mut self.store, self.state_dir.switch_to(next).map_err(io::Error::other)?);
        // The old generation is closed, which may write to it, and removed.
        let steps = self.machine.disk.steps();
        drop(before);
        self.machine.nothing_depends_on(steps);
        self.alive()?;
        promises.rows.clone_from(&promises.rows_asked);
        self.world.fs.remove_file(&path)
    }

    /// The state turns out to be wrong, which is noted for the next start: that one gets it from another node.
    fn suspect(&mut self, promises: &mut Promises) -> io::Result<()> {
        let rows = of_another(&promises.rows, b"fetched");
        (promises.rows_asked, promises.elsewhere) = (rows.clone(), Some(rows));
        self.state_dir.mark_suspect("it differs from the others").map_err(io::Error::other)?;
        promises.rows.clone_from(&promises.rows_asked);
        self.alive()
    }

    /// After a failure of the log, the log acknowledges nothing.
    async fn must_refuse(&mut self, promises: &mut Promises) {
        if !self.machine.aborted.0.load(Ordering::SeqCst) {
            return;
        }
        let term = promises.terms_asked.last().copied().unwrap_or(1);
        let next = promises.terms_asked.len() as u64 + 1;
        let appended = self.log.append([entry(term, next)], IOFlushed::noop()).await;
        let flushed = self.log.barrier().await;
        assert!(
            appended.is_err() || flushed.is_err(),
            "the log acknowledges an entry after the node was to be aborted"
        );
        // It may nevertheless be found later.
        promises.terms_asked.push(term);
    }
}
