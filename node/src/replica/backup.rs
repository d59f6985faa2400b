//! Backups: the newest checkpoint as a file, and the first node of a new cluster made from one.
//!
//! A backup is a snapshot, byte by byte. What a new cluster changes in it: its id, the records of the old cluster's nodes,
//! and the membership. The log goes on from the backup's index, so receipts, session ids and all that hangs on them stay
//! valid; sessions are the clients' and stay.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use millstream_streams::rows::in_new_cluster;
use openraft::storage::RaftLogStorage;
use tokio::sync::OwnedMutexGuard;

use super::{Freshness, Replica, Unavailable, rows};
use crate::config::Engine;
use crate::network::SnapshotBytes;
use crate::storage::{
    Batch, DataDir, DataDirError, Restoring, SnapshotFile, StateDir, StoreError, Wal, WalError, WalOptions,
};
use crate::types::{LogId, Membership, PeerNode, StoredMembership, Vote};
use crate::world::World;

/// Bytes of rows written in one commit: 4 MiB.
const BATCH_BYTES: usize = 4 << 20;

/// A backup that can be read, as long as this lives.
pub struct Backup {
    /// The cluster it is of.
    pub cluster_id: Arc<str>,
    /// It holds the effect of all commands up to this log index, and of no other.
    pub log_index: u64,
    world: World,
    bytes: Arc<dyn SnapshotBytes>,
    /// No other is made meanwhile.
    _alone: OwnedMutexGuard<()>,
}

impl Backup {
    /// How long it is, in bytes.
    pub fn length(&self) -> u64 {
        self.bytes.len()
    }

    /// The bytes from `offset` on, `length` of them.
    pub async fn read(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let bytes = self.bytes.clone();
        self.world
            .blocking(move || {
                let mut data = vec![0; length];
                bytes.read_at(offset, &mut data)?;
                Ok(data.into())
            })
            .await
    }
}

/// Why there is no backup.
#[derive(Debug)]
pub enum BackupError {
    /// No state that is as new as asked.
    Unavailable(Unavailable),
    /// It cannot be written on this node.
    Io(io::Error),
}

impl Replica {
    /// A backup that covers everything acknowledged before the call. While another one lives, it is refused as too much.
    pub async fn backup(&self) -> Result<Backup, BackupError> {
        let alone = self.inner.shared.outgoing.begin_backup();
        let alone = alone.ok_or(BackupError::Unavailable(Unavailable::Overloaded { limit: 1 }))?;
        self.read_barrier(Freshness::Linearizable).await.map_err(BackupError::Unavailable)?;
        let shared = &self.inner.shared;
        let copy = shared.outgoing.copy_applied(shared).await.map_err(BackupError::Io)?;
        let cluster_id = shared.identities().cluster_id.clone();
        let (log_index, bytes) = (copy.index(), Arc::from(copy.bytes()));
        Ok(Backup { cluster_id, log_index, world: shared.world.clone(), bytes, _alone: alone })
    }
}

/// What to make of a backup.
#[derive(Debug, Clone)]
pub struct Restore {
    /// The backup.
    pub file: PathBuf,
    /// The data directory of the node: absent or empty. One that is there stays, as it may be a mount point.
    pub data_dir: PathBuf,
    /// The node's id in the new cluster.
    pub node_id: u64,
    /// Where other nodes will reach it: host:port.
    pub peer_advertise: String,
    /// The engine that will hold the state.
    pub engine: Engine,
    /// Size in bytes of the first segment of its log.
    pub segment_bytes: u64,
}

/// What was made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The new cluster's id.
    pub cluster_id: String,
    /// The log goes on after this index.
    pub log_index: u64,
    /// Rows of the state.
    pub rows: u64,
}

/// Why a backup was not restored. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The backup cannot be read, or is not as it was written.
    #[error(
        "{path} cannot be restored: {problem}; copy it once more from where it was made, or take another backup",
        path = path.display()
    )]
    Backup {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// There is something in the data directory.
    #[error("{} is not empty: give the node an empty directory, or remove that one", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// The data directory cannot be made.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The log cannot be made.
    #[error("the log of the new node cannot be made: {0}")]
    Wal(#[from] WalError),
    /// The state cannot be made.
    #[error(
        "the state of the new node cannot be made: {0}; see that the disk works, has room and can be written to, and \
         restore again"
    )]
    Store(#[from] StoreError),
    /// The operating system says so.
    #[error(
        "{what}: {source}; see that the disk works, has room and can be written to, and restore again",
        what = path.display()
    )]
    Io {
        /// About which file.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
}

