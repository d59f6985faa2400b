//! Outcomes of the core as Redis tells them.
//!
//! The payloads of the entries that an outcome names come beside it, in its order; `None` for one that is no longer in its
//! stream.

use millstream_streams::{
    Answer, Command, Delivered, Entry, EntryId, Found, GroupInfo, GroupRead, GroupReadFrom, LastIdBound, Outcome,
    PendingDetails, Query, ReadGroup, ReadStreams, Redelivery, Refusal, Removal, Reply as Done, StreamDetails,
    StreamInfo, StreamName,
};

use super::{NoGroup, Tell};
use crate::resp::reply::Reply;

type Payloads = std::vec::IntoIter<Option<Entry>>;

/// Tells the outcome of `command`.
pub(in crate::resp) fn tell(command: &Command, tell: Tell, outcome: &Outcome, payloads: Vec<Option<Entry>>) -> Reply {
    let mut payloads = payloads.into_iter();
    match outcome {
        Ok(done) => reply(command, tell, done, &mut payloads).unwrap_or_else(mismatched),
        Err(refusal) => refused(command, tell, refusal),
    }
}

/// Never: what is asked and what is answered go together.
fn mismatched() -> Reply {
    Reply::Error("ERR the outcome is that of another command; this is a fault of the program, please report it".into())
}

fn reply(command: &Command, tell: Tell, done: &Done, payloads: &mut Payloads) -> Option<Reply> {
    Some(match (tell, done) {
        (Tell::AppendedId, Done::Appended(appended)) => id(appended.id),
        (Tell::Ok(_), _) => Reply::OK,
        (Tell::Number(_), done) => Reply::Integer(number(done)?),
        (Tell::Removals, Done::EntriesDeleted(deleted)) => removals(&deleted.results),
        (Tell::Removals, Done::AckedAndDeleted(done)) => removals(&done.results),
        (Tell::Length, Done::Answer(Answer::Stream { info, .. })) => integer(info.length),
        (Tell::Entries, Done::Answer(Answer::Entries { ids, .. })) => entries(ids, payloads),
        (Tell::PendingSummary, Done::Answer(Answer::PendingSummary(summary))) => {
            let consumers = summary.consumers.iter().map(|row| {
                // The count is a string, as in Redis.
                Reply::Array(vec![text(row.consumer.as_str()), Reply::text(row.count.to_string())])
            });
            let consumers: Vec<_> = consumers.collect();
            Reply::Array(vec![
                integer(summary.count),
                summary.min_id.map_or(Reply::Null, id),
                summary.max_id.map_or(Reply::Null, id),
                if summary.count == 0 { Reply::NullArray } else { Reply::Array(consumers) },
            ])
        }
        (Tell::PendingList, Done::Answer(Answer::Pending(page))) => {
            let rows = page.entries.iter().map(|row| {
                let consumer = row.consumer.as_ref().map_or("", |consumer| consumer.as_str());
                let idle = row.idle_ms.map_or(Reply::Integer(-1), integer);
                Reply::Array(vec![id(row.id), text(consumer), idle, integer(row.delivery_count)])
            });
            Reply::Array(rows.collect())
        }
        (Tell::Claimed { ids_only }, Done::Claimed(claimed)) => claimed_entries(&claimed.ids, ids_only, payloads),
        (Tell::AutoClaimed { ids_only }, Done::AutoClaimed(claimed)) => Reply::Array(vec![
            id(claimed.cursor),
            claimed_entries(&claimed.ids, ids_only, payloads),
            Reply::Array(claimed.deleted.iter().copied().map(id).collect()),
        ]),
        (Tell::StreamInfo, Done::Answer(Answer::Stream { info, ids })) => {
            let mut fields = head(info);
            fields.push(("groups", integer(info.groups)));
            // One entry may be both ends; then it stands twice.
            let found: Vec<_> = ids.iter().map(|_| payloads.next().flatten()).collect();
            let end = |at: Option<&Option<Entry>>| at.and_then(Option::as_ref).map_or(Reply::Null, entry);
            fields.push(("first-entry", end(found.first())));
            fields.push(("last-entry", end(found.last())));
            map(fields)
        }
        (Tell::StreamDetails, Done::Answer(Answer::Details { details, ids })) => {
            let mut fields = head(&details.info);
            fields.push(("entries", entries(ids, payloads)));
            fields.push(("groups", groups_in_full(details)));
            map(fields)
        }
        (Tell::Groups, Done::Answer(Answer::Groups { groups, .. })) => {
            let group = |group: &GroupInfo| {
                map(vec![
                    ("name", text(group.group.as_str())),
                    ("consumers", integer(group.consumers)),
                    ("pending", integer(group.pending)),
                    ("last-delivered-id", id(group.last_delivered_id)),
                    ("entries-read", group.entries_read.map_or(Reply::Null, integer)),
                    ("lag", group.lag.map_or(Reply::Null, integer)),
                ])
            };
            Reply::Array(groups.iter().map(group).collect())
        }
        (Tell::Consumers, Done::Answer(Answer::Consumers { consumers, .. })) => {
            let rows = consumers.iter().map(|consumer| {
                map(vec![
                    ("name", text(consumer.consumer.as_str())),
                    ("pending", integer(consumer.pending)),
                    ("idle", integer(consumer.idle_ms)),
                    ("inactive", consumer.inactive_ms.map_or(Reply::Integer(-1), integer)),
                ])
            });
            Reply::Array(rows.collect())
        }
        // What is told of a read without a wait, as within MULTI.
        (_, Done::Answer(Answer::Read(found))) => match command {
            Command::Query(Query::Read(asked)) => read(asked, found, payloads),
            _ => return None,
        },
        (_, Done::Delivered(delivered)) => match command {
            Command::ReadGroup(asked) => read_group(asked, delivered, payloads),
            _ => return None,
        },
        _ => return None,
    })
}

