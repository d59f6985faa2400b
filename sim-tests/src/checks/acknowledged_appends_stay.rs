//! Every acknowledged append is in the stream exactly once, under the id and with the content that were acknowledged;
//! or not at all, if a consumer may have removed it.

use std::collections::BTreeMap;

use super::Evidence;
use crate::history::{Action, Outcome};

pub(super) fn check(evidence: &Evidence) -> Result<(), String> {
    let mut places: BTreeMap<&[u8], Vec<_>> = BTreeMap::new();
    for entry in &evidence.stream {
        places.entry(&entry.content).or_default().push(entry.id);
    }
    let removable = evidence.removable();
    for call in &evidence.calls {
        let (Action::Append { contents }, Some((_, Outcome::Appended(ids)))) = (&call.action, &call.answer) else {
            continue;
        };
        if contents.len() != ids.len() {
            return Err(format!("{} appended {} entries and was told of {ids:?}", call.client, contents.len()));
        }
        for (content, id) in contents.iter().zip(ids) {
            let found = places.get(content.as_slice()).map_or(&[][..], Vec::as_slice);
            let is_removed = found.is_empty() && removable.contains(id);
            if found != [*id] && !is_removed {
                return Err(format!(
                    "{} was told that {} is at {id}; the stream has it at {found:?}",
                    call.client,
                    content.escape_ascii()
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
        let calls = || vec![append("p1", 1, "a", 2, appended(1)), append("p1", 3, "b", 4, appended(2))];
        let good = Evidence { calls: calls(), stream: stream(&["a", "b"]), ..Default::default() };
        assert_eq!(check(&good), Ok(()));
        let mut removed = calls();
        removed.push(ack_and_delete("c1", 5, 6, &[2], 1));
        assert_eq!(check(&Evidence { calls: removed, stream: stream(&["a"]), ..Default::default() }), Ok(()));
        for (what, stream) in [
            ("lost", stream(&["a"])),
            ("twice", stream(&["a", "b", "b"])),
            ("moved", stream(&["a", "c", "b"])),
            ("changed", stream(&["a", "B"])),
        ] {
            assert!(check(&Evidence { calls: calls(), stream, ..Default::default() }).is_err(), "{what}");
        }
    }
}
