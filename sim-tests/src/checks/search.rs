//! A second opinion: a search for an order of the calls on one stream that explains every answer (Wing and Gong, with
//! the memory of Lowe). It trusts no argument about ids, but it is for small histories only: streams of few calls,
//! from which nothing is removed, and which no group reads.

use std::collections::{BTreeMap, BTreeSet};

use super::{Evidence, Ledger, NEVER};
use crate::history::{Action, After, Call, Fresh, Id, Outcome};

/// More calls than this are not searched.
const CALLS_MAX: usize = 100;
/// A search that has seen so many states is given up.
const STATES_MAX: usize = 100_000;

/// A call, as far as it concerns the stream.
struct Step {
    /// When it was made, and by when it has taken effect: [`NEVER`] if perhaps never.
    made: u64,
    by: u64,
    what: What,
}

enum What {
    /// These ids become the last.
    Append(Vec<Id>),
    /// Exactly these are found, of those beyond an id in a direction, at most so many.
    Read { beyond: Option<Id>, reverse: bool, count: usize, found: Vec<Id> },
}

/// What a search comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// There is an order.
    Explained,
    /// There is none.
    Impossible,
    /// It is too much to search.
    TooMuch,
}

pub(super) fn check(evidence: &Evidence, ledger: &Ledger<'_>) -> Result<(), String> {
    // One pass over the calls: which concern which stream, and which streams are not for this.
    let mut streams: BTreeMap<&str, Vec<&Call>> = BTreeMap::new();
    let mut others: BTreeSet<&str> = evidence.end.groups.keys().map(|(stream, _)| stream.as_str()).collect();
    for call in &evidence.calls {
        match &call.action {
            Action::Delete { stream, .. } | Action::Trim { stream, .. } => drop(others.insert(stream)),
            action => {
                others.extend(action.group().map(|(stream, _)| stream.as_str()));
                let puts = action.puts().iter();
                others
                    .extend(puts.clone().filter(|put| put.trim.is_some() || put.key.is_some()).map(|put| &*put.stream));
                let named: BTreeSet<&str> = match action {
                    Action::Range { stream, .. } | Action::Read { stream, .. } => [stream.as_str()].into(),
                    _ => puts.map(|put| put.stream.as_str()).collect(),
                };
                named.into_iter().for_each(|stream| streams.entry(stream).or_default().push(call));
            }
        }
    }
    for (name, calls) in streams.into_iter().filter(|(name, _)| !others.contains(name)) {
        let last = evidence.end.streams.get(name).map(|entries| entries.iter().map(|entry| entry.id).collect());
        if search(name, &calls, last, ledger) == Verdict::Impossible {
            return Err(format!("no order of the {} calls on {name} explains what they were told", calls.len()));
        }
    }
    Ok(())
}

/// Whether some order explains what these calls on `stream` were told, and at the end these entries.
pub(super) fn search(stream: &str, calls: &[&Call], last: Option<Vec<Id>>, ledger: &Ledger<'_>) -> Verdict {
    let mut steps: Vec<Step> = calls.iter().filter_map(|call| step(stream, call, ledger)).collect();
    if let Some(found) = last {
        let what = What::Read { beyond: None, reverse: false, count: usize::MAX, found };
        steps.push(Step { made: NEVER - 1, by: NEVER - 1, what });
    }
    if CALLS_MAX < steps.len() {
        return Verdict::TooMuch;
    }
    steps.sort_by_key(|step| step.made);
    let mut search = Search { steps: &steps, seen: BTreeSet::new() };
    match search.go(0, &mut Vec::new()) {
        _ if STATES_MAX <= search.seen.len() => Verdict::TooMuch,
        true => Verdict::Explained,
        false => Verdict::Impossible,
    }
}

