//! What is known of a block beside its entries, and where those are.

use std::sync::Arc;

use minicbor::{Decode, Encode};

use crate::block::{Block, BlockKey};
use crate::codec;
use crate::entry::{Entry, Fields};
use crate::entry_id::EntryId;
use crate::freeze::Rows;
use crate::limits::{BLOCK_BYTES, BLOCK_ENTRIES};
use crate::rows::RowKey;

/// What an entry costs in a block beside its fields, in bytes: its id and its length.
const ENTRY_OVERHEAD: u64 = 16;

/// A block as the index knows it. There is one in memory for each hundred entries of each stream, so it is kept small.
///
/// The first entries of the body may be in the store only: then those from `held_from` on are in memory.
#[derive(Debug, Clone)]
pub(super) struct IndexedBlock {
    pub(super) meta: BlockMeta,
    /// The rows of the body that freezes have handed out: bit n says that one begins with the n-th entry.
    pub(super) parts: u128,
    /// The entries from the position `held_from` on; `None`: that is the end.
    pub(super) held: Option<Arc<Block>>,
    pub(super) held_from: u8,
    /// How many entries freezes have handed out under the present version.
    pub(super) written: u8,
    /// A freeze has handed out an index row.
    pub(super) indexed: bool,
}

/// What is known of a block without its body. Part of the index row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) struct BlockMeta {
    /// Entries in the body, deleted ones included.
    #[n(0)]
    pub(super) entries: u32,
    /// Bytes of those entries.
    #[n(1)]
    pub(super) bytes: u32,
    /// Bytes of those that are not deleted.
    #[n(2)]
    pub(super) live_bytes: u32,
    /// The number of the body among all that the stream ever had.
    #[n(3)]
    pub(super) version: u64,
    /// The smallest id that is not deleted.
    #[n(4)]
    pub(super) first_live: EntryId,
    /// The greatest id that is not deleted.
    #[n(5)]
    pub(super) last_live: EntryId,
    /// Which entries are deleted: bit n is the n-th of the body.
    #[n(6)]
    #[cbor(with = "codec::wide")]
    pub(super) dead: u128,
}

/// The index row of a block.
#[derive(Debug, Encode, Decode)]
pub(crate) struct IndexRow {
    #[n(0)]
    pub(super) meta: BlockMeta,
    /// The body, if the block is the open one and was written by the first version of this code.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub(super) body: Option<Vec<u8>>,
    /// If the block is the open one: the greatest id in its body, deleted or not.
    #[n(2)]
    pub(super) open: Option<EntryId>,
    /// The rows of the body, if there is more than one. Differs between replicas.
    #[n(3)]
    #[cbor(with = "codec::wide_option", has_nil)]
    pub(super) parts: Option<u128>,
}

/// What must be known of the open block alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Open {
    /// The greatest id in its body, deleted or not.
    pub(super) last: EntryId,
    /// The greatest id in its body that is not in memory; 0-0 if all are.
    pub(super) last_stored: EntryId,
}

/// A block, or a body, that is needed no more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GoneBlock {
    first: EntryId,
    version: u64,
    /// The rows of the body.
    parts: u128,
    /// There is an index row to delete.
    index: bool,
}

impl GoneBlock {
    /// Of a block that goes as a whole; `None` if nothing of it was ever handed out.
    pub(super) fn whole(first: EntryId, block: &IndexedBlock) -> Option<GoneBlock> {
        let gone = GoneBlock { first, version: block.meta.version, parts: block.parts, index: block.indexed };
        (gone.index || gone.parts != 0).then_some(gone)
    }

    /// Of a body that is replaced by another.
    pub(super) fn body(first: EntryId, block: &IndexedBlock) -> Option<GoneBlock> {
        let gone = GoneBlock { first, version: block.meta.version, parts: block.parts, index: false };
        (gone.parts != 0).then_some(gone)
    }

