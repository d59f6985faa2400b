//! Who is in the cluster, and who leads it. Each call names what is to be, so that it can be repeated.

use std::collections::BTreeSet;
use std::time::Duration;

use millstream_proto::admin::v1 as admin;

use crate::{Client, Error, Member};

impl Client {
    /// Adds a node that waits to be added (`millstream-node --join`). It receives the log and has no vote; it may still
    /// be catching up when this returns the members. `node_id`: at least 1 and never used before in this cluster;
    /// `peer_address`: where other nodes reach it, host:port.
    ///
    /// Refused with MEMBERSHIP_REFUSED for an id that was used before or a member with another address; unavailable with
    /// MEMBERSHIP_NOT_READY if the node does not answer.
    pub async fn add_learner(&self, node_id: u64, peer_address: impl Into<String>) -> Result<Vec<Member>, Error> {
        let request = admin::AddLearnerRequest { node_id, peer_address: peer_address.into() };
        Ok(self.call(request).await?.members)
    }

    /// Gives votes to the learners `add` and removes the members `remove`, voters or not, in one step; returns the
    /// members. Waits up to `wait`, at most 30 s beyond the deadline, for new voters that are far behind. What is removed
    /// can never come back under its id.
    ///
    /// Refused with MEMBER_NOT_FOUND for a node that is not in the cluster, with MEMBERSHIP_REFUSED if no voter would
    /// remain; unavailable with MEMBERSHIP_NOT_READY if a node is still too far behind to vote.
    pub async fn change_voters(
        &self,
        add: impl IntoIterator<Item = u64>,
        remove: impl IntoIterator<Item = u64>,
        wait: Duration,
    ) -> Result<Vec<Member>, Error> {
        let sorted = |ids: BTreeSet<u64>| ids.into_iter().collect();
        let request = admin::ChangeVotersRequest {
            add_node_ids: sorted(add.into_iter().collect()),
            remove_node_ids: sorted(remove.into_iter().collect()),
            wait: prost_types::Duration::try_from(wait).ok(),
        };
        Ok(self.call(request).await?.members)
    }

    /// Hands leadership to a voter, waits until it leads, and returns its term.
    ///
    /// Refused with MEMBER_NOT_FOUND, or MEMBERSHIP_REFUSED for a learner; unavailable with MEMBERSHIP_NOT_READY if the
    /// node is too far behind or did not take over.
    pub async fn transfer_leader(&self, node_id: u64) -> Result<u64, Error> {
        Ok(self.call(admin::TransferLeaderRequest { node_id }).await?.term)
    }
}
