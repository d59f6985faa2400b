//! The requests that have nothing to choose, for a call by itself and as an operation of a batch.

use bytes::Bytes;
use millstream_proto::v1 as pb;

use crate::types::{to_id, to_ids};
use crate::{EntryId, GroupPosition, Trim};

pub(crate) fn trim(stream: impl Into<String>, trim: Trim) -> pb::TrimRequest {
    pb::TrimRequest { stream: stream.into(), policy: Some(trim.into()), request: None }
}

pub(crate) fn get_stream(stream: impl Into<String>) -> pb::GetStreamRequest {
    pb::GetStreamRequest { stream: stream.into(), options: None }
}

pub(crate) fn delete_stream(stream: impl Into<String>) -> pb::DeleteStreamRequest {
    pb::DeleteStreamRequest { stream: stream.into(), request: None }
}

pub(crate) fn record_idempotency(
    stream: impl Into<String>,
    producer: impl Into<Bytes>,
    key: impl Into<Bytes>,
    id: EntryId,
) -> pb::RecordIdempotencyRequest {
    let (producer_id, key, id) = (producer.into(), key.into(), Some(to_id(id)));
    pb::RecordIdempotencyRequest { stream: stream.into(), producer_id, key, id, request: None }
}

pub(crate) fn set_group_position(
    stream: impl Into<String>,
    group: impl Into<String>,
    position: GroupPosition,
    entries_read: Option<u64>,
) -> pb::SetGroupPositionRequest {
    let (stream, group, position) = (stream.into(), group.into(), Some(position.into()));
    pb::SetGroupPositionRequest { stream, group, position, entries_read, request: None }
}

pub(crate) fn delete_group(stream: impl Into<String>, group: impl Into<String>) -> pb::DeleteGroupRequest {
    pb::DeleteGroupRequest { stream: stream.into(), group: group.into(), request: None }
}

pub(crate) fn create_consumer(
    stream: impl Into<String>,
    group: impl Into<String>,
    consumer: impl Into<String>,
) -> pb::CreateConsumerRequest {
    let (stream, group, consumer) = (stream.into(), group.into(), consumer.into());
    pb::CreateConsumerRequest { stream, group, consumer, request: None }
}

pub(crate) fn delete_consumer(
    stream: impl Into<String>,
    group: impl Into<String>,
    consumer: impl Into<String>,
) -> pb::DeleteConsumerRequest {
    let (stream, group, consumer) = (stream.into(), group.into(), consumer.into());
    pb::DeleteConsumerRequest { stream, group, consumer, request: None }
}

pub(crate) fn ack(
    stream: impl Into<String>,
    group: impl Into<String>,
    ids: impl IntoIterator<Item = EntryId>,
) -> pb::AckRequest {
    pb::AckRequest { stream: stream.into(), group: group.into(), ids: to_ids(ids), request: None }
}

pub(crate) fn get_pending(stream: impl Into<String>, group: impl Into<String>) -> pb::GetPendingRequest {
    pb::GetPendingRequest { stream: stream.into(), group: group.into(), options: None }
}

/// The page after the one whose token is `page`.
pub(crate) fn list_groups(stream: impl Into<String>, page: Option<Bytes>) -> pb::ListGroupsRequest {
    let page_token = page.unwrap_or_default();
    pb::ListGroupsRequest { stream: stream.into(), options: None, page_size: 0, page_token }
}

/// The page after the one whose token is `page`.
pub(crate) fn list_consumers(
    stream: impl Into<String>,
    group: impl Into<String>,
    page: Option<Bytes>,
) -> pb::ListConsumersRequest {
    let (stream, group, page_token) = (stream.into(), group.into(), page.unwrap_or_default());
    pb::ListConsumersRequest { stream, group, options: None, page_size: 0, page_token }
}
