//! A refusal is in the terms of the error contract, and its reason fits what was asked for: nobody is told of a group
//! that is missing if nobody ever deletes it, nor of an id that is too small if the store was to choose it.

use std::collections::BTreeSet;

use super::{Evidence, Ledger};
use crate::history::{Action, Call, Outcome, Placed, Put};

pub(super) fn check(evidence: &Evidence, ledger: &Ledger<'_>) -> Result<(), String> {
    let closers = evidence.calls.iter().filter(|call| call.action == Action::CloseSessions);
    let closers: BTreeSet<&str> = closers.map(|call| call.client.as_str()).collect();
    for call in &evidence.calls {
        match call.outcome() {
            Some(Outcome::NothingChanged { reason, text }) if !fits(evidence, call, reason, ledger, &closers) => {
                let (client, made) = (&call.client, call.made);
                return Err(format!("{client} was refused with {reason:?} (call {made}, {:?}): {text}", call.action));
            }
            Some(Outcome::Appended(_)) => {
                for (put, placed) in call.placed() {
                    if let Some(Placed::Refused(reason)) = placed
                        && !(reason == "ID_NOT_GREATER" && put.id.is_some())
                    {
                        return Err(format!("{} had {put:?} refused with {reason:?}", call.client));
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn fits(evidence: &Evidence, call: &Call, reason: &str, ledger: &Ledger<'_>, closers: &BTreeSet<&str>) -> bool {
    let has_id = |put: &Put| put.id.is_some();
    // Who deletes and creates groups may have come to ask for one before it, or ever, was created; those that are drained at
    // the end were there all along.
    let may_lack = |action: &Action| {
        action.group().is_some_and(|group| ledger.restless.contains(group) || !evidence.end.groups.contains_key(group))
    };
    match reason {
        // No node was reached, or none could serve the call just then.
        "" | "NOT_LEADER" | "NO_LEADER" | "OVERLOADED" | "NOT_READY" | "COMMIT_UNKNOWN" | "NODE_STOPPED" => true,
        "DISK_FULL" => !call.action.is_question(),
        "ID_NOT_GREATER" => call.action.puts().iter().any(has_id),
        "GUARD_FAILED" => matches!(call.action, Action::Batch { guard: Some(_), .. }),
        "GROUP_EXISTS" => matches!(call.action, Action::CreateGroup { .. }),
        "GROUP_NOT_FOUND" => may_lack(&call.action),
        "STREAM_NOT_FOUND" => match &call.action {
            Action::Batch { is_refused, .. } => *is_refused,
            // Nobody may have appended to it yet.
            Action::Describe { .. } => true,
            action => may_lack(action),
        },
        "SESSION_NOT_FOUND" | "SEQUENCE_OUT_OF_WINDOW" => closers.contains(&*call.client),
        _ => false,
    }
}

/// How often each reason of the contract was given, parts of batches included; the empty name: none.
pub(super) fn count(calls: &[Call]) -> std::collections::BTreeMap<String, u64> {
    let mut reasons = std::collections::BTreeMap::new();
    let mut add = |reason: &String| *reasons.entry(reason.clone()).or_default() += 1;
    for call in calls {
        match call.outcome() {
            Some(Outcome::NothingChanged { reason, .. }) => add(reason),
            Some(Outcome::Appended(placed)) => placed.iter().for_each(|placed| {
                if let Placed::Refused(reason) = placed {
                    add(reason);
                }
            }),
            _ => {}
        }
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    fn check(calls: Vec<Call>) -> Result<(), String> {
        let evidence = only(calls);
        super::check(&evidence, &Ledger::new(&evidence))
    }

    #[test]
    fn cases() {
        let refused = |reason| append("p", 1, "a", 2, nothing(reason));
        let with_id = |reason| {
            let put = Put { id: Some(id(1)), ..put("a") };
            call("p", 1, Action::Append(put), 2, nothing(reason))
        };
        let acked = |reason| call("c", 1, ack("c", 1, 2, &[1], 0).action, 2, nothing(reason));
        assert_eq!(check(vec![refused("NO_LEADER"), refused(""), with_id("ID_NOT_GREATER")]), Ok(()));
        for call in [
            refused("ID_NOT_GREATER"),
            refused("SEQUENCE_REUSED"),
            refused("SESSION_NOT_FOUND"),
            refused("UNSPECIFIED"),
            acked("GROUP_NOT_FOUND"),
        ] {
            assert!(check(vec![call.clone()]).is_err(), "{call:?}");
        }
        let deleted = call("x", 1, Action::DeleteGroup { group: group() }, 2, Outcome::Done(true));
        assert_eq!(check(vec![deleted, acked("GROUP_NOT_FOUND")]), Ok(()));
        // Nobody ever created it (seed 2538).
        let nobodys = Action::ListPending { group: ("s".into(), "nobody's".into()), count: 1 };
        assert_eq!(check(vec![call("x", 1, nobodys, 2, nothing("GROUP_NOT_FOUND"))]), Ok(()));
        let counted = count(&[refused("NO_LEADER"), refused("NO_LEADER"), refused("")]);
        assert_eq!(counted, [("NO_LEADER".to_owned(), 2), (String::new(), 1)].into());
    }
}
