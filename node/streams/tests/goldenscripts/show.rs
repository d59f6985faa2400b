//! From outcomes to the words of a script.

use std::fmt::Write as _;

use millstream_streams::*;

use super::Result;

/// An outcome with the payloads that it names.
pub(crate) fn outcome<'a>(
    out: &mut String,
    indent: &str,
    command: &Command,
    outcome: &Outcome,
    note: &str,
    payloads: &mut impl Iterator<Item = &'a Option<Entry>>,
) -> Result<()> {
    let reply = match outcome {
        Ok(reply) => reply,
        Err(refusal) => return Ok(writeln!(out, "{indent}refused: {refusal}{note}")?),
    };
    if let (Command::Batch(batch), Reply::Batched(batched)) = (command, reply) {
        writeln!(out, "{indent}batch{note}")?;
        for (operation, result) in batch.operations.iter().zip(&batched.results) {
            self::outcome(out, "  ", operation, result, "", payloads)?;
        }
        return Ok(());
    }
    writeln!(out, "{indent}{}{note}", self::reply(reply))?;
    let with_payloads: Vec<EntryId> = match (command, reply) {
        (Command::Claim(Claim { ids_only: true, .. }) | Command::AutoClaim(AutoClaim { ids_only: true, .. }), _) => {
            Vec::new()
        }
        (_, Reply::Delivered(delivered)) => {
            delivered.streams.iter().flat_map(|delivery| delivery.ids.iter().copied()).collect()
        }
        (_, Reply::Claimed(Claimed { ids, .. })) | (_, Reply::AutoClaimed(AutoClaimed { ids, .. })) => ids.clone(),
        (_, Reply::Answer(Answer::Entries { ids, .. } | Answer::Stream { ids, .. } | Answer::Details { ids, .. })) => {
            ids.clone()
        }
        (_, Reply::Answer(Answer::Read(found))) => found.iter().flat_map(|found| found.ids.iter().copied()).collect(),
        _ => Vec::new(),
    };
    for id in with_payloads {
        match payloads.next().ok_or("a payload is missing")? {
            Some(entry) => writeln!(out, "{indent}  {}", self::entry(entry))?,
            None => writeln!(out, "{indent}  {id} is deleted")?,
        }
    }
    Ok(())
}

fn reply(reply: &Reply) -> String {
    match reply {
        Reply::Appended(Appended { id, trimmed, duplicate }) => {
            let trimmed = if *trimmed > 0 { format!(", trimmed {trimmed}") } else { String::new() };
            format!("{} {id}{trimmed}", if *duplicate { "appended before" } else { "appended" })
        }
        Reply::EntriesDeleted(EntriesDeleted { results }) => removals(results),
        Reply::Trimmed(Trimmed { trimmed }) => format!("trimmed {trimmed}"),
        Reply::StreamDeleted(StreamDeleted { existed }) => format!("stream existed: {existed}"),
        Reply::GroupCreated(GroupCreated {}) => "group created".to_owned(),
        Reply::GroupPositionSet(GroupPositionSet {}) => "group moved".to_owned(),
        Reply::GroupDeleted(GroupDeleted { existed }) => format!("group existed: {existed}"),
        Reply::ConsumerCreated(ConsumerCreated { created }) => format!("consumer created: {created}"),
        Reply::ConsumerDeleted(ConsumerDeleted { pending }) => format!("consumer deleted, {pending} pending lost"),
        Reply::Delivered(Delivered { streams, more }) => {
            let streams: Vec<_> = streams.iter().map(delivery).collect();
            format!("delivered {}{}", streams.join(" and "), and_more(*more))
        }
        Reply::Acked(Acked { acknowledged }) => format!("acknowledged {acknowledged}"),
        Reply::Claimed(Claimed { ids, more }) => format!("claimed {}{}", self::ids(ids), and_more(*more)),
        Reply::AutoClaimed(AutoClaimed { cursor, ids, deleted }) => {
            format!("claimed {}, deleted {}, cursor {cursor}", self::ids(ids), self::ids(deleted))
        }
        Reply::SessionOpened(SessionOpened { session }) => format!("session {session}"),
        Reply::SessionClosed(SessionClosed { existed }) => format!("session existed: {existed}"),
        Reply::ClusterCreated(ClusterCreated { cluster_id }) => format!("cluster {cluster_id}"),
        Reply::NodeRegistered(NodeRegistered {}) => "node registered".to_owned(),
        Reply::LastIdSet(LastIdSet {}) => "last id set".to_owned(),
        Reply::StreamConfigured(StreamConfigured { config }) => self::config(config),
        Reply::IdempotencyRecorded(IdempotencyRecorded { added }) => format!("recorded, new: {added}"),
        Reply::AckedAndDeleted(AckedAndDeleted { results }) => removals(results),
        Reply::Nacked(Nacked { released }) => format!("gave back {released}"),
        Reply::AllDeleted(AllDeleted { streams }) => format!("deleted {streams} streams"),
        Reply::RetentionEnforced(RetentionEnforced { trimmed, expired }) => {
            format!("trimmed {trimmed} entries, forgot {expired} keys")
        }
        Reply::Batched(_) => "batch".to_owned(),
        Reply::Answer(answer) => self::answer(answer),
    }
}

