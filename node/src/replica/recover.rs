//! The state at the start of a node: opened, or set aside and made anew.
//!
//! A store that does not open or does not verify, that was marked as suspect, or that ends before the log begins, is of no
//! use: it is set aside, loudly, and the node gets another state. While the log still has its first entry, it is replayed;
//! else another member's newest state is fetched *before* Raft starts, because a node must not vote or answer with a
//! state that lacks entries its log does not have any more. A start that is cut short goes on where it was: the mark that
//! the state has to be rebuilt is on disk.

use std::path::Path;
use std::sync::Arc;

use millstream_streams::{RestoreError, State};
use openraft::storage::RaftLogStorage;

use super::machine::Machine;
use super::{StartError, fetch, rows, snapshot};
use crate::config::Config;
use crate::storage::{DataDir, LogStore, StateDir, StateStore, StoreError};
use crate::types::{LogId, SnapshotMeta, StoredMembership};
use crate::world::World;

/// A state that may take part.
pub(crate) struct Recovered {
    pub(crate) state_dir: StateDir,
    pub(crate) store: Arc<dyn StateStore>,
    pub(crate) machine: Machine,
    /// What the store covers, if it covers anything.
    pub(crate) checkpoint: Option<SnapshotMeta>,
}

/// Opens and restores the state, or makes another.
pub(crate) async fn recover(
    world: &World,
    config: &Config,
    data_dir: &DataDir,
    log: &LogStore,
) -> Result<Recovered, StartError> {
    let recovered = recover_state(world, config, data_dir, log).await?;
    if mend_log(log, recovered.machine.last_applied.as_ref()).await.map_err(StartError::Log)? {
        world.probe.mark("log_emptied");
    }
    Ok(recovered)
}

/// Empties a log that holds another entry than the state has applied. The state is another member's then, fetched or
/// installed, and covers all that was committed up to there; what follows in the log was never committed, since it
/// follows an entry that was not. Raft installs a snapshot over such a tail in two steps, and takes what lies between
/// them for a log that has gone wrong. Returns whether it did.
async fn mend_log(log: &LogStore, applied: Option<&LogId>) -> std::io::Result<bool> {
    let Some(applied) = applied.filter(|applied| log.contradicts(applied)) else { return Ok(false) };
    tracing::warn!(%applied, "the log ends in entries that were never committed; they are dropped");
    let mut log = log.clone();
    let purged = log.purged();
    log.truncate_after(purged).await?;
    log.barrier().await?;
    Ok(true)
}

async fn recover_state(
    world: &World,
    config: &Config,
    data_dir: &DataDir,
    log: &LogStore,
) -> Result<Recovered, StartError> {
    let path = data_dir.state_path();
    let reason = match open(world, &path, config, log) {
        Ok(recovered) if recovered.state_dir.must_rebuild().is_none() => return Ok(recovered),
        Ok(incomplete) => return rebuild(world, config, data_dir, log, incomplete.state_dir, incomplete.store).await,
        Err(StartError::Store(StoreError::Corrupt { what })) => what,
        Err(error) => return Err(error),
    };
    tracing::error!(reason, path = %path.display(), "the state of this node is of no use and is set aside as broken-<n>");
    world.probe.mark("state_set_aside");
    let least_index = purged_index(log).unwrap_or(0);
    let (state_dir, store) = StateDir::set_aside(world, &path, config.engine, &reason, least_index)?;
    rebuild(world, config, data_dir, log, state_dir, store).await
}

/// Opens and restores the state that is there.
fn open(world: &World, path: &Path, config: &Config, log: &LogStore) -> Result<Recovered, StartError> {
    let (state_dir, store) = StateDir::open(world, path, config.engine)?;
    let (machine, checkpoint) = restore(&*store)?;
    let covered = machine.last_applied.as_ref().map(|id| id.index);
    // What is being rebuilt may be behind; it knows.
    if covered < purged_index(log) && state_dir.must_rebuild().is_none() {
        let what = format!("it has applied {} entries and the log begins at {}", entries(covered), log.first_index());
        return Err(StoreError::Corrupt { what }.into());
    }
    check_log_end(world, path, log, covered)?;
    Ok(Recovered { state_dir, store, machine, checkpoint })
}

/// No checkpoint is ahead of the durable log: a log that ends before what the state has applied has lost entries, and
/// perhaps more of them than the state knows of. Only a state that was installed or fetched may be ahead, until the log
/// behind it is purged; such a state is never the first generation.
fn check_log_end(world: &World, path: &Path, log: &LogStore, covered: Option<u64>) -> Result<(), StartError> {
    let (Some(applied), last) = (covered, log.last_index()) else { return Ok(()) };
    let is_first = matches!(StateDir::current(world, path)?, Some((1, _)));
    if last < applied && is_first { Err(StartError::LogEndsEarly { applied, last }) } else { Ok(()) }
}

