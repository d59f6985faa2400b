//! Once an acknowledgement was answered, its entries are never delivered again (C3): a call made after that answer does
//! not return them. And no entry is counted as acknowledged by two calls.

use std::collections::BTreeMap;

use super::groups::{Book, Kind, acknowledged_by};
use super::{Evidence, Ledger};
use crate::history::{GroupName, Id};

pub(super) fn check(evidence: &Evidence, ledger: &Ledger<'_>) -> Result<(), String> {
    let mut by: BTreeMap<(&GroupName, Id), &str> = BTreeMap::new();
    for call in &evidence.calls {
        let Some((group, ids)) = call.action.acknowledges().filter(|(group, _)| !ledger.restless.contains(group))
        else {
            continue;
        };
        let count = call.outcome().and_then(|outcome| outcome.acknowledged()).unwrap_or_default();
        if (ids.len() as u64) < count {
            return Err(format!("{} acknowledged {} entries and was told of {count}", call.client, ids.len()));
        }
        // Only where it is known which ids of the call counted.
        for id in acknowledged_by(call).unwrap_or_default() {
            if let Some(other) = by.insert((group, id), &call.client) {
                return Err(format!("{id} was acknowledged by {other} and again by {}", call.client));
            }
        }
    }
    for (group, book) in Book::all(evidence, ledger) {
        for (id, events) in &book.entries {
            let ends = events.iter().filter(|event| event.kind == Kind::Acknowledged && event.is_certain);
            let Some(end) = ends.map(|event| event.by()).min() else { continue };
            if let Some(event) = events.iter().find(|event| {
                event.is_certain && (event.kind.is_delivery() || event.kind == Kind::Released) && end < event.call.made
            }) {
                return Err(format!(
                    "{} got {id} of {group:?} by call {}, after its acknowledgement was answered (at {end})",
                    event.call.client, event.call.made
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::history::Removed::{Deleted, NotFound};

    fn check(calls: Vec<crate::history::Call>) -> Result<(), String> {
        let evidence = only(calls);
        super::check(&evidence, &super::Ledger::new(&evidence))
    }

    #[test]
    fn cases() {
        let delivered = || read("c1", 1, 2, &[(1, "a")]);
        assert_eq!(check(vec![delivered(), ack("c1", 3, 4, &[1], 1)]), Ok(()));
        // Claimed by another while the acknowledgement was under way.
        let raced = vec![delivered(), ack("c1", 3, 6, &[1], 1), claim("c2", 4, 5, &[(1, "a")])];
        assert_eq!(check(raced), Ok(()));
        let repeated = vec![delivered(), ack("c1", 3, 4, &[1], 1), ack("c2", 5, 6, &[1], 0)];
        assert_eq!(check(repeated), Ok(()));
        let removed = vec![delivered(), ack("c1", 3, 4, &[1], 1), ack_and_delete("c2", 5, 6, &[1], &[NotFound])];
        assert_eq!(check(removed), Ok(()));
        for (what, call) in [
            ("claimed afterwards", claim("c2", 5, 6, &[(1, "a")])),
            ("new afterwards", read("c2", 5, 6, &[(1, "a")])),
            ("given back afterwards", nack("c2", 5, 6, &[1])),
            ("counted twice", ack("c2", 5, 6, &[1], 1)),
            ("counted twice by removal", ack_and_delete("c2", 5, 6, &[1], &[Deleted])),
            ("more than asked for", ack("c2", 5, 6, &[2], 2)),
        ] {
            assert!(check(vec![delivered(), ack("c1", 3, 4, &[1], 1), call]).is_err(), "{what}");
        }
    }
}
