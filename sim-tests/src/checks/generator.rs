//! Random histories that are right, of several clients at once, and single changes that make them wrong.
//!
//! A small model of a stream with one group does what is asked of it at some moment of each call; answers come later,
//! or not at all.

use std::collections::BTreeMap;

use super::testing::*;
use super::{Ending, Evidence, GroupEnd};
use crate::entropy::Rng;
use crate::history::{
    Action, Answer, Call, Entry, Fresh, Id, Keep, Mode, Outcome, Pending, Placed, Put, Removed, Trim,
};

const CLIENTS: u64 = 5;

#[derive(Default)]
struct Model {
    entries: BTreeMap<Id, Vec<u8>>,
    /// What it held after each change, oldest first.
    before: Vec<Vec<Entry>>,
    keys: BTreeMap<(String, String), Id>,
    last: u64,
    added: u64,
    index: u64,
    position: Id,
    pending: BTreeMap<Id, (Option<String>, u64)>,
}

impl Model {
    fn entry(&self, id: Id) -> Option<Entry> {
        self.entries.get(&id).map(|content| Entry { id, content: content.clone() })
    }

    fn listed(&self) -> Vec<Entry> {
        self.entries.iter().map(|(id, content)| Entry { id: *id, content: content.clone() }).collect()
    }

    fn put(&mut self, put: &Put) -> Placed {
        if let Some(id) = put.key.as_ref().and_then(|key| self.keys.get(key)) {
            return Placed::Before(*id);
        }
        self.last += 1;
        self.added += 1;
        let id = id(self.last);
        self.entries.insert(id, put.content.clone());
        if let Some(key) = &put.key {
            self.keys.insert(key.clone(), id);
        }
        Placed::At { id, trimmed: 0 }
    }

    fn trim(&mut self, keep: Keep) -> u64 {
        let before = self.entries.len();
        match keep {
            Keep::From(id) => self.entries.retain(|other, _| id <= *other),
            Keep::Newest(count) => {
                while count < self.entries.len() as u64 {
                    self.entries.pop_first();
                }
            }
        }
        (before - self.entries.len()) as u64
    }

    fn take(&mut self, consumer: &str, ids: &[Id]) -> Outcome {
        let (mut entries, mut deleted) = (Vec::new(), Vec::new());
        for id in ids {
            match self.entry(*id) {
                Some(entry) => {
                    let pending = self.pending.entry(*id).or_insert((None, 0));
                    *pending = (Some(consumer.to_owned()), pending.1 + 1);
                    entries.push(entry);
                }
                None => {
                    self.pending.remove(id);
                    deleted.push(*id);
                }
            }
        }
        Outcome::Delivered { entries, deleted }
    }

