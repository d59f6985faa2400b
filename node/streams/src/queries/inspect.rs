//! XINFO STREAM FULL.

use minicbor::{Decode, Encode};

use super::groups::GroupInfo;
use super::streams::StreamInfo;
use crate::budget::Budget;
use crate::entry_id::EntryId;
use crate::error::Refusal;
use crate::group::Group;
use crate::names::{ConsumerName, StreamName};
use crate::pending::Pending;
use crate::state::State;

/// A stream with its groups, consumers and pending entries.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct StreamDetails {
    /// The stream.
    #[n(0)]
    pub info: StreamInfo,
    /// Its groups, by name.
    #[n(1)]
    pub groups: Vec<GroupDetails>,
    /// The answer was full ([`LOOKS_MAX`](crate::limits::LOOKS_MAX)): there is more.
    #[n(2)]
    pub truncated: bool,
}

/// A group with its consumers and pending entries.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct GroupDetails {
    /// The group.
    #[n(0)]
    pub info: GroupInfo,
    /// The first of its pending entries, by id.
    #[n(1)]
    pub pending: Vec<PendingDetails>,
    /// Its consumers, by name.
    #[n(2)]
    pub consumers: Vec<ConsumerDetails>,
}

/// A consumer with its pending entries.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ConsumerDetails {
    /// The consumer's name.
    #[n(0)]
    pub consumer: ConsumerName,
    /// When it last tried to read or claim, in milliseconds since the Unix epoch.
    #[n(1)]
    pub seen_ms: u64,
    /// When an entry last became its own, in milliseconds since the Unix epoch. `None`: never.
    #[n(2)]
    pub active_ms: Option<u64>,
    /// Number of its pending entries.
    #[n(3)]
    pub pending_count: u64,
    /// The first of its pending entries, by id.
    #[n(4)]
    pub pending: Vec<PendingDetails>,
}

/// A pending entry.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct PendingDetails {
    /// Its id. The entry may be in the stream no longer.
    #[n(0)]
    pub id: EntryId,
    /// Who owns it. `None`: nobody, it was given back.
    #[n(1)]
    pub consumer: Option<ConsumerName>,
    /// When it was last delivered, in milliseconds since the Unix epoch; 0 if it was given back.
    #[n(2)]
    pub delivered_ms: u64,
    /// How often it was delivered.
    #[n(3)]
    pub delivery_count: u64,
}

impl State {
    /// Describes a stream in full, with at most `count` pending entries of each group and of each consumer; its entries
    /// are a range of their own. Refuses with `StreamNotFound`.
    ///
    /// A group comes first, then its pending entries, then each of its consumers with theirs, then the next group.
    pub fn stream_details(&self, stream: &StreamName, count: u32) -> Result<StreamDetails, Refusal> {
        self.stream_details_within(stream, count, &mut Budget::shared(0))
    }

    pub(crate) fn stream_details_within(
        &self,
        stream: &StreamName,
        count: u32,
        budget: &mut Budget,
    ) -> Result<StreamDetails, Refusal> {
        let info = self.stream_info(stream)?;
        let stream = self.streams.find(stream)?;
        let mut groups = Vec::new();
        for (name, group) in &stream.groups {
            if !has_room(budget, name.as_str()) {
                break;
            }
            let info = GroupInfo::of(stream, name, group);
            let pending = pending(budget, group, group.pending().iter_from(EntryId::MIN), count);
            groups.push(GroupDetails { info, pending, consumers: consumers(budget, group, count) });
        }
        Ok(StreamDetails { info, groups, truncated: budget.is_cut() })
    }
}

fn has_room(budget: &mut Budget, name: &str) -> bool {
    budget.look() && budget.admit_row(name)
}

fn consumers(budget: &mut Budget, group: &Group, count: u32) -> Vec<ConsumerDetails> {
    let mut consumers = Vec::new();
    for consumer in group.consumers().filter_map(|(_, number)| group.consumer(number)) {
        if !has_room(budget, consumer.name().as_str()) {
            break;
        }
        let own = consumer.pending().iter().filter_map(|id| group.pending().get(*id));
        consumers.push(ConsumerDetails {
            consumer: consumer.name().clone(),
            seen_ms: consumer.seen_ms(),
            active_ms: consumer.active_ms(),
            pending_count: consumer.pending().len() as u64,
            pending: pending(budget, group, own, count),
        });
    }
    consumers
}

fn pending<'a>(
    budget: &mut Budget,
    group: &Group,
    pending: impl Iterator<Item = &'a Pending>,
    count: u32,
) -> Vec<PendingDetails> {
    let owner = |pending: &Pending| group.owner_name(pending);
    let in_room = pending
        .take(count as usize)
        .take_while(|pending| has_room(budget, owner(pending).map_or("", ConsumerName::as_str)));
    let show = |pending: &Pending| PendingDetails {
        id: pending.id,
        consumer: owner(pending).cloned(),
        delivered_ms: pending.delivered_ms,
        delivery_count: pending.delivery_count,
    };
    in_room.map(show).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::LOOKS_MAX;

    /// Rows shown of a group with 3 pending entries and 2 consumers, of which the first owns all, and whether that is
    /// short of some.
    fn shown(rows: u64, count: u32) -> (usize, Vec<usize>, bool) {
        let mut group = Group::new(1, EntryId::MIN, None);
        let owners = ["alice", "bob"].map(|name| group.seen(&ConsumerName::new(name).unwrap(), 0));
        (1..=3).for_each(|ms| group.give(EntryId::new(ms, 0), owners[0], 0, 1));
        let mut budget = Budget::shared(0);
        budget.looked(LOOKS_MAX - rows);
        let pending = pending(&mut budget, &group, group.pending().iter_from(EntryId::MIN), count).len();
        let consumers = consumers(&mut budget, &group, count).iter().map(|consumer| consumer.pending.len()).collect();
        (pending, consumers, budget.is_cut())
    }

    #[test]
    fn what_has_no_room_is_missed() {
        assert_eq!(shown(8, 3), (3, vec![3, 0], false));
        assert_eq!(shown(7, 3), (3, vec![3], true));
        assert_eq!(shown(5, 3), (3, vec![1], true));
        assert_eq!(shown(3, 3), (3, vec![], true));
        assert_eq!(shown(2, 3), (2, vec![], true));
        // The count leaves out without a word: it was asked for.
        assert_eq!(shown(4, 1), (1, vec![1, 0], false));
        assert_eq!(shown(2, 0), (0, vec![0, 0], false));
    }
}
