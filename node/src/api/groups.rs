//! The rpcs on consumer groups.

use millstream_proto::v1 as pb;
use millstream_proto::v1::consumer_group_service_server::ConsumerGroupService;
use millstream_streams::{Reply, State};
use tonic::{Request, Response};

use super::convert::{self, Result};
use super::errors::Failure;
use super::reply::{self, Payloads, Room};
use super::{Answer, Api, read_group};

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

    async fn ack_and_delete(&self, request: Request<pb::AckAndDeleteRequest>) -> Answer<pb::AckAndDeleteResponse> {
        Ok(Response::new(ack_and_delete(self, request.into_inner()).await?))
    }

    async fn nack(&self, request: Request<pb::NackRequest>) -> Answer<pb::NackResponse> {
        Ok(Response::new(nack(self, request.into_inner()).await?))
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
    let identity = convert::request(request.request)?;
    let done = api.execute(identity, convert::create_group(request)?).await?;
    let Reply::GroupCreated(_) = &done.reply else { return Err(Failure::mismatched()) };
    Ok(pb::CreateGroupResponse { header: api.header(), receipt: done.receipt })
}

async fn set_group_position(api: &Api, request: pb::SetGroupPositionRequest) -> Result<pb::SetGroupPositionResponse> {
    let identity = convert::request(request.request)?;
    let done = api.execute(identity, convert::set_group_position(request)?).await?;
    let Reply::GroupPositionSet(_) = &done.reply else { return Err(Failure::mismatched()) };
    Ok(pb::SetGroupPositionResponse { header: api.header(), receipt: done.receipt })
}

async fn delete_group(api: &Api, request: pb::DeleteGroupRequest) -> Result<pb::DeleteGroupResponse> {
    let identity = convert::request(request.request)?;
    let done = api.execute(identity, convert::delete_group(request)?).await?;
    let Reply::GroupDeleted(deleted) = &done.reply else { return Err(Failure::mismatched()) };
    Ok(pb::DeleteGroupResponse { header: api.header(), receipt: done.receipt, ..reply::delete_group(deleted) })
}

async fn create_consumer(api: &Api, request: pb::CreateConsumerRequest) -> Result<pb::CreateConsumerResponse> {
    let identity = convert::request(request.request)?;
    let done = api.execute(identity, convert::create_consumer(request)?).await?;
    let Reply::ConsumerCreated(created) = &done.reply else { return Err(Failure::mismatched()) };
    Ok(pb::CreateConsumerResponse { header: api.header(), receipt: done.receipt, ..reply::create_consumer(created) })
}

async fn delete_consumer(api: &Api, request: pb::DeleteConsumerRequest) -> Result<pb::DeleteConsumerResponse> {
    let identity = convert::request(request.request)?;
    let done = api.execute(identity, convert::delete_consumer(request)?).await?;
    let Reply::ConsumerDeleted(deleted) = &done.reply else { return Err(Failure::mismatched()) };
    Ok(pb::DeleteConsumerResponse { header: api.header(), receipt: done.receipt, ..reply::delete_consumer(deleted) })
}

async fn ack(api: &Api, request: pb::AckRequest) -> Result<pb::AckResponse> {
    let identity = convert::request(request.request)?;
    let done = api.execute(identity, convert::ack(request)?).await?;
    let Reply::Acked(acked) = &done.reply else { return Err(Failure::mismatched()) };
    Ok(pb::AckResponse { header: api.header(), receipt: done.receipt, ..reply::ack(acked) })
}

async fn ack_and_delete(api: &Api, request: pb::AckAndDeleteRequest) -> Result<pb::AckAndDeleteResponse> {
    let identity = convert::request(request.request)?;
    let done = api.execute(identity, convert::ack_and_delete(request)?).await?;
    let Reply::AckedAndDeleted(results) = &done.reply else { return Err(Failure::mismatched()) };
    Ok(pb::AckAndDeleteResponse { header: api.header(), receipt: done.receipt, ..reply::ack_and_delete(results) })
}

