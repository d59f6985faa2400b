//! XCLAIM: move pending entries to a consumer.

use minicbor::{Decode, Encode};

use super::{Apply, Context, Stop, check_ids};
use crate::digest::Summary;
use crate::entry_id::EntryId;
use crate::error::Refusal;
use crate::limits::DELIVERY_COUNT_MAX;
use crate::names::{ConsumerName, GroupName, StreamName};

/// Moves pending entries to a consumer (XCLAIM).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Claim {
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
    /// 0 to [`IDS_MAX`](crate::limits::IDS_MAX) ids.
    #[n(4)]
    pub ids: Vec<EntryId>,
    /// What the delivery time becomes.
    #[n(5)]
    pub delivery_time: DeliveryTime,
    /// What the delivery count becomes, at most [`DELIVERY_COUNT_MAX`]. `None`: one more, or as before with `ids_only`.
    #[n(6)]
    pub delivery_count: Option<u64>,
    /// Make entries pending that are not, if they are in the stream (FORCE).
    #[n(7)]
    pub force: bool,
    /// Leave the delivery count alone, and return no payloads (JUSTID).
    #[n(8)]
    pub ids_only: bool,
    /// Advance the group's position to at least this (LASTID).
    #[n(9)]
    pub last_id: Option<EntryId>,
}

/// What was claimed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Claimed {
    /// The entries that the consumer now owns, in the order asked for.
    #[n(0)]
    pub ids: Vec<EntryId>,
    /// The answer was full: an entry did not fit, and it and the ids behind it stay as they are.
    #[n(1)]
    pub more: bool,
}

/// What the delivery time of a claimed entry becomes. Never later than now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum DeliveryTime {
    /// Now.
    #[n(0)]
    Now,
    /// This many milliseconds ago (IDLE).
    #[n(1)]
    IdleMs(#[n(0)] u64),
    /// This time, in milliseconds since the Unix epoch (TIME).
    #[n(2)]
    UnixMs(#[n(0)] u64),
}

impl Apply for Claim {
    type Reply = Claimed;

    fn check(&self) -> Result<(), Refusal> {
        check_ids(&self.ids, 0)?;
        Refusal::check_limit("delivery_count", self.delivery_count.unwrap_or(0), DELIVERY_COUNT_MAX)
    }

    fn ids(&self) -> u64 {
        self.ids.len() as u64
    }

    fn summarize(&self, reply: &Claimed, summary: &mut Summary) {
        summary.ids(&reply.ids);
    }

    fn apply(&self, context: &mut Context<'_>) -> Result<Claimed, Stop> {
        let now_ms = context.now_ms;
        let (entries, group) = context.state.streams.find_group_mut(&self.stream, &self.group)?;
        if let Some(last_id) = self.last_id
            && group.last_id() < last_id
        {
            group.set_position(last_id, group.entries_read());
        }
        // Also if nothing is claimed.
        let consumer = group.seen(&self.consumer, now_ms);
        let delivered_ms = self.delivery_time.resolve(now_ms);

        let mut cursor = entries.cursor(context.blocks);
        let mut budget = context.budget.narrowed(0, 0);
        let mut ids = Vec::new();
        for &id in &self.ids {
            let Some(entry) = cursor.get(id)? else {
                // Nobody can ever process it: whoever owns it, and however young, it is pending no more.
                group.remove_pending(id);
                continue;
            };
            let count_before = match group.pending().get(id) {
                Some(pending) if !pending.is_claimable(self.min_idle_ms, now_ms) => continue,
                Some(pending) => pending.delivery_count,
                None if self.force => 1,
                None => continue,
            };
            if !self.ids_only && !budget.admit(entry.fields.packed_len() as u64) {
                break;
            }
            let counted = count_before.saturating_add(u64::from(!self.ids_only)).min(DELIVERY_COUNT_MAX);
            let delivery_count = self.delivery_count.unwrap_or(counted);
            group.give(id, consumer, delivered_ms, delivery_count);
            ids.push(id);
        }
        if !ids.is_empty() {
            group.active(consumer, now_ms);
        }
        context.budget.settle(&budget);
        context.state.streams.touch(&self.stream, context.index);
        Ok(Claimed { ids, more: budget.is_cut() })
    }

    fn delivered<'a>(&'a self, reply: &'a Claimed) -> Vec<(&'a StreamName, &'a [EntryId])> {
        if self.ids_only { Vec::new() } else { vec![(&self.stream, &reply.ids)] }
    }
}

impl DeliveryTime {
    /// The time that it means. What lies before the epoch or after now becomes now, as in Redis.
    fn resolve(self, now_ms: u64) -> u64 {
        match self {
            DeliveryTime::Now => now_ms,
            DeliveryTime::IdleMs(idle_ms) => now_ms.checked_sub(idle_ms).unwrap_or(now_ms),
            DeliveryTime::UnixMs(unix_ms) => unix_ms.min(now_ms),
        }
    }
}
