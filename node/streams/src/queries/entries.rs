//! XRANGE, XREVRANGE and XREAD: entries by id.

use minicbor::{Decode, Encode};

use crate::block::{Block, BlockError, Blocks};
use crate::entries::{PlanPart, get, is_dead};
use crate::entry::Entry;
use crate::entry_id::EntryId;
use crate::limits::PLAN_BLOCKS_MAX;
use crate::names::StreamName;
use crate::state::State;

/// Asks for the entries between two ids (XRANGE, XREVRANGE).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct RangeQuery {
    /// The stream; a missing one is empty.
    #[n(0)]
    pub stream: StreamName,
    /// The smallest id of the range.
    #[n(1)]
    pub start: EntryId,
    /// The greatest id of the range.
    #[n(2)]
    pub end: EntryId,
    /// From the end to the start.
    #[n(3)]
    pub reverse: bool,
    /// Entries at most. 0: none.
    #[n(4)]
    pub count: u32,
}

/// Asks for the entries after an id (XREAD).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadQuery {
    /// The stream; a missing one is empty.
    pub stream: StreamName,
    /// Entries with greater ids.
    pub after: EntryId,
    /// Entries at most. 0: none.
    pub count: u32,
}

/// What a plan found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntryPage {
    /// The entries, in the order asked for.
    pub entries: Vec<Entry>,
    /// There is more in the range: ask again from behind the last entry.
    pub more: bool,
    /// Because the next entry did not fit into the bytes.
    pub is_full: bool,
}

/// How to answer a range: holds the blocks that are in memory and names those that are stored. Run it after the lock on
/// the state is released.
#[derive(Debug, Clone)]
pub struct EntryPlan {
    pub(crate) parts: Vec<PlanPart>,
    pub(crate) start: EntryId,
    pub(crate) end: EntryId,
    pub(crate) reverse: bool,
    pub(crate) count: u32,
    /// There are blocks in the range that the plan does not name.
    pub(crate) truncated: bool,
}

impl State {
    /// Plans a range. The plan names [`PLAN_BLOCKS_MAX`](crate::limits::PLAN_BLOCKS_MAX) blocks at most.
    pub fn range(&self, query: &RangeQuery) -> EntryPlan {
        let &RangeQuery { ref stream, start, end, reverse, count } = query;
        let mut plan = EntryPlan { parts: Vec::new(), start, end, reverse, count, truncated: false };
        let Some(stream) = self.streams.get(stream) else { return plan };
        // How many entries the plan can serve at least. The blocks at the ends of the range may lie half outside, so the
        // first does not count; that of the last does not matter.
        let mut certain = 0;
        for part in stream.entries.plan(start, end, reverse) {
            // One more than asked for, to know whether there is more.
            if certain > u64::from(count) || plan.parts.len() == PLAN_BLOCKS_MAX {
                plan.truncated = true;
                break;
            }
            if !plan.parts.is_empty() {
                certain += part.live;
            }
            plan.parts.push(part);
        }
        plan
    }

    /// Plans a read.
    pub fn read(&self, query: &ReadQuery) -> EntryPlan {
        let &ReadQuery { ref stream, after, count } = query;
        // Nothing comes after the greatest id: a range that starts behind its end is empty.
        let (start, end) = after.next().map_or((EntryId::MAX, EntryId::MIN), |start| (start, EntryId::MAX));
        self.range(&RangeQuery { stream: stream.clone(), start, end, reverse: false, count })
    }
}

impl EntryPlan {
    /// Collects the entries: at most `count` of the query and `bytes_max` packed bytes, but at least one entry if there
    /// is one. [`BlockError::Missing`] means that the plan is stale: plan again.
    pub fn run(&self, blocks: &dyn Blocks, bytes_max: usize) -> Result<EntryPage, BlockError> {
        let mut page = EntryPage::default();
        let mut bytes = 0usize;
        page.more = self.visit(blocks, |entry| {
            bytes = bytes.saturating_add(entry.fields.packed_len());
            page.is_full = bytes_max < bytes && !page.entries.is_empty();
            if !page.is_full {
                page.entries.push(entry.clone());
            }
            !page.is_full
        })?;
        Ok(page)
    }

    /// Whether there is nothing in the range.
    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Shows at most `count` of the query's entries to `take`, until it says no. Reads no block behind the one at which it
    /// stops. Returns whether there is more in the range.
    pub(crate) fn visit(&self, blocks: &dyn Blocks, mut take: impl FnMut(&Entry) -> bool) -> Result<bool, BlockError> {
        let mut taken = 0;
        for part in &self.parts {
            let mut visit = |block: &Block, from: usize| {
                let entries = block.entries();
                for n in 0..entries.len() {
                    let position = if self.reverse { entries.len() - 1 - n } else { n };
                    let Some(entry) = entries.get(position) else { continue };
                    let in_range = self.start <= entry.id && entry.id <= self.end;
                    if !in_range || is_dead(part.dead, from + position) {
                        continue;
                    }
                    if taken == self.count || !take(entry) {
                        return false;
                    }
                    taken += 1;
                }
                true
            };
            // Backwards, what is in memory comes first, and perhaps nothing else is needed.
            if self.reverse && part.held.as_ref().is_some_and(|held| !visit(held, part.held_from)) {
                return Ok(true);
            }
            if let Some((key, entries)) = part.stored
                && !visit(&*get(blocks, key, entries)?, 0)
            {
                return Ok(true);
            }
            if !self.reverse && part.held.as_ref().is_some_and(|held| !visit(held, part.held_from)) {
                return Ok(true);
            }
        }
        Ok(self.truncated)
    }
}
