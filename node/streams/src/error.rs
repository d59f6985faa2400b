//! What can go wrong, sorted by what it means: a [`Refusal`] is a result, equal on every replica; an [`ApplyError`] is
//! this replica's own trouble and ends the node.

use minicbor::{Decode, Encode};

use crate::block::BlockError;
use crate::commands::Reply;
use crate::entry_id::EntryId;
use crate::names::{GroupName, StreamName};

/// What became of a command: a reply, or a refusal. Both are results, recorded alike and equal on every replica.
pub type Outcome = Result<Reply, Refusal>;

/// Why a command was refused. It changed nothing but the state's clock and its session's record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Encode, Decode)]
pub enum Refusal {
    /// A field has a value that no state could accept.
    #[n(0)]
    #[error("{field}: {problem}")]
    InvalidArgument {
        /// The field, as the proto spells it; a path if it is nested.
        #[n(0)]
        field: String,
        /// What is wrong with it.
        #[n(1)]
        problem: String,
    },
    /// A list, a count or an entry is too large.
    #[n(1)]
    #[error("{field} exceeds the limit of {limit}")]
    LimitExceeded {
        /// The field, as the proto spells it.
        #[n(0)]
        field: String,
        /// The greatest value that is allowed, in the field's own unit (bytes, ids, entries).
        #[n(1)]
        limit: u64,
    },
    /// An explicit id 0-0 for a new entry.
    #[n(2)]
    #[error("the id of an entry must be greater than 0-0")]
    IdZero,
    /// The id of a new entry is not greater than the stream's last id.
    #[n(3)]
    #[error("the id is not greater than the last id of the stream, {last_id}")]
    IdNotGreater {
        /// The stream's last id, which may be that of a deleted entry.
        #[n(0)]
        last_id: EntryId,
    },
    /// The stream's last id is the greatest there is.
    #[n(4)]
    #[error("the stream has used its last possible id")]
    IdExhausted,
    /// The stream does not exist.
    #[n(5)]
    #[error("stream {stream:?} does not exist")]
    StreamNotFound {
        /// The stream that was named.
        #[n(0)]
        stream: StreamName,
    },
    /// The stream or its group does not exist.
    #[n(6)]
    #[error("stream {stream:?} or its group {group:?} does not exist")]
    GroupNotFound {
        /// The stream that was named.
        #[n(0)]
        stream: StreamName,
        /// The group that was named.
        #[n(1)]
        group: GroupName,
    },
    /// The group exists already.
    #[n(7)]
    #[error("group {group:?} of stream {stream:?} exists already")]
    GroupExists {
        /// The stream that was named.
        #[n(0)]
        stream: StreamName,
        /// The group that was named.
        #[n(1)]
        group: GroupName,
    },
    /// The session was never opened, was closed, or has expired.
    #[n(8)]
    #[error("session {session} is not open")]
    SessionNotFound {
        /// The session that was named.
        #[n(0)]
        session: u64,
    },
    /// The sequence was declared completed, or runs too far ahead.
    #[n(9)]
    #[error("sequence {sequence} is outside the window that starts at {floor}")]
    SequenceOutOfWindow {
        /// The sequence that was given.
        #[n(0)]
        sequence: u64,
        /// The smallest sequence that the session accepts.
        #[n(1)]
        floor: u64,
    },
    /// The sequence was used before, for another command.
    #[n(10)]
    #[error("sequence {sequence} was used for another command")]
    SequenceReused {
        /// The sequence that was given.
        #[n(0)]
        sequence: u64,
    },
    /// The node id is known with another data directory.
    #[n(11)]
    #[error("node {node_id} is registered with another incarnation; a node that lost its data needs a new id")]
    NodeIncarnationMismatch {
        /// The node id that was given.
        #[n(0)]
        node_id: u64,
    },
}

impl Refusal {
    pub(crate) fn invalid(field: &str, problem: impl Into<String>) -> Refusal {
        Refusal::InvalidArgument { field: field.to_owned(), problem: problem.into() }
    }

    /// Refuses `value` if it is greater than `limit`.
    pub(crate) fn check_limit(field: &str, value: u64, limit: u64) -> Result<(), Refusal> {
        if value <= limit { Ok(()) } else { Err(Refusal::LimitExceeded { field: field.to_owned(), limit }) }
    }
}

/// Why bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// There is not even a version byte.
    #[error("no bytes")]
    Empty,
    /// Written by a version that this one does not know.
    #[error("format version {version} is not known")]
    UnknownVersion {
        /// The version byte.
        version: u8,
    },
    /// The bytes do not follow the format.
    #[error("malformed: {problem}")]
    Malformed {
        /// What is wrong, for a person.
        problem: String,
    },
}

impl From<minicbor::decode::Error> for DecodeError {
    fn from(error: minicbor::decode::Error) -> Self {
        DecodeError::Malformed { problem: error.to_string() }
    }
}

/// Why this replica cannot go on. Never a refusal: other replicas may well have applied the command. The state may be
/// half changed and must not be used again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The log holds a command that this version cannot read.
    #[error("undecodable command: {0}")]
    Undecodable(#[from] DecodeError),
    /// A block that the state needs cannot be read.
    #[error(transparent)]
    Block(#[from] BlockError),
}

/// Why a state could not be built from rows.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError<E> {
    /// The rows could not be read.
    #[error("cannot read the rows")]
    Source(#[source] E),
    /// A row does not decode.
    #[error("row {key}: {error}")]
    Row {
        /// The row's key, for a person.
        key: String,
        /// What is wrong with it.
        error: DecodeError,
    },
    /// The rows do not fit together.
    #[error("rows do not fit together: {problem}")]
    Inconsistent {
        /// What is wrong, for a person.
        problem: String,
    },
}
