//! Sections 4.4, 4.10, 4.15 and 4.18: questions.

use std::collections::BTreeMap;

use millstream_streams::*;

use crate::groups::{Budget, Level};
use crate::lag::lag;
use crate::state::{Group, Model, Pending, Stream};
use crate::step::Step;

impl Model {
    pub(crate) fn query(&mut self, query: &Query) -> Step<Answer> {
        // Taken out, so that the rest can be looked at.
        let mut shared = std::mem::take(&mut self.shared);
        let answer = self.answer(query, &mut shared);
        self.shared = shared;
        answer
    }

    fn answer(&mut self, query: &Query, shared: &mut Level) -> Step<Answer> {
        let mut budget = Budget::new(0, 0, shared);
        Ok(match query {
            Query::Range(range) => self.range(range, &mut budget),
            Query::Read(read) => {
                let mut budget = Budget::new(read.total_max.into(), read.bytes_max, shared);
                Answer::Read(self.read(read, &mut budget))
            }
            Query::Stream(name) => {
                let stream = self.stream(name)?;
                let info = Box::new(stream.info());
                let ends = stream.entries.first().into_iter().chain(stream.entries.last());
                Answer::Stream { info, ids: admitted(ends, &mut budget) }
            }
            Query::Details { stream: name, count } => {
                let details = Box::new(self.details_within(name, *count, &mut budget)?);
                self.corners.reach_if(details.truncated, "bytes: details did not fit");
                let first = self.stream(name)?.entries.iter().take(*count as usize);
                Answer::Details { details, ids: admitted(first, &mut budget) }
            }
            Query::PendingSummary { stream, group } => {
                let mut summary = self.pending_summary(stream, group)?;
                summary.more = cut(&mut summary.consumers, &mut budget, |row| row.consumer.as_str()).is_some();
                self.corners.reach_if(summary.more, "bytes: the summary did not fit");
                Answer::PendingSummary(summary)
            }
            Query::Pending(query) => {
                let mut page = self.pending_list(query)?;
                let left_out = cut(&mut page.entries, &mut budget, |row| owner(row.consumer.as_ref()));
                page.next = left_out.map(|first_left_out| first_left_out.id);
                self.corners.reach_if(page.next.is_some(), "bytes: pending entries did not fit");
                Answer::Pending(page)
            }
            Query::Groups { stream, after, count } => {
                let mut groups = self.stream(stream)?.groups_info();
                groups.retain(|info| after.as_ref().is_none_or(|after| info.group > *after));
                groups.truncate(*count as usize);
                let more = cut(&mut groups, &mut budget, |info| info.group.as_str()).is_some();
                self.corners.reach_if(more, "bytes: groups did not fit");
                Answer::Groups { groups, more }
            }
            Query::Consumers { stream, group, after, count } => {
                let mut consumers = self.consumers(stream, group)?;
                consumers.retain(|info| after.as_ref().is_none_or(|after| info.consumer > *after));
                consumers.truncate(*count as usize);
                let more = cut(&mut consumers, &mut budget, |info| info.consumer.as_str()).is_some();
                self.corners.reach_if(more, "bytes: consumers did not fit");
                Answer::Consumers { consumers, more }
            }
        })
    }

    fn stream(&self, name: &StreamName) -> Result<&Stream, Refusal> {
        self.streams.get(name).ok_or_else(|| Refusal::StreamNotFound { stream: name.clone() })
    }

    fn group(&self, stream: &StreamName, group: &GroupName) -> Result<&Group, Refusal> {
        let found = self.streams.get(stream).and_then(|stream| stream.groups.get(group));
        found.ok_or_else(|| Refusal::GroupNotFound { stream: stream.clone(), group: group.clone() })
    }

    /// Section 4.4.
    fn range(&mut self, query: &RangeQuery, budget: &mut Budget<'_>) -> Answer {
        let RangeQuery { stream, start, end, reverse, count } = query;
        let entries = self.streams.get(stream).map_or(&[][..], |stream| &stream.entries);
        let mut entries: Vec<&Entry> = entries.iter().filter(|entry| *start <= entry.id && entry.id <= *end).collect();
        if *reverse {
            entries.reverse();
        }
        let ids = admitted(entries.iter().copied().take(*count as usize), budget);
        Answer::Entries { more: ids.len() < entries.len(), ids }
    }

