//! The entries of one stream: an index of blocks, of which the newest is in memory and open for more.
//!
//! Where a block ends is decided here, when an entry is appended, so it is the same on every replica. So is everything
//! in a block's [`BlockMeta`]. Whether a body is in memory or only in the store is this replica's own affair, and
//! nothing a command can see depends on it.
//!
//! The id of every new entry is greater than every id that stands, deleted or not, in the open block. It need not be
//! greater than every id ever used: the last id may be lowered as long as it is not below an entry. Deleted entries of
//! sealed blocks may then overlap with later blocks, which is harmless: an id is looked up in the last block that
//! begins at or before it, and a block begins at the smallest id it ever held, behind all live entries of that time.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};
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
use crate::trim::{Bound, Verdict};

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
    /// How to undo what was done since [`Entries::begin`].
    journal: Option<Journal>,
}

/// What there was at [`Entries::begin`].
#[derive(Debug)]
struct Journal {
    counters: Counters,
    open: bool,
    /// How many bodies were dead.
    dead_bodies: usize,
    /// The blocks that have changed since, as they were; `None`: there was none.
    blocks: BTreeMap<EntryId, Option<IndexedBlock>>,
}

/// A block as the index knows it.
#[derive(Debug, Clone)]
struct IndexedBlock {
    meta: BlockMeta,
    body: Body,
    /// A freeze has handed out the body under the present version.
    written: bool,
}

