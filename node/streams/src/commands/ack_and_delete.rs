//! XACKDEL: acknowledge entries and delete them.

use minicbor::{Decode, Encode};

use super::{Apply, Context, Stop, check_ids};
use crate::digest::Summary;
use crate::entry_id::EntryId;
use crate::error::Refusal;
use crate::names::{GroupName, StreamName};
use crate::removal::{References, Removal};

/// Acknowledges pending entries and deletes them from the stream (XACKDEL).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct AckAndDelete {
    /// The stream.
    #[n(0)]
    pub stream: StreamName,
    /// The group.
    #[n(1)]
    pub group: GroupName,
    /// 1 to [`IDS_MAX`](crate::limits::IDS_MAX) ids.
    #[n(2)]
    pub ids: Vec<EntryId>,
    /// What becomes of other groups' references to the entries.
    #[n(3)]
    pub references: References,
}

/// What was acknowledged and deleted.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct AckedAndDeleted {
    /// For each id of the command, in its order: `NotFound` if it was not pending (nothing was done), `Deleted` if it was
    /// acknowledged and is not in the stream now, `Referenced` if it was acknowledged and another group refers to it.
    #[n(0)]
    pub results: Vec<Removal>,
}

impl Apply for AckAndDelete {
    type Reply = AckedAndDeleted;

    fn check(&self) -> Result<(), Refusal> {
        check_ids(&self.ids, 1)
    }

    fn ids(&self) -> u64 {
        self.ids.len() as u64
    }

    fn summarize(&self, reply: &AckedAndDeleted, summary: &mut Summary) {
        reply.results.iter().for_each(|result| summary.number(result.number()));
    }

    fn apply(&self, context: &mut Context<'_>) -> Result<AckedAndDeleted, Stop> {
        let mut results = vec![Removal::NotFound; self.ids.len()];
        let Some(stream) = context.state.streams.get_mut(&self.stream) else { return Ok(AckedAndDeleted { results }) };
        let mut acknowledged = false;
        for (id, result) in self.ids.iter().zip(&mut results) {
            let was_pending = stream.with_group(&self.group).is_some_and(|(_, group)| group.remove_pending(*id));
            if !was_pending {
                continue;
            }
            acknowledged = true;
            if crate::mutant!(AckDeleteKeeps) {
                *result = Removal::Deleted;
                continue;
            }
            *result = match stream.remove_entry(*id, self.references, context.blocks)? {
                Removal::Referenced => Removal::Referenced,
                // It was pending without being there.
                Removal::Deleted | Removal::NotFound => Removal::Deleted,
            };
        }
        if acknowledged {
            stream.touch(context.index);
        }
        Ok(AckedAndDeleted { results })
    }
}
