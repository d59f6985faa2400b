//! What the evidence says about the entries of each group: who may have got them when, who must have, and when they
//! were acknowledged or given back.

use std::collections::BTreeMap;

use super::{Evidence, Ledger, NEVER};
use crate::history::{Action, Call, GroupName, Id, Outcome, Removed};

/// Something that happened to an entry of a group, or may have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Event<'a> {
    pub call: &'a Call,
    pub kind: Kind,
    /// It did happen, and before the answer came.
    pub is_certain: bool,
}

/// What it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Delivered as new.
    New,
    /// Repeated to its owner.
    Again,
    /// Taken over.
    Claimed,
    /// Acknowledged, now or before.
    Acknowledged,
    /// Given back.
    Released,
    /// Found without an entry in the stream, and pending no more.
    Dropped,
}

impl Kind {
    /// Somebody was given the entry.
    pub(crate) fn is_delivery(self) -> bool {
        matches!(self, Kind::New | Kind::Again | Kind::Claimed)
    }

    /// It may be pending no more.
    pub(crate) fn is_end(self) -> bool {
        matches!(self, Kind::Acknowledged | Kind::Dropped)
    }
}

impl<'a> Event<'a> {
    /// Who got the entry.
    pub(crate) fn consumer(&self) -> &'a str {
        self.call.action.consumer().unwrap_or_default()
    }

    /// When it had happened for certain.
    pub(crate) fn by(&self) -> u64 {
        if self.is_certain { self.call.settled().unwrap_or(NEVER) } else { NEVER }
    }
}

/// What is known of a group.
#[derive(Default)]
pub(crate) struct Book<'a> {
    /// Of each entry, in the order of the calls.
    pub entries: BTreeMap<Id, Vec<Event<'a>>>,
    /// Calls that may have delivered anything.
    pub open: Vec<Event<'a>>,
    /// Claims that were answered. A repeat answers with what is still in the stream of what the first attempt took over,
    /// however long ago that was.
    answered: Vec<Event<'a>>,
}

impl<'a> Book<'a> {
    /// The book of each group that nobody created, moved or deleted meanwhile.
    pub(crate) fn all(evidence: &'a Evidence, ledger: &Ledger<'a>) -> BTreeMap<&'a GroupName, Book<'a>> {
        let mut books: BTreeMap<&GroupName, Book<'_>> = BTreeMap::new();
        for call in evidence.calls.iter().filter(|call| call.may_have_happened()) {
            let Some(group) = call.action.group().filter(|group| !ledger.restless.contains(group)) else { continue };
            books.entry(group).or_default().add(call);
        }
        books
    }

    fn add(&mut self, call: &'a Call) {
        let kind = match &call.action {
            Action::ReadGroup { .. } => Kind::New,
            Action::ReadPending { .. } => Kind::Again,
            Action::Claim { .. } | Action::AutoClaim { .. } => Kind::Claimed,
            Action::Ack { .. } | Action::AckAndDelete { .. } => Kind::Acknowledged,
            Action::Nack { .. } => Kind::Released,
            _ => return,
        };
        match (&call.action, call.outcome()) {
            (action, Some(Outcome::Delivered { entries, deleted })) => {
                for entry in entries {
                    self.note(entry.id, call, kind, true);
                }
                for id in deleted {
                    // A repeat names what is gone and leaves it pending; a claim may drop it.
                    let kind = if kind == Kind::Claimed { Kind::Dropped } else { kind };
                    self.note(*id, call, kind, kind == Kind::Dropped);
                }
                if matches!(action, Action::Claim { .. } | Action::AutoClaim { .. }) {
                    self.answered.push(Event { call, kind: Kind::Claimed, is_certain: false });
                }
                // Asked for by id, and not got: perhaps gone.
                if let Action::Claim { ids, .. } = action {
                    let missing = ids.iter().filter(|id| entries.iter().all(|entry| entry.id != **id));
                    missing.for_each(|id| self.note(*id, call, Kind::Dropped, false));
                }
            }
            (Action::Claim { ids, .. }, _) => {
                for id in ids {
                    self.note(*id, call, Kind::Claimed, false);
                    self.note(*id, call, Kind::Dropped, false);
                }
            }
            (Action::Ack { ids, .. } | Action::AckAndDelete { ids, .. }, outcome) => {
                let is_certain = outcome.is_some_and(|outcome| outcome.acknowledged().is_some());
                ids.iter().for_each(|id| self.note(*id, call, Kind::Acknowledged, is_certain));
            }
            (Action::Nack { ids, .. }, outcome) => {
                let is_certain = matches!(outcome, Some(Outcome::Released(count)) if *count == ids.len() as u64);
                ids.iter().for_each(|id| self.note(*id, call, Kind::Released, is_certain));
            }
            _ => self.open.push(Event { call, kind, is_certain: false }),
        }
    }

    fn note(&mut self, id: Id, call: &'a Call, kind: Kind, is_certain: bool) {
        self.entries.entry(id).or_default().push(Event { call, kind, is_certain });
    }

    /// Whether the entry can have been this consumer's at some moment between `from` and `to`. `None`: nobody's,
    /// because it was given back. Repeats do not count: only an owner gets any.
    pub(crate) fn can_own(&self, id: Id, consumer: Option<&str>, from: u64, to: u64) -> bool {
        let events = self.entries.get(&id).map_or(&[][..], Vec::as_slice);
        let is_gain = |event: &&Event<'_>| match consumer {
            Some(consumer) => matches!(event.kind, Kind::New | Kind::Claimed) && event.consumer() == consumer,
            None => event.kind == Kind::Released,
        };
        // The latest call that took it away for certain, before `from`.
        let is_own_repeat = |event: &Event<'_>| event.kind == Kind::Again && Some(event.consumer()) == consumer;
        let is_loss = |event: &&Event<'_>| !is_gain(event) && !is_own_repeat(event) && event.by() < from;
        let losses = events.iter().filter(is_loss);
        let lost = losses.map(|event| event.call.made).max().unwrap_or(0);
        let is_open = |event: &Event<'_>| event.call.made < to;
        events.iter().filter(is_gain).any(|event| is_open(event) && lost <= event.by())
            || self.open.iter().chain(self.hidden(id, from, to)).filter(is_gain).any(is_open)
    }

    /// Calls under way between `from` and `to` that may have taken the entry over and do not say so, because it was
    /// handled, and perhaps removed, before they were answered.
    pub(crate) fn hidden(&self, id: Id, from: u64, to: u64) -> impl Iterator<Item = &Event<'a>> {
        let events = self.entries.get(&id).map_or(&[][..], Vec::as_slice);
        self.answered.iter().filter(move |claim| {
            let settled = claim.call.settled().unwrap_or(NEVER);
            let is_end = |event: &Event<'_>| event.kind.is_end() && event.call.made < settled;
            claim.call.made < to && from < settled && events.iter().any(is_end)
        })
    }
}

/// Which ids an acknowledgement made pending no more by itself; `None`: not known.
pub(crate) fn acknowledged_by(call: &Call) -> Option<Vec<Id>> {
    let (_, ids) = call.action.acknowledges()?;
    match call.outcome()? {
        Outcome::Acknowledged(count) => (*count == ids.len() as u64).then(|| ids.to_vec()),
        Outcome::Removed(removed) => {
            let acknowledged = ids.iter().zip(removed).filter(|(_, removed)| **removed != Removed::NotFound);
            Some(acknowledged.map(|(id, _)| *id).collect())
        }
        _ => None,
    }
}