async fn nack(api: &Api, request: pb::NackRequest) -> Result<pb::NackResponse> {
    let identity = convert::request(request.request)?;
    let done = api.execute(identity, convert::nack(request)?).await?;
    let Reply::Nacked(nacked) = &done.reply else { return Err(Failure::mismatched()) };
    Ok(pb::NackResponse { header: api.header(), receipt: done.receipt, ..reply::nack(nacked) })
}

async fn claim(api: &Api, request: pb::ClaimRequest) -> Result<pb::ClaimResponse> {
    let identity = convert::request(request.request)?;
    let call = convert::claim(request)?;
    let done = api.execute(identity, call.clone()).await?;
    let Reply::Claimed(claimed) = &done.reply else { return Err(Failure::mismatched()) };
    let response = reply::claim(&call, claimed, &mut Payloads::new(done.entries))?;
    Ok(pb::ClaimResponse { header: api.header(), receipt: done.receipt, ..response })
}

async fn auto_claim(api: &Api, request: pb::AutoClaimRequest) -> Result<pb::AutoClaimResponse> {
    let identity = convert::request(request.request)?;
    let call = convert::auto_claim(request)?;
    let done = api.execute(identity, call.clone()).await?;
    let Reply::AutoClaimed(claimed) = &done.reply else { return Err(Failure::mismatched()) };
    let response = reply::auto_claim(&call, claimed, &mut Payloads::new(done.entries))?;
    Ok(pb::AutoClaimResponse { header: api.header(), receipt: done.receipt, ..response })
}

async fn get_pending(api: &Api, request: pb::GetPendingRequest) -> Result<pb::GetPendingResponse> {
    let freshness = convert::freshness(request.options)?;
    let (stream, group) = convert::get_pending(request)?;
    api.barrier(freshness).await?;
    let summary = api.front.replica.with_state(|state| state.pending_summary(&stream, &group))?;
    Ok(pb::GetPendingResponse {
        header: api.header(),
        ..reply::get_pending(&summary, &mut Room::new(api.front.limits.response_bytes_max))
    })
}

async fn list_pending(api: &Api, request: pb::ListPendingRequest) -> Result<pb::ListPendingResponse> {
    let freshness = convert::freshness(request.options)?;
    let query = convert::list_pending(request)?;
    api.barrier(freshness).await?;
    let now_ms = api.front.replica.now_ms();
    let pending = api.front.replica.with_state(|state| state.pending_list(&query, now_ms))?;
    let response = reply::list_pending(&pending, query.count, &mut Room::new(api.front.limits.response_bytes_max));
    Ok(pb::ListPendingResponse { header: api.header(), ..response })
}

async fn list_groups(api: &Api, request: pb::ListGroupsRequest) -> Result<pb::ListGroupsResponse> {
    let freshness = convert::freshness(request.options)?;
    let convert::GroupsPage { stream, after, count } = convert::list_groups(request)?;
    api.barrier(freshness).await?;
    // One more than asked for says whether there is a next page.
    let mut found = api.front.replica.with_state(|state| state.groups(&stream, after.as_ref(), count + 1))?;
    let more = (count as usize) < found.len();
    found.truncate(count as usize);
    let page = reply::list_groups(found, more, &mut Room::new(api.front.limits.response_bytes_max));
    Ok(pb::ListGroupsResponse { header: api.header(), ..page })
}

async fn list_consumers(api: &Api, request: pb::ListConsumersRequest) -> Result<pb::ListConsumersResponse> {
    let freshness = convert::freshness(request.options)?;
    let convert::ConsumersPage { stream, group, after, count } = convert::list_consumers(request)?;
    api.barrier(freshness).await?;
    let now_ms = api.front.replica.now_ms();
    let look = |state: &State| state.consumers(&stream, &group, after.as_ref(), count + 1, now_ms);
    let mut found = api.front.replica.with_state(look)?;
    let more = (count as usize) < found.len();
    found.truncate(count as usize);
    let page = reply::list_consumers(found, more, &mut Room::new(api.front.limits.response_bytes_max));
    Ok(pb::ListConsumersResponse { header: api.header(), ..page })
}
