//! An action as calls of the client library, and the answer as an outcome.

use std::ops::Bound;
use std::time::Duration;

use millstream_client::{
    AckAndDelete, Append, AutoClaim, Batch, BatchMode, Claim, Client, ConfigureStream, CreateGroup, DeleteEntries,
    EntryId, Error, ErrorReason, Freshness, GroupPosition, ListPending, Nack, OperationResult, Read, ReadGroup,
    Receipt, References, Removal, proto,
};

use crate::history::{Action, After, Entry, Fresh, Id, Keep, Mode, Outcome, Pending, Placed, Put, Removed, Trim};

/// The field that holds an entry's content.
const CONTENT: &str = "content";
/// A stream that nobody creates.
const NOWHERE: &str = "nowhere";
/// For streams with keys: more than a simulation lasts and needs.
const KEYS: (Duration, u32) = (Duration::from_secs(86_400), 10_000);

/// Does it: the log index that the answer names, and what came of it.
pub(super) async fn perform(client: &Client, action: &Action) -> Result<(Option<u64>, Outcome), Error> {
    Ok(match action {
        Action::Append(put) => {
            let appended = client.append(append(put)).await?;
            (at(appended.receipt), Outcome::Appended(vec![placed(&appended)]))
        }
        Action::Batch { .. } => batch(client, action).await?,
        Action::Delete { stream, ids } => {
            let delete = DeleteEntries::of(stream, ids.iter().map(entry_id)).references(References::Acked);
            let done = client.delete_entries(delete).await?;
            (at(done.receipt), removed(&done.results))
        }
        Action::Trim { stream, trim } => {
            let done = client.trim(stream, to_trim(*trim)).await?;
            (at(done.receipt), Outcome::Trimmed(done.trimmed))
        }
        Action::Configure { stream } => {
            let configure = ConfigureStream::of(stream).create_stream();
            let configure = configure.idempotency_duration(KEYS.0).idempotency_keys_max(KEYS.1);
            (at(client.configure_stream(configure).await?.receipt), Outcome::Done(true))
        }
        Action::Range { .. } | Action::Read { .. } | Action::Describe { .. } => read(client, action).await?,
        Action::ListPending { group: (stream, group), count } => {
            let page = client.list_pending(ListPending::of(stream, group).count(*count as u32)).await?;
            let entries = page.entries.into_iter().map(|pending| Pending {
                id: id(pending.id),
                consumer: pending.consumer,
                deliveries: pending.delivery_count,
            });
            (None, Outcome::Pending { entries: entries.collect(), more: page.more })
        }
        Action::CountPending { group: (stream, group) } => {
            let summary = client.get_pending(stream, group).await?;
            let consumers = summary.consumers.into_iter().map(|consumer| (consumer.consumer, consumer.count));
            (None, Outcome::PendingCount { count: summary.count, consumers: consumers.collect() })
        }
        Action::CreateGroup { group: (stream, group), after } => {
            let create = CreateGroup::new(stream, group, position(*after)).create_stream();
            (at(client.create_group(create).await?), Outcome::Done(true))
        }
        Action::MoveGroup { group: (stream, group), after } => {
            let receipt = client.set_group_position(stream, group, position(*after), None).await?;
            (at(receipt), Outcome::Done(true))
        }
        Action::DeleteGroup { group: (stream, group) } => {
            let done = client.delete_group(stream, group).await?;
            (at(done.receipt), Outcome::Done(done.existed))
        }
        Action::CloseSessions => {
            client.close().await?;
            (None, Outcome::Done(true))
        }
        _ => consume(client, action).await?,
    })
}

async fn batch(client: &Client, action: &Action) -> Result<(Option<u64>, Outcome), Error> {
    let Action::Batch { puts, mode, guard, is_refused } = action else { return Ok((None, Outcome::Done(false))) };
    let mode = match mode {
        Mode::AllOrNothing => BatchMode::AllOrNothing,
        Mode::Continue => BatchMode::ContinueOnError,
    };
    let mut batch = puts.iter().fold(Batch::new().mode(mode), |batch, put| batch.add(append(put)));
    if *is_refused {
        batch = batch.add(Append::to(NOWHERE).field(CONTENT, "x").no_create());
    }
    if let Some(guard) = guard {
        batch = match guard.last_change {
            Some(index) => batch.unchanged(&guard.stream, index),
            None => batch.absent(&guard.stream),
        };
    }
    let done = client.batch(batch).await?;
    let results = done.results.into_iter().take(puts.len()).map(|result| match result {
        Ok(OperationResult::Append(appended)) => placed(&appended),
        Ok(other) => Placed::Refused(format!("{other:?}")),
        Err(error) => Placed::Refused(reason(&error)),
    });
    Ok((at(done.receipt), Outcome::Appended(results.collect())))
}

