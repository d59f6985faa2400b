//! What the storage does, step by step.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::ops::RangeInclusive;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use millstream_node::config::Engine;
use millstream_node::storage::{
    Batch, DataDir, LogStore, SnapshotFile, SnapshotWriter, StateDir, StateStore, Wal, WalOptions,
};
use millstream_node::types::Vote;
use millstream_node::world::{Abort, FlushTask, Fs, Job, Spawn, World};
use millstream_sim_tests::disk::{Disk, Step};
use millstream_sim_tests::entropy::{Rng, SimClock, SimRandom, Time};
use openraft::storage::{IOFlushed, RaftLogStorage};

use crate::promises::{Promises, all_rows, entry, log_id};

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

/// Runs to the end in a runtime of its own; tasks that are left are dropped.
pub(crate) fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(work)
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
            clock: Arc::new(SimClock(Time::default())),
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
            let outcome = node.script(promises).await;
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
        let wal = Wal::open(&world, &data_dir.wal_path(), options()).map_err(io::Error::other)?;
        let (state_dir, store) =
            StateDir::open(&world, &data_dir.state_path(), machine.engine).map_err(io::Error::other)?;
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

    /// Spools the state, changed a little, as if it had come from another node, and installs it.
    fn install(&mut self, promises: &mut Promises) -> io::Result<()> {
        let spool = self.data_dir.spool_path();
        self.world.fs.create_dir_all(&spool)?;
        let path = spool.join("incoming");
        let mut writer = SnapshotWriter::create(&self.world, &path)?;
        let mut rows = all_rows(&*self.store).map_err(io::Error::other)?;
        rows.insert(vec![3, 3], Bytes::from_static(b"from elsewhere"));
        for (key, value) in &rows {
            writer.row(key, value)?;
        }
        writer.finish()?;

        let next = self.state_dir.create_next().map_err(io::Error::other)?;
        let mut batch = Batch::new();
        for row in SnapshotFile::open(&self.world, &path)? {
            let (key, value) = row?;
            batch.push((key, Some(value)));
            if 5 <= batch.len() {
                next.store.commit(std::mem::take(&mut batch)).map_err(io::Error::other)?;
            }
        }
        next.store.commit(batch).map_err(io::Error::other)?;
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
