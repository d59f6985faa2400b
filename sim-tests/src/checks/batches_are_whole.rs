//! What was appended by one call stands in the stream as a whole and side by side, or not at all, also where the client
//! never learnt the outcome.

use std::collections::{BTreeMap, BTreeSet};

use super::Evidence;
use crate::history::{Action, Outcome};

pub(super) fn check(evidence: &Evidence) -> Result<(), String> {
    // Whoever removed an entry had got it before.
    let removable = evidence.removable();
    let delivered = evidence.calls.iter().filter_map(|call| match &call.answer {
        Some((_, Outcome::Delivered(entries))) => Some(entries),
        _ => None,
    });
    let removed: BTreeSet<&[u8]> = delivered
        .flatten()
        .filter(|entry| removable.contains(&entry.id))
        .map(|entry| entry.content.as_slice())
        .collect();
    let places: BTreeMap<&[u8], usize> =
        evidence.stream.iter().enumerate().map(|(place, entry)| (entry.content.as_slice(), place)).collect();
    for call in &evidence.calls {
        let Action::Append { contents } = &call.action else { continue };
        let found: Vec<_> = contents.iter().map(|content| places.get(content.as_slice()).copied()).collect();
        let is_there =
            found.iter().any(Option::is_some) || contents.iter().any(|content| removed.contains(&content[..]));
        let missing = contents
            .iter()
            .zip(&found)
            .find(|(content, place)| place.is_none() && !removed.contains(content.as_slice()));
        if is_there && let Some((content, _)) = missing {
            let (client, made) = (&call.client, call.made);
            return Err(format!("of call {made} by {client} {} is missing: {found:?}", content.escape_ascii()));
        }
        let between = found.windows(2).filter_map(|pair| Some((pair[0]?, pair[1]?)));
        if let Some((before, after)) = between.into_iter().find(|(before, after)| *after != before + 1) {
            return Err(format!(
                "of call {} by {} one is at place {before} and the next at {after}",
                call.made, call.client
            ));
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
        let both = || append_all("p1", 1, &["a", "b"], 2, Outcome::Unknown("lost".into()));
        let evidence =
            |entries: &[&str]| Evidence { calls: vec![both()], stream: stream(entries), ..Default::default() };
        for whole in [&["a", "b", "c"][..], &["c"], &[]] {
            assert_eq!(check(&evidence(whole)), Ok(()));
        }
        for broken in [&["a"][..], &["b"], &["a", "c", "b"], &["b", "a"]] {
            assert!(check(&evidence(broken)).is_err(), "{broken:?}");
        }
        let got = || read("c1", 3, 4, &[(1, "a")]);
        let removed = |stream| Evidence {
            calls: vec![both(), got(), ack_and_delete("c1", 5, 6, &[1], 1)],
            stream,
            ..Default::default()
        };
        assert_eq!(check(&removed(vec![entry(2, "b")])), Ok(()));
        assert!(check(&removed(vec![])).is_err(), "the other half was never there");
    }
}
