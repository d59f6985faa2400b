//! Commands: all that can change the state, one file each, holding what it asks for, what it answers, and what it does.
//!
//! The table below is the one place that lists them. A new command is a file, its `mod` line, and a line in the table.

mod ack;
mod ack_and_delete;
mod append;
mod auto_claim;
mod batch;
mod claim;
mod close_session;
mod configure_stream;
mod create_cluster;
mod create_consumer;
mod create_group;
mod delete_all;
mod delete_consumer;
mod delete_entries;
mod delete_group;
mod delete_stream;
mod enforce_retention;
mod nack;
mod open_session;
mod query;
mod read_group;
mod record_idempotency;
mod register_node;
mod set_group_position;
mod set_last_id;
mod trim;

use minicbor::{Decode, Encode};

use crate::block::{BlockError, Blocks};
use crate::budget::Budget;
use crate::digest::Summary;
use crate::entry::Entry;
use crate::entry_id::EntryId;
use crate::error::{Outcome, Refusal};
use crate::limits::IDS_MAX;
use crate::names::StreamName;
use crate::state::{Change, State};

pub use append::NewId;
pub use batch::{BatchMode, Guard};
pub use claim::DeliveryTime;
pub use create_group::GroupPosition;
pub use nack::NackMode;
pub use query::{Found, ReadFrom, ReadStreams, StreamRead};
pub use read_group::{Delivery, GroupRead, GroupReadFrom, Redelivery};

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

    /// How many ids it names.
    fn ids(&self) -> u64 {
        0
    }

    /// Adds to the summary that the digest covers what shows whether two states are the same.
    fn summarize(&self, _reply: &Self::Reply, _summary: &mut Summary) {}

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
    /// How much may be returned.
    pub(crate) budget: Budget,
    /// Where the payloads of the reply go; `None` where nobody waits for them.
    pub(crate) payloads: Option<&'a mut Vec<Option<Entry>>>,
}

impl Context<'_> {
    /// Does a command and collects the payloads of its reply.
    pub(crate) fn run(&mut self, command: &Command) -> Result<Outcome, BlockError> {
        if let Err(refusal) = command.check() {
            return Ok(Err(refusal));
        }
        let reply = match command.apply(self) {
            Ok(reply) => reply,
            Err(Stop::Refused(refusal)) => return Ok(Err(refusal)),
            Err(Stop::Failed(error)) => return Err(error),
        };
        // A batch has collected those of its operations one by one: the next may delete what the last returned.
        if let Some(payloads) = &mut self.payloads
            && !matches!(command, Command::Batch(_))
        {
            self.state.collect_payloads(command, &reply, self.blocks, payloads)?;
        }
        Ok(Ok(reply))
    }
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
            /// The names of all commands: snake case.
            pub const NAMES: &[&str] = &[$(stringify!($module),)*];

            /// The command's name in metrics and logs: snake case.
            pub fn name(&self) -> &'static str {
                match self { $(Command::$name(_) => stringify!($module),)* }
            }

            /// Refuses what no state could accept: bounds, and values that contradict each other. The front door asks
            /// before it proposes; apply asks again.
            pub fn check(&self) -> Result<(), Refusal> {
                match self { $(Command::$name(command) => command.check(),)* }
            }

            /// How many ids it names.
            pub(crate) fn ids(&self) -> u64 {
                match self { $(Command::$name(command) => command.ids(),)* }
            }

            /// Adds the reply to the summary that the digest covers.
            pub(crate) fn summarize(&self, reply: &Reply, summary: &mut Summary) {
                match (self, reply) {
                    $((Command::$name(command), Reply::$reply(reply)) => command.summarize(reply, summary),)*
                    _ => {}
                }
            }

            /// How many payloads come with `reply`: one for each entry that it names and the client wants.
            pub fn payloads(&self, reply: &Reply) -> usize {
                self.delivered(reply).iter().map(|(_, ids)| ids.len()).sum()
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
    /// Set a stream's last id and counters (XSETID).
    17 set_last_id SetLastId => 17 LastIdSet;
    /// Change a stream's settings (XCFGSET).
    18 configure_stream ConfigureStream => 18 StreamConfigured;
    /// Remember that an entry was appended under an idempotency key (XIDMPRECORD).
    19 record_idempotency RecordIdempotency => 19 IdempotencyRecorded;
    /// Acknowledge entries and delete them (XACKDEL).
    20 ack_and_delete AckAndDelete => 20 AckedAndDeleted;
    /// Give pending entries back (XNACK).
    21 nack Nack => 21 Nacked;
    /// Delete all streams (FLUSHALL).
    22 delete_all DeleteAll => 22 AllDeleted;
    /// Trim streams by their retention, and forget old idempotency keys.
    23 enforce_retention EnforceRetention => 23 RetentionEnforced;
    /// Do several things as one (MULTI, EXEC, WATCH).
    24 batch Batch => 24 Batched;
    /// Answer a question at this place in the log. Wanted within a batch only: others ask without the log.
    25 query Query => 25 Answer;
}

impl Command {
    /// Whether it may make the state larger, by more than the record of its outcome. What may not is still done while
    /// disks are nearly full.
    pub fn grows(&self) -> bool {
        match self {
            Command::Append(_)
            | Command::CreateGroup(_)
            | Command::CreateConsumer(_)
            | Command::ReadGroup(_)
            | Command::Claim(_)
            | Command::ConfigureStream(_)
            | Command::RecordIdempotency(_) => true,
            // Whoever deletes or acknowledges may need a session for it; they are few and expire.
            Command::OpenSession(_) => false,
            Command::DeleteEntries(_)
            | Command::Trim(_)
            | Command::DeleteStream(_)
            | Command::SetGroupPosition(_)
            | Command::DeleteGroup(_)
            | Command::DeleteConsumer(_)
            | Command::Ack(_)
            | Command::AutoClaim(_)
            | Command::CloseSession(_)
            | Command::CreateCluster(_)
            | Command::RegisterNode(_)
            | Command::SetLastId(_)
            | Command::AckAndDelete(_)
            | Command::Nack(_)
            | Command::DeleteAll(_)
            | Command::EnforceRetention(_)
            | Command::Query(_) => false,
            Command::Batch(batch) => batch.operations.iter().any(Command::grows),
        }
    }
}

/// Refuses more than [`IDS_MAX`] ids, and fewer than `min`.
fn check_ids(ids: &[EntryId], min: usize) -> Result<(), Refusal> {
    if ids.len() < min {
        return Err(Refusal::invalid("ids", "at least one id is needed"));
    }
    Refusal::check_limit("ids", ids.len() as u64, IDS_MAX as u64)
}
