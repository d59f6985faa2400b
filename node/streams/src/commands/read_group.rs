//! XREADGROUP: deliver new entries to a consumer, or repeat its pending ones.

use std::ops::Bound::{Excluded, Unbounded};

use minicbor::{Decode, Encode};

use super::{Apply, Context, Stop};
use crate::block::{BlockError, Blocks};
use crate::entries::Entries;
use crate::entry_id::EntryId;
use crate::error::Refusal;
use crate::group::Group;
use crate::limits::{COUNT_MAX, DELIVERY_COUNT_MAX, GROUP_READ_STREAMS_MAX};
use crate::names::{ConsumerName, GroupName, StreamName};
use crate::pending::Pending;

/// Delivers new entries to a consumer, or repeats its pending ones (XREADGROUP).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ReadGroup {
    /// The group, the same on every stream.
    #[n(0)]
    pub group: GroupName,
    /// The consumer; created if missing, even if nothing is delivered.
    #[n(1)]
    pub consumer: ConsumerName,
    /// 1 to [`GROUP_READ_STREAMS_MAX`] streams; the same one may stand twice.
    #[n(2)]
    pub streams: Vec<GroupRead>,
    /// Entries of each stream at most: 1 to [`COUNT_MAX`]. 0: [`COUNT_MAX`].
    #[n(3)]
    pub count: u32,
    /// Count as acknowledged on delivery (NOACK).
    #[n(4)]
    pub no_ack: bool,
    /// Packed bytes of new entries of the whole command at most, but at least one entry is delivered. 0: no limit.
    #[n(5)]
    pub bytes_max: u64,
}

/// What was delivered.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Delivered {
    /// The ids, for each stream of the command in its order.
    #[n(0)]
    pub streams: Vec<Vec<EntryId>>,
}

impl Delivered {
    /// Whether no stream had anything.
    pub fn is_empty(&self) -> bool {
        self.streams.iter().all(Vec::is_empty)
    }
}

/// One stream of a group read.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct GroupRead {
    /// The stream.
    #[n(0)]
    pub stream: StreamName,
    /// Which of its entries.
    #[n(1)]
    pub from: GroupReadFrom,
}

/// Which entries a group read wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum GroupReadFrom {
    /// Entries never delivered to the group (`>`).
    #[n(0)]
    New,
    /// The consumer's own pending entries with ids greater than this.
    #[n(1)]
    PendingAfter(#[n(0)] EntryId),
}

impl Apply for ReadGroup {
    type Reply = Delivered;

    fn check(&self) -> Result<(), Refusal> {
        if self.streams.is_empty() {
            return Err(Refusal::invalid("streams", "at least one stream is needed"));
        }
        Refusal::check_limit("streams", self.streams.len() as u64, GROUP_READ_STREAMS_MAX as u64)?;
        Refusal::check_limit("count", self.count.into(), COUNT_MAX.into())
    }

    fn apply(&self, context: &mut Context<'_>) -> Result<Delivered, Stop> {
        // All of them first: one missing group refuses the whole read.
        for GroupRead { stream, .. } in &self.streams {
            context.state.streams.find_group(stream, &self.group)?;
        }
        let mut budget = Budget { bytes_max: self.bytes_max, bytes: 0, delivered: false };
        let mut streams = Vec::with_capacity(self.streams.len());
        for GroupRead { stream, from } in &self.streams {
            let (entries, group) = context.state.streams.find_group_mut(stream, &self.group)?;
            // Also if nothing is delivered.
            let consumer = group.seen(&self.consumer, context.now_ms);
            let reader = Reader { entries, group, consumer, now_ms: context.now_ms, blocks: context.blocks };
            streams.push(match from {
                GroupReadFrom::New => reader.deliver_new(self.count(), self.no_ack, &mut budget)?,
                GroupReadFrom::PendingAfter(after) => reader.repeat_pending(*after, self.count())?,
            });
        }
        Ok(Delivered { streams })
    }

    fn delivered<'a>(&'a self, reply: &'a Delivered) -> Vec<(&'a StreamName, &'a [EntryId])> {
        self.streams.iter().map(|read| &read.stream).zip(reply.streams.iter().map(Vec::as_slice)).collect()
    }
}

impl ReadGroup {
    /// Entries of each stream at most.
    fn count(&self) -> usize {
        if self.count == 0 { COUNT_MAX as usize } else { self.count as usize }
    }
}

/// How many bytes of new entries the command may still deliver.
struct Budget {
    bytes_max: u64,
    bytes: u64,
    /// Something was delivered: the first entry goes whatever its size.
    delivered: bool,
}

impl Budget {
    /// Whether an entry of this size may be delivered; counts it if so.
    fn admit(&mut self, bytes: u64) -> bool {
        let exceeded = self.bytes_max > 0 && self.bytes + bytes > self.bytes_max;
        if exceeded && self.delivered {
            return false;
        }
        self.bytes += bytes;
        self.delivered = true;
        true
    }
}

/// A consumer at a stream.
struct Reader<'a> {
    entries: &'a Entries,
    group: &'a mut Group,
    consumer: u64,
    now_ms: u64,
    blocks: &'a dyn Blocks,
}

impl Reader<'_> {
    /// Delivers entries behind the group's position and moves it.
    fn deliver_new(self, count: usize, no_ack: bool, budget: &mut Budget) -> Result<Vec<EntryId>, BlockError> {
        let Reader { entries, group, consumer, now_ms, blocks } = self;
        let mut ids = Vec::new();
        entries.scan(group.last_id(), blocks, |entry| {
            if !budget.admit(entry.fields.packed_len() as u64) {
                return false;
            }
            ids.push(entry.id);
            ids.len() < count
        })?;
        for &id in &ids {
            let read = entries.counters().entries_read_after(group.entries_read(), group.last_id(), id);
            group.set_position(id, read);
            if !no_ack {
                // One that is pending already, since the group was moved backwards, changes owners and counts anew.
                group.put_pending(Pending { id, consumer, delivered_ms: now_ms, delivery_count: 1 });
            }
        }
        if !ids.is_empty() && !no_ack {
            group.active(consumer, now_ms);
        }
        Ok(ids)
    }

    /// Repeats the consumer's own pending entries. Those whose entries are gone are named but not counted again.
    fn repeat_pending(self, after: EntryId, count: usize) -> Result<Vec<EntryId>, BlockError> {
        let Reader { entries, group, consumer, now_ms, blocks } = self;
        let Some(owner) = group.consumer(consumer) else { return Ok(Vec::new()) };
        let ids: Vec<EntryId> = owner.pending().range((Excluded(after), Unbounded)).take(count).copied().collect();
        let mut cursor = entries.cursor(blocks);
        for &id in &ids {
            if cursor.contains(id)?
                && let Some(&pending) = group.pending().get(id)
            {
                let delivery_count = pending.delivery_count.saturating_add(1).min(DELIVERY_COUNT_MAX);
                group.put_pending(Pending { delivered_ms: now_ms, delivery_count, ..pending });
            }
        }
        Ok(ids)
    }
}