    /// Lists the rows to delete.
    pub(crate) fn list(&self, stream: u64, rows: &mut Rows) {
        if self.index {
            rows.delete(RowKey::block_index(stream, self.first));
        }
        let key = BlockKey { stream, first: self.first, version: self.version };
        for position in positions(self.parts) {
            rows.delete(RowKey::body(&key, position));
        }
    }
}

impl IndexedBlock {
    /// A block with a body in memory of which nothing is deleted; `None` if that is empty.
    pub(super) fn of(body: Block, version: u64) -> Option<IndexedBlock> {
        let meta = BlockMeta::of(&body, version)?;
        Some(IndexedBlock { meta, parts: 0, held: Some(Arc::new(body)), held_from: 0, written: 0, indexed: false })
    }

    /// How many entries are in the store alone.
    pub(super) fn stored(&self) -> u32 {
        self.held_from.into()
    }

    /// Adds an entry behind the others.
    pub(super) fn push(&mut self, entry: Entry, size: u64) {
        self.meta.entries += 1;
        self.meta.bytes = self.meta.bytes.saturating_add(size as u32);
        self.meta.live_bytes = self.meta.live_bytes.saturating_add(size as u32);
        self.meta.last_live = entry.id;
        // Copies what is in memory if a reader holds it; otherwise the entry is added in place.
        Arc::make_mut(self.held.get_or_insert_default()).push(entry);
    }

    /// Lets the first so many entries leave memory. Returns what held them.
    pub(super) fn drop_first(&mut self, entries: u32) -> Option<Arc<Block>> {
        let count = entries.checked_sub(self.stored()).filter(|count| *count > 0)? as usize;
        let held = self.held.take()?;
        let rest = held.entries().get(count..).unwrap_or_default();
        if !rest.is_empty() {
            let mut tail = Block::default();
            rest.iter().for_each(|entry| tail.push(entry.clone()));
            self.held = Some(Arc::new(tail));
        }
        self.held_from = entries.min(self.meta.entries) as u8;
        Some(held)
    }
}

impl BlockMeta {
    /// Entries that are not deleted, at least 1.
    pub(super) fn live(&self) -> u64 {
        u64::from(self.entries.saturating_sub(self.dead.count_ones()))
    }

    pub(super) fn fits(&self, size: u64) -> bool {
        (self.entries as usize) < BLOCK_ENTRIES && u64::from(self.bytes).saturating_add(size) <= BLOCK_BYTES as u64
    }

    /// Whether this is said of that body.
    pub(super) fn describes(&self, block: &Block) -> bool {
        let view = View::whole(Arc::new(block.clone()));
        let size_of = |(_, entry): (usize, &Entry)| size(&entry.fields);
        let ends = (view.live(self.dead).next(), view.live(self.dead).next_back());
        block.entries().len() == self.entries as usize
            && view.live(0).map(size_of).sum::<u64>() == u64::from(self.bytes)
            && view.live(self.dead).map(size_of).sum::<u64>() == u64::from(self.live_bytes)
            && ends.0.is_some_and(|(_, oldest)| oldest.id == self.first_live)
            && ends.1.is_some_and(|(_, newest)| newest.id == self.last_live)
    }

    /// Of a body without deleted entries; `None` if it is empty.
    fn of(block: &Block, version: u64) -> Option<BlockMeta> {
        let (first, last) = (block.entries().first()?, block.entries().last()?);
        let bytes: u64 = block.entries().iter().map(|entry| size(&entry.fields)).sum();
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        Some(BlockMeta {
            entries: block.entries().len() as u32,
            bytes,
            live_bytes: bytes,
            version,
            first_live: first.id,
            last_live: last.id,
            dead: 0,
        })
    }
}

impl IndexRow {
    /// Whether the body is what this row says of it.
    pub(crate) fn describes(&self, body: &Arc<Block>) -> bool {
        body.cut(self.meta.entries).is_some_and(|body| self.meta.describes(&body))
    }

