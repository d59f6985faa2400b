//! Every acknowledged append is in the stream exactly once, under the id and with the content that were acknowledged.

use std::collections::BTreeMap;

use super::Evidence;
use crate::history::{Action, Outcome};

pub(super) fn check(evidence: &Evidence) -> Result<(), String> {
    let mut places: BTreeMap<&[u8], Vec<_>> = BTreeMap::new();
    for entry in &evidence.stream {
        places.entry(&entry.content).or_default().push(entry.id);
    }
    for call in &evidence.calls {
        let (Action::Append { content }, Some((_, Outcome::Appended(id)))) = (&call.action, &call.answer) else {
            continue;
        };
        let found = places.get(content.as_slice()).map_or(&[][..], Vec::as_slice);
        if found != [*id] {
            return Err(format!(
                "{} was told that {} is at {id}; the stream has it at {found:?}",
                call.client,
                content.escape_ascii()
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
        let calls = || vec![append("p1", 1, "a", 2, appended(1)), append("p1", 3, "b", 4, appended(2))];
        let good = Evidence { calls: calls(), stream: stream(&["a", "b"]), ..Default::default() };
        assert_eq!(check(&good), Ok(()));
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
