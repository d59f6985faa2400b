//! A stream holds only what was to be appended to it, and at most once, also where the client never learnt the outcome,
//! and also if it was removed later. Whoever sees an id sees the same content.

use std::collections::BTreeMap;

use super::ledger::{Sighting, sightings};
use super::{Evidence, Ledger, NEVER};
use crate::history::Id;

pub(super) fn check(evidence: &Evidence, ledger: &Ledger<'_>) -> Result<(), String> {
    let mut places = BTreeMap::new();
    for sighting in sightings(&evidence.calls) {
        look(ledger, &mut places, sighting)?;
    }
    let client = "the last reader";
    for (stream, entries) in &evidence.end.streams {
        for entry in entries {
            let sighting = Sighting { stream, id: entry.id, content: &entry.content, moment: NEVER, client };
            look(ledger, &mut places, sighting)?;
        }
        if let Some(pair) = entries.windows(2).find(|pair| pair[1].id <= pair[0].id) {
            return Err(format!("{} follows {} in {stream}", pair[1].id, pair[0].id));
        }
    }
    Ok(())
}

/// Whether somebody can have seen this, where others have seen what is in `places`.
fn look<'a>(
    ledger: &Ledger<'_>,
    places: &mut BTreeMap<&'a [u8], (&'a str, Id)>,
    Sighting { stream, id, content, moment, client: who }: Sighting<'a>,
) -> Result<(), String> {
    let Some(written) = ledger.written.get(content) else {
        let content = content.escape_ascii();
        return Err(format!("{who} found {content} at {id} in {stream}, which nobody appended"));
    };
    if written.put.stream != stream {
        let (content, other) = (content.escape_ascii(), &written.put.stream);
        return Err(format!("{who} found {content} at {id} in {stream}; it was for {other}"));
    }
    if moment < written.made {
        let content = content.escape_ascii();
        return Err(format!("{who} found {content} at {id} in {stream} before its append was called"));
    }
    let place = places.entry(content).or_insert((stream, id));
    if *place != (stream, id) {
        return Err(format!("{} is in {stream} at {id} and at {}", content.escape_ascii(), place.1));
    }
    match ledger.stream(stream).and_then(|stream| stream.entries.get(&id)) {
        Some(fact) if fact.content == content => Ok(()),
        fact => {
            let (content, other) = (content.escape_ascii(), fact.map(|fact| fact.content.escape_ascii().to_string()));
            Err(format!("{who} found {content} at {id} in {stream}; others found {other:?}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::history::Removed;

    fn check(calls: Vec<crate::history::Call>, entries: Vec<crate::history::Entry>) -> Result<(), String> {
        let evidence = evidence(calls, entries);
        super::check(&evidence, &super::Ledger::new(&evidence))
    }

    #[test]
    fn cases() {
        let lost = || append("p1", 1, "a", 2, unknown());
        assert_eq!(check(vec![lost()], stream(&["a"])), Ok(()));
        assert_eq!(check(vec![lost()], vec![]), Ok(()));
        assert_eq!(check(vec![unanswered(lost())], stream(&["a"])), Ok(()));
        assert_eq!(check(vec![lost(), read("c1", 3, 4, &[(1, "a")])], stream(&["a"])), Ok(()));
        let removed = || {
            let removal = ack_and_delete("c1", 5, 6, &[1], &[Removed::Deleted]);
            vec![lost(), read("c1", 3, 4, &[(1, "a")]), removal]
        };
        assert_eq!(check(removed(), vec![]), Ok(()));
        let mut changed = removed();
        changed.push(append("p1", 7, "b", 8, appended(2)));
        changed.push(claim("c2", 9, 10, &[(1, "b")]));
        assert!(check(changed, vec![entry(2, "b")]).is_err(), "removed, and delivered with two contents");
        let mut again = removed();
        again.push(read("c1", 7, 8, &[(2, "a")]));
        assert!(check(again, vec![]).is_err(), "appended twice, and removed both times");
        for (what, calls, entries) in [
            ("phantom", vec![], stream(&["a"])),
            ("a retry that took effect twice", vec![lost()], stream(&["a", "a"])),
            ("two contents", vec![lost(), read("c1", 3, 4, &[(1, "b")])], stream(&["a"])),
            ("the future", vec![read("c1", 1, 2, &[(1, "a")]), append("p1", 3, "a", 4, appended(1))], stream(&["a"])),
            ("disorder", vec![lost()], vec![entry(1, "a"), entry(1, "a")]),
        ] {
            assert!(check(calls, entries).is_err(), "{what}");
        }
    }
}
