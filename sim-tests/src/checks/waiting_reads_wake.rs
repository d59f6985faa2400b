//! While nothing is broken, a read that waits is woken by an append: it does not come back empty if an entry that it
//! waits for was acknowledged well before its end.

use std::collections::BTreeMap;

use super::{Evidence, Ledger};
use crate::history::{Action, After, Id, Outcome};

/// Within this, an append that was acknowledged reaches those who wait, wherever they are.
const WAKE_MS: u64 = 1_000;

pub(super) fn check(evidence: &Evidence, ledger: &Ledger<'_>) -> Result<(), String> {
    // Acknowledgements of entries by stream, in the order of time.
    let mut appends: BTreeMap<&str, Vec<(u64, u64, Id)>> = BTreeMap::new();
    for call in &evidence.calls {
        let Some(answer) = &call.answer else { continue };
        for (put, placed) in call.placed() {
            if let Some(id) = placed.and_then(|placed| placed.id()) {
                appends.entry(&put.stream).or_default().push((answer.ms, call.made, id));
            }
        }
    }
    appends.values_mut().for_each(|appends| appends.sort_unstable());
    for call in &evidence.calls {
        // Readers of a group share the entries, so that one of them may well come back empty.
        let Action::Read { stream, after, wait_ms: 1.., .. } = &call.action else { continue };
        let Some(answer) = &call.answer else { continue };
        let is_calm = |(from, to): &(u64, u64)| *from <= call.made_ms && answer.ms <= *to;
        let is_empty = matches!(&answer.outcome, Outcome::Read { entries, .. } if entries.is_empty());
        if !is_empty || !evidence.calm.iter().any(is_calm) {
            continue;
        }
        let Some(appends) = appends.get(stream.as_str()) else { continue };
        let late = appends.partition_point(|(ms, ..)| *ms < call.made_ms);
        let in_time = |(ms, ..): &&(u64, u64, Id)| *ms + WAKE_MS < answer.ms;
        let missed = appends.get(late..).unwrap_or_default().iter().take_while(in_time).find(|(ms, made, id)| {
            let is_awaited = match after {
                After::Id(after) => *after < *id,
                // Only what was called well after the read had arrived.
                After::Arrival => call.made < *made && call.made_ms + WAKE_MS < *ms,
            };
            is_awaited && ledger.stream(stream).is_some_and(|stream| !stream.may_be_gone(*id, answer.moment))
        });
        if let Some((ms, _, id)) = missed {
            let client = &call.client;
            return Err(format!(
                "{client} waited for {stream} from {} to {} ms (call {}) and got nothing; {id} was known at {ms} ms",
                call.made_ms, answer.ms, call.made
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::history::{Call, Keep};

    fn check(calls: Vec<Call>, calm: &[(u64, u64)]) -> Result<(), String> {
        let mut evidence = only(calls);
        evidence.calm = calm.to_vec();
        super::check(&evidence, &super::Ledger::new(&evidence))
    }

    #[test]
    fn cases() {
        let calm = [(0, 10_000)];
        let waited = |entries: &[(u64, &str)]| wait("r", 1_000, 5_000, entries);
        let appended = |answered| append("p", 2_100, "a", answered, appended(1));
        assert_eq!(check(vec![waited(&[(1, "a")]), appended(2_200)], &calm), Ok(()));
        assert!(check(vec![waited(&[]), appended(2_200)], &calm).is_err(), "slept through");
        assert_eq!(check(vec![waited(&[]), appended(4_500)], &calm), Ok(()), "just before the end");
        assert_eq!(check(vec![waited(&[]), appended(2_200)], &[(0, 4_000)]), Ok(()), "something was broken");
        assert_eq!(check(vec![waited(&[])], &calm), Ok(()));
        let removed = vec![waited(&[]), appended(2_200), trim("t", 2_300, 2_400, Keep::Newest(0))];
        assert_eq!(check(removed, &calm), Ok(()), "trimmed at once");
    }
}
