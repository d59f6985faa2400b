//! XDEL: delete entries by id. Pending references in groups stay.

use minicbor::{Decode, Encode};

use super::{Apply, Context, Stop, check_ids};
use crate::entry_id::EntryId;
use crate::error::Refusal;
use crate::names::StreamName;

/// Deletes entries by id (XDEL). Pending references to them stay.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct DeleteEntries {
    /// The stream.
    #[n(0)]
    pub stream: StreamName,
    /// 1 to [`IDS_MAX`](crate::limits::IDS_MAX) ids; unknown ones and repeats count nothing.
    #[n(1)]
    pub ids: Vec<EntryId>,
}

/// What was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct EntriesDeleted {
    /// How many entries were in the stream and no longer are. 0 if the stream is missing.
    #[n(0)]
    pub deleted: u64,
}

impl Apply for DeleteEntries {
    type Reply = EntriesDeleted;

    fn check(&self) -> Result<(), Refusal> {
        check_ids(&self.ids, 1)
    }

    fn apply(&self, context: &mut Context<'_>) -> Result<EntriesDeleted, Stop> {
        let Some(stream) = context.state.streams.get_mut(&self.stream) else {
            return Ok(EntriesDeleted { deleted: 0 });
        };
        let mut deleted = 0;
        for id in &self.ids {
            deleted += u64::from(stream.entries.delete(*id, context.blocks)?);
        }
        Ok(EntriesDeleted { deleted })
    }
}
