//! Whether the answers to questions are what the model would have said.
//!
//! A range over gRPC says from which state it was answered, and a description when its stream changed last: those are held against
//! the model at one index. The answers to other questions must be the model's at some index between what had been
//! told before the question was asked and what was asked for after it was answered.

use std::collections::BTreeMap;

use millstream_streams::{EntryId, GroupName, PendingQuery, StreamName};
use millstream_streams_model::{Cluster, Stream};

use super::deeds::{content, seen_id};
use super::order::{Told, least_index};
use crate::history::{Action, After, Call, Entry, Fresh, Id, Outcome, Pending};

/// The questions that are still to be held against the model.
pub(super) struct Questions<'a> {
    /// By the index from which on the model is asked.
    waiting: BTreeMap<u64, Vec<Question<'a>>>,
    open: Vec<Question<'a>>,
    /// How many were held against the model.
    pub(super) checked: u64,
}

struct Question<'a> {
    call: &'a Call,
    /// From where to where the state may have been.
    from: u64,
    to: u64,
    /// Its stream's last change when the model was asked last.
    tried: Option<Option<u64>>,
}

impl<'a> Questions<'a> {
    /// Those of the calls that were answered. `last`: the end of the log.
    pub(super) fn new(calls: &'a [Call], told: &Told, not_beyond: &BTreeMap<u64, u64>, last: u64) -> Self {
        let mut waiting: BTreeMap<u64, Vec<Question<'a>>> = BTreeMap::new();
        for call in calls.iter().filter(|call| call.action.is_question()) {
            let Some(answer) = &call.answer else { continue };
            let before = told.get(&call.made).copied().unwrap_or_default();
            let window = match (&call.action, &answer.outcome) {
                (_, Outcome::NothingChanged { .. } | Outcome::Unknown(_)) => None,
                // Not changed since, and still so when it was asked.
                (_, Outcome::Described { last_change, .. }) => {
                    let at = before.max(*last_change);
                    Some((at, at))
                }
                (Action::Range { .. }, _) if answer.index.is_some() => answer.index.map(|index| (index, index)),
                // A waiting reader that found nothing may have looked before it was told so.
                (Action::Read { fresh: Fresh::Local, .. }, _) => None,
                (action, _) => {
                    let to = not_beyond.get(&call.made).copied().unwrap_or(last).min(last);
                    Some((least_index(action, before).unwrap_or(0), to))
                }
            };
            if let Some((from, to)) = window {
                waiting.entry(from).or_default().push(Question { call, from, to, tried: None });
            }
        }
        Self { waiting, open: Vec::new(), checked: 0 }
    }

    /// The model has done the entry at `index`.
    pub(super) fn ask(&mut self, index: u64, cluster: &Cluster) -> Result<(), String> {
        while let Some(first) = self.waiting.first_entry()
            && *first.key() <= index
        {
            self.open.append(&mut first.remove());
        }
        let mut problem = None;
        let checked = &mut self.checked;
        self.open.retain_mut(|question| {
            if question.fits(cluster) {
                *checked += 1;
                return false;
            }
            if question.to <= index {
                problem.get_or_insert_with(|| question.explain(index, cluster));
                return false;
            }
            true
        });
        problem.map_or(Ok(()), Err)
    }

    /// The log has ended.
    pub(super) fn finish(self) -> Result<(), String> {
        match self.open.first().or(self.waiting.values().flatten().next()) {
            None => Ok(()),
            Some(question) => {
                let Question { call, from, to, .. } = question;
                Err(format!("the log ends before an answer's state, {from} to {to}: {call:?}"))
            }
        }
    }
}

impl Question<'_> {
    fn fits(&mut self, cluster: &Cluster) -> bool {
        let Some(answer) = &self.call.answer else { return true };
        let stream = stream_of(&self.call.action).and_then(|name| StreamName::new(name).ok());
        let Some(stream) = stream else { return true };
        let known = cluster.model.streams.get(&stream);
        let change = known.map(|stream| stream.last_change_index);
        if self.tried.replace(change) == Some(change) {
            return false;
        }
        fits(&self.call.action, &answer.outcome, cluster, &stream)
    }

    fn explain(&self, index: u64, cluster: &Cluster) -> String {
        let Question { call, from, to, .. } = self;
        let stream = stream_of(&call.action).and_then(|name| StreamName::new(name).ok());
        let known = stream.and_then(|stream| cluster.model.streams.get(&stream));
        let known = known.map(|stream| {
            let (length, last_id, change) = (stream.length(), stream.last_id, stream.last_change_index);
            format!("{length} entries, last id {last_id}, last change {change}")
        });
        format!("the model gives this answer nowhere in {from} to {to}: {call:?}; at {index} the stream has {known:?}")
    }
}

