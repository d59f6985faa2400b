//! XACK: acknowledge pending entries.

use minicbor::{Decode, Encode};

use super::{Apply, Context, Stop, check_ids};
use crate::digest::Summary;
use crate::entry_id::EntryId;
use crate::error::Refusal;
use crate::names::{GroupName, StreamName};

/// Acknowledges pending entries (XACK).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Ack {
    /// The stream.
    #[n(0)]
    pub stream: StreamName,
    /// The group.
    #[n(1)]
    pub group: GroupName,
    /// 1 to [`IDS_MAX`](crate::limits::IDS_MAX) ids; those that are not pending count nothing.
    #[n(2)]
    pub ids: Vec<EntryId>,
}

/// What was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Acked {
    /// How many entries were pending and no longer are. 0 if the stream or group is missing.
    #[n(0)]
    pub acknowledged: u64,
}

impl Apply for Ack {
    type Reply = Acked;

    fn check(&self) -> Result<(), Refusal> {
        check_ids(&self.ids, 1)
    }

    fn ids(&self) -> u64 {
        self.ids.len() as u64
    }

    fn summarize(&self, reply: &Acked, summary: &mut Summary) {
        summary.number(reply.acknowledged);
    }

    fn apply(&self, context: &mut Context<'_>) -> Result<Acked, Stop> {
        let Ok((_, group)) = context.state.streams.find_group_mut(&self.stream, &self.group) else {
            return Ok(Acked { acknowledged: 0 });
        };
        let here = context.payloads.is_some() || !crate::mutant!(AckAtLeaderOnly);
        let was_pending = |id: &EntryId| match here {
            true => group.remove_pending(*id) || crate::mutant!(AckCountsTwice),
            false => group.pending().get(*id).is_some(),
        };
        let acknowledged = self.ids.iter().map(was_pending).map(u64::from).sum();
        if acknowledged > 0 {
            context.state.streams.touch(&self.stream, context.index);
        }
        Ok(Acked { acknowledged })
    }
}
