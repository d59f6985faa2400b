//! XGROUP DESTROY: delete a group with its pending entries.

use minicbor::{Decode, Encode};

use super::{Apply, Context, Stop};
use crate::names::{GroupName, StreamName};
use crate::state::Change;

/// Deletes a group with its pending entries (XGROUP DESTROY).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct DeleteGroup {
    /// The stream.
    #[n(0)]
    pub stream: StreamName,
    /// The group.
    #[n(1)]
    pub group: GroupName,
}

/// The group is gone.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct GroupDeleted {
    /// Whether there was one.
    #[n(0)]
    pub existed: bool,
}

impl Apply for DeleteGroup {
    type Reply = GroupDeleted;

    fn apply(&self, context: &mut Context<'_>) -> Result<GroupDeleted, Stop> {
        let stream = context.state.streams.find_mut(&self.stream)?;
        let existed = stream.delete_group(&self.group);
        if existed {
            stream.touch(context.index);
            let (stream, group) = (self.stream.clone(), self.group.clone());
            context.changes.push(Change::GroupDeleted { stream, group });
        }
        Ok(GroupDeleted { existed })
    }
}