    /// Section 4.10.
    fn read(&mut self, ReadStreams { streams, count, .. }: &ReadStreams, budget: &mut Budget<'_>) -> Vec<Found> {
        let none = Stream::default();
        let mut all = Vec::new();
        for StreamRead { stream, from } in streams {
            let stream = self.streams.get(stream).unwrap_or(&none);
            let after = match from {
                ReadFrom::After(id) => *id,
                ReadFrom::New => stream.last_id,
                // For an empty stream the specification says 0-0, the core the last id. Nothing lies between the two, and
                // nothing will, unless XSETID lowers the last id while a reader waits.
                ReadFrom::Last => stream.entries.last().map_or(stream.last_id, |last| last.id.prev().unwrap()),
            };
            let behind: Vec<&Entry> = stream.entries.iter().filter(|entry| entry.id > after).collect();
            let wanted = behind.len().min(*count as usize);
            let ids = admitted(behind.iter().copied().take(wanted), budget);
            self.corners.reach_if(ids.len() < wanted, "4.10 read stopped by size or total");
            let next_after = ids.last().copied().unwrap_or(after);
            all.push(Found { more: ids.len() < behind.len(), ids, next_after });
        }
        all
    }

    /// Section 4.15, summary.
    pub fn pending_summary(&self, stream: &StreamName, group: &GroupName) -> Result<PendingSummary, Refusal> {
        let group = self.group(stream, group)?;
        let mut consumers = BTreeMap::new();
        for pending in &group.pending {
            if let Some(consumer) = &pending.consumer {
                *consumers.entry(consumer.clone()).or_insert(0) += 1;
            }
        }
        Ok(PendingSummary {
            count: group.pending.len() as u64,
            min_id: group.pending.iter().map(|pending| pending.id).min(),
            max_id: group.pending.iter().map(|pending| pending.id).max(),
            consumers: consumers.into_iter().map(|(consumer, count)| ConsumerPending { consumer, count }).collect(),
            more: false,
        })
    }

    /// Section 4.15, extended.
    pub fn pending_list(&self, query: &PendingQuery) -> Result<PendingPage, Refusal> {
        let PendingQuery { stream, group, start, end, count, consumer, min_idle_ms } = query;
        let describe = |pending: &Pending| PendingEntry {
            id: pending.id,
            consumer: pending.consumer.clone(),
            idle_ms: pending.consumer.as_ref().map(|_| self.clock_ms - pending.delivered_ms),
            delivery_count: pending.delivery_count,
        };
        let mut found = Vec::new();
        for pending in self.group(stream, group)?.by_id() {
            let wanted = *start <= pending.id
                && pending.id <= *end
                && consumer.as_ref().is_none_or(|consumer| pending.consumer.as_ref() == Some(consumer));
            let idle = pending.consumer.is_none() || self.clock_ms - pending.delivered_ms >= *min_idle_ms;
            if wanted && idle && found.len() < *count as usize {
                found.push(describe(pending));
            }
        }
        Ok(PendingPage { entries: found, next: None })
    }

    /// Section 4.18, CONSUMERS.
    pub fn consumers(&self, stream: &StreamName, group: &GroupName) -> Result<Vec<ConsumerInfo>, Refusal> {
        self.stream(stream)?;
        let group = self.group(stream, group)?;
        let describe = |(name, consumer): (&ConsumerName, &super::state::Consumer)| ConsumerInfo {
            consumer: name.clone(),
            pending: group.of_consumer(name).len() as u64,
            idle_ms: self.clock_ms - consumer.seen_ms,
            inactive_ms: consumer.active_ms.map(|active_ms| self.clock_ms - active_ms),
        };
        Ok(group.consumers.iter().map(describe).collect())
    }

    /// Section 4.18, STREAM FULL.
    pub fn details(&self, stream: &StreamName, count: u32) -> Result<StreamDetails, Refusal> {
        self.details_within(stream, count, &mut Budget::new(0, 0, &mut Level::default()))
    }

