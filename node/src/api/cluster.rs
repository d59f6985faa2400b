//! The rpcs on the cluster. The status needs no leader; the members are changed by it.

use std::collections::BTreeSet;
use std::time::Duration;

use millstream_proto::admin::v1 as pb;
use millstream_proto::admin::v1::backup_response::Part;
use millstream_proto::admin::v1::cluster_service_server::ClusterService;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::convert;
use super::errors::Failure;
use super::{Answer, Api};
use crate::replica::{self, MemberStatus, Replica, Role};

/// Longest wait for new voters.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Bytes of a backup in one message.
const BACKUP_CHUNK_BYTES: u64 = 512 << 10;
/// Messages of a backup that wait for the connection.
const BACKUP_AHEAD: usize = 2;
/// How often a client hears that its backup is being prepared.
const BACKUP_NOTICE: Duration = Duration::from_secs(1);
/// How long a client may take nothing of a backup.
const BACKUP_IDLE: Duration = Duration::from_secs(30);
/// Ids in one call.
const NODES_MAX: usize = 100;

#[tonic::async_trait]
impl ClusterService for Api {
    async fn get_status(&self, _: Request<pb::GetStatusRequest>) -> Result<Response<pb::GetStatusResponse>, Status> {
        Ok(Response::new(status(self.front.replica.status())))
    }

    async fn add_learner(&self, request: Request<pb::AddLearnerRequest>) -> Answer<pb::AddLearnerResponse> {
        let pb::AddLearnerRequest { node_id, peer_address } = request.into_inner();
        let node_id = self::node_id("node_id", node_id)?;
        let is_address = matches!(peer_address.rsplit_once(':'), Some((host, port))
            if !host.is_empty() && port.parse::<u16>().is_ok() && http::uri::Authority::try_from(&*peer_address).is_ok());
        if !is_address {
            return Err(Failure::invalid("peer_address", "expected host:port").into());
        }
        let limit = millstream_streams::limits::ADDRESS_BYTES_MAX;
        if limit < peer_address.len() {
            return Err(Failure::too_large("peer_address", limit as u64, "bytes").into());
        }
        self.front.replica.add_learner(node_id, &peer_address).await.map_err(Failure::from)?;
        Ok(Response::new(pb::AddLearnerResponse { members: self.members() }))
    }

    async fn change_voters(&self, request: Request<pb::ChangeVotersRequest>) -> Answer<pb::ChangeVotersResponse> {
        let pb::ChangeVotersRequest { add_node_ids, remove_node_ids, wait } = request.into_inner();
        let add = node_ids("add_node_ids", &add_node_ids)?;
        let remove = node_ids("remove_node_ids", &remove_node_ids)?;
        if add.is_empty() && remove.is_empty() {
            return Err(Failure::invalid("add_node_ids", "no node is to be added or removed").into());
        }
        let wait = convert::wait(wait)?;
        if WAIT_MAX < wait {
            return Err(Failure::too_large("wait", WAIT_MAX.as_secs(), "seconds").into());
        }
        self.front.replica.change_voters(&add, &remove, wait).await.map_err(Failure::from)?;
        Ok(Response::new(pb::ChangeVotersResponse { members: self.members() }))
    }

    async fn transfer_leader(&self, request: Request<pb::TransferLeaderRequest>) -> Answer<pb::TransferLeaderResponse> {
        let node_id = self::node_id("node_id", request.into_inner().node_id)?;
        let term = self.front.replica.transfer_leader(node_id).await.map_err(Failure::from)?;
        Ok(Response::new(pb::TransferLeaderResponse { term }))
    }

    type BackupStream = ReceiverStream<Result<pb::BackupResponse, Status>>;

    async fn backup(&self, _: Request<pb::BackupRequest>) -> Answer<Self::BackupStream> {
        let (parts, sent) = mpsc::channel(BACKUP_AHEAD);
        let replica = self.front.replica.clone();
        tokio::spawn(async move {
            if let Err(failure) = send_backup(&replica, &parts).await {
                // Nobody may be listening any more.
                let _ = parts.send(Err(failure.into())).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(sent)))
    }
}

/// Sends a backup, as long as somebody takes it.
async fn send_backup(
    replica: &Replica,
    parts: &mpsc::Sender<Result<pb::BackupResponse, Status>>,
) -> Result<(), Failure> {
    let send = async |part| {
        let sending = parts.send(Ok(pb::BackupResponse { part: Some(part) }));
        matches!(tokio::time::timeout(BACKUP_IDLE, sending).await, Ok(Ok(())))
    };
    let preparing = replica.backup();
    tokio::pin!(preparing);
    let backup = loop {
        tokio::select! {
            biased;
            backup = &mut preparing => break backup?,
            () = tokio::time::sleep(BACKUP_NOTICE) => if !send(Part::Preparing(true)).await { return Ok(()) },
        }
    };
    let (cluster_id, log_index, length) = (backup.cluster_id.to_string(), backup.log_index, backup.length());
    if !send(Part::Header(pb::BackupHeader { cluster_id, log_index, length })).await {
        return Ok(());
    }
    let mut offset = 0;
    while offset < length {
        let data = backup.read(offset, BACKUP_CHUNK_BYTES.min(length - offset) as usize).await;
        let data = data.map_err(replica::BackupError::Io)?;
        let (crc32c, next) = (crc32c::crc32c(&data), offset + data.len() as u64);
        if !send(Part::Chunk(pb::BackupChunk { offset, data, crc32c })).await {
            return Ok(());
        }
        offset = next;
    }
    send(Part::End(pb::BackupEnd { length })).await;
    Ok(())
}

impl Api {
    fn members(&self) -> Vec<pb::Member> {
        self.front.replica.status().members.into_iter().map(member).collect()
    }
}

fn node_id(field: &str, node_id: u64) -> Result<u64, Failure> {
    if node_id == 0 { Err(Failure::invalid(field, "a node's id is at least 1")) } else { Ok(node_id) }
}

fn node_ids(field: &str, ids: &[u64]) -> Result<BTreeSet<u64>, Failure> {
    if NODES_MAX < ids.len() {
        return Err(Failure::too_large(field, NODES_MAX as u64, "nodes"));
    }
    ids.iter().map(|id| node_id(field, *id)).collect()
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
        log_counts,
        nodes_without_room,
        state_digest,
        members,
        comparison,
        scrub,
        removed,
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
        log_syncs: log_counts.syncs,
        log_entries_synced: log_counts.entries,
        nodes_without_room,
        states_equal_index: comparison.equal_index,
        states_disputed: comparison.disputed.unwrap_or_default(),
        scrub_rounds: scrub.rounds,
        scrub_last_round_ms: scrub.last_round_ms.unwrap_or(0),
        removed,
    }
}

fn member(member: MemberStatus) -> pb::Member {
    let MemberStatus { node_id, peer_address, client_address, voter, matched_index } = member;
    pb::Member { node_id, peer_address, client_address, voter, matched_index }
}
