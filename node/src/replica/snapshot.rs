//! Snapshots: the newest checkpoint, sent row by row to a node that is too far behind, and installed there as a new
//! generation of its store.
//!
//! Sending: the checkpoint is pinned when openraft asks for it, copied to a spool file when the transfer begins, and
//! released; so checkpoints wait for the copy, not for the network. Receiving: chunks go to a spool file; installing reads
//! that file into an empty store beside the current one, checks that it covers what was announced, and switches.

use std::any::Any;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use millstream_streams::{RowKey, State};
use openraft::storage::Snapshot;

use super::machine::Machine;
use super::pins::Pin;
use super::rows;
use super::shared::Shared;
use crate::network::{SnapshotBytes, SnapshotSink, SnapshotSource};
use crate::storage::{Batch, SnapshotFile, SnapshotWriter, StateStore};
use crate::types::{CommittedLeaderId, NodeId, PeerNode, SnapshotMeta};
use crate::world::{File, OpenMode, World};

/// Bytes of rows installed in one commit: 4 MiB. Each commit syncs.
const INSTALL_BATCH_BYTES: usize = 4 << 20;

/// A snapshot as openraft hands it around.
pub(crate) type SnapshotData = Box<dyn SnapshotSource>;

/// A snapshot with what it covers.
pub(crate) type CheckpointSnapshot = Snapshot<CommittedLeaderId, NodeId, PeerNode, SnapshotData>;

/// The newest checkpoint, pinned until it has been spooled or dropped.
pub(crate) async fn newest(shared: &Arc<Shared>) -> Option<CheckpointSnapshot> {
    let pin = shared.pins.pin().await;
    let meta = shared.checkpoint()?;
    let source = PinnedCheckpoint { shared: shared.clone(), pin: Mutex::new(Some(pin)) };
    Some(Snapshot { meta, snapshot: Box::new(source) })
}

/// Restores the core's state from all its rows but block bodies.
pub(crate) fn restore_state(store: &dyn StateStore) -> Result<State, String> {
    let (start, end) = rows::index_range();
    let stored = store.scan(&start, &end).map(|row| {
        let (key, value) = row.map_err(|error| error.to_string())?;
        let key = rows::from_core_key(&key).ok_or_else(|| "a row outside the core's range".to_owned())?;
        Ok::<(RowKey, bytes::Bytes), String>((key, value))
    });
    State::restore(stored).map_err(|error| error.to_string())
}

/// Makes the directory for snapshots on their way, and empties it of what the last run left there.
pub(crate) fn prepare_spool(world: &World, path: &Path) -> io::Result<()> {
    if world.fs.exists(path)? {
        world.fs.remove_dir_all(path)?;
    }
    world.fs.create_dir_all(path)
}

/// A file that is removed when nobody needs it any more.
struct Spool {
    world: World,
    path: PathBuf,
}

impl Spool {
    fn new(shared: &Shared, kind: &str) -> Self {
        let number = shared.world.random.next_u64();
        Self { world: shared.world.clone(), path: shared.data_dir.spool_path().join(format!("{kind}-{number:016x}")) }
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // What is left behind is removed at the next start.
        let _ = self.world.fs.remove_file(&self.path);
    }
}

/// Runs a job that blocks on files, and gives its result.
async fn blocking<T: Send + 'static>(
    world: &World,
    job: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (answer, result) = tokio::sync::oneshot::channel();
    world.spawn.blocking(Box::new(move || drop(answer.send(job())))).await;
    result.await.unwrap_or_else(|_| Err(io::Error::other("a job on files did not finish")))
}

/// A checkpoint that stays the newest until it has been copied.
struct PinnedCheckpoint {
    shared: Arc<Shared>,
    pin: Mutex<Option<Pin>>,
}

#[async_trait::async_trait]
impl SnapshotSource for PinnedCheckpoint {
    async fn spool(&self) -> io::Result<Box<dyn SnapshotBytes>> {
        let pin = self.pin.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(pin) = pin else { return Err(io::Error::other("this snapshot was spooled before")) };
        let (spool, store) = (Spool::new(&self.shared, "outgoing"), self.shared.blocks.store());
        let world = self.shared.world.clone();
        let spooled = blocking(&world.clone(), move || {
            copy_rows(&world, &*store, &spool.path)?;
            let file = world.fs.open(&spool.path, OpenMode::Read)?;
            let len = file.len()?;
            Ok(Box::new(SpooledBytes { _spool: spool, file, len }) as Box<dyn SnapshotBytes>)
        })
        .await;
        drop(pin);
        spooled
    }

