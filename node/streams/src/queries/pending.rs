//! XPENDING.

use crate::entry_id::EntryId;
use crate::error::Refusal;
use crate::names::{ConsumerName, GroupName, StreamName};
use crate::pending::Pending;
use crate::state::State;

/// A group's pending entries, summarised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingSummary {
    /// How many there are.
    pub count: u64,
    /// The smallest id; `None` if there is none.
    pub min_id: Option<EntryId>,
    /// The greatest id; `None` if there is none.
    pub max_id: Option<EntryId>,
    /// The consumers that have at least one, by name, with their number.
    pub consumers: Vec<(ConsumerName, u64)>,
}

/// Asks for pending entries (XPENDING with a range).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingQuery {
    /// The stream.
    pub stream: StreamName,
    /// The group.
    pub group: GroupName,
    /// The smallest id.
    pub start: EntryId,
    /// The greatest id.
    pub end: EntryId,
    /// Entries at most.
    pub count: usize,
    /// Only this consumer's; an unknown one has none. `None`: all.
    pub consumer: Option<ConsumerName>,
    /// Only entries not delivered for at least this many milliseconds; the others do not count.
    pub min_idle_ms: u64,
}

/// One pending entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingEntry {
    /// Its id. The entry may be in the stream no longer.
    pub id: EntryId,
    /// Who owns it.
    pub consumer: ConsumerName,
    /// Milliseconds since it was last delivered.
    pub idle_ms: u64,
    /// How often it was delivered.
    pub delivery_count: u64,
}

impl State {
    /// Summarises the pending entries of a group. Refuses with `GroupNotFound`.
    pub fn pending_summary(&self, stream: &StreamName, group: &GroupName) -> Result<PendingSummary, Refusal> {
        let (_, group) = self.streams.find_group(stream, group)?;
        let count_of = |number| group.consumer(number).map_or(0, |consumer| consumer.pending().len() as u64);
        Ok(PendingSummary {
            count: group.pending().len(),
            min_id: group.pending().iter_from(EntryId::MIN).next().map(|pending| pending.id),
            max_id: group.pending().last().map(|pending| pending.id),
            consumers: group
                .consumers()
                .map(|(name, number)| (name.clone(), count_of(number)))
                .filter(|(_, count)| *count > 0)
                .collect(),
        })
    }

    /// Lists pending entries by id. Refuses with `GroupNotFound`.
    pub fn pending_list(&self, query: &PendingQuery, now_ms: u64) -> Result<Vec<PendingEntry>, Refusal> {
        let PendingQuery { stream, group, start, end, count, consumer, min_idle_ms } = query;
        let (_, group) = self.streams.find_group(stream, group)?;
        let show = |pending: &Pending| {
            Some(PendingEntry {
                id: pending.id,
                consumer: group.consumer(pending.consumer)?.name().clone(),
                idle_ms: pending.idle_ms(now_ms),
                delivery_count: pending.delivery_count,
            })
        };
        let is_idle = |pending: &&Pending| pending.idle_ms(now_ms) >= *min_idle_ms;
        if end < start {
            return Ok(Vec::new());
        }
        Ok(match consumer {
            None => {
                let in_range = group.pending().iter_from(*start).take_while(|pending| pending.id <= *end);
                in_range.filter(is_idle).filter_map(show).take(*count).collect()
            }
            Some(name) => {
                let Some(consumer) = group.number(name).and_then(|number| group.consumer(number)) else {
                    return Ok(Vec::new());
                };
                let in_range = consumer.pending().range(*start..=*end).filter_map(|id| group.pending().get(*id));
                in_range.filter(is_idle).filter_map(show).take(*count).collect()
            }
        })
    }
}
