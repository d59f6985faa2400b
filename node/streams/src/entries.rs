//! The entries of one stream: an index of blocks, of which the newest is open for more.
//!
//! Where a block ends is decided here, when an entry is appended, so it is the same on every replica. So is everything
//! in a block's index row but the rows of its body. Which entries are in memory and which only in the store is this
//! replica's own affair, and nothing a command can see depends on it. Appending never reads.
//!
//! The id of every new entry is greater than every id that stands, deleted or not, in the open block. It need not be
//! greater than every id ever used: the last id may be lowered as long as it is not below an entry. Deleted entries of
//! sealed blocks may then overlap with later blocks, which is harmless: an id is looked up in the last block that
//! begins at or before it, and a block begins at the smallest id it ever held, behind all live entries of that time.

mod index;
mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

pub(crate) use self::index::{GoneBlock, IndexRow, is_dead};
use self::index::{IndexedBlock, Open, View, size};
use crate::block::{Block, BlockError, BlockKey, Blocks};
use crate::entry::{Entry, Fields};
use crate::entry_id::EntryId;
use crate::lag::Counters;
use crate::limits::ENTRIES_ADDED_MAX;
use crate::trim::{Bound, Verdict};

/// The entries of a stream.
#[derive(Debug)]
pub(crate) struct Entries {
    /// The stream's incarnation.
    stream: u64,
    counters: Counters,
    /// By the first id that the block ever held. In boxes: the map has room for eleven where one is, and most streams may
    /// have no more.
    blocks: BTreeMap<EntryId, Box<IndexedBlock>>,
    /// The last block takes more entries.
    open: Option<Open>,
    /// The counters changed since the last freeze.
    dirty_head: bool,
    /// Blocks whose index rows changed since the last freeze. Some may be gone.
    dirty_blocks: BTreeSet<EntryId>,
    /// Blocks and bodies of which rows were handed out and that are needed no more.
    gone: Vec<GoneBlock>,
    /// How to undo what was done since [`Entries::begin`].
    journal: Option<Box<Journal>>,
}

/// What there was at [`Entries::begin`].
#[derive(Debug)]
struct Journal {
    counters: Counters,
    open: Option<Open>,
    /// How many blocks and bodies were gone.
    gone: usize,
    /// The blocks that have changed since, as they were; `None`: there was none.
    blocks: BTreeMap<EntryId, Option<IndexedBlock>>,
}

/// What a plan needs of one block.
#[derive(Debug, Clone)]
pub(crate) struct PlanPart {
    /// Where the first entries are, and how many, if they are wanted and not in memory.
    pub(crate) stored: Option<(BlockKey, u32)>,
    /// The entries in memory.
    pub(crate) held: Option<Arc<Block>>,
    /// The position in the body of the first of them.
    pub(crate) held_from: usize,
    /// Which entries are deleted, by position.
    pub(crate) dead: u128,
    /// How many are not.
    pub(crate) live: u64,
}

