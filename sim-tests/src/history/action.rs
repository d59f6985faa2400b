//! What clients ask for.

use super::Id;

/// A consumer group: its stream and its name.
pub type GroupName = (String, String);

/// An entry to append.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Put {
    /// To which stream.
    pub stream: String,
    /// Unique in the simulation, except that an attempt under an idempotency key may repeat the one before.
    pub content: Vec<u8>,
    /// The id it must have. `None`: the store chooses.
    pub id: Option<Id>,
    /// Producer and idempotency key, if it has one.
    pub key: Option<(String, String)>,
    /// Trims the stream in the same command.
    pub trim: Option<Trim>,
}

/// What to remove from the old end of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trim {
    /// What stays.
    pub keep: Keep,
    /// To the entry; otherwise fewer may go, but not more.
    pub exact: bool,
}

/// What a trim leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// At most this many entries.
    Newest(u64),
    /// Entries with this id or a greater one.
    From(Id),
}

/// What an operation that is refused means for the others of its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// All are done, or none.
    AllOrNothing,
    /// The others are done nevertheless.
    Continue,
}

/// On what a batch insists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// Of this stream:
    pub stream: String,
    /// the last command that changed it has this log index. `None`: there is no such stream.
    pub last_change: Option<u64>,
    /// The greatest id there ever was at that time.
    pub last_id: Id,
}

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fresh {
    /// Reflects all that was acknowledged before.
    Linearizable,
    /// Reflects what some node has applied.
    Local,
    /// As `Local`, and at least this log index.
    AtLeast(u64),
}

/// Where a read begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// After this id.
    Id(Id),
    /// After whatever is there when the call arrives (`$`).
    Arrival,
}

/// What a client asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Append an entry.
    Append(Put),
    /// Append entries as one command.
    Batch {
        /// At least one.
        puts: Vec<Put>,
        /// What if one is refused.
        mode: Mode,
        /// Only if this holds.
        guard: Option<Guard>,
        /// It also holds an operation that the store must refuse.
        is_refused: bool,
    },
    /// Remove entries by id, if no group refers to them.
    Delete {
        /// From where.
        stream: String,
        /// Which.
        ids: Vec<Id>,
    },
    /// Remove entries from the old end.
    Trim {
        /// Of which stream.
        stream: String,
        /// What.
        trim: Trim,
    },
    /// Have a stream remember idempotency keys for longer than a simulation.
    Configure {
        /// Which stream.
        stream: String,
    },
    /// One page of a range.
    Range {
        /// Of which stream.
        stream: String,
        /// From the newest entry backwards.
        reverse: bool,
        /// Beyond this id, in the direction of the read. `None`: from the end where it begins.
        beyond: Option<Id>,
        /// At most this many entries.
        count: u64,
        /// How fresh.
        fresh: Fresh,
    },
    /// Read forwards, and wait for entries if there are none.
    Read {
        /// Of which stream.
        stream: String,
        /// From where.
        after: After,
        /// At most this many entries.
        count: u64,
        /// How long to wait for the first.
        wait_ms: u64,
        /// How fresh.
        fresh: Fresh,
    },
    /// Length, last id and counters of a stream.
    Describe {
        /// Of which stream.
        stream: String,
    },
    /// Deliver new entries of the group to this consumer.
    ReadGroup {
        /// Which group.
        group: GroupName,
        /// As whom.
        consumer: String,
        /// At most this many.
        count: u64,
        /// How long to wait for the first.
        wait_ms: u64,
    },
    /// Repeat what is pending with this consumer, after an id.
    ReadPending {
        /// Which group.
        group: GroupName,
        /// Whose.
        consumer: String,
        /// After which id.
        after: Id,
        /// At most this many.
        count: u64,
    },
    /// Take over these entries if they have lain idle for so long.
    Claim {
        /// Which group.
        group: GroupName,
        /// For whom.
        consumer: String,
        /// Which.
        ids: Vec<Id>,
        /// Since the last delivery.
        idle_min_ms: u64,
    },
    /// Take over entries that others left pending.
    AutoClaim {
        /// Which group.
        group: GroupName,
        /// For whom.
        consumer: String,
        /// Since the last delivery.
        idle_min_ms: u64,
        /// At most this many.
        count: u64,
    },
    /// Acknowledge entries.
    Ack {
        /// Which group.
        group: GroupName,
        /// Which.
        ids: Vec<Id>,
    },
    /// Acknowledge entries, and remove from the stream those to which no group refers any more.
    AckAndDelete {
        /// Which group.
        group: GroupName,
        /// Which.
        ids: Vec<Id>,
    },
    /// Give entries back, for others to take over.
    Nack {
        /// Which group.
        group: GroupName,
        /// Which.
        ids: Vec<Id>,
    },
    /// List what is pending in the group, by id.
    ListPending {
        /// Which group.
        group: GroupName,
        /// At most this many.
        count: u64,
    },
    /// Count what is pending in the group, by consumer.
    CountPending {
        /// Which group.
        group: GroupName,
    },
    /// Create a group.
    CreateGroup {
        /// Which.
        group: GroupName,
        /// It delivers what comes after this.
        after: After,
    },
    /// Delete a group.
    DeleteGroup {
        /// Which.
        group: GroupName,
    },
    /// Set the position of a group.
    MoveGroup {
        /// Which.
        group: GroupName,
        /// It delivers what comes after this.
        after: After,
    },
    /// Forget this client's sessions.
    CloseSessions,
}

impl Action {
    /// The entries that it appends.
    pub fn puts(&self) -> &[Put] {
        match self {
            Action::Append(put) => std::slice::from_ref(put),
            Action::Batch { puts, .. } => puts,
            _ => &[],
        }
    }

    /// The entries that it acknowledges, of which group.
    pub fn acknowledges(&self) -> Option<(&GroupName, &[Id])> {
        match self {
            Action::Ack { group, ids } | Action::AckAndDelete { group, ids } => Some((group, ids)),
            _ => None,
        }
    }

    /// The group that it concerns.
    pub fn group(&self) -> Option<&GroupName> {
        match self {
            Action::ReadGroup { group, .. }
            | Action::ReadPending { group, .. }
            | Action::Claim { group, .. }
            | Action::AutoClaim { group, .. }
            | Action::Ack { group, .. }
            | Action::AckAndDelete { group, .. }
            | Action::Nack { group, .. }
            | Action::ListPending { group, .. }
            | Action::CountPending { group }
            | Action::CreateGroup { group, .. }
            | Action::DeleteGroup { group }
            | Action::MoveGroup { group, .. } => Some(group),
            _ => None,
        }
    }

    /// As whom it takes entries of a group.
    pub fn consumer(&self) -> Option<&str> {
        match self {
            Action::ReadGroup { consumer, .. }
            | Action::ReadPending { consumer, .. }
            | Action::Claim { consumer, .. }
            | Action::AutoClaim { consumer, .. } => Some(consumer),
            _ => None,
        }
    }

    /// The stream that it reads, and how fresh.
    pub fn reads(&self) -> Option<(&str, Fresh)> {
        match self {
            Action::Range { stream, fresh, .. } | Action::Read { stream, fresh, .. } => Some((stream, *fresh)),
            _ => None,
        }
    }

    /// It asks and changes nothing.
    pub fn is_question(&self) -> bool {
        matches!(
            self,
            Action::Range { .. }
                | Action::Read { .. }
                | Action::Describe { .. }
                | Action::ListPending { .. }
                | Action::CountPending { .. }
        )
    }
}