/// `None`: it tells nothing.
fn step(stream: &str, call: &Call, ledger: &Ledger<'_>) -> Option<Step> {
    let made = call.made;
    let what = match (&call.action, call.outcome()) {
        (Action::Append(_) | Action::Batch { .. }, _) if call.may_have_happened() => {
            let puts = call.placed().filter(|(put, _)| put.stream == stream);
            let place = |content: &[u8]| ledger.written.get(content).and_then(|written| written.place);
            // What was acknowledged counts as it was told; of the rest, what somebody saw.
            let ids = puts.filter_map(|(put, placed)| match placed {
                Some(placed) => placed.id(),
                None => place(&put.content),
            });
            let ids: Vec<Id> = ids.collect();
            if ids.is_empty() {
                return None;
            }
            What::Append(ids)
        }
        (
            Action::Range { beyond, reverse, count, fresh: Fresh::Linearizable, .. },
            Some(Outcome::Read { entries, more }),
        ) => {
            let found: Vec<Id> = entries.iter().map(|entry| entry.id).collect();
            // An answer may be cut short for its size, and says so.
            let count = if *more { found.len() } else { *count as usize };
            What::Read { beyond: *beyond, reverse: *reverse, count, found }
        }
        (
            Action::Read { after: After::Id(after), count, fresh: Fresh::Linearizable, .. },
            Some(Outcome::Read { entries, more }),
        ) => {
            let found: Vec<Id> = entries.iter().map(|entry| entry.id).collect();
            let count = if *more { found.len() } else { *count as usize };
            What::Read { beyond: Some(*after), reverse: false, count, found }
        }
        _ => return None,
    };
    Some(Step { made, by: call.settled().unwrap_or(NEVER), what })
}

struct Search<'a> {
    steps: &'a [Step],
    /// Which steps were done. As ids must rise, that says also what the stream held then.
    seen: BTreeSet<u128>,
}

impl Search<'_> {
    /// Whether the steps that are not in `done` can follow on the stream as it is.
    fn go(&mut self, done: u128, stream: &mut Vec<Id>) -> bool {
        let open = |place: usize| done & (1 << place) == 0;
        let left = self.steps.iter().enumerate().filter(|(place, _)| open(*place));
        // Whatever is next was made before any that is left had to be over.
        let Some(first_by) = left.map(|(_, step)| step.by).filter(|by| *by != NEVER).min() else { return true };
        if STATES_MAX <= self.seen.len() || !self.seen.insert(done) {
            return false;
        }
        for (place, step) in self.steps.iter().enumerate() {
            if !open(place) || first_by < step.made {
                continue;
            }
            let length = stream.len();
            if step.what.apply(stream) && self.go(done | (1 << place), stream) {
                return true;
            }
            stream.truncate(length);
        }
        false
    }
}

