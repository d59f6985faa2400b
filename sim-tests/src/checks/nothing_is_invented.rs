//! The stream holds only what was appended, at most once each, also where the client never learnt the outcome; and a
//! delivered entry is the stream's, or was, if a consumer may have removed it.

use std::collections::{BTreeMap, BTreeSet};

use super::Evidence;
use crate::history::{Action, Outcome};

pub(super) fn check(evidence: &Evidence) -> Result<(), String> {
    let appended: BTreeSet<&[u8]> = evidence
        .calls
        .iter()
        .filter_map(|call| match &call.action {
            Action::Append { contents } => Some(contents),
            _ => None,
        })
        .flatten()
        .map(Vec::as_slice)
        .collect();
    let removable = evidence.removable();
    let mut seen = BTreeSet::new();
    let mut by_id = BTreeMap::new();
    for entry in &evidence.stream {
        if !appended.contains(entry.content.as_slice()) {
            return Err(format!("{} holds {}, which nobody appended", entry.id, entry.content.escape_ascii()));
        }
        if !seen.insert(&entry.content) {
            return Err(format!("{} is in the stream twice, again at {}", entry.content.escape_ascii(), entry.id));
        }
        by_id.insert(entry.id, &entry.content);
    }
    for call in &evidence.calls {
        let Some((_, Outcome::Delivered(entries))) = &call.answer else { continue };
        for entry in entries {
            match by_id.get(&entry.id) {
                Some(content) if **content == entry.content => {}
                Some(content) => {
                    let (delivered, stored) = (entry.content.escape_ascii(), content.escape_ascii());
                    return Err(format!("{} got {delivered} as {}, which is {stored}", call.client, entry.id));
                }
                // Whoever gets it next must get the same.
                None if removable.contains(&entry.id) && appended.contains(entry.content.as_slice()) => {
                    by_id.insert(entry.id, &entry.content);
                }
                None => return Err(format!("{} got {}, which is not in the stream", call.client, entry.id)),
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
        let evidence = |calls, entries: &[&str]| Evidence { calls, stream: stream(entries), ..Default::default() };
        let unknown = || append("p1", 1, "a", 2, Outcome::Unknown("lost".into()));
        assert_eq!(check(&evidence(vec![unknown()], &["a"])), Ok(()));
        assert_eq!(check(&evidence(vec![unknown()], &[])), Ok(()));
        assert_eq!(check(&evidence(vec![unanswered_append("p1", 1, "a")], &["a"])), Ok(()));
        assert_eq!(check(&evidence(vec![unknown(), read("c1", 3, 4, &[(1, "a")])], &["a"])), Ok(()));
        let removed = || vec![unknown(), read("c1", 3, 4, &[(1, "a")]), ack_and_delete("c1", 5, 6, &[1], 1)];
        assert_eq!(check(&evidence(removed(), &[])), Ok(()));
        let mut changed = removed();
        changed.push(append("p1", 7, "b", 8, appended(2)));
        changed.push(claim("c2", 9, 10, &[(1, "b")]));
        assert!(check(&evidence(changed, &["b"])).is_err(), "removed, and delivered with two contents");
        for (what, evidence) in [
            ("phantom", evidence(vec![], &["a"])),
            ("a retry that took effect twice", evidence(vec![unknown()], &["a", "a"])),
            ("delivered, not stored", evidence(vec![unknown(), read("c1", 3, 4, &[(1, "a")])], &[])),
            ("delivered with other content", evidence(vec![unknown(), read("c1", 3, 4, &[(1, "b")])], &["a"])),
        ] {
            assert!(check(&evidence).is_err(), "{what}");
        }
    }
}