    /// The same, as far as there is room: a group, then what is pending in it, then each consumer with what is its own.
    fn details_within(
        &self,
        stream: &StreamName,
        count: u32,
        budget: &mut Budget<'_>,
    ) -> Result<StreamDetails, Refusal> {
        let stream = self.stream(stream)?;
        let describe = |pending: &Pending| PendingDetails {
            id: pending.id,
            consumer: pending.consumer.clone(),
            delivered_ms: pending.delivered_ms,
            delivery_count: pending.delivery_count,
        };
        let pending = |pending: Vec<&Pending>, budget: &mut Budget<'_>| {
            let mut rows: Vec<_> = pending.into_iter().take(count as usize).map(describe).collect();
            cut(&mut rows, budget, |row| owner(row.consumer.as_ref()));
            rows
        };
        let mut groups = Vec::new();
        for (info, group) in stream.groups_info().into_iter().zip(stream.groups.values()) {
            if !budget.admit_row(info.group.as_str()) {
                break;
            }
            let mut details = GroupDetails { info, pending: pending(group.by_id(), budget), consumers: Vec::new() };
            for (name, consumer) in &group.consumers {
                if !budget.admit_row(name.as_str()) {
                    break;
                }
                let own = group.of_consumer(name);
                details.consumers.push(ConsumerDetails {
                    consumer: name.clone(),
                    seen_ms: consumer.seen_ms,
                    active_ms: consumer.active_ms,
                    pending_count: own.len() as u64,
                    pending: pending(own, budget),
                });
            }
            groups.push(details);
        }
        Ok(StreamDetails { info: stream.info(), groups, truncated: budget.cut })
    }

    /// When the first that CLAIM would take can be taken (section 8, "CLAIM timer"), of those that can be only later than
    /// `after`. Behind it, earlier answers that are allowed: those for the dangling ones before it, which cannot always be told from live ones.
    pub fn next_claimable_ms(
        &self,
        stream: &StreamName,
        group: &GroupName,
        min_idle_ms: u64,
        after: Option<u64>,
    ) -> (Option<u64>, Vec<u64>) {
        let mut earlier = Vec::new();
        for pending in &self.streams[stream].groups[group].pending {
            let at_ms = if pending.consumer.is_none() { 0 } else { pending.delivered_ms + min_idle_ms };
            if after.is_some_and(|after| at_ms <= after) {
                continue;
            }
            if self.streams[stream].is_live(pending.id) {
                return (Some(at_ms), earlier);
            }
            earlier.push(at_ms);
        }
        (None, earlier)
    }
}

impl Stream {
    /// Section 4.18, STREAM.
    pub fn info(&self) -> StreamInfo {
        StreamInfo {
            length: self.length(),
            last_id: self.last_id,
            max_deleted_id: self.max_deleted_id,
            entries_added: self.entries_added,
            groups: self.groups.len() as u64,
            first: self.entries.first().map(|entry| entry.id),
            last: self.entries.last().map(|entry| entry.id),
            bytes: self.bytes(),
            last_change_index: self.last_change_index,
            config: self.config,
            producers: self.producers.count(),
            idempotency_keys: self.producers.keys.len() as u64,
            idempotency_keys_added: self.producers.added,
            idempotency_duplicates: self.producers.duplicates,
        }
    }

    /// Section 4.18, GROUPS.
    pub fn groups_info(&self) -> Vec<GroupInfo> {
        let describe = |(name, group): (&GroupName, &Group)| GroupInfo {
            group: name.clone(),
            consumers: group.consumers.len() as u64,
            pending: group.pending.len() as u64,
            last_delivered_id: group.last_id,
            entries_read: group.entries_read,
            lag: lag(self, group),
            released: group.pending.iter().filter(|pending| pending.consumer.is_none()).count() as u64,
        };
        self.groups.iter().map(describe).collect()
    }
}

impl Group {
    fn of_consumer(&self, consumer: &ConsumerName) -> Vec<&Pending> {
        self.by_id().into_iter().filter(|pending| pending.consumer.as_ref() == Some(consumer)).collect()
    }
}

/// The ids of the first of the entries, as far as there is room.
fn admitted<'a>(entries: impl Iterator<Item = &'a Entry>, budget: &mut Budget<'_>) -> Vec<EntryId> {
    entries.take_while(|entry| budget.admit(entry.fields.packed_len() as u64)).map(|entry| entry.id).collect()
}

/// Leaves the first of the rows, as far as there is room. Returns the first that is left out.
fn cut<T>(rows: &mut Vec<T>, budget: &mut Budget<'_>, name: impl Fn(&T) -> &str) -> Option<T> {
    let kept = rows.iter().take_while(|row| budget.admit_row(name(row))).count();
    rows.drain(kept..).next()
}

fn owner(consumer: Option<&ConsumerName>) -> &str {
    consumer.map_or("", ConsumerName::as_str)
}
