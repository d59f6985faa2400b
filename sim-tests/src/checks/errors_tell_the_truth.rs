//! An error that promises that nothing has changed keeps that promise: what it was about is nowhere, and never was.

use super::ledger::sightings;
use super::{Evidence, Ledger};

pub(super) fn check(evidence: &Evidence, ledger: &Ledger<'_>) -> Result<(), String> {
    let seen = sightings(&evidence.calls).map(|seen| (seen.content, seen.id, seen.client));
    let stored = evidence.end.streams.values().flatten();
    let stored = stored.map(|entry| (entry.content.as_slice(), entry.id, "the last reader"));
    for (content, id, who) in seen.chain(stored) {
        if ledger.written.get(content).is_some_and(|written| !written.may_be) {
            let written = content.escape_ascii();
            return Err(format!("every attempt to append {written} changed nothing, but {who} found it at {id}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::history::{Outcome, Placed};

    fn check(calls: Vec<crate::history::Call>, entries: Vec<crate::history::Entry>) -> Result<(), String> {
        let evidence = evidence(calls, entries);
        super::check(&evidence, &super::Ledger::new(&evidence))
    }

    #[test]
    fn cases() {
        let failed = || append("p1", 1, "a", 2, nothing("NO_LEADER"));
        assert_eq!(check(vec![failed()], vec![]), Ok(()));
        assert!(check(vec![failed()], stream(&["a"])).is_err(), "stored");
        assert!(check(vec![failed(), read("c1", 3, 4, &[(1, "a")])], vec![]).is_err(), "seen, and gone since");
        assert_eq!(check(vec![append("p1", 1, "a", 2, unknown())], stream(&["a"])), Ok(()));
        let repeated = vec![failed(), append("p1", 3, "a", 4, appended(1))];
        assert_eq!(check(repeated, stream(&["a"])), Ok(()));
        let refused = Outcome::Appended(vec![Placed::Refused("ID_NOT_GREATER".into())]);
        assert!(check(vec![append("p1", 1, "a", 2, refused)], stream(&["a"])).is_err(), "refused and stored");
    }
}
