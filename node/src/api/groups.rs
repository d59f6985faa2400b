//! The rpcs on consumer groups.

use millstream_proto::v1 as pb;
use millstream_proto::v1::consumer_group_service_server::ConsumerGroupService;
use millstream_streams::{
    Ack, AutoClaim, Claim, CreateConsumer, CreateGroup, DeleteConsumer, DeleteGroup, Entry, EntryId, PendingQuery,
    Reply, SetGroupPosition,
};
use tonic::{Request, Response, Status};

use super::convert::{self, Result};
use super::errors::Failure;
use super::{Api, read_group, reply};

/// Bytes of a pending entry in a list, beside its consumer's name.
const PENDING_BYTES: usize = 64;

/// What tonic wants of a handler.
type Answer<T> = std::result::Result<Response<T>, Status>;

#[tonic::async_trait]
impl ConsumerGroupService for Api {
    async fn create_group(&self, request: Request<pb::CreateGroupRequest>) -> Answer<pb::CreateGroupResponse> {
        Ok(Response::new(create_group(self, request.into_inner()).await?))
    }

    async fn set_group_position(
        &self,
        request: Request<pb::SetGroupPositionRequest>,
    ) -> Answer<pb::SetGroupPositionResponse> {
        Ok(Response::new(set_group_position(self, request.into_inner()).await?))
    }

    async fn delete_group(&self, request: Request<pb::DeleteGroupRequest>) -> Answer<pb::DeleteGroupResponse> {
        Ok(Response::new(delete_group(self, request.into_inner()).await?))
    }

    async fn create_consumer(&self, request: Request<pb::CreateConsumerRequest>) -> Answer<pb::CreateConsumerResponse> {
        Ok(Response::new(create_consumer(self, request.into_inner()).await?))
    }

    async fn delete_consumer(&self, request: Request<pb::DeleteConsumerRequest>) -> Answer<pb::DeleteConsumerResponse> {
        Ok(Response::new(delete_consumer(self, request.into_inner()).await?))
    }

    async fn read_group(&self, request: Request<pb::ReadGroupRequest>) -> Answer<pb::ReadGroupResponse> {
        Ok(Response::new(read_group::read_group(self, request.into_inner()).await?))
    }

    async fn ack(&self, request: Request<pb::AckRequest>) -> Answer<pb::AckResponse> {
        Ok(Response::new(ack(self, request.into_inner()).await?))
    }

    async fn claim(&self, request: Request<pb::ClaimRequest>) -> Answer<pb::ClaimResponse> {
        Ok(Response::new(claim(self, request.into_inner()).await?))
    }

    async fn auto_claim(&self, request: Request<pb::AutoClaimRequest>) -> Answer<pb::AutoClaimResponse> {
        Ok(Response::new(auto_claim(self, request.into_inner()).await?))
    }

    async fn get_pending(&self, request: Request<pb::GetPendingRequest>) -> Answer<pb::GetPendingResponse> {
        Ok(Response::new(get_pending(self, request.into_inner()).await?))
    }

    async fn list_pending(&self, request: Request<pb::ListPendingRequest>) -> Answer<pb::ListPendingResponse> {
        Ok(Response::new(list_pending(self, request.into_inner()).await?))
    }

    async fn list_groups(&self, request: Request<pb::ListGroupsRequest>) -> Answer<pb::ListGroupsResponse> {
        Ok(Response::new(list_groups(self, request.into_inner()).await?))
    }

    async fn list_consumers(&self, request: Request<pb::ListConsumersRequest>) -> Answer<pb::ListConsumersResponse> {
        Ok(Response::new(list_consumers(self, request.into_inner()).await?))
    }
}

async fn create_group(api: &Api, request: pb::CreateGroupRequest) -> Result<pb::CreateGroupResponse> {
    let command = CreateGroup {
        stream: convert::stream(&request.stream)?,
        group: convert::group(&request.group)?,
        position: convert::group_position(request.position)?,
        create_stream: request.create_stream,
        entries_read: request.entries_read,
    };
    let done = api.execute(convert::request(request.request)?, command).await?;
    let Reply::GroupCreated(_) = &done.reply else { return Err(Failure::mismatched()) };
    Ok(pb::CreateGroupResponse { header: api.header(), receipt: done.receipt })
}

