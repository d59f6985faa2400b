//! Checkpoints: the state's changed rows, written to the store in one synced batch.
//!
//! A checkpoint may never be ahead of the durable log: after a crash the log would lack entries that the state claims
//! to have applied. So what changed is frozen at some log id, then the log's queue up to there is flushed, then the batch
//! is written. Only freezing holds up apply, for a moment at a time; rows are made of what was frozen where blocking is
//! allowed.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use millstream_streams::rows::Garbage;
use millstream_streams::{FrozenBody, FrozenRows, RowKey};

use super::blocks::Uncached;
use super::rows;
use super::shared::Shared;
use crate::config::Engine;
use crate::storage::{Batch, StoreError};
use crate::types::SnapshotMeta;

/// Bodies that a checkpoint itself deletes. More are listed in rows of garbage, so that the trimming of a large stream does
/// not make for a batch out of proportion.
const BODY_DELETIONS_MAX: usize = 20_000;
/// Bodies listed in one row of garbage.
const DEAD_BODIES_PER_ROW: usize = 4_096;
/// Streams that are frozen under one hold of the state's lock.
const FREEZE_CHUNK: usize = 128;
/// Bodies that leave memory under one hold of the state's lock.
const THAW_CHUNK: usize = 128;

/// Writes a checkpoint of all that is applied now. Returns whether one was written: not if nothing is new, if the state is
/// suspect, or if the disk has no room for one. An error ends the node.
pub(crate) async fn write(shared: &Arc<Shared>) -> io::Result<bool> {
    let shared = shared.clone();
    // A task of its own. What is taken from the state is nowhere else until it is stored, and whoever asked may go away.
    match tokio::spawn(async move { write_whole(&shared).await }).await {
        Ok(written) => written,
        Err(error) if error.is_panic() => Err(io::Error::other("a checkpoint panicked")),
        // This node is being dropped.
        Err(_) => std::future::pending().await,
    }
}

async fn write_whole(shared: &Arc<Shared>) -> io::Result<bool> {
    let _writer = shared.store_writer.lock().await;
    if shared.is_suspect() || !has_room(shared) {
        shared.world.probe.mark("checkpoint_refused");
        return Ok(false);
    }
    let Some(meta) = begin(shared) else { return Ok(false) };
    match store(shared, &meta).await {
        Ok(()) => Ok(true),
        Err(error @ StoreError::Corrupt { .. }) => {
            // From here on no checkpoint is written, and the next start builds the state anew.
            shared.blocks.failed(&error);
            Ok(false)
        }
        Err(error) => {
            // Nobody may write another one, which would lack what this one took.
            shared.world.abort.abort(&format!("a checkpoint could not be written: {error}"));
            Err(io::Error::other(error))
        }
    }
}

/// Whether the disk has room now for a checkpoint, or for a batch of the sweep, and for what the log writes meanwhile.
pub(super) fn has_room(shared: &Shared) -> bool {
    if shared.room.is_full() {
        return false;
    }
    if shared.config.log.reserve_bytes == 0 {
        return true;
    }
    let mut needed = 2 * shared.machine().state.dirty_bytes() + shared.config.log.segment_bytes;
    if shared.config.engine == Engine::Memory {
        // It writes its whole file anew beside the old one.
        needed += shared.blocks.store().disk_bytes().unwrap_or(0);
    }
    // If the system does not say, the attempt will.
    let free = shared.world.fs.free_bytes(&shared.data_dir.state_path()).unwrap_or(u64::MAX);
    if free < needed {
        tracing::warn!(free, needed, "writing to the state store waits for room on the disk");
    }
    needed <= free
}

/// Begins to take what changed. `None`: nothing did.
fn begin(shared: &Shared) -> Option<SnapshotMeta> {
    let mut machine = shared.machine_mut();
    let covered = shared.checkpoint().and_then(|meta| meta.last_log_id);
    if machine.last_applied == covered {
        return None;
    }
    shared.gate.frozen(machine.state.dirty_bytes());
    shared.world.probe.checkpoint(machine.applied_index(), &machine.state, &Uncached(&shared.blocks));
    machine.state.begin_freeze();
    Some(SnapshotMeta { last_log_id: machine.last_applied, last_membership: machine.membership.clone() })
}

/// Takes the rest of what changed, and stores it.
async fn store(shared: &Arc<Shared>, meta: &SnapshotMeta) -> Result<(), StoreError> {
    let frozen = loop {
        // Commands go on in between.
        tokio::task::yield_now().await;
        let taken = shared.machine_mut().state.continue_freeze(FREEZE_CHUNK);
        if let Some(frozen) = taken {
            break frozen;
        }
    };

    if !millstream_streams::mutant!(CheckpointAheadOfLog) {
        shared.log.barrier().await?;
    }

    let FrozenRows { mut rows, bodies } = shared.world.blocking(move || Ok(frozen.into_rows())).await?;
    if millstream_streams::mutant!(CheckpointLosesRow) && !rows.is_empty() {
        rows.remove(meta.last_log_id.map_or(0, |id| id.index as usize) % rows.len());
    }
    if meta.last_log_id.is_some_and(|id| id.index % 2 == 1) && millstream_streams::mutant!(CheckpointNotStored) {
        shared.set_checkpoint(meta.clone());
        shared.gate.stored();
        return Ok(());
    }
    {
        let _turn = shared.pins.write().await;
        let (store, held) = (shared.blocks.store(), shared.pins.bodies_held());
        if held {
            shared.world.probe.mark("bodies_held");
        }
        let covers = meta.clone();
        shared.world.blocking(move || Ok(store.commit(batch(rows, &covers, held)))).await??;
    }

    shared.set_checkpoint(meta.clone());
    let (blocks, kept) = (shared.blocks.clone(), bodies.clone());
    shared
        .world
        .blocking(move || {
            blocks.keep(&kept);
            Ok(())
        })
        .await?;
    thaw(shared, bodies).await?;
    shared.gate.stored();
    shared.world.probe.mark("checkpoint_written");
    tracing::debug!(index = meta.last_log_id.map_or(0, |id| id.index), "checkpoint written");
    Ok(())
}