    fn as_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

fn copy_rows(world: &World, store: &dyn StateStore, path: &Path) -> io::Result<()> {
    let mut writer = SnapshotWriter::create(world, path)?;
    for row in store.scan(&[], &[0xff]) {
        let (key, value) = row.map_err(io::Error::other)?;
        writer.row(&key, &value)?;
    }
    writer.finish().map(drop)
}

/// A spooled snapshot, ready to be sent.
struct SpooledBytes {
    _spool: Spool,
    file: Arc<dyn File>,
    len: u64,
}

impl SnapshotBytes for SpooledBytes {
    fn len(&self) -> u64 {
        self.len
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }
}

/// A place for a snapshot that is about to arrive.
pub(crate) fn receive(shared: &Shared) -> io::Result<Box<dyn SnapshotSink>> {
    let spool = Spool::new(shared, "incoming");
    let file = shared.world.fs.open(&spool.path, OpenMode::CreateNew)?;
    Ok(Box::new(IncomingSnapshot { spool, file, len: 0 }))
}

struct IncomingSnapshot {
    spool: Spool,
    file: Arc<dyn File>,
    len: u64,
}

impl SnapshotSink for IncomingSnapshot {
    fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.file.write_all_at(chunk, self.len)?;
        self.len += chunk.len() as u64;
        Ok(())
    }
    fn finish(&mut self) -> io::Result<()> {
        self.file.sync()
    }
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

/// The snapshot in a sink, as openraft wants it for installing.
pub(crate) fn received(sink: Box<dyn SnapshotSink>) -> Result<SnapshotData, String> {
    let incoming = sink.into_any().downcast::<IncomingSnapshot>().map_err(|_| "not a snapshot of ours".to_owned())?;
    Ok(Box::new(ReceivedSnapshot(incoming.spool)))
}

struct ReceivedSnapshot(Spool);

#[async_trait::async_trait]
impl SnapshotSource for ReceivedSnapshot {
    async fn spool(&self) -> io::Result<Box<dyn SnapshotBytes>> {
        Err(io::Error::other("a received snapshot is installed before it is passed on"))
    }
    fn as_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

/// Replaces state and store by a received snapshot.
pub(crate) async fn install(shared: &Arc<Shared>, meta: &SnapshotMeta, snapshot: SnapshotData) -> io::Result<()> {
    // What openraft got from us at the start is what we have already.
    let Ok(received) = snapshot.as_any().downcast::<ReceivedSnapshot>() else { return Ok(()) };
    let _writer = shared.store_writer.lock().await;
    let _turn = shared.pins.write().await;
    tracing::info!(index = meta.last_log_id.map_or(0, |id| id.index), "installing a snapshot");

    let (job_shared, expected) = (shared.clone(), meta.clone());
    let (store, state) =
        blocking(&shared.world, move || build_generation(&job_shared, &expected, &received.0.path)).await?;
    shared.blocks.replace(store);
    *shared.machine_mut() = Machine { state, last_applied: meta.last_log_id, membership: meta.last_membership.clone() };
    shared.set_checkpoint(meta.clone());
    shared.refresh_identities();
    shared.applied.send_replace(meta.last_log_id.map_or(0, |id| id.index));
    shared.watch.notify_all();
    Ok(())
}

/// Writes the snapshot's rows to a new generation of the store, and makes it the current one.
fn build_generation(shared: &Shared, meta: &SnapshotMeta, path: &Path) -> io::Result<(Arc<dyn StateStore>, State)> {
    let next = shared.state_dir.create_next().map_err(io::Error::other)?;
    let (mut batch, mut bytes) = (Batch::new(), 0);
    for row in SnapshotFile::open(&shared.world, path)? {
        let (key, value) = row?;
        bytes += key.len() + value.len();
        batch.push((key, Some(value)));
        if INSTALL_BATCH_BYTES <= bytes {
            next.store.commit(std::mem::take(&mut batch)).map_err(io::Error::other)?;
            bytes = 0;
        }
    }
    next.store.commit(batch).map_err(io::Error::other)?;

    let coverage = next.store.get(rows::COVERAGE).map_err(io::Error::other)?;
    let coverage = coverage.ok_or_else(|| io::Error::other("the snapshot does not say what it covers"))?;
    let covered = rows::decode_coverage(&coverage).map_err(io::Error::other)?;
    if covered != (meta.last_log_id, meta.last_membership.clone()) {
        return Err(io::Error::other("the snapshot does not cover what was announced"));
    }
    let state = restore_state(&*next.store).map_err(io::Error::other)?;
    let store = shared.state_dir.switch_to(next).map_err(io::Error::other)?;
    Ok((store, state))
}
