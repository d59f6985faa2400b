//! What the clients did and saw: the only evidence the checkers accept.
//!
//! Every call has two moments, numbered by one counter: when it was made and when its answer came. A call without an
//! answer, or with one that leaves its outcome open, may have happened at any moment since it was made.

mod action;
mod line;
mod outcome;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

pub use action::{Action, After, Fresh, GroupName, Guard, Keep, Mode, Put, Trim};
pub use outcome::{Outcome, Pending, Placed, Removed};

use crate::trace::Trace;
use line::Short;

/// The id of an entry, as a client saw it. Not the core's type: checkers share no code with what they check.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Id {
    /// Milliseconds.
    pub ms: u64,
    /// Tells apart entries of one millisecond.
    pub seq: u64,
}

impl Id {
    /// Smaller than any entry's.
    pub const MIN: Id = Id { ms: 0, seq: 0 };
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An entry as a client saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub id: Id,
    /// Its content. Each entry of a simulation has another.
    pub content: Vec<u8>,
}

/// What a client was told, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// When, by the history's counter.
    pub moment: u64,
    /// When, in simulated milliseconds since the start.
    pub ms: u64,
    /// Of a change: its place in the log, or that of a repeat which was told the same. Of a question: how far the node
    /// had applied the log when it answered, which may be further than where the question was. `None`: the answer does
    /// not say.
    pub index: Option<u64>,
    /// What came of it.
    pub outcome: Outcome,
}

/// One call of one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Who called. One client makes one call at a time, except that it may have left the one before.
    pub client: String,
    /// When, by the history's counter.
    pub made: u64,
    /// When, in simulated milliseconds since the start.
    pub made_ms: u64,
    /// What for.
    pub action: Action,
    /// What came back. `None`: nothing.
    pub answer: Option<Answer>,
}

impl Call {
    /// What came of it; `None`: no answer.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.answer.as_ref().map(|answer| &answer.outcome)
    }

    /// The moment by which it must have taken effect if it has any: that of its answer, if that says what came of it.
    pub fn settled(&self) -> Option<u64> {
        self.answer.as_ref().filter(|answer| !matches!(answer.outcome, Outcome::Unknown(_))).map(|answer| answer.moment)
    }

    /// It may have had an effect: nobody has promised that it had none.
    pub fn may_have_happened(&self) -> bool {
        self.outcome().is_none_or(|outcome| !outcome.is_nothing())
    }

    /// Each entry that it appends, with what became of it if that is known.
    pub fn placed(&self) -> impl Iterator<Item = (&Put, Option<&Placed>)> {
        let placed = match self.outcome() {
            Some(Outcome::Appended(placed)) => &placed[..],
            _ => &[],
        };
        self.action.puts().iter().enumerate().map(|(place, put)| (put, placed.get(place)))
    }
}

/// The calls of a simulation, in the order they were made. Cheap to clone.
#[derive(Clone)]
pub struct History {
    records: Arc<Mutex<Records>>,
    trace: Trace,
}

/// How many calls ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    /// Calls that were made.
    pub calls: u64,
    /// Entries whose append was acknowledged.
    pub appended: u64,
    /// Entries read without a group.
    pub read: u64,
    /// Entries delivered as new.
    pub delivered: u64,
    /// Entries taken over.
    pub claimed: u64,
    /// Entries acknowledged.
    pub acknowledged: u64,
    /// Entries given back.
    pub released: u64,
    /// Entries deleted or trimmed.
    pub removed: u64,
    /// Calls that ended with a promise that nothing has changed.
    pub nothing_changed: u64,
    /// Calls whose outcome stayed open.
    pub unknown: u64,
}

#[derive(Default)]
struct Records {
    counter: u64,
    calls: Vec<Call>,
    tally: Tally,
    reasons: BTreeMap<String, u64>,
}

/// Names a call whose answer is outstanding.
#[derive(Debug)]
pub struct Outstanding(usize);

impl History {
    /// An empty history, whose events are also traced.
    pub fn new(trace: Trace) -> Self {
        Self { records: Arc::default(), trace }
    }

    /// A call is being made.
    pub fn made(&self, client: &str, action: Action) -> Outstanding {
        let made_ms = self.trace.elapsed().as_millis() as u64;
        let mut records = self.lock();
        records.counter += 1;
        records.tally.calls += 1;
        let made = records.counter;
        self.trace.line("client", format_args!("{client} {made} calls {}", Short(&action)));
        records.calls.push(Call { client: client.to_owned(), made, made_ms, action, answer: None });
        Outstanding(records.calls.len() - 1)
    }

    /// Its answer has come, with the log index that it names, if it names one.
    pub fn answered(&self, Outstanding(call): Outstanding, index: Option<u64>, outcome: Outcome) {
        let ms = self.trace.elapsed().as_millis() as u64;
        let mut records = self.lock();
        records.counter += 1;
        let moment = records.counter;
        let Records { calls, tally, reasons, .. } = &mut *records;
        let Some(call) = calls.get_mut(call) else { return };
        tally.count(&call.action, &outcome);
        if let Outcome::NothingChanged { reason, .. } = &outcome {
            *reasons.entry(reason.clone()).or_default() += 1;
        }
        let at = format!("{} {} returns", call.client, call.made);
        match index {
            Some(index) => self.trace.line("client", format_args!("{at} at {index}: {}", Short(&outcome))),
            None => self.trace.line("client", format_args!("{at}: {}", Short(&outcome))),
        }
        call.answer = Some(Answer { moment, ms, index, outcome });
    }

    /// All calls so far.
    pub fn calls(&self) -> Vec<Call> {
        self.lock().calls.clone()
    }

    /// How many calls ended how, so far.
    pub fn tally(&self) -> Tally {
        self.lock().tally
    }

    /// How many calls were refused with which reason of the error contract, so far. The empty name: with none.
    pub fn reasons(&self) -> BTreeMap<String, u64> {
        self.lock().reasons.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tally {
    fn count(&mut self, action: &Action, outcome: &Outcome) {
        let is_claim = matches!(action, Action::Claim { .. } | Action::AutoClaim { .. });
        self.acknowledged += match action {
            Action::AckAndDelete { .. } => outcome.acknowledged().unwrap_or_default(),
            _ => 0,
        };
        match outcome {
            Outcome::Appended(placed) => {
                self.appended += placed.iter().filter(|placed| placed.id().is_some()).count() as u64;
            }
            Outcome::Read { entries, .. } => self.read += entries.len() as u64,
            Outcome::Delivered { entries, .. } if is_claim => self.claimed += entries.len() as u64,
            Outcome::Delivered { entries, .. } if matches!(action, Action::ReadGroup { .. }) => {
                self.delivered += entries.len() as u64;
            }
            Outcome::Acknowledged(count) => self.acknowledged += count,
            Outcome::Released(count) => self.released += count,
            Outcome::Trimmed(count) => self.removed += count,
            Outcome::Removed(removed) => {
                self.removed += removed.iter().filter(|removed| **removed == Removed::Deleted).count() as u64;
            }
            Outcome::NothingChanged { .. } => self.nothing_changed += 1,
            Outcome::Unknown(_) => self.unknown += 1,
            _ => {}
        }
    }
}
