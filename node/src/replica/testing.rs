//! What tests of this module share: a state whose checkpoints go to a real store, without a node around it; and a node
//! that is alone, whose disk says what it is told to.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use millstream_streams::{
    Append, Blocks, Command, Fields, FrozenBody, FrozenRows, NewId, Proposal, RowKey, State, StreamName,
};
use openraft::vote::RaftLeaderId;
use tempfile::TempDir;

use super::shared::Shared;
use super::{Replica, ReplicaParts, blocks::StoredBlocks, checkpoint, rows, snapshot};
use crate::config::{Config, Engine};
use crate::storage::{DataDir, StateDir, StateStore, Wal, WalOptions};
use crate::types::{CommittedLeaderId, LogId, SnapshotMeta};
use crate::watch::Watch;
use crate::world::{Abort, File, Fs, OpenMode, RealFs, World};

pub(super) struct Story {
    pub(super) state: State,
    pub(super) blocks: StoredBlocks,
    index: u64,
    _state_dir: StateDir,
    _directory: TempDir,
}

impl Story {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (state_dir, store) = StateDir::open(&World::real(), directory.path(), Engine::Memory).unwrap();
        let blocks = StoredBlocks::new(store);
        Self { state: State::new(), blocks, index: 0, _state_dir: state_dir, _directory: directory }
    }

    pub(super) fn store(&self) -> Arc<dyn StateStore> {
        self.blocks.store()
    }

    pub(super) fn run(&mut self, command: impl Into<Command>) {
        self.index += 1;
        let proposal = Proposal { at_ms: self.index, request: None, command: command.into(), bytes_max: 0 };
        let applied = self.state.apply(self.index, &proposal.encode(), &self.blocks, true).unwrap();
        applied.outcome.unwrap();
    }

    pub(super) fn append(&mut self, name: &str, entries: usize) {
        let fields = Fields::from_pairs([("n", "1")]).unwrap();
        for _ in 0..entries {
            let (stream, fields) = (stream(name), fields.clone());
            self.run(Append { stream, id: NewId::Auto, fields, no_create: false, trim: None, idempotency: None });
        }
    }

    /// Writes a checkpoint; with `held`, as if somebody held the bodies.
    pub(super) fn write(&mut self, held: bool) -> Vec<FrozenBody> {
        let FrozenRows { rows, bodies } = self.state.freeze().into_rows();
        let last_log_id = Some(LogId::new(CommittedLeaderId::new(1, 1), self.index));
        let covers = SnapshotMeta { last_log_id, ..SnapshotMeta::default() };
        self.store().commit(checkpoint::batch(rows, &covers, held)).unwrap();
        drop(self.state.thaw(&bodies));
        bodies
    }

    /// The core's rows in the store.
    pub(super) fn stored(&self) -> Vec<(RowKey, Bytes)> {
        let rows = self.store().scan(&[], &[0xff]).map(Result::unwrap).collect::<Vec<_>>();
        rows.into_iter().filter_map(|(key, row)| Some((rows::from_core_key(&key)?, row))).collect()
    }

    /// What a restart would find.
    pub(super) fn restored(&self) -> Vec<(RowKey, Bytes)> {
        let blocks: &dyn Blocks = &StoredBlocks::new(self.store());
        snapshot::restore_state(&*self.store()).unwrap().all_rows(blocks).unwrap()
    }
}

/// The machine's files, and as much room as it is told.
pub(super) struct Disk {
    pub(super) free: AtomicU64,
}

impl Fs for Disk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        RealFs.open(path, mode)
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
        RealFs.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        RealFs.remove_file(path)
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        RealFs.remove_dir_all(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealFs.sync_dir(path)
    }
    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        Ok(self.free.load(Ordering::SeqCst))
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        RealFs.lock(path)
    }
}

/// Why the node was to be aborted, if it was.
#[derive(Default)]
pub(super) struct Aborts(Mutex<Vec<String>>);

impl Abort for Aborts {
    fn abort(&self, reason: &str) {
        self.0.lock().unwrap().push(reason.to_owned());
    }
}

impl Aborts {
    pub(super) fn reasons(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// A node that is a cluster of its own. Nobody reaches it, and it writes no checkpoint unless it is told to.
pub(super) struct Lone {
    pub(super) replica: Replica,
    pub(super) aborts: Arc<Aborts>,
    pub(super) disk: Arc<Disk>,
    wal: Wal,
    _directory: TempDir,
}

impl Lone {
    /// Starts it, and waits until it leads.
    pub(super) async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (aborts, disk) = (Arc::<Aborts>::default(), Arc::new(Disk { free: AtomicU64::new(1 << 40) }));
        let world = World { fs: disk.clone(), abort: aborts.clone(), ..World::real() };
        let mut config = Config::single_node();
        config.data_dir = directory.path().join("data");
        config.engine = Engine::Memory;
        (config.raft.heartbeat_ms, config.raft.election_ms_min, config.raft.election_ms_max) = (20, 60, 100);
        let data_dir = DataDir::open(&world, &config.data_dir, config.node_id).unwrap();
        let wal = Wal::open(&world, &data_dir.wal_path(), WalOptions::default()).unwrap();
        let parts = ReplicaParts { world, config, data_dir, log: wal.group(0), watch: Watch::new(10) };
        let replica = Replica::start(parts).await.unwrap();
        let lone = Self { replica, aborts, disk, wal, _directory: directory };
        lone.until(|lone| lone.shared().identities().nodes.contains_key(&1)).await;
        lone
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.replica.inner.shared
    }

    /// Waits until something is so.
    pub(super) async fn until(&self, mut is_so: impl FnMut(&Self) -> bool) {
        let patience = async {
            while !is_so(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), patience).await.unwrap();
    }

    pub(super) async fn append(&self, name: &str, entries: usize) {
        let fields = Fields::from_pairs([("n", "1")]).unwrap();
        for _ in 0..entries {
            let (stream, fields) = (stream(name), fields.clone());
            let append = Append { stream, id: NewId::Auto, fields, no_create: false, trim: None, idempotency: None };
            self.replica.propose(None, append.into()).await.unwrap().applied.outcome.unwrap();
        }
    }

    /// Stops it in good order.
    pub(super) async fn stop(self) {
        self.replica.shutdown().await.unwrap();
        self.wal.close().await;
    }
}

pub(super) fn stream(name: &str) -> StreamName {
    StreamName::new(name).unwrap()
}