fn stream_of(action: &Action) -> Option<&str> {
    match action {
        Action::Range { stream, .. } | Action::Read { stream, .. } | Action::Describe { stream } => Some(stream),
        Action::ListPending { group, .. } | Action::CountPending { group } => Some(&group.0),
        _ => None,
    }
}

fn fits(action: &Action, told: &Outcome, cluster: &Cluster, name: &StreamName) -> bool {
    let nothing = Stream::default();
    let stream = cluster.model.streams.get(name).unwrap_or(&nothing);
    match (action, told) {
        (Action::Range { reverse, beyond, count, .. }, Outcome::Read { entries, more }) => {
            is_page(stream, *reverse, *beyond, *count, entries, *more)
        }
        (Action::Read { after: After::Id(after), count, .. }, Outcome::Read { entries, more }) => {
            is_page(stream, false, Some(*after), *count, entries, *more)
        }
        (Action::Read { after: After::Arrival, .. }, Outcome::Read { entries, .. }) => is_run(stream, entries),
        (Action::Describe { .. }, Outcome::Described { length, last_id, added, last_change }) => {
            let known = (stream.length(), seen_id(stream.last_id), stream.entries_added, stream.last_change_index);
            (*length, *last_id, *added, *last_change) == known
        }
        (Action::ListPending { group, count }, Outcome::Pending { entries, more }) => {
            let Ok(group) = GroupName::new(&group.1) else { return false };
            let query = PendingQuery {
                stream: name.clone(),
                group,
                start: EntryId::MIN,
                end: EntryId::MAX,
                count: u32::MAX,
                consumer: None,
                min_idle_ms: 0,
            };
            let Ok(page) = cluster.model.pending_list(&query) else { return false };
            let all = page.entries.iter().map(|pending| Pending {
                id: seen_id(pending.id),
                consumer: pending.consumer.as_ref().map(|consumer| consumer.as_str().to_owned()),
                deliveries: pending.delivery_count,
            });
            let all: Vec<_> = all.collect();
            is_start(&all, entries, *count, *more)
        }
        (Action::CountPending { group }, Outcome::PendingCount { count, consumers }) => {
            let Ok(group) = GroupName::new(&group.1) else { return false };
            let Ok(summary) = cluster.model.pending_summary(name, &group) else { return false };
            let known = summary.consumers.iter().map(|one| (one.consumer.as_str().to_owned(), one.count));
            (*count, consumers) == (summary.count, &known.collect())
        }
        _ => false,
    }
}

/// Whether these are the first entries in that direction, as many as asked for, or fewer and there are more.
fn is_page(stream: &Stream, reverse: bool, beyond: Option<Id>, count: u64, told: &[Entry], more: bool) -> bool {
    let is_beyond = |id: EntryId| match beyond {
        None => true,
        Some(bound) if reverse => seen_id(id) < bound,
        Some(bound) => bound < seen_id(id),
    };
    let is_same = |told: &Entry, entry: &millstream_streams::Entry| {
        told.id == seen_id(entry.id) && told.content == content(&entry.fields)
    };
    let wanted = stream.entries.iter().filter(|entry| is_beyond(entry.id)).count();
    let mut forwards = stream.entries.iter().filter(|entry| is_beyond(entry.id));
    let mut backwards = stream.entries.iter().rev().filter(|entry| is_beyond(entry.id));
    let mut next = || if reverse { backwards.next() } else { forwards.next() };
    told.iter().all(|told| next().is_some_and(|entry| is_same(told, entry)))
        && told.len() as u64 <= count
        && (told.len() == wanted || (more && !told.is_empty()))
}

/// Whether these entries follow each other in the stream.
fn is_run(stream: &Stream, told: &[Entry]) -> bool {
    let Some(first) = told.first() else { return true };
    let behind = stream.entries.iter().skip_while(|entry| seen_id(entry.id) < first.id);
    let run: Vec<_> = behind.take(told.len()).collect();
    run.len() == told.len()
        && run
            .iter()
            .zip(told)
            .all(|(entry, told)| told.id == seen_id(entry.id) && told.content == content(&entry.fields))
}

/// Whether these are the first of all, as many as asked for, or fewer and there are more.
fn is_start<T: PartialEq>(all: &[T], told: &[T], count: u64, more: bool) -> bool {
    all.starts_with(told) && told.len() as u64 <= count && (told.len() == all.len() || (more && !told.is_empty()))
}
