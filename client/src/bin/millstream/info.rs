//! `info`: a stream, briefly or in full.

use std::io;

use clap::Args;
use millstream_client::{
    ConsumerDetails, Entry, GroupDetails, InspectStream, Operation, OperationResult, PendingDetails, StreamDetails,
    StreamInfo,
};
use serde_json::{Value, json};

use crate::Failure;
use crate::operation::{Verb, mismatch};
use crate::output::{Output, entry_as_json, fields_as_text};
use crate::settings::{config_as_json, idempotency_as_text, retention_as_text};

/// Describes a stream (XLEN, XINFO STREAM), in full if asked to (FULL)
#[derive(Args)]
pub(crate) struct Info {
    /// The stream
    stream: String,
    /// Also its first entries, its groups, their consumers and pending entries
    #[arg(long)]
    full: bool,
    /// With --full: at most N entries, and N pending entries of each group and consumer [default: 10]
    #[arg(long, value_name = "N", requires = "full", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    count: Option<u32>,
}

impl Verb for Info {
    fn operation(&self) -> Result<Operation, Failure> {
        if !self.full {
            return Ok(Operation::get_stream(&self.stream));
        }
        Ok(InspectStream::of(&self.stream).count(self.count.unwrap_or(0)).into())
    }

    fn print(&self, result: OperationResult, out: &mut Output) -> Result<(), Failure> {
        match result {
            OperationResult::GetStream(info) => print_info(&info, out)?,
            OperationResult::InspectStream(details) => print_details(&details, out)?,
            _ => return Err(mismatch()),
        }
        Ok(())
    }
}

fn print_info(info: &StreamInfo, out: &mut Output) -> io::Result<()> {
    let entry = |entry: &Option<Entry>| {
        entry.as_ref().map_or("-".to_owned(), |entry| format!("{}{}", entry.id, fields_as_text(entry)))
    };
    let (first, last) = (entry(&info.first_entry), entry(&info.last_entry));
    let mut json = info_as_json(info);
    json["first_entry"] = info.first_entry.as_ref().map(entry_as_json).into();
    json["last_entry"] = info.last_entry.as_ref().map(entry_as_json).into();
    out.result(format!("{}\nfirst entry     {first}\nlast entry      {last}", info_as_text(info)), json)
}

fn info_as_json(info: &StreamInfo) -> Value {
    let producers = json!({
        "producers": info.producers.producers,
        "keys": info.producers.keys,
        "keys_added": info.producers.keys_added,
        "duplicates": info.producers.duplicates,
    });
    json!({
        "stream": info.stream,
        "length": info.length,
        "bytes": info.bytes,
        "last_id": info.last_id.to_string(),
        "max_deleted_id": info.max_deleted_id.to_string(),
        "entries_added": info.entries_added,
        "groups": info.groups,
        "last_change_index": info.last_change_index,
        "config": config_as_json(&info.config),
        "producers": producers,
    })
}

fn info_as_text(info: &StreamInfo) -> String {
    let (config, producers) = (&info.config, &info.producers);
    let rows = [
        ("stream", info.stream.clone()),
        ("length", info.length.to_string()),
        ("bytes", info.bytes.to_string()),
        ("last id", info.last_id.to_string()),
        ("max deleted id", info.max_deleted_id.to_string()),
        ("entries added", info.entries_added.to_string()),
        ("groups", info.groups.to_string()),
        ("last change", format!("log index {}", info.last_change_index)),
        ("retention", retention_as_text(&config.retention)),
        ("idempotency", idempotency_as_text(config)),
        (
            "producers",
            format!(
                "{} with {} keys; {} appends ever, {} duplicates",
                producers.producers, producers.keys, producers.keys_added, producers.duplicates
            ),
        ),
    ];
    rows.map(|(name, value)| format!("{name:<16}{value}")).join("\n")
}

fn print_details(details: &StreamDetails, out: &mut Output) -> io::Result<()> {
    let mut text = vec![info_as_text(&details.info)];
    text.extend(details.entries.iter().map(|entry| format!("entry           {}{}", entry.id, fields_as_text(entry))));
    text.extend(details.groups.iter().map(group_as_text));
    if details.truncated {
        text.push("(more)".to_owned());
    }
    let mut json = info_as_json(&details.info);
    json["entries"] = details.entries.iter().map(entry_as_json).collect();
    json["group_details"] = details.groups.iter().map(group_as_json).collect();
    json["truncated"] = details.truncated.into();
    out.result(text.join("\n"), json)
}

fn group_as_text(group: &GroupDetails) -> String {
    let number = |number: Option<u64>| number.map_or("-".to_owned(), |number| number.to_string());
    let mut text = format!(
        "group           {}: after {}, read {}, lag {}, pending {}, released {}",
        group.group,
        group.last_delivered_id,
        number(group.entries_read),
        number(group.lag),
        group.pending_count,
        group.released_count
    );
    for PendingDetails { id, consumer, delivered_ms, delivery_count } in &group.pending {
        let owner = match consumer {
            Some(consumer) => format!("of {consumer}, delivered at {delivered_ms}"),
            None => "given back".to_owned(),
        };
        text.push_str(&format!("\n  pending       {id} {owner}, {delivery_count} times"));
    }
    for ConsumerDetails { consumer, seen_ms, active_ms, pending_count, pending: _ } in &group.consumers {
        let active = number(*active_ms);
        text.push_str(&format!(
            "\n  consumer      {consumer}: pending {pending_count}, seen {seen_ms}, active {active}"
        ));
    }
    text
}

fn group_as_json(group: &GroupDetails) -> Value {
    let pending = |pending: &PendingDetails| {
        json!({
            "id": pending.id.to_string(),
            "consumer": pending.consumer,
            "delivered_ms": pending.delivered_ms,
            "delivery_count": pending.delivery_count,
        })
    };
    let consumer = |consumer: &ConsumerDetails| {
        json!({
            "consumer": consumer.consumer,
            "seen_ms": consumer.seen_ms,
            "active_ms": consumer.active_ms,
            "pending_count": consumer.pending_count,
            "pending": consumer.pending.iter().map(pending).collect::<Value>(),
        })
    };
    json!({
        "group": group.group,
        "last_delivered_id": group.last_delivered_id.to_string(),
        "entries_read": group.entries_read,
        "lag": group.lag,
        "pending_count": group.pending_count,
        "released_count": group.released_count,
        "pending": group.pending.iter().map(pending).collect::<Value>(),
        "consumers": group.consumers.iter().map(consumer).collect::<Value>(),
    })
}
