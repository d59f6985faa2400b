//! The answers on consumer groups.

use millstream_proto::v1 as pb;
use millstream_streams::{
    Acked, AckedAndDeleted, AutoClaim, AutoClaimed, Claim, Claimed, ConsumerCreated, ConsumerDeleted, ConsumerInfo,
    ConsumerPending, Delivered, Delivery, Entry, EntryId, GroupDeleted, GroupInfo, GroupRead, GroupReadFrom, Nacked,
    PendingEntry, PendingPage, PendingSummary, ReadGroup, Redelivery,
};

use super::streams::ROW_BYTES;
use super::{Payloads, Room, bare_entry, entry, id, ids, removals};
use crate::api::convert::{Result, token_after};

pub(in crate::api) fn delete_group(deleted: &GroupDeleted) -> pb::DeleteGroupResponse {
    pb::DeleteGroupResponse { deleted: deleted.existed, ..Default::default() }
}

pub(in crate::api) fn create_consumer(created: &ConsumerCreated) -> pb::CreateConsumerResponse {
    pb::CreateConsumerResponse { created: created.created, ..Default::default() }
}

pub(in crate::api) fn delete_consumer(deleted: &ConsumerDeleted) -> pb::DeleteConsumerResponse {
    pb::DeleteConsumerResponse { pending: deleted.pending, ..Default::default() }
}

pub(in crate::api) fn read_group(
    call: &ReadGroup,
    delivered: &Delivered,
    payloads: &mut Payloads,
) -> Result<pb::ReadGroupResponse> {
    let claims = |read: &GroupRead| call.claim_min_idle_ms.is_some() && read.from == GroupReadFrom::New;
    let delivery = |(read, delivery): (&GroupRead, &Delivery)| {
        let entries = delivered_entries(delivery, claims(read), payloads)?;
        Ok(pb::StreamDelivery { stream: read.stream.to_string(), entries })
    };
    let streams = call.streams.iter().zip(&delivered.streams).map(delivery).collect::<Result<_>>()?;
    Ok(pb::ReadGroupResponse { streams, more: delivered.more, ..Default::default() })
}

/// What was delivered of one stream. `claims`: it was read with claim_min_idle_ms, so each entry says what it was before.
fn delivered_entries(delivery: &Delivery, claims: bool, payloads: &mut Payloads) -> Result<Vec<pb::DeliveredEntry>> {
    // Claimed entries come first. The others are new.
    let new = Redelivery { idle_ms: 0, delivery_count: 0 };
    let before = delivery.claimed.iter().copied().chain(std::iter::repeat(new));
    let delivered = |(id, before): (&EntryId, Redelivery)| {
        let Redelivery { idle_ms, delivery_count } = before;
        Ok(pb::DeliveredEntry {
            redelivery: claims.then_some(pb::Redelivery { idle_ms, delivery_count }),
            ..delivered_entry(*id, payloads.next()?.as_ref())
        })
    };
    delivery.ids.iter().zip(before).map(delivered).collect()
}

fn delivered_entry(id: EntryId, payload: Option<&Entry>) -> pb::DeliveredEntry {
    match payload {
        Some(payload) => pb::DeliveredEntry { entry: Some(entry(payload)), deleted: false, redelivery: None },
        None => pb::DeliveredEntry { entry: Some(bare_entry(id)), deleted: true, redelivery: None },
    }
}

pub(in crate::api) fn ack(acked: &Acked) -> pb::AckResponse {
    pb::AckResponse { acknowledged: acked.acknowledged, ..Default::default() }
}

pub(in crate::api) fn ack_and_delete(done: &AckedAndDeleted) -> pb::AckAndDeleteResponse {
    pb::AckAndDeleteResponse { results: removals(&done.results), ..Default::default() }
}

pub(in crate::api) fn nack(nacked: &Nacked) -> pb::NackResponse {
    pb::NackResponse { released: nacked.released, ..Default::default() }
}

pub(in crate::api) fn claim(call: &Claim, claimed: &Claimed, payloads: &mut Payloads) -> Result<pb::ClaimResponse> {
    let entries = claimed_entries(&claimed.ids, call.ids_only, payloads)?;
    Ok(pb::ClaimResponse { entries, more: claimed.more, ..Default::default() })
}