#[derive(Debug, Clone)]
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
    /// Bytes of those that are not deleted.
    #[n(2)]
    live_bytes: u64,
    /// The number of the body among all that the stream ever had.
    #[n(3)]
    version: u64,
    /// The smallest id that is not deleted.
    #[n(4)]
    first_live: EntryId,
    /// The greatest id that is not deleted.
    #[n(5)]
    last_live: EntryId,
    /// Which entries are deleted: bit n is the n-th of the body.
    #[n(6)]
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

    /// Whether this is said of that body.
    fn describes(&self, block: &Block) -> bool {
        let size_of = |(_, entry): (usize, &Entry)| size(&entry.fields);
        let ends = (live(block, self.dead).next(), live(block, self.dead).next_back());
        block.entries().len() == self.entries as usize
            && live(block, 0).map(size_of).sum::<u64>() == self.bytes
            && live(block, self.dead).map(size_of).sum::<u64>() == self.live_bytes
            && ends.0.is_some_and(|(_, oldest)| oldest.id == self.first_live)
            && ends.1.is_some_and(|(_, newest)| newest.id == self.last_live)
    }

    /// Of a body without deleted entries; `None` if it is empty.
    fn of(block: &Block, version: u64) -> Option<BlockMeta> {
        let (first, last) = (block.entries().first()?, block.entries().last()?);
        let bytes = block.entries().iter().map(|entry| size(&entry.fields)).sum();
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

/// The entries of a body that are not marked in `dead`, and their positions.
fn live(body: &Block, dead: u128) -> impl DoubleEndedIterator<Item = (usize, &Entry)> {
    body.entries().iter().enumerate().filter(move |(position, _)| !is_dead(dead, *position))
}

/// The entries of a body that are marked in `mask`. Mostly one: does not walk the others.
fn marked(body: &Block, mut mask: u128) -> impl Iterator<Item = &Entry> {
    std::iter::from_fn(move || {
        let position = (mask != 0).then(|| mask.trailing_zeros())?;
        mask &= mask - 1;
        body.entries().get(position as usize)
    })
}

/// What an entry counts for, in bytes.
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
            journal: None,
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
                if let Some(journal) = &mut self.journal {
                    journal.save(*slot.key(), Some(slot.get()));
                }
                let block = slot.get_mut();
                block.meta.entries += 1;
                block.meta.bytes += size;
                block.meta.live_bytes += size;
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
                if let Some(journal) = &mut self.journal {
                    journal.save(id, None);
                }
                let mut body = Block::default();
                body.push(entry);
                self.counters.bodies += 1;
                if let Some(meta) = BlockMeta::of(&body, self.counters.bodies) {
                    let body = Body::Resident(Arc::new(body));
                    self.blocks.insert(id, IndexedBlock { meta, body, written: false });
                }
                self.dirty_blocks.insert(id);
                self.open = true;
            }
        }
        let counters = &mut self.counters;
        counters.last_id = id;
        counters.entries_added = counters.entries_added.saturating_add(1).min(ENTRIES_ADDED_MAX);
        counters.length += 1;
        counters.bytes += size;
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

    /// Deletes whole blocks, the oldest first, as long as the bound does not hold and would not sooner within the block,
    /// and at most `limit` entries; says how many. Does not raise `max_deleted_id`.
    pub(crate) fn trim_blocks(&mut self, bound: Bound, limit: Option<u64>) -> u64 {
        let mut removed = 0;
        while let Some((&first, block)) = self.blocks.first_key_value() {
            let live = block.meta.live();
            let is_excess = match bound {
                Bound::Length(keep) => keep.saturating_add(live) <= self.counters.length,
                Bound::MinId(min_id) => block.meta.last_live < min_id,
                Bound::Bytes(keep) => keep.saturating_add(block.meta.live_bytes) <= self.counters.bytes,
            };
            if !is_excess || limit.is_some_and(|limit| limit < removed + live) {
                break;
            }
            self.drop_block(first);
            removed += live;
        }
        if removed > 0 {
            self.refresh_first_id();
        }
        removed
    }

    /// Deletes entries, the oldest first, until the bound holds or `limit` are gone; says how many. Does not raise
    /// `max_deleted_id`.
    pub(crate) fn trim(&mut self, bound: Bound, limit: Option<u64>, blocks: &dyn Blocks) -> Result<u64, BlockError> {
        let whole = self.trim_blocks(bound, limit);
        let limit = limit.map(|limit| limit - whole);
        Ok(whole + self.trim_where(bound, limit, blocks, |_| Verdict::Remove)?)
    }

    /// Like [`Entries::trim`], of entries that `judge` says may go. It is asked only about those that would.
    pub(crate) fn trim_where(
        &mut self,
        bound: Bound,
        limit: Option<u64>,
        blocks: &dyn Blocks,
        mut judge: impl FnMut(EntryId) -> Verdict,
    ) -> Result<u64, BlockError> {
        let mut removed = 0;
        let mut next = self.blocks.first_key_value().map(|(first, _)| *first);
        while let Some(first) = next {
            let Some(block) = self.blocks.get(&first) else { break };
            let Counters { mut length, mut bytes, .. } = self.counters;
            let is_done = |length: u64, bytes: u64, oldest: EntryId, removed: u64| {
                bound.holds(length, bytes, oldest) || limit.is_some_and(|limit| limit <= removed)
            };
            if is_done(length, bytes, block.meta.first_live, removed) {
                break;
            }
            let body = self.body(first, block, blocks)?;
            let (mut victims, mut stopped) = (0u128, false);
            for (position, entry) in live(&body, block.meta.dead) {
                stopped = is_done(length, bytes, entry.id, removed);
                if stopped {
                    break;
                }
                match judge(entry.id) {
                    Verdict::Remove => {
                        victims |= 1u128 << position;
                        length = length.saturating_sub(1);
                        bytes = bytes.saturating_sub(size(&entry.fields));
                        removed += 1;
                    }
                    Verdict::PassOver => {}
                    Verdict::Stop => {
                        stopped = true;
                        break;
                    }
                }
            }
            next = self.blocks.range((Excluded(first), Unbounded)).next().map(|(first, _)| *first);
            if victims != 0 {
                self.kill(first, &body, victims);
            }
            if stopped {
                break;
            }
        }
        Ok(removed)
    }

    /// Sets the last id, not below that of an entry, and the other numbers that clients may set; false if they are so
    /// already.
    pub(crate) fn set_last_id(&mut self, last_id: EntryId, entries_added: u64, max_deleted_id: EntryId) -> bool {
        debug_assert!(self.last_live().is_none_or(|last_live| last_live <= last_id));
        let counters = Counters { last_id, entries_added, max_deleted_id, ..self.counters };
        if counters == self.counters {
            return false;
        }
        self.counters = counters;
        self.dirty_head = true;
        // Deleted entries still stand in the open block. If they are beyond the last id now, their ids may come again,
        // and the block could not take them: it is sealed.
        let is_beyond = |block: &Block| block.entries().last().is_some_and(|last| last_id < last.id);
        if self.open
            && let Some((&first, IndexedBlock { body: Body::Resident(body), .. })) = self.blocks.last_key_value()
            && is_beyond(body)
        {
            self.dirty_blocks.insert(first);
            self.open = false;
        }
        true
    }

    /// Marks entries of a block as deleted. The block goes if that was all of it, and is rewritten if it was most.
    fn kill(&mut self, first: EntryId, body: &Arc<Block>, victims: u128) {
        let Some(block) = self.blocks.get_mut(&first) else { return };
        let dead = block.meta.dead | victims;
        let (Some((_, oldest)), Some((_, newest))) = (live(body, dead).next(), live(body, dead).next_back()) else {
            self.drop_block(first);
            self.refresh_first_id();
            return;
        };
        if let Some(journal) = &mut self.journal {
            journal.save(first, Some(block));
        }
        let bytes: u64 = marked(body, victims).map(|entry| size(&entry.fields)).sum();
        block.meta.dead = dead;
        block.meta.live_bytes = block.meta.live_bytes.saturating_sub(bytes);
        block.meta.first_live = oldest.id;
        block.meta.last_live = newest.id;
        self.counters.length = self.counters.length.saturating_sub(victims.count_ones().into());
        self.counters.bytes = self.counters.bytes.saturating_sub(bytes);
        self.dirty_blocks.insert(first);
        let mostly_dead = dead.count_ones() * 2 > block.meta.entries;
        if mostly_dead {
            let mut rewritten = Block::default();
            live(body, dead).for_each(|(_, entry)| rewritten.push(entry.clone()));
            if block.written {
                self.dead_bodies.push(BlockKey { stream: self.stream, first, version: block.meta.version });
            }
            self.counters.bodies += 1;
            if let Some(meta) = BlockMeta::of(&rewritten, self.counters.bodies) {
                *block = IndexedBlock { meta, body: Body::Resident(Arc::new(rewritten)), written: false };
            }
        }
        self.refresh_first_id();
    }

    fn drop_block(&mut self, first: EntryId) {
        let Some(block) = self.blocks.remove(&first) else { return };
        self.counters.length = self.counters.length.saturating_sub(block.meta.live());
        self.counters.bytes = self.counters.bytes.saturating_sub(block.meta.live_bytes);
        self.dirty_blocks.insert(first);
        if block.written {
            self.dead_bodies.push(BlockKey { stream: self.stream, first, version: block.meta.version });
        }
        if let Some(journal) = &mut self.journal {
            journal.save(first, Some(&block));
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

/// Taking back what was done.
impl Entries {
    /// From now on, remembers how to undo what is done.
    pub(crate) fn begin(&mut self) {
        self.journal = Some(Journal {
            counters: self.counters,
            open: self.open,
            dead_bodies: self.dead_bodies.len(),
            blocks: BTreeMap::new(),
        });
    }

    /// What was done stands.
    pub(crate) fn commit(&mut self) {
        self.journal = None;
    }

    /// Undoes what was done since [`Entries::begin`]. What was marked as changed stays marked.
    pub(crate) fn rollback(&mut self) {
        let Some(Journal { counters, open, dead_bodies, blocks }) = self.journal.take() else { return };
        self.counters = counters;
        self.open = open;
        self.dead_bodies.truncate(dead_bodies);
        for (first, block) in blocks {
            match block {
                Some(block) => self.blocks.insert(first, block),
                None => self.blocks.remove(&first),
            };
        }
    }
}

impl Journal {
    /// Keeps a block as it was, unless an older state of it is kept.
    fn save(&mut self, first: EntryId, block: Option<&IndexedBlock>) {
        self.blocks.entry(first).or_insert_with(|| block.cloned());
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

    /// Builds the entries from their rows. `head` is what the head row says, to notice rows that are missing.
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
            let is_measured = meta.live_bytes <= meta.bytes && (meta.dead != 0 || meta.live_bytes == meta.bytes);
            let is_numbered = (1..=head.bodies).contains(&meta.version);
            if !in_mask || !in_order || !is_measured || !is_numbered || meta.live() == 0 {
                return Err(malformed(format!("index of block {first} contradicts itself")));
            }
            let body = match body {
                Some(bytes) if n + 1 == count => {
                    let body = Block::decode(bytes.into()).map_err(|error| malformed(error.to_string()))?;
                    if !meta.describes(&body) {
                        return Err(malformed(format!("open block {first} is not what its index says")));
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
            entries.counters.bytes = entries.counters.bytes.saturating_add(meta.live_bytes);
            let written = matches!(body, Body::Stored);
            entries.blocks.insert(first, IndexedBlock { meta, body, written });
        }
        let Counters { length, bytes, .. } = entries.counters;
        if (length, bytes) != (head.length, head.bytes) {
            let in_head = format!("{} of {} bytes in the head", head.length, head.bytes);
            return Err(malformed(format!("{length} entries of {bytes} bytes in blocks, {in_head}")));
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

#[cfg(test)]
mod tests;
