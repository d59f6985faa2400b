//! `delete`, `trim`, `info`, `streams`, `delete-stream`.

use clap::Args;
use millstream_client::{Client, EntryId};
use serde_json::json;

use crate::Failure;
use crate::append::TrimArgs;
use crate::output::{Output, entry_as_json, fields_as_text};
use crate::parse;

/// Removes entries by id (XDEL)
#[derive(Args)]
pub(crate) struct Delete {
    /// The stream
    stream: String,
    /// The entries
    #[arg(value_name = "ID", required = true, value_parser = parse::id)]
    ids: Vec<EntryId>,
}

impl Delete {
    pub(crate) async fn run(self, client: &Client, out: &mut Output) -> Result<(), Failure> {
        let done = client.delete_entries(self.stream, self.ids).await?;
        let json = json!({ "deleted": done.deleted, "log_index": done.receipt.log_index });
        out.result(format!("deleted {}", done.deleted), json)?;
        Ok(())
    }
}

/// Removes old entries (XTRIM)
#[derive(Args)]
#[command(group = clap::ArgGroup::new("threshold").args(["maxlen", "minid"]).required(true))]
pub(crate) struct Trim {
    /// The stream
    stream: String,
    #[command(flatten)]
    trim: TrimArgs,
}

impl Trim {
    pub(crate) async fn run(self, client: &Client, out: &mut Output) -> Result<(), Failure> {
        let trim = self.trim.trim().ok_or_else(|| Failure::Usage("--maxlen or --minid is needed".to_owned()))?;
        let done = client.trim(self.stream, trim).await?;
        let json = json!({ "trimmed": done.trimmed, "log_index": done.receipt.log_index });
        out.result(format!("trimmed {}", done.trimmed), json)?;
        Ok(())
    }
}

/// Describes a stream (XLEN, XINFO STREAM)
#[derive(Args)]
pub(crate) struct Info {
    /// The stream
    stream: String,
}

impl Info {
    pub(crate) async fn run(self, client: &Client, out: &mut Output) -> Result<(), Failure> {
        let info = client.get_stream(self.stream).await?;
        let json = json!({
            "stream": info.stream,
            "length": info.length,
            "last_id": info.last_id.to_string(),
            "max_deleted_id": info.max_deleted_id.to_string(),
            "entries_added": info.entries_added,
            "groups": info.groups,
            "first_entry": info.first_entry.as_ref().map(entry_as_json),
            "last_entry": info.last_entry.as_ref().map(entry_as_json),
        });
        let entry = |entry: Option<&millstream_client::Entry>| {
            entry.map_or("-".to_owned(), |entry| format!("{}{}", entry.id, fields_as_text(entry)))
        };
        let text = format!(
            "stream          {}\nlength          {}\nlast id         {}\nmax deleted id  {}\nentries added   {}\n\
             groups          {}\nfirst entry     {}\nlast entry      {}",
            info.stream,
            info.length,
            info.last_id,
            info.max_deleted_id,
            info.entries_added,
            info.groups,
            entry(info.first_entry.as_ref()),
            entry(info.last_entry.as_ref()),
        );
        out.result(text, json)?;
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

impl DeleteStream {
    pub(crate) async fn run(self, client: &Client, out: &mut Output) -> Result<(), Failure> {
        let done = client.delete_stream(self.stream).await?;
        let text = if done.existed { "deleted" } else { "there was no such stream" };
        out.result(text, json!({ "deleted": done.existed, "log_index": done.receipt.log_index }))?;
        Ok(())
    }
}
