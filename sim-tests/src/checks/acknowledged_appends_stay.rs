//! Every acknowledged append is in its stream exactly once, under the id and with the content that were acknowledged;
//! or not at all, if somebody may have removed it.

use std::collections::BTreeMap;

use super::{Evidence, Ledger, NEVER};
use crate::history::{Id, Outcome};

pub(super) fn check(evidence: &Evidence, ledger: &Ledger<'_>) -> Result<(), String> {
    let mut places: BTreeMap<&[u8], Vec<(&str, Id)>> = BTreeMap::new();
    for (name, entries) in &evidence.end.streams {
        for entry in entries {
            places.entry(&entry.content).or_default().push((name, entry.id));
        }
    }
    for call in &evidence.calls {
        let (client, puts) = (&call.client, call.action.puts());
        if let Some(Outcome::Appended(placed)) = call.outcome()
            && puts.len() != placed.len()
        {
            return Err(format!("{client} appended {} entries and was told of {placed:?}", puts.len()));
        }
        for (put, placed) in call.placed() {
            let Some(id) = placed.and_then(|placed| placed.id()) else { continue };
            let found = places.get(put.content.as_slice()).map_or(&[][..], Vec::as_slice);
            let stream = ledger.stream(&put.stream);
            let is_removed = found.is_empty() && stream.is_some_and(|stream| stream.may_be_gone(id, NEVER));
            if found != [(&*put.stream, id)] && !is_removed {
                return Err(format!(
                    "{client} was told (call {}) that {} is at {id} in {}; it is found at {found:?}",
                    call.made,
                    put.content.escape_ascii(),
                    put.stream,
                ));
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
        let calls = || vec![append("p1", 1, "a", 2, appended(1)), append("p1", 3, "b", 4, appended(2))];
        assert_eq!(check(calls(), stream(&["a", "b"])), Ok(()));
        let with = |call| calls().into_iter().chain([call]).collect::<Vec<_>>();
        let removed = with(ack_and_delete("c1", 5, 6, &[2], &[Removed::Deleted]));
        assert_eq!(check(removed.clone(), stream(&["a"])), Ok(()));
        assert!(check(removed, vec![]).is_err(), "only the other one was removed");
        let referenced = with(ack_and_delete("c1", 5, 6, &[2], &[Removed::Referenced]));
        assert!(check(referenced, stream(&["a"])).is_err(), "it was not removed");
        assert_eq!(check(with(delete("d1", 5, 6, 2)), stream(&["a"])), Ok(()));
        for (what, entries) in [
            ("lost", stream(&["a"])),
            ("twice", stream(&["a", "b", "b"])),
            ("moved", stream(&["a", "c", "b"])),
            ("changed", stream(&["a", "B"])),
        ] {
            assert!(check(calls(), entries).is_err(), "{what}");
        }
        let only_b = || vec![entry(2, "b")];
        assert_eq!(check(with(trim("t1", 5, 6, Keep::Newest(1))), only_b()), Ok(()));
        assert_eq!(check(with(trim("t1", 5, 6, Keep::From(id(2)))), only_b()), Ok(()));
        assert!(check(with(trim("t1", 5, 6, Keep::Newest(1))), vec![]).is_err(), "one had to stay");
        assert!(check(with(trim("t1", 5, 6, Keep::Newest(2))), only_b()).is_err(), "two had to stay");
        assert!(check(with(trim("t1", 5, 6, Keep::From(id(1)))), only_b()).is_err(), "1 had to stay");
    }
}
