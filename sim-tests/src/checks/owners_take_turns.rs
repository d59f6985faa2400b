//! An entry of a group has one owner at a time (C2): a consumer is repeated only what it can have owned at that moment.
//! Ownership passes by claims, and ends with an acknowledgement or when the entry is given back.

use super::groups::{Book, Kind};
use super::{Evidence, Ledger};

pub(super) fn check(evidence: &Evidence, ledger: &Ledger<'_>) -> Result<(), String> {
    for (group, book) in Book::all(evidence, ledger) {
        for (id, events) in &book.entries {
            for event in events.iter().filter(|event| event.kind == Kind::Again && event.is_certain) {
                let consumer = event.consumer();
                if !book.can_own(*id, Some(consumer), event.call.made, event.by()) {
                    let made = event.call.made;
                    return Err(format!(
                        "{consumer} of {group:?} was repeated {id} (call {made}), which it did not own"
                    ));
                }
            }
            // Somebody who takes over an entry must find it pending.
            for event in events.iter().filter(|event| event.kind == Kind::Claimed && event.is_certain) {
                let is_delivered = events
                    .iter()
                    .chain(&book.open)
                    .any(|other| other.kind == Kind::New && other.call.made < event.by());
                if !is_delivered {
                    let client = &event.call.client;
                    return Err(format!("{client} took over {id} of {group:?}, which nobody can have had"));
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::history::{Action, Call, Id};

    fn check(calls: Vec<Call>) -> Result<(), String> {
        let evidence = only(calls);
        super::check(&evidence, &super::Ledger::new(&evidence))
    }

    fn again(client: &str, made: u64, answered: u64, entries: &[(u64, &str)]) -> Call {
        let action = Action::ReadPending { group: group(), consumer: client.into(), after: Id::MIN, count: 10 };
        call(client, made, action, answered, delivered(entries))
    }

    #[test]
    fn cases() {
        let got = || read("c1", 1, 2, &[(1, "a")]);
        let lost = |mut call: Call| {
            call.answer = None;
            call
        };
        assert_eq!(check(vec![got(), again("c1", 3, 4, &[(1, "a")])]), Ok(()));
        assert_eq!(check(vec![lost(got()), again("c1", 3, 4, &[(1, "a")])]), Ok(()));
        let taken = || vec![got(), claim("c2", 3, 5, &[(1, "a")])];
        let and = |mut calls: Vec<Call>, call| {
            calls.push(call);
            check(calls)
        };
        assert_eq!(and(taken(), again("c2", 6, 7, &[(1, "a")])), Ok(()));
        assert_eq!(and(taken(), again("c1", 4, 6, &[(1, "a")])), Ok(()), "while it was taken over");
        assert!(and(taken(), again("c1", 6, 7, &[(1, "a")])).is_err(), "taken over before");
        assert!(and(vec![got()], again("c2", 3, 4, &[(1, "a")])).is_err(), "another's");
        assert!(and(vec![got(), nack("c1", 3, 4, &[1])], again("c1", 5, 6, &[(1, "a")])).is_err(), "given back");
        assert!(and(vec![], claim("c2", 3, 4, &[(1, "a")])).is_err(), "never delivered");
        let back = vec![got(), claim("c2", 3, 4, &[(1, "a")]), lost(claim("c1", 5, 6, &[]))];
        assert_eq!(and(back, again("c1", 7, 8, &[(1, "a")])), Ok(()), "perhaps taken back");
    }
}
