//! FLUSHALL: delete all streams.

use minicbor::{Decode, Encode};

use super::{Apply, Context, Stop};
use crate::digest::Summary;
use crate::state::Change;

/// Deletes all streams with their entries and groups (FLUSHALL, FLUSHDB). Sessions and nodes stay.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct DeleteAll {}

/// Everything is gone.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct AllDeleted {
    /// How many streams there were.
    #[n(0)]
    pub streams: u64,
}

impl Apply for DeleteAll {
    type Reply = AllDeleted;

    fn summarize(&self, reply: &AllDeleted, summary: &mut Summary) {
        summary.number(reply.streams);
    }

    fn apply(&self, context: &mut Context<'_>) -> Result<AllDeleted, Stop> {
        let streams = context.state.streams.delete_all();
        if streams > 0 {
            context.changes.push(Change::AllDeleted);
        }
        Ok(AllDeleted { streams })
    }
}
