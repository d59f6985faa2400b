//! After the drain every entry of the stream was delivered to the group and acknowledged, and nothing is pending.
//!
//! Where the answer to a delivery was lost, the entry waits for a claim; where the answer to an acknowledgement was
//! lost, it may have been acknowledged. Either way it must come out by the end.

use std::collections::BTreeSet;

use super::Evidence;
use crate::history::{Id, Outcome};

pub(super) fn check(evidence: &Evidence) -> Result<(), String> {
    if evidence.group.pending != 0 {
        return Err(format!("{} entries are still pending", evidence.group.pending));
    }
    let mut delivered: BTreeSet<Id> = BTreeSet::new();
    let mut acknowledged: BTreeSet<Id> = BTreeSet::new();
    for call in &evidence.calls {
        match &call.answer {
            Some((_, Outcome::Delivered(entries))) => delivered.extend(entries.iter().map(|entry| entry.id)),
            Some((_, Outcome::NothingChanged(_))) => {}
            _ => acknowledged.extend(call.action.acknowledges()),
        }
    }
    for entry in &evidence.stream {
        if !delivered.contains(&entry.id) {
            return Err(format!("{} was never delivered", entry.id));
        }
        if !acknowledged.contains(&entry.id) {
            return Err(format!("{} is not pending, but nobody acknowledged it", entry.id));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::GroupEnd;
    use crate::checks::testing::*;

    #[test]
    fn cases() {
        let evidence = |calls, pending| Evidence {
            calls,
            stream: stream(&["a"]),
            group: GroupEnd { pending },
            ..Default::default()
        };
        let delivered = || read("c1", 1, 2, &[(1, "a")]);
        assert_eq!(check(&evidence(vec![delivered(), ack("c1", 3, 4, &[1], 1)], 0)), Ok(()));
        let mut lost_answer = ack("c1", 3, 4, &[1], 1);
        lost_answer.answer = None;
        assert_eq!(check(&evidence(vec![delivered(), lost_answer], 0)), Ok(()));
        let mut refused = ack("c1", 3, 4, &[1], 1);
        refused.answer = Some((4, Outcome::NothingChanged("no leader".into())));
        for (what, evidence) in [
            ("skipped", evidence(vec![], 0)),
            ("vanished from the pending list", evidence(vec![delivered()], 0)),
            ("gone by an acknowledgement that changed nothing", evidence(vec![delivered(), refused], 0)),
            ("left pending", evidence(vec![delivered(), ack("c1", 3, 4, &[1], 1)], 1)),
        ] {
            assert!(check(&evidence).is_err(), "{what}");
        }
    }
}
