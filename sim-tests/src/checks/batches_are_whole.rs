//! What was appended by one call stands in its stream side by side, and as a whole or not at all, also where the client
//! never learnt the outcome.

use super::ledger::next;
use super::{Evidence, Ledger, NEVER};
use crate::history::{Action, Id, Mode, Outcome};

pub(super) fn check(evidence: &Evidence, ledger: &Ledger<'_>) -> Result<(), String> {
    for call in &evidence.calls {
        let Action::Batch { puts, mode, is_refused, .. } = &call.action else { continue };
        let place = |content: &[u8]| ledger.written.get(content).and_then(|written| written.place);
        let found: Vec<Option<Id>> = puts.iter().map(|put| place(&put.content)).collect();
        let describe = || format!("of call {} by {}", call.made, call.client);
        if *mode == Mode::AllOrNothing {
            if *is_refused && let Some(Outcome::Appended(_)) = call.outcome() {
                return Err(format!("{} a part had to be refused, and the others were done", describe()));
            }
            // A trim may have taken what nobody had seen; whatever else removes, knows what it removes.
            let is_explained = puts.iter().zip(&found).any(|(put, id)| {
                let stream = ledger.stream(&put.stream);
                id.zip(stream).is_some_and(|(id, stream)| stream.may_be_trimmed(id, NEVER))
            });
            let is_there = found.iter().any(Option::is_some);
            let missing = puts.iter().zip(&found).find(|(_, id)| id.is_none()).filter(|_| is_there && !is_explained);
            if let Some((put, _)) = missing {
                return Err(format!("{} {} is missing: {found:?}", describe(), put.content.escape_ascii()));
            }
            if is_there && *is_refused {
                return Err(format!("{} a part had to be refused, and {found:?} is there", describe()));
            }
        }
        let pairs = puts.windows(2).zip(found.windows(2));
        for (puts, ids) in pairs.filter(|(puts, _)| puts[0].stream == puts[1].stream) {
            let (Some(one), Some(two), Some(stream)) = (ids[0], ids[1], ledger.stream(&puts[0].stream)) else {
                continue;
            };
            if two <= one || stream.entries.range(next(one)..two).next().is_some() {
                return Err(format!("{} one is at {one} and the next at {two}", describe()));
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
        let both = || append_all("p1", 1, &["a", "b"], 2, unknown());
        let other = || append("p2", 1, "c", 2, unknown());
        for whole in [&["a", "b", "c"][..], &["c"], &[]] {
            assert_eq!(check(vec![both(), other()], stream(whole)), Ok(()));
        }
        for broken in [&["a"][..], &["b"], &["a", "c", "b"], &["b", "a"]] {
            assert!(check(vec![both(), other()], stream(broken)).is_err(), "{broken:?}");
        }
        let got = || read("c1", 3, 4, &[(1, "a")]);
        let removal = || ack_and_delete("c1", 5, 6, &[1], &[Removed::Deleted]);
        assert_eq!(check(vec![both(), got(), removal()], vec![entry(2, "b")]), Ok(()));
        assert!(check(vec![both(), got(), removal()], vec![]).is_err(), "the other half was never there");
        let trimmed = vec![both(), trim("t1", 3, 4, Keep::Newest(1))];
        assert_eq!(check(trimmed, vec![entry(2, "b")]), Ok(()));
    }
}
