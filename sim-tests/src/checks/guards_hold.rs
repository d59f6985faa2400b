//! What was appended on condition that a stream is unchanged follows directly on what the stream held then.

use super::ledger::next;
use super::{Evidence, Ledger};
use crate::history::Action;

pub(super) fn check(evidence: &Evidence, ledger: &Ledger<'_>) -> Result<(), String> {
    for call in &evidence.calls {
        let Action::Batch { puts, guard: Some(guard), .. } = &call.action else { continue };
        let Some(stream) = ledger.stream(&guard.stream) else { continue };
        // Also where the outcome is unknown.
        let puts = puts.iter().filter(|put| put.stream == guard.stream);
        let places = puts.filter_map(|put| ledger.written.get(put.content.as_slice())?.place);
        let Some(first) = places.min() else { continue };
        if first <= guard.last_id {
            return Err(format!("{} made {first} after {} (call {})", call.client, guard.last_id, call.made));
        }
        if let Some((between, _)) = stream.entries.range(next(guard.last_id)..first).next() {
            let (client, last) = (&call.client, guard.last_id);
            return Err(format!(
                "{client} appended {first} if {last} was the last (call {}), and {between} was",
                call.made
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::history::{Action, Call, Guard, Mode, Outcome};

    fn check(calls: Vec<Call>, contents: &[&str]) -> Result<(), String> {
        let evidence = evidence(calls, stream(contents));
        super::check(&evidence, &super::Ledger::new(&evidence))
    }

    fn guarded(last_id: u64, outcome: Outcome) -> Call {
        let guard = Some(Guard { stream: S.into(), last_change: Some(7), last_id: id(last_id) });
        let action = Action::Batch { puts: vec![put("z")], mode: Mode::AllOrNothing, guard, is_refused: false };
        call("g", 5, action, 6, outcome)
    }

    #[test]
    fn cases() {
        let others = || vec![append("p", 1, "a", 2, appended(1)), append("p", 3, "b", 8, unknown())];
        let and = |call, contents: &[&str]| check(others().into_iter().chain([call]).collect(), contents);
        assert_eq!(and(guarded(1, appended(2)), &["a", "z", "b"]), Ok(()));
        assert_eq!(and(guarded(1, nothing("GUARD_FAILED")), &["a", "b"]), Ok(()));
        assert!(and(guarded(1, appended(3)), &["a", "b", "z"]).is_err(), "b came in between");
        assert!(and(guarded(1, unknown()), &["a", "b", "z"]).is_err(), "unknown, and b came in between");
        assert!(and(guarded(2, appended(2)), &["a", "z"]).is_err(), "it overwrote");
    }
}