async fn set_group_position(api: &Api, request: pb::SetGroupPositionRequest) -> Result<pb::SetGroupPositionResponse> {
    let command = SetGroupPosition {
        stream: convert::stream(&request.stream)?,
        group: convert::group(&request.group)?,
        position: convert::group_position(request.position)?,
        entries_read: request.entries_read,
    };
    let done = api.execute(convert::request(request.request)?, command).await?;
    let Reply::GroupPositionSet(_) = &done.reply else { return Err(Failure::mismatched()) };
    Ok(pb::SetGroupPositionResponse { header: api.header(), receipt: done.receipt })
}

async fn delete_group(api: &Api, request: pb::DeleteGroupRequest) -> Result<pb::DeleteGroupResponse> {
    let command = DeleteGroup { stream: convert::stream(&request.stream)?, group: convert::group(&request.group)? };
    let done = api.execute(convert::request(request.request)?, command).await?;
    let Reply::GroupDeleted(deleted) = &done.reply else { return Err(Failure::mismatched()) };
    Ok(pb::DeleteGroupResponse { header: api.header(), deleted: deleted.existed, receipt: done.receipt })
}

async fn create_consumer(api: &Api, request: pb::CreateConsumerRequest) -> Result<pb::CreateConsumerResponse> {
    let command = CreateConsumer {
        stream: convert::stream(&request.stream)?,
        group: convert::group(&request.group)?,
        consumer: convert::consumer(&request.consumer)?,
    };
    let done = api.execute(convert::request(request.request)?, command).await?;
    let Reply::ConsumerCreated(created) = &done.reply else { return Err(Failure::mismatched()) };
    Ok(pb::CreateConsumerResponse { header: api.header(), created: created.created, receipt: done.receipt })
}

async fn delete_consumer(api: &Api, request: pb::DeleteConsumerRequest) -> Result<pb::DeleteConsumerResponse> {
    let command = DeleteConsumer {
        stream: convert::stream(&request.stream)?,
        group: convert::group(&request.group)?,
        consumer: convert::consumer(&request.consumer)?,
    };
    let done = api.execute(convert::request(request.request)?, command).await?;
    let Reply::ConsumerDeleted(deleted) = &done.reply else { return Err(Failure::mismatched()) };
    Ok(pb::DeleteConsumerResponse { header: api.header(), pending: deleted.pending, receipt: done.receipt })
}

async fn ack(api: &Api, request: pb::AckRequest) -> Result<pb::AckResponse> {
    let command = Ack {
        stream: convert::stream(&request.stream)?,
        group: convert::group(&request.group)?,
        ids: convert::ids(&request.ids, 1)?,
    };
    let done = api.execute(convert::request(request.request)?, command).await?;
    let Reply::Acked(acked) = &done.reply else { return Err(Failure::mismatched()) };
    Ok(pb::AckResponse { header: api.header(), acknowledged: acked.acknowledged, receipt: done.receipt })
}

async fn claim(api: &Api, request: pb::ClaimRequest) -> Result<pb::ClaimResponse> {
    let command = Claim {
        stream: convert::stream(&request.stream)?,
        group: convert::group(&request.group)?,
        consumer: convert::consumer(&request.consumer)?,
        min_idle_ms: request.min_idle_ms,
        ids: convert::ids(&request.ids, 0)?,
        delivery_time: convert::delivery_time(request.delivery_time),
        delivery_count: request.delivery_count,
        force: request.force,
        ids_only: request.ids_only,
        last_id: request.last_id.map(convert::id),
    };
    let done = api.execute(convert::request(request.request)?, command).await?;
    let Reply::Claimed(claimed) = &done.reply else { return Err(Failure::mismatched()) };
    let entries = claimed_entries(&claimed.ids, &done.entries);
    Ok(pb::ClaimResponse { header: api.header(), entries, receipt: done.receipt })
}

async fn auto_claim(api: &Api, request: pb::AutoClaimRequest) -> Result<pb::AutoClaimResponse> {
    let command = AutoClaim {
        stream: convert::stream(&request.stream)?,
        group: convert::group(&request.group)?,
        consumer: convert::consumer(&request.consumer)?,
        min_idle_ms: request.min_idle_ms,
        start: convert::range_start(request.start)?,
        count: convert::count("count", request.count, convert::DELIVERY_DEFAULT)?,
        ids_only: request.ids_only,
    };
    let done = api.execute(convert::request(request.request)?, command).await?;
    let Reply::AutoClaimed(claimed) = &done.reply else { return Err(Failure::mismatched()) };
    Ok(pb::AutoClaimResponse {
        header: api.header(),
        cursor: Some(reply::id(claimed.cursor)),
        entries: claimed_entries(&claimed.ids, &done.entries),
        deleted_ids: reply::ids(claimed.deleted.iter().copied()),
        receipt: done.receipt,
    })
}

