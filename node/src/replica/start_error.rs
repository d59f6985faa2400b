//! Why a replica does not start. An operator reads these, so each says what to do.

use std::io;
use std::path::PathBuf;

use crate::storage::StoreError;

/// Why a replica could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state store cannot be opened or read, for a reason that an operator has to mend.
    #[error(
        "the state in the data directory cannot be opened: {0}; see that the disk works, has room and can be written \
         to, and start the node again"
    )]
    Store(#[from] StoreError),
    /// The log has lost what the state was made of.
    #[error(
        "the log ends at entry {last}, but the state has applied it up to entry {applied}: a node must not vote with a \
         log that has lost entries, so put the log's files back, or remove this node's data directory and let it \
         rejoin under a new node id"
    )]
    LogEndsEarly {
        /// The last entry that the state has applied.
        applied: u64,
        /// The last entry of the log.
        last: u64,
    },
    /// The log cannot be written.
    #[error("the log cannot be written: {0}; see that the disk works and has room, and start the node again")]
    Log(io::Error),
    /// There is no room for snapshots on their way.
    #[error(
        "the directory for snapshots on their way cannot be made: {0}; see that the data directory can be written to \
         and its disk has room, and start the node again"
    )]
    Spool(io::Error),
    /// What is stored verifies, and does not decode.
    #[error(
        "the state in the data directory holds what this version does not understand ({0}): start the version that \
         wrote it"
    )]
    Undecodable(String),
    /// What is stored verifies and decodes, and contradicts itself.
    #[error(
        "the rows of the state in the data directory contradict each other ({0}), which no disk does and a fault of \
         this program may: move the directory `state` out of the data directory, keep it for a report, and start the \
         node again; it builds its state anew from its log or from another member"
    )]
    Inconsistent(String),
    /// The state was set aside and there is no way to another.
    #[error(
        "the state of this node was set aside ({reason}), and its log begins at entry {first_index}, so the state must \
         come from another member: {problem}. Start this node again when another member can be reached; if none has the \
         state, remove this node's data directory and let it join under a new node id. What was set aside is kept in {}",
        path.display()
    )]
    Rebuild {
        /// Why it was set aside.
        reason: String,
        /// Where the log begins.
        first_index: u64,
        /// Why there is no other state yet.
        problem: String,
        /// The directory of the state.
        path: PathBuf,
    },
    /// openraft refuses to start on what is stored.
    #[error(
        "Raft cannot start on what is stored: {0}; start the node again, and if it says the same, keep a copy of its \
         data directory for a report and let it join under a new node id with an empty one"
    )]
    Raft(String),
    /// The configuration makes no sense.
    #[error("{0}")]
    Config(String),
}
