//! The state as rows: keys and values whose meaning only the floors above know.
//!
//! An engine (sled, redb, or memory for small data) stores small values under raw keys; the layer over it (`rows.rs`) gives
//! every row a checksum and splits what is too large for a page of the engine. [`StateDir`] replaces a whole store by
//! another when a snapshot is installed.

mod generation;
mod guard;
mod memory;
mod pages;
mod rebuild;
mod redb;
mod rows;
mod sled;

use std::io;

use bytes::Bytes;

pub use self::generation::{NextGeneration, StateDir};
pub use self::rebuild::Rebuild;

/// Why a store cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system or the engine says so. The node must stop.
    #[error("the state store failed: {0}")]
    Io(#[from] io::Error),
    /// The state was written by another engine.
    #[error(
        "the state was written by the engine {found}, not {wanted}: start with engine {found}, or with an empty data \
         directory under a new node id"
    )]
    OtherEngine {
        /// The engine that wrote it.
        found: String,
        /// The one that was to read it.
        wanted: &'static str,
    },
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

    /// Bytes that the store's files take on disk.
    fn disk_bytes(&self) -> Result<u64, StoreError>;

    /// One step of reading and verifying everything: the rows from `start` on, with their pieces and with pieces that
    /// belong to no row, until some `bytes_max` bytes were read. Goes on at [`Verified::next`]. Fails only if the engine
    /// cannot read; rows that do not verify are listed. May run beside commits.
    fn verify(&self, start: &[u8], bytes_max: u64) -> Result<Verified, StoreError>;
}

/// What one step of [`StateStore::verify`] has read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// Rows.
    pub rows: u64,
    /// Bytes of keys and values as the engine holds them.
    pub bytes: u64,
    /// What does not verify, one sentence for each row. At most [`DAMAGED_MAX`] are kept in one step.
    pub damaged: Vec<String>,
    /// Where the next step starts. `None` when everything has been read.
    pub next: Option<Vec<u8>>,
}

/// Sentences in one [`Verified`].
pub const DAMAGED_MAX: usize = 100;

/// Bytes that [`verify_all`] reads between two calls of `progress`: 8 MiB.
const STEP_BYTES: u64 = 8 << 20;

/// Reads and verifies everything in a store. `progress` is told the sum so far after each step.
pub fn verify_all(store: &dyn StateStore, mut progress: impl FnMut(&Verified)) -> Result<Verified, StoreError> {
    let mut all = Verified { next: Some(Vec::new()), ..Verified::default() };
    while let Some(start) = all.next.take() {
        let step = store.verify(&start, STEP_BYTES)?;
        all.rows += step.rows;
        all.bytes += step.bytes;
        all.damaged.extend(step.damaged);
        all.damaged.truncate(DAMAGED_MAX);
        all.next = step.next;
        progress(&all);
    }
    Ok(all)
}
