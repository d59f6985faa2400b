//! The answers on streams.

use millstream_proto::v1 as pb;
use millstream_streams::{
    AllDeleted, Appended, EntriesDeleted, EntryId, Found, GroupDetails, IdempotencyRecorded, PendingDetails,
    References, Removal, Retention, StreamConfig, StreamConfigured, StreamDeleted, StreamDetails, StreamInfo,
    StreamName, StreamSummary, Trimmed,
};

use super::{Payloads, Room, id, removals};
use crate::api::convert::Result;

/// Bytes of a row of a list or an inspection, beside the names in it.
pub(super) const ROW_BYTES: usize = 64;

pub(in crate::api) fn append(appended: &Appended) -> pb::AppendResponse {
    pb::AppendResponse {
        id: Some(id(appended.id)),
        trimmed: appended.trimmed,
        duplicate: appended.duplicate,
        ..Default::default()
    }
}

pub(in crate::api) fn delete_entries(deleted: &EntriesDeleted) -> pb::DeleteEntriesResponse {
    let count = deleted.results.iter().filter(|result| **result == Removal::Deleted).count();
    pb::DeleteEntriesResponse { deleted: count as u64, results: removals(&deleted.results), ..Default::default() }
}

pub(in crate::api) fn trim(trimmed: &Trimmed) -> pb::TrimResponse {
    pb::TrimResponse { trimmed: trimmed.trimmed, ..Default::default() }
}

pub(in crate::api) fn delete_stream(deleted: &StreamDeleted) -> pb::DeleteStreamResponse {
    pb::DeleteStreamResponse { deleted: deleted.existed, ..Default::default() }
}

pub(in crate::api) fn delete_all(deleted: &AllDeleted) -> pb::DeleteAllResponse {
    pb::DeleteAllResponse { streams: deleted.streams, ..Default::default() }
}

pub(in crate::api) fn configure_stream(configured: &StreamConfigured) -> pb::ConfigureStreamResponse {
    pb::ConfigureStreamResponse { config: Some(config(&configured.config)), ..Default::default() }
}

pub(in crate::api) fn record_idempotency(recorded: &IdempotencyRecorded) -> pb::RecordIdempotencyResponse {
    pb::RecordIdempotencyResponse { added: recorded.added, ..Default::default() }
}

/// The ids of a range, answered within a batch.
pub(super) fn range(ids: &[EntryId], more: bool, payloads: &mut Payloads) -> Result<pb::RangeResponse> {
    Ok(pb::RangeResponse { entries: payloads.entries(ids)?, more, ..Default::default() })
}

/// What a read found, answered within a batch.
pub(super) fn read<'a>(
    streams: impl Iterator<Item = &'a StreamName>,
    found: &[Found],
    payloads: &mut Payloads,
) -> Result<pb::ReadResponse> {
    let stream = |(name, found): (&StreamName, &Found)| {
        Ok(pb::StreamEntries {
            stream: name.to_string(),
            entries: payloads.entries(&found.ids)?,
            next_after: Some(id(found.next_after)),
            more: found.more,
        })
    };
    Ok(pb::ReadResponse { streams: streams.zip(found).map(stream).collect::<Result<_>>()?, ..Default::default() })
}

pub(in crate::api) fn get_stream(
    name: &StreamName,
    info: &StreamInfo,
    first_entry: Option<pb::Entry>,
    last_entry: Option<pb::Entry>,
) -> pb::GetStreamResponse {
    pb::GetStreamResponse {
        header: None,
        stream: name.to_string(),
        length: info.length,
        last_id: Some(id(info.last_id)),
        max_deleted_id: Some(id(info.max_deleted_id)),
        entries_added: info.entries_added,
        groups: info.groups,
        first_entry,
        last_entry,
        bytes: info.bytes,
        last_change_index: info.last_change_index,
        config: Some(config(&info.config)),
        producers: Some(pb::ProducerInfo {
            producers: info.producers,
            keys: info.idempotency_keys,
            keys_added: info.idempotency_keys_added,
            duplicates: info.idempotency_duplicates,
        }),
    }
}

