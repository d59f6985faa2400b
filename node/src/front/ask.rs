//! The core's questions, answered from this node's state as it is now.

use std::ops::ControlFlow;

use millstream_streams::limits::COUNT_MAX;
use millstream_streams::{Answer, Entry, EntryId, EntryPage, EntryPlan, Query, RangeQuery, State, StreamName};

use super::{Denied, EntryBounds, Front, Result};

/// Entries of a range that are read at a time.
const PAGE_ENTRIES: u32 = 1_000;

/// An answer, and the entries that it names, in its order.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) answer: Answer,
    pub(crate) entries: Vec<Option<Entry>>,
}

fn range(stream: &StreamName, reverse: bool, count: u32) -> RangeQuery {
    RangeQuery { stream: stream.clone(), start: EntryId::MIN, end: EntryId::MAX, reverse, count }
}

impl Front {
    /// Answers a question within `bytes_max` bytes of entries. Reads of several streams are another matter: they may wait
    /// ([`Front::read`]).
    pub(crate) fn ask(&self, query: &Query, bytes_max: usize) -> Result<Answered> {
        let now_ms = self.replica.now_ms();
        let look = |state: &State| -> Result<(Answer, Vec<EntryPlan>)> {
            Ok(match query {
                Query::Range(query) => (Answer::Entries { ids: Vec::new(), more: false }, vec![state.range(query)]),
                Query::Read(_) => return Err(Denied::Broken("a read is no question")),
                Query::Stream(stream) => {
                    let info = Box::new(state.stream_info(stream)?);
                    let ends = [false, true].map(|reverse| state.range(&range(stream, reverse, 1)));
                    (Answer::Stream { info, ids: Vec::new() }, ends.into())
                }
                Query::Details { stream, count } => {
                    let details = Box::new(state.stream_details(stream, *count)?);
                    (Answer::Details { details, ids: Vec::new() }, vec![state.range(&range(stream, false, *count))])
                }
                Query::PendingSummary { stream, group } => {
                    (Answer::PendingSummary(state.pending_summary(stream, group)?), Vec::new())
                }
                Query::Pending(query) => (Answer::Pending(state.pending_list(query, now_ms)?), Vec::new()),
                Query::Groups { stream, after, count } => {
                    let groups = state.groups(stream, after.as_ref(), *count)?;
                    let more = *count as usize == groups.len();
                    (Answer::Groups { groups, more }, Vec::new())
                }
                Query::Consumers { stream, group, after, count } => {
                    let consumers = state.consumers(stream, group, after.as_ref(), *count, now_ms)?;
                    let more = *count as usize == consumers.len();
                    (Answer::Consumers { consumers, more }, Vec::new())
                }
            })
        };
        let (mut answer, pages) = self.entries(EntryBounds::bytes(bytes_max), look)?;
        let more_there = pages.iter().any(|page| page.more);
        let entries: Vec<_> = pages.into_iter().flat_map(|page| page.entries).collect();
        if let Answer::Entries { ids, .. } | Answer::Stream { ids, .. } | Answer::Details { ids, .. } = &mut answer {
            *ids = entries.iter().map(|entry| entry.id).collect();
        }
        if let Answer::Entries { more, .. } = &mut answer {
            *more = more_there;
        }
        Ok(Answered { answer, entries: entries.into_iter().map(Some).collect() })
    }

    /// Shows `take` all entries of a range, `count` at most if it is given, whatever the bounds of one question, until it has
    /// enough. They are read page by page: what is appended or deleted meanwhile may be among them or not.
    pub(crate) async fn whole_range<B>(
        &self,
        mut query: RangeQuery,
        count: Option<u64>,
        mut take: impl FnMut(&[Entry]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>> {
        let mut left = count.unwrap_or(u64::MAX);
        loop {
            query.count = u32::try_from(left).unwrap_or(u32::MAX).min(PAGE_ENTRIES.min(COUNT_MAX));
            let plan = |state: &State| Result::Ok(((), vec![state.range(&query)]));
            let ((), pages) = self.entries(EntryBounds::bytes(self.limits.response_bytes_max), plan)?;
            let EntryPage { entries, more, .. } = pages.into_iter().next().unwrap_or_default();
            if let ControlFlow::Break(enough) = take(&entries) {
                return Ok(ControlFlow::Break(enough));
            }
            left = left.saturating_sub(entries.len() as u64);
            let last = entries.last().filter(|_| more && 0 < left).map(|entry| entry.id);
            let next = last.and_then(|last| if query.reverse { last.prev() } else { last.next() });
            let Some(next) = next else { return Ok(ControlFlow::Continue(())) };
            if query.reverse {
                query.end = next
            } else {
                query.start = next
            }
            // Others have something to do as well.
            tokio::task::yield_now().await;
        }
    }
}
