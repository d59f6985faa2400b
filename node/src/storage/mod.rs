//! What a node keeps on disk: its identity, the Raft log, the state.
//!
//! - [`DataDir`]: the directory, whose it is, and the lock that keeps a second process out.
//! - [`wal`]: the log of all groups, our own; [`LogStore`] is openraft's view of one group's.
//! - [`store`]: the state, as rows in an engine behind [`StateStore`]; [`StateDir`] replaces it as a whole.
//! - [`SnapshotWriter`], [`SnapshotFile`]: the state as one file, to be sent to another node.
//!
//! Nothing here knows what entries and rows mean. All files are reached through [`crate::world::World::fs`], except
//! those of sled, which knows only the machine's.

mod data_dir;
mod log_store;
mod snapshot_file;
pub mod store;
pub mod wal;

pub use data_dir::{DataDir, DataDirError, Identity, Inspected, Restoring};
pub use log_store::LogStore;
pub use snapshot_file::{SnapshotFile, SnapshotWriter};
pub use store::{Batch, NextGeneration, Rebuild, StateDir, StateStore, StoreError, Verified, verify_all};
pub use wal::{LogCounts, ScrubCursor, Scrubbed, Wal, WalError, WalOptions};
