//! Snapshots as openraft sees them: the newest checkpoint on its way out ([`super::spool`]), and a generation of the store
//! that is ready to be the current one on its way in ([`super::incoming`]).
//!
//! openraft's worker also applies the log, so nothing here makes it wait: what it gets is copied or built elsewhere.

use std::any::Any;
use std::io;
use std::path::Path;
use std::sync::Arc;

use millstream_streams::{RestoreError, RowKey, State};
use openraft::storage::Snapshot;
use tokio::sync::OwnedMutexGuard;

use super::blocks::Uncached;
use super::machine::Machine;
use super::pins::WriteTurn;
use super::rows;
use super::shared::Shared;
use super::spool::{Spooled, check_trusted};
use crate::network::{SnapshotBytes, SnapshotSource};
use crate::storage::{Batch, NextGeneration, SnapshotFile, StateStore, StoreError};
use crate::types::{CommittedLeaderId, NodeId, PeerNode, SnapshotMeta};
use crate::world::World;

/// Bytes of rows installed in one commit: 4 MiB. Each commit syncs.
const INSTALL_BATCH_BYTES: usize = 4 << 20;

/// A snapshot as openraft hands it around.
pub(crate) type SnapshotData = Box<dyn SnapshotSource>;

/// A snapshot with what it covers.
pub(crate) type CheckpointSnapshot = Snapshot<CommittedLeaderId, NodeId, PeerNode, SnapshotData>;

/// What is to be sent now: the copy that there is if the log goes on from it, else the newest checkpoint. Waits for
/// nothing.
pub(crate) fn newest(shared: &Arc<Shared>) -> Option<CheckpointSnapshot> {
    let copy = shared.outgoing.usable(shared.log.first_index());
    let meta = match &copy {
        Some(spooled) => spooled.meta.clone(),
        None => shared.checkpoint()?,
    };
    Some(Snapshot { meta: meta.clone(), snapshot: Box::new(Announced { shared: shared.clone(), meta, copy }) })
}

/// The newest checkpoint, as what openraft calls a new snapshot.
pub(crate) fn built(shared: &Arc<Shared>) -> Option<CheckpointSnapshot> {
    let meta = shared.checkpoint()?;
    let announced = Announced { shared: shared.clone(), meta: meta.clone(), copy: None };
    Some(Snapshot { meta, snapshot: Box::new(announced) })
}

/// Restores the core's state from all its rows but block bodies.
pub(crate) fn restore_state(store: &dyn StateStore) -> Result<State, RestoreError<StoreError>> {
    let (start, end) = rows::index_range();
    let stored = store.scan(&start, &end).map(|row| {
        let (key, value) = row?;
        let outside = || StoreError::Corrupt { what: "a row outside the core's range".to_owned() };
        Ok::<(RowKey, bytes::Bytes), StoreError>((rows::from_core_key(&key).ok_or_else(outside)?, value))
    });
    State::restore(stored)
}

/// The same as a sentence.
pub(crate) fn why_not_restored(error: RestoreError<StoreError>) -> String {
    match error {
        RestoreError::Source(error) => error.to_string(),
        other => other.to_string(),
    }
}

/// Makes the directory for snapshots on their way, and empties it of what the last run left there.
pub(crate) fn prepare_spool(world: &World, path: &Path) -> io::Result<()> {
    if world.fs.exists(path)? {
        world.fs.remove_dir_all(path)?;
    }
    world.fs.create_dir_all(path)
}

/// A snapshot that openraft has been told of.
struct Announced {
    shared: Arc<Shared>,
    meta: SnapshotMeta,
    copy: Option<Arc<Spooled>>,
}

#[async_trait::async_trait]
impl SnapshotSource for Announced {
    async fn spool(&self) -> io::Result<Box<dyn SnapshotBytes>> {
        // A copy that was made before may be as wrong as what it was made of.
        check_trusted(&self.shared)?;
        if let Some(copy) = &self.copy {
            return Ok(copy.bytes());
        }
        let copy = self.shared.outgoing.copy_newest(&self.shared).await?;
        if copy.meta != self.meta {
            // openraft would believe that the other node has what was announced. The next attempt announces the copy.
            return Err(io::Error::other("a checkpoint was written in the meantime, and copied instead"));
        }
        Ok(copy.bytes())
    }