pub(in crate::api) fn auto_claim(
    call: &AutoClaim,
    claimed: &AutoClaimed,
    payloads: &mut Payloads,
) -> Result<pb::AutoClaimResponse> {
    Ok(pb::AutoClaimResponse {
        cursor: Some(id(claimed.cursor)),
        entries: claimed_entries(&claimed.ids, call.ids_only, payloads)?,
        deleted_ids: ids(claimed.deleted.iter().copied()),
        ..Default::default()
    })
}

fn claimed_entries(ids: &[EntryId], ids_only: bool, payloads: &mut Payloads) -> Result<Vec<pb::Entry>> {
    if ids_only { Ok(ids.iter().map(|id| bare_entry(*id)).collect()) } else { payloads.entries(ids) }
}

pub(in crate::api) fn get_pending(summary: &PendingSummary, room: &mut Room) -> pb::GetPendingResponse {
    let fitting = summary.consumers.iter().take_while(|row| room.take(row.consumer.as_str().len() + ROW_BYTES));
    let show = |row: &ConsumerPending| pb::ConsumerPending { consumer: row.consumer.to_string(), count: row.count };
    let consumers: Vec<_> = fitting.map(show).collect();
    pb::GetPendingResponse {
        count: summary.count,
        min_id: summary.min_id.map(id),
        max_id: summary.max_id.map(id),
        more_consumers: summary.more || consumers.len() < summary.consumers.len(),
        consumers,
        ..Default::default()
    }
}

/// Pending entries, at most `count` as they were asked for.
pub(in crate::api) fn list_pending(page: &PendingPage, count: u32, room: &mut Room) -> pb::ListPendingResponse {
    let owner_bytes = |row: &PendingEntry| row.consumer.as_ref().map_or(0, |name| name.as_str().len());
    let fitting = page.entries.iter().take_while(|row| room.take(owner_bytes(row) + ROW_BYTES));
    let show = |row: &PendingEntry| pb::PendingEntry {
        id: Some(id(row.id)),
        consumer: row.consumer.as_ref().map(ToString::to_string),
        idle_ms: row.idle_ms,
        delivery_count: row.delivery_count,
    };
    let entries: Vec<_> = fitting.map(show).collect();
    let next = page.entries.get(entries.len()).map(|row| row.id).or(page.next);
    // A full page may be the last. Then the next one is empty.
    let is_full = count as usize <= entries.len();
    pb::ListPendingResponse { more: is_full || next.is_some(), next_start: next.map(id), entries, ..Default::default() }
}

/// A page of groups. `more`: there are others behind them.
pub(in crate::api) fn list_groups(mut found: Vec<GroupInfo>, more: bool, room: &mut Room) -> pb::ListGroupsResponse {
    let more = room.cut(&mut found, |info| info.group.as_str().len() + ROW_BYTES) || more;
    let next_page_token = found.last().filter(|_| more).map(|last| token_after(last.group.as_str()));
    let groups = found.into_iter().map(|info| pb::GroupInfo {
        group: info.group.to_string(),
        consumers: info.consumers,
        pending: info.pending,
        last_delivered_id: Some(id(info.last_delivered_id)),
        entries_read: info.entries_read,
        lag: info.lag,
        released: info.released,
    });
    pb::ListGroupsResponse {
        groups: groups.collect(),
        next_page_token: next_page_token.unwrap_or_default(),
        ..Default::default()
    }
}

/// A page of consumers. `more`: there are others behind them.
pub(in crate::api) fn list_consumers(
    mut found: Vec<ConsumerInfo>,
    more: bool,
    room: &mut Room,
) -> pb::ListConsumersResponse {
    let more = room.cut(&mut found, |info| info.consumer.as_str().len() + ROW_BYTES) || more;
    let next_page_token = found.last().filter(|_| more).map(|last| token_after(last.consumer.as_str()));
    let consumers = found.into_iter().map(|info| pb::ConsumerInfo {
        consumer: info.consumer.to_string(),
        pending: info.pending,
        idle_ms: info.idle_ms,
        inactive_ms: info.inactive_ms,
    });
    pb::ListConsumersResponse {
        consumers: consumers.collect(),
        next_page_token: next_page_token.unwrap_or_default(),
        ..Default::default()
    }
}
