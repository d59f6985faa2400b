//! An error that promises that nothing has changed keeps that promise.

use std::collections::BTreeSet;

use super::Evidence;
use crate::history::{Action, Outcome};

pub(super) fn check(evidence: &Evidence) -> Result<(), String> {
    let stored: BTreeSet<&[u8]> = evidence.stream.iter().map(|entry| entry.content.as_slice()).collect();
    for call in &evidence.calls {
        let (Action::Append { contents }, Some((_, Outcome::NothingChanged(error)))) = (&call.action, &call.answer)
        else {
            continue;
        };
        if let Some(content) = contents.iter().find(|content| stored.contains(content.as_slice())) {
            return Err(format!(
                "{} was told that nothing has changed ({error}), but {} is in the stream",
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
        let failed = || vec![append("p1", 1, "a", 2, Outcome::NothingChanged("no leader".into()))];
        assert_eq!(check(&Evidence { calls: failed(), ..Default::default() }), Ok(()));
        assert!(check(&Evidence { calls: failed(), stream: stream(&["a"]), ..Default::default() }).is_err());
        let unknown = vec![append("p1", 1, "a", 2, Outcome::Unknown("lost".into()))];
        assert_eq!(check(&Evidence { calls: unknown, stream: stream(&["a"]), ..Default::default() }), Ok(()));
    }
}
