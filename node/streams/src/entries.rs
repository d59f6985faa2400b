//! The entries of one stream: an index of blocks, of which the newest is in memory and open for more.
//!
//! Where a block ends is decided here, when an entry is appended, so it is the same on every replica. So is everything
//! in a block's [`BlockMeta`]. Whether a body is in memory or only in the store is this replica's own affair, and
//! nothing a command can see depends on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use minicbor::{Decode, Encode};

use crate::block::{Block, BlockError, BlockKey, Blocks};
use crate::codec;
use crate::entry::{Entry, Fields};
use crate::entry_id::EntryId;
use crate::error::DecodeError;
use crate::lag::Counters;
use crate::limits::{BLOCK_BYTES, BLOCK_ENTRIES, ENTRIES_ADDED_MAX};
use crate::rows::{RowKey, RowMap};
use crate::trim::{TrimPolicy, TrimThreshold};

/// What an entry costs in a block beside its fields, in bytes: its id and its length.
const ENTRY_OVERHEAD: u64 = 16;

/// The entries of a stream.
#[derive(Debug)]
pub(crate) struct Entries {
    /// The stream's incarnation.
    stream: u64,
    counters: Counters,
    /// By the first id that the block ever held.
    blocks: BTreeMap<EntryId, IndexedBlock>,
    /// Whether the last block takes more entries. Then its body is in memory.
    open: bool,
    /// The counters changed since the last freeze.
    dirty_head: bool,
    /// Blocks whose index rows changed, or that are gone, since the last freeze.
    dirty_blocks: BTreeSet<EntryId>,
    /// Bodies that were written and are needed no more.
    dead_bodies: Vec<BlockKey>,
}

/// A block as the index knows it.
#[derive(Debug)]
struct IndexedBlock {
    meta: BlockMeta,
    body: Body,
    /// A freeze has handed out the body under the present version.
    written: bool,
}

#[derive(Debug)]
enum Body {
    Resident(Arc<Block>),
    Stored,
}

/// What is known of a block without its body. Part of the index row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
struct BlockMeta {
    /// Entries in the body, deleted ones included.
    #[n(0)]
    entries: u32,
    /// Bytes of those entries.
    #[n(1)]
    bytes: u64,
    /// How often the body was rewritten.
    #[n(2)]
    version: u32,
    /// The smallest id that is not deleted.
    #[n(3)]
    first_live: EntryId,
    /// The greatest id that is not deleted.
    #[n(4)]
    last_live: EntryId,
    /// Which entries are deleted: bit n is the n-th of the body.
    #[n(5)]
    #[cbor(with = "codec::wide")]
    dead: u128,
}

impl BlockMeta {
    /// Entries that are not deleted, at least 1.
    fn live(&self) -> u64 {
        u64::from(self.entries.saturating_sub(self.dead.count_ones()))
    }

    fn fits(&self, size: u64) -> bool {
        (self.entries as usize) < BLOCK_ENTRIES && self.bytes.saturating_add(size) <= BLOCK_BYTES as u64
    }

    /// Of a body without deleted entries; `None` if it is empty.
    fn of(block: &Block, version: u32) -> Option<BlockMeta> {
        let (first, last) = (block.entries().first()?, block.entries().last()?);
        Some(BlockMeta {
            entries: block.entries().len() as u32,
            bytes: block.entries().iter().map(|entry| size(&entry.fields)).sum(),
            version,
            first_live: first.id,
            last_live: last.id,
            dead: 0,
        })
    }
}

/// The index row of a block.
#[derive(Debug, Encode, Decode)]
pub(crate) struct IndexRow {
    #[n(0)]
    meta: BlockMeta,
    /// The body, if the block is the open one.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    body: Option<Vec<u8>>,
}

/// Whether the entry at `position` of a body is marked in `dead`.
pub(crate) fn is_dead(dead: u128, position: usize) -> bool {
    dead & (1u128 << position) != 0
}

fn size(fields: &Fields) -> u64 {
    fields.packed_len() as u64 + ENTRY_OVERHEAD
}