fn config(config: &StreamConfig) -> pb::StreamConfig {
    let StreamConfig { idempotency_duration_s, idempotency_keys_max, retention } = *config;
    let Retention { max_length, min_id, max_age_ms, max_bytes, references } = retention;
    let references = match references {
        References::Keep => pb::References::Keep,
        References::Delete => pb::References::Delete,
        References::Acked => pb::References::Acked,
    };
    let retention =
        pb::Retention { max_length, min_id: min_id.map(id), max_age_ms, max_bytes, references: references.into() };
    pb::StreamConfig { idempotency_duration_s, idempotency_keys_max, retention: Some(retention) }
}

/// A stream in full. What finds no room is left out, and the answer says so.
pub(in crate::api) fn inspect_stream(
    name: &StreamName,
    details: &StreamDetails,
    entries: Vec<pb::Entry>,
    room: &mut Room,
) -> pb::InspectStreamResponse {
    let mut truncated = details.truncated;
    let mut groups = Vec::with_capacity(details.groups.len());
    for group in &details.groups {
        if !room.take(group.info.group.as_str().len() + ROW_BYTES) {
            truncated = true;
            break;
        }
        groups.push(group_details(group, room, &mut truncated));
    }
    let stream = Some(get_stream(name, &details.info, None, None));
    pb::InspectStreamResponse { stream, entries, groups, truncated }
}

fn group_details(group: &GroupDetails, room: &mut Room, truncated: &mut bool) -> pb::GroupDetails {
    let pending = pending_details(&group.pending, room, truncated);
    let mut consumers = Vec::with_capacity(group.consumers.len());
    for consumer in &group.consumers {
        if !room.take(consumer.consumer.as_str().len() + ROW_BYTES) {
            *truncated = true;
            break;
        }
        consumers.push(pb::ConsumerDetails {
            consumer: consumer.consumer.to_string(),
            seen_ms: consumer.seen_ms,
            active_ms: consumer.active_ms,
            pending_count: consumer.pending_count,
            pending: pending_details(&consumer.pending, room, truncated),
        });
    }
    pb::GroupDetails {
        group: group.info.group.to_string(),
        last_delivered_id: Some(id(group.info.last_delivered_id)),
        entries_read: group.info.entries_read,
        lag: group.info.lag,
        pending_count: group.info.pending,
        released_count: group.info.released,
        pending,
        consumers,
    }
}

fn pending_details(pending: &[PendingDetails], room: &mut Room, truncated: &mut bool) -> Vec<pb::PendingDetails> {
    let owner_bytes = |row: &PendingDetails| row.consumer.as_ref().map_or(0, |name| name.as_str().len());
    let fitting = pending.iter().take_while(|row| room.take(owner_bytes(row) + ROW_BYTES));
    let rows: Vec<_> = fitting
        .map(|row| pb::PendingDetails {
            id: Some(id(row.id)),
            consumer: row.consumer.as_ref().map(ToString::to_string),
            delivered_ms: row.delivered_ms,
            delivery_count: row.delivery_count,
        })
        .collect();
    *truncated |= rows.len() < pending.len();
    rows
}

/// A page of streams. `more`: there are others behind them.
pub(in crate::api) fn list_streams(
    mut found: Vec<StreamSummary>,
    more: bool,
    room: &mut Room,
) -> pb::ListStreamsResponse {
    let more = room.cut(&mut found, |summary| summary.stream.as_str().len() + ROW_BYTES) || more;
    let next_page_token = found.last().filter(|_| more).map(|last| last.stream.to_string()).unwrap_or_default();
    let streams = found.into_iter().map(|summary| pb::StreamSummary {
        stream: summary.stream.to_string(),
        length: summary.length,
        last_id: Some(id(summary.last_id)),
        groups: summary.groups,
    });
    pb::ListStreamsResponse { streams: streams.collect(), next_page_token, ..Default::default() }
}
