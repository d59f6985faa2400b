//! Questions to the state, as a client asks them without the log.

use std::fmt::Write as _;

use goldenscript::ArgumentConsumer;
use millstream_streams::*;

use super::Result;
use super::parse::{self, key, pos};
use super::show;
use super::support::Store;

pub(crate) fn look(
    state: &State,
    store: &Store,
    now_ms: u64,
    name: &str,
    args: &mut ArgumentConsumer<'_>,
    flag: &dyn Fn(&str) -> bool,
) -> Result<String> {
    let mut out = String::new();
    match name {
        "rows" => {
            for (key, value) in state.all_rows(store)? {
                writeln!(out, "{key:?}: {} bytes", value.len())?;
            }
        }
        "range" => {
            let stream = parse::stream(args)?;
            let count = key(args, "count")?.unwrap_or(1000);
            let bytes_max = key(args, "bytes_max")?.unwrap_or(usize::MAX);
            let query = parse::range(stream, count, args, flag("reverse"))?;
            show::page(&mut out, state.range(&query).run(store, bytes_max)?)?;
        }
        "read_after" => {
            let (stream, after) = (parse::stream(args)?, pos(args, "id")?.parse()?);
            let count = key(args, "count")?.unwrap_or(1000);
            show::page(&mut out, state.read(&ReadQuery { stream, after, count }).run(store, usize::MAX)?)?;
        }
        "info" => match state.stream_info(&parse::stream(args)?) {
            Err(refusal) => writeln!(out, "refused: {refusal}")?,
            Ok(info) => {
                let StreamInfo { length, last_id, max_deleted_id, entries_added, groups, first, last, .. } = info;
                writeln!(
                    out,
                    "length {length}, added {entries_added}, last id {last_id}, max deleted {max_deleted_id}"
                )?;
                writeln!(out, "first {}, last {}, {groups} groups", show::option(first), show::option(last))?;
            }
        },
        "settings" => match state.stream_info(&parse::stream(args)?) {
            Err(refusal) => writeln!(out, "refused: {refusal}")?,
            Ok(info) => writeln!(out, "{} bytes; {}", info.bytes, show::config(&info.config))?,
        },
        "producers" => match state.stream_info(&parse::stream(args)?) {
            Err(refusal) => writeln!(out, "refused: {refusal}")?,
            Ok(info) => {
                let (added, duplicates) = (info.idempotency_keys_added, info.idempotency_duplicates);
                write!(out, "{} producers, {} keys, ", info.producers, info.idempotency_keys)?;
                writeln!(out, "{added} added, {duplicates} duplicates")?;
            }
        },
        "changed" => {
            let index = state.last_change_index(&parse::stream(args)?);
            writeln!(out, "changed at {}", show::option(index))?;
        }
        "due" => {
            let looks = key(args, "looks")?.unwrap_or(1000);
            let after = args.take_key("after").map(StreamName::new).transpose()?;
            let (due, next) = state.retention_due(now_ms, after.as_ref(), looks);
            writeln!(out, "due {due:?}, next {}", show::option(next))?;
        }
        "next_claimable" => {
            let (stream, group) = (parse::stream(args)?, GroupName::new(pos(args, "group")?)?);
            let (min_idle_ms, after) = (key(args, "min_idle")?.unwrap_or(0), key(args, "after")?);
            match state.next_claimable_ms(&stream, &group, min_idle_ms, after) {
                Err(refusal) => writeln!(out, "refused: {refusal}")?,
                Ok(at_ms) => writeln!(out, "claimable at {}", show::option(at_ms))?,
            }
        }
        "streams" => {
            let after = args.take_key("after").map(StreamName::new).transpose()?;
            let count = key(args, "count")?.unwrap_or(1000);
            for summary in state.list_streams(args.next_pos().unwrap_or(""), after.as_ref(), count) {
                let StreamSummary { stream, length, last_id, groups } = summary;
                writeln!(out, "{stream}: {length} entries, last id {last_id}, {groups} groups")?;
            }
        }
        "groups" => groups(&mut out, state, args)?,
        "consumers" => consumers(&mut out, state, now_ms, args)?,
        "pending" => pending(&mut out, state, now_ms, args)?,
        "details" => details(&mut out, state, args)?,
        "cluster" => {
            writeln!(out, "cluster {}", show::option(state.cluster_id()))?;
            for NodeRecord { node_id, incarnation, peer_address, client_address } in state.nodes() {
                writeln!(out, "  node {node_id} ({incarnation}): peers {peer_address}, clients {client_address}")?;
            }
        }
        "clock" => writeln!(out, "clock {}", state.clock_ms())?,
        _ => return Err(format!("no such command: {name}").into()),
    }
    Ok(out)
}

