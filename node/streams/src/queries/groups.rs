//! XINFO GROUPS and XINFO CONSUMERS.

use std::ops::Bound::{Excluded, Unbounded};

use minicbor::{Decode, Encode};

use crate::entries::Entries;
use crate::entry_id::EntryId;
use crate::error::Refusal;
use crate::group::{Consumer, Group};
use crate::limits::LOOKS_MAX;
use crate::names::{ConsumerName, GroupName, StreamName};
use crate::state::State;
use crate::stream::Stream;

/// A group, described.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct GroupInfo {
    /// The group's name.
    #[n(0)]
    pub group: GroupName,
    /// Number of consumers.
    #[n(1)]
    pub consumers: u64,
    /// Number of pending entries.
    #[n(2)]
    pub pending: u64,
    /// The last delivered id.
    #[n(3)]
    pub last_delivered_id: EntryId,
    /// How many entries the group has read. `None`: unknown.
    #[n(4)]
    pub entries_read: Option<u64>,
    /// How many entries wait to be delivered. `None`: unknown.
    #[n(5)]
    pub lag: Option<u64>,
    /// Number of pending entries that were given back and belong to nobody.
    #[n(6)]
    pub released: u64,
}

/// A consumer, described.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ConsumerInfo {
    /// The consumer's name.
    #[n(0)]
    pub consumer: ConsumerName,
    /// Number of its pending entries.
    #[n(1)]
    pub pending: u64,
    /// Milliseconds since it last tried to read or claim.
    #[n(2)]
    pub idle_ms: u64,
    /// Milliseconds since entries were last delivered to it. `None`: never.
    #[n(3)]
    pub inactive_ms: Option<u64>,
}

impl GroupInfo {
    /// Describes a group of a stream.
    pub(super) fn of(stream: &Stream, name: &GroupName, group: &Group) -> GroupInfo {
        GroupInfo {
            group: name.clone(),
            consumers: group.consumers().len() as u64,
            pending: group.pending().len(),
            last_delivered_id: group.last_id(),
            entries_read: group.entries_read(),
            lag: stream.entries.counters().lag(group.entries_read(), group.last_id()),
            released: group.pending().released(),
        }
    }
}

/// Whether the entry may be in the stream, by the index of blocks alone: false only if it lies outside all of them.
fn may_be_live(entries: &Entries, id: EntryId) -> bool {
    entries.plan(id, id, false).next().is_some()
}

impl State {
    /// Whether entries wait to be delivered to the group. Refuses with `GroupNotFound`.
    pub fn group_has_new(&self, stream: &StreamName, group: &GroupName) -> Result<bool, Refusal> {
        let (stream, group) = self.streams.find_group(stream, group)?;
        Ok(stream.entries.last_live().is_some_and(|last| group.last_id() < last))
    }

    /// When the next pending entry that is still in the stream becomes claimable by a group read with CLAIM, by the
    /// order in which it looks at them: in milliseconds since the Unix epoch, 0 if it was given back. `None`: there is
    /// none. Refuses with `GroupNotFound`. `after`: only those that become so later than then: whoever tried in vain then
    /// knows that those before are of no use.
    ///
    /// It may be too early and never too late: without reading blocks it cannot tell that an entry was deleted from the
    /// midst of others. Then the read claims nothing.
    pub fn next_claimable_ms(
        &self,
        stream: &StreamName,
        group: &GroupName,
        min_idle_ms: u64,
        after: Option<u64>,
    ) -> Result<Option<u64>, Refusal> {
        let (stream, group) = self.streams.find_group(stream, group)?;
        // The first delivery time that is late enough; `None`: those that were given back count, too.
        let from_ms = after.map(|after_ms| after_ms.saturating_add(1).saturating_sub(min_idle_ms));
        let mut in_order = group.pending().in_order_from(from_ms).take(LOOKS_MAX as usize);
        let first = in_order.find(|pending| may_be_live(&stream.entries, pending.id));
        Ok(first.map(|pending| pending.consumer.map_or(0, |_| pending.delivered_ms.saturating_add(min_idle_ms))))
    }

    /// Whether the consumer exists. Refuses with `GroupNotFound`.
    pub fn consumer_exists(
        &self,
        stream: &StreamName,
        group: &GroupName,
        consumer: &ConsumerName,
    ) -> Result<bool, Refusal> {
        let (_, group) = self.streams.find_group(stream, group)?;
        Ok(group.number(consumer).is_some())
    }

    /// At most `count` groups of a stream, by name, those after `after` (XINFO GROUPS). Refuses with `StreamNotFound`.
    pub fn groups(
        &self,
        stream: &StreamName,
        after: Option<&GroupName>,
        count: u32,
    ) -> Result<Vec<GroupInfo>, Refusal> {
        let stream = self.streams.find(stream)?;
        let from = after.map_or(Unbounded, Excluded);
        let those = stream.groups.range::<GroupName, _>((from, Unbounded)).take(count as usize);
        Ok(those.map(|(name, group)| GroupInfo::of(stream, name, group)).collect())
    }

    /// At most `count` consumers of a group, by name, those after `after` (XINFO CONSUMERS). Refuses with
    /// `StreamNotFound` and `GroupNotFound`.
    pub fn consumers(
        &self,
        stream: &StreamName,
        group: &GroupName,
        after: Option<&ConsumerName>,
        count: u32,
        now_ms: u64,
    ) -> Result<Vec<ConsumerInfo>, Refusal> {
        self.streams.find(stream)?;
        let (_, group) = self.streams.find_group(stream, group)?;
        let describe = |consumer: &Consumer| ConsumerInfo {
            consumer: consumer.name().clone(),
            pending: consumer.pending().len() as u64,
            idle_ms: now_ms.saturating_sub(consumer.seen_ms()),
            inactive_ms: consumer.active_ms().map(|active_ms| now_ms.saturating_sub(active_ms)),
        };
        let those = group.consumers_after(after).filter_map(|(_, number)| group.consumer(number));
        Ok(those.take(count as usize).map(describe).collect())
    }
}
