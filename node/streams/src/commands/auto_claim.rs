//! XAUTOCLAIM: move pending entries that have been idle for long to a consumer.

use minicbor::{Decode, Encode};

use super::{Apply, Context, Stop};
use crate::digest::Summary;
use crate::entry_id::EntryId;
use crate::error::Refusal;
use crate::limits::{AUTOCLAIM_SCAN_FACTOR, COUNT_MAX, DELIVERY_COUNT_MAX};
use crate::names::{ConsumerName, GroupName, StreamName};
use crate::pending::Pending;

/// Moves idle pending entries to a consumer (XAUTOCLAIM).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct AutoClaim {
    /// The stream.
    #[n(0)]
    pub stream: StreamName,
    /// The group.
    #[n(1)]
    pub group: GroupName,
    /// Who takes them; created if missing, even if nothing is claimed.
    #[n(2)]
    pub consumer: ConsumerName,
    /// Only entries not delivered for at least this many milliseconds, and those that were given back.
    #[n(3)]
    pub min_idle_ms: u64,
    /// The first pending id to look at.
    #[n(4)]
    pub start: EntryId,
    /// Entries to claim at most, 1 to [`COUNT_MAX`].
    #[n(5)]
    pub count: u32,
    /// Leave the delivery count alone, and return no payloads (JUSTID).
    #[n(6)]
    pub ids_only: bool,
}

/// What was claimed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct AutoClaimed {
    /// The next pending id to look at; 0-0 if the end was reached.
    #[n(0)]
    pub cursor: EntryId,
    /// The entries that the consumer now owns, oldest first.
    #[n(1)]
    pub ids: Vec<EntryId>,
    /// Pending ids whose entries are no longer in the stream: they are pending no more.
    #[n(2)]
    pub deleted: Vec<EntryId>,
}

impl Apply for AutoClaim {
    type Reply = AutoClaimed;

    fn check(&self) -> Result<(), Refusal> {
        if self.count == 0 {
            return Err(Refusal::invalid("count", "at least one entry must be asked for"));
        }
        Refusal::check_limit("count", self.count.into(), COUNT_MAX.into())
    }

    fn summarize(&self, reply: &AutoClaimed, summary: &mut Summary) {
        summary.id(reply.cursor);
        summary.ids(&reply.ids);
        summary.ids(&reply.deleted);
    }

    fn apply(&self, context: &mut Context<'_>) -> Result<AutoClaimed, Stop> {
        let now_ms = context.now_ms;
        let (entries, group) = context.state.streams.find_group_mut(&self.stream, &self.group)?;
        // Also if nothing is claimed.
        let consumer = group.seen(&self.consumer, now_ms);

        let count = self.count as usize;
        let mut cursor = entries.cursor(context.blocks);
        let mut budget = context.budget.narrowed(0, 0);
        let (mut next, mut claimed, mut deleted) = (EntryId::MIN, Vec::new(), Vec::new());
        for (looked_at, pending) in group.pending().iter_from(self.start).enumerate() {
            let is_enough = looked_at == count * AUTOCLAIM_SCAN_FACTOR || claimed.len() + deleted.len() == count;
            if is_enough || !budget.look() {
                next = pending.id;
                break;
            }
            let Some(entry) = cursor.get(pending.id)? else {
                deleted.push(pending.id);
                continue;
            };
            if !pending.is_claimable(self.min_idle_ms, now_ms) {
                continue;
            }
            if !self.ids_only && !budget.admit(entry.fields.packed_len() as u64) {
                next = pending.id;
                break;
            }
            claimed.push(*pending);
        }

        for id in &deleted {
            group.remove_pending(*id);
        }
        for &Pending { id, delivery_count, .. } in &claimed {
            let delivery_count = delivery_count.saturating_add(u64::from(!self.ids_only)).min(DELIVERY_COUNT_MAX);
            group.give(id, consumer, now_ms, delivery_count);
        }
        if !claimed.is_empty() {
            group.active(consumer, now_ms);
        }
        context.budget.settle(&budget);
        context.state.streams.touch(&self.stream, context.index);
        Ok(AutoClaimed { cursor: next, ids: claimed.iter().map(|pending| pending.id).collect(), deleted })
    }

    fn delivered<'a>(&'a self, reply: &'a AutoClaimed) -> Vec<(&'a StreamName, &'a [EntryId])> {
        if self.ids_only { Vec::new() } else { vec![(&self.stream, &reply.ids)] }
    }
}