impl Entries {
    pub(crate) fn new(stream: u64) -> Entries {
        Entries {
            stream,
            counters: Counters::default(),
            blocks: BTreeMap::new(),
            open: false,
            dirty_head: true,
            dirty_blocks: BTreeSet::new(),
            dead_bodies: Vec::new(),
        }
    }

    /// The stream's length and the ids that matter.
    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The greatest id that is not deleted; `None` if the stream is empty.
    pub(crate) fn last_live(&self) -> Option<EntryId> {
        self.blocks.last_key_value().map(|(_, block)| block.meta.last_live)
    }

    /// Appends an entry whose id is greater than the last.
    pub(crate) fn append(&mut self, id: EntryId, fields: &Fields) {
        debug_assert!(self.counters.last_id < id);
        let size = size(fields);
        let entry = Entry { id, fields: fields.clone() };
        match self.blocks.last_entry() {
            Some(mut slot) if self.open && slot.get().meta.fits(size) => {
                self.dirty_blocks.insert(*slot.key());
                let block = slot.get_mut();
                block.meta.entries += 1;
                block.meta.bytes += size;
                block.meta.last_live = id;
                // Copies the block if a reader holds it; otherwise the entry is added in place.
                if let Body::Resident(body) = &mut block.body {
                    Arc::make_mut(body).push(entry);
                }
            }
            sealed => {
                // The block that was open until now gets a body row of its own.
                if let Some(slot) = sealed {
                    self.dirty_blocks.insert(*slot.key());
                }
                let mut body = Block::default();
                body.push(entry);
                let meta = BlockMeta { entries: 1, bytes: size, version: 0, first_live: id, last_live: id, dead: 0 };
                let body = Body::Resident(Arc::new(body));
                self.blocks.insert(id, IndexedBlock { meta, body, written: false });
                self.dirty_blocks.insert(id);
                self.open = true;
            }
        }
        let counters = &mut self.counters;
        counters.last_id = id;
        counters.entries_added = counters.entries_added.saturating_add(1).min(ENTRIES_ADDED_MAX);
        counters.length += 1;
        if counters.length == 1 {
            counters.first_id = id;
        }
        self.dirty_head = true;
    }

    /// Deletes the entry; false if there is none.
    pub(crate) fn delete(&mut self, id: EntryId, blocks: &dyn Blocks) -> Result<bool, BlockError> {
        let Some((&first, block)) = self.blocks.range(..=id).next_back() else { return Ok(false) };
        if !(block.meta.first_live..=block.meta.last_live).contains(&id) {
            return Ok(false);
        }
        let body = self.body(first, block, blocks)?;
        let Ok(position) = body.position(id) else { return Ok(false) };
        if is_dead(block.meta.dead, position) {
            return Ok(false);
        }
        self.kill(first, &body, 1u128 << position);
        self.counters.max_deleted_id = self.counters.max_deleted_id.max(id);
        Ok(true)
    }

    /// Deletes the oldest entries until the threshold holds; says how many. Does not raise `max_deleted_id`.
    pub(crate) fn trim(&mut self, policy: &TrimPolicy, blocks: &dyn Blocks) -> Result<u64, BlockError> {
        let mut removed = 0;
        while let Some((&first, block)) = self.blocks.first_key_value() {
            let (meta, length) = (&block.meta, self.counters.length);
            let live = meta.live();
            let (done, whole) = match policy.threshold {
                TrimThreshold::MaxLength(keep) => (length <= keep, length - live >= keep),
                TrimThreshold::MinId(min_id) => (meta.first_live >= min_id, meta.last_live < min_id),
            };
            if done || policy.limit().is_some_and(|limit| removed + live > limit) {
                break;
            }
            if whole {
                self.drop_block(first);
                self.counters.length -= live;
                removed += live;
                continue;
            }
            if policy.approximate {
                break;
            }
            let body = self.body(first, block, blocks)?;
            let dead = meta.dead;
            let oldest = body.entries().iter().enumerate().filter(|(position, _)| !is_dead(dead, *position));
            let excess = |(count, id): (usize, EntryId)| match policy.threshold {
                TrimThreshold::MaxLength(keep) => (count as u64) < length - keep,
                TrimThreshold::MinId(min_id) => id < min_id,
            };
            let mut victims = 0u128;
            for (count, (position, entry)) in oldest.enumerate() {
                if !excess((count, entry.id)) {
                    break;
                }
                victims |= 1u128 << position;
                removed += 1;
            }
            self.kill(first, &body, victims);
            break;
        }
        if removed > 0 {
            self.refresh_first_id();
        }
        Ok(removed)
    }

