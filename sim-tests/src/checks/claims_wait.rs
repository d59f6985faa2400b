//! Nobody takes over an entry before it has lain idle for as long as the claim says (C4), by the cluster's clock, which
//! may differ from the simulation's as far as the nodes' clocks do.

use super::groups::{Book, Kind};
use super::{Evidence, Ledger};
use crate::history::Action;

pub(super) fn check(evidence: &Evidence, ledger: &Ledger<'_>) -> Result<(), String> {
    let Some(skew_ms) = evidence.clock_skew_ms else { return Ok(()) };
    for (group, book) in Book::all(evidence, ledger) {
        for (id, events) in &book.entries {
            for claim in events.iter().filter(|event| event.kind == Kind::Claimed && event.is_certain) {
                let (Action::Claim { idle_min_ms, .. } | Action::AutoClaim { idle_min_ms, .. }) = &claim.call.action
                else {
                    continue;
                };
                let Some(answer) = &claim.call.answer else { continue };
                // Given back, it is anybody's at once.
                if events.iter().any(|event| event.kind == Kind::Released && event.call.made < answer.moment) {
                    continue;
                }
                let before = events.iter().filter(|event| event.kind.is_delivery() && event.by() < claim.call.made);
                let Some(last) = before.max_by_key(|event| event.call.made) else { continue };
                let idle_ms = answer.ms.saturating_sub(last.call.made_ms);
                if idle_ms + skew_ms < *idle_min_ms {
                    let client = &claim.call.client;
                    return Err(format!(
                        "{client} took over {id} of {group:?} (call {}) at most {idle_ms} ms after call {} of {}, and \
                         had asked for {idle_min_ms}",
                        claim.call.made,
                        last.call.made,
                        last.consumer(),
                    ));
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::history::{Action, Call};

    fn check(calls: Vec<Call>, skew_ms: Option<u64>) -> Result<(), String> {
        let mut evidence = only(calls);
        evidence.clock_skew_ms = skew_ms;
        super::check(&evidence, &super::Ledger::new(&evidence))
    }

    #[test]
    fn cases() {
        let claim = |made| {
            let action = Action::AutoClaim { group: group(), consumer: "c2".into(), idle_min_ms: 100, count: 10 };
            call("c2", made, action, made + 5, delivered(&[(1, "a")]))
        };
        let got = || read("c1", 1, 2, &[(1, "a")]);
        assert_eq!(check(vec![got(), claim(100)], Some(0)), Ok(()));
        assert!(check(vec![got(), claim(50)], Some(0)).is_err(), "too early");
        assert_eq!(check(vec![got(), claim(50)], Some(100)), Ok(()), "by another clock");
        assert_eq!(check(vec![got(), claim(50)], None), Ok(()), "clocks are anyhow");
        assert_eq!(check(vec![got(), nack("c1", 3, 4, &[1]), claim(50)], Some(0)), Ok(()), "given back");
        assert!(check(vec![got(), claim(150), claim(200)], Some(0)).is_err(), "the first claim counts as well");
        assert_eq!(check(vec![unanswered(got()), claim(50)], Some(0)), Ok(()), "when it was delivered is not known");
    }
}
