//! The requests on consumer groups.

use millstream_proto::v1 as pb;
use millstream_streams::limits::GROUP_READ_STREAMS_MAX;
use millstream_streams::{
    Ack, AckAndDelete, AutoClaim, Claim, ConsumerName, CreateConsumer, CreateGroup, DeleteConsumer, DeleteGroup,
    DeliveryTime, GroupName, GroupRead, GroupReadFrom, Nack, NackMode, PendingQuery, ReadGroup, SetGroupPosition,
    StreamName,
};

use super::values::{
    DELIVERY_DEFAULT, PAGE_DEFAULT, check_streams, consumer, count, counts, foreign_token, group, group_position, id,
    ids, name_in_token, range_end, range_start, references, stream, stream_in,
};
use super::{Result, must_be_true, unknown_value, unset};

pub(in crate::api) use super::values::token_after;

pub(in crate::api) fn create_group(request: pb::CreateGroupRequest) -> Result<CreateGroup> {
    Ok(CreateGroup {
        stream: stream(&request.stream)?,
        group: group(&request.group)?,
        position: group_position(request.position)?,
        create_stream: request.create_stream,
        entries_read: request.entries_read,
    })
}

pub(in crate::api) fn set_group_position(request: pb::SetGroupPositionRequest) -> Result<SetGroupPosition> {
    Ok(SetGroupPosition {
        stream: stream(&request.stream)?,
        group: group(&request.group)?,
        position: group_position(request.position)?,
        entries_read: request.entries_read,
    })
}

pub(in crate::api) fn delete_group(request: pb::DeleteGroupRequest) -> Result<DeleteGroup> {
    Ok(DeleteGroup { stream: stream(&request.stream)?, group: group(&request.group)? })
}

pub(in crate::api) fn create_consumer(request: pb::CreateConsumerRequest) -> Result<CreateConsumer> {
    Ok(CreateConsumer {
        stream: stream(&request.stream)?,
        group: group(&request.group)?,
        consumer: consumer(&request.consumer)?,
    })
}

pub(in crate::api) fn delete_consumer(request: pb::DeleteConsumerRequest) -> Result<DeleteConsumer> {
    Ok(DeleteConsumer {
        stream: stream(&request.stream)?,
        group: group(&request.group)?,
        consumer: consumer(&request.consumer)?,
    })
}

pub(in crate::api) fn read_group(request: pb::ReadGroupRequest) -> Result<ReadGroup> {
    let (count, total_max) = counts(request.count, request.total_count, DELIVERY_DEFAULT)?;
    Ok(ReadGroup {
        group: group(&request.group)?,
        consumer: consumer(&request.consumer)?,
        streams: group_reads(&request.streams)?,
        count,
        no_ack: request.no_ack,
        bytes_max: request.max_bytes,
        total_max,
        claim_min_idle_ms: request.claim_min_idle_ms,
    })
}

pub(super) fn group_reads(streams: &[pb::GroupReadPosition]) -> Result<Vec<GroupRead>> {
    use pb::group_read_position::Position;
    check_streams(streams.len(), GROUP_READ_STREAMS_MAX)?;
    let read = |(i, asked): (usize, &pb::GroupReadPosition)| {
        let from = match asked.position {
            Some(Position::NewEntries(true)) => GroupReadFrom::New,
            Some(Position::NewEntries(false)) => return Err(must_be_true(format!("streams[{i}].new_entries"))),
            Some(Position::PendingAfter(after)) => GroupReadFrom::PendingAfter(id(after)),
            None => return Err(unset(format!("streams[{i}].position"))),
        };
        Ok(GroupRead { stream: stream_in(&format!("streams[{i}].stream"), &asked.stream)?, from })
    };
    streams.iter().enumerate().map(read).collect()
}

pub(in crate::api) fn ack(request: pb::AckRequest) -> Result<Ack> {
    Ok(Ack { stream: stream(&request.stream)?, group: group(&request.group)?, ids: ids(&request.ids, 1)? })
}

pub(in crate::api) fn ack_and_delete(request: pb::AckAndDeleteRequest) -> Result<AckAndDelete> {
    Ok(AckAndDelete {
        stream: stream(&request.stream)?,
        group: group(&request.group)?,
        ids: ids(&request.ids, 1)?,
        references: references("references", request.references)?,
    })
}

