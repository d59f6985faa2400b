//! The answer to one operation of a batch.

use millstream_proto::v1 as pb;
use millstream_proto::v1::batch_result::Result as Kind;
use millstream_streams::{Answer, Command, Outcome, Query, Reply};

use super::{Payloads, Room, groups, streams};
use crate::api::convert::Result;
use crate::api::errors::Failure;

/// What came of `operation`. `payloads` are those of all operations, those before this one taken.
pub(in crate::api) fn batch_result(
    operation: &Command,
    outcome: &Outcome,
    payloads: &mut Payloads,
    room: &mut Room,
) -> Result<pb::BatchResult> {
    let result = match outcome {
        Err(refusal) => Kind::Error(Failure::from(refusal.clone()).into()),
        Ok(Reply::Answer(answer)) => self::answer(operation, answer, payloads, room)?,
        Ok(reply) => self::reply(operation, reply, payloads)?,
    };
    Ok(pb::BatchResult { result: Some(result) })
}

fn reply(operation: &Command, reply: &Reply, payloads: &mut Payloads) -> Result<Kind> {
    Ok(match (operation, reply) {
        (_, Reply::Appended(appended)) => Kind::Append(streams::append(appended)),
        (_, Reply::EntriesDeleted(deleted)) => Kind::DeleteEntries(streams::delete_entries(deleted)),
        (_, Reply::Trimmed(trimmed)) => Kind::Trim(streams::trim(trimmed)),
        (_, Reply::StreamDeleted(deleted)) => Kind::DeleteStream(streams::delete_stream(deleted)),
        (_, Reply::AllDeleted(deleted)) => Kind::DeleteAll(streams::delete_all(deleted)),
        (_, Reply::LastIdSet(_)) => Kind::SetLastId(pb::SetLastIdResponse::default()),
        (_, Reply::StreamConfigured(configured)) => Kind::ConfigureStream(streams::configure_stream(configured)),
        (_, Reply::IdempotencyRecorded(recorded)) => Kind::RecordIdempotency(streams::record_idempotency(recorded)),
        (_, Reply::GroupCreated(_)) => Kind::CreateGroup(pb::CreateGroupResponse::default()),
        (_, Reply::GroupPositionSet(_)) => Kind::SetGroupPosition(pb::SetGroupPositionResponse::default()),
        (_, Reply::GroupDeleted(deleted)) => Kind::DeleteGroup(groups::delete_group(deleted)),
        (_, Reply::ConsumerCreated(created)) => Kind::CreateConsumer(groups::create_consumer(created)),
        (_, Reply::ConsumerDeleted(deleted)) => Kind::DeleteConsumer(groups::delete_consumer(deleted)),
        (Command::ReadGroup(call), Reply::Delivered(delivered)) => {
            Kind::ReadGroup(groups::read_group(call, delivered, payloads)?)
        }
        (_, Reply::Acked(acked)) => Kind::Ack(groups::ack(acked)),
        (_, Reply::AckedAndDeleted(done)) => Kind::AckAndDelete(groups::ack_and_delete(done)),
        (_, Reply::Nacked(nacked)) => Kind::Nack(groups::nack(nacked)),
        (Command::Claim(call), Reply::Claimed(claimed)) => Kind::Claim(groups::claim(call, claimed, payloads)?),
        (Command::AutoClaim(call), Reply::AutoClaimed(claimed)) => {
            Kind::AutoClaim(groups::auto_claim(call, claimed, payloads)?)
        }
        _ => return Err(Failure::mismatched()),
    })
}

/// The answer to a query, which the core gave at the query's place.
fn answer(operation: &Command, answer: &Answer, payloads: &mut Payloads, room: &mut Room) -> Result<Kind> {
    let Command::Query(query) = operation else { return Err(Failure::mismatched()) };
    Ok(match (query, answer) {
        (Query::Range(_), Answer::Entries { ids, more }) => Kind::Range(streams::range(ids, *more, payloads)?),
        (Query::Read(call), Answer::Read(found)) => {
            Kind::Read(streams::read(call.streams.iter().map(|read| &read.stream), found, payloads)?)
        }
        (Query::Stream(stream), Answer::Stream { info, ids }) => {
            // Either may be missing, for want of room.
            let (mut first, mut last) = (None, None);
            for (id, entry) in ids.iter().zip(payloads.entries(ids)?) {
                let end = if first.is_none() && info.first == Some(*id) { &mut first } else { &mut last };
                *end = Some(entry);
            }
            Kind::GetStream(streams::get_stream(stream, info, first, last))
        }
        (Query::Details { stream, .. }, Answer::Details { details, ids }) => {
            let entries = payloads.entries(ids)?;
            Kind::InspectStream(streams::inspect_stream(stream, details, entries, room))
        }
        (Query::PendingSummary { .. }, Answer::PendingSummary(summary)) => {
            Kind::GetPending(groups::get_pending(summary, room))
        }
        (Query::Pending(query), Answer::Pending(page)) => {
            Kind::ListPending(groups::list_pending(page, query.count, room))
        }
        // A full page may be the last. Then the next one is empty.
        (Query::Groups { count, .. }, Answer::Groups { groups: found, more }) => {
            let more = *more || *count as usize <= found.len();
            Kind::ListGroups(groups::list_groups(found.clone(), more, room))
        }
        (Query::Consumers { count, .. }, Answer::Consumers { consumers: found, more }) => {
            let more = *more || *count as usize <= found.len();
            Kind::ListConsumers(groups::list_consumers(found.clone(), more, room))
        }
        _ => return Err(Failure::mismatched()),
    })
}
