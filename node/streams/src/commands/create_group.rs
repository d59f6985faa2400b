//! XGROUP CREATE: create a group.

use minicbor::{Decode, Encode};

use super::{Apply, Context, Stop};
use crate::entry_id::EntryId;
use crate::error::Refusal;
use crate::group::Group;
use crate::lag::Counters;
use crate::names::{GroupName, StreamName};

/// Creates a group (XGROUP CREATE).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct CreateGroup {
    /// The stream.
    #[n(0)]
    pub stream: StreamName,
    /// The group.
    #[n(1)]
    pub group: GroupName,
    /// Where it starts.
    #[n(2)]
    pub position: GroupPosition,
    /// Create the stream if it is missing (MKSTREAM).
    #[n(3)]
    pub create_stream: bool,
    /// How many entries the group counts as read, at most those ever added. `None`: unknown.
    #[n(4)]
    pub entries_read: Option<u64>,
}

/// The group exists.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct GroupCreated {}

/// Where a group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum GroupPosition {
    /// Deliver entries with ids greater than this; it may lie beyond the last id.
    #[n(0)]
    After(#[n(0)] EntryId),
    /// Deliver entries appended from now on (`$`).
    #[n(1)]
    End,
}

impl Apply for CreateGroup {
    type Reply = GroupCreated;

    fn apply(&self, context: &mut Context<'_>) -> Result<GroupCreated, Stop> {
        let streams = &mut context.state.streams;
        match streams.get(&self.stream) {
            None if !self.create_stream => return Err(Refusal::StreamNotFound { stream: self.stream.clone() }.into()),
            Some(stream) if stream.groups.contains_key(&self.group) => {
                return Err(Refusal::GroupExists { stream: self.stream.clone(), group: self.group.clone() }.into());
            }
            _ => {}
        }
        let incarnation = streams.next_incarnation();
        let stream = streams.get_or_create(&self.stream);
        let counters = stream.entries.counters();
        let entries_read = counters.cap_entries_read(self.entries_read);
        let group = Group::new(incarnation, self.position.resolve(counters), entries_read);
        stream.add_group(self.group.clone(), group);
        stream.touch(context.index);
        Ok(GroupCreated {})
    }
}

impl GroupPosition {
    /// The id that it means in a stream.
    pub(super) fn resolve(self, stream: &Counters) -> EntryId {
        match self {
            GroupPosition::After(id) => id,
            GroupPosition::End => stream.last_id,
        }
    }
}
