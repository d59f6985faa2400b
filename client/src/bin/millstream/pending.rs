//! `ack`, `nack`, `pending`, `claim`, `autoclaim`.

use std::io;
use std::ops::Bound;
use std::time::Duration;

use clap::Args;
use millstream_client::{AckAndDelete, EntryId, ListPending, Operation, OperationResult, PendingSummary};
use serde_json::json;

use crate::Failure;
use crate::operation::{Verb, mismatch};
use crate::output::Output;
use crate::parse::{self, Mode, References};

/// Acknowledges entries (XACK), and removes them if asked to (XACKDEL)
#[derive(Args)]
pub(crate) struct Ack {
    /// The stream
    stream: String,
    /// The group
    group: String,
    /// The entries
    #[arg(value_name = "ID", required = true, value_parser = parse::id)]
    ids: Vec<EntryId>,
    /// Also remove them from the stream
    #[arg(long)]
    delete: bool,
    /// With --delete: what becomes of other groups' references to them [default: keep]
    #[arg(long, value_enum, requires = "delete")]
    references: Option<References>,
}

impl Verb for Ack {
    fn operation(&self) -> Result<Operation, Failure> {
        let Self { stream, group, ids, delete, references } = self;
        if !delete {
            return Ok(Operation::ack(stream, group, ids.iter().copied()));
        }
        let ack = AckAndDelete::new(stream, group, ids.iter().copied());
        Ok(ack.references(references.unwrap_or_default().into()).into())
    }

    fn print(&self, result: OperationResult, out: &mut Output) -> Result<(), Failure> {
        match result {
            OperationResult::Ack(done) => {
                let json = json!({ "acknowledged": done.acknowledged, "log_index": done.receipt.log_index });
                out.result(format!("acknowledged {}", done.acknowledged), json)?;
            }
            OperationResult::AckAndDelete(done) => {
                out.removals(&self.ids, &done.results, json!({ "log_index": done.receipt.log_index }))?;
            }
            _ => return Err(mismatch()),
        }
        Ok(())
    }
}

/// Gives pending entries back: they belong to nobody, and the next claim takes them at once (XNACK)
#[derive(Args)]
pub(crate) struct Nack {
    /// The stream
    stream: String,
    /// The group
    group: String,
    /// The entries, whoever owns them
    #[arg(value_name = "ID", required = true, value_parser = parse::id)]
    ids: Vec<EntryId>,
    /// What becomes of the delivery count
    #[arg(long, value_enum, default_value = "fail")]
    mode: Mode,
    /// Set the delivery count to this instead; at most 2^63-1
    #[arg(long, value_name = "N")]
    retry_count: Option<u64>,
    /// Make entries pending that are not, if they are in the stream; their count starts at 0
    #[arg(long)]
    force: bool,
}

impl Verb for Nack {
    fn operation(&self) -> Result<Operation, Failure> {
        let Self { stream, group, ids, mode, retry_count, force } = self;
        let mut nack = millstream_client::Nack::new(stream, group, ids.iter().copied()).mode((*mode).into());
        if let Some(count) = retry_count {
            nack = nack.delivery_count(*count);
        }
        if *force {
            nack = nack.force();
        }
        Ok(nack.into())
    }

    fn print(&self, result: OperationResult, out: &mut Output) -> Result<(), Failure> {
        let OperationResult::Nack(done) = result else { return Err(mismatch()) };
        let json = json!({ "released": done.released, "log_index": done.receipt.log_index });
        out.result(format!("released {}", done.released), json)?;
        Ok(())
    }
}

/// Summarises a group's pending entries, or lists them if a range or a filter is given (XPENDING)
#[derive(Args)]
pub(crate) struct Pending {
    /// The stream
    stream: String,
    /// The group
    group: String,
    /// The low end: - or an id; (id leaves it out
    #[arg(value_parser = parse::start, requires = "count")]
    start: Option<Bound<EntryId>>,
    /// The high end: + or an id; (id leaves it out
    #[arg(value_parser = parse::end)]
    end: Option<Bound<EntryId>>,
    /// At most this many [default, with a filter: 1000]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
    /// Only this consumer's
    #[arg(long)]
    consumer: Option<String>,
    /// Only those not delivered for at least MS milliseconds, and those that were given back
    #[arg(long, value_name = "MS")]
    min_idle: Option<u64>,
}

impl Verb for Pending {
    fn operation(&self) -> Result<Operation, Failure> {
        let Self { stream, group, start, end, count, consumer, min_idle } = self;
        let wants_list = start.is_some() || consumer.is_some() || min_idle.is_some();
        if !wants_list {
            return Ok(Operation::get_pending(stream, group));
        }
        let mut list = ListPending::of(stream, group)
            .start(start.unwrap_or(Bound::Unbounded))
            .end(end.unwrap_or(Bound::Unbounded))
            .count(count.unwrap_or(0));
        if let Some(consumer) = consumer {
            list = list.consumer(consumer);
        }
        if let Some(ms) = min_idle {
            list = list.min_idle(Duration::from_millis(*ms));
        }
        Ok(list.into())
    }

    fn print(&self, result: OperationResult, out: &mut Output) -> Result<(), Failure> {
        match result {
            OperationResult::GetPending(summary) => print_summary(&summary, out)?,
            OperationResult::ListPending(page) => {
                let rows = page.entries.into_iter().map(|pending| {
                    let id = pending.id.to_string().into();
                    [id, pending.consumer.into(), pending.idle_ms.into(), pending.delivery_count.into()]
                });
                out.table(["id", "consumer", "idle_ms", "delivery_count"], rows.collect())?;
                match page.next_start.filter(|_| page.more) {
                    Some(next) => {
                        out.result(
                            format!("(more, from {next})"),
                            json!({ "more": true, "next_start": next.to_string() }),
                        )?;
                    }
                    None if page.more => out.more()?,
                    None => {}
                }
            }
            _ => return Err(mismatch()),
        }
        Ok(())
    }
}

