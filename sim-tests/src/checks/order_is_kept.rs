//! An append that was acknowledged before another was made has the smaller id, whoever made them: a producer's entries
//! stand in its own order, and so do those of different producers as far as anyone could tell. Entries appended
//! together stand in the order of the call.

use std::collections::BTreeMap;

use super::{Evidence, Ledger};
use crate::history::Id;

enum Moment<'a> {
    Made { client: &'a str, id: Id },
    Acknowledged { client: &'a str, id: Id },
}

pub(super) fn check(evidence: &Evidence, _: &Ledger<'_>) -> Result<(), String> {
    let mut streams: BTreeMap<&str, Vec<(u64, Moment<'_>)>> = BTreeMap::new();
    for call in &evidence.calls {
        let client = &*call.client;
        let mut before: BTreeMap<&str, Id> = BTreeMap::new();
        for (put, placed) in call.placed() {
            let (Some(id), Some(answered)) = (placed.and_then(|placed| placed.id()), call.settled()) else { continue };
            if before.insert(&put.stream, id).is_some_and(|before| id <= before) {
                return Err(format!("{client} appended {id} after {before:?} in one call ({})", call.made));
            }
            let moments = streams.entry(&put.stream).or_default();
            moments.push((call.made, Moment::Made { client, id }));
            moments.push((answered, Moment::Acknowledged { client, id }));
        }
    }
    for (stream, mut moments) in streams {
        // A sweep over all moments: at each call, the greatest id acknowledged by then.
        moments.sort_by_key(|(moment, _)| *moment);
        let mut greatest: Option<(Id, &str)> = None;
        for (_, moment) in moments {
            match moment {
                Moment::Made { client, id } => {
                    if let Some((before, other)) = greatest
                        && id <= before
                    {
                        return Err(format!("{client} appended {id} to {stream} after {other} was told of {before}"));
                    }
                }
                Moment::Acknowledged { client, id } => {
                    if greatest.is_none_or(|(before, _)| before < id) {
                        greatest = Some((id, client));
                    }
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;

    fn check(calls: Vec<crate::history::Call>) -> Result<(), String> {
        let evidence = only(calls);
        super::check(&evidence, &super::Ledger::new(&evidence))
    }

    #[test]
    fn cases() {
        let in_order = vec![append("p1", 1, "a", 2, appended(1)), append("p2", 3, "b", 4, appended(2))];
        assert_eq!(check(in_order), Ok(()));
        let concurrent = vec![append("p1", 1, "a", 4, appended(2)), append("p2", 2, "b", 3, appended(1))];
        assert_eq!(check(concurrent), Ok(()));
        let backwards = vec![append("p1", 1, "a", 2, appended(2)), append("p2", 3, "b", 4, appended(1))];
        assert!(check(backwards).is_err());
        let same = vec![append("p1", 1, "a", 2, appended(2)), append("p1", 3, "b", 4, appended(2))];
        assert!(check(same).is_err());
        assert_eq!(check(vec![append_all("p1", 1, &["a", "b"], 2, appended_all(&[1, 2]))]), Ok(()));
        assert!(check(vec![append_all("p1", 1, &["a", "b"], 2, appended_all(&[2, 1]))]).is_err());
    }
}
