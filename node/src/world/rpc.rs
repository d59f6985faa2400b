//! What may befall one call to a peer, for simulations: below gRPC there are only whole connections to break.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What one node asks of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RpcKind {
    /// AppendEntries as a call of its own.
    Heartbeat,
    /// An item of the replication stream. A stream keeps its order: whatever follows an item that is lost is lost too,
    /// until the sender gives the stream up.
    Append,
    /// RequestVote.
    Vote,
    /// Pre-Vote.
    PreVote,
    /// The leader asks another node to take over.
    Transfer,
    /// A part of a snapshot on its way to a follower. Loses like [`RpcKind::Append`].
    SnapshotPart,
    /// A follower asks for a read index.
    ReadIndex,
    /// A node makes its incarnation and addresses known.
    Register,
    /// The leader compares digests.
    CompareDigest,
    /// A follower hands a client's call to the leader. Its answer is lost like a connection: the follower hears of it at
    /// once, and its client is told that the outcome is unknown.
    Forward,
    /// A follower asks the leader to do what a client asked of it, under a number: asked again, it is done once. What
    /// is lost is lost with its connection, whose end the follower finds out a second later; a replay is one that was
    /// taken for lost and arrives all the same, perhaps after another attempt.
    Execute,
    /// A follower asks the leader where a log entry is stored. Loses like [`RpcKind::Execute`].
    Stored,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnRequest {
    /// It goes out.
    Pass,
    /// It never arrives.
    Drop,
    /// It goes out so much later, also if the caller has given up by then.
    Delay(Duration),
    /// It goes out, and once more so much later: beyond other requests of its kind, an old one is replayed. Nobody waits
    /// for the second answer. The replay of a stream's item is a call of its own. Forwarded calls are not replayed.
    Duplicate(Duration),
}

/// What becomes of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnAnswer {
    /// It arrives.
    Pass,
    /// It never arrives: what was asked has been done, and the caller does not know.
    Drop,
    /// It arrives so much later, unless the caller has given up by then.
    Delay(Duration),
}

/// Asked by a node around each of its calls to a peer.
pub trait RpcTap: Send + Sync + 'static {
    /// A request of this kind is about to go to node `to`.
    fn request(&self, kind: RpcKind, to: u64) -> OnRequest;
    /// Node `to` has answered one.
    fn answer(&self, kind: RpcKind, to: u64) -> OnAnswer;
}

/// Nothing befalls a call.
pub struct NoTap;

impl RpcTap for NoTap {
    fn request(&self, _: RpcKind, _: u64) -> OnRequest {
        OnRequest::Pass
    }

    fn answer(&self, _: RpcKind, _: u64) -> OnAnswer {
        OnAnswer::Pass
    }
}