    fn apply(&mut self, action: &Action, rng: &mut Rng) -> Outcome {
        self.index += 1;
        let outcome = match action {
            Action::Append(put) => Outcome::Appended(vec![self.put(put)]),
            Action::Batch { puts, .. } => Outcome::Appended(puts.iter().map(|put| self.put(put)).collect()),
            Action::Trim { trim, .. } => Outcome::Trimmed(self.trim(trim.keep)),
            Action::Delete { ids, .. } => {
                // As long as no group refers to it.
                let position = self.position;
                Outcome::Removed(
                    ids.iter()
                        .map(|id| {
                            if self.pending.contains_key(id) || position < *id {
                                Removed::Referenced
                            } else if self.entries.remove(id).is_some() {
                                Removed::Deleted
                            } else {
                                Removed::NotFound
                            }
                        })
                        .collect(),
                )
            }
            Action::Range { reverse, count, fresh, .. } => {
                let mut entries = match fresh {
                    Fresh::Linearizable => self.listed(),
                    _ => {
                        let age = rng.below(4) as usize;
                        let place = self.before.len().checked_sub(1 + age);
                        place.map(|place| self.before[place].clone()).unwrap_or_default()
                    }
                };
                if *reverse {
                    entries.reverse();
                }
                let more = (*count as usize) < entries.len();
                entries.truncate(*count as usize);
                Outcome::Read { entries, more }
            }
            Action::Describe { .. } => {
                let (length, last_id) = (self.entries.len() as u64, id(self.last));
                Outcome::Described { length, last_id, added: self.added, last_change: self.index }
            }
            Action::ReadGroup { consumer, count, .. } => {
                let new = self.entries.keys().filter(|id| self.position < **id).take(*count as usize);
                let new: Vec<Id> = new.copied().collect();
                self.position = new.last().copied().unwrap_or(self.position);
                self.take(consumer, &new)
            }
            Action::ReadPending { consumer, .. } => {
                let own = self.pending.iter().filter(|(_, (owner, _))| owner.as_ref() == Some(consumer));
                let (kept, gone): (Vec<Id>, Vec<Id>) =
                    own.map(|(id, _)| *id).partition(|id| self.entries.contains_key(id));
                match self.take(consumer, &kept) {
                    Outcome::Delivered { entries, .. } => Outcome::Delivered { entries, deleted: gone },
                    other => other,
                }
            }
            Action::AutoClaim { consumer, .. } => {
                let all: Vec<Id> = self.pending.keys().copied().collect();
                self.take(consumer, &all)
            }
            Action::Ack { ids, .. } => {
                Outcome::Acknowledged(ids.iter().filter(|id| self.pending.remove(id).is_some()).count() as u64)
            }
            Action::AckAndDelete { ids, .. } => Outcome::Removed(
                ids.iter()
                    .map(|id| {
                        if self.pending.remove(id).is_none() {
                            return Removed::NotFound;
                        }
                        self.entries.remove(id);
                        Removed::Deleted
                    })
                    .collect(),
            ),
            Action::Nack { ids, .. } => {
                let mut released = 0;
                for id in ids {
                    if let Some(pending) = self.pending.get_mut(id) {
                        pending.0 = None;
                        released += 1;
                    }
                }
                Outcome::Released(released)
            }
            Action::ListPending { .. } => {
                let line = |(id, (consumer, deliveries)): (&Id, &(Option<String>, u64))| Pending {
                    id: *id,
                    consumer: consumer.clone(),
                    deliveries: *deliveries,
                };
                Outcome::Pending { entries: self.pending.iter().map(line).collect(), more: false }
            }
            _ => Outcome::Done(true),
        };
        self.before.push(self.listed());
        outcome
    }
}

/// A client in the middle of a call.
struct Busy {
    place: usize,
    done: Option<(u64, Outcome)>,
}

