//! XPENDING.

use minicbor::{Decode, Encode};

use crate::budget::Budget;
use crate::entry_id::EntryId;
use crate::error::Refusal;
use crate::names::{ConsumerName, GroupName, StreamName};
use crate::pending::Pending;
use crate::state::State;

/// A group's pending entries, summarised.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct PendingSummary {
    /// How many there are, those that were given back included.
    #[n(0)]
    pub count: u64,
    /// The smallest id; `None` if there is none.
    #[n(1)]
    pub min_id: Option<EntryId>,
    /// The greatest id; `None` if there is none.
    #[n(2)]
    pub max_id: Option<EntryId>,
    /// The consumers that have at least one, by name.
    #[n(3)]
    pub consumers: Vec<ConsumerPending>,
    /// The answer was full: there are more consumers.
    #[n(4)]
    pub more: bool,
}

/// How many pending entries a consumer has.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ConsumerPending {
    /// The consumer.
    #[n(0)]
    pub consumer: ConsumerName,
    /// Number of its pending entries, at least 1.
    #[n(1)]
    pub count: u64,
}

/// Pending entries, by id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct PendingPage {
    /// The entries.
    #[n(0)]
    pub entries: Vec<PendingEntry>,
    /// The answer was full, or the list was looked at for long enough: go on from here. `None`: that was all, or as many
    /// as were asked for.
    #[n(1)]
    pub next: Option<EntryId>,
}

/// Asks for pending entries (XPENDING with a range).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct PendingQuery {
    /// The stream.
    #[n(0)]
    pub stream: StreamName,
    /// The group.
    #[n(1)]
    pub group: GroupName,
    /// The smallest id.
    #[n(2)]
    pub start: EntryId,
    /// The greatest id.
    #[n(3)]
    pub end: EntryId,
    /// Entries at most.
    #[n(4)]
    pub count: u32,
    /// Only this consumer's; an unknown one has none. `None`: all.
    #[n(5)]
    pub consumer: Option<ConsumerName>,
    /// Only entries not delivered for at least this many milliseconds, and those that were given back; the others do not
    /// count.
    #[n(6)]
    pub min_idle_ms: u64,
}

/// One pending entry.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct PendingEntry {
    /// Its id. The entry may be in the stream no longer.
    #[n(0)]
    pub id: EntryId,
    /// Who owns it. `None`: nobody, it was given back.
    #[n(1)]
    pub consumer: Option<ConsumerName>,
    /// Milliseconds since it was last delivered. `None`: it was given back.
    #[n(2)]
    pub idle_ms: Option<u64>,
    /// How often it was delivered.
    #[n(3)]
    pub delivery_count: u64,
}

impl State {
    /// Summarises the pending entries of a group. Refuses with `GroupNotFound`.
    pub fn pending_summary(&self, stream: &StreamName, group: &GroupName) -> Result<PendingSummary, Refusal> {
        self.pending_summary_within(stream, group, &mut Budget::shared(0))
    }

    pub(crate) fn pending_summary_within(
        &self,
        stream: &StreamName,
        group: &GroupName,
        budget: &mut Budget,
    ) -> Result<PendingSummary, Refusal> {
        let (_, group) = self.streams.find_group(stream, group)?;
        let mut consumers = Vec::new();
        for (name, number) in group.consumers() {
            let count = group.consumer(number).map_or(0, |consumer| consumer.pending().len() as u64);
            if !budget.look() || (count > 0 && !budget.admit_row(name.as_str())) {
                break;
            }
            if count > 0 {
                consumers.push(ConsumerPending { consumer: name.clone(), count });
            }
        }
        Ok(PendingSummary {
            count: group.pending().len(),
            min_id: group.pending().iter_from(EntryId::MIN).next().map(|pending| pending.id),
            max_id: group.pending().last().map(|pending| pending.id),
            consumers,
            more: budget.is_cut(),
        })
    }

    /// Lists pending entries by id. Refuses with `GroupNotFound`.
    pub fn pending_list(&self, query: &PendingQuery, now_ms: u64) -> Result<PendingPage, Refusal> {
        self.pending_list_within(query, now_ms, &mut Budget::shared(0))
    }

    pub(crate) fn pending_list_within(
        &self,
        query: &PendingQuery,
        now_ms: u64,
        budget: &mut Budget,
    ) -> Result<PendingPage, Refusal> {
        let PendingQuery { stream, group, start, end, count, consumer, min_idle_ms } = query;
        let (_, group) = self.streams.find_group(stream, group)?;
        let mut page = PendingPage::default();
        let mut visit = |pending: &Pending| {
            if page.entries.len() == *count as usize {
                return false;
            }
            let owner = group.owner_name(pending);
            let is_wanted = pending.is_claimable(*min_idle_ms, now_ms);
            if !budget.look() || (is_wanted && !budget.admit_row(owner.map_or("", ConsumerName::as_str))) {
                page.next = Some(pending.id);
                return false;
            }
            if is_wanted {
                page.entries.push(PendingEntry {
                    id: pending.id,
                    consumer: owner.cloned(),
                    idle_ms: pending.consumer.map(|_| pending.idle_ms(now_ms)),
                    delivery_count: pending.delivery_count,
                });
            }
            true
        };
        if end < start {
            return Ok(page);
        }
        match consumer {
            None => {
                let mut in_range = group.pending().iter_from(*start).take_while(|pending| pending.id <= *end);
                in_range.all(&mut visit);
            }
            Some(name) => {
                if let Some(consumer) = group.number(name).and_then(|number| group.consumer(number)) {
                    let own = consumer.pending().range(*start..=*end);
                    own.filter_map(|id| group.pending().get(*id)).all(&mut visit);
                }
            }
        }
        Ok(page)
    }
}
