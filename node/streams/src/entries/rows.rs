//! The rows of a stream's entries: an index row for each block, and the rows of its body.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::index::{IndexedBlock, Open};
use super::{Entries, IndexRow};
use crate::block::{Block, BlockError, BlockKey, Blocks};
use crate::entry_id::EntryId;
use crate::error::DecodeError;
use crate::freeze::{FrozenBody, Piece};
use crate::lag::Counters;
use crate::limits::BLOCK_ENTRIES;

impl Entries {
    /// Whether the head row must be written; asking makes it clean.
    pub(crate) fn take_dirty_head(&mut self) -> bool {
        std::mem::take(&mut self.dirty_head)
    }

    /// Takes what changed since the last freeze.
    pub(crate) fn freeze(&mut self, frozen: &mut Piece) {
        if !self.gone.is_empty() {
            frozen.gone_blocks.push((self.stream, std::mem::take(&mut self.gone)));
        }
        for first in std::mem::take(&mut self.dirty_blocks) {
            let open = self.open_at(first).map(|open| open.last);
            let Some(block) = self.blocks.get_mut(&first) else { continue };
            if let Some(held) = &block.held
                && u32::from(block.written) < block.meta.entries
            {
                let key = BlockKey { stream: self.stream, first, version: block.meta.version };
                let (written_from, held_from) = (block.written.into(), block.held_from.into());
                frozen.bodies.push(FrozenBody { key, written_from, held_from, entries: held.clone() });
                block.parts |= 1u128 << block.written;
                block.written = block.meta.entries as u8;
            }
            block.indexed = true;
            let parts = (block.parts != 1).then_some(block.parts);
            frozen.index.push((self.stream, first, IndexRow { meta: block.meta, body: None, open, parts }));
        }
    }

    /// Entries of a block are stored: lets them leave memory, if the body is still the present one. What it held may have
    /// to be freed: that is left to the caller.
    pub(crate) fn thaw(&mut self, body: &FrozenBody) -> Option<Arc<Block>> {
        let is_last = self.is_last(body.key.first);
        let block = self.blocks.get_mut(&body.key.first)?;
        if block.meta.version != body.key.version || u32::from(block.written) < body.written() {
            return None;
        }
        let held = block.drop_first(body.written())?;
        if let (Some(open), Some(last)) = (self.open.as_mut().filter(|_| is_last), body.entries.entries().last()) {
            open.last_stored = last.id;
        }
        Some(held)
    }

    /// All rows, each body in one. Which entries are in memory, and how bodies are stored, does not show.
    pub(crate) fn all_rows(&self, blocks: &dyn Blocks, frozen: &mut Piece) -> Result<(), BlockError> {
        for (&first, block) in &self.blocks {
            let open = self.open_at(first).map(|open| open.last);
            frozen.index.push((self.stream, first, IndexRow { meta: block.meta, body: None, open, parts: None }));
            let mut body = Block::default();
            self.view(first, block, blocks)?.iter().for_each(|(_, entry)| body.push(entry.clone()));
            frozen.put(self.key(first, block).row_key(), body.encode().into());
        }
        Ok(())
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
        for (n, (first, row)) in rows.into_iter().enumerate() {
            let meta = row.meta;
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
            let (block, open) = row.into_block().map_err(|problem| malformed(format!("block {first}: {problem}")))?;
            if let Some(open) = open {
                if n + 1 != count {
                    return Err(malformed(format!("block {first} is open but not the last")));
                }
                // It will be appended to, so its order matters even where entries are deleted.
                if open.last < meta.last_live || head.last_id < open.last {
                    return Err(malformed(format!(
                        "open block {first} does not end before the last id {}",
                        head.last_id
                    )));
                }
            }
            entries.open = open;
            entries.counters.length += meta.live();
            entries.counters.bytes = entries.counters.bytes.saturating_add(meta.live_bytes.into());
            entries.blocks.insert(first, Box::new(block));
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

impl IndexRow {
    fn into_block(self) -> Result<(IndexedBlock, Option<Open>), String> {
        let IndexRow { meta, body, open, parts } = self;
        let Some(body) = body else {
            let parts = parts.unwrap_or(1);
            if parts & 1 == 0 || parts.checked_shr(meta.entries).unwrap_or(0) != 0 {
                return Err("the rows of its body contradict its length".to_owned());
            }
            let written = meta.entries as u8;
            let block = IndexedBlock { meta, parts, held: None, held_from: written, written, indexed: true };
            return Ok((block, open.map(|last| Open { last, last_stored: last })));
        };
        // An open block as the first version of this code wrote it.
        let body = Block::decode(body.into()).map_err(|error| error.to_string())?;
        let Some(last) = body.entries().last().map(|entry| entry.id).filter(|_| meta.describes(&body)) else {
            return Err("its body is not what its index says".to_owned());
        };
        let held = Some(Arc::new(body));
        let block = IndexedBlock { meta, parts: 0, held, held_from: 0, written: 0, indexed: true };
        Ok((block, Some(Open { last, last_stored: EntryId::MIN })))
    }
}