/// XREAD: the streams that have something to say.
pub(in crate::resp) fn read(asked: &ReadStreams, found: &[Found], payloads: &mut Payloads) -> Reply {
    let mut streams = Vec::new();
    for (asked, found) in asked.streams.iter().zip(found) {
        let entries = entries(&found.ids, payloads);
        if !found.ids.is_empty() {
            streams.push((text(asked.stream.as_str()), entries));
        }
    }
    if streams.is_empty() { Reply::NullArray } else { Reply::Pairs(streams) }
}

/// XREADGROUP: the same, and the histories, which are told also if they are empty.
pub(in crate::resp) fn read_group(asked: &ReadGroup, delivered: &Delivered, payloads: &mut Payloads) -> Reply {
    let mut streams = Vec::new();
    for (GroupRead { stream, from }, delivery) in asked.streams.iter().zip(&delivered.streams) {
        let is_new = *from == GroupReadFrom::New;
        let claims = is_new && asked.claim_min_idle_ms.is_some();
        // Claimed entries come first. The others are new.
        let new = Redelivery { idle_ms: 0, delivery_count: 0 };
        let before = delivery.claimed.iter().copied().chain(std::iter::repeat(new));
        let entries = delivery.ids.iter().zip(before).map(|(wanted, before)| {
            let (id, fields) = match payloads.next().flatten() {
                Some(found) => (id(found.id), fields(&found)),
                None => (id(*wanted), Reply::NullArray),
            };
            match claims {
                true => Reply::Array(vec![id, fields, integer(before.idle_ms), integer(before.delivery_count)]),
                false => Reply::Array(vec![id, fields]),
            }
        });
        let entries: Vec<_> = entries.collect();
        if !is_new || !entries.is_empty() {
            streams.push((text(stream.as_str()), Reply::Array(entries)));
        }
    }
    if streams.is_empty() { Reply::NullArray } else { Reply::Pairs(streams) }
}

fn number(done: &Done) -> Option<i64> {
    let number = match done {
        Done::Trimmed(trimmed) => trimmed.trimmed,
        Done::EntriesDeleted(deleted) => {
            deleted.results.iter().filter(|removal| **removal == Removal::Deleted).count() as u64
        }
        Done::Acked(acked) => acked.acknowledged,
        Done::Nacked(nacked) => nacked.released,
        Done::GroupDeleted(deleted) => deleted.existed.into(),
        Done::ConsumerCreated(created) => created.created.into(),
        Done::ConsumerDeleted(deleted) => deleted.pending,
        Done::StreamDeleted(deleted) => deleted.existed.into(),
        _ => return None,
    };
    Some(i64::try_from(number).unwrap_or(i64::MAX))
}

