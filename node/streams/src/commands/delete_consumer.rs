//! XGROUP DELCONSUMER: delete a consumer. The pending entries that it owns are lost to the group.

use minicbor::{Decode, Encode};

use super::{Apply, Context, Stop};
use crate::digest::Summary;
use crate::names::{ConsumerName, GroupName, StreamName};
use crate::streams::group_not_found;

/// Deletes a consumer and drops the pending entries that it owns (XGROUP DELCONSUMER).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct DeleteConsumer {
    /// The stream.
    #[n(0)]
    pub stream: StreamName,
    /// The group.
    #[n(1)]
    pub group: GroupName,
    /// The consumer.
    #[n(2)]
    pub consumer: ConsumerName,
}

/// The consumer is gone.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ConsumerDeleted {
    /// How many pending entries went with it. 0 if there was no such consumer.
    #[n(0)]
    pub pending: u64,
}

impl Apply for DeleteConsumer {
    type Reply = ConsumerDeleted;

    fn summarize(&self, reply: &ConsumerDeleted, summary: &mut Summary) {
        summary.number(reply.pending);
    }

    fn apply(&self, context: &mut Context<'_>) -> Result<ConsumerDeleted, Stop> {
        let stream = context.state.streams.find_mut(&self.stream)?;
        let (_, group) = stream.with_group(&self.group).ok_or_else(|| group_not_found(&self.stream, &self.group))?;
        let deleted = group.delete_consumer(&self.consumer);
        if deleted.is_some() {
            stream.touch(context.index);
        }
        Ok(ConsumerDeleted { pending: deleted.unwrap_or(0) })
    }
}
