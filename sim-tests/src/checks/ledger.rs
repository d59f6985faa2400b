//! What the evidence says about each entry there ever was: from when it can have been in its stream, when somebody knew
//! of it, from when it may be gone and when it must be.
//!
//! Ids order the entries of a stream, and an entry is appended under the greatest id so far. So whoever has seen an id
//! knows that all smaller ones had been given by then: that makes search superfluous.

use std::collections::{BTreeMap, BTreeSet};

use super::Evidence;
use crate::history::{Action, Call, Entry, GroupName, Id, Keep, Outcome, Placed, Put, Removed};

/// Never.
pub(crate) const NEVER: u64 = u64::MAX;

/// Everything about all entries.
pub(crate) struct Ledger<'a> {
    /// What was to be appended, by content.
    pub written: BTreeMap<&'a [u8], Written<'a>>,
    /// By name.
    pub streams: BTreeMap<&'a str, Stream<'a>>,
    /// Groups that were created or moved during the simulation and were not drained: of these, little can be said.
    pub restless: BTreeSet<&'a GroupName>,
}

/// A content, and the attempts to append it.
pub(crate) struct Written<'a> {
    pub put: &'a Put,
    /// When the first attempt was made.
    pub made: u64,
    /// Where it was found first.
    pub place: Option<Id>,
    /// Some attempt may have had an effect.
    pub may_be: bool,
}

/// Everything about the entries of one stream.
#[derive(Default)]
pub(crate) struct Stream<'a> {
    pub entries: BTreeMap<Id, Fact<'a>>,
    /// By the end of the simulation, nobody knows.
    pub last: BTreeMap<Id, &'a [u8]>,
    /// From when an id may be deleted, and by when it was.
    deleted: BTreeMap<Id, (u64, u64)>,
    /// Of each trim: from when, and below which id.
    may_trim: Vec<(u64, Id)>,
    /// Of each trim: by when, and below which id.
    did_trim: Vec<(u64, Id)>,
    /// Greatest id that was known by a moment, rising.
    known: Vec<(u64, Id)>,
    /// Greatest id that was there by a log index, rising.
    appended: Vec<(u64, Id)>,
}

/// An entry, as somebody saw it first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fact<'a> {
    pub content: &'a [u8],
    /// It was not there before this moment.
    pub made: u64,
    /// It was there before this moment, unless it had been removed.
    pub known: u64,
}

/// A sighting of an entry: in which stream, which, and when the answer came that shows it.
pub(crate) struct Sighting<'a> {
    pub stream: &'a str,
    pub id: Id,
    pub content: &'a [u8],
    pub moment: u64,
    pub client: &'a str,
}

/// Every entry that an answer shows.
pub(crate) fn sightings(calls: &[Call]) -> impl Iterator<Item = Sighting<'_>> {
    calls.iter().flat_map(|call| {
        let answer = call.answer.as_ref();
        let moment = answer.map_or(NEVER, |answer| answer.moment);
        let sight = move |stream, id, content| Sighting { stream, id, content, moment, client: &call.client };
        let placed =
            call.placed().filter_map(move |(put, placed)| Some(sight(&put.stream, placed?.id()?, &put.content[..])));
        let (stream, entries): (&str, &[Entry]) = match (call.outcome(), &call.action) {
            (Some(Outcome::Read { entries, .. }), Action::Range { stream, .. } | Action::Read { stream, .. }) => {
                (stream, entries)
            }
            (Some(Outcome::Delivered { entries, .. }), action) => {
                (action.group().map_or("", |(stream, _)| stream), entries)
            }
            _ => ("", &[]),
        };
        placed.chain(entries.iter().map(move |entry| sight(stream, entry.id, &entry.content[..])))
    })
}

