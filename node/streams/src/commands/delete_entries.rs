//! XDEL and XDELEX: delete entries by id.

use minicbor::{Decode, Encode};

use super::{Apply, Context, Stop, check_ids};
use crate::digest::Summary;
use crate::entry_id::EntryId;
use crate::error::Refusal;
use crate::names::StreamName;
use crate::removal::{References, Removal};

/// Deletes entries by id (XDEL, XDELEX).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct DeleteEntries {
    /// The stream.
    #[n(0)]
    pub stream: StreamName,
    /// 1 to [`IDS_MAX`](crate::limits::IDS_MAX) ids; the second time one is named it is not found.
    #[n(1)]
    pub ids: Vec<EntryId>,
    /// What becomes of the groups' references to them.
    #[n(2)]
    pub references: References,
}

/// What was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct EntriesDeleted {
    /// What became of each id of the command, in its order. All are `NotFound` if the stream is missing.
    #[n(0)]
    pub results: Vec<Removal>,
}

impl Apply for DeleteEntries {
    type Reply = EntriesDeleted;

    fn check(&self) -> Result<(), Refusal> {
        check_ids(&self.ids, 1)
    }

    fn ids(&self) -> u64 {
        self.ids.len() as u64
    }

    fn summarize(&self, reply: &EntriesDeleted, summary: &mut Summary) {
        reply.results.iter().for_each(|result| summary.number(result.number()));
    }

    fn apply(&self, context: &mut Context<'_>) -> Result<EntriesDeleted, Stop> {
        let Context { index, blocks, .. } = *context;
        let Some(stream) = context.state.streams.get_mut(&self.stream) else {
            return Ok(EntriesDeleted { results: vec![Removal::NotFound; self.ids.len()] });
        };
        let mut results = Vec::with_capacity(self.ids.len());
        let mut changed = false;
        for &id in &self.ids {
            // Then it changes, though the entry may be gone already.
            let is_forgotten = self.references == References::Delete && stream.is_pending(id);
            let removal = stream.remove_entry(id, self.references, blocks)?;
            changed |= is_forgotten || removal == Removal::Deleted;
            results.push(removal);
        }
        if changed {
            stream.touch(index);
        }
        Ok(EntriesDeleted { results })
    }
}