impl What {
    /// Does it, if its answer fits.
    fn apply(&self, stream: &mut Vec<Id>) -> bool {
        match self {
            What::Append(ids) => {
                let fits = stream.last().is_none_or(|last| ids.first().is_some_and(|first| last < first));
                if fits {
                    stream.extend(ids);
                }
                fits && ids.windows(2).all(|pair| pair[0] < pair[1])
            }
            What::Read { beyond, reverse: false, count, found } => {
                let shown = stream.iter().filter(|id| beyond.is_none_or(|beyond| beyond < **id)).take(*count);
                shown.eq(found)
            }
            What::Read { beyond, reverse: true, count, found } => {
                let shown = stream.iter().rev().filter(|id| beyond.is_none_or(|beyond| **id < beyond)).take(*count);
                shown.eq(found)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::entropy::Rng;
    use crate::history::Entry;

    fn verdict(calls: &[Call], entries: Vec<Entry>) -> Verdict {
        let mut evidence = Evidence { calls: calls.to_vec(), ..Evidence::default() };
        evidence.calls.sort_by_key(|call| call.made);
        evidence.end.streams.insert(S.into(), entries);
        let ledger = Ledger::new(&evidence);
        let last = evidence.end.streams[S].iter().map(|entry| entry.id).collect();
        search(S, &evidence.calls.iter().collect::<Vec<_>>(), Some(last), &ledger)
    }

    fn fresh(made: u64, answered: u64, entries: &[(u64, &str)]) -> Call {
        range("r", made, answered, Fresh::Linearizable, entries)
    }

    #[test]
    fn cases() {
        let both = [append("p", 1, "a", 2, appended(1)), append("p", 5, "b", 8, appended(2))];
        let with = |read| verdict(&[both[0].clone(), both[1].clone(), read], stream(&["a", "b"]));
        assert_eq!(with(fresh(3, 4, &[(1, "a")])), Verdict::Explained);
        assert_eq!(with(fresh(6, 7, &[(1, "a")])), Verdict::Explained);
        assert_eq!(with(fresh(6, 7, &[(1, "a"), (2, "b")])), Verdict::Explained);
        assert_eq!(with(tail("r", 9, 10, &[(2, "b")])), Verdict::Explained);
        assert_eq!(with(fresh(9, 10, &[(1, "a")])), Verdict::Impossible);
        assert_eq!(with(fresh(3, 4, &[(1, "a"), (2, "b")])), Verdict::Impossible);
        assert_eq!(with(tail("r", 9, 10, &[(1, "a")])), Verdict::Impossible);
        let lost = append("p", 1, "a", 2, unknown());
        assert_eq!(verdict(std::slice::from_ref(&lost), vec![]), Verdict::Explained);
        assert_eq!(verdict(&[lost.clone(), fresh(3, 4, &[])], stream(&["a"])), Verdict::Explained);
        let (seen, unseen) = (fresh(3, 4, &[(1, "a")]), fresh(5, 6, &[]));
        assert_eq!(verdict(&[lost, seen, unseen], stream(&["a"])), Verdict::Impossible);
    }

    /// Random calls with random answers, most of them nearly right: both opinions must be the same.
    #[test]
    fn the_search_agrees_with_the_order_of_ids() {
        let mut counts = [0; 2];
        for seed in 0..4_000 {
            let mut rng = Rng::stream(seed, "agreement");
            let count = 1 + rng.below(5) as usize;
            let contents = ["a", "b", "c", "d", "e"];
            // Moments are all different, and an append has a place between its own.
            let mut moments: Vec<u64> = (1..60).collect();
            for place in (1..moments.len()).rev() {
                moments.swap(place, rng.below(place as u64 + 1) as usize);
            }
            let mut span = || {
                let (one, two) = (moments.pop().unwrap_or(60), moments.pop().unwrap_or(61));
                (one.min(two), one.max(two))
            };
            let mut spans: Vec<_> = (0..count).map(|_| span()).collect();
            spans.sort_by_key(|(made, answered)| made + answered);
            if rng.one_in(4) && 1 < count {
                spans.swap(0, 1);
            }
            let mut calls = Vec::new();
            for (place, (made, answered)) in spans.into_iter().enumerate() {
                let outcome = if rng.one_in(4) { unknown() } else { appended(place as u64 + 1) };
                calls.push(append(&format!("p{place}"), made, contents[place], answered, outcome));
            }
            let all: Vec<_> = (1..).zip(contents).take(count).collect();
            for reader in 0..rng.below(4) {
                let (made, answered) = span();
                // About as much as there is by then.
                let there = calls.iter().filter(|call| call.made < (made + answered) / 2).count() as u64;
                let shown = (there + rng.below(3)).saturating_sub(1).min(count as u64) as usize;
                calls.push(range(&format!("r{reader}"), made, answered, Fresh::Linearizable, &all[..shown]));
            }
            let mut evidence = Evidence { calls, ..Evidence::default() };
            evidence.calls.sort_by_key(|call| call.made);
            evidence.end.streams.insert(S.into(), stream(&contents[..count]));
            let ledger = Ledger::new(&evidence);
            let opinions = [
                super::super::order_is_kept::check,
                super::super::nothing_is_invented::check,
                super::super::acknowledged_appends_stay::check,
                super::super::reads_follow_the_order::check,
            ];
            let linear: Result<Vec<()>, String> = opinions.iter().map(|check| check(&evidence, &ledger)).collect();
            let calls: Vec<&Call> = evidence.calls.iter().collect();
            let last = stream(&contents[..count]).iter().map(|entry| entry.id).collect();
            let found = search(S, &calls, Some(last), &ledger);
            let expected = if linear.is_ok() { Verdict::Explained } else { Verdict::Impossible };
            assert_eq!(found, expected, "seed {seed}: {linear:?} {:#?}", evidence.calls);
            counts[usize::from(linear.is_ok())] += 1;
        }
        assert!(counts.iter().all(|count| 500 < *count), "both kinds are many: {counts:?}");
    }
}
