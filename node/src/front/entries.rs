//! Reading the entries that a look at the state has planned for.

use millstream_streams::{BlockError, Blocks, EntryPage, EntryPlan, State};

use super::{Denied, Front};

/// How often a read is planned anew because blocks it wanted were rewritten meanwhile.
const PLANS_MAX: usize = 16;

/// What an answer may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EntryBounds {
    /// Packed bytes at most, but at least one entry whatever its size.
    bytes: usize,
    /// Entries at most.
    count: usize,
    /// There is one already.
    started: bool,
}

impl EntryBounds {
    pub(crate) fn new(bytes: usize, count: usize) -> Self {
        Self { bytes, count, started: false }
    }

    pub(crate) fn bytes(bytes: usize) -> Self {
        Self::new(bytes, usize::MAX)
    }

    /// Runs a plan within what is left, and takes that off.
    fn run(&mut self, plan: &EntryPlan, blocks: &dyn Blocks) -> std::result::Result<EntryPage, BlockError> {
        let nothing = EntryPage { entries: Vec::new(), more: true, is_full: true };
        if self.count == 0 || (self.started && self.bytes == 0) {
            return Ok(nothing);
        }
        let mut page = plan.run(blocks, self.bytes)?;
        if self.count < page.entries.len() {
            page.entries.truncate(self.count);
            page.more = true;
        }
        let bytes = page.entries.iter().map(|entry| entry.fields.packed_len()).sum();
        // A plan yields its first entry whatever its size. Only the first of all may go.
        if self.started && self.bytes < bytes {
            page = nothing;
        }
        self.started |= !page.entries.is_empty();
        // What comes after the first that does not fit does not fit either, or it would be served out of turn.
        self.bytes = if page.is_full { 0 } else { self.bytes.saturating_sub(bytes) };
        self.count -= page.entries.len();
        Ok(page)
    }
}

impl Front {
    /// Looks at the state and reads the entries that `look` has planned for, within `bounds`, but at least one if there is
    /// one. Plans for which nothing is left yield no entries.
    pub(crate) fn entries<T, E: From<Denied>>(
        &self,
        bounds: EntryBounds,
        look: impl Fn(&State) -> std::result::Result<(T, Vec<EntryPlan>), E>,
    ) -> std::result::Result<(T, Vec<EntryPage>), E> {
        let blocks = self.replica.blocks();
        let mut missing = None;
        for _ in 0..PLANS_MAX {
            // The lock is released before blocks are read: a cold read must not hold up the log.
            let (found, plans) = self.replica.with_state(&look)?;
            let mut left = bounds;
            let pages = plans.iter().map(|plan| left.run(plan, &*blocks));
            match pages.collect::<std::result::Result<Vec<_>, BlockError>>() {
                Ok(pages) => return Ok((found, pages)),
                Err(BlockError::Missing { key }) => missing = Some(key),
                Err(error) => return Err(Denied::Block(error).into()),
            }
        }
        missing.into_iter().for_each(|key| self.replica.lost_block(key));
        Err(Denied::Broken("the state names a block that the store does not have").into())
    }
}
