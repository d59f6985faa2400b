//! The checkers against random histories: what is right passes, and each single change that makes it wrong is noticed.

use super::check;
use super::generator::history;
use super::testing::*;
use crate::checks::Evidence;
use crate::entropy::Rng;
use crate::history::{Action, Answer, Call, Entry, Fresh, Id, Outcome, Placed};

const SEEDS: u64 = 200;

#[test]
fn what_is_right_passes() {
    for seed in 0..SEEDS {
        let mut rng = Rng::stream(seed, "history");
        let evidence = history(&mut rng, 50 + seed, seed % 2 == 0);
        let problems = check(&evidence);
        assert!(problems.is_empty(), "seed {seed}: {problems:#?} in {:#?}", evidence.calls);
    }
}

type Change = fn(&mut Evidence, &mut Rng) -> Option<()>;

/// A random one of the calls for which this gives something.
fn some<T>(evidence: &mut Evidence, rng: &mut Rng, find: impl Fn(&Call) -> Option<T>) -> Option<(usize, T)> {
    let mut found: Vec<_> =
        evidence.calls.iter().enumerate().filter_map(|(place, call)| Some((place, find(call)?))).collect();
    let place = (!found.is_empty()).then(|| rng.below(found.len() as u64) as usize)?;
    Some(found.swap_remove(place))
}

fn outcome(evidence: &mut Evidence, place: usize) -> Option<&mut Outcome> {
    evidence.calls[place].answer.as_mut().map(|answer| &mut answer.outcome)
}

fn appended_id(call: &Call) -> Option<Id> {
    call.placed().next()?.1?.id()
}

/// What makes a history wrong that removes nothing.
const CHANGES: [(&str, Change); 12] = [
    ("an acknowledged entry is lost", |evidence, rng| {
        let (_, id) = some(evidence, rng, appended_id)?;
        evidence.end.streams.get_mut(S)?.retain(|entry| entry.id != id);
        Some(())
    }),
    ("an entry is there twice", |evidence, _| {
        let entries = evidence.end.streams.get_mut(S)?;
        let again = Entry { id: Id { ms: 1_000_000, seq: 0 }, ..entries.first()?.clone() };
        entries.push(again);
        Some(())
    }),
    ("an entry is nobody's", |evidence, _| {
        evidence.end.streams.get_mut(S)?.push(entry(1_000_000, "phantom"));
        Some(())
    }),
    ("two entries have changed places", |evidence, rng| {
        let entries = evidence.end.streams.get_mut(S)?;
        let place = rng.below(entries.len().checked_sub(1).filter(|left| 0 < *left)? as u64) as usize;
        let content = std::mem::take(&mut entries[place].content);
        entries[place].content = std::mem::replace(&mut entries[place + 1].content, content);
        // Unless nobody knew.
        let told = |entry: &Entry| evidence.calls.iter().any(|call| appended_id(call) == Some(entry.id));
        let known = evidence.end.streams[S][place..place + 2].iter().any(told);
        known.then_some(())
    }),
    ("a read misses what was there", |evidence, rng| {
        let known: Vec<(u64, Id)> =
            evidence.calls.iter().filter_map(|call| Some((call.settled()?, appended_id(call)?))).collect();
        let (place, id) = some(evidence, rng, |call| match (&call.action, call.outcome()?) {
            (Action::Range { fresh: Fresh::Linearizable, .. }, Outcome::Read { entries, .. }) => {
                let shown = entries.iter().map(|entry| entry.id);
                shown.max().filter(|id| known.iter().any(|(settled, other)| other == id && *settled < call.made))
            }
            _ => None,
        })?;
        let Outcome::Read { entries, more } = outcome(evidence, place)? else { return None };
        entries.retain(|entry| entry.id != id);
        // A read that goes forwards and says that there is more has not come to it.
        (!*more).then_some(())
    }),
    ("a read has a hole", |evidence, rng| {
        let (place, ()) = some(evidence, rng, |call| match call.outcome()? {
            Outcome::Read { entries, .. } => (3 <= entries.len()).then_some(()),
            _ => None,
        })?;
        let Outcome::Read { entries, .. } = outcome(evidence, place)? else { return None };
        entries.remove(1);
        Some(())
    }),
    ("an append that changed nothing is there", |evidence, rng| {
        let (place, _) = some(evidence, rng, |call| {
            appended_id(call).filter(|_| call.action.puts().iter().all(|put| put.key.is_none()))
        })?;
        *outcome(evidence, place)? = nothing("NO_LEADER");
        Some(())
    }),
    ("an append was told another id", |evidence, rng| {
        let (place, id) = some(evidence, rng, appended_id)?;
        let Outcome::Appended(placed) = outcome(evidence, place)? else { return None };
        placed[0] = Placed::At { id: Id { seq: 7, ..id }, trimmed: 0 };
        Some(())
    }),
    ("an entry is new to two", |evidence, rng| {
        let new = |call: &Call| match (&call.action, call.outcome()?) {
            (Action::ReadGroup { .. }, Outcome::Delivered { entries, .. }) => entries.first().cloned(),
            _ => None,
        };
        let (one, entry) = some(evidence, rng, new)?;
        let (two, _) = some(evidence, rng, new)?;
        let Outcome::Delivered { entries, .. } = outcome(evidence, two)? else { return None };
        entries.insert(0, entry);
        (one != two).then_some(())
    }),
    ("an entry is delivered after its acknowledgement", |evidence, rng| {
        let (place, id) = some(evidence, rng, |call| match (&call.action, call.outcome()?) {
            (Action::Ack { ids, .. }, Outcome::Acknowledged(count)) if *count == ids.len() as u64 => {
                ids.first().copied()
            }
            _ => None,
        })?;
        let after = evidence.calls[place].settled()?;
        let content = evidence.end.streams[S].iter().find(|entry| entry.id == id)?.content.clone();
        let action = Action::AutoClaim { group: group(), consumer: "x".into(), idle_min_ms: 0, count: 1 };
        let late = Outcome::Delivered { entries: vec![Entry { id, content }], deleted: vec![] };
        let moment = evidence.calls.iter().filter_map(Call::settled).max()?.max(after);
        evidence.calls.push(call("x", moment + 1, action, moment + 2, late));
        Some(())
    }),
    ("an entry is skipped", |evidence, rng| {
        let (_, id) = some(evidence, rng, appended_id)?;
        for call in &mut evidence.calls {
            if let Some(Answer { outcome: Outcome::Delivered { entries, .. }, .. }) = &mut call.answer {
                entries.retain(|entry| entry.id != id);
            }
        }
        Some(())
    }),
    ("a list of pending entries names a stranger", |evidence, rng| {
        let (place, ()) = some(evidence, rng, |call| match call.outcome()? {
            Outcome::Pending { entries, .. } => (!entries.is_empty()).then_some(()),
            _ => None,
        })?;
        let Outcome::Pending { entries, .. } = outcome(evidence, place)? else { return None };
        entries[0].consumer = Some("stranger".into());
        Some(())
    }),
];

#[test]
fn what_is_wrong_fails() {
    for (what, change) in CHANGES {
        let mut made = 0;
        for seed in 0..SEEDS {
            let mut rng = Rng::stream(seed, "change");
            let mut evidence = history(&mut rng, 50 + seed % 200, false);
            if change(&mut evidence, &mut rng).is_some() {
                made += 1;
                assert!(!check(&evidence).is_empty(), "{what}, seed {seed}: {:#?}", evidence.calls);
            }
        }
        assert!(SEEDS / 10 < made, "{what} was possible in {made} histories only");
    }
}
