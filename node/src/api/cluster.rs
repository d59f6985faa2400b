//! The rpc on the cluster. Needs no leader.

use millstream_proto::admin::v1 as pb;
use millstream_proto::admin::v1::cluster_service_server::ClusterService;
use tonic::{Request, Response, Status};

use super::Api;
use crate::replica::{self, MemberStatus, Role};

#[tonic::async_trait]
impl ClusterService for Api {
    async fn get_status(&self, _: Request<pb::GetStatusRequest>) -> Result<Response<pb::GetStatusResponse>, Status> {
        Ok(Response::new(status(self.replica.status())))
    }
}

fn status(status: replica::Status) -> pb::GetStatusResponse {
    let replica::Status {
        cluster_id,
        node_id,
        role,
        leader_id,
        term,
        last_log_index,
        committed_index,
        applied_index,
        checkpoint_index,
        durable_index,
        first_log_index,
        state_digest,
        members,
    } = status;
    let role = match role {
        Role::Leader => pb::NodeRole::Leader,
        Role::Follower => pb::NodeRole::Follower,
        Role::Candidate => pb::NodeRole::Candidate,
        Role::Learner => pb::NodeRole::Learner,
    };
    pb::GetStatusResponse {
        cluster_id: cluster_id.to_string(),
        node_id,
        role: role.into(),
        leader_id: leader_id.unwrap_or(0),
        term,
        last_log_index,
        committed_index,
        applied_index,
        checkpoint_index,
        state_digest: format!("{state_digest:032x}"),
        members: members.into_iter().map(member).collect(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        durable_index,
        first_log_index,
    }
}

fn member(member: MemberStatus) -> pb::Member {
    let MemberStatus { node_id, peer_address, client_address, voter, matched_index } = member;
    pb::Member { node_id, peer_address, client_address, voter, matched_index }
}
