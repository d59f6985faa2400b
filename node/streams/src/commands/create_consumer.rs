//! XGROUP CREATECONSUMER: create a consumer.

use minicbor::{Decode, Encode};

use super::{Apply, Context, Stop};
use crate::names::{ConsumerName, GroupName, StreamName};
use crate::streams::group_not_found;

/// Creates a consumer (XGROUP CREATECONSUMER).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct CreateConsumer {
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

/// The consumer exists.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ConsumerCreated {
    /// Whether this command created it.
    #[n(0)]
    pub created: bool,
}

impl Apply for CreateConsumer {
    type Reply = ConsumerCreated;

    fn apply(&self, context: &mut Context<'_>) -> Result<ConsumerCreated, Stop> {
        let stream = context.state.streams.find_mut(&self.stream)?;
        let (_, group) = stream.with_group(&self.group).ok_or_else(|| group_not_found(&self.stream, &self.group))?;
        let (_, created) = group.create_consumer(&self.consumer, context.now_ms);
        if created {
            stream.touch(context.index);
        }
        Ok(ConsumerCreated { created })
    }
}
