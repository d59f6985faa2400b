//! What can go wrong, sorted by what it means: a [`Refusal`] is a result, equal on every replica; an [`ApplyError`] is
//! this replica's own trouble and ends the node.

use minicbor::{Decode, Decoder, Encode};

use crate::block::BlockError;
use crate::codec;
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
    /// The last id that was to be set is too small.
    #[n(12)]
    #[error("the last id must not be smaller than {bound}, {id}")]
    LastIdTooSmall {
        /// What it is smaller than.
        #[n(0)]
        bound: LastIdBound,
        /// The id of that.
        #[n(1)]
        id: EntryId,
    },
    /// The stream has more entries than were to count as ever appended.
    #[n(13)]
    #[error("entries_added must not be smaller than the length of the stream, {length}")]
    EntriesAddedTooSmall {
        /// The number of entries in the stream.
        #[n(0)]
        length: u64,
    },
    /// The entry is not in the stream.
    #[n(14)]
    #[error("entry {id} is not in stream {stream:?}")]
    EntryNotFound {
        /// The stream that was named.
        #[n(0)]
        stream: StreamName,
        /// The id that was named.
        #[n(1)]
        id: EntryId,
    },
    /// The producer used the idempotency key for another entry.
    #[n(15)]
    #[error("the producer used this idempotency key for entry {id}")]
    IdempotencyConflict {
        /// That entry.
        #[n(0)]
        id: EntryId,
    },
    /// A guard of a batch does not hold.
    #[n(16)]
    #[error("guard {guard} does not hold: {}", show_change(.last_change_index))]
    GuardFailed {
        /// Which, counted from 0.
        #[n(0)]
        guard: u32,
        /// The log index of the last command that changed the stream. `None`: there is no such stream.
        #[n(1)]
        last_change_index: Option<u64>,
    },
    /// An operation of a batch was refused, and so none was done.
    #[n(17)]
    #[error("operation {operation}: {refusal}")]
    OperationRefused {
        /// Which, counted from 0.
        #[n(0)]
        operation: u32,
        /// Why.
        #[n(1)]
        #[cbor(decode_with = "decode_inner")]
        refusal: Box<Refusal>,
    },
}

/// What a last id must not be smaller than.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum LastIdBound {
    /// The greatest deleted id that the same command gives.
    #[n(0)]
    GivenMaxDeletedId,
    /// The greatest deleted id of the stream.
    #[n(1)]
    MaxDeletedId,
    /// The last entry of the stream.
    #[n(2)]
    LastEntry,
}

impl std::fmt::Display for LastIdBound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            LastIdBound::GivenMaxDeletedId => "the greatest deleted id given with it",
            LastIdBound::MaxDeletedId => "the greatest deleted id of the stream",
            LastIdBound::LastEntry => "the id of the last entry",
        })
    }
}

/// The number of [`Refusal::OperationRefused`].
const OPERATION_REFUSED: u32 = 17;

/// A refusal that holds no other: decoding goes down one level of the stack for each, and bytes may come damaged.
fn decode_inner<C>(d: &mut Decoder<'_>, context: &mut C) -> Result<Box<Refusal>, minicbor::decode::Error> {
    let mut inner = d.clone();
    inner.array()?;
    if inner.u32()? == OPERATION_REFUSED {
        return Err(minicbor::decode::Error::message("a refusal within a refusal within a refusal"));
    }
    d.decode_with(context)
}

fn show_change(last_change_index: &Option<u64>) -> String {
    match last_change_index {
        Some(index) => format!("the stream was changed at log index {index}"),
        None => "there is no such stream".to_owned(),
    }
}

impl Refusal {
    /// Its number in the format.
    pub(crate) fn number(&self) -> u32 {
        let encoded = codec::encode(self);
        let mut d = Decoder::new(encoded.get(1..).unwrap_or_default());
        // An enum is an array that begins with the number of the variant.
        d.array().and_then(|_| d.u32()).unwrap_or(u32::MAX)
    }

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
