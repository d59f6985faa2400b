//! XREADGROUP: deliver new entries to a consumer, or repeat its pending ones.

use std::ops::Bound::{Excluded, Unbounded};

use minicbor::{Decode, Encode};

use super::{Apply, Context, Stop};
use crate::block::{BlockError, Blocks};
use crate::budget::Budget;
use crate::digest::Summary;
use crate::entries::Entries;
use crate::entry_id::EntryId;
use crate::error::Refusal;
use crate::group::Group;
use crate::limits::{COUNT_MAX, DELIVERY_COUNT_MAX, GROUP_READ_STREAMS_MAX};
use crate::names::{ConsumerName, GroupName, StreamName};

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
    /// Entries of each stream at most, claimed and new ones together: 1 to [`COUNT_MAX`]. 0: [`COUNT_MAX`].
    #[n(3)]
    pub count: u32,
    /// Count new entries as acknowledged on delivery (NOACK). Claimed ones stay pending.
    #[n(4)]
    pub no_ack: bool,
    /// Packed bytes of the entries of the whole command at most, but at least one entry is delivered (MAXSIZE). Of each
    /// stream, the first pending and the first new entry that does not fit stays as it is, and so do those behind it. An
    /// entry that is gone has no bytes. 0: no limit.
    #[n(5)]
    pub bytes_max: u64,
    /// Entries of the whole command at most, in the order of the streams (MAXCOUNT): not smaller than `count`. It may be
    /// greater than what the streams can deliver, and then bounds nothing. 0: no limit.
    #[n(6)]
    pub total_max: u32,
    /// Before new entries, deliver pending ones that were not delivered for at least this many milliseconds, or that were
    /// given back, whoever owns them (CLAIM). Those whose entries are gone stay pending and are passed over; no more than
    /// [`CLAIM_SCAN_MAX`] are looked at. `None`: do not. Concerns streams read from [`GroupReadFrom::New`] only.
    #[n(7)]
    pub claim_min_idle_ms: Option<u64>,
}

/// What was delivered.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Delivered {
    /// For each stream of the command, in its order.
    #[n(0)]
    pub streams: Vec<Delivery>,
    /// The answer was full before all was delivered that was asked for and is there.
    #[n(1)]
    pub more: bool,
}

/// What was delivered of one stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Delivery {
    /// The ids: claimed entries first, then new ones.
    #[n(0)]
    pub ids: Vec<EntryId>,
    /// What the claimed entries, the first of the ids, were before.
    #[n(1)]
    pub claimed: Vec<Redelivery>,
}

/// What a claimed entry was before it was delivered again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Redelivery {
    /// Milliseconds since it was last delivered; since the epoch if it was given back.
    #[n(0)]
    pub idle_ms: u64,
    /// How often it was delivered before.
    #[n(1)]
    pub delivery_count: u64,
}

impl Delivered {
    /// Whether no stream had anything.
    pub fn is_empty(&self) -> bool {
        self.streams.iter().all(|delivery| delivery.ids.is_empty())
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
        Refusal::check_limit("count", self.count.into(), COUNT_MAX.into())?;
        if 0 < self.total_max && self.total_max < self.count {
            return Err(Refusal::invalid("total_max", "must not be smaller than count"));
        }
        Ok(())
    }

    fn summarize(&self, reply: &Delivered, summary: &mut Summary) {
        reply.streams.iter().for_each(|delivery| summary.ids(&delivery.ids));
    }

    fn apply(&self, context: &mut Context<'_>) -> Result<Delivered, Stop> {
        // All of them first: one missing group refuses the whole read.
        for GroupRead { stream, .. } in &self.streams {
            context.state.streams.find_group(stream, &self.group)?;
        }
        let mut budget = context.budget.narrowed(self.bytes_max, self.total_max);
        let mut streams = Vec::with_capacity(self.streams.len());
        for GroupRead { stream, from } in &self.streams {
            let (entries, group) = context.state.streams.find_group_mut(stream, &self.group)?;
            // Also if nothing is delivered.
            let consumer = group.seen(&self.consumer, context.now_ms);
            let reader = Reader { entries, group, consumer, now_ms: context.now_ms, blocks: context.blocks };
            streams.push(match from {
                GroupReadFrom::New => reader.deliver(self, &mut budget)?,
                GroupReadFrom::PendingAfter(after) => {
                    let ids = reader.repeat_pending(*after, self.count(), &mut budget)?;
                    Delivery { ids, claimed: Vec::new() }
                }
            });
            context.state.streams.touch(stream, context.index);
        }
        context.budget.settle(&budget);
        Ok(Delivered { streams, more: budget.is_cut() })
    }

