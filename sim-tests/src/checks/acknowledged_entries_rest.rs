//! Once an acknowledgement was answered, its entries are never delivered again: a call made after that answer does not
//! return them. And no entry is counted as acknowledged by two calls.

use std::collections::BTreeMap;

use super::Evidence;
use crate::history::{Id, Outcome};

pub(super) fn check(evidence: &Evidence) -> Result<(), String> {
    let mut acknowledged: BTreeMap<Id, u64> = BTreeMap::new();
    let mut full: BTreeMap<Id, &str> = BTreeMap::new();
    for call in &evidence.calls {
        let ids = call.action.acknowledges();
        let Some((answered, Outcome::Acknowledged(count))) = &call.answer else { continue };
        for id in ids {
            let first = acknowledged.entry(*id).or_insert(*answered);
            *first = (*first).min(*answered);
        }
        if *count > ids.len() as u64 {
            return Err(format!("{} acknowledged {} entries and was told of {count}", call.client, ids.len()));
        }
        // Only where every id of the call counted is it known which ones did.
        if *count == ids.len() as u64 {
            for id in ids {
                if let Some(other) = full.insert(*id, &call.client) {
                    return Err(format!("{id} was acknowledged by {other} and again by {}", call.client));
                }
            }
        }
    }
    for call in &evidence.calls {
        let Some((_, Outcome::Delivered(entries))) = &call.answer else { continue };
        for entry in entries {
            if let Some(moment) = acknowledged.get(&entry.id)
                && *moment < call.made
            {
                return Err(format!(
                    "{} got {} by call {}, after its acknowledgement was answered (at {moment})",
                    call.client, entry.id, call.made
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::*;

    #[test]
    fn cases() {
        let calls = |calls| Evidence { calls, ..Default::default() };
        let delivered = || read("c1", 1, 2, &[(1, "a")]);
        assert_eq!(check(&calls(vec![delivered(), ack("c1", 3, 4, &[1], 1)])), Ok(()));
        // Claimed by another while the acknowledgement was under way.
        let raced = vec![delivered(), ack("c1", 3, 6, &[1], 1), claim("c2", 4, 5, &[(1, "a")])];
        assert_eq!(check(&calls(raced)), Ok(()));
        let repeated = vec![delivered(), ack("c1", 3, 4, &[1], 1), ack("c2", 5, 6, &[1], 0)];
        assert_eq!(check(&calls(repeated)), Ok(()));
        for (what, call) in [
            ("claimed afterwards", claim("c2", 5, 6, &[(1, "a")])),
            ("new afterwards", read("c2", 5, 6, &[(1, "a")])),
            ("counted twice", ack("c2", 5, 6, &[1], 1)),
            ("more than asked for", ack("c2", 5, 6, &[2], 2)),
        ] {
            assert!(check(&calls(vec![delivered(), ack("c1", 3, 4, &[1], 1), call])).is_err(), "{what}");
        }
    }
}
