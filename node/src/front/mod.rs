//! What the doors have in common: the public gRPC services and the one that speaks Redis's protocol.
//!
//! In go commands and questions of the core, out come its replies. [`Front`] does at this node what a door asks for; only a
//! leader can do commands. [`Anywhere`] does it wherever the leader is, and goes on if that changes.
//!
//! - [`entries`]: reading what a look at the state has planned for.
//! - [`ask`]: the core's questions, answered here and now.
//! - [`read`] and [`read_group`]: the two that may wait. They sleep on [`crate::watch`]; the log never holds a poll.
//! - [`anywhere`], [`sessions`]: commands of clients that do not know who leads, each done once.
//!
//! What is absent: no protocol of clients, no storage, no consensus. Time is tokio's.

pub(crate) mod anywhere;
mod ask;
pub(crate) mod entries;
mod leader;
mod read;
mod read_group;
mod sessions;

use millstream_streams::{BlockError, Command, Entry, Refusal, Reply, RequestId};

use crate::config::Limits;
use crate::replica::{Freshness, Replica, Unavailable};
use crate::watch::Full;
pub(crate) use anywhere::Anywhere;
pub(crate) use entries::EntryBounds;
pub(crate) use leader::Leading;
pub(crate) use read::StreamPage;

/// Why something was not done.
#[derive(Debug)]
pub(crate) enum Denied {
    /// The core refused it.
    Refused(Refusal),
    /// The replica cannot do it now, or does not know what became of it.
    Unavailable(Unavailable),
    /// Too many wait already.
    Full(Full),
    /// The store cannot be read.
    Block(BlockError),
    /// The node is broken.
    Broken(&'static str),
}

/// What a door is told.
pub(crate) type Result<T> = std::result::Result<T, Denied>;

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Unavailable> for Denied {
    fn from(unavailable: Unavailable) -> Self {
        Self::Unavailable(unavailable)
    }
}

impl From<Full> for Denied {
    fn from(full: Full) -> Self {
        Self::Full(full)
    }
}

impl From<BlockError> for Denied {
    fn from(error: BlockError) -> Self {
        Self::Block(error)
    }
}

/// A command that was accepted.
#[derive(Debug)]
pub(crate) struct Done {
    /// What came of it.
    pub(crate) reply: Reply,
    /// What the ids of the reply name, in its order; `None`: no longer in the stream.
    pub(crate) entries: Vec<Option<Entry>>,
    /// Index of its log entry.
    pub(crate) log_index: u64,
    /// Term of its log entry.
    pub(crate) term: u64,
}

/// This node, as a door sees it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Front {
    pub(crate) replica: Replica,
    pub(crate) limits: Limits,
}

impl Front {
    pub(crate) fn new(replica: Replica, limits: Limits) -> Self {
        Self { replica, limits }
    }

    /// Checks a command, proposes it and waits for its reply.
    pub(crate) async fn execute(&self, request: Option<RequestId>, command: Command) -> Result<Done> {
        command.check()?;
        self.propose(request, command).await
    }

    /// Proposes a command that has been checked.
    pub(crate) async fn propose(&self, request: Option<RequestId>, command: Command) -> Result<Done> {
        let committed = self.replica.propose(request, command).await?;
        let applied = committed.applied;
        let (log_index, term) = (committed.log_index, committed.term);
        Ok(Done { reply: applied.outcome?, entries: applied.entries, log_index, term })
    }

    /// Waits until this node's state is as fresh as asked.
    pub(crate) async fn barrier(&self, freshness: Freshness) -> Result<()> {
        match self.replica.read_barrier(freshness).await {
            // Overtaken by an orderly stop: nothing was asked of the log, so nothing is unknown.
            Err(Unavailable::Stopped) if !self.replica.is_ready() => Err(Unavailable::NotReady.into()),
            reached => Ok(reached?),
        }
    }
}