/// A history of about `steps` events that nothing is wrong with. `removes`: entries are trimmed and deleted, too.
pub(super) fn history(rng: &mut Rng, steps: u64, removes: bool) -> Evidence {
    let mut model = Model::default();
    let mut calls: Vec<Call> = Vec::new();
    let mut busy: BTreeMap<u64, Busy> = BTreeMap::new();
    let mut held: BTreeMap<u64, Vec<Id>> = BTreeMap::new();
    let mut keyed: Option<Put> = None;
    let mut moment = 0;
    for step in 0..steps {
        moment += 1;
        let who = rng.below(CLIENTS);
        match busy.remove(&who) {
            None => {
                let action = draw(rng, who, step, &model, held.remove(&who), removes, &mut keyed);
                let (client, made) = (format!("c{who}"), moment);
                calls.push(Call { client, made, made_ms: made, action, answer: None });
                busy.insert(who, Busy { place: calls.len() - 1, done: None });
            }
            Some(Busy { place, done: None }) => {
                let call = &mut calls[place];
                let outcome = match rng.below(12) {
                    0 => nothing("NO_LEADER"),
                    _ => model.apply(&call.action, rng),
                };
                if let (Action::Append(put), true) = (&call.action, keyed.is_none()) {
                    keyed = put.key.is_some().then(|| put.clone());
                }
                // A change whose answer is lost has happened, or may yet happen: here it has.
                let index = (!call.action.is_question()).then_some(model.index);
                match (rng.below(10), outcome) {
                    (0, outcome) if !outcome.is_nothing() => {
                        let outcome = Outcome::Unknown("lost".into());
                        call.answer = Some(Answer { moment, ms: moment, index: None, outcome });
                    }
                    // The client has gone for good, and another comes.
                    (1, outcome) if !outcome.is_nothing() => {}
                    (_, outcome) => drop(busy.insert(who, Busy { place, done: Some((index.unwrap_or(0), outcome)) })),
                }
            }
            Some(Busy { place, done: Some((index, outcome)) }) => {
                if let Outcome::Delivered { entries, .. } = &outcome {
                    held.insert(who, entries.iter().map(|entry| entry.id).collect());
                }
                let index = Some(index).filter(|index| 0 < *index);
                calls[place].answer = Some(Answer { moment, ms: moment, index, outcome });
            }
        }
    }
    // The drain: whoever is left takes and acknowledges everything.
    let mut alone = |calls: &mut Vec<Call>, action: Action| {
        let outcome = model.apply(&action, rng);
        let ids: Vec<Id> = match &outcome {
            Outcome::Delivered { entries, .. } => entries.iter().map(|entry| entry.id).collect(),
            _ => Vec::new(),
        };
        calls.push(call("last", moment + 1, action, moment + 2, outcome));
        moment += 2;
        ids
    };
    let consumer = || "last".to_owned();
    let mut ids =
        alone(&mut calls, Action::AutoClaim { group: group(), consumer: consumer(), idle_min_ms: 0, count: 1000 });
    let read = Action::ReadGroup { group: group(), consumer: consumer(), count: 1000, wait_ms: 0 };
    ids.extend(alone(&mut calls, read));
    if !ids.is_empty() {
        alone(&mut calls, Action::Ack { group: group(), ids });
    }
    let end = GroupEnd { lag: Some(0), last_delivered: model.position, ..GroupEnd::default() };
    let end =
        Ending { streams: [(S.into(), model.listed())].into(), groups: [(group(), end)].into(), ..Ending::default() };
    Evidence { calls, end, clock_skew_ms: Some(0), ..Evidence::default() }
}

fn draw(
    rng: &mut Rng,
    who: u64,
    step: u64,
    model: &Model,
    held: Option<Vec<Id>>,
    removes: bool,
    keyed: &mut Option<Put>,
) -> Action {
    let consumer = format!("c{who}");
    if let Some(ids) = held.filter(|ids| !ids.is_empty()) {
        match rng.below(6) {
            0 => return Action::Nack { group: group(), ids },
            1 if removes => return Action::AckAndDelete { group: group(), ids },
            // It forgets them.
            2 => {}
            _ => return Action::Ack { group: group(), ids },
        }
    }
    let stream = || S.to_owned();
    match rng.below(16) {
        0 => {
            let puts = vec![put(&format!("a{step}")), put(&format!("b{step}"))];
            Action::Batch { puts, mode: Mode::AllOrNothing, guard: None, is_refused: false }
        }
        1 | 2 => {
            if let Some(put) = keyed.take() {
                return Action::Append(put);
            }
            let key = Some(("p".to_owned(), format!("k{step}")));
            Action::Append(Put { key, ..put(&format!("k{step}")) })
        }
        3 if removes => {
            let keep = match rng.below(2) {
                0 => Keep::Newest(rng.below(8)),
                _ => Keep::From(id(model.last.saturating_sub(rng.below(6)))),
            };
            // What the group has yet to handle may go, too.
            Action::Trim { stream: stream(), trim: Trim { keep, exact: true } }
        }
        4 if removes => Action::Delete { stream: stream(), ids: vec![id(1 + rng.below(model.last.max(1)))] },
        5 | 6 => {
            let fresh = if rng.one_in(3) { Fresh::Local } else { Fresh::Linearizable };
            Action::Range { stream: stream(), reverse: rng.one_in(2), beyond: None, count: 1 + rng.below(20), fresh }
        }
        7 => Action::Describe { stream: stream() },
        8 | 9 => Action::ReadGroup { group: group(), consumer, count: 1 + rng.below(4), wait_ms: 0 },
        10 => Action::ReadPending { group: group(), consumer, after: Id::MIN, count: 1000 },
        11 => Action::AutoClaim { group: group(), consumer, idle_min_ms: 0, count: 1000 },
        12 => Action::ListPending { group: group(), count: 1000 },
        _ => Action::Append(put(&format!("e{step}"))),
    }
}
