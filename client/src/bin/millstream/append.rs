//! `append`: one entry from the command line, or many from a file.

use std::path::PathBuf;

use clap::Args;
use millstream_client::{Client, EntryId, Trim};
use serde_json::json;

use crate::output::Output;
use crate::parse::{self, NewId, Threshold};
use crate::{Failure, jsonl};

/// Appends one entry, or one for each line of a file of JSON objects (XADD)
#[derive(Args)]
pub(crate) struct Append {
    /// The stream; created if missing
    stream: String,
    /// The entry's fields, in this order
    #[arg(value_name = "FIELD=VALUE", value_parser = parse::field, required_unless_present = "jsonl")]
    fields: Vec<(String, String)>,
    /// The entry's id: ms-seq, ms-* or * (the store chooses)
    #[arg(long, default_value = "*", value_parser = parse::new_id)]
    id: NewId,
    /// Refuse rather than create the stream
    #[arg(long)]
    no_create: bool,
    #[command(flatten)]
    trim: TrimArgs,
    /// Append each line of FILE (- is stdin), a JSON object: each key is a field; a string is its value as it is, any
    /// other JSON is its compact text
    #[arg(long, value_name = "FILE", conflicts_with_all = ["fields", "id"])]
    jsonl: Option<PathBuf>,
    /// With --jsonl: appends under way at once. 1 keeps the lines in order in the stream; more is faster, and lines
    /// under way together may change places
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "fields",
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    in_flight: u16,
}

/// What to trim.
#[derive(Args)]
#[group(multiple = false)]
pub(crate) struct TrimArgs {
    /// Keep at most N entries; ~N removes whole blocks only, which is cheaper
    #[arg(long, value_name = "N|~N", value_parser = parse::max_length)]
    maxlen: Option<Threshold<u64>>,
    /// Remove entries with smaller ids; ~ID removes whole blocks only, which is cheaper
    #[arg(long, value_name = "ID|~ID", value_parser = parse::min_id)]
    minid: Option<Threshold<EntryId>>,
}

impl TrimArgs {
    pub(crate) fn trim(&self) -> Option<Trim> {
        let (trim, approximate) = match (self.maxlen, self.minid) {
            (Some(threshold), _) => (Trim::max_length(threshold.value), threshold.approximate),
            (None, Some(threshold)) => (Trim::min_id(threshold.value), threshold.approximate),
            (None, None) => return None,
        };
        Some(if approximate { trim.approximate() } else { trim })
    }
}

impl Append {
    pub(crate) async fn run(self, client: &Client, out: &mut Output) -> Result<(), Failure> {
        let Self { stream, fields, id, no_create, trim, jsonl, in_flight } = self;
        let mut append = millstream_client::Append::to(&stream);
        if no_create {
            append = append.no_create();
        }
        if let Some(trim) = trim.trim() {
            append = append.trim(trim);
        }
        if let Some(file) = jsonl {
            return jsonl::append_lines(client, out, &file, append, in_flight.into()).await;
        }
        append = match id {
            NewId::Auto => append,
            NewId::Ms(ms) => append.ms(ms),
            NewId::Explicit(id) => append.id(id),
        };
        for (name, value) in fields {
            append = append.field(name, value);
        }
        let appended = client.append(append).await?;
        let json = json!({
            "stream": stream,
            "id": appended.id.to_string(),
            "log_index": appended.receipt.log_index,
            "term": appended.receipt.term,
        });
        out.result(appended.id.to_string(), json)?;
        Ok(())
    }
}