impl<'a> Ledger<'a> {
    pub(crate) fn new(evidence: &'a Evidence) -> Self {
        let mut written: BTreeMap<&[u8], Written<'_>> = BTreeMap::new();
        for call in &evidence.calls {
            for (put, placed) in call.placed() {
                let attempt =
                    written.entry(&put.content).or_insert(Written { put, made: call.made, place: None, may_be: false });
                attempt.may_be |= call.may_have_happened() && !matches!(placed, Some(Placed::Refused(_)));
            }
        }

        let mut streams: BTreeMap<&str, Stream<'_>> = BTreeMap::new();
        for sighting in sightings(&evidence.calls) {
            let stream = streams.entry(sighting.stream).or_default();
            stream.see(sighting.id, sighting.content, sighting.moment, &written);
        }
        for (name, entries) in &evidence.end.streams {
            let stream = streams.entry(name).or_default();
            for entry in entries {
                stream.see(entry.id, &entry.content, NEVER, &written);
                stream.last.insert(entry.id, &entry.content);
            }
        }
        for stream in streams.values() {
            for (id, fact) in &stream.entries {
                if let Some(written) = written.get_mut(fact.content) {
                    written.place.get_or_insert(*id);
                }
            }
        }
        let restless = evidence.calls.iter().filter_map(|call| match &call.action {
            Action::DeleteGroup { group } | Action::MoveGroup { group, .. } => Some(group),
            Action::CreateGroup { group, .. } if !evidence.end.groups.contains_key(group) => Some(group),
            _ => None,
        });
        let restless = restless.collect();
        let mut ledger = Self { written, streams, restless };
        ledger.add_removals(&evidence.calls);
        ledger.add_orders(&evidence.calls);
        ledger
    }

    /// What is known of a stream; `None` if nobody ever saw an entry of it.
    pub(crate) fn stream(&self, name: &str) -> Option<&Stream<'a>> {
        self.streams.get(name)
    }

    fn add_removals(&mut self, calls: &'a [Call]) {
        for call in calls.iter().filter(|call| call.may_have_happened()) {
            let (name, ids) = match &call.action {
                Action::Delete { stream, ids } => (stream, ids),
                Action::AckAndDelete { group: (stream, _), ids } => (stream, ids),
                _ => continue,
            };
            let stream = self.streams.entry(name).or_default();
            let results = match call.outcome() {
                Some(Outcome::Removed(results)) => &results[..],
                _ => &[],
            };
            for (place, id) in ids.iter().enumerate() {
                let (from, by) = stream.deleted.entry(*id).or_insert((NEVER, NEVER));
                match (results.get(place), &call.answer) {
                    (Some(Removed::Deleted), Some(answer)) => {
                        *from = (*from).min(call.made);
                        *by = (*by).min(answer.moment);
                    }
                    (Some(_), _) => {}
                    (None, _) => *from = (*from).min(call.made),
                }
            }
        }
        // What nobody ever saw may have taken places that a trim counts.
        let seen: BTreeSet<&[u8]> =
            self.streams.values().flat_map(|stream| stream.entries.values().map(|fact| fact.content)).collect();
        let mut unseen: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for (content, written) in self.written.iter().filter(|(_, written)| written.may_be) {
            if !seen.contains(content) {
                unseen.entry(&written.put.stream).or_default().push(written.made);
            }
        }
        let mut trims: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for call in calls.iter().filter(|call| call.may_have_happened()) {
            if let Action::Trim { stream, trim } = &call.action {
                trims.entry(stream).or_default().push((call, *trim));
            }
            for (put, placed) in call.placed() {
                if let Some(trim) = put.trim
                    && !matches!(placed, Some(Placed::Refused(_) | Placed::Before(_)))
                {
                    trims.entry(&put.stream).or_default().push((call, trim));
                }
            }
        }
        // Who trims has a session: what it has left is refused once a later call of it has been applied.
        let mut fences: BTreeMap<&str, Vec<(u64, u64)>> = BTreeMap::new();
        for call in
            calls.iter().filter(|call| matches!(call.outcome(), Some(Outcome::Appended(_) | Outcome::Trimmed(_))))
        {
            fences.entry(&call.client).or_default().push((call.made, call.settled().unwrap_or(NEVER)));
        }
        let settled = |call: &Call| {
            let fences = fences.get(call.client.as_str()).map_or(&[][..], Vec::as_slice);
            let later = fences.get(fences.partition_point(|(made, _)| *made <= call.made));
            call.settled().or(later.map(|(_, settled)| *settled)).unwrap_or(NEVER)
        };
        for (name, trims) in trims {
            let stream = self.streams.entry(name).or_default();
            stream.add_trims(&trims, unseen.get(name).map_or(&[], Vec::as_slice), settled);
        }
    }

    fn add_orders(&mut self, calls: &'a [Call]) {
        for stream in self.streams.values_mut() {
            stream.known = stream.entries.iter().map(|(id, fact)| (fact.known, *id)).collect();
            stream.known = rising(std::mem::take(&mut stream.known));
        }
        let mut appended: BTreeMap<&str, Vec<(u64, Id)>> = BTreeMap::new();
        for call in calls {
            let Some(index) = call.answer.as_ref().and_then(|answer| answer.index) else { continue };
            for shown in sightings(std::slice::from_ref(call)) {
                appended.entry(shown.stream).or_default().push((index, shown.id));
            }
        }
        for (name, appended) in appended {
            self.streams.entry(name).or_default().appended = rising(appended);
        }
    }
}