/// Without payloads (`ids_only`, or a repeat whose entries are gone by now) the ids alone.
fn claimed_entries(ids: &[EntryId], payloads: &[Option<Entry>]) -> Vec<pb::Entry> {
    let mut payloads = payloads.iter().map(Option::as_ref);
    let entry = |id: &EntryId| payloads.next().flatten().map_or_else(|| reply::bare_entry(*id), reply::entry);
    ids.iter().map(entry).collect()
}

async fn get_pending(api: &Api, request: pb::GetPendingRequest) -> Result<pb::GetPendingResponse> {
    let (stream, group) = (convert::stream(&request.stream)?, convert::group(&request.group)?);
    api.barrier(convert::freshness(request.options)?).await?;
    let summary = api.replica.with_state(|state| state.pending_summary(&stream, &group))?;
    let consumers = summary.consumers.iter();
    let consumers = consumers.map(|(name, count)| pb::ConsumerPending { consumer: name.to_string(), count: *count });
    Ok(pb::GetPendingResponse {
        header: api.header(),
        count: summary.count,
        min_id: summary.min_id.map(reply::id),
        max_id: summary.max_id.map(reply::id),
        consumers: consumers.collect(),
    })
}

async fn list_pending(api: &Api, request: pb::ListPendingRequest) -> Result<pb::ListPendingResponse> {
    let query = PendingQuery {
        stream: convert::stream(&request.stream)?,
        group: convert::group(&request.group)?,
        start: convert::range_start(request.start)?,
        end: convert::range_end(request.end)?,
        count: convert::count("count", request.count, convert::PAGE_DEFAULT)? as usize,
        consumer: request.consumer.as_deref().map(convert::consumer).transpose()?,
        min_idle_ms: request.min_idle_ms,
    };
    api.barrier(convert::freshness(request.options)?).await?;
    let now_ms = api.replica.now_ms();
    let pending = api.replica.with_state(|state| state.pending_list(&query, now_ms))?;

    // Fewer than `count` would mean "no more", so a list too large to send is refused rather than cut.
    let mut bytes_left = api.limits.response_bytes_max;
    let fitting = pending.iter().take_while(|entry| {
        let bytes = entry.consumer.as_str().len() + PENDING_BYTES;
        let fits = bytes <= bytes_left;
        bytes_left = bytes_left.saturating_sub(bytes);
        fits
    });
    let fitting = fitting.count();
    if fitting < pending.len() {
        return Err(Failure::too_large("count", fitting as u64, "entries with consumer names as long as these"));
    }
    let entries = pending.into_iter().map(|entry| pb::PendingEntry {
        id: Some(reply::id(entry.id)),
        consumer: entry.consumer.to_string(),
        idle_ms: entry.idle_ms,
        delivery_count: entry.delivery_count,
    });
    Ok(pb::ListPendingResponse { header: api.header(), entries: entries.collect() })
}

async fn list_groups(api: &Api, request: pb::ListGroupsRequest) -> Result<pb::ListGroupsResponse> {
    let stream = convert::stream(&request.stream)?;
    api.barrier(convert::freshness(request.options)?).await?;
    let groups = api.replica.with_state(|state| state.groups(&stream))?;
    let groups = groups.into_iter().map(|info| pb::GroupInfo {
        group: info.group.to_string(),
        consumers: info.consumers,
        pending: info.pending,
        last_delivered_id: Some(reply::id(info.last_delivered_id)),
        entries_read: info.entries_read,
        lag: info.lag,
    });
    Ok(pb::ListGroupsResponse { header: api.header(), groups: groups.collect() })
}

async fn list_consumers(api: &Api, request: pb::ListConsumersRequest) -> Result<pb::ListConsumersResponse> {
    let (stream, group) = (convert::stream(&request.stream)?, convert::group(&request.group)?);
    api.barrier(convert::freshness(request.options)?).await?;
    let now_ms = api.replica.now_ms();
    let consumers = api.replica.with_state(|state| state.consumers(&stream, &group, now_ms))?;
    let consumers = consumers.into_iter().map(|info| pb::ConsumerInfo {
        consumer: info.consumer.to_string(),
        pending: info.pending,
        idle_ms: info.idle_ms,
        inactive_ms: info.inactive_ms,
    });
    Ok(pb::ListConsumersResponse { header: api.header(), consumers: consumers.collect() })
}
