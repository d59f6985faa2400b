//! What was removed is not in its stream at the end, and what a group still had to handle was not removed by an
//! acknowledgement of another group.

use std::collections::{BTreeMap, BTreeSet};

use super::{Evidence, Ledger, NEVER};
use crate::history::{Action, GroupName, Id, Outcome, Removed};

pub(super) fn check(evidence: &Evidence, ledger: &Ledger<'_>) -> Result<(), String> {
    for (name, stream) in &ledger.streams {
        if let Some(id) = stream.last.keys().find(|id| stream.is_gone(**id, NEVER)) {
            return Err(format!("{id} was removed from {name}, and is in it"));
        }
    }
    // When each acknowledgement may have taken effect first.
    let mut acknowledged: BTreeMap<(&GroupName, Id), u64> = BTreeMap::new();
    for call in evidence.calls.iter().filter(|call| call.may_have_happened()) {
        let Some((group, ids)) = call.action.acknowledges() else { continue };
        for id in ids {
            acknowledged.entry((group, *id)).or_insert(call.made);
        }
    }
    let restless: BTreeSet<&str> = ledger.restless.iter().map(|(stream, _)| stream.as_str()).collect();
    for call in &evidence.calls {
        let (Action::AckAndDelete { group: (stream, _), ids }, Some(Outcome::Removed(removed))) =
            (&call.action, call.outcome())
        else {
            continue;
        };
        if restless.contains(stream.as_str()) {
            continue;
        }
        let deleted = ids.iter().zip(removed).filter(|(_, removed)| **removed == Removed::Deleted);
        for (id, _) in deleted {
            let groups = evidence.end.groups.iter().filter(|(group, end)| group.0 == *stream && end.start < *id);
            for (group, _) in groups {
                let by = call.settled().unwrap_or(NEVER);
                if acknowledged.get(&(group, *id)).is_none_or(|made| by < *made) {
                    let client = &call.client;
                    return Err(format!("{client} removed {id} from {stream} while {} had to handle it", group.1));
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::history::{Keep, Removed};

    fn check(calls: Vec<crate::history::Call>, entries: Vec<crate::history::Entry>) -> Result<(), String> {
        let evidence = evidence(calls, entries);
        super::check(&evidence, &super::Ledger::new(&evidence))
    }

    #[test]
    fn cases() {
        let a = || append("p1", 1, "a", 2, appended(1));
        let b = || append("p1", 3, "b", 4, appended(2));
        let removal = |removed| vec![a(), ack_and_delete("c1", 5, 6, &[1], &[removed])];
        assert_eq!(check(removal(Removed::Deleted), vec![]), Ok(()));
        assert_eq!(check(removal(Removed::Referenced), stream(&["a"])), Ok(()));
        assert!(check(removal(Removed::Deleted), stream(&["a"])).is_err());
        assert!(check(vec![a(), delete("d1", 5, 6, 1)], stream(&["a"])).is_err());
        let trimmed = |keep| vec![a(), b(), trim("t1", 5, 6, keep)];
        assert_eq!(check(trimmed(Keep::Newest(2)), stream(&["a", "b"])), Ok(()));
        assert!(check(trimmed(Keep::Newest(1)), stream(&["a", "b"])).is_err());
        assert!(check(trimmed(Keep::From(id(2))), stream(&["a", "b"])).is_err());

        let mut two_groups = evidence(removal(Removed::Deleted), vec![]);
        let other = ("s".to_owned(), "h".to_owned());
        two_groups.end.groups.insert(other.clone(), crate::checks::GroupEnd::default());
        assert!(super::check(&two_groups, &super::Ledger::new(&two_groups)).is_err(), "not acknowledged by h");
        let ack = crate::history::Action::Ack { group: other, ids: ids(&[1]) };
        two_groups.calls.insert(1, call("c2", 3, ack, 4, crate::history::Outcome::Acknowledged(1)));
        assert_eq!(super::check(&two_groups, &super::Ledger::new(&two_groups)), Ok(()));
    }
}