async fn read(client: &Client, action: &Action) -> Result<(Option<u64>, Outcome), Error> {
    Ok(match action {
        Action::Range { stream, reverse, beyond, count, fresh } => {
            let exclusive = |id: &Id| {
                let bound = proto::id_bound::Bound::Exclusive(proto::EntryId { ms: id.ms, seq: id.seq });
                proto::IdBound { bound: Some(bound) }
            };
            let beyond = beyond.as_ref().map(exclusive);
            let (start, end) = if *reverse { (None, beyond) } else { (beyond, None) };
            let (stream, reverse, count) = (stream.clone(), *reverse, *count as u32);
            let request = proto::RangeRequest { stream, start, end, reverse, count, options: None };
            let answer = client.with_freshness(freshness(*fresh)).call(request).await?;
            let entries = answer.entries.into_iter().map(|entry| {
                let id = entry.id.unwrap_or_default();
                let content = entry.fields.into_iter().find(|field| field.name == CONTENT);
                let content = content.map(|field| field.value.to_vec()).unwrap_or_default();
                Entry { id: Id { ms: id.ms, seq: id.seq }, content }
            });
            let outcome = Outcome::Read { entries: entries.collect(), more: answer.more };
            (answer.header.map(|header| header.applied_index), outcome)
        }
        Action::Read { stream, after, count, wait_ms, fresh } => {
            let read = match after {
                After::Id(after) => Read::new().after(stream, entry_id(after)),
                After::Arrival => Read::new().new_entries(stream),
            };
            let read = read.count(*count as u32).wait(Duration::from_millis(*wait_ms));
            let answer = client.with_freshness(freshness(*fresh)).read(read).await?;
            let (mut entries, mut more) = (Vec::new(), false);
            for read in answer {
                more |= read.more;
                entries.extend(read.entries.into_iter().filter_map(seen));
            }
            (None, Outcome::Read { entries, more })
        }
        Action::Describe { stream } => {
            let info = client.get_stream(stream).await?;
            let (length, last_id, added) = (info.length, id(info.last_id), info.entries_added);
            (None, Outcome::Described { length, last_id, added, last_change: info.last_change_index })
        }
        _ => (None, Outcome::Done(false)),
    })
}

async fn consume(client: &Client, action: &Action) -> Result<(Option<u64>, Outcome), Error> {
    let read_group = async |read: ReadGroup| {
        let answer = client.read_group(read).await?;
        let (mut entries, mut deleted) = (Vec::new(), Vec::new());
        for delivered in answer.streams.into_iter().flat_map(|delivery| delivery.entries) {
            match delivered.deleted {
                true => deleted.push(id(delivered.entry.id)),
                false => entries.extend(seen(delivered.entry)),
            }
        }
        Ok::<_, Error>((answer.receipt.and_then(at), Outcome::Delivered { entries, deleted }))
    };
    Ok(match action {
        Action::ReadGroup { group: (stream, group), consumer, count, wait_ms } => {
            let read = ReadGroup::new(group, consumer).new_entries(stream).count(*count as u32);
            read_group(read.wait(Duration::from_millis(*wait_ms))).await?
        }
        Action::ReadPending { group: (stream, group), consumer, after, count } => {
            let read = ReadGroup::new(group, consumer).pending_after(stream, entry_id(after));
            read_group(read.count(*count as u32)).await?
        }
        Action::Claim { group: (stream, group), consumer, ids, idle_min_ms } => {
            let claim = Claim::new(stream, group, consumer).ids(ids.iter().map(entry_id));
            let claimed = client.claim(claim.min_idle(Duration::from_millis(*idle_min_ms))).await?;
            // What was removed since has no fields; whoever claimed it is told so when it is repeated.
            let entries = claimed.entries.into_iter().filter_map(seen).collect();
            (at(claimed.receipt), Outcome::Delivered { entries, deleted: Vec::new() })
        }
        Action::AutoClaim { group: (stream, group), consumer, idle_min_ms, count } => {
            let claim = AutoClaim::new(stream, group, consumer, Duration::from_millis(*idle_min_ms));
            let claimed = client.auto_claim(claim.count(*count as u32).start(Bound::Unbounded)).await?;
            let entries = claimed.entries.into_iter().filter_map(seen).collect();
            let deleted = claimed.deleted_ids.into_iter().map(id).collect();
            (at(claimed.receipt), Outcome::Delivered { entries, deleted })
        }
        Action::Ack { group: (stream, group), ids } => {
            let acked = client.ack(stream, group, ids.iter().map(entry_id)).await?;
            (at(acked.receipt), Outcome::Acknowledged(acked.acknowledged))
        }
        Action::AckAndDelete { group: (stream, group), ids } => {
            let ack = AckAndDelete::new(stream, group, ids.iter().map(entry_id)).references(References::Acked);
            let done = client.ack_and_delete(ack).await?;
            (at(done.receipt), removed(&done.results))
        }
        Action::Nack { group: (stream, group), ids } => {
            let nacked = client.nack(Nack::new(stream, group, ids.iter().map(entry_id))).await?;
            (at(nacked.receipt), Outcome::Released(nacked.released))
        }
        _ => (None, Outcome::Done(false)),
    })
}