fn removals(removals: &[Removal]) -> Reply {
    let removal = |removal: &Removal| match removal {
        Removal::Deleted => Reply::Integer(1),
        Removal::NotFound => Reply::Integer(-1),
        Removal::Referenced => Reply::Integer(2),
    };
    Reply::Array(removals.iter().map(removal).collect())
}

/// What XINFO STREAM and its full form have in common. Of radix trees there are none here; Redis's names stay, as clients
/// look for them.
fn head(info: &StreamInfo) -> Vec<(&'static str, Reply)> {
    vec![
        ("length", integer(info.length)),
        ("radix-tree-keys", Reply::Integer(i64::from(0 < info.length))),
        ("radix-tree-nodes", Reply::Integer(1 + i64::from(0 < info.length))),
        ("last-generated-id", id(info.last_id)),
        ("max-deleted-entry-id", id(info.max_deleted_id)),
        ("entries-added", integer(info.entries_added)),
        ("recorded-first-entry-id", id(info.first.unwrap_or(EntryId::MIN))),
        ("idmp-duration", integer(info.config.idempotency_duration_s.into())),
        ("idmp-maxsize", integer(info.config.idempotency_keys_max.into())),
        ("pids-tracked", integer(info.producers)),
        ("iids-tracked", integer(info.idempotency_keys)),
        ("iids-added", integer(info.idempotency_keys_added)),
        ("iids-duplicates", integer(info.idempotency_duplicates)),
    ]
}

fn groups_in_full(details: &StreamDetails) -> Reply {
    let groups = details.groups.iter().map(|group| {
        let pending = |row: &PendingDetails| {
            let consumer = row.consumer.as_ref().map_or("", |consumer| consumer.as_str());
            Reply::Array(vec![id(row.id), text(consumer), integer(row.delivered_ms), integer(row.delivery_count)])
        };
        let consumers = group.consumers.iter().map(|consumer| {
            let pending = |row: &PendingDetails| {
                Reply::Array(vec![id(row.id), integer(row.delivered_ms), integer(row.delivery_count)])
            };
            map(vec![
                ("name", text(consumer.consumer.as_str())),
                ("seen-time", integer(consumer.seen_ms)),
                ("active-time", consumer.active_ms.map_or(Reply::Integer(-1), integer)),
                ("pel-count", integer(consumer.pending_count)),
                ("pending", Reply::Array(consumer.pending.iter().map(pending).collect())),
            ])
        });
        map(vec![
            ("name", text(group.info.group.as_str())),
            ("last-delivered-id", id(group.info.last_delivered_id)),
            ("entries-read", group.info.entries_read.map_or(Reply::Null, integer)),
            ("lag", group.info.lag.map_or(Reply::Null, integer)),
            ("pel-count", integer(group.info.pending)),
            ("nacked-count", integer(group.info.released)),
            ("pending", Reply::Array(group.pending.iter().map(pending).collect())),
            ("consumers", Reply::Array(consumers.collect())),
        ])
    });
    Reply::Array(groups.collect())
}

fn claimed_entries(ids: &[EntryId], ids_only: bool, payloads: &mut Payloads) -> Reply {
    if ids_only { Reply::Array(ids.iter().copied().map(id).collect()) } else { entries(ids, payloads) }
}

/// The entries that are still there.
fn entries(ids: &[EntryId], payloads: &mut Payloads) -> Reply {
    Reply::Array(payloads.take(ids.len()).flatten().map(|found| entry(&found)).collect())
}

/// An entry that is there.
pub(in crate::resp) fn entry(found: &Entry) -> Reply {
    Reply::Array(vec![id(found.id), fields(found)])
}

fn fields(found: &Entry) -> Reply {
    Reply::Array(found.fields.iter_bytes().flat_map(|(name, value)| [Reply::Bulk(name), Reply::Bulk(value)]).collect())
}