/// Makes the data directory of the first node of a new cluster from a backup. Everything is made elsewhere and put in its
/// place at the end, so a crash leaves nothing that could be taken for a node.
pub async fn restore(world: &World, restore: &Restore) -> Result<Restored, RestoreError> {
    let backup = |problem: io::Error| RestoreError::Backup { path: restore.file.clone(), problem: problem.to_string() };
    let target = &restore.data_dir;
    let not_empty = || RestoreError::NotEmpty { path: target.clone() };
    if !Restoring::is_possible(world, target)? {
        return Err(not_empty());
    }
    // First to its end, so that nothing is made of what is damaged.
    let covered = verify(world, &restore.file).map_err(backup)?;
    let (Some(last_log_id), _) = rows::decode_coverage(&covered).map_err(io::Error::other).map_err(backup)? else {
        return Err(backup(io::Error::other("it is of a cluster without a single log entry")));
    };

    let restoring = Restoring::begin(world, target)?.ok_or_else(not_empty)?;
    let cluster_id = format!("{:016x}{:016x}", world.random.next_u64(), world.random.next_u64());
    let rows = {
        let data_dir = DataDir::open(world, restoring.path(), restore.node_id)?;
        data_dir.set_cluster_id(&cluster_id)?;
        seed_log(world, &data_dir, restore.segment_bytes, last_log_id).await?;
        let membership = Membership::from(std::collections::BTreeMap::from([(
            restore.node_id,
            PeerNode { peer_address: restore.peer_advertise.clone() },
        )]));
        let membership = StoredMembership::new(Some(last_log_id), membership);
        let coverage = rows::encode_coverage(Some(&last_log_id), &membership);
        seed_state(world, restore, &data_dir, &cluster_id, coverage)?
    };
    restoring.finish()?;
    Ok(Restored { cluster_id, log_index: last_log_id.index, rows })
}

/// Reads a backup to its end, and returns what it covers.
fn verify(world: &World, path: &Path) -> io::Result<Bytes> {
    let mut coverage = None;
    for row in SnapshotFile::open(world, path)? {
        let (key, value) = row?;
        if key == rows::COVERAGE {
            coverage = Some(value);
        }
    }
    coverage.ok_or_else(|| io::Error::other("it does not say what it covers"))
}

/// A log that has seen all up to `last_log_id` and kept nothing of it. With a vote of that term: the next leader's must be
/// greater than that of the entries before it.
async fn seed_log(
    world: &World,
    data_dir: &DataDir,
    segment_bytes: u64,
    last_log_id: LogId,
) -> Result<(), RestoreError> {
    let wal = Wal::open(world, &data_dir.wal_path(), WalOptions { segment_bytes, ..WalOptions::default() })?;
    let mut log = wal.group(0);
    let wal_path = data_dir.wal_path();
    let io = |source| RestoreError::Io { path: wal_path.clone(), source };
    let leader_id = last_log_id.committed_leader_id();
    log.save_vote(&Vote::new(leader_id.term, leader_id.node_id)).await.map_err(io)?;
    log.purge(last_log_id).await.map_err(io)?;
    log.barrier().await.map_err(io)?;
    wal.close().await;
    Ok(())
}

fn seed_state(
    world: &World,
    restore: &Restore,
    data_dir: &DataDir,
    cluster_id: &str,
    coverage: Bytes,
) -> Result<u64, RestoreError> {
    let backup = |problem: io::Error| RestoreError::Backup { path: restore.file.clone(), problem: problem.to_string() };
    let (_state_dir, store) = StateDir::open(world, &data_dir.state_path(), restore.engine)?;
    let (mut batch, mut bytes, mut rows) = (Batch::new(), 0, 0);
    for row in SnapshotFile::open(world, &restore.file).map_err(backup)? {
        let (key, value) = row.map_err(backup)?;
        if key == rows::COVERAGE {
            continue;
        }
        let value = match rows::from_core_key(&key) {
            Some(core_key) => in_new_cluster(&core_key, value, cluster_id)
                .map_err(|error| backup(io::Error::other(error.to_string())))?,
            None => Some(value),
        };
        let Some(value) = value else { continue };
        rows += 1;
        bytes += key.len() + value.len();
        batch.push((key, Some(value)));
        if BATCH_BYTES <= bytes {
            store.commit(std::mem::take(&mut batch))?;
            bytes = 0;
        }
    }
    // Last: without it there is no state.
    batch.push((rows::COVERAGE.to_vec(), Some(coverage)));
    store.commit(batch)?;
    Ok(rows)
}