pub(in crate::api) fn nack(request: pb::NackRequest) -> Result<Nack> {
    Ok(Nack {
        stream: stream(&request.stream)?,
        group: group(&request.group)?,
        ids: ids(&request.ids, 1)?,
        mode: match pb::NackMode::try_from(request.mode) {
            Ok(pb::NackMode::Unspecified | pb::NackMode::Fail) => NackMode::Fail,
            Ok(pb::NackMode::Silent) => NackMode::Silent,
            Ok(pb::NackMode::Fatal) => NackMode::Fatal,
            Err(_) => return Err(unknown_value("mode")),
        },
        delivery_count: request.delivery_count,
        force: request.force,
    })
}

pub(in crate::api) fn claim(request: pb::ClaimRequest) -> Result<Claim> {
    Ok(Claim {
        stream: stream(&request.stream)?,
        group: group(&request.group)?,
        consumer: consumer(&request.consumer)?,
        min_idle_ms: request.min_idle_ms,
        ids: ids(&request.ids, 0)?,
        delivery_time: delivery_time(request.delivery_time),
        delivery_count: request.delivery_count,
        force: request.force,
        ids_only: request.ids_only,
        last_id: request.last_id.map(id),
    })
}

pub(in crate::api) fn auto_claim(request: pb::AutoClaimRequest) -> Result<AutoClaim> {
    Ok(AutoClaim {
        stream: stream(&request.stream)?,
        group: group(&request.group)?,
        consumer: consumer(&request.consumer)?,
        min_idle_ms: request.min_idle_ms,
        start: range_start(request.start)?,
        count: count("count", request.count, DELIVERY_DEFAULT)?,
        ids_only: request.ids_only,
    })
}

pub(super) fn delivery_time(time: Option<pb::claim_request::DeliveryTime>) -> DeliveryTime {
    match time {
        None => DeliveryTime::Now,
        Some(pb::claim_request::DeliveryTime::IdleMs(ms)) => DeliveryTime::IdleMs(ms),
        Some(pb::claim_request::DeliveryTime::UnixMs(ms)) => DeliveryTime::UnixMs(ms),
    }
}

pub(in crate::api) fn get_pending(request: pb::GetPendingRequest) -> Result<(StreamName, GroupName)> {
    Ok((stream(&request.stream)?, group(&request.group)?))
}

pub(in crate::api) fn list_pending(request: pb::ListPendingRequest) -> Result<PendingQuery> {
    Ok(PendingQuery {
        stream: stream(&request.stream)?,
        group: group(&request.group)?,
        start: range_start(request.start)?,
        end: range_end(request.end)?,
        count: count("count", request.count, PAGE_DEFAULT)?,
        consumer: request.consumer.as_deref().map(consumer).transpose()?,
        min_idle_ms: request.min_idle_ms,
    })
}

/// A page of the list of groups.
pub(in crate::api) struct GroupsPage {
    pub(in crate::api) stream: StreamName,
    /// The last name of the page before.
    pub(in crate::api) after: Option<GroupName>,
    pub(in crate::api) count: u32,
}

pub(in crate::api) fn list_groups(request: pb::ListGroupsRequest) -> Result<GroupsPage> {
    let after = name_in_token(&request.page_token)?.map(GroupName::new).transpose();
    Ok(GroupsPage {
        stream: stream(&request.stream)?,
        after: after.map_err(|_| foreign_token())?,
        count: count("page_size", request.page_size, PAGE_DEFAULT)?,
    })
}

/// A page of the list of consumers.
pub(in crate::api) struct ConsumersPage {
    pub(in crate::api) stream: StreamName,
    pub(in crate::api) group: GroupName,
    /// The last name of the page before.
    pub(in crate::api) after: Option<ConsumerName>,
    pub(in crate::api) count: u32,
}

pub(in crate::api) fn list_consumers(request: pb::ListConsumersRequest) -> Result<ConsumersPage> {
    let after = name_in_token(&request.page_token)?.map(ConsumerName::new).transpose();
    Ok(ConsumersPage {
        stream: stream(&request.stream)?,
        group: group(&request.group)?,
        after: after.map_err(|_| foreign_token())?,
        count: count("page_size", request.page_size, PAGE_DEFAULT)?,
    })
}