fn print_summary(summary: &PendingSummary, out: &mut Output) -> io::Result<()> {
    let id = |id: Option<EntryId>| id.map(|id| id.to_string());
    let (min_id, max_id) = (id(summary.min_id), id(summary.max_id));
    let consumers: serde_json::Map<_, _> =
        summary.consumers.iter().map(|pending| (pending.consumer.clone(), pending.count.into())).collect();
    let mut text = format!("{} pending", summary.count);
    if let (Some(min), Some(max)) = (&min_id, &max_id) {
        text.push_str(&format!(", {min} to {max}"));
    }
    for pending in &summary.consumers {
        text.push_str(&format!("\n{} {}", pending.consumer, pending.count));
    }
    let mut json = json!({ "count": summary.count, "min_id": min_id, "max_id": max_id, "consumers": consumers });
    if summary.more_consumers {
        text.push_str("\n(more)");
        json["more_consumers"] = true.into();
    }
    out.result(text, json)
}

/// Moves pending entries to a consumer (XCLAIM)
#[derive(Args)]
pub(crate) struct Claim {
    /// The stream
    stream: String,
    /// The group
    group: String,
    /// The consumer that takes them; created if missing
    consumer: String,
    /// Only entries not delivered for at least this many milliseconds
    min_idle_ms: u64,
    /// The entries
    #[arg(value_name = "ID", required = true, value_parser = parse::id)]
    ids: Vec<EntryId>,
    /// The delivery time becomes MS milliseconds ago
    #[arg(long, value_name = "MS", conflicts_with = "time")]
    idle: Option<u64>,
    /// The delivery time becomes this, in milliseconds since the Unix epoch
    #[arg(long, value_name = "UNIX_MS")]
    time: Option<u64>,
    /// Set the delivery count
    #[arg(long, value_name = "N")]
    retry_count: Option<u64>,
    /// Make entries pending that are not
    #[arg(long)]
    force: bool,
    /// Print ids only and leave the delivery count alone
    #[arg(long)]
    just_id: bool,
    /// Advance the group's position to at least this
    #[arg(long, value_name = "ID", value_parser = parse::id)]
    last_id: Option<EntryId>,
}

impl Verb for Claim {
    fn operation(&self) -> Result<Operation, Failure> {
        let Self { stream, group, consumer, min_idle_ms, ids, idle, time, retry_count, force, just_id, last_id } = self;
        let claim = millstream_client::Claim::new(stream, group, consumer);
        let mut claim = claim.min_idle(Duration::from_millis(*min_idle_ms)).ids(ids.iter().copied());
        if let Some(ms) = idle {
            claim = claim.idle(Duration::from_millis(*ms));
        }
        if let Some(unix_ms) = time {
            claim = claim.delivered_at_unix_ms(*unix_ms);
        }
        if let Some(count) = retry_count {
            claim = claim.delivery_count(*count);
        }
        if *force {
            claim = claim.force();
        }
        if *just_id {
            claim = claim.ids_only();
        }
        if let Some(id) = last_id {
            claim = claim.last_id(*id);
        }
        Ok(claim.into())
    }

    fn print(&self, result: OperationResult, out: &mut Output) -> Result<(), Failure> {
        let OperationResult::Claim(claimed) = result else { return Err(mismatch()) };
        for entry in &claimed.entries {
            out.entry(None, entry)?;
        }
        if claimed.more {
            out.more()?;
        }
        Ok(())
    }
}

/// Moves pending entries that have been idle for long to a consumer (XAUTOCLAIM)
#[derive(Args)]
pub(crate) struct AutoClaim {
    /// The stream
    stream: String,
    /// The group
    group: String,
    /// The consumer that takes them; created if missing
    consumer: String,
    /// Only entries not delivered for at least this many milliseconds
    min_idle_ms: u64,
    /// Look at pending entries from here: the cursor printed before
    #[arg(default_value = "-", value_parser = parse::start)]
    start: Bound<EntryId>,
    /// Claim at most N entries [default: 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
    /// Print ids only and leave the delivery count alone
    #[arg(long)]
    just_id: bool,
}

impl Verb for AutoClaim {
    fn operation(&self) -> Result<Operation, Failure> {
        let Self { stream, group, consumer, min_idle_ms, start, count, just_id } = self;
        let idle = Duration::from_millis(*min_idle_ms);
        let mut claim = millstream_client::AutoClaim::new(stream, group, consumer, idle).start(*start);
        if let Some(count) = count {
            claim = claim.count(*count);
        }
        if *just_id {
            claim = claim.ids_only();
        }
        Ok(claim.into())
    }

    fn print(&self, result: OperationResult, out: &mut Output) -> Result<(), Failure> {
        let OperationResult::AutoClaim(claimed) = result else { return Err(mismatch()) };
        for entry in &claimed.entries {
            out.entry(None, entry)?;
        }
        for id in &claimed.deleted_ids {
            out.result(format!("{id} (deleted)"), json!({ "id": id.to_string(), "deleted": true }))?;
        }
        out.result(format!("cursor {}", claimed.cursor), json!({ "cursor": claimed.cursor.to_string() }))?;
        Ok(())
    }
}