impl Entries {
    pub(crate) fn new(stream: u64) -> Entries {
        Entries {
            stream,
            counters: Counters::default(),
            blocks: BTreeMap::new(),
            open: None,
            dirty_head: true,
            dirty_blocks: BTreeSet::new(),
            gone: Vec::new(),
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
        match (self.blocks.last_entry(), &mut self.open) {
            (Some(mut slot), Some(open)) if slot.get().meta.fits(size) => {
                self.dirty_blocks.insert(*slot.key());
                if let Some(journal) = &mut self.journal {
                    journal.save(*slot.key(), Some(slot.get()));
                }
                slot.get_mut().push(entry, size);
                open.last = id;
            }
            (sealed, open) => {
                // The block that was open until now is not, and its row must say so.
                if let Some(slot) = sealed.filter(|_| open.is_some()) {
                    self.dirty_blocks.insert(*slot.key());
                }
                if let Some(journal) = &mut self.journal {
                    journal.save(id, None);
                }
                let mut body = Block::default();
                body.push(entry);
                self.counters.bodies += 1;
                if let Some(block) = IndexedBlock::of(body, self.counters.bodies) {
                    self.blocks.insert(id, Box::new(block));
                }
                self.dirty_blocks.insert(id);
                *open = Some(Open { last: id, last_stored: EntryId::MIN });
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
        let body = self.view(first, block, blocks)?;
        let Some(position) = body.position(id) else { return Ok(false) };
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
                Bound::Bytes(keep) => keep.saturating_add(block.meta.live_bytes.into()) <= self.counters.bytes,
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
            let body = self.view(first, block, blocks)?;
            let (mut victims, mut stopped) = (0u128, false);
            for (position, entry) in body.live(block.meta.dead) {
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
        if self.open.is_some_and(|open| last_id < open.last) {
            self.dirty_blocks.extend(self.blocks.last_key_value().map(|(first, _)| *first));
            self.open = None;
        }
        true
    }

    /// Marks entries of a block as deleted. The block goes if that was all of it, and is rewritten if it was most.
    fn kill(&mut self, first: EntryId, body: &View, victims: u128) {
        let is_last = self.is_last(first);
        let Some(block) = self.blocks.get_mut(&first) else { return };
        let dead = block.meta.dead | victims;
        let (Some((_, oldest)), Some((_, newest))) = (body.live(dead).next(), body.live(dead).next_back()) else {
            self.drop_block(first);
            self.refresh_first_id();
            return;
        };
        if let Some(journal) = &mut self.journal {
            journal.save(first, Some(block));
        }
        let bytes: u64 = body.marked(victims).map(|entry| size(&entry.fields)).sum();
        block.meta.dead = dead;
        block.meta.live_bytes = block.meta.live_bytes.saturating_sub(bytes as u32);
        block.meta.first_live = oldest.id;
        block.meta.last_live = newest.id;
        self.counters.length = self.counters.length.saturating_sub(victims.count_ones().into());
        self.counters.bytes = self.counters.bytes.saturating_sub(bytes);
        self.dirty_blocks.insert(first);
        let mostly_dead = dead.count_ones() * 2 > block.meta.entries;
        if mostly_dead {
            let mut rewritten = Block::default();
            body.live(dead).for_each(|(_, entry)| rewritten.push(entry.clone()));
            self.gone.extend(GoneBlock::body(first, block));
            self.counters.bodies += 1;
            if let Some(rewritten) = IndexedBlock::of(rewritten, self.counters.bodies) {
                **block = IndexedBlock { indexed: block.indexed, ..rewritten };
            }
            if let Some(open) = self.open.as_mut().filter(|_| is_last) {
                *open = Open { last: newest.id, last_stored: EntryId::MIN };
            }
        }
        self.refresh_first_id();
    }

    fn drop_block(&mut self, first: EntryId) {
        // Only the last block may be open: if this is not the last, the last one still is what it was.
        if self.is_last(first) {
            self.open = None;
        }
        let Some(block) = self.blocks.remove(&first) else { return };
        self.counters.length = self.counters.length.saturating_sub(block.meta.live());
        self.counters.bytes = self.counters.bytes.saturating_sub(block.meta.live_bytes.into());
        self.gone.extend(GoneBlock::whole(first, &block));
        if let Some(journal) = &mut self.journal {
            journal.save(first, Some(&block));
        }
    }

    fn is_last(&self, first: EntryId) -> bool {
        self.blocks.last_key_value().is_some_and(|(last, _)| *last == first)
    }

    /// What is known of the block if it is the open one.
    fn open_at(&self, first: EntryId) -> Option<Open> {
        self.open.filter(|_| self.is_last(first))
    }

    fn refresh_first_id(&mut self) {
        self.counters.first_id = self.blocks.first_key_value().map_or(EntryId::MIN, |(_, b)| b.meta.first_live);
        self.dirty_head = true;
    }

    fn key(&self, first: EntryId, block: &IndexedBlock) -> BlockKey {
        BlockKey { stream: self.stream, first, version: block.meta.version }
    }

    /// All entries of a block.
    fn view(&self, first: EntryId, block: &IndexedBlock, blocks: &dyn Blocks) -> Result<View, BlockError> {
        self.view_from(EntryId::MIN, first, block, blocks)
    }

    /// The entries of a block, at least those from the id `start` on. What is in memory is not read.
    fn view_from(
        &self,
        start: EntryId,
        first: EntryId,
        block: &IndexedBlock,
        blocks: &dyn Blocks,
    ) -> Result<View, BlockError> {
        let stored = match self.stored_from(start, first, block) {
            Some((key, entries)) => Some(get(blocks, key, entries)?),
            None => None,
        };
        Ok(View::new(block, stored))
    }

    /// Where the entries of a block are that are not in memory, and how many, unless all of them are before `start`.
    fn stored_from(&self, start: EntryId, first: EntryId, block: &IndexedBlock) -> Option<(BlockKey, u32)> {
        let is_wanted = match (self.open_at(first), block.held.as_ref().and_then(|held| held.entries().first())) {
            (Some(open), _) => start <= open.last_stored,
            (None, Some(held)) => start < held.id,
            (None, None) => true,
        };
        (is_wanted && block.stored() > 0).then(|| (self.key(first, block), block.stored()))
    }

    /// The blocks that may hold ids from `start` on, oldest first.
    fn blocks_from(&self, start: EntryId) -> impl Iterator<Item = (EntryId, &IndexedBlock)> {
        let from = self.blocks.range(..=start).next_back().map_or(start, |(first, _)| *first);
        self.blocks.range(from..).map(|(first, block)| (*first, &**block))
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
            let body = match after.next() {
                Some(start) => self.view_from(start, first, block, blocks)?,
                None => return Ok(()),
            };
            for (position, entry) in body.iter() {
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

    /// What a query needs of the blocks that overlap a range. Newest first if `reverse`.
    pub(crate) fn plan(&self, start: EntryId, end: EntryId, reverse: bool) -> impl Iterator<Item = PlanPart> {
        let from = self.blocks.range(..=start).next_back().map_or(start, |(first, _)| *first);
        // `range` panics on a range that ends before it starts.
        let mut range = (start <= end).then(|| self.blocks.range(from..=end));
        std::iter::from_fn(move || {
            let range = range.as_mut()?;
            if reverse { range.next_back() } else { range.next() }
        })
        .filter(move |(_, block)| block.meta.last_live >= start && block.meta.first_live <= end)
        .map(move |(&first, block)| PlanPart {
            stored: self.stored_from(start, first, block),
            held: block.held.clone(),
            held_from: block.held_from.into(),
            dead: block.meta.dead,
            live: block.meta.live(),
        })
    }
}

/// The first `entries` entries of a body, and no others.
pub(crate) fn get(blocks: &dyn Blocks, key: BlockKey, entries: u32) -> Result<Arc<Block>, BlockError> {
    let body = blocks.get(key, entries)?;
    // The marks of deleted entries count positions: with another body they would hit other entries.
    if body.entries().len() != entries as usize {
        let problem = format!("{} entries instead of {entries}", body.entries().len());
        return Err(BlockError::Corrupt { key, problem });
    }
    Ok(body)
}

/// Looks up entries of one stream by id.
pub(crate) struct Cursor<'a> {
    entries: &'a Entries,
    blocks: &'a dyn Blocks,
    at: Option<(EntryId, &'a IndexedBlock, View)>,
}

impl Cursor<'_> {
    /// The entry; `None` if it is not in the stream.
    pub(crate) fn get(&mut self, id: EntryId) -> Result<Option<&Entry>, BlockError> {
        let Some((&first, block)) = self.entries.blocks.range(..=id).next_back() else { return Ok(None) };
        if !(block.meta.first_live..=block.meta.last_live).contains(&id) {
            return Ok(None);
        }
        let is_there = |at: &View| at.is_whole() || self.entries.stored_from(id, first, block).is_none();
        if !self.at.as_ref().is_some_and(|(at, _, body)| *at == first && is_there(body)) {
            self.at = Some((first, block, self.entries.view_from(id, first, block, self.blocks)?));
        }
        let Some((_, block, body)) = &self.at else { return Ok(None) };
        let live = body.position(id).filter(|position| !is_dead(block.meta.dead, *position));
        Ok(live.and_then(|position| body.get(position)))
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
        let (counters, open, gone) = (self.counters, self.open, self.gone.len());
        self.journal = Some(Box::new(Journal { counters, open, gone, blocks: BTreeMap::new() }));
    }

    /// What was done stands.
    pub(crate) fn commit(&mut self) {
        self.journal = None;
    }

    /// Undoes what was done since [`Entries::begin`]. What was marked as changed stays marked.
    pub(crate) fn rollback(&mut self) {
        let Some(journal) = self.journal.take() else { return };
        let Journal { counters, open, gone, blocks } = *journal;
        self.counters = counters;
        self.open = open;
        self.gone.truncate(gone);
        for (first, block) in blocks {
            match block {
                Some(block) => self.blocks.insert(first, Box::new(block)),
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

#[cfg(test)]
mod tests;
