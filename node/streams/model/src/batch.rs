//! Batches, which are our own: several commands and questions as one, all or nothing if so wished.

use std::collections::BTreeMap;

use millstream_streams::*;

use crate::state::{Model, Stream};
use crate::step::{Step, Stop, check, is_same_refusal};

impl Model {
    pub(crate) fn batch(&mut self, index: u64, command: &Batch, observed: Option<&Outcome>) -> Step<Batched> {
        let Batch { operations, guards, mode } = command;
        for (guard, number) in guards.iter().zip(0..) {
            let (stream, expected) = match guard {
                Guard::Unchanged { stream, last_change_index } => (stream, Some(*last_change_index)),
                Guard::Absent { stream } => (stream, None),
            };
            let last_change_index = self.streams.get(stream).map(|stream| stream.last_change_index);
            if last_change_index != expected {
                return Err(Refusal::GuardFailed { guard: number, last_change_index }.into());
            }
        }

        let observed_of = |at: usize| match observed {
            Some(Ok(Reply::Batched(batched))) => batched.results.get(at),
            _ => None,
        };
        let observed_refusal = match observed {
            Some(Err(refusal)) => Some(refusal),
            _ => None,
        };
        let before = self.streams.clone();
        let mut results = Vec::new();
        // An approximate trim whose extent is not known, for the core says nothing about it in a refused batch.
        let mut unsure_after = None;
        for (at, operation) in operations.iter().enumerate() {
            if observed_of(at).is_none() && trims_approximately(operation) {
                unsure_after.get_or_insert(at);
            }
            let was_full = self.shared.full;
            let outcome = self.run(index, operation, observed_of(at));
            self.corners.reach_if(self.shared.full, "batch: bounded in bytes");
            self.corners.reach_if(was_full && outcome.is_ok(), "batch: went on without room");
            match outcome {
                Ok(reply) => results.push(Ok(reply)),
                Err(Stop::Broken(problem)) => return Err(Stop::Broken(format!("operation {at}: {problem}"))),
                Err(Stop::Refused(refusals)) if *mode == BatchMode::AllOrNothing => {
                    self.corners.reach("batch: all-or-nothing, refused");
                    self.corners.reach_if(at > 0, "batch: all-or-nothing, refused and undone");
                    self.undo(before);
                    let number = at as u32;
                    let mut expected: Vec<_> = refusals
                        .into_iter()
                        .map(|refusal| Refusal::OperationRefused { operation: number, refusal: Box::new(refusal) })
                        .collect();
                    expected.extend(any_refusal_after(unsure_after, observed_refusal));
                    return Err(Stop::Refused(expected));
                }
                Err(Stop::Refused(refusals)) => {
                    self.corners.reach("batch: continued after a refusal");
                    let malformed = !check(operation).is_empty();
                    self.corners.reach_if(malformed, "batch: continued after a malformed operation");
                    let same = match observed_of(at) {
                        Some(Err(observed)) => refusals.iter().find(|refusal| is_same_refusal(refusal, observed)),
                        _ => None,
                    };
                    results.push(Err(same.unwrap_or(&refusals[0]).clone()));
                }
            }
        }
        if let Some(refusal) = any_refusal_after(unsure_after, observed_refusal)
            && *mode == BatchMode::AllOrNothing
        {
            self.undo(before);
            return Err(refusal.into());
        }
        self.corners.reach_if(!guards.is_empty(), "batch: guards held");
        Ok(Batched { results })
    }

    fn undo(&mut self, before: BTreeMap<StreamName, Stream>) {
        self.streams = before;
        self.changes.clear();
        self.payloads.clear();
    }
}

fn trims_approximately(command: &Command) -> bool {
    let policy = match command {
        Command::Append(Append { trim: Some(policy), .. }) | Command::Trim(Trim { policy, .. }) => policy,
        _ => return false,
    };
    policy.approximate && policy.references == References::Keep
}

/// What the core said, if that is the refusal of an operation behind one that the model is not sure of.
fn any_refusal_after(unsure_after: Option<usize>, observed: Option<&Refusal>) -> Option<Refusal> {
    match observed {
        Some(Refusal::OperationRefused { operation, .. }) if unsure_after? < *operation as usize => observed.cloned(),
        _ => None,
    }
}
