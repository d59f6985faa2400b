//! After the drain every entry of the stream was delivered to each of its groups and acknowledged, and nothing is
//! pending (C7, C8).
//!
//! Where the answer to a delivery was lost, the entry waits for its consumer's return, or for a claim; where the answer
//! to an acknowledgement was lost, it may have been acknowledged. Either way it must come out by the end.

use super::groups::{Book, Kind};
use super::{Evidence, Ledger};

pub(super) fn check(evidence: &Evidence, ledger: &Ledger<'_>) -> Result<(), String> {
    let books = Book::all(evidence, ledger);
    for (group, end) in &evidence.end.groups {
        if end.pending != 0 || end.lag != Some(0) {
            return Err(format!("{group:?} is not drained: {end:?}"));
        }
        let last = evidence.end.streams.get(&group.0).and_then(|entries| entries.last());
        if let Some(last) = last.filter(|last| end.last_delivered < last.id) {
            return Err(format!("{group:?} stands at {}, and {} is in the stream", end.last_delivered, last.id));
        }
        let Some(stream) = ledger.stream(&group.0) else { continue };
        // What may have been removed unseen need not have been delivered.
        let kept = stream.entries.keys().filter(|id| end.start < **id && !stream.may_be_gone(**id, super::NEVER));
        for id in kept.chain(stream.last.keys().filter(|id| end.start < **id)) {
            let events = books.get(group).and_then(|book| book.entries.get(id)).map_or(&[][..], Vec::as_slice);
            if !events.iter().any(|event| event.is_certain && event.kind.is_delivery()) {
                return Err(format!("{id} was never delivered to {group:?}"));
            }
            if !events.iter().any(|event| event.kind == Kind::Acknowledged) {
                return Err(format!("{id} is not pending in {group:?}, but nobody acknowledged it"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::history::{Call, Id};

    fn check(calls: Vec<Call>, pending: u64) -> Result<(), String> {
        let mut evidence = evidence(calls, stream(&["a"]));
        evidence.end.groups.values_mut().for_each(|end| end.pending = pending);
        super::check(&evidence, &super::Ledger::new(&evidence))
    }

    #[test]
    fn cases() {
        let delivered = || read("c1", 1, 2, &[(1, "a")]);
        let acknowledged = || ack("c1", 3, 4, &[1], 1);
        assert_eq!(check(vec![delivered(), acknowledged()], 0), Ok(()));
        assert_eq!(check(vec![delivered(), unanswered(acknowledged())], 0), Ok(()));
        let refused = call("c1", 3, acknowledged().action, 4, nothing("NO_LEADER"));
        for (what, calls, pending) in [
            ("skipped", vec![], 0),
            ("vanished from the pending list", vec![delivered()], 0),
            ("gone by an acknowledgement that changed nothing", vec![delivered(), refused], 0),
            ("left pending", vec![delivered(), acknowledged()], 1),
        ] {
            assert!(check(calls, pending).is_err(), "{what}");
        }
        let mut behind = evidence(vec![delivered(), acknowledged()], stream(&["a"]));
        behind.end.groups.values_mut().for_each(|end| end.last_delivered = Id::MIN);
        assert!(super::check(&behind, &super::Ledger::new(&behind)).is_err());
    }
}
