//! DEL: delete a stream with its entries and groups.

use minicbor::{Decode, Encode};

use super::{Apply, Context, Stop};
use crate::names::StreamName;
use crate::state::Change;

/// Deletes a stream with its entries and groups (DEL).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct DeleteStream {
    /// The stream.
    #[n(0)]
    pub stream: StreamName,
}

/// The stream is gone.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct StreamDeleted {
    /// Whether there was one.
    #[n(0)]
    pub existed: bool,
}

impl Apply for DeleteStream {
    type Reply = StreamDeleted;

    fn apply(&self, context: &mut Context<'_>) -> Result<StreamDeleted, Stop> {
        let existed = context.state.streams.delete(&self.stream);
        if existed {
            context.changes.push(Change::StreamDeleted { stream: self.stream.clone() });
        }
        Ok(StreamDeleted { existed })
    }
}
