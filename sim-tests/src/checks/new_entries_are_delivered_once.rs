//! A group's position moves forwards only (C1, C5): it delivers each entry as new to one call only, in the order of the
//! stream, and skips none that is there. Others get an entry by taking it over.

use std::collections::BTreeMap;

use super::ledger::next;
use super::{Evidence, Ledger};
use crate::history::{Action, Call, Entry, GroupName, Id, Outcome};

pub(super) fn check(evidence: &Evidence, ledger: &Ledger<'_>) -> Result<(), String> {
    let mut groups: BTreeMap<&GroupName, Vec<(&Call, &[Entry])>> = BTreeMap::new();
    for call in &evidence.calls {
        let (Action::ReadGroup { group, .. }, Some(Outcome::Delivered { entries, .. })) =
            (&call.action, call.outcome())
        else {
            continue;
        };
        if !ledger.restless.contains(group) && !entries.is_empty() {
            groups.entry(group).or_default().push((call, entries));
        }
    }
    for (group, deliveries) in groups {
        let mut owners: BTreeMap<Id, &Call> = BTreeMap::new();
        for (call, entries) in &deliveries {
            if let Some(pair) = entries.windows(2).find(|pair| pair[1].id <= pair[0].id) {
                return Err(format!("{} got {} after {} (call {})", call.client, pair[1].id, pair[0].id, call.made));
            }
            for entry in *entries {
                if let Some(other) = owners.insert(entry.id, call) {
                    return Err(format!(
                        "{} was new to {} (call {}) and again to {} (call {}), in {group:?}",
                        entry.id, other.client, other.made, call.client, call.made
                    ));
                }
            }
            skips_nothing(ledger, &group.0, call, entries)?;
        }
        in_order(&deliveries, group)?;
    }
    Ok(())
}

/// Between two entries of a delivery there was nothing but what may have been removed.
fn skips_nothing(ledger: &Ledger<'_>, stream: &str, call: &Call, entries: &[Entry]) -> Result<(), String> {
    let Some(stream) = ledger.stream(stream) else { return Ok(()) };
    for pair in entries.windows(2) {
        let mut between = stream.entries.range(next(pair[0].id)..pair[1].id);
        let settled = call.settled().unwrap_or_default();
        if let Some((id, _)) = between.find(|(id, _)| !stream.may_be_gone(**id, settled)) {
            return Err(format!("{} got {} and {}, but not {id}", call.client, pair[0].id, pair[1].id));
        }
    }
    Ok(())
}

/// A delivery that ended before another began has the smaller ids.
fn in_order(deliveries: &[(&Call, &[Entry])], group: &GroupName) -> Result<(), String> {
    let end = |(call, entries): &(&Call, &[Entry])| Some((call.settled()?, entries.last()?.id));
    let mut ends: Vec<_> = deliveries.iter().filter_map(end).collect();
    ends.sort_unstable();
    // In the order of the calls.
    let starts = deliveries.iter().filter_map(|(call, entries)| Some((call.made, entries.first()?.id, *call)));
    let mut ended = ends.into_iter().peekable();
    let mut greatest = Id::MIN;
    for (start, first, call) in starts {
        while let Some((_, last)) = ended.next_if(|(end, _)| *end < start) {
            greatest = greatest.max(last);
        }
        if first <= greatest {
            let (client, made) = (&call.client, call.made);
            return Err(format!("{group:?} had delivered {greatest}, and {client} got {first} as new (call {made})"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;

    fn check(calls: Vec<crate::history::Call>) -> Result<(), String> {
        let evidence = only(calls);
        super::check(&evidence, &super::Ledger::new(&evidence))
    }

    #[test]
    fn cases() {
        let one = || read("c1", 1, 3, &[(1, "a"), (2, "b")]);
        assert_eq!(check(vec![one(), read("c2", 2, 4, &[(3, "c")])]), Ok(()));
        assert_eq!(check(vec![read("c1", 1, 2, &[(1, "a")]), claim("c2", 3, 4, &[(1, "a")])]), Ok(()));
        for (what, calls) in [
            ("twice", vec![read("c1", 1, 3, &[(1, "a")]), read("c2", 2, 4, &[(1, "a")])]),
            ("backwards", vec![read("c1", 1, 2, &[(3, "c")]), read("c2", 3, 4, &[(1, "a")])]),
            ("backwards in one call", vec![read("c1", 1, 2, &[(3, "c"), (1, "a")])]),
            ("skipped", vec![append("p", 1, "b", 2, appended(2)), read("c1", 3, 4, &[(1, "a"), (3, "c")])]),
        ] {
            assert!(check(calls).is_err(), "{what}");
        }
        let skipped =
            vec![append("p", 1, "b", 2, appended(2)), delete("d", 3, 6, 2), read("c1", 4, 5, &[(1, "a"), (3, "c")])];
        assert_eq!(check(skipped), Ok(()), "deleted meanwhile");
    }
}