    /// Marks entries of a block as deleted. The block goes if that was all of it, and is rewritten if it was most.
    fn kill(&mut self, first: EntryId, body: &Arc<Block>, victims: u128) {
        let is_open = self.open && self.blocks.last_key_value().is_some_and(|(last, _)| *last == first);
        let Some(block) = self.blocks.get_mut(&first) else { return };
        block.meta.dead |= victims;
        self.counters.length -= u64::from(victims.count_ones());
        self.dirty_blocks.insert(first);
        let dead = block.meta.dead;
        let live = || body.entries().iter().enumerate().filter(|(position, _)| !is_dead(dead, *position));
        let (Some((_, oldest)), Some((_, newest))) = (live().next(), live().next_back()) else {
            self.drop_block(first);
            self.refresh_first_id();
            return;
        };
        block.meta.first_live = oldest.id;
        block.meta.last_live = newest.id;
        let mostly_dead = dead.count_ones() * 2 > block.meta.entries;
        if mostly_dead {
            let mut rewritten = Block::default();
            live().for_each(|(_, entry)| rewritten.push(entry.clone()));
            // The open block has no body row yet, so its version need not tell bodies apart.
            let version = if is_open { block.meta.version } else { block.meta.version.saturating_add(1) };
            if block.written {
                self.dead_bodies.push(BlockKey { stream: self.stream, first, version: block.meta.version });
            }
            if let Some(meta) = BlockMeta::of(&rewritten, version) {
                *block = IndexedBlock { meta, body: Body::Resident(Arc::new(rewritten)), written: false };
            }
        }
        self.refresh_first_id();
    }

    fn drop_block(&mut self, first: EntryId) {
        let Some(block) = self.blocks.remove(&first) else { return };
        self.dirty_blocks.insert(first);
        if block.written {
            self.dead_bodies.push(BlockKey { stream: self.stream, first, version: block.meta.version });
        }
        // Only the last block may be open: if this was not the last, the last one still is what it was.
        let was_last = self.blocks.last_key_value().is_none_or(|(last, _)| *last < first);
        if was_last {
            self.open = false;
        }
    }

    fn refresh_first_id(&mut self) {
        self.counters.first_id = self.blocks.first_key_value().map_or(EntryId::MIN, |(_, b)| b.meta.first_live);
        self.dirty_head = true;
    }

    fn body(&self, first: EntryId, block: &IndexedBlock, blocks: &dyn Blocks) -> Result<Arc<Block>, BlockError> {
        match &block.body {
            Body::Resident(body) => Ok(body.clone()),
            Body::Stored => {
                let key = BlockKey { stream: self.stream, first, version: block.meta.version };
                let body = blocks.get(key)?;
                // The marks of deleted entries count positions: with another body they would hit other entries.
                if body.entries().len() != block.meta.entries as usize {
                    let problem = format!("{} entries instead of {}", body.entries().len(), block.meta.entries);
                    return Err(BlockError::Corrupt { key, problem });
                }
                Ok(body)
            }
        }
    }

    /// The blocks that may hold ids from `start` on, oldest first.
    fn blocks_from(&self, start: EntryId) -> impl Iterator<Item = (EntryId, &IndexedBlock)> {
        let from = self.blocks.range(..=start).next_back().map_or(start, |(first, _)| *first);
        self.blocks.range(from..).map(|(first, block)| (*first, block))
    }