fn groups(out: &mut String, state: &State, args: &mut ArgumentConsumer<'_>) -> Result<()> {
    let stream = parse::stream(args)?;
    let after = args.take_key("after").map(GroupName::new).transpose()?;
    match state.groups(&stream, after.as_ref(), key(args, "count")?.unwrap_or(1000)) {
        Err(refusal) => writeln!(out, "refused: {refusal}")?,
        Ok(groups) => {
            for info in groups {
                let GroupInfo { group, consumers, pending, last_delivered_id, entries_read, lag, released } = info;
                let (read, lag) = (show::option(entries_read), show::option(lag));
                write!(out, "{group}: at {last_delivered_id}, read {read}, lag {lag}, ")?;
                write!(out, "{consumers} consumers, {pending} pending")?;
                writeln!(out, "{}", if released > 0 { format!(", {released} released") } else { String::new() })?;
            }
        }
    }
    Ok(())
}

fn consumers(out: &mut String, state: &State, now_ms: u64, args: &mut ArgumentConsumer<'_>) -> Result<()> {
    let (stream, group) = (parse::stream(args)?, GroupName::new(pos(args, "group")?)?);
    let after = args.take_key("after").map(ConsumerName::new).transpose()?;
    let count = key(args, "count")?.unwrap_or(1000);
    match state.consumers(&stream, &group, after.as_ref(), count, now_ms) {
        Err(refusal) => writeln!(out, "refused: {refusal}")?,
        Ok(consumers) => {
            for ConsumerInfo { consumer, pending, idle_ms, inactive_ms } in consumers {
                let inactive = show::option(inactive_ms);
                writeln!(out, "{consumer}: {pending} pending, idle {idle_ms}, inactive {inactive}")?;
            }
        }
    }
    Ok(())
}

fn pending(out: &mut String, state: &State, now_ms: u64, args: &mut ArgumentConsumer<'_>) -> Result<()> {
    let stream = parse::stream(args)?;
    let count = key(args, "count")?.unwrap_or(1000);
    let query = parse::pending(stream, count, args)?;
    match state.pending_summary(&query.stream, &query.group) {
        Err(refusal) => writeln!(out, "refused: {refusal}")?,
        Ok(PendingSummary { count, min_id, max_id, consumers, more }) => {
            assert!(!more);
            let counts: Vec<_> = consumers.iter().map(|row| format!("{} {}", row.consumer, row.count)).collect();
            let range = format!("{} to {}", show::option(min_id), show::option(max_id));
            writeln!(out, "{count} pending, {range}; {}", counts.join(", "))?;
        }
    }
    let page = state.pending_list(&query, now_ms).unwrap_or_default();
    for PendingEntry { id, consumer, idle_ms, delivery_count } in page.entries {
        match (consumer, idle_ms) {
            (Some(consumer), Some(idle_ms)) => {
                writeln!(out, "  {id} {consumer}: idle {idle_ms}, delivered {delivery_count}")?;
            }
            (consumer, idle_ms) => {
                assert_eq!((consumer, idle_ms), (None, None));
                writeln!(out, "  {id} released, delivered {delivery_count}")?;
            }
        }
    }
    Ok(())
}

fn details(out: &mut String, state: &State, args: &mut ArgumentConsumer<'_>) -> Result<()> {
    let stream = parse::stream(args)?;
    let details = match state.stream_details(&stream, key(args, "count")?.unwrap_or(10)) {
        Err(refusal) => return Ok(writeln!(out, "refused: {refusal}")?),
        Ok(details) => details,
    };
    for GroupDetails { info, pending, consumers } in details.groups {
        writeln!(out, "{}: {} pending, {} released", info.group, info.pending, info.released)?;
        for PendingDetails { id, consumer, delivered_ms, delivery_count } in pending {
            writeln!(out, "  {id} of {}: at {delivered_ms}, delivered {delivery_count}", show::option(consumer))?;
        }
        for ConsumerDetails { consumer, seen_ms, active_ms, pending_count, pending } in consumers {
            writeln!(out, "  {consumer}: seen {seen_ms}, active {}, {pending_count} pending", show::option(active_ms))?;
            for PendingDetails { id, delivered_ms, delivery_count, .. } in pending {
                writeln!(out, "    {id}: at {delivered_ms}, delivered {delivery_count}")?;
            }
        }
    }
    if details.truncated {
        writeln!(out, "and more")?;
    }
    Ok(())
}
