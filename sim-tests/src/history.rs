//! What the clients did and saw: the only evidence the checkers accept.
//!
//! Every call has two moments, numbered by one counter: when it was made and when its answer came. A call without an
//! answer, or with one that leaves its outcome open, may have happened at any moment since it was made.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::trace::{Trace, fingerprint};

/// The id of an entry, as a client saw it. Not the core's type: checkers share no code with what they check.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// Milliseconds.
    pub ms: u64,
    /// Tells apart entries of one millisecond.
    pub seq: u64,
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
    /// Its content. Each append of a simulation writes another.
    pub content: Vec<u8>,
}

/// What a client asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Append entries with these contents: all or none, one after the other.
    Append {
        /// At least one, each unique in the simulation.
        contents: Vec<Vec<u8>>,
    },
    /// Deliver new entries of the group to this client.
    ReadGroup,
    /// Take over entries that others left pending.
    AutoClaim,
    /// Acknowledge entries.
    Ack {
        /// Which.
        ids: Vec<Id>,
    },
    /// Acknowledge entries and remove them from the stream.
    AckAndDelete {
        /// Which.
        ids: Vec<Id>,
    },
    /// Give entries back, for others to take over.
    Nack {
        /// Which.
        ids: Vec<Id>,
    },
}

impl Action {
    /// The entries that it acknowledges.
    pub fn acknowledges(&self) -> &[Id] {
        match self {
            Action::Ack { ids } | Action::AckAndDelete { ids } => ids,
            _ => &[],
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The entries have these ids.
    Appended(Vec<Id>),
    /// These entries are the client's now.
    Delivered(Vec<Entry>),
    /// So many of the entries were pending and no longer are.
    Acknowledged(u64),
    /// So many of the entries were pending and now belong to nobody.
    Released(u64),
    /// An error that promises that nothing has changed.
    NothingChanged(String),
    /// An error that leaves it open.
    Unknown(String),
}

/// One call of one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Who called. One client makes one call at a time.
    pub client: String,
    /// When, by the history's counter.
    pub made: u64,
    /// What for.
    pub action: Action,
    /// When the answer came and what it was. `None`: it never came.
    pub answer: Option<(u64, Outcome)>,
}

/// The calls of a simulation, in the order they were made. Cheap to clone.
#[derive(Clone)]
pub struct History {
    records: Arc<Mutex<Records>>,
    trace: Trace,
}

/// How many calls ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Appends that were acknowledged.
    pub appended: u64,
    /// Entries delivered as new.
    pub delivered: u64,
    /// Entries taken over.
    pub claimed: u64,
    /// Entries acknowledged.
    pub acknowledged: u64,
    /// Entries given back.
    pub released: u64,
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
        let mut records = self.lock();
        records.counter += 1;
        let made = records.counter;
        self.trace.line("client", format_args!("{client} {made} calls {}", Short(&action)));
        records.calls.push(Call { client: client.to_owned(), made, action, answer: None });
        Outstanding(records.calls.len() - 1)
    }

    /// Its answer has come.
    pub fn answered(&self, Outstanding(call): Outstanding, outcome: Outcome) {
        let mut records = self.lock();
        records.counter += 1;
        let moment = records.counter;
        let Records { calls, tally, .. } = &mut *records;
        let call = &mut calls[call];
        match (&call.action, &outcome) {
            (_, Outcome::Appended(ids)) => tally.appended += ids.len() as u64,
            (Action::AutoClaim, Outcome::Delivered(entries)) => tally.claimed += entries.len() as u64,
            (_, Outcome::Delivered(entries)) => tally.delivered += entries.len() as u64,
            (_, Outcome::Acknowledged(count)) => tally.acknowledged += count,
            (_, Outcome::Released(count)) => tally.released += count,
            (_, Outcome::NothingChanged(_)) => tally.nothing_changed += 1,
            (_, Outcome::Unknown(_)) => tally.unknown += 1,
        }
        self.trace.line("client", format_args!("{} {} returns {}", call.client, call.made, Short(&outcome)));
        call.answer = Some((moment, outcome));
    }

    /// All calls so far.
    pub fn calls(&self) -> Vec<Call> {
        self.lock().calls.clone()
    }

    /// How many calls ended how, so far.
    pub fn tally(&self) -> Tally {
        self.lock().tally
    }

    fn lock(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For lines of the trace: contents as fingerprints.
struct Short<'a, T>(&'a T);

impl fmt::Display for Short<'_, Action> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Action::Append { contents } => {
                write!(f, "append")?;
                contents.iter().try_for_each(|content| write!(f, " {:016x}", fingerprint(content)))
            }
            Action::ReadGroup => write!(f, "read group"),
            Action::AutoClaim => write!(f, "auto claim"),
            Action::Ack { ids } => write!(f, "ack {ids:?}"),
            Action::AckAndDelete { ids } => write!(f, "ack and delete {ids:?}"),
            Action::Nack { ids } => write!(f, "nack {ids:?}"),
        }
    }
}

impl fmt::Display for Short<'_, Outcome> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Outcome::Appended(ids) => write!(f, "appended {ids:?}"),
            Outcome::Delivered(entries) => {
                write!(f, "delivered")?;
                entries.iter().try_for_each(|entry| write!(f, " {}:{:016x}", entry.id, fingerprint(&entry.content)))
            }
            Outcome::Acknowledged(count) => write!(f, "acknowledged {count}"),
            Outcome::Released(count) => write!(f, "released {count}"),
            Outcome::NothingChanged(error) => write!(f, "nothing changed: {error}"),
            Outcome::Unknown(error) => write!(f, "unknown: {error}"),
        }
    }
}