impl<'a> Stream<'a> {
    fn see(&mut self, id: Id, content: &'a [u8], moment: u64, written: &BTreeMap<&'a [u8], Written<'a>>) {
        let made = written.get(content).map_or(0, |written| written.made);
        let fact = self.entries.entry(id).or_insert(Fact { content, made, known: moment });
        fact.known = fact.known.min(moment);
    }

    /// `settled`: by when a call has taken effect, if ever.
    fn add_trims(
        &mut self,
        trims: &[(&'a Call, crate::history::Trim)],
        unseen: &[u64],
        settled: impl Fn(&Call) -> u64,
    ) {
        for (call, trim) in trims {
            let by = settled(call);
            let may = match trim.keep {
                Keep::From(id) => id,
                Keep::Newest(count) => {
                    let unseen = unseen.iter().filter(|made| **made < by).count() as u64;
                    let possible = self.entries.iter().rev().filter(|(_, fact)| fact.made < by).map(|(id, _)| *id);
                    kept(possible, count.saturating_sub(unseen))
                }
            };
            self.may_trim.push((call.made, may));
            if trim.exact && call.settled().is_some() {
                let certain = |(id, fact): &(&Id, &Fact<'_>)| {
                    fact.known < call.made && self.deleted.get(*id).is_none_or(|(from, _)| by <= *from)
                };
                let mut there = self.entries.iter().rev().filter(certain).map(|(id, _)| *id);
                let did = match trim.keep {
                    Keep::From(id) => there.next().map_or(Id::MIN, |last| next(last).min(id)),
                    Keep::Newest(count) => kept(there, count),
                };
                self.did_trim.push((by, did));
            }
        }
        self.may_trim = rising(std::mem::take(&mut self.may_trim));
        self.did_trim = rising(std::mem::take(&mut self.did_trim));
    }

    /// By `moment` the entry may have been removed.
    pub(crate) fn may_be_gone(&self, id: Id, moment: u64) -> bool {
        self.deleted.get(&id).is_some_and(|(from, _)| *from < moment) || id < at(&self.may_trim, moment)
    }

    /// By `moment` the entry, or what stood directly before it, may have been trimmed.
    pub(crate) fn may_be_trimmed(&self, id: Id, moment: u64) -> bool {
        let bound = at(&self.may_trim, moment);
        Id::MIN < bound && id <= bound
    }

    /// By `moment` the entry had been removed for certain.
    pub(crate) fn is_gone(&self, id: Id, moment: u64) -> bool {
        self.deleted.get(&id).is_some_and(|(_, by)| *by < moment) || id < at(&self.did_trim, moment)
    }

    /// The greatest id that somebody had been shown before `moment`.
    pub(crate) fn known_at(&self, moment: u64) -> Id {
        at(&self.known, moment)
    }

    /// The greatest id that an answer shows which belongs to this log index or a smaller one.
    pub(crate) fn appended_at(&self, index: u64) -> Id {
        at(&self.appended, index.saturating_add(1))
    }
}

/// The smallest id that stays when so many of these, greatest first, are kept; 0-0 if all stay.
fn kept(mut greatest_first: impl Iterator<Item = Id>, count: u64) -> Id {
    match count.checked_sub(1) {
        Some(before) => greatest_first.nth(before as usize).unwrap_or(Id::MIN),
        None => greatest_first.next().map_or(Id::MIN, next),
    }
}

/// The id after this.
pub(crate) fn next(id: Id) -> Id {
    Id { ms: id.ms, seq: id.seq.saturating_add(1) }
}

/// Sorted by place, with ids that only rise.
fn rising(mut places: Vec<(u64, Id)>) -> Vec<(u64, Id)> {
    places.sort_unstable();
    let mut greatest = Id::MIN;
    for (_, id) in &mut places {
        greatest = greatest.max(*id);
        *id = greatest;
    }
    places
}

/// The id in force before `place`.
fn at(rising: &[(u64, Id)], place: u64) -> Id {
    let before = rising.partition_point(|(other, _)| *other < place);
    before.checked_sub(1).and_then(|last| rising.get(last)).map_or(Id::MIN, |(_, id)| *id)
}