fn map(fields: Vec<(&'static str, Reply)>) -> Reply {
    Reply::Map(fields.into_iter().map(|(name, value)| (text(name), value)).collect())
}

fn id(id: EntryId) -> Reply {
    Reply::text(id.to_string())
}

fn text(text: &str) -> Reply {
    Reply::text(text)
}

fn integer(number: u64) -> Reply {
    Reply::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

/// A refusal in Redis's words.
fn refused(command: &Command, tell: Tell, refusal: &Refusal) -> Reply {
    let error = |text: String| Reply::Error(text);
    match refusal {
        Refusal::StreamNotFound { stream } => no_stream(command, tell, stream),
        Refusal::GroupNotFound { stream, group } => match tell {
            Tell::Number(NoGroup::Zero) if matches!(command, Command::Ack(_)) => Reply::Integer(0),
            Tell::Number(NoGroup::Required) if matches!(command, Command::DeleteGroup(_)) => Reply::Integer(0),
            Tell::Removals => no_removals(command),
            Tell::Ok(_) | Tell::Number(NoGroup::Required) | Tell::Consumers => {
                error(format!("NOGROUP No such consumer group '{group}' for key name '{stream}'"))
            }
            _ if matches!(command, Command::ReadGroup(_)) => error(format!(
                "NOGROUP No such key '{stream}' or consumer group '{group}' in XREADGROUP with GROUP option"
            )),
            _ => error(format!("NOGROUP No such key '{stream}' or consumer group '{group}'")),
        },
        Refusal::GroupExists { .. } => error("BUSYGROUP Consumer Group name already exists".into()),
        Refusal::IdZero => error("ERR The ID specified in XADD must be greater than 0-0".into()),
        Refusal::IdNotGreater { .. } => {
            error("ERR The ID specified in XADD is equal or smaller than the target stream top item".into())
        }
        Refusal::IdExhausted => {
            error("ERR The stream has exhausted the last possible ID, unable to add more items".into())
        }
        Refusal::LastIdTooSmall { bound, .. } => error(format!(
            "ERR The ID specified in XSETID is smaller than {}",
            match bound {
                LastIdBound::GivenMaxDeletedId => "the provided max_deleted_entry_id",
                LastIdBound::MaxDeletedId => "current max_deleted_entry_id",
                LastIdBound::LastEntry => "the target stream top item",
            }
        )),
        Refusal::EntriesAddedTooSmall { .. } => {
            error("ERR The entries_added specified in XSETID is smaller than the target stream length".into())
        }
        Refusal::EntryNotFound { .. } => error("ERR No such message in stream".into()),
        Refusal::IdempotencyConflict { .. } => {
            error("ERR IID already exists for this producer with a different stream ID".into())
        }
        other => error(format!("ERR {other}")),
    }
}

fn no_stream(command: &Command, tell: Tell, stream: &StreamName) -> Reply {
    match (tell, command) {
        (Tell::AppendedId, _) => Reply::Null,
        (Tell::Length | Tell::Number(NoGroup::Zero), _) => Reply::Integer(0),
        (Tell::Entries, _) => Reply::Array(Vec::new()),
        (Tell::Removals, command) => no_removals(command),
        (Tell::Ok(NoGroup::Required) | Tell::Number(NoGroup::Required), _) => key_required(),
        (Tell::Number(NoGroup::Either), Command::Nack(nack)) => {
            Reply::Error(format!("NOGROUP No such key '{stream}' or consumer group '{}'", nack.group))
        }
        _ => Reply::Error("ERR no such key".into()),
    }
}

/// -1 for each id.
fn no_removals(command: &Command) -> Reply {
    let ids = match command {
        Command::DeleteEntries(command) => command.ids.len(),
        Command::AckAndDelete(command) => command.ids.len(),
        _ => 0,
    };
    Reply::Array(vec![Reply::Integer(-1); ids])
}

/// What most subcommands of XGROUP say if there is no stream.
pub(super) fn key_required() -> Reply {
    Reply::Error(
        "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM option \
         to create an empty stream automatically."
            .into(),
    )
}
