//! What comes of calls.

use super::{Entry, Id};

/// What became of an entry to append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placed {
    /// It is in the stream.
    At {
        /// Under this id.
        id: Id,
        /// So many old entries were trimmed with it.
        trimmed: u64,
    },
    /// An entry was appended under its key before, and has this id; this one was not appended.
    Before(Id),
    /// It was not appended, for this reason.
    Refused(String),
}

impl Placed {
    /// The id of what was appended by this call.
    pub fn id(&self) -> Option<Id> {
        match self {
            Placed::At { id, .. } => Some(*id),
            Placed::Before(_) | Placed::Refused(_) => None,
        }
    }
}

/// What became of an entry to remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// It is not in the stream now.
    Deleted,
    /// There was none; with an acknowledgement: it was not pending.
    NotFound,
    /// It stays, because a group refers to it; with an acknowledgement: it was acknowledged nevertheless.
    Referenced,
}

/// A line of a list of pending entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// The entry.
    pub id: Id,
    /// Whose it is; `None` if it was given back.
    pub consumer: Option<String>,
    /// How often it was delivered.
    pub deliveries: u64,
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// One for each entry that was to be appended.
    Appended(Vec<Placed>),
    /// These entries were read, in the order asked for.
    Read {
        /// Which.
        entries: Vec<Entry>,
        /// There may be more.
        more: bool,
    },
    /// The stream is like this.
    Described {
        /// Entries.
        length: u64,
        /// The greatest id there ever was.
        last_id: Id,
        /// Entries ever appended.
        added: u64,
        /// Log index of the last command that changed it.
        last_change: u64,
    },
    /// Entries are the consumer's now, or still.
    Delivered {
        /// Which.
        entries: Vec<Entry>,
        /// These are no longer in the stream.
        deleted: Vec<Id>,
    },
    /// So many of the entries were pending and no longer are.
    Acknowledged(u64),
    /// One for each entry that was to be removed.
    Removed(Vec<Removed>),
    /// So many entries were trimmed.
    Trimmed(u64),
    /// So many of the entries were pending and now belong to nobody.
    Released(u64),
    /// These are pending.
    Pending {
        /// By id.
        entries: Vec<Pending>,
        /// There may be more.
        more: bool,
    },
    /// So many are pending.
    PendingCount {
        /// In all.
        count: u64,
        /// Of each consumer that has any, by name.
        consumers: Vec<(String, u64)>,
    },
    /// It is done. `false`: there was nothing to do.
    Done(bool),
    /// An error that promises that nothing has changed.
    NothingChanged {
        /// By the name in the contract; empty if no node gave one.
        reason: String,
        /// For people.
        text: String,
    },
    /// An error that leaves it open, or the client has left.
    Unknown(String),
}

impl Outcome {
    /// For certain, nothing has changed.
    pub fn is_nothing(&self) -> bool {
        matches!(self, Outcome::NothingChanged { .. })
    }

    /// How many of the entries of an acknowledgement were pending, if that is known.
    pub fn acknowledged(&self) -> Option<u64> {
        match self {
            Outcome::Acknowledged(count) => Some(*count),
            Outcome::Removed(removed) => {
                Some(removed.iter().filter(|removed| **removed != Removed::NotFound).count() as u64)
            }
            _ => None,
        }
    }
}
