//! Blocks: entries packed by the hundred, the unit in which a stream is stored, trimmed and read.
//!
//! ```text
//! body:  version | count | entry * count                                   (all numbers LEB128 but the version byte)
//! entry: ms - previous ms | seq, or seq - previous seq if ms is the same | length | packed fields
//! ```
//!
//! A body never changes once it is written: deletions are marks in the block's index row, and a block that is mostly
//! marks is written anew under a version that no other body of the stream has or had. While a block is open for more,
//! each checkpoint may write what is new of it as a body of its own, a part: the parts together are the body.

use std::sync::Arc;

use bytes::Bytes;

use crate::codec::varint;
use crate::entry::{Entry, Fields};
use crate::entry_id::EntryId;
use crate::limits::BLOCK_ENTRIES;
use crate::rows::RowKey;

const VERSION: u8 = 1;

/// The body of a block: 1 to [`BLOCK_ENTRIES`] entries, their ids ascending. Also holds entries deleted since it was
/// written: which those are is known to the state alone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Block {
    entries: Vec<Entry>,
}

impl Block {
    /// The entries, oldest first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Adds an entry whose id is greater than those before it.
    pub(crate) fn push(&mut self, entry: Entry) {
        debug_assert!(self.entries.last().is_none_or(|last| last.id < entry.id));
        self.entries.push(entry);
    }

    /// Where `id` stands in [`Block::entries`], or would stand.
    pub(crate) fn position(&self, id: EntryId) -> Result<usize, usize> {
        self.entries.binary_search_by_key(&id, |entry| entry.id)
    }

    /// The bytes of the body.
    pub fn encode(&self) -> Vec<u8> {
        self.encode_from(0)
    }

    /// The bytes of a part of the body: the entries from that position on.
    pub(crate) fn encode_from(&self, position: usize) -> Vec<u8> {
        let entries = self.entries.get(position..).unwrap_or_default();
        let bytes: usize = entries.iter().map(|entry| entry.fields.packed_len() + 16).sum();
        let mut out = Vec::with_capacity(bytes + 4);
        out.push(VERSION);
        varint::put(&mut out, entries.len() as u64);
        let mut previous = EntryId::MIN;
        for Entry { id, fields } in entries {
            varint::put(&mut out, id.ms - previous.ms);
            varint::put(&mut out, if id.ms == previous.ms { id.seq - previous.seq } else { id.seq });
            varint::put_bytes(&mut out, fields.packed());
            previous = *id;
        }
        out
    }

    /// Reads what [`Block::encode`] wrote. The fields share the memory of `bytes`.
    ///
    /// The error names no key, as this function knows none: wrap it in [`BlockError::Corrupt`] with the key at hand.
    pub fn decode(bytes: Bytes) -> Result<Block, BlockFormatError> {
        let mut rest = match bytes.split_first() {
            Some((&VERSION, rest)) => rest,
            Some((&version, _)) => return Err(BlockFormatError(format!("block version {version} is not known"))),
            None => return Err(BlockFormatError("no bytes".to_owned())),
        };
        let entries = decode_entries(&bytes, &mut rest).ok_or_else(|| BlockFormatError("malformed".to_owned()))?;
        if !rest.is_empty() {
            return Err(BlockFormatError(format!("{} surplus bytes", rest.len())));
        }
        Ok(Block { entries })
    }

    /// Adds the next part of the body, whose first entry stands at `position`.
    pub fn append_part(&mut self, position: u32, part: Block) -> Result<(), BlockFormatError> {
        let length = self.entries.len();
        if position as usize != length {
            return Err(BlockFormatError(format!("a part of it begins at {position} instead of {length}")));
        }
        let is_later = |first: &Entry| self.entries.last().is_none_or(|last| last.id < first.id);
        if !part.entries.first().is_some_and(is_later) || BLOCK_ENTRIES < length + part.entries.len() {
            return Err(BlockFormatError(format!("the part at {position} does not fit behind the others")));
        }
        self.entries.extend(part.entries);
        Ok(())
    }

    /// The first entries of the body, so many of them. `None`: it does not have so many.
    pub fn cut(self: &Arc<Self>, entries: u32) -> Option<Arc<Block>> {
        match self.entries.get(..entries as usize)? {
            all if all.len() == self.entries.len() => Some(self.clone()),
            first => Some(Arc::new(Block { entries: first.to_vec() })),
        }
    }
}

fn decode_entries(bytes: &Bytes, rest: &mut &[u8]) -> Option<Vec<Entry>> {
    let count = usize::try_from(varint::take(rest)?).ok()?;
    if count == 0 || count > BLOCK_ENTRIES {
        return None;
    }
    let mut entries = Vec::with_capacity(count);
    let mut previous = EntryId::MIN;
    for _ in 0..count {
        let ms_step = varint::take(rest)?;
        let seq = varint::take(rest)?;
        let id = if ms_step == 0 {
            EntryId::new(previous.ms, previous.seq.checked_add(seq)?)
        } else {
            EntryId::new(previous.ms.checked_add(ms_step)?, seq)
        };
        if id <= previous {
            return None;
        }
        let packed = varint::take_bytes(rest)?;
        entries.push(Entry { id, fields: Fields::from_packed(bytes.slice_ref(packed))? });
        previous = id;
    }
    Some(entries)
}

/// The bytes are no block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BlockFormatError(pub String);

impl BlockFormatError {
    /// The same, said of a certain block.
    pub fn of(self, key: BlockKey) -> BlockError {
        BlockError::Corrupt { key, problem: self.0 }
    }
}

/// Names one version of a block's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockKey {
    /// The stream's incarnation: a number that is given once, so that a stream that is deleted and made anew has other
    /// keys.
    pub stream: u64,
    /// The id of the first entry that the block ever held.
    pub first: EntryId,
    /// The number of the body among all that the stream ever had, from 1: ids can be used again once the stream's last
    /// id was lowered, so the first id alone would not tell bodies apart.
    pub version: u64,
}

impl BlockKey {
    /// The key of the row that holds the body, or its first part.
    pub fn row_key(&self) -> RowKey {
        RowKey::body(self, 0)
    }

    /// The keys of the rows of the further parts, from those that begin at `position` on: from the first key to the
    /// second.
    pub fn parts_from(&self, position: u32) -> (RowKey, RowKey) {
        (RowKey::body(self, position.max(1)), RowKey::body(self, u32::MAX))
    }
}

/// Why a block cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// There is no such body in the store. In apply this ends the node; for a query it means that the plan is stale
    /// (the block was deleted or rewritten since): ask again.
    #[error("block {key:?} is not stored")]
    Missing {
        /// The block.
        key: BlockKey,
    },
    /// The body does not verify.
    #[error("block {key:?} is corrupt: {problem}")]
    Corrupt {
        /// The block.
        key: BlockKey,
        /// What is wrong, for a person.
        problem: String,
    },
}

/// Where stored bodies come from.
pub trait Blocks {
    /// The first `entries` entries of the body, verified, and no more. A body with fewer is [`BlockError::Corrupt`].
    fn get(&self, key: BlockKey, entries: u32) -> Result<Arc<Block>, BlockError>;
}

/// No stored bodies at all: for a state that was never thawed, whose blocks are all in memory.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoBlocks;

impl Blocks for NoBlocks {
    fn get(&self, key: BlockKey, _: u32) -> Result<Arc<Block>, BlockError> {
        Err(BlockError::Missing { key })
    }
}