    fn as_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

/// A generation of the store that lacks nothing but to be made the current one, and the state in it.
pub(crate) struct ReadySnapshot {
    pub(crate) next: NextGeneration,
    pub(crate) state: State,
    /// No checkpoint is being written.
    pub(crate) _writer: OwnedMutexGuard<()>,
    /// Nobody copies the current generation.
    pub(crate) _turn: WriteTurn,
}

#[async_trait::async_trait]
impl SnapshotSource for ReadySnapshot {
    async fn spool(&self) -> io::Result<Box<dyn SnapshotBytes>> {
        Err(io::Error::other("this snapshot is on its way in"))
    }

    fn as_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

/// Replaces state and store by those of a received snapshot.
pub(crate) async fn install(shared: &Arc<Shared>, meta: &SnapshotMeta, snapshot: SnapshotData) -> io::Result<()> {
    // What openraft got from us at the start is what we have already.
    let Ok(ready) = snapshot.as_any().downcast::<ReadySnapshot>() else { return Ok(()) };
    let ReadySnapshot { next, state, _writer, _turn } = *ready;
    let started = tokio::time::Instant::now();
    let job = shared.clone();
    let store = shared.world.blocking(move || job.state_dir.switch_to(next).map_err(io::Error::other)).await?;
    let replaced = shared.blocks.replace(store);
    shared.digests.clear();
    let machine = Machine { state, last_applied: meta.last_log_id, membership: meta.last_membership.clone() };
    let index = meta.last_log_id.map_or(0, |id| id.index);
    let before = {
        let mut current = shared.machine_mut();
        let before = std::mem::replace(&mut *current, machine);
        shared.world.probe.restored(index, &current.state, &Uncached(&shared.blocks));
        before
    };
    shared.set_checkpoint(meta.clone());
    shared.refresh_identities();
    shared.world.probe.mark("snapshot_installed");
    shared.applied.send_replace(index);
    shared.watch.notify_all();
    tracing::info!(index, swapped_us = started.elapsed().as_micros(), "installed a snapshot");
    // A state of millions of entries takes its time to go, and a store of gigabytes its time to close and be removed.
    let world = shared.world.clone();
    tokio::spawn(async move { world.spawn.blocking(Box::new(move || drop((before, replaced)))).await });
    Ok(())
}

/// Writes the snapshot's rows to a new generation of the store, verifies it and restores the state in it, and does all
/// else that openraft's worker need not wait for. Blocks.
pub(crate) fn build_generation(
    shared: &Shared,
    meta: &SnapshotMeta,
    path: &Path,
) -> io::Result<(NextGeneration, State)> {
    let next = shared.state_dir.create_next().map_err(io::Error::other)?;
    fill(&shared.world, &*next.store, meta, path)?;
    let state = restore_state(&*next.store).map_err(|error| io::Error::other(why_not_restored(error)))?;
    if let Some(cluster_id) = state.cluster_id() {
        shared.keep_cluster_id(cluster_id);
    }
    shared.state_dir.prepare(&next).map_err(|error| {
        if !matches!(&error, StoreError::Io(error) if error.kind() == io::ErrorKind::StorageFull) {
            shared.fail(format!("{error}; mend the disk and start the node again"));
        }
        io::Error::other(error)
    })?;
    Ok((next, state))
}

/// Writes a snapshot's rows to an empty store, and checks that they are all there and cover what was announced.
pub(crate) fn fill(world: &World, store: &dyn StateStore, meta: &SnapshotMeta, path: &Path) -> io::Result<()> {
    let (mut batch, mut bytes) = (Batch::new(), 0);
    let mut coverage = None;
    for row in SnapshotFile::open(world, path)? {
        let (key, value) = row?;
        bytes += key.len() + value.len();
        if key == rows::COVERAGE {
            // Last: without it the store is not taken for a state.
            coverage = Some(value);
            continue;
        }
        let is_a = |kind| rows::from_core_key(&key).is_some_and(|key| format!("{key:?}").starts_with(kind));
        if millstream_streams::mutant!(DedupNotInSnapshot) && is_a("Replies") {
            continue;
        }
        if millstream_streams::mutant!(SnapshotMissesPending) && is_a("Pending") {
            continue;
        }
        batch.push((key, Some(value)));
        if INSTALL_BATCH_BYTES <= bytes {
            store.commit(std::mem::take(&mut batch)).map_err(io::Error::other)?;
            bytes = 0;
        }
    }
    let coverage = coverage.ok_or_else(|| io::Error::other("the snapshot does not say what it covers"))?;
    let covered = rows::decode_coverage(&coverage).map_err(io::Error::other)?;
    if covered != (meta.last_log_id, meta.last_membership.clone()) {
        return Err(io::Error::other("the snapshot does not cover what was announced"));
    }
    batch.push((rows::COVERAGE.to_vec(), Some(coverage)));
    store.commit(batch).map_err(io::Error::other)
}
