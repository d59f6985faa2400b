//! The requests on streams.

use millstream_proto::v1 as pb;
use millstream_streams::limits::{NAME_BYTES_MAX, READ_STREAMS_MAX};
use millstream_streams::{
    Append, ConfigureStream, DeleteEntries, DeleteStream, RangeQuery, ReadFrom, ReadStreams, RecordIdempotency,
    Retention, SetLastId, StreamName, StreamRead, Trim,
};

use super::values::{
    INSPECT_DEFAULT, PAGE_DEFAULT, check_streams, count, counts, fields, id, idempotency, ids, key, new_id, page_token,
    producer, range_end, range_start, references, stream, stream_in, trim_policy,
};
use super::{Result, must_be_true, required, unset};
use crate::api::errors::Failure;
use crate::config::Limits;

pub(in crate::api) fn append(request: pb::AppendRequest, limits: &Limits) -> Result<Append> {
    if request.idempotency.is_some() && request.id.is_some() {
        return Err(Failure::invalid("idempotency", "only possible without `id`"));
    }
    Ok(Append {
        stream: stream(&request.stream)?,
        id: new_id(request.id)?,
        fields: fields(&request.fields, limits.entry_bytes_max)?,
        no_create: request.no_create,
        trim: request.trim.map(|policy| trim_policy("trim", policy)).transpose()?,
        idempotency: request.idempotency.map(idempotency).transpose()?,
    })
}

pub(in crate::api) fn range(request: pb::RangeRequest) -> Result<RangeQuery> {
    Ok(RangeQuery {
        stream: stream(&request.stream)?,
        start: range_start(request.start)?,
        end: range_end(request.end)?,
        reverse: request.reverse,
        count: count("count", request.count, PAGE_DEFAULT)?,
    })
}

pub(in crate::api) fn read(request: pb::ReadRequest) -> Result<ReadStreams> {
    let (count, total_max) = counts(request.count, request.total_count, PAGE_DEFAULT)?;
    Ok(ReadStreams { count, streams: stream_reads(&request.streams)?, total_max, bytes_max: request.max_bytes })
}

pub(super) fn stream_reads(streams: &[pb::ReadPosition]) -> Result<Vec<StreamRead>> {
    use pb::read_position::Position;
    check_streams(streams.len(), READ_STREAMS_MAX)?;
    let read = |(i, asked): (usize, &pb::ReadPosition)| {
        let from = match asked.position {
            Some(Position::After(after)) => ReadFrom::After(id(after)),
            Some(Position::NewEntries(true)) => ReadFrom::New,
            Some(Position::NewEntries(false)) => return Err(must_be_true(format!("streams[{i}].new_entries"))),
            Some(Position::LastEntry(true)) => ReadFrom::Last,
            Some(Position::LastEntry(false)) => return Err(must_be_true(format!("streams[{i}].last_entry"))),
            None => return Err(unset(format!("streams[{i}].position"))),
        };
        Ok(StreamRead { stream: stream_in(&format!("streams[{i}].stream"), &asked.stream)?, from })
    };
    streams.iter().enumerate().map(read).collect()
}

pub(in crate::api) fn delete_entries(request: pb::DeleteEntriesRequest) -> Result<DeleteEntries> {
    Ok(DeleteEntries {
        stream: stream(&request.stream)?,
        ids: ids(&request.ids, 1)?,
        references: references("references", request.references)?,
    })
}

pub(in crate::api) fn trim(request: pb::TrimRequest) -> Result<Trim> {
    let policy = required("policy", request.policy)?;
    Ok(Trim { stream: stream(&request.stream)?, policy: trim_policy("policy", policy)? })
}

pub(in crate::api) fn delete_stream(request: pb::DeleteStreamRequest) -> Result<DeleteStream> {
    Ok(DeleteStream { stream: stream(&request.stream)? })
}

pub(in crate::api) fn get_stream(request: pb::GetStreamRequest) -> Result<StreamName> {
    stream(&request.stream)
}

/// What an inspection asks for.
pub(in crate::api) struct Inspection {
    pub(in crate::api) stream: StreamName,
    /// Entries, and pending entries of each group and consumer, at most.
    pub(in crate::api) count: u32,
}

pub(in crate::api) fn inspect_stream(request: pb::InspectStreamRequest) -> Result<Inspection> {
    Ok(Inspection { stream: stream(&request.stream)?, count: count("count", request.count, INSPECT_DEFAULT)? })
}

pub(in crate::api) fn set_last_id(request: pb::SetLastIdRequest) -> Result<SetLastId> {
    Ok(SetLastId {
        stream: stream(&request.stream)?,
        last_id: id(required("last_id", request.last_id)?),
        entries_added: request.entries_added,
        max_deleted_id: request.max_deleted_id.map(id),
    })
}

pub(in crate::api) fn configure_stream(request: pb::ConfigureStreamRequest) -> Result<ConfigureStream> {
    Ok(ConfigureStream {
        stream: stream(&request.stream)?,
        create_stream: request.create_stream,
        idempotency_duration_s: request.idempotency_duration_s,
        idempotency_keys_max: request.idempotency_keys_max,
        retention: request.retention.map(retention).transpose()?,
    })
}

fn retention(retention: pb::Retention) -> Result<Retention> {
    Ok(Retention {
        max_length: retention.max_length,
        min_id: retention.min_id.map(id),
        max_age_ms: retention.max_age_ms,
        max_bytes: retention.max_bytes,
        references: references("retention.references", retention.references)?,
    })
}

pub(in crate::api) fn record_idempotency(request: pb::RecordIdempotencyRequest) -> Result<RecordIdempotency> {
    Ok(RecordIdempotency {
        stream: stream(&request.stream)?,
        producer: producer("producer_id", request.producer_id)?,
        key: key("key", request.key)?,
        id: id(required("id", request.id)?),
    })
}

/// A page of the list of streams.
pub(in crate::api) struct StreamsPage {
    pub(in crate::api) prefix: String,
    /// The last name of the page before.
    pub(in crate::api) after: Option<StreamName>,
    pub(in crate::api) count: usize,
}

pub(in crate::api) fn list_streams(request: pb::ListStreamsRequest) -> Result<StreamsPage> {
    if NAME_BYTES_MAX < request.prefix.len() {
        return Err(Failure::too_large("prefix", NAME_BYTES_MAX as u64, "bytes"));
    }
    Ok(StreamsPage {
        count: count("page_size", request.page_size, PAGE_DEFAULT)? as usize,
        after: page_token(&request.page_token, &request.prefix)?,
        prefix: request.prefix,
    })
}