    /// Shows the entries after `after` to `visit`, oldest first, until it says no.
    pub(crate) fn scan(
        &self,
        after: EntryId,
        blocks: &dyn Blocks,
        mut visit: impl FnMut(&Entry) -> bool,
    ) -> Result<(), BlockError> {
        for (first, block) in self.blocks_from(after) {
            if block.meta.last_live <= after {
                continue;
            }
            let body = self.body(first, block, blocks)?;
            for (position, entry) in body.entries().iter().enumerate() {
                if entry.id > after && !is_dead(block.meta.dead, position) && !visit(entry) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Looks up entries by id, remembering the last block: ids mostly come in order.
    pub(crate) fn cursor<'a>(&'a self, blocks: &'a dyn Blocks) -> Cursor<'a> {
        Cursor { entries: self, blocks, at: None }
    }

    /// What a query needs of the blocks that overlap a range: the body or its key, and the marks. Newest first if
    /// `reverse`. The number is that of the live entries.
    pub(crate) fn plan(
        &self,
        start: EntryId,
        end: EntryId,
        reverse: bool,
    ) -> impl Iterator<Item = (Result<Arc<Block>, BlockKey>, u128, u64)> {
        let from = self.blocks.range(..=start).next_back().map_or(start, |(first, _)| *first);
        // `range` panics on a range that ends before it starts.
        let mut range = (start <= end).then(|| self.blocks.range(from..=end));
        std::iter::from_fn(move || {
            let range = range.as_mut()?;
            if reverse { range.next_back() } else { range.next() }
        })
        .filter(move |(_, block)| block.meta.last_live >= start && block.meta.first_live <= end)
        .map(move |(&first, block)| {
            let body = match &block.body {
                Body::Resident(body) => Ok(body.clone()),
                Body::Stored => Err(BlockKey { stream: self.stream, first, version: block.meta.version }),
            };
            (body, block.meta.dead, block.meta.live())
        })
    }
}

/// Looks up entries of one stream by id.
pub(crate) struct Cursor<'a> {
    entries: &'a Entries,
    blocks: &'a dyn Blocks,
    at: Option<(EntryId, &'a IndexedBlock, Arc<Block>)>,
}

impl Cursor<'_> {
    /// The entry; `None` if it is not in the stream.
    pub(crate) fn get(&mut self, id: EntryId) -> Result<Option<&Entry>, BlockError> {
        let Some((&first, block)) = self.entries.blocks.range(..=id).next_back() else { return Ok(None) };
        if !(block.meta.first_live..=block.meta.last_live).contains(&id) {
            return Ok(None);
        }
        if self.at.as_ref().is_none_or(|(at, _, _)| *at != first) {
            self.at = Some((first, block, self.entries.body(first, block, self.blocks)?));
        }
        let Some((_, block, body)) = &self.at else { return Ok(None) };
        let live = body.position(id).ok().filter(|position| !is_dead(block.meta.dead, *position));
        Ok(live.and_then(|position| body.entries().get(position)))
    }

    /// Whether the entry is in the stream.
    pub(crate) fn contains(&mut self, id: EntryId) -> Result<bool, BlockError> {
        Ok(self.get(id)?.is_some())
    }
}

/// Rows: the index rows of the blocks, the open body within its own, and the bodies of the others.
impl Entries {
    fn is_open(&self, first: EntryId) -> bool {
        self.open && self.blocks.last_key_value().is_some_and(|(last, _)| *last == first)
    }

    fn index_row(&self, first: EntryId, block: &IndexedBlock) -> Bytes {
        let body = match &block.body {
            Body::Resident(body) if self.is_open(first) => Some(body.encode()),
            _ => None,
        };
        codec::encode(&IndexRow { meta: block.meta, body }).into()
    }

    /// Whether the head row must be written; asking makes it clean.
    pub(crate) fn take_dirty_head(&mut self) -> bool {
        std::mem::take(&mut self.dirty_head)
    }

    /// Takes the rows that changed since the last freeze.
    pub(crate) fn freeze(&mut self, rows: &mut RowMap, frozen: &mut Vec<(BlockKey, Arc<Block>)>) {
        for key in std::mem::take(&mut self.dead_bodies) {
            rows.delete(key.row_key());
        }
        for first in std::mem::take(&mut self.dirty_blocks) {
            let row_key = RowKey::block_index(self.stream, first);
            let Some(block) = self.blocks.get(&first) else {
                rows.delete(row_key);
                continue;
            };
            rows.put(row_key, self.index_row(first, block));
            let is_open = self.is_open(first);
            let Some(block) = self.blocks.get_mut(&first) else { continue };
            if let Body::Resident(body) = &block.body
                && !is_open
                && !block.written
            {
                let key = BlockKey { stream: self.stream, first, version: block.meta.version };
                rows.put(key.row_key(), body.encode().into());
                frozen.push((key, body.clone()));
                block.written = true;
            }
        }
    }

    /// The body is stored: lets it leave memory, if it is still the present one.
    pub(crate) fn thaw(&mut self, key: BlockKey) {
        if self.is_open(key.first) {
            return;
        }
        if let Some(block) = self.blocks.get_mut(&key.first)
            && block.written
            && block.meta.version == key.version
        {
            block.body = Body::Stored;
        }
    }

    /// All rows, bodies included.
    pub(crate) fn all_rows(&self, blocks: &dyn Blocks, rows: &mut RowMap) -> Result<(), BlockError> {
        for (&first, block) in &self.blocks {
            rows.put(RowKey::block_index(self.stream, first), self.index_row(first, block));
            if !self.is_open(first) {
                let key = BlockKey { stream: self.stream, first, version: block.meta.version };
                rows.put(key.row_key(), self.body(first, block, blocks)?.encode().into());
            }
        }
        Ok(())
    }

    /// Every row that may have been written, as deletions: the stream is gone.
    pub(crate) fn delete_rows(&mut self, rows: &mut RowMap) {
        for (&first, block) in &self.blocks {
            self.dirty_blocks.insert(first);
            if block.written {
                self.dead_bodies.push(BlockKey { stream: self.stream, first, version: block.meta.version });
            }
        }
        self.blocks.clear();
        self.freeze(rows, &mut Vec::new());
    }

    /// Builds the entries from their rows. `length` is what the head row says, to notice rows that are missing.
    pub(crate) fn restore(
        stream: u64,
        head: Counters,
        rows: BTreeMap<EntryId, IndexRow>,
    ) -> Result<Entries, DecodeError> {
        let malformed = |problem: String| DecodeError::Malformed { problem };
        let mut entries = Entries::new(stream);
        let count = rows.len();
        for (n, (first, IndexRow { meta, body })) in rows.into_iter().enumerate() {
            let in_mask =
                meta.entries as usize <= BLOCK_ENTRIES && meta.dead.checked_shr(meta.entries).unwrap_or(0) == 0;
            let in_order = first <= meta.first_live
                && meta.first_live <= meta.last_live
                && entries.last_live().is_none_or(|last| last < first);
            if !in_mask || !in_order || meta.live() == 0 {
                return Err(malformed(format!("index of block {first} contradicts itself")));
            }
            let body = match body {
                Some(bytes) if n + 1 == count => {
                    let body = Block::decode(bytes.into()).map_err(|error| malformed(error.to_string()))?;
                    if body.entries().len() != meta.entries as usize {
                        return Err(malformed(format!("open block {first} has another number of entries")));
                    }
                    // It will be appended to, so its order matters even where entries are deleted.
                    if body.entries().last().is_some_and(|last| head.last_id < last.id) {
                        return Err(malformed(format!("open block {first} goes beyond the last id {}", head.last_id)));
                    }
                    entries.open = true;
                    Body::Resident(Arc::new(body))
                }
                Some(_) => return Err(malformed(format!("block {first} is open but not the last"))),
                None => Body::Stored,
            };
            entries.counters.length += meta.live();
            let written = matches!(body, Body::Stored);
            entries.blocks.insert(first, IndexedBlock { meta, body, written });
        }
        if entries.counters.length != head.length {
            return Err(malformed(format!(
                "{} entries in blocks, {} in the head",
                entries.counters.length, head.length
            )));
        }
        // The next entry is appended behind the last id: a lower one would break the order of ids.
        if entries.last_live().is_some_and(|last| head.last_id < last) {
            return Err(malformed(format!("last id {} is smaller than that of an entry", head.last_id)));
        }
        entries.counters = head;
        entries.refresh_first_id();
        entries.dirty_head = false;
        Ok(entries)
    }
}
