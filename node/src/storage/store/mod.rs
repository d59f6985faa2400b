//! The state as rows: keys and values whose meaning only the floors above know.
//!
//! An engine (sled, or memory for the simulator) stores small values under raw keys; the layer over it (`rows.rs`) gives
//! every row a checksum and splits what is too large for a page of the engine. [`StateDir`] replaces a whole store by
//! another when a snapshot is installed.

mod generation;
mod memory;
mod rows;
mod sled;

use std::io;

use bytes::Bytes;

pub use self::generation::{NextGeneration, StateDir};

/// Why a store cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system or the engine says so. The node must stop.
    #[error("the state store failed: {0}")]
    Io(#[from] io::Error),
    /// What is stored is not what was written. The store must be replaced.
    #[error("the state store is damaged: {what}")]
    Corrupt {
        /// What is wrong, and where.
        what: String,
    },
}

impl StoreError {
    pub(super) fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt { what: what.into() }
    }
}

/// Rows to put (`Some`) and to delete (`None`).
pub type Batch = Vec<(Vec<u8>, Option<Bytes>)>;

/// Rows found by a scan, in the order of their keys.
pub type Rows<'s> = Box<dyn Iterator<Item = Result<(Vec<u8>, Bytes), StoreError>> + Send + 's>;

/// Stores rows. All calls block on files.
pub trait StateStore: Send + Sync + 'static {
    /// The value of a row, verified. `None` if there is no such row.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// The rows from `start` on and before `end`, verified, in the order of their keys. A commit during the scan may or
    /// may not be seen, row by row.
    fn scan(&self, start: &[u8], end: &[u8]) -> Rows<'_>;

    /// Writes all of the batch or nothing; on stable storage when it returns. If a key is named twice, the later one
    /// counts.
    fn commit(&self, batch: Batch) -> Result<(), StoreError>;
}
