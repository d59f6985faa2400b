//! Commands: all that can change the state, one file each, holding what it asks for, what it answers, and what it does.
//!
//! The table below is the one place that lists them. A new command is a file, its `mod` line, and a line in the table.

mod ack;
mod append;
mod auto_claim;
mod claim;
mod close_session;
mod create_cluster;
mod create_consumer;
mod create_group;
mod delete_consumer;
mod delete_entries;
mod delete_group;
mod delete_stream;
mod open_session;
mod read_group;
mod register_node;
mod set_group_position;
mod trim;

use minicbor::{Decode, Encode};

use crate::block::{BlockError, Blocks};
use crate::entry_id::EntryId;
use crate::error::Refusal;
use crate::limits::IDS_MAX;
use crate::names::StreamName;
use crate::state::{Change, State};

pub use append::NewId;
pub use claim::DeliveryTime;
pub use create_group::GroupPosition;
pub use read_group::{GroupRead, GroupReadFrom};

/// What a command does, apart from its data.
trait Apply {
    /// What it answers.
    type Reply;

    /// Refuses what no state could accept: bounds, and values that contradict each other.
    fn check(&self) -> Result<(), Refusal> {
        Ok(())
    }

    /// Does it. Checks first and then changes: a refusal must leave no trace.
    fn apply(&self, context: &mut Context<'_>) -> Result<Self::Reply, Stop>;

    /// The entries that the reply names and whose payloads the client wants, in the order of the reply.
    fn delivered<'a>(&'a self, _reply: &'a Self::Reply) -> Vec<(&'a StreamName, &'a [EntryId])> {
        Vec::new()
    }
}

/// What a command works with.
pub(crate) struct Context<'a> {
    /// The state to change.
    pub(crate) state: &'a mut State,
    /// The log index of the command.
    pub(crate) index: u64,
    /// The state's clock: the only time there is.
    pub(crate) now_ms: u64,
    /// Where stored blocks come from.
    pub(crate) blocks: &'a dyn Blocks,
    /// What waiters may want to know.
    pub(crate) changes: &'a mut Vec<Change>,
}

/// Why a command stopped short.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It was refused, here and on every replica.
    Refused(Refusal),
    /// This replica cannot go on.
    Failed(BlockError),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Stop::Refused(refusal)
    }
}

impl From<BlockError> for Stop {
    fn from(error: BlockError) -> Self {
        Stop::Failed(error)
    }
}

macro_rules! commands {
    ($($(#[$doc:meta])* $number:literal $module:ident $name:ident => $reply_number:literal $reply:ident;)*) => {
        $(pub use $module::{$name, $reply};)*

        /// Something to do.
        #[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
        pub enum Command {
            $($(#[$doc])* #[n($number)] $name(#[n(0)] $name),)*
        }

        /// What came of it.
        #[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
        pub enum Reply {
            $(#[doc = concat!("Answers [`Command::", stringify!($name), "`].")] #[n($reply_number)] $reply(#[n(0)] $reply),)*
        }

        impl Command {
            /// The command's name in metrics and logs: snake case.
            pub fn name(&self) -> &'static str {
                match self { $(Command::$name(_) => stringify!($module),)* }
            }

            /// Refuses what no state could accept: bounds, and values that contradict each other. The front door asks
            /// before it proposes; apply asks again.
            pub fn check(&self) -> Result<(), Refusal> {
                match self { $(Command::$name(command) => command.check(),)* }
            }

            pub(crate) fn apply(&self, context: &mut Context<'_>) -> Result<Reply, Stop> {
                match self { $(Command::$name(command) => Ok(Reply::$reply(command.apply(context)?)),)* }
            }

            /// The entries that `reply` names and whose payloads the client wants, in the order of the reply.
            pub(crate) fn delivered<'a>(&'a self, reply: &'a Reply) -> Vec<(&'a StreamName, &'a [EntryId])> {
                match (self, reply) {
                    $((Command::$name(command), Reply::$reply(reply)) => command.delivered(reply),)*
                    _ => Vec::new(),
                }
            }
        }

        $(
            impl From<$name> for Command {
                fn from(command: $name) -> Command {
                    Command::$name(command)
                }
            }

            impl From<$reply> for Reply {
                fn from(reply: $reply) -> Reply {
                    Reply::$reply(reply)
                }
            }
        )*
    };
}

// The numbers stand in logs and snapshots: they are for ever.
commands! {
    /// Append an entry (XADD).
    0 append Append => 0 Appended;
    /// Delete entries by id (XDEL).
    1 delete_entries DeleteEntries => 1 EntriesDeleted;
    /// Delete old entries (XTRIM).
    2 trim Trim => 2 Trimmed;
    /// Delete a stream (DEL).
    3 delete_stream DeleteStream => 3 StreamDeleted;
    /// Create a group (XGROUP CREATE).
    4 create_group CreateGroup => 4 GroupCreated;
    /// Move a group (XGROUP SETID).
    5 set_group_position SetGroupPosition => 5 GroupPositionSet;
    /// Delete a group (XGROUP DESTROY).
    6 delete_group DeleteGroup => 6 GroupDeleted;
    /// Create a consumer (XGROUP CREATECONSUMER).
    7 create_consumer CreateConsumer => 7 ConsumerCreated;
    /// Delete a consumer (XGROUP DELCONSUMER).
    8 delete_consumer DeleteConsumer => 8 ConsumerDeleted;
    /// Deliver entries to a consumer (XREADGROUP).
    9 read_group ReadGroup => 9 Delivered;
    /// Acknowledge entries (XACK).
    10 ack Ack => 10 Acked;
    /// Move pending entries to a consumer (XCLAIM).
    11 claim Claim => 11 Claimed;
    /// Move idle pending entries to a consumer (XAUTOCLAIM).
    12 auto_claim AutoClaim => 12 AutoClaimed;
    /// Open a session.
    13 open_session OpenSession => 13 SessionOpened;
    /// Close a session.
    14 close_session CloseSession => 14 SessionClosed;
    /// Give the cluster its id.
    15 create_cluster CreateCluster => 15 ClusterCreated;
    /// Say where a node is reached.
    16 register_node RegisterNode => 16 NodeRegistered;
}

/// Refuses more than [`IDS_MAX`] ids, and fewer than `min`.
fn check_ids(ids: &[EntryId], min: usize) -> Result<(), Refusal> {
    if ids.len() < min {
        return Err(Refusal::invalid("ids", "at least one id is needed"));
    }
    Refusal::check_limit("ids", ids.len() as u64, IDS_MAX as u64)
}