    fn delivered<'a>(&'a self, reply: &'a Delivered) -> Vec<(&'a StreamName, &'a [EntryId])> {
        self.streams
            .iter()
            .map(|read| &read.stream)
            .zip(reply.streams.iter().map(|delivery| delivery.ids.as_slice()))
            .collect()
    }
}

impl ReadGroup {
    /// Entries of each stream at most.
    fn count(&self) -> usize {
        if self.count == 0 { COUNT_MAX as usize } else { self.count as usize }
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
    /// Delivers idle entries if those are wanted, and then new ones.
    fn deliver(mut self, read: &ReadGroup, budget: &mut Budget) -> Result<Delivery, BlockError> {
        let (mut ids, claimed) = match read.claim_min_idle_ms {
            Some(min_idle_ms) => self.claim(min_idle_ms, read.count(), budget)?,
            None => (Vec::new(), Vec::new()),
        };
        ids.extend(self.deliver_new(read.count() - ids.len(), read.no_ack, budget)?);
        let gained = !ids.is_empty() && (!read.no_ack || !claimed.is_empty());
        if gained {
            self.group.active(self.consumer, self.now_ms);
        }
        Ok(Delivery { ids, claimed })
    }

    /// Claims pending entries that were given back or have been idle for long enough: their ids, and what they were.
    fn claim(
        &mut self,
        min_idle_ms: u64,
        count: usize,
        budget: &mut Budget,
    ) -> Result<(Vec<EntryId>, Vec<Redelivery>), BlockError> {
        let &mut Reader { entries, ref mut group, consumer, now_ms, blocks } = self;
        let mut cursor = entries.cursor(blocks);
        let mut found = Vec::new();
        for pending in group.pending().in_order() {
            if found.len() == count || !pending.is_claimable(min_idle_ms, now_ms) || !budget.look() {
                break;
            }
            let Some(entry) = cursor.get(pending.id)? else { continue };
            if !budget.admit(entry.fields.packed_len() as u64) {
                break;
            }
            found.push(*pending);
        }
        let (mut ids, mut claimed) = (Vec::with_capacity(found.len()), Vec::with_capacity(found.len()));
        for pending in found {
            ids.push(pending.id);
            let delivery_count = pending.delivery_count;
            claimed.push(Redelivery { idle_ms: pending.idle_ms(now_ms), delivery_count });
            group.give(pending.id, consumer, now_ms, one_more(delivery_count));
        }
        Ok((ids, claimed))
    }

    /// Delivers entries behind the group's position and moves it.
    fn deliver_new(&mut self, count: usize, no_ack: bool, budget: &mut Budget) -> Result<Vec<EntryId>, BlockError> {
        let &mut Reader { entries, ref mut group, consumer, now_ms, blocks } = self;
        let mut ids = Vec::new();
        if count == 0 {
            return Ok(ids);
        }
        entries.scan(group.last_id(), blocks, |entry| {
            if !budget.admit(entry.fields.packed_len() as u64) {
                return false;
            }
            ids.push(entry.id);
            ids.len() < count
        })?;
        for &id in &ids {
            let read = entries.counters().entries_read_after(group.entries_read(), group.last_id(), id);
            if Some(&id) != ids.last() || !crate::mutant!(DeliversTwice) {
                group.set_position(id, read);
            }
            if !no_ack {
                // One that is pending already, since the group was moved backwards, changes owners and counts anew.
                group.give(id, consumer, now_ms, 1);
            }
        }
        if ids.len() == count && crate::mutant!(PositionSkips) {
            group.set_position(entries.counters().last_id, group.entries_read());
        }
        Ok(ids)
    }

    /// Repeats the consumer's own pending entries. Those whose entries are gone are named but not counted again.
    fn repeat_pending(self, after: EntryId, count: usize, budget: &mut Budget) -> Result<Vec<EntryId>, BlockError> {
        let Reader { entries, group, consumer, now_ms, blocks } = self;
        let Some(owner) = group.consumer(consumer) else { return Ok(Vec::new()) };
        let mut cursor = entries.cursor(blocks);
        let (mut ids, mut live) = (Vec::new(), Vec::new());
        for &id in owner.pending().range((Excluded(after), Unbounded)).take(count) {
            let packed_len = cursor.get(id)?.map(|entry| entry.fields.packed_len() as u64);
            if !budget.admit(packed_len.unwrap_or(0)) {
                break;
            }
            ids.push(id);
            if packed_len.is_some() {
                live.extend(group.pending().get(id).copied());
            }
        }
        for pending in live {
            group.give(pending.id, consumer, now_ms, one_more(pending.delivery_count));
        }
        Ok(ids)
    }
}

fn one_more(delivery_count: u64) -> u64 {
    delivery_count.saturating_add(1).min(DELIVERY_COUNT_MAX)
}

#[cfg(test)]
mod tests;
