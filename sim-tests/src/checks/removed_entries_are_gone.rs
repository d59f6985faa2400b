//! What a consumer has removed is not in the stream at the end. Only where every id of the call counted is it known which
//! ones were removed by it.

use std::collections::BTreeSet;

use super::Evidence;
use crate::history::{Action, Outcome};

pub(super) fn check(evidence: &Evidence) -> Result<(), String> {
    let stored: BTreeSet<_> = evidence.stream.iter().map(|entry| entry.id).collect();
    for call in &evidence.calls {
        let (Action::AckAndDelete { ids }, Some((_, Outcome::Acknowledged(count)))) = (&call.action, &call.answer)
        else {
            continue;
        };
        if *count == ids.len() as u64
            && let Some(id) = ids.iter().find(|id| stored.contains(id))
        {
            return Err(format!("{} removed {id} (call {}), and it is in the stream", call.client, call.made));
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
        let evidence = |count, entries: &[&str]| Evidence {
            calls: vec![ack_and_delete("c1", 1, 2, &[1], count)],
            stream: stream(entries),
            ..Default::default()
        };
        assert_eq!(check(&evidence(1, &[])), Ok(()));
        assert_eq!(check(&evidence(0, &["a"])), Ok(()));
        assert!(check(&evidence(1, &["a"])).is_err());
    }
}
