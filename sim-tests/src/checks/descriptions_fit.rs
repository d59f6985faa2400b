//! What a stream says of itself agrees with what is known of it: its last id is at least the greatest known one, it has
//! counted every acknowledged append and none that was not called, and its length is between what must be there and
//! what can be.

use std::collections::BTreeMap;

use super::{Evidence, Ledger, NEVER};
use crate::history::{Action, Id, Outcome, Placed};

pub(super) fn check(evidence: &Evidence, ledger: &Ledger<'_>) -> Result<(), String> {
    // Of each stream: when entries may have come, and by when they had.
    let mut came: BTreeMap<&str, (Vec<u64>, Vec<u64>)> = BTreeMap::new();
    for call in evidence.calls.iter().filter(|call| call.may_have_happened()) {
        for (put, placed) in call.placed() {
            let (may, did) = came.entry(&put.stream).or_default();
            if matches!(placed, Some(Placed::Refused(_) | Placed::Before(_))) {
                continue;
            }
            may.push(call.made);
            if placed.is_some() {
                did.push(call.settled().unwrap_or(NEVER));
            }
        }
    }
    came.values_mut().for_each(|(may, did)| {
        may.sort_unstable();
        did.sort_unstable();
    });
    let mut greatest: BTreeMap<&str, Vec<(u64, Id, u64)>> = BTreeMap::new();
    for call in &evidence.calls {
        let (Action::Describe { stream: name }, Some(answer)) = (&call.action, &call.answer) else { continue };
        let Outcome::Described { length, last_id, added, .. } = answer.outcome else { continue };
        let told = format!("{} was told of {name} (call {}): {:?}", call.client, call.made, answer.outcome);
        let (may, did) = came.get(name.as_str()).map_or((&[][..], &[][..]), |(may, did)| (may, did));
        let most = may.partition_point(|made| *made < answer.moment) as u64;
        let least = did.partition_point(|settled| *settled < call.made) as u64;
        if !(least..=most).contains(&added) {
            return Err(format!("{told}; {least} to {most} were appended"));
        }
        if added < length {
            return Err(format!("{told}; it has more than were ever appended"));
        }
        let Some(stream) = ledger.stream(name) else { continue };
        if last_id < stream.known_at(call.made) {
            return Err(format!("{told}; {} was known", stream.known_at(call.made)));
        }
        let certain = stream
            .entries
            .iter()
            .filter(|(id, fact)| fact.known < call.made && !stream.may_be_gone(**id, answer.moment));
        let certain = certain.count() as u64;
        if length < certain {
            return Err(format!("{told}; {certain} must be there"));
        }
        let seen = greatest.entry(name).or_default();
        let before = seen.iter().filter(|(moment, ..)| *moment < call.made);
        if let Some((_, id, count)) = before.max().filter(|(_, id, count)| last_id < *id || added < *count) {
            return Err(format!("{told}; before that, the last id was {id} and {count} had been appended"));
        }
        seen.push((answer.moment, last_id, added));
        // By moments, as far as calls overlap.
        seen.sort_unstable();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::history::{Action, Call, Outcome};

    fn check(calls: Vec<Call>) -> Result<(), String> {
        let evidence = only(calls);
        super::check(&evidence, &super::Ledger::new(&evidence))
    }

    fn describe(made: u64, length: u64, last: u64, added: u64) -> Call {
        let outcome = Outcome::Described { length, last_id: id(last), added, last_change: 9 };
        call("r", made, Action::Describe { stream: S.into() }, made + 1, outcome)
    }

    #[test]
    fn cases() {
        let both = || vec![append("p", 1, "a", 2, appended(1)), append("q", 3, "b", 4, unknown())];
        let and = |calls: &[Call]| check(both().into_iter().chain(calls.iter().cloned()).collect());
        assert_eq!(and(&[describe(5, 1, 1, 1)]), Ok(()));
        assert_eq!(and(&[describe(5, 2, 2, 2)]), Ok(()));
        assert_eq!(and(&[delete("d", 5, 6, 1), describe(7, 0, 1, 1)]), Ok(()));
        for (what, calls) in [
            ("stale", vec![describe(5, 0, 0, 0)]),
            ("more than called", vec![describe(5, 2, 2, 3)]),
            ("fewer than there are", vec![describe(5, 0, 1, 1)]),
            ("length", vec![describe(5, 2, 1, 1)]),
            ("last id", vec![describe(5, 1, 0, 1)]),
            ("backwards", vec![describe(5, 2, 2, 2), describe(7, 1, 1, 1)]),
        ] {
            assert!(and(&calls).is_err(), "{what}");
        }
    }
}