fn answer(answer: &Answer) -> String {
    match answer {
        Answer::Entries { ids, more } => format!("entries {}{}", self::ids(ids), and_more(*more)),
        Answer::Read(found) => {
            let found = found
                .iter()
                .map(|found| format!("{} to {}{}", self::ids(&found.ids), found.next_after, and_more(found.more)));
            format!("read {}", found.collect::<Vec<_>>().join(" and "))
        }
        Answer::Stream { info, .. } => format!("stream of {} entries, last id {}", info.length, info.last_id),
        Answer::Details { details, ids } => {
            format!("stream of {} groups, entries {}", details.groups.len(), self::ids(ids))
        }
        Answer::PendingSummary(summary) => format!("{} pending", summary.count),
        Answer::Pending(PendingPage { entries, next }) => {
            let ids: Vec<_> = entries.iter().map(|pending| pending.id).collect();
            format!("pending {}{}", self::ids(&ids), and_more(next.is_some()))
        }
        Answer::Groups { groups, more } => {
            let names: Vec<_> = groups.iter().map(|info| format!("{:?}", info.group)).collect();
            format!("groups {}{}", names.join(" "), and_more(*more))
        }
        Answer::Consumers { consumers, more } => {
            let names: Vec<_> = consumers.iter().map(|info| format!("{:?}", info.consumer)).collect();
            format!("consumers {}{}", names.join(" "), and_more(*more))
        }
    }
}

fn delivery(Delivery { ids, claimed }: &Delivery) -> String {
    if claimed.is_empty() {
        return self::ids(ids);
    }
    let claimed: Vec<_> = claimed.iter().map(|c| format!("idle {} count {}", c.idle_ms, c.delivery_count)).collect();
    format!("{} (claimed: {})", self::ids(ids), claimed.join(", "))
}

fn removals(results: &[Removal]) -> String {
    let words = results.iter().map(|result| match result {
        Removal::Deleted => "deleted",
        Removal::NotFound => "not found",
        Removal::Referenced => "referenced",
    });
    words.collect::<Vec<_>>().join(", ")
}

/// The settings of a stream.
pub(crate) fn config(config: &StreamConfig) -> String {
    let StreamConfig { idempotency_duration_s, idempotency_keys_max, retention } = config;
    let mut out = format!("keys: {idempotency_keys_max} for {idempotency_duration_s} s; retention:");
    let Retention { max_length, min_id, max_age_ms, max_bytes, references } = retention;
    let bounds = [
        max_length.map(|n| format!(" {n} entries")),
        min_id.map(|id| format!(" from {id}")),
        max_age_ms.map(|ms| format!(" {ms} ms")),
        max_bytes.map(|bytes| format!(" {bytes} bytes")),
        (*references != References::Keep).then(|| format!(" {references:?}")),
    ];
    let any = bounds.iter().any(Option::is_some);
    out.extend(bounds.into_iter().flatten());
    if !any {
        out.push_str(" none");
    }
    out
}

fn and_more(more: bool) -> &'static str {
    if more { " and more" } else { "" }
}

pub(crate) fn ids(ids: &[EntryId]) -> String {
    let ids: Vec<_> = ids.iter().map(EntryId::to_string).collect();
    format!("[{}]", ids.join(" "))
}

pub(crate) fn entry(Entry { id, fields }: &Entry) -> String {
    let pairs: Vec<_> =
        fields.iter().map(|(name, value)| format!("{}={}", name.escape_ascii(), value.escape_ascii())).collect();
    format!("{id} {}", pairs.join(" "))
}

pub(crate) fn page(out: &mut String, EntryPage { entries, more, .. }: EntryPage) -> Result<()> {
    for entry in &entries {
        writeln!(out, "{}", self::entry(entry))?;
    }
    if entries.is_empty() {
        writeln!(out, "nothing")?;
    }
    if more {
        writeln!(out, "and more")?;
    }
    Ok(())
}

pub(crate) fn option<T: ToString>(value: Option<T>) -> String {
    value.map_or("none".to_owned(), |value| value.to_string())
}