    /// See [`crate::rows::body_of`].
    pub(crate) fn body_of(&self, stream: u64, first: EntryId) -> Option<(BlockKey, u32)> {
        let key = BlockKey { stream, first, version: self.meta.version };
        self.body.is_none().then_some((key, self.meta.entries))
    }

    /// See [`crate::rows::body_rows`].
    pub(crate) fn body_rows(&self, stream: u64, first: EntryId) -> impl Iterator<Item = RowKey> {
        let key = self.body_of(stream, first).map(|(key, _)| key);
        let positions = positions(self.parts.unwrap_or(1));
        key.into_iter().flat_map(move |key| positions.clone().map(move |position| RowKey::body(&key, position)))
    }
}

/// The entries of a body, as far as they were wanted.
#[derive(Debug)]
pub(super) struct View {
    /// The first of them, if they were not in memory and were wanted.
    stored: Option<Arc<Block>>,
    held: Option<Arc<Block>>,
    held_from: usize,
}

impl View {
    /// Of a block, with what was read of it from the store.
    pub(super) fn new(block: &IndexedBlock, stored: Option<Arc<Block>>) -> View {
        View { stored, held: block.held.clone(), held_from: block.held_from.into() }
    }

    /// Of a body in memory.
    pub(super) fn whole(body: Arc<Block>) -> View {
        View { stored: None, held: Some(body), held_from: 0 }
    }

    /// Whether the entries before those in memory are there, too, or there are none.
    pub(super) fn is_whole(&self) -> bool {
        self.stored.is_some() || self.held_from == 0
    }

    fn slices(&self) -> (&[Entry], &[Entry]) {
        (self.stored.as_deref().map_or(&[], Block::entries), self.held.as_deref().map_or(&[], Block::entries))
    }

    /// The entries with their positions in the body.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (usize, &Entry)> {
        let (stored, held) = self.slices();
        let held_from = self.held_from;
        stored.iter().enumerate().chain(held.iter().enumerate().map(move |(n, entry)| (held_from + n, entry)))
    }

    /// Those that are not marked in `dead`.
    pub(super) fn live(&self, dead: u128) -> impl DoubleEndedIterator<Item = (usize, &Entry)> {
        self.iter().filter(move |(position, _)| !is_dead(dead, *position))
    }

    /// The entry at a position.
    pub(super) fn get(&self, position: usize) -> Option<&Entry> {
        let (stored, held) = self.slices();
        match position.checked_sub(self.held_from) {
            Some(n) => held.get(n),
            None => stored.get(position),
        }
    }

    /// The entries that are marked in `mask`. Mostly one: does not walk the others.
    pub(super) fn marked(&self, mask: u128) -> impl Iterator<Item = &Entry> {
        positions(mask).filter_map(|position| self.get(position as usize))
    }

    /// Where the entry stands in the body.
    pub(super) fn position(&self, id: EntryId) -> Option<usize> {
        match &self.held {
            Some(held) if held.entries().first().is_some_and(|first| first.id <= id) => {
                held.position(id).ok().map(|n| self.held_from + n)
            }
            _ => self.stored.as_ref()?.position(id).ok(),
        }
    }
}

/// Whether the entry at `position` of a body is marked in `dead`.
pub(crate) fn is_dead(dead: u128, position: usize) -> bool {
    dead & (1u128 << position) != 0
}

/// The positions that are marked, ascending.
fn positions(mut mask: u128) -> impl Iterator<Item = u32> + Clone {
    std::iter::from_fn(move || {
        let position = (mask != 0).then(|| mask.trailing_zeros())?;
        mask &= mask - 1;
        Some(position)
    })
}

/// What an entry counts for, in bytes.
pub(super) fn size(fields: &Fields) -> u64 {
    fields.packed_len() as u64 + ENTRY_OVERHEAD
}
