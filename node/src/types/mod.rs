//! openraft's generics, met once: the rest of the node speaks plainly.
//!
//! openraft is an alpha and its API moves, so its types stay behind these names; only `types`, `storage`, `network` and
//! `replica` may use them.

pub mod wire;

use std::fmt;

use bytes::Bytes;
use millstream_streams::Applied;

openraft::declare_raft_types!(
    /// The types of this cluster's Raft.
    pub TypeConfig:
        D = Proposal,
        R = Option<Applied>,
        NodeId = u64,
        Node = PeerNode,
);

/// A proposal in the core's encoding. Encoded once, by the leader: these bytes go to the log file, to the followers and
/// to the state.
#[derive(Clone, PartialEq, Eq)]
pub struct Proposal(pub Bytes);

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proposal({} bytes)", self.0.len())
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// What a membership records of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerNode {
    /// Where other nodes reach it: `host:port`.
    pub peer_address: String,
}

/// A node's id. Never reused.
pub type NodeId = u64;
/// Who leads, or asks to.
pub type LeaderId = openraft::alias::LeaderIdOf<TypeConfig>;
/// The leader as log entries name it.
pub type CommittedLeaderId = openraft::alias::CommittedLeaderIdOf<TypeConfig>;
/// Names a log entry.
pub type LogId = openraft::alias::LogIdOf<TypeConfig>;
/// A Raft vote.
pub type Vote = openraft::alias::VoteOf<TypeConfig>;
/// A log entry.
pub type LogEntry = openraft::alias::EntryOf<TypeConfig>;
/// What a log entry holds.
pub type LogPayload = openraft::EntryPayload<Proposal, NodeId, PeerNode>;
/// A set of members.
pub type Membership = openraft::Membership<NodeId, PeerNode>;
/// A set of members and the log entry that set it.
pub type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
/// What a snapshot covers.
pub type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
