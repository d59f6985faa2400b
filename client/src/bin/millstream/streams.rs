//! `delete`, `trim`, `set-last-id`, `record-idempotency`, `streams`, `delete-stream`, `delete-all`.

use clap::Args;
use millstream_client::{Client, DeleteEntries, EntryId, Operation, OperationResult};
use serde_json::json;

use crate::Failure;
use crate::append::TrimArgs;
use crate::operation::{Verb, mismatch};
use crate::output::Output;
use crate::parse::{self, References};

/// Removes entries by id (XDEL, XDELEX)
#[derive(Args)]
pub(crate) struct Delete {
    /// The stream
    stream: String,
    /// The entries
    #[arg(value_name = "ID", required = true, value_parser = parse::id)]
    ids: Vec<EntryId>,
    /// What becomes of the groups' references to them
    #[arg(long, value_enum, default_value = "keep")]
    references: References,
}

impl Verb for Delete {
    fn operation(&self) -> Result<Operation, Failure> {
        let delete = DeleteEntries::of(&self.stream, self.ids.iter().copied());
        Ok(delete.references(self.references.into()).into())
    }

    fn print(&self, result: OperationResult, out: &mut Output) -> Result<(), Failure> {
        let OperationResult::DeleteEntries(done) = result else { return Err(mismatch()) };
        let json = json!({ "deleted": done.deleted, "log_index": done.receipt.log_index });
        out.removals(&self.ids, &done.results, json)?;
        Ok(())
    }
}

/// Removes old entries (XTRIM)
#[derive(Args)]
#[command(mut_group("threshold", |group| group.required(true)))]
pub(crate) struct Trim {
    /// The stream
    stream: String,
    #[command(flatten)]
    trim: TrimArgs,
}

impl Verb for Trim {
    fn operation(&self) -> Result<Operation, Failure> {
        let trim = self.trim.trim().ok_or_else(|| Failure::Usage("--maxlen or --minid is needed".to_owned()))?;
        Ok(Operation::trim(&self.stream, trim))
    }

    fn print(&self, result: OperationResult, out: &mut Output) -> Result<(), Failure> {
        let OperationResult::Trim(done) = result else { return Err(mismatch()) };
        let json = json!({ "trimmed": done.trimmed, "log_index": done.receipt.log_index });
        out.result(format!("trimmed {}", done.trimmed), json)?;
        Ok(())
    }
}

/// Sets a stream's last id and counters (XSETID)
#[derive(Args)]
pub(crate) struct SetLastId {
    /// The stream
    stream: String,
    /// The new last id; not smaller than the last entry's or the greatest deleted one's
    #[arg(value_parser = parse::id)]
    id: EntryId,
    /// Entries ever appended; not fewer than there are, at most 2^63-1 [default: as before]
    #[arg(long, value_name = "N")]
    entries_added: Option<u64>,
    /// The greatest deleted id; 0-0 is as before [default: as before]
    #[arg(long, value_name = "ID", value_parser = parse::id)]
    max_deleted_id: Option<EntryId>,
}

impl Verb for SetLastId {
    fn operation(&self) -> Result<Operation, Failure> {
        let mut set = millstream_client::SetLastId::new(&self.stream, self.id);
        if let Some(entries) = self.entries_added {
            set = set.entries_added(entries);
        }
        if let Some(id) = self.max_deleted_id {
            set = set.max_deleted_id(id);
        }
        Ok(set.into())
    }

    fn print(&self, result: OperationResult, out: &mut Output) -> Result<(), Failure> {
        let OperationResult::SetLastId(receipt) = result else { return Err(mismatch()) };
        out.result("set", json!({ "log_index": receipt.log_index }))?;
        Ok(())
    }
}

/// Remembers that a producer appended an entry under a key, for migrations (XIDMPRECORD)
#[derive(Args)]
pub(crate) struct RecordIdempotency {
    /// The stream
    stream: String,
    /// The producer
    producer: String,
    /// What the producer called this append
    key: String,
    /// The entry, which must be in the stream
    #[arg(value_parser = parse::id)]
    id: EntryId,
}

impl Verb for RecordIdempotency {
    fn operation(&self) -> Result<Operation, Failure> {
        let Self { stream, producer, key, id } = self;
        Ok(Operation::record_idempotency(stream, producer.clone(), key.clone(), *id))
    }

    fn print(&self, result: OperationResult, out: &mut Output) -> Result<(), Failure> {
        let OperationResult::RecordIdempotency(done) = result else { return Err(mismatch()) };
        let text = if done.added { "recorded" } else { "it was recorded already" };
        out.result(text, json!({ "added": done.added, "log_index": done.receipt.log_index }))?;
        Ok(())
    }
}

/// Lists streams by name
#[derive(Args)]
pub(crate) struct Streams {
    /// Only names that start with this
    #[arg(long, default_value = "")]
    prefix: String,
}

impl Streams {
    pub(crate) async fn run(self, client: &Client, out: &mut Output) -> Result<(), Failure> {
        let mut rows = Vec::new();
        let mut page = None;
        loop {
            let streams = client.list_streams(&self.prefix, page).await?;
            let row = |summary: millstream_client::StreamSummary| {
                let last_id = summary.last_id.to_string().into();
                [summary.stream.into(), summary.length.into(), last_id, summary.groups.into()]
            };
            rows.extend(streams.streams.into_iter().map(row));
            page = streams.next;
            if page.is_none() {
                break;
            }
        }
        out.table(["stream", "length", "last_id", "groups"], rows)?;
        Ok(())
    }
}

/// Removes a stream with its entries and groups (DEL)
#[derive(Args)]
pub(crate) struct DeleteStream {
    /// The stream
    stream: String,
}

impl Verb for DeleteStream {
    fn operation(&self) -> Result<Operation, Failure> {
        Ok(Operation::delete_stream(&self.stream))
    }

    fn print(&self, result: OperationResult, out: &mut Output) -> Result<(), Failure> {
        let OperationResult::DeleteStream(done) = result else { return Err(mismatch()) };
        let text = if done.existed { "deleted" } else { "there was no such stream" };
        out.result(text, json!({ "deleted": done.existed, "log_index": done.receipt.log_index }))?;
        Ok(())
    }
}

/// Removes all streams (FLUSHALL)
#[derive(Args)]
pub(crate) struct DeleteAll {
    /// Yes, all of them
    #[arg(long, required = true)]
    yes: bool,
}

impl Verb for DeleteAll {
    fn operation(&self) -> Result<Operation, Failure> {
        Ok(Operation::delete_all())
    }

    fn print(&self, result: OperationResult, out: &mut Output) -> Result<(), Failure> {
        let OperationResult::DeleteAll(done) = result else { return Err(mismatch()) };
        let json = json!({ "streams": done.streams, "log_index": done.receipt.log_index });
        out.result(format!("deleted {} streams", done.streams), json)?;
        Ok(())
    }
}