/// Makes a state in a directory that holds none that is complete.
async fn rebuild(
    world: &World,
    config: &Config,
    data_dir: &DataDir,
    log: &LogStore,
    state_dir: StateDir,
    store: Arc<dyn StateStore>,
) -> Result<Recovered, StartError> {
    let Some(least_index) = purged_index(log) else {
        if store.get(rows::COVERAGE)?.is_some() {
            // The state that was to be set aside: the last start came no further than to say so.
            drop((store, state_dir));
            let reason = "it was to be set aside";
            let path = data_dir.state_path();
            let (state_dir, store) = StateDir::set_aside(world, &path, config.engine, reason, 0)?;
            let (machine, checkpoint) = restore(&*store)?;
            state_dir.rebuilt(0)?;
            world.probe.mark("state_rebuilt");
            return Ok(Recovered { state_dir, store, machine, checkpoint });
        }
        // Raft hands the whole log to an empty state; it is not purged past the next checkpoint.
        tracing::warn!("the state of this node is rebuilt from its log, which has all entries");
        let (machine, checkpoint) = restore(&*store)?;
        state_dir.rebuilt(0)?;
        world.probe.mark("state_rebuilt");
        return Ok(Recovered { state_dir, store, machine, checkpoint });
    };
    drop(store);
    tracing::warn!(least_index, "the state of this node is fetched from another member before it takes part");
    let store = fetch::fetch(world, config, data_dir, &state_dir, least_index).await.map_err(|problem| {
        let reason = state_dir.must_rebuild().map(|rebuild| rebuild.reason).unwrap_or_default();
        StartError::Rebuild { reason, first_index: log.first_index(), problem, path: data_dir.state_path() }
    })?;
    let (machine, checkpoint) = restore(&*store)?;
    let covered = machine.last_applied.as_ref().map(|id| id.index);
    if covered < Some(least_index) {
        let problem = format!("the state that was fetched has applied {} entries", entries(covered));
        let reason = state_dir.must_rebuild().map(|rebuild| rebuild.reason).unwrap_or_default();
        let (first_index, path) = (log.first_index(), data_dir.state_path());
        return Err(StartError::Rebuild { reason, first_index, problem, path });
    }
    state_dir.rebuilt(covered.unwrap_or(0))?;
    world.probe.mark("state_rebuilt");
    tracing::warn!(index = covered, "the state of this node is complete again");
    Ok(Recovered { state_dir, store, machine, checkpoint })
}

/// Restores the machine from a store, and what its checkpoint covers.
fn restore(store: &dyn StateStore) -> Result<(Machine, Option<SnapshotMeta>), StartError> {
    let Some(coverage) = store.get(rows::COVERAGE)? else {
        let machine = Machine { state: State::new(), last_applied: None, membership: StoredMembership::default() };
        return Ok((machine, None));
    };
    let (mut last_applied, membership) = rows::decode_coverage(&coverage).map_err(StartError::Undecodable)?;
    let state = snapshot::restore_state(store).map_err(not_restored)?;
    let meta = SnapshotMeta { last_log_id: last_applied, last_membership: membership.clone() };
    if let Some(last) = last_applied.as_mut().filter(|_| millstream_streams::mutant!(AppliesTwice)) {
        last.index -= 1;
    }
    Ok((Machine { state, last_applied, membership }, Some(meta)))
}

/// A row that does not verify is damage. Rows that verify and make no sense were written by another version, or by a
/// program that had gone wrong; neither is to be mended by throwing them away.
fn not_restored(error: RestoreError<StoreError>) -> StartError {
    match error {
        RestoreError::Source(error) => error.into(),
        RestoreError::Row { .. } => StartError::Undecodable(error.to_string()),
        RestoreError::Inconsistent { problem } => StartError::Inconsistent(problem),
    }
}

/// Index of the last entry that the log does not have any more. `None` if it has all from the first.
fn purged_index(log: &LogStore) -> Option<u64> {
    log.first_index().checked_sub(1)
}

/// How many entries a state has applied whose last one has this index.
fn entries(last_index: Option<u64>) -> u64 {
    last_index.map_or(0, |index| index + 1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in a test a panic is a failure")]
mod tests {
    use openraft::RaftLogReader;
    use openraft::storage::IOFlushed;
    use openraft::vote::RaftLeaderId;

    use super::*;
    use crate::storage::{Wal, WalOptions};
    use crate::types::{CommittedLeaderId, LogEntry, LogPayload};

    fn id(term: u64, index: u64) -> LogId {
        LogId { leader_id: CommittedLeaderId::new(term, 1), index }
    }

    #[tokio::test]
    async fn a_tail_beside_the_state_is_dropped_and_any_other_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let (world, path) = (World::real(), directory.path().join("wal"));
        let wal = Wal::open(&world, &path, WalOptions::default()).unwrap();
        let mut log = wal.group(0);
        let entries = (0..120).map(|index| LogEntry { log_id: id(4, index), payload: LogPayload::Blank });
        log.append(entries, IOFlushed::noop()).await.unwrap();
        log.purge(id(4, 9)).await.unwrap();
        for applied in [None, Some(id(4, 5)), Some(id(4, 105)), Some(id(5, 120))] {
            mend_log(&log, applied.as_ref()).await.unwrap();
            assert_eq!(log.try_get_log_entries(..).await.unwrap().len(), 110, "{applied:?}");
        }
        mend_log(&log, Some(&id(5, 105))).await.unwrap();
        wal.close().await;
        drop((wal, log));

        let wal = Wal::open(&world, &path, WalOptions::default()).unwrap();
        let mut log = wal.group(0);
        assert_eq!(log.try_get_log_entries(..).await.unwrap().len(), 0);
        assert_eq!((log.purged(), log.first_index()), (Some(id(4, 9)), 10));
        wal.close().await;
    }
}