/// All that the store is to be told, in one batch. With `held`, no body is deleted.
pub(super) fn batch(rows: Vec<(RowKey, Option<Bytes>)>, covers: &SnapshotMeta, held: bool) -> Batch {
    let is_dead_body = |key: &RowKey, row: &Option<Bytes>| row.is_none() && key.is_body();
    let spares = held || BODY_DELETIONS_MAX < rows.iter().filter(|(key, row)| is_dead_body(key, row)).count();
    let mut batch = Batch::with_capacity(rows.len() + 1);
    let mut dead = Vec::new();
    for (key, row) in rows {
        if spares && is_dead_body(&key, &row) {
            dead.push(key);
        } else {
            batch.push((rows::core_key(&key), row));
        }
    }
    // Numbers that no other checkpoint gives.
    let first = covers.last_log_id.map_or(0, |id| id.index) << 16;
    for (keys, n) in dead.chunks(DEAD_BODIES_PER_ROW).zip(0..) {
        let (key, row) = Garbage::bodies(first | n, keys);
        batch.push((rows::core_key(&key), Some(row)));
    }
    let coverage = rows::encode_coverage(covers.last_log_id.as_ref(), &covers.last_membership);
    batch.push((rows::COVERAGE.to_vec(), Some(coverage)));
    batch
}

/// Lets what is stored leave memory, a little at a time, and frees it where nobody waits.
async fn thaw(shared: &Arc<Shared>, bodies: Vec<FrozenBody>) -> io::Result<()> {
    let mut freed = Vec::new();
    for chunk in bodies.chunks(THAW_CHUNK) {
        freed.append(&mut shared.machine_mut().state.thaw(chunk));
        tokio::task::yield_now().await;
    }
    shared
        .world
        .blocking(move || {
            drop((freed, bodies));
            Ok(())
        })
        .await
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in a test a panic is a failure")]
mod tests {
    use super::*;
    use millstream_streams::{BlockKey, EntryId, RangeQuery};

    use super::super::blocks::StoredBlocks;
    use super::super::snapshot;
    use super::super::testing::{Lone, stream};

    fn body(n: u64) -> (RowKey, Option<Bytes>) {
        (BlockKey { stream: 1, first: EntryId::new(n, 0), version: n }.row_key(), None)
    }

    /// Body deletions in the batch itself, and those that its rows of garbage list.
    fn deletions(batch: &Batch) -> (usize, usize) {
        let keys: Vec<_> = batch.iter().filter_map(|(key, row)| Some((rows::from_core_key(key)?, row))).collect();
        let listed = |(key, row): &(RowKey, &Option<Bytes>)| match Garbage::read(key, row.as_ref()?).unwrap()? {
            Garbage::Rows(rows) => Some(rows.len()),
            Garbage::Ranges(_) => None,
        };
        let deleted = keys.iter().filter(|(key, row)| key.is_body() && row.is_none()).count();
        (deleted, keys.iter().filter_map(listed).sum())
    }

    #[tokio::test]
    async fn a_checkpoint_goes_on_when_its_caller_goes_away() {
        let node = Lone::start().await;
        let shared = node.shared();
        for polls in 1..=4 {
            node.append("orders", 10).await;
            let applied = shared.machine().applied_index();
            let mut writing = Box::pin(write(shared));
            for _ in 0..polls {
                assert!(futures::poll!(writing.as_mut()).is_pending());
                tokio::task::yield_now().await;
            }
            drop(writing);
            let covered = || shared.checkpoint().and_then(|meta| meta.last_log_id).map(|id| id.index);
            node.until(|_| Some(applied) <= covered()).await;
        }
        // Nothing is lost to those that follow, and what was taken from memory is stored.
        node.append("orders", 10).await;
        assert!(write(shared).await.unwrap());
        let restored = snapshot::restore_state(&*shared.blocks.store()).unwrap();
        assert_eq!(restored.digest(), shared.machine().state.digest());
        let cold = StoredBlocks::new(shared.blocks.store());
        let (start, end) = (EntryId::MIN, EntryId::MAX);
        let query = RangeQuery { stream: stream("orders"), start, end, reverse: false, count: 1_000 };
        assert_eq!(restored.range(&query).run(&cold, usize::MAX).unwrap().entries.len(), 50);
        assert_eq!(node.aborts.reasons(), [""; 0]);
        node.stop().await;
    }

    #[test]
    fn bodies_that_somebody_holds_are_listed_and_not_deleted() {
        let covers = SnapshotMeta::default();
        let few: Vec<_> = (1..=10).map(body).collect();
        assert_eq!(deletions(&batch(few.clone(), &covers, false)), (10, 0));
        assert_eq!(deletions(&batch(few, &covers, true)), (0, 10));
        let many: Vec<_> = (0..BODY_DELETIONS_MAX as u64 + 1).map(body).collect();
        assert_eq!(deletions(&batch(many, &covers, false)), (0, BODY_DELETIONS_MAX + 1));
    }
}