/// An error as an outcome.
pub(super) fn failed(error: &Error) -> Outcome {
    let text = error.to_string();
    if error.has_no_side_effects() {
        Outcome::NothingChanged { reason: reason(error), text }
    } else {
        Outcome::Unknown(text)
    }
}

/// The reason by its name in the contract; empty if no node gave one.
fn reason(error: &Error) -> String {
    let name = error.reason().map(|reason: ErrorReason| reason.as_str_name());
    name.map(|name| name.trim_start_matches("ERROR_REASON_").to_owned()).unwrap_or_default()
}

/// `None`: it has no fields.
pub(super) fn seen(entry: millstream_client::Entry) -> Option<Entry> {
    let content = entry.get(CONTENT)?.to_vec();
    Some(Entry { id: id(entry.id), content })
}

fn append(put: &Put) -> Append {
    let mut append = Append::to(&put.stream).field(CONTENT, put.content.clone());
    if let Some(id) = &put.id {
        append = append.id(entry_id(id));
    }
    if let Some((producer, key)) = &put.key {
        append = append.idempotency(producer.clone(), key.clone());
    }
    if let Some(trim) = put.trim {
        append = append.trim(to_trim(trim));
    }
    append
}

fn placed(appended: &millstream_client::Appended) -> Placed {
    match appended.duplicate {
        true => Placed::Before(id(appended.id)),
        false => Placed::At { id: id(appended.id), trimmed: appended.trimmed },
    }
}

fn removed(results: &[Removal]) -> Outcome {
    let removed = results.iter().map(|result| match result {
        Removal::Deleted => Removed::Deleted,
        Removal::NotFound => Removed::NotFound,
        Removal::Referenced | Removal::Unknown => Removed::Referenced,
    });
    Outcome::Removed(removed.collect())
}

fn to_trim(trim: Trim) -> millstream_client::Trim {
    let policy = match trim.keep {
        Keep::Newest(count) => millstream_client::Trim::max_length(count),
        Keep::From(id) => millstream_client::Trim::min_id(entry_id(&id)),
    };
    if trim.exact { policy } else { policy.approximate() }
}

fn freshness(fresh: Fresh) -> Freshness {
    match fresh {
        Fresh::Linearizable => Freshness::Linearizable,
        Fresh::Local => Freshness::Local,
        Fresh::AtLeast(log_index) => Freshness::AtLeast(Receipt { log_index, ..Receipt::default() }),
    }
}

fn position(after: After) -> GroupPosition {
    match after {
        After::Id(id) => GroupPosition::After(entry_id(&id)),
        After::Arrival => GroupPosition::End,
    }
}

fn at(receipt: Receipt) -> Option<u64> {
    Some(receipt.log_index).filter(|index| 0 < *index)
}

pub(super) fn id(id: EntryId) -> Id {
    Id { ms: id.ms, seq: id.seq }
}

fn entry_id(id: &Id) -> EntryId {
    EntryId::new(id.ms, id.seq)
}
