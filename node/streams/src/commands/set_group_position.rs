//! XGROUP SETID: move a group. Pending entries stay.

use minicbor::{Decode, Encode};

use super::{Apply, Context, GroupPosition, Stop};
use crate::names::{GroupName, StreamName};
use crate::streams::group_not_found;

/// Moves a group forwards or backwards (XGROUP SETID). Pending entries stay.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct SetGroupPosition {
    /// The stream.
    #[n(0)]
    pub stream: StreamName,
    /// The group.
    #[n(1)]
    pub group: GroupName,
    /// Where it goes on.
    #[n(2)]
    pub position: GroupPosition,
    /// How many entries the group counts as read, at most those ever added. `None`: unknown.
    #[n(3)]
    pub entries_read: Option<u64>,
}

/// The group has moved.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct GroupPositionSet {}

impl Apply for SetGroupPosition {
    type Reply = GroupPositionSet;

    fn apply(&self, context: &mut Context<'_>) -> Result<GroupPositionSet, Stop> {
        let stream = context.state.streams.find_mut(&self.stream)?;
        let (entries, group) =
            stream.with_group(&self.group).ok_or_else(|| group_not_found(&self.stream, &self.group))?;
        let counters = entries.counters();
        let position = (self.position.resolve(counters), counters.cap_entries_read(self.entries_read));
        if position != (group.last_id(), group.entries_read()) {
            group.set_position(position.0, position.1);
            stream.touch(context.index);
        }
        Ok(GroupPositionSet {})
    }
}
