//! openraft's values as messages of `millstream.internal.v1`, and back.
//!
//! Other nodes and the node's own files hold these messages. Towards the wire nothing can fail. Back, everything can: the
//! bytes may be a stranger's, so no value is made that openraft would stumble over (a voter without a node, an empty set
//! of voters).

use std::collections::{BTreeMap, BTreeSet};

use millstream_proto::internal::v1 as pb;
use openraft::vote::RaftLeaderId;
use prost::Message;

use super::{
    LeaderId, LogEntry, LogId, LogPayload, Membership, NodeId, PeerNode, Proposal, SnapshotMeta, StoredMembership, Vote,
};

/// What is wrong with a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// It is not a protobuf message of the kind expected.
    #[error("not a message of the kind expected: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// A field that must be there is absent.
    #[error("{0} is absent")]
    Absent(&'static str),
    /// A node is listed twice where once is enough.
    #[error("node {0} is listed twice")]
    Duplicate(NodeId),
    /// A membership that cannot be: a voter without a node, or an empty set of voters.
    #[error("impossible membership: {0}")]
    Membership(String),
}

/// A leader's id for the wire.
pub fn leader_id_to_pb(leader: &LeaderId) -> pb::LeaderId {
    pb::LeaderId { term: leader.term, node_id: leader.node_id }
}

/// A leader's id from the wire.
pub fn leader_id_from_pb(leader: pb::LeaderId) -> LeaderId {
    LeaderId::new(leader.term, leader.node_id)
}

/// A log id for the wire.
pub fn log_id_to_pb(log_id: &LogId) -> pb::LogId {
    pb::LogId { leader_id: Some(leader_id_to_pb(log_id.committed_leader_id())), index: log_id.index }
}

/// A log id from the wire.
pub fn log_id_from_pb(log_id: pb::LogId) -> Result<LogId, WireError> {
    let leader = log_id.leader_id.ok_or(WireError::Absent("LogId.leader_id"))?;
    Ok(LogId::new(leader_id_from_pb(leader), log_id.index))
}

/// A log id that may be absent, from the wire.
pub fn optional_log_id_from_pb(log_id: Option<pb::LogId>) -> Result<Option<LogId>, WireError> {
    log_id.map(log_id_from_pb).transpose()
}

/// A vote for the wire.
pub fn vote_to_pb(vote: &Vote) -> pb::Vote {
    pb::Vote { leader_id: Some(leader_id_to_pb(&vote.leader_id)), committed: vote.committed }
}

/// A vote from the wire.
pub fn vote_from_pb(vote: pb::Vote) -> Result<Vote, WireError> {
    let leader = vote.leader_id.ok_or(WireError::Absent("Vote.leader_id"))?;
    Ok(Vote { leader_id: leader_id_from_pb(leader), committed: vote.committed })
}

/// A membership for the wire.
pub fn membership_to_pb(membership: &Membership) -> pb::Membership {
    let configs = membership.get_joint_config().iter();
    let nodes = membership.nodes();
    pb::Membership {
        configs: configs.map(|voters| pb::VoterSet { node_ids: voters.iter().copied().collect() }).collect(),
        nodes: nodes.map(|(&node_id, node)| member_to_pb(node_id, node)).collect(),
    }
}

fn member_to_pb(node_id: NodeId, node: &PeerNode) -> pb::MemberNode {
    let PeerNode { peer_address } = node;
    pb::MemberNode { node_id, peer_address: peer_address.clone() }
}

/// A membership from the wire. The empty one, of a node that belongs to no cluster yet, is fine.
pub fn membership_from_pb(membership: pb::Membership) -> Result<Membership, WireError> {
    let mut configs = Vec::with_capacity(membership.configs.len());
    for config in membership.configs {
        let mut voters = BTreeSet::new();
        for id in config.node_ids {
            if !voters.insert(id) {
                return Err(WireError::Duplicate(id));
            }
        }
        configs.push(voters);
    }
    let mut nodes = BTreeMap::new();
    for pb::MemberNode { node_id, peer_address } in membership.nodes {
        if nodes.insert(node_id, PeerNode { peer_address }).is_some() {
            return Err(WireError::Duplicate(node_id));
        }
    }
    Membership::new(configs, nodes).map_err(|error| WireError::Membership(error.to_string()))
}

/// A stored membership for the wire.
pub fn stored_membership_to_pb(stored: &StoredMembership) -> pb::StoredMembership {
    pb::StoredMembership {
        log_id: stored.log_id().as_ref().map(log_id_to_pb),
        membership: Some(membership_to_pb(stored.membership())),
    }
}

/// A stored membership from the wire.
pub fn stored_membership_from_pb(stored: pb::StoredMembership) -> Result<StoredMembership, WireError> {
    let log_id = optional_log_id_from_pb(stored.log_id)?;
    let membership = stored.membership.ok_or(WireError::Absent("StoredMembership.membership"))?;
    Ok(StoredMembership::new(log_id, membership_from_pb(membership)?))
}

/// A log entry for the wire. A proposal is not copied.
pub fn entry_to_pb(entry: LogEntry) -> pb::LogEntry {
    let payload = match entry.payload {
        LogPayload::Blank => pb::log_entry::Payload::Blank(true),
        LogPayload::Normal(Proposal(bytes)) => pb::log_entry::Payload::Proposal(bytes),
        LogPayload::Membership(membership) => pb::log_entry::Payload::Membership(membership_to_pb(&membership)),
    };
    pb::LogEntry { log_id: Some(log_id_to_pb(&entry.log_id)), payload: Some(payload) }
}

