//! Who speaks to whom: the checks that keep a stranger, a namesake or a wiped node out of the vote.

use std::sync::Arc;

use millstream_proto::internal::v1 as pb;

use super::shared::Shared;
use crate::network::{IdentityError, PeerContext};
use crate::types::NodeId;

/// The only Raft group there is today.
pub(crate) const GROUP: u32 = 0;

/// Speaks for this node in [`crate::network`].
pub(crate) struct Identity(pub(crate) Arc<Shared>);

impl PeerContext for Identity {
    fn envelope(&self, to: NodeId) -> pb::Envelope {
        pb::Envelope {
            cluster_id: self.0.identities().cluster_id.to_string(),
            group_id: GROUP,
            from: self.0.node_id(),
            to,
            from_incarnation: self.0.data_dir.identity().incarnation,
            no_room: self.0.room.is_short(),
        }
    }

    fn check(&self, envelope: Option<&pb::Envelope>, from: Option<NodeId>) -> Result<(), IdentityError> {
        let Some(envelope) = envelope else {
            return Err(IdentityError::new("the message does not say who sends it"));
        };
        let me = self.0.node_id();
        if envelope.to != me {
            return Err(IdentityError::misdirected(format!(
                "the message is for node {}, but this is node {me}: check the peer addresses",
                envelope.to
            )));
        }
        if envelope.group_id != GROUP {
            return Err(IdentityError::misdirected(format!("group {} is not served here", envelope.group_id)));
        }
        if let Some(expected) = from
            && envelope.from != expected
        {
            return Err(IdentityError::new(format!(
                "node {} answers where node {expected} was expected: check the peer addresses",
                envelope.from
            )));
        }
        let identities = self.0.identities();
        let (ours, theirs) = (&*identities.cluster_id, envelope.cluster_id.as_str());
        // A new node does not know its cluster yet; it learns it from the log.
        if !ours.is_empty() && !theirs.is_empty() && ours != theirs {
            return Err(IdentityError::new(format!(
                "node {} belongs to cluster {theirs}, but node {me} to cluster {ours}: give it the right peers, or an \
                 empty data directory and a new node id",
                envelope.from
            )));
        }
        match identities.nodes.get(&envelope.from) {
            Some(known)
                if known.incarnation != envelope.from_incarnation
                    && !millstream_streams::mutant!(WipedNodeAccepted) =>
            {
                Err(IdentityError::new(format!(
                    "node {} has lost or replaced the data it was known by: start it with its old data directory, or with \
                 an empty one under a new node id",
                    envelope.from
                )))
            }
            _ => {
                self.0.room.note(envelope.from, envelope.no_room);
                Ok(())
            }
        }
    }
}
