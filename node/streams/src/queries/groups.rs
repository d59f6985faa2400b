//! XINFO GROUPS and XINFO CONSUMERS.

use crate::entry_id::EntryId;
use crate::error::Refusal;
use crate::group::{Consumer, Group};
use crate::names::{ConsumerName, GroupName, StreamName};
use crate::state::State;

/// A group, described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupInfo {
    /// The group's name.
    pub group: GroupName,
    /// Number of consumers.
    pub consumers: u64,
    /// Number of pending entries.
    pub pending: u64,
    /// The last delivered id.
    pub last_delivered_id: EntryId,
    /// How many entries the group has read. `None`: unknown.
    pub entries_read: Option<u64>,
    /// How many entries wait to be delivered. `None`: unknown.
    pub lag: Option<u64>,
}

/// A consumer, described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerInfo {
    /// The consumer's name.
    pub consumer: ConsumerName,
    /// Number of its pending entries.
    pub pending: u64,
    /// Milliseconds since it last tried to read or claim.
    pub idle_ms: u64,
    /// Milliseconds since entries were last delivered to it. `None`: never.
    pub inactive_ms: Option<u64>,
}

impl State {
    /// Whether entries wait to be delivered to the group. Refuses with `GroupNotFound`.
    pub fn group_has_new(&self, stream: &StreamName, group: &GroupName) -> Result<bool, Refusal> {
        let (stream, group) = self.streams.find_group(stream, group)?;
        Ok(stream.entries.last_live().is_some_and(|last| group.last_id() < last))
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

    /// The groups of a stream, by name (XINFO GROUPS). Refuses with `StreamNotFound`.
    pub fn groups(&self, stream: &StreamName) -> Result<Vec<GroupInfo>, Refusal> {
        let stream = self.streams.find(stream)?;
        let describe = |(name, group): (&GroupName, &Group)| GroupInfo {
            group: name.clone(),
            consumers: group.consumers().len() as u64,
            pending: group.pending().len(),
            last_delivered_id: group.last_id(),
            entries_read: group.entries_read(),
            lag: stream.entries.counters().lag(group.entries_read(), group.last_id()),
        };
        Ok(stream.groups.iter().map(describe).collect())
    }

    /// The consumers of a group, by name (XINFO CONSUMERS). Refuses with `StreamNotFound` and `GroupNotFound`.
    pub fn consumers(&self, stream: &StreamName, group: &GroupName, now_ms: u64) -> Result<Vec<ConsumerInfo>, Refusal> {
        self.streams.find(stream)?;
        let (_, group) = self.streams.find_group(stream, group)?;
        let describe = |consumer: &Consumer| ConsumerInfo {
            consumer: consumer.name().clone(),
            pending: consumer.pending().len() as u64,
            idle_ms: now_ms.saturating_sub(consumer.seen_ms()),
            inactive_ms: consumer.active_ms().map(|active_ms| now_ms.saturating_sub(active_ms)),
        };
        Ok(group.consumers().filter_map(|(_, number)| group.consumer(number)).map(describe).collect())
    }
}
