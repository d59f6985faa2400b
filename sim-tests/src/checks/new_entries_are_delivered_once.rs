//! A group delivers each entry as new to one call only. Others get it by claiming it.

use std::collections::BTreeMap;

use super::Evidence;
use crate::history::{Action, Outcome};

pub(super) fn check(evidence: &Evidence) -> Result<(), String> {
    let mut owners = BTreeMap::new();
    for call in &evidence.calls {
        let (Action::ReadGroup, Some((_, Outcome::Delivered(entries)))) = (&call.action, &call.answer) else {
            continue;
        };
        for entry in entries {
            if let Some((other, made)) = owners.insert(entry.id, (&call.client, call.made)) {
                return Err(format!(
                    "{} was new to {other} (call {made}) and again to {} (call {})",
                    entry.id, call.client, call.made
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
        let shared_out = vec![read("c1", 1, 3, &[(1, "a"), (2, "b")]), read("c2", 2, 4, &[(3, "c")])];
        assert_eq!(check(&calls(shared_out)), Ok(()));
        let claimed = vec![read("c1", 1, 2, &[(1, "a")]), claim("c2", 3, 4, &[(1, "a")])];
        assert_eq!(check(&calls(claimed)), Ok(()));
        let twice = vec![read("c1", 1, 3, &[(1, "a")]), read("c2", 2, 4, &[(1, "a")])];
        assert!(check(&calls(twice)).is_err());
    }
}
