//! Checkpoints: the state's changed rows, written to the store in one synced batch.
//!
//! A checkpoint may never be ahead of the durable log: after a crash the log would lack entries that the state claims
//! to have applied. So the rows are frozen at some log id, then the log's queue up to there is flushed, then the batch is
//! written.

use std::io;
use std::sync::Arc;

use super::rows;
use super::shared::Shared;
use crate::storage::Batch;
use crate::types::SnapshotMeta;

/// Writes a checkpoint of all that is applied now. Returns whether there was anything new.
pub(crate) async fn write(shared: &Arc<Shared>) -> io::Result<bool> {
    let _writer = shared.store_writer.lock().await;
    let (meta, frozen) = {
        let mut machine = shared.machine_mut();
        let covered = shared.checkpoint().and_then(|meta| meta.last_log_id);
        if machine.last_applied == covered {
            return Ok(false);
        }
        let meta = SnapshotMeta { last_log_id: machine.last_applied, last_membership: machine.membership.clone() };
        (meta, machine.state.freeze())
    };

    shared.log.barrier().await?;

    let keys: Vec<_> = frozen.blocks.iter().map(|(key, _)| *key).collect();
    let mut batch: Batch = Vec::with_capacity(frozen.rows.len() + 1);
    batch.extend(frozen.rows.into_iter().map(|(key, row)| (rows::core_key(&key), row)));
    batch
        .push((rows::COVERAGE.to_vec(), Some(rows::encode_coverage(meta.last_log_id.as_ref(), &meta.last_membership))));
    {
        let _turn = shared.pins.write().await;
        commit(shared, batch).await?;
    }

    shared.blocks.keep(frozen.blocks);
    shared.machine_mut().state.thaw(&keys);
    tracing::debug!(index = meta.last_log_id.map_or(0, |id| id.index), "checkpoint written");
    shared.set_checkpoint(meta);
    Ok(true)
}

/// Commits a batch where blocking is allowed.
async fn commit(shared: &Shared, batch: Batch) -> io::Result<()> {
    let store = shared.blocks.store();
    let (answer, outcome) = tokio::sync::oneshot::channel();
    shared
        .world
        .spawn
        .blocking(Box::new(move || {
            // Nobody waits only if this node is being dropped.
            let _ = answer.send(store.commit(batch));
        }))
        .await;
    match outcome.await {
        Ok(result) => result.map_err(io::Error::other),
        Err(_) => Err(io::Error::other("the state store did not finish a commit")),
    }
}
