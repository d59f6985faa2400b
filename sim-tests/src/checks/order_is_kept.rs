//! Ids rise strictly along the stream, and an append that was acknowledged before another was made has the smaller id,
//! whoever made them: a producer's entries stand in its own order, and so do those of different producers as far as
//! anyone could tell.

use super::Evidence;
use crate::history::{Action, Id, Outcome};

pub(super) fn check(evidence: &Evidence) -> Result<(), String> {
    for pair in evidence.stream.windows(2) {
        if pair[1].id <= pair[0].id {
            return Err(format!("{} follows {} in the stream", pair[1].id, pair[0].id));
        }
    }

    // A sweep over all moments: at each call, the greatest id acknowledged by then.
    enum Moment<'a> {
        Made { client: &'a str, id: Id },
        Acknowledged { client: &'a str, id: Id },
    }
    let mut moments = Vec::new();
    for call in &evidence.calls {
        let (Action::Append { .. }, Some((answered, Outcome::Appended(ids)))) = (&call.action, &call.answer) else {
            continue;
        };
        if ids.windows(2).any(|pair| pair[1] <= pair[0]) {
            return Err(format!("{} appended {ids:?} in this order", call.client));
        }
        for id in ids {
            moments.push((call.made, Moment::Made { client: &call.client, id: *id }));
            moments.push((*answered, Moment::Acknowledged { client: &call.client, id: *id }));
        }
    }
    moments.sort_by_key(|(moment, _)| *moment);
    let mut greatest: Option<(Id, &str)> = None;
    for (_, moment) in moments {
        match moment {
            Moment::Made { client, id } => {
                if let Some((before, other)) = greatest
                    && id <= before
                {
                    return Err(format!("{client} appended {id} after {other} was told of {before}"));
                }
            }
            Moment::Acknowledged { client, id } => {
                if greatest.is_none_or(|(before, _)| before < id) {
                    greatest = Some((id, client));
                }
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
        let in_order = vec![append("p1", 1, "a", 2, appended(1)), append("p2", 3, "b", 4, appended(2))];
        assert_eq!(check(&calls(in_order)), Ok(()));
        let concurrent = vec![append("p1", 1, "a", 4, appended(2)), append("p2", 2, "b", 3, appended(1))];
        assert_eq!(check(&calls(concurrent)), Ok(()));
        let backwards = vec![append("p1", 1, "a", 2, appended(2)), append("p2", 3, "b", 4, appended(1))];
        assert!(check(&calls(backwards)).is_err());
        let same = vec![append("p1", 1, "a", 2, appended(2)), append("p1", 3, "b", 4, appended(2))];
        assert!(check(&calls(same)).is_err());

        let turned = vec![append_all("p1", 1, &["a", "b"], 2, Outcome::Appended(vec![id(2), id(1)]))];
        assert!(check(&calls(turned)).is_err());
        let mut disordered = stream(&["a", "b"]);
        disordered.swap(0, 1);
        assert!(check(&Evidence { stream: disordered, ..Default::default() }).is_err());
        let repeated = vec![entry(1, "a"), entry(1, "b")];
        assert!(check(&Evidence { stream: repeated, ..Default::default() }).is_err());
    }
}
