//! Questions as commands: answered at their place in the log, between what comes before and after them in a batch.
//!
//! The answer holds ids and numbers. The payloads of its ids are collected when it is given, on the node that serves.

use minicbor::{Decode, Encode};

use super::{Apply, Context, Stop};
use crate::block::{BlockError, Blocks};
use crate::budget::Budget;
use crate::entry_id::EntryId;
use crate::error::Refusal;
use crate::limits::{COUNT_MAX, READ_STREAMS_MAX};
use crate::names::{ConsumerName, GroupName, StreamName};
use crate::queries::{
    ConsumerInfo, EntryPlan, GroupInfo, PendingPage, PendingQuery, PendingSummary, RangeQuery, ReadQuery,
    StreamDetails, StreamInfo,
};
use crate::state::State;

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Query {
    /// Entries between two ids (XRANGE, XREVRANGE). Answered with [`Answer::Entries`].
    #[n(0)]
    Range(#[n(0)] RangeQuery),
    /// Entries after given ids (XREAD, which does not wait here). Answered with [`Answer::Read`].
    #[n(1)]
    Read(#[n(0)] ReadStreams),
    /// A stream (XLEN, XINFO STREAM). Answered with [`Answer::Stream`].
    #[n(2)]
    Stream(#[n(0)] StreamName),
    /// A stream in full (XINFO STREAM FULL). Answered with [`Answer::Details`].
    #[n(3)]
    Details {
        /// The stream.
        #[n(0)]
        stream: StreamName,
        /// Entries, and pending entries of each group and each consumer, at most.
        #[n(1)]
        count: u32,
    },
    /// A group's pending entries, summarised (XPENDING). Answered with [`Answer::PendingSummary`].
    #[n(4)]
    PendingSummary {
        /// The stream.
        #[n(0)]
        stream: StreamName,
        /// The group.
        #[n(1)]
        group: GroupName,
    },
    /// A group's pending entries (XPENDING with a range). Answered with [`Answer::Pending`].
    #[n(5)]
    Pending(#[n(0)] PendingQuery),
    /// A stream's groups (XINFO GROUPS). Answered with [`Answer::Groups`].
    #[n(6)]
    Groups {
        /// The stream.
        #[n(0)]
        stream: StreamName,
        /// Only those after this one, by name. `None`: from the first.
        #[n(1)]
        after: Option<GroupName>,
        /// Groups at most.
        #[n(2)]
        count: u32,
    },
    /// A group's consumers (XINFO CONSUMERS). Answered with [`Answer::Consumers`].
    #[n(7)]
    Consumers {
        /// The stream.
        #[n(0)]
        stream: StreamName,
        /// The group.
        #[n(1)]
        group: GroupName,
        /// Only those after this one, by name. `None`: from the first.
        #[n(2)]
        after: Option<ConsumerName>,
        /// Consumers at most.
        #[n(3)]
        count: u32,
    },
}

/// Asks for entries of several streams (XREAD).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ReadStreams {
    /// The streams; the same one may stand twice.
    #[n(0)]
    pub streams: Vec<StreamRead>,
    /// Entries of each stream at most.
    #[n(1)]
    pub count: u32,
    /// Entries of all streams at most (MAXCOUNT). 0: no limit.
    #[n(2)]
    pub total_max: u32,
    /// Packed bytes of all entries at most, but at least one entry (MAXSIZE). 0: no limit.
    #[n(3)]
    pub bytes_max: u64,
}

/// One stream of a read.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct StreamRead {
    /// The stream; a missing one is empty.
    #[n(0)]
    pub stream: StreamName,
    /// Which of its entries.
    #[n(1)]
    pub from: ReadFrom,
}

/// Where a read starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum ReadFrom {
    /// Entries with greater ids.
    #[n(0)]
    After(#[n(0)] EntryId),
    /// Entries appended from now on (`$`): none, where one does not wait.
    #[n(1)]
    New,
    /// The last entry (`+`).
    #[n(2)]
    Last,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Answer {
    /// The ids of entries.
    #[n(0)]
    Entries {
        /// The ids, in the order asked for.
        #[n(0)]
        ids: Vec<EntryId>,
        /// There is more in the range; or there may be, if there was no room to begin with.
        #[n(1)]
        more: bool,
    },
    /// The ids of entries of several streams, in the order of the streams.
    #[n(1)]
    Read(#[n(0)] Vec<Found>),
    /// A stream.
    #[n(2)]
    Stream {
        /// The stream.
        #[n(0)]
        info: Box<StreamInfo>,
        /// The ids of its first and its last entry; without those for which the batch has no room.
        #[n(1)]
        ids: Vec<EntryId>,
    },
    /// A stream in full, and the ids of its first entries.
    #[n(3)]
    Details {
        /// The stream.
        #[n(0)]
        details: Box<StreamDetails>,
        /// The ids of its first entries.
        #[n(1)]
        ids: Vec<EntryId>,
    },
    /// A summary of pending entries.
    #[n(4)]
    PendingSummary(#[n(0)] PendingSummary),
    /// Pending entries, by id.
    #[n(5)]
    Pending(#[n(0)] PendingPage),
    /// Groups, by name.
    #[n(6)]
    Groups {
        /// The groups.
        #[n(0)]
        groups: Vec<GroupInfo>,
        /// The answer was full: there are more.
        #[n(1)]
        more: bool,
    },
    /// Consumers, by name.
    #[n(7)]
    Consumers {
        /// The consumers.
        #[n(0)]
        consumers: Vec<ConsumerInfo>,
        /// The answer was full: there are more.
        #[n(1)]
        more: bool,
    },
}

/// What a read found in one stream.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Found {
    /// The ids, oldest first.
    #[n(0)]
    pub ids: Vec<EntryId>,
    /// Read on after this: the last of the ids, or the position asked for as an id.
    #[n(1)]
    pub next_after: EntryId,
    /// There is more after it.
    #[n(2)]
    pub more: bool,
}

impl Apply for Query {
    type Reply = Answer;

    fn check(&self) -> Result<(), Refusal> {
        if let Query::Read(ReadStreams { streams, count, total_max, .. }) = self {
            if streams.is_empty() {
                return Err(Refusal::invalid("streams", "at least one stream is needed"));
            }
            Refusal::check_limit("streams", streams.len() as u64, READ_STREAMS_MAX as u64)?;
            if 0 < *total_max && total_max < count {
                return Err(Refusal::invalid("total_max", "must not be smaller than count"));
            }
        }
        Refusal::check_limit("count", self.count().into(), COUNT_MAX.into())
    }

    fn apply(&self, context: &mut Context<'_>) -> Result<Answer, Stop> {
        let (state, now_ms) = (&*context.state, context.now_ms);
        let mut budget = context.budget.narrowed(0, 0);
        let entries = |plan: EntryPlan, budget: &mut Budget| ids_within(&plan, context.blocks, budget);
        let range = |stream: &StreamName, reverse: bool, count: u32| {
            let (start, end) = (EntryId::MIN, EntryId::MAX);
            state.range(&RangeQuery { stream: stream.clone(), start, end, reverse, count })
        };
        let answer = match self {
            Query::Range(query) => {
                let (ids, more) = entries(state.range(query), &mut budget)?;
                Answer::Entries { ids, more }
            }
            Query::Read(read) => {
                budget = context.budget.narrowed(read.bytes_max, read.total_max);
                let mut found = Vec::with_capacity(read.streams.len());
                for StreamRead { stream, from } in &read.streams {
                    let after = state.read_after(stream, *from);
                    let query = ReadQuery { stream: stream.clone(), after, count: read.count };
                    let (ids, more) = entries(state.read(&query), &mut budget)?;
                    let next_after = ids.last().copied().unwrap_or(after);
                    found.push(Found { ids, next_after, more });
                }
                Answer::Read(found)
            }
            Query::Stream(stream) => {
                let info = Box::new(state.stream_info(stream)?);
                let mut ids = entries(range(stream, false, 1), &mut budget)?.0;
                ids.extend(entries(range(stream, true, 1), &mut budget)?.0);
                Answer::Stream { info, ids }
            }
            Query::Details { stream, count } => {
                let details = Box::new(state.stream_details_within(stream, *count, &mut budget)?);
                let (ids, _) = entries(range(stream, false, *count), &mut budget)?;
                Answer::Details { details, ids }
            }
            Query::PendingSummary { stream, group } => {
                Answer::PendingSummary(state.pending_summary_within(stream, group, &mut budget)?)
            }
            Query::Pending(query) => Answer::Pending(state.pending_list_within(query, now_ms, &mut budget)?),
            Query::Groups { stream, after, count } => {
                let mut groups = state.groups(stream, after.as_ref(), *count)?;
                let more = cut(&mut groups, &mut budget, |info| info.group.as_str());
                Answer::Groups { groups, more }
            }
            Query::Consumers { stream, group, after, count } => {
                let mut consumers = state.consumers(stream, group, after.as_ref(), *count, now_ms)?;
                let more = cut(&mut consumers, &mut budget, |info| info.consumer.as_str());
                Answer::Consumers { consumers, more }
            }
        };
        context.budget.settle(&budget);
        Ok(answer)
    }

    fn delivered<'a>(&'a self, answer: &'a Answer) -> Vec<(&'a StreamName, &'a [EntryId])> {
        match (self, answer) {
            (Query::Range(RangeQuery { stream, .. }), Answer::Entries { ids, .. })
            | (Query::Stream(stream), Answer::Stream { ids, .. })
            | (Query::Details { stream, .. }, Answer::Details { ids, .. }) => vec![(stream, ids)],
            (Query::Read(read), Answer::Read(found)) => read
                .streams
                .iter()
                .map(|read| &read.stream)
                .zip(found.iter().map(|found| found.ids.as_slice()))
                .collect(),
            _ => Vec::new(),
        }
    }
}

impl Query {
    /// Entries, or other things, at most.
    fn count(&self) -> u32 {
        match self {
            Query::Range(RangeQuery { count, .. })
            | Query::Read(ReadStreams { count, .. })
            | Query::Details { count, .. }
            | Query::Pending(PendingQuery { count, .. })
            | Query::Groups { count, .. }
            | Query::Consumers { count, .. } => *count,
            Query::Stream(_) | Query::PendingSummary { .. } => 1,
        }
    }
}

/// The ids of the entries of a plan, and whether there are more.
fn ids_within(plan: &EntryPlan, blocks: &dyn Blocks, budget: &mut Budget) -> Result<(Vec<EntryId>, bool), BlockError> {
    let mut ids = Vec::new();
    // Nothing could be returned, so nothing need be read.
    if budget.is_spent() {
        return Ok((ids, !plan.is_empty()));
    }
    let more = plan.visit(blocks, |entry| {
        let fits = budget.admit(entry.fields.packed_len() as u64);
        if fits {
            ids.push(entry.id);
        }
        fits
    })?;
    Ok((ids, more))
}

/// Cuts rows to what fits; says whether it cut any.
fn cut<T>(rows: &mut Vec<T>, budget: &mut Budget, name: impl Fn(&T) -> &str) -> bool {
    let kept = rows.iter().take_while(|row| budget.look() && budget.admit_row(name(row))).count();
    let cuts = kept < rows.len();
    rows.truncate(kept);
    cuts
}

impl State {
    /// The position of a read as an id: entries with greater ones are wanted.
    pub fn read_after(&self, stream: &StreamName, from: ReadFrom) -> EntryId {
        match from {
            ReadFrom::After(after) => after,
            ReadFrom::New => self.last_id(stream),
            // Without an entry, the next one to come is meant.
            ReadFrom::Last => {
                self.last_entry_id(stream).and_then(EntryId::prev).unwrap_or_else(|| self.last_id(stream))
            }
        }
    }
}