/// A log entry from the wire. A proposal is not copied: it keeps the received message's buffer alive.
pub fn entry_from_pb(entry: pb::LogEntry) -> Result<LogEntry, WireError> {
    let log_id = log_id_from_pb(entry.log_id.ok_or(WireError::Absent("LogEntry.log_id"))?)?;
    let payload = match entry.payload.ok_or(WireError::Absent("LogEntry.payload"))? {
        pb::log_entry::Payload::Blank(_) => LogPayload::Blank,
        pb::log_entry::Payload::Proposal(bytes) => LogPayload::Normal(Proposal(bytes)),
        pb::log_entry::Payload::Membership(membership) => LogPayload::Membership(membership_from_pb(membership)?),
    };
    Ok(LogEntry { log_id, payload })
}

/// What a snapshot covers, from the parts in which it travels.
pub fn snapshot_meta_from_pb(
    last_log_id: Option<pb::LogId>,
    last_membership: Option<pb::StoredMembership>,
) -> Result<SnapshotMeta, WireError> {
    let last_membership = last_membership.ok_or(WireError::Absent("SnapshotHeader.membership"))?;
    Ok(SnapshotMeta {
        last_log_id: optional_log_id_from_pb(last_log_id)?,
        last_membership: stored_membership_from_pb(last_membership)?,
    })
}

/// A log id as bytes.
pub fn encode_log_id(log_id: &LogId) -> Vec<u8> {
    log_id_to_pb(log_id).encode_to_vec()
}

/// The reverse of [`encode_log_id`].
pub fn decode_log_id(bytes: &[u8]) -> Result<LogId, WireError> {
    log_id_from_pb(pb::LogId::decode(bytes)?)
}

/// A membership as bytes.
pub fn encode_membership(membership: &Membership) -> Vec<u8> {
    membership_to_pb(membership).encode_to_vec()
}

/// The reverse of [`encode_membership`].
pub fn decode_membership(bytes: &[u8]) -> Result<Membership, WireError> {
    membership_from_pb(pb::Membership::decode(bytes)?)
}

/// A stored membership as bytes.
pub fn encode_stored_membership(stored: &StoredMembership) -> Vec<u8> {
    stored_membership_to_pb(stored).encode_to_vec()
}

/// The reverse of [`encode_stored_membership`].
pub fn decode_stored_membership(bytes: &[u8]) -> Result<StoredMembership, WireError> {
    stored_membership_from_pb(pb::StoredMembership::decode(bytes)?)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn log_id(term: u64, index: u64) -> LogId {
        LogId::new(LeaderId::new(term, 7), index)
    }

    fn joint() -> Membership {
        let nodes = BTreeMap::from([1, 2, 3, 4].map(|id| (id, PeerNode { peer_address: format!("n{id}:7421") })));
        let configs = vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([2, 3])];
        Membership::new(configs, nodes).expect("every voter has a node")
    }

    #[test]
    fn entries_come_back_as_they_were() {
        let proposal = Bytes::from_static(b"opaque");
        let payloads = [LogPayload::Blank, LogPayload::Normal(Proposal(proposal)), LogPayload::Membership(joint())];
        for payload in payloads {
            let entry = LogEntry { log_id: log_id(3, 9), payload };
            assert_eq!(entry_from_pb(entry_to_pb(entry.clone())), Ok(entry));
        }
    }

    #[test]
    fn a_proposal_is_not_copied() {
        let proposal = Bytes::from(vec![1, 2, 3]);
        let entry = LogEntry { log_id: log_id(3, 9), payload: LogPayload::Normal(Proposal(proposal.clone())) };
        let back = entry_from_pb(entry_to_pb(entry)).expect("a sound entry");
        let LogPayload::Normal(Proposal(bytes)) = back.payload else { panic!("not a proposal: {back:?}") };
        assert_eq!(bytes.as_ptr(), proposal.as_ptr());
    }

    #[test]
    fn rows_come_back_as_they_were() {
        assert_eq!(decode_log_id(&encode_log_id(&log_id(2, 5))), Ok(log_id(2, 5)));
        assert_eq!(decode_membership(&encode_membership(&joint())), Ok(joint()));
        for stored in [StoredMembership::default(), StoredMembership::new(Some(log_id(1, 1)), joint())] {
            assert_eq!(decode_stored_membership(&encode_stored_membership(&stored)), Ok(stored));
        }
        for vote in [Vote::new(4, 2), Vote::new_committed(4, 2)] {
            assert_eq!(vote_from_pb(vote_to_pb(&vote)), Ok(vote));
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let voters = |ids: &[NodeId]| pb::VoterSet { node_ids: ids.to_vec() };
        let node = |node_id| pb::MemberNode { node_id, peer_address: String::new() };
        let refused = |configs, nodes| membership_from_pb(pb::Membership { configs, nodes }).expect_err("impossible");

        assert!(matches!(refused(vec![voters(&[1, 2])], vec![node(1)]), WireError::Membership(_)));
        assert!(matches!(refused(vec![voters(&[])], vec![node(1)]), WireError::Membership(_)));
        assert_eq!(refused(vec![voters(&[1, 1])], vec![node(1)]), WireError::Duplicate(1));
        assert_eq!(refused(vec![voters(&[1])], vec![node(1), node(1)]), WireError::Duplicate(1));

        assert_eq!(vote_from_pb(pb::Vote::default()), Err(WireError::Absent("Vote.leader_id")));
        assert_eq!(log_id_from_pb(pb::LogId::default()), Err(WireError::Absent("LogId.leader_id")));
        let without_payload = pb::LogEntry { log_id: Some(log_id_to_pb(&log_id(1, 1))), payload: None };
        assert_eq!(entry_from_pb(without_payload), Err(WireError::Absent("LogEntry.payload")));
        assert!(matches!(decode_log_id(&[0xff]), Err(WireError::Malformed(_))));
    }
}
